//! Who may do what on this account: one-time passwords, each time step once, and what takes one person's word or two. A
//! freeze is one person's word.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::account::Kernel;
use crate::kernel::account::allowing::Allowance;
use crate::kernel::account::approval::Request;
use crate::kernel::account::arming::Disarmed;
use crate::kernel::act::KeyPrint;
use crate::kernel::card::quoted;
use crate::kernel::command::{Command, Totp};
use crate::kernel::containment::Aim;
use crate::kernel::event::{Answer, Effect, Ticket};
use crate::kernel::incident::{IncidentId, Priority};
use crate::kernel::pairs;
use crate::kernel::people::Way;
use crate::kernel::rule::Cause;
use crate::kernel::time::Time;

/// Three of a million codes are right at a time: five guesses an hour find none.
const WRONG_CODES_MAX: usize = 5;
const LOCKED_FOR: Duration = Duration::from_secs(3_600);
const GUESSED: &[&str] = &[
    "Whoever tried can reach the operator's socket or the paired chat: look at who is logged in on this host.",
    "A freeze or a kill needs no password and works as before.",
];
pub(super) const NO_REQUEST: &str =
    "there is no such request: it was approved, declined, or has expired; `countersign requests` shows what waits";

/// What operators changed at run time, and what of their passwords counts no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Of each declared person, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) codes: BTreeMap<Box<str>, Codes>,
    #[serde(default, with = "pairs", skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) requests: BTreeMap<u32, Request>,
    #[serde(default)]
    pub(super) last_request: u32,
    /// When each person asked, within the last minute.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) asked: BTreeMap<Box<str>, Vec<Time>>,
    /// Who may pair Telegram anew, once, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) may_pair: Option<(Box<str>, Time)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) disarmed: Option<Disarmed>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) allowed: Vec<Allowance>,
    /// Keys that the last list showed, while nothing was wrong, and nobody had declared.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) undeclared: BTreeSet<KeyPrint>,
}

