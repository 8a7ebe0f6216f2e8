//! The daemon's process without its tasks: the two kernels in turn, their rows on the way to the disk, and effects that
//! leave once their cause is on it. What the core, the release and the intake decide is decided here in the same way;
//! sockets and threads are the world's queue.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use crate::inlet::wire::reply::{RequestIds, error_answer, intent_answer, nonce_text};
use crate::inlet::wire::{self, Said};
use crate::journal::record::{Record, SHARED_CHAIN, effects_text, text};
use crate::kernel::account::Kernel;
use crate::kernel::act::{Act, ActOutcome};
use crate::kernel::channel::{Post, PostOutcome};
use crate::kernel::event::{Effect, EffectId, Event, Fault, ReadOutcome, ReadRequest, Ticket};
use crate::kernel::incident::{IncidentId, IncidentState, Notice, Priority};
use crate::kernel::intent::{IntentBody, IntentRecord, IntentReply, Registered};
use crate::kernel::order::{Account, Bot as BotName};
use crate::kernel::shared::{Shared, SharedConfig, SharedEffect, SharedEvent};
use crate::kernel::time::Time;
use crate::simulate::acts::Acts;
use crate::simulate::bot::BotTurn;
use crate::simulate::emergency::Intrusion;
use crate::simulate::network::{Network, NetworkTurn};
use crate::simulate::setting::{ACCOUNT, skew};
use crate::simulate::world::{Happening, World};
use crate::venue::binance::request::Get;
use crate::venue::binance::snapshot;
use crate::venue::budget::{self, Budget, Share};
use crate::venue::server_time::ServerTime;

/// As the core and the release have them.
const BEAT_ROWS_EVERY: Duration = Duration::from_secs(5);
const ACTS_WITHIN: Duration = Duration::from_millis(5);
const ALERTS_WITHIN: Duration = Duration::from_millis(250);
const STALLED_AFTER: Duration = Duration::from_secs(3);
/// The venue's code for an order that it does not know.
const NO_SUCH_ORDER: i64 = -2013;
/// The webhook's client gives up after this.
const POST_WITHIN: Duration = Duration::from_secs(10);
/// Once the end has been told, the thief may come back within this.
const BACK_WITHIN_MS: (u32, u32) = (2_000, 15_000);

pub struct Process {
    pub kernel: Kernel,
    pub shared: Shared,
    pub network: Network,
    pub server_time: ServerTime,
    budget: Budget,
    pub acts: Acts,
    seq: u64,
    since_snapshot: usize,
    /// Journal time minus true time, in microseconds.
    ahead: i64,
    askers: BTreeMap<Ticket, Asker>,
    /// By bot and line.
    answers: BTreeMap<(usize, u32), Answers>,
    tickets: u64,
    beats: BTreeMap<BotName, Time>,
    /// Where the bots' sequences stand, as far as it is on disk.
    board: BTreeMap<BotName, u64>,
    waiting: VecDeque<Batch>,
    /// The disk is behind, and that has been told.
    told: bool,
    due_at: Option<Time>,
}

/// Whoever waits for the answer to a record.
#[derive(Debug, Clone)]
struct Asker {
    bot: usize,
    line: u32,
    place: u64,
    ids: RequestIds,
}

/// Answers leave a line in the order of what was said on it: each waits for those before it.
#[derive(Default)]
struct Answers {
    next: u64,
    waiting: VecDeque<(u64, Option<Value>)>,
}

impl Answers {
    fn reserve(&mut self) -> u64 {
        self.next += 1;
        self.waiting.push_back((self.next, None));
        self.next
    }

    /// What may leave now that this one is ready.
    fn give(&mut self, place: u64, answer: Value) -> Vec<Value> {
        if let Some(waiting) = self.waiting.iter_mut().find(|(waiting, _)| *waiting == place) {
            waiting.1 = Some(answer);
        }
        let mut leaving = Vec::new();
        while let Some((_, answer)) = self.waiting.pop_front_if(|(_, answer)| answer.is_some()) {
            leaving.extend(answer);
        }
        leaving
    }
}

