//! The intake: records of bots and evidence of addresses, by unix socket or HTTP, handed to the daemon one by one
//! and answered once they are on disk.
//!
//! Invariants: an answer `durable` is sent only after the daemon said so. Records of one connection are handed over
//! in the order they came. Every refusal made here is counted, none becomes an event.

pub mod http;
mod rate;
pub mod socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::inlet::wire::reply::{RequestIds, error_answer, intent_answer, nonce_text};
use crate::inlet::wire::{self, ErrorCode, LINE_BYTES_MAX, Said, WireError};
use crate::kernel::event::{AccessEvidence, Answer};
use crate::kernel::intent::{IntentRecord, IntentReply};
use crate::kernel::order::{Account, Bot};
use crate::kernel::time::Time;
use crate::tag::TagKeys;

/// What the intake hands to the daemon, each with the place its answer goes to.
#[derive(Debug)]
pub enum IntakeMessage {
    Intent(IntakeRequest),
    Hello { account: Account, bot: Bot, reply: oneshot::Sender<HelloReply> },
    Access { evidence: AccessEvidence, reply: oneshot::Sender<Answer> },
}

#[derive(Debug)]
pub struct IntakeRequest {
    pub record: Box<IntentRecord>,
    /// To be answered once the record is on disk.
    pub reply: oneshot::Sender<IntentReply>,
}

/// Where a bot's sequence stands; 0 before its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloReply {
    pub last_seq: u64,
    pub nonce: Time,
}

pub struct IntakeConfig {
    pub bots: Vec<BotAccess>,
    /// Who may connect to the socket at all.
    pub uids: Vec<u32>,
    /// Of `POST /v1/access`; without one that route is closed.
    pub access_token: Option<SecretString>,
    /// After this an answer is `not_durable`; the record may still become so.
    pub answer_within: Duration,
    pub connections_max: usize,
    /// Of each connection; what is above is refused as `too_fast`.
    pub records_per_second: u32,
}

impl Default for IntakeConfig {
    fn default() -> Self {
        Self {
            bots: Vec::new(),
            uids: Vec::new(),
            access_token: None,
            answer_within: Duration::from_secs(2),
            connections_max: 64,
            records_per_second: 1_000,
        }
    }
}

/// How one bot may speak.
pub struct BotAccess {
    pub bot: Bot,
    /// Users that may speak for it on the socket; `None` is every user that may connect.
    pub uids: Option<Vec<u32>>,
    /// Without one it cannot use HTTP.
    pub token: Option<SecretString>,
}

/// What was refused since the last count, for the daemon to journal as one event.
#[derive(Debug, Default)]
pub struct Refusals {
    intents: AtomicU64,
    access: AtomicU64,
}

impl Refusals {
    /// (intents, access), and starts again at zero.
    pub fn drain(&self) -> (u64, u64) {
        (self.intents.swap(0, Ordering::Relaxed), self.access.swap(0, Ordering::Relaxed))
    }
}

/// The part that the socket and HTTP share.
pub struct Intake {
    config: IntakeConfig,
    keys: Arc<TagKeys>,
    clock: Box<dyn Fn() -> Time + Send + Sync>,
    sender: mpsc::Sender<IntakeMessage>,
    refusals: Arc<Refusals>,
}

impl Intake {
    pub fn new(
        config: IntakeConfig,
        keys: Arc<TagKeys>,
        clock: impl Fn() -> Time + Send + Sync + 'static,
        sender: mpsc::Sender<IntakeMessage>,
        refusals: Arc<Refusals>,
    ) -> Self {
        Self { config, keys, clock: Box::new(clock), sender, refusals }
    }

    /// Reads a record and hands it over at once, so that the order of records is kept; the answer comes later.
    fn hear(&self, line: &[u8], caller: &Caller<'_>) -> Hearing {
        let said = match wire::read(line, &self.keys, (self.clock)()).and_then(|said| self.admit(said, caller)) {
            Ok(said) => said,
            Err(error) => return self.refuse(&error),
        };
        let seq = said.seq();
        let (message, hearing) = match said {
            Said::Intent(record) => {
                let (reply, answer) = oneshot::channel();
                let waiting = Waiting::Intent { ids: RequestIds::of(&record), answer };
                (IntakeMessage::Intent(IntakeRequest { record, reply }), waiting)
            }
            Said::Hello { account, bot } => {
                let (reply, answer) = oneshot::channel();
                (IntakeMessage::Hello { account, bot, reply }, Waiting::Hello { answer })
            }
        };
        match self.sender.try_send(message) {
            Ok(()) => Hearing::Waiting { seq, waiting: hearing },
            Err(_) => self.refuse(&busy().of(seq)),
        }
    }

