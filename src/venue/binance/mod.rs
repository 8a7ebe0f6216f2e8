//! Binance spot: the WebSocket API's frames and the few REST reads.

pub mod frame;
pub mod report;
pub mod json;
pub mod request;
pub mod sign;
pub mod snapshot;

pub use frame::{Answer, Frame, Response, VenueError, read};
pub use json::Kept;
pub use sign::{ApiCredential, CredentialError};
