//! Selling everything at its owner's word: shown first, bounded by price and depth, each order once, and known as ours.

use std::time::Duration;

use countersign::kernel::act::{Act, ActOutcome, Quote};
use countersign::kernel::command::{Command, Totp};
use countersign::kernel::event::{Answer, EffectId, Event, Tags, Ticket};
use countersign::kernel::flatten::{Sale, Stage};
use countersign::kernel::order::{Asset, ClientId, ExecutionType, OrderStatus, Side, Symbol, TimeInForce};

use crate::authority::{ALICE, BOB, fund, requested, right, say};
use crate::desk::{Desk, balance, check, dec};
use crate::stage::may_stop;

fn desk() -> Desk {
    let mut desk = Desk::open_with(may_stop);
    desk.wait_ms(1_000);
    desk.acts.clear();
    desk
}

fn command(desk: &mut Desk, command: Command, totp: Totp) -> Answer {
    let (ticket, by, why) = (Ticket(7), "owner".into(), Some("the account is closed".into()));
    desk.event(Event::Command { ticket, by, way: None, why, incident: None, command, totp });
    desk.answers.pop().expect("a command is answered")
}

fn refused(answer: Answer, why: &str) {
    let Answer::Refused { reason } = &answer else { panic!("it was done") };
    assert!(reason.contains(why), "{reason} for {why}");
}

fn sale(desk: &Desk) -> Sale {
    desk.kernel.flattening().expect("one was asked for").sale()
}

fn quote(base: &str, average: &str, bids: &[(&str, &str)]) -> Quote {
    Quote {
        base: Asset::new(base),
        quote: Asset::new("USDT"),
        trading: true,
        tick: dec("0.01"),
        step: dec("0.001"),
        quantity_least: dec("0.001"),
        quantity_most: dec("9000"),
        notional_least: dec("5"),
        average: dec(average),
        average_of_day: dec("120"),
        bids: bids.iter().map(|(price, quantity)| (dec(price), dec(quantity))).collect(),
    }
}

fn next(desk: &mut Desk) -> (EffectId, Act) {
    desk.acts.pop_front().unwrap_or_else(|| panic!("an act was expected: {:#?}", sale(desk)))
}

fn answer(desk: &mut Desk, effect: EffectId, outcome: ActOutcome) {
    desk.event(Event::Acted { effect, outcome });
}

/// The plan of one asset, with what its market shows.
fn plan(desk: &mut Desk, free: &str, market: ActOutcome) -> Sale {
    let within = dec("0.01");
    let asked = command(desk, Command::PlanFlatten { to: Asset::new("USDT"), within }, Totp::Absent);
    assert_eq!(asked, Answer::Done);
    let (effect, act) = next(desk);
    assert_eq!(act, Act::Balances);
    let rows = vec![balance("BTC", free, "1"), balance("USDT", "100", "0"), balance("BNB", "0", "2")];
    answer(desk, effect, ActOutcome::Balances(rows));
    let (effect, act) = next(desk);
    assert_eq!(act, Act::Quote { symbol: Symbol::new("BTCUSDT") });
    answer(desk, effect, market);
    assert!(desk.acts.is_empty(), "nothing is sold before its owner says so: {:?}", desk.acts);
    sale(desk)
}

fn market(average: &str, bids: &[(&str, &str)]) -> ActOutcome {
    ActOutcome::Quote(Box::new(quote("BTC", average, bids)))
}

