//! Rules: typed tests on a closed set of fields, read from TOML packs and checked when they are loaded.
//!
//! Invariants: a condition cannot fail, loop or overflow when it runs, and it knows exact decimals only. A test on a
//! field that a finding does not have is false. A rule whose own tests do not pin down each of its terms does not
//! load, and no pack can make a stranger's order silent: `FLOOR` speaks where no rule does, or where a pack's exception
//! quiets the last one that did.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kernel::exception::Exception;
use crate::kernel::incident::{CLAIM_RULE, DRILL_RULE, Priority};
use crate::kernel::money::Dec;
use crate::kernel::order::words;
use crate::kernel::verdict::Verdict;

words!(
    /// What a finding is about.
    Subject {
        Order = "order",
        Cancel = "cancel",
        Amendment = "amendment",
        Expiry = "expiry",
        Intent = "intent",
        CancelIntent = "cancel_intent",
        Address = "address",
    }
);

words!(
    /// The closed set of what a condition may look at.
    Field {
        Subject = "subject",
        Verdict = "verdict",
        Symbol = "symbol",
        SymbolTraded = "symbol_traded",
        Side = "side",
        OrderType = "order_type",
        Notional = "notional",
        QuoteAsset = "quote_asset",
        InsideLimits = "inside_limits",
        BotConnected = "bot_connected",
        BotSays = "bot_says",
        AddressSource = "address_source",
    }
);

/// A finding as a rule sees it: words by field, and the notional in the quote asset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    #[serde(flatten)]
    pub words: BTreeMap<Field, Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notional: Option<Dec>,
}

impl Facts {
    #[must_use]
    pub fn with(mut self, field: Field, word: &str) -> Self {
        self.words.insert(field, word.into());
        self
    }

    pub fn word(&self, field: Field) -> Option<&str> {
        self.words.get(&field).map(AsRef::as_ref)
    }

    fn verdict(&self) -> Option<Verdict> {
        self.word(Field::Verdict).and_then(Verdict::from_word)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    pub pack: Box<str>,
    #[serde(default, rename = "rule")]
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub name: Box<str>,
    /// What the owner reads first.
    pub headline: Box<str>,
    pub description: Box<str>,
    pub priority: Priority,
    pub response: Response,
    /// Findings of one cause fold into one incident.
    pub cause: Cause,
    #[serde(default)]
    pub tags: Vec<Box<str>>,
    pub when: Condition,
    /// Fires only when the condition held this often within the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_count: Option<EventCount>,
    pub fires: Vec<Facts>,
    pub quiet: Vec<Facts>,
    #[serde(default, rename = "exception", skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<Exception>,
}

/// What a rule asks for, the least first. What is then done stands in the configuration: a pack arms nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    None,
    Notify,
    Ask,
    Contain,
}

