//! Orders over an account as somebody types them in a chat. The one-time password was cut out at the edge.

use crate::kernel::claim::{Claim, check_reason};
use crate::kernel::command::{Allowable, Command, read_span};
use crate::kernel::incident::IncidentId;
use crate::kernel::order::Account;

/// The commands that take a one-time password: for them alone it is checked.
pub const WORDS_WITH_CODE: [&str; 6] = ["/resume", "/disarm", "/arm", "/allow", "/manual", "/approve"];

/// What was typed, or what is wrong with it and how it should have been.
pub(crate) type Typed = Result<Order, Box<str>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// None where there is but one.
    pub account: Option<Account>,
    pub command: Command,
    pub why: Option<Box<str>>,
}

/// None for any other word.
pub(crate) fn order(word: &str, rest: &[&str]) -> Option<Typed> {
    let typed = match word {
        "/resume" => over_account(rest, |why| Some((Command::Resume, why.to_vec()))),
        "/arm" => over_account(rest, |why| Some((Command::Arm, why.to_vec()))),
        "/disarm" => over_account(rest, |rest| {
            let (for_s, why) = span_first(rest);
            Some((Command::Disarm { for_s }, why))
        }),
        "/allow" => over_account(rest, allow),
        "/manual" => {
            return Some(manual(rest).map_err(|wrong| format!("{wrong}. Like this: {}", usage(word)).into()));
        }
        "/notme" => not_me(rest),
        "/approve" => of_request(rest, |request| Command::Approve { request }),
        "/decline" => of_request(rest, |request| Command::Decline { request }),
        _ => return None,
    };
    Some(typed.ok_or_else(|| format!("Like this: {}", usage(word)).into()))
}

fn over_account<'a>(rest: &[&'a str], read: impl Fn(&[&'a str]) -> Option<(Command, Vec<&'a str>)>) -> Option<Order> {
    let (account, rest) = rest.split_first()?;
    let (command, why) = read(rest)?;
    let why = (!why.is_empty()).then(|| why.join(" ").into());
    Some(Order { account: Some(Account::new(account)), command, why })
}

fn allow<'a>(rest: &[&'a str]) -> Option<(Command, Vec<&'a str>)> {
    let (what, rest) = rest.split_first()?;
    let what: Allowable = what.parse().ok()?;
    if rest == ["end"] {
        return Some((Command::EndAllowance { what }, Vec::new()));
    }
    let (for_s, why) = span_first(rest);
    Some((Command::Allow { what, for_s }, why))
}

fn manual(rest: &[&str]) -> Result<Order, String> {
    let of = |account: &str, command, why| Order { account: Some(Account::new(account)), command, why };
    match rest {
        [account, word] if word.eq_ignore_ascii_case("end") => Ok(of(account, Command::EndManual, None)),
        [account, symbols, sides, notional, orders, span, why @ ..] => {
            let why = why.join(" ");
            let claim = Claim::parse(symbols, sides, notional, orders, span)?;
            check_reason(&why)?;
            Ok(of(account, Command::Manual { claim }, Some(why.into())))
        }
        _ => Err("Something is missing".to_owned()),
    }
}

fn not_me(rest: &[&str]) -> Option<Order> {
    let (account, window) = match rest {
        [account] => (account, None),
        [account, id] => (account, Some(IncidentId(id.trim_start_matches('#').parse().ok()?))),
        _ => return None,
    };
    Some(Order { account: Some(Account::new(account)), command: Command::NotMe { window }, why: None })
}

fn of_request(rest: &[&str], command: impl Fn(u32) -> Command) -> Option<Order> {
    let (account, number) = match rest {
        [number] => (None, number),
        [account, number] => (Some(Account::new(account)), number),
        _ => return None,
    };
    let number = number.trim_start_matches('#').parse().ok()?;
    Some(Order { account, command: command(number), why: None })
}

fn span_first<'a>(rest: &[&'a str]) -> (Option<u64>, Vec<&'a str>) {
    match rest.split_first() {
        Some((first, why)) if read_span(first).is_some() => (read_span(first), why.to_vec()),
        Some(_) | None => (None, rest.to_vec()),
    }
}

