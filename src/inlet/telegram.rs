//! Reads Telegram's updates by long poll and hands each message over as a value. Who may say what is the shared
//! kernel's to decide.
//!
//! Invariants: the bot's token is in no error and no log; one poll at a time; a fault is handed over when it begins
//! and when it ends, not each time it is met; a webhook that somebody set is told, never removed (it may be the
//! owner's, of another program on the same bot).

use std::time::Duration;

use teloxide::payloads::GetUpdatesSetters;
use teloxide::prelude::Requester;
use teloxide::types::{AllowedUpdate, ChatKind as BotChatKind, Message, PublicChatKind, Update, UpdateKind};
use teloxide::{Bot, RequestError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::kernel::channel::{Channel, ChatId};
use crate::kernel::chat::{ChatKind, ChatUpdate, Mark};
use crate::kernel::shared::{ChannelFault, SharedEvent};
use crate::kernel::time::Time;
use crate::outlet::telegram::{in_telegrams_words, network_reason};

/// How long Telegram keeps a poll open while nothing comes. The client's own timeout must be longer.
pub const POLL_SECS: u32 = 25;
/// A poll that is not answered by then is given up.
const POLL_WITHIN: Duration = Duration::from_secs(40);
const UPDATES_PER_POLL: u8 = 50;
/// No command is longer; the rest of a text is cut.
const TEXT_CHARS_MAX: usize = 256;
const BACKOFF_MAX: Duration = Duration::from_secs(32);
/// Failures in a row, about a minute with the backoff, after which updates count as unreachable.
const FAILURES_UNTIL_UNREACHABLE: u32 = 6;

/// Polls until `shutdown` or until nobody receives any more. `next_update` is the shared kernel's.
pub async fn run(bot: Bot, next_update: i64, events: mpsc::Sender<SharedEvent>, shutdown: CancellationToken) {
    let polls = poll_on(&bot, next_update, &events);
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        // Ends only when the receiver is gone.
        _ = polls => {}
    }
}

async fn poll_on(
    bot: &Bot,
    mut next_update: i64,
    events: &mpsc::Sender<SharedEvent>,
) -> Result<(), mpsc::error::SendError<SharedEvent>> {
    let channel = Channel::Telegram;
    let mut failures = 0_u32;
    let mut told: Option<ChannelFault> = None;
    loop {
        let fault = match poll(bot, next_update).await {
            Ok(updates) => {
                failures = 0;
                if told.take().is_some() {
                    events.send(SharedEvent::ChannelSound { channel }).await?;
                }
                for update in &updates {
                    next_update = next_update_after(update);
                    if let Some(update) = chat_update(update) {
                        events.send(SharedEvent::Update(update)).await?;
                    }
                }
                continue;
            }
            Err(Poll::Fault(fault)) => Some(fault),
            Err(Poll::Failed(reason)) => {
                tracing::debug!(%reason, "A poll for Telegram updates failed; it is tried again.");
                (failures >= FAILURES_UNTIL_UNREACHABLE).then_some(ChannelFault::Unreachable { reason })
            }
        };
        failures = failures.saturating_add(1);
        if let Some(fault) = fault.filter(|fault| told.as_ref().is_none_or(|told| !is_same(told, fault))) {
            told = Some(fault.clone());
            events.send(SharedEvent::ChannelFault { channel, fault }).await?;
        }
        let doubled = Duration::from_secs(1 << (failures - 1).min(5));
        tokio::time::sleep(doubled.min(BACKOFF_MAX)).await;
    }
}

enum Poll {
    Fault(ChannelFault),
    Failed(Box<str>),
}

async fn poll(bot: &Bot, next_update: i64) -> Result<Vec<Update>, Poll> {
    let request = bot
        .get_updates()
        .offset(i32::try_from(next_update).unwrap_or(i32::MAX))
        .limit(UPDATES_PER_POLL)
        .timeout(POLL_SECS)
        .allowed_updates([AllowedUpdate::Message]);
    match tokio::time::timeout(POLL_WITHIN, request).await {
        Ok(Ok(updates)) => Ok(updates),
        Ok(Err(RequestError::Api(error))) => {
            let words = in_telegrams_words(error);
            if words.contains("webhook is active") {
                Err(Poll::Fault(ChannelFault::WebhookSet { host: webhook_host(bot).await }))
            } else if words.starts_with("Conflict") {
                Err(Poll::Fault(ChannelFault::Conflict))
            } else if words.contains("Invalid bot token") {
                Err(Poll::Fault(ChannelFault::TokenRefused))
            } else {
                Err(Poll::Failed(words.into()))
            }
        }
        Ok(Err(RequestError::Network(error))) => Err(Poll::Failed(network_reason(&error))),
        Ok(Err(RequestError::RetryAfter(wait))) => {
            tokio::time::sleep(wait.duration()).await;
            Err(Poll::Failed("asked to wait".into()))
        }
        Ok(Err(RequestError::MigrateToChatId(_) | RequestError::InvalidJson { .. } | RequestError::Io(_))) => {
            Err(Poll::Failed("an answer that cannot be read".into()))
        }
        Err(_) => Err(Poll::Failed("no usable answer in time".into())),
    }
}

