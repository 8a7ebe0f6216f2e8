use super::*;
use crate::kernel::button::{Keyboard, Press, Pressed, Seal, Token};
use crate::kernel::incident::IncidentState;

fn with_accounts(accounts: &[&str]) -> SharedConfig {
    SharedConfig { stoppable: accounts.iter().map(|name| Account::new(name)).collect(), ..config() }
}

/// Edits happen in place, as Telegram does it.
pub(super) fn in_place(post: &Post, _: Time, message: MessageId) -> PostOutcome {
    let message = match post {
        Post::Telegram(ChatPost { action: ChatAction::Edit { message }, .. }) => *message,
        Post::Telegram(_) | Post::Webhook(_) | Post::Pressed(_) => message,
    };
    PostOutcome::Delivered { message: Some(message) }
}

/// The newest message with buttons: its number, Telegram's id of it, and the buttons.
#[derive(Clone, Debug)]
struct Seen {
    number: u64,
    message: MessageId,
    keyboard: Keyboard,
}

impl Seen {
    fn presses(&self) -> Vec<Press> {
        self.keyboard.buttons.iter().map(|button| button.press).collect()
    }

    fn token(&self, press: Press) -> Token {
        self.keyboard.token(self.number, press)
    }
}

impl World {
    fn stoppable(accounts: &[&str]) -> Self {
        let mut world = Self::new();
        world.channels = in_place;
        world.event(SharedEvent::Started { config: with_accounts(accounts) });
        world
    }

    /// A critical card of `main` with its buttons on the phone.
    fn with_card() -> (Self, Seen) {
        let mut world = Self::stoppable(&["main"]);
        world.notice(critical("main", 7, 3));
        world.run(secs(5));
        let card = world.seen();
        (world, card)
    }

    /// The card's kill was pressed, and the question is on the phone.
    fn with_question() -> (Self, Seen) {
        let (mut world, card) = Self::with_card();
        world.press(&card, Press::Kill);
        world.run(secs(5));
        let question = world.seen_with(Press::YesKill);
        (world, question)
    }

    fn all_seen(&self) -> Vec<Seen> {
        let before = usize::try_from(self.messages).unwrap() - self.posts.len();
        let seen = |(index, (_, post)): (usize, &(Time, Post))| match post {
            Post::Telegram(ChatPost { number, action, keyboard: Some(keyboard), .. }) => {
                let message = match action {
                    ChatAction::Edit { message } => *message,
                    ChatAction::Send { .. } => MessageId(i32::try_from(before + index + 1).unwrap()),
                };
                Some(Seen { number: *number, message, keyboard: keyboard.clone() })
            }
            Post::Telegram(_) | Post::Webhook(_) | Post::Pressed(_) => None,
        };
        self.posts.iter().enumerate().filter_map(seen).collect()
    }

    fn seen(&self) -> Seen {
        self.all_seen().pop().expect("no message has buttons")
    }

    fn seen_with(&self, press: Press) -> Seen {
        self.all_seen().into_iter().rfind(|seen| seen.presses().contains(&press)).expect("no message has that button")
    }

    fn press_of(&mut self, seen: &Seen, press: Press) -> ChatUpdate {
        let seal = Seal::Whole(seen.token(press));
        let pressed = Pressed { query: "q".into(), message: Some(seen.message), seal };
        ChatUpdate { pressed: Some(pressed), ..self.update("") }
    }

    fn press(&mut self, seen: &Seen, press: Press) {
        let update = self.press_of(seen, press);
        self.event(SharedEvent::Update(update));
    }

    fn commands(&self) -> Vec<(Command, Said, Totp)> {
        let command = |effect: &SharedEffect| match effect {
            SharedEffect::Command { said, totp, .. } => Some((said.command.clone(), said.clone(), *totp)),
            SharedEffect::Post(_) | SharedEffect::Acknowledge { .. } | SharedEffect::Show { .. } => None,
        };
        self.effects.iter().flatten().filter_map(command).collect()
    }

    fn acknowledged(&self) -> Vec<u64> {
        let shown = |effect: &SharedEffect| match effect {
            SharedEffect::Acknowledge { shown, .. } => Some(*shown),
            SharedEffect::Post(_) | SharedEffect::Command { .. } | SharedEffect::Show { .. } => None,
        };
        self.effects.iter().flatten().filter_map(shown).collect()
    }

    fn restart_stoppable(&mut self) {
        self.under_way.clear();
        self.shared = serde_json::from_str(&serde_json::to_string(&self.shared).unwrap()).unwrap();
        self.event(SharedEvent::Started { config: with_accounts(&["main"]) });
    }

