//! Signed reads of one account. Whatever did not end in a readable answer is `Unknown` with the reason.
//!
//! Invariant: no reason holds a URL, since a signed one holds the signature.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::kernel::event::{ReadOutcome, ReadRequest};
use crate::kernel::time::Time;
use crate::venue::binance::request::Get;
use crate::venue::binance::{ApiCredential, Kept, snapshot};
use crate::venue::budget::{self, Budget, Held, Share};
use crate::venue::server_time::ServerTime;

/// Some ten thousand open orders; beyond it the answer is unknown.
const BODY_MAX: usize = 8 << 20;
const CLOCK_REFUSED: i64 = -1021;
const NO_SUCH_ORDER: i64 = -2013;

pub struct Exchange {
    rest_url: String,
    credential: Arc<ApiCredential>,
    http: reqwest::Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    server_time: ServerTime,
    budget: Budget,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Held(#[from] Held),
    #[error("the exchange cannot be reached: {0}")]
    Transport(String),
    #[error("the answer is longer than {BODY_MAX} bytes")]
    TooLong,
    #[error("the answer is not UTF-8")]
    NotText,
    #[error("the exchange refused (status {status}, code {code}): {message}")]
    Refused { status: u16, code: i64, message: Box<str> },
    #[error("the exchange failed with status {0}")]
    Failed(u16),
    #[error("the answer cannot be read: {0}")]
    Unreadable(#[from] Kept),
}

impl Exchange {
    pub fn new(rest_url: &str, credential: Arc<ApiCredential>, http: reqwest::Client) -> Self {
        Self { rest_url: rest_url.trim_end_matches('/').to_owned(), credential, http, state: Mutex::default() }
    }

    /// Makes at most one signed call, or two where the venue refused the time of the first.
    pub async fn read(&self, request: &ReadRequest, clock: &(impl Fn() -> Time + Sync)) -> ReadOutcome {
        let outcome = match self.signed_read(request, clock).await {
            Err(ReadError::Refused { code: CLOCK_REFUSED, .. }) => {
                self.state().server_time.forget();
                self.signed_read(request, clock).await
            }
            outcome => outcome,
        };
        match outcome {
            Ok(outcome) => outcome,
            Err(ReadError::Refused { code: NO_SUCH_ORDER, .. }) if matches!(request, ReadRequest::Order { .. }) => {
                ReadOutcome::NotFound
            }
            Err(error) => ReadOutcome::Unknown { reason: error.to_string().into() },
        }
    }

    async fn signed_read(
        &self,
        request: &ReadRequest,
        clock: &(impl Fn() -> Time + Sync),
    ) -> Result<ReadOutcome, ReadError> {
        if !self.state().server_time.is_known() {
            self.ask_server_time(clock).await?;
        }
        let get = Get::of(request);
        let at = self.state().server_time.at(clock());
        let body = self.get(&get, &get.signed(&self.credential, at), clock).await?;
        Ok(snapshot::outcome(request, &body)?)
    }

    async fn ask_server_time(&self, clock: &(impl Fn() -> Time + Sync)) -> Result<(), ReadError> {
        let sent = clock();
        let server = snapshot::server_time(&self.get(&Get::server_time(), "", clock).await?)?;
        self.state().server_time.observe(sent, server, clock());
        Ok(())
    }

    async fn get(&self, get: &Get, query: &str, clock: &(impl Fn() -> Time + Sync)) -> Result<String, ReadError> {
        self.state().budget.spend(clock(), get.weight, Share::Reads)?;
        let url = format!("{}{}{}{query}", self.rest_url, get.path, if query.is_empty() { "" } else { "?" });
        let request = self.http.get(url).header("X-MBX-APIKEY", self.credential.api_key());
        let response = request.send().await.map_err(transport)?;
        let status = response.status().as_u16();
        self.note_limits(clock(), status, &response);
        let body = body_of(response).await?;
        if status == 200 {
            return Ok(body);
        }
        Err(match snapshot::error(&body) {
            Ok(error) => ReadError::Refused { status, code: error.code, message: error.message },
            Err(_) => ReadError::Failed(status),
        })
    }

    fn note_limits(&self, now: Time, status: u16, response: &reqwest::Response) {
        let header = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<u32>().ok();
        let mut state = self.state();
        if let Some(used) = header("x-mbx-used-weight-1m") {
            state.budget.handle_used(now, used);
        }
        if budget::is_refusal(status) {
            let retry_after = header("retry-after").map(|seconds| Duration::from_secs(seconds.into()));
            state.budget.handle_refusal(now, status, retry_after);
        }
    }

    /// Nothing that holds the lock can leave the state half-changed, so a poisoned one is as good.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn body_of(mut response: reqwest::Response) -> Result<String, ReadError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > BODY_MAX {
            return Err(ReadError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    String::from_utf8(body).map_err(|_| ReadError::NotText)
}

fn transport(error: reqwest::Error) -> ReadError {
    ReadError::Transport(causes(error))
}

/// The error and its causes, without the URL.
pub(super) fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
