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
pub mod tls;
pub mod sim;
pub mod cli;
