//! A key as the exchange knows it: whose it is, what proves it, what it may do and from where.

use std::collections::BTreeSet;
use std::net::IpAddr;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use ed25519_dalek::pkcs8::DecodePublicKey;
use ed25519_dalek::{Signature, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::kernel::time::Time;
use crate::sim::order::Uid;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    Reading,
    /// "Enable Spot & Margin Trading".
    SpotTrading,
    /// To borrow and repay.
    Margin,
    Futures,
    UniversalTransfer,
    VanillaOptions,
    Withdrawals,
    InternalTransfer,
}

/// From which addresses a key may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    Anywhere,
    /// An empty list admits nobody.
    Only(BTreeSet<IpAddr>),
}

impl Origins {
    /// No address: no restriction.
    pub fn listed_in(addresses: impl Iterator<Item = IpAddr>) -> Self {
        let listed: BTreeSet<IpAddr> = addresses.collect();
        if listed.is_empty() { Self::Anywhere } else { Self::Only(listed) }
    }

    pub fn admit(&self, address: IpAddr) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Only(listed) => listed.contains(&address),
        }
    }

    pub const fn are_restricted(&self) -> bool {
        matches!(self, Self::Only(_))
    }

    pub fn listed(&self) -> impl Iterator<Item = &IpAddr> {
        let listed = match self {
            Self::Anywhere => None,
            Self::Only(listed) => Some(listed),
        };
        listed.into_iter().flatten()
    }
}

/// Its own secret stays in here: these keys are worth nothing anywhere else.
#[derive(Clone)]
pub struct ApiKey {
    pub api_key: Box<str>,
    /// In the ledger; no other key ever has it.
    pub name: Box<str>,
    /// What its owner calls it, as `apiName` shows it.
    pub label: Box<str>,
    pub uid: Uid,
    pub proof: KeyProof,
    pub permissions: BTreeSet<Permission>,
    pub origins: Origins,
    pub created: Time,
    pub origins_changed: Time,
}

impl ApiKey {
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }
}

#[derive(Clone)]
pub enum KeyProof {
    Hmac(Box<str>),
    Ed25519(VerifyingKey),
}

impl KeyProof {
    /// The public half of an Ed25519 key, in PEM or as that PEM's inner line.
    pub fn from_public_key(text: &str) -> Option<Self> {
        let bare = || BASE64.decode(text.trim().as_bytes()).ok();
        let from_bare = || bare().and_then(|der| VerifyingKey::from_public_key_der(&der).ok());
        VerifyingKey::from_public_key_pem(text).ok().or_else(from_bare).map(Self::Ed25519)
    }

    pub fn accepts(&self, payload: &str, signature: &str) -> bool {
        match self {
            Self::Hmac(secret) => {
                let Ok(mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
                let signature = HEXLOWER_PERMISSIVE.decode(signature.as_bytes());
                signature.is_ok_and(|bytes| mac.chain_update(payload).verify_slice(&bytes).is_ok())
            }
            Self::Ed25519(key) => {
                let bytes = BASE64.decode(signature.as_bytes()).ok();
                let signature = bytes.and_then(|bytes| Signature::from_slice(&bytes).ok());
                signature.is_some_and(|signature| key.verify_strict(payload.as_bytes(), &signature).is_ok())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors that the venue publishes, with its published example secret.
    #[test]
    fn accepts_the_published_signatures() {
        let proof = KeyProof::Hmac("NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j".into());
        let rest = "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000\
                    &timestamp=1499827319559";
        let subscribe =
            "apiKey=vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A&timestamp=1747385641636";
        for (payload, signature) in [
            (rest, "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"),
            (rest, "C8DB56825AE71D6D79447849E617115F4A920FA2ACDCAB2B053C4B2838BD6B71"),
            (subscribe, "681110a6057ad58657af22f5640fab9dd17418834cdfccdc81be8b0f7b2cde3e"),
        ] {
            assert!(proof.accepts(payload, signature));
            assert!(!proof.accepts(&payload.replace('1', "2"), signature));
        }
        assert!(!proof.accepts(rest, ""));
        assert!(!proof.accepts(rest, "no hex"));
    }
}
