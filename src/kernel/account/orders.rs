//! Orders: from an execution report or a read to the verdict on who placed it.

use std::time::Duration;

use crate::kernel::account::claims::told_of;
use crate::kernel::account::finding::{Finding, describe};
use crate::kernel::account::mirror::told_number;
use crate::kernel::account::{Kernel, Purpose, RequestKey, Timer};
use crate::kernel::blotter::{Announced, Glimpse, Intent, IntentKey, Order, OrderKey, Settled, Sight};
use crate::kernel::event::{Issuer, OrderSnapshot, ReadOutcome, TagCheck, Tags};
use crate::kernel::money::Dec;
use crate::kernel::order::{ClientId, ExecutionType, OrderId, Symbol};
use crate::kernel::report::ExecutionReport;
use crate::kernel::rule::Subject;
use crate::kernel::time::Time;
use crate::kernel::verdict::{Assurance, Difference, Placed, Verdict, differences};

/// The time a countersign carries lies this close to the order's creation, or the id is a stale one used again.
const TAG_WINDOW: Duration = Duration::from_secs(30);
/// The venue's clock and ours are never further apart than the window of a countersign allows.
const CLOCKS_APART_MAX: Duration = TAG_WINDOW;
/// The step of `Time`.
const MOMENT: Duration = Duration::from_micros(1);

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
                cancels_by_tag: report.execution_type == ExecutionType::Canceled
                    && matches!(tags.request, TagCheck::Valid { .. }),
                list_id: report.list_id,
                status: report.status,
                cumulative_quantity: report.cumulative_quantity,
                cumulative_quote: report.cumulative_quote,
            },
        );
        match report.execution_type {
            ExecutionType::Canceled | ExecutionType::Replaced => self.request(&key, report, tags.request),
            ExecutionType::Expired | ExecutionType::TradePrevention => self.expiry(&key, report),
            ExecutionType::Trade => self.stranger_acted(&key),
            ExecutionType::New | ExecutionType::Rejected => {}
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
                sight: Sight::Read,
                at: snapshot.created_at,
                created_at: snapshot.created_at,
                tag,
                cancels_by_tag: false,
                list_id: snapshot.list_id,
                status: snapshot.status,
                cumulative_quantity: snapshot.executed_quantity,
                cumulative_quote: snapshot.executed_quote,
            },
        );
    }

    fn glimpse(&mut self, key: &OrderKey, glimpse: Glimpse) {
        if !self.state.blotter.orders.contains_key(key) {
            self.make_room_for_order();
        }
        let wait = match glimpse.tag {
            TagCheck::Valid { .. } => self.declared.waits.unlogged_after,
            TagCheck::Absent | TagCheck::Forged => self.declared.waits.pending_cap,
        };
        let touched = self.state.blotter.take(key, glimpse, self.now(), wait);
        self.hold_claim(key);
        let exposure = self.state.blotter.orders.get(key).map_or(Dec::ZERO, Order::exposure);
        self.state.book.follow(key, exposure);
        touched.orders.iter().for_each(|key| self.rejudge(key));
        let strange = self.state.blotter.orders.get(key).is_some_and(|order| order.verdict.is_stranger());
        if strange && self.state.uses.has_grown(key, exposure) {
            // It was quieted with less money.
            self.tell_stranger(key);
        }
        if touched.identity {
            self.rejudge_requests_on(key);
        }
    }

    /// If the oldest order must give way while it still waits, waiting ends with it.
    pub(super) fn make_room_for_order(&mut self) {
        let Some(oldest) = self.state.blotter.must_go() else { return };
        if let Some(order) = self.state.blotter.orders.get_mut(&oldest)
            && order.verdict == Verdict::Pending
        {
            order.waited = true;
            self.rejudge(&oldest);
        }
        self.end_waiting_on(&oldest);
        self.state.uses.forget(&oldest);
        self.state.blotter.forget_order(&oldest);
    }

    /// What was announced under an id changes the verdict on every order placed with it.
    pub(super) fn rejudge_all_under(&mut self, id: &ClientId) {
        let keys: Vec<OrderKey> = self.state.blotter.orders_under(id).cloned().collect();
        keys.iter().for_each(|key| self.rejudge(key));
    }

    /// The bots' word has passed further: what waited for it up to there is judged, each once.
    pub(super) fn rejudge_passed(&mut self) {
        let Some(passed) = self.state.bots.passed() else { return };
        let before = self.state.passed.unwrap_or(Time::from_micros(i64::MIN));
        if self.state.passed.is_some_and(|before| before >= passed) {
            return;
        }
        self.state.passed = Some(passed);
        let least = |at: Time| (at + MOMENT, (Symbol::new(""), OrderId(i64::MIN)));
        let orders = self.state.pending.range(least(before)..least(passed));
        let orders: Vec<OrderKey> = orders.map(|(_, key)| key.clone()).collect();
        orders.iter().for_each(|key| self.rejudge(key));
        let least = |at: Time| (at + MOMENT, ((Symbol::new(""), OrderId(i64::MIN)), i64::MIN));
        let requests = self.state.pending_requests.range(least(before)..least(passed));
        let requests: Vec<RequestKey> = requests.map(|(_, key)| key.clone()).collect();
        requests.iter().for_each(|key| self.rejudge_request(key));
    }

    pub(super) fn rejudge(&mut self, key: &OrderKey) {
        let Some(order) = self.state.blotter.orders.get(key) else { return };
        if order.is_kept() {
            return;
        }
        let mut judgement = self.judge(key, order);
        if matches!(judgement.verdict, Verdict::Pending | Verdict::Foreign) && self.is_by_hand(key) {
            judgement = Verdict::DeclaredManual.into();
        }
        if judgement.read_first {
            self.ask(Self::order_request(key), Purpose::Confirm(key.clone()));
        }
        self.settle(key, judgement);
    }

    fn judge(&self, key: &OrderKey, order: &Order) -> Judgement {
        let waited = order.waited || self.now() >= order.deadline;
        match self.placement_of(key, order) {
            Some((_, intent)) if said_in_time(intent, order.known_since(), order.deadline) => {
                self.judge_registered(key, order, intent, waited)
            }
            Some(_) | None => self.judge_unregistered(key, order, waited),
        }
    }

    /// The bot's word on an order. One that was placed and amended unseen is shown under another id than it was placed
    /// with: the amendment's, or one that the venue made, and then the bot's answer from the venue names it. What is shown
    /// as it was placed bears its own id.
    pub(super) fn placement_of(&self, key: &OrderKey, order: &Order) -> Option<(&IntentKey, &Intent)> {
        let (blotter, id) = (&self.state.blotter, &order.placed.client_order_id);
        blotter.placement(id).or_else(|| match order.sight {
            Sight::AsPlaced => None,
            Sight::Aside | Sight::AsideUnread | Sight::Read => {
                blotter.amended_placement(id).or_else(|| blotter.accepted_placement(key))
            }
        })
    }

    fn judge_registered(&self, key: &OrderKey, order: &Order, intent: &Intent, waited: bool) -> Judgement {
        let Announced::Place { terms, amended } = &intent.announced else { return Verdict::Foreign.into() };
        if self.state.blotter.holder(&order.placed.client_order_id) != Some(key) {
            return Verdict::Replayed.into();
        }
        // The bot's own order came and went unseen, and this one bears its id.
        if told_number(intent).is_some_and(|told| told.0 == key.0 && told.1 != key.1) {
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
        // The tag binds the quantity that was placed, not the one it was amended to.
        if order.tag == TagCheck::Forged && differences.is_empty() && !amended.contains(&order.placed.quantity) {
            differences.push(Difference {
                field: "countersign".into(),
                said: "a tag over these terms".into(),
                shown: "a tag that does not verify".into(),
            });
        }
        if !differences.is_empty() {
            let read_first = order.sight == Sight::Aside && !waited;
            // Shown smaller, and not as it was placed: the bot may have amended it, and its word may still come.
            let smaller = terms.quantity.is_some_and(|said| order.placed.quantity < said);
            let alone = differences.iter().all(|found| &*found.field == "quantity");
            let amended = order.sight != Sight::AsPlaced && smaller && alone;
            let may_come = amended && !waited && !self.have_passed(order);
            let verdict = if read_first || may_come { Verdict::Pending } else { Verdict::Divergent };
            return Judgement { verdict, assurance: None, differences, read_first };
        }
        if let TagCheck::Valid { at, .. } = order.tag
            && at.apart(order.created_at) > TAG_WINDOW
        {
            return Verdict::Replayed.into();
        }
        let assurance = match order.tag {
            TagCheck::Valid { .. } => Assurance::Countersigned,
            TagCheck::Absent | TagCheck::Forged if intent.received_at <= order.known_since() => Assurance::Registered,
            TagCheck::Absent | TagCheck::Forged => Assurance::RegisteredLate,
        };
        Judgement { assurance: Some(assurance), ..Verdict::Matched.into() }
    }

    fn judge_unregistered(&self, key: &OrderKey, order: &Order, waited: bool) -> Judgement {
        if self.stood_before(order.created_at) {
            return Verdict::PreExisting.into();
        }
        let inside = self.inside_limits(&order.placed);
        match order.tag {
            TagCheck::Valid { at, .. } if at.apart(order.created_at) > TAG_WINDOW => Verdict::Replayed.into(),
            TagCheck::Valid { issuer: Issuer::Daemon, .. } => Verdict::Unissued.into(),
            TagCheck::Valid { issuer: Issuer::Bot, .. } if inside && !waited => Verdict::Pending.into(),
            TagCheck::Valid { issuer: Issuer::Bot, .. } => Verdict::Unlogged.into(),
            TagCheck::Forged if order.sight == Sight::Aside && !waited => {
                Judgement { read_first: true, ..Verdict::Pending.into() }
            }
            // The tag is over what was placed, and since then it was amended: by the bot, whose word may still come.
            TagCheck::Forged
                if order.sight == Sight::Read
                    && self.state.requests.amended(key)
                    && inside
                    && !waited
                    && !self.have_passed(order) =>
            {
                Verdict::Pending.into()
            }
            TagCheck::Forged => Verdict::Forged.into(),
            // What was amended unseen goes by an id that the exchange made; whoever cancels it with our countersign is the bot.
            TagCheck::Absent if self.declared.tagged_only && !order.cancelled_by_tag => Verdict::Foreign.into(),
            TagCheck::Absent if waited || !inside => Verdict::Foreign.into(),
            TagCheck::Absent if self.have_passed(order) => Verdict::Foreign.into(),
            TagCheck::Absent => Verdict::Pending.into(),
        }
    }

    fn have_passed(&self, order: &Order) -> bool {
        self.state.bots.have_passed(order.first_seen)
    }

    /// Whether the venue created it before we saw anything at all: then there is nothing to judge it by.
    pub(super) fn stood_before(&self, created_at: Time) -> bool {
        self.state.coverage.first_live.is_some_and(|first| created_at < first)
    }

    /// Makes the judgement the order's verdict, and tells what changed.
    fn settle(&mut self, key: &OrderKey, judgement: Judgement) {
        let Some(order) = self.state.blotter.orders.get_mut(key) else { return };
        let (verdict, before) = (judgement.verdict, order.verdict);
        let unchanged = verdict == before && judgement.differences == order.differences;
        let pending = (order.first_seen, key.clone());
        order.waited |= verdict != Verdict::Pending;
        order.verdict = verdict;
        order.assurance = judgement.assurance;
        order.differences = judgement.differences;
        if verdict == Verdict::Pending {
            let deadline = order.deadline;
            if self.state.pending.insert(pending) {
                self.state.timers.insert((deadline, Timer::Judge(key.clone())));
            }
            return;
        }
        self.state.pending.remove(&pending);
        if verdict == Verdict::Matched {
            self.mark_seen(key);
            self.note_match(judgement.assurance);
        }
        if unchanged {
            return;
        }
        if before == Verdict::DeclaredManual {
            self.drop_claim(key, verdict);
        }
        if verdict.is_stranger() {
            self.tell_stranger(key);
        } else if verdict == Verdict::DeclaredManual {
            self.tell_claimed(key);
        } else if verdict == Verdict::Matched {
            self.clear_order(key, "your bot's word on it came late, and holds");
        } else if verdict == Verdict::PreExisting && self.state.audit.has_run() {
            // It stands in no digest: it was closed, or not shown, when the list was made.
            let line = self.state.blotter.orders.get(key).map(|order| describe(key, &order.placed));
            self.tell_one_pre_existing(line.unwrap_or_default(), &[]);
        }
        if verdict == Verdict::DeclaredManual || before == Verdict::DeclaredManual {
            // Who cancels it is judged by whose it is.
            self.rejudge_requests_on(key);
        }
    }

    pub(super) fn clear_order(&mut self, key: &OrderKey, why: &str) {
        let now = self.now();
        self.state.uses.forget(key);
        if self.state.blotter.orders.get_mut(key).is_some_and(|order| std::mem::take(&mut order.told)) {
            self.state.book.clear(now, key, &format!("cleared: order {} of {}: {why}", key.1, key.0));
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
        let mut certainty = self.certainty(order.verdict, order.tag, self.inside_limits(&order.placed));
        let claimed = order.claimed.as_ref().filter(|_| order.verdict == Verdict::Foreign);
        if let Some((words, sure)) = claimed.and_then(|claimed| told_of(claimed.standing)) {
            line.push_str(&format!("; {words}"));
            certainty = format!("{sure} {certainty}");
        }
        self.find(Finding {
            facts: self.order_facts(Subject::Order, order.verdict, &order.placed, order.exposure()),
            scope: "",
            line,
            certainty,
            at_stake: Some(order.exposure()),
            order: Some(key.clone()),
        });
        self.stranger_acted(key);
    }

    fn mark_seen(&mut self, key: &OrderKey) {
        let Some(order) = self.state.blotter.orders.get(key) else { return };
        let intent = self.placement_of(key, order);
        if let Some((intent_key, intent)) = intent
            && intent.settled() != Settled::Seen
        {
            let intent_key = intent_key.clone();
            self.mark_intent_seen(&intent_key);
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

/// A row first seen after the execution never counts as intent. It counts if it came before the order or request was
/// known; later, it must have been written before any word of ours that followed could reach the bot. A bot that
/// never handed a word of ours back has until the waiting ends.
pub(super) fn said_in_time(intent: &Intent, known_since: Time, deadline: Time) -> bool {
    intent.received_at <= known_since
        || intent.nonce.map_or(intent.received_at <= deadline, |nonce| nonce < known_since)
}

impl Order {
    /// When it could be known here: an order found long after it was made (in a gap, by a read) is not new.
    fn known_since(&self) -> Time {
        self.first_seen.min(self.created_at + CLOCKS_APART_MAX)
    }
}
