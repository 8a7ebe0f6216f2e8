//! What anybody may ask: the symbols, the book, prices. Candles are made up from the seed alone, so that a chart of
//! the past exists; only the newest one ends at the real last price.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kernel::order::{OrderType, Side};
use crate::kernel::time::Time;
use crate::sim::amount::Amount;
use crate::sim::engine::Engine;
use crate::sim::filters;
use crate::sim::market::{Market, SYMBOLS, SymbolIndex, symbol_index};
use crate::sim::params::Params;
use crate::sim::refusal::Refusal;
use crate::sim::seed::Seeded;

pub fn exchange_info(engine: &Engine, now: Time, rate_limits: Value, params: &Params) -> Result<Value, Refusal> {
    let symbols: Vec<Value> =
        asked_symbols(params)?.into_iter().map(|symbol| described(engine.market(symbol))).collect();
    Ok(json!({
        "timezone": "UTC",
        "serverTime": now.millis(),
        "rateLimits": rate_limits,
        "exchangeFilters": [],
        "symbols": symbols,
    }))
}

fn described(market: &Market) -> Value {
    let spec = market.spec;
    json!({
        "symbol": spec.name,
        "status": "TRADING",
        "baseAsset": spec.base,
        "baseAssetPrecision": 8,
        "quoteAsset": spec.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": OrderType::ALL,
        "icebergAllowed": true,
        "ocoAllowed": false,
        "otoAllowed": false,
        "opoAllowed": false,
        "quoteOrderQtyMarketAllowed": true,
        "allowTrailingStop": false,
        "cancelReplaceAllowed": true,
        "amendAllowed": true,
        "pegInstructionsAllowed": false,
        "isSpotTradingAllowed": true,
        "isMarginTradingAllowed": false,
        "filters": filters::described(market),
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
    })
}

/// `symbol`, `symbols` or none of them: all.
fn asked_symbols(params: &Params) -> Result<Vec<SymbolIndex>, Refusal> {
    if let Some(symbol) = params.optional_symbol()? {
        return Ok(vec![symbol]);
    }
    let Some(list) = params.text("symbols") else { return Ok((0..SYMBOLS.len()).collect()) };
    let names: Vec<String> = serde_json::from_str(list).map_err(|_| Refusal::illegal("symbols", "[\"BTCUSDT\"]"))?;
    names.iter().map(|name| symbol_index(name).ok_or_else(|| Refusal::bad(-1121, "Invalid symbol."))).collect()
}

/// One symbol asked for by name gives an object, everything else a list.
fn for_each_asked(engine: &Engine, params: &Params, show: impl Fn(&Market) -> Value) -> Result<Value, Refusal> {
    if let Some(symbol) = params.optional_symbol()? {
        return Ok(show(engine.market(symbol)));
    }
    Ok(asked_symbols(params)?.into_iter().map(|symbol| show(engine.market(symbol))).collect())
}

pub fn depth(engine: &Engine, params: &Params) -> Result<Value, Refusal> {
    let market = engine.market(params.symbol()?);
    let depth = params.limit(100, 5_000)?;
    Ok(json!({
        "lastUpdateId": market.book_version(),
        "bids": market.book.levels(Side::Buy, depth),
        "asks": market.book.levels(Side::Sell, depth),
    }))
}

pub fn ticker_price(engine: &Engine, params: &Params) -> Result<Value, Refusal> {
    for_each_asked(engine, params, |market| json!({ "symbol": market.spec.name, "price": market.last }))
}

pub fn ticker_book(engine: &Engine, params: &Params) -> Result<Value, Refusal> {
    for_each_asked(engine, params, |market| {
        let (bid, ask) = (best(market, Side::Buy), best(market, Side::Sell));
        json!({
            "symbol": market.spec.name,
            "bidPrice": bid.0, "bidQty": bid.1, "askPrice": ask.0, "askQty": ask.1,
        })
    })
}

