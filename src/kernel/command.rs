//! What an operator may tell an account to do, as the kernel hears it: on which way it came and with what proof was
//! settled at the edge, where the secrets are.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::act::KeyPrint;
use crate::kernel::claim::Claim;
use crate::kernel::declared::Network;
use crate::kernel::incident::IncidentId;
use crate::kernel::money::Dec;
use crate::kernel::order::Asset;
use crate::kernel::time::Time;

/// An allowance widens what is trusted for so long at the most, so that somebody looks at it once a quarter.
pub const ALLOWED_FOR_MAX: Duration = Duration::from_secs(90 * 86_400);
pub const DISARMED_FOR_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Digits of a key's print.
const PRINT_DIGITS: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Reversible: the account's keys lose every right.
    Freeze,
    /// Final: the bot's keys are deleted, strangers' orders cancelled, the bot stopped.
    Kill,
    /// The owner decides on a key that nobody declared: delete it as well.
    DeleteKey {
        key: KeyPrint,
    },
    /// Gives back what a freeze took.
    Resume,
    /// Nothing is done by itself on this account, until it is armed again.
    Disarm {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_s: Option<u64>,
    },
    Arm,
    /// An address is familiar, or a key that nobody declared is the owner's, for a while.
    Allow {
        what: Allowable,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_s: Option<u64>,
    },
    EndAllowance {
        what: Allowable,
    },
    /// Reads what selling everything for this asset would come to, and shows it. `within` is the part of the price that may
    /// be lost.
    PlanFlatten {
        to: Asset,
        within: Dec,
    },
    /// Sells exactly what the plan that was asked for then shows.
    Flatten {
        plan: Time,
    },
    /// Opens a claim window: orders by hand that are the owner's.
    Manual {
        claim: Claim,
    },
    /// Ends the claim window before its time.
    EndManual,
    /// Somebody else used the claim window, the last one where none is named.
    NotMe {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<IncidentId>,
    },
    /// In fund mode: Telegram is to be paired with another chat, where the alerts go from then on.
    Pair,
    /// Another person agrees to what one asked for.
    Approve {
        request: u32,
    },
    Decline {
        request: u32,
    },
}

impl Command {
    /// Whatever widens trust, or trades, needs a one-time password and a reason. An approval needs what its request needs, which only
    /// the account knows.
    #[must_use]
    pub const fn needs_totp(&self) -> bool {
        match self {
            Self::Freeze
            | Self::Kill
            | Self::DeleteKey { .. }
            | Self::PlanFlatten { .. }
            | Self::EndAllowance { .. }
            | Self::EndManual
            | Self::NotMe { .. }
            | Self::Approve { .. }
            | Self::Decline { .. } => false,
            Self::Resume
            | Self::Disarm { .. }
            | Self::Arm
            | Self::Allow { .. }
            | Self::Manual { .. }
            | Self::Pair
            | Self::Flatten { .. } => true,
        }
    }

    /// Whether it takes two people in fund mode: whatever cannot be taken back, and whatever widens trust.
    #[must_use]
    pub const fn needs_two(&self) -> bool {
        match self {
            Self::Freeze
            | Self::PlanFlatten { .. }
            | Self::EndAllowance { .. }
            | Self::EndManual
            | Self::NotMe { .. }
            | Self::Approve { .. }
            | Self::Decline { .. } => false,
            Self::Kill | Self::DeleteKey { .. } => true,
            Self::Resume
            | Self::Disarm { .. }
            | Self::Arm
            | Self::Allow { .. }
            | Self::Manual { .. }
            | Self::Pair
            | Self::Flatten { .. } => self.needs_totp(),
        }
    }

    /// About trading by hand, which needs nothing that could be stopped.
    #[must_use]
    pub const fn is_of_a_claim(&self) -> bool {
        matches!(self, Self::Manual { .. } | Self::EndManual | Self::NotMe { .. })
    }

    /// As somebody would say what he did or tried: "resume main".
    #[must_use]
    pub fn words(&self, account: &str) -> String {
        match self {
            Self::Freeze => format!("freeze {account}"),
            Self::Kill => format!("kill {account}"),
            Self::DeleteKey { key } => format!("delete key {key} of {account}"),
            Self::Resume => format!("resume {account}"),
            Self::Disarm { for_s } => format!("disarm {account}{}", span(*for_s)),
            Self::Arm => format!("arm {account}"),
            Self::Allow { what, for_s } => format!("allow {what} on {account}{}", span(*for_s)),
            Self::EndAllowance { what } => format!("end the allowance of {what} on {account}"),
            Self::PlanFlatten { to, .. } => format!("plan to sell everything on {account} for {to}"),
            Self::Flatten { .. } => format!("sell on {account} what was planned"),
            Self::Manual { claim } => format!("open a claim window on {account}: {claim}"),
            Self::EndManual => format!("end the claim window of {account}"),
            Self::NotMe { .. } => format!("disown the claim window of {account}"),
            Self::Pair => "pair Telegram with another chat, to which all alerts go then".to_owned(),
            Self::Approve { request } => format!("approve request {request} of {account}"),
            Self::Decline { request } => format!("decline request {request} of {account}"),
        }
    }
}

