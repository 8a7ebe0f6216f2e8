//! What is said of what was done, and where.

use super::*;

#[tokio::test]
async fn a_typed_command_is_carried_out_once_it_is_confirmed() {
    let play = Play::set().await;
    play.api.say(OWNER, play.daemon.clock.secs(), "/freeze");
    let question = with_button(&play.api, &play.daemon, "Yes, freeze main").await;
    play.settle().await;
    assert_eq!(play.commands(), []);
    play.api.press(OWNER, question.message, data(&question, "Yes, freeze main"));
    play.commanded(Ordered::Freeze).await;
    assert_eq!(play.daemon.done.lock().unwrap().commands[0].1, None);
}

#[tokio::test]
async fn a_question_expires_and_a_card_changes_under_the_thumb() {
    let play = Play::set().await;
    let asked_for = play.api.allowed_updates();
    assert_eq!(asked_for, json!(["message", "edited_message", "callback_query"]));
    play.daemon.notice(notice(7, 4, 2)).await;
    play.api.until("the change", |sent| sent.iter().any(|s| s.text.contains("· 2 orders"))).await;
    // A moment later the old buttons no longer count.
    tokio::time::sleep(Duration::from_secs(11) / SPEED).await;
    play.api.press(OWNER, play.card.message, data(&play.card, "Kill"));
    play.refused("not of what its message shows").await;
    tokio::time::sleep(Duration::from_secs(60) / SPEED).await;
    play.api.inject(play.pressed());
    play.refused("has expired").await;
    play.settle().await;
    assert_eq!(play.commands(), []);
}

#[tokio::test]
async fn what_was_done_is_said_and_the_question_loses_its_buttons() {
    let play = Play::set().await;
    assert_eq!(play.api.buttons_of(OWNER, play.question.message).len(), 2);
    assert_eq!(play.question.reply_to, Some(play.card.message.into()));
    play.api.inject(play.pressed());
    play.api.until("the end of the buttons", |sent| sent.iter().any(|s| s.method == "editMessageReplyMarkup")).await;
    assert_eq!(play.api.buttons_of(OWNER, play.question.message).len(), 0);
    assert!(play.api.answered().iter().any(|answered| answered.text == "Killing main."), "{:?}", play.api.answered());
    play.api.until("the answer", |sent| sent.iter().any(|s| s.text.contains("The kill of main has begun"))).await;
    let done = play.daemon.done.lock().unwrap();
    let (said, incident, totp) = &done.commands[0];
    assert_eq!((&*said.by, *incident, *totp), ("Telegram user 42", Some(IncidentId(7)), Totp::Absent));
}

#[tokio::test]
async fn a_resume_is_told_on_both_channels_and_its_code_nowhere() {
    let play = Play::set().await;
    let code = play.code();
    play.api.say(OWNER, play.daemon.clock.secs(), &format!("/resume main {code} the thief's key is gone"));
    let told = "main is being resumed";
    let on_telegram = play.api.until(told, |sent| sent.iter().any(|s| s.text.contains(told))).await;
    let on_hook = play.hook.until(told, |body| text_of(body).contains(told)).await;
    let all = [on_telegram.last().unwrap().text.clone(), text_of(&on_hook.last().unwrap().body).to_owned()];
    assert!(all.iter().all(|text| text.contains("Ordered by Telegram user 42, with a one-time password.")), "{all:?}");
    let why = all.iter().filter(|text| text.contains("Why: the thief's key is gone.") && !text.contains(&code));
    assert_eq!(why.count(), 2);
    assert!(matches!(play.daemon.done.lock().unwrap().commands[0].2, Totp::Right { .. }));
}

#[tokio::test]
async fn a_press_is_answered_even_if_telegram_does_not_take_the_answer() {
    let play = Play::set().await;
    play.api.always("answerCallbackQuery", Some(support::bot_api::Misbehaviour::Hang));
    play.api.inject(play.pressed());
    play.commanded(Ordered::Kill).await;
    play.api.until("the answer", |sent| sent.iter().any(|s| s.text.contains("The kill of main has begun"))).await;
}

#[tokio::test]
async fn a_daemon_that_may_stop_nothing_says_what_to_do_by_hand_and_tells_of_a_refused_resume() {
    let (api, hook) = (BotApi::start().await, Hook::start().await);
    let stage = Stage::set(11, &["maker"], Some(&api), Some(&hook.url())).await;
    let daemon = stage.run();
    stage.until_proved().await;
    stage.pair(&api).await;
    let now = || clock::wall().millis() / 1_000;
    api.say(OWNER, now(), "/kill");
    let by_hand = "countersign only watches this account, and cannot stop anything. Do it by hand, now";
    api.until("what to do by hand", |sent| sent.iter().any(|s| s.text.contains(by_hand))).await;
    api.say(OWNER, now(), "/resume main 123456 it was me");
    api.until("the same again", |sent| sent.iter().filter(|s| s.text.contains(by_hand)).count() == 2).await;
    let order = OperatorCommand::Order { incident: None, order: Command::Resume, code: None, why: None };
    let refused = stage.ask(&order).await.unwrap_err().to_string();
    assert!(refused.contains("this needs a one-time password"), "{refused}");
    hook.until("the refusal", |body| text_of(body).contains("operator tried to resume main, and was refused")).await;
    assert!(daemon.stop().await.success());
    let rows = journal::rows(&stage.journal());
    let texts: Vec<&str> =
        rows.iter().filter(|row| row.is("update")).filter_map(|row| row.body["text"].as_str()).collect();
    assert!(texts.contains(&"/resume main it was me") && !texts.concat().contains("123456"), "{texts:?}");
    assert_eq!(journal::replay(&stage.journal()).unwrap().differing, 0);
}
