//! What the webhook carries, as JSON that other programs read: the shapes are documented and only grow.
//!
//! Every body has `v` (1), `kind` and `number` (the same number again is the same message, perhaps repeated).
//! `card`, `update`, `reminder` and `ended` carry one incident whole; `digest` and `reminders` name many in short;
//! `text` is a sentence about countersign itself. `drill` (true) stands with an incident that is a drill: nothing happened. `unjournalled` (true) stands in a body that left before its cause was
//! on disk. Decimals are strings, times are milliseconds since the epoch, UTC.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::kernel::incident::{IncidentId, IncidentState, Notice, Priority};
use crate::kernel::money::Dec;
use crate::kernel::order::{Account, Asset, Symbol};
use crate::kernel::time::Time;

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HookKind {
    Card,
    Update,
    Reminder,
    Ended,
}

#[derive(Serialize)]
struct Incident<'a> {
    v: u8,
    kind: HookKind,
    number: u64,
    incident: IncidentId,
    account: &'a Account,
    state: IncidentState,
    priority: Priority,
    rule: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    drill: bool,
    headline: &'a str,
    orders: u64,
    symbols: &'a [Symbol],
    notional: BTreeMap<&'a Asset, Dec>,
    lines: Vec<LineOf<'a>>,
    lines_left_out: u64,
    certainty: &'a str,
    advice: &'a [Box<str>],
    limits_of_sight: &'a [Box<str>],
    acknowledged_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contained: Option<ContainedOf<'a>>,
    revision: u64,
    repeated: bool,
    opened_at: i64,
    at: i64,
}

#[derive(Serialize)]
struct LineOf<'a> {
    at: i64,
    text: &'a str,
}

/// How far the containment is, in the words of the card.
#[derive(Serialize)]
struct ContainedOf<'a> {
    word: &'a str,
    asked_by: &'a str,
    blocked_ms: Option<i64>,
    orders_gone_ms: Option<i64>,
    lines: Vec<LineOf<'a>>,
}

#[derive(Serialize)]
struct Many<'a> {
    v: u8,
    kind: &'static str,
    number: u64,
    incidents: Vec<Short<'a>>,
}

#[derive(Serialize)]
struct Short<'a> {
    incident: IncidentId,
    account: &'a Account,
    state: IncidentState,
    priority: Priority,
    rule: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    drill: bool,
    headline: &'a str,
    orders: u64,
    notional: BTreeMap<&'a Asset, Dec>,
    revision: u64,
    repeated: bool,
    at: i64,
}

#[derive(Serialize)]
struct Text<'a> {
    v: u8,
    kind: &'static str,
    number: u64,
    text: &'a str,
    repeated: bool,
    at: i64,
}

pub(crate) fn incident(number: u64, kind: HookKind, notice: &Notice, repeated: bool) -> Box<str> {
    json(&Incident {
        v: 1,
        kind,
        number,
        incident: notice.incident,
        account: &notice.account,
        state: notice.state,
        priority: notice.priority,
        rule: &notice.rule,
        drill: notice.is_drill(),
        headline: &notice.headline,
        orders: notice.orders,
        symbols: &notice.symbols,
        notional: notional(notice),
        lines: notice.lines.iter().map(|line| LineOf { at: line.at.millis(), text: &line.text }).collect(),
        lines_left_out: notice.lines_left_out,
        certainty: &notice.certainty,
        advice: &notice.advice,
        limits_of_sight: &notice.limits_of_sight,
        acknowledged_by: notice.acknowledged_by.as_deref(),
        contained: notice.contained.as_ref().map(|contained| ContainedOf {
            word: &contained.word,
            asked_by: &contained.asked_by,
            blocked_ms: contained.blocked_ms,
            orders_gone_ms: contained.orders_gone_ms,
            lines: contained.lines.iter().map(|line| LineOf { at: line.at.millis(), text: &line.text }).collect(),
        }),
        revision: notice.revision,
        repeated: repeated || notice.repeated,
        opened_at: notice.opened_at.millis(),
        at: notice.updated_at.millis(),
    })
}

pub(crate) fn many(number: u64, kind: &'static str, notices: &[(&Notice, bool)]) -> Box<str> {
    json(&Many {
        v: 1,
        kind,
        number,
        incidents: notices
            .iter()
            .map(|(notice, repeated)| Short {
                incident: notice.incident,
                account: &notice.account,
                state: notice.state,
                priority: notice.priority,
                rule: &notice.rule,
                drill: notice.is_drill(),
                headline: &notice.headline,
                orders: notice.orders,
                notional: notional(notice),
                revision: notice.revision,
                repeated: *repeated || notice.repeated,
                at: notice.updated_at.millis(),
            })
            .collect(),
    })
}

pub(crate) fn text(number: u64, text: &str, repeated: bool, at: Time) -> Box<str> {
    json(&Text { v: 1, kind: "text", number, text, repeated, at: at.millis() })
}

fn notional(notice: &Notice) -> BTreeMap<&Asset, Dec> {
    notice.notional.iter().map(|(asset, amount)| (asset, *amount)).collect()
}

fn json(body: &impl Serialize) -> Box<str> {
    serde_json::to_string(body).expect("strings, numbers and maps with string keys always make JSON").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::card::tests::notice;

    #[test]
    fn the_shape_of_an_incident_is_stable() {
        let body = incident(7, HookKind::Card, &notice("main", 12, 3, Priority::Critical), true);
        assert_eq!(
            &*body,
            r#"{"v":1,"kind":"card","number":7,"incident":12,"account":"main","state":"open","priority":"critical","rule":"foreign_order","headline":"Not your bot","orders":1,"symbols":["THINUSDT"],"notional":{"USDT":"320.5"},"lines":[{"at":1764000005123,"text":"SELL 100 THINUSDT at 3.205, filled"}],"lines_left_out":0,"certainty":"Certain: the order carries no countersign, and this account is tagged-only.","advice":["Delete the API key on the exchange's page."],"limits_of_sight":["Which key sent it: the exchange does not say."],"acknowledged_by":null,"revision":3,"repeated":true,"opened_at":1764000005123,"at":1764000005123}"#
        );
    }
}
