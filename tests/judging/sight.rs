//! The stream itself: copies, echoes, connections that go and come, gaps and restarts.

use std::time::Duration;

use countersign::kernel::coverage::Sight;
use countersign::kernel::event::{Connection, Event, FeedChange, ReadOutcome, ReadRequest};
use countersign::kernel::incident::Priority;
use countersign::kernel::intent::{IntentBody, SendOutcome};
use countersign::kernel::order::OrderStatus;
use countersign::kernel::report::{ExecutionReport, Report};

use crate::desk::{Desk, check, dec};

/// Two settled connections.
fn doubled() -> Desk {
    let mut desk = Desk::open();
    desk.live(2);
    desk.wait_ms(3_000);
    desk
}

#[test]
fn the_second_copy_of_a_frame_is_an_echo() {
    let mut desk = doubled();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.show_on(1, order.placed());
    desk.show_on(2, order.placed());
    desk.show_on(2, order.placed());
    desk.show_on(2, order.filled());
    desk.show_on(1, order.filled());
    desk.wait_ms(11_000);
    check(&desk, "order 2: matched B");
    assert_eq!(desk.kernel.status().counts.echoes, 3);
}

#[test]
fn an_equal_copy_is_worth_a_small_row_and_any_other_a_whole_one() {
    let mut desk = doubled();
    let order = desk.order(2, "a");
    desk.say(order.place());
    let (placed, tags) = order.placed();
    let report = Report::Execution(Box::new(placed.clone()));
    let (first, second) = (Connection(1), Connection(2));
    assert_eq!(desk.kernel.echo_of(&report, second), None, "nothing came before it");
    desk.show_on(1, (placed.clone(), tags));
    assert_eq!(desk.kernel.echo_of(&report, first), None, "the same connection again");
    let differing = Report::Execution(Box::new(ExecutionReport { price: dec("1"), ..placed }));
    assert_eq!(desk.kernel.echo_of(&differing, second), None, "it tells something else");
    let of = desk.kernel.echo_of(&report, second).expect("it tells the same on the other connection");
    desk.event(Event::Echo { connection: second, of });
    desk.wait_ms(11_000);
    check(&desk, "order 2: matched B");
    assert_eq!(desk.kernel.status().counts.echoes, 1);
}

#[test]
fn a_connection_that_joins_another_is_compared_soon_and_one_that_flaps_not_every_time() {
    let mut desk = Desk::open();
    desk.live(2);
    desk.wait_ms(9_999);
    assert!(desk.reads.is_empty(), "{:?}", desk.reads);
    desk.wait_ms(1);
    let asked: Vec<&ReadRequest> = desk.reads.iter().map(|(_, request)| request).collect();
    assert_eq!(asked, [&ReadRequest::OpenOrders, &ReadRequest::Balances]);
    desk.answer(ReadOutcome::OpenOrders(Vec::new()));
    desk.answer(ReadOutcome::Balances(Vec::new()));
    assert_eq!(desk.kernel.state().coverage.proved_at, Some(desk.now));
    for connection in 3..23 {
        desk.live(connection);
        desk.wait_ms(500);
        desk.lost(connection);
    }
    desk.wait_ms(10_000);
    assert_eq!(desk.reads.len(), 2, "one comparison in those 20 s, and it is not answered: {:?}", desk.reads);
}

/// Both connections break at once; one is noticed and replaced before the other is, so that at no moment none is live.
#[test]
fn a_gap_that_is_known_only_later_is_told() {
    let mut desk = doubled();
    desk.wait_ms(10_000);
    let heard = desk.now;
    let lost = |desk: &mut Desk, connection| {
        desk.feed(connection, FeedChange::Lost { reason: "silent".into(), heard_until: Some(heard) });
    };
    desk.wait_ms(12_000);
    lost(&mut desk, 1);
    desk.wait_ms(1_000);
    desk.live(3);
    let again = desk.now;
    desk.wait_ms(2_000);
    assert_eq!(desk.kernel.status().gaps, 0);
    lost(&mut desk, 2);
    assert_eq!(desk.kernel.state().coverage.last_gap(), Some((heard, again)));
    let incident = desk.incident("blind");
    let line = format!("blind from {heard} to {again} UTC, 13.0 s; comparing by REST");
    assert!(incident.lines.iter().any(|told| *told.text == *line), "{:#?}", incident.lines);
    assert!(desk.reads.iter().any(|(_, read)| *read == ReadRequest::OpenOrders), "it is compared at once");
    // The connection that covers the account by now is one; its end is a gap like any other, from when it was heard.
    desk.wait_ms(5_000);
    let last = desk.now - Duration::from_secs(2);
    desk.feed(3, FeedChange::Lost { reason: "reset".into(), heard_until: Some(last) });
    assert_eq!(desk.kernel.state().coverage.blind_since, Some(last));
    assert_eq!(desk.kernel.status().gaps, 1);
}

