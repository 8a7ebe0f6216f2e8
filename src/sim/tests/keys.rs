//! Keys at the lowest wall: requests as they arrive, answers as they leave, and the ledger's count of what was done.

use std::net::IpAddr;
use std::time::Duration;

use data_encoding::BASE64;
use ed25519_dalek::pkcs8::EncodePublicKey;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

use crate::kernel::time::Time;
use crate::sim::client::sign;
use crate::sim::config::{EmptiedAddressList, PostedAddresses, SimConfig, StreamsOfDeletedKeys};
use crate::sim::delivery::Push;
use crate::sim::exchange::{Caller, Exchange, HttpAnswer, HttpReply, HttpRequest};

const EMAIL: &str = "main%2Bbot%40example.com";
const KEYS: &str = "/sapi/v1/sub-account/subAccountApi";
const PERMISSION: &str = "/sapi/v1/sub-account/subAccountApiPermission";
const RESTRICTION: &str = "/sapi/v1/sub-account/subAccountApi/ipRestriction";
const RESTRICTION_V2: &str = "/sapi/v2/sub-account/subAccountApi/ipRestriction";
const ADDRESS_LIST: &str = "/sapi/v1/sub-account/subAccountApi/ipRestriction/ipList";
const TRANSFER: &str = "/sapi/v1/sub-account/universalTransfer";
const PAIRS: &str = "/sapi/v1/margin/allPairs";
const ORDER: &str = "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTC&quantity=0.001&price=50000";

struct Desk {
    exchange: Exchange,
    config: SimConfig,
    now: Time,
}

#[derive(Clone)]
struct Key {
    api_key: String,
    secret: String,
}

impl Desk {
    fn new(adjust: impl FnOnce(&mut SimConfig)) -> Self {
        let now = Time::from_millis(1_764_000_000_000);
        let mut config = SimConfig::demo(1, 1, || Time::from_millis(0));
        config.price_step = None;
        adjust(&mut config);
        Self { exchange: Exchange::new(now, &config).unwrap(), config, now }
    }

    fn key(&self, name: &str) -> Key {
        let mut keys = self.config.accounts.iter().flat_map(|account| &account.keys);
        let key = keys.find(|key| key.name.ends_with(name)).unwrap();
        Key { api_key: key.api_key.clone(), secret: key.secret.clone().unwrap() }
    }

