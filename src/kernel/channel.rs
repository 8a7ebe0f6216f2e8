//! A channel to people, as the shared kernel sees it: what can be posted, how a post can end, and the pace of each
//! channel by itself.
//!
//! Invariants: at most one post is in flight on a channel; nothing that happens on one channel changes when another
//! may post.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::button::Keyboard;
use crate::kernel::time::Time;

/// Telegram allows about one message a second and twenty a minute to a chat; the same pace suits a webhook.
const GAP: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(60);
/// What all but new criticals may use of it.
const POSTS_PER_WINDOW: usize = 15;
/// Once that is used up, new criticals still go, this far apart (and folded, if there are many).
const CRITICAL_GAP: Duration = Duration::from_secs(4);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A hold longer than this is obeyed for this long and then tried again.
const HOLD_MAX: Duration = Duration::from_secs(24 * 3600);
/// A channel that has not delivered for this long, with something to say, is down.
const DOWN_AFTER: Duration = Duration::from_secs(60);
/// The outlet answers sooner than this; when it does not, nobody knows what became of the post.
const OUTCOME_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    Telegram,
    Webhook,
}

impl Channel {
    pub const ALL: [Self; 2] = [Self::Telegram, Self::Webhook];

    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Telegram => Self::Webhook,
            Self::Webhook => Self::Telegram,
        }
    }

    /// Whether a message stays there and can be changed in place.
    #[must_use]
    pub const fn edits(self) -> bool {
        match self {
            Self::Telegram => true,
            Self::Webhook => false,
        }
    }
}

impl std::fmt::Display for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Telegram => "Telegram",
            Self::Webhook => "the webhook",
        })
    }
}

/// A Telegram chat: a person's own (positive) or a group (negative).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChatId(pub i64);

impl std::fmt::Display for ChatId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A message of ours in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(pub i32);

/// Everything an outlet needs to send; it chooses nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "channel", rename_all = "snake_case")]
pub enum Post {
    Telegram(ChatPost),
    Webhook(HookPost),
    /// What the person who pressed a button sees of it at once. It may be lost: nothing comes back of it.
    Pressed(PressAnswer),
}

