//! The exchange, the receiver of alerts and the subject, as processes and sockets.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use countersign::clock;
use countersign::sim::client::{Credential, RestClient};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Floor,
    Product,
}

pub const BOTS: [&str; 4] = ["b0", "b1", "b2", "b3"];
const TOLD_WITHIN: Duration = Duration::from_secs(10);

type Received = Arc<Mutex<Vec<(i64, String)>>>;

pub struct Outside {
    pub folder: TempDir,
    pub subject: Subject,
    rest: String,
    account: u64,
    http: reqwest::Client,
    thief: RestClient,
    received: Received,
    exchange: Child,
    watching: Child,
}

impl Outside {
    pub async fn start(subject: Subject) -> Self {
        let (exchange, told) = spawn(
            Command::new(env!("CARGO_BIN_EXE_countersign"))
                .args(["sim", "--listen", "127.0.0.1:0", "--price-step-ms", "0", "--orders-per-10s", "1000000"])
                .args(["--weight-per-minute", "100000000"])
                .stderr(Stdio::null()),
        );
        let told: Value = serde_json::from_str(&told).unwrap();
        let account = &told["accounts"][0];
        let key = |name: &str| {
            let keys = account["keys"].as_array().unwrap().iter();
            let key = keys.clone().find(|key| key["name"].as_str().unwrap().ends_with(name)).unwrap();
            let text = |field: &str| key[field].as_str().unwrap().to_owned();
            Credential { api_key: text("api_key"), secret: text("secret") }
        };
        let rest = told["rest"].as_str().unwrap().to_owned();
        let received = Received::default();
        let hook = receive(Arc::clone(&received)).await;
        let folder = tempfile::tempdir().unwrap();
        write_config(folder.path(), &rest, told["ws"].as_str().unwrap(), &key("/watch"), &hook);
        let role = if subject == Subject::Floor { "floor" } else { "product" };
        let (watching, ready) = spawn(Command::new(std::env::current_exe().unwrap()).arg(role).arg(folder.path()));
        assert_eq!(ready.trim(), "ready");
        Self {
            folder,
            subject,
            thief: RestClient::new(&rest, key("/bot"), "thief", clock::wall).unwrap(),
            rest,
            account: account["account"].as_u64().unwrap(),
            http: plain_client(),
            received,
            exchange,
            watching,
        }
    }

    pub async fn price(&self) -> i64 {
        let price = self.thief.last_price("BTCUSDT").await.unwrap();
        let (whole, cents) = price.split_once('.').unwrap();
        format!("{whole}{}", &cents[..2]).parse().unwrap()
    }

    /// Starts a flow of numbered orders, two reports each.
    pub async fn flow(&self, prefix: &str, per_second: u32, seconds: u32, orders: Option<u64>) {
        let flow = json!({
            "account": self.account, "per_second": per_second, "seconds": seconds, "client_prefix": prefix,
            "orders": orders,
        });
        let url = format!("{}/sim/v1/firehose", self.rest);
        assert!(self.http.post(url).body(flow.to_string()).send().await.unwrap().status().is_success());
    }

    /// The order's id, and the exchange's time of it.
    pub async fn steal(&self) -> (i64, i64) {
        let order = [("symbol", "VIABTC"), ("side", "SELL"), ("type", "MARKET"), ("quantity", "500")];
        let answer = self.thief.place(&order).await.unwrap();
        (answer["orderId"].as_i64().unwrap(), answer["transactTime"].as_i64().unwrap())
    }

