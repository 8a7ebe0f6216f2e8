//! A desk: one kernel with its bot, its venue and its clock, told step by step what happens. `check` compares all
//! that the kernel then holds with a few lines of text.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use countersign::kernel::account::Kernel;
use countersign::kernel::act::Act;
use countersign::kernel::declared::{Declared, Limits, QuoteLimit, SymbolLimit};
use countersign::kernel::event::{
    Answer, Connection, Effect, EffectId, Event, FeedChange, Issuer, OrderSnapshot, ReadOutcome, ReadRequest, TagCheck,
    Tags, Ticket,
};
use countersign::kernel::incident::{IncidentState, Notice};
use countersign::kernel::intent::{
    CancelTerms, IntentBody, IntentRecord, IntentReply, OrderTerms, ResultOf, SendOutcome, Target,
};
use countersign::kernel::money::Dec;
use countersign::kernel::order::{
    Account, Asset, Bot, ClientId, ExecutionType, OrderId, OrderStatus, OrderType, RejectReason, Side, Symbol,
    TimeInForce,
};
use countersign::kernel::report::{Balance, ExecutionReport, Report};
use countersign::kernel::rule::{Pack, RuleSet};
use countersign::kernel::time::Time;

pub const START: Time = Time::from_millis(1_764_000_000_000);

pub fn dec(text: &str) -> Dec {
    text.parse().expect("a test's decimal is well formed")
}

pub fn id(text: &str) -> ClientId {
    ClientId::new(text)
}

pub fn rules() -> RuleSet {
    let pack: Pack = toml::from_str(include_str!("../../rules/binance-spot.toml")).expect("the stable rules are TOML");
    RuleSet::new([pack]).expect("the stable rules load")
}

pub fn limits() -> Limits {
    let symbol = |quote: &str| SymbolLimit { quote: Asset::new(quote), order_quantity: dec("1") };
    let quote = QuoteLimit { order_notional: dec("50000"), notional_per_hour: dec("1000000") };
    Limits {
        symbols: BTreeMap::from([(Symbol::new("BTCUSDT"), symbol("USDT")), (Symbol::new("ETHUSDT"), symbol("USDT"))]),
        quote: BTreeMap::from([(Asset::new("USDT"), quote)]),
        orders_per_minute: 600,
    }
}

pub struct Desk {
    pub kernel: Kernel,
    pub now: Time,
    pub declared: Declared,
    pub replies: Vec<IntentReply>,
    pub answers: Vec<Answer>,
    pub told: Vec<Notice>,
    pub announced: Vec<String>,
    /// Reads that were asked for and not yet answered.
    pub reads: VecDeque<(EffectId, ReadRequest)>,
    pub acts: VecDeque<(EffectId, Act)>,
    seq: u64,
    bots: BTreeMap<&'static str, Speech>,
}

#[derive(Default)]
struct Speech {
    seq: u64,
    /// The latest nonce of ours that it read.
    heard: Option<Time>,
}

impl Desk {
    /// Started, with nothing connected.
    pub fn dark(change: impl FnOnce(&mut Declared)) -> Self {
        let mut declared = Declared::nothing(Account::new("main"));
        declared.bots.insert(Bot::new("mm"), limits());
        declared.bots.insert(Bot::new("grid"), limits());
        // So that the comparison on a timer stands in no story but its own.
        declared.waits.audit_every = Duration::from_secs(86_400);
        change(&mut declared);
        let mut desk = Self {
            kernel: Kernel::new(Account::new("main")),
            now: START,
            declared,
            replies: Vec::new(),
            answers: Vec::new(),
            told: Vec::new(),
            announced: Vec::new(),
            reads: VecDeque::new(),
            acts: VecDeque::new(),
            seq: 0,
            bots: BTreeMap::new(),
        };
        desk.start();
        desk
    }

    /// One connection is live, the first comparison found nothing, and no bot has spoken.
    pub fn quiet(change: impl FnOnce(&mut Declared)) -> Self {
        let mut desk = Self::dark(change);
        desk.live(1);
        desk.answer(ReadOutcome::OpenOrders(Vec::new()));
        desk.answer(ReadOutcome::Balances(Vec::new()));
        desk.wait_ms(5_000);
        desk
    }

    /// The bot `mm` has announced an order, which was matched and filled (order 1).
    pub fn open() -> Self {
        Self::open_with(|_| {})
    }

    pub fn open_with(change: impl FnOnce(&mut Declared)) -> Self {
        let mut desk = Self::quiet(change);
        let first = desk.order(1, "first");
        desk.say(first.place());
        desk.show(first.placed());
        desk.show(first.filled());
        desk.wait_ms(1_000);
        desk
    }

