//! A journal as a stranger reads it: rows out of SQLite, JSON out of rows.

use std::path::Path;

use countersign::journal::reader::{self, Replay};
use countersign::journal::sqlite::{JournalError, open_to_read};
use countersign::kernel::time::Time;
use rusqlite::Connection;
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
    let mut select = connection.prepare("SELECT seq, chain, at, body, effects FROM record ORDER BY seq").unwrap();
    let rows = select.query_map([], |row| {
        let (body, effects): (String, String) = (row.get(3)?, row.get(4)?);
        let effects = if effects.is_empty() { Vec::new() } else { serde_json::from_str(&effects).unwrap() };
        Ok(Row {
            seq: row.get::<_, i64>(0)?.unsigned_abs(),
            chain: row.get(1)?,
            at: Time::from_micros(row.get(2)?),
            body: serde_json::from_str(&body).unwrap(),
            effects,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
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
