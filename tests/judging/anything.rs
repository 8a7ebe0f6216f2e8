//! No event can make the judging fail, and a snapshot taken anywhere goes on as if it had not been taken.

use std::time::Duration;

use countersign::kernel::account::Kernel;
use countersign::kernel::event::{
    AccessEvidence, AccessSource, Connection, Effect, EffectId, Event, Fault, FeedChange, Issuer, ReadOutcome,
    TagCheck, Tags, Ticket,
};
use countersign::kernel::incident::IncidentId;
use countersign::kernel::intent::{
    AmendTerms, CancelTerms, IntentBody, IntentRecord, ListTerms, OrderTerms, ResultOf, SendOutcome, Target,
};
use countersign::kernel::money::Dec;
use countersign::kernel::order::{
    Account, Asset, Bot, ClientId, ExecutionType, ExpiryReason, OrderId, OrderStatus, OrderType, Side, Symbol,
    TimeInForce,
};
use countersign::kernel::report::{AccountPosition, Balance, BalanceUpdate, ExecutionReport, ListStatus, Report};
use countersign::kernel::time::Time;
use proptest::prelude::*;
use proptest::sample::select;

use crate::desk::{Desk, START, Shown, dec, id, limits, rules};

/// Few names, so that things meet.
fn client() -> impl Strategy<Value = ClientId> {
    select(vec!["a", "b", "c", "d", "first"]).prop_map(ClientId::new)
}

fn symbol() -> impl Strategy<Value = Symbol> {
    select(vec!["BTCUSDT", "ETHUSDT", "VIABTC", "漢字"]).prop_map(Symbol::new)
}

fn amount() -> impl Strategy<Value = Dec> {
    select(vec!["0", "0.005", "0.01", "1", "7", "-1", "99999999999999999999.999999999999999999"]).prop_map(dec)
}

fn time() -> impl Strategy<Value = Time> {
    prop_oneof![
        8 => (-60_000_i64..60_000).prop_map(|ms| Time::from_millis(START.millis() + ms)),
        1 => any::<i64>().prop_map(Time::from_micros),
    ]
}

fn tag() -> impl Strategy<Value = TagCheck> {
    prop_oneof![
        Just(TagCheck::Absent),
        Just(TagCheck::Forged),
        (any::<bool>(), time()).prop_map(|(daemon, at)| {
            TagCheck::Valid { issuer: if daemon { Issuer::Daemon } else { Issuer::Bot }, at }
        }),
    ]
}

fn shown() -> impl Strategy<Value = Shown> {
    (0..6_i64, client(), symbol(), any::<bool>(), select(OrderType::ALL), amount(), amount(), time(), tag()).prop_map(
        |(order_id, client_id, symbol, sell, order_type, quantity, price, created_at, tag)| Shown {
            symbol,
            order_id: OrderId(order_id),
            client_id,
            side: if sell { Side::Sell } else { Side::Buy },
            order_type,
            quantity,
            quote_quantity: Dec::ZERO,
            price,
            created_at,
            list_id: (order_id % 2 == 0).then_some(7),
            tag,
        },
    )
}

fn execution() -> impl Strategy<Value = (ExecutionReport, Tags)> {
    let ids = (prop::option::of(client()), prop::option::of(0..40_i64), prop::option::of(select(ExpiryReason::ALL)));
    let words = (select(ExecutionType::ALL), select(OrderStatus::ALL), select(TimeInForce::ALL));
    (shown(), words, amount(), ids, prop::option::of((symbol(), 0..6_i64)), any::<bool>(), tag()).prop_map(
        |(shown, (execution_type, status, time_in_force), filled, (by, execution, reason), counter, dated, request)| {
            let mut report = shown.report(execution_type, status, filled);
            (report.time_in_force, report.request_client_order_id) = (time_in_force, by);
            (report.execution_id, report.expiry_reason) = (execution, reason);
            report.counter_order = counter.map(|(symbol, order_id)| (symbol, OrderId(order_id)));
            report.created_at = report.created_at.filter(|_| dated);
            (report, Tags { order: shown.tag, request })
        },
    )
}

fn report() -> impl Strategy<Value = (Report, Tags)> {
    let asset = || select(vec!["USDT", "BTC"]).prop_map(Asset::new);
    let balances = prop::collection::vec((asset(), amount(), amount()), 0..3);
    let moved = (asset(), amount(), time());
    prop_oneof![
        8 => execution().prop_map(|(report, tags)| (Report::Execution(Box::new(report)), tags)),
        2 => (balances, time()).prop_map(|(balances, at)| {
            let balances = balances.into_iter().map(|(asset, free, locked)| Balance { asset, free, locked }).collect();
            (Report::Position(AccountPosition { balances, event_at: at, updated_at: at }), Tags::NONE)
        }),
        1 => moved.prop_map(|(asset, delta, at)| {
            (Report::Balance(BalanceUpdate { asset, delta, event_at: at, cleared_at: at }), Tags::NONE)
        }),
        1 => (symbol(), client(), time()).prop_map(|(symbol, list_client_order_id, at)| {
            let (contingency, status, order_status, reject_reason) =
                ("OCO".into(), "ALL_DONE".into(), "ALL_DONE".into(), "NONE".into());
            let legs = Vec::new();
            let list = ListStatus {
                symbol, list_id: 7, list_client_order_id, contingency, status, order_status, reject_reason, legs,
                event_at: at, transacted_at: at,
            };
            (Report::List(list), Tags::NONE)
        }),
    ]
}

