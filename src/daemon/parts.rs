//! Everything that needs a secret or a certificate, built before anything is bound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretSlice, SecretString};

use crate::config::Config;
use crate::daemon::DaemonError;
use crate::inlet::intake::BotAccess;
use crate::kernel::stopping::{Mode, Stopping};
use crate::outlet::addresses::LastGood;
use crate::outlet::containment::{self, ContainmentOutlet};
use crate::outlet::telegram;
use crate::outlet::webhook::WebhookOutlet;
use crate::secret::one_time::{OneTimePasswords, Passwords};
use crate::secret::{Reference, Secrets};
use crate::tag::TagKeys;
use crate::tag::mac::{KeyOwner, TagKey};
use crate::tls;
use crate::venue::binance::ApiCredential;

/// teloxide's client for polls must outlast the poll.
const POLL_WITHIN: Duration = Duration::from_secs(60);

pub(super) struct Parts {
    pub tags: Arc<TagKeys>,
    pub credential: Arc<ApiCredential>,
    pub tls: Arc<rustls::ClientConfig>,
    pub http: reqwest::Client,
    pub telegram: Option<TelegramParts>,
    pub webhook: Option<WebhookOutlet>,
    pub bots: Vec<BotAccess>,
    pub access_token: Option<SecretString>,
    pub totp: Arc<Passwords>,
    /// In mode *watch* what could trade or revoke is not even loaded: it then only asks what the watch key may do.
    pub containment: Arc<ContainmentOutlet>,
    pub stopping: Option<Stopping>,
    /// What of the configuration decides over an emergency, as a change of it is told.
    pub places: BTreeMap<Box<str>, Box<str>>,
}

pub(super) struct TelegramParts {
    pub posts: teloxide::Bot,
    pub polls: teloxide::Bot,
    pub code_key: SecretSlice<u8>,
}

impl Parts {
    pub fn load(config: &Config) -> Result<Self, DaemonError> {
        // Dropped with this function: a vault is open no longer than the parts are built.
        let secrets = Secrets::new(&config.folder, config.vault.as_ref());
        let load = |reference: &Reference| secrets.load(reference);
        let setting = |error: &dyn std::fmt::Display| DaemonError::Setting(error.to_string());
        let exchange = &config.exchange;
        let ca_file = exchange.ca_file.as_ref().map(|path| config.folder.join(path));
        let tls = tls::client_config(ca_file.as_deref()).map_err(|error| setting(&error))?;
        let http = tls::http_client(&tls).map_err(|error| setting(&error))?;
        let watch_key = load(&exchange.api_key)?;
        let (stopping, acts) = config.containment.load(&secrets, &watch_key).map_err(|error| setting(&error))?;
        let credential = ApiCredential::new(watch_key, load(&exchange.api_secret)?).map_err(|error| setting(&error))?;
        let mut bots = Vec::with_capacity(config.bots.len());
        for bot in &config.bots {
            let token = bot.token.as_ref().map(load).transpose()?;
            bots.push(BotAccess { bot: bot.bot.clone(), uids: bot.uids.clone(), token });
        }
        let telegram = match &config.telegram {
            None => None,
            Some(table) => {
                let api = table.api.parse().map_err(|error| DaemonError::Setting(format!("telegram.api: {error}")))?;
                let api: reqwest::Url = api;
                let token = load(&table.token)?;
                let patient = tls::http_client_within(&tls, POLL_WITHIN).map_err(|error| setting(&error))?;
                Some(TelegramParts {
                    posts: telegram::bot(&token, api.clone(), http.clone()),
                    polls: telegram::bot(&token, api, patient),
                    code_key: secret_bytes(&load(&table.code_secret)?),
                })
            }
        };
        let webhook = match &config.webhook {
            None => None,
            Some(table) => {
                let url = table.url.parse().map_err(|error| DaemonError::Setting(format!("webhook.url: {error}")))?;
                Some(WebhookOutlet::new(http.clone(), url, secret_bytes(&load(&table.secret)?)))
            }
        };
        // In mode *watch* there is nothing to act with, and nothing was loaded.
        let stopping = (stopping.mode != Mode::Watch).then_some(stopping);
        let client = containment::client(&tls, LastGood::system()).map_err(|error| setting(&error))?;
        let containment = Arc::new(ContainmentOutlet::new(&exchange.rest_url, client, acts));
        let print_key = secret_bytes(&load(&config.tags.secret)?);
        let places = config.containment.places(&print_key).into_iter().chain(config.operators.places()).collect();
        Ok(Self {
            places,
            tags: Arc::new(tag_keys(config, &secrets)?),
            credential: Arc::new(credential),
            tls,
            http,
            telegram,
            webhook,
            bots,
            containment,
            stopping,
            totp: Arc::new(one_time_passwords(config, &secrets)?),
            access_token: config.intake.access_token.as_ref().map(load).transpose()?,
        })
    }
}

fn one_time_passwords(config: &Config, secrets: &Secrets<'_>) -> Result<Passwords, DaemonError> {
    let load = |reference: &Reference| {
        let passwords = OneTimePasswords::new(&secrets.load(reference)?, &config.declared.account);
        passwords.map_err(|error| DaemonError::Setting(format!("{reference}: {error}")))
    };
    let common = config.operators.totp.as_ref().map(load).transpose()?;
    let mut passwords = common.map(Passwords::common).unwrap_or_default();
    for table in &config.operators.persons {
        let own = table.totp.as_ref().map(load).transpose()?;
        let added = passwords.add_person(&table.name, &table.person().ways(), own);
        added.map_err(|error| DaemonError::Setting(error.to_string()))?;
    }
    Ok(passwords)
}

fn tag_keys(config: &Config, secrets: &Secrets<'_>) -> Result<TagKeys, DaemonError> {
    let setting = |error: &dyn std::fmt::Display| DaemonError::Setting(error.to_string());
    let account = &config.declared.account;
    let derive = |secret: &Reference, owner: KeyOwner<'_>, id| {
        let secret = secrets.load(secret)?;
        TagKey::derive(secret.expose_secret().as_bytes(), account, owner, id).map_err(|error| setting(&error))
    };
    let issuing = derive(&config.tags.secret, KeyOwner::Daemon, config.tags.key_id)?;
    let mut others = Vec::new();
    for bot in &config.bots {
        if let Some((secret, id)) = &bot.tags {
            others.push(derive(secret, KeyOwner::Bot(&bot.bot), *id)?);
        }
    }
    TagKeys::new(account.clone(), "binance/spot", issuing, others, config.tags.prefixes.clone())
        .map_err(|error| setting(&error))
}

fn secret_bytes(secret: &SecretString) -> SecretSlice<u8> {
    secret.expose_secret().as_bytes().to_vec().into()
}
