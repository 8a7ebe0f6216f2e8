//! Intents: what the bots announce, inside their limits and in their sequence.

use crate::kernel::account::{Kernel, Timer};
use crate::kernel::blotter::{Announced, Intent, IntentKey, Settled};
use crate::kernel::bots::Turn;
use crate::kernel::event::{AccessEvidence, AccessSource, Effect, Ticket};
use crate::kernel::incident::Priority;
use crate::kernel::intent::{
    AmendTerms, CancelTerms, IntentBody, IntentRecord, IntentReply, OrderTerms, Refusal, Registered, ResultOf,
    SendOutcome, Target,
};
use crate::kernel::limits::Size;
use crate::kernel::order::{Bot, ClientId, Symbol};
use crate::kernel::rule::Cause;
use crate::kernel::time::Time;

const SILENT_ADVICE: &[&str] = &[
    "Look whether the bot runs, and whether it can reach countersign.",
    "Orders it places meanwhile cannot be told from a thief's: they will be reported as not your bot's.",
];

impl Kernel {
    pub(super) fn intent(&mut self, ticket: Ticket, record: IntentRecord) {
        let now = self.now();
        let Some(bot) = self.state.bots.state_mut(&record.bot) else {
            return self.reply(ticket, record.seq, 0, Err(Refusal::UnknownBot));
        };
        if let IntentBody::Heartbeat { egress } = record.body {
            return self.heartbeat(ticket, &record, egress);
        }
        let missing = match bot.turn(&record) {
            Turn::Next { missing } => missing,
            Turn::Repeat(answer) => return self.reply(ticket, record.seq, 0, answer),
            Turn::Refused(refusal) => return self.reply(ticket, record.seq, 0, Err(refusal)),
        };
        let first = bot.heard_at.is_none();
        let nonce = bot.hear(now, &record, missing);
        self.not_silent(&record.bot);
        self.state.counts.intents += 1;
        let answer = self.take_body(&record, nonce);
        if let Some(bot) = self.state.bots.state_mut(&record.bot) {
            if !matches!(record.body, IntentBody::Result(_)) && answer.is_ok() && !bot.connected {
                bot.connected = true;
                let after = self.declared.waits.silent_after;
                self.set_timer(after, Timer::Silence(record.bot.clone()));
                let line = format!("{} has announced its first intent", record.bot);
                self.state.book.end(now, Cause::Unconnected, "", line);
            }
        }
        let missing = if first { 0 } else { missing };
        self.rejudge_pending();
        self.reply(ticket, record.seq, missing, answer.clone());
        if let Some(bot) = self.state.bots.state_mut(&record.bot) {
            bot.remember(record, answer);
        }
    }

    /// A heartbeat takes no place in the sequence: its `seq` is the last one the bot used. If that record is here, then
    /// all are, and whatever the bot had to say before the nonce has been said.
    fn heartbeat(&mut self, ticket: Ticket, record: &IntentRecord, egress: Option<std::net::IpAddr>) {
        let now = self.now();
        let Some(bot) = self.state.bots.state_mut(&record.bot) else { return };
        bot.heard_at = Some(now);
        let missing = record.seq.saturating_sub(bot.last_seq);
        if missing == 0 {
            bot.watermark = bot.watermark.max(record.nonce.filter(|nonce| *nonce <= now));
        }
        self.not_silent(&record.bot);
        self.egress(record, egress);
        self.rejudge_pending();
        self.reply(ticket, record.seq, missing, Ok(Registered { client_order_ids: Vec::new() }));
    }

    fn not_silent(&mut self, name: &Bot) {
        let now = self.now();
        if let Some(bot) = self.state.bots.state_mut(name)
            && std::mem::take(&mut bot.silent)
        {
            self.state.book.end(now, Cause::BotSilent, name.as_str(), format!("{name} speaks again"));
        }
    }

    fn reply(&mut self, ticket: Ticket, seq: u64, missing: u64, answer: Result<Registered, Refusal>) {
        let heartbeat_wanted = self.heartbeat_wanted();
        let reply = IntentReply { seq, nonce: self.now(), heartbeat_wanted, missing, answer };
        self.effects.push(Effect::Reply { ticket, reply });
    }

