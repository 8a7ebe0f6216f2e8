//! Exceptions: what a rule leaves unsaid, on whose word, until when, and up to how much money.
//!
//! Invariants: the money that an exception quiets in its life never passes its bound, in any asset. Nothing is given
//! back: an order that is cancelled has used what it bound. What is not known to fit is told: a finding without money,
//! or in an asset without a bound. What is quieted keeps its verdict.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::kernel::blotter::OrderKey;
use crate::kernel::money::Dec;
use crate::kernel::order::Asset;
use crate::kernel::pairs;
use crate::kernel::rule::{Cause, Condition, FLOOR_RULE, Facts, Field, RuleSet};
use crate::kernel::time::Time;

/// An owner's exceptions; each is a line of the coverage statement, which must fit a chat message.
pub const LOCAL_MAX: usize = 16;
/// So far ahead may a new local exception expire: what an owner allowed he looks at again once a quarter, or it ends.
pub const LIFE_MAX: Duration = Duration::from_secs(90 * 86_400);
/// The same span in the words of an error.
const LIFE_MAX_DAYS: u64 = LIFE_MAX.as_secs() / 86_400;
/// Characters of an owner or a reason.
const WORDS_MAX: usize = 200;
/// Quieted orders whose money is followed. At the limit those that are closed give way; if none is, the next is told.
const ORDERS_MAX: usize = 2_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    pub name: Box<str>,
    pub when: Condition,
    pub owner: Box<str>,
    pub reason: Box<str>,
    pub expires: Expiry,
    /// The most that it quiets in its life, by quote asset.
    pub notional: BTreeMap<Asset, Dec>,
}

/// The owner's own, from the configuration: the only thing that can quiet the floor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalException {
    pub rule: Box<str>,
    pub exception: Exception,
}

impl Exception {
    /// Says what is wrong with it, taken alone.
    pub fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.contains('/') || self.name.chars().count() > 40 {
            return Err("its name has 1 to 40 characters and no '/'".to_owned());
        }
        for (field, text) in [("owner", &self.owner), ("reason", &self.reason)] {
            if text.trim().is_empty() || text.chars().count() > WORDS_MAX {
                return Err(format!("its {field} has 1 to {WORDS_MAX} characters"));
            }
        }
        if self.notional.is_empty() || self.notional.values().any(|bound| !bound.is_positive()) {
            return Err("its notional needs a bound above 0 for at least one quote asset".to_owned());
        }
        self.when.check()
    }

    pub fn is_over(&self, now: Time) -> bool {
        now >= self.expires.0
    }
}

impl LocalException {
    pub fn check(&self, rules: &RuleSet) -> Result<(), String> {
        self.exception.check()?;
        match rules.rules().iter().find(|rule| rule.name == self.rule) {
            None if &*self.rule == FLOOR_RULE => Ok(()),
            None => Err(format!(
                "there is no rule {:?}\nhint: `countersign rules check` lists them, and {FLOOR_RULE:?} is what speaks \
                 where none does; no exception quiets what is built in (blind, a broken journal, an unexplained \
                 difference, a refused key)",
                self.rule
            )),
            Some(rule) if matches!(rule.cause, Cause::Unseen | Cause::Address) => Err(format!(
                "what rule {:?} finds has no money, so no bound would hold\nhint: for addresses there is \
                 account.familiar_networks",
                self.rule
            )),
            Some(_) => Ok(()),
        }
    }
}

/// Refuses a new or changed exception that is over already or lasts too long. One that was there at the last start
/// just ends: a watcher that does not start because an exception is over would watch nothing.
pub fn check_new(now: Time, exceptions: &[LocalException], known: &[LocalException]) -> Result<(), String> {
    for LocalException { exception, .. } in exceptions.iter().filter(|exception| !known.contains(exception)) {
        let Exception { name, expires, .. } = exception;
        if exception.is_over(now) {
            return Err(format!(
                "exception {name:?} was over at {expires}\nhint: give it a later date, or take it out"
            ));
        }
        if expires.0 > now + LIFE_MAX {
            return Err(format!(
                "exception {name:?} expires at {expires}, more than {LIFE_MAX_DAYS} days ahead\nhint: what is allowed \
                 must be looked at again once a quarter; choose an earlier date"
            ));
        }
    }
    Ok(())
}

/// From this moment on an exception is not applied. A day without a time is over when it begins, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry(pub Time);

