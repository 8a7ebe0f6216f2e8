//! Commands over accounts as the chat gives them: which buttons a card carries, the question before anything is done,
//! and who is told of what was.
//!
//! Invariants: freeze and kill take two presses, or a command and a press, by the same person; what widens trust takes a
//! one-time password and is told on every channel; whatever is refused changes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::button::{Button, Keyboard, Press, Seal, Token, Void, expiry};
use crate::kernel::card::quoted;
use crate::kernel::channel::{Channel, ChatId, MessageId, Post, PressAnswer, Urgency};
use crate::kernel::chat::{ChatUpdate, Refusal};
use crate::kernel::command::{Command, Totp};
use crate::kernel::incident::{IncidentId, IncidentState, Notice, Priority};
use crate::kernel::order::Account;
use crate::kernel::pairs;
use crate::kernel::people::Way;
use crate::kernel::shared::hearing::acknowledge;
use crate::kernel::shared::{Said, Shared, SharedConfig, SharedEffect, Show, Text};
use crate::kernel::telling::{Acknowledging, IncidentKey};
use crate::kernel::time::Time;
use crate::kernel::typed::{Order, usage};

/// A card's buttons count for this long; an expired one that is pressed brings fresh ones.
const CARD_COUNTS: Duration = Duration::from_secs(24 * 3600);
/// The answer to a question: what was asked for longer ago is no longer meant.
const QUESTION_COUNTS: Duration = Duration::from_secs(60);
/// Waiting for the channel at once; at the limit the oldest is not asked any more.
const QUESTIONS_MAX: usize = 4;
/// Refused presses that are answered are this far apart, so that answers cannot crowd out posts; the others are refused
/// without a word.
const ANSWER_GAP: Duration = Duration::from_secs(2);
/// Wrong one-time passwords of one user within an hour, after which none of his counts in the chat; the host's command
/// line still takes them, and nobody else is locked out.
const WRONG_CODES_MAX: usize = 5;
/// Users whose wrong ones are remembered; at the limit a new one's counts as if it were one too many.
const WRONG_USERS_MAX: usize = 64;
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Authority {
    answered_at: Option<Time>,
    /// By user, within the hour, at most `WRONG_CODES_MAX` each.
    #[serde(default, with = "pairs", skip_serializing_if = "BTreeMap::is_empty")]
    wrong_by_user: BTreeMap<u64, VecDeque<Time>>,
}

impl Authority {
    pub(super) fn is_unused(&self) -> bool {
        self.answered_at.is_none() && self.wrong_by_user.is_empty()
    }

    fn may_answer(&mut self, now: Time) -> bool {
        let may = self.answered_at.is_none_or(|at| now.since(at) >= ANSWER_GAP);
        if may {
            self.answered_at = Some(now);
        }
        may
    }

    fn is_locked(&mut self, now: Time, user: u64) -> bool {
        self.wrong_by_user.retain(|_, wrong| {
            wrong.retain(|at| now.since(*at) < HOUR);
            !wrong.is_empty()
        });
        match self.wrong_by_user.get(&user) {
            Some(wrong) => wrong.len() >= WRONG_CODES_MAX,
            None => self.wrong_by_user.len() >= WRONG_USERS_MAX,
        }
    }
}

/// Whether somebody means what he asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Question {
    user: u64,
    account: Account,
    incident: Option<IncidentId>,
    revision: u64,
    kill: bool,
    /// The card on which it was asked for.
    pub(super) card: Option<MessageId>,
}

impl Question {
    pub(super) fn keyboard(&self, now: Time) -> Keyboard {
        let (word, yes) = if self.kill { ("kill", Press::YesKill) } else { ("freeze", Press::YesFreeze) };
        let label = format!("Yes, {word} {}", quoted(self.account.as_str()));
        let buttons = vec![button(&label, yes), button("No", Press::No)];
        let Self { user, account, incident, revision, .. } = self.clone();
        Keyboard { user, account, incident, revision, expires: expiry(now, QUESTION_COUNTS), buttons }
    }

