//! Each wrong table has its own words, and what is loaded is what the mode needs.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::{Config, ConfigError};

const ASK: &str = r#"
    mode = "ask"
    sub_account = "bot+1@example.com"
    bot_host = "elsewhere"
    quiet_s = 7
    admin_key = "file:admin.key"
    admin_secret = "file:admin.secret"
    cancel_key = "file:cancel.key"
    cancel_secret = "file:cancel.secret"
    [[key]]
    name = "bot"
    api_key = "file:bot.key"
    [[stop]]
    name = "unit"
    systemd = "freqtrade.service"
    user_manager = true
    [[stop]]
    name = "command"
    command = ["/usr/bin/env", "stop", "bot"]
    within_s = 20
    [[stop]]
    name = "freqtrade"
    freqtrade = "http://127.0.0.1:8080/"
    user = "file:user"
    password = "file:password"
    [[stop]]
    name = "hook"
    webhook = "https://stop.example/it"
    secret = "file:stop.secret"
"#;

const DRILL: &str = "[[key]]\n    name = \"fire-drill\"\n    api_key = \"file:drill.key\"\n    drill = true\n    ";

fn parse(text: &str) -> Result<ContainmentConfig, String> {
    toml::from_str::<ContainmentTable>(text).map_err(|error| error.to_string())?.checked()
}

fn folder(secrets: &[(&str, &str)]) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in secrets {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    folder
}

const SECRETS: [(&str, &str); 8] = [
    ("admin.key", "adminKey"),
    ("admin.secret", "s1"),
    ("cancel.key", "cancelKey"),
    ("cancel.secret", "s2"),
    ("bot.key", "botKey\n"),
    ("user", "freqtrader"),
    ("password", "p w"),
    ("stop.secret", "s3"),
];

fn load(config: &ContainmentConfig, secrets: &[(&str, &str)]) -> Result<(Stopping, Parts), String> {
    let folder = folder(secrets);
    config.load(&Secrets::new(folder.path(), None), &"watchKey".into()).map_err(|error| error.to_string())
}

#[test]
fn mode_ask_loads_what_it_acts_with() {
    let (stopping, parts) = load(&parse(ASK).unwrap(), &SECRETS).unwrap();
    assert_eq!((stopping.mode, stopping.means, stopping.quiet.as_secs()), (Mode::Ask, Means::SubAccount, 7));
    let keys: Vec<_> = stopping.keys.iter().map(|key| (&*key.name, key.role, key.print.clone())).collect();
    assert_eq!(
        keys,
        [
            ("watch", KeyRole::Watch, KeyPrint::of("watchKey")),
            ("cancel", KeyRole::Cancel, KeyPrint::of("cancelKey")),
            ("bot", KeyRole::Bot, KeyPrint::of("botKey")),
        ]
    );
    assert_eq!(stopping.hooks, ["unit".into(), "command".into(), "freqtrade".into(), "hook".into()]);
    assert_eq!(stopping.pausing, ["freqtrade".into()]);
    assert_eq!(parts.sub_account.as_deref(), Some("bot+1@example.com"));
    assert_eq!(parts.admin.unwrap().api_key(), "adminKey");
    assert_eq!(parts.cancel.unwrap().api_key(), "cancelKey");
    assert_eq!(parts.keys.len(), 3);
    assert!(matches!(&parts.hooks["unit"], StopHook::Systemd { manager: Manager::User, .. }));
    assert!(matches!(&parts.hooks["command"], StopHook::Command { within, .. } if within.as_secs() == 20));
    assert!(matches!(&parts.hooks["freqtrade"], StopHook::Freqtrade { url, .. } if url == "http://127.0.0.1:8080"));
}

