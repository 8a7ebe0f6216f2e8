//! In fund mode what takes two people waits here, as a request, for another person's word.
//!
//! Invariants: whoever asks never approves, whichever way he comes on; a request is carried out once at the most. Requests
//! survive a restart, and their ten minutes go on meanwhile; a change of the people makes all of them void.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::account::authority::{NO_REQUEST, Ordered, why_told};
use crate::kernel::account::{Kernel, Timer};
use crate::kernel::card::quoted;
use crate::kernel::command::{Allowable, Command, told_span};
use crate::kernel::event::{Answer, Effect, Ticket};
use crate::kernel::incident::IncidentId;
use crate::kernel::people::Way;
use crate::kernel::time::Time;

/// Waiting for approval at once; at the limit a new one is refused.
const REQUESTS_MAX: usize = 8;
/// Of these, one person's; at the limit he is refused, and the others may still ask. A kill always has its place.
const REQUESTS_OF_ONE_MAX: usize = 4;
/// One person's within a minute, whatever became of them, since each is told on every channel; beyond it he is refused. A
/// kill is refused only after as many more.
const ASKED_A_MINUTE: usize = 4;
const MINUTE: Duration = Duration::from_secs(60);
const REQUEST_COUNTS: Duration = Duration::from_secs(600);
/// How long the asker may pair once it was approved.
const PAIRING_COUNTS: Duration = Duration::from_secs(600);
/// Numbers are short, since they are typed, and begin anew after this one.
const REQUEST_NUMBER_MAX: u32 = 99;
const NO_PERSON: &str = "this takes two people here, and you are none of [[operators.person]]; a freeze takes one";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// The asker's name.
    person: Box<str>,
    by: Box<str>,
    command: Command,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incident: Option<IncidentId>,
    expires: Time,
}

/// A request that waits, for `status` and the channels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestStatus {
    pub request: u32,
    pub by: Box<str>,
    pub what: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Box<str>>,
    pub expires: Time,
    /// Whether whoever approves it must give a one-time password of his own.
    pub needs_totp: bool,
}

impl Kernel {
    pub(super) fn may_request(&self, person: Option<&str>, command: &Command) -> Result<(), String> {
        let person = person.ok_or(NO_PERSON)?;
        match command {
            Command::Kill | Command::Resume => drop(self.may_stop()?),
            Command::DeleteKey { key } => self.may_delete_key(key)?,
            Command::Flatten { plan } => self.may_flatten(*plan)?,
            Command::Allow { what: Allowable::Key(key), .. } => self.may_allow_key(key)?,
            Command::Freeze
            | Command::Disarm { .. }
            | Command::Arm
            | Command::Allow { what: Allowable::Network(_), .. }
            | Command::EndAllowance { .. }
            | Command::PlanFlatten { .. }
            | Command::Manual { .. }
            | Command::EndManual
            | Command::NotMe { .. }
            | Command::Pair
            | Command::Approve { .. }
            | Command::Decline { .. } => {}
        }
        let requests = &self.state.trust.requests;
        if let Some((number, same)) = requests.iter().find(|(_, request)| request.command == *command) {
            let whose = if *same.person == *person { "another person must" } else { "you can" };
            return Err(format!("{} asked for that already: {whose} approve request {number}", same.by));
        }
        let now = self.now();
        let asked = self.state.trust.asked.get(person).into_iter().flatten();
        let lately = asked.filter(|at| now.since(**at) < MINUTE).count();
        let is_kill = *command == Command::Kill;
        if lately >= if is_kill { 2 * ASKED_A_MINUTE } else { ASKED_A_MINUTE } {
            return Err(format!(
                "you asked for {lately} things within a minute: wait for the next, or let another ask"
            ));
        }
        // For a kill, of which one at a time can wait, there is always room.
        if requests.len() >= REQUESTS_MAX && !is_kill {
            return Err(format!("{REQUESTS_MAX} requests wait already: approve or decline one of them first"));
        }
        let own = requests.values().filter(|request| *request.person == *person && request.command != Command::Kill);
        if own.count() >= REQUESTS_OF_ONE_MAX && !is_kill {
            return Err(format!("{REQUESTS_OF_ONE_MAX} requests of yours wait already: decline one of them first"));
        }
        Ok(())
    }

