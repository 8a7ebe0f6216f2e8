//! The run itself: one queue of what is to happen, ordered by time and then by when it was thought of; one source of
//! chance. Actors are halves of this world in files of their own; none of them waits, reads a clock or draws elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kernel::declared::Declared;
use crate::kernel::rule::RuleSet;
use crate::kernel::time::Time;
use crate::sim::exchange::Exchange;
use crate::sim::seed::Seeded;
use crate::simulate::acts::Means;
use crate::simulate::bot::{Bot, BotTurn};
use crate::simulate::client::{Client, control};
use crate::simulate::disk::Disk;
use crate::simulate::emergency::Intrusion;
use crate::simulate::owner::{StopState, Word};
use crate::simulate::process::{Inside, Process};
use crate::simulate::script::{Mishap, START, Script, Span, Wires};
use crate::simulate::setting::{self, Setting};
use crate::simulate::thief::ThiefTurn;
use crate::simulate::witness::Witness;
use crate::tag::TagKeys;

/// Far above what any run needs. One that reaches it goes round in circles, which is a failure of its own.
const STEPS_MAX: u64 = 2_000_000;
/// An intruder who waits for nothing comes then.
const INTRUDES_AT: Duration = Duration::from_secs(12);

pub struct World {
    pub now: Time,
    pub dice: Seeded,
    pub script: Script,
    pub exchange: Exchange,
    pub declared: Declared,
    pub rules: RuleSet,
    pub tags: TagKeys,
    pub watch: Client,
    pub thief: Client,
    pub bots: Vec<Bot>,
    pub disk: Disk,
    pub process: Option<Process>,
    /// Counts the processes: what was meant for an earlier one does not reach a later one.
    pub life: u32,
    pub troubles: Troubles,
    pub means: Means,
    /// What the thief made with the master's login.
    pub made_key: Option<Client>,
    pub stop: StopState,
    pub witness: Witness,
    queue: BTreeMap<(Time, u64), Happening>,
    sequence: u64,
    tick_at: Option<Time>,
}

/// What is broken for a while, until when.
#[derive(Default)]
pub struct Troubles {
    pub disk: Option<Time>,
    pub webhook: Option<Time>,
    /// By slot: how many milliseconds more a frame takes.
    pub slow: [Option<(Time, u32)>; 2],
}

pub enum Happening {
    /// The exchange has something to do by itself.
    Exchange,
    Inside(u32, Inside),
    Start,
    Bot(usize, BotTurn),
    Thief(ThiefTurn),
    Owner(Word),
    Mishap(Mishap),
}

impl World {
    /// `None` where the exchange or its keys cannot be set up, which a test would show for every seed alike.
    pub fn new(seed: u64, rules: &RuleSet) -> Option<Self> {
        let mut dice = Seeded::new(seed);
        let script = Script::of(seed, &mut dice);
        let config = setting::exchange(seed, &script, &mut dice);
        let exchange = Exchange::new(START, &config).ok()?;
        let Setting { declared, tags, watch, thief, means, bots } = setting::of(&config, &script, &mut dice)?;
        let mut world = Self {
            now: START,
            dice,
            exchange,
            declared,
            rules: rules.clone(),
            tags,
            watch,
            thief,
            bots,
            disk: Disk::default(),
            process: None,
            life: 0,
            troubles: Troubles::default(),
            means,
            made_key: None,
            stop: StopState::of(&script),
            witness: Witness::default(),
            queue: BTreeMap::new(),
            sequence: 0,
            tick_at: None,
            script,
        };
        world.set_the_stage();
        Some(world)
    }

    fn set_the_stage(&mut self) {
        if self.script.emergency.as_ref().is_some_and(|emergency| emergency.acts_alone) {
            self.live_yesterday();
        }
        self.at(START, Happening::Start);
        for bot in 0..self.bots.len() {
            self.after(Duration::from_millis(1_500), Happening::Bot(bot, BotTurn::Connect));
            self.after(Duration::from_secs(3), Happening::Bot(bot, BotTurn::Trade));
        }
        for (at, theft) in self.script.thefts.clone() {
            self.at(at, Happening::Thief(ThiefTurn::Begin(theft)));
        }
        for (at, mishap) in self.script.mishaps.clone() {
            self.at(at, Happening::Mishap(mishap));
        }
        if self.is_intruded(Intrusion::Before) {
            let at = self.script.thefts.first().map_or(START + INTRUDES_AT, |(at, _)| *at);
            self.at(at, Happening::Thief(ThiefTurn::MakesKey));
        }
        self.pump();
    }

