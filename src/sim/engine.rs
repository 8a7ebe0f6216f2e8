//! The matching engine: orders in, events and ledger rows out. It is told the time and draws chance from its seed,
//! so the same requests give the same run; it never waits and knows no socket.
//!
//! Invariant: every asset's sum over all accounts changes by deposits only (the house earns the commissions).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::kernel::order::{ExecutionType, OrderStatus, OrderType, RejectReason, Side};
use crate::kernel::time::Time;
use crate::sim::account::Account;
use crate::sim::amount::Amount;
use crate::sim::event::{AccountEvent, Execution, balance_update};
use crate::sim::ledger::Ledger;
use crate::sim::market::{Market, SYMBOLS, SymbolIndex};
use crate::sim::order::{Actor, MARKET_MAKER, NewOrder, Order, OrderKey, Uid};
use crate::sim::refusal::Refusal;
use crate::sim::seed::Seeded;

pub struct Engine {
    pub(super) markets: Vec<Market>,
    pub(super) accounts: BTreeMap<Uid, Account>,
    pub(super) orders: BTreeMap<OrderKey, Order>,
    /// The newest order of each client id; it may be closed.
    pub(super) latest: BTreeMap<(Uid, SymbolIndex, String), OrderKey>,
    pub(super) closed: VecDeque<OrderKey>,
    pub(super) dice: Seeded,
    pub(super) events: Vec<AccountEvent>,
    pub(super) touched: BTreeSet<(Uid, &'static str)>,
    pub(super) ledger: Ledger,
    pub(super) house: Arc<Actor>,
    transfers: i64,
}

/// How a request names an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    Id(i64),
    ClientId(String),
}

/// A cancel's condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOnly {
    Any,
    New,
    PartiallyFilled,
}

/// Why the engine does not take an order: for the report of a failed cancel-replace, and for the answer.
pub(super) struct Rejection {
    reason: RejectReason,
    refusal: Refusal,
}

impl Rejection {
    fn new(reason: RejectReason, refusal: Refusal) -> Self {
        Self { reason, refusal }
    }
}

