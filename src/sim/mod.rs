//! The simulated exchange: speaks what Binance spot speaks, so that unmodified clients work against it, and keeps a
//! ledger of what really happened, by which everything else is judged. It never talks to the outside.
//!
//! Architecture invariant: everything but `listener`, `run` and the clients is pure: it is told the time and its
//! chance comes from a seed.

pub mod amount;
pub mod seed;
pub mod refusal;
pub mod order;
pub mod book;
pub mod market;
pub mod account;
pub mod key;
pub mod event;
pub mod ledger;
pub mod engine;
mod matching;
mod maker;
pub mod params;
pub mod filters;
pub mod op;
pub mod limits;
pub mod trading;
pub mod market_data;
pub mod config;
pub mod keyring;
pub mod faults;
pub mod session;
pub mod delivery;
pub mod exchange;
mod credentials;
pub mod sapi;
mod sapi_limits;
mod key_desk;
mod transfers;
mod endpoint;
mod firehose;
pub mod control;
pub mod door;
pub mod listener;
mod connection;
pub mod run;
pub mod client;
pub mod thief;
#[cfg(test)]
mod tests;
