//! Containment: what ends an incident, step by step, each step with its proof. A machine of its own: it is told the
//! time, what became of its acts and how the open orders stand, and gives the next acts.
//!
//! Invariants: it starts from the account, not from one key. An act that may have been done is not sent again before a
//! later read shows that it was not. *Contained* is said only if every key it aimed at is gone from the list and answers
//! as dead, the list shows declared keys alone, only spared orders were read twice, and nobody else has traded since.
//! Until then it goes on, and says *not contained*. Money is moved last, and what is not moved is said with the end.

mod tries;
mod key;
mod list;
mod orders;
mod sweep;
mod plan;
mod drill;
mod hook;
mod course;
mod end;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::act::{Act, KeyPrint};
use crate::kernel::blotter::OrderKey;
use crate::kernel::containment::hook::Hook;
use crate::kernel::containment::key::KeyTask;
use crate::kernel::containment::list::ListTask;
use crate::kernel::containment::orders::OrdersTask;
use crate::kernel::containment::sweep::Sweep;
use crate::kernel::event::EffectId;
use crate::kernel::incident::{IncidentId, Line};
use crate::kernel::order::Bot;
use crate::kernel::pairs;
use crate::kernel::stopping::{DeclaredKey, KeyRole, Means, Stopping};
use crate::kernel::time::Time;

pub use drill::DrillProgress;
pub use key::Goal;
pub use orders::Standing;
pub use plan::{PlanStep, Progress, StepState};

/// Lines kept; the oldest give way, and the journal has them.
const LINES_MAX: usize = 60;
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// Reversible: the keys lose every right.
    Freeze,
    /// Final: the keys are deleted, strangers' orders cancelled, the bot stopped.
    Kill,
    /// Gives back what freezing took.
    Release,
    /// The same way with one throw-away key, and with nothing else.
    Drill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    Frozen,
    Released,
    /// Everything is proved.
    Contained,
    /// The keys are gone from the list and their orders from the book, but no probe could count.
    RevokedUnprobed,
    /// The throw-away key is proved dead.
    Drilled,
    /// The drill ended without that proof; its last line says why.
    NotProved,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Containment {
    pub aim: Aim,
    pub incident: Option<IncidentId>,
    pub asked_by: Box<str>,
    pub started_at: Time,
    means: Means,
    quiet: Duration,
    keys: BTreeMap<KeyPrint, KeyTask>,
    /// The watch key: a list that does not show it is not this account's.
    witness: Option<KeyPrint>,
    list: ListTask,
    orders: OrdersTask,
    hooks: BTreeMap<Box<str>, Hook>,
    #[serde(with = "pairs")]
    under_way: BTreeMap<EffectId, Act>,
    /// When each of these counts as cut off.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    deadlines: BTreeSet<(Time, EffectId)>,
    /// Probes that were not answered in time: a living answer is worth having whenever it comes.
    #[serde(default, with = "pairs", skip_serializing_if = "BTreeMap::is_empty")]
    late_probes: BTreeMap<EffectId, KeyPrint>,
    /// Somebody else was active, and it has not been quiet for long enough since.
    last_foreign: Option<Time>,
    too_many_keys: bool,
    /// Whoever traded then may have done it with a key that no list before showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    list_wanted_of: Option<Time>,
    /// A stranger's order after every key was blocked, until a list has shown whose key it may have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unexplained: Option<(Time, Box<str>)>,
    /// Undeclared keys that their owner says are his.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    allowed: BTreeSet<KeyPrint>,
    /// What only somebody with the master's login can have done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    master_doubt: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sweep: Option<Sweep>,
    pub blocked_at: Option<Time>,
    pub orders_gone_at: Option<Time>,
    pub ended: Option<(Time, End)>,
    /// The containment before this one, in a sentence: what it proved stays true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<Box<str>>,
    lines: Vec<Line>,
}

/// Who asked for what.
#[derive(Clone, Debug)]
pub struct Asked {
    pub aim: Aim,
    pub by: Box<str>,
    pub incident: Option<IncidentId>,
}

