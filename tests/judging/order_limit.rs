//! Orders refused for the account's own limit, which somebody else may have used up.

use countersign::kernel::incident::{IncidentState, Notice};
use countersign::kernel::intent::SendOutcome;

use crate::desk::Desk;

const LIMIT: &str = "Too many new orders; current limit is 20 orders per 10 SECOND.";

fn placed(desk: &mut Desk, from: i64, count: i64) {
    for number in from..from + count {
        let order = desk.order(number, &format!("own-{number}"));
        desk.say(order.place());
    }
}

fn refused(desk: &mut Desk, code: i64, message: &str) {
    let of = desk.last_seq();
    desk.result(of, SendOutcome::Rejected { code: Some(code), message: message.into() });
}

fn told(desk: &Desk) -> Option<Notice> {
    desk.kernel.notices().into_iter().find(|notice| &*notice.rule == "order_limit")
}

#[test]
fn a_limit_that_the_bots_cannot_have_used_up_is_told() {
    for (own, code, message, is_told) in [
        (3, -1015, LIMIT, true),
        (10, -1015, LIMIT, true),
        // The bots themselves may have done it.
        (11, -1015, LIMIT, false),
        (40, -1015, LIMIT, false),
        // Another refusal, or one that does not say enough: nothing is known.
        (3, -1003, LIMIT, false),
        (3, -1015, "Too many new orders.", false),
        (3, -1015, "Too many new orders; current limit is 160000 orders per DAY.", false),
        (3, -1015, "Too many new orders; current limit is 20 orders per 99999999999999999999 SECOND.", false),
        (3, -1015, "Too many new orders; current limit is 6 orders per MINUTE", true),
    ] {
        let mut desk = Desk::open();
        desk.wait_ms(600_000);
        placed(&mut desk, 2, own);
        refused(&mut desk, code, message);
        assert_eq!(told(&desk).is_some(), is_told, "{own} {code} {message}");
    }
}

#[test]
fn it_is_told_once_an_hour_and_holds_nothing_up() {
    let mut desk = Desk::open();
    desk.wait_ms(60_000);
    placed(&mut desk, 2, 2);
    refused(&mut desk, -1015, LIMIT);
    let first = told(&desk).unwrap();
    assert!(
        first.lines[0].text.contains("more than 20 orders in 10 s; its bots announced 2 in the last 20 s"),
        "{first:#?}"
    );
    placed(&mut desk, 4, 1);
    refused(&mut desk, -1015, LIMIT);
    desk.restart();
    desk.live(5);
    placed(&mut desk, 5, 1);
    refused(&mut desk, -1015, LIMIT);
    assert_eq!(told(&desk).unwrap().lines.len(), 1);
    desk.wait_ms(3_600_000);
    placed(&mut desk, 6, 1);
    refused(&mut desk, -1015, LIMIT);
    let again = told(&desk).unwrap();
    assert_eq!((again.lines.len(), again.state), (2, IncidentState::Open));
}
