//! The moving parts of the engine: entering the book, trading by price and time, ending, and triggering stops.

use std::sync::Arc;

use crate::kernel::order::{ExecutionType, ExpiryReason, OrderStatus, OrderType, Side, TimeInForce};
use crate::kernel::time::Time;
use crate::sim::account::Account;
use crate::sim::amount::Amount;
use crate::sim::book::Resting;
use crate::sim::engine::Engine;
use crate::sim::event::{AccountEvent, Execution, Fill, account_position, execution_report};
use crate::sim::market::SymbolIndex;
use crate::sim::order::{Actor, MARKET_MAKER, Order, OrderKey, Trade, Uid};

/// Closed orders that can still be asked about; the oldest are forgotten first.
const CLOSED_MAX: usize = 200_000;

impl Engine {
    /// A checked order comes alive: money set aside, announced, and traded or left waiting.
    pub(super) fn enter(&mut self, now: Time, mut order: Order, lock: Amount) {
        let (key, by, waits) = (order.key(), Arc::clone(&order.by), order.kind.is_conditional());
        order.locked = lock;
        order.working_since = (!waits).then_some(now);
        let paying = order.paying_asset();
        self.touch(order.uid, paying).lock(paying, lock);
        self.account_of(order.uid).open.insert(key);
        if order.uid != MARKET_MAKER {
            self.latest.insert((order.uid, order.symbol, order.client_id.clone()), key);
        }
        if waits {
            self.markets[key.0].hold_stop(&order);
        }
        self.orders.insert(key, order);
        self.report(now, key, &by, Execution::plain(ExecutionType::New));
        if !waits {
            self.work(now, key);
        }
    }

    /// Trades what can be traded now; the rest stays in the book or expires.
    fn work(&mut self, now: Time, key: OrderKey) {
        let (side, limit, time_in_force, kind) = {
            let order = &self.orders[&key];
            (order.side, order.limit(), order.time_in_force, order.kind)
        };
        if time_in_force == TimeInForce::Fok && !self.could_fill(key) {
            return self.finish_expired(now, key, ExpiryReason::UnfilledFok);
        }
        while self.orders[&key].is_open() && self.orders[&key].left().is_positive() {
            let Some((price, resting)) = self.markets[key.0].book.best_against(side, limit) else { break };
            let quantity = self.orders[&key].left().min(resting.left);
            self.trade(now, key, (key.0, resting.id), price, quantity);
        }
        if !self.orders.get(&key).is_some_and(Order::is_open) {
            return self.forget_if_made(key);
        }
        if limit.is_none() {
            self.finish_expired(now, key, ExpiryReason::InsufficientLiquidity);
        } else if time_in_force == TimeInForce::Ioc && kind != OrderType::LimitMaker {
            self.finish_expired(now, key, ExpiryReason::UnfilledIoc);
        } else {
            self.rest(key);
        }
    }

    fn could_fill(&self, key: OrderKey) -> bool {
        let order = &self.orders[&key];
        let book = &self.markets[key.0].book;
        let available = book.against(order.side, order.limit()).fold(Amount::ZERO, |sum, (_, at)| sum + at.left);
        available >= order.left()
    }

    fn rest(&mut self, key: OrderKey) {
        if let Some(order) = self.orders.get_mut(&key) {
            let resting = Resting { id: order.id, left: order.left() };
            order.resting = Some(self.markets[key.0].book.rest(order.side, order.price, resting));
        }
    }

    fn trade(&mut self, now: Time, taker: OrderKey, maker: OrderKey, price: Amount, quantity: Amount) {
        let market = &mut self.markets[taker.0];
        market.note_trade(price, quantity);
        let trade_id = market.take_trade_id(&mut self.dice);
        self.execute(now, taker, (trade_id, price, quantity), false);
        self.execute(now, maker, (trade_id, price, quantity), true);
        self.forget_if_made(maker);
    }

