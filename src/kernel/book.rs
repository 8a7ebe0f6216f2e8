//! The incident book: findings of one cause fold into one incident, which is told as a whole each time it changes.
//!
//! Invariants: an acknowledgement covers the revision it saw; more money or another symbol opens the incident again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::blotter::OrderKey;
use crate::kernel::incident::{IncidentId, IncidentState, Line, Notice, Priority};
use crate::kernel::money::Dec;
use crate::kernel::order::{Account, Asset};
use crate::kernel::pairs;
use crate::kernel::rule::{Cause, EventCount, Ruling};
use crate::kernel::time::Time;

/// Incidents kept. At the limit the oldest that has ended or was acknowledged goes, then the oldest.
const INCIDENTS_MAX: usize = 500;
/// Lines an incident shows. Older ones are counted, not shown; the journal has them.
const LINES_MAX: usize = 40;
/// Orders whose money an incident follows one by one. Later ones count with the money they showed first.
const ORDERS_FOLLOWED_MAX: usize = 2_000;
/// An incident that was quiet for this long is left alone; the next finding opens another.
const FOLD_WITHIN: Duration = Duration::from_secs(6 * 3_600);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Book {
    incidents: BTreeMap<IncidentId, Incident>,
    /// The incident that the next finding of a cause and scope folds into.
    #[serde(with = "pairs")]
    current: BTreeMap<(Cause, Box<str>), IncidentId>,
    counts: BTreeMap<Box<str>, VecDeque<Time>>,
    changed: BTreeSet<IncidentId>,
    last_id: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Incident {
    notice: Notice,
    #[serde(with = "pairs")]
    money: BTreeMap<OrderKey, (Asset, Dec)>,
    money_unfollowed: BTreeMap<Asset, Dec>,
}

/// One finding on its way into the book.
pub struct Entry<'a> {
    pub ruling: Ruling<'a>,
    /// Tells incidents of one cause apart (a bot's name, an address); empty where the account has one at a time.
    pub scope: &'a str,
    pub line: String,
    pub certainty: String,
    pub advice: &'a [&'a str],
    pub limits_of_sight: &'a [&'a str],
    /// The order that is not the bot's, and the money it moved or binds.
    pub order: Option<(OrderKey, Asset, Dec)>,
}

impl Book {
    pub fn record(&mut self, now: Time, seq: u64, account: &Account, entry: Entry<'_>) -> IncidentId {
        let id = self.place(now, seq, account, &entry);
        self.changed.insert(id);
        let Some(incident) = self.incidents.get_mut(&id) else { return id };
        let notice = &mut incident.notice;
        if entry.ruling.priority > notice.priority || notice.state == IncidentState::Ended {
            notice.rule = entry.ruling.rule.into();
            notice.headline = entry.ruling.headline.into();
        }
        notice.priority = notice.priority.max(entry.ruling.priority);
        notice.state = IncidentState::Open;
        notice.acknowledged_by = None;
        notice.certainty = entry.certainty.into();
        notice.advice = entry.advice.iter().map(|text| (*text).into()).collect();
        notice.limits_of_sight = entry.limits_of_sight.iter().map(|text| (*text).into()).collect();
        incident.add_line(now, entry.line);
        if let Some((key, asset, money)) = entry.order {
            incident.add_order(key, asset, money);
        }
        id
    }

    /// The incident an entry belongs to, opened if there is none.
    fn place(&mut self, now: Time, seq: u64, account: &Account, entry: &Entry<'_>) -> IncidentId {
        let slot = (entry.ruling.cause, Box::from(entry.scope));
        if let Some(id) = self.current.get(&slot)
            && let Some(incident) = self.incidents.get(id)
            && incident.notice.state != IncidentState::Ended
            && now.since(incident.notice.updated_at) < FOLD_WITHIN
        {
            return *id;
        }
        self.make_room();
        let id = IncidentId(seq.max(self.last_id + 1));
        self.last_id = id.0;
        let notice = Notice {
            account: account.clone(),
            incident: id,
            revision: 0,
            state: IncidentState::Open,
            priority: entry.ruling.priority,
            rule: entry.ruling.rule.into(),
            headline: entry.ruling.headline.into(),
            opened_at: now,
            updated_at: now,
            orders: 0,
            symbols: Vec::new(),
            notional: Vec::new(),
            lines: Vec::new(),
            lines_left_out: 0,
            certainty: Box::from(""),
            advice: Vec::new(),
            limits_of_sight: Vec::new(),
            acknowledged_by: None,
            repeated: false,
        };
        self.incidents.insert(id, Incident { notice, money: BTreeMap::new(), money_unfollowed: BTreeMap::new() });
        self.current.insert(slot, id);
        id
    }

    fn make_room(&mut self) {
        if self.incidents.len() < INCIDENTS_MAX {
            return;
        }
        let settled = |incident: &Incident| incident.notice.state != IncidentState::Open;
        let oldest = self.incidents.iter().find(|(_, incident)| settled(incident)).or(self.incidents.iter().next());
        if let Some(id) = oldest.map(|(id, _)| *id) {
            self.incidents.remove(&id);
            self.current.retain(|_, current| *current != id);
        }
    }

