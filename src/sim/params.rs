//! A request's parameters as text, and how each is read: what is missing, illegal or too precise gets the venue's
//! own refusal. Invariant: reading never guesses; an empty value counts as not sent.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::kernel::order::{OrderType, Side, TimeInForce};
use crate::kernel::time::Time;
use crate::sim::amount::{Amount, AmountError};
use crate::sim::engine::Which;
use crate::sim::market::{SymbolIndex, symbol_index};
use crate::sim::refusal::Refusal;

const CLIENT_ID_RANGE: &str = "^[a-zA-Z0-9-_]{1,36}$";
const AMOUNT_RANGE: &str = r"^([0-9]{1,20})(\.[0-9]{1,20})?$";
const NUMBER_RANGE: &str = "^[0-9]{1,20}$";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(BTreeMap<String, String>);

impl Params {
    /// Query string and form body; what stands in both counts as the query says.
    pub fn from_forms(query: &str, body: &str) -> Self {
        let mut all = BTreeMap::new();
        for pair in query.split('&').chain(body.split('&')).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            all.entry(percent_decoded(name)).or_insert_with(|| percent_decoded(value));
        }
        Self(all)
    }

    pub const fn from_map(params: BTreeMap<String, String>) -> Self {
        Self(params)
    }

    /// The `params` object of a WebSocket request: strings as they read, everything else as it was written.
    pub fn from_json(object: BTreeMap<String, Box<RawValue>>) -> Self {
        let text =
            |raw: Box<RawValue>| serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
        Self(object.into_iter().map(|(name, raw)| (name, text(raw))).collect())
    }

    /// What a WebSocket request's signature covers.
    pub fn signed_text(&self) -> String {
        let signed = self.0.iter().filter(|(name, _)| name.as_str() != "signature");
        signed.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    pub fn need<'a>(&'a self, name: &str) -> Result<&'a str, Refusal> {
        self.text(name).ok_or_else(|| Refusal::missing(name))
    }

    pub fn amount(&self, name: &str) -> Result<Option<Amount>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse::<Amount>() {
            Ok(amount) if amount < Amount::ZERO => Err(Refusal::illegal(name, AMOUNT_RANGE)),
            Ok(amount) => Ok(Some(amount)),
            Err(AmountError::Grammar) => Err(Refusal::illegal(name, AMOUNT_RANGE)),
            Err(AmountError::TooPrecise) => {
                Err(Refusal::bad(-1111, format!("Parameter '{name}' has too much precision.")))
            }
        }
    }

    pub fn need_amount(&self, name: &str) -> Result<Amount, Refusal> {
        self.amount(name)?.ok_or_else(|| Refusal::missing(name))
    }

    pub fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| plain);
        number.map(Some).ok_or_else(|| Refusal::illegal(name, NUMBER_RANGE))
    }

    /// A time parameter in milliseconds or, when it is that long, microseconds.
    pub fn time(&self, name: &str) -> Result<Option<Time>, Refusal> {
        let micros_from = 100_000_000_000_000;
        let read = |number| if number >= micros_from { Time::from_micros(number) } else { Time::from_millis(number) };
        Ok(self.number(name)?.map(read))
    }

    pub fn limit(&self, otherwise: usize, most: usize) -> Result<usize, Refusal> {
        let asked = self.number("limit")?.and_then(|limit| usize::try_from(limit).ok());
        Ok(asked.unwrap_or(otherwise).clamp(1, most))
    }

    pub fn symbol(&self) -> Result<SymbolIndex, Refusal> {
        self.optional_symbol()?.ok_or_else(|| Refusal::missing("symbol"))
    }

    pub fn optional_symbol(&self) -> Result<Option<SymbolIndex>, Refusal> {
        let Some(name) = self.text("symbol") else { return Ok(None) };
        symbol_index(name).map(Some).ok_or_else(|| Refusal::bad(-1121, "Invalid symbol."))
    }

    pub fn client_id(&self, name: &str) -> Result<Option<String>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.len() > 36 || !text.bytes().all(legal) {
            return Err(Refusal::illegal(name, CLIENT_ID_RANGE));
        }
        Ok(Some(text.to_owned()))
    }

    pub fn which(&self, id: &str, client_id: &str) -> Result<Which, Refusal> {
        if let Some(id) = self.number(id)? {
            return Ok(Which::Id(id));
        }
        let named = self.text(client_id).map(|text| Which::ClientId(text.to_owned()));
        named.ok_or_else(|| {
            Refusal::bad(-1102, format!("Param '{client_id}' or '{id}' must be sent, but both were empty/null!"))
        })
    }

    pub fn side(&self) -> Result<Side, Refusal> {
        Side::from_word(self.need("side")?).ok_or_else(|| Refusal::bad(-1117, "Invalid side."))
    }

    pub fn order_type(&self) -> Result<OrderType, Refusal> {
        OrderType::from_word(self.need("type")?).ok_or_else(|| Refusal::bad(-1116, "Invalid orderType."))
    }

    pub fn time_in_force(&self) -> Result<Option<TimeInForce>, Refusal> {
        let Some(word) = self.text("timeInForce") else { return Ok(None) };
        match TimeInForce::from_word(word) {
            Some(known @ (TimeInForce::Gtc | TimeInForce::Ioc | TimeInForce::Fok)) => Ok(Some(known)),
            Some(TimeInForce::Gtd | TimeInForce::Gtx) | None => Err(Refusal::bad(-1115, "Invalid timeInForce.")),
        }
    }
}

/// `%XX` and `+`; what is not a full escape stays as it is.
pub fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        rest = if escaped.is_some() { &tail[2..] } else { tail };
        bytes.push(escaped.unwrap_or(if *first == b'+' { b' ' } else { *first }));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_forms() {
        let params = Params::from_forms("a=1%2B2&b=x+y&empty=", "a=9&c=%E2%82%AC&d=%zz%2");
        for (name, value) in
            [("a", Some("1+2")), ("b", Some("x y")), ("empty", None), ("c", Some("€")), ("d", Some("%zz%2"))]
        {
            assert_eq!(params.text(name), value, "{name}");
        }
    }

    #[test]
    fn signs_what_was_written() {
        let object = serde_json::from_str(r#"{"b":0.10,"a":"x y","signature":"s","c":true}"#).unwrap();
        assert_eq!(Params::from_json(object).signed_text(), "a=x y&b=0.10&c=true");
    }

    #[test]
    fn refuses_as_the_venue_does() {
        let code = |form: &str, name: &str| Params::from_forms(form, "").amount(name).unwrap_err().code;
        assert_eq!(code("p=1e5", "p"), -1100);
        assert_eq!(code("p=-1", "p"), -1100);
        assert_eq!(code("p=0.000000001", "p"), -1111);
        let id = |form: &str| Params::from_forms(form, "").client_id("id").map_err(|refusal| refusal.code);
        assert_eq!(id("id=a.b"), Err(-1100));
        assert_eq!(id(&format!("id={}", "x".repeat(37))), Err(-1100));
        assert_eq!(id("id=x-A_9"), Ok(Some("x-A_9".to_owned())));
    }
}
