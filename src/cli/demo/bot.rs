//! The demo's bot: it announces each order and cancel on the intake's socket, takes the id it is given, sends the
//! order to the exchange, and says how that ended. What a real bot's client library does, in a page.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::kernel::money::Dec;
use crate::sim::client::{ClientError, RestClient};

pub const NAME: &str = "demo-bot";
pub const SYMBOLS: [&str; 2] = ["BTCUSDT", "ETHUSDT"];

const BEAT_EVERY: Duration = Duration::from_millis(250);

pub struct Bot {
    exchange: RestClient,
    lines: tokio::io::Lines<BufReader<OwnedReadHalf>>,
    sink: OwnedWriteHalf,
    seq: u64,
    nonce: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum BotError {
    #[error("the intake's socket broke: {0}")]
    Intake(#[from] std::io::Error),
    #[error("the intake refused: {0}")]
    Refused(String),
    #[error(transparent)]
    Exchange(#[from] ClientError),
    #[error("the exchange quoted no usable price for {0}")]
    Price(&'static str),
}

impl Bot {
    pub async fn connect(socket: &Path, exchange: RestClient) -> Result<Self, BotError> {
        let (source, sink) = UnixStream::connect(socket).await?.into_split();
        let mut bot = Self { exchange, lines: BufReader::new(source).lines(), sink, seq: 0, nonce: None };
        let hello = bot.ask(json!({ "v": 1, "account": "main", "bot": NAME, "kind": "hello" })).await?;
        bot.seq = hello["last_seq"].as_u64().unwrap_or(0);
        Ok(bot)
    }

    /// Trades whole rounds until it is told to end: a limit order that fills, a market order, and a resting order that is
    /// cancelled, with a pause after each.
    pub async fn trade(&mut self, pause: Duration, until: &CancellationToken) -> Result<(), BotError> {
        for symbol in SYMBOLS.into_iter().cycle() {
            if until.is_cancelled() {
                break;
            }
            let quantity = if symbol == "BTCUSDT" { "0.002" } else { "0.05" };
            let price = self.exchange.last_price(symbol).await?;
            let near = priced(&price, "1.004").ok_or(BotError::Price(symbol))?;
            let far = priced(&price, "0.97").ok_or(BotError::Price(symbol))?;
            self.place(symbol, "BUY", Some(&near), quantity).await?;
            self.beat_for(pause).await?;
            self.place(symbol, "SELL", None, quantity).await?;
            self.beat_for(pause).await?;
            let resting = self.place(symbol, "BUY", Some(&far), quantity).await?;
            self.beat_for(pause).await?;
            self.cancel(symbol, &resting).await?;
            self.beat_for(pause).await?;
        }
        Ok(())
    }

    /// Only heartbeats: the bot is alive, and has nothing to do.
    async fn beat_for(&mut self, span: Duration) -> Result<(), BotError> {
        let ends = tokio::time::Instant::now() + span;
        while tokio::time::Instant::now() < ends {
            self.say(json!({ "kind": "heartbeat" }), self.seq).await?;
            tokio::time::sleep(BEAT_EVERY.min(ends.saturating_duration_since(tokio::time::Instant::now()))).await;
        }
        Ok(())
    }

    async fn place(
        &mut self,
        symbol: &str,
        side: &str,
        price: Option<&str>,
        quantity: &str,
    ) -> Result<String, BotError> {
        let mut intent = json!({ "kind": "place", "symbol": symbol, "side": side, "quantity": quantity });
        let mut order = vec![("symbol", symbol), ("side", side), ("quantity", quantity)];
        match price {
            Some(price) => {
                intent["type"] = "LIMIT".into();
                intent["time_in_force"] = "GTC".into();
                intent["price"] = price.into();
                order.extend([("type", "LIMIT"), ("timeInForce", "GTC"), ("price", price)]);
            }
            None => {
                intent["type"] = "MARKET".into();
                order.push(("type", "MARKET"));
            }
        }
        let id = self.announce(intent).await?;
        order.push(("newClientOrderId", &id));
        let seq = self.seq;
        let sent = self.exchange.place(&order).await;
        self.tell_result(seq, &sent).await?;
        sent?;
        Ok(id)
    }

    async fn cancel(&mut self, symbol: &str, target: &str) -> Result<(), BotError> {
        let intent = json!({ "kind": "cancel", "symbol": symbol, "orig_client_order_id": target });
        let id = self.announce(intent).await?;
        let seq = self.seq;
        let sent = self.exchange.cancel(symbol, target, Some(&id)).await;
        self.tell_result(seq, &sent).await
    }

    async fn announce(&mut self, intent: Value) -> Result<String, BotError> {
        let reply = self.say(intent, self.seq + 1).await?;
        Ok(reply["client_order_id"].as_str().unwrap_or_default().to_owned())
    }

    async fn tell_result(&mut self, of: u64, sent: &Result<Value, ClientError>) -> Result<(), BotError> {
        let result = match sent {
            Ok(answer) => json!({ "kind": "result", "of": of, "outcome": "accepted", "order_id": answer["orderId"] }),
            Err(ClientError::Refused { code, message, .. }) => {
                json!({ "kind": "result", "of": of, "outcome": "rejected", "code": code, "message": message })
            }
            Err(_) => json!({ "kind": "result", "of": of, "outcome": "unknown" }),
        };
        self.say(result, self.seq + 1).await?;
        Ok(())
    }

    async fn say(&mut self, mut record: Value, seq: u64) -> Result<Value, BotError> {
        record["v"] = 1.into();
        record["account"] = "main".into();
        record["bot"] = NAME.into();
        record["seq"] = seq.into();
        record["at"] = clock::wall().millis().into();
        if let Some(nonce) = &self.nonce {
            record["nonce"] = nonce.as_str().into();
        }
        if seq == 0 {
            return Ok(Value::Null);
        }
        let reply = self.ask(record).await?;
        self.seq = self.seq.max(seq);
        Ok(reply)
    }

    async fn ask(&mut self, line: Value) -> Result<Value, BotError> {
        self.sink.write_all(format!("{line}\n").as_bytes()).await?;
        let reply = self.lines.next_line().await?.unwrap_or_default();
        let reply: Value = serde_json::from_str(&reply).map_err(|error| BotError::Refused(error.to_string()))?;
        if reply["ok"] != true {
            return Err(BotError::Refused(reply.to_string()));
        }
        self.nonce = reply["nonce"].as_str().map(str::to_owned).or(self.nonce.take());
        Ok(reply)
    }
}

/// A price some part away from the last one, in whole cents.
fn priced(last: &str, part: &str) -> Option<String> {
    let last: Dec = last.parse().ok()?;
    Some(last.checked_mul(part.parse().ok()?)?.rounded(2).to_string())
}
