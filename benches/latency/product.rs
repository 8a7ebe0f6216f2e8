//! The product as it runs: the daemon of the library, its screen relayed to the receiver at once.

use std::collections::BTreeSet;
use std::path::Path;

use countersign::config::Config;
use countersign::daemon;
use countersign::inlet::operator::{OperatorCommand, ask};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::outside::plain_client;

pub async fn run(folder: &str) {
    let folder = Path::new(folder);
    let config = Config::read(&folder.join("countersign.toml")).unwrap();
    let hook = std::fs::read_to_string(folder.join("hook")).unwrap();
    let operator = config.operator_socket();
    let (screen, mut notices) = mpsc::channel(65_536);
    tokio::spawn(daemon::run(config, Some(screen), |_| {}, CancellationToken::new()));
    tokio::spawn(async move {
        loop {
            let status = ask(&operator, &OperatorCommand::Status).await.unwrap_or_default();
            if status["status"]["sight"] == "proved" && status["status"]["connections"] == 2 {
                return println!("ready");
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let client = plain_client();
    let mut told = BTreeSet::new();
    while let Some(notice) = notices.recv().await {
        let orders = notice.lines.iter().filter_map(|line| line.text.split_once("(order ")?.1.split_once(','));
        for (order, _) in orders {
            if told.insert(order.to_owned()) {
                client.post(&hook).body(order.to_owned()).send().await.unwrap();
            }
        }
    }
}
