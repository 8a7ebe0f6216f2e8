//! Who may speak to countersign in Telegram, and what was said: pairing, authority and the words of commands.
//!
//! Invariants: no update is heard twice; nobody outside the configured user ids is obeyed, and no chat but the
//! paired one; a pairing code works once, for ten minutes, and dies of five wrong guesses.

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kernel::button::{Pressed, Void};
use crate::kernel::channel::ChatId;
use crate::kernel::command::Totp;
use crate::kernel::incident::IncidentId;
use crate::kernel::order::Account;
use crate::kernel::time::Time;
use crate::kernel::typed::{self, Order};

/// Telegram's stand-ins for people who do not show themselves: all anonymous admins of all groups, all channels, and
/// Telegram itself, which forwards channel posts into groups.
const FACELESS_USERS: [u64; 3] = [1_087_968_824, 136_817_688, 777_000];
const COMMAND_AGE_MAX: Duration = Duration::from_secs(60);
const PAIRING_SPAN_MAX: Duration = Duration::from_secs(600);
const WRONG_CODES_MAX: u32 = 5;
/// Telegram starts update ids anew, perhaps lower, after a week without updates.
const NEW_SERIES_AFTER: Duration = Duration::from_secs(6 * 24 * 3600);
/// What is told at most once an hour; at the limit the rest is only counted.
const SUBJECTS_MAX: usize = 50;
const HOUR: Duration = Duration::from_secs(3600);

/// One Telegram message, or one press of a button, as the inlet saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatUpdate {
    pub update_id: i64,
    /// Telegram's clock, in whole seconds. A press has no time of Telegram's: this is when it was read, and its age is
    /// bounded by its token.
    pub at: Time,
    pub chat: ChatId,
    pub chat_kind: ChatKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u64>,
    /// Cut by the inlet; no command is that long.
    pub text: Box<str>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressed: Option<Pressed>,
    /// Of the one-time password that stood in the text, where the command takes one; the text is without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totp: Option<Totp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatKind {
    Private,
    Group,
    Channel,
}

