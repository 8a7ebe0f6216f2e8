//! The engine at its lowest wall: forms in, events out, and the money counted after every step.

mod keys;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::kernel::time::Time;
use crate::sim::amount::Amount;
use crate::sim::engine::Engine;
use crate::sim::market::{SYMBOLS, symbol_index};
use crate::sim::order::{Actor, MARKET_MAKER, Uid};
use crate::sim::params::Params;
use crate::sim::refusal::Refusal;
use crate::sim::trading;

const ALICE: Uid = 7;
const BOB: Uid = 8;

/// An engine with two accounts; its market maker quotes BTCUSDT at 59999.50 and 60000.50.
struct Venue {
    engine: Engine,
    now: Time,
}

fn amount(text: &str) -> Amount {
    text.parse().unwrap()
}

fn actor(uid: Uid) -> Arc<Actor> {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Arc::new(Actor { uid, key: "bot".into(), address, agent: "test".into() })
}

impl Venue {
    fn new() -> Self {
        let now = Time::from_millis(1_764_000_000_000);
        let mut engine = Engine::new(now, 1);
        for (uid, name) in [(ALICE, "alice"), (BOB, "bob")] {
            engine.open_account(
                uid,
                name,
                &[("BTC", amount("10")), ("USDT", amount("500000")), ("VIA", amount("10000"))],
            );
        }
        Self { engine, now }
    }

    fn place(&mut self, uid: Uid, form: &str) -> Result<Value, Refusal> {
        let params = Params::from_forms(&format!("symbol=BTCUSDT&{form}"), "");
        trading::place(&mut self.engine, self.now, &actor(uid), &params)
    }

    fn limit(&mut self, uid: Uid, side: &str, quantity: &str, price: &str, more: &str) -> Result<Value, Refusal> {
        self.place(uid, &format!("side={side}&type=LIMIT&timeInForce=GTC&quantity={quantity}&price={price}{more}"))
    }

    /// Events since the last look, each as (account, event).
    fn events(&mut self) -> Vec<(Uid, Value)> {
        let events = self.engine.take_events().into_iter();
        events.map(|event| (event.uid, serde_json::from_str(&event.body).unwrap())).collect()
    }

    /// The reports of one account since the last look, reduced to some fields.
    fn reports(&mut self, uid: Uid, fields: &[&str]) -> Vec<Value> {
        let events =
            self.events().into_iter().filter(|(owner, event)| *owner == uid && event["e"] == "executionReport");
        events.map(|(_, event)| fields.iter().map(|field| event[*field].clone()).collect()).collect()
    }

    fn set_price(&mut self, price: &str) {
        self.engine.set_price(self.now, 0, amount(price));
    }
}

#[test]
fn reports_as_the_venue_spells_it() {
    let mut venue = Venue::new();
    venue.limit(ALICE, "BUY", "0.1", "50000", "&newClientOrderId=a-1").unwrap();
    let events = venue.engine.take_events();
    let at = venue.now.millis();
    let order = serde_json::from_str::<Value>(&events[0].body).unwrap();
    let (i, execution) = (&order["i"], &order["I"]);
    // Fields and their order as in the venue's own recorded frames.
    let expected = format!(
        r#"{{"e":"executionReport","E":{at},"s":"BTCUSDT","c":"a-1","S":"BUY","o":"LIMIT","f":"GTC","q":"0.10000000","p":"50000.00000000","P":"0.00000000","F":"0.00000000","g":-1,"C":"","x":"NEW","X":"NEW","r":"NONE","i":{i},"l":"0.00000000","z":"0.00000000","L":"0.00000000","n":"0","N":null,"T":{at},"t":-1,"I":{execution},"w":true,"m":false,"M":false,"O":{at},"Z":"0.00000000","Y":"0.00000000","Q":"0.00000000","W":{at},"V":"NONE"}}"#
    );
    assert_eq!(events[0].body, expected);
    assert_eq!(
        events[1].body,
        format!(
            r#"{{"e":"outboundAccountPosition","E":{at},"u":{at},"B":[{{"a":"USDT","f":"495000.00000000","l":"5000.00000000"}}]}}"#
        )
    );
    assert_eq!(events.len(), 2);
}