    fn send(&mut self, address: &str, api_key: &str, method: &str, path: &str, query: String) -> HttpReply {
        let address: IpAddr = address.parse().unwrap();
        let request = HttpRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            query,
            body: String::new(),
            api_key: Some(api_key.to_owned()),
            caller: Caller { address, agent: "test".into() },
            held: false,
        };
        self.exchange.http(self.now, &request)
    }

    fn signed(&self, key: &Key, form: &str) -> String {
        let form = if form.is_empty() { String::new() } else { format!("{form}&") };
        let form = format!("{form}timestamp={}", self.now.millis());
        let signature = sign(&key.secret, &form);
        format!("{form}&signature={signature}")
    }

    fn reply(&mut self, key: &Key, method: &str, path: &str, form: &str) -> HttpReply {
        let query = self.signed(key, form);
        self.send("127.0.0.1", &key.api_key, method, path, query)
    }

    fn ask(&mut self, key: &Key, method: &str, path: &str, form: &str) -> Value {
        let answer = answer(self.reply(key, method, path, form));
        assert_eq!(answer.status, 200, "{method} {path} {form}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    fn refused(&mut self, key: &Key, method: &str, path: &str, form: &str) -> (u16, i64) {
        code(self.reply(key, method, path, form))
    }

    fn on(&self, key: &Key) -> String {
        format!("email={EMAIL}&subAccountApiKey={}", key.api_key)
    }

    fn control(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let caller = Caller { address: "127.0.0.1".parse().unwrap(), agent: "script".into() };
        let request = HttpRequest {
            method: method.to_owned(),
            path: format!("/sim/v1/{path}"),
            query: String::new(),
            body: body.to_string(),
            api_key: None,
            caller,
            held: false,
        };
        let answer = answer(self.exchange.http(self.now, &request));
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    fn inflict(&mut self, path: &str, method: &str, what: Value) {
        let fault = json!([{ "fault": "endpoint", "method": method, "path": path, "count": 1, "do": what }]);
        self.control("POST", "faults", &fault);
    }

    /// What was done to keys: who did what to which.
    fn effects(&mut self) -> Vec<[String; 3]> {
        let ledger = self.control("GET", "ledger", &json!({}));
        let rows = ledger["rows"].as_array().unwrap().iter().filter(|row| !row["changed_key"].is_null());
        rows.map(|row| ["key", "kind", "changed_key"].map(|field| row[field].as_str().unwrap().to_owned())).collect()
    }
}

fn answer(reply: HttpReply) -> HttpAnswer {
    match reply {
        HttpReply::Answer(answer) => answer,
        other => panic!("an answer was expected, not {other:?}"),
    }
}

fn code(reply: HttpReply) -> (u16, i64) {
    let answer = answer(reply);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    (answer.status, body["code"].as_i64().unwrap_or_default())
}

#[test]
fn a_master_lists_freezes_and_deletes_a_key() {
    let mut desk = Desk::new(|_| {});
    let (admin, bot, cancel) = (desk.key("admin"), desk.key("/bot"), desk.key("/cancel"));
    let listed = desk.ask(&admin, "GET", KEYS, &format!("email={EMAIL}"));
    assert_eq!((&listed["total"], listed["rows"].as_array().unwrap().len()), (&json!(3), 3));
    let row = &listed["rows"][0];
    let made = desk.now.millis();
    let expected = json!({
        "email": "main+bot@example.com", "apiName": "bot", "apikey": bot.api_key, "canTrade": true,
        "canMarginLoanRepay": false, "canFuturesTrade": false, "canUniversalTransfer": false,
        "canVanillaOptions": false, "timestamp": made,
    });
    assert_eq!(*row, expected);
    let second = desk.ask(&admin, "GET", KEYS, &format!("email={EMAIL}&size=2&page=2"));
    assert_eq!((&second["total"], &second["rows"][0]["apiName"]), (&json!(3), &json!("watch")));

    let resting = desk.ask(&bot, "POST", "/api/v3/order", &format!("{ORDER}&newClientOrderId=rests"));
    let frozen = format!("{}&canTrade=false&canFuturesTrade=false", desk.on(&bot));
    for _ in 0..2 {
        assert_eq!(desk.ask(&admin, "POST", PERMISSION, &frozen)["canTrade"], false);
    }
    assert_eq!(desk.refused(&bot, "POST", "/api/v3/order", ORDER), (401, -2015));
    assert_eq!(desk.ask(&bot, "GET", "/api/v3/openOrders", "")[0]["orderId"], resting["orderId"]);
    let thawed = format!("{}&canTrade=true", desk.on(&bot));
    desk.ask(&admin, "POST", PERMISSION, &thawed);
    desk.ask(&bot, "POST", "/api/v3/order", ORDER);

    let target = desk.on(&bot);
    assert_eq!(desk.ask(&admin, "DELETE", KEYS, &target), json!({}));
    assert_eq!(desk.refused(&admin, "DELETE", KEYS, &target), (400, -9000));
    assert_eq!(desk.ask(&admin, "GET", KEYS, &target)["total"], 0);
    // Orders belong to the account.
    assert_eq!(desk.ask(&cancel, "GET", "/api/v3/openOrders", "").as_array().unwrap().len(), 2);
    desk.ask(&cancel, "DELETE", "/api/v3/openOrders", "symbol=BTCUSDT");
    let by_master = |kind: &str| ["master/admin".to_owned(), kind.to_owned(), "main/bot".to_owned()];
    assert_eq!(desk.effects(), [by_master("KEY_PERMISSIONS"), by_master("KEY_PERMISSIONS"), by_master("KEY_DELETED")]);
}

#[test]
fn a_dead_key_is_told_apart_from_a_live_one() {
    let mut desk = Desk::new(|_| {});
    let (admin, bot, watch) = (desk.key("admin"), desk.key("/bot"), desk.key("/watch"));
    let probe = |desk: &mut Desk, api_key: &str| {
        let header_only = answer(desk.send("127.0.0.1", api_key, "GET", PAIRS, String::new()));
        let body: Value = serde_json::from_str(&header_only.body).unwrap();
        let junk = Key { api_key: api_key.to_owned(), secret: "junk".to_owned() };
        [
            (header_only.status, body["code"].as_i64().unwrap_or_default()),
            desk.refused(&junk, "GET", "/api/v3/account", ""),
            desk.refused(&junk, "GET", "/sapi/v1/account/apiRestrictions", ""),
        ]
    };
    assert_eq!(probe(&mut desk, &bot.api_key), [(200, 0), (400, -1022), (400, -1022)]);
    assert_eq!(probe(&mut desk, "no key!"), [(401, -2014); 3]);
    let target = desk.on(&bot);
    desk.ask(&admin, "DELETE", KEYS, &target);
    assert_eq!(probe(&mut desk, &bot.api_key), [(400, -2008), (401, -2015), (400, -2008)]);
    // A live key from elsewhere looks dead on both.
    let query = desk.signed(&admin, "");
    for path in ["/api/v3/account", "/sapi/v1/account/apiRestrictions"] {
        assert_eq!(code(desk.send("127.0.0.2", &admin.api_key, "GET", path, query.clone())), (401, -2015));
    }
    let restrictions = desk.ask(&watch, "GET", "/sapi/v1/account/apiRestrictions", "");
    assert_eq!(
        (&restrictions["ipRestrict"], &restrictions["enableSpotAndMarginTrading"]),
        (&json!(false), &json!(false))
    );
    let restrictions = desk.ask(&admin, "GET", "/sapi/v1/account/apiRestrictions", "");
    assert_eq!((&restrictions["ipRestrict"], &restrictions["enableInternalTransfer"]), (&json!(true), &json!(true)));
}

#[test]
fn what_is_signed_has_to_be_encoded_first() {
    let mut desk = Desk::new(|_| {});
    let admin = desk.key("admin");
    let plain = format!("email=main+bot@example.com&timestamp={}", desk.now.millis());
    let encoded = format!("email={EMAIL}&timestamp={}", desk.now.millis());
    for (sent, signed, status) in
        [(&encoded, &encoded, 200), (&plain, &plain, 400), (&encoded, &plain, 400), (&plain, &encoded, 400)]
    {
        let query = format!("{sent}&signature={}", sign(&admin.secret, signed));
        let reply = desk.send("127.0.0.1", &admin.api_key, "GET", KEYS, query);
        assert_eq!(code(reply), (status, if status == 200 { 0 } else { -1022 }), "{sent} signed as {signed}");
    }
}

#[test]
fn only_a_master_says_what_its_keys_may() {
    let mut desk = Desk::new(|_| {});
    let (admin, bot, watch) = (desk.key("admin"), desk.key("/bot"), desk.key("/watch"));
    let target = desk.on(&bot);
    for (key, method, path, form, refusal) in [
        (&bot, "DELETE", KEYS, target.clone(), (400, -9000)),
        (&bot, "GET", KEYS, format!("email={EMAIL}"), (400, -9000)),
        (&watch, "DELETE", KEYS, target.clone(), (401, -2015)),
        (&admin, "GET", KEYS, String::new(), (400, -1102)),
        (&admin, "GET", KEYS, "email=somebody%40example.com".to_owned(), (400, -9000)),
        (&admin, "GET", KEYS, format!("email={EMAIL}&size=101"), (400, -1102)),
        (&admin, "DELETE", KEYS, format!("email={EMAIL}"), (400, -1102)),
        (&admin, "DELETE", KEYS, desk.on(&admin), (400, -9000)),
        (&admin, "POST", PERMISSION, format!("{target}&canTrade=perhaps"), (400, -1102)),
        (&admin, "POST", RESTRICTION_V2, format!("{target}&status=2"), (400, -1102)),
        (&admin, "POST", RESTRICTION_V2, format!("{target}&status=2&ipAddress=here"), (400, -1102)),
        (&admin, "POST", KEYS, format!("email={EMAIL}&apiName=x&status=2"), (400, -1102)),
        (&admin, "POST", KEYS, format!("email={EMAIL}&apiName=x&status=3&thirdPartyName=y"), (400, -9000)),
        (&admin, "POST", RESTRICTION, target.clone(), (404, -1000)),
        (&bot, "POST", TRANSFER, String::new(), (401, -2015)),
    ] {
        assert_eq!(desk.refused(key, method, path, &form), refusal, "{method} {path} {form}");
    }
    assert!(desk.effects().is_empty());
}

#[test]
fn a_restriction_is_posted_and_taken_back() {
    for (posted, emptied, after_post, after_delete) in [
        (PostedAddresses::Add, EmptiedAddressList::Unrestricted, json!(["127.0.0.1", "127.0.0.9"]), "false"),
        (PostedAddresses::Replace, EmptiedAddressList::Restricted, json!(["127.0.0.9"]), "true"),
    ] {
        let mut desk = Desk::new(|config| {
            config.unknowns.posted_addresses = posted;
            config.unknowns.emptied_address_list = emptied;
            config.accounts[0].keys[0].addresses = vec!["127.0.0.1".parse().unwrap()];
        });
        let (admin, bot) = (desk.key("admin"), desk.key("/bot"));
        let target = desk.on(&bot);
        let shown = desk.ask(&admin, "GET", RESTRICTION, &target);
        assert_eq!((&shown["ipRestrict"], &shown["ipList"]), (&json!("true"), &json!(["127.0.0.1"])));
        let set = desk.ask(&admin, "POST", RESTRICTION_V2, &format!("{target}&status=2&ipAddress=127.0.0.9"));
        assert_eq!((&set["status"], &set["ipList"]), (&json!("2"), &after_post));
        let alive_here = posted == PostedAddresses::Add;
        let query = desk.signed(&bot, "");
        let here = desk.send("127.0.0.1", &bot.api_key, "GET", "/api/v3/account", query.clone());
        assert_eq!(answer(here).status, if alive_here { 200 } else { 401 });
        let both = format!("{target}&ipAddress=127.0.0.1%2C127.0.0.9");
        let left = desk.ask(&admin, "DELETE", ADDRESS_LIST, &both);
        assert_eq!((&left["ipRestrict"], &left["ipList"]), (&json!(after_delete), &json!([])));
        let there = desk.send("127.0.0.9", &bot.api_key, "GET", "/api/v3/account", query);
        assert_eq!(answer(there).status, if emptied == EmptiedAddressList::Unrestricted { 200 } else { 401 });
        assert_eq!(desk.effects().len(), 2);
    }
}

#[test]
fn a_new_key_trades_at_once() {
    let mut desk = Desk::new(|_| {});
    let admin = desk.key("admin");
    let form = format!("email={EMAIL}&apiName=spare&status=1&canTrade=true");
    let made = desk.ask(&admin, "POST", KEYS, &form);
    let text = |field: &str| made[field].as_str().unwrap().to_owned();
    let spare = Key { api_key: text("apiKey"), secret: text("secretKey") };
    assert_eq!((&made["canTrade"], &made["status"], &made["ipList"]), (&json!(true), &json!(1), &json!([])));
    desk.ask(&spare, "POST", "/api/v3/order", ORDER);

    let signing = SigningKey::from_bytes(&[7; 32]);
    let public = BASE64.encode(signing.verifying_key().to_public_key_der().unwrap().as_bytes());
    let public: String = public.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let form = format!("email={EMAIL}&apiName=own&status=2&ipAddress=127.0.0.1&publicKey={public}");
    let made = desk.ask(&admin, "POST", KEYS, &form);
    assert_eq!((made.get("secretKey"), &made["ipList"]), (None, &json!(["127.0.0.1"])));
    let payload = format!("timestamp={}", desk.now.millis());
    let signature = BASE64.encode(&signing.sign(payload.as_bytes()).to_bytes());
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let query = format!("{payload}&signature={signature}");
    let own = made["apiKey"].as_str().unwrap();
    assert_eq!(answer(desk.send("127.0.0.1", own, "GET", "/api/v3/account", query)).status, 200);

    let account = desk.config.accounts[0].uid;
    let order = json!({ "symbol": "VIABTC", "side": "SELL", "type": "MARKET", "quantity": "200" });
    let planted = desk.control("POST", "keys", &json!({ "account": account, "name": "planted", "order": order }));
    assert_eq!(planted["order"]["status"], "FILLED");
    let listed = desk.ask(&admin, "GET", KEYS, &format!("email={EMAIL}"));
    assert_eq!((&listed["total"], listed["rows"].as_array().unwrap().len()), (&json!(6), 6));
    let effects = desk.effects();
    let told: Vec<_> = effects.iter().map(|row| (row[0].as_str(), row[2].as_str())).collect();
    let expected = [("master/admin", "main/spare#1"), ("master/admin", "main/own#2"), ("script", "main/planted#3")];
    assert_eq!(told, expected);
    for number in 6..30 {
        desk.control("POST", "keys", &json!({ "account": account, "name": format!("k{number}") }));
    }
    let form = format!("email={EMAIL}&apiName=one-more&status=1");
    assert_eq!(desk.refused(&admin, "POST", KEYS, &form), (400, -9000));
}

#[test]
fn a_stream_outlives_its_key_or_not_as_set() {
    for (fate, frames) in [
        (StreamsOfDeletedKeys::Keep, vec!["executionReport", "outboundAccountPosition"]),
        (StreamsOfDeletedKeys::Terminate, vec!["eventStreamTerminated"]),
        (StreamsOfDeletedKeys::FallSilent, vec![]),
    ] {
        let mut desk = Desk::new(|config| config.unknowns.streams_of_deleted_keys = fate);
        let (admin, bot, cancel) = (desk.key("admin"), desk.key("/bot"), desk.key("/cancel"));
        let caller = Caller { address: "127.0.0.1".parse().unwrap(), agent: "test".into() };
        let connection = desk.exchange.connect(desk.now, caller, "returnRateLimits=false").unwrap();
        let timestamp = desk.now.millis();
        let signature = sign(&bot.secret, &format!("apiKey={}&timestamp={timestamp}", bot.api_key));
        let params = json!({ "apiKey": bot.api_key, "timestamp": timestamp, "signature": signature });
        let ask = json!({ "id": 1, "method": "userDataStream.subscribe.signature", "params": params });
        desk.exchange.message(desk.now, connection, &ask.to_string());
        assert_eq!(desk.exchange.take_deliveries().count(), 1);
        let target = desk.on(&bot);
        desk.ask(&admin, "DELETE", KEYS, &target);
        desk.ask(&cancel, "POST", "/api/v3/order", ORDER);
        let told: Vec<String> = desk
            .exchange
            .take_deliveries()
            .map(|delivery| match delivery.push {
                Push::Text(text) => serde_json::from_str::<Value>(&text).unwrap()["event"]["e"].to_string(),
                Push::Close | Push::Freeze => "the connection's end".to_owned(),
            })
            .collect();
        assert_eq!(told, frames.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>(), "{fate:?}");
        desk.exchange.message(desk.now, connection, &ask.to_string());
        let Some(Push::Text(text)) = desk.exchange.take_deliveries().next().map(|delivery| delivery.push) else {
            panic!("no answer")
        };
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["error"]["code"], -2015);
    }
}

