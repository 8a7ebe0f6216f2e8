//! `[containment]`: who may act, with what, and how the bot is stopped. Raw tables come in, what cannot be wrong goes
//! out; then, at the start, its secrets are fetched.
//!
//! Invariant: in mode `watch` no reference of it is loaded.

mod told;

use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::Deserialize;

use crate::config::name;
use crate::kernel::act::KeyPrint;
use crate::kernel::stopping::{DeclaredKey, KeyRole, Means, Mode, Stopping};
use crate::outlet::bot::{Manager, StopHook};
use crate::outlet::containment::Parts;
use crate::secret::{Reference, SecretError, Secrets};
use crate::venue::binance::{ApiCredential, CredentialError};

const QUIET_S: u64 = 5;
const QUIET_S_MAX: u64 = 60;
const UNANSWERED_S: u64 = 60;
const UNANSWERED_S_MAX: u64 = 3_600;
/// What a hook may take, unless its table says otherwise.
const COMMAND_WITHIN_S: u64 = 30;
const WITHIN_S_MAX: u64 = 300;
/// The venue allows 30 keys a sub-account.
const KEYS_MAX: usize = 50;
const STOPS_MAX: usize = 16;
const SYSTEMCTL: &str = "/usr/bin/systemctl";
/// The names under which countersign's own keys stand in a plan.
const OWN_KEYS: [&str; 3] = ["watch", "cancel", "admin"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContainmentTable {
    #[serde(default = "watch")]
    mode: Mode,
    sub_account: Option<String>,
    bot_host: Option<BotHost>,
    quiet_s: Option<u64>,
    freeze_unanswered_s: Option<u64>,
    admin_key: Option<Reference>,
    admin_secret: Option<Reference>,
    cancel_key: Option<Reference>,
    cancel_secret: Option<Reference>,
    transfer_to_master: Option<bool>,
    #[serde(default, rename = "key")]
    keys: Vec<KeyTable>,
    #[serde(default, rename = "stop")]
    stops: Vec<StopTable>,
}

/// Where the bot runs, by its owner's word: nothing here can find it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BotHost {
    Elsewhere,
    Here,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    name: String,
    api_key: Reference,
    /// A throw-away key, for `drill --kill`.
    #[serde(default)]
    drill: bool,
}

/// One of four ways, and what belongs to it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StopTable {
    name: String,
    command: Option<Vec<String>>,
    systemd: Option<String>,
    freqtrade: Option<String>,
    webhook: Option<String>,
    within_s: Option<u64>,
    /// Of `systemd`: the manager of countersign's own user.
    user_manager: Option<bool>,
    user: Option<Reference>,
    password: Option<Reference>,
    secret: Option<Reference>,
}

const fn watch() -> Mode {
    Mode::Watch
}

#[derive(Debug)]
pub struct ContainmentConfig {
    pub mode: Mode,
    /// The admin key is loaded on the bot's own host.
    pub admin_beside_bot: bool,
    quiet: Duration,
    freeze_unanswered: Option<Duration>,
    sub_account: Option<Box<str>>,
    admin: Option<CredentialPlace>,
    cancel: Option<CredentialPlace>,
    keys: Vec<KeyPlace>,
    stops: Vec<(Box<str>, StopWay)>,
    transfer_to_master: bool,
}

#[derive(Debug)]
struct KeyPlace {
    name: Box<str>,
    api_key: Reference,
    role: KeyRole,
}

#[derive(Debug)]
struct CredentialPlace {
    key: Reference,
    secret: Reference,
}

#[derive(Debug)]
enum StopWay {
    Command { argv: Vec<String>, within: Duration },
    Systemd { unit: String, manager: Manager, within: Duration },
    Freqtrade { url: String, user: Reference, password: Reference },
    Webhook { url: reqwest::Url, secret: Reference },
}

impl StopWay {
    /// Stopping by freqtrade's own API leaves its process alive, and the client in it goes on beating.
    const fn pauses(&self) -> bool {
        match self {
            Self::Freqtrade { .. } => true,
            Self::Command { .. } | Self::Systemd { .. } | Self::Webhook { .. } => false,
        }
    }
}