#[test]
fn an_offer_stays_inside_the_bound_or_is_none() {
    let not_trading = ActOutcome::Quote(Box::new(Quote { trading: false, ..quote("BTC", "100", &[("100", "9")]) }));
    let other = ActOutcome::Quote(Box::new(quote("ETH", "100", &[("100", "9")])));
    let unknown = ActOutcome::Refused { code: -1121, reason: "Invalid symbol.".into() };
    for (what, free, shown, expected) in [
        ("the day beside it", "2", market("100", &[("100", "5")]), "(average 100, of the day 120, best bid 100, 5 bid"),
        ("all of it", "2.0005", market("100", &[("100", "5")]), "sell 2 of 2.0005 BTC, at 99 USDT or more"),
        (
            "only the bids inside",
            "2",
            market("100", &[("99.5", "0.7"), ("99", "0.3"), ("98.99", "50")]),
            "sell 1 of 2 BTC, at 99 USDT",
        ),
        ("the limit on a tick", "2", market("100.003", &[("100", "5")]), "at 99.01 USDT"),
        ("the higher of both", "2", market("100", &[("100.9", "5")]), "at 99.9 USDT"),
        (
            "a thin book",
            "2",
            market("100", &[("99.9", "0.01"), ("50", "9000")]),
            "BTC stays: 0.01 of it could be sold inside",
        ),
        ("a bid pressed down", "2", market("100", &[("98.9", "5")]), "stays: the best bid is 98.9 and the average"),
        ("a bid pulled up", "2", market("100", &[("101.1", "0.001"), ("100", "5")]), "stays: the best bid is 101.1"),
        ("dust", "0.0004", market("100", &[("100", "5")]), "stays: 0 of it could be sold"),
        ("less than the exchange takes", "0.04", market("100", &[("100", "5")]), "stays: 0.04 of it"),
        ("nobody bids", "2", market("100", &[]), "stays: nobody bids"),
        ("no average", "2", market("0", &[("100", "5")]), "stays: the best bid"),
        ("a halted market", "2", not_trading, "stays: BTCUSDT is not traded now"),
        ("another market's answer", "2", other, "stays: BTCUSDT is not traded now"),
        ("no such market", "2", unknown, "stays: its price could not be read: refused (-1121)"),
        ("no answer", "2", ActOutcome::Unknown { reason: "timed out".into() }, "stays: its price could not be read"),
    ] {
        let mut desk = desk();
        let plan = plan(&mut desk, free, shown);
        assert_eq!(plan.stage, Stage::Planned, "{what}");
        assert!(plan.lines.len() == 1 && plan.lines[0].contains(expected), "{what}: {:?}", plan.lines);
    }
}

#[test]
fn it_is_sold_at_its_owners_word_only_and_is_known_as_ours() {
    let mut desk = desk();
    let shown = plan(&mut desk, "0.5", market("60000", &[("60000", "0.2"), ("59500", "0.1")]));
    let yes = |plan| Command::Flatten { plan };
    refused(command(&mut desk, yes(shown.plan), Totp::Absent), "needs a one-time password");
    refused(command(&mut desk, yes(shown.plan), Totp::Wrong), "is wrong");
    let other = desk.now + Duration::from_secs(1);
    refused(command(&mut desk, yes(other), Totp::Right { step: 1 }), "not the plan that waits");
    assert!(desk.acts.is_empty());
    assert_eq!(command(&mut desk, yes(shown.plan), Totp::Right { step: 2 }), Answer::Done);
    let (effect, act) = next(&mut desk);
    let Act::Sell { symbol, quantity, price, id } = act else { panic!("{act:?}") };
    assert_eq!((symbol.as_str(), quantity, price), ("BTCUSDT", dec("0.3"), dec("59400")));
    refused(command(&mut desk, yes(shown.plan), Totp::Right { step: 3 }), "not the plan that waits");
    show(&mut desk, &id, "59400");
    check(&desk, "order 5: matched B\n flatten");
    answer(&mut desk, effect, ActOutcome::Sold { executed: dec("0.3"), received: dec("17950") });
    assert_eq!(sale(&desk).stage, Stage::Done);
    assert!(sale(&desk).is_whole() && sale(&desk).lines[0].contains("sold 0.3 of 0.5 BTC for 17950 USDT"));
    assert!(sale(&desk).lines[0].ends_with("0.2 BTC stays: nobody bid for more inside the bound"));
    check(&desk, "order 5: matched B\n flatten ended");
    assert!(desk.incident("flatten").headline.contains("at its owner's word"));
    desk.wait_ms(60_000);
    assert!(desk.acts.is_empty() && sale(&desk).stage == Stage::Done);
}

