//! From the engine's events to the frames of each connection: envelopes, and the faults a script has ordered.

use crate::kernel::time::Time;
use crate::sim::event::AccountEvent;
use crate::sim::exchange::Exchange;
use crate::sim::faults::EventFault;
use crate::sim::session::ConnectionId;

/// Delayed frames held at once; more go out undelayed.
const LATER_MAX: usize = 100_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push {
    Text(String),
    Close,
    /// Keep the socket, read and write nothing more.
    Freeze,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub connection: ConnectionId,
    pub push: Push,
}

#[derive(Debug)]
pub(super) struct Later {
    connection: ConnectionId,
    frame: String,
}

impl Exchange {
    /// What is to be carried to the connections now, in order.
    pub fn take_deliveries(&mut self) -> impl Iterator<Item = Delivery> {
        std::mem::take(&mut self.deliveries).into_iter()
    }

    /// Gives every event to every subscription of its account.
    pub(super) fn distribute(&mut self, now: Time) {
        for event in self.engine.take_events() {
            let listening: Vec<(ConnectionId, u32)> = self
                .sessions
                .iter()
                .filter(|(_, session)| !session.frozen)
                .filter_map(|(id, session)| Some((*id, session.subscription_of(event.uid)?)))
                .collect();
            let mut sent = 0;
            for (connection, subscription) in &listening {
                sent += self.send_event(now, *connection, *subscription, &event);
            }
            if let Some(row) = event.row {
                self.engine.ledger_mut().stamp(row, u32::try_from(listening.len()).unwrap_or(u32::MAX), sent);
            }
        }
    }

    /// How many copies went or will go out.
    fn send_event(&mut self, now: Time, connection: ConnectionId, subscription: u32, event: &AccountEvent) -> u32 {
        let frame = envelope(subscription, &event.body);
        match self.faults.strike(connection, event.uid) {
            None | Some(EventFault::Unlisted) => self.push_text(connection, frame),
            Some(EventFault::Drop) => return 0,
            Some(EventFault::Garble) => {
                // Cut at a character: a text frame must stay UTF-8, or the socket itself would fail.
                let half = (0..=frame.len() / 2).rev().find(|at| frame.is_char_boundary(*at)).unwrap_or(0);
                self.push_text(connection, frame[..half].to_owned());
            }
            Some(EventFault::Duplicate) => {
                self.push_text(connection, frame.clone());
                self.push_text(connection, frame);
                return 2;
            }
            Some(EventFault::Delay(wait)) if self.later.len() < LATER_MAX => {
                self.later_count += 1;
                self.later.insert((now + wait, self.later_count), Later { connection, frame });
            }
            Some(EventFault::Delay(_)) => self.push_text(connection, frame),
            Some(EventFault::Reorder) => {
                if let Some(earlier) = self.faults.held_back.insert(connection, frame) {
                    self.push_now(connection, earlier);
                }
            }
        }
        1
    }

    pub(super) fn push_text(&mut self, connection: ConnectionId, frame: String) {
        self.push_now(connection, frame);
        if let Some(held) = self.faults.held_back.remove(&connection) {
            self.push_now(connection, held);
        }
    }

    fn push_now(&mut self, connection: ConnectionId, frame: String) {
        self.deliveries.push_back(Delivery { connection, push: Push::Text(frame) });
    }

    pub(super) fn deliver_due(&mut self, now: Time) {
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let Later { connection, frame } = entry.remove();
            self.push_text(connection, frame);
        }
    }
}

pub(super) fn envelope(subscription: u32, body: &str) -> String {
    format!(r#"{{"subscriptionId":{subscription},"event":{body}}}"#)
}
