//! Who is let in: key, address, permission, time, signature, in the venue's order and with its refusals.

use std::sync::Arc;

use crate::kernel::time::Time;
use crate::sim::exchange::{Caller, Exchange, HttpRequest};
use crate::sim::key::{ApiKey, Permission};
use crate::sim::op::Security;
use crate::sim::order::Actor;
use crate::sim::params::Params;
use crate::sim::refusal::Refusal;

const RECV_WINDOW_MS_DEFAULT: i64 = 5_000;
const RECV_WINDOW_MS_MAX: i64 = 60_000;

/// What a request shows to be let in.
pub(super) struct Credentials<'a> {
    pub api_key: Option<&'a str>,
    pub payload: &'a str,
    pub params: &'a Params,
    /// Whether the signed text has to be percent-encoded.
    pub encoded: bool,
    /// What a key that does not exist is told: not the same everywhere.
    pub unknown_key: fn() -> Refusal,
}

impl<'a> Credentials<'a> {
    pub fn of_ws(payload: &'a str, params: &'a Params) -> Self {
        let (api_key, unknown_key) = (params.text("apiKey"), Refusal::key_refused);
        Self { api_key, payload, params, encoded: false, unknown_key }
    }

    pub fn of_rest(
        request: &'a HttpRequest,
        payload: &'a str,
        params: &'a Params,
        unknown_key: fn() -> Refusal,
    ) -> Self {
        Self { api_key: request.api_key.as_deref(), payload, params, encoded: true, unknown_key }
    }
}

impl Exchange {
    /// Who is asking, if the operation needs to know.
    pub(super) fn let_in(
        &self,
        now: Time,
        security: Security,
        caller: &Caller,
        shown: &Credentials<'_>,
    ) -> Result<Option<Arc<Actor>>, Refusal> {
        let needs = match security {
            Security::Open => return Ok(None),
            Security::KeyOnly => None,
            Security::Signed(permission) => Some(permission),
        };
        let name = shown.api_key.filter(|key| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let name = name.ok_or_else(|| Refusal::new(401, -2014, "API-key format invalid."))?;
        if self.keys.get(name).is_none() {
            return Err((shown.unknown_key)());
        }
        let key = self.usable_key(name, needs, caller)?;
        if needs.is_some() {
            let signature = shown.params.need("signature")?;
            self.check_time(now, shown.params)?;
            if shown.encoded && !is_encoded(shown.payload) || !key.proof.accepts(shown.payload, signature) {
                return Err(Refusal::bad(-1022, "Signature for this request is not valid."));
            }
        }
        Ok(Some(actor(key, caller)))
    }

    /// One refusal for three reasons, as the venue has it: no such key, not from there, not for that.
    pub(super) fn usable_key(
        &self,
        api_key: &str,
        needs: Option<Permission>,
        caller: &Caller,
    ) -> Result<&ApiKey, Refusal> {
        let key = self.keys.get(api_key).ok_or_else(Refusal::key_refused)?;
        let usable = key.origins.admit(caller.address) && needs.is_none_or(|needs| key.may(needs));
        if usable { Ok(key) } else { Err(Refusal::key_refused()) }
    }

    pub(super) fn check_time(&self, now: Time, params: &Params) -> Result<(), Refusal> {
        let sent = params.time("timestamp")?.ok_or_else(|| Refusal::missing("timestamp"))?;
        let window = match params.text("recvWindow") {
            None => RECV_WINDOW_MS_DEFAULT,
            Some(text) => {
                let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
                whole.parse::<i64>().map_err(|_| Refusal::illegal("recvWindow", "^[0-9]{1,20}$"))?
            }
        };
        if window > RECV_WINDOW_MS_MAX {
            return Err(Refusal::bad(-1131, "'recvWindow' must be less than 60000."));
        }
        let ours = self.venue_time(now).micros();
        if sent.micros() >= ours + 1_000_000 {
            return Err(Refusal::bad(-1021, "Timestamp for this request was 1000ms ahead of the server's time."));
        }
        if ours - sent.micros() > window.max(0) * 1_000 {
            return Err(Refusal::bad(-1021, "Timestamp for this request is outside of the recvWindow."));
        }
        Ok(())
    }
}

pub(super) fn actor(key: &ApiKey, caller: &Caller) -> Arc<Actor> {
    let (key, uid) = (key.name.clone(), key.uid);
    Arc::new(Actor { uid, key, address: caller.address, agent: caller.agent.clone() })
}

/// What a REST signature covers: query then body as sent, without the signature itself, wherever it stands.
pub(super) fn rest_payload(query: &str, body: &str) -> String {
    let unsigned =
        |form: &str| form.split('&').filter(|pair| !pair.starts_with("signature=")).collect::<Vec<_>>().join("&");
    unsigned(query) + &unsigned(body)
}

/// Encoders differ in what they leave plain; none of them leaves these. A `+` stands for a space and so is encoded.
fn is_encoded(payload: &str) -> bool {
    payload.bytes().all(|byte| byte.is_ascii_graphic() && !b"@,:;<>[]{}|\\^`\"#".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_has_to_be_encoded() {
        for (payload, encoded) in [
            ("email=main%2Bbot%40example.com&timestamp=1", true),
            ("name=two+words&odd=!*'()~", true),
            ("email=main+bot@example.com", false),
            ("ipAddress=127.0.0.1,127.0.0.2", false),
            ("symbol=１２", false),
        ] {
            assert_eq!(is_encoded(payload), encoded, "{payload}");
        }
    }

    #[test]
    fn leaves_the_signature_out_of_what_is_signed() {
        assert_eq!(rest_payload("a=1&signature=x&b=2", "c=3&signature=y"), "a=1&b=2c=3");
    }
}