/// What is left of an asset is money as well.
#[test]
fn what_stays_of_an_asset_is_said_with_its_reason() {
    for (free, bids, executed, expected) in [
        ("0.5", "0.5", "0.5", None),
        ("0.5", "0.5", "0.3", Some("0.2 BTC stays: it was not filled at once, and no order rests")),
        ("0.5", "0.5", "0", Some("0.5 BTC stays: it was not filled at once")),
        ("0.5", "0.2", "0.2", Some("0.3 BTC stays: nobody bid for more")),
        ("0.5", "0.2", "0.1", Some("0.4 BTC stays: it was not filled at once")),
        ("0.5004", "9", "0.5", Some("0.0004 BTC stays: one order takes no such part")),
    ] {
        let mut desk = desk();
        let shown = plan(&mut desk, free, market("60000", &[("60000", bids)]));
        assert_eq!(command(&mut desk, Command::Flatten { plan: shown.plan }, Totp::Right { step: 2 }), Answer::Done);
        let (effect, _) = next(&mut desk);
        answer(&mut desk, effect, ActOutcome::Sold { executed: dec(executed), received: dec("1") });
        let (sale, told) = (sale(&desk), sale(&desk).to_string());
        match expected {
            Some(expected) => assert!(told.contains(expected), "{told}"),
            None => assert!(!told.contains("stays"), "{told}"),
        }
        let end =
            if sale.is_whole() { "done: all that was offered is sold" } else { "done, but NOT all that was offered" };
        assert!(told.starts_with(end), "{told}");
    }
}

/// What had no place in the plan stays, as the plan said: only what its owner said yes to can fail.
#[test]
fn a_sale_is_whole_once_what_was_offered_is_sold() {
    let refused = || ActOutcome::Refused { code: -2010, reason: "no".into() };
    let sold = |executed: &str| ActOutcome::Sold { executed: dec(executed), received: dec("99") };
    for (what, outcome, whole) in [
        ("sold", Some(sold("1")), true),
        ("sold in part", Some(sold("0.5")), false),
        ("refused", Some(refused()), false),
        ("never placed", None, false),
    ] {
        let mut desk = desk();
        command(&mut desk, Command::PlanFlatten { to: Asset::new("USDT"), within: dec("0.01") }, Totp::Absent);
        let (effect, _) = next(&mut desk);
        let names: Vec<String> = (0..25).map(|number| format!("A{number:02}")).collect();
        answer(&mut desk, effect, ActOutcome::Balances(names.iter().map(|name| balance(name, "1", "0")).collect()));
        // Nobody bids for all but the first, and five more are beyond what one command sells.
        for (place, name) in names.iter().take(20).enumerate() {
            let (effect, _) = next(&mut desk);
            let bids: &[_] = if place == 0 { &[("100", "5")] } else { &[] };
            answer(&mut desk, effect, ActOutcome::Quote(Box::new(quote(name, "100", bids))));
        }
        let yes = Command::Flatten { plan: sale(&desk).plan };
        assert_eq!(command(&mut desk, yes, Totp::Right { step: 2 }), Answer::Done, "{what}");
        let (effect, act) = next(&mut desk);
        assert!(matches!(act, Act::Sell { .. }), "{what}: {act:?}");
        match outcome {
            Some(outcome) => answer(&mut desk, effect, outcome),
            None => {
                desk.restart();
                desk.live(2);
                for _ in 0..4 {
                    desk.wait_ms(2_100);
                    desk.acts.retain(|(_, act)| matches!(act, Act::FindOrder { .. }));
                    let (effect, _) = next(&mut desk);
                    answer(&mut desk, effect, ActOutcome::NotFound);
                }
            }
        }
        let (sale, told) = (sale(&desk), sale(&desk).to_string());
        assert_eq!((&sale.stage, sale.is_whole()), (&Stage::Done, whole), "{what}: {told}");
        assert_eq!(told.matches("stays: nobody bids for it").count(), 19, "{what}: {told}");
        assert!(told.contains("5 more assets"), "{what}: {told}");
    }
}

/// The stream shows an order under this id.
fn show(desk: &mut Desk, id: &ClientId, price: &str) {
    let order = desk.order(5, id.as_str()).with(|order| {
        (order.side, order.quantity, order.price) = (Side::Sell, dec("0.3"), dec(price));
    });
    let mut report = order.report(ExecutionType::New, OrderStatus::New, dec("0"));
    report.time_in_force = TimeInForce::Ioc;
    desk.show((report, Tags::NONE));
}

