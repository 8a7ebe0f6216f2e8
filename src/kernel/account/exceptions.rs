//! The life of exceptions: told when they are new, ended when they are over, and shown with what they were used for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kernel::account::{Kernel, Timer};
use crate::kernel::exception::{Exception, Expiry, LocalException, pack_key};
use crate::kernel::incident::Priority;
use crate::kernel::money::Dec;
use crate::kernel::order::Asset;
use crate::kernel::rule::Cause;

const HEADLINE: &str = "An exception in the configuration lets countersign say less";
const ADVICE: &[&str] = &[
    "If you did not write it: take it out of countersign.toml and start countersign again. Whoever wrote it can reach its host.",
];

/// An exception in the coverage statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionStatus {
    /// Of a pack's, with its rule's name before it.
    pub name: Box<str>,
    pub rule: Box<str>,
    /// The owner's own, which can quiet the floor; a pack's cannot.
    pub local: bool,
    pub owner: Box<str>,
    pub reason: Box<str>,
    pub expires: Expiry,
    pub expired: bool,
    pub findings: u64,
    pub notional: BTreeMap<Asset, UsedOf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedOf {
    pub used: Dec,
    pub bound: Dec,
}

impl Kernel {
    /// What is new or changed since the last start is told once: it widens what is trusted.
    pub(super) fn start_exceptions(&mut self, before: &[LocalException]) {
        let now = self.now();
        let (declared, rules) = (&self.declared, &self.rules);
        self.state.uses.keep(|key| match key.split_once('/') {
            None => declared.exceptions.iter().any(|local| *local.exception.name == *key),
            Some((rule, name)) => rules.exceptions_of(rule).iter().any(|exception| *exception.name == *name),
        });
        let after = self.declared.exceptions.clone();
        let gone = |old: &&LocalException| after.iter().all(|new| new.exception.name != old.exception.name);
        for LocalException { exception, .. } in before.iter().filter(gone) {
            self.state.book.end(now, Cause::Exception, &exception.name, "taken out of the configuration".to_owned());
        }
        self.state.timers.retain(|(_, timer)| !matches!(timer, Timer::Expiry(_)));
        for local in &after {
            let exception = &local.exception;
            if !exception.is_over(now) {
                self.state.timers.insert((exception.expires.0, Timer::Expiry(exception.name.clone())));
                if !before.contains(local) {
                    self.tell_exception(local);
                }
            }
            self.check_expiry(&exception.name);
        }
    }

    fn tell_exception(&mut self, local: &LocalException) {
        let Exception { name, owner, reason, expires, notional, .. } = &local.exception;
        let bound: Vec<String> = notional.iter().map(|(asset, bound)| format!("{bound} {asset}")).collect();
        let line = format!(
            "{name}: quiets {} up to {} in all until {expires}, for {owner}: {reason}",
            local.rule,
            bound.join(" and ")
        );
        self.built_in("exception", Cause::Exception, name, Priority::Info, HEADLINE, line, ADVICE);
    }

    pub(super) fn check_expiry(&mut self, name: &str) {
        let now = self.now();
        let found = self.declared.exceptions.iter().find(|local| *local.exception.name == *name);
        if let Some(local) = found.filter(|local| local.exception.is_over(now)) {
            let line = format!("expired at {}: what it quieted is told again", local.exception.expires);
            self.state.book.end(now, Cause::Exception, name, line);
        }
    }

    pub(super) fn exception_statuses(&self) -> Vec<ExceptionStatus> {
        let local = self.declared.exceptions.iter().map(|local| {
            let key = local.exception.name.to_string();
            self.exception_status(key, &local.rule, true, &local.exception)
        });
        let packs = self.rules.rules().iter().flat_map(|rule| {
            let status = |exception: &Exception| {
                self.exception_status(pack_key(&rule.name, &exception.name), &rule.name, false, exception)
            };
            rule.exceptions.iter().map(status).collect::<Vec<_>>()
        });
        local.chain(packs).collect()
    }

    fn exception_status(&self, key: String, rule: &str, local: bool, exception: &Exception) -> ExceptionStatus {
        let uses = self.state.uses.of(&key);
        let used = |asset: &Asset| uses.notional.get(asset).copied().unwrap_or(Dec::ZERO);
        ExceptionStatus {
            name: key.into(),
            rule: rule.into(),
            local,
            owner: exception.owner.clone(),
            reason: exception.reason.clone(),
            expires: exception.expires,
            expired: exception.is_over(self.now()),
            findings: uses.findings,
            notional: exception
                .notional
                .iter()
                .map(|(asset, bound)| (asset.clone(), UsedOf { used: used(asset), bound: *bound }))
                .collect(),
        }
    }
}
