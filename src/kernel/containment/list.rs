//! The list of the account's keys, as the master's key reads it: what proves a key gone, and shows one that nobody declared.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::act::{ActOutcome, KeyPrint, KeyRow};
use crate::kernel::containment::key::{Goal, KeyTask};
use crate::kernel::containment::tries::Tries;
use crate::kernel::containment::{Aim, Containment};
use crate::kernel::stopping::Means;
use crate::kernel::time::Time;

/// The list is read again this often until the end: whoever holds the master login can make new keys.
const LIST_EVERY: Duration = Duration::from_secs(10);
/// Between two lists, however much they are wanted.
const LIST_GAP: Duration = Duration::from_millis(300);
/// Keys followed; the venue allows 30 a sub-account. With more it is never contained.
pub(super) const KEYS_MAX: usize = 100;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListTask {
    pub tries: Tries,
    pub asked_at: Option<Time>,
    /// When the last list that could be read was asked for.
    pub read_of: Option<Time>,
}

impl Containment {
    pub(super) fn wants_list(&self) -> bool {
        self.means == Means::SubAccount
    }

    /// At once, but not as fast as answers come.
    pub(super) fn list_soon(&mut self, now: Time) {
        let at = self.list.asked_at.map_or(now, |asked| asked + LIST_GAP);
        self.list.tries.again_at_once(at.max(now));
    }

    pub(super) fn list_read(&mut self, now: Time, outcome: &ActOutcome) {
        self.compare_list(now, outcome);
        self.explain_by_list(now);
    }

    fn compare_list(&mut self, now: Time, outcome: &ActOutcome) {
        let ActOutcome::Keys(rows) = outcome else { return self.list.tries.missed(now, outcome) };
        let shows = |print: &KeyPrint| rows.iter().any(|row| row.key == *print);
        if self.witness.as_ref().is_some_and(|own| !shows(own)) {
            // Another account's list would make every key of ours look gone, and every key there a stranger's.
            let why = "the list does not show countersign's own watch key: is sub_account the account that is watched?";
            return self.list.tries.failed(now, why);
        }
        let Some(asked_at) = self.list.asked_at else { return };
        self.list.tries.again_at(now + LIST_EVERY);
        self.list.read_of = Some(asked_at);
        for row in rows {
            self.found(now, row);
        }
        let mut lines = Vec::new();
        let mut doubts = Vec::new();
        for (key, task) in &mut self.keys {
            let row = rows.iter().find(|row| row.key == *key);
            doubts.extend(task.meddled_with(asked_at, row).map(|what| format!("key {}: {what}", task.name)));
            lines.extend(task.listed(now, asked_at, row));
        }
        for line in lines {
            self.say(now, line);
        }
        doubts.into_iter().for_each(|why| self.doubt_master(now, &why));
    }

    /// A key that nobody declared is frozen and asked about: it may be the thief's, and it may be the owner's.
    fn found(&mut self, now: Time, row: &KeyRow) {
        if self.keys.contains_key(&row.key) {
            return;
        }
        if self.keys.len() >= KEYS_MAX {
            if !std::mem::replace(&mut self.too_many_keys, true) {
                self.say(now, format!("more than {KEYS_MAX} keys are listed: not all of them are followed"));
            }
            return;
        }
        let name: String = row.name.chars().filter(|c| !c.is_control()).take(40).collect();
        let name = format!("{name:?} ({})", row.key);
        let age = if row.created_at >= self.started_at { ", newer than this containment" } else { "" };
        if self.aim == Aim::Drill {
            self.say(now, format!("key {name} is not declared: a drill leaves it alone"));
            self.keys.insert(row.key.clone(), KeyTask::new(&name, false, Goal::Keep, None));
            if !self.allowed.contains(&row.key) {
                self.doubt_master(now, &format!("key {name} is in the list, and nobody declared it"));
            }
            return;
        }
        let allowed = self.allowed.contains(&row.key);
        let line = if allowed {
            format!("key {name} is allowed, and frozen like the rest: resume gives it back")
        } else {
            format!(
                "key {name} is not declared{age}: frozen, and yours to decide on (kill … --key {} deletes it)",
                row.key
            )
        };
        self.say(now, line);
        let mut task = KeyTask::new(&name, false, Goal::Freeze, None);
        task.allowed = allowed;
        self.keys.insert(row.key.clone(), task);
        self.blocked_at = None;
        if !allowed {
            self.doubt_master(now, &format!("key {name} is in the list, and nobody declared it"));
        }
    }

    /// Whether a list was asked for since every key was blocked, since somebody else last traded, and since a restart.
    pub(super) fn list_is_fresh(&self) -> bool {
        self.means == Means::ByHand || self.list.read_of >= self.blocked_at.max(self.list_wanted_of)
    }
}
