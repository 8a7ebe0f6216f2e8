//! Intents: what the bots announce, inside their limits and in their sequence.

use std::collections::BTreeSet;

use crate::kernel::account::mirror::told_number;
use crate::kernel::account::{Kernel, Timer};
use crate::kernel::blotter::{Announced, INTENTS_MAX, Intent, IntentKey, Settled};
use crate::kernel::bots::Turn;
use crate::kernel::containment::Containment;
use crate::kernel::event::{AccessEvidence, AccessSource, Effect, Ticket};
use crate::kernel::incident::Priority;
use crate::kernel::intent::{
    AmendTerms, CancelTerms, IntentBody, IntentRecord, IntentReply, OrderTerms, Refusal, Registered, ResultOf,
    SendOutcome, Target,
};
use crate::kernel::limits::Size;
use crate::kernel::order::{Bot, ClientId, OrderId, Symbol};
use crate::kernel::rule::Cause;
use crate::kernel::time::Time;

/// The venue's longest list has three legs.
const LEGS_MAX: usize = 8;
/// The venue allows ten amendments of an order.
const AMENDMENTS_MAX: usize = 20;

const SILENT_ADVICE: &[&str] = &[
    "Look whether the bot runs, and whether it can reach countersign.",
    "Orders it places meanwhile cannot be told from a thief's: they will be reported as not your bot's.",
];

impl Kernel {
    pub(super) fn intent(&mut self, ticket: Ticket, record: IntentRecord) {
        if self.state.bots.state_mut(&record.bot).is_none() {
            return self.reply(ticket, record.seq, 0, Err(Refusal::UnknownBot));
        }
        let announces = !matches!(record.body, IntentBody::Heartbeat { .. } | IntentBody::Result(_));
        // Our own clock, where it hands back a nonce.
        let announced = announces.then(|| record.nonce.unwrap_or(record.at));
        self.stopped_bot_spoke(&record.bot, announced);
        if let IntentBody::Heartbeat { egress } = record.body {
            return self.heartbeat(ticket, &record, egress);
        }
        let Some(bot) = self.state.bots.state_mut(&record.bot) else { return };
        let missing = match bot.turn(&record) {
            Turn::Next { missing } => missing,
            Turn::Repeat(answer) => return self.reply(ticket, record.seq, 0, answer),
            Turn::Refused(refusal) => return self.reply(ticket, record.seq, 0, Err(refusal)),
        };
        let nonce = bot.hear(self.state.now.at, &record, missing);
        self.heard(&record.bot);
        self.state.counts.intents += 1;
        let answer = self.take_body(&record, nonce);
        if answer.is_ok() && !matches!(record.body, IntentBody::Result(_)) {
            self.connect(&record.bot);
        }
        self.rejudge_passed();
        self.reply(ticket, record.seq, missing, answer.clone());
        if let Some(bot) = self.state.bots.state_mut(&record.bot) {
            bot.remember(record, answer);
        }
    }

    fn connect(&mut self, name: &Bot) {
        let now = self.now();
        if let Some(bot) = self.state.bots.state_mut(name)
            && !std::mem::replace(&mut bot.connected, true)
        {
            let line = format!("{name} has announced its first intent");
            self.state.book.end(now, Cause::Unconnected, "", line);
        }
    }

    /// A heartbeat takes no place in the sequence: its `seq` is the last one the bot used. If that record is here, then
    /// all are, and whatever the bot had to say before the nonce has been said.
    fn heartbeat(&mut self, ticket: Ticket, record: &IntentRecord, egress: Option<std::net::IpAddr>) {
        let now = self.now();
        let Some(bot) = self.state.bots.state_mut(&record.bot) else { return };
        let missing = record.seq.saturating_sub(bot.last_seq);
        if missing == 0 {
            bot.watermark = bot.watermark.max(record.nonce.filter(|nonce| *nonce <= now));
        } else if !bot.connected {
            // It speaks of records that nobody knows, so its beats prove nothing, and nobody waits for it.
            bot.watermark = None;
        }
        self.heard(&record.bot);
        self.egress(record, egress);
        self.rejudge_passed();
        self.reply(ticket, record.seq, missing, Ok(Registered { client_order_ids: Vec::new() }));
    }

