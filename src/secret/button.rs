//! The tokens of buttons: sealed when a message leaves, checked when one is pressed. The key is the one of the short
//! codes under the messages, which Telegram never sees: whoever stole the bot's token can make no button of ours.

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

use crate::kernel::button::{ACCOUNT_BYTES, Press, Seal, Token};
use crate::kernel::channel::ChatId;
use crate::kernel::incident::IncidentId;

/// A press, the message's number, the incident (0 where there is none: it is the number of a row, and rows count from
/// 1), the revision, the expiry in seconds, the account.
const FIELDS: usize = 1 + 8 + 8 + SHORT + SHORT + ACCOUNT_BYTES;
/// Of numbers that stay below 2^40. A larger one comes back as another, and so does not count.
const SHORT: usize = 5;
const MAC_BYTES: usize = 16;
/// Telegram takes 64 bytes; in base64 these are 64.
const TOKEN_BYTES: usize = FIELDS + MAC_BYTES;

/// The data of the button, for one user in one chat.
#[must_use]
pub fn seal(key: &SecretSlice<u8>, user: u64, chat: ChatId, token: &Token) -> String {
    let mut bytes = fields(token).to_vec();
    bytes.extend_from_slice(&mac(key, user, chat, &bytes).finalize().into_bytes()[..MAC_BYTES]);
    BASE64URL_NOPAD.encode(&bytes)
}

/// What the data of a pressed button says, if this user in this chat was given it.
#[must_use]
pub fn open(key: &SecretSlice<u8>, user: u64, chat: ChatId, data: &str) -> Seal {
    let Ok(bytes) = BASE64URL_NOPAD.decode(data.as_bytes()) else { return Seal::Absent };
    if bytes.len() != TOKEN_BYTES {
        return Seal::Absent;
    }
    let (fields, seal) = bytes.split_at(FIELDS);
    match (mac(key, user, chat, fields).verify_truncated_left(seal), token(fields)) {
        (Ok(()), Some(token)) => Seal::Whole(token),
        (Ok(()) | Err(_), _) => Seal::Forged,
    }
}

fn mac(key: &SecretSlice<u8>, user: u64, chat: ChatId, fields: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).expect("HMAC takes a key of any length");
    mac.update(b"countersign/button/v1|telegram|");
    mac.update(&user.to_be_bytes());
    mac.update(&chat.0.to_be_bytes());
    mac.update(fields);
    mac
}

fn fields(token: &Token) -> [u8; FIELDS] {
    let press = Press::ALL.iter().position(|press| *press == token.press).unwrap_or(Press::ALL.len());
    let account = data_encoding::HEXLOWER.decode(token.account.as_bytes()).unwrap_or_default();
    let mut bytes = [0; FIELDS];
    let parts: [&[u8]; 6] = [
        &[u8::try_from(press).unwrap_or(u8::MAX)],
        &token.number.to_be_bytes(),
        &token.incident.map_or(0, |incident| incident.0).to_be_bytes(),
        &token.revision.to_be_bytes()[8 - SHORT..],
        &token.expires_secs.to_be_bytes()[8 - SHORT..],
        &account,
    ];
    for (byte, given) in bytes.iter_mut().zip(parts.concat()) {
        *byte = given;
    }
    bytes
}

fn token(fields: &[u8]) -> Option<Token> {
    let mut rest = fields;
    let mut number = |length| {
        let (bytes, others) = rest.split_at_checked(length)?;
        rest = others;
        Some(bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    let press = *Press::ALL.get(usize::try_from(number(1)?).ok()?)?;
    let (message, incident, revision, expires_secs) = (number(8)?, number(8)?, number(SHORT)?, number(SHORT)?);
    let incident = (incident != 0).then_some(IncidentId(incident));
    let account = data_encoding::HEXLOWER.encode(rest).into();
    Some(Token { press, number: message, account, incident, revision, expires_secs })
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: u64 = 42;
    const CHAT: ChatId = ChatId(-1_001_234_567_890);

    fn key(bytes: &[u8]) -> SecretSlice<u8> {
        SecretSlice::from(bytes.to_vec())
    }

    fn token(press: Press) -> Token {
        Token {
            press,
            number: u64::MAX,
            account: "0123456789".into(),
            incident: Some(IncidentId(u64::MAX - 1)),
            revision: (1 << 40) - 1,
            expires_secs: 1_764_000_060,
        }
    }

    #[test]
    fn what_was_sealed_opens_for_the_same_user_and_chat_only() {
        for press in Press::ALL {
            for incident in [Some(IncidentId(7)), None] {
                let token = Token { incident, ..token(press) };
                let data = seal(&key(b"k"), USER, CHAT, &token);
                assert_eq!(data.len(), 64);
                assert_eq!(open(&key(b"k"), USER, CHAT, &data), Seal::Whole(token));
                assert_eq!(open(&key(b"k"), USER + 1, CHAT, &data), Seal::Forged);
                assert_eq!(open(&key(b"k"), USER, ChatId(42), &data), Seal::Forged);
                assert_eq!(open(&key(b"other"), USER, CHAT, &data), Seal::Forged);
            }
        }
    }

    #[test]
    fn no_bit_can_be_changed() {
        let data = seal(&key(b"k"), USER, CHAT, &token(Press::Kill));
        let bytes = BASE64URL_NOPAD.decode(data.as_bytes()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&key(b"k"), USER, CHAT, &BASE64URL_NOPAD.encode(&bytes)), Seal::Forged, "bit {bit}");
        }
    }

    #[test]
    fn what_is_no_token_has_no_seal() {
        let data = seal(&key(b"k"), USER, CHAT, &token(Press::Kill));
        for data in ["", "kill", &data[1..], &format!("{data}AAAA"), &data.replace(&data[..1], "ä")] {
            assert_eq!(open(&key(b"k"), USER, CHAT, data), Seal::Absent, "{data}");
        }
    }

    #[test]
    fn a_number_too_large_comes_back_as_another() {
        let large = Token { revision: 1 << 40, ..token(Press::Kill) };
        let Seal::Whole(back) = open(&key(b"k"), USER, CHAT, &seal(&key(b"k"), USER, CHAT, &large)) else { panic!() };
        assert_ne!(back, large);
    }
}