/// What one step let happen, and the last row it must be on disk with.
struct Batch {
    seq: u64,
    since: Time,
    outgoing: Vec<Outgoing>,
}

impl Batch {
    fn acts(&self) -> bool {
        self.outgoing.iter().any(|outgoing| matches!(outgoing, Outgoing::Act(..)))
    }

    /// What waits no longer; an act leaves its name behind.
    fn overdue(&mut self, now: Time) -> Vec<Outgoing> {
        let since = self.since;
        let over = |outgoing: &Outgoing| outgoing.waits().is_some_and(|waits| since + waits <= now);
        let (late, mut still): (Vec<Outgoing>, Vec<Outgoing>) =
            std::mem::take(&mut self.outgoing).into_iter().partition(over);
        still.extend(late.iter().filter_map(|outgoing| match outgoing {
            Outgoing::Act(effect, _) => Some(Outgoing::Left(*effect)),
            _ => None,
        }));
        self.outgoing = still;
        late
    }
}

enum Outgoing {
    Reply(Asker, IntentReply),
    Read(EffectId, ReadRequest),
    Post(EffectId, Post),
    Show(Box<Notice>),
    Act(EffectId, Act),
    /// An act of this effect has left before it was on disk.
    Left(EffectId),
    Board(BTreeMap<BotName, u64>),
}

impl Outgoing {
    /// How long it waits for a stalled disk, if not for ever.
    const fn waits(&self) -> Option<Duration> {
        match self {
            Self::Act(..) => Some(ACTS_WITHIN),
            Self::Post(..) | Self::Read(..) | Self::Show(_) | Self::Left(_) => Some(ALERTS_WITHIN),
            Self::Reply(..) | Self::Board(_) => None,
        }
    }
}

enum Work {
    Account(Event),
    Shared(SharedEvent),
}

/// What happens to the process.
pub enum Inside {
    Due,
    Network(NetworkTurn),
    /// A line of a bot has come in, on the connection of that number.
    Heard {
        bot: usize,
        line: u32,
        text: String,
    },
    Synced,
    /// Something has waited for the disk for long enough.
    Late,
    Asked(EffectId, ReadRequest),
    Answered(EffectId, ReadOutcome),
    Posting(EffectId, Post),
    Posted(EffectId, PostOutcome),
    Acknowledged(IncidentId, u64),
    Acting(EffectId, Act),
    Acted(EffectId, ActOutcome),
}

impl Process {
    pub fn journal_time(&self, at: Time) -> Time {
        Time::from_micros(at.micros() + self.ahead)
    }

    pub fn true_time(&self, at: Time) -> Time {
        Time::from_micros(at.micros() - self.ahead)
    }

    /// The exchange has told this address to wait.
    pub fn hold(&mut self, now: Time, pause: Duration) {
        let now = self.journal_time(now);
        self.budget.handle_refusal(now, 429, Some(pause));
        self.network.pair.handle_hold(now + pause);
    }

    fn work_off(&mut self, now: Time, work: Work) -> (Vec<Record>, Vec<Outgoing>) {
        let at = self.journal_time(now);
        let (mut queue, mut rows, mut outgoing) = (VecDeque::from([work]), Vec::new(), Vec::new());
        while let Some(work) = queue.pop_front() {
            self.seq += 1;
            rows.push(match work {
                Work::Account(event) => self.apply_account(at, event, &mut queue, &mut outgoing),
                Work::Shared(event) => self.apply_shared(at, event, &mut outgoing),
            });
        }
        self.since_snapshot += rows.len();
        outgoing.push(Outgoing::Board(self.sequences()));
        (rows, outgoing)
    }

