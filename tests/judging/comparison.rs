//! The comparison by REST, and what stood before we looked.

use std::time::Duration;

use countersign::kernel::coverage::Sight;
use countersign::kernel::declared::Declared;
use countersign::kernel::event::{Answer, Event, ReadOutcome, ReadRequest, Tags, Ticket};
use countersign::kernel::incident::IncidentState;
use countersign::kernel::order::OrderStatus;
use countersign::kernel::report::{AccountPosition, Balance, Report};

use crate::desk::{Desk, balance, check, failed};

/// A desk whose comparison on the timer has just begun.
fn comparing() -> Desk {
    compares(Desk::open_with(often))
}

fn often(declared: &mut Declared) {
    declared.waits.audit_every = Duration::from_secs(20);
    declared.waits.silent_after = Duration::from_secs(3_600);
}

fn compares(mut desk: Desk) -> Desk {
    while desk.reads.is_empty() {
        desk.wait_ms(100);
    }
    assert!(matches!(desk.reads[0].1, ReadRequest::OpenOrders));
    desk
}

fn position(desk: &mut Desk, balances: Vec<Balance>) {
    let (event_at, updated_at) = (desk.now, desk.now);
    desk.report_on(1, Report::Position(AccountPosition { balances, event_at, updated_at }), Tags::NONE);
}

fn confirm(desk: &mut Desk, digest: &str) -> Answer {
    desk.event(Event::ConfirmPreExisting { ticket: Ticket(1), by: "owner".into(), digest: digest.into() });
    desk.answers.last().cloned().expect("an operator is answered")
}

#[test]
fn books_that_agree_prove_the_state() {
    let mut desk = comparing();
    desk.answer(ReadOutcome::OpenOrders(Vec::new()));
    desk.answer(ReadOutcome::Balances(Vec::new()));
    check(&desk, "");
    assert_eq!(desk.kernel.status().proved_at, Some(desk.now));
}

#[test]
fn what_the_stream_brings_within_its_time_is_no_difference() {
    let mut desk = comparing();
    let (fresh, gone) = (desk.order(2, "a"), desk.order(3, "b"));
    for order in [&fresh, &gone] {
        desk.say(order.place());
    }
    desk.show(gone.placed());
    desk.answer(ReadOutcome::OpenOrders(vec![fresh.read(OrderStatus::New)]));
    desk.answer(ReadOutcome::Balances(Vec::new()));
    desk.show(fresh.placed());
    desk.show(gone.filled());
    desk.wait_ms(3_000);
    assert!(desk.reads.is_empty(), "explained without a read: {:?}", desk.reads);
    check(&desk, "order 2: matched B\n order 3: matched B");
    assert_eq!(desk.kernel.status().proved_at, Some(desk.now));
}

#[test]
fn an_order_that_the_stream_never_brought_is_a_difference() {
    let mut desk = comparing();
    let missed = desk.order(2, "missed");
    desk.answer(ReadOutcome::OpenOrders(vec![missed.read(OrderStatus::New)]));
    desk.answer(ReadOutcome::Balances(Vec::new()));
    desk.wait_ms(3_000);
    desk.answer(failed());
    desk.wait_ms(20_000);
    // The timer came meanwhile; the single read is the last one asked for.
    let at = desk.reads.iter().position(|(_, read)| matches!(read, ReadRequest::Order { .. })).unwrap();
    desk.reads.rotate_left(at);
    desk.answer(missed.found(OrderStatus::New));
    desk.pass();
    let judged = "order 2: foreign\n foreign_order orders=1 USDT=600";
    check(&desk, judged);
    // The stream has shown nothing of that time yet.
    desk.wait_ms(3_000);
    check(&desk, &format!("{judged}\n rest_difference"));
    assert_eq!(desk.kernel.status().sight, Sight::Proved, "proved by an earlier comparison");
}

#[test]
fn an_order_that_ended_unseen_is_a_difference_and_one_nobody_knows_too() {
    for outcome in [Some(OrderStatus::Filled), None] {
        let mut desk = comparing();
        let order = desk.order(2, "a");
        desk.say(order.place());
        desk.show(order.placed());
        desk.answer(ReadOutcome::OpenOrders(Vec::new()));
        desk.answer(ReadOutcome::Balances(Vec::new()));
        desk.wait_ms(3_000);
        desk.answer(outcome.map_or(ReadOutcome::NotFound, |status| order.found(status)));
        if let Some(status) = outcome {
            // It may have ended just now, and the read be faster than the stream.
            check(&desk, "order 2: matched B");
            desk.wait_ms(3_000);
            desk.answer(order.found(status));
        }
        check(&desk, "order 2: matched B\n rest_difference");
        assert_eq!(desk.kernel.state().blotter.open_orders().count(), 0);
    }
}