/// Nothing is declared: it watches.
impl Default for ContainmentConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Watch,
            admin_beside_bot: false,
            quiet: Duration::from_secs(QUIET_S),
            freeze_unanswered: None,
            sub_account: None,
            admin: None,
            cancel: None,
            keys: Vec::new(),
            stops: Vec::new(),
            transfer_to_master: false,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("containment: the {0} key: {1}")]
    Credential(&'static str, CredentialError),
    #[error(
        "containment: key {0:?} is empty or has characters other than letters and digits\nhint: api_key is the key alone, as the exchange shows it, not its secret"
    )]
    NoKey(Box<str>),
    #[error(
        "containment: {0} and {1} are the same key\nhint: give each purpose a key of its own: one that is misused must be told from the others"
    )]
    SameKey(Box<str>, Box<str>),
}

impl ContainmentTable {
    pub(super) fn checked(self) -> Result<ContainmentConfig, String> {
        let admin = credential("admin", self.admin_key, self.admin_secret)?;
        let cancel = credential("cancel", self.cancel_key, self.cancel_secret)?;
        let sub_account = self.sub_account.map(|email| checked_email(&email)).transpose()?;
        match (&sub_account, &admin) {
            (Some(_), None) => {
                return Err("containment.sub_account is there and admin_key is not\nhint: only a key of the master can freeze and delete a sub-account's keys: admin_key and admin_secret".to_owned());
            }
            (None, Some(_)) => {
                return Err("containment.admin_key is there and sub_account is not\nhint: sub_account = \"the e-mail of the bot's sub-account\"; no API deletes a key of one's own account".to_owned());
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        let beside = match (&admin, self.bot_host) {
            (Some(_), None) => {
                return Err("containment.admin_key is there and bot_host is not: whoever owns the bot's host must not own the key that makes and deletes its keys\nhint: bot_host = \"elsewhere\" if the bot runs on another host than countersign; bot_host = \"here\" accepts that risk, and is told on every channel at each start".to_owned());
            }
            (None, Some(_)) => {
                return Err("containment.bot_host is there and admin_key is not\nhint: it says where the bot runs as seen from the admin key; leave it out".to_owned());
            }
            (_, host) => host == Some(BotHost::Here),
        };
        if self.mode != Mode::Watch && admin.is_none() && cancel.is_none() {
            return Err("containment.mode is not \"watch\", and no credential to act with is there\nhint: admin_key and admin_secret with sub_account, or cancel_key and cancel_secret, or mode = \"watch\"".to_owned());
        }
        let transfer_to_master = self.transfer_to_master == Some(true);
        if transfer_to_master && (sub_account.is_none() || cancel.is_none()) {
            return Err("containment.transfer_to_master needs a sub-account, and a cancel_key that reads its balances\nhint: sub_account, admin_key and cancel_key with their secrets, or no transfer_to_master".to_owned());
        }
        if self.mode != Mode::Watch && self.keys.iter().all(|key| key.drill) {
            return Err("containment.mode is not \"watch\", and no [[containment.key]] is there\nhint: declare the bot's key (the key alone, not its secret), or nothing would be killed".to_owned());
        }
        Ok(ContainmentConfig {
            mode: self.mode,
            // In mode `watch` it is not even loaded.
            admin_beside_bot: beside && self.mode != Mode::Watch,
            quiet: seconds("containment.quiet_s", self.quiet_s, QUIET_S, QUIET_S_MAX)?,
            freeze_unanswered: self
                .freeze_unanswered_s
                .map(|given| seconds("containment.freeze_unanswered_s", Some(given), UNANSWERED_S, UNANSWERED_S_MAX))
                .transpose()?,
            sub_account,
            admin,
            cancel,
            keys: checked_keys(self.keys)?,
            stops: checked_stops(self.stops)?,
            transfer_to_master,
        })
    }
}

fn credential(of: &str, key: Option<Reference>, secret: Option<Reference>) -> Result<Option<CredentialPlace>, String> {
    match (key, secret) {
        (Some(key), Some(secret)) if key == secret => Err(format!(
            "containment.{of}_key and {of}_secret name the same place\nhint: the exchange shows two texts, the key and its secret"
        )),
        (Some(key), Some(secret)) => Ok(Some(CredentialPlace { key, secret })),
        (None, None) => Ok(None),
        (Some(_), None) => {
            Err(format!("containment.{of}_key has no {of}_secret\nhint: {of}_secret = \"vault:{of}-secret\""))
        }
        (None, Some(_)) => Err(format!("containment.{of}_secret has no {of}_key\nhint: {of}_key = \"vault:{of}-key\"")),
    }
}

fn checked_email(email: &str) -> Result<Box<str>, String> {
    let plain = email.bytes().all(|byte| byte.is_ascii_graphic());
    let parts = email.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'));
    if plain && parts && email.len() <= 254 {
        return Ok(email.into());
    }
    Err(format!(
        "containment.sub_account is {email:.80?}, which is no e-mail address\nhint: the master's page \"Sub-account management\" shows it"
    ))
}

fn checked_keys(tables: Vec<KeyTable>) -> Result<Vec<KeyPlace>, String> {
    if tables.len() > KEYS_MAX {
        return Err(format!("more than {KEYS_MAX} [[containment.key]] stand there"));
    }
    if tables.iter().filter(|table| table.drill).count() > 1 {
        return Err("more than one [[containment.key]] has drill = true\nhint: one throw-away key is enough; a drill uses it up".to_owned());
    }
    let mut keys: Vec<KeyPlace> = Vec::with_capacity(tables.len());
    for table in tables {
        name(&table.name, "containment.key.name")?;
        if OWN_KEYS.contains(&table.name.as_str()) {
            return Err(format!(
                "[[containment.key]] {:?} has a name of countersign's own keys\nhint: those are declared by [account] and [containment]",
                table.name
            ));
        }
        if keys.iter().any(|other| *other.name == *table.name) {
            return Err(format!(
                "two [[containment.key]] are called {:?}\nhint: the name stands in the plan; give each its own",
                table.name
            ));
        }
        let role = if table.drill { KeyRole::Drill } else { KeyRole::Bot };
        keys.push(KeyPlace { name: table.name.into(), api_key: table.api_key, role });
    }
    Ok(keys)
}

fn checked_stops(tables: Vec<StopTable>) -> Result<Vec<(Box<str>, StopWay)>, String> {
    if tables.len() > STOPS_MAX {
        return Err(format!("more than {STOPS_MAX} [[containment.stop]] stand there"));
    }
    let mut stops: Vec<(Box<str>, StopWay)> = Vec::with_capacity(tables.len());
    for table in tables {
        name(&table.name, "containment.stop.name")?;
        if stops.iter().any(|(other, _)| **other == *table.name) {
            return Err(format!(
                "two [[containment.stop]] are called {:?}\nhint: the name stands in the plan; give each its own",
                table.name
            ));
        }
        stops.push((table.name.as_str().into(), table.checked()?));
    }
    Ok(stops)
}

impl StopTable {
    fn checked(self) -> Result<StopWay, String> {
        let of = format!("[[containment.stop]] {:?}", self.name);
        let ways = [self.command.is_some(), self.systemd.is_some(), self.freqtrade.is_some(), self.webhook.is_some()];
        if ways.into_iter().filter(|way| *way).count() != 1 {
            return Err(format!(
                "{of} needs one of command, systemd, freqtrade and webhook\nhint: give each way a table of its own"
            ));
        }
        let stray = [
            (
                self.within_s.is_some() && self.command.is_none() && self.systemd.is_none(),
                "within_s",
                "command or systemd",
            ),
            (self.user_manager.is_some() && self.systemd.is_none(), "user_manager", "systemd"),
            (self.user.is_some() && self.freqtrade.is_none(), "user", "freqtrade"),
            (self.password.is_some() && self.freqtrade.is_none(), "password", "freqtrade"),
            (self.secret.is_some() && self.webhook.is_none(), "secret", "webhook"),
        ];
        if let Some((_, field, way)) = stray.into_iter().find(|(is_stray, ..)| *is_stray) {
            return Err(format!("{of} has {field}, which belongs to {way}"));
        }
        let within = seconds(&format!("{of}: within_s"), self.within_s, COMMAND_WITHIN_S, WITHIN_S_MAX)?;
        let missing = |field: &str, hint: &str| format!("{of} has no {field}\nhint: {hint}");
        if let Some(argv) = self.command {
            return checked_command(&of, argv, within);
        }
        if let Some(unit) = self.systemd {
            let manager = if self.user_manager == Some(true) { Manager::User } else { Manager::System };
            return checked_unit(&of, unit, manager, within);
        }
        if let Some(url) = self.freqtrade {
            let url = checked_url(&format!("{of}: freqtrade"), &url)?;
            let hint = "user and password are references to those of its [api_server]: \"vault:ft-user\"";
            return Ok(StopWay::Freqtrade {
                url: url.as_str().trim_end_matches('/').to_owned(),
                user: self.user.ok_or_else(|| missing("user", hint))?,
                password: self.password.ok_or_else(|| missing("password", hint))?,
            });
        }
        let url = checked_url(&format!("{of}: webhook"), &self.webhook.unwrap_or_default())?;
        let hint = "secret = \"vault:stop-secret\": the receiver checks the signature with it";
        Ok(StopWay::Webhook { url, secret: self.secret.ok_or_else(|| missing("secret", hint))? })
    }
}

/// Nothing searches a path or splits a line at the moment when it matters.
fn checked_command(of: &str, argv: Vec<String>, within: Duration) -> Result<StopWay, String> {
    let Some(program) = argv.first() else {
        return Err(format!("{of}: the command is empty\nhint: command = [\"/usr/bin/docker\", \"stop\", \"bot\"]"));
    };
    if !Path::new(program).is_absolute() {
        return Err(format!(
            "{of}: the command is {program:.80?}, which is no absolute path\nhint: command = [\"/usr/bin/docker\", \"stop\", \"bot\"]; no shell reads it"
        ));
    }
    if argv.iter().any(|part| part.contains('\0')) {
        return Err(format!("{of}: the command holds a NUL character"));
    }
    Ok(StopWay::Command { argv, within })
}

fn checked_unit(of: &str, unit: String, manager: Manager, within: Duration) -> Result<StopWay, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":_.\\@-".contains(&byte);
    let kind = unit.rsplit_once('.').is_some_and(|(name, kind)| !name.is_empty() && !kind.is_empty());
    if kind && unit.bytes().all(plain) && !unit.starts_with('-') && unit.len() <= 255 {
        return Ok(StopWay::Systemd { unit, manager, within });
    }
    Err(format!("{of}: {unit:.80?} is no name of a unit\nhint: systemd = \"freqtrade.service\""))
}

fn checked_url(field: &str, text: &str) -> Result<reqwest::Url, String> {
    let url = reqwest::Url::parse(text).ok();
    let url = url.filter(|url| url.has_host() && matches!(url.scheme(), "https" | "http"));
    let url = url.ok_or_else(|| format!("{field} is {text:.80?}: it must begin with https:// or http://"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "{field} holds a user or a password\nhint: secrets stand in the configuration by reference only"
        ));
    }
    Ok(url)
}

