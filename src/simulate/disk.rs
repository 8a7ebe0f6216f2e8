//! The journal in memory: rows as they go to the disk, how far they are on it, and what a start makes of them. Rows,
//! hashes and the replay are the journal's own; only the file is not there.

use std::collections::BTreeMap;

use crate::journal::reader::Replay;
use crate::journal::record::{Hash, NO_HASH, Record, SHARED_CHAIN, SNAPSHOT_START};

#[derive(Default)]
pub struct Disk {
    rows: Vec<(Record, Hash)>,
    heads: BTreeMap<Box<str>, Hash>,
    /// So many rows are on the disk.
    synced: usize,
    /// The sync under way covers so many.
    syncing: Option<usize>,
}

impl Disk {
    pub fn append(&mut self, rows: Vec<Record>) {
        for record in rows {
            let hash = record.hash(self.heads.get(&record.chain).unwrap_or(&NO_HASH));
            self.heads.insert(record.chain.clone(), hash);
            self.rows.push((record, hash));
        }
    }

    /// Begins a sync of everything gathered, if none is under way and there is something.
    pub fn begin_sync(&mut self) -> bool {
        let begins = self.syncing.is_none() && self.synced < self.rows.len();
        if begins {
            self.syncing = Some(self.rows.len());
        }
        begins
    }

    pub fn end_sync(&mut self) {
        if let Some(rows) = self.syncing.take() {
            self.synced = rows;
        }
    }

    /// The last row on disk; rows are numbered from 1 without a gap.
    pub fn last_synced(&self) -> u64 {
        u64::try_from(self.synced).unwrap_or(u64::MAX)
    }

    /// The process is gone: what was not on disk is lost. A sync under way is a transaction, which is there or is not.
    pub fn lose_unsynced(&mut self, sync_made_it: bool) {
        if sync_made_it {
            self.end_sync();
        }
        self.syncing = None;
        self.rows.truncate(self.synced);
        self.heads = BTreeMap::new();
        for (record, hash) in &self.rows {
            self.heads.insert(record.chain.clone(), *hash);
        }
    }

    /// As a start does it: from the last snapshot on. An error names the row that cannot be trusted or read.
    pub fn restore(&self) -> Result<Replay, String> {
        let is_snapshot = |row: &(Record, Hash)| row.0.body.starts_with(SNAPSHOT_START);
        let last = self.rows.iter().rposition(|row| is_snapshot(row) && *row.0.chain == *SHARED_CHAIN);
        let from =
            last.map_or(0, |last| last - self.rows[..last].iter().rev().take_while(|row| is_snapshot(row)).count());
        self.replay(from)
    }

    /// Of every row ever kept, by the hash of each.
    pub fn digest(&self) -> Vec<u8> {
        self.rows.iter().flat_map(|(_, hash)| *hash).collect()
    }

    /// Every row from the first one on.
    pub fn replay_all(&self) -> Result<Replay, String> {
        self.replay(0)
    }

    fn replay(&self, from: usize) -> Result<Replay, String> {
        let mut heads: BTreeMap<&str, Hash> = BTreeMap::new();
        for (record, hash) in &self.rows[..from] {
            heads.insert(&record.chain, *hash);
        }
        let mut replay = Replay::default();
        for (record, hash) in &self.rows[from..] {
            if record.hash(heads.get(&*record.chain).unwrap_or(&NO_HASH)) != *hash {
                return Err(format!("row {} does not follow from the row before", record.seq));
            }
            heads.insert(&record.chain, *hash);
            replay.take(record).map_err(|error| error.to_string())?;
        }
        Ok(replay)
    }
}
