use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::kernel::event::Issuer;
use crate::kernel::money::Dec;
use crate::kernel::order::{
    Bot, ExecutionType, OrderId, OrderStatus, OrderType, RejectReason, Side, StpMode, TimeInForce,
};
use crate::kernel::report::Peg;
use crate::kernel::time::Time;
use crate::tag::layout::KeyId;
use crate::tag::mac::KeyOwner;

const MARKET: &str = "binance/spot";
const SECRET: &[u8] = b"a secret that only these tests know";

fn keys() -> TagKeys {
    let account = Account::new("main");
    let key = TagKey::derive(SECRET, &account, KeyOwner::Daemon, KeyId::new(0).unwrap()).unwrap();
    TagKeys::new(account, MARKET, key, Vec::new(), vec![IdPrefix::new("x-TKT5PX2F").unwrap()]).unwrap()
}

fn stamp() -> Stamp {
    Stamp::new(Time::from_millis(1_764_000_000_120), 1).unwrap()
}

fn order(fields: &Value) -> OrderTerms {
    let mut fields = fields.clone();
    let object = fields.as_object_mut().unwrap();
    object.insert("client_order_id".into(), "".into());
    let order_type = object.remove("type").unwrap();
    object.insert("order_type".into(), order_type);
    serde_json::from_value(fields).unwrap()
}

/// The report the venue would show for these terms: GTC where no time in force counts, zeros where nothing was set.
fn report(terms: &OrderTerms, id: &str) -> ExecutionReport {
    let or_zero = |value: Option<Dec>| value.unwrap_or(Dec::ZERO);
    let at = Time::from_millis(1_764_000_000_200);
    ExecutionReport {
        symbol: terms.symbol.clone(),
        order_id: OrderId(4_293_153),
        client_order_id: ClientId::new(id),
        request_client_order_id: None,
        side: terms.side,
        order_type: terms.order_type,
        time_in_force: terms.time_in_force.unwrap_or(TimeInForce::Gtc),
        execution_type: ExecutionType::New,
        status: OrderStatus::New,
        reject_reason: RejectReason::None,
        quantity: or_zero(terms.quantity),
        price: or_zero(terms.price),
        stop_price: or_zero(terms.stop_price),
        iceberg_quantity: or_zero(terms.iceberg_quantity),
        quote_quantity: or_zero(terms.quote_quantity),
        last_quantity: Dec::ZERO,
        last_price: Dec::ZERO,
        last_quote: Dec::ZERO,
        cumulative_quantity: Dec::ZERO,
        cumulative_quote: Dec::ZERO,
        commission: Dec::ZERO,
        commission_asset: None,
        trade_id: None,
        execution_id: Some(1),
        on_book: true,
        maker: false,
        event_at: at,
        transacted_at: at,
        created_at: Some(at),
        working_at: Some(at),
        list_id: None,
        stp_mode: Some(terms.stp_mode.unwrap_or(StpMode::ExpireMaker)),
        trailing_delta: terms.trailing_delta,
        strategy_id: terms.strategy_id,
        expiry_reason: None,
        counter_order: None,
        peg: terms.peg.clone(),
    }
}

#[test]
fn the_shared_vectors_hold() {
    let mut rows = 0;
    for line in include_str!("../../fixtures/tag_vectors.jsonl").lines() {
        rows += 1;
        check_vector(&serde_json::from_str(line).unwrap());
    }
    assert!(rows >= 30, "{rows} vectors are fewer than there were");
}

fn check_vector(row: &Value) {
    let text = |name: &str| row[name].as_str().unwrap();
    let name = text("name");
    let account = Account::new(text("account"));
    let bot = text("owner").strip_prefix("bot/").map(Bot::new);
    let owner = bot.as_ref().map_or(KeyOwner::Daemon, KeyOwner::Bot);
    let key_id = KeyId::new(u8::try_from(row["key_id"].as_u64().unwrap()).unwrap()).unwrap();
    let key = TagKey::derive(text("secret").as_bytes(), &account, owner, key_id).unwrap();
    let prefix = Some(text("prefix")).filter(|text| !text.is_empty()).map(|text| IdPrefix::new(text).unwrap());
    let keys = TagKeys::new(account, MARKET, key, Vec::new(), prefix.clone().into_iter().collect()).unwrap();
    let at = Time::from_millis(row["at"].as_i64().unwrap());
    let stamp = Stamp::new(at, row["counter"].as_u64().unwrap()).unwrap();

    let (issued, checked) = if let Some(order_fields) = row.get("order") {
        let terms = order(order_fields);
        let issued = keys.issue_order(stamp, prefix.as_ref(), &terms);
        (issued, keys.check_report(&report(&terms, text("id"))).order)
    } else {
        let symbol = Symbol::new(row["cancel"]["symbol"].as_str().unwrap());
        let target = match row["cancel"].get("order_id") {
            Some(id) => Target::Order(OrderId(id.as_i64().unwrap())),
            None => Target::Client(ClientId::new(row["cancel"]["orig_client_order_id"].as_str().unwrap())),
        };
        let issued = keys.issue_cancel(stamp, prefix.as_ref(), &symbol, &target).unwrap();
        let terms = order(&serde_json::json!({
            "symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "1",
        }));
        let mut report = report(&terms, "my-order-1");
        report.request_client_order_id = Some(ClientId::new(text("id")));
        (issued, keys.check_report(&report).request)
    };
    match row.get("expect").and_then(Value::as_str) {
        None => {
            assert_eq!(issued.as_str(), text("id"), "{name}");
            let issuer = if bot.is_some() { Issuer::Bot } else { Issuer::Daemon };
            let tens = Time::from_millis(at.millis().div_euclid(10) * 10);
            assert_eq!(checked, TagCheck::Valid { issuer, at: tens }, "{name}");
        }
        Some("forged") => assert_eq!(checked, TagCheck::Forged, "{name}"),
        Some("absent") => assert_eq!(checked, TagCheck::Absent, "{name}"),
        Some(other) => panic!("{name}: no such expectation {other:?}"),
    }
}

