//! What happens at each limit: what gives way, what is refused, and that nothing is lost in silence.

use countersign::kernel::blotter::{INTENTS_MAX, ORDERS_MAX};
use countersign::kernel::declared::Limits;
use countersign::kernel::intent::Refusal;
use countersign::kernel::order::{Bot, OrderStatus, Symbol};

use crate::desk::{Desk, dec, limits};

fn roomy() -> Desk {
    Desk::open_with(|declared| {
        let mut limits = Limits { orders_per_minute: 1_000_000, ..limits() };
        limits.quote.values_mut().for_each(|quote| quote.notional_per_hour = dec("1000000000000"));
        declared.bots.insert(Bot::new("mm"), limits);
        declared.waits.unseen_after = std::time::Duration::from_secs(86_400);
    })
}

#[test]
fn the_oldest_closed_order_gives_way_with_its_id() {
    let mut desk = roomy();
    let first = desk.order(2, "old");
    desk.say(first.place());
    desk.show(first.placed());
    desk.show(first.filled());
    let open = desk.order(3, "stays open");
    desk.say(open.place());
    desk.show(open.placed());
    for n in 0..i64::try_from(ORDERS_MAX).unwrap() {
        let order = desk.order(10 + n, &format!("n-{n}"));
        desk.say(order.place());
        desk.show(order.placed());
        desk.show(order.filled());
        desk.now = desk.now + std::time::Duration::from_micros(1);
    }
    let blotter = &desk.kernel.state().blotter;
    assert_eq!(blotter.orders.len(), ORDERS_MAX);
    assert_eq!(desk.kernel.status().orders.strangers, 0);
    assert_eq!(blotter.open_orders().count(), 1, "an open order outlives closed ones");
    // The intent of the open order was forgotten; the verdict on it stands.
    desk.show(open.filled());
    assert_eq!(desk.kernel.status().orders.strangers, 0, "{:#?}", desk.kernel.notices());
    // The id of the forgotten order is not free for another one.
    let replay = desk.order(900_000, "old");
    desk.show(replay.placed());
    desk.pass();
    assert_eq!(desk.kernel.status().orders.strangers, 1);
}

#[test]
fn a_waiting_order_is_judged_before_it_gives_way() {
    let mut desk = roomy();
    desk.show(desk.order(2, "thief").filled());
    for n in 0..i64::try_from(ORDERS_MAX).unwrap() {
        let order = desk.order(10 + n, &format!("n-{n}"));
        desk.say(order.place());
        desk.show(order.filled());
    }
    assert_eq!(desk.incident("foreign_order").orders, 1);
    assert!(!desk.kernel.heartbeat_wanted(), "nothing waits any more");
}

#[test]
fn a_waiting_cancel_is_judged_before_it_or_its_order_gives_way() {
    // By its order, of which ten thousand are kept.
    let mut desk = roomy();
    let order = desk.order(2, "a");
    desk.say(order.place());
    desk.show(order.canceled("web_1"));
    for n in 0..i64::try_from(ORDERS_MAX).unwrap() {
        let order = desk.order(10 + n, &format!("n-{n}"));
        desk.say(order.place());
        desk.show(order.filled());
    }
    assert_eq!(desk.incident("foreign_cancel_or_amendment").lines.len(), 1);
    assert!(!desk.kernel.heartbeat_wanted(), "nothing waits any more");

    // By the number of requests.
    let mut desk = roomy();
    let order = desk.order(2, "a");
    desk.say(order.place());
    for n in 0..10_010 {
        let (mut report, tags) = order.replaced("0.005", "x");
        report.execution_id = Some(n);
        desk.show((report, tags));
    }
    let told = desk.incident("foreign_cancel_or_amendment");
    assert_eq!(told.lines.len(), 10);
}

#[test]
fn intents_that_wait_are_not_forgotten_and_a_new_one_is_refused() {
    let mut desk = roomy();
    for n in 1..i64::try_from(INTENTS_MAX).unwrap() {
        let order = desk.order(10 + n, &format!("n-{n}")).place();
        assert!(desk.say(order).answer.is_ok());
    }
    // The desk's own first intent was settled: it gives way.
    let order = desk.order(2, "last").place();
    assert!(desk.say(order).answer.is_ok());
    let order = desk.order(3, "one too many").place();
    assert_eq!(desk.say(order).answer, Err(Refusal::Full { capacity: INTENTS_MAX }));
    assert_eq!(desk.kernel.state().blotter.intents.len(), INTENTS_MAX);
    let waiting = desk.order(11, "n-1");
    desk.show(waiting.placed());
    assert_eq!(desk.kernel.status().orders.matched, 2);
}

#[test]
fn many_orders_under_one_id_and_in_one_incident() {
    let mut desk = roomy();
    let bots = desk.order(2, "a");
    desk.say(bots.place());
    desk.show(bots.filled());
    for n in 0..2_500 {
        desk.now = desk.now + std::time::Duration::from_micros(10);
        desk.show(desk.order(10 + n, "a").with(|order| order.quantity = dec("0.001")).placed());
    }
    let notice = desk.incident("replayed_id");
    assert_eq!(notice.orders, 2_500);
    assert_eq!(notice.notional[0].1, dec("150000"), "later ones count with the money they showed first");
}

#[test]
fn more_reads_than_may_be_under_way_wait_their_turn() {
    let mut desk = roomy();
    for n in 0..100 {
        let order = desk.order(10 + n, &format!("n-{n}"));
        desk.say(order.place());
        let (mut trade, tags) = order.traded("0.001");
        trade.symbol = Symbol::new("BTCUSDT");
        trade.price = dec("1");
        desk.show((trade, tags));
    }
    assert_eq!(desk.reads.len(), 64);
    let mut answered = 0;
    while !desk.reads.is_empty() {
        let countersign::kernel::event::ReadRequest::Order { order, .. } = desk.reads[0].1.clone() else { panic!() };
        let countersign::kernel::event::OrderRef::Id(order_id) = order else { panic!() };
        let order = desk.order(order_id.0, &format!("n-{}", order_id.0 - 10));
        desk.answer(order.found(OrderStatus::PartiallyFilled));
        answered += 1;
        if desk.reads.is_empty() {
            desk.wait_ms(5_000);
        }
    }
    assert_eq!((answered, desk.kernel.status().orders.matched), (100, 101));
}

#[test]
fn incidents_give_way_oldest_settled_first() {
    let mut desk = roomy();
    desk.show(desk.order(2, "thief").placed());
    desk.pass();
    let cycle = |desk: &mut Desk| {
        desk.lost(1);
        desk.live(1);
        desk.reads.clear();
    };
    for _ in 0..600 {
        cycle(&mut desk);
    }
    assert_eq!(desk.kernel.notices().len(), 500);
    assert_eq!(desk.incident("foreign_order").orders, 1, "an open incident outlives ended ones");
}
