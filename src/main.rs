//! The command line. Exit status: 0 fine, 1 a finding or a failure, 2 wrong usage, 78 a wrong configuration.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use countersign::cli::WrongUsage;
use countersign::cli::ask::{self, Ask, AskError};
use countersign::cli::decode::DecodeArgs;
use countersign::cli::demo::{self, DemoArgs};
use countersign::cli::drill;
use countersign::cli::journal::{self, JournalCommand, ReplayArgs};
use countersign::cli::manual::{self, Hand};
use countersign::cli::rules::{self, RulesCommand};
use countersign::cli::run::{self, ConfigArgs, RunError};
use countersign::cli::secret::{self, SecretArgs};
use countersign::cli::simulate::{self, SimulateArgs};
use countersign::cli::stop::{self, Stop};
use countersign::cli::trust::{self, Trust};
use countersign::cli::{access, run::on_signal};
use countersign::clock;
use countersign::config::Config;
use countersign::sim::control::CONTROLS;
use countersign::sim::run::{self as sim, SimArgs};
use tracing_subscriber::EnvFilter;

const LET_GO_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

const EXIT_STATUS: &str =
    "Exit status: 0 fine or proved, 1 a finding or a failure, 2 wrong usage, 78 a wrong configuration";

#[derive(Parser)]
#[command(version, about, propagate_version = true, after_help = EXIT_STATUS)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    /// Data as JSON, one object
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A simulated exchange, a bot, a thief and the watcher; no account, no keys
    Demo(DemoArgs),
    /// Watch the configured account, in the foreground
    Run,
    #[command(flatten)]
    Ask(Ask),
    #[command(flatten)]
    Stop(Stop),
    #[command(flatten)]
    Hand(Hand),
    #[command(flatten)]
    Trust(Trust),
    /// A made-up theft through the whole chain to every channel, timed at each hop; status 0 if each delivered in 5 s
    Drill {
        /// The containment too: the declared throw-away key is frozen, deleted and proved dead, and no other is touched
        #[arg(long)]
        kill: bool,
    },
    /// Address evidence
    #[command(subcommand)]
    Access(AccessCommand),
    /// Rules
    #[command(subcommand)]
    Rules(RulesCommand),
    /// The journal
    #[command(subcommand)]
    Journal(JournalCommand),
    /// The secrets in the vault: they go in, are listed by name, and are never shown
    Secret(SecretArgs),
    /// Run a journal's events through the kernel again and compare the effects
    Replay(ReplayArgs),
    /// Read recorded frames of the private stream, line by line
    Decode(DecodeArgs),
    /// The simulated exchange alone, for anybody's client
    #[command(after_help = CONTROLS)]
    Sim(SimArgs),
    /// Thefts and faults in virtual time, from seeds, judged by the simulated exchange's own ledger
    Simulate(SimulateArgs),
}

#[derive(Subcommand)]
enum AccessCommand {
    /// Import JSON lines; every row is taken, or refused with its line
    Import { file: std::path::PathBuf },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(matches!(cli.command, Command::Run));
    let outcome = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(obey(cli));
            // A disk that takes nothing keeps the journal's writer in its call: the process does not wait for it.
            runtime.shutdown_timeout(LET_GO_AFTER);
            outcome
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(status) => ExitCode::from(status),
        // Whoever closed the pipe has read enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", explain(&error));
            let status = match error.downcast_ref::<WrongUsage>() {
                Some(_) => 2,
                None => error.downcast_ref::<RunError>().map_or(1, RunError::exit_status),
            };
            ExitCode::from(status)
        }
    }
}

/// Of our own output: a connection's error has a name around it.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = match error.downcast_ref() {
        Some(AskError::Print(error)) => Some(error),
        Some(_) | None => error.downcast_ref::<io::Error>(),
    };
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What went wrong with every cause that it does not name itself, and the first hint last.
fn explain(error: &anyhow::Error) -> String {
    let (mut what, mut hint) = (String::new(), None);
    for text in error.chain().map(ToString::to_string) {
        let (cause, advice) = text.split_once("\nhint: ").map_or((&*text, None), |(cause, hint)| (cause, Some(hint)));
        if what.is_empty() {
            cause.clone_into(&mut what);
        } else if !what.contains(cause) {
            what = format!("{what}: {cause}");
        }
        hint = hint.or_else(|| advice.map(|advice| format!("\nhint: {advice}")));
    }
    what + &hint.unwrap_or_default()
}

