//! Posts to Telegram: one request for one post, and its ending as a value. Nothing is retried or paced here.
//!
//! Invariants: the bot's token is in no error and no log; an answer that is not clear is `Unknown`, never a failure.

use std::error::Error as _;
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;
use teloxide::payloads::{AnswerCallbackQuerySetters, EditMessageTextSetters, SendMessageSetters};
use teloxide::prelude::Requester;
use teloxide::types::{
    self as bot_api, InlineKeyboardButton, InlineKeyboardMarkup, LinkPreviewOptions, Message, ParseMode,
    ReplyParameters,
};
use teloxide::{Bot, RequestError};

use crate::kernel::button::{Button, Keyboard};
use crate::kernel::channel::{ChatAction, ChatPost, ChatText, MessageId, PostOutcome, PressAnswer};
use crate::secret::button;

/// teloxide waits ten seconds inside a request that was answered with a 5xx: this is shorter, and so is the kernel's
/// patience longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// Of a press: the person's client gives up soon after, and a post may wait behind it.
const PRESS_ANSWERED_WITHIN: Duration = Duration::from_secs(2);
const CODE_LETTERS: usize = 6;
const REASON_CHARS_MAX: usize = 200;

pub struct TelegramOutlet {
    bot: Bot,
    code_key: SecretSlice<u8>,
}

/// `client` without proxies or redirects; `api` is `https://api.telegram.org` unless the owner runs a Bot API server.
pub fn bot(token: &SecretString, api: reqwest::Url, client: reqwest::Client) -> Bot {
    Bot::with_client(token.expose_secret(), client).set_api_url(api)
}

/// What stands under each message, so that a message by somebody who stole the bot's token shows: six letters of a MAC
/// over the number and the text, under a key that Telegram never sees and that does not derive from the token. Whoever
/// holds the key and the journal can say for any number which code belongs under it.
#[must_use]
pub fn message_code(key: &SecretSlice<u8>, number: u64, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).expect("HMAC takes a key of any length");
    mac.update(b"countersign/message/v1|telegram|");
    mac.update(&number.to_be_bytes());
    mac.update(text.as_bytes());
    let mut code = BASE32_NOPAD.encode(&mac.finalize().into_bytes());
    code.truncate(CODE_LETTERS);
    code
}

impl TelegramOutlet {
    #[must_use]
    pub const fn new(bot: Bot, code_key: SecretSlice<u8>) -> Self {
        Self { bot, code_key }
    }

    pub async fn post(&self, post: &ChatPost) -> PostOutcome {
        match tokio::time::timeout(ANSWER_WITHIN, self.request(post)).await {
            Ok(Ok(message)) => PostOutcome::Delivered { message: Some(MessageId(message.id.0)) },
            Ok(Err(error)) => outcome_of(error),
            Err(_) => PostOutcome::Unknown { reason: "no usable answer from Telegram in time".into() },
        }
    }

    /// Lost without a word if Telegram does not take it: the person sees what became of it in the chat.
    pub async fn answer_press(&self, answer: &PressAnswer) {
        let query = bot_api::CallbackQueryId(answer.query.to_string());
        let shown = self.bot.answer_callback_query(query).text(short(&answer.text));
        let answered = async {
            if let Err(error) = shown.await {
                tracing::debug!(reason = ?outcome_of(error), "Telegram took no answer to a press.");
            }
            let Some((chat, MessageId(id))) = answer.answered else { return };
            let cleared = self.bot.edit_message_reply_markup(bot_api::ChatId(chat.0), bot_api::MessageId(id));
            if let Err(error) = cleared.await {
                tracing::debug!(reason = ?outcome_of(error), "The buttons of an answered question stay.");
            }
        };
        if tokio::time::timeout(PRESS_ANSWERED_WITHIN, answered).await.is_err() {
            tracing::debug!("Telegram did not answer the answer to a press in time.");
        }
    }

    fn markup(&self, post: &ChatPost, keyboard: &Keyboard) -> InlineKeyboardMarkup {
        let button = |button: &Button| {
            let token = keyboard.token(post.number, button.press);
            let data = button::seal(&self.code_key, keyboard.user, post.chat, &token);
            InlineKeyboardButton::callback(button.label.to_string(), data)
        };
        InlineKeyboardMarkup::new([keyboard.buttons.iter().map(button).collect::<Vec<_>>()])
    }

    async fn request(&self, post: &ChatPost) -> Result<Message, RequestError> {
        let (text, format) = match &post.text {
            ChatText::Html(text) => (text, Some(ParseMode::Html)),
            ChatText::Plain(text) => (text, None),
        };
        let text = format!("{text}\n#{} {}", post.number, message_code(&self.code_key, post.number, text));
        let chat = bot_api::ChatId(post.chat.0);
        let no_preview = LinkPreviewOptions {
            is_disabled: true,
            url: None,
            prefer_small_media: false,
            prefer_large_media: false,
            show_above_text: false,
        };
        let markup = post.keyboard.as_ref().map(|keyboard| self.markup(post, keyboard));
        match post.action {
            ChatAction::Send { reply_to, quiet } => {
                let mut request = self.bot.send_message(chat, text).link_preview_options(no_preview);
                request.parse_mode = format;
                if let Some(MessageId(id)) = reply_to {
                    let reply = ReplyParameters::new(bot_api::MessageId(id)).allow_sending_without_reply();
                    request = request.reply_parameters(reply);
                }
                request.reply_markup = markup.map(bot_api::ReplyMarkup::InlineKeyboard);
                request.disable_notification(quiet).await
            }
            ChatAction::Edit { message: MessageId(id) } => {
                let mut request = self.bot.edit_message_text(chat, bot_api::MessageId(id), text);
                request.parse_mode = format;
                request.reply_markup = markup;
                request.link_preview_options(no_preview).await
            }
        }
    }
}

