//! Claim windows: what an owner says beforehand that he will do by hand, until when, and how much of it is used up.
//!
//! Invariants: a window holds orders that were made and first seen while it was open, and nothing else: no cancel, no
//! transfer, no conversion, nothing of the past. The money and the number of its orders never pass what was named;
//! money that is not known does not fit. Nothing is given back, unless the bot's own word shows an order to be its.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::incident::IncidentId;
use crate::kernel::money::Dec;
use crate::kernel::order::{Asset, Side, Symbol};
use crate::kernel::time::Time;

/// Symbols of one window, each named by its owner. More are refused.
const SYMBOLS_MAX: usize = 10;
/// Orders of one window: each is a message to its owner. More are refused.
const ORDERS_MAX: u32 = 50;
/// The longest window; a longer one is refused.
const MINUTES_MAX: u32 = 240;
/// Characters of the reason; a longer one is refused.
const REASON_MAX: usize = 200;
/// Windows remembered, the open one among them. At the limit the oldest goes: its orders stay its owner's as long as
/// they do not grow, and *not me* still finds them.
const WINDOWS_MAX: usize = 8;
/// The venue's clock and ours are not the same: what it made this soon after the opening may be older than that.
const BEGINS_AFTER: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub symbols: Vec<Symbol>,
    pub sides: Vec<Side>,
    /// The most that all orders together may trade, by quote asset.
    pub notional: BTreeMap<Asset, Dec>,
    pub orders: u32,
    pub minutes: u32,
}

impl Claim {
    /// Of the words that an owner types, each a list with commas where there may be several:
    /// `BTCUSDT,ETHUSDT both 2000USDT 3 30m`.
    pub fn parse(symbols: &str, sides: &str, notional: &str, orders: &str, span: &str) -> Result<Self, String> {
        let symbols: Vec<Symbol> = symbols.split(',').map(|name| Symbol::new(&name.trim().to_uppercase())).collect();
        let sides = match sides.to_uppercase().as_str() {
            "BUY" => vec![Side::Buy],
            "SELL" => vec![Side::Sell],
            "BOTH" => vec![Side::Buy, Side::Sell],
            _ => return Err(format!("{sides:.20?} is no side: BUY, SELL or both")),
        };
        let mut bounds = BTreeMap::new();
        for text in notional.split(',') {
            let text = text.trim().to_uppercase();
            let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
            let (amount, asset) = text.split_at(digits);
            let bound = amount.parse::<Dec>().ok().filter(|_| !asset.is_empty() && asset.len() <= 12);
            let bound = bound.ok_or_else(|| format!("{text:.30?} is no money: write it like 2000USDT, in one word"))?;
            if bounds.insert(Asset::new(asset), bound).is_some() {
                return Err(format!("{asset} is named twice"));
            }
        }
        let number = orders.parse().map_err(|_| format!("{orders:.20?} is no number of orders"))?;
        let minutes = span.strip_suffix('m').and_then(|minutes| minutes.parse().ok());
        let hours = || span.strip_suffix('h').and_then(|hours| hours.parse::<u32>().ok()?.checked_mul(60));
        let minutes =
            minutes.or_else(hours).ok_or_else(|| format!("{span:.20?} is no time: write it like 30m or 2h"))?;
        let claim = Self { symbols, sides, notional: bounds, orders: number, minutes };
        claim.check().map(|()| claim)
    }

    /// Says what is wrong with it, taken alone.
    pub fn check(&self) -> Result<(), String> {
        let named = |symbol: &Symbol| {
            let name = symbol.as_str();
            (5..=20).contains(&name.len()) && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        };
        if let Some(odd) = self.symbols.iter().find(|symbol| !named(symbol)) {
            return Err(format!("{:.30?} is no symbol: name each, like BTCUSDT", odd.as_str()));
        }
        if !(1..=SYMBOLS_MAX).contains(&self.symbols.len()) || self.sides.is_empty() {
            return Err(format!("a claim window names 1 to {SYMBOLS_MAX} symbols, and a side"));
        }
        if self.notional.is_empty() || self.notional.values().any(|bound| !bound.is_positive()) {
            return Err("a claim window needs money above 0".to_owned());
        }
        if !(1..=ORDERS_MAX).contains(&self.orders) {
            return Err(format!("a claim window holds 1 to {ORDERS_MAX} orders"));
        }
        if !(1..=MINUTES_MAX).contains(&self.minutes) {
            return Err(format!("a claim window is open for 1 minute to {} hours", MINUTES_MAX / 60));
        }
        Ok(())
    }

