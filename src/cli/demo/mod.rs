//! `countersign demo`: the simulated exchange, a bot, a thief with a stolen copy of the bot's key, and the watcher.
//! They share a process and nothing else: each talks to the others over sockets, and the watcher is the daemon itself,
//! started from a configuration as a user would write it.

#![expect(clippy::disallowed_methods, reason = "the demo starts the exchange, the bot and the watcher side by side")]

mod bot;
mod kill;
mod score;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::demo::bot::Bot;
use crate::cli::demo::kill::kill;
use crate::cli::demo::score::{Score, Seen};
use crate::cli::run::on_signal;
use crate::clock;
use crate::config::Config;
use crate::daemon::{self, Bound};
use crate::inlet::operator::{OperatorCommand, ask};
use crate::kernel::card;
use crate::kernel::incident::{IncidentId, Notice};
use crate::sim::client::{Credential, RestClient};
use crate::sim::config::SimConfig;
use crate::sim::thief::{Plan, steal};
use crate::sim::{client, listener};

const BOT_AGENT: &str = "demo-bot";
const THIEF_AGENT: &str = "somebody-else";
const THIN_PAIR: &str = "VIABTC";
const RESTING: [(&str, &str); 6] = [
    ("symbol", "BTCUSDT"),
    ("side", "BUY"),
    ("type", "LIMIT"),
    ("timeInForce", "GTC"),
    ("quantity", "0.001"),
    ("price", "30000"),
];
const PAUSE: Duration = Duration::from_millis(350);
/// The thief waits until the bot has traded for a while.
const THEFT_AFTER: Duration = Duration::from_secs(6);
/// What was not found by then counts as missed.
const FOUND_WITHIN: Duration = Duration::from_secs(15);
const SCREEN: usize = 1_024;
/// An incident that has not changed for this long is drawn whole again.
const SETTLED_AFTER: Duration = Duration::from_millis(700);
const TICK: Duration = Duration::from_secs(3);
const JUDGE_EVERY: Duration = Duration::from_millis(500);
const LAST_REPORT_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End by itself, with status 0 only if all of the theft was found, nothing else was alarmed, and the kill is proved
    #[arg(long)]
    once: bool,
    /// Decides prices and ids
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Send the alerts to Telegram too: where the bot's token lies, as env:NAME or file:PATH
    #[arg(long, requires = "telegram_user")]
    telegram_token: Option<String>,
    /// Your Telegram user id
    #[arg(long, requires = "telegram_token")]
    telegram_user: Option<u64>,
    /// Another Bot API server
    #[arg(long, requires = "telegram_token")]
    telegram_api: Option<String>,
}

pub async fn run(args: &DemoArgs, json: bool, out: &mut impl Write) -> anyhow::Result<u8> {
    let folder = Folder::new()?;
    let shutdown = on_signal()?;
    let stage = Stage::set(args, &folder, &shutdown).await?;
    let colours = !json && io::stdout().is_terminal();
    let mut show = Show { out, quiet: json, colours, lines_shown: BTreeMap::new(), unsettled: None };
    show.say("countersign demo: a simulated exchange, a bot, and countersign watching. Ctrl-C ends it.")?;
    if args.telegram_token.is_some() {
        let answer = ask(&stage.bound.operator_socket, &OperatorCommand::Pair).await?;
        show.say(&format!("Send this to your bot in Telegram: /pair {}", answer["code"].as_str().unwrap_or("?")))?;
    }
    let score = play(args, stage, &mut show, &shutdown).await?;
    show.score(&score)?;
    if json {
        writeln!(show.out, "{}", score.json())?;
    }
    // Ended by hand, a theft may have been on its way: only a whole play is judged.
    Ok(u8::from(args.once && !(score.is_perfect() && score.is_contained())))
}

/// What the exchange's owner would have been given. The bot's is the one that was stolen.
struct Keys {
    bot: Credential,
    watch: Credential,
    cancel: Credential,
    admin: Credential,
}

/// The exchange and the watcher, running.
struct Stage {
    rest: String,
    key: Credential,
    bound: Bound,
    notices: mpsc::Receiver<Box<Notice>>,
    tasks: JoinSet<anyhow::Result<()>>,
    ends: CancellationToken,
}

