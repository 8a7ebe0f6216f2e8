//! The bots' side of the account: sequences, what was answered, watermarks, silence.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::kernel::intent::{IntentRecord, Refusal, Registered};
use crate::kernel::limits::Usage;
use crate::kernel::order::Bot;
use crate::kernel::time::Time;

/// Answers kept for repeated records. An older repeat is a replay and says the last sequence.
const ANSWERS_MAX: usize = 256;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Bots(BTreeMap<Bot, BotState>);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BotState {
    /// It stands in the configuration.
    declared: bool,
    pub last_seq: u64,
    pub heard_at: Option<Time>,
    /// An intent of this bot was once accepted: it is connected.
    pub connected: bool,
    pub silent: bool,
    /// The latest nonce of ours that it echoed: everything it said before that is here.
    pub watermark: Option<Time>,
    pub missing: u64,
    pub egress: Option<IpAddr>,
    pub usage: Usage,
    answers: VecDeque<(u64, IntentRecord, Result<Registered, Refusal>)>,
}

/// What a record's sequence says of it.
pub enum Turn {
    /// The next one, after `missing` that never came.
    Next {
        missing: u64,
    },
    /// Answered before, with the same content.
    Repeat(Result<Registered, Refusal>),
    Refused(Refusal),
}

impl Bots {
    /// Takes over who is declared now. A bot that no longer is keeps its sequence, and is not waited for.
    pub fn declare<'a>(&mut self, declared: impl Iterator<Item = &'a Bot>) {
        self.0.values_mut().for_each(|bot| bot.declared = false);
        for bot in declared {
            self.0.entry(bot.clone()).or_default().declared = true;
        }
    }

    pub fn state(&self, bot: &Bot) -> Option<&BotState> {
        self.0.get(bot)
    }

    pub fn state_mut(&mut self, bot: &Bot) -> Option<&mut BotState> {
        self.0.get_mut(bot).filter(|bot| bot.declared)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Bot, &BotState)> {
        self.0.iter().filter(|(_, bot)| bot.declared)
    }

    pub fn any_connected(&self) -> bool {
        self.iter().any(|(_, bot)| bot.connected)
    }

    /// Every bot that speaks has said all it had to say until then; `None` while no bot speaks, or one of them never
    /// handed a nonce back. One whose beats hand it back speaks, although it has announced nothing yet: it may be about to.
    pub fn passed(&self) -> Option<Time> {
        let speaks = |bot: &&BotState| (bot.connected || bot.watermark.is_some()) && !bot.silent;
        let speaking = self.iter().map(|(_, bot)| bot).filter(speaks);
        speaking.map(|bot| bot.watermark).min().flatten()
    }

    pub fn have_passed(&self, seen: Time) -> bool {
        self.passed().is_some_and(|passed| passed >= seen)
    }
}

impl BotState {
    pub fn turn(&self, record: &IntentRecord) -> Turn {
        if record.seq > self.last_seq {
            // The first record a daemon ever sees may start anywhere: a gap needs something before it.
            let missing = if self.last_seq == 0 { 0 } else { record.seq - self.last_seq - 1 };
            return Turn::Next { missing };
        }
        match self.answers.iter().find(|(seq, ..)| *seq == record.seq) {
            Some((_, before, answer)) if same_content(before, record) => Turn::Repeat(answer.clone()),
            Some(_) => Turn::Refused(Refusal::Conflict),
            None => Turn::Refused(Refusal::Replay { last_seq: self.last_seq }),
        }
    }

    /// Notes that the bot spoke; returns the nonce that its sequence has reached.
    pub fn hear(&mut self, now: Time, record: &IntentRecord, missing: u64) -> Option<Time> {
        self.missing = self.missing.saturating_add(missing);
        // What was given up on its way, and is told again under a new number, is missing no more.
        let came = |seq| self.answers.iter().any(|(known, ..)| *known == seq);
        if record.supersedes.is_some_and(|seq| !came(seq)) {
            self.missing = self.missing.saturating_sub(1);
        }
        self.last_seq = record.seq;
        self.watermark = self.watermark.max(record.nonce.filter(|nonce| *nonce <= now));
        self.watermark
    }

    pub fn remember(&mut self, record: IntentRecord, answer: Result<Registered, Refusal>) {
        if self.answers.len() == ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back((record.seq, record, answer));
    }
}

/// The same record told twice, whatever nonce it rode on.
fn same_content(before: &IntentRecord, again: &IntentRecord) -> bool {
    let again = IntentRecord { nonce: before.nonce, ..again.clone() };
    *before == again
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::intent::IntentBody;
    use crate::kernel::order::Account;

    #[test]
    fn a_record_told_again_is_not_missing() {
        let now = Time::from_millis(1_000);
        let mut bot = BotState::default();
        for (seq, supersedes, missing) in [
            (1, None, 0),
            // 2 and 3 were on their way when the connection broke; 4 and 5 tell them again, 7 tells again what came.
            (4, Some(2), 1),
            (5, Some(3), 0),
            (7, Some(5), 1),
        ] {
            let record = IntentRecord {
                account: Account::new("main"),
                bot: Bot::new("grid"),
                seq,
                at: now,
                nonce: None,
                supersedes,
                strategy: None,
                owner: None,
                body: IntentBody::Heartbeat { egress: None },
            };
            let Turn::Next { missing: before } = bot.turn(&record) else { panic!("{seq} is next") };
            bot.hear(now, &record, before);
            bot.remember(record, Ok(Registered { client_order_ids: Vec::new() }));
            assert_eq!(bot.missing, missing, "after {seq}");
        }
    }
}