    fn words(&self) -> String {
        let account = quoted(self.account.as_str());
        let what = if self.kill {
            format!(
                "Kill {account}? The bot's keys are deleted for good, strangers' orders cancelled, the bot stopped. \
                 /plan shows the steps."
            )
        } else {
            format!("Freeze {account}? Its keys lose every right; /resume gives them back.")
        };
        format!("{what} The buttons are for user {}, once, for {} s.", self.user, QUESTION_COUNTS.as_secs())
    }
}

impl Text {
    pub(super) const fn urgency(&self) -> Urgency {
        if self.question.is_some() { Urgency::Question } else { Urgency::Text }
    }
}

/// The buttons of a card: only where there is something to stop or to disown, and only for the person who paired the chat.
pub(super) fn card_keyboard(now: Time, config: &SharedConfig, user: u64, notice: &Notice) -> Option<Keyboard> {
    let keyboard = |buttons| Keyboard {
        user,
        account: notice.account.clone(),
        incident: Some(notice.incident),
        revision: notice.revision,
        expires: expiry(now, CARD_COUNTS),
        buttons,
    };
    if notice.is_claim() {
        // After its end as well: somebody may see only then what was done in his name.
        return Some(keyboard(vec![button("Not me", Press::NotMe)]));
    }
    let grave = notice.priority == Priority::Critical && notice.state != IncidentState::Ended;
    if !grave || !config.stoppable.contains(&notice.account) {
        return None;
    }
    let mut buttons = vec![button("Freeze", Press::Freeze), button("Kill", Press::Kill)];
    if notice.state == IncidentState::Open {
        buttons.push(button("Acknowledge", Press::Acknowledge));
    }
    Some(keyboard(buttons))
}

fn button(label: &str, press: Press) -> Button {
    Button { label: label.into(), press }
}

/// A button that counts, with the message under which it was pressed.
struct Counted {
    token: Token,
    keyboard: Keyboard,
    message: MessageId,
}

impl Shared {
    pub(super) fn press(
        &mut self,
        now: Time,
        user: u64,
        chat: ChatId,
        update: &ChatUpdate,
        effects: &mut Vec<SharedEffect>,
    ) {
        match self.count(now, user, update) {
            Ok(counted) => {
                let query = update.pressed.as_ref().map(|pressed| pressed.query.clone()).unwrap_or_default();
                let (text, answered) = self.carry_out(now, chat, counted, effects);
                // What was carried out is always answered: each token can be so once.
                self.authority.answered_at = Some(now);
                effects.push(SharedEffect::Post(Post::Pressed(PressAnswer { query, text: text.into(), answered })));
            }
            Err(refusal) => self.refuse(now, update, refusal, false, effects),
        }
    }

    fn count(&mut self, now: Time, user: u64, update: &ChatUpdate) -> Result<Counted, Refusal> {
        let pressed = update.pressed.as_ref().ok_or(Refusal::NoToken)?;
        let message = pressed.message.ok_or(Refusal::NoMessage)?;
        let token = match &pressed.seal {
            Seal::Absent => return Err(Refusal::NoToken),
            Seal::Forged => return Err(Refusal::Forged),
            Seal::Whole(token) => token.clone(),
        };
        match self.buttons.press(now, &token, message) {
            Ok(keyboard) if keyboard.user == user => {
                self.renew_buttons(&token);
                Ok(Counted { token, keyboard, message })
            }
            // The seal covers the user, so this is never so unless a key is shared.
            Ok(_) => Err(Refusal::Forged),
            Err(void) => {
                if void == Void::Expired {
                    self.renew_buttons(&token);
                }
                Err(Refusal::Void(void))
            }
        }
    }

    /// Somebody else paired the same chat: the buttons are for him from now on.
    pub(super) fn renew_all_buttons(&mut self, now: Time, user: u64) {
        let config = &self.config;
        let carry = self.cards.values_mut().filter(|card| card_keyboard(now, config, user, &card.notice).is_some());
        for telling in carry.filter_map(|card| card.tellings.get_mut(&Channel::Telegram)) {
            telling.pressed = true;
        }
    }

