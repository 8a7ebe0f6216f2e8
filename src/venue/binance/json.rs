//! JSON as a tree that borrows from its text: one pass, no floats, and a reason that names the field whenever a value
//! is not what it should be.
//!
//! Invariants: no field is named twice in an object, so two readers cannot see two different values; integers are
//! `i64` or they are not numbers to us; nesting ends at serde_json's limit of 128.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::kernel::money::Dec;
use crate::kernel::time::Time;

/// More fields than any object of the venue; looking for duplicates is quadratic.
const FIELDS_MAX: usize = 128;
/// Of a value that is quoted in a reason.
const QUOTED_MAX: usize = 60;
const REASON_MAX: usize = 240;

/// A text that is not read; whoever has the text keeps it whole, with this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Kept {
    pub reason: Box<str>,
}

impl Kept {
    pub fn new(reason: impl fmt::Display) -> Self {
        Self { reason: cut(&reason.to_string(), REASON_MAX).into() }
    }
}

#[derive(Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// A number that is not a 64-bit integer: nothing we read is one.
    OtherNumber,
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Object(Fields<'a>),
}

#[derive(Debug)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

pub fn parse(text: &str) -> Result<Value<'_>, Kept> {
    if text.trim().is_empty() {
        return Err(Kept::new("an empty line"));
    }
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Kept::new(error),
        _ => Kept::new(format_args!("not JSON: {error}")),
    })
}

impl<'a> Value<'a> {
    pub fn object(&self, what: &str) -> Result<&Fields<'a>, Kept> {
        match self {
            Self::Object(fields) => Ok(fields),
            other => Err(Kept::new(format_args!("{what} is {other}, not an object"))),
        }
    }

    pub fn list(&self, what: &str) -> Result<&[Self], Kept> {
        match self {
            Self::List(values) => Ok(values),
            other => Err(Kept::new(format_args!("{what} is {other}, not a list"))),
        }
    }

    pub fn as_decimal(&self, what: &str) -> Result<Dec, Kept> {
        let decimal = self.as_text().and_then(|text| text.parse().ok());
        decimal.ok_or_else(|| Kept::new(format_args!("{what} is {self}, not a decimal in quotes")))
    }

    fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    const fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(int) => Some(*int),
            _ => None,
        }
    }
}

impl<'a> Fields<'a> {
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// `None` where the field is absent or null.
    pub fn find(&self, name: &str) -> Option<&Value<'a>> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value).filter(|value| !matches!(value, Value::Null))
    }

    pub fn text(&self, name: &str) -> Result<&str, Kept> {
        self.text_if_any(name)?.ok_or_else(|| self.missing(name))
    }

    pub fn text_if_any(&self, name: &str) -> Result<Option<&str>, Kept> {
        self.take(name, "a text", Value::as_text)
    }

    pub fn int(&self, name: &str) -> Result<i64, Kept> {
        self.int_if_any(name)?.ok_or_else(|| self.missing(name))
    }

    pub fn int_if_any(&self, name: &str) -> Result<Option<i64>, Kept> {
        self.take(name, "a 64-bit integer", Value::as_int)
    }

    /// An id that the venue writes as a negative number where there is none.
    pub fn id_if_any(&self, name: &str) -> Result<Option<i64>, Kept> {
        Ok(self.int_if_any(name)?.filter(|id| *id >= 0))
    }

    pub fn boolean(&self, name: &str) -> Result<bool, Kept> {
        let boolean = |value: &Value<'_>| if let Value::Bool(bool) = value { Some(*bool) } else { None };
        self.take(name, "true or false", boolean)?.ok_or_else(|| self.missing(name))
    }

    pub fn decimal(&self, name: &str) -> Result<Dec, Kept> {
        self.decimal_if_any(name)?.ok_or_else(|| self.missing(name))
    }

    pub fn decimal_if_any(&self, name: &str) -> Result<Option<Dec>, Kept> {
        self.take(name, "a decimal in quotes", |value| value.as_text()?.parse().ok())
    }

    pub fn time(&self, name: &str) -> Result<Time, Kept> {
        self.int(name).map(Time::from_millis)
    }

    pub fn time_if_any(&self, name: &str) -> Result<Option<Time>, Kept> {
        Ok(self.id_if_any(name)?.map(Time::from_millis))
    }

    /// One of a closed list of words.
    pub fn word<T>(&self, name: &str, from_word: impl Fn(&str) -> Option<T>) -> Result<T, Kept> {
        self.word_if_any(name, from_word)?.ok_or_else(|| self.missing(name))
    }

    pub fn word_if_any<T>(&self, name: &str, from_word: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Kept> {
        self.take(name, "a word known there", |value| from_word(value.as_text()?))
    }

    pub fn list(&self, name: &str) -> Result<&[Value<'a>], Kept> {
        self.find(name).ok_or_else(|| self.missing(name))?.list(name)
    }

    fn take<'f, T>(
        &'f self,
        name: &str,
        expected: &str,
        take: impl Fn(&'f Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, Kept> {
        let Some(value) = self.find(name) else { return Ok(None) };
        match take(value) {
            Some(taken) => Ok(Some(taken)),
            None => Err(Kept::new(format_args!("field {name:?} is {value}, not {expected}"))),
        }
    }

    fn missing(&self, name: &str) -> Kept {
        let null = self.0.iter().any(|(key, _)| key == name);
        Kept::new(format_args!("field {name:?} is {}", if null { "null" } else { "missing" }))
    }
}

