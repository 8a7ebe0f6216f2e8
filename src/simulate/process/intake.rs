//! The bots' lines: what is said on them, and the answers in their order.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use crate::inlet::wire::reply::{RequestIds, error_answer, intent_answer, nonce_text};
use crate::inlet::wire::{self, Said};
use crate::kernel::event::{Event, Ticket};
use crate::kernel::intent::{IntentBody, IntentRecord, IntentReply, Registered};
use crate::kernel::time::Time;
use crate::simulate::bot::BotTurn;
use crate::simulate::process::Process;
use crate::simulate::world::{Happening, World};

/// As the core has it.
const BEAT_ROWS_EVERY: Duration = Duration::from_secs(5);

/// Whoever waits for the answer to a record.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) bot: usize,
    line: u32,
    place: u64,
    ids: RequestIds,
}

/// Answers leave a line in the order of what was said on it: each waits for those before it.
#[derive(Default)]
pub(super) struct Answers {
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

impl Process {
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

/// The intake.
impl World {
    pub(super) fn heard(&mut self, bot: usize, line: u32, text: &str) {
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

    pub(super) fn answer(&mut self, asker: &Asker, reply: &IntentReply) {
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