    /// From each theft to its alert, in microseconds.
    pub async fn latencies(&self, thefts: &[(i64, i64)]) -> Vec<i64> {
        let deadline = tokio::time::Instant::now() + TOLD_WITHIN;
        loop {
            let received = self.received.lock().unwrap().clone();
            let told = |id: i64| received.iter().find(|(_, order)| *order == id.to_string()).map(|(at, _)| *at);
            let latencies: Vec<i64> = thefts.iter().filter_map(|(id, at)| Some(told(*id)? - at * 1_000)).collect();
            if latencies.len() == thefts.len() {
                return latencies;
            }
            assert!(tokio::time::Instant::now() < deadline, "{} of {} alerts came", latencies.len(), thefts.len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until every frame of the last flow is on disk: how many there were, and how long it took by their rows.
    pub async fn burst(&self, orders: u64, within: Duration) -> (u64, Duration) {
        let deadline = tokio::time::Instant::now() + within;
        let (file, select) = match self.subject {
            Subject::Floor => (self.folder.path().join("floor.sqlite"), FLOOR_BURST),
            Subject::Product => (self.folder.path().join("data/journal.sqlite"), PRODUCT_BURST),
        };
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let (frames, micros) = rows(&file, select);
            if frames == before && frames >= 2 * orders {
                return (frames, Duration::from_micros(micros));
            }
            before = frames;
            assert!(tokio::time::Instant::now() < deadline, "{frames} frames came for {orders} orders");
        }
    }

    pub async fn end(&mut self) {
        for child in [&mut self.watching, &mut self.exchange] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// The burst begins with its first order's frame; the frames of one connection count.
const FLOOR_BURST: &str = "
    WITH first AS (SELECT MIN(seq) AS seq FROM row WHERE raw LIKE '%\"C\":\"burst-1\"%' OR raw LIKE '%\"c\":\"burst-1\"%')
    SELECT COUNT(*), COALESCE(MAX(at) - MIN(at), 0) FROM row, first WHERE row.seq >= first.seq";
const PRODUCT_BURST: &str = "
    WITH first AS (SELECT MIN(seq) AS seq FROM record WHERE body LIKE '{\"event\":\"report\"%\"client_order_id\":\"burst-1\"%'),
    burst AS (SELECT at, json_extract(body, '$.connection') AS connection FROM record, first WHERE record.seq >= first.seq
              AND (body LIKE '{\"event\":\"report\"%' OR body LIKE '{\"event\":\"echo\"%'))
    SELECT MAX(frames), MAX(ends) - MIN(begins) FROM (
        SELECT COUNT(*) AS frames, MIN(at) AS begins, MAX(at) AS ends FROM burst GROUP BY connection)";

fn rows(file: &Path, select: &str) -> (u64, u64) {
    let connection = rusqlite::Connection::open(file).unwrap();
    let numbers = connection.query_row(select, [], |row| {
        Ok((row.get::<_, Option<i64>>(0)?.unwrap_or(0), row.get::<_, Option<i64>>(1)?.unwrap_or(0)))
    });
    let (frames, micros) = numbers.unwrap();
    (frames.unsigned_abs(), micros.unsigned_abs())
}

/// Starts it and reads the first line that it says.
fn spawn(command: &mut Command) -> (Child, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (child, line)
}

/// Keeps when each body came.
async fn receive(received: Received) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let keep = |State(received): State<Received>, body: String| async move {
        received.lock().unwrap().push((clock::wall().micros(), body));
    };
    let router = Router::new().route("/", axum::routing::post(keep)).with_state(received);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/")
}

fn write_config(folder: &Path, rest: &str, ws: &str, watch: &Credential, hook: &str) {
    for (name, text) in [
        ("watch.key", watch.api_key.as_str()),
        ("watch.secret", &watch.secret),
        ("tag.secret", "a tag secret of thirty-two bytes"),
        ("hook.secret", "the webhook's secret"),
        ("ws", ws),
        ("hook", hook),
    ] {
        write_private(&folder.join(name), text);
    }
    let mut text = format!(
        "data = \"data\"\n[account]\nname = \"main\"\nws_url = \"{ws}\"\nrest_url = \"{rest}\"\n\
         api_key = \"file:watch.key\"\napi_secret = \"file:watch.secret\"\ntag_secret = \"file:tag.secret\"\n\
         [account.waits]\nunseen_after_s = 600\nsilent_after_s = 600\n\
         [webhook]\nurl = \"{hook}\"\nsecret = \"file:hook.secret\"\n"
    );
    for bot in BOTS {
        text.push_str(&format!(
            "[[bot]]\nname = \"{bot}\"\norders_per_minute = 1000000\n\
             symbols.BTCUSDT = {{ quote = \"USDT\", order_quantity = \"1\" }}\n\
             quote.USDT = {{ order_notional = \"1000000\", notional_per_hour = \"1000000000000\" }}\n"
        ));
    }
    write_private(&folder.join("countersign.toml"), &text);
}

fn write_private(path: &PathBuf, text: &str) {
    use std::io::Write;
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

/// For loopback: no proxy, no roots.
pub fn plain_client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder().use_preconfigured_tls(tls).no_proxy().build().unwrap()
}
