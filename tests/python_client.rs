//! The Python client: its own tests, and its records read by the real intake.

#![expect(clippy::disallowed_methods, reason = "a test plays the daemon's part: it spawns, and reads the clock")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use countersign::inlet::intake::{
    BotAccess, HelloReply, Intake, IntakeConfig, IntakeMessage, IntakeRequest, Refusals, http, socket,
};
use countersign::inlet::unix;
use countersign::kernel::intent::{IntentBody, IntentRecord, IntentReply, Registered, SendOutcome};
use countersign::kernel::order::{Account, Bot, OrderId};
use countersign::kernel::time::Time;
use countersign::tag::TagKeys;
use countersign::tag::layout::{IdPrefix, KeyId};
use countersign::tag::mac::{KeyOwner, TagKey};

const NOW: Time = Time::from_millis(1_764_000_000_000);
const SECRET: &[u8] = b"a secret of these tests";

/// Speaks for `mm-1` in every kind there is, by the door that its arguments name; prints the ids it got.
const SPEAK: &str = r#"
import json, sys
import countersign

door, where = sys.argv[1:]
options = {"socket": where} if door == "socket" else {"url": where, "token": "token"}
options.update(deadline=5.0, heartbeat_every=0.05, clock=lambda: 1764000000.0)
options.update(strategy="grid", owner="desk-a", egress="203.0.113.7", id_prefix="x-TKT5PX2F")
order = {"side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "quantity": "0.01", "price": "60000"}
with countersign.Client("main", "mm-1", **options) as client:
    place = client.announce({"kind": "place", "symbol": "BTCUSDT", **order}, "refuse")
    client.tell_result(place, "accepted", order_id=77)
    named = client.announce({"kind": "place", "symbol": "BTCUSDT", "client_order_id": "mine", **order}, "refuse")
    client.tell_result(named, "rejected", code=-2010, message="no money")
    cancel = client.announce({"kind": "cancel", "symbol": "BTCUSDT", "order_id": 77}, "refuse")
    client.tell_result(cancel, "unknown")
    every = client.announce({"kind": "cancel", "symbol": "BTCUSDT", "all": True}, "refuse")
    client.tell_result(every, "not_sent")
    edit = client.announce({"kind": "cancel_replace", "symbol": "BTCUSDT", "cancel": {"order_id": 78}, "place": order}, "refuse")
    client.announce({"kind": "amend", "symbol": "BTCUSDT", "order_id": 77, "quantity": "0.005"}, "refuse")
    print(json.dumps([[i.client_order_id, i.cancel_client_order_id] for i in (place, named, cancel, every, edit)]))
"#;

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python")
}

/// The interpreter: `COUNTERSIGN_PYTHON` (one that has ccxt, say), or `python3`.
fn python() -> Option<Command> {
    let program = std::env::var("COUNTERSIGN_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success()) {
        let mut command = Command::new(program);
        command.env("PYTHONPATH", package().join("src")).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(package());
        return Some(command);
    }
    support::python::skip(&format!("{program} does not run"));
    None
}

