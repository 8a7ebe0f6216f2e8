//! What the owner declared about an account: its bots and their limits, its networks, its waiting times. It stands
//! in the configuration only, is journalled with it, and holds no secret.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::exception::LocalException;
use crate::kernel::money::Dec;
use crate::kernel::order::{Account, Asset, Bot, Symbol};
use crate::kernel::people::People;
use crate::kernel::stopping::Stopping;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    pub account: Account,
    pub bots: BTreeMap<Bot, Limits>,
    /// Every order of this account must carry a countersign: there is no waiting for an untagged one.
    pub tagged_only: bool,
    pub familiar_networks: Vec<Network>,
    pub waits: Waits,
    /// What may be done about a theft; without it, nothing can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<Stopping>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<LocalException>,
    /// The key of the master lies on the bot's own host, as its owner chose.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin_beside_bot: bool,
    /// It may stop the account, and too few have one-time passwords: what a freeze took cannot be given back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_passwords: bool,
    /// Ways to stop the bot whose program was not there at the start, each as it is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_programs: Vec<Box<str>>,
    #[serde(default, skip_serializing_if = "People::is_empty")]
    pub people: People,
    /// What else of the configuration is trusted, each as it is told: the names of references, never what they hold. None
    /// in what an older version wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<BTreeMap<Box<str>, Box<str>>>,
}

impl Declared {
    /// An account of which nothing was declared yet: no bot, no familiar network.
    pub fn nothing(account: Account) -> Self {
        Self {
            account,
            bots: BTreeMap::new(),
            tagged_only: false,
            familiar_networks: Vec::new(),
            waits: Waits::default(),
            stopping: None,
            exceptions: Vec::new(),
            admin_beside_bot: false,
            no_passwords: false,
            missing_programs: Vec::new(),
            people: People::default(),
            places: None,
        }
    }
}

/// How long the kernel waits for what may still come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// The hard cap on waiting for a bot's word about an untagged order.
    pub pending_cap: Duration,
    /// How long the intent of a locally computed countersign may take.
    pub unlogged_after: Duration,
    /// From when on an intent that the venue has not shown is looked up.
    pub unseen_after: Duration,
    /// A connected bot that says nothing for this long has gone silent.
    pub silent_after: Duration,
    /// The time between two comparisons by REST.
    pub audit_every: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            pending_cap: Duration::from_secs(10),
            unlogged_after: Duration::from_secs(10),
            unseen_after: Duration::from_secs(10),
            silent_after: Duration::from_secs(30),
            audit_every: Duration::from_secs(300),
        }
    }
}

/// The pre-trade limits of one bot: no intent clears outside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The symbols it may trade, with the largest quantity of one order in the base asset.
    pub symbols: BTreeMap<Symbol, SymbolLimit>,
    /// By quote asset.
    pub quote: BTreeMap<Asset, QuoteLimit>,
    pub orders_per_minute: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SymbolLimit {
    pub quote: Asset,
    pub order_quantity: Dec,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuoteLimit {
    pub order_notional: Dec,
    pub notional_per_hour: Dec,
}

/// A familiar network is somebody's, not a continent's.
const PREFIX_V4_MIN: u8 = 16;
const PREFIX_V6_MIN: u8 = 32;

/// An address range in CIDR form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    #[must_use]
    pub const fn is_wide(&self) -> bool {
        self.prefix < if self.address.is_ipv4() { PREFIX_V4_MIN } else { PREFIX_V6_MIN }
    }

    /// Written as what it is: no bit of a single host stands in it.
    #[must_use]
    pub fn trimmed(&self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & self.mask_v4())),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & self.mask_v6())),
        };
        Self { address, prefix: self.prefix }
    }

    fn mask_v4(&self) -> u32 {
        u32::MAX.checked_shl(32_u32.saturating_sub(self.prefix.into())).unwrap_or(0)
    }

    fn mask_v6(&self) -> u128 {
        u128::MAX.checked_shl(128_u32.saturating_sub(self.prefix.into())).unwrap_or(0)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = self.mask_v4();
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = self.mask_v6();
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:.60?} is not a network: write it like \"203.0.113.0/24\"");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(widest), str::parse).map_err(|_| refused())?;
        if prefix > widest {
            return Err(refused());
        }
        Ok(Self { address, prefix })
    }
}

impl TryFrom<String> for Network {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_own_addresses_only() {
        for (network, address, inside) in [
            ("203.0.113.0/24", "203.0.113.9", true),
            ("203.0.113.0/24", "203.0.114.9", false),
            ("203.0.113.7", "203.0.113.7", true),
            ("203.0.113.7", "203.0.113.8", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("203.0.113.0/24", "::ffff:203.0.113.9", true),
        ] {
            assert_eq!(network.parse::<Network>().unwrap().contains(address.parse().unwrap()), inside, "{network}");
        }
        for (given, trimmed, wide) in [
            ("203.0.113.5/8", "203.0.0.0/8", true),
            ("203.0.113.5/16", "203.0.0.0/16", false),
            ("203.0.113.5", "203.0.113.5/32", false),
            ("203.0.113.5/0", "0.0.0.0/0", true),
            ("2001:db8::1/31", "2001:db8::/31", true),
            ("2001:db8::/32", "2001:db8::/32", false),
        ] {
            let network: Network = given.parse().unwrap();
            assert_eq!((network.trimmed().to_string().as_str(), network.is_wide()), (trimmed, wide), "{given}");
        }
        for text in ["203.0.113.0/33", "203.0.113", "::/129", "1.2.3.4/", "home"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
