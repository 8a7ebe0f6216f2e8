//! What the exchange answers instead of doing it: an HTTP status with the venue's own code and words, since clients
//! and bots decide by them.

use serde_json::{Value, json};

use crate::kernel::time::Time;

#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub status: u16,
    pub code: i32,
    pub message: String,
    pub details: Option<Value>,
    /// When a held caller may come again.
    pub retry_at: Option<Time>,
}

impl Refusal {
    pub fn new(status: u16, code: i32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: None, retry_at: None }
    }

    pub fn bad(code: i32, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    pub fn missing(parameter: &str) -> Self {
        Self::bad(-1102, format!("Mandatory parameter '{parameter}' was not sent, was empty/null, or malformed."))
    }

    pub fn illegal(parameter: &str, range: &str) -> Self {
        Self::bad(-1100, format!("Illegal characters found in parameter '{parameter}'; legal range is '{range}'."))
    }

    pub fn filter(name: &str) -> Self {
        Self::bad(-1013, format!("Filter failure: {name}"))
    }

    pub fn engine(message: &str) -> Self {
        Self::bad(-2010, message)
    }

    pub fn insufficient_balance() -> Self {
        Self::engine("Account has insufficient balance for requested action.")
    }

    pub fn unknown_order() -> Self {
        Self::bad(-2011, "Unknown order sent.")
    }

    pub fn no_such_order() -> Self {
        Self::bad(-2013, "Order does not exist.")
    }

    pub fn key_refused() -> Self {
        Self::new(401, -2015, "Invalid API-key, IP, or permissions for action.")
    }

    pub fn no_such_endpoint() -> Self {
        Self::new(404, -1000, "There is no such endpoint on this simulated exchange.")
    }

    pub fn unknown_outcome() -> Self {
        let message =
            "Timeout waiting for response from backend server. Send status unknown; execution status unknown.";
        Self::new(504, -1007, message)
    }

    /// What `/sapi` says of a key that does not exist.
    pub fn unknown_key() -> Self {
        Self::bad(-2008, "Invalid Api-Key ID.")
    }

    /// Observed for e-mails of nobody's sub-account, and for callers who are no master.
    pub fn unsupported() -> Self {
        Self::bad(-9000, "Unsupported operation")
    }

    pub fn body(&self) -> Value {
        let mut body = json!({ "code": self.code, "msg": self.message });
        if let Some(details) = &self.details {
            body["data"] = details.clone();
        }
        body
    }
}
