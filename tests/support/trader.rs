//! A bot as it should be: it tells before it sends, keeps a record until it is acknowledged, tells it again on a new
//! connection under the same number, and says how each order ended.

use std::path::PathBuf;
use std::time::Duration;

use countersign::clock;
use countersign::sim::client::{ClientError, RestClient};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;

const BEAT_EVERY: Duration = Duration::from_millis(250);
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(20);

pub struct Trader {
    pub name: &'static str,
    pub exchange: RestClient,
    pub socket: PathBuf,
    /// Between two orders.
    pub pause: Duration,
    /// Each number that was acknowledged as durable, and the id that was given for it.
    pub acknowledged: Vec<(u64, Option<String>)>,
    seq: u64,
    nonce: Option<String>,
    line: Option<(Lines<BufReader<OwnedReadHalf>>, OwnedWriteHalf)>,
}

impl Trader {
    pub fn new(name: &'static str, exchange: RestClient, socket: PathBuf, pause: Duration) -> Self {
        Self { name, exchange, socket, pause, acknowledged: Vec::new(), seq: 0, nonce: None, line: None }
    }

    /// The last number used.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Trades whole rounds until told to end.
    pub async fn trade(mut self, until: CancellationToken) -> Self {
        let mut round = 0_u32;
        while !until.is_cancelled() {
            self.round(round).await;
            round += 1;
        }
        self
    }

    /// A limit order that fills, a market order, a resting order and its cancel.
    pub async fn round(&mut self, round: u32) {
        let (symbol, quantity) = if round.is_multiple_of(2) { ("BTCUSDT", "0.002") } else { ("ETHUSDT", "0.05") };
        let last = self.exchange.last_price(symbol).await.unwrap();
        let cents: i64 = last.replace('.', "")[..last.find('.').unwrap() + 2].parse().unwrap();
        let priced = |per_mille: i64| {
            let cents = cents * per_mille / 1_000;
            format!("{}.{:02}", cents / 100, cents % 100)
        };
        self.place(symbol, "BUY", Some(&priced(1_004)), quantity).await;
        self.beat_for(self.pause).await;
        self.place(symbol, "SELL", None, quantity).await;
        self.beat_for(self.pause).await;
        let resting = self.place(symbol, "BUY", Some(&priced(970)), quantity).await;
        self.beat_for(self.pause).await;
        let cancel = json!({ "kind": "cancel", "symbol": symbol, "orig_client_order_id": resting });
        let (of, id) = self.tell(cancel).await;
        let sent = self.exchange.cancel(symbol, &resting, Some(&id)).await;
        self.tell_result(of, &sent).await;
        self.beat_for(self.pause).await;
    }

    /// A limit order, told before it is sent; where it rests is the caller's to choose.
    pub async fn limit(&mut self, symbol: &str, side: &str, price: &str, quantity: &str) -> String {
        self.place(symbol, side, Some(price), quantity).await
    }

    async fn place(&mut self, symbol: &str, side: &str, price: Option<&str>, quantity: &str) -> String {
        let mut intent = json!({ "kind": "place", "symbol": symbol, "side": side, "quantity": quantity });
        let mut order = vec![("symbol", symbol), ("side", side), ("quantity", quantity)];
        if let Some(price) = price {
            intent["type"] = "LIMIT".into();
            intent["time_in_force"] = "GTC".into();
            intent["price"] = price.into();
            order.extend([("type", "LIMIT"), ("timeInForce", "GTC"), ("price", price)]);
        } else {
            intent["type"] = "MARKET".into();
            order.push(("type", "MARKET"));
        }
        let (of, id) = self.tell(intent).await;
        order.push(("newClientOrderId", &id));
        let sent = self.exchange.place(&order).await;
        self.tell_result(of, &sent).await;
        id
    }

    async fn tell_result(&mut self, of: u64, sent: &Result<Value, ClientError>) {
        let result = match sent {
            Ok(answer) => json!({ "kind": "result", "of": of, "outcome": "accepted", "order_id": answer["orderId"] }),
            Err(ClientError::Refused { code, message, .. }) => {
                json!({ "kind": "result", "of": of, "outcome": "rejected", "code": code, "message": message })
            }
            Err(_) => json!({ "kind": "result", "of": of, "outcome": "unknown" }),
        };
        self.tell(result).await;
    }

    /// The number under which it was acknowledged, and the id, if one was asked for.
    async fn tell(&mut self, record: Value) -> (u64, String) {
        self.seq += 1;
        let seq = self.seq;
        let reply = self.say(record, seq).await;
        let id = reply["client_order_id"].as_str().map(str::to_owned);
        self.acknowledged.push((seq, id.clone()));
        (seq, id.unwrap_or_default())
    }

    pub async fn beat_for(&mut self, span: Duration) {
        let ends = tokio::time::Instant::now() + span;
        while tokio::time::Instant::now() < ends {
            let rest = BEAT_EVERY.min(ends.saturating_duration_since(tokio::time::Instant::now()));
            tokio::time::sleep(rest).await;
            self.say(json!({ "kind": "heartbeat" }), self.seq).await;
        }
    }

    /// Says it until it is acknowledged, the same bytes each time.
    async fn say(&mut self, mut record: Value, seq: u64) -> Value {
        self.connect().await;
        for (name, value) in [("account", "main"), ("bot", self.name)] {
            record[name] = value.into();
        }
        (record["v"], record["seq"], record["at"]) = (1.into(), seq.into(), clock::wall().millis().into());
        if let Some(nonce) = &self.nonce {
            record["nonce"] = nonce.as_str().into();
        }
        let text = format!("{record}\n");
        loop {
            let reply = self.exchange_lines(&text).await;
            match reply {
                Some(reply) if reply["ok"] == true => {
                    self.nonce = reply["nonce"].as_str().map(str::to_owned).or(self.nonce.take());
                    return reply;
                }
                Some(reply) => {
                    let passing = ["busy", "not_durable", "too_fast"].iter().any(|code| reply["error"] == *code);
                    assert!(passing, "{} was refused: {reply} for {text}", self.name);
                    tokio::time::sleep(CONNECT_AGAIN_AFTER).await;
                }
                None => {
                    self.line = None;
                    self.connect().await;
                }
            }
        }
    }

    async fn exchange_lines(&mut self, text: &str) -> Option<Value> {
        let (lines, sink) = self.line.as_mut()?;
        sink.write_all(text.as_bytes()).await.ok()?;
        let line = tokio::time::timeout(ANSWER_WITHIN, lines.next_line()).await.ok()?.ok()??;
        Some(serde_json::from_str(&line).unwrap())
    }

    /// Connects, however long it takes. What was acknowledged must still be known there.
    async fn connect(&mut self) {
        while self.line.is_none() {
            if let Ok(stream) = UnixStream::connect(&self.socket).await {
                let (source, sink) = stream.into_split();
                self.line = Some((BufReader::new(source).lines(), sink));
                let hello = json!({ "v": 1, "account": "main", "bot": self.name, "kind": "hello" });
                if let Some(reply) = self.exchange_lines(&format!("{hello}\n")).await {
                    let acknowledged = self.acknowledged.last().map_or(0, |(seq, _)| *seq);
                    let last = reply["last_seq"].as_u64().unwrap_or_else(|| panic!("{reply}"));
                    assert!(last >= acknowledged, "{}: {acknowledged} was acknowledged, {last} is known", self.name);
                    self.seq = self.seq.max(last);
                    self.nonce = reply["nonce"].as_str().map(str::to_owned);
                    return;
                }
                self.line = None;
            }
            tokio::time::sleep(CONNECT_AGAIN_AFTER).await;
        }
    }
}
