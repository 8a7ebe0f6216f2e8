//! The account's private stream, normalised: what any venue's decoder hands to the kernel.

use serde::{Deserialize, Serialize};

use crate::kernel::money::Dec;
use crate::kernel::order::{
    Asset, ClientId, ExecutionType, ExpiryReason, OrderId, OrderStatus, OrderType, RejectReason, Side, StpMode, Symbol,
    TimeInForce,
};
use crate::kernel::time::Time;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Report {
    Execution(Box<ExecutionReport>),
    List(ListStatus),
    Position(AccountPosition),
    Balance(BalanceUpdate),
    ExternalLock(BalanceUpdate),
}

/// One execution report. `client_order_id` is always the order's own id, whichever field the venue puts it in;
/// `request_client_order_id` is the id of the cancel or amendment that caused this report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionReport {
    pub symbol: Symbol,
    pub order_id: OrderId,
    pub client_order_id: ClientId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_client_order_id: Option<ClientId>,
    pub side: Side,
    pub order_type: OrderType,
    pub time_in_force: TimeInForce,
    pub execution_type: ExecutionType,
    pub status: OrderStatus,
    pub reject_reason: RejectReason,
    pub quantity: Dec,
    pub price: Dec,
    pub stop_price: Dec,
    pub iceberg_quantity: Dec,
    pub quote_quantity: Dec,
    pub last_quantity: Dec,
    pub last_price: Dec,
    pub last_quote: Dec,
    pub cumulative_quantity: Dec,
    pub cumulative_quote: Dec,
    pub commission: Dec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commission_asset: Option<Asset>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trade_id: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<i64>,
    pub on_book: bool,
    pub maker: bool,
    pub event_at: Time,
    pub transacted_at: Time,
    /// When the venue created the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_id: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stp_mode: Option<StpMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trailing_delta: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy_id: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry_reason: Option<ExpiryReason>,
    /// The other order of a prevented self-trade: (symbol, order id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter_order: Option<(Symbol, OrderId)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peg: Option<Peg>,
}

/// A pegged price as the venue reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peg {
    pub price_type: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset_type: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset_value: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListStatus {
    pub symbol: Symbol,
    pub list_id: i64,
    pub list_client_order_id: ClientId,
    pub contingency: Box<str>,
    pub status: Box<str>,
    pub order_status: Box<str>,
    pub reject_reason: Box<str>,
    pub legs: Vec<(Symbol, OrderId, ClientId)>,
    pub event_at: Time,
    pub transacted_at: Time,
}

/// Absolute balances of the assets that may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountPosition {
    pub balances: Vec<Balance>,
    pub event_at: Time,
    pub updated_at: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    pub asset: Asset,
    pub free: Dec,
    pub locked: Dec,
}

/// A deposit, withdrawal, transfer or external lock: a change, not a level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceUpdate {
    pub asset: Asset,
    pub delta: Dec,
    pub event_at: Time,
    pub cleared_at: Time,
}
