//! A steady flow of reports for measuring: one account's orders placed, cancelled and matched by the engine itself,
//! without the requests.

use std::sync::Arc;
use std::time::Duration;

use crate::kernel::order::{OrderType, Side, TimeInForce};
use crate::kernel::time::Time;
use crate::sim::amount::Amount;
use crate::sim::engine::{CancelOnly, Which};
use crate::sim::exchange::Exchange;
use crate::sim::order::{Actor, NewOrder};

pub const PER_SECOND_MAX: u32 = 50_000;
pub const SECONDS_MAX: u32 = 3_600;

/// Reports made in one go after a late wake; the rest follows at the next.
const BURST_MAX: u64 = 2_000;

/// Every tenth order trades, the others are cancelled.
const TRADE_EVERY: u64 = 10;

#[derive(Debug)]
pub struct Firehose {
    pub by: Arc<Actor>,
    pub per_second: u32,
    pub seconds: u32,
    pub client_prefix: String,
    started: Time,
    woken: Time,
    made: u64,
    orders: u64,
    resting: Option<i64>,
}

impl Firehose {
    pub fn new(now: Time, by: Arc<Actor>, per_second: u32, seconds: u32, client_prefix: String) -> Self {
        let (made, orders, resting) = (0, 0, None);
        Self { by, per_second, seconds, client_prefix, started: now, woken: now, made, orders, resting }
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
        now.since(self.started) >= Duration::from_secs(u64::from(self.seconds)) && self.made >= self.due(now)
    }
}

impl Exchange {
    pub(super) fn run_firehose(&mut self, now: Time) {
        let Some(mut firehose) = self.firehose.take() else { return };
        firehose.woken = now;
        let until = firehose.due(now).min(firehose.made + BURST_MAX);
        while firehose.made < until {
            firehose.made += self.one_step(now, &mut firehose);
        }
        if !firehose.is_over(now) {
            self.firehose = Some(firehose);
        } else if firehose.resting.is_some() {
            self.one_step(now, &mut firehose);
        }
        self.distribute(now);
    }

    /// One placement or one cancel; the number of reports it made.
    fn one_step(&mut self, now: Time, firehose: &mut Firehose) -> u64 {
        let (symbol, by) = (0, Arc::clone(&firehose.by));
        if let Some(id) = firehose.resting.take() {
            let canceled = self.engine.cancel(now, &by, (symbol, &Which::Id(id)), None, CancelOnly::Any);
            return u64::from(canceled.is_ok());
        }
        firehose.orders += 1;
        let trades = firehose.orders.is_multiple_of(TRADE_EVERY);
        let new = self.firehose_order(firehose, trades);
        // A refusal (no balance left) makes no report, but counts, or the loop would not end.
        let Ok(key) = self.engine.place(now, &by, new) else { return 1 };
        if trades {
            return 2;
        }
        firehose.resting = Some(key.1);
        1
    }

    fn firehose_order(&mut self, firehose: &Firehose, trades: bool) -> NewOrder {
        let market = self.engine.market(0);
        let (spec, last) = (market.spec, market.last);
        let side = if (firehose.orders / TRADE_EVERY).is_multiple_of(2) { Side::Buy } else { Side::Sell };
        let price = match (trades, side) {
            (true, Side::Buy) => last.times_whole(2),
            (true, Side::Sell) | (false, Side::Buy) => last.over(Amount::whole(2)),
            (false, Side::Sell) => last.times_whole(2),
        };
        let (time_in_force, quantity) =
            if trades { (TimeInForce::Ioc, spec.step) } else { (TimeInForce::Gtc, spec.step.times_whole(100)) };
        let room = 36_usize.saturating_sub(firehose.client_prefix.len()).min(22);
        let client_id = format!("{}{}", firehose.client_prefix, self.engine.dice().base62(room));
        NewOrder {
            symbol: 0,
            client_id: Some(client_id),
            side,
            kind: OrderType::Limit,
            time_in_force,
            quantity,
            quote_quantity: Amount::ZERO,
            price: price.floor_to(spec.tick),
            stop_price: Amount::ZERO,
            iceberg_quantity: Amount::ZERO,
            strategy_id: None,
            strategy_type: None,
        }
    }
}
