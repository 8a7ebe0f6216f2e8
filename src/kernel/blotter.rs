//! The account's record of intents and of the orders bound to them.
//!
//! Invariants: an order is known by (symbol, venue order id), client ids are aliases; closed orders and intents stay
//! as tombstones, so that a repeat or a late report changes nothing; an id is bound to one order only, the first that
//! the venue created under it, whichever report of it arrives first. Each look-up is by an index, so that a report
//! costs the same with ten orders held as with ten thousand.

mod order;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::intent::{CancelTerms, OrderTerms, SendOutcome, Target};
use crate::kernel::money::Dec;
use crate::kernel::order::{Bot, ClientId, OrderId, Symbol};
use crate::kernel::pairs;
use crate::kernel::time::Time;
use crate::kernel::verdict::Verdict;

/// Orders held, tombstones included. At the limit the oldest closed order is forgotten, then the oldest of all, each
/// with its intent; a forgotten order that stirs again is judged anew, so the fault is an alert too many, never one
/// too few.
pub const ORDERS_MAX: usize = 10_000;
/// Announced orders and cancels held. At the limit the oldest settled one is forgotten, and the verdict on its order
/// stands; if none is settled, the intent is refused.
pub const INTENTS_MAX: usize = 10_000;
/// The venue allows ten amendments of one order.
const AMENDMENTS_FOLLOWED_MAX: usize = 10;
/// The exchange refuses what is stamped by a clock that is further behind, by its usual `recvWindow`.
const CLOCK_BEHIND_MAX: Duration = Duration::from_secs(5);

