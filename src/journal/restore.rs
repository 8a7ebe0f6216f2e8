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
    /// Rows before the snapshot, to be verified beside the watch.
    pub unverified: u64,
    pub faults: Vec<Fault>,
}

/// Opens the journal and replays it from its last snapshot. A broken one is set aside, never overwritten: we watch on
/// with what could be read of it, and say so.
pub fn restore(file: &Path) -> Result<Start, JournalError> {
    let mut replay = Replay::default();
    let read = sqlite::open(file).and_then(|connection| {
        let from = reader::last_snapshot(&connection)?;
        let heads = reader::walk(&connection, from, |record| replay.take(record))?;
        Ok((connection, from, heads))
    });
    let (connection, from, heads, faults) = match read {
        Ok((connection, from, heads)) => (connection, from, heads, Vec::new()),
        Err(error @ (JournalError::Broken { .. } | JournalError::Read(_) | JournalError::Open { .. })) => {
            let aside = set_aside(file)?;
            let detail = format!("{error}; the file is kept as {}, and a new one was begun", aside.display());
            tracing::error!(%detail, "The journal is broken.");
            let heads = reader::Heads { last_seq: replay.last_seq, last_at: replay.last_at, ..Default::default() };
            (sqlite::open(file)?, 1, heads, vec![Fault::BrokenJournal { detail: detail.into() }])
        }
        Err(error) => return Err(error),
    };
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
        unverified: from.saturating_sub(1),
        faults,
    })
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
