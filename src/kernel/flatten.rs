//! Selling what an account holds, at its owner's word and never by itself. It is told the time and what became of its
//! acts, and gives the next acts.
//!
//! Invariants: first it only reads, and shows each order; then, if its owner says so soon, exactly what was shown is sent,
//! each order once. Every order is a limit that fills at once or not at all, at no price below the bound, and no bigger
//! than the bids inside the bound. An order that may have been placed is found by its id, never sent again.

mod leg;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kernel::act::{Act, ActOutcome, Quote};
use crate::kernel::event::EffectId;
use crate::kernel::intent::OrderTerms;
use crate::kernel::money::Dec;
use crate::kernel::order::{Asset, ClientId, OrderType, Side, Symbol, TimeInForce};
use crate::kernel::pairs;
use crate::kernel::report::Balance;
use crate::kernel::time::Time;

pub use leg::{Leg, LegState, Offer, Sale};

/// Assets of one command; what is beyond them stays, and is counted.
pub const LEGS_MAX: usize = 20;
/// Prices get old: the owner's word counts for so long after the plan was whole.
const WORD_WITHIN: Duration = Duration::from_secs(120);
/// Reading takes seconds; what is not answered then is not sold.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// What is not answered then is found out about by reading.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// Orders are sent while fewer acts than this are under way, which are done beside each other: an emergency finds none
/// that waits for its turn. The others are sent as these are answered.
const SELLS_MAX: usize = 4;
const LOOKS_MAX: u32 = 4;
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What its owner asked for, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flatten {
    /// Names the plan: what is said yes to is this one.
    pub asked_at: Time,
    pub to: Asset,
    /// The part of the price that may be lost: 0.01 is one per cent.
    pub within: Dec,
    pub asked_by: Box<str>,
    pub stage: Stage,
    pub legs: BTreeMap<Asset, Leg>,
    /// Assets beyond the most that one command sells.
    pub beyond: usize,
    #[serde(with = "pairs")]
    under_way: BTreeMap<EffectId, Asset>,
    since: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    ReadingBalances,
    ReadingPrices,
    /// The plan stands, and waits for its owner's word.
    Planned,
    Selling,
    Done,
    Failed {
        why: Box<str>,
    },
}

impl Flatten {
    #[must_use]
    pub fn new(now: Time, to: Asset, within: Dec, by: &str) -> Self {
        Self {
            asked_at: now,
            to,
            within,
            asked_by: by.into(),
            stage: Stage::ReadingBalances,
            legs: BTreeMap::new(),
            beyond: 0,
            under_way: BTreeMap::new(),
            since: now,
        }
    }

    /// Whether it still has something to do by itself.
    #[must_use]
    pub fn is_running(&self) -> bool {
        match self.stage {
            Stage::ReadingBalances | Stage::ReadingPrices | Stage::Selling => true,
            Stage::Planned | Stage::Done | Stage::Failed { .. } => false,
        }
    }

    /// Until when its owner may say yes to it, if he still may.
    pub fn counts_until(&self, now: Time) -> Option<Time> {
        self.may_confirm(now, self.asked_at).ok().map(|()| self.since + WORD_WITHIN)
    }

