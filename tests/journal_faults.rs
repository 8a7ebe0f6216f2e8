//! What the daemon does when its journal cannot be written, is broken, or is somebody else's: it watches on, says so,
//! acknowledges nothing that is not on disk, and overwrites nothing.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "a test plays the outside's part: it spawns, and reads the clock")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use countersign::clock;
use countersign::sim::client::RestClient;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use support::bot_api::BotApi;
use support::hook::Hook;
use support::journal;
use support::stage::Stage;
use support::trader::Trader;

const BOT: &str = "maker";

async fn stage(api: Option<&BotApi>, hook: &Hook) -> Stage {
    Stage::set(1, &[BOT], api, Some(&hook.url())).await
}

fn trader(stage: &Stage) -> Trader {
    Trader::new(BOT, stage.client(BOT), stage.intake(), Duration::from_millis(10))
}

async fn steal(thief: &RestClient) -> String {
    let order = [("symbol", "VIABTC"), ("side", "SELL"), ("type", "MARKET"), ("quantity", "1500")];
    format!("(order {},", thief.place(&order).await.unwrap()["orderId"])
}

fn says(body: &Value, part: &str) -> bool {
    let mut lines = body["lines"].as_array().into_iter().flatten();
    lines.any(|line| line["text"].as_str().is_some_and(|text| text.contains(part)))
}

