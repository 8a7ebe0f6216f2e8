//! The life of the daemon: restore, listen, spawn, wait, drain. The only file that spawns tasks of the daemon; each
//! has a name, and its end is an event.

#![expect(clippy::disallowed_methods, reason = "this is the file that spawns")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::clock::{self, Clock};
use crate::config::Config;
use crate::core::{Core, Inputs, Waiters};
use crate::inlet::intake::{self, BotAccess, Intake, IntakeConfig, Refusals};
use crate::inlet::unix::SocketError;
use crate::inlet::user_stream::{self, StreamConfig};
use crate::inlet::{operator, telegram as telegram_inlet, unix};
use crate::journal::reader::{self, Replay};
use crate::journal::sqlite::{self, JournalError};
use crate::kernel::account::Kernel;
use crate::kernel::channel::{Channel, Post, PostOutcome};
use crate::kernel::event::{EffectId, Event, Fault, ReadOutcome, ReadRequest};
use crate::kernel::incident::Notice;
use crate::kernel::shared::{Shared, SharedEvent};
use crate::outlet::exchange::Exchange;
use crate::outlet::telegram::{self, TelegramOutlet};
use crate::outlet::webhook::WebhookOutlet;
use crate::release::{self, Exits};
use crate::secret::{Reference, SecretError};
use crate::tag::TagKeys;
use crate::tag::mac::{KeyOwner, TagKey};
use crate::tls;
use crate::venue::binance::ApiCredential;

/// Each input's queue. At the limit the inlet waits, or answers that it is busy.
const QUEUE: usize = 1_024;
/// The kernel asks for fewer reads at once than this.
const READS: usize = 128;
const READS_AT_ONCE: usize = 4;
/// After this much draining whatever still runs is cut off.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// A part that ended by itself is told before the process follows it.
const TELL_WITHIN: Duration = Duration::from_secs(3);
/// teloxide's client for polls must outlast the poll.
const POLL_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("cannot use the data folder {}: {source}\nhint: make it, owned by the user that runs countersign", path.display())]
    Data { path: PathBuf, source: std::io::Error },
    #[error("another countersign is running on {}\nhint: stop it, or give this one another data folder", .0.display())]
    Running(PathBuf),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{0}")]
    Setting(String),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    #[error("{0} ended by itself: {1}")]
    Ended(&'static str, String),
}

/// What was bound, once it was.
#[derive(Clone, Debug)]
pub struct Bound {
    pub intake_socket: PathBuf,
    pub operator_socket: PathBuf,
    pub intake_http: Option<std::net::SocketAddr>,
}

