//! The containment of a drill: the throw-away key goes the way of a stolen one, by the very machine and acts that would
//! stop a theft, in a slot of its own.
//!
//! Invariants: it counts nowhere, touches no other key and no order, and never stands in a real containment's way: that
//! one ends it at once and finds out by reading what was under way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kernel::account::contain::{LINES_ON_CARD, POLL_GAP};
use crate::kernel::account::{Kernel, Timer};
use crate::kernel::act::{ActOutcome, KeyPrint, KeyRow};
use crate::kernel::containment::{Aim, Asked, Containment, DrillProgress, End};
use crate::kernel::event::{Effect, EffectId};
use crate::kernel::incident::{Contained, IncidentId};
use crate::kernel::rule::Cause;
use crate::kernel::stopping::Means;

const NO_DRILL_KEY: &str = "no drill key: make a new one and declare it ([[containment.key]] with drill = true)";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Rehearsal {
    /// The drill that runs, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kill: Option<Box<Containment>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incident: Option<IncidentId>,
    /// The key that a drill made useless: that the list does not show it is no finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spent: Option<KeyPrint>,
}

impl Rehearsal {
    pub(super) fn is_unused(&self) -> bool {
        self.kill.is_none() && self.spent.is_none()
    }

    pub(super) const fn spent(&self) -> Option<&KeyPrint> {
        self.spent.as_ref()
    }

    pub(super) fn is_spent(&self, key: &KeyPrint) -> bool {
        self.spent.as_ref() == Some(key)
    }

    /// A list read while nothing is wrong tells what became of a deletion whose answer never came.
    pub(super) fn note_list(&mut self, rows: &[KeyRow]) {
        let shows = |key: &KeyPrint| rows.iter().any(|row| row.key == *key);
        self.spent.take_if(|spent| shows(spent));
        if let Some(kill) = &self.kill
            && let Some(key) = kill.drilled_key()
            && !shows(key)
            && kill.may_have_deleted(key)
        {
            self.spent = Some(key.clone());
        }
    }
}

impl Kernel {
    /// How far the last drill's containment is.
    pub fn drill_progress(&self) -> Option<DrillProgress> {
        self.state.stop.rehearsal.kill.as_ref().and_then(|kill| kill.drill_progress())
    }

    pub(super) fn is_rehearsing(&self) -> bool {
        self.state.stop.rehearsal.kill.as_ref().is_some_and(|kill| kill.is_running())
    }

    pub(super) fn may_rehearse(&self) -> Result<(), String> {
        let stopping = self.may_stop().map_err(|_| {
            "the mode is \"watch\": nothing that could freeze or delete a key is loaded, so there is nothing to rehearse"
        })?;
        if stopping.means != Means::SubAccount {
            return Err(
                "no sub_account is configured: no API deletes a key of one's own account, so none can be drilled"
                    .to_owned(),
            );
        }
        match &self.state.stop.containment {
            Some(real) if real.is_running() => {
                return Err("a real containment is under way: no drill beside it".to_owned());
            }
            Some(real) if real.ended.is_some_and(|(_, end)| end != End::Released) => {
                return Err(format!("the account is {}: no drill until that is over", real.progress().word));
            }
            Some(_) | None if self.is_rehearsing() => {
                return Err("a drill is under way: its key is not at its end yet".to_owned());
            }
            Some(_) | None => {}
        }
        let key = stopping.drill_key().ok_or(NO_DRILL_KEY)?;
        if self.state.stop.rehearsal.is_spent(&key.print) {
            return Err(format!("{} was made useless by a drill before; {NO_DRILL_KEY}", key.name));
        }
        Ok(())
    }

    pub(super) fn rehearse_kill(&mut self, by: &str, incident: IncidentId) {
        let Some(stopping) = self.declared.stopping.clone() else { return };
        let asked = Asked { aim: Aim::Drill, by: by.into(), incident: Some(incident) };
        // Looked at anew, whatever an earlier look saw: a drill shows the whole way.
        let mut kill = Containment::new(self.now(), asked, &stopping, &BTreeMap::new());
        kill.allow(self.now(), self.owners_keys());
        self.state.stop.rehearsal.kill = Some(Box::new(kill));
        self.state.stop.rehearsal.incident = Some(incident);
    }

