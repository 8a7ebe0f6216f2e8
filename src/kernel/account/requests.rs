//! Cancels, amendments and expiries: who ended or changed an order. Cancels have intents like orders do; what the
//! exchange does by itself is accepted only when a field that no user can set says so.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::account::finding::{Finding, describe};
use crate::kernel::account::{Kernel, RequestKey, Timer};
use crate::kernel::blotter::{Announced, Intent, IntentKey, Order, OrderKey};
use crate::kernel::event::{Issuer, TagCheck};
use crate::kernel::intent::{CancelTerms, Target};
use crate::kernel::money::Dec;
use crate::kernel::order::{ClientId, ExecutionType, ExpiryReason, OrderId, OrderStatus, Symbol, TimeInForce};
use crate::kernel::report::ExecutionReport;
use crate::kernel::rule::{Cause, Subject};
use crate::kernel::time::Time;
use crate::kernel::verdict::Verdict;

/// A cancel without an id of its own is matched by its target, within this of its own time.
const NEAR: Duration = Duration::from_secs(10);
/// Requests kept. At the limit the oldest that waits for nothing goes.
const REQUESTS_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Cancel,
    Amendment,
    Expiry,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    kind: Kind,
    /// The id of the cancel or amendment itself.
    id: Option<ClientId>,
    /// After an amendment, the order's quantity.
    quantity: Dec,
    counter_order: Option<(Symbol, OrderId)>,
    tag: TagCheck,
    first_seen: Time,
    pub(super) deadline: Time,
    verdict: Verdict,
    told: bool,
}

impl Kernel {
    /// A CANCELED or REPLACED report.
    pub(super) fn request(&mut self, key: &OrderKey, report: &ExecutionReport, tag: TagCheck) {
        if report.expiry_reason.is_some_and(|reason| reason != ExpiryReason::None) {
            return;
        }
        let kind = if report.execution_type == ExecutionType::Canceled { Kind::Cancel } else { Kind::Amendment };
        self.take_request(key, kind, report, tag, None);
    }

    /// An EXPIRED or TRADE_PREVENTION report. What the order's own terms or the exchange's reason explain is quiet;
    /// a prevented self-trade is explained by a counter order that we know.
    pub(super) fn expiry(&mut self, key: &OrderKey, report: &ExecutionReport) {
        let reason = report.expiry_reason.is_some_and(|reason| reason != ExpiryReason::None);
        let prevented =
            report.execution_type == ExecutionType::TradePrevention || report.status == OrderStatus::ExpiredInMatch;
        let by_terms = !report.order_type.has_price()
            || matches!(
                report.time_in_force,
                TimeInForce::Ioc | TimeInForce::Fok | TimeInForce::Gtx | TimeInForce::Gtd
            )
            || report.list_id.is_some();
        if !prevented && (reason || by_terms) {
            return;
        }
        self.take_request(key, Kind::Expiry, report, TagCheck::Absent, report.counter_order.clone());
    }

    fn take_request(
        &mut self,
        key: &OrderKey,
        kind: Kind,
        report: &ExecutionReport,
        tag: TagCheck,
        counter_order: Option<(Symbol, OrderId)>,
    ) {
        let request_key = (key.clone(), report.execution_id.unwrap_or_else(|| report.transacted_at.micros()));
        let now = self.now();
        if self.state.requests.len() >= REQUESTS_MAX {
            let settled = |(_, request): &(&RequestKey, &Request)| request.verdict != Verdict::Pending;
            let oldest = self.state.requests.iter().filter(settled).min_by_key(|(_, request)| request.first_seen);
            if let Some(oldest) = oldest.map(|(oldest, _)| oldest.clone()) {
                self.state.requests.remove(&oldest);
            }
        }
        self.state.requests.entry(request_key.clone()).or_insert_with(|| Request {
            kind,
            id: report.request_client_order_id.clone(),
            quantity: report.quantity,
            counter_order,
            tag,
            first_seen: now,
            deadline: now + self.declared.waits.pending_cap,
            verdict: Verdict::Pending,
            told: false,
        });
        self.rejudge_request(&request_key);
    }

    pub(super) fn rejudge_request(&mut self, request_key: &RequestKey) {
        let (Some(request), Some(order)) =
            (self.state.requests.get(request_key), self.state.blotter.orders.get(&request_key.0))
        else {
            self.state.pending_requests.remove(request_key);
            return;
        };
        let (verdict, intent) = self.judge_request(request, &request_key.0, order);
        let (before, deadline) = (request.verdict, request.deadline);
        if let Some(request) = self.state.requests.get_mut(request_key) {
            request.verdict = verdict;
        }
        if let Some(intent) = intent {
            self.mark_intent_seen(&intent);
        }
        if verdict == Verdict::Pending {
            if self.state.pending_requests.insert(request_key.clone()) {
                self.state.timers.insert((deadline, Timer::JudgeRequest(request_key.clone())));
            }
            return;
        }
        self.state.pending_requests.remove(request_key);
        if verdict != before && (verdict.is_stranger() || verdict == Verdict::Unproven) {
            self.tell_request(request_key);
        }
    }

