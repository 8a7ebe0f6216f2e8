//! The containment against a venue that behaves, in virtual time: each kind of call fails in each way, alone and in
//! pairs, and the process restarts between any two events. What was really done is counted in the venue's own ledger.

mod stories;
mod sweep;

use std::collections::BTreeSet;

use super::*;
use crate::kernel::act::{ActOutcome, KeyRights, KeyRow, ProbeAnswer};
use crate::kernel::containment::list::KEYS_MAX;
use crate::kernel::money::Dec;
use crate::kernel::order::{Asset, OrderId, Symbol};
use crate::kernel::report::Balance;
use crate::kernel::stopping::{DeclaredKey, Mode};

const START: Time = Time::from_millis(1_764_000_000_000);
const QUIET: Duration = Duration::from_secs(5);
const RIGHTS: KeyRights =
    KeyRights { trade: true, margin: true, futures: false, universal_transfer: true, options: false };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The venue says no, and means it.
    Refused,
    /// Lost on the way there: nothing happened.
    LostBefore,
    /// It happened, and the answer was lost.
    LostAfter,
    Garbage,
    Banned,
    /// Half a minute, then as usual.
    Slow,
    /// It happened, and whoever was to answer is gone.
    Never,
}

const FAULTS: [Fault; 7] =
    [Fault::Refused, Fault::LostBefore, Fault::LostAfter, Fault::Garbage, Fault::Banned, Fault::Slow, Fault::Never];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    List,
    Freeze,
    Delete,
    Probe,
    Read,
    Cancel,
    Stop,
    Balances,
    Transfer,
    Find,
}

const KINDS: [Kind; 10] = [
    Kind::List,
    Kind::Freeze,
    Kind::Delete,
    Kind::Probe,
    Kind::Read,
    Kind::Cancel,
    Kind::Stop,
    Kind::Balances,
    Kind::Transfer,
    Kind::Find,
];

fn kind(act: &Act) -> Kind {
    match act {
        Act::ListKeys => Kind::List,
        Act::SetRights { .. } => Kind::Freeze,
        Act::DeleteKey { .. } => Kind::Delete,
        Act::Probe { .. } => Kind::Probe,
        Act::OpenOrders => Kind::Read,
        Act::CancelOrder { .. } => Kind::Cancel,
        Act::StopBot { .. } => Kind::Stop,
        Act::Balances => Kind::Balances,
        Act::Transfer { .. } => Kind::Transfer,
        Act::FindTransfer { .. } => Kind::Find,
        Act::Quote { .. } | Act::Sell { .. } | Act::FindOrder { .. } => panic!("no containment sells: {act:?}"),
    }
}

/// What is true at the exchange, and what was done there.
#[derive(Default)]
struct Venue {
    keys: BTreeMap<KeyPrint, KeyRow>,
    /// Keys that may be called from our address.
    reachable: BTreeSet<KeyPrint>,
    orders: BTreeMap<OrderKey, Standing>,
    ledger: Vec<(Kind, String)>,
    bot_runs: bool,
    /// Free and locked.
    balances: BTreeMap<Asset, (Dec, Dec)>,
    transfers: BTreeSet<Box<str>>,
    /// The history shows a transfer only after so many looks.
    looks_behind: u32,
}

impl Venue {
    fn can_trade(&self, key: &KeyPrint) -> bool {
        self.keys.get(key).is_some_and(|row| row.rights.any())
    }

    fn act(&mut self, act: &Act) -> ActOutcome {
        let refused = |code, reason: &str| ActOutcome::Refused { code, reason: reason.into() };
        let done = || ActOutcome::Done { proof: "".into() };
        match act {
            Act::ListKeys => ActOutcome::Keys(self.keys.values().cloned().collect()),
            Act::SetRights { key, rights } => match self.keys.get_mut(key) {
                None => refused(-2008, "no such key"),
                Some(row) => {
                    if row.rights != *rights {
                        self.ledger.push((Kind::Freeze, key.to_string()));
                    }
                    row.rights = *rights;
                    done()
                }
            },
            Act::DeleteKey { key } => match self.keys.remove(key) {
                None => refused(-2008, "no such key"),
                Some(_) => {
                    self.ledger.push((Kind::Delete, key.to_string()));
                    done()
                }
            },
            Act::Probe { key } => {
                let lives = self.keys.contains_key(key) && self.reachable.contains(key);
                let answer = if lives { ProbeAnswer::Alive { code: -1022 } } else { ProbeAnswer::Dead { code: -2015 } };
                let known = self.keys.contains_key(key);
                let first = if known { answer.clone() } else { ProbeAnswer::Dead { code: -2008 } };
                ActOutcome::Probed([first, answer])
            }
            Act::OpenOrders => ActOutcome::Orders(Vec::new()),
            Act::CancelOrder { symbol, order_id } => match self.orders.remove(&(symbol.clone(), *order_id)) {
                None => refused(-2011, "unknown order"),
                Some(_) => {
                    self.ledger.push((Kind::Cancel, format!("{symbol}/{order_id}")));
                    done()
                }
            },
            Act::StopBot { .. } => {
                if std::mem::take(&mut self.bot_runs) {
                    self.ledger.push((Kind::Stop, String::new()));
                }
                ActOutcome::Done { proof: "exit status 0".into() }
            }
            Act::Balances => {
                let row = |(asset, (free, locked)): (&Asset, &(Dec, Dec))| Balance {
                    asset: asset.clone(),
                    free: *free,
                    locked: *locked,
                };
                ActOutcome::Balances(self.balances.iter().map(row).collect())
            }
            Act::Transfer { asset, amount, id } => self.transfer(asset, *amount, id),
            Act::Quote { .. } | Act::Sell { .. } | Act::FindOrder { .. } => panic!("no containment sells: {act:?}"),
            Act::FindTransfer { id } => {
                let shown = self.transfers.contains(id) && self.looks_behind == 0;
                self.looks_behind = self.looks_behind.saturating_sub(1);
                if shown { done() } else { ActOutcome::NotFound }
            }
        }
    }
}

