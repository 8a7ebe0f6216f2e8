//! Who placed an order: said before, said late, never said, said otherwise.

use countersign::kernel::event::{Issuer, ReadOutcome, ReadRequest, TagCheck};
use countersign::kernel::intent::SendOutcome;
use countersign::kernel::order::{OrderId, OrderStatus, OrderType, Side, StpMode, Symbol, TimeInForce};
use countersign::kernel::report::{ExecutionReport, Peg};

use crate::desk::{Desk, check, dec, failed, id};

/// The bot's order came and went in a gap; a thief uses its id again, with its very terms.
#[test]
fn an_order_of_another_number_than_the_bot_was_told_is_not_the_bots() {
    let number = SendOutcome::Accepted { order_id: Some(OrderId(2)) };
    for told_first in [true, false] {
        let mut desk = Desk::open();
        let (own, thiefs) = (desk.order(2, "a"), desk.order(3, "a"));
        desk.say(own.place());
        let of = desk.last_seq();
        if told_first {
            desk.result(of, number.clone());
        }
        desk.show(thiefs.placed());
        if !told_first {
            desk.result(of, number.clone());
        }
        check(&desk, "order 3: replayed\n replayed_id orders=1 USDT=600");
    }
}

#[test]
fn an_announced_order_matches_and_says_how_strongly() {
    let mut desk = Desk::open();
    let tagged = desk.order(2, "tagged").tagged(Issuer::Daemon);
    desk.say(tagged.place());
    desk.show(tagged.placed());
    let registered = desk.order(3, "plain");
    desk.say(registered.place());
    desk.show(registered.placed());
    let late = desk.order(4, "late");
    let record = desk.write(late.place());
    desk.wait_ms(20);
    desk.show(late.placed());
    check(&desk, "order 2: matched A\n order 3: matched B\n order 4: pending");
    desk.wait_ms(1);
    desk.deliver(record);
    check(&desk, "order 2: matched A\n order 3: matched B\n order 4: matched B-late");
    desk.wait_ms(60_000);
    assert_eq!(desk.told.iter().filter(|notice| &*notice.rule != "bot_silent").count(), 0);
}

#[test]
fn nobody_said_it_the_bots_word_passes_it_by() {
    let mut desk = Desk::open();
    desk.show(desk.order(2, "thief").placed());
    check(&desk, "order 2: pending");
    assert!(desk.kernel.heartbeat_wanted());
    desk.pass();
    assert!(!desk.kernel.heartbeat_wanted());
    check(&desk, "order 2: foreign\n foreign_order orders=1 USDT=600");
}

#[test]
fn one_nonce_from_before_the_order_proves_nothing() {
    let mut desk = Desk::open();
    desk.pass();
    desk.wait_ms(1);
    desk.show(desk.order(2, "thief").placed());
    let stale = desk.write(countersign::kernel::intent::IntentBody::Heartbeat { egress: None });
    desk.deliver(stale);
    check(&desk, "order 2: pending");
}

#[test]
fn nobody_said_it_and_the_bot_says_nothing_the_cap_ends_the_wait() {
    let mut desk = Desk::open();
    desk.show(desk.order(2, "thief").placed());
    desk.wait_ms(9_999);
    check(&desk, "order 2: pending");
    desk.wait_ms(1);
    check(&desk, "order 2: foreign\n foreign_order orders=1 USDT=600");
}

#[test]
fn every_bot_that_speaks_must_have_passed_it() {
    let mut desk = Desk::open();
    desk.say_as("grid", desk.order(9, "of grid").place());
    desk.show(desk.order(2, "thief").placed());
    desk.pass();
    check(&desk, "order 2: pending");
    desk.pass_as("grid");
    check(&desk, "order 2: foreign\n foreign_order orders=1 USDT=600");
}

#[test]
fn outside_the_limits_there_is_no_waiting() {
    let mut desk = Desk::open();
    desk.show(desk.order(2, "big").with(|order| order.quantity = dec("1.5")).placed());
    desk.show(desk.order(3, "thin").with(|order| order.symbol = Symbol::new("VIABTC")).placed());
    check(&desk, "order 2: foreign\n order 3: foreign\n foreign_order orders=2 BTC=600 USDT=90000");
}

#[test]
fn an_account_declared_tagged_only_waits_for_nothing() {
    let mut desk = Desk::open_with(|declared| declared.tagged_only = true);
    desk.show(desk.order(2, "untagged").placed());
    check(&desk, "order 2: foreign\n foreign_order orders=1 USDT=600");
}

#[test]
fn a_tag_is_forged_unissued_or_unlogged() {
    let mut desk = Desk::open();
    desk.show(desk.order(2, "forged").with(|order| order.tag = TagCheck::Forged).placed());
    desk.show(desk.order(3, "unissued").tagged(Issuer::Daemon).placed());
    desk.show(desk.order(4, "unlogged").tagged(Issuer::Bot).placed());
    let both = "order 2: forged\n order 3: unissued";
    check(&desk, &format!("{both}\n order 4: pending\n forged_id orders=2 USDT=1200"));
    desk.wait_ms(10_000);
    check(&desk, &format!("{both}\n order 4: unlogged\n forged_id orders=3 USDT=1800"));
}

