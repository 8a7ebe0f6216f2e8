//! From parameters to an order: which parameters each type needs, and the symbol's filters. What gets past here is
//! well formed; whether it is taken is the engine's decision.

use crate::kernel::order::{OrderType, TimeInForce};
use crate::sim::amount::Amount;
use crate::sim::engine::Engine;
use crate::sim::market::Market;
use crate::sim::order::{NewOrder, Uid};
use crate::sim::params::Params;
use crate::sim::refusal::Refusal;

/// Open orders of an account in one symbol, as the venue's MAX_NUM_ORDERS says.
pub const OPEN_ORDERS_MAX: usize = 200;

/// Bids and asks may stand between a fifth and five times the last price.
pub const PERCENT_PRICE_TIMES: i64 = 5;

pub fn new_order(engine: &Engine, uid: Uid, params: &Params) -> Result<NewOrder, Refusal> {
    let symbol = params.symbol()?;
    let (side, kind) = (params.side()?, params.order_type()?);
    refuse_unsupported(params)?;
    let new = NewOrder {
        symbol,
        client_id: params.client_id("newClientOrderId")?,
        side,
        kind,
        time_in_force: time_in_force(params, kind)?,
        quantity: Amount::ZERO,
        quote_quantity: Amount::ZERO,
        price: only_where(params, "price", kind.has_price())?,
        stop_price: only_where(params, "stopPrice", kind.is_conditional())?,
        iceberg_quantity: params.amount("icebergQty")?.unwrap_or_default(),
        strategy_id: params.number("strategyId")?,
        strategy_type: params.number("strategyType")?,
    };
    let new = sized(params, new)?;
    let market = engine.market(symbol);
    pass_price(market, &new)?;
    pass_size(market, &new)?;
    let open = engine.account(uid).map_or(0, |account| account.open.range((symbol, 0)..=(symbol, i64::MAX)).count());
    if open >= OPEN_ORDERS_MAX {
        return Err(Refusal::filter("MAX_NUM_ORDERS"));
    }
    Ok(new)
}

/// What would change an order's meaning and is not simulated is refused, never ignored.
fn refuse_unsupported(params: &Params) -> Result<(), Refusal> {
    if params.text("trailingDelta").is_some() {
        return Err(Refusal::engine("Trailing stop orders are not supported for this symbol."));
    }
    if params.text("pegPriceType").or(params.text("pegOffsetValue")).is_some() {
        return Err(Refusal::engine("Pegged orders are not supported for this symbol."));
    }
    if params.text("selfTradePreventionMode").is_some_and(|mode| mode != "NONE") {
        return Err(Refusal::engine("This symbol does not allow the specified self-trade prevention mode."));
    }
    if params.number("strategyType")?.is_some_and(|kind| kind < 1_000_000) {
        return Err(Refusal::bad(-1100, "Parameter 'strategyType' must be at least 1000000."));
    }
    Ok(())
}

fn time_in_force(params: &Params, kind: OrderType) -> Result<TimeInForce, Refusal> {
    let given = params.time_in_force()?;
    match kind {
        OrderType::Limit | OrderType::StopLossLimit | OrderType::TakeProfitLimit => {
            given.ok_or_else(|| Refusal::missing("timeInForce"))
        }
        OrderType::Market | OrderType::StopLoss | OrderType::TakeProfit | OrderType::LimitMaker => match given {
            Some(_) => Err(not_required("timeInForce")),
            None => Ok(TimeInForce::Gtc),
        },
    }
}

fn only_where(params: &Params, name: &str, needed: bool) -> Result<Amount, Refusal> {
    if needed {
        return params.need_amount(name);
    }
    if params.text(name).is_some() { Err(not_required(name)) } else { Ok(Amount::ZERO) }
}

fn not_required(name: &str) -> Refusal {
    Refusal::bad(-1106, format!("Parameter '{name}' sent when not required."))
}

