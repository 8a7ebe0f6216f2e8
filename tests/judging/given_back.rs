//! What a freeze took and who gets it back: the passwords that a resume costs, and keys that are declared meanwhile.

use std::time::Duration;

use countersign::kernel::act::{Act, ActOutcome, KeyPrint, KeyRights, KeyRow};
use countersign::kernel::command::{Command, Totp};
use countersign::kernel::event::{Answer, Event};
use countersign::kernel::stopping::{DeclaredKey, KeyRole};
use countersign::kernel::time::Time;

use crate::stage::{Stage, TRADES};

fn reason(answer: Answer) -> String {
    match answer {
        Answer::Refused { reason } => reason.to_string(),
        other => format!("{other:?}"),
    }
}

/// Whether a guess was right is not told while passwords are locked, whatever the resume would find to do.
#[test]
fn a_locked_password_is_no_oracle() {
    for killing in [false, true] {
        let mut stage = Stage::new();
        if killing {
            stage.command(Command::Kill, Totp::Absent);
        }
        for _ in 0..5 {
            stage.command(Command::Resume, Totp::Wrong);
        }
        let wrong = reason(stage.command(Command::Resume, Totp::Wrong));
        assert!(wrong.contains("none is taken before"), "{wrong}");
        assert_eq!(reason(stage.command(Command::Resume, Totp::Right { step: 9 })), wrong);
    }
}

/// The exchange as the stage has it, and one key more, of the owner's as well.
fn run_with(stage: &mut Stage, more: &mut KeyRights, seconds: u64) {
    let until = stage.desk.now + Duration::from_secs(seconds);
    while stage.desk.now < until {
        while let Some((effect, act)) = stage.desk.acts.pop_front() {
            let outcome = match &act {
                Act::SetRights { key, rights } if *key == KeyPrint::of("more") => {
                    *more = *rights;
                    ActOutcome::Done { proof: "".into() }
                }
                Act::ListKeys => {
                    let ActOutcome::Keys(mut rows) = stage.venue.act(&act) else { panic!("it lists") };
                    let (key, name) = (KeyPrint::of("more"), "more".into());
                    rows.push(KeyRow { key, name, created_at: Time::EPOCH, rights: *more });
                    ActOutcome::Keys(rows)
                }
                _ => stage.venue.act(&act),
            };
            stage.desk.event(Event::Acted { effect, outcome });
        }
        stage.desk.wait_ms(50);
    }
}

fn declare_more(stage: &mut Stage) {
    let key = DeclaredKey { name: "more".into(), print: KeyPrint::of("more"), role: KeyRole::Bot };
    stage.desk.declared.stopping.as_mut().unwrap().keys.push(key);
    stage.desk.restart();
    stage.desk.live(2);
}

/// As the card of a key that nobody had declared advises: declare it, and start countersign again.
#[test]
fn what_a_freeze_took_is_given_back_though_a_key_was_declared_since() {
    let mut stage = Stage::new();
    let mut more = TRADES;
    stage.command(Command::Freeze, Totp::Absent);
    run_with(&mut stage, &mut more, 10);
    assert_eq!((more, stage.venue.bot_key), (KeyRights::NONE, Some(KeyRights::NONE)));
    declare_more(&mut stage);
    assert_eq!(stage.word(), "frozen");
    assert_eq!(stage.command(Command::Resume, Totp::Right { step: 7 }), Answer::Done);
    run_with(&mut stage, &mut more, 10);
    assert_eq!((more, stage.venue.bot_key), (TRADES, Some(TRADES)));
}

/// The key was not there when the account was frozen; a later freeze takes it like the others.
#[test]
fn a_key_that_is_declared_on_a_frozen_account_is_frozen_by_the_next() {
    let mut stage = Stage::new();
    stage.command(Command::Freeze, Totp::Absent);
    stage.run(5_000);
    declare_more(&mut stage);
    let steps = stage.desk.kernel.progress().unwrap().steps;
    assert!(!steps.iter().any(|step| step.what.contains("more")), "nothing was done to it: {steps:#?}");
    let mut more = TRADES;
    assert_eq!(stage.command(Command::Freeze, Totp::Absent), Answer::Done);
    run_with(&mut stage, &mut more, 10);
    assert_eq!((stage.word().as_str(), more), ("frozen", KeyRights::NONE));
    assert_eq!(stage.command(Command::Resume, Totp::Right { step: 7 }), Answer::Done);
    run_with(&mut stage, &mut more, 10);
    assert_eq!((more, stage.venue.bot_key), (TRADES, Some(TRADES)));
}

/// One that is declared no more is nobody's, and gets nothing back.
#[test]
fn a_frozen_key_that_is_declared_no_more_stays_frozen() {
    let mut stage = Stage::new();
    let mut more = TRADES;
    stage.desk.restart();
    declare_more(&mut stage);
    stage.command(Command::Freeze, Totp::Absent);
    run_with(&mut stage, &mut more, 10);
    stage.desk.declared.stopping.as_mut().unwrap().keys.retain(|key| *key.name != *"bot");
    stage.desk.restart();
    stage.desk.live(3);
    assert_eq!(stage.command(Command::Resume, Totp::Right { step: 7 }), Answer::Done);
    run_with(&mut stage, &mut more, 10);
    assert_eq!((more, stage.venue.bot_key), (TRADES, Some(KeyRights::NONE)));
}
