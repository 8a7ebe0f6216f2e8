//! The words of an alert. In this order: what happened (money in the quote asset), how sure and why, what we did,
//! what you can do now, what we cannot see.
//!
//! Invariants: nothing that came from outside can make markup, a new line or a reversed line; a text is short enough
//! for Telegram with the outlet's short code under it, and says how much it left out.

use std::time::Duration;

use crate::kernel::incident::{Contained, IncidentState, Notice, Priority};
use crate::kernel::money::Dec;
use crate::kernel::order::Asset;
use crate::kernel::time::Time;

/// Telegram takes 4096 UTF-16 units after its entities are parsed; the rest is room for the code and a margin.
pub const UNITS_MAX: usize = 3_900;
const HEADLINE_UNITS_MAX: usize = 300;
const SENTENCE_UNITS_MAX: usize = 400;
const SHORT_UNITS_MAX: usize = 160;
const SENTENCES_MAX: usize = 4;
const SYMBOLS_MAX: usize = 8;
const ASSETS_MAX: usize = 5;

const NOTHING_DONE: &str = "nothing yet.";

/// One text in the two forms a channel can take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    pub plain: String,
    pub html: String,
}

/// The whole incident as a person should see it now; the oldest lines give way.
#[must_use]
pub fn card(notice: &Notice, repeated: bool) -> Words {
    let mut kept = notice.lines.len();
    loop {
        let words = drawn(notice, repeated, kept);
        if kept == 0 || words.units() <= UNITS_MAX {
            return words;
        }
        kept -= kept.div_ceil(8);
    }
}

#[must_use]
pub fn reminder(notice: &Notice, nth: u32, open_for: Duration, repeated: bool) -> Words {
    let mut words = Words::default();
    words.bold(&format!("Reminder {nth}{}: not acknowledged for {}", mark(repeated), span(open_for)));
    words.say(&format!("\n{} · incident {}: ", name(notice.account.as_str()), notice.incident));
    words.say(&happened(notice));
    words.say(&format!("\nTo quiet it: {}", acknowledge(notice)));
    words
}

#[must_use]
pub fn ended(notice: &Notice, repeated: bool) -> Words {
    let mut words = Words::default();
    words.bold(&format!("Ended{}: {} · incident {}", mark(repeated), name(notice.account.as_str()), notice.incident));
    words.say(&format!("\n{}", happened(notice)));
    words
}

/// Many incidents in one message, the gravest first as handed in. Says how many of them it could name.
#[must_use]
pub fn digest(title: &str, notices: &[(&Notice, bool)]) -> (Words, usize) {
    let mut words = Words::default();
    words.bold(title);
    let accounts: std::collections::BTreeSet<_> = notices.iter().map(|(notice, _)| &notice.account).collect();
    words.say(&format!("\n{} in all, {}", counted(notices.len(), "incident"), counted(accounts.len(), "account")));
    if let Some(sum) = total(notices) {
        words.say(&format!(", {}", money(&sum)));
    }
    let mut named = 0;
    for (notice, repeated) in notices {
        let mut line = format!(
            "\n{}{} · {} · incident {}: {}",
            state(notice),
            mark(*repeated),
            name(notice.account.as_str()),
            notice.incident,
            happened(notice)
        );
        line = cut(&line, SENTENCE_UNITS_MAX);
        if words.units() + units(&line) + SHORT_UNITS_MAX > UNITS_MAX {
            break;
        }
        words.say(&line);
        named += 1;
    }
    if named < notices.len() {
        words.say(&format!("\n… and {} more: countersign incidents", notices.len() - named));
    }
    words.say("\nTo quiet one: /ack ACCOUNT INCIDENT");
    (words, named)
}

/// A sentence of our own. What it quotes from outside went through [`quoted`].
#[must_use]
pub fn sentence(text: &str) -> Words {
    let mut words = Words::default();
    words.say(&cut(text, UNITS_MAX));
    words
}

