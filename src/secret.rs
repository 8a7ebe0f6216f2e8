//! Secrets by reference: the configuration says where one lies, and this is the only place that fetches it.
//!
//! Invariant: what comes out cannot be printed, and no error shows any of it.

pub mod one_time;
pub mod private;
pub mod typed;
pub mod vault;

use std::cell::OnceCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use secrecy::SecretString;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::secret::private::{Fault, Others};
use crate::secret::typed::{Typed, TypedError};
use crate::secret::vault::file::{self, FileError};
use crate::secret::vault::key::{Key, Lock};
use crate::secret::vault::{Flaw, Locked, Name, Vault};

/// A secret is a key or a token, not a document.
pub const BYTES_MAX: u64 = 64 * 1024;

/// `vault:NAME`, `env:NAME`, `file:path` or `credential:name` (systemd).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Reference {
    Env(String),
    File(PathBuf),
    Credential(String),
    Vault(Name),
}

/// Where the key of a vault lies: a file or a credential, as one in the vault could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct KeyReference(Reference);

/// Where the vault lies and what opens it; without a key, a passphrase does.
#[derive(Clone, Debug)]
pub struct VaultPlace {
    pub file: PathBuf,
    pub key: Option<KeyReference>,
}

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the secret {0} {1}")]
    File(Reference, Fault),
    #[error("the secret {0} is no text (UTF-8)")]
    NotText(Reference),
    #[error("the secret {0} is empty")]
    Empty(Reference),
    #[error("the secret {0} is not set in the environment\nhint: set it where countersign is started")]
    Unset(Reference),
    #[error("the secret {0} needs systemd's LoadCredential\nhint: run under systemd, or use file: instead")]
    NoCredentials(Reference),
    #[error("the secret {0} needs a vault\nhint: add [vault] with file = \"countersign.vault\" to the configuration")]
    NoVault(Reference),
    #[error("the secret {reference} is not in the vault {}\nhint: countersign secret set {name}", path.display())]
    NotInVault { reference: Reference, name: Name, path: PathBuf },
    #[error(
        "the vault's key {0} is not 32 bytes in hex or base64\nhint: countersign secret init --key-file PATH makes one"
    )]
    NoKey(Reference),
    #[error(
        "the vault's key {0} needs systemd's LoadCredential\nhint: run under systemd; at a shell, name the same key with --key-file PATH"
    )]
    KeyCredential(Reference),
    #[error(transparent)]
    Vault(#[from] FileError),
    #[error(transparent)]
    Typed(#[from] TypedError),
}

/// The loader. The vault is opened when the first secret in it is asked for, and closed, its keys wiped, with this.
pub struct Secrets<'a> {
    folder: &'a Path,
    vault: Option<&'a VaultPlace>,
    opened: OnceCell<Vault>,
}

impl<'a> Secrets<'a> {
    /// Relative files are taken from `folder`, which is the configuration's.
    pub fn new(folder: &'a Path, vault: Option<&'a VaultPlace>) -> Self {
        Self { folder, vault, opened: OnceCell::new() }
    }

    pub fn load(&self, reference: &Reference) -> Result<SecretString, SecretError> {
        if let Reference::Vault(name) = reference {
            return self.of_vault(reference, name);
        }
        let bytes = reference.read(self.folder)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotText(reference.clone()))?;
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() { Err(SecretError::Empty(reference.clone())) } else { Ok(text.into()) }
    }

    fn of_vault(&self, reference: &Reference, name: &Name) -> Result<SecretString, SecretError> {
        let place = self.vault.ok_or_else(|| SecretError::NoVault(reference.clone()))?;
        let vault = match self.opened.get() {
            Some(vault) => vault,
            None => {
                let opened = place.open(self.folder, file::read(&place.file)?, &Typed::stdin()?)?;
                self.opened.get_or_init(|| opened)
            }
        };
        let missing =
            || SecretError::NotInVault { reference: reference.clone(), name: name.clone(), path: place.file.clone() };
        vault.reveal(name).map_err(|flaw| place.flawed(flaw))?.ok_or_else(missing)
    }
}

impl VaultPlace {
    /// Opens what was read of the vault's file. The passphrase, where it takes one, is asked of `typed`.
    pub fn open(&self, folder: &Path, locked: Locked, typed: &Typed) -> Result<Vault, SecretError> {
        let key = match (&self.key, locked.lock()) {
            (Some(reference), _) => reference.load(folder)?,
            (None, Lock::Passphrase(_)) => Key::Passphrase(typed.line("passphrase of the vault")?.as_str().into()),
            (None, lock @ Lock::Key) => return Err(self.flawed(Flaw::OtherLock(lock))),
        };
        locked.unlock(&key).map_err(|flaw| self.flawed(flaw))
    }

    pub fn flawed(&self, flaw: Flaw) -> SecretError {
        FileError::Flaw { path: self.file.clone(), flaw }.into()
    }
}

impl KeyReference {
    pub fn file(path: PathBuf) -> Self {
        Self(Reference::File(path))
    }

    /// The file that it names, if it is one.
    pub fn path(&self, folder: &Path) -> Option<PathBuf> {
        if let Reference::File(path) = &self.0 { Some(folder.join(path)) } else { None }
    }

    pub fn load(&self, folder: &Path) -> Result<Key, SecretError> {
        let named = |error| match error {
            SecretError::NoCredentials(reference) => SecretError::KeyCredential(reference),
            other => other,
        };
        let text = self.0.read(folder).map_err(named)?;
        Key::from_text(&text).ok_or_else(|| SecretError::NoKey(self.0.clone()))
    }
}

impl Reference {
    /// The bytes where it points outside the vault.
    fn read(&self, folder: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let named = |fault| SecretError::File(self.clone(), fault);
        match self {
            Self::Env(name) => match std::env::var(name) {
                Ok(text) => Ok(Zeroizing::new(text.into_bytes())),
                Err(_) => Err(SecretError::Unset(self.clone())),
            },
            Self::File(path) => private::read(&folder.join(path), Others::None, BYTES_MAX).map_err(named),
            Self::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
                let folder = folder.ok_or_else(|| SecretError::NoCredentials(self.clone()))?;
                private::read(&Path::new(&folder).join(name), Others::ReadByList, BYTES_MAX).map_err(named)
            }
            Self::Vault(_) => Err(SecretError::NoVault(self.clone())),
        }
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("credential", name)) if !name.is_empty() && !name.contains('/') => {
                Ok(Self::Credential(name.to_owned()))
            }
            Some(("vault", name)) => name.parse().map(Self::Vault),
            // The text itself is not shown: it may be the secret.
            _ => Err("a secret stands in the configuration by reference only: \"vault:NAME\", \"env:NAME\", \
                      \"file:path\" or \"credential:name\""
                .to_owned()),
        }
    }
}

impl TryFrom<String> for Reference {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<String> for KeyReference {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.parse() {
            Ok(reference @ (Reference::File(_) | Reference::Credential(_))) => Ok(Self(reference)),
            Ok(Reference::Env(_) | Reference::Vault(_)) | Err(_) => {
                Err("the vault's key is \"credential:NAME\" or \"file:PATH\"; without it the passphrase is asked"
                    .to_owned())
            }
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Credential(name) => write!(f, "credential:{name}"),
            Self::Vault(name) => write!(f, "vault:{name}"),
        }
    }
}

/// No core dump of this process may be written, and no other process of its user may look into it: it holds the keys.
pub fn forbid_core_dumps() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests;
