//! What is traded: the symbols with their filters, and per symbol the book, the waiting stops, the price path and
//! the counters from which ids come. Ids are per symbol and skip, as on the venue, so nobody can find a gap by them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::kernel::order::{OrderType, Side};
use crate::sim::amount::Amount;
use crate::sim::book::Book;
use crate::sim::order::Order;
use crate::sim::seed::Seeded;

/// A symbol's place in `SYMBOLS`.
pub type SymbolIndex = usize;

#[derive(Debug)]
pub struct SymbolSpec {
    pub name: &'static str,
    pub base: &'static str,
    pub quote: &'static str,
    pub tick: Amount,
    pub step: Amount,
    pub quantity_max: Amount,
    pub notional_min: Amount,
    pub start_price: Amount,
    /// How far one move of the price path goes at most.
    pub move_ticks: u32,
    /// The synthetic market maker: how many levels a side, how far apart, how much on each.
    pub levels: u8,
    pub spread_ticks: i64,
    pub level_quantity: Amount,
}

/// A hundred-millionth, of which ticks and steps are made.
const ATOM: Amount = Amount::from_atoms(1);
const CENT: Amount = Amount::from_atoms(1_000_000);

/// Tick × step is never below the eighth place, so a limit order's cost is exact.
#[rustfmt::skip] // A table is read by its columns.
pub const SYMBOLS: [SymbolSpec; 6] = [
    symbol(("BTCUSDT", "BTC", "USDT"), CENT, ATOM.times_whole(1_000), Amount::whole(60_000), Amount::whole(5)).quoted(500, 50, 80_000_000),
    symbol(("ETHUSDT", "ETH", "USDT"), CENT, ATOM.times_whole(10_000), Amount::whole(3_000), Amount::whole(5)).quoted(60, 8, 1_200_000_000),
    symbol(("BNBUSDT", "BNB", "USDT"), CENT, ATOM.times_whole(100_000), Amount::whole(900), Amount::whole(5)).quoted(20, 4, 4_000_000_000),
    symbol(("ETHBTC", "ETH", "BTC"), ATOM.times_whole(1_000), ATOM.times_whole(10_000), CENT.times_whole(5), ATOM.times_whole(10_000)).quoted(3, 2, 1_000_000_000),
    // The thin pairs, through which a thief gets money out.
    symbol(("VIABTC", "VIA", "BTC"), ATOM, Amount::whole(1), ATOM.times_whole(10_000), ATOM.times_whole(10_000)).quoted(20, 60, 40_000_000_000),
    symbol(("PERPUSDT", "PERP", "USDT"), ATOM.times_whole(10_000), CENT, CENT.times_whole(80), Amount::whole(5)).quoted(8, 30, 30_000_000_000),
];

const fn symbol(
    (name, base, quote): (&'static str, &'static str, &'static str),
    tick: Amount,
    step: Amount,
    start_price: Amount,
    notional_min: Amount,
) -> SymbolSpec {
    SymbolSpec {
        name,
        base,
        quote,
        tick,
        step,
        quantity_max: step.times_whole(900_000_000),
        notional_min,
        start_price,
        move_ticks: 1,
        levels: 8,
        spread_ticks: 1,
        level_quantity: step,
    }
}

impl SymbolSpec {
    /// How far the price moves, how far apart the market maker's levels stand, what is on one (in atoms).
    const fn quoted(mut self, move_ticks: u32, spread_ticks: i64, level_quantity: i64) -> Self {
        self.move_ticks = move_ticks;
        self.spread_ticks = spread_ticks;
        self.level_quantity = Amount::from_atoms(level_quantity);
        self
    }
}

pub fn symbol_index(name: &str) -> Option<SymbolIndex> {
    SYMBOLS.iter().position(|spec| spec.name == name)
}

pub fn asset(name: &str) -> Option<&'static str> {
    SYMBOLS.iter().flat_map(|spec| [spec.base, spec.quote]).find(|known| *known == name)
}

