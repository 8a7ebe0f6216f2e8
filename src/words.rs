//! The account in plain text, for the terminal and the chat alike.

use std::fmt::Write;

use crate::kernel::account::{
    Allowance, BotStatus, ClaimStatus, CredentialStatus, ExceptionStatus, RequestStatus, Status,
};
use crate::kernel::card;
use crate::kernel::containment::{Aim, Progress, StepState};
use crate::kernel::coverage::Sight;
use crate::kernel::credential::CredentialOutcome;
use crate::kernel::incident::{IncidentState, Line, Notice, Priority};
use crate::kernel::order::Symbol;

/// Incidents that a list shows; older ones are counted.
const LISTED_MAX: usize = 20;

pub fn status(status: &Status) -> String {
    let sight = match status.sight {
        Sight::Blind => "BLIND: countersign cannot see the account now",
        Sight::Live => "live, not proved (no comparison by REST has agreed since)",
        Sight::Proved => "live and proved",
    };
    let mut text = format!("{} · {sight} · {} connections\n", status.account, status.connections);
    status.bots.iter().for_each(|bot| tell_bot(&mut text, bot));
    let orders = &status.orders;
    say(
        &mut text,
        format_args!(
            "orders: {} matched, {} not your bot's, {} waiting, {} open before countersign looked, {} by hand\n",
            orders.matched, orders.strangers, orders.pending, orders.pre_existing, orders.by_hand
        ),
    );
    say(
        &mut text,
        format_args!(
            "reports: {}, second copies {}, kept unread {}; gaps {}; differences by REST {}\n",
            status.counts.reports, status.counts.echoes, status.counts.kept_raw, status.gaps, status.rest_differences
        ),
    );
    say(&mut text, format_args!("open incidents: {}\n", status.open_incidents));
    if let Some(digest) = &status.confirm {
        say(&mut text, format_args!("orders open at the start wait for: countersign confirm {digest}\n"));
    }
    say(&mut text, format_args!("stopping: {}\n", status.stopping));
    for credential in &status.credentials {
        say(&mut text, format_args!("key {}: {}\n", credential.role, credential_told(credential)));
    }
    if let Some(claim) = &status.claim {
        say(&mut text, format_args!("CLAIM WINDOW OPEN: {}\n", claim_told(claim)));
    }
    if !status.requests.is_empty() {
        text.push_str(&requests(&status.requests));
    }
    if !status.allowed.is_empty() {
        text.push_str("allowed:\n");
    }
    for Allowance { what, by, why, until, .. } in &status.allowed {
        let why = card::quoted(why.as_deref().unwrap_or_default());
        say(&mut text, format_args!("  - {what}, by {by}, until {until} UTC: {why}\n"));
    }
    text.push_str("cannot be seen:\n");
    for line in &status.cannot_see {
        say(&mut text, format_args!("  - {line}\n"));
    }
    if !status.exceptions.is_empty() {
        text.push_str("kept quiet by exceptions:\n");
    }
    for exception in &status.exceptions {
        say(&mut text, format_args!("  - {}\n", exception_told(exception)));
    }
    text
}

fn tell_bot(text: &mut String, bot: &BotStatus) {
    let state = match (bot.connected, bot.silent) {
        (_, true) => "SILENT",
        (false, false) => "has announced nothing yet",
        (true, false) => "speaks",
    };
    let heard = bot.heard_at.map(|at| format!(", last heard {at} UTC")).unwrap_or_default();
    say(text, format_args!("bot {}: {state}{heard}, record {}\n", bot.bot, bot.last_seq));
    if bot.missing_records > 0 {
        say(text, format_args!("  {} of its records never arrived\n", bot.missing_records));
    }
}

/// What waits for another person's approval.
pub fn requests(requests: &[RequestStatus]) -> String {
    if requests.is_empty() {
        return "no request waits\n".to_owned();
    }
    let mut text = "waiting for another person's approval:\n".to_owned();
    for RequestStatus { request, by, what, why, expires, needs_totp } in requests {
        let why = card::quoted(why.as_deref().unwrap_or("no reason was given"));
        let code = if *needs_totp { ", with a one-time password" } else { "" };
        say(&mut text, format_args!("  {request}. {what}, asked for by {by}, until {expires} UTC{code}: {why}\n"));
    }
    text
}

