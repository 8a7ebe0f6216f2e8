//! The loop that owns the kernels: one event at a time goes in, its row goes to the journal, its effects wait for the
//! disk. Nothing is decided here, and nobody else holds a kernel.

mod desk;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::board::{Board, Pulse};
use crate::clock::{self, Clock};
use crate::core::desk::operators_answer;
use crate::drill::Hops;
use crate::inlet::intake::{HelloReply, IntakeMessage, IntakeRequest, Refusals};
use crate::inlet::operator::OperatorRequest;
use crate::inlet::user_stream::StreamEvent;
use crate::journal::record::{Record, SHARED_CHAIN, effects_text, text};
use crate::journal::sqlite::{Journal, WriterGone};
use crate::kernel::account::Kernel;
use crate::kernel::act::ActOutcome;
use crate::kernel::channel::ChatId;
use crate::kernel::chat::ChatUpdate;
use crate::kernel::command::Totp;
use crate::kernel::credential::{CredentialOutcome, CredentialRole};
use crate::kernel::event::{Answer, Effect, EffectId, Event, Fault, ReadOutcome, Tags, Ticket};
use crate::kernel::incident::{IncidentId, Notice, Priority};
use crate::kernel::intent::{IntentBody, IntentReply, Registered};
use crate::kernel::order::{Account, Bot};
use crate::kernel::people::Way;
use crate::kernel::report::Report;
use crate::kernel::shared::{Said, Shared, SharedEffect, SharedEvent};
use crate::kernel::time::Time;
use crate::release::{Batch, Outgoing};
use crate::secret::one_time::Passwords;
use crate::tag::TagKeys;

/// A heartbeat that no verdict waits for is worth a row this often, or twice in the time after which its bot counts as
/// silent; the others are answered without one.
const BEAT_ROWS_EVERY: Duration = Duration::from_secs(5);
/// A burst of frames is worked off in parts of so many rows, so that nothing else waits long for its turn.
const ROWS_TOGETHER: usize = 64;
const CHORES_EVERY: Duration = Duration::from_secs(5);
/// Rows after which the state is written whole, so that a start reads no more than this.
const SNAPSHOT_EVERY_ROWS: u64 = 50_000;

/// Where events come from.
pub struct Inputs {
    pub stream: mpsc::Receiver<StreamEvent>,
    pub intake: mpsc::Receiver<IntakeMessage>,
    pub operator: mpsc::Receiver<OperatorRequest>,
    pub shared: mpsc::Receiver<SharedEvent>,
    pub reads: mpsc::Receiver<(EffectId, ReadOutcome)>,
    pub acts: mpsc::Receiver<(EffectId, ActOutcome)>,
    pub checks: mpsc::Receiver<(CredentialRole, CredentialOutcome)>,
    pub faults: mpsc::Receiver<Fault>,
    pub refusals: Arc<Refusals>,
}

pub struct Core {
    pub clock: Arc<Clock>,
    pub tags: Arc<TagKeys>,
    pub totp: Arc<Passwords>,
    pub kernel: Kernel,
    pub shared: Shared,
    pub board: Arc<Board>,
    pub hops: Arc<Hops>,
    pub journal: Journal,
    pub release: mpsc::Sender<Batch>,
    /// The last row written.
    pub seq: u64,
    pub since_snapshot: u64,
    pub waiters: Waiters,
}

#[derive(Default)]
pub struct Waiters {
    last: u64,
    waiting: BTreeMap<Ticket, Waiter>,
    beats: BTreeMap<Bot, (Time, Option<IpAddr>)>,
    pulse: Option<Pulse>,
}

enum Waiter {
    Intent(oneshot::Sender<IntentReply>),
    Access(oneshot::Sender<Answer>),
    Operator(oneshot::Sender<serde_json::Value>),
    Pairing(oneshot::Sender<serde_json::Value>),
    Chat(ChatId),
    /// A command over the account: whoever gave it, the shared kernel hears what became of it. An operator is answered
    /// even if the disk takes nothing.
    Command(Said, Option<oneshot::Sender<serde_json::Value>>),
}

/// Rows that go into the journal together, and what they let happen.
#[derive(Default)]
struct Step {
    rows: Vec<Record>,
    outgoing: Vec<Outgoing>,
}

