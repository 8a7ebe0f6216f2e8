//! The vault's bytes: secrets by name, each sealed by itself, in one file that is whole or refused.
//!
//! ```text
//! header  magic 18 · version 2 · lock 1 · Argon2id memory, passes, lanes 4+4+4 · salt 32 · check 32 · checksum 32
//! length  of what follows it, without the seal, 4
//! count   2, then for each secret, in the order of their names:
//!         length 1 · name · nonce 24 · length 4 · XChaCha20-Poly1305(secret), its associated data header and name
//! seal    HMAC-SHA-256 over all before it, 32
//! ```
//!
//! Why so. The secrets are sealed one by one, so that a process decrypts those it asks for and no other, and a change of
//! one decrypts none. That alone would let an old secret be put back beside newer ones, or one be taken away: the seal
//! covers the whole list, and is checked before the list is read. Names are not hidden: they stand in the configuration
//! too. Header and key stay for a vault's life; a nonce is drawn whenever a secret is sealed.
//!
//! The checksum needs no key: what decay did to the header is known before a key is tried (and before Argon2id is given
//! its figures). The check is made from the key: with a right checksum and another check, it is the key that is wrong.
//! It also ties the file to one key, which Poly1305 does not. Check, sealing key and secret key are separate
//! HKDF-SHA-256 outputs of the root key, which is Argon2id's output, or the 32 random bytes themselves.
//!
//! Not promised: that the file is the newest. An older whole copy of it opens, as it did then.

pub mod file;
pub mod key;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::secret::vault::key::{Costs, Key, Lock};

const MAGIC: &[u8; 18] = b"countersign vault\n";
const VERSION: u16 = 1;
const HEADER: usize = 18 + 2 + 1 + 12 + 32 + 32 + 32;
const CHECKSUM_AT: usize = HEADER - 32;
const SEAL: usize = 32;
const NONCE: usize = 24;
const TAG: usize = 16;
/// As for every other secret.
const SECRET_BYTES_MAX: usize = 64 * 1024;
const SECRETS_MAX: usize = 1_000;
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
const NAME_BYTES_MAX: usize = 64;

/// Says what is wrong with a vault; the file is named before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("is no vault\nhint: [vault] file names what `countersign secret init` made")]
    NotAVault,
    #[error(
        "is of version {0}, and this countersign reads {VERSION}\nhint: use the countersign that wrote it, or a newer one"
    )]
    Version(u16),
    #[error("is cut short: {held} bytes of {needed}\nhint: put a copy of it back; it was not changed")]
    CutShort { held: usize, needed: usize },
    #[error("is damaged or was altered, in its {0}\nhint: put a copy of it back; it was not changed")]
    Damaged(&'static str),
    #[error("asks for more memory or time than {max}\nhint: somebody altered it; put a copy of it back", max = Costs::MOST)]
    Costs,
    #[error("is locked with {0}, and was to be opened with {other}\nhint: {hint}", other = .0.other(), hint = .0.other_hint())]
    OtherLock(Lock),
    #[error("is not opened by this {key}; the file itself is sound\nhint: {hint}", key = .0.noun(), hint = .0.wrong_hint())]
    WrongKey(Lock),
    #[error(
        "cannot hold more: {SECRETS_MAX} secrets and {FILE_BYTES_MAX} bytes are the most\nhint: countersign secret rm NAME"
    )]
    Full,
    #[error("takes no secret that is empty or longer than {SECRET_BYTES_MAX} bytes")]
    Length,
    #[error("needs {} KiB of memory to be opened, which the system does not give", .0.memory_kib)]
    Memory(Costs),
    #[error("needs random bytes, which the system does not give: {0}")]
    Random(getrandom::Error),
}

/// A secret's name: 1 to 64 letters, digits, `-`, `_` or `.`, the first a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if begins && text.len() <= NAME_BYTES_MAX && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "a secret's name is 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.', the first a letter or a digit"
            ))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file whose header was read; nothing in it is believed yet.
#[derive(Debug)]
pub struct Locked {
    bytes: Vec<u8>,
    lock: Lock,
}

