//! What one incident owes each channel: nothing is queued, everything is read off the difference between the incident
//! as it is and as the channel last showed it. So a storm of changes is one edit, and a restart asks again by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::channel::{Channel, ChatId, MessageId, Urgency};
use crate::kernel::incident::{IncidentId, IncidentState, Notice, Priority};
use crate::kernel::order::Account;
use crate::kernel::time::Time;

/// A card is not edited more often than this.
const EDIT_GAP: Duration = Duration::from_secs(3);
/// From the last ring to the next, until somebody acknowledges; the last one repeats.
const RING_AGAIN: [Duration; 4] =
    [Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(900), Duration::from_secs(3600)];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct IncidentKey {
    pub account: Account,
    pub incident: IncidentId,
}

impl IncidentKey {
    pub(crate) fn of(notice: &Notice) -> Self {
        Self { account: notice.account.clone(), incident: notice.incident }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Card {
    pub notice: Notice,
    /// The revision with which it was last opened: the first, the one after an acknowledgement, or another order of a
    /// claim window. Each channel owes a
    /// message of its own for it, whether the acknowledgement was ever shown there or not.
    pub opened: u64,
    pub tellings: BTreeMap<Channel, Telling>,
    /// An acknowledgement handed to the account and not yet seen in a notice: handed over again after a restart.
    pub acknowledging: Option<Acknowledging>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Acknowledging {
    pub shown: u64,
    pub user: u64,
    pub chat: ChatId,
}

/// One channel's side of a card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Telling {
    /// Of the message that carries the card, given when it is first tried and kept for its retries and edits.
    pub number: Option<u64>,
    pub message: Option<MessageId>,
    pub shown: Option<Shown>,
    /// The revision that the last new message showed.
    pub rung_new: u64,
    /// A post that may have been delivered without our knowing it.
    pub uncertain: Option<Uncertain>,
    pub reminders: u32,
    pub rung: Option<Rung>,
    pub end_told: bool,
    /// A button of the card was pressed: it owes fresh ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pressed: bool,
}

/// What was posted, and nobody knows whether it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Uncertain {
    pub debt: Debt,
    pub revision: u64,
}

/// What a person can see on the channel now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub revision: u64,
    /// The revision an acknowledgement may cover: none if a digest only counted the incident.
    pub named: bool,
    pub priority: Priority,
    pub orders: u64,
    pub at: Time,
}

/// The last message about the incident that made a sound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rung {
    pub at: Time,
    pub orders: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Debt {
    /// A new message: a new incident, a higher priority, or one that was acknowledged and went on.
    New,
    /// The card as it is now, in place.
    Change,
    Reminder,
    End,
}

impl Debt {
    /// Whether the channel shows the incident as it is once this is paid.
    pub(crate) const fn carries_card(self) -> bool {
        match self {
            Self::New | Self::Change => true,
            Self::Reminder | Self::End => false,
        }
    }
}

impl Card {
    pub(crate) fn new(notice: Notice) -> Self {
        Self { opened: notice.revision, notice, tellings: BTreeMap::new(), acknowledging: None }
    }

    /// The incident as it is now.
    pub(crate) fn renew(&mut self, notice: Notice) {
        let opens = self.notice.state != IncidentState::Open;
        let claims = notice.is_claim() && notice.orders > self.notice.orders;
        if notice.state == IncidentState::Open && (opens || claims) {
            self.opened = notice.revision;
        }
        self.notice = notice;
        self.acknowledging = None;
    }

    /// Whether nothing more will ever be said about it on this channel.
    pub(crate) fn is_over(&self, channel: Channel) -> bool {
        self.notice.state == IncidentState::Ended && self.debts(channel).is_empty()
    }

