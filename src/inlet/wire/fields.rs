//! One JSON object, field by field: each taken once, by name and kind, and what is left over at the end refused.

use serde_json::{Map, Value};

use crate::inlet::wire::error::{ErrorCode, WireError};
use crate::inlet::wire::json::Once;
use crate::kernel::money::Dec;
use crate::kernel::order::{ClientId, OrderId};
use crate::kernel::time::Time;
use crate::tag::layout::{ID_LENGTH_MAX, is_id_text};

const NAME_LENGTH_MAX: usize = 64;
const SYMBOL_LENGTH_MAX: usize = 40;
/// A time below is likely in seconds, one above in microseconds.
const MILLIS_MIN: i64 = 1_000_000_000_000;
const MILLIS_MAX: i64 = 10_000_000_000_000;

pub(super) struct Fields {
    /// Where this object stands in the record, such as `legs[0].`; empty for the record itself.
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    pub fn read(line: &[u8]) -> Result<Self, WireError> {
        match serde_json::from_slice(line) {
            Ok(Once(Value::Object(map))) => Ok(Self { path: String::new(), map }),
            Ok(Once(_)) => Err(WireError::bad_json("this is JSON, but not an object")),
            Err(error) if error.is_data() => {
                Err(WireError::new(ErrorCode::BadField, &error.to_string(), "say each key of an object once"))
            }
            Err(error) => Err(WireError::bad_json(&format!("this is not one JSON object: {error}"))),
        }
    }

    pub fn peek_seq(&self) -> Option<u64> {
        self.map.get("seq").and_then(Value::as_u64)
    }

