//! Commands that are typed, honest and hostile.

use super::Expected::{Answered, Done, Refused};
use super::*;

/// Typed. Each of the first is the owner's `/kill main` or `/resume` with one thing wrong.
pub(super) const TYPED: &[Row] = &[
    row("a stranger in his own chat", Refused("not on the list"), |p| {
        p.api.say(STRANGER, p.daemon.clock.secs(), "/kill main")
    }),
    row("a stranger in ours", Refused("not on the list"), |p| {
        p.say_with("/kill main", |m| m["from"] = person(STRANGER))
    }),
    row("an owner elsewhere", Refused("not the paired one"), |p| {
        p.api.say(PARTNER, p.daemon.clock.secs(), "/kill main")
    }),
    row("an owner in a group", Refused("not the paired one"), |p| {
        p.say_with("/kill main", |m| m["chat"] = json!({"id": GROUP, "type": "supergroup", "title": "g"}));
    }),
    row("an anonymous admin", Refused("nobody can tell"), |p| {
        p.say_with("/kill main", |m| {
            m["from"] = person(ANONYMOUS_ADMIN);
            m["sender_chat"] = json!({"id": GROUP, "type": "supergroup", "title": "g"});
        });
    }),
    row("Telegram's own user", Refused("nobody can tell"), |p| {
        p.say_with("/kill main", |m| m["from"] = person(TELEGRAM))
    }),
    row("the user of all channels", Refused("nobody can tell"), |p| {
        p.say_with("/kill main", |m| m["from"] = person(CHANNELS))
    }),
    row("no sender", Refused("nobody can tell"), |p| {
        p.say_with("/kill main", |m| drop(m.as_object_mut().unwrap().remove("from")))
    }),
    row("on behalf of a chat", Refused("on behalf of a chat"), |p| {
        p.say_with("/kill main", |m| m["sender_chat"] = json!({"id": -100, "type": "channel", "title": "c"}));
    }),
    row("a channel post", Refused("a channel post"), |p| {
        p.say_as("channel_post", "/kill main", |m| m["chat"] = json!({"id": -100, "type": "channel", "title": "c"}));
    }),
    row("an edited channel post", Refused("a channel post"), |p| {
        p.say_as("edited_channel_post", "/kill main", |m| {
            m["chat"] = json!({"id": -100, "type": "channel", "title": "c"});
            m["edit_date"] = m["date"].clone();
        });
    }),
    row("stale", Refused("more than 60 s away"), |p| p.api.say(OWNER, p.daemon.clock.secs() - 70, "/kill main")),
    row("from the future", Refused("more than 60 s away"), |p| {
        p.api.say(OWNER, p.daemon.clock.secs() + 300, "/kill main")
    }),
    row("edited into a command", Refused("an edited message"), |p| {
        p.say_as("edited_message", "/kill main", |m| m["edit_date"] = m["date"].clone());
    }),
    row("edited before it was read", Refused("an edited message"), |p| {
        p.say_with("/kill main", |m| m["edit_date"] = m["date"].clone());
    }),
    row("forwarded from somebody hidden", Refused("a forwarded message"), |p| {
        p.say_with("/kill main", |m| {
            m["forward_origin"] = json!({"type": "hidden_user", "date": m["date"], "sender_user_name": "x"});
        });
    }),
    row("forwarded from the owner himself", Refused("a forwarded message"), |p| {
        p.say_with("/kill main", |m| {
            m["forward_origin"] = json!({"type": "user", "date": m["date"], "sender_user": person(OWNER)});
        });
    }),
    row("through another bot", Refused("through a bot"), |p| {
        p.say_with("/kill main", |m| {
            m["via_bot"] = json!({"id": 9, "is_bot": true, "first_name": "B", "username": "b_bot"})
        });
    }),
    row("by a business bot", Refused("through a bot"), |p| {
        p.say_with("/kill main", |m| {
            m["sender_business_bot"] = json!({"id": 9, "is_bot": true, "first_name": "B", "username": "b_bot"});
        });
    }),
    row("an update heard before", Refused("heard before"), |p| {
        let mut update = json!({"message": p.said("/kill main")});
        update["update_id"] = 1.into();
        p.api.replay(update);
    }),
    row("a wrong code", Refused("the one-time password is wrong"), |p| {
        let wrong = if p.code() == "000000" { "000001" } else { "000000" };
        p.api.say(OWNER, p.daemon.clock.secs(), &format!("/resume main {wrong}"));
    }),
    row("a stranger's right code", Refused("not on the list"), |p| {
        p.api.say(STRANGER, p.daemon.clock.secs(), &format!("/resume main {}", p.code()));
    }),
    row("a forwarded right code", Refused("a forwarded message"), |p| {
        p.say_with(&format!("/resume main {}", p.code()), |m| {
            m["forward_origin"] = json!({"type": "user", "date": m["date"], "sender_user": person(OWNER)});
        });
    }),
    row("an edited right code", Refused("an edited message"), |p| {
        p.say_as("edited_message", &format!("/resume main {}", p.code()), |m| m["edit_date"] = m["date"].clone());
    }),
    row("a stale right code", Refused("more than 60 s away"), |p| {
        p.api.say(OWNER, p.daemon.clock.secs() - 70, &format!("/resume main {}", p.code()));
    }),
    row("a resume without a code", Answered("needs a one-time password"), |p| {
        p.api.say(OWNER, p.daemon.clock.secs(), "/resume main it is safe");
    }),
    row("a code under a mistyped command", Answered("no such command"), |p| {
        p.api.say(OWNER, p.daemon.clock.secs(), &format!("/resum main {}", p.code()));
    }),
    row("an account that there is not", Answered("Which account?"), |p| {
        p.api.say(OWNER, p.daemon.clock.secs(), "/kill other")
    }),
    row("words after the account", Answered("no such command"), |p| {
        p.api.say(OWNER, p.daemon.clock.secs(), "/kill main now")
    }),
    row("a kill that is only typed", Answered("Kill main?"), |p| p.api.say(OWNER, p.daemon.clock.secs(), "/kill main")),
    row("a freeze that is only typed", Answered("Freeze main?"), |p| {
        p.api.say(OWNER, p.daemon.clock.secs(), "/freeze")
    }),
    row("a right code", Done(Ordered::Resume), |p| {
        p.api.say(OWNER, p.daemon.clock.secs(), &format!("/resume main {} key 2 was mine", p.code()));
    }),
    row("a right code in two parts", Done(Ordered::Resume), |p| {
        let code = p.code();
        p.api.say(OWNER, p.daemon.clock.secs(), &format!("/resume main {} {}", &code[..3], &code[3..]));
    }),
];
