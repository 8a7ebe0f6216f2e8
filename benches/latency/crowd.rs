//! The bots: they announce the flow's orders by number, each its share, before the flow sends them.

use std::ops::RangeInclusive;
use std::time::Duration;

use countersign::clock;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::outside::{BOTS, Outside, Subject};

const PART_OF_A_SECOND: u32 = 20;

pub struct Crowd {
    bots: Vec<Bot>,
    /// In cents, when the flow began.
    price: i64,
}

struct Bot {
    name: &'static str,
    seq: u64,
    lines: Lines<BufReader<OwnedReadHalf>>,
    sink: OwnedWriteHalf,
}

impl Crowd {
    /// The floor listens to nobody: its crowd is empty.
    pub async fn join(outside: &Outside) -> Self {
        let mut bots = Vec::new();
        if outside.subject == Subject::Product {
            for name in BOTS {
                let socket = outside.folder.path().join("data/intake.sock");
                let (source, sink) = UnixStream::connect(socket).await.unwrap().into_split();
                bots.push(Bot { name, seq: 0, lines: BufReader::new(source).lines(), sink });
            }
        }
        Self { bots, price: outside.price().await }
    }

    pub async fn announce(&mut self, prefix: &str, orders: RangeInclusive<u64>, per_second: u32) {
        let numbers: Vec<u64> = orders.collect();
        let part = usize::try_from(per_second / PART_OF_A_SECOND).unwrap();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / PART_OF_A_SECOND);
        for numbers in numbers.chunks(part) {
            ticks.tick().await;
            let share = numbers.len().div_ceil(BOTS.len());
            for (bot, numbers) in self.bots.iter_mut().zip(numbers.chunks(share)) {
                bot.announce(prefix, numbers, self.price).await;
            }
        }
    }
}

impl Bot {
    /// Sends all of them, then reads the answers.
    async fn announce(&mut self, prefix: &str, numbers: &[u64], price: i64) {
        let mut text = String::new();
        for number in numbers {
            self.seq += 1;
            text.push_str(&format!("{}\n", self.intent(&format!("{prefix}{number}"), *number, price)));
        }
        self.sink.write_all(text.as_bytes()).await.unwrap();
        for _ in numbers {
            let answer: Value = serde_json::from_str(&self.lines.next_line().await.unwrap().unwrap()).unwrap();
            assert_eq!(answer["ok"], true, "{answer}");
        }
    }

    /// As the exchange's firehose makes the order of this number.
    fn intent(&self, id: &str, number: u64, price: i64) -> Value {
        let trades = number.is_multiple_of(10);
        let buys = (number / 10).is_multiple_of(2);
        let cents = if trades == buys { price * 2 } else { price / 2 };
        json!({
            "v": 1, "account": "main", "bot": self.name, "seq": self.seq, "at": clock::wall().millis(),
            "kind": "place", "client_order_id": id, "symbol": "BTCUSDT", "side": if buys { "BUY" } else { "SELL" },
            "type": "LIMIT", "time_in_force": "IOC", "price": format!("{}.{:02}", cents / 100, cents % 100),
            "quantity": if trades { "0.00001" } else { "0.001" },
        })
    }
}
