//! Secrets by reference: the configuration says where one lies, and this is the only place that fetches it.
//!
//! Invariant: what comes out cannot be printed, and no error shows any of it.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use secrecy::SecretString;
use serde::Deserialize;

/// A secret is a key or a token, not a document.
const BYTES_MAX: u64 = 64 * 1024;

/// `env:NAME`, `file:path` or `credential:name` (systemd).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Reference {
    Env(String),
    File(PathBuf),
    Credential(String),
}

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the secret {0} cannot be read: {1}\nhint: the configuration names it; make the file, or name another")]
    Unreadable(Reference, std::io::Error),
    #[error("the secret {0} may be read by others than its owner\nhint: chmod 600 {path}", path = .1.display())]
    Open(Reference, PathBuf),
    #[error(
        "the secret {0} belongs to another user\nhint: it must be owned by the user that runs countersign, or root"
    )]
    Owner(Reference),
    #[error("the secret {0} is empty")]
    Empty(Reference),
    #[error("the secret {0} is longer than {BYTES_MAX} bytes")]
    TooLong(Reference),
    #[error("the secret {0} is not set in the environment\nhint: set it where countersign is started")]
    Unset(Reference),
    #[error("the secret {0} needs systemd's LoadCredential\nhint: run under systemd, or use file: instead")]
    NoCredentials(Reference),
}

impl Reference {
    /// Relative files are taken from the configuration's folder.
    pub fn load(&self, folder: &Path) -> Result<SecretString, SecretError> {
        let text = match self {
            Self::Env(name) => std::env::var(name).map_err(|_| SecretError::Unset(self.clone()))?,
            Self::File(path) => self.read(&folder.join(path))?,
            Self::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
                let folder = folder.ok_or_else(|| SecretError::NoCredentials(self.clone()))?;
                self.read(&Path::new(&folder).join(name))?
            }
        };
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() { Err(SecretError::Empty(self.clone())) } else { Ok(text.into()) }
    }

    fn read(&self, path: &Path) -> Result<String, SecretError> {
        let failed = |error| SecretError::Unreadable(self.clone(), error);
        let metadata = fs::metadata(path).map_err(failed)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(SecretError::Open(self.clone(), path.to_owned()));
        }
        let uid = rustix::process::geteuid().as_raw();
        if metadata.uid() != uid && metadata.uid() != 0 {
            return Err(SecretError::Owner(self.clone()));
        }
        if metadata.len() > BYTES_MAX {
            return Err(SecretError::TooLong(self.clone()));
        }
        fs::read_to_string(path).map_err(failed)
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
            // The text itself is not shown: it may be the secret.
            _ => Err("a secret stands in the configuration by reference only: \"env:NAME\", \"file:path\" or \
                      \"credential:name\""
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

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Credential(name) => write!(f, "credential:{name}"),
        }
    }
}

/// No core dump of this process may be written: it would hold the keys.
pub fn forbid_core_dumps() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_file_is_read_only_if_nobody_else_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "s3cret\n").unwrap();
        let reference: Reference = "file:key".parse().unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(reference.load(folder.path()), Err(SecretError::Open(..))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let secret = reference.load(folder.path()).unwrap();
        assert_eq!(secret.expose_secret(), "s3cret");
        assert!(!format!("{secret:?}").contains("s3cret"));
    }

    #[test]
    fn a_secret_itself_is_refused_and_not_shown() {
        let error = "hunter2hunter2".parse::<Reference>().unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
        for text in ["file:", "env:", "credential:../x", "vault:x"] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
