//! One of the owner's ways to stop the bot, until it is stopped. Its own answer is a proof for as long as no bot says
//! otherwise: one that still speaks was not stopped, whatever the way says.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::act::ActOutcome;
use crate::kernel::containment::tries::Tries;
use crate::kernel::order::Bot;
use crate::kernel::time::Time;

/// What was on its way here when the bot stopped, or said while it stopped, speaks against nothing.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// A bot that was heard after its stop has fallen silent when nothing came of it for so long. Of one that only beats, a
/// beat in five seconds is a row.
const SILENT_AFTER: Duration = Duration::from_secs(12);
/// A bot that speaks so long after its end was started again, which is another matter.
const STARTED_AGAIN_AFTER: Duration = Duration::from_secs(600);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hook {
    pub tries: Tries,
    pub stopped: Option<(Time, Box<str>)>,
    /// The bot's process lives on and beats: only what it announces speaks against its stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pauses: bool,
    /// The bot that was heard after its stop, and when last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spoke: Option<(Time, Bot)>,
}

impl Hook {
    pub(super) fn new(pauses: bool) -> Self {
        Self { tries: Tries::default(), stopped: None, pauses, spoke: None }
    }

    /// It said that it had stopped the bot, and the bot still speaks.
    pub(super) fn is_disproved(&self) -> bool {
        self.stopped.is_none() && self.spoke.is_some()
    }

    /// Shortly after it said that the bot has stopped each beat tells whether that is so.
    pub(super) fn wants_beats(&self, now: Time) -> bool {
        !self.pauses && self.stopped.as_ref().is_some_and(|(at, _)| now.since(*at) <= LAST_WORDS)
    }

    /// A bot spoke. Gives what the hook had called its proof if that is the first word against it.
    pub(super) fn bot_spoke(&mut self, now: Time, bot: &Bot, announced: Option<Time>) -> Option<Box<str>> {
        let pauses = self.pauses;
        if self.is_disproved() && (!pauses || announced.is_some()) {
            self.spoke = Some((now, bot.clone()));
        }
        let against = |(at, _): &mut (Time, Box<str>)| {
            let since = now.since(*at);
            // What it wrote before and could not send is no new order.
            let speaks = !pauses || announced.is_some_and(|written| *at < written);
            speaks && LAST_WORDS < since && since < STARTED_AGAIN_AFTER
        };
        let (_, proof) = self.stopped.take_if(against)?;
        self.spoke = Some((now, bot.clone()));
        self.tries.failed(now, &disproved(&proof, bot));
        Some(proof)
    }

    /// The line that tells of it, if it is news.
    pub(super) fn ended(&mut self, now: Time, name: &str, outcome: &ActOutcome) -> Option<String> {
        match outcome {
            // The same word as before proves no more than before, unless the bot has fallen silent.
            ActOutcome::Done { proof }
                if let Some((_, bot)) = self.spoke.as_ref().filter(|(at, _)| now.since(*at) <= SILENT_AFTER) =>
            {
                let reason = disproved(proof, bot);
                self.tries.failed(now, &reason);
                None
            }
            ActOutcome::Done { proof } => {
                self.tries.worked();
                self.spoke = None;
                self.stopped = Some((now, proof.clone()));
                Some(format!("the bot was stopped by {name}: {proof}"))
            }
            ActOutcome::Refused { reason, .. } | ActOutcome::Unknown { reason } => {
                self.tries.failed(now, reason);
                (self.tries.failures == 1).then(|| format!("the bot could not be stopped by {name}: {reason}"))
            }
            ActOutcome::Held { .. }
            | ActOutcome::Keys(_)
            | ActOutcome::Probed(_)
            | ActOutcome::Orders(_)
            | ActOutcome::Balances(_)
            | ActOutcome::NotFound
            | ActOutcome::Quote(_)
            | ActOutcome::Sold { .. } => {
                self.tries.missed(now, outcome);
                None
            }
        }
    }
}

fn disproved(proof: &str, bot: &Bot) -> String {
    format!("it said {proof:?}, and bot {bot} still speaks to countersign")
}
