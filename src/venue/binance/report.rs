//! The events of the spot user data stream, normalised. A value the venue does not document, or a combination that
//! cannot be, is not read: `CANCELED` without `C` would hide whose order ended, and a `TRADE` that traded nothing
//! would be taken for one.

use crate::kernel::money::Dec;
use crate::kernel::order::{
    Asset, ClientId, ExecutionType, ExpiryReason, OrderId, OrderStatus, OrderType, RejectReason, Side, StpMode, Symbol,
    TimeInForce,
};
use crate::kernel::report::{AccountPosition, Balance, BalanceUpdate, ExecutionReport, ListStatus, Peg, Report};
use crate::venue::binance::json::{Fields, Kept};

pub enum Event {
    Report(Report),
    Terminated,
    Shutdown,
}

pub fn read(fields: &Fields<'_>) -> Result<Event, Kept> {
    let name = fields.text("e")?;
    let report = match name {
        "executionReport" => execution(fields).map(|report| Report::Execution(Box::new(report))),
        "listStatus" => list_status(fields).map(Report::List),
        "outboundAccountPosition" => position(fields).map(Report::Position),
        "balanceUpdate" => balance_update(fields).map(Report::Balance),
        "externalLockUpdate" => balance_update(fields).map(Report::ExternalLock),
        "eventStreamTerminated" => return Ok(Event::Terminated),
        "serverShutdown" => return Ok(Event::Shutdown),
        _ => return Err(Kept::new(format_args!("unknown event {name:?}"))),
    };
    report.map(Event::Report).map_err(|kept| Kept::new(format_args!("{name}: {kept}")))
}

fn execution(fields: &Fields<'_>) -> Result<ExecutionReport, Kept> {
    let execution_type = fields.word("x", ExecutionType::from_word)?;
    let status = fields.word("X", OrderStatus::from_word)?;
    if !can_leave(execution_type, status) {
        return Err(Kept::new(format_args!("execution type {execution_type} with order status {status}")));
    }
    let (client_order_id, request_client_order_id) = ids(fields, execution_type)?;
    let symbol = Symbol::new(fields.text("s")?);
    let (last_quantity, last_price) = (fields.decimal("l")?, fields.decimal("L")?);
    Ok(ExecutionReport {
        order_id: OrderId(fields.int("i")?),
        client_order_id,
        request_client_order_id,
        side: fields.word("S", Side::from_word)?,
        order_type: fields.word("o", OrderType::from_word)?,
        time_in_force: fields.word("f", TimeInForce::from_word)?,
        execution_type,
        status,
        reject_reason: fields.word("r", RejectReason::from_word)?,
        quantity: fields.decimal("q")?,
        price: fields.decimal("p")?,
        stop_price: fields.decimal("P")?,
        iceberg_quantity: fields.decimal_if_any("F")?.unwrap_or(Dec::ZERO),
        quote_quantity: fields.decimal_if_any("Q")?.unwrap_or(Dec::ZERO),
        last_quantity,
        last_price,
        last_quote: last_quote(fields, last_quantity, last_price)?,
        cumulative_quantity: fields.decimal("z")?,
        cumulative_quote: fields.decimal("Z")?,
        commission: fields.decimal("n")?,
        commission_asset: fields.text_if_any("N")?.map(Asset::new),
        trade_id: Some(fields.int("t")?).filter(|id| *id >= 0),
        execution_id: fields.id_if_any("I")?,
        on_book: fields.boolean("w")?,
        maker: fields.boolean("m")?,
        event_at: fields.time("E")?,
        transacted_at: fields.time("T")?,
        created_at: fields.time_if_any("O")?,
        working_at: fields.time_if_any("W")?,
        list_id: fields.id_if_any("g")?,
        stp_mode: fields.word_if_any("V", StpMode::from_word)?,
        trailing_delta: fields.int_if_any("d")?,
        strategy_id: fields.int_if_any("j")?,
        expiry_reason: fields.word_if_any("eR", ExpiryReason::from_word)?,
        counter_order: counter_order(fields, &symbol)?,
        peg: peg(fields)?,
        symbol,
    })
}

