//! Money between a master and its sub-accounts, and the history of it; spot is the only wallet here. As the documents
//! have it (sub_account/asset-management: Universal-Transfer, Query-Universal-Transfer-History).

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kernel::time::Time;
use crate::sim::amount::Amount;
use crate::sim::exchange::Exchange;
use crate::sim::market::asset;
use crate::sim::order::{Actor, Uid};
use crate::sim::params::Params;
use crate::sim::refusal::Refusal;

/// At the limit the oldest is forgotten.
const TRANSFERS_MAX: usize = 10_000;
const HISTORY_SPAN: Duration = Duration::from_secs(7 * 86_400);
const PAGE_SIZE_MAX: i64 = 500;

/// The transfers that were done, oldest first.
#[derive(Debug, Default)]
pub struct Transfers(VecDeque<Transfer>);

#[derive(Debug)]
struct Transfer {
    number: i64,
    at: Time,
    from: Uid,
    to: Uid,
    asset: &'static str,
    amount: Amount,
    client_id: Option<Box<str>>,
}

impl Exchange {
    pub(super) fn universal_transfer(&mut self, now: Time, by: &Actor, params: &Params) -> Result<Value, Refusal> {
        if ["fromAccountType", "toAccountType"].iter().any(|side| params.text(side).is_some_and(|kind| kind != "SPOT"))
        {
            return Err(Refusal::unsupported());
        }
        let side = |email: &str, wallet: &str| {
            params.need(wallet)?;
            self.own_account(by, params.text(email))
        };
        let (from, to) = (side("fromEmail", "fromAccountType")?, side("toEmail", "toAccountType")?);
        let amount = params.need_amount("amount")?;
        let asset = asset(params.need("asset")?).ok_or_else(|| Refusal::missing("asset"))?;
        if from == to || !amount.is_positive() {
            return Err(Refusal::unsupported());
        }
        let client_id = params.text("clientTranId");
        let transfers = &self.transfers.0;
        if client_id.is_some() && transfers.iter().any(|one| one.client_id.as_deref() == client_id) {
            // That it must be unique is documented; the refusal's number is not.
            return Err(Refusal::bad(-9000, "clientTranId was used before."));
        }
        let number = self.engine.transfer(now, by, (from, to), asset, amount)?;
        if self.transfers.0.len() == TRANSFERS_MAX {
            self.transfers.0.pop_front();
        }
        let client_id = client_id.map(Into::into);
        self.transfers.0.push_back(Transfer { number, at: now, from, to, asset, amount, client_id });
        Ok(json!({ "tranId": number, "clientTranId": params.text("clientTranId") }))
    }

    /// One side may be named; without one, what left the master.
    pub(super) fn transfer_history(&self, now: Time, by: &Actor, params: &Params) -> Result<Value, Refusal> {
        let (from, to) = (params.text("fromEmail"), params.text("toEmail"));
        if from.is_some() && to.is_some() {
            return Err(Refusal::unsupported());
        }
        let of = self.own_account(by, from.or(to))?;
        let end = params.number("endTime")?.map_or(now, Time::from_millis);
        let begin = params.number("startTime")?.map(Time::from_millis);
        if begin.is_some_and(|begin| end.since(begin) > HISTORY_SPAN) {
            return Err(Refusal::unsupported());
        }
        let (page, size) = (params.number("page")?.unwrap_or(1), params.number("limit")?.unwrap_or(PAGE_SIZE_MAX));
        if page < 1 || !(1..=PAGE_SIZE_MAX).contains(&size) {
            return Err(Refusal::missing(if page < 1 { "page" } else { "limit" }));
        }
        let client_id = params.text("clientTranId");
        let meant = |one: &&Transfer| {
            let side = if to.is_some() { one.to } else { one.from };
            let within = one.at <= end && begin.map_or(end.since(one.at) <= HISTORY_SPAN, |begin| begin <= one.at);
            side == of && within && client_id.is_none_or(|id| one.client_id.as_deref() == Some(id))
        };
        let rows: Vec<&Transfer> = self.transfers.0.iter().rev().filter(meant).collect();
        let number = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
        let shown = rows.iter().skip(number(size).saturating_mul(number(page - 1))).take(number(size));
        let shown: Vec<Value> = shown
            .map(|one| {
                json!({
                    "tranId": one.number,
                    "fromEmail": self.keys.email(one.from),
                    "toEmail": self.keys.email(one.to),
                    "asset": one.asset,
                    "amount": one.amount,
                    "createTimeStamp": one.at.millis(),
                    "fromAccountType": "SPOT",
                    "toAccountType": "SPOT",
                    "status": "SUCCESS",
                    "clientTranId": one.client_id,
                })
            })
            .collect();
        Ok(json!({ "result": shown, "totalCount": rows.len() }))
    }

    /// Left out: the master itself.
    fn own_account(&self, by: &Actor, email: Option<&str>) -> Result<Uid, Refusal> {
        let is_master = self.keys.is_master(by.uid);
        let own = email.is_none() || email == self.keys.email(by.uid);
        let found = if own { Some(by.uid) } else { self.keys.sub_account(by.uid, email.unwrap_or_default()) };
        found.filter(|_| is_master).ok_or_else(Refusal::unsupported)
    }
}
