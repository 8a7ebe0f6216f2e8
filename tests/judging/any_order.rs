//! Final verdicts are a function of what was said and shown. Random stories are told to the kernel in random orders of
//! arrival (each bot's records in their own order, what an honest bot read before what it then did), with echoes and
//! one restart, and compared with a plain model that looks at the whole at once.

use std::collections::{BTreeMap, BTreeSet};

use countersign::kernel::event::{Issuer, OrderRef, OrderSnapshot, ReadOutcome, ReadRequest, TagCheck, Tags};
use countersign::kernel::intent::{AmendTerms, CancelTerms, IntentBody, ListTerms, ResultOf, SendOutcome, Target};
use countersign::kernel::order::{OrderId, OrderStatus, Symbol};
use countersign::kernel::report::ExecutionReport;
use countersign::kernel::time::Time;
use proptest::prelude::*;

use crate::desk::{Desk, Shown, dec, id, requests};

const BOTS: [&str; 2] = ["mm", "grid"];

/// Of each order, by its number.
type Verdicts = BTreeMap<i64, &'static str>;
/// (kind, order, verdict) of each cancel and amendment.
type Requests = BTreeSet<(String, i64, String)>;

/// What becomes known of one order, and what is true of it.
#[derive(Clone, Debug)]
struct Story {
    bot: usize,
    said: Said,
    tag: Tagged,
    differs: bool,
    ends: Ends,
    /// Somebody uses its id for a second order.
    replayed: bool,
    /// It is announced twice, as a stop order is.
    twice: bool,
    result: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Before,
    After,
    Never,
    /// The bot announced it outside its limits, and was refused.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tagged {
    No,
    Daemon,
    Bot,
    StaleBot,
    Forged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Open,
    Filled,
    CanceledById,
    CanceledByTarget,
    CanceledByAll,
    CanceledUnsaid,
    CanceledSaidAfter,
    CanceledByAnIdForAnother,
    AmendedSaid,
    AmendedUnsaid,
    /// One of two legs; the cancel of the first ends both.
    List,
}

fn story() -> impl Strategy<Value = Story> {
    let said =
        prop_oneof![5 => Just(Said::Before), 1 => Just(Said::After), 2 => Just(Said::Never), 1 => Just(Said::Refused)];
    let tag = prop_oneof![
        4 => Just(Tagged::No), 2 => Just(Tagged::Daemon), 1 => Just(Tagged::Bot), 1 => Just(Tagged::StaleBot),
        1 => Just(Tagged::Forged)
    ];
    let ends = prop::sample::select(vec![
        Ends::Open,
        Ends::Filled,
        Ends::CanceledById,
        Ends::CanceledByTarget,
        Ends::CanceledByAll,
        Ends::CanceledUnsaid,
        Ends::CanceledSaidAfter,
        Ends::CanceledByAnIdForAnother,
        Ends::AmendedSaid,
        Ends::AmendedUnsaid,
        Ends::List,
    ]);
    let yes = |weight: u32| prop_oneof![(10 - weight) => Just(false), weight => Just(true)];
    (0..2_usize, said, tag, yes(2), ends, yes(3), yes(2), any::<bool>()).prop_map(
        |(bot, said, tag, differs, ends, replayed, twice, result)| {
            // The venue holds an order of a list or an amendment to what its fields say; those stories are plain.
            let plain = matches!(ends, Ends::List | Ends::AmendedSaid | Ends::AmendedUnsaid);
            let differs = differs && !plain;
            let said = if plain && said == Said::Refused { Said::Before } else { said };
            Story { bot, said, tag, differs, ends, replayed: replayed && said == Said::Before, twice, result }
        },
    )
}

/// Something that arrives, and what must have arrived before it.
#[derive(Clone, Debug)]
struct Arrival {
    what: What,
    after: Vec<usize>,
}

#[derive(Clone, Debug)]
enum What {
    Shown {
        report: Box<ExecutionReport>,
        tags: Tags,
        connection: usize,
    },
    /// The bot's record, written when it had read our answer to that earlier arrival.
    Record {
        bot: usize,
        body: Box<IntentBody>,
        read: Option<usize>,
    },
}