fn credential_told(credential: &CredentialStatus) -> String {
    let at = credential.checked_at.map(|at| format!("checked at {at} UTC")).unwrap_or_default();
    match &credential.outcome {
        None => "not checked yet".to_owned(),
        Some(CredentialOutcome::Fine) => format!("fine, {at}"),
        Some(CredentialOutcome::Wrong { faults }) => {
            let faults: Vec<String> = faults.iter().map(|wrong| format!("{} ({})", wrong.fault, wrong.step)).collect();
            format!("WRONG, {at}: {}", faults.join("; "))
        }
        Some(CredentialOutcome::Unknown { reason }) => {
            let made = credential.made_at.map_or_else(|| "never".to_owned(), |made| format!("at {made} UTC"));
            format!("NOT KNOWN, {at}: {}; last check that could be made: {made}", card::quoted(reason))
        }
    }
}

fn claim_told(claim: &ClaimStatus) -> String {
    let sides: Vec<&str> = claim.sides.iter().map(|side| side.word()).collect();
    let symbols: Vec<&str> = claim.symbols.iter().map(Symbol::as_str).collect();
    let used = claim.notional.iter().map(|(asset, of)| format!("{} of {} {asset} used", of.used, of.bound));
    format!(
        "until {} UTC {} of {} count as yours, made by hand; {} of {} orders, {}; opened by {}: {}",
        claim.until,
        sides.join(" and "),
        symbols.join(", "),
        claim.orders_used,
        claim.orders,
        used.collect::<Vec<_>>().join(", "),
        card::quoted(&claim.by),
        card::quoted(&claim.reason)
    )
}

fn exception_told(exception: &ExceptionStatus) -> String {
    let ExceptionStatus { name, rule, owner, expires, findings, .. } = exception;
    let used = exception.notional.iter().map(|(asset, of)| {
        let up = if of.used >= of.bound { " (USED UP)" } else { "" };
        format!("{} of {} {asset} used{up}", of.used, of.bound)
    });
    let used = used.collect::<Vec<_>>().join(", ");
    let until = if exception.expired { "EXPIRED at" } else { "until" };
    let of = if exception.local { "" } else { ", above the floor only" };
    format!("{name}: {rule}{of}, for {owner}, {until} {expires}; {used}; findings {findings}")
}

/// What would be done, before anybody asks for it.
pub fn plan(progress: &Progress) -> String {
    format!("What would be done; nothing is done yet.\n{}", steps(progress))
}

/// How far it is, and how it ended.
pub fn containment(progress: &Progress) -> String {
    let clock_of = |text: &mut String, what: &str, ms: Option<i64>| match ms {
        Some(ms) => say(text, format_args!("{what}: after {}.{:03} s\n", ms / 1_000, ms % 1_000)),
        None if progress.end.is_none() => say(text, format_args!("{what}: not yet\n")),
        None => {}
    };
    let mut text = format!("{}, asked for by {}\n", progress.word.to_uppercase(), progress.asked_by);
    text.push_str(&steps(progress));
    if progress.aim != Aim::Release {
        clock_of(&mut text, "new orders blocked", progress.blocked_ms);
    }
    // Nothing else looks at orders.
    if progress.aim == Aim::Kill {
        clock_of(&mut text, "strangers' orders gone", progress.orders_gone_ms);
    }
    if let Some(before) = &progress.before {
        say(&mut text, format_args!("before this: {before}\n"));
    }
    text
}

/// What was seen, line by line.
pub fn seen(progress: &Progress) -> String {
    let mut text = String::new();
    for Line { at, text: seen } in &progress.lines {
        say(&mut text, format_args!("{at} {seen}\n"));
    }
    text
}

fn steps(progress: &Progress) -> String {
    let mut text = String::new();
    for (number, step) in (1..).zip(&progress.steps) {
        let state = match step.state {
            StepState::Waiting => "waits",
            StepState::UnderWay => "under way",
            StepState::Failing => "FAILING",
            StepState::Proved => "proved",
            StepState::NotProved => "NOT PROVED",
        };
        let detail = step.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
        say(&mut text, format_args!("{number:>3}. [{state}] {}{detail}\n", step.what));
        if step.state != StepState::Proved {
            say(&mut text, format_args!("     when: {}; proof: {}\n", step.after, step.proof));
            say(&mut text, format_args!("     until then: {}\n", step.on_failure));
        }
    }
    text
}