#[test]
fn its_own_tests_pass() {
    let Some(mut python) = python() else { return };
    let output = python.args(["-m", "unittest", "discover", "-t", ".", "-s", "tests", "-v"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    for line in told.lines().filter(|line| line.contains("SKIPPED")) {
        support::python::skip(line);
    }
}

/// Takes every record and answers with its ids.
async fn daemon(mut messages: mpsc::Receiver<IntakeMessage>) -> Vec<IntentRecord> {
    let mut records = Vec::new();
    while let Some(message) = messages.recv().await {
        match message {
            IntakeMessage::Intent(request) => {
                let IntakeRequest { record, reply } = request;
                let answer = Ok(Registered { client_order_ids: Vec::new() });
                let seq = record.seq;
                records.push(*record);
                reply.send(IntentReply { seq, nonce: NOW, heartbeat_wanted: false, missing: 0, answer }).unwrap();
            }
            IntakeMessage::Hello { reply, .. } => reply.send(HelloReply { last_seq: 0, nonce: NOW }).unwrap(),
            IntakeMessage::Access { .. } => panic!("the client gave evidence of addresses"),
        }
    }
    records
}

/// Runs the script against an intake that really listens, and gives what it printed and what was heard.
async fn speak(door: &str) -> Option<(Value, Vec<IntentRecord>, Arc<TagKeys>)> {
    let mut python = python()?;
    let folder = tempfile::tempdir().unwrap();
    let account = Account::new("main");
    let key = TagKey::derive(SECRET, &account, KeyOwner::Daemon, KeyId::new(0).unwrap()).unwrap();
    let prefixes = vec![IdPrefix::new("x-TKT5PX2F").unwrap()];
    let keys = Arc::new(TagKeys::new(account, "binance/spot", key, Vec::new(), prefixes).unwrap());
    let config = IntakeConfig {
        bots: vec![BotAccess { bot: Bot::new("mm-1"), uids: None, token: Some(SecretString::from("token")) }],
        uids: vec![rustix::process::geteuid().as_raw()],
        ..IntakeConfig::default()
    };
    let (sender, messages) = mpsc::channel(64);
    let refusals = Arc::new(Refusals::default());
    let intake = Arc::new(Intake::new(config, Arc::clone(&keys), || NOW, sender, Arc::clone(&refusals)));
    let shutdown = CancellationToken::new();

    let path = folder.path().join("intake.sock");
    let by_socket =
        socket::run(unix::listen(&path, socket::SOCKET_MODE).unwrap(), Arc::clone(&intake), shutdown.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let by_http = http::run(listener, intake, shutdown.clone());
    python.args(["-c", SPEAK, door, if door == "http" { &url } else { path.to_str().unwrap() }]);
    let speaking = async {
        let output = tokio::task::spawn_blocking(move || python.output().unwrap()).await.unwrap();
        shutdown.cancel();
        output
    };
    let ((), served, output, records) = tokio::join!(by_socket, by_http, speaking, daemon(messages));
    served.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(refusals.drain(), (0, 0), "{}", String::from_utf8_lossy(&output.stderr));
    Some((serde_json::from_slice(&output.stdout).unwrap(), records, keys))
}

#[tokio::test]
async fn the_real_intake_reads_all_that_it_says() {
    for door in ["socket", "http"] {
        let Some((ids, records, keys)) = speak(door).await else { return };
        let told: Vec<&IntentRecord> =
            records.iter().filter(|record| !matches!(record.body, IntentBody::Heartbeat { .. })).collect();
        assert_eq!(told.len(), 10, "{told:?}");
        assert!(told.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "no gap in the sequence");
        // What was said before the first contact has no nonce: the bot had read nothing of ours.
        assert!(told[1..].iter().all(|record| record.nonce == Some(NOW)));
        check_places(&ids, &told, &keys);
        let (IntentBody::Cancel(cancel), IntentBody::Result(unknown)) = (&told[4].body, &told[5].body) else {
            panic!("{told:?}")
        };
        assert_eq!(json!(cancel.client_order_id), ids[2][0]);
        assert_eq!((unknown.of, &unknown.outcome), (told[4].seq, &SendOutcome::Unknown));
        assert_eq!(ids[3], json!([null, null]), "a cancel of all orders has no id");
        let IntentBody::CancelReplace { cancel, place } = &told[8].body else { panic!("{told:?}") };
        assert_eq!(json!([place.client_order_id, cancel.client_order_id]), ids[4]);
    }
}

fn check_places(ids: &Value, told: &[&IntentRecord], keys: &TagKeys) {
    let (IntentBody::Place(issued), IntentBody::Result(result)) = (&told[0].body, &told[1].body) else {
        panic!("{told:?}")
    };
    assert_eq!((told[0].strategy.as_deref(), told[0].owner.as_deref()), (Some("grid"), Some("desk-a")));
    assert_eq!(json!(issued.client_order_id), ids[0][0]);
    assert!(issued.client_order_id.as_str().starts_with(keys.prefixes()[0].as_str()));
    assert_eq!((result.of, &result.outcome), (told[0].seq, &SendOutcome::Accepted { order_id: Some(OrderId(77)) }));
    let IntentBody::Place(named) = &told[2].body else { panic!("{told:?}") };
    assert_eq!((named.client_order_id.as_str(), &ids[1][0]), ("mine", &json!("mine")));
}
