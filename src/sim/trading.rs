//! The signed operations: parameters in, the engine's doing, the venue's answer out.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::kernel::order::OrderType;
use crate::kernel::time::Time;
use crate::sim::account::Account;
use crate::sim::amount::Amount;
use crate::sim::engine::{CancelOnly, Engine, Which};
use crate::sim::filters::new_order;
use crate::sim::market::SymbolIndex;
use crate::sim::order::{Actor, Order, OrderKey, Trade};
use crate::sim::params::Params;
use crate::sim::refusal::Refusal;

const ROWS_MAX: usize = 1_000;
/// The account's newest trades among which an answer's fills are looked for.
const FILLS_MAX: usize = 1_000;

/// How much of a placed order the answer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Acknowledged,
    Result,
    Full,
}

pub fn place(engine: &mut Engine, now: Time, by: &Arc<Actor>, params: &Params) -> Result<Value, Refusal> {
    let new = new_order(engine, by.uid, params)?;
    let detail = detail(params, new.kind)?;
    let key = engine.place(now, by, new)?;
    Ok(placed(engine, key, detail))
}

pub fn test(engine: &mut Engine, now: Time, by: &Arc<Actor>, params: &Params) -> Result<Value, Refusal> {
    let new = new_order(engine, by.uid, params)?;
    engine.test(now, by, new)?;
    Ok(json!({}))
}

fn detail(params: &Params, kind: OrderType) -> Result<Detail, Refusal> {
    match (params.text("newOrderRespType"), kind) {
        (Some("ACK"), _) => Ok(Detail::Acknowledged),
        (Some("RESULT"), _) => Ok(Detail::Result),
        (Some("FULL"), _) | (None, OrderType::Market | OrderType::Limit) => Ok(Detail::Full),
        (None, _) => Ok(Detail::Acknowledged),
        (Some(_), _) => Err(Refusal::bad(-1104, "Invalid newOrderRespType.")),
    }
}

fn placed(engine: &Engine, key: OrderKey, detail: Detail) -> Value {
    let Some(order) = engine.order(key) else { return Value::Null };
    let mut body = match detail {
        Detail::Acknowledged => return order.acknowledged(),
        Detail::Result | Detail::Full => order.placed(),
    };
    if detail == Detail::Full {
        let newest =
            engine.account(order.uid).into_iter().flat_map(|account| account.trades.iter().rev().take(FILLS_MAX));
        let own = newest.filter(|trade| (trade.symbol, trade.order_id) == order.key());
        let mut fills: Vec<Value> = own.map(Trade::filled).collect();
        fills.reverse();
        body["fills"] = json!(fills);
    }
    body
}

pub fn query(engine: &Engine, by: &Actor, params: &Params) -> Result<Value, Refusal> {
    let (symbol, which) = (params.symbol()?, params.which("orderId", "origClientOrderId")?);
    engine.find(by.uid, symbol, &which).map(Order::queried).ok_or_else(Refusal::no_such_order)
}

pub fn cancel(engine: &mut Engine, now: Time, by: &Arc<Actor>, params: &Params) -> Result<Value, Refusal> {
    let (symbol, which) = (params.symbol()?, params.which("orderId", "origClientOrderId")?);
    let cancel_id = params.client_id("newClientOrderId")?;
    let (key, cancel_id) = engine.cancel(now, by, (symbol, &which), cancel_id, cancel_only(params)?)?;
    Ok(engine.order(key).map_or(Value::Null, |order| order.canceled(&cancel_id)))
}

fn cancel_only(params: &Params) -> Result<CancelOnly, Refusal> {
    match params.text("cancelRestrictions") {
        None => Ok(CancelOnly::Any),
        Some("ONLY_NEW") => Ok(CancelOnly::New),
        Some("ONLY_PARTIALLY_FILLED") => Ok(CancelOnly::PartiallyFilled),
        Some(_) => Err(Refusal::bad(-1102, "Mandatory parameter 'cancelRestrictions' was malformed.")),
    }
}