    fn apply_account(
        &mut self,
        at: Time,
        event: Event,
        queue: &mut VecDeque<Work>,
        outgoing: &mut Vec<Outgoing>,
    ) -> Record {
        let seq = self.seq;
        let body = text(&event);
        let effects = self.kernel.apply(at, seq, event);
        let record = Record { seq, chain: ACCOUNT.into(), at, body, effects: effects_text(&effects) };
        for (index, effect) in (0_u32..).zip(effects) {
            match effect {
                Effect::Reply { ticket, reply } => {
                    if let Some(asker) = self.askers.remove(&ticket) {
                        outgoing.push(Outgoing::Reply(asker, reply));
                    }
                }
                Effect::Answer { .. } => {}
                Effect::Read(request) => outgoing.push(Outgoing::Read(EffectId { cause: seq, index }, request)),
                Effect::Act(act) => outgoing.push(Outgoing::Act(EffectId { cause: seq, index }, act)),
                Effect::Announce { text } => queue.push_back(Work::Shared(SharedEvent::Announced { text })),
                Effect::Tell(notice) => {
                    outgoing.push(Outgoing::Show(notice.clone()));
                    queue.push_back(Work::Shared(SharedEvent::Notice(notice)));
                }
            }
        }
        record
    }

    fn apply_shared(&mut self, at: Time, event: SharedEvent, outgoing: &mut Vec<Outgoing>) -> Record {
        let seq = self.seq;
        let body = text(&event);
        let effects = self.shared.apply(at, seq, event);
        let record = Record { seq, chain: SHARED_CHAIN.into(), at, body, effects: effects_text(&effects) };
        for (index, effect) in (0_u32..).zip(effects) {
            match effect {
                SharedEffect::Post(post) => outgoing.push(Outgoing::Post(EffectId { cause: seq, index }, post)),
                // Only a chat asks for these, and none is paired here.
                SharedEffect::Acknowledge { .. } | SharedEffect::Command { .. } | SharedEffect::Show { .. } => {}
            }
        }
        record
    }

    fn snapshot(&mut self, now: Time) -> Vec<Record> {
        let at = self.journal_time(now);
        let state = Event::Restored {
            state: Box::new(self.kernel.state().clone()),
            declared: Box::new(self.kernel.declared().clone()),
            rules: Box::new(self.kernel.rules().clone()),
        };
        let shared = SharedEvent::Restored(Box::new(self.shared.clone()));
        let row = |seq, chain: &str, body| Record { seq, chain: chain.into(), at, body, effects: String::new() };
        let rows = vec![row(self.seq + 1, ACCOUNT, text(&state)), row(self.seq + 2, SHARED_CHAIN, text(&shared))];
        self.seq += 2;
        self.since_snapshot = 0;
        rows
    }

    fn sequences(&self) -> BTreeMap<BotName, u64> {
        let bots = self.kernel.declared().bots.keys();
        bots.map(|bot| (bot.clone(), self.kernel.last_seq(bot))).collect()
    }

    fn ticket(&mut self, asker: Asker) -> Ticket {
        self.tickets += 1;
        self.askers.insert(Ticket(self.tickets), asker);
        Ticket(self.tickets)
    }

    /// A heartbeat that no verdict waits for is answered without a row.
    fn beat(&mut self, now: Time, record: &IntentRecord) -> Option<IntentReply> {
        let IntentBody::Heartbeat { .. } = record.body else { return None };
        let now = self.journal_time(now);
        let every = BEAT_ROWS_EVERY.min(self.kernel.declared().waits.silent_after / 2);
        let recent = self.beats.get(&record.bot).is_some_and(|at| now.since(*at) < every);
        if recent && record.seq == self.kernel.last_seq(&record.bot) && !self.kernel.heartbeat_wanted() {
            let answer = Ok(Registered { client_order_ids: Vec::new() });
            return Some(IntentReply { seq: record.seq, nonce: now, heartbeat_wanted: false, missing: 0, answer });
        }
        self.beats.insert(record.bot.clone(), now);
        None
    }
}

