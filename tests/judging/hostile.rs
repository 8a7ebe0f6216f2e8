//! A hostile reader's proofs: each of these fails while what it tells of is so.

use std::time::Duration;

use countersign::kernel::act::{Act, ActOutcome, KeyPrint, KeyRights, KeyRow};
use countersign::kernel::command::{Command, Totp};
use countersign::kernel::containment::StepState;
use countersign::kernel::event::{AccessEvidence, AccessSource, Answer, Event, Ticket};
use countersign::kernel::incident::IncidentState;
use countersign::kernel::intent::{CancelTerms, IntentBody, IntentRecord, Target};
use countersign::kernel::order::Account;
use countersign::kernel::stopping::{DeclaredKey, KeyRole, Means};
use countersign::kernel::time::Time;

use crate::desk::{Desk, check, id};
use crate::stage::{Stage, TRADES, Venue, may_stop};

fn reason(answer: Answer) -> String {
    match answer {
        Answer::Refused { reason } => reason.to_string(),
        other => format!("{other:?}"),
    }
}

fn stops(act: &Act) -> Option<ActOutcome> {
    matches!(act, Act::StopBot { .. }).then(|| ActOutcome::Done { proof: "status 0".into() })
}

fn beat(stage: &mut Stage) {
    stage.desk.say(IntentBody::Heartbeat { egress: None });
}

/// 1. While passwords are locked, a resume of nothing tells a right one from a wrong one, as often as one likes.
#[test]
fn a_locked_password_is_no_oracle() {
    let mut stage = Stage::new();
    for _ in 0..5 {
        stage.command(Command::Resume, Totp::Wrong);
    }
    // Just before the lock opens: guesses without a bound, none counted, none told.
    stage.desk.wait_ms(3_600_000 - 20_000);
    let wrong: Vec<String> = (0..1_000).map(|_| reason(stage.command(Command::Resume, Totp::Wrong))).collect();
    assert!(wrong.iter().all(|told| told.contains("none is taken before")));
    let right = reason(stage.command(Command::Resume, Totp::Right { step: 9 }));
    // And the guessed one is still good for what needs one, as soon as the lock opens.
    stage.desk.wait_ms(20_001);
    stage.command(Command::Freeze, Totp::Absent);
    stage.run(2_000);
    let used = stage.command(Command::Resume, Totp::Right { step: 9 });
    assert_eq!(right, wrong[0], "a right guess must look like a wrong one; used afterwards: {used:?}");
}

/// 1b. Without a lock as well: four guesses an hour, and a right one is not used up, so it can be tried first.
#[test]
fn a_right_password_is_told_while_a_kill_runs() {
    let mut stage = Stage::new();
    stage.command(Command::Kill, Totp::Absent);
    for _ in 0..5 {
        stage.command(Command::Resume, Totp::Wrong);
    }
    let wrong = reason(stage.command(Command::Resume, Totp::Wrong));
    assert_eq!(reason(stage.command(Command::Resume, Totp::Right { step: 9 })), wrong);
}

/// 2. Frozen, the undeclared key declared as the card advises, started again: "nothing was frozen".
#[test]
fn what_a_freeze_took_is_given_back_whatever_key_is_declared_since() {
    let mut stage = Stage::new();
    stage.command(Command::Freeze, Totp::Absent);
    stage.run(5_000);
    assert_eq!((stage.word().as_str(), stage.venue.bot_key), ("frozen", Some(KeyRights::NONE)));
    let more = DeclaredKey { name: "more".into(), print: KeyPrint::of("more"), role: KeyRole::Bot };
    stage.desk.declared.stopping.as_mut().unwrap().keys.push(more);
    stage.desk.restart();
    stage.desk.live(2);
    let answer = stage.command(Command::Resume, Totp::Right { step: 7 });
    stage.run(5_000);
    assert_eq!((answer, stage.venue.bot_key), (Answer::Done, Some(TRADES)));
}