impl Stage {
    async fn set(args: &DemoArgs, folder: &Folder, shutdown: &CancellationToken) -> anyhow::Result<Self> {
        let sim = SimConfig::demo(args.seed, 1, clock::wall);
        let (account, master) = (sim.accounts.first().cloned(), sim.accounts.last().cloned());
        let key = |name: &str| -> anyhow::Result<Credential> {
            let owners = [account.as_ref(), master.as_ref()];
            let mut keys = owners.into_iter().flatten().flat_map(|account| &account.keys);
            let key = keys.find(|key| key.name.ends_with(name));
            let key = key.ok_or_else(|| anyhow::anyhow!("the simulated exchange has no {name} key"))?;
            Ok(Credential { api_key: key.api_key.clone(), secret: key.secret.clone().unwrap_or_default() })
        };
        let keys = Keys { bot: key("/bot")?, watch: key("/watch")?, cancel: key("/cancel")?, admin: key("/admin")? };
        let email = account.as_ref().and_then(|account| account.email.clone()).unwrap_or_default();
        let exchange = TcpListener::bind("127.0.0.1:0").await?;
        let address = exchange.local_addr()?;
        // The demo's own end: the watcher drains after the bot and the thief have left.
        let ends = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let serving = listener::serve(exchange, sim, ends.clone());
        tasks.spawn(async move { Ok(serving.await?) });
        let config = Config::read(&folder.write_config(args, &address.to_string(), &email, &keys)?)?;
        let (screen, notices) = mpsc::channel(SCREEN);
        let (ready_in, ready) = oneshot::channel();
        let when_ready = move |bound: &Bound| {
            if ready_in.send(bound.clone()).is_err() {
                tracing::debug!("The demo ended before its watcher was ready.");
            }
        };
        let token = ends.clone();
        tasks.spawn(async move { Ok(daemon::run(config, Some(screen), when_ready, token).await?) });
        let bound = tokio::select! {
            bound = ready => bound?,
            ended = tasks.join_next() => {
                return Err(ended.map_or_else(|| anyhow::anyhow!("nothing runs"), |ended| match ended {
                    Ok(Err(error)) => error,
                    Ok(Ok(())) => anyhow::anyhow!("the watcher ended before it was ready"),
                    Err(error) => error.into(),
                }));
            }
            () = shutdown.cancelled() => anyhow::bail!("stopped"),
        };
        Ok(Self { rest: format!("http://{address}"), key: keys.bot, bound, notices, tasks, ends })
    }

    fn client(&self, agent: &str) -> Result<RestClient, client::ClientError> {
        let key = Credential { api_key: self.key.api_key.clone(), secret: self.key.secret.clone() };
        RestClient::new(&self.rest, key, agent, clock::wall)
    }

    async fn status(&self) -> anyhow::Result<Value> {
        Ok(ask(&self.bound.operator_socket, &OperatorCommand::Status).await?)
    }
}

async fn play<W: Write>(
    args: &DemoArgs,
    mut stage: Stage,
    show: &mut Show<'_, W>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Score> {
    while stage.status().await?["status"]["sight"] != "proved" {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
            () = shutdown.cancelled() => anyhow::bail!("stopped"),
        }
    }
    show.say("The watcher sees the account: its stream is live, and agrees with the exchange's books.")?;
    show.say("The bot trades, and says so first. Somebody has a copy of its key…")?;
    let mut bot = Bot::connect(&stage.bound.intake_socket, stage.client(BOT_AGENT)?).await?;
    let bot_ends = CancellationToken::new();
    let until = bot_ends.clone();
    let trading = tokio::spawn(async move { bot.trade(PAUSE, &until).await });
    let mut seen = Seen::default();
    watch(&mut stage, &mut seen, show, shutdown).await?;
    show.settle()?;
    bot_ends.cancel();
    trading.await??;
    // The report of the bot's last order may still be on its way.
    let judged_until = Instant::now() + LAST_REPORT_WITHIN;
    let mut score = judge(&stage, &seen).await?;
    while !score.is_perfect() && Instant::now() < judged_until {
        tokio::time::sleep(JUDGE_EVERY).await;
        score = judge(&stage, &seen).await?;
    }
    if !shutdown.is_cancelled() {
        score.killed = Some(kill(&mut stage, show).await?);
    }
    if !args.once {
        show.say("Ctrl-C ends it.")?;
        shutdown.cancelled().await;
    }
    stage.ends.cancel();
    while let Some(ended) = stage.tasks.join_next().await {
        ended??;
    }
    Ok(score)
}

/// Shows what the watcher tells, and lets the thief in. Ends at the shutdown, or when everything was found or had its
/// time.
async fn watch<W: Write>(
    stage: &mut Stage,
    seen: &mut Seen,
    show: &mut Show<'_, W>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let thief = stage.client(THIEF_AGENT)?;
    let plan = Plan {
        thin_symbol: THIN_PAIR.to_owned(),
        orders: 4,
        quantity: "12000".to_owned(),
        bot_symbol: bot::SYMBOLS[0].to_owned(),
    };
    let theft_at = Instant::now() + THEFT_AFTER;
    let mut judge_until = None;
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            Some(notice) = stage.notices.recv() => {
                seen.note(clock::wall(), &notice);
                show.change(*notice)?;
            }
            () = tokio::time::sleep(SETTLED_AFTER), if show.unsettled.is_some() => show.settle()?,
            _ = tick.tick() => show.tick(&stage.status().await?)?,
            () = tokio::time::sleep_until(theft_at), if judge_until.is_none() => {
                let loot = steal(&thief, &plan).await?;
                // One that rests on the book: it would outlive the key.
                thief.place(&RESTING).await?;
                show.say(&format!("(the thief has sent {} orders)", loot.orders.len() + 1))?;
                judge_until = Some(Instant::now() + FOUND_WITHIN);
            }
            () = tokio::time::sleep(JUDGE_EVERY), if judge_until.is_some() => {
                let had_its_time = judge_until.is_some_and(|until| Instant::now() >= until);
                if had_its_time || judge(stage, seen).await?.is_perfect() {
                    return Ok(());
                }
            }
        }
    }
}

