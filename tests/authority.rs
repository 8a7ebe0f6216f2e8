//! Who may stop an account in Telegram: every way that we know of to press a button or to send a command, honest and
//! hostile, through the real poll loop against a Bot API on loopback.

#![expect(clippy::disallowed_methods, reason = "a test plays the daemon's part: it spawns, and reads the clock")]

#[path = "authority/fund.rs"]
mod fund;
#[path = "authority/pressed.rs"]
mod pressed;
mod support;
#[path = "authority/told.rs"]
mod told;
#[path = "authority/typed.rs"]
mod typed;

use std::time::Duration;

use countersign::clock;
use countersign::inlet::operator::OperatorCommand;
use countersign::kernel::button::{Press, Seal, Token};
use countersign::kernel::channel::ChatId;
use countersign::kernel::chat::{TelegramConfig, pairing_digest};
use countersign::kernel::command::{Command, Totp};
use countersign::kernel::incident::IncidentId;
use countersign::kernel::order::Account;
use countersign::kernel::people::{People, Person};
use countersign::kernel::shared::{SharedConfig, SharedEvent};
use countersign::secret::button;
use secrecy::SecretSlice;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use support::bot_api::{BotApi, Sent, press_of};
use support::hook::Hook;
use support::journal;
use support::stage::Stage;
use support::teller::{CODE_KEY, Daemon, OWNER, TOTP_SECRET, config, notice, secret_of, text_of};

/// On the list as well, and not the one who paired the chat.
const PARTNER: i64 = 43;
const STRANGER: i64 = 666;
const ANONYMOUS_ADMIN: i64 = 1_087_968_824;
const TELEGRAM: i64 = 777_000;
const CHANNELS: i64 = 136_817_688;
const GROUP: i64 = -1_005;
/// A minute here is six seconds outside.
const SPEED: u32 = 10;
const AT_ONCE: usize = 8;

