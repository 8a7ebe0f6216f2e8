//! The life of the daemon: restore, listen, spawn, wait, drain. The only file that spawns tasks of the daemon; each
//! has a name, and its end is an event.

#![expect(clippy::disallowed_methods, reason = "this is the file that spawns")]

mod outlets;
mod parts;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::clock::{self, Clock};
use crate::config::Config;
use crate::core::{Core, Inputs, Waiters};
use crate::daemon::outlets::{acts_task, checks_task, reads_task, stream_task, telegram_task, warm_task, webhook_task};
use crate::daemon::parts::Parts;
use crate::drill::Hops;
use crate::inlet::intake::{self, Intake, IntakeConfig, IntakeMessage, Refusals};
use crate::inlet::operator::OperatorRequest;
use crate::inlet::unix::SocketError;
use crate::inlet::user_stream::StreamEvent;
use crate::inlet::{operator, telegram, unix};
use crate::journal::reader;
use crate::journal::restore::{Start, restore};
use crate::journal::sqlite::{self, Journal, JournalError, WriterGone};
use crate::kernel::account::Kernel;
use crate::kernel::act::{Act, ActOutcome};
use crate::kernel::channel::Post;
use crate::kernel::credential::{CredentialOutcome, CredentialRole};
use crate::kernel::declared::Declared;
use crate::kernel::event::{EffectId, Event, Fault, ReadOutcome, ReadRequest};
use crate::kernel::exception;
use crate::kernel::incident::Notice;
use crate::kernel::shared::SharedEvent;
use crate::kernel::time::Time;
use crate::outlet::telegram::TelegramOutlet;
use crate::release::{self, Exits};
use crate::secret::SecretError;

/// Each input's queue. At the limit the inlet waits, or answers that it is busy.
const QUEUE: usize = 1_024;
/// The kernel asks for fewer reads at once than this.
const READS: usize = 128;
/// A containment has at most a few dozen acts under way.
const ACTS: usize = 256;
/// One look at each of countersign's own keys.
const CHECKS: usize = 4;
/// The shared kernel has at most one post under way on each channel.
const POSTS: usize = 8;
/// After this much draining whatever still runs is cut off.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// A part that ended by itself is told before the process follows it.
const TELL_WITHIN: Duration = Duration::from_secs(3);

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
    #[error("{0} ended before its time: {1}")]
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
    let (mut lock, has_run) = lock(&config.data)?;
    let mut parts = Parts::load(&config)?;
    let start = restore(&config.journal_file(), has_run)?;
    let clock = Arc::new(Clock::new(start.last_at));
    check_exceptions(&config, &start, clock.now())?;
    let (inputs, doors) = inputs();
    let mut tasks = Tasks::new(shutdown);
    // Bound before a row is written: what cannot listen has not started.
    let bound = listen(&config, &mut parts, &doors, &mut tasks).await?;
    let (exits, ways_out) = exits(screen, &doors, &clock);
    let unverified = start.unverified;
    let (core, heart) = begin(&config, &parts, start, &clock, exits).await?;
    mark_run(&mut lock, &config.data)?;
    let first_connection = core.kernel.state().coverage.last_connection.map_or(1, |last| last.0 + 1);
    tasks.spawn("stream", stream_task(&config, &parts, first_connection, doors.stream, &clock, tasks.token()));
    tasks.spawn("reads", reads_task(&config, &parts, ways_out.reads, doors.reads, &clock, tasks.token()));
    let checks = checks_task(&parts, doors.checks, &clock, tasks.token());
    tasks.spawn("checks of our own keys", checks);
    // In mode *watch* there is nothing to act with.
    if parts.stopping.is_some() {
        let (outlet, token) = (parts.containment, tasks.token());
        tasks.spawn_endless("warm connections", warm_task(Arc::clone(&outlet), Arc::clone(&clock), token.clone()));
        tasks.spawn("acts", acts_task(outlet, ways_out.acts, doors.acts, &clock, token));
    }
    if let Some(bot) = parts.telegram {
        let checks =
            telegram::Checks { code_key: bot.code_key.clone(), totp: parts.totp.clone(), now: Box::new(clock::wall) };
        let outlet = TelegramOutlet::new(bot.posts, bot.code_key);
        tasks.spawn("telegram", telegram_task(outlet, ways_out.telegram, doors.shared.clone()));
        let next_update = core.shared.next_update();
        let polls = telegram::run(bot.polls, checks, next_update, doors.shared.clone(), tasks.token());
        tasks.spawn_endless("telegram updates", polls);
    }
    if let Some(outlet) = parts.webhook {
        tasks.spawn("webhook", webhook_task(outlet, ways_out.webhook, doors.shared));
    }
    if unverified > 0 {
        verify_rest(config.journal_file(), doors.faults.clone());
    }
    let stopping = core.kernel.status().stopping;
    let core_ends = CancellationToken::new();
    let core = tokio::spawn(core.run(inputs, core_ends.clone()));
    if config.telegram.is_none() && config.webhook.is_none() {
        tracing::warn!("Alerts reach nobody: configure [telegram] or [webhook].");
    }
    tracing::info!("Stopping a theft: {stopping}.");
    ready(&bound);
    let (ended, rest) = tasks.wait(doors.faults).await;
    core_ends.cancel();
    ended.and(heart.drain(core, rest).await)
}

