//! One open connection of the WebSocket API, from its first subscription to its end, with time passed in.
//!
//! Events go in by `handle_*`, what is to be done comes out of `poll_action`, and `handle_timeout` is due at
//! `poll_timeout`; calling it early does nothing. After `Action::Close` the session is over.
//!
//! Invariants: an account's feed is *live* from the answer to its subscription until exactly one of *lost* or
//! *retired*; a subscription that died on this connection is never made again on it, since a feed that ended must
//! not come back under the same connection number; only total silence or the venue closes a connection that still
//! carries events, everything else asks for a replacement first.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::kernel::event::FeedChange;
use crate::kernel::report::Report;
use crate::kernel::time::Time;
use crate::venue::binance::{Answer, Frame, Kept, Response, VenueError};
use crate::venue::budget;

#[derive(Clone, Copy, Debug)]
pub struct SessionSettings {
    pub ping_every: Duration,
    /// Silence after a ping that ends the connection; with `ping_every` this finds a half-open one within 15 s.
    pub silence_max: Duration,
    /// With `answer_within` this finds a subscription that died unseen within 60 s.
    pub list_every: Duration,
    pub answer_within: Duration,
    /// The venue ends a connection after 24 h.
    pub replace_after: Duration,
    /// How often a refused key is tried again.
    pub refused_key_every: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            ping_every: Duration::from_secs(5),
            silence_max: Duration::from_secs(9),
            list_every: Duration::from_secs(30),
            answer_within: Duration::from_secs(10),
            replace_after: Duration::from_secs(23 * 3_600),
            refused_key_every: Duration::from_secs(300),
        }
    }
}

/// An account on this connection, by its place in the list the connection was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat(pub usize);

#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    Subscribe {
        id: u64,
        seat: Seat,
    },
    ListSubscriptions {
        id: u64,
    },
    Ping,
    /// Ask the venue's clock, then `handle_server_time`.
    AskServerTime,
    Feed {
        seat: Seat,
        change: FeedChange,
    },
    /// This connection wants to be replaced; it goes on meanwhile.
    Replace {
        reason: Box<str>,
    },
    /// No request and no connection from this address for so long.
    Hold {
        pause: Duration,
    },
    Close,
}

/// What a frame brought for the accounts; what it brought for the connection itself comes out as actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    Report { seat: Seat, report: Report },
    Kept { seat: Option<Seat>, reason: Box<str> },
}

#[derive(Debug)]
pub struct Session {
    settings: SessionSettings,
    seats: Vec<SeatState>,
    /// Whose events carry this id: kept when the subscription is dead, so that a late event still finds its account.
    subscriptions: BTreeMap<u64, Seat>,
    last_id: u64,
    ping_at: Time,
    /// The first ping since anything was heard.
    unheard_since: Option<Time>,
    /// When anything last arrived, and when all that is live was last known to be subscribed.
    heard_at: Time,
    listed_at: Time,
    listing: Listing,
    replace_at: Time,
    replacing: bool,
    over: bool,
    actions: VecDeque<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SeatState {
    /// To be subscribed at `until`, or once the venue's clock is known.
    Waiting {
        until: Time,
        failures: u32,
        for_clock: bool,
    },
    Asked {
        id: u64,
        at: Time,
        failures: u32,
    },
    Live {
        subscription: u64,
    },
    Dead,
}

#[derive(Clone, Copy, Debug)]
enum Listing {
    Due { at: Time, failures: u32 },
    Asked { id: u64, at: Time, failures: u32 },
}

/// Listings in a row that failed before a replacement is asked for.
const LISTING_FAILURES_MAX: u32 = 2;
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long to wait for the venue's clock before subscribing by our own.
const CLOCK_WITHIN: Duration = Duration::from_secs(10);

impl Session {
    /// The connection is open; `seats` accounts are to be subscribed on it.
    pub fn new(now: Time, seats: usize, settings: SessionSettings) -> Self {
        let due = SeatState::Waiting { until: now, failures: 0, for_clock: false };
        let mut session = Self {
            settings,
            seats: vec![due; seats],
            subscriptions: BTreeMap::new(),
            last_id: 0,
            ping_at: now + settings.ping_every,
            unheard_since: None,
            heard_at: now,
            listed_at: now,
            listing: Listing::Due { at: now + settings.list_every, failures: 0 },
            replace_at: now + settings.replace_after,
            replacing: false,
            over: false,
            actions: VecDeque::new(),
        };
        session.handle_timeout(now);
        session
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Time> {
        if self.over {
            return None;
        }
        let seats = self.seats.iter().filter_map(|seat| match seat {
            SeatState::Waiting { until, .. } => Some(*until),
            SeatState::Asked { at, .. } if !self.replacing => Some(*at + self.settings.answer_within),
            SeatState::Asked { .. } | SeatState::Live { .. } | SeatState::Dead => None,
        });
        let listing = match self.listing {
            Listing::Due { at, .. } => at,
            Listing::Asked { at, .. } => at + self.settings.answer_within,
        };
        let silence = self.unheard_since.map(|since| since + self.settings.silence_max);
        let replace = (!self.replacing).then_some(self.replace_at);
        seats.chain(silence).chain(replace).chain([self.ping_at, listing]).min()
    }

    /// Does what is due; nothing, where it is called early.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.over {
            return;
        }
        if self.unheard_since.is_some_and(|since| now >= since + self.settings.silence_max) {
            return self.close("the connection fell silent: no answer to a ping");
        }
        if now >= self.ping_at {
            self.ping(now);
        }
        for place in 0..self.seats.len() {
            self.tend_seat(now, Seat(place));
        }
        self.tend_listing(now);
        if now >= self.replace_at {
            self.replace("the venue ends connections after 24 h");
        }
    }

