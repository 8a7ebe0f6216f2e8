//! Who may command: the people that the owner declared, and the ways on which each of them comes. No secret stands here.
//!
//! Invariant: identity is the person. Whoever comes on Telegram and on the host is one and the same, and in fund mode
//! never two.

use serde::{Deserialize, Serialize};

/// The way on which a command came, and as whom, as the edge found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "way", rename_all = "snake_case")]
pub enum Way {
    Telegram {
        user: u64,
    },
    /// The operator's socket, and who is at its other end.
    Host {
        uid: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    pub name: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telegram: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct People {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub persons: Vec<Person>,
    /// Fund mode: who asks has not done it yet; another person approves.
    #[serde(default)]
    pub two_people: bool,
}

impl Person {
    #[must_use]
    pub fn comes_by(&self, way: Way) -> bool {
        match way {
            Way::Telegram { user } => self.telegram == Some(user),
            Way::Host { uid } => self.uid == Some(uid),
        }
    }

    #[must_use]
    pub fn ways(&self) -> Vec<Way> {
        let telegram = self.telegram.map(|user| Way::Telegram { user });
        telegram.into_iter().chain(self.uid.map(|uid| Way::Host { uid })).collect()
    }
}

impl People {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    #[must_use]
    pub fn person(&self, way: Way) -> Option<&Person> {
        self.persons.iter().find(|person| person.comes_by(way))
    }

    /// As it stands in the journal and in what is told.
    #[must_use]
    pub fn by(&self, way: Way) -> Box<str> {
        let person = self.person(way).map(|person| &*person.name);
        match (way, person) {
            (Way::Telegram { user }, Some(name)) => format!("{name} (Telegram user {user})").into(),
            (Way::Telegram { user }, None) => format!("Telegram user {user}").into(),
            (Way::Host { uid }, Some(name)) => format!("{name} (user {uid} of the host)").into(),
            (Way::Host { .. }, None) if self.persons.is_empty() => "operator".into(),
            (Way::Host { uid }, None) => format!("operator (user {uid} of the host)").into(),
        }
    }
}
