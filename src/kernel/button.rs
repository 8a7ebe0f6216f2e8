//! The buttons under a message, as plain values: what each does, and all that its token is bound to. The outlet makes
//! the tokens when the message leaves, the inlet checks them when one comes back; no secret and no token stands here.
//!
//! Invariants: a token counts for one press, of one user, on the message that we know to carry it, until it expires; a
//! keyboard that was replaced counts for a moment longer, as a press may cross an edit, and never again; what was
//! pressed or replaced is remembered as long as its message is, so that a repeat is told apart from a forgery.

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kernel::channel::MessageId;
use crate::kernel::incident::IncidentId;
use crate::kernel::order::Account;
use crate::kernel::pairs;
use crate::kernel::time::Time;

/// Messages whose buttons count. At the limit those that expire soonest no longer do; the typed commands always do.
const MESSAGES_MAX: usize = 64;
/// How long a keyboard counts after another took its place under the same message.
const CROSSING: Duration = Duration::from_secs(10);
/// Bytes of the account's digest that a token has room for.
pub const ACCOUNT_BYTES: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Press {
    /// Asks whether it is meant; only the answer to that question does anything.
    Freeze,
    Kill,
    Acknowledge,
    YesFreeze,
    YesKill,
    No,
    /// The owner did not trade by hand: it only narrows trust, so nobody is asked back.
    NotMe,
}

impl Press {
    /// In the order of their numbers in a token.
    pub const ALL: [Self; 7] =
        [Self::Freeze, Self::Kill, Self::Acknowledge, Self::YesFreeze, Self::YesKill, Self::No, Self::NotMe];
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Button {
    pub label: Box<str>,
    pub press: Press,
}

/// One row of buttons, and what all of them are bound to beside the message and its chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyboard {
    pub user: u64,
    pub account: Account,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    /// Of the incident, as the message shows it.
    pub revision: u64,
    /// In whole seconds, as a token carries it.
    pub expires: Time,
    pub buttons: Vec<Button>,
}

/// What a token says once its seal was found whole. The seal covers the user and the chat as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub press: Press,
    /// Our number of the message: Telegram's is not known before it is sent.
    pub number: u64,
    /// The beginning of the digest of the account's name.
    pub account: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    pub revision: u64,
    pub expires_secs: u64,
}

/// A button that somebody pressed, as the edge found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressed {
    /// Telegram's name for it, for the answer.
    pub query: Box<str>,
    /// The message under which it stood; none if it was not a message of a chat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageId>,
    pub seal: Seal,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "seal", rename_all = "snake_case")]
pub enum Seal {
    /// No data, or none of the length of a token of ours.
    Absent,
    /// Not made by us for this user and chat.
    Forged,
    Whole(Token),
}

/// Why a token that is whole does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Void {
    /// Of a message that no longer has buttons, or never had.
    NoMessage,
    /// Telegram has not said yet which message carries it.
    NotYet,
    OtherMessage,
    OtherKeyboard,
    Expired,
    Used,
}

impl Keyboard {
    #[must_use]
    pub fn token(&self, number: u64, press: Press) -> Token {
        Token {
            press,
            number,
            account: HEXLOWER.encode(&Sha256::digest(self.account.as_str().as_bytes())[..ACCOUNT_BYTES]).into(),
            incident: self.incident,
            revision: self.revision,
            expires_secs: u64::try_from(self.expires.millis() / 1_000).unwrap_or(0),
        }
    }
}

/// `span` from now, in whole seconds.
pub(crate) fn expiry(now: Time, span: Duration) -> Time {
    Time::from_millis((now + span).millis() / 1_000 * 1_000)
}

/// What stands under each of our messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Buttons(#[serde(with = "pairs")] BTreeMap<u64, Under>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Under {
    message: Option<MessageId>,
    /// In a post that has not ended, or of which nobody knows how it did.
    under_way: Option<Standing>,
    shown: Option<Standing>,
    /// What was shown before, and until when that counts.
    before: Option<(Standing, Time)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Standing {
    keyboard: Keyboard,
    used: Vec<Press>,
}

