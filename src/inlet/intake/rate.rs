//! How fast one connection may speak.

use crate::kernel::time::Time;

const MICROS_PER_SECOND: u64 = 1_000_000;

/// A bucket that holds one second's worth; an empty one refuses, it never delays.
pub struct Rate {
    per_second: u64,
    /// In millionths of a record.
    left: u64,
    at: Time,
}

impl Rate {
    pub fn new(per_second: u32, now: Time) -> Self {
        let per_second = u64::from(per_second);
        Self { per_second, left: per_second * MICROS_PER_SECOND, at: now }
    }

    pub fn take(&mut self, now: Time) -> bool {
        let micros = u64::try_from(now.since(self.at).as_micros()).unwrap_or(u64::MAX);
        self.at = self.at.max(now);
        self.left =
            micros.saturating_mul(self.per_second).saturating_add(self.left).min(self.per_second * MICROS_PER_SECOND);
        let there = self.left >= MICROS_PER_SECOND;
        if there {
            self.left -= MICROS_PER_SECOND;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_a_second_then_one_at_a_time() {
        let at = Time::from_millis;
        let mut rate = Rate::new(10, at(0));
        assert_eq!((0..15).filter(|_| rate.take(at(0))).count(), 10);
        assert!(!rate.take(at(99)));
        assert!(rate.take(at(100)));
        assert!(!rate.take(at(100)));
        assert_eq!((0..15).filter(|_| rate.take(at(9_000))).count(), 10);
        assert!(!rate.take(at(1)), "a clock that goes back gives nothing");
    }
}
