//! `countersign rules check`: whether the rules would load, and which they are.

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use crate::config;
use crate::words;

#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Load the rules of a folder, or the built-in ones, and run every rule's own cases
    Check { folder: Option<PathBuf> },
}

pub fn run(command: &RulesCommand, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let RulesCommand::Check { folder } = command;
    let rules = config::rules(folder.as_deref()).map_err(anyhow::Error::msg)?;
    if json {
        let rows: Vec<_> = rules
            .rules()
            .iter()
            .map(|rule| json!({ "name": rule.name, "priority": rule.priority, "response": rule.response, "cause": rule.cause, "exceptions": rule.exceptions }))
            .collect();
        writeln!(out, "{}", json!({ "rules": rows }))?;
        return Ok(());
    }
    for rule in rules.rules() {
        writeln!(out, "{:<28} {:<8} {}", rule.name, words::priority(rule.priority), rule.headline)?;
        for exception in &rule.exceptions {
            writeln!(out, "  except {}, for {}, until {}", exception.name, exception.owner, exception.expires)?;
        }
    }
    writeln!(out, "{} rules, each held to its own cases", rules.rules().len())?;
    Ok(())
}
