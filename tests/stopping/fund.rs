//! Fund mode from end to end: one person asks on the host, and only the other, on his phone, lets it happen.

use super::*;

/// The second person's own, in base32 like the other.
const BOBS_SECRET: &str = "MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK";

fn bobs_password() -> String {
    let secret = totp_rs::Secret::try_from_base32(BOBS_SECRET).unwrap();
    let totp = totp_rs::Builder::new().with_secret(secret).with_account_name("main").build().unwrap();
    totp.generate(u64::try_from(clock::wall().millis()).unwrap() / 1_000).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_person_asks_for_on_the_host_the_other_approves_on_his_phone() {
    let api = BotApi::start().await;
    let stage = armed(31, Some(&api)).await;
    support::stage::write_private(&stage.folder.path().join("bob.secret"), BOBS_SECRET);
    let uid = rustix::process::geteuid().as_raw();
    let people = format!(
        "two_people = true\n[[operators.person]]\nname = \"alice\"\nuid = {uid}\ntotp = \"file:totp.secret\"\n\
         [[operators.person]]\nname = \"bob\"\ntelegram = {}\ntotp = \"file:bob.secret\"\n",
        support::stage::OWNER
    );
    stage.change_config(|config| config.replace("totp = \"file:totp.secret\"\n", &people));
    let daemon = stage.run();
    stage.until_proved().await;
    stage.pair(&api).await;
    // From now on the alerts of both go there, and one of them alone does not move them.
    let moved = stage.countersign(&["pair", "--why", "another chat"], "123456\n").await;
    assert!(moved.status == 1 && moved.out.is_empty() && moved.err.contains("another person"), "{moved:?}");
    assert!(moved.err.contains("the one-time password is wrong"), "{moved:?}");

    let frozen = stage.countersign(&["freeze", "main", "--yes", "--json"], "").await;
    assert_eq!((frozen.status, &frozen.json()["word"]), (0, &json!("frozen")), "{frozen:?}");
    let asked = stage.countersign(&["resume", "main", "--why", "it was a test"], &one_time_password(0)).await;
    assert!(asked.status == 1 && asked.err.contains("request 1: NOTHING is done yet"), "{asked:?}");
    let waiting = stage.countersign(&["requests"], "").await;
    assert!(waiting.status == 1 && waiting.out.contains("1. resume main, asked for by alice"), "{waiting:?}");
    let own = stage.countersign(&["approve", "1"], &one_time_password(1)).await;
    assert!(own.status == 1 && own.err.contains("whoever asks cannot approve"), "{own:?}");
    assert_eq!(refused_with(&stage).await, Some(-2015), "it is still frozen");

    api.until("the request", |sent| sent.iter().any(|s| s.text.contains("asks to resume main"))).await;
    let now = clock::wall().millis() / 1_000;
    api.say(support::stage::OWNER.try_into().unwrap(), now, &format!("/approve 1 {}", bobs_password()));
    let approved = "Request 1 was approved by bob (Telegram user 42): alice";
    api.until(approved, |sent| sent.iter().any(|s| s.text.contains(approved))).await;
    stage.until_contained("the release", WITHIN, |progress| progress["word"] == "released").await;
    assert_eq!(refused_with(&stage).await, None, "it trades again");
    assert!(daemon.stop().await.success());
    assert_eq!(journal::replay(&stage.journal()).unwrap().differing, 0);
}
