//! Who cancelled or amended an order, and which ends the exchange made.

use std::time::Duration;

use countersign::kernel::event::{Issuer, OrderRef, ReadOutcome, ReadRequest, TagCheck};
use countersign::kernel::intent::{
    AmendTerms, CancelTerms, IntentBody, IntentRecord, Refusal, ResultOf, SendOutcome, Target,
};
use countersign::kernel::order::{ExecutionType, ExpiryReason, OrderId, OrderStatus, OrderType, Symbol, TimeInForce};
use countersign::kernel::report::ExecutionReport;

use crate::desk::{Desk, Shown, check, dec, failed, id};

/// A desk with one matched, open order of the bot (order 2).
fn with_order(change: impl FnOnce(&mut Shown)) -> (Desk, Shown) {
    let mut desk = Desk::open();
    let order = desk.order(2, "a").with(change);
    desk.say(order.place());
    desk.show(order.placed());
    desk.wait_ms(100);
    (desk, order)
}

fn cancel(target: Target, own_id: Option<&str>) -> IntentBody {
    IntentBody::Cancel(CancelTerms { symbol: Symbol::new("BTCUSDT"), target, client_order_id: own_id.map(id) })
}

fn amend(order: &Shown, quantity: &str, own_id: Option<&str>) -> IntentBody {
    IntentBody::Amend(AmendTerms {
        symbol: order.symbol.clone(),
        target: Target::Client(order.client_id.clone()),
        client_order_id: own_id.map(id),
        quantity: dec(quantity),
    })
}

const FOREIGN: &str = "order 2: matched B\n cancel 2: foreign\n foreign_cancel_or_amendment";

#[test]
fn an_announced_cancel_matches_by_its_id_by_its_target_or_as_a_cancel_all() {
    let says = [
        cancel(Target::Order(OrderId(2)), Some("c1")),
        cancel(Target::Client(id("a")), None),
        cancel(Target::All, None),
    ];
    for said in says {
        let (mut desk, order) = with_order(|_| {});
        desk.say(said);
        desk.wait_ms(50);
        desk.show(order.canceled("c1"));
        check(&desk, "order 2: matched B\n cancel 2: matched");
        desk.wait_ms(60_000);
        assert!(desk.kernel.notices().iter().all(|notice| &*notice.rule == "bot_silent"));
    }
}

#[test]
fn a_cancel_nobody_announced_is_told() {
    let (mut desk, order) = with_order(|_| {});
    desk.show(order.canceled("web_1"));
    check(&desk, "order 2: matched B\n cancel 2: pending");
    desk.pass();
    check(&desk, FOREIGN);
}

#[test]
fn a_cancel_that_names_another_order_differs() {
    let (mut desk, order) = with_order(|_| {});
    desk.say(cancel(Target::Client(id("first")), Some("c1")));
    desk.show(order.canceled("c1"));
    check(&desk, "order 2: matched B\n cancel 2: divergent\n foreign_cancel_or_amendment");
}

#[test]
fn a_cancel_by_target_is_believed_for_seconds_only() {
    let (mut desk, order) = with_order(|_| {});
    desk.say(cancel(Target::Client(id("a")), None));
    desk.wait_ms(11_000);
    desk.show(order.canceled("x"));
    desk.pass();
    assert!(desk.sum_up().contains("cancel 2: foreign\n"), "{}", desk.sum_up());
}

#[test]
fn a_cancel_all_ends_what_stood_and_what_was_on_its_way() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    let (placed, all) = (desk.write(order.place()), desk.write(cancel(Target::All, None)));
    desk.deliver(placed);
    desk.deliver(all);
    desk.wait_ms(20);
    desk.show(order.placed());
    desk.show(order.canceled("made-up"));
    check(&desk, "order 2: matched B\n cancel 2: matched");
    desk.wait_ms(3_000);
    let later = desk.order(3, "b");
    desk.say(later.place());
    desk.show(later.placed());
    desk.show(later.canceled("made-up-2"));
    desk.pass();
    assert!(desk.sum_up().contains("cancel 3: foreign\n"), "made after the cancel-all: {}", desk.sum_up());
}

#[test]
fn cancelling_a_leg_cancels_its_list() {
    let (mut desk, leg) = with_order(|order| order.list_id = Some(70));
    let sibling = leg.clone().with(|order| {
        (order.order_id, order.client_id) = (OrderId(3), id("b"));
    });
    desk.say(sibling.place());
    // The sibling's cancel and NEW may come before anything else is known of it.
    desk.say(leg.cancel(Some("c1")));
    desk.show(sibling.canceled("c1"));
    desk.show(sibling.placed());
    desk.show(leg.canceled("c1"));
    check(&desk, "order 2: matched B\n order 3: matched B\n cancel 2: matched\n cancel 3: matched");
}

