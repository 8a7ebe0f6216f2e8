"""A bot as its owner would write it: ccxt, wrapped by countersign, trading on the simulated exchange.

Usage: ccxt_bot.py SETTINGS, a JSON object: rest, api_key, secret, socket, tag_secret, policy, until.

until "once": each kind of order, cancel and refusal, each asserted, then the end. until "told": rounds of trading
until standard input ends. Prints one JSON object a line: what it is doing, and at last {"done": ...}.
"""

import json
import sys
import threading
import time
import urllib.request

import ccxt
import countersign

SETTINGS = json.loads(sys.argv[1])
PAIR, SYMBOL = "ETH/USDT", "ETHUSDT"
LEVEL = 12
"""What the market maker offers at each of its prices."""


def say(**words):
    print(json.dumps(words), flush=True)


def connected():
    rest = SETTINGS["rest"]
    api = {"public": f"{rest}/api/v3", "private": f"{rest}/api/v3", "v1": f"{rest}/api/v1", "sapi": f"{rest}/sapi/v1"}
    exchange = ccxt.binance({
        "apiKey": SETTINGS["api_key"], "secret": SETTINGS["secret"], "urls": {"api": api}, "userAgent": "ccxt-bot",
        "enableRateLimit": False,
        "options": {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False, "fetchCurrencies": False},
    })
    key = countersign.TagKey.derive(SETTINGS["tag_secret"], "main", "bot/grid", 1)
    client = countersign.Client("main", "grid", socket=SETTINGS["socket"], tag_key=key, strategy="grid", owner="desk-a")
    return countersign.wrap(exchange, client, SETTINGS["policy"]), client


def put_price(price):
    body = json.dumps({"symbol": SYMBOL, "price": f"{price:.2f}"}).encode()
    urllib.request.urlopen(f"{SETTINGS['rest']}/sim/v1/price", body).close()


def priced(exchange, part):
    return float(exchange.price_to_precision(PAIR, exchange.fetch_ticker(PAIR)["last"] * part))


def refused(error, call, *args):
    try:
        call(*args)
    except error:
        return 1
    raise AssertionError(f"{error.__name__} was expected of {args}")


def partly_filled(exchange):
    """More than the best price offers, at the best price; prices move, so it is tried until the book held still."""
    for _ in range(20):
        ask = exchange.fetch_order_book(PAIR)["asks"][0][0]
        order = exchange.create_order(PAIR, "limit", "buy", LEVEL + 1, ask)
        exchange.cancel_order(order["id"], PAIR) if order["status"] == "open" else None
        if order["filled"]:
            exchange.create_order(PAIR, "market", "sell", round(order["filled"] * 0.99, 3))
        if 0 < order["filled"] < order["amount"]:
            return
    raise AssertionError("no order was filled in part")


def triggered_stop(exchange):
    """A stop is announced as new twice under one order id: when it is placed, and when it is set off."""
    last = exchange.fetch_ticker(PAIR)["last"]
    stop, limit = priced(exchange, 1.01), priced(exchange, 1.02)
    order = exchange.create_order(PAIR, "limit", "buy", 0.5, limit, {"stopPrice": stop})
    put_price(last * 1.015)
    assert exchange.fetch_order(order["id"], PAIR)["status"] == "closed"
    put_price(last)


def each_kind_once(exchange):
    bought = exchange.create_order(PAIR, "limit", "buy", 0.05, priced(exchange, 1.01))
    assert bought["status"] == "closed", bought
    sold = exchange.create_order(PAIR, "market", "sell", 0.05)
    assert sold["status"] == "closed", sold
    exchange.create_market_buy_order_with_cost(PAIR, 50)
    resting = exchange.create_order(PAIR, "limit", "buy", 0.05, priced(exchange, 0.9))
    exchange.cancel_order(resting["id"], PAIR)
    named = exchange.create_order(PAIR, "limit", "buy", 0.05, priced(exchange, 0.9), {"clientOrderId": "my-own-1"})
    exchange.cancel_order("", PAIR, {"clientOrderId": "my-own-1"})
    partly_filled(exchange)
    triggered_stop(exchange)
    exchange.create_order(PAIR, "limit", "sell", 0.05, priced(exchange, 0.89), {"stopPrice": priced(exchange, 0.9)})
    exchange.create_order(PAIR, "market", "sell", 0.05, None, {"stopPrice": priced(exchange, 0.9)})
    exchange.create_order(PAIR, "limit", "buy", 0.05, priced(exchange, 0.9), {"postOnly": True})
    moved = exchange.create_order(PAIR, "limit", "buy", 0.05, priced(exchange, 0.9))
    exchange.edit_order(moved["id"], PAIR, "limit", "buy", 0.06, priced(exchange, 0.91))
    exchange.cancel_all_orders(PAIR)
    assert exchange.fetch_open_orders(PAIR) == []
    low = priced(exchange, 0.9)
    refusals = refused(ccxt.InsufficientFunds, exchange.create_order, PAIR, "limit", "sell", 500, low * 1.2)
    refusals += refused(ccxt.BadRequest, exchange.create_order, PAIR, "limit", "buy", 0.0001, low)
    refusals += refused(ccxt.OrderNotFound, exchange.cancel_order, named["id"], PAIR)
    unsent = refused(countersign.OutsideLimits, exchange.create_order, "BNB/USDT", "market", "buy", 1)
    unsent += refused(countersign.OutsideLimits, exchange.create_order, PAIR, "market", "buy", 2000)
    return {"refused": refusals, "unsent": unsent}


def a_round(exchange):
    exchange.create_order(PAIR, "limit", "buy", 0.05, priced(exchange, 1.01))
    exchange.create_order(PAIR, "market", "sell", 0.05)
    resting = exchange.create_order(PAIR, "limit", "buy", 0.05, priced(exchange, 0.9))
    exchange.create_order(PAIR, "limit", "sell", 0.05, priced(exchange, 0.89), {"stopPrice": priced(exchange, 0.9)})
    exchange.cancel_order(resting["id"], PAIR)
    exchange.cancel_all_orders(PAIR)


def until_told(exchange):
    told, rounds = threading.Event(), 0
    threading.Thread(target=lambda: (sys.stdin.read(), told.set()), daemon=True).start()
    # It stands in the book for as long as the bot runs: what somebody else may cancel.
    stop = exchange.create_order("BTC/USDT", "limit", "sell", 0.01, 50_000, {"stopPrice": 50_500})
    say(stop=int(stop["id"]))
    while not told.is_set():
        a_round(exchange)
        rounds += 1
        say(round=rounds)
        told.wait(0.2)
    return {"rounds": rounds}


def main():
    exchange, client = connected()
    exchange.load_markets()
    done = each_kind_once(exchange) if SETTINGS["until"] == "once" else until_told(exchange)
    client.close(5.0)
    say(done=done, untold=client.dropped)


main()