    /// A verdict waits for the bots' word: a heartbeat is worth a record of its own.
    pub fn heartbeat_wanted(&self) -> bool {
        !self.state.pending.is_empty() || !self.state.pending_requests.is_empty()
    }

    fn take_body(&mut self, record: &IntentRecord, nonce: Option<Time>) -> Result<Registered, Refusal> {
        let key = |part| (record.bot.clone(), record.seq, part);
        let client_order_ids = match &record.body {
            IntentBody::Place(terms) => vec![self.place(record, key(0), terms, nonce)?],
            IntentBody::Cancel(terms) => self.cancel(key(0), terms, nonce)?.into_iter().collect(),
            IntentBody::Amend(terms) => self.amend(key(0), terms, nonce)?.into_iter().collect(),
            IntentBody::CancelReplace { cancel, place } => {
                let placed = self.place(record, key(1), place, nonce)?;
                let mut ids: Vec<ClientId> = self.cancel(key(0), cancel, nonce)?.into_iter().collect();
                ids.push(placed);
                ids
            }
            IntentBody::List(list) => {
                let mut ids = Vec::with_capacity(list.legs.len());
                for (part, leg) in (0_u8..).zip(&list.legs) {
                    ids.push(self.place(record, key(part), leg, nonce)?);
                }
                ids
            }
            IntentBody::Result(result) => {
                self.result(&record.bot, result)?;
                Vec::new()
            }
            IntentBody::Heartbeat { .. } => Vec::new(),
        };
        Ok(Registered { client_order_ids })
    }

    fn place(
        &mut self,
        record: &IntentRecord,
        key: IntentKey,
        terms: &OrderTerms,
        nonce: Option<Time>,
    ) -> Result<ClientId, Refusal> {
        let now = self.now();
        let told_again = record.supersedes.map(|seq| (record.bot.clone(), seq, key.2));
        let before = told_again.as_ref().and_then(|key| self.state.blotter.intents.get(key));
        let same_order = before.is_some_and(|before| match &before.announced {
            Announced::Place { terms: said, .. } => {
                OrderTerms { client_order_id: terms.client_order_id.clone(), ..said.clone() } == *terms
            }
            Announced::Cancel { .. } | Announced::Amend { .. } => false,
        });
        let id = terms.client_order_id.clone();
        let holder = self.state.blotter.intent_by_client_id(&id);
        if holder.as_ref().is_some_and(|holder| told_again.as_ref() != Some(holder)) {
            return Err(Refusal::IdInUse);
        }
        // An order told again was counted when it was told first.
        if !same_order
            && let (Some(limits), Some(bot)) =
                (self.declared.bots.get(&record.bot), self.state.bots.state_mut(&record.bot))
        {
            bot.usage
                .announce(now, limits, &Size::from(terms))
                .map_err(|limit| Refusal::OutsideLimits { limit: limit.into() })?;
        }
        if same_order
            && let Some(before) = told_again.and_then(|key| self.state.blotter.intents.get_mut(&key))
            && before.settled == Settled::No
        {
            before.settled = Settled::Rejected;
        }
        let announced = Announced::Place { terms: terms.clone(), amended: Vec::new() };
        self.register(key, announced, nonce, std::slice::from_ref(&id))?;
        self.rejudge_all_under(&id);
        Ok(id)
    }

    fn cancel(
        &mut self,
        key: IntentKey,
        terms: &CancelTerms,
        nonce: Option<Time>,
    ) -> Result<Option<ClientId>, Refusal> {
        let ids: Vec<ClientId> = terms.client_order_id.iter().cloned().collect();
        if ids.iter().any(|id| self.state.blotter.intent_by_client_id(id).is_some()) {
            return Err(Refusal::IdInUse);
        }
        let open = match terms.target {
            Target::All => self.open_ids(&terms.symbol),
            Target::Order(_) | Target::Client(_) => Vec::new(),
        };
        self.register(key, Announced::Cancel { terms: terms.clone(), open }, nonce, &ids)?;
        Ok(ids.into_iter().next())
    }

