//! The mirror: an intent or cancel that the bot says was accepted, and that the venue does not know. A hijacked client
//! library answers with fake success; silence closes nothing, so the venue is asked, and asked again.

use std::time::Duration;

use crate::kernel::account::finding::Finding;
use crate::kernel::account::{Kernel, Purpose, Timer};
use crate::kernel::blotter::{Announced, Intent, IntentKey, OrderKey, Settled};
use crate::kernel::event::{OrderRef, OrderSnapshot, ReadOutcome, ReadRequest};
use crate::kernel::intent::{SendOutcome, Target};
use crate::kernel::order::{ClientId, OrderId, Symbol};
use crate::kernel::rule::{Cause, Facts, Field, Subject};

/// The venue's databases lag: a read that finds nothing is repeated after this.
const LAG: Duration = Duration::from_secs(5);
/// Failed reads are repeated at growing intervals; after this many the intent is unproven, and said to be.
const FAILED_READS_MAX: u8 = 6;

impl Kernel {
    /// An intent should have been seen by now. If it was not, the venue is asked.
    pub(super) fn mirror(&mut self, key: &IntentKey) {
        let Some(intent) = self.state.blotter.intents.get(key) else { return };
        if intent.settled() != Settled::No {
            return;
        }
        if self.is_met(intent) {
            return self.mark_intent_seen(key);
        }
        if let Some(request) = self.mirror_request(key) {
            self.ask(request, Purpose::Mirror(key.clone()));
        }
    }

    /// One order of a cancel-all has ended: the intent is seen when each has.
    pub(super) fn mark_intent_met(&mut self, key: &IntentKey) {
        if self.state.blotter.intents.get(key).is_some_and(|intent| self.is_met(intent)) {
            self.mark_intent_seen(key);
        }
    }

    /// A placement is met by its order, a cancel by its target's end, for whatever reason it ended.
    fn is_met(&self, intent: &Intent) -> bool {
        match &intent.announced {
            Announced::Place { terms, .. } => {
                self.state.blotter.holder(&terms.client_order_id).is_some() || self.is_shown_by_number(intent)
            }
            Announced::Cancel { terms, open } => match &terms.target {
                Target::All => open.iter().all(|id| !self.is_open(&terms.symbol, *id)),
                Target::Order(_) | Target::Client(_) => {
                    self.target_key(&terms.symbol, &terms.target).is_some_and(|key| !self.is_open(&key.0, key.1))
                }
            },
            // An amendment that did not come about leaves the order as it was said to be.
            Announced::Amend { .. } => true,
        }
    }

    /// What was amended unseen goes by another id. The number that the bot had from the venue finds it, if the order there
    /// is judged by this very word.
    fn is_shown_by_number(&self, intent: &Intent) -> bool {
        let Some(key) = told_number(intent) else { return false };
        let placement = |order| self.placement_of(&key, order).map(|(_, placement)| placement.announced.own_id());
        self.state.blotter.orders.get(&key).and_then(placement) == Some(intent.announced.own_id())
    }

    fn is_closed(&self, snapshot: &OrderSnapshot) -> bool {
        let key = (snapshot.symbol.clone(), snapshot.order_id);
        self.state.blotter.orders.get(&key).is_some_and(|order| !order.open)
    }

    fn is_open(&self, symbol: &Symbol, id: OrderId) -> bool {
        self.state.blotter.orders.get(&(symbol.clone(), id)).is_some_and(|order| order.open)
    }

    fn target_key(&self, symbol: &Symbol, target: &Target) -> Option<OrderKey> {
        match target {
            Target::Order(id) => {
                let key = (symbol.clone(), *id);
                self.state.blotter.orders.contains_key(&key).then_some(key)
            }
            Target::Client(id) => {
                let numbered = || self.number_of(id).filter(|key| self.state.blotter.orders.contains_key(key));
                self.state.blotter.order_of_client_id(symbol, id).cloned().or_else(numbered)
            }
            Target::All => None,
        }
    }

    /// The order that an announced one became, by the bot's word: amended unseen it goes by another id.
    fn number_of(&self, id: &ClientId) -> Option<OrderKey> {
        self.state.blotter.placement(id).and_then(|(_, placed)| told_number(placed))
    }

