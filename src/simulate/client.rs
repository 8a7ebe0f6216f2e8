//! A client of the exchange without a socket: it signs what it asks as the venue wants it, and reads the answer.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use crate::kernel::time::Time;
use crate::sim::exchange::{Caller, Exchange, HttpReply, HttpRequest};
use crate::venue::binance::ApiCredential;
use crate::venue::binance::sign::{percent_encoded, rest_query};

pub struct Client {
    credential: ApiCredential,
    caller: Caller,
}

/// A request by its route and parameters, before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub method: &'static str,
    pub path: &'static str,
    pub params: Vec<(&'static str, String)>,
}

/// What came back: the body, or the venue's code and words.
pub type Answer = Result<Value, (i64, String)>;

impl Client {
    pub fn new(api_key: &str, secret: &str, agent: &str, address: IpAddr) -> Option<Self> {
        let credential = ApiCredential::new(api_key.into(), secret.into()).ok()?;
        Some(Self { credential, caller: Caller { address, agent: agent.into() } })
    }

    pub const fn credential(&self) -> &ApiCredential {
        &self.credential
    }

    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    pub fn signed(&self, ask: &Ask, at: Time) -> HttpRequest {
        let mut params = ask.params.clone();
        params.push(("timestamp", at.millis().to_string()));
        let query = rest_query(&params);
        let signature = percent_encoded(&self.credential.sign(&query));
        self.request(ask.method, ask.path, format!("{query}&signature={signature}"))
    }

    pub fn request(&self, method: &str, path: &str, query: String) -> HttpRequest {
        HttpRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            query,
            body: String::new(),
            api_key: Some(self.credential.api_key().to_owned()),
            caller: self.caller.clone(),
            held: false,
        }
    }
}

impl Ask {
    pub fn get(path: &'static str, params: Vec<(&'static str, String)>) -> Self {
        Self { method: "GET", path, params }
    }

    pub fn place(params: Vec<(&'static str, String)>) -> Self {
        Self { method: "POST", path: "/api/v3/order", params }
    }
}

/// The exchange's control plane, which answers to this machine only.
pub fn control(exchange: &mut Exchange, now: Time, method: &str, path: &str, query: &str, body: &str) -> Value {
    let request = HttpRequest {
        method: method.to_owned(),
        path: format!("/sim/v1/{path}"),
        query: query.to_owned(),
        body: body.to_owned(),
        api_key: None,
        caller: Caller { address: IpAddr::V4(Ipv4Addr::LOCALHOST), agent: "script".into() },
        held: false,
    };
    read(exchange.http(now, &request)).unwrap_or(Value::Null)
}

/// What the venue said, where it said something that can be read.
pub fn read(reply: HttpReply) -> Answer {
    let answer = match reply {
        HttpReply::Answer(answer) | HttpReply::Late(_, answer) => answer,
        HttpReply::Held(_) | HttpReply::Cut => return Err((0, "no answer".to_owned())),
    };
    let body: Value = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
    if answer.status == 200 {
        return Ok(body);
    }
    Err((body["code"].as_i64().unwrap_or(0), body["msg"].as_str().unwrap_or_default().to_owned()))
}
