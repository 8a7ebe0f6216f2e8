//! kill -9 of the real daemon at seeded moments under load, each time started again on the same folder. What was
//! promised must hold whenever it dies: an execution is a frame of the journal or lies inside a gap, an acknowledged
//! record is on disk, a foreign order that was seen is told, each gap is told, what may have been told before is
//! marked, and the journal verifies and replays to the same effects.
//!
//! `COUNTERSIGN_KILLS` and `COUNTERSIGN_SEED` make longer and other runs.

#![expect(clippy::disallowed_methods, reason = "a test plays the outside's part: it spawns, and reads the clock")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use countersign::clock;
use countersign::inlet::operator::OperatorCommand;
use countersign::journal::reader;
use countersign::journal::sqlite::open_to_read;
use countersign::kernel::incident::IncidentId;
use countersign::kernel::time::Time;
use countersign::sim::client::RestClient;
use countersign::sim::seed::Seeded;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use support::bot_api::{BotApi, Misbehaviour, Sent};
use support::journal::{self, Row};
use support::stage::Stage;
use support::trader::Trader;

const BOTS: [&str; 2] = ["maker", "taker"];
const THIEF: &str = "somebody-else";
/// The exchange's clock is not ours, and what was under way when the daemon died was sent before its last row.
const CLOCKS: Duration = Duration::from_secs(1);
const TOLD_WITHIN: Duration = Duration::from_secs(75);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whenever_it_is_killed() {
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (kills, seed) = (number("COUNTERSIGN_KILLS", 25), number("COUNTERSIGN_SEED", 1));
    let mut dice = Seeded::new(seed);
    let api = BotApi::start().await;
    let stage = Stage::set(seed, &BOTS, Some(&api), None).await;

    let mut daemon = stage.run();
    stage.until_proved().await;
    stage.pair(&api).await;
    let traders = Traders::start(&stage);
    let mut owner = Owner::default();
    let thief = stage.client(THIEF);
    for kill in 0..kills {
        // Some die while they start, before anything is connected.
        let life = if kill % 5 == 4 { dice.below(400) } else { 400 + dice.below(1_900) };
        let (theft, down) = (dice.below(life), dice.below(300));
        wait(theft).await;
        if dice.below(3) > 0 {
            steal(&thief, &mut dice).await;
        }
        owner.acknowledge(&stage, &api).await;
        if dice.below(3) == 0 {
            // Delivered, and nobody knows.
            api.next("sendMessage", Misbehaviour::DeliverAndHang);
        }
        wait(life - theft).await;
        daemon.kill().await;
        let replayed = journal::replay(&stage.journal()).unwrap();
        assert_eq!(replayed.differing, 0, "after kill {kill}: {:#?}", replayed.differences);
        wait(down / 2).await;
        if dice.below(6) == 0 {
            steal(&thief, &mut dice).await;
        }
        wait(down / 2).await;
        daemon = stage.run();
    }
    stage.until_proved().await;
    let (acknowledged, beating) = traders.end().await;
    stage.until("a verdict on every order", Duration::from_secs(30), |status| status["orders"]["pending"] == 0).await;

    let ledger = stage.ledger().await;
    let rows = journal::rows(&stage.journal());
    let gaps = gaps(&stage);
    check_executions(&ledger, &rows, &gaps);
    check_acknowledged(&acknowledged, &rows);
    check_told(&api, &ledger, &rows, &gaps, &owner).await;
    check_no_false_alarm(&ledger, &rows);
    drop(beating);
    assert!(daemon.stop().await.success());
    let replayed = journal::replay(&stage.journal()).unwrap();
    assert_eq!(replayed.differing, 0, "{:#?}", replayed.differences);
    println!(
        "{kills} kills: {} executions, {} rows, {} gaps, {} records acknowledged",
        ledger.len(),
        rows.len(),
        gaps.len(),
        acknowledged.iter().map(|(_, records)| records.len()).sum::<usize>()
    );
}

