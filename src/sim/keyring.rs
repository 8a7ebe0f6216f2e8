//! Who may act for which account: the accounts' e-mails and masters, which never change, and their keys, which do.

use std::collections::{BTreeMap, BTreeSet};

use crate::kernel::time::Time;
use crate::sim::config::{AccountSpec, ConfigError};
use crate::sim::key::{ApiKey, KeyProof, Origins, Permission};
use crate::sim::order::Uid;

/// As many as the venue gives an account; one more is refused.
pub const KEYS_PER_ACCOUNT_MAX: usize = 30;

#[derive(Default)]
pub struct Keyring {
    keys: BTreeMap<Box<str>, ApiKey>,
    holders: BTreeMap<Uid, Holder>,
    /// Keys made since the start, for names that no two have.
    made: u64,
}

struct Holder {
    name: Box<str>,
    email: Option<Box<str>>,
    master: Option<Uid>,
}

/// A key that somebody asks for.
pub struct NewKey {
    pub uid: Uid,
    pub label: Box<str>,
    pub api_key: Box<str>,
    pub proof: KeyProof,
    pub permissions: BTreeSet<Permission>,
    pub origins: Origins,
}

impl Keyring {
    pub fn new(now: Time, accounts: &[AccountSpec]) -> Result<Self, ConfigError> {
        let mut ring = Self::default();
        for account in accounts {
            let (name, email) = (account.name.as_str().into(), account.email.as_deref().map(Into::into));
            ring.holders.insert(account.uid, Holder { name, email, master: account.master });
            for key in &account.keys {
                let key = key.checked(account.uid, now)?;
                let name = key.name.clone();
                if ring.keys.insert(key.api_key.clone(), key).is_some() {
                    return Err(ConfigError::TwiceTheSameKey(name.into()));
                }
            }
        }
        accounts.iter().try_for_each(|account| ring.check(account))?;
        Ok(ring)
    }

    fn check(&self, account: &AccountSpec) -> Result<(), ConfigError> {
        let name = || account.name.clone();
        if account.keys.len() > KEYS_PER_ACCOUNT_MAX {
            return Err(ConfigError::TooManyKeys(name()));
        }
        let Some(master) = account.master else { return Ok(()) };
        if self.holders.get(&master).is_none_or(|holder| holder.master.is_some()) {
            return Err(ConfigError::NoSuchMaster { account: name(), master });
        }
        let Some(email) = &account.email else { return Err(ConfigError::SubAccountWithoutEmail(name())) };
        let same = self.holders.values().filter(|holder| holder.email.as_deref() == Some(email.as_str()));
        if same.count() > 1 { Err(ConfigError::TwiceTheSameEmail(email.clone())) } else { Ok(()) }
    }

    pub fn get(&self, api_key: &str) -> Option<&ApiKey> {
        self.keys.get(api_key)
    }

    pub fn all(&self) -> impl Iterator<Item = &ApiKey> {
        self.keys.values()
    }

    pub fn named(&self, name: &str) -> Option<&ApiKey> {
        self.keys.values().find(|key| *key.name == *name)
    }

    pub fn of(&self, uid: Uid) -> impl Iterator<Item = &ApiKey> {
        self.keys.values().filter(move |key| key.uid == uid)
    }

    pub fn email(&self, uid: Uid) -> Option<&str> {
        self.holders.get(&uid).and_then(|holder| holder.email.as_deref())
    }

    pub fn is_master(&self, uid: Uid) -> bool {
        self.holders.values().any(|holder| holder.master == Some(uid))
    }

    /// The sub-account of that master which has that e-mail.
    pub fn sub_account(&self, master: Uid, email: &str) -> Option<Uid> {
        let named = |holder: &Holder| holder.master == Some(master) && holder.email.as_deref() == Some(email);
        self.holders.iter().find(|(_, holder)| named(holder)).map(|(uid, _)| *uid)
    }

    /// Nothing, where the account is unknown, has its most, or the key exists.
    pub fn make(&mut self, now: Time, new: NewKey) -> Option<&ApiKey> {
        let NewKey { uid, label, api_key, proof, permissions, origins } = new;
        let holder = self.holders.get(&uid)?;
        if self.of(uid).count() >= KEYS_PER_ACCOUNT_MAX || self.keys.contains_key(&api_key) {
            return None;
        }
        self.made += 1;
        let name = format!("{}/{label}#{}", holder.name, self.made).into();
        let key = ApiKey {
            api_key: api_key.clone(),
            name,
            label,
            uid,
            proof,
            permissions,
            origins,
            created: now,
            origins_changed: now,
        };
        Some(self.keys.entry(api_key).or_insert(key))
    }

    pub fn delete(&mut self, api_key: &str) -> Option<ApiKey> {
        self.keys.remove(api_key)
    }

    /// The key, if that changed anything.
    pub fn permit(&mut self, api_key: &str, permissions: BTreeSet<Permission>) -> Option<&ApiKey> {
        let key = self.keys.get_mut(api_key).filter(|key| key.permissions != permissions)?;
        key.permissions = permissions;
        Some(key)
    }

    /// The key, if that changed anything.
    pub fn restrict(&mut self, now: Time, api_key: &str, origins: Origins) -> Option<&ApiKey> {
        let key = self.keys.get_mut(api_key).filter(|key| key.origins != origins)?;
        key.origins = origins;
        key.origins_changed = now;
        Some(key)
    }
}