#[test]
fn its_id_is_no_pass_for_another_order() {
    let mut desk = desk();
    let shown = plan(&mut desk, "0.5", market("60000", &[("60000", "0.3")]));
    assert_eq!(command(&mut desk, Command::Flatten { plan: shown.plan }, Totp::Right { step: 2 }), Answer::Done);
    let (_, act) = next(&mut desk);
    let Act::Sell { id, .. } = act else { panic!("{act:?}") };
    show(&mut desk, &id, "30000");
    assert!(desk.sum_up().contains("order 5: divergent"), "{}", desk.sum_up());
}

#[test]
fn a_plan_gets_old() {
    let mut desk = desk();
    let shown = plan(&mut desk, "0.5", market("60000", &[("60000", "0.3")]));
    desk.wait_ms(121_000);
    let late = command(&mut desk, Command::Flatten { plan: shown.plan }, Totp::Right { step: 2 });
    refused(late, "too old");
    let mut desk = self::desk();
    plan(&mut desk, "0.5", market("60000", &[("60000", "0.3")]));
    desk.restart();
    assert!(matches!(sale(&desk).stage, Stage::Failed { .. }));
    desk.acts.clear();
    let within = dec("0.11");
    let wide = command(&mut desk, Command::PlanFlatten { to: Asset::new("USDT"), within }, Totp::Absent);
    refused(wide, "at most 10 %");
}

/// What a plan reads costs request weight that the cancels of an emergency need.
#[test]
fn plans_are_few_and_none_is_made_in_an_emergency() {
    let ask = |desk: &mut Desk, to: &str| {
        command(desk, Command::PlanFlatten { to: Asset::new(to), within: dec("0.01") }, Totp::Absent)
    };
    let mut desk = desk();
    let first = plan(&mut desk, "0.5", market("60000", &[("60000", "0.3")]));
    assert_eq!(ask(&mut desk, "USDT"), Answer::Done);
    assert!(desk.acts.is_empty() && sale(&desk) == first, "it stands, and nothing is read again");
    refused(ask(&mut desk, "EUR"), "ask for another one in ");
    desk.wait_ms(30_000);
    assert_eq!(ask(&mut desk, "EUR"), Answer::Done);
    assert_eq!(next(&mut desk).1, Act::Balances);
    desk.wait_ms(61_000);
    assert_eq!(command(&mut desk, Command::Freeze, Totp::Absent), Answer::Done);
    refused(ask(&mut desk, "USDT"), "is being contained");
}