    pub(super) fn mirror_request(&self, key: &IntentKey) -> Option<ReadRequest> {
        let intent = self.state.blotter.intents.get(key)?;
        let (symbol, order) = match &intent.announced {
            Announced::Place { terms, .. } => {
                let by_number = by_number(intent).map(|(_, id)| OrderRef::Id(id));
                let by_client_id = || OrderRef::Client(terms.client_order_id.clone());
                (terms.symbol.clone(), by_number.unwrap_or_else(by_client_id))
            }
            Announced::Cancel { terms, open } => {
                let order = match &terms.target {
                    Target::Order(id) => OrderRef::Id(*id),
                    Target::Client(id) => {
                        let number = self.number_of(id).filter(|_| intent.missing_reads > 0);
                        number.map_or_else(|| OrderRef::Client(id.clone()), |(_, id)| OrderRef::Id(id))
                    }
                    Target::All => OrderRef::Id(*open.iter().find(|id| self.is_open(&terms.symbol, **id))?),
                };
                (terms.symbol.clone(), order)
            }
            Announced::Amend { .. } => return None,
        };
        Some(ReadRequest::Order { symbol, order })
    }

    pub(super) fn mirrored(&mut self, key: &IntentKey, outcome: ReadOutcome) {
        let Some(intent) = self.state.blotter.intents.get(key) else { return };
        if intent.settled() != Settled::No {
            return;
        }
        // The stream may have shown it while the read was under way, which is older then.
        if self.is_met(intent) {
            return self.mark_intent_seen(key);
        }
        let is_cancel = matches!(intent.announced, Announced::Cancel { .. });
        match outcome {
            ReadOutcome::Order(snapshot) if is_cancel && !snapshot.status.is_terminal() => self.not_there(key),
            ReadOutcome::Order(snapshot) if by_number(intent).is_some() => {
                self.stream_missed(&snapshot);
                match self.state.blotter.intents.get(key) {
                    Some(intent) if !self.is_met(intent) => self.not_there(key),
                    Some(_) | None => self.mark_intent_seen(key),
                }
            }
            ReadOutcome::Order(snapshot) if is_cancel && self.is_closed(&snapshot) => self.mark_intent_seen(key),
            ReadOutcome::Order(snapshot) if is_cancel => {
                // It may have ended a moment ago: the stream has its time to show that.
                self.suspect_ended((snapshot.symbol.clone(), snapshot.order_id));
                self.set_timer(LAG, Timer::Mirror(key.clone()));
            }
            ReadOutcome::Order(mut snapshot) => {
                if let Announced::Place { terms, .. } = &intent.announced {
                    // It was asked for by this id; of a cancelled order a read may show the cancel's.
                    snapshot.client_order_id = terms.client_order_id.clone();
                }
                self.stream_missed(&snapshot);
                self.mark_intent_seen(key);
            }
            ReadOutcome::NotFound => self.not_there(key),
            ReadOutcome::Unknown { reason } => self.could_not_look(key, &reason),
            ReadOutcome::OpenOrders(_) | ReadOutcome::Balances(_) => self.could_not_look(key, "another answer came"),
        }
    }

    /// The venue showed it. What was told of it as missing came after all.
    pub(super) fn mark_intent_seen(&mut self, key: &IntentKey) {
        let Some(intent) = self.state.blotter.intents.get(key) else { return };
        if matches!(intent.settled(), Settled::Unseen | Settled::Unproven) {
            self.note_unseen(key, "the exchange shows it after all");
        }
        self.state.blotter.settle(key, Settled::Seen);
    }

    pub(super) fn note_unseen(&mut self, key: &IntentKey, what: &str) {
        let (now, line) = (self.now(), format!("seq {} of {}: {what}", key.1, key.0));
        self.state.book.note(now, Cause::Unseen, "", line);
    }

    fn not_there(&mut self, key: &IntentKey) {
        let Some(intent) = self.state.blotter.intents.get_mut(key) else { return };
        intent.failed_reads = 0;
        intent.missing_reads += 1;
        if intent.missing_reads < 2 {
            return self.set_timer(LAG, Timer::Mirror(key.clone()));
        }
        self.state.blotter.settle(key, Settled::Unseen);
        self.tell_unseen(key);
    }

