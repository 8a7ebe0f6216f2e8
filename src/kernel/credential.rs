//! What countersign holds keys for, and what the venue's own word on one of them came to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What countersign has a key for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialRole {
    /// Reads.
    Watch,
    /// Cancels, in the bot's account.
    Cancel,
    /// Freezes and deletes keys of the sub-account, from the master.
    Admin,
}

impl CredentialRole {
    pub const ALL: [Self; 3] = [Self::Watch, Self::Cancel, Self::Admin];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Cancel => "cancel",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for CredentialRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What one check came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum CredentialOutcome {
    /// It may do what it is for, and no more.
    Fine,
    Wrong {
        faults: Vec<CredentialFault>,
    },
    /// The check could not be made, which says nothing good and nothing bad.
    Unknown {
        reason: Box<str>,
    },
}

/// What is wrong with a key, and the step that mends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialFault {
    pub fault: Box<str>,
    pub step: Box<str>,
    /// The key is used all the same: what it cannot do is optional.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_used: bool,
}

impl fmt::Display for CredentialFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nhint: {}", self.fault, self.step)
    }
}