pub fn cancel_all(engine: &mut Engine, now: Time, by: &Arc<Actor>, params: &Params) -> Result<Value, Refusal> {
    let (keys, cancel_id) = engine.cancel_all(now, by, params.symbol()?)?;
    Ok(keys.iter().filter_map(|key| engine.order(*key)).map(|order| order.canceled(&cancel_id)).collect())
}

/// A cancel and then an order, as one request: what failed of the two is told in the venue's own form.
pub fn cancel_replace(engine: &mut Engine, now: Time, by: &Arc<Actor>, params: &Params) -> Result<Value, Refusal> {
    let symbol = params.symbol()?;
    let which = params.which("cancelOrderId", "cancelOrigClientOrderId")?;
    let stop_on_failure = match params.need("cancelReplaceMode")? {
        "STOP_ON_FAILURE" => true,
        "ALLOW_FAILURE" => false,
        _ => return Err(Refusal::missing("cancelReplaceMode")),
    };
    let (new, cancel_id) = (new_order(engine, by.uid, params)?, params.client_id("cancelNewClientOrderId")?);
    let detail = detail(params, new.kind)?;
    let canceled = cancel_answer(engine, now, by, (symbol, &which), cancel_id, cancel_only(params)?);
    let placed = match &canceled {
        Err(_) if stop_on_failure => None,
        Err(_) => Some(engine.place(now, by, new).map(|key| placed(engine, key, detail))),
        Ok(_) => Some(engine.replace(now, by, new).map(|key| placed(engine, key, detail))),
    };
    let word = |success: bool| if success { "SUCCESS" } else { "FAILURE" };
    let shown = |result: &Result<Value, Refusal>| result.as_ref().map_or_else(Refusal::body, Clone::clone);
    let placed_word = placed.as_ref().map_or("NOT_ATTEMPTED", |result| word(result.is_ok()));
    let body = json!({
        "cancelResult": word(canceled.is_ok()),
        "newOrderResult": placed_word,
        "cancelResponse": shown(&canceled),
        "newOrderResponse": placed.as_ref().map(shown),
    });
    match (canceled.is_ok(), placed.is_some_and(|result| result.is_ok())) {
        (true, true) => Ok(body),
        (false, false) => Err(with(400, -2022, "Order cancel-replace failed.", body)),
        (true, false) | (false, true) => Err(with(409, -2021, "Order cancel-replace partially failed.", body)),
    }
}

fn with(status: u16, code: i32, message: &str, details: Value) -> Refusal {
    Refusal { details: Some(details), ..Refusal::new(status, code, message) }
}

fn cancel_answer(
    engine: &mut Engine,
    now: Time,
    by: &Arc<Actor>,
    target: (SymbolIndex, &Which),
    cancel_id: Option<String>,
    only: CancelOnly,
) -> Result<Value, Refusal> {
    let (key, cancel_id) = engine.cancel(now, by, target, cancel_id, only)?;
    Ok(engine.order(key).map_or(Value::Null, |order| order.canceled(&cancel_id)))
}

pub fn amend(engine: &mut Engine, now: Time, by: &Arc<Actor>, params: &Params) -> Result<Value, Refusal> {
    let (symbol, which) = (params.symbol()?, params.which("orderId", "origClientOrderId")?);
    let quantity = params.need_amount("newQty")?;
    let spec = engine.market(symbol).spec;
    if !quantity.is_positive() || !quantity.is_multiple_of(spec.step) {
        return Err(Refusal::filter("LOT_SIZE"));
    }
    let new_id = params.client_id("newClientOrderId")?;
    let (key, former_id, execution_id) = engine.amend(now, by, (symbol, &which), quantity, new_id)?;
    let Some(order) = engine.order(key) else { return Err(Refusal::no_such_order()) };
    Ok(json!({
        "transactTime": now.millis(),
        "executionId": execution_id,
        "amendedOrder": {
            "symbol": order.symbol_name(),
            "orderId": order.id,
            "orderListId": -1,
            "origClientOrderId": former_id,
            "clientOrderId": order.client_id,
            "price": order.price,
            "qty": order.quantity,
            "executedQty": order.executed,
            "preventedQty": Amount::ZERO,
            "quoteOrderQty": order.quote_quantity,
            "cumulativeQuoteQty": order.quote_executed,
            "status": order.status,
            "timeInForce": order.time_in_force,
            "type": order.kind,
            "side": order.side,
            "workingTime": order.working_since.map_or(-1, Time::millis),
            "selfTradePreventionMode": "NONE",
        },
    }))
}