    /// Anything at all arrived, a pong included.
    pub fn handle_heard(&mut self, now: Time) {
        self.unheard_since = None;
        self.heard_at = now;
    }

    /// Our own side did not read for a while: silence in that time says nothing about the venue.
    pub fn handle_stall(&mut self, now: Time) {
        self.unheard_since = None;
        self.ping_at = now;
        if let Listing::Asked { at, .. } = &mut self.listing {
            *at = now;
        }
        for seat in &mut self.seats {
            if let SeatState::Asked { at, .. } = seat {
                *at = now;
            }
        }
    }

    pub fn handle_frame(&mut self, now: Time, frame: Result<Frame, Kept>) -> Option<Delivery> {
        self.handle_heard(now);
        match frame {
            Ok(Frame::Event { subscription, report }) => Some(match self.seat_of(subscription) {
                Some(seat) => Delivery::Report { seat, report },
                None => self.kept(no_account(subscription)),
            }),
            Ok(Frame::Terminated { subscription }) => match self.seat_of(subscription) {
                Some(seat) => {
                    self.lose(seat, "the venue ended the stream");
                    None
                }
                None => Some(self.kept(no_account(subscription))),
            },
            Ok(Frame::Shutdown) => {
                self.replace("the server announced its shutdown");
                None
            }
            Ok(Frame::Response(response)) => self.handle_response(now, response),
            Err(kept) => Some(self.kept(kept.reason)),
        }
    }

    /// The venue's clock is known, or could not be asked; subscriptions that waited for it go out.
    pub fn handle_server_time(&mut self, now: Time) {
        for seat in &mut self.seats {
            if let SeatState::Waiting { until, for_clock: true, failures } = *seat {
                let until = if failures > 1 { until } else { now };
                *seat = SeatState::Waiting { until, failures, for_clock: false };
            }
        }
        self.handle_timeout(now);
    }

    /// The socket is gone.
    pub fn handle_closed(&mut self, reason: &str) {
        if !self.over {
            self.close(reason);
        }
    }

    /// A live replacement stands: this connection ends on purpose.
    pub fn handle_retired(&mut self) {
        if !self.over {
            self.end_feeds(&FeedChange::Retired);
        }
    }

    fn ping(&mut self, now: Time) {
        self.unheard_since = self.unheard_since.or(Some(now));
        self.ping_at = now + self.settings.ping_every;
        self.actions.push_back(Action::Ping);
    }

