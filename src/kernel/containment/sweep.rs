//! The free money of the sub-account on its way to the master, once the keys are dead and the book is clean. It is an
//! optional end of a kill: it holds up nothing but the last word, and that for minutes only.
//!
//! Invariants: a transfer that may have been done is not sent again before the venue was asked about its id and the
//! balances were read anew, and then under the same id, which the venue takes once. What is not moved is said. Nothing is
//! begun while something points at the master login.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kernel::act::{Act, ActOutcome};
use crate::kernel::containment::tries::Tries;
use crate::kernel::money::Dec;
use crate::kernel::order::Asset;
use crate::kernel::report::Balance;
use crate::kernel::time::Time;

/// More than a bot's account holds. At the limit the rest is counted and left, and said.
const ASSETS_MAX: usize = 200;
/// Transfers under way at once.
const AT_ONCE: usize = 4;
/// What was sent so often in vain is left, and so is a read of the balances that was refused so often.
const TRIES_MAX: u32 = 3;
/// Readings of the balances that may begin something.
const ROUNDS_MAX: u32 = 6;
/// The venue's history may lag behind its books: what it has not shown after so many looks, the balances decide.
const LOOKS_MAX: u32 = 3;
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Whatever is left then is left: the end of the kill must be told.
const WITHIN: Duration = Duration::from_secs(300);
/// Assets named in one line.
const NAMED_MAX: usize = 20;
const NOT_KNOWN: &str = "it is not known whether it was moved: look";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sweep {
    pub read: Tries,
    begun_at: Option<Time>,
    rounds: u32,
    moves: BTreeMap<Asset, Move>,
    /// Assets beyond the most that are followed, and those with money in spared orders, as the last reading shows them.
    beyond: usize,
    locked: usize,
    /// Why nothing more is begun.
    pub withheld: Option<Box<str>>,
    pub ended_at: Option<Time>,
    /// A reading showed what is left.
    proved: bool,
}

/// One asset's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Move {
    amount: Dec,
    /// Counts the transfers of this asset that differ from each other: part of the id.
    nth: u32,
    sent: u32,
    stage: Stage,
    tries: Tries,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
enum Stage {
    /// To be sent: nothing was, or the venue said that it was not done.
    Wanted,
    /// It may have been done: its id is asked about.
    Unsure {
        looks: u32,
    },
    /// The venue did not know its id: what is free by now tells.
    NotShown,
    Moved,
    NotMoved {
        why: Box<str>,
    },
}

impl Sweep {
    pub(super) fn new(withheld: Option<Box<str>>) -> Self {
        Self { withheld, ..Self::default() }
    }

    pub(super) fn next(&self, now: Time, started_at: Time) -> Vec<Act> {
        if self.begun_at.is_none() || self.ended_at.is_some() {
            return Vec::new();
        }
        if self.moves.values().all(Move::is_settled) {
            return if self.read.is_ready(now) { vec![Act::Balances] } else { Vec::new() };
        }
        let ready = self.moves.iter().filter(|(_, one)| !one.is_settled() && one.tries.is_ready(now));
        ready.take(self.room()).map(|(asset, one)| one.act(started_at, asset)).collect()
    }

    fn room(&self) -> usize {
        AT_ONCE.saturating_sub(self.moves.values().filter(|one| one.tries.under_way).count())
    }

    pub(super) fn due(&self) -> Option<Time> {
        let until = self.begun_at.filter(|_| self.ended_at.is_none())? + WITHIN;
        let settled = self.moves.values().all(Move::is_settled);
        let read = self.read.ready_at().filter(|_| settled);
        let open = self.moves.values().filter(|one| !one.is_settled() && self.room() > 0);
        open.filter_map(|one| one.tries.ready_at()).chain(read).chain([until]).min()
    }

    pub(super) fn sent(&mut self, started_at: Time, id: &str) {
        if let Some((_, one)) = self.of(started_at, id) {
            one.tries.sent();
            one.sent += u32::from(one.stage == Stage::Wanted);
        }
    }

    fn of(&mut self, started_at: Time, id: &str) -> Option<(&Asset, &mut Move)> {
        self.moves.iter_mut().find(|(asset, one)| *one.id(started_at, asset) == *id)
    }

    /// What became of a transfer, or of the question about one. After the end only that it was done still counts.
    pub(super) fn answered(&mut self, now: Time, started_at: Time, id: &str, outcome: &ActOutcome) -> Option<String> {
        let over = self.ended_at.is_some();
        let (asset, one) = self.of(started_at, id)?;
        if matches!(outcome, ActOutcome::Done { .. }) {
            one.tries.worked();
            one.stage = Stage::Moved;
            return Some(format!("{} {asset} moved to the master, says the exchange", one.amount));
        }
        if !over {
            match one.stage {
                Stage::Wanted => one.not_confirmed(now, outcome),
                Stage::Unsure { looks } => one.not_found(now, looks, outcome),
                Stage::NotShown | Stage::Moved | Stage::NotMoved { .. } => {}
            }
        }
        None
    }