/// Nobody begins a sale in an emergency; of one that had begun nothing more is sent, and what was sent is looked up.
#[test]
fn an_emergency_stops_a_sale_wherever_it_is() {
    let yes = |plan| Command::Flatten { plan };
    for emergency in [Command::Freeze, Command::Kill] {
        let mut reads = desk();
        command(&mut reads, Command::PlanFlatten { to: Asset::new("USDT"), within: dec("0.01") }, Totp::Absent);
        let (effect, _) = next(&mut reads);
        assert_eq!(command(&mut reads, emergency.clone(), Totp::Absent), Answer::Done);
        assert!(matches!(sale(&reads).stage, Stage::Failed { .. }), "{:?}", sale(&reads));
        answer(&mut reads, effect, ActOutcome::Balances(vec![balance("BTC", "1", "0")]));
        assert!(!reads.acts.iter().any(|(_, act)| matches!(act, Act::Quote { .. })), "{:?}", reads.acts);

        let mut planned = desk();
        let shown = plan(&mut planned, "0.5", market("60000", &[("60000", "0.3")]));
        assert_eq!(command(&mut planned, emergency.clone(), Totp::Absent), Answer::Done);
        refused(command(&mut planned, yes(shown.plan), Totp::Right { step: 2 }), "is being contained");

        let mut asked = Desk::open_with(fund);
        asked.acts.clear();
        let shown = plan(&mut asked, "0.5", market("60000", &[("60000", "0.3")]));
        let approve = requested(say(&mut asked, ALICE[0], yes(shown.plan), right(1)));
        assert_eq!(say(&mut asked, BOB[0], Command::Freeze, Totp::Absent), Answer::Done);
        refused(say(&mut asked, BOB[0], approve, right(1)), "is being contained");
        refused(say(&mut asked, ALICE[0], yes(shown.plan), right(2)), "is being contained");

        let mut selling = desk();
        let shown = plan_many(&mut selling, 6);
        assert_eq!(command(&mut selling, yes(shown.plan), Totp::Right { step: 2 }), Answer::Done);
        let sent: Vec<EffectId> = selling.acts.drain(..).map(|(effect, _)| effect).collect();
        assert_eq!(sent.len(), 4, "no order waits in the lane for its turn");
        answer(&mut selling, sent[0], ActOutcome::Sold { executed: dec("1"), received: dec("99") });
        assert!(matches!(next(&mut selling).1, Act::Sell { .. }), "the next one has its turn");
        assert_eq!(command(&mut selling, emergency, Totp::Absent), Answer::Done);
        answer(&mut selling, sent[1], ActOutcome::Sold { executed: dec("1"), received: dec("99") });
        answer(&mut selling, sent[2], ActOutcome::Unknown { reason: "timed out".into() });
        selling.wait_ms(130_000);
        let of = |acts: &str| selling.acts.iter().filter(|(_, act)| format!("{act:?}").starts_with(acts)).count();
        assert_eq!((of("Sell"), of("FindOrder") >= 3), (0, true), "{:?}", selling.acts);
        let lines = sale(&selling).lines;
        let stays = "stays: the account began to be contained before it was sent";
        assert_eq!(lines.iter().filter(|line| line.contains(stays)).count(), 1, "{lines:#?}");
        assert_eq!(lines.iter().filter(|line| line.contains("sold 1 of 1")).count(), 2, "{lines:#?}");
    }
}

/// A plan of so many assets, one of each.
fn plan_many(desk: &mut Desk, count: usize) -> Sale {
    command(desk, Command::PlanFlatten { to: Asset::new("USDT"), within: dec("0.01") }, Totp::Absent);
    let names: Vec<String> = (0..count).map(|number| format!("A{number:02}")).collect();
    let (effect, _) = next(desk);
    answer(desk, effect, ActOutcome::Balances(names.iter().map(|name| balance(name, "1", "0")).collect()));
    for name in names {
        let (effect, _) = next(desk);
        answer(desk, effect, ActOutcome::Quote(Box::new(quote(&name, "100", &[("100", "5")]))));
    }
    sale(desk)
}

/// The first four are sold as the others wait; all are sold in the end, whatever became of those before.
#[test]
fn a_sale_of_many_goes_on_as_its_orders_are_answered() {
    let sold = || ActOutcome::Sold { executed: dec("1"), received: dec("99") };
    let refused = || ActOutcome::Refused { code: -2010, reason: "no".into() };
    let lost = || ActOutcome::Unknown { reason: "timed out".into() };
    for outcomes in [[sold(), sold()], [sold(), refused()], [lost(), sold()], [lost(), lost()]] {
        let mut desk = desk();
        let shown = plan_many(&mut desk, 9);
        assert_eq!(command(&mut desk, Command::Flatten { plan: shown.plan }, Totp::Right { step: 2 }), Answer::Done);
        let (mut sells, mut acts) = (0, 0);
        while sale(&desk).stage == Stage::Selling {
            desk.acts.retain(|(_, act)| matches!(act, Act::Sell { .. } | Act::FindOrder { .. }));
            assert!(desk.acts.len() <= 9, "{outcomes:?}: {:?}", desk.acts);
            match desk.acts.pop_front() {
                Some((effect, act)) => {
                    sells += usize::from(matches!(act, Act::Sell { .. }));
                    answer(&mut desk, effect, outcomes[acts % 2].clone());
                    acts += 1;
                }
                None => desk.wait_ms(1_000),
            }
            assert!(acts < 100, "{outcomes:?}: {:#?}", sale(&desk));
        }
        assert_eq!(sells, 9, "{outcomes:?}");
    }
}

