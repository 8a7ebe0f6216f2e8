//! Commands, acts and what the card says of them: the containment inside the account's kernel.

use countersign::kernel::act::{Act, ActOutcome, KeyPrint, KeyRights, KeyRow};
use countersign::kernel::command::{Command, Totp};
use countersign::kernel::containment::{Aim, StepState};
use countersign::kernel::event::{AccessEvidence, AccessSource, Answer, Event, ReadOutcome, Tags, Ticket};
use countersign::kernel::incident::{IncidentState, Priority};
use countersign::kernel::intent::{IntentBody, IntentRecord, OrderTerms};
use countersign::kernel::order::{Account, OrderStatus, OrderType, Side, TimeInForce};
use countersign::kernel::people::Way;
use countersign::kernel::report::ExecutionReport;
use countersign::kernel::stopping::KeyRole;
use countersign::kernel::time::Time;

use crate::desk::{Desk, START, check, dec};
use crate::stage::{Stage, TRADES, Venue, may_stop};

#[test]
fn a_kill_spares_the_bots_orders_and_stands_on_the_card() {
    let mut stage = Stage::new();
    assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
    assert_eq!(stage.word(), "not contained");
    stage.run(7_000);
    assert_eq!(stage.word(), "contained", "{:#?}", stage.desk.kernel.progress());
    stage.venue.done.sort();
    assert_eq!(stage.venue.done, ["cancelled 3", "deleted", "rights: no right"]);
    let contained = stage.desk.incident("foreign_order").contained.expect("it stands on the card");
    assert_eq!((&*contained.word, &*contained.asked_by), ("contained", "owner"));
    assert!(contained.blocked_ms.is_some() && contained.orders_gone_ms.is_some());
    assert!(contained.lines.iter().any(|line| line.text.contains("dead: -2015 (dead) and -2015 (dead)")));
    // The end of a stranger's order by our own hand is nobody's theft.
    let cancelled = stage.desk.order(3, "thief").canceled("ours");
    stage.desk.show(cancelled);
    stage.run(20_000);
    check(&stage.desk, "order 2: matched B\n order 3: foreign\n cancel 3: matched\n foreign_order orders=1");
}

/// A bot that cannot be stopped keeps nobody from freezing later, and is tried on.
#[test]
fn a_freeze_is_taken_after_a_kill_whose_bot_was_never_stopped() {
    let mut stage = Stage::with(|declared| {
        may_stop(declared);
        declared.stopping.as_mut().unwrap().hooks = vec!["unit".into()];
    });
    let mut stops = 0;
    let mut fails = |act: &Act| {
        let stop = matches!(act, Act::StopBot { .. });
        stops += usize::from(stop);
        stop.then(|| ActOutcome::Refused { code: 0, reason: "no such unit".into() })
    };
    assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
    stage.run_answering(10_000, &mut fails);
    assert_eq!(stage.word(), "contained; the bot is not stopped", "{:#?}", stage.desk.kernel.progress());
    assert_eq!(stage.command(Command::Freeze, Totp::Absent), Answer::Done);
    stage.run_answering(60_000, &mut fails);
    assert_eq!(stage.word(), "frozen", "{:#?}", stage.desk.kernel.progress());
    assert!(stops > 3, "{stops}");
    let stopped = |act: &Act| matches!(act, Act::StopBot { .. }).then(|| ActOutcome::Done { proof: "inactive".into() });
    stage.run_answering(120_000, stopped);
    let progress = stage.desk.kernel.progress().unwrap();
    assert!(progress.lines.iter().any(|line| line.text.contains("stopped by unit")), "{progress:#?}");
}

fn stopped_by(way: &str, pausing: bool) -> Stage {
    Stage::with(|declared| {
        may_stop(declared);
        let stopping = declared.stopping.as_mut().unwrap();
        stopping.hooks = vec![way.into()];
        stopping.pausing = stopping.hooks.iter().filter(|_| pausing).cloned().collect();
    })
}

