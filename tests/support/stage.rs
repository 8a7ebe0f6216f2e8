//! A simulated exchange in the test's own process, and the real daemon in one of its own, to be killed at will.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use countersign::clock;
use countersign::inlet::operator::{OperatorCommand, OperatorError, ask};
use countersign::sim::client::{Credential, RestClient};
use countersign::sim::config::SimConfig;
use countersign::sim::listener;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::support::{bot_api, hook};

/// The Telegram user that the configuration allows.
pub const OWNER: u64 = 42;
const LIMITS: &str = r#"
orders_per_minute = 60000
symbols.BTCUSDT = { quote = "USDT", order_quantity = "0.01" }
symbols.ETHUSDT = { quote = "USDT", order_quantity = "0.5" }
quote.USDT = { order_notional = "2000", notional_per_hour = "100000000" }
"#;

pub struct Stage {
    pub folder: TempDir,
    pub exchange: SocketAddr,
    /// Of the account and its master, by the last part of their names.
    keys: BTreeMap<String, Credential>,
    /// The account's, by which its master names it.
    pub email: String,
    ends: CancellationToken,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.ends.cancel();
    }
}

impl Stage {
    /// An exchange that is generous with its limits, and a configuration that names `bots`.
    pub async fn set(
        seed: u64,
        bots: &[&str],
        telegram: Option<&bot_api::BotApi>,
        webhook: Option<&reqwest::Url>,
    ) -> Self {
        let stage = Self::open(SimConfig::demo(seed, 1, clock::wall)).await;
        stage.write_config(bots, telegram, webhook);
        stage
    }

    /// The exchange alone, generous with its limits.
    pub async fn open(mut sim: SimConfig) -> Self {
        (sim.orders_per_10s, sim.weight_per_minute, sim.connections_per_5m) = (1_000_000, 10_000_000, 100_000);
        let keys = sim.accounts.iter().flat_map(|account| &account.keys).map(|key| {
            let credential = Credential { api_key: key.api_key.clone(), secret: key.secret.clone().unwrap() };
            (key.name.rsplit('/').next().unwrap().to_owned(), credential)
        });
        let (keys, email) = (keys.collect(), sim.accounts[0].email.clone().unwrap());
        let listening = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let exchange = listening.local_addr().unwrap();
        let ends = CancellationToken::new();
        tokio::spawn(listener::serve(listening, sim, ends.clone()));
        let folder = tempfile::Builder::new().disable_cleanup(std::env::var("KEEP").is_ok()).tempdir().unwrap();
        Self { folder, exchange, keys, email, ends }
    }

