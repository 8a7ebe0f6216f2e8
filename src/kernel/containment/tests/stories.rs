//! What a kill, a freeze and a release come to: without faults, with each of them, and with keys that nobody declared.

use super::*;

#[test]
fn a_kill_without_faults_is_proved_in_seconds() {
    let mut world = World::new(Aim::Kill);
    world.run(Duration::from_secs(60));
    world.check_contained();
    let progress = world.plan.progress();
    assert_eq!(&*progress.word, "contained");
    assert!(progress.blocked_ms.is_some_and(|ms| ms <= 200), "{progress:#?}");
    assert!(progress.ended_ms.is_some_and(|ms| ms <= 7_000), "{progress:#?}");
    assert!(progress.steps.iter().all(|step| step.state == StepState::Proved), "{progress:#?}");
}

#[test]
fn every_step_fails_in_every_way_alone_in_pairs_and_through_a_restart() {
    let mut cases = 0;
    let mut faults: Vec<(Kind, u32, Fault)> = Vec::new();
    for kind in KINDS {
        faults.extend(FAULTS.map(|fault| (kind, 1, fault)));
        faults.extend(FAULTS.map(|fault| (kind, 2, fault)));
    }
    let mut check = |faults: &[(Kind, u32, Fault)], restart_after| {
        let mut world = World::new(Aim::Kill);
        world.faults = faults.to_vec();
        world.restart_after = restart_after;
        world.run(Duration::from_secs(1_200));
        let probes_lost = faults.iter().filter(|(kind, ..)| *kind == Kind::Probe).count();
        if probes_lost >= 2 && world.plan.ended.map(|(_, end)| end) == Some(End::RevokedUnprobed) {
            // Nobody saw it alive before, so the dead answers do not count, and it says so.
            assert_eq!(world.effects(Kind::Delete), 1);
        } else {
            world.check_contained();
        }
        cases += 1;
    };
    for (index, first) in faults.iter().enumerate() {
        check(&[*first], None);
        for second in &faults[index + 1..] {
            check(&[*first, *second], None);
        }
        for restart_after in 1..=40 {
            check(&[*first], Some(restart_after));
        }
    }
    for restart_after in 1..=40 {
        check(&[], Some(restart_after));
    }
    println!("{cases} cases");
}

#[test]
fn a_step_that_never_works_is_never_called_contained() {
    for kind in [Kind::List, Kind::Delete, Kind::Read, Kind::Cancel] {
        let works = |fault: &Fault| matches!(fault, Fault::LostAfter | Fault::Slow | Fault::Never);
        for fault in FAULTS.into_iter().filter(|fault| !works(fault)) {
            let mut world = World::new(Aim::Kill);
            world.faults = (1..10_000).map(|nth| (kind, nth, fault)).collect();
            world.run(Duration::from_secs(600));
            let progress = world.plan.progress();
            assert_eq!(&*progress.word, "not contained", "{kind:?} {fault:?}: {progress:#?}");
            assert!((4..400).contains(&world.calls[&kind]), "{kind:?} {fault:?}: {:?} {progress:#?}", world.calls);
        }
    }
}

#[test]
fn an_act_that_is_never_answered_is_found_out_about_after_a_minute_and_a_late_answer_changes_nothing() {
    let mut world = World::new(Aim::Kill);
    world.faults = vec![(Kind::Delete, 1, Fault::Never)];
    world.run(Duration::from_secs(30));
    let (effect, act) =
        world.plan.under_way.iter().find(|(_, act)| kind(act) == Kind::Delete).expect("it is waited for");
    let (effect, act) = (*effect, act.clone());
    assert_eq!((world.effects(Kind::Delete), world.plan.ended), (1, None));
    world.run(Duration::from_secs(60));
    world.check_contained();
    assert!(world.plan.asked(effect).is_none(), "{act:?}");
    let told = world.plan.clone();
    world.plan.handle_outcome(world.now, effect, &ActOutcome::Done { proof: "".into() }, &BTreeMap::new());
    assert_eq!(world.plan, told);
}

#[test]
fn a_key_that_cannot_be_called_from_here_is_revoked_and_unprobed() {
    let mut world = World::new(Aim::Kill);
    world.venue.reachable.clear();
    world.run(Duration::from_secs(60));
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::RevokedUnprobed), "{:#?}", world.plan.progress());
    let prove = world.plan.steps().into_iter().find(|step| step.what.starts_with("prove")).unwrap();
    assert_eq!(prove.state, StepState::NotProved);
}

