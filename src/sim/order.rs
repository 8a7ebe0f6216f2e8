//! An order as the exchange holds it, and how the API answers show it.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::kernel::order::{OrderStatus, OrderType, Side, TimeInForce};
use crate::kernel::time::Time;
use crate::sim::amount::Amount;
use crate::sim::market::{SYMBOLS, SymbolIndex};

/// An account's number, as the venue's `uid`.
pub type Uid = u64;

/// Symbol and order id: what names an order at the venue.
pub type OrderKey = (SymbolIndex, i64);

/// The synthetic market maker: nobody's account, no events, no end of credit.
pub const MARKET_MAKER: Uid = 0;

/// Who did something: what the ledger needs to tell a bot from a thief who holds a copy of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub uid: Uid,
    /// The key's name, never the key.
    pub key: Box<str>,
    pub address: IpAddr,
    /// The client's own `User-Agent`.
    pub agent: Box<str>,
}

/// What a client asked for, parsed and past the filters.
#[derive(Debug, Clone)]
pub struct NewOrder {
    pub symbol: SymbolIndex,
    pub client_id: Option<String>,
    pub side: Side,
    pub kind: OrderType,
    pub time_in_force: TimeInForce,
    pub quantity: Amount,
    pub quote_quantity: Amount,
    pub price: Amount,
    pub stop_price: Amount,
    pub iceberg_quantity: Amount,
    pub strategy_id: Option<i64>,
    pub strategy_type: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct Order {
    pub id: i64,
    pub uid: Uid,
    pub by: Arc<Actor>,
    pub symbol: SymbolIndex,
    pub client_id: String,
    pub side: Side,
    pub kind: OrderType,
    pub time_in_force: TimeInForce,
    pub quantity: Amount,
    pub quote_quantity: Amount,
    pub price: Amount,
    pub stop_price: Amount,
    pub iceberg_quantity: Amount,
    pub strategy_id: Option<i64>,
    pub strategy_type: Option<i64>,
    pub executed: Amount,
    pub quote_executed: Amount,
    /// What of the paying asset is still set aside for it.
    pub locked: Amount,
    pub status: OrderStatus,
    pub created: Time,
    pub updated: Time,
    /// Since when it has been working; a stop is not until its trigger.
    pub working_since: Option<Time>,
    /// Its arrival number while it rests in the book.
    pub resting: Option<u64>,
}

/// One execution of an order, as `myTrades` and the `fills` of an answer show it.
#[derive(Debug, Clone)]
pub struct Trade {
    pub id: i64,
    pub order_id: i64,
    pub symbol: SymbolIndex,
    pub price: Amount,
    pub quantity: Amount,
    pub commission: Amount,
    pub commission_asset: &'static str,
    pub at: Time,
    pub is_buyer: bool,
    pub is_maker: bool,
}

impl Order {
    pub const fn key(&self) -> OrderKey {
        (self.symbol, self.id)
    }

    pub fn left(&self) -> Amount {
        self.quantity - self.executed
    }

    pub const fn is_open(&self) -> bool {
        !self.status.is_terminal()
    }

    /// The price beyond which it must not trade; none for market orders.
    pub fn limit(&self) -> Option<Amount> {
        self.kind.has_price().then_some(self.price)
    }

    pub fn symbol_name(&self) -> &'static str {
        SYMBOLS[self.symbol].name
    }

    pub fn paying_asset(&self) -> &'static str {
        match self.side {
            Side::Buy => SYMBOLS[self.symbol].quote,
            Side::Sell => SYMBOLS[self.symbol].base,
        }
    }

    pub fn earned_asset(&self) -> &'static str {
        match self.side {
            Side::Buy => SYMBOLS[self.symbol].base,
            Side::Sell => SYMBOLS[self.symbol].quote,
        }
    }

    /// What every answer about an order says.
    fn core(&self) -> Value {
        let mut body = json!({
            "symbol": self.symbol_name(),
            "orderId": self.id,
            "orderListId": -1,
            "clientOrderId": self.client_id,
            "price": self.price,
            "origQty": self.quantity,
            "executedQty": self.executed,
            "origQuoteOrderQty": self.quote_quantity,
            "cummulativeQuoteQty": self.quote_executed,
            "status": self.status,
            "timeInForce": self.time_in_force,
            "type": self.kind,
            "side": self.side,
            "selfTradePreventionMode": "NONE",
        });
        if self.kind.is_conditional() {
            body["stopPrice"] = json!(self.stop_price);
        }
        if self.iceberg_quantity.is_positive() {
            body["icebergQty"] = json!(self.iceberg_quantity);
        }
        if let Some(id) = self.strategy_id {
            body["strategyId"] = json!(id);
        }
        if let Some(kind) = self.strategy_type {
            body["strategyType"] = json!(kind);
        }
        body
    }

    pub fn acknowledged(&self) -> Value {
        json!({
            "symbol": self.symbol_name(),
            "orderId": self.id,
            "orderListId": -1,
            "clientOrderId": self.client_id,
            "transactTime": self.updated.millis(),
        })
    }

    pub fn placed(&self) -> Value {
        let mut body = self.core();
        body["transactTime"] = json!(self.updated.millis());
        if let Some(since) = self.working_since {
            body["workingTime"] = json!(since.millis());
        }
        body
    }

    pub fn canceled(&self, cancel_id: &str) -> Value {
        let mut body = self.core();
        body["origClientOrderId"] = json!(self.client_id);
        body["clientOrderId"] = json!(cancel_id);
        body["transactTime"] = json!(self.updated.millis());
        body
    }

    pub fn queried(&self) -> Value {
        let mut body = self.core();
        body["time"] = json!(self.created.millis());
        body["updateTime"] = json!(self.updated.millis());
        body["isWorking"] = json!(self.working_since.is_some());
        body["workingTime"] = json!(self.working_since.map_or(-1, Time::millis));
        body["stopPrice"] = json!(self.stop_price);
        body["icebergQty"] = json!(self.iceberg_quantity);
        body
    }
}

impl Trade {
    pub fn filled(&self) -> Value {
        json!({
            "price": self.price,
            "qty": self.quantity,
            "commission": self.commission,
            "commissionAsset": self.commission_asset,
            "tradeId": self.id,
        })
    }

    pub fn queried(&self) -> Value {
        json!({
            "symbol": SYMBOLS[self.symbol].name,
            "id": self.id,
            "orderId": self.order_id,
            "orderListId": -1,
            "price": self.price,
            "qty": self.quantity,
            "quoteQty": self.price.times(self.quantity),
            "commission": self.commission,
            "commissionAsset": self.commission_asset,
            "time": self.at.millis(),
            "isBuyer": self.is_buyer,
            "isMaker": self.is_maker,
            "isBestMatch": true,
        })
    }
}