#[test]
fn balances_that_move_while_they_are_read_agree() {
    let mut desk = comparing();
    position(&mut desk, vec![balance("USDT", "100", "0")]);
    desk.answer(ReadOutcome::OpenOrders(Vec::new()));
    // The read was answered between the two, and comes after both.
    position(&mut desk, vec![balance("USDT", "40", "60")]);
    desk.answer(ReadOutcome::Balances(vec![balance("USDT", "100", "0")]));
    check(&desk, "");
    assert!(desk.reads.is_empty());

    let mut desk = comparing();
    position(&mut desk, vec![balance("USDT", "100", "0")]);
    desk.answer(ReadOutcome::OpenOrders(Vec::new()));
    // The stream is behind the read.
    desk.answer(ReadOutcome::Balances(vec![balance("USDT", "40", "60")]));
    desk.wait_ms(1_000);
    position(&mut desk, vec![balance("USDT", "40", "60")]);
    desk.wait_ms(2_000);
    check(&desk, "");
    assert!(desk.reads.is_empty());
}

/// The slower of two connections brings an older level after a newer one: the newer one is the stream's last word.
#[test]
fn a_level_that_was_overtaken_is_no_last_word() {
    let mut desk = comparing();
    let overtaken = desk.now;
    desk.wait_ms(1);
    position(&mut desk, vec![balance("USDT", "40", "0"), balance("BTC", "1", "0")]);
    let (balances, event_at) = (vec![balance("USDT", "100", "0")], overtaken);
    desk.report_on(1, Report::Position(AccountPosition { balances, event_at, updated_at: event_at }), Tags::NONE);
    desk.answer(ReadOutcome::OpenOrders(Vec::new()));
    desk.answer(ReadOutcome::Balances(vec![balance("USDT", "100", "0"), balance("BTC", "2", "0")]));
    desk.wait_ms(3_100);
    desk.answer(ReadOutcome::Balances(vec![balance("USDT", "40", "0"), balance("BTC", "1", "0")]));
    check(&desk, "");
    assert!(desk.reads.is_empty());
}

/// One frame from the future makes no later level an overtaken one.
#[test]
fn a_level_of_a_time_to_come_overtakes_nothing() {
    let mut desk = comparing();
    let ahead = desk.now + Duration::from_secs(86_400);
    let (balances, event_at) = (vec![balance("USDT", "100", "0")], desk.now);
    desk.report_on(1, Report::Position(AccountPosition { balances, event_at, updated_at: ahead }), Tags::NONE);
    desk.wait_ms(1);
    position(&mut desk, vec![balance("USDT", "40", "0")]);
    desk.answer(ReadOutcome::OpenOrders(Vec::new()));
    desk.answer(ReadOutcome::Balances(vec![balance("USDT", "40", "0")]));
    desk.wait_ms(60_000);
    while let Some((_, request)) = desk.reads.front() {
        let balances = matches!(request, ReadRequest::Balances);
        let book = vec![balance("USDT", "40", "0")];
        desk.answer(if balances { ReadOutcome::Balances(book) } else { ReadOutcome::OpenOrders(Vec::new()) });
        desk.wait_ms(3_000);
    }
    check(&desk, "");
}

/// Only how the lateness changes says something: a clock of ours that is ahead makes no stream late, and one late frame is
/// soon forgotten.
#[test]
fn a_clock_that_is_ahead_is_no_late_stream() {
    for (ahead_ms, then_ms, waits_ms) in [(20_000, 0, 3_000), (20_000, 4_000, 7_000), (0, 4_000, 7_000)] {
        let mut desk = compares(Desk::quiet(often));
        for late in [ahead_ms, ahead_ms + then_ms] {
            let at = desk.now - Duration::from_millis(late);
            let balances = vec![balance("USDT", "100", "0")];
            desk.report_on(1, Report::Position(AccountPosition { balances, event_at: at, updated_at: at }), Tags::NONE);
            desk.wait_ms(1);
        }
        desk.answer(ReadOutcome::OpenOrders(Vec::new()));
        desk.answer(ReadOutcome::Balances(vec![balance("USDT", "90", "0")]));
        desk.wait_ms(waits_ms - 2);
        assert!(desk.reads.is_empty(), "{ahead_ms} {then_ms}");
        desk.wait_ms(2);
        assert_eq!(desk.reads.len(), 1, "{ahead_ms} {then_ms}");
        desk.wait_ms(60_000);
        assert_eq!(desk.kernel.state().coverage.behind(desk.now), Duration::ZERO);
    }
}

