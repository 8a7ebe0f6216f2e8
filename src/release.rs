//! Lets effects out once their cause is on disk. It chooses nothing: which effect goes where was decided before.
//!
//! A stalled disk is not an error, so acts and alerts have deadlines: after theirs acts leave, and alerts leave marked
//! *unjournalled*; a disk that is that late is a finding. An intent's acknowledgement has none: it waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::board::{Board, Pulse};
use crate::drill::Hops;
use crate::kernel::act::Act;
use crate::kernel::channel::Post;
use crate::kernel::event::{Answer, EffectId, Fault, ReadRequest};
use crate::kernel::incident::Notice;
use crate::kernel::intent::IntentReply;
use crate::kernel::order::Account;

/// How long an act of a containment waits for the disk: hardly.
const ACTS_WITHIN: Duration = Duration::from_millis(5);
/// How long an alert waits for the disk.
const ALERTS_WITHIN: Duration = Duration::from_millis(250);
/// A disk that takes nothing for this long is told, even if no alert waits for it.
const STALLED_AFTER: Duration = Duration::from_secs(3);
/// Batches waiting for the disk; the journal's own queue is the narrower one.
pub const WAITING_MAX: usize = 65_536;

/// What one step of the core let happen, and the last row it must be on disk with.
pub struct Batch {
    pub seq: u64,
    pub outgoing: Vec<Outgoing>,
}

pub enum Outgoing {
    Reply(oneshot::Sender<IntentReply>, IntentReply),
    Answer(oneshot::Sender<Answer>, Answer),
    Tell(oneshot::Sender<serde_json::Value>, serde_json::Value),
    /// The answer to a command of a containment, whose acts do not wait either.
    Obey(oneshot::Sender<serde_json::Value>, serde_json::Value),
    Read(EffectId, ReadRequest),
    Act(EffectId, Act),
    /// An act of this effect has left before it was on disk.
    Left(EffectId),
    Post(EffectId, Post),
    /// For a screen that shows every change of an incident at once.
    Show(Box<Notice>),
    Pulse(Account, Pulse),
    /// The row of a drill is on disk.
    Drilled,
}

impl Outgoing {
    /// How long it waits for a stalled disk, if not for ever.
    const fn waits(&self) -> Option<Duration> {
        match self {
            // A sale is no emergency, and after a crash its fill must be known for ours.
            Self::Act(_, Act::Sell { .. }) => None,
            Self::Act(..) => Some(ACTS_WITHIN),
            // The reads are those that verdicts wait for.
            Self::Post(..) | Self::Read(..) | Self::Show(_) | Self::Obey(..) | Self::Left(_) => Some(ALERTS_WITHIN),
            Self::Reply(..) | Self::Answer(..) | Self::Tell(..) | Self::Pulse(..) | Self::Drilled => None,
        }
    }
}

/// The queues that lead out.
pub struct Exits {
    pub reads: mpsc::Sender<(EffectId, ReadRequest)>,
    pub acts: mpsc::Sender<(EffectId, Act)>,
    pub telegram: mpsc::Sender<(EffectId, Post)>,
    pub webhook: mpsc::Sender<(EffectId, Post)>,
    pub screen: Option<mpsc::Sender<Box<Notice>>>,
    pub board: Arc<Board>,
    pub hops: Arc<Hops>,
    pub faults: mpsc::Sender<Fault>,
}

/// Runs until the core is gone and everything that is on disk has left.
pub async fn run(mut batches: mpsc::Receiver<Batch>, mut committed: watch::Receiver<u64>, exits: Exits) {
    let mut waiting = Waiting::default();
    let mut core_is_gone = false;
    loop {
        waiting.let_out(*committed.borrow_and_update(), &exits);
        if core_is_gone && waiting.batches.is_empty() {
            return;
        }
        let deadline = waiting.deadline();
        tokio::select! {
            biased;
            changed = committed.changed(), if !waiting.batches.is_empty() => {
                if changed.is_err() && waiting.batches.front().is_some_and(|(batch, _)| batch.seq > *committed.borrow()) {
                    return tracing::error!("The journal's writer ended before everything was on disk.");
                }
            }
            batch = batches.recv(), if !core_is_gone && waiting.batches.len() < WAITING_MAX => match batch {
                Some(batch) => waiting.batches.push_back((batch, Instant::now())),
                None => core_is_gone = true,
            },
            () = sleep_until(deadline), if deadline.is_some() => waiting.let_out_late(&exits),
        }
    }
}

/// What is not on disk yet, oldest first, with the time since when it waits.
#[derive(Default)]
struct Waiting {
    batches: VecDeque<(Batch, Instant)>,
    /// How many at the front have let their acts, and their alerts, out already.
    acts_overdue: usize,
    overdue: usize,
    /// The disk is behind, and that has been told: once a stall, or the telling would itself be late and be told.
    told: bool,
}

