//! What was seen of the watcher from outside: what it showed and sent, what it acknowledged, when it ran. The oracle
//! judges by this, by the script and by the exchange's ledger, and by nothing that the kernel knows of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::kernel::account::Kernel;
use crate::kernel::act::{Act, ActOutcome};
use crate::kernel::incident::{Notice, Priority};
use crate::kernel::intent::{IntentBody, IntentRecord, Target};
use crate::kernel::order::{Bot, Symbol};
use crate::kernel::time::Time;
use crate::simulate::ledger::Key;
use crate::simulate::owner::Word;
use crate::simulate::script::{Mishap, START};

/// Failures that are listed; more are one failure as well.
const FAILURES_MAX: usize = 50;
/// Lines from so long before the start are of another life.
const YESTERDAY: Duration = Duration::from_secs(3_600);

#[derive(Default)]
pub struct Witness {
    /// Each line of an incident once, by when it was first shown.
    pub lines: Vec<Told>,
    known: BTreeSet<(u64, i64, Box<str>)>,
    /// Incidents that were ever critical, by when that was first shown.
    pub critical: BTreeMap<u64, Time>,
    /// When the webhook first got a message that names the incident.
    pub delivered: BTreeMap<u64, Time>,
    /// Sent with its cause on disk: a restart must know of it.
    durable: BTreeSet<u64>,
    /// Ids of orders and requests that a bot's record announced: when, and in which row.
    pub heard: BTreeMap<Box<str>, Vec<(Time, u64)>>,
    /// Cancels and amendments that bots announced.
    pub requests: Vec<Announced>,
    /// Ids that bots sent to the exchange.
    pub sent: BTreeSet<Box<str>>,
    acknowledged: BTreeMap<Bot, u64>,
    pub mishaps: Vec<(Time, Mishap)>,
    pub lives: Vec<(Time, Option<Time>)>,
    /// When the owner's words reached the process.
    pub commands: Vec<(Time, Word)>,
    /// How far the containment was by its card, each time that changed.
    pub words: Vec<(Time, Box<str>)>,
    /// Every act that was asked for, in its order.
    pub asked: Vec<Asked>,
    /// When the way to stop the bots first said that it had.
    pub hook_worked: Option<Time>,
    /// When acts were asked for that nobody answers.
    pub unanswered: Vec<Time>,
    /// What the intake said no to, in its own words.
    pub refusals: Vec<String>,
    pub failures: Vec<String>,
}

/// One act that the outlet was asked for, and the answer that came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub at: Time,
    pub step: Step,
    pub answer: Option<(Time, Reply)>,
    /// The row of its cause.
    pub row: u64,
    /// It left before its cause was on disk, and the process died: nothing can know of it.
    pub forgotten: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    ReadKeys,
    ReadOrders,
    /// To none, or to some.
    SetRights {
        key: Box<str>,
        any: bool,
    },
    DeleteKey {
        key: Box<str>,
    },
    Cancel(Key),
    /// May be done as often as anybody likes.
    Harmless,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    NotDone,
    /// Or the answer said nothing.
    MayBeDone,
    /// The listed ones, and whether each has any right.
    Keys(BTreeMap<Box<str>, bool>),
    Orders(BTreeSet<Key>),
}

/// A cancel or an amendment by its target: `all`, or the order's number or id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    pub at: Time,
    row: u64,
    pub symbol: Box<str>,
    pub target: Box<str>,
}

impl Announced {
    fn new(at: Time, row: u64, symbol: &Symbol, target: &Target) -> Self {
        let target = match target {
            Target::Order(id) => id.to_string(),
            Target::Client(id) => id.to_string(),
            Target::All => "all".to_owned(),
        };
        Self { at, row, symbol: symbol.as_str().into(), target: target.into() }
    }
}

/// One line that the owner could read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub at: Time,
    pub incident: u64,
    pub rule: Box<str>,
    pub text: Box<str>,
}

