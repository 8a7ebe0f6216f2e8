//! Between the account and its containment: commands in, acts out, how the open orders stand, and what the card says.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::account::alone::Alone;
use crate::kernel::account::authority::Codes;
use crate::kernel::account::rehearsal::Rehearsal;
use crate::kernel::account::{Kernel, Timer};
use crate::kernel::act::{Act, ActOutcome, KeyPrint, ProbeAnswer};
use crate::kernel::blotter::OrderKey;
use crate::kernel::containment::{Aim, Asked, Containment, End, Progress, Standing};
use crate::kernel::event::{Effect, EffectId};
use crate::kernel::flatten::Flatten;
use crate::kernel::incident::{Contained, IncidentId, IncidentState, Priority};
use crate::kernel::order::Bot;
use crate::kernel::pairs;
use crate::kernel::rule::Cause;
use crate::kernel::stopping::{Means, Mode, Stopping};
use crate::kernel::time::Time;
use crate::kernel::verdict::Verdict;

/// What a containment wants at once, and cannot have at once, it gets no sooner: an event is a row.
pub(super) const POLL_GAP: Duration = Duration::from_millis(100);
/// A sign of somebody else at the master's login this long before a kill, or later, keeps the money from the master.
const SIGN_COUNTS_FOR: Duration = Duration::from_secs(86_400);
/// Shown on the card; all of them stand in `countersign containment`.
pub(super) const LINES_ON_CARD: usize = 12;

/// The scope of the incident that says that a bot was not stopped.
const STILL_SPEAKS: &str = "still speaks";
const NOT_STOPPED: &[&str] =
    &["Stop the bot by hand, on its host, and look what its [[containment.stop]] does: it says that it worked."];

const NOTHING_FROZEN: &str = "nothing was frozen";
/// Said at each start and in `status`: whoever freezes must know what he cannot take back.
pub const NO_PASSWORDS: &str = "ONE-TIME PASSWORDS ARE MISSING, so what a freeze takes cannot be given back: `resume`, \
    `disarm`, `arm`, `allow`, `manual` and `flatten` are refused until `countersign secret totp NAME` made one and \
    [operators] names it (with two_people, one for each of two persons)";

const HEADLINE: &str = "The account is being contained";
const AFTER_A_KILL: &[&str] = &[
    "Find out how the key leaked before you make a new one; declare the new one, and start countersign again.",
    "Change the password and 2FA of the exchange account, and look at withdrawals and transfers.",
    "Go through the strangers' trades above with the exchange's own history: they stand.",
];
const AFTER_A_RELEASE: &[&str] =
    &["The keys may trade again. If that was not meant: `countersign freeze` with this account's name."];
const OWN_KEY_FROZEN: &[&str] = &[
    "Cancel the open orders that are not your bot's by hand: countersign's own trading key is frozen, since one of its \
     keys may be somebody else's.",
    "Then make new keys for countersign, and look at who reads its host.",
];
const ADVICE: &[&str] = &[
    "Stop the bot, and make a new key for it only once this is contained.",
    "Change the password and 2FA of the exchange account, and look at withdrawals and transfers.",
];

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stop {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) containment: Option<Box<Containment>>,
    /// The incident that tells of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incident: Option<IncidentId>,
    /// The end that stands on the card: from then on an event costs nothing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told_over: Option<Time>,
    /// The last containment, once it says nothing of the keys that are declared today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<Box<str>>,
    /// When each declared key last answered a call from here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) alive: BTreeMap<KeyPrint, Time>,
    /// Looks at living keys under way.
    #[serde(default, with = "pairs", skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) looks: BTreeMap<EffectId, KeyPrint>,
    /// Of whoever is no declared person.
    #[serde(flatten)]
    pub(super) codes: Codes,
    /// The list that shows whether the declared keys are there, while nothing is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) list_look: Option<EffectId>,
    #[serde(default)]
    pub(super) alone: Alone,
    #[serde(default, skip_serializing_if = "Rehearsal::is_unused")]
    pub(super) rehearsal: Rehearsal,
    /// The last sign of somebody else at the master's login: when, and as it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    master_sign: Option<(Time, Box<str>)>,
    /// What is sold at its owner's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) flatten: Option<Box<Flatten>>,
}

impl Stop {
    pub(super) fn containment(&self) -> Option<&Containment> {
        self.containment.as_deref()
    }

    pub(super) fn containment_mut(&mut self) -> Option<&mut Containment> {
        self.containment.as_deref_mut()
    }