/// Nothing is refused after a broken journal: which exceptions are new is not known then, and the watch must go on.
fn check_exceptions(config: &Config, start: &Start, now: Time) -> Result<(), DaemonError> {
    if !start.faults.is_empty() {
        return Ok(());
    }
    let known = start.kernel.as_ref().map_or(&[][..], |kernel| &kernel.declared().exceptions);
    exception::check_new(now, &config.declared.exceptions, known).map_err(DaemonError::Setting)
}

/// The senders of what `Inputs` receives.
struct Doors {
    stream: mpsc::Sender<StreamEvent>,
    intake: mpsc::Sender<IntakeMessage>,
    operator: mpsc::Sender<OperatorRequest>,
    shared: mpsc::Sender<SharedEvent>,
    reads: mpsc::Sender<(EffectId, ReadOutcome)>,
    acts: mpsc::Sender<(EffectId, ActOutcome)>,
    checks: mpsc::Sender<(CredentialRole, CredentialOutcome)>,
    faults: mpsc::Sender<Fault>,
    refusals: Arc<Refusals>,
}

fn inputs() -> (Inputs, Doors) {
    let (stream_in, stream) = mpsc::channel(QUEUE);
    let (intake_in, intake) = mpsc::channel(QUEUE);
    let (operator_in, operator) = mpsc::channel(QUEUE);
    let (shared_in, shared) = mpsc::channel(QUEUE);
    let (reads_in, reads) = mpsc::channel(READS);
    let (acts_in, acts) = mpsc::channel(ACTS);
    let (checks_in, checks) = mpsc::channel(CHECKS);
    let (faults_in, faults) = mpsc::channel(QUEUE);
    let refusals = Arc::new(Refusals::default());
    let inputs =
        Inputs { stream, intake, operator, shared, reads, acts, checks, faults, refusals: Arc::clone(&refusals) };
    let doors = Doors {
        stream: stream_in,
        intake: intake_in,
        operator: operator_in,
        shared: shared_in,
        reads: reads_in,
        acts: acts_in,
        checks: checks_in,
        faults: faults_in,
        refusals,
    };
    (inputs, doors)
}

/// The receivers of what `Exits` sends.
struct WaysOut {
    reads: mpsc::Receiver<(EffectId, ReadRequest)>,
    acts: mpsc::Receiver<(EffectId, Act)>,
    telegram: mpsc::Receiver<(EffectId, Post)>,
    webhook: mpsc::Receiver<(EffectId, Post)>,
}

fn exits(screen: Option<mpsc::Sender<Box<Notice>>>, doors: &Doors, clock: &Arc<Clock>) -> (Exits, WaysOut) {
    let (reads_in, reads) = mpsc::channel(READS);
    let (acts_in, acts) = mpsc::channel(ACTS);
    let (telegram_in, telegram) = mpsc::channel(POSTS);
    let (webhook_in, webhook) = mpsc::channel(POSTS);
    let exits = Exits {
        reads: reads_in,
        acts: acts_in,
        telegram: telegram_in,
        webhook: webhook_in,
        screen,
        board: Arc::new(Board::default()),
        hops: Arc::new(Hops::new(Arc::clone(clock))),
        faults: doors.faults.clone(),
    };
    (exits, WaysOut { reads, acts, telegram, webhook })
}

/// What runs until the last row is on disk: the journal's writer, and the release of effects.
struct Heart {
    journal: Journal,
    writer: JoinHandle<()>,
    releasing: JoinHandle<()>,
}

/// Starts the journal's writer and the release, and tells the kernels that they start (again).
async fn begin(
    config: &Config,
    parts: &Parts,
    start: Start,
    clock: &Arc<Clock>,
    exits: Exits,
) -> Result<(Core, Heart), DaemonError> {
    let (journal, writer) = sqlite::writer(start.connection, start.heads, start.last_seq);
    let (release, batches) = mpsc::channel(release::WAITING_MAX);
    let mut core = Core {
        clock: Arc::clone(clock),
        tags: Arc::clone(&parts.tags),
        totp: parts.totp.clone(),
        kernel: start.kernel.unwrap_or_else(|| Kernel::new(config.declared.account.clone())),
        shared: start.shared,
        board: Arc::clone(&exits.board),
        hops: Arc::clone(&exits.hops),
        journal: journal.clone(),
        release,
        seq: start.last_seq,
        since_snapshot: 0,
        waiters: Waiters::default(),
    };
    core.post_restored();
    let heart = Heart {
        writer: tokio::task::spawn_blocking(move || writer.run()),
        releasing: tokio::spawn(release::run(batches, journal.committed(), exits)),
        journal,
    };
    let gone = |_| DaemonError::Ended("journal", "its writer has ended".to_owned());
    let started = async {
        if start.salvaged {
            core.snapshot().await?;
        }
        core.step_shared(SharedEvent::Started { config: config.shared() }).await?;
        let (stopping, places) = (parts.stopping.clone(), Some(parts.places.clone()));
        let declared = Declared { stopping, places, ..config.declared.clone() };
        let (declared, rules) = (Box::new(declared), Box::new(config.rules.clone()));
        core.step_account(Event::Started { version: env!("CARGO_PKG_VERSION").into(), declared, rules }).await?;
        // After the start: what happened before it bounds the gap, and what it makes uncertain is sent again.
        for fault in start.faults {
            core.step_account(Event::Fault(fault)).await?;
        }
        // Whatever was replayed need not be replayed again.
        if start.replayed > 0 { core.snapshot().await } else { Ok(()) }
    };
    started.await.map_err(gone)?;
    Ok((core, heart))
}