    /// The card, if the message is one, is owed buttons that can be pressed.
    fn renew_buttons(&mut self, token: &Token) {
        let tellings = self.cards.values_mut().filter_map(|card| card.tellings.get_mut(&Channel::Telegram));
        for telling in tellings.filter(|telling| telling.number == Some(token.number)) {
            telling.pressed = true;
        }
    }

    /// What the person sees of it at once, and the question that is answered by it.
    fn carry_out(
        &mut self,
        now: Time,
        chat: ChatId,
        counted: Counted,
        effects: &mut Vec<SharedEffect>,
    ) -> (String, Option<(ChatId, MessageId)>) {
        let Counted { token, keyboard, message } = counted;
        let Keyboard { user, account, incident, revision, .. } = keyboard;
        let kill = matches!(token.press, Press::Kill | Press::YesKill);
        match token.press {
            Press::Freeze | Press::Kill if self.is_drill(&account, incident) => {
                let word = if kill { "kill" } else { "freeze" };
                let account = quoted(account.as_str());
                let text = format!("This card is a DRILL's: nothing is done from it. A real theft: /{word} {account}");
                (text, None)
            }
            Press::Freeze | Press::Kill => {
                let question = Question { user, account, incident, revision, kill, card: Some(message) };
                self.ask(now, chat, question);
                ("Is it meant? The question comes below.".to_owned(), None)
            }
            Press::Acknowledge => (self.acknowledge_shown(account, incident, revision, user, chat, effects), None),
            Press::YesFreeze | Press::YesKill => {
                let command = if kill { Command::Kill } else { Command::Freeze };
                let text = match self.config.people.two_people && command.needs_two() {
                    true => {
                        format!("Asking for it: another person must approve the kill of {}.", quoted(account.as_str()))
                    }
                    false => format!("{} {}.", if kill { "Killing" } else { "Freezing" }, quoted(account.as_str())),
                };
                let said = self.said(account, command, user, None, chat);
                effects.push(SharedEffect::Command { incident, totp: Totp::Absent, said });
                (text, Some((chat, message)))
            }
            Press::No => ("Nothing was done.".to_owned(), Some((chat, message))),
            Press::NotMe => {
                let command = Command::NotMe { window: incident };
                let said = self.said(account, command, user, None, chat);
                effects.push(SharedEffect::Command { incident: None, totp: Totp::Absent, said });
                ("Not you: that was taken. What became of it comes below.".to_owned(), None)
            }
        }
    }

    fn is_drill(&self, account: &Account, incident: Option<IncidentId>) -> bool {
        let key = incident.map(|incident| IncidentKey { account: account.clone(), incident });
        key.and_then(|key| self.cards.get(&key)).is_some_and(|card| card.notice.is_drill())
    }

    /// Exactly the revision that stood above the button; if the account knows of more, it says so.
    fn acknowledge_shown(
        &mut self,
        account: Account,
        incident: Option<IncidentId>,
        shown: u64,
        user: u64,
        chat: ChatId,
        effects: &mut Vec<SharedEffect>,
    ) -> String {
        let key = incident.map(|incident| IncidentKey { account, incident });
        let known = key.and_then(|key| self.cards.get_mut(&key).map(|card| (key, card)));
        match known {
            Some((key, card)) if card.notice.state == IncidentState::Open => {
                let pending = Acknowledging { shown, user, chat };
                effects.push(acknowledge(&self.config.people, &key, &pending));
                card.acknowledging = Some(pending);
                format!("Acknowledging it as the card showed it (revision {shown}).")
            }
            Some(_) | None => "That incident is not open any more.".to_owned(),
        }
    }

    /// `/freeze` and `/kill`: asked back, so that a slip of the thumb stops nothing.
    pub(super) fn ask_typed(
        &mut self,
        now: Time,
        user: u64,
        chat: ChatId,
        account: Option<&Account>,
        kill: bool,
        effects: &mut Vec<SharedEffect>,
    ) {
        if let Some(account) = self.meant(now, chat, account, effects) {
            self.ask(now, chat, Question { user, account, incident: None, revision: 0, kill, card: None });
        }
    }

