//! Keeps two connections alive for the same accounts: opens, replaces (the new one is live before the old one goes),
//! and backs off. Time is passed in; connections are opened and ended by whoever asks `poll`.
//!
//! Invariants: a connection number is used once; attempts stay far inside the venue's 300 per 5 minutes and address;
//! a connection that still carries an account's events is retired only when its replacement carries them too.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::kernel::event::Connection;
use crate::kernel::time::Time;
use crate::venue::session::Seat;

const SLOTS: usize = 2;
/// The venue allows 300; others may share the address. At the limit the next attempt waits for the window.
const ATTEMPTS_MAX: usize = 100;
const ATTEMPTS_WINDOW: Duration = Duration::from_secs(300);
/// A slot's running connection, its replacement, and one more if that is to be replaced as well.
const LINES_MAX: usize = 3;
/// A connection that lived so long owes its end to nothing we did, and the next one is tried at once.
const STABLE_AFTER: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Before a first attempt to reconnect, so that a thousand watchers do not knock at once.
const JITTER: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Command {
    /// `slot` tells the two apart, for what should not happen to both at once.
    Open {
        connection: Connection,
        slot: usize,
    },
    Retire {
        connection: Connection,
    },
}

#[derive(Debug)]
pub struct Pair {
    slots: [Slot; SLOTS],
    next_number: u64,
    attempts: VecDeque<Time>,
    held_until: Option<Time>,
    seed: u64,
}

#[derive(Debug, Default)]
struct Slot {
    lines: Vec<Line>,
    /// Attempts in a row that brought no lasting connection.
    failures: u32,
    open_at: Option<Time>,
}

#[derive(Debug)]
struct Line {
    connection: Connection,
    live: BTreeSet<Seat>,
    live_since: Option<Time>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Wanted,
    /// Goes on until another one carries what it carries.
    ToReplace,
    Retiring,
}

impl Pair {
    pub fn new(now: Time, first_number: u64, seed: u64) -> Self {
        let slot = || Slot { open_at: Some(now), ..Slot::default() };
        Self { slots: [slot(), slot()], next_number: first_number, attempts: VecDeque::new(), held_until: None, seed }
    }

    pub fn poll(&mut self, now: Time) -> Option<Command> {
        self.poll_retire().or_else(|| self.poll_open(now))
    }

    pub fn poll_timeout(&self) -> Option<Time> {
        let window = self.attempts.front().filter(|_| self.attempts.len() >= ATTEMPTS_MAX);
        let free_at = window.map(|oldest| *oldest + ATTEMPTS_WINDOW).max(self.held_until);
        let wanting = self.slots.iter().filter(|slot| slot.wants_line());
        wanting.filter_map(|slot| slot.open_at).min().map(|at| free_at.map_or(at, |free| free.max(at)))
    }

    pub fn handle_live(&mut self, now: Time, connection: Connection, seat: Seat) {
        if let Some((_, line)) = self.line(connection) {
            line.live.insert(seat);
            line.live_since = line.live_since.or(Some(now));
        }
    }

    pub fn handle_lost(&mut self, connection: Connection, seat: Seat) {
        if let Some((_, line)) = self.line(connection) {
            line.live.remove(&seat);
        }
    }

    /// The connection asked to be replaced.
    pub fn handle_replace(&mut self, now: Time, connection: Connection) {
        let Some((place, line)) = self.line(connection) else { return };
        if line.stage == Stage::Wanted {
            line.stage = Stage::ToReplace;
            let stable = line.is_stable(now);
            self.schedule(now, place, stable);
        }
    }

    /// The connection ended, or never came to be.
    pub fn handle_ended(&mut self, now: Time, connection: Connection) {
        let Some((place, line)) = self.line(connection) else { return };
        let (stage, stable) = (line.stage, line.is_stable(now));
        self.slots[place].lines.retain(|line| line.connection != connection);
        if stage == Stage::Wanted {
            self.schedule(now, place, stable);
        }
    }

    /// The venue told this address to wait.
    pub fn handle_hold(&mut self, until: Time) {
        self.held_until = self.held_until.max(Some(until));
    }

    /// The accounts that this connection carries: for whoever must say that it is gone.
    pub fn live_seats(&self, connection: Connection) -> Vec<Seat> {
        let lines = self.slots.iter().flat_map(|slot| &slot.lines);
        lines.filter(|line| line.connection == connection).flat_map(|line| line.live.iter().copied()).collect()
    }

    fn poll_retire(&mut self) -> Option<Command> {
        for slot in &mut self.slots {
            let carried = slot.lines.iter().find(|line| line.stage == Stage::Wanted).map(|line| line.live.clone());
            let Some(carried) = carried.filter(|seats| !seats.is_empty()) else { continue };
            let replaced = |line: &&mut Line| line.stage == Stage::ToReplace && line.live.is_subset(&carried);
            if let Some(line) = slot.lines.iter_mut().find(replaced) {
                line.stage = Stage::Retiring;
                return Some(Command::Retire { connection: line.connection });
            }
        }
        None
    }