/// An event on its way into one of the two kernels.
enum Work {
    Account(Event),
    Shared(SharedEvent),
}

impl Core {
    pub async fn run(mut self, mut inputs: Inputs, shutdown: CancellationToken) -> Result<(), WriterGone> {
        let mut chores = tokio::time::interval(CHORES_EVERY);
        loop {
            let due = [self.kernel.due(), self.shared.due()].into_iter().flatten().min();
            let wait = due.map_or(CHORES_EVERY, |due| due.since(self.clock.now()));
            // Not biased: a flood on one input must not starve the others. The journal holds the order that was taken.
            let mut step = Step::default();
            let work = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(event) = inputs.stream.recv() => {
                    self.work_off_stream(event, &mut inputs.stream, &mut step);
                    None
                }
                Some(message) = inputs.intake.recv() => self.intake(message),
                Some(request) = inputs.operator.recv() => self.operator(request),
                Some(event) = inputs.shared.recv() => Some(Work::Shared(self.in_journal_time(event))),
                Some((effect, outcome)) = inputs.reads.recv() => Some(Work::Account(self.read(effect, outcome))),
                Some((effect, outcome)) = inputs.acts.recv() => Some(Work::Account(self.acted(effect, outcome))),
                Some((role, outcome)) = inputs.checks.recv() => Some(Work::Account(Event::Credential { role, outcome })),
                Some(fault) = inputs.faults.recv() => Some(Work::Account(Event::Fault(fault))),
                _ = chores.tick() => self.chores(&inputs.refusals),
                () = tokio::time::sleep(wait), if due.is_some() => Some(self.due()),
            };
            if let Some(work) = work {
                self.work_off(work, &mut step);
            }
            self.hand_on(step).await?;
            if self.since_snapshot >= SNAPSHOT_EVERY_ROWS {
                self.snapshot().await?;
            }
        }
        self.finish(inputs).await
    }

    /// What had been read when the end came is judged and recorded; what had not is the next start's gap.
    async fn finish(mut self, mut inputs: Inputs) -> Result<(), WriterGone> {
        while let Ok(event) = inputs.stream.try_recv() {
            if let Some(work) = self.stream(event) {
                self.step(work).await?;
            }
        }
        while let Ok(message) = inputs.intake.try_recv() {
            if let Some(work) = self.intake(message) {
                self.step(work).await?;
            }
        }
        self.snapshot().await
    }

    /// Works an event off, and all that follows from it between the two kernels: one transaction.
    pub async fn step_account(&mut self, event: Event) -> Result<(), WriterGone> {
        self.step(Work::Account(event)).await
    }

    pub async fn step_shared(&mut self, event: SharedEvent) -> Result<(), WriterGone> {
        self.step(Work::Shared(event)).await
    }

    async fn step(&mut self, work: Work) -> Result<(), WriterGone> {
        let mut step = Step::default();
        self.work_off(work, &mut step);
        self.hand_on(step).await
    }

    /// Frames come in bursts: what has gathered goes on together.
    fn work_off_stream(&mut self, first: StreamEvent, stream: &mut mpsc::Receiver<StreamEvent>, step: &mut Step) {
        let mut next = Some(first);
        while let Some(event) = next {
            if let Some(work) = self.stream(event) {
                self.work_off(work, step);
            }
            next = if step.rows.len() < ROWS_TOGETHER { stream.try_recv().ok() } else { None };
        }
    }

    fn work_off(&mut self, work: Work, step: &mut Step) {
        let mut queue = VecDeque::from([work]);
        while let Some(work) = queue.pop_front() {
            self.seq += 1;
            step.rows.push(match work {
                Work::Account(event) => self.apply_account(event, &mut queue, &mut step.outgoing),
                Work::Shared(event) => self.apply_shared(event, &mut queue, &mut step.outgoing),
            });
        }
    }

    async fn hand_on(&mut self, step: Step) -> Result<(), WriterGone> {
        let Step { rows, mut outgoing } = step;
        if rows.is_empty() {
            return Ok(());
        }
        self.since_snapshot += u64::try_from(rows.len()).unwrap_or(u64::MAX);
        self.note_pulse(&mut outgoing);
        self.journal.append(rows).await?;
        if !outgoing.is_empty() {
            self.release.send(Batch { seq: self.seq, outgoing }).await.map_err(|_| WriterGone)?;
        }
        Ok(())
    }

    fn apply_account(&mut self, event: Event, queue: &mut VecDeque<Work>, outgoing: &mut Vec<Outgoing>) -> Record {
        let (seq, at) = (self.seq, self.clock.now());
        let (body, is_drill) = (text(&event), matches!(event, Event::Drill { .. }));
        let effects = self.kernel.apply(at, seq, event);
        let chain = self.kernel.declared().account.as_str().into();
        let record = Record { seq, chain, at, body, effects: effects_text(&effects) };
        for (index, effect) in (0_u32..).zip(effects) {
            match effect {
                Effect::Reply { ticket, reply } => {
                    if let Some(Waiter::Intent(to)) = self.waiters.waiting.remove(&ticket) {
                        outgoing.push(Outgoing::Reply(to, reply));
                    }
                }
                Effect::Answer { ticket, answer } => self.answer(ticket, answer, queue, outgoing),
                Effect::Read(request) => outgoing.push(Outgoing::Read(EffectId { cause: seq, index }, request)),
                Effect::Act(act) => outgoing.push(Outgoing::Act(EffectId { cause: seq, index }, act)),
                Effect::Announce { text } => {
                    tracing::warn!("{text}");
                    queue.push_back(Work::Shared(SharedEvent::Announced { text }));
                }
                Effect::Tell(notice) => {
                    log(&notice);
                    if is_drill && notice.is_drill() {
                        self.hops.judged(&notice, self.shared.channels());
                        outgoing.push(Outgoing::Drilled);
                    }
                    outgoing.push(Outgoing::Show(notice.clone()));
                    queue.push_back(Work::Shared(SharedEvent::Notice(notice)));
                }
            }
        }
        record
    }

    fn apply_shared(&mut self, event: SharedEvent, queue: &mut VecDeque<Work>, outgoing: &mut Vec<Outgoing>) -> Record {
        let (seq, at) = (self.seq, self.clock.now());
        let body = text(&event);
        if let SharedEvent::Posted { effect, outcome } = &event {
            self.hops.answered(*effect, outcome);
        }
        let effects = self.shared.apply(at, seq, event);
        let record = Record { seq, chain: SHARED_CHAIN.into(), at, body, effects: effects_text(&effects) };
        for (index, effect) in (0_u32..).zip(effects) {
            match effect {
                SharedEffect::Post(post) => outgoing.push(Outgoing::Post(EffectId { cause: seq, index }, post)),
                SharedEffect::Acknowledge { incident, shown, by, chat, account: _ } => {
                    let ticket = self.ticket(Waiter::Chat(chat));
                    let shown = Some(shown);
                    queue.push_back(Work::Account(Event::Acknowledge { ticket, by, incident, shown }));
                }
                SharedEffect::Command { said, .. } if said.account != self.kernel.declared().account => {
                    let known = &self.kernel.declared().account;
                    let refused = Some(format!("account {} is not watched here, {known} is", said.account).into());
                    queue.push_back(Work::Shared(SharedEvent::Commanded { said, refused }));
                }
                SharedEffect::Command { incident, totp, said } => {
                    queue.push_back(self.ordered(said, incident, totp, None));
                }
                SharedEffect::Show { chat, what } => {
                    let text = self.show(what).into();
                    queue.push_back(Work::Shared(SharedEvent::Answered { chat, text }));
                }
            }
        }
        record
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer, queue: &mut VecDeque<Work>, outgoing: &mut Vec<Outgoing>) {
        match self.waiters.waiting.remove(&ticket) {
            Some(Waiter::Access(to)) => outgoing.push(Outgoing::Answer(to, answer)),
            Some(Waiter::Operator(to)) => outgoing.push(Outgoing::Tell(to, operators_answer(&answer))),
            Some(Waiter::Pairing(to)) => {
                let (told, work) = desk::pairing(&answer, self.clock.now());
                outgoing.push(Outgoing::Tell(to, told));
                queue.extend(work);
            }
            Some(Waiter::Command(said, to)) => {
                outgoing.extend(to.map(|to| Outgoing::Obey(to, operators_answer(&answer))));
                let event = match answer {
                    Answer::Done => Some(SharedEvent::Commanded { said, refused: None }),
                    Answer::Refused { reason } => Some(SharedEvent::Commanded { said, refused: Some(reason) }),
                    // The request itself is told on every channel.
                    Answer::Requested { .. } => None,
                };
                queue.extend(event.map(Work::Shared));
            }
            // An acknowledgement that was taken shows on the card itself.
            Some(Waiter::Chat(chat)) => match answer {
                Answer::Done | Answer::Requested { .. } => {}
                Answer::Refused { reason: text } => {
                    queue.push_back(Work::Shared(SharedEvent::Answered { chat, text }));
                }
            },
            Some(Waiter::Intent(_)) | None => {}
        }
    }

    fn ticket(&mut self, waiter: Waiter) -> Ticket {
        self.waiters.last += 1;
        let ticket = Ticket(self.waiters.last);
        self.waiters.waiting.insert(ticket, waiter);
        ticket
    }

    fn stream(&mut self, event: StreamEvent) -> Option<Work> {
        Some(Work::Account(match event {
            StreamEvent::Feed { connection, change, account: _ } => Event::Feed { connection, change },
            StreamEvent::Report { connection, report, raw, account: _ } => {
                match self.kernel.echo_of(&report, connection) {
                    Some(of) => Event::Echo { connection, of },
                    None => {
                        let tags = self.check(&report);
                        Event::Report { connection, report, tags, raw: raw.into() }
                    }
                }
            }
            StreamEvent::Kept { connection, reason, raw, account: _ } => {
                Event::Kept { connection, reason, raw: raw.into() }
            }
        }))
    }

    fn check(&self, report: &Report) -> Tags {
        match report {
            Report::Execution(report) => self.tags.check_report(report),
            Report::List(_) | Report::Position(_) | Report::Balance(_) | Report::ExternalLock(_) => Tags::NONE,
        }
    }

    fn intake(&mut self, message: IntakeMessage) -> Option<Work> {
        match message {
            IntakeMessage::Intent(request) => self.intent(request),
            IntakeMessage::Hello { bot, reply, account } => {
                let last_seq = self.board.pulse(&account).and_then(|pulse| pulse.last_seqs.get(&bot).copied());
                let hello = HelloReply { last_seq: last_seq.unwrap_or(0), nonce: self.clock.now() };
                if reply.send(hello).is_err() {
                    tracing::debug!(%bot, "A bot said hello and left before the answer.");
                }
                None
            }
            IntakeMessage::Access { evidence, reply } => {
                let ticket = self.ticket(Waiter::Access(reply));
                Some(Work::Account(Event::Access { ticket, evidence }))
            }
        }
    }

    fn intent(&mut self, request: IntakeRequest) -> Option<Work> {
        let IntakeRequest { record, reply } = request;
        let now = self.clock.now();
        if let IntentBody::Heartbeat { egress } = record.body {
            let known = self.waiters.beats.get(&record.bot);
            let every = BEAT_ROWS_EVERY.min(self.kernel.declared().waits.silent_after / 2);
            let recent = known.is_some_and(|(at, known)| now.since(*at) < every && *known == egress);
            let complete = record.seq == self.kernel.last_seq(&record.bot);
            if recent && complete && !self.kernel.heartbeat_wanted() {
                let answer = Ok(Registered { client_order_ids: Vec::new() });
                let beat = IntentReply { seq: record.seq, nonce: now, heartbeat_wanted: false, missing: 0, answer };
                if reply.send(beat).is_err() {
                    tracing::debug!(bot = %record.bot, "A heartbeat's sender left before the answer.");
                }
                return None;
            }
            self.waiters.beats.insert(record.bot.clone(), (now, egress));
        }
        let ticket = self.ticket(Waiter::Intent(reply));
        Some(Work::Account(Event::Intent { ticket, record }))
    }

    /// A chat's messages carry the time of the wall clock; their age is judged in journal time.
    fn in_journal_time(&self, event: SharedEvent) -> SharedEvent {
        match event {
            SharedEvent::Update(update) => {
                SharedEvent::Update(ChatUpdate { at: self.clock.in_journal_time(update.at), ..update })
            }
            other => other,
        }
    }

    fn read(&self, effect: EffectId, mut outcome: ReadOutcome) -> Event {
        self.tags.check_read(&mut outcome);
        Event::Read { effect, outcome }
    }

    fn acted(&self, effect: EffectId, mut outcome: ActOutcome) -> Event {
        if let ActOutcome::Orders(orders) = &mut outcome {
            self.tags.check_snapshots(orders);
        }
        Event::Acted { effect, outcome }
    }

    /// The kernel holds no secret, so one-time passwords are checked here; that each counts once, it knows itself.
    fn totp(&self, way: Way, code: Option<&str>) -> Totp {
        // An authenticator goes by the wall clock.
        code.map_or(Totp::Absent, |code| self.totp.check(way, code, clock::wall()))
    }

    fn ordered(
        &mut self,
        said: Said,
        incident: Option<IncidentId>,
        totp: Totp,
        to: Option<oneshot::Sender<serde_json::Value>>,
    ) -> Work {
        let Said { by, way, why, command, .. } = said.clone();
        let ticket = self.ticket(Waiter::Command(said, to));
        Work::Account(Event::Command { ticket, by, way, why, incident, command, totp })
    }

    fn due(&self) -> Work {
        let now = self.clock.now();
        if self.kernel.due().is_some_and(|due| due <= now) {
            Work::Account(Event::Due)
        } else {
            Work::Shared(SharedEvent::Due)
        }
    }

    fn chores(&self, refusals: &Refusals) -> Option<Work> {
        if let Some(by_ms) = self.clock.jump_ms() {
            return Some(Work::Account(Event::Fault(Fault::ClockJump { by_ms })));
        }
        let (intents, access) = refusals.drain();
        (intents + access > 0).then_some(Work::Account(Event::Refused { intents, access }))
    }

    fn note_pulse(&mut self, outgoing: &mut Vec<Outgoing>) {
        let sight = self.kernel.state().coverage.sight();
        let is_known = |pulse: &Pulse| {
            let mut bots = self.kernel.declared().bots.keys();
            pulse.sight == sight && bots.all(|bot| pulse.last_seqs.get(bot) == Some(&self.kernel.last_seq(bot)))
        };
        if !self.waiters.pulse.as_ref().is_some_and(is_known) {
            let pulse = self.pulse();
            self.waiters.pulse = Some(pulse.clone());
            outgoing.push(Outgoing::Pulse(self.kernel.declared().account.clone(), pulse));
        }
    }

    fn pulse(&self) -> Pulse {
        let bots = self.kernel.declared().bots.keys();
        let last_seqs = bots.map(|bot| (bot.clone(), self.kernel.last_seq(bot))).collect();
        Pulse { sight: self.kernel.state().coverage.sight(), last_seqs }
    }

    /// What was restored is on disk: a bot that says hello before the first commit must not be told of less.
    pub fn post_restored(&self) {
        self.board.post(&self.kernel.declared().account, self.pulse());
    }

    /// Writes both states whole, one row each, in one transaction.
    pub async fn snapshot(&mut self) -> Result<(), WriterGone> {
        let at = self.clock.now();
        let account: &Account = &self.kernel.declared().account;
        let state = Event::Restored {
            state: Box::new(self.kernel.state().clone()),
            declared: Box::new(self.kernel.declared().clone()),
            rules: Box::new(self.kernel.rules().clone()),
        };
        let shared = SharedEvent::Restored(Box::new(self.shared.clone()));
        let row = |seq, chain: &str, body| Record { seq, chain: chain.into(), at, body, effects: String::new() };
        let rows =
            vec![row(self.seq + 1, account.as_str(), text(&state)), row(self.seq + 2, SHARED_CHAIN, text(&shared))];
        self.seq += 2;
        self.since_snapshot = 0;
        self.journal.append(rows).await
    }
}

/// For whoever reads the log alone: each critical incident once, and each step of a containment.
fn log(notice: &Notice) {
    let (account, incident) = (&notice.account, notice.incident);
    if notice.priority == Priority::Critical && notice.revision == 1 {
        tracing::warn!(%account, %incident, "CRITICAL: {}", notice.headline);
    }
    let steps = notice.contained.iter().flat_map(|contained| &contained.lines);
    for step in steps.filter(|step| step.at == notice.updated_at) {
        let what = if notice.is_drill() { "Drill" } else { "Containment" };
        tracing::warn!(%account, %incident, "{what}: {}", step.text);
    }
}
