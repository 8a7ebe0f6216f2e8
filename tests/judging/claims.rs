//! Claim windows: what they hold and what they never hold, how they end, and *not me*.

use std::time::Duration;

use countersign::kernel::act::Act;
use countersign::kernel::claim::Claim;
use countersign::kernel::command::{Command, Totp};
use countersign::kernel::declared::Declared;
use countersign::kernel::event::{Answer, Event, Issuer, ReadRequest, TagCheck, Ticket};
use countersign::kernel::incident::{IncidentId, IncidentState, Notice, Priority};
use countersign::kernel::money::Dec;
use countersign::kernel::order::{OrderStatus, OrderType, Side, Symbol};
use countersign::kernel::stopping::Mode;

use crate::desk::{Desk, Shown, check, dec};
use crate::stage::{Stage, may_stop};

fn manual(words: &str) -> Command {
    let words: Vec<&str> = words.split(' ').collect();
    let [symbols, sides, notional, orders, span] = words[..] else { panic!("five words: {words:?}") };
    let claim = Claim::parse(symbols, sides, notional, orders, span).expect("a test's claim is well formed");
    Command::Manual { claim }
}

fn command(desk: &mut Desk, command: Command, totp: Totp) -> Answer {
    said(desk, command, totp, "rebalancing by hand")
}

fn said(desk: &mut Desk, command: Command, totp: Totp, why: &str) -> Answer {
    let (ticket, by, why) = (Ticket(9), "owner".into(), Some(why.into()));
    desk.event(Event::Command { ticket, by, way: None, why, incident: None, command, totp });
    desk.answers.pop().expect("a command is answered")
}

#[track_caller]
fn refused(answer: Answer, part: &str) {
    assert!(matches!(&answer, Answer::Refused { reason } if reason.contains(part)), "{answer:?}, not {part}");
}

fn open(desk: &mut Desk, words: &str) {
    let step = u64::try_from(desk.now.millis() / 30_000).unwrap();
    assert_eq!(command(desk, manual(words), Totp::Right { step }), Answer::Done);
}

/// Ten seconds ago `BUY` of BTCUSDT was claimed, up to 1,200 USDT and 3 orders, for half an hour.
fn claimed() -> Desk {
    claimed_with(|_| {})
}

fn claimed_with(change: impl FnOnce(&mut Declared)) -> Desk {
    let mut desk = Desk::open_with(change);
    open(&mut desk, "BTCUSDT BUY 1200USDT 3 30m");
    desk.wait_ms(10_000);
    desk
}

fn hand(desk: &Desk, id: i64) -> Shown {
    desk.order(id, &format!("web_{id}"))
}

fn window(desk: &Desk) -> Notice {
    desk.incident("claim_window")
}

fn verdict_of(desk: &Desk, id: i64) -> String {
    let line = desk.sum_up().lines().find_map(|line| Some(line.strip_prefix(&format!("order {id}: "))?.to_owned()));
    line.unwrap_or_else(|| panic!("no order {id}"))
}

#[test]
fn an_order_that_fits_is_its_owners_and_is_told_at_once() {
    let mut desk = claimed();
    let told = desk.told.len();
    let order = hand(&desk, 2);
    desk.show(order.placed());
    check(&desk, "order 2: declared_manual\n claim_window orders=1 USDT=600");
    let [notice] = &desk.told[told..] else { panic!("told once: {:?}", &desk.told[told..]) };
    assert_eq!((notice.priority, notice.state), (Priority::Warning, IncidentState::Open));
    assert!(notice.lines[0].text.contains("Why: rebalancing by hand"), "{:?}", notice.lines);
    let line = &notice.lines[1].text;
    assert!(line.contains("id web_2") && line.contains("1 of 3 orders, 600 of 1200 USDT"), "{line}");
    // Its fill is no news of another kind, and whoever made it may end it.
    desk.show(order.traded("0.004"));
    desk.show(order.canceled("web_cancel"));
    desk.wait_ms(15_000);
    check(&desk, "order 2: declared_manual\n cancel 2: declared_manual\n claim_window orders=1 USDT=240");
    let status = desk.kernel.status();
    assert_eq!((status.orders.by_hand, status.orders.strangers), (1, 0));
    let claim = status.claim.expect("the window stands in the coverage statement");
    assert_eq!(
        (claim.orders_used, claim.notional.values().next().unwrap().used),
        (1, dec("600")),
        "nothing is given back"
    );
}

