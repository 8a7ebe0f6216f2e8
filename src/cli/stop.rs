//! `countersign freeze | kill | resume | flatten | containment`: the operator's commands, and how far what they began has come.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cli::flatten::{self, FlattenArgs};
use crate::cli::trust::{is_request, one_time_password, reason, watched};
use crate::config::Config;
use crate::inlet::operator::{OperatorCommand, OperatorError, ask};
use crate::kernel::act::KeyPrint;
use crate::kernel::command::Command;
use crate::kernel::containment::{Aim, End, Progress, StepState};
use crate::kernel::incident::{IncidentId, Line};
use crate::words;

/// The steps are followed this closely, and for this long; the daemon goes on without anybody looking.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const FOLLOW_FOR: Duration = Duration::from_secs(120);

#[derive(Debug, Subcommand)]
pub enum Stop {
    /// Take every right from the account's keys; `resume` gives them back
    Freeze(StopArgs),
    /// Delete the bot's keys, cancel strangers' orders, stop the bot, and prove it
    Kill {
        #[command(flatten)]
        args: StopArgs,
        /// Delete this undeclared key as well, named by the print that the containment shows
        #[arg(long, conflicts_with = "plan")]
        key: Option<String>,
    },
    /// Give back what a freeze took; asks for a one-time password
    Resume {
        account: String,
        /// Why, which is told on every channel; asked for where it is missing
        #[arg(long)]
        why: Option<String>,
    },
    /// Sell what is free, limit-priced and inside a bound, after showing it; asks for a one-time password
    Flatten(FlattenArgs),
    /// How far the containment that runs, or the last one, is
    Containment,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    account: String,
    /// Show what would be done, and do nothing
    #[arg(long)]
    plan: bool,
    /// The incident that this ends
    #[arg(long)]
    incident: Option<u64>,
    /// Why, for whoever must approve it where two people are needed
    #[arg(long)]
    why: Option<String>,
    /// Do not ask whether it is meant
    #[arg(long)]
    yes: bool,
    /// Do not wait for the end
    #[arg(long)]
    no_wait: bool,
}

/// The exit status is 0 only if what was asked for is proved, or was only to be shown.
pub async fn run(command: Stop, json: bool, config: &Config, out: &mut impl Write) -> anyhow::Result<u8> {
    let socket = config.operator_socket();
    let desk = Desk { socket: &socket, json };
    match command {
        Stop::Containment => {
            let answer = ask(desk.socket, &OperatorCommand::Containment).await?;
            let progress: Option<Progress> = serde_json::from_value(answer["containment"].clone())?;
            match answer["before"].as_str().filter(|_| progress.is_none() && !json) {
                Some(before) => {
                    writeln!(out, "nothing was contained since other keys were declared; before that: {before}")?
                }
                None => desk.print(progress.as_ref(), out)?,
            }
            if !json {
                write!(out, "{}", progress.as_ref().map(words::seen).unwrap_or_default())?;
            }
            Ok(u8::from(progress.is_some_and(|progress| !is_proved(&progress))))
        }
        Stop::Flatten(args) => {
            watched(config, args.account())?;
            flatten::run(args, json, config, out).await
        }
        Stop::Freeze(args) => desk.contain(config, Aim::Freeze, args, Command::Freeze, out).await,
        Stop::Kill { args, key: None } => desk.contain(config, Aim::Kill, args, Command::Kill, out).await,
        Stop::Kill { args, key: Some(key) } => {
            let key = serde_json::from_value::<KeyPrint>(Value::String(key))?;
            desk.contain(config, Aim::Kill, args, Command::DeleteKey { key }, out).await
        }
        Stop::Resume { account, why } => {
            watched(config, &account)?;
            let why = reason(why.as_slice())?;
            let code = Some(one_time_password()?);
            let order = OperatorCommand::Order { incident: None, order: Command::Resume, code, why };
            if is_request(&ask(desk.socket, &order).await?) {
                return Ok(1);
            }
            desk.follow(out).await
        }
    }
}

struct Desk<'a> {
    socket: &'a Path,
    json: bool,
}