#[test]
fn a_late_cancel_clears_if_it_was_said_before_and_not_if_after() {
    let (mut desk, order) = with_order(|_| {});
    let record = desk.write(order.cancel(Some("c1")));
    desk.wait_ms(1);
    desk.show(order.canceled("c1"));
    desk.wait_ms(10_000);
    check(&desk, FOREIGN);
    desk.deliver(record);
    check(&desk, "order 2: matched B\n cancel 2: matched\n foreign_cancel_or_amendment ended");

    let (mut desk, order) = with_order(|_| {});
    desk.show(order.canceled("c1"));
    desk.pass();
    desk.say(order.cancel(Some("c1")));
    desk.say(cancel(Target::Client(id("a")), Some("c2")));
    check(&desk, FOREIGN);
}

#[test]
fn a_cleared_order_does_not_end_an_incident_that_holds_a_foreign_cancel() {
    let (mut desk, order) = with_order(|_| {});
    let late = desk.order(3, "late");
    let record = desk.write(late.place());
    desk.wait_ms(1);
    desk.show(late.placed());
    desk.show(order.canceled("x"));
    desk.wait_ms(10_000);
    desk.deliver(record);
    check(&desk, "order 2: matched B\n order 3: matched B-late\n cancel 2: foreign\n foreign_order");
}

#[test]
fn a_countersigned_cancel_is_forged_unissued_or_unlogged() {
    let valid = |issuer, at| TagCheck::Valid { issuer, at };
    for (tag, wait_ms, verdict) in [
        (TagCheck::Forged, 0, "forged"),
        (valid(Issuer::Daemon, crate::desk::START), 0, "unissued"),
        (valid(Issuer::Bot, crate::desk::START), 10_000, "unlogged"),
    ] {
        let (mut desk, order) = with_order(|_| {});
        let (report, mut tags) = order.canceled("c1");
        tags.request = tag;
        desk.show((report, tags));
        desk.wait_ms(wait_ms);
        check(&desk, &format!("order 2: matched B\n cancel 2: {verdict}\n foreign_cancel_or_amendment"));
    }
}

#[test]
fn a_strangers_own_cancel_is_a_line_of_his_incident() {
    let mut desk = Desk::open();
    let order = desk.order(2, "thief");
    desk.show(order.placed());
    desk.show(order.canceled("thief-c"));
    desk.pass();
    check(&desk, "order 2: foreign\n cancel 2: foreign\n foreign_order orders=1");
    assert_eq!(desk.incident("foreign_order").lines.len(), 2);
}

#[test]
fn what_the_exchange_cancels_says_so_in_a_field_no_user_sets() {
    let (mut desk, order) = with_order(|_| {});
    let (mut report, tags) = order.canceled("autoclose-1");
    report.expiry_reason = Some(ExpiryReason::ExchangeCanceled);
    desk.show((report, tags));
    desk.pass();
    check(&desk, "order 2: matched B");

    let (mut desk, order) = with_order(|_| {});
    desk.show(order.canceled("autoclose-1"));
    desk.pass();
    check(&desk, FOREIGN);
}

#[test]
fn an_announced_amendment_is_followed_and_its_order_stays_matched() {
    for own_id in [None, Some("a2"), Some("a")] {
        let (mut desk, order) = with_order(|_| {});
        desk.say(amend(&order, "0.005", own_id));
        desk.show(order.replaced("0.005", "a2"));
        let (mut fill, tags) = order.traded("0.005");
        (fill.client_order_id, fill.quantity) = (id("a2"), dec("0.005"));
        desk.show((fill, tags));
        check(&desk, "order 2: matched B\n amendment 2: matched");
        // The order goes by its new id now.
        desk.say(cancel(Target::Client(id("a2")), None));
        desk.show(order.canceled("c"));
        check(&desk, "order 2: matched B\n cancel 2: matched\n amendment 2: matched");
    }
}

