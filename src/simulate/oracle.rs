//! The judge of a run: was everything told that the thief did, and nothing else? It knows the exchange's ledger, the
//! script, and what left the watcher, and shares nothing with what it judges.
//!
//! An alarm is excused only by what really happened: the thief's hand on that order, a bot's word that came later than
//! the waits allow (or was lost), a mishap of the script that makes the very thing that is told.

use std::time::Duration;

use crate::kernel::time::Time;
use crate::simulate::emergency::Leaves;
use crate::simulate::ledger::{Change, Changed, Entry, Key, Ledger};
use crate::simulate::script::{CALM, Mishap, START, Script};
use crate::simulate::told::{Says, covers};
use crate::simulate::witness::{Told, Witness};

/// The waits that are declared: an order that somebody may still claim is told after this.
pub const PENDING_CAP: Duration = Duration::from_secs(10);
/// What an alert waits for a slow disk, and a second for everything that takes no time here.
pub const LEAVING: Duration = Duration::from_millis(1_250);
/// A word that came within this of the order was in time, wherever the clocks stood.
const IN_TIME: Duration = Duration::from_secs(9);
/// What happens so long before or after a trouble may be told late.
pub const TROUBLED: Duration = Duration::from_secs(20);
/// A cancel that names the same order as a bot's own of about that time does what the bot wanted.
const SAME_WISH: Duration = Duration::from_secs(12);
/// A critical incident is on its way to the owner by then.
const DELIVERED_WITHIN: Duration = Duration::from_secs(30);
const SYMBOLS: [&str; 6] = ["BTCUSDT", "ETHUSDT", "BNBUSDT", "ETHBTC", "VIABTC", "PERPUSDT"];

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub thefts: u64,
    pub missed: u64,
    pub false_alarms: u64,
    pub contained: u64,
    pub false_containments: u64,
    /// What went wrong, one sentence each.
    pub problems: Vec<String>,
}

pub struct Oracle<'a> {
    pub script: &'a Script,
    pub ledger: &'a Ledger,
    pub witness: &'a Witness,
    lines: Vec<(&'a Told, Says)>,
    gaps: Vec<(Time, Option<Time>)>,
}

/// One thing that the thief did, and the exchange took.
#[derive(Debug)]
struct Act {
    key: Key,
    what: Option<Changed>,
    at: Time,
}

impl<'a> Oracle<'a> {
    pub fn new(script: &'a Script, ledger: &'a Ledger, witness: &'a Witness) -> Self {
        let lines: Vec<(&Told, Says)> =
            witness.lines.iter().map(|told| (told, Says::read(&told.text, &SYMBOLS))).collect();
        let gaps = lines.iter().filter_map(|(_, says)| match says {
            Says::Gap { from, to } => Some((*from, *to)),
            _ => None,
        });
        let mut gaps: Vec<(Time, Option<Time>)> = gaps.collect();
        // A gap is told twice, when it is noticed and when it is over: the second word is the whole.
        let closed: Vec<Time> = gaps.iter().filter(|(_, to)| to.is_some()).map(|(from, _)| *from).collect();
        gaps.retain(|(from, to)| to.is_some() || !closed.contains(from));
        Self { script, ledger, witness, lines, gaps }
    }

    pub fn judge(&self) -> Judgement {
        let mut judgement = Judgement { problems: self.witness.failures.clone(), ..Judgement::default() };
        for act in self.acts() {
            judgement.thefts += 1;
            if let Err(why) = self.was_told(&act) {
                judgement.missed += 1;
                judgement.problems.push(why);
            }
        }
        for (told, says) in &self.lines {
            if let Err(why) = self.explain(told, says) {
                judgement.false_alarms += 1;
                judgement.problems.push(format!("{} at {} UTC: {:?}: {why}", told.rule, told.at, told.text));
            }
        }
        self.check_delivery(&mut judgement.problems);
        self.judge_containment(&mut judgement);
        judgement
    }

    /// Where a gap covers it, it may never be known.
    pub fn is_unseen(&self, at: Time) -> bool {
        covers(&self.gaps, at, self.edge())
    }

