//! A market as the venue describes it and as it stands: four answers that anybody may ask for, read into one value. The
//! names are those of the spot API's documentation (market data endpoints, filters).

use crate::kernel::act::{ActOutcome, Quote};
use crate::kernel::money::Dec;
use crate::kernel::order::{Asset, ClientId, OrderStatus, Symbol};
use crate::venue::binance::json::{self, Fields, Kept, Value};

/// The bodies of `exchangeInfo`, of `avgPrice` and `ticker/24hr`, and of `depth`, for one symbol.
pub fn quote(symbol: &Symbol, info: &str, [average, day]: [&str; 2], depth: &str) -> Result<ActOutcome, Kept> {
    let info = json::parse(info)?;
    let [row] = info.object("the answer")?.list("symbols")? else {
        return Err(Kept::new("one symbol was asked for, and another number of them is shown"));
    };
    let row = row.object("a symbol")?;
    if row.text("symbol")? != symbol.as_str() {
        return Err(Kept::new("another symbol is shown than the one that was asked for"));
    }
    let filters = row.list("filters")?;
    let price = filter(filters, "PRICE_FILTER")?.ok_or_else(|| Kept::new("no PRICE_FILTER is shown"))?;
    let size = filter(filters, "LOT_SIZE")?.ok_or_else(|| Kept::new("no LOT_SIZE is shown"))?;
    let notional = filter(filters, "NOTIONAL")?.map_or_else(|| filter(filters, "MIN_NOTIONAL"), |one| Ok(Some(one)))?;
    let average = json::parse(average)?.object("the answer")?.decimal("price")?;
    let average_of_day = json::parse(day)?.object("the answer")?.decimal("weightedAvgPrice")?;
    let depth = json::parse(depth)?;
    let bids = depth.object("the answer")?.list("bids")?.iter().map(level).collect::<Result<_, Kept>>()?;
    Ok(ActOutcome::Quote(Box::new(Quote {
        base: Asset::new(row.text("baseAsset")?),
        quote: Asset::new(row.text("quoteAsset")?),
        trading: row.text("status")? == "TRADING",
        tick: price.decimal("tickSize")?,
        step: size.decimal("stepSize")?,
        quantity_least: size.decimal("minQty")?,
        quantity_most: size.decimal("maxQty")?,
        notional_least: notional.map_or(Ok(Dec::ZERO), |one| one.decimal("minNotional"))?,
        average,
        average_of_day,
        bids,
    })))
}

/// No market of that name; the exchange's own words name none.
const NO_SUCH_SYMBOL: i64 = -1121;

/// A refusal that says what was asked for.
pub fn named(symbol: &Symbol, outcome: ActOutcome) -> ActOutcome {
    match outcome {
        ActOutcome::Refused { code: NO_SUCH_SYMBOL, .. } => {
            ActOutcome::Refused { code: NO_SUCH_SYMBOL, reason: format!("the exchange has no market {symbol}").into() }
        }
        other => other,
    }
}

fn filter<'v, 'a>(filters: &'v [Value<'a>], kind: &str) -> Result<Option<&'v Fields<'a>>, Kept> {
    for one in filters {
        let one = one.object("a filter")?;
        if one.text("filterType")? == kind {
            return Ok(Some(one));
        }
    }
    Ok(None)
}

/// A price and a quantity.
fn level(row: &Value<'_>) -> Result<(Dec, Dec), Kept> {
    let [price, quantity] = row.list("a bid")? else { return Err(Kept::new("a bid is a price and a quantity")) };
    Ok((price.as_decimal("the price")?, quantity.as_decimal("the quantity")?))
}

