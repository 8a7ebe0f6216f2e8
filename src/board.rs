//! The live registry of accounts: what is on disk of each, for whoever asks without going through the core. The one
//! place for a concurrent map; it hands out copies, so that no guard is held while anything waits.

use std::collections::BTreeMap;

use dashmap::DashMap;

use crate::kernel::coverage::Sight;
use crate::kernel::order::{Account, Bot};

#[derive(Debug, Default)]
pub struct Board(DashMap<Account, Pulse>);

/// An account after its last commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    pub sight: Sight,
    pub last_seqs: BTreeMap<Bot, u64>,
}

impl Board {
    pub fn pulse(&self, account: &Account) -> Option<Pulse> {
        self.0.get(account).map(|pulse| pulse.clone())
    }

    pub fn post(&self, account: &Account, pulse: Pulse) {
        self.0.insert(account.clone(), pulse);
    }
}
