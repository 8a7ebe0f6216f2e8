//! The containment against a venue that behaves, in virtual time: each kind of call fails in each way, alone and in
//! pairs, and the process restarts between any two events. What was really done is counted in the venue's own ledger.

mod sweep;

use std::collections::BTreeSet;

use super::*;
use crate::kernel::act::{KeyRights, KeyRow, ProbeAnswer};
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

#[test]
fn a_kill_without_faults_is_proved_in_seconds() {
    let mut world = World::new(Aim::Kill);
    world.run(Duration::from_secs(60));
    world.check_contained();
    let progress = world.plan.progress();
    assert_eq!(&*progress.word, "contained");
    assert!(progress.blocked_ms.is_some_and(|ms| ms <= 200), "{progress:#?}");
    assert!(progress.ended_ms.is_some_and(|ms| ms <= 7_000), "{progress:#?}");
    assert!(progress.steps.iter().all(|step| step.state == StepState::Proved), "{progress:#?}");
}

#[test]
fn every_step_fails_in_every_way_alone_in_pairs_and_through_a_restart() {
    let mut cases = 0;
    let mut faults: Vec<(Kind, u32, Fault)> = Vec::new();
    for kind in KINDS {
        faults.extend(FAULTS.map(|fault| (kind, 1, fault)));
        faults.extend(FAULTS.map(|fault| (kind, 2, fault)));
    }
    let mut check = |faults: &[(Kind, u32, Fault)], restart_after| {
        let mut world = World::new(Aim::Kill);
        world.faults = faults.to_vec();
        world.restart_after = restart_after;
        world.run(Duration::from_secs(1_200));
        let probes_lost = faults.iter().filter(|(kind, ..)| *kind == Kind::Probe).count();
        if probes_lost >= 2 && world.plan.ended.map(|(_, end)| end) == Some(End::RevokedUnprobed) {
            // Nobody saw it alive before, so the dead answers do not count, and it says so.
            assert_eq!(world.effects(Kind::Delete), 1);
        } else {
            world.check_contained();
        }
        cases += 1;
    };
    for (index, first) in faults.iter().enumerate() {
        check(&[*first], None);
        for second in &faults[index + 1..] {
            check(&[*first, *second], None);
        }
        for restart_after in 1..=40 {
            check(&[*first], Some(restart_after));
        }
    }
    for restart_after in 1..=40 {
        check(&[], Some(restart_after));
    }
    println!("{cases} cases");
}

#[test]
fn a_step_that_never_works_is_never_called_contained() {
    for kind in [Kind::List, Kind::Delete, Kind::Read, Kind::Cancel] {
        let works = |fault: &Fault| matches!(fault, Fault::LostAfter | Fault::Slow | Fault::Never);
        for fault in FAULTS.into_iter().filter(|fault| !works(fault)) {
            let mut world = World::new(Aim::Kill);
            world.faults = (1..10_000).map(|nth| (kind, nth, fault)).collect();
            world.run(Duration::from_secs(600));
            let progress = world.plan.progress();
            assert_eq!(&*progress.word, "not contained", "{kind:?} {fault:?}: {progress:#?}");
            assert!((4..400).contains(&world.calls[&kind]), "{kind:?} {fault:?}: {:?} {progress:#?}", world.calls);
        }
    }
}

#[test]
fn an_act_that_is_never_answered_is_found_out_about_after_a_minute_and_a_late_answer_changes_nothing() {
    let mut world = World::new(Aim::Kill);
    world.faults = vec![(Kind::Delete, 1, Fault::Never)];
    world.run(Duration::from_secs(30));
    let (effect, act) =
        world.plan.under_way.iter().find(|(_, act)| kind(act) == Kind::Delete).expect("it is waited for");
    let (effect, act) = (*effect, act.clone());
    assert_eq!((world.effects(Kind::Delete), world.plan.ended), (1, None));
    world.run(Duration::from_secs(60));
    world.check_contained();
    assert!(world.plan.asked(effect).is_none(), "{act:?}");
    let told = world.plan.clone();
    world.plan.handle_outcome(world.now, effect, &ActOutcome::Done { proof: "".into() }, &BTreeMap::new());
    assert_eq!(world.plan, told);
}

#[test]
fn a_key_that_cannot_be_called_from_here_is_revoked_and_unprobed() {
    let mut world = World::new(Aim::Kill);
    world.venue.reachable.clear();
    world.run(Duration::from_secs(60));
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::RevokedUnprobed), "{:#?}", world.plan.progress());
    let prove = world.plan.steps().into_iter().find(|step| step.what.starts_with("prove")).unwrap();
    assert_eq!(prove.state, StepState::NotProved);
}

