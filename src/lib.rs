//! countersign: says which of an exchange account's trades its bot did not make.

#![cfg_attr(not(test), warn(clippy::unwrap_used))] // an `expect` says why it cannot fail; tests fail by panicking

#[warn(
    clippy::wildcard_enum_match_arm,   // a new event, effect or verdict must be thought of wherever one is matched
    clippy::let_underscore_must_use    // an effect that is dropped unseen is an alert that never leaves
)]
pub mod kernel;
pub mod secret;
pub mod config;
pub mod clock;
pub mod venue;
pub mod tag;
pub mod inlet;
pub mod outlet;
pub mod journal;
pub mod words;
pub mod board;
pub mod release;
pub mod drill;
pub mod core;
pub mod daemon;
pub mod tls;
pub mod sim;
pub mod simulate;
pub mod cli;
