//! What comes in: sockets are read here and nothing is decided.

pub mod user_stream;
