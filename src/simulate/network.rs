//! The account's stream between exchange and watcher: two connections at a time, as the pair and the sessions want
//! them, over wires that are slow, end, or fall mute. Frames keep their order on a wire and nowhere else.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kernel::event::{Connection, Event, FeedChange, Tags};
use crate::kernel::report::Report;
use crate::kernel::time::Time;
use crate::sim::delivery::Push;
use crate::sim::session::ConnectionId;
use crate::simulate::process::Inside;
use crate::simulate::script::Wires;
use crate::simulate::world::World;
use crate::venue::binance::{self, request};
use crate::venue::pair::{Command, Pair};
use crate::venue::session::{Action, Delivery, Session, SessionSettings};

/// The exchange notices a dead client so much later at the most.
const NOTICED_WITHIN_MS: u32 = 2_000;
/// The second connection is replaced so much earlier than the first, as the stream's inlet has it.
const CONNECTING: (u32, u32) = (20, 250);

pub struct Network {
    pub pair: Pair,
    wires: BTreeMap<Connection, Wire>,
    pair_at: Option<Time>,
}

struct Wire {
    slot: usize,
    session: Session,
    remote: ConnectionId,
    /// When the last thing sent up, and down, arrives.
    up: Time,
    down: Time,
    mute: bool,
    session_at: Option<Time>,
}

pub enum NetworkTurn {
    Pair,
    Open {
        connection: Connection,
        slot: usize,
    },
    Up {
        connection: Connection,
        text: String,
    },
    Down {
        connection: Connection,
        text: String,
    },
    Pong {
        connection: Connection,
    },
    ServerTime {
        connection: Connection,
        sent: Time,
    },
    Session {
        connection: Connection,
    },
    /// The exchange has heard that the watcher leaves.
    Leave {
        connection: Connection,
    },
    Left {
        connection: Connection,
    },
    Ended {
        connection: Connection,
        reason: &'static str,
    },
}

impl Network {
    pub fn new(now: Time, first_connection: u64, seed: u64) -> Self {
        Self { pair: Pair::new(now, first_connection, seed), wires: BTreeMap::new(), pair_at: None }
    }

    fn by_remote(&self, remote: ConnectionId) -> Option<Connection> {
        self.wires.iter().find(|(_, wire)| wire.remote == remote).map(|(connection, _)| *connection)
    }

    fn hit(&self, wires: Wires) -> Vec<Connection> {
        self.wires.iter().filter(|(_, wire)| wires.hits(wire.slot)).map(|(connection, _)| *connection).collect()
    }
}

impl World {
    pub fn network(&mut self, turn: NetworkTurn) {
        match turn {
            NetworkTurn::Pair => {
                if let Some(process) = &mut self.process {
                    process.network.pair_at = None;
                }
                self.tend_pair();
            }
            NetworkTurn::Open { connection, slot } => self.open(connection, slot),
            NetworkTurn::Up { connection, text } => {
                if let Some(remote) = self.wire(connection).filter(|wire| !wire.mute).map(|wire| wire.remote) {
                    self.exchange.message(self.now, remote, &text);
                    self.pump();
                }
            }
            NetworkTurn::Down { connection, text } => self.frame(connection, text),
            NetworkTurn::Pong { connection } => {
                let Some(process) = &mut self.process else { return };
                let now = process.journal_time(self.now);
                let wire = process.network.wires.get_mut(&connection);
                if let Some(wire) = wire.filter(|wire| !wire.mute) {
                    wire.session.handle_heard(now);
                }
                self.tend_session(connection);
            }
            NetworkTurn::ServerTime { connection, sent } => self.server_time(connection, sent),
            NetworkTurn::Session { connection } => {
                if let Some(wire) = self.wire(connection) {
                    wire.session_at = None;
                }
                self.tend_session(connection);
            }
            NetworkTurn::Leave { connection } => self.leave(connection),
            NetworkTurn::Left { connection } => {
                if let Some(wire) = self.wire(connection) {
                    wire.session.handle_retired();
                }
                self.tend_session(connection);
                self.end_wire(connection);
            }
            NetworkTurn::Ended { connection, reason } => {
                if let Some(wire) = self.wire(connection) {
                    wire.session.handle_closed(reason);
                }
                self.tend_session(connection);
            }
        }
    }

    fn wire(&mut self, connection: Connection) -> Option<&mut Wire> {
        self.process.as_mut()?.network.wires.get_mut(&connection)
    }

