//! What an exchange is started with. The demo accounts and their keys come from the seed, so that a script may know
//! them beforehand; they are worth nothing anywhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use serde::Deserialize;

use crate::kernel::time::Time;
use crate::sim::amount::Amount;
use crate::sim::faults::Fault;
use crate::sim::key::{ApiKey, KeyProof, Origins, Permission};
use crate::sim::keyring::KEYS_PER_ACCOUNT_MAX;
use crate::sim::market::asset;
use crate::sim::order::Uid;
use crate::sim::seed::Seeded;

const MASTER: &str = "master";
const MASTER_UID: Uid = 1_000_000;

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
    /// Of each `/sapi` endpoint by itself.
    pub sapi_weight_per_minute: SapiWeights,
    pub unknowns: Unknowns,
    /// Inflicted before the first request.
    pub faults: Vec<Fault>,
    /// Serves TLS in place of plain connections.
    pub tls: Option<Arc<ServerConfig>>,
    /// The exchange's wall clock.
    pub clock: fn() -> Time,
}

#[derive(Debug, Clone, Copy)]
pub struct SapiWeights {
    pub by_address: u32,
    pub by_account: u32,
}

/// What nobody has seen the venue do and no document says: chosen here, so that a client can be tried on all of it.
/// The choices of `demo` are those that help a thief.
#[derive(Debug, Clone, Copy)]
pub struct Unknowns {
    pub streams_of_deleted_keys: StreamsOfDeletedKeys,
    pub posted_addresses: PostedAddresses,
    pub emptied_address_list: EmptiedAddressList,
}

/// What becomes of the subscriptions that a key opened when the key is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StreamsOfDeletedKeys {
    Keep,
    /// They end with `eventStreamTerminated`.
    Terminate,
    /// They end without a word.
    FallSilent,
}

/// What becomes of a key's listed addresses when a restriction is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PostedAddresses {
    Add,
    Replace,
}

/// What a key is whose last listed address is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EmptiedAddressList {
    Unrestricted,
    /// Usable from nowhere.
    Restricted,
}

/// An account as a person writes it down.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountSpec {
    pub uid: Uid,
    pub name: String,
    #[serde(default)]
    pub email: Option<String>,
    /// Whose sub-account it is; it needs an e-mail then.
    #[serde(default)]
    pub master: Option<Uid>,
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
    /// Short for spot trading beside whatever else it may.
    #[serde(default)]
    pub trade: bool,
    /// Reading, if left out.
    #[serde(default)]
    pub permissions: Option<BTreeSet<Permission>>,
    /// Usable from these only; none: from anywhere.
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
    #[error("account {account:?} names {master} as its master, which is no account that could be one")]
    NoSuchMaster { account: String, master: Uid },
    #[error("the sub-account {0:?} needs an `email`")]
    SubAccountWithoutEmail(String),
    #[error("two accounts have the e-mail {0:?}")]
    TwiceTheSameEmail(String),
    #[error("key {0:?} is there twice")]
    TwiceTheSameKey(String),
    #[error("account {0:?} has more than {KEYS_PER_ACCOUNT_MAX} keys")]
    TooManyKeys(String),
    #[error("key {0:?} may withdraw, so it needs `addresses`")]
    OpenWithdrawals(String),
    #[error("a fault cannot be inflicted: {0}")]
    Fault(String),
}

impl SimConfig {
    /// `accounts` sub-accounts, each with trading keys "bot" and "cancel" and a read-only key "watch"; after them their
    /// master with its key "admin". Prices move every second.
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
            sapi_weight_per_minute: SapiWeights { by_address: 12_000, by_account: 180_000 },
            unknowns: Unknowns {
                streams_of_deleted_keys: StreamsOfDeletedKeys::Keep,
                posted_addresses: PostedAddresses::Add,
                emptied_address_list: EmptiedAddressList::Unrestricted,
            },
            faults: Vec::new(),
            tls: None,
            clock,
        }
    }
}

fn demo_accounts(seed: u64, accounts: u32) -> Vec<AccountSpec> {
    // Not the engine's own sequence: one more account must not change what the market does. Nor may one more kind of
    // key change the others.
    let (mut dice, mut more_dice) = (Seeded::new(seed ^ 0x6B65_7973), Seeded::new(seed ^ 0x6D61_7374));
    let amounts = [("USDT", 100_000), ("BTC", 2), ("ETH", 30), ("BNB", 100), ("VIA", 200_000), ("PERP", 50_000)];
    let balances: BTreeMap<String, Amount> =
        amounts.map(|(asset, units)| (asset.to_owned(), Amount::whole(units))).into();
    let here = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let admin = demo_key(&mut more_dice, MASTER, "admin", &[Permission::SpotTrading, Permission::InternalTransfer]);
    let name = |number: u32| if number == 0 { "main".to_owned() } else { format!("main-{}", number + 1) };
    let mut all: Vec<AccountSpec> = (0..accounts)
        .map(|number| {
            let name = name(number);
            let (bot, watch) = (
                demo_key(&mut dice, &name, "bot", &[Permission::SpotTrading]),
                demo_key(&mut dice, &name, "watch", &[]),
            );
            let cancel = demo_key(&mut more_dice, &name, "cancel", &[Permission::SpotTrading]);
            AccountSpec {
                uid: MASTER_UID + 1 + Uid::from(number),
                email: Some(format!("{name}+bot@example.com")),
                name,
                master: Some(MASTER_UID),
                balances: balances.clone(),
                keys: vec![bot, watch, KeySpec { addresses: here.clone(), ..cancel }],
            }
        })
        .collect();
    all.push(AccountSpec {
        uid: MASTER_UID,
        name: MASTER.to_owned(),
        email: Some("master@example.com".to_owned()),
        master: None,
        balances: BTreeMap::new(),
        keys: vec![KeySpec { addresses: here, ..admin }],
    });
    all
}

fn demo_key(dice: &mut Seeded, account: &str, name: &str, beside_reading: &[Permission]) -> KeySpec {
    KeySpec {
        name: format!("{account}/{name}"),
        api_key: dice.base62(64),
        secret: Some(dice.base62(64)),
        public_key: None,
        trade: beside_reading.contains(&Permission::SpotTrading),
        permissions: Some([Permission::Reading].iter().chain(beside_reading).copied().collect()),
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
    pub fn permissions(&self) -> BTreeSet<Permission> {
        let mut all = self.permissions.clone().unwrap_or_else(|| BTreeSet::from([Permission::Reading]));
        all.extend(self.trade.then_some(Permission::SpotTrading));
        all
    }

    pub fn checked(&self, uid: Uid, created: Time) -> Result<ApiKey, ConfigError> {
        let proof = match (&self.secret, &self.public_key) {
            (Some(secret), None) => KeyProof::Hmac(secret.as_str().into()),
            (None, Some(pem)) => {
                KeyProof::from_public_key(pem).ok_or_else(|| ConfigError::PublicKey(self.name.clone()))?
            }
            (Some(_), Some(_)) | (None, None) => return Err(ConfigError::KeyWithoutProof(self.name.clone())),
        };
        let permissions = self.permissions();
        if permissions.contains(&Permission::Withdrawals) && self.addresses.is_empty() {
            return Err(ConfigError::OpenWithdrawals(self.name.clone()));
        }
        let label = self.name.rsplit('/').next().unwrap_or(&self.name);
        Ok(ApiKey {
            api_key: self.api_key.as_str().into(),
            name: self.name.as_str().into(),
            label: label.into(),
            uid,
            proof,
            permissions,
            origins: Origins::listed_in(self.addresses.iter().copied()),
            created,
            origins_changed: created,
        })
    }
}