fn terms() -> impl Strategy<Value = OrderTerms> {
    (shown(), any::<bool>()).prop_map(|(shown, by_quote)| {
        let mut terms = shown.terms();
        if by_quote {
            terms.quote_quantity = terms.quantity.take();
        }
        terms
    })
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (0..6_i64).prop_map(|n| Target::Order(OrderId(n))),
        client().prop_map(Target::Client),
        Just(Target::All)
    ]
}

fn body() -> impl Strategy<Value = IntentBody> {
    let cancel = || {
        (symbol(), target(), prop::option::of(client())).prop_map(|(symbol, target, client_order_id)| CancelTerms {
            symbol,
            target,
            client_order_id,
        })
    };
    let outcome = prop_oneof![
        Just(SendOutcome::Accepted { order_id: None }),
        Just(SendOutcome::Rejected { code: None, message: "no".into() }),
        Just(SendOutcome::NotSent),
        Just(SendOutcome::Unknown),
    ];
    prop_oneof![
        4 => terms().prop_map(IntentBody::Place),
        2 => cancel().prop_map(IntentBody::Cancel),
        1 => (cancel(), amount()).prop_map(|(cancel, quantity)| IntentBody::Amend(AmendTerms {
            symbol: cancel.symbol, target: cancel.target, client_order_id: cancel.client_order_id, quantity,
        })),
        1 => (cancel(), terms()).prop_map(|(cancel, place)| IntentBody::CancelReplace { cancel, place }),
        1 => prop::collection::vec(terms(), 0..10).prop_map(|legs| {
            IntentBody::List(ListTerms { client_order_id: id("list"), contingency: "OCO".into(), legs })
        }),
        2 => (0..30_u64, outcome).prop_map(|(of, outcome)| IntentBody::Result(ResultOf { of, outcome })),
        3 => any::<bool>().prop_map(|known| IntentBody::Heartbeat {
            egress: known.then(|| "198.51.100.7".parse().unwrap()),
        }),
    ]
}

fn record() -> impl Strategy<Value = IntentRecord> {
    let seq = prop_oneof![12 => 0..30_u64, 1 => any::<u64>()];
    let bot = select(vec!["mm", "grid", "nobody"]);
    (bot, seq, time(), prop::option::of(time()), prop::option::of(0..30_u64), body()).prop_map(
        |(bot, seq, at, nonce, supersedes, body)| IntentRecord {
            account: Account::new("main"),
            bot: Bot::new(bot),
            seq,
            at,
            nonce,
            supersedes,
            strategy: None,
            owner: None,
            body,
        },
    )
}

fn outcome() -> impl Strategy<Value = ReadOutcome> {
    let order = || (shown(), select(OrderStatus::ALL)).prop_map(|(shown, status)| shown.read(status));
    prop_oneof![
        3 => order().prop_map(|order| ReadOutcome::Order(Box::new(order))),
        2 => Just(ReadOutcome::NotFound),
        1 => Just(crate::desk::failed()),
        2 => prop::collection::vec(order(), 0..4).prop_map(ReadOutcome::OpenOrders),
        2 => (amount(), amount()).prop_map(|(free, locked)| {
            ReadOutcome::Balances(vec![Balance { asset: Asset::new("USDT"), free, locked }])
        }),
    ]
}

/// What may happen: an event, or the answer to the oldest read that waits.
#[derive(Clone, Debug)]
enum Happens {
    Event(Box<Event>),
    Read(ReadOutcome),
}

fn started(tagged_only: bool, wait: Duration) -> Event {
    let mut declared = countersign::kernel::declared::Declared::nothing(Account::new("main"));
    declared.bots.insert(Bot::new("mm"), limits());
    declared.bots.insert(Bot::new("grid"), limits());
    declared.tagged_only = tagged_only;
    (declared.waits.pending_cap, declared.waits.silent_after, declared.waits.audit_every) = (wait, wait, wait);
    Event::Started { version: "test".into(), declared: Box::new(declared), rules: Box::new(rules()) }
}