/// What another person is asked to approve stands as he reads it, for as long as he may approve it.
#[test]
fn no_plan_replaces_one_that_a_request_waits_on() {
    let ask = |desk: &mut Desk, within: &str| {
        say(desk, ALICE[0], Command::PlanFlatten { to: Asset::new("USDT"), within: dec(within) }, Totp::Absent)
    };
    let waits = "request 1 waits for another person's yes to the plan that stands";
    for (what, declined, after_s, expected) in [
        ("it waits", false, 31, Some(waits)),
        ("its two minutes are not over", false, 119, Some(waits)),
        ("its two minutes are over", false, 122, None),
        ("it was declined", true, 31, None),
    ] {
        let mut desk = Desk::open_with(fund);
        desk.acts.clear();
        let shown = plan(&mut desk, "0.5", market("60000", &[("60000", "0.3")]));
        let approve = requested(say(&mut desk, ALICE[0], Command::Flatten { plan: shown.plan }, right(1)));
        if declined {
            assert_eq!(say(&mut desk, BOB[0], Command::Decline { request: 1 }, Totp::Absent), Answer::Done);
        }
        desk.wait_ms(after_s * 1_000);
        for within in ["0.05", "0.01"] {
            let answer = ask(&mut desk, within);
            match expected {
                Some(why) => refused(answer, why),
                None if within == "0.05" => assert_eq!(answer, Answer::Done, "{what}"),
                None => refused(answer, "something is being sold already"),
            }
        }
        if expected.is_some() {
            assert_eq!(say(&mut desk, BOB[0], approve, right(1)), Answer::Done, "{what}");
        }
    }
}

#[test]
fn who_approves_a_sale_is_shown_what_is_sold() {
    let mut desk = Desk::open_with(fund);
    desk.wait_ms(1_000);
    desk.acts.clear();
    let shown = plan(&mut desk, "0.5", market("60000", &[("60000", "0.3")]));
    let flatten = |plan| Command::Flatten { plan };
    let other = shown.plan + Duration::from_secs(1);
    refused(say(&mut desk, ALICE[0], flatten(other), right(1)), "not the plan that waits");
    let approve = requested(say(&mut desk, ALICE[0], flatten(shown.plan), right(1)));
    let what = "(sell 0.3 of BTCUSDT at 59400 or more: 17820 USDT at least; approved after ";
    assert!(desk.announced[0].contains(what), "{:?}", desk.announced);
    let waits = desk.kernel.status().requests.remove(0).what;
    assert!(waits.contains(what), "{waits}");
    assert_eq!(say(&mut desk, BOB[0], approve, right(1)), Answer::Done);
    assert!(matches!(next(&mut desk).1, Act::Sell { .. }));
}

#[test]
fn an_order_whose_answer_was_lost_is_looked_for_and_never_sent_again() {
    let lost = || ActOutcome::Unknown { reason: "timed out".into() };
    let sold = || ActOutcome::Sold { executed: dec("0.3"), received: dec("17950") };
    for (what, restart, looks, expected) in [
        ("found at once", false, vec![sold()], "sold 0.3"),
        ("found later", false, vec![ActOutcome::NotFound, lost(), sold()], "sold 0.3"),
        ("found after a restart", true, vec![ActOutcome::NotFound, sold()], "sold 0.3"),
        ("never placed", false, vec![ActOutcome::NotFound; 4], "the exchange knows no such order"),
        ("never known", false, vec![lost(); 4], "NOT KNOWN"),
    ] {
        let mut desk = desk();
        let shown = plan(&mut desk, "0.5", market("60000", &[("60000", "0.3")]));
        assert_eq!(command(&mut desk, Command::Flatten { plan: shown.plan }, Totp::Right { step: 2 }), Answer::Done);
        let (effect, act) = next(&mut desk);
        let Act::Sell { id, .. } = act else { panic!("{act:?}") };
        if restart {
            desk.restart();
            desk.live(2);
            desk.acts.retain(|(_, act)| matches!(act, Act::Sell { .. } | Act::FindOrder { .. }));
        } else {
            answer(&mut desk, effect, lost());
        }
        for look in looks {
            desk.wait_ms(2_100);
            desk.acts.retain(|(_, act)| !matches!(act, Act::Probe { .. } | Act::ListKeys));
            let (effect, act) = next(&mut desk);
            assert_eq!(act, Act::FindOrder { symbol: Symbol::new("BTCUSDT"), id: id.clone() }, "{what}");
            answer(&mut desk, effect, look);
        }
        assert_eq!(sale(&desk).stage, Stage::Done, "{what}: {:#?}", sale(&desk));
        assert!(sale(&desk).lines[0].contains(expected), "{what}: {:?}", sale(&desk).lines);
        desk.wait_ms(60_000);
        assert!(!desk.acts.iter().any(|(_, act)| matches!(act, Act::Sell { .. })), "{what}");
    }
}

