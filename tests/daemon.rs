//! The whole, end to end: the built program as exchange and as watcher, a ccxt bot in Python that tells what it does,
//! a thief, a Bot API and a webhook, all of them processes or sockets of their own; and a kill -9 in the middle.
//!
//! Needs a Python with ccxt: `COUNTERSIGN_PYTHON` names it; where it is missing the test says so and passes, unless
//! `COUNTERSIGN_NO_SKIP` is 1.

#![expect(clippy::disallowed_methods, reason = "a test plays the parts outside: it spawns, and reads the clock")]

#[path = "daemon/commands.rs"]
mod commands;
#[path = "daemon/ledger.rs"]
mod ledger;
#[path = "daemon/stage.rs"]
mod stage;
mod support;

use std::fs;
use std::time::Duration;

use countersign::clock;
use countersign::sim::client::RestClient;
use countersign::sim::thief::{Plan, steal};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::ledger::{Order, orders_by};
use crate::stage::{Bot, Exchange, Folder, Watcher};
use crate::support::bot_api::{self, BotApi};
use crate::support::hook::{self, Hook};
use crate::support::python::python_with;

const OWNER: i64 = 42;
const TAG_SECRET: &str = "daemon-tags-9f8e7d6c5b4a39281706f5e4d3c2b1a0";
const GRID_SECRET: &str = "grid-tags-0a1b2c3d4e5f60718293a4b5c6d7e8f9";
const CODE_SECRET: &str = "codes-1122334455667788990011223344556677";
/// Few enough a second that each is a line of its own on the card.
const THEFT_EVERY: Duration = Duration::from_millis(600);

struct Stage {
    python: String,
    exchange: Exchange,
    telegram: BotApi,
    webhook: Hook,
    folder: Folder,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_theft_is_told_through_a_crash() {
    let Some(python) = python_with("ccxt") else { return };
    let stage = Stage::set(python).await;
    let watcher = stage.folder.run();
    stage.folder.until_proved().await;
    stage.pair().await;
    every_order_of_the_bot_is_matched(&stage).await;
    let mut bot = stage.bot("local", "told");
    let stop = bot.says("stop", 1).await.as_i64().unwrap();
    bot.says("round", 2).await;
    the_theft_is_told_and_acknowledged(&stage, stop).await;
    let watcher = the_crash_loses_nothing(&stage, watcher, &mut bot).await;
    bot.end().await;
    only_the_thief_was_alarmed(&stage, stop).await;
    acknowledge_all(&stage.folder).await;
    assert!(watcher.terminate().await.success(), "it did not end well");
    assert!(stage.folder.log().contains("Everything is on disk."));
    the_journal_is_whole_and_a_flipped_byte_is_found(&stage).await;
    no_secret_was_told(&stage);
}

impl Stage {
    async fn set(python: String) -> Self {
        let exchange = Exchange::start().await;
        let (telegram, webhook) = (BotApi::start().await, Hook::start().await);
        let config = include_str!("daemon/countersign.toml")
            .replace("WS", &exchange.ws)
            .replace("REST", &exchange.rest)
            .replace("TELEGRAM", telegram.url().as_str())
            .replace("WEBHOOK", webhook.url().as_str());
        let watch = exchange.key("main/watch");
        let folder = Folder::new(
            &config,
            &[
                ("watch.key", &watch.api_key),
                ("watch.secret", &watch.secret),
                ("tag.secret", TAG_SECRET),
                ("grid.secret", GRID_SECRET),
                ("telegram.token", bot_api::TOKEN),
                ("code.secret", CODE_SECRET),
                ("webhook.secret", std::str::from_utf8(hook::SECRET).unwrap()),
            ],
        );
        Self { python, exchange, telegram, webhook, folder }
    }

    async fn pair(&self) {
        let (answer, status) = self.folder.ask(&["pair"]).await;
        assert_eq!(status, 0, "{answer}");
        self.say(&format!("/pair {}", answer["code"].as_str().unwrap()));
        self.telegram.until("the pairing", |sent| sent.iter().any(|sent| sent.text.contains("paired"))).await;
    }

    fn say(&self, text: &str) {
        self.telegram.say(OWNER, clock::wall().millis() / 1_000, text);
    }

