//! A drill's containment: one throw-away key on the same way as a stolen one, with a deadline and the time of each hop.
//!
//! Invariant: it keeps every other key as it is, reads no order, cancels none and stops no bot; it is made so in
//! [`Containment::new`], and nothing here widens it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::act::KeyPrint;
use crate::kernel::containment::key::{Goal, KeyTask, Listed};
use crate::kernel::containment::tries::Tries;
use crate::kernel::containment::{Aim, Containment, End};
use crate::kernel::incident::Line;
use crate::kernel::time::Time;

/// What is not proved by then, this drill does not prove.
const DRILL_WITHIN: Duration = Duration::from_secs(120);
/// A key that does not answer as alive from here is left as it is: its death would prove nothing.
const LOOKS_MAX: u32 = 3;

/// How far a drill's key is. Each time is microseconds since the drill was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillProgress {
    pub key: Box<str>,
    pub word: Box<str>,
    pub proved: bool,
    pub alive_us: Option<i64>,
    pub blocked_us: Option<i64>,
    /// Nothing where the exchange's own word on it was lost.
    pub deleted_us: Option<i64>,
    pub gone_us: Option<i64>,
    pub dead_us: Option<i64>,
    pub ended_us: Option<i64>,
    /// What was seen, in order; where it is not proved, the last one says why.
    pub lines: Vec<Line>,
}

impl Containment {
    pub fn drill_progress(&self) -> Option<DrillProgress> {
        let (_, task) = self.task()?;
        let since = |at: Option<Time>| at.map(|at| at.micros() - self.started_at.micros());
        let progress = self.progress();
        Some(DrillProgress {
            key: task.name.clone(),
            word: progress.word,
            proved: matches!(self.ended, Some((_, End::Drilled))),
            alive_us: since(task.shown_alive_at),
            blocked_us: since(self.blocked_at),
            deleted_us: since(task.deleted_at),
            gone_us: since(task.gone_at),
            dead_us: since(task.dead_at),
            ended_us: since(self.ended.map(|(at, _)| at)),
            lines: progress.lines,
        })
    }

    /// The key that is not there any more because of this drill.
    pub fn drilled_away(&self) -> Option<&KeyPrint> {
        self.task().filter(|(_, task)| task.goal == Goal::Delete && task.is_gone()).map(|(key, _)| key)
    }

    /// When its key answered as alive from here.
    pub fn drilled_alive(&self) -> Option<(&KeyPrint, Time)> {
        self.task().and_then(|(key, task)| Some((key, task.shown_alive_at?)))
    }

    /// The key that this drill may have deleted, as far as it was told.
    pub fn may_have_deleted(&self, key: &KeyPrint) -> bool {
        self.task().is_some_and(|(own, task)| own == key && task.may_be_deleted())
    }

    /// What a drill asked for about this key and was not told the end of.
    pub fn unsettle(&mut self, now: Time, key: &KeyPrint) {
        self.with_key(key, |task| task.unsettle(now));
    }

    pub fn drilled_key(&self) -> Option<&KeyPrint> {
        self.task().map(|(key, _)| key)
    }

    fn task(&self) -> Option<(&KeyPrint, &KeyTask)> {
        let mut keys = self.keys.iter().filter(|_| self.aim == Aim::Drill);
        keys.find(|(_, task)| matches!(task.goal, Goal::Look | Goal::Delete))
    }

    pub fn has_acts_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    pub(super) fn given_up_at(&self) -> Option<Time> {
        (self.aim == Aim::Drill).then_some(self.started_at + DRILL_WITHIN)
    }

    /// A look that was answered lets it go on; a key that cannot prove anything, or the deadline, ends it.
    pub(super) fn has_given_up(&mut self, now: Time) -> bool {
        let Some(task) = self.keys.values_mut().find(|task| matches!(task.goal, Goal::Look | Goal::Delete)) else {
            return false;
        };
        if task.goal == Goal::Look && task.shown_alive_at.is_some() && task.listed != Listed::Absent {
            // The rest between two looks is none before the first look at the dead key.
            (task.goal, task.probe) = (Goal::Delete, Tries::default());
        }
        let looked = task.goal == Goal::Look && task.looks >= LOOKS_MAX;
        let why = if task.goal == Goal::Look && task.listed == Listed::Absent {
            format!("the exchange's list does not show {}: make a new key and declare it", task.name)
        } else if looked && !task.probe.under_way {
            format!("{} did not answer as alive from this address, so it was left as it is{}", task.name, last(task))
        } else if now >= self.started_at + DRILL_WITHIN {
            let open: Vec<String> = self.open_steps();
            format!("{} s are over; not done: {}", DRILL_WITHIN.as_secs(), open.join("; "))
        } else {
            return false;
        };
        self.give_up(now, &why);
        true
    }

    fn open_steps(&self) -> Vec<String> {
        let open = |step: &super::PlanStep| step.state != super::StepState::Proved;
        let detail = |step: super::PlanStep| match step.detail {
            Some(detail) => format!("{} ({detail})", step.what),
            None => step.what.to_string(),
        };
        let steps: Vec<String> = self.steps().into_iter().filter(open).map(detail).collect();
        let list = self.list.tries.last.as_ref().map(|last| format!("read the list of keys ({last})"));
        steps.into_iter().chain(list).collect()
    }

    /// It ends here, unproved. What is under way is answered all the same.
    pub fn give_up(&mut self, now: Time, why: &str) {
        if self.ended.is_none() {
            self.ended = Some((now, End::NotProved));
            self.say(now, format!("NOT PROVED: {why}"));
        }
    }
}

fn last(task: &KeyTask) -> String {
    let last = task.last_probe.as_ref().or(task.probe.last.as_ref());
    last.map(|last| format!(" (last answer: {last})")).unwrap_or_default()
}
