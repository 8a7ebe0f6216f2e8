use super::*;

#[test]
fn a_new_critical_leaves_at_once_on_both_channels() {
    let mut world = World::new();
    let at = world.now;
    world.notice(critical("main", 1, 1));
    assert_eq!(world.posts.iter().map(|(posted, _)| *posted).collect::<Vec<_>>(), [at, at]);
    assert!(world.telegram()[0].1.starts_with("send <b>CRITICAL · main · incident 1</b>"));
    assert!(world.on(Channel::Webhook)[0].1.starts_with(r#"{"v":1,"kind":"card","number":"#));
}

#[test]
fn ten_thousand_changes_of_one_account_are_a_handful_of_posts() {
    let mut world = World::new();
    for revision in 1..=10_000 {
        world.notice(Notice { orders: revision, ..critical("main", 1, revision) });
        world.run(Duration::from_millis(1));
    }
    world.run(secs(30));
    let posts = world.telegram();
    assert!(posts.len() <= 6, "{posts:#?}");
    assert_eq!(world.actions()[..2], ["send", "edit"]);
    assert!(gaps_ms(&posts).iter().all(|gap| *gap >= 3_000));
    assert!(posts.last().unwrap().1.contains("10000 orders"));
    assert!(world.on(Channel::Webhook).len() <= 6);
}

#[test]
fn many_accounts_at_once_fold_into_few_messages() {
    let mut world = World::new();
    for account in 0..300 {
        world.notice(critical(&format!("account-{account}"), 1, 1));
    }
    world.run(secs(50));
    let posts = world.telegram();
    assert_eq!(posts.len(), 2, "{posts:#?}");
    assert!(posts[1].1.contains("299 incidents in all, 299 accounts, 95829.5 USDT"), "{}", posts[1].1);
    // What a digest only counted cannot be acknowledged by its number.
    world.say("/ack account-99 1");
    world.run(secs(2));
    assert!(world.telegram().last().unwrap().1.contains("has not been shown here yet"));
    let before = world.telegram().len();
    world.run(secs(600));
    assert!(world.telegram().len() - before <= 4, "reminders fold too");
}

#[test]
fn messages_to_a_chat_are_a_second_apart_and_a_critical_overtakes() {
    let mut world = World::new();
    for id in 1..=3 {
        world.notice(notice_of("main", id, 1, Priority::Warning));
    }
    for revision in 2..40 {
        world.notice(notice_of("main", 1, revision, Priority::Warning));
        world.run(secs(1));
    }
    world.notice(notice_of("other", 8, 1, Priority::Info));
    let at = world.now;
    world.notice(critical("main", 9, 1));
    world.run(secs(5));
    let posts = world.telegram();
    assert!(gaps_ms(&posts).iter().all(|gap| *gap >= 1_000), "{:?}", gaps_ms(&posts));
    let (posted, _) = posts.iter().find(|(_, text)| text.contains("incident 9")).unwrap();
    assert!(posted.since(at) <= secs(4));
}

#[test]
fn a_critical_goes_through_a_used_up_minute() {
    let mut world = World::new();
    for _ in 0..25 {
        world.say("/help");
        world.run(secs(1));
    }
    let used = world.telegram().len();
    assert!(used <= 16, "{used}");
    let at = world.now;
    world.notice(critical("main", 9, 1));
    world.run(secs(5));
    assert!(world.telegram().iter().any(|(posted, text)| posted.since(at) <= secs(4) && text.contains("incident 9")));
}

#[test]
fn reminders_grow_apart_until_somebody_acknowledges() {
    let mut world = World::new();
    let start = world.now;
    world.notice(critical("main", 1, 1));
    world.run(secs(3 * 3600));
    let posts = world.telegram();
    let minutes: Vec<u64> = posts.iter().map(|(at, _)| at.since(start).as_secs() / 60).collect();
    assert_eq!(minutes, [0, 1, 6, 21, 81, 141]);
    assert!(world.actions()[1..].iter().all(|action| action == "reply"));
    assert!(posts[3].1.contains("Reminder 3: not acknowledged for 22 minutes"), "{}", posts[3].1);

    world.notice(Notice { state: IncidentState::Acknowledged, ..critical("main", 1, 2) });
    world.run(secs(24 * 3600));
    assert_eq!(world.actions()[6..], ["edit"]);
}

#[test]
fn what_goes_on_after_an_acknowledgement_rings_even_if_that_was_never_shown() {
    let mut world = World::new();
    world.notice(critical("main", 1, 1));
    world.run(secs(2));
    // Sooner than a card is edited again.
    world.notice(Notice { state: IncidentState::Acknowledged, ..critical("main", 1, 2) });
    world.notice(critical("main", 1, 3));
    world.run(secs(2));
    assert_eq!(world.actions(), ["send", "send"]);
}

#[test]
fn warnings_ring_once_and_infos_are_quiet() {
    let mut world = World::new();
    world.notice(notice_of("main", 1, 1, Priority::Warning));
    world.run(secs(5));
    world.notice(notice_of("main", 2, 1, Priority::Info));
    world.run(secs(24 * 3600));
    assert_eq!(world.actions(), ["send", "quiet"]);
}

#[test]
fn growth_rings_again_within_a_minute_however_far_the_next_reminder_is() {
    let mut world = World::new();
    world.notice(critical("main", 1, 1));
    world.run(secs(25 * 60));
    let (before, at) = (world.telegram().len(), world.now);
    world.notice(Notice { orders: 5_000, ..critical("main", 1, 2) });
    world.run(secs(60));
    let posts = world.telegram();
    assert!(posts[before].1.starts_with("reply") || posts[before + 1].1.starts_with("reply"), "{posts:#?}");
    assert!(
        posts[before..].iter().any(|(_, text)| text.contains("5000 orders")) && posts[before].0.since(at) <= secs(3)
    );
}

#[test]
fn a_rise_in_priority_and_a_reopened_incident_are_new_messages() {
    let mut world = World::new();
    world.notice(notice_of("main", 1, 1, Priority::Warning));
    world.run(secs(5));
    world.notice(critical("main", 1, 2));
    world.run(secs(5));
    world.notice(Notice { state: IncidentState::Acknowledged, ..critical("main", 1, 3) });
    world.run(secs(5));
    world.notice(critical("main", 1, 4));
    world.run(secs(5));
    assert_eq!(world.actions(), ["send", "send", "edit", "send"]);
}

#[test]
fn an_end_edits_the_card_rings_once_and_is_forgotten() {
    let mut world = World::new();
    world.notice(critical("main", 1, 1));
    world.run(secs(5));
    let end = Notice { state: IncidentState::Ended, ..critical("main", 1, 2) };
    world.notice(end.clone());
    world.run(secs(24 * 3600));
    assert_eq!(world.actions(), ["send", "edit", "reply"]);
    assert!(world.shared.cards.is_empty());
    world.notice(end.clone());
    world.notice(Notice { revision: 5, ..end });
    world.run(secs(60));
    assert_eq!(world.actions().len(), 3, "neither an echo after the end nor one more line is told again");
    world.notice(critical("main", 1, 4));
    world.run(secs(10));
    assert_eq!(world.actions().len(), 3, "what is older than that line is an echo too");
    world.notice(critical("main", 1, 6));
    world.run(secs(10));
    assert_eq!(world.actions()[3..], ["send"], "open again, it is a new message");
}

#[test]
fn a_theft_that_goes_on_is_shown_in_seconds_though_the_minute_is_used_up() {
    let mut world = World::new();
    world.notice(critical("main", 1, 1));
    for incident in 2..17 {
        world.run(secs(1));
        world.notice(notice_of("main", incident, 1, Priority::Warning));
    }
    world.run(secs(2));
    let (at, before) = (world.now, world.telegram().len());
    assert_eq!(before, 15, "the minute is used up");
    world.notice(Notice { orders: 2, ..critical("main", 1, 2) });
    world.run(secs(5));
    let shown = &world.telegram()[before];
    assert!(shown.0.since(at) <= secs(4) && shown.1.contains("2 orders"), "{shown:?}");
}

#[test]
fn a_held_channel_never_delays_the_other_is_down_after_a_minute_and_says_when_it_is_back() {
    let mut world = World::new();
    world.channels = |post, now, message| match post {
        Post::Telegram(_) if now < START + secs(300) => PostOutcome::RetryAfter { secs: 3_600 },
        Post::Telegram(_) | Post::Webhook(_) | Post::Pressed(_) => deliver(post, now, message),
    };
    world.notice(critical("main", 1, 1));
    world.run(secs(2));
    let held = world.shared.channels()[0].clone();
    assert!(matches!(held.state, ChannelState::Held { until } if until.since(world.now) > secs(3_500)), "{held:?}");
    let at = world.now;
    world.notice(critical("main", 2, 1));
    assert!(world.posts.last().is_some_and(|(posted, post)| *posted == at && matches!(post, Post::Webhook(_))));
    world.run(secs(70));
    let said = world.on(Channel::Webhook);
    assert!(said.iter().any(|(at, text)| text.contains("Telegram is down") && at.since(said[0].0) <= secs(62)));
    assert!(matches!(world.shared.channels()[0].state, ChannelState::Down { .. }));
    assert_eq!(world.telegram().len(), 1, "the hold is obeyed");
    world.run(secs(3_600));
    assert_eq!(world.telegram()[1].0.since(world.telegram()[0].0), secs(3_600) + LATENCY);
    assert!(world.on(Channel::Webhook).iter().any(|(_, text)| text.contains("Telegram delivers again")));
}

#[test]
fn a_refused_token_is_told_on_the_other_channel_at_once() {
    let mut world = World::new();
    world.channels = |post, now, message| match post {
        Post::Telegram(_) => PostOutcome::Failed { reason: "Unauthorized".into(), permanent: true },
        Post::Webhook(_) | Post::Pressed(_) => deliver(post, now, message),
    };
    world.notice(critical("main", 1, 1));
    world.run(secs(3));
    assert!(world.on(Channel::Webhook).iter().any(|(_, text)| text.contains("Telegram is down")));
    world.run(secs(600));
    assert!(world.telegram().len() <= 12, "a refused channel is tried once a minute");
}

#[test]
fn a_refused_text_goes_plain_and_then_is_given_up_without_stopping_the_rest() {
    let mut world = World::new();
    world.channels = |post, now, message| match post {
        Post::Telegram(ChatPost { text: ChatText::Html(_), .. }) => PostOutcome::Refused { reason: "entities".into() },
        Post::Telegram(_) | Post::Webhook(_) | Post::Pressed(_) => deliver(post, now, message),
    };
    world.notice(critical("main", 1, 1));
    world.run(secs(5));
    let posts = world.telegram();
    assert!(posts[0].1.contains("<b>") && !posts[1].1.contains("<b>"), "{posts:#?}");

    world.channels = |post, now, message| match post {
        Post::Telegram(ChatPost { text: ChatText::Html(text) | ChatText::Plain(text), .. })
            if text.contains("incident 2") =>
        {
            PostOutcome::Refused { reason: "too odd".into() }
        }
        Post::Telegram(_) | Post::Webhook(_) | Post::Pressed(_) => deliver(post, now, message),
    };
    world.notice(critical("main", 2, 1));
    world.run(secs(1));
    world.notice(critical("main", 3, 1));
    world.run(secs(8));
    assert!(world.telegram().iter().any(|(_, text)| text.contains("incident 3")));
    assert!(world.on(Channel::Webhook).iter().any(|(_, t)| t.contains("Telegram takes no message about incident 2")));
}

#[test]
fn silence_is_retried_with_a_growing_rest_and_marked_as_a_repeat() {
    let mut world = World::new();
    world.channels = |post, now, message| match post {
        Post::Telegram(_) if now < START + secs(140) => PostOutcome::Unknown { reason: "timed out".into() },
        Post::Telegram(_) | Post::Webhook(_) | Post::Pressed(_) => deliver(post, now, message),
    };
    world.notice(critical("main", 1, 1));
    world.run(secs(50));
    let posts = world.telegram();
    assert_eq!(gaps_ms(&posts)[..4], [1_100, 2_100, 4_100, 8_100]);
    assert!(!posts[0].1.contains("Repeated:") && posts[1..].iter().all(|(_, text)| text.contains("Repeated:")));
    let numbers = world.posts.iter().filter_map(|(_, post)| match post {
        Post::Telegram(post) => Some(post.number),
        Post::Webhook(_) | Post::Pressed(_) => None,
    });
    assert_eq!(numbers.collect::<std::collections::BTreeSet<_>>().len(), 1, "a retry keeps its number");
}

#[test]
fn a_post_that_never_ends_is_asked_for_again() {
    let mut world = World::new();
    world.notice(critical("main", 1, 1));
    world.under_way.clear();
    world.run(secs(40));
    assert_eq!(world.actions(), ["send", "send"]);
    assert!(world.telegram()[1].1.contains("Repeated:"));
}

#[test]
fn a_restart_asks_again_for_what_was_under_way_and_for_nothing_else() {
    let mut world = World::new();
    world.notice(critical("main", 1, 1));
    world.run(secs(5));
    world.notice(critical("main", 2, 1));
    world.restart();
    world.run(secs(5));
    let posts = world.telegram();
    assert_eq!(posts.len(), 3);
    assert!(posts[2].1.contains("incident 2") && posts[2].1.contains("Repeated:"));
    assert!(world.on(Channel::Webhook)[2].1.contains(r#""repeated":true"#));
}

#[test]
fn a_card_without_a_message_of_its_own_that_may_have_arrived_marks_the_next_one() {
    let mut world = World::new();
    // Told in one digest, so that the first change of each is a message of its own.
    for incident in 1..=5 {
        world.notice(critical("main", incident, 1));
    }
    world.run(secs(20));
    world.notice(critical("main", 5, 2));
    world.run(secs(2));
    let sent = world.telegram().len();
    world.notice(critical("main", 4, 2));
    world.run(secs(2));
    assert_eq!(world.actions()[sent..], ["quiet"]);
    world.notice(critical("main", 4, 3));
    world.run(secs(4));
    assert_eq!(world.actions()[sent..], ["quiet", "edit"]);

    world.notice(critical("main", 3, 2));
    world.notice(critical("main", 3, 3));
    world.restart();
    world.run(secs(90));
    let threes: Vec<String> = world.telegram()[sent + 2..].iter().map(|(_, text)| text.clone()).collect();
    let cards: Vec<&String> =
        threes.iter().filter(|text| text.starts_with("quiet") && text.contains("incident 3")).collect();
    assert_eq!(cards.len(), 2, "{threes:#?}");
    assert!(!cards[0].contains("Repeated:") && cards[1].contains("Repeated:"), "{cards:#?}");
}

#[test]
fn a_message_taken_away_is_sent_anew_and_told() {
    let mut world = World::new();
    world.notice(critical("main", 1, 1));
    world.run(secs(5));
    world.channels = |post, now, message| match post {
        Post::Telegram(ChatPost { action: ChatAction::Edit { .. }, .. }) => PostOutcome::Gone,
        Post::Telegram(_) | Post::Webhook(_) | Post::Pressed(_) => deliver(post, now, message),
    };
    world.notice(critical("main", 1, 2));
    world.run(secs(5));
    assert_eq!(world.actions(), ["send", "edit", "send"]);
    assert!(world.on(Channel::Webhook).iter().any(|(_, text)| text.contains("is gone")));
}

#[test]
fn cards_are_bounded_the_least_give_way_and_that_is_said() {
    let mut world = World::new();
    world.notice(critical("main", 1, 1));
    for id in 2..=1_000 {
        world.notice(notice_of("main", id, 1, Priority::Info));
    }
    world.run(secs(60));
    assert_eq!(world.shared.cards.len(), CARDS_MAX);
    assert!(world.shared.cards.values().any(|card| card.notice.priority == Priority::Critical));
    assert!(world.telegram().iter().any(|(_, text)| text.contains("More than 500 incidents")));
}
