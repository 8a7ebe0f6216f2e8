//! countersign: says which of an exchange account's trades its bot did not make.

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
pub mod core;
pub mod daemon;
pub mod tls;
pub mod sim;
pub mod cli;
