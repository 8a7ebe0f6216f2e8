//! The commands, one file each: what was typed is read, the daemon or a file asked, and the answer printed.

pub mod access;