    pub(super) fn is_unused(&self) -> bool {
        self.containment.is_none()
            && self.before.is_none()
            && self.alive.is_empty()
            && self.looks.is_empty()
            && self.codes == Codes::default()
            && self.alone == Alone::default()
            && self.rehearsal.is_unused()
            && self.master_sign.is_none()
            && self.flatten.is_none()
    }

    /// A sign shortly before a theft, or after it, says that the thief may have more than a key.
    fn doubt_master(&self, now: Time, containment: &mut Containment) {
        if let Some((at, what)) = &self.master_sign
            && containment.started_at <= *at + SIGN_COUNTS_FOR
        {
            containment.doubt_master(now, what);
        }
    }
}

impl Kernel {
    /// The containment that runs, or the last one.
    pub fn progress(&self) -> Option<Progress> {
        self.state.stop.containment.as_ref().map(|containment| containment.progress())
    }

    /// What a command would do, before it is given.
    pub fn preview(&self, aim: Aim) -> Result<Progress, String> {
        let stopping = self.may_stop()?;
        let asked = Asked { aim, by: "nobody yet".into(), incident: None };
        let mut containment = self.new_containment(asked, stopping);
        if aim == Aim::Kill {
            containment.foresee(&self.standings());
        }
        Ok(containment.progress())
    }

    fn new_containment(&self, asked: Asked, stopping: &Stopping) -> Containment {
        let now = self.now();
        let mut containment = Containment::new(now, asked, stopping, &self.state.stop.alive);
        containment.allow(now, self.owners_keys());
        self.state.stop.doubt_master(now, &mut containment);
        if let Some(spent) = self.state.stop.rehearsal.spent() {
            containment.is_gone(now, spent);
        }
        containment
    }

    /// The last containment in a sentence, where other keys are declared since.
    pub fn contained_before(&self) -> Option<&str> {
        self.state.stop.before.as_deref()
    }

    /// The exchange shows what only somebody with the master's login can have done, or who used one.
    pub(super) fn signs_of_master(&mut self, at: Time, what: &str) {
        let now = self.now();
        if self.declared.stopping.as_ref().is_none_or(|stopping| !stopping.transfers()) {
            return;
        }
        let stop = &mut self.state.stop;
        if stop.master_sign.as_ref().is_none_or(|(before, _)| *before < at) {
            stop.master_sign = Some((at, what.into()));
        }
        if let Some(mut containment) = stop.containment.take() {
            stop.doubt_master(now, &mut containment);
            stop.containment = Some(containment);
        }
    }

    pub(super) fn may_stop(&self) -> Result<&Stopping, String> {
        match &self.declared.stopping {
            Some(stopping) if stopping.mode != Mode::Watch => Ok(stopping),
            Some(_) | None => Err(BY_HAND.to_owned()),
        }
    }

    /// What can be stopped from here, said before anybody needs it.
    pub(super) fn stopping_told(&self) -> String {
        let means = match self.may_stop() {
            Err(_) => "countersign only watches here and cannot stop anything; `kill` says what a person can do",
            Ok(stopping) => match stopping.means {
                Means::SubAccount => {
                    "on command it freezes and deletes the bot's keys, cancels strangers' orders, and proves it"
                }
                Means::ByHand => {
                    "THIS CANNOT KILL A KEY: no API deletes a key of one's own account. On command it cancels strangers' \
                     orders again and again and stops the bot, until you have deleted the key and a probe shows it"
                }
            },
        };
        let means = match self.declared.stopping.as_ref().map(|stopping| stopping.mode) {
            Some(Mode::Act) => format!("{means}; by itself too, within bounds, and not on its first day"),
            Some(Mode::Ask | Mode::Watch) | None => means.to_owned(),
        };
        let means = if self.declared.no_passwords { format!("{means}; {NO_PASSWORDS}") } else { means };
        let means = self.disarmed_told().map_or_else(|| means.clone(), |told| format!("{means}; DISARMED: {told}"));
        let last = self.state.stop.containment.as_ref().map(|containment| containment.progress().word);
        let last = last.or_else(|| self.state.stop.before.clone());
        let told = last.map_or_else(|| means.clone(), |word| format!("{means}; last containment: {word}"));
        self.drill_key_told().map_or_else(|| told.clone(), |key| format!("{told}; {key}"))
    }

