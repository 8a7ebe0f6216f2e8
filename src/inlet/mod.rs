//! What comes in: bytes are read, bounded and turned into checked values here, and nothing is decided.

pub mod user_stream;
pub mod lines;
pub mod unix;
pub mod wire;
pub mod intake;
pub mod operator;
pub mod telegram;
