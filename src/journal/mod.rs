//! The journal: the append-only, hash-chained record of every input and every effect.
//!
//! Invariants: an input and its effects are one row, written in one transaction; a row is never changed; each account
//! has a chain of its own. What is *acknowledged* is on disk. The chain shows corruption; it is not anchored outside,
//! so it cannot show a rewrite by whoever owns the machine.

pub mod record;
pub mod sqlite;
pub mod reader;
pub mod restore;
