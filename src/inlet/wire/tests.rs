use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::kernel::intent::{IntentReply, Refusal, Registered};
use crate::kernel::order::{OrderId, OrderType};
use crate::tag::layout::KeyId;
use crate::tag::mac::{KeyOwner, TagKey};

const NOW: Time = Time::from_millis(1_764_000_000_000);

fn keys() -> TagKeys {
    let account = Account::new("main");
    let key = TagKey::derive(b"a secret of these tests", &account, KeyOwner::Daemon, KeyId::new(0).unwrap()).unwrap();
    TagKeys::new(account, "binance/spot", key, Vec::new(), vec![IdPrefix::new("x-TKT5PX2F").unwrap()]).unwrap()
}

fn record(kind: &str, more: Value) -> Value {
    let mut record =
        json!({ "v": 1, "account": "main", "bot": "mm-1", "seq": 42, "at": 1_764_000_000_000_i64, "kind": kind });
    merge(&mut record, more);
    record
}

fn merge(into: &mut Value, more: Value) {
    for (name, value) in more.as_object().unwrap() {
        into[name] = value.clone();
    }
}

fn limit() -> Value {
    json!({ "symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "quantity": "0.01", "price": "60000" })
}

fn said(value: &Value) -> Result<Said, WireError> {
    read(value.to_string().as_bytes(), &keys(), NOW)
}

fn intent(value: &Value) -> IntentRecord {
    match said(value).unwrap() {
        Said::Intent(record) => *record,
        Said::Hello { .. } => panic!("{value} is a hello"),
    }
}

#[track_caller]
fn check_refused(value: &Value, code: ErrorCode, names: &str) {
    let error = said(value).unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(names), "{error}");
    assert!(!error.hint.is_empty());
}

#[test]
fn the_record_of_the_manual_is_read() {
    let line =
        br#"{"v":1,"account":"main","bot":"mm-1","seq":42,"at":1764000000000,"nonce":"1763999999000001","kind":"place",
        "strategy":"grid-btc","owner":"desk-a","client_order_id":"my-order-1","symbol":"BTCUSDT","side":"BUY",
        "type":"LIMIT","time_in_force":"GTC","quantity":"0.01","price":"60000"}"#;
    let Said::Intent(record) = read(line, &keys(), NOW).unwrap() else { panic!("a hello") };
    assert_eq!(record.nonce, Some(Time::from_micros(1_763_999_999_000_001)));
    assert_eq!(record.strategy.as_deref(), Some("grid-btc"));
    let IntentBody::Place(terms) = record.body else { panic!("not a place") };
    assert_eq!(terms.client_order_id.as_str(), "my-order-1");
    assert_eq!(terms.order_type, OrderType::Limit);
}

#[test]
fn an_id_that_is_absent_is_issued_and_the_same_record_gets_the_same_one() {
    let first = intent(&record("place", limit()));
    let IntentBody::Place(terms) = &first.body else { panic!("not a place") };
    assert_eq!(terms.client_order_id.as_str().len(), 31);
    assert_eq!(first, intent(&record("place", limit())));

    let mut other = record("place", limit());
    other["seq"] = json!(43);
    assert_ne!(intent(&other).body, first.body, "the next record has an id of its own");
    let mut other = record("place", limit());
    other["bot"] = json!("mm-2");
    assert_ne!(intent(&other).body, first.body, "and so has another bot's");
}

#[test]
fn an_issued_id_takes_the_accounts_prefix_when_asked() {
    let mut prefixed = record("place", limit());
    prefixed["id_prefix"] = json!("x-TKT5PX2F");
    let IntentBody::Place(terms) = intent(&prefixed).body else { panic!("not a place") };
    assert!(terms.client_order_id.as_str().starts_with("x-TKT5PX2F"));
    prefixed["client_order_id"] = json!("mine");
    check_refused(&prefixed, ErrorCode::BadField, "id_prefix");
    prefixed["id_prefix"] = json!("x-other");
    check_refused(&prefixed, ErrorCode::BadField, "id_prefix");
}

