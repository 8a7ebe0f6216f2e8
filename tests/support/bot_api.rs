//! A Bot API over HTTP on loopback: it keeps chats and updates as Telegram does, records what was sent and when, and
//! misbehaves on request.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

pub const TOKEN: &str = "123456:mock-token-that-must-not-be-printed";

/// How the next request of a method goes wrong.
#[derive(Clone, Debug)]
pub enum Misbehaviour {
    RetryAfter(u32),
    CantParse,
    ServerError,
    /// The request is taken, and never answered.
    Hang,
    /// The message is delivered, and the answer never comes.
    DeliverAndHang,
    Conflict,
    Migrate(i64),
    Refuse(u16, &'static str),
}

/// One request that was let through, or why not.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at: Instant,
    pub method: String,
    pub chat: i64,
    pub message: i32,
    pub text: String,
    pub html: bool,
    pub reply_to: Option<i64>,
    pub quiet: bool,
    pub delivered: bool,
    /// The labels of its buttons and their data, in order.
    pub buttons: Vec<(String, String)>,
}

/// An answer to a press of a button.
#[derive(Clone, Debug)]
pub struct Answered {
    pub query: String,
    pub text: String,
}

/// A message as it stands in a chat.
#[derive(Clone, Debug, PartialEq)]
struct Standing {
    text: String,
    markup: Value,
}

#[derive(Default)]
struct Inside {
    sent: Vec<Sent>,
    messages: BTreeMap<(i64, i32), Standing>,
    answered: Vec<Answered>,
    /// Delivered once whatever the offset, as Telegram does not do.
    replayed: Vec<Value>,
    /// Becomes that once every other update was told of.
    replayed_later: Vec<Value>,
    allowed_updates: Value,
    updates: VecDeque<Value>,
    last_update: i64,
    polls: u64,
    webhook: Option<String>,
    next: BTreeMap<String, VecDeque<Misbehaviour>>,
    always: BTreeMap<String, Misbehaviour>,
}

#[derive(Default)]
struct Shared {
    inside: Mutex<Inside>,
    changed: Notify,
}

