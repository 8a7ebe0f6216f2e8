//! Exact decimals for money and quantities: the only file that names the decimal library.
//!
//! Invariant: a `Dec` that came from outside has at most 20 integer and 18 fractional digits, so a product of two is
//! exact in 256 bits. There is no division and there are no floats; what could not be exact is `None`.

use std::fmt;
use std::str::FromStr;

use fastnum::decimal::{Context, Sign};
use fastnum::{D256, U256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const INTEGER_DIGITS_MAX: usize = 20;
const FRACTION_DIGITS_MAX: usize = 18;
/// Any number of so many digits fits 64 bits: what a market writes, less its trailing zeros.
const SMALL_DIGITS_MAX: usize = 19;
/// More than 256 bits can hold.
const EXACT_DIGITS_MAX: usize = 78;

/// A decimal number, compared by value: `1.0` equals `1.00000000`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dec(D256);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecError {
    #[error("a decimal is digits with an optional '-' and one '.', like \"0.01\"")]
    Grammar,
    #[error("a decimal has at most {INTEGER_DIGITS_MAX} digits before and {FRACTION_DIGITS_MAX} after the point")]
    TooLong,
}

impl Dec {
    pub const ZERO: Self = Self(D256::ZERO);

    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    pub fn is_positive(self) -> bool {
        self > Self::ZERO
    }

    #[must_use]
    pub fn abs(self) -> Self {
        Self(self.0.abs())
    }

    /// `None` where the sum would not be exact.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        exact(self.0 + other.0)
    }

    pub fn checked_sub(self, other: Self) -> Option<Self> {
        exact(self.0 - other.0)
    }

    /// Exact for two parsed numbers; a product of products may be `None`.
    pub fn checked_mul(self, other: Self) -> Option<Self> {
        exact(self.0 * other.0)
    }

    /// The highest whole number of steps that is not above it.
    pub fn lowered_to(self, step: Self) -> Option<Self> {
        if !step.is_positive() {
            return None;
        }
        self.checked_sub(exact(self.0 % step.0)?)
    }

    /// The lowest whole number of steps that is not below it.
    pub fn raised_to(self, step: Self) -> Option<Self> {
        let lower = self.lowered_to(step)?;
        if lower == self { Some(lower) } else { lower.checked_add(step) }
    }

    /// Rounded half to even at `places` after the point: for what a person reads, never for a comparison.
    #[must_use]
    pub fn rounded(self, places: u8) -> Self {
        Self(self.0.round(i16::from(places)))
    }
}

fn exact(value: D256) -> Option<Dec> {
    (value.is_finite() && !value.is_op_inexact()).then_some(Dec(value))
}

impl From<u32> for Dec {
    fn from(value: u32) -> Self {
        Self(D256::from(value))
    }
}

impl FromStr for Dec {
    type Err = DecError;

    fn from_str(text: &str) -> Result<Self, DecError> {
        Self::read(text, INTEGER_DIGITS_MAX, FRACTION_DIGITS_MAX)
    }
}

