//! The answer to a record, as the bot reads it.

use serde_json::{Value, json};

use crate::inlet::wire::error::{ErrorCode, WireError};
use crate::kernel::intent::{IntentBody, IntentRecord, IntentReply, Refusal};
use crate::kernel::order::ClientId;
use crate::kernel::time::Time;

/// The ids that the bot must put into its request, by what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestIds {
    order: Option<ClientId>,
    cancel: Option<ClientId>,
}

impl RequestIds {
    pub fn of(record: &IntentRecord) -> Self {
        match &record.body {
            IntentBody::Place(terms) => Self { order: Some(terms.client_order_id.clone()), cancel: None },
            IntentBody::Cancel(terms) => Self { order: terms.client_order_id.clone(), cancel: None },
            IntentBody::Amend(terms) => Self { order: terms.client_order_id.clone(), cancel: None },
            IntentBody::CancelReplace { cancel, place } => {
                Self { order: Some(place.client_order_id.clone()), cancel: cancel.client_order_id.clone() }
            }
            IntentBody::List(terms) => Self { order: Some(terms.client_order_id.clone()), cancel: None },
            IntentBody::Result(_) | IntentBody::Heartbeat { .. } => Self::default(),
        }
    }
}

/// The answer and, for HTTP, its status.
pub fn intent_answer(ids: &RequestIds, reply: &IntentReply) -> (u16, Value) {
    let (status, mut answer) = match &reply.answer {
        Ok(registered) => {
            let mut answer = json!({ "v": 1, "ok": true, "durable": true });
            if let Some(id) = &ids.order {
                answer["client_order_id"] = json!(id);
            }
            if let Some(id) = &ids.cancel {
                answer["cancel_client_order_id"] = json!(id);
            }
            answer["client_order_ids"] = json!(registered.client_order_ids);
            (200, answer)
        }
        Err(refusal) => {
            let error = refused(refusal);
            let mut answer = error_answer(&error);
            if let Refusal::Replay { last_seq } = refusal {
                answer["last_seq"] = json!(last_seq);
            }
            (error.code.http_status(), answer)
        }
    };
    answer["seq"] = json!(reply.seq);
    answer["nonce"] = json!(nonce_text(reply.nonce));
    answer["heartbeat_wanted"] = json!(reply.heartbeat_wanted);
    answer["missing"] = json!(reply.missing);
    (status, answer)
}

pub fn error_answer(error: &WireError) -> Value {
    json!({
        "v": 1, "ok": false, "seq": error.seq, "error": error.code, "message": error.message, "hint": error.hint,
    })
}

/// The journal time of a reply in microseconds, as text: a bot hands it back as it is, and no reader rounds it.
pub fn nonce_text(nonce: Time) -> String {
    nonce.micros().to_string()
}

fn refused(refusal: &Refusal) -> WireError {
    match refusal {
        Refusal::Conflict => WireError::new(
            ErrorCode::Conflict,
            "this sequence came before with other content",
            "use each sequence once; after a restart ask with `hello` for the last one",
        ),
        Refusal::Replay { last_seq } => WireError::new(
            ErrorCode::Replay,
            &format!("this sequence is not above the last one, {last_seq}"),
            "go on from the last sequence; `hello` says it",
        ),
        Refusal::OutsideLimits { limit } => WireError::new(
            ErrorCode::OutsideLimits,
            &format!("outside the limits of this bot: {limit}"),
            "do not send this order; limits are changed in countersign.toml only",
        ),
        Refusal::IdInUse => WireError::new(
            ErrorCode::IdInUse,
            "this client order id names another intent already",
            "use an id once, or leave it out and take the one in the reply",
        ),
        Refusal::UnknownIntent { of } => WireError::new(
            ErrorCode::UnknownIntent,
            &format!("no intent with sequence {of} is held for this bot"),
            "name the sequence of the intent itself",
        ),
        Refusal::UnknownBot => WireError::new(
            ErrorCode::UnknownBot,
            "the configuration names no such bot",
            "add the bot with its limits to countersign.toml",
        ),
        Refusal::Full { capacity } => WireError::new(
            ErrorCode::Full,
            &format!("the account holds {capacity} open intents, which is all it can"),
            "tell the results of earlier intents",
        ),
    }
}