impl Witness {
    pub fn fail(&mut self, what: &str) {
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(what.to_owned());
        }
    }

    pub fn shown(&mut self, at: Time, notice: &Notice) {
        let incident = notice.incident.0;
        if notice.priority == Priority::Critical {
            self.critical.entry(incident).or_insert(at);
        }
        // What is said of the bot's process beside it is no word on the account.
        let word = notice.contained.as_ref().and_then(|contained| contained.word.split("; the bot").next());
        if let Some(word) = word
            && self.words.last().is_none_or(|(_, before)| **before != *word)
        {
            self.words.push((at, word.into()));
        }
        // What was told on the day before is none of this run.
        for line in notice.lines.iter().filter(|line| line.at + YESTERDAY > START) {
            if self.known.insert((incident, line.at.micros(), line.text.clone())) {
                let (rule, text) = (notice.rule.clone(), line.text.clone());
                self.lines.push(Told { at, incident, rule, text });
            }
        }
    }

    /// The containment has come to its end, as far as it says.
    pub fn is_over(&self) -> bool {
        self.words.last().is_some_and(|(_, word)| !word.starts_with("not "))
    }

    /// Returns its place, by which the answer is noted.
    pub fn asks(&mut self, at: Time, row: u64, act: &Act) -> usize {
        let step = match act {
            Act::ListKeys => Step::ReadKeys,
            Act::OpenOrders => Step::ReadOrders,
            Act::SetRights { key, rights } => Step::SetRights { key: key.as_str().into(), any: rights.any() },
            Act::DeleteKey { key } => Step::DeleteKey { key: key.as_str().into() },
            Act::CancelOrder { symbol, order_id } => Step::Cancel((symbol.to_string(), order_id.0)),
            Act::Probe { .. } | Act::StopBot { .. } => Step::Harmless,
            Act::Balances | Act::FindTransfer { .. } | Act::Quote { .. } | Act::FindOrder { .. } => Step::Harmless,
            // No owner here has money moved or sold, and the ledger would show it.
            Act::Transfer { .. } | Act::Sell { .. } => Step::Harmless,
        };
        self.asked.push(Asked { at, step, answer: None, row, forgotten: false });
        self.asked.len() - 1
    }

    pub fn answered(&mut self, at: Time, place: Option<usize>, outcome: &ActOutcome) {
        let answer = match outcome {
            ActOutcome::Keys(rows) => {
                Reply::Keys(rows.iter().map(|row| (row.key.as_str().into(), row.rights.any())).collect())
            }
            ActOutcome::Orders(orders) => {
                Reply::Orders(orders.iter().map(|order| (order.symbol.to_string(), order.order_id.0)).collect())
            }
            ActOutcome::Refused { .. } | ActOutcome::Held { .. } => Reply::NotDone,
            ActOutcome::Balances(_) | ActOutcome::Quote(_) | ActOutcome::NotFound | ActOutcome::Sold { .. } => {
                Reply::MayBeDone
            }
            ActOutcome::Done { .. } | ActOutcome::Probed(_) | ActOutcome::Unknown { .. } => Reply::MayBeDone,
        };
        if let Some(asked) = place.and_then(|place| self.asked.get_mut(place)) {
            asked.answer = Some((at, answer));
        }
    }

    /// A message of the webhook arrived.
    pub fn delivered(&mut self, at: Time, body: &Value) {
        let single = body["incident"].as_u64();
        let many = body["incidents"].as_array().into_iter().flatten().filter_map(|one| one["incident"].as_u64());
        for incident in single.into_iter().chain(many) {
            self.delivered.entry(incident).or_insert(at);
            if body["unjournalled"] != true {
                self.durable.insert(incident);
            }
        }
    }

    /// A record is about to be judged, in this row.
    pub fn heard(&mut self, at: Time, row: u64, record: &IntentRecord) {
        let mut ids = Vec::new();
        match &record.body {
            IntentBody::Place(terms) => ids.push(&terms.client_order_id),
            IntentBody::Cancel(terms) => {
                ids.extend(&terms.client_order_id);
                self.requests.push(Announced::new(at, row, &terms.symbol, &terms.target));
            }
            IntentBody::Amend(terms) => {
                ids.extend(&terms.client_order_id);
                self.requests.push(Announced::new(at, row, &terms.symbol, &terms.target));
            }
            IntentBody::CancelReplace { cancel, place } => {
                self.requests.push(Announced::new(at, row, &cancel.symbol, &cancel.target));
                ids.extend(&cancel.client_order_id);
                ids.push(&place.client_order_id);
            }
            IntentBody::List(list) => ids.extend(list.legs.iter().map(|leg| &leg.client_order_id)),
            IntentBody::Result(_) | IntentBody::Heartbeat { .. } => {}
        }
        for id in ids {
            self.heard.entry(id.as_str().into()).or_default().push((at, row));
        }
    }

    /// An answer to a record left: it is on disk.
    pub fn acknowledged(&mut self, bot: &Bot, seq: u64) {
        let known = self.acknowledged.entry(bot.clone()).or_default();
        *known = seq.max(*known);
    }

    /// The process ended; what was heard in a row that is not on disk was not heard.
    pub fn died(&mut self, at: Time, last_row: u64) {
        if let Some((_, end)) = self.lives.last_mut() {
            *end = Some(at);
        }
        for heard in self.heard.values_mut() {
            heard.retain(|(_, row)| *row <= last_row);
        }
        self.requests.retain(|announced| announced.row <= last_row);
        // The rows of the next life are numbered from here.
        self.asked.iter_mut().filter(|asked| asked.row > last_row).for_each(|asked| asked.forgotten = true);
    }

    /// Nothing that was acknowledged or told as journalled is lost over a restart.
    pub fn check_restored(&mut self, kernel: &Kernel) {
        for (bot, seq) in self.acknowledged.clone() {
            let known = kernel.last_seq(&bot);
            if known < seq {
                self.fail(&format!("record {seq} of {bot} was acknowledged, and after a restart {known} is the last"));
            }
        }
        let known: BTreeSet<u64> = kernel.notices().iter().map(|notice| notice.incident.0).collect();
        for incident in self.durable.clone() {
            if !known.contains(&incident) {
                self.fail(&format!("incident {incident} was told as journalled, and is gone after a restart"));
            }
        }
    }
}
