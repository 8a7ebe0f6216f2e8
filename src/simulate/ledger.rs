//! The exchange's own ledger, read for the judgement: who placed, cancelled and amended which order, and when.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::kernel::time::Time;
use crate::simulate::setting::{CONTAINMENT_AGENT, THIEF_AGENT};

/// A symbol and the number of an order in it.
pub type Key = (String, i64);

#[derive(Debug, Default)]
pub struct Ledger {
    pub orders: BTreeMap<Key, Entry>,
    pub keys: Vec<KeyChange>,
}

/// A key that was made, changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    pub at: Time,
    pub key: String,
    pub what: KeyChanged,
    /// Countersign itself did it.
    pub contains: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyChanged {
    Made,
    /// To reading alone, or to more.
    Rights {
        any: bool,
    },
    Deleted,
}

/// What became of one order.
#[derive(Debug)]
pub struct Entry {
    pub by_thief: bool,
    /// The id it was placed under.
    pub client_id: String,
    pub placed_at: Time,
    pub changes: Vec<Change>,
    /// Every row of it that says something: its first fill, too.
    pub filled: bool,
    pub ended_at: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub what: Changed,
    pub at: Time,
    pub by_thief: bool,
    /// Countersign itself did it.
    pub contains: bool,
    /// The id of the request, where it had one.
    pub id: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    Cancelled,
    Amended,
}

impl Ledger {
    pub fn read(body: &Value) -> Self {
        let mut ledger = Self::default();
        for row in body["rows"].as_array().into_iter().flatten() {
            ledger.note(row);
        }
        ledger
    }

    fn note(&mut self, row: &Value) {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        if let (Some(at), Some(key)) = (row["at"].as_i64(), row["changed_key"].as_str()) {
            let more = |permission: &Value| permission != "reading";
            let any = row["permissions"].as_array().into_iter().flatten().any(more);
            let what = match row["kind"].as_str() {
                Some("KEY_DELETED") => KeyChanged::Deleted,
                Some("KEY_CREATED") => KeyChanged::Made,
                Some(_) | None => KeyChanged::Rights { any },
            };
            let (at, key) = (Time::from_millis(at), key.to_owned());
            let contains = row["agent"] == CONTAINMENT_AGENT;
            return self.keys.push(KeyChange { at, key, what, contains });
        }
        let (Some(order_id), Some(at)) = (row["order_id"].as_i64(), row["at"].as_i64()) else { return };
        let (at, by_thief) = (Time::from_millis(at), row["agent"] == THIEF_AGENT);
        let key = (text("symbol"), order_id);
        let entry = self.orders.entry(key).or_insert_with(|| Entry {
            by_thief,
            client_id: text("client_order_id"),
            placed_at: at,
            changes: Vec::new(),
            filled: false,
            ended_at: None,
        });
        let what = match row["kind"].as_str() {
            Some("CANCELED") => Some(Changed::Cancelled),
            Some("REPLACED") => Some(Changed::Amended),
            Some("TRADE") => {
                entry.filled = true;
                None
            }
            _ => None,
        };
        if !matches!(row["status"].as_str(), Some("NEW" | "PARTIALLY_FILLED")) {
            entry.ended_at = Some(at);
        }
        if let Some(what) = what {
            let id = row["other_client_id"].as_str().map(str::to_owned);
            entry.changes.push(Change { what, at, by_thief, contains: row["agent"] == CONTAINMENT_AGENT, id });
        }
    }

    /// Whether an order was taken under this id by then.
    pub fn knows_id(&self, id: &str, by: Time) -> bool {
        self.orders.values().any(|entry| entry.client_id == id && !entry.by_thief && entry.placed_at <= by)
    }
}
