//! What it does by itself, armed: when it begins, what never makes it begin, and its bounds.

use std::time::Duration;

use countersign::kernel::act::{Act, ActOutcome, KeyRights};
use countersign::kernel::declared::Declared;
use countersign::kernel::event::{Event, Fault, Issuer, ReadOutcome, ReadRequest, TagCheck, Ticket};
use countersign::kernel::incident::{IncidentState, Priority};
use countersign::kernel::order::OrderStatus;
use countersign::kernel::stopping::Mode;

use crate::desk::{Desk, failed};
use crate::stage::{Stage, TRADES, Venue, may_stop};

/// On its second day, in mode *act*; a stranger's order is on the stream, and the bot has spoken since.
fn acting(change: impl FnOnce(&mut Desk)) -> Desk {
    let mut desk = Desk::open_with(|declared| {
        may_stop(declared);
        declared.stopping.as_mut().unwrap().mode = Mode::Act;
    });
    desk.wait_ms(86_400_000);
    desk.pass();
    desk.acts.clear();
    desk.reads.clear();
    change(&mut desk);
    desk
}

fn theft(desk: &mut Desk) {
    let thief = desk.order(3, "thief");
    desk.show(thief.placed());
    desk.wait_ms(1);
    desk.pass();
}

fn begins(desk: &Desk) -> String {
    let kill = desk.acts.iter().any(|(_, act)| matches!(act, Act::OpenOrders));
    let list = desk.acts.iter().any(|(_, act)| matches!(act, Act::ListKeys));
    let word = if kill {
        "kill"
    } else if list {
        "freeze"
    } else {
        "nothing"
    };
    word.to_owned()
}

#[test]
fn by_itself_it_kills_only_what_stream_and_read_both_show() {
    let mut desk = acting(|_| {});
    theft(&mut desk);
    assert_eq!(begins(&desk), "nothing", "the read comes first");
    assert!(matches!(desk.reads[0].1, ReadRequest::Order { .. }), "{:?}", desk.reads);
    let found = desk.order(3, "thief").found(OrderStatus::Filled);
    desk.answer(found);
    assert_eq!(begins(&desk), "kill");
    let contained = desk.incident("foreign_order").contained.unwrap();
    assert_eq!(&*contained.asked_by, "countersign, by itself");
}

#[test]
fn what_never_leads_to_acting_alone() {
    let found = |desk: &mut Desk| {
        let found = desk.order(3, "thief").found(OrderStatus::Filled);
        desk.answer(found);
    };
    let failed_read = |desk: &mut Desk| desk.answer(failed());
    let unknown_to_it = |desk: &mut Desk| desk.answer(ReadOutcome::NotFound);
    type Told<'a> = (&'a str, Box<dyn Fn(&mut Desk)>, Option<&'a dyn Fn(&mut Desk)>);
    let blind = |desk: &mut Desk| desk.lost(1);
    let jump = |desk: &mut Desk| desk.event(Event::Fault(Fault::ClockJump { by_ms: 60_000 }));
    let mut cases: Vec<Told<'_>> = vec![
        ("did not show the order as well", Box::new(|_| {}), Some(&failed_read)),
        ("did not show the order as well", Box::new(|_| {}), Some(&unknown_to_it)),
        ("clock jumped", Box::new(jump), None),
    ];
    // Sight lost between the two looks.
    let lost_meanwhile = move |desk: &mut Desk| {
        blind(desk);
        found(desk);
    };
    cases.push(("cannot be seen now", Box::new(|_| {}), Some(&lost_meanwhile)));
    for (why, before, answer) in cases {
        let mut desk = acting(before);
        theft(&mut desk);
        if let Some(answer) = answer {
            answer(&mut desk);
        }
        assert_eq!(begins(&desk), "nothing", "{why}");
        let lines = desk.incident("foreign_order").lines;
        assert!(lines.iter().any(|line| line.text.contains(why)), "{why}: {lines:#?}");
    }
    let mut young = Desk::open_with(|declared| {
        may_stop(declared);
        declared.stopping.as_mut().unwrap().mode = Mode::Act;
    });
    young.acts.clear();
    theft(&mut young);
    assert!(young.incident("foreign_order").lines.iter().any(|line| line.text.contains("first day")));
    assert_eq!(begins(&young), "nothing");
}

#[test]
fn tags_that_all_turn_bad_ask_and_do_not_kill() {
    let forged = |desk: &mut Desk| {
        let mut order = desk.order(3, "forged");
        order.tag = TagCheck::Forged;
        desk.show(order.placed());
        desk.wait_ms(1);
        desk.pass();
    };
    let mut desk = acting(|_| {});
    forged(&mut desk);
    assert!(desk.reads.is_empty());
    assert!(desk.incident("forged_id").lines.iter().any(|line| line.text.contains("is its tag key the right one")));
    // A tag that verified a moment ago shows that the key is the right one.
    let mut desk = acting(|desk| {
        let tagged = desk.order(2, "tagged").tagged(Issuer::Daemon);
        desk.say(tagged.place());
        desk.show(tagged.placed());
    });
    forged(&mut desk);
    assert!(matches!(desk.reads[0].1, ReadRequest::Order { .. }));
}