    /// The balances, read when nothing was under way.
    pub(super) fn read(&mut self, now: Time, outcome: &ActOutcome) {
        if let ActOutcome::Balances(balances) = outcome {
            return self.compare(now, balances);
        }
        let ActOutcome::Refused { code, reason } = outcome else { return self.read.missed(now, outcome) };
        self.read.failed(now, &format!("refused ({code}): {reason}"));
        if self.read.failures >= TRIES_MAX {
            self.end(now);
        }
    }

    fn compare(&mut self, now: Time, balances: &[Balance]) {
        if self.ended_at.is_some() {
            return;
        }
        self.read.worked();
        self.rounds += 1;
        let last = self.rounds >= ROUNDS_MAX;
        let mut free: BTreeMap<&Asset, Dec> =
            balances.iter().filter(|one| one.free.is_positive()).map(|one| (&one.asset, one.free)).collect();
        self.locked = balances.iter().filter(|one| one.locked.is_positive()).count();
        for (asset, one) in &mut self.moves {
            one.compare(free.remove(asset));
        }
        self.beyond = 0;
        for (asset, amount) in free {
            if self.moves.len() < ASSETS_MAX {
                self.moves.insert(asset.clone(), Move::new(amount, 0));
            } else {
                self.beyond += 1;
            }
        }
        if last {
            self.leave_unsettled("there is always more of it");
        }
        if self.moves.values().all(Move::is_settled) {
            self.proved = true;
            self.end(now);
        }
    }

    /// Begins, and ends what has lasted long enough or may not go on.
    pub(super) fn settle(&mut self, now: Time) {
        let begun_at = *self.begun_at.get_or_insert(now);
        if self.ended_at.is_some() {
            return;
        }
        if let Some(why) = self.withheld.clone() {
            for one in self.moves.values_mut().filter(|one| !one.tries.under_way) {
                match one.stage {
                    Stage::Wanted => one.leave(&why),
                    Stage::NotShown => one.leave(NOT_KNOWN),
                    Stage::Unsure { .. } | Stage::Moved | Stage::NotMoved { .. } => {}
                }
            }
            if self.moves.values().all(Move::is_settled) {
                return self.end(now);
            }
        }
        if begun_at + WITHIN <= now {
            self.leave_unsettled("it took too long");
            self.end(now);
        }
    }

    fn leave_unsettled(&mut self, why: &str) {
        for one in self.moves.values_mut() {
            match one.stage {
                Stage::Wanted if !one.tries.under_way => one.leave(why),
                Stage::Wanted | Stage::Unsure { .. } | Stage::NotShown => {
                    one.leave(NOT_KNOWN);
                }
                Stage::Moved | Stage::NotMoved { .. } => {}
            }
        }
    }

    fn end(&mut self, now: Time) {
        self.ended_at = Some(now);
    }

    /// Somebody else traded after the end: there may be more by now.
    pub(super) fn again(&mut self, withheld: Option<Box<str>>) {
        self.withheld = withheld;
        (self.begun_at, self.ended_at, self.rounds, self.proved) = (None, None, 0, false);
        self.read = Tries::default();
        for one in self.moves.values_mut() {
            if matches!(one.stage, Stage::NotMoved { .. }) {
                (one.stage, one.sent, one.tries) = (Stage::NotShown, 0, Tries::default());
            }
        }
    }

    /// The process ended while requests were under way: they may have been done.
    pub(super) fn cut_off(&mut self) {
        self.read.cut_off();
        for one in self.moves.values_mut().filter(|one| one.tries.under_way) {
            one.tries.cut_off();
            if one.stage == Stage::Wanted {
                one.stage = Stage::Unsure { looks: 0 };
            }
        }
    }

    pub(super) const fn has_begun(&self) -> bool {
        self.begun_at.is_some()
    }

    /// Everything that was free is with the master, and a reading shows it.
    pub(super) fn is_whole(&self) -> bool {
        let left = |one: &Move| matches!(one.stage, Stage::NotMoved { .. });
        self.proved && self.withheld.is_none() && self.beyond == 0 && !self.moves.values().any(left)
    }

    pub(super) fn told(&self) -> String {
        let mut parts = Vec::new();
        let moved = self.moves.iter().filter(|(_, one)| one.stage == Stage::Moved);
        let moved: Vec<String> = moved.map(|(asset, one)| format!("{} {asset}", one.amount)).collect();
        let left = self.moves.iter().filter_map(|(asset, one)| match &one.stage {
            Stage::NotMoved { why } => Some(format!("{} {asset} ({why})", one.amount)),
            Stage::Wanted | Stage::Unsure { .. } | Stage::NotShown | Stage::Moved => None,
        });
        let mut left: Vec<String> = left.collect();
        if self.beyond > 0 {
            left.push(format!("{} more assets", self.beyond));
        }
        match (&self.withheld, &self.read.last) {
            (Some(why), _) if left.is_empty() => left.push(why.to_string()),
            (None, Some(why)) if !self.proved => left.push(format!("the balances could not be read: {why}")),
            (Some(_) | None, _) => {}
        }
        if !moved.is_empty() {
            parts.push(format!("moved to the master: {}", named(&moved)));
        }
        if !left.is_empty() {
            parts.push(format!("NOT moved: {}", named(&left)));
        }
        if parts.is_empty() {
            parts.push("nothing was free to be moved".to_owned());
        }
        if self.locked > 0 {
            parts.push(format!("{} assets are in orders that were spared, and stay", self.locked));
        }
        parts.join("; ")
    }
}

