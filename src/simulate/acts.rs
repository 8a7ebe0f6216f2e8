//! Acts of a containment, done at the exchange's own key endpoints: each is called as the outlet calls it, and its
//! answer may be lost on the way, or never come.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::kernel::act::{Act, ActOutcome, KeyPrint, ProbeAnswer};
use crate::kernel::event::{EffectId, Event};
use crate::sim::exchange::{HttpReply, HttpRequest};
use crate::sim::order::Uid;
use crate::simulate::client::Client;
use crate::simulate::emergency::{Intrusion, Leaves};
use crate::simulate::process::Inside;
use crate::simulate::world::World;
use crate::venue::binance::Kept;
use crate::venue::binance::act::{self, By, Call, Ending, KeyList, Method, Reply};

/// A call without an answer is given up after this.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// After the first change of a key the thief comes back within this.
const BACK_WITHIN_MS: (u32, u32) = (0, 3_000);

/// What the outlet of one process knows and has under way.
#[derive(Default)]
pub struct Acts {
    /// With its place among all that were asked for; who works on it may have died.
    under_way: BTreeMap<EffectId, (Act, usize)>,
    /// Keys that a list showed.
    shown: BTreeMap<KeyPrint, SecretString>,
}

/// With what the containment works: clients of the master and of the account, and the declared keys.
pub struct Means {
    pub account: Uid,
    pub sub_account: String,
    pub admin: Client,
    pub cancel: Client,
    pub declared: BTreeMap<KeyPrint, SecretString>,
}

struct Answer {
    status: u16,
    retry_after: Option<Duration>,
    body: String,
}

impl Answer {
    fn reply(&self) -> Reply<'_> {
        Reply { status: self.status, retry_after: self.retry_after, body: &self.body }
    }
}

impl World {
    pub fn send_act(&mut self, effect: EffectId, act: Act) {
        let Some(process) = &mut self.process else { return };
        // Looking twice harms nobody; a change is asked for once, and again only when its outcome is known.
        let changes = match act {
            Act::SetRights { .. }
            | Act::DeleteKey { .. }
            | Act::CancelOrder { .. }
            | Act::StopBot { .. }
            | Act::Transfer { .. }
            | Act::Sell { .. } => true,
            Act::ListKeys
            | Act::Probe { .. }
            | Act::OpenOrders
            | Act::Balances
            | Act::FindTransfer { .. }
            | Act::Quote { .. }
            | Act::FindOrder { .. } => false,
        };
        if changes && process.acts.under_way.values().any(|(other, _)| *other == act) {
            self.witness.fail(&format!("{act:?} was asked for while it was under way"));
        }
        let place = self.witness.asks(self.now, effect.cause, &act);
        let unanswered = self.script.emergency.as_ref().map_or(0, |emergency| emergency.unanswered_percent);
        let answered = unanswered == 0 || !self.chance(unanswered);
        if !answered {
            self.witness.unanswered.push(self.now);
        } else if let Some(process) = &mut self.process {
            process.acts.under_way.insert(effect, (act.clone(), place));
        }
        let at = self.now + self.draw(self.script.weather.request);
        self.inside_at(at, Inside::Acting(effect, act));
    }

    pub fn act_on_exchange(&mut self, effect: EffectId, act: &Act) {
        let lost = self.chance(self.script.weather.lost_percent);
        if matches!(act, Act::SetRights { .. } | Act::DeleteKey { .. }) {
            self.may_intrude(Intrusion::During, BACK_WITHIN_MS);
        }
        let outcome = if lost { None } else { Some(self.perform(act).unwrap_or_else(|not_done| not_done)) };
        self.pump();
        let answer_lost = self.chance(self.script.weather.lost_percent);
        let (wait, outcome) = match outcome.filter(|_| !answer_lost) {
            Some(outcome) => (self.draw(self.script.weather.request), outcome),
            None => (ANSWER_WITHIN, ActOutcome::Unknown { reason: "no answer in time".into() }),
        };
        let is_waited_for = self.process.as_ref().is_some_and(|process| process.acts.under_way.contains_key(&effect));
        if is_waited_for {
            self.inside_at(self.now + wait, Inside::Acted(effect, outcome));
        }
    }

    pub fn acted(&mut self, effect: EffectId, mut outcome: ActOutcome) {
        if let Some(process) = &mut self.process {
            let place = process.acts.under_way.remove(&effect).map(|(_, place)| place);
            self.witness.answered(self.now, place, &outcome);
        }
        if let ActOutcome::Orders(orders) = &mut outcome {
            self.tags.check_snapshots(orders);
        }
        self.step_account(Event::Acted { effect, outcome });
    }

