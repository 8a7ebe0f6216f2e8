//! The daemon's process without its tasks: the two kernels in turn, their rows on the way to the disk, and effects that
//! leave once their cause is on it. What the core, the release and the intake decide is decided here in the same way;
//! sockets and threads are the world's queue.

mod intake;
mod reading;
mod release;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::journal::record::{Record, SHARED_CHAIN, effects_text, text};
use crate::kernel::account::Kernel;
use crate::kernel::act::{Act, ActOutcome};
use crate::kernel::channel::{Post, PostOutcome};
use crate::kernel::event::{Effect, EffectId, Event, Fault, ReadOutcome, ReadRequest, Ticket};
use crate::kernel::incident::IncidentId;
use crate::kernel::order::{Account, Bot as BotName};
use crate::kernel::shared::{Shared, SharedConfig, SharedEffect, SharedEvent};
use crate::kernel::time::Time;
use crate::simulate::acts::Acts;
use crate::simulate::network::{Network, NetworkTurn};
use crate::simulate::process::intake::{Answers, Asker};
use crate::simulate::process::release::{ACTS_WITHIN, ALERTS_WITHIN, Batch, Outgoing, STALLED_AFTER};
use crate::simulate::setting::{ACCOUNT, skew};
use crate::simulate::world::{Happening, World};
use crate::venue::budget::Budget;
use crate::venue::server_time::ServerTime;

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