/// Something from outside, short and on one line.
#[must_use]
pub fn quoted(text: &str) -> String {
    cut(&clean(text), SHORT_UNITS_MAX)
}

fn drawn(notice: &Notice, repeated: bool, kept: usize) -> Words {
    let mut words = Words::default();
    words.bold(&format!("{} · {} · incident {}", state(notice), name(notice.account.as_str()), notice.incident));
    if repeated || notice.repeated {
        words.say("\nRepeated: this may have reached you before.");
    }
    words.say("\n");
    words.bold(&happened(notice));
    let left_out = notice.lines_left_out + (notice.lines.len() - kept) as u64;
    if left_out > 0 {
        words.say(&format!("\n({left_out} earlier lines left out)"));
    }
    for line in &notice.lines[notice.lines.len() - kept..] {
        words.say(&format!("\n{} {}", clock(line.at), cut(&clean(&line.text), SENTENCE_UNITS_MAX)));
    }
    words.labelled("How sure", &cut(&clean(&notice.certainty), SENTENCE_UNITS_MAX));
    match (&notice.contained, notice.contained_in) {
        (Some(contained), _) => done(&mut words, contained, notice.is_drill()),
        (None, Some(incident)) => {
            words.labelled("What we did", &format!("what is done about the account stands on incident {incident}."))
        }
        // Nothing is contained at its owner's own word.
        (None, None) if notice.is_claim() || notice.is_sale() => {}
        (None, None) => words.labelled("What we did", NOTHING_DONE),
    }
    let mut advice = sentences(&notice.advice);
    if notice.state == IncidentState::Open {
        advice.push(format!("{} says you know, as far as this card shows it", acknowledge(notice)));
    }
    words.list("What you can do now", &advice);
    words.list("What we cannot see", &sentences(&notice.limits_of_sight));
    words.say(&format!(
        "\nOpened {} UTC, changed {} UTC, revision {}",
        notice.opened_at, notice.updated_at, notice.revision
    ));
    words
}

/// How far the containment is, with both of its clocks.
fn done(words: &mut Words, contained: &Contained, is_drill: bool) {
    let seconds = |ms: i64| format!("{}.{:03} s", ms / 1_000, ms % 1_000);
    let clock_of = |words: &mut Words, what: &str, ms: Option<i64>, is_awaited: bool| match ms {
        Some(ms) => words.say(&format!("\n{what}: after {}", seconds(ms))),
        None if is_awaited => words.say(&format!("\n{what}: not yet")),
        // Nothing is done about it: its end would never come.
        None => {}
    };
    let word = contained.word.to_uppercase();
    let by = cut(&clean(&contained.asked_by), SHORT_UNITS_MAX);
    words.labelled("What we did", &format!("{word} (asked for by {by})"));
    if !contained.is_release() {
        clock_of(words, "New orders blocked", contained.blocked_ms, contained.is_under_way());
        // A drill touches no order, nor does a freeze.
        let is_awaited = contained.word.starts_with("not contained");
        clock_of(words, "Strangers' orders gone", contained.orders_gone_ms, is_awaited);
    }
    match (contained.lines_left_out, is_drill) {
        (0, _) => {}
        (count, true) => words.say(&format!("\n({} left out)", counted(count, "earlier line"))),
        (count, false) => words.say(&format!("\n({}: countersign containment)", counted(count, "earlier line"))),
    }
    for line in &contained.lines {
        words.say(&format!("\n{} {}", clock(line.at), cut(&clean(&line.text), SENTENCE_UNITS_MAX)));
    }
}

impl Words {
    fn units(&self) -> usize {
        units(&self.plain)
    }

    fn say(&mut self, text: &str) {
        self.plain.push_str(text);
        for c in text.chars() {
            match c {
                '&' => self.html.push_str("&amp;"),
                '<' => self.html.push_str("&lt;"),
                '>' => self.html.push_str("&gt;"),
                other => self.html.push(other),
            }
        }
    }

    fn bold(&mut self, text: &str) {
        self.html.push_str("<b>");
        self.say(text);
        self.html.push_str("</b>");
    }

