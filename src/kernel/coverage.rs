//! What the account's stream lets us see now. *Live* and *proved* are different words: live is a connection that
//! answers and is subscribed, proved is live plus a comparison by REST since.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::event::Connection;
use crate::kernel::order::words;
use crate::kernel::time::Time;

words!(Sight { Blind = "blind", Live = "live", Proved = "proved" });

/// Gaps remembered. What is found later to stem from an older one is told as a difference of its own.
const GAPS_MAX: usize = 64;
/// A connection that has broken is noticed within this.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);
/// Frames differ by as much on their way anyway.
const LATE_LEAST: Duration = Duration::from_millis(500);
/// What a late report says of the stream counts for so long: a connection that is new is punctual before it is known that
/// the old one broke.
const LATE_FOR: Duration = Duration::from_secs(60);
/// Connections remembered. They live for a day, or for as short as a backoff: far longer than a break goes unnoticed.
const HEARD_MAX: usize = 64;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Coverage {
    /// The subscribed connections, and since when.
    #[serde(with = "crate::kernel::pairs")]
    live: BTreeMap<Connection, Time>,
    /// The highest connection number that was ever live: a restart counts on from there.
    pub last_connection: Option<Connection>,
    pub blind_since: Option<Time>,
    /// When anything was seen for the first time: what the venue created before stood before us.
    pub first_live: Option<Time>,
    /// When the current unbroken sight began.
    pub live_since: Option<Time>,
    pub proved_at: Option<Time>,
    /// From when to when each connection of the last while was heard; the newest began last. A broken connection is
    /// noticed late, and until then counts as live: only this tells what it really covered.
    #[serde(default, with = "crate::kernel::pairs", skip_serializing_if = "BTreeMap::is_empty")]
    heard: BTreeMap<Connection, (Time, Option<Time>)>,
    /// The last stretches in which no connection was subscribed, newest last.
    recent_gaps: VecDeque<(Time, Time)>,
    /// By the beginning of a gap: since when something may have been on its way that was lost with it.
    #[serde(default, with = "crate::kernel::pairs", skip_serializing_if = "BTreeMap::is_empty")]
    lost_since: BTreeMap<Time, Time>,
    pub gaps: u64,
    /// When each connection of the last while has last shown something.
    #[serde(default, with = "crate::kernel::pairs", skip_serializing_if = "BTreeMap::is_empty")]
    shown: BTreeMap<Connection, Time>,
    /// What was made just before a connection broke was on its way, by as much as reports were late then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lateness: Option<Lateness>,
}

/// How long after their events reports come, by two clocks: only how it changes says something, so the least is taken off.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Lateness {
    least_micros: i64,
    /// The least is from before a restart, where our clock may have been set: until then it is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    least_until: Option<Time>,
    /// The most of the last while, and when that was.
    most_micros: i64,
    most_at: Time,
}

/// What the loss of a connection shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    pub was_last: bool,
    /// Stretches of the past that nothing covered, as is only known now.
    pub gaps: Vec<(Time, Time)>,
}

impl Coverage {
    pub fn sight(&self) -> Sight {
        match (self.live_since, self.proved_at) {
            (None, _) => Sight::Blind,
            (Some(live), Some(proved)) if proved >= live => Sight::Proved,
            (Some(_), _) => Sight::Live,
        }
    }

    pub fn last_gap(&self) -> Option<(Time, Time)> {
        self.recent_gaps.back().copied()
    }

    pub fn connections(&self) -> usize {
        self.live.len()
    }

    /// The other connections that were live before `since`.
    pub fn others_than(&self, connection: Connection, since: Time) -> impl Iterator<Item = Connection> {
        self.live.iter().filter(move |(other, live)| **other != connection && **live <= since).map(|(other, _)| *other)
    }

    pub fn is_live(&self, connection: Connection) -> bool {
        self.live.contains_key(&connection)
    }

    /// A connection is subscribed. Returns the gap that this ends.
    pub fn gain(&mut self, now: Time, connection: Connection) -> Option<(Time, Time)> {
        self.live.insert(connection, now);
        self.last_connection = self.last_connection.max(Some(connection));
        self.live_since.get_or_insert(now);
        self.first_live.get_or_insert(now);
        if self.heard.len() == HEARD_MAX {
            // The oldest that is not live: a live one still covers.
            let oldest = self.heard.keys().find(|known| !self.live.contains_key(known)).copied();
            if let Some(oldest) = oldest {
                self.heard.remove(&oldest);
                self.shown.remove(&oldest);
            }
        }
        self.heard.insert(connection, (now, None));
        let gap = self.blind_since.take().map(|since| (since, now));
        gap.into_iter().for_each(|gap| self.note_gap(gap));
        gap
    }

    fn note_gap(&mut self, (from, to): (Time, Time)) {
        if self.recent_gaps.len() == GAPS_MAX
            && let Some((oldest, _)) = self.recent_gaps.pop_front()
        {
            self.lost_since.remove(&oldest);
        }
        self.lost_since.insert(from, self.lost_from(from));
        self.recent_gaps.push_back((from, to));
        self.gaps += 1;
    }

