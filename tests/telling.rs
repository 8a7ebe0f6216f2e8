//! The shared kernel with its real outlets and inlet against a Bot API and a webhook on loopback: everything of
//! telling but the daemon's journal. Time runs faster here than outside, so that reminders come within the test.

#![expect(clippy::disallowed_methods, reason = "a test plays the daemon's part: it spawns, and reads the clock")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use countersign::inlet;
use countersign::kernel::channel::{Channel, Post};
use countersign::kernel::chat::{TelegramConfig, pairing_digest};
use countersign::kernel::event::EffectId;
use countersign::kernel::incident::{IncidentId, IncidentState, Line, Notice, Priority};
use countersign::kernel::order::{Account, Asset, Symbol};
use countersign::kernel::shared::{ChannelState, Shared, SharedConfig, SharedEffect, SharedEvent, Show};
use countersign::kernel::time::Time;
use countersign::outlet::telegram::{TelegramOutlet, bot, message_code};
use countersign::outlet::webhook::WebhookOutlet;
use secrecy::{SecretSlice, SecretString};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use support::bot_api::{BotApi, Misbehaviour, TOKEN};
use support::hook::{Hook, SECRET};

const OWNER: i64 = 42;
const STRANGER: i64 = 666;
const CODE_KEY: &[u8] = b"key of the short codes";

/// What the daemon does around the kernel, less the journal.
struct Daemon {
    clock: Clock,
    events: mpsc::Sender<SharedEvent>,
    /// As it would stand on disk: written before an effect is let out.
    saved: Arc<Mutex<String>>,
    acknowledged: Arc<Mutex<Vec<(Account, IncidentId, u64)>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Clone, Copy)]
struct Clock {
    began: Instant,
    speed: u32,
}

impl Clock {
    fn new(speed: u32) -> Self {
        Self { began: Instant::now(), speed }
    }

    fn now(self) -> Time {
        Time::from_millis(1_764_000_000_000) + self.began.elapsed() * self.speed
    }

    fn secs(self) -> i64 {
        self.now().millis() / 1_000
    }
}

fn config() -> SharedConfig {
    SharedConfig {
        telegram: Some(TelegramConfig { allowed_users: vec![OWNER.unsigned_abs()], group_chat: false }),
        webhook: true,
    }
}

impl Daemon {
    async fn start(api: &BotApi, hook: &Hook, clock: Clock, saved: Option<String>) -> Self {
        let shared: Shared = saved.map_or_else(Shared::new, |saved| serde_json::from_str(&saved).unwrap());
        let token = SecretString::from(TOKEN);
        let bot = bot(&token, api.url(), support::client());
        let (events, inbox) = mpsc::channel(16);
        events.send(SharedEvent::Started { config: config() }).await.unwrap();
        let polls = inlet::telegram::run(bot.clone(), shared.next_update(), events.clone(), CancellationToken::new());
        let telegram = Arc::new(TelegramOutlet::new(bot, SecretSlice::from(CODE_KEY.to_vec())));
        let webhook = Arc::new(WebhookOutlet::new(support::client(), hook.url(), SecretSlice::from(SECRET.to_vec())));
        let (saved, acknowledged) = (Arc::new(Mutex::new(String::new())), Arc::new(Mutex::new(Vec::new())));
        let driver = Driver {
            shared,
            clock,
            telegram,
            webhook,
            saved: Arc::clone(&saved),
            acknowledged: Arc::clone(&acknowledged),
        };
        let tasks = vec![tokio::spawn(polls), tokio::spawn(driver.run(inbox))];
        Self { clock, events, saved, acknowledged, tasks }
    }

    /// Both channels ready, the owner paired.
    async fn paired(api: &BotApi, hook: &Hook, speed: u32) -> Self {
        let daemon = Self::start(api, hook, Clock::new(speed), None).await;
        let expires = daemon.clock.now() + Duration::from_secs(600);
        daemon.send(SharedEvent::PairingIssued { code_sha256: pairing_digest("K7QX-2M4P"), expires }).await;
        api.say(OWNER, daemon.clock.secs(), "/pair K7QX-2M4P");
        api.until("the pairing's answer", |sent| sent.iter().any(|sent| sent.text.contains("is paired"))).await;
        hook.until("the pairing's report", |body| text_of(body).contains("was paired")).await;
        daemon
    }

