//! The shared kernel with its real outlets and inlet against a Bot API and a webhook on loopback: everything of
//! telling but the daemon's journal. Time runs faster here than outside, so that reminders come within the test.

#![expect(clippy::disallowed_methods, reason = "a test plays the daemon's part: it spawns, and reads the clock")]

mod support;

use std::time::{Duration, Instant};

use countersign::kernel::channel::Channel;
use countersign::kernel::incident::{IncidentId, IncidentState, Notice};
use countersign::kernel::order::Account;
use countersign::kernel::shared::ChannelState;
use countersign::outlet::telegram::message_code;
use secrecy::SecretSlice;

use support::bot_api::{BotApi, Misbehaviour};
use support::hook::Hook;
use support::teller::{CODE_KEY, Daemon, OWNER, config, notice, text_of};

const STRANGER: i64 = 666;

#[tokio::test]
async fn a_card_is_sent_edited_reminded_of_acknowledged_and_ended() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let daemon = Daemon::paired(&api, &hook, 20).await;
    daemon.notice(notice(1, 1, 1)).await;
    let sent = api.until("the card", |sent| sent.iter().any(|s| s.text.contains("· 1 order"))).await;
    let card = sent.last().unwrap().clone();
    assert!(card.html && !card.quiet && card.text.contains("Not your &lt;bot&gt; &amp; co"));
    let (text, foot) = card.text.rsplit_once('\n').unwrap();
    let (number, code) = foot.strip_prefix('#').unwrap().split_once(' ').unwrap();
    assert_eq!(code, message_code(&SecretSlice::from(CODE_KEY.to_vec()), number.parse().unwrap(), text));
    let body = hook.until("the card's JSON", |body| body["kind"] == "card").await.pop().unwrap().body;
    assert_eq!((&body["incident"], &body["notional"]["USDT"]), (&1.into(), &"320.5".into()));

    daemon.notice(notice(1, 2, 7)).await;
    let sent = api.until("the edit", |sent| sent.iter().any(|s| s.method == "editMessageText")).await;
    assert_eq!(sent.last().unwrap().message, card.message);
    assert!(api.text_of(OWNER, card.message).unwrap().contains("· 7 orders"));

    let sent = api.until("the reminder", |sent| sent.iter().any(|s| s.text.contains("Reminder 1"))).await;
    assert_eq!(sent.last().unwrap().reply_to, Some(card.message.into()));

    api.say(OWNER, daemon.clock.secs(), "/ack main 1");
    api.until("the answer", |sent| sent.iter().any(|s| s.text.contains("Acknowledging incident 1 of main"))).await;
    assert_eq!(daemon.done.lock().unwrap().acknowledged[..], [(Account::new("main"), IncidentId(1), 2)]);
    daemon.notice(Notice { state: IncidentState::Ended, ..notice(1, 3, 7) }).await;
    let sent = api.until("the end", |sent| sent.iter().any(|s| s.text.starts_with("<b>Ended"))).await;
    assert!(api.text_of(OWNER, card.message).unwrap().starts_with("<b>ENDED"));
    let gap = sent.windows(2).map(|pair| pair[1].at - pair[0].at).min().unwrap();
    assert!(gap >= Duration::from_secs(1) / 20, "{gap:?}");
    assert_eq!(hook.unsigned(), 0);
}

#[tokio::test]
async fn a_hold_on_telegram_does_not_delay_the_webhook_and_is_obeyed() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let daemon = Daemon::paired(&api, &hook, 20).await;
    api.next("sendMessage", Misbehaviour::RetryAfter(100));
    daemon.notice(notice(1, 1, 1)).await;
    hook.until("the first card", |body| body["incident"] == 1).await;
    let begun = Instant::now();
    daemon.notice(notice(2, 1, 1)).await;
    hook.until("the second card", |body| body["incident"] == 2).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(matches!(daemon.state().channels()[0].state, ChannelState::Held { .. }));
    hook.until("the report", |body| text_of(body).contains("Telegram is down")).await;
    api.until("the cards", |sent| sent.iter().filter(|s| s.text.contains("CRITICAL")).count() == 2).await;
    let requests = api.requests();
    let refused = requests.iter().position(|sent| !sent.delivered).unwrap();
    let waited = requests[refused + 1].at - requests[refused].at;
    assert!(waited >= Duration::from_secs(100) / 20, "{waited:?}");
    hook.until("the recovery", |body| text_of(body).contains("Telegram delivers again")).await;
}

#[tokio::test]
async fn a_text_that_cannot_be_parsed_goes_plain() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let daemon = Daemon::paired(&api, &hook, 20).await;
    api.next("sendMessage", Misbehaviour::CantParse);
    daemon.notice(notice(1, 1, 1)).await;
    let sent = api.until("the card", |sent| sent.iter().any(|s| s.text.contains("CRITICAL"))).await;
    let card = sent.last().unwrap();
    assert!(!card.html && card.text.contains("Not your <bot> & co"), "{card:?}");
}

