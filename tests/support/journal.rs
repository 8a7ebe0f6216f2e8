//! A journal as a stranger reads it: rows out of SQLite, JSON out of rows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use countersign::journal::reader::{self, Replay};
use countersign::journal::record::{Hash, NO_HASH, Record};
use countersign::journal::sqlite::{JournalError, open_to_read};
use countersign::kernel::time::Time;
use rusqlite::{Connection, params};
use serde_json::Value;

pub struct Row {
    pub seq: u64,
    pub chain: String,
    pub at: Time,
    pub body: Value,
    pub effects: Vec<Value>,
}

pub fn rows(path: &Path) -> Vec<Row> {
    let connection = Connection::open(path).unwrap();
    let read = |Record { seq, chain, at, body, effects }: Record| Row {
        seq,
        chain: chain.into(),
        at,
        body: serde_json::from_str(&body).unwrap(),
        effects: if effects.is_empty() { Vec::new() } else { serde_json::from_str(&effects).unwrap() },
    };
    rows_as_they_are(&connection).into_iter().map(read).collect()
}

impl Row {
    pub fn is(&self, event: &str) -> bool {
        self.body["event"] == event
    }

    /// The incidents that this row told of.
    pub fn notices(&self) -> impl Iterator<Item = &Value> {
        self.effects.iter().filter(|effect| effect["effect"] == "tell")
    }
}

/// Every hash checked, every effect compared with the one that comes out again.
pub fn replay(path: &Path) -> Result<Replay, JournalError> {
    let mut replay = Replay::default();
    reader::walk(&open_to_read(path)?, 1, |record| replay.take(record))?;
    Ok(replay)
}

/// Makes the journal of a daemon that has ended this much older, every time in it alike, so that a test need not wait for
/// days to pass.
pub fn age(path: &Path, by: Duration) {
    let mut connection = Connection::open(path).unwrap();
    let transaction = connection.transaction().unwrap();
    let older = |text: &str| {
        let mut out = String::with_capacity(text.len());
        for part in text.split_inclusive(|letter: char| !letter.is_ascii_digit()) {
            let digits = part.trim_end_matches(|letter: char| !letter.is_ascii_digit());
            let by = match digits.len() {
                // Of our century: milliseconds in frames, microseconds elsewhere.
                13 if digits.starts_with("17") || digits.starts_with("18") => by.as_millis(),
                16 if digits.starts_with("17") || digits.starts_with("18") => by.as_micros(),
                _ => 0,
            };
            match by {
                0 => out.push_str(part),
                by => out.push_str(&format!("{}{}", digits.parse::<u128>().unwrap() - by, &part[digits.len()..])),
            }
        }
        out
    };
    let mut heads: BTreeMap<String, Hash> = BTreeMap::new();
    for row in rows_as_they_are(&transaction) {
        let row = Record { at: row.at - by, body: older(&row.body), effects: older(&row.effects), ..row };
        let head = heads.entry(row.chain.to_string()).or_insert(NO_HASH);
        *head = row.hash(head);
        transaction
            .execute(
                "UPDATE record SET at = ?2, body = ?3, effects = ?4, hash = ?5 WHERE seq = ?1",
                params![row.seq.cast_signed(), row.at.micros(), row.body, row.effects, &head[..]],
            )
            .unwrap();
    }
    transaction.commit().unwrap();
}

fn rows_as_they_are(connection: &Connection) -> Vec<Record> {
    let mut select = connection.prepare("SELECT seq, chain, at, body, effects FROM record ORDER BY seq").unwrap();
    let rows = select.query_map([], |row| {
        Ok(Record {
            seq: row.get::<_, i64>(0)?.unsigned_abs(),
            chain: row.get::<_, String>(1)?.into(),
            at: Time::from_micros(row.get(2)?),
            body: row.get(3)?,
            effects: row.get(4)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}
