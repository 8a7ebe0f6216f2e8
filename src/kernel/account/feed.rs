//! The stream itself: two copies of each frame, connections that come and go, what cannot be read, and blindness.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::kernel::account::{Kernel, Timer};
use crate::kernel::event::{Connection, FeedChange, Tags};
use crate::kernel::incident::Priority;
use crate::kernel::pairs;
use crate::kernel::report::Report;
use crate::kernel::rule::Cause;
use crate::kernel::time::Time;

/// Frames remembered. A copy that comes later than this many others is read again, which changes nothing.
const SEEN_MAX: usize = 20_000;
/// The second copy comes within this, or is missing.
const ECHO_WITHIN: Duration = Duration::from_secs(10);
/// A connection this young may have missed what was sent before it was subscribed.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// A connection that joins another one is compared once it has settled; one that flaps must not use up the budget.
const COMPARED_WITHIN: Duration = Duration::from_secs(10);
pub(super) const STILL_BLIND_AFTER: Duration = Duration::from_secs(60);

const BLIND_ADVICE: &[&str] = &[
    "Until sight comes back, look at the account's open orders and trades yourself.",
    "Look at the network of countersign's host, and whether the watch key still works.",
];
const BAD_SIGNATURE: i64 = -1022;
const SECRET_ADVICE: &[&str] =
    &["The secret does not belong to the key: look at api_key and api_secret under [account]."];
const KEY_ADVICE: &[&str] = &[
    "If you did not change or delete the watch key: somebody with your web login may have. Log in and look now.",
    "Trading keys without an IP list expire by themselves: make a new reading key with an IP list.",
];

/// The frames of the last while, and the copies still expected.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    copies: BTreeMap<Box<str>, Copies>,
    order: VecDeque<Box<str>>,
    expected: VecDeque<(Time, Box<str>, Connection)>,
    #[serde(with = "pairs")]
    pub(super) missed: BTreeMap<Connection, u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Copies {
    content: u64,
    on: Vec<Connection>,
}

enum Copy {
    First,
    Echo,
    /// The same event, told differently.
    Conflict,
}

impl Seen {
    fn take(&mut self, report: &Report, connection: Connection) -> (Box<str>, Copy) {
        let content = content(report);
        let key = identity(report, content);
        if let Some(copies) = self.copies.get_mut(&key) {
            copies.note(connection);
            let copy = if copies.content == content { Copy::Echo } else { Copy::Conflict };
            return (key, copy);
        }
        if self.order.len() == SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.copies.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.copies.insert(key.clone(), Copies { content, on: vec![connection] });
        (key, Copy::First)
    }
}

impl Copies {
    fn note(&mut self, connection: Connection) {
        if !self.on.contains(&connection) {
            self.on.push(connection);
        }
    }
}

/// What makes two frames tell of the same event.
fn identity(report: &Report, content: u64) -> Box<str> {
    match report {
        Report::Execution(report) => {
            let id = report.execution_id.map_or_else(
                || format!("{:?}/{}/{}", report.trade_id, report.cumulative_quantity, report.event_at.micros()),
                |id| id.to_string(),
            );
            format!("{}/{}/{}/{id}", report.symbol, report.order_id, report.execution_type)
        }
        Report::List(list) => {
            format!("{}/list/{}/{}/{}", list.symbol, list.list_id, list.status, list.event_at.micros())
        }
        Report::Position(position) => format!("position/{}/{content:x}", position.event_at.micros()),
        Report::Balance(update) => format!("balance/{}/{}/{}", update.asset, update.event_at.micros(), update.delta),
        Report::ExternalLock(update) => format!("lock/{}/{}/{}", update.asset, update.event_at.micros(), update.delta),
    }
    .into()
}

/// When the venue made it.
fn event_at(report: &Report) -> Time {
    match report {
        Report::Execution(report) => report.event_at,
        Report::List(list) => list.event_at,
        Report::Position(position) => position.event_at,
        Report::Balance(update) => update.event_at,
        Report::ExternalLock(update) => update.event_at,
    }
}

