//! Countersign's own keys: what the venue says of them, how it is told, and when that ends.

use std::time::Duration;

use countersign::kernel::act::KeyPrint;
use countersign::kernel::credential::{CredentialFault, CredentialOutcome, CredentialRole};
use countersign::kernel::declared::Declared;
use countersign::kernel::event::{Event, Ticket};
use countersign::kernel::incident::{IncidentState, Priority};
use countersign::kernel::stopping::{DeclaredKey, KeyRole, Means, Mode, Stopping};

use crate::desk::{Desk, check};

const MINUTE: u64 = 60_000;

fn checked(desk: &mut Desk, role: CredentialRole, outcome: CredentialOutcome) {
    desk.event(Event::Credential { role, outcome });
}

fn wrong(faults: &[&str]) -> CredentialOutcome {
    let fault = |fault: &&str| CredentialFault { fault: (*fault).into(), step: "untick it".into(), is_used: false };
    CredentialOutcome::Wrong { faults: faults.iter().map(fault).collect() }
}

fn unknown() -> CredentialOutcome {
    CredentialOutcome::Unknown { reason: "no answer".into() }
}

fn with_all_keys(declared: &mut Declared) {
    let cancel = DeclaredKey { name: "cancel".into(), print: KeyPrint::of("cancel"), role: KeyRole::Cancel };
    declared.stopping = Some(Stopping {
        mode: Mode::Ask,
        means: Means::SubAccount,
        keys: vec![cancel],
        hooks: Vec::new(),
        pausing: Vec::new(),
        quiet: Duration::from_secs(5),
        freeze_unanswered: None,
        transfer_to_master: false,
    });
}

#[test]
fn a_watch_key_that_may_trade_is_told_until_it_may_not() {
    let mut desk = Desk::open();
    checked(&mut desk, CredentialRole::Watch, CredentialOutcome::Fine);
    check(&desk, "");
    checked(&mut desk, CredentialRole::Watch, wrong(&["the watch key may trade", "the watch key may withdraw"]));
    let notice = desk.incident("credential_wrong");
    assert_eq!(notice.priority, Priority::Critical);
    assert_eq!(&*notice.lines[0].text, "the watch key may trade; the watch key may withdraw");
    assert!(notice.advice.iter().any(|step| **step == *"untick it"), "{:?}", notice.advice);
    desk.wait_ms(10);
    checked(&mut desk, CredentialRole::Watch, unknown());
    assert_eq!(desk.incident("credential_wrong").state, IncidentState::Open, "nothing good was learnt");
    checked(&mut desk, CredentialRole::Watch, CredentialOutcome::Fine);
    check(&desk, "credential_wrong ended");
}

#[test]
fn the_same_fault_again_is_not_told_again_and_another_one_is() {
    let mut desk = Desk::open_with(with_all_keys);
    let role = CredentialRole::Cancel;
    checked(&mut desk, role, wrong(&["may withdraw"]));
    let incident = desk.incident("credential_wrong").incident;
    desk.event(Event::Acknowledge { ticket: Ticket(1), by: "owner".into(), incident, shown: None });
    desk.wait_ms(50 * MINUTE);
    checked(&mut desk, role, wrong(&["may withdraw"]));
    assert_eq!(desk.incident("credential_wrong").state, IncidentState::Acknowledged);
    checked(&mut desk, role, wrong(&["may withdraw", "works from every address"]));
    assert_eq!(desk.incident("credential_wrong").state, IncidentState::Open);
    desk.declared.stopping = None;
    desk.restart();
    assert_eq!(desk.incident("credential_wrong").state, IncidentState::Ended, "it is not loaded any more");
}

#[test]
fn what_could_not_be_checked_for_an_hour_is_a_warning() {
    let mut desk = Desk::quiet(|_| {});
    checked(&mut desk, CredentialRole::Watch, CredentialOutcome::Fine);
    desk.wait_ms(50 * MINUTE);
    checked(&mut desk, CredentialRole::Watch, unknown());
    desk.wait_ms(9 * MINUTE);
    check(&desk, "");
    checked(&mut desk, CredentialRole::Watch, unknown());
    desk.wait_ms(2 * MINUTE);
    check(&desk, "credential_unchecked");
    let notice = desk.incident("credential_unchecked");
    assert_eq!(notice.priority, Priority::Warning);
    assert!(notice.lines[0].text.contains("no answer"), "{notice:?}");
    desk.wait_ms(300 * MINUTE);
    checked(&mut desk, CredentialRole::Watch, unknown());
    assert_eq!(desk.incident("credential_unchecked").lines.len(), 1, "it is told once");
    checked(&mut desk, CredentialRole::Watch, wrong(&["may trade"]));
    check(&desk, "credential_unchecked ended\n credential_wrong");
}

#[test]
fn the_status_names_each_key_and_never_calls_an_unknown_one_fine() {
    let mut desk = Desk::open_with(with_all_keys);
    let is = |desk: &Desk| {
        let text = |outcome: Option<CredentialOutcome>| match outcome {
            None => "-",
            Some(CredentialOutcome::Fine) => "fine",
            Some(CredentialOutcome::Wrong { .. }) => "wrong",
            Some(CredentialOutcome::Unknown { .. }) => "unknown",
        };
        let keys = desk.kernel.status().credentials;
        keys.into_iter().map(|key| format!("{} {}", key.role, text(key.outcome))).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(is(&desk), "watch -, cancel -, admin -");
    checked(&mut desk, CredentialRole::Watch, CredentialOutcome::Fine);
    checked(&mut desk, CredentialRole::Cancel, wrong(&["may withdraw"]));
    checked(&mut desk, CredentialRole::Admin, unknown());
    desk.restart();
    assert_eq!(is(&desk), "watch fine, cancel wrong, admin unknown");
    checked(&mut desk, CredentialRole::Watch, unknown());
    let watch = desk.kernel.status().credentials.remove(0);
    assert!(watch.made_at.is_some() && watch.outcome == Some(unknown()), "{watch:?}");
}

#[test]
fn an_admin_key_beside_the_bot_is_told_at_each_start_and_stands_in_the_coverage() {
    let mut desk = Desk::open_with(|declared| declared.admin_beside_bot = true);
    let told = |desk: &Desk| desk.told.iter().filter(|notice| &*notice.rule == "bot_host").count();
    assert_eq!((told(&desk), desk.incident("bot_host").priority), (1, Priority::Warning));
    let beside = |desk: &Desk| desk.kernel.status().cannot_see.iter().any(|text| text.contains("bot_host = \"here\""));
    assert!(beside(&desk));
    desk.restart();
    assert_eq!(told(&desk), 2, "each start is told");
    assert_eq!(desk.incident("bot_host").state, IncidentState::Open);
    desk.declared.admin_beside_bot = false;
    desk.restart();
    assert_eq!(desk.incident("bot_host").state, IncidentState::Ended);
    assert!(!beside(&desk));
}