    /// The account that can be stopped, or an answer about those that can.
    fn meant(
        &mut self,
        now: Time,
        chat: ChatId,
        account: Option<&Account>,
        effects: &mut Vec<SharedEffect>,
    ) -> Option<Account> {
        let stoppable = &self.config.stoppable;
        match (account, stoppable.as_slice()) {
            (_, []) => {
                effects.push(SharedEffect::Show { chat, what: Show::Plan });
                None
            }
            (None, [only]) => Some(only.clone()),
            (Some(account), _) if stoppable.contains(account) => Some(account.clone()),
            (Some(_) | None, _) => {
                let names: Vec<String> = stoppable.iter().map(|account| quoted(account.as_str())).collect();
                self.answer(now, chat, &format!("Which account? These can be stopped: {}", names.join(", ")));
                None
            }
        }
    }

    fn ask(&mut self, now: Time, chat: ChatId, question: Question) {
        self.numbers += 1;
        let number = self.numbers;
        let Some(lane) = self.lanes.get_mut(&Channel::Telegram) else { return };
        let under_way = lane.attempt.as_ref().map(|attempt| attempt.paying.clone());
        let waits = |text: &Text| text.question.is_some() && under_way != Some(super::Paying::Text(text.number));
        // Asked again before it could be asked once.
        let same = |text: &Text| {
            text.question.as_ref().is_some_and(|other| (other.user, other.kill) == (question.user, question.kill))
                && text.question.as_ref().is_some_and(|other| other.account == question.account)
        };
        lane.texts.retain(|text| !(waits(text) && same(text)));
        if lane.texts.iter().filter(|text| waits(text)).count() >= QUESTIONS_MAX
            && let Some(oldest) = lane.texts.iter().position(waits)
        {
            lane.texts.remove(oldest);
        }
        let text = question.words().into();
        lane.texts.push_back(Text {
            number,
            chat: Some(chat),
            text,
            uncertain: false,
            at: now,
            question: Some(question),
        });
    }

    /// What takes a one-time password, or the word of another person. Whether an approval needs a password, the account
    /// knows; a wrong one is never passed on.
    pub(super) fn order(
        &mut self,
        now: Time,
        update: &ChatUpdate,
        user: u64,
        order: Order,
        effects: &mut Vec<SharedEffect>,
    ) {
        let chat = update.chat;
        let Order { account, command, why } = order;
        let account = match account {
            // Trading by hand needs nothing that could be stopped.
            Some(account) if command.is_of_a_claim() => account,
            account => match self.meant(now, chat, account.as_ref(), effects) {
                Some(account) => account,
                None => return,
            },
        };
        let totp = update.totp.unwrap_or(Totp::Absent);
        if (command.needs_totp() || totp != Totp::Absent) && self.authority.is_locked(now, user) {
            let text = format!(
                "Too many wrong one-time passwords of yours: none counts here for an hour. On the host: countersign {}",
                kind(&command)
            );
            return self.answer(now, chat, &text);
        }
        match totp {
            Totp::Absent if command.needs_totp() => {
                let word = update.text.split_whitespace().next().unwrap_or_default();
                let word = word.split_once('@').map_or(word, |(command, _bot)| command);
                self.answer(now, chat, &format!("This needs a one-time password: {}", usage(word)));
            }
            Totp::Wrong => {
                self.authority.wrong_by_user.entry(user).or_default().push_back(now);
                self.answer(now, chat, "The one-time password is wrong. Nothing was done.");
                let by = self.config.people.by(Way::Telegram { user });
                self.report_refused(now, &account, &command, &by, "the one-time password is wrong");
            }
            Totp::Absent | Totp::Right { .. } | Totp::NotSetUp => {
                let said = self.said(account, command, user, why, chat);
                effects.push(SharedEffect::Command { incident: None, totp, said });
            }
        }
    }

