use data_encoding::BASE64;
use secrecy::ExposeSecret;

use super::*;

const CHEAP: Costs = Costs { memory_kib: 8 * 1024, passes: 1, lanes: 1 };
const SECRETS: [(&str, &str); 3] =
    [("cancel", "s3cret-cancel"), ("admin", "s3cret-admin"), ("watch.key", "s3cret-watch")];

fn key(digit: u8) -> Key {
    Key::from_text(&[digit; 64]).unwrap()
}

fn passphrase(text: &str) -> Key {
    Key::Passphrase(text.into())
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn vault(key: &Key) -> Vault {
    let mut vault = Vault::new(key, CHEAP).unwrap();
    for (entry, secret) in SECRETS {
        assert!(!vault.set(name(entry), secret).unwrap());
    }
    vault
}

fn open(bytes: &[u8], key: &Key) -> Result<Vault, Flaw> {
    Locked::read(bytes.to_vec())?.unlock(key)
}

fn revealed(vault: &Vault, entry: &str) -> Option<String> {
    vault.reveal(&name(entry)).unwrap().map(|secret| secret.expose_secret().to_owned())
}

/// A header that somebody wrote who knows how, but not the key.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = Sha256::digest(&bytes[..CHECKSUM_AT]);
    bytes[CHECKSUM_AT..HEADER].copy_from_slice(&checksum);
    bytes
}

#[test]
fn what_was_put_in_comes_out_by_its_name() {
    for key in [key(b'1'), passphrase("correct horse")] {
        let bytes = vault(&key).to_bytes();
        let mut opened = open(&bytes, &key).unwrap();
        for (entry, secret) in SECRETS {
            assert_eq!(revealed(&opened, entry).as_deref(), Some(secret));
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "it stands in the file");
            assert!(!format!("{opened:?} {key:?}").contains("s3cret"));
        }
        assert_eq!(revealed(&opened, "none"), None);
        assert!(opened.set(name("admin"), "another").unwrap(), "it was replaced");
        assert!(opened.remove(&name("cancel")) && !opened.remove(&name("cancel")));
        let opened = open(&opened.to_bytes(), &key).unwrap();
        assert_eq!(opened.names().map(Name::as_str).collect::<Vec<_>>(), ["admin", "watch.key"]);
        assert_eq!(revealed(&opened, "admin").as_deref(), Some("another"));
    }
}

/// Written by the first version, and read by other hands too, from the table in `vault.rs` alone.
#[test]
fn what_the_first_version_wrote_still_opens() {
    let bytes = BASE64.decode(FIRST.as_bytes()).unwrap();
    let locked = Locked::read(bytes.clone()).unwrap();
    assert_eq!(locked.lock(), Lock::Passphrase(Costs { memory_kib: 65_536, passes: 3, lanes: 1 }));
    let vault = locked.unlock(&passphrase("correct horse battery")).unwrap();
    assert_eq!(revealed(&vault, "cancel.key").as_deref(), Some("cancelling-key"));
    assert_eq!(revealed(&vault, "watch.key").as_deref(), Some("watching-key"));
    assert_eq!(vault.to_bytes(), bytes);
}

#[test]
fn a_change_seals_one_secret_and_no_nonce_comes_twice() {
    let key = key(b'1');
    let before = vault(&key);
    let mut after = open(&before.to_bytes(), &key).unwrap();
    after.set(name("admin"), "s3cret-admin").unwrap();
    for entry in ["cancel", "watch.key"] {
        assert_eq!(after.entries[&name(entry)].text, before.entries[&name(entry)].text, "it was not decrypted");
    }
    assert_ne!(after.entries[&name("admin")].nonce, before.entries[&name("admin")].nonce);
    assert_ne!(after.entries[&name("admin")].text, before.entries[&name("admin")].text, "the same secret, sealed anew");
    assert_ne!(vault(&key).header, before.header, "one key, two vaults");
}