    fn network_at(&mut self, at: Time, turn: NetworkTurn) {
        self.inside_at(at, Inside::Network(turn));
    }

    /// Does what the pair wants now, and comes back when it wants more.
    pub fn tend_pair(&mut self) {
        loop {
            let Some(process) = &mut self.process else { return };
            let now = process.journal_time(self.now);
            let Some(command) = process.network.pair.poll(now) else { break };
            match command {
                Command::Open { connection, slot } => {
                    let at = self.now + self.draw(CONNECTING);
                    self.network_at(at, NetworkTurn::Open { connection, slot });
                }
                Command::Retire { connection } => {
                    let takes = self.draw(self.script.weather.frame);
                    let now = self.now;
                    if let Some(wire) = self.wire(connection) {
                        wire.up = wire.up.max(now + takes);
                        let at = wire.up;
                        self.network_at(at, NetworkTurn::Leave { connection });
                    }
                }
            }
        }
        let Some(process) = &mut self.process else { return };
        let Some(due) = process.network.pair.poll_timeout().map(|due| process.true_time(due)) else { return };
        if process.network.pair_at.is_none_or(|known| due < known) {
            process.network.pair_at = Some(due);
            self.network_at(due, NetworkTurn::Pair);
        }
    }

    fn open(&mut self, connection: Connection, slot: usize) {
        let caller = self.watch.caller().clone();
        let opened = self.exchange.connect(self.now, caller, "");
        let Some(process) = &mut self.process else { return };
        let now = process.journal_time(self.now);
        match opened {
            Ok(remote) => {
                let session = Session::new(now, 1, SessionSettings::default());
                let wire = Wire { slot, session, remote, up: self.now, down: self.now, mute: false, session_at: None };
                process.network.wires.insert(connection, wire);
                self.tend_session(connection);
            }
            Err(_) => {
                process.network.pair.handle_ended(now, connection);
                self.tend_pair();
            }
        }
    }

    fn frame(&mut self, connection: Connection, text: String) {
        let Some(process) = &mut self.process else { return };
        let now = process.journal_time(self.now);
        let Some(wire) = process.network.wires.get_mut(&connection).filter(|wire| !wire.mute) else { return };
        let delivery = wire.session.handle_frame(now, binance::read(&text));
        let event = delivery.map(|delivery| match delivery {
            Delivery::Report { report, .. } => match process.kernel.echo_of(&report, connection) {
                Some(of) => Event::Echo { connection, of },
                None => {
                    let tags = match &report {
                        Report::Execution(report) => self.tags.check_report(report),
                        Report::List(_) | Report::Position(_) | Report::Balance(_) | Report::ExternalLock(_) => {
                            Tags::NONE
                        }
                    };
                    Event::Report { connection, report, tags, raw: text.into() }
                }
            },
            Delivery::Kept { reason, .. } => Event::Kept { connection, reason, raw: text.into() },
        });
        if let Some(event) = event {
            self.step_account(event);
        }
        self.tend_session(connection);
    }

    /// Does what the session wants, as the connection's task does after everything that happens to it.
    fn tend_session(&mut self, connection: Connection) {
        let Some(process) = &mut self.process else { return };
        let now = process.journal_time(self.now);
        let Some(wire) = process.network.wires.get_mut(&connection) else { return };
        wire.session.handle_timeout(now);
        while let Some(action) = self.wire(connection).and_then(|wire| wire.session.poll_action()) {
            self.act(connection, action);
        }
        let Some(process) = &mut self.process else { return };
        let Some(wire) = process.network.wires.get_mut(&connection) else { return self.tend_pair() };
        if let Some(due) = wire.session.poll_timeout()
            && wire.session_at.is_none_or(|known| due < known)
        {
            wire.session_at = Some(due);
            let at = process.true_time(due);
            self.network_at(at, NetworkTurn::Session { connection });
        }
        self.tend_pair();
    }