    pub(super) fn tell_unseen(&mut self, key: &IntentKey) {
        let Some(intent) = self.state.blotter.intents.get(key) else { return };
        let (subject, line) = unseen_line(key, &intent.announced);
        let (says, certainty) = match (&intent.result, subject) {
            (Some(SendOutcome::Accepted { .. }), Subject::CancelIntent) => (
                "accepted",
                "The exchange was asked twice, signed, and shows the order open, though your bot was told that it is \
                 cancelled: your bot may be talking to somebody else.",
            ),
            (Some(SendOutcome::Accepted { .. }), _) => (
                "accepted",
                "The exchange was asked twice, signed, and does not know it, though your bot was told it was taken: \
                 your bot may be talking to somebody else.",
            ),
            (Some(SendOutcome::Unknown), _) => ("unknown", "Your bot does not know either how it ended."),
            (None | Some(SendOutcome::Rejected { .. } | SendOutcome::NotSent), _) => {
                ("nothing", "Your bot has not said how it ended.")
            }
        };
        self.find(Finding {
            facts: Facts::default()
                .with(Field::Subject, subject.word())
                .with(Field::Verdict, "unseen")
                .with(Field::BotSays, says),
            scope: "",
            line,
            certainty: certainty.to_owned(),
            at_stake: None,
            order: None,
        });
    }

    fn could_not_look(&mut self, key: &IntentKey, reason: &str) {
        let Some(intent) = self.state.blotter.intents.get_mut(key) else { return };
        intent.failed_reads += 1;
        if intent.failed_reads < FAILED_READS_MAX {
            let wait = LAG * 2_u32.pow(u32::from(intent.failed_reads));
            return self.set_timer(wait, Timer::Mirror(key.clone()));
        }
        self.state.blotter.settle(key, Settled::Unproven);
        let line = format!("intent {} of {} was not seen, and could not be looked up: {reason}", key.1, key.0);
        self.find(Finding {
            facts: Facts::default()
                .with(Field::Subject, Subject::Intent.word())
                .with(Field::Verdict, crate::kernel::verdict::Verdict::Unproven.word()),
            scope: "",
            line,
            certainty: "A failed read says nothing, neither that it is there nor that it is not.".to_owned(),
            at_stake: None,
            order: None,
        });
    }

    /// A read shows an order, or its end, that the stream did not. Inside a gap that is what a gap means; outside, the
    /// stream is not whole.
    pub(super) fn stream_missed(&mut self, snapshot: &OrderSnapshot) {
        let key = (snapshot.symbol.clone(), snapshot.order_id);
        let known = self.state.blotter.orders.get(&key);
        let news = known.is_none_or(|order| order.open == snapshot.status.is_terminal());
        if news {
            let line = format!("order {} of {}: the exchange says {}", key.1, key.0, snapshot.status);
            self.difference(&line, snapshot.created_at);
        }
        self.order_read(snapshot);
    }
}

/// The order that the bot says its placement became.
pub(super) fn told_number(intent: &Intent) -> Option<OrderKey> {
    match (&intent.announced, &intent.result) {
        (Announced::Place { terms, .. }, Some(SendOutcome::Accepted { order_id: Some(id) })) => {
            Some((terms.symbol.clone(), *id))
        }
        (Announced::Place { .. } | Announced::Cancel { .. } | Announced::Amend { .. }, _) => None,
    }
}

/// The second look is by the number, where the bot told it: an amended order is not found under the id it was placed with.
fn by_number(intent: &Intent) -> Option<OrderKey> {
    told_number(intent).filter(|_| intent.missing_reads > 0)
}

/// What was announced, and that the venue does not show it.
fn unseen_line(key: &IntentKey, announced: &Announced) -> (Subject, String) {
    let by = format!("announced by {} (seq {})", key.0, key.1);
    match announced {
        Announced::Place { terms, .. } => {
            let size = terms.quantity.or(terms.quote_quantity).map(|size| size.to_string()).unwrap_or_default();
            let order = format!("{} {size} {} (id {})", terms.side, terms.symbol, terms.client_order_id);
            (Subject::Intent, format!("{order}: {by}, unknown to the exchange"))
        }
        Announced::Cancel { terms, .. } => {
            let target = match &terms.target {
                Target::Order(id) => format!("order {id}"),
                Target::Client(id) => format!("order with id {id}"),
                Target::All => "every order".to_owned(),
            };
            let line =
                format!("cancel of {target} of {}: {by}, and the exchange shows no order that it ended", terms.symbol);
            (Subject::CancelIntent, line)
        }
        Announced::Amend { symbol, target, .. } => {
            (Subject::Intent, format!("amendment of order with id {target} of {symbol}: {by}, did not happen"))
        }
    }
}
