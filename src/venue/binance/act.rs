//! What is asked of the venue to end a theft, as values, and what its answers prove. What makes keys useless is asked
//! with a key of the master; what cancels, with a trading key of the account; and a probe with the suspect key alone.
//!
//! Invariants: an answer that is not wholly understood is unknown, and a list of keys is whole or it is none. A call
//! cannot be printed, since it may name a key.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::kernel::act::{ActOutcome, KeyPrint, KeyRights, KeyRow, ProbeAnswer};
use crate::kernel::event::{ReadOutcome, ReadRequest};
use crate::kernel::money::Dec;
use crate::kernel::order::{Asset, ClientId, OrderId, Symbol};
use crate::kernel::time::Time;
use crate::venue::binance::json::{self, Fields, Kept};
use crate::venue::binance::sign::{ApiCredential, percent_encoded, rest_query};
use crate::venue::binance::snapshot;
use crate::venue::budget;

/// The most that a page may hold.
const PAGE_SIZE: usize = 100;
/// The venue allows 30 keys a sub-account; a list that claims more than this is not believed.
pub const KEYS_MAX: usize = 1_000;
/// As many levels as the cheapest answer holds; what lies deeper is not counted on.
const BIDS: usize = 100;
pub const NO_SUCH_ORDER: i64 = -2013;
const TRANSFERS: &str = "/sapi/v1/sub-account/universalTransfer";
pub const CLOCK_REFUSED: i64 = -1021;
const REASON_CHARS_MAX: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Delete,
}

/// With what a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A key of the master, which signs.
    Admin,
    /// A trading key of the account, which signs.
    Cancel,
    /// The key that is asked about, in the header, and nothing that only its owner could add.
    Suspect,
    /// The key that is asked about, which signs.
    Itself,
    Nobody,
}

pub struct Call {
    pub method: Method,
    pub path: &'static str,
    pub params: Vec<(&'static str, String)>,
    /// Of the address's shared weight. What lies under `/sapi` has limits of its own, endpoint by endpoint.
    pub weight: u32,
    pub by: By,
}

impl Call {
    /// `page` counts from 1.
    pub fn list_keys(sub_account: &str, page: usize) -> Self {
        let paging = [("page", page.to_string()), ("size", PAGE_SIZE.to_string())];
        let params = [("email", sub_account.to_owned())].into_iter().chain(paging).collect();
        Self { method: Method::Get, path: "/sapi/v1/sub-account/subAccountApi", params, weight: 0, by: By::Admin }
    }

    pub fn set_rights(sub_account: &str, api_key: &str, rights: KeyRights) -> Self {
        let rights = RIGHTS.iter().map(|(name, right)| (*name, right(&rights).to_string()));
        let params = on(sub_account, api_key).into_iter().chain(rights).collect();
        let path = "/sapi/v1/sub-account/subAccountApiPermission";
        Self { method: Method::Post, path, params, weight: 0, by: By::Admin }
    }

    pub fn delete_key(sub_account: &str, api_key: &str) -> Self {
        let (path, params) = ("/sapi/v1/sub-account/subAccountApi", on(sub_account, api_key).into());
        Self { method: Method::Delete, path, params, weight: 0, by: By::Admin }
    }

    /// Two unlike calls: one that the key alone opens, one that wants a signature and gets none that could be right.
    pub fn probes() -> [Self; 2] {
        let probe = |path, weight| Self { method: Method::Get, path, params: Vec::new(), weight, by: By::Suspect };
        [probe("/sapi/v1/margin/allPairs", 0), probe("/api/v3/account", 20)]
    }

    pub fn open_orders() -> Self {
        Self { method: Method::Get, path: "/api/v3/openOrders", params: Vec::new(), weight: 80, by: By::Cancel }
    }

    pub fn cancel_order(symbol: &Symbol, order_id: OrderId) -> Self {
        let params = vec![("symbol", symbol.to_string()), ("orderId", order_id.to_string())];
        Self { method: Method::Delete, path: "/api/v3/order", params, weight: 1, by: By::Cancel }
    }

    pub fn balances() -> Self {
        let params = vec![("omitZeroBalances", "true".to_owned())];
        Self { method: Method::Get, path: "/api/v3/account", params, weight: 20, by: By::Cancel }
    }

