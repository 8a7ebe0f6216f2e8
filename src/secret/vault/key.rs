//! What opens a vault: a passphrase, stretched by Argon2id, or 32 random bytes that a file or systemd holds.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox, SecretString};
use zeroize::Zeroizing;

use crate::secret::vault::Flaw;

const KEY: usize = 32;

/// What Argon2id is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl Costs {
    pub const USUAL: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };
    /// A file that asks for more is refused before it gets any.
    pub const MOST: Self = Self { memory_kib: 256 * 1024, passes: 10, lanes: 4 };
    const LEAST: Self = Self { memory_kib: 8 * 1024, passes: 1, lanes: 1 };
    pub(super) const NONE: Self = Self { memory_kib: 0, passes: 0, lanes: 0 };

    pub(super) fn are_bearable(self) -> bool {
        (Self::LEAST.memory_kib..=Self::MOST.memory_kib).contains(&self.memory_kib)
            && (Self::LEAST.passes..=Self::MOST.passes).contains(&self.passes)
            && (Self::LEAST.lanes..=Self::MOST.lanes).contains(&self.lanes)
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB in {} passes and {} lanes", self.memory_kib / 1024, self.passes, self.lanes)
    }
}

/// What a vault is locked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    Passphrase(Costs),
    Key,
}

impl Lock {
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Passphrase(_) => "passphrase",
            Self::Key => "key",
        }
    }

    pub(super) fn other(self) -> &'static str {
        match self {
            Self::Passphrase(_) => "a key",
            Self::Key => "a passphrase",
        }
    }

    pub(super) fn other_hint(self) -> &'static str {
        match self {
            Self::Passphrase(_) => "leave [vault] key and --key-file out, and the passphrase is asked",
            Self::Key => "name the key: [vault] key = \"credential:NAME\" or \"file:PATH\", or --key-file PATH",
        }
    }

    pub(super) fn wrong_hint(self) -> &'static str {
        match self {
            Self::Passphrase(_) => "type it again",
            Self::Key => "use the key that `countersign secret init` made for this vault, or the vault of this key",
        }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", self.noun())
    }
}

/// It is wiped when dropped, and cannot be printed.
#[derive(Debug)]
pub enum Key {
    Passphrase(SecretString),
    Random(SecretBox<[u8; KEY]>),
}

impl Key {
    /// `None` where the bytes are not 32 in hex or base64.
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        let encoding = if text.len() == 2 * KEY { &HEXLOWER_PERMISSIVE } else { &BASE64 };
        // Base64 is decoded in threes: 44 letters may be 33 bytes before the padding is looked at.
        let mut bytes = Zeroizing::new([0; KEY + 1]);
        let length = encoding.decode_len(text.len()).ok().filter(|length| *length <= bytes.len())?;
        let decoded = encoding.decode_mut(text, &mut bytes[..length]).ok()?;
        let whole = bytes.first_chunk::<KEY>().filter(|_| decoded == KEY)?;
        Some(Self::Random(SecretBox::init_with_mut(|key: &mut [u8; KEY]| key.copy_from_slice(whole))))
    }

    /// A new one, as `from_text` reads it.
    pub fn make_text() -> Result<Zeroizing<String>, Flaw> {
        let mut bytes = Zeroizing::new([0; KEY]);
        getrandom::fill(&mut *bytes).map_err(Flaw::Random)?;
        Ok(Zeroizing::new(HEXLOWER.encode(&*bytes)))
    }

    pub(super) fn lock(&self, costs: Costs) -> Lock {
        match self {
            Self::Passphrase(_) => Lock::Passphrase(costs),
            Self::Random(_) => Lock::Key,
        }
    }

    pub(super) fn root(&self, lock: Lock, salt: &[u8; 32]) -> Result<SecretBox<[u8; KEY]>, Flaw> {
        match (lock, self) {
            (Lock::Passphrase(costs), Self::Passphrase(passphrase)) => stretch(passphrase, costs, salt),
            (Lock::Key, Self::Random(key)) => {
                Ok(SecretBox::init_with_mut(|root: &mut [u8; KEY]| root.copy_from_slice(key.expose_secret())))
            }
            (Lock::Passphrase(_), Self::Random(_)) | (Lock::Key, Self::Passphrase(_)) => Err(Flaw::OtherLock(lock)),
        }
    }
}

fn stretch(passphrase: &SecretString, costs: Costs, salt: &[u8; 32]) -> Result<SecretBox<[u8; KEY]>, Flaw> {
    let params = Params::new(costs.memory_kib, costs.passes, costs.lanes, Some(KEY)).map_err(|_| Flaw::Costs)?;
    // Memory of our own, as the crate does not wipe its.
    let mut memory = Zeroizing::new(Vec::<Block>::new());
    memory.try_reserve_exact(params.block_count()).map_err(|_| Flaw::Memory(costs))?;
    memory.resize(params.block_count(), Block::default());
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut root = SecretBox::<[u8; KEY]>::default();
    let bytes = passphrase.expose_secret().as_bytes();
    argon
        .hash_password_into_with_memory(bytes, salt, root.expose_secret_mut(), memory.as_mut_slice())
        .map_err(|_| Flaw::Costs)?;
    Ok(root)
}
