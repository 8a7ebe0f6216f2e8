//! An account of the exchange: balances, open orders, trades.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::sim::amount::Amount;
use crate::sim::order::{OrderKey, Trade, Uid};

/// Older trades of an account are forgotten first: `myTrades` shows the newest.
const TRADES_MAX: usize = 50_000;

#[derive(Debug, Clone, Copy, Default)]
pub struct Balance {
    pub free: Amount,
    pub locked: Amount,
}

#[derive(Debug)]
pub struct Account {
    pub uid: Uid,
    pub name: Box<str>,
    pub balances: BTreeMap<&'static str, Balance>,
    pub open: BTreeSet<OrderKey>,
    pub trades: VecDeque<Trade>,
    pub updated_ms: i64,
}

impl Account {
    pub fn new(uid: Uid, name: &str) -> Self {
        Self {
            uid,
            name: name.into(),
            balances: BTreeMap::new(),
            open: BTreeSet::new(),
            trades: VecDeque::new(),
            updated_ms: 0,
        }
    }

    pub fn balance(&self, asset: &str) -> Balance {
        self.balances.get(asset).copied().unwrap_or_default()
    }

    pub fn lock(&mut self, asset: &'static str, amount: Amount) {
        let balance = self.balances.entry(asset).or_default();
        balance.free -= amount;
        balance.locked += amount;
    }

    pub fn unlock(&mut self, asset: &'static str, amount: Amount) {
        self.lock(asset, -amount);
    }

    pub fn spend_locked(&mut self, asset: &'static str, amount: Amount) {
        self.balances.entry(asset).or_default().locked -= amount;
    }

    pub fn credit(&mut self, asset: &'static str, amount: Amount) {
        self.balances.entry(asset).or_default().free += amount;
    }

    pub fn note_trade(&mut self, trade: Trade) {
        if self.trades.len() == TRADES_MAX {
            self.trades.pop_front();
        }
        self.trades.push_back(trade);
    }
}
