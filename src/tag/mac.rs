//! What a countersign is computed over: a domain, then every bound field with its length before it.
//!
//! Invariant: an order's form holds only what its request and its reports show with the same meaning. The table:
//!
//! | field | bound for |
//! |---|---|
//! | head, stamp, prefix, account, market, symbol, side, type, strategy id | every order |
//! | time in force | LIMIT, STOP_LOSS_LIMIT, TAKE_PROFIT_LIMIT (the other types report GTC whatever was sent) |
//! | quantity | every order that is not sized by quote |
//! | quote quantity | MARKET sized by quote (its reported quantity is made by the venue) |
//! | price | LIMIT, LIMIT_MAKER, STOP_LOSS_LIMIT, TAKE_PROFIT_LIMIT, unless pegged |
//! | iceberg quantity, peg | the same four types |
//! | stop price, trailing delta | STOP_LOSS, STOP_LOSS_LIMIT, TAKE_PROFIT, TAKE_PROFIT_LIMIT |
//! | self-trade prevention | only where the bot set it (the venue reports its default otherwise) |
//!
//! A field that is not bound, not set or zero is empty. Decimals are canonical, so 1.0 and 1.00 are one.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;

use crate::kernel::event::{Issuer, OrderSnapshot};
use crate::kernel::intent::OrderTerms;
use crate::kernel::money::Dec;
use crate::kernel::order::{Account, Bot, ClientId, OrderId, OrderType, Side, StpMode, Symbol, TimeInForce};
use crate::kernel::report::{ExecutionReport, Peg};
use crate::tag::layout::{KeyId, Stamp};

const ORDER_DOMAIN: &[u8] = b"countersign/order/v1";
const CANCEL_DOMAIN: &[u8] = b"countersign/cancel/v1";
const KEY_DOMAIN: &[u8] = b"countersign/key/v1";
const SECRET_LENGTH_MIN: usize = 16;

/// Who computes ids with a key: each has a secret of its own, so that none can speak for another.
#[derive(Clone, Copy, Debug)]
pub enum KeyOwner<'a> {
    Daemon,
    Bot(&'a Bot),
}

/// One key of one account and issuer. It is wiped when dropped and cannot be printed.
pub struct TagKey {
    pub(super) id: KeyId,
    pub(super) issuer: Issuer,
    key: SecretBox<[u8; 32]>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tag secret has at least {SECRET_LENGTH_MIN} bytes, this one has {0}; make one with `openssl rand -hex 32`")]
pub struct SecretTooShort(usize);

impl TagKey {
    /// HKDF-SHA-256 of the secret over (domain, account, owner, key id), each with its length.
    pub fn derive(secret: &[u8], account: &Account, owner: KeyOwner<'_>, id: KeyId) -> Result<Self, SecretTooShort> {
        if secret.len() < SECRET_LENGTH_MIN {
            return Err(SecretTooShort(secret.len()));
        }
        let (issuer, owner) = match owner {
            KeyOwner::Daemon => (Issuer::Daemon, "daemon".to_owned()),
            KeyOwner::Bot(bot) => (Issuer::Bot, format!("bot/{bot}")),
        };
        let mut form = Vec::new();
        for field in [KEY_DOMAIN, account.as_str().as_bytes(), owner.as_bytes(), &[id.number()]] {
            form.extend_from_slice(&length(field));
            form.extend_from_slice(field);
        }
        let key = SecretBox::init_with_mut(|key: &mut [u8; 32]| {
            Hkdf::<Sha256>::new(None, secret).expand(&form, key).expect("32 bytes are fewer than HKDF's 8160");
        });
        Ok(Self { id, issuer, key })
    }

    fn mac(&self) -> Form {
        Form(Hmac::new_from_slice(self.key.expose_secret()).expect("HMAC takes a key of any length"))
    }
}

/// What every form starts with.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub account: &'a Account,
    pub market: &'a str,
    pub prefix: &'a str,
    pub stamp: Stamp,
}

/// An order as a form sees it, whoever shows it; what is not set is zero or `None`.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    pub symbol: &'a Symbol,
    pub side: Side,
    pub order_type: OrderType,
    pub time_in_force: Option<TimeInForce>,
    pub quantity: Dec,
    pub quote_quantity: Dec,
    pub price: Dec,
    pub stop_price: Dec,
    pub iceberg_quantity: Dec,
    pub trailing_delta: i64,
    pub peg: Option<&'a Peg>,
    pub strategy_id: Option<i64>,
    pub stp_mode: Option<StpMode>,
}

