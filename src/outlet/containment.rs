//! Does one act of a containment at a time of somebody else's choosing, and says what became of it. Its client, its
//! connections and its names are apart from those that watch: what fails there must not fail here.
//!
//! Invariants: it chooses nothing and repeats nothing, but for a time that the venue refused, since nothing was done then.
//! What is not clear is `Unknown`. No reason holds a URL or a key. What one kind of act was told to wait holds that
//! kind alone, and what makes keys useless never waits for orders.

mod call;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::kernel::act::{Act, ActOutcome, KeyPrint, KeyRights, ProbeAnswer};
use crate::kernel::credential::{CredentialOutcome, CredentialRole};
use crate::kernel::money::Dec;
use crate::kernel::order::{Asset, Symbol};
use crate::kernel::time::Time;
use crate::outlet::addresses::LastGood;
use crate::outlet::bot::StopHook;
use crate::outlet::containment::call::{Kind, State, With, body, read_probe};
use crate::tls::{TlsError, http_client_builder};
use crate::venue::binance::act::{self, Call, Ending, KEYS_MAX, KeyList, ShownKey};
use crate::venue::binance::restrictions::{self, Restrictions};
use crate::venue::binance::{ApiCredential, Kept, quote};

/// From the first byte sent to the last one read, of one call.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// Well inside the minute after which servers close idle connections.
const WARM_EVERY: Duration = Duration::from_secs(45);
const CONNECTIONS_WARM: usize = 2;
const IDLE_WITHIN: Duration = Duration::from_secs(120);
/// Acts under way at once; more wait for their turn, and keys never for orders.
const KEY_ACTS: usize = 24;
const ORDER_ACTS: usize = 8;
const MONEY_ACTS: usize = 4;

/// What its owner gave it. Whatever is missing, the acts that need it are refused.
#[derive(Default)]
pub struct Parts {
    /// The e-mail of the bot's sub-account.
    pub sub_account: Option<Box<str>>,
    pub admin: Option<ApiCredential>,
    pub cancel: Option<ApiCredential>,
    /// The declared keys, without their secrets.
    pub keys: Vec<SecretString>,
    pub hooks: BTreeMap<Box<str>, StopHook>,
    /// The admin key is to move money as well.
    pub transfer_to_master: bool,
}

pub struct ContainmentOutlet {
    rest_url: String,
    http: reqwest::Client,
    sub_account: Option<Box<str>>,
    admin: Option<ApiCredential>,
    cancel: Option<ApiCredential>,
    declared: BTreeMap<KeyPrint, SecretString>,
    hooks: BTreeMap<Box<str>, StopHook>,
    key_acts: Semaphore,
    order_acts: Semaphore,
    money_acts: Semaphore,
    transfer_to_master: bool,
    state: Mutex<State>,
}

/// The client for an outlet of this kind: no proxy, no redirect, connections that stay open, names by their last answer.
pub fn client(tls: &ClientConfig, names: LastGood) -> Result<reqwest::Client, TlsError> {
    let client = http_client_builder(tls, ANSWER_WITHIN)
        .dns_resolver(std::sync::Arc::new(names))
        .retry(reqwest::retry::never())
        .pool_idle_timeout(IDLE_WITHIN)
        .pool_max_idle_per_host(KEY_ACTS)
        .tcp_keepalive(Duration::from_secs(20))
        .build()?;
    Ok(client)
}

impl ContainmentOutlet {
    #[must_use]
    pub fn new(rest_url: &str, http: reqwest::Client, parts: Parts) -> Self {
        let declared = parts.keys.into_iter().map(|key| (KeyPrint::of(key.expose_secret()), key)).collect();
        Self {
            rest_url: rest_url.trim_end_matches('/').to_owned(),
            http,
            sub_account: parts.sub_account,
            admin: parts.admin,
            cancel: parts.cancel,
            declared,
            hooks: parts.hooks,
            key_acts: Semaphore::new(KEY_ACTS),
            order_acts: Semaphore::new(ORDER_ACTS),
            money_acts: Semaphore::new(MONEY_ACTS),
            transfer_to_master: parts.transfer_to_master,
            state: Mutex::default(),
        }
    }

