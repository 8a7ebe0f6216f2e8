//! What of `[containment]` decides over an emergency and stands nowhere else in the journal, as a change of it is told: a
//! reference by its name, an address by its host and a command by its program, since the rest can be a secret. A print of
//! the whole tells when that has changed; it is keyed, since whoever reads it could try guesses at the rest otherwise.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

use crate::config::containment::{ContainmentConfig, CredentialPlace, StopWay};
use crate::outlet::bot::Manager;

impl ContainmentConfig {
    /// `key` is a secret of this daemon, the same from one start to the next.
    pub fn places(&self, key: &SecretSlice<u8>) -> Vec<(Box<str>, Box<str>)> {
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
            place(format!("the way to stop the bot {name}"), way.told(key));
        }
        places
    }
}

impl StopWay {
    fn told(&self, key: &SecretSlice<u8>) -> String {
        match self {
            Self::Command { argv, within } => {
                let (program, print) = (argv.first().map_or("", String::as_str), print(key, &argv.join("\0")));
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
                let place = reqwest::Url::parse(url).map_or_else(|_| "no address".to_owned(), |url| address(key, &url));
                format!("freqtrade at {place} with user {user} and password {password}")
            }
            Self::Webhook { url, secret } => format!("webhook at {} with secret {secret}", address(key, url)),
        }
    }
}

fn address(key: &SecretSlice<u8>, url: &reqwest::Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let host = url.host_str().unwrap_or_default();
    format!("{}://{host}{port} (print {})", url.scheme(), print(key, url.as_str()))
}

fn print(key: &SecretSlice<u8>, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).expect("HMAC takes a key of any length");
    mac.update(b"countersign/configuration/v1|");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}
