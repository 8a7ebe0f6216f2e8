//! Cancels, amendments and expiries: who ended or changed an order. Cancels have intents like orders do; what the
//! exchange does by itself is accepted only when a field that no user can set says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::account::finding::{Finding, describe};
use crate::kernel::account::orders::said_in_time;
use crate::kernel::account::{Kernel, Timer};
use crate::kernel::blotter::{Announced, Intent, IntentKey, Order, OrderKey};
use crate::kernel::event::{Issuer, TagCheck};
use crate::kernel::incident::IncidentId;
use crate::kernel::intent::{CancelTerms, Target};
use crate::kernel::limits::Size;
use crate::kernel::money::Dec;
use crate::kernel::order::{ClientId, ExecutionType, ExpiryReason, OrderId, OrderStatus, Symbol, TimeInForce};
use crate::kernel::pairs;
use crate::kernel::report::ExecutionReport;
use crate::kernel::rule::{Cause, Subject};
use crate::kernel::time::Time;
use crate::kernel::verdict::Verdict;

/// A cancel without an id of its own is matched by its target, within this of its own time.
const NEAR: Duration = Duration::from_secs(10);
/// A cancel-all ends what the venue made up to this long after it was announced: the request is on its way meanwhile,
/// and the venue's clock is not ours.
const CANCEL_ALL_REACH: Duration = Duration::from_secs(2);
/// Requests kept. At the limit the oldest goes; if it still waited, waiting ends with it.
const REQUESTS_MAX: usize = 10_000;

/// A cancel, an amendment or an expiry: the order, and what tells two of one order apart.
pub type RequestKey = (OrderKey, i64);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Requests {
    #[serde(with = "pairs")]
    by_key: BTreeMap<RequestKey, Request>,
    /// One id may stand on many: a cancel-all has one for all.
    #[serde(with = "pairs")]
    by_id: BTreeMap<ClientId, BTreeSet<RequestKey>>,
    age: VecDeque<RequestKey>,
}

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
    pub(super) first_seen: Time,
    pub(super) deadline: Time,
    /// Waiting is over, and does not begin again.
    waited: bool,
    verdict: Verdict,
    matched_by: Option<IntentKey>,
    /// The incidents that tell of it.
    told: Vec<IncidentId>,
}

impl Requests {
    pub(super) fn get_mut(&mut self, key: &RequestKey) -> Option<&mut Request> {
        self.by_key.get_mut(key)
    }

    /// What was asked for about one order.
    fn on(&self, key: &OrderKey) -> impl Iterator<Item = &RequestKey> {
        self.by_key.range((key.clone(), i64::MIN)..=(key.clone(), i64::MAX)).map(|(key, _)| key)
    }

    /// Whether an amendment of the order was seen, whosever it was.
    pub(super) fn amended(&self, key: &OrderKey) -> bool {
        self.on(key).any(|request| self.by_key.get(request).is_some_and(|request| request.kind == Kind::Amendment))
    }

    fn on_symbol(&self, symbol: &Symbol) -> impl Iterator<Item = &RequestKey> {
        let from = ((symbol.clone(), OrderId(i64::MIN)), i64::MIN);
        self.by_key.range(from..=((symbol.clone(), OrderId(i64::MAX)), i64::MAX)).map(|(key, _)| key)
    }

    fn insert(&mut self, key: RequestKey, request: Request) {
        if let Some(id) = request.id.clone() {
            self.by_id.entry(id).or_default().insert(key.clone());
        }
        self.age.push_back(key.clone());
        self.by_key.insert(key, request);
    }

