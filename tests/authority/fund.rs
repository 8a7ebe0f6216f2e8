//! Fund mode in a group: alice has asked for something, and everybody tries to approve it.

use super::*;

/// On the list and no person: the asker's second account, for all that anybody knows.
const CLERK: i64 = 44;

struct Fund {
    api: BotApi,
    hook: Hook,
    daemon: Daemon,
}

struct FundRow {
    name: &'static str,
    send: fn(&Fund),
    /// Told on the webhook: the reason of a refusal, or what was done.
    told: &'static str,
    done: bool,
}

const fn refused(name: &'static str, told: &'static str, send: fn(&Fund)) -> FundRow {
    FundRow { name, send, told, done: false }
}

const ROWS: &[FundRow] = &[
    refused("the asker, with another right code", "whoever asks cannot approve", |f| {
        f.say(OWNER, &format!("/approve 1 {}", f.code("alice", 1)));
    }),
    refused("an account that is no person's", "you are none of [[operators.person]]", |f| {
        f.say(CLERK, &format!("/approve 1 {}", f.common_code()));
    }),
    refused("no code", "this needs a one-time password", |f| f.say(PARTNER, "/approve 1")),
    refused("a wrong code", "the one-time password is wrong", |f| {
        let code = f.code("bob", 0);
        f.say(PARTNER, &format!("/approve 1 {}", if code == "000000" { "000001" } else { "000000" }));
    }),
    refused("the asker's code", "the one-time password is wrong", |f| {
        f.say(PARTNER, &format!("/approve 1 {}", f.code("alice", 1)));
    }),
    refused("the common code", "the one-time password is wrong", |f| {
        f.say(PARTNER, &format!("/approve 1 {}", f.common_code()));
    }),
    refused("another number", "no such request", |f| f.say(PARTNER, &format!("/approve 2 {}", f.code("bob", 0)))),
    refused("the second person in his own chat", "not the paired one", |f| {
        f.api.say(PARTNER, f.daemon.clock.secs(), &format!("/approve 1 {}", f.code("bob", 0)));
    }),
    refused("a stranger", "not on the list", |f| f.say(STRANGER, &format!("/approve 1 {}", f.code("bob", 0)))),
    refused("an anonymous admin", "nobody can tell", |f| {
        f.say_with(ANONYMOUS_ADMIN, &format!("/approve 1 {}", f.code("bob", 0)), |m| {
            m["sender_chat"] = json!({"id": GROUP, "type": "supergroup", "title": "g"});
        });
    }),
    refused("the second person's word, forwarded by the asker", "a forwarded message", |f| {
        f.say_with(OWNER, &format!("/approve 1 {}", f.code("bob", 0)), |m| {
            m["forward_origin"] = json!({"type": "user", "date": m["date"], "sender_user": person(PARTNER)});
        });
    }),
    refused("edited into an approval", "an edited message", |f| {
        f.say_with(PARTNER, &format!("/approve 1 {}", f.code("bob", 0)), |m| m["edit_date"] = m["date"].clone());
    }),
    refused("a stale approval", "more than 60 s away", |f| {
        let late = f.daemon.clock.secs() - 70;
        f.say_with(PARTNER, &format!("/approve 1 {}", f.code("bob", 0)), |m| m["date"] = late.into());
    }),
    refused("asked for once more by the second person", "you can approve request 1", |f| {
        f.say(PARTNER, &format!("/disarm main {} I want it too", f.code("bob", 0)));
    }),
    refused("asked for by no person", "you are none of [[operators.person]]", |f| {
        f.say(CLERK, &format!("/arm main {} it is safe", f.common_code()));
    }),
    refused("declined by no person", "you are none of [[operators.person]]", |f| f.say(CLERK, "/decline 1")),
    refused("approved after it was declined", "no such request", |f| {
        f.say(PARTNER, "/decline 1");
        f.say(PARTNER, &format!("/approve 1 {}", f.code("bob", 0)));
    }),
    refused("taken back by the asker", "Request 1 was declined by alice (Telegram user 42)", |f| {
        f.say(OWNER, "/decline 1");
    }),
    FundRow {
        name: "as it should be",
        send: |f| f.say(PARTNER, &format!("/approve 1 {}", f.code("bob", 0))),
        told: "Request 1 was approved by bob (Telegram user 43): alice (Telegram user 42) asked to disarm main. \
               Why: the host moves. It is being done.",
        done: true,
    },
    FundRow {
        name: "twice",
        send: |f| {
            f.say(PARTNER, &format!("/approve 1 {}", f.code("bob", 0)));
            f.say(PARTNER, &format!("/approve 1 {}", f.code("bob", 0)));
        },
        told: "no such request",
        done: true,
    },
];

