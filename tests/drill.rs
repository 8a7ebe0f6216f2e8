//! The drill, and the look at countersign's own keys, through the real daemon: a process, an exchange, two channels.

#![expect(clippy::disallowed_methods, reason = "a test plays the outside's part: it spawns, and reads the clock")]

mod support;

use std::time::Duration;

use countersign::inlet::operator::OperatorCommand;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::bot_api::BotApi;
use crate::support::hook::Hook;
use crate::support::journal;
use crate::support::stage::{Stage, write_private};

const WITHIN: Duration = Duration::from_secs(20);
/// The first account of the simulated exchange.
const ACCOUNT: u64 = 1_000_001;

/// A command of the built program, with what it printed as JSON, said on stderr, and its exit status.
async fn countersign(stage: &Stage, arguments: &[&str]) -> (Value, String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.arg("--config").arg(stage.config()).arg("--json").args(arguments);
    let output = command.output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), said, output.status.code().unwrap())
}

async fn incident(stage: &Stage, rule: &str) -> Value {
    let answer = stage.ask(&OperatorCommand::Incidents).await.unwrap();
    let incidents = answer["incidents"].as_array().unwrap().clone();
    incidents.into_iter().find(|incident| incident["rule"] == rule).unwrap_or_default()
}

async fn until_state(stage: &Stage, rule: &str, state: &str) -> Value {
    let deadline = tokio::time::Instant::now() + 2 * WITHIN;
    loop {
        let found = incident(stage, rule).await;
        if found["state"] == state {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{rule} is not {state}: {found:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_reaches_every_channel_marked_and_timed() {
    let (telegram, hook) = (BotApi::start().await, Hook::start().await);
    let stage = Stage::set(11, &["maker"], Some(&telegram), Some(&hook.url())).await;
    let daemon = stage.run();
    stage.until_proved().await;
    stage.pair(&telegram).await;

    let (told, said, status) = countersign(&stage, &["drill"]).await;
    println!("{told:#}");
    assert_eq!((status, &told["passed"]), (0, &json!(true)), "{told:#} {said}");
    let hop = |value: &Value| value.as_i64().unwrap_or_else(|| panic!("{told:#}"));
    let channels = told["channels"].as_array().unwrap();
    assert_eq!(channels.len(), 2);
    for channel in channels {
        let way =
            [&told["judged_us"], &told["journalled_us"], &channel["handed_us"], &channel["delivered_us"]].map(hop);
        assert!(way.is_sorted() && way[0] > 0 && way[3] <= 5_000_000, "{told:#}");
    }
    hook.until("the drill", |body| {
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        body["drill"] == json!(true)
            && text("headline").starts_with("DRILL ")
            && text("rule") == "drill"
            && body["orders"] == 0
            && body["notional"] == json!({})
    })
    .await;
    let marked = |text: &str| text.contains("DRILL · CRITICAL") && text.contains("nothing happened");
    telegram.until("the drill", |sent| sent.iter().any(|sent| marked(&sent.text))).await;

    let (_, said, status) = countersign(&stage, &["drill"]).await;
    assert!(status == 1 && said.contains("a drill is under way"), "{said}");
    let counted = stage.ask(&OperatorCommand::Status).await.unwrap()["status"].clone();
    assert_eq!((&counted["open_incidents"], &counted["orders"]["strangers"]), (&json!(0), &json!(0)), "{counted:#}");
    assert_eq!(countersign(&stage, &["status"]).await.2, 0);

    until_state(&stage, "drill", "ended").await;
    // A channel that takes nothing makes the next one fail.
    (0..50).for_each(|_| hook.next(502));
    let (told, _, status) = countersign(&stage, &["drill"]).await;
    assert_eq!((status, &told["passed"]), (1, &json!(false)), "{told:#}");
    let webhook = told["channels"].as_array().unwrap().iter().find(|leg| leg["channel"] == "webhook").unwrap();
    assert!(webhook["delivered_us"].is_null() && webhook["failure"].as_str().is_some(), "{told:#}");
    daemon.kill().await;
    let rows = journal::rows(&stage.journal());
    let drills: Vec<&journal::Row> = rows.iter().filter(|row| row.is("drill")).collect();
    assert_eq!(drills.len(), 3, "two that ran, and one that was refused");
    assert!(drills.iter().all(|row| row.body["raw"].as_str().unwrap().contains("countersign-drill")));
    journal::replay(&stage.journal()).unwrap();
}

/// A sub-account's key that nobody needs, made with the exchange's own control plane.
async fn throw_away_key(stage: &Stage, file: &str) -> String {
    let wanted = json!({ "account": ACCOUNT, "name": "fire-drill", "permissions": ["reading", "spot_trading"] });
    let made = stage.control("keys", &wanted).await;
    write_private(&stage.folder.path().join(file), made["api_key"].as_str().unwrap());
    made["name"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_kills_the_throw_away_key_alone_and_proves_it() {
    let hook = Hook::start().await;
    let stage = Stage::set(13, &["maker"], None, Some(&hook.url())).await;
    let name = throw_away_key(&stage, "drill.key").await;
    stage.arm("ask", 1, "[[containment.key]]\nname = \"fire-drill\"\napi_key = \"file:drill.key\"\ndrill = true\n");
    let daemon = stage.run();
    let stopping = stage.until_proved().await["stopping"].clone();

    let (told, said, status) = countersign(&stage, &["drill", "--kill"]).await;
    println!("{:#}", told["kill"]);
    assert_eq!((status, &told["passed"]), (0, &json!(true)), "{told:#} {said}");
    let hops = ["alive_us", "blocked_us", "deleted_us", "gone_us", "dead_us", "ended_us"];
    let hops = hops.map(|hop| told["kill"][hop].as_i64().unwrap_or_else(|| panic!("{hop}: {told:#}")));
    assert!(hops.is_sorted() && hops[0] > 0, "{told:#}");
    // The exchange's own word: one key was touched, by the key of its master, and twice.
    let done = ["KEY_PERMISSIONS", "KEY_DELETED"].map(|kind| format!("master/admin {kind} {name}"));
    let by_keys: Vec<String> =
        stage.done_to_keys().await.into_iter().filter(|row| !row.starts_with("script ")).collect();
    assert_eq!(by_keys, done);
    let order = [("symbol", "BTCUSDT"), ("side", "BUY"), ("type", "LIMIT"), ("timeInForce", "GTC")];
    let order = [&order[..], &[("quantity", "0.001"), ("price", "30000")]].concat();
    assert!(stage.client("maker").place(&order).await.is_ok(), "the bot's key trades on");
    hook.until("the end of the drill's key", |body| {
        body["drill"] == json!(true) && body["contained"]["word"] == "drill: the key is proved dead"
    })
    .await;

    let none = stage.ask(&OperatorCommand::Containment).await.unwrap();
    assert!(none["containment"].is_null(), "no real containment stands there: {none:#}");
    until_state(&stage, "drill", "ended").await;
    let (_, said, status) = countersign(&stage, &["drill", "--kill"]).await;
    assert!(status == 1 && said.contains("no drill key: make a new one and declare it"), "{said}");
    let after = stage.ask(&OperatorCommand::Status).await.unwrap()["status"]["stopping"].as_str().unwrap().to_owned();
    assert_eq!(
        after.strip_prefix(stopping.as_str().unwrap()).unwrap().split(" (").next(),
        Some("; no drill key: make a new one and declare it")
    );
    assert!(daemon.stop().await.success());
    let replayed = journal::replay(&stage.journal()).unwrap();
    assert_eq!(replayed.differing, 0, "{:#?}", replayed.differences);

    // A new one, and at once again.
    let name = throw_away_key(&stage, "drill.key").await;
    let _daemon = stage.run();
    stage.until_proved().await;
    let (told, said, status) = countersign(&stage, &["drill", "--kill"]).await;
    assert_eq!((status, &told["kill"]["proved"]), (0, &json!(true)), "{told:#} {said}");
    assert!(stage.done_to_keys().await.contains(&format!("master/admin KEY_DELETED {name}")));
    assert_eq!(incident(&stage, "keys_differ").await, Value::Null, "a drilled key that is gone is no finding");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_key_that_may_trade_is_told_on_every_channel_until_it_is_replaced() {
    let hook = Hook::start().await;
    let stage = Stage::set(12, &["maker"], None, Some(&hook.url())).await;
    let fine =
        ["watch.key", "watch.secret"].map(|name| std::fs::read_to_string(stage.folder.path().join(name)).unwrap());
    let keep = |api_key: &str, secret: &str| {
        write_private(&stage.folder.path().join("watch.key"), api_key);
        write_private(&stage.folder.path().join("watch.secret"), secret);
    };
    let url = format!("http://{}/sim/v1/keys", stage.exchange);
    let wanted = json!({ "account": ACCOUNT, "name": "both", "permissions": ["reading", "spot_trading"] });
    let made = support::client().post(url).body(wanted.to_string()).send().await.unwrap().text().await.unwrap();
    let made: Value = serde_json::from_str(&made).unwrap();
    keep(made["api_key"].as_str().unwrap(), made["secret"].as_str().unwrap());

    let daemon = stage.run();
    stage.until_proved().await;
    hook.until("the wrong key", |body| body["rule"] == "credential_wrong" && body["priority"] == "critical").await;
    let told = until_state(&stage, "credential_wrong", "open").await;
    assert!(told["lines"][0]["text"].as_str().unwrap().contains("the watch key may trade"), "{told:#}");
    assert!(told["advice"][0].as_str().unwrap().contains("untick"), "{told:#}");
    let (status, _, code) = countersign(&stage, &["status"]).await;
    assert_eq!((code, &status["status"]["credentials"][0]["outcome"]["is"]), (1, &json!("wrong")), "{status:#}");
    assert!(daemon.stop().await.success());

    keep(&fine[0], &fine[1]);
    let daemon = stage.run();
    stage.until_proved().await;
    until_state(&stage, "credential_wrong", "ended").await;
    let is_fine = |status: &Value| status["credentials"][0]["outcome"]["is"] == "fine";
    stage.until("fine", WITHIN, is_fine).await;
    daemon.kill().await;
}
