//! A WebSocket API connection: requests with their ids, logon, and the subscriptions to accounts' private streams.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::kernel::time::Time;
use crate::sim::config::StreamsOfDeletedKeys;
use crate::sim::credentials::{Credentials, actor};
use crate::sim::delivery::{Delivery, Push, envelope};
use crate::sim::event::stream_terminated;
use crate::sim::exchange::{Caller, Exchange};
use crate::sim::key::{KeyProof, Permission};
use crate::sim::op::{Op, Security};
use crate::sim::order::{Actor, Uid};
use crate::sim::params::Params;
use crate::sim::refusal::Refusal;

pub type ConnectionId = u64;

/// Connections at once; one more is refused.
const SESSIONS_MAX: usize = 4_096;
const ACTIVE_SUBSCRIPTIONS_MAX: usize = 1_000;
const SUBSCRIPTIONS_MAX: u32 = 65_535;

#[derive(Debug)]
pub struct Session {
    pub caller: Caller,
    pub since: Time,
    pub frozen: bool,
    rate_limits: bool,
    logon: Option<Logon>,
    pub subscriptions: BTreeMap<u32, Subscription>,
    next_subscription: u32,
}

#[derive(Debug, Clone)]
struct Logon {
    api_key: String,
    since: Time,
}

#[derive(Debug, Clone)]
pub struct Subscription {
    pub uid: Uid,
    /// The key that opened it.
    api_key: Box<str>,
    by_logon: bool,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    method: String,
    #[serde(default)]
    params: BTreeMap<String, Box<RawValue>>,
}

impl Session {
    pub fn subscription_of(&self, uid: Uid) -> Option<u32> {
        self.subscriptions.iter().find(|(_, subscription)| subscription.uid == uid).map(|(id, _)| *id)
    }
}

/// What a session's own methods do; the rest is in `Op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionOp {
    Logon,
    Status,
    Logout,
    Subscribe,
    SubscribeSigned,
    Unsubscribe,
    List,
}

impl SessionOp {
    fn by_method(method: &str) -> Option<Self> {
        Some(match method {
            "session.logon" => Self::Logon,
            "session.status" => Self::Status,
            "session.logout" => Self::Logout,
            "userDataStream.subscribe" => Self::Subscribe,
            "userDataStream.subscribe.signature" => Self::SubscribeSigned,
            "userDataStream.unsubscribe" => Self::Unsubscribe,
            "session.subscriptions" => Self::List,
            _ => return None,
        })
    }
}