#[test]
fn matches_by_price_then_time_and_takes_commission() {
    let mut venue = Venue::new();
    venue.limit(ALICE, "SELL", "1", "60000.20", "&newClientOrderId=late-price").unwrap();
    venue.limit(ALICE, "SELL", "1", "60000.10", "&newClientOrderId=first").unwrap();
    venue.limit(ALICE, "SELL", "1", "60000.10", "&newClientOrderId=second").unwrap();
    venue.events();
    let answer = venue.limit(BOB, "BUY", "1.5", "60000.20", "").unwrap();
    assert_eq!((&answer["status"], answer["fills"].as_array().unwrap().len()), (&json!("FILLED"), 2));
    assert_eq!(
        venue.reports(ALICE, &["c", "x", "X", "l", "z", "L", "m", "n", "N"]),
        [
            json!([
                "first",
                "TRADE",
                "FILLED",
                "1.00000000",
                "1.00000000",
                "60000.10000000",
                true,
                "60.00010000",
                "USDT"
            ]),
            json!([
                "second",
                "TRADE",
                "PARTIALLY_FILLED",
                "0.50000000",
                "0.50000000",
                "60000.10000000",
                true,
                "30.00005000",
                "USDT"
            ]),
        ]
    );
    // Bob paid 60000.10, not his limit, and got a thousandth less than he bought.
    let bob = venue.engine.account(BOB).unwrap();
    assert_eq!(bob.balance("USDT").free, amount("500000") - amount("90000.15"));
    assert_eq!((bob.balance("USDT").locked, bob.balance("BTC").free), (Amount::ZERO, amount("11.4985")));
}

#[test]
fn a_stop_order_is_new_twice() {
    let mut venue = Venue::new();
    let form =
        "side=SELL&type=STOP_LOSS_LIMIT&timeInForce=GTC&quantity=1&price=58000&stopPrice=59000&newClientOrderId=s";
    let answer = venue.place(ALICE, form).unwrap();
    let first = venue.reports(ALICE, &["c", "x", "X", "w", "W", "i", "P"]);
    assert_eq!(first, [json!(["s", "NEW", "NEW", false, null, answer["orderId"], "59000.00000000"])]);
    venue.set_price("59000");
    let then = venue.reports(ALICE, &["x", "X", "w", "W", "i"]);
    assert_eq!(then[0], json!(["NEW", "NEW", true, venue.now.millis(), answer["orderId"]]));
    assert_eq!(then.last().unwrap()[1], "FILLED");
}

#[test]
fn what_does_not_fill_expires_with_its_reason() {
    for (form, last_report) in [
        (
            "type=LIMIT&timeInForce=IOC&quantity=1&price=59000",
            json!(["EXPIRED", "EXPIRED", "0.00000000", "UNFILLED_IOC_QUANTITY_EXPIRED"]),
        ),
        (
            "type=LIMIT&timeInForce=FOK&quantity=9&price=60000.5",
            json!(["EXPIRED", "EXPIRED", "0.00000000", "UNFILLED_FOK_ORDER_EXPIRED"]),
        ),
        ("type=MARKET&quantity=9", json!(["EXPIRED", "EXPIRED", null, "INSUFFICIENT_LIQUIDITY"])),
    ] {
        let mut venue = Venue::new();
        venue.engine.deposit(venue.now, &actor(ALICE), "USDT", amount("1000000")).unwrap();
        venue.place(ALICE, &format!("side=BUY&{form}")).unwrap();
        let mut last = venue.reports(ALICE, &["x", "X", "z", "eR"]).pop().unwrap();
        if last_report[2].is_null() {
            assert_ne!(last[2], "0.00000000", "a market order trades what there is");
            last[2] = Value::Null;
        }
        assert_eq!(last, last_report, "{form}");
    }
}

