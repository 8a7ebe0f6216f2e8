//! The money at the end of a kill: what is moved, what keeps it from being moved, and that nothing waits for it.

use super::*;

fn world() -> World {
    World::new(Aim::Kill)
}

fn told(world: &World) -> String {
    let step = world.plan.steps().into_iter().find(|step| step.what.starts_with("move the free money"));
    step.and_then(|step| step.detail).unwrap_or_default().into()
}

fn word(world: &World) -> String {
    world.plan.progress().word.into()
}

const LEFT: &str = "contained; not all money was moved";

fn dec(text: &str) -> Dec {
    text.parse().unwrap()
}

/// Contained, and no money has moved.
fn check_withheld(mut world: World, why: &str) {
    world.run(Duration::from_secs(300));
    assert!(word(&world).ends_with("; not all money was moved"), "{:#?}", world.plan.progress());
    assert_eq!((world.effects(Kind::Transfer), world.calls.get(&Kind::Transfer)), (0, None));
    let told = told(&world);
    assert!(told.starts_with("NOT moved: somebody else may hold the master's login") && told.contains(why), "{told}");
}

#[test]
fn no_money_goes_to_a_master_whose_login_may_be_stolen() {
    let mut rogue = world();
    let row = KeyRow { key: key("rogue"), name: "backup".into(), created_at: START, rights: RIGHTS };
    rogue.venue.keys.insert(row.key.clone(), row);
    rogue.run(Duration::from_secs(20));
    // Even when its owner has decided on it.
    rogue.plan.delete_too(rogue.now, &key("rogue"), "owner").unwrap();
    check_withheld(rogue, "nobody declared it");

    let mut meddled = world();
    while !meddled.calls.contains_key(&Kind::Freeze) {
        meddled.step();
    }
    meddled.venue.keys.get_mut(&key("cancel")).unwrap().rights = KeyRights { futures: true, ..RIGHTS };
    check_withheld(meddled, "its rights were changed");

    let mut thawed = world();
    thawed.faults = (1..6).map(|nth| (Kind::Delete, nth, Fault::Refused)).collect();
    thawed.run(Duration::from_secs(3));
    while thawed.plan.keys[&key("bot")].delete.under_way {
        thawed.step();
    }
    let given_back = KeyRow { rights: RIGHTS, ..thawed.venue.keys[&key("bot")].clone() };
    let others = thawed.venue.keys.values().filter(|row| row.key != key("bot")).cloned();
    let rows = others.chain([given_back]).collect();
    thawed.plan.list.asked_at = Some(thawed.now);
    thawed.plan.list_read(thawed.now, &ActOutcome::Keys(rows));
    check_withheld(thawed, "it was frozen, and got rights again");

    let mut login = world();
    login.plan.doubt_master(START, "198.51.100.7, unfamiliar, at noon");
    check_withheld(login, "198.51.100.7");
}

#[test]
fn a_sign_in_the_middle_stops_what_is_not_yet_sent() {
    let mut world = world();
    world.faults = vec![(Kind::Transfer, 1, Fault::Refused), (Kind::Transfer, 2, Fault::LostAfter)];
    while world.calls.get(&Kind::Transfer) != Some(&2) {
        world.step();
    }
    while !matches!(world.answers.first(), Some((_, _, ActOutcome::Unknown { .. }, _))) {
        world.step();
    }
    world.plan.doubt_master(world.now, "198.51.100.7, unfamiliar");
    world.run(Duration::from_secs(60));
    assert_eq!((word(&world).as_str(), world.effects(Kind::Transfer)), (LEFT, 1));
    // What had left already is found out about.
    let told = told(&world);
    assert!(told.starts_with("moved to the master: 120.5 USDT; NOT moved: 0.5 BTC (somebody else may"), "{told}");
}