pub struct BotApi {
    url: reqwest::Url,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for BotApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl BotApi {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let shared = Arc::new(Shared::default());
        let router =
            Router::new().route("/{bot}/{method}", axum::routing::post(answer)).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, server }
    }

    pub fn url(&self) -> reqwest::Url {
        self.url.clone()
    }

    /// Every message and edit so far, those that were refused too.
    pub fn requests(&self) -> Vec<Sent> {
        self.shared.inside.lock().unwrap().sent.clone()
    }

    pub fn delivered(&self) -> Vec<Sent> {
        self.requests().into_iter().filter(|sent| sent.delivered).collect()
    }

    /// What a message says now.
    pub fn text_of(&self, chat: i64, message: i32) -> Option<String> {
        self.shared.inside.lock().unwrap().messages.get(&(chat, message)).map(|standing| standing.text.clone())
    }

    /// The buttons under a message now: label and data.
    pub fn buttons_of(&self, chat: i64, message: i32) -> Vec<(String, String)> {
        let inside = self.shared.inside.lock().unwrap();
        inside.messages.get(&(chat, message)).map(|standing| buttons(&standing.markup)).unwrap_or_default()
    }

    pub fn answered(&self) -> Vec<Answered> {
        self.shared.inside.lock().unwrap().answered.clone()
    }

    /// What the last poll asked for.
    pub fn allowed_updates(&self) -> Value {
        self.shared.inside.lock().unwrap().allowed_updates.clone()
    }

    pub fn next(&self, method: &str, misbehaviour: Misbehaviour) {
        self.shared.inside.lock().unwrap().next.entry(method.into()).or_default().push_back(misbehaviour);
    }

    pub fn always(&self, method: &str, misbehaviour: Option<Misbehaviour>) {
        let mut inside = self.shared.inside.lock().unwrap();
        match misbehaviour {
            Some(misbehaviour) => inside.always.insert(method.into(), misbehaviour),
            None => inside.always.remove(method),
        };
    }

    pub fn set_webhook(&self, url: Option<&str>) {
        self.shared.inside.lock().unwrap().webhook = url.map(Into::into);
        self.shared.changed.notify_waiters();
    }

    pub fn delete_message(&self, chat: i64, message: i32) {
        self.shared.inside.lock().unwrap().messages.remove(&(chat, message));
    }

    /// A private message of a user, at a time of Telegram's clock.
    pub fn say(&self, user: i64, at_secs: i64, text: &str) {
        self.inject(json!({"message": {
            "message_id": 1, "date": at_secs, "text": text,
            "chat": {"id": user, "type": "private", "first_name": "Somebody"},
            "from": {"id": user, "is_bot": false, "first_name": "Somebody"},
        }}));
    }

    /// A press of a user on a button under a message of the bot in his private chat.
    pub fn press(&self, user: i64, message: i32, data: &str) {
        self.inject(press_of(user, message, data));
    }

    /// The same once the update that was injected last was told of.
    pub fn replay_after_next(&self, update: Value) {
        self.shared.inside.lock().unwrap().replayed_later.push(update);
    }

    /// An update with an id that was given already.
    pub fn replay(&self, update: Value) {
        self.shared.inside.lock().unwrap().replayed.push(update);
        self.shared.changed.notify_waiters();
    }

    pub fn last_update(&self) -> i64 {
        self.shared.inside.lock().unwrap().last_update
    }

    /// Any update; it gets its id here.
    pub fn inject(&self, mut update: Value) {
        let mut inside = self.shared.inside.lock().unwrap();
        inside.last_update += 1;
        update["update_id"] = inside.last_update.into();
        inside.updates.push_back(update);
        drop(inside);
        self.shared.changed.notify_waiters();
    }

    pub fn polls(&self) -> u64 {
        self.shared.inside.lock().unwrap().polls
    }

    /// Waits until what was delivered is so, and gives it.
    pub async fn until(&self, what: &str, is_so: impl Fn(&[Sent]) -> bool) -> Vec<Sent> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let changed = self.shared.changed.notified();
            let delivered = self.delivered();
            if is_so(&delivered) {
                return delivered;
            }
            assert!(Instant::now() < deadline, "{what} did not come: {:#?}", self.requests());
            let _ = tokio::time::timeout(Duration::from_millis(200), changed).await;
        }
    }
}

/// As Telegram tells of a press: with the whole message, and no time of the press.
pub fn press_of(user: i64, message: i32, data: &str) -> Value {
    json!({"callback_query": {
        "id": format!("query-{user}-{message}"), "chat_instance": "1", "data": data,
        "from": {"id": user, "is_bot": false, "first_name": "Somebody"},
        "message": {
            "message_id": message, "date": 1_764_000_000, "text": "as sent",
            "chat": {"id": user, "type": "private", "first_name": "Somebody"},
            "from": {"id": 123_456, "is_bot": true, "first_name": "Countersign", "username": "countersign_bot"},
        },
    }})
}

