//! Golden journals, recorded from real sessions on the simulated exchange: today's kernels must still give the same
//! effects, byte for byte, and whatever is changed in a row must be found.
//!
//! A row is a line of JSON, its body and effects exactly as they stand in the database. Where effects are meant to
//! change, record the sessions anew: `cargo test --test journals -- --ignored record`.

#![expect(clippy::disallowed_methods, reason = "a test plays the outside's part: it spawns, and reads the clock")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use countersign::journal::reader::{self, Replay};
use countersign::journal::record::VERSION;
use countersign::journal::sqlite::{self, JournalError};
use countersign::sim::thief::{Plan, steal};
use data_encoding::HEXLOWER;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tempfile::TempDir;

use support::bot_api::BotApi;
use support::hook::Hook;
use support::stage::Stage;
use support::trader::Trader;

const SESSIONS: [&str; 4] = ["normal_day", "theft", "gap_and_restart", "snapshot"];
const BYTES_MAX: u64 = 200 << 10;
const BOT: &str = "maker";

#[derive(Serialize, Deserialize)]
struct GoldenRow {
    seq: i64,
    chain: String,
    at: i64,
    hash: String,
    body: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effects: Option<Box<RawValue>>,
}

fn golden(session: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/journals").join(format!("{session}.jsonl"))
}

/// The rows in a database, as they were.
fn load(session: &str) -> (TempDir, PathBuf, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("journal.sqlite");
    let mut connection = sqlite::open(&file).unwrap();
    let transaction = connection.transaction().unwrap();
    for line in fs::read_to_string(golden(session)).unwrap().lines() {
        let row: GoldenRow = serde_json::from_str(line).unwrap();
        let effects = row.effects.as_ref().map_or("", |effects| effects.get());
        let hash = HEXLOWER.decode(row.hash.as_bytes()).unwrap();
        transaction
            .execute(
                "INSERT INTO record (seq, chain, at, version, body, effects, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![row.seq, row.chain, row.at, VERSION, row.body.get(), effects, hash],
            )
            .unwrap();
    }
    transaction.commit().unwrap();
    (folder, file, connection)
}

fn countersign(arguments: &[&str]) -> (Output, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_countersign")).args(arguments).output().unwrap();
    let answer = serde_json::from_slice(&output.stdout);
    (output.clone(), answer.unwrap_or_else(|_| panic!("{output:?}")))
}

#[test]
fn the_same_journal_gives_the_same_effects() {
    for session in SESSIONS {
        let (_folder, file, connection) = load(session);
        let mut replay = Replay::default();
        let heads = reader::walk(&connection, 1, |record| replay.take(record)).unwrap();
        assert_eq!(replay.differing, 0, "{session}: {:#?}", replay.differences);
        assert!(replay.events == heads.rows && heads.rows > 30, "{session}");
        let file = file.to_str().unwrap();
        let (output, answer) = countersign(&["journal", "verify", file, "--json"]);
        assert!(output.status.success() && answer["rows"] == heads.rows, "{answer}");
        let (output, answer) = countersign(&["replay", file, "--json"]);
        assert!(output.status.success() && answer["differing"] == 0, "{answer}");
    }
}

#[test]
fn a_start_from_the_last_snapshot_gives_the_state_of_the_whole() {
    for session in ["gap_and_restart", "snapshot"] {
        let (_folder, _, connection) = load(session);
        let (from, _) = reader::snapshot_before(&connection, u64::MAX).unwrap().unwrap();
        assert!(from > 1, "{session}");
        let state_from = |first: u64| {
            let mut replay = Replay::default();
            let heads = reader::walk(&connection, first, |record| replay.take(record)).unwrap();
            let account = replay.accounts.values().next().unwrap();
            (
                serde_json::to_string(account.state()).unwrap(),
                serde_json::to_string(&replay.shared).unwrap(),
                heads.hashes,
            )
        };
        assert_eq!(state_from(1), state_from(from), "{session}");
    }
}

