//! Files that only their owner may read. What is read from one is wiped when it is let go.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Says what is wrong with a file; whoever names the file says it before.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("cannot be read: {0}\nhint: the configuration names it; make the file, or name another")]
    Unreadable(io::Error),
    #[error("may be read by others than its owner\nhint: chmod 600 {path}", path = .0.display())]
    Open(PathBuf),
    #[error("belongs to another user\nhint: it must be owned by the user that runs countersign, or root")]
    Owner,
    #[error("is longer than {0} bytes")]
    TooLong(u64),
}

/// What the rights of others may be.
#[derive(Clone, Copy, Debug)]
pub enum Others {
    None,
    /// systemd gives a credential to the unit's user by an access list, whose mask stands where the group's rights do.
    ReadByList,
}

pub fn read(path: &Path, others: Others, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let file = File::open(path).map_err(Fault::Unreadable)?;
    let metadata = file.metadata().map_err(Fault::Unreadable)?;
    let by_list = metadata.uid() == 0 && matches!(others, Others::ReadByList);
    if metadata.mode() & (if by_list { 0o037 } else { 0o077 }) != 0 {
        return Err(Fault::Open(path.to_owned()));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() && metadata.uid() != 0 {
        return Err(Fault::Owner);
    }
    read_at_most(file, metadata.len(), bytes_max).map_err(Fault::Unreadable)?.ok_or(Fault::TooLong(bytes_max))
}

/// `None` where more than `bytes_max` come. The buffer never grows, which would leave a copy behind.
pub fn read_at_most(source: impl Read, expected: u64, bytes_max: u64) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let room = expected.min(bytes_max) + 1;
    // With less room to spare the standard library would try its luck with a copy on the stack first.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room + 64).map_err(io::Error::other)?));
    source.take(room).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()).map_err(io::Error::other)? {
        length if length > bytes_max => Ok(None),
        length if length == room => Err(io::Error::other("it grows while it is read")),
        _ => Ok(Some(bytes)),
    }
}