fn outcome_of(error: RequestError) -> PostOutcome {
    match error {
        RequestError::RetryAfter(wait) => PostOutcome::RetryAfter { secs: wait.seconds() },
        RequestError::MigrateToChatId(bot_api::ChatId(id)) => {
            PostOutcome::Migrated { chat: crate::kernel::channel::ChatId(id) }
        }
        RequestError::Api(error) => refusal(&in_telegrams_words(error)),
        RequestError::InvalidJson { raw, .. } => unread_answer(&raw),
        RequestError::Network(error) if error.is_connect() => {
            PostOutcome::Failed { reason: network_reason(&error), permanent: false }
        }
        RequestError::Network(error) => PostOutcome::Unknown { reason: network_reason(&error) },
        RequestError::Io(error) => PostOutcome::Unknown { reason: short(&error.to_string()) },
    }
}

/// Telegram's refusals are told apart by their words: its error codes say less.
fn refusal(words: &str) -> PostOutcome {
    let has = |part: &str| words.contains(part);
    let reason = short(words);
    if has("message is not modified") {
        PostOutcome::NotModified
    } else if has("message to edit not found") || has("message can't be edited") || has("MESSAGE_ID_INVALID") {
        PostOutcome::Gone
    } else if has("Unauthorized")
        || has("Invalid bot token")
        || has("Forbidden")
        || has("chat not found")
        || has("deactivated")
    {
        PostOutcome::Failed { reason, permanent: true }
    } else if words.starts_with("Bad Request") {
        PostOutcome::Refused { reason }
    } else {
        PostOutcome::Failed { reason, permanent: false }
    }
}

/// An answer that the library cannot read, for example since Telegram's message gained a field: if it says that the
/// message was taken, it was.
fn unread_answer(raw: &str) -> PostOutcome {
    #[derive(serde::Deserialize)]
    struct Taken {
        ok: bool,
        result: Option<Sent>,
    }
    #[derive(serde::Deserialize)]
    struct Sent {
        message_id: i32,
    }
    match serde_json::from_str::<Taken>(raw) {
        Ok(Taken { ok: true, result: Some(Sent { message_id }) }) => {
            PostOutcome::Delivered { message: Some(MessageId(message_id)) }
        }
        Ok(_) | Err(_) => PostOutcome::Unknown { reason: format!("unreadable answer: {}", short(raw)).into() },
    }
}

/// teloxide wraps descriptions that it does not know.
pub(crate) fn in_telegrams_words(error: teloxide::ApiError) -> String {
    if let teloxide::ApiError::Unknown(words) = error { words } else { error.to_string() }
}

/// The innermost cause: the outer ones print the address, which holds the token.
pub(crate) fn network_reason(error: &reqwest::Error) -> Box<str> {
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    let what = if error.is_connect() {
        "cannot connect"
    } else if error.is_timeout() {
        "timed out"
    } else {
        "the connection broke"
    };
    match cause {
        Some(cause) => short(&format!("{what}: {cause}")),
        None => what.into(),
    }
}

fn short(text: &str) -> Box<str> {
    text.chars().take(REASON_CHARS_MAX).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_depends_on_key_number_and_text() {
        let key = |bytes: &[u8]| SecretSlice::from(bytes.to_vec());
        let code = message_code(&key(b"k"), 1, "text");
        assert_eq!(code.len(), CODE_LETTERS);
        assert_eq!(code, message_code(&key(b"k"), 1, "text"));
        for other in [
            message_code(&key(b"l"), 1, "text"),
            message_code(&key(b"k"), 2, "text"),
            message_code(&key(b"k"), 1, "texs"),
        ] {
            assert_ne!(code, other);
        }
    }

    #[test]
    fn telegrams_words_become_outcomes() {
        let permanent = |reason: &str| PostOutcome::Failed { reason: reason.into(), permanent: true };
        for (words, expected) in [
            ("Bad Request: message is not modified: specified new message content", PostOutcome::NotModified),
            ("Bad Request: message to edit not found", PostOutcome::Gone),
            ("Bad Request: message can't be edited", PostOutcome::Gone),
            ("Bad Request: chat not found", permanent("Bad Request: chat not found")),
            ("Forbidden: bot was blocked by the user", permanent("Forbidden: bot was blocked by the user")),
            ("Invalid bot token", permanent("Invalid bot token")),
            (
                "Bad Request: can't parse entities: Unsupported start tag",
                PostOutcome::Refused { reason: "Bad Request: can't parse entities: Unsupported start tag".into() },
            ),
            ("Internal Server Error", PostOutcome::Failed { reason: "Internal Server Error".into(), permanent: false }),
        ] {
            assert_eq!(refusal(words), expected, "{words}");
        }
    }

    #[test]
    fn a_taken_message_counts_as_delivered_even_if_the_answer_has_grown() {
        let raw = r#"{"ok":true,"result":{"message_id":7,"chat":"of a new kind"}}"#;
        assert_eq!(unread_answer(raw), PostOutcome::Delivered { message: Some(MessageId(7)) });
        assert!(matches!(unread_answer("<html>Bad Gateway</html>"), PostOutcome::Unknown { .. }));
    }
}
