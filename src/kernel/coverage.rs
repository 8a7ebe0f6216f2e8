//! What the account's stream lets us see now. *Live* and *proved* are different words: live is a connection that
//! answers and is subscribed, proved is live plus a comparison by REST since.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::kernel::event::Connection;
use crate::kernel::order::words;
use crate::kernel::time::Time;

words!(Sight { Blind = "blind", Live = "live", Proved = "proved" });

/// Gaps remembered. What is found later to stem from an older one is told as a difference of its own.
const GAPS_MAX: usize = 64;

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
    /// The last stretches in which no connection was subscribed, newest last.
    recent_gaps: VecDeque<(Time, Time)>,
    pub gaps: u64,
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
        let gap = self.blind_since.take().map(|since| (since, now));
        if let Some(gap) = gap {
            if self.recent_gaps.len() == GAPS_MAX {
                self.recent_gaps.pop_front();
            }
            self.recent_gaps.push_back(gap);
            self.gaps += 1;
        }
        gap
    }

    /// A connection is gone. Returns `true` if it was the last one.
    pub fn lose(&mut self, now: Time, connection: Connection) -> bool {
        let was_last = self.live.remove(&connection).is_some() && self.live.is_empty();
        if was_last {
            self.blind_since = Some(now);
            self.live_since = None;
        }
        was_last
    }

    /// The process starts again: whatever was connected is not. Blind since the last thing that it recorded.
    pub fn restart(&mut self, last_recorded: Time) {
        self.live.clear();
        if self.live_since.take().is_some() {
            self.blind_since = Some(last_recorded);
        }
    }

    /// Whether an order of this creation time may have been missed because nothing was, or is, subscribed. A venue's
    /// clock is not ours: the bounds are widened by a second.
    pub fn in_gap(&self, created_at: Time) -> bool {
        const CLOCKS: std::time::Duration = std::time::Duration::from_secs(1);
        self.blind_since.is_some_and(|from| created_at >= from - CLOCKS)
            || self.recent_gaps.iter().any(|(from, to)| created_at >= *from - CLOCKS && created_at <= *to + CLOCKS)
    }
}
