//! The operator's socket: JSON lines, one command and its answer at a time, for the daemon's own user and the
//! declared people.
//!
//! Invariant: nothing that a bot can reach leads here. The other end, `Operator`, is what the command line uses.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::inlet::lines::{Line, Lines};
use crate::inlet::unix;
use crate::kernel::command::Command;
use crate::kernel::containment::Aim;
use crate::kernel::event::AccessEvidence;
use crate::kernel::incident::IncidentId;

/// The owner alone.
pub const SOCKET_MODE: u32 = 0o600;
/// Where people come as other users: whoever connects is checked by user, the mode only lets the listed ones knock.
pub const PEOPLES_SOCKET_MODE: u32 = 0o666;

const COMMAND_BYTES_MAX: usize = 16 * 1024;
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Of one user; more are turned away: an operator has a few windows, not many, and shuts nobody else out.
const CONNECTIONS_MAX: usize = 16;
const IDLE_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const WRITE_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum OperatorCommand {
    Status,
    Incidents,
    Incident {
        id: IncidentId,
    },
    /// `shown` is the revision that the operator saw; only that is acknowledged.
    Ack {
        id: IncidentId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shown: Option<u64>,
    },
    /// A one-time code that ties a chat and a user to this daemon.
    Pair,
    /// The orders open before countersign looked, by the digest that was shown.
    Confirm {
        digest: Box<str>,
    },
    AccessImport {
        evidence: AccessEvidence,
    },
    /// What a freeze or a kill would do.
    Plan {
        aim: Aim,
    },
    /// How far the containment that runs, or the last one, is.
    Containment,
    /// What is sold at its owner's word: the plan, and how far it is.
    Flattening,
    /// A made-up theft, through the whole chain; with `kill`, the throw-away key's containment too.
    Drill {
        #[serde(default)]
        kill: bool,
    },
    /// How far the last drill has come, hop by hop.
    DrillHops,
    /// Something to be done about the account; `code` is a one-time password, where it needs one.
    Order {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        incident: Option<IncidentId>,
        order: Command,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<Box<str>>,
        /// Needed by what widens trust, and told on every channel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Box<str>>,
    },
}

/// A command with the place its answer goes to: any JSON object, `{"ok":false,"message"}` where it failed, with a `hint`
/// where there is more to say.
#[derive(Debug)]
pub struct OperatorRequest {
    pub command: OperatorCommand,
    /// Who is at the other end, as the system says.
    pub uid: u32,
    pub reply: oneshot::Sender<Value>,
}

/// Serves until `shutdown`, and only these users.
pub async fn run(
    listener: UnixListener,
    users: Vec<u32>,
    sender: mpsc::Sender<OperatorRequest>,
    shutdown: CancellationToken,
) {
    let seats = Seats::default();
    let admit = |uid: io::Result<u32>, _open| match uid {
        Ok(uid) if users.contains(&uid) && seats.of(uid) < CONNECTIONS_MAX => Ok(uid),
        Ok(uid) if users.contains(&uid) => {
            Err(failure("too many connections of this user are open", "close another window"))
        }
        Ok(_) | Err(_) => Err(failure(
            "this socket is of the user that runs countersign",
            "run the command as that user, or as one of [[operators.person]]",
        )),
    };
    let serve = |stream, uid| {
        let seat = seats.take(uid);
        let served = serve(stream, uid, sender.clone(), shutdown.clone());
        async move {
            let _seat = seat;
            served.await;
        }
    };
    unix::serve_each(listener, "the operator's socket", &shutdown, admit, serve).await;
}

/// The connections that are open, by user: none takes another's place.
#[derive(Clone, Default)]
struct Seats(Arc<Mutex<BTreeMap<u32, usize>>>);

struct Seat(Seats, u32);

impl Seats {
    fn of(&self, uid: u32) -> usize {
        self.open().get(&uid).copied().unwrap_or(0)
    }

    fn take(&self, uid: u32) -> Seat {
        *self.open().entry(uid).or_insert(0) += 1;
        Seat(self.clone(), uid)
    }

