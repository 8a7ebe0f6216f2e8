//! The shared kernel in virtual time, against channels that behave: they answer late, hold, refuse and fall silent.

mod authority;
mod claims;
mod hearing;
mod posting;

use std::time::Duration;

use super::*;
use crate::kernel::card::tests::notice as notice_of;
use crate::kernel::channel::{ChatAction, ChatPost, ChatText, MessageId};
use crate::kernel::chat::{ChatKind, Mark, pairing_digest};
use crate::kernel::incident::Priority;

const START: Time = Time::from_millis(1_764_000_000_000);
const LATENCY: Duration = Duration::from_millis(100);
const OWNER: u64 = 42;
const CHAT: ChatId = ChatId(42);

/// A shared kernel, its channels and the clock between them.
struct World {
    shared: Shared,
    now: Time,
    history: Vec<(Time, SharedEvent)>,
    effects: Vec<Vec<SharedEffect>>,
    posts: Vec<(Time, Post)>,
    under_way: Vec<(Time, EffectId, PostOutcome)>,
    channels: fn(&Post, Time, MessageId) -> PostOutcome,
    messages: i32,
    updates: i64,
}

fn deliver(_: &Post, _: Time, message: MessageId) -> PostOutcome {
    PostOutcome::Delivered { message: Some(message) }
}

fn config() -> SharedConfig {
    SharedConfig {
        telegram: Some(TelegramConfig { allowed_users: vec![OWNER], group_chat: false }),
        webhook: true,
        ..SharedConfig::default()
    }
}

impl World {
    fn unpaired(config: SharedConfig) -> Self {
        let mut world = Self {
            shared: Shared::new(),
            now: START,
            history: Vec::new(),
            effects: Vec::new(),
            posts: Vec::new(),
            under_way: Vec::new(),
            channels: deliver,
            messages: 0,
            updates: 0,
        };
        world.event(SharedEvent::Started { config });
        world
    }

    /// Paired, and past what pairing has to say.
    fn new() -> Self {
        let mut world = Self::unpaired(config());
        world.event(SharedEvent::PairingIssued { code_sha256: pairing_digest("CODE"), expires: START + secs(600) });
        world.say("/pair CODE");
        world.run(secs(120));
        world.posts.clear();
        world
    }

    fn event(&mut self, event: SharedEvent) {
        let seq = self.history.len() as u64;
        self.history.push((self.now, event.clone()));
        let effects = self.shared.apply(self.now, seq, event);
        for (index, effect) in effects.iter().enumerate() {
            let SharedEffect::Post(post) = effect else { continue };
            self.messages += 1;
            let id = EffectId { cause: seq, index: index as u32 };
            let outcome = (self.channels)(post, self.now, MessageId(self.messages));
            self.under_way.push((self.now + LATENCY, id, outcome));
            self.posts.push((self.now, post.clone()));
        }
        self.effects.push(effects);
        assert!(self.shared.due().is_none_or(|due| due > self.now), "due in the past would spin: {:?}", self.shared);
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.under_way.sort_by_key(|(at, ..)| *at);
            let answered = self.under_way.first().map(|(at, ..)| *at);
            let Some(next) = [self.shared.due(), answered].into_iter().flatten().min().filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = next.max(self.now);
            if answered.is_some_and(|at| at <= self.now) {
                let (_, effect, outcome) = self.under_way.remove(0);
                self.event(SharedEvent::Posted { effect, outcome });
            } else {
                self.event(SharedEvent::Due);
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.event(SharedEvent::Notice(Box::new(notice)));
    }

    fn update(&mut self, text: &str) -> ChatUpdate {
        self.updates += 1;
        ChatUpdate {
            update_id: self.updates,
            at: self.now,
            chat: CHAT,
            chat_kind: ChatKind::Private,
            user: Some(OWNER),
            text: text.into(),
            marks: Vec::new(),
            pressed: None,
            totp: None,
        }
    }

    fn say(&mut self, text: &str) {
        let update = self.update(text);
        self.event(SharedEvent::Update(update));
    }

    /// What the process has of it after kill -9: nothing but the snapshot; posts under way end unseen.
    fn restart(&mut self) {
        self.under_way.clear();
        self.shared = serde_json::from_str(&serde_json::to_string(&self.shared).unwrap()).unwrap();
        self.event(SharedEvent::Started { config: config() });
    }

    fn on(&self, channel: Channel) -> Vec<(Time, String)> {
        let shown = |(at, post): &(Time, Post)| match (channel, post) {
            (Channel::Telegram, Post::Telegram(post)) => {
                let action = match post.action {
                    ChatAction::Send { reply_to: None, quiet: false } => "send",
                    ChatAction::Send { reply_to: None, quiet: true } => "quiet",
                    ChatAction::Send { reply_to: Some(_), .. } => "reply",
                    ChatAction::Edit { .. } => "edit",
                };
                let (ChatText::Html(text) | ChatText::Plain(text)) = &post.text;
                Some((*at, format!("{action} {text}")))
            }
            (Channel::Webhook, Post::Webhook(post)) => Some((*at, post.body.to_string())),
            (Channel::Telegram | Channel::Webhook, _) => None,
        };
        self.posts.iter().filter_map(shown).collect()
    }

    fn telegram(&self) -> Vec<(Time, String)> {
        self.on(Channel::Telegram)
    }

    fn actions(&self) -> Vec<String> {
        self.telegram().iter().map(|(_, text)| text.split(' ').next().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for World {
    /// Each test also shows that the same events give the same effects, byte for byte.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let bytes = |effects: &Vec<SharedEffect>| serde_json::to_string(effects).unwrap();
        let mut again = Shared::new();
        for (seq, (now, event)) in self.history.iter().enumerate() {
            let event = serde_json::from_str(&serde_json::to_string(event).unwrap()).unwrap();
            assert_eq!(bytes(&again.apply(*now, seq as u64, event)), bytes(&self.effects[seq]));
        }
        assert_eq!(again, self.shared);
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn critical(account: &str, incident: u64, revision: u64) -> Notice {
    notice_of(account, incident, revision, Priority::Critical)
}

fn gaps_ms(posts: &[(Time, String)]) -> Vec<u128> {
    posts.windows(2).map(|pair| pair[1].0.since(pair[0].0).as_millis()).collect()
}