    /// Whether each symbol has its money, and each money its symbol: the rest would be a slip of the pen.
    pub fn check_assets(&self, quote_of: impl Fn(&Symbol) -> Option<Asset>) -> Result<(), String> {
        for symbol in &self.symbols {
            let quote = quote_of(symbol).ok_or_else(|| format!("the quote asset of {symbol} is not known"))?;
            if !self.notional.contains_key(&quote) {
                return Err(format!("{symbol} is counted in {quote}, and no money is named in it"));
            }
        }
        let counted = |asset: &&Asset| self.symbols.iter().all(|symbol| quote_of(symbol).as_ref() != Some(*asset));
        match self.notional.keys().find(counted) {
            Some(asset) => Err(format!("no symbol of it is counted in {asset}")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sides: Vec<&str> = self.sides.iter().map(|side| side.word()).collect();
        let symbols: Vec<&str> = self.symbols.iter().map(Symbol::as_str).collect();
        let money: Vec<String> = self.notional.iter().map(|(asset, bound)| format!("{bound} {asset}")).collect();
        let orders = if self.orders == 1 { "order" } else { "orders" };
        let (sides, symbols, money) = (sides.join(" and "), symbols.join(", "), money.join(" and "));
        write!(f, "{sides} of {symbols}, up to {money} and {} {orders} in all", self.orders)
    }
}

pub fn check_reason(reason: &str) -> Result<(), String> {
    if reason.trim().is_empty() || reason.chars().count() > REASON_MAX {
        return Err(format!("say why, in 1 to {REASON_MAX} characters"));
    }
    Ok(())
}

/// An order that a window took, and what became of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    pub window: IncidentId,
    /// The most that it was seen to trade or bind.
    pub money: Dec,
    pub standing: ClaimStanding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimStanding {
    Holds,
    /// It traded more than its window had left, or turned out to be older than it.
    Broken,
    /// The owner says that it is not his.
    Disowned,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The incident that tells of it.
    pub id: IncidentId,
    pub claim: Claim,
    pub by: Box<str>,
    pub reason: Box<str>,
    pub opened_at: Time,
    pub until: Time,
    pub ended: bool,
    pub disowned: bool,
    pub used: BTreeMap<Asset, Dec>,
    pub orders: u32,
}

/// What a window is asked to take.
pub struct Asked<'a> {
    pub symbol: &'a Symbol,
    pub side: Side,
    pub quote: Option<Asset>,
    /// All that it can trade; none where its terms do not tell.
    pub money: Option<Dec>,
    pub created_at: Time,
    pub first_seen: Time,
}

impl Window {
    #[must_use]
    pub fn new(id: IncidentId, now: Time, claim: Claim, by: &str, reason: &str) -> Self {
        let until = now + Duration::from_secs(u64::from(claim.minutes) * 60);
        Self {
            id,
            by: by.into(),
            reason: reason.into(),
            opened_at: now,
            until,
            ended: false,
            disowned: false,
            used: BTreeMap::new(),
            orders: 0,
            claim,
        }
    }

    /// By the venue's clock.
    pub fn begins_at(&self) -> Time {
        self.opened_at + BEGINS_AFTER
    }

    pub fn is_open(&self, now: Time) -> bool {
        !self.ended && now < self.until
    }

    pub fn used(&self, asset: &Asset) -> Dec {
        self.used.get(asset).copied().unwrap_or(Dec::ZERO)
    }

    /// Takes the order if all of it fits. Its money and its place are then used.
    pub fn take(&mut self, now: Time, asked: &Asked<'_>) -> Option<Claimed> {
        let meant = self.claim.symbols.contains(asked.symbol) && self.claim.sides.contains(&asked.side);
        let in_time = self.is_open(now)
            && asked.first_seen > self.opened_at
            && (self.begins_at()..self.until).contains(&asked.created_at);
        if !meant || !in_time || self.orders >= self.claim.orders {
            return None;
        }
        let money = asked.money?;
        self.use_money(asked.quote.as_ref()?, money)?;
        self.orders += 1;
        Some(Claimed { window: self.id, money, standing: ClaimStanding::Holds })
    }

    /// Uses that much more of it, or nothing where it does not fit.
    pub fn use_money(&mut self, asset: &Asset, money: Dec) -> Option<()> {
        let sum = self.used(asset).checked_add(money)?;
        (sum <= *self.claim.notional.get(asset)?).then(|| {
            self.used.insert(asset.clone(), sum);
        })
    }

