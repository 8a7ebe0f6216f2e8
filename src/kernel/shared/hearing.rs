//! What is said to the daemon in Telegram and what becomes of it, and what is wrong with a channel beside its posts:
//! the half of the shared kernel that listens.

use crate::kernel::card::quoted;
use crate::kernel::channel::{Channel, ChatId, PressAnswer};
use crate::kernel::chat::{ChatUpdate, Command, Heard, PairingFailure, Refusal, TelegramConfig};
use crate::kernel::incident::{IncidentId, IncidentState};
use crate::kernel::order::Account;
use crate::kernel::people::{People, Way};
use crate::kernel::shared::{ChannelFault, Shared, SharedEffect, Show};
use crate::kernel::telling::{Acknowledging, IncidentKey};
use crate::kernel::time::Time;

const HELP: &str = "/status: what countersign sees now\n/incidents: what is open\n\
                    /ack ACCOUNT INCIDENT: you know of this incident, as far as its card here shows it\n\
                    /plan: what a kill would do\n/freeze ACCOUNT, /kill ACCOUNT: asked back before it is done\n\
                    /resume ACCOUNT CODE WHY: gives back what a freeze took, with a one-time password\n\
                    /disarm ACCOUNT CODE [2h] WHY, /arm ACCOUNT CODE WHY: whether anything is done by itself\n\
                    /allow ACCOUNT CODE ADDRESS_OR_KEY [30d] WHY\n\
                    /manual ACCOUNT CODE BTCUSDT BUY 2000USDT 3 30m WHY: orders by hand that are yours\n\
                    /manual ACCOUNT end: they no longer are\n\
                    /notme ACCOUNT: somebody else traded in your window\n\
                    /requests, /approve NUMBER [CODE], /decline NUMBER: what waits for another person\n/help: this";

impl Shared {
    pub(super) fn update(&mut self, now: Time, update: &ChatUpdate, effects: &mut Vec<SharedEffect>) {
        let Some(config) = &self.config.telegram else { return };
        match self.operators.hear(now, config, update) {
            Heard::Nothing => {}
            Heard::Command { user, chat, command } => self.command(now, update, user, chat, command, effects),
            Heard::Pressed { user, chat } => self.press(now, user, chat, update, effects),
            Heard::Refused { refusal, answer } => self.refuse(now, update, refusal, answer, effects),
            Heard::Paired { before, now: paired } => {
                self.answer(now, paired.chat, "This chat is paired: alerts come here. /help says what you can ask.");
                let left = before.filter(|before| before.chat != paired.chat);
                let moved = if left.is_some() { ", and no longer the chat it was before" } else { "" };
                let text = format!("Telegram was paired: chat {}, user {}{moved}.", paired.chat, paired.user);
                self.report_on(now, Channel::Webhook, &text);
                if let Some(left) = left {
                    self.answer(now, left.chat, "This chat is no longer paired: another one was, with a new code.");
                }
                if before.is_none_or(|before| before.chat != paired.chat) {
                    self.tell_telegram_anew();
                } else if before.is_none_or(|before| before.user != paired.user) {
                    self.renew_all_buttons(now, paired.user);
                }
            }
            Heard::NotPaired { user, chat, why } => {
                let text = match why {
                    PairingFailure::NoCode => "There is no valid code now. Make one with: countersign pair".into(),
                    PairingFailure::Wrong { left: 1 } => "That is not the code. One try is left.".into(),
                    PairingFailure::Wrong { left } => format!("That is not the code. {left} tries are left."),
                    PairingFailure::Died => "That is not the code, and now it is void: countersign pair".into(),
                };
                self.answer(now, chat, &text);
                if self.told.tell(now, &format!("pairing {user}")).is_some() {
                    self.report(now, &format!("User {user} failed to pair chat {chat} with countersign."));
                }
            }
        }
    }

    /// Another chat has seen nothing yet.
    fn tell_telegram_anew(&mut self) {
        self.buttons.forget_all();
        for card in self.cards.values_mut() {
            card.tellings.remove(&Channel::Telegram);
        }
    }

    fn command(
        &mut self,
        now: Time,
        update: &ChatUpdate,
        user: u64,
        chat: ChatId,
        command: Command,
        effects: &mut Vec<SharedEffect>,
    ) {
        match command {
            Command::Status => effects.push(SharedEffect::Show { chat, what: Show::Status }),
            Command::Incidents => effects.push(SharedEffect::Show { chat, what: Show::Incidents }),
            Command::Help => self.answer(now, chat, HELP),
            Command::Unknown => self.answer(now, chat, &format!("There is no such command.\n{HELP}")),
            Command::Plan => effects.push(SharedEffect::Show { chat, what: Show::Plan }),
            Command::Freeze { account } => self.ask_typed(now, user, chat, account.as_ref(), false, effects),
            Command::Kill { account } => self.ask_typed(now, user, chat, account.as_ref(), true, effects),
            Command::Order(order) => self.order(now, update, user, order, effects),
            Command::OrderLike(like) => self.answer(now, chat, &like),
            Command::Requests => effects.push(SharedEffect::Show { chat, what: Show::Requests }),
            Command::AcknowledgeWhat => self.answer(now, chat, "Which one? Like this: /ack ACCOUNT INCIDENT"),
            Command::Acknowledge { account, incident } => {
                match self.acknowledging(account.as_ref(), incident, user, chat) {
                    Ok((key, pending)) => {
                        let text = format!(
                            "Acknowledging incident {incident} of {} as its card shows it (revision {}).",
                            key.account, pending.shown
                        );
                        self.answer(now, chat, &text);
                        effects.push(acknowledge(&self.config.people, &key, &pending));
                    }
                    Err(refusal) => self.answer(now, chat, refusal),
                }
            }
        }
    }

