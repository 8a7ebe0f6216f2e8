//! Why a record was not taken: a code for programs, a sentence that names the field, and what to do.

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    BadJson,
    BadField,
    BadNonce,
    WrongAccount,
    ClockSkew,
    LineTooLong,
    TooFast,
    Busy,
    TooManyConnections,
    NotDurable,
    Unauthorized,
    NotFound,
    MethodNotAllowed,
    UnsupportedMediaType,
    // What the account itself refuses.
    Conflict,
    Replay,
    OutsideLimits,
    IdInUse,
    UnknownIntent,
    UnknownBot,
    Full,
    Refused,
}

impl ErrorCode {
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadJson | Self::BadField | Self::BadNonce | Self::ClockSkew => 400,
            Self::Unauthorized => 401,
            Self::WrongAccount => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict | Self::Replay | Self::IdInUse => 409,
            Self::LineTooLong => 413,
            Self::UnsupportedMediaType => 415,
            Self::OutsideLimits | Self::UnknownIntent | Self::UnknownBot | Self::Refused => 422,
            Self::TooFast => 429,
            Self::Busy | Self::TooManyConnections | Self::Full => 503,
            Self::NotDurable => 504,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (hint: {hint})")]
pub struct WireError {
    pub code: ErrorCode,
    pub message: Box<str>,
    pub hint: Box<str>,
    /// The sequence of the record, where it could be read.
    pub seq: Option<u64>,
}

impl WireError {
    pub fn new(code: ErrorCode, message: &str, hint: &str) -> Self {
        Self { code, message: message.into(), hint: hint.into(), seq: None }
    }

    pub(super) fn bad_json(message: &str) -> Self {
        Self::new(ErrorCode::BadJson, message, "send one JSON object on one line, UTF-8")
    }

    #[must_use]
    pub fn of(self, seq: Option<u64>) -> Self {
        Self { seq, ..self }
    }
}
