//! What a seed decides about the end of a theft: who may stop it and how, what fails on the way, and whether the thief is
//! in the account itself. Drawn from chance of its own, so that the rest of a seed stays as it was.

use std::time::Duration;

use crate::sim::seed::Seeded;

#[derive(Debug, Clone)]
pub struct Emergency {
    pub owner: Owner,
    /// Mode *act*; else it asks.
    pub acts_alone: bool,
    pub freeze_unanswered: Option<Duration>,
    pub hook: Option<Hook>,
    /// The second bot trades with a key of its own, which a thief does not have.
    pub second_key: bool,
    /// He has the master's login, and makes a key of his own.
    pub intruder: Option<Intrusion>,
    /// What the owner does about keys that nobody declared, once they are frozen.
    pub deletes_strangers: bool,
    /// The thief places stop orders as bots do.
    pub places_stops: bool,
    /// Of a hundred acts, so many are never answered.
    pub unanswered_percent: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Kills,
    Freezes,
    FreezesThenKills,
    /// With a wrong one-time password first, perhaps.
    FreezesThenResumes {
        wrong_first: bool,
    },
    /// He is asleep.
    Sleeps,
}

/// The way to stop the bot fails so often before it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    pub fails: u32,
    pub leaves: Leaves,
}

/// What it leaves of the bots once it says that it worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// Bots that trade no more, and beat on.
    Paused,
    Nothing,
    /// It lies: they trade and beat as before.
    All,
}

impl Hook {
    fn of(seed: u64, fails: u32) -> Self {
        let leaves = match Seeded::new(seed ^ 0x6C65_6176_6573).below(8) {
            0..4 => Leaves::Paused,
            4..7 => Leaves::Nothing,
            _ => Leaves::All,
        };
        Self { fails, leaves }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intrusion {
    Before,
    /// When the first key has been touched.
    During,
    /// When the end has been told.
    After,
}

impl Emergency {
    /// `kills`: what the seed has decided about its owner so far.
    pub fn of(seed: u64, kills: bool) -> Option<Self> {
        let mut dice = Seeded::new(seed ^ 0x6F77_6E65_7273);
        if !kills && dice.below(4) != 0 {
            return None;
        }
        let owner = match dice.below(6) {
            _ if !kills => Owner::Sleeps,
            0..3 => Owner::Kills,
            3 => Owner::Freezes,
            4 => Owner::FreezesThenKills,
            _ => Owner::FreezesThenResumes { wrong_first: dice.below(2) == 0 },
        };
        let sleeps = owner == Owner::Sleeps;
        let acts_alone = dice.below(4) == 0 || sleeps && dice.below(2) == 0;
        let waits = sleeps && !acts_alone || dice.below(4) == 0;
        let intrusion = [Intrusion::Before, Intrusion::During, Intrusion::After][dice.below(3) as usize];
        Some(Self {
            owner,
            acts_alone,
            freeze_unanswered: waits.then(|| Duration::from_secs(u64::from(5 + dice.below(20)))),
            hook: (dice.below(2) == 0).then(|| Hook::of(seed, [0, 1, 3, u32::MAX][dice.below(4) as usize])),
            second_key: dice.below(2) == 0,
            intruder: (dice.below(3) == 0).then_some(intrusion),
            deletes_strangers: dice.below(4) != 0,
            places_stops: dice.below(2) == 0,
            unanswered_percent: if dice.below(6) == 0 { 5 } else { 0 },
        })
    }
}