pub use order::{Glimpse, Order, Sight};

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
    /// What a cancel or amendment was said to be about → the intents, by the time they were said.
    #[serde(with = "pairs")]
    by_target: BTreeMap<(Symbol, Target), BTreeSet<(Time, IntentKey)>>,
    /// Client id that orders were placed with → those orders, the first that the venue created in front.
    #[serde(with = "pairs")]
    sightings: BTreeMap<ClientId, BTreeSet<(Time, OrderKey)>>,
    /// Ids that amendments gave to orders.
    #[serde(with = "pairs")]
    aliases: BTreeMap<(Symbol, ClientId), OrderKey>,
    #[serde(with = "pairs")]
    lists: BTreeMap<i64, BTreeSet<OrderKey>>,
    order_age: BTreeSet<(Time, OrderKey)>,
    closed_age: BTreeSet<(Time, OrderKey)>,
    settled_age: BTreeSet<(Time, IntentKey)>,
    pub forgotten_orders: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Intent {
    pub received_at: Time,
    /// The latest nonce of the bot's sequence up to this record.
    pub nonce: Option<Time>,
    /// By the bot's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written_at: Option<Time>,
    pub announced: Announced,
    pub result: Option<SendOutcome>,
    settled: Settled,
    /// Signed reads that did not find it.
    pub missing_reads: u8,
    /// Reads in a row that failed.
    pub failed_reads: u8,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Announced {
    Place {
        terms: Box<OrderTerms>,
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
        /// The venue's number, where the bot named the order by that. Amended unseen it may be shown under any id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<OrderId>,
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

/// What one more sight of an order makes to be judged again.
#[derive(Debug)]
pub struct Touched {
    /// The order itself, and the one whose claim to an id this changed.
    pub orders: BTreeSet<OrderKey>,
    /// Its ids, its list or its age are other ones now: what was asked for about it may be explained by that.
    pub identity: bool,
}

impl Announced {
    /// The id of the order or request itself, where the bot chose one.
    pub fn own_id(&self) -> Option<&ClientId> {
        match self {
            Self::Place { terms, .. } => Some(&terms.client_order_id),
            Self::Cancel { terms, .. } => terms.client_order_id.as_ref(),
            // An amendment may keep the order's id, which is the order's then.
            Self::Amend { client_order_id, target, .. } => client_order_id.as_ref().filter(|id| *id != target),
        }
    }

    /// What a cancel or an amendment is about.
    pub fn target(&self) -> Option<(Symbol, Target)> {
        match self {
            Self::Place { .. } => None,
            Self::Cancel { terms, .. } => Some((terms.symbol.clone(), terms.target.clone())),
            Self::Amend { symbol, target, number, .. } => {
                let by_client_id = || Target::Client(target.clone());
                Some((symbol.clone(), number.map_or_else(by_client_id, Target::Order)))
            }
        }
    }
}

impl Intent {
    pub const fn new(received_at: Time, nonce: Option<Time>, written_at: Time, announced: Announced) -> Self {
        Self {
            received_at,
            nonce,
            written_at: Some(written_at),
            announced,
            result: None,
            settled: Settled::No,
            missing_reads: 0,
            failed_reads: 0,
        }
    }

    /// What could not be handed in at once was said before it came, though not before the word of ours that it knows, and
    /// by the bot's own clock.
    pub fn said_at(&self) -> Time {
        match (self.nonce, self.written_at) {
            (Some(nonce), Some(written_at)) => (written_at + CLOCK_BEHIND_MAX).max(nonce).min(self.received_at),
            (Some(_) | None, _) => self.received_at,
        }
    }

    pub const fn settled(&self) -> Settled {
        self.settled
    }
}

/// Intents.
impl Blotter {
    pub fn intent_by_client_id(&self, id: &ClientId) -> Option<(&IntentKey, &Intent)> {
        let key = self.by_client_id.get(id)?;
        self.intents.get_key_value(key)
    }

    /// The placement announced under an id.
    pub fn placement(&self, id: &ClientId) -> Option<(&IntentKey, &Intent)> {
        self.intent_by_client_id(id).filter(|(_, intent)| matches!(intent.announced, Announced::Place { .. }))
    }

    /// The placement of an order that is shown under the id that an amendment of the bot's gave it.
    pub fn amended_placement(&self, id: &ClientId) -> Option<(&IntentKey, &Intent)> {
        let mut id = id;
        for _ in 0..AMENDMENTS_FOLLOWED_MAX {
            let found = self.intent_by_client_id(id)?;
            match &found.1.announced {
                Announced::Place { .. } => return Some(found),
                Announced::Amend { target, .. } => id = target,
                Announced::Cancel { .. } => return None,
            }
        }
        None
    }

    /// The placement that the bot says the venue took as this order. Looked for through all of them: few orders need it.
    pub fn accepted_placement(&self, order: &OrderKey) -> Option<(&IntentKey, &Intent)> {
        self.intents.iter().find(|(_, intent)| match (&intent.announced, &intent.result) {
            (Announced::Place { terms, .. }, Some(SendOutcome::Accepted { order_id: Some(id) })) => {
                (&terms.symbol, id) == (&order.0, &order.1)
            }
            (Announced::Place { .. } | Announced::Cancel { .. } | Announced::Amend { .. }, _) => false,
        })
    }

    /// Cancels and amendments said to be about this target, from `since` to `until`.
    pub fn about(
        &self,
        target: &(Symbol, Target),
        since: Time,
        until: Time,
    ) -> impl Iterator<Item = (&IntentKey, &Intent)> {
        let from = (since, (Bot::new(""), 0, 0));
        let said = self.by_target.get(target).into_iter();
        said.flat_map(move |said| said.range(from.clone()..))
            .take_while(move |(at, _)| *at <= until)
            .filter_map(|(_, key)| self.intents.get_key_value(key))
    }

    /// Whether `more` intents can be filed; the oldest settled ones give way to them.
    pub fn make_room(&mut self, more: usize) -> bool {
        while self.intents.len() + more > INTENTS_MAX {
            let Some((_, oldest)) = self.settled_age.first().cloned() else { return false };
            self.forget_intent(&oldest);
        }
        true
    }

    /// Files the intent under its id and its target.
    pub fn register(&mut self, key: IntentKey, intent: Intent) {
        if let Some(id) = intent.announced.own_id() {
            self.by_client_id.insert(id.clone(), key.clone());
        }
        if let Some(target) = intent.announced.target() {
            self.by_target.entry(target).or_default().insert((intent.said_at(), key.clone()));
        }
        self.intents.insert(key, intent);
    }

    pub fn settle(&mut self, key: &IntentKey, settled: Settled) {
        let Some(intent) = self.intents.get_mut(key) else { return };
        intent.settled = settled;
        let age = (intent.received_at, key.clone());
        if settled == Settled::No {
            self.settled_age.remove(&age);
        } else {
            self.settled_age.insert(age);
        }
    }

    /// The bot told it again under another number: no order may come of this one any more.
    pub fn revoke(&mut self, key: &IntentKey) {
        self.settle(key, Settled::Rejected);
        let id = self.intents.get(key).and_then(|intent| intent.announced.own_id()).cloned();
        self.unname(id.as_ref(), key);
    }

    fn unname(&mut self, id: Option<&ClientId>, key: &IntentKey) {
        if let Some(id) = id
            && self.by_client_id.get(id) == Some(key)
        {
            self.by_client_id.remove(id);
        }
    }

    fn forget_intent(&mut self, key: &IntentKey) {
        let Some(intent) = self.intents.remove(key) else { return };
        let age = (intent.received_at, key.clone());
        self.settled_age.remove(&age);
        if let Some(target) = intent.announced.target()
            && let Some(said) = self.by_target.get_mut(&target)
        {
            said.remove(&(intent.said_at(), key.clone()));
            if said.is_empty() {
                self.by_target.remove(&target);
            }
        }
        let id = intent.announced.own_id();
        if let (Some(id), Announced::Place { .. }) = (id, &intent.announced)
            && self.by_client_id.get(id) == Some(key)
            && let Some(holder) = self.holder(id).cloned()
            && let Some(order) = self.orders.get_mut(&holder)
        {
            order.kept = order.verdict == Verdict::Matched;
        }
        self.unname(id, key);
    }
}

/// Orders.
impl Blotter {
    /// Takes in one sight of an order.
    pub fn take(&mut self, key: &OrderKey, glimpse: Glimpse, now: Time, wait: Duration) -> Touched {
        let mut orders = BTreeSet::from([key.clone()]);
        let shown_id = glimpse.placed.client_order_id.clone();
        let identity = |order: &Order| (order.placed.client_order_id.clone(), order.created_at, order.list_id);
        let before = self.orders.get(key).map(identity);
        if let Some(order) = self.orders.get_mut(key) {
            order.take(glimpse);
        } else {
            orders.extend(self.insert_order(key.clone(), glimpse.into_order(now, wait)));
        }
        let after = self.orders.get(key).map(identity);
        if let (Some((id, at, _)), Some((new_id, new_at, _))) = (before.clone(), after.clone())
            && (&id, at) != (&new_id, new_at)
        {
            orders.extend(self.unfile((id, at), key));
            orders.extend(self.file((new_id, new_at), key));
        }
        let aliased = self.note_order(key, shown_id);
        Touched { orders, identity: aliased || before != after }
    }

    /// Returns the order that no longer holds its id because of this one.
    pub fn insert_order(&mut self, key: OrderKey, order: Order) -> Option<OrderKey> {
        self.order_age.insert((order.first_seen, key.clone()));
        let id = order.placed.client_order_id.clone();
        let displaced = self.file((id.clone(), order.created_at), &key);
        self.orders.insert(key.clone(), order);
        self.note_order(&key, id);
        displaced
    }

    /// Keeps the indexes by id, list and end in step with the order. `true` if it was seen under one more id.
    fn note_order(&mut self, key: &OrderKey, shown_id: ClientId) -> bool {
        let Some(order) = self.orders.get_mut(key) else { return false };
        if let Some(list) = order.list_id {
            self.lists.entry(list).or_default().insert(key.clone());
        }
        if !order.open {
            self.closed_age.insert((order.first_seen, key.clone()));
        }
        let news = order.note_id(&shown_id);
        if news {
            self.aliases.insert((key.0.clone(), shown_id), key.clone());
        }
        news
    }

    pub fn close(&mut self, key: &OrderKey) {
        if let Some(order) = self.orders.get_mut(key) {
            order.open = false;
            self.closed_age.insert((order.first_seen, key.clone()));
        }
    }

    /// Files an order under the id it was placed with. Returns who held that id before, if it does not any more.
    fn file(&mut self, (id, created_at): (ClientId, Time), key: &OrderKey) -> Option<OrderKey> {
        let filed = self.sightings.entry(id).or_default();
        let before = filed.first().map(|(_, holder)| holder.clone());
        filed.insert((created_at, key.clone()));
        let after = filed.first().map(|(_, holder)| holder);
        before.filter(|before| Some(before) != after)
    }

    /// Returns who holds the id now that this order does not.
    fn unfile(&mut self, (id, created_at): (ClientId, Time), key: &OrderKey) -> Option<OrderKey> {
        let filed = self.sightings.get_mut(&id)?;
        let held = filed.first().is_some_and(|(_, holder)| holder == key);
        filed.remove(&(created_at, key.clone()));
        let heir = filed.first().map(|(_, holder)| holder.clone());
        if heir.is_none() {
            self.sightings.remove(&id);
        }
        heir.filter(|_| held)
    }

    /// Who has to give way to a new order, if anybody has.
    pub fn must_go(&self) -> Option<OrderKey> {
        let oldest = || self.closed_age.first().or_else(|| self.order_age.first());
        (self.orders.len() >= ORDERS_MAX).then(oldest).flatten().map(|(_, key)| key.clone())
    }

    pub fn forget_order(&mut self, key: &OrderKey) {
        let Some(order) = self.orders.remove(key) else { return };
        self.order_age.remove(&(order.first_seen, key.clone()));
        self.closed_age.remove(&(order.first_seen, key.clone()));
        self.forgotten_orders += 1;
        let id = order.placed.client_order_id;
        self.unfile((id.clone(), order.created_at), key);
        for alias in order.aliases {
            let alias = (key.0.clone(), alias);
            if self.aliases.get(&alias) == Some(key) {
                self.aliases.remove(&alias);
            }
        }
        if let Some(list) = order.list_id
            && let Some(legs) = self.lists.get_mut(&list)
        {
            legs.remove(key);
            if legs.is_empty() {
                self.lists.remove(&list);
            }
        }
        // Without its order the id would be free for a second one.
        if let Some(intent) = self.placement(&id).map(|(intent, _)| intent.clone()) {
            self.forget_intent(&intent);
        }
    }

    /// Every order placed under an id, the first that the venue created in front.
    pub fn orders_under(&self, id: &ClientId) -> impl Iterator<Item = &OrderKey> {
        self.sightings.get(id).into_iter().flatten().map(|(_, key)| key)
    }

    /// The one order that an id belongs to: the first that the venue created under it.
    pub fn holder(&self, id: &ClientId) -> Option<&OrderKey> {
        self.orders_under(id).next()
    }

    /// The order that a target names, where we have seen it.
    pub fn order_of_client_id(&self, symbol: &Symbol, id: &ClientId) -> Option<&OrderKey> {
        let placed = self.orders_under(id).find(|(of, _)| of == symbol);
        placed.or_else(|| self.aliases.get(&(symbol.clone(), id.clone())))
    }

    /// The orders of a list.
    pub fn legs(&self, list: i64) -> impl Iterator<Item = &OrderKey> {
        self.lists.get(&list).into_iter().flatten()
    }

    pub fn orders_of(&self, symbol: &Symbol) -> impl Iterator<Item = (&OrderKey, &Order)> {
        let range = (symbol.clone(), OrderId(i64::MIN))..=(symbol.clone(), OrderId(i64::MAX));
        self.orders.range(range)
    }

    pub fn open_orders(&self) -> impl Iterator<Item = (&OrderKey, &Order)> {
        self.orders.iter().filter(|(_, order)| order.open)
    }
}
