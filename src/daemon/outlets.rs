//! The tasks at the daemon's edge: they carry values between a socket and a queue, and choose nothing.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Clock};
use crate::config::Config;
use crate::daemon::parts::Parts;
use crate::inlet::user_stream::{self, StreamConfig};
use crate::kernel::act::{Act, ActOutcome};
use crate::kernel::channel::{Channel, Post, PostOutcome};
use crate::kernel::credential::{CredentialOutcome, CredentialRole};
use crate::kernel::event::{EffectId, ReadOutcome, ReadRequest};
use crate::kernel::shared::SharedEvent;
use crate::outlet::containment::ContainmentOutlet;
use crate::outlet::exchange::Exchange;
use crate::outlet::telegram::TelegramOutlet;
use crate::outlet::webhook::WebhookOutlet;

const READS_AT_ONCE: usize = 4;
/// So often that one that fails is tried again before an hour has gone without one.
const CHECK_EVERY: Duration = Duration::from_secs(50 * 60);
const CHECK_AGAIN_AFTER: Duration = Duration::from_secs(4 * 60);

pub(super) fn stream_task(
    config: &Config,
    parts: &Parts,
    first_connection: u64,
    events: mpsc::Sender<user_stream::StreamEvent>,
    clock: &Arc<Clock>,
    shutdown: CancellationToken,
) -> impl Future<Output = Result<(), String>> + Send + 'static {
    let accounts = vec![(config.declared.account.clone(), Arc::clone(&parts.credential))];
    let exchange = &config.exchange;
    let mut stream =
        StreamConfig::new(&exchange.ws_url, &exchange.rest_url, accounts, Arc::clone(&parts.tls), parts.http.clone());
    stream.first_connection = first_connection;
    stream.seed = clock.now().micros().unsigned_abs();
    let clock = Arc::clone(clock);
    async move {
        user_stream::run(stream, events, move || clock.now(), shutdown).await;
        Ok(())
    }
}

/// Makes the reads that the kernel asks for, a few at a time.
pub(super) fn reads_task(
    config: &Config,
    parts: &Parts,
    mut requests: mpsc::Receiver<(EffectId, ReadRequest)>,
    outcomes: mpsc::Sender<(EffectId, ReadOutcome)>,
    clock: &Arc<Clock>,
    shutdown: CancellationToken,
) -> impl Future<Output = Result<(), String>> + Send + 'static {
    let exchange =
        Arc::new(Exchange::new(&config.exchange.rest_url, Arc::clone(&parts.credential), parts.http.clone()));
    let clock = Arc::clone(clock);
    async move {
        let mut under_way = JoinSet::new();
        // At the end a read under way is let go: the next start asks again for what is not answered.
        while let Some(Some((effect, request))) = shutdown.run_until_cancelled(requests.recv()).await {
            while under_way.len() >= READS_AT_ONCE {
                under_way.join_next().await;
            }
            let (exchange, outcomes, clock) = (Arc::clone(&exchange), outcomes.clone(), Arc::clone(&clock));
            under_way.spawn(async move {
                let outcome = exchange.read(&request, &|| clock.now()).await;
                outcomes.send((effect, outcome)).await.is_ok()
            });
        }
        Ok(())
    }
}

/// Does the acts of a containment as they come; the outlet bounds how many at once, and keys never wait for orders.
pub(super) fn acts_task(
    outlet: Arc<ContainmentOutlet>,
    mut acts: mpsc::Receiver<(EffectId, Act)>,
    outcomes: mpsc::Sender<(EffectId, ActOutcome)>,
    clock: &Arc<Clock>,
    shutdown: CancellationToken,
) -> impl Future<Output = Result<(), String>> + Send + 'static {
    let clock = Arc::clone(clock);
    async move {
        let mut under_way = JoinSet::new();
        // At the end an act under way is let go: the next start finds out what became of it.
        while let Some(Some((effect, act))) = shutdown.run_until_cancelled(acts.recv()).await {
            while under_way.try_join_next().is_some() {}
            let (outlet, outcomes, clock) = (Arc::clone(&outlet), outcomes.clone(), Arc::clone(&clock));
            under_way.spawn(async move {
                let done = AssertUnwindSafe(async { outlet.act(&act, &|| clock.now()).await }).catch_unwind().await;
                // Without a word on it the containment would wait for ever.
                let outcome =
                    done.unwrap_or_else(|_| ActOutcome::Unknown { reason: "countersign failed in it".into() });
                outcomes.send((effect, outcome)).await.is_ok()
            });
        }
        Ok(())
    }
}

/// Asks the venue what each of our own keys may do, at the start and from then on.
pub(super) fn checks_task(
    parts: &Parts,
    outcomes: mpsc::Sender<(CredentialRole, CredentialOutcome)>,
    clock: &Arc<Clock>,
    shutdown: CancellationToken,
) -> impl Future<Output = Result<(), String>> + Send + 'static {
    let (outlet, watch, clock) = (Arc::clone(&parts.containment), Arc::clone(&parts.credential), Arc::clone(clock));
    async move {
        loop {
            let mut wait = CHECK_EVERY;
            let loaded = [
                (CredentialRole::Watch, Some(&*watch)),
                (CredentialRole::Cancel, outlet.cancel()),
                (CredentialRole::Admin, outlet.admin()),
            ];
            for (role, credential) in loaded {
                let Some(credential) = credential else { continue };
                let now = || clock.now();
                let check = shutdown.run_until_cancelled(outlet.check(role, credential, &now));
                let Some(outcome) = check.await else { return Ok(()) };
                if matches!(outcome, CredentialOutcome::Unknown { .. }) {
                    wait = CHECK_AGAIN_AFTER;
                }
                if outcomes.send((role, outcome)).await.is_err() {
                    return Ok(());
                }
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return Ok(());
            }
        }
    }
}

pub(super) async fn warm_task(outlet: Arc<ContainmentOutlet>, clock: Arc<Clock>, shutdown: CancellationToken) {
    outlet.stay_warm(&|| clock.now(), &shutdown).await;
}

pub(super) async fn telegram_task(
    outlet: TelegramOutlet,
    mut posts: mpsc::Receiver<(EffectId, Post)>,
    outcomes: mpsc::Sender<SharedEvent>,
) -> Result<(), String> {
    while let Some((effect, post)) = posts.recv().await {
        let outcome = match &post {
            Post::Telegram(post) => outlet.post(post).await,
            Post::Pressed(answer) => {
                // It may be lost, so that no alert waits for it.
                if posts.is_empty() {
                    outlet.answer_press(answer).await;
                }
                continue;
            }
            Post::Webhook(_) => wrong_channel(Channel::Telegram),
        };
        if outcomes.send(SharedEvent::Posted { effect, outcome }).await.is_err() {
            break;
        }
    }
    Ok(())
}

pub(super) async fn webhook_task(
    outlet: WebhookOutlet,
    mut posts: mpsc::Receiver<(EffectId, Post)>,
    outcomes: mpsc::Sender<SharedEvent>,
) -> Result<(), String> {
    while let Some((effect, post)) = posts.recv().await {
        let outcome = match &post {
            Post::Webhook(post) => outlet.post(post, clock::wall()).await,
            Post::Telegram(_) | Post::Pressed(_) => wrong_channel(Channel::Webhook),
        };
        if outcomes.send(SharedEvent::Posted { effect, outcome }).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn wrong_channel(channel: Channel) -> PostOutcome {
    PostOutcome::Failed { reason: format!("the post is not for {channel}").into(), permanent: true }
}
