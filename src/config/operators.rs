//! `[operators]`: who may command, on which ways, and with whose one-time passwords.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::config::{TelegramTable, name};
use crate::kernel::people::{People, Person, Way};
use crate::secret::Reference;

/// More would not be looked at.
const PERSONS_MAX: usize = 16;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorsTable {
    /// The secret of the one-time passwords, without which nothing that widens trust can be commanded. A declared person
    /// has a secret of his own, and this one does not count for him.
    pub totp: Option<Reference>,
    #[serde(default)]
    pub two_people: bool,
    #[serde(default, rename = "person")]
    pub persons: Vec<PersonTable>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonTable {
    pub name: String,
    pub telegram: Option<u64>,
    pub uid: Option<u32>,
    pub totp: Option<Reference>,
}

impl PersonTable {
    pub fn person(&self) -> Person {
        Person { name: self.name.as_str().into(), telegram: self.telegram, uid: self.uid }
    }
}

impl OperatorsTable {
    /// Where the one-time passwords come from, by the names of the references.
    pub fn places(&self) -> Vec<(Box<str>, Box<str>)> {
        let common = ("operators.totp".to_owned(), &self.totp);
        let own = self.persons.iter().map(|person| (format!("totp of {}", person.name), &person.totp));
        let place = |(name, totp): (String, &Option<Reference>)| Some((name.into(), totp.as_ref()?.to_string().into()));
        std::iter::once(common).chain(own).filter_map(place).collect()
    }

    /// Whether what widens trust can be commanded at all: by anybody, or by two where one asks and another approves.
    pub(super) fn has_passwords(&self) -> bool {
        let persons = self.persons.iter().filter(|person| person.totp.is_some()).count();
        if self.two_people { persons >= 2 } else { self.totp.is_some() || persons > 0 }
    }

    pub(super) fn people(&self, telegram: Option<&TelegramTable>) -> Result<People, String> {
        if self.persons.len() > PERSONS_MAX {
            return Err(format!("more than {PERSONS_MAX} [[operators.person]] stand there"));
        }
        let (mut names, mut ways) = (BTreeSet::new(), BTreeSet::new());
        for table in &self.persons {
            name(&table.name, "operators.person.name")?;
            let of = &table.name;
            if !names.insert(of) {
                return Err(format!("person {of} stands twice in [operators]"));
            }
            let own = table.person().ways();
            if own.is_empty() {
                return Err(format!(
                    "person {of} has no way to come in\nhint: telegram = 123456789, or uid = 1001, or both"
                ));
            }
            for way in own {
                if !ways.insert(way) {
                    return Err(told_twice(way));
                }
            }
            let same = |other: &&PersonTable| other.name != *of && other.totp.is_some() && other.totp == table.totp;
            if let Some(other) = self.persons.iter().find(same) {
                return Err(format!(
                    "persons {of} and {} have one secret of one-time passwords\nhint: countersign secret totp NAME makes one for each",
                    other.name
                ));
            }
            let listed = |user: &u64| telegram.is_some_and(|telegram| telegram.allowed_users.contains(user));
            if let Some(user) = table.telegram.filter(|user| !listed(user)) {
                return Err(format!(
                    "person {of} is Telegram user {user}, who may not speak there\nhint: put {user} into [telegram] allowed_users"
                ));
            }
        }
        if self.two_people && self.persons.len() < 2 {
            return Err(format!(
                "operators.two_people needs two persons, and {} stand there\nhint: one [[operators.person]] for each",
                self.persons.len()
            ));
        }
        Ok(People { persons: self.persons.iter().map(PersonTable::person).collect(), two_people: self.two_people })
    }
}

fn told_twice(way: Way) -> String {
    let who = match way {
        Way::Telegram { user } => format!("Telegram user {user}"),
        Way::Host { uid } => format!("uid {uid}"),
    };
    format!("two persons in [operators] are {who}\nhint: whoever comes on a way must be one person")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(text: &str) -> Result<People, String> {
        let telegram = r#"
            token = "file:t"
            code_secret = "file:c"
            allowed_users = [1, 2]"#;
        let table: OperatorsTable = toml::from_str(text).map_err(|error| error.to_string())?;
        table.people(Some(&toml::from_str(telegram).unwrap()))
    }

    #[test]
    fn passwords_are_enough_for_one_or_for_two() {
        let person = |name: &str, uid: u32, more: &str| format!("[[person]]\nname = \"{name}\"\nuid = {uid}\n{more}\n");
        let (alice, bob) = (person("alice", 1001, "totp = \"file:a\""), person("bob", 1002, ""));
        let bobs = person("bob", 1002, "totp = \"file:b\"");
        for (text, enough) in [
            (String::new(), false),
            ("totp = \"file:t\"".to_owned(), true),
            (bob.clone(), false),
            (format!("{alice}{bob}"), true),
            (format!("two_people = true\n{alice}{bob}"), false),
            (format!("totp = \"file:t\"\ntwo_people = true\n{alice}{bob}"), false),
            (format!("two_people = true\n{alice}{bobs}"), true),
        ] {
            let table: OperatorsTable = toml::from_str(&text).unwrap();
            assert_eq!(table.has_passwords(), enough, "{text}");
        }
    }

    #[test]
    fn people_are_told_apart_or_refused() {
        let person = |name: &str, rest: &str| format!("[[person]]\nname = \"{name}\"\n{rest}\n");
        let alice = person("alice", "telegram = 1\nuid = 1001\ntotp = \"file:a\"");
        let bob = person("bob", "uid = 1002");
        let fund = |persons: &str| format!("two_people = true\n{persons}");
        let read = people(&fund(&format!("{alice}{bob}"))).unwrap();
        assert!(read.two_people && &*read.person(Way::Telegram { user: 1 }).unwrap().name == "alice");
        assert_eq!(read.person(Way::Host { uid: 1001 }), read.person(Way::Telegram { user: 1 }));
        assert_eq!(read.person(Way::Host { uid: 0 }), None);
        assert!(people("totp = \"file:a\"").unwrap().is_empty());
        for (text, part) in [
            (fund(""), "needs two persons, and 0"),
            (fund(&alice), "needs two persons, and 1"),
            (format!("{alice}{alice}"), "person alice stands twice"),
            (format!("{alice}{}", person("bob", "telegram = 1")), "two persons in [operators] are Telegram user 1"),
            (
                format!("{alice}{}", person("bob", "telegram = 2\nuid = 1001")),
                "two persons in [operators] are uid 1001",
            ),
            (person("bob", "totp = \"file:b\""), "person bob has no way to come in"),
            (format!("{alice}{}", person("bob", "uid = 1002\ntotp = \"file:a\"")), "have one secret"),
            (person("bob", "telegram = 3"), "put 3 into [telegram] allowed_users"),
            (person("", "uid = 1"), "operators.person.name is 1 to 40"),
            (person("bob", "uid = -1"), "uid"),
            (person("bob", "uid = 1\nphone = 1"), "phone"),
        ] {
            let refused = people(&text).unwrap_err();
            assert!(refused.contains(part), "{text}: {refused}");
        }
    }
}
