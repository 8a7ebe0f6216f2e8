//! The control plane under `/sim/v1/`, for scripts and tests on this machine only: the ledger, faults, deposits,
//! prices. It is no part of what the exchange speaks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::kernel::time::Time;
use crate::sim::amount::Amount;
use crate::sim::credentials::actor;
use crate::sim::delivery::{Delivery, Push, envelope};
use crate::sim::event::server_shutdown;
use crate::sim::exchange::{Exchange, HttpAnswer, HttpRequest};
use crate::sim::faults::{EventFault, FAULTS_MAX, Fault, Faults, HeldRequests, Target};
use crate::sim::firehose::{Firehose, PER_SECOND_MAX, SECONDS_MAX};
use crate::sim::key::{ApiKey, KeyProof, Origins, Permission};
use crate::sim::keyring::NewKey;
use crate::sim::market::{asset, symbol_index};
use crate::sim::order::{Actor, Uid};
use crate::sim::params::Params;
use crate::sim::refusal::Refusal;
use crate::sim::session::ConnectionId;
use crate::sim::trading;

/// All of it, for whoever asks for help or for something else.
pub const CONTROLS: &str = "Control, from this machine only, under /sim/v1/: GET ledger, connections, keys; POST deposit, \
    price, keys (makes one, as on the exchange's page), faults (delete_key deletes one), firehose. Keys' rights are changed \
    and orders cancelled as at the exchange: by /sapi with the master's key, by /api with a trading key.";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deposit {
    account: Uid,
    asset: String,
    /// Below zero: a withdrawal.
    amount: Amount,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    symbol: String,
    price: Amount,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flow {
    account: Uid,
    per_second: u32,
    seconds: u32,
    #[serde(default)]
    client_prefix: String,
    #[serde(default)]
    orders: Option<u64>,
}

/// A key that somebody makes in the venue's pages, and perhaps its first order at once.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MadeKey {
    account: Uid,
    name: String,
    /// Reading and spot trading, if left out.
    #[serde(default)]
    permissions: Option<BTreeSet<Permission>>,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    /// An order's parameters by the venue's names.
    #[serde(default)]
    order: Option<BTreeMap<String, String>>,
}

impl Exchange {
    pub(super) fn control(&mut self, now: Time, path: &str, request: &HttpRequest) -> HttpAnswer {
        let result = if request.caller.address.is_loopback() {
            self.controlled(now, path, request)
        } else {
            Err(Refusal::new(403, -1, "The control plane answers to this machine only."))
        };
        let (status, body) = match result {
            Ok(value) => (200, value.to_string()),
            Err(refusal) => (refusal.status, refusal.body().to_string()),
        };
        HttpAnswer { status, headers: Vec::new(), body }
    }

    fn controlled(&mut self, now: Time, path: &str, request: &HttpRequest) -> Result<Value, Refusal> {
        match (request.method.as_str(), path) {
            ("GET", "ledger") => self.ledger_rows(&Params::from_forms(&request.query, "")),
            ("GET", "connections") => Ok(self.connection_rows()),
            ("POST", "faults") => {
                let faults: Vec<Fault> = read(&request.body)?;
                faults.into_iter().try_for_each(|fault| self.inflict(now, fault))?;
                Ok(json!({}))
            }
            ("POST", "deposit") => {
                let deposit: Deposit = read(&request.body)?;
                let asset = asset(&deposit.asset).ok_or_else(|| Refusal::bad(-1, "No symbol trades that asset."))?;
                let by = self.scripted(deposit.account, request);
                self.engine.deposit(now, &by, asset, deposit.amount)?;
                Ok(json!({}))
            }
            ("POST", "price") => {
                let wanted: Price = read(&request.body)?;
                let symbol = symbol_index(&wanted.symbol).ok_or_else(|| Refusal::bad(-1121, "Invalid symbol."))?;
                self.engine.set_price(now, symbol, wanted.price);
                Ok(json!({}))
            }
            ("GET", "keys") => Ok(self.key_rows()),
            ("POST", "keys") => self.make_key_as_its_owner(now, request),
            ("POST", "firehose") => self.start_firehose(now, request),
            _ => Err(Refusal::new(404, -1, format!("There is no such control. {CONTROLS}"))),
        }
    }

