//! `countersign simulate`: seeds played in virtual time, two at once, and judged. What it prints is one object of
//! figures; a seed that failed is named with what went wrong, and runs alone by `--seeds`.

use std::io::Write;
use std::ops::Range;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::clock::Clock;
use crate::config;
use crate::kernel::rule::RuleSet;
use crate::simulate::{self, Outcome};

/// Outcomes that wait for the printer. At the limit the seeds wait.
const WAITING_MAX: usize = 64;
/// Of one seed: the rest is like it.
const PROBLEMS_SHOWN: usize = 5;

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct SimulateArgs {
    /// Go on with ever new seeds for so long
    #[arg(long)]
    pub seconds: Option<u64>,
    /// These seeds, such as 17..18 (the last one is not among them)
    #[arg(long)]
    pub seeds: Option<Seeds>,
    /// The whole story of this one seed: what was tried, what broke, and what was told
    #[arg(long)]
    pub tell: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(Range<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is no range of seeds\nhint: write it like 17..18");
        let (first, end) = text.split_once("..").ok_or_else(refused)?;
        let range = first.parse().map_err(|_| refused())?..end.parse().map_err(|_| refused())?;
        if range.is_empty() { Err(refused()) } else { Ok(Self(range)) }
    }
}

#[derive(Default)]
struct Figures {
    seeds: u64,
    failed: Vec<u64>,
    thefts: u64,
    thefts_missed: u64,
    contained: u64,
    false_alarms: u64,
    false_containments: u64,
}

impl Figures {
    fn count(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.thefts += outcome.thefts;
        self.thefts_missed += outcome.thefts_missed;
        self.contained += outcome.contained;
        self.false_alarms += outcome.false_alarms;
        self.false_containments += outcome.false_containments;
        if outcome.failed() {
            self.failed.push(outcome.seed);
        }
    }
}

/// Returns the exit status: 1 if a seed failed.
pub fn run(args: &SimulateArgs, json: bool, out: &mut impl Write) -> anyhow::Result<u8> {
    let rules = config::rules(None).map_err(anyhow::Error::msg)?;
    if let Some(seed) = args.tell {
        return tell(seed, &rules, out);
    }
    let clock = Clock::new(None);
    let (begun, range) = (clock.now(), args.seeds.as_ref().map_or(1..u64::MAX, |seeds| seeds.0.clone()));
    let lasts = args.seconds.map(Duration::from_secs);
    let goes_on = || lasts.is_none_or(|lasts| clock.now().since(begun) < lasts);
    let mut figures = Figures::default();
    play(range, &rules, goes_on, |outcome| {
        figures.count(&outcome);
        if outcome.failed() && !json {
            print_failure(&outcome, out)?;
        }
        Ok(())
    })?;
    figures.failed.sort_unstable();
    let seconds = clock.now().since(begun).as_secs();
    if json {
        let Figures { seeds, failed, thefts, thefts_missed, contained, false_alarms, false_containments } = &figures;
        let line = json!({
            "seeds": seeds, "seconds": seconds, "failed": failed, "thefts": thefts, "thefts_missed": thefts_missed,
            "contained": contained, "false_alarms": false_alarms, "false_containments": false_containments,
        });
        writeln!(out, "{line}")?;
    } else {
        print_figures(&figures, seconds, out)?;
    }
    Ok(u8::from(!figures.failed.is_empty()))
}

fn tell(seed: u64, rules: &RuleSet, out: &mut impl Write) -> anyhow::Result<u8> {
    let (outcome, story) = simulate::tell(seed, rules);
    for line in story.iter().chain(&outcome.problems) {
        writeln!(out, "{line}")?;
    }
    Ok(u8::from(outcome.failed()))
}

/// Each seed once, shared among as many threads as there are cores; `each` is handed the outcomes as they come.
pub fn play(
    seeds: Range<u64>,
    rules: &RuleSet,
    goes_on: impl Fn() -> bool + Sync,
    mut each: impl FnMut(Outcome) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (next, stopped) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (outcomes, printed) = mpsc::sync_channel(WAITING_MAX);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let outcomes = outcomes.clone();
            scope.spawn(|| {
                let outcomes = outcomes;
                while goes_on() && !stopped.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || outcomes.send(simulate::run(seed, rules)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(outcomes);
        let result = printed.iter().try_for_each(&mut each);
        stopped.store(true, Ordering::Relaxed);
        drop(printed);
        result
    })
}

fn print_failure(outcome: &Outcome, out: &mut impl Write) -> anyhow::Result<()> {
    let seed = outcome.seed;
    writeln!(out, "seed {seed} failed; again: countersign simulate --seeds {seed}..{}", seed + 1)?;
    for problem in outcome.problems.iter().take(PROBLEMS_SHOWN) {
        writeln!(out, "  {problem}")?;
    }
    if outcome.problems.len() > PROBLEMS_SHOWN {
        writeln!(out, "  and {} more", outcome.problems.len() - PROBLEMS_SHOWN)?;
    }
    out.flush()?;
    Ok(())
}

fn print_figures(figures: &Figures, seconds: u64, out: &mut impl Write) -> anyhow::Result<()> {
    let failed = u64::try_from(figures.failed.len()).unwrap_or(u64::MAX);
    for (name, figure) in [
        ("seeds", figures.seeds),
        ("seconds", seconds),
        ("failed", failed),
        ("thefts", figures.thefts),
        ("thefts_missed", figures.thefts_missed),
        ("contained", figures.contained),
        ("false_alarms", figures.false_alarms),
        ("false_containments", figures.false_containments),
    ] {
        writeln!(out, "{name:<20} {figure}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_range_of_seeds() {
        assert_eq!("17..18".parse(), Ok(Seeds(17..18)));
        for text in ["17", "18..17", "5..5", "a..b", "-1..2"] {
            assert!(text.parse::<Seeds>().is_err(), "{text}");
        }
    }
}
