//! `countersign journal verify` and `countersign replay`: the journal read again, from the first row to the last.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::config;
use crate::journal::reader::{self, Replay};
use crate::journal::sqlite::{JournalError, open_to_read};

#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Check every row's hash, from the first to the last
    Verify {
        /// The journal's file; without it, the configured one
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// A journal's file
    pub file: PathBuf,
    /// Judge by the rules of this folder instead of the recorded ones
    #[arg(long)]
    pub rules: Option<PathBuf>,
}

pub fn verify(file: &Path, json: bool, out: &mut impl Write) -> anyhow::Result<u8> {
    let heads = match reader::verify(file) {
        Ok(heads) => heads,
        Err(error @ (JournalError::Broken { .. } | JournalError::Read(_))) if json => {
            writeln!(out, "{}", json!({ "ok": false, "error": error.to_string() }))?;
            return Ok(1);
        }
        // It names the file itself.
        Err(error @ JournalError::Open { .. }) => return Err(error.into()),
        Err(error) => return Err(anyhow::Error::new(error).context(file.display().to_string())),
    };
    if json {
        let chains: Vec<_> =
            heads.hashes.iter().map(|(chain, hash)| json!({ "chain": chain, "head": hex(hash) })).collect();
        writeln!(out, "{}", json!({ "ok": true, "rows": heads.rows, "last_seq": heads.last_seq, "chains": chains }))?;
    } else {
        writeln!(out, "{} rows, every hash follows from the row before", heads.rows)?;
        for (chain, hash) in &heads.hashes {
            writeln!(out, "{chain:<20} {}", hex(hash))?;
        }
    }
    Ok(0)
}

/// Runs the journal's events through the kernels again and compares every effect with the recorded one.
pub fn replay(args: &ReplayArgs, json: bool, out: &mut impl Write) -> anyhow::Result<u8> {
    let other_rules = args.rules.as_deref().map(|folder| config::rules(Some(folder))).transpose();
    let mut replay = Replay { other_rules: other_rules.map_err(anyhow::Error::msg)?, ..Replay::default() };
    reader::walk(&open_to_read(&args.file)?, 1, |record| replay.take(record))?;
    if json {
        let rows: Vec<_> = replay
            .differences
            .iter()
            .map(|(seq, recorded, replayed)| json!({ "seq": seq, "recorded": recorded, "replayed": replayed }))
            .collect();
        let answer = json!({ "events": replay.events, "differing": replay.differing, "differences": rows });
        writeln!(out, "{answer}")?;
    } else {
        writeln!(out, "{} events replayed, {} with other effects than recorded", replay.events, replay.differing)?;
        for (seq, recorded, replayed) in &replay.differences {
            writeln!(out, "row {seq}\n  recorded {recorded}\n  replayed {replayed}")?;
        }
    }
    Ok(u8::from(replay.differing > 0))
}

fn hex(hash: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(hash)
}
