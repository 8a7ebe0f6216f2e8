//! A master's say over its sub-accounts' keys: the operations of `/sapi/…/sub-account`.
//! Every change of a key is written into the ledger; what changes nothing is answered and not written.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::kernel::time::Time;
use crate::sim::config::{EmptiedAddressList, PostedAddresses};
use crate::sim::exchange::Exchange;
use crate::sim::key::{ApiKey, KeyProof, Origins, Permission};
use crate::sim::keyring::NewKey;
use crate::sim::ledger::KeyChange;
use crate::sim::order::{Actor, Uid};
use crate::sim::params::Params;
use crate::sim::refusal::Refusal;

const PAGE_SIZE_DEFAULT: i64 = 30;
const PAGE_SIZE_MAX: i64 = 100;
const LABEL_CHARS_MAX: usize = 50;
const ADDRESSES_CHARS_MAX: usize = 500;
/// More addresses than any one list that is posted could hold.
const ADDRESSES_MAX: usize = 256;

/// The permissions that a master may give, by their parameters.
const GIVEN: [(&str, Permission); 5] = [
    ("canTrade", Permission::SpotTrading),
    ("canMarginLoanRepay", Permission::Margin),
    ("canFuturesTrade", Permission::Futures),
    ("canUniversalTransfer", Permission::UniversalTransfer),
    ("canVanillaOptions", Permission::VanillaOptions),
];

impl Exchange {
    pub(super) fn list_keys(&self, by: &Actor, params: &Params) -> Result<Value, Refusal> {
        let uid = self.sub_account(by, params)?;
        let (page, size) = (params.number("page")?.unwrap_or(1), params.number("size")?.unwrap_or(PAGE_SIZE_DEFAULT));
        if page < 1 || !(1..=PAGE_SIZE_MAX).contains(&size) {
            return Err(Refusal::missing(if page < 1 { "page" } else { "size" }));
        }
        let asked = params.text("subAccountApiKey");
        let mut keys: Vec<&ApiKey> =
            self.keys.of(uid).filter(|key| asked.is_none_or(|asked| *key.api_key == *asked)).collect();
        keys.sort_by_key(|key| (key.created, &key.name));
        let number = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
        let shown = keys.iter().skip(number(size).saturating_mul(number(page - 1))).take(number(size));
        let rows: Vec<Value> = shown
            .map(|key| {
                let mut row = described(key);
                row["email"] = json!(self.keys.email(uid));
                row
            })
            .collect();
        Ok(json!({ "total": keys.len(), "rows": rows }))
    }

    pub(super) fn create_key(&mut self, now: Time, by: &Actor, params: &Params) -> Result<Value, Refusal> {
        let uid = self.sub_account(by, params)?;
        let label = params.need("apiName")?;
        if label.chars().count() > LABEL_CHARS_MAX {
            return Err(Refusal::missing("apiName"));
        }
        let (status, origins) = match params.need("status")? {
            "1" => (1, Origins::Anywhere),
            "2" => (2, Origins::Only(addresses(params)?)),
            "3" => return Err(Refusal::unsupported()),
            _ => return Err(Refusal::missing("status")),
        };
        let permissions = changed(BTreeSet::from([Permission::Reading]), params)?;
        let (api_key, secret) = (self.engine.dice().base62(64), self.engine.dice().base62(64));
        let (proof, secret) = match params.text("publicKey") {
            Some(text) => (KeyProof::from_public_key(text).ok_or_else(|| Refusal::missing("publicKey"))?, None),
            None => (KeyProof::Hmac(secret.as_str().into()), Some(secret)),
        };
        let (label, api_key) = (label.into(), api_key.into());
        let new = NewKey { uid, label, api_key, proof, permissions, origins };
        let key = self.make_key(now, by, new)?;
        let mut answer = described(&key);
        answer["apiKey"] = answer["apikey"].take();
        answer["status"] = json!(status);
        answer["ipList"] = key.origins.listed().map(|address| json!(address)).collect();
        if let Some(fields) = answer.as_object_mut() {
            fields.remove("apikey");
            fields.remove("timestamp");
            fields.extend(secret.map(|secret| ("secretKey".to_owned(), json!(secret))));
        }
        Ok(answer)
    }

    pub(super) fn make_key(&mut self, now: Time, by: &Actor, new: NewKey) -> Result<ApiKey, Refusal> {
        let no_room = || Refusal::bad(-9000, "The account has as many API keys as it may have.");
        let key = self.keys.make(now, new).ok_or_else(no_room)?.clone();
        self.engine.ledger_mut().note_key(now, by, KeyChange::KeyCreated, &key);
        Ok(key)
    }

    pub(super) fn delete_key(&mut self, now: Time, by: &Actor, params: &Params) -> Result<Value, Refusal> {
        let api_key = self.key_of_sub_account(by, params)?.api_key.clone();
        self.remove_key(now, by, &api_key);
        Ok(json!({}))
    }

