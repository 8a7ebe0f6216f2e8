//! What a containment does, over real HTTP against the simulated exchange: its ledger says what was done, and each way
//! in which a call can fail must come back as what it proves.

#![expect(clippy::disallowed_methods, reason = "a test plays the daemon's part: it spawns, and reads the clock")]

#[path = "containment_lane/hooks.rs"]
mod hooks;
#[path = "containment_lane/money.rs"]
mod money;
mod support;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use countersign::kernel::act::{Act, ActOutcome, KeyPrint, KeyRights, ProbeAnswer};
use countersign::kernel::credential::{CredentialFault, CredentialOutcome, CredentialRole};
use countersign::kernel::money::Dec;
use countersign::kernel::order::{Asset, ClientId, OrderId, Symbol};
use countersign::kernel::time::Time;
use countersign::outlet::addresses::LastGood;
use countersign::outlet::bot::StopHook;
use countersign::outlet::containment::{ContainmentOutlet, Parts, client};
use countersign::outlet::webhook::{SIGNATURE_HEADER, TIMESTAMP_HEADER, signature};
use countersign::sim::client::{Credential, RestClient};
use countersign::sim::config::SimConfig;
use countersign::sim::key::Permission;
use countersign::sim::listener::serve;
use countersign::tls;
use countersign::venue::binance::ApiCredential;
use countersign::venue::binance::restrictions::check;
use secrecy::{SecretSlice, SecretString};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

const KEYS: &str = "/sapi/v1/sub-account/subAccountApi";
const RIGHTS: &str = "/sapi/v1/sub-account/subAccountApiPermission";
const PAIRS: &str = "/sapi/v1/margin/allPairs";
const TRANSFER: &str = "/sapi/v1/sub-account/universalTransfer";
const ORDER: &str = "/api/v3/order";

fn clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Time::from_micros(i64::try_from(since.as_micros()).unwrap())
}

struct Venue {
    address: SocketAddr,
    config: SimConfig,
    _shutdown: DropGuard,
}

impl Venue {
    async fn start() -> Self {
        Self::of(SimConfig::demo(1, 1, clock)).await
    }

    async fn of(mut config: SimConfig) -> Self {
        config.price_step = None;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(listener, config.clone(), shutdown.clone()));
        Self { address, config, _shutdown: shutdown.drop_guard() }
    }

    fn key(&self, name: &str) -> Credential {
        let mut keys = self.config.accounts.iter().flat_map(|account| &account.keys);
        let key = keys.find(|key| key.name.ends_with(name)).unwrap();
        Credential { api_key: key.api_key.clone(), secret: key.secret.clone().unwrap() }
    }

    fn print(&self, name: &str) -> KeyPrint {
        KeyPrint::of(&self.key(name).api_key)
    }

    fn credential(&self, name: &str) -> ApiCredential {
        let key = self.key(name);
        ApiCredential::new(key.api_key.into(), key.secret.into()).unwrap()
    }

    fn parts(&self) -> Parts {
        let keys = ["/bot", "/watch", "/cancel"].map(|name| SecretString::from(self.key(name).api_key));
        Parts {
            sub_account: Some(self.config.accounts[0].email.clone().unwrap().into()),
            admin: Some(self.credential("/admin")),
            cancel: Some(self.credential("/cancel")),
            keys: keys.into(),
            hooks: BTreeMap::new(),
            transfer_to_master: true,
        }
    }

    fn outlet(&self, parts: Parts) -> Arc<ContainmentOutlet> {
        outlet(&format!("http://{}", self.address), LastGood::system(), parts)
    }

    fn bot(&self) -> RestClient {
        RestClient::new(&format!("http://{}", self.address), self.key("/bot"), "bot", clock).unwrap()
    }

    async fn place(&self, price: u32) -> OrderId {
        let price = price.to_string();
        let order = [
            ("symbol", "BTCUSDT"),
            ("side", "BUY"),
            ("type", "LIMIT"),
            ("timeInForce", "GTC"),
            ("quantity", "0.001"),
            ("price", &price),
        ];
        OrderId(self.bot().place(&order).await.unwrap()["orderId"].as_i64().unwrap())
    }

    async fn control(&self, path: &str, body: Option<&Value>) -> Value {
        let url = format!("http://{}/sim/v1/{path}", self.address);
        let http = support::client();
        let request = body.map_or_else(|| http.get(&url), |body| http.post(&url).body(body.to_string()));
        let text = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    async fn inflict(&self, method: &str, path: &str, count: u32, what: Value) {
        let fault = json!([{ "fault": "endpoint", "method": method, "path": path, "count": count, "do": what }]);
        assert_eq!(self.control("faults", Some(&fault)).await, json!({}));
    }

    /// What was done to keys: by whom, what, to which.
    async fn done_to_keys(&self) -> Vec<String> {
        let ledger = self.control("ledger", None).await;
        let rows = ledger["rows"].as_array().unwrap().iter().filter(|row| !row["changed_key"].is_null());
        rows.map(|row| ["key", "kind", "changed_key"].map(|field| row[field].as_str().unwrap()).join(" ")).collect()
    }
}

