//! What a script may break, and for how long. Faults on events apply one a frame, the oldest first; the rest of the
//! plan (held REST requests, a shifted clock) is state that the exchange asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::sim::order::Uid;
use crate::sim::session::ConnectionId;

/// Event faults waiting at once; one more is refused.
pub const FAULTS_MAX: usize = 256;

#[derive(Debug, Clone, Copy, Deserialize, Default)]
pub struct Target {
    /// None: every account, every connection.
    #[serde(default)]
    pub account: Option<Uid>,
    #[serde(default)]
    pub connection: Option<ConnectionId>,
}

impl Target {
    pub fn hits(&self, connection: ConnectionId, account: Option<Uid>) -> bool {
        self.connection.is_none_or(|wanted| wanted == connection)
            && self.account.is_none_or(|wanted| account.is_none_or(|account| wanted == account))
    }
}

/// One line of `POST /sim/v1/faults`. `count`: how many events or requests; left out, until `clear`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    Drop {
        #[serde(flatten)]
        target: Target,
        count: Option<u32>,
    },
    Delay {
        #[serde(flatten)]
        target: Target,
        count: Option<u32>,
        ms: u64,
    },
    Duplicate {
        #[serde(flatten)]
        target: Target,
        count: Option<u32>,
    },
    Reorder {
        #[serde(flatten)]
        target: Target,
        count: Option<u32>,
    },
    Garble {
        #[serde(flatten)]
        target: Target,
        count: Option<u32>,
    },
    /// The subscription stands, pings are answered, no event ever comes.
    Silent {
        #[serde(flatten)]
        target: Target,
    },
    /// `session.subscriptions` does not list it any more.
    Unlisted {
        #[serde(flatten)]
        target: Target,
    },
    /// An event of a name that nobody knows, or the given one.
    UnknownEvent {
        #[serde(flatten)]
        target: Target,
        event: Option<Value>,
    },
    /// The socket stays, nothing is read or written any more.
    HalfOpen {
        #[serde(flatten)]
        target: Target,
    },
    Close {
        #[serde(flatten)]
        target: Target,
    },
    ServerShutdown {
        #[serde(flatten)]
        target: Target,
    },
    /// 429 or 418 for the next requests; `retry_after` in seconds.
    Refuse {
        status: u16,
        count: u32,
        retry_after: u32,
    },
    /// The exchange's clock is off by this much: signed requests get -1021.
    ClockOffset {
        ms: i64,
    },
    /// As its owner would in the venue's pages.
    DeleteKey {
        key: String,
    },
    /// The next `count` calls of `method` on `path` fare so, after `skip` that do not. Left out: every one.
    Endpoint {
        method: String,
        path: String,
        #[serde(default)]
        skip: u32,
        count: Option<u32>,
        #[serde(rename = "do")]
        what: EndpointFault,
    },
    Clear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventFault {
    Drop,
    Delay(Duration),
    Duplicate,
    Reorder,
    Garble,
    Unlisted,
}

/// How a REST call fares.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EndpointFault {
    /// Answered so, and not done.
    Answer {
        status: u16,
        code: i32,
        #[serde(default)]
        msg: String,
        /// Seconds.
        #[serde(default)]
        retry_after: Option<u32>,
    },
    /// Done and answered only after that.
    Hold { ms: u64 },
    /// Done at once, answered after that.
    Late { ms: u64 },
    /// The connection ends without an answer: nothing was done.
    Cut,
    /// The connection ends without an answer, and it was done.
    CutAfter,
    /// Done, and answered with -1007: nobody knows.
    UnknownAfter,
    /// Done, and answered with what is no JSON.
    Garbage,
}

#[derive(Debug, Clone)]
struct EndpointPlan {
    method: String,
    path: String,
    skip: u32,
    left: Option<u32>,
    what: EndpointFault,
}

#[derive(Debug, Clone, Copy)]
pub struct HeldRequests {
    pub status: u16,
    pub left: u32,
    pub retry_after: Duration,
}

#[derive(Debug, Default)]
pub struct Faults {
    on_events: Vec<(EventFault, Target, Option<u32>)>,
    on_endpoints: Vec<EndpointPlan>,
    /// A frame held back until the next one of its connection has gone.
    pub held_back: BTreeMap<ConnectionId, String>,
    pub held_requests: Option<HeldRequests>,
    pub clock_offset_ms: i64,
}