    fn labelled(&mut self, label: &str, text: &str) {
        if !text.is_empty() {
            self.say("\n");
            self.bold(label);
            self.say(&format!(": {text}"));
        }
    }

    fn list(&mut self, label: &str, items: &[String]) {
        if items.is_empty() {
            return;
        }
        self.say("\n");
        self.bold(label);
        self.say(":");
        for item in items {
            self.say(&format!("\n- {item}"));
        }
    }
}

const fn mark(repeated: bool) -> &'static str {
    if repeated { " (repeated)" } else { "" }
}

fn state(notice: &Notice) -> String {
    let word: String = match (notice.state, notice.priority) {
        (IncidentState::Open, Priority::Critical) => "CRITICAL".into(),
        (IncidentState::Open, Priority::Warning) => "WARNING".into(),
        (IncidentState::Open, Priority::Info) => "INFO".into(),
        (IncidentState::Ended, _) => "ENDED".into(),
        (IncidentState::Acknowledged, _) => match &notice.acknowledged_by {
            Some(by) => format!("ACKNOWLEDGED by {}", quoted(by)),
            None => "ACKNOWLEDGED".into(),
        },
    };
    if notice.is_drill() { format!("DRILL · {word}") } else { word }
}

fn happened(notice: &Notice) -> String {
    let mut text = cut(&clean(&notice.headline), HEADLINE_UNITS_MAX);
    if notice.orders > 0 {
        text += &format!(" · {}", counted(usize::try_from(notice.orders).unwrap_or(usize::MAX), "order"));
    }
    if !notice.notional.is_empty() {
        text += &format!(", {}", money(&notice.notional));
    }
    if !notice.symbols.is_empty() {
        let names: Vec<String> = notice.symbols.iter().take(SYMBOLS_MAX).map(|symbol| name(symbol.as_str())).collect();
        text += &format!(", on {}{}", names.join(", "), and_more(notice.symbols.len(), SYMBOLS_MAX));
    }
    text
}

fn acknowledge(notice: &Notice) -> String {
    format!("/ack {} {}", name(notice.account.as_str()), notice.incident)
}

fn money(amounts: &[(Asset, Dec)]) -> String {
    let named: Vec<String> =
        amounts.iter().take(ASSETS_MAX).map(|(asset, amount)| format!("{amount} {}", name(asset.as_str()))).collect();
    named.join(" + ") + &and_more(amounts.len(), ASSETS_MAX)
}

/// `None` where there is no money in it, or the sum would not be exact.
fn total(notices: &[(&Notice, bool)]) -> Option<Vec<(Asset, Dec)>> {
    let mut sum = std::collections::BTreeMap::<Asset, Dec>::new();
    for (asset, amount) in notices.iter().flat_map(|(notice, _)| &notice.notional) {
        let so_far = sum.entry(asset.clone()).or_insert(Dec::ZERO);
        *so_far = so_far.checked_add(*amount)?;
    }
    (!sum.is_empty()).then(|| sum.into_iter().collect())
}

fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

fn and_more(count: usize, shown: usize) -> String {
    if count > shown { format!(" and {} more", count - shown) } else { String::new() }
}

fn sentences(texts: &[Box<str>]) -> Vec<String> {
    let mut shown: Vec<String> =
        texts.iter().take(SENTENCES_MAX).map(|text| cut(&clean(text), SHORT_UNITS_MAX)).collect();
    if texts.len() > SENTENCES_MAX {
        shown.push(format!("and {} more: countersign incident ID", texts.len() - SENTENCES_MAX));
    }
    shown
}

fn name(text: &str) -> String {
    cut(&clean(text), 40)
}

/// UTC, to the millisecond; the card's foot has the day.
fn clock(at: Time) -> String {
    let whole = at.to_string();
    whole.get(11..).map_or_else(|| whole.clone(), ToOwned::to_owned)
}