fn span(for_s: Option<u64>) -> String {
    for_s.map(|seconds| format!(" for {}", told_span(Duration::from_secs(seconds)))).unwrap_or_default()
}

/// In the largest unit that holds it whole.
#[must_use]
pub fn told_span(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let unit = units.into_iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{seconds} s"), |(unit, name)| format!("{} {name}", seconds / unit))
}

/// `90s`, `30m`, `2h` or `30d`.
#[must_use]
pub fn read_span(text: &str) -> Option<u64> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let count: u64 = text[..text.len() - 1].parse().ok()?;
    count.checked_mul(unit).filter(|seconds| *seconds > 0)
}

/// What `allow` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowable {
    /// Familiar for a while.
    Network(Network),
    /// A key that the exchange's list showed and nobody declared: its owner says that it is his.
    Key(KeyPrint),
}

impl Allowable {
    /// Why this cannot be allowed, whoever asks.
    #[must_use]
    pub fn is_too_wide(&self) -> bool {
        match self {
            Self::Network(network) => network.is_wide(),
            Self::Key(_) => false,
        }
    }
}

impl FromStr for Allowable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() == PRINT_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        {
            return Ok(Self::Key(KeyPrint::read(text)));
        }
        let refused = |_| format!("{text:.60?} is no address, no network like 203.0.113.0/24 and no print of a key");
        text.parse().map(Self::Network).map_err(refused)
    }
}

impl fmt::Display for Allowable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => write!(f, "{network}"),
            Self::Key(key) => write!(f, "key {key}"),
        }
    }
}

/// A one-time password, as the edge found it. Its time step counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "totp", rename_all = "snake_case")]
pub enum Totp {
    Absent,
    /// There is nothing to check one against.
    NotSetUp,
    Wrong,
    /// Right for this time step.
    Right {
        step: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_and_for_how_long_is_read_or_refused() {
        for (text, read, wide) in [
            ("203.0.113.7", "203.0.113.7/32", false),
            ("203.0.0.0/16", "203.0.0.0/16", false),
            ("0.0.0.0/0", "0.0.0.0/0", true),
            ("203.0.0.0/15", "203.0.0.0/15", true),
            ("2001:db8::/31", "2001:db8::/31", true),
            ("2001:db8::/32", "2001:db8::/32", false),
            ("0123456789abcdef", "key 0123456789abcdef", false),
        ] {
            let what: Allowable = text.parse().unwrap();
            assert_eq!((what.to_string().as_str(), what.is_too_wide()), (read, wide));
            let again: Allowable = serde_json::from_str(&serde_json::to_string(&what).unwrap()).unwrap();
            assert_eq!(again, what);
        }
        for text in ["", "home", "0123456789ABCDEF", "0123456789abcde", "203.0.113.0/33"] {
            assert!(text.parse::<Allowable>().is_err(), "{text}");
        }
        for (text, seconds) in [("90s", Some(90)), ("30m", Some(1_800)), ("2h", Some(7_200)), ("30d", Some(2_592_000))]
        {
            assert_eq!(read_span(text), seconds, "{text}");
        }
        for text in ["", "d", "0d", "-1d", "1w", "1", "é", "99999999999999999999d", "18446744073709551615d"] {
            assert_eq!(read_span(text), None, "{text}");
        }
        assert_eq!(told_span(Duration::from_secs(5_400)), "90 min");
    }

    /// Whatever needs a one-time password needs two people in fund mode, and a freeze never does.
    #[test]
    fn what_widens_trust_takes_two_people() {
        let what = Allowable::Key(KeyPrint::of("k"));
        for (command, totp, two) in [
            (Command::Freeze, false, false),
            (Command::EndAllowance { what: what.clone() }, false, false),
            (Command::Kill, false, true),
            (Command::DeleteKey { key: KeyPrint::of("k") }, false, true),
            (Command::Resume, true, true),
            (Command::Disarm { for_s: None }, true, true),
            (Command::Arm, true, true),
            (Command::Pair, true, true),
            (Command::Allow { what, for_s: None }, true, true),
        ] {
            assert_eq!((command.needs_totp(), command.needs_two()), (totp, two), "{command:?}");
        }
    }
}