fn seconds(field: &str, given: Option<u64>, usual: u64, most: u64) -> Result<Duration, String> {
    match given.unwrap_or(usual) {
        seconds if (1..=most).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        seconds => Err(format!("{field} is {seconds}; it must be from 1 to {most}")),
    }
}

impl ContainmentConfig {
    /// What the kernel and the outlet need. `watch_key` is the API key of `[account]`.
    pub fn load(&self, secrets: &Secrets<'_>, watch_key: &SecretString) -> Result<(Stopping, Parts), LoadError> {
        let mut loaded = Loaded { keys: Vec::new(), parts: Parts::default() };
        loaded.declare("watch", watch_key.clone(), KeyRole::Watch)?;
        if self.mode == Mode::Watch {
            return Ok((self.stopping(loaded.keys, Means::ByHand, Vec::new()), Parts::default()));
        }
        if let Some(place) = &self.cancel {
            let key = secrets.load(&place.key)?;
            loaded.declare("cancel", key.clone(), KeyRole::Cancel)?;
            loaded.parts.cancel = Some(place.credential("cancel", key, secrets)?);
        }
        for key in &self.keys {
            loaded.declare(&key.name, secrets.load(&key.api_key)?, key.role)?;
        }
        if let Some(place) = &self.admin {
            let key = secrets.load(&place.key)?;
            // It is no key of the account that is watched, so it is not declared there.
            loaded.no_other(&KeyPrint::of(key.expose_secret()), "admin")?;
            loaded.parts.admin = Some(place.credential("admin", key, secrets)?);
        }
        for (name, way) in &self.stops {
            loaded.parts.hooks.insert(name.clone(), way.load(secrets)?);
        }
        loaded.parts.sub_account.clone_from(&self.sub_account);
        loaded.parts.transfer_to_master = self.transfer_to_master;
        let means = if self.sub_account.is_some() { Means::SubAccount } else { Means::ByHand };
        let hooks = self.stops.iter().map(|(name, _)| name.clone()).collect();
        Ok((self.stopping(loaded.keys, means, hooks), loaded.parts))
    }