impl Containment {
    /// `alive` says when each declared key last answered a call from this address.
    #[must_use]
    pub fn new(now: Time, asked: Asked, stopping: &Stopping, alive: &BTreeMap<KeyPrint, Time>) -> Self {
        let goal = |role: KeyRole| match (role, asked.aim, stopping.means) {
            (KeyRole::Watch | KeyRole::Cancel, ..) => Goal::Keep,
            (KeyRole::Drill, Aim::Drill, _) => Goal::Look,
            (KeyRole::Bot, Aim::Drill, _) => Goal::Keep,
            (KeyRole::Bot | KeyRole::Drill, _, Means::ByHand) => Goal::ByHand,
            (KeyRole::Bot | KeyRole::Drill, Aim::Freeze, Means::SubAccount) => Goal::Freeze,
            (KeyRole::Bot | KeyRole::Drill, Aim::Kill, Means::SubAccount) => Goal::Delete,
            // A release begins with what was frozen, not with what was declared.
            (KeyRole::Bot | KeyRole::Drill, Aim::Release, Means::SubAccount) => Goal::Keep,
        };
        let task = |key: &DeclaredKey| {
            let shown_alive_at = alive.get(&key.print).copied();
            (key.print.clone(), KeyTask::of(key, goal(key.role), shown_alive_at))
        };
        let hooks = stopping.hooks.iter().filter(|_| asked.aim == Aim::Kill);
        let mut containment = Self {
            aim: asked.aim,
            incident: asked.incident,
            asked_by: asked.by,
            started_at: now,
            means: stopping.means,
            quiet: stopping.quiet,
            keys: stopping.keys.iter().map(task).collect(),
            witness: stopping.keys.iter().find(|key| key.role == KeyRole::Watch).map(|key| key.print.clone()),
            list: ListTask::default(),
            orders: OrdersTask::default(),
            hooks: hooks.map(|name| (name.clone(), Hook::new(stopping.pauses(name)))).collect(),
            under_way: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            late_probes: BTreeMap::new(),
            last_foreign: None,
            too_many_keys: false,
            list_wanted_of: None,
            unexplained: None,
            allowed: BTreeSet::new(),
            master_doubt: None,
            sweep: (asked.aim == Aim::Kill && stopping.transfers()).then(|| Sweep::new(None)),
            blocked_at: None,
            orders_gone_at: None,
            ended: None,
            before: None,
            lines: Vec::new(),
        };
        let alive = |task: &KeyTask| {
            Some(format!("key {}: was alive when called from here at {}", task.name, task.shown_alive_at?))
        };
        let lines: Vec<String> = containment.keys.values().filter_map(alive).collect();
        lines.into_iter().for_each(|line| containment.say(now, line));
        containment
    }

    /// Another freeze, or a kill after a freeze or a release: what is known and under way stays.
    pub fn take_up(&mut self, now: Time, asked: Asked, stopping: &Stopping) {
        // Whoever asks now has asked for this, and its clocks are its own.
        (self.aim, self.started_at) = (asked.aim, now);
        self.incident = asked.incident.or(self.incident);
        self.ended = None;
        // Whoever made a key since is found before it is said again.
        self.list_wanted_of = Some(now);
        let goal = if self.aim == Aim::Kill { Goal::Delete } else { Goal::Freeze };
        for task in self.keys.values_mut().filter(|task| task.declared && task.is_aimed_at()) {
            task.take_up(if task.own { Goal::Keep } else { goal });
        }
        // What was given back to an allowed key is taken again, and what somebody wants deleted stays so.
        for task in self.keys.values_mut().filter(|task| !task.declared && task.goal != Goal::Delete) {
            task.take_up(Goal::Freeze);
        }
        if self.aim == Aim::Kill {
            for name in &stopping.hooks {
                self.hooks.entry(name.clone()).or_insert(Hook::new(stopping.pauses(name)));
            }
            let withheld = self.withheld();
            self.sweep = stopping.transfers().then(|| Sweep::new(withheld));
        }
        self.list.tries.again_at_once(now);
        self.say(now, format!("{}, asked for by {}", if self.aim == Aim::Kill { "kill" } else { "freeze" }, asked.by));
        self.asked_by = asked.by;
    }

    /// Gives the frozen keys that were declared their rights back. What is gone stays gone, and a stranger's key frozen.
    pub fn release(&mut self, now: Time, asked: &Asked) -> Result<(), String> {
        if self.aim == Aim::Kill && self.is_running() {
            return Err("the account is being killed, and that is not contained yet".to_owned());
        }
        if self.keys.values().any(|task| task.declared && task.is_being_deleted()) {
            return Err("a key is being deleted, which cannot be taken back".to_owned());
        }
        let is_given_back = |task: &&mut KeyTask| task.declared || task.allowed;
        if self.keys.values_mut().filter(is_given_back).any(|task| task.is_taken_blindly()) {
            return Err("what the freeze takes is not known yet: ask again in a moment".to_owned());
        }
        let given = self.keys.values_mut().filter(is_given_back);
        let lines: Vec<String> = given.filter_map(KeyTask::release).collect();
        if lines.is_empty() {
            return Err("no declared key is frozen: there is nothing to give back".to_owned());
        }
        self.aim = Aim::Release;
        self.sweep = None;
        self.ended = None;
        self.asked_by = asked.by.clone();
        self.list.tries.again_at_once(now);
        self.say(now, format!("released by {}: {}", asked.by, lines.join("; ")));
        Ok(())
    }

