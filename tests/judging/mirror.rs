//! What a bot says was accepted, and the exchange does not show.

use countersign::kernel::event::{OrderRef, ReadOutcome, ReadRequest};
use countersign::kernel::incident::Priority;
use countersign::kernel::intent::{CancelTerms, IntentBody, SendOutcome, Target};
use countersign::kernel::order::{OrderId, OrderStatus, Symbol};

use crate::desk::{Desk, Shown, check, failed, id};

fn accepted() -> SendOutcome {
    SendOutcome::Accepted { order_id: None }
}

/// An announced order (2) that the exchange has not shown for ten seconds: it is being read.
fn unseen(result: Option<SendOutcome>) -> (Desk, Shown) {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    if let Some(outcome) = result {
        desk.result(desk.last_seq(), outcome);
    }
    desk.wait_ms(10_000);
    (desk, order)
}

#[test]
fn two_reads_five_seconds_apart_and_only_then_it_is_said() {
    let (mut desk, order) = unseen(Some(accepted()));
    let asked = ReadRequest::Order { symbol: Symbol::new("BTCUSDT"), order: OrderRef::Client(order.client_id) };
    assert_eq!(desk.reads.front().map(|(_, request)| request.clone()), Some(asked));
    desk.answer(ReadOutcome::NotFound);
    desk.wait_ms(4_999);
    assert!(desk.reads.is_empty());
    desk.wait_ms(1);
    check(&desk, "");
    desk.answer(ReadOutcome::NotFound);
    check(&desk, "unseen_intent");
    assert_eq!(desk.incident("unseen_intent").priority, Priority::Critical);
}

#[test]
fn a_bot_that_does_not_say_how_it_ended_is_told_quietly_until_it_says_accepted() {
    let (mut desk, _) = unseen(None);
    desk.answer(ReadOutcome::NotFound);
    desk.wait_ms(5_000);
    desk.answer(ReadOutcome::NotFound);
    check(&desk, "unanswered_intent");
    assert_eq!(desk.incident("unanswered_intent").priority, Priority::Info);
    desk.result(desk.last_seq(), accepted());
    check(&desk, "unseen_intent");
    let lines = desk.incident("unseen_intent").lines.len();
    desk.result(desk.last_seq() - 1, accepted());
    assert_eq!(desk.incident("unseen_intent").lines.len(), lines, "the same result twice is told once");
}

#[test]
fn what_the_bot_says_was_rejected_or_not_sent_closes_quietly() {
    for outcome in [SendOutcome::Rejected { code: Some(-2010), message: "no".into() }, SendOutcome::NotSent] {
        let (desk, _) = unseen(Some(outcome));
        assert!(desk.reads.is_empty());
        check(&desk, "");
    }
}

#[test]
fn failed_reads_are_no_reading() {
    let (mut desk, _) = unseen(Some(accepted()));
    for _ in 0..6 {
        check(
            &desk,
            if desk.now < crate::desk::START + std::time::Duration::from_secs(36) { "" } else { "bot_silent" },
        );
        desk.answer(failed());
        desk.wait_ms(160_000);
    }
    assert!(desk.reads.is_empty());
    assert!(desk.sum_up().contains("floor\n"), "unproven is told: {}", desk.sum_up());
}

#[test]
fn a_failed_read_between_two_does_not_count() {
    let (mut desk, _) = unseen(Some(accepted()));
    desk.answer(ReadOutcome::NotFound);
    desk.wait_ms(5_000);
    desk.answer(failed());
    desk.wait_ms(10_000);
    desk.answer(ReadOutcome::NotFound);
    assert!(desk.sum_up().contains("unseen_intent\n"), "{}", desk.sum_up());
}

#[test]
fn an_order_that_only_a_read_shows_means_that_the_stream_is_not_whole() {
    let (mut desk, order) = unseen(Some(accepted()));
    desk.answer(order.found(OrderStatus::New));
    check(&desk, "order 2: matched B\n rest_difference");
    desk.show(order.placed());
    check(&desk, "order 2: matched B\n rest_difference");
}

