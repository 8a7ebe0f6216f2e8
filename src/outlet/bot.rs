//! Stops the bot by one of the ways that its owner declared, and says what proves that it stopped. A way that proves
//! nothing says so.
//!
//! Invariants: no shell reads any of it; a command gets an empty environment but for its path, since ours may hold
//! secrets; of what it prints only a short line is passed on, and only of a failure.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use crate::kernel::act::ActOutcome;
use crate::kernel::time::Time;
use crate::outlet::exchange::{body_of, causes};
use crate::outlet::webhook::{SIGNATURE_HEADER, TIMESTAMP_HEADER, signature};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Kept of what a command prints; the rest is read and dropped, so that it is not held up.
const OUTPUT_MAX: usize = 4 * 1024;
const OUTPUT_CHARS_TOLD: usize = 120;
/// After a command has ended, what it started may hold its output open: it is not waited for longer.
const OUTPUT_AFTER_END: Duration = Duration::from_millis(200);
/// How often freqtrade is asked whether it stands, and how far apart.
const LOOKS: u32 = 5;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Where the receiver asks for a rest and does not say how long, and the longest rest that is given.
const REST: Duration = Duration::from_secs(5);
const REST_MAX: Duration = Duration::from_secs(30);

pub enum StopHook {
    /// Its exit status is the proof.
    Command {
        argv: Vec<String>,
        within: Duration,
    },
    Systemd {
        systemctl: String,
        unit: String,
        manager: Manager,
        within: Duration,
    },
    /// `url` without the path of its API.
    Freqtrade {
        url: String,
        user: SecretString,
        password: SecretString,
    },
    Webhook {
        url: reqwest::Url,
        secret: SecretSlice<u8>,
    },
}

/// Which systemd holds a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    System,
    /// The one of the user that runs countersign.
    User,
}

impl StopHook {
    /// `http` follows no redirect and has a limit of its own.
    pub async fn stop(&self, name: &str, http: &reqwest::Client, at: Time) -> ActOutcome {
        let stopped = match self {
            Self::Command { argv, within } => by_command(argv, *within).await,
            Self::Systemd { systemctl, unit, manager, within } => by_systemd(systemctl, unit, *manager, *within).await,
            Self::Freqtrade { url, user, password } => by_freqtrade(http, url, user, password).await,
            Self::Webhook { url, secret } => by_webhook(http, url, secret, name, at).await,
        };
        stopped.unwrap_or_else(|not_done| not_done)
    }
}

async fn by_command(argv: &[String], within: Duration) -> Result<ActOutcome, ActOutcome> {
    let ended = run(argv, &[], within).await?;
    ended.granted(&argv[0])?;
    Ok(done(format!("{} ended with status 0", argv[0])))
}

/// Stopping a unit that does not exist fails; one that is told to stop is asked whether it did.
async fn by_systemd(systemctl: &str, unit: &str, manager: Manager, within: Duration) -> Result<ActOutcome, ActOutcome> {
    let runtime = format!("/run/user/{}", rustix::process::getuid().as_raw());
    let (flag, variables) = match manager {
        Manager::System => ("--system", vec![]),
        Manager::User => ("--user", vec![("XDG_RUNTIME_DIR", runtime.as_str())]),
    };
    let argv = |verb: &str| [systemctl, flag, verb, "--", unit].map(str::to_owned);
    let stopped = run(&argv("stop"), &variables, within).await?;
    stopped.granted("systemctl stop")?;
    let asked = run(&argv("is-active"), &variables, within).await?;
    match asked.output.lines().next().unwrap_or_default().trim() {
        state @ ("inactive" | "failed") => Ok(done(format!("systemctl is-active {unit}: {state}"))),
        other => Err(unknown(&format!("systemctl is-active {unit}: {:?}", told(other)))),
    }
}

async fn by_freqtrade(
    http: &reqwest::Client,
    url: &str,
    user: &SecretString,
    password: &SecretString,
) -> Result<ActOutcome, ActOutcome> {
    let call = |request: reqwest::RequestBuilder| async {
        let request = request.basic_auth(user.expose_secret(), Some(password.expose_secret()));
        let response = request.send().await.map_err(|error| not_reached("freqtrade", error))?;
        let status = response.status().as_u16();
        let body = body_of(response).await.map_err(|error| unknown(&format!("freqtrade: {error}")))?;
        match status {
            200 => Ok(body),
            400..=499 => Err(refused(status.into(), &format!("freqtrade answered with status {status}"))),
            _ => Err(unknown(&format!("freqtrade answered with status {status}"))),
        }
    };
    // What it answers to this counts for nothing: its state does.
    match call(http.post(format!("{url}/api/v1/stop"))).await {
        Ok(_) | Err(ActOutcome::Unknown { .. }) => {}
        Err(other) => return Err(other),
    }
    let mut seen = "nothing".to_owned();
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
        let body = call(http.get(format!("{url}/api/v1/show_config"))).await?;
        match serde_json::from_str::<ShowConfig>(&body) {
            Ok(config) if config.state == "stopped" => {
                return Ok(done("freqtrade's show_config says that its state is \"stopped\"".to_owned()));
            }
            Ok(config) => seen = format!("{:?}", told(&config.state)),
            Err(_) => seen = "nothing readable".to_owned(),
        }
    }
    Err(unknown(&format!("freqtrade was told to stop, and says that its state is {seen}")))
}

