//! What has changed, remembered and told in one place.
//!
//! Every change of state goes through [`Journal::record`]: it is logged there, once; kept among the last
//! [`REMEMBERED`]; and sent to whoever follows. Nobody waits for a follower: one that reads too slowly misses entries
//! and is told how many.
//!
//! Beside them it keeps what came of each last probe, which `lb explain` shows.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TrySendError};

use crate::api::{Answer, Entry, Events, Grade, Timestamp, Topic};

/// How many entries are remembered.
pub const REMEMBERED: usize = 1_000;
/// How many last probes are: twice as many as there can be backends, for names come and go.
const PROBED: usize = 8_192;

/// The history of the agent's life.
#[derive(Debug, Default)]
pub struct Journal {
    entries: VecDeque<Entry>,
    /// The number of the last entry.
    last: u64,
    followers: Vec<Follower>,
    answers: HashMap<String, Answer>,
}

/// Somebody who is told what comes.
#[derive(Debug)]
struct Follower {
    name: Option<String>,
    entries: mpsc::Sender<Entry>,
    /// What had no room of late.
    missed: u64,
}

impl Journal {
    /// Log, remember and tell a change.
    pub fn record(&mut self, entry: Entry) {
        let level = match entry.grade {
            Grade::Info => log::Level::Info,
            Grade::Warning => log::Level::Warn,
            Grade::Error => log::Level::Error,
        };
        log::log!(level, "{}", entry.sentence());
        self.last += 1;
        let entry = Entry { number: self.last, ..entry };
        self.followers.retain_mut(|follower| follower.tell(&entry));
        if self.entries.len() == REMEMBERED {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// The agent begins; `adopted`: with the data path of the one before it.
    pub fn started(&mut self, adopted: bool) {
        let how =
            if adopted { "the data path of the last agent is taken up" } else { "nothing was there before" };
        self.record(Entry::new(Topic::Agent, "", "the agent has started").because(how));
    }

    /// What came of a probe of `name`: what was seen, or the failure.
    pub fn probed(&mut self, name: &str, result: Result<String, &impl Display>) {
        let (good, text) = match result {
            Ok(seen) => (true, seen),
            Err(failure) => (false, failure.to_string()),
        };
        let answer = Answer { at: Timestamp::now(), good, text };
        if let Some(last) = self.answers.get_mut(name) {
            *last = answer;
            return;
        }
        if self.answers.len() >= PROBED {
            // Names that are probed no more.
            let old = answer.at - Duration::from_mins(10);
            self.answers.retain(|_, answer| answer.at > old);
        }
        self.answers.insert(name.to_owned(), answer);
    }

    /// What came of the last probe of `name`.
    pub fn answer(&self, name: &str) -> Option<&Answer> {
        self.answers.get(name)
    }

    /// The last `most` entries that concern one of `names`, the oldest first.
    pub fn of(&self, names: &[&str], most: usize) -> Vec<Entry> {
        let concerned = self.entries.iter().rev();
        let concerned = concerned.filter(|entry| names.iter().any(|name| entry.concerns(name)));
        let mut found: Vec<Entry> = concerned.take(most).cloned().collect();
        found.reverse();
        found
    }

    /// Send what is remembered and wanted, and what will come if that is wanted, too. `entries` should have room for
    /// [`REMEMBERED`].
    pub fn follow(&mut self, wanted: &Events, entries: mpsc::Sender<Entry>) {
        self.followers.retain(|follower| !follower.entries.is_closed());
        let since = wanted.since_ms.map(Duration::from_millis);
        let since = since.and_then(|since| Timestamp::now().checked_sub(since).ok());
        let mut follower = Follower { name: wanted.name.clone(), entries, missed: 0 };
        let new_enough = |entry: &&Entry| since.is_none_or(|since| entry.at >= since);
        let alive = self.entries.iter().filter(new_enough).all(|entry| follower.tell(entry));
        if wanted.follow && alive {
            self.followers.push(follower);
        }
    }
}

impl Follower {
    /// Whether it is still there.
    fn tell(&mut self, entry: &Entry) -> bool {
        if self.name.as_ref().is_some_and(|name| !entry.concerns(name)) {
            return !self.entries.is_closed();
        }
        if self.missed > 0 {
            let what = format!("{} events were not read in time and are missing here", self.missed);
            let gap = Entry { number: entry.number, ..Entry::new(Topic::Agent, "", what).warning() };
            match self.entries.try_send(gap) {
                Ok(()) => self.missed = 0,
                Err(TrySendError::Full(_)) => {
                    self.missed += 1;
                    return true;
                }
                Err(TrySendError::Closed(_)) => return false,
            }
        }
        match self.entries.try_send(entry.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.missed += 1;
                true
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, number: usize) -> Entry {
        Entry::new(Topic::Health, name, number.to_string())
    }

    fn taken(entries: &mut mpsc::Receiver<Entry>) -> Vec<String> {
        std::iter::from_fn(|| entries.try_recv().ok()).map(|entry| entry.sentence()).collect()
    }

    #[test]
    fn the_last_thousand_are_remembered_and_numbered_without_gaps() {
        let mut journal = Journal::default();
        (1..=1_500).for_each(|number| journal.record(entry("web/web1", number)));
        let all = journal.of(&["web"], usize::MAX);
        let numbers: Vec<u64> = all.iter().map(|entry| entry.number).collect();
        assert_eq!(numbers, (501..=1_500).collect::<Vec<u64>>());
        let last: Vec<String> = journal.of(&["web/web1"], 2).iter().map(Entry::sentence).collect();
        assert_eq!(last, ["web/web1: 1499", "web/web1: 1500"]);
        assert!(journal.of(&["web/web2", "we"], 9).is_empty());
    }

    #[test]
    fn who_follows_gets_what_was_and_what_comes_and_who_does_not_only_what_was() {
        for (follow, name, wanted) in [
            (false, None, vec!["a: 1", "b/c: 2"]),
            (true, None, vec!["a: 1", "b/c: 2", "b: 3", "a: 4"]),
            (true, Some("b"), vec!["b/c: 2", "b: 3"]),
        ] {
            let mut journal = Journal::default();
            let (sender, mut receiver) = mpsc::channel(9);
            journal.record(entry("a", 1));
            journal.record(entry("b/c", 2));
            let events = Events { follow, name: name.map(str::to_owned), since_ms: None };
            journal.follow(&events, sender);
            journal.record(entry("b", 3));
            journal.record(entry("a", 4));
            assert_eq!(taken(&mut receiver), wanted, "{follow}, {name:?}");
            assert_eq!(receiver.is_closed(), !follow, "a stream that is whole ends");
        }
    }

    #[test]
    fn entries_that_are_too_old_are_not_shown() {
        let mut journal = Journal::default();
        let old = Entry { at: Timestamp::now() - Duration::from_hours(1), ..entry("a", 1) };
        journal.record(old);
        journal.record(entry("a", 2));
        let (sender, mut receiver) = mpsc::channel(9);
        journal.follow(&Events { since_ms: Some(60_000), ..Events::default() }, sender);
        assert_eq!(taken(&mut receiver), ["a: 2"]);
    }

    #[test]
    fn a_slow_follower_is_told_how_much_it_missed_and_one_that_went_is_forgotten() {
        let mut journal = Journal::default();
        let (sender, mut receiver) = mpsc::channel(2);
        journal.follow(&Events { follow: true, ..Events::default() }, sender);
        (1..=5).for_each(|number| journal.record(entry("a", number)));
        assert_eq!(taken(&mut receiver), ["a: 1", "a: 2"]);
        journal.record(entry("a", 6));
        assert_eq!(taken(&mut receiver), ["3 events were not read in time and are missing here", "a: 6"]);
        drop(receiver);
        journal.record(entry("a", 7));
        assert!(journal.followers.is_empty());
    }

    #[test]
    fn the_last_probe_of_each_name_is_kept_and_names_of_the_past_are_not() {
        let mut journal = Journal::default();
        journal.probed("web/web1", Err(&"refused"));
        journal.probed("web/web1", Ok::<_, &&str>("it is well".to_owned()));
        let answer = journal.answer("web/web1").unwrap();
        assert_eq!((answer.good, answer.text.as_str()), (true, "it is well"));
        (0..PROBED * 2).for_each(|number| journal.probed(&number.to_string(), Ok::<_, &&str>(String::new())));
        assert!(journal.answers.len() <= PROBED * 2 + 1);
        for answer in journal.answers.values_mut() {
            answer.at -= Duration::from_hours(1);
        }
        journal.probed("new", Ok::<_, &&str>(String::new()));
        assert_eq!(journal.answers.len(), 1);
    }
}
