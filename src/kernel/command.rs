//! What an operator may tell an account to do, as the kernel hears it: who said it and with what proof was settled at the
//! edge, where the secrets are.

use serde::{Deserialize, Serialize};

use crate::kernel::act::KeyPrint;
use crate::kernel::claim::Claim;
use crate::kernel::incident::IncidentId;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Reversible: the account's keys lose every right.
    Freeze,
    /// Final: the bot's keys are deleted, strangers' orders cancelled, the bot stopped.
    Kill,
    /// The owner decides on a key that nobody declared: delete it as well.
    DeleteKey { key: KeyPrint },
    /// Gives back what a freeze took.
    Resume,
    /// Opens a claim window: orders by hand that are the owner's.
    Manual { claim: Claim, reason: Box<str> },
    /// Ends the claim window before its time.
    EndManual,
    /// Somebody else used the claim window, the last one where none is named.
    NotMe {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<IncidentId>,
    },
}

impl Command {
    /// Whatever widens trust needs a one-time password.
    #[must_use]
    pub const fn needs_totp(&self) -> bool {
        match self {
            Self::Freeze | Self::Kill | Self::DeleteKey { .. } | Self::EndManual | Self::NotMe { .. } => false,
            Self::Resume | Self::Manual { .. } => true,
        }
    }
}

/// A one-time password, as the edge found it. Its time step counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "totp", rename_all = "snake_case")]
pub enum Totp {
    Absent,
    /// There is nothing to check one against.
    NotSetUp,
    Wrong,
    /// Right for this time step.
    Right {
        step: u64,
    },
}