impl Dec {
    fn read(text: &str, integer_max: usize, fraction_max: usize) -> Result<Self, DecError> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (integer, fraction) = match digits.split_once('.') {
            Some((_, "")) => return Err(DecError::Grammar),
            Some(parts) => parts,
            None => (digits, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if integer.is_empty() || !all_digits(integer) || !all_digits(fraction) {
            return Err(DecError::Grammar);
        }
        if integer.len() > integer_max || fraction.len() > fraction_max {
            return Err(DecError::TooLong);
        }
        let fraction = fraction.trim_end_matches('0');
        if integer.len() + fraction.len() <= SMALL_DIGITS_MAX {
            return Ok(Self::small(text.starts_with('-'), integer, fraction));
        }
        let value = D256::from_str(text, Context::default()).map_err(|_| DecError::Grammar)?;
        let value = exact(value).ok_or(DecError::TooLong)?;
        Ok(if value.is_zero() { Self::ZERO } else { value })
    }

    fn small(negative: bool, integer: &str, fraction: &str) -> Self {
        let digit = |sum: u64, byte: u8| sum * 10 + u64::from(byte - b'0');
        let digits = integer.bytes().chain(fraction.bytes()).fold(0, digit);
        if digits == 0 {
            return Self::ZERO;
        }
        let places = i32::try_from(fraction.len()).unwrap_or(0);
        let sign = if negative { Sign::Minus } else { Sign::Plus };
        Self(D256::from_parts(U256::from_u64(digits), -places, sign, Context::default()))
    }

    /// The digits and how many of them stand after the point, without trailing zeros, if 64 bits hold them.
    fn as_small(self) -> Option<(u64, usize)> {
        let digits = self.0.digits();
        let [mut digits, 0, 0, 0] = *digits.digits() else { return None };
        let mut places = usize::try_from(self.0.fractional_digits_count()).ok()?;
        while places > 0 && digits.is_multiple_of(10) {
            (digits, places) = (digits / 10, places - 1);
        }
        Some((digits, places)).filter(|_| places < SMALL_DIGITS_MAX)
    }
}

/// Canonical: no exponent, no trailing zeros after the point, no negative zero. The countersign's bytes.
impl fmt::Display for Dec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((digits, places)) = self.as_small().filter(|_| f.width().is_none() && f.precision().is_none()) {
            if self.0.is_negative() && digits > 0 {
                f.write_str("-")?;
            }
            if places == 0 {
                return write!(f, "{digits}");
            }
            let unit = 10_u64.pow(u32::try_from(places).unwrap_or(0));
            return write!(f, "{}.{:0places$}", digits / unit, digits % unit);
        }
        let reduced = self.0.reduce();
        let digits = reduced.digits().to_string();
        let sign = if reduced.is_negative() && !reduced.is_zero() { "-" } else { "" };
        let text = match usize::try_from(reduced.fractional_digits_count()) {
            Err(_) => digits + &"0".repeat(usize::from(reduced.fractional_digits_count().unsigned_abs())),
            Ok(0) => digits,
            Ok(places) => {
                let padded = format!("{digits:0>width$}", width = places + 1);
                let (integer, fraction) = padded.split_at(padded.len() - places);
                format!("{integer}.{fraction}")
            }
        };
        f.pad(&format!("{sign}{text}"))
    }
}

impl fmt::Debug for Dec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Dec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A snapshot holds sums and products too, which are longer than what is ever read from outside.
impl<'de> Deserialize<'de> for Dec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Dec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal in quotes, like \"0.01\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Dec, E> {
                Dec::read(text, EXACT_DIGITS_MAX, EXACT_DIGITS_MAX)
                    .map_err(|error| E::custom(format_args!("{text:.60?} is not a decimal: {error}")))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dec(text: &str) -> Dec {
        text.parse().unwrap()
    }

    #[test]
    fn prints_canonically() {
        for (input, printed) in [
            ("0.00000001", "0.00000001"),
            ("1.00000000", "1"),
            ("-0", "0"),
            ("-0.50", "-0.5"),
            ("1000", "1000"),
            ("007.10", "7.1"),
            ("9999999999.999999999", "9999999999.999999999"),
            ("99999999999.999999999", "99999999999.999999999"),
            ("0.000000000000000001", "0.000000000000000001"),
            ("18446744073709551615", "18446744073709551615"),
            ("12345678901234567890.123456789012345678", "12345678901234567890.123456789012345678"),
        ] {
            assert_eq!(dec(input).to_string(), printed);
        }
    }

    #[test]
    fn refuses_what_is_not_plain_digits() {
        for text in ["", "-", ".5", "5.", "1e5", "1_000", "NaN", "Infinity", "+1", " 1", "1.2.3", "١"] {
            assert_eq!(text.parse::<Dec>(), Err(DecError::Grammar), "{text:?}");
        }
        assert_eq!("123456789012345678901".parse::<Dec>(), Err(DecError::TooLong));
        assert_eq!("0.1234567890123456789".parse::<Dec>(), Err(DecError::TooLong));
    }

    #[test]
    fn steps_are_whole() {
        for (value, step, lower, higher) in [
            ("1.239", "0.01", "1.23", "1.24"),
            ("1.23", "0.01", "1.23", "1.23"),
            ("0.004", "0.01", "0", "0.01"),
            ("12345678901.123456789", "0.00000001", "12345678901.12345678", "12345678901.12345679"),
            ("99", "10", "90", "100"),
        ] {
            assert_eq!(dec(value).lowered_to(dec(step)), Some(dec(lower)), "{value} by {step}");
            assert_eq!(dec(value).raised_to(dec(step)), Some(dec(higher)), "{value} by {step}");
        }
        assert_eq!((dec("1").lowered_to(Dec::ZERO), dec("1").raised_to(dec("-1"))), (None, None));
    }

    #[test]
    fn compares_by_value_and_multiplies_exactly() {
        assert_eq!(dec("1.0"), dec("1.00000000"));
        let product = dec("900000000000.12345678").checked_mul(dec("123456.78901234")).unwrap();
        assert_eq!(product.to_string(), "111111110111121241.5776406028766652");
    }
}
