//! A way to stop the bot says that it worked: when that is a proof, and what a bot makes of it that speaks on.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign::kernel::act::{Act, ActOutcome, KeyPrint};
use countersign::kernel::command::{Command, Totp};
use countersign::kernel::containment::{End, PlanStep, Progress, StepState};
use countersign::kernel::event::Answer;
use countersign::kernel::incident::{IncidentState, Priority};
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

/// `pausing` are those of the ways after which the process lives on.
fn killed_by(hooks: &[&str], pausing: &[&str]) -> Stage {
    let mut stage = Stage::with(|declared| {
        may_stop(declared);
        let stopping = declared.stopping.as_mut().unwrap();
        stopping.hooks = hooks.iter().map(|name| (*name).into()).collect();
        stopping.pausing = pausing.iter().map(|name| (*name).into()).collect();
    });
    assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
    stage
}

fn step(stage: &Stage, hook: &str) -> PlanStep {
    let steps = progress(stage).steps;
    steps.into_iter().find(|step| step.what.ends_with(&format!("stop the bot: {hook}"))).expect("it stands in the plan")
}

/// One of two ways does not work, so far.
fn one_fails(act: &Act) -> Option<ActOutcome> {
    match act {
        Act::StopBot { hook } if &**hook == "fails" => Some(ActOutcome::Unknown { reason: "no answer".into() }),
        _ => stops(act),
    }
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

/// Nobody listened while the process was down, so nothing was proved meanwhile.
#[test]
fn a_lie_about_the_bot_is_told_after_a_long_stop_of_the_daemon() {
    let mut stage = killed(5);
    stage.run_answering(1_000, stops);
    stage.desk.now = stage.desk.now + Duration::from_secs(660);
    stage.desk.restart();
    stage.desk.live(2);
    stage.run_answering(6_000, stops);
    for _ in 0..120 {
        beat(&mut stage);
        stage.run_answering(1_000, stops);
    }
    assert_eq!(stage.word(), "contained; the bot still speaks", "{:#?}", progress(&stage));
}

/// A bot that says something every five minutes is taken for a stopped one in between, and each time told of anew.
#[test]
fn a_bot_that_was_never_stopped_is_not_called_stopped_in_the_end() {
    let mut stage = killed(5);
    for _ in 0..12 {
        stage.run_answering(300_000, stops);
        beat(&mut stage);
        let state = step(&stage, "command").state;
        assert_eq!((stage.word().as_str(), state), ("contained; the bot still speaks", StepState::NotProved));
        let last = stage.desk.kernel.notices().into_iter().rfind(|notice| &*notice.rule == "bot_still_speaks");
        assert_eq!(last.map(|notice| notice.state), Some(IncidentState::Open));
    }
}

/// Of a bot that is to pause, its beats say nothing, and each order that it announces says that it does not.
#[test]
fn a_pause_that_is_a_lie_is_told_as_often_as_the_bot_trades() {
    let mut stage = killed_by(&["freqtrade"], &["freqtrade"]);
    for number in 0..8 {
        for _ in 0..60 {
            stage.run_answering(5_000, stops);
            beat(&mut stage);
        }
        let order = stage.desk.order(100 + number, &format!("later{number}"));
        stage.desk.say(order.place());
        let state = step(&stage, "freqtrade").state;
        assert_eq!(
            (stage.word().as_str(), state),
            ("contained; the bot still speaks", StepState::NotProved),
            "{number}"
        );
    }
}

/// Two bots, and a way for each. A bot that speaks may be the one that no way has stopped yet, and may be the other.
#[test]
fn one_way_that_fails_does_not_prove_the_other_that_lies() {
    for every_ms in [250, 10_000] {
        let mut stage = killed_by(&["fails", "lies"], &[]);
        for _ in 0..60_000 / every_ms {
            stage.run_answering(every_ms, one_fails);
            beat(&mut stage);
            stage.desk.say_as("grid", IntentBody::Heartbeat { egress: None });
        }
        let (told, lies) = (progress(&stage), step(&stage, "lies"));
        assert_eq!((&*told.word, lies.state), ("contained; the bot is not stopped", StepState::NotProved), "{told:#?}");
        assert!(lies.detail.is_some_and(|detail| detail.contains("it cannot be told which")));
        let has = |text: &str| told.lines.iter().filter(|line| line.text.contains(text)).count();
        assert_eq!(has("lies said \"status 0\", which is no proof"), 1, "{told:#?}");
        assert_eq!(has("was stopped by"), usize::from(every_ms > 5_000), "{told:#?}");
        // Nobody waits for it, and no beat is journalled for what it cannot show.
        assert!(!told.bot_is_being_stopped && !stage.desk.kernel.heartbeat_wanted());
    }
}

#[test]
fn a_doubted_word_is_a_proof_once_every_way_has_worked_and_nobody_speaks() {
    for (speaks_on, restarts) in [(false, false), (false, true), (true, false)] {
        let mut stage = killed_by(&["fails", "works"], &[]);
        for _ in 0..80 {
            stage.desk.say_as("grid", IntentBody::Heartbeat { egress: None });
            stage.run_answering(250, one_fails);
        }
        assert_eq!(step(&stage, "works").state, StepState::NotProved);
        if restarts {
            stage.desk.restart();
            stage.desk.live(2);
            stage.run_answering(10_000, one_fails);
            assert_eq!(step(&stage, "works").state, StepState::NotProved);
        }
        // The way that had failed works now; what its bot had on the way by then is no word against either.
        let mut works = false;
        while !works {
            stage.run_answering(50, |act| {
                works |= matches!(act, Act::StopBot { .. });
                stops(act)
            });
        }
        stage.desk.say_as("grid", IntentBody::Heartbeat { egress: None });
        assert!(stage.desk.kernel.heartbeat_wanted() && progress(&stage).bot_is_being_stopped);
        assert_eq!(step(&stage, "works").state, StepState::UnderWay);
        for _ in 0..if speaks_on { 40 } else { 0 } {
            stage.desk.say_as("grid", IntentBody::Heartbeat { egress: None });
            stage.run_answering(250, stops);
        }
        stage.run_answering(6_000, stops);
        let expected = if speaks_on { StepState::NotProved } else { StepState::Proved };
        assert_eq!([step(&stage, "fails").state, step(&stage, "works").state], [expected, expected], "{restarts}");
        assert_eq!(stage.word() == "contained; the bot still speaks", speaks_on, "{}", stage.word());
    }
}

/// After a pause the process lives on: a beat says nothing, whoever else is not stopped.
#[test]
fn a_beat_makes_no_pause_doubtful() {
    let mut stage = killed_by(&["fails", "freqtrade"], &["freqtrade"]);
    for _ in 0..80 {
        beat(&mut stage);
        stage.run_answering(250, one_fails);
    }
    assert_eq!(step(&stage, "freqtrade").state, StepState::Proved);
    let order = stage.desk.order(9, "later");
    stage.desk.say(order.place());
    assert_eq!(step(&stage, "freqtrade").state, StepState::NotProved);
}

fn declares(stage: &mut Stage, hooks: &[&str]) {
    stage.desk.declared.stopping.as_mut().unwrap().hooks = hooks.iter().map(|name| (*name).into()).collect();
    stage.desk.restart();
    stage.desk.live(2);
}

/// Its owner names another way, since the first one does not work: whether that failed, or lied.
#[test]
fn a_way_that_is_not_configured_any_more_is_tried_no_more() {
    let fails = |act: &Act| {
        matches!(act, Act::StopBot { .. }).then(|| ActOutcome::Refused { code: 0, reason: "no such unit".into() })
    };
    for (lies, ms) in [(false, 1_000), (false, 10_000), (true, 10_000)] {
        let mut stage = killed_by(&["old"], &[]);
        stage.run_answering(ms, |act| if lies { stops(act) } else { fails(act) });
        if lies {
            beat(&mut stage);
            assert_eq!(stage.desk.incident("bot_still_speaks").state, IncidentState::Open);
        }
        declares(&mut stage, &["new"]);
        for kill_again in [false, true] {
            if kill_again {
                assert_eq!(stage.command(Command::Kill, Totp::Absent), Answer::Done);
            }
            let mut tried = BTreeSet::new();
            stage.run_answering(600_000, |act| {
                if let Act::StopBot { hook } = act {
                    tried.insert(hook.to_string());
                }
                stops(act)
            });
            assert_eq!(tried, BTreeSet::from(["new".to_owned()]), "{lies} {ms} {kill_again}");
            assert!(is_all_proved(&progress(&stage)), "{lies} {ms} {kill_again}: {:#?}", progress(&stage));
        }
        if lies {
            let told = stage.desk.incident("bot_still_speaks");
            assert_eq!(told.state, IncidentState::Ended);
            assert!(told.lines.last().unwrap().text.contains("not in the configuration any more"), "{told:#?}");
        }
    }
}

/// What is proved stays so, and what was stopped already is not stopped anew by another way.
#[test]
fn a_new_way_is_not_tried_where_the_old_one_has_worked() {
    let mut stage = killed_by(&["old"], &[]);
    stage.run_answering(10_000, stops);
    declares(&mut stage, &["new"]);
    stage.run_answering(60_000, panic_at_a_stop);
    assert_eq!(step(&stage, "old").state, StepState::Proved);
    // One of two is taken away that held up the other: nothing speaks, and its word is listened to anew.
    let mut stage = killed_by(&["fails", "works"], &[]);
    for _ in 0..80 {
        beat(&mut stage);
        stage.run_answering(250, one_fails);
    }
    assert_eq!(step(&stage, "works").state, StepState::NotProved);
    declares(&mut stage, &["works"]);
    stage.run_answering(6_000, one_fails);
    assert!(is_all_proved(&progress(&stage)), "{:#?}", progress(&stage));
}

fn panic_at_a_stop(act: &Act) -> Option<ActOutcome> {
    assert!(!matches!(act, Act::StopBot { .. }), "{act:?}");
    None
}

/// Who cannot stop the bot can still watch, and kill the keys: it is told at each start, and fails like any other way.
#[test]
fn a_program_that_is_not_there_is_told_at_the_start_and_fails_at_a_kill() {
    let missing = "the way to stop the bot \"command\" runs /nonexistent/stop, which is not there";
    let mut stage = killed_by(&["command"], &[]);
    stage.desk.declared.missing_programs = vec![missing.into()];
    stage.desk.restart();
    stage.desk.live(2);
    let told = stage.desk.incident("stop_missing");
    assert_eq!((told.priority, told.state, &*told.lines[0].text), (Priority::Critical, IncidentState::Open, missing));
    let reason = "/nonexistent/stop cannot be started: No such file or directory";
    stage.run_answering(120_000, |act| {
        matches!(act, Act::StopBot { .. }).then(|| ActOutcome::Refused { code: 0, reason: reason.into() })
    });
    assert_eq!(stage.word(), "contained; the bot is not stopped");
    assert_eq!(
        (step(&stage, "command").state, step(&stage, "command").detail.as_deref()),
        (StepState::Failing, Some(reason))
    );
    stage.desk.restart();
    assert_eq!(stage.desk.incident("stop_missing").state, IncidentState::Open);
    stage.desk.declared.missing_programs.clear();
    stage.desk.restart();
    assert_eq!(stage.desk.incident("stop_missing").state, IncidentState::Ended);
}
