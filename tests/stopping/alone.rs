//! Stopping a theft without being told: mode *act* on a journal that is older than a day, and the freeze of what nobody
//! answered. The owner does nothing here.

use std::time::Duration;

use crate::support::arms::{WITHIN, lines};
use crate::support::bot_api::{BotApi, Sent};
use crate::support::journal;
use crate::support::stage::Stage;
use crate::{
    BOT, bot_of, bot_process, bot_with_an_order, check_contained, check_ledger, is_contained, refused_with, still,
    until_strangers,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_its_first_day_it_leaves_a_theft_to_the_owner() {
    let stage = Stage::open(still(60)).await;
    stage.write_config(&[BOT], None, None);
    stage.arm("act", 1, "");
    let _daemon = stage.run();
    stage.until_proved().await;
    let trading = bot_with_an_order(&stage).await;
    let stolen = stage.rest_foreign(1).await;
    until_told(&stage, "this is countersign's first day on the account").await;
    assert_eq!(stage.done_to_keys().await, [""; 0]);
    assert_eq!(stage.open_orders().await, [trading.order, stolen[0]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_mode_act_a_theft_is_ended_by_countersign_itself() {
    let stage = Stage::open(still(61)).await;
    stage.write_config(&[BOT], None, None);
    let (mut process, stop) = bot_process();
    stage.arm("act", 1, &stop);
    let daemon = stage.run();
    stage.until_proved().await;
    assert!(daemon.stop().await.success());

    journal::age(&stage.journal(), Duration::from_secs(25 * 3_600));
    let daemon = stage.run();
    stage.until_proved().await;
    let trading = bot_of(&stage, Some(&process)).await;
    let stolen = stage.rest_foreign(2).await;
    let progress = stage.until_contained("contained", WITHIN, is_contained).await;
    check_contained(&progress);
    assert_eq!(progress["asked_by"], "countersign, by itself");
    check_ledger(&stage, trading.order, &stolen).await;
    tokio::time::timeout(WITHIN, process.wait()).await.expect("the bot's process was stopped").unwrap();
    println!(
        "by itself: blocked after {} ms, orders gone after {} ms",
        progress["blocked_ms"], progress["orders_gone_ms"]
    );
    assert!(daemon.stop().await.success());
    let replayed = journal::replay(&stage.journal()).unwrap();
    assert_eq!(replayed.differing, 0, "{:#?}", replayed.differences);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_answers_is_frozen_and_no_more() {
    let api = BotApi::start().await;
    let stage = Stage::open(still(62)).await;
    stage.write_config(&[BOT], Some(&api), None);
    let (mut process, stop) = bot_process();
    stage.arm("ask", 1, &stop);
    stage.change_config(|config| config.replace("quiet_s = 1\n", "quiet_s = 1\nfreeze_unanswered_s = 60\n"));
    let _daemon = stage.run();
    stage.until_proved().await;
    stage.pair(&api).await;
    let trading = bot_with_an_order(&stage).await;
    let stolen = stage.rest_foreign(2).await;
    until_strangers(&stage, 2).await;
    let asked = tokio::time::Instant::now();
    let progress = stage.until_contained("frozen", 2 * WITHIN, |progress| progress["word"] == "frozen").await;
    assert!(asked.elapsed() > Duration::from_secs(55), "the owner had time to answer: {progress:#}");
    assert_eq!(progress["asked_by"], "countersign, by itself");
    assert!(lines(&progress).contains("new orders are blocked"), "{progress:#}");
    assert_eq!(refused_with(&stage).await, Some(-2015), "a frozen key trades no more");
    // What can be taken back, and nothing else.
    assert_eq!(stage.done_to_keys().await, ["master/admin KEY_PERMISSIONS main/bot"]);
    assert_eq!(stage.open_orders().await.len(), 1 + stolen.len());
    assert_eq!(stage.cancels_of(trading.order).await, [""; 0]);
    assert_eq!(process.try_wait().unwrap(), None, "the bot was left alone");
    let card = |sent: &Sent| sent.text.contains("FROZEN (asked for by countersign, by itself)");
    api.until("the card says so", |sent| sent.iter().any(card)).await;
}

/// Until a notice holds these words, as the journal has it.
async fn until_told(stage: &Stage, words: &str) {
    let deadline = tokio::time::Instant::now() + WITHIN;
    let told = |row: &journal::Row| row.notices().any(|notice| notice.to_string().contains(words));
    while !journal::rows(&stage.journal()).iter().any(told) {
        assert!(tokio::time::Instant::now() < deadline, "{words:?} was not told");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