    fn scripted(&self, uid: Uid, request: &HttpRequest) -> Arc<Actor> {
        let caller = &request.caller;
        Arc::new(Actor { uid, key: "script".into(), address: caller.address, agent: caller.agent.clone() })
    }

    fn key_rows(&self) -> Value {
        let row = |key: &ApiKey| {
            json!({
                "account": key.uid,
                "name": key.name,
                "api_key": key.api_key,
                "permissions": key.permissions,
                "restricted": key.origins.are_restricted(),
                "addresses": key.origins.listed().collect::<Vec<_>>(),
                "created": key.created.millis(),
            })
        };
        self.keys.all().map(row).collect()
    }

    /// No API call precedes it: as for a thief who is in the account itself.
    fn make_key_as_its_owner(&mut self, now: Time, request: &HttpRequest) -> Result<Value, Refusal> {
        let wanted: MadeKey = read(&request.body)?;
        let by = self.scripted(wanted.account, request);
        let (api_key, secret) = (self.engine.dice().base62(64), self.engine.dice().base62(64));
        let reads_and_trades = || BTreeSet::from([Permission::Reading, Permission::SpotTrading]);
        let new = NewKey {
            uid: wanted.account,
            label: wanted.name.into(),
            api_key: api_key.as_str().into(),
            proof: KeyProof::Hmac(secret.as_str().into()),
            permissions: wanted.permissions.unwrap_or_else(reads_and_trades),
            origins: Origins::listed_in(wanted.addresses.into_iter()),
        };
        let key = self.make_key(now, &by, new)?;
        let mut answer = json!({ "name": key.name, "api_key": api_key, "secret": secret });
        if let Some(order) = wanted.order {
            let by = actor(&key, &request.caller);
            answer["order"] = trading::place(&mut self.engine, now, &by, &Params::from_map(order))?;
        }
        Ok(answer)
    }

    /// `after`: rows above that number; `account`: one account's.
    fn ledger_rows(&self, params: &Params) -> Result<Value, Refusal> {
        let (after, account) = (params.number("after")?.unwrap_or(0), params.number("account")?);
        let wanted = |uid: Uid| account.is_none_or(|account| account.unsigned_abs() == uid);
        let rows: Vec<_> =
            self.engine.ledger().rows_after(after.unsigned_abs()).filter(|row| wanted(row.account)).collect();
        let accounts: Vec<Value> =
            self.engine.accounts().map(|account| json!({ "account": account.uid, "name": account.name })).collect();
        Ok(json!({ "accounts": accounts, "rows": rows, "dropped": self.engine.ledger().dropped() }))
    }

    fn connection_rows(&self) -> Value {
        let row = |(id, session): (&ConnectionId, &crate::sim::session::Session)| {
            let subscriptions: Vec<Value> = session
                .subscriptions
                .iter()
                .map(|(id, subscription)| json!({ "subscription": id, "account": subscription.uid }))
                .collect();
            json!({
                "connection": id,
                "address": session.caller.address,
                "agent": session.caller.agent,
                "since": session.since.millis(),
                "frozen": session.frozen,
                "subscriptions": subscriptions,
            })
        };
        self.sessions.iter().map(row).collect()
    }

    fn start_firehose(&mut self, now: Time, request: &HttpRequest) -> Result<Value, Refusal> {
        let flow: Flow = read(&request.body)?;
        if flow.per_second > PER_SECOND_MAX || flow.seconds > SECONDS_MAX || flow.client_prefix.len() > 20 {
            let most = format!("At most {PER_SECOND_MAX} a second for {SECONDS_MAX} seconds, prefix of 20 characters.");
            return Err(Refusal::bad(-1, most));
        }
        let by = self.scripted(flow.account, request);
        let pace = (flow.per_second, flow.seconds);
        self.firehose = Some(Firehose::new(now, by, pace, flow.client_prefix, flow.orders));
        Ok(json!({}))
    }

