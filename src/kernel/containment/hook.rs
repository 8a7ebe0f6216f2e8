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
/// A hook's word is a proof once nobody was heard for so long: the last words, and then eight beats of a bot that lives.
const LISTENS: Duration = Duration::from_secs(5);
/// A bot that was heard after its stop has fallen silent when nothing came of it for so long. Of one that only beats, a
/// beat in five seconds is a row. It doubles each time that the bot is heard after a stop, up to the last.
const SILENT_AFTER: Duration = Duration::from_secs(12);
const SILENT_DOUBLED_MAX: u32 = 5;
/// A bot that speaks so long after its end was proved was started again, which is another matter.
const STARTED_AGAIN_AFTER: Duration = Duration::from_secs(600);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hook {
    pub tries: Tries,
    pub stopped: Option<(Time, Box<str>)>,
    /// The bot's process lives on and beats: only what it announces speaks against its stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pauses: bool,
    /// Until then its word is no proof: nobody has listened for long enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listens_until: Option<Time>,
    /// When nobody had been heard for long enough, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proved_at: Option<Time>,
    /// A bot spoke after its word, and nobody can tell whose: another way has not worked yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    doubted: bool,
    /// The bot that was heard after its stop, and when last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spoke: Option<(Time, Bot)>,
    /// How often a bot was heard after such a word.
    #[serde(default)]
    disproved: u32,
}

impl Hook {
    pub(super) fn new(pauses: bool) -> Self {
        Self {
            tries: Tries::default(),
            stopped: None,
            pauses,
            listens_until: None,
            proved_at: None,
            doubted: false,
            spoke: None,
            disproved: 0,
        }
    }

    /// It said that it had stopped the bot, and the bot spoke; until it has been silent for long enough.
    pub(super) fn is_disproved(&self) -> bool {
        self.spoke.is_some()
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.doubted
    }

    pub(super) fn is_proved(&self) -> bool {
        self.stopped.is_some() && self.listens_until.is_none() && !self.doubted
    }

    /// Nothing speaks against it so far, and it is soon known whether it has stopped the bot.
    pub(super) fn is_awaited(&self) -> bool {
        let runs = self.stopped.is_none() && self.tries.under_way && self.tries.failures == 0;
        !self.is_disproved() && (runs || self.listens_until.is_some())
    }

    /// While it is not proved that the bot has stopped, each beat tells whether that is so.
    pub(super) fn wants_beats(&self) -> bool {
        !self.pauses && self.listens_until.is_some()
    }

    /// When it has something to do, or is proved, by itself.
    pub(super) fn due(&self) -> Option<Time> {
        if self.stopped.is_some() { self.listens_until } else { self.tries.ready_at() }
    }

    fn silence(&self) -> Duration {
        SILENT_AFTER * 2_u32.pow(self.disproved.saturating_sub(1).min(SILENT_DOUBLED_MAX))
    }

    /// A bot that was heard already must be silent for twice as long again.
    fn listens_from(&mut self, now: Time) {
        let listens = if self.is_disproved() { self.silence() * 2 } else { LISTENS };
        self.listens_until = Some(now + listens);
    }

    /// Whether what a bot says now is against the word that this hook gave.
    fn is_contradicted(&self, now: Time, at: Time, announced: Option<Time>) -> bool {
        // What it wrote before and could not send is no new order.
        let speaks = !self.pauses || announced.is_some_and(|written| at < written);
        let started_again = self.is_proved() && STARTED_AGAIN_AFTER <= now.since(self.proved_at.unwrap_or(at));
        speaks && LAST_WORDS < now.since(at) && !started_again
    }

    /// A bot spoke, and whether it is the one that this hook stopped is not known: its word is no proof any more. Gives that
    /// word if that is news.
    pub(super) fn doubt(&mut self, now: Time, announced: Option<Time>) -> Option<Box<str>> {
        let (at, proof) = self.stopped.clone()?;
        if self.doubted || !self.is_contradicted(now, at, announced) {
            return None;
        }
        // Whoever goes on listening hears the other bot, again and again.
        (self.doubted, self.listens_until) = (true, None);
        Some(proof)
    }

    /// Whoever speaks now is one that this hook stopped, or that a hook beside it did: its word counts from here.
    pub(super) fn listen_anew(&mut self, now: Time) {
        if std::mem::take(&mut self.doubted) {
            self.stopped.iter_mut().for_each(|(at, _)| *at = now);
            self.listens_from(now);
        }
    }

    /// A bot spoke. Gives what the hook had called its proof if that is news.
    pub(super) fn bot_spoke(&mut self, now: Time, bot: &Bot, announced: Option<Time>) -> Option<Box<str>> {
        let Some((at, proof)) = self.stopped.clone() else {
            if self.is_disproved() && (!self.pauses || announced.is_some()) {
                self.spoke = Some((now, bot.clone()));
            }
            return None;
        };
        if !self.is_contradicted(now, at, announced) {
            return None;
        }
        (self.stopped, self.listens_until, self.doubted) = (None, None, false);
        self.disproved = self.disproved.saturating_add(1);
        let told = self.spoke.replace((now, bot.clone())).is_some();
        let reason = self.against(&proof, bot);
        self.tries.failed(now, &reason);
        (!told).then_some(proof)
    }

    /// Nobody was heard while it listened. Gives the line that tells that the bot is stopped.
    pub(super) fn heard_out(&mut self, now: Time, name: &str) -> Option<String> {
        self.listens_until.take_if(|until| *until <= now)?;
        (self.spoke, self.proved_at) = (None, Some(now));
        self.stopped.as_ref().map(|(_, proof)| format!("the bot was stopped by {name}: {proof}"))
    }

    /// The process ended and started again: nobody listened meanwhile.
    pub(super) fn cut_off(&mut self, now: Time) {
        self.tries.cut_off();
        if self.listens_until.is_some() {
            self.listens_from(now);
        }
    }

    /// What is known of it now.
    pub(super) fn told(&self) -> Option<Box<str>> {
        match (&self.stopped, self.listens_until, &self.tries.last) {
            (Some((_, proof)), ..) if self.doubted => {
                Some(format!("it says {proof:?}; not proved: a bot still speaks, and it cannot be told which").into())
            }
            (Some((_, proof)), Some(_), _) => Some(
                format!("it says {proof:?}; not proved yet: countersign listens whether a bot still speaks").into(),
            ),
            (Some((_, proof)), None, _) => Some(proof.clone()),
            (None, _, last) => last.clone(),
        }
    }

    /// The line that tells of it, if it is news.
    pub(super) fn ended(&mut self, now: Time, name: &str, outcome: &ActOutcome) -> Option<String> {
        match outcome {
            // The same word as before proves no more than before, unless the bot has fallen silent.
            ActOutcome::Done { proof }
                if let Some((_, bot)) = self.spoke.as_ref().filter(|(at, _)| now.since(*at) <= self.silence()) =>
            {
                let reason = self.against(proof, bot);
                self.tries.failed(now, &reason);
                None
            }
            ActOutcome::Done { proof } => {
                self.tries.worked();
                self.stopped = Some((now, proof.clone()));
                self.listens_from(now);
                None
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

    fn against(&self, proof: &str, bot: &Bot) -> String {
        let times =
            if self.disproved > 1 { format!(", heard after {} such words", self.disproved) } else { String::new() };
        format!("it said {proof:?}, and bot {bot} still speaks to countersign{times}")
    }
}
