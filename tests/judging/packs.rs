//! Rule packs: what loads, what is refused and in which words, and what speaks where no rule does.

use countersign::kernel::incident::Priority;
use countersign::kernel::rule::{Cause, Condition, Facts, Field, Pack, Rule, RuleSet};

use crate::desk::rules;

const RULE: &str = r#"
pack = "test"
[[rule]]
name = "one"
headline = "One"
description = "One."
priority = "warning"
response = "notify"
cause = "stranger"
when = { all = [{ field = "verdict", in = ["foreign"] }, { not = { field = "notional", below = "100" } }] }
fires = [{ verdict = "foreign", notional = "100" }]
quiet = [{ verdict = "matched", notional = "100" }, { verdict = "foreign", notional = "99.99" }]
"#;

fn load(text: &str) -> Result<RuleSet, String> {
    let pack: Pack = toml::from_str(text).map_err(|error| error.to_string())?;
    RuleSet::new([pack])
}

/// The refusal when `from` stands as `to` in the rule above.
fn refused(from: &str, to: &str) -> String {
    let changed = RULE.replacen(from, to, 1);
    assert_ne!(changed, RULE, "{from:?} stands in the rule");
    load(&changed).expect_err(to)
}

fn packs() -> Vec<(String, String)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let packs = files.filter(|path| path.extension().is_some_and(|ending| ending == "toml"));
    packs.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// Every condition that is this one with one of its terms negated.
fn with_one_negated(condition: &toml::Value) -> Vec<toml::Value> {
    let table = condition.as_table().expect("a condition is a table");
    if table.contains_key("field") {
        return vec![toml::Value::Table(toml::Table::from_iter([("not".to_owned(), condition.clone())]))];
    }
    let (joint, inner) = table.iter().next().expect("a condition is not empty");
    let wrap = |inner: toml::Value| toml::Value::Table(toml::Table::from_iter([(joint.clone(), inner)]));
    match inner {
        toml::Value::Array(terms) => (0..terms.len())
            .flat_map(|nth| with_one_negated(&terms[nth]).into_iter().map(move |term| (nth, term)))
            .map(|(nth, term)| {
                let mut terms = terms.clone();
                terms[nth] = term;
                wrap(toml::Value::Array(terms))
            })
            .collect(),
        inner => with_one_negated(inner).into_iter().map(wrap).collect(),
    }
}

#[test]
fn every_pack_loads_and_no_term_of_it_can_be_turned_round() {
    assert!(!packs().is_empty());
    let mut turned = 0;
    for (path, text) in packs() {
        load(&text).unwrap_or_else(|fault| panic!("{path}: {fault}"));
        let pack: toml::Value = toml::from_str(&text).unwrap();
        for (nth, rule) in pack["rule"].as_array().unwrap().iter().enumerate() {
            for when in with_one_negated(&rule["when"]) {
                let mut changed = pack.clone();
                changed["rule"][nth]["when"] = when.clone();
                let changed = toml::to_string(&changed).unwrap();
                let fault = load(&changed).expect_err("a rule whose term is turned round does not load");
                assert!(fault.contains("its own cases disagree"), "{path} {}: {fault}", rule["name"]);
                turned += 1;
            }
        }
    }
    assert!(turned > 20, "{turned}");
}