    /// Whether it was made for these declared keys. One that ended and was not says nothing of today's.
    pub fn is_of(&self, stopping: &Stopping) -> bool {
        let declared = self.keys.iter().filter(|(_, task)| task.declared).count();
        declared == stopping.keys.len() && stopping.keys.iter().all(|key| self.keys.contains_key(&key.print))
    }

    /// Other keys are declared since it ended. `true` if some of today's are frozen by it: only it knows what they had.
    pub fn declare(&mut self, stopping: &Stopping) -> bool {
        if self.is_running() {
            return false;
        }
        let names = |print: &KeyPrint| stopping.keys.iter().find(|key| key.print == *print);
        let is_held = |(print, task): (&KeyPrint, &KeyTask)| (task.allowed || names(print).is_some()) && task.is_held();
        if !self.keys.iter().any(is_held) {
            return false;
        }
        for (print, task) in &mut self.keys {
            task.declared = names(print).is_some();
        }
        for key in &stopping.keys {
            // A later freeze or kill is aimed at it.
            let task = || KeyTask::of(key, if key.is_own() { Goal::Keep } else { Goal::Thaw }, None);
            self.keys.entry(key.print.clone()).or_insert_with(task);
        }
        true
    }

    /// Whether we asked for the end of this order.
    pub fn cancels(&self, key: &OrderKey) -> bool {
        self.orders.cancels(key)
    }

