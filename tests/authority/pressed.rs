//! Buttons that are pressed, honest and hostile.

use super::Expected::{Acknowledged, Answered, Done, Nothing, Once, Refused};
use super::*;

/// Pressed. Each of the first is the owner's press on *Yes, kill main* with one thing wrong.
pub(super) const PRESSED: &[Row] = &[
    row("by a stranger", Refused("not on the list"), |p| p.press_with(|q| q["from"] = person(STRANGER))),
    row("by another owner", Refused("not made by us for this user and chat"), |p| {
        p.press_with(|q| q["from"] = person(PARTNER))
    }),
    row("by an anonymous admin", Refused("nobody can tell"), |p| p.press_with(|q| q["from"] = person(ANONYMOUS_ADMIN))),
    row("by Telegram's own user", Refused("nobody can tell"), |p| p.press_with(|q| q["from"] = person(TELEGRAM))),
    row("in another chat", Refused("not the paired one"), |p| {
        p.press_with(|q| q["message"]["chat"] = json!({"id": PARTNER, "type": "private", "first_name": "P"}));
    }),
    row("in a group", Refused("not the paired one"), |p| {
        p.press_with(|q| q["message"]["chat"] = json!({"id": GROUP, "type": "supergroup", "title": "g"}));
    }),
    row("in a channel", Refused("a channel post"), |p| {
        p.press_with(|q| q["message"]["chat"] = json!({"id": -100, "type": "channel", "title": "c"}));
    }),
    row("under another bot's message", Refused("under a message that is not ours"), |p| {
        p.press_with(|q| {
            q["message"]["from"] = json!({"id": 9, "is_bot": true, "first_name": "B", "username": "b_bot"})
        });
    }),
    row("under the owner's own message", Refused("under a message that is not ours"), |p| {
        p.press_with(|q| q["message"]["from"] = person(OWNER));
    }),
    row("under nobody's message", Refused("under a message that is not ours"), |p| {
        p.press_with(|q| drop(q["message"].as_object_mut().unwrap().remove("from")));
    }),
    row("under a message through a bot", Refused("through a bot"), |p| {
        p.press_with(|q| {
            q["message"]["via_bot"] = json!({"id": 9, "is_bot": true, "first_name": "B", "username": "b_bot"})
        });
    }),
    row("under a forwarded message", Refused("a forwarded message"), |p| {
        p.press_with(|q| {
            q["message"]["forward_origin"] = json!({"type": "hidden_user", "date": 1, "sender_user_name": "x"});
        });
    }),
    row("under a message for a chat", Refused("on behalf of a chat"), |p| {
        p.press_with(|q| q["message"]["sender_chat"] = json!({"id": -100, "type": "channel", "title": "c"}));
    }),
    row("under an inline message", Refused("under no message of a chat"), |p| {
        p.press_with(|q| {
            q.as_object_mut().unwrap().remove("message");
            q["inline_message_id"] = "inline".into();
        });
    }),
    row("under the card", Refused("under another message"), |p| {
        p.press_with(|q| q["message"]["message_id"] = p.card.message.into())
    }),
    row("under a message that we do not know", Refused("under another message"), |p| {
        p.press_with(|q| q["message"]["message_id"] = 4_711.into())
    }),
    row("under an old one that we do not know", Refused("under another message"), |p| {
        p.press_with(|q| {
            q["message"] = json!({
                "message_id": 4_711, "date": 0, "chat": {"id": OWNER, "type": "private", "first_name": "Owner"},
            });
        });
    }),
    row("the card's button under the question", Refused("under another message"), |p| {
        p.press_with(|q| q["data"] = data(&p.card, "Kill").into())
    }),
    row("no data", Refused("carries nothing of ours"), |p| {
        p.press_with(|q| drop(q.as_object_mut().unwrap().remove("data")))
    }),
    row("a game's button", Refused("carries nothing of ours"), |p| {
        p.press_with(|q| {
            q.as_object_mut().unwrap().remove("data");
            q["game_short_name"] = "kill".into();
        });
    }),
    row("plain words", Refused("carries nothing of ours"), |p| p.press_with(|q| q["data"] = "kill main".into())),
    row("a shorter token", Refused("carries nothing of ours"), |p| p.press_with(|q| q["data"] = p.yes()[..60].into())),
    row("zeros", Refused("not made by us"), |p| p.press_with(|q| q["data"] = "A".repeat(64).into())),
    row("a bit changed in the seal", Refused("not made by us"), |p| {
        p.press_with(|q| q["data"] = flipped(p.yes(), 63).into())
    }),
    row("a bit changed in the press", Refused("not made by us"), |p| {
        p.press_with(|q| q["data"] = flipped(p.yes(), 1).into())
    }),
    row("sealed with another key", Refused("not made by us"), |p| {
        p.press_with(|q| q["data"] = p.sealed(b"the bot's token", |_| ()).into())
    }),
    row("another incident's", Refused("not of what its message shows"), |p| {
        p.press_with(|q| q["data"] = p.sealed(CODE_KEY, |t| t.incident = Some(IncidentId(8))).into());
    }),
    row("another revision's", Refused("not of what its message shows"), |p| {
        p.press_with(|q| q["data"] = p.sealed(CODE_KEY, |t| t.revision += 1).into());
    }),
    row("another account's", Refused("not of what its message shows"), |p| {
        p.press_with(|q| q["data"] = p.sealed(CODE_KEY, |t| t.account = "0011223344".into()).into());
    }),
    row("with a later expiry", Refused("not of what its message shows"), |p| {
        p.press_with(|q| q["data"] = p.sealed(CODE_KEY, |t| t.expires_secs += 600).into());
    }),
    row("of a button that is not there", Refused("not of what its message shows"), |p| {
        p.press_with(|q| q["data"] = p.sealed(CODE_KEY, |t| t.press = Press::YesFreeze).into());
    }),
    row("another message's number", Refused("no longer count"), |p| {
        p.press_with(|q| q["data"] = p.sealed(CODE_KEY, |t| t.number = 9_999).into());
    }),
    row("an update heard before", Refused("heard before"), |p| {
        let mut update = p.pressed();
        update["update_id"] = 1.into();
        p.api.replay(update);
    }),
    row("after a no", Refused("used already"), |p| {
        p.api.press(OWNER, p.question.message, data(&p.question, "No"));
        p.api.inject(p.pressed());
    }),
    row("only no", Nothing, |p| p.api.press(OWNER, p.question.message, data(&p.question, "No"))),
    row("only the card", Answered("Kill main?"), |p| p.api.press(OWNER, p.card.message, data(&p.card, "Kill"))),
    row("the card's twice", Refused("used already"), |p| {
        p.api.press(OWNER, p.card.message, data(&p.card, "Kill"));
        p.api.press(OWNER, p.card.message, data(&p.card, "Kill"));
    }),
    row("as it should be", Done(Ordered::Kill), |p| p.api.inject(p.pressed())),
    row("with the message too old to be shown", Done(Ordered::Kill), |p| {
        p.press_with(|q| {
            let chat = q["message"]["chat"].clone();
            q["message"] = json!({"message_id": p.question.message, "date": 0, "chat": chat});
        });
    }),
    row("twice", Once(Ordered::Kill, "used already"), |p| {
        p.api.inject(p.pressed());
        p.api.inject(p.pressed());
    }),
    row("yes and no", Once(Ordered::Kill, "used already"), |p| {
        p.api.inject(p.pressed());
        p.api.press(OWNER, p.question.message, data(&p.question, "No"));
    }),
    row("once, and told to us twice", Once(Ordered::Kill, "heard before"), |p| {
        p.api.inject(p.pressed());
        let mut update = p.pressed();
        update["update_id"] = p.api.last_update().into();
        // Telegram would tell of it again after the poll in which it told of it first.
        p.api.say(OWNER, p.daemon.clock.secs(), "/help");
        p.api.replay_after_next(update);
    }),
    row("the card's acknowledgement", Acknowledged(3), |p| {
        p.api.press(OWNER, p.card.message, data(&p.card, "Acknowledge"))
    }),
];

fn flipped(data: &str, at: usize) -> String {
    let other = if &data[at..=at] == "A" { "B" } else { "A" };
    format!("{}{other}{}", &data[..at], &data[at + 1..])
}
