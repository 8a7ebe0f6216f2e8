//! Acting without being told: what has to hold first, and what never leads to it.
//!
//! Mode *act* needs the stranger's order on the stream and the same order read by REST, and the bot's own word shown to
//! be getting through. It never acts while it cannot see, on a failed read, after a jump of the clock, or on the first
//! day. A cooldown and a daily maximum bound the kills; a freeze, which can be taken back, is not bounded.
//! In fund mode one person's *not me* leads to a freeze alone: that the order is a stranger's rests on his word.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::account::{Kernel, Purpose, Timer};
use crate::kernel::blotter::OrderKey;
use crate::kernel::claim::ClaimStanding;
use crate::kernel::containment::Aim;
use crate::kernel::event::ReadOutcome;
use crate::kernel::incident::{IncidentId, IncidentState, Priority};
use crate::kernel::rule::{Cause, Response};
use crate::kernel::stopping::{Mode, Stopping};
use crate::kernel::time::Time;
use crate::kernel::verdict::{Assurance, Verdict};

const FIRST_DAY: Duration = Duration::from_secs(86_400);
const AFTER_JUMP: Duration = Duration::from_secs(600);
const COOLDOWN: Duration = Duration::from_secs(3_600);
const KILLS_A_DAY: usize = 3;
/// A tag of the bot's that verified this lately shows that its key is the right one.
const TAG_WITHIN: Duration = Duration::from_secs(300);
const BAD_TAGS: &str = "no tag of your bot has verified for some minutes: is its tag key the right one?";
const USED_UP: &[&str] = &[
    "Somebody may have used its kills up with small thefts: look at each, and `countersign kill` if the key is stolen.",
];
const ONE_WORD: &str =
    "one person said \"not me\", and a kill takes another's word here: it is frozen, countersign kill asks for more";
const BY_ITSELF: &str = "countersign, by itself";

/// What acting alone rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alone {
    /// The kills of the last day that nobody asked for.
    kills: VecDeque<Time>,
    jumped_at: Option<Time>,
    tag_seen_at: Option<Time>,
}

impl Kernel {
    /// A finding was told whose rule asks for more than that.
    pub(super) fn respond(&mut self, response: Response, incident: IncidentId, order: Option<&OrderKey>) {
        let Some(stopping) = &self.declared.stopping else { return };
        let (mode, unanswered) = (stopping.mode, stopping.freeze_unanswered);
        if mode != Mode::Watch && matches!(response, Response::Ask | Response::Contain) {
            self.show_disarmed(incident);
        }
        match (mode, response, order) {
            // The wait goes on, so that arming it gives the owner's bounds back.
            (Mode::Act, Response::Contain, Some(_)) if self.is_disarmed() => self.wait_for_answer(incident, unanswered),
            (Mode::Watch, ..) | (_, Response::None | Response::Notify, _) => {}
            (Mode::Act, Response::Contain, Some(key)) => match self.may_act(key) {
                Ok(()) => self.corroborate(key.clone(), incident),
                Err(why) => self.leave_to_owner(incident, &why),
            },
            (Mode::Ask | Mode::Act, Response::Ask | Response::Contain, _) => self.wait_for_answer(incident, unanswered),
        }
    }

    fn leave_to_owner(&mut self, incident: IncidentId, why: &str) {
        let now = self.now();
        self.state.book.add_line(now, incident, format!("not killed by countersign itself: {why}"));
        // A bot whose tags are all bad is asked about, and never stopped for it.
        if why != BAD_TAGS {
            self.wait_for_answer(incident, self.freeze_unanswered());
        }
    }

    fn wait_for_answer(&mut self, incident: IncidentId, within: Option<Duration>) {
        let waits = |(_, timer): &(Time, Timer)| *timer == Timer::Unanswered(incident);
        if let Some(within) = within
            && !self.is_containing()
            && !self.state.timers.iter().any(waits)
        {
            self.set_timer(within, Timer::Unanswered(incident));
        }
    }

    /// Nobody acknowledged it and nobody acted: what can be taken back is done. What never leads to acting holds here as
    /// well, and then the wait begins anew.
    pub(super) fn unanswered(&mut self, incident: IncidentId) {
        if self.state.book.state_of(incident) != Some(IncidentState::Open) || self.is_containing() {
            return;
        }
        let sees = self.state.coverage.connections() > 0;
        let may = sees && !self.is_disarmed() && (!self.is_in_act_mode() || self.may_act_at_all().is_ok());
        if may {
            self.contain_alone(Aim::Freeze, incident);
        } else {
            self.wait_for_answer(incident, self.freeze_unanswered());
        }
    }

    fn freeze_unanswered(&self) -> Option<Duration> {
        self.declared.stopping.as_ref().and_then(|stopping| stopping.freeze_unanswered)
    }

    /// While the process was down nobody could answer.
    pub(super) fn wait_for_answers_again(&mut self) {
        let unanswered = |(_, timer): &(Time, Timer)| matches!(timer, Timer::Unanswered(_));
        let waiting: Vec<(Time, Timer)> = self.state.timers.extract_if(.., unanswered).collect();
        let within = self.freeze_unanswered();
        for (_, timer) in waiting {
            if let Timer::Unanswered(incident) = timer {
                self.wait_for_answer(incident, within);
            }
        }
    }

    pub(super) fn corroborate(&mut self, key: OrderKey, incident: IncidentId) {
        self.ask(Self::order_request(&key), Purpose::Corroborate(key, incident));
    }

