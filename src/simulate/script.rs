//! What a seed decides beforehand: how long a run lasts, how the network and the clocks are, which thefts are tried
//! and what breaks. The oracle excuses an alarm by this script alone, so everything that goes wrong stands in here.

use std::time::Duration;

use crate::kernel::time::Time;
use crate::sim::seed::Seeded;
use crate::simulate::emergency::Emergency;

/// Every run begins here.
pub const START: Time = Time::from_millis(1_764_000_000_000);
/// The first theft and the first mishap come after this, when the watcher has looked at the account once.
pub const CALM: Duration = Duration::from_secs(8);
/// After the last theft and mishap, for what is still waited for.
const SETTLING: Duration = Duration::from_secs(45);
/// More of it, where a theft is stopped, and where the thief comes back.
const STOPPING: Duration = Duration::from_secs(45);
const INTRUDING: Duration = Duration::from_secs(45);

#[derive(Debug, Clone)]
pub struct Script {
    pub ends: Time,
    pub weather: Weather,
    pub bots: Vec<BotPlan>,
    pub thefts: Vec<(Time, Theft)>,
    pub mishaps: Vec<(Time, Mishap)>,
    pub tagged_only: bool,
    /// Rows between two snapshots.
    pub snapshot_rows: usize,
    /// Whether the owner acknowledges what he is sent.
    pub acknowledges: bool,
    /// How a theft ends, where somebody may end it.
    pub emergency: Option<Emergency>,
}

/// Milliseconds, from the least to the most.
pub type Span = (u32, u32);

#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub frame: Span,
    pub request: Span,
    pub line: Span,
    pub sync: Span,
    /// Of a hundred requests of a bot, so many get lost on their way, and as many answers.
    pub lost_percent: u32,
    /// How far the watcher's clock is ahead of the exchange's at most; the kernel allows for a second.
    pub watcher_skew_ms: u32,
    pub bot_skew_ms: u32,
}

#[derive(Debug, Clone, Copy)]
pub struct BotPlan {
    pub policy: Policy,
    pub pause: Span,
    pub beat_every: Duration,
    /// How long it waits for the daemon's answer before its policy decides.
    pub patience: Duration,
}

