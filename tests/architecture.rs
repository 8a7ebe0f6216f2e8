//! The walls between the layers, kept by reading the sources: what a compiler cannot refuse, this does.

use std::fs;
use std::path::{Path, PathBuf};

/// What the deciding layers may not name: I/O, clocks, randomness, unordered maps, floats, other layers.
const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "std::process",
    "std::env",
    "std::io",
    "Instant::now",
    "SystemTime",
    "getrandom",
    "HashMap",
    "HashSet",
    "DashMap",
    "f64",
    "f32",
    "async ",
    ".await",
    "reqwest",
    "rusqlite",
    "teloxide",
    "secrecy",
    "println!",
    "tracing::",
];

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push((path.clone(), code(&fs::read_to_string(&path).unwrap())));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folder}");
    found.sort();
    found
}

/// The text without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| line.split(" // ").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
}

fn breaches<'a>(folder: &str, words: &[&'a str], except: &[&str]) -> Vec<(PathBuf, &'a str)> {
    let mut found = Vec::new();
    for (path, code) in sources(folder) {
        if is_test(&path) || except.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        found.extend(words.iter().filter(|word| code.contains(**word)).map(|word| (path.clone(), *word)));
    }
    found
}

#[test]
fn the_kernel_decides_and_does_nothing_else() {
    assert_eq!(breaches("kernel", IMPURE, &[]), []);
    let layers = [
        "crate::venue",
        "crate::inlet",
        "crate::outlet",
        "crate::journal",
        "crate::tag",
        "crate::cli",
        "crate::daemon",
        "crate::config",
        "crate::clock",
        "crate::secret",
        "crate::sim",
    ];
    assert_eq!(breaches("kernel", &layers, &[]), []);
}

#[test]
fn the_venue_is_pure() {
    // Signing is pure and needs the secret, which cannot be printed.
    let impure: Vec<&str> = IMPURE.iter().copied().filter(|word| *word != "secrecy").collect();
    // The JSON reader must name the float it refuses to read.
    assert_eq!(breaches("venue", &impure, &["binance/json.rs"]), []);
    assert_eq!(breaches("venue", &["crate::inlet", "crate::outlet", "crate::journal", "crate::daemon"], &[]), []);
}

#[test]
fn the_tag_is_pure() {
    let impure: Vec<&str> = IMPURE.iter().copied().filter(|word| *word != "secrecy").collect();
    assert_eq!(breaches("tag", &impure, &[]), []);
}

#[test]
fn only_the_clock_reads_a_clock() {
    let clocks = ["Instant::now()", "SystemTime::now()", "UNIX_EPOCH"];
    // What waits for a deadline uses tokio's clock, which no decision sees.
    let waiting = ["clock.rs", "release.rs", "demo/mod.rs", "demo/bot.rs", "sim/connection.rs"];
    assert_eq!(breaches("", &clocks, &waiting), []);
    assert_eq!(breaches("", &["std::time::Instant", "SystemTime::now"], &["clock.rs"]), []);
}

#[test]
fn only_the_daemon_spawns() {
    // The simulator, the demo and a server's own connections hold their tasks in sets of their own.
    assert_eq!(breaches("", &["tokio::spawn(", "thread::spawn("], &["daemon.rs", "demo/mod.rs", "cli/run.rs"]), []);
}

#[test]
fn decimals_and_secrets_have_one_file_each() {
    assert_eq!(breaches("", &["fastnum"], &["kernel/money.rs"]), []);
    assert_eq!(breaches("", &["std::env::var", "CREDENTIALS_DIRECTORY"], &["src/secret.rs"]), []);
    assert_eq!(breaches("", &["argon2", "chacha20poly1305"], &["secret/vault.rs", "secret/vault/key.rs"]), []);
    assert_eq!(breaches("", &["dashmap"], &["board.rs"]), []);
}

#[test]
fn what_ends_a_theft_leans_on_no_channel() {
    let lane = ["containment.rs", "addresses.rs", "bot.rs"].map(|name| Path::new("outlet").join(name));
    let code: Vec<_> =
        sources("outlet").into_iter().filter(|(path, _)| lane.iter().any(|name| path.ends_with(name))).collect();
    assert_eq!(code.len(), lane.len());
    for (path, code) in code {
        for word in ["teloxide", "telegram", "rusqlite", "crate::journal"] {
            assert!(!code.contains(word), "{} names {word}", path.display());
        }
    }
}

#[test]
fn every_file_says_why_it_exists() {
    for (path, _) in sources("") {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!") || is_test(&path), "{} does not open with a //! sentence", path.display());
    }
}