async fn judge(stage: &Stage, seen: &Seen) -> anyhow::Result<Score> {
    let ledger = stage.client("judge")?.signed(reqwest::Method::GET, "/sim/v1/ledger", &[]).await?;
    Ok(Score::new(&ledger, &stage.status().await?, seen, BOT_AGENT, THIEF_AGENT))
}

/// The terminal: an incident is drawn whole when it opens, then line by line while it grows, and whole again once it
/// is quiet.
struct Show<'a, W: Write> {
    out: &'a mut W,
    quiet: bool,
    colours: bool,
    lines_shown: BTreeMap<IncidentId, u64>,
    unsettled: Option<Notice>,
}

impl<W: Write> Show<'_, W> {
    fn say(&mut self, line: &str) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    fn change(&mut self, notice: Notice) -> io::Result<()> {
        let lines = notice.lines_left_out + u64::try_from(notice.lines.len()).unwrap_or(u64::MAX);
        match self.lines_shown.insert(notice.incident, lines) {
            None => self.card(&notice)?,
            Some(shown) => {
                let fresh = usize::try_from(lines - shown.min(lines)).unwrap_or(usize::MAX);
                for line in notice.lines.iter().skip(notice.lines.len().saturating_sub(fresh)) {
                    self.say(&format!("{} {}", self.bar(), line.text))?;
                }
            }
        }
        self.unsettled = Some(notice);
        Ok(())
    }

    /// What is drawn once it is quiet, and not line by line.
    fn note(&mut self, notice: Notice) {
        self.unsettled = Some(notice);
    }

    fn settle(&mut self) -> io::Result<()> {
        match self.unsettled.take() {
            Some(notice) if notice.revision > 1 => self.card(&notice),
            Some(_) | None => Ok(()),
        }
    }

    fn tick(&mut self, status: &Value) -> io::Result<()> {
        let orders = &status["status"]["orders"];
        self.say(&format!(
            "  {} orders are your bot's, {} are not; the stream is {}",
            orders["matched"],
            orders["strangers"],
            status["status"]["sight"].as_str().unwrap_or("unknown")
        ))
    }

    fn card(&mut self, notice: &Notice) -> io::Result<()> {
        let bar = self.bar();
        let text = card::card(notice, false).plain;
        let lines: Vec<String> = text.lines().map(|line| format!("{bar} {line}")).collect();
        self.say(&format!("\n{}\n", lines.join("\n")))
    }

    const fn bar(&self) -> &'static str {
        if self.colours { "\u{1b}[1;31m▌\u{1b}[0m" } else { "▌" }
    }

    fn score(&mut self, score: &Score) -> io::Result<()> {
        let latency = |ms: Option<i64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        self.say(&format!(
            "bot orders {}, matched {} · orders of somebody else {}, found {} · false alarms {} · \
             order to alert: median {}, worst {}",
            score.bot_orders,
            score.matched,
            score.foreign_orders,
            score.foreign_found,
            score.false_alarms,
            latency(score.p50_ms()),
            latency(score.latencies_ms.last().copied()),
        ))
    }
}

/// The demo's own folder, gone when it ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("countersign-demo-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn write_config(&self, args: &DemoArgs, address: &str, email: &str, keys: &Keys) -> anyhow::Result<PathBuf> {
        let mut tag_secret = [0_u8; 32];
        getrandom::fill(&mut tag_secret)?;
        let tag_secret = data_encoding::HEXLOWER.encode(&tag_secret);
        write_private(&self.0.join("tag.secret"), &tag_secret)?;
        write_private(&self.0.join("bot.key"), &keys.bot.api_key)?;
        for (name, key) in [("watch", &keys.watch), ("cancel", &keys.cancel), ("admin", &keys.admin)] {
            write_private(&self.0.join(format!("{name}.key")), &key.api_key)?;
            write_private(&self.0.join(format!("{name}.secret")), &key.secret)?;
        }
        let mut text = include_str!("demo.toml").replace("ADDRESS", address).replace("EMAIL", email);
        if let (Some(token), Some(user)) = (&args.telegram_token, args.telegram_user) {
            let api = args.telegram_api.as_deref().unwrap_or("https://api.telegram.org");
            let token = absolute(token)?;
            text.push_str(&format!(
                "\n[telegram]\ntoken = {token:?}\ncode_secret = \"file:tag.secret\"\nallowed_users = [{user}]\napi = {api:?}\n"
            ));
        }
        let path = self.0.join("countersign.toml");
        write_private(&path, &text)?;
        Ok(path)
    }
}

/// The demo's configuration lies elsewhere, so a file's path is made whole.
fn absolute(reference: &str) -> io::Result<String> {
    match reference.strip_prefix("file:") {
        Some(path) => Ok(format!("file:{}", std::path::absolute(path)?.display())),
        None => Ok(reference.to_owned()),
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "The demo's folder could not be removed.");
        }
    }
}