fn outlet(url: &str, names: LastGood, parts: Parts) -> Arc<ContainmentOutlet> {
    let http = client(&tls::client_config(None).unwrap(), names).unwrap();
    Arc::new(ContainmentOutlet::new(url, http, parts))
}

/// What it came to in a word, and why. No reason may hold an address, a signature or a key.
fn word(outcome: &ActOutcome) -> String {
    let text = format!("{outcome:?}");
    assert!(!text.contains("http") && !text.contains("signature") && !text.contains("timestamp="), "{text}");
    match outcome {
        ActOutcome::Keys(keys) => format!("{} keys", keys.len()),
        ActOutcome::Probed(answers) => answers.iter().map(probe_word).collect::<Vec<_>>().join(" "),
        ActOutcome::Orders(orders) => format!("{} orders", orders.len()),
        ActOutcome::Balances(balances) => format!("{} balances", balances.len()),
        ActOutcome::NotFound => "not found".to_owned(),
        ActOutcome::Quote(quote) => format!("{} bids", quote.bids.len()),
        ActOutcome::Sold { executed, .. } => format!("sold {executed}"),
        ActOutcome::Done { .. } => "done".to_owned(),
        ActOutcome::Refused { code, .. } => format!("refused {code}"),
        ActOutcome::Held { .. } => "held".to_owned(),
        ActOutcome::Unknown { .. } => "unknown".to_owned(),
    }
}

fn probe_word(answer: &ProbeAnswer) -> String {
    match answer {
        ProbeAnswer::Dead { code } => format!("dead{code}"),
        ProbeAnswer::Alive { code } => format!("alive{code}"),
        ProbeAnswer::Unclear { .. } => "unclear".to_owned(),
    }
}

fn freeze(key: KeyPrint) -> Act {
    Act::SetRights { key, rights: KeyRights::NONE }
}

fn cancel(order_id: OrderId) -> Act {
    Act::CancelOrder { symbol: Symbol::new("BTCUSDT"), order_id }
}

#[tokio::test]
async fn a_key_is_frozen_deleted_and_proved_dead() {
    let venue = Venue::start().await;
    let outlet = venue.outlet(venue.parts());
    let bot = venue.print("/bot");
    let (probe, delete) = (Act::Probe { key: bot.clone() }, Act::DeleteKey { key: bot.clone() });
    let order = venue.place(20_000).await;

    let ActOutcome::Keys(rows) = outlet.act(&Act::ListKeys, &clock).await else { panic!("it was listed") };
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().any(|row| row.key == bot && row.rights.trade && &*row.name == "bot"));
    assert_eq!(word(&outlet.act(&probe, &clock).await), "alive0 alive-1022");
    assert_eq!(word(&outlet.act(&freeze(bot.clone()), &clock).await), "done");
    let ActOutcome::Keys(rows) = outlet.act(&Act::ListKeys, &clock).await else { panic!("it was listed") };
    assert!(rows.iter().any(|row| row.key == bot && !row.rights.any()));
    assert_eq!(word(&outlet.act(&delete, &clock).await), "done");
    assert_eq!(word(&outlet.act(&Act::ListKeys, &clock).await), "2 keys");
    let dead = word(&outlet.act(&probe, &clock).await);
    assert!(["dead-2008 dead-2015", "dead-2008 dead-2008", "dead-2015 dead-2015"].contains(&dead.as_str()), "{dead}");
    assert!(word(&outlet.act(&delete, &clock).await).starts_with("refused -"), "it is gone");

    assert_eq!(word(&outlet.act(&Act::OpenOrders, &clock).await), "1 orders", "orders outlive the key");
    assert_eq!(word(&outlet.act(&cancel(order), &clock).await), "done");
    assert_eq!(word(&outlet.act(&cancel(order), &clock).await), "refused -2011");
    assert_eq!(word(&outlet.act(&Act::OpenOrders, &clock).await), "0 orders");
    assert_eq!(
        venue.done_to_keys().await,
        ["master/admin KEY_PERMISSIONS main/bot", "master/admin KEY_DELETED main/bot"]
    );
}