/// All that arrives, and what a look at the whole says of each order and request.
#[derive(Debug, Default)]
struct World {
    arrivals: Vec<Arrival>,
    /// Of each bot: its records so far, and the latest answer that it has read.
    spoken: [Vec<usize>; 2],
    read: [Option<usize>; 2],
    orders: Vec<Shown>,
    verdicts: Verdicts,
    requests: Requests,
}

fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % below.max(1)
    }
}

impl World {
    fn build(stories: &[Story], seed: u64) -> Self {
        let mut world = Self::default();
        let mut pick = numbers(seed);
        let desk = Desk::open();
        for (number, story) in (0_i64..).zip(stories) {
            world.tell(&desk, number, story, &mut pick);
        }
        for bot in 0..2 {
            world.beat(bot);
            world.beat(bot);
        }
        world
    }

    fn arrive(&mut self, what: What, after: Vec<usize>) -> usize {
        self.arrivals.push(Arrival { what, after });
        self.arrivals.len() - 1
    }

    /// The bot's next record; it has read some of our answers, later ones as it goes on.
    fn say(&mut self, bot: usize, body: IntentBody, after: Vec<usize>) -> usize {
        let mut after = after;
        after.extend(self.spoken[bot].last());
        let said = self.arrive(What::Record { bot, body: Box::new(body), read: self.read[bot] }, after);
        self.spoken[bot].push(said);
        said
    }

    fn beat(&mut self, bot: usize) -> usize {
        self.say(bot, IntentBody::Heartbeat { egress: None }, Vec::new())
    }

    /// The bot reads our answers up to one of those to its earlier records.
    fn read_on(&mut self, bot: usize, pick: &mut impl FnMut(usize) -> usize) {
        let from = self.read[bot].and_then(|read| self.spoken[bot].iter().position(|said| *said == read)).unwrap_or(0);
        let unread = self.spoken[bot].len() - from;
        if unread > 0 && pick(2) == 0 {
            self.read[bot] = Some(self.spoken[bot][from + pick(unread)]);
        }
    }

    /// The bot says it after it could know of `shown`: it has read an answer from after that.
    fn say_after(&mut self, bot: usize, body: IntentBody, shown: &[usize]) {
        let beat = self.say(bot, IntentBody::Heartbeat { egress: None }, shown.to_vec());
        self.read[bot] = Some(beat);
        self.say(bot, body, Vec::new());
    }

    /// A report on either connection, perhaps on both.
    fn show(&mut self, (report, tags): (ExecutionReport, Tags), after: &[usize], echo: bool) -> Vec<usize> {
        let mut shown = Vec::new();
        for connection in 0..=usize::from(echo) {
            let report = Box::new(report.clone());
            shown.push(self.arrive(What::Shown { report, tags, connection }, after.to_vec()));
        }
        shown
    }

    fn tell(&mut self, desk: &Desk, number: i64, story: &Story, pick: &mut impl FnMut(usize) -> usize) {
        let bot = story.bot;
        if pick(3) == 0 {
            self.beat(bot);
        }
        self.read_on(bot, pick);
        let order = order_of(desk, number, story);
        // The bot had read this when it sent the order, so the order is shown after it.
        let known: Vec<usize> = self.read[bot].into_iter().collect();
        let said = if story.differs { order.clone().with(|said| said.price = dec("59000")) } else { order.clone() };
        if matches!(story.said, Said::Before | Said::Refused) {
            self.say(bot, said.place(), Vec::new());
            if story.result {
                let of = self.seq_of_last(bot);
                self.say(bot, IntentBody::Result(ResultOf { of, outcome: SendOutcome::Unknown }), Vec::new());
            }
        }
        let mut shown = self.show(order.placed(), &known, pick(2) == 0);
        if story.twice {
            let (mut again, tags) = order.placed();
            again.execution_id = again.execution_id.map(|id| id + 500);
            again.transacted_at = again.transacted_at + std::time::Duration::from_millis(7);
            shown.extend(self.show((again, tags), &known, false));
        }
        self.verdicts.insert(order.order_id.0, verdict(story));
        shown.extend(self.end(&order, story, &known, pick));
        if story.replayed {
            let thiefs = order.clone().with(|thiefs| {
                thiefs.order_id = OrderId(-order.order_id.0);
                thiefs.created_at = order.created_at + std::time::Duration::from_millis(3);
                (thiefs.tag, thiefs.list_id) = (TagCheck::Absent, None);
            });
            self.show(thiefs.placed(), &known, pick(2) == 0);
            self.verdicts.insert(thiefs.order_id.0, "replayed");
            self.orders.push(thiefs);
        }
        if story.said == Said::After {
            self.say_after(bot, said.place(), &shown);
        }
        self.orders.push(order);
    }

