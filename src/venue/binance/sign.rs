//! The two ways the venue wants a request signed, and the only type that holds an exchange key.
//!
//! Invariant: an `ApiCredential` cannot be printed; what leaves it is the key's name and signatures.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

pub struct ApiCredential {
    api_key: SecretString,
    secret: Secret,
}

enum Secret {
    Hmac(SecretString),
    Ed25519(Box<SigningKey>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    #[error("the API key is empty or has characters other than letters and digits; copy it again from the exchange")]
    ApiKey,
    #[error("the API secret is empty; it is shown once, when the key is made")]
    EmptySecret,
    #[error("the API secret looks like a PEM file but is not an Ed25519 private key in PKCS#8 without a password")]
    NotEd25519,
}

impl ApiCredential {
    /// The secret is an HMAC secret, or the PEM text of an Ed25519 private key.
    pub fn new(api_key: SecretString, secret: SecretString) -> Result<Self, CredentialError> {
        let name = api_key.expose_secret();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return Err(CredentialError::ApiKey);
        }
        let text = secret.expose_secret().trim();
        let secret = if text.is_empty() {
            return Err(CredentialError::EmptySecret);
        } else if text.starts_with("-----BEGIN") {
            Secret::Ed25519(Box::new(SigningKey::from_pkcs8_pem(text).map_err(|_| CredentialError::NotEd25519)?))
        } else {
            Secret::Hmac(text.into())
        };
        Ok(Self { api_key, secret })
    }

    /// For the request's header or parameters, nothing else.
    pub fn api_key(&self) -> &str {
        self.api_key.expose_secret()
    }

    /// Hexadecimal for HMAC, base64 for Ed25519.
    pub fn sign(&self, payload: &str) -> String {
        match &self.secret {
            Secret::Hmac(secret) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
                    .expect("HMAC takes a key of any length");
                mac.update(payload.as_bytes());
                HEXLOWER.encode(&mac.finalize().into_bytes())
            }
            Secret::Ed25519(key) => BASE64.encode(&key.sign(payload.as_bytes()).to_bytes()),
        }
    }
}

impl fmt::Debug for ApiCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiCredential(…)")
    }
}

/// WebSocket API: parameters sorted by name, values raw.
pub fn websocket_payload(params: &[(&str, String)]) -> String {
    let mut sorted: Vec<_> = params.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let pairs: Vec<String> = sorted.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// REST: parameters in the order sent, values percent-encoded; what is signed is what is sent.
pub fn rest_query(params: &[(&str, String)]) -> String {
    let pairs: Vec<String> = params.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
    pairs.join("&")
}

/// All but RFC 3986's unreserved characters.
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&data_encoding::HEXUPPER.encode(&[byte]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, Verifier, VerifyingKey};

    use super::*;

    /// The sample key that the venue's documentation prints.
    const API_KEY: &str = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A";
    const SECRET: &str = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j";

    fn hmac() -> ApiCredential {
        ApiCredential::new(API_KEY.into(), SECRET.into()).unwrap()
    }

    fn params(text: &'static [(&'static str, &'static str)]) -> Vec<(&'static str, String)> {
        text.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    #[test]
    fn signs_rest_as_documented() {
        for (symbol, signature) in [
            ("LTCBTC", "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"),
            ("１２３４５６", "e1353ec6b14d888f1164ae9af8228a3dbd508bc82eb867db8ab6046442f33ef3"),
        ] {
            let mut order = vec![("symbol", symbol.to_owned())];
            order.extend(params(&[
                ("side", "BUY"),
                ("type", "LIMIT"),
                ("timeInForce", "GTC"),
                ("quantity", "1"),
                ("price", "0.1"),
                ("recvWindow", "5000"),
                ("timestamp", "1499827319559"),
            ]));
            assert_eq!(hmac().sign(&rest_query(&order)), signature);
        }
        assert_eq!(percent_encoded("alice+bot@example.com"), "alice%2Bbot%40example.com");
    }

    #[test]
    fn signs_the_websocket_api_as_documented() {
        let ascii = params(&[
            ("symbol", "BTCUSDT"),
            ("side", "SELL"),
            ("type", "LIMIT"),
            ("timeInForce", "GTC"),
            ("quantity", "0.01000000"),
            ("price", "52000.00"),
            ("recvWindow", "100"),
            ("timestamp", "1645423376532"),
            ("apiKey", API_KEY),
        ]);
        let unicode = params(&[
            ("symbol", "１２３４５６"),
            ("side", "BUY"),
            ("type", "LIMIT"),
            ("timeInForce", "GTC"),
            ("quantity", "1.00000000"),
            ("price", "0.10000000"),
            ("recvWindow", "5000"),
            ("timestamp", "1645423376532"),
            ("apiKey", API_KEY),
        ]);
        let subscribe = params(&[("timestamp", "1747385641636"), ("apiKey", API_KEY)]);
        for (params, signature) in [
            (ascii, "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24"),
            (unicode, "b33892ae8e687c939f4468c6268ddd4c40ac1af18ad19a064864c47bae0752cd"),
            (subscribe, "681110a6057ad58657af22f5640fab9dd17418834cdfccdc81be8b0f7b2cde3e"),
        ] {
            assert_eq!(hmac().sign(&websocket_payload(&params)), signature);
        }
    }

    #[test]
    fn signs_with_ed25519() {
        // RFC 8410's own example key, and RFC 8410's public key for it.
        let pem = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";
        let public = BASE64.decode(b"Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=").unwrap();
        let key = VerifyingKey::from_bytes(&public.try_into().unwrap()).unwrap();
        let credential = ApiCredential::new("abc".into(), pem.into()).unwrap();
        let signature = BASE64.decode(credential.sign("apiKey=abc&timestamp=1").as_bytes()).unwrap();
        key.verify(b"apiKey=abc&timestamp=1", &Signature::from_slice(&signature).unwrap()).unwrap();
    }

    #[test]
    fn refuses_what_cannot_be_a_key_and_prints_nothing() {
        let credential = |key: &str, secret: &str| ApiCredential::new(key.into(), secret.into()).err();
        assert_eq!(credential("", "s"), Some(CredentialError::ApiKey));
        assert_eq!(credential("a\nb", "s"), Some(CredentialError::ApiKey));
        assert_eq!(credential("abc", " \n"), Some(CredentialError::EmptySecret));
        assert_eq!(credential("abc", "-----BEGIN RSA PRIVATE KEY-----\n"), Some(CredentialError::NotEd25519));
        assert_eq!(format!("{:?}", hmac()), "ApiCredential(…)");
    }
}
