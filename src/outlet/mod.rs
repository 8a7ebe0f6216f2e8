//! Where effects leave. An outlet does what it is told and decides nothing.

pub mod exchange;
pub mod telegram;
pub mod webhook;
