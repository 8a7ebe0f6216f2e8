//! The exchange's doors: REST and WebSocket API on one port. One task owns the exchange, connections talk to it over
//! bounded channels; nothing is decided here.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use crate::kernel::time::Time;
use crate::sim::config::SimConfig;
use crate::sim::connection::{Life, carry};
use crate::sim::delivery::Push;
use crate::sim::door::{Peer, PlainListener, TlsListener};
use crate::sim::exchange::{Caller, Exchange, HttpAnswer, HttpReply, HttpRequest};
use crate::sim::refusal::Refusal;
use crate::sim::session::ConnectionId;

/// Requests waiting for the exchange; then connections wait, as at a busy venue.
const REQUESTS_MAX: usize = 1_024;
/// Frames waiting for one client; a client slower than that is disconnected.
const FRAMES_MAX: usize = 65_536;
/// Upgraded sockets waiting to be taken over.
const UPGRADES_MAX: usize = 64;
const BODY_BYTES_MAX: usize = 256 * 1_024;
const AGENT_CHARS_MAX: usize = 64;

pub(super) enum Ask {
    Http(Box<HttpRequest>, oneshot::Sender<HttpReply>),
    Connect(Caller, String, oneshot::Sender<Result<Opened, Refusal>>),
    Message(ConnectionId, String),
    Gone(ConnectionId),
}

pub(super) struct Opened {
    pub id: ConnectionId,
    pub frames: mpsc::Receiver<Push>,
}

#[derive(Clone)]
struct Entrance {
    asks: mpsc::Sender<Ask>,
    upgrades: mpsc::Sender<(OnUpgrade, Opened)>,
}

/// Serves until `shutdown`; every WebSocket connection ends with it.
pub async fn serve(listener: TcpListener, sim: SimConfig, shutdown: CancellationToken) -> io::Result<()> {
    match sim.tls.clone() {
        Some(tls) => serve_on(TlsListener { listener, acceptor: TlsAcceptor::from(tls) }, sim, shutdown).await,
        None => serve_on(PlainListener(listener), sim, shutdown).await,
    }
}

async fn serve_on<L>(listener: L, sim: SimConfig, shutdown: CancellationToken) -> io::Result<()>
where
    L: Listener<Addr = SocketAddr>,
    Peer: for<'a> Connected<IncomingStream<'a, L>>,
{
    let exchange = Exchange::new((sim.clock)(), &sim).map_err(io::Error::other)?;
    let (asks, asked) = mpsc::channel(REQUESTS_MAX);
    let (upgrades, mut upgraded) = mpsc::channel(UPGRADES_MAX);
    let router = Router::new().fallback(answer).with_state(Entrance { asks: asks.clone(), upgrades });
    let http = axum::serve(listener, router.into_make_service_with_connect_info::<Peer>());
    let mut http = pin!(http.into_future());
    let mut exchange = pin!(own(exchange, sim.clock, asked));
    let life = Life { ping_every: sim.ping_every, pong_within: sim.pong_within, connection_life: sim.connection_life };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            () = &mut exchange => return Ok(()),
            Some((upgrade, opened)) = upgraded.recv() => {
                connections.spawn(connection(upgrade, opened, asks.clone(), life));
            }
            Some(_) = connections.join_next() => {}
            ended = &mut http => return ended,
        }
    }
}

