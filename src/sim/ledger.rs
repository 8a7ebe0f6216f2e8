//! What really happened, told by the exchange itself: the record against which watcher, tests and demo are judged.
//! It is bounded: the oldest rows go first and are counted.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

use serde::Serialize;

use crate::kernel::order::{ExecutionType, OrderStatus, OrderType, Side};
use crate::kernel::time::Time;
use crate::sim::amount::Amount;
use crate::sim::event::Execution;
use crate::sim::key::{ApiKey, Permission};
use crate::sim::order::{Actor, Order, Uid};

/// About 200 bytes a row: 100 MB at the most.
const ROWS_MAX: usize = 500_000;

#[derive(Debug, Default)]
pub struct Ledger {
    rows: VecDeque<Row>,
    next: u64,
    dropped: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub row: u64,
    /// Milliseconds since the epoch.
    pub at: i64,
    pub account: Uid,
    /// Whose doing it was: for a fill the order's, for a cancel the canceller's.
    pub key: Box<str>,
    pub address: IpAddr,
    pub agent: Box<str>,
    /// Subscriptions the account had when the event was made, and copies of it that were sent out.
    pub subscribed: u32,
    pub sent: u32,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum What {
    Execution(ExecutionRow),
    Transfer { kind: &'static str, asset: &'static str, amount: Amount },
    Key(KeyRow),
}

/// A change of a key, never an attempt: what did not change anything has no row.
#[derive(Debug, Clone, Serialize)]
pub struct KeyRow {
    pub kind: KeyChange,
    /// The changed key; `key` is the one that changed it.
    pub changed_key: Box<str>,
    pub changed_api_key: Box<str>,
    /// What it may since then, and from where.
    pub permissions: BTreeSet<Permission>,
    pub restricted: bool,
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KeyChange {
    KeyCreated,
    KeyPermissions,
    KeyAddresses,
    KeyDeleted,
}

#[derive(Debug, Clone, Serialize)]
pub struct ExecutionRow {
    pub kind: ExecutionType,
    pub symbol: &'static str,
    pub order_id: i64,
    pub execution_id: i64,
    pub client_order_id: Box<str>,
    /// The cancel request's id, or an amendment's former one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_client_id: Option<Box<str>>,
    pub side: Side,
    #[serde(rename = "type")]
    pub order_type: OrderType,
    pub status: OrderStatus,
    pub quantity: Amount,
    pub price: Amount,
    pub executed: Amount,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trade: Option<TradeRow>,
}

#[derive(Debug, Clone, Serialize)]
pub struct TradeRow {
    pub id: i64,
    pub price: Amount,
    pub quantity: Amount,
    pub maker: bool,
}

impl Ledger {
    pub fn note_execution(&mut self, now: Time, by: &Actor, order: &Order, execution: &Execution) -> u64 {
        let other = execution.request_id.as_deref().or(match execution.kind {
            ExecutionType::Replaced => Some(execution.original_id.as_str()),
            ExecutionType::New
            | ExecutionType::Canceled
            | ExecutionType::Rejected
            | ExecutionType::Trade
            | ExecutionType::Expired
            | ExecutionType::TradePrevention => None,
        });
        let what = What::Execution(ExecutionRow {
            kind: execution.kind,
            symbol: order.symbol_name(),
            order_id: order.id,
            execution_id: execution.id,
            client_order_id: order.client_id.as_str().into(),
            other_client_id: other.map(Into::into),
            side: order.side,
            order_type: order.kind,
            status: order.status,
            quantity: order.quantity,
            price: order.price,
            executed: order.executed,
            trade: execution.fill.map(|fill| TradeRow {
                id: fill.trade_id,
                price: fill.price,
                quantity: fill.quantity,
                maker: fill.is_maker,
            }),
        });
        self.push(now, order.uid, by, what)
    }

    pub fn note_transfer(&mut self, now: Time, by: &Actor, asset: &'static str, amount: Amount) -> u64 {
        let kind = if amount < Amount::ZERO { "WITHDRAWAL" } else { "DEPOSIT" };
        self.push(now, by.uid, by, What::Transfer { kind, asset, amount })
    }

    /// Between two accounts: a row for each.
    pub fn note_move(&mut self, now: Time, account: Uid, by: &Actor, asset: &'static str, amount: Amount) -> u64 {
        self.push(now, account, by, What::Transfer { kind: "TRANSFER", asset, amount })
    }

    pub fn note_key(&mut self, now: Time, by: &Actor, kind: KeyChange, key: &ApiKey) {
        let what = What::Key(KeyRow {
            kind,
            changed_key: key.name.clone(),
            changed_api_key: key.api_key.clone(),
            permissions: key.permissions.clone(),
            restricted: key.origins.are_restricted(),
            addresses: key.origins.listed().copied().collect(),
        });
        self.push(now, key.uid, by, what);
    }

    fn push(&mut self, now: Time, account: Uid, by: &Actor, what: What) -> u64 {
        if self.rows.len() == ROWS_MAX {
            self.rows.pop_front();
            self.dropped += 1;
        }
        self.next += 1;
        self.rows.push_back(Row {
            row: self.next,
            at: now.millis(),
            account,
            key: by.key.clone(),
            address: by.address,
            agent: by.agent.clone(),
            subscribed: 0,
            sent: 0,
            what,
        });
        self.next
    }

    /// Says for a row how many were listening and how many copies went out.
    pub fn stamp(&mut self, row: u64, subscribed: u32, sent: u32) {
        let place = row.checked_sub(self.dropped + 1).and_then(|place| usize::try_from(place).ok());
        if let Some(row) = place.and_then(|place| self.rows.get_mut(place)) {
            row.subscribed += subscribed;
            row.sent += sent;
        }
    }

    pub fn rows_after(&self, after: u64) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.row > after)
    }

    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}
