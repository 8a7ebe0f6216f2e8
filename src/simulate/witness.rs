//! What was seen of the watcher from outside: what it showed and sent, what it acknowledged, when it ran. The oracle
//! judges by this, by the script and by the exchange's ledger, and by nothing that the kernel knows of itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::kernel::account::Kernel;
use crate::kernel::incident::{Notice, Priority};
use crate::kernel::intent::{IntentBody, IntentRecord, Target};
use crate::kernel::order::{Bot, Symbol};
use crate::kernel::time::Time;
use crate::simulate::script::Mishap;

/// Failures that are listed; more are one failure as well.
const FAILURES_MAX: usize = 50;

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
    /// When the owner's word to kill reached the process.
    pub killed_at: Option<Time>,
    /// When a card first said `contained`.
    pub contained_at: Option<Time>,
    /// What the intake said no to, in its own words.
    pub refusals: Vec<String>,
    pub failures: Vec<String>,
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
        if notice.contained.as_ref().is_some_and(|contained| &*contained.word == "contained") {
            self.contained_at.get_or_insert(at);
        }
        for line in &notice.lines {
            if self.known.insert((incident, line.at.micros(), line.text.clone())) {
                let (rule, text) = (notice.rule.clone(), line.text.clone());
                self.lines.push(Told { at, incident, rule, text });
            }
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