    pub(super) fn inflict(&mut self, now: Time, fault: Fault) -> Result<(), Refusal> {
        match fault {
            Fault::Drop { target, count } => self.strike_events(EventFault::Drop, target, count),
            Fault::Silent { target } => self.strike_events(EventFault::Drop, target, None),
            Fault::Delay { target, count, ms } => {
                self.strike_events(EventFault::Delay(Duration::from_millis(ms)), target, count)
            }
            Fault::Duplicate { target, count } => self.strike_events(EventFault::Duplicate, target, count),
            Fault::Reorder { target, count } => self.strike_events(EventFault::Reorder, target, count),
            Fault::Garble { target, count } => self.strike_events(EventFault::Garble, target, count),
            Fault::Unlisted { target } => self.strike_events(EventFault::Unlisted, target, None),
            Fault::UnknownEvent { target, event } => {
                let made_up = || json!({ "e": "neverHeardOf", "E": now.millis() });
                self.inject(target, &event.unwrap_or_else(made_up).to_string());
                Ok(())
            }
            Fault::HalfOpen { target } => {
                self.freeze_connections(target);
                Ok(())
            }
            Fault::Close { target } => {
                let hit = self.connections_hit(target).into_iter();
                self.deliveries.extend(hit.map(|connection| Delivery { connection, push: Push::Close }));
                Ok(())
            }
            Fault::ServerShutdown { target } => {
                let frame = format!(r#"{{"event":{}}}"#, server_shutdown(now));
                for connection in self.connections_hit(target) {
                    self.push_text(connection, frame.clone());
                }
                Ok(())
            }
            Fault::Refuse { status, count, retry_after } => {
                let retry_after = Duration::from_secs(u64::from(retry_after));
                self.faults.held_requests = Some(HeldRequests { status, left: count, retry_after });
                Ok(())
            }
            Fault::ClockOffset { ms } => {
                self.faults.clock_offset_ms = ms;
                Ok(())
            }
            Fault::DeleteKey { key } => {
                let found = self.keys.named(&key).map(|key| (key.uid, key.api_key.clone()));
                let (uid, api_key) = found.ok_or_else(|| Refusal::bad(-1, "No key has that name."))?;
                self.remove_key(now, &script(uid), &api_key);
                Ok(())
            }
            Fault::Endpoint { method, path, skip, count, what } => {
                let room = self.faults.add_endpoint((method, path), skip, count, what);
                if room { Ok(()) } else { Err(no_room()) }
            }
            Fault::Clear => {
                self.faults = Faults::default();
                Ok(())
            }
        }
    }

    /// They stay open, and nothing comes or goes on them any more.
    fn freeze_connections(&mut self, target: Target) {
        for connection in self.connections_hit(target) {
            if let Some(session) = self.sessions.get_mut(&connection) {
                session.frozen = true;
            }
            self.deliveries.push_back(Delivery { connection, push: Push::Freeze });
        }
    }

    fn strike_events(&mut self, fault: EventFault, target: Target, count: Option<u32>) -> Result<(), Refusal> {
        if self.faults.add(fault, target, count) {
            return Ok(());
        }
        Err(no_room())
    }

    fn inject(&mut self, target: Target, body: &str) {
        let mut frames = Vec::new();
        for (connection, session) in &self.sessions {
            for (id, subscription) in &session.subscriptions {
                if target.hits(*connection, Some(subscription.uid)) {
                    frames.push((*connection, envelope(*id, body)));
                }
            }
        }
        for (connection, frame) in frames {
            self.push_text(connection, frame);
        }
    }

    /// Connections named, or those with a subscription of the account named, or all.
    fn connections_hit(&self, target: Target) -> Vec<ConnectionId> {
        let hit = self.sessions.iter().filter(|(id, session)| {
            let mut accounts = session.subscriptions.values().map(|subscription| subscription.uid);
            target.hits(**id, None) && target.account.is_none_or(|wanted| accounts.any(|uid| uid == wanted))
        });
        hit.map(|(id, _)| *id).collect()
    }
}

fn no_room() -> Refusal {
    Refusal::bad(-1, format!("{FAULTS_MAX} faults are waiting already; send \"clear\" first."))
}

/// Who does what no client asked for.
fn script(uid: Uid) -> Actor {
    Actor { uid, key: "script".into(), address: IpAddr::V4(Ipv4Addr::LOCALHOST), agent: "script".into() }
}

fn read<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, Refusal> {
    serde_json::from_str(body).map_err(|error| Refusal::bad(-1, format!("The body could not be read: {error}.")))
}
