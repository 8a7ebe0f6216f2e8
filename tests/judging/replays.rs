//! One id, one order: the first that the venue created under it.

use std::time::Duration;

use countersign::kernel::event::{Issuer, TagCheck};

use crate::desk::{Desk, check};

#[test]
fn a_second_order_under_the_id_is_a_replay_whichever_report_comes_first() {
    for thief_first in [false, true] {
        let mut desk = Desk::open();
        let bots = desk.order(2, "a");
        desk.say(bots.place());
        desk.wait_ms(50);
        let thiefs = desk.order(3, "a");
        let reports = if thief_first { [thiefs.placed(), bots.filled()] } else { [bots.filled(), thiefs.placed()] };
        reports.into_iter().for_each(|report| desk.show(report));
        assert!(desk.sum_up().starts_with("order 2: matched B\norder 3: replayed\n"), "{}", desk.sum_up());
    }
}

#[test]
fn a_replay_in_another_symbol_is_one_too() {
    let mut desk = Desk::open();
    let bots = desk.order(2, "a");
    desk.say(bots.place());
    desk.show(bots.filled());
    desk.wait_ms(50);
    let thiefs = desk.order(3, "a").with(|order| order.symbol = countersign::kernel::order::Symbol::new("ETHUSDT"));
    desk.show(thiefs.placed());
    check(&desk, "order 2: matched B\n order 3: replayed\n replayed_id orders=1 USDT=600");
}

#[test]
fn a_stale_countersign_is_a_replay() {
    for (age_s, verdict) in [(29, "matched A"), (31, "replayed")] {
        for issuer in [Issuer::Daemon, Issuer::Bot] {
            let mut desk = Desk::open();
            let order = desk.order(2, "a");
            let at = order.created_at - Duration::from_secs(age_s);
            let order = order.with(|order| order.tag = TagCheck::Valid { issuer, at });
            desk.say(order.place());
            desk.show(order.placed());
            assert!(desk.sum_up().starts_with(&format!("order 2: {verdict}\n")), "{age_s}: {}", desk.sum_up());
        }
    }
}

#[test]
fn a_stale_countersign_nobody_announced_is_a_replay_too() {
    let mut desk = Desk::open();
    let order = desk.order(2, "a");
    let at = order.created_at - Duration::from_secs(3_600);
    desk.show(order.with(|order| order.tag = TagCheck::Valid { issuer: Issuer::Daemon, at }).placed());
    check(&desk, "order 2: replayed\n replayed_id orders=1 USDT=600");
}

#[test]
fn an_amendment_cannot_take_anothers_id() {
    let mut desk = Desk::open();
    let thiefs = desk.order(2, "thief");
    desk.show(thiefs.placed());
    desk.wait_ms(50);
    let bots = desk.order(3, "a");
    desk.say(bots.place());
    // The thief amends his older order to the id that the bot is about to use; its fills show that id.
    desk.show(thiefs.replaced("0.009", "a"));
    let (mut fill, tags) = thiefs.traded("0.001");
    fill.client_order_id = bots.client_id.clone();
    desk.show((fill, tags));
    desk.show(bots.placed());
    assert!(desk.sum_up().contains("order 3: matched B\n"), "{}", desk.sum_up());
}
