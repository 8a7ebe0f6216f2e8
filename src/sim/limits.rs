//! Request weight per address and order counts per account, with 429 and, for who goes on all the same, the ban.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kernel::time::Time;
use crate::sim::order::Uid;
use crate::sim::refusal::Refusal;

/// Addresses remembered; at the limit those quiet in this minute and not banned are forgotten, then the lowest.
const ADDRESSES_MAX: usize = 4_096;
/// Requests after a 429 within the same minute until the address is banned.
const PATIENCE: u32 = 20;
const FIRST_BAN: Duration = Duration::from_secs(120);
/// Two minutes, doubled ten times: the venue's three days are about as long.
const BAN_DOUBLINGS_MAX: u32 = 10;
/// Told and counted, not enforced: a test may need more.
const ORDERS_PER_DAY_MAX: u32 = 200_000;

#[derive(Debug)]
pub struct Limits {
    weight_per_minute: u32,
    orders_per_10s: u32,
    connections_per_5m: u32,
    by_address: BTreeMap<IpAddr, AddressUse>,
    by_account: BTreeMap<Uid, OrderUse>,
}

#[derive(Debug, Default)]
struct AddressUse {
    minute: i64,
    weight: u32,
    over: u32,
    bans: u32,
    banned_until: Option<Time>,
    connect_window: i64,
    connects: u32,
}

#[derive(Debug, Default, Clone, Copy)]
struct OrderUse {
    window: i64,
    in_window: u32,
    day: i64,
    in_day: u32,
}

impl Limits {
    pub fn new(weight_per_minute: u32, orders_per_10s: u32, connections_per_5m: u32) -> Self {
        let (by_address, by_account) = (BTreeMap::new(), BTreeMap::new());
        Self { weight_per_minute, orders_per_10s, connections_per_5m, by_address, by_account }
    }

    pub fn charge(&mut self, now: Time, address: IpAddr, weight: u32) -> Result<(), Refusal> {
        self.refuse_banned(now, address)?;
        let most = self.weight_per_minute;
        let used = self.entry(now, address);
        if used.weight.saturating_add(weight) <= most {
            used.weight += weight;
            return Ok(());
        }
        Err(self.hold(now, address, too_much_weight(most, next_minute(now))))
    }

    pub fn refuse_banned(&mut self, now: Time, address: IpAddr) -> Result<(), Refusal> {
        let used = self.entry(now, address);
        used.banned_until = used.banned_until.filter(|until| *until > now);
        used.banned_until.map_or(Ok(()), |until| Err(banned(until)))
    }

    /// The refusal of a request over some limit; the ban, for who goes on all the same.
    pub fn hold(&mut self, now: Time, address: IpAddr, refusal: Refusal) -> Refusal {
        let used = self.entry(now, address);
        used.over += 1;
        if used.over <= PATIENCE {
            return refusal;
        }
        let until = now + FIRST_BAN * 2_u32.pow(used.bans.min(BAN_DOUBLINGS_MAX));
        used.bans += 1;
        used.over = 0;
        used.banned_until = Some(until);
        banned(until)
    }

    /// A failed order request costs what a successful one does not.
    pub fn charge_failure(&mut self, now: Time, address: IpAddr) {
        let used = self.entry(now, address);
        used.weight = used.weight.saturating_add(1);
    }

    pub fn connect(&mut self, now: Time, address: IpAddr) -> Result<(), Refusal> {
        self.charge(now, address, 2)?;
        let most = self.connections_per_5m;
        let used = self.entry(now, address);
        let window = now.millis() / 300_000;
        if used.connect_window != window {
            (used.connect_window, used.connects) = (window, 0);
        }
        used.connects += 1;
        if used.connects <= most {
            return Ok(());
        }
        let message = format!("Too many connection attempts; current limit is {most} per 5 MINUTE.");
        let mut refusal = Refusal::new(429, -1003, message);
        refusal.retry_at = Some(Time::from_millis((window + 1) * 300_000));
        Err(refusal)
    }

    pub fn count_order(&mut self, now: Time, uid: Uid) -> Result<(), Refusal> {
        let most = self.orders_per_10s;
        let used = self.orders(now, uid);
        if used.in_window >= most {
            let message = format!("Too many new orders; current limit is {most} orders per 10 SECOND.");
            return Err(Refusal::new(429, -1015, message));
        }
        used.in_window += 1;
        used.in_day += 1;
        Ok(())
    }