    /// Whether its owner may say yes to the plan that was asked for then.
    pub fn may_confirm(&self, now: Time, plan: Time) -> Result<(), &'static str> {
        if self.asked_at != plan || self.stage != Stage::Planned {
            return Err("that is not the plan that waits: ask for a new one");
        }
        if now.since(self.since) > WORD_WITHIN {
            return Err("the plan is too old, and its prices as well: ask for a new one");
        }
        Ok(())
    }

    pub fn confirm(&mut self, now: Time, plan: Time) -> Result<(), &'static str> {
        self.may_confirm(now, plan)?;
        self.stage = Stage::Selling;
        Ok(())
    }

    /// The plan that was asked for then, each order with the worst that it brings, for whoever is to approve it.
    #[must_use]
    pub fn told(&self, plan: Time) -> Option<String> {
        let stands = self.asked_at == plan && self.stage == Stage::Planned;
        let offer = |leg: &Leg| match &leg.state {
            LegState::Offered(offer) => {
                let Offer { symbol, quantity, price, .. } = offer;
                Some(format!("sell {quantity} of {symbol} at {price} or more: {}", offer.least_told(&self.to)))
            }
            LegState::Reading
            | LegState::Stays { .. }
            | LegState::Sent(_)
            | LegState::Sold { .. }
            | LegState::Unknown { .. } => None,
        };
        let offers: Vec<String> = self.legs.values().filter_map(offer).collect();
        stands.then(|| format!("{}; approved after {} UTC it is too old", offers.join("; "), self.since + WORD_WITHIN))
    }

    /// What is to be done now, each for an asset. The account announces the orders to itself before it lets them go.
    pub fn next(&self, now: Time) -> Vec<(Asset, Act)> {
        let idle = |asset: &Asset| !self.under_way.values().any(|busy| busy == asset);
        let legs = self.legs.iter().filter(|(asset, _)| idle(asset));
        match self.stage {
            Stage::ReadingBalances if self.under_way.is_empty() => vec![(self.to.clone(), Act::Balances)],
            Stage::ReadingPrices => {
                let legs = legs.filter(|(_, leg)| leg.state == LegState::Reading);
                legs.map(|(asset, _)| (asset.clone(), Act::Quote { symbol: self.symbol(asset) })).collect()
            }
            Stage::Selling => {
                let acts = legs.filter_map(|(asset, leg)| Some((asset.clone(), self.sells(now, asset, leg)?)));
                let (sells, mut acts): (Vec<_>, Vec<_>) = acts.partition(|(_, act)| matches!(act, Act::Sell { .. }));
                let room = SELLS_MAX.saturating_sub(self.under_way.len() + acts.len());
                acts.extend(sells.into_iter().take(room));
                acts
            }
            Stage::ReadingBalances | Stage::Planned | Stage::Done | Stage::Failed { .. } => Vec::new(),
        }
    }

    fn sells(&self, now: Time, asset: &Asset, leg: &Leg) -> Option<Act> {
        let id = self.id(asset);
        match &leg.state {
            LegState::Offered(offer) => {
                Some(Act::Sell { symbol: offer.symbol.clone(), quantity: offer.quantity, price: offer.price, id })
            }
            LegState::Sent(offer) if leg.look_at.is_none_or(|at| at <= now) => {
                Some(Act::FindOrder { symbol: offer.symbol.clone(), id })
            }
            LegState::Sent(_)
            | LegState::Reading
            | LegState::Stays { .. }
            | LegState::Sold { .. }
            | LegState::Unknown { .. } => None,
        }
    }

    /// An id that no two orders of ours have.
    #[must_use]
    pub fn id(&self, asset: &Asset) -> ClientId {
        let digest = Sha256::digest(format!("flatten/{}/{asset}/{}", self.asked_at.micros(), self.asked_by));
        let hex: String = digest.iter().take(15).map(|byte| format!("{byte:02x}")).collect();
        ClientId::new(&format!("cs-{hex}"))
    }

    pub fn sent(&mut self, now: Time, effect: EffectId, asset: Asset) {
        if let Some(leg) = self.legs.get_mut(&asset)
            && self.stage == Stage::Selling
        {
            leg.answer_by = Some(now + ANSWERED_WITHIN);
            if let LegState::Offered(offer) = &leg.state {
                leg.state = LegState::Sent(offer.clone());
            }
        }
        self.under_way.insert(effect, asset);
    }

    /// The order of an offer, as it is announced and as it must be shown.
    #[must_use]
    pub fn terms(&self, asset: &Asset, offer: &Offer) -> OrderTerms {
        OrderTerms {
            client_order_id: self.id(asset),
            symbol: offer.symbol.clone(),
            side: Side::Sell,
            order_type: OrderType::Limit,
            time_in_force: Some(TimeInForce::Ioc),
            quantity: Some(offer.quantity),
            quote_quantity: None,
            price: Some(offer.price),
            stop_price: None,
            trailing_delta: None,
            iceberg_quantity: None,
            peg: None,
            stp_mode: None,
            strategy_id: None,
        }
    }

    pub fn asked(&self, effect: EffectId) -> Option<&Asset> {
        self.under_way.get(&effect)
    }

    pub fn due(&self) -> Option<Time> {
        match self.stage {
            Stage::ReadingBalances | Stage::ReadingPrices => Some(self.since + READ_WITHIN),
            // What was let go before could not be announced: the next ones at once.
            Stage::Selling if self.under_way.len() < SELLS_MAX && self.legs.values().any(Leg::is_offered) => {
                Some(self.since)
            }
            Stage::Selling => {
                let sent = self.legs.values().filter(|leg| matches!(leg.state, LegState::Sent(_)));
                sent.filter_map(|leg| leg.answer_by.or(leg.look_at)).min()
            }
            Stage::Planned | Stage::Done | Stage::Failed { .. } => None,
        }
    }

    /// What is answered after this is not listened to: the exchange is asked for the order by its id.
    pub fn cut_off_overdue(&mut self, now: Time) {
        let overdue = |asset: &Asset| self.legs.get(asset).and_then(|leg| leg.answer_by).is_some_and(|at| at <= now);
        let effects: Vec<EffectId> =
            self.under_way.iter().filter(|(_, asset)| overdue(asset)).map(|(effect, _)| *effect).collect();
        for effect in effects {
            self.handle_outcome(now, effect, &ActOutcome::Unknown { reason: "no answer came in time".into() });
        }
    }

    pub fn handle_outcome(&mut self, now: Time, effect: EffectId, outcome: &ActOutcome) {
        let Some(asset) = self.under_way.remove(&effect) else { return };
        if let Some(leg) = self.legs.get_mut(&asset) {
            leg.answer_by = None;
        }
        match self.stage {
            Stage::ReadingBalances => self.balances(now, outcome),
            Stage::ReadingPrices => {
                let offer = if let ActOutcome::Quote(quote) = outcome {
                    self.offer(&asset, quote)
                } else {
                    Err(format!("its price could not be read: {}", why(outcome)))
                };
                if let Some(leg) = self.legs.get_mut(&asset) {
                    leg.state = offer.map_or_else(|why| LegState::no_offer(&why), LegState::Offered);
                }
            }
            Stage::Selling => self.answered(now, &asset, outcome),
            Stage::Planned | Stage::Done | Stage::Failed { .. } => {}
        }
        self.settle(now);
    }

    fn balances(&mut self, now: Time, outcome: &ActOutcome) {
        let ActOutcome::Balances(balances) = outcome else {
            self.stage = Stage::Failed { why: format!("the balances could not be read: {}", why(outcome)).into() };
            return;
        };
        let held = |row: &&Balance| row.free.is_positive() && row.asset != self.to;
        let mut held: Vec<&Balance> = balances.iter().filter(held).collect();
        self.beyond = held.len().saturating_sub(LEGS_MAX);
        held.truncate(LEGS_MAX);
        let leg =
            |row: &Balance| Leg { free: row.free, state: LegState::Reading, looks: 0, look_at: None, answer_by: None };
        self.legs = held.into_iter().map(|row| (row.asset.clone(), leg(row))).collect();
        (self.stage, self.since) = (Stage::ReadingPrices, now);
    }

    /// The order for what is free of an asset, or why there is none.
    fn offer(&self, asset: &Asset, quote: &Quote) -> Result<Offer, String> {
        let free = self.legs.get(asset).map_or(Dec::ZERO, |leg| leg.free);
        if (&quote.base, &quote.quote) != (asset, &self.to) || !quote.trading {
            return Err(format!("{} is not traded now", self.symbol(asset)));
        }
        let best_bid = quote.bids.iter().map(|(price, _)| *price).max().ok_or("nobody bids for it")?;
        let reference = quote.average;
        let loss = |price: Dec| price.checked_mul(self.within);
        let apart = best_bid.checked_sub(reference).map(Dec::abs);
        let (Some(apart), Some(most)) = (apart, loss(reference)) else { return Err(NOT_EXACT.to_owned()) };
        if apart > most || !reference.is_positive() {
            return Err(format!(
                "the best bid is {best_bid} and the average of the last minutes {reference}: further apart than you \
                 allow, and somebody may be moving the price"
            ));
        }
        let higher = reference.max(best_bid);
        let price = loss(higher).and_then(|loss| higher.checked_sub(loss)?.raised_to(quote.tick));
        let price = price.ok_or(NOT_EXACT)?;
        let mut inside = quote.bids.iter().filter(|(bid, _)| *bid >= price);
        let depth = inside.try_fold(Dec::ZERO, |sum, (_, quantity)| sum.checked_add(*quantity));
        let depth = depth.ok_or(NOT_EXACT)?;
        let quantity = free.min(depth).min(quote.quantity_most).lowered_to(quote.step).ok_or(NOT_EXACT)?;
        let offer = Offer {
            symbol: self.symbol(asset),
            quantity,
            price,
            reference,
            average_of_day: quote.average_of_day,
            best_bid,
            depth,
        };
        let least = offer.least().ok_or(NOT_EXACT)?;
        if quantity < quote.quantity_least || !quantity.is_positive() || least < quote.notional_least {
            return Err(format!(
                "{quantity} of it could be sold inside the bound, which is less than the exchange takes"
            ));
        }
        Ok(offer)
    }

    fn answered(&mut self, now: Time, asset: &Asset, outcome: &ActOutcome) {
        let Some(leg) = self.legs.get_mut(asset) else { return };
        let LegState::Sent(offer) = leg.state.clone() else { return };
        let first = leg.look_at.is_none();
        leg.state = match outcome {
            ActOutcome::Sold { executed, received } => {
                LegState::Sold { offer, executed: *executed, received: *received }
            }
            // Of the order itself: it was not placed. Prices move, so it is not tried again.
            ActOutcome::Refused { .. } | ActOutcome::Held { .. } if first => {
                LegState::not_sold(&format!("it was not taken: {}", why(outcome)))
            }
            ActOutcome::NotFound if leg.looks + 1 >= LOOKS_MAX => {
                LegState::not_sold("its answer was lost, and the exchange knows no such order")
            }
            ActOutcome::Refused { .. }
            | ActOutcome::Held { .. }
            | ActOutcome::Unknown { .. }
            | ActOutcome::NotFound
            | ActOutcome::Keys(_)
            | ActOutcome::Probed(_)
            | ActOutcome::Orders(_)
            | ActOutcome::Balances(_)
            | ActOutcome::Quote(_)
            | ActOutcome::Done { .. } => {
                leg.looks += u32::from(!first);
                leg.look_at = Some(now + LOOK_AGAIN_AFTER);
                if leg.looks < LOOKS_MAX { LegState::Sent(offer) } else { LegState::Unknown { offer } }
            }
        };
    }

    /// Works out how far it is. Called after everything that happened.
    pub fn settle(&mut self, now: Time) {
        let reads = matches!(self.stage, Stage::ReadingBalances | Stage::ReadingPrices);
        if reads && self.since + READ_WITHIN <= now {
            for leg in self.legs.values_mut().filter(|leg| leg.state == LegState::Reading) {
                leg.state = LegState::no_offer("its price could not be read in time");
            }
            self.under_way.clear();
            if self.stage == Stage::ReadingBalances {
                self.stage = Stage::Failed { why: "the balances could not be read in time".into() };
            }
        }
        let open = |leg: &Leg| match (&self.stage, &leg.state) {
            (Stage::ReadingPrices, LegState::Reading) => true,
            (Stage::Selling, LegState::Offered(_) | LegState::Sent(_)) => true,
            (_, _) => false,
        };
        if self.legs.values().any(open) {
            return;
        }
        match self.stage {
            Stage::ReadingPrices => (self.stage, self.since) = (Stage::Planned, now),
            Stage::Selling => self.stage = Stage::Done,
            Stage::ReadingBalances | Stage::Planned | Stage::Done | Stage::Failed { .. } => {}
        }
    }

    /// The process ended and started again. A plan is dropped, since its prices are old; of what may have been sent the
    /// exchange is asked; what was not sent is not sent any more.
    pub fn handle_restart(&mut self, now: Time) {
        self.under_way.clear();
        match self.stage {
            Stage::ReadingBalances | Stage::ReadingPrices | Stage::Planned => {
                self.stage = Stage::Failed { why: "countersign started again meanwhile: ask anew".into() };
            }
            Stage::Selling => {
                for leg in self.legs.values_mut() {
                    leg.answer_by = None;
                    match &leg.state {
                        LegState::Offered(_) => {
                            leg.state = LegState::not_sold("countersign started again before it was sent");
                        }
                        LegState::Sent(_) => leg.look_at = Some(now),
                        LegState::Reading
                        | LegState::Stays { .. }
                        | LegState::Sold { .. }
                        | LegState::Unknown { .. } => {}
                    }
                }
                self.settle(now);
            }
            Stage::Done | Stage::Failed { .. } => {}
        }
    }

    /// The account is being contained: nothing more is read for a plan or sent; what was sent is looked up all the same.
    pub fn give_way(&mut self) {
        match self.stage {
            Stage::ReadingBalances | Stage::ReadingPrices => {
                self.under_way.clear();
                self.stage = Stage::Failed { why: "the account is being contained: ask anew afterwards".into() };
            }
            Stage::Selling => {
                for leg in self.legs.values_mut().filter(|leg| leg.is_offered()) {
                    leg.state = LegState::not_sold("the account began to be contained before it was sent");
                }
            }
            Stage::Planned | Stage::Done | Stage::Failed { .. } => {}
        }
    }

    /// It cannot be announced, so it is not sent.
    pub fn leave(&mut self, asset: &Asset, why: &str) {
        if let Some(leg) = self.legs.get_mut(asset) {
            leg.state = LegState::not_sold(why);
        }
    }

    /// As people see it.
    #[must_use]
    pub fn sale(&self) -> Sale {
        Sale {
            plan: self.asked_at,
            to: self.to.clone(),
            within: self.within,
            asked_by: self.asked_by.clone(),
            stage: self.stage.clone(),
            legs: self.legs.iter().map(|(asset, leg)| (asset.clone(), leg.state.clone())).collect(),
            lines: self.legs.iter().map(|(asset, leg)| leg.told(asset, &self.to)).collect(),
            beyond: self.beyond,
        }
    }

    fn symbol(&self, asset: &Asset) -> Symbol {
        Symbol::new(&format!("{asset}{}", self.to))
    }
}

const NOT_EXACT: &str = "its numbers are too long to be exact";

fn why(outcome: &ActOutcome) -> String {
    match outcome {
        ActOutcome::Refused { code, reason } if *code != 0 => format!("refused ({code}): {reason}"),
        ActOutcome::Held { reason, .. } => format!("held back: {reason}"),
        ActOutcome::Refused { .. }
        | ActOutcome::Unknown { .. }
        | ActOutcome::NotFound
        | ActOutcome::Keys(_)
        | ActOutcome::Probed(_)
        | ActOutcome::Orders(_)
        | ActOutcome::Balances(_)
        | ActOutcome::Quote(_)
        | ActOutcome::Sold { .. }
        | ActOutcome::Done { .. } => outcome.reason().to_owned(),
    }
}