    pub fn start(&mut self) {
        let (declared, rules) = (Box::new(self.declared.clone()), Box::new(rules()));
        self.event(Event::Started { version: "test".into(), declared, rules });
    }

    /// The process ends and starts again from its snapshot, as it stands on disk.
    pub fn restart(&mut self) {
        let restored = Event::Restored {
            state: Box::new(self.kernel.state().clone()),
            declared: Box::new(self.kernel.declared().clone()),
            rules: Box::new(self.kernel.rules().clone()),
        };
        let text = serde_json::to_string(&restored).expect("a snapshot is JSON");
        self.kernel = Kernel::new(Account::new("main"));
        self.reads.clear();
        self.acts.clear();
        self.event(serde_json::from_str(&text).expect("a snapshot reads back"));
        self.start();
    }

    pub fn event(&mut self, event: Event) {
        self.seq += 1;
        let effects = self.kernel.apply(self.now, self.seq, event);
        for (index, effect) in (0..).zip(effects) {
            match effect {
                Effect::Reply { reply, .. } => self.replies.push(reply),
                Effect::Answer { answer, .. } => self.answers.push(answer),
                Effect::Act(act) => self.acts.push_back((EffectId { cause: self.seq, index }, act)),
                Effect::Read(request) => self.reads.push_back((EffectId { cause: self.seq, index }, request)),
                Effect::Announce { text } => self.announced.push(text.into()),
                Effect::Tell(notice) => {
                    assert_ne!(&*notice.rule, "judging_failed", "{notice:?}");
                    self.told.push(*notice);
                }
            }
        }
    }

    /// Lets time pass; timers fire when they are due.
    pub fn wait_ms(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        while let Some(due) = self.kernel.due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.event(Event::Due);
        }
        self.now = until;
    }

    pub fn live(&mut self, connection: u64) {
        self.feed(connection, FeedChange::Live);
    }

    pub fn lost(&mut self, connection: u64) {
        self.feed(connection, FeedChange::Lost { reason: "reset".into(), heard_until: None });
    }

    pub fn feed(&mut self, connection: u64, change: FeedChange) {
        self.event(Event::Feed { connection: Connection(connection), change });
    }

    /// Answers the oldest read.
    pub fn answer(&mut self, outcome: ReadOutcome) {
        let (effect, _) = self.reads.pop_front().expect("a read was asked for");
        self.event(Event::Read { effect, outcome });
    }

    /// No single order can be read, and the books are empty.
    pub fn answer_reads(&mut self) {
        while let Some((_, request)) = self.reads.front() {
            let outcome = match request {
                ReadRequest::OpenOrders => ReadOutcome::OpenOrders(Vec::new()),
                ReadRequest::Balances => ReadOutcome::Balances(Vec::new()),
                ReadRequest::Order { .. } => failed(),
            };
            self.answer(outcome);
        }
    }

    pub fn show(&mut self, shown: (ExecutionReport, Tags)) {
        self.show_on(1, shown);
    }

    pub fn show_on(&mut self, connection: u64, (report, tags): (ExecutionReport, Tags)) {
        self.report_on(connection, Report::Execution(Box::new(report)), tags);
    }

    pub fn report_on(&mut self, connection: u64, report: Report, tags: Tags) {
        self.event(Event::Report { connection: Connection(connection), report, tags, raw: "{}".into() });
    }

    /// The bot `mm` writes a record now; it may be delivered later.
    pub fn write(&mut self, body: IntentBody) -> IntentRecord {
        self.write_as("mm", body)
    }

    pub fn write_as(&mut self, bot: &'static str, body: IntentBody) -> IntentRecord {
        let speech = self.bots.entry(bot).or_default();
        speech.seq += u64::from(!matches!(body, IntentBody::Heartbeat { .. }));
        IntentRecord {
            account: Account::new("main"),
            bot: Bot::new(bot),
            seq: speech.seq,
            at: self.now,
            nonce: speech.heard,
            supersedes: None,
            strategy: None,
            owner: None,
            body,
        }
    }

    pub fn deliver(&mut self, record: IntentRecord) -> IntentReply {
        let bot = record.bot.clone();
        self.event(Event::Intent { ticket: Ticket(0), record: Box::new(record) });
        let reply = self.replies.last().cloned().expect("every record is answered");
        if let Some((_, speech)) = self.bots.iter_mut().find(|(name, _)| **name == bot.as_str()) {
            speech.heard = Some(reply.nonce);
        }
        reply
    }

    /// Written and delivered at once.
    pub fn say(&mut self, body: IntentBody) -> IntentReply {
        self.say_as("mm", body)
    }

    pub fn say_as(&mut self, bot: &'static str, body: IntentBody) -> IntentReply {
        let record = self.write_as(bot, body);
        self.deliver(record)
    }

    /// Two heartbeats: the second hands back a nonce that was sent after all that was shown so far.
    pub fn pass(&mut self) {
        self.pass_as("mm");
    }

    pub fn pass_as(&mut self, bot: &'static str) {
        self.wait_ms(1);
        self.say_as(bot, IntentBody::Heartbeat { egress: None });
        self.say_as(bot, IntentBody::Heartbeat { egress: None });
    }

    pub fn result(&mut self, of: u64, outcome: SendOutcome) -> IntentReply {
        self.say(IntentBody::Result(ResultOf { of, outcome }))
    }

    pub fn last_seq(&self) -> u64 {
        self.bots["mm"].seq
    }

    /// A limit order of 0.01 BTC at 60000, created now.
    pub fn order(&self, order_id: i64, client_id: &str) -> Shown {
        Shown {
            symbol: Symbol::new("BTCUSDT"),
            order_id: OrderId(order_id),
            client_id: id(client_id),
            side: Side::Buy,
            order_type: OrderType::Limit,
            quantity: dec("0.01"),
            quote_quantity: Dec::ZERO,
            price: dec("60000"),
            created_at: self.now,
            list_id: None,
            tag: TagCheck::Absent,
        }
    }

    /// All that stands in the kernel, less the first order of an open desk.
    pub fn sum_up(&self) -> String {
        let mut text = String::new();
        for ((_, order_id), order) in self.kernel.state().blotter.orders.iter().filter(|((_, id), _)| id.0 != 1) {
            let assurance = order.assurance.map(|assurance| format!(" {assurance}")).unwrap_or_default();
            writeln!(text, "order {order_id}: {}{assurance}", order.verdict).unwrap();
        }
        for (kind, order, verdict) in requests(&self.kernel) {
            writeln!(text, "{kind} {order}: {verdict}").unwrap();
        }
        for notice in self.kernel.notices() {
            let state = match notice.state {
                IncidentState::Open => "",
                IncidentState::Acknowledged => " acknowledged",
                IncidentState::Ended => " ended",
            };
            let orders = if notice.orders > 0 { format!(" orders={}", notice.orders) } else { String::new() };
            let money: String = notice.notional.iter().map(|(asset, money)| format!(" {asset}={money}")).collect();
            writeln!(text, "{}{state}{orders}{money}", notice.rule).unwrap();
        }
        text
    }

    pub fn incident(&self, rule: &str) -> Notice {
        let notices = self.kernel.notices();
        notices.into_iter().find(|notice| &*notice.rule == rule).unwrap_or_else(|| panic!("no incident {rule}"))
    }
}

