//! `countersign drill`: a made-up theft through the running daemon to every channel, with its time at each hop; with
//! `--kill`, the way of one throw-away key to its proved end as well.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Config;
use crate::drill::{Told, ToldLeg};
use crate::inlet::operator::{OperatorCommand, ask};
use crate::kernel::containment::DrillProgress;

/// What a channel has not delivered by then, it has not delivered.
const DELIVERED_WITHIN: Duration = Duration::from_secs(5);
/// The daemon's times decide; this only looks a little longer than they allow.
const LOOK_FOR: Duration = Duration::from_millis(5_500);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The drill's own deadline for its key, and a little for the daemon to tell it.
const KILLED_WITHIN: Duration = Duration::from_secs(125);

/// The exit status is 0 only if there is a channel, and each delivered in time; and, where its death was asked for, if the
/// throw-away key was proved dead.
pub async fn run(kill: bool, json: bool, config: &Config, out: &mut impl Write) -> anyhow::Result<u8> {
    let socket = config.operator_socket();
    ask(&socket, &OperatorCommand::Drill { kill }).await?;
    let told = async || -> anyhow::Result<Told> {
        let answer = ask(&socket, &OperatorCommand::DrillHops).await?;
        Ok(serde_json::from_value(answer["drill"].clone())?)
    };
    let all_delivered = async {
        loop {
            let told = told().await?;
            if told.journalled_us.is_some() && told.channels.iter().all(|leg| leg.delivered_us.is_some()) {
                return anyhow::Ok(told);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let told = match tokio::time::timeout(LOOK_FOR, all_delivered).await {
        Ok(told) => told?,
        Err(_) => told().await?,
    };
    let killed = if kill { until_killed(&socket).await? } else { None };
    let delivered = !told.channels.is_empty() && told.channels.iter().all(in_time);
    let passed = delivered && (!kill || killed.as_ref().is_some_and(|killed| killed.proved));
    if json {
        let mut answer: Value = serde_json::to_value(&told)?;
        answer["passed"] = json!(passed);
        if kill {
            answer["kill"] = json!(killed);
        }
        writeln!(out, "{answer}")?;
    } else {
        write!(out, "{}", words(&told)?)?;
        if kill {
            write!(out, "{}", killed_words(killed.as_ref())?)?;
        }
    }
    Ok(u8::from(!passed))
}

/// How far the key is when its drill has ended, or when nobody waits for it any longer.
async fn until_killed(socket: &Path) -> anyhow::Result<Option<DrillProgress>> {
    let progress = async || -> anyhow::Result<Option<DrillProgress>> {
        let answer = ask(socket, &OperatorCommand::DrillHops).await?;
        Ok(serde_json::from_value(answer["kill"].clone())?)
    };
    let ended = async {
        loop {
            let found = progress().await?;
            if found.as_ref().is_none_or(|found| found.ended_us.is_some()) {
                return anyhow::Ok(found);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    match tokio::time::timeout(KILLED_WITHIN, ended).await {
        Ok(found) => found,
        Err(_) => progress().await,
    }
}

fn in_time(leg: &ToldLeg) -> bool {
    let most = i64::try_from(DELIVERED_WITHIN.as_micros()).unwrap_or(i64::MAX);
    leg.delivered_us.is_some_and(|us| us <= most)
}

fn words(told: &Told) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "{} (incident {})", told.headline, told.incident)?;
    hop(&mut text, "frame made", Some(0))?;
    hop(&mut text, "judged", Some(told.judged_us))?;
    hop(&mut text, "journalled", told.journalled_us)?;
    for leg in &told.channels {
        hop(&mut text, &format!("handed to {}", leg.channel), leg.handed_us)?;
        hop(&mut text, &format!("delivered on {}", leg.channel), leg.delivered_us)?;
    }
    for leg in told.channels.iter().filter(|leg| !in_time(leg)) {
        let why = leg.failure.as_deref().unwrap_or("no answer yet");
        writeln!(text, "FAILED: {} did not deliver within {} s: {why}", leg.channel, DELIVERED_WITHIN.as_secs())?;
    }
    if told.channels.is_empty() {
        writeln!(text, "FAILED: no channel is configured: alerts reach nobody")?;
    }
    Ok(text)
}

/// Each time is from the moment of asking.
fn killed_words(killed: Option<&DrillProgress>) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let Some(killed) = killed else {
        writeln!(text, "FAILED: countersign started again under other keys: nothing is known of the drill's key")?;
        return Ok(text);
    };
    writeln!(text, "DRILL of key {}: {}", killed.key, killed.word.trim_start_matches("drill: "))?;
    hop(&mut text, "answered as alive", killed.alive_us)?;
    hop(&mut text, "blocked", killed.blocked_us)?;
    hop(&mut text, "deleted", killed.deleted_us)?;
    hop(&mut text, "gone from the exchange's list", killed.gone_us)?;
    hop(&mut text, "dead by two probes", killed.dead_us)?;
    if !killed.proved {
        let why = killed.lines.last().map_or("no word on it yet", |line| &*line.text);
        writeln!(text, "FAILED: key {}: {why}", killed.key)?;
    }
    Ok(text)
}

fn hop(text: &mut String, hop: &str, us: Option<i64>) -> std::fmt::Result {
    match us {
        Some(us) => writeln!(text, "{hop:<34} {:>6}.{:03} ms", us / 1_000, us % 1_000),
        None => writeln!(text, "{hop:<34}        not yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::channel::Channel;
    use crate::kernel::incident::{IncidentId, Line};
    use crate::kernel::time::Time;

    #[test]
    fn a_channel_that_was_late_or_silent_is_named() {
        let leg =
            |delivered_us| ToldLeg { channel: Channel::Webhook, handed_us: Some(900), delivered_us, failure: None };
        assert!(in_time(&leg(Some(5_000_000))) && !in_time(&leg(Some(5_000_001))) && !in_time(&leg(None)));
        let told = |channels| Told {
            incident: IncidentId(7),
            headline: "DRILL 7: nothing happened.".into(),
            made_at: Time::EPOCH,
            judged_us: 412,
            journalled_us: Some(3_007),
            channels,
        };
        let text = words(&told(vec![leg(None)])).unwrap();
        for part in ["0.412 ms", "3.007 ms", "not yet", "FAILED: the webhook did not deliver within 5 s: no answer yet"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(words(&told(Vec::new())).unwrap().contains("alerts reach nobody"));
    }

    #[test]
    fn a_key_that_is_not_proved_dead_says_why() {
        let line = |text: &str| Line { at: Time::EPOCH, text: text.into() };
        let killed = DrillProgress {
            key: "fire-drill".into(),
            word: "drill: not proved".into(),
            proved: false,
            alive_us: Some(40_100),
            blocked_us: Some(80_000),
            deleted_us: None,
            gone_us: None,
            dead_us: None,
            ended_us: Some(120_000_000),
            lines: vec![line("key fire-drill: frozen"), line("NOT PROVED: 120 s are over; not done: delete")],
        };
        let text = killed_words(Some(&killed)).unwrap();
        for part in
            ["40.100 ms", "80.000 ms", "dead by two probes", "FAILED: key fire-drill: NOT PROVED: 120 s are over"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let proved = DrillProgress { proved: true, dead_us: Some(700_000), ..killed };
        assert!(!killed_words(Some(&proved)).unwrap().contains("FAILED"));
    }
}
