//! Between the account and what its owner sells: the orders are announced here like a bot's, each under its own id and
//! with its own terms, before they are sent, so that they are nobody else's when the stream shows them.

use std::time::Duration;

use crate::kernel::account::Kernel;
use crate::kernel::account::Timer;
use crate::kernel::act::{Act, ActOutcome};
use crate::kernel::blotter::{Announced, Intent, IntentKey, Settled};
use crate::kernel::event::EffectId;
use crate::kernel::flatten::{Flatten, LegState, Stage};
use crate::kernel::incident::{Priority, SALE_RULE};
use crate::kernel::money::Dec;
use crate::kernel::order::{Asset, Bot};
use crate::kernel::rule::Cause;
use crate::kernel::stopping::KeyRole;
use crate::kernel::time::Time;

/// No bot can be configured under this name.
const SELLER: &str = "_countersign";
/// More of the price than this is given away by no command.
const WITHIN_PERCENT_MAX: u32 = 10;
/// A plan reads much, and what it reads costs request weight that a kill may need: a new one only after this.
const PLAN_EVERY: Duration = Duration::from_secs(30);

const TOLD: &[&str] =
    &["If that was not you: somebody has your one-time passwords. Freeze the account, and change them."];

impl Kernel {
    /// What is being sold at its owner's word, or was last.
    pub fn flattening(&self) -> Option<&Flatten> {
        self.state.stop.flatten.as_deref()
    }

    /// Only reads, and shows what would be sold.
    pub(super) fn plan_flatten(&mut self, to: &Asset, within: Dec, by: &str) -> Result<(), String> {
        let stopping = self.may_stop()?;
        if !stopping.keys.iter().any(|key| key.role == KeyRole::Cancel) {
            return Err("there is no cancel_key, which sells as well: [containment] in countersign.toml".to_owned());
        }
        let percent = Dec::from(100).checked_mul(within);
        if !within.is_positive() || percent.is_none_or(|percent| percent > Dec::from(WITHIN_PERCENT_MAX)) {
            return Err(format!("--within is more than 0 and at most {WITHIN_PERCENT_MAX} %"));
        }
        if self.flattening().is_some_and(Flatten::is_running) {
            return Err("something is being sold already: wait for its end".to_owned());
        }
        self.may_sell()?;
        let now = self.now();
        if let Some(last) = self.flattening().filter(|last| now < last.asked_at + PLAN_EVERY) {
            // It stands, and says what a new one would.
            if last.stage == Stage::Planned && (&last.to, last.within) == (to, within) {
                return Ok(());
            }
            let wait = (last.asked_at + PLAN_EVERY).since(now).as_secs() + 1;
            return Err(format!("a plan was asked for just now: ask for another one in {wait} s"));
        }
        let waits = |last: &Flatten| Some((self.request_to_sell(last.asked_at)?, last.counts_until(now)?));
        if let Some((request, until)) = self.flattening().and_then(waits) {
            return Err(format!(
                "request {request} waits for another person's yes to the plan that stands: approve or decline it, or ask \
                 for a new plan after {until} UTC"
            ));
        }
        self.state.stop.flatten = Some(Box::new(Flatten::new(now, to.clone(), within, by)));
        Ok(())
    }

    /// What a sale asks for, an emergency needs.
    fn may_sell(&self) -> Result<(), String> {
        if self.is_containing() {
            return Err(
                "the account is being contained, which needs the requests: nothing is planned or sold meanwhile"
                    .to_owned(),
            );
        }
        Ok(())
    }

    pub(super) fn may_flatten(&self, plan: Time) -> Result<(), String> {
        self.may_sell()?;
        let flatten = self.flattening().ok_or("no plan was asked for")?;
        flatten.may_confirm(self.now(), plan).map_err(str::to_owned)
    }

    /// What a yes to the plan that was asked for then would sell.
    pub(super) fn plan_told(&self, plan: Time) -> String {
        let told = self.flattening().and_then(|flatten| flatten.told(plan));
        told.unwrap_or_else(|| "that plan no longer stands".to_owned())
    }

