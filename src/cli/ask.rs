//! The commands that ask the running daemon through its operator's socket.

use std::io::Write;

use clap::Subcommand;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::Config;
use crate::inlet::operator::{OperatorCommand, OperatorError, ask};
use crate::kernel::account::Status;
use crate::kernel::coverage::Sight;
use crate::kernel::incident::{IncidentId, IncidentState, Notice};
use crate::words;

#[derive(Debug, Subcommand)]
pub enum Ask {
    /// How the account is watched now, and what cannot be seen
    Status,
    /// The incidents, newest first
    Incidents,
    /// One incident whole
    Incident { id: u64 },
    /// Acknowledge an incident as `incident ID` shows it
    Ack {
        id: u64,
        /// The revision that you saw; without it, the incident as it is now
        #[arg(long)]
        shown: Option<u64>,
    },
    /// A one-time code that ties a Telegram chat and user to this daemon
    Pair,
    /// Confirm the orders that were open before countersign looked
    Confirm { digest: String },
}

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error("the daemon's answer cannot be read: {0}\nhint: are the daemon and this command of the same version?")]
    Answer(#[from] serde_json::Error),
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
}

/// Asks and prints. The exit status is 1 where the answer is a finding: blind, or an incident that is open.
pub async fn run(command: Ask, json: bool, config: &Config, out: &mut impl Write) -> Result<u8, AskError> {
    let question = match &command {
        Ask::Status => OperatorCommand::Status,
        Ask::Incidents => OperatorCommand::Incidents,
        Ask::Incident { id } => OperatorCommand::Incident { id: IncidentId(*id) },
        Ask::Ack { id, shown } => OperatorCommand::Ack { id: IncidentId(*id), shown: *shown },
        Ask::Pair => OperatorCommand::Pair,
        Ask::Confirm { digest } => OperatorCommand::Confirm { digest: digest.as_str().into() },
    };
    let answer = ask(&config.operator_socket(), &question).await?;
    let (text, finding) = match command {
        Ask::Status => {
            let status: Status = field(&answer, "status")?;
            let finding = status.open_incidents > 0 || status.sight == Sight::Blind;
            (words::status(&status) + &channels(&answer), finding)
        }
        Ask::Incidents => {
            let notices: Vec<Notice> = field(&answer, "incidents")?;
            let finding = notices.iter().any(|notice| notice.state == IncidentState::Open);
            (words::incidents(&notices), finding)
        }
        Ask::Incident { .. } => {
            let notice: Notice = field(&answer, "incident")?;
            (words::incident(&notice), notice.state == IncidentState::Open)
        }
        Ask::Ack { id, .. } => (format!("incident {id} is acknowledged as it stood\n"), false),
        Ask::Confirm { .. } => ("confirmed: those orders are yours\n".to_owned(), false),
        Ask::Pair => {
            let code: String = field(&answer, "code")?;
            let minutes: u64 = field(&answer, "valid_minutes")?;
            (format!("Send this to your bot in Telegram within {minutes} minutes:\n\n    /pair {code}\n"), false)
        }
    };
    if json {
        writeln!(out, "{answer}")?
    } else {
        write!(out, "{text}")?
    }
    Ok(u8::from(finding))
}

fn channels(answer: &Value) -> String {
    let Some(channels) = answer["channels"].as_array().filter(|channels| !channels.is_empty()) else {
        return "channels: NONE. Alerts reach nobody: configure [telegram] or [webhook].\n".to_owned();
    };
    let line = |channel: &Value| {
        let text = |name: &str| channel[name].as_str().unwrap_or("unknown").replace('_', " ");
        format!("channel {}: {}\n", text("channel"), text("state"))
    };
    channels.iter().map(line).collect()
}

fn field<T: DeserializeOwned>(answer: &Value, name: &str) -> Result<T, serde_json::Error> {
    serde_json::from_value(answer[name].clone())
}