    pub async fn act(&self, act: &Act, clock: &(impl Fn() -> Time + Sync)) -> ActOutcome {
        let turn = match act {
            Act::ListKeys | Act::SetRights { .. } | Act::DeleteKey { .. } | Act::Probe { .. } => Some(&self.key_acts),
            Act::OpenOrders | Act::CancelOrder { .. } => Some(&self.order_acts),
            Act::Balances
            | Act::Transfer { .. }
            | Act::FindTransfer { .. }
            | Act::Quote { .. }
            | Act::Sell { .. }
            | Act::FindOrder { .. } => Some(&self.money_acts),
            Act::StopBot { .. } => None,
        };
        let _turn = match turn {
            Some(turn) => turn.acquire().await.ok(),
            None => None,
        };
        let outcome = match act {
            Act::ListKeys => {
                self.list(clock).await.map(|keys| keys.into_iter().map(|key| key.row).collect()).map(ActOutcome::Keys)
            }
            Act::SetRights { key, rights } => self.set_rights(key, *rights, clock).await,
            Act::DeleteKey { key } => self.delete(key, clock).await,
            Act::Probe { key } => self.probe(key, clock).await,
            Act::OpenOrders => {
                let body = self.granted(Kind::Orders, &Call::open_orders(), clock).await;
                body.and_then(|body| act::open_orders(&body).map_err(unreadable))
            }
            Act::CancelOrder { symbol, order_id } => {
                let body = self.granted(Kind::Orders, &Call::cancel_order(symbol, *order_id), clock).await;
                body.and_then(|body| act::cancelled(&body, *order_id).map_err(unreadable))
            }
            Act::Balances => {
                let body = self.granted(Kind::Money, &Call::balances(), clock).await;
                body.and_then(|body| act::balances(&body).map_err(unreadable))
            }
            Act::Transfer { asset, amount, id } => self.transfer(asset, *amount, id, clock).await,
            Act::FindTransfer { id } => self.find_transfer(id, clock).await,
            Act::Quote { symbol } => self.quote(symbol, clock).await,
            Act::Sell { symbol, quantity, price, id } => {
                let body = self.granted(Kind::Money, &Call::sell(symbol, *quantity, *price, id), clock).await;
                body.and_then(|body| quote::sold(&body, id).map_err(unreadable))
            }
            Act::FindOrder { symbol, id } => {
                match self.granted(Kind::Money, &Call::find_order(symbol, id), clock).await {
                    Err(ActOutcome::Refused { code: act::NO_SUCH_ORDER, .. }) => Ok(ActOutcome::NotFound),
                    body => body.and_then(|body| quote::sold(&body, id).map_err(unreadable)),
                }
            }
            Act::StopBot { hook } => match self.hooks.get(hook) {
                Some(stop) => Ok(stop.stop(hook, &self.http, clock()).await),
                None => Err(not_sent(&format!("no way to stop the bot is called {hook:?}"))),
            },
        };
        outcome.unwrap_or_else(|not_done| not_done)
    }

    /// Keeps connections open, addresses fresh and the venue's clock known until `end`. Somebody must run it beside.
    pub async fn stay_warm(&self, clock: &(impl Fn() -> Time + Sync), end: &CancellationToken) {
        loop {
            if let Err(reason) = self.warm(clock).await {
                tracing::warn!("the connection for emergencies cannot be kept open: {reason}");
            }
            tokio::select! {
                biased;
                () = end.cancelled() => return,
                () = tokio::time::sleep(WARM_EVERY) => {}
            }
        }
    }

    /// One cheap call on each of the connections that stay open.
    pub async fn warm(&self, clock: &(impl Fn() -> Time + Sync)) -> Result<(), String> {
        let calls = (0..CONNECTIONS_WARM).map(|_| self.ask_server_time(clock));
        futures_util::future::join_all(calls).await.into_iter().collect()
    }

    /// What a key may do, as the venue tells the key itself.
    pub async fn restrictions(
        &self,
        credential: &ApiCredential,
        clock: &(impl Fn() -> Time + Sync),
    ) -> Result<Restrictions, ActOutcome> {
        let call = Call::restrictions();
        let answer = self.ask(Kind::Upkeep, &call, With::Signed(credential), clock).await?;
        restrictions::restrictions(&body(answer)?).map_err(unreadable)
    }

