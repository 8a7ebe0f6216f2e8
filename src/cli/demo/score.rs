//! How well the watcher did, judged by the exchange's own ledger, which knows whose client sent each order.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cli::demo::kill::Killed;
use crate::kernel::incident::Notice;
use crate::kernel::time::Time;

/// What the screen has shown of each order, and when first.
#[derive(Debug, Default)]
pub struct Seen {
    notices: BTreeMap<u64, (Notice, Time)>,
    lines: Vec<(Time, String)>,
}

impl Seen {
    pub fn note(&mut self, at: Time, notice: &Notice) {
        let known = self.notices.get(&notice.incident.0).map_or(0, |(known, _)| known.lines.len());
        for line in notice.lines.iter().skip(if notice.lines_left_out == 0 { known } else { 0 }) {
            self.lines.push((at, line.text.to_string()));
        }
        self.notices.insert(notice.incident.0, (notice.clone(), at));
    }

    fn shown_at(&self, order: &Order) -> Option<Time> {
        self.lines.iter().find(|(_, text)| order.is_named_in(text)).map(|(at, _)| *at)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Order {
    symbol: String,
    id: i64,
    at: i64,
}

impl Order {
    fn is_named_in(&self, text: &str) -> bool {
        text.contains(&format!("(order {},", self.id)) && text.contains(&format!(" {} ", self.symbol))
    }
}

#[derive(Debug)]
pub struct Score {
    pub bot_orders: usize,
    pub matched: u64,
    pub foreign_orders: usize,
    pub foreign_found: usize,
    pub false_alarms: usize,
    pub latencies_ms: Vec<i64>,
    /// What the kill came to, once there was one.
    pub killed: Option<Killed>,
}

impl Score {
    /// `ledger` is the exchange's, `status` the watcher's.
    pub fn new(ledger: &Value, status: &Value, seen: &Seen, bot: &str, thief: &str) -> Self {
        let foreign = orders_by(ledger, thief);
        let mut latencies_ms: Vec<i64> =
            foreign.iter().filter_map(|order| seen.shown_at(order).map(|at| at.millis() - order.at)).collect();
        latencies_ms.sort_unstable();
        let names_foreign =
            |notice: &Notice| notice.lines.iter().any(|line| foreign.iter().any(|order| order.is_named_in(&line.text)));
        Self {
            bot_orders: orders_by(ledger, bot).len(),
            matched: status["status"]["orders"]["matched"].as_u64().unwrap_or(0),
            foreign_orders: foreign.len(),
            foreign_found: latencies_ms.len(),
            false_alarms: seen.notices.values().filter(|(notice, _)| !names_foreign(notice)).count(),
            latencies_ms,
            killed: None,
        }
    }

    pub fn is_contained(&self) -> bool {
        self.killed.as_ref().is_some_and(Killed::is_proved)
    }

    pub fn is_perfect(&self) -> bool {
        self.foreign_orders > 0
            && self.foreign_found == self.foreign_orders
            && self.false_alarms == 0
            && usize::try_from(self.matched) == Ok(self.bot_orders)
    }

    pub fn p50_ms(&self) -> Option<i64> {
        self.latencies_ms.get(self.latencies_ms.len() / 2).copied()
    }

    pub fn json(&self) -> Value {
        json!({
            "bot_orders": self.bot_orders,
            "matched": self.matched,
            "foreign_orders": self.foreign_orders,
            "foreign_found": self.foreign_found,
            "false_alarms": self.false_alarms,
            // From the exchange's own time of the order to the alert on the screen, its row on disk before it.
            "frame_to_alert_ms": { "p50": self.p50_ms(), "max": self.latencies_ms.last() },
            "containment": self.killed.as_ref().map(Killed::json),
        })
    }
}

/// Each order once, by the client that sent it.
fn orders_by(ledger: &Value, agent: &str) -> Vec<Order> {
    let mut orders: Vec<Order> = Vec::new();
    for row in ledger["rows"].as_array().into_iter().flatten() {
        if row["agent"] != agent || row["kind"] != "NEW" {
            continue;
        }
        let order = Order {
            symbol: row["symbol"].as_str().unwrap_or_default().to_owned(),
            id: row["order_id"].as_i64().unwrap_or_default(),
            at: row["at"].as_i64().unwrap_or_default(),
        };
        if !orders.iter().any(|known| (&known.symbol, known.id) == (&order.symbol, order.id)) {
            orders.push(order);
        }
    }
    orders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_order_once_and_only_its_sender() {
        let row = |agent: &str, kind: &str, id: i64| json!({ "agent": agent, "kind": kind, "symbol": "BTCUSDT", "order_id": id, "at": 5 });
        let ledger = json!({ "rows": [row("bot", "NEW", 1), row("bot", "NEW", 1), row("bot", "TRADE", 1), row("thief", "NEW", 2)] });
        assert_eq!(orders_by(&ledger, "bot").len(), 1);
        assert_eq!(orders_by(&ledger, "thief").len(), 1);
        let score =
            Score::new(&ledger, &json!({ "status": { "orders": { "matched": 1 } } }), &Seen::default(), "bot", "thief");
        assert_eq!((score.foreign_orders, score.foreign_found), (1, 0));
        assert!(!score.is_perfect(), "an order that no alert names was not found");
    }
}
