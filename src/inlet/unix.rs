//! A unix socket with a mode of its own, at a path that nobody else is listening on, and the service of those who
//! connect to it.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::kernel::time::Time;

const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Whoever may knock may do so as often as he likes; the log takes one line for all of it.
const TURNED_AWAY_EVERY: Duration = Duration::from_secs(60);

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

/// Serves each connection until `shutdown`, and then those that are open to their end. `admit` is told the user and
/// how many are open, and limits them; the answer with which it turns one away is one line.
pub async fn serve_each<F: Future<Output = ()> + Send + 'static>(
    listener: UnixListener,
    name: &str,
    shutdown: &CancellationToken,
    admit: impl Fn(io::Result<u32>, usize) -> Result<u32, Value>,
    serve: impl Fn(UnixStream, u32) -> F,
) {
    let mut connections = JoinSet::new();
    let mut turned_away = TurnedAway::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection of {name} ended by a panic");
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => match admit(stream.peer_cred().map(|peer| peer.uid()), connections.len()) {
                Ok(uid) => {
                    connections.spawn(serve(stream, uid));
                }
                Err(answer) => {
                    // Into the empty buffer of a fresh connection; if even that does not fit, the end says enough.
                    let sent = stream.try_write(format!("{answer}\n").as_bytes());
                    if let Some(count) = turned_away.count(clock::wall()) {
                        tracing::warn!(sent = sent.is_ok(), %answer, count, "connections to {name} were turned away");
                    }
                }
            },
            Err(error) => {
                tracing::warn!(%error, "{name} cannot accept a connection, it goes on");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Those that were turned away and not logged yet.
#[derive(Default)]
struct TurnedAway {
    count: u64,
    logged_at: Option<Time>,
}

impl TurnedAway {
    /// `Some` with the count since the last line, if one is due.
    fn count(&mut self, now: Time) -> Option<u64> {
        self.count = self.count.saturating_add(1);
        if self.logged_at.is_some_and(|at| now.apart(at) < TURNED_AWAY_EVERY) {
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_turned_away_are_one_line_a_minute_with_their_count() {
        let mut turned_away = TurnedAway::default();
        let start = Time::EPOCH;
        assert_eq!(turned_away.count(start), Some(1));
        for _ in 0..1_000 {
            assert_eq!(turned_away.count(start + TURNED_AWAY_EVERY / 2), None);
        }
        assert_eq!(turned_away.count(start + TURNED_AWAY_EVERY), Some(1_001));
    }

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
