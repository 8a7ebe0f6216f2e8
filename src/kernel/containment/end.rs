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
/// So many lists that fail in a row explain nothing.
const LISTS_BEFORE_OWN: u32 = 2;

impl Containment {
    /// Somebody else did something on the account, as the stream or a read shows it.
    pub fn handle_foreign(&mut self, now: Time, created_at: Time, what: &str) {
        match self.aim {
            Aim::Kill => {}
            Aim::Freeze => return self.thaws_by(now, created_at, what),
            Aim::Release | Aim::Drill => return,
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
        for task in self.keys.values_mut() {
            task.doubt();
        }
        let blocked_before = self.blocked_at.is_some_and(|at| at + CLOCKS_APART < created_at);
        if blocked_before && self.means == Means::SubAccount && self.unexplained.is_none() {
            self.explain(now, what);
        }
    }

    fn explain(&mut self, now: Time, what: &str) {
        self.unexplained = Some((now, what.into()));
        self.blocked_at = None;
        self.list_soon(now);
    }

    /// A stranger's order came after every key was blocked. Either a key was made since, which a list that was asked for
    /// since then shows, or one of ours is somebody else's as well. What cannot be read explains nothing.
    pub(super) fn explain_by_list(&mut self, now: Time) {
        let Some((at, what)) = self.unexplained.clone() else { return };
        let read = self.list.read_of.is_some_and(|of| at <= of);
        if read {
            self.unexplained = None;
        }
        let others = self.keys.values().any(|task| task.goal != Goal::Keep && !task.is_blocked());
        let explained = if read { others } else { self.list.tries.failures < LISTS_BEFORE_OWN };
        if explained || self.aim != Aim::Kill || self.keys.values().all(|task| task.goal != Goal::Keep) {
            return;
        }
        for task in self.keys.values_mut().filter(|task| task.goal == Goal::Keep) {
            task.goal = Goal::Freeze;
        }
        let line = format!("{what}, after every key was blocked: countersign's own trading key is frozen too");
        self.say(now, format!("{line}, so what is open must be cancelled by hand"));
    }

    /// A frozen account stays frozen until somebody gives the rights back: whoever trades has a key that no list has shown.
    fn thaws_by(&mut self, now: Time, created_at: Time, what: &str) {
        let Some((_, End::Frozen)) = self.ended else { return };
        if self.blocked_at.is_none_or(|at| created_at < at) {
            return;
        }
        self.ended = None;
        self.list_wanted_of = Some(now);
        self.explain(now, what);
        self.say(now, format!("not frozen any more: {what}"));
    }

    /// From then on somebody else's order is another theft, and takes back no word.
    pub fn over_at(&self) -> Option<Time> {
        self.ended.filter(|_| self.aim == Aim::Kill).map(|(at, _)| at + REOPENS_WITHIN)
    }

    /// Its own key can cancel nothing any more.
    pub fn is_left_to_its_owner(&self) -> bool {
        self.aim == Aim::Kill
            && self.is_running()
            && self.keys.values().any(|task| task.own && task.goal == Goal::Freeze)
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
        let known = list_known && self.unexplained.is_none();
        let blocked = self.aim != Aim::Release && known && self.keys.values().all(KeyTask::is_blocked);
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
