//! The judge of how thefts end: what was touched was to be, each step took effect once, and what is said of the end is so.
//! Like the rest of the oracle it knows the exchange's ledger, the script and what was seen from outside.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::kernel::time::Time;
use crate::simulate::emergency::{Emergency, Leaves, Owner};
use crate::simulate::ledger::{Changed, Entry, KeyChange, KeyChanged};
use crate::simulate::oracle::{Judgement, LEAVING, Oracle, PENDING_CAP, TROUBLED};
use crate::simulate::owner::Word;
use crate::simulate::script::Mishap;
use crate::simulate::witness::{Asked, Reply, Step};

/// An end is proved by then after the last that stood in its way: acts, two clean reads of the book with quiet between, and
/// what is still waited for.
const ENDED_WITHIN: Duration = Duration::from_secs(40);
/// A bot that lives is heard by then after its stop: its last words, and some beats.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// The exchange's ledger knows milliseconds.
const MOMENT: Duration = Duration::from_millis(1);
/// What a thief could hold, and what is kept while it is needed.
const BOTS_KEYS: [&str; 2] = ["main/bot", "main/second"];
const CANCEL_KEY: &str = "main/cancel";
/// So many lists that cannot be read, and a key is frozen or deleted without.
const LISTS_FAILED: usize = 2;