impl Faults {
    /// Whether there was room for it.
    #[must_use]
    pub fn add(&mut self, fault: EventFault, target: Target, count: Option<u32>) -> bool {
        let room = self.on_events.len() < FAULTS_MAX;
        if room {
            self.on_events.push((fault, target, count));
        }
        room
    }

    /// Whether there was room for it.
    #[must_use]
    pub fn add_endpoint(
        &mut self,
        (method, path): (String, String),
        skip: u32,
        count: Option<u32>,
        what: EndpointFault,
    ) -> bool {
        let room = self.on_endpoints.len() < FAULTS_MAX;
        if room && count != Some(0) {
            self.on_endpoints.push(EndpointPlan { method, path, skip, left: count, what });
        }
        room
    }

    /// The fault that strikes this call, used up by one; the oldest first.
    pub fn strike_endpoint(&mut self, method: &str, path: &str) -> Option<EndpointFault> {
        let place = self.on_endpoints.iter().position(|plan| plan.method == method && plan.path == path)?;
        let plan = &mut self.on_endpoints[place];
        if plan.skip > 0 {
            plan.skip -= 1;
            return None;
        }
        let what = plan.what.clone();
        plan.left = plan.left.map(|left| left.saturating_sub(1));
        if plan.left == Some(0) {
            self.on_endpoints.remove(place);
        }
        Some(what)
    }

    /// The fault that strikes this frame, used up by one.
    pub fn strike(&mut self, connection: ConnectionId, account: Uid) -> Option<EventFault> {
        let place = self
            .on_events
            .iter()
            .position(|(fault, target, _)| *fault != EventFault::Unlisted && target.hits(connection, Some(account)))?;
        let (fault, _, left) = &mut self.on_events[place];
        let fault = *fault;
        if let Some(left) = left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.on_events.remove(place);
            }
        }
        Some(fault)
    }

    pub fn unlists(&self, connection: ConnectionId, account: Uid) -> bool {
        let unlisted = |(fault, target, _): &(EventFault, Target, Option<u32>)| {
            *fault == EventFault::Unlisted && target.hits(connection, Some(account))
        };
        self.on_events.iter().any(unlisted)
    }

    /// One request fewer to refuse; the refusal's status and wait.
    pub fn hold_request(&mut self) -> Option<HeldRequests> {
        let mut held = self.held_requests?;
        held.left = held.left.saturating_sub(1);
        self.held_requests = (held.left > 0).then_some(held);
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strikes_as_often_as_told() {
        let mut faults = Faults::default();
        let target = Target { account: Some(7), connection: None };
        assert!(faults.add(EventFault::Drop, target, Some(2)));
        assert_eq!(faults.strike(1, 8), None);
        assert_eq!(faults.strike(1, 7), Some(EventFault::Drop));
        assert_eq!(faults.strike(2, 7), Some(EventFault::Drop));
        assert_eq!(faults.strike(2, 7), None);
    }

    #[test]
    fn strikes_calls_in_their_turn() {
        let mut faults = Faults::default();
        let endpoint = || ("DELETE".to_owned(), "/x".to_owned());
        assert!(faults.add_endpoint(endpoint(), 1, Some(1), EndpointFault::Cut));
        assert!(faults.add_endpoint(endpoint(), 0, Some(2), EndpointFault::Garbage));
        assert_eq!(faults.strike_endpoint("GET", "/x"), None);
        let struck: Vec<_> = (0..5).map(|_| faults.strike_endpoint("DELETE", "/x")).collect();
        let garbage = || Some(EndpointFault::Garbage);
        assert_eq!(struck, [None, Some(EndpointFault::Cut), garbage(), garbage(), None]);
    }

    #[test]
    fn reads_a_plan() {
        let calls = r#"[
            {"fault":"endpoint","method":"DELETE","path":"/a","count":2,"do":"cut_after"},
            {"fault":"endpoint","method":"GET","path":"/b","skip":1,"do":{"answer":{"status":503,"code":-1008}}},
            {"fault":"endpoint","method":"GET","path":"/b","do":{"hold":{"ms":5}}}
        ]"#;
        assert_eq!(serde_json::from_str::<Vec<Fault>>(calls).unwrap().len(), 3);
        let plan = r#"[{"fault":"delay","ms":50,"count":3,"account":7},{"fault":"half_open","connection":2},{"fault":"clear"}]"#;
        assert_eq!(serde_json::from_str::<Vec<Fault>>(plan).unwrap().len(), 3);
        assert!(serde_json::from_str::<Vec<Fault>>(r#"[{"fault":"melt"}]"#).is_err());
    }
}