#[test]
fn a_key_that_nobody_declared_is_frozen_asked_about_and_keeps_it_from_being_contained() {
    let mut world = World::new(Aim::Kill);
    let rogue = KeyRow { key: key("rogue"), name: "backup\u{202e}".into(), created_at: START, rights: RIGHTS };
    world.venue.keys.insert(rogue.key.clone(), rogue);
    world.run(Duration::from_secs(120));
    assert!(world.plan.is_running() && !world.venue.can_trade(&key("rogue")));
    assert!(world.venue.keys.contains_key(&key("rogue")), "never deleted unasked");
    assert!(world.plan.lines().iter().any(|line| line.text.contains("not declared, newer than")));

    world.plan.delete_too(world.now, &key("rogue"), "owner").unwrap();
    world.run(Duration::from_secs(120));
    // It was never called from here, so its end is not proved by probes.
    assert!(!world.venue.keys.contains_key(&key("rogue")) && !world.plan.is_running());
    assert!(world.plan.delete_too(world.now, &key("cancel"), "owner").is_err());
}

#[test]
fn an_allowed_key_is_frozen_with_the_rest_holds_nothing_up_and_is_given_back() {
    let rogue = || KeyRow { key: key("rogue"), name: "second bot".into(), created_at: START, rights: RIGHTS };
    let allowed = || BTreeSet::from([key("rogue")]);
    // Allowed while the kill asks about it, and allowed before.
    for before in [false, true] {
        let mut world = World::new(Aim::Kill);
        world.venue.keys.insert(key("rogue"), rogue());
        if before {
            world.plan.allow(world.now, allowed());
        }
        world.run(Duration::from_secs(120));
        assert_eq!(world.plan.is_running(), !before, "{:#?}", world.plan.progress());
        assert!(!world.venue.can_trade(&key("rogue")), "any key may be the thief's");
        world.plan.allow(world.now, allowed());
        world.run(Duration::from_secs(120));
        assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Contained), "{:#?}", world.plan.progress());
        assert!(world.venue.keys.contains_key(&key("rogue")) && !world.venue.can_trade(&key("rogue")));
        let asked = Asked { aim: Aim::Release, by: "owner".into(), incident: None };
        world.plan.release(world.now, &asked).unwrap();
        world.run(Duration::from_secs(120));
        assert_eq!(world.venue.keys[&key("rogue")].rights, RIGHTS);
    }
    // What is not allowed any more is a stranger's again.
    let mut world = World::new(Aim::Kill);
    world.venue.keys.insert(key("rogue"), rogue());
    world.plan.allow(world.now, allowed());
    world.plan.allow(world.now, BTreeSet::new());
    world.run(Duration::from_secs(120));
    assert!(world.plan.is_running());
    // A freeze, a release and a freeze again take and give the same.
    let mut world = World::new(Aim::Freeze);
    world.venue.keys.insert(key("rogue"), rogue());
    world.plan.allow(world.now, allowed());
    for aim in [Aim::Freeze, Aim::Release, Aim::Freeze] {
        let asked = Asked { aim, by: "owner".into(), incident: None };
        if aim == Aim::Release {
            world.plan.release(world.now, &asked).unwrap();
        } else if !world.plan.is_running() {
            world.plan.take_up(world.now, asked, &stopping(Means::SubAccount));
        }
        world.run(Duration::from_secs(120));
        assert!(!world.plan.is_running());
        assert_eq!(world.venue.can_trade(&key("rogue")), aim == Aim::Release, "{aim:?}");
    }
}

#[test]
fn a_key_made_during_the_containment_is_found_before_the_end() {
    let mut world = World::new(Aim::Kill);
    world.poll();
    for _ in 0..6 {
        world.step();
    }
    let rogue = KeyRow { key: key("late"), name: "late".into(), created_at: world.now, rights: RIGHTS };
    world.venue.keys.insert(rogue.key.clone(), rogue);
    // Until the next list nobody can know of it.
    while world.plan.is_running() && world.now < START + Duration::from_secs(120) {
        world.answers.sort_by_key(|(at, effect, ..)| (*at, *effect));
        world.plan.blocked_at.get_or_insert(world.now);
        world.venue.keys.get_mut(&key("late")).unwrap().rights = KeyRights::NONE;
        world.step();
    }
    assert!(world.plan.is_running(), "{:#?}", world.plan.progress());
}

