//! A thief with hundreds of orders open: the request weight for cancels runs out, and what makes keys useless does not
//! wait for it.

use std::time::Duration;

use countersign::clock;
use serde_json::{Value, json};

use crate::support::arms::{WITHIN, step};
use crate::support::client;
use crate::support::stage::Stage;
use crate::{armed, bot_with_an_order, refused_with, until_strangers};

const MANY: usize = 180;
/// Above what cancels may use, below what is kept for the keys.
const BURNT: u32 = 4_300;

/// What the whole address has used of its weight, as the exchange tells everybody.
async fn used(stage: &Stage, path: &str) -> u32 {
    let (url, key) = (format!("http://{}{path}", stage.exchange), stage.key("watch").api_key);
    let answer = client().get(url).header("X-MBX-APIKEY", key).send().await.unwrap();
    answer.headers()["x-mbx-used-weight-1m"].to_str().unwrap().parse().unwrap()
}

/// Early enough in a minute that what was used stays so for a while.
async fn early_in_a_minute() {
    let into = clock::wall().millis().rem_euclid(60_000);
    if into > 40_000 {
        tokio::time::sleep(Duration::from_millis(u64::try_from(60_100 - into).unwrap())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_orders_hold_up_no_key() {
    let stage = armed(10, None).await;
    let _daemon = stage.run();
    stage.until_proved().await;
    let bot = bot_with_an_order(&stage).await;
    stage.rest_foreign(MANY).await;
    until_strangers(&stage, MANY).await;
    early_in_a_minute().await;
    while used(&stage, "/api/v3/ping").await < BURNT {
        stage.client_with(&stage.key("watch"), "judge").open_orders(None).await.unwrap();
    }
    let begun = stage.countersign(&["kill", "main", "--yes", "--no-wait"], "").await;
    assert_eq!(begun.status, 0, "{begun:?}");
    let dead = |progress: &Value| step(progress, "prove that key bot")["state"] == "proved";
    let progress = stage.until_contained("the key is dead", WITHIN, dead).await;
    assert_eq!(refused_with(&stage).await, Some(-2015));
    assert_eq!((&progress["word"], &progress["orders_gone_ms"]), (&json!("not contained"), &Value::Null));
    let left = stage.open_orders().await.len() - 1;
    assert!(left > MANY / 2, "only {left} orders are left: the cancels were not held");
    let told = step(&progress, "cancel every open order").to_string();
    assert!(told.contains("70 % of the request weight is used up"), "{told}");
    println!("the key was blocked after {} ms, {left} of {MANY} orders still waiting", progress["blocked_ms"]);

    let ended = stage.until_contained("the end", 2 * WITHIN, |progress| !progress["end"].is_null()).await;
    // Its lines are about the orders by now: the steps say the rest.
    assert_eq!(ended["word"], "contained", "{ended:#}");
    assert!(ended["steps"].as_array().unwrap().iter().all(|step| step["state"] == "proved"), "{ended:#}");
    assert_eq!(stage.open_orders().await, [bot.order]);
    println!("all orders gone after {} ms", ended["orders_gone_ms"]);
}
