//! A record on the wire: one JSON object is read into a checked intent, or refused with a sentence that names the
//! field. Everything unknown is refused.
//!
//! Times are milliseconds since the epoch, decimals and nonces are strings. A nonce is the text of our latest reply
//! that the bot has read, handed back as it was.
//!
//! Invariant: an id that is issued here is a function of the record alone (its own time, bot and sequence, and the
//! terms), so that the same record told twice carries the same id. The bot's clock is in the id, so it must be near
//! ours when an id is asked for.

mod error;
mod fields;
mod json;
mod order;
pub mod reply;

use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::inlet::wire::fields::Fields;
use crate::inlet::wire::order::{contingency, order};
use crate::kernel::event::{AccessEvidence, AccessSource};
use crate::kernel::intent::{
    AmendTerms, CancelTerms, IntentBody, IntentRecord, ListTerms, OrderTerms, ResultOf, SendOutcome, Target,
};
use crate::kernel::order::{Account, Bot, ClientId, Symbol};
use crate::kernel::time::Time;
use crate::tag::TagKeys;
use crate::tag::layout::{IdPrefix, Stamp};

pub use crate::inlet::wire::error::{ErrorCode, WireError};

/// A line or body longer than this is not read.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

const VERSION: i64 = 1;
const MESSAGE_LENGTH_MAX: usize = 256;
const ACTION_LENGTH_MAX: usize = 128;
const LEGS_MAX: usize = 3;
const ADDRESS_LENGTH_MAX: usize = 45;
/// The venue takes an id's time within 30 s of the order's creation; the rest is for the way there.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Intent(Box<IntentRecord>),
    /// The bot starts, and asks where its sequence stands.
    Hello {
        account: Account,
        bot: Bot,
    },
}

impl Said {
    pub fn bot(&self) -> &Bot {
        match self {
            Self::Intent(record) => &record.bot,
            Self::Hello { bot, .. } => bot,
        }
    }

    pub fn seq(&self) -> Option<u64> {
        match self {
            Self::Intent(record) => Some(record.seq),
            Self::Hello { .. } => None,
        }
    }
}

/// Reads one record of the account whose keys these are; ids that it does not bring are issued.
pub fn read(line: &[u8], keys: &TagKeys, now: Time) -> Result<Said, WireError> {
    let fields = Fields::read(line)?;
    let seq = fields.peek_seq();
    read_fields(fields, keys, now).map_err(|error| error.of(seq))
}

fn read_fields(mut fields: Fields, keys: &TagKeys, now: Time) -> Result<Said, WireError> {
    version(&mut fields)?;
    let account = account(&mut fields)?;
    if account != *keys.account() {
        return Err(WireError::new(
            ErrorCode::WrongAccount,
            &format!("account {account:.40} is not watched here"),
            &format!("this intake is of account {}", keys.account()),
        ));
    }
    let bot = Bot::new(&fields.name("bot")?.ok_or_else(|| fields.missing("bot"))?);
    let kind = fields.name("kind")?.ok_or_else(|| fields.missing("kind"))?;
    if &*kind == "hello" {
        fields.finish("kind hello")?;
        return Ok(Said::Hello { account, bot });
    }
    // A heartbeat names the last record, and there may be none yet.
    let least = u64::from(&*kind != "heartbeat");
    let seq = fields.sequence("seq", least)?.ok_or_else(|| fields.missing("seq"))?;
    let at = fields.time("at")?;
    let desk = Desk { keys, now, at, bot: &bot, seq, prefix: id_prefix(&mut fields, keys)? };
    let record = IntentRecord {
        account,
        seq,
        at,
        nonce: nonce(&mut fields)?,
        supersedes: fields.sequence("supersedes", 1)?,
        strategy: fields.name("strategy")?,
        owner: fields.name("owner")?,
        body: body(&mut fields, &kind, &desk)?,
        bot,
    };
    if record.supersedes.is_some_and(|earlier| earlier >= seq) {
        return Err(fields.bad("supersedes", "is not below seq", "name the earlier record that this one tells again"));
    }
    fields.finish(&format!("kind {kind}"))?;
    Ok(Said::Intent(Box::new(record)))
}

/// One row of address evidence. A bot's own word for its address comes with its heartbeats, never this way.
pub fn read_access(line: &[u8]) -> Result<AccessEvidence, WireError> {
    let mut fields = Fields::read(line)?;
    version(&mut fields)?;
    let source = fields.name("source")?.ok_or_else(|| fields.missing("source"))?;
    let source = match &*source {
        "venue" => AccessSource::Venue,
        "mail" => AccessSource::Mail,
        "host" => AccessSource::Host,
        _ => {
            return Err(fields.bad(
                "source",
                &format!("is {source:?}, which is none of its words"),
                "venue, mail or host; a bot's own address comes with its heartbeats",
            ));
        }
    };
    let evidence = AccessEvidence {
        account: account(&mut fields)?,
        at: fields.time("at")?,
        address: address(&mut fields, "address")?.ok_or_else(|| fields.missing("address"))?,
        source,
        action: fields.free_text("action", ACTION_LENGTH_MAX)?,
    };
    fields.finish("address evidence")?;
    Ok(evidence)
}

