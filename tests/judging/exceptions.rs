//! Exceptions: what they quiet, what ends that, and what they can never quiet.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use countersign::config::Config;
use countersign::kernel::event::Event;
use countersign::kernel::exception::{Exception, Expiry, LocalException, check_new};
use countersign::kernel::incident::{IncidentState, Priority};
use countersign::kernel::money::Dec;
use countersign::kernel::order::{Asset, OrderType, Symbol};
use countersign::kernel::rule::{Pack, RuleSet};

use crate::desk::{Desk, START, check, dec};

/// The account's hand trades: quiets `rule` for BTCUSDT, in USDT up to the bound, for 20 s.
fn by_hand(rule: &str, bound: &str) -> LocalException {
    LocalException {
        rule: rule.into(),
        exception: Exception {
            name: "by-hand".into(),
            when: toml::from_str("field = \"symbol\"\nin = [\"BTCUSDT\"]").unwrap(),
            owner: "alice".into(),
            reason: "she trades by hand".into(),
            expires: Expiry(START + Duration::from_secs(20)),
            notional: BTreeMap::from([(Asset::new("USDT"), dec(bound))]),
        },
    }
}

fn desk(exceptions: Vec<LocalException>) -> Desk {
    Desk::open_with(|declared| declared.exceptions = exceptions)
}

fn rob(desk: &mut Desk, order: i64) {
    desk.show(desk.order(order, &format!("thief-{order}")).placed());
    desk.pass();
}

fn told(desk: &Desk, rule: &str) -> usize {
    desk.told.iter().filter(|notice| &*notice.rule == rule).count()
}

/// An order of 600 USDT, seen under each exception.
#[test]
fn an_exception_quiets_what_it_means_and_its_bound_holds() {
    let loud = "order 2: foreign\n foreign_order orders=1 USDT=600";
    let told = "order 2: foreign\n exception\n foreign_order orders=1 USDT=600";
    let quiet = "order 2: foreign\n exception";
    let other_side = |mut local: LocalException| {
        local.exception.when = toml::from_str("field = \"side\"\nin = [\"SELL\"]").unwrap();
        local
    };
    let other_asset = |mut local: LocalException| {
        local.exception.notional = BTreeMap::from([(Asset::new("BTC"), dec("1000"))]);
        local
    };
    for (exceptions, expected) in [
        (vec![], loud),
        (vec![by_hand("foreign_order", "600")], quiet),
        (vec![by_hand("foreign_order", "599.99999999")], told),
        (vec![by_hand("floor", "600")], told),
        (vec![by_hand("divergent_order", "600")], told),
        (vec![other_side(by_hand("foreign_order", "600"))], told),
        (vec![other_asset(by_hand("foreign_order", "600"))], told),
    ] {
        let mut desk = desk(exceptions);
        rob(&mut desk, 2);
        check(&desk, expected);
        assert_eq!((desk.kernel.status().orders.strangers, desk.kernel.status().orders.matched), (1, 1));
    }
}

#[test]
fn the_bound_is_a_total_and_nothing_is_given_back() {
    let mut desk = desk(vec![by_hand("foreign_order", "1300")]);
    let first = desk.order(2, "thief-2");
    desk.show(first.placed());
    desk.pass();
    desk.show(first.canceled("c"));
    desk.pass();
    rob(&mut desk, 3);
    check(&desk, "order 2: foreign\n order 3: foreign\n cancel 2: foreign\n exception");
    let status = desk.kernel.status().exceptions.remove(0);
    let used = status.notional[&Asset::new("USDT")];
    assert_eq!((&*status.name, &*status.owner, status.findings), ("by-hand", "alice", 2));
    assert_eq!((used.used, used.bound, status.expired), (dec("1200"), dec("1300"), false));
    rob(&mut desk, 4);
    let notice = desk.incident("foreign_order");
    assert_eq!((notice.orders, notice.notional), (1, vec![(Asset::new("USDT"), dec("600"))]));
    assert!(notice.lines[0].text.ends_with("[past the bound of exception by-hand]"), "{:?}", notice.lines);
    let text = countersign::words::status(&desk.kernel.status());
    let line = "by-hand: foreign_order, for alice, until 2025-11-24T16:00:20Z; 1200 of 1300 USDT used; findings 2";
    assert!(text.contains(line), "{text}");
}