#[test]
fn a_rule_that_its_cases_do_not_pin_down_is_refused() {
    load(RULE).expect("the rule as it stands loads");
    let either = r#"{ any = [{ field = "side", in = ["BUY"] }, { field = "side", in = ["SELL"] }] }"#;
    let unpinned = RULE.replace(r#"{ not = { field = "notional", below = "100" } }"#, either);
    let unpinned = unpinned.replace(r#"fires = [{ "#, r#"fires = [{ side = "BUY", "#);
    let unpinned = unpinned.replace(r#", { verdict = "foreign", notional = "99.99" }"#, "");
    let fault = load(&unpinned).expect_err("no case sells");
    assert_eq!(fault, "pack \"test\", rule \"one\": no case would notice if the term on side were negated");
    assert!(refused(r#"notional = "100" }]"#, r#"notional = "1" }]"#).ends_with("its own cases disagree with `when`"));
    assert!(
        refused("fires = [{ verdict = \"foreign\", notional = \"100\" }]", "fires = []").contains("at least one case")
    );
}

#[test]
fn a_response_is_one_of_four_words() {
    for response in ["none", "ask", "contain"] {
        let text = RULE.replace("response = \"notify\"", &format!("response = \"{response}\""));
        assert!(load(&text).is_ok(), "{response}");
    }
    assert!(refused("response = \"notify\"", "response = \"kill\"").contains("unknown variant `kill`"));
}

#[test]
fn unknown_fields_words_and_shapes_are_refused() {
    let all = [
        ("priority = \"warning\"", "priority = \"loud\"", "unknown variant `loud`"),
        ("priority = \"warning\"", "priority = \"warning\"\nexec = \"rm\"", "unknown field `exec`"),
        ("pack = \"test\"", "pack = \"test\"\nmode = \"act\"", "unknown field `mode`"),
        ("cause = \"stranger\"", "cause = \"weather\"", "unknown variant `weather`"),
        ("field = \"verdict\"", "field = \"moon\"", "Condition"),
        ("in = [\"foreign\"]", "in = [\"foriegn\"]", "\"foriegn\" is not a value of verdict"),
        ("below = \"100\"", "in = [\"100\"]", "the test on notional must use `above` or `below`"),
        ("below = \"100\"", "below = \"100\", above = \"1\"", "exactly one of `in`, `above` and `below`"),
        ("in = [\"foreign\"]", "above = \"1\"", "the test on verdict must use `in`"),
        ("below = \"100\"", "below = \"a lot\"", "Condition"),
        ("quiet = [{ verdict = \"matched\"", "quiet = [{ verdict = \"mached\"", "which no finding has"),
        ("quiet = [{ verdict = \"matched\"", "quiet = [{ weather = \"matched\"", "unknown variant `weather`"),
        ("cause =", "event_count = { at_least = 0, within_s = 60 }\ncause =", "at_least from 1"),
        ("cause =", "event_count = { at_least = 20000, within_s = 60 }\ncause =", "at_least from 1 to 10000"),
        ("cause =", "event_count = { at_least = 2, within_s = 0 }\ncause =", "within_s from 1 to 86400"),
    ];
    for (from, to, words) in all {
        let fault = refused(from, to);
        assert!(fault.contains(words), "{to}: {fault}");
    }
    let twice = format!("{RULE}{}", RULE.replace("pack = \"test\"", ""));
    assert_eq!(load(&twice).expect_err("a name stands once"), "rule \"one\" stands twice");
    let nothing = RULE.replace("when = { all = [{ field = \"verdict\", in = [\"foreign\"] }, { not = { field = \"notional\", below = \"100\" } }] }", "when = { all = [] }");
    assert!(load(&nothing).expect_err("a condition has a term").ends_with("`when` has no term"));
}

#[test]
fn the_floor_speaks_where_no_rule_does() {
    let silent = load(&RULE.replace("response = \"notify\"", "response = \"none\"")).unwrap();
    for rules in [RuleSet::default(), silent] {
        let spoken = ["foreign", "divergent", "replayed", "forged", "unissued", "unlogged", "unseen", "unproven"];
        for verdict in spoken {
            let facts = Facts::default().with(Field::Verdict, verdict);
            let rulings = rules.rulings(&facts, |_, _| true, |_| false);
            let [floor] = &rulings[..] else { panic!("{verdict}: {rulings:?}") };
            let told = if matches!(verdict, "unseen" | "unproven") {
                (Priority::Warning, Cause::Unexplained)
            } else {
                (Priority::Critical, Cause::Stranger)
            };
            assert_eq!((floor.rule, floor.priority, floor.cause), ("floor", told.0, told.1), "{verdict}");
        }
        for verdict in ["matched", "pending", "pre_existing", "exchange_generated"] {
            let facts = Facts::default().with(Field::Verdict, verdict);
            assert_eq!(rules.rulings(&facts, |_, _| true, |_| false), Vec::new(), "{verdict}");
        }
    }
}

#[test]
fn a_counting_rule_alone_leaves_the_floor_until_it_counts() {
    let counting = load(&RULE.replace("cause =", "event_count = { at_least = 3, within_s = 60 }\ncause =")).unwrap();
    let facts = Facts { notional: Some("100".parse().unwrap()), ..Facts::default() }.with(Field::Verdict, "foreign");
    let named = |counted: bool| {
        counting
            .rulings(&facts, |_, _| counted, |_| false)
            .iter()
            .map(|ruling| ruling.rule.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!((named(false), named(true)), (vec!["floor".to_owned()], vec!["one".to_owned()]));
}

#[test]
fn a_missing_field_is_false_and_its_negation_true() {
    let holds = |text: &str, facts: &Facts| {
        let condition: Condition = toml::from_str(text).unwrap();
        condition.holds(facts)
    };
    let nothing = Facts::default();
    assert!(!holds(
        r#"field = "side"
in = ["BUY"]"#,
        &nothing
    ));
    assert!(!holds(
        r#"field = "notional"
above = "0""#,
        &nothing
    ));
    assert!(holds(r#"not = { field = "side", in = ["BUY"] }"#, &nothing));
}

#[test]
fn a_loaded_set_survives_the_journal() {
    let rules = rules();
    let text = serde_json::to_string(&rules).unwrap();
    assert_eq!(serde_json::from_str::<RuleSet>(&text).unwrap(), rules);
    assert!(rules.rules().iter().all(|rule: &Rule| !rule.fires.is_empty()));
}