    fn heard(&mut self, name: &Bot) {
        let (now, after) = (self.now(), self.declared.waits.silent_after);
        let Some(bot) = self.state.bots.state_mut(name) else { return };
        let first = bot.heard_at.replace(now).is_none();
        let was_silent = std::mem::take(&mut bot.silent);
        if first {
            self.set_timer(after, Timer::Silence(name.clone()));
        }
        if was_silent {
            self.state.book.end(now, Cause::BotSilent, name.as_str(), format!("{name} speaks again"));
        }
    }

    fn reply(&mut self, ticket: Ticket, seq: u64, missing: u64, answer: Result<Registered, Refusal>) {
        let heartbeat_wanted = self.heartbeat_wanted();
        let reply = IntentReply { seq, nonce: self.now(), heartbeat_wanted, missing, answer };
        self.effects.push(Effect::Reply { ticket, reply });
    }

    /// A verdict waits for the bots' word, or a stop for its proof: a heartbeat is worth a record of its own.
    pub fn heartbeat_wanted(&self) -> bool {
        let stops = self.state.stop.containment().is_some_and(Containment::wants_beats);
        stops || !self.state.pending.is_empty() || !self.state.pending_requests.is_empty()
    }

    fn take_body(&mut self, record: &IntentRecord, nonce: Option<Time>) -> Result<Registered, Refusal> {
        if let IntentBody::Result(result) = &record.body {
            self.result(&record.bot, result)?;
        }
        let parts = self.parts(record)?;
        self.admit(record, &parts)?;
        let mut ids = Vec::with_capacity(parts.len());
        for (part, announced) in parts {
            ids.extend(announced.own_id().cloned());
            let intent = Intent::new(self.now(), nonce, record.at, announced);
            self.register((record.bot.clone(), record.seq, part), intent);
        }
        Ok(Registered { client_order_ids: ids })
    }

    /// What a record announces, piece by piece.
    fn parts(&self, record: &IntentRecord) -> Result<Vec<(u8, Announced)>, Refusal> {
        let place = |terms: &OrderTerms| Announced::Place { terms: Box::new(terms.clone()), amended: Vec::new() };
        Ok(match &record.body {
            IntentBody::Place(terms) => vec![(0, place(terms))],
            IntentBody::Cancel(terms) => vec![(0, self.cancel(terms))],
            IntentBody::Amend(terms) => vec![(0, self.amend(record.seq, terms)?)],
            IntentBody::CancelReplace { cancel, place: terms } => vec![(0, self.cancel(cancel)), (1, place(terms))],
            IntentBody::List(list) if list.legs.len() > LEGS_MAX => {
                return Err(Refusal::OutsideLimits { limit: format!("a list has at most {LEGS_MAX} legs").into() });
            }
            IntentBody::List(list) => (0..).zip(&list.legs).map(|(part, leg)| (part, place(leg))).collect(),
            IntentBody::Result(_) | IntentBody::Heartbeat { .. } => Vec::new(),
        })
    }

    /// All of a record or nothing: a bot that is refused sends no part of it.
    fn admit(&mut self, record: &IntentRecord, parts: &[(u8, Announced)]) -> Result<(), Refusal> {
        let again: Vec<Option<IntentKey>> = parts.iter().map(|part| self.told_again(record, part)).collect();
        let mut ids = BTreeSet::new();
        for ((_, announced), again) in parts.iter().zip(&again) {
            let Some(id) = announced.own_id() else { continue };
            let holder = self.state.blotter.intent_by_client_id(id).map(|(holder, _)| holder);
            if !ids.insert(id) || holder.is_some() && holder != again.as_ref() {
                return Err(Refusal::IdInUse);
            }
        }
        if !self.state.blotter.make_room(parts.len()) {
            return Err(Refusal::Full { capacity: INTENTS_MAX });
        }
        let (Some(limits), Some(bot)) = (self.declared.bots.get(&record.bot), self.state.bots.state_mut(&record.bot))
        else {
            return Err(Refusal::UnknownBot);
        };
        let mut counted = 0;
        for ((_, announced), again) in parts.iter().zip(&again) {
            // An order told again was counted when it was told first.
            let (Announced::Place { terms, .. }, None) = (announced, again) else { continue };
            if let Err(limit) = bot.usage.announce(self.state.now.at, limits, &Size::from(&**terms)) {
                bot.usage.take_back(counted);
                return Err(Refusal::OutsideLimits { limit: limit.into() });
            }
            counted += 1;
        }
        again.into_iter().flatten().for_each(|before| self.state.blotter.revoke(&before));
        Ok(())
    }

