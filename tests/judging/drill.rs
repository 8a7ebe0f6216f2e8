//! Drills: judged like a theft, told like one, and counted nowhere.

use std::collections::BTreeMap;
use std::time::Duration;

use countersign::kernel::act::{Act, ActOutcome, KeyPrint, KeyRights, KeyRow, ProbeAnswer};
use countersign::kernel::command::{Command, Totp};
use countersign::kernel::containment::{Aim, StepState};
use countersign::kernel::declared::Declared;
use countersign::kernel::event::{Answer, EffectId, Event, TagCheck, Tags, Ticket};
use countersign::kernel::incident::{IncidentState, Notice, Priority};
use countersign::kernel::order::Symbol;
use countersign::kernel::rule::{Pack, RuleSet};
use countersign::kernel::stopping::{DeclaredKey, KeyRole, Means, Mode, Stopping};
use countersign::kernel::time::Time;

use crate::desk::{Desk, check};

fn drill(desk: &mut Desk) -> Answer {
    drill_of(desk, false)
}

fn drill_of(desk: &mut Desk, kill: bool) -> Answer {
    let mut order = desk.order(1, "countersign-drill");
    order.symbol = Symbol::new("DRILLUSDT");
    let (report, _) = order.placed();
    let tags = Tags { order: TagCheck::Absent, request: TagCheck::Absent };
    let (ticket, by, report) = (Ticket(1), "operator".into(), Box::new(report));
    desk.event(Event::Drill { ticket, by, report, tags, kill, raw: "{}".into() });
    desk.answers.pop().expect("a drill is answered")
}

fn told(desk: &Desk) -> Notice {
    desk.incident("drill")
}

#[test]
fn a_drill_is_told_as_a_theft_would_be_and_ends_by_itself() {
    let mut desk = Desk::open();
    let before = desk.kernel.status();
    assert_eq!(drill(&mut desk), Answer::Done);
    let notice = told(&desk);
    assert_eq!((notice.priority, notice.state, notice.orders), (Priority::Critical, IncidentState::Open, 0));
    assert!(notice.is_drill() && notice.notional.is_empty() && notice.symbols.is_empty());
    assert!(notice.headline.starts_with("DRILL ") && notice.headline.contains("An order that is not your bot's"));
    assert!(notice.lines[0].text.starts_with("DRILL by operator, no real order: "), "{notice:?}");
    assert!(notice.lines[0].text.contains("DRILLUSDT"), "{notice:?}");
    let status = desk.kernel.status();
    assert_eq!((status.orders, status.counts, status.open_incidents), (before.orders, before.counts, 0));
    assert!(matches!(drill(&mut desk), Answer::Refused { .. }), "one at a time");
    desk.wait_ms(30_000);
    assert_eq!(told(&desk).state, IncidentState::Ended);
    assert_eq!(drill(&mut desk), Answer::Done);
    assert_eq!(desk.kernel.notices().iter().filter(|notice| notice.is_drill()).count(), 2);
}

#[test]
fn a_drill_mixes_with_no_theft_and_contains_nothing() {
    let mut desk = Desk::open_with(|declared| {
        let key = DeclaredKey { name: "bot".into(), print: KeyPrint::of("bot"), role: KeyRole::Bot };
        declared.stopping = Some(Stopping {
            mode: Mode::Act,
            means: Means::SubAccount,
            keys: vec![key],
            hooks: Vec::new(),
            pausing: Vec::new(),
            quiet: Duration::from_secs(5),
            freeze_unanswered: Some(Duration::from_secs(10)),
            transfer_to_master: false,
        });
    });
    desk.wait_ms(86_400_000);
    desk.pass();
    desk.acts.clear();
    desk.reads.clear();
    assert_eq!(drill(&mut desk), Answer::Done);
    // Not even when somebody presses its button.
    let (ticket, by, incident) = (Ticket(2), "owner".into(), Some(told(&desk).incident));
    desk.event(Event::Command {
        ticket,
        by,
        way: None,
        why: None,
        incident,
        command: Command::Kill,
        totp: Totp::Absent,
    });
    let answer = desk.answers.pop();
    assert!(matches!(&answer, Some(Answer::Refused { reason }) if reason.contains("a drill")), "{answer:?}");
    assert!(matches!(&answer, Some(Answer::Refused { reason }) if reason.contains("/kill main")), "{answer:?}");
    desk.wait_ms(20_000);
    assert!(desk.acts.is_empty() && desk.reads.is_empty() && desk.kernel.progress().is_none());
    let thief = desk.order(3, "thief");
    desk.show(thief.placed());
    desk.wait_ms(1);
    desk.pass();
    assert_eq!(desk.incident("foreign_order").orders, 1);
    assert_eq!(told(&desk).orders, 0);
}