#[test]
fn no_id_is_issued_for_a_clock_far_from_ours() {
    for seconds in [-25_i64, 25] {
        let mut away = record("place", limit());
        away["at"] = json!(NOW.millis() + seconds * 1_000);
        check_refused(&away, ErrorCode::ClockSkew, "25.0 s away");
        away["client_order_id"] = json!("mine");
        assert!(said(&away).is_ok(), "an id of the bot's own needs no clock");
    }
}

#[test]
fn every_kind_is_read() {
    let leg = |kind: &str, more: Value| {
        let mut leg = json!({ "side": "SELL", "type": kind, "quantity": "1" });
        merge(&mut leg, more);
        leg
    };
    let legs = [leg("LIMIT_MAKER", json!({ "price": "3" })), leg("STOP_LOSS", json!({ "stop_price": "1" }))];
    for (kind, more) in [
        ("cancel", json!({ "symbol": "BTCUSDT", "order_id": 12 })),
        ("cancel", json!({ "symbol": "BTCUSDT", "orig_client_order_id": "mine", "client_order_id": "cancel-1" })),
        ("cancel", json!({ "symbol": "BTCUSDT", "all": true })),
        ("amend", json!({ "symbol": "BTCUSDT", "order_id": 12, "quantity": "0.5" })),
        (
            "cancel_replace",
            json!({ "symbol": "BTCUSDT", "cancel": { "order_id": 12 }, "place": {
            "side": "BUY", "type": "MARKET", "quote_quantity": "100" } }),
        ),
        ("list", json!({ "symbol": "BTCUSDT", "client_order_id": "list-1", "contingency": "OCO", "legs": legs })),
        ("result", json!({ "of": 41, "outcome": "accepted", "order_id": 9 })),
        ("result", json!({ "of": 41, "outcome": "rejected", "code": -2010, "message": "no\nmoney" })),
        ("result", json!({ "of": 41, "outcome": "not_sent" })),
        ("result", json!({ "of": 41, "outcome": "unknown" })),
        ("heartbeat", json!({})),
        ("heartbeat", json!({ "seq": 0 })),
        ("heartbeat", json!({ "egress": "203.0.113.7", "nonce": "1" })),
    ] {
        let record = record(kind, more);
        assert!(said(&record).is_ok(), "{record}: {:?}", said(&record));
    }
    let hello = json!({ "v": 1, "account": "main", "bot": "mm-1", "kind": "hello" });
    assert_eq!(said(&hello), Ok(Said::Hello { account: Account::new("main"), bot: Bot::new("mm-1") }));
}

#[test]
fn the_legs_of_a_list_have_ids_of_their_own() {
    let leg = json!({ "side": "SELL", "type": "LIMIT_MAKER", "quantity": "1", "price": "3" });
    let oco = json!({ "symbol": "BTCUSDT", "client_order_id": "list-1", "contingency": "OCO", "legs": [leg, leg] });
    let IntentBody::List(list) = intent(&record("list", oco)).body else { panic!("not a list") };
    assert_ne!(list.legs[0].client_order_id, list.legs[1].client_order_id);
}

