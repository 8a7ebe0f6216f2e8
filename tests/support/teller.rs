//! The daemon's part around the shared kernel, less the journal: its real outlets and inlet, in a time that runs faster
//! than outside.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use countersign::inlet;
use countersign::inlet::telegram::Checks;
use countersign::kernel::account::Kernel;
use countersign::kernel::channel::Post;
use countersign::kernel::chat::{TelegramConfig, pairing_digest};
use countersign::kernel::command::Totp;
use countersign::kernel::declared::Declared;
use countersign::kernel::event::{Answer, Effect, EffectId, Event, Ticket};
use countersign::kernel::incident::{IncidentId, IncidentState, Line, Notice, Priority};
use countersign::kernel::order::{Account, Asset, Symbol};
use countersign::kernel::rule::RuleSet;
use countersign::kernel::shared::{Said, Shared, SharedConfig, SharedEffect, SharedEvent, Show};
use countersign::kernel::stopping::{Means, Mode, Stopping};
use countersign::kernel::time::Time;
use countersign::outlet::telegram::{TelegramOutlet, bot};
use countersign::outlet::webhook::WebhookOutlet;
use countersign::secret::one_time::{OneTimePasswords, Passwords};
use secrecy::{SecretSlice, SecretString};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::bot_api::{BotApi, TOKEN};
use super::hook::{Hook, SECRET};

pub const OWNER: i64 = 42;
pub const CODE_KEY: &[u8] = b"key of the short codes";
/// Of the one-time passwords.
pub const TOTP_SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

/// What the daemon does around the kernel, less the journal.
pub struct Daemon {
    pub clock: Clock,
    events: mpsc::Sender<SharedEvent>,
    /// As it would stand on disk: written before an effect is let out.
    pub saved: Arc<Mutex<String>>,
    pub done: Arc<Mutex<Done>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What the accounts were told to do, and every event as its row would hold it.
#[derive(Default)]
pub struct Done {
    pub acknowledged: Vec<(Account, IncidentId, u64)>,
    pub commands: Vec<(Said, Option<IncidentId>, Totp)>,
    pub rows: Vec<String>,
}

#[derive(Clone, Copy)]
pub struct Clock {
    began: Instant,
    speed: u32,
}

impl Clock {
    pub fn new(speed: u32) -> Self {
        Self { began: Instant::now(), speed }
    }

    pub fn now(self) -> Time {
        Time::from_millis(1_764_000_000_000) + self.began.elapsed() * self.speed
    }

    pub fn secs(self) -> i64 {
        self.now().millis() / 1_000
    }
}

/// Each declared person has a secret of his own, and everybody else the common one.
fn passwords(config: &SharedConfig) -> Passwords {
    let made = |secret: &str| OneTimePasswords::new(&secret.into(), &Account::new("main")).unwrap();
    let mut passwords = Passwords::common(made(TOTP_SECRET));
    for person in &config.people.persons {
        passwords.add_person(&person.name, &person.ways(), Some(made(&secret_of(&person.name)))).unwrap();
    }
    passwords
}

/// A person's own secret of one-time passwords.
pub fn secret_of(person: &str) -> String {
    let letters = person.to_uppercase().chars().cycle().take(32).collect::<String>();
    letters.replace(|c: char| !c.is_ascii_uppercase(), "A")
}

pub fn config() -> SharedConfig {
    SharedConfig {
        telegram: Some(TelegramConfig { allowed_users: vec![OWNER.unsigned_abs()], group_chat: false }),
        webhook: true,
        ..SharedConfig::default()
    }
}

impl Daemon {
    pub async fn start(api: &BotApi, hook: &Hook, config: SharedConfig, clock: Clock, saved: Option<String>) -> Self {
        let shared: Shared = saved.map_or_else(Shared::new, |saved| serde_json::from_str(&saved).unwrap());
        let token = SecretString::from(TOKEN);
        let bot = bot(&token, api.url(), super::client());
        let (events, inbox) = mpsc::channel(16);
        let passwords = passwords(&config);
        let account = config.people.two_people.then(|| account(clock.now(), &config));
        events.send(SharedEvent::Started { config }).await.unwrap();
        let checks = Checks {
            code_key: SecretSlice::from(CODE_KEY.to_vec()),
            totp: Arc::new(passwords),
            now: Box::new(move || clock.now()),
        };
        let next_update = shared.next_update();
        let polls = inlet::telegram::run(bot.clone(), checks, next_update, events.clone(), CancellationToken::new());
        let telegram = Arc::new(TelegramOutlet::new(bot, SecretSlice::from(CODE_KEY.to_vec())));
        let webhook = Arc::new(WebhookOutlet::new(super::client(), hook.url(), SecretSlice::from(SECRET.to_vec())));
        let (saved, done) = (Arc::new(Mutex::new(String::new())), Arc::new(Mutex::new(Done::default())));
        let driver =
            Driver { shared, account, clock, telegram, webhook, saved: Arc::clone(&saved), done: Arc::clone(&done) };
        let tasks = vec![tokio::spawn(polls), tokio::spawn(driver.run(inbox))];
        Self { clock, events, saved, done, tasks }
    }

