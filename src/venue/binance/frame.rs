//! One text frame of the WebSocket API: an event in one of its three envelopes, or the answer to a request of ours.
//! What cannot be read is `Kept` with the reason; whoever received it keeps it whole.

use std::time::Duration;

use crate::kernel::report::Report;
use crate::kernel::time::Time;
use crate::venue::binance::json::{self, Fields, Kept, Value};
use crate::venue::binance::report::{self, Event};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Event {
        subscription: Option<u64>,
        report: Report,
    },
    /// Nothing more comes of this subscription.
    Terminated {
        subscription: Option<u64>,
    },
    /// The server is about to go: connect anew.
    Shutdown,
    Response(Response),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// As it stood in the request; `None` where the venue speaks unasked.
    pub id: Option<Box<str>>,
    pub status: i64,
    pub outcome: Result<Answer, VenueError>,
}

/// A result, as far as a request of ours expects one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Subscribed(u64),
    Subscriptions(Vec<u64>),
    ServerTime(Time),
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VenueError {
    pub code: i64,
    pub message: Box<str>,
    /// How long from now the venue wants no request.
    pub retry_after: Option<Duration>,
}

pub fn read(text: &str) -> Result<Frame, Kept> {
    let value = json::parse(text)?;
    let fields = value.object("the frame")?;
    if let Some(event) = fields.find("event") {
        let subscription = fields.id_if_any("subscriptionId")?.map(i64::unsigned_abs);
        return read_event(subscription, event.object("field \"event\"")?);
    }
    if let (Some(_), Some(event)) = (fields.find("stream"), fields.find("data")) {
        return read_event(None, event.object("field \"data\"")?);
    }
    if fields.find("e").is_some() {
        return read_event(None, fields);
    }
    if fields.find("status").is_some() {
        return Ok(Frame::Response(read_response(fields)?));
    }
    Err(match fields.text_if_any("method")? {
        Some(method) => Kept::new(format_args!("a request ({method}), which the venue does not send")),
        None => Kept::new("neither an event nor a response"),
    })
}

fn read_event(subscription: Option<u64>, fields: &Fields<'_>) -> Result<Frame, Kept> {
    Ok(match report::read(fields)? {
        Event::Report(report) => Frame::Event { subscription, report },
        Event::Terminated => Frame::Terminated { subscription },
        Event::Shutdown => Frame::Shutdown,
    })
}

fn read_response(fields: &Fields<'_>) -> Result<Response, Kept> {
    let id = match fields.find("id") {
        None => None,
        Some(Value::Text(text)) => Some(text.as_ref().into()),
        Some(Value::Int(int)) => Some(int.to_string().into()),
        Some(other) => return Err(Kept::new(format_args!("field \"id\" is {other}, not a text or an integer"))),
    };
    let outcome = match (fields.find("result"), fields.find("error")) {
        (Some(result), None) => Ok(read_answer(result)?),
        (None, Some(error)) => Err(read_error(error.object("field \"error\"")?)?),
        _ => return Err(Kept::new("a response needs either \"result\" or \"error\"")),
    };
    Ok(Response { id, status: fields.int("status")?, outcome })
}

fn read_answer(result: &Value<'_>) -> Result<Answer, Kept> {
    let subscription = |fields: &Fields<'_>| fields.id_if_any("subscriptionId").map(|id| id.map(i64::unsigned_abs));
    if let Value::List(rows) = result {
        let ids: Option<Vec<u64>> = rows
            .iter()
            .map(|row| if let Value::Object(fields) = row { subscription(fields).ok().flatten() } else { None })
            .collect();
        return Ok(ids.map_or(Answer::Other, Answer::Subscriptions));
    }
    let Value::Object(fields) = result else { return Ok(Answer::Other) };
    if let Some(id) = subscription(fields)? {
        return Ok(Answer::Subscribed(id));
    }
    Ok(fields.time_if_any("serverTime")?.map_or(Answer::Other, Answer::ServerTime))
}

/// Also the body of a failed REST call.
pub fn read_error(fields: &Fields<'_>) -> Result<VenueError, Kept> {
    let wait = match fields.find("data") {
        Some(Value::Object(data)) => data.time_if_any("retryAfter")?.zip(data.time_if_any("serverTime")?),
        _ => None,
    };
    Ok(VenueError {
        code: fields.int("code")?,
        message: fields.text("msg")?.into(),
        retry_after: wait.map(|(until, server)| until.since(server)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAMES: &str = include_str!("../../../fixtures/frames/binance_spot.jsonl");

    #[test]
    fn a_cancel_names_its_order_in_the_other_field() {
        let cancel = FRAMES.lines().find(|line| line.contains(r#""x":"CANCELED","X":"CANCELED""#)).unwrap();
        let Ok(Frame::Event { subscription: Some(0), report: Report::Execution(report) }) = read(cancel) else {
            panic!("a cancel is an event");
        };
        assert_eq!(report.client_order_id.as_str(), "cs1-a");
        assert_eq!(report.request_client_order_id.unwrap().as_str(), "web_cancel");
        assert_eq!(report.trade_id, None);
    }

    #[test]
    fn field_order_does_not_matter() {
        let forward = r#"{"subscriptionId":2,"event":{"e":"balanceUpdate","E":1,"a":"BTC","d":"1.50","T":2}}"#;
        let backward = r#"{"event":{"T":2,"d":"1.5","a":"BTC","E":1,"e":"balanceUpdate"},"subscriptionId":2}"#;
        assert!(read(forward).is_ok());
        assert_eq!(read(forward), read(backward));
    }

    /// What a hostile or broken sender can make of a frame: bytes changed, cut out, or doubled.
    fn mutated(line: &str, edits: &[(usize, u8, u8)]) -> String {
        let mut bytes = line.as_bytes().to_vec();
        for (place, kind, byte) in edits {
            let place = place % bytes.len().max(1);
            match (kind % 3, bytes.is_empty()) {
                (_, true) => bytes.push(*byte),
                (0, false) => bytes[place] = *byte,
                (1, false) => drop(bytes.remove(place)),
                (_, false) => bytes.insert(place, bytes[place]),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    proptest! {
        #[test]
        fn no_text_panics_and_every_reason_is_short(text in any::<String>()) {
            if let Err(kept) = read(&text) {
                prop_assert!(kept.reason.chars().count() <= 241);
            }
        }

        #[test]
        fn no_mutated_frame_panics(
            line in 0_usize..64,
            edits in prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..6),
        ) {
            let line = FRAMES.lines().cycle().nth(line).unwrap();
            if let Err(kept) = read(&mutated(line, &edits)) {
                prop_assert!(!kept.reason.is_empty() && kept.reason.chars().count() <= 241);
            }
        }
    }
}
