//! Where effects leave. An outlet does what it is told and decides nothing.

pub mod exchange;
pub mod containment;
pub mod addresses;
pub mod bot;
pub mod telegram;
pub mod webhook;
