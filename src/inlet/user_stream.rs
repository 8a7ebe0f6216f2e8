//! The account's private stream over real sockets: two connections at a time, driven by `venue::pair` and
//! `venue::session`, which decide; this file connects, sends, receives and passes on.
//!
//! Nothing is dropped between the socket and the receiver: the channel is bounded and awaited, so a slow receiver
//! slows the socket down. The one loss is a message over the size limit, which ends the connection and so is a gap.

mod socket;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::{self, JoinSet};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use crate::inlet::user_stream::socket::{DRAIN, close, farewell, send};
use crate::kernel::event::{Connection, FeedChange};
use crate::kernel::order::Account;
use crate::kernel::report::Report;
use crate::kernel::time::Time;
use crate::tls::{self, ConnectError, Socket};
use crate::venue::binance::request::{self, Get};
use crate::venue::binance::{self, ApiCredential, Kept, snapshot};
use crate::venue::budget;
use crate::venue::pair::{Command, Pair};
use crate::venue::server_time::ServerTime;
use crate::venue::session::{Action, Delivery, Seat, Session, SessionSettings};

#[derive(Clone, Debug)]
pub enum StreamEvent {
    Feed { connection: Connection, account: Account, change: FeedChange },
    Report { connection: Connection, account: Account, report: Report, raw: String },
    Kept { connection: Connection, account: Option<Account>, reason: Box<str>, raw: String },
}

#[derive(Clone)]
pub struct StreamConfig {
    pub ws_url: String,
    pub rest_url: String,
    pub accounts: Vec<(Account, Arc<ApiCredential>)>,
    /// Above every connection number ever used for these accounts.
    pub first_connection: u64,
    /// Of the jitter.
    pub seed: u64,
    pub tls: Arc<ClientConfig>,
    pub http: reqwest::Client,
    pub session: SessionSettings,
    pub connect_within: Duration,
}

impl StreamConfig {
    pub fn new(
        ws_url: &str,
        rest_url: &str,
        accounts: Vec<(Account, Arc<ApiCredential>)>,
        tls: Arc<ClientConfig>,
        http: reqwest::Client,
    ) -> Self {
        Self {
            ws_url: ws_url.to_owned(),
            rest_url: rest_url.trim_end_matches('/').to_owned(),
            accounts,
            first_connection: 1,
            seed: 0,
            tls,
            http,
            session: SessionSettings::default(),
            connect_within: Duration::from_secs(10),
        }
    }
}

/// How much earlier the second connection is replaced, so that both are never new at once.
const REPLACE_APART: Duration = Duration::from_secs(1_800);
/// A send to our own receiver that took longer than this is a stall of ours, not a silence of the venue's.
const STALL: Duration = Duration::from_secs(1);
/// Frames read before the timers are looked at again.
const FRAMES_TOGETHER: usize = 64;
/// Connection tasks wait when the supervisor is behind by so many notes.
const NOTES_MAX: usize = 64;