    /// One side of a trade: the order, its lock, the balances, its report.
    fn execute(&mut self, now: Time, key: OrderKey, (id, price, quantity): (i64, Amount, Amount), is_maker: bool) {
        let Some(order) = self.orders.get_mut(&key) else { return };
        let cost = price.times(quantity);
        let (spent, earned) = match order.side {
            Side::Buy => (cost, quantity),
            Side::Sell => (quantity, cost),
        };
        order.executed += quantity;
        order.quote_executed += cost;
        order.updated = now;
        order.status = if order.left().is_positive() { OrderStatus::PartiallyFilled } else { OrderStatus::Filled };
        order.locked -= spent;
        let still_needed = match (order.side, order.limit()) {
            _ if !order.left().is_positive() => Amount::ZERO,
            (Side::Buy, Some(limit)) => limit.times(order.left()),
            (Side::Buy, None) | (Side::Sell, _) => order.locked,
        };
        let freed = order.locked - still_needed;
        order.locked = still_needed;
        let (uid, by, is_buyer) = (order.uid, Arc::clone(&order.by), order.side == Side::Buy);
        let (paying, earning) = (order.paying_asset(), order.earned_asset());
        self.show_left_in_book(key);
        let commission = if uid == MARKET_MAKER { Amount::ZERO } else { earned.per_mille() };
        let account = self.touch(uid, paying);
        account.spend_locked(paying, spent);
        account.unlock(paying, freed);
        self.touch(uid, earning).credit(earning, earned - commission);
        self.account_of(MARKET_MAKER).credit(earning, commission);
        if uid != MARKET_MAKER {
            let (order_id, symbol, at) = (key.1, key.0, now);
            let (commission_asset, is_maker) = (earning, is_maker);
            let trade =
                Trade { id, order_id, symbol, price, quantity, commission, commission_asset, at, is_buyer, is_maker };
            self.account_of(uid).note_trade(trade);
        }
        let fill = Fill { trade_id: id, price, quantity, commission, commission_asset: earning, is_maker };
        self.report(now, key, &by, Execution { fill: Some(fill), ..Execution::plain(ExecutionType::Trade) });
        if !self.orders[&key].is_open() {
            self.close(key);
        }
    }

    /// A resting order's place in the book shows what is left of it; nothing left, no place.
    fn show_left_in_book(&mut self, key: OrderKey) {
        let Some(order) = self.orders.get_mut(&key) else { return };
        let Some(arrival) = order.resting else { return };
        let book = &mut self.markets[key.0].book;
        if order.is_open() && order.left().is_positive() {
            book.put(order.side, order.price, arrival, Resting { id: order.id, left: order.left() });
        } else {
            book.remove(order.side, order.price, arrival);
            order.resting = None;
        }
    }

    pub(super) fn finish_canceled(&mut self, now: Time, key: OrderKey, by: &Arc<Actor>, cancel_id: &str) {
        self.release(now, key, OrderStatus::Canceled);
        let execution = Execution {
            request_id: Some(cancel_id.to_owned()),
            original_id: self.orders[&key].client_id.clone(),
            ..Execution::plain(ExecutionType::Canceled)
        };
        self.report(now, key, by, execution);
        self.close(key);
    }

    fn finish_expired(&mut self, now: Time, key: OrderKey, reason: ExpiryReason) {
        self.release(now, key, OrderStatus::Expired);
        let by = Arc::clone(&self.orders[&key].by);
        self.report(now, key, &by, Execution { expired: Some(reason), ..Execution::plain(ExecutionType::Expired) });
        self.close(key);
        self.forget_if_made(key);
    }

    /// Out of the book and the stops, its money free again.
    fn release(&mut self, now: Time, key: OrderKey, status: OrderStatus) {
        let Some(order) = self.orders.get_mut(&key) else { return };
        self.markets[key.0].drop_stop(order);
        order.status = status;
        order.updated = now;
        let (uid, paying, locked) = (order.uid, order.paying_asset(), order.locked);
        order.locked = Amount::ZERO;
        self.touch(uid, paying).unlock(paying, locked);
        self.show_left_in_book(key);
    }

    /// A smaller quantity and another client id, the same place; gives back the former id.
    pub(super) fn shrink(&mut self, now: Time, key: OrderKey, quantity: Amount, new_id: String) -> String {
        let Some(order) = self.orders.get_mut(&key) else { return String::new() };
        order.quantity = quantity;
        order.updated = now;
        let former_id = std::mem::replace(&mut order.client_id, new_id.clone());
        let (uid, paying, locked) = (order.uid, order.paying_asset(), order.locked);
        let needed = self.lock_needed(&self.orders[&key]);
        if let Some(order) = self.orders.get_mut(&key) {
            order.locked = needed;
        }
        self.touch(uid, paying).unlock(paying, locked - needed);
        self.latest.remove(&(uid, key.0, former_id.clone()));
        self.latest.insert((uid, key.0, new_id), key);
        self.show_left_in_book(key);
        former_id
    }