/// A market order binds no money when it is first shown: what it trades is what it uses.
#[test]
fn an_order_that_grows_past_the_bound_is_told_after_all() {
    let mut desk = desk(vec![by_hand("foreign_order", "500")]);
    let order = desk.order(2, "thief");
    for (shown, expected) in [
        (order.placed(), "order 2: foreign\n exception"),
        (order.traded("0.005"), "order 2: foreign\n exception"),
        (order.filled(), "order 2: foreign\n exception\n foreign_order orders=1 USDT=600"),
    ] {
        let (mut report, tags) = shown;
        (report.order_type, report.price) = (OrderType::Market, Dec::ZERO);
        desk.show((report, tags));
        desk.pass();
        check(&desk, expected);
    }
}

#[test]
fn a_cancel_uses_the_money_that_it_took_off_the_book() {
    let mut desk = desk(vec![by_hand("foreign_cancel_or_amendment", "1000")]);
    let quiet = "order 2: matched B\n order 3: matched B\n cancel 2: foreign\n exception";
    let both = "order 2: matched B\n order 3: matched B\n cancel 2: foreign\n cancel 3: foreign\n exception
        foreign_cancel_or_amendment";
    let orders = [desk.order(2, "a"), desk.order(3, "b")];
    for order in &orders {
        desk.say(order.place());
        desk.show(order.placed());
    }
    for (order, expected) in orders.iter().zip([quiet, both]) {
        desk.show(order.canceled("not-the-bots"));
        desk.pass();
        check(&desk, expected);
    }
}

#[test]
fn it_fires_again_after_the_expiry_and_the_announcement_ends() {
    let mut desk = desk(vec![by_hand("foreign_order", "100000")]);
    rob(&mut desk, 2);
    desk.wait_ms(15_000);
    assert!(desk.now > START + Duration::from_secs(20), "it is over");
    assert_eq!(desk.incident("exception").state, IncidentState::Ended);
    assert!(desk.kernel.status().exceptions[0].expired);
    rob(&mut desk, 3);
    check(&desk, "order 2: foreign\n order 3: foreign\n exception ended\n foreign_order orders=1 USDT=600");
}

#[test]
fn a_restart_keeps_what_was_used_and_announces_only_what_is_new() {
    let mut desk = desk(vec![by_hand("foreign_order", "1000")]);
    let notice = desk.incident("exception");
    assert_eq!((notice.priority, notice.state), (Priority::Info, IncidentState::Open));
    let text = "by-hand: quiets foreign_order up to 1000 USDT in all until 2025-11-24T16:00:20Z, for alice: she trades";
    assert!(notice.lines[0].text.starts_with(text), "{:?}", notice.lines);
    rob(&mut desk, 2);
    desk.restart();
    desk.live(1);
    assert_eq!(told(&desk, "exception"), 1, "it was told before");
    rob(&mut desk, 3);
    assert_eq!(desk.incident("foreign_order").orders, 1, "600 of 1000 were used before the start");
    desk.declared.exceptions[0].exception.notional.insert(Asset::new("USDT"), dec("5000"));
    desk.restart();
    desk.live(1);
    assert_eq!(told(&desk, "exception"), 2, "its bound was raised");
    rob(&mut desk, 4);
    assert_eq!(desk.incident("foreign_order").orders, 1);
    assert_eq!(desk.kernel.status().exceptions[0].notional[&Asset::new("USDT")].used, dec("1200"));
    desk.declared.exceptions.clear();
    desk.restart();
    desk.live(1);
    assert_eq!(desk.incident("exception").state, IncidentState::Ended);
    rob(&mut desk, 5);
    assert_eq!(desk.incident("foreign_order").orders, 2);
}

const PACK_EXCEPTION: &str = r#"
[[rule.exception]]
name = "anything"
when = { field = "subject", in = ["order"] }
owner = "the pack's author"
reason = "to disarm"
expires = "2099-01-01"
notional = { USDT = "1000000", BTC = "1000000" }
"#;