    /// The request that waits for a yes to this plan.
    pub(super) fn request_to_sell(&self, plan: Time) -> Option<u32> {
        let mut requests = self.state.trust.requests.iter();
        requests.find(|(_, request)| request.command == Command::Flatten { plan }).map(|(number, _)| *number)
    }

    /// What is asked for, so that whoever approves it need not look elsewhere.
    fn words_in_full(&self, command: &Command) -> String {
        let words = command.words(&quoted(self.declared.account.as_str()));
        if let Command::Flatten { plan } = command {
            return format!("{words} ({})", self.plan_told(*plan));
        }
        words
    }

    /// Whoever asked without a reason asks again with one: whoever approves is told why. Only once, so that what somebody
    /// has read does not change.
    pub(super) fn give_reason(&mut self, person: Option<&str>, ordered: &Ordered) -> Option<u32> {
        let why = ordered.why.as_ref()?;
        let is_same = |(_, request): &(&u32, &mut Request)| {
            request.command == ordered.command && request.why.is_none() && Some(&*request.person) == person
        };
        let (number, request) = self.state.trust.requests.iter_mut().find(is_same)?;
        request.why = Some(why.clone());
        let (number, by) = (*number, request.by.clone());
        let words = ordered.command.words(&quoted(self.declared.account.as_str()));
        self.announce(format!("Request {number}: {by} gives the reason why to {words}: {}.", quoted(why)));
        Some(number)
    }

    pub(super) fn file_request(&mut self, person: Box<str>, ordered: Ordered) -> Answer {
        let what = self.words_in_full(&ordered.command);
        let now = self.now();
        let trust = &mut self.state.trust;
        let asked = trust.asked.entry(person.clone()).or_default();
        asked.retain(|at| now.since(*at) < MINUTE);
        asked.push(now);
        let mut number = trust.last_request;
        // There are more numbers than requests.
        loop {
            number = number % REQUEST_NUMBER_MAX + 1;
            if !trust.requests.contains_key(&number) {
                break;
            }
        }
        trust.last_request = number;
        let expires = now + REQUEST_COUNTS;
        let Ordered { by, why, incident, command, .. } = ordered;
        let code = if command.needs_totp() { " CODE" } else { "" };
        let text = format!(
            "Request {number}: {by} asks to {what}. Why: {}. NOTHING is done yet: another person must approve it before \
             {expires} UTC: /approve {number}{code}, or on the host: countersign approve {number}. If it is not meant: \
             /decline {number}. A freeze needs no second person.",
            why_told(why.as_deref()),
        );
        trust.requests.insert(number, Request { person, by, command, why, incident, expires });
        self.set_timer(REQUEST_COUNTS, Timer::Request(number));
        self.announce(text);
        Answer::Requested { request: number }
    }

    pub(super) fn approve(
        &mut self,
        number: u32,
        person: Option<Box<str>>,
        ordered: &Ordered,
    ) -> Result<Answer, String> {
        let now = self.now();
        let person = person.filter(|_| self.declared.people.two_people);
        let request = self.state.trust.requests.get(&number).filter(|request| now < request.expires);
        let request = request.cloned().ok_or(NO_REQUEST)?;
        let person = person.ok_or(NO_PERSON)?;
        if request.person == person {
            return Err("whoever asks cannot approve: another person must".to_owned());
        }
        if request.command.needs_totp() {
            self.take_code(Some(&person), ordered.totp, request.why.is_some())?;
        }
        self.drop_request(number);
        let words = request.command.words(&quoted(self.declared.account.as_str()));
        let by = format!("{}, approved by {}", request.by, ordered.by);
        let done = self.carry_out(&by, request.why.as_deref(), request.incident, &request.command);
        if request.command == Command::Pair {
            self.state.trust.may_pair = Some((request.person, now + PAIRING_COUNTS));
        }
        let end = match &done {
            Ok(()) if request.command == Command::Pair => {
                format!("The asker has {} for countersign pair.", told_span(PAIRING_COUNTS))
            }
            Ok(()) => "It is being done.".to_owned(),
            Err(reason) => format!("It could NOT be done: {reason}."),
        };
        let why = why_told(request.why.as_deref());
        self.announce(format!(
            "Request {number} was approved by {}: {} asked to {words}. Why: {why}. {end}",
            ordered.by, request.by
        ));
        done.map(|()| Answer::Done)
    }

