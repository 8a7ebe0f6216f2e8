//! The account's record of intents and of the orders bound to them.
//!
//! Invariants: an order is known by (symbol, venue order id), client ids are aliases; closed orders and intents stay
//! as tombstones, so that a repeat or a late report changes nothing; an id is bound to one order only, the first that
//! the venue created under it, whichever report of it arrives first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kernel::event::TagCheck;
use crate::kernel::intent::{CancelTerms, OrderTerms, SendOutcome};
use crate::kernel::money::Dec;
use crate::kernel::order::{Bot, ClientId, OrderId, Symbol};
use crate::kernel::pairs;
use crate::kernel::time::Time;
use crate::kernel::verdict::{Assurance, Difference, Placed, Verdict};

/// Orders held, tombstones included. At the limit the oldest closed order is forgotten, then the oldest of all; a
/// forgotten order that stirs again is judged anew, so the fault is an alert too many, never one too few.
pub const ORDERS_MAX: usize = 10_000;
/// Announced orders and cancels held. At the limit the oldest settled one is forgotten; if none is settled, the
/// intent is refused.
pub const INTENTS_MAX: usize = 10_000;

pub type OrderKey = (Symbol, OrderId);

/// One thing a bot announced: a record may announce several (a list's legs, a cancel and its replacement).
pub type IntentKey = (Bot, u64, u8);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Blotter {
    #[serde(with = "pairs")]
    pub orders: BTreeMap<OrderKey, Order>,
    #[serde(with = "pairs")]
    pub intents: BTreeMap<IntentKey, Intent>,
    /// Client id of an announced order or cancel → the intent.
    #[serde(with = "pairs")]
    by_client_id: BTreeMap<ClientId, IntentKey>,
    /// Client id on the wire → every order seen under it.
    #[serde(with = "pairs")]
    sightings: BTreeMap<ClientId, Vec<OrderKey>>,
    #[serde(with = "pairs")]
    order_age: BTreeMap<(Time, OrderKey), ()>,
    #[serde(with = "pairs")]
    intent_age: BTreeMap<(Time, IntentKey), ()>,
    pub forgotten_orders: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Intent {
    pub received_at: Time,
    /// The latest nonce of the bot's sequence up to this record.
    pub nonce: Option<Time>,
    pub announced: Announced,
    pub result: Option<SendOutcome>,
    pub settled: Settled,
    /// Signed reads that did not find it.
    pub missing_reads: u8,
    /// Reads in a row that failed.
    pub failed_reads: u8,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Announced {
    Place {
        terms: OrderTerms,
        /// The smaller quantities it may be amended to.
        amended: Vec<Dec>,
    },
    Cancel {
        terms: CancelTerms,
        /// For a cancel-all: what was open when it was announced.
        open: Vec<OrderId>,
    },
    Amend {
        symbol: Symbol,
        target: ClientId,
        quantity: Dec,
        client_order_id: Option<ClientId>,
    },
}

/// What became of an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    No,
    /// The venue showed it.
    Seen,
    /// The bot itself says that it did not happen.
    Rejected,
    /// The venue does not know it, twice.
    Unseen,
    /// It could not be looked up.
    Unproven,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub placed: Placed,
    /// When the placing report was made; the earliest NEW wins.
    pub placed_at: Time,
    pub sight: Sight,
    pub first_seen: Time,
    pub created_at: Time,
    pub tag: TagCheck,
    pub list_id: Option<i64>,
    pub verdict: Verdict,
    pub assurance: Option<Assurance>,
    pub differences: Vec<Difference>,
    /// The incident side of this order has been told.
    pub told: bool,
    /// Waiting ends here, whatever the bots say.
    pub deadline: Time,
    pub open: bool,
    pub cumulative_quantity: Dec,
    pub cumulative_quote: Dec,
}

/// How well we know the terms that an order was placed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sight {
    /// From a report of something else (a fill, an expiry).
    Aside,
    /// The same, and a read could not settle it.
    AsideUnread,
    /// From the report or read that shows the order itself.
    AsPlaced,
}