impl Post {
    /// Marked as having left before it was on disk: after a crash nobody would know of it, and it might come again
    /// without a mark.
    #[must_use]
    pub fn unjournalled(mut self) -> Self {
        const WORDS: &str = "\n(Sent before it was in the journal: the disk is slow or stuck.)";
        match &mut self {
            Self::Telegram(post) => match &mut post.text {
                ChatText::Html(text) | ChatText::Plain(text) => *text = format!("{text}{WORDS}").into(),
            },
            Self::Webhook(post) => {
                if let Some(fields) = post.body.strip_suffix('}') {
                    post.body = format!(r#"{fields},"unjournalled":true}}"#).into();
                }
            }
            Self::Pressed(_) => {}
        }
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressAnswer {
    pub query: Box<str>,
    pub text: Box<str>,
    /// A question of ours that was answered: its buttons go away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<(ChatId, MessageId)>,
}

/// `number` names the message to people and in its short code; an edit or a retry of a message keeps its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatPost {
    pub number: u64,
    pub chat: ChatId,
    pub action: ChatAction,
    pub text: ChatText,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyboard: Option<Keyboard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum ChatAction {
    Send {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<MessageId>,
        /// Without a sound.
        quiet: bool,
    },
    Edit {
        message: MessageId,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", content = "text", rename_all = "snake_case")]
pub enum ChatText {
    Html(Box<str>),
    /// After the channel refused the formatted text.
    Plain(Box<str>),
}

/// `body` is the JSON to send, byte for byte: the outlet signs exactly this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookPost {
    pub number: u64,
    pub body: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum PostOutcome {
    Delivered {
        /// Telegram names the message, a webhook does not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<MessageId>,
    },
    /// The message already says this.
    NotModified,
    RetryAfter {
        secs: u32,
    },
    /// The channel takes no such text: tried once more as plain text, then given up and told on the other channel.
    Refused {
        reason: Box<str>,
    },
    /// Surely not delivered. `permanent`: the channel itself is refused (token, chat, address), not this moment.
    Failed {
        reason: Box<str>,
        permanent: bool,
    },
    /// Sent, and no answer: it may have been delivered, so it is asked for again and marked.
    Unknown {
        reason: Box<str>,
    },
    /// The group became another chat.
    Migrated {
        chat: ChatId,
    },
    /// The message to edit is no longer there.
    Gone,
}

/// How soon a post may go: the smaller, the sooner. Only the first two may go past the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// Somebody waits to stop a theft.
    Question,
    NewCritical,
    Reminder,
    New,
    Text,
    Change,
}

/// When one channel may post, and how it fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pace {
    in_flight_since: Option<Time>,
    free_at: Option<Time>,
    /// The latest posts, at most `POSTS_PER_WINDOW`, the oldest first.
    recent: VecDeque<Time>,
    failures: u32,
    held_until: Option<Time>,
    failing: Option<Failing>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failing {
    pub since: Time,
    pub reason: Box<str>,
    /// Down, and said so.
    pub down: bool,
}

impl Pace {
    /// The earliest time of a post of this urgency, while none is in flight.
    pub(crate) fn opens_at(&self, urgency: Urgency) -> Time {
        let window_opens = match (self.recent.front(), self.recent.back()) {
            (Some(oldest), Some(latest)) if self.recent.len() >= POSTS_PER_WINDOW => match urgency {
                Urgency::Question | Urgency::NewCritical => (*oldest + WINDOW).min(*latest + CRITICAL_GAP),
                Urgency::Reminder | Urgency::New | Urgency::Text | Urgency::Change => *oldest + WINDOW,
            },
            _ => Time::EPOCH,
        };
        window_opens.max(self.free_at.unwrap_or(Time::EPOCH))
    }

    pub(crate) fn sent(&mut self, now: Time) {
        self.in_flight_since = Some(now);
        self.recent.push_back(now);
        if self.recent.len() > POSTS_PER_WINDOW {
            self.recent.pop_front();
        }
    }

    /// What was failing until now, if anything was.
    pub(crate) fn delivered(&mut self, now: Time) -> Option<Failing> {
        self.rest(now, GAP);
        self.failures = 0;
        self.failing.take()
    }

    /// The post ended without a word on the channel's health: refused for its text, or its message gone.
    pub(crate) fn answered(&mut self, now: Time) {
        self.rest(now, GAP);
    }

    pub(crate) fn hold(&mut self, now: Time, secs: u32) {
        let span = Duration::from_secs(secs.into()).clamp(GAP, HOLD_MAX);
        self.rest(now, span);
        self.held_until = Some(now + span);
        self.note_failure(now, format!("asked to wait {secs} s").into());
    }

    pub(crate) fn failed(&mut self, now: Time, reason: Box<str>, permanent: bool) {
        self.failures = self.failures.saturating_add(1);
        let doubled = Duration::from_secs(1 << self.failures.saturating_sub(1).min(6));
        self.rest(now, if permanent { BACKOFF_MAX } else { doubled.min(BACKOFF_MAX) });
        self.note_failure(now, reason);
    }

    /// A new process: nothing is in flight any more. A hold still holds, a backoff does not.
    pub(crate) fn restarted(&mut self, now: Time) {
        self.in_flight_since = None;
        self.failures = 0;
        self.free_at = self.held_until.filter(|until| *until > now);
    }

    /// Counts the channel as down when it is due, and says since when and why, once.
    pub(crate) fn went_down(&mut self, now: Time, at_once: bool) -> Option<Failing> {
        let failing = self.failing.as_mut()?;
        if failing.down || (!at_once && now < failing.since + DOWN_AFTER) {
            return None;
        }
        failing.down = true;
        Some(failing.clone())
    }

    pub(crate) fn down_at(&self) -> Option<Time> {
        self.failing.as_ref().filter(|failing| !failing.down).map(|failing| failing.since + DOWN_AFTER)
    }

    pub(crate) fn overdue_at(&self) -> Option<Time> {
        self.in_flight_since.map(|since| since + OUTCOME_WITHIN)
    }

    pub(crate) fn held_until(&self) -> Option<Time> {
        self.held_until
    }

    pub(crate) fn failing(&self) -> Option<&Failing> {
        self.failing.as_ref()
    }

    fn rest(&mut self, now: Time, span: Duration) {
        self.in_flight_since = None;
        self.held_until = None;
        self.free_at = Some(now + span);
    }

    fn note_failure(&mut self, now: Time, reason: Box<str>) {
        match &mut self.failing {
            Some(failing) => failing.reason = reason,
            None => self.failing = Some(Failing { since: now, reason, down: false }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Time {
        Time::from_millis(secs * 1_000)
    }

    #[test]
    fn rests_longer_after_each_failure_and_a_second_after_a_delivery() {
        let mut pace = Pace::default();
        let mut rests = Vec::new();
        for _ in 0..8 {
            pace.sent(at(0));
            pace.failed(at(0), "no".into(), false);
            rests.push(pace.opens_at(Urgency::Text).millis() / 1_000);
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60]);
        pace.sent(at(100));
        assert!(pace.delivered(at(101)).is_some_and(|failing| failing.since == at(0)));
        assert_eq!(pace.opens_at(Urgency::Text), at(102));
    }

    #[test]
    fn a_used_up_minute_still_lets_new_criticals_through() {
        let mut pace = Pace::default();
        for second in 0..14 {
            pace.sent(at(second));
            assert!(pace.delivered(at(second)).is_none());
        }
        assert_eq!(pace.opens_at(Urgency::Change), at(14));
        for second in 14..30 {
            pace.sent(at(second));
            assert!(pace.delivered(at(second)).is_none());
            assert_eq!(pace.opens_at(Urgency::Change), at(second - 14 + 60));
            assert_eq!(pace.opens_at(Urgency::NewCritical), at(second + 4));
        }
    }

    #[test]
    fn a_post_that_left_too_soon_says_so() {
        let hook = Post::Webhook(HookPost { number: 1, body: r#"{"v":1}"#.into() }).unjournalled();
        assert_eq!(hook, Post::Webhook(HookPost { number: 1, body: r#"{"v":1,"unjournalled":true}"#.into() }));
        let action = ChatAction::Send { reply_to: None, quiet: false };
        let text = ChatText::Plain("A".into());
        let chat = Post::Telegram(ChatPost { number: 1, chat: ChatId(1), action, text, keyboard: None }).unjournalled();
        let Post::Telegram(ChatPost { text: ChatText::Plain(text), .. }) = chat else { panic!("{chat:?}") };
        assert!(text.starts_with("A\n(Sent before"), "{text}");
    }

    #[test]
    fn a_hold_outlives_a_restart_and_a_backoff_does_not() {
        let mut pace = Pace::default();
        pace.sent(at(0));
        pace.hold(at(0), 3_600);
        pace.restarted(at(10));
        assert_eq!(pace.opens_at(Urgency::NewCritical), at(3_600));
        pace.sent(at(3_600));
        pace.failed(at(3_600), "no".into(), true);
        pace.restarted(at(3_601));
        assert_eq!(pace.opens_at(Urgency::NewCritical), Time::EPOCH);
    }
}