#[test]
fn what_does_not_fit_is_a_strangers() {
    type Make = fn(Shown, &Desk) -> Shown;
    let rows: [(&str, &str, Make); 13] = [
        ("another symbol", "foreign", |o, _| o.with(|o| o.symbol = Symbol::new("ETHUSDT"))),
        ("another side", "foreign", |o, _| o.with(|o| o.side = Side::Sell)),
        ("older than the window", "foreign", |o, d| o.with(|o| o.created_at = d.now - Duration::from_secs(11))),
        ("perhaps older than the window", "foreign", |o, d| {
            o.with(|o| o.created_at = d.now - Duration::from_millis(5_001))
        }),
        ("younger than its end", "foreign", |o, d| o.with(|o| o.created_at = d.now + Duration::from_secs(1_790))),
        ("too much money", "foreign", |o, _| o.with(|o| o.price = dec("120000.01"))),
        ("money that is not known", "foreign", |o, _| {
            o.with(|o| (o.order_type, o.price) = (OrderType::Market, Dec::ZERO))
        }),
        ("a forged tag", "forged", |o, _| o.with(|o| o.tag = TagCheck::Forged)),
        ("our tag, never issued", "unissued", |o, _| o.tagged(Issuer::Daemon)),
        ("the bot's tag, never announced", "unlogged", |o, _| o.tagged(Issuer::Bot)),
        ("the id of another order", "replayed", |o, _| {
            o.with(|o| o.client_id = countersign::kernel::order::ClientId::new("first"))
        }),
        ("exactly the money", "declared_manual", |o, _| o.with(|o| o.price = dec("120000"))),
        ("as young as may be", "declared_manual", |o, d| {
            o.with(|o| o.created_at = d.now - Duration::from_millis(5_000))
        }),
    ];
    for (name, verdict, make) in rows {
        let mut desk = claimed();
        let order = make(hand(&desk, 2), &desk);
        desk.show(order.placed());
        desk.wait_ms(15_000);
        assert_eq!(verdict_of(&desk, 2), verdict, "{name}");
        assert_eq!(desk.kernel.status().orders.strangers, usize::from(verdict != "declared_manual"), "{name}");
    }
}

#[test]
fn a_market_order_is_taken_once_its_money_is_known() {
    let mut desk = claimed();
    let by_total = hand(&desk, 2).with(|order| {
        (order.order_type, order.price, order.quote_quantity) = (OrderType::Market, Dec::ZERO, dec("500"))
    });
    desk.show(by_total.placed());
    assert_eq!(verdict_of(&desk, 2), "declared_manual");
    let by_amount = hand(&desk, 3).with(|order| order.order_type = OrderType::Market);
    desk.show(by_amount.placed());
    assert_eq!(verdict_of(&desk, 3), "pending");
    desk.show(by_amount.filled());
    assert_eq!(verdict_of(&desk, 3), "declared_manual");
}

#[test]
fn money_and_count_are_used_up() {
    let mut desk = claimed();
    for id in [2, 3, 4] {
        let order = hand(&desk, id);
        desk.show(order.placed());
    }
    desk.wait_ms(15_000);
    assert_eq!([2, 3, 4].map(|id| verdict_of(&desk, id)), ["declared_manual", "declared_manual", "foreign"]);
    let mut desk = claimed();
    for id in [2, 3, 4, 5] {
        let order = hand(&desk, id).with(|order| order.price = dec("1000"));
        desk.show(order.placed());
    }
    desk.wait_ms(15_000);
    assert_eq!([4, 5].map(|id| verdict_of(&desk, id)), ["declared_manual", "foreign"]);
}

