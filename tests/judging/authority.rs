//! Who may do what: fund mode, where whoever asks never approves; accounts that are disarmed; what is allowed for a
//! while; and a configuration that is not what it was.

use std::time::Duration;

use countersign::kernel::act::{Act, ActOutcome, KeyPrint, KeyRights, KeyRow};
use countersign::kernel::claim::Claim;
use countersign::kernel::command::{Allowable, Command, Totp};
use countersign::kernel::declared::Declared;
use countersign::kernel::event::{Answer, Event, Ticket};
use countersign::kernel::order::OrderStatus;
use countersign::kernel::people::{People, Person, Way};
use countersign::kernel::stopping::Mode;
use countersign::kernel::time::Time;

use crate::desk::Desk;
use crate::stage::may_stop;

/// Alice comes on two ways, bob on two, carol on the host alone; mallory is on the Telegram list and no person.
pub const ALICE: [Way; 2] = [Way::Telegram { user: 1 }, Way::Host { uid: 1001 }];
pub const BOB: [Way; 2] = [Way::Telegram { user: 2 }, Way::Host { uid: 1002 }];
pub const CAROL: Way = Way::Host { uid: 1003 };
pub const MALLORY: [Way; 2] = [Way::Telegram { user: 666 }, Way::Host { uid: 0 }];
pub const MINUTE: u64 = 60_000;
pub const HOUR: u64 = 60 * MINUTE;

pub fn fund(declared: &mut Declared) {
    may_stop(declared);
    let person = |name: &str, telegram, uid| Person { name: name.into(), telegram, uid: Some(uid) };
    declared.people = People {
        persons: vec![person("alice", Some(1), 1001), person("bob", Some(2), 1002), person("carol", None, 1003)],
        two_people: true,
    };
}

pub fn act_mode(declared: &mut Declared) {
    declared.stopping.as_mut().unwrap().mode = Mode::Act;
}

pub fn say(desk: &mut Desk, way: Way, command: Command, totp: Totp) -> Answer {
    say_why(desk, way, command, totp, Some("the audit is over"))
}

pub fn say_why(desk: &mut Desk, way: Way, command: Command, totp: Totp, why: Option<&str>) -> Answer {
    let by = desk.declared.people.by(way);
    let (ticket, why) = (Ticket(desk.answers.len() as u64), why.map(Into::into));
    desk.event(Event::Command { ticket, by, way: Some(way), why, incident: None, command, totp });
    desk.answers.pop().expect("a command is answered")
}

pub fn right(step: u64) -> Totp {
    Totp::Right { step }
}

#[track_caller]
pub fn refused(answer: Answer, part: &str) {
    assert!(matches!(&answer, Answer::Refused { reason } if reason.contains(part)), "{part}: {answer:?}");
}

#[track_caller]
pub fn requested(answer: Answer) -> Command {
    let Answer::Requested { request } = answer else { panic!("{answer:?}") };
    Command::Approve { request }
}

/// Answers the acts until nothing is asked for: the bot's key is there and can be frozen and thawed.
pub fn frozen(desk: &mut Desk) {
    let mut rights = KeyRights { trade: true, ..KeyRights::NONE };
    assert_eq!(say(desk, CAROL, Command::Freeze, Totp::Absent), Answer::Done, "one person freezes, always");
    for _ in 0..20 {
        let Some((effect, act)) = desk.acts.pop_front() else { break };
        let outcome = match &act {
            Act::ListKeys => ActOutcome::Keys(rows(&[("bot", rights)])),
            Act::SetRights { rights: set, .. } => {
                rights = *set;
                ActOutcome::Done { proof: "".into() }
            }
            _ => ActOutcome::Unknown { reason: "not in this story".into() },
        };
        desk.event(Event::Acted { effect, outcome });
        desk.wait_ms(400);
    }
    assert_eq!(word(desk), "frozen");
    desk.acts.clear();
}

pub fn rows(more: &[(&str, KeyRights)]) -> Vec<KeyRow> {
    let row = |(name, rights): &(&str, KeyRights)| KeyRow {
        key: KeyPrint::of(name),
        name: (*name).into(),
        created_at: Time::EPOCH,
        rights: *rights,
    };
    let own = [("watch", KeyRights::NONE), ("cancel", KeyRights { trade: true, ..KeyRights::NONE })];
    own.iter().chain(more).map(row).collect()
}

