//! A thief who waits for the owner's claim window and trades in it, until the owner says: not me.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::arms::WITHIN;
use crate::support::bot_api::BotApi;
use crate::support::journal;
use crate::{armed, bot_with_an_order, one_time_password, tap, until_strangers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thief_in_the_claim_window_is_told_order_by_order_and_disowned_with_one_press() {
    let api = BotApi::start().await;
    let stage = armed(23, Some(&api)).await;
    let daemon = stage.run();
    stage.until_proved().await;
    stage.pair(&api).await;
    let bot = bot_with_an_order(&stage).await;
    let window = [
        "manual",
        "main",
        "--symbol",
        "BTCUSDT",
        "--side",
        "BUY",
        "--notional",
        "100USDT",
        "--orders",
        "2",
        "--for",
        "30m",
        "--why",
        "rebalancing",
    ];
    let guessed = stage.countersign(&window, "000000\n").await;
    assert!(guessed.status == 1 && guessed.err.contains("the one-time password is wrong"), "{guessed:?}");
    let opened = stage.countersign(&window, &format!("{}\n", one_time_password(0))).await;
    assert_eq!(opened.status, 0, "{opened:?}");
    api.until("the opening", |sent| sent.iter().any(|sent| sent.text.contains("Why: rebalancing"))).await;
    let shown = stage.countersign(&["status"], "").await;
    assert!(shown.out.contains("CLAIM WINDOW OPEN") && shown.out.contains("0 of 2 orders"), "{shown:?}");

    // What the exchange makes within five seconds may be older than the window, as far as two clocks tell.
    tokio::time::sleep(Duration::from_millis(5_200)).await;
    let order = [
        ("symbol", "BTCUSDT"),
        ("side", "BUY"),
        ("type", "LIMIT"),
        ("timeInForce", "GTC"),
        ("quantity", "0.001"),
        ("price", "50000"),
        ("newClientOrderId", "web_5f1c0a"),
    ];
    stage.client("somebody-else").place(&order).await.unwrap();
    let by_hand = |status: &Value| status["orders"]["by_hand"] == 1 && status["orders"]["strangers"] == 0;
    stage.until("the order is covered", WITHIN, by_hand).await;
    api.until("the order's message", |sent| sent.iter().any(|sent| sent.text.contains("web_5f1c0a"))).await;

    tap(&api, "Not me").await;
    until_strangers(&stage, 1).await;
    api.until("the alarm", |sent| {
        let told = |sent: &crate::Sent| sent.text.contains("you said: not me") && sent.text.contains("CRITICAL");
        sent.iter().any(told)
    })
    .await;
    let killed = stage.countersign(&["kill", "main", "--yes", "--json"], "").await;
    assert_eq!((killed.status, &killed.json()["word"]), (0, &json!("contained")), "{killed:?}");
    assert_eq!(stage.open_orders().await, [bot.order], "what was disowned is spared no longer");
    assert!(daemon.stop().await.success());
    assert_eq!(journal::replay(&stage.journal()).unwrap().differing, 0);
}