    fn poll_open(&mut self, now: Time) -> Option<Command> {
        while self.attempts.front().is_some_and(|oldest| now >= *oldest + ATTEMPTS_WINDOW) {
            self.attempts.pop_front();
        }
        if self.attempts.len() >= ATTEMPTS_MAX || self.held_until.is_some_and(|until| now < until) {
            return None;
        }
        let due = |slot: &Slot| slot.wants_line() && slot.open_at.is_some_and(|at| now >= at);
        let place = self.slots.iter().position(due)?;
        let connection = Connection(self.next_number);
        self.next_number += 1;
        self.attempts.push_back(now);
        let line = Line { connection, live: BTreeSet::new(), live_since: None, stage: Stage::Wanted };
        self.slots[place].lines.push(line);
        Some(Command::Open { connection, slot: place })
    }

    fn schedule(&mut self, now: Time, place: usize, stable: bool) {
        let slot = &mut self.slots[place];
        slot.failures = if stable { 0 } else { slot.failures.saturating_add(1) };
        let full = match slot.failures {
            0 => JITTER,
            failures => BACKOFF_FIRST.saturating_mul(1 << (failures - 1).min(7)).min(BACKOFF_MAX),
        };
        let sure = if slot.failures == 0 { Duration::ZERO } else { full / 2 };
        let open_at = now + sure + share(full - sure, self.seed ^ mixed(self.next_number ^ (place as u64) << 32));
        self.slots[place].open_at = Some(open_at);
    }

    fn line(&mut self, connection: Connection) -> Option<(usize, &mut Line)> {
        let lines = self.slots.iter_mut().enumerate();
        lines
            .flat_map(|(place, slot)| slot.lines.iter_mut().map(move |line| (place, line)))
            .find(|(_, line)| line.connection == connection)
    }
}

impl Slot {
    fn wants_line(&self) -> bool {
        self.lines.len() < LINES_MAX && self.lines.iter().all(|line| line.stage != Stage::Wanted)
    }
}

impl Line {
    fn is_stable(&self, now: Time) -> bool {
        self.live_since.is_some_and(|since| now.since(since) >= STABLE_AFTER)
    }
}

/// A part of `whole` that depends on `number` alone.
fn share(whole: Duration, number: u64) -> Duration {
    whole * u32::try_from(mixed(number) % 1_001).unwrap_or(0) / 1_000
}

