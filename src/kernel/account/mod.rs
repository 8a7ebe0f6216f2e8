//! The kernel of one account: blotter → verdict → rules → incident.
//!
//! `apply` takes one event and gives the effects. Timers that fell due are worked off first, so a shell may call it
//! late or with a `Due` too many. The state is a plain value: a snapshot of it is an event of the journal.
//!
//! Invariant: the final verdict on an order is a function of what was said and shown, not of the order in which it
//! arrived; waiting ends by the bots' watermark or by the cap, whichever comes first.

mod finding;
mod orders;
mod requests;
mod intents;
mod mirror;
mod audit;
mod feed;
mod contain;
mod listed;
mod flatten;
mod alone;
mod authority;
mod approval;
mod arming;
mod allowing;
mod changes;
mod exceptions;
mod claims;
mod credentials;
mod drill;
mod rehearsal;
mod bot_host;
mod stop_programs;
mod order_limit;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::account::authority::Ordered;
use crate::kernel::blotter::{Blotter, IntentKey, OrderKey};
use crate::kernel::book::Book;
use crate::kernel::bots::Bots;
use crate::kernel::claim::Windows;
use crate::kernel::coverage::Coverage;
use crate::kernel::credential::CredentialRole;
use crate::kernel::declared::Declared;
use crate::kernel::event::{Effect, EffectId, Event, Fault, OrderRef, ReadRequest};
use crate::kernel::exception::Uses;
use crate::kernel::incident::{IncidentId, Priority};
use crate::kernel::order::{Account, Bot};
use crate::kernel::pairs;
use crate::kernel::rule::{Cause, RuleSet};
use crate::kernel::time::Time;

pub use allowing::Allowance;
pub use approval::RequestStatus;
pub use arming::Disarmed;
pub use audit::Audit;
pub use authority::Trust;
pub use claims::ClaimStatus;
pub use contain::{NO_PASSWORDS, Stop};
pub use credentials::{CredentialStatus, Credentials};
pub use exceptions::ExceptionStatus;
pub use feed::Seen;
pub use requests::{RequestKey, Requests};
pub use status::{BotStatus, Status};

/// Reads under way at once. One more waits for a while, then asks again.
const READS_MAX: usize = 64;
const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);

pub struct Kernel {
    declared: Declared,
    rules: RuleSet,
    state: State,
    effects: Vec<Effect>,
}

/// Everything a kernel knows that is not configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    now: Moment,
    pub blotter: Blotter,
    bots: Bots,
    pub coverage: Coverage,
    pub book: Book,
    seen: Seen,
    requests: Requests,
    /// Orders whose verdict waits for the bots' word, by when they were first seen.
    pending: BTreeSet<(Time, OrderKey)>,
    pending_requests: BTreeSet<(Time, RequestKey)>,
    /// How far the bots' word had passed when the waiting ones were last judged by it.
    passed: Option<Time>,
    audit: Audit,
    /// What each read under way is for.
    #[serde(with = "pairs")]
    reads: BTreeMap<EffectId, Purpose>,
    timers: BTreeSet<(Time, Timer)>,
    counts: Counts,
    /// Foreign addresses told, and when: each is told once a day.
    #[serde(with = "pairs")]
    addresses: BTreeMap<std::net::IpAddr, Time>,
    #[serde(default, skip_serializing_if = "Stop::is_unused")]
    stop: Stop,
    #[serde(default, skip_serializing_if = "Uses::is_empty")]
    uses: Uses,
    #[serde(default, skip_serializing_if = "Credentials::is_empty")]
    credentials: Credentials,
    /// When it was last told that somebody else uses up the account's order limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit_told_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Trust::is_unused")]
    trust: Trust,
    #[serde(default, skip_serializing_if = "Windows::is_empty")]
    claims: Windows,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Moment {
    at: Time,
    seq: u64,
}

impl Default for Moment {
    fn default() -> Self {
        Self { at: Time::EPOCH, seq: 0 }
    }
}

/// Counters for `status`; no verdict rests on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub reports: u64,
    pub echoes: u64,
    pub kept_raw: u64,
    pub intents: u64,
    pub refused_requests: u64,
}

