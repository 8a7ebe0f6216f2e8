//! What a line of an incident says, read as its owner reads it: which order, what was done to it, which gap.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::kernel::time::Time;
use crate::simulate::ledger::Key;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// An order is not the bot's.
    Placed(Key),
    Cancelled(Key),
    Amended(Key),
    EndedByTheExchange(Key),
    /// It is the bot's after all.
    Cleared(Key),
    ClearedRequest,
    Gap {
        from: Time,
        to: Option<Time>,
    },
    Blindness,
    FoundAfterTheGap,
    CopyMissing,
    CopiesDiffer,
    Unreadable,
    BooksDiffer,
    BotSilent,
    /// A bot speaks that is said to be stopped.
    NotStopped,
    Unjournalled,
    DiskStalled,
    ClockJumped,
    /// An announced order that the exchange does not know.
    UnseenOrder {
        id: String,
    },
    /// An announced cancel that did not happen; the number or id of its target.
    UnseenCancel {
        symbol: String,
        target: String,
    },
    Unproven,
    /// Why it did not act by itself.
    LeftToOwner,
    /// A containment was asked for about an incident that is not there.
    IncidentLost,
    /// The exchange's list of keys is not the declared one.
    KeysDiffer,
    Remark,
    Else,
}

impl Says {
    pub fn read(text: &str, symbols: &[&str]) -> Self {
        if let Some(key) = order(text, symbols) {
            return match text {
                _ if text.starts_with("cancelled") => Self::Cancelled(key),
                _ if text.starts_with("amended to") => Self::Amended(key),
                _ if text.starts_with("ended by the exchange") => Self::EndedByTheExchange(key),
                _ => Self::Placed(key),
            };
        }
        if let Some(rest) = text.strip_prefix("cleared: order ") {
            let words: Vec<&str> = rest.split([' ', ':']).collect();
            return match words.as_slice() {
                [id, "of", symbol, ..] => Self::Cleared(((*symbol).to_owned(), id.parse().unwrap_or(0))),
                _ => Self::Else,
            };
        }
        gap(text).or_else(|| unseen(text)).unwrap_or_else(|| sentence(text))
    }
}

/// `SELL 1200 VIABTC LIMIT at 0.000026 (order 77, id web_1)`.
fn order(text: &str, symbols: &[&str]) -> Option<Key> {
    let (before, after) = text.split_once("(order ")?;
    let (id, _) = after.split_once(", id ")?;
    let symbol = before.split(' ').find(|word| symbols.contains(word))?;
    Some((symbol.to_owned(), id.parse().ok()?))
}

fn gap(text: &str) -> Option<Says> {
    if let Some(rest) = text.strip_prefix("blind from ") {
        let (from, rest) = rest.split_once(" to ")?;
        let (to, _) = rest.split_once(" UTC")?;
        return Some(Says::Gap { from: time(from)?, to: Some(time(to)?) });
    }
    let rest = text.strip_prefix("countersign was not running, or could not see, from ")?;
    Some(Says::Gap { from: time(rest.strip_suffix(" UTC")?)?, to: None })
}

fn unseen(text: &str) -> Option<Says> {
    if text.ends_with("unknown to the exchange") {
        let (_, after) = text.split_once("(id ")?;
        return Some(Says::UnseenOrder { id: after.split_once(')')?.0.to_owned() });
    }
    let rest = text.strip_prefix("cancel of ")?;
    let rest = rest.strip_prefix("order with id ").or_else(|| rest.strip_prefix("order ")).unwrap_or(rest);
    let (target, rest) = rest.split_once(" of ")?;
    Some(Says::UnseenCancel { symbol: rest.split(':').next()?.to_owned(), target: target.to_owned() })
}