async fn wait(millis: u32) {
    tokio::time::sleep(Duration::from_millis(millis.into())).await;
}

type Acknowledged = Vec<(&'static str, Vec<(u64, Option<String>)>)>;

struct Traders {
    ends: CancellationToken,
    trading: JoinSet<Trader>,
}

impl Traders {
    fn start(stage: &Stage) -> Self {
        let (ends, mut trading) = (CancellationToken::new(), JoinSet::new());
        for name in BOTS {
            let trader = Trader::new(name, stage.client(name), stage.intake(), Duration::from_millis(60));
            trading.spawn(trader.trade(ends.clone()));
        }
        Self { ends, trading }
    }

    /// Waits for the last rounds; from then on the bots only beat, for as long as the set is kept.
    async fn end(mut self) -> (Acknowledged, JoinSet<()>) {
        self.ends.cancel();
        let (mut acknowledged, mut beating) = (Acknowledged::new(), JoinSet::new());
        while let Some(trader) = self.trading.join_next().await {
            let mut trader = trader.unwrap();
            acknowledged.push((trader.name, trader.acknowledged.clone()));
            beating.spawn(async move { trader.beat_for(Duration::from_secs(600)).await });
        }
        (acknowledged, beating)
    }
}

/// One or two orders: through a pair that no bot trades, or hidden among the bots' own.
async fn steal(thief: &RestClient, dice: &mut Seeded) {
    for _ in 0..=dice.below(2) {
        let order = match dice.below(3) {
            0 => [("symbol", "BTCUSDT"), ("side", "BUY"), ("type", "MARKET"), ("quantity", "0.001")],
            _ => [("symbol", "VIABTC"), ("side", "SELL"), ("type", "MARKET"), ("quantity", "1500")],
        };
        thief.place(&order).await.unwrap();
    }
}

/// Acknowledges what the phone shows, now and then.
#[derive(Default)]
struct Owner {
    acknowledged: Vec<(u64, Instant)>,
}

impl Owner {
    async fn acknowledge(&mut self, stage: &Stage, api: &BotApi) {
        let Ok(answer) = stage.ask(&OperatorCommand::Incidents).await else { return };
        for notice in answer["incidents"].as_array().unwrap() {
            let id = notice["incident"].as_u64().unwrap();
            let revision = format!("revision {}\n", notice["revision"]);
            let mut told = api.delivered().into_iter();
            let shown = told.any(|sent| names_incident(&sent.text, id) && sent.text.contains(&revision));
            if notice["state"] == "open" && notice["priority"] == "critical" && shown {
                // Whether it is taken or came too late, from here on a new message is no repeat.
                self.acknowledged.push((id, Instant::now()));
                let ack = OperatorCommand::Ack { id: IncidentId(id), shown: notice["revision"].as_u64() };
                let _ = stage.ask(&ack).await;
            }
        }
    }
}

fn names_incident(text: &str, id: u64) -> bool {
    let name = format!("incident {id}");
    text.match_indices(&name).any(|(at, _)| !text[at + name.len()..].starts_with(|next: char| next.is_ascii_digit()))
}

/// The stretches without sight, as the kernel recorded them.
fn gaps(stage: &Stage) -> Vec<(Time, Time)> {
    let mut gaps = Vec::new();
    let mut replay = reader::Replay::default();
    let walked = reader::walk(&open_to_read(&stage.journal()).unwrap(), 1, |record| {
        replay.take(record)?;
        let last = replay.accounts.get("main").and_then(|kernel| kernel.state().coverage.last_gap());
        if last.is_some() && last.as_ref() != gaps.last() {
            gaps.extend(last);
        }
        Ok(())
    });
    walked.unwrap();
    gaps
}

type Execution = (String, i64, i64);

fn execution(row: &Value) -> Option<Execution> {
    Some((row["symbol"].as_str()?.to_owned(), row["order_id"].as_i64()?, row["execution_id"].as_i64()?))
}

/// What the exchange sent out while we were subscribed is a frame or inside a gap.
fn check_executions(ledger: &[Value], rows: &[Row], gaps: &[(Time, Time)]) {
    let seen = frames(rows);
    let mut in_gap = 0;
    for row in ledger {
        let Some(execution) = execution(row) else { continue };
        if row["sent"] == 0 || seen.contains(&execution) {
            continue;
        }
        let at = Time::from_millis(row["at"].as_i64().unwrap());
        let inside = |(from, to): &(Time, Time)| at >= *from - CLOCKS && at <= *to;
        assert!(gaps.iter().any(inside), "{row} is neither a frame nor inside a gap: {gaps:?}");
        in_gap += 1;
    }
    println!("{} executions are frames, {in_gap} were on their way into a gap", seen.len());
}

fn frames(rows: &[Row]) -> BTreeSet<Execution> {
    rows.iter().filter(|row| row.is("report")).filter_map(|row| execution(&row.body["report"])).collect()
}

/// What a bot was told is durable is a row, with the answer it was given.
fn check_acknowledged(acknowledged: &Acknowledged, rows: &[Row]) {
    for (bot, records) in acknowledged {
        let mut known = BTreeMap::new();
        for row in rows.iter().filter(|row| row.is("intent") && row.body["record"]["bot"] == *bot) {
            let record = &row.body["record"];
            let ok = row
                .effects
                .iter()
                .any(|effect| effect["effect"] == "reply" && effect["reply"]["answer"]["Ok"].is_object());
            if ok && record["body"]["kind"] != "heartbeat" {
                known.insert(record["seq"].as_u64().unwrap(), record["body"]["client_order_id"].as_str());
            }
        }
        assert!(!records.is_empty());
        for (seq, id) in records {
            let kept = known.get(seq).unwrap_or_else(|| panic!("record {seq} of {bot} was acknowledged, and is lost"));
            assert!(
                id.is_none() || id.as_deref() == *kept,
                "record {seq} of {bot}: {id:?} was given, {kept:?} is kept"
            );
        }
    }
}

/// Foreign orders that were seen and gaps reached the phone; what came twice says so.
async fn check_told(api: &BotApi, ledger: &[Value], rows: &[Row], gaps: &[(Time, Time)], owner: &Owner) {
    let seen = frames(rows);
    let mut wanted: Vec<Wanted> = ledger
        .iter()
        .filter(|row| row["agent"] == THIEF && row["kind"] == "NEW")
        .filter(|row| execution(row).is_some_and(|execution| seen.contains(&execution)))
        .map(|row| Wanted::new(row, rows))
        .collect();
    assert!(!wanted.is_empty() && !gaps.is_empty());
    let mut incidents = Vec::new();
    for (from, to) in gaps {
        let line = format!("blind from {from} to {to} UTC");
        let says_so = |notice: &&Value| {
            let lines = notice["lines"].as_array().unwrap().iter();
            lines.map(|line| line["text"].as_str().unwrap()).any(|text| text.starts_with(&line))
        };
        let notice = rows.iter().flat_map(Row::notices).find(says_so);
        let notice = notice.unwrap_or_else(|| panic!("no incident tells of the gap {line}"));
        incidents.push(notice["incident"].as_u64().unwrap());
    }
    println!("{} foreign orders and {} gaps are to be told", wanted.len(), incidents.len());
    let deadline = Instant::now() + TOLD_WITHIN;
    loop {
        let told = api.requests();
        wanted.retain(|order| !told.iter().any(|sent| sent.delivered && order.is_told_by(sent)));
        incidents.retain(|id| !told.iter().any(|sent| sent.delivered && names_incident(&sent.text, *id)));
        if wanted.is_empty() && incidents.is_empty() {
            break check_repeats(&told, owner);
        }
        assert!(Instant::now() < deadline, "never told: {wanted:?}, incidents {incidents:?}: {told:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A foreign order, its incident, and when its first finding was made.
#[derive(Debug)]
struct Wanted {
    order: String,
    incident: u64,
    found: Time,
}

impl Wanted {
    fn new(row: &Value, rows: &[Row]) -> Self {
        let order = format!("(order {},", row["order_id"]);
        let names =
            |notice: &Value| notice["lines"].as_array().unwrap().iter().any(|line| contains(&line["text"], &order));
        let found = rows.iter().find_map(|row| Some((row.at, row.notices().find(|notice| names(notice))?)));
        let (found, notice) = found.unwrap_or_else(|| panic!("{row} was seen, and no incident names it"));
        Self { order, incident: notice["incident"].as_u64().unwrap(), found }
    }

    /// By its own line, or, where many things happened at once, as one of its incident's orders.
    fn is_told_by(&self, sent: &Sent) -> bool {
        let sent_at = clock::wall() - sent.at.elapsed();
        let in_digest = is_digest(sent) && names_incident(&sent.text, self.incident) && sent_at > self.found;
        in_digest || sent.text.contains(&self.order)
    }
}

fn contains(text: &Value, part: &str) -> bool {
    text.as_str().is_some_and(|text| text.contains(part))
}

fn is_digest(sent: &Sent) -> bool {
    sent.text.starts_with("<b>Several at once")
}

/// A new card of an incident that had one before, with nothing between them that makes it news, is marked.
fn check_repeats(told: &[Sent], owner: &Owner) {
    let mut last: BTreeMap<u64, (String, &Sent)> = BTreeMap::new();
    let mut repeats = 0;
    for sent in told.iter().filter(|sent| sent.delivered && sent.method == "sendMessage" && sent.reply_to.is_none()) {
        if is_digest(sent) {
            // It has no message of its own now: its next change makes one.
            last.retain(|id, _| !names_incident(&sent.text, *id));
        }
        let head = sent.text.lines().next().unwrap_or_default().replace("<b>", "").replace("</b>", "");
        let Some((state, id)) = head.split_once(" · main · incident ") else { continue };
        let Ok(id) = id.parse::<u64>() else { continue };
        if let Some((before, earlier)) = last.insert(id, (state.to_owned(), sent)) {
            let marked = sent.text.contains("Repeated: this may have reached you before.");
            let news = before != state
                || owner.acknowledged.iter().any(|(of, at)| *of == id && *at > earlier.at && *at < sent.at);
            repeats += usize::from(marked);
            assert!(marked || news, "told twice, and not marked: {}\n{}", earlier.text, sent.text);
        }
    }
    println!("{} messages, {repeats} of them marked as repeated", told.len());
}

fn check_no_false_alarm(ledger: &[Value], rows: &[Row]) {
    let bots: Vec<String> = ledger
        .iter()
        .filter(|row| row["kind"] == "NEW" && BOTS.iter().any(|bot| row["agent"] == *bot))
        .map(|row| format!(" {} ", row["symbol"].as_str().unwrap()) + &format!("|(order {},", row["order_id"]))
        .collect();
    for notice in rows.iter().flat_map(Row::notices) {
        for line in notice["lines"].as_array().unwrap() {
            let text = line["text"].as_str().unwrap();
            let named = |order: &&String| order.split('|').all(|part| text.contains(part));
            // Only a line with an order in it is worth the search.
            if text.contains("(order ") {
                assert!(bots.iter().find(named).is_none(), "a bot's order was alarmed: {notice:#}");
            }
        }
    }
    let rules: BTreeSet<&str> =
        rows.iter().flat_map(Row::notices).filter_map(|notice| notice["rule"].as_str()).collect();
    assert_eq!(rules, BTreeSet::from(["blind", "foreign_order"]), "these opened incidents");
}