    /// One copy was lost and the other one garbled, and that was told.
    fn is_unreadable(&self, at: Time) -> bool {
        let lost = self.suffered(at, |mishap| matches!(mishap, Mishap::Dropped)).is_ok();
        let by = at + self.frames_within() + LEAVING;
        lost && self.lines.iter().any(|(told, says)| *says == Says::Unreadable && told.at >= at && told.at <= by)
    }

    fn acts(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        for (key, entry) in &self.ledger.orders {
            if entry.by_thief {
                acts.push(Act { key: key.clone(), what: None, at: entry.placed_at });
                continue;
            }
            let foreign = entry.changes.iter().filter(|change| change.by_thief && !self.bot_wished(key, entry, change));
            acts.extend(foreign.map(|change| Act { key: key.clone(), what: Some(change.what), at: change.at }));
        }
        acts
    }

    /// A bot announced a cancel of the same order at about that time.
    fn bot_wished(&self, (symbol, id): &Key, entry: &Entry, change: &Change) -> bool {
        let id = id.to_string();
        change.what == Changed::Cancelled
            && self.witness.requests.iter().any(|said| {
                *said.symbol == **symbol
                    && said.at.apart(change.at) <= SAME_WISH
                    && (*said.target == *id || *said.target == *entry.client_id || &*said.target == "all")
            })
    }

    fn was_told(&self, act: &Act) -> Result<(), String> {
        let tells = |says: &Says| match (says, act.what) {
            (Says::Placed(key), None)
            | (Says::Cancelled(key), Some(Changed::Cancelled))
            | (Says::Amended(key), Some(Changed::Amended))
            // Where the order itself was not known before, that it differs tells of the amendment.
            | (Says::Placed(key), Some(Changed::Amended)) => *key == act.key,
            _ => false,
        };
        let found = self.lines.iter().find(|(told, says)| tells(says) && told.at >= act.at).map(|(told, _)| told.at);
        let by = act.at + PENDING_CAP + self.frames_within() + LEAVING;
        let what = format!("{:?} of order {} of {} at {} UTC", act.what, act.key.1, act.key.0, act.at);
        match found {
            Some(at) if at <= by || self.is_troubled(act.at, by) || self.is_unreadable(act.at) => Ok(()),
            Some(at) => Err(format!("told late: {what}, told at {at} UTC")),
            None if self.is_unseen(act.at) || self.is_unreadable(act.at) => Ok(()),
            None => Err(format!("missed: {what}")),
        }
    }

    pub fn frames_within(&self) -> Duration {
        let slow = self.script.mishaps.iter().map(|(_, mishap)| match mishap {
            Mishap::Slow { ms, .. } => *ms,
            _ => 0,
        });
        Duration::from_millis(u64::from(self.script.weather.frame.1 + slow.max().unwrap_or(0)))
    }

    /// A gap's ends are told by our clock, and what was under way on a wire that broke was sent before its end.
    fn edge(&self) -> Duration {
        Duration::from_secs(1)
            + self.frames_within()
            + Duration::from_millis(self.script.weather.watcher_skew_ms.into())
    }

    /// The process was away or some connection was: then a theft may be found later.
    pub fn is_troubled(&self, from: Time, to: Time) -> bool {
        let away = self.witness.lives.iter().filter_map(|(_, end)| *end);
        let mut troubles = away.chain(self.stream_troubles(self.script.ends));
        troubles.any(|at| at + TROUBLED >= from && at <= to)
    }

    fn stream_troubles(&self, by: Time) -> impl Iterator<Item = Time> {
        let hits = |mishap: &Mishap| match mishap {
            Mishap::Cut(_) | Mishap::Mute(_) | Mishap::Killed { .. } | Mishap::Stopped { .. } => true,
            Mishap::Slow { .. }
            | Mishap::Shutdown
            | Mishap::Garbled
            | Mishap::Doubled
            | Mishap::Dropped
            | Mishap::UnknownEvent
            | Mishap::ReadsFail { .. }
            | Mishap::Held { .. }
            | Mishap::DiskStalls { .. }
            | Mishap::LineBreaks { .. }
            | Mishap::WebhookFails { .. }
            | Mishap::ClockJumps { .. } => false,
        };
        self.witness.mishaps.iter().filter(move |(at, mishap)| *at <= by && hits(mishap)).map(|(at, _)| *at)
    }

