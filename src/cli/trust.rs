//! `countersign disarm | arm | allow | approve | decline | requests`: what widens or narrows trust, from the host.

use std::io::Write;

use anyhow::anyhow;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::WrongUsage;
use crate::config::Config;
use crate::inlet::operator::{OperatorCommand, ask};
use crate::kernel::account::{RequestStatus, Status};
use crate::kernel::command::{Allowable, Command, read_span};
use crate::secret::typed::Typed;
use crate::words;

#[derive(Debug, Subcommand)]
pub enum Trust {
    /// Do nothing by itself on the account until `arm`; asks for a one-time password
    Disarm {
        account: String,
        /// Why, which is told on every channel
        why: Vec<String>,
        /// Armed again after so long: 30m, 2h, 1d
        #[arg(long = "for")]
        span: Option<String>,
    },
    /// Do again by itself what the configured mode allows; asks for a one-time password
    Arm {
        account: String,
        /// Why, which is told on every channel
        why: Vec<String>,
    },
    /// An address or network is familiar, or a key that nobody declared is yours; asks for a one-time password
    Allow {
        account: String,
        /// 203.0.113.7, 203.0.113.0/24, or the print of a key as `containment` or an incident shows it
        what: String,
        /// Why, which is told on every channel
        why: Vec<String>,
        /// For so long, 90d at the most
        #[arg(long = "for", default_value = "30d")]
        span: String,
        /// Take it back
        #[arg(long, conflicts_with = "why")]
        end: bool,
    },
    /// Agree to what another person asked for; asks for your own one-time password where it needs one
    Approve { request: u32 },
    /// Refuse what somebody asked for, or take back your own request
    Decline { request: u32 },
    /// What waits for another person's approval
    Requests,
}

pub async fn run(command: Trust, json: bool, config: &Config, out: &mut impl Write) -> anyhow::Result<u8> {
    let (order, why) = match command {
        Trust::Requests => {
            let waiting = waiting(config).await?;
            if json {
                writeln!(out, "{}", json!({ "ok": true, "requests": waiting }))?;
            } else {
                write!(out, "{}", words::requests(&waiting))?;
            }
            return Ok(u8::from(!waiting.is_empty()));
        }
        Trust::Disarm { account, why, span: for_s } => {
            watched(config, &account)?;
            (Command::Disarm { for_s: for_s.as_deref().map(span).transpose()? }, reason(&why)?)
        }
        Trust::Arm { account, why } => {
            watched(config, &account)?;
            (Command::Arm, reason(&why)?)
        }
        Trust::Allow { account, what, end: true, .. } => {
            watched(config, &account)?;
            (Command::EndAllowance { what: allowable(&what)? }, None)
        }
        Trust::Allow { account, what, why, span: for_s, end: false } => {
            watched(config, &account)?;
            (Command::Allow { what: allowable(&what)?, for_s: Some(span(&for_s)?) }, reason(&why)?)
        }
        Trust::Approve { request } => (Command::Approve { request }, None),
        Trust::Decline { request } => (Command::Decline { request }, None),
    };
    let waits = match &order {
        Command::Approve { request } | Command::Decline { request } => {
            waiting(config).await?.into_iter().find(|waits| waits.request == *request)
        }
        _ => None,
    };
    let needs_totp = match &order {
        Command::Approve { .. } => waits.as_ref().is_some_and(|waits| waits.needs_totp),
        other => other.needs_totp(),
    };
    let done = done(&order, waits.as_ref(), config.declared.account.as_str());
    let code = if needs_totp { Some(one_time_password()?) } else { None };
    let answer = ask(&config.operator_socket(), &OperatorCommand::Order { incident: None, order, code, why }).await?;
    if json {
        writeln!(out, "{answer}")?;
    }
    if is_request(&answer) {
        return Ok(1);
    }
    if !json {
        writeln!(out, "{done}")?;
    }
    Ok(0)
}

/// What the daemon has done, in one line.
fn done(order: &Command, waits: Option<&RequestStatus>, account: &str) -> String {
    let of = waits.map(|waits| format!(" ({}, asked for by {})", waits.what, waits.by)).unwrap_or_default();
    match order {
        Command::Approve { request } => format!("request {request}{of} is approved, and is being done"),
        Command::Decline { request } => format!("request {request}{of} is declined: nothing is done"),
        other => format!("done: {}", other.words(account)),
    }
}

pub(super) fn one_time_password() -> anyhow::Result<Box<str>> {
    Ok(Typed::stdin()?.secret("one-time password", 64)?.as_str().into())
}

/// Whether it was only asked for; then it says what is missing.
pub(super) fn is_request(answer: &Value) -> bool {
    let request = answer["request"].as_u64();
    if let Some(request) = request {
        eprintln!(
            "request {request}: NOTHING is done yet, another person must approve it within 10 minutes\nhint: countersign approve {request}, as that person's user, or /approve {request} in Telegram"
        );
    }
    request.is_some()
}

pub(super) fn watched(config: &Config, account: &str) -> anyhow::Result<()> {
    let known = config.declared.account.as_str();
    if account == known {
        return Ok(());
    }
    Err(anyhow!("account {account} is not watched here\nhint: this configuration watches {known}"))
}

/// What is missing is asked for where somebody sits.
pub(super) fn reason(why: &[String]) -> anyhow::Result<Option<Box<str>>> {
    let mut why = why.join(" ");
    if why.trim().is_empty() {
        if !Typed::stdin()?.is_terminal() {
            return Err(anyhow!("no reason was given\nhint: say why; it is told on every channel"));
        }
        eprint!("Why (told on every channel): ");
        std::io::stdin().read_line(&mut why)?;
    }
    let why: String = why.trim().chars().take(REASON_CHARS_MAX).collect();
    if why.is_empty() { Err(anyhow!("no reason was given\nhint: nothing was done")) } else { Ok(Some(why.into())) }
}

/// Longer than any channel shows.
const REASON_CHARS_MAX: usize = 200;

async fn waiting(config: &Config) -> anyhow::Result<Vec<RequestStatus>> {
    let answer = ask(&config.operator_socket(), &OperatorCommand::Status).await?;
    let status: Status = serde_json::from_value(answer["status"].clone())?;
    Ok(status.requests)
}

fn allowable(text: &str) -> Result<Allowable, WrongUsage> {
    text.parse().map_err(WrongUsage)
}

fn span(text: &str) -> Result<u64, WrongUsage> {
    read_span(text).ok_or_else(|| WrongUsage(format!("{text:.20?} is no span of time\nhint: 30m, 2h or 30d")))
}
