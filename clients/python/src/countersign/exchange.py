"""``wrap(exchange, client)``: a ccxt exchange that tells every spot order, cancel and edit before it sends it.

The wrapper stands where ccxt hands a request to the network (``request``), behind all of ccxt's own rounding and
naming, so what is told is what is sent, whichever method made it (``create_order``, ``create_limit_buy_order``,
``edit_order``, ``private_post_order``…). The WebSocket methods of ccxt.pro go another way and are wrapped one by one.

An id that the bot chose itself (``clientOrderId``) is told and kept; one that ccxt made up is replaced by ours. A
cancel-all chooses its own id at the venue and has none here.
"""

from __future__ import annotations

import inspect
import re
from decimal import Decimal
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, TypeVar

from .client import POLICIES, Client, Intent

Body = Dict[str, Any]
Params = Mapping[str, Any]
Exchange = TypeVar("Exchange")

_MADE_BY_CCXT = re.compile(r"x-[A-Za-z0-9]{8}[0-9a-f]{22}")
_TIMED = frozenset({"LIMIT", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"})
_NOT_KNOWN = frozenset({"NetworkError", "BadResponse", "NullResponse"})
"""ccxt's error classes after which the venue may have acted all the same."""
_CODES_NOT_KNOWN = frozenset({-1006, -1007, -2021})
"""The venue's own words for that; -2021 is a cancel-replace of which one half was done."""
_CODES_REFUSED = frozenset({-1003, -1015, -1021})
"""Refused at the door (limits, clock), though ccxt counts them among the network's errors."""
_CODE = re.compile(r'"code"\s*:\s*"?(-?\d+)')
_LISTS = ("order/oco", "orderList")

_TEXT = {
    "side": "side",
    "type": "type",
    "newClientOrderId": "client_order_id",
    "selfTradePreventionMode": "stp_mode",
}
_DECIMAL = {
    "quantity": "quantity",
    "quoteOrderQty": "quote_quantity",
    "price": "price",
    "stopPrice": "stop_price",
    "icebergQty": "iceberg_quantity",
}
_WHOLE = {"trailingDelta": "trailing_delta", "strategyId": "strategy_id"}


class CannotTell(Exception):
    """This request cannot be told yet, and was not sent: sent untold, it would be reported as not the bot's."""


def wrap(exchange: Exchange, client: Client, policy: str = "send") -> Exchange:
    """Changes ``exchange`` (ccxt, ccxt.async_support or ccxt.pro; Binance) in place and gives it back.

    ``policy`` says what becomes of an order when countersign does not answer in time: ``local``, ``send`` or
    ``refuse``; see ``countersign.client``.
    """
    if policy not in POLICIES:
        raise ValueError(f"the policy is one of {', '.join(POLICIES)}, not {policy!r}")
    if policy == "local" and client.tag_key is None:
        raise ValueError("the policy 'local' needs a client with a tag_key of this bot")
    if getattr(exchange, "id", None) != "binance":
        raise ValueError(f"countersign watches Binance spot; it cannot wrap {getattr(exchange, 'id', exchange)!r}")
    if getattr(exchange, "countersign", None) is not None:
        raise ValueError("this exchange is wrapped already")
    request = getattr(exchange, "request")
    if list(inspect.signature(request).parameters)[:4] != ["path", "api", "method", "params"]:
        raise ValueError("this version of ccxt hands over its requests in another way; orders would go out untold")
    setattr(exchange, "countersign", client)
    if inspect.iscoroutinefunction(request):
        setattr(exchange, "request", _request_async(request, client, policy))
        _wrap_websocket(exchange, client, policy)
    else:
        setattr(exchange, "request", _request(request, client, policy))
    return exchange


def _request(original: Callable[..., Any], client: Client, policy: str) -> Callable[..., Any]:
    def request(path: str, api: Any = "public", method: str = "GET", params: Params = {}, *args: Any, **more: Any) -> Any:
        body = told(path, api, method, params)
        if body is None:
            return original(path, api, method, params, *args, **more)
        intent = client.announce(body, policy)
        try:
            answer = original(path, api, method, _with_ids(params, body, intent), *args, **more)
        except BaseException as error:
            _tell_error(client, intent, error)
            raise
        client.tell_result(intent, "accepted", order_id=_order_id(answer))
        return answer

    return request


def _request_async(original: Callable[..., Any], client: Client, policy: str) -> Callable[..., Any]:
    async def request(
        path: str, api: Any = "public", method: str = "GET", params: Params = {}, *args: Any, **more: Any
    ) -> Any:
        body = told(path, api, method, params)
        if body is None:
            return await original(path, api, method, params, *args, **more)
        intent = await client.announce_async(body, policy)
        try:
            answer = await original(path, api, method, _with_ids(params, body, intent), *args, **more)
        except BaseException as error:
            _tell_error(client, intent, error)
            raise
        client.tell_result(intent, "accepted", order_id=_order_id(answer))
        return answer

    return request


def _wrap_websocket(exchange: Any, client: Client, policy: str) -> None:
    """ccxt.pro's order methods over the WebSocket API: the same request is made once more to see what it holds."""

    def create(symbol: str, type: str, side: str, amount: Any, price: Any = None, params: Params = {}) -> Optional[Body]:
        if params.get("test"):
            return None
        request = exchange.create_order_request(symbol, type, side, amount, price, dict(params))
        return told("order", "private", "POST", request)

    def edit(id: str, symbol: str, type: str, side: str, amount: Any = None, price: Any = None, params: Params = {}) -> Optional[Body]:
        request = exchange.edit_spot_order_request(id, symbol, type, side, amount, price, dict(params))
        return told("order/cancelReplace", "private", "POST", request)

    def cancel(id: str, symbol: Optional[str] = None, params: Params = {}) -> Optional[Body]:
        own = params.get("origClientOrderId", params.get("clientOrderId"))
        target = {"orderId": id} if own is None else {"origClientOrderId": own}
        asked = {"newClientOrderId": params.get("newClientOrderId"), "symbol": exchange.market(symbol)["id"], **target}
        return told("order", "private", "DELETE", asked)

    def cancel_all(symbol: Optional[str] = None, params: Params = {}) -> Optional[Body]:
        return told("openOrders", "private", "DELETE", {"symbol": exchange.market(symbol)["id"]})

    for name, body_of in (
        ("create_order_ws", create),
        ("edit_order_ws", edit),
        ("cancel_order_ws", cancel),
        ("cancel_all_orders_ws", cancel_all),
    ):
        original = getattr(exchange, name, None)
        if original is None:
            continue
        wrapped = _websocket_method(exchange, client, policy, original, body_of)
        setattr(exchange, name, wrapped)
        first, *rest = name.split("_")
        setattr(exchange, first + "".join(part.capitalize() for part in rest), wrapped)


def _websocket_method(
    exchange: Any,
    client: Client,
    policy: str,
    original: Callable[..., Any],
    body_of: Callable[..., Optional[Body]],
) -> Callable[..., Any]:
    signature = inspect.signature(body_of)

    async def method(*args: Any, **named: Any) -> Any:
        if exchange.markets is None:
            await exchange.load_markets()
        call = signature.bind(*args, **named)
        symbol = call.arguments.get("symbol")
        spot = symbol is not None and exchange.market(symbol).get("spot") is True
        body = body_of(*args, **named) if spot else None
        if body is None:
            return await original(*args, **named)
        intent = await client.announce_async(body, policy)
        params = dict(call.arguments.get("params", {}))
        # What stands in params is sent as it is, so only the venue's own name for the id may.
        if body["kind"] in ("place", "cancel_replace"):
            params.pop("clientOrderId", None)
        call.arguments["params"] = _with_ids(params, body, intent)
        try:
            answer = await original(*call.args, **call.kwargs)
        except BaseException as error:
            _tell_error(client, intent, error)
            raise
        client.tell_result(intent, "accepted", order_id=_order_id(answer))
        return answer

    return method


def told(path: str, api: Any, method: str, params: Params) -> Optional[Body]:
    """What a request to the venue says, in the words of an intent; ``None`` if it is none of spot's orders."""
    if (api if isinstance(api, str) else api[0]) != "private":
        return None
    if method != "GET" and any(path == name or path.startswith(name + "/") for name in _LISTS):
        raise CannotTell("order lists cannot be told yet; send the orders one by one")
    if (method, path) in (("POST", "order"), ("POST", "sor/order")):
        return {"kind": "place", "symbol": params["symbol"], **_order(params)}
    if (method, path) == ("DELETE", "order"):
        return {"kind": "cancel", "symbol": params["symbol"], **_cancel(params, "orderId", "origClientOrderId", "newClientOrderId")}
    if (method, path) == ("DELETE", "openOrders"):
        return {"kind": "cancel", "symbol": params["symbol"], "all": True}
    if (method, path) == ("POST", "order/cancelReplace"):
        names = ("cancelOrderId", "cancelOrigClientOrderId", "cancelNewClientOrderId")
        return {
            "kind": "cancel_replace",
            "symbol": params["symbol"],
            "cancel": _cancel(params, *names),
            "place": _order(params),
        }
    if (method, path) == ("PUT", "order/amend/keepPriority"):
        target = _cancel(params, "orderId", "origClientOrderId", "newClientOrderId")
        return {"kind": "amend", "symbol": params["symbol"], **target, "quantity": _decimal(params["newQty"])}
    return None


def _order(params: Params) -> Body:
    order: Body = {}
    for name, field in _TEXT.items():
        if params.get(name) is not None:
            order[field] = str(params[name])
    for name, field in _DECIMAL.items():
        text = _decimal(params.get(name))
        if text is not None:
            order[field] = text
    for name, field in _WHOLE.items():
        if params.get(name) is not None:
            order[field] = int(Decimal(str(params[name])))
    if order.get("type") in _TIMED and params.get("timeInForce") is not None:
        order["time_in_force"] = str(params["timeInForce"])
    if _MADE_BY_CCXT.fullmatch(order.get("client_order_id", "")):
        del order["client_order_id"]
    peg = {"price_type": params.get("pegPriceType"), "offset_type": params.get("pegOffsetType")}
    peg["offset_value"] = None if params.get("pegOffsetValue") is None else int(params["pegOffsetValue"])
    if peg["price_type"] is not None:
        order["peg"] = {name: value for name, value in peg.items() if value is not None}
    return order


def _cancel(params: Params, order_id: str, orig_client_order_id: str, client_order_id: str) -> Body:
    cancel: Body = {}
    if params.get(order_id) is not None:
        cancel["order_id"] = int(params[order_id])
    elif params.get(orig_client_order_id) is not None:
        cancel["orig_client_order_id"] = str(params[orig_client_order_id])
    if params.get(client_order_id) is not None:
        cancel["client_order_id"] = str(params[client_order_id])
    return cancel


def _decimal(value: object) -> Optional[str]:
    """Digits without an exponent; zero is not set."""
    if value is None or value == "":
        return None
    number = Decimal(str(value))
    return f"{number:f}" if number else None


def _with_ids(params: Params, body: Body, intent: Intent) -> Dict[str, Any]:
    ids: Dict[str, Any] = {}
    if intent.client_order_id is not None and body["kind"] != "amend":
        ids["newClientOrderId"] = intent.client_order_id
    if body["kind"] == "cancel_replace" and intent.cancel_client_order_id is not None:
        ids["cancelNewClientOrderId"] = intent.cancel_client_order_id
    return {**params, **ids}


def _order_id(answer: Any) -> Optional[int]:
    """Of the venue's own answer, of a cancel-replace's new order, or of an order as ccxt gives it."""
    if not isinstance(answer, Mapping):
        return None
    placed = answer.get("newOrderResponse")
    source = placed if isinstance(placed, Mapping) else answer
    found = source.get("orderId", source.get("id"))
    try:
        return None if found is None else int(found)
    except (TypeError, ValueError):
        return None


def _tell_error(client: Client, intent: Intent, error: BaseException) -> None:
    outcome, code = outcome_of(error)
    if outcome == "rejected":
        client.tell_result(intent, outcome, code=code, message=str(error)[:256])
    else:
        client.tell_result(intent, outcome)


def outcome_of(error: BaseException) -> Tuple[str, Optional[int]]:
    """Whether the venue surely refused, by ccxt's error classes and the venue's codes; when in doubt, unknown."""
    names = {kind.__name__ for kind in type(error).__mro__}
    found = _CODE.search(str(error))
    code = None if found is None else int(found.group(1))
    sure = code in _CODES_REFUSED or ("BaseError" in names and not names & _NOT_KNOWN and code not in _CODES_NOT_KNOWN)
    return ("rejected" if sure else "unknown"), code