fn event() -> impl Strategy<Value = Event> {
    let change = prop_oneof![
        4 => Just(FeedChange::Live),
        2 => Just(FeedChange::Lost { reason: "reset".into(), heard_until: None }),
        1 => Just(FeedChange::Retired),
        1 => Just(FeedChange::KeyRefused { code: -2015, message: "no".into() }),
    ];
    let connection = || (1..4_u64).prop_map(Connection);
    let digest = select(vec!["00000000", ""]);
    prop_oneof![
        12 => (connection(), report()).prop_map(|(connection, (report, tags))| {
            Event::Report { connection, report, tags, raw: "{}".into() }
        }),
        10 => record().prop_map(|record| Event::Intent { ticket: Ticket(1), record: Box::new(record) }),
        4 => (connection(), change).prop_map(|(connection, change)| Event::Feed { connection, change }),
        1 => connection().prop_map(|connection| Event::Kept { connection, reason: "?".into(), raw: "".into() }),
        1 => (any::<u64>(), any::<u32>(), outcome()).prop_map(|(cause, index, outcome)| {
            Event::Read { effect: EffectId { cause, index }, outcome }
        }),
        1 => time().prop_map(|at| Event::Access { ticket: Ticket(2), evidence: AccessEvidence {
            account: Account::new("main"), at, address: "2001:db8::1".parse().unwrap(), source: AccessSource::Mail,
            action: None,
        } }),
        1 => (0..60_u64, prop::option::of(0..5_u64)).prop_map(|(incident, shown)| {
            Event::Acknowledge { ticket: Ticket(3), by: "owner".into(), incident: IncidentId(incident), shown }
        }),
        1 => digest.prop_map(|digest| {
            Event::ConfirmPreExisting { ticket: Ticket(4), by: "owner".into(), digest: digest.into() }
        }),
        1 => any::<u64>().prop_map(|intents| Event::Refused { intents, access: u64::MAX }),
        1 => any::<i64>().prop_map(|by_ms| Event::Fault(Fault::ClockJump { by_ms })),
        1 => (any::<bool>(), select(vec![0, 1, 10])).prop_map(|(tagged_only, wait)| {
            started(tagged_only, Duration::from_secs(wait))
        }),
        4 => Just(Event::Due),
    ]
}

fn happens() -> impl Strategy<Value = (Happens, i64)> {
    let what = prop_oneof![
        4 => event().prop_map(|event| Happens::Event(Box::new(event))),
        1 => outcome().prop_map(Happens::Read),
    ];
    let steps = prop_oneof![6 => 0..2_000_i64, 1 => -5_000..60_000_i64];
    (what, steps)
}

/// Applies it, remembers which reads it asks for, and sees that nothing failed.
fn apply(kernel: &mut Kernel, now: Time, seq: u64, event: Event) -> Vec<Effect> {
    let effects = kernel.apply(now, seq, event);
    for effect in &effects {
        if let Effect::Tell(notice) = effect {
            assert_ne!(&*notice.rule, "judging_failed", "{notice:?}");
        }
    }
    effects
}

fn reborn(kernel: &Kernel, now: Time, seq: u64) -> Kernel {
    let restored = Event::Restored {
        state: Box::new(kernel.state().clone()),
        declared: Box::new(kernel.declared().clone()),
        rules: Box::new(kernel.rules().clone()),
    };
    let text = serde_json::to_string(&restored).expect("a snapshot is JSON");
    let mut other = Kernel::new(Account::new("main"));
    let effects = apply(&mut other, now, seq, serde_json::from_str(&text).expect("a snapshot reads back"));
    assert_eq!(effects, Vec::new(), "a snapshot has no effects");
    let again = serde_json::to_string(other.state()).expect("a state is JSON");
    assert_eq!(again, serde_json::to_string(kernel.state()).expect("a state is JSON"));
    other
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_fails_and_a_snapshot_changes_nothing(
        story in prop::collection::vec(happens(), 1..120),
        cut in 0..120_usize,
    ) {
        let mut kernel = Kernel::new(Account::new("main"));
        let mut other = None;
        let (mut now, mut reads) = (START, Vec::new());
        let first = (Happens::Event(Box::new(started(false, Duration::from_secs(10)))), 0);
        for (seq, (happens, step)) in (1_u64..).zip(std::iter::once(first).chain(story)) {
            now = Time::from_millis(now.millis() + step);
            let event = match happens {
                Happens::Event(event) => *event,
                Happens::Read(outcome) if !reads.is_empty() => Event::Read { effect: reads.remove(0), outcome },
                Happens::Read(_) => Event::Due,
            };
            let effects = apply(&mut kernel, now, seq, event.clone());
            if let Some(other) = &mut other {
                let replayed = apply(other, now, seq, event);
                prop_assert_eq!(&effects, &replayed);
            }
            let asked = (0..).zip(&effects).filter(|(_, effect)| matches!(effect, Effect::Read(_)));
            reads.extend(asked.map(|(index, _)| EffectId { cause: seq, index }));
            if usize::try_from(seq).ok() == Some(cut) {
                other = Some(reborn(&kernel, now, seq));
            }
        }
    }
}

#[test]
fn a_used_desk_survives_its_snapshot() {
    let mut desk = Desk::open();
    desk.show(desk.order(2, "thief").placed());
    desk.live(2);
    desk.pass();
    reborn(&desk.kernel, desk.now, 1_000);
}