    fn judge_request(&self, request: &Request, key: &OrderKey, order: &Order) -> (Verdict, Option<IntentKey>) {
        let waited = self.now() >= request.deadline;
        if request.kind == Kind::Expiry {
            let known = request.counter_order.as_ref().and_then(|counter| self.state.blotter.orders.get(counter));
            return match known {
                Some(counter) if !counter.verdict.is_stranger() => (Verdict::ExchangeGenerated, None),
                Some(_) | None if waited => (Verdict::Unproven, None),
                Some(_) | None => (Verdict::Pending, None),
            };
        }
        if let Some(intent_key) = request.id.as_ref().and_then(|id| self.state.blotter.intent_by_client_id(id))
            && let Some(intent) = self.state.blotter.intents.get(&intent_key)
        {
            let means = self.means(intent, request, key, order);
            return (if means { Verdict::Matched } else { Verdict::Divergent }, means.then_some(intent_key));
        }
        if let Some(intent_key) = self.said_by_target(request, key, order) {
            return (Verdict::Matched, Some(intent_key));
        }
        let verdict = match request.tag {
            TagCheck::Valid { issuer: Issuer::Daemon, .. } => Verdict::Unissued,
            TagCheck::Valid { issuer: Issuer::Bot, .. } if waited => Verdict::Unlogged,
            TagCheck::Valid { issuer: Issuer::Bot, .. } => Verdict::Pending,
            TagCheck::Forged => Verdict::Forged,
            TagCheck::Absent if waited || self.state.bots.have_passed(request.first_seen) => Verdict::Foreign,
            TagCheck::Absent => Verdict::Pending,
        };
        (verdict, None)
    }

    /// Whether an intent is about this request on this order.
    fn means(&self, intent: &Intent, request: &Request, key: &OrderKey, order: &Order) -> bool {
        match &intent.announced {
            Announced::Cancel { terms, open } => request.kind == Kind::Cancel && self.targets(terms, open, key, order),
            Announced::Amend { symbol, target, quantity, .. } => {
                request.kind == Kind::Amendment
                    && *symbol == key.0
                    && *target == order.placed.client_order_id
                    && *quantity == request.quantity
            }
            Announced::Place { .. } => false,
        }
    }

    /// Cancelling one leg of a list cancels the list, so a leg's siblings are meant as well.
    fn targets(&self, terms: &CancelTerms, open: &[OrderId], key: &OrderKey, order: &Order) -> bool {
        if terms.symbol != key.0 {
            return false;
        }
        let target = match &terms.target {
            Target::All => return open.contains(&key.1),
            Target::Order(id) if *id == key.1 => return true,
            Target::Client(id) if *id == order.placed.client_order_id => return true,
            Target::Order(id) => self.state.blotter.orders.get(&(key.0.clone(), *id)),
            Target::Client(id) => {
                let key = self.state.blotter.order_of_client_id(&terms.symbol, id);
                key.and_then(|key| self.state.blotter.orders.get(key))
            }
        };
        target.is_some_and(|target| target.list_id.is_some() && target.list_id == order.list_id)
    }

    /// A cancel that names this order, or all of its symbol, said within seconds of it.
    fn said_by_target(&self, request: &Request, key: &OrderKey, order: &Order) -> Option<IntentKey> {
        let recent = self.state.blotter.intents_since(request.first_seen - NEAR);
        let in_time = |intent: &Intent| {
            intent.received_at <= request.first_seen
                || intent.received_at <= request.first_seen + NEAR
                    && intent.nonce.is_none_or(|nonce| nonce < request.first_seen)
        };
        recent
            .filter_map(|key| self.state.blotter.intents.get(key).map(|intent| (key, intent)))
            .find(|(_, intent)| in_time(intent) && self.means(intent, request, key, order))
            .map(|(key, _)| key.clone())
    }

    fn tell_request(&mut self, request_key: &RequestKey) {
        let key = &request_key.0;
        let (Some(request), Some(order)) =
            (self.state.requests.get_mut(request_key), self.state.blotter.orders.get(key).cloned())
        else {
            return;
        };
        if request.told || order.verdict.is_stranger() && request.kind != Kind::Cancel {
            return;
        }
        request.told = true;
        let request = request.clone();
        let did = match request.kind {
            Kind::Cancel => "cancelled".to_owned(),
            Kind::Amendment => format!("amended to quantity {}", request.quantity),
            Kind::Expiry => "ended by the exchange, for no reason that it shows".to_owned(),
        };
        let who = match (request.kind, request.verdict) {
            (Kind::Expiry, _) => String::new(),
            (Kind::Cancel | Kind::Amendment, verdict) => format!(", {}", verdict.plain()),
        };
        let line = format!("{did}{who}: {}", describe(key, &order.placed));
        if order.verdict.is_stranger() {
            let now = self.now();
            return self.state.book.note(now, Cause::Stranger, "", line);
        }
        let subject = match request.kind {
            Kind::Cancel => Subject::Cancel,
            Kind::Amendment => Subject::Amendment,
            Kind::Expiry => Subject::Expiry,
        };
        self.find(Finding {
            facts: self.order_facts(subject, request.verdict, &order.placed, order.exposure()),
            scope: "",
            line,
            certainty: self.certainty(request.verdict, request.tag, true),
            // The order is the bot's own: its money is not a stranger's.
            order: None,
        });
    }
}