impl Locked {
    pub fn read(bytes: Vec<u8>) -> Result<Self, Flaw> {
        let held = bytes.len();
        let magic = &bytes[..held.min(MAGIC.len())];
        if !MAGIC.starts_with(magic) {
            return Err(Flaw::NotAVault);
        }
        let version = bytes.get(MAGIC.len()..).and_then(|rest| rest.first_chunk());
        match version.map(|version| u16::from_be_bytes(*version)) {
            Some(VERSION) => {}
            Some(other) => return Err(Flaw::Version(other)),
            None => return Err(Flaw::CutShort { held, needed: HEADER }),
        }
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Err(Flaw::CutShort { held, needed: HEADER });
        };
        if Sha256::digest(&header[..CHECKSUM_AT])[..] != header[CHECKSUM_AT..] {
            return Err(Flaw::Damaged("header"));
        }
        let lock = lock(header)?;
        let body = bytes[HEADER..].first_chunk().map_or(0, |length| u32::from_be_bytes(*length));
        let needed = (HEADER + 4 + SEAL).saturating_add(usize::try_from(body).unwrap_or(usize::MAX));
        if held < needed {
            return Err(Flaw::CutShort { held, needed });
        }
        if held > needed {
            return Err(Flaw::Damaged("length"));
        }
        Ok(Self { bytes, lock })
    }

    /// What opens it.
    pub fn lock(&self) -> Lock {
        self.lock
    }

    pub fn unlock(self, key: &Key) -> Result<Vault, Flaw> {
        let header: [u8; HEADER] = *self.bytes.first_chunk().expect("it was read with a whole header");
        let root = key.root(self.lock, salt(&header))?;
        let keys = Keys::derive(&root, salt(&header));
        if !bool::from(keys.check.ct_eq(check(&header))) {
            return Err(Flaw::WrongKey(self.lock));
        }
        let (sealed, seal) = self.bytes.split_at(self.bytes.len() - SEAL);
        if keys.seal(sealed).verify_slice(seal).is_err() {
            return Err(Flaw::Damaged("list of secrets"));
        }
        let entries = entries(&sealed[HEADER + 4..]).ok_or(Flaw::Damaged("list of secrets"))?;
        Ok(Vault { header, keys, entries })
    }
}

fn lock(header: &[u8; HEADER]) -> Result<Lock, Flaw> {
    let figure = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let costs = Costs { memory_kib: figure(21), passes: figure(25), lanes: figure(29) };
    match header[20] {
        1 if costs.are_bearable() => Ok(Lock::Passphrase(costs)),
        1 => Err(Flaw::Costs),
        2 if costs == Costs::NONE => Ok(Lock::Key),
        _ => Err(Flaw::Damaged("header")),
    }
}

fn salt(header: &[u8; HEADER]) -> &[u8; 32] {
    header[33..].first_chunk().expect("the header is longer")
}

fn check(header: &[u8; HEADER]) -> &[u8] {
    &header[65..CHECKSUM_AT]
}

/// The list, already known to be what was written; `None` where it could not have been.
fn entries(mut body: &[u8]) -> Option<BTreeMap<Name, Sealed>> {
    let count = u16::from_be_bytes(*body.split_off(..2)?.first_chunk()?);
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let length = usize::from(*body.split_off_first()?);
        let name: Name = std::str::from_utf8(body.split_off(..length)?).ok()?.parse().ok()?;
        let nonce = *body.split_off(..NONCE)?.first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*body.split_off(..4)?.first_chunk()?)).ok()?;
        let text = body.split_off(..length)?.to_vec();
        entries.insert(name, Sealed { nonce, text });
    }
    body.is_empty().then_some(entries)
}

struct Keys {
    check: [u8; 32],
    secrets: SecretBox<[u8; 32]>,
    seal: SecretBox<[u8; 32]>,
}

impl Keys {
    fn derive(root: &SecretBox<[u8; 32]>, salt: &[u8; 32]) -> Self {
        let outputs = Hkdf::<Sha256>::new(Some(salt), root.expose_secret());
        let output = |domain: &str, key: &mut [u8; 32]| {
            outputs.expand(domain.as_bytes(), key).expect("32 bytes are fewer than HKDF's 8160");
        };
        let mut check = [0; 32];
        output("countersign/vault/v1/check", &mut check);
        Self {
            check,
            secrets: SecretBox::init_with_mut(|key| output("countersign/vault/v1/secrets", key)),
            seal: SecretBox::init_with_mut(|key| output("countersign/vault/v1/seal", key)),
        }
    }

