//! What operators change of what is trusted: disarming, allowing, and what stands in the file alone.

use crate::authority::*;
use crate::desk::Desk;
use crate::stage::may_stop;
use countersign::kernel::act::{Act, ActOutcome, KeyPrint, KeyRights};
use countersign::kernel::command::{Allowable, Command, Totp};
use countersign::kernel::event::{AccessEvidence, AccessSource, Answer, Event, Ticket};
use countersign::kernel::order::Account;
use countersign::kernel::people::Way;
use std::net::IpAddr;
use std::time::Duration;

#[test]
fn a_disarmed_account_is_left_alone_and_arming_gives_back_what_was() {
    let mut desk = Desk::open_with(|declared| {
        may_stop(declared);
        act_mode(declared);
        declared.stopping.as_mut().unwrap().freeze_unanswered = Some(Duration::from_secs(60));
    });
    let host = Way::Host { uid: 7 };
    desk.wait_ms(24 * HOUR);
    refused(say(&mut desk, host, Command::Disarm { for_s: None }, Totp::Absent), "needs a one-time password");
    refused(say(&mut desk, host, Command::Disarm { for_s: Some(31 * 86_400) }, right(1)), "at the most");
    assert_eq!(say(&mut desk, host, Command::Disarm { for_s: None }, right(2)), Answer::Done);
    assert!(told(&desk, "main is DISARMED by operator") && told(&desk, "Why: the audit is over"));
    desk.restart();
    desk.live(2);
    theft(&mut desk, 3);
    desk.wait_ms(10 * MINUTE);
    assert_eq!(word(&desk), "", "neither killed nor frozen");
    let shown: Vec<_> = desk.incident("foreign_order").lines;
    assert!(shown.iter().any(|line| line.text.starts_with("disarmed by operator at ")), "{shown:?}");
    assert!(desk.kernel.status().stopping.contains("DISARMED: disarmed by operator"));
    assert_eq!(say(&mut desk, host, Command::Arm, right(3)), Answer::Done);
    assert!(told(&desk, "main is armed again by operator"));
    desk.wait_ms(2 * MINUTE);
    assert_eq!(word(&desk), "not frozen yet", "nobody has answered, and it is armed");
    refused(say(&mut desk, host, Command::Arm, right(4)), "is not disarmed");
}

#[test]
fn disarming_ends_by_itself_if_it_was_for_a_while_and_is_not_forgotten_if_not() {
    let mut desk = Desk::open_with(|declared| {
        may_stop(declared);
        act_mode(declared);
    });
    let host = Way::Host { uid: 7 };
    desk.wait_ms(24 * HOUR);
    assert_eq!(say(&mut desk, host, Command::Disarm { for_s: Some(7_200) }, right(1)), Answer::Done);
    desk.wait_ms(2 * HOUR - 1_000);
    assert!(desk.kernel.status().disarmed.is_some());
    desk.wait_ms(2_000);
    assert!(desk.kernel.status().disarmed.is_none() && told(&desk, "armed again, its time is over"));
    desk.pass();
    theft(&mut desk, 3);
    assert_eq!(word(&desk), "not contained", "{:?}", desk.incident("foreign_order").lines);

    let mut desk = Desk::open_with(|declared| {
        may_stop(declared);
        act_mode(declared);
    });
    assert_eq!(say(&mut desk, host, Command::Disarm { for_s: None }, right(1)), Answer::Done);
    let reminders = |desk: &Desk| desk.announced.iter().filter(|text| text.starts_with("Reminder")).count();
    for (hours, expected) in [(1, 1), (4, 2), (12, 3), (24, 4), (24, 5)] {
        desk.wait_ms(hours * HOUR);
        assert_eq!(reminders(&desk), expected, "after {hours} hours more");
    }
    // Where nothing is done by itself there is nothing to disarm.
    let mut desk = Desk::open_with(may_stop);
    refused(say(&mut desk, host, Command::Disarm { for_s: None }, right(1)), "does nothing by itself");
    // And nobody is asked to approve what could not be done, nor has used up his password for it.
    let mut desk = Desk::open_with(fund);
    refused(say(&mut desk, ALICE[0], Command::Disarm { for_s: None }, right(1)), "does nothing by itself");
    requested(say(&mut desk, ALICE[0], Command::Arm, right(1)));
    let mut desk = Desk::open_with(|declared| {
        fund(declared);
        act_mode(declared);
    });
    let too_long = Command::Disarm { for_s: Some(31 * 86_400) };
    refused(say(&mut desk, ALICE[0], too_long, right(1)), "for 30 d at the most");
    requested(say(&mut desk, ALICE[0], Command::Disarm { for_s: None }, right(1)));
}

