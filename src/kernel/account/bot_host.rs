//! A key of the master on the bot's own host is its owner's choice, and never a quiet one: it is told at each start, and
//! stands in the coverage statement.

use crate::kernel::account::Kernel;
use crate::kernel::incident::Priority;
use crate::kernel::rule::Cause;

/// No exception of the owner's can have this name.
const SCOPE: &str = "[containment] bot_host";
const ADVICE: &[&str] = &[
    "Run countersign on another host than the bot, and set bot_host = \"elsewhere\".",
    "If you did not write it: whoever did can reach this host. Delete the admin key on the exchange's page.",
];

impl Kernel {
    pub(super) fn tell_bot_host(&mut self, before: bool) {
        if self.declared.admin_beside_bot {
            let headline = "The admin key lies on the bot's own host";
            let line = "bot_host = \"here\": whoever owns the bot's host owns the key that makes and deletes its keys";
            self.built_in("bot_host", Cause::Exception, SCOPE, Priority::Warning, headline, line.to_owned(), ADVICE);
        } else if before {
            let now = self.now();
            let line = "the configuration says so no more".to_owned();
            self.state.book.end(now, Cause::Exception, SCOPE, line);
        }
    }

    pub(super) fn bot_host_told(&self) -> Option<&'static str> {
        self.declared.admin_beside_bot.then_some(
            "What is done with the admin key by somebody who owns this host: the bot runs here as well (bot_host = \"here\").",
        )
    }
}