    /// Both channels ready, the owner paired.
    pub async fn paired(api: &BotApi, hook: &Hook, speed: u32) -> Self {
        Self::paired_with(api, hook, config(), speed).await
    }

    pub async fn paired_with(api: &BotApi, hook: &Hook, config: SharedConfig, speed: u32) -> Self {
        let daemon = Self::start(api, hook, config, Clock::new(speed), None).await;
        let expires = daemon.clock.now() + Duration::from_secs(600);
        daemon.send(SharedEvent::PairingIssued { code_sha256: pairing_digest("K7QX-2M4P"), expires }).await;
        api.say(OWNER, daemon.clock.secs(), "/pair K7QX-2M4P");
        api.until("the pairing's answer", |sent| sent.iter().any(|sent| sent.text.contains("is paired"))).await;
        hook.until("the pairing's report", |body| text_of(body).contains("was paired")).await;
        daemon
    }

    pub async fn send(&self, event: SharedEvent) {
        self.events.send(event).await.unwrap();
    }

    pub async fn notice(&self, notice: Notice) {
        self.send(SharedEvent::Notice(Box::new(notice))).await;
    }

    pub fn state(&self) -> Shared {
        serde_json::from_str(&self.saved.lock().unwrap()).unwrap()
    }

    /// kill -9: what was on disk is what is left.
    pub async fn kill(mut self) -> String {
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
    /// In fund mode an account that answers; otherwise whatever it is told counts as done.
    account: Option<Kernel>,
    clock: Clock,
    telegram: Arc<TelegramOutlet>,
    webhook: Arc<WebhookOutlet>,
    saved: Arc<Mutex<String>>,
    done: Arc<Mutex<Done>>,
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
            self.done.lock().unwrap().rows.push(serde_json::to_string(&event).unwrap());
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
                        self.done.lock().unwrap().acknowledged.push((account, incident, shown));
                    }
                    SharedEffect::Command { incident, totp, said } => {
                        self.done.lock().unwrap().commands.push((said.clone(), incident, totp));
                        match &mut self.account {
                            None => answers.push(SharedEvent::Commanded { said, refused: None }),
                            Some(account) => answers.extend(obeyed(account, self.clock.now(), seq, said, totp)),
                        }
                    }
                    SharedEffect::Show { chat, what: Show::Status } => {
                        answers.push(SharedEvent::Answered { chat, text: "All is seen.".into() });
                    }
                    SharedEffect::Show { chat, what: Show::Incidents | Show::Requests | Show::Plan } => {
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

/// In mode *act*, with nothing that it could reach.
fn account(now: Time, config: &SharedConfig) -> Kernel {
    let mut declared = Declared::nothing(Account::new("main"));
    declared.people = config.people.clone();
    declared.stopping = Some(Stopping {
        mode: Mode::Act,
        means: Means::SubAccount,
        keys: Vec::new(),
        hooks: Vec::new(),
        pausing: Vec::new(),
        quiet: Duration::from_secs(5),
        freeze_unanswered: None,
        transfer_to_master: false,
    });
    let mut kernel = Kernel::new(Account::new("main"));
    let (declared, rules) = (Box::new(declared), Box::new(RuleSet::default()));
    let _ = kernel.apply(now, 0, Event::Started { version: "test".into(), declared, rules });
    kernel
}

/// What the shared kernel hears of it, the last first.
fn obeyed(account: &mut Kernel, now: Time, seq: u64, said: Said, totp: Totp) -> Vec<SharedEvent> {
    let Said { by, way, why, command, .. } = said.clone();
    let event = Event::Command { ticket: Ticket(0), by, way, why, incident: None, command, totp };
    let mut heard = Vec::new();
    for effect in account.apply(now, seq, event) {
        match effect {
            Effect::Announce { text } => heard.push(SharedEvent::Announced { text }),
            Effect::Answer { answer: Answer::Done, .. } => {
                heard.push(SharedEvent::Commanded { said: said.clone(), refused: None });
            }
            Effect::Answer { answer: Answer::Refused { reason }, .. } => {
                heard.push(SharedEvent::Commanded { said: said.clone(), refused: Some(reason) });
            }
            Effect::Answer { answer: Answer::Requested { .. }, .. }
            | Effect::Reply { .. }
            | Effect::Read(_)
            | Effect::Act(_)
            | Effect::Tell(_) => {}
        }
    }
    heard.reverse();
    heard
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
        Post::Pressed(answer) => {
            telegram.answer_press(&answer).await;
            return SharedEvent::Due;
        }
    };
    SharedEvent::Posted { effect, outcome }
}

pub fn notice(incident: u64, revision: u64, orders: u64) -> Notice {
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
        contained_in: None,
        repeated: false,
    }
}

pub fn text_of(body: &serde_json::Value) -> &str {
    body["text"].as_str().unwrap_or_default()
}
