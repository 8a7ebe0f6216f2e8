//! What a key may do, as the venue tells it to the key itself, and whether that fits what countersign uses it for.

use crate::kernel::credential::{CredentialFault, CredentialRole};
use crate::venue::binance::json::{self, Fields, Kept};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restrictions {
    pub ip_restricted: bool,
    /// Every right that was told and is granted, by the venue's name.
    granted: Vec<Box<str>>,
    /// Rights that this version does not know, granted or not: the venue has changed something.
    pub unknown: Vec<(Box<str>, bool)>,
}

const READING: &str = "enableReading";
const WITHDRAWALS: &str = "enableWithdrawals";
const INTERNAL_TRANSFER: &str = "enableInternalTransfer";
const SPOT: &str = "enableSpotAndMarginTrading";

/// The rights to trade beside spot, and how the venue's page names them.
const OTHER_TRADING: [(&str, &str); 5] = [
    ("enableMargin", "Enable Margin Loan, Repay & Transfer"),
    ("enableFutures", "Enable Futures"),
    ("enableVanillaOptions", "Enable European Options"),
    ("enablePortfolioMarginTrading", "Enable Portfolio Margin Trading"),
    ("enableFixApiTrade", "Enable FIX API trading"),
];

/// The rights to move money inside the venue.
const TRANSFERS: [(&str, &str); 2] =
    [("permitsUniversalTransfer", "Permits Universal Transfer"), (INTERNAL_TRANSFER, "Enable Internal Transfer")];

/// Rights of a name that nobody knows, told one by one; there are never that many.
const UNKNOWN_TOLD_MAX: usize = 8;

const HARMLESS: [&str; 1] = ["enableFixReadOnly"];

/// The body of a granted read. A right that is not told counts as not granted, but for those that must be told.
pub fn restrictions(body: &str) -> Result<Restrictions, Kept> {
    let answer = json::parse(body)?;
    let answer = answer.object("the answer")?;
    for needed in [READING, WITHDRAWALS, SPOT] {
        answer.boolean(needed)?;
    }
    let (mut granted, mut unknown) = (Vec::new(), Vec::new());
    for name in answer.names().filter(|name| name.starts_with("enable") || name.starts_with("permits")) {
        let is_granted = granted_right(answer, name)?;
        if !is_known(name) {
            unknown.push((name.into(), is_granted));
        } else if is_granted {
            granted.push(name.into());
        }
    }
    Ok(Restrictions { ip_restricted: answer.boolean("ipRestrict")?, granted, unknown })
}

fn granted_right(answer: &Fields<'_>, name: &str) -> Result<bool, Kept> {
    if answer.find(name).is_none() { Ok(false) } else { answer.boolean(name) }
}

fn is_known(name: &str) -> bool {
    let mut others = OTHER_TRADING.iter().chain(&TRANSFERS).map(|(known, _)| *known).chain(HARMLESS);
    [READING, WITHDRAWALS, SPOT].contains(&name) || others.any(|known| known == name)
}

/// What the venue answers to a key that it does not have; other refusals may be of an address or a clock.
pub const NO_SUCH_KEY: i64 = -2008;

/// To a key that it has, and a signature that is not of the key's secret.
pub const SECRET_WRONG: i64 = -1022;

/// The fault of a secret that is another key's.
#[must_use]
pub fn secret_wrong(role: CredentialRole) -> Vec<CredentialFault> {
    let fault =
        format!("the secret of the {role} key is not the key's ({SECRET_WRONG}): the exchange takes no call of it");
    let step = "put key and secret into the vault again, both of one key, and start again".into();
    vec![CredentialFault { fault: fault.into(), step, is_used: false }]
}

/// The fault of a key that is not there.
#[must_use]
pub fn gone(role: CredentialRole) -> Vec<CredentialFault> {
    let fault = format!("the {role} key is not known to the exchange ({NO_SUCH_KEY}): it was deleted, or mistyped");
    let step = "make a new one, put it into the vault, and start again".into();
    vec![CredentialFault { fault: fault.into(), step, is_used: false }]
}