#[test]
fn a_connection_whose_silence_another_one_covered_is_no_gap() {
    let mut desk = doubled();
    desk.wait_ms(20_000);
    let heard = desk.now - Duration::from_secs(12);
    desk.feed(1, FeedChange::Lost { reason: "silent".into(), heard_until: Some(heard) });
    assert_eq!((desk.kernel.status().gaps, desk.kernel.status().connections), (0, 1));
    assert!(desk.told.iter().all(|notice| &*notice.rule != "blind"));
}

#[test]
fn a_copy_that_differs_is_kept_and_told() {
    let mut desk = doubled();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.show_on(1, order.placed());
    let (mut other, tags) = order.placed();
    other.price = dec("1");
    desk.show_on(2, (other, tags));
    check(&desk, "order 2: matched B\n conflicting_copies");
}

#[test]
fn a_copy_that_never_comes_speaks_against_its_connection() {
    let mut desk = doubled();
    for n in 2..5 {
        let order = desk.order(n, &format!("o-{n}"));
        desk.say(order.place());
        desk.show_on(1, order.placed());
    }
    desk.wait_ms(9_999);
    check(&desk, "order 2: matched B\n order 3: matched B\n order 4: matched B");
    desk.wait_ms(1);
    check(&desk, "order 2: matched B\n order 3: matched B\n order 4: matched B\n copy_missing");
    assert_eq!(desk.incident("copy_missing").lines.len(), 1);
}

#[test]
fn no_copy_is_missed_of_a_connection_that_is_young_or_gone() {
    let mut desk = Desk::open();
    desk.live(2);
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.show_on(1, order.placed());
    desk.wait_ms(20_000);
    check(&desk, "order 2: matched B");
    desk.say(IntentBody::Heartbeat { egress: None });
    desk.show_on(1, order.filled());
    desk.feed(2, FeedChange::Retired);
    desk.wait_ms(20_000);
    check(&desk, "order 2: matched B");
}

/// It lingered on its way until the connection that was subscribed after it had settled.
#[test]
fn no_copy_is_missed_of_a_connection_that_was_not_there_when_the_event_was_made() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.wait_ms(1_000);
    desk.live(2);
    desk.wait_ms(2_500);
    desk.show_on(1, order.placed());
    desk.wait_ms(20_000);
    check(&desk, "order 2: matched B");
}

#[test]
fn a_frame_that_cannot_be_read_is_told() {
    let mut desk = Desk::open();
    let kept = Event::Kept { connection: Connection(1), reason: "unknown event \"x\"".into(), raw: "{}".into() };
    desk.event(kept);
    check(&desk, "kept_frame");
}

#[test]
fn blindness_is_told_grows_louder_and_ends_with_the_gap() {
    let mut desk = doubled();
    desk.lost(1);
    check(&desk, "");
    desk.lost(2);
    check(&desk, "blind");
    assert_eq!(desk.kernel.status().sight, Sight::Blind);
    assert_eq!(desk.incident("blind").priority, Priority::Warning);
    desk.say(IntentBody::Heartbeat { egress: None });
    desk.wait_ms(29_000);
    desk.say(IntentBody::Heartbeat { egress: None });
    desk.wait_ms(29_000);
    desk.say(IntentBody::Heartbeat { egress: None });
    desk.wait_ms(2_000);
    assert_eq!(desk.incident("blind").priority, Priority::Critical);
    desk.live(3);
    check(&desk, "blind ended");
    assert_eq!(desk.kernel.status().sight, Sight::Live);
    desk.answer(ReadOutcome::OpenOrders(Vec::new()));
    desk.answer(ReadOutcome::Balances(Vec::new()));
    assert_eq!(desk.kernel.status().sight, Sight::Proved);
    assert_eq!(desk.kernel.status().gaps, 1);
}

#[test]
fn a_refused_key_is_critical_until_the_key_works() {
    let mut desk = Desk::open();
    desk.feed(1, FeedChange::KeyRefused { code: -2015, message: "Invalid API-key".into() });
    check(&desk, "key_refused");
    desk.lost(1);
    desk.live(2);
    check(&desk, "key_refused ended\n blind ended");
}