    pub(super) fn contain(&mut self, aim: Aim, by: &str, incident: Option<IncidentId>) -> Result<(), String> {
        if aim == Aim::Drill {
            return Err("a drill is asked for by `countersign drill --kill`".to_owned());
        }
        let now = self.now();
        let stopping = self.may_stop()?.clone();
        let asked = Asked { aim, by: by.into(), incident };
        // Whatever runs or was done goes on in the same value: a second one would not know what is under way, nor what a
        // freeze took.
        match (&mut self.state.stop.containment, aim) {
            (None, Aim::Release) => return Err(NOTHING_FROZEN.to_owned()),
            (Some(known), Aim::Release) => known.release(now, &asked)?,
            (Some(known), _) if known.is_running() && known.aim == aim => {
                return Err(format!("that is being done already: {}", known.progress().word));
            }
            (Some(known), Aim::Freeze) if known.aim == Aim::Kill && known.is_running() => {
                return Err(format!("the account is being killed, which is more: {}", known.progress().word));
            }
            (Some(known), _) if known.aim != Aim::Kill && known.is_of(&stopping) => {
                known.take_up(now, asked, &stopping);
            }
            (_, Aim::Freeze | Aim::Kill | Aim::Drill) => {
                let mut containment = self.new_containment(asked, &stopping);
                let before = self.state.stop.containment.take();
                if let Some(told) = before.as_ref().map(|before| before.told()).or(self.state.stop.before.take()) {
                    containment.follow(now, told);
                }
                if let Some(before) = before {
                    containment.inherit(*before);
                }
                self.state.stop.containment = Some(Box::new(containment));
                self.state.stop.incident = None;
            }
        }
        self.state.stop.told_over = None;
        self.state.timers.retain(|(_, timer)| !matches!(timer, Timer::Unanswered(_)));
        self.give_way();
        self.place_containment(incident);
        Ok(())
    }

    /// Said before a one-time password is used up for it.
    pub(super) fn may_release(&self) -> Result<(), String> {
        self.may_stop()?;
        let known = self.state.stop.containment.as_deref().ok_or(NOTHING_FROZEN)?;
        known.clone().release(self.now(), &Asked { aim: Aim::Release, by: "".into(), incident: None })
    }

    pub(super) fn is_containing(&self) -> bool {
        self.state.stop.containment.as_ref().is_some_and(|containment| containment.is_running())
    }

    fn is_killing(&self) -> bool {
        let killing = |containment: &Containment| containment.aim == Aim::Kill && containment.is_running();
        self.state.stop.containment.as_deref().is_some_and(killing)
    }

    /// Only what the exchange's list has shown: nobody asks another person about a key that nobody has ever seen.
    pub(super) fn may_delete_key(&self, key: &KeyPrint) -> Result<(), String> {
        let Some(containment) = &self.state.stop.containment else {
            return Err("no containment has listed the account's keys yet: freeze or kill first".to_owned());
        };
        containment.may_delete(key).map_err(str::to_owned)
    }

    pub(super) fn delete_key(&mut self, key: &KeyPrint, by: &str) -> Result<(), String> {
        self.may_delete_key(key)?;
        let now = self.now();
        let known = self.state.stop.containment.as_mut();
        known.map_or(Ok(()), |containment| containment.delete_too(now, key, by).map_err(str::to_owned))
    }

    /// It is told on the card of the incident that it ends, or on one of its own.
    fn place_containment(&mut self, incident: Option<IncidentId>) {
        // One that ended with a release tells of nothing new, and one that the book has dropped tells of nothing at all.
        let is_open = |id: &IncidentId| match self.state.book.state_of(*id) {
            Some(IncidentState::Open | IncidentState::Acknowledged) => true,
            Some(IncidentState::Ended) | None => false,
        };
        let last = self.state.stop.incident.filter(is_open);
        let known = incident.filter(|id| self.state.book.knows(*id)).or(last);
        let known = known.or_else(|| self.state.book.open_id(Cause::Stranger, ""));
        let id = known.unwrap_or_else(|| {
            // One that a dead disk did not take, or that the book has dropped since.
            let unknown = |id| format!("asked for about incident {id}, which is not known here");
            let line = incident.map_or_else(|| "asked for without an incident".to_owned(), unknown);
            self.built_in("containment", Cause::Containment, "", Priority::Critical, HEADLINE, line, ADVICE)
        });
        self.state.stop.incident = Some(id);
    }

