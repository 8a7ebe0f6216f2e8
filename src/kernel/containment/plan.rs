//! A containment as people see it: the same steps before it runs, while it runs, and after.

use serde::{Deserialize, Serialize};

use crate::kernel::act::KeyPrint;
use crate::kernel::containment::hook::Hook;
use crate::kernel::containment::key::{Goal, KeyTask, Listed};
use crate::kernel::containment::sweep::Sweep;
use crate::kernel::containment::tries::{LOUD_AFTER, Tries};
use crate::kernel::containment::{Aim, Containment, End};
use crate::kernel::incident::{IncidentId, Line};
use crate::kernel::stopping::Means;
use crate::kernel::time::Time;

/// `what` is done once `after` holds, and is done when `proof` is there; `on_failure` says what happens until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStep {
    pub what: Box<str>,
    pub after: Box<str>,
    pub proof: Box<str>,
    pub on_failure: Box<str>,
    pub state: StepState,
    /// What is known of it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    Waiting,
    UnderWay,
    /// It failed often, and is tried on.
    Failing,
    Proved,
    /// Done as far as can be seen from here, and not proved.
    NotProved,
}

/// How far it is, in the words of every channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub word: Box<str>,
    pub aim: Aim,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    pub asked_by: Box<str>,
    pub started_at: Time,
    /// Two clocks, never one: until no new order was possible, and until no stranger's order was open.
    pub blocked_ms: Option<i64>,
    pub orders_gone_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    pub end: Option<End>,
    /// It is soon known whether the bot is stopped; the end does not wait for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bot_is_being_stopped: bool,
    pub steps: Vec<PlanStep>,
    /// The containment before this one, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<str>>,
    /// What was seen, in order.
    pub lines: Vec<Line>,
}

impl Containment {
    #[must_use]
    pub fn progress(&self) -> Progress {
        // What an earlier freeze had done already took no time.
        let since = |at: Time| (at.millis() - self.started_at.millis()).max(0);
        let money_left = self.sweep.as_ref().is_some_and(|sweep| !sweep.is_whole());
        let word = match self.ended {
            None if self.aim == Aim::Freeze => "not frozen yet",
            None if self.aim == Aim::Release => "not released yet",
            None if self.aim == Aim::Drill => "drill: not proved yet",
            None => "not contained",
            Some((_, End::Frozen)) => "frozen",
            Some((_, End::Released)) => "released",
            Some((_, End::Contained)) if money_left => "contained; not all money was moved",
            Some((_, End::RevokedUnprobed)) if money_left => "revoked, unprobed; not all money was moved",
            Some((_, End::Contained)) => "contained",
            Some((_, End::RevokedUnprobed)) => "revoked, unprobed",
            Some((_, End::Drilled)) => "drill: the key is proved dead",
            Some((_, End::NotProved)) => "drill: not proved",
        };
        let bot = match self.ended {
            _ if self.bot_still_speaks() => "; the bot still speaks",
            Some((_, End::Contained | End::RevokedUnprobed)) if self.bot_is_not_stopped() => "; the bot is not stopped",
            Some(_) | None => "",
        };
        Progress {
            word: format!("{word}{bot}").into(),
            aim: self.aim,
            incident: self.incident,
            asked_by: self.asked_by.clone(),
            started_at: self.started_at,
            blocked_ms: self.blocked_at.map(since),
            orders_gone_ms: self.orders_gone_at.map(since),
            ended_ms: self.ended.map(|(at, _)| since(at)),
            end: self.ended.map(|(_, end)| end),
            bot_is_being_stopped: self.hooks.values().any(Hook::is_awaited),
            steps: self.steps(),
            before: self.before.clone(),
            lines: self.lines.clone(),
        }
    }

    /// In a sentence, for when another takes its place.
    #[must_use]
    pub fn told(&self) -> Box<str> {
        let Progress { word, aim, asked_by, started_at, blocked_ms, orders_gone_ms, .. } = self.progress();
        let what = match aim {
            Aim::Freeze => "freeze",
            Aim::Kill => "kill",
            Aim::Release => "resume",
            Aim::Drill => "drill",
        };
        let clock = |what: &str, ms: Option<i64>| {
            ms.map(|ms| format!("; {what} after {}.{:03} s", ms / 1_000, ms % 1_000)).unwrap_or_default()
        };
        let blocked = clock("new orders blocked", blocked_ms.filter(|_| aim != Aim::Release));
        let gone = clock("strangers' orders gone", orders_gone_ms.filter(|_| aim == Aim::Kill));
        format!("{what} at {started_at} UTC, asked for by {asked_by}: {word}{blocked}{gone}").into()
    }