/// It was placed and amended in a gap, and a read shows it before the bot can tell of the amendment.
#[test]
fn an_order_that_is_read_smaller_waits_for_the_bots_word_on_its_amendment() {
    let gap = |desk: &mut Desk| {
        let order = desk.order(2, "a");
        desk.say(order.place());
        desk.result(desk.last_seq(), SendOutcome::Accepted { order_id: Some(OrderId(2)) });
        desk.lost(1);
        desk.live(2);
        let smaller = order.with(|order| (order.client_id, order.quantity) = (id("made up"), dec("0.004")));
        desk.answer(ReadOutcome::OpenOrders(vec![smaller.read(OrderStatus::New)]));
        desk.answer(ReadOutcome::Balances(Vec::new()));
        desk.wait_ms(3_000);
        desk.answer(smaller.found(OrderStatus::New));
    };
    let mut desk = Desk::open();
    gap(&mut desk);
    check(&desk, "order 2: pending\n blind ended");
    let placed = desk.order(2, "a");
    desk.say(amend(&placed, "0.004", None));
    check(&desk, "order 2: matched B\n blind ended");

    let mut desk = Desk::open();
    gap(&mut desk);
    desk.wait_ms(10_000);
    check(&desk, "order 2: divergent\n blind ended\n divergent_order orders=1 USDT=240");
}

fn amend_number(number: i64, quantity: &str) -> IntentBody {
    IntentBody::Amend(AmendTerms {
        symbol: Symbol::new("BTCUSDT"),
        target: Target::Order(OrderId(number)),
        client_order_id: None,
        quantity: dec(quantity),
    })
}

/// The bot's own order was placed and amended while nothing was seen: it bears an id that the exchange made up, and only its
/// number tells the bot's word on it.
#[test]
fn what_was_amended_unseen_is_followed_by_its_number() {
    let gap = || {
        let mut desk = Desk::open();
        let order = desk.order(2, "a");
        desk.say(order.place());
        desk.result(desk.last_seq(), SendOutcome::Accepted { order_id: Some(OrderId(2)) });
        desk.lost(1);
        desk.say(amend_number(2, "0.005"));
        desk.live(2);
        let shown = order.with(|order| (order.client_id, order.quantity) = (id("made up"), dec("0.005")));
        desk.answer(ReadOutcome::OpenOrders(vec![shown.read(OrderStatus::New)]));
        desk.answer(ReadOutcome::Balances(Vec::new()));
        (desk, shown)
    };
    // The next amendment is shown before the order was read singly.
    let (mut desk, shown) = gap();
    desk.say(amend_number(2, "0.004"));
    desk.show_on(2, shown.with(|order| order.quantity = dec("0.004")).replaced("0.004", "made up too"));
    desk.answer_reads();
    desk.pass();
    check(&desk, "order 2: matched B\n amendment 2: matched\n blind ended");

    // A thief's is told, as he has no bot to say so.
    let (mut desk, shown) = gap();
    desk.show_on(2, shown.with(|order| order.quantity = dec("0.004")).replaced("0.004", "thief"));
    desk.pass();
    assert!(desk.sum_up().contains("amendment 2: foreign"), "{}", desk.sum_up());
}

/// Its tag is over the quantity that was placed, so it does not verify by now.
#[test]
fn a_tagged_order_that_was_amended_unseen_waits_for_the_bots_word() {
    let tagged = |amended: bool| {
        let mut desk = Desk::open();
        let order = desk.order(2, "tagged").with(|order| order.tag = TagCheck::Forged);
        let words = if amended { vec![order.place(), amend_number(2, "0.005")] } else { Vec::new() };
        let written: Vec<_> = words.into_iter().map(|body| desk.write(body)).collect();
        desk.lost(1);
        desk.live(2);
        desk.wait_ms(1);
        let smaller = order.with(|order| order.quantity = dec("0.005"));
        desk.show_on(2, smaller.replaced("0.005", "made up"));
        let made_up = smaller.with(|order| (order.client_id, order.tag) = (id("made up"), TagCheck::Absent));
        while let Some((_, request)) = desk.reads.front() {
            let single = matches!(request, ReadRequest::Order { .. });
            desk.answer(if single { made_up.found(OrderStatus::New) } else { failed() });
        }
        check(&desk, "order 2: pending\n amendment 2: pending\n blind ended");
        written.into_iter().for_each(|record| drop(desk.deliver(record)));
        desk.pass();
        desk
    };
    check(&tagged(true), "order 2: matched B\n amendment 2: matched\n blind ended");
    let told = tagged(false).sum_up();
    assert!(told.contains("order 2: forged"), "{told}");
}