#[test]
fn a_drill_survives_a_restart_and_still_ends() {
    let mut desk = Desk::quiet(|_| {});
    assert_eq!(drill(&mut desk), Answer::Done);
    desk.restart();
    desk.live(9);
    desk.wait_ms(30_000);
    assert_eq!(told(&desk).state, IncidentState::Ended);
    assert_eq!(desk.kernel.status().orders.strangers, 0);
    check(&desk, "drill ended\n blind ended");
}

#[test]
fn no_pack_can_pass_for_a_drill() {
    let pack = |name: &str, cause: &str| -> Pack {
        let text = format!(
            "pack = \"p\"\n[[rule]]\nname = \"{name}\"\nheadline = \"h\"\ndescription = \"d\"\npriority = \"info\"\n\
             response = \"notify\"\ncause = \"{cause}\"\nwhen = {{ field = \"side\", in = [\"BUY\"] }}\n\
             fires = [{{ side = \"BUY\" }}]\nquiet = [{{ side = \"SELL\" }}]\n"
        );
        toml::from_str(&text).unwrap()
    };
    assert!(RuleSet::new([pack("mine", "stranger")]).is_ok());
    for (name, cause) in [("drill", "stranger"), ("mine", "drill")] {
        assert!(RuleSet::new([pack(name, cause)]).unwrap_err().contains("drill"), "{name} {cause}");
    }
}

const TRADES: KeyRights = KeyRights { trade: true, ..KeyRights::NONE };
const KEYS: [(&str, KeyRole); 4] =
    [("bot", KeyRole::Bot), ("watch", KeyRole::Watch), ("cancel", KeyRole::Cancel), ("fire-drill", KeyRole::Drill)];