/// The process was away before the second read of the orders, and keys may have been made meanwhile: no money moves and no
/// word is given before a list from after that.
#[test]
fn a_key_made_while_nobody_looked_is_found_before_the_end() {
    let mut world = World::new(Aim::Kill);
    world.poll();
    while !world.plan.keys.values().all(KeyTask::is_done) || world.plan.orders.clean_since.is_none() {
        world.step();
    }
    // Until the next list nobody can know of it, so it has no right yet.
    let rogue = KeyRow { key: key("late"), name: "late".into(), created_at: world.now, rights: KeyRights::NONE };
    world.venue.keys.insert(rogue.key.clone(), rogue);
    world.now = world.now + Duration::from_secs(8);
    // All else is answered before the list.
    let lists = world.calls.get(&Kind::List).copied().unwrap_or(0);
    world.faults = vec![(Kind::List, lists + 1, Fault::Slow)];
    world.restart_after = Some(world.events + 1);
    world.run(Duration::from_secs(90));
    assert_eq!((world.plan.is_running(), world.effects(Kind::Transfer)), (true, 0), "{:#?}", world.plan.progress());
}

#[test]
fn strangers_orders_after_every_key_is_blocked_make_our_own_key_a_suspect() {
    let mut world = World::new(Aim::Kill);
    world.run(Duration::from_secs(60));
    world.check_contained();
    world.now = world.now + Duration::from_secs(30);
    world.venue.orders.insert(order(9), Standing::Cancel);
    world.plan.handle_foreign(world.now, world.now, "order 9 of THINUSDT is not your bot's");
    assert!(world.plan.is_running(), "a word that does not hold any more is taken back");
    world.run(Duration::from_secs(60));
    assert!(!world.venue.can_trade(&key("cancel")), "{:#?}", world.plan.progress());
}

/// A key that was made since explains the order, so countersign keeps its own, with which it cancels what that key placed.
#[test]
fn a_new_keys_order_after_the_end_leaves_our_own_key_alone() {
    for lists_fail in [false, true] {
        let mut world = World::new(Aim::Kill);
        world.run(Duration::from_secs(60));
        world.check_contained();
        world.now = world.now + Duration::from_secs(30);
        let late = KeyRow { key: key("late"), name: "late".into(), created_at: world.now, rights: RIGHTS };
        world.venue.keys.insert(late.key.clone(), late);
        world.venue.orders.insert(order(9), Standing::Cancel);
        let lists = world.calls[&Kind::List];
        let failing = if lists_fail { 2 } else { 0 };
        world.faults = (1..=failing).map(|nth| (Kind::List, lists + nth, Fault::Refused)).collect();
        world.plan.handle_foreign(world.now, world.now, "order 9 of THINUSDT is not your bot's");
        assert_eq!(world.plan.blocked_at, None, "new orders come");
        world.run(Duration::from_secs(60));
        assert!(!world.venue.can_trade(&key("late")), "{:#?}", world.plan.progress());
        assert_eq!(world.venue.can_trade(&key("cancel")), !lists_fail, "what cannot be read explains nothing");
        assert!(lists_fail || !world.venue.orders.contains_key(&order(9)), "{:#?}", world.plan.progress());
        assert_eq!(world.plan.is_left_to_its_owner(), lists_fail);
    }
}

/// Frozen is a word about every key: it does not outlive an order that somebody places, and a second freeze looks anew.
#[test]
fn a_key_made_after_a_freeze_is_frozen_once_it_trades_or_somebody_asks() {
    for asked_again in [false, true] {
        let mut world = World::new(Aim::Freeze);
        world.run(Duration::from_secs(60));
        world.now = world.now + Duration::from_secs(30);
        let late = KeyRow { key: key("late"), name: "late".into(), created_at: world.now, rights: RIGHTS };
        world.venue.keys.insert(late.key.clone(), late);
        if asked_again {
            let asked = Asked { aim: Aim::Freeze, by: "owner".into(), incident: None };
            world.plan.take_up(world.now, asked, &stopping(Means::SubAccount));
        } else {
            world.plan.handle_foreign(world.now, world.now, "order 9 of THINUSDT is not your bot's");
        }
        assert!(world.plan.is_running());
        world.run(Duration::from_secs(60));
        assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Frozen), "{:#?}", world.plan.progress());
        assert!(!world.venue.can_trade(&key("late")) && world.venue.can_trade(&key("cancel")));
    }
}