#[test]
fn a_kill_is_bounded_by_a_cooldown_and_a_freeze_is_not() {
    let mut stage = Stage {
        desk: acting(|_| {}),
        venue: Venue { bot_key: Some(TRADES), open: Vec::new(), free: Vec::new(), done: Vec::new() },
    };
    theft(&mut stage.desk);
    let found = stage.desk.order(3, "thief").found(OrderStatus::Filled);
    stage.desk.answer(found);
    stage.run(20_000);
    assert_eq!(stage.word(), "contained");
    // Another key, and a thief who has it as well.
    stage.venue.bot_key = Some(TRADES);
    stage.desk.wait_ms(700_000);
    stage.desk.reads.clear();
    stage.desk.acts.clear();
    stage.desk.pass();
    let again = stage.desk.order(9, "again");
    stage.desk.show(again.placed());
    stage.desk.wait_ms(1);
    stage.desk.pass();
    stage.desk.answer(again.found(OrderStatus::Filled));
    assert_eq!(begins(&stage.desk), "freeze");
    stage.run(5_000);
    assert_eq!((stage.word().as_str(), stage.venue.bot_key), ("frozen", Some(KeyRights::NONE)));
    // It is another theft, on a card of its own.
    let mut thefts = stage.desk.kernel.notices();
    thefts.retain(|notice| &*notice.rule == "foreign_order");
    let lines = &thefts[1].lines;
    assert!(lines.iter().any(|line| line.text.contains("killed often enough")), "{lines:#?}");
    assert_eq!(stage.desk.incident("kills_used_up").priority, Priority::Critical, "it pages");
}

/// Decoys that use up its kills do not use up its freezes, and the owner is paged.
#[test]
fn the_daily_maximum_leaves_the_freeze_and_pages() {
    let mut stage = Stage {
        desk: acting(|_| {}),
        venue: Venue { bot_key: Some(TRADES), open: Vec::new(), free: Vec::new(), done: Vec::new() },
    };
    for number in 3..=6 {
        stage.venue.bot_key = Some(TRADES);
        stage.desk.reads.clear();
        stage.desk.pass();
        let decoy = stage.desk.order(number, &format!("decoy-{number}"));
        stage.desk.show(decoy.placed());
        stage.desk.wait_ms(1);
        stage.desk.pass();
        stage.desk.answer(decoy.found(OrderStatus::Filled));
        let fourth = number == 6;
        assert_eq!(begins(&stage.desk), if fourth { "freeze" } else { "kill" }, "decoy {number}");
        let paged = stage.desk.kernel.notices().iter().any(|notice| &*notice.rule == "kills_used_up");
        assert_eq!(paged, fourth, "decoy {number}");
        stage.run(20_000);
        assert_eq!(stage.word(), if fourth { "frozen" } else { "contained" });
        // Past the hour of the cooldown, within the day.
        stage.desk.wait_ms(3_600_000);
        stage.run(5_000);
    }
    assert_eq!(stage.venue.bot_key, Some(KeyRights::NONE));
    let page = stage.desk.incident("kills_used_up");
    assert_eq!((page.priority, page.state), (Priority::Critical, IncidentState::Open));
    assert_eq!(stage.venue.done.iter().filter(|done| *done == "deleted").count(), 3);
}

/// Whoever uses up the limit of the list of keys holds up neither the freeze nor the deletion.
#[test]
fn a_list_that_is_held_back_holds_up_no_key() {
    let mut desk = acting(|_| {});
    theft(&mut desk);
    let found = desk.order(3, "thief").found(OrderStatus::Filled);
    desk.answer(found);
    let mut venue = Venue { bot_key: Some(TRADES), open: Vec::new(), free: Vec::new(), done: Vec::new() };
    for _ in 0..100 {
        while let Some((effect, act)) = desk.acts.pop_front() {
            let until = desk.now + Duration::from_secs(60);
            let outcome = match act {
                Act::ListKeys => ActOutcome::Held { until, reason: "told to wait (status 429)".into() },
                other => venue.act(&other),
            };
            desk.event(Event::Acted { effect, outcome });
        }
        desk.wait_ms(50);
    }
    assert_eq!(venue.done, ["rights: no right", "cancelled 3", "deleted"], "within five seconds, and once each");
    let progress = desk.kernel.progress().unwrap();
    assert_eq!((&*progress.word, progress.end), ("not contained", None), "no word without a list");
}

#[test]
fn nobody_answers_for_a_minute_and_the_keys_are_frozen() {
    let unanswered = |declared: &mut Declared| {
        may_stop(declared);
        declared.stopping.as_mut().unwrap().freeze_unanswered = Some(Duration::from_secs(60));
    };
    let mut desk = Desk::open_with(unanswered);
    desk.acts.clear();
    theft(&mut desk);
    desk.wait_ms(59_000);
    assert_eq!(begins(&desk), "nothing");
    desk.wait_ms(2_000);
    assert_eq!(begins(&desk), "freeze");
    // An answer, be it no more than an acknowledgement, leaves it to the owner.
    let mut desk = Desk::open_with(unanswered);
    desk.acts.clear();
    theft(&mut desk);
    let incident = desk.incident("foreign_order").incident;
    desk.event(Event::Acknowledge { ticket: Ticket(1), by: "owner".into(), incident, shown: None });
    desk.wait_ms(120_000);
    assert_eq!(begins(&desk), "nothing");
}
