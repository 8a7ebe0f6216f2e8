//! The commands that ask the running daemon through its operator's socket.

use std::io::Write;

use clap::Subcommand;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::trust::{is_request, one_time_password, reason};
use crate::config::Config;
use crate::inlet::operator::{OperatorCommand, OperatorError, ask};
use crate::kernel::account::Status;
use crate::kernel::command::Command;
use crate::kernel::coverage::Sight;
use crate::kernel::incident::{IncidentId, IncidentState, Notice};
use crate::kernel::shared::{ChannelFault, ChannelState, ChannelStatus};
use crate::words;

#[derive(Debug, Subcommand)]
pub enum Ask {
    /// How the account is watched now, and what cannot be seen
    Status,
    /// The incidents, newest first
    Incidents,
    /// One incident whole
    Incident { id: u64 },
    /// Show an incident, and acknowledge it as shown: what comes later opens it again
    Ack {
        id: u64,
        /// The revision that you saw already: nothing is shown, and what has changed since is not acknowledged
        #[arg(long)]
        shown: Option<u64>,
    },
    /// A one-time code that ties a Telegram chat and user to this daemon
    Pair {
        /// In fund mode, where another chat is paired: why, which is told on every channel; asked for where it is missing
        #[arg(long)]
        why: Option<String>,
    },
    /// Confirm the orders that were open before countersign looked
    Confirm { digest: String },
}

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error(
        "there is nothing to pair: no Telegram is configured\nhint: add [telegram] to the configuration, and start countersign again"
    )]
    NoTelegram,
    #[error("the daemon's answer cannot be read: {0}\nhint: are the daemon and this command of the same version?")]
    Answer(#[from] serde_json::Error),
    #[error("{0}")]
    Asking(#[from] anyhow::Error),
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
}

/// Asks and prints. The exit status is 1 where the answer is a finding: blind, a channel that does not reach anybody,
/// or an incident that is open.
pub async fn run(command: Ask, json: bool, config: &Config, out: &mut impl Write) -> Result<u8, AskError> {
    if matches!(command, Ask::Pair { .. }) && config.telegram.is_none() {
        return Err(AskError::NoTelegram);
    }
    let question = match &command {
        Ask::Status => OperatorCommand::Status,
        Ask::Incidents => OperatorCommand::Incidents,
        Ask::Incident { id } => OperatorCommand::Incident { id: IncidentId(*id) },
        Ask::Ack { id, shown: Some(shown) } => OperatorCommand::Ack { id: IncidentId(*id), shown: Some(*shown) },
        Ask::Ack { id, shown: None } => {
            let id = IncidentId(*id);
            let answer = ask(&config.operator_socket(), &OperatorCommand::Incident { id }).await?;
            let notice: Notice = field(&answer, "incident")?;
            if !json && notice.state == IncidentState::Open {
                write!(out, "{}", words::incident(&notice))?;
            }
            OperatorCommand::Ack { id, shown: Some(notice.revision) }
        }
        Ask::Pair { .. } => OperatorCommand::Pair,
        Ask::Confirm { digest } => OperatorCommand::Confirm { digest: digest.as_str().into() },
    };
    let answer = ask(&config.operator_socket(), &question).await?;
    if let Ask::Pair { why } = &command
        && answer["needs_approval"] == true
    {
        return ask_to_pair(config, why.as_slice()).await;
    }
    let (text, finding) = match command {
        Ask::Status => {
            let status: Status = field(&answer, "status")?;
            let channels: Vec<ChannelStatus> = field(&answer, "channels")?;
            let reached = !channels.is_empty() && channels.iter().all(is_sound);
            let finding = status.open_incidents > 0 || status.sight == Sight::Blind || !reached;
            (words::status(&status) + &told(&channels), finding)
        }
        Ask::Incidents => {
            let notices: Vec<Notice> = field(&answer, "incidents")?;
            let finding = notices.iter().any(|notice| notice.state == IncidentState::Open && !notice.is_drill());
            (words::incidents(&notices), finding)
        }
        Ask::Incident { .. } => {
            let notice: Notice = field(&answer, "incident")?;
            (words::incident(&notice), notice.state == IncidentState::Open && !notice.is_drill())
        }
        Ask::Ack { id, .. } => (format!("incident {id} is acknowledged as it was shown\n"), false),
        Ask::Confirm { .. } => ("confirmed: those orders are yours\n".to_owned(), false),
        Ask::Pair { .. } => {
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

/// In fund mode another chat takes another person's word; then this command is given again.
async fn ask_to_pair(config: &Config, why: &[String]) -> Result<u8, AskError> {
    eprintln!("Another chat is paired: to move the alerts takes a reason, a one-time password and another person.");
    let (why, code) = (reason(why)?, Some(one_time_password()?));
    let order = OperatorCommand::Order { incident: None, order: Command::Pair, code, why };
    if is_request(&ask(&config.operator_socket(), &order).await?) {
        eprintln!("Once it is approved: countersign pair");
    }
    Ok(1)
}

/// What is held or failing is tried again and counts as down when it lasts.
fn is_sound(channel: &ChannelStatus) -> bool {
    let reaches = match channel.state {
        ChannelState::Ready | ChannelState::Held { .. } | ChannelState::Failing { .. } => true,
        ChannelState::NotPaired | ChannelState::Down { .. } => false,
    };
    reaches && channel.fault.is_none()
}

fn told(channels: &[ChannelStatus]) -> String {
    if channels.is_empty() {
        return "channels: NONE. Alerts reach nobody: configure [telegram] or [webhook].\n".to_owned();
    }
    let line = |ChannelStatus { channel, state, fault }: &ChannelStatus| {
        let state = match state {
            ChannelState::NotPaired => "NOT PAIRED, alerts do not reach it: countersign pair".to_owned(),
            ChannelState::Ready => "ready".to_owned(),
            ChannelState::Held { until } => format!("asked us to wait until {until} UTC"),
            ChannelState::Failing { since, reason } => format!("failing since {since} UTC: {reason}"),
            ChannelState::Down { since, reason } => format!("DOWN since {since} UTC: {reason}"),
        };
        let fault = fault.as_ref().map(|fault| format!("  {}\n", fault_told(fault))).unwrap_or_default();
        format!("channel {channel}: {state}\n{fault}")
    };
    channels.iter().map(line).collect()
}

fn fault_told(fault: &ChannelFault) -> String {
    match fault {
        ChannelFault::Conflict => {
            "somebody else reads its updates: a second countersign, or the token is stolen".into()
        }
        ChannelFault::WebhookSet { host } => {
            format!("somebody set a webhook to {host}: commands no longer reach us, the token may be stolen")
        }
        ChannelFault::TokenRefused => "it refuses our token: it was revoked, or is mistyped".into(),
        ChannelFault::Unreachable { reason } => format!("commands cannot be read from it: {reason}"),
    }
}

fn field<T: DeserializeOwned>(answer: &Value, name: &str) -> Result<T, serde_json::Error> {
    serde_json::from_value(answer[name].clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::channel::Channel;
    use crate::kernel::time::Time;

    #[test]
    fn each_channel_is_told_as_the_daemon_sends_it_and_only_what_reaches_nobody_is_a_finding() {
        let at = Time::from_millis(1_764_000_000_000);
        let reason: Box<str> = "connection refused".into();
        let cases = [
            (ChannelState::Ready, None, true, "channel the webhook: ready\n"),
            (ChannelState::Held { until: at }, None, true, "wait until 2025-11-24"),
            (ChannelState::Failing { since: at, reason: reason.clone() }, None, true, ": connection refused\n"),
            (ChannelState::Down { since: at, reason }, None, false, "DOWN since 2025-11-24"),
            (ChannelState::NotPaired, None, false, "countersign pair"),
            (ChannelState::Ready, Some(ChannelFault::TokenRefused), false, "ready\n  it refuses our token"),
            (ChannelState::Ready, Some(ChannelFault::WebhookSet { host: "a.example".into() }), false, "a.example"),
        ];
        for (state, fault, sound, part) in cases {
            let channel = ChannelStatus { channel: Channel::Webhook, state, fault };
            let sent = serde_json::json!({ "channels": [channel] });
            let channels: Vec<ChannelStatus> = field(&sent, "channels").unwrap();
            assert_eq!(is_sound(&channels[0]), sound, "{sent}");
            assert!(told(&channels).contains(part), "{}", told(&channels));
        }
        assert!(told(&[]).contains("Alerts reach nobody"));
    }
}
