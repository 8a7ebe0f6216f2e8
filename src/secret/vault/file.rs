//! The vault's file: read by anybody who may, changed by one command at a time, and replaced whole.
//!
//! A change is written beside the file, brought to disk, and takes its place by a rename; until then the previous one is
//! untouched. What is locked meanwhile is the folder, as the file itself is another one after each change.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::secret::private::{self, Fault, Others};
use crate::secret::vault::{FILE_BYTES_MAX, Flaw, Locked};

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("there is no vault {}\nhint: countersign secret init makes it", .0.display())]
    Missing(PathBuf),
    #[error("the vault {} {fault}", path.display())]
    Private { path: PathBuf, fault: Fault },
    #[error("the vault {} {flaw}", path.display())]
    Flaw { path: PathBuf, flaw: Flaw },
    #[error("there is a vault {} already, and it stays\nhint: countersign secret set NAME adds to it", .0.display())]
    Exists(PathBuf),
    #[error("another command is changing the vault {}\nhint: wait until it has ended, and try again", .0.display())]
    Busy(PathBuf),
    #[error("{} cannot be written: {source}\nhint: nothing was changed; see to the disk and the folder's owner", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} was written, but may not outlast a power cut: {source}\nhint: see to the disk, then do it again", path.display())]
    NotDurable { path: PathBuf, source: io::Error },
}

/// The vault as it is. Who reads needs no lock: a file that is replaced is never half of one.
pub fn read(path: &Path) -> Result<Locked, FileError> {
    let named = |fault| match fault {
        Fault::Unreadable(error) if error.kind() == io::ErrorKind::NotFound => FileError::Missing(path.to_owned()),
        fault => FileError::Private { path: path.to_owned(), fault },
    };
    let bytes = private::read(path, Others::None, FILE_BYTES_MAX as u64).map_err(named)?;
    Locked::read(bytes.to_vec()).map_err(|flaw| FileError::Flaw { path: path.to_owned(), flaw })
}

/// The right to change a vault, until it is dropped.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    folder: File,
}

impl Held {
    /// A vault that is a link is changed where it lies, and the link stays.
    pub fn hold(path: &Path) -> Result<Self, FileError> {
        let failed = |source| FileError::Write { path: path.to_owned(), source };
        let path = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(failed(error)),
        };
        let folder = File::open(folder_of(&path)).map_err(failed)?;
        match folder.try_lock() {
            Ok(()) => Ok(Self { path, folder }),
            Err(TryLockError::WouldBlock) => Err(FileError::Busy(path)),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn must_be_new(&self) -> Result<(), FileError> {
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(_) => Err(FileError::Exists(self.path.clone())),
            Err(source) => Err(FileError::Write { path: self.path.clone(), source }),
        }
    }

    pub fn replace(&self, bytes: &[u8]) -> Result<(), FileError> {
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let failed = |source| FileError::Write { path: self.path.clone(), source };
        // What an interrupted change left. It is a vault too, or the beginning of one: nothing in it can be read.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        write_new(&beside, bytes).map_err(failed)?;
        fs::rename(&beside, &self.path).map_err(failed)?;
        self.folder.sync_all().map_err(|source| FileError::NotDurable { path: self.path.clone(), source })
    }
}

/// A file that its owner alone may read, on disk when this returns, but for its folder's entry.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes a key's file, which must not be there yet.
pub fn write_key(path: &Path, text: &str) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    write_new(path, format!("{text}\n").as_bytes()).map_err(failed)?;
    let synced = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
    synced.map_err(|source| FileError::NotDurable { path: path.to_owned(), source })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use super::*;
    use crate::secret::vault::Vault;
    use crate::secret::vault::key::{Costs, Key};

    fn vault() -> Vec<u8> {
        Vault::new(&Key::from_text(&[b'7'; 64]).unwrap(), Costs::USUAL).unwrap().to_bytes()
    }

    #[test]
    fn one_changes_it_at_a_time_and_the_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault");
        assert!(matches!(read(&path), Err(FileError::Missing(_))));
        let held = Held::hold(&path).unwrap();
        assert!(matches!(Held::hold(&path), Err(FileError::Busy(_))));
        held.must_be_new().unwrap();
        held.replace(&vault()).unwrap();
        assert!(matches!(held.must_be_new(), Err(FileError::Exists(_))));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // A reader who opened it before still reads the whole of what it was.
        let (before, mut reader) = (fs::read(&path).unwrap(), File::open(&path).unwrap());
        fs::write(folder.path().join("vault.new"), "what an interrupted change left").unwrap();
        held.replace(&vault()).unwrap();
        let mut still = Vec::new();
        reader.read_to_end(&mut still).unwrap();
        assert!(still == before && fs::read(&path).unwrap() != before);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        drop(held);
        Held::hold(&path).unwrap();
        read(&path).unwrap();
    }

    #[test]
    fn a_change_that_fails_leaves_the_previous_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault");
        let held = Held::hold(&path).unwrap();
        held.replace(&vault()).unwrap();
        let before = fs::read(&path).unwrap();
        fs::create_dir(folder.path().join("vault.new")).unwrap();
        let error = held.replace(&vault()).unwrap_err();
        assert!(matches!(error, FileError::Write { .. }) && error.to_string().contains("hint: nothing was changed"));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        Held::hold(&real).unwrap().replace(&vault()).unwrap();
        symlink(&real, &link).unwrap();
        let before = fs::read(&real).unwrap();
        Held::hold(&link).unwrap().replace(&vault()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_ne!(fs::read(&real).unwrap(), before);
    }

    #[test]
    fn what_others_may_read_or_own_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault");
        fs::write(&path, vault()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(error, FileError::Private { fault: Fault::Open(_), .. }), "{error}");
        assert!(error.to_string().contains("hint: chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        read(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(FILE_BYTES_MAX as u64 + 1).unwrap();
        assert!(matches!(read(&path), Err(FileError::Private { fault: Fault::TooLong(_), .. })));
        // Only root can give a file away.
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(65_534), None).unwrap();
            assert!(matches!(read(&path), Err(FileError::Private { fault: Fault::Owner, .. })));
        }
    }
}