    fn tend_seat(&mut self, now: Time, seat: Seat) {
        match self.seats[seat.0] {
            SeatState::Waiting { until, failures, .. } if now >= until => {
                let id = self.next_id();
                self.seats[seat.0] = SeatState::Asked { id, at: now, failures };
                self.actions.push_back(Action::Subscribe { id, seat });
            }
            // Its answer may still come, and then the feed lives until the replacement does.
            SeatState::Asked { at, .. } if now >= at + self.settings.answer_within => {
                self.replace("no answer to a subscription");
            }
            SeatState::Waiting { .. } | SeatState::Asked { .. } | SeatState::Live { .. } | SeatState::Dead => {}
        }
    }

    fn tend_listing(&mut self, now: Time) {
        match self.listing {
            Listing::Due { at, failures } if now >= at => {
                let id = self.next_id();
                self.listing = Listing::Asked { id, at: now, failures };
                self.actions.push_back(Action::ListSubscriptions { id });
            }
            Listing::Asked { at, failures, .. } if now >= at + self.settings.answer_within => {
                self.listing_failed(now, failures);
            }
            Listing::Due { .. } | Listing::Asked { .. } => {}
        }
    }

    fn listing_failed(&mut self, now: Time, failures: u32) {
        self.listing = Listing::Due { at: now + self.settings.list_every, failures: failures + 1 };
        if failures + 1 >= LISTING_FAILURES_MAX {
            self.replace("the venue does not list its subscriptions");
        }
    }

    fn handle_response(&mut self, now: Time, response: Response) -> Option<Delivery> {
        let id = response.id.as_deref().and_then(|id| id.parse::<u64>().ok());
        if let (Listing::Asked { id: asked, failures, .. }, true) = (self.listing, id.is_some())
            && id == Some(asked)
        {
            self.handle_listed(now, failures, &response);
            return None;
        }
        let asked = |seat: &SeatState| match seat {
            SeatState::Asked { id: asked, failures, .. } if Some(*asked) == id => Some(*failures),
            SeatState::Asked { .. } | SeatState::Waiting { .. } | SeatState::Live { .. } | SeatState::Dead => None,
        };
        let found = self.seats.iter().enumerate().find_map(|(place, seat)| Some((Seat(place), asked(seat)?)));
        let Some((seat, failures)) = found else {
            if id.is_some_and(|id| (1..=self.last_id).contains(&id)) {
                // The late answer to a listing that was given up.
                return None;
            }
            return Some(self.kept(unasked(&response)));
        };
        match response.outcome {
            Ok(Answer::Subscribed(subscription)) => self.seat_live(seat, subscription),
            Ok(Answer::Subscriptions(_) | Answer::ServerTime(_) | Answer::Other) => {
                self.seats[seat.0] = SeatState::Dead;
                self.replace("the answer to a subscription names none");
            }
            Err(error) => self.subscription_refused(now, seat, failures, response.status, error),
        }
        None
    }

    fn handle_listed(&mut self, now: Time, failures: u32, response: &Response) {
        self.listing = Listing::Due { at: now + self.settings.list_every, failures };
        let listed = match &response.outcome {
            Ok(Answer::Subscriptions(listed)) => listed,
            Ok(Answer::Subscribed(_) | Answer::ServerTime(_) | Answer::Other) => {
                return self.listing_failed(now, failures);
            }
            Err(error) if self.hold_if_told(now, response.status, error).is_some() => return,
            Err(_) => return self.listing_failed(now, failures),
        };
        self.listing = Listing::Due { at: now + self.settings.list_every, failures: 0 };
        for place in 0..self.seats.len() {
            if let SeatState::Live { subscription } = self.seats[place]
                && !listed.contains(&subscription)
            {
                self.lose(Seat(place), "the venue no longer lists the subscription");
            }
        }
        self.listed_at = now;
    }

    fn seat_live(&mut self, seat: Seat, subscription: u64) {
        self.seats[seat.0] = SeatState::Live { subscription };
        self.subscriptions.insert(subscription, seat);
        self.actions.push_back(Action::Feed { seat, change: FeedChange::Live });
    }