/// Runs the daemon until `shutdown`. `screen` is shown each change of an incident as it is let out.
pub async fn run(
    config: Config,
    screen: Option<mpsc::Sender<Box<Notice>>>,
    ready: impl FnOnce(&Bound),
    shutdown: CancellationToken,
) -> Result<(), DaemonError> {
    let _lock = lock(&config.data)?;
    let parts = Parts::load(&config)?;
    let start = restore(&config.journal_file())?;
    let clock = Arc::new(Clock::new(start.last_at));
    let board = Arc::new(Board::default());
    let (journal, writer) = sqlite::writer(start.connection, start.heads, start.last_seq);
    let (batches_in, batches) = mpsc::channel(release::WAITING_MAX);
    let mut core = Core {
        clock: Arc::clone(&clock),
        tags: Arc::clone(&parts.tags),
        kernel: start.kernel.unwrap_or_else(|| Kernel::new(config.declared.account.clone())),
        shared: start.shared,
        board: Arc::clone(&board),
        journal: journal.clone(),
        release: batches_in,
        seq: start.last_seq,
        since_snapshot: 0,
        waiters: Waiters::default(),
    };
    core.post_restored();
    let first_connection = core.kernel.state().coverage.last_connection.map_or(1, |last| last.0 + 1);
    let mut tasks = Tasks::new(shutdown.clone());
    let writer = tokio::task::spawn_blocking(move || writer.run());

    let (stream_in, stream) = mpsc::channel(QUEUE);
    let (intake_in, intake) = mpsc::channel(QUEUE);
    let (operator_in, operator) = mpsc::channel(QUEUE);
    let (shared_in, shared) = mpsc::channel(QUEUE);
    let (outcomes_in, outcomes) = mpsc::channel(READS);
    let (faults_in, faults) = mpsc::channel(QUEUE);
    let (reads_in, reads) = mpsc::channel(READS);
    let (telegram_in, telegram_posts) = mpsc::channel(8);
    let (webhook_in, webhook_posts) = mpsc::channel(8);
    let exits = Exits {
        reads: reads_in,
        telegram: telegram_in,
        webhook: webhook_in,
        screen,
        board: Arc::clone(&board),
        faults: faults_in.clone(),
    };
    // Released effects outlive the inputs: what is on disk still leaves while everything else drains.
    let releasing = tokio::spawn(release::run(batches, journal.committed(), exits));

    let gone = |_| DaemonError::Ended("journal", "its writer has ended".to_owned());
    if !start.faults.is_empty() {
        // A new file after a broken one begins with what could be read of that.
        core.snapshot().await.map_err(gone)?;
    }
    core.step_shared(SharedEvent::Started { config: config.shared() }).await.map_err(gone)?;
    core.step_account(Event::Started {
        version: env!("CARGO_PKG_VERSION").into(),
        declared: Box::new(config.declared.clone()),
        rules: Box::new(config.rules.clone()),
    })
    .await
    .map_err(gone)?;
    for fault in start.faults {
        core.step_account(Event::Fault(fault)).await.map_err(gone)?;
    }
    if start.replayed > 0 {
        core.snapshot().await.map_err(gone)?;
    }

    let refusals = Arc::new(Refusals::default());
    let bound = listen(&config, &parts, &clock, intake_in, operator_in, &refusals, &mut tasks).await?;
    let next_update = core.shared.next_update();
    let inputs = Inputs { stream, intake, operator, shared, reads: outcomes, faults, refusals };
    tasks.spawn("stream", stream_task(&config, &parts, first_connection, stream_in, &clock, tasks.token()));
    tasks.spawn("reads", reads_task(&config, &parts, reads, outcomes_in, Arc::clone(&clock)));
    if let Some(bot) = &parts.telegram {
        let outlet = TelegramOutlet::new(bot.posts.clone(), bot.code_key.clone());
        tasks.spawn("telegram", telegram_task(outlet, telegram_posts, shared_in.clone()));
        let polls = telegram_inlet::run(bot.polls.clone(), next_update, shared_in.clone(), tasks.token());
        tasks.spawn_endless("telegram updates", polls);
    }
    if let Some(outlet) = parts.webhook {
        tasks.spawn("webhook", webhook_task(outlet, webhook_posts, shared_in));
    }
    let file = config.journal_file();
    if start.unverified > 0 {
        verify_rest(file, faults_in.clone());
    }
    let core_shutdown = CancellationToken::new();
    let core_task = tokio::spawn(core.run(inputs, core_shutdown.clone()));

    ready(&bound);
    let (ended, rest) = tasks.wait(&faults_in).await;
    drop(faults_in);
    core_shutdown.cancel();
    let drained = tokio::time::timeout(DRAIN_WITHIN, async {
        let core = core_task.await;
        drop(journal);
        let parts = (core, writer.await, releasing.await);
        rest.join_all().await;
        parts
    });
    match drained.await {
        Ok((Ok(Ok(())), Ok(()), Ok(()))) => tracing::info!("Everything is on disk."),
        Ok(_) => tracing::error!("A part ended while draining: the last rows may not be on disk."),
        Err(_) => tracing::error!("Draining took too long: the last rows may not be on disk."),
    }
    ended
}

