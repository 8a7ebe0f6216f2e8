//! An incident: the findings of one cause on one account, with a timeline and an end.

use serde::{Deserialize, Serialize};

use crate::kernel::money::Dec;
use crate::kernel::order::{Account, Asset, Symbol};
use crate::kernel::time::Time;

/// The sequence of the event that opened it: unique in an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncidentId(pub u64);

impl std::fmt::Display for IncidentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The rule of a drill's incident, which no pack can have.
pub const DRILL_RULE: &str = "drill";

/// The rule of a claim window's incident, which no pack can have.
pub const CLAIM_RULE: &str = "claim_window";

/// The rule of a sale's incident, which no pack can have.
pub const SALE_RULE: &str = "flatten";

/// How loud: `Critical` rings until somebody acknowledges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    Info,
    Warning,
    Critical,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    Open,
    Acknowledged,
    /// Its cause is over (sight came back, the bot speaks again).
    Ended,
}

/// What an account kernel hands to the shared kernel each time an incident changes: the whole incident as a person
/// should now see it, so that a card can be drawn from it alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub account: Account,
    pub incident: IncidentId,
    /// Counts the incident's changes; an acknowledgement names the one it saw.
    pub revision: u64,
    pub state: IncidentState,
    pub priority: Priority,
    /// The name of the rule that opened it, such as `foreign_order`.
    pub rule: Box<str>,
    /// In plain words: "not your bot", "differs from what your bot said", "cannot see now".
    pub headline: Box<str>,
    pub opened_at: Time,
    pub updated_at: Time,
    /// Orders in it that are not the bot's.
    pub orders: u64,
    pub symbols: Vec<Symbol>,
    /// Money traded or put on the book by those orders, by quote asset.
    pub notional: Vec<(Asset, Dec)>,
    /// What happened, newest last; the oldest lines give way, and `lines_left_out` counts them.
    pub lines: Vec<Line>,
    pub lines_left_out: u64,
    /// How sure we are, and why.
    pub certainty: Box<str>,
    /// What the owner can do now.
    pub advice: Vec<Box<str>>,
    /// What cannot be seen.
    pub limits_of_sight: Vec<Box<str>>,
    pub acknowledged_by: Option<Box<str>>,
    /// What was and is done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contained: Option<Contained>,
    /// The incident that tells of the containment that ran when this one was open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contained_in: Option<IncidentId>,
    /// The alert may have been sent before (a restart cannot know).
    pub repeated: bool,
}

impl Notice {
    /// A drill is shown like a theft, marked, and counted nowhere.
    #[must_use]
    pub fn is_drill(&self) -> bool {
        *self.rule == *DRILL_RULE
    }

    /// What is sold at its owner's word; its lines tell.
    #[must_use]
    pub fn is_sale(&self) -> bool {
        *self.rule == *SALE_RULE
    }

    /// A claim window: each order in it is a message of its own, with the button *Not me*.
    #[must_use]
    pub fn is_claim(&self) -> bool {
        *self.rule == *CLAIM_RULE
    }
}

/// How far the containment of an incident is, in the words of every channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contained {
    /// "not contained" until it is proved.
    pub word: Box<str>,
    pub asked_by: Box<str>,
    /// Two clocks, never one: until no new order was possible, and until no stranger's order was open.
    pub blocked_ms: Option<i64>,
    pub orders_gone_ms: Option<i64>,
    /// It says nothing of what comes after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_at: Option<Time>,
    /// What was seen, newest last.
    pub lines: Vec<Line>,
    /// Earlier ones that this card has no room for.
    #[serde(default, skip_serializing_if = "is_none_left_out")]
    pub lines_left_out: usize,
}

impl Contained {
    /// Its end is still to come.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.word.starts_with("not ") || self.word.ends_with(" yet")
    }

    /// It gives back what was blocked, and then nothing is.
    #[must_use]
    pub fn is_release(&self) -> bool {
        self.word.contains("released")
    }
}

const fn is_none_left_out(count: &usize) -> bool {
    *count == 0
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub at: Time,
    pub text: Box<str>,
}