fn sentence(text: &str) -> Says {
    let has = |words: &str| text.contains(words);
    match text {
        _ if has("cleared: your bot's word on a request") => Says::ClearedRequest,
        _ if has("found after the gap") => Says::FoundAfterTheGap,
        _ if has("no connection is subscribed any more") || has("still blind") || has("nothing was heard on any") => {
            Says::Blindness
        }
        _ if has("never brought") => Says::CopyMissing,
        _ if has("the copy on connection") => Says::CopiesDiffer,
        _ if has("the frame is kept whole") => Says::Unreadable,
        _ if has("the exchange says") || has("the exchange does not know it") => Says::BooksDiffer,
        _ if has("was last heard at") => Says::BotSilent,
        _ if has("NOT STOPPED") => Says::NotStopped,
        _ if has("left before its cause was on disk") => Says::Unjournalled,
        _ if has("nothing has reached the disk for") => Says::DiskStalled,
        _ if has("the wall clock jumped") => Says::ClockJumped,
        _ if has("could not be looked up") => Says::Unproven,
        _ if has("countersign itself") || has("could not act by itself") || has("a freeze has no bound") => {
            Says::LeftToOwner
        }
        _ if has("which is not known here") => Says::IncidentLost,
        _ if has("the sub-account's list does not show") || has("keys that nobody declared") => Says::KeysDiffer,
        _ if has("the exchange's list shows the declared keys") => Says::Remark,
        _ if has("acknowledged by")
            || has("compared by REST")
            || has("the account can be seen")
            || has("the exchange accepts the watch key again")
            || has("the exchange shows it after all")
            || has("the bot says that it did not happen")
            || has("has announced its first intent")
            || has("speaks again")
            || has("speaks no more") =>
        {
            Says::Remark
        }
        _ => Says::Else,
    }
}

fn time(text: &str) -> Option<Time> {
    let civil = DateTime::strptime("%Y-%m-%d %H:%M:%S%.f", text).ok()?;
    let millis = TimeZone::UTC.to_timestamp(civil).ok()?.as_millisecond();
    Some(Time::from_millis(millis))
}

/// Whether a moment lies in a gap that was told, give or take.
pub fn covers(gaps: &[(Time, Option<Time>)], at: Time, edge: Duration) -> bool {
    gaps.iter().any(|(from, to)| at + edge >= *from && to.is_none_or(|to| at <= to + edge))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: [&str; 2] = ["BTCUSDT", "VIABTC"];

    #[test]
    fn reads_what_is_said_of_an_order() {
        let key = |symbol: &str, id| (symbol.to_owned(), id);
        for (text, says) in [
            ("SELL 12 VIABTC MARKET (order 7, id abc): not your bot", Says::Placed(key("VIABTC", 7))),
            ("cancelled, not your bot: BUY 1 BTCUSDT LIMIT at 5 (order 8, id x)", Says::Cancelled(key("BTCUSDT", 8))),
            (
                "amended to quantity 2, not your bot: BUY 1 BTCUSDT LIMIT at 5 (order 8, id x)",
                Says::Amended(key("BTCUSDT", 8)),
            ),
            (
                "cleared: order 9 of BTCUSDT: your bot's word on it came late, and holds",
                Says::Cleared(key("BTCUSDT", 9)),
            ),
            (
                "BUY 1 BTCUSDT (id me-1): announced by bot-0 (seq 5), unknown to the exchange",
                Says::UnseenOrder { id: "me-1".to_owned() },
            ),
            (
                "cancel of order with id me-1 of BTCUSDT: announced by bot-0 (seq 5), and the exchange shows no order that it ended",
                Says::UnseenCancel { symbol: "BTCUSDT".to_owned(), target: "me-1".to_owned() },
            ),
            ("something new", Says::Else),
        ] {
            assert_eq!(Says::read(text, &SYMBOLS), says, "{text}");
        }
    }

    #[test]
    fn reads_a_gap_as_it_is_told() {
        let from = Time::from_millis(1_764_000_000_250);
        let (told, later) = (from.to_string(), from + Duration::from_secs(2));
        let text = format!("blind from {told} to {later} UTC, 2.0 s; comparing by REST");
        assert_eq!(Says::read(&text, &SYMBOLS), Says::Gap { from, to: Some(later) });
        let text = format!("countersign was not running, or could not see, from {told} UTC");
        assert_eq!(Says::read(&text, &SYMBOLS), Says::Gap { from, to: None });
        assert!(covers(&[(from, Some(later))], later + Duration::from_millis(5), Duration::from_millis(5)));
        assert!(!covers(&[(from, Some(later))], later + Duration::from_millis(6), Duration::from_millis(5)));
    }
}