    fn perform(&mut self, act: &Act) -> Result<ActOutcome, ActOutcome> {
        match act {
            Act::ListKeys => self.list_keys(),
            Act::SetRights { key, rights } => {
                let key = self.key(key)?;
                let body = self.granted(&Call::set_rights(&self.means.sub_account, key.expose_secret(), *rights))?;
                act::rights_set(&body, &key, *rights).map_err(unreadable)
            }
            Act::DeleteKey { key } => {
                let key = self.key(key)?;
                let body = self.granted(&Call::delete_key(&self.means.sub_account, key.expose_secret()))?;
                act::deleted(&body).map_err(unreadable)
            }
            Act::Probe { key } => {
                let key = self.key(key)?;
                let answers = Call::probes().map(|call| self.probe(&call, &key));
                Ok(ActOutcome::Probed(answers))
            }
            Act::OpenOrders => act::open_orders(&self.granted(&Call::open_orders())?).map_err(unreadable),
            Act::CancelOrder { symbol, order_id } => {
                let body = self.granted(&Call::cancel_order(symbol, *order_id))?;
                act::cancelled(&body, *order_id).map_err(unreadable)
            }
            Act::Balances => act::balances(&self.granted(&Call::balances())?).map_err(unreadable),
            Act::Transfer { asset, amount, id } => {
                let body = self.granted(&Call::transfer(&self.means.sub_account, asset, *amount, id))?;
                act::transferred(&body, id).map_err(unreadable)
            }
            Act::FindTransfer { id } => {
                let body = self.granted(&Call::find_transfer(&self.means.sub_account, id))?;
                act::found_transfer(&body, id).map_err(unreadable)
            }
            Act::Quote { .. } | Act::Sell { .. } | Act::FindOrder { .. } => Err(refused("nobody sells here")),
            Act::StopBot { .. } => self.stop_bots(),
        }
    }

    fn stop_bots(&mut self) -> Result<ActOutcome, ActOutcome> {
        if self.stop.hook_fails > 0 {
            self.stop.hook_fails = self.stop.hook_fails.saturating_sub(u32::from(self.stop.hook_fails != u32::MAX));
            return Err(ActOutcome::Unknown { reason: "it still runs".into() });
        }
        self.witness.hook_worked.get_or_insert(self.now);
        let leaves = self.script.emergency.as_ref().and_then(|emergency| emergency.hook).map(|hook| hook.leaves);
        self.stop.bots_stopped = leaves != Some(Leaves::All);
        self.stop.bots_ended = leaves == Some(Leaves::Nothing);
        Ok(ActOutcome::Done { proof: "inactive".into() })
    }

    fn list_keys(&mut self) -> Result<ActOutcome, ActOutcome> {
        let mut list = KeyList::default();
        while let Some(page) = list.wants() {
            let body = self.granted(&Call::list_keys(&self.means.sub_account, page))?;
            list.take(&body).map_err(unreadable)?;
        }
        let keys = list.into_keys();
        if let Some(process) = &mut self.process {
            process.acts.shown.extend(keys.iter().map(|key| (key.row.key.clone(), key.api_key.clone())));
        }
        Ok(ActOutcome::Keys(keys.into_iter().map(|key| key.row).collect()))
    }

    fn key(&self, print: &KeyPrint) -> Result<SecretString, ActOutcome> {
        let shown = self.process.as_ref().and_then(|process| process.acts.shown.get(print));
        let known = self.means.declared.get(print).or(shown).cloned();
        known.ok_or_else(|| refused("the key is not declared, and no list has shown it"))
    }

    fn probe(&mut self, call: &Call, key: &SecretString) -> ProbeAnswer {
        let query = if call.is_signed() { call.missigned(self.now) } else { String::new() };
        let mut request = self.means.admin.request("GET", call.path, query);
        request.api_key = Some(key.expose_secret().to_owned());
        match self.call(&request) {
            Some(answer) => answer.reply().probe(),
            None => ProbeAnswer::Unclear { reason: "no answer".into() },
        }
    }

    /// The body of a call that was granted, or what became of it otherwise.
    fn granted(&mut self, call: &Call) -> Result<String, ActOutcome> {
        let client = match call.by {
            By::Admin => &self.means.admin,
            By::Cancel => &self.means.cancel,
            By::Suspect | By::Itself | By::Nobody => return Err(refused("nobody signs this here")),
        };
        let method = match call.method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Delete => "DELETE",
        };
        let request = client.request(method, call.path, call.signed(client.credential(), self.now));
        let unknown = || ActOutcome::Unknown { reason: "the connection ended".into() };
        let answer = self.call(&request).ok_or_else(unknown)?;
        match answer.reply().ending() {
            Ending::Granted => Ok(answer.body),
            Ending::Refused { code, reason } => Err(ActOutcome::Refused { code, reason }),
            Ending::Unknown { reason } => Err(ActOutcome::Unknown { reason }),
            Ending::Limited { wait, reason } => {
                let now = self.process.as_ref().map_or(self.now, |process| process.journal_time(self.now));
                Err(ActOutcome::Held { until: now + wait, reason })
            }
        }
    }

    fn call(&mut self, request: &HttpRequest) -> Option<Answer> {
        match self.exchange.http(self.now, request) {
            HttpReply::Answer(answer) | HttpReply::Late(_, answer) => {
                let named = answer.headers.iter().find(|(name, _)| *name == "retry-after");
                let retry_after = named.and_then(|(_, seconds)| seconds.parse().ok()).map(Duration::from_secs);
                Some(Answer { status: answer.status, retry_after, body: answer.body })
            }
            HttpReply::Held(_) | HttpReply::Cut => None,
        }
    }
}

/// Nothing left this machine.
fn refused(reason: &str) -> ActOutcome {
    ActOutcome::Refused { code: 0, reason: reason.into() }
}

fn unreadable(kept: Kept) -> ActOutcome {
    ActOutcome::Unknown { reason: format!("the answer cannot be read: {kept}").into() }
}
