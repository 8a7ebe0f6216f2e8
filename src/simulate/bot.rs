//! A bot: it says what it will do, in the wire's own records over a line that may break, sends its orders by its
//! policy, and tells how they ended. It is honest: what it says is what it sends, and each record carries the nonce it
//! had read when it was said.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use crate::inlet::wire::{self, Said};
use crate::kernel::intent::IntentBody;
use crate::kernel::order::{Bot as BotName, ClientId};
use crate::kernel::time::Time;
use crate::simulate::client::{Answer, Ask, Client, read};
use crate::simulate::process::Inside;
use crate::simulate::script::{BotPlan, Policy};
use crate::simulate::setting::ACCOUNT;
use crate::simulate::trading::{Deal, Plan};
use crate::simulate::world::{Happening, World};
use crate::tag::TagKeys;

/// A request that was not answered by then is told as unknown.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(400);
/// The last orders leave this long before the end.
const QUIET_BEFORE_END: Duration = Duration::from_secs(30);

pub struct Bot {
    pub name: BotName,
    pub plan: BotPlan,
    client: Client,
    /// Of its own key, for ids that it computes itself.
    tags: TagKeys,
    skew_ms: i64,
    line: Line,
    /// Counts the connections to the daemon.
    number: u32,
    /// When the last thing said, and told, arrives.
    up: Time,
    pub down: Time,
    seq: u64,
    nonce: Option<String>,
    unanswered: VecDeque<Record>,
    jobs: BTreeMap<u64, Job>,
    made: u64,
    pub open: Vec<Own>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Down,
    /// Said hello.
    Greeting,
    Up,
}

struct Record {
    seq: u64,
    text: String,
    job: Option<u64>,
}

/// One intent and the request that belongs to it.
struct Job {
    /// Of the record that stands for it.
    seq: u64,
    intent: Value,
    ask: Ask,
    deal: Deal,
    nonce: Option<String>,
    sent: bool,
    given_up: bool,
}

/// An order of its own that was open when it last heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    pub symbol: &'static str,
    pub order_id: i64,
    pub client_id: String,
    pub quantity: String,
    pub amended: bool,
}

pub enum BotTurn {
    Connect,
    Trade,
    Beat { line: u32 },
    Told { line: u32, text: String },
    Impatient { job: u64 },
    Arrives { job: u64 },
    Answered { job: u64, answer: Answer },
    GivesUp { job: u64 },
}

impl Bot {
    pub fn new(name: BotName, plan: BotPlan, client: Client, tags: TagKeys, skew_ms: i64) -> Self {
        Self {
            name,
            plan,
            client,
            tags,
            skew_ms,
            line: Line::Down,
            number: 0,
            up: Time::EPOCH,
            down: Time::EPOCH,
            seq: 0,
            nonce: None,
            unanswered: VecDeque::new(),
            jobs: BTreeMap::new(),
            made: 0,
            open: Vec::new(),
        }
    }

    fn clock(&self, now: Time) -> Time {
        Time::from_micros(now.micros() + self.skew_ms * 1_000)
    }

    fn record(&self, now: Time, intent: &Value, seq: u64, nonce: Option<&String>) -> String {
        let mut record = intent.clone();
        record["v"] = json!(1);
        record["account"] = json!(ACCOUNT);
        record["bot"] = json!(self.name);
        record["seq"] = json!(seq);
        record["at"] = json!(self.clock(now).millis());
        if let Some(nonce) = nonce {
            record["nonce"] = json!(nonce);
        }
        record.to_string()
    }

    /// The ids that the daemon would issue for this record, under the bot's own key.
    fn computed_ids(&self, now: Time, intent: &Value, seq: u64) -> Ids {
        let text = self.record(now, intent, seq, None);
        let Ok(Said::Intent(record)) = wire::read(text.as_bytes(), &self.tags, self.clock(now)) else {
            return Ids::default();
        };
        let text = |id: &ClientId| id.as_str().to_owned();
        match &record.body {
            IntentBody::Place(terms) => Ids { order: Some(text(&terms.client_order_id)), cancel: None },
            IntentBody::Cancel(terms) => Ids { order: terms.client_order_id.as_ref().map(text), cancel: None },
            IntentBody::CancelReplace { cancel, place } => {
                Ids { order: Some(text(&place.client_order_id)), cancel: cancel.client_order_id.as_ref().map(text) }
            }
            IntentBody::Amend(_) | IntentBody::List(_) | IntentBody::Result(_) | IntentBody::Heartbeat { .. } => {
                Ids::default()
            }
        }
    }
}

