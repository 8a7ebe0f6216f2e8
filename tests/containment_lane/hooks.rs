//! The ways to stop the bot: each says what it proves, and no more.

use super::*;

#[derive(Clone, Default)]
struct Freqtrade(Arc<Mutex<(&'static str, u32)>>);

impl Freqtrade {
    fn is_let_in(headers: &HeaderMap) -> bool {
        // freqtrader:right horse
        headers.get("authorization").is_some_and(|value| value == "Basic ZnJlcXRyYWRlcjpyaWdodCBob3JzZQ==")
    }

    async fn stop(State(bot): State<Self>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
        if !Self::is_let_in(&headers) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let mut bot = bot.0.lock().unwrap();
        bot.1 += 1;
        match bot.0 {
            "stopped" => return Ok(Json(json!({ "status": "already stopped" }))),
            "stuck" => {}
            _ => bot.0 = "stopped",
        }
        Ok(Json(json!({ "status": "stopping trader ..." })))
    }

    async fn config(State(bot): State<Self>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
        if !Self::is_let_in(&headers) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        Ok(Json(json!({ "version": "2026.9", "state": bot.0.lock().unwrap().0, "stoploss": -0.1 })))
    }

    async fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new()
            .route("/api/v1/stop", post(Self::stop))
            .route("/api/v1/show_config", get(Self::config))
            .with_state(self);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        url
    }
}

async fn stop(hook: StopHook) -> ActOutcome {
    let parts = Parts { hooks: BTreeMap::from([("bot".into(), hook)]), ..Parts::default() };
    let outlet = outlet("http://127.0.0.1:9", LastGood::system(), parts);
    outlet.act(&Act::StopBot { hook: "bot".into() }, &clock).await
}

fn freqtrade(url: &str, password: &str) -> StopHook {
    StopHook::Freqtrade { url: url.to_owned(), user: "freqtrader".into(), password: password.into() }
}

#[tokio::test]
async fn freqtrade_is_stopped_when_it_says_that_it_stands() {
    let bot = Freqtrade::default();
    bot.0.lock().unwrap().0 = "running";
    let url = bot.clone().start().await;
    assert_eq!(word(&stop(freqtrade(&url, "wrong")).await), "refused 401");
    assert_eq!(bot.0.lock().unwrap().0, "running");
    for _ in 0..2 {
        let ActOutcome::Done { proof } = stop(freqtrade(&url, "right horse")).await else { panic!("it stands") };
        assert!(proof.contains("show_config") && proof.contains("stopped"), "{proof}");
    }
    *bot.0.lock().unwrap() = ("stuck", 0);
    let ActOutcome::Unknown { reason } = stop(freqtrade(&url, "right horse")).await else { panic!("it does not stop") };
    assert!(reason.contains("\"stuck\""), "{reason}");
    assert_eq!(bot.0.lock().unwrap().1, 1, "it was told once");
    assert_eq!(word(&stop(freqtrade("http://127.0.0.1:9", "right horse")).await), "refused 0", "nobody is there");
}

/// With `COUNTERSIGN_FREQTRADE` = the address of one whose user is "freqtrader", password "right horse".
#[tokio::test]
async fn a_real_freqtrade_is_stopped() {
    let Ok(url) = std::env::var("COUNTERSIGN_FREQTRADE") else {
        eprintln!("skipped: COUNTERSIGN_FREQTRADE names no freqtrade");
        return;
    };
    assert_eq!(word(&stop(freqtrade(&url, "wrong")).await), "refused 401");
    let began = Instant::now();
    let outcome = stop(freqtrade(&url, "right horse")).await;
    println!("{outcome:?} after {:?}", began.elapsed());
    assert_eq!(word(&outcome), "done");
}

type Taken = Arc<Mutex<(StatusCode, Vec<(HeaderMap, String)>)>>;

async fn take(State(taken): State<Taken>, headers: HeaderMap, body: String) -> StatusCode {
    let mut taken = taken.lock().unwrap();
    taken.1.push((headers, body));
    taken.0
}

#[tokio::test]
async fn a_webhook_is_signed_and_proves_nothing() {
    let taken: Taken = Arc::new(Mutex::new((StatusCode::NO_CONTENT, Vec::new())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: reqwest::Url = format!("http://{}/stop", listener.local_addr().unwrap()).parse().unwrap();
    let routes = Router::new().route("/stop", post(take)).with_state(taken.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let secret = || SecretSlice::from(b"secret".to_vec());
    let hook = || StopHook::Webhook { url: url.clone(), secret: secret() };
    let ActOutcome::Done { proof } = stop(hook()).await else { panic!("it was accepted") };
    assert!(proof.contains("accepted") && proof.contains("not proved"), "{proof}");
    let (headers, body) = taken.lock().unwrap().1.remove(0);
    let timestamp = headers[TIMESTAMP_HEADER].to_str().unwrap();
    assert_eq!(headers[SIGNATURE_HEADER].to_str().unwrap(), signature(&secret(), timestamp, &body));
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&body["kind"], &body["hook"], body["at"].to_string()),
        (&json!("stop_bot"), &json!("bot"), timestamp.to_owned())
    );
    for (status, expected) in [(401, "refused 401"), (307, "refused 307"), (429, "held"), (500, "unknown")] {
        taken.lock().unwrap().0 = StatusCode::from_u16(status).unwrap();
        assert_eq!(word(&stop(hook()).await), expected);
    }
}
