//! The venue's clock, estimated from ours: of all answers the one that took least is nearest the truth.

use std::time::Duration;

use crate::kernel::time::Time;

/// How far two good quartz clocks may part; an old estimate gives way to a fresh one as its bound grows.
const DRIFT_PER_MILLION: u32 = 100;

#[derive(Clone, Debug, Default)]
pub struct ServerTime {
    best: Option<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    offset_micros: i64,
    /// Half of the round trip: the offset cannot be further off than this.
    bound: Duration,
    at: Time,
}

impl ServerTime {
    pub const fn is_known(&self) -> bool {
        self.best.is_some()
    }

    /// An answer `server` to a question that left at `sent` and was answered by `received`.
    pub fn observe(&mut self, sent: Time, server: Time, received: Time) {
        let bound = received.since(sent) / 2;
        let middle = sent + bound;
        let sample = Sample { offset_micros: server.micros().saturating_sub(middle.micros()), bound, at: received };
        if self.bound(received).is_none_or(|known| bound <= known) {
            self.best = Some(sample);
        }
    }

    /// The venue refused our time: whatever we believed is wrong, since a clock was set.
    pub fn forget(&mut self) {
        self.best = None;
    }

    /// What the venue's clock shows now; ours, where it was never asked.
    pub fn at(&self, now: Time) -> Time {
        let offset = self.best.map_or(0, |sample| sample.offset_micros);
        Time::from_micros(now.micros().saturating_add(offset))
    }

    /// How far off `at` can be.
    pub fn bound(&self, now: Time) -> Option<Duration> {
        self.best.map(|sample| sample.bound + now.apart(sample.at) * DRIFT_PER_MILLION / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_quickest_answer_until_it_is_stale() {
        let ms = Time::from_millis;
        let mut server_time = ServerTime::default();
        assert_eq!(server_time.at(ms(1_000)), ms(1_000));
        server_time.observe(ms(1_000), ms(6_050), ms(1_100));
        assert_eq!(server_time.at(ms(2_000)), ms(7_000));
        server_time.observe(ms(2_000), ms(9_999), ms(4_000));
        assert_eq!(server_time.at(ms(2_000)), ms(7_000), "a slow answer says less than a quick one");
        server_time.observe(ms(5_000), ms(10_015), ms(5_010));
        assert_eq!(server_time.at(ms(6_000)), ms(11_010));
        assert_eq!(server_time.bound(ms(5_010)), Some(Duration::from_millis(5)));
        let next_day = ms(86_400_000);
        server_time.observe(next_day, next_day + Duration::from_millis(140), next_day + Duration::from_millis(80));
        assert_eq!(server_time.at(next_day), next_day + Duration::from_millis(100), "a day of drift outweighs delay");
    }
}
