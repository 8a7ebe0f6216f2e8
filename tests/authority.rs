//! Who may stop an account in Telegram: every way that we know of to press a button or to send a command, honest and
//! hostile, through the real poll loop against a Bot API on loopback.

#![expect(clippy::disallowed_methods, reason = "a test plays the daemon's part: it spawns, and reads the clock")]

mod support;

use std::time::Duration;

use countersign::clock;
use countersign::inlet::operator::OperatorCommand;
use countersign::kernel::button::{Press, Seal, Token};
use countersign::kernel::channel::ChatId;
use countersign::kernel::chat::TelegramConfig;
use countersign::kernel::command::{Command, Totp};
use countersign::kernel::incident::IncidentId;
use countersign::kernel::order::Account;
use countersign::kernel::shared::SharedConfig;
use countersign::secret::button;
use secrecy::SecretSlice;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use support::bot_api::{BotApi, Sent, press_of};
use support::hook::Hook;
use support::journal;
use support::stage::Stage;
use support::teller::{CODE_KEY, Daemon, OWNER, TOTP_SECRET, config, notice, text_of};

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
        let is_told = |body: &Value| text_of(body).contains("refused") || text_of(body).contains("Refused");
        self.hook.until(reason, |body| is_told(body) && text_of(body).contains(reason)).await;
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