impl Engine {
    pub fn new(now: Time, seed: u64) -> Self {
        let mut dice = Seeded::new(seed);
        let markets = SYMBOLS.iter().map(|spec| Market::new(spec, &mut dice)).collect();
        let house = Actor {
            uid: MARKET_MAKER,
            key: "exchange".into(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            agent: "exchange".into(),
        };
        let mut engine = Self {
            markets,
            accounts: BTreeMap::from([(MARKET_MAKER, Account::new(MARKET_MAKER, "market maker"))]),
            orders: BTreeMap::new(),
            latest: BTreeMap::new(),
            closed: VecDeque::new(),
            dice,
            events: Vec::new(),
            touched: BTreeSet::new(),
            ledger: Ledger::default(),
            house: Arc::new(house),
            transfers: 0,
        };
        for symbol in 0..SYMBOLS.len() {
            engine.requote(now, symbol);
        }
        engine
    }

    pub fn open_account(&mut self, uid: Uid, name: &str, balances: &[(&'static str, Amount)]) {
        let mut account = Account::new(uid, name);
        for (asset, amount) in balances {
            account.credit(asset, *amount);
        }
        self.accounts.insert(uid, account);
    }

    pub fn place(&mut self, now: Time, by: &Arc<Actor>, new: NewOrder) -> Result<OrderKey, Refusal> {
        let order = self.draft(now, by, new);
        let lock = self.admit(&order).map_err(|rejection| rejection.refusal)?;
        Ok(self.take(now, order, lock))
    }

    /// The second half of a cancel-replace: here a rejection is an event of its own, since the cancel has been done.
    pub fn replace(&mut self, now: Time, by: &Arc<Actor>, new: NewOrder) -> Result<OrderKey, Refusal> {
        let mut order = self.draft(now, by, new);
        match self.admit(&order) {
            Ok(lock) => Ok(self.take(now, order, lock)),
            Err(Rejection { reason, refusal }) => {
                order.status = OrderStatus::Rejected;
                let key = order.key();
                self.orders.insert(key, order);
                let execution = Execution { rejected: reason, ..Execution::plain(ExecutionType::Rejected) };
                self.report(now, key, by, execution);
                self.close(key);
                Err(refusal)
            }
        }
    }

    /// Whether an order would be taken, without taking it: `order/test`.
    pub fn test(&mut self, now: Time, by: &Arc<Actor>, new: NewOrder) -> Result<(), Refusal> {
        let order = self.draft(now, by, new);
        self.admit(&order).map(|_| ()).map_err(|rejection| rejection.refusal)
    }

    fn take(&mut self, now: Time, order: Order, lock: Amount) -> OrderKey {
        let key = order.key();
        self.enter(now, order, lock);
        self.settle(now, key.0);
        key
    }

    pub(super) fn draft(&mut self, now: Time, by: &Arc<Actor>, new: NewOrder) -> Order {
        let market = &mut self.markets[new.symbol];
        let sized_by_quote = new.quote_quantity.is_positive();
        let (quantity, _) = if sized_by_quote {
            market.book.sweep(new.side, None, Some(new.quote_quantity), market.spec.step)
        } else {
            (new.quantity, Amount::ZERO)
        };
        Order {
            id: market.take_order_id(&mut self.dice),
            uid: by.uid,
            by: Arc::clone(by),
            symbol: new.symbol,
            client_id: new.client_id.unwrap_or_else(|| self.dice.base62(22)),
            side: new.side,
            kind: new.kind,
            time_in_force: new.time_in_force,
            quantity,
            quote_quantity: new.quote_quantity,
            price: new.price,
            stop_price: new.stop_price,
            iceberg_quantity: new.iceberg_quantity,
            strategy_id: new.strategy_id,
            strategy_type: new.strategy_type,
            executed: Amount::ZERO,
            quote_executed: Amount::ZERO,
            locked: Amount::ZERO,
            status: OrderStatus::New,
            created: now,
            updated: now,
            working_since: None,
            resting: None,
        }
    }

    /// What the order needs set aside, or why it is not taken.
    fn admit(&self, order: &Order) -> Result<Amount, Rejection> {
        let refuse = |reason, words| Err(Rejection::new(reason, Refusal::engine(words)));
        let market = &self.markets[order.symbol];
        if self.open_with_id(order.uid, order.symbol, &order.client_id) {
            return refuse(RejectReason::None, "Duplicate order sent.");
        }
        if order.kind == OrderType::LimitMaker && market.book.best_against(order.side, Some(order.price)).is_some() {
            return refuse(RejectReason::WouldMatch, "Order would immediately match and take.");
        }
        if order.kind.is_conditional() && market.would_trigger(order) {
            return refuse(RejectReason::StopWouldTrigger, "Stop price would trigger immediately.");
        }
        let lock = self.lock_needed(order);
        if self.accounts[&order.uid].balance(order.paying_asset()).free < lock {
            return Err(Rejection::new(RejectReason::InsufficientBalances, Refusal::insufficient_balance()));
        }
        Ok(lock)
    }

    fn open_with_id(&self, uid: Uid, symbol: SymbolIndex, client_id: &str) -> bool {
        let key = self.latest.get(&(uid, symbol, client_id.to_owned()));
        key.and_then(|key| self.orders.get(key)).is_some_and(Order::is_open)
    }

    pub(super) fn lock_needed(&self, order: &Order) -> Amount {
        let market = &self.markets[order.symbol];
        match (order.side, order.limit()) {
            (Side::Sell, _) => order.left(),
            (Side::Buy, Some(price)) => price.times(order.left()),
            (Side::Buy, None) if order.quote_quantity.is_positive() => order.quote_quantity,
            (Side::Buy, None) if order.kind.is_conditional() => order.stop_price.times(order.left()),
            (Side::Buy, None) => market.book.sweep(Side::Buy, Some(order.left()), None, market.spec.step).1,
        }
    }

    /// Ends one open order; the answer is its key and the cancel's own id.
    pub fn cancel(
        &mut self,
        now: Time,
        by: &Arc<Actor>,
        (symbol, which): (SymbolIndex, &Which),
        cancel_id: Option<String>,
        only: CancelOnly,
    ) -> Result<(OrderKey, String), Refusal> {
        let found =
            self.find(by.uid, symbol, which).filter(|order| order.is_open()).ok_or_else(Refusal::unknown_order)?;
        let fits = match only {
            CancelOnly::Any => true,
            CancelOnly::New => found.status == OrderStatus::New,
            CancelOnly::PartiallyFilled => found.status == OrderStatus::PartiallyFilled,
        };
        if !fits {
            return Err(Refusal::bad(-2011, "Order was not canceled due to cancel restrictions."));
        }
        let key = found.key();
        let cancel_id = cancel_id.unwrap_or_else(|| self.dice.base62(22));
        self.finish_canceled(now, key, by, &cancel_id);
        self.settle(now, symbol);
        Ok((key, cancel_id))
    }

    /// Ends all open orders of a symbol, under one cancel id drawn here.
    pub fn cancel_all(
        &mut self,
        now: Time,
        by: &Arc<Actor>,
        symbol: SymbolIndex,
    ) -> Result<(Vec<OrderKey>, String), Refusal> {
        let account = self.accounts.get(&by.uid).ok_or_else(Refusal::unknown_order)?;
        let keys: Vec<OrderKey> = account.open.range((symbol, i64::MIN)..=(symbol, i64::MAX)).copied().collect();
        if keys.is_empty() {
            return Err(Refusal::unknown_order());
        }
        let cancel_id = self.dice.base62(22);
        for key in &keys {
            self.finish_canceled(now, *key, by, &cancel_id);
        }
        self.settle(now, symbol);
        Ok((keys, cancel_id))
    }

    /// A smaller quantity without losing its place; the answer is the key, the former client id and the execution.
    pub fn amend(
        &mut self,
        now: Time,
        by: &Arc<Actor>,
        (symbol, which): (SymbolIndex, &Which),
        quantity: Amount,
        new_id: Option<String>,
    ) -> Result<(OrderKey, String, i64), Refusal> {
        let found = self.find(by.uid, symbol, which).filter(|order| order.is_open());
        let key = found.ok_or_else(Refusal::no_such_order)?.key();
        let new_id = new_id.unwrap_or_else(|| self.dice.base62(22));
        let order = &self.orders[&key];
        if quantity >= order.quantity || quantity <= order.executed {
            return Err(Refusal::bad(-2038, "The requested action would change no state; rejecting."));
        }
        if new_id != order.client_id && self.open_with_id(by.uid, symbol, &new_id) {
            return Err(Refusal::engine("Duplicate order sent."));
        }
        let former_id = self.shrink(now, key, quantity, new_id);
        let execution = Execution { original_id: former_id.clone(), ..Execution::plain(ExecutionType::Replaced) };
        let execution_id = self.report(now, key, by, execution);
        self.settle(now, symbol);
        Ok((key, former_id, execution_id))
    }

    pub fn deposit(&mut self, now: Time, by: &Actor, asset: &'static str, amount: Amount) -> Result<(), Refusal> {
        let account = self.accounts.get_mut(&by.uid).ok_or_else(|| Refusal::bad(-1102, "There is no such account."))?;
        if account.balance(asset).free + amount < Amount::ZERO {
            return Err(Refusal::insufficient_balance());
        }
        account.credit(asset, amount);
        let row = self.ledger.note_transfer(now, by, asset, amount);
        let body = balance_update(now, asset, amount);
        self.events.push(AccountEvent { uid: by.uid, body, row: Some(row) });
        self.touched.insert((by.uid, asset));
        self.tell_positions(now);
        Ok(())
    }

    /// From one account's free balance to another's; both are told.
    pub fn transfer(
        &mut self,
        now: Time,
        by: &Actor,
        (from, to): (Uid, Uid),
        asset: &'static str,
        amount: Amount,
    ) -> Result<i64, Refusal> {
        let free = |uid: Uid| self.accounts.get(&uid).map(|account| account.balance(asset).free);
        let there = free(from).filter(|_| free(to).is_some()).ok_or_else(Refusal::unsupported)?;
        if there < amount {
            return Err(Refusal::bad(-9000, "user have no avaliable amount"));
        }
        for (uid, change) in [(from, -amount), (to, amount)] {
            self.account_of(uid).credit(asset, change);
            let row = Some(self.ledger.note_move(now, uid, by, asset, change));
            self.events.push(AccountEvent { uid, body: balance_update(now, asset, change), row });
            self.touched.insert((uid, asset));
        }
        self.tell_positions(now);
        self.transfers += 1;
        Ok(self.transfers)
    }

    pub fn find(&self, uid: Uid, symbol: SymbolIndex, which: &Which) -> Option<&Order> {
        let key = match which {
            Which::Id(id) => (symbol, *id),
            Which::ClientId(id) => *self.latest.get(&(uid, symbol, id.clone()))?,
        };
        self.orders.get(&key).filter(|order| order.uid == uid)
    }

    pub fn order(&self, key: OrderKey) -> Option<&Order> {
        self.orders.get(&key)
    }

    pub fn open_orders(&self, uid: Uid) -> impl Iterator<Item = &Order> {
        let open = self.accounts.get(&uid).into_iter().flat_map(|account| &account.open);
        open.filter_map(|key| self.orders.get(key))
    }

    pub fn orders_of(&self, uid: Uid, symbol: SymbolIndex, from_id: i64) -> impl Iterator<Item = &Order> {
        let range = self.orders.range((symbol, from_id)..=(symbol, i64::MAX));
        range.map(|(_, order)| order).filter(move |order| order.uid == uid)
    }

    pub fn account(&self, uid: Uid) -> Option<&Account> {
        self.accounts.get(&uid)
    }

    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values().filter(|account| account.uid != MARKET_MAKER)
    }

    pub fn market(&self, symbol: SymbolIndex) -> &Market {
        &self.markets[symbol]
    }

    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub const fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    pub const fn dice(&mut self) -> &mut Seeded {
        &mut self.dice
    }

    pub fn take_events(&mut self) -> Vec<AccountEvent> {
        std::mem::take(&mut self.events)
    }
}