#[test]
fn a_throw_away_key_is_declared_as_one_and_a_key_beside_the_bot_is_known() {
    let text = ASK.replace("[[stop]]\n    name = \"unit\"", &format!("{DRILL}[[stop]]\n    name = \"unit\""));
    let text = text.replace("\"elsewhere\"", "\"here\"");
    let secrets = [&SECRETS[..], &[("drill.key", "drillKey")]].concat();
    let config = parse(&text).unwrap();
    assert!(config.admin_beside_bot && !parse(ASK).unwrap().admin_beside_bot);
    assert!(!parse(&text.replace("\"ask\"", "\"watch\"")).unwrap().admin_beside_bot, "it is not even loaded");
    let (stopping, parts) = load(&config, &secrets).unwrap();
    let key = stopping.drill_key().unwrap();
    assert_eq!((&*key.name, &key.print, parts.keys.len()), ("fire-drill", &KeyPrint::of("drillKey"), 4));
}

#[test]
fn an_intake_that_other_hosts_can_reach_is_refused() {
    let sample = include_str!("../../../README.md").split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    for address in ["0.0.0.0:8731", "[::]:8731", "203.0.113.7:8731"] {
        let text = sample.replace("http = \"127.0.0.1:8731\"", &format!("http = \"{address}\""));
        let told = Config::parse(&text, Path::new(".")).unwrap_err();
        let expected = format!("intake.http is {address}, which other hosts can reach\nhint: ");
        assert!(told.starts_with(&expected), "{told}");
    }
}

#[test]
fn a_chat_that_nobody_may_pair_is_refused() {
    let sample = include_str!("../../../README.md").split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let told = Config::parse(&sample.replace("[123456789]", "[]"), Path::new(".")).unwrap_err();
    assert!(told.starts_with("telegram.allowed_users is empty") && told.contains("hint: "), "{told}");
}

#[test]
fn a_bots_user_is_no_operator() {
    let sample = include_str!("../../../README.md").split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let person = "[operators]\n[[operators.person]]\nname = \"alice\"\nuid = 1002\n";
    let text = sample.replace("[operators]\n", person);
    assert!(Config::parse(&text, Path::new(".")).is_ok());
    let told = Config::parse(&text.replace("# uids = [1001]", "uids = [1002]"), Path::new(".")).unwrap_err();
    assert!(told.starts_with("person alice commands as a user that may speak for a bot\nhint: "), "{told}");
}

#[test]
fn money_is_moved_where_it_is_asked_for_and_can_be() {
    let with = |text: String| parse(&text);
    let on = |text: &str| format!("transfer_to_master = true\n{text}");
    let (stopping, parts) = load(&with(on(ASK)).unwrap(), &SECRETS).unwrap();
    assert!(stopping.transfers() && parts.transfer_to_master);
    let (stopping, parts) = load(&with(on(ASK).replace("\"ask\"", "\"watch\"")).unwrap(), &SECRETS).unwrap();
    assert!(!stopping.transfers() && !parts.transfer_to_master);
    let (stopping, parts) = load(&with(ASK.to_owned()).unwrap(), &SECRETS).unwrap();
    assert!(!stopping.transfers() && !parts.transfer_to_master);
    for missing in ["cancel_", "sub_account"] {
        let without = ASK.lines().filter(|line| !line.trim().starts_with(missing));
        let without = without.filter(|line| {
            let admins = ["admin_", "bot_host"].iter().any(|name| line.trim().starts_with(name));
            missing != "sub_account" || !admins
        });
        let told = with(on(&without.collect::<Vec<_>>().join("\n"))).unwrap_err();
        assert!(told.contains("transfer_to_master needs") && told.contains("hint: "), "{told}");
    }
}

