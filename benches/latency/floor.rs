//! The least a durable watcher does: one connection, typed parse, one look-up, a row on disk, a POST. It judges
//! nothing, remembers nothing and proves nothing.

use std::collections::BTreeSet;
use std::path::Path;

use countersign::clock;
use countersign::kernel::report::Report;
use countersign::tls;
use countersign::venue::binance::{self, ApiCredential, Frame, request};
use futures_util::{SinkExt, StreamExt};
use rusqlite::{Connection, params};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::outside::plain_client;

const QUEUE: usize = 65_536;
const BATCH_MAX: usize = 512;

struct Row {
    at: i64,
    raw: String,
    foreign: Option<i64>,
}

pub async fn run(folder: &str) {
    let folder = Path::new(folder);
    let file = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let connection = Connection::open(folder.join("floor.sqlite")).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 8000;
             CREATE TABLE row (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, raw TEXT NOT NULL) STRICT;",
        )
        .unwrap();
    let (rows_in, rows) = mpsc::channel(QUEUE);
    let (alerts_in, alerts) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || write(connection, rows, &alerts_in));
    tokio::spawn(post(file("hook"), alerts));

    let credential = ApiCredential::new(file("watch.key").into(), file("watch.secret").into()).unwrap();
    let roots = tls::client_config(None).unwrap();
    let mut socket = tls::connect(&file("ws"), &roots, std::time::Duration::from_secs(5)).await.unwrap();
    socket.send(Message::text(request::subscribe(1, &credential, clock::wall()))).await.unwrap();
    println!("ready");
    let known: BTreeSet<String> =
        (1..=10_000).flat_map(|number| [format!("steady-{number}"), format!("burst-{number}")]).collect();
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let foreign = match binance::read(&text) {
            Ok(Frame::Event { report: Report::Execution(report), .. }) => {
                (!known.contains(report.client_order_id.as_str())).then_some(report.order_id.0)
            }
            Ok(Frame::Event { .. }) => None,
            Ok(Frame::Terminated { .. } | Frame::Shutdown | Frame::Response(_)) | Err(_) => continue,
        };
        let row = Row { at: clock::wall().micros(), raw: text.as_str().to_owned(), foreign };
        rows_in.send(row).await.unwrap();
    }
}

/// One transaction for whatever gathered while the last one was synced.
fn write(mut connection: Connection, mut rows: mpsc::Receiver<Row>, alerts: &mpsc::Sender<i64>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while let Some(first) = rows.blocking_recv() {
        batch.push(first);
        while batch.len() < BATCH_MAX
            && let Ok(row) = rows.try_recv()
        {
            batch.push(row);
        }
        let transaction = connection.transaction().unwrap();
        {
            let mut insert = transaction.prepare_cached("INSERT INTO row (at, raw) VALUES (?1, ?2)").unwrap();
            for row in &batch {
                insert.execute(params![row.at, row.raw]).unwrap();
            }
        }
        transaction.commit().unwrap();
        for order in batch.drain(..).filter_map(|row| row.foreign) {
            alerts.blocking_send(order).unwrap();
        }
    }
}

async fn post(hook: String, mut alerts: mpsc::Receiver<i64>) {
    let client = plain_client();
    let mut told = BTreeSet::new();
    while let Some(order) = alerts.recv().await {
        if told.insert(order) {
            client.post(&hook).body(order.to_string()).send().await.unwrap();
        }
    }
}