    async fn send(&self, event: SharedEvent) {
        self.events.send(event).await.unwrap();
    }

    async fn notice(&self, notice: Notice) {
        self.send(SharedEvent::Notice(Box::new(notice))).await;
    }

    fn state(&self) -> Shared {
        serde_json::from_str(&self.saved.lock().unwrap()).unwrap()
    }

    /// kill -9: what was on disk is what is left.
    async fn kill(mut self) -> String {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
        self.saved.lock().unwrap().clone()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

struct Driver {
    shared: Shared,
    clock: Clock,
    telegram: Arc<TelegramOutlet>,
    webhook: Arc<WebhookOutlet>,
    saved: Arc<Mutex<String>>,
    acknowledged: Arc<Mutex<Vec<(Account, IncidentId, u64)>>>,
}

impl Driver {
    async fn run(mut self, mut inbox: mpsc::Receiver<SharedEvent>) {
        let mut posts = JoinSet::new();
        let mut answers = Vec::new();
        for seq in 0.. {
            let event = match answers.pop() {
                Some(answer) => answer,
                None => self.next(&mut inbox, &mut posts).await,
            };
            let effects = self.shared.apply(self.clock.now(), seq, event);
            *self.saved.lock().unwrap() = serde_json::to_string(&self.shared).unwrap();
            for (index, effect) in effects.into_iter().enumerate() {
                let id = EffectId { cause: seq, index: u32::try_from(index).unwrap() };
                match effect {
                    SharedEffect::Post(post) => {
                        posts.spawn(deliver(
                            Arc::clone(&self.telegram),
                            Arc::clone(&self.webhook),
                            self.clock,
                            id,
                            post,
                        ));
                    }
                    SharedEffect::Acknowledge { account, incident, shown, .. } => {
                        self.acknowledged.lock().unwrap().push((account, incident, shown));
                    }
                    SharedEffect::Show { chat, what: Show::Status } => {
                        answers.push(SharedEvent::Answered { chat, text: "All is seen.".into() });
                    }
                    SharedEffect::Show { chat, what: Show::Incidents } => {
                        answers.push(SharedEvent::Answered { chat, text: "These are open.".into() });
                    }
                }
            }
        }
    }

    async fn next(&self, inbox: &mut mpsc::Receiver<SharedEvent>, posts: &mut JoinSet<SharedEvent>) -> SharedEvent {
        let until_due = self.shared.due().map(|due| due.since(self.clock.now()) / self.clock.speed);
        tokio::select! {
            biased;
            Some(posted) = posts.join_next() => posted.unwrap(),
            Some(event) = inbox.recv() => event,
            () = tokio::time::sleep(until_due.unwrap_or(Duration::from_secs(3_600))) => SharedEvent::Due,
        }
    }
}

async fn deliver(
    telegram: Arc<TelegramOutlet>,
    webhook: Arc<WebhookOutlet>,
    clock: Clock,
    effect: EffectId,
    post: Post,
) -> SharedEvent {
    let outcome = match post {
        Post::Telegram(post) => telegram.post(&post).await,
        Post::Webhook(post) => webhook.post(&post, clock.now()).await,
    };
    SharedEvent::Posted { effect, outcome }
}

fn notice(incident: u64, revision: u64, orders: u64) -> Notice {
    let at = Time::from_millis(1_764_000_000_000);
    Notice {
        account: Account::new("main"),
        incident: IncidentId(incident),
        revision,
        state: IncidentState::Open,
        priority: Priority::Critical,
        rule: "foreign_order".into(),
        headline: "Not your <bot> & co".into(),
        opened_at: at,
        updated_at: at,
        orders,
        symbols: vec![Symbol::new("THINUSDT")],
        notional: vec![(Asset::new("USDT"), "320.5".parse().unwrap())],
        lines: vec![Line { at, text: "SELL 100 THINUSDT at 3.205".into() }],
        lines_left_out: 0,
        certainty: "Certain.".into(),
        advice: Vec::new(),
        limits_of_sight: Vec::new(),
        acknowledged_by: None,
        contained: None,
        repeated: false,
    }
}

fn text_of(body: &serde_json::Value) -> &str {
    body["text"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_card_is_sent_edited_reminded_of_acknowledged_and_ended() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let daemon = Daemon::paired(&api, &hook, 20).await;
    daemon.notice(notice(1, 1, 1)).await;
    let sent = api.until("the card", |sent| sent.iter().any(|s| s.text.contains("· 1 order"))).await;
    let card = sent.last().unwrap().clone();
    assert!(card.html && !card.quiet && card.text.contains("Not your &lt;bot&gt; &amp; co"));
    let (text, foot) = card.text.rsplit_once('\n').unwrap();
    let (number, code) = foot.strip_prefix('#').unwrap().split_once(' ').unwrap();
    assert_eq!(code, message_code(&SecretSlice::from(CODE_KEY.to_vec()), number.parse().unwrap(), text));
    let body = hook.until("the card's JSON", |body| body["kind"] == "card").await.pop().unwrap().body;
    assert_eq!((&body["incident"], &body["notional"]["USDT"]), (&1.into(), &"320.5".into()));

    daemon.notice(notice(1, 2, 7)).await;
    let sent = api.until("the edit", |sent| sent.iter().any(|s| s.method == "editMessageText")).await;
    assert_eq!(sent.last().unwrap().message, card.message);
    assert!(api.text_of(OWNER, card.message).unwrap().contains("· 7 orders"));

    let sent = api.until("the reminder", |sent| sent.iter().any(|s| s.text.contains("Reminder 1"))).await;
    assert_eq!(sent.last().unwrap().reply_to, Some(card.message.into()));

    api.say(OWNER, daemon.clock.secs(), "/ack main 1");
    api.until("the answer", |sent| sent.iter().any(|s| s.text.contains("Acknowledging incident 1 of main"))).await;
    assert_eq!(daemon.acknowledged.lock().unwrap()[..], [(Account::new("main"), IncidentId(1), 2)]);
    daemon.notice(Notice { state: IncidentState::Ended, ..notice(1, 3, 7) }).await;
    let sent = api.until("the end", |sent| sent.iter().any(|s| s.text.starts_with("<b>Ended"))).await;
    assert!(api.text_of(OWNER, card.message).unwrap().starts_with("<b>ENDED"));
    let gap = sent.windows(2).map(|pair| pair[1].at - pair[0].at).min().unwrap();
    assert!(gap >= Duration::from_secs(1) / 20, "{gap:?}");
    assert_eq!(hook.unsigned(), 0);
}

#[tokio::test]
async fn a_hold_on_telegram_does_not_delay_the_webhook_and_is_obeyed() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let daemon = Daemon::paired(&api, &hook, 20).await;
    api.next("sendMessage", Misbehaviour::RetryAfter(100));
    daemon.notice(notice(1, 1, 1)).await;
    hook.until("the first card", |body| body["incident"] == 1).await;
    let begun = Instant::now();
    daemon.notice(notice(2, 1, 1)).await;
    hook.until("the second card", |body| body["incident"] == 2).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(matches!(daemon.state().channels()[0].state, ChannelState::Held { .. }));
    hook.until("the report", |body| text_of(body).contains("Telegram is down")).await;
    api.until("the cards", |sent| sent.iter().filter(|s| s.text.contains("CRITICAL")).count() == 2).await;
    let requests = api.requests();
    let refused = requests.iter().position(|sent| !sent.delivered).unwrap();
    let waited = requests[refused + 1].at - requests[refused].at;
    assert!(waited >= Duration::from_secs(100) / 20, "{waited:?}");
    hook.until("the recovery", |body| text_of(body).contains("Telegram delivers again")).await;
}

#[tokio::test]
async fn a_text_that_cannot_be_parsed_goes_plain() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let daemon = Daemon::paired(&api, &hook, 20).await;
    api.next("sendMessage", Misbehaviour::CantParse);
    daemon.notice(notice(1, 1, 1)).await;
    let sent = api.until("the card", |sent| sent.iter().any(|s| s.text.contains("CRITICAL"))).await;
    let card = sent.last().unwrap();
    assert!(!card.html && card.text.contains("Not your <bot> & co"), "{card:?}");
}

#[tokio::test]
async fn after_a_kill_what_was_under_way_is_sent_again_marked_and_nothing_is_heard_twice() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let daemon = Daemon::paired(&api, &hook, 1).await;
    let clock = daemon.clock;
    api.say(OWNER, clock.secs(), "/status");
    api.until("the status", |sent| sent.iter().any(|s| s.text.contains("All is seen."))).await;
    api.next("sendMessage", Misbehaviour::DeliverAndHang);
    daemon.notice(notice(1, 1, 1)).await;
    api.until("the first card", |sent| sent.iter().any(|s| s.text.contains("CRITICAL"))).await;
    hook.until("the card", |body| body["incident"] == 1).await;
    let saved = daemon.kill().await;