/// Its end comes first, then the bot's word on all of it.
#[test]
fn what_was_amended_unseen_and_has_ended_is_known_by_its_number() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.lost(1);
    let outcome = SendOutcome::Accepted { order_id: Some(OrderId(2)) };
    let bodies = [
        IntentBody::Result(ResultOf { of: desk.last_seq(), outcome }),
        amend_number(2, "0.005"),
        cancel(Target::Order(OrderId(2)), Some("c")),
    ];
    let written = bodies.map(|body| desk.write(body));
    desk.live(2);
    desk.wait_ms(1);
    desk.show_on(
        2,
        order.with(|order| (order.client_id, order.quantity) = (id("made up"), dec("0.005"))).canceled("c"),
    );
    written.into_iter().for_each(|record| drop(desk.deliver(record)));
    desk.answer_reads();
    desk.pass();
    check(&desk, "order 2: matched B\n cancel 2: matched\n blind ended");
}

/// It was said in time, to a countersign that was not there: it comes when that is back, and knows no later word of ours.
#[test]
fn a_word_that_had_to_wait_until_we_were_back_counts() {
    for knows_more in [false, true] {
        let (mut desk, order) = with_order(|_| {});
        desk.wait_ms(1);
        desk.show(order.replaced("0.005", "made up"));
        let written = desk.write(amend_number(2, "0.005"));
        desk.restart();
        desk.wait_ms(11_000);
        desk.live(2);
        if knows_more {
            desk.say(IntentBody::Heartbeat { egress: None });
            let again = desk.write(amend_number(2, "0.005"));
            desk.deliver(again);
        } else {
            desk.deliver(written);
        }
        desk.pass();
        let told = desk.sum_up().contains("amendment 2: foreign");
        assert_eq!(told, knows_more, "{}", desk.sum_up());
    }
}

/// The bot could not reach us, and long after the theft it cancels the same order, or all of the symbol: that explains
/// nothing of what was done before it was said.
#[test]
fn a_word_that_was_said_long_after_explains_nothing() {
    for target in [Target::Order(OrderId(2)), Target::All] {
        let (mut desk, order) = with_order(|_| {});
        desk.wait_ms(1);
        desk.show(order.canceled("thief"));
        desk.wait_ms(6 * 3_600_000);
        assert!(desk.sum_up().contains("cancel 2: foreign"), "{}", desk.sum_up());
        let late = desk.write(cancel(target, None));
        desk.deliver(late);
        desk.pass();
        assert!(desk.sum_up().contains("cancel 2: foreign"), "{}", desk.sum_up());
    }
}

#[test]
fn an_amendment_nobody_announced_or_announced_otherwise_is_told() {
    let (mut desk, order) = with_order(|_| {});
    desk.show(order.replaced("0.005", "x"));
    desk.pass();
    check(&desk, "order 2: matched B\n amendment 2: foreign\n foreign_cancel_or_amendment");

    let (mut desk, order) = with_order(|_| {});
    desk.say(amend(&order, "0.005", Some("a2")));
    desk.show(order.replaced("0.004", "a2"));
    check(&desk, "order 2: matched B\n amendment 2: divergent\n foreign_cancel_or_amendment");
}

#[test]
fn an_amendment_makes_an_order_smaller_and_takes_no_other_id() {
    let (mut desk, order) = with_order(|_| {});
    for larger in ["0.01", "0.5", "-1"] {
        let reply = desk.say(amend(&order, larger, None));
        assert!(matches!(reply.answer, Err(Refusal::OutsideLimits { .. })), "{reply:?}");
    }
    let other = desk.order(3, "b");
    desk.say(other.place());
    assert_eq!(desk.say(amend(&order, "0.005", Some("b"))).answer, Err(Refusal::IdInUse));
    desk.show(other.placed());
    check(&desk, "order 2: matched B\n order 3: matched B");
}

#[test]
fn an_order_first_seen_by_its_amendment_matches_what_was_announced() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.say(amend(&order, "0.005", Some("a2")));
    desk.show(order.replaced("0.005", "a2"));
    check(&desk, "order 2: matched B\n amendment 2: matched");
}

