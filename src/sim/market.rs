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

/// Tick × step is never below the eighth place, so a limit order's cost is exact.
pub const SYMBOLS: [SymbolSpec; 6] = [
    symbol(
        "BTCUSDT",
        ("BTC", "USDT"),
        (1_000_000, 1_000),
        9_000_00000000,
        5_00000000,
        60_000_00000000,
        (500, 50, 8_000_0000),
    ),
    symbol(
        "ETHUSDT",
        ("ETH", "USDT"),
        (1_000_000, 10_000),
        9_000_00000000,
        5_00000000,
        3_000_00000000,
        (60, 8, 12_00000000),
    ),
    symbol(
        "BNBUSDT",
        ("BNB", "USDT"),
        (1_000_000, 100_000),
        90_000_00000000,
        5_00000000,
        900_00000000,
        (20, 4, 40_00000000),
    ),
    symbol("ETHBTC", ("ETH", "BTC"), (1_000, 10_000), 10_000_00000000, 10_000, 5_000_000, (3, 2, 10_00000000)),
    symbol("VIABTC", ("VIA", "BTC"), (1, 1_00000000), 9_000_000_00000000, 10_000, 10_000, (20, 60, 400_00000000)),
    symbol(
        "PERPUSDT",
        ("PERP", "USDT"),
        (10_000, 1_000_000),
        900_000_00000000,
        5_00000000,
        80_000_000,
        (8, 30, 300_00000000),
    ),
];

const fn symbol(
    name: &'static str,
    (base, quote): (&'static str, &'static str),
    (tick, step): (i64, i64),
    quantity_max: i64,
    notional_min: i64,
    start_price: i64,
    (move_ticks, spread_ticks, level_quantity): (u32, i64, i64),
) -> SymbolSpec {
    SymbolSpec {
        name,
        base,
        quote,
        tick: Amount::from_atoms(tick),
        step: Amount::from_atoms(step),
        quantity_max: Amount::from_atoms(quantity_max),
        notional_min: Amount::from_atoms(notional_min),
        start_price: Amount::from_atoms(start_price),
        move_ticks,
        levels: 8,
        spread_ticks,
        level_quantity: Amount::from_atoms(level_quantity),
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
