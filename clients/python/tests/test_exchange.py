import asyncio
import logging
import unittest
from typing import Any, Dict, List, Optional

from countersign import CannotTell, Client, OutsideLimits, wrap
from countersign.exchange import outcome_of, told

from .daemon import Daemon


class BaseError(Exception):
    pass


class InvalidOrder(BaseError):
    pass


class NetworkError(BaseError):
    pass


class FakeExchange:
    """As much of ccxt as the wrapper touches: methods that end in ``request``."""

    id = "binance"

    def __init__(self) -> None:
        self.sent: List[Dict[str, Any]] = []
        self.error: Optional[Exception] = None

    def request(self, path: str, api: Any = "public", method: str = "GET", params: Any = {}, config: Any = {}) -> Any:
        self.sent.append({"path": path, "method": method, **params})
        if self.error is not None:
            raise self.error
        return {"orderId": 77, "clientOrderId": params.get("newClientOrderId")}

    def create_order(self, symbol: str, type: str, side: str, amount: str, price: str, params: Any = {}) -> Any:
        own = params.get("clientOrderId", "x-TKT5PX2F0123456789abcdef012345")
        order = {"symbol": symbol, "side": side.upper(), "type": type.upper(), "quantity": amount, "price": price}
        return self.request("order", ["private"], "POST", {**order, "timeInForce": "GTC", "newClientOrderId": own})


class FakeAsyncExchange(FakeExchange):
    async def request(  # type: ignore[override]
        self, path: str, api: Any = "public", method: str = "GET", params: Any = {}, config: Any = {}
    ) -> Any:
        return FakeExchange.request(self, path, api, method, params, config)


class WrapCase(unittest.TestCase):
    def setUp(self) -> None:
        logging.getLogger("countersign").setLevel(logging.CRITICAL)
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        self.client = Client("main", "mm-1", socket=self.daemon.socket, deadline=2.0, heartbeat_every=30.0)
        self.addCleanup(self.client.close, 0.2)


class Sync(WrapCase):
    def test_an_order_is_told_then_sent_with_the_issued_id_then_its_result_told(self) -> None:
        exchange = wrap(FakeExchange(), self.client)
        answer = exchange.create_order("BTCUSDT", "limit", "buy", "0.01", "60000")
        self.assertEqual(answer["clientOrderId"], "issued-1")
        (place,) = self.daemon.told("place")
        self.assertNotIn("client_order_id", place)
        self.assertEqual((place["quantity"], place["price"], place["time_in_force"]), ("0.01", "60000", "GTC"))
        (result,) = self.daemon.wait_for(1, "result")
        self.assertEqual((result["of"], result["outcome"], result["order_id"]), (1, "accepted", 77))

    def test_an_id_of_the_bots_own_is_kept(self) -> None:
        exchange = wrap(FakeExchange(), self.client)
        exchange.create_order("BTCUSDT", "limit", "buy", "0.01", "60000", {"clientOrderId": "mine"})
        self.assertEqual(exchange.sent[0]["newClientOrderId"], "mine")
        self.assertEqual(self.daemon.told("place")[0]["client_order_id"], "mine")

    def test_cancels_are_told_and_cancel_all_has_no_id(self) -> None:
        exchange = wrap(FakeExchange(), self.client)
        exchange.request("order", "private", "DELETE", {"symbol": "BTCUSDT", "orderId": "7"})
        exchange.request("openOrders", "private", "DELETE", {"symbol": "BTCUSDT"})
        one, every = self.daemon.told("cancel")
        self.assertEqual((one["order_id"], every["all"]), (7, True))
        self.assertEqual(exchange.sent[0]["newClientOrderId"], "issued-1")
        self.assertNotIn("newClientOrderId", exchange.sent[1])

    def test_an_edit_is_a_cancel_replace_with_two_ids(self) -> None:
        exchange = wrap(FakeExchange(), self.client)
        params = {"symbol": "BTCUSDT", "side": "SELL", "type": "MARKET", "quantity": "1", "cancelOrderId": "7"}
        exchange.request("order/cancelReplace", "private", "POST", params)
        (edit,) = self.daemon.told("cancel_replace")
        self.assertEqual((edit["cancel"], edit["place"]["quantity"]), ({"order_id": 7}, "1"))
        sent = exchange.sent[0]
        self.assertEqual((sent["newClientOrderId"], sent["cancelNewClientOrderId"]), ("issued-1", "cancel-1"))

    def test_a_refused_order_is_not_sent(self) -> None:
        exchange = wrap(FakeExchange(), self.client)
        self.daemon.mode = "outside_limits"
        with self.assertRaises(OutsideLimits):
            exchange.create_order("BTCUSDT", "limit", "buy", "0.01", "60000")
        self.assertEqual(exchange.sent, [])

    def test_an_error_of_the_venue_is_told_and_raised(self) -> None:
        exchange = wrap(FakeExchange(), self.client)
        for error, outcome, code in (
            (InvalidOrder('binance {"code":-1013,"msg":"Filter failure"}'), "rejected", -1013),
            (NetworkError("binance timed out"), "unknown", None),
            (KeyError("a bug elsewhere"), "unknown", None),
        ):
            exchange.error = error
            with self.assertRaises(type(error)):
                exchange.create_order("BTCUSDT", "limit", "buy", "0.01", "60000")
            result = self.daemon.wait_for(len(self.daemon.told("place")), "result")[-1]
            self.assertEqual((result["outcome"], result.get("code")), (outcome, code))

    def test_what_is_no_order_goes_through_untold(self) -> None:
        exchange = wrap(FakeExchange(), self.client)
        exchange.request("account", "private", "GET", {})
        exchange.request("order", "private", "GET", {"symbol": "BTCUSDT"})
        exchange.request("order/test", "private", "POST", {"symbol": "BTCUSDT"})
        exchange.request("order", "fapiPrivate", "POST", {"symbol": "BTCUSDT"})
        self.assertEqual(len(exchange.sent), 4)
        self.assertEqual(self.daemon.told("place", "cancel"), [])

    def test_order_lists_are_refused_not_sent_untold(self) -> None:
        exchange = wrap(FakeExchange(), self.client)
        for path in ("order/oco", "orderList/oco", "orderList/otoco", "orderList"):
            with self.assertRaises(CannotTell):
                exchange.request(path, "private", "POST", {"symbol": "BTCUSDT"})
        self.assertEqual(exchange.sent, [])

    def test_only_binance_is_wrapped_and_only_once(self) -> None:
        exchange = wrap(FakeExchange(), self.client)
        with self.assertRaises(ValueError):
            wrap(exchange, self.client)
        other = FakeExchange()
        other.id = "kraken"
        with self.assertRaises(ValueError):
            wrap(other, self.client)
        stranger = FakeExchange()
        stranger.request = lambda path, method, params: None  # type: ignore[assignment]
        with self.assertRaises(ValueError):
            wrap(stranger, self.client)
        with self.assertRaises(ValueError):
            wrap(FakeExchange(), self.client, policy="local")
        with self.assertRaises(ValueError):
            wrap(FakeExchange(), self.client, policy="hope")