#[test]
fn what_was_placed_in_a_gap_is_found_and_belongs_to_the_gap() {
    let mut desk = Desk::open();
    desk.lost(1);
    desk.wait_ms(5_000);
    let (bots, thiefs) = (desk.order(2, "a"), desk.order(3, "thief"));
    desk.say(bots.place());
    desk.wait_ms(5_000);
    desk.live(2);
    desk.answer(ReadOutcome::OpenOrders(vec![bots.read(OrderStatus::New), thiefs.read(OrderStatus::New)]));
    desk.answer(ReadOutcome::Balances(Vec::new()));
    desk.wait_ms(3_000);
    desk.answer(bots.found(OrderStatus::New));
    desk.answer(thiefs.found(OrderStatus::New));
    desk.pass();
    check(&desk, "order 2: matched B\n order 3: foreign\n blind ended\n foreign_order orders=1 USDT=600");
    assert_eq!(desk.kernel.status().sight, Sight::Proved);
    let lines = desk.incident("blind").lines;
    assert_eq!(lines.iter().filter(|line| line.text.starts_with("found after the gap")).count(), 2, "{lines:#?}");
}

/// The stream is late, and breaks: what it had not brought yet is lost with it, although a frame came a moment before, or
/// the connection answered to the end.
#[test]
fn what_a_late_stream_had_not_brought_belongs_to_the_gap() {
    for (late_ms, told) in
        [(Some(3_000), "blind ended"), (Some(0), "blind ended\n rest_difference"), (None, "blind ended")]
    {
        let mut desk = Desk::open();
        let lost = desk.order(3, "lost");
        desk.say(lost.place());
        desk.wait_ms(2_500);
        let mut open = Vec::new();
        if let Some(late_ms) = late_ms {
            let last = desk.order(2, "last");
            desk.say(last.place());
            open.push(last.read(OrderStatus::New));
            let (mut shown, tags) = last.placed();
            shown.event_at = desk.now - Duration::from_millis(late_ms);
            desk.show((shown, tags));
        }
        // The new connection brings something in time before it is known that the old one broke.
        let broke = desk.now;
        desk.wait_ms(1);
        desk.live(2);
        let new = desk.order(4, "new");
        desk.say(new.place());
        desk.show_on(2, new.placed());
        desk.feed(1, FeedChange::Lost { reason: "reset".into(), heard_until: Some(broke) });
        open.push(new.read(OrderStatus::New));
        desk.answer(ReadOutcome::OpenOrders(open));
        desk.answer(ReadOutcome::Balances(Vec::new()));
        desk.wait_ms(7_498);
        assert!(desk.reads.is_empty(), "{:?}", desk.reads);
        desk.wait_ms(1);
        desk.answer(lost.found(OrderStatus::Filled));
        let last = late_ms.map_or("", |_| "order 2: matched B\n");
        check(&desk, &format!("{last} order 3: matched B\n order 4: matched B\n {told}"));
    }
}

/// The same where the process ended, which leaves the clocks to be compared anew.
#[test]
fn what_a_late_stream_had_not_brought_before_a_restart_belongs_to_the_gap() {
    for (late_ms, another_restart_s, told) in [
        (3_000, None, "blind ended"),
        (0, None, "blind ended\n rest_difference"),
        // How late it is shows by what came before the first restart, unless that is long ago: our clock may be another.
        (3_000, Some(1), "blind ended\n blind ended"),
        (3_000, Some(120), "blind ended\n bot_silent ended\n blind ended\n rest_difference"),
    ] {
        let mut desk = Desk::open();
        if let Some(restart_s) = another_restart_s {
            desk.restart();
            desk.wait_ms(restart_s * 1_000);
            desk.live(2);
            desk.answer(ReadOutcome::OpenOrders(Vec::new()));
            desk.answer(ReadOutcome::Balances(Vec::new()));
            desk.wait_ms(2_000);
        }
        let (lost, last) = (desk.order(3, "lost"), desk.order(2, "last"));
        desk.say(lost.place());
        desk.say(last.place());
        desk.wait_ms(2_500);
        let (mut shown, tags) = last.placed();
        shown.event_at = desk.now - Duration::from_millis(late_ms);
        desk.show_on(if another_restart_s.is_some() { 2 } else { 1 }, (shown, tags));
        desk.restart();
        desk.live(3);
        desk.answer(ReadOutcome::OpenOrders(vec![last.read(OrderStatus::New)]));
        desk.answer(ReadOutcome::Balances(Vec::new()));
        desk.wait_ms(7_499);
        assert!(desk.reads.is_empty(), "{:?}", desk.reads);
        desk.wait_ms(5_001);
        desk.answer(lost.found(OrderStatus::Filled));
        check(&desk, &format!("order 2: matched B\n order 3: matched B\n {told}"));
    }
}