impl Exchange {
    pub fn connect(&mut self, now: Time, caller: Caller, query: &str) -> Result<ConnectionId, Refusal> {
        self.limits.connect(now, caller.address)?;
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(Refusal::new(503, -1008, "Server is currently overloaded with other requests."));
        }
        let rate_limits = Params::from_forms(query, "").text("returnRateLimits") != Some("false");
        self.connections += 1;
        self.sessions.insert(
            self.connections,
            Session {
                caller,
                since: now,
                frozen: false,
                rate_limits,
                logon: None,
                subscriptions: BTreeMap::new(),
                next_subscription: 0,
            },
        );
        Ok(self.connections)
    }

    pub fn disconnected(&mut self, connection: ConnectionId) {
        self.sessions.remove(&connection);
        self.faults.held_back.remove(&connection);
    }

    pub fn message(&mut self, now: Time, connection: ConnectionId, text: &str) {
        if self.sessions.get(&connection).is_none_or(|session| session.frozen) {
            return;
        }
        self.revoke_dead_logon(now, connection);
        match serde_json::from_str::<Request<'_>>(text) {
            Ok(request) => {
                let id = request.id.map_or("null", RawValue::get).to_owned();
                let (method, params) = (request.method, Params::from_json(request.params));
                let result = self.answer(now, connection, &method, &params);
                self.reply(now, connection, &id, &params, result);
            }
            Err(_) => {
                let refusal = Refusal::bad(-1000, "A request is an object with 'id', 'method' and 'params'.");
                self.reply(now, connection, "null", &Params::default(), Err(refusal));
            }
        }
        self.distribute(now);
    }

    fn answer(&mut self, now: Time, connection: ConnectionId, method: &str, params: &Params) -> Result<Value, Refusal> {
        let Some(session) = self.sessions.get(&connection) else { return Err(Refusal::key_refused()) };
        let caller = session.caller.clone();
        if let Some(op) = SessionOp::by_method(method) {
            self.limits.charge(now, caller.address, 2)?;
            return self.session_op(now, connection, &caller, op, params);
        }
        let Some(op) = Op::by_ws_method(method) else {
            return Err(Refusal::bad(-1000, format!("There is no method {method:?} on this simulated exchange.")));
        };
        self.limits.charge(now, caller.address, op.weight(params))?;
        let by = self.ws_let_in(now, connection, &caller, op.security(), params)?;
        self.perform(now, op, params, by.as_ref(), &caller)
    }

    /// A logged-on session may leave key and signature out; what it gives all the same counts.
    fn ws_let_in(
        &self,
        now: Time,
        connection: ConnectionId,
        caller: &Caller,
        security: Security,
        params: &Params,
    ) -> Result<Option<Arc<Actor>>, Refusal> {
        let logon = self.sessions.get(&connection).and_then(|session| session.logon.as_ref());
        let logon = logon.filter(|_| params.text("apiKey").is_none());
        if let (Some(logon), Security::Signed(permission)) = (logon, security) {
            let key = self.usable_key(&logon.api_key, Some(permission), caller)?;
            self.check_time(now, params)?;
            return Ok(Some(actor(key, caller)));
        }
        self.let_in(now, security, caller, &Credentials::of_ws(&params.signed_text(), params))
    }

    fn session_op(
        &mut self,
        now: Time,
        connection: ConnectionId,
        caller: &Caller,
        op: SessionOp,
        params: &Params,
    ) -> Result<Value, Refusal> {
        match op {
            SessionOp::Logon => {
                let api_key = params.need("apiKey")?.to_owned();
                if self.keys.get(&api_key).is_some_and(|key| matches!(key.proof, KeyProof::Hmac(_))) {
                    return Err(Refusal::bad(-4056, "HMAC_SHA256 API key is not supported."));
                }
                self.let_in(now, Security::READ, caller, &Credentials::of_ws(&params.signed_text(), params))?;
                if let Some(session) = self.sessions.get_mut(&connection) {
                    session.logon = Some(Logon { api_key, since: now });
                }
                Ok(self.session_status(now, connection))
            }
            SessionOp::Status => Ok(self.session_status(now, connection)),
            SessionOp::Logout => {
                self.log_out(now, connection);
                Ok(self.session_status(now, connection))
            }
            SessionOp::Subscribe => {
                let logon = self.sessions.get(&connection).and_then(|session| session.logon.as_ref());
                let api_key = logon.map(|logon| logon.api_key.clone()).ok_or_else(Refusal::key_refused)?;
                let uid = self.usable_key(&api_key, Some(Permission::Reading), caller)?.uid;
                self.subscribe(connection, Subscription { uid, api_key: api_key.into(), by_logon: true })
            }
            SessionOp::SubscribeSigned => {
                let shown = params.signed_text();
                let by = self.let_in(now, Security::READ, caller, &Credentials::of_ws(&shown, params))?;
                let (uid, api_key) = (by.ok_or_else(Refusal::key_refused)?.uid, params.need("apiKey")?.into());
                self.subscribe(connection, Subscription { uid, api_key, by_logon: false })
            }
            SessionOp::Unsubscribe => self.unsubscribe(now, connection, params),
            SessionOp::List => Ok(self.listed_subscriptions(connection)),
        }
    }

    fn subscribe(&mut self, connection: ConnectionId, subscription: Subscription) -> Result<Value, Refusal> {
        let Some(session) = self.sessions.get_mut(&connection) else { return Err(Refusal::key_refused()) };
        if session.subscription_of(subscription.uid).is_some() {
            return Err(Refusal::bad(-2035, "Subscription already active."));
        }
        if session.subscriptions.len() >= ACTIVE_SUBSCRIPTIONS_MAX || session.next_subscription >= SUBSCRIPTIONS_MAX {
            return Err(Refusal::bad(-2042, "The maximum number of subscriptions of this connection is reached."));
        }
        let id = session.next_subscription;
        session.next_subscription += 1;
        session.subscriptions.insert(id, subscription);
        Ok(json!({ "subscriptionId": id }))
    }

    fn unsubscribe(&mut self, now: Time, connection: ConnectionId, params: &Params) -> Result<Value, Refusal> {
        let asked = params.number("subscriptionId")?;
        let Some(session) = self.sessions.get_mut(&connection) else { return Err(Refusal::key_refused()) };
        let ended: Vec<u32> = session
            .subscriptions
            .keys()
            .copied()
            .filter(|id| asked.is_none_or(|asked| asked == i64::from(*id)))
            .collect();
        if ended.is_empty() && asked.is_some() {
            return Err(Refusal::bad(-2036, "Subscription not active."));
        }
        self.terminate(now, connection, &ended);
        Ok(json!({}))
    }

    fn terminate(&mut self, now: Time, connection: ConnectionId, subscriptions: &[u32]) {
        for id in subscriptions {
            if let Some(session) = self.sessions.get_mut(&connection) {
                session.subscriptions.remove(id);
            }
            self.push_text(connection, envelope(*id, &stream_terminated(now)));
        }
    }

    /// Ends the logon and the subscription that hung on it; signed ones stay.
    fn log_out(&mut self, now: Time, connection: ConnectionId) {
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        session.logon = None;
        let by_logon = session.subscriptions.iter().filter(|(_, subscription)| subscription.by_logon);
        let ended: Vec<u32> = by_logon.map(|(id, _)| *id).collect();
        self.terminate(now, connection, &ended);
    }

    /// A key that is no longer let in ends its session at the next request, as the venue says.
    fn revoke_dead_logon(&mut self, now: Time, connection: ConnectionId) {
        let Some(session) = self.sessions.get(&connection) else { return };
        let Some(logon) = &session.logon else { return };
        if self.usable_key(&logon.api_key, Some(Permission::Reading), &session.caller).is_err() {
            self.log_out(now, connection);
            let body = json!({ "id": null, "status": 401, "error": Refusal::key_refused().body() });
            self.push_text(connection, body.to_string());
        }
    }

    /// A deleted key's subscriptions, where they do not outlive it.
    pub(super) fn end_streams_of(&mut self, now: Time, api_key: &str) {
        if self.unknowns.streams_of_deleted_keys == StreamsOfDeletedKeys::Keep {
            return;
        }
        let connections: Vec<ConnectionId> = self.sessions.keys().copied().collect();
        for connection in connections {
            let Some(session) = self.sessions.get_mut(&connection) else { continue };
            let opened = session.subscriptions.iter().filter(|(_, subscription)| *subscription.api_key == *api_key);
            let ended: Vec<u32> = opened.map(|(id, _)| *id).collect();
            match self.unknowns.streams_of_deleted_keys {
                StreamsOfDeletedKeys::Keep => {}
                StreamsOfDeletedKeys::Terminate => self.terminate(now, connection, &ended),
                StreamsOfDeletedKeys::FallSilent => session.subscriptions.retain(|id, _| !ended.contains(id)),
            }
        }
    }

    fn session_status(&self, now: Time, connection: ConnectionId) -> Value {
        let Some(session) = self.sessions.get(&connection) else { return Value::Null };
        let logon = session.logon.as_ref();
        json!({
            "apiKey": logon.map(|logon| &logon.api_key),
            "authorizedSince": logon.map(|logon| logon.since.millis()),
            "connectedSince": session.since.millis(),
            "returnRateLimits": session.rate_limits,
            "serverTime": self.venue_time(now).millis(),
            "userDataStream": session.subscriptions.values().any(|subscription| subscription.by_logon),
        })
    }

    fn listed_subscriptions(&self, connection: ConnectionId) -> Value {
        let session = self.sessions.get(&connection);
        let all = session.into_iter().flat_map(|session| &session.subscriptions);
        let listed = all.filter(|(_, subscription)| !self.faults.unlists(connection, subscription.uid));
        listed.map(|(id, _)| json!({ "subscriptionId": id })).collect()
    }

    fn reply(
        &mut self,
        now: Time,
        connection: ConnectionId,
        id: &str,
        params: &Params,
        result: Result<Value, Refusal>,
    ) {
        let (status, field, body) = match result {
            Ok(value) => (200, "result", value),
            Err(refusal) => {
                let mut body = refusal.body();
                if let Some(until) = refusal.retry_at {
                    body["data"] = json!({ "serverTime": now.millis(), "retryAfter": until.millis() });
                }
                (refusal.status, "error", body)
            }
        };
        let limits = self.reply_limits(now, connection, params);
        let text = format!(r#"{{"id":{id},"status":{status},"{field}":{body}{limits}}}"#);
        self.deliveries.push_back(Delivery { connection, push: Push::Text(text) });
    }

    fn reply_limits(&mut self, now: Time, connection: ConnectionId, params: &Params) -> String {
        let Some(session) = self.sessions.get(&connection) else { return String::new() };
        let wanted = params.text("returnRateLimits").map_or(session.rate_limits, |word| word != "false");
        if !wanted {
            return String::new();
        }
        let address = session.caller.address;
        let key = params.text("apiKey").or(session.logon.as_ref().map(|logon| logon.api_key.as_str()));
        let uid = key.and_then(|key| self.keys.get(key)).map(|key| key.uid);
        let mut rows = uid.map(|uid| self.limits.order_rows(now, uid)).unwrap_or_default();
        rows.push(self.limits.weight_row(now, address));
        format!(r#","rateLimits":{}"#, json!(rows))
    }
}