impl Desk<'_> {
    async fn contain(
        &self,
        config: &Config,
        aim: Aim,
        args: StopArgs,
        order: Command,
        out: &mut impl Write,
    ) -> anyhow::Result<u8> {
        watched(config, &args.account)?;
        let incident = self.known(args.incident).await?;
        if args.plan || !args.yes {
            let answer = ask(self.socket, &OperatorCommand::Plan { aim }).await?;
            let plan: Progress = serde_json::from_value(answer["plan"].clone())?;
            if args.plan {
                match self.json {
                    true => writeln!(out, "{}", serde_json::to_string(&plan)?)?,
                    false => write!(out, "{}", words::plan(&plan))?,
                }
                return Ok(0);
            }
            confirm(&args.account, &plan)?;
        }
        let order = OperatorCommand::Order { incident, order, code: None, why: args.why.map(Into::into) };
        if is_request(&ask(self.socket, &order).await?) {
            return Ok(1);
        }
        if args.no_wait {
            eprintln!("it is under way, and not proved yet: `countersign containment` says how far it is");
            return Ok(0);
        }
        self.follow(out).await
    }

    /// The book drops old incidents, and an emergency does not wait for the right number.
    async fn known(&self, incident: Option<u64>) -> anyhow::Result<Option<IncidentId>> {
        let Some(id) = incident.map(IncidentId) else { return Ok(None) };
        match ask(self.socket, &OperatorCommand::Incident { id }).await {
            Ok(_) => Ok(Some(id)),
            Err(OperatorError::Refused { .. }) => {
                eprintln!("there is no incident {id}: it is told without one");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn progress(&self) -> anyhow::Result<Option<Progress>> {
        let answer = ask(self.socket, &OperatorCommand::Containment).await?;
        Ok(serde_json::from_value(answer["containment"].clone())?)
    }

    /// Tells each new line as it comes, until the end.
    async fn follow(&self, out: &mut impl Write) -> anyhow::Result<u8> {
        let mut told = 0;
        let mut waiting = BTreeSet::new();
        let follow = async {
            loop {
                let progress = self.progress().await?.ok_or_else(|| anyhow!("nothing is being contained"))?;
                let of_now = |line: &&Line| !self.json && line.at >= progress.started_at;
                for line in progress.lines.iter().skip(told).filter(of_now) {
                    eprintln!("{} {}", line.at, line.text);
                }
                told = progress.lines.len();
                for step in progress.steps.iter().filter(|step| !self.json && step.state != StepState::Proved) {
                    let held_up = step.detail.as_ref().filter(|_| step.state != StepState::Waiting);
                    let text = match held_up {
                        Some(detail) => format!("  … {}: {detail}", step.what),
                        None if step.what.starts_with("YOU ") => format!("  … {}", step.what),
                        None => continue,
                    };
                    if waiting.insert(text.clone()) {
                        eprintln!("{text}");
                    }
                }
                if progress.end.is_some() && !progress.bot_is_being_stopped {
                    return anyhow::Ok(progress);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let progress = match tokio::time::timeout(FOLLOW_FOR, follow).await {
            Ok(progress) => Some(progress?),
            // It goes on; this only stops looking.
            Err(_) => self.progress().await?,
        };
        self.print(progress.as_ref(), out)?;
        Ok(u8::from(!progress.as_ref().is_some_and(is_proved)))
    }

    fn print(&self, progress: Option<&Progress>, out: &mut impl Write) -> anyhow::Result<()> {
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&progress)?)?;
        } else {
            write!(out, "{}", progress.map_or_else(|| "nothing was contained yet\n".to_owned(), words::containment))?;
        }
        Ok(())
    }
}

fn is_proved(progress: &Progress) -> bool {
    match progress.end {
        // What it gives back is proved; what it leaves frozen is no step of it.
        Some(End::Released | End::Drilled) => true,
        Some(End::NotProved) | None => false,
        Some(End::Frozen | End::Contained | End::RevokedUnprobed) => {
            progress.steps.iter().all(|step| step.state == StepState::Proved)
        }
    }
}

/// A slip of the finger must not stop a business; a script says `--yes`.
fn confirm(account: &str, plan: &Progress) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(anyhow!("nobody is there to say that this is meant\nhint: --yes says so, --plan only shows it"));
    }
    eprint!("{}Type the account's name to do this: ", words::plan(plan));
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed)?;
    if typed.trim() == account { Ok(()) } else { Err(anyhow!("nothing was done")) }
}
