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
    DeleteKey {
        key: String,
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

#[derive(Debug, Clone, Copy)]
pub struct HeldRequests {
    pub status: u16,
    pub left: u32,
    pub retry_after: Duration,
}

#[derive(Debug, Default)]
pub struct Faults {
    on_events: Vec<(EventFault, Target, Option<u32>)>,
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
    fn reads_a_plan() {
        let plan = r#"[{"fault":"delay","ms":50,"count":3,"account":7},{"fault":"half_open","connection":2},{"fault":"clear"}]"#;
        assert_eq!(serde_json::from_str::<Vec<Fault>>(plan).unwrap().len(), 3);
        assert!(serde_json::from_str::<Vec<Fault>>(r#"[{"fault":"melt"}]"#).is_err());
    }
}