/// One line to the intake, and the answer.
async fn ask(stage: &Stage, record: &Value) -> Value {
    let (source, mut sink) = UnixStream::connect(stage.intake()).await.unwrap().into_split();
    sink.write_all(format!("{record}\n").as_bytes()).await.unwrap();
    let answer = BufReader::new(source).lines().next_line().await.unwrap().unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_delays_no_alert_and_acknowledges_nothing() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let stage = stage(Some(&api), &hook).await;
    let daemon = stage.run();
    stage.until_proved().await;
    stage.pair(&api).await;
    let mut trader = trader(&stage);
    trader.round(0).await;

    let wal = PathBuf::from(format!("{}-wal", stage.journal().display()));
    daemon.limit_files(Some(fs::metadata(wal).unwrap().len()));
    let began = Instant::now();
    let order = steal(&stage.client("somebody-else")).await;
    let received = hook.until("the alert", |body| says(body, &order)).await;
    let alert = received.iter().find(|received| says(&received.body, &order)).unwrap();
    assert!(alert.at - began < Duration::from_millis(1_500), "the alert took {:?}", alert.at - began);
    assert_eq!(alert.body["unjournalled"], true, "{}", alert.body);
    api.until("the alert", |sent| {
        sent.iter().any(|sent| sent.text.contains(&order) && sent.text.contains("before it was in the journal"))
    })
    .await;
    hook.until("the finding", |body| body["rule"] == "unjournalled").await;
    let place = json!({
        "v": 1, "account": "main", "bot": BOT, "kind": "place", "seq": trader.seq() + 1, "at": clock::wall().millis(),
        "symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.001",
    });
    let refused = ask(&stage, &place).await;
    assert_eq!((&refused["ok"], &refused["error"]), (&json!(false), &json!("not_durable")), "{refused}");
    let known = |status: &Value| status["bots"][0]["last_seq"] == trader.seq() + 1;
    stage.until("the daemon still answers", Duration::from_secs(5), known).await;

    daemon.limit_files(None);
    let taken = ask(&stage, &place).await;
    assert_eq!((&taken["ok"], &taken["durable"]), (&json!(true), &json!(true)), "{taken}");
    assert!(daemon.stop().await.success());
    let replayed = journal::replay(&stage.journal()).unwrap();
    assert_eq!(replayed.differing, 0, "{:#?}", replayed.differences);
    let rows = journal::rows(&stage.journal());
    let stalls = rows.iter().filter(|row| row.is("fault") && row.body["fault"] == "unjournalled").count();
    assert_eq!(stalls, 1, "one finding for one stall");
    assert!(rows.iter().any(|row| row.is("intent") && row.body["record"]["seq"] == place["seq"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_on_the_same_folder_is_refused() {
    let hook = Hook::start().await;
    let stage = stage(None, &hook).await;
    let first = stage.run();
    stage.until_proved().await;
    let status = stage.run().ended().await;
    assert_eq!(status.code(), Some(1));
    let log = fs::read_to_string(stage.log()).unwrap();
    assert!(log.contains("another countersign is running on") && log.contains("hint:"), "{log}");
    stage.until_proved().await;
    assert!(first.stop().await.success());
}

/// What somebody, or a disk, may do to the file, and whether what was known must have survived it.
type Damage = (&'static str, fn(&mut Vec<u8>), bool);

const DAMAGES: [Damage; 6] = [
    ("emptied", Vec::clear, false),
    ("cut in half", |bytes| bytes.truncate(bytes.len() / 2), false),
    ("overwritten at its head", |bytes| bytes[..4_096].fill(b'x'), false),
    ("overwritten at its end", |bytes| overwrite_end(bytes), true),
    ("a byte flipped in the last row", |bytes| flip_in_last(bytes, b"\"restored\""), true),
    ("replaced by a text", |bytes| *bytes = b"nothing to see".to_vec(), false),
];

fn overwrite_end(bytes: &mut [u8]) {
    let end = bytes.len();
    bytes[end - 2 * 4_096..].fill(0);
}

fn flip_in_last(bytes: &mut [u8], part: &[u8]) {
    let at = bytes.windows(part.len()).rposition(|window| window == part).unwrap();
    bytes[at + part.len() + 200] ^= 1;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_is_set_aside_and_the_daemon_watches_on_loudly() {
    let hook = Hook::start().await;
    let stage = stage(None, &hook).await;
    let daemon = stage.run();
    stage.until_proved().await;
    trader(&stage).round(0).await;
    assert!(daemon.stop().await.success());
    let whole = fs::read(stage.journal()).unwrap();
    let thief = stage.client("somebody-else");
    for (name, damage, survives) in DAMAGES {
        journal_files(&stage).into_iter().for_each(|file| fs::remove_file(file).unwrap());
        let mut bytes = whole.clone();
        damage(&mut bytes);
        fs::write(stage.journal(), &bytes).unwrap();

        let before = hook.received().len();
        let daemon = stage.run();
        stage.until_proved().await;
        let told = |body: &Value| body["rule"] == "broken_journal" || body["incidents"].to_string().contains("broken");
        hook.until_after(before, "the broken journal", told).await;
        let order = steal(&thief).await;
        hook.until_after(before, "the alert", |body| says(body, &order)).await;
        let status = stage.until_proved().await;
        assert_eq!(status["bots"][0]["last_seq"].as_u64().unwrap() > 0, survives, "{name}: {status}");
        daemon.kill().await;

        let kept = journal_files(&stage).iter().any(|file| fs::read(file).unwrap() == bytes);
        assert!(kept || bytes.is_empty(), "{name}: kept as it was found");
        let replayed = journal::replay(&stage.journal()).unwrap();
        assert_eq!(replayed.differing, 0, "{name}: {:#?}", replayed.differences);

        let daemon = stage.run();
        let again = stage.until_proved().await;
        assert_eq!(again["bots"][0]["last_seq"], status["bots"][0]["last_seq"], "{name}: the new file is whole");
        assert!(daemon.stop().await.success());
        assert_eq!(journal::replay(&stage.journal()).unwrap().differing, 0, "{name}");
    }
}

/// The journal, what SQLite keeps beside it, and what was set aside.
fn journal_files(stage: &Stage) -> Vec<PathBuf> {
    let files = fs::read_dir(stage.data()).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("journal.")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_old_row_is_found_beside_the_watch() {
    let hook = Hook::start().await;
    let stage = stage(None, &hook).await;
    let daemon = stage.run();
    stage.until_proved().await;
    trader(&stage).round(0).await;
    assert!(daemon.stop().await.success());
    let connection = rusqlite::Connection::open(stage.journal()).unwrap();
    connection.execute("UPDATE record SET at = at + 1 WHERE seq = 5", []).unwrap();
    drop(connection);
    let daemon = stage.run();
    stage.until_proved().await;
    let told = hook.until("the broken row", |body| body["rule"] == "broken_journal").await;
    assert!(told.iter().any(|received| says(&received.body, "row 5 of the journal is broken")));
    assert!(daemon.stop().await.success());
}
