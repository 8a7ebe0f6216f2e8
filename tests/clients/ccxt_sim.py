"""Unmodified ccxt against the simulated exchange: every call a bot makes, and what each must give.

Usage: ccxt_sim.py REST_URL WS_URL API_KEY SECRET. Prints "OK" at the end; anything else is a failure.
"""

import asyncio
import json
import sys
import urllib.request

import ccxt.pro

REST, WS, KEY, SECRET = sys.argv[1:5]
SYMBOL = "BTC/USDT"


def exchange():
    api = {name: f"{REST}/sapi/{version}" for name, version in
           [("sapi", "v1"), ("sapiV2", "v2"), ("sapiV3", "v3"), ("sapiV4", "v4")]}
    api |= {"public": f"{REST}/api/v3", "private": f"{REST}/api/v3", "v1": f"{REST}/api/v1"}
    api["ws"] = {"spot": WS.replace("/ws-api/v3", "/ws"), "ws-api": {"spot": WS}}
    return ccxt.pro.binance({
        "apiKey": KEY, "secret": SECRET, "urls": {"api": api},
        "options": {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False},
    })


async def watched(ex, seen):
    """Everything that `watch_orders` tells, by client order id."""
    while True:
        for order in await ex.watch_orders():
            seen.setdefault(order["clientOrderId"], []).append(order)


async def subscribed():
    """Until the exchange itself says that somebody listens."""
    while True:
        with urllib.request.urlopen(f"{REST}/sim/v1/connections") as answer:
            if any(connection["subscriptions"] for connection in json.load(answer)):
                return
        await asyncio.sleep(0.05)


async def until(seen, client_id, status):
    for _ in range(100):
        if any(order["status"] == status for order in seen.get(client_id, [])):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{client_id}: no {status!r} on the stream, seen {seen.get(client_id)}")


async def refused(error, call):
    try:
        await call
    except error:
        return
    raise AssertionError(f"{error.__name__} was expected")


async def trade(ex, seen):
    markets = await ex.load_markets()
    assert markets[SYMBOL]["precision"]["price"] == 0.01, markets[SYMBOL]["precision"]
    before = await ex.fetch_balance()
    assert before["USDT"]["free"] > 1000
    last = (await ex.fetch_ticker(SYMBOL))["last"]
    assert len(await ex.fetch_ohlcv(SYMBOL, "1m", limit=5)) == 5
    book = await ex.fetch_order_book(SYMBOL)
    assert book["bids"][0][0] < book["asks"][0][0]

    low = float(ex.price_to_precision(SYMBOL, last * 0.5))
    resting = await ex.create_order(SYMBOL, "limit", "buy", 0.001, low, {"clientOrderId": "ccxt-limit-1"})
    assert resting["status"] == "open" and resting["clientOrderId"] == "ccxt-limit-1"
    await until(seen, "ccxt-limit-1", "open")
    await refused(ccxt.InvalidOrder, ex.create_order(SYMBOL, "limit", "buy", 0.001, low, {"clientOrderId": "ccxt-limit-1"}))
    assert [order["id"] for order in await ex.fetch_open_orders(SYMBOL)] == [resting["id"]]
    assert (await ex.fetch_order(resting["id"], SYMBOL))["price"] == low
    await ex.cancel_order(resting["id"], SYMBOL)
    await until(seen, "ccxt-limit-1", "canceled")
    await refused(ccxt.OrderNotFound, ex.cancel_order(resting["id"], SYMBOL))

    bought = await ex.create_order(SYMBOL, "market", "buy", 0.01, None, {"clientOrderId": "ccxt-market-1"})
    assert bought["status"] == "closed" and bought["filled"] == 0.01, bought
    await until(seen, "ccxt-market-1", "closed")
    spent = await ex.create_market_buy_order_with_cost(SYMBOL, 100)
    assert spent["status"] == "closed" and 99 < spent["cost"] <= 100, spent

    stop = float(ex.price_to_precision(SYMBOL, last * 0.8))
    limit = float(ex.price_to_precision(SYMBOL, last * 0.79))
    params = {"stopPrice": stop, "clientOrderId": "ccxt-stop-1"}
    await ex.create_order(SYMBOL, "limit", "sell", 0.001, limit, params)
    await ex.create_order(SYMBOL, "limit", "buy", 0.001, low)
    assert len(await ex.fetch_open_orders(SYMBOL)) == 2
    await ex.cancel_all_orders(SYMBOL)
    await until(seen, "ccxt-stop-1", "canceled")
    assert await ex.fetch_open_orders(SYMBOL) == []

    await refused(ccxt.InsufficientFunds, ex.create_order(SYMBOL, "limit", "buy", 900, low))
    await refused(ccxt.BadRequest, ex.create_order(SYMBOL, "limit", "buy", 0.001, low, {"clientOrderId": "not.legal"}))
    await refused(ccxt.BadRequest, ex.create_order(SYMBOL, "limit", "buy", 0.00001, low))  # filter NOTIONAL
    trades = await ex.fetch_my_trades(SYMBOL)
    assert sum(trade["amount"] for trade in trades if trade["order"] == bought["id"]) == 0.01, trades
    after = await ex.fetch_balance()
    assert after["BTC"]["total"] > before["BTC"]["total"] and after["USDT"]["used"] == 0


async def main():
    ex, seen = exchange(), {}
    try:
        watcher = asyncio.ensure_future(watched(ex, seen))
        await asyncio.wait_for(subscribed(), 10)
        await trade(ex, seen)
        watcher.cancel()
    finally:
        await ex.close()
    print("OK")


asyncio.run(main())