fn version(fields: &mut Fields) -> Result<(), WireError> {
    match fields.integer("v")? {
        Some(VERSION) => Ok(()),
        Some(_) => Err(fields.bad("v", "is not a version we read", "this is version 1")),
        None => Err(fields.missing("v")),
    }
}

fn account(fields: &mut Fields) -> Result<Account, WireError> {
    Ok(Account::new(&fields.name("account")?.ok_or_else(|| fields.missing("account"))?))
}

fn nonce(fields: &mut Fields) -> Result<Option<Time>, WireError> {
    let Some(text) = fields.name("nonce")? else { return Ok(None) };
    match text.parse::<u64>().ok().and_then(|micros| i64::try_from(micros).ok()) {
        Some(micros) => Ok(Some(Time::from_micros(micros))),
        None => Err(WireError::new(
            ErrorCode::BadNonce,
            "nonce is not one of ours",
            "hand back the nonce of the latest reply as it was, a string of digits",
        )),
    }
}

fn id_prefix(fields: &mut Fields, keys: &TagKeys) -> Result<Option<IdPrefix>, WireError> {
    let Some(text) = fields.name("id_prefix")? else { return Ok(None) };
    match keys.prefixes().iter().find(|known| *known.as_str() == *text) {
        Some(prefix) => Ok(Some(prefix.clone())),
        None => {
            Err(fields.bad("id_prefix", "is not one of this account's", "add it to id_prefixes in countersign.toml"))
        }
    }
}

fn body(fields: &mut Fields, kind: &str, desk: &Desk<'_>) -> Result<IntentBody, WireError> {
    match kind {
        "place" => Ok(IntentBody::Place(place(fields, desk)?)),
        "cancel" => {
            let symbol = Symbol::new(&fields.symbol()?);
            Ok(IntentBody::Cancel(cancel(fields, symbol, desk)?))
        }
        "amend" => Ok(IntentBody::Amend(amend(fields)?)),
        "cancel_replace" => cancel_replace(fields, desk),
        "list" => Ok(IntentBody::List(list(fields, desk)?)),
        "result" => Ok(IntentBody::Result(result(fields)?)),
        "heartbeat" => Ok(IntentBody::Heartbeat { egress: address(fields, "egress")? }),
        _ => Err(fields.bad(
            "kind",
            &format!("{kind:?} is unknown"),
            "place, cancel, amend, cancel_replace, list, result, heartbeat or hello",
        )),
    }
}

fn place(fields: &mut Fields, desk: &Desk<'_>) -> Result<OrderTerms, WireError> {
    let symbol = Symbol::new(&fields.symbol()?);
    let (given, terms) = order(fields, symbol)?;
    desk.with_id(fields, given, terms, 0)
}

fn cancel(fields: &mut Fields, symbol: Symbol, desk: &Desk<'_>) -> Result<CancelTerms, WireError> {
    let target = target(fields)?;
    let given = fields.client_id("client_order_id")?;
    if target == Target::All && given.is_some() {
        return Err(fields.bad("client_order_id", "does not go with all", "the venue makes up that id itself"));
    }
    let client_order_id = match given {
        None if target != Target::All => {
            desk.keys.issue_cancel(desk.stamp(fields, 0)?, desk.prefix.as_ref(), &symbol, &target)
        }
        given => given,
    };
    Ok(CancelTerms { symbol, target, client_order_id })
}

fn target(fields: &mut Fields) -> Result<Target, WireError> {
    let order = fields.order_id("order_id")?;
    let client = fields.client_id("orig_client_order_id")?;
    match (order, client, fields.yes("all")?) {
        (Some(id), None, false) => Ok(Target::Order(id)),
        (None, Some(id), false) => Ok(Target::Client(id)),
        (None, None, true) => Ok(Target::All),
        _ => Err(fields.bad(
            "order_id",
            "or another target: exactly one of order_id, orig_client_order_id and all is needed",
            "name the order the way the cancel itself names it",
        )),
    }
}

/// An amendment's id is the bot's own or the venue's: the MAC of the order does not fit the amended order.
fn amend(fields: &mut Fields) -> Result<AmendTerms, WireError> {
    let symbol = Symbol::new(&fields.symbol()?);
    let target = target(fields)?;
    if target == Target::All {
        return Err(fields.bad("all", "does not go with amend", "name one order"));
    }
    let client_order_id = fields.client_id("client_order_id")?;
    let quantity = fields.decimal("quantity")?.ok_or_else(|| fields.missing("quantity"))?;
    Ok(AmendTerms { symbol, target, client_order_id, quantity })
}