#[test]
fn a_read_may_name_the_cancels_id() {
    let (mut desk, order) = unseen(Some(accepted()));
    desk.answer(order.with(|order| order.client_id = id("of the cancel")).found(OrderStatus::Canceled));
    check(&desk, "order 2: matched B\n rest_difference");
}

/// Placed, amended and cancelled while nothing was seen: it is not found under the id that it was placed with, and the
/// number that the bot had from the exchange finds it. A number of some other order proves nothing.
#[test]
fn the_second_look_is_by_the_number_that_the_bot_was_told() {
    let number = |id| SendOutcome::Accepted { order_id: Some(OrderId(id)) };
    let (mut desk, order) = unseen(Some(number(2)));
    desk.answer(ReadOutcome::NotFound);
    desk.wait_ms(5_000);
    let asked = ReadRequest::Order { symbol: Symbol::new("BTCUSDT"), order: OrderRef::Id(OrderId(2)) };
    assert_eq!(desk.reads.front().map(|(_, request)| request.clone()), Some(asked));
    desk.answer(order.with(|order| order.client_id = id("made up by the exchange")).found(OrderStatus::Canceled));
    check(&desk, "order 2: matched B\n rest_difference");
    desk.wait_ms(20_000);
    assert!(desk.reads.is_empty());

    let (mut desk, _) = unseen(Some(number(1)));
    desk.answer(ReadOutcome::NotFound);
    desk.wait_ms(5_000);
    let first = desk.order(1, "first");
    desk.answer(first.found(OrderStatus::Filled));
    check(&desk, "unseen_intent");
}

#[test]
fn what_comes_after_all_is_noted() {
    let (mut desk, order) = unseen(Some(accepted()));
    desk.answer(ReadOutcome::NotFound);
    desk.wait_ms(5_000);
    desk.answer(ReadOutcome::NotFound);
    desk.show(order.placed());
    check(&desk, "order 2: matched B\n unseen_intent");
    let last = desk.incident("unseen_intent").lines.last().unwrap().text.clone();
    assert_eq!(&*last, "seq 2 of mm: the exchange shows it after all");
}

#[test]
fn a_cancel_is_met_by_its_targets_end_for_any_reason() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.show(order.placed());
    desk.say(order.cancel(None));
    desk.show(order.filled());
    desk.wait_ms(20_000);
    check(&desk, "order 2: matched B");
    assert!(desk.reads.is_empty());
}

/// Placed and amended unseen, then cancelled by the id it was placed with: the exchange knows no such id any more, and the
/// number that the bot was told finds it.
#[test]
fn a_cancel_of_what_was_amended_unseen_is_looked_up_by_number() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.result(desk.last_seq(), SendOutcome::Accepted { order_id: Some(OrderId(2)) });
    let target = Target::Client(order.client_id.clone());
    desk.say(IntentBody::Cancel(CancelTerms { symbol: order.symbol.clone(), target, client_order_id: None }));
    desk.wait_ms(10_000);
    let ended = order.with(|order| order.client_id = id("made up"));
    while let Some((_, request)) = desk.reads.front() {
        let by_number = matches!(request, ReadRequest::Order { order: OrderRef::Id(OrderId(2)), .. });
        desk.answer(if by_number { ended.found(OrderStatus::Canceled) } else { ReadOutcome::NotFound });
        desk.say(IntentBody::Heartbeat { egress: None });
        desk.wait_ms(5_000);
    }
    check(&desk, "order 2: matched B\n rest_difference");
}