    /// A count cannot be left half-changed, so a poisoned lock is as good.
    fn open(&self) -> MutexGuard<'_, BTreeMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(open) = self.0.open().get_mut(&self.1) {
            *open = open.saturating_sub(1);
        }
    }
}

async fn serve(stream: UnixStream, uid: u32, sender: mpsc::Sender<OperatorRequest>, shutdown: CancellationToken) {
    let (source, mut sink) = stream.into_split();
    let mut lines = Lines::new(BufReader::new(source), COMMAND_BYTES_MAX);
    loop {
        let line = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            line = tokio::time::timeout(IDLE_WITHIN, lines.next()) => line,
        };
        // Whoever says nothing for so long connects again when he has something to say.
        let Ok(line) = line else { return };
        let answer = match line {
            Ok(Line::Whole(line)) => answer(&line, uid, &sender).await,
            Ok(Line::TooLong) => failure("a command has at most 16 KiB", "send one command a line"),
            Ok(Line::End) | Err(_) => return,
        };
        let written = tokio::time::timeout(WRITE_WITHIN, sink.write_all(format!("{answer}\n").as_bytes())).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

async fn answer(line: &[u8], uid: u32, sender: &mpsc::Sender<OperatorRequest>) -> Value {
    let command = match serde_json::from_slice(line) {
        Ok(command) => command,
        Err(error) => return failure(&format!("this is no command: {error}"), "is countersign of the same version?"),
    };
    let (reply, answer) = oneshot::channel();
    if sender.try_send(OperatorRequest { command, uid, reply }).is_err() {
        return failure("the daemon is busy or ending", "try again in a moment");
    }
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => failure("the daemon ended before it answered", "start it and ask again"),
        Err(_) => failure("the daemon did not answer in time", "it may still do it; ask for the status"),
    }
}

fn failure(message: &str, hint: &str) -> Value {
    json!({ "ok": false, "message": message, "hint": hint })
}

#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    #[error("no countersign answers on {}\nhint: start it with `countersign run`, or name its configuration", .0.display())]
    NotRunning(PathBuf),
    #[error("{} may not be used by this user\nhint: run the command as the user that runs countersign", .0.display())]
    NotYours(PathBuf),
    #[error("the connection to countersign broke\nhint: did the daemon end? ask for its status")]
    Broken(#[source] io::Error),
    #[error("countersign did not answer in time\nhint: it may still do it; ask for its status")]
    TimedOut,
    #[error("the answer is no JSON\nhint: are the daemon and this command of the same version?")]
    BadAnswer,
    #[error("{message}{}", .hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Refused { message: String, hint: Option<String> },
}

/// A connection of the command line to the running daemon.
pub struct Operator {
    lines: Lines<BufReader<OwnedReadHalf>>,
    sink: OwnedWriteHalf,
}

impl Operator {
    pub async fn connect(path: &Path) -> Result<Self, OperatorError> {
        let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => OperatorError::NotRunning(path.to_owned()),
            io::ErrorKind::PermissionDenied => OperatorError::NotYours(path.to_owned()),
            _ => OperatorError::Broken(error),
        })?;
        let (source, sink) = stream.into_split();
        Ok(Self { lines: Lines::new(BufReader::new(source), ANSWER_BYTES_MAX), sink })
    }

    pub async fn ask(&mut self, command: &OperatorCommand) -> Result<Value, OperatorError> {
        let line = format!("{}\n", json!(command));
        let asked = async {
            // A daemon that turned us away has said why before it closed, so its answer is read all the same.
            let written = self.sink.write_all(line.as_bytes()).await;
            match (self.lines.next().await, written) {
                (Ok(Line::Whole(answer)), _) => Ok(answer),
                (Ok(Line::TooLong), _) => Err(OperatorError::BadAnswer),
                (Ok(Line::End), _) => Err(OperatorError::Broken(io::ErrorKind::UnexpectedEof.into())),
                (Err(error), _) => Err(OperatorError::Broken(error)),
            }
        };
        let answer = tokio::time::timeout(ANSWER_WITHIN + WRITE_WITHIN, asked).await;
        let answer = answer.map_err(|_| OperatorError::TimedOut)??;
        let answer: Value = serde_json::from_slice(&answer).map_err(|_| OperatorError::BadAnswer)?;
        if answer["ok"] == json!(false) {
            let text = |name: &str| answer[name].as_str().map(str::to_owned);
            let message = text("message").unwrap_or_else(|| "refused: see the daemon's log".to_owned());
            return Err(OperatorError::Refused { message, hint: text("hint") });
        }
        Ok(answer)
    }
}

