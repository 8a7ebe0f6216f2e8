//! How a countersign lies in the 36 characters of a client order id.
//!
//! ```text
//! without a prefix   head 1 | stamp 8 | tag 22    = 31 characters, 128 bits of MAC
//! with a prefix      prefix | head 1 | stamp 8 | tag 16 = prefix + 25 characters, 96 bits of MAC
//! ```
//!
//! Each character is 6 bits of the base64url alphabet. The head is 2 bits of version (now 1) and 4 bits of key id.
//! The stamp is 38 bits of time, in units of 10 ms since 2020-01-01 UTC (enough until 2107), and a 10-bit counter.
//!
//! Invariant: the length alone says which form an id has. 31 characters are the form without a prefix, so a prefix
//! may not be 6 characters long; any other form must start with one of the account's own prefixes, followed by
//! exactly 25. The last of 22 tag characters carries 2 bits: one whose other bits are not zero is not of this
//! layout, so that no two texts stand for one tag.

use data_encoding::BASE64URL_NOPAD;

use crate::kernel::time::Time;

pub const ID_LENGTH_MAX: usize = 36;
pub const PREFIX_LENGTH_MAX: usize = 10;

const VERSION: u8 = 1;
const HEAD_LENGTH: usize = 1;
const STAMP_LENGTH: usize = 8;
const STAMP_BYTES: usize = 6;
const TAG_LENGTH: usize = 22;
const TAG_LENGTH_PREFIXED: usize = 16;
const TAG_BYTES: usize = 16;
const TAG_BYTES_PREFIXED: usize = 12;
const LENGTH: usize = HEAD_LENGTH + STAMP_LENGTH + TAG_LENGTH;
const LENGTH_PREFIXED: usize = HEAD_LENGTH + STAMP_LENGTH + TAG_LENGTH_PREFIXED;

const STAMP_EPOCH: Time = Time::from_millis(1_577_836_800_000);
const STAMP_UNIT_MICROS: i64 = 10_000;
const STAMP_TIME_BITS: u32 = 38;
const STAMP_COUNTER_BITS: u32 = 10;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Which of up to 16 keys of an account; a rotation takes the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(u8);

impl KeyId {
    pub const MAX: u8 = 15;

    pub fn new(id: u8) -> Option<Self> {
        (id <= Self::MAX).then_some(Self(id))
    }

    pub const fn number(self) -> u8 {
        self.0
    }

    /// Version and key id, as the first character and the MAC have them.
    pub(super) const fn head(self) -> u8 {
        (VERSION << 4) | self.0
    }
}

/// When an id was issued, and which of the ids of that hundredth of a second it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

impl Stamp {
    /// `None` for a time that 38 bits cannot carry; of the counter the low 10 bits count.
    pub fn new(at: Time, counter: u64) -> Option<Self> {
        let units = at.micros().checked_sub(STAMP_EPOCH.micros())?.div_euclid(STAMP_UNIT_MICROS);
        let units = u64::try_from(units).ok().filter(|units| *units < 1 << STAMP_TIME_BITS)?;
        Some(Self((units << STAMP_COUNTER_BITS) | (counter & ((1 << STAMP_COUNTER_BITS) - 1))))
    }

    pub fn at(self) -> Time {
        let units = i64::try_from(self.0 >> STAMP_COUNTER_BITS).unwrap_or(i64::MAX);
        Time::from_micros(STAMP_EPOCH.micros().saturating_add(units.saturating_mul(STAMP_UNIT_MICROS)))
    }

    pub(super) fn bytes(self) -> [u8; STAMP_BYTES] {
        let [_, _, rest @ ..] = self.0.to_be_bytes();
        rest
    }
}

/// A broker's prefix, such as `x-TKT5PX2F`, that an id must start with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdPrefix(Box<str>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the id prefix {0:?} is 1 to {PREFIX_LENGTH_MAX} letters, digits, '-' or '_', and not exactly 6 \
     (an id with it would be as long as one without)"
)]
pub struct BadPrefix(Box<str>);