/// The read and the stream cross: whichever comes first, the other one is no news.
#[test]
fn a_cancel_that_comes_while_its_target_is_read_is_neither_unseen_nor_a_difference() {
    let reading = || {
        let mut desk = Desk::open();
        let order = desk.order(2, "a");
        desk.say(order.place());
        desk.show(order.placed());
        desk.say(order.cancel(Some("c")));
        desk.result(desk.last_seq(), accepted());
        desk.wait_ms(10_000);
        desk.answer(order.found(OrderStatus::New));
        desk.wait_ms(5_000);
        (desk, order)
    };
    let matched = "order 2: matched B\n cancel 2: matched";
    // The first look of all is faster than the stream.
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.show(order.placed());
    desk.say(order.cancel(Some("c")));
    desk.wait_ms(10_000);
    desk.answer(order.found(OrderStatus::Canceled));
    desk.wait_ms(10);
    desk.show(order.canceled("c"));
    desk.wait_ms(10_000);
    check(&desk, matched);
    assert!(desk.reads.is_empty(), "{:?}", desk.reads);

    let (mut desk, order) = reading();
    desk.show(order.canceled("c"));
    desk.answer(order.found(OrderStatus::New));
    check(&desk, matched);

    let (mut desk, order) = reading();
    desk.answer(order.found(OrderStatus::Canceled));
    check(&desk, "order 2: matched B");
    desk.show(order.canceled("c"));
    desk.wait_ms(10_000);
    check(&desk, matched);
    assert!(desk.reads.is_empty(), "{:?}", desk.reads);

    let (mut desk, order) = reading();
    desk.answer(order.found(OrderStatus::Canceled));
    desk.wait_ms(3_000);
    desk.answer(order.found(OrderStatus::Canceled));
    check(&desk, "order 2: matched B\n rest_difference");
    desk.wait_ms(10_000);
    assert!(desk.reads.is_empty(), "{:?}", desk.reads);
}

/// The read names the cancel's id, as it may: the order is found all the same, and looked up no more.
#[test]
fn a_cancel_of_an_order_that_is_read_under_another_id_comes_to_an_end() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    let target = Target::Client(order.client_id.clone());
    desk.say(IntentBody::Cancel(CancelTerms { symbol: order.symbol.clone(), target, client_order_id: None }));
    let mut looks = 0;
    for _ in 0..120 {
        while !desk.reads.is_empty() {
            looks += 1;
            desk.answer(order.clone().with(|order| order.client_id = id("of the cancel")).found(OrderStatus::Canceled));
        }
        desk.wait_ms(1_000);
    }
    assert!(looks <= 4, "{looks} looks");
}

#[test]
fn a_cancel_whose_order_stays_open_is_unseen() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.show(order.placed());
    desk.say(order.cancel(None));
    desk.result(desk.last_seq(), accepted());
    desk.wait_ms(10_000);
    desk.answer(order.found(OrderStatus::New));
    desk.wait_ms(5_000);
    desk.answer(order.found(OrderStatus::New));
    check(&desk, "order 2: matched B\n unseen_intent");
    let told = desk.incident("unseen_intent");
    let line = "cancel of order 2 of BTCUSDT: announced by mm (seq 3), and the exchange shows no order that it ended";
    assert_eq!(&*told.lines[0].text, line);
    assert!(told.certainty.contains("shows the order open"), "{}", told.certainty);
}

#[test]
fn a_cancel_all_is_met_when_each_order_has_ended() {
    let mut desk = Desk::open();
    let orders = [desk.order(2, "a"), desk.order(3, "b")];
    for order in &orders {
        desk.say(order.place());
        desk.show(order.placed());
    }
    desk.say(IntentBody::Cancel(CancelTerms {
        symbol: Symbol::new("BTCUSDT"),
        target: Target::All,
        client_order_id: None,
    }));
    desk.show(orders[0].canceled("x"));
    desk.wait_ms(10_000);
    desk.answer(orders[1].found(OrderStatus::Canceled));
    // It may have ended just now, and the read be faster than the stream.
    check(&desk, "order 2: matched B\n order 3: matched B\n cancel 2: matched");
    desk.wait_ms(3_000);
    desk.answer(orders[1].found(OrderStatus::Canceled));
    desk.wait_ms(10_000);
    assert!(desk.reads.is_empty(), "each has ended");
    check(&desk, "order 2: matched B\n order 3: matched B\n cancel 2: matched\n rest_difference");
}

#[test]
fn after_a_restart_an_intent_gets_one_more_wait() {
    let mut desk = Desk::open();
    desk.say(desk.order(2, "a").place());
    desk.now = desk.now + std::time::Duration::from_secs(60);
    desk.restart();
    assert!(desk.reads.is_empty(), "{:?}", desk.reads);
    desk.wait_ms(10_000);
    assert_eq!(desk.reads.len(), 1);
    desk.restart();
    assert_eq!(desk.reads.len(), 1, "a read under way is asked again");
}
