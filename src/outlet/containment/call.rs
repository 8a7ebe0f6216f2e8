//! One call of a containment: paid for from its share, signed with the exchange's time, held where the exchange said so.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::kernel::act::{ActOutcome, KeyPrint, ProbeAnswer};
use crate::kernel::credential::CredentialRole;
use crate::kernel::time::Time;
use crate::outlet::containment::{ContainmentOutlet, not_sent, unknown, words};
use crate::outlet::exchange::{body_of, causes};
use crate::venue::binance::act::{By, CLOCK_REFUSED, Call, Ending, Method, Reply};
use crate::venue::binance::{ApiCredential, snapshot};
use crate::venue::budget::{Budget, Share};
use crate::venue::server_time::ServerTime;

/// The venue's clock is worth no longer wait: ours is tried then.
const TIME_WITHIN: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct State {
    pub(super) server_time: ServerTime,
    pub(super) weight: Budget,
    pub(super) holds: BTreeMap<Kind, Time>,
    /// Keys that a list showed. They stay when the list does not show them any more: then they are to be probed.
    pub(super) shown: BTreeMap<KeyPrint, SecretString>,
    /// Our own keys that may not be used as they are, each with the reason and the steps.
    pub(super) refused: BTreeMap<CredentialRole, Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    List,
    Rights,
    Delete,
    Probe,
    Orders,
    Money,
    /// The markets' prices, before a sale.
    Prices,
    Upkeep,
}

/// With what a call is sent.
#[derive(Clone, Copy)]
pub(super) enum With<'a> {
    Signed(&'a ApiCredential),
    /// The key, and a signature that is none where the venue wants one.
    Unsigned(&'a SecretString),
    Nothing,
}

pub(super) struct Answer {
    status: u16,
    retry_after: Option<Duration>,
    body: String,
}

impl Answer {
    pub(super) fn reply(&self) -> Reply<'_> {
        Reply { status: self.status, retry_after: self.retry_after, body: &self.body }
    }
}

impl ContainmentOutlet {
    /// The body of a call that was granted, or what became of it otherwise.
    pub(super) async fn granted(
        &self,
        kind: Kind,
        call: &Call,
        clock: &(impl Fn() -> Time + Sync),
    ) -> Result<String, ActOutcome> {
        let (credential, role) = match call.by {
            By::Admin => (self.admin.as_ref(), Some(CredentialRole::Admin)),
            By::Cancel => (self.cancel.as_ref(), Some(CredentialRole::Cancel)),
            By::Suspect | By::Itself | By::Nobody => (None, None),
        };
        if let Some(reason) = role.and_then(|role| self.state().refused.get(&role).cloned()) {
            return Err(not_sent(&reason));
        }
        let credential = credential.ok_or_else(|| match kind {
            Kind::Orders | Kind::Money if call.by == By::Cancel => {
                not_sent("no key to cancel with is configured ([containment] cancel_key, cancel_secret)")
            }
            Kind::List
            | Kind::Rights
            | Kind::Delete
            | Kind::Probe
            | Kind::Orders
            | Kind::Money
            | Kind::Prices
            | Kind::Upkeep => not_sent("no key of the master is configured ([containment] admin_key, admin_secret)"),
        })?;
        let answer = self.ask(kind, call, With::Signed(credential), clock).await?;
        match answer.reply().ending() {
            Ending::Limited { wait, reason } => Err(ActOutcome::Held { until: clock() + wait, reason }),
            Ending::Granted | Ending::Refused { .. } | Ending::Unknown { .. } => body(answer),
        }
    }

    /// At most two attempts: the venue refuses a time before it does anything.
    pub(super) async fn ask(
        &self,
        kind: Kind,
        call: &Call,
        with: With<'_>,
        clock: &(impl Fn() -> Time + Sync),
    ) -> Result<Answer, ActOutcome> {
        let answer = self.send(kind, call, with, clock).await?;
        match answer.reply().ending() {
            Ending::Refused { code: CLOCK_REFUSED, .. } => {
                self.state().server_time.forget();
                self.send(kind, call, with, clock).await
            }
            Ending::Granted | Ending::Refused { .. } | Ending::Limited { .. } | Ending::Unknown { .. } => Ok(answer),
        }
    }

