//! What is asked of the venue, as values, with what each costs of the shared request weight.

use serde_json::json;

use crate::kernel::event::{OrderRef, ReadRequest};
use crate::kernel::time::Time;
use crate::venue::binance::sign::{ApiCredential, percent_encoded, rest_query, websocket_payload};

/// Each request of the WebSocket API that we make costs this.
pub const WEBSOCKET_WEIGHT: u32 = 2;

/// Asks for an account's events on this connection: any key type, no logon.
pub fn subscribe(id: u64, credential: &ApiCredential, at: Time) -> String {
    let params = [("apiKey", credential.api_key().to_owned()), ("timestamp", at.millis().to_string())];
    let signature = credential.sign(&websocket_payload(&params));
    json!({
        "id": id.to_string(),
        "method": "userDataStream.subscribe.signature",
        "params": {"apiKey": credential.api_key(), "timestamp": at.millis(), "signature": signature},
    })
    .to_string()
}

/// Asks which subscriptions this connection has.
pub fn subscriptions(id: u64) -> String {
    json!({"id": id.to_string(), "method": "session.subscriptions", "params": {}}).to_string()
}

pub fn unsubscribe(id: u64, subscription: u64) -> String {
    json!({
        "id": id.to_string(),
        "method": "userDataStream.unsubscribe",
        "params": {"subscriptionId": subscription},
    })
    .to_string()
}

/// A GET of the REST API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    pub path: &'static str,
    pub params: Vec<(&'static str, String)>,
    pub weight: u32,
}

impl Get {
    pub const fn server_time() -> Self {
        Self { path: "/api/v3/time", params: Vec::new(), weight: 1 }
    }

    pub fn of(request: &ReadRequest) -> Self {
        match request {
            ReadRequest::OpenOrders => Self { path: "/api/v3/openOrders", params: Vec::new(), weight: 80 },
            ReadRequest::Balances => {
                let params = vec![("omitZeroBalances", "true".to_owned())];
                Self { path: "/api/v3/account", params, weight: 20 }
            }
            ReadRequest::Order { symbol, order } => {
                let order = match order {
                    OrderRef::Id(id) => ("orderId", id.to_string()),
                    OrderRef::Client(id) => ("origClientOrderId", id.to_string()),
                };
                Self { path: "/api/v3/order", params: vec![("symbol", symbol.to_string()), order], weight: 4 }
            }
        }
    }

    /// The query with its timestamp and signature.
    pub fn signed(&self, credential: &ApiCredential, at: Time) -> String {
        let mut params = self.params.clone();
        params.push(("timestamp", at.millis().to_string()));
        let query = rest_query(&params);
        let signature = percent_encoded(&credential.sign(&query));
        format!("{query}&signature={signature}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::order::{ClientId, Symbol};

    const API_KEY: &str = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A";
    const SECRET: &str = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j";

    fn credential() -> ApiCredential {
        ApiCredential::new(API_KEY.into(), SECRET.into()).unwrap()
    }

    #[test]
    fn subscribes_with_the_signature_in_the_parameters() {
        let request: serde_json::Value =
            serde_json::from_str(&subscribe(7, &credential(), Time::from_millis(1_747_385_641_636))).unwrap();
        assert_eq!(request["id"], "7");
        assert_eq!(request["method"], "userDataStream.subscribe.signature");
        assert_eq!(
            request["params"],
            json!({
                "apiKey": API_KEY,
                "timestamp": 1_747_385_641_636_i64,
                "signature": "681110a6057ad58657af22f5640fab9dd17418834cdfccdc81be8b0f7b2cde3e",
            })
        );
    }

    #[test]
    fn reads_are_signed_over_what_is_sent() {
        let order =
            ReadRequest::Order { symbol: Symbol::new("１BTC"), order: OrderRef::Client(ClientId::new("a/b+c")) };
        let query = Get::of(&order).signed(&credential(), Time::from_millis(1));
        let (payload, signature) = query.split_once("&signature=").unwrap();
        assert_eq!(payload, "symbol=%EF%BC%91BTC&origClientOrderId=a%2Fb%2Bc&timestamp=1");
        assert_eq!(signature, credential().sign(payload));
        assert_eq!(Get::of(&ReadRequest::OpenOrders).weight, 80);
        assert_eq!(Get::of(&ReadRequest::Balances).params, [("omitZeroBalances", "true".to_owned())]);
    }
}