#[test]
fn a_freeze_takes_every_right_and_nothing_else_and_can_become_a_kill() {
    let mut world = World::new(Aim::Freeze);
    world.run(Duration::from_secs(60));
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Frozen), "{:#?}", world.plan.progress());
    assert!(!world.venue.can_trade(&key("bot")) && world.venue.orders.len() == 3 && world.venue.bot_runs);
    assert_eq!(world.venue.ledger.len(), 1);
    let asked = Asked { aim: Aim::Kill, by: "owner".into(), incident: None };
    world.plan.take_up(world.now, asked, &stopping(Means::SubAccount));
    world.run(Duration::from_secs(60));
    world.check_contained();
}

#[test]
fn a_release_gives_back_what_a_freeze_took_and_nothing_to_a_stranger() {
    for fault in FAULTS.map(Some).into_iter().chain([None]) {
        let mut world = World::new(Aim::Freeze);
        let rogue = KeyRow { key: key("rogue"), name: "rogue".into(), created_at: START, rights: RIGHTS };
        world.venue.keys.insert(rogue.key.clone(), rogue);
        world.run(Duration::from_secs(60));
        let asked = Asked { aim: Aim::Release, by: "owner".into(), incident: None };
        // The first change of rights after those of the freeze.
        let nth = world.calls[&Kind::Freeze] + 1;
        world.faults.extend(fault.map(|fault| (Kind::Freeze, nth, fault)));
        world.plan.release(world.now, &asked).unwrap();
        world.run(Duration::from_secs(600));
        assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Released), "{fault:?} {:#?}", world.plan);
        assert!(!world.venue.can_trade(&key("rogue")));
        assert_eq!(world.effects(Kind::Freeze), 3, "{:?}", world.venue.ledger);
        assert!(world.plan.release(world.now, &asked).is_err(), "there is nothing more to give back");
    }
}

/// Before any list was read, nothing has been taken: the freeze is called off, and the key is no stranger to the next one.
#[test]
fn a_release_before_anything_was_taken_calls_the_freeze_off_and_a_later_freeze_takes_the_key() {
    let mut world = World::new(Aim::Freeze);
    world.faults = vec![(Kind::List, 1, Fault::Slow)];
    world.poll();
    let asked = |aim| Asked { aim, by: "owner".into(), incident: None };
    world.plan.release(world.now, &asked(Aim::Release)).expect("nothing stands against it");
    world.run(Duration::from_secs(60));
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Released), "{:#?}", world.plan.progress());
    assert_eq!(world.effects(Kind::Freeze), 0);
    world.plan.take_up(world.now, asked(Aim::Freeze), &stopping(Means::SubAccount));
    world.run(Duration::from_secs(60));
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Frozen), "{:#?}", world.plan.progress());
    assert!(!world.venue.can_trade(&key("bot")));
}

#[test]
fn a_freeze_in_the_middle_of_a_release_freezes_and_a_release_after_it_gives_the_same_rights_back() {
    let asked = |aim| Asked { aim, by: "owner".into(), incident: None };
    for steps in 0..12 {
        let mut world = World::new(Aim::Freeze);
        world.run(Duration::from_secs(60));
        // The change that gives the rights back is slow: it lands after the second freeze was asked for.
        let nth = world.calls[&Kind::Freeze] + 1;
        world.faults.push((Kind::Freeze, nth, Fault::Slow));
        world.plan.release(world.now, &asked(Aim::Release)).unwrap();
        world.poll();
        for _ in 0..steps {
            if world.plan.is_running() {
                world.step();
            }
        }
        world.plan.take_up(world.now, asked(Aim::Freeze), &stopping(Means::SubAccount));
        world.run(Duration::from_secs(120));
        let told = format!("after {steps}: {:#?}", world.plan);
        assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Frozen), "{told}");
        assert!(!world.venue.can_trade(&key("bot")), "{told}");
        world.plan.release(world.now, &asked(Aim::Release)).unwrap();
        world.run(Duration::from_secs(120));
        assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Released), "{:#?}", world.plan);
        assert_eq!(world.venue.keys[&key("bot")].rights, RIGHTS);
    }
}

