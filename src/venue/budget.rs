//! The request weight that everything on this address shares, as far as we can know it: what we asked for, what the
//! venue's headers say, and how long it told us to stop.

use std::time::Duration;

use crate::kernel::time::Time;

/// The venue's own limit for one minute and one address, REST and WebSocket API together.
pub const WEIGHT_PER_MINUTE: u32 = 6_000;
const MINUTE: Duration = Duration::from_secs(60);
/// Without a Retry-After the venue's shortest ban is two minutes.
const BAN_AT_LEAST: Duration = Duration::from_secs(120);
const MINUTE_MICROS: i64 = 60_000_000;

#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// Minutes since the epoch; the count starts anew with each.
    minute: i64,
    used: u32,
    held_until: Option<Time>,
}

/// What a request is for, and so how much of the address's weight may be gone when it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// What only prepares a sale, and can wait: it leaves room for the cancels of an emergency.
    Plans,
    /// Reads that watch: the bot may share the address, and a ban would blind us.
    Reads,
    /// Cancels and the reads between them, which a thief can make many: they leave room for the keys.
    Orders,
    /// What makes keys useless and proves it. Nothing else may be in its way.
    Keys,
}

impl Share {
    const fn ceiling(self) -> u32 {
        WEIGHT_PER_MINUTE / 10
            * match self {
                Self::Plans => 5,
                Self::Orders => 7,
                Self::Reads => 8,
                Self::Keys => 10,
            }
    }

    const fn used_up(self) -> &'static str {
        match self {
            Self::Plans => {
                "half of the request weight is used up on this address; the rest is kept for what cannot wait"
            }
            Self::Reads => "the request weight for reads is used up on this address",
            Self::Orders => "70 % of the request weight is used up on this address; the rest is kept for the keys",
            Self::Keys => "the request weight is used up on this address",
        }
    }
}

/// A request that must not be sent before `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("held back until {until} UTC: {reason}")]
pub struct Held {
    pub until: Time,
    pub reason: &'static str,
}

impl Budget {
    /// Spends `weight`, or says when it may be asked again.
    pub fn spend(&mut self, now: Time, weight: u32, share: Share) -> Result<(), Held> {
        self.turn(now);
        if let Some(until) = self.held_until.filter(|until| now < *until) {
            return Err(Held { until, reason: "the exchange told this address to wait" });
        }
        if self.used.saturating_add(weight) > share.ceiling() {
            let until = Time::from_micros((self.minute + 1).saturating_mul(MINUTE_MICROS));
            return Err(Held { until, reason: share.used_up() });
        }
        self.used += weight;
        Ok(())
    }

    /// The X-MBX-USED-WEIGHT-1M header: what the whole address has used.
    pub fn handle_used(&mut self, now: Time, used: u32) {
        self.turn(now);
        self.used = self.used.max(used);
    }

    /// A refusal for asking too much: 429, 418 (a ban) or 403 (the firewall).
    pub fn handle_refusal(&mut self, now: Time, status: u16, retry_after: Option<Duration>) {
        let until = now + pause(status, retry_after);
        self.held_until = self.held_until.max(Some(until));
    }

    fn turn(&mut self, now: Time) {
        let minute = now.micros().div_euclid(MINUTE_MICROS);
        if minute != self.minute {
            (self.minute, self.used) = (minute, 0);
        }
    }
}

/// Whether this status is a refusal for asking too much.
pub const fn is_refusal(status: u16) -> bool {
    matches!(status, 403 | 418 | 429)
}

/// How long such a refusal holds us back.
pub fn pause(status: u16, retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or(if status == 418 { BAN_AT_LEAST } else { MINUTE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_millis(seconds * 1_000)
    }

    #[test]
    fn stops_at_the_ceiling_and_starts_anew_with_the_minute() {
        let mut budget = Budget::default();
        for _ in 0..60 {
            budget.spend(at(10), 80, Share::Reads).unwrap();
        }
        assert_eq!(budget.spend(at(59), 1, Share::Reads).unwrap_err().until, at(60));
        budget.spend(at(60), 80, Share::Reads).unwrap();
    }

    #[test]
    fn orders_stop_first_and_keys_last() {
        let mut budget = Budget::default();
        budget.handle_used(at(0), 4_150);
        budget.spend(at(1), 50, Share::Orders).unwrap();
        let held = budget.spend(at(1), 1, Share::Orders).unwrap_err();
        assert_eq!((held.until, held.reason), (at(60), Share::Orders.used_up()));
        budget.spend(at(1), 600, Share::Reads).unwrap();
        assert!(budget.spend(at(1), 1, Share::Reads).is_err());
        budget.spend(at(1), 1_200, Share::Keys).unwrap();
        assert!(budget.spend(at(1), 1, Share::Keys).is_err());
    }

    #[test]
    fn what_only_prepares_a_sale_leaves_room_for_cancels() {
        let mut budget = Budget::default();
        while budget.spend(at(1), 30, Share::Plans).is_ok() {}
        for _ in 0..1_200 {
            budget.spend(at(1), 1, Share::Orders).unwrap();
        }
        assert!(budget.spend(at(1), 1, Share::Orders).is_err());
    }

    #[test]
    fn believes_the_header_when_others_share_the_address() {
        let mut budget = Budget::default();
        budget.spend(at(0), 20, Share::Reads).unwrap();
        budget.handle_used(at(1), 4_790);
        assert!(budget.spend(at(2), 20, Share::Reads).is_err());
        budget.spend(at(2), 10, Share::Reads).unwrap();
        budget.handle_used(at(3), 5);
        assert!(budget.spend(at(4), 1, Share::Reads).is_err(), "a late header does not give weight back");
    }

    #[test]
    fn obeys_retry_after_and_bans() {
        for (status, retry_after, seconds) in
            [(429, Some(7), 7), (429, None, 60), (418, Some(3_600), 3_600), (418, None, 120), (403, None, 60)]
        {
            let mut budget = Budget::default();
            budget.handle_refusal(at(0), status, retry_after.map(Duration::from_secs));
            assert_eq!(budget.spend(at(seconds - 1), 1, Share::Reads).unwrap_err().until, at(seconds), "{status}");
            budget.spend(at(seconds), 1, Share::Reads).unwrap();
        }
        let mut budget = Budget::default();
        budget.handle_refusal(at(0), 418, Some(Duration::from_secs(600)));
        budget.handle_refusal(at(1), 429, Some(Duration::from_secs(1)));
        assert_eq!(budget.spend(at(2), 1, Share::Reads).unwrap_err().until, at(600), "the longer hold stays");
    }
}