/// A sale below the market trades more than its price says.
#[test]
fn an_order_that_trades_more_than_is_left_is_a_strangers_after_all() {
    let mut desk = Desk::open();
    open(&mut desk, "BTCUSDT SELL 1200USDT 3 30m");
    desk.wait_ms(10_000);
    let cheap = hand(&desk, 2).with(|order| (order.side, order.price) = (Side::Sell, dec("12000")));
    desk.show(cheap.placed());
    assert_eq!(verdict_of(&desk, 2), "declared_manual");
    let half = cheap.clone().with(|order| (order.price, order.quantity) = (dec("100000"), dec("0.012")));
    desk.show(half.traded("0.012"));
    assert_eq!(verdict_of(&desk, 2), "declared_manual", "1200 USDT is what was named");
    let more = cheap.with(|order| (order.price, order.quantity) = (dec("100000"), dec("0.0121")));
    desk.show(more.filled());
    check(&desk, "order 2: foreign\n claim_window orders=1 USDT=1210\n foreign_order orders=1 USDT=1210");
    let told = desk.incident("foreign_order");
    assert!(told.lines[0].text.contains("its claim window does not hold it"), "{:?}", told.lines);
}

#[test]
fn nothing_of_the_past_and_nothing_after_the_end() {
    let mut desk = Desk::open();
    let waiting = hand(&desk, 2);
    desk.show(waiting.placed());
    // By a clock of the exchange's that runs far ahead of ours.
    let ahead = hand(&desk, 4).with(|order| order.created_at = desk.now + Duration::from_secs(20));
    desk.show(ahead.placed());
    open(&mut desk, "BTCUSDT BUY 1200USDT 3 1m");
    desk.wait_ms(15_000);
    assert_eq!(verdict_of(&desk, 4), "foreign", "it was seen before the window was opened");
    assert_eq!(verdict_of(&desk, 2), "foreign", "it waited when the window was opened");
    desk.wait_ms(45_000);
    assert_eq!(window(&desk).state, IncidentState::Ended);
    let last = window(&desk).lines.last().unwrap().text.clone();
    assert!(last.contains("its time has passed") && last.contains("0 of 3 orders, 0 of 1200 USDT"), "{last}");
    let late = hand(&desk, 3).with(|order| order.created_at = desk.now - Duration::from_secs(1));
    desk.show(late.placed());
    desk.wait_ms(15_000);
    assert_eq!(verdict_of(&desk, 3), "foreign");
}

#[test]
fn the_end_of_somebody_elses_order_is_never_covered() {
    let mut desk = claimed();
    let bots = desk.order(2, "bots");
    desk.say(bots.place());
    desk.show(bots.placed());
    desk.show(bots.canceled("web_cancel"));
    let amended = desk.order(3, "amended");
    desk.say(amended.place());
    desk.show(amended.placed());
    desk.show(amended.replaced("0.005", "web_amend"));
    let stop = hand(&desk, 4).with(|order| order.order_type = OrderType::StopLossLimit);
    desk.show(stop.placed());
    desk.show(stop.canceled("web_cancel_2"));
    desk.wait_ms(15_000);
    let found = desk.sum_up();
    for line in ["order 4: declared_manual", "cancel 2: foreign", "amendment 3: foreign", "cancel 4: foreign"] {
        assert!(found.contains(line), "no {line} in\n{found}");
    }
}

#[test]
fn the_bots_word_goes_before_its_owners() {
    let mut desk = claimed();
    let order = hand(&desk, 2);
    let said = desk.write(order.place());
    desk.show(order.placed());
    assert_eq!(verdict_of(&desk, 2), "declared_manual");
    desk.wait_ms(5);
    desk.deliver(said);
    check(&desk, "order 2: matched B-late\n claim_window");
    assert_eq!(desk.kernel.status().claim.unwrap().orders_used, 0, "it is the bot's, and uses nothing");
    let other = hand(&desk, 3);
    let said = desk.write(other.clone().with(|order| order.price = dec("59000")).place());
    desk.show(other.placed());
    desk.deliver(said);
    assert_eq!(verdict_of(&desk, 3), "divergent", "a window clears nothing that the bot announced differently");
    let late = hand(&desk, 4);
    desk.show(late.placed());
    desk.pass();
    assert_eq!(verdict_of(&desk, 4), "declared_manual");
    desk.say(late.place());
    assert_eq!(
        verdict_of(&desk, 4),
        "foreign",
        "a word after the fact clears nothing, and two people say it is theirs"
    );
}