impl IdPrefix {
    pub fn new(text: &str) -> Result<Self, BadPrefix> {
        let fits = (1..=PREFIX_LENGTH_MAX).contains(&text.len()) && text.len() + LENGTH_PREFIXED != LENGTH;
        if fits && is_id_text(text) { Ok(Self(text.into())) } else { Err(BadPrefix(text.chars().take(40).collect())) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The characters the venue takes in a client order id, and how many.
pub fn is_id_text(text: &str) -> bool {
    (1..=ID_LENGTH_MAX).contains(&text.len()) && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// An id taken apart; whether its tag is true is not known yet.
pub(super) struct Parsed<'a> {
    pub prefix: &'a str,
    pub key: KeyId,
    pub stamp: Stamp,
    pub tag: Vec<u8>,
}

impl<'a> Parsed<'a> {
    /// `None` for an id that is not of this layout and version.
    pub fn read(id: &'a str, prefixes: &[IdPrefix]) -> Option<Self> {
        if !is_id_text(id) {
            return None;
        }
        let prefix_length = if id.len() == LENGTH { 0 } else { id.len().checked_sub(LENGTH_PREFIXED)? };
        let (prefix, rest) = id.split_at(prefix_length);
        if prefix_length > 0 && !prefixes.iter().any(|known| known.as_str() == prefix) {
            return None;
        }
        if id.len() != LENGTH && prefix_length == 0 {
            return None;
        }
        let (head, rest) = rest.split_at(HEAD_LENGTH);
        let (stamp, tag) = rest.split_at(STAMP_LENGTH);
        let head = ALPHABET.iter().position(|letter| head.as_bytes() == [*letter])?;
        let head = u8::try_from(head).ok().filter(|head| head >> 4 == VERSION)?;
        let stamp: [u8; STAMP_BYTES] = BASE64URL_NOPAD.decode(stamp.as_bytes()).ok()?.try_into().ok()?;
        let stamp = stamp.iter().fold(0, |bits, byte| (bits << 8) | u64::from(*byte));
        let tag = BASE64URL_NOPAD.decode(tag.as_bytes()).ok()?;
        Some(Self { prefix, key: KeyId(head & KeyId::MAX), stamp: Stamp(stamp), tag })
    }
}

pub(super) fn write(prefix: Option<&IdPrefix>, key: KeyId, stamp: Stamp, mac: &[u8; 32]) -> String {
    let (prefix, tag_bytes) = match prefix {
        None => ("", TAG_BYTES),
        Some(prefix) => (prefix.as_str(), TAG_BYTES_PREFIXED),
    };
    let head = char::from(ALPHABET[usize::from(key.head())]);
    let stamp = BASE64URL_NOPAD.encode(&stamp.bytes());
    let tag = BASE64URL_NOPAD.encode(&mac[..tag_bytes]);
    format!("{prefix}{head}{stamp}{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Time = Time::from_millis(1_764_000_000_010);

    #[test]
    fn an_id_is_as_long_as_the_layout_says() {
        let (key, stamp) = (KeyId::new(3).unwrap(), Stamp::new(AT, 5).unwrap());
        assert_eq!(write(None, key, stamp, &[7; 32]).len(), 31);
        let prefix = IdPrefix::new("x-TKT5PX2F").unwrap();
        assert_eq!(write(Some(&prefix), key, stamp, &[7; 32]).len(), 35);
    }

    #[test]
    fn reads_what_it_wrote() {
        let prefix = IdPrefix::new("x-TKT5PX2F").unwrap();
        for (prefix, tag_bytes) in [(None, 16), (Some(&prefix), 12)] {
            let id = write(prefix, KeyId::new(15).unwrap(), Stamp::new(AT, 1_023).unwrap(), &[0xA5; 32]);
            let parsed =
                Parsed::read(&id, &[IdPrefix::new("b").unwrap(), IdPrefix::new("x-TKT5PX2F").unwrap()]).unwrap();
            assert_eq!(parsed.prefix, prefix.map_or("", IdPrefix::as_str));
            assert_eq!(parsed.key.number(), 15);
            assert_eq!(parsed.stamp.at(), AT);
            assert_eq!(parsed.tag, vec![0xA5; tag_bytes]);
        }
    }

    #[test]
    fn refuses_what_is_not_of_the_layout() {
        let id = write(None, KeyId::new(0).unwrap(), Stamp::new(AT, 0).unwrap(), &[0; 32]);
        let prefixed = format!("x-TKT5PX2F{}", &id[..25]);
        assert!(Parsed::read(&id, &[]).is_some());
        let non_canonical = format!("{}B", &id[..30]);
        let other_version = format!("A{}", &id[1..]);
        for text in [
            "",
            &id[..30],
            &id[..25],
            &non_canonical,
            &other_version,
            &prefixed,
            "web_3f6286480b194b079870ac75fb6978b7",
        ] {
            assert!(Parsed::read(text, &[]).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_prefix_is_short_and_never_six_characters() {
        for text in ["", "sixsix", "elevenchars", "a b", "é"] {
            assert!(IdPrefix::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_stamp_reaches_from_2020_to_2107() {
        assert_eq!(Stamp::new(Time::from_millis(1_577_836_799_999), 0), None);
        assert!(Stamp::new(Time::from_millis(4_300_000_000_000), 0).is_some());
        assert_eq!(Stamp::new(Time::from_millis(4_400_000_000_000), 0), None);
        assert_eq!(Stamp::new(AT, 1_024), Stamp::new(AT, 0));
    }
}
