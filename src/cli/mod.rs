//! The commands: data to stdout, everything else to stderr.

pub mod decode;