fn cancel_replace(fields: &mut Fields, desk: &Desk<'_>) -> Result<IntentBody, WireError> {
    let symbol = Symbol::new(&fields.symbol()?);
    let mut first = fields.object("cancel")?.ok_or_else(|| fields.missing("cancel"))?;
    let cancel = cancel(&mut first, symbol.clone(), desk)?;
    if cancel.target == Target::All {
        return Err(first.bad("all", "does not go with cancel_replace", "name one order"));
    }
    first.finish("the cancel of a cancel_replace")?;
    let mut second = fields.object("place")?.ok_or_else(|| fields.missing("place"))?;
    let (given, terms) = order(&mut second, symbol)?;
    let place = desk.with_id(&second, given, terms, 0)?;
    second.finish("the order of a cancel_replace")?;
    Ok(IntentBody::CancelReplace { cancel, place })
}

fn list(fields: &mut Fields, desk: &Desk<'_>) -> Result<ListTerms, WireError> {
    let symbol = Symbol::new(&fields.symbol()?);
    let client_order_id = fields.client_id("client_order_id")?.ok_or_else(|| fields.missing("client_order_id"))?;
    let contingency = contingency(fields)?;
    let wanted = if &*contingency == "OTOCO" { LEGS_MAX } else { 2 };
    let legs = fields.objects("legs")?;
    if legs.len() != wanted {
        return Err(fields.bad("legs", &format!("are {}, {contingency} has {wanted}", legs.len()), "tell each leg"));
    }
    let leg = |(mut leg, index): (Fields, u64)| {
        let (given, terms) = order(&mut leg, symbol.clone())?;
        let terms = desk.with_id(&leg, given, terms, index)?;
        leg.finish("a leg").map(|()| terms)
    };
    let legs = legs.into_iter().zip(0u64..).map(leg).collect::<Result<_, WireError>>()?;
    Ok(ListTerms { client_order_id, contingency, legs })
}

fn result(fields: &mut Fields) -> Result<ResultOf, WireError> {
    let of = fields.sequence("of", 1)?.ok_or_else(|| fields.missing("of"))?;
    let outcome = fields.name("outcome")?.ok_or_else(|| fields.missing("outcome"))?;
    let outcome = match &*outcome {
        "accepted" => SendOutcome::Accepted { order_id: fields.order_id("order_id")? },
        "rejected" => SendOutcome::Rejected {
            code: fields.integer("code")?,
            message: fields.free_text("message", MESSAGE_LENGTH_MAX)?.unwrap_or_default(),
        },
        "not_sent" => SendOutcome::NotSent,
        "unknown" => SendOutcome::Unknown,
        _ => return Err(fields.bad("outcome", "is unknown", "accepted, rejected, not_sent or unknown")),
    };
    Ok(ResultOf { of, outcome })
}

fn address(fields: &mut Fields, name: &str) -> Result<Option<IpAddr>, WireError> {
    let Some(text) = fields.text(name, ADDRESS_LENGTH_MAX)? else { return Ok(None) };
    match text.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(fields.bad(name, "is not an IP address", "like 203.0.113.7 or 2001:db8::7, no port, no mask")),
    }
}

/// Where ids are issued for one record.
struct Desk<'a> {
    keys: &'a TagKeys,
    now: Time,
    at: Time,
    bot: &'a Bot,
    seq: u64,
    prefix: Option<IdPrefix>,
}

impl Desk<'_> {
    fn with_id(
        &self,
        fields: &Fields,
        given: Option<ClientId>,
        terms: OrderTerms,
        index: u64,
    ) -> Result<OrderTerms, WireError> {
        if given.is_some() {
            return match self.prefix {
                None => Ok(terms),
                Some(_) => Err(fields.bad("id_prefix", "goes with an id that we issue", "leave out one of the two")),
            };
        }
        let client_order_id = self.keys.issue_order(self.stamp(fields, index)?, self.prefix.as_ref(), &terms);
        Ok(OrderTerms { client_order_id, ..terms })
    }

    fn stamp(&self, fields: &Fields, index: u64) -> Result<Stamp, WireError> {
        if self.at.apart(self.now) > CLOCK_SKEW_MAX {
            return Err(WireError::new(
                ErrorCode::ClockSkew,
                &format!("at is {:.1} s away from our clock, too far for an id", self.at.apart(self.now).as_secs_f32()),
                "set the bot's clock (NTP), and ask for an id just before the order is sent",
            ));
        }
        Stamp::new(self.at, counter(self.bot, self.seq).wrapping_add(index))
            .ok_or_else(|| fields.bad("at", "cannot stand in an id", "ids carry times from 2020 to 2107"))
    }
}

/// One bot's ids differ by its sequence; two bots that count alike differ by where they start.
fn counter(bot: &Bot, seq: u64) -> u64 {
    let digest = Sha256::digest(bot.as_str().as_bytes());
    seq.wrapping_add(u64::from(u16::from_be_bytes([digest[0], digest[1]])))
}

#[cfg(test)]
mod tests;
