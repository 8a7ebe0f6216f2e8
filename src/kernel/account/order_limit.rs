//! Orders that the exchange refuses because the account placed too many, although its bots placed few: somebody else
//! uses up the limit that all keys of an account share.
//!
//! Invariant: it is told and nothing more; no decision rests on it. Nothing is claimed where the refusal does not say its
//! limit, or where the window is longer than what is remembered of the bots' word.

use std::time::Duration;

use crate::kernel::account::Kernel;
use crate::kernel::blotter::Announced;
use crate::kernel::incident::Priority;
use crate::kernel::intent::SendOutcome;
use crate::kernel::rule::Cause;

/// The venue's code for too many orders of an account, whatever key or address placed them.
const TOO_MANY_ORDERS: i64 = -1015;
const TOLD_EVERY: Duration = Duration::from_secs(3_600);
const ADVICE: &[&str] = &[
    "Look for orders that are not your bot's: whoever places them holds a key of this account, or its login.",
    "If a bot of yours runs without announcing its orders, that is what uses it up.",
];

/// What the venue says that it allows.
struct OrderLimit {
    orders: usize,
    window: Duration,
}

impl Kernel {
    /// A bot's order was refused.
    pub(super) fn check_order_limit(&mut self, outcome: &SendOutcome) {
        let SendOutcome::Rejected { code: Some(TOO_MANY_ORDERS), message } = outcome else { return };
        let Some(limit) = order_limit(message) else { return };
        let now = self.now();
        if self.state.limit_told_at.is_some_and(|told| now.since(told) < TOLD_EVERY) {
            return;
        }
        // Twice the window: the venue's begins when it likes, and a record takes its time.
        let lately = |at| now.since(at) <= 2 * limit.window;
        let placed = self.state.blotter.intents.values().filter(|intent| lately(intent.received_at));
        let own = placed.filter(|intent| matches!(intent.announced, Announced::Place { .. })).count();
        if 2 * own > limit.orders {
            return;
        }
        self.state.limit_told_at = Some(now);
        let seconds = limit.window.as_secs();
        let line = format!(
            "refused (-1015): the account placed more than {} orders in {seconds} s; its bots announced {own} in the last \
             {} s",
            limit.orders,
            2 * seconds
        );
        let headline = "Somebody else uses up this account's order limit";
        self.built_in("order_limit", Cause::Watcher, "order_limit", Priority::Warning, headline, line, ADVICE);
    }
}

/// Reads `Too many new orders; current limit is 100 orders per 10 SECOND.`; a window of a day is none that we can judge.
fn order_limit(message: &str) -> Option<OrderLimit> {
    let (orders, rest) = message.split_once("current limit is ")?.1.split_once(" orders per ")?;
    let (count, unit) = rest.trim_end_matches('.').split_once(' ').unwrap_or(("1", rest.trim_end_matches('.')));
    let seconds: u64 = match unit {
        "SECOND" | "SECONDS" => 1,
        "MINUTE" | "MINUTES" => 60,
        _ => return None,
    };
    let window = Duration::from_secs(seconds.checked_mul(count.parse().ok()?)?);
    (window <= Duration::from_secs(600)).then_some(OrderLimit { orders: orders.parse().ok()?, window })
}
