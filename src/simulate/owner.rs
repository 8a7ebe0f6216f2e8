//! The owner: some time after he is told of a theft he freezes, kills or resumes, and deletes keys that nobody declared.
//! What it led to is noted, so that the thief can come back at the worst moment.

use std::time::Duration;

use serde_json::Value;

use crate::kernel::act::KeyPrint;
use crate::kernel::command::{Command, Totp};
use crate::kernel::event::{Connection, Event, FeedChange, Ticket};
use crate::kernel::incident::IncidentId;
use crate::simulate::client::control;
use crate::simulate::emergency::{Intrusion, Owner};
use crate::simulate::script::{START, Script};
use crate::simulate::thief::ThiefTurn;
use crate::simulate::world::{Happening, World};

/// From the message to the owner's word.
const OWNER_WITHIN_MS: (u32, u32) = (1_500, 20_000);
const SECOND_THOUGHT_MS: (u32, u32) = (50, 15_000);
/// Where nothing runs that could hear him.
const TRIES_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// He looks at the keys this often, once he has begun.
const LOOKS_EVERY: Duration = Duration::from_secs(5);
/// The first day, on which nothing is done alone, was yesterday.
const YESTERDAY: Duration = Duration::from_secs(25 * 3_600);
/// A one-time password holds for so long.
const TOTP_STEP_S: i64 = 30;
/// Incidents that make the owner act.
const THEFTS: [&str; 8] = [
    "foreign_order",
    "foreign_cancel_or_amendment",
    "divergent_order",
    "replayed_id",
    "forged_id",
    "unissued_or_unlogged_id",
    "symbol_never_traded",
    "burst_of_foreign_activity",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Freeze(IncidentId),
    Kill(IncidentId),
    Resume {
        right: bool,
    },
    /// He looks at the exchange's page and has every key deleted that he does not know.
    DeleteStrangers,
}

/// How far the owner and the thief have gone.
#[derive(Debug, Default)]
pub struct StopState {
    /// The owner has decided what to do.
    pub decided: bool,
    /// The declared way to stop the bots has worked.
    pub bots_stopped: bool,
    /// Their processes are no more: what is on the wires arrives.
    pub bots_ended: bool,
    /// The hook fails so many times more.
    pub hook_fails: u32,
    intruded: bool,
}

impl StopState {
    pub fn of(script: &Script) -> Self {
        let hook = script.emergency.as_ref().and_then(|emergency| emergency.hook);
        Self { hook_fails: hook.map_or(0, |hook| hook.fails), ..Self::default() }
    }
}

impl World {
    /// He is told of an incident that rings.
    pub fn may_decide(&mut self, incident: IncidentId, rule: &str) {
        let Some(emergency) = self.script.emergency.clone() else { return };
        if self.stop.decided || !THEFTS.contains(&rule) {
            return;
        }
        self.stop.decided = true;
        let first = self.now + self.draw(OWNER_WITHIN_MS);
        let then = first + self.draw(SECOND_THOUGHT_MS);
        match emergency.owner {
            Owner::Sleeps => return,
            Owner::Kills => self.at(first, Happening::Owner(Word::Kill(incident))),
            Owner::Freezes => self.at(first, Happening::Owner(Word::Freeze(incident))),
            Owner::FreezesThenKills => {
                self.at(first, Happening::Owner(Word::Freeze(incident)));
                self.at(then, Happening::Owner(Word::Kill(incident)));
            }
            Owner::FreezesThenResumes { wrong_first } => {
                self.at(first, Happening::Owner(Word::Freeze(incident)));
                if wrong_first {
                    self.at(then, Happening::Owner(Word::Resume { right: false }));
                }
                self.at(then + LOOKS_EVERY, Happening::Owner(Word::Resume { right: true }));
            }
        }
        if emergency.deletes_strangers {
            self.at(first + LOOKS_EVERY, Happening::Owner(Word::DeleteStrangers));
        }
    }

    pub fn command(&mut self, word: Word) {
        if self.process.is_none() {
            return self.after(TRIES_AGAIN_AFTER, Happening::Owner(word));
        }
        let step = u64::try_from(self.now.millis() / 1_000 / TOTP_STEP_S).unwrap_or(0);
        match word {
            Word::Freeze(incident) => self.give(Some(incident), Command::Freeze, Totp::Absent),
            Word::Kill(incident) => self.give(Some(incident), Command::Kill, Totp::Absent),
            Word::Resume { right: true } => self.give(None, Command::Resume, Totp::Right { step }),
            Word::Resume { right: false } => self.give(None, Command::Resume, Totp::Wrong),
            Word::DeleteStrangers => {
                self.after(LOOKS_EVERY, Happening::Owner(word));
                for key in self.undeclared_keys() {
                    self.give(None, Command::DeleteKey { key }, Totp::Absent);
                }
            }
        }
        self.witness.commands.push((self.now, word));
    }

    /// Whoever asked looks at the card, not at the answer.
    fn give(&mut self, incident: Option<IncidentId>, command: Command, totp: Totp) {
        let (ticket, by, why) = (Ticket(0), "owner".into(), Some("it is over".into()));
        self.step_account(Event::Command { ticket, by, way: None, why, incident, command, totp });
    }

    fn undeclared_keys(&mut self) -> Vec<KeyPrint> {
        let keys = control(&mut self.exchange, self.now, "GET", "keys", "", "");
        let of_account = |key: &&Value| key["account"] == self.means.account;
        let keys = keys.as_array().into_iter().flatten().filter(of_account);
        let prints = keys.filter_map(|key| key["api_key"].as_str()).map(KeyPrint::of);
        prints.filter(|print| !self.means.declared.contains_key(print)).collect()
    }

    pub fn is_intruded(&self, when: Intrusion) -> bool {
        self.script.emergency.as_ref().is_some_and(|emergency| emergency.intruder == Some(when))
    }

    /// The moment that he waited for has come.
    pub fn may_intrude(&mut self, when: Intrusion, within: (u32, u32)) {
        if self.is_intruded(when) && !std::mem::replace(&mut self.stop.intruded, true) {
            let wait = self.draw(within);
            self.after(wait, Happening::Thief(ThiefTurn::MakesKey));
        }
    }

    /// A short life of the process on the day before, which saw the account and nothing on it.
    pub fn live_yesterday(&mut self) {
        self.now = START - YESTERDAY;
        self.start_process();
        let connection = Connection(1);
        self.step_account(Event::Feed { connection, change: FeedChange::Live });
        self.step_account(Event::Feed { connection, change: FeedChange::Retired });
        self.end_yesterday();
        self.now = START;
    }
}
