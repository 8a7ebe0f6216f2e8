//! The commands, one file each: what was typed is read, the daemon or a file asked, and the answer printed. Data goes
//! to stdout, everything else to stderr.

pub mod decode;
pub mod access;
