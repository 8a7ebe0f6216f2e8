//! The words of an order, as every venue and every bot means them. An unknown word is not one of these: the
//! frame or intent that carries it is kept or refused at the edge.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A word list that reads and prints as the venue spells it, for serde and for people alike.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ::serde::Serialize, ::serde::Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.word())
            }
        }
    };
}
pub(crate) use words;

words!(Side { Buy = "BUY", Sell = "SELL" });

words!(OrderType {
    Limit = "LIMIT",
    Market = "MARKET",
    StopLoss = "STOP_LOSS",
    StopLossLimit = "STOP_LOSS_LIMIT",
    TakeProfit = "TAKE_PROFIT",
    TakeProfitLimit = "TAKE_PROFIT_LIMIT",
    LimitMaker = "LIMIT_MAKER",
});

impl OrderType {
    pub const fn has_price(self) -> bool {
        matches!(self, Self::Limit | Self::StopLossLimit | Self::TakeProfitLimit | Self::LimitMaker)
    }

    /// Waits for a trigger: a stop price, a trailing delta, or both.
    pub const fn is_conditional(self) -> bool {
        matches!(self, Self::StopLoss | Self::StopLossLimit | Self::TakeProfit | Self::TakeProfitLimit)
    }
}

words!(TimeInForce { Gtc = "GTC", Ioc = "IOC", Fok = "FOK", Gtd = "GTD", Gtx = "GTX" });

words!(ExecutionType {
    New = "NEW",
    Canceled = "CANCELED",
    Replaced = "REPLACED",
    Rejected = "REJECTED",
    Trade = "TRADE",
    Expired = "EXPIRED",
    TradePrevention = "TRADE_PREVENTION",
});

words!(OrderStatus {
    New = "NEW",
    PendingNew = "PENDING_NEW",
    PartiallyFilled = "PARTIALLY_FILLED",
    Filled = "FILLED",
    Canceled = "CANCELED",
    Rejected = "REJECTED",
    Expired = "EXPIRED",
    ExpiredInMatch = "EXPIRED_IN_MATCH",
});

impl OrderStatus {
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Filled | Self::Canceled | Self::Rejected | Self::Expired | Self::ExpiredInMatch)
    }
}

words!(StpMode {
    None = "NONE",
    ExpireMaker = "EXPIRE_MAKER",
    ExpireTaker = "EXPIRE_TAKER",
    ExpireBoth = "EXPIRE_BOTH",
    Decrement = "DECREMENT",
    Transfer = "TRANSFER",
});

words!(
    /// Why the venue, not a user, ended an order.
    ExpiryReason {
        None = "NONE",
        Rejected = "REJECTED",
        ExchangeCanceled = "EXCHANGE_CANCELED",
        OcoTrigger = "OCO_TRIGGER",
        OtoPhaseOneExpired = "OTO_PHASE_ONE_EXPIRED",
        UnfilledIoc = "UNFILLED_IOC_QUANTITY_EXPIRED",
        UnfilledFok = "UNFILLED_FOK_ORDER_EXPIRED",
        InsufficientLiquidity = "INSUFFICIENT_LIQUIDITY",
        PriceRangeExceeded = "EXECUTION_RULE_PRICE_RANGE_EXCEEDED",
    }
);

words!(RejectReason {
    None = "NONE",
    InsufficientBalances = "INSUFFICIENT_BALANCES",
    StopWouldTrigger = "STOP_PRICE_WOULD_TRIGGER_IMMEDIATELY",
    WouldMatch = "WOULD_MATCH_IMMEDIATELY",
    OcoBadPrices = "OCO_BAD_PRICES",
});

/// What may name a thing of an account (account, bot, symbol…): short, printable, no spaces.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            pub fn new(text: &str) -> Self {
                Self(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type!(Account);
name_type!(Bot);
name_type!(Symbol);
name_type!(Asset);
name_type!(
    /// A client order id as it stands on the wire; a claim by whoever holds the key, never proof.
    ClientId
);

/// The venue's order id: unique within a symbol only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(pub i64);

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