impl Buttons {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A post is made that puts this under a message, or nothing any more.
    pub(crate) fn put(&mut self, number: u64, keyboard: Option<&Keyboard>) {
        let Some(keyboard) = keyboard else {
            self.0.remove(&number);
            return;
        };
        let standing = Standing { keyboard: keyboard.clone(), used: Vec::new() };
        self.0.entry(number).or_default().under_way = Some(standing);
        if self.0.len() > MESSAGES_MAX {
            let others = self.0.iter().filter(|(other, _)| **other != number);
            let soonest = others.min_by_key(|(_, under)| under.expires()).map(|(other, _)| *other);
            soonest.and_then(|soonest| self.0.remove(&soonest));
        }
    }

    /// The post was delivered, as this message if Telegram named it.
    pub(crate) fn delivered(&mut self, now: Time, number: u64, message: Option<MessageId>) {
        let Some(under) = self.0.get_mut(&number) else { return };
        under.message = message.or(under.message);
        if let Some(shown) = under.under_way.take() {
            let before = under.shown.replace(shown);
            under.before = before.map(|before| (before, now + CROSSING));
        }
    }

    /// The keyboard that this token is of, if it counts now. A question that was answered is answered for good.
    pub(crate) fn press(&mut self, now: Time, token: &Token, message: MessageId) -> Result<Keyboard, Void> {
        let under = self.0.get_mut(&token.number).ok_or(Void::NoMessage)?;
        match under.message {
            Some(ours) if ours == message => {}
            Some(_) => return Err(Void::OtherMessage),
            None => return Err(Void::NotYet),
        }
        under.before.take_if(|(_, until)| *until <= now);
        let before = under.before.as_mut().map(|(before, _)| before);
        let standing = [under.shown.as_mut(), under.under_way.as_mut(), before].into_iter().flatten();
        let mut own = standing.filter(|standing| standing.keyboard.has(token));
        let standing = own.next().ok_or(Void::OtherKeyboard)?;
        if now >= standing.keyboard.expires {
            return Err(Void::Expired);
        }
        let is_answer = |press: &Press| matches!(press, Press::YesFreeze | Press::YesKill | Press::No);
        if standing.used.contains(&token.press) || standing.used.iter().any(is_answer) {
            return Err(Void::Used);
        }
        standing.used.push(token.press);
        Ok(standing.keyboard.clone())
    }

    /// The messages are in a chat that is no longer ours.
    pub(crate) fn forget_all(&mut self) {
        self.0.clear();
    }
}

impl Under {
    fn expires(&self) -> Option<Time> {
        let standing = [self.under_way.as_ref(), self.shown.as_ref()].into_iter().flatten();
        standing.map(|standing| standing.keyboard.expires).max()
    }
}

impl Keyboard {
    fn has(&self, token: &Token) -> bool {
        self.buttons.iter().any(|button| button.press == token.press) && self.token(token.number, token.press) == *token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_764_000_000_000);
    const MESSAGE: MessageId = MessageId(9);

    fn keyboard(revision: u64, presses: &[Press]) -> Keyboard {
        let button = |press: &Press| Button { label: "label".into(), press: *press };
        Keyboard {
            user: 42,
            account: Account::new("main"),
            incident: Some(IncidentId(7)),
            revision,
            expires: expiry(NOW, Duration::from_secs(60)),
            buttons: presses.iter().map(button).collect(),
        }
    }

    fn shown(keyboard: &Keyboard) -> Buttons {
        let mut buttons = Buttons::default();
        buttons.put(1, Some(keyboard));
        buttons.delivered(NOW, 1, Some(MESSAGE));
        buttons
    }