    pub fn weight_used(&mut self, now: Time, address: IpAddr) -> u32 {
        self.entry(now, address).weight
    }

    /// Orders in these ten seconds and today.
    pub fn orders_counted(&mut self, now: Time, uid: Uid) -> (u32, u32) {
        let used = self.orders(now, uid);
        (used.in_window, used.in_day)
    }

    pub fn order_rows(&mut self, now: Time, uid: Uid) -> Vec<Value> {
        let most = self.orders_per_10s;
        let (in_window, in_day) = self.orders_counted(now, uid);
        vec![
            json!({"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": most, "count": in_window}),
            json!({
                "rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": ORDERS_PER_DAY_MAX, "count": in_day,
            }),
        ]
    }

    pub fn weight_row(&mut self, now: Time, address: IpAddr) -> Value {
        let (most, used) = (self.weight_per_minute, self.weight_used(now, address));
        json!({
            "rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": most, "count": used,
        })
    }

    /// The limits themselves, as `exchangeInfo` lists them.
    pub fn described(&self) -> Value {
        json!([
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": self.weight_per_minute},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": self.orders_per_10s},
            {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": ORDERS_PER_DAY_MAX},
            {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300_000},
        ])
    }

    fn entry(&mut self, now: Time, address: IpAddr) -> &mut AddressUse {
        let minute = now.millis() / 60_000;
        if self.by_address.len() >= ADDRESSES_MAX && !self.by_address.contains_key(&address) {
            self.by_address
                .retain(|_, used| used.minute == minute || used.banned_until.is_some_and(|until| until > now));
            if self.by_address.len() >= ADDRESSES_MAX {
                self.by_address.pop_first();
            }
        }
        let used = self.by_address.entry(address).or_default();
        if used.minute != minute {
            (used.minute, used.weight, used.over) = (minute, 0, 0);
        }
        used
    }

    fn orders(&mut self, now: Time, uid: Uid) -> &mut OrderUse {
        let used = self.by_account.entry(uid).or_default();
        let (window, day) = (now.millis() / 10_000, now.millis() / 86_400_000);
        if used.window != window {
            (used.window, used.in_window) = (window, 0);
        }
        if used.day != day {
            (used.day, used.in_day) = (day, 0);
        }
        used
    }
}

pub fn next_minute(now: Time) -> Time {
    Time::from_millis((now.millis() / 60_000 + 1) * 60_000)
}

pub fn too_much_weight(most: u32, retry_at: Time) -> Refusal {
    let message = format!(
        "Too much request weight used; current limit is {most} request weight per 1 MINUTE. Please use WebSocket \
         Streams for live updates to avoid polling the API."
    );
    Refusal { retry_at: Some(retry_at), ..Refusal::new(429, -1003, message) }
}

pub fn banned(until: Time) -> Refusal {
    let message = format!(
        "Way too much request weight used; IP banned until {}. Please use WebSocket Streams for live updates to avoid bans.",
        until.millis()
    );
    Refusal { retry_at: Some(until), ..Refusal::new(418, -1003, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_then_bans_then_forgives() {
        let address: IpAddr = "127.0.0.1".parse().unwrap();
        let mut limits = Limits::new(100, 10, 10);
        let start = Time::from_millis(1_764_000_000_000);
        assert!(limits.charge(start, address, 100).is_ok());
        let held = limits.charge(start, address, 1).unwrap_err();
        assert_eq!((held.status, held.code), (429, -1003));
        for _ in 0..PATIENCE {
            limits.charge(start, address, 1).unwrap_err();
        }
        assert_eq!(limits.charge(start, address, 0).unwrap_err().status, 418);
        assert!(limits.charge(start + FIRST_BAN, address, 1).is_ok());
    }

    #[test]
    fn counts_orders_in_their_window() {
        let mut limits = Limits::new(100, 2, 10);
        let start = Time::from_millis(1_764_000_000_000);
        assert!(limits.count_order(start, 1).is_ok() && limits.count_order(start, 1).is_ok());
        assert_eq!(limits.count_order(start, 1).unwrap_err().code, -1015);
        assert!(limits.count_order(start, 2).is_ok());
        assert!(limits.count_order(start + Duration::from_secs(10), 1).is_ok());
    }
}
