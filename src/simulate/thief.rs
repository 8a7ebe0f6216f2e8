//! The thief: he holds a copy of the bots' exchange key, and sometimes the master's login, with which he makes a key of his
//! own. He sees what the exchange shows to the stolen key, and what he does stands in the exchange's ledger under his name.

use std::time::Duration;

use serde_json::{Value, json};

use crate::simulate::client::{Ask, Client, control, read};
use crate::simulate::script::Theft;
use crate::simulate::setting::{SYMBOLS, THIEF_AGENT, THIEFS_HOST};
use crate::simulate::world::{Happening, World};

const THIN_PAIRS: [(&str, &str); 2] = [("VIABTC", "12000"), ("PERPUSDT", "400")];

pub enum ThiefTurn {
    Begin(Theft),
    Arrives(Ask),
    /// In the exchange's own pages.
    MakesKey,
    /// With the key that he made, so many times more.
    TradesOn {
        left: u32,
    },
}

/// Orders that he places with a key of his own.
const TRADES: u32 = 4;

impl World {
    pub fn thief(&mut self, turn: ThiefTurn) {
        match turn {
            ThiefTurn::Begin(theft) => self.steal(theft),
            ThiefTurn::Arrives(ask) => {
                let request = self.thief.signed(&ask, self.now);
                // Whether it worked stands in the ledger.
                drop(read(self.exchange.http(self.now, &request)));
                self.pump();
            }
            ThiefTurn::MakesKey => self.make_key(),
            ThiefTurn::TradesOn { left } => self.trade_on(left),
        }
    }

    /// Once; the exchange shows it in its list like any other.
    fn make_key(&mut self) {
        if self.made_key.is_some() {
            return;
        }
        let body = json!({ "account": self.means.account, "name": "ops" }).to_string();
        let made = control(&mut self.exchange, self.now, "POST", "keys", "", &body);
        if let (Some(key), Some(secret)) = (made["api_key"].as_str(), made["secret"].as_str()) {
            self.made_key = Client::new(key, secret, THIEF_AGENT, THIEFS_HOST);
        }
        self.after(Duration::from_millis(700), Happening::Thief(ThiefTurn::TradesOn { left: TRADES }));
    }

    fn trade_on(&mut self, left: u32) {
        let symbol = SYMBOLS[self.dice.below(2) as usize].0;
        let ask = self.hidden(symbol);
        if let Some(client) = &self.made_key {
            let request = client.signed(&ask, self.now);
            drop(read(self.exchange.http(self.now, &request)));
            self.pump();
        }
        if left > 1 {
            let pause = self.draw((500, 4_000));
            self.after(pause, Happening::Thief(ThiefTurn::TradesOn { left: left - 1 }));
        }
    }

    fn steal(&mut self, theft: Theft) {
        let symbol = SYMBOLS[self.dice.below(2) as usize].0;
        match theft {
            Theft::ThinPair { orders } => {
                let (symbol, quantity) = THIN_PAIRS[self.dice.below(2) as usize];
                for number in 0..orders {
                    self.later(number, market(symbol, "SELL", quantity));
                }
            }
            Theft::Hidden { orders } => {
                for number in 0..orders {
                    let ask = self.hidden(symbol);
                    self.later(number, ask);
                }
            }
            Theft::ReplayedId => {
                let closed = self.bot_orders("/api/v3/allOrders", symbol, |order| order["status"] == "FILLED");
                self.under_ids(&closed, symbol);
            }
            Theft::BorrowedId => {
                let other = SYMBOLS[usize::from(symbol == SYMBOLS[0].0)].0;
                let open = self.bot_orders("/api/v3/openOrders", other, |_| true);
                self.under_ids(&open, symbol);
            }
            Theft::ForgedId => {
                let head = ["Q", "R", "S"][self.dice.below(3) as usize];
                let id = format!("{head}{}", self.dice.base62(29) + "A");
                let ask = with_id(self.hidden(symbol), &id);
                self.later(0, ask);
            }
            Theft::CancelsThenSells => self.cancel_then_sell(symbol),
            Theft::CancelsAll => {
                let params = vec![("symbol", symbol.to_owned())];
                self.later(0, Ask { method: "DELETE", path: "/api/v3/openOrders", params });
            }
            Theft::Amends => {
                let open = self.bot_orders("/api/v3/openOrders", symbol, |_| true);
                let quantity = if symbol == "BTCUSDT" { "0.0005" } else { "0.005" };
                for order in open.iter().take(1) {
                    let path = "/api/v3/order/amend/keepPriority";
                    self.later(0, on_order("PUT", path, symbol, order, Some(quantity)));
                }
            }
            Theft::Stops { orders } => {
                for number in 0..orders {
                    let ask = self.stop_order(symbol);
                    self.later(number, ask);
                }
            }
            Theft::OutsideLimits => {
                let quantity = if symbol == "BTCUSDT" { "0.3" } else { "5" };
                self.later(0, market(symbol, "SELL", quantity));
            }
        }
    }