/// One daemon a folder. The lock goes with the process, however it ends.
fn lock(data: &Path) -> Result<File, DaemonError> {
    let failed = |source| DaemonError::Data { path: data.to_owned(), source };
    std::fs::create_dir_all(data).map_err(failed)?;
    let file = File::create(data.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(DaemonError::Running(data.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// The journal as the last run left it.
struct Start {
    connection: rusqlite::Connection,
    heads: std::collections::BTreeMap<Box<str>, crate::journal::record::Hash>,
    last_seq: u64,
    last_at: Option<crate::kernel::time::Time>,
    kernel: Option<Kernel>,
    shared: Shared,
    replayed: u64,
    /// Rows before the snapshot, to be verified beside the watch.
    unverified: u64,
    faults: Vec<Fault>,
}

/// Opens the journal and replays it from its last snapshot. A broken one is set aside, never overwritten: we watch on
/// with what could be read of it, and say so.
fn restore(file: &Path) -> Result<Start, DaemonError> {
    let mut replay = Replay::default();
    let read = open_whole(file).and_then(|connection| {
        let from = reader::last_snapshot(&connection)?;
        let heads = reader::walk(&connection, from, |record| replay.take(record))?;
        Ok((connection, from, heads))
    });
    let (connection, from, heads, faults) = match read {
        Ok((connection, from, heads)) => (connection, from, heads, Vec::new()),
        Err(error @ (JournalError::Broken { .. } | JournalError::Read(_) | JournalError::Open { .. })) => {
            replay = salvage(file, replay);
            let aside = set_aside(file)?;
            let detail = format!("{error}; the file is kept as {}, and a new one was begun", aside.display());
            tracing::error!(%detail, "The journal is broken.");
            let heads = reader::Heads { last_seq: replay.last_seq, last_at: replay.last_at, ..Default::default() };
            (sqlite::open(file)?, 1, heads, vec![Fault::BrokenJournal { detail: detail.into() }])
        }
        Err(error) => return Err(error.into()),
    };
    if replay.differing > 0 {
        tracing::warn!(rows = replay.differing, "This version judges some recorded events differently than before.");
    }
    Ok(Start {
        connection,
        heads: heads.hashes,
        last_seq: heads.last_seq,
        last_at: heads.last_at,
        kernel: replay.accounts.into_values().next(),
        shared: replay.shared,
        replayed: heads.rows,
        unverified: from.saturating_sub(1),
        faults,
    })
}

/// SQLite takes an empty file for a new one. Ours is empty only if somebody emptied it, or if the very first start was
/// cut off in its first moments; which of them it was cannot be told, so it is said.
fn open_whole(file: &Path) -> Result<rusqlite::Connection, JournalError> {
    if std::fs::metadata(file).is_ok_and(|found| found.len() == 0) {
        return Err(JournalError::Broken { seq: 0, detail: "the file is empty".to_owned() });
    }
    sqlite::open(file)
}

/// What broke may be the snapshot itself: then the rows before it say more than the ones after.
fn salvage(file: &Path, from_snapshot: Replay) -> Replay {
    let mut from_first = Replay::default();
    let walked = sqlite::open_to_read(file)
        .and_then(|connection| reader::walk(&connection, 1, |record| from_first.take(record)));
    if let Err(error) = walked {
        tracing::debug!(%error, "The journal was read from its first row as far as it goes.");
    }
    if from_first.last_seq > from_snapshot.last_seq { from_first } else { from_snapshot }
}

fn set_aside(file: &Path) -> Result<PathBuf, DaemonError> {
    let failed = |source| DaemonError::Data { path: file.to_owned(), source };
    let stamp = clock::wall().millis();
    let aside = file.with_extension(format!("broken-{stamp}.sqlite"));
    std::fs::rename(file, &aside).map_err(failed)?;
    for ending in ["-wal", "-shm"] {
        let beside = |file: &Path| PathBuf::from(format!("{}{ending}", file.display()));
        if beside(file).exists() {
            std::fs::rename(beside(file), beside(&aside)).map_err(failed)?;
        }
    }
    Ok(aside)
}

fn verify_rest(file: PathBuf, faults: mpsc::Sender<Fault>) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = reader::verify(&file) {
            tracing::error!(%error, "The journal's older part is broken.");
            let detail = format!("{error}; new rows go on in the same file").into();
            if faults.blocking_send(Fault::BrokenJournal { detail }).is_err() {
                tracing::debug!("The daemon ended before its journal was verified.");
            }
        }
    });
}

/// Everything that needs a secret or a certificate, built before anything is bound.
struct Parts {
    tags: Arc<TagKeys>,
    credential: Arc<ApiCredential>,
    tls: Arc<rustls::ClientConfig>,
    http: reqwest::Client,
    telegram: Option<TelegramParts>,
    webhook: Option<WebhookOutlet>,
    bots: Vec<BotAccess>,
    access_token: Option<secrecy::SecretString>,
}

struct TelegramParts {
    posts: teloxide::Bot,
    polls: teloxide::Bot,
    code_key: secrecy::SecretSlice<u8>,
}

impl Parts {
    fn load(config: &Config) -> Result<Self, DaemonError> {
        let load = |reference: &Reference| reference.load(&config.folder);
        let setting = |error: &dyn std::fmt::Display| DaemonError::Setting(error.to_string());
        let exchange = &config.exchange;
        let ca_file = exchange.ca_file.as_ref().map(|path| config.folder.join(path));
        let tls = tls::client_config(ca_file.as_deref()).map_err(|error| setting(&error))?;
        let http = tls::http_client(&tls).map_err(|error| setting(&error))?;
        let credential = ApiCredential::new(load(&exchange.api_key)?, load(&exchange.api_secret)?)
            .map_err(|error| setting(&error))?;
        let mut bots = Vec::with_capacity(config.bots.len());
        for bot in &config.bots {
            let token = bot.token.as_ref().map(load).transpose()?;
            bots.push(BotAccess { bot: bot.bot.clone(), uids: bot.uids.clone(), token });
        }
        let telegram = match &config.telegram {
            None => None,
            Some(table) => {
                let api = table.api.parse().map_err(|error| DaemonError::Setting(format!("telegram.api: {error}")))?;
                let api: reqwest::Url = api;
                let token = load(&table.token)?;
                let patient = patient_client(&tls).map_err(|error| setting(&error))?;
                Some(TelegramParts {
                    posts: telegram::bot(&token, api.clone(), http.clone()),
                    polls: telegram::bot(&token, api, patient),
                    code_key: secret_bytes(&load(&table.code_secret)?),
                })
            }
        };
        let webhook = match &config.webhook {
            None => None,
            Some(table) => {
                let url = table.url.parse().map_err(|error| DaemonError::Setting(format!("webhook.url: {error}")))?;
                Some(WebhookOutlet::new(http.clone(), url, secret_bytes(&load(&table.secret)?)))
            }
        };
        Ok(Self {
            tags: Arc::new(tag_keys(config)?),
            credential: Arc::new(credential),
            tls,
            http,
            telegram,
            webhook,
            bots,
            access_token: config.intake.access_token.as_ref().map(load).transpose()?,
        })
    }
}

fn tag_keys(config: &Config) -> Result<TagKeys, DaemonError> {
    let setting = |error: &dyn std::fmt::Display| DaemonError::Setting(error.to_string());
    let account = &config.declared.account;
    let derive = |secret: &Reference, owner: KeyOwner<'_>, id| {
        let secret = secret.load(&config.folder)?;
        TagKey::derive(secret.expose_secret().as_bytes(), account, owner, id).map_err(|error| setting(&error))
    };
    let issuing = derive(&config.tags.secret, KeyOwner::Daemon, config.tags.key_id)?;
    let mut others = Vec::new();
    for bot in &config.bots {
        if let Some((secret, id)) = &bot.tags {
            others.push(derive(secret, KeyOwner::Bot(&bot.bot), *id)?);
        }
    }
    TagKeys::new(account.clone(), "binance/spot", issuing, others, config.tags.prefixes.clone())
        .map_err(|error| setting(&error))
}

