//! What a bot does next: each deal as the intent that tells of it and the request that does it, in the same terms.

use serde_json::{Value, json};

use crate::kernel::money::Dec;
use crate::sim::exchange::Exchange;
use crate::simulate::bot::{Bot, Own};
use crate::simulate::client::{Ask, Client, read};
use crate::simulate::setting::SYMBOLS;
use crate::simulate::world::World;

/// Orders of its own that a bot keeps in mind; the oldest is left alone from then on.
const OPEN_MAX: usize = 12;

pub struct Plan {
    pub intent: Value,
    pub ask: Ask,
    pub deal: Deal,
}

/// What kind of request it is, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deal {
    Place { symbol: &'static str, quantity: String },
    Cancel { order_id: i64 },
    CancelAll { symbol: &'static str },
    Amend { order_id: i64, quantity: String },
    Replace { order_id: i64, symbol: &'static str, quantity: String },
}

impl Deal {
    /// A cancel of all and an amendment let the venue make up the id.
    pub const fn takes_id(&self) -> bool {
        match self {
            Self::Place { .. } | Self::Cancel { .. } | Self::Replace { .. } => true,
            Self::CancelAll { .. } | Self::Amend { .. } => false,
        }
    }

    pub const fn id_param(&self) -> &'static str {
        "newClientOrderId"
    }
}

impl Bot {
    /// Takes to heart what came of a deal.
    pub fn settle(&mut self, deal: &Deal, answer: Option<&Value>) {
        match deal {
            Deal::Place { symbol, quantity } => self.note(symbol, quantity, answer),
            Deal::Cancel { order_id } => self.open.retain(|own| own.order_id != *order_id),
            Deal::CancelAll { symbol } => self.open.retain(|own| own.symbol != *symbol),
            Deal::Amend { order_id, quantity } => {
                for own in self.open.iter_mut().filter(|own| own.order_id == *order_id && answer.is_some()) {
                    (own.quantity, own.amended) = (quantity.clone(), true);
                }
            }
            Deal::Replace { order_id, symbol, quantity } => {
                self.open.retain(|own| own.order_id != *order_id);
                self.note(symbol, quantity, answer.map(|answer| &answer["newOrderResponse"]));
            }
        }
    }

    fn note(&mut self, symbol: &'static str, quantity: &str, answer: Option<&Value>) {
        let Some(answer) = answer else { return };
        let over = answer["status"].as_str().is_some_and(|status| status != "NEW" && status != "PARTIALLY_FILLED");
        let (Some(order_id), Some(id)) = (answer["orderId"].as_i64(), answer["clientOrderId"].as_str()) else { return };
        if over {
            return;
        }
        if self.open.len() == OPEN_MAX {
            self.open.remove(0);
        }
        let (client_id, quantity) = (id.to_owned(), quantity.to_owned());
        self.open.push(Own { symbol, order_id, client_id, quantity, amended: false });
    }
}

impl World {
    /// `None` where there is nothing to do of the kind that was drawn.
    pub fn plan(&mut self, bot: usize) -> Option<Plan> {
        let symbol = SYMBOLS[self.dice.below(2) as usize].0;
        let kind = self.dice.below(100);
        match kind {
            0..76 => self.place(symbol, kind),
            76..88 => {
                let own = self.own(bot)?;
                let (target, name) = self.target(&own);
                let intent = json!({ "kind": "cancel", "symbol": own.symbol, target.0: target.1 });
                let params = vec![("symbol", own.symbol.to_owned()), (name.0, name.1)];
                let ask = Ask { method: "DELETE", path: "/api/v3/order", params };
                Some(Plan { intent, ask, deal: Deal::Cancel { order_id: own.order_id } })
            }
            88..93 => self.amend(bot),
            93..98 => self.replace(bot),
            _ => {
                let intent = json!({ "kind": "cancel", "symbol": symbol, "all": true });
                let params = vec![("symbol", symbol.to_owned())];
                let ask = Ask { method: "DELETE", path: "/api/v3/openOrders", params };
                Some(Plan { intent, ask, deal: Deal::CancelAll { symbol } })
            }
        }
    }

    fn place(&mut self, symbol: &'static str, kind: u32) -> Option<Plan> {
        let (terms, params, quantity) = self.order(symbol, kind)?;
        let mut intent = terms;
        intent["kind"] = json!("place");
        intent["symbol"] = json!(symbol);
        let ask = Ask::place([vec![("symbol", symbol.to_owned())], params].concat());
        Some(Plan { intent, ask, deal: Deal::Place { symbol, quantity } })
    }

    /// One order's terms, as the wire and as the venue spell them.
    fn order(&mut self, symbol: &str, kind: u32) -> Option<(Value, Vec<(&'static str, String)>, String)> {
        let last = self.last_price(symbol)?;
        let buys = self.chance(50);
        let side = if buys { "BUY" } else { "SELL" };
        let quantity = self.quantity(symbol);
        let mut terms = json!({ "side": side });
        let mut params = vec![("side", side.to_owned())];
        let mut put = |wire: &str, venue: &'static str, value: String| {
            terms[wire] = json!(value);
            params.push((venue, value));
        };
        let near = |away: &str| priced(&last, if buys { plus(away) } else { minus(away) });
        let far = |away: &str| priced(&last, if buys { minus(away) } else { plus(away) });
        let (word, price, stop, lives) = match kind {
            0..20 => ("LIMIT", near("0.004"), None, Some("GTC")),
            20..26 => ("LIMIT", near("0.002"), None, Some("IOC")),
            26..46 => ("LIMIT", far("0.02"), None, Some("GTC")),
            46..52 => ("LIMIT", far("0.0005"), None, Some("GTC")),
            52..57 => ("LIMIT_MAKER", near("0.003"), None, None),
            57..62 => ("LIMIT_MAKER", far("0.01"), None, None),
            62..69 => ("STOP_LOSS_LIMIT", near("0.025"), near("0.02"), Some("GTC")),
            _ => ("MARKET", None, None, None),
        };
        put("type", "type", word.to_owned());
        if kind >= 73 {
            put("quote_quantity", "quoteOrderQty", "150".to_owned());
        } else {
            put("quantity", "quantity", quantity.clone());
        }
        for (wire, venue, value) in [("price", "price", price), ("stop_price", "stopPrice", stop)] {
            if let Some(value) = value {
                put(wire, venue, value);
            }
        }
        if let Some(lives) = lives {
            put("time_in_force", "timeInForce", lives.to_owned());
        }
        Some((terms, params, quantity))
    }

    fn amend(&mut self, bot: usize) -> Option<Plan> {
        let own = self.own(bot)?;
        let half = if own.symbol == "BTCUSDT" { "0.001" } else { "0.01" };
        let quantity: Dec = own.quantity.parse().ok()?;
        let smaller = quantity.checked_sub(half.parse().ok()?).filter(|rest| rest.is_positive())?.to_string();
        let ((wire, target), (venue, value)) = self.target(&own);
        let intent = json!({ "kind": "amend", "symbol": own.symbol, wire: target, "quantity": smaller });
        let params = vec![("symbol", own.symbol.to_owned()), (venue, value), ("newQty", smaller.clone())];
        let ask = Ask { method: "PUT", path: "/api/v3/order/amend/keepPriority", params };
        Some(Plan { intent, ask, deal: Deal::Amend { order_id: own.order_id, quantity: smaller } })
    }

    fn replace(&mut self, bot: usize) -> Option<Plan> {
        let own = self.own(bot)?;
        let ((wire, target), (venue, value)) = self.target(&own);
        let (terms, params, quantity) = self.order(own.symbol, 30)?;
        let cancel = json!({ wire: target });
        let intent = json!({ "kind": "cancel_replace", "symbol": own.symbol, "cancel": cancel, "place": terms });
        let venue = if venue == "orderId" { "cancelOrderId" } else { "cancelOrigClientOrderId" };
        let mode = ("cancelReplaceMode", "STOP_ON_FAILURE".to_owned());
        let params = [vec![("symbol", own.symbol.to_owned()), (venue, value), mode], params].concat();
        let ask = Ask { method: "POST", path: "/api/v3/order/cancelReplace", params };
        let deal = Deal::Replace { order_id: own.order_id, symbol: own.symbol, quantity };
        Some(Plan { intent, ask, deal })
    }

    fn own(&mut self, bot: usize) -> Option<Own> {
        let count = u32::try_from(self.bots[bot].open.len()).unwrap_or(0);
        let place = self.dice.below(count) as usize;
        self.bots[bot].open.get(place).cloned()
    }

    /// The order by its number or, while it goes by that, by its id: as the wire and as the venue name it.
    fn target(&mut self, own: &Own) -> ((&'static str, Value), (&'static str, String)) {
        if own.amended || self.chance(50) {
            (("order_id", json!(own.order_id)), ("orderId", own.order_id.to_string()))
        } else {
            (("orig_client_order_id", json!(own.client_id)), ("origClientOrderId", own.client_id.clone()))
        }
    }

    fn quantity(&mut self, symbol: &str) -> String {
        let steps = 2 + self.dice.below(8);
        if symbol == "BTCUSDT" { format!("0.00{steps}") } else { format!("0.0{steps}") }
    }

    pub fn last_price(&mut self, symbol: &str) -> Option<Dec> {
        last_price(&mut self.exchange, &self.thief, self.now, symbol)
    }
}

fn last_price(exchange: &mut Exchange, client: &Client, now: crate::kernel::time::Time, symbol: &str) -> Option<Dec> {
    let request = client.request("GET", "/api/v3/ticker/price", format!("symbol={symbol}"));
    read(exchange.http(now, &request)).ok()?["price"].as_str()?.parse().ok()
}

fn plus(part: &str) -> Option<Dec> {
    one().and_then(|one| one.checked_add(part.parse().ok()?))
}

fn minus(part: &str) -> Option<Dec> {
    one().and_then(|one| one.checked_sub(part.parse().ok()?))
}

fn one() -> Option<Dec> {
    "1".parse().ok()
}

/// A part of the last price, in whole cents.
pub fn priced(last: &Dec, part: Option<Dec>) -> Option<String> {
    Some(last.checked_mul(part?)?.rounded(2).to_string())
}
