//! The exchange behind its doors: keys, limits, faults and sessions around the engine. Still pure: requests and the
//! time come in, answers and deliveries go out; the listener only carries them.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kernel::time::Time;
use crate::sim::config::{ConfigError, SimConfig, Unknowns};
use crate::sim::credentials::{Credentials, rest_payload};
use crate::sim::delivery::{Delivery, Later};
use crate::sim::engine::Engine;
use crate::sim::faults::Faults;
use crate::sim::firehose::Firehose;
use crate::sim::keyring::Keyring;
use crate::sim::limits::{Limits, banned, too_much_weight};
use crate::sim::market::SYMBOLS;
use crate::sim::op::{Op, Security};
use crate::sim::order::Actor;
use crate::sim::params::Params;
use crate::sim::refusal::Refusal;
use crate::sim::sapi_limits::SapiLimits;
use crate::sim::session::{ConnectionId, Session};
use crate::sim::transfers::Transfers;
use crate::sim::{market_data, trading};

pub struct Exchange {
    pub(super) engine: Engine,
    pub(super) keys: Keyring,
    pub(super) unknowns: Unknowns,
    pub(super) limits: Limits,
    pub(super) sapi_limits: SapiLimits,
    pub(super) transfers: Transfers,
    pub(super) faults: Faults,
    pub(super) sessions: BTreeMap<ConnectionId, Session>,
    pub(super) connections: ConnectionId,
    pub(super) deliveries: VecDeque<Delivery>,
    pub(super) later: BTreeMap<(Time, u64), Later>,
    pub(super) later_count: u64,
    pub(super) firehose: Option<Firehose>,
    price_step: Option<Duration>,
    next_price: Option<Time>,
}

/// Where a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub address: IpAddr,
    pub agent: Box<str>,
}

#[derive(Debug, Clone)]
pub struct HttpRequest {
    pub method: String,
    pub path: String,
    /// As sent, still percent-encoded: signatures cover it so.
    pub query: String,
    pub body: String,
    pub api_key: Option<String>,
    pub caller: Caller,
    /// It has come before and was told to wait.
    pub held: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct HttpAnswer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum HttpReply {
    Answer(HttpAnswer),
    /// The answer lingers that long; what it tells of has been done.
    Late(Duration, HttpAnswer),
    /// Nothing has been done: ask again after that time, saying that the request was held.
    Held(Duration),
    /// The connection ends without a word.
    Cut,
}

impl Exchange {
    pub fn new(now: Time, config: &SimConfig) -> Result<Self, ConfigError> {
        let mut engine = Engine::new(now, config.seed);
        for account in &config.accounts {
            engine.open_account(account.uid, &account.name, &account.checked_balances()?);
        }
        let mut exchange = Self {
            engine,
            keys: Keyring::new(now, &config.accounts)?,
            unknowns: config.unknowns,
            sapi_limits: SapiLimits::new(config.sapi_weight_per_minute),
            transfers: Transfers::default(),
            limits: Limits::new(config.weight_per_minute, config.orders_per_10s, config.connections_per_5m),
            faults: Faults::default(),
            sessions: BTreeMap::new(),
            connections: 0,
            deliveries: VecDeque::new(),
            later: BTreeMap::new(),
            later_count: 0,
            firehose: None,
            price_step: config.price_step,
            next_price: config.price_step.map(|step| now + step),
        };
        let mut faults = config.faults.iter().cloned();
        faults
            .try_for_each(|fault| exchange.inflict(now, fault))
            .map_err(|refusal| ConfigError::Fault(refusal.message))?;
        Ok(exchange)
    }

    /// When `tick` has something to do next.
    pub fn next_wake(&self) -> Option<Time> {
        let delayed = self.later.first_key_value().map(|((at, _), _)| *at);
        let firehose = self.firehose.as_ref().map(Firehose::next_wake);
        [self.next_price, delayed, firehose].into_iter().flatten().min()
    }

    /// Early or superfluous calls do nothing.
    pub fn tick(&mut self, now: Time) {
        self.deliver_due(now);
        self.run_firehose(now);
        if let Some((step, _)) = self.price_step.zip(self.next_price).filter(|(_, at)| *at <= now) {
            // One move, however late: a paused process does not catch up with a burst.
            self.next_price = Some(now + step);
            for symbol in 0..SYMBOLS.len() {
                self.engine.move_price(now, symbol);
            }
        }
        self.distribute(now);
    }

    pub(super) fn answered(&mut self, now: Time, request: &HttpRequest) -> HttpAnswer {
        if let Some(path) = request.path.strip_prefix("/sim/v1/") {
            return self.control(now, path, request);
        }
        let params = Params::from_forms(&request.query, &request.body);
        if request.path.starts_with("/sapi/") {
            return self.sapi(now, request, &params);
        }
        let mut headers = Vec::new();
        let result = self.rest(now, request, &params, &mut headers);
        let used = self.limits.weight_used(now, request.caller.address).to_string();
        headers.extend([("x-mbx-used-weight", used.clone()), ("x-mbx-used-weight-1m", used)]);
        HttpAnswer::new(now, result, headers)
    }