#[test]
fn a_key_that_nobody_declared_is_frozen_asked_about_and_keeps_it_from_being_contained() {
    let mut world = World::new(Aim::Kill);
    let rogue = KeyRow { key: key("rogue"), name: "backup\u{202e}".into(), created_at: START, rights: RIGHTS };
    world.venue.keys.insert(rogue.key.clone(), rogue);
    world.run(Duration::from_secs(120));
    assert!(world.plan.is_running() && !world.venue.can_trade(&key("rogue")));
    assert!(world.venue.keys.contains_key(&key("rogue")), "never deleted unasked");
    assert!(world.plan.lines().iter().any(|line| line.text.contains("not declared, newer than")));

    world.plan.delete_too(world.now, &key("rogue"), "owner").unwrap();
    world.run(Duration::from_secs(120));
    // It was never called from here, so its end is not proved by probes.
    assert!(!world.venue.keys.contains_key(&key("rogue")) && !world.plan.is_running());
    assert!(world.plan.delete_too(world.now, &key("cancel"), "owner").is_err());
}

#[test]
fn an_allowed_key_is_frozen_with_the_rest_holds_nothing_up_and_is_given_back() {
    let rogue = || KeyRow { key: key("rogue"), name: "second bot".into(), created_at: START, rights: RIGHTS };
    let allowed = || BTreeSet::from([key("rogue")]);
    // Allowed while the kill asks about it, and allowed before.
    for before in [false, true] {
        let mut world = World::new(Aim::Kill);
        world.venue.keys.insert(key("rogue"), rogue());
        if before {
            world.plan.allow(world.now, allowed());
        }
        world.run(Duration::from_secs(120));
        assert_eq!(world.plan.is_running(), !before, "{:#?}", world.plan.progress());
        assert!(!world.venue.can_trade(&key("rogue")), "any key may be the thief's");
        world.plan.allow(world.now, allowed());
        world.run(Duration::from_secs(120));
        assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Contained), "{:#?}", world.plan.progress());
        assert!(world.venue.keys.contains_key(&key("rogue")) && !world.venue.can_trade(&key("rogue")));
        let asked = Asked { aim: Aim::Release, by: "owner".into(), incident: None };
        world.plan.release(world.now, &asked).unwrap();
        world.run(Duration::from_secs(120));
        assert_eq!(world.venue.keys[&key("rogue")].rights, RIGHTS);
    }
    // What is not allowed any more is a stranger's again.
    let mut world = World::new(Aim::Kill);
    world.venue.keys.insert(key("rogue"), rogue());
    world.plan.allow(world.now, allowed());
    world.plan.allow(world.now, BTreeSet::new());
    world.run(Duration::from_secs(120));
    assert!(world.plan.is_running());
    // A freeze, a release and a freeze again take and give the same.
    let mut world = World::new(Aim::Freeze);
    world.venue.keys.insert(key("rogue"), rogue());
    world.plan.allow(world.now, allowed());
    for aim in [Aim::Freeze, Aim::Release, Aim::Freeze] {
        let asked = Asked { aim, by: "owner".into(), incident: None };
        if aim == Aim::Release {
            world.plan.release(world.now, &asked).unwrap();
        } else if !world.plan.is_running() {
            world.plan.take_up(world.now, asked, &stopping(Means::SubAccount));
        }
        world.run(Duration::from_secs(120));
        assert!(!world.plan.is_running());
        assert_eq!(world.venue.can_trade(&key("rogue")), aim == Aim::Release, "{aim:?}");
    }
}

#[test]
fn a_key_made_during_the_containment_is_found_before_the_end() {
    let mut world = World::new(Aim::Kill);
    world.poll();
    for _ in 0..6 {
        world.step();
    }
    let rogue = KeyRow { key: key("late"), name: "late".into(), created_at: world.now, rights: RIGHTS };
    world.venue.keys.insert(rogue.key.clone(), rogue);
    // Until the next list nobody can know of it.
    while world.plan.is_running() && world.now < START + Duration::from_secs(120) {
        world.answers.sort_by_key(|(at, effect, ..)| (*at, *effect));
        world.plan.blocked_at.get_or_insert(world.now);
        world.venue.keys.get_mut(&key("late")).unwrap().rights = KeyRights::NONE;
        world.step();
    }
    assert!(world.plan.is_running(), "{:#?}", world.plan.progress());
}