    /// Without `toEmail` it goes to the master; the key needs the right to transfer internally. By the venue's page
    /// (sub_account/asset-management/Universal-Transfer) `clientTranId` may not be repeated.
    pub fn transfer(sub_account: &str, asset: &Asset, amount: Dec, id: &str) -> Self {
        let params = vec![
            ("fromEmail", sub_account.to_owned()),
            ("fromAccountType", "SPOT".to_owned()),
            ("toAccountType", "SPOT".to_owned()),
            ("clientTranId", id.to_owned()),
            ("asset", asset.to_string()),
            ("amount", amount.to_string()),
        ];
        Self { method: Method::Post, path: TRANSFERS, params, weight: 0, by: By::Admin }
    }

    /// By the venue's page (sub_account/asset-management/Query-Universal-Transfer-History) one side only may be named, and
    /// without times the last seven days are looked through.
    pub fn find_transfer(sub_account: &str, id: &str) -> Self {
        let params = vec![("fromEmail", sub_account.to_owned()), ("clientTranId", id.to_owned())];
        Self { method: Method::Get, path: TRANSFERS, params, weight: 0, by: By::Admin }
    }

    /// What a market takes, what it traded at, and what is bid there: for anybody to ask.
    pub fn quote(symbol: &Symbol) -> [Self; 4] {
        let ask = |path, weight, more: &[(&'static str, String)]| {
            let params = [&[("symbol", symbol.to_string())], more].concat();
            Self { method: Method::Get, path, params, weight, by: By::Nobody }
        };
        let levels = [("limit", BIDS.to_string())];
        [
            ask("/api/v3/exchangeInfo", 20, &[]),
            ask("/api/v3/avgPrice", 2, &[]),
            ask("/api/v3/ticker/24hr", 2, &[]),
            ask("/api/v3/depth", 5, &levels),
        ]
    }

    /// It fills at once at the limit or better, and what does not is gone.
    pub fn sell(symbol: &Symbol, quantity: Dec, price: Dec, id: &ClientId) -> Self {
        let params = vec![
            ("symbol", symbol.to_string()),
            ("side", "SELL".to_owned()),
            ("type", "LIMIT".to_owned()),
            ("timeInForce", "IOC".to_owned()),
            ("quantity", quantity.to_string()),
            ("price", price.to_string()),
            ("newClientOrderId", id.to_string()),
            ("newOrderRespType", "RESULT".to_owned()),
        ];
        Self { method: Method::Post, path: "/api/v3/order", params, weight: 1, by: By::Cancel }
    }

    pub fn find_order(symbol: &Symbol, id: &ClientId) -> Self {
        let params = vec![("symbol", symbol.to_string()), ("origClientOrderId", id.to_string())];
        Self { method: Method::Get, path: "/api/v3/order", params, weight: 4, by: By::Cancel }
    }

    /// What the key that signs may do.
    pub fn restrictions() -> Self {
        let path = "/sapi/v1/account/apiRestrictions";
        Self { method: Method::Get, path, params: Vec::new(), weight: 0, by: By::Itself }
    }

    pub fn server_time() -> Self {
        Self { method: Method::Get, path: "/api/v3/time", params: Vec::new(), weight: 1, by: By::Nobody }
    }

    /// What anybody may ask, as it is.
    pub fn open_query(&self) -> String {
        rest_query(&self.params)
    }

    /// The query with its timestamp and signature.
    pub fn signed(&self, credential: &ApiCredential, at: Time) -> String {
        let query = self.timed(at);
        let signature = percent_encoded(&credential.sign(&query));
        format!("{query}&signature={signature}")
    }

    /// The query with a signature that is none.
    pub fn missigned(&self, at: Time) -> String {
        format!("{}&signature={}", self.timed(at), "0".repeat(64))
    }

    /// Whether the venue wants a signature here.
    pub fn is_signed(&self) -> bool {
        self.path != "/sapi/v1/margin/allPairs"
    }

    fn timed(&self, at: Time) -> String {
        let mut params = self.params.clone();
        params.push(("timestamp", at.millis().to_string()));
        rest_query(&params)
    }
}

fn on(sub_account: &str, api_key: &str) -> [(&'static str, String); 2] {
    [("email", sub_account.to_owned()), ("subAccountApiKey", api_key.to_owned())]
}

type Right = fn(&KeyRights) -> bool;

/// The venue's names of what a key may do, in what is asked and in what is answered.
const RIGHTS: [(&str, Right); 5] = [
    ("canTrade", |rights| rights.trade),
    ("canMarginLoanRepay", |rights| rights.margin),
    ("canFuturesTrade", |rights| rights.futures),
    ("canUniversalTransfer", |rights| rights.universal_transfer),
    ("canVanillaOptions", |rights| rights.options),
];

/// An answer that came whole.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: &'a str,
}

/// What a call came to, before its body is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Granted,
    /// Nothing was done, and nothing will be for so long.
    Limited {
        wait: Duration,
        reason: Box<str>,
    },
    Refused {
        code: i64,
        reason: Box<str>,
    },
    Unknown {
        reason: Box<str>,
    },
}

impl Reply<'_> {
    pub fn ending(&self) -> Ending {
        let status = self.status;
        if status == 200 {
            return Ending::Granted;
        }
        if budget::is_refusal(status) {
            let reason = format!("the exchange told this address to wait (status {status})").into();
            return Ending::Limited { wait: budget::pause(status, self.retry_after), reason };
        }
        let error = match snapshot::error(self.body) {
            Ok(error) if (400..500).contains(&status) => error,
            Ok(error) => {
                let reason = format!("the exchange failed (status {status}, code {}): {}", error.code, error.message);
                return Ending::Unknown { reason: line(&reason) };
            }
            Err(_) => return Ending::Unknown { reason: format!("the exchange failed with status {status}").into() },
        };
        let reason = line(&error.message);
        if is_vague(error.code) {
            let reason = format!("the exchange does not know what became of it (code {}): {reason}", error.code).into();
            return Ending::Unknown { reason };
        }
        Ending::Refused { code: error.code, reason }
    }

