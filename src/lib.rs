//! countersign: says which of an exchange account's trades its bot did not make.

pub mod kernel;
pub mod venue;
pub mod inlet;
pub mod outlet;
pub mod tls;
pub mod cli;
