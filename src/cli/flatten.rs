//! `countersign flatten`: shows what selling everything would come to, and sells exactly that once its owner gives a
//! one-time password.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;

use crate::cli::WrongUsage;
use crate::cli::trust::{is_request, one_time_password, reason};
use crate::config::Config;
use crate::inlet::operator::{OperatorCommand, ask};
use crate::kernel::command::Command;
use crate::kernel::flatten::{Sale, Stage};
use crate::kernel::money::Dec;
use crate::kernel::order::Asset;

const LOOK_EVERY: Duration = Duration::from_millis(200);
const FOLLOW_FOR: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub struct FlattenArgs {
    account: String,
    /// The asset that everything is sold for
    #[arg(long)]
    to: String,
    /// How much of the price may be lost, and how far the best bid may be from the average
    #[arg(long, default_value = "1%")]
    within: String,
    /// Show what would be sold, and sell nothing
    #[arg(long)]
    plan: bool,
    /// Why, which is told on every channel; asked for where it is missing
    #[arg(long, conflicts_with = "plan")]
    why: Option<String>,
}

impl FlattenArgs {
    pub fn account(&self) -> &str {
        &self.account
    }
}

/// The exit status is 0 only if all that was offered was sold, or it was only to be shown.
pub async fn run(args: FlattenArgs, json: bool, config: &Config, out: &mut impl Write) -> anyhow::Result<u8> {
    let within = part(&args.within)?;
    let why = if args.plan { None } else { reason(args.why.as_slice())? };
    let socket = config.operator_socket();
    let order = |order, code, why| OperatorCommand::Order { incident: None, order, code, why };
    ask(&socket, &order(Command::PlanFlatten { to: Asset::new(&args.to), within }, None, None)).await?;
    let planned = follow(&socket).await?;
    if planned.stage != Stage::Planned || args.plan || planned.is_empty() {
        print(&planned, json, out)?;
        // Asked to sell, it has not.
        let left = !args.plan && !planned.legs.is_empty();
        return Ok(u8::from(planned.stage != Stage::Planned || left));
    }
    eprint!("{planned}");
    eprintln!("Nothing is sold without a one-time password.");
    let code = Some(one_time_password()?);
    let answer = ask(&socket, &order(Command::Flatten { plan: planned.plan }, code, why)).await?;
    if is_request(&answer) {
        return Ok(1);
    }
    let sale = follow(&socket).await?;
    print(&sale, json, out)?;
    if !json && !sale.is_whole() {
        eprintln!("not all that was offered is sold, or it is not known: the exit status is 1");
    }
    Ok(u8::from(!sale.is_whole()))
}

/// `1%` is 0.01.
fn part(text: &str) -> Result<Dec, WrongUsage> {
    let percent: Option<Dec> = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
    let hundredth: Option<Dec> = "0.01".parse().ok();
    let part = percent.zip(hundredth).and_then(|(percent, hundredth)| percent.checked_mul(hundredth));
    let wrong = || WrongUsage(format!("--within is {text:?}\nhint: a part of the price in per cent, like 0.5%"));
    part.ok_or_else(wrong)
}

async fn follow(socket: &Path) -> anyhow::Result<Sale> {
    let follow = async {
        loop {
            let answer = ask(socket, &OperatorCommand::Flattening).await?;
            let sale: Sale = serde_json::from_value(answer["flatten"].clone())?;
            match sale.stage {
                Stage::ReadingBalances | Stage::ReadingPrices | Stage::Selling => tokio::time::sleep(LOOK_EVERY).await,
                Stage::Planned | Stage::Done | Stage::Failed { .. } => return anyhow::Ok(sale),
            }
        }
    };
    let followed = tokio::time::timeout(FOLLOW_FOR, follow).await;
    followed.map_err(|_| anyhow!("it takes long\nhint: it goes on; its incident tells the end"))?
}

fn print(sale: &Sale, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string(sale)?)?;
    } else {
        write!(out, "{sale}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_given_in_per_cent() {
        for (text, expected) in
            [("1%", Some("0.01")), ("0.25 %", Some("0.0025")), ("1", None), ("%", None), ("-", None)]
        {
            assert_eq!(part(text).ok().map(|part| part.to_string()).as_deref(), expected, "{text}");
        }
    }
}