    fn remove(&mut self, key: &RequestKey) {
        let id = self.by_key.remove(key).and_then(|request| request.id);
        if let Some(id) = id
            && let Some(keys) = self.by_id.get_mut(&id)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_id.remove(&id);
            }
        }
    }
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
        if !self.state.requests.by_key.contains_key(&request_key) {
            self.make_room_for_request();
            let request = Request {
                kind,
                id: report.request_client_order_id.clone(),
                quantity: report.quantity,
                counter_order,
                tag,
                first_seen: now,
                deadline: now + self.declared.waits.pending_cap,
                waited: false,
                verdict: Verdict::Pending,
                matched_by: None,
                told: Vec::new(),
            };
            self.state.requests.insert(request_key.clone(), request);
        }
        self.rejudge_request(&request_key);
    }

    fn make_room_for_request(&mut self) {
        if self.state.requests.age.len() < REQUESTS_MAX {
            return;
        }
        let Some(oldest) = self.state.requests.age.pop_front() else { return };
        self.end_waiting(&oldest);
        self.state.requests.remove(&oldest);
    }

    fn end_waiting(&mut self, key: &RequestKey) {
        if let Some(request) = self.state.requests.get_mut(key) {
            request.waited = true;
            self.rejudge_request(key);
        }
    }

    /// The order gives way to a new one: what was asked for about it is judged by what is known.
    pub(super) fn end_waiting_on(&mut self, key: &OrderKey) {
        let about: Vec<RequestKey> = self.state.requests.on(key).cloned().collect();
        about.iter().for_each(|request| self.end_waiting(request));
    }

    /// Something new is known of an order: what was asked for about it, or about its list, may be explained now.
    pub(super) fn rejudge_requests_on(&mut self, key: &OrderKey) {
        let mut about: Vec<RequestKey> = self.state.requests.on(key).cloned().collect();
        if let Some(list) = self.state.blotter.orders.get(key).and_then(|order| order.list_id) {
            let legs = self.state.blotter.legs(list).filter(|leg| *leg != key);
            about.extend(legs.flat_map(|leg| self.state.requests.on(leg)).cloned());
        }
        about.iter().for_each(|request| self.rejudge_request(request));
    }

    /// A cancel or an amendment was announced: it may be what was seen before.
    pub(super) fn rejudge_requests_of(&mut self, announced: &Announced) {
        let requests = &self.state.requests;
        let by_id = announced.own_id().and_then(|id| requests.by_id.get(id));
        let by_id: Vec<RequestKey> = by_id.into_iter().flatten().cloned().collect();
        by_id.iter().for_each(|request| self.rejudge_request(request));
        let Some((symbol, target)) = announced.target() else { return };
        let key = match target {
            Target::Order(id) => Some((symbol, id)),
            Target::Client(id) => self.state.blotter.order_of_client_id(&symbol, &id).cloned(),
            Target::All => {
                let all: Vec<RequestKey> = self.state.requests.on_symbol(&symbol).cloned().collect();
                return all.iter().for_each(|request| self.rejudge_request(request));
            }
        };
        if let Some(key) = key {
            self.rejudge_requests_on(&key);
        }
    }

    pub(super) fn rejudge_request(&mut self, request_key: &RequestKey) {
        let Some(request) = self.state.requests.by_key.get(request_key) else { return };
        let pending = (request.first_seen, request_key.clone());
        let Some(order) = self.state.blotter.orders.get(&request_key.0) else {
            self.state.pending_requests.remove(&pending);
            return;
        };
        if request.matched_by.as_ref().is_some_and(|intent| !self.state.blotter.intents.contains_key(intent)) {
            // Its intent has been forgotten: the verdict stands.
            return;
        }
        let (verdict, intent) = self.judge_request(request, &request_key.0, order);
        let (before, deadline) = (request.verdict, request.deadline);
        if let Some(request) = self.state.requests.get_mut(request_key) {
            request.waited |= verdict != Verdict::Pending;
            request.verdict = verdict;
            request.matched_by.clone_from(&intent);
        }
        if let Some(intent) = intent {
            self.mark_intent_met(&intent);
        }
        if verdict == Verdict::Pending {
            if self.state.pending_requests.insert(pending) {
                self.state.timers.insert((deadline, Timer::JudgeRequest(request_key.clone())));
            }
            return;
        }
        self.state.pending_requests.remove(&pending);
        if verdict == before {
            return;
        }
        if verdict.is_stranger() || verdict == Verdict::Unproven {
            self.tell_request(request_key);
        } else {
            self.clear_request(request_key);
        }
    }

    fn judge_request(&self, request: &Request, key: &OrderKey, order: &Order) -> (Verdict, Option<IntentKey>) {
        let waited = request.waited || self.now() >= request.deadline;
        if request.kind == Kind::Expiry {
            return (self.judge_expiry(request, waited), None);
        }
        if request.kind == Kind::Cancel && self.we_cancel(key) {
            return (Verdict::Matched, None);
        }
        let said = request.id.as_ref().and_then(|id| self.state.blotter.intent_by_client_id(id));
        let said = said.filter(|(_, intent)| said_in_time(intent, request.first_seen, request.deadline));
        if let Some((intent_key, intent)) = said {
            let means = self.means(intent, request, key, order);
            return if means { (Verdict::Matched, Some(intent_key.clone())) } else { (Verdict::Divergent, None) };
        }
        if let Some(intent_key) = self.said_by_target(request, key, order) {
            return (Verdict::Matched, Some(intent_key));
        }
        let verdict = match request.tag {
            TagCheck::Valid { issuer: Issuer::Daemon, .. } => Verdict::Unissued,
            TagCheck::Valid { issuer: Issuer::Bot, .. } if waited => Verdict::Unlogged,
            TagCheck::Valid { issuer: Issuer::Bot, .. } => Verdict::Pending,
            TagCheck::Forged => Verdict::Forged,
            // Whoever made it by hand may end it; but a stop that is gone is told, whosever it was.
            TagCheck::Absent
                if order.verdict == Verdict::DeclaredManual && !order.placed.order_type.is_conditional() =>
            {
                Verdict::DeclaredManual
            }
            TagCheck::Absent if waited || self.state.bots.have_passed(request.first_seen) => Verdict::Foreign,
            TagCheck::Absent => Verdict::Pending,
        };
        (verdict, None)
    }

    /// A counter order explains the end of an order, if it is one of ours.
    fn judge_expiry(&self, request: &Request, waited: bool) -> Verdict {
        let Some(counter) = &request.counter_order else { return Verdict::Unproven };
        match self.state.blotter.orders.get(counter).map(|counter| counter.verdict) {
            Some(Verdict::Matched | Verdict::PreExisting | Verdict::ExchangeGenerated) => Verdict::ExchangeGenerated,
            Some(
                Verdict::Pending
                | Verdict::Foreign
                | Verdict::Divergent
                | Verdict::Replayed
                | Verdict::Forged
                | Verdict::Unissued
                | Verdict::Unlogged
                // A claim window covers no cancel, and this would be one by a detour.
                | Verdict::DeclaredManual
                | Verdict::Unproven,
            )
            | None => {
                if waited {
                    Verdict::Unproven
                } else {
                    Verdict::Pending
                }
            }
        }
    }

    /// Whether an intent is about this request on this order.
    fn means(&self, intent: &Intent, request: &Request, key: &OrderKey, order: &Order) -> bool {
        match &intent.announced {
            Announced::Cancel { terms, .. } => {
                request.kind == Kind::Cancel && self.targets(terms, intent.said_at(), key, order)
            }
            Announced::Amend { symbol, target, number, quantity, .. } => {
                request.kind == Kind::Amendment
                    && *symbol == key.0
                    && (*number == Some(key.1) || order.ids().any(|id| id == target))
                    && *quantity == request.quantity
            }
            Announced::Place { .. } => false,
        }
    }

    /// Cancelling one leg of a list cancels the list, so a leg's siblings are meant as well.
    fn targets(&self, terms: &CancelTerms, said_at: Time, key: &OrderKey, order: &Order) -> bool {
        if terms.symbol != key.0 {
            return false;
        }
        let target = match &terms.target {
            Target::All => return order.created_at <= said_at + CANCEL_ALL_REACH,
            Target::Order(id) if *id == key.1 => return true,
            Target::Client(id) if order.ids().any(|other| other == id) => return true,
            Target::Order(id) => self.state.blotter.orders.get(&(key.0.clone(), *id)),
            Target::Client(id) => {
                let key = self.state.blotter.order_of_client_id(&terms.symbol, id);
                key.and_then(|key| self.state.blotter.orders.get(key))
            }
        };
        target.is_some_and(|target| target.list_id.is_some() && target.list_id == order.list_id)
    }

    /// A cancel or amendment that names this order, its list or all of its symbol, said within seconds of it.
    fn said_by_target(&self, request: &Request, key: &OrderKey, order: &Order) -> Option<IntentKey> {
        let blotter = &self.state.blotter;
        let (since, until) = (request.first_seen - NEAR, request.first_seen + NEAR);
        let legs = order.list_id.into_iter().flat_map(|list| blotter.legs(list)).filter(|leg| *leg != key);
        let legs = legs.filter_map(|leg| blotter.orders.get_key_value(leg));
        let named = std::iter::once((key, order)).chain(legs).flat_map(|(key, order)| {
            let ids = order.ids().map(|id| Target::Client(id.clone()));
            ids.chain([Target::Order(key.1)]).map(|target| (key.0.clone(), target))
        });
        named.chain([(key.0.clone(), Target::All)]).find_map(|target| {
            let mut said = blotter.about(&target, since, until).filter(|(_, intent)| {
                said_in_time(intent, request.first_seen, until) && self.means(intent, request, key, order)
            });
            said.next().map(|(key, _)| key.clone())
        })
    }

    /// It was told as a stranger's, and the bot's word came after all.
    fn clear_request(&mut self, request_key: &RequestKey) {
        let now = self.now();
        let Some(request) = self.state.requests.get_mut(request_key) else { return };
        let (order, line) = (&request_key.0, "cleared: your bot's word on a request came late, and holds");
        for incident in std::mem::take(&mut request.told) {
            self.state.book.clear_other(now, incident, &format!("{line} (order {} of {})", order.1, order.0));
        }
    }

    fn tell_request(&mut self, request_key: &RequestKey) {
        let key = &request_key.0;
        let (Some(request), Some(order)) =
            (self.state.requests.get_mut(request_key), self.state.blotter.orders.get(key).cloned())
        else {
            return;
        };
        if !request.told.is_empty() || order.verdict.is_stranger() && request.kind != Kind::Cancel {
            return;
        }
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
        if self.state.uses.follows(key) {
            // The order is a stranger's that an exception keeps quiet, so its end is quiet too.
            return;
        }
        if order.verdict.is_stranger() {
            let now = self.now();
            return self.state.book.note(now, Cause::Stranger, "", line);
        }
        let subject = match request.kind {
            Kind::Cancel => Subject::Cancel,
            Kind::Amendment => Subject::Amendment,
            Kind::Expiry => Subject::Expiry,
        };
        let told = self.find(Finding {
            facts: self.order_facts(subject, request.verdict, &order.placed, order.exposure()),
            scope: "",
            line,
            certainty: self.certainty(request.verdict, request.tag, true),
            // What was on the book and is gone.
            at_stake: Size::from(&order.placed).notional,
            // The order is the bot's own: its money is not a stranger's.
            order: None,
        });
        if let Some(request) = self.state.requests.get_mut(request_key) {
            request.told = told;
        }
    }
}
