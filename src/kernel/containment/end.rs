//! How far a containment is, what its end is called, and what takes that word back.

use std::time::Duration;

use crate::kernel::containment::key::{Goal, KeyTask, Listed};
use crate::kernel::containment::{Aim, Containment, End};
use crate::kernel::stopping::Means;
use crate::kernel::time::Time;

/// A stranger's order this soon after the end takes the word back.
const REOPENS_WITHIN: Duration = Duration::from_secs(600);
/// The venue's clock and ours are not the same, and a frame takes its time.
const CLOCKS_APART: Duration = Duration::from_secs(5);

impl Containment {
    /// Somebody else did something on the account, as the stream or a read shows it.
    pub fn handle_foreign(&mut self, now: Time, created_at: Time, what: &str) {
        if self.aim != Aim::Kill {
            return;
        }
        match self.ended {
            // Long after, it is another theft.
            Some((at, _)) if now.since(at) > REOPENS_WITHIN => return,
            Some(_) => {
                self.ended = None;
                let withheld = self.withheld();
                self.with_sweep(|sweep, _| sweep.again(withheld));
                self.say(now, format!("not contained any more: {what}"));
            }
            None => {}
        }
        self.last_foreign = Some(now);
        self.list_wanted_of = Some(now);
        self.orders.disturbed();
        self.orders_gone_at = None;
        // Every other key is blocked, so one of ours is somebody else's as well.
        let blocked_before = self.blocked_at.is_some_and(|at| at + CLOCKS_APART < created_at);
        for task in self.keys.values_mut() {
            task.doubt();
        }
        if blocked_before && self.means == Means::SubAccount {
            for task in self.keys.values_mut().filter(|task| task.goal == Goal::Keep) {
                task.goal = Goal::Freeze;
            }
            self.blocked_at = None;
            self.say(
                now,
                format!(
                    "{what}, after every key was blocked: countersign's own trading key is \
                 frozen too, so what is open must be cancelled by hand"
                ),
            );
        }
    }

    /// Works out how far it is. Called after everything that happened.
    pub fn settle(&mut self, now: Time) {
        if self.ended.is_some() {
            return;
        }
        if self.aim == Aim::Drill && self.has_given_up(now) {
            return;
        }
        self.last_foreign.take_if(|at| *at + self.quiet <= now);
        let list_known = self.means == Means::ByHand || self.list.read_of.is_some();
        let blocked = self.aim != Aim::Release && list_known && self.keys.values().all(KeyTask::is_blocked);
        match (blocked, self.blocked_at) {
            (true, None) => {
                self.blocked_at = Some(now);
                let what =
                    if self.aim == Aim::Drill { "new orders with the drill's key are" } else { "new orders are" };
                self.say(now, format!("{what} blocked"));
            }
            (false, Some(_)) => self.blocked_at = None,
            (true, Some(_)) | (false, None) => {}
        }
        // Once a quiet time, whatever a thief does: the master's weight is for the keys.
        if self.blocked_at.is_some() && self.last_foreign.is_none() && !self.list_is_fresh() {
            self.list_soon(now);
        }
        // Two reads prove it, and the first of them shows since when.
        self.orders_gone_at = self.orders.gone_at.and(self.orders.clean_since);
        let Some(end) = self.reached() else { return };
        if let Some(sweep) = &mut self.sweep {
            sweep.settle(now);
            if sweep.ended_at.is_none() {
                return;
            }
            let told = sweep.told();
            self.say(now, told);
        }
        self.ended = Some((now, end));
        let line = match end {
            End::Frozen => "FROZEN: no key that is not countersign's has any right left",
            End::Released if self.keys.values().any(KeyTask::is_lost) => {
                "RELEASED, but for what is gone: the list shows the other rights as they were"
            }
            End::Released => "RELEASED: the exchange's list shows the rights as they were",
            End::Contained => "CONTAINED",
            End::RevokedUnprobed => "REVOKED, UNPROBED: no probe from here could count",
            End::Drilled => "DRILLED: the key is proved dead, and no other was touched",
            End::NotProved => "NOT PROVED",
        };
        self.say(now, line.to_owned());
    }

    pub(super) fn reached(&self) -> Option<End> {
        if self.aim == Aim::Release {
            return self.keys.values().all(KeyTask::is_done).then_some(End::Released);
        }
        self.blocked_at?;
        if !self.list_is_fresh() || self.too_many_keys || !self.keys.values().all(KeyTask::is_done) {
            return None;
        }
        match self.aim {
            Aim::Freeze => return Some(End::Frozen),
            Aim::Drill => return Some(End::Drilled),
            Aim::Kill | Aim::Release => {}
        }
        let stranger = |task: &KeyTask| task.is_strangers() && task.listed != Listed::Absent;
        if self.keys.values().any(stranger) || self.orders.gone_at.is_none() || self.last_foreign.is_some() {
            return None;
        }
        let probed = self.keys.values().all(KeyTask::is_probed);
        Some(if probed { End::Contained } else { End::RevokedUnprobed })
    }
}
