//! `countersign secret init | set | list | rm`: what lies in the vault is entered here, and never shown again.

use std::io::Write;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::config::Config;
use crate::secret::one_time::OneTimePasswords;
use crate::secret::typed::Typed;
use crate::secret::vault::file::{self, Held};
use crate::secret::vault::key::{Costs, Key};
use crate::secret::vault::{Name, Vault};
use crate::secret::{BYTES_MAX, KeyReference, VaultPlace, forbid_core_dumps};

/// Argon2id makes a guess slow, not a short passphrase long.
const PASSPHRASE_CHARACTERS_MIN: usize = 12;

#[derive(Debug, Args)]
pub struct SecretArgs {
    /// The vault's key, where it is not the configured one: a file that only its owner can read
    #[arg(long, global = true)]
    key_file: Option<PathBuf>,
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Make the empty vault, and the file of its key where that is not there yet
    Init,
    /// Put a secret in, or another in its place; it is asked for, or read from stdin
    Set { name: String },
    /// Make the secret of the one-time passwords, and show it once as a QR code for an authenticator
    Totp { name: String },
    /// The names of the secrets
    List,
    /// Take a secret out
    Rm { name: String },
}

pub fn run(args: SecretArgs, json: bool, config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    forbid_core_dumps()?;
    let Some(configured) = &config.vault else {
        return Err(anyhow!(
            "no vault is configured\nhint: add [vault] with file = \"countersign.vault\" to the configuration"
        ));
    };
    let key = match args.key_file {
        Some(path) => Some(KeyReference::file(std::path::absolute(path)?)),
        None => configured.key.clone(),
    };
    let place = VaultPlace { file: configured.file.clone(), key };
    let desk = Desk { place: &place, config, json, out };
    match args.command {
        SecretCommand::Init => desk.init(),
        SecretCommand::Set { name } => desk.set(parsed(&name)?),
        SecretCommand::Totp { name } => desk.totp(parsed(&name)?),
        SecretCommand::List => desk.list(),
        SecretCommand::Rm { name } => desk.remove(parsed(&name)?),
    }
}

/// What was typed in a name's place is not shown again: it may be the secret.
fn parsed(name: &str) -> anyhow::Result<Name> {
    name.parse().map_err(anyhow::Error::msg)
}

struct Desk<'a, W> {
    place: &'a VaultPlace,
    config: &'a Config,
    json: bool,
    out: &'a mut W,
}