    #[must_use]
    pub fn steps(&self) -> Vec<PlanStep> {
        let mut steps = Vec::new();
        for (print, task) in &self.keys {
            match task.goal {
                Goal::Keep => {}
                // Declared since, and never frozen.
                Goal::Thaw if task.rights_before.is_none() => {}
                Goal::ByHand => steps.push(by_hand(task, self.aim)),
                Goal::Freeze => steps.push(freeze(print, task)),
                Goal::Thaw => steps.push(thaw(task)),
                Goal::Look | Goal::Delete => steps.extend([freeze(print, task), delete(task), prove(task)]),
            }
        }
        if self.means == Means::SubAccount && !matches!(self.aim, Aim::Release | Aim::Drill) {
            steps.push(self.list_step());
        }
        if self.aim == Aim::Kill {
            steps.extend(self.hooks.iter().map(|(name, hook)| stop_step(name, hook)));
            steps.extend([self.cancel_step(), self.gone_step()]);
            steps.extend(self.sweep.as_ref().map(sweep_step));
        }
        steps
    }

    fn list_step(&self) -> PlanStep {
        let strangers = self.keys.values().filter(|task| task.is_strangers() && task.listed != Listed::Absent);
        let strangers: Vec<&str> = strangers.map(|task| &*task.name).collect();
        let detail = match (&strangers[..], &self.list.tries.last) {
            _ if self.too_many_keys => Some("more keys are listed than are followed".into()),
            ([], last) => last.clone(),
            (names, _) => Some(
                format!(
                    "not declared, frozen, yours to decide on (`kill … --key PRINT` deletes one, `allow … PRINT WHY` says \
                     that it is yours): {}",
                    names.join(", ")
                )
                .into(),
            ),
        };
        let read = self.list.read_of.is_some_and(|of| self.blocked_at.is_some_and(|at| of >= at));
        PlanStep {
            what: "freeze every key of the account that is not declared".into(),
            after: "at once, and every 10 s until the end".into(),
            proof: "the exchange's list shows declared keys alone".into(),
            on_failure: "an undeclared key is kept frozen and asked about; never deleted unasked".into(),
            state: if read && strangers.is_empty() && !self.too_many_keys {
                StepState::Proved
            } else {
                state_of(&self.list.tries)
            },
            detail,
        }
    }

    fn cancel_step(&self) -> PlanStep {
        let left = self.orders.left();
        let done = self.orders.gone_at.is_some();
        let held_up = match self.orders.cancel_failure().filter(|_| !done) {
            _ if self.is_left_to_its_owner() => "; countersign's own key is frozen: cancel them by hand".to_owned(),
            Some(failure) => format!("; {failure}"),
            None => String::new(),
        };
        PlanStep {
            what: "cancel every open order that is not your bot's, and was not there before".into(),
            after: "at once, order by order".into(),
            proof: "they are in no read of the open orders".into(),
            on_failure: "tried on, inside 70 % of the request weight".into(),
            state: match (done, self.orders.has_begun()) {
                (true, _) => StepState::Proved,
                (false, true) => StepState::UnderWay,
                (false, false) => StepState::Waiting,
            },
            detail: Some(
                format!("{} cancelled, {left} to go, {} spared{held_up}", self.orders.cancelled, self.orders.spared)
                    .into(),
            ),
        }
    }

    fn gone_step(&self) -> PlanStep {
        PlanStep {
            what: format!("read the open orders twice, {} s apart", self.quiet.as_secs()).into(),
            after: "new orders are blocked".into(),
            proof: "both reads show spared orders only".into(),
            on_failure: "a failed read counts as unknown, and is made again".into(),
            state: if self.orders.gone_at.is_some() { StepState::Proved } else { state_of(&self.orders.read) },
            detail: self.orders.read.last.clone(),
        }
    }
}

fn stop_step(name: &str, hook: &Hook) -> PlanStep {
    PlanStep {
        what: format!("stop the bot: {name}").into(),
        after: "at once".into(),
        proof: "the hook's own answer, and no bot speaks any more".into(),
        on_failure: "tried on until it works; meanwhile stop the bot by hand".into(),
        state: match (hook.is_disproved() || hook.is_doubted(), hook.stopped.is_some()) {
            (true, _) => StepState::NotProved,
            (false, true) if hook.is_proved() => StepState::Proved,
            (false, true) => StepState::UnderWay,
            (false, false) => state_of(&hook.tries),
        },
        detail: hook.told().filter(|text| !text.is_empty()),
    }
}

