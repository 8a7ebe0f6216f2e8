//! `countersign decode`: frames in, one reading or one reason a line out, by the very code the daemon reads with.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::kernel::report::{AccountPosition, BalanceUpdate, ExecutionReport, ListStatus, Report};
use crate::kernel::time::Time;
use crate::venue::binance::{Answer, Frame, Kept, Response, read};

/// As long as a frame can be; the rest of a longer line is left out, and its reason says so.
const LINE_MAX: u64 = 1 << 20;

/// Print the reading of each line, or say exactly why there is none
#[derive(Args, Debug)]
pub struct DecodeArgs {
    /// One raw frame a line; `-` is standard input
    file: PathBuf,
}

impl DecodeArgs {
    /// Whether any line was kept raw. As JSON it is one object for each line, times in milliseconds.
    pub fn run(&self, json: bool, out: impl Write) -> io::Result<bool> {
        if self.file.as_os_str() == "-" {
            return decode(io::stdin().lock(), json, out);
        }
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("cannot open {}: {error}", self.file.display()));
        decode(BufReader::new(File::open(&self.file).map_err(named)?), json, out)
    }
}

pub fn decode(mut input: impl BufRead, json: bool, mut out: impl Write) -> io::Result<bool> {
    let mut any_kept = false;
    let mut number = 0_u64;
    while let Some(line) = next_line(&mut input)? {
        number += 1;
        let (text, reading) = match line {
            Line::Text(text) => {
                let reading = read(&text);
                (text, reading)
            }
            Line::Kept(text, reason) => (text, Err(Kept::new(reason))),
        };
        any_kept |= reading.is_err();
        if json {
            let mut fields = match &reading {
                Ok(frame) => frame_json(frame)?,
                Err(kept) => object(json!({"kept_raw": text, "reason": kept.reason})),
            };
            fields.insert("line".to_owned(), number.into());
            serde_json::to_writer(&mut out, &fields)?;
            writeln!(out)?;
        } else {
            match &reading {
                // A terminal must not obey what stands in a frame.
                Ok(frame) => writeln!(out, "{number}: {}", sentence(frame).replace(char::is_control, "\u{fffd}"))?,
                Err(kept) => writeln!(out, "{number}: kept raw: {kept}")?,
            }
        }
    }
    out.flush()?;
    Ok(any_kept)
}

enum Line {
    Text(String),
    Kept(String, &'static str),
}

fn next_line(input: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    if input.by_ref().take(LINE_MAX + 1).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    let ended = bytes.pop_if(|last| *last == b'\n').is_some();
    if !ended && bytes.len() as u64 > LINE_MAX {
        input.skip_until(b'\n')?;
        return Ok(Some(Line::Kept(
            String::from_utf8_lossy(&bytes).into_owned(),
            "longer than 1 MiB, which no frame is",
        )));
    }
    bytes.pop_if(|last| *last == b'\r');
    Ok(Some(match String::from_utf8(bytes) {
        Ok(text) => Line::Text(text),
        Err(error) => Line::Kept(String::from_utf8_lossy(error.as_bytes()).into_owned(), "not UTF-8"),
    }))
}

fn frame_json(frame: &Frame) -> io::Result<Map<String, Value>> {
    let (subscription, mut fields) = match frame {
        Frame::Event { subscription, report } => (*subscription, report_json(report)?),
        Frame::Terminated { subscription } => (*subscription, object(json!({"event": "eventStreamTerminated"}))),
        Frame::Shutdown => (None, object(json!({"event": "serverShutdown"}))),
        Frame::Response(response) => (None, response_json(response)),
    };
    if let Some(subscription) = subscription {
        fields.insert("subscription_id".to_owned(), subscription.into());
    }
    Ok(fields)
}

/// The kernel's own record of the report under the venue's event name, with times in milliseconds.
fn report_json(report: &Report) -> io::Result<Map<String, Value>> {
    let mut fields = object(serde_json::to_value(report)?);
    fields.insert("event".to_owned(), event_name(report).into());
    for (name, value) in &mut fields {
        if let (true, Some(micros)) = (name.ends_with("_at"), value.as_i64()) {
            *value = Time::from_micros(micros).millis().into();
        }
    }
    match report {
        Report::Execution(_) => {
            for name in ["request_client_order_id", "trade_id"] {
                fields.entry(name).or_insert(Value::Null);
            }
        }
        Report::Position(position) => {
            let rows = position.balances.iter().map(|row| (row.asset.to_string(), json!([row.free, row.locked])));
            fields.insert("balances".to_owned(), rows.collect::<Map<_, _>>().into());
        }
        Report::List(_) | Report::Balance(_) | Report::ExternalLock(_) => {}
    }
    Ok(fields)
}

const fn event_name(report: &Report) -> &'static str {
    match report {
        Report::Execution(_) => "executionReport",
        Report::List(_) => "listStatus",
        Report::Position(_) => "outboundAccountPosition",
        Report::Balance(_) => "balanceUpdate",
        Report::ExternalLock(_) => "externalLockUpdate",
    }
}

