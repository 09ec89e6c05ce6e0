//! What holds while DNS says something, nothing, or that there is nothing. Pure.
//!
//! | what comes | members | asked again |
//! | --- | --- | --- |
//! | records | these | when their time to live is over, within the source's bounds |
//! | no such name, no such record, "not at this domain" (a SRV target of `.`) | the last good ones for as long as the source says, then none | soon, and less and less often |
//! | silence, SERVFAIL, REFUSED, what cannot be read | the last good ones | the same |
//!
//! "No such name" is an answer, and may be meant; but more often a zone was published without a line, and the health
//! checks say better than DNS which servers are gone.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::{Member, Members},
    Source,
};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What came of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Members, and for how long; with what is wrong with some of them.
    Members(Vec<Member>, Duration, Option<String>),
    /// There are none, and why.
    Nothing(String),
    /// Nobody knows, and why.
    Unknown(String),
}

/// The last good set, and how long it may hold.
#[derive(Debug)]
pub struct Memory {
    ttl: (Duration, Duration),
    keep: Duration,
    list: Option<Vec<Member>>,
    trouble: Option<String>,
    /// Since when there is said to be nothing.
    nothing_since: Option<Instant>,
    retry: Duration,
}

impl Memory {
    /// With the last set of an earlier run, if there is one.
    pub fn new(source: &Source, kept: Option<Vec<Member>>) -> Self {
        Self {
            ttl: source.ttl,
            keep: source.keep,
            list: kept,
            trouble: None,
            nothing_since: None,
            retry: FIRST_RETRY,
        }
    }

    /// Takes what has come, and says how long to wait until the next question.
    pub fn take(&mut self, found: Found, now: Instant) -> Duration {
        let why = match found {
            Found::Members(list, ttl, trouble) => {
                (self.list, self.trouble) = (Some(list), trouble);
                (self.nothing_since, self.retry) = (None, FIRST_RETRY);
                return ttl.clamp(self.ttl.0, self.ttl.1);
            }
            Found::Nothing(why) => {
                let since = *self.nothing_since.get_or_insert(now);
                let left = self.keep.saturating_sub(now.saturating_duration_since(since));
                if left.is_zero() || self.holds() == 0 {
                    self.list = Some(Vec::new());
                    self.trouble = Some(format!("{why}; no members are left"));
                    return self.next_retry();
                }
                let until = crate::config::spell(self.keep);
                self.trouble = Some(format!("{why}; {} for {until}", self.hold()));
                return self.next_retry().min(left);
            }
            Found::Unknown(why) => why,
        };
        self.trouble = Some(match self.list {
            Some(_) => format!("{why}; {}", self.hold()),
            None => format!("{why}; no members are known yet"),
        });
        self.next_retry()
    }

    /// What is known.
    pub fn members(&self) -> Members {
        Members { list: self.list.clone(), trouble: self.trouble.clone() }
    }

    fn holds(&self) -> usize {
        self.list.as_ref().map_or(0, Vec::len)
    }

    fn hold(&self) -> String {
        match self.holds() {
            1 => "its last member is kept".to_owned(),
            count => format!("its last {count} members are kept"),
        }
    }

    fn next_retry(&mut self) -> Duration {
        let next = self.retry;
        self.retry = (next * 2).min(LAST_RETRY);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::dns::{Record, Resolver};

    const SECOND: Duration = Duration::from_secs(1);

    fn memory(kept: Option<Vec<Member>>) -> Memory {
        let source = Source {
            name: "web.internal".parse().unwrap(),
            record: Record::A(80),
            resolver: Resolver::default(),
            ttl: (2 * SECOND, 60 * SECOND),
            keep: 600 * SECOND,
        };
        Memory::new(&source, kept)
    }

    fn set(count: u8) -> Vec<Member> {
        let member = |i| Member {
            name: format!("10.0.0.{i}"),
            address: ([10, 0, 0, i], 80).into(),
            weight: 100,
            draining: None,
        };
        (1..=count).map(member).collect()
    }

    #[test]
    fn a_time_to_live_is_honoured_within_bounds() {
        let (mut memory, now) = (memory(None), Instant::now());
        for (ttl, wait) in [(0, 2), (1, 2), (2, 2), (30, 30), (60, 60), (86_400, 60)] {
            assert_eq!(memory.take(Found::Members(set(2), ttl * SECOND, None), now), wait * SECOND);
        }
        assert_eq!(memory.members(), Members { list: Some(set(2)), trouble: None });
    }

    #[test]
    fn a_set_outlives_silence_without_end_and_is_asked_for_ever_less_often() {
        let (mut memory, now) = (memory(None), Instant::now());
        memory.take(Found::Members(set(2), SECOND, None), now);
        let waits: Vec<u64> = (0..7)
            .map(|day| {
                memory.take(Found::Unknown("silence".to_owned()), now + day * 86_400 * SECOND).as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        let trouble = Some("silence; its last 2 members are kept".to_owned());
        assert_eq!(memory.members(), Members { list: Some(set(2)), trouble });
        memory.take(Found::Members(set(1), SECOND, None), now);
        assert_eq!(memory.members(), Members { list: Some(set(1)), trouble: None });
        assert_eq!(memory.take(Found::Unknown("silence".to_owned()), now), SECOND, "the retries begin anew");
    }

    #[test]
    fn a_name_that_is_gone_keeps_its_members_for_a_while_and_silence_does_not_prolong_it() {
        let (mut memory, now) = (memory(None), Instant::now());
        let gone = || Found::Nothing("gone".to_owned());
        memory.take(Found::Members(set(3), SECOND, None), now);
        assert_eq!(memory.take(gone(), now), SECOND);
        let trouble = memory.members().trouble.unwrap();
        assert_eq!(trouble, "gone; its last 3 members are kept for 10m");
        memory.take(Found::Unknown("silence".to_owned()), now + 300 * SECOND);
        assert_eq!(memory.take(gone(), now + 599 * SECOND), SECOND, "the wait ends when the time is over");
        assert_eq!(memory.members().list, Some(set(3)));
        memory.take(gone(), now + 600 * SECOND);
        let trouble = Some("gone; no members are left".to_owned());
        assert_eq!(memory.members(), Members { list: Some(Vec::new()), trouble });
    }

    #[test]
    fn an_earlier_runs_set_holds_until_there_is_a_better_one() {
        let now = Instant::now();
        let mut fresh = memory(None);
        fresh.take(Found::Unknown("silence".to_owned()), now);
        let trouble = Some("silence; no members are known yet".to_owned());
        assert_eq!(fresh.members(), Members { list: None, trouble });
        let mut kept = memory(Some(set(2)));
        kept.take(Found::Unknown("silence".to_owned()), now);
        assert_eq!(kept.members().list, Some(set(2)));
        kept.take(Found::Nothing("gone".to_owned()), now);
        assert_eq!(kept.members().list, Some(set(2)));
    }
}