/// Typed. Each of the first is the owner's `/kill main` or `/resume` with one thing wrong.
const TYPED: &[Row] = &[
    row("a stranger in his own chat", Refused("not on the list"), |p| {
        p.api.say(STRANGER, p.daemon.clock.secs(), "/kill main")
    }),
    row("a stranger in ours", Refused("not on the list"), |p| {
        p.say_with("/kill main", |m| m["from"] = person(STRANGER))
    }),
    row("an owner elsewhere", Refused("not the paired one"), |p| {
        p.api.say(PARTNER, p.daemon.clock.secs(), "/kill main")
    }),
    row("an owner in a group", Refused("not the paired one"), |p| {
        p.say_with("/kill main", |m| m["chat"] = json!({"id": GROUP, "type": "supergroup", "title": "g"}));
    }),
    row("an anonymous admin", Refused("nobody can tell"), |p| {
        p.say_with("/kill main", |m| {
            m["from"] = person(ANONYMOUS_ADMIN);
            m["sender_chat"] = json!({"id": GROUP, "type": "supergroup", "title": "g"});
        });
    }),
    row("Telegram's own user", Refused("nobody can tell"), |p| {
        p.say_with("/kill main", |m| m["from"] = person(TELEGRAM))
    }),
    row("the user of all channels", Refused("nobody can tell"), |p| {
        p.say_with("/kill main", |m| m["from"] = person(CHANNELS))
    }),
    row("no sender", Refused("nobody can tell"), |p| {
        p.say_with("/kill main", |m| drop(m.as_object_mut().unwrap().remove("from")))
    }),
    row("on behalf of a chat", Refused("on behalf of a chat"), |p| {
        p.say_with("/kill main", |m| m["sender_chat"] = json!({"id": -100, "type": "channel", "title": "c"}));
    }),
    row("a channel post", Refused("a channel post"), |p| {
        p.say_as("channel_post", "/kill main", |m| m["chat"] = json!({"id": -100, "type": "channel", "title": "c"}));
    }),
    row("an edited channel post", Refused("a channel post"), |p| {
        p.say_as("edited_channel_post", "/kill main", |m| {
            m["chat"] = json!({"id": -100, "type": "channel", "title": "c"});
            m["edit_date"] = m["date"].clone();
        });
    }),
    row("stale", Refused("more than 60 s away"), |p| p.api.say(OWNER, p.daemon.clock.secs() - 70, "/kill main")),
    row("from the future", Refused("more than 60 s away"), |p| {
        p.api.say(OWNER, p.daemon.clock.secs() + 300, "/kill main")
    }),
    row("edited into a command", Refused("an edited message"), |p| {
        p.say_as("edited_message", "/kill main", |m| m["edit_date"] = m["date"].clone());
    }),
    row("edited before it was read", Refused("an edited message"), |p| {
        p.say_with("/kill main", |m| m["edit_date"] = m["date"].clone());
    }),
    row("forwarded from somebody hidden", Refused("a forwarded message"), |p| {
        p.say_with("/kill main", |m| {
            m["forward_origin"] = json!({"type": "hidden_user", "date": m["date"], "sender_user_name": "x"});
        });
    }),
    row("forwarded from the owner himself", Refused("a forwarded message"), |p| {
        p.say_with("/kill main", |m| {
            m["forward_origin"] = json!({"type": "user", "date": m["date"], "sender_user": person(OWNER)});
        });
    }),
    row("through another bot", Refused("through a bot"), |p| {
        p.say_with("/kill main", |m| {
            m["via_bot"] = json!({"id": 9, "is_bot": true, "first_name": "B", "username": "b_bot"})
        });
    }),
    row("by a business bot", Refused("through a bot"), |p| {
        p.say_with("/kill main", |m| {
            m["sender_business_bot"] = json!({"id": 9, "is_bot": true, "first_name": "B", "username": "b_bot"});
        });
    }),
    row("an update heard before", Refused("heard before"), |p| {
        let mut update = json!({"message": p.said("/kill main")});
        update["update_id"] = 1.into();
        p.api.replay(update);
    }),
    row("a wrong code", Refused("the one-time password is wrong"), |p| {
        let wrong = if p.code() == "000000" { "000001" } else { "000000" };
        p.api.say(OWNER, p.daemon.clock.secs(), &format!("/resume main {wrong}"));
    }),
    row("a stranger's right code", Refused("not on the list"), |p| {
        p.api.say(STRANGER, p.daemon.clock.secs(), &format!("/resume main {}", p.code()));
    }),
    row("a forwarded right code", Refused("a forwarded message"), |p| {
        p.say_with(&format!("/resume main {}", p.code()), |m| {
            m["forward_origin"] = json!({"type": "user", "date": m["date"], "sender_user": person(OWNER)});
        });
    }),
    row("an edited right code", Refused("an edited message"), |p| {
        p.say_as("edited_message", &format!("/resume main {}", p.code()), |m| m["edit_date"] = m["date"].clone());
    }),
    row("a stale right code", Refused("more than 60 s away"), |p| {
        p.api.say(OWNER, p.daemon.clock.secs() - 70, &format!("/resume main {}", p.code()));
    }),
    row("a resume without a code", Answered("needs a one-time password"), |p| {
        p.api.say(OWNER, p.daemon.clock.secs(), "/resume main it is safe");
    }),
    row("a code under a mistyped command", Answered("no such command"), |p| {
        p.api.say(OWNER, p.daemon.clock.secs(), &format!("/resum main {}", p.code()));
    }),
    row("an account that there is not", Answered("Which account?"), |p| {
        p.api.say(OWNER, p.daemon.clock.secs(), "/kill other")
    }),
    row("words after the account", Answered("no such command"), |p| {
        p.api.say(OWNER, p.daemon.clock.secs(), "/kill main now")
    }),
    row("a kill that is only typed", Answered("Kill main?"), |p| p.api.say(OWNER, p.daemon.clock.secs(), "/kill main")),
    row("a freeze that is only typed", Answered("Freeze main?"), |p| {
        p.api.say(OWNER, p.daemon.clock.secs(), "/freeze")
    }),
    row("a right code", Done(Ordered::Resume), |p| {
        p.api.say(OWNER, p.daemon.clock.secs(), &format!("/resume main {} key 2 was mine", p.code()));
    }),
    row("a right code in two parts", Done(Ordered::Resume), |p| {
        let code = p.code();
        p.api.say(OWNER, p.daemon.clock.secs(), &format!("/resume main {} {}", &code[..3], &code[3..]));
    }),
];

