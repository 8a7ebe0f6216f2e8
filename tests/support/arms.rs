//! What a stage needs to stop a theft: the credentials that may act, the owner's commands as processes of their own, and
//! the exchange's word on what was done.

use std::process::Stdio;
use std::time::Duration;

use countersign::inlet::operator::OperatorCommand;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::Instant;

use crate::support::stage::{Stage, write_private};

/// Base32 of twenty bytes, as an authenticator takes it.
pub const TOTP_SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
pub const WITHIN: Duration = Duration::from_secs(60);
/// No price comes this low in the time of a test.
pub const RESTING_PRICE: &str = "30000";

/// What a command of the operator came to.
#[derive(Debug)]
pub struct Said {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Stage {
    /// May act in this mode, with every credential. `more` is further tables.
    pub fn arm(&self, mode: &str, quiet_s: u32, more: &str) {
        let (bot, cancel, admin) = (self.key("bot"), self.key("cancel"), self.key("admin"));
        let secrets = [
            ("bot.key", &bot.api_key),
            ("cancel.key", &cancel.api_key),
            ("cancel.secret", &cancel.secret),
            ("admin.key", &admin.api_key),
            ("admin.secret", &admin.secret),
            ("totp.secret", &TOTP_SECRET.to_owned()),
        ];
        for (name, secret) in secrets {
            write_private(&self.folder.path().join(name), secret);
        }
        let table = format!(
            "[operators]\ntotp = \"file:totp.secret\"\n[containment]\nmode = \"{mode}\"\nsub_account = \"{}\"\n\
             bot_host = \"elsewhere\"\nadmin_key = \"file:admin.key\"\nadmin_secret = \"file:admin.secret\"\ncancel_key = \"file:cancel.key\"\n\
             cancel_secret = \"file:cancel.secret\"\nquiet_s = {quiet_s}\n[[containment.key]]\nname = \"bot\"\n\
             api_key = \"file:bot.key\"\n{more}",
            self.email
        );
        self.change_config(|config| config + &table);
    }

    /// Has the daemon reach the exchange's REST API at this address.
    pub fn reach_rest_at(&self, address: impl std::fmt::Display) {
        let known = format!("rest_url = \"http://{}\"", self.exchange);
        self.change_config(|config| config.replace(&known, &format!("rest_url = \"http://{address}\"")));
    }

    pub fn change_config(&self, change: impl FnOnce(String) -> String) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        write_private(&self.config(), &change(config));
    }

    /// The built program, as its owner calls it.
    pub async fn countersign(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // One that does not read has ended, and says why.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
        let output =
            tokio::time::timeout(2 * WITHIN, child.wait_with_output()).await.expect("it does not end").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Asks how far the containment is until it is so.
    pub async fn until_contained(&self, what: &str, within: Duration, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + within;
        loop {
            let answer = self.ask(&OperatorCommand::Containment).await;
            if let Ok(answer) = &answer
                && is_so(&answer["containment"])
            {
                return answer["containment"].clone();
            }
            let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
            assert!(Instant::now() < deadline, "{what} did not come: {answer:#?}\n{}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What was done to keys: by which, what, to which, in its order.
    pub async fn done_to_keys(&self) -> Vec<String> {
        let ledger = self.ledger().await;
        let rows = ledger.iter().filter(|row| !row["changed_key"].is_null());
        rows.map(|row| ["key", "kind", "changed_key"].map(|field| row[field].as_str().unwrap()).join(" ")).collect()
    }

    /// The ids of the account's open orders, as the exchange has them.
    pub async fn open_orders(&self) -> Vec<i64> {
        let orders = self.client_with(&self.key("watch"), "judge").open_orders(None).await.unwrap();
        let mut ids: Vec<i64> =
            orders.as_array().unwrap().iter().map(|order| order["orderId"].as_i64().unwrap()).collect();
        ids.sort_unstable();
        ids
    }

    /// Each cancel of an order that happened, by its key.
    pub async fn cancels_of(&self, order: i64) -> Vec<String> {
        let ledger = self.ledger().await;
        let rows = ledger.iter().filter(|row| row["kind"] == "CANCELED" && row["order_id"] == order);
        rows.map(|row| row["key"].as_str().unwrap().to_owned()).collect()
    }

    /// Buys that rest far below the price, by somebody with a copy of the bot's key.
    pub async fn rest_foreign(&self, count: usize) -> Vec<i64> {
        let thief = self.client("somebody-else");
        let order = [("symbol", "BTCUSDT"), ("side", "BUY"), ("type", "LIMIT"), ("timeInForce", "GTC")];
        let order = [&order[..], &[("quantity", "0.001"), ("price", RESTING_PRICE)]].concat();
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            ids.push(thief.place(&order).await.unwrap()["orderId"].as_i64().unwrap());
        }
        ids
    }
}

/// Every line of what a containment saw, as one text.
pub fn lines(progress: &Value) -> String {
    let lines = progress["lines"].as_array().into_iter().flatten();
    lines.map(|line| line["text"].as_str().unwrap().to_owned() + "\n").collect()
}

/// The step that begins so, with its state and detail.
pub fn step<'a>(progress: &'a Value, beginning: &str) -> &'a Value {
    let mut steps = progress["steps"].as_array().unwrap().iter();
    let found = steps.find(|step| step["what"].as_str().unwrap().starts_with(beginning));
    found.unwrap_or_else(|| panic!("no step {beginning}: {progress:#}"))
}