/// Each fault with the step that mends it.
pub fn check(role: CredentialRole, restrictions: &Restrictions) -> Result<(), Vec<CredentialFault>> {
    let may = |right: &str| restrictions.granted.iter().any(|granted| **granted == *right);
    let mut faults = Vec::new();
    let mut fault = |is_one: bool, fault: &str, step: &str| {
        if is_one {
            faults.push(CredentialFault {
                fault: format!("the {role} key {fault}").into(),
                step: step.into(),
                is_used: false,
            });
        }
    };
    fault(!may(READING), "may not read", "tick \"Enable Reading\" in the exchange's API management");
    fault(may(WITHDRAWALS), "may withdraw", "untick \"Enable Withdrawals\"; countersign never needs it");
    match role {
        CredentialRole::Watch => {
            fault(may(SPOT), "may trade", "untick \"Enable Spot & Margin Trading\", or make a key that only reads");
        }
        CredentialRole::Cancel => {
            fault(!may(SPOT), "may not cancel", "tick \"Enable Spot & Margin Trading\": cancelling needs it");
            let step = "restrict it to the address of countersign's host: without a list it loses the right to trade";
            fault(!restrictions.ip_restricted, "works from every address", step);
        }
        CredentialRole::Admin => {
            let step = "tick \"Enable Spot & Margin Trading\": the exchange's documents name it for changing keys";
            fault(!may(SPOT), "may not be able to freeze and delete keys", step);
            let step = "restrict it to the address of countersign's host in the exchange's API management";
            fault(!restrictions.ip_restricted, "works from every address", step);
        }
    }
    if role != CredentialRole::Admin {
        for (right, named) in OTHER_TRADING.into_iter().chain(TRANSFERS).filter(|(right, _)| may(right)) {
            fault(true, &format!("has the right {right:?}, which it does not need"), &format!("untick {named:?}"));
        }
    }
    for (right, _) in restrictions.unknown.iter().filter(|(_, granted)| *granted).take(UNKNOWN_TOLD_MAX) {
        let told = format!("has the right {right:.80?}, which this version does not know");
        fault(true, &told, "untick it in the exchange's API management, or see whether a newer version knows it");
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// Whether an admin key may move money from the sub-account to the master.
pub fn check_transfer(restrictions: &Restrictions) -> Option<CredentialFault> {
    let may = restrictions.granted.iter().any(|granted| **granted == *INTERNAL_TRANSFER);
    (!may).then(|| CredentialFault {
        fault: "the admin key may not move the money to the master (transfer_to_master)".into(),
        step: "tick \"Enable Internal Transfer\", or remove transfer_to_master; a kill works without".into(),
        is_used: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of the venue's sample, with those named granted.
    fn told(ip_restricted: bool, granted: &[&str]) -> Restrictions {
        let names = [
            READING,
            WITHDRAWALS,
            "enableInternalTransfer",
            "enableMargin",
            "enableFutures",
            "permitsUniversalTransfer",
            "enableVanillaOptions",
            "enableFixApiTrade",
            "enableFixReadOnly",
            SPOT,
            "enablePortfolioMarginTrading",
        ];
        let mut fields = vec![format!(r#""ipRestrict":{ip_restricted},"createTime":1698645219000"#)];
        fields.extend(names.map(|name| format!("{name:?}:{}", granted.contains(&name))));
        fields.extend(granted.iter().filter(|name| !names.contains(name)).map(|name| format!("{name:?}:true")));
        restrictions(&format!("{{{}}}", fields.join(","))).unwrap()
    }

    fn faults(role: CredentialRole, restrictions: &Restrictions) -> String {
        let faults = check(role, restrictions).err().unwrap_or_default();
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_key_may_do_what_it_is_for_and_no_more() {
        use CredentialRole::{Admin, Cancel, Watch};
        for (role, ip, granted, expected) in [
            (Watch, false, &[READING][..], &[][..]),
            (Watch, true, &[READING, "enableFixReadOnly"], &[]),
            (Watch, true, &[READING, SPOT], &["may trade"]),
            (Watch, true, &[READING, "enableFutures"], &["enableFutures"]),
            (Watch, true, &[READING, "permitsUniversalTransfer"], &["Permits Universal Transfer"]),
            (Watch, true, &[], &["may not read"]),
            (Cancel, true, &[READING, SPOT], &[]),
            (Cancel, true, &[READING], &["may not cancel"]),
            (Cancel, false, &[READING, SPOT], &["works from every address"]),
            (Cancel, true, &[READING, SPOT, WITHDRAWALS, "enableMargin"], &["may withdraw", "enableMargin"]),
            (Admin, true, &[READING, SPOT, "enableInternalTransfer"], &[]),
            (Admin, false, &[READING, SPOT], &["works from every address"]),
            (Admin, true, &[READING, SPOT, WITHDRAWALS], &["may withdraw"]),
            (Admin, true, &[READING], &["may not be able to freeze"]),
            (Admin, true, &[READING, SPOT, "enableTeleport"], &["enableTeleport"]),
        ] {
            let told = faults(role, &told(ip, granted));
            assert_eq!(told.matches("hint:").count(), expected.len(), "{role:?} {granted:?}: {told}");
            assert!(expected.iter().all(|part| told.contains(part)), "{role:?} {granted:?}: {told}");
        }
    }

    #[test]
    fn money_is_moved_with_the_right_to_transfer_internally() {
        let fault = |granted: &[&str]| check_transfer(&told(true, granted));
        assert_eq!(fault(&[READING, SPOT, INTERNAL_TRANSFER]), None);
        assert!(fault(&[READING, SPOT, "permitsUniversalTransfer"]).is_some_and(|fault| fault.is_used));
    }

    #[test]
    fn what_the_venue_added_is_told_and_what_it_left_out_is_not_guessed() {
        let body = r#"{"ipRestrict":true,"enableReading":true,"enableWithdrawals":false,
            "enableSpotAndMarginTrading":false,"enableTeleport":false,"tradingAuthorityExpirationTime":1}"#;
        let told = restrictions(body).unwrap();
        assert_eq!(told.unknown, [("enableTeleport".into(), false)]);
        assert_eq!(check(CredentialRole::Watch, &told), Ok(()));
        for missing in ["ipRestrict", READING, WITHDRAWALS, SPOT] {
            assert!(restrictions(&body.replace(missing, "other")).is_err(), "{missing}");
        }
        assert!(restrictions(&body.replace("\"enableTeleport\":false", "\"enableMargin\":\"no\"")).is_err());
        assert!(restrictions("").is_err());
    }
}