#[test]
fn where_nobody_has_one_time_passwords_the_status_says_so() {
    for (no_passwords, said) in [(true, true), (false, false)] {
        let desk = Desk::open_with(|declared| {
            may_stop(declared);
            declared.no_passwords = no_passwords;
        });
        let status = desk.kernel.status();
        assert_eq!(status.stopping.contains("ONE-TIME PASSWORDS ARE MISSING"), said, "{}", status.stopping);
    }
}

#[test]
fn an_allowed_network_is_familiar_for_a_while() {
    let mut desk = Desk::open_with(may_stop);
    let host = Way::Host { uid: 7 };
    let seen = |desk: &mut Desk, address: &str| {
        let before = desk.told.len();
        let address: IpAddr = address.parse().unwrap();
        let evidence = AccessEvidence {
            account: Account::new("main"),
            at: desk.now,
            address,
            source: AccessSource::Host,
            action: None,
        };
        desk.event(Event::Access { ticket: Ticket(0), evidence });
        desk.told.len() > before
    };
    let allow = |what: &str, days: Option<u64>| Command::Allow {
        what: what.parse().unwrap(),
        for_s: days.map(|days| days * 86_400),
    };
    assert!(seen(&mut desk, "198.51.100.7"));
    refused(say(&mut desk, host, allow("203.0.113.0/24", None), Totp::Absent), "needs a one-time password");
    refused(say_why(&mut desk, host, allow("203.0.113.0/24", None), right(1), None), "needs a reason");
    refused(say(&mut desk, host, allow("0.0.0.0/0", None), right(1)), "too wide");
    refused(say(&mut desk, host, allow("203.0.113.0/24", Some(91)), right(1)), "at the most");
    // A slip of the finger has used up no password.
    assert_eq!(say(&mut desk, host, allow("203.0.113.0/24", None), right(1)), Answer::Done);
    assert!(told(&desk, "203.0.113.0/24 is allowed on main by operator") && told(&desk, "Why: the audit is over"));
    desk.restart();
    assert!(!seen(&mut desk, "203.0.113.9"));
    assert!(seen(&mut desk, "203.0.114.9"));
    desk.wait_ms(30 * 24 * HOUR + 1_000);
    assert!(told(&desk, "203.0.113.0/24 is no longer allowed on main: its time is over"));
    assert!(seen(&mut desk, "203.0.113.9"));
    // Taken back without a password, and never more than a few.
    for step in 4..36 {
        assert_eq!(say(&mut desk, host, allow(&format!("192.0.2.{step}"), Some(90)), right(step)), Answer::Done);
    }
    refused(say(&mut desk, host, allow("192.0.2.99", None), right(40)), "32 things are allowed already");
    assert_eq!(say(&mut desk, host, allow("192.0.2.4", Some(1)), right(40)), Answer::Done, "told anew");
    let end = Command::EndAllowance { what: "192.0.2.4".parse().unwrap() };
    assert_eq!(say(&mut desk, host, end.clone(), Totp::Absent), Answer::Done);
    refused(say(&mut desk, host, end, Totp::Absent), "nothing like that is allowed");
    // However often one is told anew, its old timers are gone: two ends are left, its own and that of all others.
    for step in 50..80 {
        assert_eq!(say(&mut desk, host, allow("192.0.2.5", Some(step)), right(step)), Answer::Done);
    }
    let state = serde_json::to_string(desk.kernel.state()).unwrap();
    assert_eq!(state.matches("AllowanceEnds").count(), 2);
    assert!(seen(&mut desk, "192.0.2.4") && !seen(&mut desk, "192.0.2.5"));
}