    /// What may be told on this channel, and from when on.
    pub(crate) fn debts(&self, channel: Channel) -> Vec<(Debt, Urgency, Time)> {
        let notice = &self.notice;
        let telling = self.tellings.get(&channel);
        let Some((telling, shown)) = telling.and_then(|telling| Some((telling, telling.shown.as_ref()?))) else {
            return vec![(Debt::New, self.urgency_of_new(), Time::EPOCH)];
        };
        let open = notice.state == IncidentState::Open;
        if open && (notice.priority > shown.priority || telling.rung_new < self.opened) {
            return vec![(Debt::New, self.urgency_of_new(), Time::EPOCH)];
        }
        let mut debts = Vec::new();
        if notice.revision > shown.revision || telling.pressed {
            // A theft that goes on is as urgent as one that begins.
            let grew = open && notice.priority == Priority::Critical && notice.orders > shown.orders;
            let urgency = if grew { Urgency::NewCritical } else { Urgency::Change };
            debts.push((Debt::Change, urgency, shown.at + EDIT_GAP));
        } else if notice.state == IncidentState::Ended && !telling.end_told && notice.priority > Priority::Info {
            debts.push((Debt::End, Urgency::New, Time::EPOCH));
        }
        if open
            && notice.priority == Priority::Critical
            && let Some(rung) = &telling.rung
        {
            debts.push((Debt::Reminder, Urgency::Reminder, rung.at + ring_again(telling, rung, notice)));
        }
        debts
    }

    /// The debt was paid: the channel shows what `showing` says.
    pub(crate) fn told(
        &mut self,
        channel: Channel,
        now: Time,
        debt: Debt,
        showing: &Showing,
        message: Option<MessageId>,
    ) {
        let telling = self.tellings.entry(channel).or_default();
        let rang = match debt {
            Debt::New => {
                telling.reminders = 0;
                telling.rung_new = showing.revision;
                telling.end_told = showing.state == IncidentState::Ended;
                telling.message = message;
                true
            }
            Debt::Change => {
                telling.message = message.or(telling.message);
                false
            }
            Debt::Reminder => {
                telling.reminders = telling.reminders.saturating_add(1);
                true
            }
            Debt::End => {
                telling.end_told = true;
                true
            }
        };
        // A reminder that arrived says nothing of a card that may have.
        telling.uncertain.take_if(|uncertain| uncertain.debt == debt || debt.carries_card());
        if rang {
            telling.rung = Some(Rung { at: now, orders: showing.orders });
        }
        if debt.carries_card() {
            telling.pressed = false;
            telling.shown = Some(Shown {
                revision: showing.revision,
                named: showing.named,
                priority: showing.priority,
                orders: showing.orders,
                at: now,
            });
        }
    }

    /// Whether a person may have seen this already: the very post, or most of what a message of its own shows again.
    pub(crate) fn is_repeat(&self, channel: Channel, debt: Debt) -> bool {
        let Some(telling) = self.tellings.get(&channel) else { return false };
        let anew = debt == Debt::New || debt == Debt::Change && channel.edits() && telling.message.is_none();
        telling.uncertain.is_some_and(|uncertain| anew || uncertain.revision == self.notice.revision)
    }

    fn urgency_of_new(&self) -> Urgency {
        let grave = self.notice.priority == Priority::Critical && self.notice.state == IncidentState::Open;
        if grave { Urgency::NewCritical } else { Urgency::New }
    }
}

/// One incident in a post under way, as it was when the post was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Showing {
    pub key: IncidentKey,
    pub revision: u64,
    pub named: bool,
    pub state: IncidentState,
    pub priority: Priority,
    pub orders: u64,
}

impl Showing {
    pub(crate) fn of(notice: &Notice, named: bool) -> Self {
        Self {
            key: IncidentKey::of(notice),
            revision: notice.revision,
            named,
            state: notice.state,
            priority: notice.priority,
            orders: notice.orders,
        }
    }
}

/// Edits do not ring, so an incident that grows rings again at the first interval, however far the reminders are.
fn ring_again(telling: &Telling, rung: &Rung, notice: &Notice) -> Duration {
    let step = if notice.orders > rung.orders { 0 } else { telling.reminders as usize };
    RING_AGAIN[step.min(RING_AGAIN.len() - 1)]
}
