//! The intake over HTTP, for bots that cannot use the unix socket: `POST /v1/intents` with the bot's own token and
//! `POST /v1/access` with another. Every answer is JSON.
//!
//! Invariant: it serves on a loopback address only, since nothing here is encrypted.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::inlet::intake::rate::Rate;
use crate::inlet::intake::{Caller, Hearing, Intake, busy, too_fast, too_long};
use crate::inlet::wire::{ErrorCode, LINE_BYTES_MAX, WireError};
use crate::kernel::order::Bot;

/// A request's headers and its body each arrive within this, or the connection ends.
const READ_WITHIN: Duration = Duration::from_secs(5);
const HEADER_BYTES_MAX: usize = 16 * 1024;
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum HttpIntakeError {
    #[error(
        "the HTTP intake does not listen on {0}, which other hosts can reach\nhint: \
         listen on 127.0.0.1 or [::1]; nothing is encrypted here"
    )]
    NotLoopback(SocketAddr),
    #[error("the HTTP intake cannot tell what address it listens on")]
    NoAddress(#[source] std::io::Error),
}

/// Serves until `shutdown`; then requests that were read are still answered.
pub async fn run(
    listener: TcpListener,
    intake: Arc<Intake>,
    shutdown: CancellationToken,
) -> Result<(), HttpIntakeError> {
    loopback_only(listener.local_addr().map_err(HttpIntakeError::NoAddress)?)?;
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection of the HTTP intake ended by a panic");
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if connections.len() >= intake.config.connections_max => turn_away(&stream, &intake),
            Ok((stream, _)) => {
                connections.spawn(serve(stream, Arc::clone(&intake), shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the HTTP intake cannot accept a connection, it goes on");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

fn loopback_only(address: SocketAddr) -> Result<(), HttpIntakeError> {
    if address.ip().is_loopback() { Ok(()) } else { Err(HttpIntakeError::NotLoopback(address)) }
}

/// One answer into the empty buffer of a fresh connection; if even that does not fit, the end says enough.
fn turn_away(stream: &TcpStream, intake: &Intake) {
    if let Hearing::Refused(status, answer) = intake.refuse(&busy()) {
        let body = answer.to_string();
        let head = format!("HTTP/1.1 {status} busy\r\ncontent-type: application/json\r\nconnection: close\r\n");
        let sent = stream.try_write(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
        tracing::info!(sent = sent.is_ok(), "a connection to the HTTP intake was turned away: all are in use");
    }
}

async fn serve(stream: TcpStream, intake: Arc<Intake>, shutdown: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection of the HTTP intake answers with Nagle's delay");
    }
    let rate = Mutex::new(Rate::new(intake.config.records_per_second, (intake.clock)()));
    let service = service_fn(|request| async { Ok::<_, Infallible>(respond(request, &intake, &rate).await) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_WITHIN)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the HTTP intake ended early");
    }
}

async fn respond(request: Request<Incoming>, intake: &Intake, rate: &Mutex<Rate>) -> Response<Body> {
    let is_access = request.uri().path() == "/v1/access";
    let fast_enough = rate.lock().unwrap_or_else(PoisonError::into_inner).take((intake.clock)());
    let hearing = match admit(&request, intake) {
        _ if !fast_enough => Err(too_fast()),
        Ok(route) => match body(request).await {
            Ok(body) => Ok(match route {
                Route::Intents(bot) => intake.hear(&body, &Caller::Bot(&bot)),
                Route::Access => intake.hear_access(&body),
            }),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    let hearing =
        hearing.unwrap_or_else(|error| if is_access { intake.refuse_access(&error) } else { intake.refuse(&error) });
    let (status, answer) = hearing.answer(intake.config.answer_within).await;
    json(status, &answer)
}

enum Route {
    Intents(Bot),
    Access,
}

/// Everything that can be said without the body.
fn admit(request: &Request<Incoming>, intake: &Intake) -> Result<Route, WireError> {
    let path = request.uri().path();
    if path != "/v1/intents" && path != "/v1/access" {
        return Err(WireError::new(
            ErrorCode::NotFound,
            "there is nothing at this path",
            "POST /v1/intents or POST /v1/access",
        ));
    }
    if request.method() != Method::POST {
        return Err(WireError::new(ErrorCode::MethodNotAllowed, "this path takes POST only", "send a POST"));
    }
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if content_type.split(';').next().is_none_or(|kind| !kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err(WireError::new(
            ErrorCode::UnsupportedMediaType,
            "the body is not said to be JSON",
            "send the header content-type: application/json",
        ));
    }
    let bearer = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        bearer.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let route = token.and_then(|(_, token)| match path {
        "/v1/intents" => bot_of(token.trim(), intake).map(Route::Intents),
        _ => intake.config.access_token.as_ref().filter(|known| same(token.trim(), known)).map(|_| Route::Access),
    });
    route.ok_or_else(|| {
        WireError::new(
            ErrorCode::Unauthorized,
            "the token is missing or unknown",
            "send the header authorization: Bearer TOKEN, with the token that the configuration names for this route",
        )
    })
}

fn bot_of(token: &str, intake: &Intake) -> Option<Bot> {
    let mut found = None;
    for access in &intake.config.bots {
        if access.token.as_ref().is_some_and(|known| same(token, known)) {
            found = Some(access.bot.clone());
        }
    }
    found
}

/// By their hashes, so that neither what differs nor how long they are shows in the time it takes.
fn same(token: &str, known: &SecretString) -> bool {
    let (token, known) = (Sha256::digest(token.as_bytes()), Sha256::digest(known.expose_secret().as_bytes()));
    token.as_slice().ct_eq(known.as_slice()).into()
}

async fn body(request: Request<Incoming>) -> Result<Vec<u8>, WireError> {
    let lost = || WireError::new(ErrorCode::BadJson, "the body did not arrive whole", "send it again");
    let mut chunks = Body::new(request.into_body()).into_data_stream();
    let gather = async {
        let mut gathered = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| lost())?;
            if gathered.len() + chunk.len() > LINE_BYTES_MAX {
                return Err(too_long());
            }
            gathered.extend_from_slice(&chunk);
        }
        Ok(gathered)
    };
    tokio::time::timeout(READ_WITHIN, gather).await.unwrap_or_else(|_| Err(lost()))
}

fn json(status: u16, answer: &Value) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(Body::from(answer.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_other_hosts_reach_is_refused() {
        for address in ["127.0.0.1:80", "[::1]:80"] {
            assert!(loopback_only(address.parse().unwrap()).is_ok());
        }
        for address in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"] {
            assert!(matches!(loopback_only(address.parse().unwrap()), Err(HttpIntakeError::NotLoopback(_))));
        }
    }
}
