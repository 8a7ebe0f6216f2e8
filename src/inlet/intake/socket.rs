//! The intake's unix socket: JSON lines, the peer's user checked, answers in the order of the records.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use serde_json::Value;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::inlet::intake::rate::Rate;
use crate::inlet::intake::{Caller, Intake, all_connections_in_use, too_fast, too_long};
use crate::inlet::lines::{Line, Lines};
use crate::inlet::unix;
use crate::inlet::wire::reply::error_answer;
use crate::inlet::wire::{ErrorCode, LINE_BYTES_MAX, WireError};

/// Group and owner may write to it; who may speak is decided by user.
pub const SOCKET_MODE: u32 = 0o660;

/// Records of one connection that wait for their answers; no more are read until one has left.
const PIPELINE_MAX: usize = 64;
/// A peer that does not read its answers for this long is let go.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// Serves until `shutdown`; then what was read is still answered.
pub async fn run(listener: UnixListener, intake: Arc<Intake>, shutdown: CancellationToken) {
    let admit = |uid, open| {
        admit(uid, open, &intake).map_err(|error| {
            intake.refusals.intents.fetch_add(1, Ordering::Relaxed);
            error_answer(&error)
        })
    };
    let serve = |stream, uid| serve(stream, uid, Arc::clone(&intake), shutdown.clone());
    unix::serve_each(listener, "the intake", &shutdown, admit, serve).await;
}

fn admit(uid: io::Result<u32>, open: usize, intake: &Intake) -> Result<u32, WireError> {
    let uid = uid.map_err(|error| {
        WireError::new(ErrorCode::Unauthorized, &format!("who you are cannot be read: {error}"), "connect again")
    })?;
    if !intake.config.uids.contains(&uid) {
        return Err(WireError::new(
            ErrorCode::Unauthorized,
            &format!("user {uid} may not speak to this intake"),
            "add the user to the intake's uids in countersign.toml",
        ));
    }
    if open >= intake.config.connections_max {
        return Err(all_connections_in_use());
    }
    Ok(uid)
}

async fn serve(stream: UnixStream, uid: u32, intake: Arc<Intake>, shutdown: CancellationToken) {
    let (source, mut sink) = stream.into_split();
    let mut lines = Lines::new(BufReader::new(source), LINE_BYTES_MAX);
    let mut rate = Rate::new(intake.config.records_per_second, (intake.clock)());
    let mut answers = FuturesOrdered::new();
    let mut reading = true;
    while reading || !answers.is_empty() {
        tokio::select! {
            biased;
            Some((_, answer)) = answers.next(), if !answers.is_empty() => {
                if !write(&mut sink, &answer).await {
                    return;
                }
            }
            () = shutdown.cancelled(), if reading => reading = false,
            line = lines.next(), if reading && answers.len() < PIPELINE_MAX => match line {
                Ok(Line::Whole(line)) => answers.push_back(hear(&intake, Some(&line), uid, &mut rate)),
                Ok(Line::TooLong) => answers.push_back(hear(&intake, None, uid, &mut rate)),
                Ok(Line::End) | Err(_) => reading = false,
            },
        }
    }
}

/// `None` is a line that was too long to be kept.
fn hear(intake: &Intake, line: Option<&[u8]>, uid: u32, rate: &mut Rate) -> impl Future<Output = (u16, Value)> + use<> {
    let hearing = match line {
        _ if !rate.take((intake.clock)()) => intake.refuse(&too_fast()),
        Some(line) => intake.hear(line, &Caller::User(uid)),
        None => intake.refuse(&too_long("it was thrown away; the next line is read")),
    };
    hearing.answer(intake.config.answer_within)
}

async fn write(sink: &mut OwnedWriteHalf, answer: &Value) -> bool {
    let line = format!("{answer}\n");
    matches!(tokio::time::timeout(WRITE_WITHIN, sink.write_all(line.as_bytes())).await, Ok(Ok(())))
}
