//! What each channel says next, and what an ended post means: the half of the shared kernel that posts.

use crate::kernel::button::Keyboard;
use crate::kernel::card::{self, Words};
use crate::kernel::channel::{
    Channel, ChatAction, ChatId, ChatPost, ChatText, HookPost, MessageId, Post, PostOutcome, Urgency,
};
use crate::kernel::event::EffectId;
use crate::kernel::hook::{self, HookKind};
use crate::kernel::incident::{Notice, Priority};
use crate::kernel::shared::{Attempt, Paying, Shared, Text, authority};
use crate::kernel::telling::{Debt, IncidentKey, Showing, Uncertain};
use crate::kernel::time::Time;

/// More new cards, or reminders, than this at once become one message.
const SINGLY_MAX: usize = 3;

/// Something to post, and the earliest time the channel lets it.
pub(super) struct Want<'a> {
    what: Wanted<'a>,
    urgency: Urgency,
    ready_at: Time,
    pub(super) opens_at: Time,
}

#[derive(Clone, Copy)]
enum Wanted<'a> {
    Card(&'a IncidentKey, Debt),
    Text(u64),
}

impl Shared {
    pub(super) fn wants(&self, channel: Channel) -> Vec<Want<'_>> {
        let Some(lane) = self.lanes.get(&channel) else { return Vec::new() };
        let want = |what, urgency, ready_at: Time| Want {
            what,
            urgency,
            ready_at,
            opens_at: ready_at.max(lane.pace.opens_at(urgency)),
        };
        let reaches = self.reaches(channel);
        let texts = lane.texts.iter().filter(|text| reaches || text.chat.is_some());
        let mut wants: Vec<Want<'_>> =
            texts.map(|text| want(Wanted::Text(text.number), text.urgency(), text.at)).collect();
        if reaches {
            for (key, card) in &self.cards {
                let debts = card.debts(channel).into_iter();
                wants.extend(debts.map(|(debt, urgency, ready_at)| want(Wanted::Card(key, debt), urgency, ready_at)));
            }
        }
        wants
    }

    /// A claim window's card is always a message of its own: a digest has no button *Not me*.
    fn is_claim(&self, key: &IncidentKey) -> bool {
        self.cards.get(key).is_some_and(|card| card.notice.is_claim())
    }

    pub(super) fn post_next(&mut self, now: Time, channel: Channel, effect: EffectId) -> Option<Post> {
        if self.lanes.get(&channel)?.attempt.is_some() {
            return None;
        }
        let wants = self.wants(channel);
        let next = wants.iter().filter(|want| want.opens_at <= now).min_by_key(|want| (want.urgency, want.ready_at))?;
        let (paying, post) = match next.what {
            Wanted::Text(number) => self.post_text(now, channel, number)?,
            Wanted::Card(key, debt) => {
                let ready = |want: &&Want<'_>| want.ready_at <= now;
                let same: Vec<IncidentKey> = wants
                    .iter()
                    .filter(ready)
                    .filter_map(|want| match want.what {
                        Wanted::Card(key, other) if other == debt && !self.is_claim(key) => Some(key.clone()),
                        Wanted::Card(..) | Wanted::Text(_) => None,
                    })
                    .collect();
                let folds = matches!(debt, Debt::New | Debt::Reminder) && same.len() > SINGLY_MAX && same.contains(key);
                let key = key.clone();
                if folds { self.post_many(channel, debt, &same)? } else { self.post_card(now, channel, &key, debt)? }
            }
        };
        let chat = match &post {
            Post::Telegram(post) => Some(post.chat),
            Post::Webhook(_) | Post::Pressed(_) => None,
        };
        let lane = self.lanes.get_mut(&channel)?;
        lane.pace.sent(now);
        lane.attempt = Some(Attempt { effect, paying, chat });
        Some(post)
    }

    fn post_text(&mut self, now: Time, channel: Channel, number: u64) -> Option<(Paying, Post)> {
        let lane = self.lanes.get(&channel)?;
        let text = lane.texts.iter().find(|text| text.number == number)?;
        let post = match channel {
            Channel::Webhook => {
                let body = hook::text(number, &text.text, text.uncertain, text.at);
                Post::Webhook(HookPost { number, body })
            }
            Channel::Telegram => {
                let chat = text.chat.or_else(|| self.paired_chat())?;
                let mark = if text.uncertain { "(repeated) " } else { "" };
                let words = card::sentence(&format!("{mark}{}", text.text));
                let question = text.question.as_ref();
                let action = ChatAction::Send { reply_to: question.and_then(|question| question.card), quiet: false };
                let keyboard = question.map(|question| question.keyboard(now));
                let post = self.chat_post(number, chat, action, words, keyboard);
                if let Post::Telegram(ChatPost { keyboard: Some(keyboard), .. }) = &post {
                    self.buttons.put(number, Some(keyboard));
                }
                post
            }
        };
        Some((Paying::Text(number), post))
    }

    fn post_card(&mut self, now: Time, channel: Channel, key: &IncidentKey, debt: Debt) -> Option<(Paying, Post)> {
        let fresh = self.numbers + 1;
        let card = self.cards.get_mut(key)?;
        let repeated = card.is_repeat(channel, debt);
        let telling = card.tellings.entry(channel).or_default();
        let message = telling.message.filter(|_| debt != Debt::New);
        let edits = debt == Debt::Change && message.is_some();
        let number = match telling.number {
            Some(number) if debt.carries_card() && (edits || telling.uncertain.is_some()) => number,
            Some(_) | None => fresh,
        };
        if debt.carries_card() {
            telling.number = Some(number);
        }
        let reminders = telling.reminders + 1;
        let showing = Showing::of(&card.notice, true);
        let notice = &card.notice;
        let post = match channel {
            Channel::Webhook => {
                let body = hook::incident(number, hook_kind(debt), notice, repeated);
                Post::Webhook(HookPost { number, body })
            }
            Channel::Telegram => {
                let words = match debt {
                    Debt::New => card::card(notice, repeated),
                    Debt::Change => card::card(notice, repeated && !edits),
                    Debt::Reminder => card::reminder(notice, reminders, now.since(notice.opened_at), repeated),
                    Debt::End => card::ended(notice, repeated),
                };
                let quiet = debt == Debt::Change || notice.priority == Priority::Info;
                let action = match message {
                    Some(message) if edits => ChatAction::Edit { message },
                    Some(_) | None => ChatAction::Send { reply_to: message, quiet },
                };
                let paired = self.operators.paired()?;
                let keyboard = authority::card_keyboard(now, &self.config, paired.user, notice);
                let keyboard = keyboard.filter(|_| debt.carries_card());
                if debt.carries_card() {
                    self.buttons.put(number, keyboard.as_ref());
                }
                self.chat_post(number, paired.chat, action, words, keyboard)
            }
        };
        self.numbers = self.numbers.max(number);
        Some((Paying::Card(debt, showing), post))
    }

    fn post_many(&mut self, channel: Channel, debt: Debt, keys: &[IncidentKey]) -> Option<(Paying, Post)> {
        let number = self.numbers + 1;
        let mut notices: Vec<(&Notice, bool)> = keys
            .iter()
            .filter_map(|key| self.cards.get(key))
            .map(|card| (&card.notice, card.is_repeat(channel, debt)))
            .collect();
        notices.sort_by_key(|(notice, _)| (notice.state, std::cmp::Reverse(notice.priority), notice.opened_at));
        let (post, named) = match channel {
            Channel::Webhook => {
                let kind = if debt == Debt::Reminder { "reminders" } else { "digest" };
                (Post::Webhook(HookPost { number, body: hook::many(number, kind, &notices) }), notices.len())
            }
            Channel::Telegram => {
                let title = if debt == Debt::Reminder { "Still not acknowledged" } else { "Several at once" };
                let (words, named) = card::digest(title, &notices);
                let action = ChatAction::Send { reply_to: None, quiet: false };
                (self.chat_post(number, self.paired_chat()?, action, words, None), named)
            }
        };
        let showings =
            notices.iter().enumerate().map(|(index, (notice, _))| Showing::of(notice, index < named)).collect();
        self.numbers = number;
        Some((Paying::Many(debt, showings), post))
    }

    fn chat_post(
        &self,
        number: u64,
        chat: ChatId,
        action: ChatAction,
        words: Words,
        keyboard: Option<Keyboard>,
    ) -> Post {
        let plain = self.lanes.get(&Channel::Telegram).is_some_and(|lane| lane.plain);
        let text = if plain { ChatText::Plain(words.plain.into()) } else { ChatText::Html(words.html.into()) };
        Post::Telegram(ChatPost { number, chat, action, text, keyboard })
    }

    fn paired_chat(&self) -> Option<ChatId> {
        self.operators.paired().map(|paired| paired.chat)
    }

    pub(super) fn posted(&mut self, now: Time, effect: EffectId, outcome: PostOutcome) {
        let under_way = |lane: &mut super::Lane| lane.attempt.take_if(|attempt| attempt.effect == effect);
        let found = self.lanes.iter_mut().find_map(|(channel, lane)| Some((*channel, under_way(lane)?)));
        if let Some((channel, attempt)) = found {
            self.settle(now, channel, &attempt, outcome);
        }
    }

    fn settle(&mut self, now: Time, channel: Channel, attempt: &Attempt, outcome: PostOutcome) {
        let aside = self.is_aside(attempt);
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        match outcome {
            PostOutcome::Delivered { message } => self.delivered(now, channel, attempt, message),
            PostOutcome::NotModified => self.delivered(now, channel, attempt, None),
            PostOutcome::RetryAfter { secs } => lane.pace.hold(now, secs),
            PostOutcome::Refused { reason } => {
                lane.pace.answered(now);
                if std::mem::replace(&mut lane.plain, true) {
                    self.give_up(now, channel, attempt, &reason);
                }
            }
            PostOutcome::Failed { permanent: true, .. } | PostOutcome::Migrated { .. } if aside => {
                self.drop_text(now, channel, attempt);
            }
            PostOutcome::Failed { reason, permanent } => {
                lane.pace.failed(now, reason, permanent);
                self.say_if_down(now, channel, permanent);
            }
            PostOutcome::Unknown { reason } => {
                lane.pace.failed(now, reason, false);
                self.mark_uncertain(channel, attempt);
            }
            PostOutcome::Migrated { chat } => self.migrated(now, channel, attempt, chat),
            PostOutcome::Gone => self.gone(now, channel, attempt),
        }
    }

    fn delivered(&mut self, now: Time, channel: Channel, attempt: &Attempt, message: Option<MessageId>) {
        self.pay(now, channel, attempt, message);
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        lane.plain = false;
        if let Some(failing) = lane.pace.delivered(now).filter(|failing| failing.down) {
            let text =
                format!("{channel} delivers again; it had not since {} UTC ({}).", failing.since, failing.reason);
            self.report_on(now, channel.other(), &text);
        }
    }

    fn pay(&mut self, now: Time, channel: Channel, attempt: &Attempt, message: Option<MessageId>) {
        match &attempt.paying {
            Paying::Text(number) => {
                if let Some(lane) = self.lanes.get_mut(&channel) {
                    lane.texts.retain(|text| text.number != *number);
                }
                self.buttons.delivered(now, *number, message);
            }
            Paying::Card(debt, showing) => {
                if let Some(card) = self.cards.get_mut(&showing.key) {
                    card.told(channel, now, *debt, showing, message);
                    if debt.carries_card()
                        && channel == Channel::Telegram
                        && let Some(number) = card.tellings.get(&channel).and_then(|telling| telling.number)
                    {
                        self.buttons.delivered(now, number, message);
                    }
                }
            }
            // The one message of a digest belongs to none of its incidents: each gets a card of its own when it changes.
            Paying::Many(debt, showings) => {
                for showing in showings {
                    if let Some(card) = self.cards.get_mut(&showing.key) {
                        card.told(channel, now, *debt, showing, None);
                    }
                }
            }
        }
    }

    /// Refused as formatted and as plain text: one message must not stop all the others.
    fn give_up(&mut self, now: Time, channel: Channel, attempt: &Attempt, reason: &str) {
        self.pay(now, channel, attempt, None);
        if let Some(lane) = self.lanes.get_mut(&channel) {
            lane.plain = false;
        }
        let what = match &attempt.paying {
            Paying::Card(_, showing) => format!("incident {} of {}", showing.key.incident, showing.key.account),
            Paying::Many(_, showings) => format!("a digest of {} incidents", showings.len()),
            Paying::Text(number) => format!("message {number}"),
        };
        let text = format!("{channel} takes no message about {what}: {}.", card::quoted(reason));
        self.report_on(now, channel.other(), &text);
    }

    /// A text to another chat than the paired one: its failure says nothing about the channel.
    fn is_aside(&self, attempt: &Attempt) -> bool {
        matches!(attempt.paying, Paying::Text(_)) && attempt.chat.is_some() && attempt.chat != self.paired_chat()
    }

    fn drop_text(&mut self, now: Time, channel: Channel, attempt: &Attempt) {
        self.pay(now, channel, attempt, None);
        if let Some(lane) = self.lanes.get_mut(&channel) {
            lane.pace.answered(now);
        }
    }

    fn migrated(&mut self, now: Time, channel: Channel, attempt: &Attempt, chat: ChatId) {
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        match attempt.chat {
            Some(from) if self.operators.migrate(from, chat) => {
                lane.pace.answered(now);
                self.forget_messages();
                let text = format!("The paired Telegram group {from} became {chat}, and was followed there.");
                self.report_on(now, channel.other(), &text);
            }
            Some(_) | None => {
                lane.pace.failed(now, "the chat became another one, which is not the paired one".into(), true);
                self.say_if_down(now, channel, true);
            }
        }
    }

    /// The cards are in a chat that is no longer ours: the next change of each is a new message.
    fn forget_messages(&mut self) {
        self.buttons.forget_all();
        for telling in self.cards.values_mut().filter_map(|card| card.tellings.get_mut(&Channel::Telegram)) {
            telling.message = None;
        }
    }

    /// Our message was taken away: the incident is told anew.
    fn gone(&mut self, now: Time, channel: Channel, attempt: &Attempt) {
        if let Some(lane) = self.lanes.get_mut(&channel) {
            lane.pace.answered(now);
        }
        let Paying::Card(_, showing) = &attempt.paying else { return };
        if let Some(telling) = self.cards.get_mut(&showing.key).and_then(|card| card.tellings.get_mut(&channel)) {
            telling.message = None;
            telling.shown = None;
        }
        let (incident, account) = (showing.key.incident, &showing.key.account);
        if self.told.tell(now, &format!("gone {account} {incident}")).is_some() {
            let text = format!(
                "Our {channel} message about incident {incident} of {account} is gone or can no longer be edited. It \
                 is sent anew. If you did not delete it, somebody else can act in that chat or holds the bot's token."
            );
            self.report_on(now, channel.other(), &text);
        }
    }

    pub(super) fn mark_uncertain(&mut self, channel: Channel, attempt: &Attempt) {
        let (debt, showings) = match &attempt.paying {
            Paying::Text(number) => {
                let texts = self.lanes.get_mut(&channel).into_iter().flat_map(|lane| &mut lane.texts);
                texts.filter(|text| text.number == *number).for_each(|text: &mut Text| text.uncertain = true);
                return;
            }
            Paying::Card(debt, showing) => (*debt, std::slice::from_ref(showing)),
            Paying::Many(debt, showings) => (*debt, showings.as_slice()),
        };
        for showing in showings {
            if let Some(card) = self.cards.get_mut(&showing.key) {
                let uncertain = Uncertain { debt, revision: showing.revision };
                card.tellings.entry(channel).or_default().uncertain = Some(uncertain);
            }
        }
    }

    /// Ends what nobody answered in time, and says when a channel is down.
    pub(super) fn watch(&mut self, now: Time) {
        for channel in Channel::ALL {
            let Some(lane) = self.lanes.get_mut(&channel) else { continue };
            if lane.pace.overdue_at().is_some_and(|at| at <= now)
                && let Some(attempt) = lane.attempt.take()
            {
                let reason = "the post never ended".into();
                self.settle(now, channel, &attempt, PostOutcome::Unknown { reason });
            }
            self.say_if_down(now, channel, false);
        }
    }

    fn say_if_down(&mut self, now: Time, channel: Channel, at_once: bool) {
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        if let Some(failing) = lane.pace.went_down(now, at_once) {
            let text = format!(
                "{channel} is down: nothing was delivered there since {} UTC ({}). It is tried again and again.",
                failing.since,
                card::quoted(&failing.reason)
            );
            self.report_on(now, channel.other(), &text);
        }
    }
}

const fn hook_kind(debt: Debt) -> HookKind {
    match debt {
        Debt::New => HookKind::Card,
        Debt::Change => HookKind::Update,
        Debt::Reminder => HookKind::Reminder,
        Debt::End => HookKind::Ended,
    }
}
