//! What a step let happen leaves once its cause is on disk, or when it has waited for too long.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kernel::act::Act;
use crate::kernel::channel::Post;
use crate::kernel::event::{EffectId, Event, Fault, ReadRequest};
use crate::kernel::incident::Notice;
use crate::kernel::intent::IntentReply;
use crate::kernel::order::Bot;
use crate::kernel::time::Time;
use crate::simulate::emergency::Intrusion;
use crate::simulate::process::Inside;
use crate::simulate::process::intake::Asker;
use crate::simulate::world::World;

/// As the release has them.
pub(super) const ACTS_WITHIN: Duration = Duration::from_millis(5);
pub(super) const ALERTS_WITHIN: Duration = Duration::from_millis(250);
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(3);
/// Once the end has been told, the thief may come back within this.
const BACK_WITHIN_MS: (u32, u32) = (2_000, 15_000);

/// What one step let happen, and the last row it must be on disk with.
pub(super) struct Batch {
    pub(super) seq: u64,
    pub(super) since: Time,
    pub(super) outgoing: Vec<Outgoing>,
}

impl Batch {
    pub(super) fn acts(&self) -> bool {
        self.outgoing.iter().any(|outgoing| matches!(outgoing, Outgoing::Act(..)))
    }

    /// What waits no longer; an act leaves its name behind.
    fn overdue(&mut self, now: Time) -> Vec<Outgoing> {
        let since = self.since;
        let over = |outgoing: &Outgoing| outgoing.waits().is_some_and(|waits| since + waits <= now);
        let (late, mut still): (Vec<Outgoing>, Vec<Outgoing>) =
            std::mem::take(&mut self.outgoing).into_iter().partition(over);
        still.extend(late.iter().filter_map(|outgoing| match outgoing {
            Outgoing::Act(effect, _) => Some(Outgoing::Left(*effect)),
            _ => None,
        }));
        self.outgoing = still;
        late
    }
}

pub(super) enum Outgoing {
    Reply(Asker, IntentReply),
    Read(EffectId, ReadRequest),
    Post(EffectId, Post),
    Show(Box<Notice>),
    Act(EffectId, Act),
    /// An act of this effect has left before it was on disk.
    Left(EffectId),
    Board(BTreeMap<Bot, u64>),
}

impl Outgoing {
    /// How long it waits for a stalled disk, if not for ever.
    const fn waits(&self) -> Option<Duration> {
        match self {
            Self::Act(..) => Some(ACTS_WITHIN),
            Self::Post(..) | Self::Read(..) | Self::Show(_) | Self::Left(_) => Some(ALERTS_WITHIN),
            Self::Reply(..) | Self::Board(_) => None,
        }
    }
}

/// The disk, and what waits for it.
impl World {
    pub(super) fn sync(&mut self) {
        if self.disk.begin_sync() {
            let takes = self.draw(self.script.weather.sync);
            let stalled = self.troubles.disk.filter(|until| *until > self.now);
            let done = self.now + takes;
            self.inside_at(stalled.map_or(done, |until| until + takes), Inside::Synced);
        }
    }

    pub(super) fn let_out_synced(&mut self) {
        let on_disk = self.disk.last_synced();
        let mut leaving = Vec::new();
        if let Some(process) = &mut self.process {
            while let Some(batch) = process.waiting.pop_front_if(|batch| batch.seq <= on_disk) {
                leaving.extend(batch.outgoing);
            }
            process.told &= !process.waiting.is_empty();
        }
        leaving.into_iter().for_each(|outgoing| self.let_out(outgoing));
    }

    /// Acts, alerts and reads do not wait for a stalled disk for ever.
    pub(super) fn let_out_late(&mut self) {
        let now = self.now;
        let Some(process) = &mut self.process else { return };
        let (mut leaving, mut alert) = (Vec::new(), None);
        for outgoing in process.waiting.iter_mut().flat_map(|batch| batch.overdue(now)) {
            match outgoing {
                Outgoing::Post(effect, post) => {
                    alert = Some(effect);
                    leaving.push(Outgoing::Post(effect, post.unjournalled()));
                }
                Outgoing::Left(effect) => alert = Some(effect),
                other => leaving.push(other),
            }
        }
        let stalled = process.waiting.front().filter(|batch| batch.since + STALLED_AFTER <= now);
        let fault = match (alert, stalled) {
            _ if process.told => None,
            (Some(effect), _) => Some(Fault::Unjournalled { effect }),
            (None, Some(batch)) => {
                let for_ms = u64::try_from(now.since(batch.since).as_millis()).unwrap_or(u64::MAX);
                Some(Fault::DiskStalled { for_ms })
            }
            (None, None) => None,
        };
        process.told |= fault.is_some();
        leaving.into_iter().for_each(|outgoing| self.let_out(outgoing));
        if let Some(fault) = fault {
            self.step_account(Event::Fault(fault));
        }
    }

    fn let_out(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Reply(asker, reply) => {
                if reply.answer.is_ok() {
                    self.witness.acknowledged(&self.bots[asker.bot].name, reply.seq);
                }
                self.answer(&asker, &reply);
            }
            Outgoing::Read(effect, request) => {
                let at = self.now + self.draw(self.script.weather.request);
                self.inside_at(at, Inside::Asked(effect, request));
            }
            Outgoing::Post(effect, post) => {
                let at = self.now + self.draw((20, 400));
                self.inside_at(at, Inside::Posting(effect, post));
            }
            Outgoing::Show(notice) => {
                self.witness.shown(self.now, &notice);
                if self.witness.is_over() {
                    self.may_intrude(Intrusion::After, BACK_WITHIN_MS);
                }
            }
            Outgoing::Act(effect, act) => self.send_act(effect, act),
            Outgoing::Left(_) => {}
            Outgoing::Board(board) => {
                if let Some(process) = &mut self.process {
                    process.board = board;
                }
            }
        }
    }
}