fn best(market: &Market, side: Side) -> (Amount, Amount) {
    market.book.levels(side, 1).first().copied().unwrap_or_default()
}

pub fn average_price(engine: &Engine, now: Time, params: &Params) -> Result<Value, Refusal> {
    let market = engine.market(params.symbol()?);
    Ok(json!({ "mins": 5, "price": market.last, "closeTime": now.millis() }))
}

pub fn ticker_day(engine: &Engine, now: Time, params: &Params) -> Result<Value, Refusal> {
    for_each_asked(engine, params, |market| {
        let (open, last) = (market.spec.start_price, market.last);
        let (bid, ask) = (best(market, Side::Buy), best(market, Side::Sell));
        json!({
            "symbol": market.spec.name,
            "priceChange": last - open,
            "priceChangePercent": (last - open).times_whole(100).over(open),
            "weightedAvgPrice": last,
            "prevClosePrice": open,
            "lastPrice": last,
            "lastQty": market.spec.step,
            "bidPrice": bid.0, "bidQty": bid.1, "askPrice": ask.0, "askQty": ask.1,
            "openPrice": open,
            "highPrice": open.max(last),
            "lowPrice": open.min(last),
            "volume": market.volume,
            "quoteVolume": market.quote_volume,
            "openTime": now.millis() - 86_400_000,
            "closeTime": now.millis(),
            "firstId": 1,
            "lastId": market.trade_count,
            "count": market.trade_count,
        })
    })
}

pub fn klines(engine: &Engine, now: Time, params: &Params) -> Result<Value, Refusal> {
    let symbol = params.symbol()?;
    let lengths = BTreeMap::from([
        ("1s", 1_000),
        ("1m", 60_000),
        ("3m", 180_000),
        ("5m", 300_000),
        ("15m", 900_000),
        ("30m", 1_800_000),
        ("1h", 3_600_000),
        ("2h", 7_200_000),
        ("4h", 14_400_000),
        ("6h", 21_600_000),
        ("8h", 28_800_000),
        ("12h", 43_200_000),
        ("1d", 86_400_000),
        ("3d", 259_200_000),
        ("1w", 604_800_000),
    ]);
    let length = lengths.get(params.need("interval")?).copied();
    let length: i64 = length.ok_or_else(|| Refusal::bad(-1120, "Invalid interval."))?;
    let count = i64::try_from(params.limit(500, 1_000)?).unwrap_or(1_000);
    let newest = params.time("endTime")?.map_or(now, |end| end.min(now)).millis() / length;
    let oldest = match params.time("startTime")? {
        Some(start) => start.millis() / length + i64::from(start.millis() % length != 0),
        None => newest - count + 1,
    };
    let market = engine.market(symbol);
    let current = now.millis() / length;
    Ok((oldest..=newest).take(count.unsigned_abs() as usize).map(|at| candle(market, at, length, current)).collect())
}

fn candle(market: &Market, at: i64, length: i64, current: i64) -> Value {
    let open = level(market, at * length);
    let close = if at == current { market.last } else { level(market, (at + 1) * length) };
    let wick = market.spec.tick.times_whole(i64::from(market.spec.move_ticks));
    let (high, low) = (open.max(close) + wick, (open.min(close) - wick).max(market.spec.tick));
    let (opened, closed) = (at * length, (at + 1) * length - 1);
    let (volume, quote) = (market.spec.level_quantity, close.times(market.spec.level_quantity));
    json!([opened, open, high, low, close, volume, closed, quote, 100, volume, quote, "0"])
}

/// A price for a moment of the past, the same whenever it is asked for.
fn level(market: &Market, at_ms: i64) -> Amount {
    let mut dice = Seeded::new(at_ms.unsigned_abs() ^ market.spec.start_price.steps(market.spec.tick).unsigned_abs());
    let ticks = i64::from(dice.below(20 * market.spec.move_ticks)) - i64::from(10 * market.spec.move_ticks);
    (market.spec.start_price + market.spec.tick.times_whole(ticks)).max(market.spec.tick)
}