#[test]
fn a_transfer_that_never_works_holds_up_nothing_and_is_told() {
    let usual = {
        let mut world = world();
        world.run(Duration::from_secs(60));
        world.plan.progress()
    };
    for kind in [Kind::Balances, Kind::Transfer] {
        for fault in FAULTS {
            let mut world = world();
            world.faults = (1..10_000).map(|nth| (kind, nth, fault)).collect();
            world.run(Duration::from_secs(1_200));
            let progress = world.plan.progress();
            let found_out = matches!(fault, Fault::LostAfter | Fault::Never) && kind == Kind::Transfer;
            let whole = fault == Fault::Slow || found_out;
            assert_eq!(&*progress.word, if whole { "contained" } else { LEFT }, "{kind:?} {fault:?} {progress:#?}");
            assert_eq!((progress.blocked_ms, progress.orders_gone_ms), (usual.blocked_ms, usual.orders_gone_ms));
            assert!(progress.ended_ms.is_some_and(|ms| ms < 320_000), "{kind:?} {fault:?} {progress:#?}");
            assert!(world.calls.get(&Kind::Transfer).is_none_or(|calls| *calls <= 6), "{kind:?} {fault:?}");
            assert_eq!(world.effects(Kind::Transfer), if whole { 2 } else { 0 }, "{kind:?} {fault:?}");
            assert!(whole || told(&world).contains("NOT moved: "), "{}", told(&world));
        }
    }
}

#[test]
fn a_lost_answer_is_found_by_its_id_or_by_what_is_left() {
    for looks_behind in [0, 1, 2, 3, 100] {
        let mut world = world();
        world.venue.looks_behind = looks_behind;
        world.faults = vec![(Kind::Transfer, 1, Fault::LostAfter)];
        world.run(Duration::from_secs(120));
        world.check_contained();
        assert_eq!((world.calls[&Kind::Transfer], word(&world).as_str()), (2, "contained"), "{looks_behind}");
    }
}

#[test]
fn money_that_a_spared_order_brings_meanwhile_goes_too_and_under_another_id() {
    let mut world = world();
    while world.effects(Kind::Transfer) < 2 {
        world.step();
    }
    world.venue.balances.insert(Asset::new("BTC"), (dec("0.1"), Dec::ZERO));
    world.run(Duration::from_secs(60));
    assert_eq!((word(&world).as_str(), world.effects(Kind::Transfer), world.venue.free()), ("contained", 3, 0));
}

#[test]
fn a_thief_with_dust_in_hundreds_of_assets_ends_no_kill_late() {
    let mut world = world();
    for number in 0..400 {
        world.venue.balances.insert(Asset::new(&format!("X{number:03}")), (dec("0.001"), Dec::ZERO));
    }
    world.run(Duration::from_secs(400));
    assert_eq!(word(&world), LEFT);
    assert!(told(&world).contains("202 more assets"), "{}", told(&world));
    assert_eq!(world.effects(Kind::Transfer), 200);
    assert!(world.plan.progress().ended_ms.is_some_and(|ms| ms < 30_000));
}

#[test]
fn it_goes_on_after_a_stranger_reopened_the_containment() {
    let mut world = world();
    world.run(Duration::from_secs(60));
    assert_eq!(word(&world), "contained");
    world.venue.balances.insert(Asset::new("ETH"), (dec("2"), Dec::ZERO));
    world.plan.handle_foreign(world.now, START, "order 9 of THINUSDT is not your bot's");
    world.run(Duration::from_secs(60));
    assert_eq!((word(&world).as_str(), world.effects(Kind::Transfer), world.venue.free()), ("contained", 3, 0));
}

#[test]
fn only_a_kill_moves_money_and_only_where_it_is_configured() {
    let mut frozen = World::new(Aim::Freeze);
    frozen.run(Duration::from_secs(60));
    let mut by_hand = World::by(Means::ByHand, Aim::Kill);
    by_hand.run(Duration::from_secs(60));
    let asked = Asked { aim: Aim::Kill, by: "owner".into(), incident: None };
    let mut plain = world();
    let declared = Stopping { transfer_to_master: false, ..stopping(Means::SubAccount) };
    plain.plan = Containment::new(START, asked, &declared, &BTreeMap::new());
    plain.run(Duration::from_secs(60));
    assert_eq!(word(&plain), "contained");
    for world in [frozen, by_hand, plain] {
        assert_eq!(world.calls.get(&Kind::Balances), None);
        assert_eq!(told(&world), "");
    }
}