/// The stable rules, with an exception in the rule of this name.
fn excepted(rule: &str) -> Result<RuleSet, String> {
    let stable = include_str!("../../rules/binance-spot.toml");
    let (before, after) = stable.split_once(&format!("[[rule]]\nname = \"{rule}\"")).unwrap();
    let (body, rest) = after.split_once("\n[[rule]]").unwrap();
    let text = format!("{before}[[rule]]\nname = \"{rule}\"{body}{PACK_EXCEPTION}\n[[rule]]{rest}");
    RuleSet::new([toml::from_str::<Pack>(&text).map_err(|error| error.to_string())?])
}

#[test]
fn a_packs_exception_quiets_its_rule_and_never_lowers_the_floor() {
    for (rule, expected) in [
        ("foreign_order", "order 2: foreign\n floor orders=1 USDT=600"),
        ("divergent_order", "order 2: foreign\n foreign_order orders=1 USDT=600"),
    ] {
        let mut desk = desk(Vec::new());
        let (declared, rules) = (Box::new(desk.declared.clone()), Box::new(excepted(rule).unwrap()));
        desk.event(Event::Started { version: "test".into(), declared, rules });
        desk.live(1);
        desk.say(countersign::kernel::intent::IntentBody::Heartbeat { egress: None });
        rob(&mut desk, 2);
        let found: String =
            desk.sum_up().lines().filter(|line| !line.starts_with("blind")).collect::<Vec<_>>().join("\n ");
        assert_eq!(found, expected, "{rule}");
    }
    let mut desk = desk(Vec::new());
    let (declared, rules) = (Box::new(desk.declared.clone()), Box::new(excepted("symbol_never_traded").unwrap()));
    desk.event(Event::Started { version: "test".into(), declared, rules });
    desk.live(1);
    desk.show(desk.order(2, "thief").with(|order| order.symbol = Symbol::new("VIABTC")).placed());
    let line = &desk.incident("foreign_order").lines[0].text;
    assert!(!line.contains("symbol_never_traded"), "above the floor it does what it says: {line}");
    assert_eq!(desk.kernel.status().exceptions[0].findings, 1);
}

#[test]
fn a_packs_exception_that_lacks_something_does_not_load() {
    assert!(excepted("foreign_order").is_ok());
    let stable = include_str!("../../rules/binance-spot.toml");
    for line in PACK_EXCEPTION.lines().filter(|line| line.contains(" = ")) {
        let (field, _) = line.split_once(" = ").unwrap();
        let text = format!("{stable}{}", PACK_EXCEPTION.replace(line, ""));
        let fault = toml::from_str::<Pack>(&text).expect_err(field).to_string();
        assert!(fault.contains(&format!("missing field `{field}`")), "{fault}");
    }
    for (from, to, words) in [
        ("\"2099-01-01\"", "\"soon\"", "\"soon\" is not a date"),
        ("\"2099-01-01\"", "2099-01-01", "a date in quotes"),
        ("{ USDT = \"1000000\", BTC = \"1000000\" }", "{}", "its notional needs a bound above 0"),
        ("USDT = \"1000000\"", "USDT = \"0\"", "its notional needs a bound above 0"),
        ("in = [\"order\"]", "in = [\"odrer\"]", "\"odrer\" is not a value of subject"),
        ("{ field = \"subject\", in = [\"order\"] }", "{ all = [] }", "`when` has no term"),
        ("\"the pack's author\"", "\" \"", "its owner has 1 to 200 characters"),
        ("\"anything\"", "\"a/b\"", "no '/'"),
    ] {
        let text = format!("{stable}{}", PACK_EXCEPTION.replace(from, to));
        let loaded = toml::from_str::<Pack>(&text).map_err(|error| error.to_string());
        let fault = loaded.and_then(|pack| RuleSet::new([pack])).expect_err(to);
        assert!(fault.contains(words), "{to}: {fault}");
    }
}

