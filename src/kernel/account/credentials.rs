//! Countersign's own keys, by the venue's word on each: a wrong one is told until a later check is fine, and one that
//! could not be checked is unknown, which is never fine.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::account::{Kernel, Timer};
use crate::kernel::credential::{CredentialFault, CredentialOutcome, CredentialRole};
use crate::kernel::incident::Priority;
use crate::kernel::rule::Cause;
use crate::kernel::stopping::{KeyRole, Means};
use crate::kernel::time::Time;

/// A key that could not be checked for this long is told.
const UNCHECKED_AFTER: Duration = Duration::from_secs(3_600);

const UNCHECKED_ADVICE: &[&str] = &[
    "See whether countersign's host reaches the exchange, and whether the key still exists and lists its address.",
    "Until it is checked, look yourself at what the key may do: the exchange's API management.",
];

/// By role, what is known of each key that was ever checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credentials(BTreeMap<CredentialRole, Known>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// The last check, whether it could be made or not.
    checked_at: Time,
    outcome: CredentialOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<Made>,
}

/// The last check that could be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    at: Time,
    faults: Vec<CredentialFault>,
}

/// A key of countersign's in the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialStatus {
    pub role: CredentialRole,
    /// The last check; none was answered yet where it is missing.
    pub checked_at: Option<Time>,
    pub outcome: Option<CredentialOutcome>,
    /// The last check that could be made.
    pub made_at: Option<Time>,
}

impl Credentials {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Kernel {
    pub(super) fn credential(&mut self, role: CredentialRole, outcome: CredentialOutcome) {
        let now = self.now();
        let before = self.state.credentials.0.get(&role).and_then(|known| known.made.clone());
        let made = match &outcome {
            CredentialOutcome::Fine => Some(Vec::new()),
            CredentialOutcome::Wrong { faults } => Some(faults.clone()),
            CredentialOutcome::Unknown { .. } => None,
        };
        let kept = made.clone().map(|faults| Made { at: now, faults }).or_else(|| before.clone());
        self.state.credentials.0.insert(role, Known { checked_at: now, outcome, made: kept });
        match made {
            Some(faults) => self.credential_known(role, before.as_ref(), &faults),
            None => self.wait_for_credential(role),
        }
    }

    fn credential_known(&mut self, role: CredentialRole, before: Option<&Made>, faults: &[CredentialFault]) {
        let now = self.now();
        self.forget_credential_timer(role);
        self.state.book.end(now, Cause::Credential, &unchecked(role), "it could be checked again".to_owned());
        if faults.is_empty() {
            let line = "checked again: it may do what it is for, and no more".to_owned();
            return self.state.book.end(now, Cause::Credential, role.word(), line);
        }
        let told = self.state.book.open_id(Cause::Credential, role.word()).is_some();
        if told && before.is_some_and(|before| before.faults == faults) {
            return;
        }
        let told: Vec<&str> = faults.iter().map(|fault| &*fault.fault).collect();
        let mut advice: Vec<&str> = faults.iter().map(|fault| &*fault.step).collect();
        let used = faults.iter().all(|fault| fault.is_used);
        let priority = if used { Priority::Warning } else { Priority::Critical };
        let (headline, last) = match role {
            CredentialRole::Watch => (
                "countersign's watch key is not as it must be",
                "If you did not give it these rights: somebody with your web login may have. Log in and look now.",
            ),
            CredentialRole::Cancel => (
                "countersign does not use its cancel key: it is not as it must be",
                "Until a later check is fine, no order can be cancelled from here.",
            ),
            CredentialRole::Admin if used => (
                "countersign's admin key cannot do all that is configured",
                "It is used all the same: keys are frozen and deleted from here.",
            ),
            CredentialRole::Admin => (
                "countersign does not use its admin key: it is not as it must be",
                "Until a later check is fine, no key can be frozen or deleted here.",
            ),
        };
        advice.push(last);
        let line = told.join("; ");
        self.built_in("credential_wrong", Cause::Credential, role.word(), priority, headline, line, &advice);
    }

