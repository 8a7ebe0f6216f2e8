//! The money at the end of a kill, inside the account's kernel: it goes to the master last, and not while something
//! points at the master's login.

use std::time::Duration;

use countersign::kernel::act::{Act, ActOutcome, KeyPrint, KeyRights, KeyRow};
use countersign::kernel::command::{Allowable, Command, Totp};
use countersign::kernel::containment::Aim;
use countersign::kernel::event::{AccessEvidence, AccessSource, Answer, Event, Ticket};
use countersign::kernel::order::Account;
use countersign::kernel::stopping::{DeclaredKey, KeyRole};

use crate::desk::dec;
use crate::stage::{Stage, may_stop};

fn stage() -> Stage {
    let mut stage = Stage::with(|declared| {
        may_stop(declared);
        declared.stopping.as_mut().unwrap().transfer_to_master = true;
        declared.familiar_networks = vec!["203.0.113.0/24".parse().unwrap()];
    });
    stage.venue.free = vec![("BTC", dec("0.5")), ("USDT", dec("120"))];
    stage
}

fn seen_at(stage: &mut Stage, address: &str, source: AccessSource, ago: Duration) {
    let at = countersign::kernel::time::Time::from_millis(stage.desk.now.millis() - ago.as_millis() as i64);
    let account = Account::new("main");
    let evidence = AccessEvidence { account, at, address: address.parse().unwrap(), source, action: None };
    stage.desk.event(Event::Access { ticket: Ticket(9), evidence });
    stage.desk.answers.pop();
}

fn kill(stage: &mut Stage) -> Vec<String> {
    assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
    stage.run(10_000);
    stage.venue.done.iter().filter(|done| done.starts_with("moved")).cloned().collect()
}

const BOTH: [&str; 2] = ["moved 0.5 BTC", "moved 120 USDT"];

#[test]
fn a_kill_moves_the_money_last_and_says_so_on_the_card() {
    let mut stage = stage();
    let plan = stage.desk.kernel.preview(Aim::Kill).unwrap();
    assert!(plan.steps.last().is_some_and(|step| step.what.starts_with("move the free money")), "{plan:#?}");
    assert_eq!(kill(&mut stage), BOTH);
    assert_eq!(stage.word(), "contained");
    let last = &stage.venue.done[stage.venue.done.len() - 2..];
    assert_eq!(last, BOTH, "after everything else: {:?}", stage.venue.done);
    let contained = stage.desk.incident("foreign_order").contained.unwrap();
    let told = "moved to the master: 0.5 BTC, 120 USDT";
    assert!(contained.lines.iter().any(|line| &*line.text == told), "{:#?}", contained.lines);
}

#[test]
fn an_unfamiliar_log_in_keeps_the_money_from_the_master() {
    let (day, hour) = (Duration::from_secs(86_400), Duration::from_secs(3_600));
    for (address, source, ago, moves) in [
        ("198.51.100.7", AccessSource::Venue, hour, false),
        ("198.51.100.7", AccessSource::Mail, 23 * hour, false),
        ("198.51.100.7", AccessSource::Mail, Duration::ZERO, false),
        ("203.0.113.9", AccessSource::Venue, hour, true),
        // They speak of keys, not of log-ins.
        ("198.51.100.7", AccessSource::Host, hour, true),
        ("198.51.100.7", AccessSource::BotEgress, hour, true),
        // An old one, of an export.
        ("198.51.100.7", AccessSource::Venue, day + hour, true),
    ] {
        let mut stage = stage();
        seen_at(&mut stage, address, source, ago);
        let plan = stage.desk.kernel.preview(Aim::Kill).unwrap();
        let withheld = plan.steps.last().and_then(|step| step.detail.clone());
        assert_eq!(withheld.is_none(), moves, "{address} {source:?} {ago:?}: said before it begins");
        let moved = kill(&mut stage);
        assert_eq!(moved.is_empty(), !moves, "{address} {source:?} {ago:?}: {moved:?}");
        let word = if moves { "contained" } else { "contained; not all money was moved" };
        assert_eq!(stage.word(), word, "{address} {source:?} {ago:?}");
        let card = stage.desk.incident("foreign_order").contained.unwrap();
        let told = card.lines.iter().any(|line| line.text.contains("NOT moved: somebody else may hold"));
        assert_eq!(told, !moves, "{:#?}", card.lines);
    }
}