    fn says(&self, channel: Channel, part: &str) -> bool {
        self.on(channel).iter().any(|(_, text)| text.contains(part))
    }

    fn answers(&self) -> Vec<String> {
        let text = |(_, post): &(Time, Post)| match post {
            Post::Pressed(answer) => Some(answer.text.to_string()),
            Post::Telegram(_) | Post::Webhook(_) => None,
        };
        self.posts.iter().filter_map(text).collect()
    }
}

#[test]
fn freeze_and_kill_take_two_presses_and_happen_once() {
    for (first, second, command) in
        [(Press::Freeze, Press::YesFreeze, Command::Freeze), (Press::Kill, Press::YesKill, Command::Kill)]
    {
        let (mut world, card) = World::with_card();
        assert_eq!(card.presses(), [Press::Freeze, Press::Kill, Press::Acknowledge]);
        world.press(&card, first);
        assert_eq!(world.commands().len(), 0);
        world.run(Duration::from_millis(1_500));
        let question = world.seen_with(second);
        assert_eq!(question.presses(), [second, Press::No]);
        world.press(&question, second);
        let said = Said {
            account: Account::new("main"),
            command: command.clone(),
            by: "Telegram user 42".into(),
            way: Some(Way::Telegram { user: 42 }),
            why: None,
            chat: Some(CHAT),
        };
        assert_eq!(world.commands(), [(command, said.clone(), Totp::Absent)]);
        assert!(matches!(
            world.effects.last().unwrap()[0],
            SharedEffect::Command { incident: Some(IncidentId(7)), .. }
        ));
        world.press(&question, second);
        world.run(secs(5));
        world.restart_stoppable();
        world.press(&question, second);
        assert_eq!(world.commands().len(), 1);
        world.event(SharedEvent::Commanded { said, refused: None });
        world.run(secs(5));
        assert!(world.says(Channel::Telegram, "has begun"), "{:#?}", world.telegram());
    }
}

#[test]
fn no_means_no_and_the_card_gets_fresh_buttons() {
    let (mut world, question) = World::with_question();
    let card = world.seen_with(Press::Kill);
    assert_eq!(card.keyboard.revision, 3);
    world.press(&question, Press::No);
    world.press(&question, Press::YesKill);
    world.run(secs(10));
    world.press(&card, Press::Kill);
    world.run(secs(5));
    assert_eq!(world.commands().len(), 0);
    let asked = world.telegram().iter().filter(|(_, text)| text.contains("Kill main?")).count();
    assert_eq!(asked, 2, "the fresh button asks again");
}

#[test]
fn what_is_hostile_is_refused_with_a_reason_on_the_other_channel_and_does_nothing() {
    type Change = fn(&mut World, &mut ChatUpdate);
    fn token(update: &mut ChatUpdate) -> &mut Token {
        match &mut update.pressed.as_mut().unwrap().seal {
            Seal::Whole(token) => token,
            Seal::Absent | Seal::Forged => panic!("no token"),
        }
    }
    let table: [(&str, Change, &str); 22] = [
        ("a stranger", |_, u| u.user = Some(666), "not on the list"),
        ("nobody", |_, u| u.user = None, "nobody can tell who sent it"),
        ("an anonymous admin", |_, u| u.user = Some(1_087_968_824), "nobody can tell who sent it"),
        ("Telegram itself", |_, u| u.user = Some(777_000), "nobody can tell who sent it"),
        ("all channels", |_, u| u.user = Some(136_817_688), "nobody can tell who sent it"),
        ("a channel", |_, u| u.chat_kind = ChatKind::Channel, "a channel post"),
        ("another chat", |_, u| u.chat = ChatId(43), "not the paired one"),
        ("a group", |_, u| (u.chat, u.chat_kind) = (ChatId(-9), ChatKind::Group), "not the paired one"),
        ("forwarded", |_, u| u.marks.push(Mark::Forwarded), "forwarded"),
        ("through a bot", |_, u| u.marks.push(Mark::ViaBot), "through a bot"),
        ("for a chat", |_, u| u.marks.push(Mark::SenderChat), "on behalf of a chat"),
        ("somebody else's message", |_, u| u.marks.push(Mark::OtherSender), "under a message that is not ours"),
        ("no message", |_, u| u.pressed.as_mut().unwrap().message = None, "under no message of a chat"),
        ("forged", |_, u| u.pressed.as_mut().unwrap().seal = Seal::Forged, "was not made by us"),
        ("empty", |_, u| u.pressed.as_mut().unwrap().seal = Seal::Absent, "carries nothing of ours"),
        ("moved", |_, u| u.pressed.as_mut().unwrap().message = Some(MessageId(1)), "under another message"),
        ("another message's", |_, u| token(u).number = 1, "no longer count"),
        ("another incident's", |_, u| token(u).incident = Some(IncidentId(8)), "not of what its message shows"),
        ("another revision's", |_, u| token(u).revision = 2, "not of what its message shows"),
        ("another account's", |_, u| token(u).account = "0000000000".into(), "not of what its message shows"),
        ("expired", |w, u| (w.now, u.at) = (w.now + secs(60), w.now + secs(60)), "has expired"),
        ("replayed", |_, u| u.update_id = 1, "heard before"),
    ];
    for (name, change, reason) in table {
        let (mut world, question) = World::with_question();
        let mut update = world.press_of(&question, Press::YesKill);
        change(&mut world, &mut update);
        world.event(SharedEvent::Update(update));
        world.run(secs(20));
        assert_eq!(world.commands().len(), 0, "{name}");
        assert!(world.says(Channel::Webhook, reason), "{name}: {:#?}", world.on(Channel::Webhook));
    }
    let (mut world, question) = World::with_question();
    world.press(&question, Press::YesKill);
    assert_eq!(world.commands().len(), 1, "the same without a change is obeyed");
}

