//! A secret as it is given by hand: typed on the terminal without being shown, or read from what stdin is instead.
//!
//! It is read past the standard library's buffers, which are not wiped.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::secret::private::read_at_most;

const INTERRUPT: u8 = 3;
/// A terminal gives no more of a line, and does not say so.
const LINE_BYTES_MAX: usize = 4_095;
const LINES_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum TypedError {
    #[error("interrupted")]
    Interrupted,
    #[error("no {0} was given\nhint: type it on a terminal, or give it on stdin")]
    Nothing(&'static str),
    #[error("a line of {LINE_BYTES_MAX} bytes or more cannot be typed\nhint: give it on stdin, from a file")]
    LineTooLong,
    #[error("what was typed holds control characters\nhint: type it again, without cursor keys")]
    Control,
    #[error("what was given is no text (UTF-8)")]
    NotText,
    #[error("what was given is longer than {0} bytes")]
    TooLong(u64),
    #[error("stdin cannot be read: {0}")]
    Input(io::Error),
}

pub struct Typed {
    input: File,
    terminal: bool,
}

impl Typed {
    pub fn stdin() -> Result<Self, TypedError> {
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(TypedError::Input)?;
        Ok(Self::new(input.into()))
    }

    fn new(input: File) -> Self {
        let terminal = isatty(&input);
        Self { input, terminal }
    }

    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One line. What is asked is said on a terminal only.
    pub fn line(&self, asked: &'static str) -> Result<Zeroizing<String>, TypedError> {
        let line = if self.terminal {
            eprint!("{asked} (not shown): ");
            let hidden = Hidden::begin(&self.input).map_err(TypedError::Input)?;
            let line = self.typed_line();
            drop(hidden);
            eprintln!();
            line?
        } else {
            self.bytes_of_line()?
        };
        let line = text(&line)?;
        if line.is_empty() { Err(TypedError::Nothing(asked)) } else { Ok(line) }
    }

    /// A whole secret: a line, or the lines of a PEM; from what is no terminal, all there is.
    pub fn secret(&self, asked: &'static str, bytes_max: u64) -> Result<Zeroizing<String>, TypedError> {
        if !self.terminal {
            let bytes = read_at_most(&self.input, bytes_max, bytes_max).map_err(TypedError::Input)?;
            let bytes = bytes.ok_or(TypedError::TooLong(bytes_max))?;
            let secret = text(trimmed(&bytes))?;
            return if secret.is_empty() { Err(TypedError::Nothing(asked)) } else { Ok(secret) };
        }
        let first = self.line(asked)?;
        if !first.starts_with("-----BEGIN ") {
            return Ok(first);
        }
        let mut lines = Zeroizing::new(String::with_capacity(LINES_MAX * (LINE_BYTES_MAX + 1)));
        lines.push_str(&first);
        for _ in 1..LINES_MAX {
            let line = self.line("the next line")?;
            lines.push('\n');
            lines.push_str(&line);
            if line.starts_with("-----END ") {
                return Ok(lines);
            }
        }
        Err(TypedError::LineTooLong)
    }

    fn typed_line(&self) -> Result<Zeroizing<Vec<u8>>, TypedError> {
        let line = self.bytes_of_line()?;
        if line.iter().any(u8::is_ascii_control) { Err(TypedError::Control) } else { Ok(line) }
    }

    /// Byte by byte, as what follows the line is not this line's.
    fn bytes_of_line(&self) -> Result<Zeroizing<Vec<u8>>, TypedError> {
        let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX));
        let mut byte = Zeroizing::new([0]);
        loop {
            match (&self.input).read(&mut *byte) {
                Ok(0) => return Ok(line),
                Ok(_) if byte[0] == b'\n' => break,
                Ok(_) if line.len() + 1 == LINE_BYTES_MAX => return Err(TypedError::LineTooLong),
                Ok(_) => line.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TypedError::Input(error)),
            }
            if self.terminal && byte[0] == INTERRUPT {
                return Err(TypedError::Interrupted);
            }
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(line)
    }
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    &bytes[..end]
}

fn text(bytes: &[u8]) -> Result<Zeroizing<String>, TypedError> {
    std::str::from_utf8(bytes).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| TypedError::NotText)
}

/// While it lives, the terminal shows nothing of what is typed. Ctrl-C ends a line instead of the process, which would
/// leave the terminal so.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn begin(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG;
        quiet.local_modes |= LocalModes::ICANON;
        quiet.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        // What was typed before was shown: it is no part of a secret.
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no setting.
        tcsetattr(self.terminal, OptionalActions::Now, &self.before).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn given(bytes: &[u8]) -> Typed {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        Typed::new(file)
    }

    #[test]
    fn a_passphrase_is_a_line_and_a_secret_the_rest() {
        let input = given(b"open sesame\r\n-----BEGIN X-----\nAAAA\n-----END X-----\n\n");
        assert_eq!(*input.line("a passphrase").unwrap(), "open sesame");
        assert_eq!(*input.secret("a secret", 100).unwrap(), "-----BEGIN X-----\nAAAA\n-----END X-----");
        assert!(matches!(input.secret("a secret", 100), Err(TypedError::Nothing("a secret"))));
    }

    #[test]
    fn what_cannot_be_a_secret_is_said() {
        assert!(matches!(given(b"").line("x"), Err(TypedError::Nothing("x"))));
        assert!(matches!(given(b"\n\r\n").secret("x", 9), Err(TypedError::Nothing("x"))));
        assert!(matches!(given(b"\xff\n").line("x"), Err(TypedError::NotText)));
        assert!(matches!(given(&[b'a'; 5_000]).line("x"), Err(TypedError::LineTooLong)));
        assert!(matches!(given(b"1234567890").secret("x", 9), Err(TypedError::TooLong(9))));
        assert_eq!(*given(b"123456789").secret("x", 9).unwrap(), "123456789");
    }
}
