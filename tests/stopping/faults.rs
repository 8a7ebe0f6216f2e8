//! What else may be broken at the moment of a kill: the chat, the disk, the database, the names.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use countersign::inlet::operator::OperatorCommand;
use countersign::kernel::command::Command;
use rusqlite::Connection;
use serde_json::Value;

use crate::support::arms::{Said, WITHIN, lines};
use crate::support::bot_api::{BotApi, Misbehaviour};
use crate::support::journal;
use crate::support::python::not_permitted;
use crate::support::stage::{Daemon, Stage};
use crate::support::tap::Tap;
use crate::{Bot, armed, bot_with_an_order, check_contained, check_ledger, until_strangers};

const KEYS: &str = "/sapi/v1/sub-account/";
const KILL: OperatorCommand = OperatorCommand::Order { incident: None, order: Command::Kill, code: None, why: None };

/// A bot's order and two of a thief's.
async fn rob(stage: &Stage) -> (Bot, Vec<i64>) {
    stage.until_proved().await;
    let bot = bot_with_an_order(stage).await;
    let stolen = stage.rest_foreign(2).await;
    until_strangers(stage, 2).await;
    (bot, stolen)
}

async fn kill(stage: &Stage) -> Said {
    let killed = stage.countersign(&["kill", "main", "--yes", "--json"], "").await;
    assert_eq!(killed.status, 0, "{killed:?}");
    check_contained(&killed.json());
    killed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_that_swallows_everything_delays_no_kill() {
    let api = BotApi::start().await;
    let stage = armed(3, Some(&api)).await;
    let tap = Tap::start(stage.exchange).await;
    stage.reach_rest_at(tap.address);
    let _daemon = stage.run();
    stage.until_proved().await;
    stage.pair(&api).await;
    for method in ["getUpdates", "sendMessage", "editMessageText"] {
        api.always(method, Some(Misbehaviour::Hang));
    }
    let (bot, stolen) = rob(&stage).await;
    let asked = Instant::now();
    kill(&stage).await;
    let first = tap.first_after(asked, "POST /sapi/").await;
    println!("hanging chat: from the command's start to the first request {:?} ({})", first.at - asked, first.what);
    check_ledger(&stage, bot.order, &stolen).await;
    assert!(api.delivered().iter().all(|sent| !sent.text.contains("CONTAINED")), "nothing got through");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_that_is_gone_delays_no_kill() {
    let api = BotApi::start().await;
    let stage = armed(4, Some(&api)).await;
    let tap = Tap::start(stage.exchange).await;
    stage.reach_rest_at(tap.address);
    let _daemon = stage.run();
    stage.until_proved().await;
    stage.pair(&api).await;
    // Its port refuses from here on.
    drop(api);
    let (bot, stolen) = rob(&stage).await;
    let asked = Instant::now();
    stage.ask(&KILL).await.unwrap();
    let answered = asked.elapsed();
    let first = tap.first_after(asked, "POST /sapi/").await;
    println!("no chat: from the command to the first request {:?}, to its answer {answered:?}", first.at - asked);
    let progress = stage.until_contained("the end", WITHIN, |progress| !progress["end"].is_null()).await;
    check_contained(&progress);
    check_ledger(&stage, bot.order, &stolen).await;
}

fn wal(stage: &Stage) -> PathBuf {
    PathBuf::from(format!("{}-wal", stage.journal().display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_delays_no_kill_and_nothing_false_is_said_afterwards() {
    let api = BotApi::start().await;
    let stage = armed(5, Some(&api)).await;
    let daemon = stage.run();
    stage.until_proved().await;
    stage.pair(&api).await;
    let (bot, stolen) = rob(&stage).await;
    daemon.limit_files(Some(fs::metadata(wal(&stage)).unwrap().len()));
    kill(&stage).await;
    check_ledger(&stage, bot.order, &stolen).await;
    let contained = |text: &str| text.contains("CONTAINED") && text.contains("before it was in the journal");
    api.until("the card, said to be unjournalled", |sent| sent.iter().any(|sent| contained(&sent.text))).await;
    let finding = "left before its cause was on disk";
    api.until("the finding", |sent| sent.iter().any(|sent| sent.text.contains(finding))).await;
    daemon.kill().await;

    let _daemon = stage.run();
    stage.until_proved().await;
    let known = stage.countersign(&["containment", "--json"], "").await;
    assert_eq!(known.json(), Value::Null, "what was lost is not made up: {known:?}");
    let status = stage.until_proved().await;
    assert!(!status["stopping"].as_str().unwrap().contains("last containment"), "{status:#}");
    // What is done already is found out about, and not done again.
    kill(&stage).await;
    check_ledger(&stage, bot.order, &stolen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_database_delays_no_kill() {
    let stage = armed(6, None).await;
    let daemon = stage.run();
    let (bot, stolen) = rob(&stage).await;
    let locking = Connection::open(stage.journal()).unwrap();
    locking.busy_timeout(WITHIN).unwrap();
    locking.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let killed = kill(&stage).await;
    check_ledger(&stage, bot.order, &stolen).await;
    locking.execute_batch("ROLLBACK").unwrap();
    assert!(daemon.stop().await.success(), "it is on disk once the lock is gone");
    let replayed = journal::replay(&stage.journal()).unwrap();
    assert_eq!(replayed.differing, 0, "{:#?}", replayed.differences);

    let _daemon = stage.run();
    stage.until_proved().await;
    let known = stage.countersign(&["containment", "--json"], "").await;
    assert_eq!(lines(&known.json()), lines(&killed.json()));
}

/// The daemon in a mount namespace of its own, where these files are the names that it knows and the server it asks.
fn run_with_names(stage: &Stage, names: &Path, servers: &Path) -> Daemon {
    let mount = "mount --bind \"$1\" /etc/hosts && mount --bind \"$2\" /etc/resolv.conf || exit 99;";
    stage.run_inside(&["unshare", "-rm"], mount, &[names.to_str().unwrap(), servers.to_str().unwrap()])
}

async fn may_mount() -> bool {
    let tried = tokio::process::Command::new("unshare").args(["-rm", "mount", "--bind", "/etc", "/etc"]).output().await;
    tried.is_ok_and(|output| output.status.success())
}

/// Whether the name is found where the daemon lives.
async fn is_found(daemon: &Daemon) -> bool {
    let id = daemon.pid().as_raw_nonzero().to_string();
    let look = ["-t", &id, "-U", "-m", "--preserve-credentials", "getent", "hosts", "exchange.test"];
    tokio::process::Command::new("nsenter").args(look).output().await.unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_fail_delay_no_kill() {
    if !may_mount().await {
        return not_permitted("no mount namespace may be made here");
    }
    let stage = armed(7, None).await;
    let tap = Tap::start(stage.exchange).await;
    stage.reach_rest_at(format!("exchange.test:{}", tap.address.port()));
    let (names, servers) = (stage.folder.path().join("hosts"), stage.folder.path().join("resolv"));
    fs::write(&names, "127.0.0.1 localhost exchange.test\n").unwrap();
    fs::write(&servers, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
    let daemon = run_with_names(&stage, &names, &servers);
    let (bot, stolen) = rob(&stage).await;
    assert!(is_found(&daemon).await, "while all is well");

    // In place: the daemon sees this very file.
    fs::write(&names, "127.0.0.1 localhost\n").unwrap();
    assert!(!is_found(&daemon).await, "the name is gone");
    tap.cut();
    let asked = Instant::now();
    kill(&stage).await;
    let first = tap.first_after(asked, &format!("POST {KEYS}")).await;
    println!("no names, no open connection: from the command to the first request {:?}", first.at - asked);
    check_ledger(&stage, bot.order, &stolen).await;
}