/// What makes a message something else than one person's own words, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    Edited,
    Forwarded,
    ViaBot,
    /// Sent on behalf of a chat: a channel, or an anonymous admin.
    SenderChat,
    /// A button under a message that is not of our bot.
    OtherSender,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelegramConfig {
    pub allowed_users: Vec<u64>,
    /// Whether a group may be paired; otherwise only a private chat.
    pub group_chat: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paired {
    pub chat: ChatId,
    pub user: u64,
    pub since: Time,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Heard before, or nothing that is meant for us.
    Nothing,
    Paired {
        before: Option<Paired>,
        now: Paired,
    },
    NotPaired {
        user: u64,
        chat: ChatId,
        why: PairingFailure,
    },
    Command {
        user: u64,
        chat: ChatId,
        command: Command,
    },
    Pressed {
        user: u64,
        chat: ChatId,
    },
    Refused {
        refusal: Refusal,
        /// Whether the sender is one of ours and is told why.
        answer: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PairingFailure {
    NoCode,
    Wrong { left: u32 },
    Died,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Status,
    Incidents,
    Acknowledge {
        account: Option<Account>,
        incident: IncidentId,
    },
    /// `/ack` without an incident that could be read.
    AcknowledgeWhat,
    /// What a kill would do, or why there can be none.
    Plan,
    Freeze {
        account: Option<Account>,
    },
    Kill {
        account: Option<Account>,
    },
    /// What takes a one-time password, or two people, or is about a claim window.
    Order(Order),
    /// The same, and not as it is typed: what is wrong, and how it should be.
    OrderLike(Box<str>),
    Requests,
    Help,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Marked(Mark),
    ChannelPost,
    Faceless,
    Stranger,
    Stale,
    /// An owner, in a chat that is not the paired one.
    OtherChat,
    /// An update that was heard before.
    Replayed,
    /// A button under nothing that stands in a chat.
    NoMessage,
    NoToken,
    Forged,
    Void(Void),
}

impl Refusal {
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Marked(Mark::Edited) => "it is an edited message",
            Self::Marked(Mark::Forwarded) => "it is a forwarded message",
            Self::Marked(Mark::ViaBot) => "it was sent through a bot",
            Self::Marked(Mark::SenderChat) => "it was sent on behalf of a chat, not by a person",
            Self::ChannelPost => "it is a channel post",
            Self::Faceless => "nobody can tell who sent it (anonymous admin, channel or Telegram itself)",
            Self::Stranger => "the sender is not on the list of allowed users",
            Self::Stale => "its time is more than 60 s away from ours",
            Self::Marked(Mark::OtherSender) => "the button stands under a message that is not ours",
            Self::OtherChat => "this chat is not the paired one",
            Self::Replayed => "its number is one of an update that was heard before",
            Self::NoMessage => "the button stands under no message of a chat",
            Self::NoToken => "the button carries nothing of ours",
            Self::Forged => "the button's token was not made by us for this user and chat",
            Self::Void(Void::NoMessage) => "the button belongs to a message whose buttons no longer count",
            Self::Void(Void::NotYet) => "Telegram has not told us yet which message carries the button",
            Self::Void(Void::OtherMessage) => "the button stands under another message than the one it was made for",
            Self::Void(Void::OtherKeyboard) => "the button is not of what its message shows now",
            Self::Void(Void::Expired) => "the button has expired",
            Self::Void(Void::Used) => "the button was used already",
        }
    }
}

/// What `countersign pair` hands over instead of the code itself: the code never stands in the journal before it is
/// used. Case, spaces and dashes in it do not matter.
#[must_use]
pub fn pairing_digest(code: &str) -> Box<str> {
    let letters: String =
        code.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_uppercase()).collect();
    HEXLOWER.encode(&Sha256::digest(letters.as_bytes())).into()
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Operators {
    next_update: i64,
    last_heard_at: Option<Time>,
    paired: Option<Paired>,
    code: Option<PairingCode>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PairingCode {
    sha256: Box<str>,
    expires: Time,
    wrong: u32,
}

impl Operators {
    pub(crate) const fn next_update(&self) -> i64 {
        self.next_update
    }

    pub(crate) const fn paired(&self) -> Option<Paired> {
        self.paired
    }

    /// A new configuration: whoever is no longer on its list is no longer paired.
    pub(crate) fn narrow(&mut self, config: Option<&TelegramConfig>) -> Option<Paired> {
        let allowed = |user: u64| config.is_some_and(|telegram| telegram.allowed_users.contains(&user));
        self.paired.take_if(|paired| !allowed(paired.user))
    }

    pub(crate) fn issue(&mut self, now: Time, sha256: Box<str>, expires: Time) {
        self.code = Some(PairingCode { sha256, expires: expires.min(now + PAIRING_SPAN_MAX), wrong: 0 });
    }

    /// The paired chat goes on under another id; any other chat is not followed.
    pub(crate) fn migrate(&mut self, from: ChatId, to: ChatId) -> bool {
        match &mut self.paired {
            Some(paired) if paired.chat == from => {
                paired.chat = to;
                true
            }
            Some(_) | None => false,
        }
    }

    pub(crate) fn hear(&mut self, now: Time, config: &TelegramConfig, update: &ChatUpdate) -> Heard {
        let chatter = update.pressed.is_none()
            && !update.text.starts_with('/')
            && (update.chat_kind == ChatKind::Group || update.marks.contains(&Mark::Edited));
        let new_series = self.last_heard_at.is_some_and(|at| now.since(at) >= NEW_SERIES_AFTER);
        if update.update_id < self.next_update && !new_series {
            let refused = Heard::Refused { refusal: Refusal::Replayed, answer: false };
            return if chatter { Heard::Nothing } else { refused };
        }
        self.next_update = update.update_id.saturating_add(1);
        self.last_heard_at = Some(now);
        if chatter {
            return Heard::Nothing;
        }
        let user = match judge(now, config, update) {
            Ok(user) => user,
            Err(refusal) => {
                let ours = update.user.is_some_and(|user| config.allowed_users.contains(&user));
                return Heard::Refused { refusal, answer: ours && refusal == Refusal::Stale };
            }
        };
        if let Some(pressed) = &update.pressed {
            if self.paired.is_none_or(|paired| paired.chat != update.chat) {
                let refusal = if pressed.message.is_none() { Refusal::NoMessage } else { Refusal::OtherChat };
                return Heard::Refused { refusal, answer: false };
            }
            return Heard::Pressed { user, chat: update.chat };
        }
        let mut words = update.text.split_whitespace();
        let word = words.next().unwrap_or_default();
        let word = word.split_once('@').map_or(word, |(command, _bot)| command);
        let rest: Vec<&str> = words.collect();
        if (word == "/pair" || (word == "/start" && !rest.is_empty()))
            && (update.chat_kind == ChatKind::Private || config.group_chat)
        {
            return self.pair(now, user, update.chat, &rest.concat());
        }
        if self.paired.is_none_or(|paired| paired.chat != update.chat) {
            return Heard::Refused { refusal: Refusal::OtherChat, answer: true };
        }
        Heard::Command { user, chat: update.chat, command: command(word, &rest) }
    }

    fn pair(&mut self, now: Time, user: u64, chat: ChatId, guess: &str) -> Heard {
        let Some(code) = self.code.as_mut().filter(|code| now < code.expires) else {
            self.code = None;
            return Heard::NotPaired { user, chat, why: PairingFailure::NoCode };
        };
        if code.sha256 == pairing_digest(guess) {
            self.code = None;
            let paired = Paired { chat, user, since: now };
            return Heard::Paired { before: self.paired.replace(paired), now: paired };
        }
        code.wrong += 1;
        let why = match WRONG_CODES_MAX.saturating_sub(code.wrong) {
            0 => {
                self.code = None;
                PairingFailure::Died
            }
            left => PairingFailure::Wrong { left },
        };
        Heard::NotPaired { user, chat, why }
    }
}

/// The person who said this, now and in person.
fn judge(now: Time, config: &TelegramConfig, update: &ChatUpdate) -> Result<u64, Refusal> {
    if update.chat_kind == ChatKind::Channel {
        return Err(Refusal::ChannelPost);
    }
    let user = match update.user {
        Some(user) if !FACELESS_USERS.contains(&user) => user,
        Some(_) | None => return Err(Refusal::Faceless),
    };
    if let Some(mark) = update.marks.first() {
        return Err(Refusal::Marked(*mark));
    }
    if !config.allowed_users.contains(&user) {
        return Err(Refusal::Stranger);
    }
    if now.apart(update.at) > COMMAND_AGE_MAX {
        return Err(Refusal::Stale);
    }
    Ok(user)
}

fn command(word: &str, rest: &[&str]) -> Command {
    let incident = |text: &str| text.trim_start_matches('#').parse().ok().map(IncidentId);
    match (word, rest) {
        ("/status", []) => Command::Status,
        ("/incidents", []) => Command::Incidents,
        ("/help" | "/start", _) => Command::Help,
        ("/ack", [id]) => {
            incident(id).map_or(Command::AcknowledgeWhat, |incident| Command::Acknowledge { account: None, incident })
        }
        ("/ack", [account, id]) => incident(id).map_or(Command::AcknowledgeWhat, |incident| Command::Acknowledge {
            account: Some(Account::new(account)),
            incident,
        }),
        ("/ack", _) => Command::AcknowledgeWhat,
        ("/plan", []) => Command::Plan,
        ("/freeze", []) => Command::Freeze { account: None },
        ("/freeze", [account]) => Command::Freeze { account: Some(Account::new(account)) },
        ("/kill", []) => Command::Kill { account: None },
        ("/kill", [account]) => Command::Kill { account: Some(Account::new(account)) },
        ("/requests", []) => Command::Requests,
        _ => match typed::order(word, rest) {
            Some(Ok(order)) => Command::Order(order),
            Some(Err(like)) => Command::OrderLike(like),
            None => Command::Unknown,
        },
    }
}

/// What has been told within the hour, so that nothing a stranger can repeat is told each time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToldThisHour {
    subjects: BTreeMap<Box<str>, Time>,
    untold: u64,
}

impl ToldThisHour {
    /// `Some` with the count of what was left out since the last one, if this is to be told.
    pub(crate) fn tell(&mut self, now: Time, subject: &str) -> Option<u64> {
        self.subjects.retain(|_, at| now.since(*at) < HOUR);
        if self.subjects.contains_key(subject) {
            return None;
        }
        if self.subjects.len() >= SUBJECTS_MAX {
            self.untold = self.untold.saturating_add(1);
            return None;
        }
        self.subjects.insert(subject.into(), now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_764_000_000_000);
    const OWNER: u64 = 42;
    const CHAT: ChatId = ChatId(42);

    fn said(update_id: i64, text: &str) -> ChatUpdate {
        ChatUpdate {
            update_id,
            at: NOW,
            chat: CHAT,
            chat_kind: ChatKind::Private,
            user: Some(OWNER),
            text: text.into(),
            marks: Vec::new(),
            pressed: None,
            totp: None,
        }
    }

    fn config() -> TelegramConfig {
        TelegramConfig { allowed_users: vec![OWNER], group_chat: false }
    }

    fn paired() -> Operators {
        let mut operators = Operators::default();
        operators.issue(NOW, pairing_digest("ABCD-2345"), NOW + HOUR);
        let heard = operators.hear(NOW, &config(), &said(1, "/pair abcd 2345"));
        assert!(matches!(heard, Heard::Paired { before: None, now: Paired { chat: CHAT, user: OWNER, .. } }));
        operators
    }

    fn resume(why: Option<&str>) -> Command {
        let command = crate::kernel::command::Command::Resume;
        Command::Order(Order { account: Some(Account::new("main")), command, why: why.map(Into::into) })
    }

    #[test]
    fn obeys_the_owner_in_the_paired_chat() {
        for (text, command) in [
            ("/status", Command::Status),
            ("/incidents@my_bot", Command::Incidents),
            ("/ack 12", Command::Acknowledge { account: None, incident: IncidentId(12) }),
            ("/ack main #12", Command::Acknowledge { account: Some(Account::new("main")), incident: IncidentId(12) }),
            ("/ack", Command::AcknowledgeWhat),
            ("/ack twelve", Command::AcknowledgeWhat),
            ("/help", Command::Help),
            ("/start", Command::Help),
            ("/kill", Command::Kill { account: None }),
            ("/freeze@my_bot main", Command::Freeze { account: Some(Account::new("main")) }),
            ("/kill all of them", Command::Unknown),
            ("/plan", Command::Plan),
            ("/resume", Command::OrderLike("Like this: /resume ACCOUNT CODE WHY".into())),
            ("/resume main", resume(None)),
            ("/requests", Command::Requests),
            ("/resume main the key  is new", resume(Some("the key is new"))),
            ("hello", Command::Unknown),
        ] {
            let heard = paired().hear(NOW, &config(), &said(2, text));
            assert_eq!(heard, Heard::Command { user: OWNER, chat: CHAT, command }, "{text}");
        }
    }

    #[test]
    fn refuses_everybody_and_everything_else() {
        type Change = fn(&mut ChatUpdate);
        let refused: [(&str, Change, Refusal); 12] = [
            ("stranger", |u| u.user = Some(7), Refusal::Stranger),
            ("no user", |u| u.user = None, Refusal::Faceless),
            ("anonymous admin", |u| u.user = Some(1_087_968_824), Refusal::Faceless),
            ("Telegram", |u| u.user = Some(777_000), Refusal::Faceless),
            ("edited", |u| u.marks.push(Mark::Edited), Refusal::Marked(Mark::Edited)),
            ("forwarded", |u| u.marks.push(Mark::Forwarded), Refusal::Marked(Mark::Forwarded)),
            ("via bot", |u| u.marks.push(Mark::ViaBot), Refusal::Marked(Mark::ViaBot)),
            ("sender chat", |u| u.marks.push(Mark::SenderChat), Refusal::Marked(Mark::SenderChat)),
            ("not ours", |u| u.marks.push(Mark::OtherSender), Refusal::Marked(Mark::OtherSender)),
            ("channel", |u| u.chat_kind = ChatKind::Channel, Refusal::ChannelPost),
            ("old", |u| u.at = NOW - Duration::from_secs(61), Refusal::Stale),
            ("group", |u| (u.chat, u.chat_kind) = (ChatId(-5), ChatKind::Group), Refusal::OtherChat),
        ];
        for (name, change, expected) in refused {
            let mut update = said(2, "/ack 12");
            change(&mut update);
            let heard = paired().hear(NOW, &config(), &update);
            assert!(matches!(heard, Heard::Refused { refusal, .. } if refusal == expected), "{name}: {heard:?}");
        }
    }

    #[test]
    fn hears_no_update_twice_but_a_new_series_after_a_silent_week() {
        let mut operators = paired();
        assert!(matches!(operators.hear(NOW, &config(), &said(9, "/status")), Heard::Command { .. }));
        let replayed = Heard::Refused { refusal: Refusal::Replayed, answer: false };
        assert_eq!(operators.hear(NOW, &config(), &said(9, "/status")), replayed);
        assert_eq!(operators.hear(NOW, &config(), &said(3, "/status")), replayed);
        assert_eq!(operators.next_update(), 10);
        let later = NOW + HOUR * 24 * 7;
        let update = ChatUpdate { at: later, ..said(4, "/status") };
        assert!(matches!(operators.hear(later, &config(), &update), Heard::Command { .. }));
        assert_eq!(operators.next_update(), 5);
    }

    #[test]
    fn a_pairing_code_works_once_for_ten_minutes_and_dies_of_five_guesses() {
        let mut operators = paired();
        let again = operators.hear(NOW, &config(), &said(2, "/pair ABCD2345"));
        assert!(matches!(again, Heard::NotPaired { why: PairingFailure::NoCode, .. }));

        operators.issue(NOW, pairing_digest("K"), NOW + HOUR);
        let late = NOW + PAIRING_SPAN_MAX;
        let heard = operators.hear(late, &config(), &ChatUpdate { at: late, ..said(3, "/pair K") });
        assert!(matches!(heard, Heard::NotPaired { why: PairingFailure::NoCode, .. }));

        operators.issue(NOW, pairing_digest("K"), NOW + HOUR);
        let stranger = ChatUpdate { user: Some(7), ..said(4, "/pair WRONG") };
        for id in 4..14 {
            let heard = operators.hear(NOW, &config(), &ChatUpdate { update_id: id, ..stranger.clone() });
            assert!(matches!(heard, Heard::Refused { refusal: Refusal::Stranger, .. }));
        }
        let group = ChatUpdate { chat: ChatId(-5), chat_kind: ChatKind::Group, ..said(14, "/pair K") };
        assert!(matches!(operators.hear(NOW, &config(), &group), Heard::Refused { .. }));
        for (id, left) in [(15, 4), (16, 3), (17, 2), (18, 1)] {
            let heard = operators.hear(NOW, &config(), &said(id, "/start WRONG"));
            assert!(matches!(heard, Heard::NotPaired { why: PairingFailure::Wrong { left: l }, .. } if l == left));
        }
        let heard = operators.hear(NOW, &config(), &said(19, "/pair WRONG"));
        assert!(matches!(heard, Heard::NotPaired { why: PairingFailure::Died, .. }));
        let heard = operators.hear(NOW, &config(), &said(20, "/pair K"));
        assert!(matches!(heard, Heard::NotPaired { why: PairingFailure::NoCode, .. }));
    }

    #[test]
    fn a_subject_is_told_once_an_hour_and_the_many_are_counted() {
        let mut told = ToldThisHour::default();
        assert_eq!(told.tell(NOW, "a"), Some(0));
        assert_eq!(told.tell(NOW + HOUR / 2, "a"), None);
        assert_eq!(told.tell(NOW + HOUR, "a"), Some(0));
        for stranger in 0..1_000 {
            let _ = told.tell(NOW + HOUR, &format!("stranger {stranger}"));
        }
        assert_eq!(told.tell(NOW + HOUR * 2, "b"), Some(951));
    }
}