impl Order<'_> {
    pub fn mac(&self, key: &TagKey, context: Context<'_>) -> [u8; 32] {
        let has_price = self.order_type.has_price();
        let conditional = self.order_type.is_conditional();
        let by_quote = self.order_type == OrderType::Market && !self.quote_quantity.is_zero();
        let timed = has_price && self.order_type != OrderType::LimitMaker;
        let peg = self.peg.filter(|_| has_price);

        let mut form = key.mac();
        form.open(ORDER_DOMAIN, key.id, context);
        form.text(self.symbol.as_str());
        form.text(self.side.word());
        form.text(self.order_type.word());
        form.text(self.time_in_force.filter(|_| timed).map_or("", TimeInForce::word));
        form.decimal(self.quantity, !by_quote);
        form.decimal(self.quote_quantity, by_quote);
        form.decimal(self.price, has_price && peg.is_none());
        form.decimal(self.stop_price, conditional);
        form.decimal(self.iceberg_quantity, has_price);
        form.number(Some(self.trailing_delta).filter(|delta| conditional && *delta != 0));
        form.text(peg.map_or("", |peg| &peg.price_type));
        form.text(peg.and_then(|peg| peg.offset_type.as_deref()).unwrap_or(""));
        form.number(peg.and_then(|peg| peg.offset_value));
        form.number(self.strategy_id);
        form.text(self.stp_mode.map_or("", StpMode::word));
        form.finish()
    }
}

/// Whose cancel an id is: the target as the bot named it.
#[derive(Clone, Copy)]
pub(super) enum Cancelled<'a> {
    Order(OrderId),
    Client(&'a ClientId),
}

impl Cancelled<'_> {
    pub fn mac(self, key: &TagKey, context: Context<'_>, symbol: &Symbol) -> [u8; 32] {
        let mut form = key.mac();
        form.open(CANCEL_DOMAIN, key.id, context);
        form.text(symbol.as_str());
        match self {
            Self::Order(id) => {
                form.text("order");
                form.number(Some(id.0));
            }
            Self::Client(id) => {
                form.text("client");
                form.text(id.as_str());
            }
        }
        form.finish()
    }
}

impl<'a> From<&'a OrderTerms> for Order<'a> {
    fn from(terms: &'a OrderTerms) -> Self {
        let or_zero = |value: Option<Dec>| value.unwrap_or(Dec::ZERO);
        Self {
            symbol: &terms.symbol,
            side: terms.side,
            order_type: terms.order_type,
            time_in_force: terms.time_in_force,
            quantity: or_zero(terms.quantity),
            quote_quantity: or_zero(terms.quote_quantity),
            price: or_zero(terms.price),
            stop_price: or_zero(terms.stop_price),
            iceberg_quantity: or_zero(terms.iceberg_quantity),
            trailing_delta: terms.trailing_delta.unwrap_or(0),
            peg: terms.peg.as_ref(),
            strategy_id: terms.strategy_id,
            stp_mode: terms.stp_mode,
        }
    }
}

impl<'a> From<&'a ExecutionReport> for Order<'a> {
    fn from(report: &'a ExecutionReport) -> Self {
        Self {
            symbol: &report.symbol,
            side: report.side,
            order_type: report.order_type,
            time_in_force: Some(report.time_in_force),
            quantity: report.quantity,
            quote_quantity: report.quote_quantity,
            price: report.price,
            stop_price: report.stop_price,
            iceberg_quantity: report.iceberg_quantity,
            trailing_delta: report.trailing_delta.unwrap_or(0),
            peg: report.peg.as_ref(),
            strategy_id: report.strategy_id,
            stp_mode: report.stp_mode,
        }
    }
}

impl<'a> From<&'a OrderSnapshot> for Order<'a> {
    fn from(order: &'a OrderSnapshot) -> Self {
        Self {
            symbol: &order.symbol,
            side: order.side,
            order_type: order.order_type,
            time_in_force: Some(order.time_in_force),
            quantity: order.quantity,
            quote_quantity: order.quote_quantity,
            price: order.price,
            stop_price: order.stop_price,
            iceberg_quantity: order.iceberg_quantity,
            trailing_delta: order.trailing_delta.unwrap_or(0),
            peg: order.peg.as_ref(),
            strategy_id: order.strategy_id,
            stp_mode: order.stp_mode,
        }
    }
}

/// The bytes under the MAC, field by field.
struct Form(Hmac<Sha256>);

impl Form {
    fn open(&mut self, domain: &[u8], key: KeyId, context: Context<'_>) {
        self.bytes(domain);
        self.bytes(&[key.head()]);
        self.bytes(&context.stamp.bytes());
        self.text(context.prefix);
        self.text(context.account.as_str());
        self.text(context.market);
    }

    fn bytes(&mut self, field: &[u8]) {
        self.0.update(&length(field));
        self.0.update(field);
    }

    fn text(&mut self, field: &str) {
        self.bytes(field.as_bytes());
    }

    fn number(&mut self, field: Option<i64>) {
        self.text(&field.map(|number| number.to_string()).unwrap_or_default());
    }

    fn decimal(&mut self, field: Dec, bound: bool) {
        let text = if bound && !field.is_zero() { field.to_string() } else { String::new() };
        self.text(&text);
    }

    fn finish(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }
}

/// Four bytes, big-endian; no field comes near their end, and one that did could only fail to verify.
fn length(field: &[u8]) -> [u8; 4] {
    u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes()
}
