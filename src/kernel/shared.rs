//! The shared kernel: what accounts have in common. It knows the owner's channels and who may speak on them, paces
//! each channel by itself, and folds what many accounts say into few messages.
//!
//! Invariants: pure, like an account's kernel; nothing is queued per change (see `telling`), so its size is bounded by
//! the limits below; an alert is pending in this state until its delivery comes back as an event; nothing that
//! happens on one channel delays the other.

mod authority;
mod hearing;
mod posting;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::kernel::button::Buttons;
use crate::kernel::channel::{Channel, ChatId, Pace, Post, PostOutcome};
use crate::kernel::chat::{ChatUpdate, Operators, Paired, TelegramConfig, ToldThisHour};
use crate::kernel::command::{Command, Totp};
use crate::kernel::event::EffectId;
use crate::kernel::incident::{IncidentId, IncidentState, Notice};
use crate::kernel::order::Account;
use crate::kernel::pairs;
use crate::kernel::people::{People, Way};
use crate::kernel::shared::authority::{Authority, Question};
use crate::kernel::telling::{Card, Debt, IncidentKey, Showing};
use crate::kernel::time::Time;

/// At the limit the least of all (ended, then acknowledged, then the lowest priority, then the oldest) is no longer
/// followed, and the channels say so.
const CARDS_MAX: usize = 500;
/// Ended and told: a late echo of one of these, or another line of it, is not told again. At the limit the oldest is forgotten.
const CLOSED_MAX: usize = 256;
/// Sentences waiting for one channel; at the limit the newest is left out, and the next one says how many were.
const TEXTS_MAX: usize = 20;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telegram: Option<TelegramConfig>,
    pub webhook: bool,
    /// The accounts that countersign may stop when it is told to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stoppable: Vec<Account>,
    #[serde(default, skip_serializing_if = "People::is_empty")]
    pub people: People,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SharedEvent {
    /// The process started, or started again: what was under way is asked for again, marked as a possible repeat.
    Started {
        config: SharedConfig,
    },
    /// A snapshot: the whole state as it was.
    Restored(Box<Shared>),
    /// An account's incident changed.
    Notice(Box<Notice>),
    Update(ChatUpdate),
    /// `countersign pair` made a one-time code; only its digest (`chat::pairing_digest`) comes here.
    PairingIssued {
        code_sha256: Box<str>,
        expires: Time,
    },
    /// The answer to a `Show`, or what an account had to say to an `Acknowledge`.
    Answered {
        chat: ChatId,
        text: Box<str>,
    },
    /// What an account says to everybody.
    Announced {
        text: Box<str>,
    },
    /// What an account had to say to a command, whichever way that came.
    Commanded {
        said: Said,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<Box<str>>,
    },
    Posted {
        effect: EffectId,
        outcome: PostOutcome,
    },
    /// Something is wrong with a channel beside its posts. Told on the other channel.
    ChannelFault {
        channel: Channel,
        fault: ChannelFault,
    },
    /// The fault is over.
    ChannelSound {
        channel: Channel,
    },
    Due,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum ChannelFault {
    /// Somebody else reads our bot's updates.
    Conflict,
    /// Somebody set a webhook, so that the updates go there.
    WebhookSet {
        host: Box<str>,
    },
    TokenRefused,
    Unreachable {
        reason: Box<str>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
#[must_use]
pub enum SharedEffect {
    /// Its outcome comes back as `Posted` with this effect's id.
    Post(Post),
    /// For the account's kernel. `shown` is the revision that the person saw; `chat` is where a refusal is answered.
    Acknowledge { account: Account, incident: IncidentId, shown: u64, by: Box<str>, chat: ChatId },
    /// For the account's kernel; its answer comes back as `Commanded`.
    Command {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        incident: Option<IncidentId>,
        totp: Totp,
        said: Said,
    },
    /// To be answered from the board, by `Answered`.
    Show { chat: ChatId, what: Show },
}

/// Who told an account to do what, and where the answer goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub account: Account,
    pub command: Command,
    pub by: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Box<str>>,
    /// None for a command from the host, which is answered there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Show {
    Status,
    Incidents,
    /// What waits for another person's approval.
    Requests,
    /// What a kill would do, or what a person must do where countersign cannot.
    Plan,
}

/// How a channel fares, for status and the board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelStatus {
    pub channel: Channel,
    pub state: ChannelState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<ChannelFault>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ChannelState {
    NotPaired,
    /// Nothing is known to be wrong; before the first post, nothing is known.
    Ready,
    Held {
        until: Time,
    },
    Failing {
        since: Time,
        reason: Box<str>,
    },
    Down {
        since: Time,
        reason: Box<str>,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    config: SharedConfig,
    lanes: BTreeMap<Channel, Lane>,
    #[serde(with = "pairs")]
    cards: BTreeMap<IncidentKey, Card>,
    closed: VecDeque<(IncidentKey, u64)>,
    operators: Operators,
    told: ToldThisHour,
    numbers: u64,
    #[serde(default, skip_serializing_if = "Buttons::is_empty")]
    buttons: Buttons,
    #[serde(default, skip_serializing_if = "Authority::is_unused")]
    authority: Authority,
}

/// One configured channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Lane {
    pace: Pace,
    attempt: Option<Attempt>,
    texts: VecDeque<Text>,
    texts_left_out: u64,
    /// The last post was refused as formatted: the next goes as plain text.
    plain: bool,
    fault: Option<ChannelFault>,
}

/// The one post under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Attempt {
    effect: EffectId,
    paying: Paying,
    chat: Option<ChatId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Paying {
    Card(Debt, Showing),
    Many(Debt, Vec<Showing>),
    Text(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Text {
    number: u64,
    /// Another chat than the paired one, where somebody there is answered.
    chat: Option<ChatId>,
    text: Box<str>,
    uncertain: bool,
    at: Time,
    /// Whether somebody means what he asked for: with buttons for the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    question: Option<Question>,
}

impl Shared {
    /// Without a channel until the first `Started`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn apply(&mut self, now: Time, seq: u64, event: SharedEvent) -> Vec<SharedEffect> {
        let mut effects = Vec::new();
        match event {
            SharedEvent::Started { config } => self.start(now, config, &mut effects),
            SharedEvent::Restored(shared) => {
                *self = *shared;
                return effects;
            }
            SharedEvent::Notice(notice) => self.notice(now, *notice),
            SharedEvent::Update(update) => self.update(now, &update, &mut effects),
            SharedEvent::PairingIssued { code_sha256, expires } => self.operators.issue(now, code_sha256, expires),
            SharedEvent::Answered { chat, text } => self.answer(now, chat, &text),
            SharedEvent::Announced { text } => self.report(now, &text),
            SharedEvent::Commanded { said, refused } => self.commanded(now, &said, refused.as_deref()),
            SharedEvent::Posted { effect, outcome } => self.posted(now, effect, outcome),
            SharedEvent::ChannelFault { channel, fault } => self.fault(now, channel, fault),
            SharedEvent::ChannelSound { channel } => {
                if let Some(lane) = self.lanes.get_mut(&channel) {
                    lane.fault = None;
                }
            }
            SharedEvent::Due => {}
        }
        self.watch(now);
        self.close_what_is_over();
        for channel in Channel::ALL {
            let effect = EffectId { cause: seq, index: u32::try_from(effects.len()).unwrap_or(u32::MAX) };
            effects.extend(self.post_next(now, channel, effect).map(SharedEffect::Post));
        }
        effects
    }

    /// When something will be due by itself. Always later than the last event.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        let lane_due = |(channel, lane): (&Channel, &Lane)| {
            let next = match &lane.attempt {
                Some(_) => lane.pace.overdue_at(),
                None => self.wants(*channel).iter().map(|want| want.opens_at).min(),
            };
            [next, lane.pace.down_at()].into_iter().flatten().min()
        };
        self.lanes.iter().filter_map(lane_due).min()
    }

    #[must_use]
    pub fn channels(&self) -> Vec<ChannelStatus> {
        let status = |(channel, lane): (&Channel, &Lane)| {
            let state = match (lane.pace.failing(), lane.pace.held_until()) {
                _ if !self.reaches(*channel) => ChannelState::NotPaired,
                (Some(failing), _) if failing.down => {
                    ChannelState::Down { since: failing.since, reason: failing.reason.clone() }
                }
                (Some(_), Some(until)) => ChannelState::Held { until },
                (Some(failing), None) => ChannelState::Failing { since: failing.since, reason: failing.reason.clone() },
                (None, _) => ChannelState::Ready,
            };
            ChannelStatus { channel: *channel, state, fault: lane.fault.clone() }
        };
        self.lanes.iter().map(status).collect()
    }

    /// The first Telegram update not yet heard: where the inlet begins.
    #[must_use]
    pub const fn next_update(&self) -> i64 {
        self.operators.next_update()
    }

    #[must_use]
    pub const fn paired(&self) -> Option<Paired> {
        self.operators.paired()
    }

    fn start(&mut self, now: Time, config: SharedConfig, effects: &mut Vec<SharedEffect>) {
        let configured = |channel: Channel| match channel {
            Channel::Telegram => config.telegram.is_some(),
            Channel::Webhook => config.webhook,
        };
        // A first start has nothing before it.
        let was_configured = !self.lanes.is_empty();
        self.lanes.retain(|channel, _| configured(*channel));
        for channel in Channel::ALL.into_iter().filter(|channel| configured(*channel)) {
            let lane = self.lanes.entry(channel).or_default();
            lane.pace.restarted(now);
            lane.fault = None;
            if let Some(attempt) = lane.attempt.take() {
                self.mark_uncertain(channel, &attempt);
            }
        }
        if let Some(unpaired) = self.operators.narrow(config.telegram.as_ref()) {
            let text = format!("Telegram is no longer paired: user {} is no longer on the list.", unpaired.user);
            self.report_on(now, Channel::Webhook, &text);
        }
        let before = std::mem::replace(&mut self.config, config);
        if was_configured {
            self.tell_changed_users(now, before.telegram.as_ref());
        }
        for (key, card) in &self.cards {
            effects.extend(
                card.acknowledging.as_ref().map(|pending| hearing::acknowledge(&self.config.people, key, pending)),
            );
        }
    }

    fn notice(&mut self, now: Time, notice: Notice) {
        let key = IncidentKey::of(&notice);
        if let Some(card) = self.cards.get_mut(&key) {
            if notice.revision > card.notice.revision {
                card.renew(notice);
            }
            return;
        }
        if let Some(place) = self.closed.iter().position(|(closed, _)| *closed == key) {
            let revision = &mut self.closed[place].1;
            // What was told as ended and gained a line is no news; what is open again is.
            if notice.state == IncidentState::Ended {
                *revision = notice.revision.max(*revision);
            }
            if notice.revision <= *revision {
                return;
            }
            self.closed.remove(place);
        }
        self.cards.insert(key, Card::new(notice));
        if self.cards.len() > CARDS_MAX {
            self.stop_following_the_least(now);
        }
    }

    fn stop_following_the_least(&mut self, now: Time) {
        let rank = |card: &Card| {
            let state = match card.notice.state {
                IncidentState::Ended => 0,
                IncidentState::Acknowledged => 1,
                IncidentState::Open => 2,
            };
            (state, card.notice.priority, card.notice.opened_at)
        };
        let Some(least) = self.cards.iter().min_by_key(|(_, card)| rank(card)).map(|(key, _)| key.clone()) else {
            return;
        };
        let open = self.cards.remove(&least).is_some_and(|card| card.notice.state == IncidentState::Open);
        if open && self.told.tell(now, "cards").is_some() {
            let text = format!(
                "More than {CARDS_MAX} incidents are open at once: the least of them are no longer followed in these \
                 messages. All of them: countersign incidents"
            );
            self.report(now, &text);
        }
    }

    fn close_what_is_over(&mut self) {
        let channels: Vec<Channel> = self.lanes.keys().copied().filter(|channel| self.reaches(*channel)).collect();
        if channels.is_empty() {
            return;
        }
        let over = |card: &mut Card| channels.iter().all(|channel| card.is_over(*channel));
        for (key, card) in self.cards.extract_if(.., |_, card| over(card)) {
            self.closed.push_back((key, card.notice.revision));
        }
        let too_many = self.closed.len().saturating_sub(CLOSED_MAX);
        self.closed.drain(..too_many);
    }

    /// Whether anything can be told there: a webhook always, Telegram once it is paired.
    fn reaches(&self, channel: Channel) -> bool {
        self.lanes.contains_key(&channel)
            && match channel {
                Channel::Telegram => self.operators.paired().is_some(),
                Channel::Webhook => true,
            }
    }

    fn report(&mut self, now: Time, text: &str) {
        for channel in Channel::ALL {
            self.report_on(now, channel, text);
        }
    }

    fn report_on(&mut self, now: Time, channel: Channel, text: &str) {
        if self.reaches(channel) {
            self.say(now, channel, None, text);
        }
    }

    fn answer(&mut self, now: Time, chat: ChatId, text: &str) {
        self.say(now, Channel::Telegram, Some(chat), text);
    }

    fn say(&mut self, now: Time, channel: Channel, chat: Option<ChatId>, text: &str) {
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        if lane.texts.len() >= TEXTS_MAX {
            lane.texts_left_out += 1;
            return;
        }
        let text = match std::mem::take(&mut lane.texts_left_out) {
            0 => text.into(),
            left_out => format!("{text}\n({left_out} messages before this one found no room.)").into(),
        };
        self.numbers += 1;
        lane.texts.push_back(Text { number: self.numbers, chat, text, uncertain: false, at: now, question: None });
    }
}