#[tokio::test]
async fn a_thawed_key_has_its_rights_again() {
    let venue = Venue::start().await;
    let outlet = venue.outlet(venue.parts());
    let bot = venue.print("/bot");
    assert_eq!(word(&outlet.act(&freeze(bot.clone()), &clock).await), "done");
    let rights = KeyRights { trade: true, ..KeyRights::NONE };
    assert_eq!(word(&outlet.act(&Act::SetRights { key: bot, rights }, &clock).await), "done");
    venue.place(20_000).await;
}

#[tokio::test]
async fn each_failure_comes_back_as_what_it_proves() {
    let venue = Venue::start().await;
    let bot = venue.print("/bot");
    let answer = |status: u16, code: i32| json!({ "answer": { "status": status, "code": code } });
    let acts = [
        (Act::ListKeys, "GET", KEYS),
        (freeze(bot.clone()), "POST", RIGHTS),
        (Act::DeleteKey { key: venue.print("/watch") }, "DELETE", KEYS),
        (Act::OpenOrders, "GET", "/api/v3/openOrders"),
        (cancel(OrderId(1)), "DELETE", ORDER),
    ];
    for (act, method, path) in &acts {
        for (what, expected) in [
            (json!("cut"), "unknown"),
            (answer(503, -1008), "unknown"),
            (answer(500, -2015), "unknown"),
            (answer(400, -1007), "unknown"),
            (answer(401, -2015), "refused -2015"),
            (answer(400, -9000), "refused -9000"),
            (answer(429, -1003), "held"),
            (answer(418, -1003), "held"),
            (answer(403, -1), "held"),
        ] {
            // A fresh one: what was told to wait, waits.
            let outlet = venue.outlet(venue.parts());
            venue.inflict(method, path, 1, what.clone()).await;
            let outcome = outlet.act(act, &clock).await;
            assert_eq!(word(&outcome), expected, "{act:?} with {what}: {outcome:?}");
            if expected == "held" {
                assert_eq!(word(&outlet.act(act, &clock).await), "held", "nothing is sent before its time");
            }
        }
    }
    assert_eq!(venue.done_to_keys().await, Vec::<String>::new(), "none of these was done");
    for what in [json!("cut_after"), json!("unknown_after"), json!("garbage")] {
        let outlet = venue.outlet(venue.parts());
        venue.inflict("POST", RIGHTS, 1, what.clone()).await;
        assert_eq!(word(&outlet.act(&freeze(bot.clone()), &clock).await), "unknown", "{what}");
        for path in [KEYS, "/api/v3/openOrders"] {
            venue.inflict("GET", path, 1, what.clone()).await;
        }
        assert_eq!(word(&outlet.act(&Act::ListKeys, &clock).await), "unknown", "{what}");
        assert_eq!(word(&outlet.act(&Act::OpenOrders, &clock).await), "unknown", "{what}");
    }
    assert!(!venue.done_to_keys().await.is_empty(), "unknown, and done");
}

#[tokio::test]
async fn a_limit_is_obeyed_for_as_long_as_it_says() {
    let venue = Venue::start().await;
    let outlet = venue.outlet(venue.parts());
    venue.inflict("GET", KEYS, 1, json!({ "answer": { "status": 429, "code": -1003, "retry_after": 2 } })).await;
    let ActOutcome::Held { until, .. } = outlet.act(&Act::ListKeys, &clock).await else { panic!("it is limited") };
    let wait = until.since(clock());
    assert!(wait > Duration::from_millis(900) && wait <= Duration::from_secs(2), "{wait:?}");
    let bot = venue.print("/bot");
    assert_eq!(word(&outlet.act(&freeze(bot), &clock).await), "done", "another kind of act is not held");
    tokio::time::sleep(wait + Duration::from_millis(50)).await;
    assert_eq!(word(&outlet.act(&Act::ListKeys, &clock).await), "3 keys");
}

