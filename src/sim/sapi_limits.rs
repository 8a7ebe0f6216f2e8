//! The weights of `/sapi`: each endpoint has a limit of its own, by address or by account.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::kernel::time::Time;
use crate::sim::config::SapiWeights;
use crate::sim::limits::next_minute;
use crate::sim::order::Uid;
use crate::sim::refusal::Refusal;
use crate::sim::sapi::SapiOp;

/// Users of endpoints remembered within a minute; at the limit the lowest is forgotten.
const USES_MAX: usize = 16_384;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payer {
    Address(IpAddr),
    Account(Uid),
}

#[derive(Debug)]
pub struct SapiLimits {
    most: SapiWeights,
    minute: i64,
    used: BTreeMap<(Payer, SapiOp), u32>,
}

impl SapiLimits {
    pub const fn new(most: SapiWeights) -> Self {
        Self { most, minute: 0, used: BTreeMap::new() }
    }

    /// The header that tells what has been used of it, whether or not there was room.
    pub fn charge(
        &mut self,
        now: Time,
        op: SapiOp,
        payer: Payer,
        weight: u32,
    ) -> ((&'static str, String), Result<(), Refusal>) {
        let minute = now.millis() / 60_000;
        if self.minute != minute {
            self.minute = minute;
            self.used.clear();
        }
        if self.used.len() >= USES_MAX && !self.used.contains_key(&(payer, op)) {
            self.used.pop_first();
        }
        let (header, most, word) = match payer {
            Payer::Address(_) => ("x-sapi-used-ip-weight-1m", self.most.by_address, "IP"),
            Payer::Account(_) => ("x-sapi-used-uid-weight-1m", self.most.by_account, "UID"),
        };
        let used = self.used.entry((payer, op)).or_default();
        let room = used.saturating_add(weight) <= most;
        if room {
            *used += weight;
        }
        let message = || format!("Too much request weight used; current limit is {most} {word} weight per 1 MINUTE.");
        let refusal = || Refusal { retry_at: Some(next_minute(now)), ..Refusal::new(429, -1003, message()) };
        ((header, used.to_string()), if room { Ok(()) } else { Err(refusal()) })
    }
}