/// The ids a request carries.
#[derive(Default)]
struct Ids {
    order: Option<String>,
    cancel: Option<String>,
}

impl Job {
    fn carry(&mut self, ids: &Ids) {
        let param = self.deal.id_param();
        for (name, id) in [(param, &ids.order), ("cancelNewClientOrderId", &ids.cancel)] {
            if let Some(id) = id {
                self.ask.params.push((name, id.clone()));
            }
        }
    }

    /// Writes ids that the bot chose into what it says.
    fn announce(&mut self, ids: &Ids) {
        if let (Deal::Replace { .. }, Some(order), Some(cancel)) = (&self.deal, &ids.order, &ids.cancel) {
            self.intent["place"]["client_order_id"] = json!(order);
            self.intent["cancel"]["client_order_id"] = json!(cancel);
        } else if let Some(id) = &ids.order {
            self.intent["client_order_id"] = json!(id);
        }
    }
}

impl World {
    pub fn bot(&mut self, bot: usize, turn: BotTurn) {
        if self.stop.bots_ended && !matches!(turn, BotTurn::Arrives { .. }) {
            return;
        }
        match turn {
            BotTurn::Connect => self.connect_line(bot),
            BotTurn::Trade => self.trade(bot),
            BotTurn::Beat { line } => self.beat(bot, line),
            BotTurn::Told { line, text } => self.told(bot, line, &text),
            BotTurn::Impatient { job } => self.impatient(bot, job),
            BotTurn::Arrives { job } => self.arrive(bot, job),
            BotTurn::Answered { job, answer } => self.answered(bot, job, answer),
            BotTurn::GivesUp { job } => {
                if let Some(job) = self.bots[bot].jobs.remove(&job) {
                    self.tell_result(bot, job.seq, &json!({ "outcome": "unknown" }));
                }
            }
        }
    }

    fn bot_at(&mut self, at: Time, bot: usize, turn: BotTurn) {
        self.at(at, Happening::Bot(bot, turn));
    }

    fn trade(&mut self, bot: usize) {
        if self.now + QUIET_BEFORE_END >= self.script.ends {
            return;
        }
        let pause = self.draw(self.bots[bot].plan.pause);
        self.bot_at(self.now + pause, bot, BotTurn::Trade);
        if self.stop.bots_stopped {
            return;
        }
        let Some(Plan { intent, ask, deal }) = self.plan(bot) else { return };
        let nonce = self.bots[bot].nonce.clone();
        let job = Job { seq: 0, intent, ask, deal, nonce, sent: false, given_up: false };
        self.begin(bot, job);
    }

    fn begin(&mut self, bot: usize, mut job: Job) {
        let it = &self.bots[bot];
        let (policy, patience, is_up) = (it.plan.policy, it.plan.patience, it.line == Line::Up);
        let number = it.made + 1;
        self.bots[bot].made = number;
        let at_once = matches!(policy, Policy::LocalAtOnce | Policy::PlainAtOnce);
        if at_once {
            let ids = self.own_ids(bot, &job, policy == Policy::LocalAtOnce);
            job.announce(&ids);
            job.carry(&ids);
        }
        if !at_once && !is_up && policy == Policy::Refuse {
            return;
        }
        job.seq = self.say(bot, &job.intent, Some(number), job.nonce.clone());
        self.bots[bot].jobs.insert(number, job);
        if at_once {
            self.send(bot, number);
        } else {
            let at = if is_up { self.now + patience } else { self.now };
            self.bot_at(at, bot, BotTurn::Impatient { job: number });
        }
    }

