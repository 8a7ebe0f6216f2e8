//! The comparison by REST: open orders and balances, after each time that sight begins and on a timer. Only with it is
//! the state *proved*. A difference is looked at twice, since the venue's databases lag, and a failed read is no
//! reading at all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kernel::account::finding::describe;
use crate::kernel::account::{Kernel, Purpose, Timer};
use crate::kernel::blotter::{Order, OrderKey, Sight};
use crate::kernel::event::{Answer, Effect, EffectId, OrderSnapshot, ReadOutcome, ReadRequest, Ticket};
use crate::kernel::incident::Priority;
use crate::kernel::money::Dec;
use crate::kernel::order::Asset;
use crate::kernel::pairs;
use crate::kernel::report::{AccountPosition, Balance};
use crate::kernel::rule::Cause;
use crate::kernel::time::Time;
use crate::kernel::verdict::{Placed, Verdict};

/// What the stream has not brought by then, it has missed.
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
    /// Orders in which stream and read differ, and how often looking closer failed.
    #[serde(with = "pairs")]
    suspects: BTreeMap<OrderKey, u8>,
    /// What the stream said of each asset since the comparison began, newest last.
    levels: BTreeMap<Asset, Vec<(Dec, Dec)>>,
    reading: Option<Vec<Balance>>,
    readings: u8,
    pub(super) pre_existing: Option<Box<str>>,
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

    fn take_level(&mut self, asset: &Asset, level: (Dec, Dec), running: bool) {
        let levels = self.levels.entry(asset.clone()).or_default();
        if !running {
            levels.clear();
        }
        if levels.len() < LEVELS_MAX {
            levels.push(level);
        }
    }
}

impl Kernel {
    pub(super) fn start_audit(&mut self) {
        self.state.timers.retain(|(_, timer)| *timer != Timer::Audit);
        let every = self.declared.waits.audit_every;
        self.set_timer(every, Timer::Audit);
        if self.state.coverage.connections() == 0 {
            return;
        }
        let audit = &mut self.state.audit;
        audit.running = Running { orders: true, balances: true, failed: false };
        audit.readings = 0;
        audit.reading = None;
        self.ask(ReadRequest::OpenOrders, Purpose::AuditOrders);
        self.ask(ReadRequest::Balances, Purpose::AuditBalances);
    }

