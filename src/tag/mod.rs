//! The countersign: a client order id that carries a keyed MAC over the order's own parameters, so that whoever
//! holds only the exchange key cannot make one.
//!
//! Invariant: this is pure. Time and counters are told; the outcome of a check (`TagCheck`) holds no secret. Whether
//! the time in an id fits the order's creation time is judged by the kernel.

pub mod layout;
pub mod mac;

use std::collections::BTreeMap;

use subtle::ConstantTimeEq;

use crate::kernel::event::{OrderSnapshot, ReadOutcome, TagCheck, Tags};
use crate::kernel::intent::{OrderTerms, Target};
use crate::kernel::order::{Account, ClientId, Symbol};
use crate::kernel::report::ExecutionReport;
use crate::tag::layout::{IdPrefix, Parsed, Stamp};
use crate::tag::mac::{Cancelled, Context, Order, TagKey};

/// The keys of one account: one issues, all verify (a rotation keeps the old ones, bots may have their own).
pub struct TagKeys {
    account: Account,
    market: Box<str>,
    issuing: TagKey,
    /// By key id; at most 15, since the issuing key takes one of 16.
    verifying: BTreeMap<u8, TagKey>,
    prefixes: Vec<IdPrefix>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two tag keys of account {account} have the id {id}; give each key of an account its own id from 0 to 15")]
pub struct KeyIdTaken {
    account: Account,
    id: u8,
}

impl TagKeys {
    /// `market` names the venue and wallet, such as `binance/spot`. `prefixes` are those the account's bots use.
    pub fn new(
        account: Account,
        market: &str,
        issuing: TagKey,
        others: Vec<TagKey>,
        prefixes: Vec<IdPrefix>,
    ) -> Result<Self, KeyIdTaken> {
        let mut verifying = BTreeMap::new();
        for key in others {
            let id = key.id.number();
            if id == issuing.id.number() || verifying.insert(id, key).is_some() {
                return Err(KeyIdTaken { account, id });
            }
        }
        Ok(Self { account, market: market.into(), issuing, verifying, prefixes })
    }

    pub fn account(&self) -> &Account {
        &self.account
    }

    pub fn prefixes(&self) -> &[IdPrefix] {
        &self.prefixes
    }

    /// The id an order must carry; the id that stands in `terms` does not matter.
    pub fn issue_order(&self, stamp: Stamp, prefix: Option<&IdPrefix>, terms: &OrderTerms) -> ClientId {
        let mac = Order::from(terms).mac(&self.issuing, self.context(stamp, prefix.map_or("", IdPrefix::as_str)));
        ClientId::new(&layout::write(prefix, self.issuing.id, stamp, &mac))
    }

    /// The id a cancel must carry; a cancel of all orders takes none, the venue makes it up.
    pub fn issue_cancel(
        &self,
        stamp: Stamp,
        prefix: Option<&IdPrefix>,
        symbol: &Symbol,
        target: &Target,
    ) -> Option<ClientId> {
        let cancelled = match target {
            Target::Order(id) => Cancelled::Order(*id),
            Target::Client(id) => Cancelled::Client(id),
            Target::All => return None,
        };
        let context = self.context(stamp, prefix.map_or("", IdPrefix::as_str));
        let mac = cancelled.mac(&self.issuing, context, symbol);
        Some(ClientId::new(&layout::write(prefix, self.issuing.id, stamp, &mac)))
    }

    /// The order's own id against what the report shows, and the request's id as a cancel of that order.
    pub fn check_report(&self, report: &ExecutionReport) -> Tags {
        let own = &report.client_order_id;
        let request = report.request_client_order_id.as_ref().filter(|request| *request != own);
        Tags {
            order: self.check_order(own, Order::from(report)),
            request: request.map_or(TagCheck::Absent, |request| {
                self.check(request, |key, context| {
                    [Cancelled::Client(own), Cancelled::Order(report.order_id)]
                        .map(|cancelled| cancelled.mac(key, context, &report.symbol))
                })
            }),
        }
    }

    fn check_snapshot(&self, order: &OrderSnapshot) -> TagCheck {
        self.check_order(&order.client_order_id, Order::from(order))
    }

    /// The kernel holds no key, so the ids of orders that a read shows are checked on its way there.
    pub fn check_read(&self, outcome: &mut ReadOutcome) {
        match outcome {
            ReadOutcome::Order(order) => order.tag = self.check_snapshot(order),
            ReadOutcome::OpenOrders(orders) => self.check_snapshots(orders),
            ReadOutcome::Balances(_) | ReadOutcome::NotFound | ReadOutcome::Unknown { .. } => {}
        }
    }

    pub fn check_snapshots(&self, orders: &mut [OrderSnapshot]) {
        for order in orders {
            order.tag = self.check_snapshot(order);
        }
    }

    /// A report shows a self-trade prevention mode whether or not the bot set it, so both forms are tried.
    fn check_order(&self, id: &ClientId, order: Order<'_>) -> TagCheck {
        let unset = Order { stp_mode: None, ..order };
        self.check(id, |key, context| [unset, order].map(|form| form.mac(key, context)))
    }

    fn check(&self, id: &ClientId, macs: impl FnOnce(&TagKey, Context<'_>) -> [[u8; 32]; 2]) -> TagCheck {
        let Some(parsed) = Parsed::read(id.as_str(), &self.prefixes) else {
            return TagCheck::Absent;
        };
        let Some(key) = self.key(parsed.key.number()) else {
            return TagCheck::Absent;
        };
        let macs = macs(key, self.context(parsed.stamp, parsed.prefix));
        let [first, second] = macs.map(|mac| parsed.tag.ct_eq(&mac[..parsed.tag.len()]));
        if bool::from(first | second) {
            TagCheck::Valid { issuer: key.issuer, at: parsed.stamp.at() }
        } else {
            TagCheck::Forged
        }
    }

    fn key(&self, id: u8) -> Option<&TagKey> {
        if self.issuing.id.number() == id { Some(&self.issuing) } else { self.verifying.get(&id) }
    }

    fn context<'a>(&'a self, stamp: Stamp, prefix: &'a str) -> Context<'a> {
        Context { account: &self.account, market: &self.market, prefix, stamp }
    }
}

#[cfg(test)]
mod tests;
