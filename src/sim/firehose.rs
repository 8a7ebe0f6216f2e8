//! A steady flow of reports for measuring: one account's orders, made and matched by the engine itself, without the
//! requests. They are numbered, and their terms follow from their numbers and the price at the start, so that a bot can
//! announce them beforehand.

use std::sync::Arc;
use std::time::Duration;

use crate::kernel::order::{OrderType, Side, TimeInForce};
use crate::kernel::time::Time;
use crate::sim::amount::Amount;
use crate::sim::exchange::Exchange;
use crate::sim::order::{Actor, NewOrder};

pub const PER_SECOND_MAX: u32 = 50_000;
pub const SECONDS_MAX: u32 = 3_600;

/// Reports made in one go after a late wake; the rest follows at the next.
const BURST_MAX: u64 = 2_000;

/// Every tenth order trades, the others expire at once. Two reports each.
const TRADE_EVERY: u64 = 10;

#[derive(Debug)]
pub struct Firehose {
    pub by: Arc<Actor>,
    pub per_second: u32,
    pub seconds: u32,
    pub client_prefix: String,
    /// It ends after so many, whatever the time.
    pub orders_max: Option<u64>,
    started: Time,
    woken: Time,
    made: u64,
    orders: u64,
    /// The price when it began.
    reference: Option<Amount>,
}

impl Firehose {
    pub fn new(
        now: Time,
        by: Arc<Actor>,
        (per_second, seconds): (u32, u32),
        client_prefix: String,
        orders_max: Option<u64>,
    ) -> Self {
        let (made, orders, reference) = (0, 0, None);
        Self { by, per_second, seconds, client_prefix, orders_max, started: now, woken: now, made, orders, reference }
    }

    pub fn next_wake(&self) -> Time {
        self.woken + Duration::from_millis(1)
    }

    /// Reports that should have been made by now.
    fn due(&self, now: Time) -> u64 {
        let elapsed = now.since(self.started).min(Duration::from_secs(u64::from(self.seconds)));
        u64::try_from(elapsed.as_micros() * u128::from(self.per_second) / 1_000_000).unwrap_or(u64::MAX)
    }

    fn is_over(&self, now: Time) -> bool {
        let in_time = now.since(self.started) < Duration::from_secs(u64::from(self.seconds));
        self.is_done() || !in_time && self.made >= self.due(now)
    }

    fn is_done(&self) -> bool {
        self.orders_max.is_some_and(|most| self.orders >= most)
    }
}

impl Exchange {
    pub(super) fn run_firehose(&mut self, now: Time) {
        let Some(mut firehose) = self.firehose.take() else { return };
        firehose.woken = now;
        let until = firehose.due(now).min(firehose.made + BURST_MAX);
        while firehose.made < until && !firehose.is_done() {
            firehose.made += self.one_order(now, &mut firehose);
        }
        if !firehose.is_over(now) {
            self.firehose = Some(firehose);
        }
        self.distribute(now);
    }

    /// One order; the number of reports it made.
    fn one_order(&mut self, now: Time, firehose: &mut Firehose) -> u64 {
        firehose.orders += 1;
        let new = self.firehose_order(firehose);
        // A refusal (no balance left) makes no report, but counts, or the loop would not end.
        if self.engine.place(now, &firehose.by, new).is_ok() { 2 } else { 1 }
    }

    fn firehose_order(&self, firehose: &mut Firehose) -> NewOrder {
        let market = self.engine.market(0);
        let (spec, reference) = (market.spec, *firehose.reference.get_or_insert(market.last));
        let trades = firehose.orders.is_multiple_of(TRADE_EVERY);
        let side = if (firehose.orders / TRADE_EVERY).is_multiple_of(2) { Side::Buy } else { Side::Sell };
        let price = match (trades, side) {
            (true, Side::Buy) | (false, Side::Sell) => reference.times_whole(2),
            (true, Side::Sell) | (false, Side::Buy) => reference.over(Amount::whole(2)),
        };
        NewOrder {
            symbol: 0,
            client_id: Some(format!("{}{}", firehose.client_prefix, firehose.orders)),
            side,
            kind: OrderType::Limit,
            time_in_force: TimeInForce::Ioc,
            quantity: if trades { spec.step } else { spec.step.times_whole(100) },
            quote_quantity: Amount::ZERO,
            price: price.floor_to(spec.tick),
            stop_price: Amount::ZERO,
            iceberg_quantity: Amount::ZERO,
            strategy_id: None,
            strategy_type: None,
        }
    }
}