impl Fund {
    /// Paired with a group, where alice has asked to disarm the account.
    async fn set() -> Self {
        let (api, hook) = (BotApi::start().await, Hook::start().await);
        let allowed_users = [OWNER, PARTNER, CLERK].map(i64::unsigned_abs).to_vec();
        let person =
            |name: &str, user: i64| Person { name: name.into(), telegram: Some(user.unsigned_abs()), uid: None };
        let config = SharedConfig {
            telegram: Some(TelegramConfig { allowed_users, group_chat: true }),
            stoppable: vec![Account::new("main")],
            people: People { persons: vec![person("alice", OWNER), person("bob", PARTNER)], two_people: true },
            ..config()
        };
        let daemon = Daemon::start(&api, &hook, config, support::teller::Clock::new(SPEED), None).await;
        let expires = daemon.clock.now() + Duration::from_secs(600);
        let code_sha256 = pairing_digest("K7QX-2M4P");
        daemon.send(SharedEvent::PairingIssued { code_sha256, expires }).await;
        let fund = Self { api, hook, daemon };
        fund.say(OWNER, "/pair K7QX-2M4P");
        fund.told("was paired").await;
        fund.say(OWNER, &format!("/disarm main {} the host moves", fund.code("alice", 0)));
        fund.told("Request 1: alice (Telegram user 42) asks to disarm main. Why: the host moves.").await;
        fund
    }

    fn say(&self, user: i64, text: &str) {
        self.say_with(user, text, |_| ());
    }

    fn say_with(&self, user: i64, text: &str, change: impl FnOnce(&mut Value)) {
        let mut message = json!({
            "message_id": 900, "date": self.daemon.clock.secs(), "text": text, "from": person(user),
            "chat": {"id": GROUP, "type": "supergroup", "title": "the fund"},
        });
        change(&mut message);
        self.api.inject(json!({ "message": message }));
    }

    async fn told(&self, part: &str) {
        self.hook.until(part, |body| text_of(body).contains(part)).await;
    }

    /// Of a step that is right now.
    fn code(&self, name: &str, steps_ahead: u64) -> String {
        self.code_of(&secret_of(name), steps_ahead)
    }

    fn common_code(&self) -> String {
        self.code_of(TOTP_SECRET, 0)
    }

    fn code_of(&self, secret: &str, steps_ahead: u64) -> String {
        let secret = totp_rs::Secret::try_from_base32(secret).unwrap();
        let passwords = totp_rs::Builder::new().with_secret(secret).build().unwrap();
        passwords.generate(self.daemon.clock.secs().unsigned_abs() + steps_ahead * 30).to_string()
    }
}

async fn play(row: &FundRow) {
    let fund = Fund::set().await;
    (row.send)(&fund);
    fund.told(row.told).await;
    // Whatever was sent before has been heard.
    fund.say(OWNER, "/status");
    fund.api.until("the status", |sent| sent.iter().any(|s| s.text.contains("All is seen."))).await;
    let disarmed = "main is DISARMED by alice (Telegram user 42), approved by bob (Telegram user 43)";
    if row.done {
        fund.told(disarmed).await;
        fund.api.until(disarmed, |sent| sent.iter().any(|s| s.text.contains(disarmed))).await;
    }
    let told = fund.hook.received();
    assert_eq!(told.iter().any(|request| text_of(&request.body).contains("is DISARMED")), row.done, "{}", row.name);
    let rows = fund.daemon.done.lock().unwrap().rows.clone();
    for name in ["alice", "bob"] {
        let code = fund.code(name, 0);
        assert!(!rows.iter().any(|row| text_in(row).contains(&code)), "{code}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asked_in_the_group_is_not_who_approves() {
    let mut plays = JoinSet::new();
    for row in ROWS {
        if plays.len() >= AT_ONCE {
            plays.join_next().await.unwrap().unwrap();
        }
        plays.spawn(async move {
            let ended = tokio::spawn(play(row)).await;
            assert!(ended.is_ok(), "{}: {ended:?}", row.name);
        });
    }
    while let Some(ended) = plays.join_next().await {
        ended.unwrap();
    }
}
