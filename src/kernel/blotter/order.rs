//! One order as it is known here, built up from the sights of it in whatever order they come.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::claim::{ClaimStanding, Claimed};
use crate::kernel::event::TagCheck;
use crate::kernel::money::Dec;
use crate::kernel::order::{ClientId, OrderStatus, OrderType};
use crate::kernel::time::Time;
use crate::kernel::verdict::{Assurance, Difference, Placed, Verdict};

/// Ids one order may have had: the venue allows ten amendments. A later one is not followed as a target.
const ALIASES_MAX: usize = 16;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub placed: Placed,
    /// When the placing report was made; the earliest NEW wins.
    pub placed_at: Time,
    pub sight: Sight,
    pub first_seen: Time,
    pub created_at: Time,
    pub tag: TagCheck,
    pub list_id: Option<i64>,
    pub verdict: Verdict,
    pub assurance: Option<Assurance>,
    pub differences: Vec<Difference>,
    /// The incident side of this order has been told.
    pub told: bool,
    /// Waiting ends here, whatever the bots say.
    pub deadline: Time,
    /// Waiting is over, and does not begin again.
    pub waited: bool,
    pub open: bool,
    pub cumulative_quantity: Dec,
    pub cumulative_quote: Dec,
    /// The claim window that took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Claimed>,
    /// The intent it was matched with has been forgotten: the verdict stands.
    pub(super) kept: bool,
    /// A cancel that carries the bot's countersign has ended it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelled_by_tag: bool,
    pub(super) aliases: Vec<ClientId>,
}

/// How well we know the terms that an order was placed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sight {
    /// From a report of something else (a fill, an expiry).
    Aside,
    /// The same, and a read could not settle it.
    AsideUnread,
    /// From a signed read, which shows the order as it is by now.
    Read,
    /// From the report that shows the order as it was placed.
    AsPlaced,
}

/// One sight of an order, from a report or a read.
#[derive(Debug)]
pub struct Glimpse {
    pub placed: Placed,
    pub sight: Sight,
    pub at: Time,
    pub created_at: Time,
    pub tag: TagCheck,
    /// It is a cancel that carries the bot's countersign.
    pub cancels_by_tag: bool,
    pub list_id: Option<i64>,
    pub status: OrderStatus,
    pub cumulative_quantity: Dec,
    pub cumulative_quote: Dec,
}

impl Glimpse {
    pub fn into_order(self, now: Time, wait: Duration) -> Order {
        Order {
            placed: self.placed,
            placed_at: self.at,
            sight: self.sight,
            first_seen: now,
            created_at: self.created_at,
            tag: self.tag,
            list_id: self.list_id,
            verdict: Verdict::Pending,
            assurance: None,
            differences: Vec::new(),
            told: false,
            deadline: now + wait,
            waited: false,
            open: !self.status.is_terminal(),
            cumulative_quantity: self.cumulative_quantity,
            cumulative_quote: self.cumulative_quote,
            claimed: None,
            kept: false,
            cancelled_by_tag: self.cancels_by_tag,
            aliases: Vec::new(),
        }
    }
}

impl Order {
    /// What it has traded and what it still binds, in the quote asset.
    pub fn exposure(&self) -> Dec {
        let rest = self.placed.quantity.checked_sub(self.cumulative_quantity).filter(|rest| rest.is_positive());
        let resting = rest.filter(|_| self.open).and_then(|rest| rest.checked_mul(self.placed.price));
        self.cumulative_quote.checked_add(resting.unwrap_or(Dec::ZERO)).unwrap_or(self.cumulative_quote)
    }

    /// All that it traded and can still trade, in the quote asset; none where its terms do not tell.
    pub fn possible_money(&self) -> Option<Dec> {
        let Placed { quantity, quote_quantity, price, stop_price, .. } = self.placed;
        if !self.open {
            return Some(self.cumulative_quote);
        }
        if quote_quantity.is_positive() {
            return Some(quote_quantity.max(self.cumulative_quote));
        }
        let moves = self.placed.peg.is_some() || self.placed.trailing_delta.is_some();
        let reference = price.max(stop_price);
        if moves || self.placed.order_type == OrderType::Market || !reference.is_positive() {
            return None;
        }
        let rest = quantity.checked_sub(self.cumulative_quantity)?.max(Dec::ZERO);
        rest.checked_mul(reference)?.checked_add(self.cumulative_quote)
    }

    /// The window whose claim on it holds.
    pub fn claim(&self) -> Option<&Claimed> {
        self.claimed.as_ref().filter(|claimed| claimed.standing == ClaimStanding::Holds)
    }

    /// Whether its verdict rests on an intent that has been forgotten.
    pub const fn is_kept(&self) -> bool {
        self.kept
    }

    /// Every id it was ever seen under.
    pub fn ids(&self) -> impl Iterator<Item = &ClientId> {
        std::iter::once(&self.placed.client_order_id).chain(&self.aliases)
    }

    /// `true` if it is a new one, and followed.
    pub(super) fn note_id(&mut self, id: &ClientId) -> bool {
        let news = self.aliases.len() < ALIASES_MAX && self.ids().all(|known| known != id);
        if news {
            self.aliases.push(id.clone());
        }
        news
    }

    /// Takes in one more sight of the order, in whatever order they come.
    pub(super) fn take(&mut self, glimpse: Glimpse) {
        let better = glimpse.sight > self.sight || glimpse.sight == self.sight && glimpse.at < self.placed_at;
        if better {
            self.placed = glimpse.placed;
            self.placed_at = glimpse.at;
            self.sight = glimpse.sight;
            self.tag = glimpse.tag;
        }
        self.created_at = self.created_at.min(glimpse.created_at);
        self.cancelled_by_tag |= glimpse.cancels_by_tag;
        self.list_id = self.list_id.or(glimpse.list_id);
        // Closed stays closed: a NEW that arrives after the fill does not bring the order back.
        self.open = self.open && !glimpse.status.is_terminal();
        self.cumulative_quantity = self.cumulative_quantity.max(glimpse.cumulative_quantity);
        self.cumulative_quote = self.cumulative_quote.max(glimpse.cumulative_quote);
    }
}
