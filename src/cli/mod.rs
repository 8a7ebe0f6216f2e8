//! The commands, one file each: what was typed is read, the daemon or a file asked, and the answer printed. Data goes
//! to stdout, everything else to stderr.

pub mod demo;
pub mod run;
pub mod decode;
pub mod ask;
pub mod stop;
pub mod flatten;
pub mod manual;
pub mod trust;
pub mod drill;
pub mod access;
pub mod rules;
pub mod journal;
pub mod secret;
pub mod simulate;

/// What was typed can mean nothing: its exit status is that of arguments that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUsage(pub String);
