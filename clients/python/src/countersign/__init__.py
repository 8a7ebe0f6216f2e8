"""Tells countersign what a trading bot is about to do, before it does it.

    import ccxt, countersign

    client = countersign.Client(account="main", bot="mm-1", socket="/run/countersign/intake.sock")
    exchange = countersign.wrap(ccxt.binance({...}), client, policy="send")
    exchange.create_order("BTC/USDT", "limit", "buy", 0.01, 60000)
"""

from .client import Client, Intent, NoAnswer, OutsideLimits, Refused
from .exchange import CannotTell, wrap
from .tag import TagKey

__all__ = ["CannotTell", "Client", "Intent", "NoAnswer", "OutsideLimits", "Refused", "TagKey", "wrap"]