#[test]
fn what_is_read_while_blind_belongs_to_the_gap_too() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.lost(1);
    desk.say(order.place());
    desk.result(desk.last_seq(), SendOutcome::Accepted { order_id: None });
    desk.wait_ms(10_000);
    desk.answer(order.found(OrderStatus::New));
    check(&desk, "order 2: matched B\n blind");
}

#[test]
fn a_gap_is_compared_until_a_comparison_succeeds() {
    let mut desk = Desk::open();
    desk.lost(1);
    let thiefs = desk.order(3, "thief");
    desk.wait_ms(5_000);
    desk.live(2);
    desk.answer(crate::desk::failed());
    desk.answer(ReadOutcome::Balances(Vec::new()));
    desk.wait_ms(20_000);
    desk.say(IntentBody::Heartbeat { egress: None });
    assert_eq!(desk.reads.len(), 2);
    desk.answer(ReadOutcome::OpenOrders(vec![thiefs.read(OrderStatus::New)]));
    desk.answer(ReadOutcome::Balances(Vec::new()));
    desk.wait_ms(3_000);
    desk.answer(thiefs.found(OrderStatus::New));
    desk.pass();
    check(&desk, "order 3: foreign\n blind ended\n foreign_order orders=1 USDT=600");
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    let (mut trade, tags) = order.traded("0.001");
    trade.price = dec("61000");
    desk.show((trade, tags));
    desk.show(desk.order(3, "thief").placed());
    assert_eq!(desk.reads.len(), 1);
    desk.now = desk.now + Duration::from_secs(60);
    desk.restart();
    assert!(matches!(desk.reads[0].1, ReadRequest::Order { .. }), "what was being read is read again");
    check(&desk, "order 2: pending\n order 3: pending\n blind");
    desk.answer(order.found(OrderStatus::PartiallyFilled));
    desk.wait_ms(9_999);
    check(&desk, "order 2: matched B\n order 3: pending\n blind");
    desk.wait_ms(1);
    check(&desk, "order 2: matched B\n order 3: foreign\n blind\n foreign_order orders=1 USDT=600");
}

/// A connection may have been broken before the process ended, and nobody knew yet.
#[test]
fn after_a_restart_the_gap_begins_where_the_stream_last_showed_something_or_a_break_would_have_been_noticed() {
    for (quiet_s, back_s) in [(5, 5), (60, 15)] {
        let mut desk = Desk::open();
        let order = desk.order(2, "a");
        desk.say(order.place());
        desk.show(order.placed());
        let ended = desk.now + Duration::from_secs(quiet_s);
        while desk.now < ended {
            desk.wait_ms(1_000);
            desk.say(IntentBody::Heartbeat { egress: None });
        }
        desk.restart();
        assert_eq!(desk.kernel.state().coverage.blind_since, Some(ended - Duration::from_secs(back_s)));
    }
}

/// One connection has been silent for long and nobody knew, while the other was replaced: what the first did not cover is a
/// gap, although it counted as live until the end.
#[test]
fn after_a_restart_a_connection_that_had_gone_silent_covers_nothing() {
    let mut desk = Desk::open();
    desk.live(2);
    desk.wait_ms(3_000);
    let show = |desk: &mut Desk, id: i64, on: &[u64]| {
        let order = desk.order(id, &format!("bot-{id}"));
        desk.say(order.place());
        on.iter().for_each(|connection| desk.show_on(*connection, order.placed()));
    };
    show(&mut desk, 2, &[1, 2]);
    desk.wait_ms(5_000);
    let from = desk.now;
    desk.lost(2);
    desk.wait_ms(500);
    let to = desk.now;
    desk.live(3);
    desk.wait_ms(2_000);
    show(&mut desk, 3, &[3]);
    let last = desk.now;
    desk.wait_ms(1_000);
    desk.restart();
    let coverage = &desk.kernel.state().coverage;
    assert_eq!((coverage.last_gap(), coverage.blind_since), (Some((from, to)), Some(last)));
}

#[test]
fn a_comparison_from_before_a_restart_proves_nothing() {
    let mut desk = Desk::open();
    desk.lost(1);
    desk.live(2);
    assert_eq!(desk.reads.len(), 2);
    desk.restart();
    assert!(desk.reads.is_empty());
    desk.live(3);
    assert_eq!(desk.reads.len(), 2);
    desk.answer(ReadOutcome::OpenOrders(Vec::new()));
    desk.answer(ReadOutcome::Balances(Vec::new()));
    assert_eq!(desk.kernel.status().sight, Sight::Proved);
}