/// The life of the process.
impl World {
    pub fn start_process(&mut self) {
        let replay = match self.disk.restore() {
            Ok(replay) => replay,
            Err(error) => return self.witness.fail(&format!("the journal cannot be restored: {error}")),
        };
        if let Some((seq, recorded, replayed)) = replay.differences.first() {
            self.witness.fail(&format!("row {seq} replays differently: recorded {recorded}, replayed {replayed}"));
        }
        let ran = replay.last_at.is_some();
        let wall_ahead = skew(&mut self.dice, self.script.weather.watcher_skew_ms);
        let base = Time::from_micros(self.now.micros() + wall_ahead * 1_000);
        let base = replay.last_at.map_or(base, |last| last.max(base));
        let kernel = replay.accounts.into_values().next().unwrap_or_else(|| Kernel::new(Account::new(ACCOUNT)));
        let first_connection = kernel.state().coverage.last_connection.map_or(1, |last| last.0 + 1);
        self.life += 1;
        let mut process = Process {
            network: Network::new(base, first_connection, self.dice.draw()),
            kernel,
            shared: replay.shared,
            server_time: ServerTime::default(),
            budget: Budget::default(),
            acts: Acts::default(),
            seq: self.disk.last_synced(),
            since_snapshot: 0,
            ahead: base.micros() - self.now.micros(),
            askers: BTreeMap::new(),
            answers: BTreeMap::new(),
            tickets: 0,
            beats: BTreeMap::new(),
            board: BTreeMap::new(),
            waiting: VecDeque::new(),
            told: false,
            due_at: None,
        };
        process.board = process.sequences();
        self.witness.check_restored(&process.kernel);
        self.process = Some(process);
        self.step(Work::Shared(SharedEvent::Started {
            config: SharedConfig { webhook: true, ..SharedConfig::default() },
        }));
        let (declared, rules) = (Box::new(self.declared.clone()), Box::new(self.rules.clone()));
        self.step_account(Event::Started { version: env!("CARGO_PKG_VERSION").into(), declared, rules });
        if ran {
            self.write_snapshot();
        }
        self.witness.lives.push((self.now, None));
        self.tend_pair();
    }

    /// The process dies: nothing is handed on any more.
    pub fn kill(&mut self, down: Duration) {
        if self.process.is_none() {
            return;
        }
        let sync_made_it = self.chance(50);
        self.disk.lose_unsynced(sync_made_it);
        self.bury(down);
    }

    /// What had come in is recorded, and a snapshot written.
    pub fn stop(&mut self, down: Duration) {
        if self.process.is_none() {
            return;
        }
        self.save_all();
        self.let_out_synced();
        self.bury(down);
    }

    /// As `stop`, for the life that is over before anything begins.
    pub fn end_yesterday(&mut self) {
        self.save_all();
        self.process = None;
        self.witness.died(self.now, self.disk.last_synced());
    }

    fn save_all(&mut self) {
        self.write_snapshot();
        self.disk.end_sync();
        self.disk.begin_sync();
        self.disk.end_sync();
    }

    fn bury(&mut self, down: Duration) {
        self.hang_up_everywhere();
        self.process = None;
        self.witness.died(self.now, self.disk.last_synced());
        for bot in 0..self.bots.len() {
            self.lose_line(bot);
        }
        self.after(down, Happening::Start);
    }

    pub fn step_account(&mut self, event: Event) {
        self.step(Work::Account(event));
    }

    fn step(&mut self, work: Work) {
        let Some(process) = &mut self.process else { return };
        let (rows, outgoing) = process.work_off(self.now, work);
        self.disk.append(rows);
        process.waiting.push_back(Batch { seq: process.seq, since: self.now, outgoing });
        let acts = process.waiting.back().is_some_and(Batch::acts);
        let wants_snapshot = process.since_snapshot >= self.script.snapshot_rows;
        if acts {
            self.inside_at(self.now + ACTS_WITHIN, Inside::Late);
        }
        self.inside_at(self.now + ALERTS_WITHIN, Inside::Late);
        self.inside_at(self.now + STALLED_AFTER, Inside::Late);
        self.sync();
        self.note_due();
        if wants_snapshot {
            self.write_snapshot();
        }
    }