    fn said(&self, account: Account, command: Command, user: u64, why: Option<Box<str>>, chat: ChatId) -> Said {
        let way = Way::Telegram { user };
        Said { account, command, by: self.config.people.by(way), way: Some(way), why, chat: Some(chat) }
    }

    /// What widens trust is told everywhere, here or by the account itself; what narrows it shows on its card, and is
    /// answered where it was said.
    pub(super) fn commanded(&mut self, now: Time, said: &Said, refused: Option<&str>) {
        let Said { account, command, by, way: _, why, chat: _ } = said;
        let account_name = quoted(account.as_str());
        let begun = match (refused, command) {
            (Some(reason), _) => {
                self.answer_said(now, said, &format!("Not carried out: {reason}"));
                if command.needs_totp() || matches!(command, Command::Approve { .. } | Command::Decline { .. }) {
                    self.report_refused(now, account, command, by, reason);
                }
                return;
            }
            (None, Command::Resume) => {
                let why = why.as_deref().map_or_else(|| "no reason was given".to_owned(), quoted);
                let text = format!(
                    "{account_name} is being resumed: its keys get back what a freeze took. Ordered by {}, with a \
                     one-time password. Why: {why}. If that was not you, freeze it: /freeze {account_name}",
                    quoted(by)
                );
                return self.report(now, &text);
            }
            // It trades: its own incident goes to every channel.
            (None, Command::PlanFlatten { .. } | Command::Flatten { .. }) => return,
            // A claim window's own card tells of it on every channel.
            (None, Command::Manual { .. }) => return self.answer_said(now, said, "The claim window is open."),
            (None, Command::EndManual) => return self.answer_said(now, said, "The claim window is over."),
            (None, Command::NotMe { .. }) => {
                return self.answer_said(now, said, "The window is over, and its orders are a stranger's.");
            }
            // The account itself has told it on every channel.
            (
                None,
                Command::Disarm { .. }
                | Command::Arm
                | Command::Allow { .. }
                | Command::EndAllowance { .. }
                | Command::Pair
                | Command::Approve { .. }
                | Command::Decline { .. },
            ) => return,
            (None, Command::Freeze) => "The freeze",
            (None, Command::Kill) => "The kill",
            (None, Command::DeleteKey { .. }) => "The deletion of a key",
        };
        let text = format!("{begun} of {account_name} has begun; the card of its incident shows how far it is.");
        self.answer_said(now, said, &text);
    }

    /// Where it was said, if that was a chat.
    fn answer_said(&mut self, now: Time, said: &Said, text: &str) {
        if let Some(chat) = said.chat {
            self.answer(now, chat, text);
        }
    }

    fn report_refused(&mut self, now: Time, account: &Account, command: &Command, by: &str, reason: &str) {
        let words = command.words(&quoted(account.as_str()));
        if self.told.tell(now, &format!("{} {account} {by}", kind(command))).is_some() {
            let text = format!("{} tried to {words}, and was refused: {}.", quoted(by), quoted(reason));
            self.report_on(now, Channel::Webhook, &text);
        }
    }

    pub(super) fn answer_refused(&mut self, now: Time, answer: PressAnswer, effects: &mut Vec<SharedEffect>) {
        if self.authority.may_answer(now) {
            effects.push(SharedEffect::Post(Post::Pressed(answer)));
        }
    }
}

/// What somebody can vary as he likes is one subject, not many.
const fn kind(command: &Command) -> &'static str {
    match command {
        Command::Freeze => "freeze",
        Command::Kill => "kill",
        Command::DeleteKey { .. } => "delete",
        Command::Resume => "resume",
        Command::Disarm { .. } => "disarm",
        Command::Arm => "arm",
        Command::Allow { .. } | Command::EndAllowance { .. } => "allow",
        Command::PlanFlatten { .. } | Command::Flatten { .. } => "flatten",
        Command::Manual { .. } | Command::EndManual => "manual",
        Command::NotMe { .. } => "not-me",
        Command::Pair => "pair",
        Command::Approve { .. } => "approve",
        Command::Decline { .. } => "decline",
    }
}