class Async(WrapCase):
    def test_an_async_exchange_does_the_same(self) -> None:
        exchange = wrap(FakeAsyncExchange(), self.client)
        answer = asyncio.run(exchange.create_order("BTCUSDT", "limit", "buy", "0.01", "60000"))
        self.assertEqual(answer["clientOrderId"], "issued-1")
        exchange.error = InvalidOrder('binance {"code":-2010,"msg":"no money"}')
        with self.assertRaises(InvalidOrder):
            asyncio.run(exchange.create_order("BTCUSDT", "limit", "buy", "0.01", "60000"))
        outcomes = [result["outcome"] for result in self.daemon.wait_for(2, "result")]
        self.assertEqual(outcomes, ["accepted", "rejected"])


class Words(unittest.TestCase):
    def test_every_field_of_an_order_is_told(self) -> None:
        params = {
            "symbol": "BTCUSDT", "side": "SELL", "type": "STOP_LOSS_LIMIT", "timeInForce": "GTC", "quantity": 0.00001,
            "price": "54900.10", "stopPrice": "55000", "trailingDelta": "150.0", "icebergQty": "0", "strategyId": 5,
            "selfTradePreventionMode": "EXPIRE_TAKER", "newOrderRespType": "FULL", "recvWindow": 5000,
        }
        self.assertEqual(
            told("order", "private", "POST", params),
            {
                "kind": "place", "symbol": "BTCUSDT", "side": "SELL", "type": "STOP_LOSS_LIMIT", "time_in_force": "GTC",
                "quantity": "0.00001", "price": "54900.10", "stop_price": "55000", "trailing_delta": 150,
                "strategy_id": 5, "stp_mode": "EXPIRE_TAKER",
            },
        )

    def test_only_a_sure_refusal_counts_as_one(self) -> None:
        for error, outcome in (
            (InvalidOrder('{"code":-1007,"msg":"Timeout"}'), "unknown"),
            (InvalidOrder('{"code":-2021,"msg":"partially failed"}'), "unknown"),
            (NetworkError('{"code":-1021,"msg":"timestamp"}'), "rejected"),
            (NetworkError("reset"), "unknown"),
            (TimeoutError(), "unknown"),
            (asyncio.CancelledError(), "unknown"),
        ):
            self.assertEqual(outcome_of(error)[0], outcome, repr(error))


if __name__ == "__main__":
    unittest.main()
