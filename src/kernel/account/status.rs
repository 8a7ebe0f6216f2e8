//! The account as its owner should see it now, and the coverage statement: what can be seen and what cannot.

use serde::{Deserialize, Serialize};

use crate::kernel::account::{
    Allowance, ClaimStatus, Counts, CredentialStatus, Disarmed, ExceptionStatus, Kernel, RequestStatus,
};
use crate::kernel::coverage::Sight;
use crate::kernel::incident::{IncidentState, Notice};
use crate::kernel::order::{Account, Bot};
use crate::kernel::time::Time;
use crate::kernel::verdict::Verdict;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub account: Account,
    pub at: Time,
    pub sight: Sight,
    pub connections: usize,
    pub blind_since: Option<Time>,
    pub proved_at: Option<Time>,
    pub gaps: u64,
    pub bots: Vec<BotStatus>,
    pub open_incidents: usize,
    pub orders: OrderCounts,
    pub counts: Counts,
    pub rest_differences: u64,
    /// Orders open before we looked, waiting for `confirm DIGEST`.
    pub confirm: Option<Box<str>>,
    /// What can be done about a theft, and how far the last containment is.
    pub stopping: Box<str>,
    pub cannot_see: Vec<Box<str>>,
    /// What is seen and left unsaid.
    #[serde(default)]
    pub exceptions: Vec<ExceptionStatus>,
    /// Countersign's own keys, each with its last check.
    #[serde(default)]
    pub credentials: Vec<CredentialStatus>,
    /// Nothing is done by itself meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disarmed: Option<Disarmed>,
    #[serde(default)]
    pub allowed: Vec<Allowance>,
    /// What waits for another person's approval.
    #[serde(default)]
    pub requests: Vec<RequestStatus>,
    /// The claim window that is open, with what it was used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotStatus {
    pub bot: Bot,
    pub connected: bool,
    pub silent: bool,
    pub last_seq: u64,
    pub heard_at: Option<Time>,
    pub missing_records: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCounts {
    pub matched: usize,
    pub pending: usize,
    pub strangers: usize,
    pub pre_existing: usize,
    /// Declared by hand, in a claim window.
    #[serde(default)]
    pub by_hand: usize,
    pub unproven: usize,
    pub open: usize,
    pub forgotten: u64,
}

impl Kernel {
    pub fn status(&self) -> Status {
        let state = &self.state;
        Status {
            account: self.declared.account.clone(),
            at: self.now(),
            sight: state.coverage.sight(),
            connections: state.coverage.connections(),
            blind_since: state.coverage.blind_since,
            proved_at: state.coverage.proved_at,
            gaps: state.coverage.gaps,
            bots: state
                .bots
                .iter()
                .map(|(bot, known)| BotStatus {
                    bot: bot.clone(),
                    connected: known.connected,
                    silent: known.silent,
                    last_seq: known.last_seq,
                    heard_at: known.heard_at,
                    missing_records: known.missing,
                })
                .collect(),
            open_incidents: state
                .book
                .notices()
                .filter(|notice| notice.state == IncidentState::Open && !notice.is_drill())
                .count(),
            orders: self.order_counts(),
            counts: state.counts,
            rest_differences: state.audit.differences(),
            confirm: state.audit.pre_existing.clone(),
            stopping: self.stopping_told().into(),
            cannot_see: CANNOT_SEE.iter().copied().chain(self.bot_host_told()).map(Into::into).collect(),
            exceptions: self.exception_statuses(),
            credentials: self.credential_statuses(),
            disarmed: state.trust.disarmed.clone(),
            allowed: state.trust.allowed.clone(),
            requests: self.request_statuses(),
            claim: self.claim_status(),
        }
    }

    /// Where a bot's sequence stands; 0 before its first record.
    pub fn last_seq(&self, bot: &Bot) -> u64 {
        self.state.bots.state(bot).map_or(0, |known| known.last_seq)
    }

    pub fn notices(&self) -> Vec<Notice> {
        self.state.book.notices().cloned().collect()
    }

    fn order_counts(&self) -> OrderCounts {
        let mut counts = OrderCounts { forgotten: self.state.blotter.forgotten_orders, ..OrderCounts::default() };
        for order in self.state.blotter.orders.values() {
            counts.open += usize::from(order.open);
            match order.verdict {
                Verdict::Matched => counts.matched += 1,
                Verdict::Pending => counts.pending += 1,
                Verdict::PreExisting => counts.pre_existing += 1,
                Verdict::DeclaredManual => counts.by_hand += 1,
                Verdict::Unproven | Verdict::ExchangeGenerated => counts.unproven += 1,
                Verdict::Foreign
                | Verdict::Divergent
                | Verdict::Replayed
                | Verdict::Forged
                | Verdict::Unissued
                | Verdict::Unlogged => counts.strangers += 1,
            }
        }
        counts
    }
}

const CANNOT_SEE: [&str; 5] = [
    "Wallets other than spot: futures, margin, Funding, Earn.",
    "Trades inside the limits by somebody who owns the bot's host.",
    "Conversions, dust sweeps and transfers that the stream does not report as orders.",
    "The address or key that an order came from: Binance shows neither.",
    "What happened in a gap and left neither an open order nor a changed balance.",
];
