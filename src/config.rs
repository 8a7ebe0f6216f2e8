//! `countersign.toml`: read once, checked once. Raw tables come in, a `Config` that cannot be wrong goes out.

pub mod containment;
pub mod operators;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::config::containment::{ContainmentConfig, ContainmentTable};
use crate::config::operators::OperatorsTable;
use crate::kernel::chat::TelegramConfig;
use crate::kernel::declared::{Declared, Limits, Network, QuoteLimit, SymbolLimit, Waits};
use crate::kernel::exception::{Exception, Expiry, LOCAL_MAX, LocalException};
use crate::kernel::money::Dec;
use crate::kernel::order::{Account, Asset, Bot, Symbol};
use crate::kernel::people::People;
use crate::kernel::rule::{Condition, Pack, RuleSet};
use crate::kernel::shared::SharedConfig;
use crate::kernel::stopping::Mode;
use crate::secret::{KeyReference, Reference, VaultPlace};
use crate::tag::layout::{IdPrefix, KeyId};

/// The stable rules, which are used where the configuration names no folder of others.
const STABLE_RULES: &str = include_str!("../rules/binance-spot.toml");

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}\nhint: README has a commented sample; name yours with --config or COUNTERSIGN_CONFIG", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: {detail}", path.display())]
    Wrong { path: PathBuf, detail: String },
    #[error("every user of this host may write {0}, which names what countersign trusts and runs\nhint: chmod o-w {0}", path.display())]
    Open { path: PathBuf },
}