#[test]
fn the_tag_of_a_bot_waits_for_its_intent() {
    let mut desk = Desk::open();
    let order = desk.order(2, "local").tagged(Issuer::Bot);
    let record = desk.write(order.place());
    desk.show(order.placed());
    desk.wait_ms(5_000);
    desk.deliver(record);
    check(&desk, "order 2: matched A");
}

/// Each change makes the order that was shown differ from the one that was said.
#[test]
fn every_bound_field_is_compared() {
    type Change = fn(&mut ExecutionReport);
    let peg = |report: &mut ExecutionReport| {
        report.peg = Some(Peg { price_type: "PRIMARY_PEG".into(), offset_type: None, offset_value: None });
    };
    let changes: [(&str, Change); 12] = [
        ("symbol", |report| report.symbol = Symbol::new("ETHUSDT")),
        ("side", |report| report.side = Side::Sell),
        ("type", |report| report.order_type = OrderType::LimitMaker),
        ("time in force", |report| report.time_in_force = TimeInForce::Ioc),
        ("quantity", |report| report.quantity = dec("0.02")),
        ("quote quantity", |report| report.quote_quantity = dec("5")),
        ("price", |report| report.price = dec("59999.99")),
        ("stop price", |report| report.stop_price = dec("1")),
        ("iceberg quantity", |report| report.iceberg_quantity = dec("0.001")),
        ("trailing delta", |report| report.trailing_delta = Some(100)),
        ("strategy id", |report| report.strategy_id = Some(7)),
        ("peg", peg),
    ];
    for (field, change) in changes {
        let mut desk = Desk::open();
        let order = desk.order(2, "a");
        desk.say(order.place());
        let (mut report, tags) = order.placed();
        change(&mut report);
        desk.show((report, tags));
        let found = desk.sum_up();
        assert!(found.starts_with("order 2: divergent\ndivergent_order orders=1"), "{field}: {found}");
        let line = desk.incident("divergent_order").lines[0].text.clone();
        assert!(line.contains(&format!("; {field}: your bot said")), "{field}: {line}");
    }
}

#[test]
fn a_default_that_the_bot_did_not_set_is_not_bound() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a").with(|order| order.order_type = OrderType::Market).with(|order| {
        (order.price, order.quantity, order.quote_quantity) = (dec("0"), dec("0"), dec("500"));
    });
    desk.say(order.place());
    let (mut report, tags) = order.placed();
    (report.stp_mode, report.quantity) = (Some(StpMode::ExpireMaker), dec("0.0083"));
    desk.show((report, tags));
    check(&desk, "order 2: matched B");
}

#[test]
fn decimals_compare_by_value() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.show(order.with(|order| (order.quantity, order.price) = (dec("0.01000000"), dec("60000.00000000"))).placed());
    check(&desk, "order 2: matched B");
}

#[test]
fn more_filled_than_said_differs() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.show(order.placed());
    desk.show(order.traded("0.02"));
    check(&desk, "order 2: divergent\n divergent_order orders=1 USDT=1200");
}

#[test]
fn a_trade_seen_before_its_order_is_read_before_anything_is_said() {
    let order = |desk: &Desk| desk.order(2, "a");
    let trade = |desk: &mut Desk| {
        let order = order(desk);
        desk.say(order.place());
        let (mut report, tags) = order.traded("0.001");
        report.price = dec("61000");
        desk.show((report, tags));
        check(desk, "order 2: pending");
        assert!(matches!(desk.reads.front(), Some((_, ReadRequest::Order { .. }))), "{:?}", desk.reads);
        order
    };
    let mut desk = Desk::open();
    let said = trade(&mut desk);
    desk.answer(said.found(OrderStatus::PartiallyFilled));
    check(&desk, "order 2: matched B");

    let mut desk = Desk::open();
    let said = trade(&mut desk);
    desk.answer(said.clone().with(|order| order.price = dec("61000")).found(OrderStatus::PartiallyFilled));
    check(&desk, "order 2: divergent\n divergent_order orders=1 USDT=609");
    desk.show(said.placed());
    check(&desk, "order 2: matched B\n divergent_order ended");

    for unread in [failed(), ReadOutcome::NotFound] {
        let mut desk = Desk::open();
        trade(&mut desk);
        desk.answer(unread);
        assert!(desk.sum_up().starts_with("order 2: divergent\n"), "{}", desk.sum_up());
    }

    let mut desk = Desk::open();
    trade(&mut desk);
    desk.wait_ms(10_000);
    assert!(desk.sum_up().starts_with("order 2: divergent\n"), "a read that never ends must not hold the alert");
}

