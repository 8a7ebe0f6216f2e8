//! A thief who makes another key while he is being stopped.

use countersign::kernel::act::KeyPrint;
use serde_json::{Value, json};

use crate::support::arms::{WITHIN, lines, step};
use crate::{armed, bot_with_an_order, check_contained, until_strangers};

/// The account whose keys are at stake, by the exchange's number.
const ACCOUNT: u64 = 1_000_001;

fn resting() -> Value {
    json!({
        "symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.001", "price": "31000",
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_made_during_the_kill_is_frozen_and_left_to_its_owner() {
    let stage = armed(9, None).await;
    let _daemon = stage.run();
    stage.until_proved().await;
    let bot = bot_with_an_order(&stage).await;
    stage.rest_foreign(1).await;
    until_strangers(&stage, 1).await;
    let begun = stage.countersign(&["kill", "main", "--yes", "--no-wait"], "").await;
    assert_eq!(begun.status, 0, "{begun:?}");
    let made = stage.control("keys", &json!({ "account": ACCOUNT, "name": "backup", "order": resting() })).await;
    let print = KeyPrint::of(made["api_key"].as_str().unwrap());

    let blocked = |progress: &Value| {
        lines(progress).contains(&format!("key \"backup\" ({print}): frozen")) && !progress["orders_gone_ms"].is_null()
    };
    let progress = stage.until_contained("the new key is frozen", WITHIN, blocked).await;
    assert!(lines(&progress).contains("is not declared, newer than this containment: frozen, and yours to decide on"));
    // Whatever it does until its owner speaks, it does not end.
    let proved = |progress: &Value| {
        step(progress, "prove that key bot").get("state") == Some(&json!("proved")) && !progress["blocked_ms"].is_null()
    };
    let progress = stage.until_contained("the rest is proved", WITHIN, proved).await;
    assert_eq!((&progress["word"], &progress["end"]), (&json!("not contained"), &Value::Null), "{progress:#}");
    let told = step(&progress, "freeze every key")["detail"].as_str().unwrap().to_owned();
    assert!(told.contains(print.as_str()) && told.contains("yours to decide on"), "{told}");
    let looked = stage.countersign(&["containment"], "").await;
    assert_eq!(looked.status, 1, "it is not over: {looked:?}");
    assert!(!stage.done_to_keys().await.iter().any(|row| row.contains("KEY_DELETED main/backup")));

    let killed = stage.countersign(&["kill", "main", "--key", print.as_str(), "--yes", "--json"], "").await;
    assert_eq!(killed.status, 0, "{killed:?}");
    check_contained(&killed.json());
    let done = stage.done_to_keys().await;
    let count = |row: &str| done.iter().filter(|done| *done == row).count();
    let name = made["name"].as_str().unwrap();
    for row in [format!("KEY_PERMISSIONS {name}"), format!("KEY_DELETED {name}"), "KEY_DELETED main/bot".to_owned()] {
        assert_eq!(count(&format!("master/admin {row}")), 1, "{done:#?}");
    }
    assert_eq!(stage.open_orders().await, [bot.order]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_made_after_the_last_list_is_found_before_the_end() {
    let stage = armed(11, None).await;
    stage.change_config(|config| config.replace("quiet_s = 1", "quiet_s = 3"));
    let _daemon = stage.run();
    stage.until_proved().await;
    let _bot = bot_with_an_order(&stage).await;
    let begun = stage.countersign(&["kill", "main", "--yes", "--no-wait"], "").await;
    assert_eq!(begun.status, 0, "{begun:?}");
    let dead = |progress: &Value| lines(progress).contains("key bot: dead");
    stage.until_contained("the key is dead", WITHIN, dead).await;
    let made = stage.control("keys", &json!({ "account": ACCOUNT, "name": "backup", "order": resting() })).await;
    let print = KeyPrint::of(made["api_key"].as_str().unwrap());
    let known = |progress: &Value| !progress["end"].is_null() || lines(progress).contains(print.as_str());
    let progress = stage.until_contained("the key or the end", WITHIN, known).await;
    assert!(lines(&progress).contains(print.as_str()), "contained, and the thief's key lives: {}", lines(&progress));
    assert_eq!(progress["word"], "not contained");
}