#[derive(Deserialize)]
struct ShowConfig {
    state: String,
}

async fn by_webhook(
    http: &reqwest::Client,
    url: &reqwest::Url,
    secret: &SecretSlice<u8>,
    name: &str,
    at: Time,
) -> Result<ActOutcome, ActOutcome> {
    let timestamp = at.millis().to_string();
    let body = json!({ "v": 1, "kind": "stop_bot", "hook": name, "at": at.millis() }).to_string();
    let request = http
        .post(url.clone())
        .header(CONTENT_TYPE, "application/json")
        .header(SIGNATURE_HEADER, signature(secret, &timestamp, &body))
        .header(TIMESTAMP_HEADER, timestamp)
        .body(body);
    let response = request.send().await.map_err(|error| not_reached("the webhook", error))?;
    let status = response.status().as_u16();
    match status {
        200..=299 => {
            Ok(done(format!("the webhook accepted it (status {status}); whether the bot stopped is not proved")))
        }
        429 => {
            let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let wait = seconds.map_or(REST, Duration::from_secs).min(REST_MAX);
            Err(ActOutcome::Held { until: at + wait, reason: "the webhook asked for a rest".into() })
        }
        300..=499 => Err(refused(status.into(), &format!("the webhook answered with status {status}"))),
        _ => Err(unknown(&format!("the webhook answered with status {status}"))),
    }
}

struct Ended {
    status: ExitStatus,
    output: String,
    complaint: String,
}

impl Ended {
    fn granted(&self, what: &str) -> Result<(), ActOutcome> {
        let line = self.complaint.lines().rev().find(|line| !line.trim().is_empty()).map(told).unwrap_or_default();
        let said = if line.is_empty() { String::new() } else { format!(": {line:?}") };
        match self.status.code() {
            Some(0) => Ok(()),
            Some(code) => Err(refused(code.into(), &format!("{what} ended with status {code}{said}"))),
            None => Err(unknown(&format!("{what} was ended by a signal{said}"))),
        }
    }
}

async fn run(argv: &[String], variables: &[(&str, &str)], within: Duration) -> Result<Ended, ActOutcome> {
    let (program, arguments) = argv.split_first().ok_or_else(|| refused(0, "the command is empty"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(variables.iter().copied())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| refused(0, &format!("{program} cannot be started: {error}")))?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let (mut output, mut complaint) = (Vec::new(), Vec::new());
    let ended = {
        let reading = futures_util::future::join(
            keep(child.stdout.take(), &mut output),
            keep(child.stderr.take(), &mut complaint),
        );
        tokio::pin!(reading);
        let ending = async {
            let status = tokio::select! {
                biased;
                status = child.wait() => status,
                _ = &mut reading => return child.wait().await,
            };
            // What is left of its output is a comfort.
            tokio::time::timeout(OUTPUT_AFTER_END, reading).await.ok();
            status
        };
        tokio::time::timeout(within, ending).await
    };
    match ended {
        Ok(Ok(status)) => {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            Ok(Ended { status, output: text(output), complaint: text(complaint) })
        }
        Ok(Err(error)) => Err(unknown(&format!("{program}: {error}"))),
        Err(_) => {
            if let Some(group) = group {
                // It may have ended just now, with nobody left to be told.
                kill_process_group(group, Signal::KILL).ok();
            }
            Err(unknown(&format!("{program} had not ended after {} s, and was ended", within.as_secs_f32())))
        }
    }
}

/// Reads to the end and keeps the beginning.
async fn keep(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = [0; 1_024];
    while let Ok(length @ 1..) = pipe.read(&mut chunk).await {
        let room = OUTPUT_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..length.min(room)]);
    }
}

/// Somebody else's words: plain, short, and without anything that a terminal or a message could act on.
fn told(text: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || " .,:;_-/()='".contains(*c);
    text.chars().filter(plain).take(OUTPUT_CHARS_TOLD).collect::<String>().trim().to_owned()
}

fn done(proof: String) -> ActOutcome {
    ActOutcome::Done { proof: proof.into() }
}

fn refused(code: i64, reason: &str) -> ActOutcome {
    ActOutcome::Refused { code, reason: reason.into() }
}

fn unknown(reason: &str) -> ActOutcome {
    ActOutcome::Unknown { reason: reason.into() }
}

fn not_reached(what: &str, error: reqwest::Error) -> ActOutcome {
    if error.is_connect() {
        refused(0, &format!("{what} cannot be reached: {}", causes(error)))
    } else {
        unknown(&format!("no usable answer from {what}: {}", causes(error)))
    }
}

#[cfg(test)]
mod tests;