    fn subscription_refused(&mut self, now: Time, seat: Seat, failures: u32, status: i64, error: VenueError) {
        let failures = failures.saturating_add(1);
        let mut wait = retry_delay(failures);
        let mut for_clock = false;
        if let Some(pause) = self.hold_if_told(now, status, &error) {
            wait = pause;
        } else if error.code == -1021 {
            (wait, for_clock) = (wait.max(CLOCK_WITHIN), true);
            self.actions.push_back(Action::AskServerTime);
        } else if is_key_refusal(error.code) {
            wait = self.settings.refused_key_every;
            let change = FeedChange::KeyRefused { code: error.code, message: error.message };
            self.actions.push_back(Action::Feed { seat, change });
        }
        self.seats[seat.0] = SeatState::Waiting { until: now + wait, failures, for_clock };
    }

    /// Asking on while told to wait would prolong a ban: nothing is asked on this connection until it is over.
    fn hold_if_told(&mut self, now: Time, status: i64, error: &VenueError) -> Option<Duration> {
        let status = u16::try_from(status).ok().filter(|status| budget::is_refusal(*status))?;
        let pause = budget::pause(status, error.retry_after);
        if let Listing::Due { at, .. } = &mut self.listing {
            *at = (*at).max(now + pause);
        }
        for seat in &mut self.seats {
            if let SeatState::Waiting { until, .. } = seat {
                *until = (*until).max(now + pause);
            }
        }
        self.actions.push_back(Action::Hold { pause });
        Some(pause)
    }

    fn lose(&mut self, seat: Seat, reason: &str) {
        if matches!(self.seats[seat.0], SeatState::Live { .. }) {
            let heard_until = Some(self.listed_at.min(self.heard_at));
            let change = FeedChange::Lost { reason: reason.into(), heard_until };
            self.actions.push_back(Action::Feed { seat, change });
        }
        self.seats[seat.0] = SeatState::Dead;
        self.replace(reason);
    }

    fn replace(&mut self, reason: &str) {
        if !self.replacing {
            self.replacing = true;
            self.actions.push_back(Action::Replace { reason: reason.into() });
        }
    }

    fn close(&mut self, reason: &str) {
        self.end_feeds(&FeedChange::Lost { reason: reason.into(), heard_until: Some(self.heard_at) });
        self.actions.push_back(Action::Close);
    }

    fn end_feeds(&mut self, change: &FeedChange) {
        self.over = true;
        for (place, seat) in self.seats.iter_mut().enumerate() {
            if matches!(seat, SeatState::Live { .. }) {
                self.actions.push_back(Action::Feed { seat: Seat(place), change: change.clone() });
            }
            *seat = SeatState::Dead;
        }
    }

    /// Whose event this is. An event may overtake the answer to its own subscription: then it is the one that waits.
    fn seat_of(&self, subscription: Option<u64>) -> Option<Seat> {
        if let Some(seat) = subscription.and_then(|id| self.subscriptions.get(&id)) {
            return Some(*seat);
        }
        let asked = |(_, seat): &(usize, &SeatState)| matches!(seat, SeatState::Asked { .. });
        let mut waiting = self.seats.iter().enumerate().filter(asked).map(|(place, _)| Seat(place));
        match (waiting.next(), waiting.next()) {
            (Some(seat), None) if subscription.is_some() => Some(seat),
            _ if subscription.is_none() => self.only_seat(),
            _ => None,
        }
    }

    fn kept(&self, reason: Box<str>) -> Delivery {
        Delivery::Kept { seat: self.only_seat(), reason }
    }

    fn only_seat(&self) -> Option<Seat> {
        (self.seats.len() == 1).then_some(Seat(0))
    }

    const fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

/// The key is unknown, malformed, not permitted, or its secret is wrong.
const fn is_key_refusal(code: i64) -> bool {
    matches!(code, -2015 | -2014 | -2008 | -1022 | -1002 | -1099 | -1109)
}

fn retry_delay(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(RETRY_MAX)
}

/// Such as the venue's word, without an id, that it revoked a session.
fn unasked(response: &Response) -> Box<str> {
    let said = match &response.outcome {
        Ok(_) => String::new(),
        Err(error) => format!(", code {}: {:.100}", error.code, error.message),
    };
    format!("an answer to no open request (status {}{said})", response.status).into()
}

fn no_account(subscription: Option<u64>) -> Box<str> {
    match subscription {
        Some(id) => format!("no account has subscription {id} on this connection").into(),
        None => "the event names no subscription, and this connection has several accounts".into(),
    }
}

#[cfg(test)]
mod tests;