    fn hear_access(&self, line: &[u8]) -> Hearing {
        let evidence = match wire::read_access(line) {
            Ok(evidence) if evidence.account == *self.keys.account() => evidence,
            Ok(evidence) => {
                let message = format!("account {:.40} is not watched here", evidence.account);
                return self.refuse_access(&WireError::new(
                    ErrorCode::WrongAccount,
                    &message,
                    &format!("this intake is of account {}", self.keys.account()),
                ));
            }
            Err(error) => return self.refuse_access(&error),
        };
        let (reply, answer) = oneshot::channel();
        match self.sender.try_send(IntakeMessage::Access { evidence, reply }) {
            Ok(()) => Hearing::Waiting { seq: None, waiting: Waiting::Access { answer } },
            Err(_) => self.refuse_access(&busy()),
        }
    }

    /// The bot is one of the configuration, and the caller may speak for it.
    fn admit(&self, said: Said, caller: &Caller<'_>) -> Result<Said, WireError> {
        let Some(access) = self.config.bots.iter().find(|access| access.bot == *said.bot()) else {
            return Err(WireError::new(
                ErrorCode::UnknownBot,
                "the configuration names no such bot",
                "add the bot with its limits to countersign.toml",
            )
            .of(said.seq()));
        };
        let may_speak = match caller {
            Caller::User(uid) => access.uids.as_ref().is_none_or(|uids| uids.contains(uid)),
            Caller::Bot(bot) => access.bot == **bot,
        };
        if may_speak {
            return Ok(said);
        }
        let hint = match caller {
            Caller::User(uid) => format!("user {uid} is not among this bot's uids in countersign.toml"),
            Caller::Bot(_) => "the token is another bot's".to_owned(),
        };
        Err(WireError::new(ErrorCode::Unauthorized, "this caller may not speak for this bot", &hint).of(said.seq()))
    }

    fn refuse(&self, error: &WireError) -> Hearing {
        self.refusals.intents.fetch_add(1, Ordering::Relaxed);
        Hearing::Refused(error.code.http_status(), error_answer(error))
    }

    fn refuse_access(&self, error: &WireError) -> Hearing {
        self.refusals.access.fetch_add(1, Ordering::Relaxed);
        Hearing::Refused(error.code.http_status(), error_answer(error))
    }
}

/// Who speaks: a user of this host on the socket, or the bot whose token came by HTTP.
enum Caller<'a> {
    User(u32),
    Bot(&'a Bot),
}

enum Hearing {
    Refused(u16, Value),
    Waiting { seq: Option<u64>, waiting: Waiting },
}

enum Waiting {
    Intent { ids: RequestIds, answer: oneshot::Receiver<IntentReply> },
    Hello { answer: oneshot::Receiver<HelloReply> },
    Access { answer: oneshot::Receiver<Answer> },
}

impl Hearing {
    /// The HTTP status and the answer.
    async fn answer(self, within: Duration) -> (u16, Value) {
        let (seq, waiting) = match self {
            Self::Refused(status, answer) => return (status, answer),
            Self::Waiting { seq, waiting } => (seq, waiting),
        };
        match tokio::time::timeout(within, waiting.answer()).await {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => {
                let error = not_durable().of(seq);
                (error.code.http_status(), error_answer(&error))
            }
        }
    }
}

impl Waiting {
    /// `None` where the daemon ended before it answered.
    async fn answer(self) -> Option<(u16, Value)> {
        match self {
            Self::Intent { ids, answer } => Some(intent_answer(&ids, &answer.await.ok()?)),
            Self::Hello { answer } => {
                let HelloReply { last_seq, nonce } = answer.await.ok()?;
                Some((200, json!({ "v": 1, "ok": true, "last_seq": last_seq, "nonce": nonce_text(nonce) })))
            }
            Self::Access { answer } => match answer.await.ok()? {
                Answer::Done | Answer::Requested { .. } => Some((200, json!({ "v": 1, "ok": true, "durable": true }))),
                Answer::Refused { reason } => {
                    let error = WireError::new(ErrorCode::Refused, &reason, "see the daemon's status");
                    Some((error.code.http_status(), error_answer(&error)))
                }
            },
        }
    }
}

fn busy() -> WireError {
    WireError::new(
        ErrorCode::Busy,
        "the daemon has as many records waiting as it takes, or is ending",
        "send it again with the same seq, a little later",
    )
}

fn all_connections_in_use() -> WireError {
    WireError::new(
        ErrorCode::TooManyConnections,
        "all connections are in use",
        "keep one connection for all records of a bot, close the others, and connect again a little later",
    )
}

fn not_durable() -> WireError {
    WireError::new(
        ErrorCode::NotDurable,
        "the record is not on disk yet; it may still become so",
        "ask again with the same seq and content",
    )
}

fn too_fast() -> WireError {
    WireError::new(ErrorCode::TooFast, "too many records in a second", "send it again with the same seq, slower")
}

fn too_long(hint: &str) -> WireError {
    WireError::new(ErrorCode::LineTooLong, &format!("a record has at most {LINE_BYTES_MAX} bytes"), hint)
}