fn named(texts: &[String]) -> String {
    let shown = texts[..texts.len().min(NAMED_MAX)].join(", ");
    match texts.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl Move {
    fn new(amount: Dec, nth: u32) -> Self {
        Self { amount, nth, sent: 0, stage: Stage::Wanted, tries: Tries::default() }
    }

    fn act(&self, started_at: Time, asset: &Asset) -> Act {
        let id = self.id(started_at, asset);
        match self.stage {
            Stage::Wanted => Act::Transfer { asset: asset.clone(), amount: self.amount, id },
            Stage::Unsure { .. } | Stage::NotShown | Stage::Moved | Stage::NotMoved { .. } => Act::FindTransfer { id },
        }
    }

    /// Derived and not drawn: a transfer that was forgotten gets the same id again.
    fn id(&self, started_at: Time, asset: &Asset) -> Box<str> {
        let digest = Sha256::digest(format!("{}/{asset}/{}/{}", started_at.micros(), self.nth, self.amount));
        let hex: String = digest.iter().take(15).map(|byte| format!("{byte:02x}")).collect();
        format!("cs{hex}").into()
    }

    fn is_settled(&self) -> bool {
        match self.stage {
            Stage::Wanted | Stage::Unsure { .. } => false,
            Stage::NotShown | Stage::Moved | Stage::NotMoved { .. } => true,
        }
    }

    fn leave(&mut self, why: &str) {
        self.stage = Stage::NotMoved { why: why.into() };
    }

    /// The transfer was asked for, and not answered as done.
    fn not_confirmed(&mut self, now: Time, outcome: &ActOutcome) {
        match outcome {
            ActOutcome::Held { until, reason } => {
                self.sent = self.sent.saturating_sub(1);
                self.tries.held(*until, reason);
            }
            ActOutcome::Refused { code, reason } => {
                let why = format!("refused ({code}): {reason}");
                self.tries.failed(now, &why);
                if self.sent >= TRIES_MAX {
                    self.leave(&why);
                }
            }
            ActOutcome::Unknown { .. }
            | ActOutcome::Done { .. }
            | ActOutcome::NotFound
            | ActOutcome::Quote(_)
            | ActOutcome::Sold { .. }
            | ActOutcome::Keys(_)
            | ActOutcome::Probed(_)
            | ActOutcome::Orders(_)
            | ActOutcome::Balances(_) => self.may_be_done(now, outcome.reason()),
        }
    }

    fn may_be_done(&mut self, now: Time, why: &str) {
        self.tries.failed(now, why);
        self.stage = Stage::Unsure { looks: 0 };
    }

    /// Its id was asked about, and did not come back as done.
    fn not_found(&mut self, now: Time, looks: u32, outcome: &ActOutcome) {
        match outcome {
            ActOutcome::Held { .. } => return self.tries.missed(now, outcome),
            ActOutcome::NotFound => self.tries.again_at(now + LOOK_AGAIN_AFTER),
            ActOutcome::Refused { .. }
            | ActOutcome::Unknown { .. }
            | ActOutcome::Done { .. }
            | ActOutcome::Keys(_)
            | ActOutcome::Probed(_)
            | ActOutcome::Orders(_)
            | ActOutcome::Balances(_)
            | ActOutcome::Quote(_)
            | ActOutcome::Sold { .. } => self.tries.missed(now, outcome),
        }
        let looks = looks + 1;
        self.stage = if looks < LOOKS_MAX { Stage::Unsure { looks } } else { Stage::NotShown };
    }

    /// What a reading that was asked for later shows free of this asset.
    fn compare(&mut self, free: Option<Dec>) {
        match (&self.stage, free) {
            (Stage::Wanted | Stage::Unsure { .. } | Stage::Moved, None) => {}
            // However it was answered: it is not there any more.
            (Stage::NotShown | Stage::NotMoved { .. }, None) => self.stage = Stage::Moved,
            (Stage::NotMoved { .. } | Stage::Wanted | Stage::Unsure { .. }, Some(_)) => {}
            (Stage::NotShown, Some(free)) if free == self.amount && self.sent >= TRIES_MAX => {
                self.leave("asked for often enough, and it is still there");
            }
            // Under the same id: if the venue knows it after all, it refuses it.
            (Stage::NotShown, Some(free)) if free == self.amount => self.stage = Stage::Wanted,
            (Stage::NotShown | Stage::Moved, Some(free)) => *self = Self::new(free, self.nth + 1),
        }
    }
}