    fn own_ids(&mut self, bot: usize, job: &Job, computed: bool) -> Ids {
        let it = &self.bots[bot];
        if computed {
            return it.computed_ids(self.now, &job.intent, it.seq + 1);
        }
        let mut plain = || format!("{}-{}", self.bots[bot].name, self.dice.base62(12));
        let order = job.deal.takes_id().then(&mut plain);
        let cancel = matches!(job.deal, Deal::Replace { .. }).then(&mut plain);
        Ids { order, cancel }
    }

    /// Says a record: it stays until it is answered, and goes out when the line is up.
    fn say(&mut self, bot: usize, intent: &Value, job: Option<u64>, nonce: Option<String>) -> u64 {
        let it = &mut self.bots[bot];
        it.seq += 1;
        let seq = it.seq;
        let text = it.record(self.now, intent, seq, nonce.as_ref());
        let is_up = it.line == Line::Up;
        it.unanswered.push_back(Record { seq, text: text.clone(), job });
        if is_up {
            self.transmit(bot, text);
        }
        seq
    }

    fn transmit(&mut self, bot: usize, text: String) {
        let takes = self.draw(self.script.weather.line);
        let it = &mut self.bots[bot];
        it.up = it.up.max(self.now + takes);
        let (at, line) = (it.up, it.number);
        self.inside_at(at, Inside::Heard { bot, line, text });
    }

    fn tell_result(&mut self, bot: usize, of: u64, outcome: &Value) {
        let mut intent = json!({ "kind": "result", "of": of });
        if let (Some(into), Some(from)) = (intent.as_object_mut(), outcome.as_object()) {
            into.extend(from.clone());
        }
        let nonce = self.bots[bot].nonce.clone();
        self.say(bot, &intent, None, nonce);
    }
}

/// The line to the daemon.
impl World {
    fn connect_line(&mut self, bot: usize) {
        if self.bots[bot].line != Line::Down {
            return;
        }
        if self.process.is_none() {
            return self.bot_at(self.now + CONNECT_AGAIN_AFTER, bot, BotTurn::Connect);
        }
        let it = &mut self.bots[bot];
        it.number += 1;
        it.line = Line::Greeting;
        let hello = json!({ "v": 1, "account": ACCOUNT, "bot": it.name, "kind": "hello" });
        self.transmit(bot, hello.to_string());
    }

    pub fn lose_line(&mut self, bot: usize) {
        let it = &mut self.bots[bot];
        it.line = Line::Down;
        it.number += 1;
        self.bot_at(self.now + CONNECT_AGAIN_AFTER, bot, BotTurn::Connect);
    }

    pub fn break_line(&mut self, bot: usize, down: Duration) {
        let it = &mut self.bots[bot];
        it.line = Line::Down;
        it.number += 1;
        self.bot_at(self.now + down, bot, BotTurn::Connect);
    }

    fn beat(&mut self, bot: usize, line: u32) {
        let it = &self.bots[bot];
        if it.number != line || it.line != Line::Up {
            return;
        }
        let every = it.plan.beat_every;
        let beat = it.record(self.now, &json!({ "kind": "heartbeat" }), it.seq, it.nonce.as_ref());
        self.transmit(bot, beat);
        self.bot_at(self.now + every, bot, BotTurn::Beat { line });
    }

    fn told(&mut self, bot: usize, line: u32, text: &str) {
        let it = &mut self.bots[bot];
        if it.number != line {
            return;
        }
        let answer: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        if let Some(nonce) = answer["nonce"].as_str() {
            it.nonce = Some(nonce.to_owned());
        }
        if it.line == Line::Greeting {
            return self.greeted(bot, &answer);
        }
        let seq = answer["seq"].as_u64().unwrap_or(0);
        let Some(place) = it.unanswered.iter().position(|record| record.seq == seq) else { return };
        let Some(record) = it.unanswered.remove(place) else { return };
        let Some(number) = record.job else { return };
        if answer["ok"] != true {
            self.witness.refusals.push(format!("{answer} to {}", record.text));
            it.jobs.retain(|known, job| *known != number || job.sent);
            return;
        }
        let Some(job) = it.jobs.get_mut(&number) else { return };
        if job.given_up {
            it.jobs.remove(&number);
            return self.tell_result(bot, seq, &json!({ "outcome": "not_sent" }));
        }
        if !job.sent {
            let id = |name: &str| answer[name].as_str().map(str::to_owned);
            job.carry(&Ids { order: id("client_order_id"), cancel: id("cancel_client_order_id") });
            self.send(bot, number);
        }
    }

