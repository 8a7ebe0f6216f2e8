//! The vault by the built program: secrets go in and are never shown, and whatever is wrong is said with a hint while
//! the file stays as it was.

#![expect(clippy::disallowed_methods, reason = "a test waits for processes by the clock")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, QueueSelector, tcflush, tcgetattr};
use serde_json::Value;

const PASSPHRASE: &str = "correct horse battery";
const CANCEL: &str = "s3cret-cancel-9f8e7d6c5b4a";
const PEM: &str = "-----BEGIN PRIVATE KEY-----\nczNjcmV0LXBlbS05ZjhlN2Q2YzViNGE=\n-----END PRIVATE KEY-----";
const SECRETS: [&str; 4] = [PASSPHRASE, CANCEL, "czNjcmV0LXBlbS05ZjhlN2Q2YzViNGE=", "s3cret-rotated"];
const WITHIN: Duration = Duration::from_secs(30);

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(key: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let vault = format!("[vault]\nfile = \"countersign.vault\"\n{key}\n");
        let config = include_str!("daemon/countersign.toml").split("[telegram]").next().unwrap();
        let config = config.replace("WS", "ws://127.0.0.1:9").replace("REST", "http://127.0.0.1:9");
        folder.write("countersign.toml", &format!("{config}\n{vault}"));
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path("countersign.vault")).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.arg("--config").arg(self.path("countersign.toml")).args(arguments).env_remove("CREDENTIALS_DIRECTORY");
        // Everything that any part of it could say.
        command.env("COUNTERSIGN_LOG", "trace").stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdin(Stdio::piped()).spawn().unwrap()
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        give(self.start(arguments), input)
    }

    /// What it printed as JSON.
    fn does(&self, arguments: &[&str], input: &str) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat(), input);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What it said where it must fail, which changes no byte of the vault.
    fn fails(&self, arguments: &[&str], input: &str) -> String {
        let before = fs::read(self.path("countersign.vault")).ok();
        let output = self.run(arguments, input);
        let said = said(&output);
        assert!(!output.status.success() && said.contains("hint: "), "{arguments:?}: {said}");
        assert_eq!(fs::read(self.path("countersign.vault")).ok(), before, "{arguments:?}");
        said
    }
}

fn give(mut child: Child, input: &str) -> Output {
    // It may have refused before it read.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

/// What it said, which is never a secret.
fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    SECRETS.iter().for_each(|secret| assert!(!text.contains(secret), "{text}"));
    text
}

#[test]
fn secrets_go_in_and_are_never_shown() {
    let folder = Folder::new("key = \"file:vault.key\"");
    assert!(folder.fails(&["secret", "list"], "").contains("hint: countersign secret init"));
    let made = folder.does(&["secret", "init"], "");
    assert!(made["key_made"].as_str().unwrap().ends_with("vault.key"), "{made}");
    assert_eq!(folder.does(&["secret", "list"], "")["names"], serde_json::json!([]));
    for (name, secret) in [("cancel", CANCEL), ("admin.pem", PEM)] {
        let output = folder.run(&["secret", "set", name], &format!("{secret}\n"));
        assert!(output.status.success() && said(&output).contains(&format!("vault:{name}")), "{}", said(&output));
    }
    assert_eq!(folder.does(&["secret", "list"], "")["names"], serde_json::json!(["admin.pem", "cancel"]));
    let replaced = folder.does(&["secret", "set", "cancel"], "s3cret-rotated");
    assert_eq!(replaced["replaced"], true, "{replaced}");
    let key = fs::read_to_string(folder.path("vault.key")).unwrap();
    for file in ["countersign.vault", "vault.key"] {
        assert_eq!(fs::metadata(folder.path(file)).unwrap().mode() & 0o777, 0o600, "{file}");
        let text = String::from_utf8_lossy(&fs::read(folder.path(file)).unwrap()).into_owned();
        SECRETS.iter().for_each(|secret| assert!(!text.contains(secret), "{file}"));
        assert_eq!(text.contains(key.trim()), file == "vault.key");
    }
    assert!(folder.fails(&["secret", "init"], "").contains("already"));
    assert!(folder.fails(&["secret", "rm", "none"], "").contains("no none in the vault"));
    folder.does(&["secret", "rm", "cancel"], "");
    assert_eq!(folder.does(&["secret", "list"], "")["names"], serde_json::json!(["admin.pem"]));
    assert_eq!(fs::read_dir(folder.path(".")).unwrap().count(), 3, "nothing else was left");
}