/// Runs until `shutdown`, or until nobody receives the events.
pub async fn run(
    config: StreamConfig,
    events: mpsc::Sender<StreamEvent>,
    clock: impl Fn() -> Time + Clone + Send + Sync + 'static,
    shutdown: CancellationToken,
) {
    let (notes, mut inbox) = mpsc::channel(NOTES_MAX);
    let shared = Shared {
        config: Arc::new(config),
        events,
        notes,
        clock,
        server_time: Arc::default(),
        shutdown: shutdown.child_token(),
    };
    let mut pair = Pair::new((shared.clock)(), shared.config.first_connection, shared.config.seed);
    let mut lines = Lines::default();
    loop {
        while let Some(command) = pair.poll((shared.clock)()) {
            lines.obey(command, &shared);
        }
        let wait = pair.poll_timeout().map(|at| at.since((shared.clock)()));
        tokio::select! {
            biased;
            () = shared.shutdown.cancelled() => break,
            () = shared.events.closed() => break,
            Some((connection, note)) = inbox.recv() => heed(&mut pair, (shared.clock)(), connection, note),
            Some(ended) = lines.tasks.join_next_with_id() => {
                // Its notes are in the inbox already, and the end must not overtake them.
                while let Ok((connection, note)) = inbox.try_recv() {
                    heed(&mut pair, (shared.clock)(), connection, note);
                }
                if let Some(connection) = lines.ended(&ended) {
                    shared.report_panic(&ended, connection, &pair).await;
                    pair.handle_ended((shared.clock)(), connection);
                }
            }
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
    shared.shutdown.cancel();
    while lines.tasks.join_next().await.is_some() {}
}

/// What a connection tells the supervisor.
enum Note {
    Live(Seat),
    Lost(Seat),
    Replace,
    Hold(Duration),
}

fn heed(pair: &mut Pair, now: Time, connection: Connection, note: Note) {
    match note {
        Note::Live(seat) => pair.handle_live(now, connection, seat),
        Note::Lost(seat) => pair.handle_lost(connection, seat),
        Note::Replace => pair.handle_replace(now, connection),
        Note::Hold(pause) => pair.handle_hold(now + pause),
    }
}

/// The running connections; their tasks end with them.
#[derive(Default)]
struct Lines {
    tasks: JoinSet<()>,
    running: BTreeMap<task::Id, (Connection, CancellationToken)>,
}

type Ended = Result<(task::Id, ()), task::JoinError>;

impl Lines {
    fn obey<C: Fn() -> Time + Clone + Send + Sync + 'static>(&mut self, command: Command, shared: &Shared<C>) {
        match command {
            Command::Open { connection, slot } => {
                let retire = CancellationToken::new();
                let line = Line { connection, shared: shared.clone(), retire: retire.clone() };
                let handle = self.tasks.spawn(line.run(slot));
                self.running.insert(handle.id(), (connection, retire));
            }
            Command::Retire { connection } => {
                let running = self.running.values().find(|(running, _)| *running == connection);
                if let Some((_, retire)) = running {
                    retire.cancel();
                }
            }
        }
    }

    fn ended(&mut self, ended: &Ended) -> Option<Connection> {
        let id = ended.as_ref().map_or_else(task::JoinError::id, |(id, ())| *id);
        self.running.remove(&id).map(|(connection, _)| connection)
    }
}

#[derive(Clone)]
struct Shared<C> {
    config: Arc<StreamConfig>,
    events: mpsc::Sender<StreamEvent>,
    notes: mpsc::Sender<(Connection, Note)>,
    clock: C,
    /// The venue's clock as all connections know it.
    server_time: Arc<Mutex<ServerTime>>,
    shutdown: CancellationToken,
}

/// Nobody receives the events any more, or shutdown was asked for.
struct Stopped;

impl<C: Fn() -> Time + Clone + Send + Sync + 'static> Shared<C> {
    fn now(&self) -> Time {
        (self.clock)()
    }

    fn server_time(&self) -> std::sync::MutexGuard<'_, ServerTime> {
        self.server_time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn account(&self, seat: Seat) -> Account {
        self.config.accounts[seat.0].0.clone()
    }

    async fn emit(&self, event: StreamEvent) -> Result<(), Stopped> {
        let event = match self.events.try_send(event) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Stopped),
            Err(TrySendError::Full(event)) => event,
        };
        tokio::select! {
            biased;
            sent = self.events.send(event) => sent.map_err(|_| Stopped),
            () = self.shutdown.cancelled() => Err(Stopped),
        }
    }

    async fn note(&self, connection: Connection, note: Note) -> Result<(), Stopped> {
        tokio::select! {
            biased;
            sent = self.notes.send((connection, note)) => sent.map_err(|_| Stopped),
            () = self.shutdown.cancelled() => Err(Stopped),
        }
    }

    /// A connection task that panicked could not say itself that its feeds are lost.
    async fn report_panic(&self, ended: &Ended, connection: Connection, pair: &Pair) {
        let Err(error) = ended else { return };
        tracing::error!(connection = connection.0, %error, "a connection task failed; please report this");
        for seat in pair.live_seats(connection) {
            let change = FeedChange::Lost { reason: "the connection's task failed".into(), heard_until: None };
            let event = StreamEvent::Feed { connection, account: self.account(seat), change };
            if self.emit(event).await.is_err() {
                return;
            }
        }
    }

    async fn ask_server_time(self) {
        let get = Get::server_time();
        let sent = self.now();
        let answer = async {
            let response = self.config.http.get(format!("{}{}", self.config.rest_url, get.path)).send().await?;
            response.error_for_status()?.text().await
        };
        match answer.await.map(|body| snapshot::server_time(&body)) {
            Ok(Ok(server)) => self.server_time().observe(sent, server, self.now()),
            Ok(Err(kept)) => tracing::warn!(%kept, "the exchange's clock could not be read"),
            Err(error) => tracing::warn!(error = %error.without_url(), "the exchange's clock could not be asked"),
        }
    }
}

