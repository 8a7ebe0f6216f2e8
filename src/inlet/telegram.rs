//! Reads Telegram's updates by long poll and hands each message and each press of a button over as a value. Who may say
//! what is the shared kernel's to decide; what needs a secret to be known is found out here.
//!
//! Invariants: the bot's token is in no error and no log; one poll at a time; a fault is handed over when it begins
//! and when it ends, not each time it is met; no one-time password and no token of a button leaves this file; a webhook that somebody set is told, never removed (it may be the
//! owner's, of another program on the same bot).

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretSlice;
use teloxide::payloads::GetUpdatesSetters;
use teloxide::prelude::Requester;
use teloxide::types::{
    AllowedUpdate, CallbackQuery, Chat, ChatKind as BotChatKind, MaybeInaccessibleMessage, Message, PublicChatKind,
    Update, UpdateKind,
};
use teloxide::{Bot, RequestError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::kernel::button::{Pressed, Seal};
use crate::kernel::channel::{Channel, ChatId, MessageId};
use crate::kernel::chat::{ChatKind, ChatUpdate, Mark};
use crate::kernel::command::Totp;
use crate::kernel::people::Way;
use crate::kernel::shared::{ChannelFault, SharedEvent};
use crate::kernel::time::Time;
use crate::kernel::typed::WORDS_WITH_CODE;
use crate::outlet::telegram::{in_telegrams_words, network_reason};
use crate::secret::button;
use crate::secret::one_time::Passwords;

/// How long Telegram keeps a poll open while nothing comes. The client's own timeout must be longer.
pub const POLL_SECS: u32 = 25;
/// A poll that is not answered by then is given up.
const POLL_WITHIN: Duration = Duration::from_secs(40);
const UPDATES_PER_POLL: u8 = 50;
/// No command is longer; the rest of a text is cut.
const TEXT_CHARS_MAX: usize = 256;
/// Telegram's names for presses are shorter.
const QUERY_CHARS_MAX: usize = 64;
const BACKOFF_MAX: Duration = Duration::from_secs(32);
/// Failures in a row, about a minute with the backoff, after which updates count as unreachable.
const FAILURES_UNTIL_UNREACHABLE: u32 = 6;

/// What is checked here, since the kernel holds no secret.
pub struct Checks {
    /// Of the tokens of buttons, as the outlet has it.
    pub code_key: SecretSlice<u8>,
    pub totp: Arc<Passwords>,
    /// The wall clock: one-time passwords live by it, and presses carry no time of Telegram's.
    pub now: Box<dyn Fn() -> Time + Send + Sync>,
}

/// Polls until `shutdown` or until nobody receives any more. `next_update` is the shared kernel's.
pub async fn run(
    bot: Bot,
    checks: Checks,
    next_update: i64,
    events: mpsc::Sender<SharedEvent>,
    shutdown: CancellationToken,
) {
    let reader = Reader { own_id: bot.token().split(':').next().and_then(|id| id.parse().ok()), checks };
    let polls = poll_on(&bot, &reader, next_update, &events);
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        // Ends only when the receiver is gone.
        _ = polls => {}
    }
}

