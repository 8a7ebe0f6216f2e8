//! Names to addresses, so that a name server that fails keeps nothing from being stopped: the last good answer for a
//! name stands in for one that does not come.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// How long a name is looked up where nothing could stand in, and where something can.
const FIRST_WITHIN: Duration = Duration::from_secs(3);
const AGAIN_WITHIN: Duration = Duration::from_secs(1);
/// The exchange and the hooks' hosts; further names are looked up each time.
const NAMES_MAX: usize = 64;

pub type LookingUp = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
type Lookup = Arc<dyn Fn(String) -> LookingUp + Send + Sync>;

#[derive(Clone)]
pub struct LastGood {
    lookup: Lookup,
    known: Arc<Mutex<BTreeMap<String, Vec<SocketAddr>>>>,
}

impl LastGood {
    /// As the system looks names up.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|name| {
            Box::pin(async move { tokio::net::lookup_host((name, 0)).await.map(|addresses| addresses.collect()) })
        })
    }

    #[must_use]
    pub fn new(lookup: impl Fn(String) -> LookingUp + Send + Sync + 'static) -> Self {
        Self { lookup: Arc::new(lookup), known: Arc::default() }
    }

    async fn look_up(self, name: String) -> io::Result<Vec<SocketAddr>> {
        let known = self.known().get(&name).cloned();
        let within = if known.is_some() { AGAIN_WITHIN } else { FIRST_WITHIN };
        let found = match tokio::time::timeout(within, (self.lookup)(name.clone())).await {
            Ok(Ok(found)) if found.is_empty() => Err(io::ErrorKind::NotFound.into()),
            Ok(found) => found,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match (found, known) {
            (Ok(found), _) => {
                let mut known = self.known();
                if known.len() < NAMES_MAX || known.contains_key(&name) {
                    known.insert(name, found.clone());
                }
                Ok(found)
            }
            (Err(_), Some(known)) => Ok(known),
            (Err(error), None) => Err(error),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<SocketAddr>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolve for LastGood {
    fn resolve(&self, name: Name) -> Resolving {
        let looking_up = self.clone().look_up(name.as_str().to_owned());
        Box::pin(async move { Ok(Box::new(looking_up.await?.into_iter()) as Addrs) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_good_answer_stands_in() {
        let answers: Mutex<Vec<Option<&str>>> =
            Mutex::new(vec![Some("192.0.2.1:0"), Some("192.0.2.2:0"), None, Some("hangs")].into_iter().rev().collect());
        let names = LastGood::new(move |_| {
            let answer = answers.lock().unwrap().pop().unwrap_or(None);
            Box::pin(async move {
                match answer {
                    Some("hangs") => std::future::pending().await,
                    Some(address) => Ok(vec![address.parse().unwrap()]),
                    None => Err(io::ErrorKind::NotFound.into()),
                }
            })
        });
        for expected in ["192.0.2.1:0", "192.0.2.2:0", "192.0.2.2:0", "192.0.2.2:0"] {
            let found = names.clone().look_up("exchange.test".to_owned()).await.unwrap();
            assert_eq!(found, [expected.parse().unwrap()]);
        }
        assert!(names.look_up("other.test".to_owned()).await.is_err(), "nothing stands in for a name never found");
    }
}