impl Waiting {
    fn let_out(&mut self, on_disk: u64, exits: &Exits) {
        while self.batches.front().is_some_and(|(batch, _)| batch.seq <= on_disk) {
            if let Some((batch, _)) = self.batches.pop_front() {
                self.acts_overdue = self.acts_overdue.saturating_sub(1);
                self.overdue = self.overdue.saturating_sub(1);
                batch.outgoing.into_iter().for_each(|outgoing| exits.let_out(outgoing));
            }
        }
        self.told &= !self.batches.is_empty();
    }

    fn deadline(&self) -> Option<Instant> {
        let acts = self.batches.get(self.acts_overdue).map(|(_, since)| *since + ACTS_WITHIN);
        let late = self.batches.get(self.overdue).map(|(_, since)| *since + ALERTS_WITHIN);
        let stalled = self.batches.front().filter(|_| !self.told).map(|(_, since)| *since + STALLED_AFTER);
        [acts, late, stalled].into_iter().flatten().min()
    }

    fn let_out_late(&mut self, exits: &Exits) {
        let now = Instant::now();
        while let Some((batch, since)) = self.batches.get_mut(self.acts_overdue)
            && *since + ACTS_WITHIN <= now
        {
            exits.let_out_late(batch, ACTS_WITHIN);
            self.acts_overdue += 1;
        }
        let mut late_alert = None;
        while let Some((batch, since)) = self.batches.get_mut(self.overdue)
            && *since + ALERTS_WITHIN <= now
        {
            late_alert = exits.let_out_late(batch, ALERTS_WITHIN).or(late_alert);
            self.overdue += 1;
        }
        let stalled = self.batches.front().filter(|(_, since)| *since + STALLED_AFTER <= now);
        let fault = match (late_alert, stalled) {
            _ if self.told => return,
            (Some(effect), _) => Fault::Unjournalled { effect },
            (None, Some((_, since))) => {
                let for_ms = u64::try_from(now.duration_since(*since).as_millis()).unwrap_or(u64::MAX);
                Fault::DiskStalled { for_ms }
            }
            (None, None) => return,
        };
        self.told = exits.faults.try_send(fault).is_ok();
        tracing::error!(waiting = self.batches.len(), "The journal's disk is behind: nothing new is on disk.");
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline).await;
    }
}

impl Exits {
    /// The queues are as long as the kernels let them get (one post a channel, a bounded number of reads), so a full
    /// one means that its outlet has ended, which its supervisor tells.
    fn let_out(&self, outgoing: Outgoing) {
        if let Outgoing::Post(effect, post) = &outgoing {
            self.hops.handed(*effect, post);
        }
        let sent = match outgoing {
            Outgoing::Reply(to, reply) => to.send(reply).is_ok(),
            Outgoing::Answer(to, answer) => to.send(answer).is_ok(),
            Outgoing::Tell(to, value) | Outgoing::Obey(to, value) => to.send(value).is_ok(),
            Outgoing::Read(effect, request) => self.reads.try_send((effect, request)).is_ok(),
            Outgoing::Act(effect, act) => self.acts.try_send((effect, act)).is_ok(),
            Outgoing::Left(_) => true,
            Outgoing::Post(effect, post @ (Post::Telegram(_) | Post::Pressed(_))) => {
                self.telegram.try_send((effect, post)).is_ok()
            }
            Outgoing::Post(effect, post @ Post::Webhook(_)) => self.webhook.try_send((effect, post)).is_ok(),
            Outgoing::Show(notice) => self.screen.as_ref().is_none_or(|screen| screen.try_send(notice).is_ok()),
            Outgoing::Pulse(account, pulse) => {
                self.board.post(&account, pulse);
                true
            }
            Outgoing::Drilled => {
                self.hops.on_disk();
                true
            }
        };
        if !sent {
            tracing::warn!("An effect found nobody to take it: its outlet has ended, or whoever asked has left.");
        }
    }

    /// Lets out what waits no longer than this; returns the act or alert among it that an alert's time was too short for.
    fn let_out_late(&self, batch: &mut Batch, within: Duration) -> Option<EffectId> {
        let waits_no_longer = |outgoing: &Outgoing| outgoing.waits().is_some_and(|waits| waits <= within);
        let (late, still): (Vec<_>, Vec<_>) =
            std::mem::take(&mut batch.outgoing).into_iter().partition(waits_no_longer);
        batch.outgoing = still;
        let mut alert = None;
        for outgoing in late {
            self.let_out(match outgoing {
                Outgoing::Act(effect, act) => {
                    batch.outgoing.push(Outgoing::Left(effect));
                    Outgoing::Act(effect, act)
                }
                Outgoing::Left(effect) => {
                    alert = Some(effect);
                    continue;
                }
                Outgoing::Post(effect, post) => {
                    alert = Some(effect);
                    Outgoing::Post(effect, post.unjournalled())
                }
                other => other,
            });
        }
        alert
    }
}
