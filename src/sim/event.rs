//! The private stream's events, in the venue's spelling and field order: rendered once, sent to every subscription.

use serde::Serialize;
use serde_json::json;

use crate::kernel::order::{ExecutionType, ExpiryReason, OrderStatus, OrderType, RejectReason, Side, TimeInForce};
use crate::kernel::time::Time;
use crate::sim::amount::Amount;
use crate::sim::order::{Order, Uid};

/// One event of one account, as JSON without its envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountEvent {
    pub uid: Uid,
    pub body: String,
    /// The ledger row it tells of, so that the row can say who was listening.
    pub row: Option<u64>,
}

/// What happened to an order; the rest of a report is the order itself.
#[derive(Debug, Clone)]
pub struct Execution {
    pub kind: ExecutionType,
    pub id: i64,
    /// `c` where it is not the order's own: a cancel request's id.
    pub request_id: Option<String>,
    /// `C`: the order's own id where `c` is another.
    pub original_id: String,
    pub fill: Option<Fill>,
    pub rejected: RejectReason,
    pub expired: Option<ExpiryReason>,
}

#[derive(Debug, Clone, Copy)]
pub struct Fill {
    pub trade_id: i64,
    pub price: Amount,
    pub quantity: Amount,
    pub commission: Amount,
    pub commission_asset: &'static str,
    pub is_maker: bool,
}

impl Execution {
    pub const fn plain(kind: ExecutionType) -> Self {
        Self {
            kind,
            id: 0,
            request_id: None,
            original_id: String::new(),
            fill: None,
            rejected: RejectReason::None,
            expired: None,
        }
    }
}

#[derive(Serialize)]
struct ExecutionReport<'a> {
    e: &'static str,
    #[serde(rename = "E")]
    event_time: i64,
    s: &'static str,
    c: &'a str,
    #[serde(rename = "S")]
    side: Side,
    o: OrderType,
    f: TimeInForce,
    q: Amount,
    p: Amount,
    #[serde(rename = "P")]
    stop_price: Amount,
    #[serde(rename = "F")]
    iceberg_quantity: Amount,
    g: i64,
    #[serde(rename = "C")]
    original_client_id: &'a str,
    x: ExecutionType,
    #[serde(rename = "X")]
    status: OrderStatus,
    r: RejectReason,
    i: i64,
    l: Amount,
    z: Amount,
    #[serde(rename = "L")]
    last_price: Amount,
    n: Commission,
    #[serde(rename = "N")]
    commission_asset: Option<&'static str>,
    #[serde(rename = "T")]
    transaction_time: i64,
    t: i64,
    #[serde(rename = "I")]
    execution_id: i64,
    w: bool,
    m: bool,
    #[serde(rename = "M")]
    best_match: bool,
    #[serde(rename = "O")]
    created: i64,
    #[serde(rename = "Z")]
    quote_executed: Amount,
    #[serde(rename = "Y")]
    last_quote: Amount,
    #[serde(rename = "Q")]
    quote_quantity: Amount,
    #[serde(rename = "W", skip_serializing_if = "Option::is_none")]
    working_since: Option<i64>,
    #[serde(rename = "V")]
    self_trade_prevention: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    j: Option<i64>,
    #[serde(rename = "J", skip_serializing_if = "Option::is_none")]
    strategy_type: Option<i64>,
    #[serde(rename = "eR", skip_serializing_if = "Option::is_none")]
    expiry_reason: Option<ExpiryReason>,
}

/// The venue writes "0" where nothing traded and eight places where something did.
#[derive(Serialize)]
#[serde(untagged)]
enum Commission {
    None(&'static str),
    Some(Amount),
}

pub fn execution_report(now: Time, order: &Order, execution: &Execution) -> String {
    let fill = execution.fill.as_ref();
    let report = ExecutionReport {
        e: "executionReport",
        event_time: now.millis(),
        s: order.symbol_name(),
        c: execution.request_id.as_deref().unwrap_or(&order.client_id),
        side: order.side,
        o: order.kind,
        f: order.time_in_force,
        q: order.quantity,
        p: order.price,
        stop_price: order.stop_price,
        iceberg_quantity: order.iceberg_quantity,
        g: -1,
        original_client_id: &execution.original_id,
        x: execution.kind,
        status: order.status,
        r: execution.rejected,
        i: order.id,
        l: fill.map_or(Amount::ZERO, |fill| fill.quantity),
        z: order.executed,
        last_price: fill.map_or(Amount::ZERO, |fill| fill.price),
        n: fill.map_or(Commission::None("0"), |fill| Commission::Some(fill.commission)),
        commission_asset: fill.map(|fill| fill.commission_asset),
        transaction_time: order.updated.millis(),
        t: fill.map_or(-1, |fill| fill.trade_id),
        execution_id: execution.id,
        w: order.resting.is_some() || (execution.kind == ExecutionType::New && order.working_since.is_some()),
        m: fill.is_some_and(|fill| fill.is_maker),
        best_match: fill.is_some(),
        created: order.created.millis(),
        quote_executed: order.quote_executed,
        last_quote: fill.map_or(Amount::ZERO, |fill| fill.price.times(fill.quantity)),
        quote_quantity: order.quote_quantity,
        working_since: order.working_since.map(Time::millis),
        self_trade_prevention: "NONE",
        j: order.strategy_id,
        strategy_type: order.strategy_type,
        expiry_reason: execution.expired,
    };
    // A struct of plain fields with string keys: writing it to a string has no way to fail.
    serde_json::to_string(&report).unwrap_or_default()
}

pub fn account_position(now: Time, balances: &[(&'static str, Amount, Amount)]) -> String {
    let rows: Vec<String> = balances
        .iter()
        .map(|(asset, free, locked)| format!(r#"{{"a":"{asset}","f":"{free}","l":"{locked}"}}"#))
        .collect();
    let at = now.millis();
    format!(r#"{{"e":"outboundAccountPosition","E":{at},"u":{at},"B":[{}]}}"#, rows.join(","))
}

pub fn balance_update(now: Time, asset: &str, delta: Amount) -> String {
    let at = now.millis();
    format!(r#"{{"e":"balanceUpdate","E":{at},"a":"{asset}","d":"{delta}","T":{at}}}"#)
}

pub fn stream_terminated(now: Time) -> String {
    json!({ "e": "eventStreamTerminated", "E": now.millis() }).to_string()
}

pub fn server_shutdown(now: Time) -> String {
    json!({ "e": "serverShutdown", "E": now.millis() }).to_string()
}