    fn bot(&self, policy: &str, until: &str) -> Bot {
        let key = self.exchange.key("main/bot");
        let settings = json!({
            "rest": self.exchange.rest, "api_key": key.api_key, "secret": key.secret, "tag_secret": GRID_SECRET,
            "socket": self.folder.path("data/intake.sock"), "policy": policy, "until": until,
        });
        Bot::start(&self.python, &settings)
    }

    /// Until each of the bot's orders in the ledger is matched.
    async fn until_all_is_matched(&self) {
        let made = orders_by(&self.exchange.ledger().await, "ccxt-bot").len();
        let all = |status: &Value| status["orders"]["matched"] == made && status["orders"]["pending"] == 0;
        self.folder.until_status(&format!("the bot's {made} orders are not all matched"), all).await;
    }

    /// Until both channels have named each of these orders.
    async fn until_named(&self, orders: &[Order]) {
        for order in orders {
            let what = format!("{order:?}");
            self.telegram.until(&what, |sent| sent.iter().any(|sent| order.is_named_in(&sent.text))).await;
            self.webhook.until(&what, |body| order.is_named_in(&body.to_string())).await;
        }
    }

    async fn stolen(&self) -> Vec<Order> {
        orders_by(&self.exchange.ledger().await, "thief")
    }
}

/// Limit, market and stop orders, cancels, refused orders, some filled in part.
async fn every_order_of_the_bot_is_matched(stage: &Stage) {
    let done = stage.bot("send", "once").end().await;
    assert_eq!(done, json!({ "refused": 3, "unsent": 2 }));
    stage.until_all_is_matched().await;
    let orders = orders_by(&stage.exchange.ledger().await, "ccxt-bot");
    assert!(orders.iter().any(|order| order.partly_filled) && orders.len() >= 13, "{orders:#?}");
    assert_eq!(stage.folder.incidents().await, json!([]));
    let (status, code) = stage.folder.ask(&["status"]).await;
    assert_eq!((code, &status["status"]["open_incidents"]), (0, &json!(0)));
}

/// Four sales through a thin pair and an id used again; then a stop of the bot is cancelled.
async fn the_theft_is_told_and_acknowledged(stage: &Stage, stop: i64) {
    let thief = stage.exchange.client("thief");
    let plan = Plan {
        thin_symbol: "VIABTC".to_owned(),
        orders: 4,
        quantity: "2000".to_owned(),
        bot_symbol: "ETHUSDT".to_owned(),
    };
    let loot = steal(&thief, &plan).await.unwrap();
    assert_eq!((loot.orders.len(), loot.replayed.is_some()), (5, true));
    let target = stop.to_string();
    thief.signed(Method::DELETE, "/api/v3/order", &[("symbol", "BTCUSDT"), ("orderId", &target)]).await.unwrap();
    stage.until_named(&stage.stolen().await).await;
    let cancelled = |text: &str| {
        text.lines().any(|line| line.contains("cancelled, not your bot") && line.contains(&format!("(order {stop},")))
    };
    stage.telegram.until("the cancel", |sent| sent.iter().any(|sent| cancelled(&sent.text))).await;
    stage.webhook.until("the cancel", |body| cancelled(&body.to_string())).await;

    stage.say("/status");
    stage.telegram.until("the status", |sent| sent.iter().any(|sent| sent.text.contains("live and proved"))).await;
    let incidents = stage.folder.incidents().await;
    let incident = incidents[0]["incident"].as_u64().unwrap();
    assert_eq!(incidents.as_array().unwrap().len(), 1, "{incidents:#}");
    stage.say(&format!("/ack {incident}"));
    let edited = |sent: &bot_api::Sent| sent.method == "editMessageText" && sent.text.contains("ACKNOWLEDGED");
    stage.telegram.until("the card's edit", |sent| sent.iter().any(edited)).await;
    let acknowledged = |body: &Value| body["incident"] == incident && body["state"] == "acknowledged";
    stage.webhook.until("the acknowledgement", acknowledged).await;
}

/// The thief goes on through the crash, and so does the bot.
async fn the_crash_loses_nothing(stage: &Stage, watcher: Watcher, bot: &mut Bot) -> Watcher {
    let ends = CancellationToken::new();
    let stealing = tokio::spawn(steal_on(stage.exchange.client("thief"), ends.clone()));
    bot.says("round", 3).await;
    watcher.kill().await;
    let resting = rest_an_order(&stage.exchange.client("thief")).await;
    bot.says("round", 3).await;
    let watcher = stage.folder.run();
    stage.folder.until_proved().await;
    stage.say("/help");
    stage.telegram.until("the help", |sent| sent.iter().any(|sent| sent.text.contains("/incidents"))).await;
    let paired = |sent: &&bot_api::Sent| sent.text.contains("This chat is paired");
    assert_eq!(stage.telegram.delivered().iter().filter(paired).count(), 1, "an update was heard twice");
    bot.says("round", 3).await;
    ends.cancel();
    stealing.await.unwrap();
    let (from, to) = stage.gap().await;
    let stolen = stage.stolen().await;
    let seen: Vec<Order> =
        stolen.iter().filter(|order| order.sent && !(from..=to).contains(&order.at)).cloned().collect();
    assert!(stolen.len() > seen.len() && seen.iter().any(|order| order.at > to), "from {from} to {to}: {stolen:#?}");
    stage.until_named(&seen).await;
    // It was placed while nobody looked, and it still stands in the book.
    let resting: Vec<Order> = stolen.iter().filter(|order| order.id == resting).cloned().collect();
    stage.until_named(&resting).await;
    watcher
}

async fn steal_on(thief: RestClient, ends: CancellationToken) {
    while !ends.is_cancelled() {
        let order = [("symbol", "VIABTC"), ("side", "SELL"), ("type", "MARKET"), ("quantity", "40")];
        thief.place(&order).await.unwrap();
        tokio::select! {
            () = ends.cancelled() => {}
            () = tokio::time::sleep(THEFT_EVERY) => {}
        }
    }
}

async fn rest_an_order(thief: &RestClient) -> i64 {
    let order = [("symbol", "BTCUSDT"), ("side", "BUY"), ("type", "LIMIT"), ("timeInForce", "GTC")];
    let order = [&order[..], &[("quantity", "0.001"), ("price", "40000")]].concat();
    thief.place(&order).await.unwrap()["orderId"].as_i64().unwrap()
}

impl Stage {
    /// The gap as it was told on both channels: from and to, in milliseconds since the epoch.
    async fn gap(&self) -> (i64, i64) {
        let incidents = self.folder.incidents().await;
        let blind = incidents.as_array().unwrap().iter().find(|incident| incident["rule"] == "blind");
        let lines = blind.expect("the gap is an incident")["lines"].as_array().unwrap().clone();
        let told = lines.iter().find_map(|line| line["text"].as_str().filter(|text| text.starts_with("blind from ")));
        let told = told.expect("the gap says from when to when").to_owned();
        self.telegram.until("the gap", |sent| sent.iter().any(|sent| sent.text.contains(&told))).await;
        self.webhook.until("the gap", |body| body.to_string().contains(&told)).await;
        let (from, to) = told["blind from ".len()..].split_once(" to ").unwrap();
        (millis(from), millis(&to[..from.len()]))
    }
}

fn millis(utc: &str) -> i64 {
    let time: jiff::Timestamp = format!("{}Z", utc.replace(' ', "T")).parse().unwrap();
    time.as_millisecond()
}

/// Beside the gap no incident but the thief's, and no line of it is about what the bot did.
async fn only_the_thief_was_alarmed(stage: &Stage, stop: i64) {
    stage.until_all_is_matched().await;
    let ledger = stage.exchange.ledger().await;
    let stolen = orders_by(&ledger, "thief");
    let of_the_bot = orders_by(&ledger, "ccxt-bot");
    let incidents = stage.folder.incidents().await;
    for incident in incidents.as_array().unwrap().iter().filter(|incident| incident["rule"] != "blind") {
        let lines: Vec<&str> =
            incident["lines"].as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap()).collect();
        let of_the_thief = stolen.iter().any(|order| lines.iter().any(|line| order.is_named_in(line)));
        assert!(of_the_thief || incident["lines_left_out"] != 0, "a false alarm: {incident:#}");
        for order in of_the_bot.iter().filter(|order| order.id != stop) {
            assert!(!lines.iter().any(|line| order.is_named_in(line)), "{order:?} is the bot's: {incident:#}");
        }
    }
    let status = stage.folder.until_status("no status", |status| !status.is_null()).await;
    assert_eq!(status["bots"][0]["missing_records"], 0, "{status:#}");
    assert_eq!(stage.webhook.unsigned(), 0);
}

