//! One key's way to its end. What was asked for and not answered is found out by reading, never by asking blindly again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::act::{Act, ActOutcome, KeyPrint, KeyRights, KeyRow, ProbeAnswer};
use crate::kernel::containment::tries::Tries;
use crate::kernel::stopping::DeclaredKey;
use crate::kernel::time::Time;

/// Deleting does not wait longer for freezing than so many failures, and not for a look at the living key.
const FREEZES_BEFORE_DELETE: u32 = 2;
const LOOKS_BEFORE_DELETE: u32 = 2;
/// What is to be given back must be known first, but not at any price.
const LISTS_BEFORE_FREEZE: u32 = 2;
const NO_SUCH_KEY: i64 = -2008;
/// From one unclear or living answer to the next question.
const PROBE_AGAIN_AFTER: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// One of ours, which is needed and has not been seen misused.
    Keep,
    /// Reversible: no right is left.
    Freeze,
    Delete,
    /// Only its owner can delete it, by hand: it is probed until it is dead.
    ByHand,
    /// Gets back the rights that it had.
    Thaw,
    /// A drill's: it is to be seen alive from here before anything is done to it.
    Look,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Listed {
    NotRead,
    Shown,
    Absent,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyTask {
    pub name: Box<str>,
    pub declared: bool,
    /// Countersign's own: frozen at the most.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// Nobody declared it, and its owner says that it is his.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allowed: bool,
    pub goal: Goal,
    pub listed: Listed,
    /// Before we touched it: what a release gives back.
    pub rights_before: Option<KeyRights>,
    pub frozen_at: Option<Time>,
    pub deleted_at: Option<Time>,
    /// A living answer came from the very address that the probes come from.
    pub shown_alive_at: Option<Time>,
    pub dead_at: Option<Time>,
    /// Since when the list does not show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Time>,
    pub freeze: Tries,
    pub delete: Tries,
    pub probe: Tries,
    pub looks: u32,
    /// The rights that are being set are not none.
    thaws: bool,
    /// A change may have happened: only a list that was asked for later tells.
    unsure: bool,
    /// A list is wanted, and nothing waits for it.
    curious: bool,
    changed_at: Time,
    pub last_probe: Option<Box<str>>,
    /// As the first list showed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rights_first: Option<KeyRights>,
}

impl KeyTask {
    pub(super) fn new(name: &str, declared: bool, goal: Goal, shown_alive_at: Option<Time>) -> Self {
        Self {
            name: name.into(),
            declared,
            own: false,
            allowed: false,
            goal,
            listed: Listed::NotRead,
            rights_before: None,
            frozen_at: None,
            deleted_at: None,
            shown_alive_at,
            dead_at: None,
            gone_at: None,
            freeze: Tries::default(),
            delete: Tries::default(),
            probe: Tries::default(),
            looks: 0,
            thaws: false,
            unsure: false,
            curious: false,
            changed_at: Time::EPOCH,
            last_probe: None,
            rights_first: None,
        }
    }

    pub(super) fn of(key: &DeclaredKey, goal: Goal, shown_alive_at: Option<Time>) -> Self {
        Self { own: key.is_own(), ..Self::new(&key.name, true, goal, shown_alive_at) }
    }

    pub(super) fn was_proved_dead(&mut self, now: Time) {
        (self.listed, self.gone_at, self.dead_at) = (Listed::Absent, Some(now), Some(now));
    }

    pub(super) fn is_strangers(&self) -> bool {
        !self.declared && !self.allowed
    }

    /// Nobody can place an order with it any more, as far as the venue has said.
    pub(super) fn is_blocked(&self) -> bool {
        match self.goal {
            Goal::Keep => true,
            Goal::ByHand => self.dead_at.is_some(),
            Goal::Thaw | Goal::Look => false,
            Goal::Freeze | Goal::Delete => {
                self.frozen_at.is_some() || self.deleted_at.is_some() || self.listed == Listed::Absent
            }
        }
    }

    /// Proved as far as its goal asks. Whether the probes count is another question.
    pub(super) fn is_done(&self) -> bool {
        match self.goal {
            Goal::Keep => true,
            // What is not there has nothing to lose or to get back.
            Goal::Freeze => self.frozen_at.is_some() || self.listed == Listed::Absent,
            Goal::Thaw => (self.frozen_at.is_none() && !self.unsure) || self.listed == Listed::Absent,
            Goal::ByHand => self.dead_at.is_some(),
            Goal::Look => false,
            Goal::Delete => self.listed == Listed::Absent && self.dead_at.is_some(),
        }
    }

    /// Dead answers from an address that it may never have been allowed from prove nothing.
    pub(super) fn is_probed(&self) -> bool {
        !matches!(self.goal, Goal::Delete | Goal::ByHand) || self.shown_alive_at.is_some()
    }

    pub(super) fn wants_list(&self) -> bool {
        let deleted_and_unread = self.deleted_at.is_some() && self.listed != Listed::Absent;
        self.goal != Goal::ByHand && (self.unsure || self.curious || deleted_and_unread)
    }

    pub(super) fn next(&self, now: Time, key: &KeyPrint, lists_failed: u32) -> Vec<Act> {
        let mut acts = Vec::new();
        match self.goal {
            Goal::Keep => return acts,
            Goal::ByHand | Goal::Look => {}
            Goal::Thaw if self.is_unsure(lists_failed) || self.listed == Listed::Absent => {}
            Goal::Thaw => {
                if let Some(rights) =
                    self.rights_before.filter(|_| self.frozen_at.is_some() && self.freeze.is_ready(now))
                {
                    acts.push(Act::SetRights { key: key.clone(), rights });
                }
            }
            Goal::Freeze | Goal::Delete if self.is_unsure(lists_failed) || self.listed == Listed::Absent => {}
            Goal::Freeze | Goal::Delete => {
                if self.may_freeze(lists_failed) && self.freeze.is_ready(now) {
                    acts.push(Act::SetRights { key: key.clone(), rights: KeyRights::NONE });
                }
                if self.may_delete() && self.delete.is_ready(now) {
                    acts.push(Act::DeleteKey { key: key.clone() });
                }
            }
        }
        if self.wants_probe() && self.probe.is_ready(now) {
            acts.push(Act::Probe { key: key.clone() });
        }
        acts
    }

    /// Asked for and not known to be done. If no list can be read, it is asked for again: freezing or deleting a second time
    /// changes nothing, and waiting would.
    fn is_unsure(&self, lists_failed: u32) -> bool {
        self.unsure && (lists_failed < LISTS_BEFORE_FREEZE || self.goal == Goal::Thaw)
    }

    fn may_freeze(&self, lists_failed: u32) -> bool {
        let known = self.goal == Goal::Delete || self.rights_before.is_some() || lists_failed >= LISTS_BEFORE_FREEZE;
        known && self.frozen_at.is_none() && self.deleted_at.is_none()
    }

    fn may_delete(&self) -> bool {
        let frozen = self.frozen_at.is_some() || self.freeze.failures >= FREEZES_BEFORE_DELETE;
        let looked = self.shown_alive_at.is_some() || self.looks >= LOOKS_BEFORE_DELETE;
        // Nothing else of ours may be under way with this key: what came later would be judged by what came before.
        let idle = !self.freeze.under_way && !self.probe.under_way;
        self.goal == Goal::Delete && frozen && looked && idle && self.deleted_at.is_none()
    }

    fn wants_probe(&self) -> bool {
        match self.goal {
            Goal::Keep | Goal::Freeze | Goal::Thaw => false,
            Goal::Look => self.shown_alive_at.is_none(),
            Goal::ByHand => self.dead_at.is_none(),
            Goal::Delete if self.listed == Listed::Absent => self.dead_at.is_none(),
            Goal::Delete => {
                self.shown_alive_at.is_none() && self.looks < LOOKS_BEFORE_DELETE && self.deleted_at.is_none()
            }
        }
    }

    pub(super) fn due(&self, lists_failed: u32) -> Option<Time> {
        if self.goal == Goal::Keep {
            return None;
        }
        let acted_on = !matches!(self.goal, Goal::ByHand | Goal::Look);
        let present = acted_on && self.listed != Listed::Absent && !self.is_unsure(lists_failed);
        let freeze =
            present && if self.goal == Goal::Thaw { self.frozen_at.is_some() } else { self.may_freeze(lists_failed) };
        let delete = present && self.may_delete();
        [(freeze, &self.freeze), (delete, &self.delete), (self.wants_probe(), &self.probe)]
            .into_iter()
            .filter_map(|(wanted, tries)| tries.ready_at().filter(|_| wanted))
            .min()
    }

    /// What freezing or deleting came to. Returns what is worth a line.
    pub(super) fn changed(&mut self, now: Time, deletes: bool, outcome: &ActOutcome) -> Option<String> {
        self.changed_at = now;
        // What may have been given back is not frozen, whatever it is to be by now.
        let thawed = !deletes && self.thaws && self.goal != Goal::Thaw;
        if thawed && !matches!(outcome, ActOutcome::Held { .. } | ActOutcome::Refused { .. }) {
            self.frozen_at = None;
            self.unsure = true;
        }
        let tries = if deletes { &mut self.delete } else { &mut self.freeze };
        match outcome {
            ActOutcome::Done { .. } => {
                tries.answered();
                if !deletes && std::mem::take(&mut self.thaws) {
                    // The list tells whether they are the ones it had; meanwhile it is frozen by nobody's word.
                    self.unsure = true;
                    return Some(format!("key {}: it has its rights again, says the exchange", self.name));
                }
                let at = if deletes { &mut self.deleted_at } else { &mut self.frozen_at };
                *at = Some(now);
                let what = if deletes { "deleted, says the exchange" } else { "frozen: no right is left" };
                return Some(format!("key {}: {what}", self.name));
            }
            ActOutcome::Held { until, reason } => tries.held(*until, reason),
            // Not done, says the venue; a list may show why, and nothing waits for it.
            ActOutcome::Refused { code, reason } => {
                tries.failed(now, &format!("refused ({code}): {reason}"));
                self.curious = true;
            }
            ActOutcome::Unknown { .. }
            | ActOutcome::Keys(_)
            | ActOutcome::Probed(_)
            | ActOutcome::Orders(_)
            | ActOutcome::Balances(_)
            | ActOutcome::NotFound
            | ActOutcome::Quote(_)
            | ActOutcome::Sold { .. } => {
                tries.failed(now, outcome.reason());
                self.unsure = true;
            }
        }
        None
    }

    /// What somebody else did to it, who must hold the master's login or a key of it, by a list that was asked for after our
    /// own last change.
    pub(super) fn meddled_with(&self, asked_at: Time, row: Option<&KeyRow>) -> Option<&'static str> {
        let under_way = self.freeze.under_way || self.delete.under_way || self.unsure;
        if asked_at < self.changed_at || under_way {
            return None;
        }
        match (self.goal, row) {
            (Goal::Keep, None) => (self.listed == Listed::Shown).then_some("it is gone, and was not deleted from here"),
            (Goal::Keep, Some(row)) => {
                let changed = self.rights_first.is_some_and(|first| first != row.rights);
                changed.then_some("its rights were changed")
            }
            (Goal::Freeze | Goal::Delete, Some(row)) if row.rights.any() => {
                let other = self.rights_before.is_some_and(|before| before != row.rights);
                match self.frozen_at {
                    Some(_) => Some("it was frozen, and got rights again"),
                    None => other.then_some("its rights were changed"),
                }
            }
            // Its owner may have deleted it himself.
            (Goal::Freeze | Goal::Delete, _) | (Goal::Thaw | Goal::ByHand | Goal::Look, _) => None,
        }
    }

    /// The list showed it, or did not. One that was asked for before our last change says nothing.
    pub(super) fn listed(&mut self, now: Time, asked_at: Time, row: Option<&KeyRow>) -> Option<String> {
        if let Some(row) = row.filter(|row| row.rights.any()) {
            // Whatever it could do before we froze it.
            self.rights_before.get_or_insert(row.rights);
        }
        let in_between = self.freeze.under_way || self.delete.under_way;
        if asked_at < self.changed_at || in_between {
            return None;
        }
        (self.unsure, self.curious) = (false, false);
        self.rights_first = self.rights_first.or(row.map(|row| row.rights));
        let before = std::mem::replace(&mut self.listed, if row.is_some() { Listed::Shown } else { Listed::Absent });
        let Some(row) = row else {
            self.gone_at.get_or_insert(now);
            let gone = before != Listed::Absent && self.goal != Goal::Keep;
            return gone.then(|| format!("key {}: the exchange's list does not show it", self.name));
        };
        self.gone_at = None;
        if self.deleted_at.take().is_some() {
            self.delete.failed(now, "deleted, said the exchange, and its list still shows it");
        }
        match (row.rights.any(), self.frozen_at) {
            (true, Some(_)) if self.goal == Goal::Thaw && Some(row.rights) != self.rights_before => {
                self.freeze.failed(now, "its list shows other rights than it had");
                None
            }
            (false, Some(_)) if self.goal == Goal::Thaw && !self.thaws && self.freeze != Tries::default() => {
                self.freeze.failed(now, "given back, said the exchange, and its list shows no right");
                None
            }
            (true, Some(_)) if self.goal == Goal::Thaw => {
                self.frozen_at = None;
                self.freeze.worked();
                Some(format!("key {}: the list shows its rights again", self.name))
            }
            (true, Some(_)) => {
                self.frozen_at = None;
                self.freeze.failed(now, "frozen, said the exchange, and its list shows rights again");
                Some(format!("key {}: it has rights again", self.name))
            }
            (false, None) => {
                self.frozen_at = Some(now);
                (self.goal != Goal::Keep).then(|| format!("key {}: the list shows it without any right", self.name))
            }
            (true, None) | (false, Some(_)) => None,
        }
    }

    pub(super) fn probed(&mut self, now: Time, outcome: &ActOutcome) -> Option<String> {
        if !matches!(outcome, ActOutcome::Held { .. }) {
            self.looks = self.looks.saturating_add(1);
        }
        let ActOutcome::Probed(answers) = outcome else {
            self.probe.missed(now, outcome);
            return None;
        };
        self.probe.again_at(now + PROBE_AGAIN_AFTER);
        let told = format!("{} and {}", words(&answers[0]), words(&answers[1]));
        self.last_probe = Some(told.as_str().into());
        let alive = answers.iter().any(|answer| matches!(answer, ProbeAnswer::Alive { .. }));
        let dead = answers.iter().all(|answer| matches!(answer, ProbeAnswer::Dead { .. }));
        let gone = self.listed == Listed::Absent || self.goal == Goal::ByHand;
        if alive {
            self.dead_at = None;
            if self.listed == Listed::Absent && self.goal != Goal::ByHand {
                // A list that hid a living key is no proof: it is frozen and deleted like any other.
                (self.listed, self.gone_at, self.unsure) = (Listed::NotRead, None, true);
            }
            let first = self.shown_alive_at.is_none() || gone && self.goal == Goal::Delete;
            // A key that answers after its deletion was not dead when we looked from here, so the address counts.
            self.shown_alive_at.get_or_insert(now);
            return first.then(|| format!("key {}: alive when called from here: {told}", self.name));
        }
        // By hand there is no list: it must have been alive here before, and the venue must say that it knows no such key.
        // A key whose addresses were changed gets the other code as well.
        let unknown = |answer: &ProbeAnswer| matches!(answer, ProbeAnswer::Dead { code: NO_SUCH_KEY });
        let counts = self.goal != Goal::ByHand || self.shown_alive_at.is_some() && answers.iter().any(unknown);
        if dead && gone && counts && self.dead_at.is_none() {
            self.dead_at = Some(now);
            let weight = if self.is_probed() { "dead" } else { "answers as dead, and was never seen alive from here" };
            return Some(format!("key {}: {weight}: {told}", self.name));
        }
        None
    }

    /// Something may be taken right now, and no list has shown yet what it is.
    pub(super) fn is_taken_blindly(&self) -> bool {
        let taken = matches!(self.goal, Goal::Freeze | Goal::Delete) && self.listed != Listed::Absent;
        taken && self.rights_before.is_none() && (self.freeze.under_way || self.unsure)
    }

    /// It was frozen, and can be given back what it had.
    pub(super) fn is_held(&self) -> bool {
        let frozen = matches!(self.goal, Goal::Freeze | Goal::Delete) && self.listed != Listed::Absent;
        frozen && self.rights_before.is_some_and(|rights| rights.any())
    }

    /// Says what it will get back, if anything was or is being taken.
    pub(super) fn release(&mut self) -> Option<String> {
        if !matches!(self.goal, Goal::Freeze | Goal::Delete) || self.listed == Listed::Absent {
            return None;
        }
        let Some(rights) = self.rights_before.filter(|rights| rights.any()) else {
            // Nothing was taken so far, and nothing is: it stays among the keys that a later freeze or kill is aimed at.
            let untouched = self.frozen_at.is_none() && !self.freeze.under_way && !self.unsure;
            if untouched {
                self.goal = Goal::Thaw;
            }
            return untouched.then(|| format!("key {} keeps its rights: none was taken yet", self.name));
        };
        self.goal = Goal::Thaw;
        self.unsure |= self.freeze.under_way;
        if !self.freeze.under_way {
            self.freeze = Tries::default();
        }
        Some(format!("key {} gets back {rights}", self.name))
    }

    /// Frozen or deleted after all; what is being given back meanwhile counts as not frozen until a list tells.
    pub(super) fn take_up(&mut self, goal: Goal) {
        if self.goal == Goal::Thaw && (self.thaws || self.unsure) {
            (self.frozen_at, self.unsure) = (None, true);
        }
        self.goal = goal;
    }

    pub(super) fn is_aimed_at(&self) -> bool {
        matches!(self.goal, Goal::Freeze | Goal::Delete | Goal::Thaw)
    }

    pub(super) fn is_being_deleted(&self) -> bool {
        // One that is gone from the list is past that, and keeps no other from getting its rights back.
        let begun = self.delete.under_way || self.deleted_at.is_some() || self.delete.failures > 0;
        self.goal == Goal::Delete && self.listed != Listed::Absent && begun
    }

    /// The list does not show it, or the venue said that it deleted it.
    pub(super) fn is_gone(&self) -> bool {
        self.deleted_at.is_some() || self.listed == Listed::Absent
    }

    /// Somebody else asked for something about it and was not answered: only a later list tells.
    pub(super) fn unsettle(&mut self, now: Time) {
        (self.unsure, self.changed_at) = (true, now);
    }

    /// A deletion by us may have happened.
    pub(super) fn may_be_deleted(&self) -> bool {
        self.is_being_deleted() || self.goal == Goal::Delete && self.unsure
    }

    /// It gets nothing back, since it is not there.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.goal, Goal::Thaw | Goal::Delete) && self.listed == Listed::Absent
    }

    /// Somebody else traded. Where only probes speak, they were wrong: the address may have been shut out instead.
    pub(super) fn doubt(&mut self) {
        if self.goal == Goal::ByHand && self.dead_at.take().is_some() {
            self.shown_alive_at = None;
        }
    }

    pub(super) fn sets_rights(&mut self, rights: KeyRights) {
        self.freeze.sent();
        self.thaws = rights.any();
    }

    /// The process ended while requests were under way: they may have been done.
    pub(super) fn cut_off(&mut self, now: Time) {
        if self.freeze.under_way || self.delete.under_way {
            self.unsure = true;
            self.changed_at = now;
        }
        for tries in [&mut self.freeze, &mut self.delete, &mut self.probe] {
            tries.cut_off();
        }
    }
}

fn words(answer: &ProbeAnswer) -> String {
    match answer {
        ProbeAnswer::Dead { code } => format!("{code} (dead)"),
        ProbeAnswer::Alive { code: 0 } => "an answer (alive)".to_owned(),
        ProbeAnswer::Alive { code } => format!("{code} (alive)"),
        ProbeAnswer::Unclear { reason } => format!("unclear ({reason})"),
    }
}
