//! Commands for real; what speaks HTTP is tried in `tests/containment_lane.rs`.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn script(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn command(argv: &[&str], within_ms: u64) -> ActOutcome {
    let argv: Vec<String> = argv.iter().map(|part| (*part).to_owned()).collect();
    by_command(&argv, Duration::from_millis(within_ms)).await.unwrap_or_else(|not_done| not_done)
}

fn reason(outcome: ActOutcome) -> String {
    match outcome {
        ActOutcome::Refused { code, reason } => format!("refused {code}: {reason}"),
        ActOutcome::Unknown { reason } => format!("unknown: {reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_status_of_a_command_is_its_proof() {
    let ActOutcome::Done { proof } = command(&["/bin/true"], 5_000).await else { panic!("it ends with 0") };
    assert_eq!(&*proof, "/bin/true ended with status 0");
    assert_eq!(reason(command(&["/bin/false"], 5_000).await), "refused 1: /bin/false ended with status 1");
    assert!(reason(command(&["/nowhere/stop"], 5_000).await).starts_with("refused 0: /nowhere/stop cannot be started"));
    let folder = tempfile::tempdir().unwrap();
    let noisy = script(&folder, "noisy", r#"printf 'first\nno \033[31m<b>such</b> bot "x"\n\n' >&2; exit 3"#);
    let told = reason(command(&[&noisy], 5_000).await);
    assert!(told.ends_with(r#"ended with status 3: "no 31mbsuch/b bot x""#), "{told}");
    let signalled = script(&folder, "signalled", "kill -TERM $$");
    assert!(reason(command(&[&signalled], 5_000).await).contains("ended by a signal"));
}

#[tokio::test]
async fn a_command_gets_no_shell_no_input_and_no_environment() {
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen");
    let told = script(
        &folder,
        "told",
        r#"{ echo "$#:$2"; env | grep -v -e '^PWD=' -e '^_=' -e '^SHLVL=' -e '^OLDPWD='; cat; } > "$1""#,
    );
    command(&[&told, seen.to_str().unwrap(), "$(touch /tmp/x); *"], 5_000).await;
    let seen = std::fs::read_to_string(seen).unwrap();
    assert_eq!(seen, format!("2:$(touch /tmp/x); *\nPATH={PATH}\n"));
}

#[tokio::test]
async fn what_does_not_end_is_ended_and_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let slow = script(&folder, "slow", &format!("(sleep 1; touch {}) & sleep 30", mark.display()));
    assert!(reason(command(&[&slow], 200).await).starts_with("unknown: "));
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(!mark.exists(), "what it had started was ended too");
    // What a command leaves behind holds its output open, and nobody waits for that.
    let leaves = script(&folder, "leaves", "sleep 30 & exit 0");
    assert!(matches!(command(&[&leaves], 5_000).await, ActOutcome::Done { .. }));
    // More than a pipe holds.
    let loud = script(&folder, "loud", "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; exit 4");
    assert_eq!(reason(command(&[&loud], 5_000).await).split(':').next(), Some("refused 4"));
}

#[tokio::test]
async fn a_unit_is_stopped_when_systemd_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    for (stop, state, status, expected) in [
        ("exit 0", "inactive", 3, "done systemctl is-active bot.service: inactive"),
        ("exit 0", "failed", 3, "done systemctl is-active bot.service: failed"),
        ("exit 0", "deactivating", 3, "unknown: systemctl is-active bot.service: \"deactivating\""),
        ("exit 0", "active", 0, "unknown: systemctl is-active bot.service: \"active\""),
        ("exit 0", "", 1, "unknown: systemctl is-active bot.service: \"\""),
        (
            "echo 'Failed to stop bot.service: Unit bot.service not loaded.' >&2; exit 5",
            "inactive",
            3,
            "refused 5: systemctl stop ended with status 5: \"Failed to stop bot.service: Unit bot.service not loaded.\"",
        ),
    ] {
        let text = format!(
            "echo \"$*\" >> {}\ncase $2 in stop) {stop};; is-active) echo {state}; exit {status};; esac",
            log.display()
        );
        let systemctl = script(&folder, "systemctl", &text);
        let outcome = by_systemd(&systemctl, "bot.service", Manager::System, Duration::from_secs(5)).await;
        let told = match outcome.unwrap_or_else(|not_done| not_done) {
            ActOutcome::Done { proof } => format!("done {proof}"),
            other => reason(other),
        };
        assert_eq!(told, expected);
    }
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.starts_with("--system stop -- bot.service\n--system is-active -- bot.service\n"), "{log}");
}