/// Pressed. Each of the first is the owner's press on *Yes, kill main* with one thing wrong.
const PRESSED: &[Row] = &[
    row("by a stranger", Refused("not on the list"), |p| p.press_with(|q| q["from"] = person(STRANGER))),
    row("by another owner", Refused("not made by us for this user and chat"), |p| {
        p.press_with(|q| q["from"] = person(PARTNER))
    }),
    row("by an anonymous admin", Refused("nobody can tell"), |p| p.press_with(|q| q["from"] = person(ANONYMOUS_ADMIN))),
    row("by Telegram's own user", Refused("nobody can tell"), |p| p.press_with(|q| q["from"] = person(TELEGRAM))),
    row("in another chat", Refused("not the paired one"), |p| {
        p.press_with(|q| q["message"]["chat"] = json!({"id": PARTNER, "type": "private", "first_name": "P"}));
    }),
    row("in a group", Refused("not the paired one"), |p| {
        p.press_with(|q| q["message"]["chat"] = json!({"id": GROUP, "type": "supergroup", "title": "g"}));
    }),
    row("in a channel", Refused("a channel post"), |p| {
        p.press_with(|q| q["message"]["chat"] = json!({"id": -100, "type": "channel", "title": "c"}));
    }),
    row("under another bot's message", Refused("under a message that is not ours"), |p| {
        p.press_with(|q| {
            q["message"]["from"] = json!({"id": 9, "is_bot": true, "first_name": "B", "username": "b_bot"})
        });
    }),
    row("under the owner's own message", Refused("under a message that is not ours"), |p| {
        p.press_with(|q| q["message"]["from"] = person(OWNER));
    }),
    row("under nobody's message", Refused("under a message that is not ours"), |p| {
        p.press_with(|q| drop(q["message"].as_object_mut().unwrap().remove("from")));
    }),
    row("under a message through a bot", Refused("through a bot"), |p| {
        p.press_with(|q| {
            q["message"]["via_bot"] = json!({"id": 9, "is_bot": true, "first_name": "B", "username": "b_bot"})
        });
    }),
    row("under a forwarded message", Refused("a forwarded message"), |p| {
        p.press_with(|q| {
            q["message"]["forward_origin"] = json!({"type": "hidden_user", "date": 1, "sender_user_name": "x"});
        });
    }),
    row("under a message for a chat", Refused("on behalf of a chat"), |p| {
        p.press_with(|q| q["message"]["sender_chat"] = json!({"id": -100, "type": "channel", "title": "c"}));
    }),
    row("under an inline message", Refused("under no message of a chat"), |p| {
        p.press_with(|q| {
            q.as_object_mut().unwrap().remove("message");
            q["inline_message_id"] = "inline".into();
        });
    }),
    row("under the card", Refused("under another message"), |p| {
        p.press_with(|q| q["message"]["message_id"] = p.card.message.into())
    }),
    row("under a message that we do not know", Refused("under another message"), |p| {
        p.press_with(|q| q["message"]["message_id"] = 4_711.into())
    }),
    row("under an old one that we do not know", Refused("under another message"), |p| {
        p.press_with(|q| {
            q["message"] = json!({
                "message_id": 4_711, "date": 0, "chat": {"id": OWNER, "type": "private", "first_name": "Owner"},
            });
        });
    }),
    row("the card's button under the question", Refused("under another message"), |p| {
        p.press_with(|q| q["data"] = data(&p.card, "Kill").into())
    }),
    row("no data", Refused("carries nothing of ours"), |p| {
        p.press_with(|q| drop(q.as_object_mut().unwrap().remove("data")))
    }),
    row("a game's button", Refused("carries nothing of ours"), |p| {
        p.press_with(|q| {
            q.as_object_mut().unwrap().remove("data");
            q["game_short_name"] = "kill".into();
        });
    }),
    row("plain words", Refused("carries nothing of ours"), |p| p.press_with(|q| q["data"] = "kill main".into())),
    row("a shorter token", Refused("carries nothing of ours"), |p| p.press_with(|q| q["data"] = p.yes()[..60].into())),
    row("zeros", Refused("not made by us"), |p| p.press_with(|q| q["data"] = "A".repeat(64).into())),
    row("a bit changed in the seal", Refused("not made by us"), |p| {
        p.press_with(|q| q["data"] = flipped(p.yes(), 63).into())
    }),
    row("a bit changed in the press", Refused("not made by us"), |p| {
        p.press_with(|q| q["data"] = flipped(p.yes(), 1).into())
    }),
    row("sealed with another key", Refused("not made by us"), |p| {
        p.press_with(|q| q["data"] = p.sealed(b"the bot's token", |_| ()).into())
    }),
    row("another incident's", Refused("not of what its message shows"), |p| {
        p.press_with(|q| q["data"] = p.sealed(CODE_KEY, |t| t.incident = Some(IncidentId(8))).into());
    }),
    row("another revision's", Refused("not of what its message shows"), |p| {
        p.press_with(|q| q["data"] = p.sealed(CODE_KEY, |t| t.revision += 1).into());
    }),
    row("another account's", Refused("not of what its message shows"), |p| {
        p.press_with(|q| q["data"] = p.sealed(CODE_KEY, |t| t.account = "0011223344".into()).into());
    }),
    row("with a later expiry", Refused("not of what its message shows"), |p| {
        p.press_with(|q| q["data"] = p.sealed(CODE_KEY, |t| t.expires_secs += 600).into());
    }),
    row("of a button that is not there", Refused("not of what its message shows"), |p| {
        p.press_with(|q| q["data"] = p.sealed(CODE_KEY, |t| t.press = Press::YesFreeze).into());
    }),
    row("another message's number", Refused("no longer count"), |p| {
        p.press_with(|q| q["data"] = p.sealed(CODE_KEY, |t| t.number = 9_999).into());
    }),
    row("an update heard before", Refused("heard before"), |p| {
        let mut update = p.pressed();
        update["update_id"] = 1.into();
        p.api.replay(update);
    }),
    row("after a no", Refused("used already"), |p| {
        p.api.press(OWNER, p.question.message, data(&p.question, "No"));
        p.api.inject(p.pressed());
    }),
    row("only no", Nothing, |p| p.api.press(OWNER, p.question.message, data(&p.question, "No"))),
    row("only the card", Answered("Kill main?"), |p| p.api.press(OWNER, p.card.message, data(&p.card, "Kill"))),
    row("the card's twice", Refused("used already"), |p| {
        p.api.press(OWNER, p.card.message, data(&p.card, "Kill"));
        p.api.press(OWNER, p.card.message, data(&p.card, "Kill"));
    }),
    row("as it should be", Done(Ordered::Kill), |p| p.api.inject(p.pressed())),
    row("with the message too old to be shown", Done(Ordered::Kill), |p| {
        p.press_with(|q| {
            let chat = q["message"]["chat"].clone();
            q["message"] = json!({"message_id": p.question.message, "date": 0, "chat": chat});
        });
    }),
    row("twice", Once(Ordered::Kill, "used already"), |p| {
        p.api.inject(p.pressed());
        p.api.inject(p.pressed());
    }),
    row("yes and no", Once(Ordered::Kill, "used already"), |p| {
        p.api.inject(p.pressed());
        p.api.press(OWNER, p.question.message, data(&p.question, "No"));
    }),
    row("once, and told to us twice", Once(Ordered::Kill, "heard before"), |p| {
        p.api.inject(p.pressed());
        let mut update = p.pressed();
        update["update_id"] = p.api.last_update().into();
        // Telegram would tell of it again after the poll in which it told of it first.
        p.api.say(OWNER, p.daemon.clock.secs(), "/help");
        p.api.replay_after_next(update);
    }),
    row("the card's acknowledgement", Acknowledged(3), |p| {
        p.api.press(OWNER, p.card.message, data(&p.card, "Acknowledge"))
    }),
];