/// What became of each cancel, amendment and expiry: (kind, order, verdict).
pub fn requests(kernel: &Kernel) -> Vec<(String, i64, String)> {
    let state = serde_json::to_value(kernel.state()).expect("a state is JSON");
    let pairs = state["requests"]["by_key"].as_array().expect("requests are pairs").clone();
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let shown = pairs.iter().map(|pair| {
        let (key, request) = (&pair[0], &pair[1]);
        (word(&request["kind"]), key[0][1].as_i64().unwrap_or(0), word(&request["verdict"]))
    });
    shown.collect()
}

/// Compares what the kernel holds with the expected lines; the text shows both sides.
#[track_caller]
pub fn check(desk: &Desk, expected: &str) {
    let wanted: String =
        expected.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
    let found = desk.sum_up();
    assert!(found == wanted, "\n-- expected\n{wanted}-- found\n{found}-- told\n{:#?}", desk.kernel.notices());
}

/// An order as the venue has it, from which its reports are made.
#[derive(Clone, Debug)]
pub struct Shown {
    pub symbol: Symbol,
    pub order_id: OrderId,
    pub client_id: ClientId,
    pub side: Side,
    pub order_type: OrderType,
    pub quantity: Dec,
    pub quote_quantity: Dec,
    pub price: Dec,
    pub created_at: Time,
    pub list_id: Option<i64>,
    pub tag: TagCheck,
}

impl Shown {
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn tagged(self, issuer: Issuer) -> Self {
        let at = self.created_at;
        self.with(|order| order.tag = TagCheck::Valid { issuer, at })
    }

    pub fn terms(&self) -> OrderTerms {
        let some = |value: Dec| Some(value).filter(|value| value.is_positive());
        OrderTerms {
            client_order_id: self.client_id.clone(),
            symbol: self.symbol.clone(),
            side: self.side,
            order_type: self.order_type,
            time_in_force: (self.order_type == OrderType::Limit).then_some(TimeInForce::Gtc),
            quantity: some(self.quantity),
            quote_quantity: some(self.quote_quantity),
            price: some(self.price),
            stop_price: None,
            trailing_delta: None,
            iceberg_quantity: None,
            peg: None,
            stp_mode: None,
            strategy_id: None,
        }
    }

