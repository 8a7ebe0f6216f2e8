//! The only file that reads a clock.
//!
//! *Journal time* starts at the later of the wall clock and the last time recorded, and is then advanced by the
//! monotonic clock, so it never goes back, whatever is done to the wall clock.

#![expect(clippy::disallowed_methods, reason = "this is the file that reads the clock")]

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::kernel::time::Time;

/// The wall clock and journal time drift apart by no more than this without it being an event.
const JUMP: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Clock {
    base: Time,
    started: Instant,
    /// How far the wall clock was ahead of journal time when last looked at, in microseconds.
    ahead: Mutex<i64>,
}

impl Clock {
    pub fn new(last_recorded: Option<Time>) -> Self {
        let wall = wall();
        let base = last_recorded.map_or(wall, |last| last.max(wall));
        // A journal that is ahead of the wall clock is told like a jump.
        Self { base, started: Instant::now(), ahead: Mutex::new(0) }
    }

    /// Journal time.
    pub fn now(&self) -> Time {
        self.base + self.started.elapsed()
    }

    /// A time of the wall clock, as journal time counts.
    pub fn in_journal_time(&self, time: Time) -> Time {
        let ahead = wall().micros().saturating_sub(self.now().micros());
        Time::from_micros(time.micros().saturating_sub(ahead))
    }

    /// By how many milliseconds the wall clock has jumped since the last look.
    pub fn jump_ms(&self) -> Option<i64> {
        let ahead = wall().micros().saturating_sub(self.now().micros());
        let mut before = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let jump = ahead.saturating_sub(std::mem::replace(&mut *before, ahead));
        (jump.unsigned_abs() > u64::try_from(JUMP.as_micros()).unwrap_or(u64::MAX)).then_some(jump / 1_000)
    }
}

/// The wall clock, for what has no journal: the simulator, and requests that a venue checks against its own clock.
pub fn wall() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
