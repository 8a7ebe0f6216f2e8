//! The simulated exchange over loopback sockets: REST and WebSocket API on one port, as clients meet it.

#![expect(clippy::disallowed_methods, reason = "a test plays the daemon's part: it spawns, and reads the clock")]

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use countersign::kernel::time::Time;
use countersign::sim::client::{ClientError, Credential, RestClient, sign};
use countersign::sim::config::{KeySpec, SimConfig};
use countersign::sim::listener::serve;
use countersign::sim::thief::{Plan, plant_key, steal};
use data_encoding::BASE64;
use ed25519_dalek::pkcs8::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer, SigningKey};
use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::sync::{CancellationToken, DropGuard};

const WITHIN: Duration = Duration::from_secs(10);

fn clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Time::from_micros(i64::try_from(since.as_micros()).unwrap())
}

struct Venue {
    address: SocketAddr,
    config: SimConfig,
    _shutdown: DropGuard,
}

impl Venue {
    async fn start(adjust: impl FnOnce(&mut SimConfig)) -> Self {
        let mut config = SimConfig::demo(1, 2, clock);
        config.price_step = None;
        adjust(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(listener, config.clone(), shutdown.clone()));
        Self { address, config, _shutdown: shutdown.drop_guard() }
    }

    fn key(&self, account: usize, name: &str) -> Credential {
        let key = self.config.accounts[account].keys.iter().find(|key| key.name.ends_with(name)).unwrap();
        Credential { api_key: key.api_key.clone(), secret: key.secret.clone().unwrap() }
    }

    fn admin(&self, from: &str) -> RestClient {
        let master = self.config.accounts.len() - 1;
        let (base, key) = (format!("http://{}", self.address), self.key(master, "/admin"));
        RestClient::calling_from(Some(from.parse().unwrap()), &base, key, "admin", clock).unwrap()
    }

    fn uid(&self, account: usize) -> u64 {
        self.config.accounts[account].uid
    }

    fn client(&self, account: usize, name: &str, agent: &str) -> RestClient {
        RestClient::new(&format!("http://{}", self.address), self.key(account, name), agent, clock).unwrap()
    }

    async fn control(&self, method: Method, path: &str, body: &Value) -> Value {
        let url = format!("http://{}/sim/v1/{path}", self.address);
        let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
        let tls = tls.with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let http = reqwest::Client::builder().use_preconfigured_tls(tls).no_proxy().build().unwrap();
        let answer = http.request(method, url).body(body.to_string()).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    async fn inflict(&self, faults: Value) {
        self.control(Method::POST, "faults", &faults).await;
    }

    async fn ledger(&self) -> Vec<Value> {
        self.control(Method::GET, "ledger", &json!({})).await["rows"].as_array().unwrap().clone()
    }

    async fn connect(&self) -> Socket {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let url = format!("ws://{}/ws-api/v3?returnRateLimits=false", self.address);
        Socket(client_async(url, stream).await.unwrap().0)
    }
}

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn text(&mut self) -> Option<String> {
        loop {
            match tokio::time::timeout(WITHIN, self.0.next()).await.expect("a frame in time") {
                Some(Ok(Message::Text(text))) => return Some(text.to_string()),
                Some(Ok(Message::Ping(_))) => {}
                Some(Ok(_) | Err(_)) | None => return None,
            }
        }
    }

    async fn next(&mut self) -> Value {
        serde_json::from_str(&self.text().await.unwrap()).unwrap()
    }

    async fn send(&mut self, text: String) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// Sends a request and reads up to its reply.
    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.send(json!({ "id": method, "method": method, "params": params }).to_string()).await;
        loop {
            let frame = self.next().await;
            if frame["id"] == method {
                return frame;
            }
        }
    }

    async fn subscribe(&mut self, key: &Credential) -> Value {
        let timestamp = clock().millis();
        let signature = sign(&key.secret, &format!("apiKey={}&timestamp={timestamp}", key.api_key));
        let params = json!({ "apiKey": key.api_key, "timestamp": timestamp, "signature": signature });
        self.ask("userDataStream.subscribe.signature", params).await
    }

    async fn report(&mut self) -> Value {
        loop {
            let frame = self.next().await;
            if frame["event"]["e"] == "executionReport" {
                return frame;
            }
        }
    }
}