/// The order's own id, and the id of the request that changed it.
fn ids(fields: &Fields<'_>, execution_type: ExecutionType) -> Result<(ClientId, Option<ClientId>), Kept> {
    let (current, original) = (fields.text("c")?, fields.text("C")?);
    match execution_type {
        ExecutionType::Canceled if original.is_empty() => {
            Err(Kept::new("CANCELED with an empty \"C\" does not say whose order ended"))
        }
        ExecutionType::Canceled | ExecutionType::Replaced if !original.is_empty() => {
            Ok((ClientId::new(original), Some(ClientId::new(current))))
        }
        ExecutionType::New
        | ExecutionType::Canceled
        | ExecutionType::Replaced
        | ExecutionType::Rejected
        | ExecutionType::Trade
        | ExecutionType::Expired
        | ExecutionType::TradePrevention => Ok((ClientId::new(current), None)),
    }
}

/// Whether an execution of this type can leave an order in this status.
const fn can_leave(execution_type: ExecutionType, status: OrderStatus) -> bool {
    use OrderStatus as Status;
    match execution_type {
        ExecutionType::New => matches!(status, Status::New | Status::PendingNew),
        ExecutionType::Canceled => matches!(status, Status::Canceled),
        ExecutionType::Replaced => matches!(status, Status::New | Status::PendingNew | Status::PartiallyFilled),
        ExecutionType::Rejected => matches!(status, Status::Rejected),
        ExecutionType::Trade => matches!(status, Status::PartiallyFilled | Status::Filled),
        ExecutionType::Expired => matches!(status, Status::Expired | Status::ExpiredInMatch | Status::Rejected),
        // Decrementing prevention can leave any remainder, and no remainder.
        ExecutionType::TradePrevention => !matches!(status, Status::Canceled | Status::Rejected),
    }
}

/// Older frames have no `Y`; it is price times quantity.
fn last_quote(fields: &Fields<'_>, quantity: Dec, price: Dec) -> Result<Dec, Kept> {
    match fields.decimal_if_any("Y")? {
        Some(quote) => Ok(quote),
        None => quantity.checked_mul(price).ok_or_else(|| Kept::new("field \"Y\" is missing and l × L is not exact")),
    }
}

fn counter_order(fields: &Fields<'_>, symbol: &Symbol) -> Result<Option<(Symbol, OrderId)>, Kept> {
    let counter = fields.text_if_any("Cs")?.map_or_else(|| symbol.clone(), Symbol::new);
    Ok(fields.id_if_any("U")?.map(|id| (counter, OrderId(id))))
}

fn peg(fields: &Fields<'_>) -> Result<Option<Peg>, Kept> {
    let Some(price_type) = fields.text_if_any("gP")? else { return Ok(None) };
    Ok(Some(Peg {
        price_type: price_type.into(),
        offset_type: fields.text_if_any("gOT")?.map(Into::into),
        offset_value: fields.int_if_any("gOV")?,
    }))
}

fn list_status(fields: &Fields<'_>) -> Result<ListStatus, Kept> {
    let words = |name: &str, known: &'static [&'static str]| {
        fields.word(name, |word| known.iter().find(|known| **known == word).map(|known| Box::from(*known)))
    };
    let legs = fields.list("O")?.iter().map(|leg| {
        let leg = leg.object("a leg of \"O\"")?;
        Ok((Symbol::new(leg.text("s")?), OrderId(leg.int("i")?), ClientId::new(leg.text("c")?)))
    });
    Ok(ListStatus {
        symbol: Symbol::new(fields.text("s")?),
        list_id: fields.int("g")?,
        list_client_order_id: ClientId::new(fields.text("C")?),
        contingency: words("c", &["OCO", "OTO"])?,
        status: words("l", &["RESPONSE", "EXEC_STARTED", "UPDATED", "ALL_DONE"])?,
        order_status: words("L", &["EXECUTING", "ALL_DONE", "REJECT"])?,
        reject_reason: fields.text("r")?.into(),
        legs: legs.collect::<Result<_, Kept>>()?,
        event_at: fields.time("E")?,
        transacted_at: fields.time("T")?,
    })
}

fn position(fields: &Fields<'_>) -> Result<AccountPosition, Kept> {
    let balances = fields.list("B")?.iter().map(|row| {
        let row = row.object("a balance of \"B\"")?;
        Ok(Balance { asset: Asset::new(row.text("a")?), free: row.decimal("f")?, locked: row.decimal("l")? })
    });
    Ok(AccountPosition {
        balances: balances.collect::<Result<_, Kept>>()?,
        event_at: fields.time("E")?,
        updated_at: fields.time("u")?,
    })
}

fn balance_update(fields: &Fields<'_>) -> Result<BalanceUpdate, Kept> {
    Ok(BalanceUpdate {
        asset: Asset::new(fields.text("a")?),
        delta: fields.decimal("d")?,
        event_at: fields.time("E")?,
        cleared_at: fields.time("T")?,
    })
}