    pub(super) fn read(&mut self, effect: EffectId, outcome: ReadOutcome) {
        let Some(purpose) = self.state.reads.remove(&effect) else { return };
        match purpose {
            Purpose::Confirm(key) => self.order_confirmed(&key, outcome),
            Purpose::Mirror(key) => self.mirrored(&key, outcome),
            Purpose::Recheck(key) => self.rechecked(&key, outcome),
            Purpose::AuditOrders => match outcome {
                ReadOutcome::OpenOrders(orders) => self.compare_orders(&orders),
                ReadOutcome::Unknown { .. }
                | ReadOutcome::NotFound
                | ReadOutcome::Order(_)
                | ReadOutcome::Balances(_) => self.audit_failed(),
            },
            Purpose::AuditBalances => match outcome {
                ReadOutcome::Balances(balances) => {
                    self.state.audit.reading = Some(balances);
                    self.compare_balances();
                }
                ReadOutcome::Unknown { .. }
                | ReadOutcome::NotFound
                | ReadOutcome::Order(_)
                | ReadOutcome::OpenOrders(_) => self.audit_failed(),
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
        let first = !std::mem::replace(&mut self.state.audit.ran, true);
        let since = self.state.coverage.live_since.unwrap_or_else(|| self.now());
        let mut pre_existing = Vec::new();
        for snapshot in shown {
            let key = (snapshot.symbol.clone(), snapshot.order_id);
            let known_open = self.state.blotter.orders.get(&key).map(|order| order.open);
            let announced = self.state.blotter.intent_by_client_id(&snapshot.client_order_id).is_some();
            if first && known_open.is_none() && !announced && snapshot.created_at < since {
                self.insert_pre_existing(&key, snapshot);
                pre_existing.push((key, Placed::from(snapshot)));
            } else if known_open != Some(true) {
                self.suspect(key);
            }
        }
        let open: Vec<OrderKey> = self.state.blotter.open_orders().map(|(key, _)| key.clone()).collect();
        for key in open {
            if !shown.iter().any(|snapshot| snapshot.order_id == key.1 && snapshot.symbol == key.0) {
                self.suspect(key);
            }
        }
        self.state.audit.running.orders = false;
        if !pre_existing.is_empty() {
            self.tell_pre_existing(&pre_existing);
        }
        self.finish_audit();
    }

    fn insert_pre_existing(&mut self, key: &OrderKey, snapshot: &OrderSnapshot) {
        let now = self.now();
        self.state.blotter.insert_order(
            key.clone(),
            Order {
                placed: Placed::from(snapshot),
                placed_at: snapshot.created_at,
                sight: Sight::AsPlaced,
                first_seen: now,
                created_at: snapshot.created_at,
                tag: snapshot.tag,
                list_id: snapshot.list_id,
                verdict: Verdict::PreExisting,
                assurance: None,
                differences: Vec::new(),
                told: false,
                deadline: now,
                open: true,
                cumulative_quantity: snapshot.executed_quantity,
                cumulative_quote: snapshot.executed_quote,
            },
        );
    }

    fn tell_pre_existing(&mut self, orders: &[(OrderKey, Placed)]) {
        let mut hash = Sha256::new();
        for (key, placed) in orders {
            let line = format!("{}/{}/{}/{}\n", key.0, key.1, placed.quantity, placed.price);
            hash.update(line.as_bytes());
        }
        let digest: String = hash.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        self.state.audit.pre_existing = Some(digest.as_str().into());
        let headline = "Orders were open before countersign looked: are they yours?";
        let advice = format!("If all of them are yours: countersign confirm {digest}");
        for (key, placed) in orders {
            let line = describe(key, placed);
            let advice = [advice.as_str()];
            self.built_in("pre_existing", Cause::PreExisting, "", Priority::Info, headline, line, &advice);
        }
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

    fn suspect(&mut self, key: OrderKey) {
        self.state.audit.suspects.entry(key.clone()).or_insert(0);
        self.set_timer(LAG, Timer::Recheck(key));
    }

    /// The stream has had its time. What it explained meanwhile is no suspect any more; the rest is read singly.
    pub(super) fn recheck(&mut self, key: &OrderKey) {
        if !self.state.audit.suspects.contains_key(key) {
            return self.rejudge(key);
        }
        self.ask(Self::order_request(key), Purpose::Recheck(key.clone()));
    }

    fn rechecked(&mut self, key: &OrderKey, outcome: ReadOutcome) {
        match outcome {
            ReadOutcome::Order(snapshot) => {
                self.state.audit.suspects.remove(key);
                self.stream_missed(&snapshot);
            }
            ReadOutcome::NotFound => {
                self.state.audit.suspects.remove(key);
                self.difference(&format!("order {} of {}: the exchange does not know it", key.1, key.0), self.now());
                if let Some(order) = self.state.blotter.orders.get_mut(key) {
                    order.open = false;
                }
            }
            ReadOutcome::Unknown { .. } | ReadOutcome::OpenOrders(_) | ReadOutcome::Balances(_) => {
                let looks = self.state.audit.suspects.entry(key.clone()).or_insert(0);
                *looks += 1;
                if *looks < LOOKS_MAX {
                    return self.set_timer(FAILED_READ_AGAIN, Timer::Recheck(key.clone()));
                }
                self.state.audit.suspects.remove(key);
                self.state.audit.running.failed = true;
            }
        }
        self.finish_audit();
    }

    pub(super) fn position(&mut self, position: &AccountPosition) {
        let running = self.state.audit.running.balances;
        for balance in &position.balances {
            self.state.audit.take_level(&balance.asset, (balance.free, balance.locked), running);
        }
    }

    /// A reading agrees if the stream said the same at some moment since it was asked for, or says so soon after.
    pub(super) fn compare_balances(&mut self) {
        let audit = &mut self.state.audit;
        let Some(reading) = &audit.reading else { return };
        let mut differing = Vec::new();
        for balance in reading {
            let level = (balance.free, balance.locked);
            match audit.levels.get(&balance.asset) {
                Some(levels) if levels.contains(&level) => {}
                Some(levels) => differing.push((balance.clone(), levels.last().copied())),
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
        audit.readings += 1;
        match (differing.is_empty(), audit.readings) {
            (true, _) => {}
            (false, 1) => return self.set_timer(LAG, Timer::RecheckBalances),
            (false, 2) => return self.ask(ReadRequest::Balances, Purpose::AuditBalances),
            (false, 3) => return self.set_timer(LAG, Timer::RecheckBalances),
            (false, _) => self.adopt_balances(differing),
        }
        self.state.audit.running.balances = false;
        for levels in self.state.audit.levels.values_mut() {
            levels.drain(..levels.len().saturating_sub(1));
        }
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
            self.state.audit.levels.insert(balance.asset, vec![(balance.free, balance.locked)]);
        }
    }

    /// Stream and read differ. After a gap that belongs to the gap's incident; otherwise it is one of its own.
    pub(super) fn difference(&mut self, line: &str, created_at: Time) {
        self.state.audit.differences += 1;
        let now = self.now();
        if self.state.audit.after_gap || self.state.coverage.in_gap(created_at) {
            let line = format!("found after the gap: {line}");
            return self.state.book.note(now, Cause::Blind, "", line);
        }
        self.state.audit.running.failed = true;
        self.unexplained("rest_difference", "The exchange's books and its stream differ", line.to_owned());
    }

    fn finish_audit(&mut self) {
        let now = self.now();
        let audit = &mut self.state.audit;
        if audit.running.orders || audit.running.balances || !audit.suspects.is_empty() {
            return;
        }
        let after_gap = std::mem::take(&mut audit.after_gap);
        if audit.running.failed {
            return;
        }
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