#[test]
fn each_endpoint_has_a_weight_of_its_own() {
    let mut desk = Desk::new(|_| {});
    let (admin, bot) = (desk.key("admin"), desk.key("/bot"));
    let form = format!("email={EMAIL}");
    let mut last = None;
    for _ in 0..60 {
        last = Some(answer(desk.reply(&admin, "GET", KEYS, &form)));
    }
    let last = last.unwrap();
    assert_eq!((last.status, &last.headers), (200, &vec![("x-sapi-used-uid-weight-1m", "180000".to_owned())]));
    let held = answer(desk.reply(&admin, "GET", KEYS, &form));
    let headers = [("x-sapi-used-uid-weight-1m", "180000".to_owned()), ("retry-after", "60".to_owned())];
    assert_eq!((held.status, held.headers.as_slice()), (429, headers.as_slice()));
    let pairs = answer(desk.send("127.0.0.1", &bot.api_key, "GET", PAIRS, String::new()));
    assert_eq!((pairs.status, pairs.headers), (200, vec![("x-sapi-used-ip-weight-1m", "1".to_owned())]));
    let target = desk.on(&bot);
    desk.ask(&admin, "GET", RESTRICTION, &target);
    for _ in 0..20 {
        assert!(matches!(desk.refused(&admin, "GET", KEYS, &form).0, 429 | 418));
    }
    assert_eq!(desk.refused(&bot, "GET", "/api/v3/account", "").0, 418);
    desk.now = desk.now + Duration::from_secs(120);
    desk.ask(&admin, "GET", KEYS, &form);
}