#[test]
fn a_window_is_opened_with_a_password_that_counts_once() {
    let mut desk = Desk::open();
    let manual = || manual("BTCUSDT BUY 1200USDT 3 30m");
    refused(command(&mut desk, manual(), Totp::Absent), "needs a one-time password");
    refused(command(&mut desk, manual(), Totp::Wrong), "is wrong");
    refused(command(&mut desk, manual(), Totp::NotSetUp), "no one-time passwords are set up");
    assert!(desk.kernel.notices().is_empty() && desk.kernel.status().claim.is_none());
    assert_eq!(command(&mut desk, manual(), Totp::Right { step: 7 }), Answer::Done);
    refused(command(&mut desk, manual(), Totp::Right { step: 8 }), "is open until");
    assert_eq!(command(&mut desk, Command::EndManual, Totp::Absent), Answer::Done);
    refused(command(&mut desk, Command::EndManual, Totp::Absent), "no claim window is open");
    refused(command(&mut desk, manual(), Totp::Right { step: 7 }), "used already");
    assert_eq!(command(&mut desk, manual(), Totp::Right { step: 8 }), Answer::Done, "a refused one uses no password");
}

#[test]
fn a_window_that_says_too_little_is_refused() {
    let mut desk = Desk::open();
    let Command::Manual { claim } = manual("BTCUSDT BUY 1200USDT 3 30m") else { unreachable!() };
    let right = Totp::Right { step: 7 };
    let changed = |change: &dyn Fn(&mut Claim)| {
        let mut claim = claim.clone();
        change(&mut claim);
        Command::Manual { claim }
    };
    refused(said(&mut desk, changed(&|_| {}), right, " "), "say why");
    refused(command(&mut desk, changed(&|claim| claim.symbols.clear()), right), "1 to 10 symbols");
    refused(command(&mut desk, changed(&|claim| claim.symbols.push(Symbol::new("ETHBTC"))), right), "in BTC");
    let euro = (countersign::kernel::order::Asset::new("EUR"), dec("5"));
    let two = |claim: &mut Claim| claim.notional.extend([euro.clone()]);
    refused(command(&mut desk, changed(&two), right), "no symbol of it is counted in EUR");
    refused(command(&mut desk, changed(&|claim| claim.minutes = 241), right), "4 hours");
    refused(command(&mut desk, changed(&|claim| claim.orders = 51), right), "1 to 50 orders");
}

#[test]
fn not_me_makes_every_order_of_the_window_a_strangers() {
    for named in [false, true] {
        let mut desk = claimed();
        for id in [2, 3] {
            let order = hand(&desk, id);
            desk.show(order.placed());
        }
        let cancelled = hand(&desk, 3);
        desk.show(cancelled.canceled("web_cancel"));
        // The bot has passed them, so nothing is left to wait for.
        desk.pass();
        let id = window(&desk).incident;
        let window_id = named.then_some(id);
        refused(command(&mut desk, Command::NotMe { window: Some(IncidentId(1)) }, Totp::Absent), "no claim window");
        assert_eq!(command(&mut desk, Command::NotMe { window: window_id }, Totp::Absent), Answer::Done);
        assert_eq!([2, 3].map(|id| verdict_of(&desk, id)), ["foreign", "foreign"]);
        assert!(desk.sum_up().contains("cancel 3: foreign"), "{}", desk.sum_up());
        assert_eq!(window(&desk).state, IncidentState::Ended);
        let told = desk.incident("foreign_order");
        assert_eq!((told.priority, told.orders), (Priority::Critical, 2));
        assert!(told.certainty.starts_with("You said so"), "{}", told.certainty);
        assert_eq!(desk.incident("not_me").priority, Priority::Critical);
        refused(command(&mut desk, Command::NotMe { window: window_id }, Totp::Absent), "said already");
        let next = hand(&desk, 4);
        desk.show(next.placed());
        desk.wait_ms(15_000);
        assert_eq!(verdict_of(&desk, 4), "foreign", "the window is over");
    }
}

#[test]
fn not_me_holds_long_after_the_window_and_other_windows() {
    let mut desk = claimed();
    let order = hand(&desk, 2);
    desk.show(order.placed());
    let first = window(&desk).incident;
    for _ in 0..20 {
        command(&mut desk, Command::EndManual, Totp::Absent);
        desk.wait_ms(60_000);
        open(&mut desk, "BTCUSDT BUY 1200USDT 3 30m");
    }
    assert_eq!(verdict_of(&desk, 2), "declared_manual", "its window is forgotten, its claim is not");
    desk.restart();
    assert_eq!(command(&mut desk, Command::NotMe { window: Some(first) }, Totp::Absent), Answer::Done);
    assert_eq!(verdict_of(&desk, 2), "foreign");
    assert!(desk.kernel.status().claim.is_some(), "another window is not meant");
    refused(command(&mut desk, Command::NotMe { window: Some(first) }, Totp::Absent), "no claim window with orders");
}

