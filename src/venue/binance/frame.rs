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
