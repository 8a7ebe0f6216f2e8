//! The open orders of the account on their way to *only spared ones*, read twice. The stream says early what is to be
//! cancelled; only reads say that it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::act::{Act, ActOutcome};
use crate::kernel::blotter::OrderKey;
use crate::kernel::containment::tries::Tries;
use crate::kernel::pairs;
use crate::kernel::time::Time;

/// Cancels under way at once; the rest follows as they are answered.
const AT_ONCE: usize = 8;
/// Orders followed one by one. At the limit the next read, which follows the cancels, brings the others.
const CANCELS_MAX: usize = 2_000;
const ASKED_FOR_MAX: usize = 10_000;
/// Cancels that get a line of their own.
const CANCELS_TOLD: u64 = 6;
/// From one read that still shows something to the next.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Once they are gone it is looked again, until the containment ends.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What is to become of an open order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The bot's, or there before us.
    Spare,
    Cancel,
    /// Its verdict waits for the bot's word, for seconds: neither spared nor touched, and not gone.
    Wait,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OrdersTask {
    pub read: Tries,
    asked_at: Option<Time>,
    #[serde(with = "pairs")]
    cancels: BTreeMap<OrderKey, Cancel>,
    /// Every order that we ever asked to cancel, so that the stream's word of it is known for ours. At the limit a cancel
    /// is told as a stranger's, which it is not.
    asked_for: BTreeSet<OrderKey>,
    /// The first of the reads since when only spared orders were shown.
    pub clean_since: Option<Time>,
    pub gone_at: Option<Time>,
    pub cancelled: u64,
    pub spared: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cancel {
    tries: Tries,
    /// Answered, one way or another: it is made again only if a later read shows the order still.
    settled: bool,
    settled_at: Option<Time>,
    /// A later read did not show the order. The stream may not have said so yet.
    gone: bool,
}

impl OrdersTask {
    pub(super) fn next(&mut self, now: Time, standings: &BTreeMap<OrderKey, Standing>) -> Vec<Act> {
        // What is over, and what turned out to be the bot's while its cancel waited.
        let cleared = |key: &OrderKey| standings.get(key).is_some_and(|standing| *standing != Standing::Cancel);
        let waits = |cancel: &Cancel| !cancel.settled && !cancel.tries.under_way;
        self.cancels
            .retain(|key, cancel| (!cancel.gone || standings.contains_key(key)) && !(waits(cancel) && cleared(key)));
        for key in standings.iter().filter(|entry| self.is_new(entry)).map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            if self.cancels.len() < CANCELS_MAX {
                self.cancels.insert(key, Cancel::default());
            }
        }
        let under_way = self.cancels.values().filter(|cancel| cancel.tries.under_way).count();
        let ready = |cancel: &Cancel| !cancel.settled && cancel.tries.is_ready(now);
        let ready = self.cancels.iter().filter(|(_, cancel)| ready(cancel)).map(|(key, _)| key);
        let mut acts: Vec<Act> = ready
            .take(AT_ONCE.saturating_sub(under_way))
            .map(|(symbol, order_id)| Act::CancelOrder { symbol: symbol.clone(), order_id: *order_id })
            .collect();
        if self.wants_read() && self.read.is_ready(now) {
            self.asked_at = Some(now);
            acts.push(Act::OpenOrders);
        }
        acts
    }

    /// Before anything is asked for: what the first acts would be, for who looks at the plan.
    pub(super) fn foresee(&mut self, standings: &BTreeMap<OrderKey, Standing>) {
        let foreseen = standings.iter().filter(|entry| self.is_new(entry)).take(CANCELS_MAX);
        self.cancels = foreseen.map(|(key, _)| (key.clone(), Cancel::default())).collect();
        self.spared = standings.values().filter(|standing| **standing == Standing::Spare).count() as u64;
    }

    pub(super) fn has_begun(&self) -> bool {
        self.asked_at.is_some()
    }

    /// To be cancelled by the stream's word. One that was asked for before and is forgotten was gone in a read: a late frame
    /// of it is no news, and a read that shows it still is.
    fn is_new(&self, (key, standing): &(&OrderKey, &Standing)) -> bool {
        **standing == Standing::Cancel && !self.cancels.contains_key(*key) && !self.asked_for.contains(*key)
    }

    /// A read shows most once the cancels have been answered; a failing one must not keep the others from being seen.
    fn wants_read(&self) -> bool {
        self.asked_at.is_none() || self.cancels.values().all(|cancel| cancel.settled || cancel.tries.failures > 0)
    }

    pub(super) fn sent(&mut self, key: &OrderKey) {
        self.cancels.entry(key.clone()).or_default().tries.sent();
        if self.asked_for.len() < ASKED_FOR_MAX {
            self.asked_for.insert(key.clone());
        }
    }

    pub(super) fn cancels(&self, key: &OrderKey) -> bool {
        self.asked_for.contains(key)
    }

    pub(super) fn due(&self, standings: &BTreeMap<OrderKey, Standing>) -> Option<Time> {
        let read = self.read.ready_at().filter(|_| self.wants_read());
        if self.cancels.values().filter(|cancel| cancel.tries.under_way).count() >= AT_ONCE {
            return read;
        }
        let fresh = self.cancels.len() < CANCELS_MAX && standings.iter().any(|entry| self.is_new(&entry));
        let fresh = fresh.then_some(Time::EPOCH);
        let cancels = self.cancels.values().filter(|cancel| !cancel.settled);
        cancels.filter_map(|cancel| cancel.tries.ready_at()).chain(read).chain(fresh).min()
    }

    pub(super) fn cancelled(&mut self, now: Time, key: &OrderKey, outcome: &ActOutcome) -> Option<String> {
        let cancel = self.cancels.get_mut(key)?;
        let (symbol, id) = key;
        match outcome {
            ActOutcome::Done { .. } => {
                cancel.tries.worked();
                self.cancelled += 1;
                (cancel.settled, cancel.settled_at) = (true, Some(now));
                // The proof of the keys must not be pushed out by hundreds of these: the plan counts them.
                return match self.cancelled {
                    0..CANCELS_TOLD => Some(format!("order {id} of {symbol}: cancelled, says the exchange")),
                    CANCELS_TOLD => Some("further cancels are counted in the plan".to_owned()),
                    _ => None,
                };
            }
            ActOutcome::Held { .. } => {
                cancel.tries.missed(now, outcome);
                return None;
            }
            ActOutcome::Refused { .. }
            | ActOutcome::Unknown { .. }
            | ActOutcome::Keys(_)
            | ActOutcome::Probed(_)
            | ActOutcome::Orders(_)
            | ActOutcome::Balances(_)
            | ActOutcome::NotFound
            | ActOutcome::Quote(_)
            | ActOutcome::Sold { .. } => cancel.tries.missed(now, outcome),
        }
        // It may be gone by now: a read will tell.
        (cancel.settled, cancel.settled_at) = (true, Some(now));
        None
    }

    /// `blocked_at`: before that, what is gone may come again. `quiet`: how far apart the two reads are. A failed read is
    /// no reading at all.
    pub(super) fn read(
        &mut self,
        now: Time,
        outcome: &ActOutcome,
        shown: &BTreeMap<OrderKey, Standing>,
        blocked_at: Option<Time>,
        quiet: Duration,
    ) -> Option<String> {
        if matches!(outcome, ActOutcome::Orders(_)) {
            return self.compare(now, shown, blocked_at, quiet);
        }
        self.read.missed(now, outcome);
        None
    }

    fn compare(
        &mut self,
        now: Time,
        shown: &BTreeMap<OrderKey, Standing>,
        blocked_at: Option<Time>,
        quiet: Duration,
    ) -> Option<String> {
        let asked_at = self.asked_at?;
        // What was answered before the read was asked for, and is not shown, needs no more.
        let old = |cancel: &Cancel| cancel.settled_at.is_some_and(|at| at <= asked_at);
        for (key, cancel) in &mut self.cancels {
            cancel.gone = old(cancel) && !shown.contains_key(key);
        }
        for (key, standing) in shown {
            if *standing == Standing::Cancel && (self.cancels.contains_key(key) || self.cancels.len() < CANCELS_MAX) {
                let cancel = self.cancels.entry(key.clone()).or_default();
                if old(cancel) {
                    (cancel.settled, cancel.settled_at) = (false, None);
                }
            }
        }
        let count = |standing: Standing| shown.values().filter(|other| **other == standing).count() as u64;
        let (left, waiting) = (count(Standing::Cancel), count(Standing::Wait));
        self.spared = count(Standing::Spare);
        if left + waiting > 0 {
            let was_gone = self.gone_at.take().is_some();
            self.clean_since = None;
            self.read.again_at(now + READ_AGAIN_AFTER);
            return was_gone.then(|| format!("{left} orders are open again that are not your bot's"));
        }
        let blocked_before = blocked_at.is_some_and(|at| at <= asked_at);
        let since = *self.clean_since.get_or_insert(now);
        let twice = asked_at >= since + quiet;
        if self.gone_at.is_none() && twice && blocked_before {
            self.gone_at = Some(now);
            self.read.again_at(now + LOOK_EVERY);
            return Some(match self.spared {
                0 => "read twice: no order is open".to_owned(),
                1 => "read twice: no order is open but one that is spared".to_owned(),
                more => format!("read twice: no order is open but {more} that are spared"),
            });
        }
        self.read.again_at(if self.gone_at.is_some() {
            now + LOOK_EVERY
        } else if twice {
            now + READ_AGAIN_AFTER
        } else {
            since + quiet
        });
        None
    }

    /// Somebody else traded: what was read before does not count.
    pub(super) fn disturbed(&mut self) {
        self.clean_since = None;
        self.gone_at = None;
    }

    pub(super) fn left(&self) -> usize {
        self.cancels.values().filter(|cancel| !cancel.settled).count()
    }

    pub(super) fn cancel_failure(&self) -> Option<&str> {
        self.cancels.values().find_map(|cancel| cancel.tries.last.as_deref())
    }

    /// What was under way may have been done: the next read tells.
    pub(super) fn cut_off(&mut self, now: Time) {
        self.read.cut_off();
        for cancel in self.cancels.values_mut().filter(|cancel| cancel.tries.under_way) {
            cancel.tries.cut_off();
            (cancel.settled, cancel.settled_at) = (true, Some(now));
        }
    }
}