    /// Any person may, whoever asked: it narrows.
    pub(super) fn decline(&mut self, number: u32, person: Option<&str>, by: &str) -> Result<Answer, String> {
        let request = self.state.trust.requests.get(&number).cloned().ok_or(NO_REQUEST)?;
        let person = person.ok_or(NO_PERSON)?;
        let stops = matches!(request.command, Command::Kill | Command::DeleteKey { .. });
        if stops && *person != *request.person {
            return Err(
                "only whoever asked may decline what stops a theft; it expires if nobody approves it".to_owned()
            );
        }
        self.drop_request(number);
        self.end_request(number, &request, &format!("was declined by {by}"));
        Ok(Answer::Done)
    }

    fn drop_request(&mut self, number: u32) {
        self.state.trust.requests.remove(&number);
        self.state.timers.retain(|(_, timer)| *timer != Timer::Request(number));
    }

    fn end_request(&mut self, number: u32, request: &Request, how: &str) {
        let words = request.command.words(&quoted(self.declared.account.as_str()));
        self.announce(format!("Request {number} {how}: {} asked to {words}. Nothing was done.", request.by));
    }

    pub(super) fn expire_request(&mut self, number: u32) {
        if let Some(request) = self.state.trust.requests.remove(&number) {
            self.end_request(number, &request, "has expired, nobody approved it");
        }
    }

    /// Who may ask and approve is not what it was.
    pub(super) fn void_requests(&mut self) {
        for (number, request) in std::mem::take(&mut self.state.trust.requests) {
            self.state.timers.retain(|(_, timer)| *timer != Timer::Request(number));
            self.end_request(number, &request, "is void, since the people in the configuration have changed");
        }
        self.state.trust.may_pair = None;
        let persons = &self.declared.people.persons;
        self.state.trust.codes.retain(|name, _| persons.iter().any(|person| person.name == *name));
        self.state.trust.asked.retain(|name, _| persons.iter().any(|person| person.name == *name));
    }

    /// Whether this one may move the alerts to another chat: in fund mode only with another person's approval.
    pub fn may_pair(&self, now: Time, way: Way) -> bool {
        let person = self.declared.people.person(way).map(|person| &person.name);
        let approved = self.state.trust.may_pair.as_ref().filter(|(_, until)| now < *until);
        !self.declared.people.two_people || approved.is_some_and(|(asker, _)| person == Some(asker))
    }

    /// One approval is one code: the chat that it pairs is the only one.
    pub(super) fn pair(&mut self, ticket: Ticket, way: Way, is_first: bool) {
        let answer = if is_first {
            Answer::Done
        } else if self.may_pair(self.now(), way) {
            self.state.trust.may_pair = None;
            Answer::Done
        } else {
            Answer::Refused { reason: "to move the alerts to another chat takes another person's approval".into() }
        };
        self.effects.push(Effect::Answer { ticket, answer });
    }

    pub(super) fn request_statuses(&self) -> Vec<RequestStatus> {
        let status = |(number, request): (&u32, &Request)| RequestStatus {
            request: *number,
            by: request.by.clone(),
            what: self.words_in_full(&request.command).into(),
            why: request.why.clone(),
            expires: request.expires,
            needs_totp: request.command.needs_totp(),
        };
        self.state.trust.requests.iter().map(status).collect()
    }
}