    fn write_snapshot(&mut self) {
        if let Some(process) = &mut self.process {
            let rows = process.snapshot(self.now);
            self.disk.append(rows);
            self.sync();
        }
    }

    fn note_due(&mut self) {
        let Some(process) = &mut self.process else { return };
        let due = [process.kernel.due(), process.shared.due()].into_iter().flatten().min();
        let Some(due) = due.map(|due| process.true_time(due).max(self.now)) else { return };
        if process.due_at.is_none_or(|known| due < known || known < self.now) {
            process.due_at = Some(due);
            self.inside_at(due, Inside::Due);
        }
    }

    pub fn inside(&mut self, inside: Inside) {
        match inside {
            Inside::Due => self.due(),
            Inside::Network(turn) => self.network(turn),
            Inside::Heard { bot, line, text } => self.heard(bot, line, &text),
            Inside::Synced => {
                self.disk.end_sync();
                self.let_out_synced();
                self.sync();
            }
            Inside::Late => self.let_out_late(),
            Inside::Asked(effect, request) => self.ask_exchange(effect, &request),
            Inside::Answered(effect, outcome) => self.read(effect, outcome),
            Inside::Posting(effect, post) => self.post(effect, &post),
            Inside::Posted(effect, outcome) => self.step(Work::Shared(SharedEvent::Posted { effect, outcome })),
            Inside::Acknowledged(incident, revision) => {
                // Nobody waits for the answer: the owner looks at the card.
                let (ticket, shown) = (Ticket(0), Some(revision));
                self.step_account(Event::Acknowledge { ticket, by: "owner".into(), incident, shown });
            }
            Inside::Acting(effect, act) => self.act_on_exchange(effect, &act),
            Inside::Acted(effect, outcome) => self.acted(effect, outcome),
        }
    }

    fn due(&mut self) {
        let Some(process) = &mut self.process else { return };
        process.due_at = None;
        let now = process.journal_time(self.now);
        let account = process.kernel.due().is_some_and(|due| due <= now);
        let shared = process.shared.due().is_some_and(|due| due <= now);
        if account {
            self.step_account(Event::Due);
        } else if shared {
            self.step(Work::Shared(SharedEvent::Due));
        }
        self.note_due();
    }

    pub fn tell_clock_jump(&mut self, by_ms: i64) {
        self.step_account(Event::Fault(Fault::ClockJump { by_ms }));
    }
}

/// The disk, and what waits for it.
impl World {
    fn sync(&mut self) {
        if self.disk.begin_sync() {
            let takes = self.draw(self.script.weather.sync);
            let stalled = self.troubles.disk.filter(|until| *until > self.now);
            let done = self.now + takes;
            self.inside_at(stalled.map_or(done, |until| until + takes), Inside::Synced);
        }
    }

    fn let_out_synced(&mut self) {
        let on_disk = self.disk.last_synced();
        let mut leaving = Vec::new();
        if let Some(process) = &mut self.process {
            while let Some(batch) = process.waiting.pop_front_if(|batch| batch.seq <= on_disk) {
                leaving.extend(batch.outgoing);
            }
            process.told &= !process.waiting.is_empty();
        }
        leaving.into_iter().for_each(|outgoing| self.let_out(outgoing));
    }

    /// Acts, alerts and reads do not wait for a stalled disk for ever.
    fn let_out_late(&mut self) {
        let now = self.now;
        let Some(process) = &mut self.process else { return };
        let (mut leaving, mut alert) = (Vec::new(), None);
        for outgoing in process.waiting.iter_mut().flat_map(|batch| batch.overdue(now)) {
            match outgoing {
                Outgoing::Post(effect, post) => {
                    alert = Some(effect);
                    leaving.push(Outgoing::Post(effect, post.unjournalled()));
                }
                Outgoing::Left(effect) => alert = Some(effect),
                other => leaving.push(other),
            }
        }
        let stalled = process.waiting.front().filter(|batch| batch.since + STALLED_AFTER <= now);
        let fault = match (alert, stalled) {
            _ if process.told => None,
            (Some(effect), _) => Some(Fault::Unjournalled { effect }),
            (None, Some(batch)) => {
                let for_ms = u64::try_from(now.since(batch.since).as_millis()).unwrap_or(u64::MAX);
                Some(Fault::DiskStalled { for_ms })
            }
            (None, None) => None,
        };
        process.told |= fault.is_some();
        leaving.into_iter().for_each(|outgoing| self.let_out(outgoing));
        if let Some(fault) = fault {
            self.step_account(Event::Fault(fault));
        }
    }

