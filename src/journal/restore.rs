//! The journal at a start: opened, replayed from its last snapshot, or set aside where it is broken.
//!
//! Invariant: a broken journal is never overwritten and never taken for an empty one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::clock;
use crate::journal::reader::{self, Replay};
use crate::journal::record::Hash;
use crate::journal::sqlite::{self, JournalError};
use crate::kernel::account::Kernel;
use crate::kernel::event::Fault;
use crate::kernel::shared::Shared;
use crate::kernel::time::Time;

/// The journal as the last run left it.
pub struct Start {
    pub connection: Connection,
    pub heads: BTreeMap<Box<str>, Hash>,
    pub last_seq: u64,
    pub last_at: Option<Time>,
    pub kernel: Option<Kernel>,
    pub shared: Shared,
    pub replayed: u64,
    /// The file is new, and goes on from what could be read of a broken one.
    pub salvaged: bool,
    /// Rows before the snapshot, to be verified beside the watch.
    pub unverified: u64,
    pub faults: Vec<Fault>,
}

/// Opens the journal and replays it from its last snapshot. A broken one is set aside, never overwritten: we watch on
/// with what could be read of it, and say so.
///
/// `has_run`: rows were written here before, so a journal without any is not a new one.
pub fn restore(file: &Path, has_run: bool) -> Result<Start, JournalError> {
    match replayed(file) {
        Ok(mut start) if start.replayed == 0 && has_run => {
            let detail = "the journal that was here is gone or empty: everything known of the account is gone with it";
            start.faults.push(Fault::BrokenJournal { detail: detail.into() });
            Ok(start)
        }
        Ok(start) => Ok(start),
        Err(error) if error.is_damage() => begin_anew(file, &error),
        Err(error) => Err(error),
    }
}

fn replayed(file: &Path) -> Result<Start, JournalError> {
    let connection = sqlite::open(file)?;
    let from = reader::snapshot_before(&connection, u64::MAX)?.map_or(1, |(first, _)| first);
    let mut replay = Replay::default();
    let heads = reader::walk(&connection, from, |record| replay.take(record))?;
    if replay.differing > 0 {
        tracing::warn!(rows = replay.differing, "This version judges some recorded events differently than before.");
    }
    Ok(Start {
        connection,
        heads: heads.hashes,
        last_seq: heads.last_seq,
        last_at: heads.last_at,
        kernel: replay.accounts.into_values().next(),
        shared: replay.shared,
        replayed: heads.rows,
        salvaged: false,
        unverified: from.saturating_sub(1),
        faults: Vec::new(),
    })
}

fn begin_anew(file: &Path, error: &JournalError) -> Result<Start, JournalError> {
    let replay = salvage(file);
    let aside = set_aside(file)?;
    let detail = format!("{error}; the file is kept as {}, and a new one was begun", aside.display());
    tracing::error!(%detail, "The journal is broken.");
    Ok(Start {
        connection: sqlite::open(file)?,
        heads: BTreeMap::new(),
        last_seq: replay.last_seq,
        last_at: replay.last_at,
        kernel: replay.accounts.into_values().next(),
        shared: replay.shared,
        replayed: 0,
        salvaged: replay.events > 0,
        unverified: 0,
        faults: vec![Fault::BrokenJournal { detail: detail.into() }],
    })
}

/// The state at the last row that can be trusted: from the latest snapshot that still stands whole, up to the break.
fn salvage(file: &Path) -> Replay {
    let Ok(connection) = sqlite::open_to_read(file) else { return Replay::default() };
    let mut before = u64::MAX;
    loop {
        let snapshot = reader::snapshot_before(&connection, before).unwrap_or(None);
        let (first, last) = snapshot.unwrap_or((1, 0));
        let mut replay = Replay::default();
        if let Err(error) = reader::walk(&connection, first, |record| replay.take(record)) {
            tracing::debug!(%error, from = first, "The broken journal was read up to here.");
        }
        if replay.last_seq >= last {
            return replay;
        }
        before = last;
    }
}

