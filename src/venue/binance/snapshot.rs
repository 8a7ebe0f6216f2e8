//! What a signed read answered. Whatever is not wholly readable is an error, so that it becomes *unknown* and never
//! *empty*.

use crate::kernel::event::{OrderSnapshot, ReadOutcome, ReadRequest, TagCheck};
use crate::kernel::money::Dec;
use crate::kernel::order::{Asset, ClientId, OrderId, OrderStatus, OrderType, Side, StpMode, Symbol, TimeInForce};
use crate::kernel::report::Balance;
use crate::kernel::time::Time;
use crate::venue::binance::frame::{VenueError, read_error};
use crate::venue::binance::json::{self, Fields, Kept};

pub fn server_time(body: &str) -> Result<Time, Kept> {
    json::parse(body)?.object("the answer")?.time("serverTime")
}

pub fn error(body: &str) -> Result<VenueError, Kept> {
    read_error(json::parse(body)?.object("the answer")?)
}

/// The body of a read that the venue granted.
pub fn outcome(request: &ReadRequest, body: &str) -> Result<ReadOutcome, Kept> {
    let value = json::parse(body)?;
    Ok(match request {
        ReadRequest::OpenOrders => {
            let orders = value.list("the answer")?.iter().map(|row| order(row.object("an order")?));
            ReadOutcome::OpenOrders(orders.collect::<Result<_, Kept>>()?)
        }
        ReadRequest::Balances => {
            let rows = value.object("the answer")?.list("balances")?.iter();
            ReadOutcome::Balances(rows.map(|row| balance(row.object("a balance")?)).collect::<Result<_, Kept>>()?)
        }
        ReadRequest::Order { .. } => ReadOutcome::Order(Box::new(order(value.object("the answer")?)?)),
    })
}

fn order(fields: &Fields<'_>) -> Result<OrderSnapshot, Kept> {
    Ok(OrderSnapshot {
        symbol: Symbol::new(fields.text("symbol")?),
        order_id: OrderId(fields.int("orderId")?),
        client_order_id: ClientId::new(fields.text("clientOrderId")?),
        side: fields.word("side", Side::from_word)?,
        order_type: fields.word("type", OrderType::from_word)?,
        time_in_force: fields.word("timeInForce", TimeInForce::from_word)?,
        status: fields.word("status", OrderStatus::from_word)?,
        price: fields.decimal("price")?,
        quantity: fields.decimal("origQty")?,
        executed_quantity: fields.decimal("executedQty")?,
        executed_quote: fields.decimal("cummulativeQuoteQty")?,
        quote_quantity: fields.decimal_if_any("origQuoteOrderQty")?.unwrap_or(Dec::ZERO),
        stop_price: fields.decimal_if_any("stopPrice")?.unwrap_or(Dec::ZERO),
        iceberg_quantity: fields.decimal_if_any("icebergQty")?.unwrap_or(Dec::ZERO),
        trailing_delta: fields.id_if_any("trailingDelta")?,
        strategy_id: fields.int_if_any("strategyId")?,
        stp_mode: fields.word_if_any("selfTradePreventionMode", StpMode::from_word)?,
        list_id: fields.id_if_any("orderListId")?,
        // The documented answer names pegs, but no recorded one shows how: unread, a pegged order is judged by the rest.
        peg: None,
        created_at: fields.time("time")?,
        tag: TagCheck::Absent,
    })
}

fn balance(fields: &Fields<'_>) -> Result<Balance, Kept> {
    Ok(Balance {
        asset: Asset::new(fields.text("asset")?),
        free: fields.decimal("free")?,
        locked: fields.decimal("locked")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::event::OrderRef;

    /// The documentation's sample of an order query.
    const ORDER: &str = r#"{"symbol":"LTCBTC","orderId":1,"orderListId":-1,"clientOrderId":"myOrder1","price":"0.1",
        "origQty":"1.0","executedQty":"0.0","cummulativeQuoteQty":"0.0","status":"NEW","timeInForce":"GTC",
        "type":"LIMIT","side":"BUY","stopPrice":"0.0","icebergQty":"0.0","time":1499827319559,
        "updateTime":1499827319559,"isWorking":true,"workingTime":1499827319559,"origQuoteOrderQty":"0.000000",
        "selfTradePreventionMode":"NONE"}"#;

    #[test]
    fn reads_orders_and_balances() {
        let ReadOutcome::OpenOrders(orders) = outcome(&ReadRequest::OpenOrders, &format!("[{ORDER},{ORDER}]")).unwrap()
        else {
            panic!("open orders were asked for");
        };
        assert_eq!(orders.len(), 2);
        assert_eq!(orders[0].client_order_id, ClientId::new("myOrder1"));
        assert_eq!(orders[0].price.to_string(), "0.1");
        assert_eq!(orders[0].list_id, None);
        assert_eq!(orders[0].stp_mode, Some(StpMode::None));
        assert_eq!(orders[0].created_at, Time::from_millis(1_499_827_319_559));

        let account = r#"{"makerCommission":15,"uid":354937868,"balances":[
            {"asset":"BTC","free":"4723846.89208129","locked":"0.00000000"}],"permissions":["SPOT"]}"#;
        let ReadOutcome::Balances(balances) = outcome(&ReadRequest::Balances, account).unwrap() else {
            panic!("balances were asked for");
        };
        assert_eq!(balances[0].free.to_string(), "4723846.89208129");
    }

    #[test]
    fn an_unreadable_row_makes_the_whole_read_fail() {
        let odd = ORDER.replace("\"NEW\"", "\"SLEEPING\"");
        assert!(outcome(&ReadRequest::OpenOrders, &format!("[{ORDER},{odd}]")).is_err());
        assert!(outcome(&ReadRequest::OpenOrders, "{}").is_err());
        assert!(outcome(&ReadRequest::Balances, r#"{"uid":1}"#).is_err());
        let one = ReadRequest::Order { symbol: Symbol::new("LTCBTC"), order: OrderRef::Id(OrderId(1)) };
        assert!(outcome(&one, "").is_err());
        assert_eq!(error(r#"{"code":-2013,"msg":"Order does not exist."}"#).unwrap().code, -2013);
    }
}