#[test]
fn ends_that_the_terms_or_the_exchange_explain_are_quiet() {
    type Change = fn(&mut ExecutionReport);
    let explained: [(&str, Change); 5] = [
        ("market", |report| (report.order_type, report.price) = (OrderType::Market, dec("0"))),
        ("ioc", |report| report.time_in_force = TimeInForce::Ioc),
        ("fok", |report| report.time_in_force = TimeInForce::Fok),
        ("list", |report| report.list_id = Some(7)),
        ("reason", |report| report.expiry_reason = Some(ExpiryReason::OcoTrigger)),
    ];
    for (name, change) in explained {
        let (mut desk, order) = with_order(|_| {});
        desk.show(order.expired(change));
        assert_eq!(desk.sum_up(), "order 2: matched B\n", "{name}");
    }
    let (mut desk, order) = with_order(|_| {});
    desk.show(order.expired(|_| {}));
    check(&desk, "order 2: matched B\n expiry 2: unproven\n floor");
}

#[test]
fn a_prevented_self_trade_is_explained_by_a_counter_order_of_ours() {
    let prevented = |desk: &mut Desk, order: &Shown| {
        desk.show(order.expired(|report| {
            report.execution_type = ExecutionType::TradePrevention;
            report.status = OrderStatus::ExpiredInMatch;
            report.counter_order = Some((Symbol::new("BTCUSDT"), OrderId(3)));
        }));
    };
    let (mut desk, order) = with_order(|_| {});
    prevented(&mut desk, &order);
    let counter = desk.order(3, "b");
    desk.say(counter.place());
    desk.show(counter.placed());
    desk.wait_ms(10_000);
    assert!(desk.sum_up().contains("expiry 2: exchange_generated\n"), "{}", desk.sum_up());

    let (mut desk, order) = with_order(|_| {});
    desk.show(desk.order(3, "thief").placed());
    prevented(&mut desk, &order);
    desk.wait_ms(10_000);
    assert!(desk.sum_up().contains("order 3: foreign\nexpiry 2: unproven\n"), "{}", desk.sum_up());
}

/// Placed and amended while nothing could be seen: a read shows it under the amendment's id, or one of the venue's.
#[test]
fn an_order_that_was_amended_unseen_is_still_the_bots() {
    for (said, shown_as) in [(Some("a2"), "a2"), (None, "made-by-the-venue")] {
        amended_unseen(said, shown_as);
    }
    // As it was placed it bears its own id: a new order under an amendment's is nobody's.
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.say(amend(&order, "0.005", Some("a2")));
    desk.show(order.with(|order| order.client_id = id("a2")).placed());
    desk.wait_ms(10_000);
    assert!(desk.sum_up().contains("order 2: foreign"), "{}", desk.sum_up());
}

fn amended_unseen(said: Option<&str>, shown_as: &str) {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.result(desk.last_seq(), SendOutcome::Accepted { order_id: Some(OrderId(2)) });
    desk.say(amend(&order, "0.005", said));
    let shown = order.with(|order| {
        order.client_id = id(shown_as);
        order.quantity = dec("0.005");
    });
    desk.live(2);
    for _ in 0..40 {
        desk.wait_ms(500);
        while let Some((_, request)) = desk.reads.front() {
            let outcome = match request {
                ReadRequest::OpenOrders => ReadOutcome::OpenOrders(vec![shown.read(OrderStatus::New)]),
                ReadRequest::Balances => ReadOutcome::Balances(Vec::new()),
                ReadRequest::Order { order: OrderRef::Id(_), .. } => shown.found(OrderStatus::New),
                ReadRequest::Order { order: OrderRef::Client(_), .. } => ReadOutcome::NotFound,
            };
            desk.answer(outcome);
        }
    }
    let told: Vec<&str> = desk.told.iter().map(|notice| &*notice.rule).collect();
    assert!(desk.sum_up().contains("order 2: matched"), "{} {told:?}", desk.sum_up());
    assert!(!told.contains(&"foreign_order"), "{told:?}");
}

/// The exchange takes requests of a clock that is seconds behind, and so does this.
#[test]
fn a_bot_whose_clock_is_behind_makes_its_own_cancels_no_strangers() {
    for (target, behind_s) in [(Target::Order(OrderId(2)), 12), (Target::All, 3)] {
        let mut desk = Desk::open();
        desk.wait_ms(20_000);
        let order = desk.order(2, "a");
        desk.say(order.place());
        desk.show(order.placed());
        desk.wait_ms(500);
        let record = desk.write(cancel(target, Some("c1")));
        // The answer to the last one has not been read by the time this one is written.
        let (at, nonce) = (record.at - Duration::from_secs(behind_s), None);
        desk.deliver(IntentRecord { at, nonce, ..record });
        desk.show(order.canceled("c1"));
        desk.pass();
        check(&desk, "order 2: matched B\n cancel 2: matched");
    }
}