fn may_drill(declared: &mut Declared) {
    let key = |(name, role): (&str, KeyRole)| DeclaredKey { name: name.into(), print: KeyPrint::of(name), role };
    declared.stopping = Some(Stopping {
        mode: Mode::Ask,
        means: Means::SubAccount,
        keys: KEYS.map(key).into(),
        hooks: vec!["unit".into()],
        pausing: Vec::new(),
        quiet: Duration::from_secs(5),
        freeze_unanswered: None,
        transfer_to_master: false,
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Refused,
    LostBefore,
    LostAfter,
    Garbage,
    Held,
    Slow,
}

/// An exchange with five keys, one of which nobody declared, and a daemon that may rehearse.
struct Hall {
    desk: Desk,
    keys: BTreeMap<&'static str, KeyRights>,
    /// What was done there, and what was called.
    done: Vec<String>,
    called: Vec<String>,
    /// The first call of a kind meets this; it may meet it each time.
    fault: Option<(&'static str, Fault, bool)>,
    answers: Vec<(Time, EffectId, ActOutcome)>,
    alive: bool,
}

impl Hall {
    fn new() -> Self {
        let mut keys = BTreeMap::from(KEYS.map(|(name, _)| (name, TRADES)));
        keys.insert("stranger", TRADES);
        let mut hall = Self {
            desk: Desk::open_with(may_drill),
            keys,
            done: Vec::new(),
            called: Vec::new(),
            fault: None,
            answers: Vec::new(),
            alive: true,
        };
        // The looks of the start.
        hall.run(1_000);
        hall.called.clear();
        hall
    }

    fn name_of(key: &KeyPrint) -> &'static str {
        let names = KEYS.iter().map(|(name, _)| *name).chain(["stranger"]);
        names.into_iter().find(|name| KeyPrint::of(name) == *key).expect("a key of this exchange")
    }

    fn act(&mut self, act: &Act) -> ActOutcome {
        let refused = || ActOutcome::Refused { code: -9000, reason: "no such key".into() };
        match act {
            Act::ListKeys => {
                let row = |(name, rights): (&&str, &KeyRights)| KeyRow {
                    key: KeyPrint::of(name),
                    name: (*name).into(),
                    created_at: Time::EPOCH,
                    rights: *rights,
                };
                ActOutcome::Keys(self.keys.iter().map(row).collect())
            }
            Act::SetRights { key, rights } => match self.keys.get_mut(Self::name_of(key)) {
                Some(held) => {
                    *held = *rights;
                    self.done.push(format!("{}: {rights}", Self::name_of(key)));
                    ActOutcome::Done { proof: "".into() }
                }
                None => refused(),
            },
            Act::DeleteKey { key } => match self.keys.remove(Self::name_of(key)) {
                Some(_) => {
                    self.done.push(format!("{}: deleted", Self::name_of(key)));
                    ActOutcome::Done { proof: "".into() }
                }
                None => refused(),
            },
            Act::Probe { key } => {
                let lives = self.alive && self.keys.contains_key(Self::name_of(key));
                let answer = if lives { ProbeAnswer::Alive { code: -1022 } } else { ProbeAnswer::Dead { code: -2015 } };
                ActOutcome::Probed([answer.clone(), answer])
            }
            Act::OpenOrders => ActOutcome::Orders(Vec::new()),
            Act::CancelOrder { .. } => unreachable!("there is no order to cancel"),
            Act::Balances
            | Act::Transfer { .. }
            | Act::FindTransfer { .. }
            | Act::Quote { .. }
            | Act::Sell { .. }
            | Act::FindOrder { .. } => unreachable!("a drill touches no money"),
            Act::StopBot { .. } => ActOutcome::Done { proof: "exit status 0".into() },
        }
    }

    fn kind(act: &Act) -> String {
        match act {
            Act::ListKeys => "list".to_owned(),
            Act::SetRights { key, .. } => format!("freeze {}", Self::name_of(key)),
            Act::DeleteKey { key } => format!("delete {}", Self::name_of(key)),
            Act::Probe { key } => format!("probe {}", Self::name_of(key)),
            Act::OpenOrders => "orders".to_owned(),
            Act::CancelOrder { .. } => "cancel".to_owned(),
            Act::StopBot { .. } => "stop".to_owned(),
            Act::Balances
            | Act::Transfer { .. }
            | Act::FindTransfer { .. }
            | Act::Quote { .. }
            | Act::Sell { .. }
            | Act::FindOrder { .. } => "money".to_owned(),
        }
    }

    fn call(&mut self, effect: EffectId, act: &Act) {
        let kind = Self::kind(act);
        let fault = self.fault.take_if(|(of, _, always)| kind.starts_with(*of) && !*always);
        let fault = fault.or(self.fault.filter(|(of, ..)| kind.starts_with(of))).map(|(_, fault, _)| fault);
        self.called.push(kind);
        let lost = ActOutcome::Unknown { reason: "timed out".into() };
        let (after, outcome) = match fault {
            None => (20, self.act(act)),
            Some(Fault::Refused) => (20, ActOutcome::Refused { code: -1000, reason: "no".into() }),
            Some(Fault::LostBefore) => (8_000, lost),
            Some(Fault::LostAfter) => {
                let _: ActOutcome = self.act(act);
                (8_000, lost)
            }
            Some(Fault::Garbage) => (20, ActOutcome::Unknown { reason: "the answer cannot be read".into() }),
            Some(Fault::Held) => {
                let until = self.desk.now + Duration::from_secs(20);
                (20, ActOutcome::Held { until, reason: "told to wait".into() })
            }
            Some(Fault::Slow) => (30_000, self.act(act)),
        };
        self.answers.push((self.desk.now + Duration::from_millis(after), effect, outcome));
    }

    fn run(&mut self, ms: u64) {
        let until = self.desk.now + Duration::from_millis(ms);
        while self.desk.now < until {
            while let Some((effect, act)) = self.desk.acts.pop_front() {
                self.call(effect, &act);
            }
            let (ready, later) =
                std::mem::take(&mut self.answers).into_iter().partition(|(at, ..)| *at <= self.desk.now);
            self.answers = later;
            let ready: Vec<(Time, EffectId, ActOutcome)> = ready;
            for (_, effect, outcome) in ready {
                self.desk.event(Event::Acted { effect, outcome });
            }
            if self.desk.acts.is_empty() {
                self.desk.wait_ms(10);
            }
        }
    }

    fn order(&mut self, command: Command) -> Answer {
        let (ticket, by, why) = (Ticket(9), "owner".into(), Some("it is over".into()));
        let (incident, totp) = (None, Totp::Right { step: 1 });
        self.desk.event(Event::Command { ticket, by, way: None, why, incident, command, totp });
        self.desk.answers.pop().expect("a command is answered")
    }

    #[track_caller]
    fn refused(&mut self, part: &str) {
        let answer = drill_of(&mut self.desk, true);
        assert!(matches!(&answer, Answer::Refused { reason } if reason.contains(part)), "{part}: {answer:?}");
    }

    fn word(&self) -> String {
        self.desk.kernel.drill_progress().map_or_else(String::new, |progress| progress.word.to_string())
    }

    /// Only the drill's key was touched, whatever else happened.
    #[track_caller]
    fn check_others(&self) {
        assert!(self.done.iter().all(|done| done.starts_with("fire-drill")), "{:?}", self.done);
        for kind in ["orders", "cancel", "stop", "probe bot", "probe stranger"] {
            assert!(!self.called.iter().any(|called| called == kind), "{kind}: {:?}", self.called);
        }
        for name in ["bot", "watch", "cancel", "stranger"] {
            assert_eq!(self.keys.get(name), Some(&TRADES), "{name}");
        }
        assert!(self.desk.kernel.progress().is_none(), "no real containment stands there");
    }
}

const PROVED: &str = "drill: the key is proved dead";

#[test]
fn a_drill_kills_one_key_and_touches_no_other() {
    let mut hall = Hall::new();
    let stopping = hall.desk.kernel.status().stopping;
    assert_eq!(drill_of(&mut hall.desk, true), Answer::Done);
    hall.refused("a drill is under way");
    hall.run(3_000);
    assert_eq!(hall.word(), PROVED, "{:#?}", hall.desk.kernel.drill_progress());
    hall.check_others();
    assert_eq!(hall.done, ["fire-drill: no right", "fire-drill: deleted"]);
    assert_eq!(hall.called.iter().find(|called| *called != "list"), Some(&"probe fire-drill".to_owned()));
    let progress = hall.desk.kernel.drill_progress().unwrap();
    let hops = [progress.alive_us, progress.blocked_us, progress.deleted_us, progress.gone_us, progress.dead_us];
    assert!(hops.iter().all(Option::is_some) && hops.is_sorted() && progress.proved, "{progress:#?}");
    assert!(progress.lines.iter().any(|line| line.text.contains("a drill leaves it alone")), "{progress:#?}");
    let notice = told(&hall.desk);
    assert!(notice.is_drill() && notice.headline.starts_with("DRILL "), "{notice:#?}");
    assert_eq!(notice.contained.as_ref().map(|contained| &*contained.word), Some(PROVED));
    hall.refused("no drill key: make a new one and declare it");
    hall.run(30_000);
    let ended = told(&hall.desk);
    assert_eq!(ended.state, IncidentState::Ended);
    assert!(ended.lines.last().unwrap().text.contains(PROVED), "{ended:#?}");
    // It counts nowhere; only that a new key is wanted is said.
    let status = hall.desk.kernel.status();
    assert_eq!(
        status.stopping.strip_prefix(&*stopping).map(|rest| rest.starts_with("; no drill key: make a")),
        Some(true)
    );
    hall.refused("no drill key: make a new one and declare it");
    hall.check_others();
}

#[test]
fn a_drilled_key_that_is_gone_is_no_finding_and_makes_no_kill_less_proved() {
    let mut hall = Hall::new();
    hall.keys.remove("stranger");
    drill_of(&mut hall.desk, true);
    hall.run(3_000);
    hall.desk.restart();
    hall.desk.live(3);
    hall.run(2_000);
    hall.desk.wait_ms(3_600_000);
    hall.run(2_000);
    let differ = |hall: &Hall| hall.desk.kernel.notices().into_iter().find(|notice| &*notice.rule == "keys_differ");
    assert!(differ(&hall).is_none_or(|notice| notice.state == IncidentState::Ended), "{:#?}", differ(&hall));
    let plan = hall.desk.kernel.preview(Aim::Kill).unwrap();
    let drilled = plan.steps.iter().filter(|step| step.what.contains("drill"));
    assert!(drilled.clone().count() == 3 && drilled.clone().all(|step| step.state == StepState::Proved), "{plan:#?}");
    assert_eq!(hall.order(Command::Kill), Answer::Done);
    hall.run(20_000);
    let progress = hall.desk.kernel.progress().unwrap();
    assert_eq!(&*progress.word, "contained", "{progress:#?}");
    hall.refused("the account is contained");
}

#[test]
fn each_step_may_fail_once_and_the_key_still_dies_proved() {
    for step in ["list", "probe", "freeze", "delete"] {
        for fault in [Fault::Refused, Fault::LostBefore, Fault::LostAfter, Fault::Garbage, Fault::Held, Fault::Slow] {
            let mut hall = Hall::new();
            hall.fault = Some((step, fault, false));
            assert_eq!(drill_of(&mut hall.desk, true), Answer::Done);
            hall.run(121_000);
            assert_eq!(hall.word(), PROVED, "{step} {fault:?}: {:#?}", hall.desk.kernel.drill_progress());
            hall.check_others();
            let deleted = hall.done.iter().filter(|done| done.ends_with("deleted")).count();
            assert_eq!(deleted, 1, "{step} {fault:?}: {:?}", hall.done);
        }
    }
}

#[test]
fn a_step_that_never_works_ends_at_the_deadline_with_its_reason() {
    for (step, fault, part) in [
        ("list", Fault::Garbage, "cannot be read"),
        ("probe", Fault::LostBefore, "did not answer as alive from this address"),
        ("freeze", Fault::Held, "told to wait"),
        ("delete", Fault::Refused, "delete key fire-drill (refused (-1000): no)"),
    ] {
        let mut hall = Hall::new();
        hall.fault = Some((step, fault, true));
        assert_eq!(drill_of(&mut hall.desk, true), Answer::Done);
        hall.run(121_000);
        let progress = hall.desk.kernel.drill_progress().unwrap();
        assert_eq!(&*progress.word, "drill: not proved", "{step}: {progress:#?}");
        assert!(progress.lines.last().unwrap().text.contains(part), "{step}: {progress:#?}");
        hall.check_others();
        hall.run(30_000);
        assert_eq!(told(&hall.desk).state, IncidentState::Ended);
        // What could not be proved can be tried again, as long as the key is there.
        hall.fault = None;
        if hall.keys.contains_key("fire-drill") {
            assert_eq!(drill_of(&mut hall.desk, true), Answer::Done, "{step}");
            hall.run(60_000);
            assert_eq!(hall.word(), PROVED, "{step}");
        }
    }
}

#[test]
fn a_key_that_cannot_be_seen_alive_is_left_as_it_is() {
    let mut hall = Hall::new();
    hall.alive = false;
    drill_of(&mut hall.desk, true);
    hall.run(20_000);
    let last = |hall: &Hall| hall.desk.kernel.drill_progress().unwrap().lines.last().unwrap().text.clone();
    assert!(last(&hall).contains("did not answer as alive from this address"), "{}", last(&hall));
    assert!(hall.done.is_empty(), "{:?}", hall.done);
    let mut hall = Hall::new();
    hall.keys.remove("fire-drill");
    drill_of(&mut hall.desk, true);
    hall.run(20_000);
    assert!(last(&hall).contains("the exchange's list does not show fire-drill: make a new key"), "{}", last(&hall));
    assert!(hall.done.is_empty(), "{:?}", hall.done);
}

#[test]
fn a_real_kill_in_the_middle_takes_everything_up() {
    for steps in 0..12 {
        for (command, word) in [(Command::Kill, "contained"), (Command::Freeze, "frozen")] {
            let mut hall = Hall::new();
            hall.keys.remove("stranger");
            drill_of(&mut hall.desk, true);
            hall.run(steps * 10);
            let ran = hall.desk.kernel.drill_progress().unwrap().ended_us.is_none();
            assert_eq!(hall.order(command.clone()), Answer::Done);
            assert!(hall.desk.kernel.drill_progress().unwrap().ended_us.is_some(), "at once");
            assert_eq!(hall.word() == PROVED, !ran, "after {steps}");
            hall.run(30_000);
            let progress = hall.desk.kernel.progress().unwrap();
            assert_eq!(&*progress.word, word, "after {steps}: {progress:#?}");
            let left = |name: &str| hall.keys.get(name).copied();
            match command {
                Command::Kill => assert_eq!((left("bot"), left("fire-drill")), (None, None), "after {steps}"),
                _ => {
                    assert_eq!(left("bot"), Some(KeyRights::NONE));
                    assert!(left("fire-drill").is_none_or(|rights| !rights.any()), "after {steps}");
                }
            }
            let deleted = hall.done.iter().filter(|done| *done == "fire-drill: deleted").count();
            assert!(deleted <= 1, "after {steps}: {:?}", hall.done);
            hall.refused(if word == "frozen" { "the account is frozen" } else { "the account is contained" });
        }
    }
    let mut hall = Hall::new();
    hall.order(Command::Kill);
    hall.refused("a real containment is under way");
}

#[test]
fn a_restart_in_the_middle_of_a_drill_goes_on_and_does_nothing_twice() {
    for steps in 0..14 {
        let mut hall = Hall::new();
        drill_of(&mut hall.desk, true);
        hall.run(steps * 10);
        for (_, act) in std::mem::take(&mut hall.desk.acts) {
            let _: ActOutcome = hall.act(&act);
        }
        hall.answers.clear();
        hall.desk.restart();
        hall.desk.live(7);
        hall.run(30_000);
        assert_eq!(hall.word(), PROVED, "after {steps}: {:#?}", hall.desk.kernel.drill_progress());
        hall.called.retain(|called| called != "probe bot");
        hall.check_others();
        assert_eq!(hall.done, ["fire-drill: no right", "fire-drill: deleted"], "after {steps}");
    }
}

#[test]
fn what_cannot_be_drilled_says_why() {
    let told = |change: fn(&mut Declared)| {
        let mut desk = Desk::open_with(|declared| {
            may_drill(declared);
            change(declared);
        });
        match drill_of(&mut desk, true) {
            Answer::Refused { reason } => reason.to_string(),
            Answer::Done | Answer::Requested { .. } => panic!("it began"),
        }
    };
    assert!(told(|declared| declared.stopping = None).contains("the mode is \"watch\""));
    assert!(told(|declared| declared.stopping.as_mut().unwrap().mode = Mode::Watch).contains("the mode is \"watch\""));
    assert!(told(|declared| declared.stopping.as_mut().unwrap().means = Means::ByHand).contains("no sub_account"));
    let none = told(|declared| declared.stopping.as_mut().unwrap().keys.retain(|key| key.role != KeyRole::Drill));
    assert!(none.contains("no drill key: make a new one and declare it"), "{none}");
}
