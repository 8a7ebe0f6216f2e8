//! What a bot may announce, and the sequence it says it in.

use std::time::Duration;

use countersign::kernel::event::{Issuer, TagCheck};
use countersign::kernel::intent::{CancelTerms, IntentBody, ListTerms, Refusal, SendOutcome, Target};
use countersign::kernel::order::{Account, Bot, OrderType, Symbol};

use crate::desk::{Desk, Shown, check, dec, id, limits};

/// What the refusal names, or "ok".
fn said(desk: &mut Desk, body: IntentBody) -> String {
    match desk.say(body).answer {
        Ok(_) => "ok".to_owned(),
        Err(Refusal::OutsideLimits { limit }) => limit.into(),
        Err(other) => format!("{other:?}"),
    }
}

#[test]
fn the_limits_of_one_order() {
    type Change = fn(&mut Shown);
    let orders: [(Change, &str); 8] = [
        (|_| {}, "ok"),
        (|order| order.quantity = dec("0.8"), "ok"),
        (|order| order.symbol = Symbol::new("VIABTC"), "VIABTC is not one of the bot's symbols"),
        (|order| (order.quantity, order.price) = (dec("1.1"), dec("1")), "1.1 BTCUSDT is above order_quantity 1"),
        (|order| order.quantity = dec("0.9"), "54000 USDT is above order_notional 50000"),
        (
            |order| {
                (order.quantity, order.quote_quantity, order.order_type) = (dec("0"), dec("50001"), OrderType::Market)
            },
            "50001 USDT is above order_notional 50000",
        ),
        (|order| order.quantity = dec("0"), "the order has neither a quantity nor a notional"),
        (|order| (order.order_type, order.price, order.quantity) = (OrderType::Market, dec("0"), dec("1")), "ok"),
    ];
    for (change, answer) in orders {
        let mut desk = Desk::open();
        let order = desk.order(2, "a").with(change);
        assert_eq!(said(&mut desk, order.place()), answer, "{order:?}");
        desk.show(order.placed());
        if answer != "ok" {
            assert!(desk.sum_up().starts_with("order 2: foreign\n"), "no intent clears outside the limits");
        }
    }
}

#[test]
fn the_limits_of_an_hour_and_a_minute() {
    let mut desk = Desk::open();
    let big =
        |desk: &Desk, n: i64| desk.order(n, &format!("big-{n}")).with(|order| order.quantity = dec("0.8")).place();
    // The desk's first order took 600.
    for n in 0..20 {
        let order = big(&desk, n);
        assert_eq!(said(&mut desk, order), "ok");
        desk.wait_ms(60_000);
    }
    let order = big(&desk, 20);
    assert_eq!(said(&mut desk, order), "notional_per_hour is 1000000 USDT");
    desk.wait_ms(41 * 60_000);
    let order = big(&desk, 21);
    assert_eq!(said(&mut desk, order), "ok", "an hour later the first is forgotten");

    let mut desk = Desk::open_with(|declared| {
        declared
            .bots
            .insert(Bot::new("mm"), countersign::kernel::declared::Limits { orders_per_minute: 3, ..limits() });
    });
    let order = |desk: &Desk, n: i64| desk.order(n, &format!("o-{n}")).place();
    for (n, answer) in [(2, "ok"), (3, "ok"), (4, "orders_per_minute is 3")] {
        let order = order(&desk, n);
        assert_eq!(said(&mut desk, order), answer);
    }
    desk.wait_ms(60_000);
    let order = order(&desk, 5);
    assert_eq!(said(&mut desk, order), "ok");
}

#[test]
fn a_refused_record_takes_its_number_and_is_refused_again_with_the_same_words() {
    let mut desk = Desk::open();
    let record = desk.write(desk.order(2, "a").with(|order| order.quantity = dec("7")).place());
    let first = desk.deliver(record.clone());
    assert!(matches!(first.answer, Err(Refusal::OutsideLimits { .. })));
    desk.wait_ms(1_000);
    let again = desk.deliver(countersign::kernel::intent::IntentRecord { nonce: None, ..record });
    assert_eq!((again.seq, again.answer), (first.seq, first.answer));
    assert_eq!(said(&mut desk, IntentBody::Heartbeat { egress: None }), "ok");
    assert_eq!(desk.replies.last().unwrap().missing, 0);
}