#[test]
fn what_is_wrong_is_named() {
    let place = |more: Value| {
        let mut record = record("place", limit());
        merge(&mut record, more);
        record
    };
    for (record, names) in [
        (place(json!({ "quantity": 0.01 })), "quantity is not a string"),
        (place(json!({ "quantity": "1e3" })), "quantity is \"1e3\""),
        (place(json!({ "quantity": "0" })), "quantity is not above zero"),
        (place(json!({ "quantity": null })), "quantity is missing: LIMIT"),
        (place(json!({ "price": null })), "price is missing"),
        (place(json!({ "time_in_force": null })), "time_in_force is missing"),
        (place(json!({ "time_in_force": "GTX" })), "time_in_force is \"GTX\""),
        (place(json!({ "type": "MARKET" })), "price does not go with MARKET"),
        (place(json!({ "type": "MARKET", "price": null, "quote_quantity": "5" })), "exactly one"),
        (place(json!({ "type": "STOP_LOSS_LIMIT" })), "stop_price is missing"),
        (place(json!({ "stop_price": "1" })), "stop_price does not go with LIMIT"),
        (place(json!({ "trailing_delta": 5 })), "trailing_delta does not go with LIMIT"),
        (place(json!({ "iceberg_quantity": "1" })), "iceberg_quantity is above quantity"),
        (place(json!({ "peg": { "price_type": "MY_PEG" } })), "peg.price_type"),
        (place(json!({ "peg": { "price_type": "MARKET_PEG", "offset_value": 1 } })), "peg.offset_type"),
        (place(json!({ "side": "buy" })), "side is \"buy\""),
        (place(json!({ "symbol": "BTC/USDT" })), "symbol is not spelt"),
        (place(json!({ "client_order_id": "with space" })), "client_order_id is no client order id"),
        (place(json!({ "client_order_id": "x".repeat(37) })), "client_order_id is longer than 36"),
        (place(json!({ "reduce_only": true })), "reduce_only does not belong to kind place"),
        (place(json!({ "v": 2 })), "v is not a version"),
        (place(json!({ "seq": 0 })), "seq is not a sequence"),
        (place(json!({ "seq": "42" })), "seq is not a whole number"),
        (place(json!({ "at": 1_764_000_000 })), "at is no time"),
        (place(json!({ "supersedes": 42 })), "supersedes is not below"),
        (place(json!({ "bot": "" })), "bot is empty"),
        (place(json!({ "strategy": "a\u{7}b" })), "strategy holds a control character"),
        (record("withdraw", json!({})), "kind \"withdraw\" is unknown"),
        (record("cancel", json!({ "symbol": "BTCUSDT" })), "exactly one"),
        (record("cancel", json!({ "symbol": "BTCUSDT", "order_id": 1, "all": true })), "exactly one"),
        (record("cancel", json!({ "symbol": "BTCUSDT", "all": true, "client_order_id": "a" })), "client_order_id"),
        (record("amend", json!({ "symbol": "BTCUSDT", "all": true, "quantity": "1" })), "all does not go with amend"),
        (record("result", json!({ "of": 1, "outcome": "accepted", "code": 5 })), "code does not belong"),
        (record("heartbeat", json!({ "egress": "my-host" })), "egress is not an IP address"),
        (
            record("list", json!({ "symbol": "B", "client_order_id": "l", "contingency": "OCO", "legs": [{}] })),
            "legs are 1",
        ),
        (
            record("list", json!({ "symbol": "B", "client_order_id": "l", "contingency": "OCO", "legs": [{}, {}] })),
            "legs[0].side",
        ),
    ] {
        check_refused(&record, ErrorCode::BadField, names);
    }
    check_refused(&place(json!({ "account": "other" })), ErrorCode::WrongAccount, "other");
    check_refused(&place(json!({ "nonce": "-1" })), ErrorCode::BadNonce, "nonce");
    assert_eq!(said(&place(json!({ "price": 1 }))).unwrap_err().seq, Some(42), "the refusal says whose it is");
}

#[test]
fn what_is_not_an_object_is_bad_json() {
    let deep = "[".repeat(10_000);
    for line in ["", "{", "[]", "7", "{\"v\":1e999}", "{} {}", &deep, "\u{feff}{}"] {
        assert_eq!(read(line.as_bytes(), &keys(), NOW).unwrap_err().code, ErrorCode::BadJson, "{line:.20}");
    }
    assert_eq!(read(b"{\"v\":\xff}", &keys(), NOW).unwrap_err().code, ErrorCode::BadJson);
}