#[tokio::test]
async fn probes_that_tell_nothing_are_no_proof() {
    let venue = Venue::start().await;
    let probe = Act::Probe { key: venue.print("/bot") };
    let answer = |status: u16, code: i32| json!({ "answer": { "status": status, "code": code } });
    for (what, expected) in [
        (json!("cut"), "unclear alive-1022"),
        (json!("garbage"), "unclear alive-1022"),
        (answer(400, -2014), "unclear alive-1022"),
        (answer(503, -2015), "unclear alive-1022"),
        (answer(401, -2015), "dead-2015 alive-1022"),
    ] {
        let outlet = venue.outlet(venue.parts());
        venue.inflict("GET", PAIRS, 1, what.clone()).await;
        assert_eq!(word(&outlet.act(&probe, &clock).await), expected, "{what}");
    }
    let outlet = venue.outlet(venue.parts());
    venue.inflict("GET", PAIRS, 1, answer(418, -1003)).await;
    venue.inflict("GET", "/api/v3/account", 1, json!("cut")).await;
    assert_eq!(word(&outlet.act(&probe, &clock).await), "held");
}

#[tokio::test]
async fn a_refused_time_is_asked_for_again_once() {
    let venue = Venue::start().await;
    let outlet = venue.outlet(venue.parts());
    outlet.warm(&clock).await.unwrap();
    venue.control("faults", Some(&json!([{ "fault": "clock_offset", "ms": 60_000 }]))).await;
    assert_eq!(word(&outlet.act(&freeze(venue.print("/bot")), &clock).await), "done");
    venue.inflict("GET", KEYS, 2, json!({ "answer": { "status": 400, "code": -1021 } })).await;
    assert_eq!(word(&outlet.act(&Act::ListKeys, &clock).await), "refused -1021", "not a third time");
    // Where the venue's clock cannot be asked, ours is tried.
    let venue = Venue::start().await;
    venue.inflict("GET", "/api/v3/time", 9, json!("cut")).await;
    assert_eq!(word(&venue.outlet(venue.parts()).act(&Act::ListKeys, &clock).await), "3 keys");
}

