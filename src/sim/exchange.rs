//! The exchange behind its doors: keys, limits, faults and sessions around the engine. Still pure: requests and the
//! time come in, answers and deliveries go out; the listener only carries them.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kernel::time::Time;
use crate::sim::account::ApiKey;
use crate::sim::config::{ConfigError, SimConfig};
use crate::sim::delivery::{Delivery, Later};
use crate::sim::engine::Engine;
use crate::sim::faults::Faults;
use crate::sim::firehose::Firehose;
use crate::sim::limits::{Limits, banned, too_much_weight};
use crate::sim::market::SYMBOLS;
use crate::sim::op::{Op, Security};
use crate::sim::order::{Actor, Uid};
use crate::sim::params::Params;
use crate::sim::refusal::Refusal;
use crate::sim::session::{ConnectionId, Session};
use crate::sim::{market_data, trading};

const RECV_WINDOW_MS_DEFAULT: i64 = 5_000;
const RECV_WINDOW_MS_MAX: i64 = 60_000;

pub struct Exchange {
    pub(super) engine: Engine,
    pub(super) keys: BTreeMap<String, ApiKey>,
    pub(super) limits: Limits,
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
}

#[derive(Debug, Clone, PartialEq)]
pub struct HttpAnswer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// What a request shows to be let in.
pub(super) struct Credentials<'a> {
    pub api_key: Option<&'a str>,
    pub payload: &'a str,
    pub params: &'a Params,
}