#[derive(Debug)]
pub struct Market {
    pub spec: &'static SymbolSpec,
    pub book: Book,
    pub last: Amount,
    /// Where the price path stands, around which the market maker quotes.
    pub middle: Amount,
    pub volume: Amount,
    pub quote_volume: Amount,
    pub trade_count: u64,
    stops_above: BTreeMap<(Amount, i64), ()>,
    stops_below: BTreeMap<(Reverse<Amount>, i64), ()>,
    order_id: i64,
    trade_id: i64,
    execution_id: i64,
}

impl Market {
    pub fn new(spec: &'static SymbolSpec, dice: &mut Seeded) -> Self {
        let mut start = |floor: i64| floor + i64::from(dice.below(1_000_000));
        Self {
            spec,
            book: Book::default(),
            last: spec.start_price,
            middle: spec.start_price,
            volume: Amount::ZERO,
            quote_volume: Amount::ZERO,
            trade_count: 0,
            stops_above: BTreeMap::new(),
            stops_below: BTreeMap::new(),
            order_id: start(10_000_000),
            trade_id: start(1_000_000),
            execution_id: start(30_000_000),
        }
    }

    pub fn take_order_id(&mut self, dice: &mut Seeded) -> i64 {
        self.order_id += 1 + i64::from(dice.below(3));
        self.order_id
    }

    pub fn take_trade_id(&mut self, dice: &mut Seeded) -> i64 {
        self.trade_id += 1 + i64::from(dice.below(2));
        self.trade_id
    }

    pub const fn take_execution_id(&mut self) -> i64 {
        self.execution_id += 1;
        self.execution_id
    }

    pub const fn book_version(&self) -> i64 {
        self.execution_id
    }

    pub fn note_trade(&mut self, price: Amount, quantity: Amount) {
        self.last = price;
        self.volume += quantity;
        self.quote_volume += price.times(quantity);
        self.trade_count += 1;
    }

    /// One move of the price path: a random step, drawn back a little towards where it began, never below a tenth.
    pub fn walk(&mut self, dice: &mut Seeded) {
        let spec = self.spec;
        let reach = i64::from(spec.move_ticks);
        let random = i64::from(dice.below(2 * spec.move_ticks + 1)) - reach;
        let home = (spec.start_price - self.middle).steps(spec.tick) / 512;
        let floor = spec.start_price.floor_to(spec.tick).steps(spec.tick) / 10;
        let ticks = (self.middle.steps(spec.tick) + random + home).max(floor);
        self.middle = spec.tick.times_whole(ticks);
    }

    pub fn hold_stop(&mut self, order: &Order) {
        if triggers_above(order) {
            self.stops_above.insert((order.stop_price, order.id), ());
        } else {
            self.stops_below.insert((Reverse(order.stop_price), order.id), ());
        }
    }

    pub fn drop_stop(&mut self, order: &Order) {
        self.stops_above.remove(&(order.stop_price, order.id));
        self.stops_below.remove(&(Reverse(order.stop_price), order.id));
    }

    /// The next stop that the last price has reached, taken out of the waiting room.
    pub fn take_triggered(&mut self) -> Option<i64> {
        if let Some(entry) = self.stops_above.first_entry().filter(|entry| entry.key().0 <= self.last) {
            return Some(entry.remove_entry().0.1);
        }
        let entry = self.stops_below.first_entry().filter(|entry| entry.key().0.0 >= self.last)?;
        Some(entry.remove_entry().0.1)
    }

    pub fn would_trigger(&self, order: &Order) -> bool {
        if triggers_above(order) { self.last >= order.stop_price } else { self.last <= order.stop_price }
    }
}

fn triggers_above(order: &Order) -> bool {
    let loss = matches!(order.kind, OrderType::StopLoss | OrderType::StopLossLimit);
    (order.side == Side::Buy) == loss
}