    /// After each request: stops that the last price reached, then the balances of everybody touched.
    pub(super) fn settle(&mut self, now: Time, symbol: SymbolIndex) {
        self.tell_positions(now);
        while let Some(id) = self.markets[symbol].take_triggered() {
            self.trigger(now, (symbol, id));
            self.tell_positions(now);
        }
    }

    /// The second NEW of a stop order: now it works. A market order's cost is known only now.
    fn trigger(&mut self, now: Time, key: OrderKey) {
        let Some(order) = self.orders.get_mut(&key) else { return };
        order.working_since = Some(now);
        order.updated = now;
        let (by, uid, paying) = (Arc::clone(&order.by), order.uid, order.paying_asset());
        if order.side == Side::Buy && order.limit().is_none() {
            let (left, locked, step) = (order.left(), order.locked, self.markets[key.0].spec.step);
            let (_, cost) = self.markets[key.0].book.sweep(Side::Buy, Some(left), None, step);
            if self.account_of(uid).balance(paying).free + locked < cost {
                return self.finish_expired(now, key, ExpiryReason::Rejected);
            }
            self.touch(uid, paying).lock(paying, cost - locked);
            if let Some(order) = self.orders.get_mut(&key) {
                order.locked = cost;
            }
        }
        self.report(now, key, &by, Execution::plain(ExecutionType::New));
        self.work(now, key);
    }

    /// Numbers, writes down and announces an execution. The market maker's are only numbered.
    pub(super) fn report(&mut self, now: Time, key: OrderKey, by: &Arc<Actor>, mut execution: Execution) -> i64 {
        execution.id = self.markets[key.0].take_execution_id();
        let order = &self.orders[&key];
        if order.uid != MARKET_MAKER {
            let row = Some(self.ledger.note_execution(now, by, order, &execution));
            let body = execution_report(now, order, &execution);
            self.events.push(AccountEvent { uid: order.uid, body, row });
        }
        execution.id
    }

    pub(super) fn tell_positions(&mut self, now: Time) {
        let mut touched = std::mem::take(&mut self.touched).into_iter().peekable();
        while let Some((uid, asset)) = touched.next() {
            let account = &self.accounts[&uid];
            let row = |asset: &'static str| (asset, account.balance(asset).free, account.balance(asset).locked);
            let mut rows = vec![row(asset)];
            while let Some((_, asset)) = touched.next_if(|(next, _)| *next == uid) {
                rows.push(row(asset));
            }
            self.events.push(AccountEvent { uid, body: account_position(now, &rows), row: None });
            self.account_of(uid).updated_ms = now.millis();
        }
    }

    pub(super) fn close(&mut self, key: OrderKey) {
        let uid = self.orders[&key].uid;
        self.account_of(uid).open.remove(&key);
        if uid == MARKET_MAKER {
            return;
        }
        self.closed.push_back(key);
        if self.closed.len() > CLOSED_MAX
            && let Some(oldest) = self.closed.pop_front()
            && let Some(order) = self.orders.remove(&oldest)
        {
            let name = (order.uid, order.symbol, order.client_id);
            if self.latest.get(&name) == Some(&oldest) {
                self.latest.remove(&name);
            }
        }
    }

    /// The market maker's closed orders are nobody's history.
    pub(super) fn forget_if_made(&mut self, key: OrderKey) {
        if self.orders.get(&key).is_some_and(|order| order.uid == MARKET_MAKER && !order.is_open()) {
            self.orders.remove(&key);
        }
    }

    fn touch(&mut self, uid: Uid, asset: &'static str) -> &mut Account {
        if uid != MARKET_MAKER {
            self.touched.insert((uid, asset));
        }
        self.account_of(uid)
    }

    /// Every order belongs to an account that was opened before it: an unknown number opens an empty one.
    pub(super) fn account_of(&mut self, uid: Uid) -> &mut Account {
        self.accounts.entry(uid).or_insert_with(|| Account::new(uid, "unnamed"))
    }
}
