//! Claim windows on the channels: told everywhere, order by order, and disowned with one press.

use super::authority::in_place;
use super::*;
use crate::kernel::button::{Press, Pressed, Seal};
use crate::kernel::incident::{CLAIM_RULE, IncidentState};

/// A window in which so many orders were made.
fn window(revision: u64, orders: u64, state: IncidentState) -> Notice {
    Notice { rule: CLAIM_RULE.into(), orders, state, ..notice_of("main", 12, revision, Priority::Warning) }
}

impl World {
    fn press_not_me(&mut self, nth: usize) {
        let with_buttons = self.posts.iter().enumerate().filter_map(|(index, (_, post))| match post {
            Post::Telegram(ChatPost { number, keyboard: Some(keyboard), action, .. }) => {
                let edited = match action {
                    ChatAction::Edit { message } => Some(*message),
                    ChatAction::Send { .. } => None,
                };
                Some((index, *number, keyboard, edited))
            }
            Post::Telegram(_) | Post::Webhook(_) | Post::Pressed(_) => None,
        });
        let (index, number, keyboard, edited) = with_buttons.collect::<Vec<_>>()[nth];
        let before = usize::try_from(self.messages).unwrap() - self.posts.len();
        let message = edited.or_else(|| Some(MessageId(i32::try_from(before + index + 1).unwrap())));
        let seal = Seal::Whole(keyboard.token(number, Press::NotMe));
        let pressed = Some(Pressed { query: "q".into(), message, seal });
        let update = ChatUpdate { pressed, ..self.update("") };
        self.event(SharedEvent::Update(update));
    }

    fn ordered(&self) -> Vec<(Command, Totp)> {
        let ordered = |effect: &SharedEffect| match effect {
            SharedEffect::Command { said, totp, .. } => Some((said.command.clone(), *totp)),
            SharedEffect::Post(_) | SharedEffect::Acknowledge { .. } | SharedEffect::Show { .. } => None,
        };
        self.effects.iter().flatten().filter_map(ordered).collect()
    }

    fn type_manual(&mut self, totp: Option<Totp>) {
        let update = self.update("/manual main BTCUSDT BUY 2000USDT 3 30m by hand");
        self.event(SharedEvent::Update(ChatUpdate { totp, ..update }));
    }

    fn tells(&self, channel: Channel, part: &str) -> bool {
        self.on(channel).iter().any(|(_, text)| text.contains(part))
    }
}

#[test]
fn the_opening_each_order_and_the_end_are_told_on_every_channel() {
    let mut world = World::new();
    world.notice(window(1, 0, IncidentState::Open));
    world.run(secs(10));
    world.notice(window(2, 1, IncidentState::Open));
    world.run(secs(10));
    // A fill of it is no new order.
    world.notice(window(3, 1, IncidentState::Open));
    world.run(secs(10));
    world.notice(window(4, 2, IncidentState::Open));
    world.run(secs(10));
    world.notice(window(5, 2, IncidentState::Ended));
    world.run(secs(10));
    assert_eq!(world.actions(), ["send", "send", "edit", "send", "edit", "reply"]);
    let kinds = world.on(Channel::Webhook);
    let cards = kinds.iter().filter(|(_, body)| body.contains(r#""kind":"card""#)).count();
    assert_eq!((cards, kinds.len()), (3, 6), "{kinds:#?}");
}

#[test]
fn one_press_of_not_me_disowns_the_window_once() {
    let mut world = World::new();
    world.notice(window(1, 0, IncidentState::Open));
    world.run(secs(5));
    world.notice(window(2, 1, IncidentState::Open));
    world.run(secs(5));
    // The first of both messages: an older one counts as well.
    world.press_not_me(0);
    world.press_not_me(0);
    let not_me = Command::NotMe { window: Some(IncidentId(12)) };
    assert_eq!(world.ordered(), [(not_me, Totp::Absent)]);
    let answers = world.posts.iter().filter_map(|(_, post)| match post {
        Post::Pressed(answer) => Some(&*answer.text),
        Post::Telegram(_) | Post::Webhook(_) => None,
    });
    let taken = answers.filter(|text| text.contains("Not you")).collect::<Vec<_>>();
    assert!(
        taken.len() == 1 && taken[0].contains("was taken") && !taken[0].contains("over"),
        "not done yet: {taken:?}"
    );
}

#[test]
fn a_window_that_is_over_can_still_be_disowned() {
    let mut world = World::new();
    world.channels = in_place;
    world.notice(window(1, 1, IncidentState::Open));
    world.run(secs(5));
    world.notice(window(2, 1, IncidentState::Ended));
    world.run(secs(600));
    world.restart();
    world.press_not_me(1);
    assert_eq!(world.ordered().len(), 1, "{:?}", world.posts);
}

#[test]
fn a_window_is_never_folded_into_a_digest_that_has_no_button() {
    let mut world = World::new();
    for id in 0..6 {
        world.notice(critical("main", id + 1, 1));
    }
    world.notice(window(1, 1, IncidentState::Open));
    world.run(secs(60));
    let alone = world.posts.iter().any(|(_, post)| match post {
        Post::Telegram(ChatPost { keyboard: Some(keyboard), .. }) => keyboard.buttons[0].press == Press::NotMe,
        Post::Telegram(_) | Post::Webhook(_) | Post::Pressed(_) => false,
    });
    assert!(alone && world.tells(Channel::Telegram, "Several at once"), "{:#?}", world.telegram());
}

#[test]
fn a_window_needs_a_password_and_what_is_refused_is_told() {
    let mut world = World::new();
    world.type_manual(None);
    world.run(secs(5));
    assert!(world.tells(Channel::Telegram, "This needs a one-time password: /manual ACCOUNT CODE"));
    world.type_manual(Some(Totp::Wrong));
    world.run(secs(5));
    let told = "tried to open a claim window on main: BUY of BTCUSDT, up to 2000 USDT and 3 orders in all, and was refused: \
                the one-time password is wrong";
    assert!(world.tells(Channel::Webhook, told) && world.ordered().is_empty());
    let right = Totp::Right { step: 5 };
    world.type_manual(Some(right));
    let [(Command::Manual { claim }, totp)] = &world.ordered()[..] else { panic!("{:?}", world.ordered()) };
    assert_eq!((*totp, claim.orders), (right, 3));
    world.say("/manual main end");
    world.say("/notme main");
    let last = [(Command::EndManual, Totp::Absent), (Command::NotMe { window: None }, Totp::Absent)];
    assert_eq!(world.ordered()[1..], last);
}