#[test]
fn a_key_that_stands_twice_is_refused_at_every_depth() {
    let text = record("place", limit()).to_string();
    let with = |more: &str| format!("{},{more}}}", &text[..text.len() - 1]);
    for (more, key) in [
        (r#""side":"SELL""#, "side"),
        (r#""s\u0069de":"BUY""#, "side"),
        (r#""seq":42"#, "seq"),
        (r#""peg":{"price_type":"MARKET_PEG","price_type":"PRIMARY_PEG"}"#, "price_type"),
        (r#""legs":[{},[{"a":{"b":1,"b":1}}]]"#, "b"),
    ] {
        let error = read(with(more).as_bytes(), &keys(), NOW).unwrap_err();
        assert_eq!(error.code, ErrorCode::BadField, "{more}");
        assert!(error.message.starts_with(&format!("{key:?} stands twice")), "{error}");
    }
    let row = br#"{"v":1,"account":"main","at":1764000000000,"address":"::1","address":"::2","source":"mail"}"#;
    assert!(read_access(row).unwrap_err().message.contains("\"address\" stands twice"));
}

#[test]
fn address_evidence_is_not_taken_from_a_bots_mouth() {
    let row = |source: &str| {
        json!({ "v": 1, "account": "main", "at": 1_764_000_000_000_i64, "address": "2001:db8::7", "source": source })
            .to_string()
    };
    for source in ["venue", "mail", "host"] {
        assert!(read_access(row(source).as_bytes()).is_ok());
    }
    let error = read_access(row("bot_egress").as_bytes()).unwrap_err();
    assert!(error.message.contains("source is \"bot_egress\""), "{error}");
    assert!(error.hint.contains("venue, mail or host") && error.hint.contains("heartbeats"), "{error}");
}

#[test]
fn a_reply_reads_as_the_manual_says() {
    let first = intent(&record("place", {
        let mut order = limit();
        order["client_order_id"] = json!("mine");
        order
    }));
    let ids = reply::RequestIds::of(&first);
    let answer = |answer| {
        let reply = IntentReply { seq: 42, nonce: Time::from_micros(7), heartbeat_wanted: true, missing: 2, answer };
        reply::intent_answer(&ids, &reply)
    };
    assert_eq!(
        answer(Ok(Registered { client_order_ids: vec![ClientId::new("mine")] })),
        (
            200,
            json!({ "v": 1, "ok": true, "seq": 42, "durable": true, "client_order_id": "mine", "client_order_ids": ["mine"],
            "nonce": "7", "heartbeat_wanted": true, "missing": 2 })
        )
    );
    let (status, refused) = answer(Err(Refusal::OutsideLimits { limit: "symbol DOGEUSDT".into() }));
    assert_eq!(status, 422);
    assert_eq!(refused["ok"], json!(false));
    assert_eq!(refused["error"], json!("outside_limits"));
    assert!(refused["message"].as_str().unwrap().contains("symbol DOGEUSDT"));
}

#[test]
fn a_cancel_by_order_id_is_signed_for_that_order() {
    let cancel = intent(&record("cancel", json!({ "symbol": "BTCUSDT", "order_id": 12 })));
    let IntentBody::Cancel(terms) = cancel.body else { panic!("not a cancel") };
    let stamp = Stamp::new(NOW, counter(&Bot::new("mm-1"), 42)).unwrap();
    let issued = keys().issue_cancel(stamp, None, &Symbol::new("BTCUSDT"), &Target::Order(OrderId(12)));
    assert_eq!(terms.client_order_id, issued);
}

proptest! {
    #[test]
    fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _unread = read(&line, &keys(), NOW).is_ok();
    }

    #[test]
    fn no_field_panics(name in "(v|seq|at|kind|symbol|quantity|price|peg|legs|nonce|all|order_id)", value in "(-?[0-9]{1,30}|\"\\PC{0,10}\"|\\[\\]|\\{\\}|true|null)") {
        let mut text = record("place", limit()).to_string();
        text.insert_str(text.len() - 1, &format!(",\"{name}\":{value}"));
        let _unread = read(text.as_bytes(), &keys(), NOW).is_ok();
    }
}