    let daemon = Daemon::start(&api, &hook, clock, Some(saved)).await;
    let sent = api.until("the repeat", |sent| sent.iter().filter(|s| s.text.contains("CRITICAL")).count() == 2).await;
    assert!(sent.last().unwrap().text.contains("Repeated: this may have reached you before."));
    api.say(OWNER, clock.secs(), "/incidents");
    let sent = api.until("the answer", |sent| sent.iter().any(|s| s.text.contains("These are open."))).await;
    assert_eq!(sent.iter().filter(|s| s.text.contains("All is seen.")).count(), 1);
    assert_eq!(hook.received().iter().filter(|r| r.body["kind"] == "card").count(), 1, "the webhook had answered");
    drop(daemon);
}

#[tokio::test]
async fn strangers_and_old_messages_are_refused_and_told() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let daemon = Daemon::paired(&api, &hook, 1).await;
    api.say(STRANGER, daemon.clock.secs(), "/ack main 1 <b>");
    hook.until("the report", |body| text_of(body).contains("Refused a Telegram message from user 666")).await;
    api.say(OWNER, daemon.clock.secs() - 90, "/status");
    let sent = api.until("the answer", |sent| sent.iter().any(|s| s.text.contains("Not carried out"))).await;
    assert!(sent.iter().all(|s| s.chat == OWNER), "a stranger is not answered");
    assert!(!sent.iter().any(|s| s.text.contains("All is seen.")));
}

