//! kill -9 of the daemon at seeded moments of a kill, each time started again on the same folder: the end is always
//! contained with its proof, and nothing was done twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign::inlet::operator::{OperatorCommand, OperatorError};
use countersign::kernel::command::Command;
use countersign::sim::seed::Seeded;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::arms::WITHIN;
use crate::support::journal;
use crate::support::stage::Stage;
use crate::{armed, bot_with_an_order, check_contained, check_ledger, until_strangers};

const KILL: OperatorCommand = OperatorCommand::Order { incident: None, order: Command::Kill, code: None, why: None };
/// Runs beside each other; each has an exchange and a daemon of its own.
const AT_ONCE: usize = 3;
/// Of an exchange that takes its time, all requests but the last reads are done in about this.
const EVENTFUL_MS: u32 = 350;
/// How long one call may take it.
const SLOW_MS: u32 = 300;
const SLOW_CALLS: [(&str, &str); 5] = [
    ("GET", "/sapi/v1/sub-account/subAccountApi"),
    ("POST", "/sapi/v1/sub-account/subAccountApiPermission"),
    ("DELETE", "/sapi/v1/sub-account/subAccountApi"),
    ("GET", "/api/v3/openOrders"),
    ("DELETE", "/api/v3/order"),
];
const WHOLE_MS: u32 = 2_500;

#[derive(Debug, Default)]
struct Figures {
    crashes: u32,
    /// The command itself was not on disk, and its owner had to say it again.
    said_again: u32,
    /// Crashes by how many of a kill's two effects on the key had happened.
    effects_before: [u32; 3],
    slowest: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_contained_whenever_the_daemon_dies() {
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (runs, seed) = (number("COUNTERSIGN_STOP_KILLS", 12), number("COUNTERSIGN_SEED", 1));
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut under_way = JoinSet::new();
    for run in 0..runs {
        let room = Arc::clone(&room);
        under_way.spawn(async move {
            let _place = room.acquire().await.unwrap();
            contained_through_crashes(seed * 1_000 + run).await
        });
    }
    let mut all = Figures::default();
    while let Some(figures) = under_way.join_next().await {
        let figures = figures.unwrap();
        all.crashes += figures.crashes;
        all.said_again += figures.said_again;
        for (all, one) in all.effects_before.iter_mut().zip(figures.effects_before) {
            *all += one;
        }
        all.slowest = all.slowest.max(figures.slowest);
    }
    println!("{runs} kills of a key, each contained and proved, nothing done twice: {all:?}");
}

async fn contained_through_crashes(seed: u64) -> Figures {
    let mut dice = Seeded::new(seed);
    let stage = Arc::new(armed(seed, None).await);
    let mut daemon = stage.run();
    stage.until_proved().await;
    let bot = bot_with_an_order(&stage).await;
    let stolen = stage.rest_foreign(2).await;
    until_strangers(&stage, 2).await;

    let mut figures = Figures::default();
    let began = Instant::now();
    slow_down(&stage, &mut dice).await;
    let mut saying = begin_to_say(&stage);
    for _ in 0..=dice.below(3) {
        let within = if dice.below(3) > 0 { EVENTFUL_MS } else { WHOLE_MS };
        let moment = dice.below(within);
        tokio::time::sleep(Duration::from_millis(moment.into())).await;
        daemon.kill().await;
        let _ = saying.join_next().await;
        figures.crashes += 1;
        figures.effects_before[stage.done_to_keys().await.len()] += 1;
        daemon = stage.run();
        let known = stage.until_contained("the daemon again", WITHIN, |_| true).await;
        if known.is_null() {
            figures.said_again += 1;
            saying = begin_to_say(&stage);
        }
    }
    let _ = saying.join_next().await;
    let progress = stage.until_contained("the end", 2 * WITHIN, |progress| !progress["end"].is_null()).await;
    figures.slowest = began.elapsed();
    check_contained(&progress);
    check_ledger(&stage, bot.order, &stolen).await;
    assert!(daemon.stop().await.success());
    let replayed = journal::replay(&stage.journal()).unwrap();
    assert_eq!(replayed.differing, 0, "seed {seed}: {:#?}", replayed.differences);
    figures
}

/// Some calls are done late, some at once and answered late: whoever dies meanwhile does not know which.
async fn slow_down(stage: &Stage, dice: &mut Seeded) {
    let mut faults = Vec::new();
    for (method, path) in SLOW_CALLS {
        let (how, ms) = (if dice.below(2) == 0 { "hold" } else { "late" }, dice.below(SLOW_MS));
        let what = json!({ how: { "ms": ms } });
        faults.push(json!({ "fault": "endpoint", "method": method, "path": path, "count": 4, "do": what }));
    }
    stage.control("faults", &json!(faults)).await;
}

/// The daemon may die before it has heard it whole, or before it has answered.
fn begin_to_say(stage: &Arc<Stage>) -> JoinSet<Result<Value, OperatorError>> {
    let (stage, mut saying) = (Arc::clone(stage), JoinSet::new());
    saying.spawn(async move { stage.ask(&KILL).await });
    saying
}