/// What must come of what was sent. Nothing but the last three may be a command.
#[derive(Clone, Copy)]
enum Expected {
    /// Told on the webhook with this reason.
    Refused(&'static str),
    /// Answered in the chat, and nothing else.
    Answered(&'static str),
    Nothing,
    /// One command, whatever else was refused with the reason.
    Once(Ordered, &'static str),
    Done(Ordered),
    Acknowledged(u64),
}

#[derive(Clone, Copy)]
enum Ordered {
    Freeze,
    Kill,
    Resume,
}

struct Row {
    name: &'static str,
    send: fn(&Play),
    expected: Expected,
}

const fn row(name: &'static str, expected: Expected, send: fn(&Play)) -> Row {
    Row { name, send, expected }
}

/// A paired daemon, a critical card of an account that can be stopped, and the question after its *Kill*.
struct Play {
    api: BotApi,
    hook: Hook,
    daemon: Daemon,
    card: Sent,
    question: Sent,
}

impl Play {
    async fn set() -> Self {
        let (api, hook) = (BotApi::start().await, Hook::start().await);
        let telegram =
            TelegramConfig { allowed_users: vec![OWNER.unsigned_abs(), PARTNER.unsigned_abs()], group_chat: false };
        let config = SharedConfig { telegram: Some(telegram), stoppable: vec![Account::new("main")], ..config() };
        let daemon = Daemon::paired_with(&api, &hook, config, SPEED).await;
        daemon.notice(notice(7, 3, 1)).await;
        let card = with_button(&api, &daemon, "Kill").await;
        api.press(OWNER, card.message, data(&card, "Kill"));
        let question = with_button(&api, &daemon, "Yes, kill main").await;
        // Its press brought the card fresh buttons.
        api.until("the card's fresh buttons", |sent| sent.iter().any(|s| s.method == "editMessageText")).await;
        let card = with_button(&api, &daemon, "Kill").await;
        Self { api, hook, daemon, card, question }
    }

    fn yes(&self) -> &str {
        data(&self.question, "Yes, kill main")
    }

    /// The owner's press on the question's *Yes*, as it should be.
    fn pressed(&self) -> Value {
        press_of(OWNER, self.question.message, self.yes())
    }

    fn press_with(&self, change: impl FnOnce(&mut Value)) {
        let mut update = self.pressed();
        change(&mut update["callback_query"]);
        self.api.inject(update);
    }

    /// The owner's message in his chat, now.
    fn said(&self, text: &str) -> Value {
        let date = self.daemon.clock.secs();
        json!({
            "message_id": 900, "date": date, "text": text,
            "chat": {"id": OWNER, "type": "private", "first_name": "Owner"}, "from": person(OWNER),
        })
    }

    fn say_with(&self, text: &str, change: impl FnOnce(&mut Value)) {
        self.say_as("message", text, change);
    }

    fn say_as(&self, kind: &str, text: &str, change: impl FnOnce(&mut Value)) {
        let mut message = self.said(text);
        change(&mut message);
        self.api.inject(json!({ kind: message }));
    }

    /// The one-time password of this moment.
    fn code(&self) -> String {
        let secret = totp_rs::Secret::try_from_base32(TOTP_SECRET).unwrap();
        let passwords = totp_rs::Builder::new().with_secret(secret).build().unwrap();
        passwords.generate(self.daemon.clock.secs().unsigned_abs()).to_string()
    }

    /// A token that whoever holds the key could make.
    fn sealed(&self, key: &[u8], change: impl FnOnce(&mut Token)) -> String {
        let key_of_ours = SecretSlice::from(CODE_KEY.to_vec());
        let owner = OWNER.unsigned_abs();
        let Seal::Whole(mut token) = button::open(&key_of_ours, owner, ChatId(OWNER), self.yes()) else { panic!() };
        change(&mut token);
        button::seal(&SecretSlice::from(key.to_vec()), owner, ChatId(OWNER), &token)
    }

    fn commands(&self) -> Vec<Command> {
        self.daemon.done.lock().unwrap().commands.iter().map(|(said, ..)| said.command.clone()).collect()
    }

    async fn refused(&self, reason: &str) {
        is_refused(&self.hook, reason).await;
    }

    async fn commanded(&self, expected: Ordered) {
        let expected = match expected {
            Ordered::Freeze => Command::Freeze,
            Ordered::Kill => Command::Kill,
            Ordered::Resume => Command::Resume,
        };
        for _ in 0..500 {
            if !self.commands().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.commands(), [expected]);
    }

    /// Whatever was sent before has been heard.
    async fn settle(&self) {
        let told = |sent: &[Sent]| sent.iter().filter(|s| s.text.contains("All is seen.")).count();
        let before = told(&self.api.delivered());
        self.api.say(OWNER, self.daemon.clock.secs(), "/status");
        self.api.until("the status", |sent| told(sent) > before).await;
    }
}

async fn is_refused(hook: &Hook, reason: &str) {
    let is_told = |body: &Value| text_of(body).contains("refused") || text_of(body).contains("Refused");
    hook.until(reason, |body| is_told(body) && text_of(body).contains(reason)).await;
}

fn person(id: i64) -> Value {
    json!({"id": id, "is_bot": false, "first_name": "Somebody"})
}

fn data<'a>(sent: &'a Sent, label: &str) -> &'a str {
    let button = sent.buttons.iter().find(|(other, _)| other == label);
    button.map(|(_, data)| data.as_str()).unwrap_or_else(|| panic!("no button {label}: {sent:#?}"))
}

/// The newest message with such a button, once the kernel knows which it is.
async fn with_button(api: &BotApi, daemon: &Daemon, label: &str) -> Sent {
    let has = |sent: &Sent| sent.buttons.iter().any(|(other, _)| other == label);
    let sent = api.until(label, |sent| sent.iter().any(has)).await;
    let sent = sent.into_iter().rfind(has).unwrap();
    let known = format!("\"message\":{},\"under_way\":null", sent.message);
    for _ in 0..500 {
        if daemon.saved.lock().unwrap().contains(&known) {
            return sent;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{label} was never known: {}", daemon.saved.lock().unwrap());
}

use Expected::{Acknowledged, Answered, Done, Nothing, Once, Refused};

async fn play(row: &Row) {
    let play = Play::set().await;
    (row.send)(&play);
    match row.expected {
        Refused(reason) => play.refused(reason).await,
        Answered(text) => {
            play.api.until(text, |sent| sent.iter().any(|s| s.text.contains(text))).await;
        }
        Nothing => {}
        Once(command, reason) => {
            play.refused(reason).await;
            play.commanded(command).await;
        }
        Done(command) => play.commanded(command).await,
        Acknowledged(shown) => {
            play.settle().await;
            let expected = (Account::new("main"), IncidentId(7), shown);
            assert_eq!(play.daemon.done.lock().unwrap().acknowledged, [expected], "{}", row.name);
        }
    }
    play.settle().await;
    let commands = play.commands().len();
    match row.expected {
        Refused(_) | Answered(_) | Nothing | Acknowledged(_) => assert_eq!(commands, 0, "{}", row.name),
        Done(_) | Once(..) => assert_eq!(commands, 1, "{}", row.name),
    }
    no_secret_stands_in_a_row(&play);
}

/// Neither a token nor a one-time password is in what the journal would hold.
fn no_secret_stands_in_a_row(play: &Play) {
    let done = play.daemon.done.lock().unwrap();
    let rows = done.rows.join("\n");
    let sent = play.api.requests();
    for (label, data) in sent.iter().flat_map(|sent| &sent.buttons) {
        assert!(!rows.contains(data.as_str()) && data.len() <= 64, "{label}");
    }
    let codes = play.codes();
    assert!(!done.rows.iter().any(|row| codes.iter().any(|code| text_in(row).contains(code.as_str()))), "{rows}");
}

impl Play {
    /// Of every step since the play began.
    fn codes(&self) -> Vec<String> {
        let secret = totp_rs::Secret::try_from_base32(TOTP_SECRET).unwrap();
        let passwords = totp_rs::Builder::new().with_secret(secret).build().unwrap();
        let now = self.daemon.clock.secs().unsigned_abs();
        (1_764_000_000..=now).step_by(30).map(|at| passwords.generate(at).to_string()).collect()
    }
}

fn text_in(row: &str) -> String {
    let event: Value = serde_json::from_str(row).unwrap();
    event["text"].as_str().unwrap_or_default().to_owned()
}

async fn play_all(rows: &'static [Row]) {
    let mut plays = JoinSet::new();
    for row in rows {
        if plays.len() >= AT_ONCE {
            plays.join_next().await.unwrap().unwrap();
        }
        plays.spawn(async move {
            let ended = tokio::spawn(play(row)).await;
            assert!(ended.is_ok(), "{}: {ended:?}", row.name);
        });
    }
    while let Some(ended) = plays.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typed_command_is_obeyed_from_its_owner_alone() {
    play_all(typed::TYPED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_button_is_obeyed_once_as_it_was_made() {
    play_all(pressed::PRESSED).await;
}
