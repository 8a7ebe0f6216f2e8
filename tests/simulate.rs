//! Whole trades in virtual time, from seeds: the same seed is the same run, and nothing that the thief did is missed,
//! nothing else alarmed. The seeds that ever failed are run for ever after.

use std::collections::BTreeMap;
use std::ops::Range;

use countersign::cli::simulate::play;
use countersign::config;
use countersign::simulate::{self, Outcome};

/// As many as a development build plays in about a minute; more are for `countersign simulate`.
const SEEDS: Range<u64> = 1..301;

/// `seed` or `seed fails: why`, one a line; `#` begins a remark. A reason names a known fault of what is judged, and goes
/// when the fault does.
fn listed() -> BTreeMap<u64, Option<String>> {
    let text = include_str!("../fixtures/seeds.txt");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (seed, why) = line.split_once(" fails: ").map_or((line, None), |(seed, why)| (seed, Some(why)));
            (seed.parse().unwrap(), why.map(str::to_owned))
        })
        .collect()
}

fn outcomes(seeds: Range<u64>) -> Vec<Outcome> {
    let rules = config::rules(None).unwrap();
    let mut outcomes = Vec::new();
    play(
        seeds,
        &rules,
        || true,
        |outcome| {
            outcomes.push(outcome);
            Ok(())
        },
    )
    .unwrap();
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    let rules = config::rules(None).unwrap();
    for seed in [3, 16] {
        let (once, again) = (simulate::run(seed, &rules), simulate::run(seed, &rules));
        assert_eq!(once, again);
        assert_ne!(once.digest, simulate::run(seed + 1, &rules).digest);
    }
}

#[test]
fn every_theft_is_told_and_nothing_else() {
    let known = listed();
    let mut outcomes = outcomes(SEEDS);
    let more = known.keys().filter(|seed| !SEEDS.contains(seed));
    let rules = config::rules(None).unwrap();
    outcomes.extend(more.map(|seed| simulate::run(*seed, &rules)));
    let thefts: u64 = outcomes.iter().map(|outcome| outcome.thefts).sum();
    assert!(thefts > 600, "only {thefts} thefts were tried");
    let contained: u64 = outcomes.iter().map(|outcome| outcome.contained).sum();
    assert!(contained > 30, "only {contained} thefts were contained");
    let mut wrong = Vec::new();
    for outcome in &outcomes {
        let awaited = known.get(&outcome.seed).is_some_and(Option::is_some);
        if outcome.failed() && !awaited {
            wrong.push(format!("seed {} failed: {:#?}", outcome.seed, outcome.problems));
        } else if awaited && !outcome.failed() {
            wrong
                .push(format!("seed {} does not fail any more: strike its reason in fixtures/seeds.txt", outcome.seed));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