#[test]
fn every_flipped_bit_is_an_error_and_never_blamed_on_the_key() {
    let keys = [key(b'1'), passphrase("correct horse")];
    for key in &keys {
        let bytes = vault(key).to_bytes();
        for at in 0..bytes.len() {
            // Past its header a vault of a passphrase is like the other, and Argon2id takes its time.
            let bits = if at >= HEADER && matches!(key, Key::Passphrase(_)) { 0..0 } else { 0..8 };
            for bit in bits {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let flaw = open(&bytes, key).map(|_| ()).unwrap_err();
                assert!(!matches!(flaw, Flaw::WrongKey(_) | Flaw::OtherLock(_)), "byte {at}: {flaw}");
            }
        }
    }
}

#[test]
fn what_is_cut_short_or_longer_is_refused() {
    let key = key(b'1');
    let bytes = vault(&key).to_bytes();
    for length in 0..bytes.len() {
        let flaw = open(&bytes[..length], &key).map(|_| ()).unwrap_err();
        assert!(matches!(flaw, Flaw::CutShort { held, .. } if held == length), "{length}: {flaw}");
    }
    assert_eq!(open(&[&bytes[..], b"\0"].concat(), &key).unwrap_err(), Flaw::Damaged("length"));
    assert_eq!(open(b"-----BEGIN PRIVATE KEY-----", &key).unwrap_err(), Flaw::NotAVault);
}

#[test]
fn the_wrong_key_is_told_from_damage_and_from_the_other_kind() {
    let bytes = vault(&key(b'1')).to_bytes();
    assert_eq!(open(&bytes, &key(b'2')).unwrap_err(), Flaw::WrongKey(Lock::Key));
    assert_eq!(open(&bytes, &passphrase("1")).unwrap_err(), Flaw::OtherLock(Lock::Key));
    let bytes = vault(&passphrase("correct horse")).to_bytes();
    assert_eq!(open(&bytes, &passphrase("correct hors")).unwrap_err(), Flaw::WrongKey(Lock::Passphrase(CHEAP)));
    assert_eq!(open(&bytes, &key(b'1')).unwrap_err(), Flaw::OtherLock(Lock::Passphrase(CHEAP)));
    for flaw in [Flaw::WrongKey(Lock::Key), Flaw::OtherLock(Lock::Key), Flaw::Costs] {
        assert!(flaw.to_string().contains("\nhint: "), "{flaw}");
    }
}

#[test]
fn a_secret_of_another_time_or_name_is_refused() {
    let key = key(b'1');
    let old = vault(&key);
    let mut new = open(&old.to_bytes(), &key).unwrap();
    new.set(name("cancel"), "s3cret-newest").unwrap();
    // In the file: all the bytes of one secret, as they were.
    let (old_bytes, new_bytes) = (old.to_bytes(), new.to_bytes());
    let at = new_bytes.windows(6).position(|window| window == b"cancel").unwrap() + 6;
    let end = at + NONCE + 4 + "s3cret-newest".len() + TAG;
    let mixed = [&new_bytes[..at], &old_bytes[at..end], &new_bytes[end..]].concat();
    assert!(mixed != new_bytes && mixed != old_bytes);
    assert_eq!(open(&mixed, &key).unwrap_err(), Flaw::Damaged("list of secrets"));
    // And even with the seal of somebody who has it: no secret opens under another's name, or in another vault.
    let moved = new.entries.remove(&name("cancel")).unwrap();
    new.entries.insert(name("watch.key"), moved);
    assert_eq!(new.reveal(&name("watch.key")).unwrap_err(), Flaw::Damaged("secrets"));
    let mut other = vault(&key);
    other.entries = old.entries;
    assert_eq!(other.reveal(&name("admin")).unwrap_err(), Flaw::Damaged("secrets"));
}