/// A stream that is known to be late has that much longer to say what a read showed.
#[test]
fn a_late_stream_is_waited_for() {
    let mut desk = comparing();
    let late = Duration::from_millis(3_500);
    let level = |desk: &mut Desk, free: &str, made_at| {
        let balances = vec![balance("USDT", free, "0")];
        let position = AccountPosition { balances, event_at: made_at, updated_at: made_at };
        desk.report_on(1, Report::Position(position), Tags::NONE);
    };
    let made_at = desk.now - late;
    level(&mut desk, "100", made_at);
    let made_at = desk.now;
    desk.answer(ReadOutcome::OpenOrders(Vec::new()));
    desk.answer(ReadOutcome::Balances(vec![balance("USDT", "90", "0")]));
    desk.wait_ms(3_500);
    assert!(desk.reads.is_empty(), "asked again before its time");
    level(&mut desk, "90", made_at);
    desk.wait_ms(3_000);
    check(&desk, "");
    assert!(desk.reads.is_empty());
}

#[test]
fn a_balance_that_nothing_explains_is_a_difference_once() {
    let mut desk = comparing();
    position(&mut desk, vec![balance("USDT", "100", "0")]);
    for _ in 0..2 {
        while let Some((_, request)) = desk.reads.front().cloned() {
            desk.answer(match request {
                ReadRequest::OpenOrders => ReadOutcome::OpenOrders(Vec::new()),
                ReadRequest::Balances => ReadOutcome::Balances(vec![balance("USDT", "90", "0")]),
                ReadRequest::Order { .. } => unreachable!("no order is in doubt"),
            });
            desk.wait_ms(3_000);
        }
        check(&desk, "rest_difference");
        assert_eq!(desk.incident("rest_difference").lines.len(), 1);
        while desk.reads.is_empty() {
            desk.wait_ms(100);
        }
        if desk.now > crate::desk::START + Duration::from_secs(35) {
            return;
        }
    }
}

/// The reading is older than what the stream has said since: that is no second difference.
#[test]
fn what_the_stream_said_after_the_reading_that_counts_is_kept() {
    let mut desk = comparing();
    position(&mut desk, vec![balance("USDT", "100", "0")]);
    let mut balances = vec!["90", "90", "80"].into_iter();
    for round in 0..2 {
        while let Some((_, request)) = desk.reads.front().cloned() {
            desk.answer(match request {
                ReadRequest::OpenOrders => ReadOutcome::OpenOrders(Vec::new()),
                ReadRequest::Balances => {
                    let free = balances.next().expect("two readings at first, and one later");
                    ReadOutcome::Balances(vec![balance("USDT", free, "0")])
                }
                ReadRequest::Order { .. } => unreachable!("no order is in doubt"),
            });
            if round == 0 && balances.len() == 1 {
                position(&mut desk, vec![balance("USDT", "80", "0")]);
            }
            desk.wait_ms(3_000);
        }
        check(&desk, "rest_difference");
        assert_eq!(desk.incident("rest_difference").lines.len(), 1, "{:#?}", desk.incident("rest_difference"));
        while round == 0 && desk.reads.is_empty() {
            desk.wait_ms(100);
        }
    }
    assert_eq!(balances.next(), None);
}

#[test]
fn a_read_that_is_older_than_the_streams_word_is_no_difference() {
    let mut desk = comparing();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.show(order.placed());
    desk.answer(ReadOutcome::OpenOrders(Vec::new()));
    desk.answer(ReadOutcome::Balances(Vec::new()));
    desk.wait_ms(3_000);
    desk.show(order.filled());
    desk.answer(order.found(OrderStatus::New));
    check(&desk, "order 2: matched B");
    assert_eq!(desk.kernel.state().blotter.open_orders().count(), 0);
}

#[test]
fn an_asset_that_is_gone_from_the_reading_is_a_difference() {
    let mut desk = comparing();
    position(&mut desk, vec![balance("USDT", "100", "0")]);
    while let Some((_, request)) = desk.reads.front().cloned() {
        desk.answer(match request {
            ReadRequest::OpenOrders => ReadOutcome::OpenOrders(Vec::new()),
            ReadRequest::Balances => ReadOutcome::Balances(Vec::new()),
            ReadRequest::Order { .. } => unreachable!("no order is in doubt"),
        });
        desk.wait_ms(3_000);
    }
    check(&desk, "rest_difference");
}

