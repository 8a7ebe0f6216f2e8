//! A wire between the daemon and the exchange on which every request can be seen leaving, and which can be cut.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A request's method and path, without its query, which holds a signature.
#[derive(Clone, Debug)]
pub struct Left {
    pub at: Instant,
    pub what: String,
}

pub struct Tap {
    pub address: SocketAddr,
    left: Arc<Mutex<Vec<Left>>>,
    wires: Arc<Mutex<CancellationToken>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Tap {
    pub async fn start(exchange: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (left, wires) = (Arc::default(), Arc::new(Mutex::new(CancellationToken::new())));
        let server = tokio::spawn(serve(listener, exchange, Arc::clone(&left), Arc::clone(&wires)));
        Self { address, left, wires, server }
    }

    /// Ends every connection; new ones are taken.
    pub fn cut(&self) {
        std::mem::take(&mut *self.wires.lock().unwrap()).cancel();
    }

    pub fn count(&self, what: &str) -> usize {
        self.left.lock().unwrap().iter().filter(|left| left.what == what).count()
    }

    /// The first request of that beginning after `since`.
    pub async fn first_after(&self, since: Instant, beginning: &str) -> Left {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let of_it = |left: &&Left| left.at >= since && left.what.starts_with(beginning);
            if let Some(left) = self.left.lock().unwrap().iter().find(of_it) {
                return left.clone();
            }
            assert!(Instant::now() < deadline, "no {beginning} left: {:?}", self.left.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn serve(
    listener: TcpListener,
    exchange: SocketAddr,
    left: Arc<Mutex<Vec<Left>>>,
    wires: Arc<Mutex<CancellationToken>>,
) {
    let mut carried = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (left, wire) = (Arc::clone(&left), wires.lock().unwrap().clone());
        carried.spawn(async move { wire.run_until_cancelled(carry(client, exchange, left)).await });
    }
}

/// On loopback, without bodies, a request is one piece.
async fn carry(client: TcpStream, exchange: SocketAddr, left: Arc<Mutex<Vec<Left>>>) {
    let Ok(server) = TcpStream::connect(exchange).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut piece).await {
            let at = Instant::now();
            let line = String::from_utf8_lossy(&piece[..length.min(512)]).into_owned();
            let what = line.split(['?', '\r']).next().unwrap_or_default().to_owned();
            left.lock().unwrap().push(Left { at, what: what.trim_end_matches(" HTTP/1.1").to_owned() });
            if to_server.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}