fn flipped(data: &str, at: usize) -> String {
    let other = if &data[at..=at] == "A" { "B" } else { "A" };
    format!("{}{other}{}", &data[..at], &data[at + 1..])
}

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
    play_all(TYPED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_button_is_obeyed_once_as_it_was_made() {
    play_all(PRESSED).await;
}

#[tokio::test]
async fn a_typed_command_is_carried_out_once_it_is_confirmed() {
    let play = Play::set().await;
    play.api.say(OWNER, play.daemon.clock.secs(), "/freeze");
    let question = with_button(&play.api, &play.daemon, "Yes, freeze main").await;
    play.settle().await;
    assert_eq!(play.commands(), []);
    play.api.press(OWNER, question.message, data(&question, "Yes, freeze main"));
    play.commanded(Ordered::Freeze).await;
    assert_eq!(play.daemon.done.lock().unwrap().commands[0].1, None);
}

#[tokio::test]
async fn a_question_expires_and_a_card_changes_under_the_thumb() {
    let play = Play::set().await;
    let asked_for = play.api.allowed_updates();
    assert_eq!(asked_for, json!(["message", "edited_message", "callback_query"]));
    play.daemon.notice(notice(7, 4, 2)).await;
    play.api.until("the change", |sent| sent.iter().any(|s| s.text.contains("· 2 orders"))).await;
    // A moment later the old buttons no longer count.
    tokio::time::sleep(Duration::from_secs(11) / SPEED).await;
    play.api.press(OWNER, play.card.message, data(&play.card, "Kill"));
    play.refused("not of what its message shows").await;
    tokio::time::sleep(Duration::from_secs(60) / SPEED).await;
    play.api.inject(play.pressed());
    play.refused("has expired").await;
    play.settle().await;
    assert_eq!(play.commands(), []);
}

#[tokio::test]
async fn what_was_done_is_said_and_the_question_loses_its_buttons() {
    let play = Play::set().await;
    assert_eq!(play.api.buttons_of(OWNER, play.question.message).len(), 2);
    assert_eq!(play.question.reply_to, Some(play.card.message.into()));
    play.api.inject(play.pressed());
    play.api.until("the end of the buttons", |sent| sent.iter().any(|s| s.method == "editMessageReplyMarkup")).await;
    assert_eq!(play.api.buttons_of(OWNER, play.question.message).len(), 0);
    assert!(play.api.answered().iter().any(|answered| answered.text == "Killing main."), "{:?}", play.api.answered());
    play.api.until("the answer", |sent| sent.iter().any(|s| s.text.contains("The kill of main has begun"))).await;
    let done = play.daemon.done.lock().unwrap();
    let (said, incident, totp) = &done.commands[0];
    assert_eq!((&*said.by, *incident, *totp), ("Telegram user 42", Some(IncidentId(7)), Totp::Absent));
}

#[tokio::test]
async fn a_resume_is_told_on_both_channels_and_its_code_nowhere() {
    let play = Play::set().await;
    let code = play.code();
    play.api.say(OWNER, play.daemon.clock.secs(), &format!("/resume main {code} the thief's key is gone"));
    let told = "main is being resumed";
    let on_telegram = play.api.until(told, |sent| sent.iter().any(|s| s.text.contains(told))).await;
    let on_hook = play.hook.until(told, |body| text_of(body).contains(told)).await;
    let all = [on_telegram.last().unwrap().text.clone(), text_of(&on_hook.last().unwrap().body).to_owned()];
    assert!(all.iter().all(|text| text.contains("Ordered by Telegram user 42, with a one-time password.")), "{all:?}");
    let why = all.iter().filter(|text| text.contains("Why: the thief's key is gone.") && !text.contains(&code));
    assert_eq!(why.count(), 2);
    assert!(matches!(play.daemon.done.lock().unwrap().commands[0].2, Totp::Right { .. }));
}

#[tokio::test]
async fn a_press_is_answered_even_if_telegram_does_not_take_the_answer() {
    let play = Play::set().await;
    play.api.always("answerCallbackQuery", Some(support::bot_api::Misbehaviour::Hang));
    play.api.inject(play.pressed());
    play.commanded(Ordered::Kill).await;
    play.api.until("the answer", |sent| sent.iter().any(|s| s.text.contains("The kill of main has begun"))).await;
}

#[tokio::test]
async fn a_daemon_that_may_stop_nothing_says_what_to_do_by_hand_and_tells_of_a_refused_resume() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let stage = Stage::set(11, &["maker"], Some(&api), Some(&hook.url())).await;
    let daemon = stage.run();
    stage.until_proved().await;
    stage.pair(&api).await;
    let now = || clock::wall().millis() / 1_000;
    api.say(OWNER, now(), "/kill");
    let by_hand = "countersign only watches this account, and cannot stop anything. Do it by hand, now";
    api.until("what to do by hand", |sent| sent.iter().any(|s| s.text.contains(by_hand))).await;
    api.say(OWNER, now(), "/resume main 123456 it was me");
    api.until("the same again", |sent| sent.iter().filter(|s| s.text.contains(by_hand)).count() == 2).await;
    let order = OperatorCommand::Order { incident: None, order: Command::Resume, code: None };
    let refused = stage.ask(&order).await.unwrap_err().to_string();
    assert!(refused.contains("this needs a one-time password"), "{refused}");
    hook.until("the refusal", |body| text_of(body).contains("operator tried to resume main, and was refused")).await;
    assert!(daemon.stop().await.success());
    let rows = journal::rows(&stage.journal());
    let texts: Vec<&str> =
        rows.iter().filter(|row| row.is("update")).filter_map(|row| row.body["text"].as_str()).collect();
    assert!(texts.contains(&"/resume main it was me") && !texts.concat().contains("123456"), "{texts:?}");
    assert_eq!(journal::replay(&stage.journal()).unwrap().differing, 0);
}
