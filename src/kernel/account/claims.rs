//! Claim windows at work: opened with a reason, told order by order, ended, and disowned as a whole.
//!
//! Invariants: only an order that nobody announced, under an id that claims nothing, is ever taken: what is forged,
//! replayed, divergent or unlogged stays what it is. What the bot says of an order goes before what its owner says. *Not
//! me* makes every order of its window a stranger's, since somebody else knew of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kernel::account::exceptions::UsedOf;
use crate::kernel::account::finding::{STRANGER_LIMITS, describe, money_asset};
use crate::kernel::account::{Kernel, Timer};
use crate::kernel::blotter::OrderKey;
use crate::kernel::book::Entry;
use crate::kernel::claim::{Asked, Claim, ClaimStanding, Window, check_reason};
use crate::kernel::event::TagCheck;
use crate::kernel::incident::{CLAIM_RULE, IncidentId, Priority};
use crate::kernel::limits::quote_asset;
use crate::kernel::order::{Asset, Side, Symbol};
use crate::kernel::rule::{Cause, Response, Ruling};
use crate::kernel::time::Time;
use crate::kernel::verdict::Verdict;

const HEADLINE: &str = "A claim window: orders in it count as yours, made by hand";
const CERTAINTY: &str =
    "It fits the window that you opened. A thief's order that fits would look the same: look at each.";
const ADVICE: &[&str] = &[
    "Not you? Press Not me, send /notme with the account's name, or run countersign not-me: all of it is a stranger's then.",
    "Done? /manual ACCOUNT end, or countersign manual ACCOUNT --end.",
];
const DISOWNED: &[&str] = &[
    "Stop it: /freeze or /kill with this account's name. The window's orders are told as a stranger's.",
    "If you did not open the window yourself, somebody has your one-time passwords: countersign secret totp makes new ones.",
    "Change the password and 2FA of the exchange account, and look at withdrawals and transfers.",
];

/// The open window in the coverage statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimStatus {
    pub incident: IncidentId,
    pub by: Box<str>,
    pub reason: Box<str>,
    pub until: Time,
    pub symbols: Vec<Symbol>,
    pub sides: Vec<Side>,
    pub orders: u32,
    pub orders_used: u32,
    pub notional: BTreeMap<Asset, UsedOf>,
}

impl Kernel {
    /// What would keep the window from being opened, whatever its password.
    pub(super) fn may_open_claim(&self, claim: &Claim, reason: &str) -> Result<(), String> {
        claim.check()?;
        check_reason(reason)?;
        claim.check_assets(|symbol| self.quote_of(symbol))?;
        if self.is_containing() {
            return Err("the account is being contained: nothing is claimed meanwhile".to_owned());
        }
        match self.state.claims.running() {
            Some(window) => Err(format!("a claim window is open until {} UTC: end it first", window.until)),
            None => Ok(()),
        }
    }

    pub(super) fn open_claim(&mut self, claim: &Claim, by: &str, reason: &str) -> Result<(), String> {
        // An approval can come minutes after the asking.
        self.may_open_claim(claim, reason)?;
        let now = self.now();
        let mut window = Window::new(IncidentId(0), now, claim.clone(), by, reason);
        let line = format!(
            "opened by {by}, with a one-time password: {claim}; made from {} to {} UTC. Why: {reason}",
            window.begins_at(),
            window.until
        );
        window.id = self.tell_claim(line, None);
        self.state.timers.insert((window.until, Timer::ClaimEnds));
        self.state.claims.add(window);
        Ok(())
    }

    fn tell_claim(&mut self, line: String, order: Option<&OrderKey>) -> IncidentId {
        let (now, seq) = self.moment();
        let order = order.and_then(|key| {
            let order = self.state.blotter.orders.get_mut(key)?;
            order.told = true;
            Some((key.clone(), money_asset(&key.0), order.exposure()))
        });
        let (rule, headline, cause) = (CLAIM_RULE, HEADLINE, Cause::Claim);
        let entry = Entry {
            ruling: Ruling { rule, headline, priority: Priority::Warning, cause, response: Response::Notify },
            scope: "",
            line,
            certainty: CERTAINTY.to_owned(),
            advice: ADVICE,
            limits_of_sight: STRANGER_LIMITS,
            order,
        };
        self.state.book.record(now, seq, &self.declared.account, entry)
    }

    /// The asset in which a symbol's money is counted.
    fn quote_of(&self, symbol: &Symbol) -> Option<Asset> {
        let declared = self.declared.bots.values().find_map(|limits| limits.symbols.get(symbol));
        declared.map(|limit| limit.quote.clone()).or_else(|| quote_asset(symbol))
    }

    /// Whether a window holds an order that would be nobody's, or takes it now. What was judged once is the past.
    pub(super) fn is_by_hand(&mut self, key: &OrderKey) -> bool {
        let Some(order) = self.state.blotter.orders.get(key) else { return false };
        if order.tag != TagCheck::Absent || self.placement_of(key, order).is_some() {
            return false;
        }
        if order.claim().is_some() || order.waited {
            return order.claim().is_some();
        }
        let asked = Asked {
            symbol: &key.0,
            side: order.placed.side,
            quote: self.quote_of(&key.0),
            money: order.possible_money(),
            created_at: order.created_at,
            first_seen: order.first_seen,
        };
        let now = self.state.now.at;
        let taken = self.state.claims.running_mut().and_then(|window| window.take(now, &asked));
        let Some(order) = self.state.blotter.orders.get_mut(key).filter(|_| taken.is_some()) else { return false };
        order.claimed = taken;
        true
    }

