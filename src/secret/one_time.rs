//! One-time passwords (RFC 6238): checked here, where the secret is; that each counts only once is the kernel's to know.

use std::collections::BTreeMap;
use std::sync::Arc;

use qrcode::QrCode;
use qrcode::render::unicode;
use secrecy::{ExposeSecret, SecretString};
use totp_rs::{Builder, Secret};
use zeroize::Zeroizing;

use crate::kernel::command::Totp;
use crate::kernel::order::Account;
use crate::kernel::people::Way;
use crate::kernel::time::Time;

pub struct OneTimePasswords(totp_rs::Totp);

/// Whose password counts on which way: a declared person's own, and for everybody else the common one.
#[derive(Default)]
pub struct Passwords {
    common: Option<Arc<OneTimePasswords>>,
    people: BTreeMap<Way, Option<Arc<OneTimePasswords>>>,
    names: Vec<(Box<str>, Arc<OneTimePasswords>)>,
}

impl Passwords {
    pub fn common(passwords: OneTimePasswords) -> Self {
        Self { common: Some(Arc::new(passwords)), ..Self::default() }
    }

    /// Without passwords of his own nothing of his counts, and the common one does not either. Two people with one secret
    /// are one person, wherever it lies.
    pub fn add_person(
        &mut self,
        name: &str,
        ways: &[Way],
        passwords: Option<OneTimePasswords>,
    ) -> Result<(), OneTimeError> {
        let passwords = passwords.map(Arc::new);
        if let Some(own) = &passwords {
            if let Some((other, _)) = self.names.iter().find(|(_, known)| known.0.secret() == own.0.secret()) {
                return Err(OneTimeError::Shared(other.clone(), name.into()));
            }
            self.names.push((name.into(), own.clone()));
        }
        self.people.extend(ways.iter().map(|way| (*way, passwords.clone())));
        Ok(())
    }

    pub fn is_person(&self, way: Way) -> bool {
        self.people.contains_key(&way)
    }

    pub fn check(&self, way: Way, code: &str, now: Time) -> Totp {
        let own = self.people.get(&way).unwrap_or(&self.common);
        own.as_ref().map_or(Totp::NotSetUp, |passwords| passwords.check(code, now))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OneTimeError {
    #[error(
        "the secret of the one-time passwords is no base32 of at least 16 bytes\nhint: countersign secret totp NAME"
    )]
    Secret,
    #[error(
        "persons {0} and {1} have one secret of one-time passwords under two names\nhint: countersign secret totp NAME makes one for each"
    )]
    Shared(Box<str>, Box<str>),
    #[error("the one-time passwords cannot be shown as a QR code: {0}")]
    Shown(String),
}

impl OneTimePasswords {
    /// `secret` is base32, as an authenticator takes it.
    pub fn new(secret: &SecretString, account: &Account) -> Result<Self, OneTimeError> {
        let secret = Secret::try_from_base32(secret.expose_secret().trim()).map_err(|_| OneTimeError::Secret)?;
        // SHA-1, six digits, 30 s, one step of skew: what every authenticator can do.
        let builder =
            Builder::new().with_secret(secret).with_account_name(account.as_str()).with_issuer(Some("countersign"));
        builder.build().map(Self).map_err(|_| OneTimeError::Secret)
    }

    /// A new secret, in base32.
    pub fn generate() -> Result<SecretString, getrandom::Error> {
        let mut bytes = Zeroizing::new([0_u8; 20]);
        getrandom::fill(&mut *bytes)?;
        Ok(data_encoding::BASE32_NOPAD.encode(&*bytes).into())
    }

    pub fn check(&self, code: &str, now: Time) -> Totp {
        let seconds = u64::try_from(now.millis() / 1_000).unwrap_or(0);
        let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        self.0.check(&code, seconds).map_or(Totp::Wrong, |step| Totp::Right { step })
    }

    /// For the enrolment, and never again: whoever sees it can make the passwords.
    pub fn qr_code(&self) -> Result<String, OneTimeError> {
        let url = self.0.to_url().map_err(|error| OneTimeError::Shown(error.to_string()))?;
        let code = QrCode::new(url.as_bytes()).map_err(|error| OneTimeError::Shown(error.to_string()))?;
        // Most terminals are dark: what is drawn there is light, and a code must be dark on light to be read.
        let (dark, light) = (unicode::Dense1x2::Light, unicode::Dense1x2::Dark);
        Ok(code.render::<unicode::Dense1x2>().dark_color(dark).light_color(light).build())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B: the SHA-1 secret "12345678901234567890" at 59 s gives 94287082, of which six digits.
    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    #[test]
    fn a_persons_own_password_counts_on_each_of_his_ways_and_no_other_does() {
        let made = |secret: &str| OneTimePasswords::new(&secret.into(), &Account::new("main")).unwrap();
        let mut passwords = Passwords::common(made(SECRET));
        let (phone, host, other) = (Way::Telegram { user: 1 }, Way::Host { uid: 1 }, Way::Host { uid: 2 });
        passwords.add_person("alice", &[phone, host], Some(made("MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK"))).unwrap();
        passwords.add_person("bob", &[other], None).unwrap();
        let now = Time::from_millis(59_000);
        for (way, expected) in [
            (phone, Totp::Wrong),
            (host, Totp::Wrong),
            (other, Totp::NotSetUp),
            (Way::Telegram { user: 2 }, Totp::Right { step: 1 }),
        ] {
            assert_eq!(passwords.check(way, "287082", now), expected, "{way:?}");
        }
    }

    #[test]
    fn two_people_never_have_one_secret() {
        let made = |secret: &str| Some(OneTimePasswords::new(&secret.into(), &Account::new("main")).unwrap());
        let mut passwords = Passwords::default();
        passwords.add_person("alice", &[Way::Host { uid: 1 }], made(SECRET)).unwrap();
        passwords.add_person("carol", &[Way::Host { uid: 3 }], made("MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK")).unwrap();
        let same = format!(" {SECRET}\n");
        for secret in [SECRET, &same] {
            let refused = passwords.add_person("bob", &[Way::Host { uid: 2 }], made(secret)).unwrap_err().to_string();
            assert!(refused.starts_with("persons alice and bob have one secret") && !refused.contains(SECRET));
        }
    }

    #[test]
    fn the_published_vectors_hold_within_one_step() {
        let totp = OneTimePasswords::new(&SECRET.into(), &Account::new("main")).unwrap();
        let at = |seconds: i64| Time::from_millis(seconds * 1_000);
        assert_eq!(totp.check("287082", at(59)), Totp::Right { step: 1 });
        assert_eq!(totp.check("287 082", at(89)), Totp::Right { step: 1 });
        assert_eq!(totp.check("287082", at(90)), Totp::Wrong);
        assert_eq!(totp.check("050471", at(1_111_111_111)), Totp::Right { step: 37_037_037 });
        for code in ["", "28708", "2870822", "abcdef", "２８７０８２"] {
            assert_eq!(totp.check(code, at(59)), Totp::Wrong, "{code}");
        }
        assert!(OneTimePasswords::new(&"short".into(), &Account::new("main")).is_err());
        assert!(totp.qr_code().unwrap().lines().count() > 10);
    }
}