#[test]
fn what_is_wrong_is_said_apart() {
    let folder = Folder::new("key = \"file:vault.key\"");
    folder.does(&["secret", "init"], "");
    folder.does(&["secret", "set", "cancel"], CANCEL);
    let key = fs::read_to_string(folder.path("vault.key")).unwrap();
    folder.write("other.key", &"7".repeat(64));
    let other = folder.path("other.key").display().to_string();
    let told = folder.fails(&["secret", "set", "cancel", "--key-file", &other], CANCEL);
    assert!(told.contains("not opened by this key; the file itself is sound"), "{told}");
    for empty in ["", "\n"] {
        assert!(folder.fails(&["secret", "set", "cancel"], empty).contains("no secret was given"));
    }
    let long = "x".repeat(64 * 1024 + 1);
    assert!(said(&folder.run(&["secret", "set", "cancel"], &long)).contains("longer than 65536 bytes"));
    let output = folder.run(&["secret", "set", "s3cret rotated!"], "");
    assert!(!output.status.success() && !said(&output).contains("rotated"), "{}", said(&output));
    for (file, hint) in [("vault.key", "chmod 600"), ("countersign.vault", "chmod 600")] {
        fs::set_permissions(folder.path(file), fs::Permissions::from_mode(0o644)).unwrap();
        let told = folder.fails(&["secret", "list"], "");
        assert!(told.contains(hint) && told.contains(file), "{told}");
        fs::set_permissions(folder.path(file), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let sound = folder.bytes();
    let mut flipped = sound.clone();
    let last = flipped.len() - 40;
    flipped[last] ^= 1;
    for (bytes, words) in [(&sound[..sound.len() - 1], "is cut short"), (&flipped, "is damaged"), (b"x", "is no vault")]
    {
        fs::write(folder.path("countersign.vault"), bytes).unwrap();
        let told = folder.fails(&["secret", "set", "cancel"], CANCEL);
        assert!(told.contains(words), "{words}: {told}");
    }
    fs::write(folder.path("countersign.vault"), &sound).unwrap();
    fs::remove_file(folder.path("vault.key")).unwrap();
    assert!(folder.fails(&["secret", "list"], "").contains("vault.key"));
    folder.write("vault.key", &key);
    assert_eq!(folder.does(&["secret", "list"], "")["names"], serde_json::json!(["cancel"]));
}

#[test]
fn the_second_of_two_writers_is_told_and_loses_nothing() {
    let folder = Folder::new("key = \"file:vault.key\"");
    folder.does(&["secret", "init"], "");
    // The first one waits for its secret.
    let mut first = folder.start(&["secret", "set", "first"]);
    let deadline = Instant::now() + WITHIN;
    let told = loop {
        // Time for the first one to get there; a second that came before it may have turned it away.
        std::thread::sleep(Duration::from_millis(200));
        let output = folder.run(&["secret", "set", "second"], CANCEL);
        if !output.status.success() {
            break said(&output);
        }
        if first.try_wait().unwrap().is_some() {
            first = folder.start(&["secret", "set", "first"]);
        }
        assert!(Instant::now() < deadline, "nobody was told");
    };
    assert!(told.contains("another command is changing the vault") && told.contains("hint: "), "{told}");
    // Reading goes on meanwhile.
    folder.does(&["secret", "list"], "");
    assert!(give(first, CANCEL).status.success());
    folder.does(&["secret", "set", "second"], CANCEL);
    assert_eq!(folder.does(&["secret", "list"], "")["names"], serde_json::json!(["first", "second"]));
}

#[test]
fn a_passphrase_opens_it_from_stdin() {
    let folder = Folder::new("");
    assert!(folder.fails(&["secret", "init"], "short\n").contains("12 characters at least"));
    folder.does(&["secret", "init"], PASSPHRASE);
    folder.does(&["secret", "set", "admin.pem"], &format!("{PASSPHRASE}\n{PEM}\n"));
    assert_eq!(folder.does(&["secret", "list"], PASSPHRASE)["names"], serde_json::json!(["admin.pem"]));
    let told = folder.fails(&["secret", "list"], "correct horse batterie");
    assert!(told.contains("not opened by this passphrase; the file itself is sound"), "{told}");
    assert!(folder.fails(&["secret", "list"], "").contains("no passphrase of the vault was given"));
    folder.write("vault.key", &"7".repeat(64));
    let key = folder.path("vault.key").display().to_string();
    let told = folder.fails(&["secret", "list", "--key-file", &key], "");
    assert!(told.contains("locked with a passphrase, and was to be opened with a key"), "{told}");
}

#[test]
fn a_credential_of_systemd_opens_it_at_the_start() {
    let folder = Folder::new("key = \"credential:vault-key\"");
    let told = folder.fails(&["secret", "init"], "");
    assert!(told.contains("--key-file PATH"), "{told}");
    fs::create_dir(folder.path("credentials")).unwrap();
    let key = folder.path("credentials/vault-key").display().to_string();
    folder.does(&["secret", "init", "--key-file", &key], "");
    let text = fs::read_to_string(folder.path("countersign.toml")).unwrap();
    folder.write("countersign.toml", &text.replace("file:", "vault:"));
    let names = ["watch.key", "watch.secret", "tag.secret"];
    names.iter().for_each(|name| drop(folder.does(&["secret", "set", name, "--key-file", &key], CANCEL)));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    // All but the last secret are found, by the credential alone; the start ends with the status of a wrong setting.
    let run = |folder: &Folder| {
        let mut command = folder.command(&["run"]);
        let output = command.env("CREDENTIALS_DIRECTORY", folder.path("credentials")).stdin(Stdio::null()).output();
        let output = output.unwrap();
        (said(&output), output.status.code())
    };
    fs::create_dir(folder.path("data")).unwrap();
    let (told, status) = run(&folder);
    assert!(told.contains("vault:grid.secret is not in the vault"), "{told}");
    assert!(told.contains("hint: countersign secret set grid.secret") && status == Some(78), "{status:?} {told}");
    folder.write("credentials/vault-key", "");
    fs::remove_file(&key).unwrap();
    folder.write("credentials/vault-key", &"7".repeat(64));
    let (told, status) = run(&folder);
    assert!(told.contains("not opened by this key") && status == Some(78), "{status:?} {told}");
}

#[test]
fn a_terminal_shows_nothing_of_what_is_typed() {
    let folder = Folder::new("");
    let terminal = Terminal::open();
    let differ = [("passphrase for the new vault", PASSPHRASE), ("again", "correct horse batterie")];
    let (shown, success) = terminal.run(&folder, &["secret", "init"], &differ);
    assert!(!success && shown.contains("not the same"), "{shown}");
    let same = [("passphrase for the new vault", PASSPHRASE), ("again", PASSPHRASE)];
    let (shown, success) = terminal.run(&folder, &["secret", "init"], &same);
    assert!(success, "{shown}");
    let before = folder.bytes();
    let (shown, success) =
        terminal.run(&folder, &["secret", "set", "x"], &[("passphrase", PASSPHRASE), ("secret (", "\x03")]);
    assert!(!success && shown.contains("interrupted") && terminal.echoes() && folder.bytes() == before, "{shown}");
    let lines: Vec<(&str, &str)> = ["passphrase", "secret (", "next line", "next line"]
        .into_iter()
        .zip([PASSPHRASE].into_iter().chain(PEM.lines()))
        .collect();
    let (shown, success) = terminal.run(&folder, &["secret", "set", "admin.pem"], &lines);
    assert!(success && terminal.echoes(), "{shown}");
    assert_eq!(folder.does(&["secret", "list"], PASSPHRASE)["names"], serde_json::json!(["admin.pem"]));
}

struct Terminal {
    master: File,
    slave: PathBuf,
    /// The last of it to be let go would end the terminal.
    _open: File,
}

impl Terminal {
    fn open() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = PathBuf::from(ptsname(&master, Vec::new()).unwrap().into_string().unwrap());
        let open = File::options().read(true).write(true).open(&slave).unwrap();
        Self { master: master.into(), slave, _open: open }
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.master).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// What it shows of a command, whose questions are answered, and whether that ended well.
    fn run(&self, folder: &Folder, arguments: &[&str], answers: &[(&str, &str)]) -> (String, bool) {
        let end = || File::options().read(true).write(true).open(&self.slave).unwrap();
        let mut command = folder.command(arguments);
        let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let mut shown = String::new();
        for (asked, answer) in answers {
            let mut since = String::new();
            while !since.contains(asked) {
                since += &self.read();
            }
            shown += &since;
            // What is typed before echo is off is shown, and dropped.
            let deadline = Instant::now() + WITHIN;
            while self.echoes() {
                assert!(Instant::now() < deadline, "{shown}");
                std::thread::sleep(Duration::from_millis(2));
            }
            (&self.master).write_all(format!("{answer}\n").as_bytes()).unwrap();
        }
        let success = child.wait().unwrap().success();
        (&self.master).write_all(b"END\n").unwrap();
        while !shown.contains("END") {
            shown += &self.read();
        }
        SECRETS.iter().for_each(|secret| assert!(!shown.contains(secret), "{shown}"));
        // The line typed here is nobody's.
        tcflush(&self.master, QueueSelector::IOFlush).unwrap();
        (shown, success)
    }

    fn read(&self) -> String {
        let mut bytes = [0; 1_024];
        let count = (&self.master).read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }
}