/// As a reason quotes it: short, whatever its length.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(bool) => write!(f, "{bool}"),
            Self::Int(int) => write!(f, "{int}"),
            Self::OtherNumber => f.write_str("a fraction or too large a number"),
            Self::Text(text) => write!(f, "{:?}", cut(text, QUOTED_MAX)),
            Self::List(_) => f.write_str("a list"),
            Self::Object(_) => f.write_str("an object"),
        }
    }
}

fn cut(text: &str, chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(bool))
    }

    fn visit_i64<E>(self, int: i64) -> Result<Value<'de>, E> {
        Ok(Value::Int(int))
    }

    fn visit_u64<E>(self, int: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(int).map_or(Value::OtherNumber, Value::Int))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::OtherNumber)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut fields: Vec<(Cow<'de, str>, Value<'de>)> = Vec::with_capacity(40);
        while let Some(Key(key)) = map.next_key()? {
            if fields.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom(format_args!("field {:?} stands twice", cut(&key, QUOTED_MAX))));
            }
            if fields.len() == FIELDS_MAX {
                return Err(A::Error::custom(format_args!("an object of more than {FIELDS_MAX} fields")));
            }
            fields.push((key, map.next_value()?));
        }
        Ok(Value::Object(Fields(fields)))
    }
}

struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        parse(text).unwrap_err().reason.into()
    }

    #[test]
    fn refuses_what_two_readers_could_read_differently() {
        assert!(reason(r#"{"c":"a","c":"b"}"#).contains(r#"field "c" stands twice"#));
        assert!(reason(r#"{"c":"a","\u0063":"b"}"#).contains(r#"field "c" stands twice"#));
        assert!(reason(r#"{"a":{"x":1,"x":1}}"#).contains("stands twice"));
        assert!(reason(r#"{"a":1} {"a":2}"#).contains("trailing characters"));
    }

    #[test]
    fn limits_depth_and_width() {
        assert!(reason(&"[".repeat(100_000)).contains("recursion limit"));
        assert!(reason(&format!("{}{}", r#"{"a":"#.repeat(200), "}".repeat(200))).contains("recursion limit"));
        let wide: Vec<String> = (0..200).map(|field| format!(r#""{field}":1"#)).collect();
        assert!(reason(&format!("{{{}}}", wide.join(","))).contains("more than 128 fields"));
    }

    #[test]
    fn names_the_field_and_its_value() {
        let value = parse(r#"{"n":1.5,"big":9223372036854775808,"s":"x","no":null,"ok":9223372036854775807}"#).unwrap();
        let fields = value.object("it").unwrap();
        assert_eq!(fields.int("ok"), Ok(i64::MAX));
        for (got, reason) in [
            (fields.int("n").err(), r#"field "n" is a fraction or too large a number, not a 64-bit integer"#),
            (fields.int("big").err(), r#"field "big" is a fraction or too large a number, not a 64-bit integer"#),
            (fields.int("s").err(), r#"field "s" is "x", not a 64-bit integer"#),
            (fields.int("no").err(), r#"field "no" is null"#),
            (fields.int("none").err(), r#"field "none" is missing"#),
            (fields.decimal("n").err(), r#"field "n" is a fraction or too large a number, not a decimal in quotes"#),
        ] {
            assert_eq!(got.unwrap().reason.as_ref(), reason);
        }
    }
}
