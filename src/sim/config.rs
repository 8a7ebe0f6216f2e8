//! What an exchange is started with. The demo accounts and their keys come from the seed, so that a script may know
//! them beforehand; they are worth nothing anywhere else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::DecodePublicKey;
use rustls::ServerConfig;
use serde::Deserialize;

use crate::kernel::time::Time;
use crate::sim::account::{ApiKey, KeyProof};
use crate::sim::amount::Amount;
use crate::sim::market::asset;
use crate::sim::order::Uid;
use crate::sim::seed::Seeded;

#[derive(Clone)]
pub struct SimConfig {
    pub seed: u64,
    pub accounts: Vec<AccountSpec>,
    /// How often prices move; never, if not given.
    pub price_step: Option<Duration>,
    pub weight_per_minute: u32,
    pub orders_per_10s: u32,
    pub connections_per_5m: u32,
    pub ping_every: Duration,
    /// A socket whose pong is this late is cut.
    pub pong_within: Duration,
    pub connection_life: Duration,
    /// Serves TLS in place of plain connections.
    pub tls: Option<Arc<ServerConfig>>,
    /// The exchange's wall clock.
    pub clock: fn() -> Time,
}

/// An account as a person writes it down.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountSpec {
    pub uid: Uid,
    pub name: String,
    pub balances: BTreeMap<String, Amount>,
    pub keys: Vec<KeySpec>,
}

/// A key has either a secret (HMAC) or a public key in PEM (Ed25519).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    pub name: String,
    pub api_key: String,
    #[serde(default)]
    pub secret: Option<String>,
    #[serde(default)]
    pub public_key: Option<String>,
    pub trade: bool,
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("key {0:?} needs either `secret` (HMAC) or `public_key` (Ed25519, PEM)")]
    KeyWithoutProof(String),
    #[error("the public key of key {0:?} is not an Ed25519 key in PEM")]
    PublicKey(String),
    #[error("account {account:?} has a balance in {asset:?}, which no symbol here trades")]
    UnknownAsset { account: String, asset: String },
    #[error("uid 0 is the exchange's own; account {0:?} needs another")]
    ReservedUid(String),
}

impl SimConfig {
    /// `accounts` accounts with a trading key "bot" and a read-only key "watch" each, prices moving every second.
    pub fn demo(seed: u64, accounts: u32, clock: fn() -> Time) -> Self {
        Self {
            seed,
            accounts: demo_accounts(seed, accounts),
            price_step: Some(Duration::from_secs(1)),
            weight_per_minute: 6_000,
            orders_per_10s: 100,
            connections_per_5m: 300,
            ping_every: Duration::from_secs(20),
            pong_within: Duration::from_secs(60),
            connection_life: Duration::from_secs(86_400),
            tls: None,
            clock,
        }
    }
}

fn demo_accounts(seed: u64, accounts: u32) -> Vec<AccountSpec> {
    // Not the engine's own sequence: one more account must not change what the market does.
    let mut dice = Seeded::new(seed ^ 0x6B65_7973);
    let amounts = [("USDT", 100_000), ("BTC", 2), ("ETH", 30), ("BNB", 100), ("VIA", 200_000), ("PERP", 50_000)];
    let balances: BTreeMap<String, Amount> =
        amounts.map(|(asset, units)| (asset.to_owned(), Amount::whole(units))).into();
    let name = |number: u32| if number == 0 { "main".to_owned() } else { format!("main-{}", number + 1) };
    (0..accounts)
        .map(|number| AccountSpec {
            uid: 1_000_001 + Uid::from(number),
            name: name(number),
            balances: balances.clone(),
            keys: [("bot", true), ("watch", false)].map(|key| demo_key(&mut dice, &name(number), key)).into(),
        })
        .collect()
}

fn demo_key(dice: &mut Seeded, account: &str, (name, trade): (&str, bool)) -> KeySpec {
    KeySpec {
        name: format!("{account}/{name}"),
        api_key: dice.base62(64),
        secret: Some(dice.base62(64)),
        public_key: None,
        trade,
        addresses: Vec::new(),
    }
}

impl AccountSpec {
    pub fn checked_balances(&self) -> Result<Vec<(&'static str, Amount)>, ConfigError> {
        if self.uid == 0 {
            return Err(ConfigError::ReservedUid(self.name.clone()));
        }
        let known = |(name, amount): (&String, &Amount)| {
            let unknown = || ConfigError::UnknownAsset { account: self.name.clone(), asset: name.clone() };
            Ok((asset(name).ok_or_else(unknown)?, *amount))
        };
        self.balances.iter().map(known).collect()
    }
}

impl KeySpec {
    pub fn checked(&self, uid: Uid) -> Result<ApiKey, ConfigError> {
        let proof = match (&self.secret, &self.public_key) {
            (Some(secret), None) => KeyProof::Hmac(secret.as_str().into()),
            (None, Some(pem)) => {
                let key = VerifyingKey::from_public_key_pem(pem);
                KeyProof::Ed25519(key.map_err(|_| ConfigError::PublicKey(self.name.clone()))?)
            }
            (Some(_), Some(_)) | (None, None) => return Err(ConfigError::KeyWithoutProof(self.name.clone())),
        };
        let (name, addresses) = (self.name.as_str().into(), self.addresses.clone());
        Ok(ApiKey { name, uid, proof, may_trade: self.trade, addresses })
    }
}
