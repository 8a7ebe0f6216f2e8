"""The countersign: a client order id with a keyed MAC over the order's own parameters.

The layout and the bound fields are those of ``src/tag`` in the daemon; both are held to the vectors in
``fixtures/tag_vectors.jsonl``. Nothing here reads a clock or makes a random number.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Mapping, Optional, Union

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
VERSION = 1
EPOCH_MS = 1_577_836_800_000
"""2020-01-01 UTC, where the 38-bit time of an id begins."""
MARKET = "binance/spot"
SECRET_LENGTH_MIN = 16

_PRICED = frozenset({"LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"})
_TIMED = _PRICED - {"LIMIT_MAKER"}
_CONDITIONAL = frozenset({"STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"})
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,10}", re.ASCII)

Wire = Mapping[str, object]
"""An order in the names of the intent wire: symbol, side, type, quantity…"""


@dataclass(frozen=True)
class TagKey:
    """One key of one account and owner (``daemon`` or ``bot/NAME``)."""

    account: str
    key_id: int
    key: bytes = field(repr=False)
    market: str = MARKET

    @classmethod
    def derive(cls, secret: Union[str, bytes], account: str, owner: str, key_id: int, market: str = MARKET) -> "TagKey":
        """HKDF-SHA-256 of the secret over (domain, account, owner, key id), each with its length."""
        material = secret.encode() if isinstance(secret, str) else secret
        if len(material) < SECRET_LENGTH_MIN:
            raise ValueError(f"a tag secret has at least {SECRET_LENGTH_MIN} bytes, this one has {len(material)}")
        if not 0 <= key_id <= 15:
            raise ValueError(f"a key id is 0 to 15, not {key_id}")
        info = b"".join(map(_lengthed, (b"countersign/key/v1", account.encode(), owner.encode(), bytes([key_id]))))
        extracted = hmac.new(bytes(32), material, hashlib.sha256).digest()
        return cls(account, key_id, hmac.new(extracted, info + b"\x01", hashlib.sha256).digest(), market)

    def issue_order(self, at_ms: int, counter: int, order: Wire, prefix: str = "") -> str:
        return self._write(at_ms, counter, prefix, self._order_mac(_stamp(at_ms, counter), prefix, order))

    def issue_cancel(
        self,
        at_ms: int,
        counter: int,
        symbol: str,
        order_id: Optional[int] = None,
        orig_client_order_id: Optional[str] = None,
        prefix: str = "",
    ) -> str:
        """The id of a cancel, bound to its target as the cancel names it: by order id or by client id."""
        if (order_id is None) == (orig_client_order_id is None):
            raise ValueError("a cancel names either order_id or orig_client_order_id")
        target = ("order", str(order_id)) if order_id is not None else ("client", str(orig_client_order_id))
        mac = self._mac("countersign/cancel/v1", _stamp(at_ms, counter), prefix, (symbol, *target))
        return self._write(at_ms, counter, prefix, mac)

    def _order_mac(self, stamp: bytes, prefix: str, order: Wire) -> bytes:
        kind = _text(order, "type")
        peg = order.get("peg")
        peg = peg if isinstance(peg, Mapping) and kind in _PRICED else {}
        by_quote = kind == "MARKET" and canonical(order.get("quote_quantity")) != ""
        fields = (
            _text(order, "symbol"),
            _text(order, "side"),
            kind,
            _text(order, "time_in_force") if kind in _TIMED else "",
            "" if by_quote else canonical(order.get("quantity")),
            canonical(order.get("quote_quantity")) if by_quote else "",
            canonical(order.get("price")) if kind in _PRICED and not peg else "",
            canonical(order.get("stop_price")) if kind in _CONDITIONAL else "",
            canonical(order.get("iceberg_quantity")) if kind in _PRICED else "",
            _number(order, "trailing_delta") if kind in _CONDITIONAL and order.get("trailing_delta") != 0 else "",
            _text(peg, "price_type"),
            _text(peg, "offset_type"),
            _number(peg, "offset_value"),
            _number(order, "strategy_id"),
            _text(order, "stp_mode"),
        )
        return self._mac("countersign/order/v1", stamp, prefix, fields)

    def _mac(self, domain: str, stamp: bytes, prefix: str, fields: "tuple[str, ...]") -> bytes:
        form = [domain.encode(), bytes([VERSION << 4 | self.key_id]), stamp]
        form += [text.encode() for text in (prefix, self.account, self.market, *fields)]
        return hmac.new(self.key, b"".join(map(_lengthed, form)), hashlib.sha256).digest()

    def _write(self, at_ms: int, counter: int, prefix: str, mac: bytes) -> str:
        if prefix and (not _PREFIX.fullmatch(prefix) or len(prefix) == 6):
            raise ValueError(f"the id prefix {prefix!r} is 1 to 10 letters, digits, '-' or '_', and not exactly 6")
        head = ALPHABET[VERSION << 4 | self.key_id]
        return prefix + head + _base64url(_stamp(at_ms, counter)) + _base64url(mac[: 12 if prefix else 16])


def canonical(value: object) -> str:
    """A decimal with no trailing zeros and no exponent; unset and zero are empty."""
    if value is None:
        return ""
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
        raise ValueError(f"a decimal is a string of digits like '0.01', not {value!r}")
    sign, digits = ("-", value[1:]) if value.startswith("-") else ("", value)
    integer, _, fraction = digits.partition(".")
    integer, fraction = integer.lstrip("0"), fraction.rstrip("0")
    if not integer and not fraction:
        return ""
    return sign + (integer or "0") + ("." + fraction if fraction else "")


def _stamp(at_ms: int, counter: int) -> bytes:
    units = (at_ms - EPOCH_MS) // 10
    if not 0 <= units < 1 << 38:
        raise ValueError(f"an id carries times from 2020 to 2107, not {at_ms} ms")
    return (units << 10 | counter & 0x3FF).to_bytes(6, "big")


def _lengthed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return "" if value is None else str(value)


def _number(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return "" if value is None else str(int(str(value)))