fn check_it_is_told_that_the_bot_still_speaks(stage: &Stage) {
    assert_eq!(stage.word(), "contained; the bot still speaks");
    assert!(stage.desk.kernel.status().stopping.contains("the bot still speaks"));
    let card = stage.desk.incident("foreign_order").contained.unwrap();
    let told = card.lines.iter().filter(|line| line.text.starts_with("NOT STOPPED: bot mm")).count();
    assert_eq!((&*card.word, told), ("contained; the bot still speaks", 1), "{card:#?}");
    let told = stage.desk.incident("bot_still_speaks");
    assert_eq!((told.priority, told.state), (Priority::Critical, IncidentState::Open));
}

/// A way to stop the bot proves nothing by its own answer while the bot goes on speaking to us.
#[test]
fn a_bot_that_still_speaks_was_not_stopped() {
    let beat = |desk: &mut Desk| desk.pass_as("mm");
    let announce = |desk: &mut Desk| {
        let order = desk.order(9, "later");
        desk.say(order.place());
    };
    // Written before the stop, and sent again: it had read no word of ours since.
    let repeat = |desk: &mut Desk| {
        let order = desk.order(9, "later");
        let record = desk.write(order.place());
        desk.deliver(IntentRecord { nonce: Some(START), ..record });
    };
    type Speech<'a> = &'a dyn Fn(&mut Desk);
    for (way, pausing, speaks, disproved) in [
        ("command", false, Some(&beat as Speech<'_>), true),
        ("command", false, Some(&announce as Speech<'_>), true),
        // The process lives on, and only what it announces is against it.
        ("freqtrade", true, Some(&beat as Speech<'_>), false),
        ("freqtrade", true, Some(&announce as Speech<'_>), true),
        ("freqtrade", true, Some(&repeat as Speech<'_>), false),
        ("command", false, None, false),
    ] {
        let mut stage = stopped_by(way, pausing);
        let stopped =
            |act: &Act| matches!(act, Act::StopBot { .. }).then(|| ActOutcome::Done { proof: "status 0".into() });
        assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
        // What was on its way is no word against it; what follows soon is, so no beat is left out of the journal.
        stage.run_answering(1_000, stopped);
        assert_eq!(stage.desk.kernel.heartbeat_wanted(), !pausing);
        speaks.inspect(|speaks| speaks(&mut stage.desk));
        assert_eq!(stage.word(), "not contained");
        stage.run_answering(6_000, stopped);
        assert_eq!(stage.word(), "contained", "{way}");
        assert!(!stage.desk.kernel.heartbeat_wanted());
        for _ in 0..20 {
            speaks.inspect(|speaks| speaks(&mut stage.desk));
            stage.run_answering(1_000, stopped);
        }
        stage.desk.restart();
        speaks.inspect(|speaks| speaks(&mut stage.desk));
        let progress = stage.desk.kernel.progress().unwrap();
        let step = progress.steps.iter().find(|step| step.what.contains(way)).unwrap();
        let state = if disproved { StepState::NotProved } else { StepState::Proved };
        assert_eq!(step.state, state, "{way}: {progress:#?}");
        if !disproved {
            assert_eq!(stage.word(), "contained");
            continue;
        }
        assert!(step.detail.as_ref().unwrap().contains("bot mm still speaks"), "{step:#?}");
        check_it_is_told_that_the_bot_still_speaks(&stage);
        // It falls silent, and is asked to stop once more.
        stage.run_answering(60_000, stopped);
        assert_eq!(stage.word(), "contained");
        assert_eq!(stage.desk.incident("bot_still_speaks").state, IncidentState::Ended);
        // So much later it is a bot that was started again.
        stage.run_answering(700_000, stopped);
        speaks.inspect(|speaks| speaks(&mut stage.desk));
        assert_eq!(stage.word(), "contained");
    }
}

/// What cannot be given back is said before a one-time password is used up for it.
#[test]
fn a_release_of_nothing_uses_up_no_password() {
    let refused = |answer: Answer, why: &str| {
        assert!(matches!(&answer, Answer::Refused { reason } if reason.contains(why)), "{answer:?}");
    };
    let mut stage = Stage::new();
    refused(stage.command(Command::Resume, Totp::Right { step: 7 }), "nothing was frozen");
    assert_eq!(stage.command(Command::Freeze, Totp::Absent), Answer::Done);
    stage.run(2_000);
    assert_eq!(stage.command(Command::Resume, Totp::Right { step: 7 }), Answer::Done);
    stage.run(2_000);
    refused(stage.command(Command::Resume, Totp::Right { step: 8 }), "no declared key is frozen");
    assert_eq!(stage.command(Command::Freeze, Totp::Absent), Answer::Done);
    stage.run(2_000);
    assert_eq!(stage.command(Command::Resume, Totp::Right { step: 8 }), Answer::Done);
}

/// A freeze without a theft is over with its release; a theft is none the less one.
#[test]
fn a_release_ends_what_was_frozen_without_a_theft() {
    let mut stage = Stage { desk: Desk::open_with(may_stop), venue: Venue::with(Vec::new()) };
    assert_eq!(stage.command(Command::Freeze, Totp::Absent), Answer::Done);
    stage.run(5_000);
    assert_eq!(stage.desk.incident("containment").state, IncidentState::Open);
    assert_eq!(stage.command(Command::Resume, Totp::Right { step: 7 }), Answer::Done);
    stage.run(180_000);
    assert_eq!(stage.word(), "released");
    let card = stage.desk.incident("containment");
    let last = card.lines.last().unwrap();
    assert_eq!(
        (card.state, &*last.text),
        (IncidentState::Ended, "released by owner; what each key got back stands under what we did")
    );
    assert!(card.advice.len() == 1 && card.advice[0].contains("The keys may trade again"), "{card:#?}");
    // The next one is told of anew.
    assert_eq!(stage.command(Command::Freeze, Totp::Absent), Answer::Done);
    stage.run(5_000);
    let again = stage.desk.kernel.notices().into_iter().next_back().unwrap();
    assert!(again.incident != card.incident && again.state == IncidentState::Open, "{again:#?}");
    assert_eq!((&*again.rule, &*again.contained.unwrap().word), ("containment", "frozen"));

    let mut theft = Stage::new();
    assert_eq!(theft.command(Command::Freeze, Totp::Absent), Answer::Done);
    theft.run(5_000);
    assert_eq!(theft.command(Command::Resume, Totp::Right { step: 7 }), Answer::Done);
    theft.run(180_000);
    let card = theft.desk.incident("foreign_order");
    assert_eq!((card.state, &*card.contained.unwrap().word), (IncidentState::Open, "released"));
}

/// The book keeps so many incidents, and those that are over give way first: what is done about a theft later is told on
/// its card, whatever became of the card of the last freeze.
#[test]
fn a_kill_is_told_though_the_card_of_an_earlier_freeze_is_gone() {
    for theft in [false, true] {
        let mut stage = Stage { desk: Desk::open_with(may_stop), venue: Venue::with(Vec::new()) };
        assert_eq!(stage.command(Command::Freeze, Totp::Absent), Answer::Done);
        stage.run(5_000);
        assert_eq!(stage.command(Command::Resume, Totp::Right { step: 7 }), Answer::Done);
        stage.run(180_000);
        let gone = stage.desk.incident("containment").incident;
        for _ in 0..600 {
            stage.desk.lost(1);
            stage.desk.live(1);
            stage.desk.reads.clear();
        }
        assert!(stage.desk.kernel.notices().iter().all(|notice| notice.incident != gone));
        if theft {
            let thief = stage.desk.order(3, "thief");
            stage.desk.show(thief.placed());
            stage.desk.pass();
        }
        assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
        let card = stage.desk.incident(if theft { "foreign_order" } else { "containment" });
        let word = card.contained.map(|contained| contained.word);
        assert_eq!((card.state, word.as_deref()), (IncidentState::Open, Some("not contained")), "{theft}");
    }
}

#[test]
fn a_kill_after_a_freeze_has_its_own_asker_and_its_own_clocks() {
    let mut stage = Stage::new();
    let by = |stage: &mut Stage, by: &str, command, totp| {
        let (ticket, way, why) = (Ticket(77), Some(Way::Host { uid: 0 }), Some("it is over".into()));
        stage.desk.event(Event::Command { ticket, by: by.into(), way, why, incident: None, command, totp });
        assert_eq!(stage.desk.answers.pop(), Some(Answer::Done));
    };
    by(&mut stage, "bob", Command::Freeze, Totp::Absent);
    stage.run(5_000);
    by(&mut stage, "alice", Command::Resume, Totp::Right { step: 7 });
    stage.run(180_000);
    by(&mut stage, "carol", Command::Kill, Totp::Absent);
    stage.run(10_000);
    let progress = stage.desk.kernel.progress().unwrap();
    assert_eq!((&*progress.word, &*progress.asked_by), ("contained", "carol"));
    for ms in [progress.blocked_ms, progress.orders_gone_ms, progress.ended_ms] {
        assert!(ms.is_some_and(|ms| (0..10_000).contains(&ms)), "{progress:#?}");
    }
}

/// A wrong sub-account would show in an emergency only.
#[test]
fn a_list_that_is_refused_is_told_before_it_is_needed() {
    let mut stage = Stage::new();
    let refused = |act: &Act| {
        (*act == Act::ListKeys).then(|| ActOutcome::Refused { code: -9000, reason: "Unsupported operation".into() })
    };
    stage.run_answering(1_000, refused);
    let told = stage.desk.incident("keys_unlisted");
    assert_eq!((told.priority, told.state), (Priority::Critical, IncidentState::Open));
    stage.run(3_700_000);
    assert_eq!(stage.desk.incident("keys_unlisted").state, IncidentState::Ended);
}

/// Whether an order is spared is a matter of who announced it, and not of its type.
#[test]
fn a_thiefs_stop_is_no_protection() {
    let stop = |desk: &Desk, number: i64, name: &str| {
        desk.order(number, name).with(|order| (order.side, order.order_type) = (Side::Sell, OrderType::StopLossLimit))
    };
    let mut desk = Desk::dark(may_stop);
    let before = stop(&desk, 2, "before");
    desk.wait_ms(60_000);
    desk.live(1);
    desk.answer(ReadOutcome::OpenOrders(vec![before.read(OrderStatus::New)]));
    desk.answer(ReadOutcome::Balances(Vec::new()));
    desk.wait_ms(5_000);
    let own = stop(&desk, 3, "own");
    let terms = OrderTerms { stop_price: Some(dec("59000")), time_in_force: Some(TimeInForce::Gtc), ..own.terms() };
    desk.say(IntentBody::Place(terms));
    let at_stop = |(mut report, tags): (ExecutionReport, Tags)| {
        report.stop_price = dec("59000");
        (report, tags)
    };
    desk.show(at_stop(own.placed()));
    let thief = stop(&desk, 4, "thief");
    desk.show(at_stop(thief.placed()));
    desk.pass();
    let verdicts = "order 2: pre_existing\n order 3: matched B\n order 4: foreign\n";
    assert!(desk.sum_up().starts_with(&verdicts.replace("\n ", "\n")), "{}", desk.sum_up());
    let open = [&before, &own, &thief].map(|order| order.read(OrderStatus::New)).into();
    let mut stage = Stage { desk, venue: Venue::with(open) };
    assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
    stage.run(20_000);
    assert_eq!(stage.word(), "contained", "{:#?}", stage.desk.kernel.progress());
    let cancelled: Vec<&String> = stage.venue.done.iter().filter(|done| done.starts_with("cancelled")).collect();
    assert_eq!(cancelled, ["cancelled 4"]);
}

#[test]
fn a_restart_in_the_middle_goes_on_and_does_nothing_twice() {
    for events in 0..40 {
        let mut stage = Stage::new();
        assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
        for _ in 0..events {
            match stage.desk.acts.pop_front() {
                Some((effect, act)) => {
                    let outcome = stage.venue.act(&act);
                    stage.desk.event(Event::Acted { effect, outcome });
                }
                None => stage.desk.wait_ms(50),
            }
        }
        // What had left was done, and nobody here knows.
        for (_, act) in std::mem::take(&mut stage.desk.acts) {
            let _: ActOutcome = stage.venue.act(&act);
        }
        stage.desk.restart();
        stage.desk.live(7);
        stage.run(20_000);
        assert_eq!(stage.word(), "contained", "after {events}: {:#?}", stage.desk.kernel.progress());
        stage.venue.done.sort();
        assert_eq!(stage.venue.done, ["cancelled 3", "deleted", "rights: no right"], "after {events}");
    }
}

#[test]
fn a_stranger_who_trades_on_is_cancelled_and_takes_the_word_back() {
    let mut stage = Stage::new();
    stage.command(Command::Kill, Totp::Absent);
    stage.run(3_000);
    let again = stage.desk.order(4, "again");
    stage.venue.open.push(again.read(OrderStatus::New));
    stage.desk.show(again.placed());
    stage.desk.pass();
    stage.run(4_000);
    assert_eq!(stage.word(), "not contained");
    stage.run(20_000);
    assert!(stage.venue.done.iter().any(|done| done == "cancelled 4"), "{:?}", stage.venue.done);
    assert_eq!(stage.word(), "contained");
}

#[test]
fn what_widens_trust_needs_a_password_that_counts_once() {
    let mut stage = Stage::new();
    assert_eq!(stage.command(Command::Freeze, Totp::Absent), Answer::Done);
    stage.run(1_000);
    assert_eq!(stage.word(), "frozen");
    let refused = |answer: Answer, part: &str| {
        assert!(matches!(&answer, Answer::Refused { reason } if reason.contains(part)), "{answer:?}");
    };
    refused(stage.command(Command::Resume, Totp::Absent), "needs a one-time password");
    refused(stage.command(Command::Resume, Totp::Wrong), "is wrong");
    assert_eq!(stage.command(Command::Resume, Totp::Right { step: 7 }), Answer::Done);
    stage.run(1_000);
    assert_eq!((stage.word().as_str(), stage.venue.bot_key), ("released", Some(TRADES)));
    assert_eq!(stage.command(Command::Freeze, Totp::Absent), Answer::Done);
    stage.run(1_000);
    refused(stage.command(Command::Resume, Totp::Right { step: 7 }), "used already");
    assert_eq!(stage.venue.done, ["rights: no right", "rights: trade", "rights: no right"]);
}

/// What is not frozen yet cannot be given back, and asking for it must not make the freeze spare the key.
#[test]
fn a_resume_that_comes_too_early_takes_nothing_back_from_the_freeze() {
    for events in 0..4 {
        let mut stage = Stage::new();
        assert_eq!(stage.command(Command::Freeze, Totp::Absent), Answer::Done);
        for _ in 0..events {
            if let Some((effect, act)) = stage.desk.acts.pop_front() {
                let outcome = stage.venue.act(&act);
                stage.desk.event(Event::Acted { effect, outcome });
            }
        }
        let resumed = stage.command(Command::Resume, Totp::Right { step: 7 }) == Answer::Done;
        stage.run(10_000);
        let (word, rights) = (stage.word(), stage.venue.bot_key);
        let expected = if resumed { ("released", Some(TRADES)) } else { ("frozen", Some(KeyRights::NONE)) };
        assert_eq!((word.as_str(), rights), expected, "after {events}: {:#?}", stage.desk.kernel.progress());
    }
}

#[test]
fn guessed_passwords_lock_what_they_would_open_and_are_told() {
    let mut stage = Stage::new();
    assert_eq!(stage.command(Command::Freeze, Totp::Absent), Answer::Done);
    stage.run(1_000);
    let refused = |answer: Answer, part: &str| {
        assert!(matches!(&answer, Answer::Refused { reason } if reason.contains(part)), "{answer:?}");
    };
    refused(stage.command(Command::Resume, Totp::NotSetUp), "no one-time passwords are set up");
    for _ in 0..5 {
        refused(stage.command(Command::Resume, Totp::Wrong), "is wrong");
    }
    refused(stage.command(Command::Resume, Totp::Right { step: 9 }), "none is taken before");
    assert_eq!(stage.desk.incident("wrong_codes").priority, Priority::Critical);
    // What narrows trust needs none, and goes on.
    assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
    stage.desk.wait_ms(3_600_000);
    stage.run(20_000);
    assert_eq!(stage.word(), "contained");
}

#[test]
fn keys_that_a_kill_would_not_reach_are_told_before_it_is_needed() {
    let mut desk = Desk::open_with(may_stop);
    let look = |desk: &mut Desk, names: &[&str]| {
        let place = desk.acts.iter().position(|(_, act)| *act == Act::ListKeys).expect("the list is looked at");
        let (effect, _) = desk.acts.remove(place).unwrap();
        let row = |name: &&str| KeyRow {
            key: KeyPrint::of(name),
            name: (*name).into(),
            created_at: Time::EPOCH,
            rights: KeyRights::NONE,
        };
        let outcome = ActOutcome::Keys(names.iter().map(row).collect());
        desk.event(Event::Acted { effect, outcome });
    };
    look(&mut desk, &["watch", "cancel", "another"]);
    let incident = desk.incident("keys_differ");
    assert!(incident.priority == Priority::Critical && incident.lines[0].text.contains("does not show: bot"));
    desk.wait_ms(3_600_000);
    look(&mut desk, &["watch", "cancel", "bot"]);
    assert_eq!(desk.incident("keys_differ").state, IncidentState::Ended);
    desk.wait_ms(3_600_000);
    look(&mut desk, &["watch", "cancel", "bot", "another"]);
    assert!(desk.told.iter().any(|notice| notice.lines.iter().any(|line| line.text.contains("nobody declared"))));
}

#[test]
fn a_watcher_that_may_only_watch_says_what_a_person_can_do() {
    let mut desk = Desk::open();
    let ticket = Ticket(1);
    desk.event(Event::Command {
        ticket,
        by: "owner".into(),
        way: None,
        why: None,
        incident: None,
        command: Command::Kill,
        totp: Totp::Absent,
    });
    let answer = desk.answers.pop();
    let told = matches!(&answer, Some(Answer::Refused { reason }) if reason.contains("my/settings/api-management"));
    assert!(told && desk.acts.is_empty(), "{answer:?}");
    assert!(desk.kernel.preview(Aim::Kill).is_err());
}

#[test]
fn the_plan_is_shown_before_it_runs() {
    let stage = Stage::new();
    let plan = stage.desk.kernel.preview(Aim::Kill).unwrap();
    let steps: Vec<&str> = plan.steps.iter().map(|step| &*step.what).collect();
    assert!(steps[0].starts_with("freeze key bot") && steps[1] == "delete key bot", "{steps:?}");
    assert_eq!(steps.len(), 6);
    let cancel = plan.steps.iter().find(|step| step.what.starts_with("cancel")).unwrap();
    assert_eq!(cancel.detail.as_deref(), Some("0 cancelled, 1 to go, 1 spared"), "the orders that are open");
    assert_eq!(cancel.state, StepState::Waiting, "nothing is asked for yet");
}

/// Whoever freezes the account once more, or declares new keys, still reads that the kill was proved, and when.
#[test]
fn what_was_contained_before_stays_told() {
    let mut stage = Stage::new();
    assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
    stage.run(20_000);
    let is_told = |told: &str| {
        let clocks = told.contains("; new orders blocked after ") && told.contains("; strangers' orders gone after ");
        assert!(told.starts_with("kill at 20") && told.contains("asked for by owner: contained;") && clocks, "{told}");
    };
    assert_eq!(stage.command(Command::Freeze, Totp::Absent), Answer::Done);
    stage.run(2_000);
    assert_eq!(stage.word(), "frozen");
    is_told(&stage.desk.kernel.progress().unwrap().before.expect("the kill"));
    let card = stage.desk.incident("foreign_order").contained.unwrap();
    assert!(card.lines.iter().any(|line| line.text.starts_with("before this: kill at 20")), "{card:#?}");
}

#[test]
fn new_keys_leave_what_was_contained_before_told() {
    let mut stage = Stage::new();
    assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
    stage.run(20_000);
    for key in &mut stage.desk.declared.stopping.as_mut().unwrap().keys {
        if key.role == KeyRole::Bot {
            key.print = KeyPrint::of("new");
        }
    }
    stage.desk.restart();
    stage.desk.live(2);
    assert!(stage.desk.kernel.progress().is_none(), "it says nothing of the new key");
    let before = stage.desk.kernel.contained_before().expect("and is told all the same").to_owned();
    assert!(before.contains(": contained; new orders blocked"), "{before}");
    assert!(stage.desk.kernel.status().stopping.contains(&before));
    assert_eq!(stage.command(Command::Freeze, Totp::Absent), Answer::Done);
    assert_eq!(stage.desk.kernel.progress().unwrap().before.as_deref(), Some(&*before));
    assert_eq!(stage.desk.kernel.contained_before(), None, "told once");
}

/// The word of a kill is about one theft: what is done with another key, or long after, is another, on a card of its own.
#[test]
fn a_later_theft_stands_on_no_card_that_says_contained() {
    for declared_anew in [false, true] {
        let mut stage = Stage::new();
        assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
        stage.run(20_000);
        assert_eq!(stage.word(), "contained");
        if declared_anew {
            let keys = &mut stage.desk.declared.stopping.as_mut().unwrap().keys;
            keys.iter_mut().filter(|key| key.role == KeyRole::Bot).for_each(|key| key.print = KeyPrint::of("new"));
            stage.desk.restart();
            stage.desk.live(2);
        } else {
            stage.desk.wait_ms(700_000);
        }
        let again = stage.desk.order(9, "again");
        stage.desk.show_on(if declared_anew { 2 } else { 1 }, again.placed());
        stage.desk.pass();
        let mut thefts = stage.desk.kernel.notices();
        thefts.retain(|notice| &*notice.rule == "foreign_order");
        let words: Vec<_> = thefts.iter().map(|notice| notice.contained.as_ref().map(|shown| &*shown.word)).collect();
        assert_eq!(words, [Some("contained"), None], "{thefts:#?}");
    }
}

#[test]
fn a_resume_is_told_as_no_containment() {
    let mut stage = Stage::new();
    assert_eq!(stage.command(Command::Freeze, Totp::Absent), Answer::Done);
    stage.run(5_000);
    assert_eq!(stage.command(Command::Resume, Totp::Right { step: 7 }), Answer::Done);
    stage.desk.lost(1);
    stage.run(60_000);
    assert_eq!(stage.word(), "released");
    assert_eq!(stage.desk.incident("blind").contained_in, None);
}

/// The kill stands on one card, and the others that were open then name it.
#[test]
fn another_incidents_card_says_where_the_containment_is_told() {
    let seen = |stage: &mut Stage, address: &str| {
        let (account, address) = (Account::new("main"), address.parse().unwrap());
        let at = stage.desk.now;
        let evidence = AccessEvidence { account, at, address, source: AccessSource::Venue, action: None };
        stage.desk.event(Event::Access { ticket: Ticket(9), evidence });
        stage.desk.answers.pop();
    };
    for before in [true, false] {
        let mut stage = Stage::new();
        if before {
            seen(&mut stage, "198.51.100.7");
            assert_eq!(stage.desk.incident("unfamiliar_address").contained_in, None);
        }
        assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
        seen(&mut stage, "198.51.100.7");
        let theft = stage.desk.incident("foreign_order");
        assert_eq!((theft.contained_in, theft.contained.is_some()), (None, true));
        assert_eq!(stage.desk.incident("unfamiliar_address").contained_in, Some(theft.incident));
        stage.run(20_000);
        assert_eq!(stage.word(), "contained");
        stage.desk.lost(1);
        stage.run(20_000);
        let last = stage.desk.kernel.notices().pop().unwrap();
        assert!(last.incident > theft.incident && last.contained_in.is_none(), "it came afterwards: {last:#?}");
    }
}
