//! What is said of an order, a cancel or an amendment, and the comparison it rests on: field by field, as
//! decimals, of what the bot said with what the venue shows.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kernel::event::OrderSnapshot;
use crate::kernel::intent::OrderTerms;
use crate::kernel::money::Dec;
use crate::kernel::order::{ClientId, OrderType, Side, StpMode, Symbol, TimeInForce, words};
use crate::kernel::report::{ExecutionReport, Peg};

words!(Verdict {
    /// Nobody said it yet, and somebody still may have.
    Pending = "pending",
    Matched = "matched",
    Foreign = "foreign",
    /// The bot said it, with other terms.
    Divergent = "divergent",
    /// An id that another order already used.
    Replayed = "replayed",
    Forged = "forged",
    /// A countersign of our own key that we never issued: the key is suspect.
    Unissued = "unissued",
    /// A countersign of the bot's key whose intent never came.
    Unlogged = "unlogged",
    ExchangeGenerated = "exchange_generated",
    PreExisting = "pre_existing",
    /// Made by hand in a claim window: its owner said beforehand that he would.
    DeclaredManual = "declared_manual",
    /// It happened while we could not see, or cannot be explained by what the venue shows.
    Unproven = "unproven",
});

impl Verdict {
    /// Somebody else did it, as far as can be known.
    pub const fn is_stranger(self) -> bool {
        match self {
            Self::Foreign | Self::Divergent | Self::Replayed | Self::Forged | Self::Unissued | Self::Unlogged => true,
            Self::Pending
            | Self::Matched
            | Self::ExchangeGenerated
            | Self::PreExisting
            | Self::DeclaredManual
            | Self::Unproven => false,
        }
    }

    /// The words an owner reads.
    pub const fn plain(self) -> &'static str {
        match self {
            Self::Pending => "waiting for your bot's word",
            Self::Matched => "your bot",
            Self::Foreign => "not your bot",
            Self::Divergent => "differs from what your bot said",
            Self::Replayed => "not your bot: it reuses the id of another order",
            Self::Forged => "not your bot: its id is a forgery",
            Self::Unissued => "not your bot: its id verifies, but it was never issued (the tag key may be stolen)",
            Self::Unlogged => "your bot's tag, but your bot never said it",
            Self::ExchangeGenerated => "made by the exchange",
            Self::PreExisting => "open before countersign looked",
            Self::DeclaredManual => "by hand, in your claim window",
            Self::Unproven => "cannot be explained",
        }
    }
}

words!(
    /// How strong a match is.
    Assurance {
        Countersigned = "A",
        Registered = "B",
        RegisteredLate = "B-late",
    }
);

/// An order's terms as the venue shows that it was placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    pub symbol: Symbol,
    pub client_order_id: ClientId,
    pub side: Side,
    pub order_type: OrderType,
    pub time_in_force: TimeInForce,
    pub quantity: Dec,
    pub quote_quantity: Dec,
    pub price: Dec,
    pub stop_price: Dec,
    pub iceberg_quantity: Dec,
    pub trailing_delta: Option<i64>,
    pub strategy_id: Option<i64>,
    pub stp_mode: Option<StpMode>,
    pub peg: Option<Peg>,
}

impl From<&ExecutionReport> for Placed {
    fn from(report: &ExecutionReport) -> Self {
        Self {
            symbol: report.symbol.clone(),
            client_order_id: report.client_order_id.clone(),
            side: report.side,
            order_type: report.order_type,
            time_in_force: report.time_in_force,
            quantity: report.quantity,
            quote_quantity: report.quote_quantity,
            price: report.price,
            stop_price: report.stop_price,
            iceberg_quantity: report.iceberg_quantity,
            trailing_delta: report.trailing_delta,
            strategy_id: report.strategy_id,
            stp_mode: report.stp_mode,
            peg: report.peg.clone(),
        }
    }
}

impl From<&OrderSnapshot> for Placed {
    fn from(snapshot: &OrderSnapshot) -> Self {
        Self {
            symbol: snapshot.symbol.clone(),
            client_order_id: snapshot.client_order_id.clone(),
            side: snapshot.side,
            order_type: snapshot.order_type,
            time_in_force: snapshot.time_in_force,
            quantity: snapshot.quantity,
            quote_quantity: snapshot.quote_quantity,
            price: snapshot.price,
            stop_price: snapshot.stop_price,
            iceberg_quantity: snapshot.iceberg_quantity,
            trailing_delta: snapshot.trailing_delta,
            strategy_id: snapshot.strategy_id,
            stp_mode: snapshot.stp_mode,
            peg: snapshot.peg.clone(),
        }
    }
}

/// One field in which the venue shows something else than the bot said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub field: Box<str>,
    pub said: Box<str>,
    pub shown: Box<str>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: your bot said {}, the exchange shows {}", self.field, self.said, self.shown)
    }
}

/// Compares an order with the intent of the same id. `amended` are the smaller quantities that the bot said it
/// would amend the order to.
pub fn differences(said: &OrderTerms, amended: &[Dec], shown: &Placed) -> Vec<Difference> {
    let mut found = Differences(Vec::new());
    found.check("symbol", &said.symbol, &shown.symbol);
    found.check("side", &said.side, &shown.side);
    found.check("type", &said.order_type, &shown.order_type);
    if let Some(time_in_force) = said.time_in_force {
        found.check("time in force", &time_in_force, &shown.time_in_force);
    }
    match said.quantity {
        Some(quantity) if !amended.contains(&shown.quantity) => found.check("quantity", &quantity, &shown.quantity),
        Some(_) | None => {}
    }
    found.check("quote quantity", &said.quote_quantity.unwrap_or(Dec::ZERO), &shown.quote_quantity);
    if said.peg.is_none() && said.order_type.has_price() {
        found.check("price", &said.price.unwrap_or(Dec::ZERO), &shown.price);
    }
    found.check("stop price", &said.stop_price.unwrap_or(Dec::ZERO), &shown.stop_price);
    found.check("iceberg quantity", &said.iceberg_quantity.unwrap_or(Dec::ZERO), &shown.iceberg_quantity);
    found.check_optional("trailing delta", said.trailing_delta, shown.trailing_delta);
    found.check_optional("strategy id", said.strategy_id, shown.strategy_id);
    if said.stp_mode.is_some() {
        found.check_optional("self-trade prevention", said.stp_mode, shown.stp_mode);
    }
    let name = |peg: &Option<Peg>| peg.as_ref().map(|peg| format!("{peg:?}"));
    found.check_optional("peg", name(&said.peg), name(&shown.peg));
    found.0
}

struct Differences(Vec<Difference>);

impl Differences {
    fn check<T: PartialEq + fmt::Display>(&mut self, field: &str, said: &T, shown: &T) {
        if said != shown {
            let (said, shown) = (said.to_string().into(), shown.to_string().into());
            self.0.push(Difference { field: field.into(), said, shown });
        }
    }

    fn check_optional<T: PartialEq + fmt::Display>(&mut self, field: &str, said: Option<T>, shown: Option<T>) {
        let name = |value: Option<T>| value.map_or_else(|| "none".to_owned(), |value| value.to_string());
        self.check(field, &name(said), &name(shown));
    }
}
