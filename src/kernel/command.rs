//! What an operator may tell an account to do, as the kernel hears it: who said it and with what proof was settled at the
//! edge, where the secrets are.

use serde::{Deserialize, Serialize};

use crate::kernel::act::KeyPrint;
use crate::kernel::money::Dec;
use crate::kernel::order::Asset;
use crate::kernel::time::Time;

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
    /// Reads what selling everything for this asset would come to, and shows it. `within` is the part of the price that may
    /// be lost.
    PlanFlatten { to: Asset, within: Dec },
    /// Sells exactly what the plan that was asked for then shows.
    Flatten { plan: Time },
}

impl Command {
    /// Whatever widens trust, or trades, needs a one-time password.
    #[must_use]
    pub const fn needs_totp(&self) -> bool {
        match self {
            Self::Freeze | Self::Kill | Self::DeleteKey { .. } | Self::PlanFlatten { .. } => false,
            Self::Resume | Self::Flatten { .. } => true,
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
