//! How a containment goes on: the next acts, what became of them, and when something is due by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kernel::act::{Act, ActOutcome, KeyPrint, ProbeAnswer};
use crate::kernel::blotter::OrderKey;
use crate::kernel::containment::hook::Hook;
use crate::kernel::containment::key::KeyTask;
use crate::kernel::containment::orders::Standing;
use crate::kernel::containment::sweep::Sweep;
use crate::kernel::containment::{Aim, Containment};
use crate::kernel::event::EffectId;
use crate::kernel::time::Time;

/// An act that has not been answered by then is found out about by reading: its task may have died, or its sending failed.
/// A call is given up after seconds, and a way to stop the bot after five minutes at the most.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
const READ_WITHIN: Duration = Duration::from_secs(20);
const STOPPED_WITHIN: Duration = Duration::from_secs(330);
/// More of them are forgotten: the key's end may then be *unprobed*.
const LATE_PROBES_MAX: usize = 64;

impl Containment {
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

    pub(super) fn with_sweep(&mut self, change: impl FnOnce(&mut Sweep, Time)) {
        if let Some(sweep) = &mut self.sweep {
            change(sweep, self.started_at);
        }
    }

    pub(super) fn with_key(&mut self, key: &KeyPrint, change: impl FnOnce(&mut KeyTask)) {
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
            Act::StopBot { hook } => {
                let line = self.hooks.get_mut(hook).and_then(|task| task.ended(now, hook, outcome));
                self.listen_anew(now);
                line
            }
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
}