fn secret_bytes(secret: &secrecy::SecretString) -> secrecy::SecretSlice<u8> {
    secret.expose_secret().as_bytes().to_vec().into()
}

/// For long polls: the same as for everything else, with a limit that outlasts the poll.
fn patient_client(tls: &rustls::ClientConfig) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .use_preconfigured_tls(tls.clone())
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .timeout(POLL_WITHIN)
        .build()
}

async fn listen(
    config: &Config,
    parts: &Parts,
    clock: &Arc<Clock>,
    intake_in: mpsc::Sender<intake::IntakeMessage>,
    operator_in: mpsc::Sender<operator::OperatorRequest>,
    refusals: &Arc<Refusals>,
    tasks: &mut Tasks,
) -> Result<Bound, DaemonError> {
    let owner = rustix::process::geteuid().as_raw();
    let mut uids = config.intake.uids.clone();
    uids.push(owner);
    let bots = parts.bots.iter().map(|access| BotAccess {
        bot: access.bot.clone(),
        uids: access.uids.clone(),
        token: access.token.clone(),
    });
    let intake_config = IntakeConfig {
        bots: bots.collect(),
        uids,
        access_token: parts.access_token.clone(),
        ..IntakeConfig::default()
    };
    let now = Arc::clone(clock);
    let door = Arc::new(Intake::new(
        intake_config,
        Arc::clone(&parts.tags),
        move || now.now(),
        intake_in,
        Arc::clone(refusals),
    ));
    let bound =
        Bound { intake_socket: config.intake_socket(), operator_socket: config.operator_socket(), intake_http: None };
    let intake_listener = unix::listen(&bound.intake_socket, intake::socket::SOCKET_MODE)?;
    let operator_listener = unix::listen(&bound.operator_socket, operator::SOCKET_MODE)?;
    let socket = intake::socket::run(intake_listener, Arc::clone(&door), tasks.token());
    tasks.spawn_endless("intake socket", socket);
    let commands = operator::run(operator_listener, owner, operator_in, tasks.token());
    tasks.spawn_endless("operator socket", commands);
    let Some(address) = config.intake.http else { return Ok(bound) };
    let failed = |error| DaemonError::Listen(address, error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let intake_http = Some(listener.local_addr().map_err(failed)?);
    let http = intake::http::run(listener, door, tasks.token());
    tasks.spawn("intake http", async { http.await.map_err(|error| error.to_string()) });
    Ok(Bound { intake_http, ..bound })
}

fn stream_task(
    config: &Config,
    parts: &Parts,
    first_connection: u64,
    events: mpsc::Sender<user_stream::StreamEvent>,
    clock: &Arc<Clock>,
    shutdown: CancellationToken,
) -> impl Future<Output = Result<(), String>> + Send + 'static {
    let accounts = vec![(config.declared.account.clone(), Arc::clone(&parts.credential))];
    let exchange = &config.exchange;
    let mut stream =
        StreamConfig::new(&exchange.ws_url, &exchange.rest_url, accounts, Arc::clone(&parts.tls), parts.http.clone());
    stream.first_connection = first_connection;
    stream.seed = clock.now().micros().unsigned_abs();
    let clock = Arc::clone(clock);
    async move {
        user_stream::run(stream, events, move || clock.now(), shutdown).await;
        Ok(())
    }
}