    /// Each as it is told. It keeps nobody from watching: a way to stop the bot that fails is better than no watcher.
    pub(super) fn missing_programs(&self) -> Vec<Box<str>> {
        let missing = |(name, way): &(Box<str>, StopWay)| match way {
            StopWay::Command { argv, .. } if !Path::new(&argv[0]).is_file() => {
                Some(format!("the way to stop the bot {name:?} runs {}, which is not there", argv[0]).into())
            }
            StopWay::Command { .. } | StopWay::Systemd { .. } | StopWay::Freqtrade { .. } | StopWay::Webhook { .. } => {
                None
            }
        };
        // In mode `watch` nothing is ever stopped.
        self.stops.iter().filter(|_| self.mode != Mode::Watch).filter_map(missing).collect()
    }

    fn stopping(&self, keys: Vec<DeclaredKey>, means: Means, hooks: Vec<Box<str>>) -> Stopping {
        Stopping {
            mode: self.mode,
            means,
            keys,
            hooks,
            pausing: self.stops.iter().filter(|(_, way)| way.pauses()).map(|(name, _)| name.clone()).collect(),
            quiet: self.quiet,
            freeze_unanswered: self.freeze_unanswered,
            transfer_to_master: self.transfer_to_master,
        }
    }
}

struct Loaded {
    keys: Vec<DeclaredKey>,
    parts: Parts,
}