#[test]
fn refusals_are_told_once_an_hour_each_and_strangers_get_no_answer() {
    let (mut world, question) = World::with_question();
    world.posts.clear();
    for _ in 0..200 {
        let mut update = world.press_of(&question, Press::YesKill);
        update.user = Some(666);
        world.event(SharedEvent::Update(update));
        let mut forged = world.press_of(&question, Press::YesKill);
        forged.pressed.as_mut().unwrap().seal = Seal::Forged;
        world.event(SharedEvent::Update(forged));
        world.run(Duration::from_millis(500));
    }
    let said = world.on(Channel::Webhook);
    assert_eq!(said.iter().filter(|(_, text)| text.contains("Refused")).count(), 2, "{said:#?}");
    let answers = world.answers();
    assert!((40..=60).contains(&answers.len()), "one in two seconds: {}", answers.len());
    assert!(answers.iter().all(|text| text.contains("was not made by us")));
}

#[test]
fn an_acknowledgement_by_button_covers_what_stood_above_it() {
    let (mut world, card) = World::with_card();
    world.notice(Notice { orders: 2, ..critical("main", 7, 4) });
    world.press(&card, Press::Acknowledge);
    assert_eq!(world.acknowledged(), [3]);
    world.run(secs(5));
    let grown = world.seen();
    assert_eq!((grown.message, grown.keyboard.revision), (card.message, 4));
    world.press(&card, Press::Acknowledge);
    world.press(&grown, Press::Acknowledge);
    world.press(&grown, Press::Acknowledge);
    assert_eq!(world.acknowledged(), [3, 4]);
    world.notice(Notice { state: IncidentState::Acknowledged, ..critical("main", 7, 5) });
    world.run(secs(5));
    assert_eq!(world.seen().presses(), [Press::Freeze, Press::Kill], "it can still be stopped");
    world.notice(Notice { state: IncidentState::Ended, ..critical("main", 7, 6) });
    world.run(secs(5));
    assert_eq!(world.seen().keyboard.revision, 5, "what is over has no buttons");
}

#[test]
fn an_expired_card_is_refused_and_gets_fresh_buttons() {
    let (mut world, card) = World::with_card();
    world.now = world.now + secs(24 * 3_600);
    world.press(&card, Press::Kill);
    world.run(secs(10));
    assert!(world.says(Channel::Webhook, "has expired"));
    let fresh = world.all_seen().into_iter().rfind(|seen| seen.number == card.number).unwrap();
    assert!(fresh.keyboard.expires > world.now);
    world.press(&fresh, Press::Kill);
    world.run(secs(5));
    assert!(world.says(Channel::Telegram, "Kill main?"));
}

