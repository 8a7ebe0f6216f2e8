//! A request that is made until it holds: when it may go again, and how often it went.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::act::ActOutcome;
use crate::kernel::time::Time;

/// The rest after a failure doubles from the first to the last.
const REST_FIRST: Duration = Duration::from_millis(500);
const REST_MAX: Duration = Duration::from_secs(30);
/// After so many failures a step is told as failing. It is tried on, since nobody else will.
pub(super) const LOUD_AFTER: u32 = 8;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tries {
    pub under_way: bool,
    pub failures: u32,
    not_before: Time,
    /// Why the last one failed.
    pub last: Option<Box<str>>,
}

impl Default for Tries {
    fn default() -> Self {
        Self { under_way: false, failures: 0, not_before: Time::EPOCH, last: None }
    }
}

impl Tries {
    pub(super) fn is_ready(&self, now: Time) -> bool {
        !self.under_way && self.not_before <= now
    }

    /// When it will be ready by itself; nothing while it is under way.
    pub(super) fn ready_at(&self) -> Option<Time> {
        (!self.under_way).then_some(self.not_before)
    }

    pub(super) fn sent(&mut self) {
        self.under_way = true;
    }

    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }

    /// Ended, and to be made again after a while although it did not fail.
    pub(super) fn again_at(&mut self, at: Time) {
        *self = Self { not_before: at, ..Self::default() };
    }

    /// What it would tell is wanted at this time; a rest after a failure, or a hold, is kept.
    pub(super) fn again_at_once(&mut self, at: Time) {
        if self.last.is_none() && !self.under_way {
            self.not_before = self.not_before.min(at);
        }
    }

    /// Answered as done; a later reading tells whether it is so, and until then it counts neither way.
    pub(super) fn answered(&mut self) {
        self.under_way = false;
    }

    pub(super) fn failed(&mut self, now: Time, reason: &str) {
        let rest = REST_FIRST * 2_u32.saturating_pow(self.failures.min(10));
        self.under_way = false;
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + rest.min(REST_MAX);
        self.last = Some(reason.into());
    }

    /// Nothing was sent, so it is no failure of the venue's.
    pub(super) fn held(&mut self, until: Time, reason: &str) {
        self.under_way = false;
        self.not_before = until;
        self.last = Some(reason.into());
    }

    /// What came back is not what was asked for.
    pub(super) fn missed(&mut self, now: Time, outcome: &ActOutcome) {
        if let ActOutcome::Held { until, reason } = outcome {
            self.held(*until, reason);
        } else {
            self.failed(now, outcome.reason());
        }
    }

    /// The process ended while it was under way.
    pub(super) fn cut_off(&mut self) {
        self.under_way = false;
        self.not_before = Time::EPOCH;
    }
}
