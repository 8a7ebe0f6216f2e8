//! What of `[containment]` decides over an emergency and stands nowhere else in the journal, as a change of it is told: a
//! reference by its name, an address by its host, since a path can be a secret.

use sha2::{Digest, Sha256};

use crate::config::containment::{ContainmentConfig, CredentialPlace, StopWay};
use crate::outlet::bot::Manager;

impl ContainmentConfig {
    pub(in crate::config) fn places(&self) -> Vec<(Box<str>, Box<str>)> {
        let mut places: Vec<(Box<str>, Box<str>)> = Vec::new();
        let mut place = |name: String, told: String| places.push((name.into(), told.into()));
        if let Some(sub_account) = &self.sub_account {
            place("sub_account".to_owned(), sub_account.to_string());
        }
        for (of, credential) in [("admin", &self.admin), ("cancel", &self.cancel)] {
            if let Some(CredentialPlace { key, secret }) = credential {
                place(format!("{of}_key"), key.to_string());
                place(format!("{of}_secret"), secret.to_string());
            }
        }
        for key in &self.keys {
            place(format!("the place of key {}", key.name), key.api_key.to_string());
        }
        for (name, way) in &self.stops {
            place(format!("the way to stop the bot {name}"), way.told());
        }
        places
    }
}

impl StopWay {
    fn told(&self) -> String {
        match self {
            Self::Command { argv, within } => format!("command {argv:?} within {} s", within.as_secs()),
            Self::Systemd { unit, manager, within } => {
                let whose = match manager {
                    Manager::System => "the system's",
                    Manager::User => "the user's",
                };
                format!("unit {unit:?} of {whose} manager within {} s", within.as_secs())
            }
            Self::Freqtrade { url, user, password } => {
                let place = reqwest::Url::parse(url).map_or_else(|_| "no address".to_owned(), |url| address(&url));
                format!("freqtrade at {place} with user {user} and password {password}")
            }
            Self::Webhook { url, secret } => format!("webhook at {} with secret {secret}", address(url)),
        }
    }
}

/// Where it leads, and a print of the whole, which tells when the rest has changed.
fn address(url: &reqwest::Url) -> String {
    let digest = Sha256::digest(url.as_str().as_bytes());
    let print: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port} (print {print})", url.scheme(), url.host_str().unwrap_or_default())
}
