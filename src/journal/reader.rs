//! Reading the journal back: verifying its chains, restoring the kernels, replaying.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row};

use crate::journal::record::{Hash, NO_HASH, Record, SHARED_CHAIN, SNAPSHOT_START, VERSION, effects_text};
use crate::journal::sqlite::{JournalError, open_to_read};
use crate::kernel::account::Kernel;
use crate::kernel::event::Event;
use crate::kernel::order::Account;
use crate::kernel::rule::RuleSet;
use crate::kernel::shared::Shared;
use crate::kernel::time::Time;

/// Where the chains stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    pub hashes: BTreeMap<Box<str>, Hash>,
    pub last_seq: u64,
    pub last_at: Option<Time>,
    pub rows: u64,
}

/// Walks the rows from `from` on, in order, and hands each on; stops at the first that does not fit its chain. Before
/// `from` the hashes are believed.
pub fn walk(
    connection: &Connection,
    from: u64,
    mut each: impl FnMut(&Record) -> Result<(), JournalError>,
) -> Result<Heads, JournalError> {
    let mut heads = Heads { last_seq: from.saturating_sub(1), ..Heads::default() };
    let mut select = connection
        .prepare("SELECT seq, chain, at, version, body, effects, hash FROM record WHERE seq >= ?1 ORDER BY seq")?;
    // The first row of all is where the table begins: a number below 1 is damage, not a row to be passed over.
    let whole = from <= 1;
    let mut rows = select.query([if whole { i64::MIN } else { i64::try_from(from).unwrap_or(i64::MAX) }])?;
    while let Some(row) = rows.next()? {
        let (record, hash) = record(row)?;
        let before = match heads.hashes.get(&record.chain) {
            Some(before) => *before,
            None if whole => NO_HASH,
            None => head_before(connection, &record.chain, from)?,
        };
        // A journal begun after a broken one counts on, so the first row may have any number.
        if record.seq != heads.last_seq + 1 && (heads.rows > 0 || !whole) {
            let detail = format!("rows {} to {} are missing", heads.last_seq + 1, record.seq.saturating_sub(1));
            return Err(JournalError::Broken { seq: record.seq, detail });
        }
        if record.hash(&before) != hash {
            let detail = format!("its hash does not follow from the row before it in chain {:?}", record.chain);
            return Err(JournalError::Broken { seq: record.seq, detail });
        }
        each(&record)?;
        heads.hashes.insert(record.chain.clone(), hash);
        heads.last_seq = record.seq;
        heads.last_at = heads.last_at.max(Some(record.at));
        heads.rows += 1;
    }
    Ok(heads)
}

fn head_before(connection: &Connection, chain: &str, from: u64) -> Result<Hash, JournalError> {
    let from = i64::try_from(from).unwrap_or(i64::MAX);
    let select = "SELECT hash FROM record WHERE chain = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT 1";
    let head = connection.query_row(select, (chain, from), |row| row.get(0)).optional()?;
    Ok(head.unwrap_or(NO_HASH))
}

/// The rows of the latest snapshot that ends before `before`, from the first to the last: one for each chain, written
/// together, the shared one at the end.
pub fn snapshot_before(connection: &Connection, before: u64) -> Result<Option<(u64, u64)>, JournalError> {
    let is_snapshot = format!("substr(body, 1, {}) = '{SNAPSHOT_START}'", SNAPSHOT_START.len());
    let select = format!("SELECT MAX(seq) FROM record WHERE {is_snapshot} AND chain = '{SHARED_CHAIN}' AND seq < ?1");
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    let Some(last) = connection.query_row(&select, [before], |row| row.get::<_, Option<i64>>(0))? else {
        return Ok(None);
    };
    let mut first = last;
    let select = format!("SELECT COUNT(*) FROM record WHERE seq = ?1 AND {is_snapshot}");
    while connection.query_row(&select, [first - 1], |row| row.get::<_, i64>(0))? == 1 {
        first -= 1;
    }
    Ok(Some((first.unsigned_abs(), last.unsigned_abs())))
}

fn record(row: &Row<'_>) -> Result<(Record, Hash), JournalError> {
    let seq = row.get::<_, i64>("seq").ok().and_then(|seq| u64::try_from(seq).ok()).unwrap_or(0);
    // A column of another type or length is damage of this row, whatever SQLite calls it.
    let broken = |cause: rusqlite::Error| JournalError::Broken { seq, detail: cause.to_string() };
    let found: i64 = row.get("version").map_err(broken)?;
    if found != VERSION {
        return Err(JournalError::Version { seq, found });
    }
    let record = Record {
        seq,
        chain: row.get::<_, String>("chain").map_err(broken)?.into(),
        at: Time::from_micros(row.get("at").map_err(broken)?),
        body: row.get("body").map_err(broken)?,
        effects: row.get("effects").map_err(broken)?,
    };
    Ok((record, row.get("hash").map_err(broken)?))
}

/// Every row of a file, checked from the first to the last.
pub fn verify(path: &Path) -> Result<Heads, JournalError> {
    walk(&open_to_read(path)?, 1, |_| Ok(()))
}

/// Runs the rows through kernels again, comparing each recorded effect with the one that comes out.
#[derive(Default)]
pub struct Replay {
    pub accounts: BTreeMap<Box<str>, Kernel>,
    pub shared: Shared,
    /// Judge by these rules instead of the recorded ones.
    pub other_rules: Option<RuleSet>,
    pub events: u64,
    pub last_seq: u64,
    pub last_at: Option<Time>,
    /// (sequence, recorded, replayed) of the first differences; all are counted.
    pub differences: Vec<(u64, String, String)>,
    pub differing: u64,
}

const DIFFERENCES_SHOWN_MAX: usize = 20;

impl Replay {
    pub fn take(&mut self, record: &Record) -> Result<(), JournalError> {
        let broken = |error: serde_json::Error| JournalError::Broken {
            seq: record.seq,
            detail: format!("its event cannot be read: {error}"),
        };
        let replayed = if *record.chain == *SHARED_CHAIN {
            let event = serde_json::from_str(&record.body).map_err(broken)?;
            effects_text(&self.shared.apply(record.at, record.seq, event))
        } else {
            let mut event = serde_json::from_str(&record.body).map_err(broken)?;
            if let (Event::Started { rules, .. } | Event::Restored { rules, .. }, Some(other)) =
                (&mut event, &self.other_rules)
            {
                **rules = other.clone();
            }
            let account = || Kernel::new(Account::new(&record.chain));
            let kernel = self.accounts.entry(record.chain.clone()).or_insert_with(account);
            effects_text(&kernel.apply(record.at, record.seq, event))
        };
        self.events += 1;
        (self.last_seq, self.last_at) = (record.seq, self.last_at.max(Some(record.at)));
        if replayed != record.effects {
            self.differing += 1;
            if self.differences.len() < DIFFERENCES_SHOWN_MAX {
                self.differences.push((record.seq, record.effects.clone(), replayed));
            }
        }
        Ok(())
    }
}