    /// Whether one of our own keys may be used, by the venue's word. A wrong one is used no more until it is found fine;
    /// where nothing could be learnt, it stays as it was.
    pub async fn check(
        &self,
        role: CredentialRole,
        credential: &ApiCredential,
        clock: &(impl Fn() -> Time + Sync),
    ) -> CredentialOutcome {
        let checked = match self.restrictions(credential, clock).await {
            // It moves no money without that right, and freezes and deletes all the same.
            Ok(told) => restrictions::check(role, &told).map(|()| {
                let moves = role == CredentialRole::Admin && self.transfer_to_master;
                restrictions::check_transfer(&told).filter(|_| moves)
            }),
            Err(ActOutcome::Refused { code: restrictions::NO_SUCH_KEY, .. }) => Err(restrictions::gone(role)),
            Err(ActOutcome::Refused { code: restrictions::SECRET_WRONG, .. }) => Err(restrictions::secret_wrong(role)),
            Err(why) => return CredentialOutcome::Unknown { reason: words(&why).into() },
        };
        match checked {
            Ok(no_transfer) => {
                self.state().refused.remove(&role);
                no_transfer.map_or(CredentialOutcome::Fine, |fault| CredentialOutcome::Wrong { faults: vec![fault] })
            }
            Err(faults) => {
                let told: Vec<String> =
                    faults.iter().map(|wrong| format!("{} ({})", wrong.fault, wrong.step)).collect();
                self.state().refused.insert(role, format!("not used: {}", told.join("; ")).into());
                CredentialOutcome::Wrong { faults }
            }
        }
    }

    #[must_use]
    pub const fn admin(&self) -> Option<&ApiCredential> {
        self.admin.as_ref()
    }

    #[must_use]
    pub const fn cancel(&self) -> Option<&ApiCredential> {
        self.cancel.as_ref()
    }

    async fn list(&self, clock: &(impl Fn() -> Time + Sync)) -> Result<Vec<ShownKey>, ActOutcome> {
        let sub_account = self.sub_account()?;
        let mut list = KeyList::default();
        while let Some(page) = list.wants() {
            let body = self.granted(Kind::List, &Call::list_keys(sub_account, page), clock).await?;
            list.take(&body).map_err(unreadable)?;
        }
        let keys = list.into_keys();
        self.remember(&keys);
        Ok(keys)
    }

    /// At the limit those that this list does not show give way.
    fn remember(&self, keys: &[ShownKey]) {
        let shown = &mut self.state().shown;
        if shown.len() + keys.len() > 2 * KEYS_MAX {
            shown.retain(|print, _| keys.iter().any(|key| key.row.key == *print));
        }
        for key in keys.iter().filter(|key| !self.declared.contains_key(&key.row.key)) {
            shown.insert(key.row.key.clone(), key.api_key.clone());
        }
    }

    async fn set_rights(
        &self,
        print: &KeyPrint,
        rights: KeyRights,
        clock: &(impl Fn() -> Time + Sync),
    ) -> Result<ActOutcome, ActOutcome> {
        let (sub_account, key) = (self.sub_account()?, self.key(print, clock).await?);
        let call = Call::set_rights(sub_account, key.expose_secret(), rights);
        let body = self.granted(Kind::Rights, &call, clock).await?;
        act::rights_set(&body, &key, rights).map_err(unreadable)
    }

    async fn delete(&self, print: &KeyPrint, clock: &(impl Fn() -> Time + Sync)) -> Result<ActOutcome, ActOutcome> {
        let (sub_account, key) = (self.sub_account()?, self.key(print, clock).await?);
        let body = self.granted(Kind::Delete, &Call::delete_key(sub_account, key.expose_secret()), clock).await?;
        act::deleted(&body).map_err(unreadable)
    }

    async fn probe(&self, print: &KeyPrint, clock: &(impl Fn() -> Time + Sync)) -> Result<ActOutcome, ActOutcome> {
        let key = self.key(print, clock).await?;
        let [keyed, missigned] = Call::probes();
        let with = With::Unsigned(&key);
        let (keyed, missigned) =
            tokio::join!(self.ask(Kind::Probe, &keyed, with, clock), self.ask(Kind::Probe, &missigned, with, clock));
        let answers = [read_probe(&keyed), read_probe(&missigned)];
        // A living answer is worth telling whatever became of the other; anything less is asked again as a whole.
        if answers.iter().any(|answer| matches!(answer, ProbeAnswer::Alive { .. })) {
            return Ok(ActOutcome::Probed(answers));
        }
        for answer in [keyed, missigned] {
            match answer {
                Err(held @ ActOutcome::Held { .. }) => return Err(held),
                Ok(answer) => {
                    if let Ending::Limited { wait, reason } = answer.reply().ending() {
                        return Err(ActOutcome::Held { until: clock() + wait, reason });
                    }
                }
                Err(_) => {}
            }
        }
        Ok(ActOutcome::Probed(answers))
    }