fn buttons(markup: &Value) -> Vec<(String, String)> {
    let rows = markup["inline_keyboard"].as_array().into_iter().flatten();
    let text = |button: &Value, name: &str| button[name].as_str().unwrap_or_default().to_owned();
    rows.flat_map(|row| row.as_array().into_iter().flatten())
        .map(|button| (text(button, "text"), text(button, "callback_data")))
        .collect()
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    Path((bot, method)): Path<(String, String)>,
    body: Option<Json<Value>>,
) -> Response {
    if bot != format!("bot{TOKEN}") {
        return refusal(401, "Unauthorized");
    }
    // Telegram takes method names in any case; here each has the one of its documentation.
    let method = method[..1].to_lowercase() + &method[1..];
    let body = body.map_or(Value::Null, |Json(body)| body);
    let misbehaviour = {
        let mut inside = shared.inside.lock().unwrap();
        let next = inside.next.get_mut(&method).and_then(VecDeque::pop_front);
        next.or_else(|| inside.always.get(&method).cloned())
    };
    match method.as_str() {
        "getMe" => done(json!({
            "id": 123_456, "is_bot": true, "first_name": "Countersign", "username": "countersign_bot",
            "can_join_groups": true, "can_read_all_group_messages": false, "supports_inline_queries": false,
            "can_connect_to_business": false, "has_main_web_app": false,
        })),
        "getWebhookInfo" => {
            let url = shared.inside.lock().unwrap().webhook.clone().unwrap_or_default();
            done(json!({"url": url, "has_custom_certificate": false, "pending_update_count": 0}))
        }
        "getUpdates" => match misbehaviour {
            Some(misbehaviour) => misbehave(&misbehaviour).await,
            None => updates(&shared, &body).await,
        },
        "answerCallbackQuery" => {
            let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
            let answered = Answered { query: text("callback_query_id"), text: text("text") };
            shared.inside.lock().unwrap().answered.push(answered);
            shared.changed.notify_waiters();
            match misbehaviour {
                Some(misbehaviour) => misbehave(&misbehaviour).await,
                None => done(json!(true)),
            }
        }
        "sendMessage" | "editMessageText" | "editMessageReplyMarkup" => {
            message(&shared, &method, &body, misbehaviour).await
        }
        _ => refusal(404, "Not Found"),
    }
}