#[test]
fn a_restart_gives_nothing_back_and_ends_nothing() {
    let mut desk = claimed();
    let order = hand(&desk, 2);
    desk.show(order.placed());
    desk.restart();
    desk.live(7);
    desk.show_on(7, order.filled());
    for id in [3, 4] {
        let order = hand(&desk, id);
        desk.show_on(7, order.placed());
    }
    desk.wait_ms(15_000);
    assert_eq!([2, 3, 4].map(|id| verdict_of(&desk, id)), ["declared_manual", "declared_manual", "foreign"]);
    desk.restart();
    desk.wait_ms(1_800_000);
    assert_eq!(window(&desk).state, IncidentState::Ended);
    assert!(window(&desk).lines.last().unwrap().text.contains("2 of 3 orders, 1200 of 1200 USDT"));
}

#[test]
fn a_kill_ends_the_window_and_spares_its_orders_until_they_are_disowned() {
    let mut desk = claimed_with(may_stop);
    let order = hand(&desk, 2);
    desk.show(order.placed());
    desk.acts.clear();
    assert_eq!(command(&mut desk, Command::Kill, Totp::Absent), Answer::Done);
    assert_eq!(window(&desk).state, IncidentState::Ended);
    assert!(desk.kernel.status().claim.is_none());
    let again = manual("BTCUSDT BUY 1200USDT 3 30m");
    refused(command(&mut desk, again, Totp::Right { step: u64::MAX }), "being contained");
    let next = hand(&desk, 3);
    desk.show(next.placed());
    desk.wait_ms(15_000);
    let cancels = |desk: &Desk| {
        let mut ids: Vec<i64> = desk
            .acts
            .iter()
            .filter_map(|(_, act)| match act {
                Act::CancelOrder { order_id, .. } => Some(order_id.0),
                _ => None,
            })
            .collect();
        ids.dedup();
        ids
    };
    assert_eq!((verdict_of(&desk, 3).as_str(), cancels(&desk)), ("foreign", vec![3]));
    assert_eq!(command(&mut desk, Command::NotMe { window: None }, Totp::Absent), Answer::Done);
    desk.wait_ms(1_000);
    assert_eq!(cancels(&desk), [3, 2]);
}

/// The owner's word is as good as a thief's first order: what mode *act* does of a stranger's order it does of these.
#[test]
fn disowned_orders_may_be_acted_on_as_a_strangers() {
    let mut desk = Desk::open_with(|declared| {
        may_stop(declared);
        declared.stopping.as_mut().unwrap().mode = Mode::Act;
    });
    desk.wait_ms(86_400_000);
    open(&mut desk, "BTCUSDT BUY 1200USDT 3 30m");
    desk.wait_ms(10_000);
    let order = hand(&desk, 2);
    desk.show(order.placed());
    desk.pass();
    desk.reads.clear();
    desk.acts.clear();
    assert_eq!(command(&mut desk, Command::NotMe { window: None }, Totp::Absent), Answer::Done);
    assert!(matches!(desk.reads[0].1, ReadRequest::Order { .. }), "{:?}", desk.reads);
    desk.answer(order.found(OrderStatus::New));
    assert!(desk.acts.iter().any(|(_, act)| matches!(act, Act::OpenOrders)), "{:?}", desk.acts);
}

/// A stranger's order takes the word *contained* back, and then the window is the thief's chance as in any kill.
#[test]
fn a_kill_that_goes_on_again_ends_the_window_too() {
    let mut stage = Stage::with(may_stop);
    assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
    stage.run(10_000);
    assert_eq!(stage.word(), "contained");
    assert_eq!(stage.command(manual("ETHUSDT BUY 1200USDT 3 30m"), Totp::Right { step: 7 }), Answer::Done);
    assert!(stage.desk.kernel.status().claim.is_some());
    let again = stage.desk.order(9, "again");
    stage.desk.show(again.placed());
    stage.desk.pass();
    assert_eq!(stage.word(), "not contained");
    assert!(stage.desk.kernel.status().claim.is_none());
}