    /// An order was seen again: its claim breaks if it is no longer what its window took. A window that is forgotten has
    /// nothing left.
    pub(super) fn hold_claim(&mut self, key: &OrderKey) {
        let quote = self.quote_of(&key.0);
        let Some(order) = self.state.blotter.orders.get_mut(key) else { return };
        let (money, created_at) = (order.possible_money(), order.created_at);
        let Some(claimed) = order.claimed.as_mut().filter(|claimed| claimed.standing == ClaimStanding::Holds) else {
            return;
        };
        let growth = money.and_then(|money| money.checked_sub(claimed.money));
        let window = self.state.claims.get_mut(claimed.window);
        let holds = match (growth, window, quote) {
            (None, ..) | (_, _, None) => false,
            (Some(growth), None, _) => !growth.is_positive(),
            (Some(growth), Some(window), Some(quote)) => {
                let grows = growth.is_positive();
                created_at >= window.begins_at() && (!grows || window.use_money(&quote, growth).is_some())
            }
        };
        match money.filter(|_| holds) {
            Some(money) => claimed.money = claimed.money.max(money),
            None => claimed.standing = ClaimStanding::Broken,
        }
    }

    pub(super) fn tell_claimed(&mut self, key: &OrderKey) {
        let Some(order) = self.state.blotter.orders.get(key) else { return };
        let placed = describe(key, &order.placed);
        let window = self.state.claims.running();
        let used = window.map_or_else(|| "its window is over".to_owned(), |window| window.used_told());
        self.tell_claim(format!("{placed}: {}; {used}", Verdict::DeclaredManual.plain()), Some(key));
    }

    /// The bot's word, or a better look, says something else than its owner did.
    pub(super) fn drop_claim(&mut self, key: &OrderKey, verdict: Verdict) {
        let quote = self.quote_of(&key.0);
        let Some(order) = self.state.blotter.orders.get_mut(key).filter(|order| order.claim().is_some()) else {
            return;
        };
        let claimed = order.claimed.take();
        if verdict == Verdict::Matched
            && let (Some(claimed), Some(quote)) = (claimed, quote)
            && let Some(window) = self.state.claims.get_mut(claimed.window)
        {
            window.give_back(&quote, claimed.money);
        }
    }

    pub(super) fn end_claim(&mut self, why: &str) -> Result<(), String> {
        let now = self.now();
        let Some(window) = self.state.claims.running_mut() else { return Err("no claim window is open".to_owned()) };
        window.ended = true;
        let line = format!("{why}: the window is over, with {}", window.used_told());
        self.state.timers.retain(|(_, timer)| *timer != Timer::ClaimEnds);
        self.state.book.end(now, Cause::Claim, "", line);
        Ok(())
    }

    pub(super) fn not_me(&mut self, by: &str, named: Option<IncidentId>) -> Result<(), String> {
        let id = named.or_else(|| self.state.claims.last().map(|window| window.id));
        let Some(id) = id else { return Err("there was no claim window".to_owned()) };
        let orders = self
            .state
            .blotter
            .orders
            .iter()
            .filter(|(_, order)| order.claim().is_some_and(|claimed| claimed.window == id));
        let orders: Vec<OrderKey> = orders.map(|(key, _)| key.clone()).collect();
        match self.state.claims.get_mut(id) {
            Some(window) if window.disowned => return Err("that was said already, and was done".to_owned()),
            Some(window) => window.disowned = true,
            None if orders.is_empty() => return Err(format!("incident {id} is no claim window with orders")),
            None => {}
        }
        if self.state.claims.running().is_some_and(|window| window.id == id) {
            self.end_claim(&format!("NOT ME, says {by}"))?;
        }
        let headline = if orders.is_empty() {
            "Not you: a claim window was opened for somebody else"
        } else {
            "Not you: somebody else traded in your claim window"
        };
        let line = format!("{by} says of claim window {id}: not me. Its orders are a stranger's now: {}", orders.len());
        self.built_in("not_me", Cause::Claim, "not me", Priority::Critical, headline, line, DISOWNED);
        for key in &orders {
            let claimed = self.state.blotter.orders.get_mut(key).and_then(|order| order.claimed.as_mut());
            if let Some(claimed) = claimed {
                claimed.standing = ClaimStanding::Disowned;
            }
            self.rejudge(key);
        }
        Ok(())
    }

    pub(super) fn claim_status(&self) -> Option<ClaimStatus> {
        let window = self.state.claims.last().filter(|window| window.is_open(self.now()))?;
        let of = |(asset, bound): (&Asset, &_)| (asset.clone(), UsedOf { used: window.used(asset), bound: *bound });
        Some(ClaimStatus {
            incident: window.id,
            by: window.by.clone(),
            reason: window.reason.clone(),
            until: window.until,
            symbols: window.claim.symbols.clone(),
            sides: window.claim.sides.clone(),
            orders: window.claim.orders,
            orders_used: window.orders,
            notional: window.claim.notional.iter().map(of).collect(),
        })
    }
}

/// What a stranger's order owes to a window, for its card: the words for the line, and how sure they make us.
pub(super) const fn told_of(standing: ClaimStanding) -> Option<(&'static str, &'static str)> {
    match standing {
        ClaimStanding::Holds => None,
        ClaimStanding::Broken => {
            Some(("its claim window does not hold it", "It traded more than your claim window had left, or is older."))
        }
        ClaimStanding::Disowned => {
            Some(("it came in your claim window, and you said: not me", "You said so: it was not you."))
        }
    }
}
