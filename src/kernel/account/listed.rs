//! The account's keys while nothing is wrong: what a kill would miss, or reach without knowing it, is told beforehand.

use std::time::Duration;

use crate::kernel::account::{Kernel, Timer};
use crate::kernel::act::{Act, ActOutcome, KeyPrint, KeyRow};
use crate::kernel::card::quoted;
use crate::kernel::containment::Aim;
use crate::kernel::incident::Priority;
use crate::kernel::rule::Cause;
use crate::kernel::stopping::{DeclaredKey, KeyRole, Means};

/// A key that was seen alive from here lets the probes of a later kill count.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

const NOT_LISTED: &[&str] = &[
    "Compare sub_account, the cancel key and every [[containment.key]] with the exchange's page: a kill would not reach them.",
];

const UNDECLARED: &[&str] = &[
    "Yours? Declare it as [[containment.key]] and start countersign again, or `countersign allow ACCOUNT PRINT WHY`.",
    "Not yours? Somebody has the master's login: `countersign freeze` or `kill` freezes it, `kill --key PRINT` deletes it.",
];

/// Keys of the list that nobody declared, remembered so that they can be allowed; the venue has fewer.
const UNDECLARED_MAX: usize = 100;

/// The scope of the incident that says that the list is refused.
const UNLISTED: &str = "unlisted";

impl Kernel {
    /// Whether the declared keys answer from here while nothing is wrong.
    pub(super) fn look_at_keys(&mut self) {
        self.state.timers.retain(|(_, timer)| *timer != Timer::LookAtKeys);
        let Ok(stopping) = self.may_stop() else { return };
        let drilled = &self.state.stop.rehearsal;
        let is_looked_at = |key: &&DeclaredKey| match key.role {
            KeyRole::Bot => true,
            KeyRole::Drill => !drilled.is_spent(&key.print),
            KeyRole::Watch | KeyRole::Cancel => false,
        };
        let bots = stopping.keys.iter().filter(is_looked_at);
        let prints: Vec<KeyPrint> = bots.map(|key| key.print.clone()).collect();
        let lists = stopping.means == Means::SubAccount;
        for key in prints {
            let effect = self.act(Act::Probe { key: key.clone() });
            self.state.stop.looks.insert(effect, key);
        }
        self.state.stop.list_look = lists.then(|| self.act(Act::ListKeys));
        self.set_timer(LOOK_EVERY, Timer::LookAtKeys);
    }

    /// A kill that aims at the wrong account, or at a key that is not there, is to be known before it is needed.
    fn compare_keys(&mut self, rows: &[KeyRow]) {
        // After a kill the bot's key is missing on purpose, until another one is declared.
        if self.state.stop.containment.as_ref().is_some_and(|known| known.aim == Aim::Kill) {
            return;
        }
        let Some(stopping) = &self.declared.stopping else { return };
        let rehearsal = &mut self.state.stop.rehearsal;
        rehearsal.note_list(rows);
        let is_shown =
            |key: &&DeclaredKey| rehearsal.is_spent(&key.print) || rows.iter().any(|row| row.key == key.print);
        let missing: Vec<&str> = stopping.keys.iter().filter(|key| !is_shown(key)).map(|key| &*key.name).collect();
        let allowed = self.allowed_keys();
        let is_declared =
            |row: &&KeyRow| stopping.keys.iter().any(|key| key.print == row.key) || allowed.contains(&row.key);
        let strangers = rows.iter().filter(|row| !is_declared(row)).take(UNDECLARED_MAX).map(|row| row.key.clone());
        let undeclared = strangers.collect();
        let more: Vec<String> = rows
            .iter()
            .filter(|row| !is_declared(row))
            .take(5)
            .map(|row| format!("{:.40?} ({})", row.name, row.key))
            .collect();
        let now = self.now();
        self.state.trust.undeclared = undeclared;
        if missing.is_empty() && more.is_empty() {
            let line = "the exchange's list shows the declared keys, and no other".to_owned();
            return self.state.book.end(now, Cause::Credential, "list", line);
        }
        let line = match (missing.is_empty(), more.is_empty()) {
            (false, _) => format!("the sub-account's list does not show: {}", missing.join(", ")),
            (true, _) => format!("the sub-account's list shows keys that nobody declared: {}", more.join(", ")),
        };
        let (priority, advice) =
            if missing.is_empty() { (Priority::Warning, UNDECLARED) } else { (Priority::Critical, NOT_LISTED) };
        if !more.is_empty() {
            self.signs_of_master(now, "the sub-account's list showed a key that nobody declared");
        }
        let headline = "The exchange's keys are not the declared ones";
        self.built_in("keys_differ", Cause::Credential, "list", priority, headline, line, advice);
    }

    /// A definite refusal of the list: no kill would reach the keys.
    fn tell_unlisted(&mut self, code: i64, reason: &str) {
        let headline = "The exchange does not list the sub-account's keys: a kill would not reach them";
        let line = format!("refused ({code}): {}", quoted(reason));
        self.built_in("keys_unlisted", Cause::Credential, UNLISTED, Priority::Critical, headline, line, NOT_LISTED);
    }

    pub(super) fn looked_at_list(&mut self, outcome: &ActOutcome) {
        match outcome {
            ActOutcome::Keys(rows) => {
                let line = "the exchange lists the keys again".to_owned();
                self.state.book.end(self.now(), Cause::Credential, UNLISTED, line);
                self.compare_keys(rows);
            }
            ActOutcome::Refused { code, reason } => self.tell_unlisted(*code, reason),
            // What could not be read is asked again in an hour.
            ActOutcome::Probed(_)
            | ActOutcome::Orders(_)
            | ActOutcome::Balances(_)
            | ActOutcome::Quote(_)
            | ActOutcome::Sold { .. }
            | ActOutcome::NotFound
            | ActOutcome::Done { .. }
            | ActOutcome::Held { .. }
            | ActOutcome::Unknown { .. } => {}
        }
    }
}