impl Oracle<'_> {
    pub fn judge_containment(&self, judgement: &mut Judgement) {
        let wrong = self.touched_wrongly();
        judgement.false_containments = u64::from(!wrong.is_empty());
        judgement.problems.extend(wrong);
        judgement.problems.extend(self.repeated());
        let problems = judgement.problems.len();
        for (at, word) in &self.witness.words {
            let proved = match &**word {
                "contained" => self.proves_contained(*at),
                "frozen" => self.proves_frozen(*at),
                "released" => self.proves_released(*at),
                _ => Ok(()),
            };
            if let Err(why) = proved {
                judgement.problems.push(format!("said to be {word} at {at} UTC: {why}"));
            }
        }
        let said = self.witness.words.iter().any(|(_, word)| &**word == "contained");
        judgement.contained = u64::from(said && judgement.problems.len() == problems);
        judgement.problems.extend(self.never_ended());
        judgement.problems.extend(self.not_taken_back());
        judgement.problems.extend(self.not_frozen_alone());
        judgement.problems.extend(self.not_heard());
    }

    /// Bots that trade and beat on are soon heard, whatever the way to stop them says.
    fn not_heard(&self) -> Option<String> {
        let since = self.hook_left(Leaves::All)?;
        if since + HEARD_WITHIN > self.script.ends || self.is_hindered(since) || self.is_off_the_line(since) {
            return None;
        }
        let told = self.witness.lines.iter().any(|told| told.text.starts_with("NOT STOPPED"));
        (!told).then(|| format!("said to be stopped at {since} UTC, and no bot that spoke on was heard"))
    }

    fn is_off_the_line(&self, since: Time) -> bool {
        let hits = |mishap: &Mishap| {
            matches!(mishap, Mishap::LineBreaks { .. } | Mishap::DiskStalls { .. } | Mishap::ClockJumps { .. })
        };
        self.witness.mishaps.iter().any(|(at, mishap)| *at + TROUBLED >= since && hits(mishap))
    }

    /// The owner's word to kill, or the theft that lets it kill alone.
    fn killed_at(&self) -> Option<Time> {
        let word = |word: &Word| matches!(word, Word::Kill(_));
        let commanded = self.commanded(word);
        let alone = self.first_theft().filter(|_| self.acts_alone());
        commanded.into_iter().chain(alone).min()
    }

    fn commanded(&self, is: impl Fn(&Word) -> bool) -> Option<Time> {
        self.witness.commands.iter().find(|(_, word)| is(word)).map(|(at, _)| *at)
    }

    /// Anything that may lead to an act.
    fn begun_at(&self) -> Option<Time> {
        let commanded = self.commanded(|word| matches!(word, Word::Freeze(_) | Word::Kill(_)));
        let waits = self.script.emergency.as_ref().is_some_and(|emergency| emergency.freeze_unanswered.is_some());
        let alone = self.first_theft().filter(|_| waits || self.acts_alone());
        commanded.into_iter().chain(alone).min()
    }

    fn first_theft(&self) -> Option<Time> {
        let placed = self.ledger.orders.values().filter(|entry| entry.by_thief).map(|entry| entry.placed_at);
        let changes = self.ledger.orders.values().flat_map(|entry| &entry.changes);
        placed.chain(changes.filter(|change| change.by_thief).map(|change| change.at)).min()
    }

    /// What countersign did to keys and orders without being allowed to.
    fn touched_wrongly(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let (begun, killed) = (self.begun_at(), self.killed_at());
        let by = |since: Option<Time>, at: Time| since.is_some_and(|since| since <= at + MOMENT);
        let resumed = self.commanded(|word| *word == Word::Resume { right: true });
        let deletes = self.commanded(|word| *word == Word::DeleteStrangers);
        let (mut deleted, mut frozen): (BTreeSet<&str>, BTreeSet<&str>) = (BTreeSet::new(), BTreeSet::new());
        for change in self.ledger.keys.iter().filter(|change| change.contains) {
            let (key, at) = (&*change.key, change.at);
            let bots = BOTS_KEYS.contains(&key);
            let stranger = self.is_strangers(key);
            let may = match change.what {
                KeyChanged::Made => false,
                KeyChanged::Rights { any: false } => {
                    (bots || stranger) && by(begun, at) || key == CANCEL_KEY && by(killed, at)
                }
                KeyChanged::Rights { any: true } => (bots || key == CANCEL_KEY) && by(resumed, at),
                KeyChanged::Deleted => bots && by(killed, at) || stranger && by(deletes, at),
            };
            let once = match change.what {
                KeyChanged::Made => true,
                KeyChanged::Rights { any: false } => frozen.insert(key),
                KeyChanged::Rights { any: true } => frozen.remove(key),
                KeyChanged::Deleted => deleted.insert(key),
            };
            if !may || !once {
                wrong.push(format!("key {key} was changed at {at} UTC: {:?}", change.what));
            }
        }
        for (key, entry) in &self.ledger.orders {
            let ours = entry.changes.iter().find(|change| change.contains && change.what == Changed::Cancelled);
            let Some(ours) = ours else { continue };
            if !entry.by_thief && self.explain_order(key).is_err() {
                wrong.push(format!("order {} of {} is the bot's, and countersign cancelled it", key.1, key.0));
            } else if !by(killed, ours.at) {
                wrong.push(format!("order {} of {} was cancelled, and nobody asked for a kill", key.1, key.0));
            }
        }
        wrong
    }

    fn is_strangers(&self, key: &str) -> bool {
        self.ledger.keys.iter().any(|change| change.key == key && change.what == KeyChanged::Made)
    }

    /// What may have been done is done again only after a read showed that it was not.
    fn repeated(&self) -> Vec<String> {
        let asked = &self.witness.asked;
        let mut wrong = Vec::new();
        for (place, again) in asked.iter().enumerate() {
            let changes = !matches!(again.step, Step::ReadKeys | Step::ReadOrders | Step::Harmless);
            let before = asked[..place].iter().rposition(|before| is_of_one_kind(&before.step, &again.step));
            let Some(before) = before.filter(|_| changes) else { continue };
            let anew = |(at, _): &(Time, Word)| *at >= asked[before].at && *at <= again.at;
            if asked[before].step != again.step || self.witness.commands.iter().any(anew) {
                continue;
            }
            if !may_repeat(&asked[before], before, &asked[..place], again) {
                wrong.push(format!("asked for again at {} UTC without a read: {:?}", again.at, again.step));
            }
        }
        wrong
    }

    /// The bots' keys are dead by then, no order of the thief is open, and nobody else's key can trade.
    fn proves_contained(&self, at: Time) -> Result<(), String> {
        if let Some(key) = BOTS_KEYS.iter().find(|key| self.exists(key) && !self.is_deleted(key, at)) {
            return Err(format!("key {key} lives"));
        }
        // What was placed a moment ago no frame can have told yet: it takes the word back.
        let known_by = |entry: &Entry| entry.placed_at + self.frames_within() + LEAVING <= at;
        let open = |entry: &Entry| known_by(entry) && entry.ended_at.is_none_or(|ended| ended > at);
        if let Some((key, _)) = self.ledger.orders.iter().find(|(_, entry)| entry.by_thief && open(entry)) {
            return Err(format!("order {} of {} is the thief's, and open", key.1, key.0));
        }
        self.proves_no_strangers_key(at)
    }

    fn proves_frozen(&self, at: Time) -> Result<(), String> {
        // The word waits for the disk, and a resume that came meanwhile does not.
        let resumed = |(since, word): &(Time, Word)| {
            *word == Word::Resume { right: true } && *since <= at && at <= *since + LEAVING
        };
        if self.witness.commands.iter().any(resumed) {
            return Ok(());
        }
        let lives = |key: &&&str| self.exists(key) && self.has_rights(key, at);
        match BOTS_KEYS.iter().find(lives) {
            Some(key) => Err(format!("key {key} can trade")),
            None => self.proves_no_strangers_key(at),
        }
    }

    fn proves_released(&self, at: Time) -> Result<(), String> {
        let taken = |key: &&&str| self.exists(key) && !self.is_deleted(key, at) && !self.has_rights(key, at);
        match BOTS_KEYS.iter().find(taken) {
            Some(key) => Err(format!("key {key} has no right")),
            None => Ok(()),
        }
    }

    /// A key made so lately that no list could have shown it yet is found by the next one.
    fn proves_no_strangers_key(&self, at: Time) -> Result<(), String> {
        let read = self.witness.asked.iter().filter(|asked| {
            asked.answer.as_ref().is_some_and(|(answered, reply)| *answered <= at && matches!(reply, Reply::Keys(_)))
        });
        let listed = read.map(|asked| asked.at).max().unwrap_or(at);
        let made = |change: &&KeyChange| change.what == KeyChanged::Made && change.at < listed;
        let live = self.ledger.keys.iter().filter(made).find(|change| self.has_rights(&change.key, at));
        live.map_or(Ok(()), |change| Err(format!("key {} can trade", change.key)))
    }

    fn exists(&self, key: &str) -> bool {
        key == BOTS_KEYS[0]
            || self.script.bots.len() > 1
                && self.script.emergency.as_ref().is_some_and(|emergency| emergency.second_key)
    }

    fn is_deleted(&self, key: &str, at: Time) -> bool {
        self.changes_of(key, at).any(|change| change.what == KeyChanged::Deleted)
    }

    fn has_rights(&self, key: &str, at: Time) -> bool {
        self.changes_of(key, at).last().is_none_or(|change| match change.what {
            KeyChanged::Made => true,
            KeyChanged::Rights { any } => any,
            KeyChanged::Deleted => false,
        })
    }

    fn changes_of(&self, key: &str, at: Time) -> impl Iterator<Item = &KeyChange> {
        self.ledger.keys.iter().filter(move |change| change.key == key && change.at <= at)
    }

    /// What was asked for last comes to its end, where nothing stands in its way.
    fn never_ended(&self) -> Option<String> {
        let emergency = self.script.emergency.as_ref()?;
        let asks = |word: &Word| matches!(word, Word::Freeze(_) | Word::Kill(_) | Word::Resume { right: true });
        let (since, word) = self.witness.commands.iter().rfind(|(_, word)| asks(word))?;
        let made = self.ledger.keys.iter().find(|change| change.what == KeyChanged::Made);
        // A kill that it began alone is more than a freeze, and is not taken back.
        if self.acts_alone() && !matches!(word, Word::Kill(_)) {
            return None;
        }
        // A stranger's key that stays is frozen, and then a kill is not contained. One that traded after everything was
        // blocked has made our own key a suspect, with which nothing can be cancelled any more.
        let stays = made.is_some() && !emergency.deletes_strangers;
        let suspected = self.changes_of(CANCEL_KEY, self.script.ends).next().is_some();
        if matches!(word, Word::Kill(_)) && (stays || suspected) {
            return None;
        }
        let thefts = self.ledger.orders.values().filter(|entry| entry.by_thief).map(|entry| entry.placed_at);
        let made = self.ledger.keys.iter().filter(|change| !change.contains).map(|change| change.at);
        let last = thefts.chain(made).chain([*since]).max()?;
        if last + ENDED_WITHIN > self.script.ends || self.is_hindered(*since) {
            return None;
        }
        let over = self.witness.is_over();
        (!over).then(|| format!("{word:?} at {since} UTC, and it has not ended: {:?}", self.witness.words.last()))
    }

    /// The process was away, or something that a containment needs was.
    fn is_hindered(&self, since: Time) -> bool {
        let hits = |mishap: &Mishap| {
            matches!(
                mishap,
                Mishap::Killed { .. } | Mishap::Stopped { .. } | Mishap::ReadsFail { .. } | Mishap::Held { .. }
            )
        };
        let unanswered = self.witness.unanswered.iter().any(|at| *at + TROUBLED * 4 >= since);
        unanswered || self.witness.mishaps.iter().any(|(at, mishap)| *at + TROUBLED >= since && hits(mishap))
    }

    /// Who trades after the word makes it untrue, and it is taken back.
    fn not_taken_back(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (place, (at, word)) in self.witness.words.iter().enumerate().filter(|(_, (_, word))| &**word == "contained")
        {
            let mut later = self.witness.words[place..].iter();
            let until = later.find(|(_, word)| &**word != "contained").map_or(self.script.ends, |(at, _)| *at);
            for (key, entry) in self.ledger.orders.iter().filter(|(_, entry)| entry.by_thief) {
                let by = entry.placed_at + PENDING_CAP + self.frames_within() + LEAVING;
                let excused = self.is_unseen(entry.placed_at) || self.is_troubled(entry.placed_at, by);
                if entry.placed_at > *at && by < until && !excused {
                    wrong.push(format!("order {} of {} came after it was {word}, and it stood", key.1, key.0));
                }
            }
        }
        wrong
    }

    /// Nobody answers, nothing breaks: then the keys are frozen in time.
    fn not_frozen_alone(&self) -> Option<String> {
        let emergency = self.script.emergency.as_ref()?;
        let Emergency { owner: Owner::Sleeps, freeze_unanswered: Some(within), .. } = emergency else { return None };
        let calm = self.script.mishaps.is_empty() && self.witness.unanswered.is_empty() && !self.script.acknowledges;
        let told = self.witness.critical.values().min().filter(|_| calm && self.first_theft().is_some())?;
        let by = *told + *within + ENDED_WITHIN;
        let blocked = |key: &&str| !self.exists(key) || !self.has_rights(key, by) || self.is_deleted(key, by);
        (by <= self.script.ends && !BOTS_KEYS.iter().all(blocked))
            .then(|| format!("nobody answered since {told} UTC, and the keys were not frozen"))
    }
}