fn response_json(response: &Response) -> Map<String, Value> {
    let mut fields = object(json!({"event": "response", "id": response.id, "status": response.status}));
    let (name, value) = match &response.outcome {
        Ok(Answer::Subscribed(id)) => ("subscription_id", json!(id)),
        Ok(Answer::Subscriptions(ids)) => ("subscription_ids", json!(ids)),
        Ok(Answer::ServerTime(time)) => ("server_time_at", json!(time.millis())),
        Ok(Answer::Other) => return fields,
        Err(error) => {
            let retry_after_ms = error.retry_after.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
            ("error", json!({"code": error.code, "message": error.message, "retry_after_ms": retry_after_ms}))
        }
    };
    fields.insert(name.to_owned(), value);
    fields
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

fn sentence(frame: &Frame) -> String {
    match frame {
        Frame::Event { report: Report::Execution(report), .. } => execution_sentence(report),
        Frame::Event { report: Report::List(list), .. } => list_sentence(list),
        Frame::Event { report: Report::Position(position), .. } => position_sentence(position),
        Frame::Event { report: Report::Balance(update), .. } => balance_sentence("balance changed by", update),
        Frame::Event { report: Report::ExternalLock(update), .. } => balance_sentence("locked elsewhere:", update),
        Frame::Terminated { .. } => "the venue ended the event stream".to_owned(),
        Frame::Shutdown => "the server is about to shut down".to_owned(),
        Frame::Response(Response { status, outcome: Ok(_), .. }) => format!("answer to a request, status {status}"),
        Frame::Response(Response { status, outcome: Err(error), .. }) => {
            format!("refusal of a request, status {status}, code {}: {}", error.code, error.message)
        }
    }
}

fn execution_sentence(report: &ExecutionReport) -> String {
    let size = if report.quantity.is_zero() && report.quote_quantity.is_positive() {
        format!("for {} of quote, {}", report.quote_quantity, report.symbol)
    } else {
        format!("{} {}", report.quantity, report.symbol)
    };
    let mut text = format!("{} {size} {}", report.side, report.order_type);
    if report.order_type.has_price() {
        text += &format!(" at {}", report.price);
    }
    if report.stop_price.is_positive() {
        text += &format!(", stop {}", report.stop_price);
    }
    text += &format!(", {} ({}), filled {}", report.execution_type, report.status, report.cumulative_quantity);
    if report.last_quantity.is_positive() {
        text += &format!(", last {} at {}", report.last_quantity, report.last_price);
    }
    text += &format!(", order {} id {:?}", report.order_id, report.client_order_id.as_str());
    if let Some(request) = &report.request_client_order_id {
        text += &format!(", by request {:?}", request.as_str());
    }
    format!("{text}, {} UTC", report.transacted_at)
}

fn list_sentence(list: &ListStatus) -> String {
    let legs: Vec<String> = list.legs.iter().map(|(_, order, id)| format!("{order} {:?}", id.as_str())).collect();
    format!(
        "{} list {} {:?} on {}: {} ({}), legs {}",
        list.contingency,
        list.list_id,
        list.list_client_order_id.as_str(),
        list.symbol,
        list.status,
        list.order_status,
        legs.join(", ")
    )
}

fn position_sentence(position: &AccountPosition) -> String {
    let rows = position.balances.iter().map(|row| format!("{} free {} locked {}", row.asset, row.free, row.locked));
    format!("balances: {}", rows.collect::<Vec<_>>().join(", "))
}

fn balance_sentence(what: &str, update: &BalanceUpdate) -> String {
    format!("{what} {} {}, {} UTC", update.delta, update.asset, update.cleared_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: &[u8] = include_bytes!("../../fixtures/frames/binance_spot.jsonl");
    const DECODED: &str = include_str!("../../fixtures/frames/binance_spot.decoded.jsonl");

    fn decoded(input: &[u8], json: bool) -> (Vec<String>, bool) {
        let mut out = Vec::new();
        let any_kept = decode(input, json, &mut out).unwrap();
        (String::from_utf8(out).unwrap().lines().map(str::to_owned).collect(), any_kept)
    }

    #[test]
    fn reads_each_kind_of_frame_as_before() {
        let (lines, any_kept) = decoded(FRAMES, true);
        for (line, expected) in lines.iter().zip(DECODED.lines()) {
            assert_eq!(line, expected);
        }
        assert_eq!(lines.len(), DECODED.lines().count());
        assert!(any_kept);
    }

    #[test]
    fn gives_one_object_for_every_line_whatever_it_holds() {
        let long = [b"{\"e\":\"".as_slice(), &vec![b'x'; (LINE_MAX as usize) + 10], b"\"}\n{\"e\":\"serverShutdown\"}"]
            .concat();
        for (input, reasons) in [
            (b"".as_slice(), vec![]),
            (b"\n", vec!["an empty line"]),
            (b"\r\n\n", vec!["an empty line", "an empty line"]),
            (b"\xff\n{}", vec!["not UTF-8", "neither an event nor a response"]),
            (b"{\"e\":\"serverShutdown\"}\r\n[]", vec!["", "the frame is a list, not an object"]),
            (&long, vec!["longer than 1 MiB, which no frame is", ""]),
        ] {
            let (lines, any_kept) = decoded(input, true);
            let objects: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            let found: Vec<&str> = objects.iter().map(|object| object["reason"].as_str().unwrap_or("")).collect();
            assert_eq!(found, reasons);
            assert_eq!(any_kept, reasons.iter().any(|reason| !reason.is_empty()));
            assert!(objects.iter().enumerate().all(|(place, object)| object["line"] == place as u64 + 1));
        }
    }

    #[test]
    fn speaks_to_people() {
        let (lines, _) = decoded(FRAMES, false);
        assert_eq!(
            lines[1],
            "2: SELL 0.01 BTCUSDT LIMIT at 60000, TRADE (PARTIALLY_FILLED), filled 0.004, last 0.004 at 60000, \
             order 41 id \"cs1-a\", 2025-11-24 16:00:00.104 UTC"
        );
        assert_eq!(lines[27], "28: kept raw: executionReport: execution type TRADE with order status CANCELED");
    }
}
