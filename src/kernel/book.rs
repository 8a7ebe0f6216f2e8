//! The incident book: findings of one cause fold into one incident, which is told as a whole each time it changes.
//!
//! Invariants: an acknowledgement covers the revision it saw; more money or another symbol opens the incident again.
//! An incident ends when its cause does, or when nothing of what it was opened for still holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::blotter::OrderKey;
use crate::kernel::incident::{Contained, IncidentId, IncidentState, Line, Notice, Priority};
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
/// Symbols an incident names. Later ones stand in its lines only.
const SYMBOLS_MAX: usize = 200;
/// An incident that was quiet for this long is left alone; the next finding opens another.
const FOLD_WITHIN: Duration = Duration::from_secs(6 * 3_600);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Book {
    #[serde(with = "pairs")]
    incidents: BTreeMap<IncidentId, Incident>,
    /// The incident that the next finding of a cause and scope folds into.
    #[serde(with = "pairs")]
    current: BTreeMap<(Cause, Box<str>), IncidentId>,
    /// The incidents whose money an order is part of.
    #[serde(with = "pairs")]
    followed: BTreeMap<OrderKey, BTreeSet<IncidentId>>,
    counts: BTreeMap<Box<str>, VecDeque<Time>>,
    changed: BTreeSet<IncidentId>,
    last_id: u64,
    /// The incident that tells of the containment that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    containing: Option<IncidentId>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Incident {
    notice: Notice,
    #[serde(with = "pairs")]
    money: BTreeMap<OrderKey, (Asset, Dec)>,
    /// By asset: of the orders followed, and what later ones showed first.
    sums: BTreeMap<Asset, Dec>,
    /// Findings that are not about a stranger's order (a cancel, an intent) and still hold.
    others: u64,
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
        match entry.order {
            None => incident.others += 1,
            Some((key, asset, money)) => {
                if incident.add_order(&key, asset, money) {
                    self.followed.entry(key).or_default().insert(id);
                }
            }
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
            && incident.notice.contained.as_ref().and_then(|contained| contained.over_at).is_none_or(|at| now <= at)
        {
            return *id;
        }
        self.make_room();
        let id = IncidentId(seq.max(self.last_id.saturating_add(1)));
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
            contained: None,
            contained_in: self.containing,
            repeated: false,
        };
        let incident = Incident { notice, money: BTreeMap::new(), sums: BTreeMap::new(), others: 0 };
        self.incidents.insert(id, incident);
        self.current.insert(slot, id);
        id
    }

    fn make_room(&mut self) {
        if self.incidents.len() < INCIDENTS_MAX {
            return;
        }
        let settled = |incident: &Incident| incident.notice.state != IncidentState::Open;
        let oldest = self.incidents.iter().find(|(_, incident)| settled(incident)).or(self.incidents.iter().next());
        let Some(id) = oldest.map(|(id, _)| *id) else { return };
        self.current.retain(|_, current| *current != id);
        for key in self.incidents.remove(&id).into_iter().flat_map(|incident| incident.money.into_keys()) {
            self.unfollow(&key, id);
        }
    }

    fn unfollow(&mut self, key: &OrderKey, id: IncidentId) {
        if let Some(incidents) = self.followed.get_mut(key) {
            incidents.remove(&id);
            if incidents.is_empty() {
                self.followed.remove(key);
            }
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

    /// An order of an incident traded on, or came off the book. More money than an acknowledgement saw undoes it.
    pub fn follow(&mut self, key: &OrderKey, money: Dec) {
        let Some(incidents) = self.followed.get(key) else { return };
        for id in incidents {
            if let Some(incident) = self.incidents.get_mut(id)
                && incident.follow(key, money)
            {
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

    /// The order turned out to be the bot's after all.
    pub fn clear(&mut self, now: Time, key: &OrderKey, line: &str) {
        for id in self.followed.remove(key).into_iter().flatten() {
            let Some(incident) = self.incidents.get_mut(&id) else { continue };
            incident.remove_order(key);
            incident.clear(now, line);
            self.changed.insert(id);
        }
    }

    /// A finding that is not about a stranger's order does not hold any more.
    pub fn clear_other(&mut self, now: Time, id: IncidentId, line: &str) {
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        incident.others = incident.others.saturating_sub(1);
        incident.clear(now, line);
        self.changed.insert(id);
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

    pub fn state_of(&self, id: IncidentId) -> Option<IncidentState> {
        self.incidents.get(&id).map(|incident| incident.notice.state)
    }

    pub fn add_line(&mut self, now: Time, id: IncidentId, line: String) {
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.add_line(now, line);
            self.changed.insert(id);
        }
    }

    pub fn is_drill(&self, id: IncidentId) -> bool {
        self.incidents.get(&id).is_some_and(|incident| incident.notice.is_drill())
    }

    pub fn knows(&self, id: IncidentId) -> bool {
        self.incidents.contains_key(&id)
    }

    /// A freeze or a kill runs, and this incident tells of it: the others that are open name it, each with its next change.
    pub fn begin_containment(&mut self, id: IncidentId) {
        if self.containing == Some(id) {
            return;
        }
        self.containing = Some(id);
        let others = self.incidents.values_mut().map(|incident| &mut incident.notice);
        for notice in others.filter(|notice| notice.incident != id && notice.state != IncidentState::Ended) {
            notice.contained_in = Some(id);
        }
    }

    /// The containment that this incident tells of says nothing of what is found from now on.
    pub fn leave(&mut self, now: Time, id: IncidentId) {
        let incident = self.incidents.get_mut(&id);
        if let Some(contained) = incident.and_then(|incident| incident.notice.contained.as_mut()) {
            contained.over_at = Some(now);
        }
    }

    /// What happens from now on happens after it.
    pub fn end_containment(&mut self) {
        self.containing = None;
    }

    /// Shows on an incident how far its containment is, and what is left to its owner once it has ended.
    pub fn contain(&mut self, id: IncidentId, contained: Contained, left: &[&str]) {
        if let Some(incident) = self.incidents.get_mut(&id)
            && incident.notice.contained.as_ref() != Some(&contained)
        {
            incident.notice.contained = Some(contained);
            if !left.is_empty() {
                incident.notice.advice = left.iter().map(|text| (*text).into()).collect();
            }
            self.changed.insert(id);
        }
    }

    pub(super) fn open_id(&self, cause: Cause, scope: &str) -> Option<IncidentId> {
        let id = self.current.get(&(cause, Box::from(scope)))?;
        let open = self.incidents.get(id).is_some_and(|incident| incident.notice.state != IncidentState::Ended);
        open.then_some(*id)
    }

    /// Takes the acknowledgement if it saw the incident as it is; or says why not.
    pub fn acknowledge(&mut self, now: Time, id: IncidentId, by: &str, shown: Option<u64>) -> Result<(), String> {
        let Some(incident) = self.incidents.get_mut(&id) else {
            return Err(format!("there is no incident {id}: `countersign incidents` lists them"));
        };
        if incident.notice.state != IncidentState::Open {
            return Err(format!("incident {id} is not open any more"));
        }
        if shown.is_some_and(|shown| shown != incident.notice.revision) {
            return Err(format!("incident {id} has grown since you were shown it: look again, then acknowledge"));
        }
        incident.notice.state = IncidentState::Acknowledged;
        incident.notice.acknowledged_by = Some(by.into());
        incident.add_line(now, format!("acknowledged by {by}"));
        self.changed.insert(id);
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
        let open = self.notices().filter(|notice| notice.state == IncidentState::Open && !notice.is_drill());
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

    /// Counts an order once. `true` if its money is followed.
    fn add_order(&mut self, key: &OrderKey, asset: Asset, money: Dec) -> bool {
        if self.money.contains_key(key) {
            return false;
        }
        self.notice.orders += 1;
        let symbols = &mut self.notice.symbols;
        if symbols.len() < SYMBOLS_MAX && !symbols.contains(&key.0) {
            symbols.push(key.0.clone());
        }
        self.shift(&asset, Dec::ZERO, money);
        let follow = self.money.len() < ORDERS_FOLLOWED_MAX;
        if follow {
            self.money.insert(key.clone(), (asset, money));
        }
        follow
    }

    fn remove_order(&mut self, key: &OrderKey) {
        if let Some((asset, money)) = self.money.remove(key) {
            self.notice.orders = self.notice.orders.saturating_sub(1);
            self.shift(&asset, money, Dec::ZERO);
        }
    }

    /// `true` if the money changed.
    fn follow(&mut self, key: &OrderKey, money: Dec) -> bool {
        let Some((asset, known)) = self.money.get_mut(key) else { return false };
        let before = std::mem::replace(known, money);
        let asset = asset.clone();
        self.shift(&asset, before, money);
        if money > before && self.notice.state == IncidentState::Acknowledged {
            self.notice.state = IncidentState::Open;
            self.notice.acknowledged_by = None;
        }
        money != before
    }

    fn clear(&mut self, now: Time, line: &str) {
        self.add_line(now, line.to_owned());
        if self.notice.orders == 0 && self.others == 0 {
            self.notice.state = IncidentState::Ended;
        }
    }

    /// A sum that would not be exact stays where it is: the lines still show each order.
    fn shift(&mut self, asset: &Asset, from: Dec, to: Dec) {
        let sum = self.sums.entry(asset.clone()).or_insert(Dec::ZERO);
        *sum = sum.checked_sub(from).and_then(|rest| rest.checked_add(to)).unwrap_or(*sum);
        let shown = self.sums.iter().filter(|(_, money)| money.is_positive());
        self.notice.notional = shown.map(|(asset, money)| (asset.clone(), *money)).collect();
    }
}