#[test]
fn a_key_is_allowed_only_where_the_exchange_has_shown_it() {
    let mut desk = Desk::open_with(may_stop);
    let host = Way::Host { uid: 7 };
    let allow = |name: &str| Command::Allow { what: Allowable::Key(KeyPrint::of(name)), for_s: None };
    refused(say(&mut desk, host, allow("other"), right(1)), "has not shown such a key");
    refused(say(&mut desk, host, allow("bot"), right(1)), "declared already");
    let look = |desk: &mut Desk| {
        let place = desk.acts.iter().position(|(_, act)| *act == Act::ListKeys).expect("the list is looked at");
        let (effect, _) = desk.acts.remove(place).unwrap();
        let outcome = ActOutcome::Keys(rows(&[("bot", KeyRights::NONE), ("other", KeyRights::NONE)]));
        desk.event(Event::Acted { effect, outcome });
    };
    look(&mut desk);
    assert!(desk.incident("keys_differ").lines[0].text.contains("nobody declared"));
    assert!(desk.incident("keys_differ").advice[0].contains("countersign allow"), "it may be the owner's own");
    assert_eq!(say(&mut desk, host, allow("other"), right(3)), Answer::Done);
    desk.wait_ms(HOUR);
    look(&mut desk);
    let ended = desk.incident("keys_differ").lines;
    assert!(ended.last().unwrap().text.contains("and no other"), "{ended:?}");
}

#[test]
fn changes_of_what_stands_in_the_file_alone_are_told_and_what_an_older_version_did_not_write_is_none() {
    let mut desk = Desk::open_with(fund);
    let place = |desk: &mut Desk, places: &[(&str, &str)]| {
        let places = places.iter().map(|(what, told)| ((*what).into(), (*told).into())).collect();
        desk.declared.places = Some(places);
        desk.restart();
    };
    place(&mut desk, &[("sub_account", "bot@example.com"), ("totp of alice", "vault:a"), ("totp of bob", "vault:b")]);
    assert!(desk.kernel.notices().iter().all(|notice| &*notice.rule != "configuration"), "nothing to compare with");
    place(&mut desk, &[("sub_account", "other@example.com"), ("totp of bob", "vault:b"), ("the way", "unit")]);
    let lines: Vec<String> = desk.incident("configuration").lines.iter().map(|line| line.text.to_string()).collect();
    assert_eq!(
        lines,
        [
            "sub_account was bot@example.com, and is other@example.com",
            "the way was none, and is unit",
            "totp of alice was vault:a, and is none",
        ]
    );
}

#[test]
fn changes_of_what_is_trusted_are_told_with_old_and_new_and_a_first_start_is_none() {
    let mut desk = Desk::open_with(fund);
    assert!(desk.kernel.notices().iter().all(|notice| &*notice.rule != "configuration"));
    desk.restart();
    assert!(desk.kernel.notices().iter().all(|notice| &*notice.rule != "configuration"), "nothing has changed");
    act_mode(&mut desk.declared);
    let stopping = desk.declared.stopping.as_mut().unwrap();
    stopping.freeze_unanswered = Some(Duration::from_secs(60));
    stopping.keys.remove(0);
    desk.declared.people.two_people = false;
    desk.declared.familiar_networks.push("203.0.113.0/24".parse().unwrap());
    let stopping = desk.declared.stopping.as_mut().unwrap();
    (stopping.quiet, stopping.transfer_to_master) = (Duration::from_secs(1), true);
    desk.declared.waits.pending_cap = Duration::from_secs(3_600);
    desk.restart();
    let lines = desk.incident("configuration").lines;
    for part in [
        "mode was ask, and is act",
        "freeze_unanswered_s was none, and is 60",
        "keys was bot (bot, ",
        "two_people was true, and is false",
        "familiar_networks was none, and is 203.0.113.0/24",
        "quiet_s was 5, and is 1",
        "transfer_to_master was false, and is true",
        "waits was pending_cap_s 10, unlogged_after_s 10,",
    ] {
        assert!(lines.iter().any(|line| line.text.contains(part)), "{part}: {lines:#?}");
    }
}