#[test]
fn what_is_told_of_a_change_names_places_and_holds_no_secret() {
    let keyed = |text: &str, key: &str| {
        let places = parse(text).unwrap().places(&key.as_bytes().to_vec().into());
        places.into_iter().collect::<std::collections::BTreeMap<_, _>>()
    };
    let places = |text: &str| keyed(text, "this daemon's own secret");
    let told = places(ASK);
    assert_eq!(told, places(ASK), "the same at each start");
    for (what, part) in [
        ("sub_account", "bot+1@example.com"),
        ("admin_key", "file:admin.key"),
        ("cancel_secret", "file:cancel.secret"),
        ("the place of key bot", "file:bot.key"),
        ("the way to stop the bot unit", "unit \"freqtrade.service\" of the user's manager within 30 s"),
        ("the way to stop the bot command", "command \"/usr/bin/env\" with 2 arguments (print "),
        ("the way to stop the bot freqtrade", "with user file:user and password file:password"),
        ("the way to stop the bot hook", "webhook at https://stop.example (print "),
    ] {
        assert!(told.get(what).is_some_and(|told| told.contains(part)), "{what}: {told:?}");
    }
    // A path can be a secret: that it has changed is told, and no more of it.
    let moved = places(&ASK.replace("stop.example/it", "stop.example/hush"));
    let hook = "the way to stop the bot hook";
    assert!(moved[hook] != told[hook] && !moved[hook].contains("hush"), "{}", moved[hook]);
    // Whoever guesses the rest cannot try his guess without the key.
    let elsewhere = keyed(ASK, "another daemon's secret");
    for (what, shown) in told.iter().filter(|(_, shown)| shown.contains("(print ")) {
        assert_ne!(*shown, elsewhere[what], "{what}");
    }
}

#[test]
fn mode_watch_loads_nothing() {
    for text in [ASK.replace("\"ask\"", "\"watch\""), ASK.replace("mode = \"ask\"", ""), String::new()] {
        // No secret is there: each load would fail.
        let (stopping, parts) = load(&parse(&text).unwrap(), &[]).unwrap();
        assert_eq!((stopping.mode, stopping.means), (Mode::Watch, Means::ByHand));
        assert_eq!((stopping.keys.len(), &*stopping.keys[0].name), (1, "watch"));
        assert!(stopping.hooks.is_empty() && parts.keys.is_empty() && parts.hooks.is_empty());
        assert!(parts.admin.is_none() && parts.cancel.is_none() && parts.sub_account.is_none());
    }
    assert!(load(&parse(ASK).unwrap(), &[]).err().unwrap().contains("cancel.key"));
}

#[test]
fn wrong_tables_are_told_with_what_to_do() {
    let without = |fields: &[&str]| {
        let kept = ASK.lines().filter(|line| !fields.iter().any(|field| line.trim().starts_with(field)));
        kept.collect::<Vec<_>>().join("\n")
    };
    let admin = ["admin_key", "admin_secret", "bot_host"];
    let credentials = ["admin_key", "admin_secret", "cancel_key", "cancel_secret", "sub_account", "bot_host"];
    for (text, expected) in [
        (without(&admin), "containment.sub_account is there and admin_key is not"),
        (without(&["sub_account"]), "containment.admin_key is there and sub_account is not"),
        (without(&credentials), "no credential to act with is there"),
        (without(&["bot_host"]), "admin_key is there and bot_host is not: whoever owns the bot's host"),
        (without(&["admin_key", "admin_secret", "sub_account"]), "bot_host is there and admin_key is not"),
        (ASK.replace("\"elsewhere\"", "\"there\""), "unknown variant `there`"),
        (
            ASK.replace(
                "[[stop]]\n    name = \"unit\"",
                &format!("{DRILL}{}\n    [[stop]]\n    name = \"unit\"", DRILL.replace("fire", "water")),
            ),
            "more than one [[containment.key]] has drill = true",
        ),
        (
            ASK.replace("api_key = \"file:bot.key\"", "api_key = \"file:bot.key\"\n    drill = true"),
            "declare the bot's key",
        ),
        (without(&["admin_secret"]), "admin_key has no admin_secret"),
        (without(&["cancel_key"]), "cancel_secret has no cancel_key"),
        (ASK.replace("admin.secret", "admin.key"), "name the same place"),
        (ASK.replace("bot+1@example.com", "bot"), "no e-mail address"),
        (ASK.replace("quiet_s = 7", "quiet_s = 0"), "from 1 to 60"),
        (ASK.replace("\"ask\"", "\"kill\""), "unknown variant `kill`"),
        (ASK.replace("name = \"bot\"", "name = \"cancel\""), "a name of countersign's own keys"),
        (
            ASK.replace(
                "[[stop]]\n    name = \"unit\"",
                "[[key]]\n    name = \"bot\"\n    api_key = \"file:x\"\n    [[stop]]\n    name = \"unit\"",
            ),
            "two [[containment.key]] are called \"bot\"",
        ),
        (ASK.replace("name = \"hook\"", "name = \"unit\""), "two [[containment.stop]] are called \"unit\""),
        (ASK.replace("[\"/usr/bin/env\", \"stop\", \"bot\"]", "[]"), "the command is empty"),
        (ASK.replace("/usr/bin/env", "docker"), "no absolute path"),
        (ASK.replace("within_s = 20", "within_s = 301"), "from 1 to 300"),
        (ASK.replace("\"freqtrade.service\"", "\"--now\""), "no name of a unit"),
        (ASK.replace("\"freqtrade.service\"", "\"freqtrade\""), "no name of a unit"),
        (ASK.replace("user_manager = true", "secret = \"file:x\""), "secret, which belongs to webhook"),
        (ASK.replace("within_s = 20", "user_manager = true"), "user_manager, which belongs to systemd"),
        (ASK.replace("systemd = \"freqtrade.service\"", ""), "needs one of command"),
        (ASK.replace("user_manager = true", "command = [\"/bin/true\"]"), "needs one of command"),
        (ASK.replace("http://127.0.0.1:8080/", "127.0.0.1:8080"), "must begin with https"),
        (ASK.replace("http://127", "http://me:pw@127"), "holds a user or a password"),
        (without(&["password"]), "has no password"),
        (without(&["secret"]), "has no secret"),
        (format!("{ASK}\nwitdh = 1"), "unknown field"),
    ] {
        let told = parse(&text).unwrap_err();
        assert!(told.contains(expected), "{told} for {expected}");
        assert!(told.contains("hint:") || !told.starts_with("containment.sub"), "{told}");
    }
}