    /// A code that a living key cannot get from an address it may call from, or one that only a living key gets.
    pub fn probe(&self) -> ProbeAnswer {
        match self.ending() {
            // Whatever stands between us and the venue could answer 200 as well, though hardly in JSON.
            Ending::Granted if json::parse(self.body).is_ok() => ProbeAnswer::Alive { code: 0 },
            Ending::Granted => ProbeAnswer::Unclear { reason: "the answer cannot be read".into() },
            Ending::Refused { code: code @ -1022, .. } => ProbeAnswer::Alive { code },
            Ending::Refused { code: code @ (-2015 | -2008), .. } => ProbeAnswer::Dead { code },
            Ending::Refused { code, reason } => {
                ProbeAnswer::Unclear { reason: format!("code {code}: {reason}").into() }
            }
            Ending::Limited { reason, .. } | Ending::Unknown { reason } => ProbeAnswer::Unclear { reason },
        }
    }
}

/// -1000, -1001, -1006, -1007: the venue itself says that it cannot tell.
const fn is_vague(code: i64) -> bool {
    matches!(code, -1000 | -1001 | -1006 | -1007)
}

/// The venue's words on one short line.
fn line(text: &str) -> Box<str> {
    text.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect::<String>().into()
}

/// A key as a page of the list shows it, and as only the outlet may know it.
#[derive(Debug)]
pub struct ShownKey {
    pub api_key: SecretString,
    pub row: KeyRow,
}

/// The pages of a list on their way to a whole one.
#[derive(Default)]
pub struct KeyList {
    total: Option<usize>,
    pages: usize,
    keys: Vec<ShownKey>,
}

impl KeyList {
    /// The page that is missing; nothing, once every key is there.
    pub fn wants(&self) -> Option<usize> {
        (self.total != Some(self.keys.len())).then_some(self.pages + 1)
    }

    pub fn take(&mut self, body: &str) -> Result<(), Kept> {
        let answer = json::parse(body)?;
        let answer = answer.object("the answer")?;
        let total = usize::try_from(answer.int("total")?).unwrap_or(usize::MAX);
        if total > KEYS_MAX {
            return Err(Kept::new(format_args!("the list claims more than {KEYS_MAX} keys")));
        }
        if self.total.is_some_and(|before| before != total) {
            return Err(Kept::new("the list changed while its pages were read"));
        }
        // `list` until 2026-07-30, `rows` since.
        let rows = if answer.find("rows").is_some() { answer.list("rows")? } else { answer.list("list")? };
        for row in rows {
            let key = shown_key(row.object("a key")?)?;
            if self.keys.iter().any(|other| other.row.key == key.row.key) {
                return Err(Kept::new("the list shows a key twice"));
            }
            self.keys.push(key);
        }
        (self.total, self.pages) = (Some(total), self.pages + 1);
        if self.keys.len() > total || rows.is_empty() && self.keys.len() < total {
            return Err(Kept::new(format_args!("the list claims {total} keys and shows {}", self.keys.len())));
        }
        Ok(())
    }

    pub fn into_keys(self) -> Vec<ShownKey> {
        self.keys
    }
}

