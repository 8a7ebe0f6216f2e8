//! How fast a frame becomes an alert, and how many frames a second go in, beside the least that any durable watcher
//! must do: receive, parse, look up, write to SQLite at FULL with group commit, POST.
//!
//! `cargo bench --bench latency`. Exchange and subject are processes of their own; this one plays the bots, the thief
//! and the receiver of alerts. Both subjects see the same flow: 1,000 frames a second of a bot's orders, all announced
//! to the product beforehand, and a thief's order now and then. A latency is from the exchange's own time of the
//! order (in milliseconds) to the arrival of the POST. The product's POST leaves when the alert is let out, its row on
//! disk: what paces a channel afterwards is no work. For the rate the same frames come as fast as the exchange can
//! send them, and the subject's own rows say how long it took. The product reads two connections, the floor one.

#![expect(clippy::disallowed_methods, reason = "it plays the outside's part: it spawns, and reads the clock")]

mod crowd;
mod floor;
mod outside;
mod product;

use std::time::Duration;

use serde_json::{Value, json};

use crate::crowd::Crowd;
use crate::outside::{Outside, Subject};

/// Two reports an order, and new balances with one of them: a thousand frames a second.
const STEADY_ORDERS_PER_SECOND: u32 = 334;
const STEADY_SECONDS: u32 = 10;
const THEFT_EVERY: Duration = Duration::from_millis(100);
/// As many as the product remembers at once.
const BURST_ORDERS: u64 = 9_000;
const BURST_WITHIN: Duration = Duration::from_secs(30);

struct Figures {
    frames: u64,
    latencies: Vec<i64>,
    /// Frames a second.
    rate: u64,
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("floor") => runtime.block_on(floor::run(&arguments[2])),
        Some("product") => runtime.block_on(product::run(&arguments[2])),
        _ => runtime.block_on(compare()),
    }
}

async fn compare() {
    let floor = measure(Subject::Floor).await;
    let product = measure(Subject::Product).await;
    let row = |name: &str, figures: &Figures| {
        println!(
            "{name:<9} {:>7} {:>9} {:>9} {:>9} {:>12}",
            figures.latencies.len(),
            millis(figures.percentile(50)),
            millis(figures.percentile(99)),
            millis(figures.percentile(100)),
            figures.rate
        );
    };
    println!("\n{:<9} {:>7} {:>9} {:>9} {:>9} {:>12}", "", "alerts", "p50 ms", "p99 ms", "max ms", "frames/s");
    row("floor", &floor);
    row("product", &product);
    let latency = hundredths(product.percentile(50), floor.percentile(50));
    let rate = hundredths(product.rate.cast_signed(), floor.rate.cast_signed());
    println!("frame to alert at the median: {latency} × the floor (aim: 1.50); rate: {rate} × the floor (aim: 0.50)");
    println!(
        "{}",
        json!({ "floor": floor.json(), "product": product.json(), "p50_ratio": latency, "rate_ratio": rate })
    );
}

async fn measure(subject: Subject) -> Figures {
    let mut outside = Outside::start(subject).await;
    let mut crowd = Crowd::join(&outside).await;
    let steady_orders = u64::from(STEADY_ORDERS_PER_SECOND * STEADY_SECONDS);
    // A second's worth ahead of the flow, and from there on at its pace.
    let (ahead, rest) = (u64::from(STEADY_ORDERS_PER_SECOND), steady_orders);
    crowd.announce("steady-", 1..=ahead, 1_000).await;
    outside.flow("steady-", 2 * STEADY_ORDERS_PER_SECOND, STEADY_SECONDS, None).await;
    let thefts = async {
        let mut thefts = Vec::new();
        let ends = tokio::time::Instant::now() + Duration::from_secs(u64::from(STEADY_SECONDS) - 1);
        while tokio::time::Instant::now() < ends {
            tokio::time::sleep(THEFT_EVERY).await;
            thefts.push(outside.steal().await);
        }
        thefts
    };
    let announcing = crowd.announce("steady-", ahead + 1..=rest, STEADY_ORDERS_PER_SECOND);
    let (thefts, ()) = tokio::join!(thefts, announcing);
    let latencies = outside.latencies(&thefts).await;

    crowd.announce("burst-", 1..=BURST_ORDERS, 4_000).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    outside.flow("burst-", 50_000, 60, Some(BURST_ORDERS)).await;
    let (frames, took) = outside.burst(BURST_ORDERS, BURST_WITHIN).await;
    outside.end().await;
    let rate = u64::try_from(u128::from(frames) * 1_000_000 / took.as_micros().max(1)).unwrap();
    Figures { frames, latencies, rate }
}

impl Figures {
    fn percentile(&self, percent: usize) -> i64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
    }

    fn json(&self) -> Value {
        json!({
            "alerts": self.latencies.len(),
            "p50_us": self.percentile(50),
            "p99_us": self.percentile(99),
            "max_us": self.percentile(100),
            "burst_frames": self.frames,
            "frames_per_second": self.rate,
        })
    }
}

fn millis(micros: i64) -> String {
    format!("{}.{:01}", micros / 1_000, micros % 1_000 / 100)
}

fn hundredths(part: i64, whole: i64) -> String {
    let hundredths = part * 100 / whole.max(1);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}