impl<W: Write> Desk<'_, W> {
    fn init(self) -> anyhow::Result<()> {
        let held = Held::hold(&self.place.file)?;
        held.must_be_new()?;
        let made = self.make_key_file()?;
        let key = match &self.place.key {
            Some(reference) => reference.load(&self.config.folder)?,
            None => new_passphrase(&Typed::stdin()?)?,
        };
        let vault = Vault::new(&key, Costs::USUAL).map_err(|flaw| self.place.flawed(flaw))?;
        held.replace(&vault.to_bytes())?;
        if self.json {
            writeln!(self.out, "{}", json!({ "vault": held.path(), "key_made": made }))?;
            return Ok(());
        }
        writeln!(self.out, "The vault {} is made, and empty.", held.path().display())?;
        match made {
            Some(path) => writeln!(
                self.out,
                "Its key was made too: {}. Without it the vault cannot be opened: keep a copy, but not beside the vault's.",
                path.display()
            )?,
            None => writeln!(self.out, "Without its key or passphrase it cannot be opened.")?,
        }
        Ok(())
    }

    /// The key's file, if there was none.
    fn make_key_file(&self) -> anyhow::Result<Option<PathBuf>> {
        let path = self.place.key.as_ref().and_then(|key| key.path(&self.config.folder));
        let Some(path) = path.filter(|path| std::fs::symlink_metadata(path).is_err()) else { return Ok(None) };
        let text = Key::make_text().map_err(|flaw| self.place.flawed(flaw))?;
        file::write_key(&path, &text)?;
        Ok(Some(path))
    }

    fn set(self, name: Name) -> anyhow::Result<()> {
        let held = Held::hold(&self.place.file)?;
        let typed = Typed::stdin()?;
        let mut vault = self.opened(&typed)?;
        let secret = typed.secret("secret", BYTES_MAX)?;
        let replaced = vault.set(name.clone(), &secret).map_err(|flaw| self.place.flawed(flaw))?;
        held.replace(&vault.to_bytes())?;
        if self.json {
            writeln!(self.out, "{}", json!({ "name": name.as_str(), "replaced": replaced }))?;
        } else {
            let done = if replaced { "was replaced" } else { "is in the vault" };
            writeln!(self.out, "{name} {done}; the configuration calls it \"vault:{name}\"")?;
        }
        Ok(())
    }

    fn totp(self, name: Name) -> anyhow::Result<()> {
        let held = Held::hold(&self.place.file)?;
        let mut vault = self.opened(&Typed::stdin()?)?;
        if vault.names().any(|known| *known == name) {
            return Err(anyhow!(
                "{name} is in the vault already\nhint: whoever enrolled with it loses it: rm it first"
            ));
        }
        let secret = OneTimePasswords::generate()?;
        let code = OneTimePasswords::new(&secret, &self.config.declared.account)?.qr_code()?;
        vault.set(name.clone(), secret.expose_secret()).map_err(|flaw| self.place.flawed(flaw))?;
        held.replace(&vault.to_bytes())?;
        // Not data: it is to be seen once, by a person.
        eprintln!(
            "{code}\nScan it, or type {} into an authenticator, now: it is not shown again. totp = \"vault:{name}\" \
             under [operators], or in an [[operators.person]], uses it.",
            secret.expose_secret()
        );
        if self.json {
            writeln!(self.out, "{}", json!({ "name": name.as_str(), "replaced": false }))?;
        }
        Ok(())
    }

    fn list(self) -> anyhow::Result<()> {
        let vault = self.opened(&Typed::stdin()?)?;
        if self.json {
            let names: Vec<&str> = vault.names().map(Name::as_str).collect();
            writeln!(self.out, "{}", json!({ "vault": self.place.file, "names": names }))?;
            return Ok(());
        }
        for name in vault.names() {
            writeln!(self.out, "{name}")?;
        }
        Ok(())
    }

    fn remove(self, name: Name) -> anyhow::Result<()> {
        let held = Held::hold(&self.place.file)?;
        let mut vault = self.opened(&Typed::stdin()?)?;
        if !vault.remove(&name) {
            return Err(anyhow!("there is no {name} in the vault\nhint: countersign secret list names what is"));
        }
        held.replace(&vault.to_bytes())?;
        if self.json {
            writeln!(self.out, "{}", json!({ "name": name.as_str(), "removed": true }))?;
        } else {
            writeln!(self.out, "{name} is no longer in the vault")?;
        }
        Ok(())
    }

    fn opened(&self, typed: &Typed) -> anyhow::Result<Vault> {
        Ok(self.place.open(&self.config.folder, file::read(&self.place.file)?, typed)?)
    }
}

fn new_passphrase(typed: &Typed) -> anyhow::Result<Key> {
    let passphrase = typed.line("passphrase for the new vault")?;
    if passphrase.chars().count() < PASSPHRASE_CHARACTERS_MIN {
        return Err(anyhow!(
            "a passphrase has {PASSPHRASE_CHARACTERS_MIN} characters at least\nhint: some words that nobody else would put together"
        ));
    }
    // Nobody sees what he typed; what a program gives is as it gives it.
    if typed.is_terminal() && *typed.line("the same passphrase again")? != *passphrase {
        return Err(anyhow!("the two passphrases are not the same\nhint: start again; nothing was made"));
    }
    Ok(Key::Passphrase(passphrase.as_str().into()))
}