impl Loaded {
    fn declare(&mut self, name: &str, key: SecretString, role: KeyRole) -> Result<(), LoadError> {
        let text = key.expose_secret();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return Err(LoadError::NoKey(name.into()));
        }
        let print = KeyPrint::of(text);
        self.no_other(&print, name)?;
        self.keys.push(DeclaredKey { name: name.into(), print, role });
        self.parts.keys.push(key);
        Ok(())
    }

    fn no_other(&self, print: &KeyPrint, name: &str) -> Result<(), LoadError> {
        match self.keys.iter().find(|other| other.print == *print) {
            Some(other) => Err(LoadError::SameKey(other.name.clone(), name.into())),
            None => Ok(()),
        }
    }
}

impl CredentialPlace {
    fn credential(
        &self,
        of: &'static str,
        key: SecretString,
        secrets: &Secrets<'_>,
    ) -> Result<ApiCredential, LoadError> {
        ApiCredential::new(key, secrets.load(&self.secret)?).map_err(|error| LoadError::Credential(of, error))
    }
}

impl StopWay {
    fn load(&self, secrets: &Secrets<'_>) -> Result<StopHook, SecretError> {
        Ok(match self {
            Self::Command { argv, within } => StopHook::Command { argv: argv.clone(), within: *within },
            Self::Systemd { unit, manager, within } => StopHook::Systemd {
                systemctl: SYSTEMCTL.to_owned(),
                unit: unit.clone(),
                manager: *manager,
                within: *within,
            },
            Self::Freqtrade { url, user, password } => {
                StopHook::Freqtrade { url: url.clone(), user: secrets.load(user)?, password: secrets.load(password)? }
            }
            Self::Webhook { url, secret } => {
                let secret = secrets.load(secret)?;
                StopHook::Webhook {
                    url: url.clone(),
                    secret: SecretSlice::from(secret.expose_secret().as_bytes().to_vec()),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