fn is_of_one_kind(one: &Step, other: &Step) -> bool {
    match (one, other) {
        (Step::SetRights { key, .. }, Step::SetRights { key: of, .. })
        | (Step::DeleteKey { key }, Step::DeleteKey { key: of }) => key == of,
        (Step::Cancel(key), Step::Cancel(of)) => key == of,
        (
            Step::ReadKeys
            | Step::ReadOrders
            | Step::SetRights { .. }
            | Step::DeleteKey { .. }
            | Step::Cancel(_)
            | Step::Harmless,
            _,
        ) => false,
    }
}

fn may_repeat(before: &Asked, place: usize, all: &[Asked], again: &Asked) -> bool {
    let between = &all[place + 1..];
    // An order that is cancelled twice is cancelled once.
    if before.forgotten && matches!(before.step, Step::Cancel(_)) {
        return true;
    }
    let since = match &before.answer {
        Some((_, Reply::NotDone)) => return true,
        Some((at, _)) => *at,
        None => before.at,
    };
    let shows_undone = |reply: &Reply| match (&before.step, reply) {
        (Step::SetRights { key, any }, Reply::Keys(keys)) => keys.get(key).is_some_and(|has| has != any),
        (Step::DeleteKey { key }, Reply::Keys(keys)) => keys.contains_key(key),
        (Step::Cancel(key), Reply::Orders(orders)) => orders.contains(key),
        (
            Step::SetRights { .. }
            | Step::DeleteKey { .. }
            | Step::Cancel(_)
            | Step::ReadKeys
            | Step::ReadOrders
            | Step::Harmless,
            _,
        ) => false,
    };
    let later = || between.iter().filter(|read| read.at >= since).filter_map(|read| read.answer.as_ref());
    let later = || later().filter(|(at, _)| *at <= again.at);
    // In a row, whether they began before the step or after it.
    let lists = all.iter().rev().filter(|read| read.step == Step::ReadKeys);
    let could_be_read = |read: &&Asked| read.answer.as_ref().is_some_and(|(_, reply)| matches!(reply, Reply::Keys(_)));
    let failed = lists.take_while(|read| !could_be_read(read));
    let key = !matches!(before.step, Step::Cancel(_));
    later().any(|(_, reply)| shows_undone(reply)) || key && failed.count() >= LISTS_FAILED
}
