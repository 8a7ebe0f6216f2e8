//! Everything that can happen to an account, as one closed enum, and everything it can ask for, as another.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::kernel::account::State;
use crate::kernel::act::{Act, ActOutcome};
use crate::kernel::command::{Command, Totp};
use crate::kernel::credential::{CredentialOutcome, CredentialRole};
use crate::kernel::declared::Declared;
use crate::kernel::incident::{IncidentId, Notice};
use crate::kernel::intent::{IntentRecord, IntentReply};
use crate::kernel::money::Dec;
use crate::kernel::order::{Account, ClientId, OrderId, OrderStatus, OrderType, Side, StpMode, Symbol, TimeInForce};
use crate::kernel::people::Way;
use crate::kernel::report::{Balance, ExecutionReport, Peg, Report};
use crate::kernel::rule::RuleSet;
use crate::kernel::time::Time;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The process started, or started again, under this configuration (no secret stands in it). What was pending is
    /// asked for once more.
    Started {
        version: Box<str>,
        declared: Box<Declared>,
        rules: Box<RuleSet>,
    },
    /// A snapshot: the whole state and configuration as they were, so that a start need not read everything before it.
    Restored {
        state: Box<State>,
        declared: Box<Declared>,
        rules: Box<RuleSet>,
    },
    Feed {
        connection: Connection,
        change: FeedChange,
    },
    Report {
        connection: Connection,
        report: Report,
        tags: Tags,
        raw: Box<str>,
    },
    /// The same event again on another connection, told alike: only that it came is worth a row.
    Echo {
        connection: Connection,
        /// What both copies tell of, as [`Kernel::echo_of`](crate::kernel::account::Kernel::echo_of) named it.
        of: Box<str>,
    },
    /// A frame that could not be read: kept whole, with the reason.
    Kept {
        connection: Connection,
        reason: Box<str>,
        raw: Box<str>,
    },
    Intent {
        ticket: Ticket,
        record: Box<IntentRecord>,
    },
    /// What a read of the venue gave, named by the effect that asked for it.
    Read {
        effect: EffectId,
        outcome: ReadOutcome,
    },
    Access {
        ticket: Ticket,
        evidence: AccessEvidence,
    },
    Acknowledge {
        ticket: Ticket,
        by: Box<str>,
        incident: IncidentId,
        shown: Option<u64>,
    },
    /// The owner confirms the orders that were open before countersign looked, by their digest.
    ConfirmPreExisting {
        ticket: Ticket,
        by: Box<str>,
        digest: Box<str>,
    },
    /// An operator's command about this account. `by` names who, and on which way it came.
    Command {
        ticket: Ticket,
        by: Box<str>,
        /// None in a journal from before there were people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        way: Option<Way>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Box<str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        incident: Option<IncidentId>,
        command: Command,
        totp: Totp,
    },
    /// Somebody wants a code that pairs a chat; an approval of that is used up by it. The first takes the alerts from nobody.
    Pair {
        ticket: Ticket,
        way: Way,
        is_first: bool,
    },
    /// What became of an act, named by the effect that asked for it.
    Acted {
        effect: EffectId,
        outcome: ActOutcome,
    },
    /// What the venue says that one of countersign's own keys may do.
    Credential {
        role: CredentialRole,
        outcome: CredentialOutcome,
    },
    /// A made-up report of a stranger's order, to be judged and told as a real one is, and counted nowhere.
    Drill {
        ticket: Ticket,
        by: Box<str>,
        report: Box<ExecutionReport>,
        tags: Tags,
        /// The containment too, of the throw-away key alone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        kill: bool,
        raw: Box<str>,
    },
    /// Requests that never became events, counted since the last count.
    Refused {
        intents: u64,
        access: u64,
    },
    Fault(Fault),
    /// A timer is due.
    Due,
}

