//! `countersign access import FILE`: address evidence from an export, JSON lines, one row after the other.
//!
//! Each row is read or refused with its number; a refused row stops none of the others.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;
use tokio::fs::File;
use tokio::io::BufReader;

use crate::inlet::lines::{Line, Lines};
use crate::inlet::operator::{Operator, OperatorCommand, OperatorError};
use crate::inlet::wire::{LINE_BYTES_MAX, read_access};

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("cannot read {}\nhint: JSON lines, one row of evidence each", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("row {row} was not answered; the rows before it were taken")]
    Daemon { row: u64, source: OperatorError },
    #[error(transparent)]
    NoDaemon(OperatorError),
    #[error("cannot print")]
    Print(#[source] std::io::Error),
}

/// Refused rows that the JSON object lists; all are counted.
const REFUSED_LISTED_MAX: usize = 100;

#[derive(Debug, Default, Serialize)]
pub struct Imported {
    pub taken: u64,
    pub refused_count: u64,
    pub refused: Vec<RefusedRow>,
}

#[derive(Debug, Serialize)]
pub struct RefusedRow {
    line: u64,
    reason: String,
}

impl Imported {
    /// 1 where any row was refused.
    pub fn exit_status(&self) -> u8 {
        u8::from(self.refused_count > 0)
    }
}

/// Imports `file` through the daemon at `socket`. Refused rows, as they come, and the summary go to `out`; with `json`
/// both in one object at the end.
pub async fn import(file: &Path, socket: &Path, json: bool, out: &mut impl Write) -> Result<Imported, ImportError> {
    let failed = |source| ImportError::File { path: file.to_owned(), source };
    let mut rows = Lines::new(BufReader::new(File::open(file).await.map_err(failed)?), LINE_BYTES_MAX);
    let mut operator = Operator::connect(socket).await.map_err(ImportError::NoDaemon)?;
    let mut imported = Imported::default();
    loop {
        let line = rows.next().await.map_err(failed)?;
        let taken = match line {
            Line::End => break,
            Line::TooLong => Err(format!("longer than {LINE_BYTES_MAX} bytes")),
            Line::Whole(row) => hand_over(&row, rows.line(), &mut operator).await?,
        };
        match taken {
            Ok(()) => imported.taken += 1,
            Err(reason) => {
                imported.refused_count += 1;
                let line = rows.line();
                if !json {
                    writeln!(out, "line {line}: {reason}").map_err(ImportError::Print)?;
                } else if imported.refused.len() < REFUSED_LISTED_MAX {
                    imported.refused.push(RefusedRow { line, reason });
                }
            }
        }
    }
    if json {
        writeln!(out, "{}", json!(imported)).map_err(ImportError::Print)?;
    } else {
        let Imported { taken, refused_count, .. } = imported;
        writeln!(out, "{taken} rows taken, {refused_count} refused").map_err(ImportError::Print)?;
    }
    Ok(imported)
}

/// The inner error is the row's; the outer one ends the import.
async fn hand_over(row: &[u8], line: u64, operator: &mut Operator) -> Result<Result<(), String>, ImportError> {
    let evidence = match read_access(row) {
        Ok(evidence) => evidence,
        Err(error) => return Ok(Err(error.to_string())),
    };
    match operator.ask(&OperatorCommand::AccessImport { evidence }).await {
        Ok(_) => Ok(Ok(())),
        Err(OperatorError::Refused { message, hint: None }) => Ok(Err(message)),
        Err(OperatorError::Refused { message, hint: Some(hint) }) => Ok(Err(format!("{message} (hint: {hint})"))),
        Err(source) => Err(ImportError::Daemon { row: line, source }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::inlet::operator::{self, OperatorRequest};
    use crate::inlet::unix;

    const ROWS: &str = r#"{"v":1,"account":"main","at":1764000000000,"address":"203.0.113.7","source":"venue","action":"login"}

{"v":1,"account":"main","at":1764000000000,"address":"203.0.113","source":"venue"}
{"v":1,"account":"main","at":1764000001000,"address":"203.0.113.8","source":"bot_egress"}
{"v":1,"account":"other","at":1764000002000,"address":"203.0.113.9","source":"host"}
{"v":1,"account":"main","at":1764000003000,"address":"2001:db8::7","source":"mail"}
"#;

    #[tokio::test]
    async fn every_row_is_taken_or_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, file) = (folder.path().join("operator.sock"), folder.path().join("rows.jsonl"));
        std::fs::write(&file, ROWS).unwrap();
        let listener = unix::listen(&socket, operator::SOCKET_MODE).unwrap();
        let (sender, mut requests) = mpsc::channel::<OperatorRequest>(4);
        let shutdown = CancellationToken::new();
        let owner = rustix::process::geteuid().as_raw();
        let server = operator::run(listener, vec![owner], sender, shutdown.clone());
        let daemon = async {
            let mut addresses = Vec::new();
            while let Some(OperatorRequest { command, reply, .. }) = requests.recv().await {
                let OperatorCommand::AccessImport { evidence } = command else { panic!("{command:?}") };
                let answer = if evidence.account.as_str() == "main" {
                    addresses.push(evidence.address.to_string());
                    json!({ "ok": true })
                } else {
                    json!({ "ok": false, "message": "account other is not watched here", "hint": "name another" })
                };
                reply.send(answer).unwrap();
            }
            addresses
        };
        let import = async {
            let (mut text, mut object) = (Vec::new(), Vec::new());
            for (json, out) in [(false, &mut text), (true, &mut object)] {
                let imported = import(&file, &socket, json, out).await.unwrap();
                assert_eq!((imported.taken, imported.refused_count, imported.exit_status()), (2, 3, 1));
            }
            shutdown.cancel();
            (String::from_utf8(text).unwrap(), serde_json::from_slice::<serde_json::Value>(&object).unwrap())
        };
        let ((), addresses, (out, object)) = tokio::join!(server, daemon, import);
        assert_eq!(addresses[..2], ["203.0.113.7", "2001:db8::7"], "in order");
        assert_eq!((&object["taken"], &object["refused_count"]), (&json!(2), &json!(3)));
        assert_eq!(object["refused"][2]["line"], json!(5));
        assert!(object["refused"][2]["reason"].as_str().unwrap().contains("account other"), "{object}");
        for part in
            ["line 3: address is not an IP", "line 4: source", "line 5: account other", "2 rows taken, 3 refused"]
        {
            assert!(out.contains(part), "{out}");
        }
    }

    #[tokio::test]
    async fn without_a_daemon_the_hint_says_what_to_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows.jsonl");
        std::fs::write(&file, ROWS).unwrap();
        let error = import(&file, &folder.path().join("none.sock"), false, &mut Vec::new()).await.unwrap_err();
        assert!(error.to_string().contains("countersign run"), "{error}");
    }
}