#[test]
fn whoever_pairs_the_chat_anew_gets_the_buttons() {
    let (mut world, card) = World::with_card();
    let mut config = with_accounts(&["main"]);
    config.telegram.as_mut().unwrap().allowed_users.push(43);
    world.event(SharedEvent::Started { config });
    world.event(SharedEvent::PairingIssued { code_sha256: pairing_digest("NEW"), expires: world.now + secs(60) });
    let update = world.update("/pair NEW");
    world.event(SharedEvent::Update(ChatUpdate { user: Some(43), ..update }));
    world.run(secs(10));
    let fresh = world.seen_with(Press::Kill);
    assert_eq!((fresh.number, fresh.message, fresh.keyboard.user), (card.number, card.message, 43));
    world.run(secs(10));
    let mut late = world.press_of(&card, Press::Kill);
    late.user = Some(OWNER);
    world.event(SharedEvent::Update(late));
    world.run(secs(10));
    assert!(world.says(Channel::Webhook, "not of what its message shows now"));
    let mut own = world.press_of(&fresh, Press::Kill);
    own.user = Some(43);
    world.event(SharedEvent::Update(own));
    world.run(secs(5));
    assert_eq!(world.seen_with(Press::YesKill).keyboard.user, 43);
}

#[test]
fn only_cards_of_what_can_be_stopped_have_buttons() {
    let mut world = World::stoppable(&["main"]);
    world.notice(critical("other", 1, 1));
    world.notice(notice_of("main", 2, 1, Priority::Warning));
    world.run(secs(10));
    assert_eq!(world.all_seen().len(), 0);
}

#[test]
fn typed_commands_name_an_account_or_are_asked_which() {
    let table: [(&[&str], &str, &str); 8] = [
        (&["main"], "/kill", "Kill main?"),
        (&["main"], "/freeze main", "Freeze main?"),
        (&["main", "b"], "/kill b", "Kill b?"),
        (&["main", "b"], "/kill", "Which account? These can be stopped: main, b"),
        (&["main"], "/kill c", "Which account? These can be stopped: main"),
        (&["main"], "/resume c", "Which account? These can be stopped: main"),
        (&["main"], "/resume main", "needs a one-time password"),
        (&["main"], "/resume", "Like this: /resume"),
    ];
    for (accounts, text, answer) in table {
        let mut world = World::stoppable(accounts);
        world.say(text);
        world.run(secs(3));
        assert!(world.says(Channel::Telegram, answer), "{text}: {:#?}", world.telegram());
        assert_eq!(world.commands().len(), 0);
    }
    for text in ["/plan", "/kill", "/freeze main", "/resume main"] {
        let mut world = World::stoppable(&[]);
        world.say(text);
        assert!(matches!(world.effects.last().unwrap()[0], SharedEffect::Show { what: Show::Plan, .. }), "{text}");
    }
    let mut world = World::stoppable(&["main", "b"]);
    world.say("/kill b");
    world.run(secs(3));
    let question = world.seen();
    world.press(&question, Press::YesKill);
    assert_eq!(world.commands()[0].1.account, Account::new("b"));
}

#[test]
fn a_resume_takes_a_code_and_is_told_everywhere_with_its_reason() {
    let mut world = World::stoppable(&["main"]);
    let resume = |world: &mut World, totp| {
        let update = world.update("/resume main it was me");
        world.event(SharedEvent::Update(ChatUpdate { totp: Some(totp), ..update }));
    };
    resume(&mut world, Totp::Wrong);
    world.run(secs(5));
    assert!(world.says(Channel::Webhook, "tried to resume main, and was refused: the one-time password is wrong"));
    let right = Totp::Right { step: 5 };
    resume(&mut world, right);
    let [(Command::Resume, said, totp)] = &world.commands()[..] else { panic!("{:?}", world.commands()) };
    assert_eq!((*totp, said.why.as_deref()), (right, Some("it was me")));
    world.event(SharedEvent::Commanded { said: said.clone(), refused: Some("it was used already".into()) });
    world.event(SharedEvent::Commanded { said: said.clone(), refused: None });
    world.run(secs(10));
    assert!(world.says(Channel::Telegram, "Not carried out: it was used already"));
    for channel in Channel::ALL {
        assert!(world.says(channel, "main is being resumed"), "{channel}");
        assert!(world.says(channel, "Ordered by Telegram user 42, with a one-time password. Why: it was me."));
    }
    for _ in 0..4 {
        resume(&mut world, Totp::Wrong);
    }
    resume(&mut world, Totp::Right { step: 6 });
    assert_eq!(world.commands().len(), 1, "five wrong codes, and none counts");
    world.run(secs(3_600));
    resume(&mut world, Totp::Right { step: 7 });
    assert_eq!(world.commands().len(), 2);
}