impl Heart {
    /// Waits until the last row is on disk, for a while: a disk that takes nothing must not keep the process for ever.
    async fn drain(self, core: JoinHandle<Result<(), WriterGone>>, rest: Ended) -> Result<(), DaemonError> {
        let Self { journal, writer, releasing } = self;
        let on_disk = tokio::time::timeout(DRAIN_WITHIN, async {
            let core = core.await;
            // The writer ends when nobody can append any more.
            drop(journal);
            matches!((core, writer.await), (Ok(Ok(())), Ok(())))
        });
        if !matches!(on_disk.await, Ok(true)) {
            return Err(DaemonError::Ended("the journal", "the last rows may not be on disk".to_owned()));
        }
        // Telegram may hang for longer than we drain, and nothing is lost by that.
        let told = tokio::time::timeout(DRAIN_WITHIN, async { (releasing.await, rest.join_all().await) });
        if told.await.is_err() {
            tracing::warn!("A post had no answer yet: the next start sends it again, marked as a repeat.");
        }
        tracing::info!("Everything is on disk.");
        Ok(())
    }
}

/// One daemon a folder. The lock goes with the process, however it ends; what stands in the file says whether a journal
/// was ever begun here.
fn lock(data: &Path) -> Result<(File, bool), DaemonError> {
    let failed = |source| DaemonError::Data { path: data.to_owned(), source };
    // Others may reach the sockets in it, each with a mode of its own, and list or read nothing.
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(data).map_err(failed)?;
    let file = File::options().create(true).append(true).mode(0o600).open(data.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            let has_run = file.metadata().map_err(failed)?.len() > 0;
            Ok((file, has_run))
        }
        Err(std::fs::TryLockError::WouldBlock) => Err(DaemonError::Running(data.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn mark_run(lock: &mut File, data: &Path) -> Result<(), DaemonError> {
    let failed = |source| DaemonError::Data { path: data.to_owned(), source };
    if lock.metadata().map_err(failed)?.len() == 0 {
        lock.write_all(b"a journal was begun in this folder\n").map_err(failed)?;
    }
    Ok(())
}

async fn listen(config: &Config, parts: &mut Parts, doors: &Doors, tasks: &mut Tasks) -> Result<Bound, DaemonError> {
    let owner = rustix::process::geteuid().as_raw();
    let mut uids = config.intake.uids.clone();
    uids.push(owner);
    let intake_config = IntakeConfig {
        bots: std::mem::take(&mut parts.bots),
        uids,
        access_token: parts.access_token.take(),
        ..IntakeConfig::default()
    };
    let (tags, refusals) = (Arc::clone(&parts.tags), Arc::clone(&doors.refusals));
    // Bots live by the wall clock, and so do the times in their ids.
    let door = Arc::new(Intake::new(intake_config, tags, clock::wall, doors.intake.clone(), refusals));
    let bound =
        Bound { intake_socket: config.intake_socket(), operator_socket: config.operator_socket(), intake_http: None };
    // Whoever connects is checked by user; the mode only lets the listed ones knock.
    let mode = if config.has_other_users() { 0o666 } else { intake::socket::SOCKET_MODE };
    let intake_listener = unix::listen(&bound.intake_socket, mode)?;
    let mut operators = config.operator_uids();
    let mode =
        if operators.iter().all(|uid| *uid == owner) { operator::SOCKET_MODE } else { operator::PEOPLES_SOCKET_MODE };
    operators.push(owner);
    let operator_listener = unix::listen(&bound.operator_socket, mode)?;
    let socket = intake::socket::run(intake_listener, Arc::clone(&door), tasks.token());
    tasks.spawn_endless("intake socket", socket);
    let commands = operator::run(operator_listener, operators, doors.operator.clone(), tasks.token());
    tasks.spawn_endless("operator socket", commands);
    let Some(address) = config.intake.http else { return Ok(bound) };
    let failed = |error| DaemonError::Listen(address, error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let intake_http = Some(listener.local_addr().map_err(failed)?);
    let http = intake::http::run(listener, door, tasks.token());
    tasks.spawn("intake http", async { http.await.map_err(|error| error.to_string()) });
    Ok(Bound { intake_http, ..bound })
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
    async fn wait(mut self, faults: mpsc::Sender<Fault>) -> (Result<(), DaemonError>, Ended) {
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
