//! The intake over real loopback sockets, with a daemon that answers as it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use countersign::inlet::intake::http;
use countersign::inlet::intake::socket::{self, SOCKET_MODE};
use countersign::inlet::intake::{BotAccess, HelloReply, Intake, IntakeConfig, IntakeMessage, IntakeRequest, Refusals};
use countersign::inlet::unix;
use countersign::kernel::event::Answer;
use countersign::kernel::intent::{IntentBody, IntentReply, Refusal, Registered};
use countersign::kernel::order::{Account, Bot, ClientId};
use countersign::kernel::time::Time;
use countersign::tag::TagKeys;
use countersign::tag::layout::KeyId;
use countersign::tag::mac::{KeyOwner, TagKey};

const NOW: Time = Time::from_millis(1_764_000_000_000);
const TOKEN: &str = "the token of mm-1";
const ACCESS_TOKEN: &str = "the token of the evidence";

/// What the stub does with a symbol: `SLOW…` is never answered, `LIMIT…` is outside the limits.
async fn daemon(mut messages: mpsc::Receiver<IntakeMessage>) -> Vec<u64> {
    let mut seen = Vec::new();
    let mut never_answered = Vec::new();
    while let Some(message) = messages.recv().await {
        match message {
            IntakeMessage::Intent(request) => {
                let IntakeRequest { record, reply } = request;
                seen.push(record.seq);
                let symbol = match &record.body {
                    IntentBody::Place(terms) => terms.symbol.as_str().to_owned(),
                    _ => String::new(),
                };
                if symbol.starts_with("SLOW") {
                    never_answered.push(reply);
                    continue;
                }
                let ids: Vec<ClientId> = match &record.body {
                    IntentBody::Place(terms) => vec![terms.client_order_id.clone()],
                    _ => Vec::new(),
                };
                let answer = if symbol.starts_with("LIMIT") {
                    Err(Refusal::OutsideLimits { limit: format!("symbol {symbol}").into() })
                } else {
                    Ok(Registered { client_order_ids: ids })
                };
                // A bot that has gone no longer waits.
                let _gone = reply.send(IntentReply {
                    seq: record.seq,
                    nonce: NOW,
                    heartbeat_wanted: false,
                    missing: 0,
                    answer,
                });
            }
            IntakeMessage::Hello { reply, .. } => {
                let _gone = reply.send(HelloReply { last_seq: 41, nonce: NOW });
            }
            IntakeMessage::Access { evidence, reply } => {
                let ours = evidence.address.is_ipv4();
                let answer = if ours { Answer::Done } else { Answer::Refused { reason: "no IPv6 here".into() } };
                let _gone = reply.send(answer);
            }
        }
    }
    seen
}

struct World {
    socket: PathBuf,
    http: SocketAddr,
    refusals: Arc<Refusals>,
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn config() -> IntakeConfig {
    IntakeConfig {
        bots: vec![
            BotAccess { bot: Bot::new("mm-1"), uids: None, token: Some(SecretString::from(TOKEN)) },
            BotAccess { bot: Bot::new("mm-2"), uids: Some(vec![own_user() + 1]), token: None },
        ],
        uids: vec![own_user()],
        access_token: Some(SecretString::from(ACCESS_TOKEN)),
        answer_within: Duration::from_millis(200),
        ..IntakeConfig::default()
    }
}

/// Runs a test against both servers and gives the sequences that reached the daemon.
async fn with_intake<F: Future<Output = ()>>(config: IntakeConfig, test: impl FnOnce(World) -> F) -> Vec<u64> {
    let folder = tempfile::tempdir().unwrap();
    let account = Account::new("main");
    let key = TagKey::derive(b"a secret of these tests", &account, KeyOwner::Daemon, KeyId::new(0).unwrap()).unwrap();
    let keys = Arc::new(TagKeys::new(account, "binance/spot", key, Vec::new(), Vec::new()).unwrap());
    let refusals = Arc::new(Refusals::default());
    let (sender, messages) = mpsc::channel(256);
    let intake = Arc::new(Intake::new(config, keys, || NOW, sender, Arc::clone(&refusals)));
    let shutdown = CancellationToken::new();
    let socket = folder.path().join("intake.sock");
    let unix_listener = unix::listen(&socket, SOCKET_MODE).unwrap();
    let tcp_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World { socket, http: tcp_listener.local_addr().unwrap(), refusals };

    let by_socket = socket::run(unix_listener, Arc::clone(&intake), shutdown.clone());
    let by_http = http::run(tcp_listener, intake, shutdown.clone());
    let test = async {
        test(world).await;
        shutdown.cancel();
    };
    let ((), by_http, seen, ()) = tokio::join!(by_socket, by_http, daemon(messages), test);
    by_http.unwrap();
    seen
}

struct Speaker {
    answers: Lines<BufReader<OwnedReadHalf>>,
    sink: OwnedWriteHalf,
}

impl Speaker {
    async fn connect(world: &World) -> Self {
        let (source, sink) = UnixStream::connect(&world.socket).await.unwrap().into_split();
        Self { answers: BufReader::new(source).lines(), sink }
    }