    /// Its orders stay: they are the account's.
    pub(super) fn remove_key(&mut self, now: Time, by: &Actor, api_key: &str) {
        if let Some(key) = self.keys.delete(api_key) {
            self.engine.ledger_mut().note_key(now, by, KeyChange::KeyDeleted, &key);
            self.end_streams_of(now, api_key);
        }
    }

    /// What a request leaves out stays as it was.
    pub(super) fn permit_key(&mut self, now: Time, by: &Actor, params: &Params) -> Result<Value, Refusal> {
        let key = self.key_of_sub_account(by, params)?;
        let (api_key, permissions) = (key.api_key.clone(), changed(key.permissions.clone(), params)?);
        if let Some(key) = self.keys.permit(&api_key, permissions) {
            self.engine.ledger_mut().note_key(now, by, KeyChange::KeyPermissions, key);
        }
        Ok(described(self.key_of_sub_account(by, params)?))
    }

    pub(super) fn show_addresses(&self, by: &Actor, params: &Params) -> Result<Value, Refusal> {
        Ok(restriction(self.key_of_sub_account(by, params)?))
    }

    pub(super) fn restrict_addresses(&mut self, now: Time, by: &Actor, params: &Params) -> Result<Value, Refusal> {
        let key = self.key_of_sub_account(by, params)?;
        let origins = match params.need("status")? {
            "1" => Origins::Anywhere,
            "2" => {
                let mut listed = addresses(params)?;
                if self.unknowns.posted_addresses == PostedAddresses::Add {
                    listed.extend(key.origins.listed());
                }
                Origins::Only(listed)
            }
            _ => return Err(Refusal::missing("status")),
        };
        let key = self.restrict(now, by, params, origins)?;
        let mut answer = restriction(key);
        answer["status"] = json!(if key.origins.are_restricted() { "2" } else { "1" });
        if let Some(fields) = answer.as_object_mut() {
            fields.remove("ipRestrict");
        }
        Ok(answer)
    }

    pub(super) fn delete_addresses(&mut self, now: Time, by: &Actor, params: &Params) -> Result<Value, Refusal> {
        let key = self.key_of_sub_account(by, params)?;
        let gone = addresses(params)?;
        let left: BTreeSet<IpAddr> = key.origins.listed().copied().filter(|address| !gone.contains(address)).collect();
        let unrestricted = left.is_empty()
            && (!key.origins.are_restricted()
                || self.unknowns.emptied_address_list == EmptiedAddressList::Unrestricted);
        let origins = if unrestricted { Origins::Anywhere } else { Origins::Only(left) };
        self.restrict(now, by, params, origins).map(restriction)
    }

    fn restrict(&mut self, now: Time, by: &Actor, params: &Params, origins: Origins) -> Result<&ApiKey, Refusal> {
        if origins.listed().count() > ADDRESSES_MAX {
            return Err(Refusal::missing("ipAddress"));
        }
        let api_key = self.key_of_sub_account(by, params)?.api_key.clone();
        if let Some(key) = self.keys.restrict(now, &api_key, origins) {
            self.engine.ledger_mut().note_key(now, by, KeyChange::KeyAddresses, key);
        }
        self.key_of_sub_account(by, params)
    }

    fn sub_account(&self, by: &Actor, params: &Params) -> Result<Uid, Refusal> {
        self.keys.sub_account(by.uid, params.need("email")?).ok_or_else(Refusal::unsupported)
    }

    fn key_of_sub_account(&self, by: &Actor, params: &Params) -> Result<&ApiKey, Refusal> {
        let uid = self.sub_account(by, params)?;
        let key = self.keys.get(params.need("subAccountApiKey")?).filter(|key| key.uid == uid);
        key.ok_or_else(|| Refusal::bad(-9000, "The sub-account has no such API key."))
    }
}

fn described(key: &ApiKey) -> Value {
    let mut row = json!({ "apiName": key.label, "apikey": key.api_key, "timestamp": key.created.millis() });
    for (name, permission) in GIVEN {
        row[name] = json!(key.may(permission));
    }
    row
}

fn restriction(key: &ApiKey) -> Value {
    json!({
        "ipRestrict": key.origins.are_restricted().to_string(),
        "ipList": key.origins.listed().collect::<Vec<_>>(),
        "updateTime": key.origins_changed.millis(),
        "apiKey": key.api_key,
    })
}

fn changed(mut permissions: BTreeSet<Permission>, params: &Params) -> Result<BTreeSet<Permission>, Refusal> {
    for (name, permission) in GIVEN {
        match params.text(name) {
            None => {}
            Some("true") => drop(permissions.insert(permission)),
            Some("false") => drop(permissions.remove(&permission)),
            Some(_) => return Err(Refusal::missing(name)),
        }
    }
    Ok(permissions)
}

fn addresses(params: &Params) -> Result<BTreeSet<IpAddr>, Refusal> {
    let text = params.need("ipAddress")?;
    let listed: Result<BTreeSet<IpAddr>, _> = text.split(',').map(|address| address.trim().parse()).collect();
    listed.ok().filter(|_| text.len() <= ADDRESSES_CHARS_MAX).ok_or_else(|| Refusal::missing("ipAddress"))
}
