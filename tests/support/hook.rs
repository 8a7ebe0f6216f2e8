//! A webhook's receiver over HTTP on loopback: it refuses what is not signed, and records the rest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use countersign::outlet::webhook::{SIGNATURE_HEADER, TIMESTAMP_HEADER, signature};
use secrecy::SecretSlice;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;

pub const SECRET: &[u8] = b"the webhook's secret";

#[derive(Clone, Debug)]
pub struct Received {
    pub at: Instant,
    pub body: Value,
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    unsigned: Mutex<u64>,
    next: Mutex<VecDeque<StatusCode>>,
    changed: Notify,
}

pub struct Hook {
    url: reqwest::Url,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Hook {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/alerts", listener.local_addr().unwrap()).parse().unwrap();
        let shared = Arc::new(Shared::default());
        let router = Router::new().route("/alerts", axum::routing::post(receive)).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, server }
    }

    pub fn url(&self) -> reqwest::Url {
        self.url.clone()
    }

    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    pub fn unsigned(&self) -> u64 {
        *self.shared.unsigned.lock().unwrap()
    }

    /// The next signed body is answered so, and not recorded.
    pub fn next(&self, status: u16) {
        self.shared.next.lock().unwrap().push_back(StatusCode::from_u16(status).unwrap());
    }

    /// Waits until one of what was received is so, and gives all.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Vec<Received> {
        self.until_after(0, what, is_so).await
    }

    /// The same, of what came after the first `known`.
    pub async fn until_after(&self, known: usize, what: &str, is_so: impl Fn(&Value) -> bool) -> Vec<Received> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let changed = self.shared.changed.notified();
            let received = self.received().split_off(known);
            if received.iter().any(|received| is_so(&received.body)) {
                return received;
            }
            assert!(Instant::now() < deadline, "{what} did not come: {received:#?}");
            let _ = tokio::time::timeout(Duration::from_millis(200), changed).await;
        }
    }
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let secret = SecretSlice::from(SECRET.to_vec());
    if header(SIGNATURE_HEADER) != signature(&secret, &header(TIMESTAMP_HEADER), &body) {
        *shared.unsigned.lock().unwrap() += 1;
        return StatusCode::UNAUTHORIZED;
    }
    if let Some(status) = shared.next.lock().unwrap().pop_front() {
        return status;
    }
    let body = serde_json::from_str(&body).unwrap();
    shared.received.lock().unwrap().push(Received { at: Instant::now(), body });
    shared.changed.notify_waiters();
    StatusCode::NO_CONTENT
}
