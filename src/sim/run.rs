//! `countersign sim`: the simulated exchange alone, for anybody's client.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::kernel::time::Time;
use crate::sim::config::{
    AccountSpec, EmptiedAddressList, KeySpec, PostedAddresses, SimConfig, StreamsOfDeletedKeys, Unknowns,
};
use crate::sim::door::{TlsError, server_config};
use crate::sim::key::Permission;
use crate::sim::listener::serve;

#[derive(Debug, Clone, Args)]
pub struct SimArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9090")]
    pub listen: SocketAddr,
    /// Decides prices, ids and demo keys: the same seed gives the same exchange
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many demo accounts: sub-accounts of one master, each with two trading keys and a read-only one
    #[arg(long, default_value_t = 1)]
    pub accounts: u32,
    /// A JSON list of accounts with balances and keys, in place of the demo accounts
    #[arg(long, conflicts_with = "accounts")]
    pub accounts_file: Option<PathBuf>,
    /// Milliseconds between two moves of the prices; 0 keeps them still
    #[arg(long, default_value_t = 1_000)]
    pub price_step_ms: u64,
    /// Request weight an address may use in a minute
    #[arg(long, default_value_t = 6_000)]
    pub weight_per_minute: u32,
    /// Orders an account may place in ten seconds
    #[arg(long, default_value_t = 100)]
    pub orders_per_10s: u32,
    /// Seconds until a WebSocket connection is ended by the exchange
    #[arg(long, default_value_t = 86_400)]
    pub connection_life_s: u64,
    /// A JSON list of faults that are inflicted from the start, as `POST /sim/v1/faults` takes them
    #[arg(long)]
    pub faults_file: Option<PathBuf>,
    /// What becomes of the streams that a key opened when the key is deleted
    #[arg(long, value_enum, default_value = "keep")]
    pub streams_of_deleted_keys: StreamsOfDeletedKeys,
    /// What becomes of a key's listed addresses when a restriction is posted
    #[arg(long, value_enum, default_value = "add")]
    pub posted_addresses: PostedAddresses,
    /// What a key is whose last listed address is deleted
    #[arg(long, value_enum, default_value = "unrestricted")]
    pub emptied_address_list: EmptiedAddressList,
    /// Serve TLS with this certificate chain (PEM)
    #[arg(long, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum SimError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot read {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("what {path} holds is not what it should be: {source}")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the simulated exchange ended: {0}")]
    Serve(#[source] io::Error),
}

/// Listens, says so on both outputs (a line for people, one JSON line for scripts), and serves until `shutdown`.
pub async fn run(args: SimArgs, clock: fn() -> Time, shutdown: CancellationToken) -> Result<(), SimError> {
    let config = config(&args, clock)?;
    let address = args.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| SimError::Listen { address, source })?;
    let bound = listener.local_addr().map_err(|source| SimError::Listen { address, source })?;
    announce(bound, config.tls.is_some(), &config.accounts).map_err(SimError::Serve)?;
    serve(listener, config, shutdown).await.map_err(SimError::Serve)
}

fn config(args: &SimArgs, clock: fn() -> Time) -> Result<SimConfig, SimError> {
    let mut config = SimConfig::demo(args.seed, args.accounts, clock);
    if let Some(path) = &args.accounts_file {
        config.accounts = read_json(path)?;
    }
    if let Some(path) = &args.faults_file {
        config.faults = read_json(path)?;
    }
    config.unknowns = Unknowns {
        streams_of_deleted_keys: args.streams_of_deleted_keys,
        posted_addresses: args.posted_addresses,
        emptied_address_list: args.emptied_address_list,
    };
    if let Some((certificate, key)) = args.tls_cert.as_ref().zip(args.tls_key.as_ref()) {
        config.tls = Some(server_config(certificate, key)?);
    }
    config.price_step = (args.price_step_ms > 0).then(|| Duration::from_millis(args.price_step_ms));
    config.weight_per_minute = args.weight_per_minute;
    config.orders_per_10s = args.orders_per_10s;
    config.connection_life = Duration::from_secs(args.connection_life_s);
    Ok(config)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, SimError> {
    let path = path.to_owned();
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map_err(|source| SimError::Json { path, source }),
        Err(source) => Err(SimError::File { path, source }),
    }
}

/// These keys are made up here and open nothing else, so they are printed.
fn announce(bound: SocketAddr, tls: bool, accounts: &[AccountSpec]) -> io::Result<()> {
    let s = if tls { "s" } else { "" };
    let (rest, ws) = (format!("http{s}://{bound}"), format!("ws{s}://{bound}/ws-api/v3"));
    let mut people = anstream::stderr();
    writeln!(people, "Simulated exchange\n  REST       {rest}\n  WebSocket  {ws}")?;
    for account in accounts {
        let email = account.email.as_deref().map(|email| format!(", {email}")).unwrap_or_default();
        let sub = account.master.map(|master| format!(", sub-account of {master}")).unwrap_or_default();
        writeln!(people, "Account {} (uid {}{email}{sub})", account.name, account.uid)?;
        for key in &account.keys {
            let secret = key.secret.as_deref().unwrap_or("(Ed25519: yours)");
            writeln!(people, "  {} {}\n    key     {}\n    secret  {secret}", key.name, abilities(key), key.api_key)?;
        }
    }
    let rows: Vec<_> = accounts
        .iter()
        .map(|account| {
            let keys: Vec<_> = account.keys.iter().map(told_key).collect();
            json!({
                "account": account.uid, "name": account.name, "email": account.email, "master": account.master,
                "keys": keys,
            })
        })
        .collect();
    let mut scripts = io::stdout().lock();
    writeln!(scripts, "{}", json!({ "rest": rest, "ws": ws, "accounts": rows }))?;
    scripts.flush()
}

fn told_key(key: &KeySpec) -> Value {
    let permissions = key.permissions();
    json!({
        "name": key.name,
        "api_key": key.api_key,
        "secret": key.secret,
        "trade": permissions.contains(&Permission::SpotTrading),
        "permissions": permissions,
        "addresses": key.addresses,
    })
}

fn abilities(key: &KeySpec) -> String {
    let told = key.permissions().into_iter().map(|permission| match permission {
        Permission::Reading => "reads",
        Permission::SpotTrading => "trades",
        Permission::Margin => "borrows",
        Permission::Futures => "trades futures",
        Permission::UniversalTransfer | Permission::InternalTransfer => "transfers",
        Permission::VanillaOptions => "trades options",
        Permission::Withdrawals => "withdraws",
    });
    let told = told.collect::<Vec<_>>().join(", ");
    let from: Vec<String> = key.addresses.iter().map(ToString::to_string).collect();
    if from.is_empty() { told } else { format!("{told}, from {} only", from.join(", ")) }
}