impl Order {
    /// What it has traded and what it still binds, in the quote asset.
    pub fn exposure(&self) -> Dec {
        let rest = self.placed.quantity.checked_sub(self.cumulative_quantity).filter(|rest| rest.is_positive());
        let resting = rest.filter(|_| self.open).and_then(|rest| rest.checked_mul(self.placed.price));
        self.cumulative_quote.checked_add(resting.unwrap_or(Dec::ZERO)).unwrap_or(self.cumulative_quote)
    }
}

impl Blotter {
    pub fn intent_by_client_id(&self, id: &ClientId) -> Option<IntentKey> {
        self.by_client_id.get(id).cloned()
    }

    /// Makes room and files the intent under its ids. `false` where there is no room.
    pub fn register(&mut self, key: IntentKey, intent: Intent, ids: &[ClientId]) -> bool {
        if self.intents.len() >= INTENTS_MAX && !self.forget_intent() {
            return false;
        }
        for id in ids {
            self.by_client_id.insert(id.clone(), key.clone());
        }
        self.intent_age.insert((intent.received_at, key.clone()), ());
        self.intents.insert(key, intent);
        true
    }

    /// What was announced since, oldest first.
    pub fn intents_since(&self, since: Time) -> impl Iterator<Item = &IntentKey> {
        let floor = (since, (Bot::new(""), 0, 0));
        self.intent_age.range(floor..).map(|((_, key), ())| key)
    }

    fn forget_intent(&mut self) -> bool {
        let settled = |key: &IntentKey| self.intents.get(key).is_none_or(|intent| intent.settled != Settled::No);
        let Some(oldest) = self.intent_age.keys().find(|(_, key)| settled(key)).cloned() else { return false };
        self.intent_age.remove(&oldest);
        if let Some(intent) = self.intents.remove(&oldest.1) {
            let id = match intent.announced {
                Announced::Place { terms, .. } => Some(terms.client_order_id),
                Announced::Cancel { terms, .. } => terms.client_order_id,
                Announced::Amend { client_order_id, .. } => client_order_id,
            };
            if let Some(id) = id
                && self.by_client_id.get(&id) == Some(&oldest.1)
            {
                self.by_client_id.remove(&id);
            }
        }
        true
    }

    pub fn insert_order(&mut self, key: OrderKey, order: Order) {
        if self.orders.len() >= ORDERS_MAX {
            self.forget_order();
        }
        self.order_age.insert((order.first_seen, key.clone()), ());
        self.note_sighting(&order.placed.client_order_id, &key);
        self.orders.insert(key, order);
    }

    /// Files an order under one more client id (its placing report may come after others).
    pub fn note_sighting(&mut self, id: &ClientId, key: &OrderKey) {
        let seen = self.sightings.entry(id.clone()).or_default();
        if !seen.contains(key) {
            seen.push(key.clone());
        }
    }

    fn forget_order(&mut self) {
        let closed = |key: &OrderKey| self.orders.get(key).is_none_or(|order| !order.open);
        let oldest = self.order_age.keys().find(|(_, key)| closed(key)).or_else(|| self.order_age.keys().next());
        let Some((at, key)) = oldest.cloned() else { return };
        self.order_age.remove(&(at, key.clone()));
        self.forgotten_orders += 1;
        if let Some(order) = self.orders.remove(&key)
            && let Some(seen) = self.sightings.get_mut(&order.placed.client_order_id)
        {
            seen.retain(|other| *other != key);
            if seen.is_empty() {
                self.sightings.remove(&order.placed.client_order_id);
            }
        }
    }

    pub fn orders_under(&self, id: &ClientId) -> &[OrderKey] {
        self.sightings.get(id).map_or(&[], Vec::as_slice)
    }

    /// The one order that an id belongs to: the first that the venue created under it.
    pub fn holder(&self, id: &ClientId) -> Option<&OrderKey> {
        self.orders_under(id)
            .iter()
            .filter_map(|key| self.orders.get(key).map(|order| (order.created_at, key)))
            .min()
            .map(|(_, key)| key)
    }

    /// The order a target names, where we have seen it.
    pub fn order_of_client_id(&self, symbol: &Symbol, id: &ClientId) -> Option<&OrderKey> {
        self.holder(id).filter(|(of, _)| of == symbol)
    }

    pub fn open_orders(&self) -> impl Iterator<Item = (&OrderKey, &Order)> {
        self.orders.iter().filter(|(_, order)| order.open)
    }
}