#[test]
fn guesses_of_one_user_lock_out_no_other_in_the_same_chat() {
    let mut world = World::new();
    let telegram = TelegramConfig { allowed_users: vec![OWNER, 43], group_chat: true };
    world.event(SharedEvent::Started { config: SharedConfig { telegram: Some(telegram), ..with_accounts(&["main"]) } });
    let resume = |world: &mut World, user, totp| {
        let update = world.update("/resume main it was me");
        world.event(SharedEvent::Update(ChatUpdate { user: Some(user), totp: Some(totp), ..update }));
        world.run(secs(5));
        world.commands().len()
    };
    for _ in 0..5 {
        assert_eq!(resume(&mut world, 43, Totp::Wrong), 0);
    }
    assert_eq!(resume(&mut world, 43, Totp::Right { step: 1 }), 0);
    assert!(world.says(Channel::Telegram, "Too many wrong one-time passwords of yours"));
    assert_eq!(resume(&mut world, OWNER, Totp::Right { step: 1 }), 1);
}

#[test]
fn a_drills_card_says_what_it_is_and_how_the_real_thing_goes() {
    let mut world = World::stoppable(&["main"]);
    let rule = crate::kernel::incident::DRILL_RULE.into();
    world.notice(Notice { rule, ..critical("main", 7, 3) });
    world.run(secs(5));
    let card = world.seen();
    for (press, typed) in [(Press::Freeze, "/freeze main"), (Press::Kill, "/kill main")] {
        world.press(&card, press);
        let answer = world.answers().pop().unwrap();
        assert!(answer.contains("a DRILL's: nothing is done") && answer.contains(typed), "{answer}");
    }
    world.run(secs(30));
    assert!(!world.says(Channel::Telegram, "Kill main?") && world.commands().is_empty());
}

#[test]
fn a_question_goes_past_a_flood_and_only_a_few_wait() {
    let mut world = World::stoppable(&["main", "b"]);
    for id in 0..60 {
        world.notice(critical("main", id + 1, 1));
        world.say("/help");
        world.run(Duration::from_millis(900));
    }
    let at = world.now;
    world.say("/kill main");
    world.run(secs(5));
    let asked = world.telegram().into_iter().rfind(|(_, text)| text.contains("Kill main?")).unwrap();
    assert!(asked.0.since(at) <= secs(5), "{:?}", asked.0.since(at));
    world.channels = |_, _, _| PostOutcome::RetryAfter { secs: 600 };
    for _ in 0..50 {
        for text in ["/kill main", "/kill b", "/freeze main", "/freeze b"] {
            world.say(text);
            world.run(Duration::from_millis(100));
        }
    }
    let waiting = world.shared.lanes[&Channel::Telegram].texts.iter().filter(|text| text.question.is_some()).count();
    assert!(waiting <= 5, "{waiting}");
}

#[test]
fn what_an_account_announces_and_who_may_speak_from_now_on_is_told_on_every_channel() {
    let mut world = World::stoppable(&["main"]);
    world.event(SharedEvent::Announced { text: "main is DISARMED".into() });
    let telegram = Some(TelegramConfig { allowed_users: vec![OWNER, 7], group_chat: false });
    world.event(SharedEvent::Started { config: SharedConfig { telegram, ..with_accounts(&["main"]) } });
    world.run(secs(10));
    for channel in Channel::ALL {
        assert!(world.says(channel, "main is DISARMED"), "{channel}");
        assert!(world.says(channel, "was: users 42; and is: users 42, 7."), "{channel}");
    }
    let before = world.on(Channel::Webhook).len();
    for _ in 0..2 {
        world.restart_stoppable();
        world.run(secs(10));
    }
    assert_eq!(world.on(Channel::Webhook).len(), before + 1, "changed back, and then not changed");
}

#[test]
fn an_order_without_its_code_is_answered_with_how_it_is_typed() {
    let mut world = World::stoppable(&["main"]);
    for (text, answer) in [
        ("/disarm main it moves", "This needs a one-time password: /disarm ACCOUNT CODE [2h] WHY"),
        ("/arm main it is over", "This needs a one-time password: /arm ACCOUNT CODE WHY"),
        ("/allow main 203.0.113.7 office", "This needs a one-time password: /allow ACCOUNT CODE"),
        ("/allow main home", "Like this: /allow ACCOUNT CODE"),
        ("/approve", "Like this: /approve NUMBER CODE"),
    ] {
        world.say(text);
        world.run(secs(5));
        assert!(world.says(Channel::Telegram, answer), "{text}");
    }
    assert_eq!(world.commands().len(), 0);
    // Whether an approval needs a password, only the account knows.
    world.say("/approve 3");
    assert_eq!(world.commands()[0].0, Command::Approve { request: 3 });
}