#[test]
fn a_master_sweeps_its_sub_account() {
    let mut desk = Desk::new(|_| {});
    let (admin, bot) = (desk.key("admin"), desk.key("/bot"));
    desk.ask(&bot, "POST", "/api/v3/order", ORDER);
    let sweep = format!("fromEmail={EMAIL}&fromAccountType=SPOT&toAccountType=SPOT&asset=USDT&amount");
    // What an open order has set aside stays.
    assert_eq!(desk.refused(&admin, "POST", TRANSFER, &format!("{sweep}=100000")), (400, -9000));
    let done = desk.ask(&admin, "POST", TRANSFER, &format!("{sweep}=99950&clientTranId=sweep-1"));
    assert_eq!(done, json!({ "tranId": 1, "clientTranId": "sweep-1" }));
    // An id counts once, and the history tells what became of it.
    assert_eq!(desk.refused(&admin, "POST", TRANSFER, &format!("{sweep}=1&clientTranId=sweep-1")), (400, -9000));
    let shown = desk.ask(&admin, "GET", TRANSFER, &format!("fromEmail={EMAIL}&clientTranId=sweep-1"));
    let row = &shown["result"][0];
    assert_eq!((&shown["totalCount"], &row["status"], &row["tranId"]), (&json!(1), &json!("SUCCESS"), &json!(1)));
    assert_eq!(
        (&row["asset"], &row["amount"], &row["fromEmail"]),
        (&json!("USDT"), &json!("99950.00000000"), &json!("main+bot@example.com"))
    );
    for none in [format!("fromEmail={EMAIL}&clientTranId=sweep-2"), format!("toEmail={EMAIL}"), String::new()] {
        assert_eq!(desk.ask(&admin, "GET", TRANSFER, &none)["totalCount"], json!(0), "{none}");
    }
    let both = format!("fromEmail={EMAIL}&toEmail={EMAIL}");
    assert_eq!(desk.refused(&admin, "GET", TRANSFER, &both), (400, -9000));
    let held = desk.ask(&admin, "GET", "/api/v3/account", "omitZeroBalances=true");
    assert_eq!(held["balances"], json!([{ "asset": "USDT", "free": "99950.00000000", "locked": "0.00000000" }]));
    let ledger = desk.control("GET", "ledger", &json!({}));
    let moved: Vec<_> = ledger["rows"].as_array().unwrap().iter().filter(|row| row["kind"] == "TRANSFER").collect();
    let told: Vec<_> = moved.iter().map(|row| (&row["account"], &row["amount"], &row["key"])).collect();
    let (by, uids) = (json!("master/admin"), [0, 1].map(|number| json!(desk.config.accounts[number].uid)));
    assert_eq!(told, [(&uids[0], &json!("-99950.00000000"), &by), (&uids[1], &json!("99950.00000000"), &by)]);
}

