//! An account that was disarmed: nothing is done on it by itself until it is armed again, and nobody is left to forget it.
//!
//! Invariant: the configured mode stays the ceiling: arming gives back what that allows, and no more. What was asked for
//! by a person goes on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::account::authority::why_told;
use crate::kernel::account::{Kernel, Timer};
use crate::kernel::card::quoted;
use crate::kernel::command::{DISARMED_FOR_MAX, told_span};
use crate::kernel::incident::IncidentId;
use crate::kernel::time::Time;

/// It is told again after so long each time; then once a day.
const REMINDERS: [Duration; 3] =
    [Duration::from_secs(3_600), Duration::from_secs(4 * 3_600), Duration::from_secs(12 * 3_600)];
const DAILY: Duration = Duration::from_secs(86_400);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disarmed {
    pub by: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Box<str>>,
    pub at: Time,
    /// When it is armed again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    #[serde(default)]
    reminded: usize,
}

impl Kernel {
    /// Asked before a password is used up, and before another person is asked to approve.
    pub(super) fn may_disarm(&self, for_s: Option<u64>) -> Result<(), String> {
        if !self.acts_alone() {
            return Err("countersign does nothing by itself on this account: there is nothing to disarm".to_owned());
        }
        if for_s.is_some_and(|seconds| Duration::from_secs(seconds) > DISARMED_FOR_MAX) {
            return Err(format!("it can be disarmed for {} at the most", told_span(DISARMED_FOR_MAX)));
        }
        Ok(())
    }

    pub(super) fn disarm(&mut self, by: &str, why: Option<&str>, for_s: Option<u64>) -> Result<(), String> {
        self.may_disarm(for_s)?;
        let span = for_s.map(Duration::from_secs);
        let at = self.now();
        let until = span.map(|span| at + span);
        self.forget_disarming();
        self.state.trust.disarmed = Some(Disarmed { by: by.into(), why: why.map(Into::into), at, until, reminded: 0 });
        if let Some(span) = span {
            self.set_timer(span, Timer::ArmsAgain);
        }
        self.set_timer(REMINDERS[0], Timer::StillDisarmed);
        let account = quoted(self.declared.account.as_str());
        self.announce(format!(
            "{account} is DISARMED by {by}: countersign does nothing by itself {}. Why: {}. A freeze and a kill on \
             command work as before. If that was not you: countersign arm {account}, and find out who it was.",
            ends(until),
            why_told(why),
        ));
        Ok(())
    }

    pub(super) fn arm(&mut self, by: &str, why: Option<&str>) -> Result<(), String> {
        if self.state.trust.disarmed.is_none() {
            return Err("it is not disarmed".to_owned());
        }
        self.forget_disarming();
        let account = quoted(self.declared.account.as_str());
        self.announce(format!("{account} is armed again by {by}: {}. Why: {}.", self.stopping_told(), why_told(why)));
        Ok(())
    }

    pub(super) fn arm_by_itself(&mut self) {
        let now = self.now();
        if self.state.trust.disarmed.as_ref().is_some_and(|disarmed| disarmed.until.is_some_and(|until| until <= now)) {
            self.forget_disarming();
            let account = quoted(self.declared.account.as_str());
            self.announce(format!("{account} is armed again, its time is over: {}.", self.stopping_told()));
        }
    }

    pub(super) fn remind_of_disarming(&mut self) {
        let Some(disarmed) = &mut self.state.trust.disarmed else { return };
        disarmed.reminded = disarmed.reminded.saturating_add(1);
        let again = REMINDERS.get(disarmed.reminded).copied().unwrap_or(DAILY);
        self.set_timer(again, Timer::StillDisarmed);
        let account = quoted(self.declared.account.as_str());
        if let Some(told) = self.disarmed_told() {
            self.announce(format!("Reminder: {account} is {told}. To end that: countersign arm {account}"));
        }
    }

    fn forget_disarming(&mut self) {
        self.state.trust.disarmed = None;
        self.state.timers.retain(|(_, timer)| !matches!(timer, Timer::ArmsAgain | Timer::StillDisarmed));
    }

    pub(super) fn is_disarmed(&self) -> bool {
        self.state.trust.disarmed.is_some()
    }

    /// By whom, since when and why, for the card, the status and the reminders.
    pub(super) fn disarmed_told(&self) -> Option<String> {
        let disarmed = self.state.trust.disarmed.as_ref()?;
        Some(format!(
            "disarmed by {} at {} UTC: nothing is done by itself {}. Why: {}",
            disarmed.by,
            disarmed.at,
            ends(disarmed.until),
            why_told(disarmed.why.as_deref()),
        ))
    }

    /// Once on a card, however much is found.
    pub(super) fn show_disarmed(&mut self, incident: IncidentId) {
        let Some(told) = self.disarmed_told() else { return };
        let shown = self.state.book.notices().filter(|notice| notice.incident == incident);
        if !shown.flat_map(|notice| &notice.lines).any(|line| *line.text == *told) {
            let now = self.now();
            self.state.book.add_line(now, incident, told);
        }
    }
}

fn ends(until: Option<Time>) -> String {
    until.map_or_else(|| "until it is armed".to_owned(), |until| format!("until {until} UTC"))
}