    /// The earlier announcement that a record tells again under another number, if it is the same order and no order
    /// came of it: the bot had no answer, and sent it with the id of this record.
    fn told_again(&self, record: &IntentRecord, (part, announced): &(u8, Announced)) -> Option<IntentKey> {
        let key = (record.bot.clone(), record.supersedes?, *part);
        let before = self.state.blotter.intents.get(&key)?;
        let (Announced::Place { terms: said, .. }, Announced::Place { terms, .. }) = (&before.announced, announced)
        else {
            return None;
        };
        let renamed = OrderTerms { client_order_id: terms.client_order_id.clone(), ..(**said).clone() };
        let waits = matches!(before.settled(), Settled::No | Settled::Unseen | Settled::Unproven);
        let unused = self.state.blotter.holder(&said.client_order_id).is_none();
        (renamed == **terms && waits && unused).then_some(key)
    }

    fn cancel(&self, terms: &CancelTerms) -> Announced {
        let open = match terms.target {
            Target::All => {
                let of_symbol = self.state.blotter.orders_of(&terms.symbol);
                of_symbol.filter(|(_, order)| order.open).map(|((_, id), _)| *id).collect()
            }
            Target::Order(_) | Target::Client(_) => Vec::new(),
        };
        Announced::Cancel { terms: terms.clone(), open }
    }

    fn amend(&self, seq: u64, terms: &AmendTerms) -> Result<Announced, Refusal> {
        let (target, number) = match &terms.target {
            Target::Client(id) => (Some(id.clone()), None),
            Target::Order(id) => {
                let key = (terms.symbol.clone(), *id);
                let shown = self.state.blotter.orders.get(&key).map(|order| order.placed.client_order_id.clone());
                // Not shown yet: the bot may have said that the venue took it under this number.
                let accepted = || self.state.blotter.accepted_placement(&key)?.1.announced.own_id().cloned();
                (shown.or_else(accepted), Some(*id))
            }
            Target::All => (None, None),
        };
        let target = target.ok_or(Refusal::UnknownIntent { of: seq })?;
        if let Some((_, Intent { announced: Announced::Place { terms: said, amended }, .. })) =
            self.placed_as(&terms.symbol, &target, number)
        {
            let smaller = said.quantity.is_none_or(|quantity| terms.quantity < quantity);
            if !smaller || !terms.quantity.is_positive() {
                let limit = "an amendment can only make an order smaller".into();
                return Err(Refusal::OutsideLimits { limit });
            }
            if amended.len() >= AMENDMENTS_MAX {
                return Err(Refusal::Full { capacity: AMENDMENTS_MAX });
            }
        }
        Ok(Announced::Amend {
            symbol: terms.symbol.clone(),
            target,
            number,
            quantity: terms.quantity,
            client_order_id: terms.client_order_id.clone(),
        })
    }

    /// The announced order that an amendment is about. After an earlier amendment it goes by another id.
    fn placed_as(&self, symbol: &Symbol, target: &ClientId, number: Option<OrderId>) -> Option<(&IntentKey, &Intent)> {
        let blotter = &self.state.blotter;
        blotter.placement(target).or_else(|| {
            let numbered = number.map(|number| (symbol.clone(), number));
            let key = numbered.as_ref().or_else(|| blotter.order_of_client_id(symbol, target))?;
            self.placement_of(key, blotter.orders.get(key)?)
        })
    }

    fn register(&mut self, key: IntentKey, intent: Intent) {
        let announced = intent.announced.clone();
        if let Announced::Amend { symbol, target, number, quantity, .. } = &announced
            && let Some(placed) = self.placed_as(symbol, target, *number).map(|(key, _)| key.clone())
            && let Some(intent) = self.state.blotter.intents.get_mut(&placed)
            && let Announced::Place { terms, amended } = &mut intent.announced
        {
            amended.push(*quantity);
            let id = terms.client_order_id.clone();
            let read_amended = told_number(intent);
            self.rejudge_all_under(&id);
            read_amended.iter().for_each(|order| self.rejudge(order));
        }
        self.state.blotter.register(key.clone(), intent);
        let after = self.declared.waits.unseen_after;
        self.set_timer(after, Timer::Mirror(key));
        match &announced {
            Announced::Place { terms, .. } => self.rejudge_all_under(&terms.client_order_id),
            Announced::Cancel { .. } | Announced::Amend { .. } => self.rejudge_requests_of(&announced),
        }
    }