    pub fn write_config(&self, bots: &[&str], telegram: Option<&bot_api::BotApi>, webhook: Option<&reqwest::Url>) {
        let watch = self.key("watch");
        let secrets = [
            ("watch.key", watch.api_key.as_str()),
            ("watch.secret", &watch.secret),
            ("tag.secret", "a tag secret of thirty-two bytes"),
            ("code.secret", "a code secret of some length"),
            ("telegram.token", bot_api::TOKEN),
            ("hook.secret", std::str::from_utf8(hook::SECRET).unwrap()),
        ];
        for (name, secret) in secrets {
            write_private(&self.folder.path().join(name), secret);
        }
        let mut text = format!(
            "data = \"data\"\n[account]\nname = \"main\"\nws_url = \"ws://{0}/ws-api/v3\"\nrest_url = \"http://{0}\"\n\
             api_key = \"file:watch.key\"\napi_secret = \"file:watch.secret\"\ntag_secret = \"file:tag.secret\"\n\
             familiar_networks = [\"127.0.0.0/8\"]\n",
            self.exchange
        );
        for bot in bots {
            text.push_str(&format!("[[bot]]\nname = \"{bot}\"{LIMITS}"));
        }
        if let Some(api) = telegram {
            text.push_str(&format!(
                "[telegram]\ntoken = \"file:telegram.token\"\ncode_secret = \"file:code.secret\"\n\
                 allowed_users = [{OWNER}]\napi = \"{}\"\n",
                api.url()
            ));
        }
        if let Some(url) = webhook {
            text.push_str(&format!("[webhook]\nurl = \"{url}\"\nsecret = \"file:hook.secret\"\n"));
        }
        write_private(&self.config(), &text);
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("countersign.toml")
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn journal(&self) -> PathBuf {
        self.data().join("journal.sqlite")
    }

    pub fn intake(&self) -> PathBuf {
        self.data().join("intake.sock")
    }

    pub fn log(&self) -> PathBuf {
        self.folder.path().join("daemon.log")
    }

    pub fn key(&self, name: &str) -> Credential {
        self.keys[name].clone()
    }

    /// A client with the account's trading key, as its owner's bot has one, and its thief.
    pub fn client(&self, agent: &str) -> RestClient {
        self.client_with(&self.keys["bot"], agent)
    }

    pub fn client_with(&self, key: &Credential, agent: &str) -> RestClient {
        RestClient::new(&format!("http://{}", self.exchange), key.clone(), agent, clock::wall).unwrap()
    }

    /// The exchange's own rows of what happened, oldest first.
    pub async fn ledger(&self) -> Vec<Value> {
        let ledger = self.client("judge").signed(reqwest::Method::GET, "/sim/v1/ledger", &[]).await.unwrap();
        assert_eq!(ledger["dropped"], 0);
        ledger["rows"].as_array().unwrap().clone()
    }

    /// A command to the exchange's control plane.
    pub async fn control(&self, path: &str, body: &Value) -> Value {
        let url = format!("http://{}/sim/v1/{path}", self.exchange);
        let answer = crate::support::client().post(url).body(body.to_string()).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }

    /// `countersign run` on this stage's folder, its log kept beside it.
    pub fn run(&self) -> Daemon {
        self.run_inside(&[], "", &[])
    }

    /// The same, in the surroundings that a program makes which then runs what it is given, and after a shell there has
    /// done this first, with these as `$1` and so on.
    pub fn run_inside(&self, surroundings: &[&str], first: &str, with: &[&str]) -> Daemon {
        let log = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        // The shell is replaced by the daemon; what is left of it is that a file too large is an error, not an end.
        let script = format!("trap '' XFSZ; {first} shift {}; exec \"$@\"", with.len());
        let program = [surroundings, &["sh", "-c", &script, "sh"], with].concat();
        let child = Command::new(program[0])
            .args(&program[1..])
            .args([env!("CARGO_BIN_EXE_countersign"), "run", "--config"])
            .arg(self.config())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Daemon(child)
    }

    pub async fn ask(&self, command: &OperatorCommand) -> Result<Value, OperatorError> {
        ask(&self.data().join("operator.sock"), command).await
    }

    /// Asks for the status until it is so.
    pub async fn until(&self, what: &str, within: Duration, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let answer = self.ask(&OperatorCommand::Status).await;
            match &answer {
                Ok(answer) if is_so(&answer["status"]) => return answer["status"].clone(),
                Ok(_) | Err(_) => {}
            }
            let log = || fs::read_to_string(self.log()).unwrap_or_default();
            assert!(tokio::time::Instant::now() < deadline, "{what} did not come: {answer:?}\n{}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn until_proved(&self) -> Value {
        self.until("proved", Duration::from_secs(20), |status| status["sight"] == "proved").await
    }

    /// Pairs the owner's chat.
    pub async fn pair(&self, api: &bot_api::BotApi) {
        let code = self.ask(&OperatorCommand::Pair).await.unwrap()["code"].as_str().unwrap().to_owned();
        let owner = i64::try_from(OWNER).unwrap();
        api.say(owner, clock::wall().millis() / 1_000, &format!("/pair {code}"));
        api.until("the pairing's answer", |sent| sent.iter().any(|sent| sent.text.contains("is paired"))).await;
    }
}

/// A running daemon; it dies with this value.
pub struct Daemon(Child);

impl Daemon {
    /// kill -9, and waits until it is gone.
    pub async fn kill(mut self) {
        self.0.kill().await.unwrap();
    }

    /// From now on none of its files may grow beyond this, as on a full disk; `None` clears the disk.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let limit = rustix::process::Rlimit { current: bytes, maximum: None };
        rustix::process::prlimit(Some(self.pid()), rustix::process::Resource::Fsize, limit).unwrap();
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(i32::try_from(self.0.id().unwrap()).unwrap()).unwrap()
    }

    /// Asks it to end, as a service manager does.
    pub async fn stop(mut self) -> std::process::ExitStatus {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
        self.0.wait().await.unwrap()
    }

    /// Waits for it to end by itself.
    pub async fn ended(mut self) -> std::process::ExitStatus {
        tokio::time::timeout(Duration::from_secs(20), self.0.wait()).await.expect("it did not end").unwrap()
    }
}

pub fn write_private(path: &Path, text: &str) {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}