#[test]
fn other_rules_show_what_they_would_have_changed() {
    let rules = tempfile::tempdir().unwrap();
    let stable = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/binance-spot.toml")).unwrap();
    let changed = stable.replace("An order that is not your bot's", "Somebody trades here");
    assert_ne!(stable, changed);
    fs::write(rules.path().join("binance-spot.toml"), changed).unwrap();
    for (session, differs) in [("theft", true), ("normal_day", false)] {
        let (_folder, file, _) = load(session);
        let folder = rules.path().to_str().unwrap();
        let (output, answer) = countersign(&["replay", file.to_str().unwrap(), "--rules", folder, "--json"]);
        assert_eq!(answer["differing"].as_u64().unwrap() > 0, differs, "{session}: {answer}");
        assert_eq!(output.status.code(), Some(i32::from(differs)), "{session}");
        assert_eq!(answer["differences"].to_string().contains("Somebody trades here"), differs, "{session}");
    }
}

/// The columns of a row; in each of them every bit counts.
const COLUMNS: [&str; 7] = ["seq", "chain", "at", "version", "body", "effects", "hash"];

#[test]
fn any_flipped_bit_is_found() {
    let (_folder, _, connection) = load("theft");
    let seqs = seqs(&connection);
    let cases = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let one = (any::<Index>(), 0..COLUMNS.len(), any::<Index>(), 0..8_u32);
    let ran = TestRunner::new(cases).run(&one, |(row, column, byte, bit)| {
        let (seq, column) = (*row.get(&seqs), COLUMNS[column]);
        connection.execute_batch("SAVEPOINT flip").unwrap();
        let flipped = flip(&connection, seq, column, byte, bit);
        let found = reader::walk(&connection, 1, |_| Ok(()));
        connection.execute_batch("ROLLBACK TO flip; RELEASE flip").unwrap();
        prop_assume!(flipped);
        prop_assert!(is_found(&found), "bit {bit} of {column} in row {seq}");
        Ok(())
    });
    ran.unwrap();
    assert!(reader::walk(&connection, 1, |_| Ok(())).is_ok(), "it was whole all the time");
}

/// Whether there was a bit to flip, and the database took it.
fn flip(connection: &Connection, seq: i64, column: &str, byte: Index, bit: u32) -> bool {
    let select = format!("SELECT {column}, CAST({column} AS BLOB) FROM record WHERE seq = ?1");
    let (number, mut bytes) =
        connection.query_row(&select, [seq], |row| Ok((row.get::<_, i64>(0).ok(), row.get::<_, Vec<u8>>(1)?))).unwrap();
    let update = |value: &str| format!("UPDATE record SET {column} = {value} WHERE seq = ?1");
    if let Some(number) = number {
        let flipped = number ^ (1 << (bit + 8 * u32::try_from(byte.index(6)).unwrap()));
        // A number that another row has already is refused by the database itself.
        return connection.execute(&update("?2"), (seq, flipped)).is_ok();
    }
    if bytes.is_empty() {
        return false;
    }
    let place = byte.index(bytes.len());
    bytes[place] ^= 1 << bit;
    let value = if column == "hash" { "?2" } else { "CAST(?2 AS TEXT)" };
    connection.execute(&update(value), (seq, bytes)).unwrap() == 1
}

fn is_found<T>(walked: &Result<T, JournalError>) -> bool {
    matches!(walked, Err(JournalError::Broken { .. } | JournalError::Version { .. } | JournalError::Read(_)))
}