/// One connection, from its opening to its end.
struct Line<C> {
    connection: Connection,
    shared: Shared<C>,
    retire: CancellationToken,
}

type Received = Option<Result<Message, tungstenite::Error>>;

type Question = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<C: Fn() -> Time + Clone + Send + Sync + 'static> Line<C> {
    async fn run(self, slot: usize) {
        let config = &self.shared.config;
        let opened = tokio::select! {
            biased;
            () = self.shared.shutdown.cancelled() => return,
            opened = tls::connect(&config.ws_url, &config.tls, config.connect_within) => opened,
        };
        let number = self.connection.0;
        match opened {
            Ok(socket) => {
                tracing::info!(connection = number, "connected to the exchange");
                if self.follow(socket, slot).await.is_err() {
                    tracing::debug!(connection = number, "stopped");
                }
            }
            Err(error) => {
                tracing::warn!(connection = number, %error, "no connection to the exchange");
                if let ConnectError::Refused { status, retry_after } = error
                    && budget::is_refusal(status)
                {
                    // Only a stopped supervisor does not take the note, and then nothing is opened again.
                    let _ = self.shared.note(self.connection, Note::Hold(budget::pause(status, retry_after))).await;
                }
            }
        }
    }

    async fn follow(&self, mut socket: Socket, slot: usize) -> Result<(), Stopped> {
        let mut session = Session::new(self.shared.now(), self.shared.config.accounts.len(), self.settings(slot));
        let mut question: Option<Question> = None;
        loop {
            if self.act(&mut session, &mut socket, &mut question).await? == Flow::End {
                return Ok(());
            }
            let wait = session.poll_timeout().map(|at| at.since(self.shared.now())).unwrap_or_default();
            tokio::select! {
                biased;
                () = self.shared.shutdown.cancelled() => {
                    close(&mut socket).await;
                    return Err(Stopped);
                }
                () = self.retire.cancelled() => return self.leave(session, socket).await,
                received = socket.next() => self.receive_burst(&mut session, received, &mut socket).await?,
                () = answered(&mut question) => {
                    question = None;
                    session.handle_server_time(self.shared.now());
                }
                () = tokio::time::sleep(wait) => {}
            }
            session.handle_timeout(self.shared.now());
        }
    }

    fn settings(&self, slot: usize) -> SessionSettings {
        let settings = self.shared.config.session;
        let earlier = REPLACE_APART.saturating_mul(u32::try_from(slot).unwrap_or(0));
        SessionSettings { replace_after: settings.replace_after.saturating_sub(earlier), ..settings }
    }

    async fn act(
        &self,
        session: &mut Session,
        socket: &mut Socket,
        question: &mut Option<Question>,
    ) -> Result<Flow, Stopped> {
        while let Some(action) = session.poll_action() {
            let sent = match action {
                Action::Subscribe { id, seat } => {
                    let at = self.shared.server_time().at(self.shared.now());
                    send(socket, Message::text(request::subscribe(id, &self.shared.config.accounts[seat.0].1, at)))
                        .await
                }
                Action::ListSubscriptions { id } => send(socket, Message::text(request::subscriptions(id))).await,
                Action::Ping => send(socket, Message::Ping(Default::default())).await,
                Action::AskServerTime => {
                    self.shared.server_time().forget();
                    *question = Some(Box::pin(self.shared.clone().ask_server_time()));
                    Ok(())
                }
                Action::Feed { seat, change } => {
                    self.feed(seat, change).await?;
                    Ok(())
                }
                Action::Replace { reason } => {
                    tracing::info!(connection = self.connection.0, %reason, "the connection is to be replaced");
                    self.shared.note(self.connection, Note::Replace).await?;
                    Ok(())
                }
                Action::Hold { pause } => {
                    self.shared.note(self.connection, Note::Hold(pause)).await?;
                    Ok(())
                }
                Action::Close => {
                    close(socket).await;
                    return Ok(Flow::End);
                }
            };
            if let Err(reason) = sent {
                session.handle_closed(&reason);
            }
        }
        Ok(Flow::On)
    }

    async fn feed(&self, seat: Seat, change: FeedChange) -> Result<(), Stopped> {
        let note = match &change {
            FeedChange::Live => Some(Note::Live(seat)),
            FeedChange::Lost { .. } | FeedChange::Retired => Some(Note::Lost(seat)),
            FeedChange::KeyRefused { .. } => None,
        };
        let account = self.shared.account(seat);
        tracing::info!(connection = self.connection.0, %account, ?change, "feed");
        self.shared.emit(StreamEvent::Feed { connection: self.connection, account, change }).await?;
        match note {
            Some(note) => self.shared.note(self.connection, note).await,
            None => Ok(()),
        }
    }

    /// A frame and what else has come already; timers are looked at between two bursts.
    async fn receive_burst(&self, session: &mut Session, first: Received, socket: &mut Socket) -> Result<(), Stopped> {
        let mut received = first;
        for more in (0..FRAMES_TOGETHER).rev() {
            let goes_on = more > 0 && matches!(received, Some(Ok(Message::Text(_) | Message::Binary(_))));
            self.receive(session, received).await?;
            let Some(next) = goes_on.then(|| socket.next().now_or_never()).flatten() else { break };
            received = next;
        }
        Ok(())
    }

    async fn receive(&self, session: &mut Session, received: Received) -> Result<(), Stopped> {
        match received {
            Some(Ok(Message::Text(text))) => {
                let delivery = session.handle_frame(self.shared.now(), binance::read(&text));
                self.pass_on(session, delivery, || text.as_str().to_owned()).await
            }
            Some(Ok(Message::Binary(bytes))) => {
                let kept = Kept::new("a binary frame, where JSON was asked for; kept as hexadecimal");
                let delivery = session.handle_frame(self.shared.now(), Err(kept));
                self.pass_on(session, delivery, || data_encoding::HEXLOWER.encode(&bytes)).await
            }
            // A ping is answered by the library with the next read or flush.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                session.handle_heard(self.shared.now());
                Ok(())
            }
            Some(Ok(Message::Close(frame))) => {
                session.handle_closed(&farewell(frame.as_ref()));
                Ok(())
            }
            Some(Err(error)) => {
                session.handle_closed(&format!("the connection broke: {error}"));
                Ok(())
            }
            None => {
                session.handle_closed("the connection ended");
                Ok(())
            }
        }
    }

    async fn pass_on(
        &self,
        session: &mut Session,
        delivery: Option<Delivery>,
        raw: impl FnOnce() -> String,
    ) -> Result<(), Stopped> {
        let Some(delivery) = delivery else { return Ok(()) };
        let (connection, raw) = (self.connection, raw());
        let event = match delivery {
            Delivery::Report { seat, report } => {
                StreamEvent::Report { connection, account: self.shared.account(seat), report, raw }
            }
            Delivery::Kept { seat, reason } => {
                StreamEvent::Kept { connection, account: seat.map(|seat| self.shared.account(seat)), reason, raw }
            }
        };
        let before = self.shared.now();
        self.shared.emit(event).await?;
        let after = self.shared.now();
        if after.since(before) > STALL {
            session.handle_stall(after);
        }
        Ok(())
    }

    /// Ends on purpose: what was already on its way is still taken, then the feeds are retired.
    async fn leave(&self, mut session: Session, mut socket: Socket) -> Result<(), Stopped> {
        let drain = async {
            let _ = socket.send(Message::Close(None)).await;
            while let Some(Ok(message)) = socket.next().await {
                if let Message::Text(_) | Message::Binary(_) = message {
                    self.receive(&mut session, Some(Ok(message))).await?;
                }
            }
            Ok(())
        };
        if let Ok(Err(Stopped)) = tokio::time::timeout(DRAIN, drain).await {
            return Err(Stopped);
        }
        session.handle_retired();
        while let Some(action) = session.poll_action() {
            if let Action::Feed { seat, change } = action {
                self.feed(seat, change).await?;
            }
        }
        Ok(())
    }
}

#[derive(PartialEq, Eq)]
enum Flow {
    On,
    End,
}

/// Ready once the question is answered; never, where none was asked.
async fn answered(question: &mut Option<Question>) {
    match question {
        Some(question) => question.await,
        None => std::future::pending().await,
    }
}