#[test]
fn a_forged_tag_on_a_trade_is_read_first() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a").with(|order| order.tag = TagCheck::Forged);
    desk.show(order.traded("0.001"));
    check(&desk, "order 2: pending");
    desk.answer(order.found(OrderStatus::PartiallyFilled));
    check(&desk, "order 2: forged\n forged_id orders=1 USDT=600");
}

#[test]
fn a_stop_order_is_announced_twice_under_one_id() {
    let mut desk = Desk::open();
    let order = desk.order(2, "stop");
    desk.say(order.place());
    desk.show(order.placed());
    let (mut again, tags) = order.placed();
    (again.execution_id, again.transacted_at) = (Some(77), again.transacted_at + std::time::Duration::from_secs(9));
    desk.show((again, tags));
    check(&desk, "order 2: matched B");
}

#[test]
fn closed_orders_leave_tombstones() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.show(order.filled());
    desk.show(order.placed());
    check(&desk, "order 2: matched B");
    let blotter = &desk.kernel.state().blotter;
    assert_eq!(blotter.open_orders().count(), 0, "a late NEW does not bring an order back");
}

#[test]
fn what_was_said_after_the_report_clears_nothing() {
    let mut desk = Desk::open();
    let order = desk.order(2, "adopted");
    desk.show(order.placed());
    desk.pass();
    desk.say(order.place());
    check(&desk, "order 2: foreign\n foreign_order orders=1 USDT=600");
    desk.show(order.filled());
    check(&desk, "order 2: foreign\n foreign_order orders=1 USDT=600");
}

#[test]
fn what_was_said_before_and_came_late_clears_and_ends_the_incident() {
    let mut desk = Desk::open();
    let order = desk.order(2, "late");
    let record = desk.write(order.place());
    desk.wait_ms(1);
    desk.show(order.placed());
    desk.wait_ms(10_000);
    check(&desk, "order 2: foreign\n foreign_order orders=1 USDT=600");
    desk.deliver(record);
    check(&desk, "order 2: matched B-late\n foreign_order ended");
}

#[test]
fn the_first_contact_may_be_late_until_the_wait_ends() {
    for (ms, verdict) in [(9_000, "order 2: matched B-late"), (11_000, "order 2: foreign")] {
        let mut desk = Desk::open();
        let order = desk.order(2, "of grid");
        let record = desk.write_as("grid", order.place());
        assert_eq!(record.nonce, None);
        desk.show(order.placed());
        desk.wait_ms(ms);
        desk.deliver(record);
        assert!(desk.sum_up().starts_with(verdict), "{}", desk.sum_up());
    }
}

#[test]
fn an_order_found_long_after_it_was_made_is_not_new() {
    let mut desk = Desk::open();
    let order = desk.order(2, "made in the dark");
    desk.wait_ms(60_000);
    desk.pass();
    desk.say(order.place());
    desk.wait_ms(1);
    desk.show(order.placed());
    desk.pass();
    assert!(desk.sum_up().starts_with("order 2: foreign"), "said a minute after it was made: {}", desk.sum_up());
}

#[test]
fn a_verdict_by_the_bots_word_is_not_taken_back_by_a_new_bot() {
    let mut desk = Desk::open();
    let order = desk.order(2, "thief");
    desk.show(order.placed());
    desk.pass();
    desk.say_as("grid", desk.order(9, "of grid").place());
    desk.show(order.traded("0.001"));
    check(&desk, "order 2: foreign\n foreign_order orders=1 USDT=600");
    assert_eq!(desk.incident("foreign_order").lines.len(), 1, "told once");
}

#[test]
fn the_id_alone_is_what_binds() {
    let mut desk = Desk::open();
    desk.say(desk.order(2, "a").place());
    desk.show(desk.order(3, "b").placed());
    desk.pass();
    check(&desk, "order 3: foreign\n foreign_order orders=1 USDT=600");
    assert_eq!(
        desk.kernel.state().blotter.orders.values().filter(|order| order.placed.client_order_id == id("a")).count(),
        0
    );
}

/// Placed and amended unseen, it goes by an id that the exchange made. Only the bot makes a countersign for its cancel.
#[test]
fn on_a_tagged_only_account_an_order_that_the_bot_cancels_waits_for_its_word() {
    for by_tag in [true, false] {
        let mut desk = Desk::open_with(|declared| declared.tagged_only = true);
        let order = desk.order(2, "made-by-the-exchange");
        let (report, mut tags) = order.canceled("c1");
        if by_tag {
            tags.request = TagCheck::Valid { issuer: Issuer::Bot, at: desk.now };
        }
        desk.show((report, tags));
        assert_eq!(desk.sum_up().contains("foreign_order"), !by_tag, "{}", desk.sum_up());
        desk.wait_ms(10_000);
        assert!(desk.sum_up().contains("order 2: foreign"), "the word never came: {}", desk.sum_up());
    }
}