#[derive(Debug)]
pub struct Config {
    /// The folder of the configuration: relative paths start here.
    pub folder: PathBuf,
    /// Where the journal and the sockets lie.
    pub data: PathBuf,
    pub vault: Option<VaultPlace>,
    pub declared: Declared,
    pub rules: RuleSet,
    pub exchange: ExchangeConfig,
    pub tags: TagConfig,
    pub bots: Vec<BotConfig>,
    pub intake: IntakeTable,
    pub operators: OperatorsTable,
    pub telegram: Option<TelegramTable>,
    pub webhook: Option<WebhookTable>,
    pub containment: ContainmentConfig,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    data: PathBuf,
    #[serde(default)]
    rules: Option<PathBuf>,
    vault: Option<VaultTable>,
    account: AccountTable,
    #[serde(default, rename = "bot")]
    bots: Vec<BotTable>,
    #[serde(default, rename = "exception")]
    exceptions: Vec<ExceptionTable>,
    #[serde(default)]
    intake: IntakeTable,
    #[serde(default)]
    operators: OperatorsTable,
    telegram: Option<TelegramTable>,
    webhook: Option<WebhookTable>,
    containment: Option<ContainmentTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VaultTable {
    file: PathBuf,
    key: Option<KeyReference>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountTable {
    name: String,
    #[serde(flatten)]
    exchange: ExchangeConfig,
    #[serde(default)]
    tagged_only: bool,
    #[serde(default)]
    familiar_networks: Vec<Network>,
    #[serde(default)]
    id_prefixes: Vec<String>,
    tag_secret: Reference,
    #[serde(default)]
    tag_key_id: u8,
    #[serde(default)]
    waits: WaitsTable,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ExchangeConfig {
    #[serde(default = "ws_url")]
    pub ws_url: String,
    #[serde(default = "rest_url")]
    pub rest_url: String,
    /// Certificates to trust beside the built-in roots.
    pub ca_file: Option<PathBuf>,
    pub api_key: Reference,
    pub api_secret: Reference,
}

fn ws_url() -> String {
    "wss://ws-api.binance.com:443/ws-api/v3".to_owned()
}

fn rest_url() -> String {
    "https://api.binance.com".to_owned()
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitsTable {
    pending_cap_s: Option<u64>,
    unlogged_after_s: Option<u64>,
    unseen_after_s: Option<u64>,
    silent_after_s: Option<u64>,
    audit_every_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BotTable {
    name: String,
    uids: Option<Vec<u32>>,
    token: Option<Reference>,
    tag_secret: Option<Reference>,
    tag_key_id: Option<u8>,
    orders_per_minute: u32,
    #[serde(default)]
    symbols: BTreeMap<Symbol, SymbolLimit>,
    #[serde(default)]
    quote: BTreeMap<Asset, QuoteLimit>,
}

/// Every field must be there; what is missing is named with the exception that misses it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExceptionTable {
    name: Option<String>,
    rule: Option<Box<str>>,
    when: Option<Condition>,
    owner: Option<Box<str>>,
    reason: Option<Box<str>>,
    expires: Option<Expiry>,
    notional: Option<BTreeMap<Asset, Dec>>,
}

#[derive(Debug)]
pub struct TagConfig {
    pub secret: Reference,
    pub key_id: KeyId,
    pub prefixes: Vec<IdPrefix>,
}

#[derive(Debug)]
pub struct BotConfig {
    pub bot: Bot,
    pub uids: Option<Vec<u32>>,
    pub token: Option<Reference>,
    /// The key with which this bot computes ids by itself.
    pub tags: Option<(Reference, KeyId)>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntakeTable {
    pub socket: Option<PathBuf>,
    /// Users that may connect to the socket; the daemon's own always may.
    #[serde(default)]
    pub uids: Vec<u32>,
    pub http: Option<SocketAddr>,
    pub access_token: Option<Reference>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelegramTable {
    pub token: Reference,
    /// The key of the short code under each message. Not the token: a stolen token must not make codes.
    pub code_secret: Reference,
    pub allowed_users: Vec<u64>,
    #[serde(default)]
    pub group_chat: bool,
    #[serde(default = "telegram_api")]
    pub api: String,
}

impl TelegramTable {
    fn checked(self) -> Result<Self, String> {
        if self.allowed_users.is_empty() {
            let hint = "hint: your own numeric Telegram user id, not a name";
            return Err(format!("telegram.allowed_users is empty, so nobody could pair a chat\n{hint}"));
        }
        Ok(self)
    }
}

fn telegram_api() -> String {
    "https://api.telegram.org".to_owned()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookTable {
    pub url: String,
    pub secret: Reference,
}

impl Config {
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        if std::fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o002 != 0 {
            return Err(ConfigError::Open { path: path.to_owned() });
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut config =
            Self::parse(&text, folder).map_err(|detail| ConfigError::Wrong { path: path.to_owned(), detail })?;
        config.declared.missing_programs = config.containment.missing_programs();
        Ok(config)
    }

    pub fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let raw: Raw = toml::from_str(text).map_err(|error| located(text, &error))?;
        let account = raw.account;
        name(&account.name, "account.name")?;
        if raw.bots.is_empty() {
            return Err("no [[bot]] is declared\nhint: without one every order is a stranger's".to_owned());
        }
        check_addresses(&account.exchange, &raw.intake, raw.telegram.as_ref(), raw.webhook.as_ref())?;
        let key_id = |id: u8| KeyId::new(id).ok_or_else(|| format!("tag_key_id {id} is above {}", KeyId::MAX));
        let mut declared = Declared {
            account: Account::new(&account.name),
            bots: BTreeMap::new(),
            tagged_only: account.tagged_only,
            familiar_networks: networks(account.familiar_networks)?,
            waits: account.waits.checked()?,
            stopping: None,
            exceptions: Vec::new(),
            admin_beside_bot: false,
            no_passwords: false,
            missing_programs: Vec::new(),
            people: raw.operators.people(raw.telegram.as_ref())?,
            places: None,
        };
        let mut bots = Vec::with_capacity(raw.bots.len());
        for table in raw.bots {
            name(&table.name, "bot.name")?;
            let bot = Bot::new(&table.name);
            let (limits, config) = table.checked(&bot, key_id)?;
            if declared.bots.insert(bot.clone(), limits).is_some() {
                return Err(format!("bot {bot} is declared twice"));
            }
            bots.push(config);
        }
        check_people(&declared.people, &raw.intake, &bots)?;
        let rules = rules(raw.rules.map(|rules| folder.join(rules)).as_deref())?;
        declared.exceptions = exceptions(raw.exceptions, &rules)?;
        let containment = raw.containment.map(ContainmentTable::checked).transpose()?.unwrap_or_default();
        declared.admin_beside_bot = containment.admin_beside_bot;
        declared.no_passwords = containment.mode != Mode::Watch && !raw.operators.has_passwords();
        let prefixes = account.id_prefixes.iter().map(|text| IdPrefix::new(text).map_err(|error| error.to_string()));
        Ok(Self {
            folder: folder.to_owned(),
            data: folder.join(raw.data),
            vault: raw.vault.map(|table| VaultPlace { file: folder.join(table.file), key: table.key }),
            declared,
            rules,
            exchange: account.exchange,
            tags: TagConfig {
                secret: account.tag_secret,
                key_id: key_id(account.tag_key_id)?,
                prefixes: prefixes.collect::<Result<_, String>>()?,
            },
            bots,
            intake: raw.intake,
            operators: raw.operators,
            telegram: raw.telegram.map(TelegramTable::checked).transpose()?,
            webhook: raw.webhook,
            containment,
        })
    }

    pub fn shared(&self) -> SharedConfig {
        SharedConfig {
            telegram: self.telegram.as_ref().map(|table| TelegramConfig {
                allowed_users: table.allowed_users.clone(),
                group_chat: table.group_chat,
            }),
            webhook: self.webhook.is_some(),
            people: self.declared.people.clone(),
            stoppable: (self.containment.mode != Mode::Watch)
                .then(|| self.declared.account.clone())
                .into_iter()
                .collect(),
        }
    }

    pub fn journal_file(&self) -> PathBuf {
        self.data.join("journal.sqlite")
    }

    pub fn operator_socket(&self) -> PathBuf {
        self.data.join("operator.sock")
    }

    /// The users that people are on this host.
    pub fn operator_uids(&self) -> Vec<u32> {
        self.declared.people.persons.iter().filter_map(|person| person.uid).collect()
    }

    /// Whether users beside countersign's own may speak for a bot on the socket.
    pub fn has_other_users(&self) -> bool {
        !self.intake.uids.is_empty()
    }

    pub fn intake_socket(&self) -> PathBuf {
        self.intake.socket.as_ref().map_or_else(|| self.data.join("intake.sock"), |path| self.folder.join(path))
    }
}

/// Where it is wrong and how, without the line itself: it may hold a secret that stands there by mistake.
fn located(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    format!("line {line}, column {column}: {}", error.message())
}

/// An address of the wrong kind would be tried for ever.
/// What a bot's user can reach, a thief of that user can.
fn check_people(people: &People, intake: &IntakeTable, bots: &[BotConfig]) -> Result<(), String> {
    let of_bots: BTreeSet<u32> =
        bots.iter().filter_map(|bot| bot.uids.as_ref()).flatten().chain(&intake.uids).copied().collect();
    match people.persons.iter().find(|person| person.uid.is_some_and(|uid| of_bots.contains(&uid))) {
        Some(person) => Err(format!(
            "person {} commands as a user that may speak for a bot\nhint: a bot's user must not be an operator's: take it out \
             of uids, or give the person another",
            person.name
        )),
        None => Ok(()),
    }
}

fn check_addresses(
    exchange: &ExchangeConfig,
    intake: &IntakeTable,
    telegram: Option<&TelegramTable>,
    webhook: Option<&WebhookTable>,
) -> Result<(), String> {
    let has_scheme = |name: &str, url: &str, schemes: [&str; 2]| {
        let known = reqwest::Url::parse(url).is_ok_and(|url| url.has_host() && schemes.contains(&url.scheme()));
        let [first, second] = schemes;
        if known { Ok(()) } else { Err(format!("{name} is {url:.80?}: it must begin with {first}:// or {second}://")) }
    };
    has_scheme("account.ws_url", &exchange.ws_url, ["wss", "ws"])?;
    has_scheme("account.rest_url", &exchange.rest_url, ["https", "http"])?;
    if let Some(telegram) = telegram {
        has_scheme("telegram.api", &telegram.api, ["https", "http"])?;
    }
    if let Some(webhook) = webhook {
        has_scheme("webhook.url", &webhook.url, ["https", "http"])?;
    }
    match intake.http {
        Some(address) if !address.ip().is_loopback() => Err(format!(
            "intake.http is {address}, which other hosts can reach\nhint: nothing is encrypted there; use 127.0.0.1 or [::1]"
        )),
        Some(_) | None => Ok(()),
    }
}

/// The rules of every `*.toml` in a folder, or the stable ones.
pub fn rules(folder: Option<&Path>) -> Result<RuleSet, String> {
    let mut texts = Vec::new();
    match folder {
        None => texts.push(("the stable rules".to_owned(), STABLE_RULES.to_owned())),
        Some(folder) => {
            let failed = |error: std::io::Error| {
                format!("the rules in {}: {error}\nhint: name a folder of *.toml packs", folder.display())
            };
            let mut paths: Vec<PathBuf> = Vec::new();
            for entry in std::fs::read_dir(folder).map_err(failed)? {
                paths.push(entry.map_err(failed)?.path());
            }
            paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
            paths.sort();
            if paths.is_empty() {
                return Err(format!("no rules (*.toml) lie in {}", folder.display()));
            }
            for path in paths {
                texts.push((path.display().to_string(), std::fs::read_to_string(&path).map_err(failed)?));
            }
        }
    }
    let packs =
        texts.into_iter().map(|(name, text)| toml::from_str::<Pack>(&text).map_err(|error| format!("{name}: {error}")));
    RuleSet::new(packs.collect::<Result<Vec<_>, String>>()?)
}

/// The owner's exceptions. Whether their dates are right is asked at the start, which knows the time and the last ones.
fn exceptions(tables: Vec<ExceptionTable>, rules: &RuleSet) -> Result<Vec<LocalException>, String> {
    if tables.len() > LOCAL_MAX {
        return Err(format!("more than {LOCAL_MAX} [[exception]] stand there\nhint: take out what has expired"));
    }
    let mut exceptions: Vec<LocalException> = Vec::with_capacity(tables.len());
    for table in tables {
        let local = table.checked()?;
        let of = &local.exception.name;
        local.check(rules).map_err(|fault| format!("exception {of:?}: {fault}"))?;
        if exceptions.iter().any(|other| other.exception.name == *of) {
            return Err(format!("exception {of:?} stands twice"));
        }
        exceptions.push(local);
    }
    Ok(exceptions)
}

/// What was meant to be one address must not make millions familiar.
fn networks(given: Vec<Network>) -> Result<Vec<Network>, String> {
    match given.iter().find(|network| network.trimmed() != **network) {
        None => Ok(given),
        Some(odd) => Err(format!(
            "account.familiar_networks: {odd} is {}, the whole network\nhint: write it so, or the address alone",
            odd.trimmed()
        )),
    }
}

fn name(text: &str, field: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=40).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('_') {
        Ok(())
    } else {
        Err(format!("{field} is 1 to 40 letters, digits, '-', '_' or '.', and does not start with '_'"))
    }
}

impl WaitsTable {
    fn checked(&self) -> Result<Waits, String> {
        let usual = Waits::default();
        let wait = |field: &str, given: Option<u64>, usual: Duration, most: u64| match given {
            None => Ok(usual),
            Some(seconds) if (1..=most).contains(&seconds) => Ok(Duration::from_secs(seconds)),
            Some(seconds) => Err(format!("account.waits.{field} is {seconds}; it must be from 1 to {most}")),
        };
        Ok(Waits {
            pending_cap: wait("pending_cap_s", self.pending_cap_s, usual.pending_cap, 60)?,
            unlogged_after: wait("unlogged_after_s", self.unlogged_after_s, usual.unlogged_after, 60)?,
            unseen_after: wait("unseen_after_s", self.unseen_after_s, usual.unseen_after, 600)?,
            silent_after: wait("silent_after_s", self.silent_after_s, usual.silent_after, 86_400)?,
            audit_every: wait("audit_every_s", self.audit_every_s, usual.audit_every, 3_600)?,
        })
    }
}

impl ExceptionTable {
    fn checked(self) -> Result<LocalException, String> {
        let of = self.name.ok_or("an [[exception]] has no name\nhint: what it used is kept under its name")?;
        name(&of, "exception.name")?;
        let missing = |field: &str, like: &str| format!("exception {of:?} has no {field}\nhint: {field} = {like}");
        Ok(LocalException {
            rule: self.rule.ok_or_else(|| missing("rule", "\"foreign_order\""))?,
            exception: Exception {
                when: self.when.ok_or_else(|| missing("when", "{ field = \"symbol\", in = [\"BTCUSDT\"] }"))?,
                owner: self.owner.ok_or_else(|| missing("owner", "\"who answers for it\""))?,
                reason: self.reason.ok_or_else(|| missing("reason", "\"why it is there\""))?,
                expires: self.expires.ok_or_else(|| missing("expires", "\"2026-12-24\", at most 90 days ahead"))?,
                notional: self.notional.ok_or_else(|| missing("notional", "{ USDT = \"500\" }, for its whole life"))?,
                name: of.into(),
            },
        })
    }
}

impl BotTable {
    fn checked(self, bot: &Bot, key_id: impl Fn(u8) -> Result<KeyId, String>) -> Result<(Limits, BotConfig), String> {
        if self.symbols.is_empty() {
            return Err(format!("bot {bot} has no symbols\nhint: [bot.symbols.BTCUSDT] with quote and order_quantity"));
        }
        if let Some((symbol, limit)) = self.symbols.iter().find(|(_, limit)| !self.quote.contains_key(&limit.quote)) {
            return Err(format!(
                "bot {bot} trades {symbol}, and has no limits for its quote asset\nhint: [bot.quote.{}] with order_notional and notional_per_hour",
                limit.quote
            ));
        }
        let quantities = self.symbols.values().map(|limit| limit.order_quantity);
        let notionals = self.quote.values().flat_map(|limit| [limit.order_notional, limit.notional_per_hour]);
        if self.orders_per_minute == 0 || quantities.chain(notionals).any(|limit| !limit.is_positive()) {
            return Err(format!("every limit of bot {bot} must be above 0"));
        }
        let tags = match (self.tag_secret, self.tag_key_id) {
            (Some(secret), Some(id)) => Some((secret, key_id(id)?)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(format!("bot {bot} needs both tag_secret and tag_key_id, or neither"));
            }
        };
        let limits = Limits { symbols: self.symbols, quote: self.quote, orders_per_minute: self.orders_per_minute };
        Ok((limits, BotConfig { bot: bot.clone(), uids: self.uids, token: self.token, tags }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_familiar_network_is_written_as_the_network_it_is() {
        let read = |text: &str| networks(vec!["198.51.100.0/24".parse().unwrap(), text.parse().unwrap()]);
        for text in ["203.0.113.0/24", "203.0.113.5", "10.0.0.0/8", "2001:db8::/32"] {
            assert_eq!(read(text).map(|networks| networks.len()), Ok(2), "{text}");
        }
        let refused = read("203.0.113.5/8").unwrap_err();
        assert!(refused.contains("203.0.113.5/8 is 203.0.0.0/8, the whole network"), "{refused}");
        assert!(read("2001:db8::1/32").is_err());
    }
}