fn low_buy(id: &str) -> Vec<(&str, &str)> {
    let order = "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTC&quantity=0.001&price=50000";
    let mut order: Vec<_> = order.split('&').filter_map(|pair| pair.split_once('=')).collect();
    order.push(("newClientOrderId", id));
    order
}

fn code(result: Result<Value, ClientError>) -> (u16, i64) {
    match result {
        Err(ClientError::Refused { status, code, .. }) => (status, code),
        other => panic!("a refusal was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn an_order_reaches_every_subscription_of_its_account() {
    let venue = Venue::start(|_| {}).await;
    let (mut one, mut two) = (venue.connect().await, venue.connect().await);
    assert_eq!(one.subscribe(&venue.key(1, "watch")).await["result"], json!({ "subscriptionId": 0 }));
    assert_eq!(one.subscribe(&venue.key(0, "watch")).await["result"], json!({ "subscriptionId": 1 }));
    assert_eq!(one.subscribe(&venue.key(0, "bot")).await["error"]["code"], -2035);
    assert_eq!(two.subscribe(&venue.key(0, "watch")).await["status"], 200);
    let listed = one.ask("session.subscriptions", json!({})).await;
    assert_eq!(listed["result"], json!([{ "subscriptionId": 0 }, { "subscriptionId": 1 }]));

    let answer = venue.client(0, "bot", "bot/1").place(&low_buy("b-1")).await.unwrap();
    let (first, second) = (one.report().await, two.report().await);
    assert_eq!((&first["subscriptionId"], &second["subscriptionId"]), (&json!(1), &json!(0)));
    assert_eq!(first["event"], second["event"]);
    assert_eq!((&first["event"]["i"], &first["event"]["c"]), (&answer["orderId"], &json!("b-1")));

    let ended = one.ask("userDataStream.unsubscribe", json!({ "subscriptionId": 1 })).await;
    assert_eq!(ended["status"], 200);
    venue.client(0, "bot", "bot/1").cancel("BTCUSDT", "b-1", Some("c-1")).await.unwrap();
    let canceled = two.report().await;
    assert_eq!((&canceled["event"]["c"], &canceled["event"]["C"]), (&json!("c-1"), &json!("b-1")));

    let rows = venue.ledger().await;
    let told: Vec<_> = rows.iter().map(|row| (&row["kind"], &row["subscribed"], &row["sent"], &row["key"])).collect();
    let key = json!("main/bot");
    assert_eq!(told, [(&json!("NEW"), &json!(2), &json!(2), &key), (&json!("CANCELED"), &json!(1), &json!(1), &key)]);
}

#[tokio::test]
async fn ids_come_back_as_they_were_sent() {
    let venue = Venue::start(|_| {}).await;
    let mut socket = venue.connect().await;
    for id in ["\"a-1\"", "17", "null", "9007199254740993"] {
        socket.send(format!(r#"{{"id":{id},"method":"ping"}}"#)).await;
        assert_eq!(socket.text().await.unwrap(), format!(r#"{{"id":{id},"status":200,"result":{{}}}}"#));
    }
    socket.send("not json".to_owned()).await;
    assert_eq!(socket.next().await["status"], 400);
    assert_eq!(socket.ask("no.such", json!({})).await["status"], 400);
}

#[tokio::test]
async fn keys_are_held_to_what_they_may() {
    let signing = SigningKey::from_bytes(&[7; 32]);
    let pem = signing.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    let venue = Venue::start(|config| {
        let key = |name: &str, addresses: &[&str]| KeySpec {
            name: name.to_owned(),
            api_key: name.to_owned(),
            secret: None,
            public_key: Some(pem.clone()),
            trade: true,
            permissions: None,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        };
        config.accounts[0].keys.extend([key("ed", &[]), key("elsewhere", &["127.0.0.77"])]);
    })
    .await;
    let bot = venue.key(0, "bot");
    let base = format!("http://{}", venue.address);
    let with = |api_key: &str, secret: &str, clock| {
        let credential = Credential { api_key: api_key.to_owned(), secret: secret.to_owned() };
        RestClient::new(&base, credential, "test", clock).unwrap()
    };
    let late: fn() -> Time = || clock() - Duration::from_secs(10);
    let early: fn() -> Time = || clock() + Duration::from_secs(10);
    for (client, refused) in [
        (with(&bot.api_key, "wrong", clock), (400, -1022)),
        (with("nobody", "wrong", clock), (401, -2015)),
        (with("", "wrong", clock), (401, -2014)),
        (with("elsewhere", "wrong", clock), (401, -2015)),
        (with(&bot.api_key, &bot.secret, late), (400, -1021)),
        (with(&bot.api_key, &bot.secret, early), (400, -1021)),
        (venue.client(0, "watch", "test"), (401, -2015)),
    ] {
        assert_eq!(code(client.place(&low_buy("x")).await), refused);
    }

    let mut socket = venue.connect().await;
    assert_eq!(socket.ask("session.logon", json!({ "apiKey": bot.api_key })).await["error"]["code"], -4056);
    assert_eq!(socket.ask("userDataStream.subscribe", json!({})).await["status"], 401);
    let timestamp = clock().millis();
    let signature = BASE64.encode(&signing.sign(format!("apiKey=ed&timestamp={timestamp}").as_bytes()).to_bytes());
    let logon = json!({ "apiKey": "ed", "timestamp": timestamp, "signature": signature });
    assert_eq!(socket.ask("session.logon", logon).await["result"]["apiKey"], "ed");
    assert_eq!(socket.ask("userDataStream.subscribe", json!({})).await["result"]["subscriptionId"], 0);
    let order = json!({
        "symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01", "timestamp": clock().millis(),
    });
    assert_eq!(socket.ask("order.place", order).await["result"]["status"], "FILLED");
    assert_eq!(socket.report().await["event"]["x"], "NEW");

    venue.inflict(json!([{ "fault": "delete_key", "key": "ed" }])).await;
    socket.send(r#"{"id":1,"method":"ping"}"#.to_owned()).await;
    loop {
        let frame = socket.next().await;
        if frame["status"] == 401 {
            assert_eq!((&frame["id"], &frame["error"]["code"]), (&Value::Null, &json!(-2015)));
            break;
        }
    }
}

#[tokio::test]
async fn faults_strike_as_ordered() {
    let venue = Venue::start(|_| {}).await;
    let (bot, uid) = (venue.client(0, "bot", "bot"), venue.uid(0));
    let mut socket = venue.connect().await;
    socket.subscribe(&venue.key(0, "watch")).await;
    // Each order makes two events: its report and the balances.
    venue.inflict(json!([{ "fault": "drop", "count": 2 }, { "fault": "duplicate", "count": 1, "account": uid }])).await;
    bot.place(&low_buy("dropped")).await.unwrap();
    bot.place(&low_buy("twice")).await.unwrap();
    assert_eq!(socket.report().await["event"]["c"], "twice");
    assert_eq!(socket.report().await["event"]["c"], "twice");

    venue.inflict(json!([{ "fault": "reorder", "count": 1 }])).await;
    bot.place(&low_buy("reordered")).await.unwrap();
    assert_eq!(socket.next().await["event"]["e"], "outboundAccountPosition");
    loop {
        let frame = socket.next().await;
        if frame["event"]["c"] == "reordered" {
            break;
        }
    }
    venue.inflict(json!([{ "fault": "unknown_event" }, { "fault": "server_shutdown" }])).await;
    assert_eq!(socket.next().await["event"]["e"], "neverHeardOf");
    let shutdown = socket.next().await;
    assert_eq!((&shutdown["event"]["e"], shutdown.get("subscriptionId")), (&json!("serverShutdown"), None));

    venue.inflict(json!([{ "fault": "garble", "count": 1 }, { "fault": "unlisted" }])).await;
    bot.place(&low_buy("garbled")).await.unwrap();
    assert!(serde_json::from_str::<Value>(&socket.text().await.unwrap()).is_err());
    assert_eq!(socket.ask("session.subscriptions", json!({})).await["result"], json!([]));

    venue.inflict(json!([{ "fault": "refuse", "status": 429, "count": 1, "retry_after": 1 }])).await;
    assert_eq!(code(bot.open_orders(None).await), (429, -1003));
    assert_eq!(bot.open_orders(None).await.unwrap().as_array().unwrap().len(), 4);
    venue.inflict(json!([{ "fault": "clock_offset", "ms": 60_000 }])).await;
    assert_eq!(code(bot.open_orders(None).await), (400, -1021));
    venue.inflict(json!([{ "fault": "clear" }, { "fault": "close" }])).await;
    while socket.text().await.is_some() {}
}

#[tokio::test]
async fn a_half_open_connection_is_mute_and_stays() {
    let venue = Venue::start(|_| {}).await;
    let (mut mute, mut other) = (venue.connect().await, venue.connect().await);
    venue.inflict(json!([{ "fault": "half_open", "connection": 1 }])).await;
    mute.send(r#"{"id":1,"method":"ping"}"#.to_owned()).await;
    assert_eq!(other.ask("ping", json!({})).await["status"], 200);
    let silence = tokio::time::timeout(Duration::from_millis(100), mute.0.next()).await;
    assert!(silence.is_err(), "neither an answer nor an end");
}

#[tokio::test]
async fn a_connection_has_pings_and_an_end() {
    let venue = Venue::start(|config| {
        config.ping_every = Duration::from_millis(20);
        config.connection_life = Duration::from_millis(200);
    })
    .await;
    let mut socket = venue.connect().await;
    let mut pings = 0;
    while let Some(Ok(frame)) = socket.0.next().await {
        pings += u32::from(frame.is_ping());
    }
    assert!(pings > 1);
    assert!(TcpStream::connect(venue.address).await.is_ok());
}

#[tokio::test]
async fn the_thief_is_told_apart_in_the_ledger() {
    let venue = Venue::start(|_| {}).await;
    let bot = venue.client(0, "bot", "bot");
    let mut filled = low_buy("bot-1");
    filled.retain(|(name, _)| *name != "price");
    filled.push(("price", "60100"));
    bot.place(&filled).await.unwrap();
    let plan = Plan {
        thin_symbol: "VIABTC".to_owned(),
        orders: 3,
        quantity: "200".to_owned(),
        bot_symbol: "BTCUSDT".to_owned(),
    };
    let loot = steal(&venue.client(0, "bot", "thief"), &plan).await.unwrap();
    assert_eq!((loot.orders.len(), loot.replayed.as_deref()), (4, Some("bot-1")));
    let rows = venue.ledger().await;
    let foreign: Vec<_> = rows.iter().filter(|row| row["agent"] == "thief" && row["kind"] == "NEW").collect();
    let named: Vec<_> = foreign.iter().map(|row| row["order_id"].as_i64().unwrap()).collect();
    assert_eq!(named, loot.orders.iter().map(|(_, id, _)| *id).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_firehose_runs_at_its_rate() {
    let venue = Venue::start(|_| {}).await;
    let mut socket = venue.connect().await;
    socket.subscribe(&venue.key(0, "watch")).await;
    let flow = json!({ "account": venue.uid(0), "per_second": 500, "seconds": 1, "client_prefix": "fire-" });
    venue.control(Method::POST, "firehose", &flow).await;
    for _ in 0..500 {
        assert!(socket.report().await["event"]["C"].as_str().unwrap().len() <= 36);
    }
}

const KEYS: &str = "/sapi/v1/sub-account/subAccountApi";
const EMAIL: &str = "main+bot@example.com";

fn lost(result: Result<Value, ClientError>) -> bool {
    matches!(result, Err(ClientError::Transport(_)))
}

#[tokio::test]
async fn a_planted_key_lives_until_the_master_deletes_it() {
    let venue = Venue::start(|_| {}).await;
    let (here, elsewhere) = (venue.admin("127.0.0.1"), venue.admin("127.0.0.2"));
    assert_eq!(code(elsewhere.signed(Method::GET, KEYS, &[("email", EMAIL)]).await), (401, -2015));
    let planted = plant_key(&here, EMAIL, "spare").await.unwrap();
    let base = format!("http://{}", venue.address);
    let intruder = RestClient::new(&base, planted.clone(), "intruder", clock).unwrap();
    intruder.place(&low_buy("planted")).await.unwrap();
    let target = [("email", EMAIL), ("subAccountApiKey", planted.api_key.as_str())];
    let listed = here.signed(Method::GET, KEYS, &target).await.unwrap();
    assert_eq!((&listed["rows"][0]["apiName"], &listed["rows"][0]["email"]), (&json!("spare"), &json!(EMAIL)));

    assert!(intruder.keyed(Method::GET, "/sapi/v1/margin/allPairs").await.is_ok());
    assert_eq!(here.signed(Method::DELETE, KEYS, &target).await.unwrap(), json!({}));
    assert_eq!(code(intruder.keyed(Method::GET, "/sapi/v1/margin/allPairs").await), (400, -2008));
    assert_eq!(code(intruder.place(&low_buy("late")).await), (401, -2015));
    // The order outlives the key; whoever may trade for the account may end it.
    venue.client(0, "/cancel", "guard").cancel_all("BTCUSDT").await.unwrap();
    let told: Vec<_> = venue
        .ledger()
        .await
        .iter()
        .filter(|row| !row["changed_key"].is_null())
        .map(|row| (row["kind"].clone(), row["key"].clone(), row["changed_api_key"].clone()))
        .collect();
    let by_master = |kind: &str| (json!(kind), json!("master/admin"), json!(planted.api_key));
    assert_eq!(told, [by_master("KEY_CREATED"), by_master("KEY_DELETED")]);
}

#[tokio::test]
async fn calls_are_cut_held_and_garbled_over_sockets() {
    let venue = Venue::start(|_| {}).await;
    let (bot, watch) = (venue.client(0, "/bot", "bot"), venue.client(0, "/watch", "watch"));
    let order = |what: Value| json!([{ "fault": "endpoint", "method": "POST", "path": "/api/v3/order", "count": 1, "do": what }]);
    let open = async || watch.open_orders(None).await.unwrap().as_array().unwrap().len();
    for (number, (what, placed)) in [
        (json!("cut"), 0),
        (json!("cut_after"), 1),
        (json!({ "answer": { "status": 503, "code": -1008, "msg": "busy" } }), 1),
        (json!("unknown_after"), 2),
        (json!("garbage"), 3),
    ]
    .into_iter()
    .enumerate()
    {
        venue.inflict(order(what.clone())).await;
        let result = bot.place(&low_buy(&format!("f-{number}"))).await;
        match what.as_str() {
            Some("cut" | "cut_after") => assert!(lost(result), "{what}"),
            Some("unknown_after") => assert_eq!(code(result), (504, -1007)),
            Some(_) => assert!(matches!(result, Err(ClientError::Answer(_))), "{what}"),
            None => assert_eq!(code(result), (503, -1008)),
        }
        assert_eq!(open().await, placed, "{what}");
    }
    venue.inflict(order(json!({ "hold": { "ms": 300 } }))).await;
    let held_order = low_buy("held");
    let (result, meanwhile) = tokio::join!(bot.place(&held_order), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        open().await
    });
    assert_eq!((meanwhile, open().await), (3, 4));
    assert_eq!(result.unwrap()["clientOrderId"], "held");
}
