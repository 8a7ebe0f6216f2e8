//! What could trade or revoke is not in the process at all unless its owner lets it act.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use serde_json::Value;

use crate::support::python::not_permitted;
use crate::support::stage::{Daemon, Stage};
use crate::{BOT, still};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_holds_no_secret_that_can_act() {
    for (mode, held) in [("watch", false), ("ask", true)] {
        let stage = Stage::open(still(8)).await;
        stage.write_config(&[BOT], None, None);
        stage.arm(mode, 1, "");
        let daemon = stage.run();
        stage.until_proved().await;
        let memory = match Memory::of(&daemon) {
            Ok(memory) => memory,
            Err(error) => return not_permitted(&format!("a daemon's memory may not be read here: {error}")),
        };
        let (watch, admin, cancel) = (stage.key("watch"), stage.key("admin"), stage.key("cancel"));
        assert!(memory.holds(&watch.secret), "{mode}: the secret that reads is in use, so it must be found");
        let acting = [&admin.api_key, &admin.secret, &cancel.api_key, &cancel.secret, &stage.key("bot").api_key];
        for (name, secret) in
            ["admin key", "admin secret", "cancel key", "cancel secret", "bot's key"].iter().zip(acting)
        {
            assert_eq!(memory.holds(secret), held, "{mode}: the {name}");
        }
        if mode == "watch" {
            let refused = stage.countersign(&["kill", "main", "--yes"], "").await;
            assert!(refused.status == 1 && refused.err.contains("Do it by hand, now: 1. delete"), "{refused:?}");
            let status =
                stage.until("the status", crate::support::arms::WITHIN, |status: &Value| !status.is_null()).await;
            assert!(status["stopping"].as_str().unwrap().contains("only watches here"), "{status:#}");
        }
    }
}

/// Whatever the process can write to: a mapping that it cannot is a file's.
struct Memory(Vec<Vec<u8>>);

impl Memory {
    fn of(daemon: &Daemon) -> std::io::Result<Self> {
        let folder = format!("/proc/{}", daemon.pid().as_raw_nonzero());
        let (maps, memory) = (fs::read_to_string(format!("{folder}/maps"))?, File::open(format!("{folder}/mem"))?);
        let mut mappings = Vec::new();
        for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw"))) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            // One that went away meanwhile held nothing that is still held.
            if memory.read_exact_at(&mut bytes, from).is_ok() {
                mappings.push(bytes);
            }
        }
        Ok(Self(mappings))
    }

    fn holds(&self, secret: &str) -> bool {
        let secret = secret.as_bytes();
        self.0.iter().any(|bytes| bytes.windows(secret.len()).any(|window| window == secret))
    }
}