    /// The acts that were asked for and not answered are found out about; the looks are made anew.
    pub(super) fn restart_containment(&mut self) {
        let now = self.now();
        self.state.stop.looks.clear();
        self.state.stop.list_look = None;
        let of_before = |known: &mut Box<Containment>| {
            let today = self.declared.stopping.as_ref();
            !known.is_running() && !today.is_some_and(|today| known.is_of(today) || known.declare(today))
        };
        if let Some(known) = self.state.stop.containment.take_if(of_before) {
            self.state.stop.before = Some(known.told());
            self.state.stop.incident.into_iter().for_each(|id| self.state.book.leave(now, id));
            let line = "other keys are declared now, and the way to stop the bot is tried no more".to_owned();
            self.state.book.end(now, Cause::Containment, STILL_SPEAKS, line);
        }
        let keys = self.owners_keys();
        if let Some(containment) = &mut self.state.stop.containment {
            let spoke = containment.bot_still_speaks();
            containment.handle_restart(now);
            containment.declare_hooks(now, self.declared.stopping.as_ref());
            containment.allow(now, keys);
            if spoke && !containment.bot_still_speaks() {
                let line = "its way to stop it is not in the configuration any more, and tried no more".to_owned();
                self.state.book.end(now, Cause::Containment, STILL_SPEAKS, line);
            }
        }
        self.restart_rehearsal();
        self.wait_for_answers_again();
        self.look_at_keys();
    }

    pub(super) fn act(&mut self, act: Act) -> EffectId {
        let index = u32::try_from(self.effects.len()).unwrap_or(u32::MAX);
        self.effects.push(Effect::Act(act));
        EffectId { cause: self.state.now.seq, index }
    }

    pub(super) fn acted(&mut self, effect: EffectId, outcome: &ActOutcome) {
        let now = self.now();
        if self.state.stop.list_look.take_if(|look| *look == effect).is_some() {
            if !self.is_containing() && !self.is_rehearsing() {
                self.looked_at_list(outcome);
            }
            return;
        }
        if let Some(key) = self.state.stop.looks.remove(&effect) {
            let answered = |answer: &ProbeAnswer| matches!(answer, ProbeAnswer::Alive { .. });
            if matches!(outcome, ActOutcome::Probed(answers) if answers.iter().any(answered)) {
                self.state.stop.alive.insert(key, now);
            }
            return;
        }
        if self.rehearsed(effect, outcome) || self.flatten_acted(effect, outcome) {
            return;
        }
        let mut shown = BTreeMap::new();
        if let ActOutcome::Orders(snapshots) = outcome {
            for snapshot in snapshots {
                let key = (snapshot.symbol.clone(), snapshot.order_id);
                if !self.state.blotter.orders.contains_key(&key) {
                    self.order_read(snapshot);
                }
                shown.insert(key.clone(), self.standing(&key));
            }
        }
        if let Some(containment) = &mut self.state.stop.containment {
            let doubted = containment.master_doubt().is_some();
            containment.handle_outcome(now, effect, outcome, &shown);
            let doubt = containment.master_doubt().filter(|_| !doubted).map(str::to_owned);
            doubt.into_iter().for_each(|what| self.signs_of_master(now, &what));
        }
    }

    /// The exit status of a command proves nothing to whom the bot still speaks.
    pub(super) fn stopped_bot_spoke(&mut self, bot: &Bot, announced: Option<Time>) {
        let now = self.now();
        let alone = self.state.bots.iter().count() == 1;
        let Some(containment) = &mut self.state.stop.containment else { return };
        if let Some(line) = containment.bot_spoke(now, bot, announced, alone) {
            let headline = "The bot was not stopped: it still speaks to countersign";
            let rule = "bot_still_speaks";
            self.built_in(rule, Cause::Containment, STILL_SPEAKS, Priority::Critical, headline, line, NOT_STOPPED);
        }
    }

    /// Of every order that is open, as far as the stream and the reads have shown it.
    fn standings(&self) -> BTreeMap<OrderKey, Standing> {
        self.state.blotter.open_orders().map(|(key, _)| (key.clone(), self.standing(key))).collect()
    }

    /// Only what the bot said, what its owner claims, or what stood there before us, is spared.
    fn standing(&self, key: &OrderKey) -> Standing {
        match self.state.blotter.orders.get(key).map(|order| order.verdict) {
            Some(Verdict::Matched | Verdict::PreExisting | Verdict::DeclaredManual) => Standing::Spare,
            Some(Verdict::Pending) => Standing::Wait,
            Some(
                Verdict::Foreign
                | Verdict::Divergent
                | Verdict::Replayed
                | Verdict::Forged
                | Verdict::Unissued
                | Verdict::Unlogged
                | Verdict::ExchangeGenerated
                | Verdict::Unproven,
            )
            | None => Standing::Cancel,
        }
    }

