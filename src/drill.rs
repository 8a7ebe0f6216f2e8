//! A drill on its way to a phone: the made-up frame that it begins with, and when it passed each hop.
//!
//! Invariants: one drill at a time. A channel's post is known by the drill's own words in it, so what is timed is what a
//! person reads; the times are journal time, all of one clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::kernel::channel::{Channel, ChatText, Post, PostOutcome};
use crate::kernel::event::EffectId;
use crate::kernel::incident::{IncidentId, Notice};
use crate::kernel::shared::{ChannelState, ChannelStatus};
use crate::kernel::time::Time;

/// A stranger's order as the exchange would tell it, of a symbol that no exchange has; `@` stands for the time.
const FRAME: &str = r#"{"subscriptionId":0,"event":{"e":"executionReport","E":@,"s":"DRILLUSDT","c":"countersign-drill","S":"SELL","o":"LIMIT","f":"GTC","q":"1.00000000","p":"1000.00000000","P":"0.00000000","F":"0.00000000","g":-1,"C":"","x":"NEW","X":"NEW","r":"NONE","i":1,"l":"0.00000000","z":"0.00000000","L":"0.00000000","n":"0","N":null,"T":@,"t":-1,"I":1,"w":true,"m":false,"M":false,"O":@,"Z":"0.00000000","Y":"0.00000000","Q":"0.00000000","W":@,"V":"EXPIRE_MAKER"}}"#;

#[derive(Debug)]
pub struct Hops {
    clock: Arc<Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    made: Option<Time>,
    drill: Option<Drill>,
}

#[derive(Debug)]
struct Drill {
    incident: IncidentId,
    headline: Box<str>,
    /// How its headline begins, which no other incident's does.
    mark: Box<str>,
    made: Time,
    judged: Time,
    journalled: Option<Time>,
    legs: BTreeMap<Channel, Leg>,
}

/// One channel's part of the way.
#[derive(Debug, Default)]
struct Leg {
    /// The last post that carried the drill; a failed one is followed by another.
    effect: Option<EffectId>,
    handed: Option<Time>,
    delivered: Option<Time>,
    failure: Option<Box<str>>,
}

/// A drill as the operator is told of it. Each time is microseconds since the frame was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub incident: IncidentId,
    pub headline: Box<str>,
    pub made_at: Time,
    pub judged_us: i64,
    pub journalled_us: Option<i64>,
    pub channels: Vec<ToldLeg>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldLeg {
    pub channel: Channel,
    pub handed_us: Option<i64>,
    pub delivered_us: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Box<str>>,
}

impl Hops {
    #[must_use]
    pub fn new(clock: Arc<Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// Makes the frame of a drill.
    pub fn frame(&self) -> String {
        let now = self.clock.now();
        self.state().made = Some(now);
        FRAME.replace('@', &now.millis().to_string())
    }

    /// The kernel has judged it and asks for it to be told.
    pub fn judged(&self, notice: &Notice, channels: Vec<ChannelStatus>) {
        let now = self.clock.now();
        let leg = |status: ChannelStatus| {
            let failure = match status.state {
                ChannelState::NotPaired => Some("nobody is paired with it: countersign pair".into()),
                ChannelState::Ready
                | ChannelState::Held { .. }
                | ChannelState::Failing { .. }
                | ChannelState::Down { .. } => None,
            };
            (status.channel, Leg { failure, ..Leg::default() })
        };
        let mut state = self.state();
        state.drill = Some(Drill {
            incident: notice.incident,
            headline: notice.headline.clone(),
            mark: notice.headline.split_inclusive(':').next().unwrap_or_default().into(),
            made: state.made.unwrap_or(now),
            judged: now,
            journalled: None,
            legs: channels.into_iter().map(leg).collect(),
        });
    }

    pub fn on_disk(&self) {
        let now = self.clock.now();
        if let Some(drill) = &mut self.state().drill {
            drill.journalled.get_or_insert(now);
        }
    }

    pub fn handed(&self, effect: EffectId, post: &Post) {
        let now = self.clock.now();
        let mut state = self.state();
        let Some(drill) = &mut state.drill else { return };
        let (channel, words) = match post {
            Post::Telegram(post) => match &post.text {
                ChatText::Html(text) | ChatText::Plain(text) => (Channel::Telegram, text),
            },
            Post::Webhook(post) => (Channel::Webhook, &post.body),
            // The word on a tap tells of no incident.
            Post::Pressed(_) => return,
        };
        if let Some(leg) = drill.legs.get_mut(&channel)
            && leg.delivered.is_none()
            && words.contains(&*drill.mark)
        {
            leg.handed.get_or_insert(now);
            leg.effect = Some(effect);
        }
    }

    pub fn answered(&self, effect: EffectId, outcome: &PostOutcome) {
        let now = self.clock.now();
        let mut state = self.state();
        let mut legs = state.drill.iter_mut().flat_map(|drill| drill.legs.values_mut());
        let Some(leg) = legs.find(|leg| leg.effect == Some(effect) && leg.delivered.is_none()) else { return };
        match outcome {
            PostOutcome::Delivered { .. } | PostOutcome::NotModified => {
                (leg.delivered, leg.failure) = (Some(now), None)
            }
            PostOutcome::RetryAfter { secs } => leg.failure = Some(format!("told to wait for {secs} s").into()),
            PostOutcome::Refused { reason } | PostOutcome::Failed { reason, .. } | PostOutcome::Unknown { reason } => {
                leg.failure = Some(reason.clone())
            }
            PostOutcome::Migrated { .. } => leg.failure = Some("the chat became another".into()),
            PostOutcome::Gone => leg.failure = Some("the message is gone".into()),
        }
    }

    /// The last drill, as far as it has come.
    #[must_use]
    pub fn told(&self) -> Option<Told> {
        let state = self.state();
        let drill = state.drill.as_ref()?;
        let since = |at: Time| at.micros() - drill.made.micros();
        let leg = |(channel, leg): (&Channel, &Leg)| ToldLeg {
            channel: *channel,
            handed_us: leg.handed.map(since),
            delivered_us: leg.delivered.map(since),
            failure: leg.failure.clone(),
        };
        Some(Told {
            incident: drill.incident,
            headline: drill.headline.clone(),
            made_at: drill.made,
            judged_us: since(drill.judged),
            journalled_us: drill.journalled.map(since),
            channels: drill.legs.iter().map(leg).collect(),
        })
    }

    /// Nothing that holds the lock can leave the state half-changed, so a poisoned one is as good.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
