//! Drills: judged like a theft, told like one, and counted nowhere.

use countersign::kernel::act::KeyPrint;
use countersign::kernel::command::{Command, Totp};
use countersign::kernel::event::{Answer, Event, TagCheck, Tags, Ticket};
use countersign::kernel::incident::{IncidentState, Notice, Priority};
use countersign::kernel::order::Symbol;
use countersign::kernel::rule::{Pack, RuleSet};
use countersign::kernel::stopping::{DeclaredKey, KeyRole, Means, Mode, Stopping};

use crate::desk::{Desk, check};

fn drill(desk: &mut Desk) -> Answer {
    let mut order = desk.order(1, "countersign-drill");
    order.symbol = Symbol::new("DRILLUSDT");
    let (report, _) = order.placed();
    let tags = Tags { order: TagCheck::Absent, request: TagCheck::Absent };
    let event =
        Event::Drill { ticket: Ticket(1), by: "operator".into(), report: Box::new(report), tags, raw: "{}".into() };
    desk.event(event);
    desk.answers.pop().expect("a drill is answered")
}

fn told(desk: &Desk) -> Notice {
    desk.incident("drill")
}

#[test]
fn a_drill_is_told_as_a_theft_would_be_and_ends_by_itself() {
    let mut desk = Desk::open();
    let before = desk.kernel.status();
    assert_eq!(drill(&mut desk), Answer::Done);
    let notice = told(&desk);
    assert_eq!((notice.priority, notice.state, notice.orders), (Priority::Critical, IncidentState::Open, 0));
    assert!(notice.is_drill() && notice.notional.is_empty() && notice.symbols.is_empty());
    assert!(notice.headline.starts_with("DRILL ") && notice.headline.contains("An order that is not your bot's"));
    assert!(notice.lines[0].text.starts_with("DRILL by operator, no real order: "), "{notice:?}");
    assert!(notice.lines[0].text.contains("DRILLUSDT"), "{notice:?}");
    let status = desk.kernel.status();
    assert_eq!((status.orders, status.counts, status.open_incidents), (before.orders, before.counts, 0));
    assert!(matches!(drill(&mut desk), Answer::Refused { .. }), "one at a time");
    desk.wait_ms(30_000);
    assert_eq!(told(&desk).state, IncidentState::Ended);
    assert_eq!(drill(&mut desk), Answer::Done);
    assert_eq!(desk.kernel.notices().iter().filter(|notice| notice.is_drill()).count(), 2);
}

#[test]
fn a_drill_mixes_with_no_theft_and_contains_nothing() {
    let mut desk = Desk::open_with(|declared| {
        let key = DeclaredKey { name: "bot".into(), print: KeyPrint::of("bot"), role: KeyRole::Bot };
        declared.stopping = Some(Stopping {
            mode: Mode::Act,
            means: Means::SubAccount,
            keys: vec![key],
            hooks: Vec::new(),
            quiet: std::time::Duration::from_secs(5),
            freeze_unanswered: Some(std::time::Duration::from_secs(10)),
            transfer_to_master: false,
        });
    });
    desk.wait_ms(86_400_000);
    desk.pass();
    desk.acts.clear();
    desk.reads.clear();
    assert_eq!(drill(&mut desk), Answer::Done);
    // Not even when somebody presses its button.
    let (ticket, by, incident) = (Ticket(2), "owner".into(), Some(told(&desk).incident));
    desk.event(Event::Command { ticket, by, incident, command: Command::Kill, totp: Totp::Absent });
    let answer = desk.answers.pop();
    assert!(matches!(&answer, Some(Answer::Refused { reason }) if reason.contains("a drill")), "{answer:?}");
    desk.wait_ms(20_000);
    assert!(desk.acts.is_empty() && desk.reads.is_empty() && desk.kernel.progress().is_none());
    let thief = desk.order(3, "thief");
    desk.show(thief.placed());
    desk.wait_ms(1);
    desk.pass();
    assert_eq!(desk.incident("foreign_order").orders, 1);
    assert_eq!(told(&desk).orders, 0);
}

#[test]
fn a_drill_survives_a_restart_and_still_ends() {
    let mut desk = Desk::quiet(|_| {});
    assert_eq!(drill(&mut desk), Answer::Done);
    desk.restart();
    desk.live(9);
    desk.wait_ms(30_000);
    assert_eq!(told(&desk).state, IncidentState::Ended);
    assert_eq!(desk.kernel.status().orders.strangers, 0);
    check(&desk, "drill ended\n blind ended");
}

#[test]
fn no_pack_can_pass_for_a_drill() {
    let pack = |name: &str, cause: &str| -> Pack {
        let text = format!(
            "pack = \"p\"\n[[rule]]\nname = \"{name}\"\nheadline = \"h\"\ndescription = \"d\"\npriority = \"info\"\n\
             response = \"notify\"\ncause = \"{cause}\"\nwhen = {{ field = \"side\", in = [\"BUY\"] }}\n\
             fires = [{{ side = \"BUY\" }}]\nquiet = [{{ side = \"SELL\" }}]\n"
        );
        toml::from_str(&text).unwrap()
    };
    assert!(RuleSet::new([pack("mine", "stranger")]).is_ok());
    for (name, cause) in [("drill", "stranger"), ("mine", "drill")] {
        assert!(RuleSet::new([pack(name, cause)]).unwrap_err().contains("drill"), "{name} {cause}");
    }
}
