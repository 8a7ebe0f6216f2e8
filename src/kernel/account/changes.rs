//! What of the configuration decides who and what is trusted, compared from one start to the next: a change is told on
//! every channel, old and new, since whoever can write the file is not always who may.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use crate::kernel::account::Kernel;
use crate::kernel::declared::{Declared, Waits};
use crate::kernel::incident::Priority;
use crate::kernel::people::{People, Person};
use crate::kernel::rule::Cause;
use crate::kernel::stopping::{KeyRole, Means, Mode, Stopping};

const HEADLINE: &str = "The configuration trusts and does something else than before";
const ADVICE: &[&str] =
    &["If you did not change it: put it back, start countersign again, and find out who can write countersign.toml."];

impl Kernel {
    /// A first start has nothing before it.
    pub(super) fn tell_changes(&mut self, before: &Declared) {
        if before.bots.is_empty() {
            return;
        }
        for line in changes(before, &self.declared) {
            self.built_in("configuration", Cause::Watcher, "configuration", Priority::Warning, HEADLINE, line, ADVICE);
        }
        if before.people != self.declared.people {
            self.void_requests();
        }
    }
}

fn changes(before: &Declared, after: &Declared) -> Vec<String> {
    let stopping = |of: fn(Option<&Stopping>) -> String| (of(before.stopping.as_ref()), of(after.stopping.as_ref()));
    let people = |of: fn(&People) -> String| (of(&before.people), of(&after.people));
    let networks = |declared: &Declared| list(declared.familiar_networks.iter().map(ToString::to_string));
    let limits = |declared: &Declared| list(declared.bots.iter().map(|(bot, limits)| format!("{bot}: {limits:?}")));
    let mut lines = Vec::new();
    for (what, (old, new)) in [
        ("mode", stopping(mode)),
        ("means", stopping(means)),
        ("keys", stopping(keys)),
        ("ways to stop the bot", stopping(|s| list(s.iter().flat_map(|s| &s.hooks).map(ToString::to_string)))),
        ("freeze_unanswered_s", stopping(|s| told(s.and_then(|s| s.freeze_unanswered).map(|span| span.as_secs())))),
        ("quiet_s", stopping(|s| told(s.map(|s| s.quiet.as_secs())))),
        ("transfer_to_master", stopping(|s| s.is_some_and(|s| s.transfer_to_master).to_string())),
        ("two_people", people(|people| people.two_people.to_string())),
        ("persons", people(|people| list(people.persons.iter().map(person)))),
        ("familiar_networks", (networks(before), networks(after))),
        ("waits", (waits(before), waits(after))),
        ("tagged_only", (before.tagged_only.to_string(), after.tagged_only.to_string())),
    ] {
        if old != new {
            lines.push(format!("{what} was {old}, and is {new}"));
        }
    }
    // An older version wrote none: then there is nothing to compare with.
    if let (Some(old), Some(new)) = (&before.places, &after.places) {
        let of = |places: &Places, what: &str| places.get(what).map_or_else(|| "none".to_owned(), ToString::to_string);
        let whats: BTreeSet<&Box<str>> = old.keys().chain(new.keys()).collect();
        let changed = whats.into_iter().filter(|what| old.get(*what) != new.get(*what));
        lines.extend(changed.map(|what| format!("{what} was {}, and is {}", of(old, what), of(new, what))));
    }
    // Too long to be shown, and what they are now stands in the file.
    if limits(before) != limits(after) {
        lines.push("the bots or their limits are not what they were".to_owned());
    }
    lines
}

type Places = BTreeMap<Box<str>, Box<str>>;

fn waits(declared: &Declared) -> String {
    let Waits { pending_cap, unlogged_after, unseen_after, silent_after, audit_every } = &declared.waits;
    let spans = [
        ("pending_cap_s", pending_cap),
        ("unlogged_after_s", unlogged_after),
        ("unseen_after_s", unseen_after),
        ("silent_after_s", silent_after),
        ("audit_every_s", audit_every),
    ];
    list(spans.into_iter().map(|(name, span)| format!("{name} {}", span.as_secs())))
}

fn mode(stopping: Option<&Stopping>) -> String {
    let word = match stopping.map_or(Mode::Watch, |stopping| stopping.mode) {
        Mode::Watch => "watch",
        Mode::Ask => "ask",
        Mode::Act => "act",
    };
    word.to_owned()
}

fn means(stopping: Option<&Stopping>) -> String {
    let word = match stopping.map(|stopping| stopping.means) {
        Some(Means::SubAccount) => "the sub-account's master",
        Some(Means::ByHand) => "by hand",
        None => "none",
    };
    word.to_owned()
}

fn keys(stopping: Option<&Stopping>) -> String {
    let role = |role: KeyRole| match role {
        KeyRole::Bot => "bot",
        KeyRole::Watch => "watch",
        KeyRole::Cancel => "cancel",
        KeyRole::Drill => "drill",
    };
    let keys = stopping.iter().flat_map(|stopping| &stopping.keys);
    list(keys.map(|key| format!("{} ({}, {})", key.name, role(key.role), key.print)))
}

fn person(person: &Person) -> String {
    format!("{} (Telegram {}, user {})", person.name, told(person.telegram), told(person.uid))
}

fn told(value: Option<impl Debug>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| format!("{value:?}"))
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}