impl Venue {
    fn transfer(&mut self, asset: &Asset, amount: Dec, id: &str) -> ActOutcome {
        let refused = |reason: &str| ActOutcome::Refused { code: -9000, reason: reason.into() };
        if self.transfers.contains(id) {
            return refused("clientTranId was used before");
        }
        let Some((free, _)) = self.balances.get_mut(asset).filter(|(free, _)| *free >= amount) else {
            return refused("there is not so much");
        };
        *free = free.checked_sub(amount).unwrap();
        self.transfers.insert(id.into());
        self.ledger.push((Kind::Transfer, asset.to_string()));
        ActOutcome::Done { proof: "number 1".into() }
    }

    fn free(&self) -> usize {
        self.balances.values().filter(|(free, _)| free.is_positive()).count()
    }
}

struct World {
    now: Time,
    seq: u64,
    plan: Containment,
    venue: Venue,
    /// The n-th call of a kind meets this.
    faults: Vec<(Kind, u32, Fault)>,
    calls: BTreeMap<Kind, u32>,
    answers: Vec<(Time, EffectId, ActOutcome, BTreeMap<OrderKey, Standing>)>,
    events: u32,
    restart_after: Option<u32>,
    /// What the stream has shown of the orders.
    stream: bool,
}

fn key(name: &str) -> KeyPrint {
    KeyPrint::of(name)
}

fn order(id: i64) -> OrderKey {
    (Symbol::new("THINUSDT"), OrderId(id))
}

fn stopping(means: Means) -> Stopping {
    let declared = |name: &str, role| DeclaredKey { name: name.into(), print: key(name), role };
    Stopping {
        mode: Mode::Ask,
        means,
        keys: vec![
            declared("bot", KeyRole::Bot),
            declared("watch", KeyRole::Watch),
            declared("cancel", KeyRole::Cancel),
        ],
        hooks: vec!["unit".into()],
        pausing: Vec::new(),
        quiet: QUIET,
        freeze_unanswered: None,
        transfer_to_master: true,
    }
}

impl World {
    fn new(aim: Aim) -> Self {
        Self::by(Means::SubAccount, aim)
    }

    fn by(means: Means, aim: Aim) -> Self {
        let asked = Asked { aim, by: "owner".into(), incident: None };
        let mut venue = Venue { bot_runs: true, ..Venue::default() };
        for name in ["bot", "watch", "cancel"] {
            let rights = if name == "watch" { KeyRights::NONE } else { RIGHTS };
            let row = KeyRow { key: key(name), name: name.into(), created_at: Time::EPOCH, rights };
            venue.keys.insert(key(name), row);
            venue.reachable.insert(key(name));
        }
        venue.orders.extend([(order(1), Standing::Spare), (order(2), Standing::Cancel), (order(3), Standing::Cancel)]);
        let dec = |text: &str| text.parse::<Dec>().unwrap();
        for (asset, free, locked) in [("BTC", "0.5", "0.1"), ("USDT", "120.5", "0"), ("BNB", "0", "1")] {
            venue.balances.insert(Asset::new(asset), (dec(free), dec(locked)));
        }
        Self {
            now: START,
            seq: 0,
            plan: Containment::new(START, asked, &stopping(means), &BTreeMap::new()),
            venue,
            faults: Vec::new(),
            calls: BTreeMap::new(),
            answers: Vec::new(),
            events: 0,
            restart_after: None,
            stream: true,
        }
    }

    fn standings(&self) -> BTreeMap<OrderKey, Standing> {
        if self.stream { self.venue.orders.clone() } else { BTreeMap::new() }
    }

    fn poll(&mut self) {
        self.seq += 1;
        let seq = self.seq;
        let standings = self.standings();
        let name = |index: usize| EffectId { cause: seq, index: index as u32 };
        let acts = self.plan.poll(self.now, &standings, name);
        for (index, act) in acts.into_iter().enumerate() {
            self.call(name(index), &act);
        }
    }