#[test]
fn strangers_orders_after_every_key_is_blocked_make_our_own_key_a_suspect() {
    let mut world = World::new(Aim::Kill);
    world.run(Duration::from_secs(60));
    world.check_contained();
    world.now = world.now + Duration::from_secs(30);
    world.venue.orders.insert(order(9), Standing::Cancel);
    world.plan.handle_foreign(world.now, world.now, "order 9 of THINUSDT is not your bot's");
    assert!(world.plan.is_running(), "a word that does not hold any more is taken back");
    world.run(Duration::from_secs(60));
    assert!(!world.venue.can_trade(&key("cancel")), "{:#?}", world.plan.progress());
}

#[test]
fn a_freeze_takes_every_right_and_nothing_else_and_can_become_a_kill() {
    let mut world = World::new(Aim::Freeze);
    world.run(Duration::from_secs(60));
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Frozen), "{:#?}", world.plan.progress());
    assert!(!world.venue.can_trade(&key("bot")) && world.venue.orders.len() == 3 && world.venue.bot_runs);
    assert_eq!(world.venue.ledger.len(), 1);
    let asked = Asked { aim: Aim::Kill, by: "owner".into(), incident: None };
    world.plan.take_up(world.now, asked, &stopping(Means::SubAccount));
    world.run(Duration::from_secs(60));
    world.check_contained();
}

#[test]
fn a_release_gives_back_what_a_freeze_took_and_nothing_to_a_stranger() {
    for fault in FAULTS.map(Some).into_iter().chain([None]) {
        let mut world = World::new(Aim::Freeze);
        let rogue = KeyRow { key: key("rogue"), name: "rogue".into(), created_at: START, rights: RIGHTS };
        world.venue.keys.insert(rogue.key.clone(), rogue);
        world.run(Duration::from_secs(60));
        let asked = Asked { aim: Aim::Release, by: "owner".into(), incident: None };
        // The first change of rights after those of the freeze.
        let nth = world.calls[&Kind::Freeze] + 1;
        world.faults.extend(fault.map(|fault| (Kind::Freeze, nth, fault)));
        world.plan.release(world.now, &asked).unwrap();
        world.run(Duration::from_secs(600));
        assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Released), "{fault:?} {:#?}", world.plan);
        assert!(!world.venue.can_trade(&key("rogue")));
        assert_eq!(world.effects(Kind::Freeze), 3, "{:?}", world.venue.ledger);
        assert!(world.plan.release(world.now, &asked).is_err(), "there is nothing more to give back");
    }
}

/// Before any list was read, nothing has been taken: the freeze is called off, and the key is no stranger to the next one.
#[test]
fn a_release_before_anything_was_taken_calls_the_freeze_off_and_a_later_freeze_takes_the_key() {
    let mut world = World::new(Aim::Freeze);
    world.faults = vec![(Kind::List, 1, Fault::Slow)];
    world.poll();
    let asked = |aim| Asked { aim, by: "owner".into(), incident: None };
    world.plan.release(world.now, &asked(Aim::Release)).expect("nothing stands against it");
    world.run(Duration::from_secs(60));
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Released), "{:#?}", world.plan.progress());
    assert_eq!(world.effects(Kind::Freeze), 0);
    world.plan.take_up(world.now, asked(Aim::Freeze), &stopping(Means::SubAccount));
    world.run(Duration::from_secs(60));
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Frozen), "{:#?}", world.plan.progress());
    assert!(!world.venue.can_trade(&key("bot")));
}

#[test]
fn a_freeze_in_the_middle_of_a_release_freezes_and_a_release_after_it_gives_the_same_rights_back() {
    let asked = |aim| Asked { aim, by: "owner".into(), incident: None };
    for steps in 0..12 {
        let mut world = World::new(Aim::Freeze);
        world.run(Duration::from_secs(60));
        // The change that gives the rights back is slow: it lands after the second freeze was asked for.
        let nth = world.calls[&Kind::Freeze] + 1;
        world.faults.push((Kind::Freeze, nth, Fault::Slow));
        world.plan.release(world.now, &asked(Aim::Release)).unwrap();
        world.poll();
        for _ in 0..steps {
            if world.plan.is_running() {
                world.step();
            }
        }
        world.plan.take_up(world.now, asked(Aim::Freeze), &stopping(Means::SubAccount));
        world.run(Duration::from_secs(120));
        let told = format!("after {steps}: {:#?}", world.plan);
        assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Frozen), "{told}");
        assert!(!world.venue.can_trade(&key("bot")), "{told}");
        world.plan.release(world.now, &asked(Aim::Release)).unwrap();
        world.run(Duration::from_secs(120));
        assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Released), "{:#?}", world.plan);
        assert_eq!(world.venue.keys[&key("bot")].rights, RIGHTS);
    }
}