    /// Runs to the script's end.
    pub fn run(&mut self) {
        let mut steps = 0;
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            if at > self.script.ends {
                break;
            }
            self.now = at;
            match happening {
                Happening::Exchange => self.tick(),
                Happening::Inside(life, inside) if life == self.life && self.process.is_some() => self.inside(inside),
                Happening::Inside(..) => {}
                Happening::Start => self.start_process(),
                Happening::Bot(bot, turn) => self.bot(bot, turn),
                Happening::Thief(turn) => self.thief(turn),
                Happening::Owner(word) => self.command(word),
                Happening::Mishap(mishap) => self.suffer(mishap),
            }
            steps += 1;
            if steps == STEPS_MAX {
                self.witness.fail("the run goes round in circles");
                break;
            }
        }
        self.now = self.script.ends;
    }

    /// The whole journal stands and replays to the same effects.
    pub fn check_journal(&mut self) {
        match self.disk.replay_all() {
            Ok(replay) if replay.differing == 0 => {}
            Ok(replay) => self.witness.fail(&format!("{} rows replay differently", replay.differing)),
            Err(error) => self.witness.fail(&format!("the journal is broken: {error}")),
        }
    }

    pub fn at(&mut self, at: Time, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), happening);
    }

    pub fn after(&mut self, span: Duration, happening: Happening) {
        self.at(self.now + span, happening);
    }

    /// For the process that runs now.
    pub fn inside_at(&mut self, at: Time, inside: Inside) {
        self.at(at, Happening::Inside(self.life, inside));
    }

    pub const fn chance(&mut self, percent: u32) -> bool {
        self.dice.below(100) < percent
    }

    /// A time from the span, to the microsecond.
    pub fn draw(&mut self, (least, most): Span) -> Duration {
        let micros = u64::from(least) * 1_000 + u64::from(self.dice.below((most - least).max(1) * 1_000));
        Duration::from_micros(micros)
    }

    fn tick(&mut self) {
        if self.tick_at.is_some_and(|at| at <= self.now) {
            self.tick_at = None;
        }
        self.exchange.tick(self.now);
        self.pump();
    }

    /// After whatever touched the exchange: its frames go on their way, and its next own doing is noted.
    pub fn pump(&mut self) {
        self.carry_frames();
        if let Some(wake) = self.exchange.next_wake()
            && self.tick_at.is_none_or(|known| wake < known)
        {
            self.tick_at = Some(wake);
            self.at(wake, Happening::Exchange);
        }
    }

    fn suffer(&mut self, mishap: Mishap) {
        self.witness.mishaps.push((self.now, mishap));
        match mishap {
            Mishap::Cut(wires) => self.cut(wires),
            Mishap::Mute(wires) => self.mute(wires),
            Mishap::Slow { wires, ms, lasts } => {
                let until = self.now + lasts;
                for slot in (0..2).filter(|slot| wires.hits(*slot)) {
                    self.troubles.slow[slot] = Some((until, ms));
                }
            }
            Mishap::Shutdown => self.inflict(r#"[{"fault":"server_shutdown"}]"#),
            Mishap::Garbled => self.inflict_on_one("garble"),
            Mishap::Doubled => self.inflict_on_one("duplicate"),
            Mishap::Dropped => self.inflict_on_one("drop"),
            Mishap::UnknownEvent => self.inflict(r#"[{"fault":"unknown_event"}]"#),
            Mishap::ReadsFail { count } => self.fail_reads(count),
            Mishap::Held { seconds } => {
                if let Some(process) = &mut self.process {
                    process.hold(self.now, Duration::from_secs(u64::from(seconds)));
                }
            }
            Mishap::DiskStalls { lasts } => self.troubles.disk = Some(self.now + lasts),
            Mishap::Killed { down } => self.kill(down),
            Mishap::Stopped { down } => self.stop(down),
            Mishap::LineBreaks { bot, down } => self.break_line(bot, down),
            Mishap::WebhookFails { lasts } => self.troubles.webhook = Some(self.now + lasts),
            Mishap::ClockJumps { ms } => self.tell_clock_jump(i64::from(ms)),
        }
    }

    fn inflict(&mut self, faults: &str) {
        control(&mut self.exchange, self.now, "POST", "faults", "", faults);
        self.pump();
    }

    /// Strikes the next event on one connection, so that its other copy comes through.
    fn inflict_on_one(&mut self, fault: &str) {
        let slot = self.dice.below(2) as usize;
        if let Some(remote) = self.remote_of(Wires::Slot(slot)) {
            self.inflict(&format!(r#"[{{"fault":"{fault}","connection":{remote},"count":1}}]"#));
        }
    }

    fn fail_reads(&mut self, count: u32) {
        let faults: Vec<String> = ["openOrders", "account", "order"]
            .iter()
            .map(|path| {
                let answer = r#"{"answer":{"status":503,"code":-1008,"msg":"Server is currently overloaded."}}"#;
                format!(
                    r#"{{"fault":"endpoint","method":"GET","path":"/api/v3/{path}","count":{count},"do":{answer}}}"#
                )
            })
            .collect();
        self.inflict(&format!("[{}]", faults.join(",")));
    }
}
