//! `countersign drill`: a made-up theft through the running daemon to every channel, with its time at each hop.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Config;
use crate::drill::{Told, ToldLeg};
use crate::inlet::operator::{OperatorCommand, ask};

/// What a channel has not delivered by then, it has not delivered.
const DELIVERED_WITHIN: Duration = Duration::from_secs(5);
/// The daemon's times decide; this only looks a little longer than they allow.
const LOOK_FOR: Duration = Duration::from_millis(5_500);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The exit status is 0 only if there is a channel, and each delivered in time.
pub async fn run(json: bool, config: &Config, out: &mut impl Write) -> anyhow::Result<u8> {
    let socket = config.operator_socket();
    ask(&socket, &OperatorCommand::Drill).await?;
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
    let passed = !told.channels.is_empty() && told.channels.iter().all(in_time);
    if json {
        let mut answer: Value = serde_json::to_value(&told)?;
        answer["passed"] = json!(passed);
        writeln!(out, "{answer}")?;
    } else {
        write!(out, "{}", words(&told)?)?;
    }
    Ok(u8::from(!passed))
}

fn in_time(leg: &ToldLeg) -> bool {
    let most = i64::try_from(DELIVERED_WITHIN.as_micros()).unwrap_or(i64::MAX);
    leg.delivered_us.is_some_and(|us| us <= most)
}

fn words(told: &Told) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "{} (incident {})", told.headline, told.incident)?;
    let mut hop = |hop: String, us: Option<i64>| match us {
        Some(us) => writeln!(text, "{hop:<34} {:>6}.{:03} ms", us / 1_000, us % 1_000),
        None => writeln!(text, "{hop:<34}        not yet"),
    };
    hop("frame made".to_owned(), Some(0))?;
    hop("judged".to_owned(), Some(told.judged_us))?;
    hop("journalled".to_owned(), told.journalled_us)?;
    for leg in &told.channels {
        hop(format!("handed to {}", leg.channel), leg.handed_us)?;
        hop(format!("delivered on {}", leg.channel), leg.delivered_us)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::channel::Channel;
    use crate::kernel::incident::IncidentId;
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
}
