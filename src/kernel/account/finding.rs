//! From a verdict to the incident book: the facts of a finding, the line a person reads, and the built-in findings
//! that no rule file can take away.

use crate::kernel::account::{Kernel, State};
use crate::kernel::blotter::OrderKey;
use crate::kernel::book::Entry;
use crate::kernel::declared::Declared;
use crate::kernel::event::{AccessEvidence, AccessSource, Answer, Effect, TagCheck, Ticket};
use crate::kernel::exception::{Claim, Exception, Quieting, pack_key};
use crate::kernel::incident::{IncidentId, Priority};
use crate::kernel::limits::{Size, admit, quote_asset};
use crate::kernel::money::Dec;
use crate::kernel::order::{Asset, OrderType, Side, Symbol};
use crate::kernel::rule::{Cause, Facts, Field, Response, RuleSet, Ruling, Subject};
use crate::kernel::stopping::Stopping;
use crate::kernel::verdict::{Placed, Verdict};

/// Foreign addresses remembered. At the limit the oldest is forgotten, and would be told again.
const ADDRESSES_MAX: usize = 1_000;
const ADDRESS_AGAIN_AFTER: std::time::Duration = std::time::Duration::from_secs(86_400);

const STRANGER_ADVICE: &[&str] = &[
    "Delete the exchange API key now: Binance, API Management. Orders already open stay open: cancel those that are not yours.",
    "Stop the bot until it has a new key.",
    "If you do not know how the key leaked, change password and 2FA, and look at withdrawals and transfers.",
];
/// Where countersign has the means to do the first two of these itself.
const STOPPABLE_ADVICE: &[&str] = &[
    "Stop it: `countersign kill` with this account's name. `--plan` shows the steps, and does nothing.",
    "Not sure? `countersign freeze` takes the keys' rights, and `resume` gives them back.",
    "If you do not know how the key leaked, change password and 2FA, and look at withdrawals and transfers.",
];
pub(super) const STRANGER_LIMITS: &[&str] = &["The exchange does not say which key or address placed an order."];

/// One thing to tell, before the rules have spoken.
pub(super) struct Finding<'a> {
    pub facts: Facts,
    pub scope: &'a str,
    pub line: String,
    pub certainty: String,
    /// The money it is about by now, where it can be told: what an exception's bound is held against.
    pub at_stake: Option<Dec>,
    pub order: Option<OrderKey>,
}

impl Kernel {
    /// Tells it as the rules say. Returns the incidents it is now part of.
    pub(super) fn find(&mut self, finding: Finding<'_>) -> Vec<IncidentId> {
        let (now, seq) = self.moment();
        let Heard { rulings, past_bound } = hear(&self.rules, &self.declared, &mut self.state, &finding);
        let can_kill = self.declared.stopping.as_ref().is_some_and(Stopping::can_kill);
        let stranger_advice = if can_kill { STOPPABLE_ADVICE } else { STRANGER_ADVICE };
        let mut told: Vec<Cause> = Vec::new();
        let mut incidents = Vec::new();
        let others: Vec<&str> = rulings.iter().skip(1).map(|ruling| ruling.rule).collect();
        for ruling in &rulings {
            if told.contains(&ruling.cause) {
                continue;
            }
            told.push(ruling.cause);
            let mut line = finding.line.clone();
            if !others.is_empty() && told.len() == 1 {
                line = format!("{line} [also {}]", others.join(", "));
            }
            for name in &past_bound {
                line = format!("{line} [past the bound of exception {name}]");
            }
            let order = finding.order.as_ref().and_then(|key| {
                let order = self.state.blotter.orders.get(key)?;
                Some((key.clone(), money_asset(&key.0), order.exposure()))
            });
            let stranger = matches!(ruling.cause, Cause::Stranger | Cause::Unconnected);
            let entry = Entry {
                ruling: ruling.clone(),
                scope: finding.scope,
                line,
                certainty: finding.certainty.clone(),
                advice: if stranger { stranger_advice } else { &[] },
                limits_of_sight: if stranger { STRANGER_LIMITS } else { &[] },
                order,
            };
            incidents.push(self.state.book.record(now, seq, &self.declared.account, entry));
        }
        // One finding asks for one thing: the most that any of its rules does.
        let response = rulings.iter().map(|ruling| ruling.response).max();
        if let (Some(response), Some(incident)) = (response, incidents.first()) {
            self.respond(response, *incident, finding.order.as_ref());
        }
        incidents
    }

    /// A finding that stands in no rule file: blind, a broken journal, a refused key and the like.
    #[expect(clippy::too_many_arguments, reason = "each is one thing the owner reads; a struct would name them twice")]
    pub(super) fn built_in(
        &mut self,
        rule: &str,
        cause: Cause,
        scope: &str,
        priority: Priority,
        headline: &str,
        line: String,
        advice: &[&str],
    ) -> IncidentId {
        let (now, seq) = self.moment();
        let entry = Entry {
            ruling: Ruling { rule, headline, priority, cause, response: Response::Notify },
            scope,
            line,
            certainty: String::new(),
            advice,
            limits_of_sight: &[],
            order: None,
        };
        self.state.book.record(now, seq, &self.declared.account, entry)
    }