async fn obey(cli: Cli) -> anyhow::Result<u8> {
    let Cli { config, json, command } = cli;
    let mut out = BufWriter::new(io::stdout().lock());
    let configured = || Config::read(&config.config).map_err(RunError::from);
    let status = match command {
        Command::Demo(args) => demo::run(&args, json, &mut out).await?,
        Command::Run => {
            run::run(&config).await?;
            0
        }
        Command::Ask(question) => ask::run(question, json, &configured()?, &mut out).await?,
        Command::Stop(command) => stop::run(command, json, &configured()?, &mut out).await?,
        Command::Trust(command) => trust::run(command, json, &configured()?, &mut out).await?,
        Command::Hand(command) => manual::run(command, json, &configured()?, &mut out).await?,
        Command::Drill { kill } => drill::run(kill, json, &configured()?, &mut out).await?,
        Command::Access(AccessCommand::Import { file }) => {
            access::import(&file, &configured()?.operator_socket(), json, &mut out).await?.exit_status()
        }
        Command::Rules(command) => {
            rules::run(&command, json, &mut out)?;
            0
        }
        Command::Journal(JournalCommand::Verify { file }) => {
            let file = match file {
                Some(file) => file,
                None => configured()?.journal_file(),
            };
            journal::verify(&file, json, &mut out)?
        }
        Command::Secret(args) => {
            secret::run(args, json, &configured()?, &mut out)?;
            0
        }
        Command::Replay(args) => journal::replay(&args, json, &mut out)?,
        Command::Decode(args) => u8::from(args.run(json, &mut out)?),
        Command::Sim(args) => {
            sim::run(args, clock::wall, on_signal()?).await?;
            0
        }
        Command::Simulate(args) => simulate::run(&args, json, &mut out)?,
    };
    out.flush()?;
    Ok(status)
}

/// Logs go to stderr. What the HTTP libraries say may hold signed addresses, so they are heard from warnings on.
fn start_log(daemon: bool) {
    let usual = if daemon { "info" } else { "warn" };
    let quiet = format!("{usual},hyper=warn,hyper_util=warn,reqwest=warn,h2=warn,rustls=warn,teloxide=warn");
    let filter = EnvFilter::try_from_env("COUNTERSIGN_LOG").unwrap_or_else(|_| EnvFilter::new(quiet));
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_named_once_and_the_hint_stands_last() {
        let error = anyhow::Error::new(io::Error::other("broken pipe"))
            .context("the connection broke\nhint: did the daemon end?")
            .context("row 3 was not answered");
        assert_eq!(
            explain(&error),
            "row 3 was not answered: the connection broke: broken pipe\nhint: did the daemon end?"
        );
        assert_eq!(explain(&anyhow::anyhow!("no\nhint: yes").context("not no")), "not no\nhint: yes");
    }

    #[test]
    fn a_claim_window_names_all_of_it_or_only_its_end() {
        let whole = "manual main --symbol BTCUSDT --symbol ETHUSDT --side BUY --notional 2000USDT --orders 3 --for 30m";
        for (line, reads) in [
            (format!("{whole} --why rebalancing"), true),
            (whole.to_owned(), false),
            ("manual main --end".to_owned(), true),
            ("manual main".to_owned(), false),
            (format!("{whole} --why rebalancing --end"), false),
            ("not-me main".to_owned(), true),
            ("not-me main 12".to_owned(), true),
            ("not-me".to_owned(), false),
        ] {
            let words = std::iter::once("countersign").chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(words).is_ok(), reads, "{line}");
        }
    }

    #[test]
    fn the_configuration_may_be_named_before_and_after_the_command() {
        for line in ["countersign -c x run", "countersign run -c x", "countersign access import rows --config x"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.config.config, std::path::Path::new("x"), "{line}");
        }
    }
}
