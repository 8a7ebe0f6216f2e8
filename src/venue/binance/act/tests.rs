//! Requests as they leave and answers as they come, at the lowest wall.

use super::*;

const KEY: &str = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A";
const EMAIL: &str = "bot+1@example.com";

fn reply(status: u16, body: &str) -> Reply<'_> {
    Reply { status, retry_after: None, body }
}

fn code(code: i64) -> String {
    format!(r#"{{"code":{code},"msg":"words\n"}}"#)
}

fn row(key: &str, can_trade: bool) -> String {
    format!(
        r#"{{"email":"{EMAIL}","apiName":"bot","apikey":"{key}","canTrade":{can_trade},"canMarginLoanRepay":false,
        "canFuturesTrade":false,"canUniversalTransfer":false,"canVanillaOptions":false,"timestamp":1764000000000}}"#
    )
}

fn page(total: usize, field: &str, rows: &[String]) -> String {
    format!(r#"{{"total":{total},"{field}":[{}]}}"#, rows.join(","))
}

#[test]
fn the_email_is_encoded_before_it_is_signed() {
    let credential = ApiCredential::new(KEY.into(), "secret".into()).unwrap();
    let at = Time::from_millis(7);
    for (call, expected) in [
        (Call::list_keys(EMAIL, 2), "email=bot%2B1%40example.com&page=2&size=100&timestamp=7".to_owned()),
        (Call::delete_key(EMAIL, KEY), format!("email=bot%2B1%40example.com&subAccountApiKey={KEY}&timestamp=7")),
        (
            Call::set_rights(EMAIL, KEY, KeyRights { trade: true, ..KeyRights::NONE }),
            format!(
                "email=bot%2B1%40example.com&subAccountApiKey={KEY}&canTrade=true&canMarginLoanRepay=false\
                 &canFuturesTrade=false&canUniversalTransfer=false&canVanillaOptions=false&timestamp=7"
            ),
        ),
        (Call::cancel_order(&Symbol::new("BTCUSDT"), OrderId(9)), "symbol=BTCUSDT&orderId=9&timestamp=7".to_owned()),
        (Call::open_orders(), "timestamp=7".to_owned()),
    ] {
        let query = call.signed(&credential, at);
        let (payload, signature) = query.split_once("&signature=").unwrap();
        assert_eq!(payload, expected);
        assert_eq!(signature, credential.sign(payload));
    }
}

#[test]
fn a_probe_holds_nothing_that_only_the_owner_could_add() {
    let [keyed, missigned] = Call::probes();
    assert_eq!((keyed.by, keyed.path, keyed.is_signed()), (By::Suspect, "/sapi/v1/margin/allPairs", false));
    assert_eq!((missigned.by, missigned.path, missigned.is_signed()), (By::Suspect, "/api/v3/account", true));
    let query = missigned.missigned(Time::from_millis(7));
    assert_eq!(query, format!("timestamp=7&signature={}", "0".repeat(64)));
}

#[test]
fn answers_end_as_what_they_prove() {
    let retry = Reply { retry_after: Some(Duration::from_secs(7)), ..reply(429, "") };
    assert!(matches!(retry.ending(), Ending::Limited { wait, .. } if wait == Duration::from_secs(7)));
    for (status, body, expected) in [
        (200, String::new(), "granted"),
        (401, code(-2015), "refused"),
        (400, code(-9000), "refused"),
        (400, code(-1021), "refused"),
        (400, code(-1007), "unknown"),
        (400, code(-1006), "unknown"),
        (408, code(-1007), "unknown"),
        (503, code(-1008), "unknown"),
        (400, "<html>".to_owned(), "unknown"),
        (404, String::new(), "unknown"),
        (307, String::new(), "unknown"),
        (202, "{}".to_owned(), "unknown"),
        (429, code(-1003), "limited"),
        (418, String::new(), "limited"),
        (403, "<html>".to_owned(), "limited"),
    ] {
        let ending = reply(status, &body).ending();
        let named = match &ending {
            Ending::Granted => "granted",
            Ending::Limited { .. } => "limited",
            Ending::Refused { reason, .. } => {
                assert_eq!(&**reason, "words");
                "refused"
            }
            Ending::Unknown { .. } => "unknown",
        };
        assert_eq!(named, expected, "{status} {body}: {ending:?}");
    }
}

#[test]
fn probes_tell_dead_from_alive_and_from_neither() {
    for (status, body, expected) in [
        (200, "[]".to_owned(), "alive"),
        (200, "<html>".to_owned(), "unclear"),
        (400, code(-1022), "alive"),
        (401, code(-2015), "dead"),
        (400, code(-2008), "dead"),
        (400, code(-2014), "unclear"),
        (400, code(-1021), "unclear"),
        (400, code(-1109), "unclear"),
        (500, code(-2015), "unclear"),
        (429, code(-2015), "unclear"),
        (401, String::new(), "unclear"),
    ] {
        let named = match reply(status, &body).probe() {
            ProbeAnswer::Dead { .. } => "dead",
            ProbeAnswer::Alive { .. } => "alive",
            ProbeAnswer::Unclear { .. } => "unclear",
        };
        assert_eq!(named, expected, "{status} {body}");
    }
}

#[test]
fn a_list_is_whole_or_none() {
    let read = |pages: &[String]| {
        let mut list = KeyList::default();
        for body in pages {
            list.take(body).map_err(|kept| kept.reason)?;
        }
        Ok::<_, Box<str>>((list.wants(), list.into_keys()))
    };
    for field in ["rows", "list"] {
        let (wants, keys) = read(&[page(1, field, &[row(KEY, true)])]).unwrap();
        assert_eq!((wants, keys.len()), (None, 1));
        assert_eq!(keys[0].row.key, KeyPrint::of(KEY));
        assert_eq!(keys[0].row.rights, KeyRights { trade: true, ..KeyRights::NONE });
        assert_eq!(keys[0].api_key.expose_secret(), KEY);
    }
    assert_eq!(read(&[page(0, "rows", &[])]).unwrap().0, None);
    assert_eq!(KeyList::default().wants(), Some(1));
    assert_eq!(read(&[page(2, "rows", &[row("a", true)])]).unwrap().0, Some(2));
    assert_eq!(read(&[page(2, "rows", &[row("a", true)]), page(2, "rows", &[row("b", false)])]).unwrap().0, None);
    for (pages, reason) in [
        (vec![page(2, "rows", &[row("a", true)]), page(2, "rows", &[])], "claims 2 keys and shows 1"),
        (vec![page(2, "rows", &[])], "claims 2 keys and shows 0"),
        (vec![page(0, "rows", &[row("a", true)])], "claims 0 keys and shows 1"),
        (vec![page(2, "rows", &[row("a", true)]), page(3, "rows", &[row("b", true)])], "changed while"),
        (vec![page(2, "rows", &[row("a", true), row("a", true)])], "twice"),
        (vec![page(1, "rows", &[row("a***b", true)])], "does not show a key whole"),
        (vec![page(1, "rows", &[row("a", true).replace("canTrade", "mayTrade")])], "canTrade"),
        (vec![page(100_000, "rows", &[])], "more than"),
        (vec![page(1, "keys", &[row("a", true)])], "\"list\" is missing"),
        (vec![r#"{"rows":[]}"#.to_owned()], "total"),
        (vec!["{}".to_owned()], "total"),
        (vec![String::new()], "empty"),
    ] {
        let told = read(&pages).unwrap_err();
        assert!(told.contains(reason), "{told} for {reason}");
    }
}

#[test]
fn what_was_granted_must_be_what_was_asked_for() {
    let key = SecretString::from(KEY);
    let done = |read: Result<ActOutcome, Kept>| matches!(read, Ok(ActOutcome::Done { .. }));
    assert!(done(rights_set(&row(KEY, false), &key, KeyRights::NONE)));
    assert!(done(rights_set("{}", &key, KeyRights::NONE)));
    for odd in [row(KEY, true), row("other", false), "[]".to_owned(), "<html>".to_owned(), String::new()] {
        assert!(rights_set(&odd, &key, KeyRights::NONE).is_err(), "{odd}");
    }
    assert!(done(deleted("{}")) && deleted("").is_err() && deleted("[]").is_err());
    let order = |id: i64, status: &str| format!(r#"{{"symbol":"BTCUSDT","orderId":{id},"status":"{status}"}}"#);
    assert!(done(cancelled(&order(9, "CANCELED"), OrderId(9))));
    for odd in [order(8, "CANCELED"), order(9, "FILLED"), "{}".to_owned(), String::new()] {
        assert!(cancelled(&odd, OrderId(9)).is_err(), "{odd}");
    }
    assert!(matches!(open_orders("[]"), Ok(ActOutcome::Orders(orders)) if orders.is_empty()));
    assert!(open_orders("{}").is_err() && open_orders("").is_err());
}

#[test]
fn a_transfer_is_done_by_its_own_id_only() {
    let done = |read: Result<ActOutcome, Kept>| matches!(read, Ok(ActOutcome::Done { .. }));
    // The samples of the venue's pages.
    assert!(done(transferred(r#"{"tranId":11945860693,"clientTranId":"test"}"#, "test")));
    assert!(done(transferred(r#"{"tranId":11945860693}"#, "test")));
    for odd in [r#"{"tranId":1,"clientTranId":"other"}"#, r#"{"clientTranId":"test"}"#, "{}", "[]", ""] {
        assert!(transferred(odd, "test").is_err(), "{odd}");
    }
    let row = r#"{"tranId":92275823339,"fromEmail":"abctest@gmail.com","toEmail":"deftest@gmail.com","asset":"BNB",
        "amount":"0.01","createTimeStamp":1640317374000,"fromAccountType":"USDT_FUTURE","toAccountType":"SPOT",
        "status":"SUCCESS","clientTranId":"test"}"#;
    let shown = |rows: &str| format!(r#"{{"result":[{rows}],"totalCount":1}}"#);
    assert!(done(found_transfer(&shown(row), "test")));
    assert!(matches!(found_transfer(&shown(""), "test"), Ok(ActOutcome::NotFound)));
    for odd in [
        shown(&row.replace("SUCCESS", "PROCESS")),
        shown(&row.replace("\"test\"", "\"other\"")),
        shown(&format!("{row},{row}")),
        "{}".to_owned(),
        String::new(),
    ] {
        assert!(found_transfer(&odd, "test").is_err(), "{odd}");
    }
    assert!(matches!(balances(r#"{"balances":[]}"#), Ok(ActOutcome::Balances(rows)) if rows.is_empty()));
    assert!(balances("{}").is_err() && balances("").is_err());
}
