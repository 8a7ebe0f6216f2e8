//! One cause, one incident: its money, its acknowledgement, its end.

use std::time::Duration;

use countersign::kernel::event::{AccessEvidence, AccessSource, Answer, EffectId, Event, Fault, TagCheck, Ticket};
use countersign::kernel::incident::{IncidentId, IncidentState, Priority};
use countersign::kernel::intent::IntentBody;
use countersign::kernel::order::{Account, Symbol};

use crate::desk::{Desk, Shown, check, dec};

fn acknowledge(desk: &mut Desk, incident: IncidentId, shown: Option<u64>) -> Answer {
    desk.event(Event::Acknowledge { ticket: Ticket(1), by: "owner".into(), incident, shown });
    desk.answers.last().cloned().expect("an operator is answered")
}

fn seen_at(desk: &mut Desk, address: &str, source: AccessSource) {
    let account = Account::new("main");
    let evidence = AccessEvidence { account, at: desk.now, address: address.parse().unwrap(), source, action: None };
    desk.event(Event::Access { ticket: Ticket(1), evidence });
}

#[test]
fn a_thiefs_fifty_orders_of_several_rules_are_one_incident() {
    let mut desk = Desk::open();
    let bots = desk.order(100, "reused");
    desk.say(bots.place());
    desk.show(bots.filled());
    for n in 0..50 {
        desk.wait_ms(10);
        let order = desk.order(200 + n, &format!("thief-{n}"));
        desk.show(match n % 5 {
            0 => order.placed(),
            1 => order.with(|order| order.tag = TagCheck::Forged).placed(),
            2 => order.with(|order| order.symbol = Symbol::new("VIABTC")).placed(),
            3 => order.with(|order| (order.symbol, order.quantity) = (Symbol::new("XYZBNB"), dec("0.5"))).placed(),
            _ => order.with(|order| order.client_id = bots.client_id.clone()).placed(),
        });
    }
    desk.pass();
    assert_eq!(desk.kernel.notices().len(), 1);
    let notice = desk.kernel.notices().remove(0);
    assert_eq!((notice.orders, notice.lines.len(), notice.lines_left_out), (50, 40, 10));
    let money: Vec<String> = notice.notional.iter().map(|(asset, money)| format!("{money} {asset}")).collect();
    assert_eq!(money, ["300000 BNB", "6000 BTC", "18000 USDT"]);
    assert!(notice.lines.iter().any(|line| line.text.contains("burst_of_foreign_activity")), "{:#?}", notice.lines);
}

#[test]
fn a_burst_is_five_within_a_minute() {
    for (apart_ms, bursts) in [(1_000, true), (20_000, false)] {
        let mut desk = Desk::open();
        for n in 0..5 {
            desk.show(desk.order(200 + n, &format!("thief-{n}")).placed());
            desk.pass();
            desk.wait_ms(apart_ms);
        }
        let lines = desk.incident("foreign_order").lines;
        assert_eq!(lines.iter().any(|line| line.text.contains("burst_of")), bursts, "{lines:#?}");
    }
}

#[test]
fn an_acknowledgement_covers_what_it_was_shown() {
    let mut desk = Desk::open();
    let thief = desk.order(2, "thief");
    desk.show(thief.placed());
    desk.pass();
    let shown = desk.incident("foreign_order");
    desk.show(desk.order(3, "thief-2").placed());
    desk.pass();
    let answer = acknowledge(&mut desk, shown.incident, Some(shown.revision));
    assert!(matches!(answer, Answer::Refused { .. }), "it has grown: {answer:?}");
    let shown = desk.incident("foreign_order");
    assert_eq!(acknowledge(&mut desk, shown.incident, Some(shown.revision)), Answer::Done);
    check(&desk, "order 2: foreign\n order 3: foreign\n foreign_order acknowledged orders=2 USDT=1200");
    assert!(matches!(acknowledge(&mut desk, IncidentId(999_999), None), Answer::Refused { .. }));
    // Nobody is told that he has acknowledged what another has, or what is over.
    for shown_now in [None, Some(shown.revision)] {
        let again = acknowledge(&mut desk, shown.incident, shown_now);
        assert!(matches!(&again, Answer::Refused { reason } if reason.contains("not open any more")), "{again:?}");
    }
    // Less money is no news to the owner, another order is.
    desk.show(thief.canceled("c"));
    assert_eq!(desk.incident("foreign_order").state, IncidentState::Acknowledged);
    desk.show(desk.order(4, "thief-3").placed());
    desk.pass();
    assert_eq!(desk.incident("foreign_order").state, IncidentState::Open);
    assert_eq!(desk.incident("foreign_order").acknowledged_by, None);
}

#[test]
fn more_money_of_the_same_order_undoes_an_acknowledgement() {
    let mut desk = Desk::open();
    let thief = desk.order(2, "thief");
    desk.show(thief.placed());
    desk.pass();
    let shown = desk.incident("foreign_order");
    acknowledge(&mut desk, shown.incident, Some(shown.revision));
    let (mut fill, tags) = thief.filled();
    fill.cumulative_quote = dec("650");
    desk.show((fill, tags));
    check(&desk, "order 2: foreign\n foreign_order orders=1 USDT=650");
}

