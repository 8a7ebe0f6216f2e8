//! The kill switch, with real processes and real sockets: the daemon and its owner's commands are the built program, the
//! simulated exchange's ledger is the judge. A theft must end, proved, whatever else fails: the chat, the disk, the
//! names, the daemon itself.
//!
//! `COUNTERSIGN_STOP_KILLS` and `COUNTERSIGN_SEED` make longer and other runs of the kill -9.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "a test plays the outside's part: it spawns, and reads the clock")]

#[path = "stopping/alone.rs"]
mod alone;
#[path = "stopping/budget.rs"]
mod budget;
#[path = "stopping/claims.rs"]
mod claims;
#[path = "stopping/crash.rs"]
mod crash;
#[path = "stopping/faults.rs"]
mod faults;
#[path = "stopping/fund.rs"]
mod fund;
#[path = "stopping/memory.rs"]
mod memory;
#[path = "stopping/money.rs"]
mod money;
#[path = "stopping/stranger.rs"]
mod stranger;
mod support;

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use countersign::clock;
use countersign::kernel::time::Time;
use countersign::sim::client::ClientError;
use countersign::sim::config::SimConfig;
use countersign::sim::thief::{Plan, steal};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use support::arms::{Said, TOTP_SECRET, WITHIN, lines};
use support::bot_api::{BotApi, Sent};
use support::journal;
use support::stage::Stage;
use support::trader::Trader;

const BOT: &str = "maker";

/// A market that stands still, so that what rests goes on resting.
fn still(seed: u64) -> SimConfig {
    SimConfig { price_step: None, ..SimConfig::demo(seed, 1, clock::wall) }
}

/// A stage that may act at its owner's word.
async fn armed(seed: u64, api: Option<&BotApi>) -> Stage {
    let stage = Stage::open(still(seed)).await;
    stage.write_config(&[BOT], api, None);
    stage.arm("ask", 1, "");
    stage
}

/// A bot that has one order resting, and beats for as long as this is kept.
struct Bot {
    order: i64,
    _beating: JoinSet<()>,
}

async fn bot_with_an_order(stage: &Stage) -> Bot {
    bot_of(stage, None).await
}

/// The same, of a bot that falls silent when its process ends.
async fn bot_of(stage: &Stage, process: Option<&Child>) -> Bot {
    let mut trader = Trader::new(BOT, stage.client(BOT), stage.intake(), Duration::from_millis(10));
    trader.limit("BTCUSDT", "BUY", "55000", "0.002").await;
    let matched = |status: &Value| status["orders"]["matched"] == 1 && status["orders"]["pending"] == 0;
    stage.until("the bot's order is matched", WITHIN, matched).await;
    let [order] = stage.open_orders().await[..] else { panic!("one order rests") };
    let mut beating = JoinSet::new();
    let process = process.and_then(Child::id);
    beating.spawn(async move {
        while process.is_none_or(lives) {
            trader.beat_for(Duration::from_millis(100)).await;
        }
    });
    Bot { order, _beating: beating }
}

