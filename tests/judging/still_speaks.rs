//! A way to stop the bot says that it worked: when that is a proof, and what a bot makes of it that speaks on.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign::kernel::act::{Act, ActOutcome, KeyPrint};
use countersign::kernel::command::{Command, Totp};
use countersign::kernel::containment::{End, Progress, StepState};
use countersign::kernel::event::Answer;
use countersign::kernel::incident::IncidentState;
use countersign::kernel::intent::IntentBody;
use countersign::kernel::time::Time;

use crate::stage::{Stage, may_stop};

/// As the core has it: of a bot that only beats, this is a row.
const BEAT_ROWS_EVERY: Duration = Duration::from_secs(5);

fn killed(quiet: u64) -> Stage {
    let mut stage = Stage::with(|declared| {
        may_stop(declared);
        let stopping = declared.stopping.as_mut().unwrap();
        (stopping.hooks, stopping.quiet) = (vec!["command".into()], Duration::from_secs(quiet));
    });
    assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
    stage
}

fn stops(act: &Act) -> Option<ActOutcome> {
    matches!(act, Act::StopBot { .. }).then(|| ActOutcome::Done { proof: "status 0".into() })
}

fn progress(stage: &Stage) -> Progress {
    stage.desk.kernel.progress().unwrap()
}

fn beat(stage: &mut Stage) {
    stage.desk.say(IntentBody::Heartbeat { egress: None });
}

fn is_all_proved(progress: &Progress) -> bool {
    progress.end == Some(End::Contained) && progress.steps.iter().all(|step| step.state == StepState::Proved)
}

/// Runs so long with a bot that beats so often, of whose beats only those are rows that the core makes rows.
fn run_beating(stage: &mut Stage, ms: u64, every_ms: u64, last_row: &mut Time, mut seen: impl FnMut(&Stage)) {
    for step in 0..ms / 50 {
        if step * 50 % every_ms == 0
            && (BEAT_ROWS_EVERY <= stage.desk.now.since(*last_row) || stage.desk.kernel.heartbeat_wanted())
        {
            *last_row = stage.desk.now;
            beat(stage);
        }
        stage.run_answering(50, stops);
        seen(stage);
    }
}

/// "And no bot speaks any more" is shown only by whoever has listened.
#[test]
fn nothing_is_proved_before_anybody_could_have_listened() {
    for (quiet, every_ms) in [(5, 250), (1, 250), (1, 500), (5, 1_000)] {
        let mut stage = killed(quiet);
        let mut last_row = stage.desk.now;
        run_beating(&mut stage, 30_000, every_ms, &mut last_row, |stage| {
            assert!(!is_all_proved(&progress(stage)), "{quiet} {every_ms}: {:#?}", progress(stage));
        });
        assert_eq!(stage.word(), "contained; the bot still speaks");
    }
    // The end does not wait for it, and whoever waits for a proof does.
    let mut silent = killed(1);
    silent.run_answering(4_500, stops);
    let told = progress(&silent);
    assert_eq!((told.end, told.bot_is_being_stopped, is_all_proved(&told)), (Some(End::Contained), true, false));
    assert!(told.steps.iter().any(|step| step.state == StepState::UnderWay
        && step.detail.as_ref().is_some_and(|detail| detail.contains("not proved yet"))));
    assert!(!told.lines.iter().any(|line| line.text.contains("was stopped by")), "{told:#?}");
    // Nobody listened while the process was down.
    silent.desk.restart();
    silent.desk.live(7);
    silent.run_answering(4_500, stops);
    assert!(!is_all_proved(&progress(&silent)));
    silent.run_answering(1_000, stops);
    let told = progress(&silent);
    assert!(is_all_proved(&told) && !told.bot_is_being_stopped, "{told:#?}");
    assert!(told.lines.iter().any(|line| &*line.text == "the bot was stopped by command: status 0"));
}

/// One that speaks now and then is told of once or twice, and not tried more often than one that is never stopped.
#[test]
fn a_bot_that_speaks_now_and_then_is_no_flood() {
    for (every_s, incidents_max, runs_max) in [(1, 1, 50), (20, 1, 60), (30, 1, 60), (60, 2, 60), (120, 3, 60)] {
        let mut stage = killed(5);
        let (mut runs, mut incidents) = (0, BTreeSet::new());
        for _ in 0..1_200 / every_s {
            stage.run_answering(every_s * 1_000, |act| {
                runs += usize::from(matches!(act, Act::StopBot { .. }));
                stops(act)
            });
            beat(&mut stage);
            let notices = stage.desk.kernel.notices();
            let told = notices.iter().filter(|notice| &*notice.rule == "bot_still_speaks");
            incidents.extend(told.map(|notice| notice.incident));
        }
        let lines = progress(&stage).lines;
        let has = |text: &str| lines.iter().filter(|line| line.text.contains(text)).count();
        assert!((1..=incidents_max).contains(&incidents.len()), "{every_s}: {incidents:?}");
        assert_eq!(has("NOT STOPPED"), incidents.len(), "{every_s}: {lines:#?}");
        assert!(has("new orders are blocked") == 1 && has("CONTAINED") == 1, "{every_s}: {lines:#?}");
        assert!(runs <= runs_max, "{every_s}: {runs}");
    }
}

/// After a kill its owner declares new keys, and what was found about the old ones is over.
#[test]
fn the_incident_ends_with_the_containment_that_it_is_about() {
    let mut stage = killed(5);
    stage.run_answering(8_000, stops);
    beat(&mut stage);
    assert_eq!(stage.desk.incident("bot_still_speaks").state, IncidentState::Open);
    stage.desk.declared.stopping.as_mut().unwrap().keys[0].print = KeyPrint::of("new");
    stage.desk.restart();
    assert!(stage.desk.kernel.progress().is_none());
    assert_eq!(stage.desk.incident("bot_still_speaks").state, IncidentState::Ended);
}
