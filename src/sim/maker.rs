//! The synthetic market: a price path per symbol and a market maker that quotes around it through the same book as
//! everybody else, so a moving price fills resting orders and sets off stops.

use std::sync::Arc;

use crate::kernel::order::{OrderType, Side, TimeInForce};
use crate::kernel::time::Time;
use crate::sim::amount::Amount;
use crate::sim::engine::Engine;
use crate::sim::market::SymbolIndex;
use crate::sim::order::{MARKET_MAKER, NewOrder, OrderKey};

impl Engine {
    /// One move of the price path.
    pub fn move_price(&mut self, now: Time, symbol: SymbolIndex) {
        self.markets[symbol].walk(&mut self.dice);
        self.print_and_quote(now, symbol);
    }

    /// The price is put where a script wants it.
    pub fn set_price(&mut self, now: Time, symbol: SymbolIndex, price: Amount) {
        let market = &mut self.markets[symbol];
        market.middle = price.floor_to(market.spec.tick).max(market.spec.tick);
        self.print_and_quote(now, symbol);
    }

    fn print_and_quote(&mut self, now: Time, symbol: SymbolIndex) {
        let market = &mut self.markets[symbol];
        market.last = market.middle;
        self.requote(now, symbol);
        self.settle(now, symbol);
    }

    pub(super) fn requote(&mut self, now: Time, symbol: SymbolIndex) {
        let account = self.account_of(MARKET_MAKER);
        let old: Vec<OrderKey> = account.open.range((symbol, i64::MIN)..=(symbol, i64::MAX)).copied().collect();
        for key in old {
            let house = Arc::clone(&self.house);
            self.finish_canceled(now, key, &house, "");
            self.forget_if_made(key);
        }
        let spec = self.markets[symbol].spec;
        for level in 1..=i64::from(spec.levels) {
            let away = spec.tick.times_whole(spec.spread_ticks * level);
            for side in [Side::Buy, Side::Sell] {
                self.quote(now, symbol, side, away);
            }
        }
    }

    fn quote(&mut self, now: Time, symbol: SymbolIndex, side: Side, away: Amount) {
        let market = &self.markets[symbol];
        let (spec, middle) = (market.spec, market.middle);
        let price = match side {
            Side::Buy => middle - away,
            Side::Sell => middle + away,
        };
        if !price.is_positive() {
            return;
        }
        let percent = i64::from(self.dice.below(100)) + 50;
        let quantity = spec.level_quantity.times_whole(percent).over(Amount::whole(100)).floor_to(spec.step);
        let new = NewOrder {
            symbol,
            client_id: Some(String::new()),
            side,
            kind: OrderType::Limit,
            time_in_force: TimeInForce::Gtc,
            quantity,
            quote_quantity: Amount::ZERO,
            price,
            stop_price: Amount::ZERO,
            iceberg_quantity: Amount::ZERO,
            strategy_id: None,
            strategy_type: None,
        };
        let house = Arc::clone(&self.house);
        let order = self.draft(now, &house, new);
        let lock = self.lock_needed(&order);
        self.enter(now, order, lock);
    }
}
