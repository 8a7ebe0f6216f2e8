//! Binance spot: the WebSocket API's frames, the few REST reads, and what ends a theft.

pub mod frame;
pub mod report;
pub mod json;
pub mod request;
pub mod sign;
pub mod snapshot;
pub mod act;
pub mod quote;
pub mod restrictions;

pub use frame::{Answer, Frame, Response, VenueError, read};
pub use json::Kept;
pub use sign::{ApiCredential, CredentialError};
