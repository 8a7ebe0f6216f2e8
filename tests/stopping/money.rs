//! The money at the end of a kill, by the exchange's own books.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::arms::{WITHIN, lines, step};
use crate::{armed, bot_with_an_order, check_contained, check_ledger, one_time_password, until_strangers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_ends_with_the_money_at_the_master() {
    let stage = armed(12, None).await;
    stage.change_config(|config| config.replace("[containment]\n", "[containment]\ntransfer_to_master = true\n"));
    let daemon = stage.run();
    stage.until_proved().await;
    let trading = bot_with_an_order(&stage).await;
    let stolen = stage.rest_foreign(2).await;
    until_strangers(&stage, 2).await;
    let killed = stage.countersign(&["kill", "main", "--yes", "--json"], "").await;
    assert_eq!(killed.status, 0, "{killed:?}");
    check_contained(&killed.json());
    check_ledger(&stage, trading.order, &stolen).await;
    let told = step(&killed.json(), "move the free money")["detail"].as_str().unwrap().to_owned();
    assert!(told.starts_with("moved to the master: "), "{told}");
    println!("{told}\n{}", lines(&killed.json()));

    let ledger = stage.ledger().await;
    let moves: Vec<&Value> = ledger.iter().filter(|row| row["kind"] == "TRANSFER").collect();
    let mut by_asset = BTreeMap::new();
    for row in &moves {
        assert_eq!(row["key"], json!("master/admin"));
        *by_asset.entry(row["asset"].as_str().unwrap()).or_insert(0) += 1;
    }
    assert!(by_asset.values().all(|rows| *rows == 2), "one transfer an asset, a row for each side: {by_asset:?}");
    // The money that holds up the bot's spared order stays with it.
    let free = stage.client_with(&stage.key("watch"), "judge");
    let free = free.signed(reqwest::Method::GET, "/api/v3/account", &[]).await.unwrap();
    let free = free["balances"].as_array().unwrap().iter().filter(|row| row["free"] != "0.00000000").count();
    assert_eq!(free, 0);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_sells_everything_with_a_one_time_password() {
    let stage = armed(13, None).await;
    let daemon = stage.run();
    stage.until_proved().await;
    let trading = bot_with_an_order(&stage).await;
    let orders =
        async || stage.ledger().await.iter().filter(|row| row["kind"] == "NEW" && row["key"] == "main/cancel").count();

    let plan = ["flatten", "main", "--to", "USDT", "--within", "2%", "--plan", "--json"];
    let shown = stage.countersign(&plan, "").await;
    assert_eq!((shown.status, &shown.json()["stage"]["stage"]), (0, &json!("planned")), "{shown:?}");
    let arguments = ["flatten", "main", "--to", "USDT", "--within", "2%", "--why", "the account is closed"];
    let unsaid = stage.countersign(&arguments, "123456\n").await;
    assert!(unsaid.status == 1 && unsaid.err.contains("the one-time password is wrong"), "{unsaid:?}");
    assert_eq!(orders().await, 0, "it only read so far");

    let code = format!("{}\n", one_time_password(1));
    let sold = stage.countersign(&[&arguments[..], &["--json"]].concat(), &code).await;
    let sale = sold.json();
    assert_eq!(sale["stage"]["stage"], json!("done"), "{sold:?}");
    println!("{}\n{:#}", sold.err, sale["lines"]);
    let legs = sale["legs"].as_object().unwrap();
    let sent = legs.values().filter(|leg| leg["leg"] == "sold").count();
    assert!(sent > 0, "{sale:#}");
    assert_eq!(orders().await, sent, "each order once");
    assert_eq!(stage.open_orders().await, [trading.order], "the bot's order still stands, and nothing of ours rests");
    let ours = |status: &Value| status["orders"]["matched"].as_u64() == Some(1 + sent as u64);
    let status = stage.until("our own orders are known", WITHIN, ours).await;
    assert_eq!(status["orders"]["strangers"], json!(0), "{status:#}");
    assert!(daemon.stop().await.success());
}