const CONFIG: &str = r#"
data = "data"
[account]
name = "main"
api_key = "file:watch.key"
api_secret = "file:watch.secret"
tag_secret = "file:tag.secret"
[[bot]]
name = "mm"
orders_per_minute = 60
[bot.symbols.BTCUSDT]
quote = "USDT"
order_quantity = "1"
[bot.quote.USDT]
order_notional = "50000"
notional_per_hour = "1000000"
"#;

const LOCAL_EXCEPTION: &str = r#"
[[exception]]
name = "by-hand"
rule = "foreign_order"
when = { field = "symbol", in = ["BTCUSDT"] }
owner = "alice"
reason = "she trades by hand"
expires = "2025-11-24T16:00:20Z"
notional = { USDT = "1000" }
"#;

fn load(exceptions: &str) -> Result<Vec<LocalException>, String> {
    Config::parse(&format!("{CONFIG}{exceptions}"), Path::new(".")).map(|config| config.declared.exceptions)
}

#[test]
fn a_local_exception_that_lacks_something_is_refused_with_a_hint() {
    assert_eq!(load(LOCAL_EXCEPTION), Ok(vec![by_hand("foreign_order", "1000")]));
    for line in LOCAL_EXCEPTION.lines().filter(|line| line.contains(" = ")) {
        let (field, _) = line.split_once(" = ").unwrap();
        let fault = load(&LOCAL_EXCEPTION.replace(line, "")).expect_err(field);
        assert!(fault.contains(&format!("has no {field}\nhint: ")), "{fault}");
    }
    for (from, to, words) in [
        ("\"foreign_order\"", "\"foreign_odrer\"", "there is no rule \"foreign_odrer\"\nhint: "),
        ("\"foreign_order\"", "\"blind\"", "no exception quiets what is built in"),
        ("\"foreign_order\"", "\"key_refused\"", "no exception quiets what is built in"),
        ("\"foreign_order\"", "\"unseen_intent\"", "has no money, so no bound would hold"),
        ("\"foreign_order\"", "\"unfamiliar_address\"", "account.familiar_networks"),
        ("\"by-hand\"", "\"by hand\"", "exception.name is 1 to 40"),
        ("\"1000\"", "\"-1\"", "its notional needs a bound above 0"),
        ("\"2025-11-24T16:00:20Z\"", "\"never\"", "\"never\" is not a date"),
        ("in = [\"BTCUSDT\"]", "above = \"1\"", "the test on symbol must use `in`"),
        ("owner =", "mode = \"act\"\nowner =", "unknown field `mode`"),
    ] {
        let fault = load(&LOCAL_EXCEPTION.replace(from, to)).expect_err(to);
        assert!(fault.contains(words), "{to}: {fault}");
    }
    let twice = load(&LOCAL_EXCEPTION.repeat(2)).expect_err("a name stands once");
    assert_eq!(twice, "exception \"by-hand\" stands twice");
    assert!(load(&LOCAL_EXCEPTION.repeat(17)).expect_err("too many").contains("more than 16 [[exception]]"));
    assert!(load(&LOCAL_EXCEPTION.replace("\"foreign_order\"", "\"floor\"")).is_ok());
}

#[test]
fn a_new_exception_must_end_within_ninety_days_and_a_known_one_just_ends() {
    let until = |seconds: u64| {
        let mut local = by_hand("foreign_order", "1000");
        local.exception.expires = Expiry(START + Duration::from_secs(seconds));
        vec![local]
    };
    let ninety = 90 * 86_400;
    for (exceptions, known, words) in [
        (until(1), vec![], None),
        (until(ninety), vec![], None),
        (until(0), vec![], Some("was over at 2025-11-24T16:00:00Z\nhint: ")),
        (until(0), until(0), None),
        (until(0), until(1), Some("was over at")),
        (until(ninety + 1), vec![], Some("more than 90 days ahead\nhint: ")),
    ] {
        match (check_new(START, &exceptions, &known), words) {
            (Ok(()), None) => {}
            (Err(fault), Some(words)) => assert!(fault.contains(words), "{fault}"),
            (checked, _) => panic!("{exceptions:?} after {known:?}: {checked:?}"),
        }
    }
}