fn span(span: Duration) -> String {
    let minutes = usize::try_from(span.as_secs() / 60).unwrap_or(usize::MAX);
    match minutes {
        0 => "less than a minute".into(),
        1..=119 => counted(minutes, "minute"),
        _ => counted(minutes / 60, "hour"),
    }
}

/// Control characters and marks that reorder text could fake lines of ours.
fn clean(text: &str) -> String {
    let unsafe_mark = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if unsafe_mark(c) { '\u{fffd}' } else { c }).collect()
}

fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

fn cut(text: &str, units_max: usize) -> String {
    if units(text) <= units_max {
        return text.to_owned();
    }
    let mut left = units_max - 1;
    let mut kept: String = text
        .chars()
        .take_while(|c| match left.checked_sub(c.len_utf16()) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        })
        .collect();
    kept.push('…');
    kept
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kernel::incident::{IncidentId, Line};
    use crate::kernel::order::{Account, Symbol};

    pub(crate) fn notice(account: &str, incident: u64, revision: u64, priority: Priority) -> Notice {
        let at = Time::from_millis(1_764_000_005_123);
        Notice {
            account: Account::new(account),
            incident: IncidentId(incident),
            revision,
            state: IncidentState::Open,
            priority,
            rule: "foreign_order".into(),
            headline: "Not your bot".into(),
            opened_at: at,
            updated_at: at,
            orders: 1,
            symbols: vec![Symbol::new("THINUSDT")],
            notional: vec![(Asset::new("USDT"), "320.50".parse().unwrap())],
            lines: vec![Line { at, text: "SELL 100 THINUSDT at 3.205, filled".into() }],
            lines_left_out: 0,
            certainty: "Certain: the order carries no countersign, and this account is tagged-only.".into(),
            advice: vec!["Delete the API key on the exchange's page.".into()],
            limits_of_sight: vec!["Which key sent it: the exchange does not say.".into()],
            acknowledged_by: None,
            contained: None,
            contained_in: None,
            repeated: false,
        }
    }

    #[test]
    fn a_card_answers_in_order() {
        let words = card(&notice("main", 12, 3, Priority::Critical), false);
        assert_eq!(
            words.plain,
            "CRITICAL · main · incident 12\n\
             Not your bot · 1 order, 320.5 USDT, on THINUSDT\n\
             16:00:05.123 SELL 100 THINUSDT at 3.205, filled\n\
             How sure: Certain: the order carries no countersign, and this account is tagged-only.\n\
             What we did: nothing yet.\n\
             What you can do now:\n\
             - Delete the API key on the exchange's page.\n\
             - /ack main 12 says you know, as far as this card shows it\n\
             What we cannot see:\n\
             - Which key sent it: the exchange does not say.\n\
             Opened 2025-11-24 16:00:05.123 UTC, changed 2025-11-24 16:00:05.123 UTC, revision 3"
        );
        assert!(words.html.starts_with("<b>CRITICAL · main · incident 12</b>\n<b>Not your bot"));
    }

    #[test]
    fn what_is_done_has_the_clocks_that_run_or_ran_and_counts_what_it_leaves_out() {
        let (blocked, gone) = ("New orders blocked: ", "Strangers' orders gone: ");
        for (word, clocks, is_drill, left_out, says, hides) in [
            ("not contained", [None, None], false, 0, vec![blocked, gone, "not yet"], vec!["earlier line"]),
            ("not contained", [Some(1_300), None], false, 0, vec!["blocked: after 1.300 s", "gone: not yet"], vec![]),
            (
                "contained",
                [Some(1_300), Some(2_000)],
                false,
                0,
                vec!["after 1.300 s", "after 2.000 s"],
                vec!["not yet"],
            ),
            ("not frozen yet", [None, None], false, 0, vec!["blocked: not yet"], vec![gone]),
            (
                "frozen",
                [Some(900), None],
                false,
                1,
                vec!["after 0.900 s", "(1 earlier line: countersign con"],
                vec![gone],
            ),
            ("not released yet", [None, None], false, 0, vec![], vec![blocked, gone]),
            ("released", [Some(900), None], false, 3, vec!["(3 earlier lines: countersign con"], vec![blocked, gone]),
            ("revoked, unprobed", [None, Some(1)], false, 0, vec![gone], vec![blocked]),
            ("drill: not proved yet", [None, None], true, 2, vec!["blocked: not yet", "lines left out)"], vec![gone]),
            ("drill: not proved", [None, None], true, 0, vec![], vec![blocked, gone]),
        ] {
            let mut shown = notice("main", 12, 3, Priority::Critical);
            if is_drill {
                shown.rule = crate::kernel::incident::DRILL_RULE.into();
            }
            shown.contained = Some(Contained {
                word: word.into(),
                asked_by: "owner".into(),
                blocked_ms: clocks[0],
                orders_gone_ms: clocks[1],
                over_at: None,
                lines: Vec::new(),
                lines_left_out: left_out,
            });
            let text = card(&shown, false).plain;
            assert!(says.iter().all(|part| text.contains(part)), "{word}: {says:?} in {text}");
            assert!(!hides.iter().any(|part| text.contains(part)), "{word}: none of {hides:?} in {text}");
        }
    }

    #[test]
    fn nothing_from_outside_makes_markup_or_a_line() {
        let mut hostile = notice("ma<in", 1, 1, Priority::Info);
        hostile.headline = "<b>all & clear</b>\nContained\u{202e}".into();
        hostile.lines[0].text = "</b>\r\nENDED".into();
        let words = card(&hostile, true);
        assert!(words.html.contains("&lt;b&gt;all &amp; clear&lt;/b&gt;\u{fffd}Contained\u{fffd}"), "{}", words.html);
        assert!(words.plain.contains(" </b>\u{fffd}\u{fffd}ENDED\n"));
        assert_eq!(words.html.matches("<b>").count(), words.html.matches("</b>").count());
        assert!(words.plain.contains("Repeated: this may have reached you before."));
    }

    #[test]
    fn the_longest_texts_stay_short_enough_and_count_what_they_leave_out() {
        let long: Box<str> = "\u{1f600}<&>".repeat(2_000).into();
        let mut huge = notice("main", 1, 1, Priority::Critical);
        huge.headline = long.clone();
        huge.certainty = long.clone();
        huge.acknowledged_by = Some(long.clone());
        huge.advice = vec![long.clone(); 100];
        huge.limits_of_sight = vec![long.clone(); 100];
        huge.symbols = vec![Symbol::new(&long); 100];
        huge.notional = vec![(Asset::new(&long), "99999999999999999999.000000000000000001".parse().unwrap()); 100];
        huge.lines = vec![Line { at: huge.opened_at, text: long }; 300];
        huge.lines_left_out = 7;
        for state in [IncidentState::Open, IncidentState::Acknowledged, IncidentState::Ended] {
            huge.state = state;
            let words = card(&huge, true);
            assert!(words.units() <= UNITS_MAX, "{}", words.units());
            assert!(words.plain.contains("earlier lines left out"));
        }
        assert!(
            ended(&huge, true).units() <= UNITS_MAX && reminder(&huge, 9, Duration::MAX, true).units() <= UNITS_MAX
        );
        let (words, named) = digest("Many", &vec![(&huge, true); 500]);
        assert!(words.units() <= UNITS_MAX && named > 3);
        assert!(words.plain.contains(&format!("and {} more", 500 - named)));
    }

    #[test]
    fn a_digest_names_the_money_of_all() {
        let (a, b) = (notice("a", 1, 1, Priority::Critical), notice("b", 1, 1, Priority::Critical));
        let (words, named) = digest("New while this channel was held", &[(&a, false), (&b, true)]);
        assert_eq!(named, 2);
        assert!(words.plain.contains("2 incidents in all, 2 accounts, 641 USDT"), "{}", words.plain);
        assert!(words.plain.contains("CRITICAL (repeated) · b · incident 1: Not your bot · 1 order, 320.5 USDT"));
    }
}
