//! A drill: a made-up report of a stranger's order, judged by the very code that judges real ones and told on every
//! channel. It is judged beside the account, on a state that is thrown away, so nothing of it is ever counted, and it ends
//! by itself. Nothing is contained by it, but for the throw-away key where that was asked for.

use std::time::Duration;

use crate::kernel::account::{Kernel, State, Timer};
use crate::kernel::declared::Declared;
use crate::kernel::event::{Answer, Effect, Tags, Ticket};
use crate::kernel::incident::{DRILL_RULE, IncidentId, Notice, Priority};
use crate::kernel::report::ExecutionReport;
use crate::kernel::rule::Cause;

/// Before the first reminder would ring.
const ENDS_AFTER: Duration = Duration::from_secs(30);
/// While its key is on the way to its end, which has a deadline of its own.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);

const ADVICE: &[&str] =
    &["Nothing: this is a drill. No such order exists, nothing was done about it, and it ends by itself."];

const ADVICE_OF_A_KILL: &[&str] = &[
    "Nothing: this is a drill. No such order exists; one throw-away key is deleted, no other is touched, and it ends by itself.",
];

impl Kernel {
    pub(super) fn drill(&mut self, ticket: Ticket, by: &str, report: &ExecutionReport, tags: Tags, kill: bool) {
        let may = if kill { self.may_rehearse() } else { Ok(()) };
        let may = may.and_then(|()| match self.state.book.open_id(Cause::Drill, "") {
            Some(_) => Err("a drill is under way: it ends by itself within half a minute, or with its key".to_owned()),
            None => Ok(()),
        });
        let answer = match may {
            Ok(()) => {
                let incident = self.tell_drill(by, report, tags, kill);
                if kill {
                    self.rehearse_kill(by, incident);
                }
                Answer::Done
            }
            Err(reason) => Answer::Refused { reason: reason.into() },
        };
        self.effects.push(Effect::Answer { ticket, answer });
    }

    fn tell_drill(&mut self, by: &str, report: &ExecutionReport, tags: Tags, kill: bool) -> IncidentId {
        let (_, seq) = self.moment();
        let (told, line) = match self.rehearse(report, tags) {
            Some(notice) => {
                let line = notice.lines.last().map(|line| line.text.to_string()).unwrap_or_default();
                (format!("A theft would be told so: {}", notice.headline), line)
            }
            None => {
                let line = format!("an order of {} was not told: see the rules and the exceptions", report.symbol);
                ("A theft would NOT be told".to_owned(), line)
            }
        };
        let (what, advice) = if kill {
            ("no theft, and one throw-away key dies", ADVICE_OF_A_KILL)
        } else {
            ("nothing happened", ADVICE)
        };
        let headline = format!("DRILL {seq}: {what}. {told}");
        let line = format!("DRILL by {by}, no real order: {line}");
        self.set_timer(ENDS_AFTER, Timer::DrillEnds);
        self.built_in(DRILL_RULE, Cause::Drill, "", Priority::Critical, &headline, line, advice)
    }

    /// The loudest notice that a real report like this one would make now, if any.
    fn rehearse(&self, report: &ExecutionReport, tags: Tags) -> Option<Notice> {
        let state = State {
            now: self.state.now,
            bots: self.state.bots.clone(),
            coverage: self.state.coverage.clone(),
            uses: self.state.uses.clone(),
            ..State::default()
        };
        let declared = Declared { stopping: None, ..self.declared.clone() };
        let mut beside = Self { declared, rules: self.rules.clone(), state, effects: Vec::new() };
        beside.execution(report, tags);
        beside.state.book.take_changes(self.now()).into_iter().max_by_key(|notice| notice.priority)
    }

    pub(super) fn end_drill(&mut self) {
        if self.is_rehearsing() {
            return self.set_timer(LOOK_AGAIN_AFTER, Timer::DrillEnds);
        }
        let now = self.now();
        let what = self.rehearsed_word().unwrap_or_else(|| "nothing happened".into());
        self.state.book.end(now, Cause::Drill, "", format!("the drill is over: {what}"));
    }
}