#[tokio::test]
async fn a_second_reader_a_foreign_webhook_and_a_lost_message_are_told_on_the_webhook() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let daemon = Daemon::paired(&api, &hook, 20).await;
    api.next("getUpdates", Misbehaviour::Conflict);
    api.say(STRANGER, daemon.clock.secs(), "hello");
    hook.until("the conflict", |body| text_of(body).contains("Somebody else reads the updates")).await;
    api.set_webhook(Some("https://thief.example/secret-path"));
    let told = hook.until("the foreign webhook", |body| text_of(body).contains("to thief.example")).await;
    assert!(told.iter().all(|received| !text_of(&received.body).contains("secret-path")));
    api.set_webhook(None);

    daemon.notice(notice(1, 1, 1)).await;
    let sent = api.until("the card", |sent| sent.iter().any(|s| s.text.contains("CRITICAL"))).await;
    api.delete_message(OWNER, sent.last().unwrap().message);
    daemon.notice(notice(1, 2, 2)).await;
    hook.until("the lost message", |body| text_of(body).contains("is gone")).await;
    api.until("the card anew", |sent| sent.iter().any(|s| s.method == "sendMessage" && s.text.contains("2 orders")))
        .await;
}

#[tokio::test]
async fn a_broken_telegram_and_a_broken_webhook_are_tried_again() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let daemon = Daemon::paired(&api, &hook, 1).await;
    api.next("sendMessage", Misbehaviour::ServerError);
    hook.next(500);
    daemon.notice(notice(1, 1, 1)).await;
    let received = hook.until("the card's JSON", |body| body["incident"] == 1).await;
    assert_eq!(received.last().unwrap().body["repeated"], false, "the webhook said that it had not taken it");
    let sent = api.until("the card", |sent| sent.iter().any(|s| s.text.contains("CRITICAL"))).await;
    assert!(sent.last().unwrap().text.contains("Repeated:"), "nobody knows what a 5xx did");
}

#[tokio::test]
async fn the_bots_token_is_in_no_reason() {
    let api = BotApi::start().await;
    let hook = Hook::start().await;
    let daemon = Daemon::paired(&api, &hook, 20).await;
    drop(api);
    daemon.notice(notice(1, 1, 1)).await;
    hook.until("the report", |body| text_of(body).contains("Telegram is down")).await;
    assert!(!daemon.saved.lock().unwrap().contains("mock-token"));
    let told = hook.received();
    assert!(told.iter().all(|received| !received.body.to_string().contains("mock-token")), "{told:#?}");
    assert!(matches!(daemon.state().channels()[0].channel, Channel::Telegram));
}