#[tokio::test]
async fn keys_never_wait_for_orders() {
    let venue = Venue::start().await;
    let outlet = venue.outlet(venue.parts());
    outlet.warm(&clock).await.unwrap();
    venue.inflict("DELETE", ORDER, 40, json!({ "hold": { "ms": 3_000 } })).await;
    let cancels: Vec<_> = (1..=40)
        .map(|id| {
            let outlet = outlet.clone();
            tokio::spawn(async move { outlet.act(&cancel(OrderId(id)), &clock).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    let bot = venue.print("/bot");
    assert_eq!(word(&outlet.act(&freeze(bot.clone()), &clock).await), "done");
    assert_eq!(word(&outlet.act(&Act::Probe { key: bot.clone() }, &clock).await), "alive0 alive-1022");
    assert_eq!(word(&outlet.act(&Act::DeleteKey { key: bot }, &clock).await), "done");
    assert_eq!(word(&outlet.act(&Act::ListKeys, &clock).await), "2 keys");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?} for four acts on keys", began.elapsed());
    println!("four acts on keys took {:?} while forty cancels hung", began.elapsed());
    for cancel in cancels {
        cancel.abort();
    }
}

#[tokio::test]
async fn orders_leave_room_for_the_keys() {
    let venue = Venue::start().await;
    let outlet = venue.outlet(venue.parts());
    // The count starts anew with the minute: it must not do so in between.
    while clock().millis() % 60_000 > 45_000 {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut reads = 0;
    let ActOutcome::Held { until, reason } = (loop {
        match outlet.act(&Act::OpenOrders, &clock).await {
            ActOutcome::Orders(_) if reads < 60 => reads += 1,
            other => break other,
        }
        if reads == 40 {
            let quoted = outlet.act(&Act::Quote { symbol: Symbol::new("BTCUSDT") }, &clock).await;
            assert!(
                matches!(quoted, ActOutcome::Held { .. }),
                "what prepares a sale stops before cancels do: {quoted:?}"
            );
        }
    }) else {
        panic!("the weight for orders ends")
    };
    assert_eq!(reads, 52, "70 % of 6000 at 80 each");
    assert!(reason.contains("kept for the keys") && until > clock(), "{reason}");
    let (bot, probe) = (venue.print("/bot"), Act::Probe { key: venue.print("/bot") });
    assert_eq!(word(&outlet.act(&cancel(OrderId(1)), &clock).await), "refused -2011", "there is room for a light one");
    assert_eq!(word(&outlet.act(&probe, &clock).await), "alive0 alive-1022");
    assert_eq!(word(&outlet.act(&freeze(bot), &clock).await), "done");
    assert_eq!(word(&outlet.act(&Act::ListKeys, &clock).await), "3 keys");
    // 4160 for the reads, 1 each for the clock and the cancel, 20 a probe: nothing is left of 4200.
    assert_eq!(word(&outlet.act(&probe, &clock).await), "alive0 alive-1022");
    assert_eq!(word(&outlet.act(&cancel(OrderId(1)), &clock).await), "held", "probes count for orders as well");
}

#[tokio::test]
async fn a_key_that_is_not_known_is_looked_for_and_else_refused() {
    let venue = Venue::start().await;
    let made = json!({ "account": venue.config.accounts[0].uid, "name": "thief" });
    let made = venue.control("keys", Some(&made)).await;
    let thief = KeyPrint::of(made["api_key"].as_str().unwrap());
    let outlet = venue.outlet(venue.parts());
    assert_eq!(word(&outlet.act(&freeze(thief.clone()), &clock).await), "done");
    assert_eq!(word(&outlet.act(&Act::DeleteKey { key: thief.clone() }, &clock).await), "done");
    let probed = word(&outlet.act(&Act::Probe { key: thief }, &clock).await);
    assert!(probed.starts_with("dead") && probed.contains(" dead"), "known after the list has lost it: {probed}");

    let nobody = freeze(KeyPrint::of("nobody"));
    let reason = |outcome: ActOutcome| match outcome {
        ActOutcome::Refused { code: 0, reason } => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(outlet.act(&nobody, &clock).await).contains("the exchange's list does not show it"));
    venue.inflict("GET", KEYS, 1, json!("garbage")).await;
    assert!(reason(outlet.act(&nobody, &clock).await).contains("list could not be read"));
    venue.inflict("GET", KEYS, 1, json!({ "answer": { "status": 429, "code": -1003 } })).await;
    assert_eq!(word(&outlet.act(&nobody, &clock).await), "held");

    let bare = venue.outlet(Parts { keys: venue.parts().keys, ..Parts::default() });
    assert!(reason(bare.act(&Act::ListKeys, &clock).await).contains("no sub-account"));
    assert!(reason(bare.act(&nobody, &clock).await).contains("no sub-account"));
    assert!(reason(bare.act(&Act::OpenOrders, &clock).await).contains("cancel_key"));
    assert!(reason(bare.act(&Act::StopBot { hook: "unit".into() }, &clock).await).contains("\"unit\""));
    let probe = Act::Probe { key: venue.print("/bot") };
    assert_eq!(word(&bare.act(&probe, &clock).await), "alive0 alive-1022", "by hand, the declared key is still probed");
}

#[tokio::test]
async fn a_failing_name_server_stops_nothing() {
    let venue = Venue::start().await;
    let (works, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (address, seen) = (venue.address, (works.clone(), asked.clone()));
    let names = LastGood::new(move |name| {
        assert_eq!(name, "exchange.test");
        let (works, asked) = &seen;
        asked.fetch_add(1, Ordering::SeqCst);
        let works = works.load(Ordering::SeqCst);
        Box::pin(async move { if works { Ok(vec![address]) } else { Err(io::ErrorKind::NotFound.into()) } })
    });
    let outlet = outlet(&format!("http://exchange.test:{}", address.port()), names, venue.parts());
    outlet.warm(&clock).await.unwrap();
    works.store(false, Ordering::SeqCst);
    let before = asked.load(Ordering::SeqCst);
    assert!(before > 0);
    // Every open connection is cut, so the name is needed again.
    for _ in 0..3 {
        venue.inflict("GET", KEYS, 1, json!("cut")).await;
        assert_eq!(word(&outlet.act(&Act::ListKeys, &clock).await), "unknown");
    }
    assert_eq!(word(&outlet.act(&freeze(venue.print("/bot")), &clock).await), "done");
    assert!(asked.load(Ordering::SeqCst) > before, "the name server was asked, and failed");
}

#[tokio::test]
async fn an_exchange_that_says_nothing_is_unknown_in_time() {
    let venue = Venue::start().await;
    let outlet = venue.outlet(venue.parts());
    venue.inflict("POST", RIGHTS, 1, json!({ "late": { "ms": 20_000 } })).await;
    let began = Instant::now();
    assert_eq!(word(&outlet.act(&freeze(venue.print("/bot")), &clock).await), "unknown");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(venue.done_to_keys().await.len(), 1, "and it was done");
}

#[tokio::test]
async fn credentials_are_looked_at() {
    let venue = Venue::start().await;
    let outlet = venue.outlet(venue.parts());
    for (role, key, expected) in [
        (CredentialRole::Watch, "/watch", ""),
        (CredentialRole::Cancel, "/cancel", ""),
        (CredentialRole::Admin, "/admin", ""),
        (CredentialRole::Watch, "/bot", "may trade"),
        (CredentialRole::Cancel, "/watch", "may not cancel"),
        (CredentialRole::Admin, "/bot", "works from every address"),
    ] {
        let restrictions = outlet.restrictions(&venue.credential(key), &clock).await.unwrap();
        let faults = told(&check(role, &restrictions).err().unwrap_or_default());
        assert!(faults.contains(expected) && faults.is_empty() == expected.is_empty(), "{role:?} {key}: {faults}");
    }
    let nobody = ApiCredential::new("nobody".into(), "secret".into()).unwrap();
    let gone = outlet.check(CredentialRole::Cancel, &nobody, &clock).await;
    let CredentialOutcome::Wrong { faults } = &gone else { panic!("no such key: {gone:?}") };
    assert!(told(faults).contains("the cancel key is not known to the exchange (-2008)"), "{faults:?}");
    // A key of the exchange's, with a secret that is not its own.
    let mixed = ApiCredential::new(venue.credential("/admin").api_key().into(), "another".into()).unwrap();
    let mixed = outlet.check(CredentialRole::Admin, &mixed, &clock).await;
    let CredentialOutcome::Wrong { faults } = &mixed else { panic!("a wrong secret: {mixed:?}") };
    assert!(told(faults).contains("the secret of the admin key is not the key's (-1022)"), "{faults:?}");
}

fn told(faults: &[CredentialFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_key_that_may_do_too_much_is_used_no_more_until_it_is_mended() {
    let venue = Venue::start().await;
    let outlet = venue.outlet(venue.parts());
    let (admin, cancel) = (venue.credential("/admin"), venue.credential("/cancel"));
    assert_eq!(outlet.check(CredentialRole::Cancel, &cancel, &clock).await, CredentialOutcome::Fine);
    assert_eq!(word(&outlet.act(&Act::OpenOrders, &clock).await), "0 orders");

    let master = RestClient::new(&format!("http://{}", venue.address), venue.key("/admin"), "owner", clock).unwrap();
    let permit = async |futures: &str| {
        let (email, key) = (venue.config.accounts[0].email.clone().unwrap(), venue.key("/cancel").api_key);
        let params = [("email", email.as_str()), ("subAccountApiKey", &key), ("canFuturesTrade", futures)];
        master.signed(reqwest::Method::POST, RIGHTS, &params).await.unwrap();
    };
    permit("true").await;
    let CredentialOutcome::Wrong { faults } = outlet.check(CredentialRole::Cancel, &cancel, &clock).await else {
        panic!("it may trade futures")
    };
    assert!(told(&faults).contains("enableFutures") && told(&faults).contains("hint: untick"), "{faults:?}");
    let ActOutcome::Refused { code: 0, reason } = outlet.act(&Act::OpenOrders, &clock).await else {
        panic!("it is used all the same")
    };
    assert!(reason.contains("enableFutures") && reason.contains("untick"), "{reason}");
    // The other key is another matter.
    assert_eq!(outlet.check(CredentialRole::Admin, &admin, &clock).await, CredentialOutcome::Fine);
    assert_eq!(word(&outlet.act(&Act::ListKeys, &clock).await), "3 keys");

    // What could not be looked at is not fine, and frees nothing.
    venue.inflict("GET", "/sapi/v1/account/apiRestrictions", 1, json!("cut")).await;
    let unknown = outlet.check(CredentialRole::Cancel, &cancel, &clock).await;
    assert!(matches!(unknown, CredentialOutcome::Unknown { .. }), "{unknown:?}");
    assert_eq!(word(&outlet.act(&Act::OpenOrders, &clock).await), "refused 0");
    permit("false").await;
    assert_eq!(outlet.check(CredentialRole::Cancel, &cancel, &clock).await, CredentialOutcome::Fine);
    assert_eq!(word(&outlet.act(&Act::OpenOrders, &clock).await), "0 orders");
}