    fn let_out(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Reply(asker, reply) => {
                if reply.answer.is_ok() {
                    self.witness.acknowledged(&self.bots[asker.bot].name, reply.seq);
                }
                self.answer(&asker, &reply);
            }
            Outgoing::Read(effect, request) => {
                let at = self.now + self.draw(self.script.weather.request);
                self.inside_at(at, Inside::Asked(effect, request));
            }
            Outgoing::Post(effect, post) => {
                let at = self.now + self.draw((20, 400));
                self.inside_at(at, Inside::Posting(effect, post));
            }
            Outgoing::Show(notice) => {
                self.witness.shown(self.now, &notice);
                if self.witness.is_over() {
                    self.may_intrude(Intrusion::After, BACK_WITHIN_MS);
                }
            }
            Outgoing::Act(effect, act) => self.send_act(effect, act),
            Outgoing::Left(_) => {}
            Outgoing::Board(board) => {
                if let Some(process) = &mut self.process {
                    process.board = board;
                }
            }
        }
    }
}

/// What is asked of the exchange, and what is sent to the owner.
impl World {
    fn ask_exchange(&mut self, effect: EffectId, request: &ReadRequest) {
        let get = Get::of(request);
        let Some(process) = &mut self.process else { return };
        let at = process.journal_time(self.now);
        let outcome = match process.budget.spend(at, get.weight, Share::Reads) {
            Err(held) => Err(held.to_string()),
            Ok(()) => {
                let query = get.signed(self.watch.credential(), process.server_time.at(at));
                let reply = self.exchange.http(self.now, &self.watch.request("GET", get.path, query));
                read_outcome(request, &reply, |status, wait| process.budget.handle_refusal(at, status, wait))
            }
        };
        let outcome = outcome.unwrap_or_else(|reason| ReadOutcome::Unknown { reason: reason.into() });
        self.pump();
        let at = self.now + self.draw(self.script.weather.request);
        self.inside_at(at, Inside::Answered(effect, outcome));
    }

    /// The kernel holds no key, so ids are checked here.
    fn read(&mut self, effect: EffectId, mut outcome: ReadOutcome) {
        match &mut outcome {
            ReadOutcome::Order(order) => order.tag = self.tags.check_snapshot(order),
            ReadOutcome::OpenOrders(orders) => {
                for order in orders {
                    order.tag = self.tags.check_snapshot(order);
                }
            }
            ReadOutcome::Balances(_) | ReadOutcome::NotFound | ReadOutcome::Unknown { .. } => {}
        }
        self.step_account(Event::Read { effect, outcome });
    }

    fn post(&mut self, effect: EffectId, post: &Post) {
        let fails = self.troubles.webhook.is_some_and(|until| until > self.now);
        let (wait, outcome) = match (fails, self.dice.below(3)) {
            (false, _) => (self.draw((20, 400)), PostOutcome::Delivered { message: None }),
            (true, 0) => (POST_WITHIN, PostOutcome::Unknown { reason: "no answer".into() }),
            (true, 1) => (self.draw((20, 400)), PostOutcome::RetryAfter { secs: 2 }),
            (true, _) => (self.draw((20, 400)), PostOutcome::Failed { reason: "503".into(), permanent: false }),
        };
        if let (Post::Webhook(hook), PostOutcome::Delivered { .. } | PostOutcome::Unknown { .. }) = (post, &outcome) {
            let body: Value = serde_json::from_str(&hook.body).unwrap_or(Value::Null);
            self.witness.delivered(self.now, &body);
            self.may_acknowledge(&body);
        }
        self.inside_at(self.now + wait, Inside::Posted(effect, outcome));
    }