/// Of every field. It stands in rows and snapshots, so it must not change with the compiler: a digest of the JSON.
fn content(report: &Report) -> u64 {
    // Serialising a report cannot fail: its maps have string keys and its numbers are finite.
    let bytes = serde_json::to_vec(report).unwrap_or_default();
    Sha256::digest(&bytes).iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl Kernel {
    /// What a report tells of, if a copy of it that tells the same has come before on another connection.
    pub fn echo_of(&self, report: &Report, connection: Connection) -> Option<Box<str>> {
        let content = content(report);
        let key = identity(report, content);
        let copies = self.state.seen.copies.get(&key)?;
        (copies.content == content && !copies.on.contains(&connection)).then_some(key)
    }

    pub(super) fn echo(&mut self, connection: Connection, of: &str) {
        self.state.counts.echoes += 1;
        self.state.coverage.note_shown(self.now(), connection);
        if let Some(copies) = self.state.seen.copies.get_mut(of) {
            copies.note(connection);
        }
    }

    pub(super) fn report(&mut self, connection: Connection, report: Report, tags: Tags, raw: &str) {
        let (key, copy) = self.state.seen.take(&report, connection);
        self.state.coverage.note_shown(self.now(), connection);
        match copy {
            Copy::Echo => {
                self.state.counts.echoes += 1;
                return;
            }
            Copy::Conflict => {
                let raw: String = raw.chars().take(300).collect();
                let headline = "Two connections tell the same event differently";
                let line = format!("{key}: the copy on connection {} differs: {raw}", connection.0);
                self.unexplained("conflicting_copies", headline, line);
            }
            Copy::First => {
                let event_at = event_at(&report);
                self.state.coverage.note_lateness(self.now(), event_at);
                self.expect_copies(&key, connection, event_at);
            }
        }
        self.state.counts.reports += 1;
        match report {
            Report::Execution(report) => self.execution(&report, tags),
            Report::Position(position) => self.position(&position),
            // A list's legs are judged by their own reports; a change of balance is followed by its new level.
            Report::List(_) | Report::Balance(_) | Report::ExternalLock(_) => {}
        }
    }

    /// A frame may linger: what counts is whether the other connection was there when the event was made, by our clock or
    /// the venue's.
    fn expect_copies(&mut self, key: &str, connection: Connection, event_at: Time) {
        let due = self.now() + ECHO_WITHIN;
        let settled_before = self.now().min(event_at) - SETTLED_AFTER;
        let others: Vec<Connection> = self.state.coverage.others_than(connection, settled_before).collect();
        for other in others {
            if self.state.seen.expected.is_empty() {
                self.state.timers.insert((due, Timer::Echo));
            }
            if self.state.seen.expected.len() < SEEN_MAX {
                self.state.seen.expected.push_back((due, key.into(), other));
            }
        }
    }

    pub(super) fn check_echoes(&mut self) {
        let now = self.now();
        while let Some((due, ..)) = self.state.seen.expected.front() {
            if *due > now {
                self.state.timers.insert((*due, Timer::Echo));
                return;
            }
            let Some((_, key, connection)) = self.state.seen.expected.pop_front() else { return };
            let came = self.state.seen.copies.get(&key).is_none_or(|copies| copies.on.contains(&connection));
            if came || !self.state.coverage.is_live(connection) {
                continue;
            }
            let missed = self.state.seen.missed.entry(connection).or_insert(0);
            *missed += 1;
            if *missed == 1 {
                let line = format!("connection {} never brought {key}, which the other one did", connection.0);
                self.unexplained("copy_missing", "One of the two connections loses frames", line);
            }
        }
    }

    pub(super) fn kept(&mut self, connection: Connection, reason: &str) {
        self.state.counts.kept_raw += 1;
        let line = format!("connection {}: {reason}; the frame is kept whole in the journal", connection.0);
        self.unexplained("kept_frame", "A frame of the exchange could not be read", line);
    }

    pub(super) fn unexplained(&mut self, rule: &str, headline: &str, line: String) {
        self.built_in(rule, Cause::Unexplained, rule, Priority::Warning, headline, line, &[]);
    }

    pub(super) fn feed(&mut self, connection: Connection, change: FeedChange) {
        let now = self.now();
        match change {
            FeedChange::Live => {
                let was_blind = self.state.coverage.connections() == 0;
                let gap = self.state.coverage.gain(now, connection);
                let line = match gap {
                    Some((from, to)) => {
                        self.state.audit.after_gap();
                        format!("blind from {from} to {to} UTC, {} s; comparing by REST", seconds(from, to))
                    }
                    None => "the account can be seen".to_owned(),
                };
                self.state.book.end(now, Cause::Blind, "", line);
                self.state.book.end(now, Cause::KeyRefused, "", "the exchange accepts the watch key again".to_owned());
                if was_blind { self.start_audit() } else { self.audit_within(COMPARED_WITHIN) }
            }
            FeedChange::Retired => self.lost(connection, "replaced", None),
            FeedChange::Lost { reason, heard_until } => self.lost(connection, &reason, heard_until),
            FeedChange::KeyRefused { code, message } => {
                let headline = "The exchange refuses countersign's watch key";
                let line = format!("{code}: {message}");
                let advice = if code == BAD_SIGNATURE { SECRET_ADVICE } else { KEY_ADVICE };
                self.built_in("key_refused", Cause::KeyRefused, "", Priority::Critical, headline, line, advice);
            }
        }
    }

    fn lost(&mut self, connection: Connection, reason: &str, heard_until: Option<Time>) {
        let now = self.now();
        self.state.seen.missed.remove(&connection);
        let loss = self.state.coverage.lose(now, connection, heard_until);
        self.tell_gaps(&loss.gaps, reason);
        if loss.was_last {
            self.tell_blind(format!("no connection is subscribed any more: {reason}"));
        } else if !loss.gaps.is_empty() {
            self.start_audit();
        }
    }

    /// Stretches of the past that nothing covered, as is only known now.
    pub(super) fn tell_gaps(&mut self, gaps: &[(Time, Time)], reason: &str) {
        let now = self.now();
        for (from, to) in gaps {
            self.state.audit.after_gap();
            self.tell_blind(format!("nothing was heard on any connection for a while, as is only known now: {reason}"));
            let line = format!("blind from {from} to {to} UTC, {} s; comparing by REST", seconds(*from, *to));
            self.state.book.end(now, Cause::Blind, "", line);
        }
    }

    pub(super) fn tell_blind(&mut self, line: String) {
        let headline = "countersign cannot see the account now";
        self.built_in("blind", Cause::Blind, "", Priority::Warning, headline, line, BLIND_ADVICE);
        self.state.timers.retain(|(_, timer)| *timer != Timer::StillBlind);
        self.set_timer(STILL_BLIND_AFTER, Timer::StillBlind);
    }

    pub(super) fn check_still_blind(&mut self) {
        let line = match self.state.coverage.blind_since {
            _ if self.state.coverage.connections() > 0 => return,
            Some(since) if self.now().since(since) < STILL_BLIND_AFTER => return,
            Some(since) => format!("still blind, since {since} UTC"),
            None => "the account has not been seen since countersign was started".to_owned(),
        };
        let headline = "countersign has been blind for more than a minute";
        self.built_in("blind", Cause::Blind, "", Priority::Critical, headline, line, BLIND_ADVICE);
    }
}

fn seconds(from: Time, to: Time) -> Tenths {
    Tenths(to.since(from))
}

/// Seconds with one decimal, without a float.
struct Tenths(Duration);

impl std::fmt::Display for Tenths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0.as_secs(), self.0.subsec_millis() / 100)
    }
}