    /// An order was placed or traded; if it is a stranger's, a containment takes note.
    pub(super) fn stranger_acted(&mut self, key: &OrderKey) {
        let now = self.now();
        let Some(order) = self.state.blotter.orders.get(key).filter(|order| order.verdict.is_stranger()) else {
            return;
        };
        if let Some(containment) = &mut self.state.stop.containment {
            let what = format!("order {} of {} is not your bot's", key.1, key.0);
            // The venue's clock and ours, both: neither alone says that it came after.
            containment.handle_foreign(now, order.created_at.min(order.first_seen), &what);
        }
    }

    /// A cancel that nobody announced, on an order that the containment cancels, is the containment's.
    pub(super) fn we_cancel(&self, key: &OrderKey) -> bool {
        self.state.stop.containment.as_ref().is_some_and(|containment| containment.cancels(key))
    }

    /// After every event: the next acts, the next timer, and the card.
    pub(super) fn drive_containment(&mut self) {
        let over = self.state.stop.containment.as_ref().map(|containment| containment.is_over());
        if over.is_none_or(|over| over.is_some() && over == self.state.stop.told_over) {
            return;
        }
        if self.is_killing() {
            // Whoever uses it now is more likely the thief. That none is open is fine.
            drop(self.end_claim("the account is being killed"));
        }
        // A copy, so that a fault in here loses no containment.
        let Some(mut containment) = self.state.stop.containment.clone() else { return };
        let (now, seq) = self.moment();
        let standings = if containment.is_running() { self.standings() } else { BTreeMap::new() };
        containment.settle(now);
        let before = self.effects.len();
        let name = |index| EffectId { cause: seq, index: u32::try_from(before + index).unwrap_or(u32::MAX) };
        let acts = containment.poll(now, &standings, name);
        self.effects.extend(acts.into_iter().map(Effect::Act));
        self.state.timers.retain(|(_, timer)| *timer != Timer::Contain);
        if let Some(due) = containment.due(&standings) {
            self.state.timers.insert((due.max(now + POLL_GAP), Timer::Contain));
        }
        if !containment.bot_still_speaks() {
            let line = "it was stopped, and speaks no more".to_owned();
            self.state.book.end(now, Cause::Containment, STILL_SPEAKS, line);
        }
        self.show_containment(&containment);
        match self.state.stop.incident.filter(|_| containment.is_running() && containment.aim != Aim::Release) {
            Some(id) => self.state.book.begin_containment(id),
            None => self.state.book.end_containment(),
        }
        self.state.stop.told_over = containment.is_over();
        self.state.stop.containment = Some(containment);
    }

    fn show_containment(&mut self, containment: &Containment) {
        let Some(id) = self.state.stop.incident else { return };
        let progress = containment.progress();
        let from = progress.lines.len().saturating_sub(LINES_ON_CARD);
        let shown = Contained {
            word: progress.word,
            asked_by: progress.asked_by,
            blocked_ms: progress.blocked_ms,
            orders_gone_ms: progress.orders_gone_ms,
            over_at: containment.over_at(),
            lines: progress.lines[from..].to_vec(),
            lines_left_out: from,
        };
        // A theft that was frozen is no less of a theft after its release; what was asked for without one is over.
        let own = self.state.book.open_id(Cause::Containment, "") == Some(id);
        let left = match progress.end {
            Some(End::Contained | End::RevokedUnprobed) => AFTER_A_KILL,
            Some(End::Released) if own => AFTER_A_RELEASE,
            None if containment.is_left_to_its_owner() => OWN_KEY_FROZEN,
            Some(End::Frozen | End::Released | End::Drilled | End::NotProved) | None => &[],
        };
        let released = format!("released by {}; what each key got back stands under what we did", shown.asked_by);
        self.state.book.contain(id, shown, left);
        if own && progress.end == Some(End::Released) {
            let now = self.now();
            self.state.book.end(now, Cause::Containment, "", released);
        }
    }
}

const BY_HAND: &str = "countersign only watches this account, and cannot stop anything. Do it by hand, now: \
    1. delete the bot's API key: https://www.binance.com/en/my/settings/api-management (app: Profile, API Management); \
    2. cancel every open order that is not your bot's; 3. stop the bot; 4. look at withdrawals and transfers. \
    [containment] in countersign.toml lets it do 1 to 3.";