async fn poll_on(
    bot: &Bot,
    reader: &Reader,
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
                    if let Some(update) = reader.read(update) {
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
        .allowed_updates([AllowedUpdate::Message, AllowedUpdate::EditedMessage, AllowedUpdate::CallbackQuery]);
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

/// Makes a value of an update.
struct Reader {
    checks: Checks,
    /// Our bot's user id is the first part of its token.
    own_id: Option<u64>,
}

impl Reader {
    /// `None` for what is neither a message nor a press: nothing of it can be a command.
    fn read(&self, update: &Update) -> Option<ChatUpdate> {
        let update_id = update.id.0.into();
        match &update.kind {
            UpdateKind::Message(message) | UpdateKind::ChannelPost(message) => {
                Some(self.message(update_id, message, false))
            }
            UpdateKind::EditedMessage(message) | UpdateKind::EditedChannelPost(message) => {
                Some(self.message(update_id, message, true))
            }
            UpdateKind::CallbackQuery(query) => Some(self.press(update_id, query)),
            UpdateKind::BusinessConnection(_)
            | UpdateKind::BusinessMessage(_)
            | UpdateKind::EditedBusinessMessage(_)
            | UpdateKind::DeletedBusinessMessages(_)
            | UpdateKind::MessageReaction(_)
            | UpdateKind::MessageReactionCount(_)
            | UpdateKind::InlineQuery(_)
            | UpdateKind::ChosenInlineResult(_)
            | UpdateKind::ShippingQuery(_)
            | UpdateKind::PreCheckoutQuery(_)
            | UpdateKind::PurchasedPaidMedia(_)
            | UpdateKind::Poll(_)
            | UpdateKind::PollAnswer(_)
            | UpdateKind::MyChatMember(_)
            | UpdateKind::ChatMember(_)
            | UpdateKind::ChatJoinRequest(_)
            | UpdateKind::ChatBoost(_)
            | UpdateKind::RemovedChatBoost(_)
            | UpdateKind::Error(_) => None,
        }
    }

    fn message(&self, update_id: i64, message: &Message, edited: bool) -> ChatUpdate {
        let edited = (edited || message.edit_date().is_some()).then_some(Mark::Edited);
        let cut: String = message.text().unwrap_or_default().chars().take(TEXT_CHARS_MAX).collect();
        let user = message.from.as_ref().map(|user| user.id.0);
        let (text, totp) = self.without_code(&cut, user);
        ChatUpdate {
            update_id,
            at: Time::from_millis(message.date.timestamp().saturating_mul(1_000)),
            chat: ChatId(message.chat.id.0),
            chat_kind: kind_of(&message.chat),
            user,
            text: text.into(),
            marks: edited.into_iter().chain(marks(message)).collect(),
            pressed: None,
            totp,
        }
    }

    /// The text without a one-time password, and what that was. It is checked only for a command that takes one, and
    /// taken out of whatever it was sent with by mistake: it would still be good for a minute.
    fn without_code(&self, text: &str, user: Option<u64>) -> (String, Option<Totp>) {
        let word = text.split_whitespace().next().unwrap_or_default();
        let word = word.split_once('@').map_or(word, |(command, _bot)| command);
        // Incidents have numbers, and a pairing code may look like one.
        if matches!(word, "/ack" | "/notme" | "/pair" | "/start") {
            return (text.to_owned(), None);
        }
        let (text, code) = code_cut_out(text);
        let code = code.filter(|_| WORDS_WITH_CODE.contains(&word));
        let check = |code: String| {
            // Nobody is no way, and only a declared person hears that he has none set up.
            let Some(way) = user.map(|user| Way::Telegram { user }) else { return Totp::Wrong };
            match self.checks.totp.check(way, &code, (self.checks.now)()) {
                Totp::NotSetUp if !self.checks.totp.is_person(way) => Totp::Wrong,
                found => found,
            }
        };
        (text, code.map(check))
    }

    fn press(&self, update_id: i64, query: &CallbackQuery) -> ChatUpdate {
        let user = query.from.id.0;
        let message = query.message.as_ref();
        let chat = message.map(MaybeInaccessibleMessage::chat);
        // A message sent through a bot stands in no chat that we are told of.
        let chat_id = ChatId(chat.map_or(0, |chat| chat.id.0));
        let seal =
            query.data.as_deref().map_or(Seal::Absent, |data| button::open(&self.checks.code_key, user, chat_id, data));
        let regular = query.regular_message();
        let sender = regular.and_then(|message| message.from.as_ref()).map(|user| user.id.0);
        let foreign = (regular.is_some() && (sender.is_none() || sender != self.own_id)).then_some(Mark::OtherSender);
        ChatUpdate {
            update_id,
            at: (self.checks.now)(),
            chat: chat_id,
            chat_kind: chat.map_or(ChatKind::Private, kind_of),
            user: Some(user),
            text: "".into(),
            marks: foreign.into_iter().chain(regular.into_iter().flat_map(marks)).collect(),
            pressed: Some(Pressed {
                query: query.id.0.chars().take(QUERY_CHARS_MAX).collect::<String>().into(),
                message: message.map(|message| MessageId(message.id().0)),
                seal,
            }),
            totp: None,
        }
    }
}

fn kind_of(chat: &Chat) -> ChatKind {
    match &chat.kind {
        BotChatKind::Private(_) => ChatKind::Private,
        BotChatKind::Public(chat) => match chat.kind {
            PublicChatKind::Channel(_) => ChatKind::Channel,
            PublicChatKind::Group | PublicChatKind::Supergroup(_) => ChatKind::Group,
        },
    }
}

/// Our own messages are edited, so that is no mark of a press.
fn marks(message: &Message) -> Vec<Mark> {
    [
        (message.forward_origin().is_some() || message.is_automatic_forward(), Mark::Forwarded),
        (message.via_bot.is_some() || message.sender_business_bot.is_some(), Mark::ViaBot),
        (message.sender_chat.is_some(), Mark::SenderChat),
    ]
    .into_iter()
    .filter_map(|(is, mark)| is.then_some(mark))
    .collect()
}

/// Six digits, or three and three, that are no part of a longer word: the first of them is the code, and none of them
/// stays.
fn code_cut_out(text: &str) -> (String, Option<String>) {
    let mut code = None;
    let mut kept: Vec<&str> = Vec::new();
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        // "code:123456" and "123-456".
        let digits: String = bare.rsplit([':', '=']).next().unwrap_or_default().split('-').collect();
        let is_digits = |text: &str, count| text.chars().count() == count && text.chars().all(char::is_numeric);
        if is_digits(&digits, 6) {
            code.get_or_insert(digits);
        } else if is_digits(&digits, 3) && words.peek().is_some_and(|next| is_digits(next, 3)) {
            let rest = words.next().unwrap_or_default();
            code.get_or_insert(format!("{digits}{rest}"));
        } else {
            kept.push(word);
        }
    }
    if code.is_none() { (text.to_owned(), None) } else { (kept.join(" "), code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::button::{Press, Token};
    use crate::kernel::order::Account;
    use crate::secret::one_time::OneTimePasswords;

    const NOW: Time = Time::from_millis(59_000);
    /// Of the one-time passwords; at 59 s they give 287082.
    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    fn reader() -> Reader {
        let totp = OneTimePasswords::new(&SECRET.into(), &Account::new("main")).unwrap();
        let code_key = SecretSlice::from(b"k".to_vec());
        Reader {
            checks: Checks { code_key, totp: Arc::new(Passwords::common(totp)), now: Box::new(|| NOW) },
            own_id: Some(7),
        }
    }

    fn read_text(text: &str, extra: &str) -> ChatUpdate {
        let json = format!(
            r#"{{"update_id":7,"message":{{"message_id":1,"date":1764000000,"chat":{{"id":42,"type":"private","first_name":"O"}},
            "from":{{"id":42,"is_bot":false,"first_name":"O"}},"text":"{text}"{extra}}}}}"#
        );
        reader().read(&serde_json::from_str(&json).unwrap()).unwrap()
    }

    fn read(extra: &str) -> ChatUpdate {
        read_text("/ack 1", extra)
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

    #[test]
    fn a_code_is_checked_for_the_command_that_takes_one_and_stays_nowhere() {
        let right = Some(Totp::Right { step: 1 });
        for (text, kept, totp) in [
            ("/resume main 287082", "/resume main", right),
            ("/resume@my_bot main 287082 key 2 is new", "/resume@my_bot main key 2 is new", right),
            ("/resume main 287 082 it is safe", "/resume main it is safe", right),
            ("/resume main 287-082", "/resume main", right),
            ("/resume main code:287082.", "/resume main", right),
            ("/resume 287082", "/resume", right),
            ("/resume main 287083 287082", "/resume main", Some(Totp::Wrong)),
            ("/resume main 28708", "/resume main 28708", None),
            ("/resume main", "/resume main", None),
            ("/disarm main 287082 2h it moves", "/disarm main 2h it moves", right),
            ("/arm main 287082", "/arm main", right),
            ("/allow main 287082 203.0.113.7 30d office", "/allow main 203.0.113.7 30d office", right),
            ("/allow main 203.0.113.0/24 287082 office", "/allow main 203.0.113.0/24 office", right),
            ("/allow main 287 082 2001:db8::/32 it", "/allow main 2001:db8::/32 it", right),
            ("/allow main 287082 0123456789abcdef it", "/allow main 0123456789abcdef it", right),
            ("/approve 3 287082", "/approve 3", right),
            ("/approve 99 287 082", "/approve 99", right),
            ("/approve 3", "/approve 3", None),
            ("/decline 3 287082", "/decline 3", None),
            ("/resum main 287082", "/resum main", None),
            ("287082", "", None),
            ("287 082", "", None),
            ("/status 287082", "/status", None),
            ("/kill main", "/kill main", None),
            ("/ack main 287082", "/ack main 287082", None),
            ("/pair 287082", "/pair 287082", None),
            ("/notme main 287082", "/notme main 287082", None),
            (
                "/manual main 287082 BTCUSDT BUY 100000USDT 3 30m why",
                "/manual main BTCUSDT BUY 100000USDT 3 30m why",
                right,
            ),
        ] {
            let read = read_text(text, "");
            assert_eq!((&*read.text, read.totp), (kept, totp), "{text}");
        }
        let without = Reader { checks: Checks { totp: Arc::default(), ..reader().checks }, ..reader() };
        assert_eq!(without.without_code("/resume main 287082", Some(42)).1, Some(Totp::Wrong));
    }

    fn pressed(from: u64, sender: &str, extra: &str) -> ChatUpdate {
        let token = Token {
            press: Press::Kill,
            number: 5,
            account: "0123456789".into(),
            incident: None,
            revision: 1,
            expires_secs: 60,
        };
        let data = button::seal(&reader().checks.code_key, 42, ChatId(42), &token);
        let json = format!(
            r#"{{"update_id":8,"callback_query":{{"id":"q","chat_instance":"1","data":"{data}",
            "from":{{"id":{from},"is_bot":false,"first_name":"O"}},
            "message":{{"message_id":9,"date":1764000000,"edit_date":1764000009,"text":"card",
            "chat":{{"id":42,"type":"private","first_name":"O"}}{sender}{extra}}}}}}}"#
        );
        reader().read(&serde_json::from_str(&json).unwrap()).unwrap()
    }

    #[test]
    fn a_press_is_read_with_its_seal_and_its_message() {
        let ours = r#","from":{"id":7,"is_bot":true,"first_name":"B"}"#;
        let read = pressed(42, ours, "");
        let Some(Pressed { message: Some(MessageId(9)), seal: Seal::Whole(token), .. }) = read.pressed else {
            panic!()
        };
        assert_eq!((token.press, token.number, read.at, read.marks.len()), (Press::Kill, 5, NOW, 0));
        assert_eq!(pressed(43, ours, "").pressed.unwrap().seal, Seal::Forged);
        let theirs = r#","from":{"id":8,"is_bot":true,"first_name":"B"}"#;
        assert_eq!(pressed(42, theirs, "").marks, [Mark::OtherSender]);
        assert_eq!(pressed(42, "", "").marks, [Mark::OtherSender]);
        let via = r#","via_bot":{"id":9,"is_bot":true,"first_name":"B","username":"b_bot"}"#;
        assert_eq!(pressed(42, ours, via).marks, [Mark::ViaBot]);
    }
}
