//! TLS and the two kinds of client that use it: one configuration, built once, so that one list of roots and one
//! provider stand behind every connection. Roots are compiled in, since a CA that a thief adds to the host must not
//! be trusted; a `ca_file` of the owner's adds to them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// A message beyond this ends the connection.
pub const MESSAGE_MAX: usize = 1 << 20;
const WRITE_BUFFER_MAX: usize = 256 << 10;
const READ_BUFFER: usize = 16 << 10;
const ADDRESS_WITHIN: Duration = Duration::from_secs(3);
const HTTP_CONNECT_WITHIN: Duration = Duration::from_secs(5);
const HTTP_ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A plain or encrypted byte stream.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

pub type Socket = WebSocketStream<Box<dyn Duplex>>;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read CA certificates from {path}: {source}; give a file in PEM form")]
    CaFile { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{path} holds no CA certificate; give a file in PEM form")]
    NoCertificate { path: PathBuf },
    #[error("a certificate in {path} cannot be trusted: {source}")]
    Certificate { path: PathBuf, source: rustls::Error },
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
    #[error("cannot set up the HTTP client: {0}")]
    Http(#[from] reqwest::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{url:?} is not a ws:// or wss:// address with a host")]
    Address { url: String },
    #[error("no connection within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    #[error("cannot connect: {0}")]
    Io(#[from] std::io::Error),
    #[error("the server refused the websocket with status {status}")]
    Refused { status: u16, retry_after: Option<Duration> },
    #[error("the websocket could not be opened: {0}")]
    Websocket(Box<tungstenite::Error>),
}

pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        add_certificates(&mut roots, path)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The client for signed calls: no proxy from the environment, no redirect that would carry a signature elsewhere.
pub fn http_client(tls: &ClientConfig) -> Result<reqwest::Client, TlsError> {
    http_client_within(tls, HTTP_ANSWER_WITHIN)
}

/// The same for a server that may take its time, as one that is long-polled does.
pub fn http_client_within(tls: &ClientConfig, within: Duration) -> Result<reqwest::Client, TlsError> {
    Ok(http_client_builder(tls, within).build()?)
}

/// The same, for whoever has more to say about its connections.
pub fn http_client_builder(tls: &ClientConfig, within: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .use_preconfigured_tls(tls.clone())
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(HTTP_CONNECT_WITHIN)
        .timeout(within)
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
}

/// Opens a websocket, from the name lookup to the end of the handshake `within` a limit.
pub async fn connect(url: &str, tls: &Arc<ClientConfig>, within: Duration) -> Result<Socket, ConnectError> {
    tokio::time::timeout(within, open(url, tls)).await.unwrap_or(Err(ConnectError::TimedOut(within)))
}

async fn open(url: &str, tls: &Arc<ClientConfig>) -> Result<Socket, ConnectError> {
    let address = || ConnectError::Address { url: url.to_owned() };
    let parsed = Url::parse(url).map_err(|_| address())?;
    let encrypted = match parsed.scheme() {
        "wss" => true,
        "ws" => false,
        _ => return Err(address()),
    };
    let host = parsed.host_str().ok_or_else(address)?.trim_matches(['[', ']']).to_owned();
    let port = parsed.port_or_known_default().ok_or_else(address)?;
    let tcp = reach(&host, port).await?;
    let stream: Box<dyn Duplex> = if encrypted {
        let name = ServerName::try_from(host).map_err(|_| address())?;
        Box::new(TlsConnector::from(tls.clone()).connect(name, tcp).await?)
    } else {
        Box::new(tcp)
    };
    match tokio_tungstenite::client_async_with_config(url, stream, Some(websocket_limits())).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            let status = response.status().as_u16();
            Err(ConnectError::Refused { status, retry_after: seconds.map(Duration::from_secs) })
        }
        Err(error) => Err(ConnectError::Websocket(Box::new(error))),
    }
}

/// Tries the host's addresses in turn, each for a while: a dead one (often the IPv6 one) must not use up the limit.
async fn reach(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut failure = std::io::Error::new(std::io::ErrorKind::NotFound, "the host has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match tokio::time::timeout(ADDRESS_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Ok(Err(error)) => failure = error,
            Err(_) => failure = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}

fn websocket_limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX))
}

fn add_certificates(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let unreadable = |source| TlsError::CaFile { path: path.into(), source };
    let mut found = false;
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let certificate = certificate.map_err(unreadable)?;
        roots.add(certificate).map_err(|source| TlsError::Certificate { path: path.into(), source })?;
        found = true;
    }
    if found { Ok(()) } else { Err(TlsError::NoCertificate { path: path.into() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_can_be_built() {
        http_client(&client_config(None).unwrap()).unwrap();
    }

    #[test]
    fn a_ca_file_must_hold_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        assert!(matches!(client_config(Some(&path)), Err(TlsError::CaFile { .. })));
        std::fs::write(&path, "nothing").unwrap();
        assert!(matches!(client_config(Some(&path)), Err(TlsError::NoCertificate { .. })));
    }

    #[tokio::test]
    async fn refuses_addresses_that_are_no_websocket() {
        let tls = client_config(None).unwrap();
        for url in ["", "localhost:1", "http://127.0.0.1/", "wss:///"] {
            let refused = connect(url, &tls, Duration::from_secs(1)).await;
            assert!(matches!(refused, Err(ConnectError::Address { .. })), "{url:?}");
        }
    }
}
