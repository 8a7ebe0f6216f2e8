use super::*;

#[test]
fn an_acknowledgement_covers_what_the_card_showed() {
    let mut world = World::new();
    world.notice(critical("main", 1, 1));
    world.run(secs(1));
    world.notice(Notice { orders: 900, ..critical("main", 1, 2) });
    world.say("/ack 1");
    let acknowledge = |effects: &[SharedEffect]| match effects.first() {
        Some(SharedEffect::Acknowledge { shown, by, .. }) => Some((*shown, by.to_string())),
        Some(SharedEffect::Post(_) | SharedEffect::Show { .. } | SharedEffect::Command { .. }) | None => None,
    };
    assert_eq!(acknowledge(world.effects.last().unwrap()), Some((1, "Telegram user 42".into())));
    world.restart();
    assert_eq!(acknowledge(world.effects.last().unwrap()).map(|(shown, _)| shown), Some(1), "handed over again");
    world.run(secs(10));
    world.notice(Notice { orders: 901, ..critical("main", 1, 3) });
    world.restart();
    assert_eq!(acknowledge(world.effects.last().unwrap()), None, "the account has answered");
    world.notice(critical("other", 1, 1));
    world.run(secs(5));
    world.say("/ack 1");
    world.run(secs(2));
    assert!(world.telegram().last().unwrap().1.contains("Several accounts"));
}

#[test]
fn until_paired_telegram_waits_and_then_tells_what_is_open() {
    let mut world = World::unpaired(config());
    for id in 1..=10 {
        world.notice(critical("main", id, 1));
    }
    world.run(secs(30));
    assert_eq!(world.telegram().len(), 0);
    assert_eq!(world.shared.channels()[0].state, ChannelState::NotPaired);
    world.event(SharedEvent::PairingIssued { code_sha256: pairing_digest("CODE"), expires: world.now + secs(60) });
    world.say("/pair CODE");
    world.run(secs(5));
    let posts = world.telegram();
    assert!(posts[0].1.contains("10 incidents in all") && posts[1].1.contains("This chat is paired"), "{posts:#?}");
}

#[test]
fn strangers_are_refused_and_reported_once_an_hour() {
    let mut world = World::new();
    for _ in 0..200 {
        let update = world.update("/ack 1");
        world.event(SharedEvent::Update(ChatUpdate { user: Some(666), chat: ChatId(666), ..update }));
        world.run(secs(1));
    }
    let said = world.on(Channel::Webhook);
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].1.contains("Refused a Telegram message from user 666"));
    assert_eq!(world.telegram().len(), 1);
    let old = ChatUpdate { at: world.now - secs(3_600), ..world.update("/status") };
    world.event(SharedEvent::Update(old));
    let forwarded = ChatUpdate { marks: vec![Mark::Forwarded], ..world.update("/status") };
    world.event(SharedEvent::Update(forwarded));
    assert!(!world.effects.iter().flatten().any(|effect| matches!(effect, SharedEffect::Show { .. })));
    world.say("/status");
    assert!(matches!(world.effects.last().unwrap()[0], SharedEffect::Show { chat: CHAT, what: Show::Status }));
}

#[test]
fn a_flood_of_strangers_delays_no_alert_and_fills_nothing() {
    let mut world = World::new();
    for stranger in 0..5_000_u32 {
        let update = world.update("/ack 1");
        world.event(SharedEvent::Update(ChatUpdate { user: Some(u64::from(stranger) + 1_000), ..update }));
        world.run(Duration::from_millis(20));
    }
    let at = world.now;
    world.notice(critical("main", 1, 1));
    world.run(secs(5));
    assert!(world.telegram().iter().any(|(posted, text)| posted.since(at) <= secs(4) && text.contains("incident 1<")));
    assert!(world.telegram().len() < 60);
    assert!(serde_json::to_string(&world.shared).unwrap().len() < 20_000);
}

#[test]
fn somebody_else_at_the_bot_is_told_on_the_other_channel() {
    let mut world = World::new();
    for _ in 0..10 {
        world.event(SharedEvent::ChannelFault { channel: Channel::Telegram, fault: ChannelFault::Conflict });
        world.run(secs(10));
    }
    assert_eq!(world.on(Channel::Webhook).len(), 1);
    assert!(world.on(Channel::Webhook)[0].1.contains("Somebody else reads the updates"));
    assert_eq!(world.shared.channels()[0].fault, Some(ChannelFault::Conflict));
    world.event(SharedEvent::ChannelSound { channel: Channel::Telegram });
    assert_eq!(world.shared.channels()[0].fault, None);
}

#[test]
fn only_the_paired_group_is_followed_when_it_migrates() {
    let mut world = World::unpaired(SharedConfig {
        telegram: Some(TelegramConfig { allowed_users: vec![OWNER], group_chat: true }),
        webhook: true,
        ..SharedConfig::default()
    });
    world.event(SharedEvent::PairingIssued { code_sha256: pairing_digest("CODE"), expires: START + secs(600) });
    let update = world.update("/pair CODE");
    world.event(SharedEvent::Update(ChatUpdate { chat: ChatId(-5), chat_kind: ChatKind::Group, ..update }));
    world.run(secs(5));
    world.channels = |post, now, message| match post {
        Post::Telegram(ChatPost { chat: ChatId(-5), .. }) => PostOutcome::Migrated { chat: ChatId(-1_005) },
        Post::Telegram(ChatPost { chat: ChatId(-1_005), .. }) | Post::Webhook(_) | Post::Pressed(_) => {
            deliver(post, now, message)
        }
        Post::Telegram(_) => PostOutcome::Migrated { chat: ChatId(-666) },
    };
    world.notice(critical("main", 1, 1));
    world.run(secs(5));
    assert_eq!(world.shared.paired().map(|paired| paired.chat), Some(ChatId(-1_005)));
    assert!(world.on(Channel::Webhook).iter().any(|(_, text)| text.contains("became -1005, and was followed")));
    // An owner in another chat is answered there; that chat's migration moves nothing.
    world.say("/status");
    world.run(secs(5));
    assert_eq!(world.shared.paired().map(|paired| paired.chat), Some(ChatId(-1_005)));
    assert_eq!(world.shared.channels()[0].state, ChannelState::Ready);
}

#[test]
fn whoever_leaves_the_list_is_unpaired_at_the_next_start() {
    let mut world = World::new();
    world
        .event(SharedEvent::Started { config: SharedConfig { telegram: Some(TelegramConfig::default()), ..config() } });
    world.notice(critical("main", 1, 1));
    world.run(secs(5));
    assert_eq!(world.telegram().len(), 0);
    assert!(world.on(Channel::Webhook).iter().any(|(_, text)| text.contains("no longer paired")));
}
