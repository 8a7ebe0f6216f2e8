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
mod end;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::act::{Act, ActOutcome, KeyPrint, ProbeAnswer};
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
/// An act that has not been answered by then is found out about by reading: its task may have died, or its sending failed.
/// A call is given up after seconds, and a way to stop the bot after five minutes at the most.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
const READ_WITHIN: Duration = Duration::from_secs(20);
const STOPPED_WITHIN: Duration = Duration::from_secs(330);
/// More of them are forgotten: the key's end may then be *unprobed*.
const LATE_PROBES_MAX: usize = 64;

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
            let task = KeyTask::new(&key.name, true, goal(key.role), alive.get(&key.print).copied());
            (key.print.clone(), task)
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
            allowed: BTreeSet::new(),
            master_doubt: None,
            sweep: (asked.aim == Aim::Kill && stopping.transfers()).then(|| Sweep::new(None)),
            blocked_at: None,
            orders_gone_at: None,
            ended: None,
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
        let goal = if self.aim == Aim::Kill { Goal::Delete } else { Goal::Freeze };
        for task in self.keys.values_mut().filter(|task| task.declared && task.is_aimed_at()) {
            task.take_up(goal);
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

    /// Whether we asked for the end of this order.
    pub fn cancels(&self, key: &OrderKey) -> bool {
        self.orders.cancels(key)
    }

    /// Whether the owner may name this key to be deleted as well.
    pub fn may_delete(&self, key: &KeyPrint) -> Result<(), &'static str> {
        match self.keys.get(key) {
            Some(task) if task.goal == Goal::Keep => Err("it is one of countersign's own keys"),
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

    /// What to do now. Each act's outcome comes back under the effect that `name` gave it.
    pub fn poll(
        &mut self,
        now: Time,
        standings: &BTreeMap<OrderKey, Standing>,
        mut name: impl FnMut(usize) -> EffectId,
    ) -> Vec<Act> {
        self.cut_off_overdue(now);
        let stopped: Vec<String> = self.hooks.iter_mut().filter_map(|(name, hook)| hook.heard_out(now, name)).collect();
        stopped.into_iter().for_each(|line| self.say(now, line));
        let mut acts = Vec::new();
        if self.ended.is_none() {
            // The keys first: an outlet takes its acts in this order.
            acts.extend(self.keys.iter().flat_map(|(key, task)| task.next(now, key, self.list.tries.failures)));
            if self.wants_list() && self.list.tries.is_ready(now) {
                self.list.asked_at = Some(now);
                acts.push(Act::ListKeys);
            }
            if self.aim == Aim::Kill {
                acts.extend(self.orders.next(now, standings));
            }
            if let Some(sweep) = self.sweep.as_ref().filter(|_| self.reached().is_some()) {
                acts.extend(sweep.next(now, self.started_at));
            }
        }
        // A bot that cannot be stopped keeps nothing from being contained, and is tried on.
        let hooks = self.hooks.iter().filter(|(_, hook)| hook.stopped.is_none() && hook.tries.is_ready(now));
        acts.extend(hooks.map(|(hook, _)| Act::StopBot { hook: hook.clone() }));
        for (index, act) in acts.iter().enumerate() {
            self.sent(act);
            let within = if matches!(act, Act::StopBot { .. }) {
                STOPPED_WITHIN
            } else if matches!(act, Act::ListKeys | Act::OpenOrders) {
                // Everything else waits for these.
                READ_WITHIN
            } else {
                ANSWERED_WITHIN
            };
            self.under_way.insert(name(index), act.clone());
            self.deadlines.insert((now + within, name(index)));
        }
        acts
    }

    /// What is answered after this is not listened to, but for a living answer: the reading that follows shows what came of it.
    fn cut_off_overdue(&mut self, now: Time) {
        while let Some((_, effect)) = self.deadlines.first().filter(|(at, _)| *at <= now).copied() {
            if let Some(Act::Probe { key }) = self.under_way.get(&effect)
                && self.late_probes.len() < LATE_PROBES_MAX
            {
                self.late_probes.insert(effect, key.clone());
            }
            let reason = "no answer came in time".into();
            self.handle_outcome(now, effect, &ActOutcome::Unknown { reason }, &BTreeMap::new());
        }
    }

    fn sent(&mut self, act: &Act) {
        match act {
            Act::ListKeys => self.list.tries.sent(),
            Act::OpenOrders => self.orders.read.sent(),
            Act::CancelOrder { symbol, order_id } => self.orders.sent(&(symbol.clone(), *order_id)),
            Act::SetRights { key, rights } => self.with_key(key, |task| task.sets_rights(*rights)),
            Act::DeleteKey { key } => self.with_key(key, |task| task.delete.sent()),
            Act::Probe { key } => self.with_key(key, |task| task.probe.sent()),
            Act::StopBot { hook } => {
                if let Some(hook) = self.hooks.get_mut(hook) {
                    hook.tries.sent();
                }
            }
            // Of a sale, and never asked for here.
            Act::Quote { .. } | Act::Sell { .. } | Act::FindOrder { .. } => {}
            Act::Balances => self.with_sweep(|sweep, _| sweep.read.sent()),
            Act::Transfer { id, .. } | Act::FindTransfer { id } => {
                self.with_sweep(|sweep, started_at| sweep.sent(started_at, id));
            }
        }
    }

    fn with_sweep(&mut self, change: impl FnOnce(&mut Sweep, Time)) {
        if let Some(sweep) = &mut self.sweep {
            change(sweep, self.started_at);
        }
    }

    fn with_key(&mut self, key: &KeyPrint, change: impl FnOnce(&mut KeyTask)) {
        if let Some(task) = self.keys.get_mut(key) {
            change(task);
        }
    }

    /// When `poll` has something to do without anything happening.
    pub fn due(&self, standings: &BTreeMap<OrderKey, Standing>) -> Option<Time> {
        let overdue = self.deadlines.first().map(|(at, _)| *at);
        let hooks = self.hooks.values().filter_map(Hook::due);
        if self.ended.is_some() {
            return hooks.chain(overdue).min();
        }
        let keys = self.keys.values().filter_map(|task| task.due(self.list.tries.failures));
        let list = self.list.tries.ready_at().filter(|_| self.wants_list());
        let orders = self.orders.due(standings).filter(|_| self.aim == Aim::Kill);
        let quiet = self.last_foreign.map(|at| at + self.quiet).filter(|_| self.orders.gone_at.is_some());
        let sweep = self.sweep.as_ref().and_then(Sweep::due).filter(|_| self.reached().is_some());
        let limits = [sweep, self.given_up_at(), overdue].into_iter().flatten();
        keys.chain(list).chain(hooks).chain(orders).chain(quiet).chain(limits).min()
    }

    /// The act that an outcome belongs to, if it is one of this containment's.
    pub fn asked(&self, effect: EffectId) -> Option<&Act> {
        self.under_way.get(&effect)
    }

    /// An answer that nobody waits for any more. That a key was alive when called from here stays true.
    fn late(&mut self, now: Time, effect: EffectId, outcome: &ActOutcome) {
        let Some(key) = self.late_probes.remove(&effect) else { return };
        if let ActOutcome::Probed(answers) = outcome
            && answers.iter().any(|answer| matches!(answer, ProbeAnswer::Alive { .. }))
        {
            self.with_key(&key, |task| task.shown_alive_at = task.shown_alive_at.or(Some(now)));
        }
    }

    /// What became of an act. `shown` says how the orders stand that a read of them showed.
    pub fn handle_outcome(
        &mut self,
        now: Time,
        effect: EffectId,
        outcome: &ActOutcome,
        shown: &BTreeMap<OrderKey, Standing>,
    ) {
        self.deadlines.retain(|(_, waiting)| *waiting != effect);
        let Some(act) = self.under_way.remove(&effect) else { return self.late(now, effect, outcome) };
        let line = match &act {
            Act::ListKeys => {
                self.list_read(now, outcome);
                None
            }
            Act::SetRights { key, .. } => self.keys.get_mut(key).and_then(|task| task.changed(now, false, outcome)),
            Act::DeleteKey { key } => self.keys.get_mut(key).and_then(|task| task.changed(now, true, outcome)),
            Act::Probe { key } => self.keys.get_mut(key).and_then(|task| task.probed(now, outcome)),
            Act::OpenOrders => self.orders.read(now, outcome, shown, self.blocked_at, self.quiet),
            Act::CancelOrder { symbol, order_id } => self.orders.cancelled(now, &(symbol.clone(), *order_id), outcome),
            Act::StopBot { hook } => self.hooks.get_mut(hook).and_then(|task| task.ended(now, hook, outcome)),
            Act::Quote { .. } | Act::Sell { .. } | Act::FindOrder { .. } => None,
            Act::Balances => {
                self.with_sweep(|sweep, _| sweep.read(now, outcome));
                None
            }
            Act::Transfer { id, .. } | Act::FindTransfer { id } => {
                let started_at = self.started_at;
                self.sweep.as_mut().and_then(|sweep| sweep.answered(now, started_at, id, outcome))
            }
        };
        if let Some(line) = line {
            self.say(now, line);
        }
        if self.keys.values().any(KeyTask::wants_list) {
            self.list_soon(now);
        }
        self.settle(now);
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
    /// stopped, and that is news. Where others may be meant, no hook is disproved before each has said so.
    pub fn bot_spoke(&mut self, now: Time, bot: &Bot, announced: Option<Time>, alone: bool) -> Option<String> {
        if !alone && !self.hooks.values().all(|hook| hook.stopped.is_some() || hook.is_disproved()) {
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