    /// The read that was to show the stranger's order a second time has come back.
    pub(super) fn corroborated(&mut self, key: &OrderKey, incident: IncidentId, outcome: &ReadOutcome) {
        if self.is_containing() {
            return;
        }
        let shown = match outcome {
            ReadOutcome::Order(order) => order.order_id == key.1 && order.symbol == key.0,
            ReadOutcome::NotFound
            | ReadOutcome::Unknown { .. }
            | ReadOutcome::OpenOrders(_)
            | ReadOutcome::Balances(_) => false,
        };
        if !shown {
            return self.leave_to_owner(incident, "a read of the exchange did not show the order as well");
        }
        // Much can have happened meanwhile: the bot's late word, above all.
        match self.may_act(key) {
            // The order was its owners' until one person said that it was not.
            Ok(()) if self.declared.people.two_people && self.is_disowned(key) => {
                self.state.book.add_line(self.state.now.at, incident, ONE_WORD.to_owned());
                self.contain_alone(Aim::Freeze, incident);
            }
            Ok(()) => self.kill_within_bounds(incident),
            Err(why) => self.leave_to_owner(incident, &why),
        }
    }

    fn kill_within_bounds(&mut self, incident: IncidentId) {
        let now = self.now();
        let kills = &mut self.state.stop.alone.kills;
        while kills.front().is_some_and(|at| now.since(*at) >= FIRST_DAY) {
            kills.pop_front();
        }
        let cooling = kills.back().is_some_and(|at| now.since(*at) < COOLDOWN);
        let kills = kills.len();
        if kills >= KILLS_A_DAY || cooling {
            let line = "killed often enough by countersign itself: it is frozen, and the rest is yours to decide";
            self.state.book.add_line(now, incident, line.to_owned());
            let told =
                format!("incident {incident}: {} kills in the last day were its own; a freeze has no bound", kills);
            let headline = "countersign has killed as often as it may by itself for now: it only freezes";
            self.built_in("kills_used_up", Cause::Watcher, "kills", Priority::Critical, headline, told, USED_UP);
            return self.contain_alone(Aim::Freeze, incident);
        }
        self.state.stop.alone.kills.push_back(now);
        self.contain_alone(Aim::Kill, incident);
    }

    fn is_disowned(&self, key: &OrderKey) -> bool {
        let claimed = self.state.blotter.orders.get(key).and_then(|order| order.claimed.as_ref());
        claimed.is_some_and(|claimed| claimed.standing == ClaimStanding::Disowned)
    }

    fn contain_alone(&mut self, aim: Aim, incident: IncidentId) {
        let now = self.now();
        if let Err(why) = self.contain(aim, BY_ITSELF, Some(incident)) {
            self.state.book.add_line(now, incident, format!("countersign could not act by itself: {why}"));
        }
    }

    /// What holds for the account, whatever the order.
    fn may_act_at_all(&self) -> Result<(), String> {
        let now = self.now();
        let coverage = &self.state.coverage;
        if let Some(disarmed) = self.disarmed_told() {
            return Err(disarmed);
        }
        if coverage.connections() == 0 {
            return Err("the account cannot be seen now".to_owned());
        }
        if coverage.first_live.is_none_or(|first| now.since(first) < FIRST_DAY) {
            return Err("this is countersign's first day on the account".to_owned());
        }
        if self.state.stop.alone.jumped_at.is_some_and(|at| now.since(at) < AFTER_JUMP) {
            return Err("this machine's clock jumped a short while ago".to_owned());
        }
        Ok(())
    }

    fn may_act(&self, key: &OrderKey) -> Result<(), String> {
        let now = self.now();
        let Some(order) = self.state.blotter.orders.get(key).filter(|order| order.verdict.is_stranger()) else {
            return Err("the order is no stranger's any more".to_owned());
        };
        self.may_act_at_all()?;
        let tags_hold = self.state.stop.alone.tag_seen_at.is_some_and(|at| now.since(at) < TAG_WITHIN);
        let spoke_since = self.state.bots.have_passed(order.first_seen);
        let by_tag = matches!(order.verdict, Verdict::Forged | Verdict::Unissued | Verdict::Unlogged);
        if by_tag && !tags_hold {
            // If every tag of a bot turns bad at once, its key was changed, not its orders.
            return Err(BAD_TAGS.to_owned());
        }
        // A tag of one bot says nothing of another's untagged word.
        let shown = spoke_since || tags_hold && self.declared.tagged_only;
        if !shown {
            return Err("your bot's word is not shown to be getting through".to_owned());
        }
        Ok(())
    }

    pub(super) fn note_jump(&mut self) {
        if self.acts_alone() {
            self.state.stop.alone.jumped_at = Some(self.now());
        }
    }

    pub(super) fn note_match(&mut self, assurance: Option<Assurance>) {
        if assurance == Some(Assurance::Countersigned) && self.acts_alone() {
            self.state.stop.alone.tag_seen_at = Some(self.now());
        }
    }

    fn is_in_act_mode(&self) -> bool {
        self.declared.stopping.as_ref().is_some_and(|stopping| stopping.mode == Mode::Act)
    }

    pub(super) fn acts_alone(&self) -> bool {
        let alone = |stopping: &Stopping| stopping.mode == Mode::Act || stopping.freeze_unanswered.is_some();
        self.declared.stopping.as_ref().is_some_and(alone)
    }
}
