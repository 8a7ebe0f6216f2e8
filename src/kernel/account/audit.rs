//! The comparison by REST: open orders and balances, after each connect and on a timer. Only with it is
//! the state *proved*. A difference is looked at twice, since the venue's databases lag, and a failed read is no
//! reading at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kernel::account::finding::describe;
use crate::kernel::account::{Kernel, Purpose, Timer};
use crate::kernel::blotter::{OrderKey, Sight};
use crate::kernel::event::{Answer, Effect, EffectId, OrderSnapshot, ReadOutcome, ReadRequest, Ticket};
use crate::kernel::incident::Priority;
use crate::kernel::money::Dec;
use crate::kernel::order::Asset;
use crate::kernel::pairs;
use crate::kernel::report::{AccountPosition, Balance};
use crate::kernel::rule::Cause;
use crate::kernel::time::Time;
use crate::kernel::verdict::{Placed, Verdict};

/// What the stream has not brought by then, it has missed; longer by as much as it is known to be late.
const LAG: Duration = Duration::from_secs(3);
const FAILED_READ_AGAIN: Duration = Duration::from_secs(20);
/// Levels of one asset kept while a comparison runs; beyond it the comparison of that asset proves nothing.
const LEVELS_MAX: usize = 4_096;
/// Failed looks at one suspect order, after which this comparison proves nothing.
const LOOKS_MAX: u8 = 5;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Audit {
    /// A first comparison of the open orders was made: what it showed stood before us.
    ran: bool,
    running: Running,
    /// Differences found now may stem from the last gap, which has an incident of its own.
    after_gap: bool,
    differences: u64,
    /// Orders in which stream and read differ.
    #[serde(with = "pairs")]
    suspects: BTreeMap<OrderKey, Suspect>,
    /// What the stream said of each asset since the comparison began, newest last.
    levels: BTreeMap<Asset, Vec<(Dec, Dec)>>,
    /// When the venue made the last of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    newest: BTreeMap<Asset, Time>,
    reading: Option<Vec<Balance>>,
    /// When that came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read_at: Option<Time>,
    readings: u8,
    pub(super) pre_existing: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Suspect {
    /// The read showed it open; the stream did not.
    shown_open: bool,
    /// How often looking closer failed.
    failed_looks: u8,
    /// A closer look was ahead of the stream, which had said nothing of it yet.
    #[serde(default, rename = "shown_ended", skip_serializing_if = "std::ops::Not::not")]
    looked_again: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Running {
    orders: bool,
    balances: bool,
    failed: bool,
}

impl Audit {
    pub(super) fn after_gap(&mut self) {
        self.after_gap = true;
    }

    pub fn differences(&self) -> u64 {
        self.differences
    }

    pub(super) fn has_run(&self) -> bool {
        self.ran
    }

    /// The slower of two connections may bring one later than the other its successor: that was no last word.
    fn take_level(&mut self, balance: &Balance, at: Time, running: bool) {
        let levels = self.levels.entry(balance.asset.clone()).or_default();
        let newest = self.newest.entry(balance.asset.clone()).or_insert(at);
        let overtaken = at < *newest;
        *newest = at.max(*newest);
        let level = (balance.free, balance.locked);
        match (overtaken, running) {
            (true, false) => {}
            (true, true) if levels.len() < LEVELS_MAX => levels.insert(0, level),
            (false, true) if levels.len() < LEVELS_MAX => levels.push(level),
            (true | false, true) => {}
            (false, false) => *levels = vec![level],
        }
    }
}

impl Kernel {
    pub(super) fn start_audit(&mut self) {
        // A second look that an earlier comparison had set would be a look at the wrong reading.
        self.state.timers.retain(|(_, timer)| !matches!(timer, Timer::Audit | Timer::RecheckBalances));
        let every = self.declared.waits.audit_every;
        self.set_timer(every, Timer::Audit);
        if self.state.coverage.connections() == 0 {
            return;
        }
        let audit = &mut self.state.audit;
        audit.running = Running { orders: true, balances: true, failed: false };
        audit.readings = 0;
        audit.reading = None;
        // The answer to an earlier question would speak of an earlier moment.
        self.state.reads.retain(|_, purpose| !matches!(purpose, Purpose::AuditOrders | Purpose::AuditBalances));
        self.ask(ReadRequest::OpenOrders, Purpose::AuditOrders);
        self.ask(ReadRequest::Balances, Purpose::AuditBalances);
    }

    pub(super) fn audit_within(&mut self, span: Duration) {
        let due = self.now() + span;
        if !self.state.timers.iter().any(|(at, timer)| *timer == Timer::Audit && *at <= due) {
            self.state.timers.retain(|(_, timer)| *timer != Timer::Audit);
            self.set_timer(span, Timer::Audit);
        }
    }

    pub(super) fn read(&mut self, effect: EffectId, outcome: ReadOutcome) {
        let Some(purpose) = self.state.reads.remove(&effect) else { return };
        match purpose {
            Purpose::Confirm(key) => self.order_confirmed(&key, outcome),
            Purpose::Mirror(key) => self.mirrored(&key, outcome),
            Purpose::Recheck(key) => self.rechecked(&key, outcome),
            Purpose::Corroborate(key, incident) => self.corroborated(&key, incident, &outcome),
            Purpose::AuditOrders => match outcome {
                ReadOutcome::OpenOrders(orders) => self.compare_orders(&orders),
                ReadOutcome::Balances(_)
                | ReadOutcome::Order(_)
                | ReadOutcome::NotFound
                | ReadOutcome::Unknown { .. } => self.audit_failed(),
            },
            Purpose::AuditBalances => match outcome {
                ReadOutcome::Balances(balances) => {
                    let now = self.now();
                    self.state.audit.reading = Some(balances);
                    self.state.audit.read_at = Some(now);
                    self.compare_balances();
                }
                ReadOutcome::OpenOrders(_)
                | ReadOutcome::Order(_)
                | ReadOutcome::NotFound
                | ReadOutcome::Unknown { .. } => self.audit_failed(),
            },
        }
    }

    /// The comparison could not be made: live, not proved. It is tried again soon.
    fn audit_failed(&mut self) {
        self.state.audit.running.failed = true;
        self.state.timers.retain(|(_, timer)| *timer != Timer::Audit);
        self.set_timer(FAILED_READ_AGAIN, Timer::Audit);
    }

    fn compare_orders(&mut self, shown: &[OrderSnapshot]) {
        let first = !self.state.audit.ran;
        for snapshot in shown {
            let key = (snapshot.symbol.clone(), snapshot.order_id);
            let known_open = self.state.blotter.orders.get(&key).is_some_and(|order| order.open);
            if first && self.stood_before(snapshot.created_at) {
                self.order_read(snapshot);
            } else if !known_open {
                self.suspect(key, true);
            }
        }
        let shown: BTreeSet<OrderKey> =
            shown.iter().map(|snapshot| (snapshot.symbol.clone(), snapshot.order_id)).collect();
        let open = self.state.blotter.open_orders().map(|(key, _)| key);
        let missing: Vec<OrderKey> = open.filter(|key| !shown.contains(key)).cloned().collect();
        missing.into_iter().for_each(|key| self.suspect(key, false));
        let audit = &mut self.state.audit;
        (audit.ran, audit.running.orders) = (true, false);
        if first {
            self.tell_pre_existing();
        }
        self.finish_audit();
    }

    /// All that stood before us, in one list, with a digest by which the owner can confirm it.
    fn tell_pre_existing(&mut self) {
        let orders = self.state.blotter.orders.iter().filter(|(_, order)| order.verdict == Verdict::PreExisting);
        let orders: Vec<(OrderKey, Placed)> = orders.map(|(key, order)| (key.clone(), order.placed.clone())).collect();
        if orders.is_empty() {
            return;
        }
        let mut hash = Sha256::new();
        for (key, placed) in &orders {
            let line = format!("{}/{}/{}/{}\n", key.0, key.1, placed.quantity, placed.price);
            hash.update(line.as_bytes());
        }
        let digest: String = hash.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        self.state.audit.pre_existing = Some(digest.as_str().into());
        let advice = format!("If all of them are yours: countersign confirm {digest}");
        for (key, placed) in &orders {
            self.tell_one_pre_existing(describe(key, placed), &[&advice]);
        }
    }

    pub(super) fn tell_one_pre_existing(&mut self, line: String, advice: &[&str]) {
        let headline = "Orders were open before countersign looked: are they yours?";
        self.built_in("pre_existing", Cause::PreExisting, "", Priority::Info, headline, line, advice);
    }

    pub(super) fn confirm_pre_existing(&mut self, ticket: Ticket, by: &str, digest: &str) {
        let now = self.now();
        let answer = match self.state.audit.pre_existing.as_deref() {
            Some(known) if known == digest => {
                self.state.book.end(now, Cause::PreExisting, "", format!("confirmed by {by}"));
                self.state.audit.pre_existing = None;
                Answer::Done
            }
            Some(_) => Answer::Refused { reason: "the digest is of another list: look at the incident again".into() },
            None => Answer::Refused { reason: "no orders wait for a confirmation".into() },
        };
        self.effects.push(Effect::Answer { ticket, answer });
    }

    pub(super) fn suspect(&mut self, key: OrderKey, shown_open: bool) {
        let suspect = Suspect { shown_open, failed_looks: 0, looked_again: false };
        self.state.audit.suspects.entry(key.clone()).or_insert(suspect).shown_open = shown_open;
        self.set_timer(self.stream_has(), Timer::Recheck(key));
    }

    /// A read shows the end of an order of which the stream has said nothing yet.
    pub(super) fn suspect_ended(&mut self, key: OrderKey) {
        self.suspect(key.clone(), false);
        if let Some(suspect) = self.state.audit.suspects.get_mut(&key) {
            suspect.looked_again = true;
        }
    }

    /// The time that the stream has to bring what a read has shown.
    fn stream_has(&self) -> Duration {
        LAG + self.state.coverage.behind(self.now())
    }

    /// The stream has had its time. What it explained meanwhile is no suspect any more; the rest is read singly.
    pub(super) fn recheck(&mut self, key: &OrderKey) {
        let Some(suspect) = self.state.audit.suspects.get(key) else { return self.rejudge(key) };
        let open = self.state.blotter.orders.get(key).map(|order| order.open);
        if open == Some(suspect.shown_open) {
            // A read alone has shown it, and the stream has had its time twice.
            let order = self.state.blotter.orders.get(key).filter(|order| order.sight == Sight::Read);
            let unshown = order.filter(|_| suspect.looked_again).map(|order| order.created_at);
            self.state.audit.suspects.remove(key);
            if let Some(created_at) = unshown {
                self.difference(
                    &format!("order {} of {}: the exchange says that it is open", key.1, key.0),
                    created_at,
                );
            }
            return self.finish_audit();
        }
        self.ask(Self::order_request(key), Purpose::Recheck(key.clone()));
    }

    fn rechecked(&mut self, key: &OrderKey, outcome: ReadOutcome) {
        match outcome {
            ReadOutcome::Order(snapshot) => {
                let open = self.state.blotter.orders.get(key).map(|order| order.open);
                let ended = snapshot.status.is_terminal();
                // What the stream has not reached yet it may bring, and so the end of what it has shown.
                let unreached = open.is_none() && !self.state.coverage.has_reached(snapshot.created_at);
                if (unreached || open == Some(true) && ended) && self.may_be_ahead(key, &snapshot) {
                    if !ended {
                        // It is judged at once.
                        self.order_read(&snapshot);
                    }
                    return;
                }
                let suspect = self.state.audit.suspects.remove(key);
                // The stream may have said so while the read was under way, which is older then.
                if open.is_none() || open != suspect.map(|suspect| suspect.shown_open) {
                    self.stream_missed(&snapshot);
                }
            }
            ReadOutcome::NotFound => {
                self.state.audit.suspects.remove(key);
                self.difference(&format!("order {} of {}: the exchange does not know it", key.1, key.0), self.now());
                self.state.blotter.close(key);
            }
            ReadOutcome::Unknown { .. } | ReadOutcome::OpenOrders(_) | ReadOutcome::Balances(_) => {
                let Some(suspect) = self.state.audit.suspects.get_mut(key) else { return };
                suspect.failed_looks += 1;
                if suspect.failed_looks < LOOKS_MAX {
                    return self.set_timer(FAILED_READ_AGAIN, Timer::Recheck(key.clone()));
                }
                self.state.audit.suspects.remove(key);
                self.state.audit.running.failed = true;
            }
        }
        self.finish_audit();
    }

    /// An order may end just before it is read, and the read be faster than the stream: it has its time once more.
    fn may_be_ahead(&mut self, key: &OrderKey, snapshot: &OrderSnapshot) -> bool {
        let after_gap = self.is_after_gap(snapshot.created_at);
        let Some(suspect) = self.state.audit.suspects.get_mut(key) else { return false };
        if after_gap || std::mem::replace(&mut suspect.looked_again, true) {
            return false;
        }
        self.set_timer(self.stream_has(), Timer::Recheck(key.clone()));
        true
    }

    pub(super) fn position(&mut self, position: &AccountPosition) {
        let (now, running) = (self.now(), self.state.audit.running.balances);
        for balance in &position.balances {
            // A time that is still to come would make every later level an overtaken one.
            self.state.audit.take_level(balance, position.updated_at.min(now), running);
        }
    }

    /// The stream has had its time, unless it is known by now to be later than it was known to be.
    pub(super) fn recheck_balances(&mut self) {
        let due = self.state.audit.read_at.map(|at| at + self.stream_has());
        match due.filter(|due| self.now() < *due) {
            Some(due) => drop(self.state.timers.insert((due, Timer::RecheckBalances))),
            None => self.compare_balances(),
        }
    }

    /// A reading agrees if the stream said the same at some moment since it was asked for, or says so soon after.
    pub(super) fn compare_balances(&mut self) {
        let audit = &mut self.state.audit;
        let Some(reading) = &audit.reading else { return };
        let mut differing = Vec::new();
        for balance in reading {
            let level = (balance.free, balance.locked);
            match audit.levels.get_mut(&balance.asset) {
                Some(levels) => match levels.iter().rposition(|said| *said == level) {
                    // No later reading shows what was before this one.
                    Some(place) => drop(levels.drain(..place)),
                    None => differing.push((balance.clone(), levels.last().copied())),
                },
                // The first word on an asset is its level, wherever it comes from.
                None => audit.levels.entry(balance.asset.clone()).or_default().push(level),
            }
        }
        let gone = audit.levels.iter().filter(|(asset, levels)| {
            let nothing = (Dec::ZERO, Dec::ZERO);
            !reading.iter().any(|balance| balance.asset == **asset) && !levels.contains(&nothing)
        });
        let gone = gone.map(|(asset, levels)| {
            (Balance { asset: asset.clone(), free: Dec::ZERO, locked: Dec::ZERO }, levels.last().copied())
        });
        differing.extend(gone);
        audit.readings = audit.readings.saturating_add(1);
        match (differing.is_empty(), audit.readings) {
            (true, _) => {}
            (false, 1) => return self.set_timer(self.stream_has(), Timer::RecheckBalances),
            (false, 2) => return self.ask(ReadRequest::Balances, Purpose::AuditBalances),
            (false, 3) => return self.set_timer(self.stream_has(), Timer::RecheckBalances),
            (false, _) => self.adopt_balances(differing),
        }
        self.state.audit.running.balances = false;
        self.state.audit.reading = None;
        self.finish_audit();
    }

    fn adopt_balances(&mut self, differing: Vec<(Balance, Option<(Dec, Dec)>)>) {
        for (balance, said) in differing {
            let total = |(free, locked): (Dec, Dec)| free.checked_add(locked).unwrap_or(free);
            let line = format!(
                "balance of {}: the exchange says {}, its stream said {}",
                balance.asset,
                total((balance.free, balance.locked)),
                said.map_or_else(|| "nothing".to_owned(), |said| total(said).to_string()),
            );
            self.difference(&line, self.now());
            // What the stream said while this went on may be later than the reading: the next one may show either.
            let levels = self.state.audit.levels.entry(balance.asset).or_default();
            let later = levels.pop().filter(|_| !levels.is_empty());
            *levels = [(balance.free, balance.locked)].into_iter().chain(later).collect();
        }
    }

    /// Stream and read differ. After a gap that belongs to the gap's incident; otherwise it is one of its own.
    pub(super) fn difference(&mut self, line: &str, created_at: Time) {
        self.state.audit.differences += 1;
        let now = self.now();
        if self.is_after_gap(created_at) {
            let line = format!("found after the gap: {line}");
            return self.state.book.note(now, Cause::Blind, "", line);
        }
        self.state.audit.running.failed = true;
        self.unexplained("rest_difference", "The exchange's books and its stream differ", line.to_owned());
    }

    fn is_after_gap(&self, created_at: Time) -> bool {
        self.state.audit.after_gap || self.state.coverage.in_gap(created_at)
    }

    fn finish_audit(&mut self) {
        let now = self.now();
        let audit = &mut self.state.audit;
        if audit.running.orders || audit.running.balances || !audit.suspects.is_empty() {
            return;
        }
        if audit.running.failed {
            return;
        }
        let after_gap = std::mem::take(&mut audit.after_gap);
        if self.state.coverage.connections() > 0 {
            self.state.coverage.proved_at = Some(now);
        }
        if after_gap {
            self.state.book.note(
                now,
                Cause::Blind,
                "",
                "compared by REST: open orders and balances are known".to_owned(),
            );
        }
    }
}