    /// A connection is gone, and was last heard at `heard_until`. What no other one covered since then was not seen.
    pub fn lose(&mut self, now: Time, connection: Connection, heard_until: Option<Time>) -> Loss {
        if self.live.remove(&connection).is_none() {
            return Loss::default();
        }
        let heard_until = heard_until.map_or(now, |at| at.min(now));
        if let Some((from, until)) = self.heard.get_mut(&connection) {
            *until = Some(heard_until.max(*from));
        }
        let mut loss = Loss { was_last: self.live.is_empty(), gaps: Vec::new() };
        let mut covered = heard_until;
        while covered < now {
            let reaches = |(from, until): &(Time, Option<Time>)| (*from <= covered).then(|| until.unwrap_or(now));
            let reach = self.heard.values().filter_map(reaches).max().unwrap_or(covered);
            if reach > covered {
                covered = reach;
                continue;
            }
            let next = self.heard.values().map(|(from, _)| *from).filter(|from| *from > covered).min();
            let Some(next) = next else { break };
            loss.gaps.push((covered, next));
            covered = next;
        }
        // What was told already is no second gap.
        loss.gaps.retain(|(from, to)| !self.recent_gaps.iter().any(|(known, end)| known <= from && to <= end));
        loss.gaps.iter().for_each(|gap| self.note_gap(*gap));
        if loss.was_last {
            self.blind_since = Some(covered.min(now));
            self.live_since = None;
        } else if let Some((_, to)) = loss.gaps.last() {
            self.live_since = Some(*to);
        }
        loss
    }

    /// The stream has shown something on this connection.
    pub fn note_shown(&mut self, now: Time, connection: Connection) {
        if self.live.contains_key(&connection) {
            self.shown.insert(connection, now);
        }
    }

    /// A report of `event_at` has come, on the first of the connections that brought it.
    pub fn note_lateness(&mut self, now: Time, event_at: Time) {
        let late = now.micros().saturating_sub(event_at.micros());
        self.lateness.take_if(|known| known.least_until.is_some_and(|until| until < now));
        let least_micros = self.lateness.map_or(late, |known| known.least_micros.min(late));
        let least_until = self.lateness.and_then(|known| known.least_until);
        let most = self.lateness.filter(|known| known.most_micros > late && now.since(known.most_at) <= LATE_FOR);
        let (most_micros, most_at) = most.map_or((late, now), |known| (known.most_micros, known.most_at));
        self.lateness = Some(Lateness { least_micros, least_until, most_micros, most_at });
    }

    /// By how much the stream was late around that time, as far as reports tell.
    pub fn behind(&self, at: Time) -> Duration {
        let known = self.lateness.filter(|known| at.since(known.most_at) <= LATE_FOR);
        let late = known.map_or(0, |known| known.most_micros.saturating_sub(known.least_micros));
        let late = Duration::from_micros(u64::try_from(late).unwrap_or(0)).min(NOTICED_WITHIN);
        if late < LATE_LEAST { Duration::ZERO } else { late }
    }

    /// Since when something may have been on its way that was lost with the sight at `from`: a report comes after all that
    /// were made before it, and a connection that only answers says nothing of reports.
    fn lost_from(&self, from: Time) -> Time {
        if let Some(since) = self.lost_since.get(&from) {
            return *since;
        }
        let before = self.heard.iter().filter(|(_, (since, _))| *since <= from);
        let shown = before.map(|(connection, (since, _))| self.shown.get(connection).copied().unwrap_or(*since));
        let shown = shown.filter(|at| *at <= from).max().unwrap_or(from);
        shown.max(from - NOTICED_WITHIN) - self.behind(from)
    }

    /// The process starts again: whatever was connected is not. It was recording until then, but a connection may have been
    /// broken without its knowledge, one of them perhaps long before the other: each is believed until it last showed
    /// something, or until a break would have been noticed. Returns the stretches before the end that nothing covered.
    pub fn restart(&mut self, last_recorded: Time) -> Vec<(Time, Time)> {
        let noticed = last_recorded - NOTICED_WITHIN;
        let mut gaps = Vec::new();
        for (connection, since) in self.live.clone() {
            let shown = self.shown.get(&connection).copied().unwrap_or(since);
            gaps.extend(self.lose(last_recorded, connection, Some(shown.max(noticed))).gaps);
        }
        // What was on its way then came to nobody.
        if let Some(from) = self.blind_since {
            self.lost_since.insert(from, self.lost_from(from));
        }
        self.heard.clear();
        self.shown.clear();
        if let Some(known) = &mut self.lateness {
            known.most_micros = known.least_micros;
            known.least_until = known.least_until.or(Some(last_recorded + LATE_FOR));
        }
        gaps
    }

    /// Whether an order of this creation time may have been missed because nothing was, or is, subscribed. A venue's
    /// clock is not ours: the bounds are widened by a second.
    pub fn in_gap(&self, created_at: Time) -> bool {
        const CLOCKS: Duration = Duration::from_secs(1);
        self.blind_since.is_some_and(|from| created_at >= self.lost_from(from) - CLOCKS)
            || self
                .recent_gaps
                .iter()
                .any(|(from, to)| created_at >= self.lost_from(*from) - CLOCKS && created_at <= *to + CLOCKS)
    }
}
