//! The outside of the tests: counterparts over real HTTP on loopback that behave as the real ones do.

#![allow(dead_code, reason = "each test program uses its own part of this")]

pub mod arms;
pub mod bot_api;
pub mod hook;
pub mod journal;
pub mod python;
pub mod stage;
pub mod tap;
pub mod teller;
pub mod trader;

use std::sync::Arc;

/// A plain client as the daemon builds it: no proxy, no redirect; without roots, since loopback speaks no TLS.
pub fn client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .use_preconfigured_tls(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}