impl Trust {
    pub(super) fn is_unused(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Codes {
    /// The last time step that was taken: each counts once.
    #[serde(default, rename = "totp_step")]
    step: u64,
    /// When wrong ones came, within the last hour.
    #[serde(default, rename = "wrong_codes", skip_serializing_if = "Vec::is_empty")]
    wrong: Vec<Time>,
}

impl Codes {
    fn is_locked(&mut self, now: Time) -> Result<(), String> {
        self.wrong.retain(|at| now.since(*at) < LOCKED_FOR);
        if self.wrong.len() < WRONG_CODES_MAX {
            return Ok(());
        }
        let until = self.wrong.first().map_or(now, |first| *first + LOCKED_FOR);
        Err(format!("too many one-time passwords were wrong: none is taken before {until} UTC"))
    }
}

/// A command as it came.
#[derive(Clone, Debug)]
pub(super) struct Ordered {
    pub by: Box<str>,
    pub way: Option<Way>,
    pub why: Option<Box<str>>,
    pub incident: Option<IncidentId>,
    pub command: Command,
    pub totp: Totp,
}

impl Kernel {
    pub(super) fn command(&mut self, ticket: Ticket, mut ordered: Ordered) {
        // It is kept and told: short, on one line, and blanks are no reason.
        let why = ordered.why.map(|why| quoted(why.trim()).into_boxed_str());
        ordered.why = why.filter(|why| !why.is_empty());
        let answer = match self.obey(ordered) {
            Ok(answer) => answer,
            Err(reason) => Answer::Refused { reason: reason.into() },
        };
        self.effects.push(Effect::Answer { ticket, answer });
    }

    fn obey(&mut self, ordered: Ordered) -> Result<Answer, String> {
        if ordered.incident.is_some_and(|id| self.state.book.is_drill(id)) {
            let account = quoted(self.declared.account.as_str());
            return Err(format!(
                "that card is a drill's: there is nothing to contain, and nothing was done. If this is a real theft: \
                 /freeze {account} or /kill {account}, on the host countersign kill {account}"
            ));
        }
        let person = ordered.way.and_then(|way| self.declared.people.person(way)).map(|person| person.name.clone());
        if let Command::Approve { request } = ordered.command {
            return self.approve(request, person, &ordered);
        }
        if let Command::Decline { request } = ordered.command {
            return self.decline(request, person.as_deref(), &ordered.by);
        }
        let two = self.declared.people.two_people && ordered.command.needs_two();
        if two && let Some(request) = self.give_reason(person.as_deref(), &ordered) {
            return Ok(Answer::Requested { request });
        }
        if two {
            // Before a one-time password is used up for nothing.
            self.may_request(person.as_deref(), &ordered.command)?;
        }
        if ordered.command.needs_totp() {
            // Whether it is possible would tell a right guess from a wrong one.
            let now = self.now();
            self.codes(person.as_deref()).is_locked(now)?;
        }
        self.is_possible(&ordered)?;
        if ordered.command.needs_totp() {
            self.take_code(person.as_deref(), ordered.totp, ordered.why.is_some())?;
        }
        match person {
            Some(person) if two => Ok(self.file_request(person, ordered)),
            Some(_) | None => {
                let Ordered { by, why, incident, command, .. } = ordered;
                self.carry_out(&by, why.as_deref(), incident, &command)?;
                Ok(Answer::Done)
            }
        }
    }

    /// Asked before a one-time password is used up for it, and before another person is.
    fn is_possible(&self, ordered: &Ordered) -> Result<(), String> {
        match &ordered.command {
            Command::Manual { claim } => self.may_open_claim(claim, ordered.why.as_deref().unwrap_or_default()),
            Command::Disarm { for_s } => self.may_disarm(*for_s),
            Command::Allow { what, for_s } => self.may_allow(what, *for_s),
            // A wrong password is told whatever is frozen.
            Command::Resume if matches!(ordered.totp, Totp::Right { .. }) => self.may_release(),
            Command::Freeze
            | Command::Kill
            | Command::DeleteKey { .. }
            | Command::Resume
            | Command::Arm
            | Command::EndAllowance { .. }
            | Command::PlanFlatten { .. }
            | Command::Flatten { .. }
            | Command::EndManual
            | Command::Pair
            | Command::NotMe { .. }
            | Command::Approve { .. }
            | Command::Decline { .. } => Ok(()),
        }
    }

    pub(super) fn carry_out(
        &mut self,
        by: &str,
        why: Option<&str>,
        incident: Option<IncidentId>,
        command: &Command,
    ) -> Result<(), String> {
        match command {
            Command::Freeze => self.contain(Aim::Freeze, by, incident),
            Command::Kill => self.contain(Aim::Kill, by, incident),
            Command::DeleteKey { key } => self.delete_key(key, by),
            Command::Resume => self.contain(Aim::Release, by, incident),
            Command::Disarm { for_s } => self.disarm(by, why, *for_s),
            Command::Arm => self.arm(by, why),
            Command::Allow { what, for_s } => self.allow(by, why, what, *for_s),
            Command::EndAllowance { what } => self.end_allowance(by, what),
            Command::PlanFlatten { to, within } => self.plan_flatten(to, *within, by),
            Command::Flatten { plan } => self.flatten_now(*plan, by),
            Command::Manual { claim } => self.open_claim(claim, by, why.unwrap_or_default()),
            Command::EndManual => self.end_claim(&format!("ended by {by}")),
            Command::NotMe { window } => self.not_me(by, *window),
            // The approval notes whose request it was.
            Command::Pair => Ok(()),
            // A request is never of these.
            Command::Approve { .. } | Command::Decline { .. } => Err(NO_REQUEST.to_owned()),
        }
    }

    /// Without people there is one for all of them.
    fn codes(&mut self, person: Option<&str>) -> &mut Codes {
        match person {
            Some(person) => self.state.trust.codes.entry(person.into()).or_default(),
            None => &mut self.state.stop.codes,
        }
    }

    /// The one-time password counts, and no other of its time step will.
    pub(super) fn take_code(&mut self, person: Option<&str>, totp: Totp, has_reason: bool) -> Result<(), String> {
        let now = self.now();
        let codes = self.codes(person);
        codes.is_locked(now)?;
        match totp {
            Totp::Right { .. } if !has_reason => {
                Err("this needs a reason, which is told on every channel: say why".to_owned())
            }
            Totp::Right { step } if step > codes.step => {
                codes.step = step;
                Ok(())
            }
            Totp::Right { .. } => Err("this one-time password was used already: wait for the next one".to_owned()),
            Totp::Wrong => {
                codes.wrong.push(now);
                if codes.wrong.len() == WRONG_CODES_MAX {
                    let of = person.map(|person| format!(" of {person}'s")).unwrap_or_default();
                    let line = format!("{WRONG_CODES_MAX} wrong ones{of} within an hour: none is taken for a while");
                    let headline = "Somebody guesses one-time passwords";
                    self.built_in("wrong_codes", Cause::Watcher, "codes", Priority::Critical, headline, line, GUESSED);
                }
                Err("the one-time password is wrong (a new one comes every 30 s; both clocks must be right)".to_owned())
            }
            Totp::NotSetUp if person.is_some() => {
                Err("no one-time passwords of yours are set up: `countersign secret \
                                                       totp NAME`, then totp = \"vault:NAME\" in your \
                                                       [[operators.person]]"
                    .to_owned())
            }
            Totp::NotSetUp => Err("no one-time passwords are set up: `countersign secret totp NAME`, then totp = \
                                   \"vault:NAME\" under [operators]"
                .to_owned()),
            Totp::Absent => Err("this needs a one-time password".to_owned()),
        }
    }

    pub(super) fn announce(&mut self, text: String) {
        self.effects.push(Effect::Announce { text: text.into() });
    }
}

pub(super) fn why_told(why: Option<&str>) -> String {
    why.map_or_else(|| "no reason was given".to_owned(), quoted)
}