    pub(super) fn order_facts(&self, subject: Subject, verdict: Verdict, placed: &Placed, notional: Dec) -> Facts {
        let yes_no = |yes: bool| if yes { "yes" } else { "no" };
        let mut facts = Facts { notional: Some(notional), ..Facts::default() }
            .with(Field::Subject, subject.word())
            .with(Field::Verdict, verdict.word())
            .with(Field::Symbol, placed.symbol.as_str())
            .with(Field::SymbolTraded, yes_no(self.trades(&placed.symbol)))
            .with(Field::Side, placed.side.word())
            .with(Field::OrderType, placed.order_type.word())
            .with(Field::InsideLimits, yes_no(self.inside_limits(placed)))
            .with(Field::BotConnected, yes_no(self.state.bots.any_connected()));
        if let Some(asset) = quote_asset(&placed.symbol) {
            facts = facts.with(Field::QuoteAsset, asset.as_str());
        }
        facts
    }

    fn trades(&self, symbol: &Symbol) -> bool {
        self.declared.bots.values().any(|limits| limits.symbols.contains_key(symbol))
    }

    /// Whether some bot might have placed it, as far as a single order tells.
    pub(super) fn inside_limits(&self, placed: &Placed) -> bool {
        self.declared.bots.values().any(|limits| admit(limits, &Size::from(placed)).is_ok())
    }

    /// How sure we are that an order is a stranger's, and why.
    pub(super) fn certainty(&self, verdict: Verdict, tag: TagCheck, inside: bool) -> String {
        let missing = self.state.bots.iter().fold(0, |sum: u64, (_, bot)| sum.saturating_add(bot.missing));
        let silent = self.state.bots.iter().filter(|(_, bot)| bot.silent).count();
        let mut reason = match (verdict, tag) {
            (Verdict::Foreign, TagCheck::Absent) if self.declared.tagged_only => {
                "Certain: every order of this account must carry a countersign, and this one has none.".to_owned()
            }
            (Verdict::Foreign, _) if !inside => {
                "No bot of yours announced it, and none could have: it lies outside the limits of every one.".to_owned()
            }
            (Verdict::Foreign, _) if self.state.bots.any_connected() => {
                "No bot of yours announced it, though each was heard after it or waited for to the limit.".to_owned()
            }
            (Verdict::Foreign, _) => {
                "No bot has spoken to countersign yet: it may be your own bot's or your own.".to_owned()
            }
            (Verdict::Replayed, _) => {
                "Certain: the exchange shows two orders under one id; your bot announced one.".to_owned()
            }
            (Verdict::Divergent, _) => "Certain: the exchange shows other terms than your bot announced.".to_owned(),
            (Verdict::Forged, _) => "Certain: the tag in its id does not verify under your key.".to_owned(),
            (Verdict::Unissued, _) => {
                "Certain: its tag verifies, but countersign never issued it. Someone holds the tag key.".to_owned()
            }
            (Verdict::Unlogged, _) => {
                "Its tag is your bot's, but your bot never announced it: its log or its key is in other hands."
                    .to_owned()
            }
            (
                Verdict::Pending
                | Verdict::Matched
                | Verdict::ExchangeGenerated
                | Verdict::PreExisting
                | Verdict::DeclaredManual
                | Verdict::Unproven,
                _,
            ) => "It cannot be explained by what the exchange shows.".to_owned(),
        };
        if missing > 0 {
            reason.push_str(&format!(" {missing} records of your bots never arrived here; one may have been its."));
        }
        if silent > 0 {
            reason.push_str(" A bot of yours has gone silent.");
        }
        reason
    }

    pub(super) fn access(&mut self, ticket: Ticket, evidence: &AccessEvidence) {
        self.check_address(evidence);
        self.effects.push(Effect::Answer { ticket, answer: Answer::Done });
    }