    /// What the venue answered the bot. A rejection closes the intent; an acceptance does not: the venue must show it.
    fn result(&mut self, bot: &Bot, result: &ResultOf) -> Result<(), Refusal> {
        let range = (bot.clone(), result.of, u8::MIN)..=(bot.clone(), result.of, u8::MAX);
        let keys: Vec<IntentKey> = self.state.blotter.intents.range(range).map(|(key, _)| key.clone()).collect();
        if keys.is_empty() {
            return Err(Refusal::UnknownIntent { of: result.of });
        }
        self.check_order_limit(&result.outcome);
        for key in keys {
            let Some(intent) = self.state.blotter.intents.get_mut(&key) else { continue };
            let accepted = match (&intent.announced, &result.outcome) {
                (Announced::Place { terms, .. }, SendOutcome::Accepted { order_id: Some(id) }) => {
                    Some((terms.symbol.clone(), *id))
                }
                (Announced::Place { .. } | Announced::Cancel { .. } | Announced::Amend { .. }, _) => None,
            };
            let news = intent.result.replace(result.outcome.clone()).as_ref() != Some(&result.outcome);
            match (&result.outcome, intent.settled()) {
                (SendOutcome::Rejected { .. } | SendOutcome::NotSent, Settled::No) => {
                    self.state.blotter.settle(&key, Settled::Rejected);
                }
                (SendOutcome::Rejected { .. } | SendOutcome::NotSent, Settled::Unseen | Settled::Unproven) => {
                    self.note_unseen(&key, "the bot says that it did not happen");
                    self.state.blotter.settle(&key, Settled::Rejected);
                }
                // It was told as unanswered; now the bot says that the venue took it.
                (SendOutcome::Accepted { .. }, Settled::Unseen) if news => self.tell_unseen(&key),
                (
                    SendOutcome::Accepted { .. }
                    | SendOutcome::Unknown
                    | SendOutcome::Rejected { .. }
                    | SendOutcome::NotSent,
                    _,
                ) => {}
            }
            // Another order may bear its id.
            let own_id = self.state.blotter.intents.get(&key).and_then(|intent| intent.announced.own_id()).cloned();
            own_id.iter().filter(|_| accepted.is_some()).for_each(|id| self.rejudge_all_under(id));
            // It may have been read under an id that nobody announced.
            if let Some(order) = accepted.filter(|order| self.state.blotter.orders.contains_key(order)) {
                self.rejudge(&order);
            }
        }
        Ok(())
    }

    fn egress(&mut self, record: &IntentRecord, egress: Option<std::net::IpAddr>) {
        let Some(address) = egress else { return };
        let Some(bot) = self.state.bots.state_mut(&record.bot) else { return };
        if bot.egress.replace(address) != Some(address) {
            self.check_address(&AccessEvidence {
                account: record.account.clone(),
                at: record.at,
                address,
                source: AccessSource::BotEgress,
                action: Some(format!("reported by {}", record.bot).into()),
            });
        }
    }

    pub(super) fn check_silence(&mut self, name: &Bot) {
        let (now, after) = (self.now(), self.declared.waits.silent_after);
        let Some(bot) = self.state.bots.state_mut(name) else { return };
        let heard_at = bot.heard_at.unwrap_or(now);
        if now.since(heard_at) < after {
            self.state.timers.insert((heard_at + after, Timer::Silence(name.clone())));
            return;
        }
        self.set_timer(after, Timer::Silence(name.clone()));
        let Some(bot) = self.state.bots.state_mut(name) else { return };
        if std::mem::replace(&mut bot.silent, true) {
            return;
        }
        let line = format!("{name} was last heard at {heard_at} UTC");
        let headline = "Your bot stopped talking to countersign";
        self.built_in("bot_silent", Cause::BotSilent, name.as_str(), Priority::Warning, headline, line, SILENT_ADVICE);
        self.rejudge_passed();
    }

    /// After a restart the bots get a full wait before they count as silent, and so do the intents.
    pub(super) fn restart_intents(&mut self) {
        let bots: Vec<Bot> = self.state.bots.iter().map(|(name, _)| name.clone()).collect();
        for name in bots {
            if self.state.bots.state(&name).is_some_and(|bot| bot.heard_at.is_some()) {
                self.state.timers.retain(|(_, timer)| *timer != Timer::Silence(name.clone()));
                let after = self.declared.waits.silent_after;
                self.set_timer(after, Timer::Silence(name));
            }
        }
    }
}