fn shown_key(row: &Fields<'_>) -> Result<ShownKey, Kept> {
    let api_key = if row.find("apikey").is_some() { row.text("apikey")? } else { row.text("apiKey")? };
    if api_key.is_empty() || !api_key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Kept::new("the list does not show a key whole"));
    }
    let rights = KeyRights {
        trade: row.boolean("canTrade")?,
        margin: row.boolean("canMarginLoanRepay")?,
        futures: row.boolean("canFuturesTrade")?,
        universal_transfer: row.boolean("canUniversalTransfer")?,
        options: row.boolean("canVanillaOptions")?,
    };
    let name = row.text_if_any("apiName")?.unwrap_or_default().into();
    let row = KeyRow { key: KeyPrint::of(api_key), name, created_at: row.time("timestamp")?, rights };
    Ok(ShownKey { api_key: api_key.into(), row })
}

/// The body of a granted change of rights. It may show what the key may do now: that must be what was asked for.
pub fn rights_set(body: &str, api_key: &SecretString, rights: KeyRights) -> Result<ActOutcome, Kept> {
    let answer = json::parse(body)?;
    let answer = answer.object("the answer")?;
    for name in ["apikey", "apiKey"] {
        if answer.text_if_any(name)?.is_some_and(|shown| shown != api_key.expose_secret()) {
            return Err(Kept::new("the answer is about another key"));
        }
    }
    for (name, right) in RIGHTS {
        if answer.find(name).is_some() && answer.boolean(name)? != right(&rights) {
            return Err(Kept::new(format_args!("the answer shows {name} as it was not asked for")));
        }
    }
    Ok(ActOutcome::Done { proof: "".into() })
}

/// The body of a granted deletion, which is an empty object.
pub fn deleted(body: &str) -> Result<ActOutcome, Kept> {
    json::parse(body)?.object("the answer")?;
    Ok(ActOutcome::Done { proof: "".into() })
}

pub fn open_orders(body: &str) -> Result<ActOutcome, Kept> {
    match snapshot::outcome(&ReadRequest::OpenOrders, body)? {
        ReadOutcome::OpenOrders(orders) => Ok(ActOutcome::Orders(orders)),
        ReadOutcome::Balances(_) | ReadOutcome::Order(_) | ReadOutcome::NotFound | ReadOutcome::Unknown { .. } => {
            Err(Kept::new("the answer is of another kind"))
        }
    }
}

pub fn balances(body: &str) -> Result<ActOutcome, Kept> {
    match snapshot::outcome(&ReadRequest::Balances, body)? {
        ReadOutcome::Balances(balances) => Ok(ActOutcome::Balances(balances)),
        ReadOutcome::OpenOrders(_) | ReadOutcome::Order(_) | ReadOutcome::NotFound | ReadOutcome::Unknown { .. } => {
            Err(Kept::new("the answer is of another kind"))
        }
    }
}

/// The body of a granted transfer: the venue's number of it.
pub fn transferred(body: &str, id: &str) -> Result<ActOutcome, Kept> {
    let answer = json::parse(body)?;
    let answer = answer.object("the answer")?;
    if answer.text_if_any("clientTranId")?.is_some_and(|shown| shown != id) {
        return Err(Kept::new("the answer is about another transfer"));
    }
    Ok(ActOutcome::Done { proof: format!("number {}", answer.int("tranId")?).into() })
}

/// The body of a granted look for one transfer. Of the words of its state the venue's page shows SUCCESS alone.
pub fn found_transfer(body: &str, id: &str) -> Result<ActOutcome, Kept> {
    let answer = json::parse(body)?;
    let rows = answer.object("the answer")?.list("result")?;
    let [row] = rows else {
        let why = format_args!("{} transfers are shown where one was asked for", rows.len());
        return if rows.is_empty() { Ok(ActOutcome::NotFound) } else { Err(Kept::new(why)) };
    };
    let row = row.object("a transfer")?;
    if row.text("clientTranId")? != id {
        return Err(Kept::new("another transfer is shown than the one that was asked for"));
    }
    match row.text("status")? {
        "SUCCESS" => Ok(ActOutcome::Done { proof: "SUCCESS".into() }),
        other => Err(Kept::new(format_args!("the transfer is shown as {other:.40}"))),
    }
}

/// The body of a granted cancel: the order, as it ended.
pub fn cancelled(body: &str, order_id: OrderId) -> Result<ActOutcome, Kept> {
    let answer = json::parse(body)?;
    let answer = answer.object("the answer")?;
    let status = answer.text("status")?;
    if answer.int("orderId")? != order_id.0 || status != "CANCELED" {
        return Err(Kept::new(format_args!("the answer shows order {} as {status}", answer.int("orderId")?)));
    }
    Ok(ActOutcome::Done { proof: "CANCELED".into() })
}

#[cfg(test)]
mod tests;