/// An act whose answer never comes: the order is asked about a minute later, and if that is not answered either, it ends
/// as not known.
#[test]
fn what_is_never_answered_is_asked_about_and_is_not_under_way_for_ever() {
    let mut desk = desk();
    let shown = plan(&mut desk, "0.5", market("60000", &[("60000", "0.3")]));
    assert_eq!(command(&mut desk, Command::Flatten { plan: shown.plan }, Totp::Right { step: 2 }), Answer::Done);
    let (sell, act) = next(&mut desk);
    let Act::Sell { id, .. } = act else { panic!("{act:?}") };
    desk.wait_ms(59_000);
    assert!(desk.acts.is_empty() && sale(&desk).stage == Stage::Selling);
    for look in 1..=4 {
        desk.wait_ms(62_000);
        let (_, act) = next(&mut desk);
        assert_eq!(act, Act::FindOrder { symbol: Symbol::new("BTCUSDT"), id: id.clone() }, "look {look}");
        assert!(desk.acts.is_empty() && sale(&desk).stage == Stage::Selling, "look {look}");
    }
    desk.wait_ms(62_000);
    assert_eq!(sale(&desk).stage, Stage::Done);
    assert!(sale(&desk).lines[0].contains("NOT KNOWN"), "{:?}", sale(&desk).lines);
    answer(&mut desk, sell, ActOutcome::Sold { executed: dec("0.3"), received: dec("17950") });
    assert!(desk.acts.is_empty() && sale(&desk).lines[0].contains("NOT KNOWN"), "its time is over");
}

#[test]
fn what_the_exchange_refuses_is_told_and_is_no_missing_order() {
    let mut desk = desk();
    let shown = plan(&mut desk, "0.5", market("60000", &[("60000", "0.3")]));
    assert_eq!(command(&mut desk, Command::Flatten { plan: shown.plan }, Totp::Right { step: 2 }), Answer::Done);
    let (effect, _) = next(&mut desk);
    answer(&mut desk, effect, ActOutcome::Refused { code: -2015, reason: "no permission".into() });
    assert_eq!(sale(&desk).lines, ["0.5 BTC stays: it was not taken: refused (-2015): no permission"]);
    assert!(!sale(&desk).is_whole());
    desk.wait_ms(25_000);
    check(&desk, "flatten ended");
    let lines = desk.incident("flatten").lines;
    assert!(lines.iter().any(|line| line.text.contains("0.5 BTC stays")), "{lines:#?}");
}

#[test]
fn one_command_sells_twenty_assets_at_the_most() {
    let mut desk = desk();
    let within = dec("0.01");
    command(&mut desk, Command::PlanFlatten { to: Asset::new("USDT"), within }, Totp::Absent);
    let (effect, _) = next(&mut desk);
    let names: Vec<String> = (0..25).map(|number| format!("A{number:02}")).collect();
    let rows = names.iter().map(|name| balance(name, "1", "0")).collect();
    answer(&mut desk, effect, ActOutcome::Balances(rows));
    assert_eq!(desk.acts.len(), 20);
    assert_eq!(sale(&desk).beyond, 5);
    assert!(sale(&desk).to_string().contains("5 more assets"));
    // What is not answered is not waited for for ever.
    desk.wait_ms(61_000);
    assert_eq!(sale(&desk).stage, Stage::Planned);
    assert!(sale(&desk).is_empty(), "nothing would be sold");
}