/// More of what is acknowledged is a message of its own, which goes out even where the minute's edits are used up.
async fn acknowledge_all(folder: &Folder) {
    for incident in folder.incidents().await.as_array().unwrap() {
        let (id, shown) = (incident["incident"].to_string(), incident["revision"].to_string());
        if incident["state"] == "open" {
            let (answer, status) = folder.ask(&["ack", &id, "--shown", &shown]).await;
            assert_eq!((status, &answer["ok"]), (0, &json!(true)), "{answer}");
        }
    }
    let (status, code) = folder.ask(&["status"]).await;
    assert_eq!((code, &status["status"]["open_incidents"]), (0, &json!(0)), "{status:#}");
}

async fn the_journal_is_whole_and_a_flipped_byte_is_found(stage: &Stage) {
    let folder = &stage.folder;
    let (verified, status) = folder.ask(&["journal", "verify"]).await;
    assert_eq!((&verified["ok"], status), (&json!(true), 0), "{verified}");
    let file = folder.path("data/journal.sqlite");
    let (replayed, status) = folder.ask(&["replay", file.to_str().unwrap()]).await;
    assert_eq!((&replayed["differing"], status), (&json!(0), 0), "{replayed:#}");

    flip_a_byte(&file);
    let (verified, status) = folder.ask(&["journal", "verify"]).await;
    assert_eq!((&verified["ok"], status), (&json!(false), 1), "{verified}");
    let before = stage.stolen().await.len();
    let watcher = folder.run();
    folder.until_proved().await;
    let set_aside = |name: &str| name.starts_with("journal.broken-");
    assert!(
        fs::read_dir(folder.path("data")).unwrap().any(|entry| set_aside(entry.unwrap().file_name().to_str().unwrap()))
    );
    let broken = "The journal is broken";
    stage.telegram.until(broken, |sent| sent.iter().any(|sent| sent.text.contains(broken))).await;
    stage.webhook.until(broken, |body| body["rule"] == "broken_journal").await;
    let order = [("symbol", "VIABTC"), ("side", "SELL"), ("type", "MARKET"), ("quantity", "40")];
    stage.exchange.client("thief").place(&order).await.unwrap();
    stage.until_named(&stage.stolen().await[before..]).await;
    assert!(watcher.terminate().await.success());
    let (verified, status) = folder.ask(&["journal", "verify"]).await;
    assert_eq!((&verified["ok"], status), (&json!(true), 0), "{verified}");
}