#[test]
fn what_stood_before_is_shown_once_and_confirmed_by_its_digest() {
    let mut desk = Desk::dark(|_| {});
    let old = [desk.order(2, "old"), desk.order(3, "older"), desk.order(4, "closed meanwhile")];
    desk.wait_ms(1_000);
    desk.live(1);
    // A fill of one is seen before the list, and of one that the list no longer shows.
    desk.show(old[1].traded("0.001"));
    desk.show(old[2].filled());
    desk.answer(ReadOutcome::OpenOrders(old[..2].iter().map(|order| order.read(OrderStatus::New)).collect()));
    desk.answer(ReadOutcome::Balances(Vec::new()));
    let each = "order 2: pre_existing\n order 3: pre_existing\n order 4: pre_existing";
    check(&desk, &format!("{each}\n pre_existing"));
    assert_eq!(desk.incident("pre_existing").lines.len(), 3);
    let digest = desk.kernel.status().confirm.expect("a digest waits for confirmation");
    assert!(desk.incident("pre_existing").advice[0].ends_with(&format!("countersign confirm {digest}")));
    assert!(matches!(confirm(&mut desk, "00000000"), Answer::Refused { .. }));
    assert_eq!(confirm(&mut desk, &digest), Answer::Done);
    assert!(matches!(confirm(&mut desk, &digest), Answer::Refused { .. }));
    check(&desk, &format!("{each}\n pre_existing ended"));
    desk.show(old[0].filled());
    desk.wait_ms(20_000);
    assert_eq!(desk.incident("pre_existing").state, IncidentState::Ended);
}

#[test]
fn what_was_placed_after_we_looked_never_stood_before() {
    let mut desk = Desk::dark(|_| {});
    desk.live(1);
    desk.wait_ms(10);
    let thiefs = desk.order(2, "thief");
    desk.show(thiefs.placed());
    desk.lost(1);
    desk.wait_ms(10);
    // The first list comes only after a second connection: what was placed in between is not old.
    desk.live(2);
    while let Some((_, request)) = desk.reads.front().cloned() {
        desk.answer(match request {
            ReadRequest::OpenOrders => ReadOutcome::OpenOrders(vec![thiefs.read(OrderStatus::New)]),
            ReadRequest::Balances | ReadRequest::Order { .. } => ReadOutcome::Balances(Vec::new()),
        });
    }
    desk.wait_ms(10_000);
    assert!(desk.sum_up().starts_with("order 2: foreign\n"), "{}", desk.sum_up());
}

#[test]
fn an_old_order_that_its_bot_announced_is_the_bots() {
    let mut desk = Desk::dark(|_| {});
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.wait_ms(1_000);
    desk.live(1);
    desk.answer(ReadOutcome::OpenOrders(vec![order.read(OrderStatus::New)]));
    desk.answer(ReadOutcome::Balances(Vec::new()));
    check(&desk, "order 2: matched B");
}

/// A read shows an order that came and went while the stream brought nothing: it may bring both yet, and is waited for once
/// more. One that has gone past that moment in silence has left them out.
#[test]
fn an_order_that_the_stream_has_not_reached_is_waited_for() {
    for (goes_on, told) in [(false, "order 2: matched B"), (true, "order 2: matched B\n rest_difference")] {
        let mut desk = comparing();
        position(&mut desk, vec![balance("USDT", "100", "0")]);
        desk.wait_ms(1);
        let order = desk.order(2, "a");
        desk.say(order.place());
        desk.answer(ReadOutcome::OpenOrders(vec![order.read(OrderStatus::New)]));
        desk.answer(ReadOutcome::Balances(vec![balance("USDT", "100", "0")]));
        desk.wait_ms(2_000);
        if goes_on {
            position(&mut desk, vec![balance("USDT", "100", "0")]);
        }
        desk.wait_ms(1_000);
        desk.answer(order.found(OrderStatus::Filled));
        if !goes_on {
            check(&desk, "");
            desk.wait_ms(500);
            desk.show(order.placed());
            desk.show(order.filled());
            desk.wait_ms(2_500);
            desk.answer(order.found(OrderStatus::Filled));
        }
        desk.pass();
        check(&desk, told);
    }
}

/// The same of one that is open: it is judged at once, and what the stream never brings is told in the end.
#[test]
fn an_open_order_that_the_stream_has_not_reached_is_judged_at_once() {
    for (bots, told) in [(true, ""), (false, "\n foreign_order orders=1 USDT=600")] {
        for brought in [true, false] {
            let mut desk = comparing();
            position(&mut desk, vec![balance("USDT", "100", "0")]);
            desk.wait_ms(1);
            let order = desk.order(2, "a");
            if bots {
                desk.say(order.place());
            }
            desk.answer(ReadOutcome::OpenOrders(vec![order.read(OrderStatus::New)]));
            desk.answer(ReadOutcome::Balances(vec![balance("USDT", "100", "0")]));
            desk.wait_ms(3_000);
            desk.answer(order.found(OrderStatus::New));
            desk.pass();
            let verdict = if bots { "order 2: matched B" } else { "order 2: foreign" };
            check(&desk, &format!("{verdict}{told}"));
            if brought {
                desk.show(order.placed());
            }
            desk.wait_ms(3_000);
            let difference = if brought { "" } else { "\n rest_difference" };
            check(&desk, &format!("{verdict}{told}{difference}"));
        }
    }
}