/// 2b. README: "A key that is declared while a kill still runs is frozen with the rest, and `resume` gives it back."
#[test]
fn a_key_declared_while_a_kill_runs_is_given_back_after_another_start() {
    let mut stage = Stage::new();
    let mut new = TRADES;
    stage.command(Command::Kill, Totp::Absent);
    stage.run(1_000);
    assert_eq!(stage.word(), "not contained");
    for key in &mut stage.desk.declared.stopping.as_mut().unwrap().keys {
        if key.role == KeyRole::Bot {
            key.print = KeyPrint::of("new");
        }
    }
    stage.desk.restart();
    stage.desk.live(2);
    let until = stage.desk.now + Duration::from_secs(40);
    let mut venue = |stage: &mut Stage, until: Time| {
        while stage.desk.now < until {
            while let Some((effect, act)) = stage.desk.acts.pop_front() {
                let outcome = match &act {
                    Act::SetRights { key, rights } if *key == KeyPrint::of("new") => {
                        new = *rights;
                        ActOutcome::Done { proof: "".into() }
                    }
                    Act::ListKeys => {
                        let ActOutcome::Keys(mut rows) = stage.venue.act(&act) else { unreachable!() };
                        let (key, name, created_at) = (KeyPrint::of("new"), "new".into(), stage.desk.now);
                        rows.push(KeyRow { key, name, created_at, rights: new });
                        ActOutcome::Keys(rows)
                    }
                    _ => stage.venue.act(&act),
                };
                stage.desk.event(Event::Acted { effect, outcome });
            }
            stage.desk.wait_ms(50);
        }
    };
    venue(&mut stage, until);
    assert_eq!(stage.word(), "contained");
    // The owner starts it once more, as he is told to for trading again.
    stage.desk.restart();
    stage.desk.live(3);
    let answer = stage.command(Command::Resume, Totp::Right { step: 7 });
    let until = stage.desk.now + Duration::from_secs(10);
    venue(&mut stage, until);
    assert_eq!((answer, new), (Answer::Done, TRADES));
}

/// 3. The way to stop the bot lies, and the process is down for eleven minutes right after: proved five seconds after the
/// start, and whatever the bot says from then on counts for nothing.
#[test]
fn a_lie_about_the_bot_is_told_after_a_long_stop_of_the_daemon() {
    let mut stage = Stage::with(|declared| {
        may_stop(declared);
        declared.stopping.as_mut().unwrap().hooks = vec!["command".into()];
    });
    stage.command(Command::Kill, Totp::Absent);
    stage.run_answering(1_000, stops);
    stage.desk.now = stage.desk.now + Duration::from_secs(660);
    stage.desk.restart();
    stage.desk.live(2);
    stage.run_answering(6_000, stops);
    for _ in 0..120 {
        beat(&mut stage);
        stage.run_answering(1_000, stops);
    }
    assert_eq!(stage.word(), "contained; the bot still speaks", "{:#?}", stage.desk.kernel.progress());
}

/// 3b. A bot that announces something every five minutes, and a way to stop it that lies: told twice, then proved for good.
#[test]
fn a_bot_that_was_never_stopped_is_not_called_stopped_in_the_end() {
    let mut stage = Stage::with(|declared| {
        may_stop(declared);
        declared.stopping.as_mut().unwrap().hooks = vec!["command".into()];
    });
    stage.command(Command::Kill, Totp::Absent);
    for _ in 0..12 {
        stage.run_answering(300_000, stops);
        beat(&mut stage);
    }
    let progress = stage.desk.kernel.progress().unwrap();
    let step = progress.steps.iter().find(|step| step.what.contains("command")).unwrap();
    assert_eq!((&*progress.word, step.state), ("contained; the bot still speaks", StepState::NotProved));
    assert_eq!(stage.desk.incident("bot_still_speaks").state, IncidentState::Open);
}

/// 3c. Two bots and two ways; one way fails, the other lies: a bot that speaks all the time is "stopped", proved.
#[test]
fn one_way_that_fails_does_not_prove_the_other_that_lies() {
    let mut stage = Stage::with(|declared| {
        may_stop(declared);
        declared.stopping.as_mut().unwrap().hooks = vec!["fails".into(), "lies".into()];
    });
    stage.command(Command::Kill, Totp::Absent);
    let answer = |act: &Act| match act {
        Act::StopBot { hook } if &**hook == "lies" => Some(ActOutcome::Done { proof: "status 0".into() }),
        Act::StopBot { .. } => Some(ActOutcome::Unknown { reason: "no answer".into() }),
        _ => None,
    };
    for _ in 0..240 {
        beat(&mut stage);
        stage.desk.say_as("grid", IntentBody::Heartbeat { egress: None });
        stage.run_answering(250, answer);
    }
    let progress = stage.desk.kernel.progress().unwrap();
    let step = progress.steps.iter().find(|step| step.what.contains("lies")).unwrap();
    assert!(
        step.state != StepState::Proved && !progress.lines.iter().any(|line| line.text.contains("was stopped by")),
        "{progress:#?}"
    );
}