#[test]
fn repeats_conflicts_replays_and_gaps() {
    let mut desk = Desk::open();
    let record = desk.write(desk.order(2, "a").place());
    let first = desk.deliver(record.clone());
    assert_eq!(desk.deliver(record.clone()).answer, first.answer, "a repeat is answered alike");
    let mut other = record.clone();
    other.at = other.at + Duration::from_secs(1);
    assert_eq!(desk.deliver(other).answer, Err(Refusal::Conflict));
    let mut jump = desk.write(desk.order(3, "b").place());
    jump.seq += 3;
    assert_eq!(desk.deliver(jump.clone()).missing, 3);
    let mut passed_over = record;
    passed_over.seq += 1;
    assert_eq!(desk.deliver(passed_over).answer, Err(Refusal::Replay { last_seq: jump.seq }));
    let stranger = countersign::kernel::intent::IntentRecord { bot: Bot::new("unknown"), ..jump };
    assert_eq!(desk.deliver(stranger).answer, Err(Refusal::UnknownBot));
}

#[test]
fn a_first_record_may_start_anywhere_even_after_a_heartbeat() {
    let mut desk = Desk::quiet(|_| {});
    let mut record = desk.write(desk.order(2, "a").place());
    let mut beat = desk.write(IntentBody::Heartbeat { egress: None });
    (record.seq, beat.seq) = (1_001, 1_000);
    desk.deliver(beat);
    assert_eq!(desk.deliver(record).missing, 0);
    assert!(desk.kernel.status().bots.iter().all(|bot| bot.missing_records == 0));
}

#[test]
fn a_gap_before_a_heartbeat_holds_its_word_back() {
    let mut desk = Desk::open();
    let lost = desk.write(desk.order(9, "lost").place());
    desk.show(desk.order(2, "thief").placed());
    desk.pass();
    check(&desk, "order 2: pending");
    assert_eq!(desk.replies.last().unwrap().missing, 1, "{lost:?}");
}

#[test]
fn an_id_names_one_intent() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    desk.say(order.place());
    assert_eq!(desk.say(order.place()).answer, Err(Refusal::IdInUse));
    assert_eq!(desk.say_as("grid", order.place()).answer, Err(Refusal::IdInUse));
    assert_eq!(desk.say(order.cancel(Some("a"))).answer, Err(Refusal::IdInUse));
}

#[test]
fn a_record_is_taken_whole_or_not_at_all() {
    let mut desk = Desk::open_with(|declared| {
        declared
            .bots
            .insert(Bot::new("mm"), countersign::kernel::declared::Limits { orders_per_minute: 3, ..limits() });
    });
    let (good, bad) = (desk.order(2, "good"), desk.order(3, "bad").with(|order| order.quantity = dec("9")));
    let list = |legs: Vec<&Shown>| {
        IntentBody::List(ListTerms {
            client_order_id: id("list"),
            contingency: "OCO".into(),
            legs: legs.into_iter().map(Shown::terms).collect(),
        })
    };
    assert!(said(&mut desk, list(vec![&good, &bad])).contains("order_quantity"));
    assert_eq!(said(&mut desk, list(vec![&good, &good])), "IdInUse");
    assert_eq!(said(&mut desk, list(vec![&good; 300])), "a list has at most 8 legs");
    let cancel = CancelTerms { symbol: good.symbol.clone(), target: Target::All, client_order_id: Some(id("first")) };
    let replace = IntentBody::CancelReplace { cancel, place: good.terms() };
    assert_eq!(said(&mut desk, replace), "IdInUse");
    desk.show(good.placed());
    desk.pass();
    assert!(desk.sum_up().starts_with("order 2: foreign\n"), "no part of a refused record clears: {}", desk.sum_up());
    let other = desk.order(4, "other");
    assert_eq!(said(&mut desk, list(vec![&other, &desk_order(5)])), "ok", "refused parts were not counted");
}

fn desk_order(order_id: i64) -> Shown {
    Desk::dark(|_| {}).order(order_id, "of its own")
}

#[test]
fn an_order_told_again_counts_once_and_its_first_id_is_dead() {
    let mut desk = Desk::open_with(|declared| {
        declared
            .bots
            .insert(Bot::new("mm"), countersign::kernel::declared::Limits { orders_per_minute: 2, ..limits() });
    });
    let issued = desk.order(2, "issued");
    desk.say(issued.place());
    let local = issued.clone().with(|order| order.client_id = id("local"));
    let mut again = desk.write(local.place());
    again.supersedes = Some(again.seq - 1);
    assert!(desk.deliver(again).answer.is_ok(), "it was counted when it was told first");
    desk.show(local.placed());
    let thiefs = desk.order(3, "issued").with(|order| {
        order.tag = TagCheck::Valid { issuer: Issuer::Daemon, at: order.created_at };
    });
    desk.show(thiefs.placed());
    check(&desk, "order 2: matched B\n order 3: unissued\n unissued_or_unlogged_id orders=1 USDT=600");
    let mut third = desk.write(local.with(|order| order.client_id = id("third")).place());
    third.supersedes = Some(third.seq - 1);
    let answer = desk.deliver(third).answer;
    assert!(
        matches!(answer, Err(Refusal::OutsideLimits { .. })),
        "an order came of it, so this is a new one: {answer:?}"
    );
}