    pub(super) fn check_address(&mut self, evidence: &AccessEvidence) {
        let address = evidence.address;
        if self.is_familiar(address) {
            return;
        }
        let now = self.now();
        match evidence.source {
            AccessSource::Venue | AccessSource::Mail => {
                self.signs_of_master(evidence.at, &format!("{address}, unfamiliar, at {} UTC", evidence.at));
            }
            // They tell of what left a host of the owner's, with a key and not with a password.
            AccessSource::Host | AccessSource::BotEgress => {}
        }
        if self.state.addresses.get(&address).is_some_and(|told| now.since(*told) < ADDRESS_AGAIN_AFTER) {
            return;
        }
        if self.state.addresses.len() >= ADDRESSES_MAX
            && let Some(oldest) = self.state.addresses.iter().min_by_key(|(_, told)| **told).map(|(old, _)| *old)
        {
            self.state.addresses.remove(&oldest);
        }
        self.state.addresses.insert(address, now);
        let (source, proves) = match evidence.source {
            AccessSource::Venue => ("venue", "The exchange's own record shows it: this address reached the account."),
            AccessSource::Mail => ("mail", "A mail from the exchange names it; a mail shows log-ins, not API calls."),
            AccessSource::Host => ("host", "A log of your own host shows it: it proves what left that host only."),
            AccessSource::BotEgress => (
                "bot_egress",
                "The bot itself reports it: its own way out changed, or its host is not the one you know.",
            ),
        };
        let action = evidence.action.as_deref().map(|action| format!(" ({action})")).unwrap_or_default();
        self.find(Finding {
            facts: Facts::default().with(Field::Subject, Subject::Address.word()).with(Field::AddressSource, source),
            scope: "",
            line: format!("{address} at {} UTC{action}", evidence.at),
            certainty: format!("{proves} Binance shows no address for API calls."),
            at_stake: None,
            order: None,
        });
    }

    pub(super) fn acknowledge(&mut self, ticket: Ticket, by: &str, incident: IncidentId, shown: Option<u64>) {
        let now = self.now();
        let answer = match self.state.book.acknowledge(now, incident, by, shown) {
            Ok(()) => Answer::Done,
            Err(reason) => Answer::Refused { reason: reason.into() },
        };
        self.effects.push(Effect::Answer { ticket, answer });
    }
}

/// What is to be told of a finding after the exceptions.
struct Heard<'a> {
    rulings: Vec<Ruling<'a>>,
    /// The exceptions that mean it and would have quieted less money.
    past_bound: Vec<&'a str>,
}

/// Asks the rules, each with its own exceptions, then the owner's exceptions: these alone can quiet the floor.
fn hear<'a>(rules: &'a RuleSet, declared: &'a Declared, state: &mut State, finding: &Finding<'_>) -> Heard<'a> {
    let State { now, book, uses, blotter, .. } = state;
    let order = finding.order.as_ref();
    let is_open = |key: &OrderKey| blotter.orders.get(key).is_some_and(|order| order.open);
    let room = order.is_none_or(|order| uses.make_room_for(order, is_open));
    // An order that was quiet and has grown is not one more event.
    let again = order.is_some_and(|order| uses.follows(order));
    let claim = Claim { now: now.at, facts: &finding.facts, at_stake: finding.at_stake, order };
    let mut past_bound = Vec::new();
    let mut quiets = |key: &str, exception: &'a Exception| {
        let quieting = if room { uses.quiet(key, exception, &claim) } else { Quieting::NotMeant };
        if quieting == Quieting::PastBound && !past_bound.contains(&&*exception.name) {
            past_bound.push(&*exception.name);
        }
        quieting == Quieting::Quieted
    };
    let mut rulings = rules.rulings(
        &finding.facts,
        |rule, window| !again && book.count(now.at, &rule.name, window),
        |rule| {
            let mut exceptions = rules.exceptions_of(&rule.name).iter();
            exceptions.any(|exception| quiets(&pack_key(&rule.name, &exception.name), exception))
        },
    );
    rulings.retain(|ruling| {
        let mut local = declared.exceptions.iter().filter(|local| *local.rule == *ruling.rule);
        !local.any(|local| quiets(&local.exception.name, &local.exception))
    });
    if let Some(order) = order {
        if rulings.is_empty() {
            uses.follow(order, finding.at_stake.unwrap_or(Dec::ZERO));
        } else {
            uses.forget(order);
        }
    }
    Heard { rulings, past_bound }
}

/// The asset an incident's money is counted in. A symbol whose quote asset is not known counts in a unit of its own.
pub(super) fn money_asset(symbol: &Symbol) -> Asset {
    quote_asset(symbol).unwrap_or_else(|| Asset::new(&format!("quote of {symbol}")))
}

/// An order in one line: `SELL 1200 VIABTC LIMIT at 0.000026 (order 77, id web_1)`.
pub(super) fn describe(key: &OrderKey, placed: &Placed) -> String {
    let side = match placed.side {
        Side::Buy => "BUY",
        Side::Sell => "SELL",
    };
    let size = if placed.quote_quantity.is_positive() {
        format!("for {} {}", placed.quote_quantity, money_asset(&key.0))
    } else {
        placed.quantity.to_string()
    };
    let price = match placed.order_type {
        OrderType::Market => String::new(),
        OrderType::Limit | OrderType::LimitMaker => format!(" at {}", placed.price),
        OrderType::StopLoss | OrderType::TakeProfit => format!(" at stop {}", placed.stop_price),
        OrderType::StopLossLimit | OrderType::TakeProfitLimit => {
            format!(" at {} after stop {}", placed.price, placed.stop_price)
        }
    };
    let id: String = placed.client_order_id.as_str().chars().take(40).collect();
    format!("{side} {size} {} {}{price} (order {}, id {id})", key.0, placed.order_type, key.1)
}
