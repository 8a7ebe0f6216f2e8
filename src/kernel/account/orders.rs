//! Orders: from an execution report or a read to the verdict on who placed it.

use crate::kernel::account::finding::{Finding, describe};
use crate::kernel::account::{Kernel, Purpose, Timer};
use crate::kernel::blotter::{Announced, Intent, IntentKey, Order, OrderKey, Settled, Sight};
use crate::kernel::event::{Issuer, OrderSnapshot, ReadOutcome, TagCheck, Tags};
use crate::kernel::money::Dec;
use crate::kernel::order::{ClientId, ExecutionType, OrderStatus};
use crate::kernel::report::ExecutionReport;
use crate::kernel::rule::Subject;
use crate::kernel::time::Time;
use crate::kernel::verdict::{Assurance, Difference, Placed, Verdict, differences};

/// The time a countersign carries lies this close to the order's creation, or the id is a stale one used again.
const TAG_WINDOW: std::time::Duration = std::time::Duration::from_secs(30);

/// One sight of an order, from a report or a read.
struct Glimpse {
    placed: Placed,
    sight: Sight,
    at: Time,
    created_at: Time,
    tag: TagCheck,
    list_id: Option<i64>,
    status: OrderStatus,
    cumulative_quantity: Dec,
    cumulative_quote: Dec,
}

struct Judgement {
    verdict: Verdict,
    assurance: Option<Assurance>,
    differences: Vec<Difference>,
    /// Something else than the placing report differs: read the order before anything is said.
    read_first: bool,
}

impl From<Verdict> for Judgement {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, assurance: None, differences: Vec::new(), read_first: false }
    }
}

impl Kernel {
    pub(super) fn execution(&mut self, report: &ExecutionReport, tags: Tags) {
        let key = (report.symbol.clone(), report.order_id);
        let sight = match report.execution_type {
            ExecutionType::New | ExecutionType::Rejected => Sight::AsPlaced,
            ExecutionType::Canceled
            | ExecutionType::Replaced
            | ExecutionType::Trade
            | ExecutionType::Expired
            | ExecutionType::TradePrevention => Sight::Aside,
        };
        self.glimpse(
            &key,
            Glimpse {
                placed: Placed::from(report),
                sight,
                at: report.transacted_at,
                created_at: report.created_at.unwrap_or(report.transacted_at),
                tag: tags.order,
                list_id: report.list_id,
                status: report.status,
                cumulative_quantity: report.cumulative_quantity,
                cumulative_quote: report.cumulative_quote,
            },
        );
        match report.execution_type {
            ExecutionType::Canceled | ExecutionType::Replaced => self.request(&key, report, tags.request),
            ExecutionType::Expired | ExecutionType::TradePrevention => self.expiry(&key, report),
            ExecutionType::New | ExecutionType::Rejected | ExecutionType::Trade => {}
        }
    }

    /// An order that a signed read shows, and the stream did not.
    pub(super) fn order_read(&mut self, snapshot: &OrderSnapshot) {
        let key = (snapshot.symbol.clone(), snapshot.order_id);
        let mut placed = Placed::from(snapshot);
        if let Some(order) = self.state.blotter.orders.get(&key) {
            // After a cancel a read may name the cancel's id: the stream's word on the id stands.
            placed.client_order_id = order.placed.client_order_id.clone();
        }
        let tag = match self.state.blotter.orders.get(&key) {
            Some(order) if placed.client_order_id != snapshot.client_order_id => order.tag,
            Some(_) | None => snapshot.tag,
        };
        self.glimpse(
            &key,
            Glimpse {
                placed,
                sight: Sight::AsPlaced,
                at: snapshot.created_at,
                created_at: snapshot.created_at,
                tag,
                list_id: snapshot.list_id,
                status: snapshot.status,
                cumulative_quantity: snapshot.executed_quantity,
                cumulative_quote: snapshot.executed_quote,
            },
        );
    }

    fn glimpse(&mut self, key: &OrderKey, glimpse: Glimpse) {
        let client_order_id = glimpse.placed.client_order_id.clone();
        match self.state.blotter.orders.get_mut(key) {
            Some(order) => order.take(glimpse),
            None => {
                let now = self.now();
                let wait = match glimpse.tag {
                    TagCheck::Valid { .. } => self.declared.waits.unlogged_after,
                    TagCheck::Absent | TagCheck::Forged => self.declared.waits.pending_cap,
                };
                let order = glimpse.into_order(now, now + wait);
                self.state.blotter.insert_order(key.clone(), order);
            }
        }
        self.state.blotter.note_sighting(&client_order_id, key);
        let exposure = self.state.blotter.orders.get(key).map_or(Dec::ZERO, Order::exposure);
        self.state.book.follow(key, exposure);
        self.rejudge_all_under(&client_order_id);
        self.rejudge(key);
    }