/// What went wrong inside the watcher itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// An alert left before its cause was on disk.
    Unjournalled {
        effect: EffectId,
    },
    /// Nothing has reached the disk for this long; intents are not acknowledged meanwhile.
    DiskStalled {
        for_ms: u64,
    },
    BrokenJournal {
        detail: Box<str>,
    },
    ClockJump {
        by_ms: i64,
    },
    TaskEnded {
        task: Box<str>,
        detail: Box<str>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
#[must_use]
pub enum Effect {
    Reply {
        ticket: Ticket,
        reply: IntentReply,
    },
    Answer {
        ticket: Ticket,
        answer: Answer,
    },
    Read(ReadRequest),
    /// On the lane of its own that nothing else can hold up. Its outcome comes back as `Acted`.
    Act(Act),
    /// For the shared kernel, which paces the channels.
    Tell(Box<Notice>),
    /// A sentence for every channel.
    Announce {
        text: Box<str>,
    },
}

/// (causing sequence, index): an effect is pending in the kernel until its outcome comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EffectId {
    pub cause: u64,
    pub index: u32,
}

/// Where an answer goes; made by the edge that asked, meaningless after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticket(pub u64);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Done,
    /// It waits for another person's approval, under this number.
    Requested {
        request: u32,
    },
    Refused {
        reason: Box<str>,
    },
}

/// One of the connections that carry the account's stream; replacements get a new number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Connection(pub u64);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum FeedChange {
    /// Subscribed and answering pings: reports flow from here on.
    Live,
    /// Nothing more will come of this connection, and nothing may have come since it was last heard.
    Lost {
        reason: Box<str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        heard_until: Option<Time>,
    },
    /// Replaced on purpose by one that was live before this ended.
    Retired,
    /// The venue refuses the key.
    KeyRefused { code: i64, message: Box<str> },
}

/// What the edge found when it checked the ids of a report for a countersign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// Of the order's own client id, against the order's fields.
    pub order: TagCheck,
    /// Of the request's client id (a cancel's), where the report shows one.
    pub request: TagCheck,
}

impl Tags {
    pub const NONE: Self = Self { order: TagCheck::Absent, request: TagCheck::Absent };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "tag", rename_all = "snake_case")]
pub enum TagCheck {
    /// Not of the countersign's layout, or of a key id this account does not have.
    Absent,
    /// `at` is the time that the id carries.
    Valid { issuer: Issuer, at: Time },
    /// The layout and key id of a countersign, and a MAC that does not verify over what the report shows.
    Forged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Issuer {
    Daemon,
    /// Computed in the bot's process; its intent may still be on the way.
    Bot,
}

/// A signed read of the venue. A failed one is `Unknown`, never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "read", rename_all = "snake_case")]
pub enum ReadRequest {
    OpenOrders,
    Balances,
    Order { symbol: Symbol, order: OrderRef },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderRef {
    Id(OrderId),
    Client(ClientId),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "value", rename_all = "snake_case")]
pub enum ReadOutcome {
    OpenOrders(Vec<OrderSnapshot>),
    Balances(Vec<Balance>),
    Order(Box<OrderSnapshot>),
    /// The venue answered that it does not know this order.
    NotFound,
    Unknown {
        reason: Box<str>,
    },
}

/// An order as a read shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderSnapshot {
    pub symbol: Symbol,
    pub order_id: OrderId,
    pub client_order_id: ClientId,
    pub side: Side,
    pub order_type: OrderType,
    pub time_in_force: TimeInForce,
    pub status: OrderStatus,
    pub price: Dec,
    pub quantity: Dec,
    pub executed_quantity: Dec,
    pub executed_quote: Dec,
    pub quote_quantity: Dec,
    pub stop_price: Dec,
    pub iceberg_quantity: Dec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trailing_delta: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy_id: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stp_mode: Option<StpMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_id: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peg: Option<Peg>,
    pub created_at: Time,
    /// Of the client id against these fields.
    pub tag: TagCheck,
}

/// One sign of an address that touched the account, and what kind of witness says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessEvidence {
    pub account: Account,
    pub at: Time,
    pub address: IpAddr,
    pub source: AccessSource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessSource {
    /// The venue's own record (a login page, an access log).
    Venue,
    /// A mail from the venue.
    Mail,
    /// The egress log of a host of ours.
    Host,
    /// The address a bot says its requests leave from.
    BotEgress,
}