/// Another sub-account's list: no key of ours is gone because it is not there, and no key there is a stranger's.
#[test]
fn a_list_without_our_own_key_is_not_this_accounts() {
    for aim in [Aim::Freeze, Aim::Kill] {
        let mut world = World::new(aim);
        let others = KeyRow { key: key("other"), name: "other".into(), created_at: START, rights: RIGHTS };
        world.venue.keys.retain(|print, _| *print == key("bot"));
        world.venue.keys.insert(others.key.clone(), others);
        world.run(Duration::from_secs(120));
        assert!(world.plan.is_running(), "{:#?}", world.plan.progress());
        assert!(world.venue.can_trade(&key("other")), "an innocent key was frozen");
        let list = world.plan.steps().into_iter().find(|step| step.what.starts_with("freeze every key")).unwrap();
        assert!(list.detail.unwrap().contains("does not show countersign's own watch key"));
    }
}

#[test]
fn an_order_that_the_bots_late_word_clears_is_not_cancelled_any_more() {
    let mut world = World::new(Aim::Kill);
    for id in 10..30 {
        world.venue.orders.insert(order(id), Standing::Cancel);
    }
    world.poll();
    // Eight cancels at once; this one waits for its turn.
    world.venue.orders.insert(order(29), Standing::Spare);
    world.run(Duration::from_secs(60));
    assert!(world.venue.orders.contains_key(&order(29)), "{:?}", world.venue.ledger);
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Contained), "{:#?}", world.plan.progress());
}

#[test]
fn by_hand_a_key_whose_addresses_were_changed_is_not_dead() {
    let mut world = World::by(Means::ByHand, Aim::Kill);
    world.run(Duration::from_secs(30));
    // Our address was shut out; the key lives on.
    assert!(world.venue.reachable.remove(&key("bot")));
    world.run(Duration::from_secs(300));
    assert!(world.plan.is_running() && world.plan.blocked_at.is_none(), "{:#?}", world.plan.progress());
}

#[test]
fn a_key_that_its_owner_deleted_meanwhile_holds_nothing_up() {
    let mut world = World::new(Aim::Freeze);
    assert!(world.venue.keys.remove(&key("bot")).is_some());
    world.run(Duration::from_secs(60));
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Frozen), "{:#?}", world.plan.progress());
    let mut world = World::new(Aim::Kill);
    world.plan.keys.get_mut(&key("bot")).unwrap().shown_alive_at = Some(START);
    assert!(world.venue.keys.remove(&key("bot")).is_some());
    world.run(Duration::from_secs(60));
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Contained), "{:#?}", world.plan.progress());
}

#[test]
fn more_keys_than_can_be_followed_are_never_called_contained() {
    let mut world = World::new(Aim::Kill);
    for nth in 0..KEYS_MAX {
        let print = key(&format!("k{nth}"));
        let row = KeyRow { key: print.clone(), name: "k".into(), created_at: START, rights: KeyRights::NONE };
        world.venue.keys.insert(print, row);
    }
    world.run(Duration::from_secs(60));
    let list = world.plan.steps().into_iter().find(|step| step.what.starts_with("freeze every key")).unwrap();
    assert!(world.plan.is_running() && list.detail.unwrap().contains("than are followed"));
}

#[test]
fn without_a_masters_key_a_person_deletes_and_the_probe_says_when_it_is_done() {
    let mut world = World::by(Means::ByHand, Aim::Kill);
    world.run(Duration::from_secs(120));
    assert!(world.plan.is_running());
    assert!(!world.venue.orders.contains_key(&order(2)), "strangers' orders are cancelled meanwhile");
    world.venue.orders.insert(order(7), Standing::Cancel);
    world.run(Duration::from_secs(60));
    assert!(!world.venue.orders.contains_key(&order(7)), "again and again");
    assert!(world.venue.keys.remove(&key("bot")).is_some());
    world.run(Duration::from_secs(60));
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Contained), "{:#?}", world.plan.progress());
    assert_eq!(world.effects(Kind::Freeze) + world.effects(Kind::Delete), 0);
}

#[test]
fn orders_that_only_a_read_shows_are_cancelled_too() {
    let mut world = World::new(Aim::Kill);
    world.stream = false;
    world.run(Duration::from_secs(60));
    world.check_contained();
}

#[test]
fn an_order_whose_verdict_waits_is_neither_touched_nor_gone() {
    let mut world = World::new(Aim::Kill);
    world.venue.orders.insert(order(4), Standing::Wait);
    world.run(Duration::from_secs(60));
    assert!(world.plan.is_running() && world.venue.orders.contains_key(&order(4)));
    world.venue.orders.insert(order(4), Standing::Spare);
    world.run(Duration::from_secs(60));
    world.check_contained();
}