/// Each says when it fires; a timer whose reason is gone does nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Timer {
    /// Waiting for the bots' word on an order has lasted long enough.
    Judge(OrderKey),
    JudgeRequest(RequestKey),
    /// An intent should have been seen at the venue by now.
    Mirror(IntentKey),
    Silence(Bot),
    /// The next comparison by REST.
    Audit,
    /// The comparison found a difference; the venue's databases have had time to agree.
    Recheck(OrderKey),
    RecheckBalances,
    /// The second copy of a frame should have come.
    Echo,
    /// Still blind: say it louder.
    StillBlind,
    /// The containment has something to do.
    Contain,
    /// What its owner sells has something to do.
    Flatten,
    /// See whether the declared keys answer from here.
    LookAtKeys,
    /// An exception of this name expires.
    Expiry(Box<str>),
    /// Nobody has answered a grave incident.
    Unanswered(IncidentId),
    /// The read that is to show a stranger's order a second way had no room.
    Corroborate(OrderKey, IncidentId),
    /// One of countersign's own keys should have been checked by now.
    Credential(CredentialRole),
    DrillEnds,
    /// The drill's containment has something to do.
    Rehearse,
    /// Nobody approved it.
    Request(u32),
    /// What was disarmed for a while is armed again.
    ArmsAgain,
    StillDisarmed,
    AllowanceEnds,
    /// The claim window closes.
    ClaimEnds,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Purpose {
    /// A fill was seen before the order itself.
    Confirm(OrderKey),
    Mirror(IntentKey),
    AuditOrders,
    AuditBalances,
    Recheck(OrderKey),
    /// A stranger's order that is to be seen a second way before anything is done alone.
    Corroborate(OrderKey, IncidentId),
}