    /// The record holds nothing but what was taken.
    pub fn finish(self, kind: &str) -> Result<(), WireError> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.bad(&clipped(name), &format!("does not belong to {kind}"), "leave it out")),
        }
    }

    pub fn bad(&self, name: &str, what: &str, hint: &str) -> WireError {
        WireError::new(ErrorCode::BadField, &format!("{}{name} {what}", self.path), hint)
    }

    pub fn missing(&self, name: &str) -> WireError {
        self.bad(name, "is missing", "the record must carry it")
    }

    /// A null is as good as nothing: many JSON writers put one where a value is not set.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    pub fn text(&mut self, name: &str, length_max: usize) -> Result<Option<Box<str>>, WireError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Err(self.bad(name, "is empty", "give it or leave it out")),
            Some(Value::String(text)) if text.chars().count() > length_max => {
                Err(self.bad(name, &format!("is longer than {length_max} characters"), "shorten it"))
            }
            Some(Value::String(text)) if text.chars().any(char::is_control) => {
                Err(self.bad(name, "holds a control character", "send plain text on one line"))
            }
            Some(Value::String(text)) => Ok(Some(text.into())),
            Some(_) => Err(self.bad(name, "is not a string", "put it in quotes")),
        }
    }

    /// Free text of somebody else's making is cut and cleaned, never refused.
    pub fn free_text(&mut self, name: &str, length_max: usize) -> Result<Option<Box<str>>, WireError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => {
                let clean = |c: char| if c.is_control() { ' ' } else { c };
                Ok(Some(text.chars().take(length_max).map(clean).collect::<String>().into()))
            }
            Some(_) => Err(self.bad(name, "is not a string", "put it in quotes")),
        }
    }

    /// The name of an account, bot, strategy or owner.
    pub fn name(&mut self, name: &str) -> Result<Option<Box<str>>, WireError> {
        self.text(name, NAME_LENGTH_MAX)
    }

    pub fn symbol(&mut self) -> Result<Box<str>, WireError> {
        let symbol = self.text("symbol", SYMBOL_LENGTH_MAX)?.ok_or_else(|| self.missing("symbol"))?;
        if symbol.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(self.bad("symbol", "is not spelt as the venue does", "BTCUSDT, not BTC/USDT"));
        }
        Ok(symbol)
    }

    pub fn client_id(&mut self, name: &str) -> Result<Option<ClientId>, WireError> {
        let Some(text) = self.text(name, ID_LENGTH_MAX)? else { return Ok(None) };
        if is_id_text(&text) {
            Ok(Some(ClientId::new(&text)))
        } else {
            Err(self.bad(name, "is no client order id", "it has 1 to 36 letters, digits, '-' or '_'"))
        }
    }

    pub fn word<T>(&mut self, name: &str, from_word: impl Fn(&str) -> Option<T>) -> Result<Option<T>, WireError> {
        let Some(text) = self.text(name, NAME_LENGTH_MAX)? else { return Ok(None) };
        match from_word(&text) {
            Some(word) => Ok(Some(word)),
            None => {
                Err(self.bad(name, &format!("is {text:?}, which is none of its words"), "spell it as the venue does"))
            }
        }
    }

    /// A decimal above zero: what is not set is left out, not sent as "0".
    pub fn decimal(&mut self, name: &str) -> Result<Option<Dec>, WireError> {
        let text = match self.take(name) {
            None => return Ok(None),
            Some(Value::String(text)) => text,
            Some(_) => return Err(self.bad(name, "is not a string", "a decimal stands in quotes, like \"0.01\"")),
        };
        match text.parse::<Dec>() {
            Ok(value) if value.is_positive() => Ok(Some(value)),
            Ok(_) => Err(self.bad(name, "is not above zero", "leave it out if the order does not set it")),
            Err(error) => Err(self.bad(name, &format!("is {:?}", clipped(&text)), &error.to_string())),
        }
    }

    pub fn integer(&mut self, name: &str) -> Result<Option<i64>, WireError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.bad(name, "is not a whole number", "send digits without quotes or a point")),
            },
        }
    }

    pub fn sequence(&mut self, name: &str, least: u64) -> Result<Option<u64>, WireError> {
        match self.integer(name)?.map(u64::try_from) {
            None => Ok(None),
            Some(Ok(number)) if number >= least => Ok(Some(number)),
            Some(_) => Err(self.bad(name, "is not a sequence", "sequences count up from 1")),
        }
    }

    /// Milliseconds since the epoch, UTC.
    pub fn time(&mut self, name: &str) -> Result<Time, WireError> {
        match self.integer(name)?.ok_or_else(|| self.missing(name))? {
            millis @ MILLIS_MIN..MILLIS_MAX => Ok(Time::from_millis(millis)),
            _ => Err(self.bad(name, "is no time of this age in milliseconds", "not seconds, not microseconds")),
        }
    }

    pub fn order_id(&mut self, name: &str) -> Result<Option<OrderId>, WireError> {
        Ok(self.integer(name)?.map(OrderId))
    }

    pub fn yes(&mut self, name: &str) -> Result<bool, WireError> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(true)) => Ok(true),
            Some(_) => Err(self.bad(name, "is not true", "say true or leave it out")),
        }
    }

    pub fn object(&mut self, name: &str) -> Result<Option<Self>, WireError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { path: format!("{}{name}.", self.path), map })),
            Some(_) => Err(self.bad(name, "is not an object", "send {…}")),
        }
    }

    pub fn objects(&mut self, name: &str) -> Result<Vec<Self>, WireError> {
        let Some(Value::Array(values)) = self.take(name) else {
            return Err(self.bad(name, "is not a list of objects", "send [{…},{…}]"));
        };
        let object = |(index, value)| match value {
            Value::Object(map) => Ok(Self { path: format!("{}{name}[{index}].", self.path), map }),
            _ => Err(self.bad(name, "holds something that is no object", "send [{…},{…}]")),
        };
        values.into_iter().enumerate().map(object).collect()
    }
}

/// What a stranger wrote is shown in part only.
pub(super) fn clipped(text: &str) -> String {
    text.chars().take(40).collect()
}