    fn seq_of_last(&self, bot: usize) -> u64 {
        let numbered = self.spoken[bot].iter().filter(|said| {
            let beat = |body: &IntentBody| matches!(body, IntentBody::Heartbeat { .. });
            !matches!(&self.arrivals[**said].what, What::Record { body, .. } if beat(body))
        });
        // The desk's own bot has spoken once before.
        numbered.count() as u64 + u64::from(bot == 0)
    }

    fn end(
        &mut self,
        order: &Shown,
        story: &Story,
        known: &[usize],
        pick: &mut impl FnMut(usize) -> usize,
    ) -> Vec<usize> {
        let echo = pick(2) == 0;
        match story.ends {
            Ends::Open => Vec::new(),
            Ends::Filled => self.show(order.filled(), known, echo),
            Ends::AmendedSaid | Ends::AmendedUnsaid => self.amend(order, story, known, echo),
            Ends::List => self.cancel_list(order, story, known, echo),
            Ends::CanceledById
            | Ends::CanceledByTarget
            | Ends::CanceledByAll
            | Ends::CanceledUnsaid
            | Ends::CanceledSaidAfter
            | Ends::CanceledByAnIdForAnother => self.cancel(order, story, known, echo),
        }
    }

    fn cancel(&mut self, order: &Shown, story: &Story, known: &[usize], echo: bool) -> Vec<usize> {
        let own_id = format!("c-{}", order.order_id);
        let cancel = |target: Target, own: Option<&str>| {
            let client_order_id = own.map(id);
            IntentBody::Cancel(CancelTerms { symbol: order.symbol.clone(), target, client_order_id })
        };
        let (said, verdict) = match story.ends {
            Ends::CanceledById => (Some(order.cancel(Some(&own_id))), "matched"),
            Ends::CanceledByTarget => (Some(cancel(Target::Client(order.client_id.clone()), None)), "matched"),
            Ends::CanceledByAll => (Some(cancel(Target::All, None)), "matched"),
            Ends::CanceledByAnIdForAnother => (Some(cancel(Target::Client(id("another")), Some(&own_id))), "divergent"),
            _ => (None, "foreign"),
        };
        if let Some(said) = said {
            self.say(story.bot, said, Vec::new());
        }
        self.requests.insert(("cancel".into(), order.order_id.0, verdict.into()));
        let shown = self.show(order.canceled(&own_id), known, echo);
        if story.ends == Ends::CanceledSaidAfter {
            self.say_after(story.bot, order.cancel(Some(&own_id)), &shown);
        }
        shown
    }

    fn cancel_list(&mut self, order: &Shown, story: &Story, known: &[usize], echo: bool) -> Vec<usize> {
        let (leg, own_id) = (leg_of(order), format!("c-{}", order.order_id));
        if story.said == Said::Before {
            let list = ListTerms { client_order_id: id("l"), contingency: "OCO".into(), legs: vec![leg.terms()] };
            self.say(story.bot, IntentBody::List(list), Vec::new());
        }
        self.say(story.bot, order.cancel(Some(&own_id)), Vec::new());
        for canceled in [order, &leg] {
            self.requests.insert(("cancel".into(), canceled.order_id.0, "matched".into()));
        }
        self.verdicts.insert(leg.order_id.0, if story.said == Said::Before { "matched" } else { "foreign" });
        let mut shown = self.show(order.canceled(&own_id), known, echo);
        shown.extend(self.show(leg.placed(), known, echo));
        shown.extend(self.show(leg.canceled(&own_id), known, false));
        self.orders.push(leg);
        shown
    }

