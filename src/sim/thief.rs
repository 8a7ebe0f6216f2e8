//! Somebody with a stolen copy of the bot's exchange key, as a separate client over sockets: sells through a thin
//! pair in several orders, then sends one order that carries the client order id and the price of a bot's order that
//! has just been filled, as a thief would who hopes to pass for the bot. With the master's key he makes a key of his
//! own, which outlives the stolen one.

use reqwest::Method;
use serde_json::Value;

use crate::sim::client::{ClientError, Credential, RestClient};

#[derive(Debug, Clone)]
pub struct Plan {
    pub thin_symbol: String,
    /// How many orders, and how much each sells of the thin pair's base asset.
    pub orders: u32,
    pub quantity: String,
    /// Where the bot trades.
    pub bot_symbol: String,
}

/// What was done, for who judges it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loot {
    /// Symbol, order id and client order id of each order that the exchange took.
    pub orders: Vec<(String, i64, String)>,
    /// The client order id that was used a second time, if a filled order of the bot was found.
    pub replayed: Option<String>,
}

pub async fn steal(client: &RestClient, plan: &Plan) -> Result<Loot, ClientError> {
    let mut loot = Loot::default();
    for _ in 0..plan.orders {
        let order = [
            ("symbol", plan.thin_symbol.as_str()),
            ("side", "SELL"),
            ("type", "MARKET"),
            ("quantity", plan.quantity.as_str()),
        ];
        note(&mut loot, &client.place(&order).await?);
    }
    let history = client.all_orders(&plan.bot_symbol).await?;
    let Some(filled) = newest_filled_limit(&history) else { return Ok(loot) };
    let text = |name: &str| filled[name].as_str().unwrap_or_default();
    let order = [
        ("symbol", plan.bot_symbol.as_str()),
        ("side", text("side")),
        ("type", "LIMIT"),
        ("timeInForce", "GTC"),
        ("quantity", text("origQty")),
        ("price", text("price")),
        ("newClientOrderId", text("clientOrderId")),
    ];
    note(&mut loot, &client.place(&order).await?);
    loot.replayed = Some(text("clientOrderId").to_owned());
    Ok(loot)
}

/// With a stolen key of the master: a new key of the sub-account, usable from anywhere.
pub async fn plant_key(master: &RestClient, email: &str, name: &str) -> Result<Credential, ClientError> {
    let wanted = [("email", email), ("apiName", name), ("status", "1"), ("canTrade", "true")];
    let made = master.signed(Method::POST, "/sapi/v1/sub-account/subAccountApi", &wanted).await?;
    let text = |field: &str| made[field].as_str().unwrap_or_default().to_owned();
    Ok(Credential { api_key: text("apiKey"), secret: text("secretKey") })
}

fn newest_filled_limit(history: &Value) -> Option<&Value> {
    let orders = history.as_array()?;
    orders.iter().rev().find(|order| order["status"] == "FILLED" && order["type"] == "LIMIT")
}

fn note(loot: &mut Loot, answer: &Value) {
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    loot.orders.push((text("symbol"), answer["orderId"].as_i64().unwrap_or_default(), text("clientOrderId")));
}
