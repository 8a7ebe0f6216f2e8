//! Everything that decides: told the time, given one event of a closed enum, it answers with effects of a closed
//! enum. It cannot fail and cannot await.
//!
//! Architecture invariant: nothing in here knows I/O, a clock, randomness, an unordered map, a float or a secret.

pub mod time;
pub mod money;
pub mod order;
pub mod report;
pub mod intent;
pub mod event;
pub mod act;
pub mod credential;
pub mod command;
pub mod people;
pub mod stopping;
pub mod declared;
pub mod limits;
pub mod bots;
pub mod blotter;
pub mod verdict;
pub mod rule;
pub mod exception;
pub mod claim;
pub mod incident;
pub mod book;
pub mod coverage;
pub mod containment;
pub mod flatten;
pub mod account;
pub mod pairs;
pub mod channel;
pub mod button;
pub mod typed;
pub mod chat;
pub mod card;
mod hook;
mod telling;
pub mod shared;