    fn amend(&mut self, order: &Shown, story: &Story, known: &[usize], echo: bool) -> Vec<usize> {
        let new_id = format!("am-{}", order.order_id.0);
        let verdict = if story.ends == Ends::AmendedSaid { "matched" } else { "foreign" };
        self.requests.insert(("amendment".into(), order.order_id.0, verdict.into()));
        if story.ends == Ends::AmendedSaid {
            let terms = AmendTerms {
                symbol: order.symbol.clone(),
                target: Target::Client(order.client_id.clone()),
                client_order_id: Some(id(&new_id)),
                quantity: dec("0.005"),
            };
            self.say(story.bot, IntentBody::Amend(terms), Vec::new());
        }
        let (report, mut tags) = order.replaced("0.005", &new_id);
        // The tag was made over the quantity that was placed.
        tags.order = if tags.order == TagCheck::Absent { TagCheck::Absent } else { TagCheck::Forged };
        let mut shown = self.show((report, tags), known, echo);
        let (mut fill, _) = order.traded("0.005");
        (fill.client_order_id, fill.quantity, fill.status) = (id(&new_id), dec("0.005"), OrderStatus::Filled);
        shown.extend(self.show((fill, Tags::NONE), known, false));
        shown
    }
}

fn order_of(desk: &Desk, number: i64, story: &Story) -> Shown {
    // Where a cancel-all or a list ends it, it stands in a symbol or list of its own.
    let symbol = if story.ends == Ends::CanceledByAll { "ETHUSDT" } else { "BTCUSDT" };
    let order = desk.order(10 + number * 2, &format!("o-{number}"));
    let stale = order.created_at - std::time::Duration::from_secs(45);
    let tag = match story.tag {
        Tagged::No => TagCheck::Absent,
        Tagged::Daemon => TagCheck::Valid { issuer: Issuer::Daemon, at: order.created_at },
        Tagged::Bot => TagCheck::Valid { issuer: Issuer::Bot, at: order.created_at },
        Tagged::StaleBot => TagCheck::Valid { issuer: Issuer::Bot, at: stale },
        Tagged::Forged => TagCheck::Forged,
    };
    order.with(|order| {
        (order.symbol, order.tag) = (Symbol::new(symbol), tag);
        order.list_id = (story.ends == Ends::List).then_some(100 + number);
        if story.said == Said::Refused {
            order.quantity = dec("5");
        }
    })
}

fn leg_of(order: &Shown) -> Shown {
    order.clone().with(|leg| {
        (leg.order_id, leg.client_id) = (OrderId(order.order_id.0 + 1), id(&format!("leg-{}", order.order_id.0)));
        leg.tag = TagCheck::Absent;
    })
}

/// The plain model: the verdict on an order, looking at its whole story at once.
fn verdict(story: &Story) -> &'static str {
    match (story.said, story.tag) {
        (_, Tagged::StaleBot) if story.said != Said::Before => "replayed",
        (Said::Before, _) if story.differs => "divergent",
        (Said::Before, Tagged::Forged) => "divergent",
        (Said::Before, Tagged::StaleBot) => "replayed",
        (Said::Before, Tagged::No | Tagged::Daemon | Tagged::Bot) => "matched",
        (_, Tagged::No) => "foreign",
        (_, Tagged::Daemon) => "unissued",
        (_, Tagged::Bot) => "unlogged",
        (_, Tagged::Forged) => "forged",
        (_, Tagged::StaleBot) => "replayed",
    }
}

