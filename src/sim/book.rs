//! The order book of one symbol: who stands first at which price. It holds order ids only; the orders themselves
//! belong to the engine.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::kernel::order::Side;
use crate::sim::amount::Amount;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resting {
    pub id: i64,
    pub left: Amount,
}

/// Price first, then time: the number is given out on arrival and kept when an amendment keeps priority.
#[derive(Debug, Default)]
pub struct Book {
    bids: BTreeMap<(Reverse<Amount>, u64), Resting>,
    asks: BTreeMap<(Amount, u64), Resting>,
    arrivals: u64,
}

impl Book {
    /// The arrival number is the order's place: it is needed to find it again.
    pub fn rest(&mut self, side: Side, price: Amount, resting: Resting) -> u64 {
        self.arrivals += 1;
        self.put(side, price, self.arrivals, resting);
        self.arrivals
    }

    pub fn put(&mut self, side: Side, price: Amount, arrival: u64, resting: Resting) {
        match side {
            Side::Buy => self.bids.insert((Reverse(price), arrival), resting),
            Side::Sell => self.asks.insert((price, arrival), resting),
        };
    }

    pub fn remove(&mut self, side: Side, price: Amount, arrival: u64) {
        match side {
            Side::Buy => self.bids.remove(&(Reverse(price), arrival)),
            Side::Sell => self.asks.remove(&(price, arrival)),
        };
    }

    /// The first order that one on `taker` would meet, if `limit` lets it (none: any price).
    pub fn best_against(&self, taker: Side, limit: Option<Amount>) -> Option<(Amount, Resting)> {
        self.against(taker, limit).next()
    }

    /// All that one on `taker` would meet within `limit`, best first.
    pub fn against(&self, taker: Side, limit: Option<Amount>) -> Box<dyn Iterator<Item = (Amount, Resting)> + '_> {
        match taker {
            Side::Buy => Box::new(
                self.asks
                    .iter()
                    .map(|((price, _), resting)| (*price, *resting))
                    .take_while(move |(price, _)| limit.is_none_or(|limit| *price <= limit)),
            ),
            Side::Sell => Box::new(
                self.bids
                    .iter()
                    .map(|((price, _), resting)| (price.0, *resting))
                    .take_while(move |(price, _)| limit.is_none_or(|limit| *price >= limit)),
            ),
        }
    }

    /// Price levels of one side, best first, as market data shows them.
    pub fn levels(&self, side: Side, depth: usize) -> Vec<(Amount, Amount)> {
        let opposite = match side {
            Side::Buy => Side::Sell,
            Side::Sell => Side::Buy,
        };
        let mut levels: Vec<(Amount, Amount)> = Vec::new();
        for (price, resting) in self.against(opposite, None) {
            if let Some((_, quantity)) = levels.last_mut().filter(|(last, _)| *last == price) {
                *quantity += resting.left;
            } else if levels.len() < depth {
                levels.push((price, resting.left));
            } else {
                break;
            }
        }
        levels
    }

    /// What a market order would get: quantity and cost. `quantity` and `quote` bound it, whichever is given.
    pub fn sweep(
        &self,
        taker: Side,
        quantity: Option<Amount>,
        quote: Option<Amount>,
        step: Amount,
    ) -> (Amount, Amount) {
        let (mut got, mut cost) = (Amount::ZERO, Amount::ZERO);
        for (price, resting) in self.against(taker, None) {
            let mut take = resting.left;
            if let Some(quantity) = quantity {
                take = take.min(quantity - got);
            }
            if let Some(quote) = quote {
                take = take.min((quote - cost).over(price).floor_to(step));
            }
            if !take.is_positive() {
                break;
            }
            got += take;
            cost += price.times(take);
        }
        (got, cost)
    }
}
