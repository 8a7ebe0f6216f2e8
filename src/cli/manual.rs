//! `countersign manual | not-me`: an owner says that he trades by hand, or that it was not he.

use std::io::Write;
use std::path::Path;

use clap::{Args, Subcommand};

use crate::cli::WrongUsage;
use crate::cli::trust::{is_request, one_time_password, watched};
use crate::config::Config;
use crate::inlet::operator::{OperatorCommand, ask};
use crate::kernel::claim::{Claim, check_reason};
use crate::kernel::command::Command;
use crate::kernel::incident::IncidentId;

#[derive(Debug, Subcommand)]
pub enum Hand {
    /// Open a claim window: orders by hand that are yours; asks for a one-time password
    Manual(ManualArgs),
    /// Somebody else traded in the claim window: end it, and treat all of its orders as a stranger's
    NotMe {
        account: String,
        /// The window's incident; without it, the last window
        incident: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub struct ManualArgs {
    account: String,
    /// A symbol, named in full (1 to 10 of them)
    #[arg(long, required_unless_present = "end")]
    symbol: Vec<String>,
    /// BUY, SELL or both
    #[arg(long, required_unless_present = "end")]
    side: Option<String>,
    /// The most that all orders together may trade, like 2000USDT; one for each quote asset
    #[arg(long, required_unless_present = "end")]
    notional: Vec<String>,
    /// The most orders (1 to 50)
    #[arg(long, required_unless_present = "end")]
    orders: Option<String>,
    /// How long, like 30m or 2h (at most 4h)
    #[arg(long = "for", required_unless_present = "end")]
    span: Option<String>,
    /// The reason, which is told on every channel
    #[arg(long, required_unless_present = "end")]
    why: Option<String>,
    /// End the window that is open
    #[arg(long, conflicts_with_all = ["symbol", "side", "notional", "orders", "span", "why"])]
    end: bool,
}

pub async fn run(command: Hand, json: bool, config: &Config, out: &mut impl Write) -> anyhow::Result<u8> {
    let socket = config.operator_socket();
    let said = match command {
        Hand::Manual(args) if args.end => {
            watched(config, &args.account)?;
            order(&socket, Command::EndManual).await?;
            "the claim window is over".to_owned()
        }
        Hand::Manual(args) => {
            watched(config, &args.account)?;
            let [side, orders, span, why] =
                [&args.side, &args.orders, &args.span, &args.why].map(|given| given.as_deref().unwrap_or_default());
            let claim = Claim::parse(&args.symbol.join(","), side, &args.notional.join(","), orders, span);
            let claim = claim.and_then(|claim| check_reason(why).map(|()| claim));
            let wrong = |wrong| WrongUsage(format!("{wrong}\nhint: `countersign manual --help` shows the form"));
            let claim = claim.map_err(wrong)?;
            let said = format!("a claim window is open for {} minutes: {claim}", claim.minutes);
            let (code, why) = (Some(one_time_password()?), Some(why.into()));
            let order = OperatorCommand::Order { incident: None, order: Command::Manual { claim }, code, why };
            let answer = ask(&socket, &order).await?;
            if is_request(&answer) {
                return Ok(1);
            }
            said
        }
        Hand::NotMe { account, incident } => {
            watched(config, &account)?;
            order(&socket, Command::NotMe { window: incident.map(IncidentId) }).await?;
            "the claim window is over, and all of its orders are treated as a stranger's".to_owned()
        }
    };
    if json {
        writeln!(out, "{}", serde_json::json!({ "ok": true, "done": said }))?;
    } else {
        writeln!(out, "{said}")?;
    }
    Ok(0)
}

async fn order(socket: &Path, order: Command) -> anyhow::Result<()> {
    ask(socket, &OperatorCommand::Order { incident: None, order, code: None, why: None }).await?;
    Ok(())
}