    #[test]
    fn a_token_counts_once_on_its_message_until_it_expires() {
        let card = keyboard(3, &[Press::Freeze, Press::Kill]);
        let kill = card.token(1, Press::Kill);
        let mut buttons = Buttons::default();
        buttons.put(1, Some(&card));
        assert_eq!(buttons.press(NOW, &kill, MESSAGE), Err(Void::NotYet));
        let mut buttons = shown(&card);
        assert_eq!(buttons.press(NOW, &kill, MessageId(8)), Err(Void::OtherMessage));
        assert_eq!(buttons.press(NOW + Duration::from_secs(60), &kill, MESSAGE), Err(Void::Expired));
        assert_eq!(buttons.press(NOW, &kill, MESSAGE), Ok(card.clone()));
        assert_eq!(buttons.press(NOW, &kill, MESSAGE), Err(Void::Used));
        assert_eq!(buttons.press(NOW, &card.token(1, Press::Freeze), MESSAGE), Ok(card.clone()));
        assert_eq!(buttons.press(NOW, &Token { number: 2, ..kill }, MESSAGE), Err(Void::NoMessage));
    }

    #[test]
    fn a_token_of_anything_else_does_not_count() {
        type Change = fn(&mut Token);
        let changes: [(&str, Change); 5] = [
            ("press", |token| token.press = Press::YesKill),
            ("account", |token| token.account = keyboard(1, &[]).token(1, Press::No).account[1..].into()),
            ("incident", |token| token.incident = None),
            ("revision", |token| token.revision = 2),
            ("expiry", |token| token.expires_secs += 1),
        ];
        let card = keyboard(3, &[Press::Freeze, Press::Kill]);
        for (name, change) in changes {
            let mut token = card.token(1, Press::Kill);
            change(&mut token);
            assert_eq!(shown(&card).press(NOW, &token, MESSAGE), Err(Void::OtherKeyboard), "{name}");
        }
    }

    #[test]
    fn a_question_is_answered_once_either_way() {
        let question = keyboard(3, &[Press::YesKill, Press::No]);
        for (first, second) in [(Press::No, Press::YesKill), (Press::YesKill, Press::No)] {
            let mut buttons = shown(&question);
            assert!(buttons.press(NOW, &question.token(1, first), MESSAGE).is_ok());
            assert_eq!(buttons.press(NOW, &question.token(1, second), MESSAGE), Err(Void::Used));
        }
    }

    #[test]
    fn a_press_may_cross_an_edit_and_not_more() {
        let (old, new) = (keyboard(3, &[Press::Kill]), keyboard(4, &[Press::Kill]));
        let mut buttons = shown(&old);
        buttons.put(1, Some(&new));
        assert!(buttons.press(NOW + CROSSING * 5, &old.token(1, Press::Kill), MESSAGE).is_ok(), "not replaced yet");
        buttons.delivered(NOW, 1, Some(MESSAGE));
        assert_eq!(buttons.press(NOW, &old.token(1, Press::Kill), MESSAGE), Err(Void::Used));
        assert!(buttons.press(NOW, &new.token(1, Press::Kill), MESSAGE).is_ok());
        let mut buttons = shown(&old);
        buttons.put(1, Some(&new));
        buttons.delivered(NOW, 1, None);
        assert!(buttons.clone().press(NOW, &old.token(1, Press::Kill), MESSAGE).is_ok());
        assert_eq!(buttons.press(NOW + CROSSING, &old.token(1, Press::Kill), MESSAGE), Err(Void::OtherKeyboard));
    }

    #[test]
    fn only_so_many_messages_have_buttons() {
        let mut buttons = Buttons::default();
        for number in 0..1_000 {
            let mut card = keyboard(1, &[Press::Kill]);
            card.expires = card.expires + Duration::from_secs(number);
            buttons.put(number, Some(&card));
        }
        assert_eq!(buttons.0.len(), MESSAGES_MAX);
        assert!(buttons.0.contains_key(&999));
    }
}