    pub(super) async fn send(
        &self,
        kind: Kind,
        call: &Call,
        with: With<'_>,
        clock: &(impl Fn() -> Time + Sync),
    ) -> Result<Answer, ActOutcome> {
        if call.is_signed() && !matches!(with, With::Nothing) && !self.state().server_time.is_known() {
            // Ours may be good enough: the venue tells if it is not.
            if let Err(reason) = self.ask_server_time(clock).await {
                tracing::debug!("the exchange's clock is not known: {reason}");
            }
        }
        self.pay(kind, call, clock())?;
        let at = self.state().server_time.at(clock());
        let (query, key) = match with {
            With::Signed(credential) => (call.signed(credential, at), Some(credential.api_key())),
            With::Unsigned(key) if call.is_signed() => (call.missigned(at), Some(key.expose_secret())),
            With::Unsigned(key) => (String::new(), Some(key.expose_secret())),
            With::Nothing => (call.open_query(), None),
        };
        let url = format!("{}{}{}{query}", self.rest_url, call.path, if query.is_empty() { "" } else { "?" });
        let mut request = match call.method {
            Method::Get => self.http.get(url),
            Method::Post => self.http.post(url),
            Method::Delete => self.http.delete(url),
        };
        if let Some(key) = key {
            request = request.header("X-MBX-APIKEY", key);
        }
        let response = request.send().await.map_err(|error| unknown(&causes(error)))?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<u32>().ok();
        let (status, retry_after) = (response.status().as_u16(), header("retry-after"));
        if let Some(used) = header("x-mbx-used-weight-1m") {
            self.state().weight.handle_used(clock(), used);
        }
        let retry_after = retry_after.map(|seconds| Duration::from_secs(seconds.into()));
        let body = body_of(response).await;
        let answer = match body {
            Ok(body) => Answer { status, retry_after, body },
            // A limit is one whatever its body holds.
            Err(_) if matches!(status, 403 | 418 | 429) => Answer { status, retry_after, body: String::new() },
            Err(error) => return Err(unknown(&error.to_string())),
        };
        if let Ending::Limited { wait, .. } = answer.reply().ending() {
            let until = clock() + wait;
            self.state().holds.entry(kind).and_modify(|held| *held = until.max(*held)).or_insert(until);
        }
        Ok(answer)
    }

    fn pay(&self, kind: Kind, call: &Call, now: Time) -> Result<(), ActOutcome> {
        let mut state = self.state();
        if let Some(until) = state.holds.get(&kind).copied().filter(|until| now < *until) {
            return Err(ActOutcome::Held { until, reason: "the exchange told this address to wait".into() });
        }
        if call.weight == 0 {
            return Ok(());
        }
        let share = match kind {
            Kind::Prices => Share::Plans,
            Kind::Orders | Kind::Money => Share::Orders,
            Kind::List | Kind::Rights | Kind::Delete | Kind::Probe | Kind::Upkeep => Share::Keys,
        };
        let paid = state.weight.spend(now, call.weight, share);
        paid.map_err(|held| ActOutcome::Held { until: held.until, reason: held.reason.into() })
    }

    pub(super) async fn ask_server_time(&self, clock: &(impl Fn() -> Time + Sync)) -> Result<(), String> {
        let sent = clock();
        let call = Call::server_time();
        let answer = Box::pin(self.send(Kind::Upkeep, &call, With::Nothing, clock));
        let answer = match tokio::time::timeout(TIME_WITHIN, answer).await {
            Ok(answer) => answer.map_err(|why| words(&why))?,
            Err(_) => return Err("no answer in time".to_owned()),
        };
        let body = body(answer).map_err(|why| words(&why))?;
        let server = snapshot::server_time(&body).map_err(|kept| kept.to_string())?;
        self.state().server_time.observe(sent, server, clock());
        Ok(())
    }

    /// Nothing that holds the lock can leave the state half-changed, so a poisoned one is as good.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn body(answer: Answer) -> Result<String, ActOutcome> {
    match answer.reply().ending() {
        Ending::Granted => Ok(answer.body),
        Ending::Refused { code, reason } => Err(ActOutcome::Refused { code, reason }),
        Ending::Limited { reason, .. } | Ending::Unknown { reason } => Err(ActOutcome::Unknown { reason }),
    }
}

pub(super) fn read_probe(answer: &Result<Answer, ActOutcome>) -> ProbeAnswer {
    match answer {
        Ok(answer) => answer.reply().probe(),
        Err(not_asked) => ProbeAnswer::Unclear { reason: words(not_asked).into() },
    }
}