    fn suffered(&self, by: Time, hits: impl Fn(&Mishap) -> bool) -> Result<(), String> {
        let found = self.witness.mishaps.iter().any(|(at, mishap)| *at <= by && hits(mishap));
        if found { Ok(()) } else { Err("nothing of the kind happened".to_owned()) }
    }

    /// Whether what a line says is so.
    fn explain(&self, told: &Told, says: &Says) -> Result<(), String> {
        let by = told.at;
        match says {
            Says::Placed(key) => self.explain_order(key),
            Says::Cancelled(key) => self.explain_change(key, Changed::Cancelled, by),
            Says::Amended(key) => self.explain_change(key, Changed::Amended, by),
            Says::EndedByTheExchange(key) => self.of_thief(key).map(|_| ()),
            Says::Cleared(key) => match self.ledger.orders.get(key) {
                Some(entry) if entry.by_thief => Err("a thief's order was cleared".to_owned()),
                Some(_) | None => Ok(()),
            },
            Says::Gap { .. } | Says::Blindness | Says::FoundAfterTheGap => {
                let slept = self.acts_alone() && told.at <= START + CALM;
                let troubled = slept || self.stream_troubles(by).next().is_some();
                if troubled { Ok(()) } else { Err("the stream was never cut".to_owned()) }
            }
            Says::CopyMissing => {
                self.suffered(by, |mishap| matches!(mishap, Mishap::Dropped | Mishap::Garbled | Mishap::Mute(_)))
            }
            Says::Unreadable => self.suffered(by, |mishap| matches!(mishap, Mishap::Garbled | Mishap::UnknownEvent)),
            Says::BooksDiffer => {
                self.suffered(by, |mishap| matches!(mishap, Mishap::Dropped | Mishap::Garbled | Mishap::Mute(_)))
            }
            Says::Unjournalled if self.script.weather.sync.1 > 100 => Ok(()),
            Says::Unjournalled | Says::DiskStalled => {
                self.suffered(by, |mishap| matches!(mishap, Mishap::DiskStalls { .. }))
            }
            Says::ClockJumped => self.suffered(by, |mishap| matches!(mishap, Mishap::ClockJumps { .. })),
            Says::Unproven => {
                self.suffered(by, |mishap| matches!(mishap, Mishap::ReadsFail { .. } | Mishap::Held { .. }))
            }
            Says::LeftToOwner if self.acts_alone() => Ok(()),
            Says::LeftToOwner => Err("it may not act by itself".to_owned()),
            Says::IncidentLost if self.lines.iter().any(|(_, says)| *says == Says::Unjournalled) => Ok(()),
            Says::IncidentLost => Err("what was told was on disk".to_owned()),
            Says::KeysDiffer if self.ledger.keys.iter().any(|key| key.at <= by) => Ok(()),
            Says::KeysDiffer => Err("no key was touched".to_owned()),
            Says::UnseenOrder { id } if self.ledger.knows_id(id, by) => Err("the exchange knows it".to_owned()),
            Says::UnseenCancel { symbol, target } => self.explain_unseen_cancel(symbol, target, by),
            Says::UnseenOrder { .. } | Says::ClearedRequest | Says::Remark => Ok(()),
            Says::CopiesDiffer => Err("no two copies ever differ".to_owned()),
            Says::BotSilent if self.hook_left(Leaves::Nothing).is_some_and(|at| at <= by) => Ok(()),
            Says::NotStopped if self.hook_left(Leaves::All).is_some_and(|at| at <= by) => Ok(()),
            Says::NotStopped => Err("no bot speaks that was stopped".to_owned()),
            Says::BotSilent => Err("no bot was ever silent for so long".to_owned()),
            Says::Else => Err("nobody knows what this says".to_owned()),
        }
    }

    pub fn acts_alone(&self) -> bool {
        self.script.emergency.as_ref().is_some_and(|emergency| emergency.acts_alone)
    }

    fn of_thief(&self, key: &Key) -> Result<&Entry, String> {
        let entry = self.ledger.orders.get(key).ok_or("there is no such order")?;
        if entry.by_thief { Ok(entry) } else { Err("it is the bot's".to_owned()) }
    }