/// What a bot does about an id, and about a daemon that does not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Asks for the id; sends nothing without it.
    Refuse,
    /// Asks for the id; without an answer the order goes out under a plain one, and is told again.
    Send,
    /// Asks for the id; without an answer it computes one.
    Local,
    /// Computes the id and sends the order beside the record, whichever arrives first.
    LocalAtOnce,
    /// A plain id of its own, told beside the order.
    PlainAtOnce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theft {
    /// Sells through a pair that no bot trades.
    ThinPair {
        orders: u32,
    },
    /// Among the bots' symbols, inside their limits.
    Hidden {
        orders: u32,
    },
    /// Under the id of a bot's order that is closed.
    ReplayedId,
    /// Under the id of a bot's order that is open on another symbol.
    BorrowedId,
    /// An id of the countersign's layout, with a tag that nobody computed.
    ForgedId,
    /// Cancels what protects the bots, then sells.
    CancelsThenSells,
    CancelsAll,
    /// Makes a bot's order smaller.
    Amends,
    /// More than any bot may.
    OutsideLimits,
    /// Stop orders, as the bots protect themselves with.
    Stops {
        orders: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// The connection ends; what is under way on it is lost.
    Cut(Wires),
    /// Nothing comes through any more, and nobody is told.
    Mute(Wires),
    /// Frames linger on the way.
    Slow {
        wires: Wires,
        ms: u32,
        lasts: Duration,
    },
    /// The exchange announces its shutdown on every connection.
    Shutdown,
    Garbled,
    Doubled,
    /// One copy never comes.
    Dropped,
    UnknownEvent,
    /// The next reads are refused.
    ReadsFail {
        count: u32,
    },
    /// The watcher may not ask for a while.
    Held {
        seconds: u32,
    },
    DiskStalls {
        lasts: Duration,
    },
    /// The process dies at once; what was not on disk is gone.
    Killed {
        down: Duration,
    },
    /// It is stopped properly.
    Stopped {
        down: Duration,
    },
    LineBreaks {
        bot: usize,
        down: Duration,
    },
    WebhookFails {
        lasts: Duration,
    },
    /// The wall clock jumps, and is set right again before the next start.
    ClockJumps {
        ms: i32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wires {
    Slot(usize),
    Both,
}

impl Wires {
    pub const fn hits(self, slot: usize) -> bool {
        match self {
            Self::Slot(hit) => hit == slot,
            Self::Both => true,
        }
    }
}

impl Script {
    pub fn of(seed: u64, dice: &mut Seeded) -> Self {
        let trouble = Duration::from_secs(u64::from(20 + dice.below(50)));
        let bots: Vec<BotPlan> = (0..=dice.below(2)).map(|_| bot(dice)).collect();
        let moment = |dice: &mut Seeded| {
            let millis = u32::try_from(trouble.as_millis()).unwrap_or(u32::MAX);
            START + CALM + Duration::from_millis(u64::from(dice.below(millis)))
        };
        // A third of the runs have no theft at all, and as many no mishap: they measure false alarms.
        let thefts = if dice.below(3) == 0 { 0 } else { 1 + dice.below(4) };
        let mishaps = if dice.below(3) == 0 { 0 } else { 1 + dice.below(4) };
        let plain = bots.iter().any(|bot| matches!(bot.policy, Policy::Send | Policy::PlainAtOnce));
        let mut script = Self {
            ends: START + CALM + trouble + SETTLING,
            weather: weather(dice),
            thefts: (0..thefts).map(|_| (moment(dice), theft(dice))).collect(),
            mishaps: (0..mishaps).map(|_| (moment(dice), mishap(dice, bots.len()))).collect(),
            tagged_only: !plain && dice.below(4) == 0,
            bots,
            snapshot_rows: [100, 400, 50_000][dice.below(3) as usize],
            acknowledges: dice.below(2) == 0,
            emergency: Emergency::of(seed, dice.below(3) == 0),
        };
        script.prepare();
        script.thefts.sort_by_key(|(at, _)| *at);
        script.mishaps.sort_by_key(|(at, _)| *at);
        script
    }

    fn prepare(&mut self) {
        let Some(emergency) = &self.emergency else { return };
        self.ends = self.ends + STOPPING;
        if emergency.intruder.is_some() {
            self.ends = self.ends + INTRUDING;
        }
        let first = self.thefts.iter().map(|(at, _)| *at).min();
        if let Some(first) = first.filter(|_| emergency.places_stops) {
            self.thefts.push((first, Theft::Stops { orders: 2 }));
        }
    }
}

fn weather(dice: &mut Seeded) -> Weather {
    let frame = [(1, 5), (5, 40), (40, 400)][dice.below(3) as usize];
    let request = [(1, 5), (5, 80), (50, 600)][dice.below(3) as usize];
    let line = [(0, 1), (1, 10), (5, 150)][dice.below(3) as usize];
    let sync = [(0, 2), (2, 20), (20, 200)][dice.below(3) as usize];
    Weather {
        frame,
        request,
        line,
        sync,
        lost_percent: [0, 1, 5][dice.below(3) as usize],
        watcher_skew_ms: [0, 100, 800][dice.below(3) as usize],
        bot_skew_ms: [0, 100, 3_000][dice.below(3) as usize],
    }
}

fn bot(dice: &mut Seeded) -> BotPlan {
    let policies = [Policy::Refuse, Policy::Send, Policy::Local, Policy::LocalAtOnce, Policy::PlainAtOnce];
    BotPlan {
        policy: policies[dice.below(5) as usize],
        pause: [(200, 1_500), (800, 4_000)][dice.below(2) as usize],
        beat_every: Duration::from_millis(u64::from(200 + dice.below(600))),
        patience: Duration::from_millis([50, 300, 1_500][dice.below(3) as usize]),
    }
}

fn theft(dice: &mut Seeded) -> Theft {
    match dice.below(9) {
        0 => Theft::ThinPair { orders: 1 + dice.below(5) },
        1 => Theft::Hidden { orders: 1 + dice.below(6) },
        2 => Theft::ReplayedId,
        3 => Theft::BorrowedId,
        4 => Theft::ForgedId,
        5 => Theft::CancelsThenSells,
        6 => Theft::CancelsAll,
        7 => Theft::Amends,
        _ => Theft::OutsideLimits,
    }
}

fn mishap(dice: &mut Seeded, bots: usize) -> Mishap {
    let wires = [Wires::Slot(0), Wires::Slot(1), Wires::Both][dice.below(3) as usize];
    let down = Duration::from_millis(u64::from(200 + dice.below(12_000)));
    match dice.below(17) {
        0 | 1 => Mishap::Cut(wires),
        2 => Mishap::Mute(wires),
        3 => Mishap::Slow {
            wires,
            ms: 500 + dice.below(3_000),
            lasts: Duration::from_millis(u64::from(1_000 + dice.below(8_000))),
        },
        4 => Mishap::Shutdown,
        5 => Mishap::Garbled,
        6 => Mishap::Doubled,
        7 => Mishap::Dropped,
        8 => Mishap::UnknownEvent,
        9 => Mishap::ReadsFail { count: 1 + dice.below(6) },
        10 => Mishap::Held { seconds: 1 + dice.below(15) },
        11 => Mishap::DiskStalls { lasts: Duration::from_millis(u64::from(200 + dice.below(5_000))) },
        12 | 13 => Mishap::Killed { down },
        14 => Mishap::Stopped { down },
        15 => Mishap::LineBreaks { bot: dice.below(u32::try_from(bots).unwrap_or(1)) as usize, down: down / 3 },
        _ if dice.below(2) == 0 => Mishap::WebhookFails { lasts: down },
        _ => Mishap::ClockJumps { ms: 1_500 + dice.below(600_000).cast_signed() },
    }
}