/// 4. What happens while keys are given back, or while nothing can be contained, is told as contained.
#[test]
fn no_card_says_contained_of_what_is_not() {
    let seen = |stage: &mut Stage, address: &str| {
        let (account, address) = (Account::new("main"), address.parse().unwrap());
        let at = stage.desk.now;
        let evidence = AccessEvidence { account, at, address, source: AccessSource::Venue, action: None };
        stage.desk.event(Event::Access { ticket: Ticket(9), evidence });
        stage.desk.answers.pop();
        let notice = stage.desk.incident("unfamiliar_address");
        countersign::kernel::card::card(&notice, false).plain
    };
    let mut told = Vec::new();
    // A resume whose rights are not back yet: a stranger logs in meanwhile.
    let mut stage = Stage::new();
    stage.command(Command::Freeze, Totp::Absent);
    stage.run(5_000);
    stage.command(Command::Resume, Totp::Right { step: 7 });
    stage.run(100);
    told.push(("resume", seen(&mut stage, "198.51.100.7")));
    stage.run(200_000);
    told.push(("resumed", seen(&mut stage, "198.51.100.7")));
    // By hand nothing is contained until the owner has deleted the key.
    let mut stage = Stage::with(|declared| {
        may_stop(declared);
        declared.stopping.as_mut().unwrap().means = Means::ByHand;
    });
    stage.command(Command::Kill, Totp::Absent);
    stage.run(600_000);
    assert_eq!(stage.word(), "not contained");
    told.push(("by hand", seen(&mut stage, "198.51.100.7")));
    for (when, card) in &told {
        let line = card.lines().find(|line| line.starts_with("What we did")).unwrap_or_default();
        eprintln!("{when}: {line}");
    }
    assert!(!told.iter().any(|(_, card)| card.contains("how the account was contained")));
}

/// 5. A bot whose clock is behind, and which was last answered a minute ago.
#[test]
fn the_bots_clock_alone_makes_its_own_cancel_no_strangers() {
    for behind in [0, 3, 12] {
        let mut desk = Desk::open();
        let order = desk.order(2, "own");
        desk.say(order.place());
        desk.show(order.placed());
        desk.wait_ms(20_000);
        let body = IntentBody::Cancel(CancelTerms {
            symbol: order.symbol.clone(),
            target: Target::Order(order.order_id),
            client_order_id: None,
        });
        let record = desk.write(body);
        let at = record.at - Duration::from_secs(behind);
        desk.deliver(IntentRecord { at, ..record });
        desk.show(order.canceled("made up"));
        desk.pass();
        check(&desk, "order 2: matched B\n cancel 2: matched");
    }
}

#[test]
fn the_bots_clock_alone_makes_its_own_cancel_all_no_strangers() {
    for behind in [0, 3] {
        let mut desk = Desk::open();
        desk.wait_ms(20_000);
        let order = desk.order(2, "own");
        desk.say(order.place());
        desk.show(order.placed());
        desk.wait_ms(500);
        let body = IntentBody::Cancel(CancelTerms {
            symbol: order.symbol.clone(),
            target: Target::All,
            client_order_id: Some(id("all")),
        });
        // The place's answer has not been read by the time this one is written.
        let record = IntentRecord { nonce: None, ..desk.write(body) };
        let at = record.at - Duration::from_secs(behind);
        desk.deliver(IntentRecord { at, ..record });
        desk.show(order.canceled("all"));
        desk.pass();
        check(&desk, "order 2: matched B\n cancel 2: matched");
    }
}

/// 6. A way to stop the bot that the configuration names no more is tried for ever, and the new one never.
#[test]
fn a_way_that_is_not_configured_any_more_is_tried_no_more() {
    let mut stage = Stage {
        desk: Desk::open_with(|declared| {
            may_stop(declared);
            declared.stopping.as_mut().unwrap().hooks = vec!["old".into()];
        }),
        venue: Venue::with(Vec::new()),
    };
    stage.command(Command::Kill, Totp::Absent);
    let fails = |act: &Act| {
        matches!(act, Act::StopBot { .. })
            .then(|| ActOutcome::Refused { code: 0, reason: "no such unit".into() })
    };
    stage.run_answering(10_000, fails);
    stage.desk.declared.stopping.as_mut().unwrap().hooks = vec!["new".into()];
    stage.desk.restart();
    stage.desk.live(2);
    let mut tried = std::collections::BTreeMap::new();
    for kill_again in [false, true] {
        if kill_again {
            stage.command(Command::Kill, Totp::Absent);
        }
        stage.run_answering(600_000, |act| match act {
            Act::StopBot { hook } => {
                *tried.entry((kill_again, hook.to_string())).or_insert(0) += 1;
                Some(match &**hook {
                    "new" => ActOutcome::Done { proof: "inactive".into() },
                    _ => ActOutcome::Refused { code: 0, reason: "no way to stop the bot is called \"old\"".into() },
                })
            }
            _ => None,
        });
    }
    assert_eq!(stage.word(), "contained", "{tried:?}");
    assert!(!tried.keys().any(|(_, hook)| hook == "old"), "{tried:?}");
}