/// One command to the daemon that listens on `path`.
pub async fn ask(path: &Path, command: &OperatorCommand) -> Result<Value, OperatorError> {
    Operator::connect(path).await?.ask(command).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A daemon that knows incident 7 alone.
    async fn daemon(mut requests: mpsc::Receiver<OperatorRequest>) {
        while let Some(OperatorRequest { command, reply, .. }) = requests.recv().await {
            let answer = match command {
                OperatorCommand::Incident { id: IncidentId(7) } => json!({ "ok": true, "incident": 7 }),
                OperatorCommand::Incident { .. } => failure("no such incident", "`countersign incidents` lists them"),
                other => json!({ "ok": true, "echo": other }),
            };
            reply.send(answer).unwrap();
        }
    }

    fn own_user() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    async fn with_daemon<F: Future<Output = ()>>(owner: u32, test: impl FnOnce(PathBuf) -> F) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operator.sock");
        let listener = unix::listen(&path, SOCKET_MODE).unwrap();
        let (sender, requests) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        let server = run(listener, vec![owner], sender, shutdown.clone());
        let test = async {
            test(path).await;
            shutdown.cancel();
        };
        tokio::join!(server, daemon(requests), test);
    }

    #[tokio::test]
    async fn commands_go_there_and_answers_come_back() {
        with_daemon(own_user(), |path| async move {
            let mut operator = Operator::connect(&path).await.unwrap();
            for command in [
                OperatorCommand::Status,
                OperatorCommand::Incidents,
                OperatorCommand::Ack { id: IncidentId(3), shown: Some(2) },
                OperatorCommand::Pair,
                OperatorCommand::Confirm { digest: "ab12".into() },
            ] {
                assert_eq!(operator.ask(&command).await.unwrap()["echo"], json!(command));
            }
            let known = ask(&path, &OperatorCommand::Incident { id: IncidentId(7) }).await.unwrap();
            assert_eq!(known["incident"], json!(7));
            let refused = ask(&path, &OperatorCommand::Incident { id: IncidentId(8) }).await.unwrap_err();
            assert!(refused.to_string().contains("hint: `countersign incidents`"), "{refused}");
        })
        .await;
    }

    #[test]
    fn one_user_takes_no_place_of_another() {
        let seats = Seats::default();
        let taken: Vec<Seat> = (0..CONNECTIONS_MAX).map(|_| seats.take(1001)).collect();
        assert_eq!((seats.of(1001), seats.of(0)), (CONNECTIONS_MAX, 0));
        drop(taken);
        assert_eq!(seats.of(1001), 0);
    }

    #[tokio::test]
    async fn what_is_no_command_is_said() {
        with_daemon(own_user(), |path| async move {
            let (source, mut sink) = UnixStream::connect(&path).await.unwrap().into_split();
            sink.write_all(b"{\"command\":\"withdraw\"}\n{\"command\":\"ack\"}\nnoise\n").await.unwrap();
            let mut lines = Lines::new(BufReader::new(source), 4096);
            for part in ["withdraw", "missing field `id`", "no command"] {
                let Line::Whole(line) = lines.next().await.unwrap() else { panic!("no answer") };
                let answer: Value = serde_json::from_slice(&line).unwrap();
                assert!(answer["message"].as_str().unwrap().contains(part), "{answer}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn another_user_is_turned_away_and_a_daemon_that_is_not_there_is_named() {
        with_daemon(own_user() + 1, |path| async move {
            let error = ask(&path, &OperatorCommand::Status).await.unwrap_err();
            assert!(matches!(&error, OperatorError::Refused { message, .. } if message.contains("user")), "{error}");
        })
        .await;
        let error = ask(Path::new("/nonexistent/operator.sock"), &OperatorCommand::Status).await.unwrap_err();
        assert!(error.to_string().contains("countersign run"), "{error}");
    }
}
