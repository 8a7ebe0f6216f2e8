//! What of `[containment]` decides over an emergency and stands nowhere else in the journal, as a change of it is told: a
//! reference by its name, an address by its host and a command by its program, since the rest can be a secret. A print of
//! the whole tells when that has changed.

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
            Self::Command { argv, within } => {
                let (program, print) = (argv.first().map_or("", String::as_str), print(&argv.join("\0")));
                let arguments = argv.len().saturating_sub(1);
                let within = within.as_secs();
                format!("command {program:?} with {arguments} arguments (print {print}) within {within} s")
            }
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

fn address(url: &reqwest::Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port} (print {})", url.scheme(), url.host_str().unwrap_or_default(), print(url.as_str()))
}

fn print(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}
