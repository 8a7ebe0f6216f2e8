//! One row: what happened, what it led to, and the hash that ties it to the row before.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::kernel::time::Time;

/// The version of the rows this program writes. It reads no other.
pub const VERSION: i64 = 1;

/// The chain of what accounts have in common.
pub const SHARED_CHAIN: &str = "_shared";

/// How the body of a snapshot's row begins; the index of snapshots rests on it.
pub const SNAPSHOT_START: &str = r#"{"event":"restored""#;

/// What a chain starts from.
pub const NO_HASH: Hash = [0; 32];

pub type Hash = [u8; 32];

/// A row on its way to the disk, and as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub seq: u64,
    pub chain: Box<str>,
    pub at: Time,
    pub body: String,
    /// Empty where the event led to nothing, as a matched report does.
    pub effects: String,
}

impl Record {
    /// The hash of this row after one of its chain with the hash `before`. Every field is length-prefixed, so that no
    /// two rows can be read as the same bytes.
    pub fn hash(&self, before: &Hash) -> Hash {
        let mut hash = Sha256::new();
        hash.update(before);
        hash.update(VERSION.to_be_bytes());
        hash.update(self.seq.to_be_bytes());
        hash.update(self.at.micros().to_be_bytes());
        for field in [self.chain.as_bytes(), self.body.as_bytes(), self.effects.as_bytes()] {
            hash.update(u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(field);
        }
        hash.finalize().into()
    }
}

/// The effects of one event, as a row holds them.
pub fn effects_text<T: Serialize>(effects: &[T]) -> String {
    if effects.is_empty() { String::new() } else { text(effects) }
}

/// An event as a row holds it. The journal's types have string keys and finite numbers only, so they always serialise.
pub fn text<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
