//! Signed reads over loopback, against a venue that answers what it is told to.

#![expect(clippy::disallowed_methods, reason = "a test plays the daemon's part: it spawns, and reads the clock")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use countersign::kernel::event::{OrderRef, ReadOutcome, ReadRequest};
use countersign::kernel::order::{OrderId, Symbol};
use countersign::kernel::time::Time;
use countersign::outlet::exchange::Exchange;
use countersign::tls;
use countersign::venue::binance::ApiCredential;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const ORDER: &str = r#"{"symbol":"BTCUSDT","orderId":7,"orderListId":-1,"clientOrderId":"a","price":"1.50","origQty":"2",
    "executedQty":"0","cummulativeQuoteQty":"0","status":"NEW","timeInForce":"GTC","type":"LIMIT","side":"BUY",
    "stopPrice":"0","icebergQty":"0","time":1764000000000,"origQuoteOrderQty":"0","selfTradePreventionMode":"NONE"}"#;

#[tokio::test]
async fn reads_are_signed_with_the_venues_time_and_read_exactly() {
    let ahead = 60_000;
    let mut bench = Bench::start(ahead, vec![(200, "", format!("[{ORDER}]"))]).await;
    let ReadOutcome::OpenOrders(orders) = bench.read(&ReadRequest::OpenOrders).await else { panic!("it was granted") };
    assert_eq!(orders[0].price.to_string(), "1.5");
    assert_eq!(orders[0].order_id, OrderId(7));

    let request = bench.requests().pop().unwrap();
    assert!(request.contains("x-mbx-apikey: key"), "{request}");
    let query = request.split_once("/api/v3/openOrders?").unwrap().1.split_once(' ').unwrap().0;
    let (payload, signature) = query.split_once("&signature=").unwrap();
    assert_eq!(signature, credential().sign(payload));
    let at: i64 = payload.strip_prefix("timestamp=").unwrap().parse().unwrap();
    assert!((at - now().millis() - ahead).abs() < 5_000, "signed with the exchange's clock");

    bench.answers([(200, "", r#"{"balances":[{"asset":"BTC","free":"1.0","locked":"0"}]}"#)]);
    let ReadOutcome::Balances(balances) = bench.read(&ReadRequest::Balances).await else { panic!("it was granted") };
    assert_eq!(balances[0].free.to_string(), "1");
    let asked_time = bench.requests().iter().filter(|request| request.starts_with("GET /api/v3/time ")).count();
    assert_eq!(asked_time, 1, "the offset is kept");
}

#[tokio::test]
async fn an_unknown_order_is_not_found_and_everything_else_is_unknown() {
    let missing = r#"{"code":-2013,"msg":"Order does not exist."}"#;
    for (status, body, expected) in [
        (200, ORDER, "found"),
        (400, missing, "not found"),
        (401, r#"{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}"#, "code -2015"),
        (503, "<html>", "failed with status 503"),
        (200, "", "cannot be read"),
        (200, "{}", "cannot be read"),
        (307, "", "failed with status 307"),
    ] {
        let mut bench = Bench::start(0, vec![(status, "Location: /elsewhere\r\n", body.to_owned())]).await;
        match bench.read(&one_order()).await {
            ReadOutcome::Order(order) => assert_eq!((expected, order.order_id), ("found", OrderId(7))),
            ReadOutcome::NotFound => assert_eq!(expected, "not found"),
            ReadOutcome::Unknown { reason } => assert!(reason.contains(expected), "{reason} for {expected}"),
            other => panic!("{other:?}"),
        }
    }
    let mut bench = Bench::start(0, vec![(400, "", missing.to_owned())]).await;
    assert!(matches!(bench.read(&ReadRequest::OpenOrders).await, ReadOutcome::Unknown { .. }));
}

#[tokio::test]
async fn a_refused_time_is_asked_again_once() {
    let refused = (400, "", r#"{"code":-1021,"msg":"Timestamp for this request is outside of the recvWindow."}"#);
    let mut bench = Bench::start(0, vec![]).await;
    bench.answers([refused, (200, "", "[]")]);
    assert_eq!(bench.read(&ReadRequest::OpenOrders).await, ReadOutcome::OpenOrders(vec![]));
    bench.answers([refused, refused]);
    let ReadOutcome::Unknown { reason } = bench.read(&ReadRequest::OpenOrders).await else { panic!("refused twice") };
    assert!(reason.contains("-1021"), "{reason}");
    assert!(bench.left().is_empty(), "no third attempt, no answer left");
}

#[tokio::test]
async fn limits_and_bans_hold_the_next_read_back() {
    for (status, headers) in [(429, "Retry-After: 30\r\n"), (418, "Retry-After: 600\r\n"), (403, ""), (418, "")] {
        let body = r#"{"code":-1003,"msg":"Too much request weight used."}"#.to_owned();
        let mut bench = Bench::start(0, vec![(status, headers, body)]).await;
        assert!(matches!(bench.read(&ReadRequest::OpenOrders).await, ReadOutcome::Unknown { .. }));
        let before = bench.requests().len();
        let ReadOutcome::Unknown { reason } = bench.read(&ReadRequest::Balances).await else { panic!("{status}") };
        assert!(reason.contains("held back until"), "{reason}");
        assert_eq!(bench.requests().len(), before, "nothing was sent");
    }
    let mut bench = Bench::start(0, vec![(200, "X-MBX-USED-WEIGHT-1M: 5900\r\n", "[]".to_owned())]).await;
    assert_eq!(bench.read(&ReadRequest::OpenOrders).await, ReadOutcome::OpenOrders(vec![]));
    let ReadOutcome::Unknown { reason } = bench.read(&ReadRequest::Balances).await else {
        panic!("the budget is spent")
    };
    assert!(reason.contains("request weight"), "{reason}");
}

#[tokio::test]
async fn no_reason_holds_a_url() {
    let mut bench = Bench::start(0, vec![]).await;
    bench.answers([(200, "", "[]")]);
    assert_eq!(bench.read(&ReadRequest::OpenOrders).await, ReadOutcome::OpenOrders(vec![]));
    // No answer left: the venue cuts the connection.
    let ReadOutcome::Unknown { reason } = bench.read(&ReadRequest::OpenOrders).await else { panic!("it was cut") };
    assert!(reason.contains("cannot be reached"), "{reason}");
    assert!(!reason.contains("http") && !reason.contains("signature") && !reason.contains("127.0.0.1"), "{reason}");
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let mut bench = Bench::start(0, vec![(200, "", "x".repeat(9 << 20))]).await;
    let ReadOutcome::Unknown { reason } = bench.read(&ReadRequest::OpenOrders).await else { panic!("it is too long") };
    assert!(reason.contains("longer than"), "{reason}");
}

fn one_order() -> ReadRequest {
    ReadRequest::Order { symbol: Symbol::new("BTCUSDT"), order: OrderRef::Id(OrderId(7)) }
}

fn credential() -> ApiCredential {
    ApiCredential::new("key".into(), "secret".into()).unwrap()
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Time::from_micros(i64::try_from(since.as_micros()).unwrap())
}

type Answer = (u16, &'static str, String);

struct Bench {
    exchange: Exchange,
    script: Arc<Mutex<Script>>,
}

struct Script {
    answers: VecDeque<Answer>,
    requests: Vec<String>,
}

impl Bench {
    async fn start(ahead_ms: i64, answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script { answers: answers.into(), requests: Vec::new() }));
        tokio::spawn(serve(listener, script.clone(), ahead_ms));
        let http = tls::http_client(&tls::client_config(None).unwrap()).unwrap();
        Self { exchange: Exchange::new(&url, Arc::new(credential()), http), script }
    }

    async fn read(&mut self, request: &ReadRequest) -> ReadOutcome {
        self.exchange.read(request, &now).await
    }

    fn answers<const N: usize>(&self, answers: [(u16, &'static str, &str); N]) {
        let answers = answers.map(|(status, headers, body)| (status, headers, body.to_owned()));
        self.script.lock().unwrap().answers.extend(answers);
    }

    fn left(&self) -> VecDeque<Answer> {
        self.script.lock().unwrap().answers.clone()
    }

    fn requests(&self) -> Vec<String> {
        self.script.lock().unwrap().requests.clone()
    }
}

/// One request a connection; the clock always answers, everything else by the script.
async fn serve(listener: TcpListener, script: Arc<Mutex<Script>>, ahead_ms: i64) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 8_192];
        let length = stream.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..length]).to_lowercase().replace("openorders", "openOrders");
        let clock = request.starts_with("get /api/v3/time ");
        let answer = {
            let mut script = script.lock().unwrap();
            script.requests.push(request.replacen("get ", "GET ", 1));
            if clock {
                Some((200, "", format!(r#"{{"serverTime":{}}}"#, now().millis() + ahead_ms)))
            } else {
                script.answers.pop_front()
            }
        };
        let Some((status, headers, body)) = answer else { continue };
        let head =
            format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        let _ = stream.write_all((head + &body).as_bytes()).await;
    }
}