    /// The daemon says how far it has heard us; what it has not answered is said again, as it was.
    fn greeted(&mut self, bot: usize, answer: &Value) {
        let it = &mut self.bots[bot];
        it.line = Line::Up;
        it.seq = it.seq.max(answer["last_seq"].as_u64().unwrap_or(0));
        let again: Vec<String> = it.unanswered.iter().map(|record| record.text.clone()).collect();
        let line = it.number;
        again.into_iter().for_each(|text| self.transmit(bot, text));
        self.bot_at(self.now, bot, BotTurn::Beat { line });
    }

    /// The daemon has not answered in time.
    fn impatient(&mut self, bot: usize, number: u64) {
        let policy = self.bots[bot].plan.policy;
        let Some(mut job) = self.bots[bot].jobs.remove(&number).filter(|job| !job.sent) else {
            return;
        };
        if policy == Policy::Refuse {
            job.given_up = true;
            self.bots[bot].jobs.insert(number, job);
            return;
        }
        let before = job.seq;
        self.bots[bot].unanswered.retain(|record| record.seq != before);
        let ids = self.own_ids(bot, &job, policy == Policy::Local);
        job.announce(&ids);
        job.carry(&ids);
        job.intent["supersedes"] = json!(before);
        job.seq = self.say(bot, &job.intent, Some(number), job.nonce.clone());
        self.bots[bot].jobs.insert(number, job);
        self.send(bot, number);
    }
}

/// The way to the exchange.
impl World {
    fn send(&mut self, bot: usize, number: u64) {
        let takes = self.draw(self.script.weather.request);
        let lost = self.chance(self.script.weather.lost_percent);
        if let Some(job) = self.bots[bot].jobs.get_mut(&number) {
            job.sent = true;
        }
        if !lost {
            self.bot_at(self.now + takes, bot, BotTurn::Arrives { job: number });
        }
        self.bot_at(self.now + ANSWER_WITHIN, bot, BotTurn::GivesUp { job: number });
    }

    fn arrive(&mut self, bot: usize, number: u64) {
        let Some(job) = self.bots[bot].jobs.get(&number) else { return };
        for (name, id) in &job.ask.params {
            if name.ends_with("ewClientOrderId") {
                self.witness.sent.insert(id.as_str().into());
            }
        }
        let request = self.bots[bot].client.signed(&job.ask, self.now);
        let answer = read(self.exchange.http(self.now, &request));
        self.pump();
        let takes = self.draw(self.script.weather.request);
        if !self.chance(self.script.weather.lost_percent) {
            self.bot_at(self.now + takes, bot, BotTurn::Answered { job: number, answer });
        }
    }

    fn answered(&mut self, bot: usize, number: u64, answer: Answer) {
        let Some(job) = self.bots[bot].jobs.remove(&number) else { return };
        let outcome = match &answer {
            Ok(body) => {
                let placed = if body["newOrderResponse"].is_object() { &body["newOrderResponse"] } else { body };
                json!({ "outcome": "accepted", "order_id": placed["orderId"].as_i64() })
            }
            // Half of a replacement was done: neither word is true of both halves.
            Err((-2021, _)) => json!({ "outcome": "unknown" }),
            Err((code, message)) => json!({ "outcome": "rejected", "code": code, "message": message }),
        };
        let outcome = without_nulls(outcome);
        self.bots[bot].settle(&job.deal, answer.as_ref().ok());
        self.tell_result(bot, job.seq, &outcome);
    }
}

fn without_nulls(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
    }
    value
}
