//! When something is done about a stream of events: after a pause in it, and not later than a bound.

use std::time::Duration;

use tokio::time::Instant;

/// How long the stream must be quiet.
const QUIET: Duration = Duration::from_millis(200);
/// The longest that the first event waits, however many follow.
const LONGEST: Duration = Duration::from_secs(1);

/// Gathers events.
#[derive(Debug, Default)]
pub struct Pace {
    /// The first and the last event that nothing has been done about.
    waiting: Option<(Instant, Instant)>,
    /// One of them wants to be seen at once.
    urgent: bool,
    /// When something was done last.
    done: Option<Instant>,
}

impl Pace {
    /// An event that may be the first of many.
    pub fn event(&mut self, now: Instant) {
        let first = self.waiting.map_or(now, |(first, _)| first);
        self.waiting = Some((first, now));
    }

    /// An event that is acted upon at once, unless something was done a moment ago.
    pub fn urgent(&mut self, now: Instant) {
        self.event(now);
        self.urgent = true;
    }

    /// When to do something about them; `None`: there are none.
    pub fn due(&self) -> Option<Instant> {
        let (first, last) = self.waiting?;
        if self.urgent {
            return Some(self.done.map_or(first, |done| first.max(done + QUIET)));
        }
        Some((last + QUIET).min(first + LONGEST))
    }

    /// Something has been done about all that came before.
    pub fn done(&mut self, now: Instant) {
        *self = Self { waiting: None, urgent: false, done: Some(now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_flood_of_events_is_one_thing_to_do_a_second() {
        let (start, mut pace, mut done) = (Instant::now(), Pace::default(), 0);
        for event in 0..2_000 {
            let now = start + ms(event * 5);
            if pace.due().is_some_and(|due| due <= now) {
                pace.done(now);
                done += 1;
            }
            pace.event(now);
        }
        assert_eq!(done, 9, "in ten seconds");
    }

    #[test]
    fn a_lone_event_waits_for_a_pause_and_an_urgent_one_for_nothing() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        assert_eq!(pace.due(), None);
        pace.event(start);
        pace.event(start + ms(50));
        assert_eq!(pace.due(), Some(start + ms(250)));
        pace.done(start + ms(250));
        assert_eq!(pace.due(), None);
        pace.urgent(start + ms(1_000));
        assert_eq!(pace.due(), Some(start + ms(1_000)));
        pace.done(start + ms(1_000));
        pace.urgent(start + ms(1_010));
        assert_eq!(pace.due(), Some(start + ms(1_200)), "not twice within a moment");
    }
}