#[test]
fn dust_that_was_acknowledged_is_no_cover_for_a_theft() {
    let dust = |desk: &Desk, number: i64| {
        desk.order(number, &format!("dust-{number}")).with(|order| order.quantity = dec("0.0001"))
    };
    let another_symbol = |desk: &Desk| desk.order(9, "theft").with(|order| order.symbol = Symbol::new("VIABTC"));
    let more_money = |desk: &Desk| desk.order(9, "theft");
    let as_little = |desk: &Desk| dust(desk, 9);
    let thefts: [&dyn Fn(&Desk) -> Shown; 3] = [&another_symbol, &more_money, &as_little];
    for theft in thefts {
        let mut desk = Desk::open();
        for number in 2..5 {
            desk.show(dust(&desk, number).placed());
            desk.pass();
        }
        let shown = desk.incident("foreign_order");
        assert_eq!(acknowledge(&mut desk, shown.incident, Some(shown.revision)), Answer::Done);
        desk.told.clear();
        desk.show(theft(&desk).placed());
        desk.pass();
        let again = desk.incident("foreign_order");
        assert_eq!((again.incident, again.state, again.orders), (shown.incident, IncidentState::Open, 4));
        assert!(again.acknowledged_by.is_none() && again.priority == Priority::Critical, "{again:#?}");
        // The channels ring for an incident that was acknowledged and is open in what they are told next.
        assert!(desk.told.iter().any(|notice| notice.state == IncidentState::Open && notice.orders == 4));
        // And what covered the dust covers this no more.
        assert!(matches!(acknowledge(&mut desk, shown.incident, Some(shown.revision)), Answer::Refused { .. }));
    }
}

#[test]
fn a_cleared_order_takes_its_money_with_it() {
    let mut desk = Desk::open();
    let late = desk.order(2, "late");
    let record = desk.write(late.place());
    desk.wait_ms(1);
    desk.show(late.placed());
    desk.show(desk.order(3, "thief").placed());
    desk.wait_ms(10_000);
    check(&desk, "order 2: foreign\n order 3: foreign\n foreign_order orders=2 USDT=1200");
    desk.deliver(record);
    check(&desk, "order 2: matched B-late\n order 3: foreign\n foreign_order orders=1 USDT=600");
}

#[test]
fn a_quiet_incident_is_left_alone_after_hours() {
    let mut desk = Desk::open();
    desk.show(desk.order(2, "thief").placed());
    desk.pass();
    for _ in 0..(7 * 60 * 3) {
        desk.wait_ms(20_000);
        desk.say(IntentBody::Heartbeat { egress: None });
    }
    desk.show(desk.order(3, "thief-2").placed());
    desk.pass();
    let both = "foreign_order orders=1 USDT=600\n foreign_order orders=1 USDT=600";
    check(&desk, &format!("order 2: foreign\n order 3: foreign\n {both}"));
}

#[test]
fn an_unfamiliar_address_is_told_once_a_day() {
    let mut desk = Desk::open_with(|declared| declared.familiar_networks = vec!["203.0.113.0/24".parse().unwrap()]);
    seen_at(&mut desk, "203.0.113.9", AccessSource::Venue);
    check(&desk, "");
    for _ in 0..3 {
        seen_at(&mut desk, "198.51.100.7", AccessSource::Venue);
        seen_at(&mut desk, "198.51.100.8", AccessSource::Host);
    }
    assert_eq!(desk.incident("unfamiliar_address").lines.len(), 2);
    assert!(desk.incident("unfamiliar_address").certainty.contains("what left that host only"));
    desk.now = desk.now + Duration::from_secs(86_400);
    seen_at(&mut desk, "198.51.100.7", AccessSource::Venue);
    let lines: usize = desk
        .kernel
        .notices()
        .iter()
        .filter(|notice| &*notice.rule == "unfamiliar_address")
        .map(|notice| notice.lines.len())
        .sum();
    assert_eq!(lines, 3);
}

#[test]
fn a_bot_reports_its_own_way_out() {
    let mut desk = Desk::open_with(|declared| declared.familiar_networks = vec!["203.0.113.0/24".parse().unwrap()]);
    for address in ["203.0.113.9", "198.51.100.7", "198.51.100.7"] {
        desk.say(IntentBody::Heartbeat { egress: Some(address.parse().unwrap()) });
    }
    assert_eq!(desk.incident("unfamiliar_address").lines.len(), 1);
    assert!(desk.incident("unfamiliar_address").certainty.starts_with("The bot itself reports it"));
}

#[test]
fn what_goes_wrong_in_the_watcher_is_told() {
    let faults = [
        (Fault::Unjournalled { effect: EffectId { cause: 7, index: 0 } }, "unjournalled", Priority::Warning),
        (Fault::BrokenJournal { detail: "row 7".into() }, "broken_journal", Priority::Critical),
        (Fault::ClockJump { by_ms: -3_000 }, "clock_jump", Priority::Warning),
        (Fault::TaskEnded { task: "stream".into(), detail: "panic".into() }, "task_ended", Priority::Critical),
    ];
    for (fault, rule, priority) in faults {
        let mut desk = Desk::open();
        desk.event(Event::Fault(fault));
        assert_eq!(desk.incident(rule).priority, priority);
    }
}