#[test]
fn a_cancel_has_an_id_of_its_own() {
    let mut venue = Venue::new();
    venue.limit(ALICE, "BUY", "0.1", "50000", "&newClientOrderId=one").unwrap();
    venue.events();
    let params = Params::from_forms("symbol=BTCUSDT&origClientOrderId=one&newClientOrderId=cancel-1", "");
    let answer = trading::cancel(&mut venue.engine, venue.now, &actor(ALICE), &params).unwrap();
    assert_eq!((&answer["origClientOrderId"], &answer["clientOrderId"]), (&json!("one"), &json!("cancel-1")));
    assert_eq!(venue.reports(ALICE, &["x", "c", "C", "X"]), [json!(["CANCELED", "cancel-1", "one", "CANCELED"])]);
    let again = trading::cancel(&mut venue.engine, venue.now, &actor(ALICE), &params).unwrap_err();
    assert_eq!(again.code, -2011);

    // The id may be used again once the order is closed; two at once may not have it.
    venue.limit(ALICE, "BUY", "0.1", "50000", "&newClientOrderId=one").unwrap();
    assert_eq!(venue.limit(ALICE, "BUY", "0.1", "50000", "&newClientOrderId=one").unwrap_err().code, -2010);
    venue.limit(ALICE, "BUY", "0.1", "50000", "&newClientOrderId=two").unwrap();
    venue.events();
    let all = Params::from_forms("symbol=BTCUSDT", "");
    trading::cancel_all(&mut venue.engine, venue.now, &actor(ALICE), &all).unwrap();
    let ended = venue.reports(ALICE, &["C", "c"]);
    assert_eq!((ended.len(), &ended[0][1]), (2, &ended[1][1]));
    assert_eq!(venue.engine.account(ALICE).unwrap().balance("USDT").locked, Amount::ZERO);
}

#[test]
fn refuses_with_the_venues_codes() {
    let limit = "side=BUY&type=LIMIT&timeInForce=GTC";
    for (form, code, words) in [
        (format!("{limit}&quantity=0.1"), -1102, "price"),
        ("side=BUY&type=LIMIT&quantity=0.1&price=50000".to_owned(), -1102, "timeInForce"),
        (format!("{limit}&quantity=0.1&price=50000.001"), -1013, "PRICE_FILTER"),
        (format!("{limit}&quantity=0.000001&price=50000"), -1013, "LOT_SIZE"),
        (format!("{limit}&quantity=0.00001&price=50000"), -1013, "NOTIONAL"),
        (format!("{limit}&quantity=0.1&price=900000"), -1013, "PERCENT_PRICE_BY_SIDE"),
        (format!("{limit}&quantity=0.1&price=5e4"), -1100, "price"),
        (format!("{limit}&quantity=0.1&price=0.000000001"), -1111, "precision"),
        (format!("{limit}&quantity=11&price=50000"), -2010, "insufficient balance"),
        (format!("{limit}&quantity=0.1&price=50000&newClientOrderId=a b"), -1100, "newClientOrderId"),
        (format!("{limit}&quantity=0.1&price=50000&trailingDelta=10"), -2010, "Trailing"),
        ("side=BUY&type=LIMIT_MAKER&quantity=0.1&price=61000".to_owned(), -2010, "immediately match"),
        ("side=BUY&type=STOP_LOSS&quantity=0.1&stopPrice=59000".to_owned(), -2010, "trigger immediately"),
        ("side=BUY&type=MARKET&quantity=0.1&timeInForce=GTC".to_owned(), -1106, "timeInForce"),
        ("side=BUY&type=MARKET".to_owned(), -1102, "quantity"),
        ("side=UP&type=MARKET&quantity=1".to_owned(), -1117, "side"),
        ("side=BUY&type=BEST&quantity=1".to_owned(), -1116, "orderType"),
    ] {
        let mut venue = Venue::new();
        let refusal = venue.place(ALICE, &form).unwrap_err();
        assert_eq!(refusal.code, code, "{form}: {refusal:?}");
        assert!(refusal.message.contains(words), "{form}: {refusal:?}");
        assert!(venue.events().is_empty(), "{form}");
    }
}

#[test]
fn a_quote_sized_market_order_spends_at_most_that() {
    let mut venue = Venue::new();
    let answer = venue.place(ALICE, "side=BUY&type=MARKET&quoteOrderQty=1000").unwrap();
    let spent = amount(answer["cummulativeQuoteQty"].as_str().unwrap());
    assert!(answer["status"] == "FILLED" && spent <= amount("1000") && spent > amount("999"), "{answer}");
    let reports = venue.reports(ALICE, &["x", "Q", "p", "f"]);
    assert_eq!(reports[0], json!(["NEW", "1000.00000000", "0.00000000", "GTC"]));
}

