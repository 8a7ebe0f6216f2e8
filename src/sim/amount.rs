//! The exchange's own money: whole hundred-millionths, as every figure it prints has eight places.
//!
//! It is not `kernel::money::Dec` on purpose: the exchange against which our decimals are judged must not share
//! their faults, and it divides (a market order sized by quote), which `Dec` never does. Invariant: what was parsed
//! is below 10^11 units, so a product of two always fits.

use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const PLACES: usize = 8;
const SCALE: i128 = 100_000_000;
/// 10^11 units. More is refused like any other text that is not an amount.
const ATOMS_MAX: i128 = SCALE * 100_000_000_000;

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i128);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    #[error("an amount is digits with an optional point, below 100000000000")]
    Grammar,
    #[error("an amount has at most {PLACES} places after the point")]
    TooPrecise,
}

impl Amount {
    pub const ZERO: Self = Self(0);

    pub const fn from_atoms(atoms: i64) -> Self {
        Self(atoms as i128)
    }

    pub const fn whole(units: i64) -> Self {
        Self(units as i128 * SCALE)
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// Price × quantity; what lies below the eighth place is cut off.
    pub const fn times(self, other: Self) -> Self {
        Self(self.0 * other.0 / SCALE)
    }

    /// How much of something at `price` this buys, cut off at the eighth place; nothing at no price.
    pub const fn over(self, price: Self) -> Self {
        if price.0 <= 0 { Self::ZERO } else { Self(self.0 * SCALE / price.0) }
    }

    pub const fn times_whole(self, times: i64) -> Self {
        Self(self.0 * times as i128)
    }

    /// How many whole steps this holds.
    pub const fn steps(self, step: Self) -> i64 {
        if step.0 <= 0 { 0 } else { (self.0 / step.0) as i64 }
    }

    pub const fn floor_to(self, step: Self) -> Self {
        if step.0 <= 0 { self } else { Self(self.0 - self.0 % step.0) }
    }

    pub const fn is_multiple_of(self, step: Self) -> bool {
        step.0 <= 0 || self.0 % step.0 == 0
    }

    /// One part in a thousand.
    pub const fn per_mille(self) -> Self {
        Self(self.0 / 1_000)
    }
}

impl Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Neg for Amount {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        self.0 -= other.0;
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let plain = |part: &str| part.len() <= 20 && part.bytes().all(|byte| byte.is_ascii_digit());
        if integer.is_empty() || !plain(integer) || !plain(fraction) || digits.ends_with('.') {
            return Err(AmountError::Grammar);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > PLACES {
            return Err(AmountError::TooPrecise);
        }
        let number = |part: &str| if part.is_empty() { Ok(0) } else { part.parse::<i128>() };
        let whole = number(integer).map_err(|_| AmountError::Grammar)?;
        let part = number(&format!("{fraction:0<PLACES$}")).map_err(|_| AmountError::Grammar)?;
        let atoms = whole * SCALE + part;
        if atoms >= ATOMS_MAX {
            return Err(AmountError::Grammar);
        }
        Ok(Self(if text.starts_with('-') { -atoms } else { atoms }))
    }
}

/// Always eight places, as the venue prints.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0.00000000");
        }
        let sign = if self.0 < 0 { "-" } else { "" };
        let atoms = self.0.unsigned_abs();
        let scale = SCALE.unsigned_abs();
        // Two 64-bit numbers print several times faster than one of 128.
        match (u64::try_from(atoms / scale), u64::try_from(atoms % scale)) {
            (Ok(whole), Ok(part)) => write!(f, "{sign}{whole}.{part:08}"),
            (Err(_), _) | (_, Err(_)) => write!(f, "{sign}{}.{:08}", atoms / scale, atoms % scale),
        }
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Amount {
        text.parse().unwrap()
    }

    #[test]
    fn reads_and_prints_eight_places() {
        for (input, printed) in
            [("1", "1.00000000"), ("0.00000001", "0.00000001"), ("-2.50", "-2.50000000"), ("007.1", "7.10000000")]
        {
            assert_eq!(amount(input).to_string(), printed);
        }
        assert_eq!("0.000000001".parse::<Amount>(), Err(AmountError::TooPrecise));
        assert_eq!(amount("1.5000000000"), amount("1.5"));
        for text in ["", "-", ".", ".5", "5.", "1e5", "+1", " 1", "NaN", "100000000000", "1.2.3", "--1"] {
            assert_eq!(text.parse::<Amount>(), Err(AmountError::Grammar), "{text:?}");
        }
    }

    #[test]
    fn multiplies_divides_and_steps() {
        assert_eq!(amount("60000.01").times(amount("0.01")), amount("600.0001"));
        assert_eq!(amount("100").over(amount("3")), amount("33.33333333"));
        assert_eq!(amount("1.2379").floor_to(amount("0.001")), amount("1.237"));
        assert!(!amount("1.2379").is_multiple_of(amount("0.001")));
        assert_eq!(amount("10").per_mille(), amount("0.01"));
        let most = amount("99999999999.99999999");
        assert!(most.times(most).is_positive());
    }
}