pub fn word(desk: &Desk) -> String {
    desk.kernel.progress().map_or_else(String::new, |progress| progress.word.to_string())
}

pub fn told(desk: &Desk, part: &str) -> bool {
    desk.announced.iter().any(|text| text.contains(part))
}

#[test]
fn whoever_asks_never_approves_on_whatever_way_he_comes() {
    for asked in ALICE.into_iter().chain(BOB) {
        for approved in ALICE.into_iter().chain(BOB).chain([CAROL]).chain(MALLORY) {
            let mut desk = Desk::open_with(fund);
            let approve = requested(say(&mut desk, asked, Command::Kill, Totp::Absent));
            assert_eq!(word(&desk), "", "nothing is done yet");
            assert!(told(&desk, "asks to kill main") && told(&desk, "NOTHING is done yet"), "{:?}", desk.announced);
            let answer = say(&mut desk, approved, approve.clone(), Totp::Absent);
            let people = &desk.declared.people;
            match (people.person(asked), people.person(approved)) {
                (_, None) => refused(answer, "you are none of [[operators.person]]"),
                (asker, approver) if asker == approver => refused(answer, "whoever asks cannot approve"),
                _ => {
                    assert_eq!(answer, Answer::Done, "{asked:?} {approved:?}");
                    assert_eq!(word(&desk), "not contained");
                    let by = desk.kernel.progress().unwrap().asked_by;
                    assert!(by.contains(", approved by "), "{by}");
                    refused(say(&mut desk, approved, approve, Totp::Absent), "no such request");
                    continue;
                }
            }
            assert_eq!(word(&desk), "", "{asked:?} {approved:?}");
            assert_eq!(desk.kernel.status().requests.len(), 1, "it waits on");
        }
    }
}

#[test]
fn whoever_is_no_person_may_neither_ask_nor_approve_and_anybody_may_freeze() {
    let mut desk = Desk::open_with(fund);
    let what: Allowable = "203.0.113.7".parse().unwrap();
    for way in MALLORY {
        for (command, totp) in [
            (Command::Kill, Totp::Absent),
            (Command::DeleteKey { key: KeyPrint::of("k") }, Totp::Absent),
            (Command::Resume, right(9)),
            (Command::Disarm { for_s: None }, right(9)),
            (Command::Arm, right(9)),
            (Command::Allow { what: what.clone(), for_s: None }, right(9)),
        ] {
            refused(say(&mut desk, way, command, totp), "this takes two people here");
        }
    }
    assert_eq!((desk.kernel.status().requests.len(), desk.announced.len()), (0, 0));
    assert_eq!(say(&mut desk, MALLORY[0], Command::Freeze, Totp::Absent), Answer::Done);
}

#[test]
fn both_give_a_password_of_their_own_each_step_once_a_person() {
    let mut desk = Desk::open_with(fund);
    frozen(&mut desk);
    refused(say(&mut desk, ALICE[0], Command::Resume, Totp::Absent), "needs a one-time password");
    refused(say(&mut desk, ALICE[0], Command::Resume, Totp::Wrong), "is wrong");
    refused(say(&mut desk, ALICE[0], Command::Resume, Totp::NotSetUp), "[[operators.person]]");
    for why in [None, Some(""), Some(" \n ")] {
        refused(say_why(&mut desk, ALICE[0], Command::Resume, right(7), why), "needs a reason");
    }
    let approve = requested(say(&mut desk, ALICE[0], Command::Resume, right(7)));
    refused(say(&mut desk, BOB[1], approve.clone(), Totp::Absent), "needs a one-time password");
    refused(say(&mut desk, BOB[1], approve.clone(), Totp::Wrong), "is wrong");
    assert_eq!(word(&desk), "frozen");
    // The same step counts once for each person, whichever way he comes on.
    assert_eq!(say(&mut desk, BOB[1], approve, right(7)), Answer::Done);
    assert_eq!(word(&desk), "not released yet");
    assert!(told(
        &desk,
        "approved by bob (user 1002 of the host): alice (Telegram user 1) asked to resume main. Why: the"
    ));
    let disarm = Command::Arm;
    refused(say(&mut desk, ALICE[1], disarm.clone(), right(7)), "used already");
    let approve = requested(say(&mut desk, ALICE[1], disarm, right(8)));
    refused(say(&mut desk, BOB[0], approve.clone(), right(7)), "used already");
    refused(say(&mut desk, CAROL, approve, right(8)), "is not disarmed");
    assert!(told(&desk, "It could NOT be done: it is not disarmed"));
    assert_eq!(desk.kernel.status().requests.len(), 0);
}