    /// The owner reads, thinks, and says that he knows.
    fn may_acknowledge(&mut self, body: &Value) {
        let (Some(incident), Some(revision)) = (body["incident"].as_u64(), body["revision"].as_u64()) else { return };
        let open = body["state"] == json!(IncidentState::Open);
        if open && body["priority"] == json!(Priority::Critical) {
            self.may_decide(IncidentId(incident), body["rule"].as_str().unwrap_or_default());
        }
        if self.script.acknowledges && open && self.chance(50) {
            let at = self.now + self.draw((1_000, 15_000));
            self.inside_at(at, Inside::Acknowledged(IncidentId(incident), revision));
        }
    }
}

fn read_outcome(
    request: &ReadRequest,
    reply: &crate::sim::exchange::HttpReply,
    mut refused: impl FnMut(u16, Option<Duration>),
) -> Result<ReadOutcome, String> {
    use crate::sim::exchange::HttpReply;
    let answer = match reply {
        HttpReply::Answer(answer) | HttpReply::Late(_, answer) => answer,
        HttpReply::Held(_) | HttpReply::Cut => return Err("the connection ended".to_owned()),
    };
    if answer.status == 200 {
        return snapshot::outcome(request, &answer.body).map_err(|kept| kept.to_string());
    }
    if budget::is_refusal(answer.status) {
        let named = answer.headers.iter().find(|(name, _)| *name == "retry-after");
        let wait = named.and_then(|(_, seconds)| seconds.parse().ok()).map(Duration::from_secs);
        refused(answer.status, wait);
    }
    match snapshot::error(&answer.body) {
        Ok(error) if error.code == NO_SUCH_ORDER && matches!(request, ReadRequest::Order { .. }) => {
            Ok(ReadOutcome::NotFound)
        }
        Ok(error) => Err(format!("{}: {}", error.code, error.message)),
        Err(kept) => Err(kept.to_string()),
    }
}

/// The intake.
impl World {
    fn heard(&mut self, bot: usize, line: u32, text: &str) {
        let Some(process) = &mut self.process else { return };
        let wall = process.journal_time(self.now);
        let place = process.answers.entry((bot, line)).or_default().reserve();
        let mut asker = Asker { bot, line, place, ids: RequestIds::default() };
        match wire::read(text.as_bytes(), &self.tags, wall) {
            Err(error) => self.say_to(&asker, error_answer(&error)),
            Ok(Said::Hello { bot: name, .. }) => {
                let last_seq = process.board.get(&name).copied().unwrap_or(0);
                let nonce = nonce_text(process.journal_time(self.now));
                self.say_to(&asker, json!({ "v": 1, "ok": true, "last_seq": last_seq, "nonce": nonce }));
            }
            Ok(Said::Intent(record)) => {
                asker.ids = RequestIds::of(&record);
                if let Some(reply) = process.beat(self.now, &record) {
                    return self.answer(&asker, &reply);
                }
                let ticket = process.ticket(asker);
                let row = process.seq + 1;
                self.witness.heard(self.now, row, &record);
                self.step_account(Event::Intent { ticket, record });
            }
        }
    }

    fn answer(&mut self, asker: &Asker, reply: &IntentReply) {
        let (_, answer) = intent_answer(&asker.ids, reply);
        self.say_to(asker, answer);
    }

    fn say_to(&mut self, asker: &Asker, answer: Value) {
        let (bot, line) = (asker.bot, asker.line);
        let Some(process) = &mut self.process else { return };
        let answers = process.answers.entry((bot, line)).or_default().give(asker.place, answer);
        for answer in answers {
            let takes = self.draw(self.script.weather.line);
            let known = &mut self.bots[bot].down;
            *known = (*known).max(self.now + takes);
            let at = *known;
            self.at(at, Happening::Bot(bot, BotTurn::Told { line, text: answer.to_string() }));
        }
    }
}