    /// An acknowledgement covers what this chat has shown, and nothing that came since.
    fn acknowledging(
        &mut self,
        account: Option<&Account>,
        incident: IncidentId,
        user: u64,
        chat: ChatId,
    ) -> Result<(IncidentKey, Acknowledging), &'static str> {
        let is_meant = |key: &IncidentKey| key.incident == incident && account.is_none_or(|name| key.account == *name);
        let mut meant = self.cards.iter_mut().filter(|(key, _)| is_meant(key));
        let (key, card) = meant.next().ok_or("No such incident is followed here. What is open: /incidents")?;
        if meant.next().is_some() {
            return Err("Several accounts have an incident of that number: /ack ACCOUNT INCIDENT");
        }
        if card.notice.state != IncidentState::Open {
            return Err("That incident is not open any more.");
        }
        let shown = card.tellings.get(&Channel::Telegram).and_then(|telling| telling.shown.as_ref());
        let shown = shown.filter(|shown| shown.named).ok_or("That incident has not been shown here yet.")?;
        let pending = Acknowledging { shown: shown.revision, user, chat };
        card.acknowledging = Some(pending.clone());
        Ok((key.clone(), pending))
    }

    pub(super) fn refuse(
        &mut self,
        now: Time,
        update: &ChatUpdate,
        refusal: Refusal,
        answer: bool,
        effects: &mut Vec<SharedEffect>,
    ) {
        let allowed = self.config.telegram.as_ref().map_or(&[][..], |telegram| &telegram.allowed_users);
        let ours = update.user.is_some_and(|user| allowed.contains(&user));
        if let Some(pressed) = update.pressed.as_ref().filter(|_| ours) {
            let text = format!("Not carried out: {}. Typed commands: /help", refusal.reason()).into();
            self.answer_refused(now, PressAnswer { query: pressed.query.clone(), text, answered: None }, effects);
        }
        let who = update.user.map_or_else(|| "nobody in particular".into(), |user| format!("user {user}"));
        let whose = update.user.map_or_else(|| format!("chat {}", update.chat), |_| who.clone());
        // Each thing that is wrong with somebody on the list is news; of all others one is enough.
        let subject = if answer || ours { format!("{whose}: {}", refusal.reason()) } else { whose };
        let Some(untold) = self.told.tell(now, &subject) else { return };
        if answer {
            let advice = if refusal == Refusal::Stale { "Send it again." } else { "To pair it: countersign pair" };
            self.answer(now, update.chat, &format!("Not carried out: {}. {advice}", refusal.reason()));
        }
        let more = if untold > 0 { format!(" And {untold} other refusals.") } else { String::new() };
        let (what, began) = match &update.pressed {
            Some(_) => ("press of a button", String::new()),
            None => ("message", format!(" It began: \"{}\".", quoted(&update.text))),
        };
        let text = format!(
            "Refused a Telegram {what} from {who} in chat {}: {}.{began}{more}",
            update.chat,
            refusal.reason(),
        );
        self.report(now, &text);
    }

    /// Who may speak here is not who could at the last start: told with old and new.
    pub(super) fn tell_changed_users(&mut self, now: Time, before: Option<&TelegramConfig>) {
        let told = |telegram: Option<&TelegramConfig>| match telegram {
            None => "no Telegram".to_owned(),
            Some(TelegramConfig { allowed_users, group_chat }) => {
                let users: Vec<String> = allowed_users.iter().map(ToString::to_string).collect();
                let chats = if *group_chat { ", in a group too" } else { "" };
                format!("users {}{chats}", if users.is_empty() { "none".to_owned() } else { users.join(", ") })
            }
        };
        let (old, new) = (told(before), told(self.config.telegram.as_ref()));
        if old != new {
            let text = format!(
                "The configuration has changed: who may speak to countersign in Telegram was: {old}; and is: {new}. If \
                 that was not you, find out who can write countersign.toml."
            );
            self.report(now, &text);
        }
    }

    pub(super) fn fault(&mut self, now: Time, channel: Channel, fault: ChannelFault) {
        let (subject, text) = match &fault {
            ChannelFault::Conflict => (
                "conflict",
                "Somebody else reads the updates of our Telegram bot: your commands may be read and swallowed. If that \
                 is not a second countersign of yours, the bot's token is stolen: revoke it with @BotFather."
                    .to_owned(),
            ),
            ChannelFault::WebhookSet { host } => (
                "webhook set",
                format!(
                    "Somebody set a webhook for our Telegram bot, to {}: commands no longer reach us. If that was not \
                     you, the bot's token is stolen: revoke it with @BotFather.",
                    quoted(host)
                ),
            ),
            ChannelFault::TokenRefused => {
                ("token", "Telegram refuses our bot's token: it was revoked, or is mistyped.".to_owned())
            }
            ChannelFault::Unreachable { reason } => {
                ("unreachable", format!("Commands cannot be read from {channel}: {}.", quoted(reason)))
            }
        };
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        lane.fault = Some(fault);
        if self.told.tell(now, &format!("{channel} {subject}")).is_some() {
            let beside = if self.reaches(channel.other()) { channel.other() } else { channel };
            self.report_on(now, beside, &text);
        }
    }
}

pub(super) fn acknowledge(people: &People, key: &IncidentKey, pending: &Acknowledging) -> SharedEffect {
    SharedEffect::Acknowledge {
        account: key.account.clone(),
        incident: key.incident,
        shown: pending.shown,
        by: people.by(Way::Telegram { user: pending.user }),
        chat: pending.chat,
    }
}