fn sweep_step(sweep: &Sweep) -> PlanStep {
    PlanStep {
        what: "move the free money of the sub-account to the master".into(),
        after: "everything above is proved, and nothing points at the master's login".into(),
        proof: "the balances, read again, show nothing free".into(),
        on_failure: "an unanswered transfer is looked up by its id; what was refused three times is left, and told"
            .into(),
        state: match (sweep.ended_at, sweep.is_whole()) {
            (Some(_), true) => StepState::Proved,
            (Some(_), false) => StepState::NotProved,
            (None, _) if sweep.has_begun() => StepState::UnderWay,
            (None, _) => StepState::Waiting,
        },
        detail: match (&sweep.withheld, sweep.has_begun()) {
            (_, true) => Some(sweep.told().into()),
            (withheld, false) => withheld.clone(),
        },
    }
}

fn state_of(tries: &Tries) -> StepState {
    match tries {
        Tries { failures, .. } if *failures >= LOUD_AFTER => StepState::Failing,
        Tries { under_way: false, failures: 0, .. } => StepState::Waiting,
        Tries { .. } => StepState::UnderWay,
    }
}

/// What a step waits for, until it is done: what once failed says nothing of what is proved.
fn held_up(state: StepState, tries: &Tries) -> Option<Box<str>> {
    tries.last.clone().filter(|_| state != StepState::Proved)
}

fn freeze(print: &KeyPrint, task: &KeyTask) -> PlanStep {
    let name = if task.declared { format!("{} ({print})", task.name) } else { task.name.to_string() };
    let state = if task.is_blocked() { StepState::Proved } else { state_of(&task.freeze) };
    PlanStep {
        what: format!("freeze key {name}: no right to trade or to move money is left").into(),
        after: "at once".into(),
        proof: "the exchange says so, or its list shows no right".into(),
        on_failure: "tried on; after two failures the next step does not wait for it".into(),
        state,
        detail: held_up(state, &task.freeze),
    }
}

fn thaw(task: &KeyTask) -> PlanStep {
    let rights = task.rights_before.map(|rights| rights.to_string()).unwrap_or_default();
    let state = if task.is_done() { StepState::Proved } else { state_of(&task.freeze) };
    PlanStep {
        what: format!("give key {} back: {rights}", task.name).into(),
        after: "at once".into(),
        proof: "the exchange's list shows rights again".into(),
        on_failure: "tried on".into(),
        state,
        detail: held_up(state, &task.freeze),
    }
}

fn delete(task: &KeyTask) -> PlanStep {
    let state = if task.listed == Listed::Absent { StepState::Proved } else { state_of(&task.delete) };
    PlanStep {
        what: format!("delete key {}", task.name).into(),
        after: "it is frozen, and was seen alive from here (or two looks failed)".into(),
        proof: "the exchange's list does not show it".into(),
        on_failure: "the list is read before it is tried again".into(),
        state,
        detail: held_up(state, &task.delete),
    }
}

fn prove(task: &KeyTask) -> PlanStep {
    let state = match (task.dead_at.is_some(), task.is_probed()) {
        (true, true) => StepState::Proved,
        (true, false) => StepState::NotProved,
        (false, _) => state_of(&task.probe),
    };
    PlanStep {
        what: format!("prove that key {} is dead", task.name).into(),
        after: "the list does not show it".into(),
        proof: "two unlike calls with it get a dead key's codes, from an address where it was seen alive".into(),
        on_failure: "asked again every 2 s; without a living answer before, the end is \"revoked, unprobed\"".into(),
        state,
        detail: task.last_probe.clone().or(task.probe.last.clone()),
    }
}

fn by_hand(task: &KeyTask, aim: Aim) -> PlanStep {
    let on_failure = match aim {
        Aim::Kill => "strangers' orders are cancelled again and again until it is dead",
        Aim::Freeze | Aim::Release | Aim::Drill => "it can trade on: a kill cancels strangers' orders meanwhile",
    };
    PlanStep {
        what: format!(
            "YOU delete key {}: https://www.binance.com/en/my/settings/api-management (app: Profile, API Management). \
             This cannot be done by API.",
            task.name
        )
        .into(),
        after: "at once".into(),
        proof: "two unlike calls with it get a dead key's codes, from an address where it was seen alive".into(),
        on_failure: on_failure.into(),
        state: if task.dead_at.is_some() { StepState::Proved } else { StepState::Waiting },
        detail: task.last_probe.clone(),
    }
}
