//! The private stream over loopback sockets, against a venue of a few lines that can be told to misbehave.

#![expect(clippy::disallowed_methods, reason = "a test plays the daemon's part: it spawns, and reads the clock")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use countersign::inlet::user_stream::{StreamConfig, StreamEvent, run};
use countersign::kernel::event::{Connection, FeedChange};
use countersign::kernel::order::Account;
use countersign::kernel::time::Time;
use countersign::tls;
use countersign::venue::binance::ApiCredential;
use countersign::venue::session::SessionSettings;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn two_connections_carry_every_event() {
    let mut bench = Bench::start(Venue::default(), 16).await;
    let (first, second) = (bench.live().await, bench.live().await);
    assert_ne!(first, second);
    bench.venue.say_all(&balance_update(0, "1.50"));
    for _ in 0..2 {
        let StreamEvent::Report { account, raw, .. } = bench.next().await else { panic!("a report was sent") };
        assert_eq!(account, Account::new("main"));
        assert_eq!(raw, balance_update(0, "1.50"), "kept as it came");
    }
    bench.venue.say_all("{garbage");
    for _ in 0..2 {
        let StreamEvent::Kept { raw, reason, .. } = bench.next().await else { panic!("garbage is kept") };
        assert_eq!(raw, "{garbage");
        assert!(reason.starts_with("not JSON"), "{reason}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_slow_receiver_loses_nothing() {
    let mut bench = Bench::start(Venue::default(), 1).await;
    bench.live().await;
    bench.live().await;
    let count = 500;
    for number in 0..count {
        bench.venue.say(0, &balance_update(0, &number.to_string()));
    }
    for number in 0..count {
        let StreamEvent::Report { raw, .. } = bench.next().await else { panic!("reports were sent") };
        assert_eq!(raw, balance_update(0, &number.to_string()));
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_subscription_that_dies_silently_is_found_and_made_anew() {
    let mut bench = Bench::start(Venue::default(), 16).await;
    bench.live().await;
    bench.live().await;
    bench.venue.tell(0, Order::ForgetSubscription);
    let (old, reason) = bench.lost().await;
    assert!(reason.contains("no longer lists"), "{reason}");
    let new = bench.live().await;
    assert!(new > old);
    bench.stop().await;
}

#[tokio::test]
async fn a_half_open_connection_is_found_and_replaced() {
    let mut bench = Bench::start(Venue::default(), 16).await;
    bench.live().await;
    bench.live().await;
    bench.venue.tell(1, Order::GoDeaf);
    let (old, reason) = bench.lost().await;
    assert!(reason.contains("silent"), "{reason}");
    assert!(bench.live().await > old);
    bench.stop().await;
}

#[tokio::test]
async fn a_shutdown_is_announced_and_the_new_connection_stands_before_the_old_one_goes() {
    let mut bench = Bench::start(Venue::default(), 16).await;
    let mut known = [bench.live().await, bench.live().await];
    known.sort_unstable();
    bench.venue.say(0, r#"{"event":{"e":"serverShutdown","E":1770123456789}}"#);
    let new = bench.live().await;
    assert!(new > known[1]);
    let retired = match bench.next().await {
        StreamEvent::Feed { connection, change: FeedChange::Retired, .. } => connection,
        other => panic!("expected a retired feed: {other:?}"),
    };
    assert!(known.contains(&retired));
    bench.venue.say_all(&balance_update(0, "2"));
    let mut carried: Vec<Connection> = Vec::new();
    for _ in 0..2 {
        let StreamEvent::Report { connection, .. } = bench.next().await else { panic!("a report was sent") };
        carried.push(connection);
    }
    assert!(carried.contains(&new) && !carried.contains(&retired));
    bench.stop().await;
}

#[tokio::test]
async fn a_cut_connection_is_lost_and_another_takes_its_place() {
    let mut bench = Bench::start(Venue::default(), 16).await;
    bench.live().await;
    bench.live().await;
    bench.venue.tell(0, Order::Cut);
    let (old, _) = bench.lost().await;
    assert!(bench.live().await > old);
    bench.stop().await;
}

#[tokio::test]
async fn a_refused_key_is_told() {
    let venue = Venue { refusal: Mutex::new(Some((-2015, usize::MAX))), ..Venue::default() };
    let mut bench = Bench::start(venue, 16).await;
    for _ in 0..2 {
        let StreamEvent::Feed { change: FeedChange::KeyRefused { code, .. }, .. } = bench.next().await else {
            panic!("the key was refused")
        };
        assert_eq!(code, -2015);
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_refused_time_is_put_right_by_the_venues_clock() {
    let ahead = 3_600_000;
    let venue = Venue { clock_ahead_ms: ahead, ..Venue::default() };
    let mut bench = Bench::start(venue, 16).await;
    bench.live().await;
    bench.live().await;
    let requests = bench.venue.requests.lock().unwrap().clone();
    let last = requests.iter().rfind(|request| request["method"] == "userDataStream.subscribe.signature").unwrap();
    let late = (now().millis() + ahead - last["params"]["timestamp"].as_i64().unwrap()).abs();
    assert!(late < 5_000, "{late} ms");
    bench.stop().await;
}

#[tokio::test]
async fn a_refused_handshake_is_obeyed() {
    let venue = Venue { refuse_handshakes: true, ..Venue::default() };
    let bench = Bench::start(venue, 16).await;
    let both = || bench.venue.handshakes.load(Ordering::SeqCst) >= 2;
    while !both() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Without the hold the next attempts would come within half a second.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(bench.venue.handshakes.load(Ordering::SeqCst), 2);
    bench.stop().await;
}

/// The stream under test and the venue it talks to.
struct Bench {
    venue: Arc<Venue>,
    events: mpsc::Receiver<StreamEvent>,
    shutdown: CancellationToken,
    stream: tokio::task::JoinHandle<()>,
}

impl Bench {
    async fn start(venue: Venue, capacity: usize) -> Self {
        let venue = Arc::new(venue);
        let ws = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rest = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ws_url = format!("ws://{}/ws-api/v3", ws.local_addr().unwrap());
        let rest_url = format!("http://{}", rest.local_addr().unwrap());
        tokio::spawn(serve_websockets(venue.clone(), ws));
        tokio::spawn(serve_clock(venue.clone(), rest));
        let tls = tls::client_config(None).unwrap();
        let http = tls::http_client(&tls).unwrap();
        let credential = Arc::new(ApiCredential::new("key".into(), "secret".into()).unwrap());
        let accounts = vec![(Account::new("main"), credential)];
        let mut config = StreamConfig::new(&ws_url, &rest_url, accounts, tls, http);
        config.session = SessionSettings {
            ping_every: Duration::from_millis(200),
            silence_max: Duration::from_secs(2),
            list_every: Duration::from_millis(200),
            answer_within: Duration::from_secs(5),
            ..SessionSettings::default()
        };
        let (sender, events) = mpsc::channel(capacity);
        let shutdown = CancellationToken::new();
        let stream = tokio::spawn(run(config, sender, now, shutdown.clone()));
        Self { venue, events, shutdown, stream }
    }

    async fn next(&mut self) -> StreamEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("the stream runs")
    }

    /// The next event, which must be a feed that came to live.
    async fn live(&mut self) -> Connection {
        match self.next().await {
            StreamEvent::Feed { connection, change: FeedChange::Live, .. } => connection,
            other => panic!("expected a live feed: {other:?}"),
        }
    }

    async fn lost(&mut self) -> (Connection, Box<str>) {
        match self.next().await {
            StreamEvent::Feed { connection, change: FeedChange::Lost { reason, .. }, .. } => (connection, reason),
            other => panic!("expected a lost feed: {other:?}"),
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.stream).await.expect("it stops in time").unwrap();
    }
}

#[derive(Default)]
struct Venue {
    lines: Mutex<Vec<mpsc::Sender<Order>>>,
    requests: Mutex<Vec<Value>>,
    /// The code for so many subscriptions.
    refusal: Mutex<Option<(i64, usize)>>,
    clock_ahead_ms: i64,
    refuse_handshakes: bool,
    handshakes: AtomicUsize,
}

enum Order {
    Say(String),
    ForgetSubscription,
    GoDeaf,
    Cut,
}

impl Venue {
    fn tell(&self, line: usize, order: Order) {
        self.lines.lock().unwrap()[line].try_send(order).unwrap();
    }

    fn say(&self, line: usize, text: &str) {
        self.tell(line, Order::Say(text.to_owned()));
    }

    /// On every connection that is still there.
    fn say_all(&self, text: &str) {
        for line in self.lines.lock().unwrap().iter() {
            let _ = line.try_send(Order::Say(text.to_owned()));
        }
    }

    fn answer(&self, request: &Value, subscribed: &mut bool) -> Value {
        let id = &request["id"];
        match request["method"].as_str() {
            Some("session.subscriptions") if *subscribed => {
                json!({"id": id, "status": 200, "result": [{"subscriptionId": 0}]})
            }
            Some("session.subscriptions") => json!({"id": id, "status": 200, "result": []}),
            Some("userDataStream.subscribe.signature") => match self.refused(request) {
                Some(code) => json!({"id": id, "status": 401, "error": {"code": code, "msg": "Refused."}}),
                None => {
                    *subscribed = true;
                    json!({"id": id, "status": 200, "result": {"subscriptionId": 0}})
                }
            },
            other => panic!("unknown method {other:?}"),
        }
    }

    fn refused(&self, request: &Value) -> Option<i64> {
        let apart = request["params"]["timestamp"].as_i64().unwrap() - (now().millis() + self.clock_ahead_ms);
        if apart.abs() > 5_000 {
            return Some(-1021);
        }
        let mut refusal = self.refusal.lock().unwrap();
        let (code, count) = (*refusal)?;
        *refusal = (count > 1).then(|| (code, count - 1));
        Some(code)
    }
}

async fn serve_websockets(venue: Arc<Venue>, listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        venue.handshakes.fetch_add(1, Ordering::SeqCst);
        if venue.refuse_handshakes {
            let _ = stream.read(&mut [0; 4_096]).await;
            let refusal = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n";
            let _ = stream.write_all(refusal).await;
            continue;
        }
        let (orders, inbox) = mpsc::channel(1_024);
        venue.lines.lock().unwrap().push(orders);
        tokio::spawn(serve_line(venue.clone(), stream, inbox));
    }
}

async fn serve_line(venue: Arc<Venue>, stream: TcpStream, mut orders: mpsc::Receiver<Order>) {
    let mut socket = accept_async(stream).await.unwrap();
    let mut subscribed = false;
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let request: Value = serde_json::from_str(&text).unwrap();
                    let answer = venue.answer(&request, &mut subscribed);
                    venue.requests.lock().unwrap().push(request);
                    socket.send(Message::text(answer.to_string())).await.unwrap();
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            order = orders.recv() => match order {
                Some(Order::Say(text)) => {
                    if socket.send(Message::text(text)).await.is_err() {
                        return;
                    }
                }
                Some(Order::ForgetSubscription) => subscribed = false,
                // The socket stays open, and nothing more comes of it.
                Some(Order::GoDeaf) => std::future::pending().await,
                Some(Order::Cut) | None => return,
            },
        }
    }
}

/// `GET /api/v3/time`, and nothing else.
async fn serve_clock(venue: Arc<Venue>, listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4_096];
        let length = stream.read(&mut request).await.unwrap();
        assert!(request[..length].starts_with(b"GET /api/v3/time "));
        let body = json!({"serverTime": now().millis() + venue.clock_ahead_ms}).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
    }
}

fn balance_update(subscription: u64, delta: &str) -> String {
    let event = json!({"e": "balanceUpdate", "E": 1, "a": "BTC", "d": delta, "T": 1});
    json!({"subscriptionId": subscription, "event": event}).to_string()
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Time::from_micros(i64::try_from(since.as_micros()).unwrap())
}