/// Tells the world to a kernel in one order of arrival, and waits until nothing is open any more.
fn run(world: &World, seed: u64) -> Desk {
    let mut pick = numbers(seed);
    let mut desk = Desk::open();
    desk.live(2);
    desk.wait_ms(10);
    let hello = desk.now;
    let mut replied: BTreeMap<usize, Time> = BTreeMap::new();
    let mut left: Vec<usize> = (0..world.arrivals.len()).collect();
    let mut done = BTreeSet::new();
    let restart_at = pick(left.len() + 1);
    let mut first_connection = 1;
    while !left.is_empty() {
        if done.len() == restart_at && first_connection == 1 {
            first_connection = 3;
            desk.wait_ms(1);
            desk.restart();
            desk.live(3);
            desk.live(4);
        }
        let ready: Vec<usize> = left
            .iter()
            .copied()
            .filter(|arrival| world.arrivals[*arrival].after.iter().all(|need| done.contains(need)))
            .collect();
        let next = ready[pick(ready.len())];
        desk.wait_ms(1);
        match &world.arrivals[next].what {
            What::Shown { report, tags, connection } => {
                desk.show_on(first_connection + *connection as u64, ((**report).clone(), *tags));
            }
            What::Record { bot, body, read } => {
                let mut record = desk.write_as(BOTS[*bot], (**body).clone());
                record.nonce = Some(read.map_or(hello, |read| replied[&read]));
                let reply = desk.deliver(record);
                replied.insert(next, reply.nonce);
            }
        }
        left.retain(|arrival| *arrival != next);
        done.insert(next);
        if pick(3) == 0 {
            answer_reads(&mut desk, world);
        }
    }
    for _ in 0..60 {
        answer_reads(&mut desk, world);
        desk.wait_ms(1_000);
    }
    desk
}

/// What the venue would answer: orders as they are by now, and no comparison, which would tell the end too early.
fn answer_reads(desk: &mut Desk, world: &World) {
    while let Some((_, request)) = desk.reads.front().cloned() {
        let outcome = match request {
            ReadRequest::OpenOrders | ReadRequest::Balances => crate::desk::failed(),
            ReadRequest::Order { symbol, order } => {
                let of_symbol = world.orders.iter().filter(|known| known.symbol == symbol);
                let found = of_symbol.filter(|known| match &order {
                    OrderRef::Id(order_id) => known.order_id == *order_id,
                    OrderRef::Client(client) => known.client_id == *client,
                });
                let first = found.min_by_key(|known| known.created_at);
                first.map_or(ReadOutcome::NotFound, |known| ReadOutcome::Order(Box::new(by_now(known, world))))
            }
        };
        desk.answer(outcome);
    }
}

fn by_now(order: &Shown, world: &World) -> OrderSnapshot {
    let mut snapshot = order.read(OrderStatus::New);
    let amended = world.requests.iter().any(|(kind, of, _)| kind == "amendment" && *of == order.order_id.0);
    if amended {
        snapshot.quantity = dec("0.005");
        snapshot.tag = if snapshot.tag == TagCheck::Absent { TagCheck::Absent } else { TagCheck::Forged };
    }
    snapshot
}

fn found(desk: &Desk) -> (Verdicts, Requests) {
    let orders = desk.kernel.state().blotter.orders.iter().filter(|((_, order_id), _)| order_id.0 != 1);
    let orders = orders.map(|((_, order_id), order)| (order_id.0, order.verdict.word())).collect();
    (orders, requests(&desk.kernel).into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn verdicts_do_not_depend_on_the_order_of_arrival(
        stories in prop::collection::vec(story(), 1..7),
        seed: u64,
        arrivals in prop::collection::vec(any::<u64>(), 3),
    ) {
        let world = World::build(&stories, seed);
        let expected = (world.verdicts.clone(), world.requests.clone());
        for order in arrivals {
            let desk = run(&world, order);
            prop_assert_eq!(&found(&desk), &expected, "arrival {}: {:#?}", order, world.arrivals);
        }
    }
}