#[test]
fn a_log_in_during_the_kill_counts_and_survives_a_restart() {
    let mut stage = stage();
    assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
    stage.run(2_000);
    seen_at(&mut stage, "198.51.100.7", AccessSource::Mail, Duration::ZERO);
    stage.desk.acts.clear();
    stage.desk.restart();
    stage.run(20_000);
    assert_eq!(stage.word(), "contained; not all money was moved");
    assert!(!stage.venue.done.iter().any(|done| done.starts_with("moved")), "{:?}", stage.venue.done);
}

/// The doubt outlives the containment that saw its reason: another kill sends no money there either.
#[test]
fn what_a_kill_saw_of_the_masters_login_counts_for_the_next_one() {
    let mut stage = stage();
    stage.desk.acts.clear();
    let rogue = KeyPrint::of("rogue");
    let row = KeyRow {
        key: rogue.clone(),
        name: "backup".into(),
        created_at: countersign::kernel::time::Time::EPOCH,
        rights: KeyRights { trade: true, ..KeyRights::NONE },
    };
    let own =
        |name: &str| KeyRow { key: KeyPrint::of(name), name: name.into(), rights: KeyRights::NONE, ..row.clone() };
    let mut lists = 0;
    let with_rogue = |act: &Act| match act {
        Act::ListKeys => {
            lists += 1;
            (lists == 1).then(|| ActOutcome::Keys(vec![own("watch"), own("cancel"), own("bot"), row.clone()]))
        }
        Act::SetRights { key, .. } if *key == rogue => Some(ActOutcome::Done { proof: "".into() }),
        _ => None,
    };
    assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
    stage.run_answering(20_000, with_rogue);
    assert_eq!(stage.word(), "contained; not all money was moved", "{:#?}", stage.desk.kernel.progress());
    assert_eq!(kill(&mut stage), [""; 0], "a second kill");
    assert_eq!(stage.word(), "contained; not all money was moved");
}

/// The owner made a new key for his bot while the account is being killed, and declared it: it is frozen with the rest, and
/// holds the end up no more.
#[test]
fn a_key_that_is_declared_during_a_kill_is_no_strangers() {
    let mut stage = stage();
    stage.desk.acts.clear();
    let new = KeyPrint::of("new");
    let row = |name: &str, rights| KeyRow {
        key: KeyPrint::of(name),
        name: name.into(),
        created_at: countersign::kernel::time::Time::EPOCH,
        rights,
    };
    let mut frozen = false;
    let mut with_new = |act: &Act| match act {
        Act::ListKeys => {
            let rights = KeyRights { trade: !frozen, ..KeyRights::NONE };
            let own = ["watch", "cancel"].map(|name| row(name, KeyRights::NONE));
            Some(ActOutcome::Keys(own.into_iter().chain([row("new", rights)]).collect()))
        }
        Act::SetRights { key, .. } if *key == new => {
            frozen = true;
            Some(ActOutcome::Done { proof: "".into() })
        }
        _ => None,
    };
    assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
    stage.run_answering(20_000, &mut with_new);
    assert_eq!(stage.word(), "not contained", "a key that nobody declared: {:#?}", stage.desk.kernel.progress());
    let keys = &mut stage.desk.declared.stopping.as_mut().unwrap().keys;
    keys.push(DeclaredKey { name: "new bot".into(), print: new.clone(), role: KeyRole::Bot });
    stage.desk.restart();
    stage.desk.live(2);
    // What is allowed changes meanwhile, and takes nothing back.
    let what = Allowable::Network("203.0.113.0/24".parse().unwrap());
    let allowed = stage.command(Command::Allow { what, for_s: None }, Totp::Right { step: 7 });
    assert_eq!(allowed, Answer::Done);
    stage.run_answering(30_000, &mut with_new);
    assert!(stage.word().starts_with("contained"), "{:#?}", stage.desk.kernel.progress());
}

#[test]
fn a_strangers_key_that_was_listed_before_and_is_gone_by_now_counts() {
    let mut stage = stage();
    stage.venue.done.clear();
    let look = stage.desk.acts.iter().position(|(_, act)| *act == Act::ListKeys).expect("the list is looked at");
    let (effect, act) = stage.desk.acts.remove(look).unwrap();
    let ActOutcome::Keys(mut rows) = stage.venue.act(&act) else { panic!("it lists") };
    rows.push(KeyRow { key: KeyPrint::of("rogue"), name: "backup".into(), ..rows[0].clone() });
    stage.desk.event(Event::Acted { effect, outcome: ActOutcome::Keys(rows) });
    assert_eq!(kill(&mut stage), [""; 0]);
    assert_eq!(stage.word(), "contained; not all money was moved");
}