#[test]
fn a_bot_that_is_no_longer_declared_says_nothing_and_is_not_waited_for() {
    let mut desk = Desk::open();
    desk.say_as("grid", desk.order(9, "of grid").place());
    desk.declared.bots.remove(&Bot::new("grid"));
    desk.restart();
    assert_eq!(desk.say_as("grid", desk.order(8, "x").place()).answer, Err(Refusal::UnknownBot));
    desk.live(2);
    desk.show_on(2, desk.order(2, "thief").placed());
    desk.pass();
    assert!(desk.sum_up().contains("order 2: foreign\n"), "{}", desk.sum_up());
}

/// Another bot speaks already; this one has announced nothing, and beats. Its first order may be shown before its word comes.
#[test]
fn a_bot_that_beats_is_waited_for_before_its_first_word() {
    let story = |beats: bool| {
        let mut desk = Desk::open();
        if beats {
            desk.pass_as("grid");
        }
        desk.wait_ms(100);
        let first = desk.order(2, "first of grid");
        let word = desk.write_as("grid", first.place());
        desk.wait_ms(1);
        desk.show(first.placed());
        desk.pass();
        (desk, word)
    };
    let (mut desk, word) = story(true);
    check(&desk, "order 2: pending");
    desk.deliver(word);
    assert!(desk.sum_up().starts_with("order 2: matched"), "{}", desk.sum_up());
    assert!(desk.told.iter().all(|notice| &*notice.rule != "foreign_order"), "{:#?}", desk.told);

    // One that was never heard may not be there at all: nobody waits for it.
    let (desk, _) = story(false);
    check(&desk, "order 2: foreign\n foreign_order orders=1 USDT=600");

    // One whose beats speak of records that nobody has proves nothing by them, and holds nothing up.
    let mut desk = Desk::open();
    for seq in [0, 5] {
        let mut beat = desk.write_as("grid", IntentBody::Heartbeat { egress: None });
        (beat.seq, beat.nonce) = (seq, Some(desk.now));
        desk.deliver(beat);
    }
    desk.wait_ms(1);
    desk.show(desk.order(2, "thief").placed());
    desk.pass();
    check(&desk, "order 2: foreign\n foreign_order orders=1 USDT=600");

    // One that beat and fell silent is said to be, and waited for no more.
    let mut desk = Desk::open();
    desk.pass_as("grid");
    for _ in 0..31 {
        desk.wait_ms(1_000);
        desk.say(IntentBody::Heartbeat { egress: None });
    }
    check(&desk, "bot_silent");
    desk.wait_ms(1);
    desk.show(desk.order(2, "thief").placed());
    desk.pass();
    assert!(desk.sum_up().contains("order 2: foreign"), "{}", desk.sum_up());
}

#[test]
fn a_result_must_name_a_record_that_is_known() {
    let mut desk = Desk::open();
    let answer = desk.result(777, SendOutcome::NotSent).answer;
    assert_eq!(answer, Err(Refusal::UnknownIntent { of: 777 }));
    assert!(desk.result(1, SendOutcome::Accepted { order_id: None }).answer.is_ok());
}

#[test]
fn a_silent_bot_is_one_message_and_its_first_word_ends_it() {
    let mut desk = Desk::open();
    desk.wait_ms(120_000);
    check(&desk, "bot_silent");
    assert_eq!(desk.told.len(), 1);
    assert!(desk.kernel.status().bots.iter().any(|bot| bot.silent));
    desk.say(IntentBody::Heartbeat { egress: None });
    check(&desk, "bot_silent ended");
    desk.wait_ms(29_000);
    desk.say(IntentBody::Heartbeat { egress: None });
    desk.wait_ms(29_000);
    check(&desk, "bot_silent ended");
    assert_eq!(desk.declared.account, Account::new("main"));
}

#[test]
fn before_a_bot_speaks_its_orders_are_one_digest() {
    let mut desk = Desk::quiet(|_| {});
    for n in 2..40 {
        desk.show(desk.order(n, &format!("of somebody {n}")).placed());
    }
    desk.wait_ms(10_000);
    assert!(desk.sum_up().ends_with("not_connected orders=38 USDT=22800\n"), "{}", desk.sum_up());
    desk.show(desk.order(50, "thin").with(|order| order.symbol = Symbol::new("VIABTC")).placed());
    assert!(desk.sum_up().ends_with("foreign_order orders=1 BTC=600\n"), "single alerts only outside the limits");
    desk.say(desk.order(51, "mine").place());
    assert!(desk.sum_up().contains("not_connected ended orders=38"), "{}", desk.sum_up());
}