    fn rest(
        &mut self,
        now: Time,
        request: &HttpRequest,
        params: &Params,
        headers: &mut Vec<(&'static str, String)>,
    ) -> Result<Value, Refusal> {
        self.refuse_held(now)?;
        let op = Op::by_route(&request.method, &request.path).ok_or_else(Refusal::no_such_endpoint)?;
        let payload = rest_payload(&request.query, &request.body);
        let shown = Credentials::of_rest(request, &payload, params, Refusal::key_refused);
        self.limits.charge(now, request.caller.address, op.weight(params))?;
        let by = self.let_in(now, op.security(), &request.caller, &shown)?;
        let done = self.perform(now, op, params, by.as_ref(), &request.caller)?;
        if let Some(by) = by.filter(|_| op.places_order()) {
            let (in_window, in_day) = self.limits.orders_counted(now, by.uid);
            headers.push(("x-mbx-order-count-10s", in_window.to_string()));
            headers.push(("x-mbx-order-count-1d", in_day.to_string()));
        }
        Ok(done)
    }

    /// Requests that a script wants refused.
    pub(super) fn refuse_held(&mut self, now: Time) -> Result<(), Refusal> {
        let Some(held) = self.faults.hold_request() else { return Ok(()) };
        let until = now + held.retry_after;
        Err(if held.status == 418 { banned(until) } else { too_much_weight(6_000, until) })
    }

    /// The clock that the exchange shows; a fault may put it off.
    pub(super) const fn venue_time(&self, now: Time) -> Time {
        Time::from_micros(now.micros() + self.faults.clock_offset_ms * 1_000)
    }

    /// Does it and, where it changes orders, counts it.
    pub(super) fn perform(
        &mut self,
        now: Time,
        op: Op,
        params: &Params,
        by: Option<&Arc<Actor>>,
        caller: &Caller,
    ) -> Result<Value, Refusal> {
        let Some(by) = by else { return self.perform_open(now, op, params) };
        if op.places_order() {
            self.limits.count_order(now, by.uid)?;
        }
        let engine = &mut self.engine;
        let done = match op {
            Op::PlaceOrder => trading::place(engine, now, by, params),
            Op::TestOrder => trading::test(engine, now, by, params),
            Op::CancelOrder => trading::cancel(engine, now, by, params),
            Op::CancelAll => trading::cancel_all(engine, now, by, params),
            Op::CancelReplace => trading::cancel_replace(engine, now, by, params),
            Op::Amend => trading::amend(engine, now, by, params),
            Op::QueryOrder => trading::query(engine, by, params),
            Op::OpenOrders => trading::open_orders(engine, by, params),
            Op::AllOrders => trading::all_orders(engine, by, params),
            Op::MyTrades => trading::my_trades(engine, by, params),
            Op::Account => trading::account(engine, by, params),
            Op::Commission => trading::commission(engine, params),
            Op::OrderRate => Ok(json!(self.limits.order_rows(now, by.uid))),
            Op::OrderList => Err(Refusal::bad(-1013, "Order lists are not supported for this symbol.")),
            Op::Ping
            | Op::Time
            | Op::ExchangeInfo
            | Op::Depth
            | Op::Klines
            | Op::TickerPrice
            | Op::TickerBook
            | Op::TickerDay
            | Op::AveragePrice
            | Op::Retired => self.perform_open(now, op, params),
        };
        if done.is_err() && op.security() == Security::TRADE {
            self.limits.charge_failure(now, caller.address);
        }
        done
    }

    fn perform_open(&self, now: Time, op: Op, params: &Params) -> Result<Value, Refusal> {
        let engine = &self.engine;
        match op {
            Op::Ping => Ok(json!({})),
            Op::Time => Ok(json!({ "serverTime": self.venue_time(now).millis() })),
            Op::ExchangeInfo => {
                market_data::exchange_info(engine, self.venue_time(now), self.limits.described(), params)
            }
            Op::Depth => market_data::depth(engine, params),
            Op::Klines => market_data::klines(engine, now, params),
            Op::TickerPrice => market_data::ticker_price(engine, params),
            Op::TickerBook => market_data::ticker_book(engine, params),
            Op::TickerDay => market_data::ticker_day(engine, now, params),
            Op::AveragePrice => market_data::average_price(engine, now, params),
            Op::Retired => Err(Refusal::new(410, -1000, "This endpoint has been retired; use the WebSocket API.")),
            Op::Account
            | Op::Commission
            | Op::PlaceOrder
            | Op::TestOrder
            | Op::QueryOrder
            | Op::CancelOrder
            | Op::OpenOrders
            | Op::CancelAll
            | Op::CancelReplace
            | Op::Amend
            | Op::AllOrders
            | Op::MyTrades
            | Op::OrderRate
            | Op::OrderList => Err(Refusal::key_refused()),
        }
    }
}

impl HttpAnswer {
    pub(super) fn new(now: Time, result: Result<Value, Refusal>, mut headers: Vec<(&'static str, String)>) -> Self {
        let (status, body) = match result {
            Ok(value) => (200, value.to_string()),
            Err(refusal) => {
                if let Some(until) = refusal.retry_at {
                    headers.push(("retry-after", until.since(now).as_millis().div_ceil(1_000).to_string()));
                }
                (refusal.status, refusal.body().to_string())
            }
        };
        Self { status, headers, body }
    }
}