    async fn transfer(
        &self,
        asset: &Asset,
        amount: Dec,
        id: &str,
        clock: &(impl Fn() -> Time + Sync),
    ) -> Result<ActOutcome, ActOutcome> {
        let call = Call::transfer(self.sub_account()?, asset, amount, id);
        let body = self.granted(Kind::Money, &call, clock).await?;
        act::transferred(&body, id).map_err(unreadable)
    }

    async fn find_transfer(&self, id: &str, clock: &(impl Fn() -> Time + Sync)) -> Result<ActOutcome, ActOutcome> {
        let body = self.granted(Kind::Money, &Call::find_transfer(self.sub_account()?, id), clock).await?;
        act::found_transfer(&body, id).map_err(unreadable)
    }

    async fn quote(&self, symbol: &Symbol, clock: &(impl Fn() -> Time + Sync)) -> Result<ActOutcome, ActOutcome> {
        let calls = Call::quote(symbol);
        let [info, average, day, depth] =
            calls.each_ref().map(|call| self.ask(Kind::Prices, call, With::Nothing, clock));
        let (info, average, day, depth) = tokio::join!(info, average, day, depth);
        let info = body(info?).map_err(|outcome| quote::named(symbol, outcome))?;
        let (average, day, depth) = (body(average?)?, body(day?)?, body(depth?)?);
        quote::quote(symbol, &info, [&average, &day], &depth).map_err(unreadable)
    }

    fn sub_account(&self) -> Result<&str, ActOutcome> {
        self.sub_account.as_deref().ok_or_else(|| {
            not_sent("no sub-account is configured, and no API changes a key of one's own account; a person must")
        })
    }

    /// The key of that print; a list is read where it is not known.
    async fn key(&self, print: &KeyPrint, clock: &(impl Fn() -> Time + Sync)) -> Result<SecretString, ActOutcome> {
        if let Some(key) = self.known_key(print) {
            return Ok(key);
        }
        let unknown = |why: &str| not_sent(&format!("key {print} is not declared, and {why}"));
        if self.sub_account.is_none() {
            return Err(unknown("without a sub-account there is no list to find it in"));
        }
        match self.list(clock).await {
            Ok(_) => self.known_key(print).ok_or_else(|| unknown("the exchange's list does not show it")),
            Err(held @ ActOutcome::Held { .. }) => Err(held),
            Err(other) => Err(unknown(&format!("the exchange's list could not be read: {}", words(&other)))),
        }
    }

    fn known_key(&self, print: &KeyPrint) -> Option<SecretString> {
        self.declared.get(print).cloned().or_else(|| self.state().shown.get(print).cloned())
    }
}

/// Refused by ourselves: nothing left this machine.
fn not_sent(reason: &str) -> ActOutcome {
    ActOutcome::Refused { code: 0, reason: reason.into() }
}

fn unknown(reason: &str) -> ActOutcome {
    ActOutcome::Unknown { reason: format!("no usable answer from the exchange: {reason}").into() }
}

fn unreadable(kept: Kept) -> ActOutcome {
    ActOutcome::Unknown { reason: format!("the answer cannot be read: {kept}").into() }
}

fn words(outcome: &ActOutcome) -> String {
    match outcome {
        ActOutcome::Refused { code, reason } if *code != 0 => format!("refused with code {code}: {reason}"),
        ActOutcome::Held { until, reason } => format!("held back until {until} UTC: {reason}"),
        ActOutcome::Refused { .. }
        | ActOutcome::Unknown { .. }
        | ActOutcome::Keys(_)
        | ActOutcome::Probed(_)
        | ActOutcome::Orders(_)
        | ActOutcome::Balances(_)
        | ActOutcome::NotFound
        | ActOutcome::Quote(_)
        | ActOutcome::Sold { .. }
        | ActOutcome::Done { .. } => outcome.reason().to_owned(),
    }
}
