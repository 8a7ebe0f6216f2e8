//! The Python that a test's counterpart runs in, and what is said where there is none.

use std::io::Write;
use std::process::Command;

/// `COUNTERSIGN_PYTHON`, if it has this package; otherwise the test is skipped.
pub fn python_with(package: &str) -> Option<String> {
    let found =
        named().and_then(|python| match Command::new(&python).args(["-c", &format!("import {package}")]).output() {
            Ok(output) if output.status.success() => Ok(python),
            Ok(_) => Err(format!("{python} has no {package}")),
            Err(error) => Err(format!("{python} does not start: {error}")),
        });
    found.map_err(|reason| skip(&reason)).ok()
}

fn named() -> Result<String, String> {
    std::env::var("COUNTERSIGN_PYTHON").map_err(|_| "COUNTERSIGN_PYTHON names no Python".to_owned())
}

/// A missing tool: said past the test harness, which shows nothing of a test that passes. `COUNTERSIGN_NO_SKIP=1` makes it
/// a failure.
pub fn skip(reason: &str) {
    let failure = std::env::var("COUNTERSIGN_NO_SKIP").is_ok_and(|value| value == "1");
    assert!(!failure, "a skip counts as a failure here: {reason}");
    not_permitted(reason);
}

/// What the machine itself does not permit cannot be installed: said, and no failure anywhere.
pub fn not_permitted(reason: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    // `eprintln!` would go to the harness.
    std::io::stderr().write_all(format!("SKIPPED {test}: {reason}\n").as_bytes()).unwrap();
}
