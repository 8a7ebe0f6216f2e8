//! What is asked of the exchange, and what is sent to the owner.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kernel::channel::{Post, PostOutcome};
use crate::kernel::event::{EffectId, Event, ReadOutcome, ReadRequest};
use crate::kernel::incident::{IncidentId, IncidentState, Priority};
use crate::sim::exchange::HttpReply;
use crate::simulate::process::Inside;
use crate::simulate::world::World;
use crate::venue::binance::request::Get;
use crate::venue::binance::snapshot;
use crate::venue::budget::{self, Share};

/// The venue's code for an order that it does not know.
const NO_SUCH_ORDER: i64 = -2013;
/// The webhook's client gives up after this.
const POST_WITHIN: Duration = Duration::from_secs(10);

impl World {
    pub(super) fn ask_exchange(&mut self, effect: EffectId, request: &ReadRequest) {
        let get = Get::of(request);
        let Some(process) = &mut self.process else { return };
        let at = process.journal_time(self.now);
        let outcome = match process.budget.spend(at, get.weight, Share::Reads) {
            Err(held) => Err(held.to_string()),
            Ok(()) => {
                let query = get.signed(self.watch.credential(), process.server_time.at(at));
                let reply = self.exchange.http(self.now, &self.watch.request("GET", get.path, query));
                read_outcome(request, &reply, |status, wait| process.budget.handle_refusal(at, status, wait))
            }
        };
        let outcome = outcome.unwrap_or_else(|reason| ReadOutcome::Unknown { reason: reason.into() });
        self.pump();
        let at = self.now + self.draw(self.script.weather.request);
        self.inside_at(at, Inside::Answered(effect, outcome));
    }

    pub(super) fn read(&mut self, effect: EffectId, mut outcome: ReadOutcome) {
        self.tags.check_read(&mut outcome);
        self.step_account(Event::Read { effect, outcome });
    }

    pub(super) fn post(&mut self, effect: EffectId, post: &Post) {
        let fails = self.troubles.webhook.is_some_and(|until| until > self.now);
        let (wait, outcome) = match (fails, self.dice.below(3)) {
            (false, _) => (self.draw((20, 400)), PostOutcome::Delivered { message: None }),
            (true, 0) => (POST_WITHIN, PostOutcome::Unknown { reason: "no answer".into() }),
            (true, 1) => (self.draw((20, 400)), PostOutcome::RetryAfter { secs: 2 }),
            (true, _) => (self.draw((20, 400)), PostOutcome::Failed { reason: "503".into(), permanent: false }),
        };
        if let (Post::Webhook(hook), PostOutcome::Delivered { .. } | PostOutcome::Unknown { .. }) = (post, &outcome) {
            let body: Value = serde_json::from_str(&hook.body).unwrap_or(Value::Null);
            self.witness.delivered(self.now, &body);
            self.may_acknowledge(&body);
        }
        self.inside_at(self.now + wait, Inside::Posted(effect, outcome));
    }

    /// The owner reads, thinks, and says that he knows.
    fn may_acknowledge(&mut self, body: &Value) {
        let (Some(incident), Some(revision)) = (body["incident"].as_u64(), body["revision"].as_u64()) else { return };
        let open = body["state"] == json!(IncidentState::Open);
        if open && body["priority"] == json!(Priority::Critical) {
            self.may_decide(IncidentId(incident), body["rule"].as_str().unwrap_or_default());
        }
        if self.script.acknowledges && open && self.chance(50) {
            let at = self.now + self.draw((1_000, 15_000));
            self.inside_at(at, Inside::Acknowledged(IncidentId(incident), revision));
        }
    }
}

fn read_outcome(
    request: &ReadRequest,
    reply: &HttpReply,
    mut refused: impl FnMut(u16, Option<Duration>),
) -> Result<ReadOutcome, String> {
    let answer = match reply {
        HttpReply::Answer(answer) | HttpReply::Late(_, answer) => answer,
        HttpReply::Held(_) | HttpReply::Cut => return Err("the connection ended".to_owned()),
    };
    if answer.status == 200 {
        return snapshot::outcome(request, &answer.body).map_err(|kept| kept.to_string());
    }
    if budget::is_refusal(answer.status) {
        let named = answer.headers.iter().find(|(name, _)| *name == "retry-after");
        let wait = named.and_then(|(_, seconds)| seconds.parse().ok()).map(Duration::from_secs);
        refused(answer.status, wait);
    }
    match snapshot::error(&answer.body) {
        Ok(error) if error.code == NO_SUCH_ORDER && matches!(request, ReadRequest::Order { .. }) => {
            Ok(ReadOutcome::NotFound)
        }
        Ok(error) => Err(format!("{}: {}", error.code, error.message)),
        Err(kept) => Err(kept.to_string()),
    }
}
