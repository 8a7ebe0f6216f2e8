//! The owner's part in the demo: the kill, followed to its proof, and what the stolen key is worth afterwards.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::demo::{Show, Stage, THIEF_AGENT};
use crate::inlet::operator::{OperatorCommand, ask};
use crate::kernel::command::Command;
use crate::kernel::containment::{End, Progress};
use crate::sim::client::ClientError;
use crate::words;

/// A containment that is not proved by then counts as not proved.
const PROVED_WITHIN: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the kill came to: the watcher's own word, and the exchange's answer to the thief's next order.
#[derive(Debug)]
pub struct Killed {
    progress: Progress,
    thief_told: String,
    thief_refused: bool,
}

impl Killed {
    pub fn is_proved(&self) -> bool {
        self.progress.end == Some(End::Contained) && self.thief_refused
    }

    pub fn json(&self) -> Value {
        json!({
            "proved": self.is_proved(),
            "word": self.progress.word,
            "blocked_ms": self.progress.blocked_ms,
            "orders_gone_ms": self.progress.orders_gone_ms,
            "ended_ms": self.progress.ended_ms,
            "thief_told": self.thief_told,
            "proof": self.progress.lines,
        })
    }
}

pub async fn kill<W: Write>(stage: &mut Stage, show: &mut Show<'_, W>) -> anyhow::Result<Killed> {
    show.say("The owner has seen the alert and says: countersign kill main")?;
    let order = OperatorCommand::Order { incident: None, order: Command::Kill, code: None, why: None };
    ask(&stage.bound.operator_socket, &order).await?;
    let ended = tokio::time::timeout(PROVED_WITHIN, async {
        loop {
            let progress = progress(stage).await?;
            // The screen's queue is emptied, so that the watcher has room for more.
            while let Ok(notice) = stage.notices.try_recv() {
                show.note(*notice);
            }
            if progress.end.is_some() {
                return anyhow::Ok(progress);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    let progress = match ended.await {
        Ok(progress) => progress?,
        Err(_) => progress(stage).await?,
    };
    show.settle()?;
    show.say(&words::containment(&progress))?;
    let thief = stage.client(THIEF_AGENT)?;
    let order = [("symbol", "BTCUSDT"), ("side", "SELL"), ("type", "MARKET"), ("quantity", "0.001")];
    let (thief_told, thief_refused) = match thief.place(&order).await {
        Ok(_) => ("taken".to_owned(), false),
        Err(ClientError::Refused { code, message, .. }) => (format!("{code} {message}"), true),
        Err(other) => (other.to_string(), false),
    };
    show.say(&format!("(the thief tries again, and the exchange answers: {thief_told})"))?;
    Ok(Killed { progress, thief_told, thief_refused })
}

async fn progress(stage: &Stage) -> anyhow::Result<Progress> {
    let answer = ask(&stage.bound.operator_socket, &OperatorCommand::Containment).await?;
    Ok(serde_json::from_value(answer["containment"].clone())?)
}
