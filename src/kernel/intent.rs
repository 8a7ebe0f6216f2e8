//! What a bot says it will do, and what became of it. These are checked values: the wire form is parsed into them
//! once, at the intake, and refused there.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::kernel::money::Dec;
use crate::kernel::order::{Account, Bot, ClientId, OrderId, OrderType, Side, StpMode, Symbol, TimeInForce};
use crate::kernel::report::Peg;
use crate::kernel::time::Time;

/// One record of a bot's sequence. (account, bot, seq) is its idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentRecord {
    pub account: Account,
    pub bot: Bot,
    pub seq: u64,
    /// The bot's own clock.
    pub at: Time,
    /// The nonce of our latest reply that the bot had read when it wrote this: the journal time of that reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Time>,
    /// The earlier sequence this one tells again, where its order went out without our answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Box<str>>,
    pub body: IntentBody,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum IntentBody {
    Place(OrderTerms),
    Cancel(CancelTerms),
    Amend(AmendTerms),
    CancelReplace { cancel: CancelTerms, place: OrderTerms },
    List(ListTerms),
    Result(ResultOf),
    Heartbeat { egress: Option<IpAddr> },
}

/// An order as the bot will send it; `None` is "the bot does not set it".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderTerms {
    /// Absent on the wire means "issue me one"; present from the intake on. An issued id is a function of the record,
    /// so the same record told twice has the same id.
    pub client_order_id: ClientId,
    pub symbol: Symbol,
    pub side: Side,
    pub order_type: OrderType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_in_force: Option<TimeInForce>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<Dec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote_quantity: Option<Dec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Dec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_price: Option<Dec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trailing_delta: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iceberg_quantity: Option<Dec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peg: Option<Peg>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stp_mode: Option<StpMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy_id: Option<i64>,
}

/// Which order is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Order(OrderId),
    Client(ClientId),
    /// Every open order of the symbol.
    All,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelTerms {
    pub symbol: Symbol,
    pub target: Target,
    /// The cancel's own id. A cancel-all has none: the venue makes it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_order_id: Option<ClientId>,
}

/// An amendment that keeps priority: the venue allows a smaller quantity only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmendTerms {
    pub symbol: Symbol,
    pub target: Target,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_order_id: Option<ClientId>,
    pub quantity: Dec,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTerms {
    pub client_order_id: ClientId,
    pub contingency: Box<str>,
    pub legs: Vec<OrderTerms>,
}

/// What the venue answered the bot about the intent `of`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultOf {
    pub of: u64,
    pub outcome: SendOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendOutcome {
    Accepted { order_id: Option<OrderId> },
    Rejected { code: Option<i64>, message: Box<str> },
    NotSent,
    Unknown,
}

/// What an account may refuse an intent for. The order must then not be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The same (account, bot, seq) came before with other content.
    Conflict,
    /// A sequence that is not above the last one.
    Replay {
        last_seq: u64,
    },
    OutsideLimits {
        limit: Box<str>,
    },
    /// The id names another intent already.
    IdInUse,
    /// A result or cancel of a sequence we do not hold.
    UnknownIntent {
        of: u64,
    },
    UnknownBot,
    /// The account holds as many open intents as it can.
    Full {
        capacity: usize,
    },
}

/// The answer to one intent record; it leaves once the record is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentReply {
    pub seq: u64,
    pub nonce: Time,
    /// An order waits for this bot's watermark: the next beat should not be late.
    pub heartbeat_wanted: bool,
    /// Records between the last sequence and this one that never came.
    pub missing: u64,
    pub answer: Result<Registered, Refusal>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The ids of what was registered: the order's, the cancel's, or those of a list's legs.
    pub client_order_ids: Vec<ClientId>,
}
