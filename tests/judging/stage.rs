//! An account that may be stopped, and the venue's side of it: what the acts find there and do.

use std::time::Duration;

use countersign::kernel::act::{Act, ActOutcome, KeyPrint, KeyRights, KeyRow, ProbeAnswer};
use countersign::kernel::command::{Command, Totp};
use countersign::kernel::declared::Declared;
use countersign::kernel::event::{Answer, Event, OrderSnapshot, Ticket};
use countersign::kernel::money::Dec;
use countersign::kernel::order::{Asset, OrderStatus};
use countersign::kernel::people::Way;
use countersign::kernel::report::Balance;
use countersign::kernel::stopping::{DeclaredKey, KeyRole, Means, Mode, Stopping};
use countersign::kernel::time::Time;

use crate::desk::{Desk, check};

pub const TRADES: KeyRights = KeyRights { trade: true, ..KeyRights::NONE };

pub fn may_stop(declared: &mut Declared) {
    let key = |name: &str, role| DeclaredKey { name: name.into(), print: KeyPrint::of(name), role };
    declared.stopping = Some(Stopping {
        mode: Mode::Ask,
        means: Means::SubAccount,
        keys: vec![key("bot", KeyRole::Bot), key("watch", KeyRole::Watch), key("cancel", KeyRole::Cancel)],
        hooks: Vec::new(),
        pausing: Vec::new(),
        quiet: Duration::from_secs(5),
        freeze_unanswered: None,
        transfer_to_master: false,
    });
}

/// The venue's side: the bot's key until it is deleted, and the orders that a read would show.
pub struct Venue {
    pub bot_key: Option<KeyRights>,
    pub open: Vec<OrderSnapshot>,
    pub free: Vec<(&'static str, Dec)>,
    pub done: Vec<String>,
}

impl Venue {
    pub fn with(open: Vec<OrderSnapshot>) -> Self {
        Self { bot_key: Some(TRADES), open, free: Vec::new(), done: Vec::new() }
    }

    pub fn act(&mut self, act: &Act) -> ActOutcome {
        let done = ActOutcome::Done { proof: "".into() };
        match act {
            Act::ListKeys => {
                let row = |name: &str, rights| KeyRow {
                    key: KeyPrint::of(name),
                    name: name.into(),
                    created_at: Time::EPOCH,
                    rights,
                };
                let mut rows = vec![row("watch", KeyRights::NONE), row("cancel", TRADES)];
                rows.extend(self.bot_key.map(|rights| row("bot", rights)));
                ActOutcome::Keys(rows)
            }
            Act::SetRights { key, rights } => {
                assert_eq!(*key, KeyPrint::of("bot"));
                self.done.push(format!("rights: {rights}"));
                self.bot_key = Some(*rights);
                done
            }
            Act::DeleteKey { key } => {
                assert_eq!(*key, KeyPrint::of("bot"));
                self.done.push("deleted".to_owned());
                self.bot_key = None;
                done
            }
            Act::Probe { .. } => {
                let answer = match self.bot_key {
                    Some(_) => ProbeAnswer::Alive { code: -1022 },
                    None => ProbeAnswer::Dead { code: -2015 },
                };
                ActOutcome::Probed([answer.clone(), answer])
            }
            Act::OpenOrders => ActOutcome::Orders(self.open.clone()),
            Act::CancelOrder { order_id, .. } => {
                self.open.retain(|order| order.order_id != *order_id);
                self.done.push(format!("cancelled {order_id}"));
                done
            }
            Act::Quote { .. } | Act::Sell { .. } | Act::FindOrder { .. } => {
                panic!("nothing is ever sold by itself: {act:?}")
            }
            Act::StopBot { .. } => unreachable!("no way to stop the bot was declared"),
            Act::Balances => {
                let rows = self.free.iter().map(|(asset, free)| (Asset::new(asset), *free));
                let rows = rows.map(|(asset, free)| Balance { asset, free, locked: Dec::ZERO });
                ActOutcome::Balances(rows.collect())
            }
            Act::Transfer { asset, amount, .. } => {
                self.free.retain(|(held, _)| *asset != Asset::new(held));
                self.done.push(format!("moved {amount} {asset}"));
                done
            }
            Act::FindTransfer { .. } => unreachable!("every transfer was answered"),
        }
    }
}

pub struct Stage {
    pub desk: Desk,
    pub venue: Venue,
}

impl Stage {
    /// A bot's order and a stranger's rest on the book.
    pub fn new() -> Self {
        Self::with(may_stop)
    }

    pub fn with(change: impl FnOnce(&mut Declared)) -> Self {
        let mut desk = Desk::open_with(change);
        let own = desk.order(2, "own");
        desk.say(own.place());
        desk.show(own.placed());
        let thief = desk.order(3, "thief");
        desk.show(thief.placed());
        desk.pass();
        check(&desk, "order 2: matched B\n order 3: foreign\n foreign_order orders=1 USDT=600");
        let open = vec![own.read(OrderStatus::New), thief.read(OrderStatus::New)];
        Self { desk, venue: Venue::with(open) }
    }

    pub fn command(&mut self, command: Command, totp: Totp) -> Answer {
        let ticket = Ticket(self.desk.answers.len() as u64);
        let (way, why) = (Some(Way::Host { uid: 0 }), Some("it is over".into()));
        self.desk.event(Event::Command { ticket, by: "owner".into(), way, why, incident: None, command, totp });
        self.desk.answers.pop().expect("a command is answered")
    }

    pub fn run(&mut self, ms: u64) {
        self.run_answering(ms, |_| None);
    }

    /// Some acts end as `answer` says, the others as this venue has it.
    pub fn run_answering(&mut self, ms: u64, mut answer: impl FnMut(&Act) -> Option<ActOutcome>) {
        let until = self.desk.now + Duration::from_millis(ms);
        while self.desk.now < until {
            while let Some((effect, act)) = self.desk.acts.pop_front() {
                let outcome = answer(&act).unwrap_or_else(|| self.venue.act(&act));
                self.desk.event(Event::Acted { effect, outcome });
            }
            self.desk.wait_ms(50);
        }
    }

    pub fn word(&self) -> String {
        self.desk.kernel.progress().map_or_else(String::new, |progress| progress.word.to_string())
    }
}
