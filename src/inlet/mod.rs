//! Where events come from. An inlet reads and decides nothing.

pub mod telegram;
