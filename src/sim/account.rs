//! An account of the exchange: balances, open orders, trades, and the keys that may act for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signature, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

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

/// A key as the exchange knows it. Its own secret stays in here: the demo keys are worth nothing anywhere else.
#[derive(Clone)]
pub struct ApiKey {
    pub name: Box<str>,
    pub uid: Uid,
    pub proof: KeyProof,
    pub may_trade: bool,
    /// Where it may be used from; empty: anywhere.
    pub addresses: Vec<IpAddr>,
}

#[derive(Clone)]
pub enum KeyProof {
    Hmac(Box<str>),
    Ed25519(VerifyingKey),
}

impl KeyProof {
    pub fn accepts(&self, payload: &str, signature: &str) -> bool {
        match self {
            Self::Hmac(secret) => {
                let Ok(mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
                let signature = HEXLOWER_PERMISSIVE.decode(signature.as_bytes());
                signature.is_ok_and(|bytes| mac.chain_update(payload).verify_slice(&bytes).is_ok())
            }
            Self::Ed25519(key) => {
                let bytes = BASE64.decode(signature.as_bytes()).ok();
                let signature = bytes.and_then(|bytes| Signature::from_slice(&bytes).ok());
                signature.is_some_and(|signature| key.verify_strict(payload.as_bytes(), &signature).is_ok())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors that the venue publishes, with its published example secret.
    #[test]
    fn accepts_the_published_signatures() {
        let proof = KeyProof::Hmac("NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j".into());
        let rest = "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000\
                    &timestamp=1499827319559";
        let subscribe =
            "apiKey=vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A&timestamp=1747385641636";
        for (payload, signature) in [
            (rest, "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"),
            (rest, "C8DB56825AE71D6D79447849E617115F4A920FA2ACDCAB2B053C4B2838BD6B71"),
            (subscribe, "681110a6057ad58657af22f5640fab9dd17418834cdfccdc81be8b0f7b2cde3e"),
        ] {
            assert!(proof.accepts(payload, signature));
            assert!(!proof.accepts(&payload.replace('1', "2"), signature));
        }
        assert!(!proof.accepts(rest, ""));
        assert!(!proof.accepts(rest, "no hex"));
    }
}