pub fn incidents(notices: &[Notice]) -> String {
    if notices.is_empty() {
        return "no incidents\n".to_owned();
    }
    let mut text = String::new();
    for notice in notices.iter().rev().take(LISTED_MAX) {
        let state = match notice.state {
            IncidentState::Open => "open",
            IncidentState::Acknowledged => "acknowledged",
            IncidentState::Ended => "ended",
        };
        say(
            &mut text,
            format_args!(
                "{:>8}  {:<8}  {:<12}  {} UTC  {}{}\n",
                notice.incident.0,
                priority(notice.priority),
                state,
                notice.opened_at,
                notice.headline,
                money(notice)
            ),
        );
    }
    if notices.len() > LISTED_MAX {
        say(&mut text, format_args!("and {} older ones\n", notices.len() - LISTED_MAX));
    }
    text
}

pub fn incident(notice: &Notice) -> String {
    format!("{}\n", card::card(notice, false).plain)
}

pub const fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Info => "info",
        Priority::Warning => "warning",
        Priority::Critical => "CRITICAL",
    }
}

fn money(notice: &Notice) -> String {
    if notice.orders == 0 {
        return String::new();
    }
    let sums: Vec<String> = notice.notional.iter().map(|(asset, sum)| format!("{} {asset}", sum.rounded(8))).collect();
    let orders = if notice.orders == 1 { "order" } else { "orders" };
    // What was cancelled before it traded leaves none.
    let sums = if sums.is_empty() { "no money traded or open".to_owned() } else { sums.join(" + ") };
    format!(" ({} {orders}, {sums})", notice.orders)
}

fn say(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::card::tests::notice;
    use crate::kernel::containment::End;
    use crate::kernel::incident::Priority;
    use crate::kernel::time::Time;

    /// A clock that ran or runs is told; of what has ended without it, and of what gives back, there is none.
    #[test]
    fn a_containment_has_the_clocks_that_run_or_ran() {
        let (blocked, gone) = ("new orders blocked: ", "strangers' orders gone: ");
        for (aim, end, clocks, says, hides) in [
            (Aim::Kill, None, [None, None], vec![blocked, gone, "not yet"], vec![]),
            (Aim::Kill, Some(End::Contained), [Some(1), Some(2)], vec!["0.001 s", "0.002 s"], vec!["not yet"]),
            (Aim::Kill, Some(End::RevokedUnprobed), [None, Some(2)], vec![gone], vec![blocked]),
            (Aim::Freeze, None, [None, None], vec!["blocked: not yet"], vec![gone]),
            (Aim::Release, None, [Some(1), None], vec![], vec![blocked, gone]),
            (Aim::Release, Some(End::Released), [Some(1), None], vec![], vec![blocked, gone]),
        ] {
            let at = Time::from_millis(1_764_000_005_123);
            let progress = Progress {
                word: "as it is".into(),
                aim,
                incident: None,
                asked_by: "owner".into(),
                started_at: at,
                blocked_ms: clocks[0],
                orders_gone_ms: clocks[1],
                ended_ms: None,
                end,
                bot_is_being_stopped: false,
                steps: Vec::new(),
                before: None,
                lines: vec![Line { at, text: "key bot: no right is left".into() }],
            };
            let text = containment(&progress);
            assert!(says.iter().all(|part| text.contains(part)), "{aim:?} {end:?}: {says:?} in {text}");
            assert!(!hides.iter().any(|part| text.contains(part)), "{aim:?} {end:?}: none of {hides:?} in {text}");
            assert_eq!(seen(&progress), "2025-11-24 16:00:05.123 key bot: no right is left\n");
        }
    }

    /// A kill cancels what has not traded, and then there is no money in it.
    #[test]
    fn a_list_says_what_money_is_in_an_incident_or_that_none_is() {
        let mut shown = notice("main", 12, 3, Priority::Critical);
        assert!(incidents(std::slice::from_ref(&shown)).contains("(1 order, 320.5 USDT)"));
        shown.notional.clear();
        assert!(incidents(&[shown]).contains("(1 order, no money traded or open)"));
    }
}
