//! `countersign run`: the daemon in the foreground, until a signal.

use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigError};
use crate::daemon::{self, Bound, DaemonError};
use crate::kernel::account::NO_PASSWORDS;
use crate::kernel::declared::Network;
use crate::kernel::stopping::Mode;
use crate::secret;

#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The configuration
    #[arg(long, short, global = true, default_value = "countersign.toml", env = "COUNTERSIGN_CONFIG")]
    pub config: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error("core dumps cannot be switched off: {0}")]
    CoreDumps(std::io::Error),
    #[error("signals cannot be caught: {0}")]
    Signals(std::io::Error),
}

impl RunError {
    /// As sysexits has it, for a service manager: a wrong configuration is not worth a restart.
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Daemon(DaemonError::Setting(_) | DaemonError::Secret(_)) => 78,
            Self::Daemon(_) | Self::CoreDumps(_) | Self::Signals(_) => 1,
        }
    }
}

pub async fn run(args: &ConfigArgs) -> Result<(), RunError> {
    secret::forbid_core_dumps().map_err(RunError::CoreDumps)?;
    let config = Config::read(&args.config)?;
    let account = config.declared.account.clone();
    let mode = config.containment.mode;
    let no_passwords = config.declared.no_passwords;
    let wide: Vec<_> = config.declared.familiar_networks.iter().copied().filter(Network::is_wide).collect();
    let missing_programs = config.declared.missing_programs.clone();
    let shutdown = on_signal().map_err(RunError::Signals)?;
    let ready = |bound: &Bound| {
        tracing::info!(
            %account,
            intake = %bound.intake_socket.display(),
            operator = %bound.operator_socket.display(),
            http = ?bound.intake_http,
            "{}",
            words(mode)
        );
        if no_passwords {
            tracing::warn!("{NO_PASSWORDS}.");
        }
        for network in &wide {
            tracing::warn!("familiar_networks: {network} is very wide, and an address of anybody in it is no finding.");
        }
        for missing in &missing_programs {
            tracing::warn!("{missing}.");
        }
    };
    daemon::run(config, None, ready, shutdown).await?;
    Ok(())
}

/// What it may do, said at every start.
const fn words(mode: Mode) -> &'static str {
    match mode {
        Mode::Watch => "Watching. It alerts only: it holds no key that could cancel or revoke.",
        Mode::Ask => "Watching. It stops a theft when its owner says so.",
        Mode::Act => "Watching. It stops a theft when its owner says so, and by itself within its bounds.",
    }
}

/// A token that the first SIGINT or SIGTERM cancels. A second one ends the process at once: the journal is whole at any
/// moment, and what was not on disk is the next start's gap.
#[expect(clippy::disallowed_methods, reason = "it waits for signals for as long as the process lives, and may end it")]
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        for second in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            token.cancel();
            if second {
                std::process::exit(1);
            }
        }
    });
    Ok(shutdown)
}