#[tokio::test]
async fn after_a_kill_what_was_under_way_is_sent_again_marked_and_nothing_is_heard_twice() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let daemon = Daemon::paired(&api, &hook, 1).await;
    let clock = daemon.clock;
    api.say(OWNER, clock.secs(), "/status");
    api.until("the status", |sent| sent.iter().any(|s| s.text.contains("All is seen."))).await;
    api.next("sendMessage", Misbehaviour::DeliverAndHang);
    daemon.notice(notice(1, 1, 1)).await;
    api.until("the first card", |sent| sent.iter().any(|s| s.text.contains("CRITICAL"))).await;
    hook.until("the card", |body| body["incident"] == 1).await;
    let saved = daemon.kill().await;

    let daemon = Daemon::start(&api, &hook, config(), clock, Some(saved)).await;
    let sent = api.until("the repeat", |sent| sent.iter().filter(|s| s.text.contains("CRITICAL")).count() == 2).await;
    assert!(sent.last().unwrap().text.contains("Repeated: this may have reached you before."));
    api.say(OWNER, clock.secs(), "/incidents");
    let sent = api.until("the answer", |sent| sent.iter().any(|s| s.text.contains("These are open."))).await;
    assert_eq!(sent.iter().filter(|s| s.text.contains("All is seen.")).count(), 1);
    assert_eq!(hook.received().iter().filter(|r| r.body["kind"] == "card").count(), 1, "the webhook had answered");
    drop(daemon);
}

#[tokio::test]
async fn strangers_and_old_messages_are_refused_and_told() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let daemon = Daemon::paired(&api, &hook, 1).await;
    api.say(STRANGER, daemon.clock.secs(), "/ack main 1 <b>");
    hook.until("the report", |body| text_of(body).contains("Refused a Telegram message from user 666")).await;
    api.say(OWNER, daemon.clock.secs() - 90, "/status");
    let sent = api.until("the answer", |sent| sent.iter().any(|s| s.text.contains("Not carried out"))).await;
    assert!(sent.iter().all(|s| s.chat == OWNER), "a stranger is not answered");
    assert!(!sent.iter().any(|s| s.text.contains("All is seen.")));
}

#[tokio::test]
async fn a_second_reader_a_foreign_webhook_and_a_lost_message_are_told_on_the_webhook() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let daemon = Daemon::paired(&api, &hook, 20).await;
    api.next("getUpdates", Misbehaviour::Conflict);
    api.say(STRANGER, daemon.clock.secs(), "hello");
    hook.until("the conflict", |body| text_of(body).contains("Somebody else reads the updates")).await;
    api.set_webhook(Some("https://thief.example/secret-path"));
    let told = hook.until("the foreign webhook", |body| text_of(body).contains("to thief.example")).await;
    assert!(told.iter().all(|received| !text_of(&received.body).contains("secret-path")));
    api.set_webhook(None);

    daemon.notice(notice(1, 1, 1)).await;
    let sent = api.until("the card", |sent| sent.iter().any(|s| s.text.contains("CRITICAL"))).await;
    api.delete_message(OWNER, sent.last().unwrap().message);
    daemon.notice(notice(1, 2, 2)).await;
    hook.until("the lost message", |body| text_of(body).contains("is gone")).await;
    api.until("the card anew", |sent| sent.iter().any(|s| s.method == "sendMessage" && s.text.contains("2 orders")))
        .await;
}

#[tokio::test]
async fn a_broken_telegram_and_a_broken_webhook_are_tried_again() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let daemon = Daemon::paired(&api, &hook, 1).await;
    api.next("sendMessage", Misbehaviour::ServerError);
    hook.next(500);
    daemon.notice(notice(1, 1, 1)).await;
    let received = hook.until("the card's JSON", |body| body["incident"] == 1).await;
    assert_eq!(received.last().unwrap().body["repeated"], false, "the webhook said that it had not taken it");
    let sent = api.until("the card", |sent| sent.iter().any(|s| s.text.contains("CRITICAL"))).await;
    assert!(sent.last().unwrap().text.contains("Repeated:"), "nobody knows what a 5xx did");
}

#[tokio::test]
async fn the_bots_token_is_in_no_reason() {
    let api = BotApi::start().await;
    let hook = Hook::start().await;
    let daemon = Daemon::paired(&api, &hook, 20).await;
    drop(api);
    daemon.notice(notice(1, 1, 1)).await;
    hook.until("the report", |body| text_of(body).contains("Telegram is down")).await;
    assert!(!daemon.saved.lock().unwrap().contains("mock-token"));
    let told = hook.received();
    assert!(told.iter().all(|received| !received.body.to_string().contains("mock-token")), "{told:#?}");
    assert!(matches!(daemon.state().channels()[0].channel, Channel::Telegram));
}
