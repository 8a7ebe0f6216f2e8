//! The processes of the play: the exchange, the watcher, and whatever the command line is asked. Each is the built
//! program itself, and dies with the test.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use countersign::clock;
use countersign::sim::client::{Credential, RestClient};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

const PROGRAM: &str = env!("CARGO_BIN_EXE_countersign");
const WITHIN: Duration = Duration::from_secs(30);

/// `countersign sim` on a free port.
pub struct Exchange {
    pub rest: String,
    pub ws: String,
    keys: Value,
    _process: Child,
}

impl Exchange {
    pub async fn start() -> Self {
        let mut process = Command::new(PROGRAM)
            .args(["sim", "--listen", "127.0.0.1:0", "--price-step-ms", "700"])
            .args(["--orders-per-10s", "5000", "--weight-per-minute", "500000"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let told: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        Self { rest: text("rest"), ws: text("ws"), keys: told["accounts"][0]["keys"].clone(), _process: process }
    }

    pub fn key(&self, name: &str) -> Credential {
        let key = self.keys.as_array().unwrap().iter().find(|key| key["name"] == name).unwrap();
        let text = |field: &str| key[field].as_str().unwrap().to_owned();
        Credential { api_key: text("api_key"), secret: text("secret") }
    }

    /// Somebody with the bot's key, told apart in the ledger by `agent`.
    pub fn client(&self, agent: &str) -> RestClient {
        RestClient::new(&self.rest, self.key("main/bot"), agent, clock::wall).unwrap()
    }

    pub async fn ledger(&self) -> Value {
        self.client("judge").signed(reqwest::Method::GET, "/sim/v1/ledger", &[]).await.unwrap()
    }
}

/// The folder of one watcher: configuration, secrets, data, log.
pub struct Folder(tempfile::TempDir);

/// What a failed play left behind is worth a look.
impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            eprintln!("kept: {}", self.0.path().display());
        }
    }
}

impl Folder {
    pub fn new(config: &str, secrets: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("countersign.toml", config);
        secrets.iter().for_each(|(name, secret)| folder.write(name, secret));
        folder
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// `countersign run`, its log appended to the folder's.
    pub fn run(&self) -> Watcher {
        let log = OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = self.command(&["run"]);
        // Everything that any part of it could say: secrets must not stand in that either.
        command.env("COUNTERSIGN_LOG", "trace").stderr(log).stdout(Stdio::null());
        Watcher(command.spawn().unwrap())
    }

    /// What a command printed as JSON, and its exit status.
    pub async fn ask(&self, arguments: &[&str]) -> (Value, i32) {
        let output = self.command(arguments).arg("--json").output().await.unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let value = serde_json::from_str(&printed).unwrap_or_else(|error| {
            panic!("{arguments:?}: {error}: {printed:?} {}", String::from_utf8_lossy(&output.stderr))
        });
        (value, output.status.code().unwrap())
    }

    /// What a command said on its error output, and its exit status.
    pub async fn fail(&self, arguments: &[&str]) -> (String, i32) {
        let output = self.command(arguments).output().await.unwrap();
        (String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
    }

    /// Until the daemon answers, and its status is so.
    pub async fn until_status(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + WITHIN;
        loop {
            let output = self.command(&["status", "--json"]).output().await.unwrap();
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if is_so(&answer["status"]) {
                return answer["status"].clone();
            }
            assert!(Instant::now() < deadline, "{what}: {answer:#} {}\n{}", self.tail(), self.incidents().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn until_proved(&self) -> Value {
        self.until_status("the account is not proved", |status| status["sight"] == "proved").await
    }

    pub async fn incidents(&self) -> Value {
        let output = self.command(&["incidents", "--json"]).output().await.unwrap();
        let mut answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        answer["incidents"].take()
    }

    fn tail(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let told: Vec<&str> = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
        told.join("\n")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(self.path("countersign.toml")).args(arguments).kill_on_drop(true);
        command
    }
}

/// A running `countersign run`.
pub struct Watcher(Child);

impl Watcher {
    pub async fn kill(mut self) {
        self.signal(Signal::KILL);
        self.0.wait().await.unwrap();
    }

    pub async fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait().await
    }

    pub async fn wait(&mut self) -> ExitStatus {
        tokio::time::timeout(WITHIN, self.0.wait()).await.expect("the daemon does not end").unwrap()
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.0.id().expect("it runs")).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }
}

/// The Python bot. What it prints is read all the time, so that nothing is older than it seems.
pub struct Bot {
    process: Child,
    said: watch::Receiver<Vec<Value>>,
}

impl Bot {
    pub fn start(python: &str, settings: &Value) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut process = Command::new(python)
            .arg(root.join("tests/clients/ccxt_bot.py"))
            .arg(settings.to_string())
            .env("PYTHONPATH", root.join("clients/python/src"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (sender, said) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                sender.send_modify(|said| said.push(serde_json::from_str(&line).unwrap()));
            }
        });
        Self { process, said }
    }

    /// Until it has said something of this name, and `count` times more than so far where it said it before.
    pub async fn says(&mut self, name: &str, count: usize) -> Value {
        let of_name = |said: &[Value]| said.iter().filter(|line| !line[name].is_null()).count();
        let wanted = of_name(&self.said.borrow()) + count;
        let said = tokio::time::timeout(WITHIN, self.said.wait_for(|said| of_name(said) >= wanted)).await;
        let said = said.expect("the bot says nothing").expect("the bot ended before its time");
        said.iter().rfind(|line| !line[name].is_null()).unwrap()[name].clone()
    }

    /// Tells it to end, and gives its last word.
    pub async fn end(mut self) -> Value {
        drop(self.process.stdin.take());
        let said = |lines: &Vec<Value>| lines.iter().any(|line| !line["done"].is_null());
        let ended = tokio::time::timeout(WITHIN, self.said.wait_for(said)).await.expect("the bot does not end");
        let done = ended.expect("the bot ended without a word").last().unwrap()["done"].clone();
        assert!(self.process.wait().await.unwrap().success());
        done
    }
}
