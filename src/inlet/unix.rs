//! A unix socket with a mode of its own, at a path that nobody else is listening on.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("somebody is listening on {} already\nhint: is countersign running? stop it, or configure another path", .0.display())]
    Taken(PathBuf),
    #[error("{} is there and is no socket\nhint: configure another path, or move the file away", .0.display())]
    NoSocket(PathBuf),
    #[error("cannot listen on {}\nhint: its folder must exist and be writable for this user", path.display())]
    Listen { path: PathBuf, source: io::Error },
}

/// Listens on `path`. A socket that a dead process left there gives way.
///
/// Until the mode is set the socket has the mode that the process's mask leaves, which lets in fewer, not more, than
/// `mode` under any mask in use; whoever connects is checked by user all the same.
pub fn listen(path: &Path, mode: u32) -> Result<UnixListener, SocketError> {
    let failed = |source| SocketError::Listen { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => return Err(SocketError::NoSocket(path.to_owned())),
        Ok(_) if BlockingUnixStream::connect(path).is_ok() => return Err(SocketError::Taken(path.to_owned())),
        Ok(_) => std::fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_gives_way_and_a_living_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("intake.sock");
        let listener = listen(&path, 0o660).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(listen(&path, 0o660), Err(SocketError::Taken(_))));
        drop(listener);
        assert!(listen(&path, 0o600).is_ok());

        let file = folder.path().join("file");
        std::fs::write(&file, "text").unwrap();
        assert!(matches!(listen(&file, 0o600), Err(SocketError::NoSocket(_))));
        assert!(matches!(listen(&folder.path().join("no/such"), 0o600), Err(SocketError::Listen { .. })));
    }
}