impl Kernel {
    /// Knows nothing, and declares nothing until the first `Started`.
    pub fn new(account: Account) -> Self {
        Self {
            declared: Declared::nothing(account),
            rules: RuleSet::default(),
            state: State::default(),
            effects: Vec::new(),
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// When `Due` is wanted, at the latest.
    pub fn due(&self) -> Option<Time> {
        self.state.timers.first().map(|(at, _)| *at)
    }

    /// A fault in the judging itself ends no watch: it is caught, told as an incident, and the event stays in the
    /// journal, where a replay fails on it in the same way.
    #[must_use]
    pub fn apply(&mut self, now: Time, seq: u64, event: Event) -> Vec<Effect> {
        self.caught(seq, |kernel| kernel.judge_event(now, seq, event));
        let now = self.now();
        for notice in self.state.book.take_changes(now) {
            self.effects.push(Effect::Tell(Box::new(notice)));
        }
        std::mem::take(&mut self.effects)
    }

    fn caught(&mut self, seq: u64, judge: impl FnOnce(&mut Self)) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| judge(self))).is_err() {
            self.effects.clear();
            // They will not be asked, so no answer will come.
            self.state.reads.retain(|effect, _| effect.cause != seq);
            let headline = "countersign failed to judge an event";
            let line = format!("event {seq} of the journal: its frame is kept, its verdict is missing");
            self.built_in("judging_failed", Cause::Watcher, "judging", Priority::Critical, headline, line, &[]);
        }
    }

    fn judge_event(&mut self, now: Time, seq: u64, event: Event) {
        let last_at = self.state.now.at;
        self.state.now = Moment { at: now.max(last_at), seq };
        // After a start, what fell due meanwhile gets one more wait; a snapshot replaces the timers.
        if !matches!(event, Event::Started { .. } | Event::Restored { .. }) {
            self.fire_timers();
        }
        match event {
            Event::Started { declared, rules, .. } => {
                self.state.bots.declare(declared.bots.keys());
                let before = std::mem::replace(&mut self.declared, *declared);
                self.rules = *rules;
                self.started(last_at);
                self.start_exceptions(&before.exceptions);
                self.tell_bot_host(before.admin_beside_bot);
                self.tell_missing_programs();
                self.tell_changes(&before);
            }
            Event::Restored { state, declared, rules } => {
                (self.state, self.declared, self.rules) = (*state, *declared, *rules);
            }
            Event::Feed { connection, change } => self.feed(connection, change),
            Event::Report { connection, report, tags, raw } => self.report(connection, report, tags, &raw),
            Event::Echo { connection, of } => self.echo(connection, &of),
            Event::Kept { connection, reason, .. } => self.kept(connection, &reason),
            Event::Intent { ticket, record } => self.intent(ticket, *record),
            Event::Read { effect, outcome } => self.read(effect, outcome),
            Event::Access { ticket, evidence } => self.access(ticket, &evidence),
            Event::Acknowledge { ticket, by, incident, shown } => self.acknowledge(ticket, &by, incident, shown),
            Event::ConfirmPreExisting { ticket, by, digest } => self.confirm_pre_existing(ticket, &by, &digest),
            Event::Refused { intents, access } => {
                let refused = &mut self.state.counts.refused_requests;
                *refused = refused.saturating_add(intents).saturating_add(access);
            }
            Event::Command { ticket, by, way, why, incident, command, totp } => {
                self.command(ticket, Ordered { by, way, why, incident, command, totp });
            }
            Event::Pair { ticket, way, is_first } => self.pair(ticket, way, is_first),
            Event::Acted { effect, outcome } => self.acted(effect, &outcome),
            Event::Drill { ticket, by, report, tags, kill, raw: _ } => self.drill(ticket, &by, &report, tags, kill),
            Event::Credential { role, outcome } => self.credential(role, outcome),
            Event::Fault(fault) => self.fault(&fault),
            Event::Due => {}
        }
        self.drive_containment();
        self.drive_rehearsal();
        self.drive_flatten();
    }

    fn moment(&self) -> (Time, u64) {
        (self.state.now.at, self.state.now.seq)
    }

    fn now(&self) -> Time {
        self.state.now.at
    }

    fn set_timer(&mut self, after: Duration, timer: Timer) {
        self.state.timers.insert((self.now() + after, timer));
    }

    /// Fires what is due. What a timer sets for this very moment waits for the next event, so that a wait of zero
    /// cannot hang the judging.
    fn fire_timers(&mut self) {
        let due: Vec<(Time, Timer)> =
            self.state.timers.iter().take_while(|(at, _)| *at <= self.now()).cloned().collect();
        for entry in due {
            if !self.state.timers.remove(&entry) {
                continue;
            }
            match entry.1 {
                Timer::Judge(key) => self.rejudge(&key),
                Timer::JudgeRequest(key) => self.rejudge_request(&key),
                Timer::Mirror(key) => self.mirror(&key),
                Timer::Silence(bot) => self.check_silence(&bot),
                Timer::Audit => self.start_audit(),
                Timer::Recheck(key) => self.recheck(&key),
                Timer::RecheckBalances => self.recheck_balances(),
                Timer::Echo => self.check_echoes(),
                Timer::StillBlind => self.check_still_blind(),
                // It is driven after every event, this one as well.
                Timer::Contain | Timer::Rehearse | Timer::Flatten => {}
                Timer::LookAtKeys => self.look_at_keys(),
                Timer::Unanswered(incident) => self.unanswered(incident),
                Timer::Corroborate(key, incident) => self.corroborate(key, incident),
                Timer::Expiry(name) => self.check_expiry(&name),
                Timer::Credential(role) => self.check_credential(role),
                Timer::DrillEnds => self.end_drill(),
                Timer::Request(number) => self.expire_request(number),
                Timer::ArmsAgain => self.arm_by_itself(),
                Timer::StillDisarmed => self.remind_of_disarming(),
                Timer::AllowanceEnds => self.expire_allowances(),
                // One that was ended before its time took its timer along.
                Timer::ClaimEnds => drop(self.end_claim("its time has passed")),
            }
        }
    }

    /// Asks for a read; the outcome comes back as an event that names this effect.
    fn ask(&mut self, request: ReadRequest, purpose: Purpose) {
        if self.state.reads.values().any(|asked| *asked == purpose) {
            return;
        }
        if self.state.reads.len() >= READS_MAX {
            let again = match purpose {
                Purpose::Confirm(key) | Purpose::Recheck(key) => Timer::Recheck(key),
                Purpose::Mirror(key) => Timer::Mirror(key),
                Purpose::Corroborate(key, incident) => Timer::Corroborate(key, incident),
                Purpose::AuditOrders => Timer::Audit,
                Purpose::AuditBalances => Timer::Audit,
            };
            return self.set_timer(READ_AGAIN_AFTER, again);
        }
        let index = u32::try_from(self.effects.len()).unwrap_or(u32::MAX);
        self.state.reads.insert(EffectId { cause: self.state.now.seq, index }, purpose);
        self.effects.push(Effect::Read(request));
    }

    fn order_request(key: &OrderKey) -> ReadRequest {
        ReadRequest::Order { symbol: key.0.clone(), order: OrderRef::Id(key.1) }
    }

    /// The process starts: nothing is connected, every read under way is asked for again, and what was waited for
    /// gets one more full wait, since the bots could not speak to us meanwhile.
    fn started(&mut self, last_recorded: Time) {
        let gaps = self.state.coverage.restart(last_recorded);
        self.tell_gaps(&gaps, "countersign ended, and what had shown nothing for so long is not believed");
        // A comparison is made anew once something is connected; an answer from before would prove nothing.
        for purpose in std::mem::take(&mut self.state.reads).into_values() {
            match purpose {
                Purpose::Confirm(key) => self.ask(Self::order_request(&key), Purpose::Confirm(key)),
                Purpose::Recheck(key) => self.ask(Self::order_request(&key), Purpose::Recheck(key)),
                Purpose::Mirror(key) => self.mirror(&key),
                Purpose::Corroborate(key, incident) => self.corroborate(key, incident),
                Purpose::AuditOrders | Purpose::AuditBalances => {}
            }
        }
        self.wait_again();
        self.restart_intents();
        self.rejudge_passed();
        self.restart_containment();
        self.restart_flatten();
        self.restart_credentials();
        match self.state.coverage.blind_since {
            Some(since) => self.tell_blind(format!("countersign was not running, or could not see, from {since} UTC")),
            // A first start is no gap, but one that never sees anything must not stay quiet.
            None => self.set_timer(feed::STILL_BLIND_AFTER, Timer::StillBlind),
        }
    }

    fn wait_again(&mut self) {
        let cap = self.declared.waits.pending_cap;
        let deadline = self.now() + cap;
        for (_, key) in self.state.pending.clone() {
            if let Some(order) = self.state.blotter.orders.get_mut(&key) {
                order.deadline = order.deadline.max(deadline);
                self.set_timer(cap, Timer::Judge(key));
            }
        }
        for (_, key) in self.state.pending_requests.clone() {
            if let Some(request) = self.state.requests.get_mut(&key) {
                request.deadline = request.deadline.max(deadline);
                self.set_timer(cap, Timer::JudgeRequest(key));
            }
        }
        let unseen_after = self.declared.waits.unseen_after;
        let soon = self.now() + unseen_after;
        let mirrors = self.state.timers.iter().take_while(|(at, _)| *at < soon);
        let mirrors: Vec<(Time, Timer)> =
            mirrors.filter(|(_, timer)| matches!(timer, Timer::Mirror(_))).cloned().collect();
        for entry in mirrors {
            self.state.timers.remove(&entry);
            self.set_timer(unseen_after, entry.1);
        }
    }

    fn fault(&mut self, fault: &Fault) {
        let (rule, priority, headline, line) = match fault {
            Fault::Unjournalled { effect } => {
                let line = format!("an alert (cause {}) left before its cause was on disk", effect.cause);
                ("unjournalled", Priority::Warning, "The journal's disk is slow or stuck", line)
            }
            Fault::DiskStalled { for_ms } => {
                let line = format!("nothing has reached the disk for {for_ms} ms: no intent is acknowledged");
                ("disk_stalled", Priority::Critical, "The journal's disk takes nothing", line)
            }
            Fault::BrokenJournal { detail } => {
                ("broken_journal", Priority::Critical, "The journal is broken", detail.to_string())
            }
            Fault::ClockJump { by_ms } => {
                self.note_jump();
                let line = format!("the wall clock jumped by {by_ms} ms; journal time went on without it");
                ("clock_jump", Priority::Warning, "This machine's clock jumped", line)
            }
            Fault::TaskEnded { task, detail } => {
                ("task_ended", Priority::Critical, "A part of countersign stopped", format!("{task}: {detail}"))
            }
        };
        self.built_in(rule, Cause::Watcher, rule, priority, headline, line, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_in_the_judging_is_told_and_the_watch_goes_on() {
        let mut kernel = Kernel::new(Account::new("main"));
        let now = Time::from_millis(1);
        assert_eq!(kernel.apply(now, 1, Event::Due), Vec::new());
        kernel.caught(2, |kernel| {
            kernel.state.now = Moment { at: now, seq: 2 };
            kernel.ask(ReadRequest::Balances, Purpose::AuditBalances);
            panic!("a fault of this test");
        });
        assert!(kernel.state.reads.is_empty(), "a read that was never let out must not be waited for");
        let effects = kernel.apply(now, 3, Event::Due);
        let [Effect::Tell(notice)] = &effects[..] else { panic!("one incident is told: {effects:?}") };
        assert_eq!((&*notice.rule, notice.priority), ("judging_failed", Priority::Critical));
        assert_eq!(kernel.apply(now, 4, Event::Due), Vec::new());
    }
}
