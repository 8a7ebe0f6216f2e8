//! A small signed REST client for whoever trades against the simulated exchange from inside this program: the demo's
//! bot, its thief, tests. It speaks the venue's own protocol over sockets and knows nothing of the exchange's insides.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, redirect::Policy};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use sha2::Sha256;

use crate::kernel::time::Time;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

pub struct RestClient {
    http: reqwest::Client,
    base: String,
    credential: Credential,
    clock: fn() -> Time,
}

/// An HMAC key of the simulated exchange; worth nothing anywhere else.
#[derive(Clone)]
pub struct Credential {
    pub api_key: String,
    pub secret: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the exchange refused with {code} (HTTP {status}): {message}")]
    Refused { status: u16, code: i64, message: String },
    #[error("the exchange could not be asked: {0}")]
    Transport(#[from] reqwest::Error),
    #[error("the client could not be made ready: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the exchange's answer is no JSON: {0}")]
    Answer(#[from] serde_json::Error),
}

impl RestClient {
    /// `agent` is how the exchange's ledger tells this client from another with the same key.
    pub fn new(base: &str, credential: Credential, agent: &str, clock: fn() -> Time) -> Result<Self, ClientError> {
        Self::calling_from(None, base, credential, agent, clock)
    }

    /// From that address of this machine: a key may be bound to one.
    pub fn calling_from(
        address: Option<IpAddr>,
        base: &str,
        credential: Credential,
        agent: &str,
        clock: fn() -> Time,
    ) -> Result<Self, ClientError> {
        // The exchange is plain HTTP on this machine: no root is trusted, nothing outside can be reached by accident.
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .use_preconfigured_tls(tls)
            .redirect(Policy::none())
            .no_proxy()
            .timeout(ANSWER_WITHIN)
            .user_agent(agent)
            .local_address(address)
            .build()?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), credential, clock })
    }

    /// The order's parameters by the venue's own names.
    pub async fn place(&self, order: &[(&str, &str)]) -> Result<Value, ClientError> {
        self.signed(Method::POST, "/api/v3/order", order).await
    }

    pub async fn cancel(&self, symbol: &str, client_id: &str, cancel_id: Option<&str>) -> Result<Value, ClientError> {
        let mut params = vec![("symbol", symbol), ("origClientOrderId", client_id)];
        params.extend(cancel_id.map(|id| ("newClientOrderId", id)));
        self.signed(Method::DELETE, "/api/v3/order", &params).await
    }

    pub async fn cancel_all(&self, symbol: &str) -> Result<Value, ClientError> {
        self.signed(Method::DELETE, "/api/v3/openOrders", &[("symbol", symbol)]).await
    }

    pub async fn open_orders(&self, symbol: Option<&str>) -> Result<Value, ClientError> {
        let params: Vec<_> = symbol.map(|symbol| ("symbol", symbol)).into_iter().collect();
        self.signed(Method::GET, "/api/v3/openOrders", &params).await
    }

    pub async fn all_orders(&self, symbol: &str) -> Result<Value, ClientError> {
        self.signed(Method::GET, "/api/v3/allOrders", &[("symbol", symbol)]).await
    }

    pub async fn last_price(&self, symbol: &str) -> Result<String, ClientError> {
        let request = self.http.get(format!("{}/api/v3/ticker/price?symbol={}", self.base, encoded(symbol)));
        let answer = read(request).await?;
        Ok(answer["price"].as_str().unwrap_or_default().to_owned())
    }

    /// With the key alone and no signature.
    pub async fn keyed(&self, method: Method, path: &str) -> Result<Value, ClientError> {
        let request = self.http.request(method, format!("{}{path}", self.base));
        read(request.header("X-MBX-APIKEY", &self.credential.api_key)).await
    }

    /// Any signed call.
    pub async fn signed(&self, method: Method, path: &str, params: &[(&str, &str)]) -> Result<Value, ClientError> {
        let mut query: Vec<String> = params.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        query.push(format!("recvWindow=5000&timestamp={}", (self.clock)().millis()));
        let query = query.join("&");
        let signature = sign(&self.credential.secret, &query);
        let url = format!("{}{path}?{query}&signature={signature}", self.base);
        read(self.http.request(method, url).header("X-MBX-APIKEY", &self.credential.api_key)).await
    }
}

async fn read(request: reqwest::RequestBuilder) -> Result<Value, ClientError> {
    // The address holds the signature: it stays out of what may be printed.
    let answer = request.send().await.map_err(reqwest::Error::without_url)?;
    let status = answer.status();
    let body: Value = serde_json::from_str(&answer.text().await.map_err(reqwest::Error::without_url)?)?;
    if status.is_success() {
        return Ok(body);
    }
    let (code, message) = (body["code"].as_i64().unwrap_or_default(), body["msg"].as_str().unwrap_or_default());
    Err(ClientError::Refused { status: status.as_u16(), code, message: message.to_owned() })
}

pub fn sign(secret: &str, payload: &str) -> String {
    // A key of any length makes an HMAC, so there is always one.
    Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .map(|mac| HEXLOWER.encode(&mac.chain_update(payload).finalize().into_bytes()))
        .unwrap_or_default()
}

fn encoded(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    value.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