/// The last row has nothing after it that would miss it: that a tail was cut off shows only from outside.
#[test]
fn a_row_that_is_missing_or_in_another_place_is_found() {
    let (_folder, _, connection) = load("theft");
    let seqs = seqs(&connection);
    for (row, seq) in seqs.iter().enumerate().take(seqs.len() - 1).step_by(3) {
        let next = seqs[row + 1];
        let swap = format!(
            "UPDATE record SET seq = -1 WHERE seq = {seq}; UPDATE record SET seq = {seq} WHERE seq = {next};
             UPDATE record SET seq = {next} WHERE seq = -1"
        );
        let delete = format!("DELETE FROM record WHERE seq = {seq}");
        let pull_up = format!("{delete}; UPDATE record SET seq = seq - 1 WHERE seq > {seq}");
        for change in [&delete, &pull_up, &swap] {
            connection.execute_batch(&format!("SAVEPOINT change; {change}")).unwrap();
            let found = reader::walk(&connection, 1, |_| Ok(()));
            connection.execute_batch("ROLLBACK TO change; RELEASE change").unwrap();
            assert!(is_found(&found), "{change}");
        }
    }
}

fn seqs(connection: &Connection) -> Vec<i64> {
    let mut select = connection.prepare("SELECT seq FROM record ORDER BY seq").unwrap();
    let seqs = select.query_map([], |row| row.get(0)).unwrap();
    seqs.map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "records the golden journals anew"]
async fn record() {
    fs::create_dir_all(golden("").parent().unwrap()).unwrap();
    for session in SESSIONS {
        let (api, hook) = (BotApi::start().await, Hook::start().await);
        let stage = Stage::set(7, &[BOT], Some(&api), Some(&hook.url())).await;
        let mut daemon = stage.run();
        stage.until_proved().await;
        stage.pair(&api).await;
        let mut trader = Trader::new(BOT, stage.client(BOT), stage.intake(), Duration::from_millis(20));
        trader.round(0).await;
        match session {
            "normal_day" => trader.round(1).await,
            "theft" => rob(&stage, &hook, &mut trader).await,
            "gap_and_restart" => {
                daemon.kill().await;
                daemon = stage.run();
                stage.until_proved().await;
                trader.round(1).await;
            }
            "snapshot" => {
                assert!(daemon.stop().await.success());
                daemon = stage.run();
                stage.until_proved().await;
                trader.round(1).await;
            }
            other => panic!("{other}"),
        }
        // The last posts come back.
        tokio::time::sleep(Duration::from_secs(4)).await;
        daemon.kill().await;
        write(&stage.journal(), &golden(session));
    }
}

async fn rob(stage: &Stage, hook: &Hook, trader: &mut Trader) {
    let plan = Plan {
        thin_symbol: "VIABTC".to_owned(),
        orders: 2,
        quantity: "1500".to_owned(),
        bot_symbol: "BTCUSDT".to_owned(),
    };
    let loot = steal(&stage.client("somebody-else"), &plan).await.unwrap();
    assert!(loot.replayed.is_some());
    trader.beat_for(Duration::from_secs(1)).await;
    hook.until("the alert", |body| body["rule"] == "foreign_order").await;
}

fn write(journal: &Path, golden: &Path) {
    let connection = Connection::open(journal).unwrap();
    let mut select = connection.prepare("SELECT seq, chain, at, hash, body, effects FROM record ORDER BY seq").unwrap();
    let rows = select.query_map([], |row| {
        let (body, effects): (String, String) = (row.get(4)?, row.get(5)?);
        Ok(GoldenRow {
            seq: row.get(0)?,
            chain: row.get(1)?,
            at: row.get(2)?,
            hash: HEXLOWER.encode(&row.get::<_, Vec<u8>>(3)?),
            body: RawValue::from_string(body).unwrap(),
            effects: (!effects.is_empty()).then(|| RawValue::from_string(effects).unwrap()),
        })
    });
    let lines: Vec<String> = rows.unwrap().map(|row| serde_json::to_string(&row.unwrap()).unwrap() + "\n").collect();
    fs::write(golden, lines.concat()).unwrap();
    assert!(fs::metadata(golden).unwrap().len() < BYTES_MAX, "{} has grown too large", golden.display());
}
