//! What an operator allowed for a while: addresses that are familiar, and keys that nobody declared and he says are his.
//!
//! Invariant: an allowed key is asked about no more and is in no list of strangers' keys; a freeze and a kill freeze it
//! like any other, since any key may be the thief's, and only `resume` gives it back. It is deleted on command alone.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::account::authority::why_told;
use crate::kernel::account::{Kernel, Timer};
use crate::kernel::act::KeyPrint;
use crate::kernel::card::quoted;
use crate::kernel::command::{ALLOWED_FOR_MAX, Allowable, told_span};
use crate::kernel::time::Time;

/// Allowances at once; at the limit a new one is refused.
const ALLOWED_MAX: usize = 32;
/// Where nobody says for how long.
const ALLOWED_FOR: Duration = Duration::from_secs(30 * 86_400);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    pub what: Allowable,
    pub by: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Box<str>>,
    pub at: Time,
    pub until: Time,
}

impl Kernel {
    pub(super) fn allow(
        &mut self,
        by: &str,
        why: Option<&str>,
        what: &Allowable,
        for_s: Option<u64>,
    ) -> Result<(), String> {
        self.may_allow(what, for_s)?;
        let span = for_s.map_or(ALLOWED_FOR, Duration::from_secs);
        let allowed = &mut self.state.trust.allowed;
        allowed.retain(|known| known.what != *what);
        let at = self.state.now.at;
        let until = at + span;
        allowed.push(Allowance { what: what.clone(), by: by.into(), why: why.map(Into::into), at, until });
        self.allowances_changed();
        let account = quoted(self.declared.account.as_str());
        let means = match what {
            Allowable::Network(_) => "is familiar, and an address in it is no finding",
            Allowable::Key(_) => "is not asked about any more, and `resume` gives it back what a freeze took",
        };
        self.announce(format!(
            "{what} is allowed on {account} by {by} until {until} UTC: it {means}. Why: {}. If that was not you: \
             countersign allow {account} {} --end",
            why_told(why),
            name_of(what),
        ));
        Ok(())
    }

    /// Said before a one-time password is used up for it.
    pub(super) fn may_allow(&self, what: &Allowable, for_s: Option<u64>) -> Result<(), String> {
        if for_s.map_or(ALLOWED_FOR, Duration::from_secs) > ALLOWED_FOR_MAX {
            return Err(format!("it can be allowed for {} at the most", told_span(ALLOWED_FOR_MAX)));
        }
        if what.is_too_wide() {
            return Err(format!("{what} is too wide: no wider than /16, or /32 of IPv6"));
        }
        match what {
            Allowable::Key(key) => self.may_allow_key(key)?,
            Allowable::Network(_) => {}
        }
        let allowed = &self.state.trust.allowed;
        if allowed.len() >= ALLOWED_MAX && !allowed.iter().any(|known| known.what == *what) {
            return Err(format!("{ALLOWED_MAX} things are allowed already: end one of them first"));
        }
        Ok(())
    }

    /// Only what the exchange has shown: nobody allows a key in advance, or by a slip of the finger.
    pub(super) fn may_allow_key(&self, key: &KeyPrint) -> Result<(), String> {
        let stopping = self.may_stop()?;
        if stopping.keys.iter().any(|declared| declared.print == *key) {
            return Err("that key is declared already".to_owned());
        }
        let contained = self.state.stop.containment().is_some_and(|known| known.knows_undeclared(key));
        if contained || self.state.trust.undeclared.contains(key) {
            Ok(())
        } else {
            Err("the exchange's list has not shown such a key: `countersign containment` and its incident show the print of \
                 each"
            .to_owned())
        }
    }

    pub(super) fn end_allowance(&mut self, by: &str, what: &Allowable) -> Result<(), String> {
        let allowed = &mut self.state.trust.allowed;
        let place = allowed
            .iter()
            .position(|known| known.what == *what)
            .ok_or("nothing like that is allowed: `countersign status` lists what is")?;
        let ended = allowed.remove(place);
        self.ended(&ended, &format!("by {by}"));
        Ok(())
    }

    pub(super) fn expire_allowances(&mut self) {
        let now = self.now();
        let over: Vec<Allowance> = self.state.trust.allowed.extract_if(.., |known| known.until <= now).collect();
        for allowance in over {
            self.ended(&allowance, "its time is over");
        }
    }

    fn ended(&mut self, allowance: &Allowance, how: &str) {
        self.allowances_changed();
        let account = quoted(self.declared.account.as_str());
        self.announce(format!("{} is no longer allowed on {account}: {how}.", allowance.what));
    }

    pub(super) fn is_familiar(&self, address: IpAddr) -> bool {
        let now = self.now();
        let allowed = self.state.trust.allowed.iter().any(|known| match &known.what {
            Allowable::Network(network) => now < known.until && network.contains(address),
            Allowable::Key(_) => false,
        });
        allowed || self.declared.familiar_networks.iter().any(|network| network.contains(address))
    }

    pub(super) fn allowed_keys(&self) -> BTreeSet<KeyPrint> {
        let now = self.now();
        let key = |known: &Allowance| match &known.what {
            Allowable::Key(key) if now < known.until => Some(key.clone()),
            Allowable::Key(_) | Allowable::Network(_) => None,
        };
        self.state.trust.allowed.iter().filter_map(key).collect()
    }

    /// What no stranger made: allowed, or declared, be it after a kill began that did not know it.
    pub(super) fn owners_keys(&self) -> BTreeSet<KeyPrint> {
        let declared = self.declared.stopping.iter().flat_map(|stopping| &stopping.keys);
        self.allowed_keys().into_iter().chain(declared.map(|key| key.print.clone())).collect()
    }

    /// One timer for each that stands, however often it was told anew.
    fn allowances_changed(&mut self) {
        self.state.timers.retain(|(_, timer)| *timer != Timer::AllowanceEnds);
        let ends = self.state.trust.allowed.iter().map(|known| (known.until, Timer::AllowanceEnds));
        self.state.timers.extend(ends);
        let (now, keys) = (self.now(), self.owners_keys());
        if let Some(containment) = self.state.stop.containment_mut() {
            containment.allow(now, keys);
        }
    }
}

fn name_of(what: &Allowable) -> String {
    match what {
        Allowable::Network(network) => network.to_string(),
        Allowable::Key(key) => key.to_string(),
    }
}