#[test]
fn a_header_cannot_ask_for_what_the_machine_has_not() {
    let bytes = vault(&passphrase("correct horse")).to_bytes();
    for (at, figure) in [(21, 1 << 30), (21, 256 * 1024 + 1), (21, 0), (25, u32::MAX), (25, 0), (29, 5), (29, 0)] {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&u32::to_be_bytes(figure));
        assert_eq!(Locked::read(bytes.clone()).unwrap_err(), Flaw::Damaged("header"), "by decay");
        assert_eq!(Locked::read(with_checksum(bytes)).unwrap_err(), Flaw::Costs, "on purpose");
    }
    for (at, value, flaw) in [(19, 2, Flaw::Version(2)), (18, 1, Flaw::Version(257)), (20, 3, Flaw::Damaged("header"))]
    {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        assert_eq!(Locked::read(with_checksum(bytes)).unwrap_err(), flaw);
    }
}

#[test]
fn the_limits_are_told_and_lose_nothing() {
    let mut vault = Vault::new(&key(b'1'), CHEAP).unwrap();
    assert_eq!(vault.set(name("x"), "").unwrap_err(), Flaw::Length);
    assert_eq!(vault.set(name("x"), &"x".repeat(SECRET_BYTES_MAX + 1)).unwrap_err(), Flaw::Length);
    let big = "x".repeat(SECRET_BYTES_MAX);
    let held = (0..).position(|number| vault.set(name(&format!("big-{number}")), &big) == Err(Flaw::Full)).unwrap();
    assert_eq!(held, 63, "64 KiB each, in 4 MiB with what is written around them");
    assert_eq!(vault.set(name("big-0"), "smaller"), Ok(true));
    assert_eq!(vault.set(name("big-63"), &big), Ok(false), "there is room again");
    let mut many = Vault::new(&key(b'1'), CHEAP).unwrap();
    for number in 0..SECRETS_MAX {
        let sealed = Sealed { nonce: [0; NONCE], text: vec![0; TAG] };
        many.entries.insert(name(&format!("many-{number}")), sealed);
    }
    assert_eq!(many.set(name("one-more"), "x"), Err(Flaw::Full));
    assert_eq!(many.set(name("many-7"), "x"), Ok(true));
    assert_eq!(open(&many.to_bytes(), &key(b'1')).unwrap().entries.len(), SECRETS_MAX);
}

#[test]
fn a_key_is_32_bytes_in_hex_or_base64() {
    let bytes: Vec<u8> = (0..32).collect();
    let vault = vault(&Key::from_text(HEX.as_bytes()).unwrap()).to_bytes();
    for text in [HEX.to_owned(), HEX.to_uppercase(), format!("{HEX}\r\n"), format!("{}\n", BASE64.encode(&bytes))] {
        open(&vault, &Key::from_text(text.as_bytes()).unwrap()).unwrap();
    }
    for text in ["", "x", &HEX[1..], &HEX[2..], &BASE64.encode(&[7; 31]), &BASE64.encode(&[7; 33]), "correct horse"] {
        assert!(Key::from_text(text.as_bytes()).is_none(), "{text}");
    }
    let made = [Key::make_text().unwrap(), Key::make_text().unwrap()];
    assert!(made[0] != made[1] && Key::from_text(made[0].as_bytes()).is_some());
}

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

const FIRST: &str = "\
    Y291bnRlcnNpZ24gdmF1bHQKAAEBAAEAAAAAAAMAAAABAnZzfFqnljo76nw9BMvazSlpBJiveBKvoiAgGS9czrt+6Qb0lWAzHKh32+znmUZKKg8a\
    pAfNlT8eOG/lFg1aSntMfLstRY3mTwDsQ4HWIui003KCmUHQwd5CKESVpUWHAAAAiQACCmNhbmNlbC5rZXl6+QyEkQ1zbHxG4izphV96+Iw953eD\
    aqsAAAAefXBDP4CVpAaZy4NJZzmUajLNnZorMkUzDsDefZ0+CXdhdGNoLmtleYD0R30ZRiYJJq+zsCNaMMjMDL/PLr3JvwAAAByJ1t8aYTbN9tRM\
    qIBgRdBqg+PzsXuxOcEMb9zcOI/7oA9GkQlVlCoXwFVCAzJHOf7iloaXd7RuaIRWQH4=";
