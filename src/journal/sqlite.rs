//! The journal on disk: one SQLite file, written by one thread that commits whatever has gathered while the last sync
//! ran. There is no timer: a lone row is on disk after one sync, and a burst shares it.

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};
use tokio::sync::{mpsc, watch};

use crate::journal::record::{Hash, NO_HASH, Record, VERSION};

/// Rows that may wait for the disk. At the limit whoever writes waits too: the stream's sockets fill up, the exchange
/// cuts us off, and the gap is told.
pub const WAITING_MAX: usize = 65_536;
/// Rows of one transaction, so that a commit stays short.
const BATCH_MAX: usize = 512;
/// A failed write is tried again at this interval, for as long as the process lives.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the journal {} cannot be made or written: {source}\nhint: is it the file of the user that runs countersign?", path.display())]
    Make { path: PathBuf, source: std::io::Error },
    #[error("the journal {} cannot be opened: {cause}", path.display())]
    Open { path: PathBuf, cause: rusqlite::Error },
    #[error(
        "row {seq} of the journal is of version {found}, and this countersign reads version {VERSION}\n\
         hint: run the countersign that wrote it, or begin with another `data` folder"
    )]
    Version { seq: u64, found: i64 },
    #[error("the journal could not be read: {0}\nhint: is it a journal of countersign's, and whole?")]
    Read(#[from] rusqlite::Error),
    #[error("the broken journal {} cannot be set aside: {source}\nhint: move it away by hand, and keep it", path.display())]
    SetAside { path: PathBuf, source: std::io::Error },
    #[error("row {seq} of the journal is broken: {detail}")]
    Broken { seq: u64, detail: String },
}

impl JournalError {
    /// The file itself is damaged. A full disk or a wrong permission says nothing about it.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Broken { .. } => true,
            Self::Open { cause, .. } | Self::Read(cause) => matches!(
                cause.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
            ),
            Self::Make { .. } | Self::Version { .. } | Self::SetAside { .. } => false,
        }
    }
}

/// Opens the file for writing, makes it if there is none, and takes the only writer's place.
pub fn open(path: &Path) -> Result<Connection, JournalError> {
    let failed = |cause| JournalError::Open { path: path.to_owned(), cause };
    // The trading history is its owner's alone; SQLite gives its other files the mode of this one.
    make_private(path).map_err(|source| JournalError::Make { path: path.to_owned(), source })?;
    let connection = Connection::open(path).map_err(failed)?;
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 8000;
             CREATE TABLE IF NOT EXISTS record (
                 seq INTEGER PRIMARY KEY, chain TEXT NOT NULL, at INTEGER NOT NULL, version INTEGER NOT NULL,
                 body TEXT NOT NULL, effects TEXT NOT NULL, hash BLOB NOT NULL
             ) STRICT;
             CREATE INDEX IF NOT EXISTS snapshots ON record (chain, seq)
                 WHERE substr(body, 1, 19) = '{\"event\":\"restored\"';",
        )
        .map_err(failed)?;
    let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).map_err(failed)?;
    if synchronous != 2 {
        return Err(JournalError::Broken { seq: 0, detail: "SQLite did not take synchronous=FULL".to_owned() });
    }
    Ok(connection)
}

/// The journal tells what an account does, so it is made for its owner alone; SQLite gives the files beside it the
/// same permissions.
fn make_private(path: &Path) -> std::io::Result<()> {
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

/// Opens the file for reading only, beside a daemon that may be writing.
pub fn open_to_read(path: &Path) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(|cause| JournalError::Open { path: path.to_owned(), cause })
}

/// The core's end of the journal.
#[derive(Clone, Debug)]
pub struct Journal {
    rows: mpsc::Sender<Vec<Record>>,
    committed: watch::Receiver<u64>,
}

impl Journal {
    /// Rows that belong together go in together, and are committed together.
    pub async fn append(&self, rows: Vec<Record>) -> Result<(), WriterGone> {
        self.rows.send(rows).await.map_err(|_| WriterGone)
    }

    /// The highest sequence that is on disk, as it grows.
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.committed.clone()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the journal's writer has ended")]
pub struct WriterGone;

/// The writing half: `run` belongs on a thread of its own.
pub struct Writer {
    connection: Connection,
    heads: BTreeMap<Box<str>, Hash>,
    rows: mpsc::Receiver<Vec<Record>>,
    committed: watch::Sender<u64>,
}

/// Pairs a connection with a queue. `heads` are the last hashes of the chains.
pub fn writer(connection: Connection, heads: BTreeMap<Box<str>, Hash>, last_seq: u64) -> (Journal, Writer) {
    let (rows_in, rows) = mpsc::channel(WAITING_MAX);
    let (committed_in, committed) = watch::channel(last_seq);
    (Journal { rows: rows_in, committed }, Writer { connection, heads, rows, committed: committed_in })
}

impl Writer {
    /// Writes until every sender is gone. A write that fails is tried again, since a full disk may be cleared.
    pub fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while let Some(first) = self.rows.blocking_recv() {
            batch.extend(first);
            while batch.len() < BATCH_MAX
                && let Ok(more) = self.rows.try_recv()
            {
                batch.extend(more);
            }
            let heads = loop {
                match self.commit(&batch) {
                    Ok(heads) => break heads,
                    Err(error) => {
                        tracing::error!(%error, rows = batch.len(), "The journal cannot be written; trying again.");
                        std::thread::sleep(TRY_AGAIN_AFTER);
                    }
                }
            };
            self.heads = heads;
            if let Some(last) = batch.last() {
                self.committed.send_replace(last.seq);
            }
            batch.clear();
        }
    }

    fn commit(&mut self, batch: &[Record]) -> rusqlite::Result<BTreeMap<Box<str>, Hash>> {
        let mut heads = self.heads.clone();
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO record (seq, chain, at, version, body, effects, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            for row in batch {
                let before = heads.get(&row.chain).unwrap_or(&NO_HASH);
                let hash = row.hash(before);
                let seq = i64::try_from(row.seq).unwrap_or(i64::MAX);
                insert.execute(params![seq, row.chain, row.at.micros(), VERSION, row.body, row.effects, hash])?;
                heads.insert(row.chain.clone(), hash);
            }
        }
        transaction.commit()?;
        Ok(heads)
    }
}
