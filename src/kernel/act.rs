//! What can be done about an account, as one closed enum, and what can become of it, as another. An outlet does exactly
//! this and chooses nothing.
//!
//! Invariant: a key is named by its print, never by itself: no secret and no usable key stands in the journal.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kernel::event::OrderSnapshot;
use crate::kernel::money::Dec;
use crate::kernel::order::{Asset, ClientId, OrderId, Symbol};
use crate::kernel::report::Balance;
use crate::kernel::time::Time;

/// Enough of a key's SHA-256 to tell keys apart, and nothing to call the venue with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyPrint(Box<str>);

impl KeyPrint {
    #[must_use]
    pub fn of(api_key: &str) -> Self {
        let digest = Sha256::digest(api_key.as_bytes());
        Self(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>().into())
    }

    /// A print as somebody typed it.
    #[must_use]
    pub fn read(text: &str) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyPrint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a key of a sub-account may do beside reading. Thawing gives back what freezing took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRights {
    pub trade: bool,
    pub margin: bool,
    pub futures: bool,
    pub universal_transfer: bool,
    pub options: bool,
}

impl KeyRights {
    pub const NONE: Self =
        Self { trade: false, margin: false, futures: false, universal_transfer: false, options: false };

    #[must_use]
    pub fn any(self) -> bool {
        self != Self::NONE
    }
}

impl fmt::Display for KeyRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            (self.trade, "trade"),
            (self.margin, "margin"),
            (self.futures, "futures"),
            (self.universal_transfer, "universal transfer"),
            (self.options, "options"),
        ];
        let held: Vec<&str> = named.into_iter().filter(|(held, _)| *held).map(|(_, name)| name).collect();
        f.write_str(if held.is_empty() { "no right" } else { "" })?;
        f.write_str(&held.join(", "))
    }
}

/// A key as the venue's list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    pub key: KeyPrint,
    /// The name its owner gave it.
    pub name: Box<str>,
    pub created_at: Time,
    pub rights: KeyRights,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// The keys of the sub-account.
    ListKeys,
    /// Freeze (no right left) or thaw.
    SetRights {
        key: KeyPrint,
        rights: KeyRights,
    },
    DeleteKey {
        key: KeyPrint,
    },
    /// Two unlike calls with the key and without its secret, which tell a dead key from a live one.
    Probe {
        key: KeyPrint,
    },
    /// Every open order, read past the credential that watches.
    OpenOrders,
    CancelOrder {
        symbol: Symbol,
        order_id: OrderId,
    },
    /// One of the owner's declared ways to stop the bot.
    StopBot {
        hook: Box<str>,
    },
    /// What the account holds, read past the credential that watches.
    Balances,
    /// From the sub-account to the master's spot wallet. The venue takes an id once.
    Transfer {
        asset: Asset,
        amount: Dec,
        id: Box<str>,
    },
    /// What became of the transfer with this id.
    FindTransfer {
        id: Box<str>,
    },
    /// What a market takes, and what is bid there now.
    Quote {
        symbol: Symbol,
    },
    /// A limit order that fills at once as far as it can, and rests nowhere.
    Sell {
        symbol: Symbol,
        quantity: Dec,
        price: Dec,
        id: ClientId,
    },
    /// What became of the order with this id.
    FindOrder {
        symbol: Symbol,
        id: ClientId,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "value", rename_all = "snake_case")]
pub enum ActOutcome {
    Keys(Vec<KeyRow>),
    Probed([ProbeAnswer; 2]),
    Orders(Vec<OrderSnapshot>),
    Balances(Vec<Balance>),
    Quote(Box<Quote>),
    /// The order has ended: so much was sold, for so much.
    Sold {
        executed: Dec,
        received: Dec,
    },
    /// The venue answered that it knows no such thing, so far.
    NotFound,
    /// The venue, or the hook, says that it was done.
    Done {
        #[serde(default, skip_serializing_if = "str::is_empty")]
        proof: Box<str>,
    },
    /// The venue says that it was not done.
    Refused {
        code: i64,
        reason: Box<str>,
    },
    /// Nothing was sent: a limit or a ban holds us until then.
    Held {
        until: Time,
        reason: Box<str>,
    },
    /// It may have been done or not.
    Unknown {
        reason: Box<str>,
    },
}

impl ActOutcome {
    /// Why it is not what was asked for.
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused { reason, .. } | Self::Held { reason, .. } | Self::Unknown { reason } => reason,
            Self::Keys(_)
            | Self::Probed(_)
            | Self::Orders(_)
            | Self::Balances(_)
            | Self::Quote(_)
            | Self::Sold { .. }
            | Self::NotFound
            | Self::Done { .. } => "the answer was of another kind",
        }
    }
}

/// A market as it stands, and the steps of its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    pub base: Asset,
    pub quote: Asset,
    pub trading: bool,
    pub tick: Dec,
    pub step: Dec,
    pub quantity_least: Dec,
    pub quantity_most: Dec,
    pub notional_least: Dec,
    /// Of the trades of the last minutes.
    pub average: Dec,
    /// Of the trades of a day: whoever moves a thin market for some minutes does not move this as far.
    pub average_of_day: Dec,
    /// Price and quantity of the best of them.
    pub bids: Vec<(Dec, Dec)>,
}

/// How the venue answered a call that was made with a key and without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "probe", rename_all = "snake_case")]
pub enum ProbeAnswer {
    /// A code that a living key cannot get from an address it is allowed to call from.
    Dead { code: i64 },
    /// The venue knows the key: it looked at the signature, or answered.
    Alive { code: i64 },
    /// Anything else proves nothing.
    Unclear { reason: Box<str> },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_print_tells_keys_apart_and_is_not_the_key() {
        let key = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A";
        let print = KeyPrint::of(key);
        assert_eq!(print.as_str().len(), 16);
        assert_ne!(print, KeyPrint::of(&key.to_lowercase()));
        assert!(!key.contains(print.as_str()));
    }
}