    fn call(&mut self, effect: EffectId, act: &Act) {
        let nth = self.calls.entry(kind(act)).or_insert(0);
        *nth += 1;
        let fault = self.faults.iter().find(|(of, n, _)| *of == kind(act) && n == nth).map(|(.., fault)| *fault);
        let unknown = |reason: &str| ActOutcome::Unknown { reason: reason.into() };
        let (after, outcome) = match fault {
            None => (50, self.venue.act(act)),
            Some(Fault::Slow) => (30_000, self.venue.act(act)),
            Some(Fault::Never) => {
                let _: ActOutcome = self.venue.act(act);
                return;
            }
            Some(Fault::LostBefore) => (8_000, unknown("timed out")),
            Some(Fault::LostAfter) => {
                let _: ActOutcome = self.venue.act(act);
                (8_000, unknown("timed out"))
            }
            Some(Fault::Garbage) => (50, unknown("the answer cannot be read")),
            Some(Fault::Refused) => (50, ActOutcome::Refused { code: -1000, reason: "no".into() }),
            Some(Fault::Banned) => {
                let until = self.now + Duration::from_secs(120);
                (50, ActOutcome::Held { until, reason: "banned".into() })
            }
        };
        // What a read shows is how things stand when the venue answers it.
        self.answers.push((self.now + Duration::from_millis(after), effect, outcome, self.venue.orders.clone()));
    }

    /// One event: what is answered next, or what is due by itself.
    fn step(&mut self) {
        self.answers.sort_by_key(|(at, effect, ..)| (*at, *effect));
        let standings = self.standings();
        let answered = self.answers.first().map(|(at, ..)| *at);
        let next = [answered, self.plan.due(&standings)].into_iter().flatten().min();
        self.now = self.now.max(next.expect("a containment that runs always has something to wait for"));
        if answered.is_some_and(|at| at <= self.now) {
            let (_, effect, outcome, shown) = self.answers.remove(0);
            self.plan.handle_outcome(self.now, effect, &outcome, &shown);
        } else {
            self.plan.settle(self.now);
        }
        self.events += 1;
        if self.restart_after == Some(self.events) {
            self.answers.clear();
            let text = serde_json::to_string(&self.plan).expect("a containment is JSON");
            self.plan = serde_json::from_str(&text).expect("a containment reads back");
            self.plan.handle_restart(self.now);
        }
        self.poll();
        self.never_a_false_word();
    }

    fn run(&mut self, most: Duration) {
        let end = self.now + most;
        self.poll();
        let most = self.events + 20_000;
        let goes_on = |world: &Self| world.plan.is_running() || world.plan.due(&world.standings()).is_some();
        while (goes_on(self) || !self.answers.is_empty()) && self.now < end {
            self.step();
            assert!(self.events < most, "it spins: {:#?}\n{:#?}", self.plan.due(&self.standings()), self.plan);
        }
    }

    fn never_a_false_word(&self) {
        let left = self.venue.orders.values().any(|standing| *standing != Standing::Spare);
        match self.plan.ended {
            None => {}
            Some((_, End::Drilled | End::NotProved)) => panic!("no drill runs here: {:#?}", self.plan.progress()),
            Some((_, End::Frozen)) => assert!(!self.venue.can_trade(&key("bot"))),
            Some((_, End::Released)) => match self.venue.keys.get(&key("bot")) {
                Some(row) => assert_eq!(row.rights, RIGHTS),
                // Deleted by the kill before it, and by nothing else.
                None => assert!(self.venue.ledger.contains(&(Kind::Delete, key("bot").to_string()))),
            },
            Some((_, End::Contained | End::RevokedUnprobed)) => {
                assert!(!self.venue.keys.contains_key(&key("bot")) && !left, "{:#?}", self.plan.progress());
            }
        }
        if self.plan.blocked_at.is_some() {
            let others = self.venue.keys.keys().filter(|print| **print != key("cancel"));
            for print in others {
                assert!(!self.venue.can_trade(print), "{print}: {:#?}", self.plan.progress());
            }
        }
    }

    fn effects(&self, of: Kind) -> usize {
        self.venue.ledger.iter().filter(|(kind, _)| *kind == of).count()
    }

    /// Contained, with one effect for each step and key, and nothing else touched.
    fn check_contained(&self) {
        let told = format!("{:?} {:?}: {:#?}", self.faults, self.restart_after, self.plan.progress());
        assert_eq!(self.plan.ended.map(|(_, end)| end), Some(End::Contained), "{told}");
        let mut once = BTreeSet::new();
        for effect in &self.venue.ledger {
            assert!(once.insert(effect), "{effect:?} happened twice: {told}");
        }
        assert_eq!(self.effects(Kind::Cancel), 2, "{told}");
        assert!(self.venue.orders.contains_key(&order(1)), "a spared order was lost: {told}");
        assert!(self.venue.can_trade(&key("cancel")) && !self.venue.bot_runs, "{told}");
        assert_eq!((self.effects(Kind::Transfer), self.venue.free()), (2, 0), "{told}");
    }
}
