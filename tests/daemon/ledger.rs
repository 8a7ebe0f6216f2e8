//! What really happened, read from the exchange's ledger, and whether a text tells it.

use std::collections::BTreeMap;

use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub symbol: String,
    pub id: i64,
    /// Milliseconds since the epoch.
    pub at: i64,
    /// Somebody was subscribed when it came about.
    pub sent: bool,
    pub partly_filled: bool,
}

impl Order {
    /// As the alerts write it.
    pub fn is_named_in(&self, text: &str) -> bool {
        text.contains(&format!("(order {},", self.id)) && text.contains(&format!(" {} ", self.symbol))
    }
}

/// The orders of one client, each once, oldest first.
pub fn orders_by(ledger: &Value, agent: &str) -> Vec<Order> {
    let mut orders = BTreeMap::<(String, i64), Order>::new();
    for row in ledger["rows"].as_array().unwrap().iter().filter(|row| row["agent"] == agent) {
        let symbol = row["symbol"].as_str().unwrap().to_owned();
        let key = (symbol.clone(), row["order_id"].as_i64().unwrap());
        if row["kind"] == "NEW" {
            let (id, at) = (key.1, row["at"].as_i64().unwrap());
            let sent = row["subscribed"].as_u64().unwrap() > 0;
            orders.entry(key.clone()).or_insert(Order { symbol, id, at, sent, partly_filled: false });
        }
        if let Some(order) = orders.get_mut(&key) {
            order.partly_filled |= row["status"] == "PARTIALLY_FILLED";
        }
    }
    let mut orders: Vec<Order> = orders.into_values().collect();
    orders.sort_by_key(|order| order.at);
    orders
}