impl FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole = if text.len() == "2026-12-24".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
        match whole.parse::<jiff::Timestamp>() {
            Ok(stamp) => Ok(Self(Time::from_micros(stamp.as_microsecond()))),
            Err(_) => {
                Err(format!("{text:.60?} is not a date: write it like \"2026-12-24\" or \"2026-12-24T18:00:00Z\""))
            }
        }
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0.micros()) {
            Ok(stamp) => write!(f, "{stamp}"),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Expiry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Expiry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a date in quotes, like \"2026-12-24\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Expiry, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Under which a pack's exception stands in `Uses`. A local one stands there under its name, which has no '/'.
pub fn pack_key(rule: &str, name: &str) -> String {
    format!("{rule}/{name}")
}

/// What the exceptions were used for so far. Part of an account's state, so a restart gives nothing back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uses {
    uses: BTreeMap<Box<str>, Use>,
    /// Of each order that was quieted whole: the money it has used.
    #[serde(with = "pairs")]
    orders: BTreeMap<OrderKey, Dec>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    pub findings: u64,
    pub notional: BTreeMap<Asset, Dec>,
}

/// A finding that asks to be quieted.
pub struct Claim<'a> {
    pub now: Time,
    pub facts: &'a Facts,
    /// All the money it is about by now, in its quote asset.
    pub at_stake: Option<Dec>,
    pub order: Option<&'a OrderKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quieting {
    Quieted,
    /// The exception means it, and its bound does not hold it.
    PastBound,
    NotMeant,
}

impl Uses {
    pub fn is_empty(&self) -> bool {
        self.uses.is_empty() && self.orders.is_empty()
    }

    pub fn of(&self, key: &str) -> Use {
        self.uses.get(key).cloned().unwrap_or_default()
    }

    /// Only these exceptions are left: what others used is forgotten.
    pub fn keep(&mut self, is_left: impl Fn(&str) -> bool) {
        self.uses.retain(|key, _| is_left(key));
    }

    /// Quiets the finding if the exception means it and holds its money, which is then used. An order uses what it
    /// has grown by since it was last quieted.
    pub fn quiet(&mut self, key: &str, exception: &Exception, claim: &Claim<'_>) -> Quieting {
        if exception.is_over(claim.now) || !exception.when.holds(claim.facts) {
            return Quieting::NotMeant;
        }
        let before = claim.order.and_then(|order| self.orders.get(order)).copied();
        let used = self.uses.entry(key.into()).or_default();
        let fits = || {
            let asset = Asset::new(claim.facts.word(Field::QuoteAsset)?);
            let bound = exception.notional.get(&asset)?;
            let growth = claim.at_stake?.checked_sub(before.unwrap_or(Dec::ZERO))?;
            let growth = if growth.is_positive() { growth } else { Dec::ZERO };
            let sum = used.notional.get(&asset).copied().unwrap_or(Dec::ZERO).checked_add(growth)?;
            (sum <= *bound && (sum < *bound || growth.is_positive())).then_some((asset, sum))
        };
        let Some((asset, sum)) = fits() else { return Quieting::PastBound };
        used.notional.insert(asset, sum);
        if before.is_none() {
            used.findings = used.findings.saturating_add(1);
        }
        Quieting::Quieted
    }

    /// Whether the order can be followed, if it is to be quieted. `is_open` says which others cannot be left.
    pub fn make_room_for(&mut self, order: &OrderKey, is_open: impl Fn(&OrderKey) -> bool) -> bool {
        if !self.follows(order) && self.orders.len() >= ORDERS_MAX {
            self.orders.retain(|order, _| is_open(order));
        }
        self.follows(order) || self.orders.len() < ORDERS_MAX
    }

    /// The order is quieted whole: more money of it will be another claim.
    pub fn follow(&mut self, order: &OrderKey, money: Dec) {
        let known = self.orders.entry(order.clone()).or_insert(money);
        *known = (*known).max(money);
    }

    pub fn follows(&self, order: &OrderKey) -> bool {
        self.orders.contains_key(order)
    }

    pub fn has_grown(&self, order: &OrderKey, money: Dec) -> bool {
        self.orders.get(order).is_some_and(|known| money > *known)
    }

    pub fn forget(&mut self, order: &OrderKey) {
        self.orders.remove(order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_day_or_a_moment() {
        for (text, printed) in [
            ("2026-12-24", "2026-12-24T00:00:00Z"),
            ("2026-12-24T18:00:00+02:00", "2026-12-24T16:00:00Z"),
            ("2026-12-24T18:00:00.25Z", "2026-12-24T18:00:00.25Z"),
        ] {
            let expiry: Expiry = text.parse().unwrap();
            assert_eq!((expiry.to_string().as_str(), expiry.to_string().parse()), (printed, Ok(expiry)));
        }
        for text in ["", "soon", "2026-02-30", "24.12.2026", "2026-12-24T18:00:00"] {
            assert!(text.parse::<Expiry>().is_err(), "{text}");
        }
    }
}