    async fn send(&mut self, text: &str) {
        self.sink.write_all(format!("{text}\n").as_bytes()).await.unwrap();
    }

    async fn answer(&mut self) -> Value {
        serde_json::from_str(&self.answers.next_line().await.unwrap().expect("an answer")).unwrap()
    }

    async fn ask(&mut self, record: &Value) -> Value {
        self.send(&record.to_string()).await;
        self.answer().await
    }
}

fn place(seq: u64) -> Value {
    json!({ "v": 1, "account": "main", "bot": "mm-1", "seq": seq, "at": NOW.millis(), "kind": "place", "symbol": "BTCUSDT",
        "side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "quantity": "0.01", "price": "60000" })
}

fn with(mut record: Value, name: &str, value: Value) -> Value {
    record[name] = value;
    record
}

#[tokio::test]
async fn an_intent_is_answered_with_the_id_to_use() {
    let seen = with_intake(config(), |world| async move {
        let mut bot = Speaker::connect(&world).await;
        let hello = bot.ask(&json!({ "v": 1, "account": "main", "bot": "mm-1", "kind": "hello" })).await;
        assert_eq!(hello, json!({ "v": 1, "ok": true, "last_seq": 41, "nonce": NOW.micros().to_string() }));
        let answer = bot.ask(&place(42)).await;
        assert_eq!((&answer["ok"], &answer["durable"], &answer["seq"]), (&json!(true), &json!(true), &json!(42)));
        let id = answer["client_order_id"].as_str().unwrap();
        assert_eq!(id.len(), 31);
        assert_eq!(answer["client_order_ids"], json!([id]));
        assert_eq!(bot.ask(&place(42)).await["client_order_id"], json!(id), "told twice, the same id");
    })
    .await;
    assert_eq!(seen, [42, 42]);
}

#[tokio::test]
async fn answers_keep_the_order_of_the_records_and_bad_ones_do_not_end_the_connection() {
    let seen = with_intake(config(), |world| async move {
        let mut bot = Speaker::connect(&world).await;
        bot.send(&place(1).to_string()).await;
        bot.send("noise").await;
        bot.send(&"x".repeat(20_000)).await;
        bot.send(&with(place(2), "quantity", json!(0.01)).to_string()).await;
        bot.send(&with(place(3), "symbol", json!("LIMITUSDT")).to_string()).await;
        bot.send(&with(place(4), "account", json!("other")).to_string()).await;
        bot.send(&with(place(5), "bot", json!("mm-3")).to_string()).await;
        bot.send(&with(place(6), "bot", json!("mm-2")).to_string()).await;
        bot.send(&with(place(7), "symbol", json!("SLOWUSDT")).to_string()).await;
        bot.send(&place(8).to_string()).await;
        for (seq, error) in [
            (json!(1), Value::Null),
            (Value::Null, json!("bad_json")),
            (Value::Null, json!("line_too_long")),
            (json!(2), json!("bad_field")),
            (json!(3), json!("outside_limits")),
            (json!(4), json!("wrong_account")),
            (json!(5), json!("unknown_bot")),
            (json!(6), json!("unauthorized")),
            (json!(7), json!("not_durable")),
            (json!(8), Value::Null),
        ] {
            let answer = bot.answer().await;
            assert_eq!((&answer["seq"], &answer["error"]), (&seq, &error), "{answer}");
            assert!(answer["ok"] == json!(true) || answer["hint"].is_string(), "{answer}");
        }
        assert_eq!(world.refusals.drain(), (6, 0));
        assert_eq!(world.refusals.drain(), (0, 0));
    })
    .await;
    assert_eq!(seen, [1, 3, 7, 8]);
}

#[tokio::test]
async fn a_flood_is_refused_and_the_first_second_of_it_is_not() {
    let config = IntakeConfig { records_per_second: 20, ..config() };
    let seen = with_intake(config, |world| async move {
        let mut bot = Speaker::connect(&world).await;
        let (mut taken, mut too_fast) = (0, 0);
        let sending = async {
            for seq in 1..=500 {
                bot.sink.write_all(format!("{}\n", place(seq)).as_bytes()).await.unwrap();
            }
        };
        let counting = async {
            for _ in 1..=500 {
                let answer: Value = serde_json::from_str(&bot.answers.next_line().await.unwrap().unwrap()).unwrap();
                if answer["ok"] == json!(true) {
                    taken += 1;
                } else {
                    assert_eq!(answer["error"], json!("too_fast"));
                    too_fast += 1;
                }
            }
        };
        tokio::join!(sending, counting);
        assert_eq!((taken, too_fast), (20, 480));
        assert_eq!(world.refusals.drain(), (480, 0));
    })
    .await;
    assert_eq!(seen.len(), 20);
}

#[tokio::test]
async fn the_socket_takes_its_users_and_as_many_connections_as_it_may() {
    let strangers = IntakeConfig { uids: vec![own_user() + 1], ..config() };
    with_intake(strangers, |world| async move {
        assert_eq!(Speaker::connect(&world).await.answer().await["error"], json!("unauthorized"));
    })
    .await;
    with_intake(IntakeConfig { connections_max: 1, ..config() }, |world| async move {
        let mut first = Speaker::connect(&world).await;
        first.ask(&place(1)).await;
        let mut second = Speaker::connect(&world).await;
        assert_eq!(second.answer().await["error"], json!("too_many_connections"));
        assert_eq!(first.ask(&place(2)).await["ok"], json!(true));
    })
    .await;
}

#[tokio::test]
async fn a_full_daemon_is_said_at_once_and_an_ended_one_too() {
    let account = Account::new("main");
    let key = TagKey::derive(b"a secret of these tests", &account, KeyOwner::Daemon, KeyId::new(0).unwrap()).unwrap();
    let keys = Arc::new(TagKeys::new(account, "binance/spot", key, Vec::new(), Vec::new()).unwrap());
    let (sender, messages) = mpsc::channel(1);
    let intake = Arc::new(Intake::new(config(), keys, || NOW, sender, Arc::new(Refusals::default())));
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("intake.sock");
    let listener = unix::listen(&socket, SOCKET_MODE).unwrap();
    let shutdown = CancellationToken::new();
    let world = World { socket, http: SocketAddr::from(([127, 0, 0, 1], 1)), refusals: Arc::default() };
    let test = async {
        let mut bot = Speaker::connect(&world).await;
        bot.send(&place(1).to_string()).await;
        bot.send(&place(2).to_string()).await;
        assert_eq!(bot.answer().await["error"], json!("not_durable"));
        assert_eq!(bot.answer().await["error"], json!("busy"));
        drop(messages);
        assert_eq!(bot.ask(&place(3)).await["error"], json!("busy"));
        shutdown.cancel();
    };
    tokio::join!(socket::run(listener, intake, shutdown.clone()), test);
}

/// One request on a connection of its own: the status, the headers and the body.
async fn request(address: SocketAddr, head: &str, body: &str) -> (u16, BTreeMap<String, String>, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    // A refusal may close the connection before a long body is sent.
    let _refused_early = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    let _reset_after_the_answer = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    (status, headers, serde_json::from_str(body).unwrap())
}

async fn post(address: SocketAddr, path: &str, token: &str, body: &str) -> (u16, Value) {
    let head = format!("POST {path} HTTP/1.1\r\nauthorization: Bearer {token}\r\ncontent-type: application/json");
    let (status, headers, answer) = request(address, &head, body).await;
    assert_eq!(headers["content-type"], "application/json");
    (status, answer)
}

#[tokio::test]
async fn http_answers_as_the_socket_does() {
    let seen = with_intake(config(), |world| async move {
        let (status, answer) = post(world.http, "/v1/intents", TOKEN, &place(1).to_string()).await;
        assert_eq!((status, &answer["ok"]), (200, &json!(true)));
        assert_eq!(answer["client_order_id"].as_str().map(str::len), Some(31));
        for (body, status, error) in [
            ("noise".to_owned(), 400, "bad_json"),
            (with(place(2), "symbol", json!("LIMITUSDT")).to_string(), 422, "outside_limits"),
            (with(place(3), "symbol", json!("SLOWUSDT")).to_string(), 504, "not_durable"),
            (with(place(4), "bot", json!("mm-2")).to_string(), 401, "unauthorized"),
            (format!("\"{}\"", "x".repeat(17_000)), 413, "line_too_long"),
        ] {
            let (code, answer) = post(world.http, "/v1/intents", TOKEN, &body).await;
            assert_eq!((code, &answer["error"]), (status, &json!(error)), "{answer}");
            assert!(!answer["hint"].as_str().unwrap().contains("next line"), "a word of the socket's: {answer}");
        }
        assert_eq!(world.refusals.drain(), (3, 0));
    })
    .await;
    assert_eq!(seen, [1, 2, 3]);
}

#[tokio::test]
async fn http_says_in_json_what_it_does_not_serve() {
    with_intake(config(), |world| async move {
        let typed = "content-type: application/json";
        let authorised = format!("authorization: Bearer {TOKEN}");
        for (head, status, error) in [
            (format!("GET / HTTP/1.1\r\n{typed}"), 404, "not_found"),
            (format!("GET /v1/intents HTTP/1.1\r\n{authorised}"), 405, "method_not_allowed"),
            (format!("POST /v1/intents HTTP/1.1\r\n{authorised}"), 415, "unsupported_media_type"),
            (format!("POST /v1/intents HTTP/1.1\r\n{typed}"), 401, "unauthorized"),
            (format!("POST /v1/intents HTTP/1.1\r\n{typed}\r\nauthorization: Bearer no"), 401, "unauthorized"),
            (format!("POST /v1/intents HTTP/1.1\r\n{typed}\r\nauthorization: Basic {TOKEN}"), 401, "unauthorized"),
            (format!("POST /v1/access HTTP/1.1\r\n{typed}\r\n{authorised}"), 401, "unauthorized"),
        ] {
            let (code, headers, answer) = request(world.http, &head, "{}").await;
            assert_eq!((code, &answer["error"]), (status, &json!(error)), "{head}: {answer}");
            assert_eq!(headers.get("allow").map(String::as_str), (status == 405).then_some("POST"));
        }
    })
    .await;
}

/// One request on a connection that stays open; the status line and the rest of the answer.
async fn ask(stream: &mut TcpStream, token: &str, body: &str) -> String {
    let head = format!("POST /v1/intents HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}");
    let text = format!("{head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with('}') {
        let mut chunk = [0; 4096];
        let length = stream.read(&mut chunk).await.unwrap();
        assert!(length > 0, "the connection ended: {answer:?}");
        answer.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
    }
    answer
}

#[tokio::test]
async fn a_slow_bot_keeps_its_connection_and_a_stranger_does_not() {
    let config = IntakeConfig { connections_max: 2, ..config() };
    let seen = with_intake(config, |world| async move {
        let mut bot = TcpStream::connect(world.http).await.unwrap();
        assert!(ask(&mut bot, TOKEN, &place(1).to_string()).await.starts_with("HTTP/1.1 200"));
        let mut stranger = TcpStream::connect(world.http).await.unwrap();
        assert!(ask(&mut stranger, "no", "{}").await.starts_with("HTTP/1.1 401"));
        let (status, answer) = post(world.http, "/v1/intents", TOKEN, &place(2).to_string()).await;
        assert_eq!((status, &answer["error"]), (503, &json!("too_many_connections")));
        assert_eq!(stranger.read(&mut [0; 1]).await.unwrap(), 0, "5 s from its start it ends");
        assert!(ask(&mut bot, TOKEN, &place(3).to_string()).await.starts_with("HTTP/1.1 200"), "idle for as long");
        let (status, _) = post(world.http, "/v1/intents", TOKEN, &place(4).to_string()).await;
        assert_eq!(status, 200, "the place is free again");
    })
    .await;
    assert_eq!(seen, [1, 3, 4]);
}

#[tokio::test]
async fn evidence_has_its_own_route_and_token() {
    with_intake(config(), |world| async move {
        let row = |address: &str, source: &str| {
            json!({ "v": 1, "account": "main", "at": NOW.millis(), "address": address, "source": source }).to_string()
        };
        for (token, row, status) in [
            (ACCESS_TOKEN, row("203.0.113.7", "venue"), 200),
            (ACCESS_TOKEN, row("2001:db8::7", "venue"), 422),
            (ACCESS_TOKEN, row("203.0.113.7", "bot_egress"), 400),
            (TOKEN, row("203.0.113.7", "venue"), 401),
        ] {
            let (code, answer) = post(world.http, "/v1/access", token, &row).await;
            assert_eq!(code, status, "{answer}");
        }
        assert_eq!(world.refusals.drain(), (0, 2));
        let (code, _) = post(world.http, "/v1/intents", ACCESS_TOKEN, &place(1).to_string()).await;
        assert_eq!(code, 401);
    })
    .await;
}
