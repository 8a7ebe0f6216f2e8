//! What operators ask of the loop: answers from what the kernels show, and orders as events.

use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;

use super::{Core, Waiter, Work};
use crate::inlet::operator::{OperatorCommand, OperatorRequest};
use crate::kernel::chat::pairing_digest;
use crate::kernel::containment::Aim;
use crate::kernel::event::{Answer, Event};
use crate::kernel::flatten::Flatten;
use crate::kernel::incident::IncidentId;
use crate::kernel::people::Way;
use crate::kernel::report::Report;
use crate::kernel::shared::{Said, SharedEvent, Show};
use crate::kernel::time::Time;
use crate::venue::binance::frame::{self, Frame};

const PAIRING_VALID_FOR: Duration = Duration::from_secs(600);

impl Core {
    pub(super) fn operator(&mut self, request: OperatorRequest) -> Option<Work> {
        let OperatorRequest { command, uid, reply } = request;
        let way = Way::Host { uid };
        let by = self.kernel.declared().people.by(way);
        let account = &self.kernel.declared().account;
        let answer = match command {
            OperatorCommand::Status => json!({
                "ok": true,
                "status": self.kernel.status(),
                "channels": self.shared.channels(),
                "paired": self.shared.paired(),
            }),
            OperatorCommand::Incidents => json!({ "ok": true, "incidents": self.kernel.notices() }),
            OperatorCommand::Incident { id } => self.incident(id),
            OperatorCommand::Ack { id, shown } => {
                let ticket = self.ticket(Waiter::Operator(reply));
                return Some(Work::Account(Event::Acknowledge { ticket, by, incident: id, shown }));
            }
            OperatorCommand::Confirm { digest } => {
                let ticket = self.ticket(Waiter::Operator(reply));
                return Some(Work::Account(Event::ConfirmPreExisting { ticket, by, digest }));
            }
            OperatorCommand::AccessImport { evidence } if evidence.account == *account => {
                let ticket = self.ticket(Waiter::Operator(reply));
                return Some(Work::Account(Event::Access { ticket, evidence }));
            }
            OperatorCommand::AccessImport { evidence } => {
                let message = format!("account {} is not watched here", evidence.account);
                refusal(&message, &format!("this daemon watches {account}"))
            }
            OperatorCommand::Pair => {
                let (ticket, is_first) = (self.ticket(Waiter::Pairing(reply)), self.shared.paired().is_none());
                return Some(Work::Account(Event::Pair { ticket, way, is_first }));
            }
            OperatorCommand::Drill { kill } => return self.drill(by, kill, reply),
            OperatorCommand::DrillHops => match self.hops.told() {
                Some(told) => json!({ "ok": true, "drill": told, "kill": self.kernel.drill_progress() }),
                None => refusal("there was no drill since the start", "`countersign drill` makes one"),
            },
            OperatorCommand::Plan { aim } => match self.kernel.preview(aim) {
                Ok(plan) => json!({ "ok": true, "plan": plan }),
                Err(message) => refusal(&message, "README says how to give countersign the means"),
            },
            OperatorCommand::Flattening => {
                json!({ "ok": true, "flatten": self.kernel.flattening().map(Flatten::sale) })
            }
            OperatorCommand::Containment => {
                json!({ "ok": true, "containment": self.kernel.progress(), "before": self.kernel.contained_before() })
            }
            OperatorCommand::Order { incident, order: command, code, why } => {
                let said = Said { account: account.clone(), command, by, way: Some(way), why, chat: None };
                let totp = self.totp(way, code.as_deref());
                return Some(self.ordered(said, incident, totp, Some(reply)));
            }
        };
        if reply.send(answer).is_err() {
            tracing::debug!("An operator left before the answer.");
        }
        None
    }

    fn incident(&self, id: IncidentId) -> serde_json::Value {
        match self.kernel.notices().into_iter().find(|notice| notice.incident == id) {
            Some(notice) => json!({ "ok": true, "incident": notice }),
            None => refusal(&format!("there is no incident {id}"), "`countersign incidents` lists them"),
        }
    }

    /// The frame is read as one of the exchange's is.
    fn drill(&mut self, by: Box<str>, kill: bool, reply: oneshot::Sender<serde_json::Value>) -> Option<Work> {
        let raw = self.hops.frame();
        if let Ok(Frame::Event { report: Report::Execution(report), .. }) = frame::read(&raw) {
            let (ticket, tags) = (self.ticket(Waiter::Operator(reply)), self.tags.check_report(&report));
            return Some(Work::Account(Event::Drill { ticket, by, report, tags, kill, raw: raw.into() }));
        }
        if reply.send(refusal("the drill's own frame cannot be read", "this is a fault of countersign's")).is_err() {
            tracing::debug!("An operator left before the answer.");
        }
        None
    }

    pub(super) fn show(&self, what: Show) -> String {
        match what {
            Show::Status => crate::words::status(&self.kernel.status()),
            Show::Requests => crate::words::requests(&self.kernel.status().requests),
            Show::Incidents => crate::words::incidents(&self.kernel.notices()),
            Show::Plan => match self.kernel.progress().filter(|progress| progress.end.is_none()) {
                Some(running) => crate::words::containment(&running),
                None => self.kernel.preview(Aim::Kill).map_or_else(|by_hand| by_hand, |plan| crate::words::plan(&plan)),
            },
        }
    }
}

/// The code is made here, since the kernel knows no randomness; it sees the digest only.
pub(super) fn pairing(answer: &Answer, now: Time) -> (serde_json::Value, Option<Work>) {
    match answer {
        Answer::Done => {}
        Answer::Requested { .. } | Answer::Refused { .. } => {
            return (json!({ "ok": true, "needs_approval": true }), None);
        }
    }
    let mut bytes = [0_u8; 10];
    match getrandom::fill(&mut bytes) {
        Ok(()) => {
            let code = data_encoding::BASE32_NOPAD.encode(&bytes);
            let expires = now + PAIRING_VALID_FOR;
            let event = SharedEvent::PairingIssued { code_sha256: pairing_digest(&code), expires };
            let minutes = PAIRING_VALID_FOR.as_secs() / 60;
            (json!({ "ok": true, "code": code, "valid_minutes": minutes }), Some(Work::Shared(event)))
        }
        Err(error) => (refusal(&format!("no random code could be made: {error}"), "try again"), None),
    }
}

pub(super) fn operators_answer(answer: &Answer) -> serde_json::Value {
    match answer {
        Answer::Done => json!({ "ok": true }),
        Answer::Requested { request } => json!({ "ok": true, "request": request }),
        // Each reason says what can be done about it.
        Answer::Refused { reason } => json!({ "ok": false, "message": reason }),
    }
}

fn refusal(message: &str, hint: &str) -> serde_json::Value {
    json!({ "ok": false, "message": message, "hint": hint })
}