    /// The hour begins with the last check that could be made, or with the first that could not.
    fn wait_for_credential(&mut self, role: CredentialRole) {
        let told = self.state.book.open_id(Cause::Credential, &unchecked(role)).is_some();
        let waits = self.state.timers.iter().any(|(_, timer)| *timer == Timer::Credential(role));
        if told || waits {
            return;
        }
        let made = self.state.credentials.0.get(&role).and_then(|known| known.made.as_ref());
        let due = made.map_or(self.now(), |made| made.at) + UNCHECKED_AFTER;
        if due > self.now() {
            self.state.timers.insert((due, Timer::Credential(role)));
        } else {
            self.tell_unchecked(role);
        }
    }

    pub(super) fn check_credential(&mut self, role: CredentialRole) {
        let unknown = self.state.credentials.0.get(&role).map(|known| &known.outcome);
        if matches!(unknown, Some(CredentialOutcome::Unknown { .. })) {
            self.tell_unchecked(role);
        }
    }

    fn tell_unchecked(&mut self, role: CredentialRole) {
        let reason = match self.state.credentials.0.get(&role).map(|known| &known.outcome) {
            Some(CredentialOutcome::Unknown { reason }) => format!(": {reason}"),
            Some(CredentialOutcome::Fine | CredentialOutcome::Wrong { .. }) | None => String::new(),
        };
        let line = format!("the {role} key could not be checked for an hour{reason}");
        let headline = "What one of countersign's own keys may do is not known";
        let scope = unchecked(role);
        let advice = UNCHECKED_ADVICE;
        self.built_in("credential_unchecked", Cause::Credential, &scope, Priority::Warning, headline, line, advice);
    }

    fn forget_credential_timer(&mut self, role: CredentialRole) {
        self.state.timers.retain(|(_, timer)| *timer != Timer::Credential(role));
    }

    /// What is not loaded any more is not spoken of; the others get one more hour.
    pub(super) fn restart_credentials(&mut self) {
        let now = self.now();
        let roles = self.credential_roles();
        let known: Vec<CredentialRole> = self.state.credentials.0.keys().copied().collect();
        for role in known {
            let waited = self.state.timers.iter().any(|(_, timer)| *timer == Timer::Credential(role));
            self.forget_credential_timer(role);
            if roles.contains(&role) {
                if waited {
                    self.set_timer(UNCHECKED_AFTER, Timer::Credential(role));
                }
                continue;
            }
            self.state.credentials.0.remove(&role);
            for scope in [role.word().to_owned(), unchecked(role)] {
                self.state.book.end(now, Cause::Credential, &scope, format!("the {role} key is not loaded any more"));
            }
        }
    }

    fn credential_roles(&self) -> Vec<CredentialRole> {
        let stopping = self.declared.stopping.as_ref();
        let loaded = |role: &CredentialRole| match role {
            CredentialRole::Watch => true,
            CredentialRole::Cancel => {
                stopping.is_some_and(|stopping| stopping.keys.iter().any(|key| key.role == KeyRole::Cancel))
            }
            CredentialRole::Admin => stopping.is_some_and(|stopping| stopping.means == Means::SubAccount),
        };
        CredentialRole::ALL.into_iter().filter(loaded).collect()
    }

    pub(super) fn credential_statuses(&self) -> Vec<CredentialStatus> {
        let status = |role: CredentialRole| {
            let known = self.state.credentials.0.get(&role);
            CredentialStatus {
                role,
                checked_at: known.map(|known| known.checked_at),
                outcome: known.map(|known| known.outcome.clone()),
                made_at: known.and_then(|known| known.made.as_ref()).map(|made| made.at),
            }
        };
        self.credential_roles().into_iter().map(status).collect()
    }
}

/// The scope of the incident that says that nothing is known.
fn unchecked(role: CredentialRole) -> String {
    format!("{role} unchecked")
}
