//! An order on the wire, and which of its fields go together: only combinations the venue takes become terms.

use crate::inlet::wire::error::WireError;
use crate::inlet::wire::fields::Fields;
use crate::kernel::intent::OrderTerms;
use crate::kernel::order::{ClientId, OrderType, Side, StpMode, Symbol, TimeInForce};
use crate::kernel::report::Peg;

const PEG_PRICE_TYPES: [&str; 2] = ["PRIMARY_PEG", "MARKET_PEG"];
const PEG_OFFSET_TYPES: [&str; 1] = ["PRICE_LEVEL"];
const WORD_LENGTH_MAX: usize = 32;

/// The terms with the id they came with, or none yet.
pub(super) fn order(fields: &mut Fields, symbol: Symbol) -> Result<(Option<ClientId>, OrderTerms), WireError> {
    let given = fields.client_id("client_order_id")?;
    let terms = OrderTerms {
        client_order_id: given.clone().unwrap_or_else(|| ClientId::new("")),
        symbol,
        side: fields.word("side", Side::from_word)?.ok_or_else(|| fields.missing("side"))?,
        order_type: fields.word("type", OrderType::from_word)?.ok_or_else(|| fields.missing("type"))?,
        time_in_force: fields.word("time_in_force", spot_time_in_force)?,
        quantity: fields.decimal("quantity")?,
        quote_quantity: fields.decimal("quote_quantity")?,
        price: fields.decimal("price")?,
        stop_price: fields.decimal("stop_price")?,
        trailing_delta: fields.integer("trailing_delta")?,
        iceberg_quantity: fields.decimal("iceberg_quantity")?,
        peg: peg(fields)?,
        stp_mode: fields.word("stp_mode", StpMode::from_word)?,
        strategy_id: fields.integer("strategy_id")?,
    };
    go_together(fields, &terms)?;
    Ok((given, terms))
}

fn spot_time_in_force(word: &str) -> Option<TimeInForce> {
    TimeInForce::from_word(word).filter(|word| matches!(word, TimeInForce::Gtc | TimeInForce::Ioc | TimeInForce::Fok))
}

fn peg(fields: &mut Fields) -> Result<Option<Peg>, WireError> {
    let Some(mut peg) = fields.object("peg")? else { return Ok(None) };
    let among = |words: &'static [&str]| move |text: &str| words.iter().find(|word| **word == text).copied();
    let price_type = peg.word("price_type", among(&PEG_PRICE_TYPES))?.ok_or_else(|| peg.missing("price_type"))?;
    let offset_type = peg.word("offset_type", among(&PEG_OFFSET_TYPES))?;
    let offset_value = peg.integer("offset_value")?;
    if offset_type.is_some() != offset_value.is_some() {
        return Err(peg.bad("offset_type", "and offset_value go together", "give both or neither"));
    }
    peg.finish("a peg")?;
    Ok(Some(Peg { price_type: price_type.into(), offset_type: offset_type.map(Into::into), offset_value }))
}

/// What an order's type demands and what it forbids.
fn go_together(fields: &Fields, terms: &OrderTerms) -> Result<(), WireError> {
    let kind = terms.order_type;
    let priced = kind.has_price();
    let timed = priced && kind != OrderType::LimitMaker;
    let conditional = kind.is_conditional();
    let demand = |name: &str, there: bool| {
        if there { Ok(()) } else { Err(fields.bad(name, &format!("is missing: {kind} needs it"), "add it")) }
    };
    let forbid = |name: &str, there: bool, allowed: bool| {
        if !there || allowed {
            return Ok(());
        }
        Err(fields.bad(name, &format!("does not go with {kind}"), "leave it out, as in the order that is sent"))
    };

    if kind == OrderType::Market {
        if terms.quantity.is_some() == terms.quote_quantity.is_some() {
            return Err(fields.bad("quantity", "or quote_quantity: a MARKET order has exactly one", "give one"));
        }
    } else {
        demand("quantity", terms.quantity.is_some())?;
        forbid("quote_quantity", terms.quote_quantity.is_some(), false)?;
    }
    demand("price", !priced || terms.price.is_some() || terms.peg.is_some())?;
    forbid("price", terms.price.is_some(), priced)?;
    forbid("peg", terms.peg.is_some(), priced)?;
    demand("time_in_force", !timed || terms.time_in_force.is_some())?;
    forbid("time_in_force", terms.time_in_force.is_some(), timed)?;
    demand("stop_price", !conditional || terms.stop_price.is_some() || terms.trailing_delta.is_some())?;
    forbid("stop_price", terms.stop_price.is_some(), conditional)?;
    forbid("trailing_delta", terms.trailing_delta.is_some(), conditional)?;
    forbid("iceberg_quantity", terms.iceberg_quantity.is_some(), priced)?;
    if terms.trailing_delta.is_some_and(|delta| delta <= 0) {
        return Err(fields.bad("trailing_delta", "is not above zero", "it counts basis points"));
    }
    if terms.iceberg_quantity > terms.quantity {
        return Err(fields.bad("iceberg_quantity", "is above quantity", "it is the part that shows"));
    }
    Ok(())
}

/// How a list hangs together, as the venue names it.
pub(super) fn contingency(fields: &mut Fields) -> Result<Box<str>, WireError> {
    let word = fields.text("contingency", WORD_LENGTH_MAX)?.ok_or_else(|| fields.missing("contingency"))?;
    match &*word {
        "OCO" | "OTO" | "OTOCO" => Ok(word),
        _ => Err(fields.bad("contingency", "is not OCO, OTO or OTOCO", "other lists cannot be told yet")),
    }
}