    /// A change in who holds an id changes the verdict on every order seen under it.
    pub(super) fn rejudge_all_under(&mut self, id: &ClientId) {
        for key in self.state.blotter.orders_under(id).to_vec() {
            self.rejudge(&key);
        }
    }

    pub(super) fn rejudge_pending(&mut self) {
        for key in self.state.pending.clone() {
            self.rejudge(&key);
        }
        for key in self.state.pending_requests.clone() {
            self.rejudge_request(&key);
        }
    }

    pub(super) fn rejudge(&mut self, key: &OrderKey) {
        let Some(order) = self.state.blotter.orders.get(key) else {
            self.state.pending.remove(key);
            return;
        };
        if order.verdict == Verdict::PreExisting {
            return;
        }
        let judgement = self.judge(key, order);
        if judgement.read_first {
            self.ask(Self::order_request(key), Purpose::Confirm(key.clone()));
        }
        self.settle(key, judgement);
    }

    fn judge(&self, key: &OrderKey, order: &Order) -> Judgement {
        let id = &order.placed.client_order_id;
        let placement = self.state.blotter.intent_by_client_id(id).and_then(|intent_key| {
            let intent = self.state.blotter.intents.get(&intent_key)?;
            matches!(intent.announced, Announced::Place { .. }).then_some(intent)
        });
        match placement {
            Some(intent) if self.said_in_time(intent, order) => self.judge_registered(key, order, intent),
            Some(_) | None => self.judge_unregistered(order),
        }
    }

    /// A row first seen after the execution never counts as intent. It counts if it came before the order was seen;
    /// later, it must have been written before any word of ours that followed the order could reach the bot.
    fn said_in_time(&self, intent: &Intent, order: &Order) -> bool {
        intent.received_at <= order.first_seen
            || match intent.nonce {
                Some(nonce) => nonce < order.first_seen,
                None => intent.received_at <= order.deadline,
            }
    }

    fn judge_registered(&self, key: &OrderKey, order: &Order, intent: &Intent) -> Judgement {
        let Announced::Place { terms, amended } = &intent.announced else { return Verdict::Foreign.into() };
        if self.state.blotter.holder(&order.placed.client_order_id) != Some(key) {
            return Verdict::Replayed.into();
        }
        let mut differences = differences(terms, amended, &order.placed);
        let over = |cap: Option<Dec>, done: Dec| cap.is_some_and(|cap| done > cap);
        if over(terms.quantity, order.cumulative_quantity) || over(terms.quote_quantity, order.cumulative_quote) {
            differences.push(Difference {
                field: "filled".into(),
                said: terms.quantity.or(terms.quote_quantity).unwrap_or(Dec::ZERO).to_string().into(),
                shown: order.cumulative_quantity.to_string().into(),
            });
        }
        let bad_tag = order.tag == TagCheck::Forged && differences.is_empty() && amended.is_empty();
        if bad_tag && order.sight != Sight::Aside {
            differences.push(Difference {
                field: "countersign".into(),
                said: "a tag over these terms".into(),
                shown: "a tag that does not verify".into(),
            });
        }
        if !differences.is_empty() || bad_tag {
            let read_first = order.sight == Sight::Aside;
            let verdict = if read_first { Verdict::Pending } else { Verdict::Divergent };
            return Judgement { verdict, assurance: None, differences, read_first };
        }
        if let TagCheck::Valid { at, .. } = order.tag
            && at.apart(order.created_at) > TAG_WINDOW
        {
            return Verdict::Replayed.into();
        }
        let assurance = match order.tag {
            TagCheck::Valid { .. } => Assurance::Countersigned,
            TagCheck::Absent | TagCheck::Forged if intent.received_at <= order.first_seen => Assurance::Registered,
            TagCheck::Absent | TagCheck::Forged => Assurance::RegisteredLate,
        };
        Judgement { assurance: Some(assurance), ..Verdict::Matched.into() }
    }

    fn judge_unregistered(&self, order: &Order) -> Judgement {
        let waited = self.now() >= order.deadline;
        let inside = self.inside_limits(&order.placed);
        match order.tag {
            TagCheck::Valid { at, .. } if at.apart(order.created_at) > TAG_WINDOW => Verdict::Replayed.into(),
            TagCheck::Valid { issuer: Issuer::Daemon, .. } => Verdict::Unissued.into(),
            TagCheck::Valid { issuer: Issuer::Bot, .. } if inside && !waited => Verdict::Pending.into(),
            TagCheck::Valid { issuer: Issuer::Bot, .. } => Verdict::Unlogged.into(),
            TagCheck::Forged if order.sight == Sight::Aside => {
                Judgement { read_first: true, ..Verdict::Pending.into() }
            }
            TagCheck::Forged => Verdict::Forged.into(),
            TagCheck::Absent if self.declared.tagged_only || !inside => Verdict::Foreign.into(),
            TagCheck::Absent if waited || self.state.bots.have_passed(order.first_seen) => Verdict::Foreign.into(),
            TagCheck::Absent => Verdict::Pending.into(),
        }
    }