#[test]
fn the_venues_default_self_trade_prevention_does_not_break_a_tag_that_left_it_unset() {
    let terms = order(&serde_json::json!({
        "symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "quantity": "1", "price": "2",
    }));
    let id = keys().issue_order(stamp(), None, &terms);
    let mut shown = report(&terms, id.as_str());
    for mode in [None, Some(StpMode::None), Some(StpMode::Decrement)] {
        shown.stp_mode = mode;
        assert!(matches!(keys().check_report(&shown).order, TagCheck::Valid { .. }));
    }
}

#[test]
fn a_request_that_reuses_the_orders_own_id_is_no_countersigned_cancel() {
    let terms = order(&serde_json::json!({ "symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "1" }));
    let id = keys().issue_order(stamp(), None, &terms);
    let mut shown = report(&terms, id.as_str());
    shown.request_client_order_id = Some(id.clone());
    assert_eq!(keys().check_report(&shown).request, TagCheck::Absent);
    shown.request_client_order_id = Some(keys().issue_order(stamp(), None, &OrderTerms { side: Side::Sell, ..terms }));
    assert_eq!(keys().check_report(&shown).request, TagCheck::Forged);
}

#[test]
fn a_cancel_of_all_orders_has_no_id_of_its_own() {
    assert_eq!(keys().issue_cancel(stamp(), None, &Symbol::new("BTCUSDT"), &Target::All), None);
}

#[test]
fn a_key_id_is_given_once() {
    let account = Account::new("main");
    let key = |id| TagKey::derive(SECRET, &account, KeyOwner::Daemon, KeyId::new(id).unwrap()).unwrap();
    assert!(TagKeys::new(account.clone(), MARKET, key(0), vec![key(1), key(2)], Vec::new()).is_ok());
    assert!(TagKeys::new(account.clone(), MARKET, key(0), vec![key(0)], Vec::new()).is_err());
    assert!(TagKeys::new(account.clone(), MARKET, key(0), vec![key(1), key(1)], Vec::new()).is_err());
}

fn terms() -> impl Strategy<Value = OrderTerms> {
    let amount = || (1u32..1_000_000, 0usize..9).prop_map(|(digits, places)| decimal(digits, places));
    let optional = || proptest::option::of((1u32..1_000_000, 0usize..9).prop_map(|(d, p)| decimal(d, p)));
    let peg = proptest::option::of((0i64..5).prop_map(|levels| Peg {
        price_type: "PRIMARY_PEG".into(),
        offset_type: (levels > 0).then(|| "PRICE_LEVEL".into()),
        offset_value: (levels > 0).then_some(levels),
    }));
    (
        proptest::sample::select(OrderType::ALL.to_vec()),
        proptest::sample::select(vec![TimeInForce::Gtc, TimeInForce::Ioc, TimeInForce::Fok]),
        amount(),
        amount(),
        optional(),
        proptest::option::of(1i64..2_000),
        peg,
        proptest::option::of(any::<i64>()),
        proptest::option::of(proptest::sample::select(StpMode::ALL.to_vec())),
        any::<bool>(),
    )
        .prop_map(|(kind, tif, quantity, price, iceberg, trailing, peg, strategy_id, stp_mode, by_quote)| {
            let has_price = kind.has_price();
            let by_quote = by_quote && kind == OrderType::Market;
            OrderTerms {
                client_order_id: ClientId::new(""),
                symbol: Symbol::new("BTCUSDT"),
                side: Side::Buy,
                order_type: kind,
                time_in_force: (has_price && kind != OrderType::LimitMaker).then_some(tif),
                quantity: (!by_quote).then_some(quantity),
                quote_quantity: by_quote.then_some(price),
                price: (has_price && peg.is_none()).then_some(price),
                stop_price: kind.is_conditional().then_some(quantity),
                trailing_delta: trailing.filter(|_| kind.is_conditional()),
                iceberg_quantity: iceberg.filter(|_| has_price),
                peg: peg.filter(|_| has_price),
                stp_mode,
                strategy_id,
            }
        })
}

fn decimal(digits: u32, places: usize) -> Dec {
    let text = format!("{digits:0>width$}", width = places + 1);
    let (integer, fraction) = text.split_at(text.len() - places);
    if places == 0 { integer.parse().unwrap() } else { format!("{integer}.{fraction}").parse().unwrap() }
}

/// Every way in which one bound field of the report can differ from the order that was announced.
fn one_field_changed(shown: &ExecutionReport) -> Vec<(&'static str, ExecutionReport)> {
    let one = Dec::from(1);
    let more = |value: Dec| value.checked_add(one).unwrap();
    let mut changed = Vec::new();
    let mut change = |name, edit: &dyn Fn(&mut ExecutionReport)| {
        let mut report = shown.clone();
        edit(&mut report);
        changed.push((name, report));
    };
    let kind = shown.order_type;
    let by_quote = !shown.quote_quantity.is_zero();
    change("symbol", &|report| report.symbol = Symbol::new("BTCUSDC"));
    change("side", &|report| report.side = Side::Sell);
    for other in OrderType::ALL.iter().filter(|other| **other != kind) {
        change("type", &|report| report.order_type = *other);
    }
    change("strategy id", &|report| report.strategy_id = Some(report.strategy_id.map_or(1, |id| id.wrapping_add(1))));
    if kind.has_price() && kind != OrderType::LimitMaker {
        change("time in force", &|report| report.time_in_force = TimeInForce::Gtd);
    }
    if by_quote {
        change("quote quantity", &|report| report.quote_quantity = more(report.quote_quantity));
        change("sized by quantity", &|report| report.quote_quantity = Dec::ZERO);
    } else {
        change("quantity", &|report| report.quantity = more(report.quantity));
    }
    if kind.has_price() && shown.peg.is_none() {
        change("price", &|report| report.price = more(report.price));
    }
    if kind.has_price() {
        change("iceberg", &|report| report.iceberg_quantity = more(report.iceberg_quantity));
        change("peg", &|report| {
            report.peg = Some(Peg { price_type: "MARKET_PEG".into(), offset_type: None, offset_value: None });
        });
    }
    if kind.is_conditional() {
        change("stop price", &|report| report.stop_price = more(report.stop_price));
        change("trailing delta", &|report| report.trailing_delta = Some(report.trailing_delta.unwrap_or(0) + 1));
    }
    changed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_tag_holds_for_its_order_and_for_no_other(terms in terms(), prefixed in any::<bool>()) {
        let keys = keys();
        let prefix = prefixed.then(|| keys.prefixes()[0].clone());
        let id = keys.issue_order(stamp(), prefix.as_ref(), &terms);
        let shown = report(&terms, id.as_str());
        let at = stamp().at();
        prop_assert_eq!(keys.check_report(&shown).order, TagCheck::Valid { issuer: Issuer::Daemon, at });
        for (field, report) in one_field_changed(&shown) {
            prop_assert_eq!(keys.check_report(&report).order, TagCheck::Forged, "{}", field);
        }
        if terms.stp_mode.is_some() {
            let other = StpMode::ALL.iter().copied().find(|mode| Some(*mode) != terms.stp_mode);
            let report = ExecutionReport { stp_mode: other, ..shown.clone() };
            prop_assert_eq!(keys.check_report(&report).order, TagCheck::Forged);
        }
    }

    #[test]
    fn an_id_with_any_character_changed_is_not_valid(terms in terms(), place in 0usize..31, letter in "[A-Za-z0-9_-]") {
        let id = keys().issue_order(stamp(), None, &terms);
        let mut other = id.as_str().to_owned();
        other.replace_range(place..=place, &letter);
        let valid = matches!(keys().check_report(&report(&terms, &other)).order, TagCheck::Valid { .. });
        prop_assert_eq!(valid, other == id.as_str());
    }

    #[test]
    fn no_id_panics(id in "\\PC{0,40}") {
        let terms = order(&serde_json::json!({ "symbol": "A", "side": "BUY", "type": "MARKET", "quantity": "1" }));
        let check = keys().check_report(&report(&terms, &id)).order;
        let valid = matches!(check, TagCheck::Valid { .. });
        prop_assert!(!valid);
    }
}
