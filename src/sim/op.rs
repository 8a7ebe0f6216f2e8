//! Everything the exchange can be asked under `/api`, by REST route and by WebSocket method, with what each needs and costs: one
//! table for both doors.

use crate::sim::key::Permission;
use crate::sim::params::Params;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Ping,
    Time,
    ExchangeInfo,
    Depth,
    Klines,
    TickerPrice,
    TickerBook,
    TickerDay,
    AveragePrice,
    Account,
    Commission,
    PlaceOrder,
    TestOrder,
    QueryOrder,
    CancelOrder,
    OpenOrders,
    CancelAll,
    CancelReplace,
    Amend,
    AllOrders,
    MyTrades,
    OrderRate,
    /// Order lists come later; a client that asks is told so in the venue's manner.
    OrderList,
    /// The listen keys that the venue has retired.
    Retired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    Open,
    /// The key in the header is enough.
    KeyOnly,
    Signed(Permission),
}

impl Security {
    pub const READ: Self = Self::Signed(Permission::Reading);
    pub const TRADE: Self = Self::Signed(Permission::SpotTrading);
}

impl Op {
    pub fn by_route(method: &str, path: &str) -> Option<Self> {
        Some(match (method, path.strip_prefix("/api/v3/")?) {
            ("GET", "ping") => Self::Ping,
            ("GET", "time") => Self::Time,
            ("GET", "exchangeInfo") => Self::ExchangeInfo,
            ("GET", "depth") => Self::Depth,
            ("GET", "klines" | "uiKlines") => Self::Klines,
            ("GET", "ticker/price") => Self::TickerPrice,
            ("GET", "ticker/bookTicker") => Self::TickerBook,
            ("GET", "ticker/24hr") => Self::TickerDay,
            ("GET", "avgPrice") => Self::AveragePrice,
            ("GET", "account") => Self::Account,
            ("GET", "account/commission") => Self::Commission,
            ("POST", "order") => Self::PlaceOrder,
            ("POST", "order/test") => Self::TestOrder,
            ("GET", "order") => Self::QueryOrder,
            ("DELETE", "order") => Self::CancelOrder,
            ("GET", "openOrders") => Self::OpenOrders,
            ("DELETE", "openOrders") => Self::CancelAll,
            ("POST", "order/cancelReplace") => Self::CancelReplace,
            ("PUT", "order/amend/keepPriority") => Self::Amend,
            ("GET", "allOrders") => Self::AllOrders,
            ("GET", "myTrades") => Self::MyTrades,
            ("GET", "rateLimit/order") => Self::OrderRate,
            ("POST", "order/oco" | "orderList/oco" | "orderList/oto" | "orderList/otoco") => Self::OrderList,
            ("POST" | "PUT" | "DELETE", "userDataStream") => Self::Retired,
            _ => return None,
        })
    }

    pub fn by_ws_method(method: &str) -> Option<Self> {
        Some(match method {
            "ping" => Self::Ping,
            "time" => Self::Time,
            "exchangeInfo" => Self::ExchangeInfo,
            "depth" => Self::Depth,
            "klines" => Self::Klines,
            "ticker.price" => Self::TickerPrice,
            "ticker.book" => Self::TickerBook,
            "ticker.24hr" => Self::TickerDay,
            "avgPrice" => Self::AveragePrice,
            "account.status" => Self::Account,
            "account.commission" => Self::Commission,
            "order.place" => Self::PlaceOrder,
            "order.test" => Self::TestOrder,
            "order.status" => Self::QueryOrder,
            "order.cancel" => Self::CancelOrder,
            "openOrders.status" => Self::OpenOrders,
            "openOrders.cancelAll" => Self::CancelAll,
            "order.cancelReplace" => Self::CancelReplace,
            "order.amend.keepPriority" => Self::Amend,
            "allOrders" => Self::AllOrders,
            "myTrades" => Self::MyTrades,
            "account.rateLimits.orders" => Self::OrderRate,
            "orderList.place" | "orderList.place.oco" | "orderList.place.oto" | "orderList.place.otoco" => {
                Self::OrderList
            }
            "userDataStream.start" | "userDataStream.ping" | "userDataStream.stop" => Self::Retired,
            _ => return None,
        })
    }

    pub const fn security(self) -> Security {
        match self {
            Self::Ping
            | Self::Time
            | Self::ExchangeInfo
            | Self::Depth
            | Self::Klines
            | Self::TickerPrice
            | Self::TickerBook
            | Self::TickerDay
            | Self::AveragePrice
            | Self::Retired => Security::Open,
            Self::Account
            | Self::Commission
            | Self::QueryOrder
            | Self::OpenOrders
            | Self::AllOrders
            | Self::MyTrades
            | Self::OrderRate => Security::READ,
            Self::PlaceOrder
            | Self::TestOrder
            | Self::CancelOrder
            | Self::CancelAll
            | Self::CancelReplace
            | Self::Amend
            | Self::OrderList => Security::TRADE,
        }
    }

    /// Charged before it is done. What changes orders is free when it succeeds and costs 1 when it fails.
    pub fn weight(self, params: &Params) -> u32 {
        let one_symbol = params.text("symbol").is_some();
        match self {
            Self::Ping | Self::Time | Self::Retired | Self::TestOrder => 1,
            Self::ExchangeInfo | Self::Account | Self::AllOrders | Self::Commission => 20,
            Self::Depth => 5,
            Self::Klines | Self::AveragePrice => 2,
            Self::TickerPrice | Self::TickerBook => {
                if one_symbol {
                    2
                } else {
                    4
                }
            }
            Self::TickerDay => {
                if one_symbol {
                    2
                } else {
                    80
                }
            }
            Self::QueryOrder => 4,
            Self::OpenOrders => {
                if one_symbol {
                    6
                } else {
                    80
                }
            }
            Self::MyTrades => {
                if params.text("orderId").is_some() {
                    5
                } else {
                    20
                }
            }
            Self::OrderRate => 40,
            Self::PlaceOrder
            | Self::CancelOrder
            | Self::CancelAll
            | Self::CancelReplace
            | Self::Amend
            | Self::OrderList => 0,
        }
    }

    pub const fn places_order(self) -> bool {
        matches!(self, Self::PlaceOrder | Self::CancelReplace)
    }
}