/// How it is typed.
pub(crate) fn usage(word: &str) -> &'static str {
    match word {
        "/disarm" => "/disarm ACCOUNT CODE [2h] WHY",
        "/arm" => "/arm ACCOUNT CODE WHY",
        "/allow" => "/allow ACCOUNT CODE ADDRESS_OR_KEY [30d] WHY, or /allow ACCOUNT ADDRESS_OR_KEY end",
        "/manual" => "/manual ACCOUNT CODE BTCUSDT,ETHUSDT BUY|SELL|both 2000USDT 3 30m WHY, or /manual ACCOUNT end",
        "/notme" => "/notme ACCOUNT, or /notme ACCOUNT INCIDENT",
        "/approve" => "/approve NUMBER CODE",
        "/decline" => "/decline NUMBER",
        _ => "/resume ACCOUNT CODE WHY",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Option<Typed> {
        let words: Vec<&str> = text.split_whitespace().collect();
        order(words[0], &words[1..])
    }

    #[test]
    fn an_order_is_read_whole_or_its_form_is_shown() {
        let network = || "203.0.113.0/24".parse().unwrap();
        for (text, account, command, why) in [
            ("/resume main", Some("main"), Command::Resume, None),
            ("/arm main it  is over", Some("main"), Command::Arm, Some("it is over")),
            ("/disarm main", Some("main"), Command::Disarm { for_s: None }, None),
            (
                "/disarm main 2h the host moves",
                Some("main"),
                Command::Disarm { for_s: Some(7_200) },
                Some("the host moves"),
            ),
            ("/disarm main for 2h", Some("main"), Command::Disarm { for_s: None }, Some("for 2h")),
            (
                "/allow main 203.0.113.0/24 30d the new office",
                Some("main"),
                Command::Allow { what: network(), for_s: Some(2_592_000) },
                Some("the new office"),
            ),
            ("/allow main 203.0.113.0/24 end", Some("main"), Command::EndAllowance { what: network() }, None),
            (
                "/allow main 203.0.113.0/24 end of lease",
                Some("main"),
                Command::Allow { what: network(), for_s: None },
                Some("end of lease"),
            ),
            ("/manual main end", Some("main"), Command::EndManual, None),
            ("/notme main", Some("main"), Command::NotMe { window: None }, None),
            ("/notme main #12", Some("main"), Command::NotMe { window: Some(IncidentId(12)) }, None),
            (
                "/manual main BTCUSDT both 2000USDT 3 30m rebalancing  by hand",
                Some("main"),
                Command::Manual { claim: Claim::parse("BTCUSDT", "both", "2000USDT", "3", "30m").unwrap() },
                Some("rebalancing by hand"),
            ),
            ("/approve 3", None, Command::Approve { request: 3 }, None),
            ("/approve main #3", Some("main"), Command::Approve { request: 3 }, None),
            ("/decline 3", None, Command::Decline { request: 3 }, None),
        ] {
            let expected = Order { account: account.map(Account::new), command, why: why.map(Into::into) };
            assert_eq!(typed(text), Some(Ok(expected)), "{text}");
        }
        for text in [
            "/resume",
            "/disarm",
            "/arm",
            "/allow main",
            "/allow main home 30d it",
            "/approve",
            "/approve x",
            "/approve main 3 4",
            "/decline",
        ] {
            assert!(matches!(typed(text), Some(Err(_))), "{text}");
        }
        assert_eq!(typed("/kill main"), None);
    }

    #[test]
    fn a_claim_that_cannot_be_read_is_answered_with_what_is_wrong_and_the_form() {
        for (text, wrong) in [
            ("/manual", "Something is missing"),
            ("/manual main BTCUSDT BUY 2000USDT 3", "Something is missing"),
            ("/manual main BTCUSDT BUY 2000 USDT 3 30m why", "no money"),
            ("/manual main BTCUSDT BUY 2000USDT 3 30m", "say why"),
            ("/notme", ""),
            ("/notme main twelve", ""),
        ] {
            let Some(Err(what)) = typed(text) else { panic!("{text}") };
            assert!(what.contains(wrong) && what.contains("Like this: /"), "{text}: {what}");
        }
    }
}