    /// The bot's own word shows that the order is its: the window is as if it had not been there.
    pub fn give_back(&mut self, asset: &Asset, money: Dec) {
        self.orders = self.orders.saturating_sub(1);
        if let Some(used) = self.used.get_mut(asset) {
            *used = used.checked_sub(money).unwrap_or(*used);
        }
    }

    /// `1 of 3 orders, 600 of 2000 USDT`.
    pub fn used_told(&self) -> String {
        let used = self.claim.notional.iter().map(|(asset, bound)| format!("{} of {bound} {asset}", self.used(asset)));
        format!("{} of {} orders, {}", self.orders, self.claim.orders, used.collect::<Vec<_>>().join(", "))
    }
}

/// The windows of an account, the newest last. Part of its state, so a restart opens and ends none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Windows(Vec<Window>);

impl Windows {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, window: Window) {
        if self.0.len() >= WINDOWS_MAX {
            self.0.remove(0);
        }
        self.0.push(window);
    }

    pub fn last(&self) -> Option<&Window> {
        self.0.last()
    }

    /// The one that is not ended yet: it is always the newest.
    pub fn running(&self) -> Option<&Window> {
        self.0.last().filter(|window| !window.ended)
    }

    pub fn running_mut(&mut self) -> Option<&mut Window> {
        self.0.last_mut().filter(|window| !window.ended)
    }

    pub fn get_mut(&mut self, id: IncidentId) -> Option<&mut Window> {
        self.0.iter_mut().find(|window| window.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<String, String> {
        let words: Vec<&str> = line.split(' ').collect();
        let [symbols, sides, notional, orders, span] = words[..] else { panic!("five words: {line}") };
        Claim::parse(symbols, sides, notional, orders, span).map(|claim| format!("{claim}, {} min", claim.minutes))
    }

    #[test]
    fn a_claim_is_read_as_it_is_typed_or_refused_with_the_word_that_is_wrong() {
        for (line, read) in [
            ("BTCUSDT BUY 2000USDT 3 30m", "BUY of BTCUSDT, up to 2000 USDT and 3 orders in all, 30 min"),
            ("btcusdt,ethbtc both 0.5btc,10USDT 1 4h", "up to 0.5 BTC and 10 USDT and 1 order in all, 240 min"),
            ("BTCUSDT SELL 2000USDT 50 1m", "SELL of BTCUSDT"),
        ] {
            assert!(parse(line).as_ref().is_ok_and(|text| text.contains(read)), "{line}: {:?}", parse(line));
        }
        for (line, wrong) in [
            ("* BUY 2000USDT 3 30m", "no symbol"),
            ("BTCUSDT, BUY 2000USDT 3 30m", "no symbol"),
            (
                "A0USDT,A1USDT,A2USDT,A3USDT,A4USDT,A5USDT,A6USDT,A7USDT,A8USDT,A9USDT,B0USDT BUY 1USDT 3 30m",
                "10 symbols",
            ),
            ("BTCUSDT any 2000USDT 3 30m", "no side"),
            ("BTCUSDT BUY 2000 3 30m", "no money"),
            ("BTCUSDT BUY USDT 3 30m", "no money"),
            ("BTCUSDT BUY -5USDT 3 30m", "no money"),
            ("BTCUSDT BUY 0USDT 3 30m", "above 0"),
            ("BTCUSDT BUY 1USDT,2USDT 3 30m", "named twice"),
            ("BTCUSDT BUY 2000USDT many 30m", "no number"),
            ("BTCUSDT BUY 2000USDT 0 30m", "1 to 50 orders"),
            ("BTCUSDT BUY 2000USDT 51 30m", "1 to 50 orders"),
            ("BTCUSDT BUY 2000USDT 3 30", "no time"),
            ("BTCUSDT BUY 2000USDT 3 0m", "4 hours"),
            ("BTCUSDT BUY 2000USDT 3 241m", "4 hours"),
            ("BTCUSDT BUY 2000USDT 3 99999999h", "no time"),
        ] {
            assert!(parse(line).as_ref().is_err_and(|text| text.contains(wrong)), "{line}: {:?}", parse(line));
        }
    }

    #[test]
    fn only_so_many_windows_are_remembered() {
        let claim = Claim::parse("BTCUSDT", "BUY", "1USDT", "1", "1m").unwrap();
        let mut windows = Windows::default();
        for id in 0..100 {
            windows.add(Window::new(IncidentId(id), Time::EPOCH, claim.clone(), "owner", "why"));
        }
        assert_eq!(windows.0.len(), WINDOWS_MAX);
        assert_eq!(windows.last().map(|window| window.id), Some(IncidentId(99)));
        assert!(windows.get_mut(IncidentId(0)).is_none());
    }
}