/// 4b. A resume makes the cards of what was never contained say that it was.
#[test]
fn a_resume_contains_nothing() {
    let mut stage = Stage::new();
    stage.command(Command::Freeze, Totp::Absent);
    stage.run(5_000);
    let seen = |stage: &mut Stage, address: &str| {
        let (account, address) = (Account::new("main"), address.parse().unwrap());
        let at = stage.desk.now;
        let evidence = AccessEvidence { account, at, address, source: AccessSource::Venue, action: None };
        stage.desk.event(Event::Access { ticket: Ticket(9), evidence });
        stage.desk.answers.pop();
        countersign::kernel::card::card(&stage.desk.incident("unfamiliar_address"), false).plain
    };
    // After the freeze has ended: nothing was done about it, and its card says so.
    assert!(seen(&mut stage, "198.51.100.7").contains("What we did: nothing yet"));
    stage.command(Command::Resume, Totp::Right { step: 7 });
    stage.run(60_000);
    assert_eq!((stage.word().as_str(), stage.venue.bot_key), ("released", Some(TRADES)));
    let card = seen(&mut stage, "198.51.100.7");
    assert!(!card.contains("how the account was contained"), "{card}");
}

/// 2c. As 2b, with the new key beside the old one in the configuration.
#[test]
fn a_key_declared_beside_the_old_one_while_frozen_keys_stand_is_given_back() {
    let mut stage = Stage::new();
    let mut more = TRADES;
    let mut run = |stage: &mut Stage| {
        let until = stage.desk.now + Duration::from_secs(10);
        while stage.desk.now < until {
            while let Some((effect, act)) = stage.desk.acts.pop_front() {
                let outcome = match &act {
                    Act::SetRights { key, rights } if *key == KeyPrint::of("more") => {
                        more = *rights;
                        ActOutcome::Done { proof: "".into() }
                    }
                    Act::ListKeys => {
                        let ActOutcome::Keys(mut rows) = stage.venue.act(&act) else { unreachable!() };
                        let (key, name) = (KeyPrint::of("more"), "more".into());
                        rows.push(KeyRow { key, name, created_at: Time::EPOCH, rights: more });
                        ActOutcome::Keys(rows)
                    }
                    _ => stage.venue.act(&act),
                };
                stage.desk.event(Event::Acted { effect, outcome });
            }
            stage.desk.wait_ms(50);
        }
        more
    };
    // The list shows a key that its owner had forgotten to declare; a freeze takes its rights as well.
    stage.command(Command::Freeze, Totp::Absent);
    assert_eq!((run(&mut stage), stage.venue.bot_key), (KeyRights::NONE, Some(KeyRights::NONE)));
    // "Yours? Declare it as [[containment.key]] and start countersign again".
    let key = DeclaredKey { name: "more".into(), print: KeyPrint::of("more"), role: KeyRole::Bot };
    stage.desk.declared.stopping.as_mut().unwrap().keys.push(key);
    stage.desk.restart();
    stage.desk.live(2);
    let answer = stage.command(Command::Resume, Totp::Right { step: 7 });
    let given = run(&mut stage);
    assert_eq!((answer, given, stage.venue.bot_key), (Answer::Done, TRADES, Some(TRADES)));
}

/// 3d. A way that pauses the bot lies, and the bot beats all the time and places an order every five minutes: what it
/// announces is all that counts, and five seconds without it are called a proof.
#[test]
fn a_pause_that_is_a_lie_is_told_as_often_as_the_bot_trades() {
    let mut stage = Stage::with(|declared| {
        may_stop(declared);
        let stopping = declared.stopping.as_mut().unwrap();
        (stopping.hooks, stopping.pausing) = (vec!["freqtrade".into()], ["freqtrade".into()].into());
    });
    stage.command(Command::Kill, Totp::Absent);
    let mut words = Vec::new();
    for number in 0..8 {
        for _ in 0..60 {
            stage.run_answering(5_000, stops);
            beat(&mut stage);
        }
        let order = stage.desk.order(100 + number, &format!("later{number}"));
        stage.desk.say(order.place());
        let progress = stage.desk.kernel.progress().unwrap();
        let step = progress.steps.iter().find(|step| step.what.contains("freqtrade")).unwrap();
        words.push(format!("{}: {:?}", progress.word, step.state));
    }
    assert!(words.iter().all(|word| word.contains("the bot still speaks")), "{words:#?}");
}