#[test]
fn guesses_of_one_person_lock_out_no_other() {
    let mut desk = Desk::open_with(fund);
    frozen(&mut desk);
    for _ in 0..5 {
        refused(say(&mut desk, ALICE[0], Command::Resume, Totp::Wrong), "is wrong");
    }
    assert!(desk.incident("wrong_codes").lines[0].text.contains("of alice's"));
    refused(say(&mut desk, ALICE[1], Command::Resume, right(9)), "none is taken before");
    let approve = requested(say(&mut desk, BOB[0], Command::Resume, right(9)));
    refused(say(&mut desk, ALICE[1], approve.clone(), right(9)), "none is taken before");
    assert_eq!(say(&mut desk, CAROL, approve, right(9)), Answer::Done);
}

#[test]
fn a_request_expires_is_declined_and_is_one_of_a_few() {
    let mut desk = Desk::open_with(fund);
    let approve = requested(say(&mut desk, ALICE[0], Command::Kill, Totp::Absent));
    refused(say(&mut desk, ALICE[1], Command::Kill, Totp::Absent), "another person must approve request 1");
    refused(say(&mut desk, BOB[0], Command::Kill, Totp::Absent), "you can approve request 1");
    desk.wait_ms(10 * MINUTE + 1);
    assert!(told(&desk, "Request 1 has expired, nobody approved it"), "{:?}", desk.announced);
    refused(say(&mut desk, BOB[0], approve, Totp::Absent), "no such request");

    // Numbers are not used again at once.
    let approve = requested(say(&mut desk, ALICE[0], Command::Kill, Totp::Absent));
    assert_eq!(approve, Command::Approve { request: 2 });
    refused(say(&mut desk, MALLORY[0], Command::Decline { request: 2 }, Totp::Absent), "two people");
    let decline = |request| Command::Decline { request };
    refused(say(&mut desk, BOB[0], decline(2), Totp::Absent), "only whoever asked may decline what stops a theft");
    assert_eq!(say(&mut desk, ALICE[1], decline(2), Totp::Absent), Answer::Done, "his own");
    refused(say(&mut desk, BOB[0], approve, Totp::Absent), "no such request");
    refused(say(&mut desk, ALICE[0], Command::Resume, right(3)), "nothing was frozen");
    requested(say(&mut desk, ALICE[0], Command::Arm, right(3)));
    assert_eq!(say(&mut desk, BOB[0], decline(3), Totp::Absent), Answer::Done);
    assert!(told(&desk, "Request 3 was declined by bob (Telegram user 2)"));

    let delete = |name: &str| Command::DeleteKey { key: KeyPrint::of(name) };
    listed(&mut desk, &["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    desk.wait_ms(MINUTE);
    for (way, names) in [(ALICE[0], ["1", "2", "3", "4"]), (BOB[0], ["5", "6", "7", "8"])] {
        for name in names {
            requested(say(&mut desk, way, delete(name), Totp::Absent));
        }
    }
    refused(say(&mut desk, CAROL, delete("9"), Totp::Absent), "8 requests wait already");
    let kill = requested(say(&mut desk, ALICE[0], Command::Kill, Totp::Absent));
    assert_eq!(kill, Command::Approve { request: 12 }, "for a kill there is always room");
    assert_eq!(say(&mut desk, BOB[0], Command::Freeze, Totp::Absent), Answer::Done, "a freeze waits for nobody");
    for _ in 0..200 {
        desk.wait_ms(10 * MINUTE + 1);
        let answer = say(&mut desk, ALICE[0], delete("1"), Totp::Absent);
        assert!(matches!(answer, Answer::Requested { request: 1..=99 }), "{answer:?}");
    }
}

/// A freeze is begun, and the list shows these keys, which nobody declared, beside the bot's.
fn listed(desk: &mut Desk, names: &[&str]) {
    assert_eq!(say(desk, CAROL, Command::Freeze, Totp::Absent), Answer::Done);
    let keys: Vec<(&str, KeyRights)> = names.iter().chain(&["bot"]).map(|name| (*name, KeyRights::NONE)).collect();
    desk.acts.retain(|(_, act)| *act == Act::ListKeys);
    let (effect, _) = desk.acts.pop_back().expect("a freeze lists the keys");
    desk.event(Event::Acted { effect, outcome: ActOutcome::Keys(rows(&keys)) });
    desk.acts.clear();
}

#[test]
fn one_person_asks_for_a_few_things_and_for_no_key_that_nobody_has_seen() {
    let mut desk = Desk::open_with(fund);
    let delete = |name: &str| Command::DeleteKey { key: KeyPrint::of(name) };
    refused(say(&mut desk, ALICE[0], delete("1"), Totp::Absent), "no containment has listed the account's keys");
    listed(&mut desk, &["1", "2", "3", "4", "5"]);
    refused(say(&mut desk, ALICE[0], delete("unseen"), Totp::Absent), "list has not shown such a key");
    refused(say(&mut desk, ALICE[0], delete("cancel"), Totp::Absent), "one of countersign's own");
    let allow = Command::Allow { what: Allowable::Key(KeyPrint::of("unseen")), for_s: None };
    refused(say(&mut desk, ALICE[0], allow, right(1)), "list has not shown such a key");
    assert_eq!((desk.kernel.status().requests.len(), desk.announced.len()), (0, 0), "and nobody was bothered");
    for name in ["1", "2", "3", "4"] {
        requested(say(&mut desk, ALICE[0], delete(name), Totp::Absent));
    }
    refused(say(&mut desk, ALICE[1], delete("5"), Totp::Absent), "4 things within a minute");
    desk.wait_ms(MINUTE);
    refused(say(&mut desk, ALICE[1], delete("5"), Totp::Absent), "4 requests of yours wait already");
    requested(say(&mut desk, BOB[0], delete("5"), Totp::Absent));

    // Asked for and taken back again and again: each time is told on every channel.
    let mut desk = Desk::open_with(fund);
    let kill_and_decline = |desk: &mut Desk| {
        let answer = say(desk, ALICE[0], Command::Kill, Totp::Absent);
        if let Answer::Requested { request } = answer {
            assert_eq!(say(desk, ALICE[0], Command::Decline { request }, Totp::Absent), Answer::Done);
        }
        answer
    };
    for _ in 0..8 {
        requested(kill_and_decline(&mut desk));
    }
    refused(kill_and_decline(&mut desk), "8 things within a minute");
    desk.restart();
    refused(kill_and_decline(&mut desk), "8 things within a minute");
    assert!(matches!(say(&mut desk, BOB[0], Command::Kill, Totp::Absent), Answer::Requested { .. }), "another may");
    desk.wait_ms(11 * MINUTE);
    requested(kill_and_decline(&mut desk));
    // Whatever else he asked for, he may still ask for a kill.
    for step in 1..4 {
        requested(say(&mut desk, ALICE[0], Command::Allow { what: network(step), for_s: None }, right(step)));
    }
    refused(say(&mut desk, ALICE[0], Command::Arm, right(9)), "4 things within a minute");
    requested(say(&mut desk, ALICE[0], Command::Kill, Totp::Absent));
}

fn network(number: u64) -> Allowable {
    format!("203.0.113.{number}").parse().unwrap()
}

/// Whoever moves the chat moves the alerts: one person asks, another approves, and then the asker alone may, for a while.
#[test]
fn another_chat_is_paired_with_two_peoples_word() {
    let mut desk = Desk::open_with(fund);
    let may = |desk: &Desk| {
        let ways = ALICE.into_iter().chain(BOB).chain(MALLORY);
        ways.filter(|way| desk.kernel.may_pair(desk.now, *way)).collect::<Vec<_>>()
    };
    assert_eq!(may(&desk), []);
    refused(say(&mut desk, ALICE[1], Command::Pair, Totp::Absent), "needs a one-time password");
    let approve = requested(say(&mut desk, ALICE[1], Command::Pair, right(1)));
    assert!(told(&desk, "asks to pair Telegram with another chat, to which all alerts go then"));
    refused(say(&mut desk, ALICE[0], approve.clone(), right(2)), "whoever asks cannot approve");
    assert_eq!(may(&desk), []);
    assert_eq!(say(&mut desk, BOB[0], approve, right(1)), Answer::Done);
    desk.restart();
    assert_eq!(may(&desk), ALICE);
    desk.wait_ms(10 * MINUTE);
    assert_eq!(may(&desk), []);
    // Who may approve is no longer what it was.
    let approve = requested(say(&mut desk, ALICE[1], Command::Pair, right(3)));
    assert_eq!(say(&mut desk, BOB[0], approve, right(3)), Answer::Done);
    desk.declared.people.persons.remove(1);
    desk.restart();
    assert_eq!(may(&desk), []);
    assert!(Desk::open_with(may_stop).kernel.may_pair(desk.now, Way::Host { uid: 0 }), "one person's word elsewhere");
}

/// One approval moves the alerts once: its first code uses it up, on disk as well.
#[test]
fn an_approval_to_pair_is_one_code() {
    let pair = |desk: &mut Desk, way, is_first| {
        desk.event(Event::Pair { ticket: Ticket(9), way, is_first });
        desk.answers.pop().expect("it is answered")
    };
    let takes = "takes another person's approval";
    for (what, restarts, ways, codes) in [
        ("the asker, once, on one of his ways", false, [ALICE[0], ALICE[1]], [true, false]),
        ("nor again after a restart", true, [ALICE[1], ALICE[1]], [true, false]),
        ("whoever else tries uses up nothing", false, [BOB[0], ALICE[0]], [false, true]),
        ("nor does he after a restart", true, [MALLORY[0], ALICE[0]], [false, true]),
    ] {
        let mut desk = Desk::open_with(fund);
        refused(pair(&mut desk, ALICE[0], false), takes);
        assert_eq!(pair(&mut desk, BOB[0], true), Answer::Done, "the first pairing is free");
        let approve = requested(say(&mut desk, ALICE[1], Command::Pair, right(1)));
        assert_eq!(say(&mut desk, BOB[0], approve, right(1)), Answer::Done);
        for (way, code) in ways.into_iter().zip(codes) {
            match pair(&mut desk, way, false) {
                Answer::Done => assert!(code, "{what}: {way:?}"),
                answer => {
                    assert!(!code, "{what}: {way:?}");
                    refused(answer, takes);
                }
            }
            if restarts {
                desk.restart();
            }
        }
        refused(pair(&mut desk, ALICE[0], false), takes);
    }
    let mut alone = Desk::open_with(may_stop);
    let host = Way::Host { uid: 0 };
    assert_eq!([pair(&mut alone, host, false), pair(&mut alone, host, false)], [Answer::Done, Answer::Done]);
}

/// A theft on the second day, in mode *act*, is on the stream and in a read.
pub fn theft(desk: &mut Desk, order_id: i64) {
    desk.acts.clear();
    desk.reads.clear();
    desk.pass();
    let thief = desk.order(order_id, &format!("thief {order_id}"));
    desk.show(thief.placed());
    desk.wait_ms(1);
    desk.pass();
    if !desk.reads.is_empty() {
        desk.answer(thief.found(OrderStatus::Filled));
    }
}

/// One person's *not me* against the word of two: the account is frozen, which is one person's to say, and not killed.
#[test]
fn one_persons_not_me_kills_nothing_where_a_kill_takes_two() {
    let fund_that_acts = |declared: &mut Declared| {
        fund(declared);
        act_mode(declared);
    };
    let mut desk = Desk::open_with(fund_that_acts);
    desk.wait_ms(24 * HOUR);
    let claim = Claim::parse("BTCUSDT", "BUY", "1200USDT", "3", "30m").unwrap();
    let approve = requested(say(&mut desk, ALICE[0], Command::Manual { claim }, right(1)));
    assert_eq!(say(&mut desk, BOB[0], approve, right(1)), Answer::Done);
    desk.wait_ms(10_000);
    let by_hand = desk.order(2, "web_2");
    desk.show(by_hand.placed());
    desk.pass();
    desk.reads.clear();
    desk.acts.clear();
    assert_eq!(say(&mut desk, CAROL, Command::NotMe { window: None }, Totp::Absent), Answer::Done);
    desk.answer(by_hand.found(OrderStatus::New));
    assert_eq!(word(&desk), "not frozen yet");
    let lines = desk.incident("foreign_order").lines;
    assert!(lines.iter().any(|line| line.text.contains("a kill takes another's word here")), "{lines:#?}");
    let approve = requested(say(&mut desk, CAROL, Command::Kill, Totp::Absent));
    assert_eq!(say(&mut desk, ALICE[0], approve, Totp::Absent), Answer::Done);
    assert_eq!(word(&desk), "not contained");

    // What rests on nobody's word it kills as before.
    let mut desk = Desk::open_with(fund_that_acts);
    desk.wait_ms(24 * HOUR);
    theft(&mut desk, 3);
    assert_eq!(word(&desk), "not contained");
}

#[test]
fn a_request_and_what_counts_no_more_survive_a_restart() {
    let mut desk = Desk::open_with(fund);
    frozen(&mut desk);
    let approve = requested(say(&mut desk, ALICE[0], Command::Resume, right(7)));
    desk.restart();
    refused(say(&mut desk, ALICE[1], approve.clone(), right(8)), "whoever asks cannot approve");
    assert_eq!(say(&mut desk, BOB[0], approve, right(7)), Answer::Done);
    desk.restart();
    refused(say(&mut desk, ALICE[0], Command::Arm, right(7)), "used already");
    // While nothing ran its ten minutes went on.
    let approve = requested(say(&mut desk, ALICE[0], Command::Arm, right(8)));
    desk.now = desk.now + Duration::from_millis(11 * MINUTE);
    desk.restart();
    refused(say(&mut desk, BOB[0], approve, right(9)), "no such request");
    assert!(told(&desk, "has expired"));
    // Whoever was among the people then may be none of them now.
    let approve = requested(say(&mut desk, ALICE[0], Command::Kill, Totp::Absent));
    desk.declared.people.persons.remove(0);
    desk.restart();
    assert!(told(&desk, "is void, since the people in the configuration have changed"), "{:?}", desk.announced);
    refused(say(&mut desk, BOB[0], approve, Totp::Absent), "no such request");
    let lines = desk.incident("configuration").lines;
    assert!(lines[0].text.contains("persons was alice (Telegram 1, user 1001), bob"), "{lines:?}");
}

#[test]
fn without_people_everything_is_as_it_was() {
    let mut desk = Desk::open_with(may_stop);
    let host = Way::Host { uid: 7 };
    assert_eq!(&*desk.declared.people.by(host), "operator");
    refused(say(&mut desk, host, Command::Approve { request: 1 }, right(1)), "no such request");
    assert_eq!(say(&mut desk, host, Command::Kill, Totp::Absent), Answer::Done);
    assert_eq!((word(&desk).as_str(), desk.announced.len()), ("not contained", 0));
    // People without fund mode are named, and one of them is enough.
    let mut desk = Desk::open_with(|declared| {
        fund(declared);
        declared.people.two_people = false;
    });
    assert_eq!(say(&mut desk, ALICE[0], Command::Kill, Totp::Absent), Answer::Done);
    assert_eq!(&*desk.kernel.progress().unwrap().asked_by, "alice (Telegram user 1)");
}

/// Whoever asks in a hurry gives the reason later, once; nobody else gives it for him.
#[test]
fn a_request_without_a_reason_is_given_one() {
    let mut desk = Desk::open_with(fund);
    let mut kill = |way: Way, why: Option<&str>| say_why(&mut desk, way, Command::Kill, Totp::Absent, why);
    let approve = requested(kill(ALICE[0], None));
    refused(kill(ALICE[0], None), "another person must approve");
    refused(kill(BOB[0], Some("I know why")), "you can approve");
    assert_eq!(requested(kill(ALICE[1], Some("orders that are not ours"))), approve);
    refused(kill(ALICE[0], Some("something else")), "another person must approve");
    let status = desk.kernel.status();
    assert_eq!(status.requests.len(), 1);
    assert_eq!(status.requests[0].why.as_deref(), Some("orders that are not ours"));
    assert!(told(&desk, "gives the reason why to kill main: orders that are not ours"), "{:?}", desk.announced);
    assert_eq!(say(&mut desk, BOB[0], approve, Totp::Absent), Answer::Done);
    assert_eq!(word(&desk), "not contained");
}