    fn act(&mut self, connection: Connection, action: Action) {
        let Some(process) = &mut self.process else { return };
        let now = process.journal_time(self.now);
        match action {
            Action::Subscribe { id, .. } => {
                let at = process.server_time.at(now);
                let text = request::subscribe(id, self.watch.credential(), at);
                self.send_up(connection, text);
            }
            Action::ListSubscriptions { id } => self.send_up(connection, request::subscriptions(id)),
            Action::Ping => {
                let takes = self.draw(self.script.weather.frame) + self.draw(self.script.weather.frame);
                self.network_at(self.now + takes, NetworkTurn::Pong { connection });
            }
            Action::AskServerTime => {
                process.server_time.forget();
                let at = self.now + self.draw(self.script.weather.request);
                self.network_at(at, NetworkTurn::ServerTime { connection, sent: now });
            }
            Action::Feed { seat, change } => {
                match change {
                    FeedChange::Live => process.network.pair.handle_live(now, connection, seat),
                    FeedChange::Lost { .. } | FeedChange::Retired => {
                        process.network.pair.handle_lost(connection, seat);
                    }
                    FeedChange::KeyRefused { .. } => {}
                }
                self.step_account(Event::Feed { connection, change });
            }
            Action::Replace { .. } => process.network.pair.handle_replace(now, connection),
            Action::Hold { pause } => process.network.pair.handle_hold(now + pause),
            Action::Close => self.end_wire(connection),
        }
    }

    fn send_up(&mut self, connection: Connection, text: String) {
        let takes = self.draw(self.script.weather.frame);
        let now = self.now;
        let Some(wire) = self.wire(connection) else { return };
        wire.up = wire.up.max(now + takes);
        let at = wire.up;
        self.network_at(at, NetworkTurn::Up { connection, text });
    }

    fn server_time(&mut self, connection: Connection, sent: Time) {
        let Some(process) = &mut self.process else { return };
        let now = process.journal_time(self.now);
        process.server_time.observe(sent, self.now, now);
        if let Some(wire) = process.network.wires.get_mut(&connection) {
            wire.session.handle_server_time(now);
        }
        self.tend_session(connection);
    }

    fn leave(&mut self, connection: Connection) {
        let Some(wire) = self.wire(connection) else { return };
        let (remote, down) = (wire.remote, wire.down);
        self.exchange.disconnected(remote);
        self.network_at(down, NetworkTurn::Left { connection });
    }

    fn end_wire(&mut self, connection: Connection) {
        let Some(process) = &mut self.process else { return };
        let now = process.journal_time(self.now);
        if let Some(wire) = process.network.wires.remove(&connection) {
            process.network.pair.handle_ended(now, connection);
            self.exchange.disconnected(wire.remote);
        }
        self.tend_pair();
    }

    /// What the exchange has for its connections goes on its way.
    pub fn carry_frames(&mut self) {
        let deliveries: Vec<_> = self.exchange.take_deliveries().collect();
        for delivery in deliveries {
            let takes = self.draw(self.script.weather.frame);
            let now = self.now;
            let Some(process) = &mut self.process else { continue };
            let Some(connection) = process.network.by_remote(delivery.connection) else { continue };
            let Some(wire) = process.network.wires.get_mut(&connection) else { continue };
            let slow = self.troubles.slow[wire.slot].filter(|(until, _)| *until > now).map_or(0, |(_, ms)| ms);
            wire.down = wire.down.max(now + takes + Duration::from_millis(u64::from(slow)));
            let at = wire.down;
            match delivery.push {
                Push::Text(text) => self.network_at(at, NetworkTurn::Down { connection, text }),
                Push::Close => self.network_at(at, NetworkTurn::Ended { connection, reason: "closed" }),
                Push::Freeze => wire.mute = true,
            }
        }
    }

    /// The wires break: what is under way is lost, and the exchange notices later than the watcher.
    pub fn cut(&mut self, wires: Wires) {
        let Some(process) = &mut self.process else { return };
        for connection in process.network.hit(wires) {
            if let Some(wire) = self.wire(connection) {
                wire.mute = true;
            }
            let at = self.now + self.draw((0, NOTICED_WITHIN_MS));
            self.network_at(at, NetworkTurn::Ended { connection, reason: "the connection broke" });
        }
    }

    pub fn mute(&mut self, wires: Wires) {
        let Some(process) = &mut self.process else { return };
        for connection in process.network.hit(wires) {
            if let Some(wire) = self.wire(connection) {
                wire.mute = true;
            }
        }
    }

    pub fn remote_of(&self, wires: Wires) -> Option<ConnectionId> {
        let process = self.process.as_ref()?;
        process.network.wires.values().find(|wire| wires.hits(wire.slot) && !wire.mute).map(|wire| wire.remote)
    }

    /// The process is gone, and its sockets with it.
    pub fn hang_up_everywhere(&mut self) {
        let Some(process) = &self.process else { return };
        let remotes: Vec<ConnectionId> = process.network.wires.values().map(|wire| wire.remote).collect();
        remotes.into_iter().for_each(|remote| self.exchange.disconnected(remote));
    }
}