    pub fn explain_order(&self, key: &Key) -> Result<(), String> {
        let entry = self.ledger.orders.get(key).ok_or("there is no such order")?;
        let touched = entry.changes.iter().any(|change| change.by_thief && change.what == Changed::Amended);
        if entry.by_thief || touched || self.word_was_late(&entry.client_id, entry.placed_at) {
            return Ok(());
        }
        Err(format!("it is the bot's, heard at {:?}", self.witness.heard.get(&*entry.client_id)))
    }

    fn explain_change(&self, key: &Key, what: Changed, by: Time) -> Result<(), String> {
        let entry = self.ledger.orders.get(key).ok_or("there is no such order")?;
        let changes = || entry.changes.iter().filter(|change| change.what == what && change.at <= by);
        let late = |change: &Change| match &change.id {
            Some(id) if self.witness.sent.contains(&**id) => self.word_was_late(id, change.at),
            Some(_) | None => !self.request_was_heard(key, entry, change.at) && self.words_get_lost(change.at),
        };
        if entry.by_thief || changes().any(|change| change.by_thief || late(change)) {
            return Ok(());
        }
        Err(format!("the bot did it: {:?}", changes().collect::<Vec<_>>()))
    }

    /// A cancel or amendment of this order was announced in time.
    fn request_was_heard(&self, (symbol, id): &Key, entry: &Entry, at: Time) -> bool {
        let id = id.to_string();
        let names = |target: &str| target == id || target == "all" || target == entry.client_id;
        let mut said = self.witness.requests.iter().filter(|said| *said.symbol == **symbol && names(&said.target));
        said.any(|said| said.at <= at + IN_TIME)
    }

    /// The bot's word came so late that the watcher could not wait for it, or died with a process or a line.
    fn word_was_late(&self, id: &str, at: Time) -> bool {
        match self.witness.heard.get(id).and_then(|heard| heard.first()) {
            Some((heard, _)) => *heard > at + IN_TIME,
            None => self.witness.sent.contains(id) && self.words_get_lost(at),
        }
    }

    /// When the way to stop the bots said that it had, if it leaves this of them.
    pub fn hook_left(&self, leaves: Leaves) -> Option<Time> {
        let hook = self.script.emergency.as_ref()?.hook?;
        self.witness.hook_worked.filter(|_| hook.leaves == leaves)
    }

    /// About a request of that time.
    fn words_get_lost(&self, at: Time) -> bool {
        let lost = |(_, mishap): &(Time, Mishap)| {
            matches!(mishap, Mishap::Killed { .. } | Mishap::Stopped { .. } | Mishap::LineBreaks { .. })
        };
        let unsaid = self.hook_left(Leaves::Nothing).is_some_and(|ended| ended <= at + IN_TIME);
        unsaid || self.witness.mishaps.iter().any(lost)
    }

    fn explain_unseen_cancel(&self, symbol: &str, target: &str, by: Time) -> Result<(), String> {
        let is_target = |(key, entry): &(&Key, &Entry)| {
            // What was amended is not found under the id that it was placed with.
            let renamed = entry.changes.iter().any(|change| change.what == Changed::Amended);
            key.0 == symbol && (key.1.to_string() == target || entry.client_id == target && !renamed)
        };
        let found = self.ledger.orders.iter().find(is_target);
        // What was done while it was looked up was done too late for that look.
        let looked = Duration::from_millis(u64::from(self.script.weather.request.1)) + self.frames_within() + LEAVING;
        let in_time = |change: &&Change| !change.by_thief && change.at + looked <= by;
        let done = found.is_some_and(|(_, entry)| {
            entry.changes.iter().filter(in_time).any(|change| change.what == Changed::Cancelled)
        });
        if done { Err("it did happen".to_owned()) } else { Ok(()) }
    }

    /// What rings is sent, unless the webhook itself was down.
    fn check_delivery(&self, problems: &mut Vec<String>) {
        let is_down = |(_, mishap): &(Time, Mishap)| matches!(mishap, Mishap::WebhookFails { .. });
        if self.witness.mishaps.iter().any(is_down) {
            return;
        }
        for (incident, at) in &self.witness.critical {
            let late = *at + DELIVERED_WITHIN <= self.script.ends && !self.is_troubled(*at, *at + DELIVERED_WITHIN);
            if late && !self.witness.delivered.contains_key(incident) {
                problems.push(format!("incident {incident} is critical since {at} UTC and was never sent"));
            }
        }
    }
}