/// The host only: a path may be a secret of the webhook's owner.
async fn webhook_host(bot: &Bot) -> Box<str> {
    let info = tokio::time::timeout(POLL_WITHIN, bot.get_webhook_info()).await;
    let url = info.ok().and_then(Result::ok).and_then(|info| info.url);
    url.as_ref().and_then(|url| url.host_str()).unwrap_or("a host that could not be read").into()
}

/// Whether a person has been told of it: another reason for the same fault is no news.
const fn is_same(told: &ChannelFault, fault: &ChannelFault) -> bool {
    match (told, fault) {
        (ChannelFault::Conflict, ChannelFault::Conflict)
        | (ChannelFault::WebhookSet { .. }, ChannelFault::WebhookSet { .. })
        | (ChannelFault::TokenRefused, ChannelFault::TokenRefused)
        | (ChannelFault::Unreachable { .. }, ChannelFault::Unreachable { .. }) => true,
        (
            ChannelFault::Conflict
            | ChannelFault::WebhookSet { .. }
            | ChannelFault::TokenRefused
            | ChannelFault::Unreachable { .. },
            _,
        ) => false,
    }
}

fn next_update_after(update: &Update) -> i64 {
    i64::from(update.id.0) + 1
}

/// `None` for what is no message of a chat: nothing of it can be a command.
fn chat_update(update: &Update) -> Option<ChatUpdate> {
    let (message, edited) = if let UpdateKind::Message(message) | UpdateKind::ChannelPost(message) = &update.kind {
        (message, false)
    } else if let UpdateKind::EditedMessage(message) | UpdateKind::EditedChannelPost(message) = &update.kind {
        (message, true)
    } else {
        return None;
    };
    Some(ChatUpdate {
        update_id: update.id.0.into(),
        at: Time::from_millis(message.date.timestamp().saturating_mul(1_000)),
        chat: ChatId(message.chat.id.0),
        chat_kind: match &message.chat.kind {
            BotChatKind::Private(_) => ChatKind::Private,
            BotChatKind::Public(chat) => match chat.kind {
                PublicChatKind::Channel(_) => ChatKind::Channel,
                PublicChatKind::Group | PublicChatKind::Supergroup(_) => ChatKind::Group,
            },
        },
        user: message.from.as_ref().map(|user| user.id.0),
        text: message.text().unwrap_or_default().chars().take(TEXT_CHARS_MAX).collect::<String>().into(),
        marks: marks(message, edited),
    })
}

fn marks(message: &Message, edited: bool) -> Vec<Mark> {
    [
        (edited || message.edit_date().is_some(), Mark::Edited),
        (message.forward_origin().is_some() || message.is_automatic_forward(), Mark::Forwarded),
        (message.via_bot.is_some() || message.sender_business_bot.is_some(), Mark::ViaBot),
        (message.sender_chat.is_some(), Mark::SenderChat),
    ]
    .into_iter()
    .filter_map(|(is, mark)| is.then_some(mark))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(extra: &str) -> ChatUpdate {
        let json = format!(
            r#"{{"update_id":7,"message":{{"message_id":1,"date":1764000000,"chat":{{"id":42,"type":"private","first_name":"O"}},
            "from":{{"id":42,"is_bot":false,"first_name":"O"}},"text":"/ack 1"{extra}}}}}"#
        );
        chat_update(&serde_json::from_str(&json).unwrap()).unwrap()
    }

    #[test]
    fn a_message_is_read_with_what_makes_it_doubtful() {
        let plain = read("");
        assert_eq!((plain.update_id, plain.user, plain.chat), (7, Some(42), ChatId(42)));
        assert_eq!(
            (&*plain.text, plain.at, plain.marks.as_slice()),
            ("/ack 1", Time::from_millis(1_764_000_000_000), &[][..])
        );
        let bot = r#"{"id":9,"is_bot":true,"first_name":"B","username":"b_bot"}"#;
        for (extra, mark) in [
            (r#","edit_date":1764000001"#.to_owned(), Mark::Edited),
            (
                r#","forward_origin":{"type":"hidden_user","date":1764000000,"sender_user_name":"x"}"#.to_owned(),
                Mark::Forwarded,
            ),
            (format!(r#","via_bot":{bot}"#), Mark::ViaBot),
            (r#","sender_chat":{"id":-100,"type":"channel","title":"c"}"#.to_owned(), Mark::SenderChat),
        ] {
            assert_eq!(read(&extra).marks, [mark], "{extra}");
        }
    }
}