words!(
    /// Why an incident exists.
    Cause {
        Stranger = "stranger",
        Unconnected = "unconnected",
        Unseen = "unseen",
        Address = "address",
        Unexplained = "unexplained",
        PreExisting = "pre_existing",
        /// An owner's exception is new.
        Exception = "exception",
        Blind = "blind",
        BotSilent = "bot_silent",
        KeyRefused = "key_refused",
        Containment = "containment",
        /// Nothing happened: the way to the owner was tried.
        Drill = "drill",
        /// One of countersign's own keys is not as it must be, or could not be checked.
        Credential = "credential",
        Watcher = "watcher",
        /// Its owner said that he trades by hand.
        Claim = "claim",
    }
);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventCount {
    pub at_least: u32,
    pub within_s: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Condition {
    All(AllOf),
    Any(AnyOf),
    Not(Negated),
    Test(Test),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllOf {
    all: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnyOf {
    any: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Negated {
    not: Box<Condition>,
}

/// One term. Exactly one of `in`, `above` and `below` is given; the last two are for the notional.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    field: Field,
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    within: Option<Vec<Box<str>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    above: Option<Dec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    below: Option<Dec>,
}

impl Condition {
    pub fn holds(&self, facts: &Facts) -> bool {
        match self {
            Self::All(AllOf { all }) => all.iter().all(|condition| condition.holds(facts)),
            Self::Any(AnyOf { any }) => any.iter().any(|condition| condition.holds(facts)),
            Self::Not(Negated { not }) => !not.holds(facts),
            Self::Test(test) => test.holds(facts),
        }
    }

    /// Says which of its terms could never hold, or never fail, as it is written.
    pub fn check(&self) -> Result<(), String> {
        let tests = self.tests();
        if tests.is_empty() {
            return Err("`when` has no term".to_owned());
        }
        tests.iter().try_for_each(|test| test.check())
    }

    fn tests(&self) -> Vec<&Test> {
        match self {
            Self::All(AllOf { all }) => all.iter().flat_map(Self::tests).collect(),
            Self::Any(AnyOf { any }) => any.iter().flat_map(Self::tests).collect(),
            Self::Not(Negated { not }) => not.tests(),
            Self::Test(test) => vec![test],
        }
    }

    /// The condition with its `nth` term negated.
    fn with_negated(&self, nth: usize) -> Self {
        fn negate(condition: &Condition, nth: usize, seen: &mut usize) -> Condition {
            match condition {
                Condition::All(AllOf { all }) => {
                    Condition::All(AllOf { all: all.iter().map(|term| negate(term, nth, seen)).collect() })
                }
                Condition::Any(AnyOf { any }) => {
                    Condition::Any(AnyOf { any: any.iter().map(|term| negate(term, nth, seen)).collect() })
                }
                Condition::Not(Negated { not }) => Condition::Not(Negated { not: Box::new(negate(not, nth, seen)) }),
                Condition::Test(test) => {
                    *seen += 1;
                    let term = Condition::Test(test.clone());
                    if *seen == nth + 1 { Condition::Not(Negated { not: Box::new(term) }) } else { term }
                }
            }
        }
        negate(self, nth, &mut 0)
    }
}

impl Test {
    fn holds(&self, facts: &Facts) -> bool {
        if let Some(words) = &self.within {
            return facts.word(self.field).is_some_and(|word| words.iter().any(|allowed| **allowed == *word));
        }
        facts.notional.is_some_and(|notional| {
            self.above.is_none_or(|bound| notional > bound) && self.below.is_none_or(|bound| notional < bound)
        })
    }

    fn check(&self) -> Result<(), String> {
        let field = self.field;
        let ways = [self.within.is_some(), self.above.is_some(), self.below.is_some()];
        if ways.iter().filter(|given| **given).count() != 1 {
            return Err(format!("the test on {field} needs exactly one of `in`, `above` and `below`"));
        }
        if self.within.is_some() == (field == Field::Notional) {
            let way = if self.within.is_some() { "`above` or `below`" } else { "`in`" };
            return Err(format!("the test on {field} must use {way}"));
        }
        for word in self.within.iter().flatten() {
            if !known_word(field, word) {
                return Err(format!("{word:?} is not a value of {field}"));
            }
        }
        Ok(())
    }
}

/// Whether a field can ever have this value: a misspelt one would make a rule silent.
fn known_word(field: Field, word: &str) -> bool {
    use crate::kernel::order::{OrderType, Side};
    match field {
        Field::Subject => Subject::from_word(word).is_some(),
        Field::Verdict => Verdict::from_word(word).is_some() || word == "unseen",
        Field::Side => Side::from_word(word).is_some(),
        Field::OrderType => OrderType::from_word(word).is_some(),
        Field::SymbolTraded | Field::InsideLimits | Field::BotConnected => matches!(word, "yes" | "no"),
        Field::BotSays => matches!(word, "accepted" | "nothing" | "unknown"),
        Field::AddressSource => matches!(word, "venue" | "mail" | "host" | "bot_egress"),
        Field::Symbol | Field::QuoteAsset => !word.is_empty() && word.len() <= 40,
        Field::Notional => false,
    }
}

/// The window of a counting rule holds that many times at most.
const EVENTS_COUNTED_MAX: u32 = 10_000;

/// The packs of an account, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSet {
    rules: Vec<Rule>,
}

/// What speaks where no rule does: these verdicts cannot be made silent by a pack.
const FLOOR: [&str; 8] = ["foreign", "divergent", "replayed", "forged", "unissued", "unlogged", "unseen", "unproven"];

/// The name under which the floor speaks.
pub const FLOOR_RULE: &str = "floor";
/// Exceptions of one rule of a pack.
const EXCEPTIONS_MAX: usize = 16;

/// How a finding is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling<'a> {
    pub rule: &'a str,
    pub headline: &'a str,
    pub priority: Priority,
    pub cause: Cause,
    pub response: Response,
}

impl RuleSet {
    /// Joins packs into one set, or says which rule is wrong and what to mend.
    pub fn new(packs: impl IntoIterator<Item = Pack>) -> Result<Self, String> {
        let mut rules: Vec<Rule> = Vec::new();
        for pack in packs {
            for rule in pack.rules {
                check(&rule).map_err(|fault| format!("pack {:?}, rule {:?}: {fault}", pack.pack, rule.name))?;
                if rules.iter().any(|other| other.name == rule.name) {
                    return Err(format!("rule {:?} stands twice", rule.name));
                }
                rules.push(rule);
            }
        }
        Ok(Self { rules })
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub fn exceptions_of(&self, rule: &str) -> &[Exception] {
        self.rules.iter().find(|known| *known.name == *rule).map_or(&[], |known| &known.exceptions)
    }

    /// The rules that a finding meets, the loudest first. `count` notes it for a counting rule and answers whether
    /// the count is reached; `excepted` answers whether an exception of the rule's own quiets it.
    pub fn rulings(
        &self,
        facts: &Facts,
        mut count: impl FnMut(&Rule, EventCount) -> bool,
        mut excepted: impl FnMut(&Rule) -> bool,
    ) -> Vec<Ruling<'_>> {
        let mut rulings: Vec<Ruling<'_>> = self
            .rules
            .iter()
            .filter(|rule| rule.response != Response::None && rule.when.holds(facts))
            .filter(|rule| rule.event_count.is_none_or(|window| count(rule, window)))
            .filter(|rule| !excepted(rule))
            .map(|rule| Ruling {
                rule: &rule.name,
                headline: &rule.headline,
                priority: rule.priority,
                cause: rule.cause,
                response: rule.response,
            })
            .collect();
        if rulings.is_empty() && facts.word(Field::Verdict).is_some_and(|verdict| FLOOR.contains(&verdict)) {
            let headline = facts.verdict().map_or("the exchange does not know what your bot said", Verdict::plain);
            rulings.push(Ruling {
                rule: FLOOR_RULE,
                headline,
                priority: if facts.verdict().is_some_and(Verdict::is_stranger) {
                    Priority::Critical
                } else {
                    Priority::Warning
                },
                cause: if facts.verdict().is_some_and(Verdict::is_stranger) {
                    Cause::Stranger
                } else {
                    Cause::Unexplained
                },
                response: Response::Notify,
            });
        }
        rulings.sort_by_key(|ruling| std::cmp::Reverse(ruling.priority));
        rulings
    }
}

fn check(rule: &Rule) -> Result<(), String> {
    if *rule.name == *DRILL_RULE || rule.cause == Cause::Drill {
        return Err("only countersign itself makes a drill: give the rule another name and cause".to_owned());
    }
    if *rule.name == *CLAIM_RULE || rule.cause == Cause::Claim {
        return Err("only its owner opens a claim window: give the rule another name and cause".to_owned());
    }
    if rule.fires.is_empty() || rule.quiet.is_empty() {
        return Err("needs at least one case under `fires` and one under `quiet`".to_owned());
    }
    let counts = |window: &EventCount| {
        (1..=EVENTS_COUNTED_MAX).contains(&window.at_least) && (1..=86_400).contains(&window.within_s)
    };
    if rule.event_count.is_some_and(|window| !counts(&window)) {
        return Err(format!("event_count needs at_least from 1 to {EVENTS_COUNTED_MAX} and within_s from 1 to 86400"));
    }
    rule.when.check()?;
    check_exceptions(&rule.exceptions)?;
    for facts in rule.fires.iter().chain(&rule.quiet) {
        if let Some((field, word)) = facts.words.iter().find(|(field, word)| !known_word(**field, word)) {
            return Err(format!("a case says {field} = {word:?}, which no finding has"));
        }
    }
    let passes = |when: &Condition| {
        rule.fires.iter().all(|facts| when.holds(facts)) && rule.quiet.iter().all(|facts| !when.holds(facts))
    };
    if !passes(&rule.when) {
        return Err("its own cases disagree with `when`".to_owned());
    }
    let tests = rule.when.tests();
    match (0..tests.len()).find(|nth| passes(&rule.when.with_negated(*nth))) {
        Some(nth) => Err(format!("no case would notice if the term on {} were negated", tests[nth].field)),
        None => Ok(()),
    }
}

fn check_exceptions(exceptions: &[Exception]) -> Result<(), String> {
    if exceptions.len() > EXCEPTIONS_MAX {
        return Err(format!("has more than {EXCEPTIONS_MAX} exceptions"));
    }
    for (nth, exception) in exceptions.iter().enumerate() {
        exception.check().map_err(|fault| format!("exception {:?}: {fault}", exception.name))?;
        if exceptions.iter().take(nth).any(|other| other.name == exception.name) {
            return Err(format!("exception {:?} stands twice", exception.name));
        }
    }
    Ok(())
}