/// One that has ended and was not waited for yet is a zombie.
fn lives(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn until_strangers(stage: &Stage, count: usize) {
    let all = |status: &Value| status["orders"]["strangers"] == count;
    stage.until(&format!("{count} orders of a stranger"), WITHIN, all).await;
}

fn one_time_password(in_steps: u64) -> String {
    let secret = totp_rs::Secret::try_from_base32(TOTP_SECRET).unwrap();
    let totp = totp_rs::Builder::new().with_secret(secret).with_account_name("main").build().unwrap();
    let now = u64::try_from(clock::wall().millis()).unwrap() / 1_000;
    totp.generate(now + 30 * in_steps).to_string()
}

/// The exchange's code for the next order with the stolen key.
async fn refused_with(stage: &Stage) -> Option<i64> {
    let order = [("symbol", "BTCUSDT"), ("side", "SELL"), ("type", "MARKET"), ("quantity", "0.001")];
    match stage.client("somebody-else").place(&order).await {
        Ok(_) => None,
        Err(ClientError::Refused { code, .. }) => Some(code),
        Err(other) => panic!("{other}"),
    }
}

/// The end does not wait for the bot's silence, and its proof does.
fn is_contained(progress: &Value) -> bool {
    progress["word"] == "contained" && progress["bot_is_being_stopped"].is_null()
}

fn check_contained(progress: &Value) {
    assert_eq!((&progress["word"], &progress["end"]), (&json!("contained"), &json!("contained")), "{progress:#}");
    for clock in ["blocked_ms", "orders_gone_ms", "ended_ms"] {
        assert!(progress[clock].as_i64().unwrap() >= 0, "{clock}: {progress:#}");
    }
    let steps = progress["steps"].as_array().unwrap();
    assert!(steps.iter().all(|step| step["state"] == "proved"), "{progress:#}");
    let told = lines(progress);
    for proof in ["key bot: the exchange's list does not show it", "key bot: dead: -", "new orders are blocked"] {
        assert!(told.contains(proof), "{proof}: {told}");
    }
}

/// A kill's one effect on the stolen key.
const KILLED: [&str; 2] = ["master/admin KEY_PERMISSIONS main/bot", "master/admin KEY_DELETED main/bot"];

/// What the exchange itself says of a contained account.
async fn check_ledger(stage: &Stage, spared: i64, stolen: &[i64]) {
    assert_eq!(stage.done_to_keys().await, KILLED);
    assert_eq!(stage.open_orders().await, [spared], "the bot's order alone still stands");
    assert_eq!(stage.cancels_of(spared).await, [""; 0]);
    for order in stolen {
        assert_eq!(stage.cancels_of(*order).await, ["main/cancel"], "order {order}");
    }
    assert_eq!(refused_with(stage).await, Some(-2015), "the stolen key is dead");
}

/// A thief's own stop order: of the type that would be a bot's protection.
async fn protective_looking(stage: &Stage) -> i64 {
    let order = [
        ("symbol", "BTCUSDT"),
        ("side", "SELL"),
        ("type", "STOP_LOSS_LIMIT"),
        ("timeInForce", "GTC"),
        ("quantity", "0.001"),
        ("price", "39900"),
        ("stopPrice", "40000"),
    ];
    stage.client("somebody-else").place(&order).await.unwrap()["orderId"].as_i64().unwrap()
}

/// A process that stands for the bot's, and the table that stops it.
fn bot_process() -> (Child, String) {
    let bot = Command::new("sleep").arg("3600").kill_on_drop(true).spawn().unwrap();
    let argv = json!(["/bin/sh", "-c", "kill \"$0\"", bot.id().unwrap().to_string()]);
    (bot, format!("[[containment.stop]]\nname = \"process\"\ncommand = {argv}\n"))
}

fn is_contained_card(sent: &Sent) -> bool {
    let parts = [
        "CONTAINED (asked for by operator)",
        "New orders blocked: after ",
        "Strangers' orders gone: after ",
        "key bot: dead: -",
        "read twice: no order is open but one that is spared",
        "the bot was stopped by process",
    ];
    parts.iter().all(|part| sent.text.contains(part))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_ends_the_theft_and_proves_it() {
    let api = BotApi::start().await;
    let stage = Stage::open(still(1)).await;
    stage.write_config(&[BOT], Some(&api), None);
    let (mut bot, stop) = bot_process();
    stage.arm("ask", 1, &stop);
    let daemon = stage.run();
    stage.until_proved().await;
    stage.pair(&api).await;
    let none = stage.countersign(&["containment"], "").await;
    assert!(none.out.contains("nothing was contained yet"), "{none:?}");
    let trading = bot_of(&stage, Some(&bot)).await;
    let plan = Plan {
        thin_symbol: "VIABTC".to_owned(),
        orders: 3,
        quantity: "2000".to_owned(),
        bot_symbol: "BTCUSDT".to_owned(),
    };
    assert_eq!(steal(&stage.client("somebody-else"), &plan).await.unwrap().orders.len(), 3);
    let mut stolen = stage.rest_foreign(3).await;
    stolen.push(protective_looking(&stage).await);
    until_strangers(&stage, 7).await;

    let shown = stage.countersign(&["kill", "main", "--plan", "--json", "--incident", "99999"], "").await;
    assert!(shown.status == 0 && shown.err.contains("there is no incident 99999"), "{shown:?}");
    assert!(shown.json()["steps"].as_array().unwrap().iter().all(|step| step["state"] == "waiting"), "{shown:?}");
    let unsaid = stage.countersign(&["kill", "main"], "main\n").await;
    assert!(unsaid.status == 1 && unsaid.err.contains("hint: --yes says so"), "{unsaid:?}");
    assert_eq!(stage.done_to_keys().await, [""; 0], "nothing was done so far");

    let killed = stage.countersign(&["kill", "main", "--yes", "--json"], "").await;
    assert_eq!(killed.status, 0, "{killed:?}");
    check_contained(&killed.json());
    check_ledger(&stage, trading.order, &stolen).await;
    check_clocks(&stage, &killed.json()).await;
    let ended = tokio::time::timeout(WITHIN, bot.wait()).await.expect("the bot's process was stopped").unwrap();
    assert_eq!(ended.signal(), Some(15));
    api.until("the card of the containment", |sent| sent.iter().any(is_contained_card)).await;
    let again = stage.countersign(&["containment", "--json"], "").await;
    assert_eq!((again.status, again.json()), (0, killed.json()));
    println!("contained: {}", clocks(&killed));
    assert!(daemon.stop().await.success());
    let replayed = journal::replay(&stage.journal()).unwrap();
    assert_eq!(replayed.differing, 0, "{:#?}", replayed.differences);
}

/// A clock that stops before the exchange did it would be a lie.
async fn check_clocks(stage: &Stage, progress: &Value) {
    let ledger = stage.ledger().await;
    let last = |is_so: fn(&Value) -> bool| {
        let rows = ledger.iter().filter(|row| is_so(row));
        rows.map(|row| row["at"].as_i64().unwrap()).max().unwrap()
    };
    let started: Time = serde_json::from_value(progress["started_at"].clone()).unwrap();
    let stopped = |clock: &str| started.millis() + progress[clock].as_i64().unwrap();
    let frozen = last(|row| row["kind"] == "KEY_PERMISSIONS");
    let gone = last(|row| row["kind"] == "CANCELED" && row["key"] == "main/cancel");
    assert!(stopped("blocked_ms") >= frozen, "{progress:#}: frozen at {frozen}");
    assert!(stopped("orders_gone_ms") >= gone, "{progress:#}: the last cancel was at {gone}");
}

fn clocks(killed: &Said) -> String {
    let progress = killed.json();
    format!("blocked after {} ms, orders gone after {} ms", progress["blocked_ms"], progress["orders_gone_ms"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_taps_on_the_phone_end_the_theft() {
    let api = BotApi::start().await;
    let stage = armed(3, Some(&api)).await;
    let _daemon = stage.run();
    stage.until_proved().await;
    stage.pair(&api).await;
    let trading = bot_with_an_order(&stage).await;
    let stolen = stage.rest_foreign(2).await;
    until_strangers(&stage, 2).await;

    tap(&api, "Kill").await;
    assert_eq!(stage.done_to_keys().await, [""; 0], "one tap only asks");
    tap(&api, "Yes, kill main").await;
    let progress = stage.until_contained("contained", WITHIN, is_contained).await;
    check_contained(&progress);
    check_ledger(&stage, trading.order, &stolen).await;
    let by = format!("CONTAINED (asked for by Telegram user {}", support::stage::OWNER);
    let told =
        |sent: &[Sent]| sent.iter().any(|sent| sent.text.contains(&by) && sent.text.contains("key bot: dead: -"));
    api.until("the card of the containment", told).await;
}

/// Presses the newest button of this label, as it stands on the phone now. A press that comes before Telegram's own answer
/// on that message, which no thumb manages, is refused: then it is pressed again.
async fn tap(api: &BotApi, label: &str) {
    let owner = i64::try_from(support::stage::OWNER).unwrap();
    let has = |sent: &Sent| sent.buttons.iter().any(|(known, _)| known == label);
    let too_early = |sent: &[Sent]| sent.iter().filter(|sent| sent.text.contains("has not told us yet")).count();
    let sent = api.until(&format!("a button {label:?}"), |sent| sent.iter().any(has)).await;
    let message = sent.iter().rfind(|sent| has(sent)).unwrap().message;
    loop {
        let refused = too_early(&api.requests());
        let buttons = api.buttons_of(owner, message);
        let (_, data) =
            buttons.iter().find(|(known, _)| known == label).unwrap_or_else(|| panic!("{label}: {buttons:?}"));
        let answered = api.answered().len();
        api.press(owner, message, data);
        api.until("the press is answered", |_| api.answered().len() > answered).await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        if too_early(&api.requests()) == refused {
            return;
        }
    }
}

/// The daemon does not even run: what means nothing is no matter of its.
#[tokio::test]
async fn what_means_nothing_is_wrong_usage() {
    let stage = armed(3, None).await;
    let manual = |side, notional, orders, span| {
        let named =
            ["manual", "main", "--symbol", "BTCUSDT", "--why", "by hand", "--side", side, "--notional", notional];
        [&named[..], &["--orders", orders, "--for", span]].concat()
    };
    for (what, arguments, status) in [
        ("nothing wrong but the daemon", vec!["flatten", "main", "--to", "USDT", "--why", "closed"], 1),
        ("no per cent", vec!["flatten", "main", "--to", "USDT", "--why", "closed", "--within", "2"], 2),
        ("no span", vec!["allow", "main", "203.0.113.7", "the office", "--for", "3w"], 2),
        ("no address", vec!["allow", "main", "home", "the office"], 2),
        ("no span of a disarm", vec!["disarm", "main", "the audit", "--for", "soon"], 2),
        ("99 orders", manual("BUY", "2000USDT", "99", "30m"), 2),
        ("no side", manual("UP", "2000USDT", "3", "30m"), 2),
        ("no asset", manual("BUY", "2000", "3", "30m"), 2),
        ("too long", manual("BUY", "2000USDT", "3", "9h"), 2),
    ] {
        let said = stage.countersign(&arguments, "").await;
        assert_eq!(said.status, status, "{what}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_is_taken_back_with_a_one_time_password() {
    let stage = armed(2, None).await;
    let _daemon = stage.run();
    stage.until_proved().await;
    let early = stage.countersign(&["resume", "main", "--why", "it was a test"], &one_time_password(0)).await;
    assert!(early.status == 1 && early.err.contains("nothing was frozen"), "{early:?}");

    // A label that nobody knows holds up no emergency.
    let frozen = stage.countersign(&["freeze", "main", "--yes", "--json", "--incident", "99999"], "").await;
    assert_eq!((frozen.status, &frozen.json()["word"]), (0, &json!("frozen")), "{frozen:?}");
    assert!(frozen.err.contains("there is no incident 99999: it is told without one"), "{frozen:?}");
    assert_eq!(refused_with(&stage).await, Some(-2015), "a frozen key trades no more");
    let reads = stage.client("bot").open_orders(None).await;
    assert!(reads.is_ok(), "it is still a key: {reads:?}");

    for (code, words) in [("123", "the one-time password is wrong"), ("", "no one-time password was given")] {
        let refused = stage.countersign(&["resume", "main", "--why", "it was a test"], code).await;
        assert!(refused.status == 1 && refused.err.contains(words), "{words}: {refused:?}");
    }
    assert_eq!(refused_with(&stage).await, Some(-2015));
    // Of the next step, which is right already, so that it is right for a minute at least.
    let code = one_time_password(1);
    let resumed =
        stage.countersign(&["resume", "main", "--why", "it was a test", "--json"], &format!("{code}\n")).await;
    assert_eq!((resumed.status, &resumed.json()["word"]), (0, &json!("released")), "{resumed:?}");
    assert_eq!(refused_with(&stage).await, None, "it trades again");

    let frozen = stage.countersign(&["freeze", "main", "--yes", "--json"], "").await;
    assert_eq!(frozen.status, 0, "{frozen:?}");
    let used = stage.countersign(&["resume", "main", "--why", "it was a test"], &code).await;
    assert!(used.status == 1 && used.err.contains("was used already"), "{used:?}");
    let change = "master/admin KEY_PERMISSIONS main/bot";
    assert_eq!(stage.done_to_keys().await, [change; 3]);
}
