//! Lets effects out once their cause is on disk. It chooses nothing: which effect goes where was decided before.
//!
//! A stalled disk is not an error, so alerts have a deadline: after it they leave marked *unjournalled*, which is a
//! finding. An intent's acknowledgement has none: it waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::board::{Board, Pulse};
use crate::kernel::channel::Post;
use crate::kernel::event::{Answer, EffectId, Fault, ReadRequest};
use crate::kernel::incident::Notice;
use crate::kernel::intent::IntentReply;
use crate::kernel::order::Account;

/// How long an alert waits for the disk.
const ALERTS_WITHIN: Duration = Duration::from_millis(250);
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
    Read(EffectId, ReadRequest),
    Post(EffectId, Post),
    /// For a screen that shows every change of an incident at once.
    Show(Box<Notice>),
    Pulse(Account, Pulse),
}

impl Outgoing {
    /// Alerts, and the reads that verdicts wait for, do not wait for a stalled disk for ever.
    const fn has_deadline(&self) -> bool {
        match self {
            Self::Post(..) | Self::Read(..) | Self::Show(_) => true,
            Self::Reply(..) | Self::Answer(..) | Self::Tell(..) | Self::Pulse(..) => false,
        }
    }
}

/// The queues that lead out.
pub struct Exits {
    pub reads: mpsc::Sender<(EffectId, ReadRequest)>,
    pub telegram: mpsc::Sender<(EffectId, Post)>,
    pub webhook: mpsc::Sender<(EffectId, Post)>,
    pub screen: Option<mpsc::Sender<Box<Notice>>>,
    pub board: Arc<Board>,
    pub faults: mpsc::Sender<Fault>,
}

/// Runs until the core is gone and everything that is on disk has left.
pub async fn run(mut batches: mpsc::Receiver<Batch>, mut committed: watch::Receiver<u64>, exits: Exits) {
    let mut waiting: VecDeque<(Batch, Instant)> = VecDeque::new();
    // How many at the front have let their alerts out already.
    let mut overdue: usize = 0;
    // One finding for one stall: its own alert is late as well, and a finding about that would go on for ever.
    let mut stall_is_told = false;
    let mut core_is_gone = false;
    while !(core_is_gone && waiting.is_empty()) {
        let on_disk = *committed.borrow_and_update();
        while waiting.front().is_some_and(|(batch, _)| batch.seq <= on_disk) {
            if let Some((batch, _)) = waiting.pop_front() {
                overdue = overdue.saturating_sub(1);
                batch.outgoing.into_iter().for_each(|outgoing| exits.let_out(outgoing));
            }
        }
        stall_is_told &= overdue > 0;
        let deadline = waiting.get(overdue).map(|(_, deadline)| *deadline);
        tokio::select! {
            biased;
            changed = committed.changed(), if !waiting.is_empty() => {
                if changed.is_err() && *committed.borrow() < waiting.front().map_or(0, |(batch, _)| batch.seq) {
                    return tracing::error!("The journal's writer ended before everything was on disk.");
                }
            }
            batch = batches.recv(), if !core_is_gone && waiting.len() < WAITING_MAX => match batch {
                Some(batch) => waiting.push_back((batch, Instant::now() + ALERTS_WITHIN)),
                None => core_is_gone = true,
            },
            () = sleep_until(deadline), if deadline.is_some() => {
                if let Some((batch, _)) = waiting.get_mut(overdue) {
                    let alert = exits.let_out_late(batch);
                    overdue += 1;
                    if let Some(effect) = alert.filter(|_| !stall_is_told) {
                        stall_is_told = exits.tell_of_stall(effect);
                    }
                }
            }
        }
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
        let sent = match outgoing {
            Outgoing::Reply(to, reply) => to.send(reply).is_ok(),
            Outgoing::Answer(to, answer) => to.send(answer).is_ok(),
            Outgoing::Tell(to, value) => to.send(value).is_ok(),
            Outgoing::Read(effect, request) => self.reads.try_send((effect, request)).is_ok(),
            Outgoing::Post(effect, post @ Post::Telegram(_)) => self.telegram.try_send((effect, post)).is_ok(),
            Outgoing::Post(effect, post @ Post::Webhook(_)) => self.webhook.try_send((effect, post)).is_ok(),
            Outgoing::Show(notice) => self.screen.as_ref().is_none_or(|screen| screen.try_send(notice).is_ok()),
            Outgoing::Pulse(account, pulse) => {
                self.board.post(&account, pulse);
                true
            }
        };
        if !sent {
            tracing::debug!("An effect found nobody to take it.");
        }
    }

    /// Lets out what has a deadline. Gives an alert among it, if there was one.
    fn let_out_late(&self, batch: &mut Batch) -> Option<EffectId> {
        let (late, still): (Vec<_>, Vec<_>) =
            std::mem::take(&mut batch.outgoing).into_iter().partition(Outgoing::has_deadline);
        batch.outgoing = still;
        let mut alert = None;
        for outgoing in late {
            self.let_out(match outgoing {
                Outgoing::Post(effect, post) => {
                    alert = Some(effect);
                    Outgoing::Post(effect, post.unjournalled())
                }
                other => other,
            });
        }
        alert
    }

    fn tell_of_stall(&self, effect: EffectId) -> bool {
        tracing::error!(cause = effect.cause, "An alert left before its cause was on disk.");
        self.faults.try_send(Fault::Unjournalled { effect }).is_ok()
    }
}