#[test]
fn an_amendment_keeps_its_place_and_changes_its_id() {
    let mut venue = Venue::new();
    venue.limit(ALICE, "SELL", "2", "60000.10", "&newClientOrderId=early").unwrap();
    venue.limit(BOB, "SELL", "1", "60000.10", "&newClientOrderId=late").unwrap();
    venue.events();
    let params = Params::from_forms("symbol=BTCUSDT&origClientOrderId=early&newQty=1&newClientOrderId=less", "");
    trading::amend(&mut venue.engine, venue.now, &actor(ALICE), &params).unwrap();
    assert_eq!(
        venue.reports(ALICE, &["x", "c", "C", "q", "X"]),
        [json!(["REPLACED", "less", "early", "1.00000000", "NEW"])]
    );
    assert_eq!(venue.engine.account(ALICE).unwrap().balance("BTC").locked, amount("1"));
    venue.limit(BOB, "BUY", "1", "60000.10", "").unwrap();
    assert_eq!(venue.reports(ALICE, &["c", "X"]), [json!(["less", "FILLED"])]);
    let more = Params::from_forms("symbol=BTCUSDT&origClientOrderId=late&newQty=5", "");
    assert_eq!(trading::amend(&mut venue.engine, venue.now, &actor(BOB), &more).unwrap_err().code, -2038);
}