/// The one owner of the exchange.
async fn own(mut exchange: Exchange, clock: fn() -> Time, mut asked: mpsc::Receiver<Ask>) {
    let mut lines: BTreeMap<ConnectionId, mpsc::Sender<Push>> = BTreeMap::new();
    let mut batch = Vec::new();
    loop {
        let wait = exchange.next_wake().map_or(Duration::from_secs(3_600), |at| at.since(clock()));
        tokio::select! {
            biased;
            count = asked.recv_many(&mut batch, REQUESTS_MAX) => {
                if count == 0 {
                    return;
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
        for ask in batch.drain(..) {
            take(&mut exchange, clock(), ask, &mut lines);
        }
        exchange.tick(clock());
        carry_out(&mut exchange, &mut lines);
    }
}

fn take(exchange: &mut Exchange, now: Time, ask: Ask, lines: &mut BTreeMap<ConnectionId, mpsc::Sender<Push>>) {
    match ask {
        // Who asked may have gone meanwhile: then nobody is there to be told.
        Ask::Http(request, reply) => drop(reply.send(exchange.http(now, &request))),
        Ask::Connect(caller, query, reply) => {
            let opened = exchange.connect(now, caller, &query).map(|id| {
                let (sender, frames) = mpsc::channel(FRAMES_MAX);
                lines.insert(id, sender);
                Opened { id, frames }
            });
            drop(reply.send(opened));
        }
        Ask::Message(id, text) => exchange.message(now, id, &text),
        Ask::Gone(id) => {
            lines.remove(&id);
            exchange.disconnected(id);
        }
    }
    carry_out(exchange, lines);
}

fn carry_out(exchange: &mut Exchange, lines: &mut BTreeMap<ConnectionId, mpsc::Sender<Push>>) {
    let mut too_slow = Vec::new();
    for delivery in exchange.take_deliveries() {
        let Some(line) = lines.get(&delivery.connection) else { continue };
        if line.try_send(delivery.push).is_err() {
            lines.remove(&delivery.connection);
            too_slow.push(delivery.connection);
        }
    }
    for id in too_slow {
        exchange.disconnected(id);
    }
}

async fn answer(
    State(entrance): State<Entrance>,
    ConnectInfo(Peer { address, cut }): ConnectInfo<Peer>,
    mut request: Request,
) -> Result<Response, StatusCode> {
    let caller = Caller { address: address.ip().to_canonical(), agent: agent(request.headers()) };
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    if path.trim_end_matches('/') == "/ws-api/v3" && request.headers().contains_key(header::UPGRADE) {
        let upgrade = hyper::upgrade::on(&mut request);
        return open(&entrance, upgrade, request.headers(), caller, query).await;
    }
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
    let body = String::from_utf8(body.into()).map_err(|_| StatusCode::BAD_REQUEST)?;
    let api_key = parts.headers.get("x-mbx-apikey").and_then(|key| key.to_str().ok()).map(str::to_owned);
    let method = parts.method.as_str().to_owned();
    let mut request = HttpRequest { method, path, query, body, api_key, caller, held: false };
    loop {
        let (reply, answered) = oneshot::channel();
        let ask = Ask::Http(Box::new(request.clone()), reply);
        entrance.asks.send(ask).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        match answered.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)? {
            HttpReply::Answer(answer) => return response(answer),
            HttpReply::Late(wait, answer) => {
                tokio::time::sleep(wait).await;
                return response(answer);
            }
            HttpReply::Held(wait) => {
                tokio::time::sleep(wait).await;
                request.held = true;
            }
            HttpReply::Cut => {
                cut.pull();
                return Err(StatusCode::SERVICE_UNAVAILABLE);
            }
        }
    }
}

fn response(answer: HttpAnswer) -> Result<Response, StatusCode> {
    let mut response = Response::builder().status(answer.status).header(header::CONTENT_TYPE, "application/json");
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(answer.body)).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

fn agent(headers: &HeaderMap) -> Box<str> {
    let text = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("unnamed");
    text.chars().take(AGENT_CHARS_MAX).collect()
}

async fn open(
    entrance: &Entrance,
    upgrade: OnUpgrade,
    headers: &HeaderMap,
    caller: Caller,
    query: String,
) -> Result<Response, StatusCode> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(StatusCode::BAD_REQUEST)?;
    let accept = derive_accept_key(key.as_bytes());
    let (reply, opened) = oneshot::channel();
    entrance.asks.send(Ask::Connect(caller, query, reply)).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let opened = match opened.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)? {
        Ok(opened) => opened,
        Err(refusal) => {
            let (headers, body) = (Vec::new(), refusal.body().to_string());
            return response(HttpAnswer { status: refusal.status, headers, body });
        }
    };
    entrance.upgrades.send((upgrade, opened)).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept);
    response.body(Body::empty()).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn connection(upgrade: OnUpgrade, opened: Opened, asks: mpsc::Sender<Ask>, life: Life) {
    let id = opened.id;
    if let Ok(upgraded) = upgrade.await {
        let mut limits = WebSocketConfig::default();
        limits.max_message_size = Some(1 << 20);
        limits.max_frame_size = Some(1 << 20);
        limits.read_buffer_size = 16 << 10;
        limits.max_write_buffer_size = 8 << 20;
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(limits)).await;
        carry(socket, opened, &asks, life).await;
    }
    // The exchange may have ended first; then there is nothing left to tell.
    drop(asks.send(Ask::Gone(id)).await);
}
