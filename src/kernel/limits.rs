//! The pre-trade limits at work: whether one order may be announced at all, and how much of the hour and the minute
//! a bot has used.
//!
//! Invariant: what cannot be computed is outside the limits. An order whose notional is unknown (a market order sized
//! in the base asset) is held by its quantity alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::declared::Limits;
use crate::kernel::intent::OrderTerms;
use crate::kernel::money::Dec;
use crate::kernel::order::{Asset, OrderType, Symbol};
use crate::kernel::time::Time;
use crate::kernel::verdict::Placed;

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

/// An order's size, whether said or shown.
#[derive(Clone, Debug)]
pub struct Size<'a> {
    pub symbol: &'a Symbol,
    pub quantity: Option<Dec>,
    /// In the quote asset, where the terms alone tell it.
    pub notional: Option<Dec>,
}

impl<'a> From<&'a OrderTerms> for Size<'a> {
    fn from(terms: &'a OrderTerms) -> Self {
        let reference = terms.price.or(terms.stop_price);
        Self {
            symbol: &terms.symbol,
            quantity: terms.quantity,
            notional: terms
                .quote_quantity
                .or_else(|| terms.quantity.zip(reference).and_then(|(quantity, price)| quantity.checked_mul(price))),
        }
    }
}

impl<'a> From<&'a Placed> for Size<'a> {
    fn from(placed: &'a Placed) -> Self {
        let by_quote = placed.quote_quantity.is_positive();
        let reference = if placed.price.is_positive() { placed.price } else { placed.stop_price };
        Self {
            symbol: &placed.symbol,
            quantity: (!by_quote).then_some(placed.quantity),
            notional: if by_quote {
                Some(placed.quote_quantity)
            } else if reference.is_positive() && placed.order_type != OrderType::Market {
                placed.quantity.checked_mul(reference)
            } else {
                None
            },
        }
    }
}

/// Whether one order, taken alone, lies inside; the reason names the limit and its figure.
pub fn admit(limits: &Limits, size: &Size<'_>) -> Result<(), String> {
    let symbol = size.symbol;
    let Some(limit) = limits.symbols.get(symbol) else {
        return Err(format!("{symbol} is not one of the bot's symbols"));
    };
    let Some(quote) = limits.quote.get(&limit.quote) else {
        return Err(format!("no limits are declared for the quote asset {}", limit.quote));
    };
    if let Some(quantity) = size.quantity
        && quantity > limit.order_quantity
    {
        return Err(format!("{quantity} {symbol} is above order_quantity {}", limit.order_quantity));
    }
    if let Some(notional) = size.notional
        && notional > quote.order_notional
    {
        return Err(format!("{notional} {} is above order_notional {}", limit.quote, quote.order_notional));
    }
    if size.quantity.is_none() && size.notional.is_none() {
        return Err("the order has neither a quantity nor a notional".to_owned());
    }
    if let Some(nothing) = [size.quantity, size.notional].into_iter().flatten().find(|figure| !figure.is_positive()) {
        return Err(format!("{nothing} is no size of an order"));
    }
    Ok(())
}

/// What a bot has announced in the last hour. It holds at most one entry for each order the hour's rate admits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    announced: VecDeque<(Time, Asset, Dec)>,
    /// The sums of `announced`.
    hour: BTreeMap<Asset, Dec>,
}

impl Usage {
    /// Admits the order and counts it, or says which limit it would break.
    pub fn announce(&mut self, now: Time, limits: &Limits, size: &Size<'_>) -> Result<(), String> {
        admit(limits, size)?;
        while self.announced.front().is_some_and(|(at, ..)| now.since(*at) >= HOUR) {
            let oldest = self.announced.pop_front();
            self.subtract(oldest);
        }
        let in_minute = self.announced.len() - self.announced.partition_point(|(at, ..)| now.since(*at) >= MINUTE);
        if in_minute >= usize::try_from(limits.orders_per_minute).unwrap_or(usize::MAX) {
            return Err(format!("orders_per_minute is {}", limits.orders_per_minute));
        }
        let Some(limit) = limits.symbols.get(size.symbol) else { return Ok(()) };
        let notional = size.notional.unwrap_or(Dec::ZERO);
        let used = self.hour.get(&limit.quote).copied().unwrap_or(Dec::ZERO);
        let allowed = limits.quote.get(&limit.quote).map_or(Dec::ZERO, |quote| quote.notional_per_hour);
        let Some(total) = used.checked_add(notional).filter(|total| *total <= allowed) else {
            return Err(format!("notional_per_hour is {allowed} {}", limit.quote));
        };
        self.hour.insert(limit.quote.clone(), total);
        self.announced.push_back((now, limit.quote.clone(), notional));
        Ok(())
    }

    /// The last `count` orders were not admitted after all: another part of their record was refused.
    pub fn take_back(&mut self, count: usize) {
        for _ in 0..count {
            let latest = self.announced.pop_back();
            self.subtract(latest);
        }
    }

    fn subtract(&mut self, entry: Option<(Time, Asset, Dec)>) {
        if let Some((_, asset, notional)) = entry
            && let Some(sum) = self.hour.get_mut(&asset)
        {
            *sum = sum.checked_sub(notional).unwrap_or(Dec::ZERO);
        }
    }
}

/// The quote asset of a symbol that no bot declares, by its ending: for what a person reads only.
pub fn quote_asset(symbol: &Symbol) -> Option<Asset> {
    const QUOTES: [&str; 20] = [
        "FDUSD", "USDT", "USDC", "TUSD", "USD1", "BUSD", "BTC", "ETH", "BNB", "EUR", "TRY", "BRL", "JPY", "GBP", "MXN",
        "ARS", "ZAR", "USD", "DAI", "SOL",
    ];
    QUOTES.iter().find(|quote| symbol.as_str().ends_with(**quote)).map(|quote| Asset::new(quote))
}
