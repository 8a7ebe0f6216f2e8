//! One connection's life in virtual time.

use super::*;
use crate::venue::binance::read;

/// A session and a clock that moves to whatever is due next.
struct Bench {
    session: Session,
    now: Time,
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl Bench {
    fn new(seats: usize) -> Self {
        let now = Time::from_millis(1_764_000_000_000);
        Self { session: Session::new(now, seats, SessionSettings::default()), now }
    }

    fn actions(&mut self) -> Vec<Action> {
        let actions = std::iter::from_fn(|| self.session.poll_action());
        let without_heard = |action| match action {
            // Its own test shows when a lost connection was last heard.
            Action::Feed { seat, change: FeedChange::Lost { reason, .. } } => {
                Action::Feed { seat, change: FeedChange::Lost { reason, heard_until: None } }
            }
            other => other,
        };
        actions.map(without_heard).collect()
    }

    fn say(&mut self, frame: &str) -> Option<Delivery> {
        self.session.handle_frame(self.now, read(frame))
    }

    /// All accounts subscribed: account n has subscription n.
    fn live(seats: usize) -> Self {
        let mut bench = Self::new(seats);
        for action in bench.actions() {
            let Action::Subscribe { id, seat } = action else { panic!("{action:?}") };
            bench.say(&format!(r#"{{"id":"{id}","status":200,"result":{{"subscriptionId":{}}}}}"#, seat.0));
            assert_eq!(bench.actions(), [Action::Feed { seat, change: FeedChange::Live }]);
        }
        bench
    }

    /// Lets `span` pass, answering pings if `pong`; what else was wanted, with the time since the start.
    fn pass(&mut self, span: Duration, pong: bool) -> Vec<(Duration, Action)> {
        let (start, end) = (self.now, self.now + span);
        let mut seen = Vec::new();
        while let Some(due) = self.session.poll_timeout().filter(|due| *due <= end) {
            assert!(due >= self.now, "time goes on");
            self.now = due;
            self.session.handle_timeout(due);
            for action in self.actions() {
                match action {
                    Action::Ping if pong => self.session.handle_heard(due),
                    Action::Ping => {}
                    action => seen.push((due.since(start), action)),
                }
            }
        }
        self.now = end;
        seen
    }
}

fn lost(seat: usize, reason: &str) -> Action {
    Action::Feed { seat: Seat(seat), change: FeedChange::Lost { reason: reason.into(), heard_until: None } }
}

fn balance_update(envelope: &str) -> String {
    envelope.replace('@', r#"{"e":"balanceUpdate","E":1,"a":"BTC","d":"1","T":1}"#)
}

#[test]
fn tells_accounts_apart_by_subscription() {
    let mut bench = Bench::live(2);
    for (envelope, whose) in [
        (r#"{"subscriptionId":0,"event":@}"#, Some(0)),
        (r#"{"subscriptionId":1,"event":@}"#, Some(1)),
        (r#"{"subscriptionId":7,"event":@}"#, None),
        ("@", None),
    ] {
        match (bench.say(&balance_update(envelope)).unwrap(), whose) {
            (Delivery::Report { seat, .. }, Some(whose)) => assert_eq!(seat, Seat(whose)),
            (Delivery::Kept { seat: None, reason }, None) => assert!(reason.contains("subscription"), "{reason}"),
            other => panic!("{envelope}: {other:?}"),
        }
    }
    assert!(matches!(Bench::live(1).say(&balance_update("@")), Some(Delivery::Report { seat: Seat(0), .. })));
}

#[test]
fn an_event_that_overtakes_its_subscriptions_answer_finds_its_account() {
    let mut bench = Bench::new(1);
    let event = balance_update(r#"{"subscriptionId":9,"event":@}"#);
    assert!(matches!(bench.say(&event), Some(Delivery::Report { seat: Seat(0), .. })));
    let mut bench = Bench::new(2);
    assert!(matches!(bench.say(&event), Some(Delivery::Kept { seat: None, .. })));
}

#[test]
fn a_lost_connection_says_when_it_was_last_heard() {
    let heard_until = |bench: &mut Bench| {
        std::iter::from_fn(|| bench.session.poll_action()).find_map(|action| match action {
            Action::Feed { change: FeedChange::Lost { heard_until, .. }, .. } => heard_until,
            _ => None,
        })
    };
    let mut bench = Bench::live(1);
    let heard = bench.now + seconds(3);
    bench.now = heard;
    bench.session.handle_heard(heard);
    bench.now = heard + seconds(4);
    bench.session.handle_closed("the connection broke");
    assert_eq!(heard_until(&mut bench), Some(heard));
}

#[test]
fn a_half_open_connection_is_found_within_15_seconds() {
    for quiet_before in [0, 1, 4, 60] {
        let mut bench = Bench::live(2);
        bench.pass(seconds(5), true);
        for _ in 0..quiet_before {
            bench.pass(seconds(1), true);
            bench.say(r#"{"id":"3","status":200,"result":[{"subscriptionId":0},{"subscriptionId":1}]}"#);
            bench.actions();
        }
        let seen = bench.pass(seconds(15), false);
        let reason = "the connection fell silent: no answer to a ping";
        let ends: Vec<&Action> = seen
            .iter()
            .map(|(_, action)| action)
            .filter(|action| !matches!(action, Action::ListSubscriptions { .. }))
            .collect();
        assert_eq!(ends, [&lost(0, reason), &lost(1, reason), &Action::Close], "after {quiet_before} s");
        assert_eq!(bench.session.poll_timeout(), None);
    }
}

#[test]
fn a_stall_of_our_own_is_not_the_venues_silence() {
    let mut bench = Bench::live(1);
    bench.pass(seconds(8), false);
    bench.now = bench.now + seconds(60);
    bench.session.handle_stall(bench.now);
    bench.session.handle_timeout(bench.now);
    assert!(!bench.actions().contains(&Action::Close));
}

#[test]
fn a_subscription_that_died_unseen_is_found_within_60_seconds() {
    let mut bench = Bench::live(2);
    let seen = bench.pass(seconds(30), true);
    let [(_, Action::ListSubscriptions { id })] = seen.as_slice() else { panic!("{seen:?}") };
    bench.say(&format!(r#"{{"id":"{id}","status":200,"result":[{{"subscriptionId":0}},{{"subscriptionId":1}}]}}"#));
    assert_eq!(bench.actions(), []);
    // It dies here, just after it was listed.
    let seen = bench.pass(seconds(35), true);
    let [(at, Action::ListSubscriptions { id })] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(*at + SessionSettings::default().answer_within <= seconds(60));
    bench.say(&format!(r#"{{"id":"{id}","status":200,"result":[{{"subscriptionId":1}}]}}"#));
    let reason = "the venue no longer lists the subscription";
    assert_eq!(bench.actions(), [lost(0, reason), Action::Replace { reason: reason.into() }]);
    let late = bench.say(&balance_update(r#"{"subscriptionId":0,"event":@}"#));
    assert!(matches!(late, Some(Delivery::Report { seat: Seat(0), .. })), "a late event keeps its account");
}

#[test]
fn listings_that_fail_ask_for_a_replacement_and_do_not_end_a_feed() {
    let mut bench = Bench::live(1);
    let seen = bench.pass(seconds(90), true);
    let wanted: Vec<_> = seen.iter().filter(|(_, action)| matches!(action, Action::Replace { .. })).collect();
    assert_eq!(wanted.len(), 1);
    assert!(wanted[0].0 <= seconds(80));
    assert!(!seen.iter().any(|(_, action)| matches!(action, Action::Close | Action::Feed { .. })));
}

#[test]
fn a_late_answer_is_still_an_answer() {
    let mut bench = Bench::new(1);
    let seen = bench.pass(seconds(45), true);
    let wanted = Action::Replace { reason: "no answer to a subscription".into() };
    assert!(seen.contains(&(seconds(10), wanted)), "{seen:?}");
    assert_eq!(bench.say(r#"{"id":"2","status":200,"result":[]}"#), None, "a listing that was given up");
    assert_eq!(bench.say(r#"{"id":"1","status":200,"result":{"subscriptionId":0}}"#), None);
    assert_eq!(bench.actions(), [Action::Feed { seat: Seat(0), change: FeedChange::Live }]);
}

#[test]
fn the_venues_own_endings_are_heeded() {
    let mut bench = Bench::live(2);
    assert_eq!(bench.say(r#"{"subscriptionId":1,"event":{"e":"eventStreamTerminated","E":1}}"#), None);
    let reason = "the venue ended the stream";
    assert_eq!(bench.actions(), [lost(1, reason), Action::Replace { reason: reason.into() }]);

    let mut bench = Bench::live(1);
    assert_eq!(bench.say(r#"{"event":{"e":"serverShutdown","E":1}}"#), None);
    assert_eq!(bench.actions(), [Action::Replace { reason: "the server announced its shutdown".into() }]);
    bench.session.handle_retired();
    assert_eq!(bench.actions(), [Action::Feed { seat: Seat(0), change: FeedChange::Retired }]);

    let mut bench = Bench::live(1);
    bench.session.handle_closed("gone");
    assert_eq!(bench.actions(), [lost(0, "gone"), Action::Close]);
    bench.session.handle_closed("gone twice");
    assert_eq!(bench.actions(), []);
}

#[test]
fn is_replaced_before_24_hours() {
    let settings = SessionSettings { list_every: seconds(200_000), ..SessionSettings::default() };
    let mut bench = Bench::new(0);
    bench.session = Session::new(bench.now, 0, settings);
    let seen = bench.pass(seconds(24 * 3_600), true);
    let reason = "the venue ends connections after 24 h".into();
    assert_eq!(seen, [(seconds(23 * 3_600), Action::Replace { reason })]);
}

fn refusal(code: i64) -> String {
    format!(r#"{{"id":"1","status":400,"error":{{"code":{code},"msg":"no"}}}}"#)
}

#[test]
fn a_refused_key_is_told_and_tried_again_slowly() {
    for code in [-2015, -2014, -2008, -1022] {
        let mut bench = Bench::new(1);
        bench.actions();
        bench.say(&refusal(code));
        let change = FeedChange::KeyRefused { code, message: "no".into() };
        assert_eq!(bench.actions(), [Action::Feed { seat: Seat(0), change }]);
        let seen = bench.pass(seconds(400), true);
        let again: Vec<_> = seen.iter().filter(|(_, action)| matches!(action, Action::Subscribe { .. })).collect();
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].0, seconds(300));
    }
}

#[test]
fn a_refused_time_asks_for_the_venues_clock_first() {
    let mut bench = Bench::new(1);
    bench.actions();
    bench.say(&refusal(-1021));
    assert_eq!(bench.actions(), [Action::AskServerTime]);
    assert_eq!(bench.pass(seconds(3), true), []);
    bench.session.handle_server_time(bench.now);
    assert_eq!(bench.actions(), [Action::Subscribe { id: 2, seat: Seat(0) }]);

    let mut bench = Bench::new(1);
    bench.actions();
    bench.say(&refusal(-1021));
    let seen = bench.pass(seconds(12), true);
    assert_eq!(seen.last(), Some(&(CLOCK_WITHIN, Action::Subscribe { id: 2, seat: Seat(0) })), "no clock came");
}

#[test]
fn a_ban_holds_everything_for_as_long_as_the_venue_says() {
    let mut bench = Bench::new(1);
    bench.actions();
    bench.say(
        r#"{"id":"1","status":418,"error":{"code":-1003,"msg":"banned","data":{"serverTime":1000,"retryAfter":91000}}}"#,
    );
    assert_eq!(bench.actions(), [Action::Hold { pause: seconds(90) }]);
    let seen = bench.pass(seconds(95), true);
    let listing = Action::ListSubscriptions { id: 3 };
    assert_eq!(seen, [(seconds(90), Action::Subscribe { id: 2, seat: Seat(0) }), (seconds(90), listing)]);
}

#[test]
fn other_refusals_are_tried_again_ever_more_slowly() {
    let mut bench = Bench::new(1);
    let mut gaps = Vec::new();
    for id in 1..=8 {
        bench.session.listing = Listing::Due { at: bench.now + seconds(10_000), failures: 0 };
        bench.actions();
        bench.say(&refusal(-1000).replace(r#""id":"1""#, &format!(r#""id":"{id}""#)));
        let before = bench.now;
        let due = bench.session.seats[0];
        let SeatState::Waiting { until, .. } = due else { panic!("{due:?}") };
        gaps.push(until.since(before).as_secs());
        bench.now = until;
        bench.session.handle_timeout(until);
    }
    assert_eq!(gaps, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn what_is_not_readable_or_not_asked_is_kept() {
    let mut bench = Bench::live(1);
    for (frame, reason) in [
        ("{", "not JSON"),
        (r#"{"id":null,"status":401,"error":{"code":-2015,"msg":"Invalid API-key"}}"#, "-2015: Invalid API-key"),
        (r#"{"id":"77","status":200,"result":{}}"#, "no open request (status 200)"),
    ] {
        let Some(Delivery::Kept { reason: found, .. }) = bench.say(frame) else { panic!("{frame}") };
        assert!(found.contains(reason), "{found}");
    }
}
