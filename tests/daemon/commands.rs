//! What the commands answer when something is wrong before anything runs: the exit status a service manager reads,
//! and a hint for the person.

use crate::stage::{Exchange, Folder};

const CONFIG: &str = include_str!("countersign.toml");

fn config(exchange: &Exchange) -> String {
    let (own, _channels) = CONFIG.split_once("[telegram]").unwrap();
    own.replace("WS", &exchange.ws).replace("REST", &exchange.rest)
}

fn folder(exchange: &Exchange) -> Folder {
    let watch = exchange.key("main/watch");
    let secrets = [("watch.key", watch.api_key.as_str()), ("watch.secret", &watch.secret)];
    let tags = [("tag.secret", crate::TAG_SECRET), ("grid.secret", crate::GRID_SECRET)];
    Folder::new(&config(exchange), &[secrets, tags].concat())
}

#[tokio::test]
async fn a_wrong_configuration_ends_with_78_and_a_hint() {
    let exchange = Exchange::start().await;
    let folder = folder(&exchange);
    let sound = config(&exchange);
    let cases = [
        (sound.replace("orders_per_minute", "orders_per_fortnight"), "orders_per_fortnight"),
        (sound.replace("quote.USDT", "quote.EUR"), "hint: [bot.quote.USDT]"),
        (sound.replace("unseen_after_s = 4", "unseen_after_s = 4000"), "from 1 to 600"),
        (sound.replace("file:tag.secret", "hunter2"), "env:NAME"),
        (sound.replace("file:tag.secret", "vault:tag"), "hint: add [vault]"),
        (sound.split("[[bot]]").next().unwrap().to_owned(), "hint: without one"),
    ];
    for (text, said) in cases {
        folder.write("countersign.toml", &text);
        let (told, status) = folder.fail(&["run"]).await;
        assert!(status == 78 && told.contains(said), "{said}: {status} {told}");
    }
    std::fs::remove_file(folder.path("countersign.toml")).unwrap();
    for command in ["run", "status"] {
        let (told, status) = folder.fail(&[command]).await;
        assert!(status == 78 && told.contains("hint:"), "{command}: {status} {told}");
    }
}

#[tokio::test]
async fn a_secret_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let exchange = Exchange::start().await;
    let folder = folder(&exchange);
    let path = folder.path("watch.secret");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (told, status) = folder.fail(&["run"]).await;
    assert!(status == 78 && told.contains("hint: chmod 600") && told.contains("watch.secret"), "{status} {told}");
    std::fs::remove_file(&path).unwrap();
    let (told, status) = folder.fail(&["run"]).await;
    assert!(status == 78 && told.contains("hint:"), "{status} {told}");
}

#[tokio::test]
async fn one_daemon_a_folder_and_the_others_are_told() {
    let exchange = Exchange::start().await;
    let folder = folder(&exchange);
    let (told, status) = folder.fail(&["status"]).await;
    assert!(status == 1 && told.contains("hint:"), "nothing runs: {status} {told}");
    let watcher = folder.run();
    let status = folder.until_proved().await;
    assert_eq!(status["bots"][0]["connected"], false);
    let (told, status) = folder.fail(&["run"]).await;
    assert!(status == 1 && told.contains("another countersign") && told.contains("hint:"), "{status} {told}");
    let (told, status) = folder.fail(&["incident", "9"]).await;
    assert!(status == 1 && told.contains("no incident 9") && told.contains("hint:"), "{status} {told}");
    let (told, status) = folder.fail(&["pair"]).await;
    assert!(status == 1 && told.contains("hint: add [telegram]"), "{status} {told}");
    let (answer, status) = folder.ask(&["status"]).await;
    assert_eq!((&answer["channels"], status), (&serde_json::json!([]), 1), "alerts reach nobody");
    let (told, status) = folder.fail(&["statuss"]).await;
    assert_eq!(status, 2, "{told}");
    assert!(watcher.terminate().await.success(), "{}", folder.log());
    let (told, status) = folder.fail(&["status"]).await;
    assert!(status == 1 && told.contains("hint:"), "it has ended: {status} {told}");
}