/// Offsets confirm; a second poll ends the first; a webhook ends them all.
async fn updates(shared: &Shared, body: &Value) -> Response {
    let offset = body["offset"].as_i64().unwrap_or(0);
    let limit = usize::try_from(body["limit"].as_u64().unwrap_or(100)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(body["timeout"].as_u64().unwrap_or(0));
    let mine = {
        let mut inside = shared.inside.lock().unwrap();
        inside.polls += 1;
        inside.allowed_updates = body["allowed_updates"].clone();
        inside.updates.retain(|update| update["update_id"].as_i64().unwrap() >= offset);
        inside.polls
    };
    shared.changed.notify_waiters();
    loop {
        let changed = shared.changed.notified();
        {
            let mut inside = shared.inside.lock().unwrap();
            if inside.webhook.is_some() {
                return refusal(
                    409,
                    "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the \
                     webhook first",
                );
            }
            if inside.polls != mine {
                return refusal(
                    409,
                    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
                );
            }
            if inside.updates.is_empty() {
                let later = std::mem::take(&mut inside.replayed_later);
                inside.replayed.extend(later);
            }
            if !inside.replayed.is_empty() {
                return done(std::mem::take(&mut inside.replayed).into());
            }
            if !inside.updates.is_empty() || Instant::now() >= deadline {
                return done(inside.updates.iter().take(limit).cloned().collect());
            }
        }
        let wait = deadline.saturating_duration_since(Instant::now()).min(Duration::from_millis(200));
        let _ = tokio::time::timeout(wait, changed).await;
    }
}

async fn message(shared: &Shared, method: &str, body: &Value, misbehaviour: Option<Misbehaviour>) -> Response {
    let markup = body["reply_markup"].clone();
    let html = body["parse_mode"].as_str() == Some("HTML");
    let chat = body["chat_id"].as_i64().unwrap_or_default();
    let (answer, hang) = {
        let mut inside = shared.inside.lock().unwrap();
        let edited = body["message_id"].as_i64().and_then(|id| i32::try_from(id).ok());
        let before = edited.and_then(|id| inside.messages.get(&(chat, id))).map(|standing| standing.text.clone());
        let text = body["text"].as_str().map_or_else(|| before.unwrap_or_default(), ToOwned::to_owned);
        let standing = Standing { text: text.clone(), markup: markup.clone() };
        let id = edited.unwrap_or_else(|| i32::try_from(inside.messages.len()).unwrap() + 1);
        let refused = match &misbehaviour {
            Some(Misbehaviour::DeliverAndHang) | None => what_is_wrong(&inside, chat, edited, &standing, html),
            Some(_) => Some((0, String::new())),
        };
        let delivered = refused.is_none();
        if delivered {
            inside.messages.insert((chat, id), standing);
        }
        inside.sent.push(Sent {
            at: Instant::now(),
            method: method.into(),
            chat,
            message: id,
            text,
            html,
            reply_to: body["reply_parameters"]["message_id"].as_i64(),
            quiet: body["disable_notification"].as_bool().unwrap_or(false),
            delivered,
            buttons: buttons(&markup),
        });
        let answer = match refused {
            Some((code, words)) => refusal(code.max(400), &words),
            None => done(json!({
                "message_id": id, "date": 1_764_000_000, "text": "as sent",
                "chat": {"id": chat, "type": "private", "first_name": "Owner"},
            })),
        };
        (answer, matches!(misbehaviour, Some(Misbehaviour::DeliverAndHang)))
    };
    shared.changed.notify_waiters();
    match misbehaviour {
        Some(_) if hang => std::future::pending().await,
        Some(misbehaviour) => misbehave(&misbehaviour).await,
        None => answer,
    }
}

fn what_is_wrong(
    inside: &Inside,
    chat: i64,
    edited: Option<i32>,
    standing: &Standing,
    html: bool,
) -> Option<(u16, String)> {
    let Standing { text, markup } = standing;
    let bad = |words: &str| Some((400, format!("Bad Request: {words}")));
    if text.encode_utf16().count() > 4_096 {
        return bad("message is too long");
    }
    if html && !is_markup(text) {
        return bad("can't parse entities: unexpected tag or entity");
    }
    if buttons(markup).iter().any(|(label, data)| label.is_empty() || data.is_empty() || data.len() > 64) {
        return bad("BUTTON_DATA_INVALID");
    }
    let edited = edited?;
    match inside.messages.get(&(chat, edited)) {
        None => bad("message to edit not found"),
        Some(before) if before == standing => {
            bad("message is not modified: specified new message content and reply markup are exactly the same as a \
             current content and reply markup of the message")
        }
        Some(_) => None,
    }
}

/// The markup that Telegram would read: bold, closed, and the three entities.
fn is_markup(text: &str) -> bool {
    let rest = ["&amp;", "&lt;", "&gt;"].iter().fold(text.to_owned(), |text, entity| text.replace(entity, ""));
    rest.matches("<b>").count() == rest.matches("</b>").count()
        && !rest.replace("<b>", "").replace("</b>", "").contains(['<', '>', '&'])
}

async fn misbehave(how: &Misbehaviour) -> Response {
    match how {
        Misbehaviour::RetryAfter(secs) => with_parameters(429, "Too Many Requests", &json!({"retry_after": secs})),
        Misbehaviour::Migrate(chat) => with_parameters(
            400,
            "Bad Request: group chat was upgraded to a supergroup chat",
            &json!({"migrate_to_chat_id": chat}),
        ),
        Misbehaviour::CantParse => refusal(400, "Bad Request: can't parse entities: Unsupported start tag"),
        Misbehaviour::ServerError => (StatusCode::BAD_GATEWAY, "<html>Bad Gateway</html>").into_response(),
        Misbehaviour::Hang | Misbehaviour::DeliverAndHang => std::future::pending().await,
        Misbehaviour::Conflict => refusal(
            409,
            "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
        ),
        Misbehaviour::Refuse(code, words) => refusal(*code, words),
    }
}

fn done(result: Value) -> Response {
    Json(json!({"ok": true, "result": result})).into_response()
}

fn refusal(code: u16, description: &str) -> Response {
    let body = json!({"ok": false, "error_code": code, "description": description});
    (StatusCode::from_u16(code).unwrap(), Json(body)).into_response()
}

fn with_parameters(code: u16, description: &str, parameters: &Value) -> Response {
    let body = json!({"ok": false, "error_code": code, "description": description, "parameters": parameters});
    (StatusCode::from_u16(code).unwrap(), Json(body)).into_response()
}