/// The body of a granted order that cannot rest, or of a look for one. One that has not ended proves nothing yet.
pub fn sold(body: &str, id: &ClientId) -> Result<ActOutcome, Kept> {
    let answer = json::parse(body)?;
    let answer = answer.object("the answer")?;
    if answer.text("clientOrderId")? != id.as_str() {
        return Err(Kept::new("the answer is about another order"));
    }
    let status = answer.word("status", OrderStatus::from_word)?;
    if !status.is_terminal() {
        return Err(Kept::new(format_args!("the order is shown as {}", status.word())));
    }
    let (executed, received) = (answer.decimal("executedQty")?, answer.decimal("cummulativeQuoteQty")?);
    Ok(ActOutcome::Sold { executed, received })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = r#"{"symbols":[{"symbol":"BTCUSDT","status":"TRADING","baseAsset":"BTC","quoteAsset":"USDT","filters":[
        {"filterType":"PRICE_FILTER","minPrice":"0.01","maxPrice":"1000000.00","tickSize":"0.01"},
        {"filterType":"LOT_SIZE","minQty":"0.00001","maxQty":"9000.0","stepSize":"0.00001"},
        {"filterType":"NOTIONAL","minNotional":"5.0","applyMinToMarket":true}]}]}"#;
    const AVERAGE: &str = r#"{"mins":5,"price":"60000.5","closeTime":1694061154503}"#;
    const DAY: &str = r#"{"symbol":"BTCUSDT","weightedAvgPrice":"61000.1"}"#;
    const DEPTH: &str = r#"{"lastUpdateId":1,"bids":[["60000.00","0.5"],["59999.00","1"]],"asks":[]}"#;

    #[test]
    fn a_market_is_whole_or_unknown() {
        let symbol = Symbol::new("BTCUSDT");
        let Ok(ActOutcome::Quote(read)) = quote(&symbol, INFO, [AVERAGE, DAY], DEPTH) else { panic!("it can be read") };
        assert_eq!((read.tick.to_string(), read.step.to_string()), ("0.01".to_owned(), "0.00001".to_owned()));
        assert_eq!((read.notional_least.to_string(), read.average.to_string()), ("5".to_owned(), "60000.5".to_owned()));
        assert_eq!((read.bids.len(), read.trading), (2, true));
        let old = INFO.replace("\"NOTIONAL\"", "\"MIN_NOTIONAL\"");
        assert!(quote(&symbol, &old, [AVERAGE, DAY], DEPTH).is_ok());
        assert!(quote(&symbol, INFO, [AVERAGE, "{}"], DEPTH).is_err());
        for (info, average, depth) in [
            (INFO.replace("BTCUSDT", "ETHUSDT"), AVERAGE, DEPTH),
            (INFO.replace("PRICE_FILTER", "OTHER"), AVERAGE, DEPTH),
            (INFO.replace("LOT_SIZE", "OTHER"), AVERAGE, DEPTH),
            (r#"{"symbols":[]}"#.to_owned(), AVERAGE, DEPTH),
            (INFO.to_owned(), "{}", DEPTH),
            (INFO.to_owned(), AVERAGE, r#"{"bids":[["1"]]}"#),
            (INFO.to_owned(), AVERAGE, "{}"),
        ] {
            assert!(quote(&symbol, &info, [average, DAY], depth).is_err(), "{info} {average} {depth}");
        }
    }

    #[test]
    fn a_market_that_is_not_there_is_named() {
        let refused = |code, reason: &str| ActOutcome::Refused { code, reason: reason.into() };
        let symbol = Symbol::new("LDBTCUSDT");
        assert_eq!(
            named(&symbol, refused(-1121, "Invalid symbol.")),
            refused(-1121, "the exchange has no market LDBTCUSDT")
        );
        assert_eq!(named(&symbol, refused(-1003, "Too many.")), refused(-1003, "Too many."));
    }

    #[test]
    fn an_order_is_sold_once_it_has_ended_under_its_own_id() {
        let body = |id: &str, status: &str| {
            let numbers = r#""executedQty":"0.5","cummulativeQuoteQty":"30000""#;
            format!(r#"{{"clientOrderId":{id:?},"status":{status:?},{numbers}}}"#)
        };
        let id = ClientId::new("cs-1");
        for status in ["FILLED", "EXPIRED", "CANCELED"] {
            assert!(matches!(sold(&body("cs-1", status), &id), Ok(ActOutcome::Sold { .. })), "{status}");
        }
        for odd in [body("cs-2", "FILLED"), body("cs-1", "NEW"), "{}".to_owned(), String::new()] {
            assert!(sold(&odd, &id).is_err(), "{odd}");
        }
    }
}