    /// A cancel-all races fills and fresh orders: what closed in the last moments counts as open too.
    fn open_ids(&self, symbol: &Symbol) -> Vec<crate::kernel::order::OrderId> {
        let moments = std::time::Duration::from_secs(10);
        let since = self.now() - moments;
        let of_symbol = self.state.blotter.orders.iter().filter(|((of, _), _)| of == symbol);
        of_symbol.filter(|(_, order)| order.open || order.first_seen >= since).map(|((_, id), _)| *id).collect()
    }

    fn amend(&mut self, key: IntentKey, terms: &AmendTerms, nonce: Option<Time>) -> Result<Option<ClientId>, Refusal> {
        let target = match &terms.target {
            Target::Client(id) => Some(id.clone()),
            Target::Order(id) => {
                let order = self.state.blotter.orders.get(&(terms.symbol.clone(), *id));
                order.map(|order| order.placed.client_order_id.clone())
            }
            Target::All => None,
        };
        let target = target.ok_or(Refusal::UnknownIntent { of: key.1 })?;
        if let Some(placement) = self.state.blotter.intent_by_client_id(&target)
            && let Some(Intent { announced: Announced::Place { amended, .. }, .. }) =
                self.state.blotter.intents.get_mut(&placement)
        {
            amended.push(terms.quantity);
        }
        let ids: Vec<ClientId> = terms.client_order_id.iter().cloned().collect();
        let announced = Announced::Amend {
            symbol: terms.symbol.clone(),
            target: target.clone(),
            quantity: terms.quantity,
            client_order_id: terms.client_order_id.clone(),
        };
        self.register(key, announced, nonce, &ids)?;
        self.rejudge_all_under(&target);
        Ok(ids.into_iter().next())
    }

    fn register(
        &mut self,
        key: IntentKey,
        announced: Announced,
        nonce: Option<Time>,
        ids: &[ClientId],
    ) -> Result<(), Refusal> {
        let intent = Intent {
            received_at: self.now(),
            nonce,
            announced,
            result: None,
            settled: Settled::No,
            missing_reads: 0,
            failed_reads: 0,
        };
        if !self.state.blotter.register(key.clone(), intent, ids) {
            return Err(Refusal::Full { capacity: crate::kernel::blotter::INTENTS_MAX });
        }
        let after = self.declared.waits.unseen_after;
        self.set_timer(after, Timer::Mirror(key));
        Ok(())
    }

    /// What the venue answered the bot. A rejection closes the intent; an acceptance does not: the venue must show it.
    fn result(&mut self, bot: &Bot, result: &ResultOf) -> Result<(), Refusal> {
        let range = (bot.clone(), result.of, u8::MIN)..=(bot.clone(), result.of, u8::MAX);
        let keys: Vec<IntentKey> = self.state.blotter.intents.range(range).map(|(key, _)| key.clone()).collect();
        if keys.is_empty() {
            return Err(Refusal::UnknownIntent { of: result.of });
        }
        for key in keys {
            let Some(intent) = self.state.blotter.intents.get_mut(&key) else { continue };
            intent.result = Some(result.outcome.clone());
            match (&result.outcome, intent.settled) {
                (SendOutcome::Rejected { .. } | SendOutcome::NotSent, Settled::No) => {
                    intent.settled = Settled::Rejected;
                }
                // It was told as unanswered; now the bot says that the venue took it.
                (SendOutcome::Accepted { .. }, Settled::Unseen) => self.tell_unseen(&key),
                (
                    SendOutcome::Accepted { .. }
                    | SendOutcome::Unknown
                    | SendOutcome::Rejected { .. }
                    | SendOutcome::NotSent,
                    _,
                ) => {}
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
        self.rejudge_pending();
    }

    /// After a restart the bots get a full wait before they count as silent, and so do the intents.
    pub(super) fn restart_intents(&mut self) {
        let now = self.now();
        let bots: Vec<Bot> = self.state.bots.iter().map(|(name, _)| name.clone()).collect();
        for name in bots {
            if let Some(bot) = self.state.bots.state_mut(&name)
                && bot.connected
            {
                bot.heard_at = Some(now);
                self.state.timers.retain(|(_, timer)| *timer != Timer::Silence(name.clone()));
                let after = self.declared.waits.silent_after;
                self.set_timer(after, Timer::Silence(name));
            }
        }
    }
}
