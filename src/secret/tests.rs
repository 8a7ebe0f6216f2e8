use std::fs;
use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;

use super::*;
use crate::secret::vault::key::Costs;

#[test]
fn a_file_is_read_only_if_nobody_else_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, "s3cret\n").unwrap();
    let reference: Reference = "file:key".parse().unwrap();
    let secrets = Secrets::new(folder.path(), None);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(secrets.load(&reference), Err(SecretError::File(_, Fault::Open(_)))));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = secrets.load(&reference).unwrap();
    assert_eq!(secret.expose_secret(), "s3cret");
    assert!(!format!("{secret:?}").contains("s3cret"));
}

#[test]
fn a_credential_may_be_read_by_list_and_by_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, "s3cret").unwrap();
    let owned_by_root = rustix::process::geteuid().is_root();
    for (mode, others, is_read) in [
        (0o400, Others::ReadByList, true),
        (0o440, Others::ReadByList, owned_by_root),
        (0o440, Others::None, false),
        (0o460, Others::ReadByList, false),
        (0o444, Others::ReadByList, false),
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(private::read(&path, others, BYTES_MAX).is_ok(), is_read, "{mode:o} {others:?}");
    }
}

#[test]
fn a_secret_itself_is_refused_and_not_shown() {
    for text in ["hunter2hunter2", "vault:hunter2/hunter2", "vault:hunter2 hunter2"] {
        let error = text.parse::<Reference>().unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
    for text in ["file:", "env:", "credential:../x", "vault:", "vault:.x", "vault:../x", "vault:a b", "vault:é"] {
        assert!(text.parse::<Reference>().is_err(), "{text}");
    }
    assert!(format!("vault:{}", "x".repeat(65)).parse::<Reference>().is_err());
    assert!(format!("vault:{}", "x".repeat(64)).parse::<Reference>().is_ok());
    let reference: Reference = "vault:binance.cancel-key_1".parse().unwrap();
    assert_eq!(reference.to_string(), "vault:binance.cancel-key_1");
    for text in ["vault:x", "env:X", "hunter2"] {
        let error = KeyReference::try_from(text.to_owned()).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_vault_gives_what_is_asked_for_and_names_what_it_has_not() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.path().join(name), bytes).unwrap();
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
    };
    let text = Key::make_text().unwrap();
    write("vault.key", text.as_bytes());
    let mut vault = Vault::new(&Key::from_text(text.as_bytes()).unwrap(), Costs::USUAL).unwrap();
    vault.set("watch".parse().unwrap(), "s3cret").unwrap();
    write("vault", &vault.to_bytes());
    let [watch, kill]: [Reference; 2] = ["vault:watch", "vault:kill"].map(|text| text.parse().unwrap());
    let place = |key: Option<&str>| VaultPlace {
        file: folder.path().join("vault"),
        key: key.map(|key| key.to_owned().try_into().unwrap()),
    };
    let sound = place(Some("file:vault.key"));
    let secrets = Secrets::new(folder.path(), Some(&sound));
    assert_eq!(secrets.load(&watch).unwrap().expose_secret(), "s3cret");
    let error = secrets.load(&kill).unwrap_err();
    assert!(error.to_string().contains("hint: countersign secret set kill"), "{error}");
    assert!(matches!(Secrets::new(folder.path(), None).load(&watch), Err(SecretError::NoVault(_))));
    write("empty", b"");
    write("short.key", &[b'7'; 62]);
    write("other.key", &[b'7'; 64]);
    for (key, said) in [
        (None, "locked with a key, and was to be opened with a passphrase"),
        (Some("file:none.key"), "the secret file:none.key cannot be read"),
        (Some("file:empty"), "not 32 bytes"),
        (Some("file:short.key"), "not 32 bytes"),
        (Some("file:other.key"), "is not opened by this key; the file itself is sound"),
        (Some("credential:vault-key"), "--key-file PATH"),
    ] {
        let place = place(key);
        let error = Secrets::new(folder.path(), Some(&place)).load(&watch).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("hint:"), "{key:?}: {error}");
    }
}