#[test]
fn no_key_serves_two_purposes() {
    let with = |name: &str, text: &'static str| {
        let mut secrets = SECRETS;
        secrets.iter_mut().find(|(other, _)| *other == name).unwrap().1 = text;
        load(&parse(ASK).unwrap(), &secrets).err().unwrap()
    };
    assert!(with("bot.key", "cancelKey").contains("cancel and bot are the same key"));
    assert!(with("cancel.key", "watchKey").contains("watch and cancel are the same key"));
    assert!(with("admin.key", "botKey").contains("bot and admin are the same key"));
    assert!(with("bot.key", "a key").contains("characters other than letters"));
    assert!(with("cancel.secret", "-----BEGIN RSA PRIVATE KEY-----").contains("the cancel key"));
}

#[test]
fn the_table_is_part_of_the_configuration() {
    let sample = include_str!("../../../README.md").split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let config = Config::parse(sample, Path::new(".")).unwrap();
    assert_eq!(config.containment.mode, Mode::Watch);
}

#[test]
fn a_program_that_is_not_there_is_told_before_it_is_needed() {
    let text = ASK.replace("/usr/bin/env", "/nonexistent/stop");
    let config = parse(&text).unwrap();
    let told = config.missing_programs();
    assert!(told.len() == 1 && told[0].contains("\"command\" runs /nonexistent/stop, which is not there"), "{told:?}");
    // It is tried all the same: who only fails to stop the bot still watches, and stops the keys.
    let (stopping, parts) = load(&config, &SECRETS).unwrap();
    assert!(stopping.hooks.len() == 4 && parts.hooks.contains_key("command"));
    assert!(parse(ASK).unwrap().missing_programs().is_empty());
    assert!(parse(&text.replace("\"ask\"", "\"watch\"")).unwrap().missing_programs().is_empty());
    let sample = include_str!("../../../README.md").split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let tables = text.replace("[[", "[[containment.");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("countersign.toml");
    let written = sample.replace("[containment]\nmode = \"watch\" ", &format!("[containment]{tables}#"));
    std::fs::write(&path, written).unwrap();
    assert_eq!(Config::read(&path).unwrap().declared.missing_programs, told);
}

#[test]
fn a_file_that_everybody_may_write_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("countersign.toml");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let told = Config::read(&path).unwrap_err().to_string();
    assert!(told.contains("every user of this host may write") && told.contains("chmod o-w"), "{told}");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o664)).unwrap();
    assert!(matches!(Config::read(&path), Err(ConfigError::Wrong { .. })));
}