fn sized(params: &Params, mut new: NewOrder) -> Result<NewOrder, Refusal> {
    match (params.amount("quantity")?, params.amount("quoteOrderQty")?) {
        (Some(_), Some(_)) => return Err(not_required("quoteOrderQty")),
        (Some(quantity), None) => new.quantity = quantity,
        (None, Some(quote)) if new.kind == OrderType::Market => new.quote_quantity = quote,
        (None, Some(_)) => return Err(not_required("quoteOrderQty")),
        (None, None) => return Err(Refusal::missing("quantity")),
    }
    Ok(new)
}

fn pass_price(market: &Market, new: &NewOrder) -> Result<(), Refusal> {
    let spec = market.spec;
    let prices = [(new.kind.has_price(), new.price), (new.kind.is_conditional(), new.stop_price)];
    for price in prices.into_iter().filter_map(|(used, price)| used.then_some(price)) {
        if !price.is_positive() || !price.is_multiple_of(spec.tick) {
            return Err(Refusal::filter("PRICE_FILTER"));
        }
    }
    let (high, low) = (market.last.times_whole(PERCENT_PRICE_TIMES), new.price.times_whole(PERCENT_PRICE_TIMES));
    if new.kind.has_price() && (new.price > high || low < market.last) {
        return Err(Refusal::filter("PERCENT_PRICE_BY_SIDE"));
    }
    Ok(())
}

fn pass_size(market: &Market, new: &NewOrder) -> Result<(), Refusal> {
    let spec = market.spec;
    let by_quote = new.quote_quantity.is_positive();
    let fits =
        |quantity: Amount| quantity >= spec.step && quantity <= spec.quantity_max && quantity.is_multiple_of(spec.step);
    if !by_quote && !fits(new.quantity) {
        return Err(Refusal::filter("LOT_SIZE"));
    }
    if new.iceberg_quantity.is_positive() && (!fits(new.iceberg_quantity) || new.time_in_force != TimeInForce::Gtc) {
        return Err(Refusal::filter("ICEBERG_PARTS"));
    }
    let price = if new.kind.has_price() {
        new.price
    } else if new.kind.is_conditional() {
        new.stop_price
    } else {
        market.book.best_against(new.side, None).map_or(market.last, |(price, _)| price)
    };
    let notional = if by_quote { new.quote_quantity } else { price.times(new.quantity) };
    if notional < spec.notional_min {
        return Err(Refusal::filter("NOTIONAL"));
    }
    Ok(())
}

/// As `exchangeInfo` describes them; kept here so that filters and their description stay together.
pub fn described(market: &Market) -> serde_json::Value {
    let spec = market.spec;
    let times = Amount::whole(PERCENT_PRICE_TIMES);
    let part = Amount::whole(1).over(Amount::whole(PERCENT_PRICE_TIMES));
    serde_json::json!([
        { "filterType": "PRICE_FILTER", "minPrice": spec.tick, "maxPrice": "1000000.00000000", "tickSize": spec.tick },
        { "filterType": "LOT_SIZE", "minQty": spec.step, "maxQty": spec.quantity_max, "stepSize": spec.step },
        { "filterType": "MARKET_LOT_SIZE", "minQty": "0.00000000", "maxQty": spec.quantity_max, "stepSize": "0.00000000" },
        {
            "filterType": "PERCENT_PRICE_BY_SIDE", "bidMultiplierUp": times, "bidMultiplierDown": part,
            "askMultiplierUp": times, "askMultiplierDown": part, "avgPriceMins": 1,
        },
        {
            "filterType": "NOTIONAL", "minNotional": spec.notional_min, "applyMinToMarket": true,
            "maxNotional": "9000000.00000000", "applyMaxToMarket": false, "avgPriceMins": 1,
        },
        { "filterType": "ICEBERG_PARTS", "limit": 10 },
        { "filterType": "MAX_NUM_ORDERS", "maxNumOrders": OPEN_ORDERS_MAX },
    ])
}
