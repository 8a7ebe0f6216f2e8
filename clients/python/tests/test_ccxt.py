"""The wrapper around the real ccxt, whose network is replaced by a function: nothing leaves this process."""

import asyncio
import json
import logging
import unittest
import urllib.parse
from typing import Any, Dict, List

from countersign import Client, TagKey, wrap

from .daemon import Daemon

try:
    import ccxt
    import ccxt.async_support
    import ccxt.pro
except ImportError:
    ccxt = None  # type: ignore[assignment]

FILTERS = [
    {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
    {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"},
]
MARKET = {
    "symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "baseAssetPrecision": 8,
    "quoteAssetPrecision": 8, "quotePrecision": 8, "isSpotTradingAllowed": True, "permissionSets": [["SPOT"]],
    "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"],
    "filters": FILTERS,
}
OPTIONS = {
    "apiKey": "key",
    "secret": "secret",
    "enableRateLimit": False,
    "options": {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False, "fetchCurrencies": False},
}
KEY = TagKey.derive(b"a secret of these tests", "main", "bot/mm-1", 1)


class Venue:
    """Answers what ccxt asks and remembers what it sent."""

    def __init__(self) -> None:
        self.sent: List[Dict[str, str]] = []
        self.error: Any = None

    def answer(self, url: str, method: str, body: Any) -> Any:
        path = urllib.parse.urlsplit(url).path
        if path.endswith("/exchangeInfo"):
            return {"symbols": [MARKET]}
        if "/order" not in path and "/openOrders" not in path:
            return []
        query = body or urllib.parse.urlsplit(url).query
        sent = dict(urllib.parse.parse_qsl(query))
        self.sent.append({"path": path, "method": method, **sent})
        if self.error is not None:
            raise self.error
        order = {"symbol": "BTCUSDT", "orderId": 77, "clientOrderId": sent.get("newClientOrderId", ""), "status": "NEW",
                 "side": "BUY", "type": "LIMIT", "price": "1", "origQty": "1", "executedQty": "0"}
        if path.endswith("/openOrders"):
            return [order]
        return {"newOrderResponse": order} if path.endswith("cancelReplace") else order


@unittest.skipIf(ccxt is None, "SKIPPED: ccxt is not installed")
class RealCcxt(unittest.TestCase):
    def setUp(self) -> None:
        logging.getLogger("countersign").setLevel(logging.CRITICAL)
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        self.client = Client(
            "main", "mm-1", socket=self.daemon.socket, deadline=2.0, heartbeat_every=30.0, tag_key=KEY
        )
        self.addCleanup(self.client.close, 0.2)
        self.venue = Venue()

    def sync(self, policy: str = "send") -> Any:
        exchange = ccxt.binance(OPTIONS)
        exchange.fetch = lambda url, method="GET", headers=None, body=None: self.venue.answer(url, method, body)
        return wrap(exchange, self.client, policy)

    def test_what_is_told_is_what_is_sent(self) -> None:
        exchange = self.sync()
        exchange.create_order("BTC/USDT", "limit", "buy", 0.0123456789, 60000.129)
        exchange.create_market_buy_order("BTC/USDT", 0.5)
        exchange.create_order("BTC/USDT", "market", "buy", None, None, {"cost": 250})
        exchange.createLimitSellOrder("BTC/USDT", 1, 70000)
        exchange.create_order("BTC/USDT", "limit", "sell", 1, 54900, {"stopLossPrice": 55000})
        exchange.create_order("BTC/USDT", "limit", "buy", 1, 54900, {"postOnly": True})
        exchange.private_post_order({"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.1"})
        places = self.daemon.told("place")
        self.assertEqual(len(places), 7)
        for place, sent in zip(places, self.venue.sent):
            with self.subTest(place["type"]):
                self.assertEqual(sent["newClientOrderId"], f"issued-{place['seq']}")
                for told, name in (("side", "side"), ("type", "type"), ("quantity", "quantity"), ("price", "price"),
                                   ("stop_price", "stopPrice"), ("quote_quantity", "quoteOrderQty")):
                    self.assertEqual(place.get(told), sent.get(name))
        self.assertEqual((places[0]["quantity"], places[0]["price"]), ("0.01234", "60000.13"))
        self.assertEqual([place["type"] for place in places[4:6]], ["STOP_LOSS_LIMIT", "LIMIT_MAKER"])
        results = self.daemon.wait_for(7, "result")
        self.assertEqual({(r["outcome"], r["order_id"]) for r in results}, {("accepted", 77)})

    def test_an_id_of_the_bots_own_is_kept(self) -> None:
        self.sync().create_order("BTC/USDT", "limit", "buy", 1, 60000, {"clientOrderId": "mine"})
        self.assertEqual(self.venue.sent[0]["newClientOrderId"], "mine")
        self.assertEqual(self.daemon.told("place")[0]["client_order_id"], "mine")

    def test_cancels_and_edits(self) -> None:
        exchange = self.sync()
        exchange.cancel_order("7", "BTC/USDT")
        exchange.cancel_order("", "BTC/USDT", {"clientOrderId": "mine"})
        exchange.cancel_all_orders("BTC/USDT")
        exchange.edit_order("7", "BTC/USDT", "limit", "buy", 1, 60000)
        one, named, every = self.daemon.told("cancel")
        self.assertEqual((one["order_id"], named["orig_client_order_id"], every["all"]), (7, "mine", True))
        first, second, third, edit = self.venue.sent
        self.assertEqual((first["orderId"], first["newClientOrderId"]), ("7", "issued-1"))
        self.assertEqual((second["origClientOrderId"], second["newClientOrderId"][:7]), ("mine", "issued-"))
        self.assertNotIn("newClientOrderId", third)
        (told,) = self.daemon.told("cancel_replace")
        self.assertEqual((told["cancel"], told["place"]["price"]), ({"order_id": 7}, "60000"))
        self.assertEqual(edit["newClientOrderId"], f"issued-{told['seq']}")
        self.assertEqual(edit["cancelNewClientOrderId"], f"cancel-{told['seq']}")

    def test_errors_are_told_for_what_they_are(self) -> None:
        exchange = self.sync()
        exchange.load_markets()
        for error, outcome in (
            (ccxt.InsufficientFunds('binance {"code":-2010,"msg":"no money"}'), "rejected"),
            (ccxt.RequestTimeout("binance timed out"), "unknown"),
            (ccxt.ExchangeNotAvailable("binance 503"), "unknown"),
            (ccxt.BadResponse('binance {"code":-1006,"msg":"unexpected"}'), "unknown"),
            (ccxt.InvalidNonce('binance {"code":-1021,"msg":"ahead"}'), "rejected"),
        ):
            self.venue.error = error
            with self.assertRaises(type(error)):
                exchange.create_order("BTC/USDT", "limit", "buy", 1, 60000)
            result = self.daemon.wait_for(len(self.daemon.told("place")), "result")[-1]
            self.assertEqual(result["outcome"], outcome, repr(error))

    def test_without_the_daemon_the_order_goes_out_with_a_local_id(self) -> None:
        exchange = self.sync("local")
        exchange.load_markets()
        self.daemon.mode = "silent"
        self.client.deadline = 0.05
        exchange.create_order("BTC/USDT", "limit", "buy", 1, 60000)
        sent = self.venue.sent[0]["newClientOrderId"]
        self.assertEqual(len(sent), 31)
        self.assertEqual(self.daemon.wait_for(2, "place")[1]["client_order_id"], sent)

    def test_async_and_websocket_orders(self) -> None:
        async def trade() -> List[Dict[str, Any]]:
            exchange = ccxt.pro.binance(OPTIONS)
            frames: List[Dict[str, Any]] = []

            async def fetch(url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
                return self.venue.answer(url, method, body)

            async def watch(url: str, hash: str, message: Any, *_: Any) -> Any:
                frames.append(json.loads(json.dumps(message)))
                return {"id": "78", "clientOrderId": message["params"].get("newClientOrderId")}

            exchange.fetch, exchange.watch = fetch, watch
            wrap(exchange, self.client)
            await exchange.create_order("BTC/USDT", "limit", "buy", 1, 60000)
            await exchange.cancel_all_orders("BTC/USDT")
            await exchange.create_order_ws("BTC/USDT", "limit", "sell", 0.123456789, 61000)
            await exchange.createOrderWs("BTC/USDT", "market", "sell", 1, params={"clientOrderId": "mine"})
            await exchange.cancel_order_ws("78", "BTC/USDT")
            await exchange.edit_order_ws("78", "BTC/USDT", "limit", "sell", 1, 62000)
            await exchange.cancel_all_orders_ws("BTC/USDT")
            await exchange.close()
            return frames

        place, market, cancel, edit, every = asyncio.run(trade())
        self.assertEqual(self.venue.sent[0]["newClientOrderId"], "issued-1")
        told = {record["seq"]: record for record in self.daemon.told("place", "cancel", "cancel_replace")}
        seq = int(place["params"]["newClientOrderId"].rpartition("-")[2])
        self.assertEqual((told[seq]["quantity"], place["params"]["quantity"]), ("0.12345", "0.12345"))
        self.assertEqual(market["params"]["newClientOrderId"], "mine")
        self.assertNotIn("clientOrderId", market["params"])
        seq = int(cancel["params"]["newClientOrderId"].rpartition("-")[2])
        self.assertEqual((told[seq]["order_id"], cancel["params"]["orderId"]), (78, "78"))
        seq = int(edit["params"]["newClientOrderId"].rpartition("-")[2])
        self.assertEqual(edit["params"]["cancelNewClientOrderId"], f"cancel-{seq}")
        self.assertNotIn("newClientOrderId", every["params"])
        results = self.daemon.wait_for(7, "result")
        self.assertEqual([r["outcome"] for r in results], ["accepted"] * 7)


if __name__ == "__main__":
    unittest.main()
