//! A program that is to stop the bot and is not there: the watch begins all the same, and its owner knows before he needs it.

use crate::kernel::account::Kernel;
use crate::kernel::incident::Priority;
use crate::kernel::rule::Cause;

/// Whatever else fails in the watcher has a name of its own.
const SCOPE: &str = "[[containment.stop]]";
const HEADLINE: &str = "A way to stop the bot cannot work: its program is not there";
const ADVICE: &[&str] = &[
    "Name the program by its whole path, as `command -v` shows it, in [[containment.stop]], and start countersign again.",
    "If it was there before: find out who took it away. Until then you stop the bot by hand.",
];

impl Kernel {
    pub(super) fn tell_missing_programs(&mut self) {
        if self.declared.missing_programs.is_empty() {
            let line = "every program that stops the bot is there".to_owned();
            return self.state.book.end(self.now(), Cause::Watcher, SCOPE, line);
        }
        let line = self.declared.missing_programs.join("; ");
        self.built_in("stop_missing", Cause::Watcher, SCOPE, Priority::Critical, HEADLINE, line, ADVICE);
    }
}