    fn cancel_then_sell(&mut self, symbol: &'static str) {
        let open = self.bot_orders("/api/v3/openOrders", symbol, |_| true);
        for (number, order) in (0..).zip(open.iter().take(3)) {
            self.later(number, on_order("DELETE", "/api/v3/order", symbol, order, None));
        }
        let quantity = if symbol == "BTCUSDT" { "0.04" } else { "0.9" };
        self.later(3, market(symbol, "SELL", quantity));
    }

    fn later(&mut self, number: u32, ask: Ask) {
        let step = self.draw((50, 900));
        let at = self.now + step + Duration::from_millis(u64::from(number) * 700);
        self.at(at, Happening::Thief(ThiefTurn::Arrives(ask)));
    }

    /// An order as a bot might place it, under an id as the venue makes them up.
    fn hidden(&mut self, symbol: &'static str) -> Ask {
        let quantity = if symbol == "BTCUSDT" { "0.004" } else { "0.04" };
        if self.chance(50) {
            return market(symbol, if self.chance(50) { "SELL" } else { "BUY" }, quantity);
        }
        let last = self.last_price(symbol);
        let part = ["0.98", "1.003"][self.dice.below(2) as usize].parse().ok();
        let price = last.and_then(|last| crate::simulate::trading::priced(&last, part)).unwrap_or_default();
        Ask::place(vec![
            ("symbol", symbol.to_owned()),
            ("side", "BUY".to_owned()),
            ("type", "LIMIT".to_owned()),
            ("timeInForce", "GTC".to_owned()),
            ("quantity", quantity.to_owned()),
            ("price", price),
        ])
    }

    /// Below the last price, as it protects who holds.
    fn stop_order(&mut self, symbol: &'static str) -> Ask {
        let last = self.last_price(symbol);
        let part = |part: &str| {
            let part = part.parse().ok();
            last.and_then(|last| crate::simulate::trading::priced(&last, part)).unwrap_or_default()
        };
        let quantity = if symbol == "BTCUSDT" { "0.004" } else { "0.04" };
        let terms = [
            ("symbol", symbol),
            ("side", "SELL"),
            ("type", "STOP_LOSS_LIMIT"),
            ("timeInForce", "GTC"),
            ("quantity", quantity),
            ("price", &part("0.965")),
            ("stopPrice", &part("0.97")),
        ];
        Ask::place(terms.map(|(name, value)| (name, value.to_owned())).to_vec())
    }

    /// The newest of them goes first.
    fn under_ids(&mut self, orders: &[Value], symbol: &'static str) {
        let Some(order) = orders.last() else { return };
        let text = |name: &str| order[name].as_str().unwrap_or_default().to_owned();
        // Sometimes with the very terms of the order whose id it is.
        let ask = if self.chance(50) && order["type"] == "LIMIT" && order["symbol"] == symbol {
            Ask::place(vec![
                ("symbol", symbol.to_owned()),
                ("side", text("side")),
                ("type", "LIMIT".to_owned()),
                ("timeInForce", text("timeInForce")),
                ("quantity", text("origQty")),
                ("price", text("price")),
            ])
        } else {
            self.hidden(symbol)
        };
        let ask = with_id(ask, &text("clientOrderId"));
        self.later(0, ask);
    }

    fn bot_orders(&mut self, path: &'static str, symbol: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let request = self.thief.signed(&Ask::get(path, vec![("symbol", symbol.to_owned())]), self.now);
        let orders = read(self.exchange.http(self.now, &request)).unwrap_or(Value::Null);
        orders.as_array().into_iter().flatten().filter(|order| wanted(order)).cloned().collect()
    }
}

fn market(symbol: &str, side: &str, quantity: &str) -> Ask {
    Ask::place(vec![
        ("symbol", symbol.to_owned()),
        ("side", side.to_owned()),
        ("type", "MARKET".to_owned()),
        ("quantity", quantity.to_owned()),
    ])
}

fn with_id(mut ask: Ask, id: &str) -> Ask {
    ask.params.push(("newClientOrderId", id.to_owned()));
    ask
}

fn on_order(method: &'static str, path: &'static str, symbol: &str, order: &Value, quantity: Option<&str>) -> Ask {
    let id = order["orderId"].as_i64().unwrap_or(0).to_string();
    let mut params = vec![("symbol", symbol.to_owned()), ("orderId", id)];
    params.extend(quantity.map(|quantity| ("newQty", quantity.to_owned())));
    Ask { method, path, params }
}