/// SplitMix64's finaliser: spreads any number over all 64 bits.
const fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        pair: Pair,
        now: Time,
    }

    const SEAT: Seat = Seat(0);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    impl Bench {
        fn new() -> Self {
            let now = Time::from_millis(0);
            Self { pair: Pair::new(now, 7, 1), now }
        }

        fn commands(&mut self) -> Vec<Command> {
            std::iter::from_fn(|| self.pair.poll(self.now)).collect()
        }

        /// Two live and stable connections, 7 and 8.
        fn live() -> Self {
            let mut bench = Self::new();
            bench.commands();
            for connection in [7, 8] {
                bench.pair.handle_live(bench.now, Connection(connection), SEAT);
            }
            bench.now = bench.now + seconds(60);
            bench
        }

        /// Moves to the next attempt, at most `within`.
        fn next(&mut self, within: Duration) -> Vec<Command> {
            let due = self.pair.poll_timeout().expect("something is due");
            assert!(due.since(self.now) <= within, "due in {:?}", due.since(self.now));
            self.now = due.max(self.now);
            self.commands()
        }
    }

    fn open(connection: u64, slot: usize) -> Command {
        Command::Open { connection: Connection(connection), slot }
    }

    fn retire(connection: u64) -> Command {
        Command::Retire { connection: Connection(connection) }
    }

    #[test]
    fn opens_two_and_then_rests() {
        let mut bench = Bench::new();
        assert_eq!(bench.commands(), [open(7, 0), open(8, 1)]);
        assert_eq!(bench.pair.poll_timeout(), None);
        bench.now = bench.now + seconds(100_000);
        assert_eq!(bench.commands(), []);
    }

    #[test]
    fn makes_before_it_breaks() {
        let mut bench = Bench::live();
        bench.pair.handle_replace(bench.now, Connection(7));
        assert_eq!(bench.next(JITTER), [open(9, 0)]);
        bench.pair.handle_ended(bench.now, Connection(9));
        assert_eq!(bench.commands(), [], "the old one goes on while the new one fails");
        assert_eq!(bench.next(BACKOFF_FIRST), [open(10, 0)]);
        bench.pair.handle_live(bench.now, Connection(10), SEAT);
        assert_eq!(bench.commands(), [retire(7)]);
        bench.pair.handle_lost(Connection(7), SEAT);
        bench.pair.handle_ended(bench.now, Connection(7));
        assert_eq!(bench.commands(), []);
        assert_eq!(bench.pair.poll_timeout(), None);
    }

    #[test]
    fn keeps_the_old_one_while_it_carries_more() {
        let mut bench = Bench::live();
        bench.pair.handle_live(bench.now, Connection(7), Seat(1));
        bench.pair.handle_replace(bench.now, Connection(7));
        assert_eq!(bench.next(JITTER), [open(9, 0)]);
        bench.pair.handle_live(bench.now, Connection(9), SEAT);
        assert_eq!(bench.commands(), [], "account 1 is not on the new one");
        bench.pair.handle_live(bench.now, Connection(9), Seat(1));
        assert_eq!(bench.commands(), [retire(7)]);
    }

    #[test]
    fn both_can_be_replaced_at_once_and_a_replacement_can_be_replaced() {
        let mut bench = Bench::live();
        bench.pair.handle_replace(bench.now, Connection(7));
        bench.pair.handle_replace(bench.now, Connection(8));
        bench.now = bench.now + JITTER;
        assert_eq!(bench.commands(), [open(9, 0), open(10, 1)]);
        bench.pair.handle_replace(bench.now, Connection(9));
        assert_eq!(bench.next(BACKOFF_FIRST), [open(11, 0)]);
        bench.pair.handle_replace(bench.now, Connection(11));
        assert_eq!(bench.pair.poll_timeout(), None, "three in one slot are enough");
        for connection in [10, 11] {
            bench.pair.handle_live(bench.now, Connection(connection), SEAT);
        }
        assert_eq!(bench.commands(), [retire(8)]);
    }

    #[test]
    fn reconnects_at_once_then_ever_more_slowly_then_afresh() {
        let mut bench = Bench::live();
        bench.pair.handle_ended(bench.now, Connection(7));
        assert_eq!(bench.next(JITTER), [open(9, 0)]);
        let mut number = 9;
        let mut waits = Vec::new();
        for _ in 0..10 {
            bench.pair.handle_ended(bench.now, Connection(number));
            waits.push(bench.pair.poll_timeout().unwrap().since(bench.now));
            number += 1;
            assert_eq!(bench.next(BACKOFF_MAX), [open(number, 0)]);
        }
        for (failures, wait) in waits.iter().enumerate() {
            let full = BACKOFF_FIRST.saturating_mul(1 << failures).min(BACKOFF_MAX);
            assert!(*wait >= full / 2 && *wait <= full, "{failures}: {wait:?}");
        }
        bench.pair.handle_live(bench.now, Connection(number), SEAT);
        bench.now = bench.now + STABLE_AFTER;
        bench.pair.handle_ended(bench.now, Connection(number));
        assert_eq!(bench.next(JITTER), [open(number + 1, 0)]);
    }

    #[test]
    fn attempts_stay_inside_the_budget_whatever_happens() {
        let mut bench = Bench::new();
        let mut opened = Vec::new();
        let end = bench.now + seconds(3_600);
        // Each connection goes live and ends at once after the time that counts as stable: no backoff applies.
        while bench.now < end {
            for command in bench.commands() {
                let Command::Open { connection, .. } = command else { continue };
                opened.push(bench.now);
                let long_ago = bench.now - STABLE_AFTER;
                bench.pair.handle_live(long_ago, connection, SEAT);
                bench.pair.handle_ended(bench.now, connection);
            }
            bench.now = bench.pair.poll_timeout().expect("it tries again").max(bench.now + Duration::from_millis(1));
        }
        for (place, at) in opened.iter().enumerate().skip(ATTEMPTS_MAX) {
            assert!(at.since(opened[place - ATTEMPTS_MAX]) >= ATTEMPTS_WINDOW);
        }
        assert!(opened.len() > 1_000);
    }

    #[test]
    fn a_hold_keeps_it_from_knocking() {
        let mut bench = Bench::live();
        bench.pair.handle_hold(bench.now + seconds(90));
        bench.pair.handle_hold(bench.now + seconds(5));
        bench.pair.handle_ended(bench.now, Connection(8));
        assert_eq!(bench.pair.poll_timeout(), Some(bench.now + seconds(90)));
        bench.now = bench.now + seconds(89);
        assert_eq!(bench.commands(), []);
        assert_eq!(bench.next(seconds(1)), [open(9, 1)]);
    }

    #[test]
    fn jitter_comes_from_the_seed_alone() {
        let waits = |seed| {
            let mut pair = Pair::new(Time::EPOCH, 1, seed);
            while pair.poll(Time::EPOCH).is_some() {}
            pair.handle_ended(Time::EPOCH, Connection(1));
            pair.poll_timeout()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}