fn set_aside(file: &Path) -> Result<PathBuf, JournalError> {
    let failed = |source| JournalError::SetAside { path: file.to_owned(), source };
    let stamp = clock::wall().millis();
    let aside = file.with_extension(format!("broken-{stamp}.sqlite"));
    std::fs::rename(file, &aside).map_err(failed)?;
    for ending in ["-wal", "-shm"] {
        let beside = |file: &Path| PathBuf::from(format!("{}{ending}", file.display()));
        if beside(file).exists() {
            std::fs::rename(beside(file), beside(&aside)).map_err(failed)?;
        }
    }
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::{Record, SHARED_CHAIN, text};
    use crate::kernel::channel::ChatId;
    use crate::kernel::event::Event;
    use crate::kernel::order::Account;
    use crate::kernel::shared::SharedEvent;

    /// Snapshots, each of two rows, and an event after each.
    fn journal(folder: &Path, snapshots: u64) -> PathBuf {
        let file = folder.join("journal.sqlite");
        let (journal, writer) = sqlite::writer(sqlite::open(&file).unwrap(), BTreeMap::new(), 0);
        let mut rows = Vec::new();
        let mut row = |chain: &str, body: String| {
            let seq = u64::try_from(rows.len()).unwrap() + 1;
            rows.push(Record { seq, chain: chain.into(), at: Time::from_millis(1_000), body, effects: String::new() });
        };
        for number in 1..=snapshots {
            let kernel = Kernel::new(Account::new("main"));
            let (declared, rules) = (Box::new(kernel.declared().clone()), Box::new(kernel.rules().clone()));
            row("main", text(&Event::Restored { state: Box::default(), declared, rules }));
            row(SHARED_CHAIN, text(&SharedEvent::Restored(Box::default())));
            row(SHARED_CHAIN, text(&SharedEvent::Answered { chat: ChatId(7), text: format!("{number}").into() }));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(journal.append(rows)).unwrap();
        drop(journal);
        writer.run();
        file
    }

    fn spoil(file: &Path, seq: i64) {
        let changed = Connection::open(file).unwrap().execute("UPDATE record SET at = at + 1 WHERE seq = ?1", [seq]);
        assert_eq!(changed, Ok(1));
    }

    #[test]
    fn goes_on_from_the_latest_snapshot_that_stands_whole() {
        for (broken, last_seq) in [(9, 8), (8, 7), (7, 6)] {
            let folder = tempfile::tempdir().unwrap();
            let file = journal(folder.path(), 3);
            spoil(&file, broken);
            let start = restore(&file, true).unwrap();
            assert_eq!((start.last_seq, start.salvaged, start.faults.len()), (last_seq, true, 1), "row {broken}");
            assert!(start.kernel.is_some());
            assert_eq!(reader::verify(&file).unwrap().rows, 0, "a new file was begun");
            let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let kept = |name: &str| name.starts_with("journal.broken-") && name.ends_with(".sqlite");
            assert_eq!(names.filter(|name| kept(name.to_str().unwrap())).count(), 1);
        }
    }

    #[test]
    fn does_not_look_before_the_last_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let file = journal(folder.path(), 3);
        spoil(&file, 6);
        let start = restore(&file, true).unwrap();
        assert_eq!((start.last_seq, start.unverified, start.faults.len()), (9, 6, 0));
        assert!(reader::verify(&file).is_err(), "that is for the check beside the watch");
    }

    #[test]
    fn a_journal_that_cannot_be_written_is_left_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.sqlite");
        std::fs::create_dir(&file).unwrap();
        assert!(matches!(restore(&file, true), Err(JournalError::Make { .. })));
        assert!(file.exists());
    }

    #[test]
    fn nothing_left_is_a_new_start_that_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.sqlite");
        std::fs::write(&file, [b'x'; 9_000]).unwrap();
        let start = restore(&file, true).unwrap();
        assert_eq!((start.last_seq, start.salvaged, start.faults.len()), (0, false, 1));
    }
}
