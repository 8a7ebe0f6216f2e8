//! The encrypted paths over loopback, with a certificate authority of the test's own (its key was thrown away; the
//! server's key in `fixtures/tls` guards nothing).

#![expect(clippy::disallowed_methods, reason = "a test plays the daemon's part: it spawns, and reads the clock")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign::tls::{self, ConnectError};
use futures_util::{SinkExt, StreamExt};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const WITHIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_websocket_trusts_the_ca_file_and_nobody_else() {
    let (listener, acceptor) = server().await;
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(tcp).await else { continue };
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            let message = socket.next().await.unwrap().unwrap();
            socket.send(message).await.unwrap();
        }
    });
    let trusting = tls::client_config(Some(&fixture("ca.pem"))).unwrap();
    let mut socket = tls::connect(&format!("wss://localhost:{port}/ws"), &trusting, WITHIN).await.unwrap();
    socket.send("hello".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().to_text().unwrap(), "hello");

    let wary = tls::client_config(None).unwrap();
    let refused = tls::connect(&format!("wss://127.0.0.1:{port}/ws"), &wary, WITHIN).await;
    assert!(matches!(refused, Err(ConnectError::Io(_))));
}

#[tokio::test]
async fn the_http_client_uses_the_same_trust_and_follows_no_redirect() {
    let (listener, acceptor) = server().await;
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            let _ = stream.read(&mut [0; 4_096]).await;
            let answer = b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    });
    let trusting = tls::http_client(&tls::client_config(Some(&fixture("ca.pem"))).unwrap()).unwrap();
    assert_eq!(trusting.get(&url).send().await.unwrap().status(), 302);
    let wary = tls::http_client(&tls::client_config(None).unwrap()).unwrap();
    assert!(wary.get(&url).send().await.is_err());
}

#[tokio::test]
async fn a_server_that_never_answers_the_handshake_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let tls = tls::client_config(None).unwrap();
    let given_up = tls::connect(&url, &tls, Duration::from_millis(50)).await;
    assert!(matches!(given_up, Err(ConnectError::TimedOut(_))));
}

async fn server() -> (TcpListener, TlsAcceptor) {
    let certificate = CertificateDer::from_pem_file(fixture("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(fixture("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    (TcpListener::bind("127.0.0.1:0").await.unwrap(), TlsAcceptor::from(Arc::new(config)))
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls").join(name)
}