#[test]
fn a_cancel_replace_says_which_half_failed() {
    let new = "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTC&price=50000&newClientOrderId=new";
    for (target, mode, quantity, status, code, stream) in [
        ("old", "STOP_ON_FAILURE", "0.1", 200, 0, vec![json!(["CANCELED", "old"]), json!(["NEW", ""])]),
        ("old", "STOP_ON_FAILURE", "99", 409, -2021, vec![json!(["CANCELED", "old"]), json!(["REJECTED", ""])]),
        ("none", "STOP_ON_FAILURE", "0.1", 400, -2022, vec![]),
        ("none", "ALLOW_FAILURE", "0.1", 409, -2021, vec![json!(["NEW", ""])]),
        ("none", "ALLOW_FAILURE", "99", 400, -2022, vec![]),
    ] {
        let mut venue = Venue::new();
        venue.limit(ALICE, "BUY", "0.1", "50000", "&newClientOrderId=old").unwrap();
        venue.events();
        let form = format!("{new}&quantity={quantity}&cancelReplaceMode={mode}&cancelOrigClientOrderId={target}");
        let params = Params::from_forms(&form, "");
        let result = trading::cancel_replace(&mut venue.engine, venue.now, &actor(ALICE), &params);
        let (got_status, got_code) = result.map_or_else(|refusal| (refusal.status, refusal.code), |_| (200, 0));
        assert_eq!((got_status, got_code), (status, code), "{form}");
        assert_eq!(venue.reports(ALICE, &["x", "C"]), stream, "{form}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Limit { bob: bool, buy: bool, ticks: i64, steps: i64, force: usize },
    Market { bob: bool, buy: bool, steps: i64, by_quote: bool },
    Stop { bob: bool, buy: bool, ticks: i64, steps: i64, with_price: bool },
    CancelAll { bob: bool },
    Amend { bob: bool, steps: i64 },
    Price { ticks: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (ticks, steps) = (-400_i64..400, 10_i64..300_000);
    prop_oneof![
        4 => (any::<bool>(), any::<bool>(), ticks.clone(), steps.clone(), 0..3_usize)
            .prop_map(|(bob, buy, ticks, steps, force)| Step::Limit { bob, buy, ticks, steps, force }),
        2 => (any::<bool>(), any::<bool>(), steps.clone(), any::<bool>())
            .prop_map(|(bob, buy, steps, by_quote)| Step::Market { bob, buy, steps, by_quote }),
        2 => (any::<bool>(), any::<bool>(), ticks.clone(), steps.clone(), any::<bool>())
            .prop_map(|(bob, buy, ticks, steps, with_price)| Step::Stop { bob, buy, ticks, steps, with_price }),
        1 => any::<bool>().prop_map(|bob| Step::CancelAll { bob }),
        1 => (any::<bool>(), steps).prop_map(|(bob, steps)| Step::Amend { bob, steps }),
        2 => ticks.prop_map(|ticks| Step::Price { ticks }),
    ]
}

impl Venue {
    /// Refusals are part of the game: only the money counts.
    fn take_step(&mut self, step: &Step) {
        let uid = |bob: &bool| if *bob { BOB } else { ALICE };
        let side = |buy: &bool| if *buy { "BUY" } else { "SELL" };
        let price = |ticks: &i64| Amount::whole(60_000) + Amount::from_atoms(ticks * 1_000_000);
        let quantity = |steps: &i64| Amount::from_atoms(steps * 1_000);
        match step {
            Step::Limit { bob, buy, ticks, steps, force } => {
                let (force, price) = (["GTC", "IOC", "FOK"][*force], price(ticks));
                let form = format!(
                    "side={}&type=LIMIT&timeInForce={force}&quantity={}&price={price}",
                    side(buy),
                    quantity(steps)
                );
                drop(self.place(uid(bob), &form));
            }
            Step::Market { bob, buy, steps, by_quote } => {
                let size =
                    if *by_quote { format!("quoteOrderQty={steps}") } else { format!("quantity={}", quantity(steps)) };
                drop(self.place(uid(bob), &format!("side={}&type=MARKET&{size}", side(buy))));
            }
            Step::Stop { bob, buy, ticks, steps, with_price } => {
                let (stop, quantity) = (price(ticks), quantity(steps));
                let rest = if *with_price { format!("_LIMIT&timeInForce=GTC&price={stop}") } else { String::new() };
                let form = format!("side={}&type=STOP_LOSS{rest}&quantity={quantity}&stopPrice={stop}", side(buy));
                drop(self.place(uid(bob), &form));
            }
            Step::CancelAll { bob } => drop(self.engine.cancel_all(self.now, &actor(uid(bob)), 0)),
            Step::Amend { bob, steps } => {
                let first = self.engine.open_orders(uid(bob)).next().map(|order| order.id);
                let form = format!("symbol=BTCUSDT&orderId={}&newQty={}", first.unwrap_or(0), quantity(steps));
                drop(trading::amend(&mut self.engine, self.now, &actor(uid(bob)), &Params::from_forms(&form, "")));
            }
            Step::Price { ticks } => self.engine.set_price(self.now, 0, price(ticks)),
        }
    }

    fn sums(&self) -> BTreeMap<&'static str, Amount> {
        let mut sums = BTreeMap::new();
        for account in self.engine.accounts.values() {
            for (asset, held) in &account.balances {
                *sums.entry(*asset).or_insert(Amount::ZERO) += held.free + held.locked;
            }
        }
        sums.retain(|_, sum| !sum.is_zero());
        sums
    }

    /// No money made or lost, none free below zero, and exactly what open orders need set aside.
    fn check_money(&self, sums: &BTreeMap<&'static str, Amount>) {
        assert_eq!(self.sums(), *sums);
        for account in self.engine.accounts().filter(|account| account.uid != MARKET_MAKER) {
            let mut locked: BTreeMap<&str, Amount> = BTreeMap::new();
            for order in self.engine.open_orders(account.uid) {
                *locked.entry(order.paying_asset()).or_default() += order.locked;
            }
            for (asset, held) in &account.balances {
                assert!(held.free >= Amount::ZERO, "{asset} of {} is {held:?}", account.name);
                assert_eq!(held.locked, locked.get(asset).copied().unwrap_or_default(), "{asset} of {}", account.name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn money_is_conserved(steps in prop::collection::vec(step(), 1..60)) {
        let mut venue = Venue::new();
        let sums = venue.sums();
        let mut executed: BTreeMap<i64, Amount> = BTreeMap::new();
        for step in &steps {
            venue.take_step(step);
            venue.check_money(&sums);
            for (_, event) in venue.events().iter().filter(|(_, event)| event["x"] == "TRADE") {
                let (id, text) = (event["i"].as_i64().unwrap(), |field: &str| amount(event[field].as_str().unwrap()));
                let sum = executed.entry(id).or_default();
                *sum += text("l");
                prop_assert_eq!(*sum, text("z"));
                prop_assert!(*sum <= text("q"));
            }
            let market = venue.engine.market(0);
            let (bid, ask) = (market.book.levels(crate::kernel::order::Side::Buy, 1), market.book.levels(crate::kernel::order::Side::Sell, 1));
            prop_assert!(bid.first().zip(ask.first()).is_none_or(|(bid, ask)| bid.0 < ask.0), "the book is crossed");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || {
        let mut venue = Venue::new();
        for round in 0..50 {
            venue.engine.move_price(venue.now, round % SYMBOLS.len());
            drop(venue.limit(ALICE, "BUY", "0.1", "60001", ""));
        }
        venue.engine.take_events()
    };
    assert_eq!(run(), run());
    assert_eq!(symbol_index("VIABTC"), Some(4));
}