impl Exchange {
    pub fn new(now: Time, config: &SimConfig) -> Result<Self, ConfigError> {
        let mut engine = Engine::new(now, config.seed);
        let mut keys = BTreeMap::new();
        for account in &config.accounts {
            engine.open_account(account.uid, &account.name, &account.checked_balances()?);
            for key in &account.keys {
                keys.insert(key.api_key.clone(), key.checked(account.uid)?);
            }
        }
        Ok(Self {
            engine,
            keys,
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
        })
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

    pub fn http(&mut self, now: Time, request: &HttpRequest) -> HttpAnswer {
        if let Some(path) = request.path.strip_prefix("/sim/v1/") {
            let answer = self.control(now, path, request);
            self.distribute(now);
            return answer;
        }
        let params = Params::from_forms(&request.query, &request.body);
        let result = self.rest(now, request, &params);
        let answer = self.http_answer(now, request, result);
        self.distribute(now);
        answer
    }

    fn rest(&mut self, now: Time, request: &HttpRequest, params: &Params) -> Result<(Value, Option<Uid>), Refusal> {
        if let Some(held) = self.faults.hold_request() {
            let until = now + held.retry_after;
            return Err(if held.status == 418 { banned(until) } else { too_much_weight(6_000, until) });
        }
        let Some(op) = Op::by_route(&request.method, &request.path) else {
            return Err(Refusal::new(404, -1000, "There is no such endpoint on this simulated exchange."));
        };
        let payload = rest_payload(&request.query, &request.body);
        let credentials = Credentials { api_key: request.api_key.as_deref(), payload: &payload, params };
        self.limits.charge(now, request.caller.address, op.weight(params))?;
        let by = self.let_in(now, op.security(), &request.caller, &credentials)?;
        let done = self.perform(now, op, params, by.as_ref(), &request.caller);
        let uid = by.filter(|_| op.places_order()).map(|by| by.uid);
        done.map(|value| (value, uid))
    }

    fn http_answer(
        &mut self,
        now: Time,
        request: &HttpRequest,
        result: Result<(Value, Option<Uid>), Refusal>,
    ) -> HttpAnswer {
        let used = self.limits.weight_used(now, request.caller.address).to_string();
        let mut headers = vec![("x-mbx-used-weight", used.clone()), ("x-mbx-used-weight-1m", used)];
        let (status, body) = match result {
            Ok((value, uid)) => {
                if let Some(uid) = uid {
                    let (in_window, in_day) = self.limits.orders_counted(now, uid);
                    headers.push(("x-mbx-order-count-10s", in_window.to_string()));
                    headers.push(("x-mbx-order-count-1d", in_day.to_string()));
                }
                (200, value.to_string())
            }
            Err(refusal) => {
                if let Some(until) = refusal.retry_at {
                    headers.push(("retry-after", until.since(now).as_millis().div_ceil(1_000).to_string()));
                }
                (refusal.status, refusal.body().to_string())
            }
        };
        HttpAnswer { status, headers, body }
    }

    /// Who is asking, if the operation needs to know: key, address, permission, time, signature.
    pub(super) fn let_in(
        &self,
        now: Time,
        security: Security,
        caller: &Caller,
        shown: &Credentials<'_>,
    ) -> Result<Option<Arc<Actor>>, Refusal> {
        if security == Security::Open {
            return Ok(None);
        }
        let name = shown.api_key.filter(|key| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let name = name.ok_or_else(|| Refusal::new(401, -2014, "API-key format invalid."))?;
        let key = self.usable_key(name, security, caller)?;
        let signature = shown.params.need("signature")?;
        self.check_time(now, shown.params)?;
        if !key.proof.accepts(shown.payload, signature) {
            return Err(Refusal::bad(-1022, "Signature for this request is not valid."));
        }
        Ok(Some(actor(key, caller)))
    }

    pub(super) fn usable_key(&self, name: &str, security: Security, caller: &Caller) -> Result<&ApiKey, Refusal> {
        let key = self.keys.get(name).ok_or_else(Refusal::key_refused)?;
        let here = key.addresses.is_empty() || key.addresses.contains(&caller.address);
        let permitted = security != Security::Trade || key.may_trade;
        if here && permitted { Ok(key) } else { Err(Refusal::key_refused()) }
    }

    pub(super) fn check_time(&self, now: Time, params: &Params) -> Result<(), Refusal> {
        let sent = params.time("timestamp")?.ok_or_else(|| Refusal::missing("timestamp"))?;
        let window = match params.text("recvWindow") {
            None => RECV_WINDOW_MS_DEFAULT,
            Some(text) => {
                let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
                whole.parse::<i64>().map_err(|_| Refusal::illegal("recvWindow", "^[0-9]{1,20}$"))?
            }
        };
        if window > RECV_WINDOW_MS_MAX {
            return Err(Refusal::bad(-1131, "'recvWindow' must be less than 60000."));
        }
        let ours = self.venue_time(now).micros();
        if sent.micros() >= ours + 1_000_000 {
            return Err(Refusal::bad(-1021, "Timestamp for this request was 1000ms ahead of the server's time."));
        }
        if ours - sent.micros() > window.max(0) * 1_000 {
            return Err(Refusal::bad(-1021, "Timestamp for this request is outside of the recvWindow."));
        }
        Ok(())
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
            Op::KeyRestrictions => Ok(self.key_restrictions(by)),
            Op::EmptyList => Ok(json!([])),
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
        if done.is_err() && op.security() == Security::Trade {
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
            | Op::KeyRestrictions
            | Op::EmptyList
            | Op::OrderList => Err(Refusal::key_refused()),
        }
    }

    fn key_restrictions(&self, by: &Actor) -> Value {
        let key = self.keys.values().find(|key| key.name == by.key && key.uid == by.uid);
        json!({
            "ipRestrict": key.is_some_and(|key| !key.addresses.is_empty()),
            "createTime": 1_764_000_000_000_i64,
            "enableReading": true,
            "enableSpotAndMarginTrading": key.is_some_and(|key| key.may_trade),
            "enableWithdrawals": false,
            "enableInternalTransfer": false,
            "enableMargin": false,
            "enableFutures": false,
            "permitsUniversalTransfer": false,
            "enableVanillaOptions": false,
            "enableFixApiTrade": false,
            "enableFixReadOnly": false,
            "enablePortfolioMarginTrading": false,
        })
    }
}

pub(super) fn actor(key: &ApiKey, caller: &Caller) -> Arc<Actor> {
    let (key, uid) = (key.name.clone(), key.uid);
    Arc::new(Actor { uid, key, address: caller.address, agent: caller.agent.clone() })
}

/// What a REST signature covers: query then body as sent, without the signature itself, wherever it stands.
fn rest_payload(query: &str, body: &str) -> String {
    let unsigned =
        |form: &str| form.split('&').filter(|pair| !pair.starts_with("signature=")).collect::<Vec<_>>().join("&");
    unsigned(query) + &unsigned(body)
}
