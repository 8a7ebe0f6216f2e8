//! What the owner declared about stopping a theft: who may act, by what means, and the keys of the account. It stands in
//! the configuration only; a key stands here by its print.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::act::KeyPrint;

/// Who may act: nobody, the owner, or countersign by itself within its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Holds no credential but the reading one; `kill` answers with what a person can do.
    Watch,
    /// Acts when its owner says so.
    Ask,
    /// Acts by itself as well, within bounds.
    Act,
}

/// How the account's keys can be made useless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// The bot trades in a sub-account, and a key of the master may freeze and delete its keys.
    SubAccount,
    /// No API deletes a key of one's own account: a person must.
    ByHand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyRole {
    /// A bot's: what a thief would have.
    Bot,
    /// The reading key of countersign.
    Watch,
    /// The key with which countersign cancels. It can trade, so it is a suspect as well.
    Cancel,
    /// A throw-away key that a drill may make useless. It can trade, so a real containment treats it as a bot's.
    Drill,
}

/// A key of the account that its owner knows of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredKey {
    pub name: Box<str>,
    pub print: KeyPrint,
    pub role: KeyRole,
}

impl DeclaredKey {
    /// Countersign's own: never deleted.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        matches!(self.role, KeyRole::Watch | KeyRole::Cancel)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    pub mode: Mode,
    pub means: Means,
    pub keys: Vec<DeclaredKey>,
    /// The declared ways to stop the bot, by name.
    pub hooks: Vec<Box<str>>,
    /// Those of them after which the bot's process lives on and only trades no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pausing: Vec<Box<str>>,
    /// Between the two reads that show the book clean, and after the last trade of a stranger.
    pub quiet: Duration,
    /// After this long without an answer to a grave incident the keys are frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze_unanswered: Option<Duration>,
    /// At the end of a kill the sub-account's free money goes to the master.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transfer_to_master: bool,
}

impl Stopping {
    /// The throw-away key; the configuration has at most one.
    #[must_use]
    pub fn drill_key(&self) -> Option<&DeclaredKey> {
        self.keys.iter().find(|key| key.role == KeyRole::Drill)
    }

    #[must_use]
    pub fn pauses(&self, hook: &str) -> bool {
        self.pausing.iter().any(|name| **name == *hook)
    }

    /// Whether a kill ends with a transfer.
    #[must_use]
    pub fn transfers(&self) -> bool {
        self.transfer_to_master && self.can_kill()
    }

    /// Whether a key can be made useless from here, and not only by its owner's own hand.
    #[must_use]
    pub fn can_kill(&self) -> bool {
        self.mode != Mode::Watch && self.means == Means::SubAccount
    }
}