/// Another sub-account's list: no key of ours is gone because it is not there, and no key there is a stranger's.
#[test]
fn a_list_without_our_own_key_is_not_this_accounts() {
    for aim in [Aim::Freeze, Aim::Kill] {
        let mut world = World::new(aim);
        let others = KeyRow { key: key("other"), name: "other".into(), created_at: START, rights: RIGHTS };
        world.venue.keys.retain(|print, _| *print == key("bot"));
        world.venue.keys.insert(others.key.clone(), others);
        world.run(Duration::from_secs(120));
        assert!(world.plan.is_running(), "{:#?}", world.plan.progress());
        assert!(world.venue.can_trade(&key("other")), "an innocent key was frozen");
        let list = world.plan.steps().into_iter().find(|step| step.what.starts_with("freeze every key")).unwrap();
        assert!(list.detail.unwrap().contains("does not show countersign's own watch key"));
    }
}

#[test]
fn an_order_that_the_bots_late_word_clears_is_not_cancelled_any_more() {
    let mut world = World::new(Aim::Kill);
    for id in 10..30 {
        world.venue.orders.insert(order(id), Standing::Cancel);
    }
    world.poll();
    // Eight cancels at once; this one waits for its turn.
    world.venue.orders.insert(order(29), Standing::Spare);
    world.run(Duration::from_secs(60));
    assert!(world.venue.orders.contains_key(&order(29)), "{:?}", world.venue.ledger);
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Contained), "{:#?}", world.plan.progress());
}

#[test]
fn by_hand_a_key_whose_addresses_were_changed_is_not_dead() {
    let mut world = World::by(Means::ByHand, Aim::Kill);
    world.run(Duration::from_secs(30));
    // Our address was shut out; the key lives on.
    assert!(world.venue.reachable.remove(&key("bot")));
    world.run(Duration::from_secs(300));
    assert!(world.plan.is_running() && world.plan.blocked_at.is_none(), "{:#?}", world.plan.progress());
}

#[test]
fn a_key_that_its_owner_deleted_meanwhile_holds_nothing_up() {
    let mut world = World::new(Aim::Freeze);
    assert!(world.venue.keys.remove(&key("bot")).is_some());
    world.run(Duration::from_secs(60));
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Frozen), "{:#?}", world.plan.progress());
    let mut world = World::new(Aim::Kill);
    world.plan.keys.get_mut(&key("bot")).unwrap().shown_alive_at = Some(START);
    assert!(world.venue.keys.remove(&key("bot")).is_some());
    world.run(Duration::from_secs(60));
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Contained), "{:#?}", world.plan.progress());
}

#[test]
fn more_keys_than_can_be_followed_are_never_called_contained() {
    let mut world = World::new(Aim::Kill);
    for nth in 0..KEYS_MAX {
        let print = key(&format!("k{nth}"));
        let row = KeyRow { key: print.clone(), name: "k".into(), created_at: START, rights: KeyRights::NONE };
        world.venue.keys.insert(print, row);
    }
    world.run(Duration::from_secs(60));
    let list = world.plan.steps().into_iter().find(|step| step.what.starts_with("freeze every key")).unwrap();
    assert!(world.plan.is_running() && list.detail.unwrap().contains("than are followed"));
}

#[test]
fn without_a_masters_key_a_person_deletes_and_the_probe_says_when_it_is_done() {
    let mut world = World::by(Means::ByHand, Aim::Kill);
    world.run(Duration::from_secs(120));
    assert!(world.plan.is_running());
    assert!(!world.venue.orders.contains_key(&order(2)), "strangers' orders are cancelled meanwhile");
    world.venue.orders.insert(order(7), Standing::Cancel);
    world.run(Duration::from_secs(60));
    assert!(!world.venue.orders.contains_key(&order(7)), "again and again");
    assert!(world.venue.keys.remove(&key("bot")).is_some());
    world.run(Duration::from_secs(60));
    assert_eq!(world.plan.ended.map(|(_, end)| end), Some(End::Contained), "{:#?}", world.plan.progress());
    assert_eq!(world.effects(Kind::Freeze) + world.effects(Kind::Delete), 0);
}

#[test]
fn orders_that_only_a_read_shows_are_cancelled_too() {
    let mut world = World::new(Aim::Kill);
    world.stream = false;
    world.run(Duration::from_secs(60));
    world.check_contained();
}

#[test]
fn an_order_whose_verdict_waits_is_neither_touched_nor_gone() {
    let mut world = World::new(Aim::Kill);
    world.venue.orders.insert(order(4), Standing::Wait);
    world.run(Duration::from_secs(60));
    assert!(world.plan.is_running() && world.venue.orders.contains_key(&order(4)));
    world.venue.orders.insert(order(4), Standing::Spare);
    world.run(Duration::from_secs(60));
    world.check_contained();
}