    pub(super) fn flatten_now(&mut self, plan: Time, by: &str) -> Result<(), String> {
        self.may_sell()?;
        let now = self.now();
        let Some(flatten) = &mut self.state.stop.flatten else { return Err("no plan was asked for".to_owned()) };
        flatten.confirm(now, plan)?;
        let line = format!("asked for by {by}, with a one-time password: what is free goes to {}", flatten.to);
        let headline = "countersign sells at its owner's word";
        self.built_in(SALE_RULE, Cause::Containment, "flatten", Priority::Warning, headline, line, TOLD);
        Ok(())
    }

    /// Whether an act's outcome belongs here.
    pub(super) fn flatten_acted(&mut self, effect: EffectId, outcome: &ActOutcome) -> bool {
        let now = self.now();
        let Some(flatten) = &mut self.state.stop.flatten else { return false };
        let Some(asset) = flatten.asked(effect).cloned() else { return false };
        flatten.handle_outcome(now, effect, outcome);
        let not_placed = flatten.stage != Stage::ReadingPrices
            && flatten.legs.get(&asset).is_some_and(|leg| matches!(leg.state, LegState::Stays { .. }));
        if not_placed {
            let key = intent_key(flatten, &asset);
            self.state.blotter.settle(&key, Settled::Rejected);
        }
        self.tell_sold();
        true
    }

    /// After every event: the next acts, the next timer, and its end.
    pub(super) fn drive_flatten(&mut self) {
        let now = self.now();
        // A copy, so that a fault in here loses nothing that was sent.
        let running = self.state.stop.flatten.clone().filter(|flatten| flatten.is_running());
        let Some(mut flatten) = running else { return };
        flatten.cut_off_overdue(now);
        if self.is_containing() {
            flatten.give_way();
        }
        flatten.settle(now);
        for (asset, act) in flatten.next(now) {
            if matches!(act, Act::Sell { .. }) && !self.announce_sale(&flatten, &asset) {
                flatten.leave(&asset, "more intents are open than can be followed");
                continue;
            }
            let effect = self.act(act);
            flatten.sent(now, effect, asset);
        }
        self.state.timers.retain(|(_, timer)| *timer != Timer::Flatten);
        if let Some(due) = flatten.due() {
            self.state.timers.insert((due.max(now), Timer::Flatten));
        }
        flatten.settle(now);
        self.state.stop.flatten = Some(flatten);
        self.tell_sold();
    }

    /// Its incident ends with what was sold and what was not.
    fn tell_sold(&mut self) {
        let now = self.now();
        let Some(sale) = self.flattening().map(Flatten::sale).filter(|sale| sale.stage == Stage::Done) else { return };
        for line in sale.lines {
            self.state.book.note(now, Cause::Containment, "flatten", line);
        }
        self.state.book.end(now, Cause::Containment, "flatten", "done".to_owned());
    }

    fn announce_sale(&mut self, flatten: &Flatten, asset: &Asset) -> bool {
        let Some(LegState::Offered(offer)) = flatten.legs.get(asset).map(|leg| &leg.state) else { return false };
        let terms = Box::new(flatten.terms(asset, offer));
        let key = intent_key(flatten, asset);
        if !self.state.blotter.make_room(1) {
            return false;
        }
        self.state.blotter.register(
            key.clone(),
            Intent::new(self.now(), None, self.now(), Announced::Place { terms, amended: Vec::new() }),
        );
        self.set_timer(self.declared.waits.unseen_after, Timer::Mirror(key));
        true
    }

    pub(super) fn restart_flatten(&mut self) {
        let now = self.now();
        if let Some(flatten) = self.state.stop.flatten.as_mut().filter(|flatten| flatten.stage == Stage::Selling) {
            flatten.handle_restart(now);
            return self.tell_sold();
        }
        if let Some(flatten) = &mut self.state.stop.flatten {
            flatten.handle_restart(now);
        }
    }
}

fn intent_key(flatten: &Flatten, asset: &Asset) -> IntentKey {
    let place = flatten.legs.keys().position(|known| known == asset).unwrap_or_default();
    let seq = u64::try_from(flatten.asked_at.micros()).unwrap_or_default();
    (Bot::new(SELLER), seq, u8::try_from(place).unwrap_or(u8::MAX))
}
