//! What the exchange can be asked under `/sapi`: its own table, since permissions, weights and refusals differ there.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::kernel::time::Time;
use crate::sim::credentials::{Credentials, rest_payload};
use crate::sim::exchange::{Exchange, HttpAnswer, HttpRequest};
use crate::sim::key::Permission;
use crate::sim::op::Security;
use crate::sim::order::Actor;
use crate::sim::params::Params;
use crate::sim::refusal::Refusal;
use crate::sim::sapi_limits::Payer;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SapiOp {
    /// What ccxt asks at start; it accepts the empty answer.
    Coins,
    TradeFees,
    /// The header alone opens it: good for asking whether a key lives. Nothing trades on margin here.
    MarginPairs,
    IsolatedPairs,
    KeyRestrictions,
    ListKeys,
    CreateKey,
    DeleteKey,
    PermitKey,
    ShowAddresses,
    RestrictAddresses,
    DeleteAddresses,
    UniversalTransfer,
    TransferHistory,
}

/// Who pays for a request, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    Address(u32),
    Account(u32),
}

impl SapiOp {
    pub fn by_route(method: &str, path: &str) -> Option<Self> {
        Some(match (method, path.strip_prefix("/sapi/")?) {
            ("GET", "v1/capital/config/getall") => Self::Coins,
            ("GET", "v1/asset/tradeFee") => Self::TradeFees,
            ("GET", "v1/margin/allPairs") => Self::MarginPairs,
            ("GET", "v1/margin/isolated/allPairs") => Self::IsolatedPairs,
            ("GET", "v1/account/apiRestrictions") => Self::KeyRestrictions,
            ("GET", "v1/sub-account/subAccountApi") => Self::ListKeys,
            ("POST", "v1/sub-account/subAccountApi") => Self::CreateKey,
            ("DELETE", "v1/sub-account/subAccountApi") => Self::DeleteKey,
            ("POST", "v1/sub-account/subAccountApiPermission") => Self::PermitKey,
            ("GET", "v1/sub-account/subAccountApi/ipRestriction") => Self::ShowAddresses,
            ("POST", "v2/sub-account/subAccountApi/ipRestriction") => Self::RestrictAddresses,
            ("DELETE", "v1/sub-account/subAccountApi/ipRestriction/ipList") => Self::DeleteAddresses,
            ("POST", "v1/sub-account/universalTransfer") => Self::UniversalTransfer,
            ("GET", "v1/sub-account/universalTransfer") => Self::TransferHistory,
            _ => return None,
        })
    }

    /// Where the documents disagree on what a key of the master needs, the stricter word counts.
    pub const fn security(self) -> Security {
        match self {
            Self::MarginPairs | Self::IsolatedPairs => Security::KeyOnly,
            Self::Coins
            | Self::TradeFees
            | Self::KeyRestrictions
            | Self::ListKeys
            | Self::ShowAddresses
            | Self::TransferHistory => Security::READ,
            Self::CreateKey | Self::DeleteKey | Self::PermitKey | Self::RestrictAddresses | Self::DeleteAddresses => {
                Security::TRADE
            }
            Self::UniversalTransfer => Security::Signed(Permission::InternalTransfer),
        }
    }

    pub const fn cost(self) -> Cost {
        match self {
            Self::Coins | Self::IsolatedPairs => Cost::Address(10),
            Self::TradeFees | Self::MarginPairs | Self::KeyRestrictions | Self::TransferHistory => Cost::Address(1),
            Self::ListKeys
            | Self::CreateKey
            | Self::DeleteKey
            | Self::PermitKey
            | Self::ShowAddresses
            | Self::RestrictAddresses
            | Self::DeleteAddresses => Cost::Account(3_000),
            Self::UniversalTransfer => Cost::Account(360),
        }
    }
}

impl Exchange {
    pub(super) fn sapi(&mut self, now: Time, request: &HttpRequest, params: &Params) -> HttpAnswer {
        let mut headers = Vec::new();
        let result = self.sapi_done(now, request, params, &mut headers);
        HttpAnswer::new(now, result, headers)
    }

    fn sapi_done(
        &mut self,
        now: Time,
        request: &HttpRequest,
        params: &Params,
        headers: &mut Vec<(&'static str, String)>,
    ) -> Result<Value, Refusal> {
        self.refuse_held(now)?;
        let address = request.caller.address;
        self.limits.refuse_banned(now, address)?;
        let op = SapiOp::by_route(&request.method, &request.path).ok_or_else(Refusal::no_such_endpoint)?;
        let mut charge = |exchange: &mut Self, payer: Payer, weight: u32| {
            let (header, room) = exchange.sapi_limits.charge(now, op, payer, weight);
            headers.push(header);
            room.map_err(|refusal| exchange.limits.hold(now, address, refusal))
        };
        if let Cost::Address(weight) = op.cost() {
            charge(self, Payer::Address(address), weight)?;
        }
        let payload = rest_payload(&request.query, &request.body);
        let shown = Credentials::of_rest(request, &payload, params, Refusal::unknown_key);
        let by = self.let_in(now, op.security(), &request.caller, &shown)?.ok_or_else(Refusal::key_refused)?;
        if let Cost::Account(weight) = op.cost() {
            charge(self, Payer::Account(by.uid), weight)?;
        }
        self.sapi_perform(now, op, params, &by, request.api_key.as_deref().unwrap_or_default())
    }

    fn sapi_perform(
        &mut self,
        now: Time,
        op: SapiOp,
        params: &Params,
        by: &Arc<Actor>,
        api_key: &str,
    ) -> Result<Value, Refusal> {
        match op {
            SapiOp::Coins | SapiOp::TradeFees | SapiOp::MarginPairs | SapiOp::IsolatedPairs => Ok(json!([])),
            SapiOp::KeyRestrictions => self.key_restrictions(api_key),
            SapiOp::ListKeys => self.list_keys(by, params),
            SapiOp::CreateKey => self.create_key(now, by, params),
            SapiOp::DeleteKey => self.delete_key(now, by, params),
            SapiOp::PermitKey => self.permit_key(now, by, params),
            SapiOp::ShowAddresses => self.show_addresses(by, params),
            SapiOp::RestrictAddresses => self.restrict_addresses(now, by, params),
            SapiOp::DeleteAddresses => self.delete_addresses(now, by, params),
            SapiOp::UniversalTransfer => self.universal_transfer(now, by, params),
            SapiOp::TransferHistory => self.transfer_history(now, by, params),
        }
    }

    /// The key that signs, and no other.
    fn key_restrictions(&self, api_key: &str) -> Result<Value, Refusal> {
        let key = self.keys.get(api_key).ok_or_else(Refusal::unknown_key)?;
        Ok(json!({
            "ipRestrict": key.origins.are_restricted(),
            "createTime": key.created.millis(),
            "enableReading": key.may(Permission::Reading),
            "enableSpotAndMarginTrading": key.may(Permission::SpotTrading),
            "enableWithdrawals": key.may(Permission::Withdrawals),
            "enableInternalTransfer": key.may(Permission::InternalTransfer),
            "enableMargin": key.may(Permission::Margin),
            "enableFutures": key.may(Permission::Futures),
            "permitsUniversalTransfer": key.may(Permission::UniversalTransfer),
            "enableVanillaOptions": key.may(Permission::VanillaOptions),
            "enableFixApiTrade": false,
            "enableFixReadOnly": false,
            "enablePortfolioMarginTrading": false,
        }))
    }
}
