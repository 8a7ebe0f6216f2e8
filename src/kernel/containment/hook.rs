//! One of the owner's ways to stop the bot, until it is stopped.

use serde::{Deserialize, Serialize};

use crate::kernel::act::ActOutcome;
use crate::kernel::containment::tries::Tries;
use crate::kernel::time::Time;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hook {
    pub tries: Tries,
    pub stopped: Option<(Time, Box<str>)>,
}

impl Hook {
    /// The line that tells of it, if it is news.
    pub(super) fn ended(&mut self, now: Time, name: &str, outcome: &ActOutcome) -> Option<String> {
        match outcome {
            ActOutcome::Done { proof } => {
                self.tries.worked();
                self.stopped = Some((now, proof.clone()));
                Some(format!("the bot was stopped by {name}: {proof}"))
            }
            ActOutcome::Held { until, reason } => {
                self.tries.held(*until, reason);
                None
            }
            ActOutcome::Refused { reason, .. } | ActOutcome::Unknown { reason } => {
                self.tries.failed(now, reason);
                (self.tries.failures == 1).then(|| format!("the bot could not be stopped by {name}: {reason}"))
            }
            ActOutcome::Keys(_)
            | ActOutcome::Probed(_)
            | ActOutcome::Orders(_)
            | ActOutcome::Balances(_)
            | ActOutcome::NotFound
            | ActOutcome::Quote(_)
            | ActOutcome::Sold { .. } => {
                self.tries.failed(now, "the answer was of another kind");
                None
            }
        }
    }
}
