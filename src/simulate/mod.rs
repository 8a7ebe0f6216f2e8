//! A whole trade in virtual time: the simulated exchange, bots, a thief, the network, the disk and the clocks drive the
//! real kernels, the real tag code, the real decoder and the journal's own rows. All chance comes from one seed, so a
//! seed that fails is a bug report that anybody can run.
//!
//! Architecture invariant: nothing here reads a clock, waits, spawns or draws chance but from the seed; the oracle asks
//! no kernel what it thinks.

mod script;
mod emergency;
mod setting;
mod client;
mod disk;
mod witness;
mod world;
mod process;
mod acts;
mod network;
mod owner;
mod bot;
mod trading;
mod thief;
mod ledger;
mod told;
mod oracle;
mod proof;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::kernel::rule::RuleSet;
use crate::simulate::ledger::Ledger;
use crate::simulate::oracle::{Judgement, Oracle};
use crate::simulate::world::World;

/// Each start replays from the last snapshot; the whole journal is replayed of every so manyth seed.
const REPLAYED_WHOLE: u64 = 4;

/// What came of one seed. Two runs of a seed give equal ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub seed: u64,
    pub thefts: u64,
    pub thefts_missed: u64,
    pub false_alarms: u64,
    /// Kills whose end was proved, and runs in which something healthy was touched.
    pub contained: u64,
    pub false_containments: u64,
    pub problems: Vec<String>,
    /// Of every row of the journal and of everything that was told.
    pub digest: String,
}

impl Outcome {
    pub const fn failed(&self) -> bool {
        !self.problems.is_empty()
    }
}

/// Plays one seed to its end and judges it.
pub fn run(seed: u64, rules: &RuleSet) -> Outcome {
    play(seed, rules, |_, _| {})
}

/// The same, and the story of it: the script, what the thief did and touched, and each line that was told.
pub fn tell(seed: u64, rules: &RuleSet) -> (Outcome, Vec<String>) {
    let mut story = Vec::new();
    let outcome = play(seed, rules, |world, ledger| {
        story.push(format!("{:?}", world.script));
        for (key, entry) in &ledger.orders {
            if entry.by_thief || entry.changes.iter().any(|change| change.by_thief) {
                story.push(format!("{key:?} {entry:?}"));
            }
        }
        story.extend(world.witness.lines.iter().map(|line| format!("{line:?}")));
        story.extend(ledger.keys.iter().map(|change| format!("{change:?}")));
        story.extend(world.witness.commands.iter().map(|command| format!("{command:?}")));
        story.extend(world.witness.words.iter().map(|word| format!("{word:?}")));
        story.extend(world.witness.asked.iter().map(|asked| format!("{asked:?}")));
        story.extend(world.witness.refusals.iter().cloned());
    });
    (outcome, story)
}

fn play(seed: u64, rules: &RuleSet, watch: impl FnOnce(&World, &Ledger)) -> Outcome {
    let Some(mut world) = World::new(seed, rules) else {
        let judgement = Judgement { problems: vec!["the stage could not be set".to_owned()], ..Judgement::default() };
        return outcome(seed, judgement, String::new());
    };
    world.run();
    if seed.is_multiple_of(REPLAYED_WHOLE) {
        world.check_journal();
    }
    let body = client::control(&mut world.exchange, world.now, "GET", "ledger", "", "");
    let ledger = Ledger::read(&body);
    let judgement = Oracle::new(&world.script, &ledger, &world.witness).judge();
    watch(&world, &ledger);
    let mut hash = Sha256::new();
    hash.update(world.disk.digest());
    for line in &world.witness.lines {
        hash.update(format!("{} {} {} {}\n", line.at, line.incident, line.rule, line.text));
    }
    hash.update(body.to_string());
    outcome(seed, judgement, HEXLOWER.encode(&hash.finalize()))
}

fn outcome(seed: u64, judgement: Judgement, digest: String) -> Outcome {
    let Judgement { thefts, missed, false_alarms, contained, false_containments, problems } = judgement;
    Outcome { seed, thefts, thefts_missed: missed, false_alarms, contained, false_containments, problems, digest }
}