    /// Whether the outcome was of one of its acts.
    pub(super) fn rehearsed(&mut self, effect: EffectId, outcome: &ActOutcome) -> bool {
        let now = self.now();
        let stop = &mut self.state.stop;
        let Some(kill) = stop.rehearsal.kill.as_mut().filter(|kill| kill.asked(effect).is_some()) else { return false };
        let doubted = kill.master_doubt().is_some();
        kill.handle_outcome(now, effect, outcome, &BTreeMap::new());
        let doubt = kill.master_doubt().filter(|_| !doubted).map(str::to_owned);
        if let Some((key, at)) = kill.drilled_alive() {
            // A later probe of the dead key counts in a real containment as well.
            stop.alive.insert(key.clone(), at);
        }
        if let Some(key) = kill.drilled_away() {
            stop.rehearsal.spent = Some(key.clone());
        }
        doubt.into_iter().for_each(|what| self.signs_of_master(now, &what));
        self.show_rehearsal();
        true
    }

    /// A real containment has begun.
    pub(super) fn give_way(&mut self) {
        let now = self.now();
        let stop = &mut self.state.stop;
        let Some(kill) = stop.rehearsal.kill.as_mut().filter(|kill| kill.is_running()) else { return };
        kill.give_up(now, "a real containment began, and has the key now");
        if let (Some(real), Some(key)) = (&mut stop.containment, kill.drilled_key())
            && kill.has_acts_under_way()
        {
            real.unsettle(now, key);
        }
        self.show_rehearsal();
    }

    /// One for a key that is declared no more has nothing to go on with.
    pub(super) fn restart_rehearsal(&mut self) {
        let now = self.now();
        let today = self.may_stop().ok().and_then(|stopping| stopping.drill_key()).map(|key| key.print.clone());
        let rehearsal = &mut self.state.stop.rehearsal;
        rehearsal.spent.take_if(|spent| today.as_ref() != Some(spent));
        let of_today = |kill: &Containment| kill.drilled_key().is_some_and(|key| today.as_ref() == Some(key));
        match &mut rehearsal.kill {
            Some(kill) if of_today(kill) => kill.handle_restart(now),
            Some(_) | None => rehearsal.kill = None,
        }
    }

    pub(super) fn drive_rehearsal(&mut self) {
        if !self.is_rehearsing() {
            return;
        }
        // A copy, so that a fault in here loses no drill.
        let Some(mut kill) = self.state.stop.rehearsal.kill.clone() else { return };
        let (now, seq) = self.moment();
        kill.settle(now);
        let before = self.effects.len();
        let name = |index| EffectId { cause: seq, index: u32::try_from(before + index).unwrap_or(u32::MAX) };
        let acts = kill.poll(now, &BTreeMap::new(), name);
        self.effects.extend(acts.into_iter().map(Effect::Act));
        self.state.timers.retain(|(_, timer)| *timer != Timer::Rehearse);
        if let Some(due) = kill.due(&BTreeMap::new()) {
            self.state.timers.insert((due.max(now + POLL_GAP), Timer::Rehearse));
        }
        self.state.stop.rehearsal.kill = Some(kill);
        self.show_rehearsal();
    }

    fn show_rehearsal(&mut self) {
        let rehearsal = &self.state.stop.rehearsal;
        let (Some(kill), Some(id)) = (&rehearsal.kill, rehearsal.incident) else { return };
        let progress = kill.progress();
        let from = progress.lines.len().saturating_sub(LINES_ON_CARD);
        let shown = Contained {
            word: progress.word,
            asked_by: progress.asked_by,
            blocked_ms: progress.blocked_ms,
            orders_gone_ms: None,
            over_at: None,
            lines: progress.lines[from..].to_vec(),
            lines_left_out: from,
        };
        self.state.book.contain(id, shown, &[]);
    }

    /// What the drill that is shown now came to.
    pub(super) fn rehearsed_word(&self) -> Option<Box<str>> {
        let rehearsal = &self.state.stop.rehearsal;
        let open = self.state.book.open_id(Cause::Drill, "");
        rehearsal
            .kill
            .as_ref()
            .filter(|_| open.is_some() && open == rehearsal.incident)
            .map(|kill| kill.progress().word)
    }

    /// What stands in `status`: only where there is something to do about it.
    pub(super) fn drill_key_told(&self) -> Option<String> {
        let key = self.declared.stopping.as_ref().and_then(|stopping| stopping.drill_key())?;
        self.state.stop.rehearsal.is_spent(&key.print).then(|| NO_DRILL_KEY.to_owned())
    }
}
