//! What goes out: requests are signed and sent here and nothing is decided.

pub mod exchange;