/// In the last state that was written whole, from which a start begins.
fn flip_a_byte(file: &std::path::Path) {
    let mut bytes = fs::read(file).unwrap();
    let mark = br#"{"event":"restored""#;
    let place = bytes.windows(mark.len()).rposition(|window| window == mark).unwrap() + mark.len() + 20;
    bytes[place] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn no_secret_was_told(stage: &Stage) {
    let mut told = vec![("the log".to_owned(), stage.folder.log().into_bytes())];
    for entry in fs::read_dir(stage.folder.path("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            told.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    let messages: String = stage.telegram.requests().into_iter().map(|sent| sent.text).collect();
    told.push(("Telegram".to_owned(), messages.into_bytes()));
    let bodies: String = stage.webhook.received().into_iter().map(|received| received.body.to_string()).collect();
    told.push(("the webhook".to_owned(), bodies.into_bytes()));
    let (watch, bot) = (stage.exchange.key("main/watch").secret, stage.exchange.key("main/bot").secret);
    let secrets = [watch.as_bytes(), bot.as_bytes(), bot_api::TOKEN.as_bytes(), hook::SECRET];
    let secrets = [&secrets[..], &[TAG_SECRET, GRID_SECRET, CODE_SECRET].map(str::as_bytes)].concat();
    for (where_to, bytes) in &told {
        for secret in &secrets {
            let found = bytes.windows(secret.len()).position(|window| window == *secret);
            let around = found.map(|at| String::from_utf8_lossy(&bytes[at.saturating_sub(200)..at]).into_owned());
            assert!(found.is_none(), "{where_to} shows {}…: {around:?}", String::from_utf8_lossy(&secret[..6]));
        }
    }
}
