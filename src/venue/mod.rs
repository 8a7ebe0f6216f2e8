//! What a venue says and how it is asked, as values: frames in, reports out; wishes in, requests out; and the state
//! machines of a connection, with time passed in.
//!
//! Architecture invariant: no I/O, no clock, no randomness beyond the seed that is handed in, no unordered map.

pub mod binance;
pub mod session;
pub mod pair;
pub mod budget;
pub mod server_time;