    /// Makes the judgement the order's verdict, and tells what changed.
    fn settle(&mut self, key: &OrderKey, judgement: Judgement) {
        let Some(order) = self.state.blotter.orders.get_mut(key) else { return };
        let (verdict, before) = (judgement.verdict, order.verdict);
        let unchanged = verdict == before && judgement.differences == order.differences;
        order.verdict = verdict;
        order.assurance = judgement.assurance;
        order.differences = judgement.differences;
        if verdict == Verdict::Pending {
            let deadline = order.deadline;
            if self.state.pending.insert(key.clone()) {
                self.state.timers.insert((deadline, Timer::Judge(key.clone())));
            }
            return;
        }
        self.state.pending.remove(key);
        if verdict == Verdict::Matched {
            self.mark_seen(key);
        }
        if unchanged {
            return;
        }
        if verdict.is_stranger() {
            self.tell_stranger(key);
        } else if verdict == Verdict::Matched && order_was_told(&mut self.state.blotter.orders, key) {
            let now = self.now();
            let line = format!("cleared: your bot's word on order {} of {} came late, and holds", key.1, key.0);
            self.state.book.clear(now, key, line);
        }
    }

    fn tell_stranger(&mut self, key: &OrderKey) {
        let Some(order) = self.state.blotter.orders.get_mut(key) else { return };
        order.told = true;
        let order = order.clone();
        let mut line = format!("{}: {}", describe(key, &order.placed), order.verdict.plain());
        if order.cumulative_quantity.is_positive() {
            line.push_str(&format!(", {} filled so far", order.cumulative_quantity));
        }
        for difference in &order.differences {
            line.push_str(&format!("; {difference}"));
        }
        self.find(Finding {
            facts: self.order_facts(Subject::Order, order.verdict, &order.placed, order.exposure()),
            scope: "",
            line,
            certainty: self.certainty(order.verdict, order.tag, self.inside_limits(&order.placed)),
            order: Some(key.clone()),
        });
    }

    fn mark_seen(&mut self, key: &OrderKey) {
        let Some(order) = self.state.blotter.orders.get(key) else { return };
        if let Some(intent_key) = self.state.blotter.intent_by_client_id(&order.placed.client_order_id) {
            self.mark_intent_seen(&intent_key);
        }
    }

    pub(super) fn mark_intent_seen(&mut self, intent_key: &IntentKey) {
        if let Some(intent) = self.state.blotter.intents.get_mut(intent_key) {
            intent.settled = Settled::Seen;
        }
    }

    /// The read that was to show an order as it was placed has come back.
    pub(super) fn order_confirmed(&mut self, key: &OrderKey, outcome: ReadOutcome) {
        match outcome {
            ReadOutcome::Order(snapshot) => self.order_read(&snapshot),
            ReadOutcome::NotFound
            | ReadOutcome::Unknown { .. }
            | ReadOutcome::OpenOrders(_)
            | ReadOutcome::Balances(_) => {
                if let Some(order) = self.state.blotter.orders.get_mut(key)
                    && order.sight == Sight::Aside
                {
                    order.sight = Sight::AsideUnread;
                }
                self.rejudge(key);
            }
        }
    }
}

fn order_was_told(orders: &mut std::collections::BTreeMap<OrderKey, Order>, key: &OrderKey) -> bool {
    orders.get_mut(key).is_some_and(|order| std::mem::take(&mut order.told))
}

impl Glimpse {
    fn into_order(self, now: Time, deadline: Time) -> Order {
        Order {
            placed: self.placed,
            placed_at: self.at,
            sight: self.sight,
            first_seen: now,
            created_at: self.created_at,
            tag: self.tag,
            list_id: self.list_id,
            verdict: Verdict::Pending,
            assurance: None,
            differences: Vec::new(),
            told: false,
            deadline,
            open: !self.status.is_terminal(),
            cumulative_quantity: self.cumulative_quantity,
            cumulative_quote: self.cumulative_quote,
        }
    }
}

impl Order {
    /// Takes in one more sight of the order, in whatever order they come.
    fn take(&mut self, glimpse: Glimpse) {
        let better = glimpse.sight > self.sight && !(self.sight == Sight::AsideUnread && glimpse.sight == Sight::Aside)
            || glimpse.sight == self.sight && glimpse.at < self.placed_at;
        if better {
            self.placed = glimpse.placed;
            self.placed_at = glimpse.at;
            self.sight = glimpse.sight;
            self.tag = glimpse.tag;
        }
        self.created_at = self.created_at.min(glimpse.created_at);
        self.list_id = self.list_id.or(glimpse.list_id);
        // Closed stays closed: a NEW that arrives after the fill does not bring the order back.
        self.open = self.open && !glimpse.status.is_terminal();
        self.cumulative_quantity = self.cumulative_quantity.max(glimpse.cumulative_quantity);
        self.cumulative_quote = self.cumulative_quote.max(glimpse.cumulative_quote);
    }
}