    /// Whether a counting rule has reached its count; the window holds at most that many times.
    pub fn count(&mut self, now: Time, rule: &str, window: EventCount) -> bool {
        let times = self.counts.entry(rule.into()).or_default();
        let at_least = usize::try_from(window.at_least).unwrap_or(usize::MAX);
        times.push_back(now);
        while times.len() > at_least {
            times.pop_front();
        }
        let within = Duration::from_secs(u64::from(window.within_s));
        times.len() == at_least && times.front().is_some_and(|first| now.since(*first) <= within)
    }

    /// An order of an incident traded on, or came off the book.
    pub fn follow(&mut self, key: &OrderKey, money: Dec) {
        for (id, incident) in &mut self.incidents {
            if let Some((_, known)) = incident.money.get_mut(key)
                && *known != money
            {
                *known = money;
                incident.sum_money();
                self.changed.insert(*id);
            }
        }
    }

    /// Adds a line to the latest incident of a cause, be it open or ended.
    pub fn note(&mut self, now: Time, cause: Cause, scope: &str, line: String) {
        if let Some(id) = self.current.get(&(cause, Box::from(scope)))
            && let Some(incident) = self.incidents.get_mut(id)
        {
            incident.add_line(now, line);
            self.changed.insert(*id);
        }
    }

    /// The order turned out to be the bot's after all. Its incident ends when no order is left in it.
    pub fn clear(&mut self, now: Time, key: &OrderKey, line: String) {
        let holds = |incident: &Incident| incident.money.contains_key(key);
        let Some((id, incident)) = self.incidents.iter_mut().find(|(_, incident)| holds(incident)) else { return };
        incident.money.remove(key);
        incident.notice.orders = incident.notice.orders.saturating_sub(1);
        incident.sum_money();
        incident.add_line(now, line);
        if incident.notice.orders == 0 {
            incident.notice.state = IncidentState::Ended;
        }
        self.changed.insert(*id);
    }

    /// The cause is over.
    pub fn end(&mut self, now: Time, cause: Cause, scope: &str, line: String) {
        let Some(id) = self.open_id(cause, scope) else { return };
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.notice.state = IncidentState::Ended;
            incident.add_line(now, line);
            self.changed.insert(id);
        }
    }

    fn open_id(&self, cause: Cause, scope: &str) -> Option<IncidentId> {
        let id = self.current.get(&(cause, Box::from(scope)))?;
        let open = self.incidents.get(id).is_some_and(|incident| incident.notice.state != IncidentState::Ended);
        open.then_some(*id)
    }

    /// Takes the acknowledgement if it saw the incident as it is; or says why not.
    pub fn acknowledge(&mut self, now: Time, id: IncidentId, by: &str, shown: Option<u64>) -> Result<(), String> {
        let Some(incident) = self.incidents.get_mut(&id) else {
            return Err(format!("there is no incident {id}"));
        };
        if shown.is_some_and(|shown| shown != incident.notice.revision) {
            return Err(format!("incident {id} has grown since you were shown it: look again, then acknowledge"));
        }
        if incident.notice.state == IncidentState::Open {
            incident.notice.state = IncidentState::Acknowledged;
            incident.notice.acknowledged_by = Some(by.into());
            incident.add_line(now, format!("acknowledged by {by}"));
            self.changed.insert(id);
        }
        Ok(())
    }

    /// The incidents that changed since the last call, as they now are.
    pub fn take_changes(&mut self, now: Time) -> Vec<Notice> {
        let changed = std::mem::take(&mut self.changed);
        let mut notices = Vec::with_capacity(changed.len());
        for id in changed {
            if let Some(incident) = self.incidents.get_mut(&id) {
                incident.notice.revision += 1;
                incident.notice.updated_at = now;
                notices.push(incident.notice.clone());
            }
        }
        notices
    }

    pub fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.incidents.values().map(|incident| &incident.notice)
    }

    pub fn loudest_open(&self) -> Option<Priority> {
        let open = self.notices().filter(|notice| notice.state == IncidentState::Open);
        open.map(|notice| notice.priority).max()
    }
}

impl Incident {
    fn add_line(&mut self, at: Time, text: String) {
        let lines = &mut self.notice.lines;
        if lines.len() == LINES_MAX {
            lines.remove(0);
            self.notice.lines_left_out += 1;
        }
        lines.push(Line { at, text: text.into() });
    }

    fn add_order(&mut self, key: OrderKey, asset: Asset, money: Dec) {
        if self.money.contains_key(&key) {
            return;
        }
        self.notice.orders += 1;
        if !self.notice.symbols.contains(&key.0) {
            self.notice.symbols.push(key.0.clone());
        }
        if self.money.len() < ORDERS_FOLLOWED_MAX {
            self.money.insert(key, (asset, money));
        } else {
            let sum = self.money_unfollowed.entry(asset).or_insert(Dec::ZERO);
            *sum = sum.checked_add(money).unwrap_or(*sum);
        }
        self.sum_money();
    }

    fn sum_money(&mut self) {
        let mut sums = self.money_unfollowed.clone();
        for (asset, money) in self.money.values() {
            let sum = sums.entry(asset.clone()).or_insert(Dec::ZERO);
            // A sum that would not be exact stays where it is: the lines still show each order.
            *sum = sum.checked_add(*money).unwrap_or(*sum);
        }
        self.notice.notional = sums.into_iter().filter(|(_, money)| money.is_positive()).collect();
    }
}