    fn seal(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.seal.expose_secret());
        mac.expect("HMAC takes a key of any length").chain_update(bytes)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.secrets.expose_secret().into())
    }
}

struct Sealed {
    nonce: [u8; NONCE],
    text: Vec<u8>,
}

/// An opened vault. It holds its keys, wiped when it is dropped, and the secrets as they lie in the file.
pub struct Vault {
    header: [u8; HEADER],
    keys: Keys,
    entries: BTreeMap<Name, Sealed>,
}

impl Vault {
    /// An empty one with a salt of its own.
    pub fn new(key: &Key, costs: Costs) -> Result<Self, Flaw> {
        let lock = key.lock(costs);
        let salt: [u8; 32] = random()?;
        let keys = Keys::derive(&key.root(lock, &salt)?, &salt);
        let (kind, costs) = match lock {
            Lock::Passphrase(costs) => (1, costs),
            Lock::Key => (2, Costs::NONE),
        };
        let figures = [costs.memory_kib, costs.passes, costs.lanes].map(u32::to_be_bytes);
        let mut header =
            [&MAGIC[..], &VERSION.to_be_bytes(), &[kind], figures.as_flattened(), &salt, &keys.check].concat();
        header.extend_from_slice(&Sha256::digest(&header));
        let header = header.try_into().expect("these are the header's fields");
        Ok(Self { header, keys, entries: BTreeMap::new() })
    }

    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.entries.keys()
    }

    pub fn reveal(&self, name: &Name) -> Result<Option<SecretString>, Flaw> {
        let Some(sealed) = self.entries.get(name) else { return Ok(None) };
        let mut text = Zeroizing::new(sealed.text.clone());
        let opened = self.keys.cipher().decrypt_in_place(&XNonce::from(sealed.nonce), &self.bound(name), &mut *text);
        opened.map_err(|_| Flaw::Damaged("secrets"))?;
        let text = std::str::from_utf8(&text).map_err(|_| Flaw::Damaged("secrets"))?;
        Ok(Some(text.into()))
    }

    /// Whether there was one of this name, which is replaced.
    pub fn set(&mut self, name: Name, secret: &str) -> Result<bool, Flaw> {
        if secret.is_empty() || secret.len() > SECRET_BYTES_MAX {
            return Err(Flaw::Length);
        }
        let nonce = random()?;
        // With room for the tag: growing would leave a copy of the secret behind.
        let mut text = Zeroizing::new(Vec::with_capacity(secret.len() + TAG));
        text.extend_from_slice(secret.as_bytes());
        let sealed = self.keys.cipher().encrypt_in_place(&XNonce::from(nonce), &self.bound(&name), &mut *text);
        sealed.map_err(|_| Flaw::Length)?;
        let sealed = Sealed { nonce, text: std::mem::take(&mut *text) };
        let before = self.entries.insert(name.clone(), sealed);
        if self.entries.len() <= SECRETS_MAX && self.to_bytes().len() <= FILE_BYTES_MAX {
            return Ok(before.is_some());
        }
        match before {
            Some(before) => self.entries.insert(name, before),
            None => self.entries.remove(&name),
        };
        Err(Flaw::Full)
    }

    /// Whether there was one of this name.
    pub fn remove(&mut self, name: &Name) -> bool {
        self.entries.remove(name).is_some()
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let number = |length: usize| u32::try_from(length).expect("a vault is held to its limits").to_be_bytes();
        let mut body =
            Vec::from(u16::try_from(self.entries.len()).expect("a vault is held to its limits").to_be_bytes());
        for (name, Sealed { nonce, text }) in &self.entries {
            let name = name.as_str().as_bytes();
            body.push(u8::try_from(name.len()).expect("a name has 64 bytes at most"));
            body.extend([name, nonce, &number(text.len()), text].concat());
        }
        let mut bytes = [&self.header[..], &number(body.len()), &body].concat();
        let seal = self.keys.seal(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&seal);
        bytes
    }

    fn bound(&self, name: &Name) -> Vec<u8> {
        [&self.header[..], name.as_str().as_bytes()].concat()
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("names", &self.entries.keys()).finish_non_exhaustive()
    }
}

fn random<const N: usize>() -> Result<[u8; N], Flaw> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(Flaw::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
