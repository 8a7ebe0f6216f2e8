//! Posts to the owner's webhook: JSON, signed, so that the receiver knows who sent it and when.
//!
//! The receiver recomputes `v1=` + hex of HMAC-SHA-256 under the shared secret over the timestamp header, a dot and
//! the body as it came, compares in constant time, and refuses an old timestamp. Nothing is retried or paced here.

use std::time::Duration;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

use crate::kernel::channel::{HookPost, PostOutcome};
use crate::kernel::time::Time;
use crate::outlet::telegram::network_reason;

/// Milliseconds since the epoch, UTC.
pub const TIMESTAMP_HEADER: &str = "X-Countersign-Timestamp";
pub const SIGNATURE_HEADER: &str = "X-Countersign-Signature";
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// Where the receiver asks for a rest and does not say how long.
const REST_SECS: u32 = 30;

pub struct WebhookOutlet {
    client: reqwest::Client,
    url: reqwest::Url,
    secret: SecretSlice<u8>,
}

#[must_use]
pub fn signature(secret: &SecretSlice<u8>, timestamp: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret()).expect("HMAC takes a key of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    format!("v1={}", HEXLOWER.encode(&mac.finalize().into_bytes()))
}

impl WebhookOutlet {
    /// `client` without proxies or redirects: a signed alert goes where the owner said.
    #[must_use]
    pub const fn new(client: reqwest::Client, url: reqwest::Url, secret: SecretSlice<u8>) -> Self {
        Self { client, url, secret }
    }

    /// `at` is the wall clock's time, which the receiver checks.
    pub async fn post(&self, post: &HookPost, at: Time) -> PostOutcome {
        let timestamp = at.millis().to_string();
        let request = self
            .client
            .post(self.url.clone())
            .timeout(ANSWER_WITHIN)
            .header(CONTENT_TYPE, "application/json")
            .header(SIGNATURE_HEADER, signature(&self.secret, &timestamp, &post.body))
            .header(TIMESTAMP_HEADER, timestamp)
            .body(post.body.to_string());
        match request.send().await {
            Ok(response) => outcome_of(response.status(), response.headers().get(RETRY_AFTER)),
            Err(error) if error.is_connect() || error.is_builder() => {
                PostOutcome::Failed { reason: network_reason(&error), permanent: error.is_builder() }
            }
            Err(error) => PostOutcome::Unknown { reason: network_reason(&error) },
        }
    }
}

fn outcome_of(status: StatusCode, retry_after: Option<&reqwest::header::HeaderValue>) -> PostOutcome {
    let reason = format!("the webhook answered {status}").into();
    match status.as_u16() {
        200..=299 => PostOutcome::Delivered { message: None },
        429 | 503 => {
            let secs = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
            PostOutcome::RetryAfter { secs: secs.unwrap_or(REST_SECS) }
        }
        // About this body, not about the receiver.
        400 | 413 | 422 => PostOutcome::Refused { reason },
        500..=599 | 408 => PostOutcome::Failed { reason, permanent: false },
        // A wrong address or a wrong secret, or a redirect that is not followed: somebody must change it.
        _ => PostOutcome::Failed { reason, permanent: true },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked with: printf '1764000000000.{"v":1}' | openssl dgst -sha256 -hmac secret
    #[test]
    fn signs_the_timestamp_and_the_body() {
        let secret = SecretSlice::from(b"secret".to_vec());
        assert_eq!(
            signature(&secret, "1764000000000", r#"{"v":1}"#),
            "v1=b43c4098f411338531c60995df5ed34aec85b8c51f06cf0abcbdf42d49c25951"
        );
    }

    #[test]
    fn answers_become_outcomes() {
        let outcome = |status: u16| outcome_of(StatusCode::from_u16(status).unwrap(), None);
        assert_eq!(outcome(204), PostOutcome::Delivered { message: None });
        assert_eq!(outcome(429), PostOutcome::RetryAfter { secs: REST_SECS });
        assert!(matches!(outcome(422), PostOutcome::Refused { .. }));
        assert!(matches!(outcome(500), PostOutcome::Failed { permanent: false, .. }));
        for status in [301, 401, 404] {
            assert!(matches!(outcome(status), PostOutcome::Failed { permanent: true, .. }));
        }
        let hour = reqwest::header::HeaderValue::from_static("3600");
        assert_eq!(outcome_of(StatusCode::SERVICE_UNAVAILABLE, Some(&hour)), PostOutcome::RetryAfter { secs: 3_600 });
    }
}