/// Makes the reads that the kernel asks for, a few at a time.
fn reads_task(
    config: &Config,
    parts: &Parts,
    mut requests: mpsc::Receiver<(EffectId, ReadRequest)>,
    outcomes: mpsc::Sender<(EffectId, ReadOutcome)>,
    clock: Arc<Clock>,
) -> impl Future<Output = Result<(), String>> + Send + 'static {
    let exchange =
        Arc::new(Exchange::new(&config.exchange.rest_url, Arc::clone(&parts.credential), parts.http.clone()));
    async move {
        let mut under_way = JoinSet::new();
        while let Some((effect, request)) = requests.recv().await {
            while under_way.len() >= READS_AT_ONCE {
                under_way.join_next().await;
            }
            let (exchange, outcomes, clock) = (Arc::clone(&exchange), outcomes.clone(), Arc::clone(&clock));
            under_way.spawn(async move {
                let outcome = exchange.read(&request, &|| clock.now()).await;
                outcomes.send((effect, outcome)).await.is_ok()
            });
        }
        under_way.join_all().await;
        Ok(())
    }
}

async fn telegram_task(
    outlet: TelegramOutlet,
    mut posts: mpsc::Receiver<(EffectId, Post)>,
    outcomes: mpsc::Sender<SharedEvent>,
) -> Result<(), String> {
    while let Some((effect, post)) = posts.recv().await {
        let outcome = match &post {
            Post::Telegram(post) => outlet.post(post).await,
            Post::Webhook(_) => wrong_channel(Channel::Telegram),
        };
        if outcomes.send(SharedEvent::Posted { effect, outcome }).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn webhook_task(
    outlet: WebhookOutlet,
    mut posts: mpsc::Receiver<(EffectId, Post)>,
    outcomes: mpsc::Sender<SharedEvent>,
) -> Result<(), String> {
    while let Some((effect, post)) = posts.recv().await {
        let outcome = match &post {
            Post::Webhook(post) => outlet.post(post, clock::wall()).await,
            Post::Telegram(_) => wrong_channel(Channel::Webhook),
        };
        if outcomes.send(SharedEvent::Posted { effect, outcome }).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn wrong_channel(channel: Channel) -> PostOutcome {
    PostOutcome::Failed { reason: format!("the post is not for {channel}").into(), permanent: true }
}

/// Tasks by name, with how they ended.
type Ended = JoinSet<(&'static str, Result<(), String>)>;

/// The tasks beside the core. None may end before the shutdown; one that does takes the process with it, after it was
/// told, so that a service manager starts everything anew.
struct Tasks {
    set: Ended,
    shutdown: CancellationToken,
    inner: CancellationToken,
}

impl Tasks {
    fn new(shutdown: CancellationToken) -> Self {
        Self { set: JoinSet::new(), inner: shutdown.child_token(), shutdown }
    }

    fn token(&self) -> CancellationToken {
        self.inner.clone()
    }

    fn spawn(&mut self, name: &'static str, task: impl Future<Output = Result<(), String>> + Send + 'static) {
        self.set.spawn(async move { (name, task.await) });
    }

    fn spawn_endless(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn(name, async {
            task.await;
            Ok(())
        });
    }

    /// Waits for the shutdown or for the first task to end; the inputs are then told to end, and what is left is
    /// given back to be waited for.
    async fn wait(mut self, faults: &mpsc::Sender<Fault>) -> (Result<(), DaemonError>, Ended) {
        let ended = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Ok(()),
            ended = self.set.join_next() => Err(match ended {
                Some(Ok((name, Ok(())))) => DaemonError::Ended(name, "without a word".to_owned()),
                Some(Ok((name, Err(error)))) => DaemonError::Ended(name, error),
                Some(Err(error)) => DaemonError::Ended("a task", error.to_string()),
                None => DaemonError::Ended("every task", "nothing runs".to_owned()),
            }),
        };
        if let Err(DaemonError::Ended(name, detail)) = &ended {
            tracing::error!(task = name, %detail, "A part of countersign ended; the process ends with it.");
            let fault = Fault::TaskEnded { task: (*name).into(), detail: detail.as_str().into() };
            if faults.send(fault).await.is_ok() {
                tokio::time::sleep(TELL_WITHIN).await;
            }
        }
        self.inner.cancel();
        (ended, self.set)
    }
}