#[test]
fn faults_strike_before_or_after_the_effect() {
    for (what, effects) in [
        (json!({ "answer": { "status": 503, "code": -1008 } }), 0),
        (json!("cut"), 0),
        (json!({ "hold": { "ms": 50 } }), 0),
        (json!({ "late": { "ms": 50 } }), 1),
        (json!("cut_after"), 1),
        (json!("unknown_after"), 1),
        (json!("garbage"), 1),
    ] {
        let mut desk = Desk::new(|_| {});
        let (admin, bot) = (desk.key("admin"), desk.key("/bot"));
        let target = desk.on(&bot);
        desk.inflict(KEYS, "DELETE", what.clone());
        let reply = desk.reply(&admin, "DELETE", KEYS, &target);
        assert_eq!(desk.effects().len(), effects, "{what}");
        match (what.as_str(), reply) {
            (Some("cut" | "cut_after"), HttpReply::Cut) => {}
            (Some("unknown_after"), reply) => assert_eq!(code(reply), (504, -1007)),
            (Some("garbage"), HttpReply::Answer(answer)) => {
                assert!(serde_json::from_str::<Value>(&answer.body).is_err());
            }
            (None, HttpReply::Held(wait)) => assert_eq!(wait, Duration::from_millis(50)),
            (None, HttpReply::Late(wait, answer)) => assert_eq!((wait.as_millis(), answer.status), (50, 200)),
            (None, reply) => assert_eq!(code(reply), (503, -1008)),
            (Some(_), reply) => panic!("{what}: {reply:?}"),
        }
        // The next call fares as ever, and at most one of the two has done it.
        let second = answer(desk.reply(&admin, "DELETE", KEYS, &target)).status;
        assert_eq!((second, desk.effects().len()), (if effects == 0 { 200 } else { 400 }, 1), "{what}");
    }
}