    /// Whether the owner may name this key to be deleted as well.
    pub fn may_delete(&self, key: &KeyPrint) -> Result<(), &'static str> {
        match self.keys.get(key) {
            Some(task) if task.own || task.goal == Goal::Keep => Err("it is one of countersign's own keys"),
            Some(_) if self.means == Means::SubAccount => Ok(()),
            Some(_) => Err("no credential here may delete keys"),
            None => {
                Err("the exchange's list has not shown such a key: `countersign containment` shows the print of each")
            }
        }
    }

    /// The owner names an undeclared key that may be deleted.
    pub fn delete_too(&mut self, now: Time, key: &KeyPrint, by: &str) -> Result<(), &'static str> {
        self.may_delete(key)?;
        if let Some(task) = self.keys.get_mut(key) {
            task.goal = Goal::Delete;
            let line = format!("key {}: to be deleted, asked for by {by}", task.name);
            self.ended = None;
            self.say(now, line);
        }
        Ok(())
    }

    /// From now on these undeclared keys, and no others, are their owner's: frozen like the rest, and given back by a release.
    pub fn allow(&mut self, now: Time, keys: BTreeSet<KeyPrint>) {
        let mut lines = Vec::new();
        for (print, task) in self.keys.iter_mut().filter(|(_, task)| !task.declared) {
            let allowed = keys.contains(print);
            if std::mem::replace(&mut task.allowed, allowed) != allowed {
                let word = if allowed { "allowed: its owner says that it is his" } else { "no longer allowed" };
                lines.push(format!("key {}: {word}", task.name));
            }
        }
        self.allowed = keys;
        lines.into_iter().for_each(|line| self.say(now, line));
    }

    pub fn knows_undeclared(&self, key: &KeyPrint) -> bool {
        self.keys.get(key).is_some_and(|task| !task.declared)
    }

    pub fn is_running(&self) -> bool {
        self.ended.is_none()
    }

    /// Nothing more will come of it by itself.
    pub fn is_over(&self) -> Option<Time> {
        let stopped = self.hooks.values().all(Hook::is_proved);
        self.ended.map(|(at, _)| at).filter(|_| stopped)
    }

    /// Only who has the master's login, or a key of it, can have done this. No money goes there from then on.
    pub fn doubt_master(&mut self, now: Time, why: &str) {
        if self.master_doubt.is_some() {
            return;
        }
        self.master_doubt = Some(why.into());
        let Some(why) = self.withheld() else { return };
        if let Some(sweep) = self.sweep.as_mut().filter(|sweep| sweep.ended_at.is_none()) {
            sweep.withheld = Some(why.clone());
            self.say(now, format!("no money is moved to the master: {why}"));
        }
    }

    /// What it saw that only the master's login can have done: a later containment must know of it as well.
    pub fn master_doubt(&self) -> Option<&str> {
        self.master_doubt.as_deref()
    }

    fn withheld(&self) -> Option<Box<str>> {
        let why = self.master_doubt.as_ref()?;
        Some(format!("somebody else may hold the master's login ({why})").into())
    }

    /// A bot speaks to us; `announced` is when it wrote what it announces. Gives what to tell if a hook had said that it was
    /// stopped, and that is news. Where others may be meant, no hook is disproved before each has said so, and none proved.
    pub fn bot_spoke(&mut self, now: Time, bot: &Bot, announced: Option<Time>, alone: bool) -> Option<String> {
        if !alone && !self.hooks.values().all(|hook| hook.stopped.is_some() || hook.is_disproved()) {
            let mut lines = Vec::new();
            for (name, hook) in &mut self.hooks {
                if let Some(proof) = hook.doubt(now, announced) {
                    lines.push(format!(
                        "{name} said {proof:?}, which is no proof: bot {bot} still speaks, and it may be that one"
                    ));
                }
            }
            lines.into_iter().for_each(|line| self.say(now, line));
            return None;
        }
        let mut told = Vec::new();
        for (name, hook) in &mut self.hooks {
            if let Some(proof) = hook.bot_spoke(now, bot, announced) {
                told.push(format!("NOT STOPPED: bot {bot} still speaks to countersign, though {name} said {proof:?}"));
            }
        }
        told.iter().for_each(|line| self.say(now, line.clone()));
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// Once every way has worked, whoever speaks was not stopped by one of them.
    fn listen_anew(&mut self, now: Time) {
        if self.hooks.values().all(|hook| hook.stopped.is_some()) {
            self.hooks.values_mut().for_each(|hook| hook.listen_anew(now));
        }
    }

    pub fn wants_beats(&self) -> bool {
        self.hooks.values().any(Hook::wants_beats)
    }

    /// A way to stop it has only failed so far.
    pub(super) fn bot_is_not_stopped(&self) -> bool {
        self.hooks.values().any(|hook| hook.stopped.is_none() && hook.tries.failures > 0)
    }

    /// A bot that was said to be stopped still speaks.
    pub fn bot_still_speaks(&self) -> bool {
        self.hooks.values().any(Hook::is_disproved)
    }

    /// Goes on with what an earlier one has begun and cannot take back: the ways to stop the bot that are not proved yet.
    pub fn inherit(&mut self, before: Self) {
        let left = before.hooks.into_iter().filter(|(_, hook)| !hook.is_proved());
        self.hooks.extend(left);
        let stops = before.under_way.into_iter().filter(|(_, act)| matches!(act, Act::StopBot { .. }));
        self.under_way.extend(stops);
        let waited = before.deadlines.into_iter().filter(|(_, effect)| self.under_way.contains_key(effect));
        self.deadlines.extend(waited.collect::<Vec<_>>());
    }

    /// A drill has proved that this key is dead: nothing waits for it, unless a list shows it after all.
    pub fn is_gone(&mut self, now: Time, key: &KeyPrint) {
        self.with_key(key, |task| task.was_proved_dead(now));
    }

    /// Shows in the plan what the first acts would be.
    pub fn foresee(&mut self, standings: &BTreeMap<OrderKey, Standing>) {
        self.orders.foresee(standings);
    }

    /// What was contained before this, as [`Containment::told`] told it.
    pub fn follow(&mut self, now: Time, before: Box<str>) {
        self.say(now, format!("before this: {before}"));
        self.before = Some(before);
    }

    /// The process ended and started again: what was under way may have been done or not.
    pub fn handle_restart(&mut self, now: Time) {
        self.under_way.clear();
        self.deadlines.clear();
        self.late_probes.clear();
        self.list.tries.cut_off();
        // Keys may have been made while nobody looked.
        self.list_wanted_of = Some(now);
        self.orders.cut_off(now);
        self.keys.values_mut().for_each(|task| task.cut_off(now));
        self.hooks.values_mut().for_each(|hook| hook.cut_off(now));
        self.with_sweep(|sweep, _| sweep.cut_off());
    }

    /// What is not configured any more cannot be tried, and what stands there instead of it has not been.
    pub fn declare_hooks(&mut self, now: Time, stopping: Option<&Stopping>) {
        let is_named = |name: &str| stopping.is_some_and(|stopping| stopping.hooks.iter().any(|hook| **hook == *name));
        let gone = self.hooks.iter().filter(|(name, hook)| !hook.is_proved() && !is_named(name));
        let gone: Vec<Box<str>> = gone.map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.hooks.remove(name);
            self.say(now, format!("{name} is no way to stop the bot any more, by the configuration: tried no more"));
        }
        let Some(stopping) = stopping else { return };
        for (name, hook) in self.hooks.iter_mut().filter(|(_, hook)| !hook.is_proved()) {
            hook.pauses = stopping.pauses(name);
        }
        if !gone.is_empty() || self.aim == Aim::Kill && self.is_running() {
            for name in &stopping.hooks {
                self.hooks.entry(name.clone()).or_insert(Hook::new(stopping.pauses(name)));
            }
        }
        self.listen_anew(now);
    }

    fn say(&mut self, at: Time, text: String) {
        if self.lines.len() == LINES_MAX {
            self.lines.remove(0);
        }
        self.lines.push(Line { at, text: text.into() });
    }

    pub fn lines(&self) -> &[Line] {
        &self.lines
    }
}
