//! The assets of a sale, one each: what is offered, what became of it, and the line that tells its owner.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kernel::flatten::{LEGS_MAX, Stage};
use crate::kernel::money::Dec;
use crate::kernel::order::{Asset, Symbol};
use crate::kernel::time::Time;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    pub free: Dec,
    pub state: LegState,
    pub(super) looks: u32,
    pub(super) look_at: Option<Time>,
    /// While an act for it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answer_by: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "leg", rename_all = "snake_case")]
pub enum LegState {
    Reading,
    /// It stays, and why.
    Stays {
        why: Box<str>,
        /// It was in the plan that its owner said yes to.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        offered: bool,
    },
    Offered(Offer),
    /// Sent, or perhaps sent.
    Sent(Offer),
    Sold {
        offer: Offer,
        executed: Dec,
        received: Dec,
    },
    /// Nobody knows whether it was placed: its id is to be looked up by hand.
    Unknown {
        offer: Offer,
    },
}

impl LegState {
    /// It had no place in the plan.
    pub(super) fn no_offer(why: &str) -> Self {
        Self::Stays { why: why.into(), offered: false }
    }

    /// It was to be sold, and is not.
    pub(super) fn not_sold(why: &str) -> Self {
        Self::Stays { why: why.into(), offered: true }
    }
}

/// One order as it is shown and sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub symbol: Symbol,
    pub quantity: Dec,
    /// The limit: no part is sold below.
    pub price: Dec,
    /// The exchange's average of the last minutes.
    pub reference: Dec,
    /// For its owner to see whether the price was moved before.
    pub average_of_day: Dec,
    pub best_bid: Dec,
    /// What the bids at the limit or above it take.
    pub depth: Dec,
}

/// A plan, or what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sale {
    /// Names the plan that is said yes to.
    pub plan: Time,
    pub to: Asset,
    pub within: Dec,
    pub asked_by: Box<str>,
    pub stage: Stage,
    pub legs: BTreeMap<Asset, LegState>,
    /// One of each leg.
    pub lines: Vec<String>,
    pub beyond: usize,
}

impl Sale {
    /// Nothing would be sold.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.legs.values().any(|leg| matches!(leg, LegState::Offered(_)))
    }

    /// Each order that was offered is filled whole. What had no place in the plan stays, as the plan said.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let is_whole = |leg: &LegState| match leg {
            LegState::Sold { offer, executed, .. } => *executed == offer.quantity,
            LegState::Stays { offered, .. } => !offered,
            LegState::Reading | LegState::Offered(_) | LegState::Sent(_) | LegState::Unknown { .. } => false,
        };
        self.stage == Stage::Done && self.legs.values().all(is_whole)
    }
}

impl fmt::Display for Sale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stage {
            Stage::Failed { why } => return writeln!(f, "nothing was sold: {why}"),
            Stage::Planned => {
                writeln!(f, "What is free, for {}. Each order fills at once at its limit or better:", self.to)?
            }
            Stage::ReadingBalances | Stage::ReadingPrices => writeln!(f, "being read")?,
            Stage::Selling => writeln!(f, "being sold")?,
            Stage::Done if self.is_whole() => writeln!(f, "done: all that was offered is sold")?,
            Stage::Done => writeln!(f, "done, but NOT all that was offered is sold:")?,
        }
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        match self.beyond {
            0 => Ok(()),
            beyond => writeln!(f, "  {beyond} more assets: one command sells {LEGS_MAX} at the most"),
        }
    }
}

impl Leg {
    pub(super) const fn is_offered(&self) -> bool {
        matches!(self.state, LegState::Offered(_))
    }

    /// In one line.
    #[must_use]
    pub fn told(&self, asset: &Asset, to: &Asset) -> String {
        let of =
            |offer: &Offer| format!("{} of {} {asset}, at {} {to} or more", offer.quantity, self.free, offer.price);
        match &self.state {
            LegState::Reading => format!("{} {asset}: being read", self.free),
            LegState::Stays { why, .. } => format!("{} {asset} stays: {why}", self.free),
            LegState::Offered(offer) => format!(
                "sell {} (average {}, of the day {}, best bid {}, {} bid for inside the bound): {}",
                of(offer),
                offer.reference,
                offer.average_of_day,
                offer.best_bid,
                offer.depth,
                offer.least_told(to),
            ),
            LegState::Sent(offer) => format!("sent, and not answered yet: {}", of(offer)),
            LegState::Sold { offer, executed, received } => {
                let sold = format!(
                    "sold {executed} of {} {asset} for {received} {to} (at {} or more)",
                    self.free, offer.price
                );
                let left = self.free.checked_sub(*executed).filter(|left| left.is_positive());
                left.map_or_else(
                    || sold.clone(),
                    |left| format!("{sold}; {left} {asset} stays: {}", self.why_left(offer, *executed)),
                )
            }
            LegState::Unknown { offer } => {
                format!("NOT KNOWN whether it was sold: {}. Look at the exchange.", of(offer))
            }
        }
    }

    fn why_left(&self, offer: &Offer, executed: Dec) -> &'static str {
        if executed < offer.quantity {
            "it was not filled at once, and no order rests"
        } else if offer.depth < self.free {
            "nobody bid for more inside the bound"
        } else {
            "one order takes no such part of it, by the exchange's filters"
        }
    }
}

impl Offer {
    /// What it brings at least, if all of it is sold.
    #[must_use]
    pub fn least(&self) -> Option<Dec> {
        self.quantity.checked_mul(self.price)
    }

    pub(super) fn least_told(&self, to: &Asset) -> String {
        format!("{} {to} at least", self.least().map_or_else(String::new, |least| least.rounded(8).to_string()))
    }
}