pub fn open_orders(engine: &Engine, by: &Actor, params: &Params) -> Result<Value, Refusal> {
    let symbol = params.optional_symbol()?;
    let wanted = |order: &&Order| symbol.is_none_or(|symbol| order.symbol == symbol);
    Ok(engine.open_orders(by.uid).filter(wanted).map(Order::queried).collect())
}

/// From an order id on, or within a time, or the newest.
pub fn all_orders(engine: &Engine, by: &Actor, params: &Params) -> Result<Value, Refusal> {
    let symbol = params.symbol()?;
    let limit = params.limit(500, ROWS_MAX)?;
    let from_id = params.number("orderId")?;
    let (start, end) = (params.time("startTime")?, params.time("endTime")?);
    let inside =
        |order: &&Order| start.is_none_or(|start| order.created >= start) && end.is_none_or(|end| order.created <= end);
    let mut found: Vec<&Order> = engine.orders_of(by.uid, symbol, from_id.unwrap_or(0)).filter(inside).collect();
    if from_id.is_some() || start.is_some() {
        found.truncate(limit);
    } else {
        found.drain(..found.len().saturating_sub(limit));
    }
    Ok(found.into_iter().map(Order::queried).collect())
}

pub fn my_trades(engine: &Engine, by: &Actor, params: &Params) -> Result<Value, Refusal> {
    let (symbol, limit) = (params.symbol()?, params.limit(500, ROWS_MAX)?);
    let (from_id, order_id) = (params.number("fromId")?, params.number("orderId")?);
    let (start, end) = (params.time("startTime")?, params.time("endTime")?);
    let trades = engine.account(by.uid).into_iter().flat_map(|account| &account.trades);
    let mut found: Vec<_> = trades
        .filter(|trade| trade.symbol == symbol)
        .filter(|trade| from_id.is_none_or(|id| trade.id >= id) && order_id.is_none_or(|id| trade.order_id == id))
        .filter(|trade| start.is_none_or(|start| trade.at >= start) && end.is_none_or(|end| trade.at <= end))
        .collect();
    if from_id.is_some() || start.is_some() {
        found.truncate(limit);
    } else {
        found.drain(..found.len().saturating_sub(limit));
    }
    Ok(found.into_iter().map(|trade| trade.queried()).collect())
}

pub fn account(engine: &Engine, by: &Actor, params: &Params) -> Result<Value, Refusal> {
    let account = engine.account(by.uid).ok_or_else(Refusal::key_refused)?;
    let omit_zero = params.text("omitZeroBalances") == Some("true");
    Ok(json!({
        "makerCommission": 10,
        "takerCommission": 10,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": rates("0.00100000"),
        "canTrade": true,
        "canWithdraw": true,
        "canDeposit": true,
        "brokered": false,
        "requireSelfTradePrevention": false,
        "preventSor": false,
        "updateTime": account.updated_ms,
        "accountType": "SPOT",
        "balances": balances(account, omit_zero),
        "permissions": ["SPOT"],
        "uid": account.uid,
    }))
}

fn balances(account: &Account, omit_zero: bool) -> Value {
    let shown = account.balances.iter().filter(|(_, held)| !omit_zero || !(held.free + held.locked).is_zero());
    shown.map(|(asset, held)| json!({ "asset": asset, "free": held.free, "locked": held.locked })).collect()
}

fn rates(rate: &str) -> Value {
    json!({ "maker": rate, "taker": rate, "buyer": "0.00000000", "seller": "0.00000000" })
}

pub fn commission(engine: &Engine, params: &Params) -> Result<Value, Refusal> {
    Ok(json!({
        "symbol": engine.market(params.symbol()?).spec.name,
        "standardCommission": rates("0.00100000"),
        "specialCommission": rates("0.00000000"),
        "taxCommission": rates("0.00000000"),
        "discount": {
            "enabledForAccount": false, "enabledForSymbol": false, "discountAsset": "BNB", "discount": "0.00000000",
        },
    }))
}
