//! What README promises to be copied works as it stands there.

use std::path::Path;

use countersign::config::Config;
use countersign::inlet::wire;
use countersign::kernel::order::Account;
use countersign::kernel::time::Time;
use countersign::tag::TagKeys;
use countersign::tag::layout::KeyId;
use countersign::tag::mac::{KeyOwner, TagKey};

const README: &str = include_str!("../README.md");

fn block(language: &str) -> &'static str {
    let start = format!("```{language}\n");
    README.split(start.as_str()).nth(1).and_then(|rest| rest.split("```").next()).unwrap()
}

#[test]
fn the_sample_configuration_is_one() {
    let config = Config::parse(block("toml"), Path::new(".")).unwrap();
    assert_eq!((config.declared.bots.len(), config.declared.exceptions.len()), (1, 0));
    // Every line that is commented out is one that could be written, but for the folder of rules, which must exist.
    let all: String = block("toml")
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with("[[") => format!("{rest}\n"),
            Some(rest) if rest.contains(" = ") && !rest.starts_with("rules") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = Config::parse(&all, Path::new(".")).unwrap();
    assert_eq!(config.declared.exceptions.len(), 1);
    assert!(config.bots.iter().all(|bot| bot.tags.is_some() && bot.uids.is_some()));
}

#[test]
fn the_sample_intent_is_read() {
    let account = Account::new("main");
    let key = TagKey::derive(&[7; 32], &account, KeyOwner::Daemon, KeyId::new(0).unwrap()).unwrap();
    let keys = TagKeys::new(account, "binance/spot", key, Vec::new(), Vec::new()).unwrap();
    let line = block("json").lines().next().unwrap();
    wire::read(line.as_bytes(), &keys, Time::from_millis(1_764_000_000_000)).unwrap();
}