    pub fn place(&self) -> IntentBody {
        IntentBody::Place(self.terms())
    }

    pub fn cancel(&self, own_id: Option<&str>) -> IntentBody {
        IntentBody::Cancel(CancelTerms {
            symbol: self.symbol.clone(),
            target: Target::Order(self.order_id),
            client_order_id: own_id.map(id),
        })
    }

    pub fn report(&self, execution_type: ExecutionType, status: OrderStatus, filled: Dec) -> ExecutionReport {
        let step = (execution_type as i64) * 1_000 + filled.to_string().len() as i64;
        let at = self.created_at + Duration::from_millis(step.unsigned_abs() / 1_000);
        let quote = filled.checked_mul(self.price).unwrap_or(Dec::ZERO);
        ExecutionReport {
            symbol: self.symbol.clone(),
            order_id: self.order_id,
            client_order_id: self.client_id.clone(),
            request_client_order_id: None,
            side: self.side,
            order_type: self.order_type,
            time_in_force: TimeInForce::Gtc,
            execution_type,
            status,
            reject_reason: RejectReason::None,
            quantity: self.quantity,
            price: self.price,
            stop_price: Dec::ZERO,
            iceberg_quantity: Dec::ZERO,
            quote_quantity: self.quote_quantity,
            last_quantity: filled,
            last_price: self.price,
            last_quote: quote,
            cumulative_quantity: filled,
            cumulative_quote: quote,
            commission: Dec::ZERO,
            commission_asset: None,
            trade_id: None,
            execution_id: Some(self.order_id.0 * 10_000 + step),
            on_book: true,
            maker: true,
            event_at: at,
            transacted_at: at,
            created_at: Some(self.created_at),
            working_at: None,
            list_id: self.list_id,
            stp_mode: None,
            trailing_delta: None,
            strategy_id: None,
            expiry_reason: None,
            counter_order: None,
            peg: None,
        }
    }

    fn tags(&self) -> Tags {
        Tags { order: self.tag, request: TagCheck::Absent }
    }

    pub fn placed(&self) -> (ExecutionReport, Tags) {
        (self.report(ExecutionType::New, OrderStatus::New, Dec::ZERO), self.tags())
    }

    pub fn traded(&self, filled: &str) -> (ExecutionReport, Tags) {
        (self.report(ExecutionType::Trade, OrderStatus::PartiallyFilled, dec(filled)), self.tags())
    }

    pub fn filled(&self) -> (ExecutionReport, Tags) {
        (self.report(ExecutionType::Trade, OrderStatus::Filled, self.quantity), self.tags())
    }

    pub fn canceled(&self, by: &str) -> (ExecutionReport, Tags) {
        let mut report = self.report(ExecutionType::Canceled, OrderStatus::Canceled, Dec::ZERO);
        report.request_client_order_id = Some(id(by));
        (report, self.tags())
    }

    pub fn replaced(&self, quantity: &str, by: &str) -> (ExecutionReport, Tags) {
        let mut report = self.report(ExecutionType::Replaced, OrderStatus::New, Dec::ZERO);
        report.quantity = dec(quantity);
        report.request_client_order_id = Some(id(by));
        (report, self.tags())
    }

    pub fn expired(&self, change: impl FnOnce(&mut ExecutionReport)) -> (ExecutionReport, Tags) {
        let mut report = self.report(ExecutionType::Expired, OrderStatus::Expired, Dec::ZERO);
        change(&mut report);
        (report, self.tags())
    }

    pub fn read(&self, status: OrderStatus) -> OrderSnapshot {
        OrderSnapshot {
            symbol: self.symbol.clone(),
            order_id: self.order_id,
            client_order_id: self.client_id.clone(),
            side: self.side,
            order_type: self.order_type,
            time_in_force: TimeInForce::Gtc,
            status,
            price: self.price,
            quantity: self.quantity,
            executed_quantity: Dec::ZERO,
            executed_quote: Dec::ZERO,
            quote_quantity: self.quote_quantity,
            stop_price: Dec::ZERO,
            iceberg_quantity: Dec::ZERO,
            trailing_delta: None,
            strategy_id: None,
            stp_mode: None,
            list_id: self.list_id,
            peg: None,
            created_at: self.created_at,
            tag: self.tag,
        }
    }

    pub fn found(&self, status: OrderStatus) -> ReadOutcome {
        ReadOutcome::Order(Box::new(self.read(status)))
    }
}

pub fn balance(asset: &str, free: &str, locked: &str) -> Balance {
    Balance { asset: Asset::new(asset), free: dec(free), locked: dec(locked) }
}

pub fn failed() -> ReadOutcome {
    ReadOutcome::Unknown { reason: "timeout".into() }
}
