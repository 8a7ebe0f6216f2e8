//! Lines out of a byte stream, none longer than a limit: an over-long one is thrown away to its end, and said.
//!
//! Invariant: `next` may be dropped at any await without losing a byte, so it can stand in a `select!`.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Whole(Vec<u8>),
    TooLong,
    End,
}

pub struct Lines<R> {
    source: R,
    bytes_max: usize,
    gathered: Vec<u8>,
    overflowed: bool,
    line: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub fn new(source: R, bytes_max: usize) -> Self {
        Self { source, bytes_max, gathered: Vec::new(), overflowed: false, line: 0 }
    }

    /// The number of the line that `next` gave last, counted from 1, empty ones too.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The next line that is not empty, without its end. What stands before the end of the stream is a line too.
    pub async fn next(&mut self) -> io::Result<Line> {
        loop {
            let bytes = self.source.fill_buf().await?;
            let (ends, taken) = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(place) => (true, place + 1),
                None => (bytes.is_empty(), bytes.len()),
            };
            let stream_ends = bytes.is_empty();
            let text = if ends && !stream_ends { &bytes[..taken - 1] } else { &bytes[..taken] };
            if self.gathered.len() + text.len() > self.bytes_max {
                self.overflowed = true;
                self.gathered = Vec::new();
            } else if !self.overflowed {
                self.gathered.extend_from_slice(text);
            }
            self.source.consume(taken);
            if !ends {
                continue;
            }
            self.line += 1;
            if std::mem::take(&mut self.overflowed) {
                return Ok(Line::TooLong);
            }
            let line = std::mem::take(&mut self.gathered);
            if !line.trim_ascii().is_empty() {
                return Ok(Line::Whole(line));
            }
            if stream_ends {
                return Ok(Line::End);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_over_long_line_is_said_and_the_next_one_read() {
        let source: &[u8] = b"one\n\n  \n0123456789\n0123456789a\ntwo\r\nlast";
        let mut lines = Lines::new(tokio::io::BufReader::with_capacity(4, source), 10);
        for expected in [
            Line::Whole(b"one".to_vec()),
            Line::Whole(b"0123456789".to_vec()),
            Line::TooLong,
            Line::Whole(b"two\r".to_vec()),
            Line::Whole(b"last".to_vec()),
            Line::End,
            Line::End,
        ] {
            assert_eq!(lines.next().await.unwrap(), expected);
        }
    }
}
