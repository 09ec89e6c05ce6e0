//! Health: what a sequence of probe results says about the thing probed.
//!
//! A pure state machine: results and the time go in, a state and the wish for the next probe come out. It starts as
//! *unknown*, which is no candidate for new connections. Doubtful failures (a time-out, a bad status) have to add
//! up; a certain one (refused, unreachable, died) takes new connections away at once and needs one more failed probe
//! to mean *down*. Something that keeps changing is held down for a while, longer each time, unless it is the last
//! that could serve.

mod moment;
mod panic;
mod suspicion;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

pub use moment::Moment;
pub use panic::{Judged, panic};
pub use suspicion::{Consequence, Evidence, Sign, Suspicion};

/// The constants of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Successes in a row that end *down*; the very first *up* needs only one.
    pub rise: u32,
    /// Failures in a row that end *up*.
    pub fall: u32,
    /// Failures among the last [`WINDOW`] results that end *up* as well; at least `fall` counts.
    pub fall_in_window: u32,
    /// How soon a certain failure is confirmed.
    pub confirm_after: Duration,
    /// More changes than this within `flap_window` are flapping.
    pub flap_changes: usize,
    /// See `flap_changes`.
    pub flap_window: Duration,
    /// How long the first hold lasts; each further one lasts twice as long.
    pub hold: Duration,
    /// The longest hold.
    pub hold_max: Duration,
}

/// How many results are remembered to see failures that never come three in a row.
pub const WINDOW: u32 = 10;

impl Default for Tuning {
    fn default() -> Self {
        Self {
            rise: 2,
            fall: 3,
            fall_in_window: 5,
            confirm_after: Duration::from_millis(250),
            flap_changes: 4,
            flap_window: Duration::from_mins(5),
            hold: Duration::from_secs(30),
            hold_max: Duration::from_mins(5),
        }
    }
}

/// What is known of the thing probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Not yet judged; takes no connections.
    Unknown,
    /// Works.
    Up,
    /// Does not work, or is held down because it flaps.
    Down,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// What the operator wants of a backend, whatever its health is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Admin {
    /// Takes connections when healthy.
    #[default]
    Ready,
    /// Takes no new connections; existing ones finish.
    Drain,
    /// Takes no new connections whatever its probes say, which go on; existing connections finish.
    Maintenance,
}

impl Admin {
    /// Whether a backend in this state may take new connections at all.
    pub fn takes_new(self) -> bool {
        self == Self::Ready
    }
}

/// One probe's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It answered as it should.
    Ok,
    /// It did not.
    Failure {
        /// Refused, unreachable or died, rather than slow or wrong.
        certain: bool,
        /// What happened, for people.
        text: String,
    },
}

/// When the next probe should be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextProbe {
    /// At the usual interval.
    Normal,
    /// After this time already.
    Quick(Duration),
}

/// A change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state left.
    pub from: State,
    /// The state entered.
    pub to: State,
    /// Why, for people.
    pub reason: String,
}

/// What follows from one probe result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The state now.
    pub state: State,
    /// Whether new connections may go there; an unconfirmed certain failure says no while the state is still *up*.
    pub takes_new: bool,
    /// The change, if there was one.
    pub changed: Option<Change>,
    /// When to probe again.
    pub next_probe: NextProbe,
}

/// The health of one thing that is probed.
#[derive(Clone, Debug)]
pub struct Health {
    tuning: Tuning,
    state: State,
    reason: String,
    since: Moment,
    /// It has been up before, so one success is not enough to come back.
    was_up: bool,
    /// The failure that led to *down*, or is being confirmed, was a certain one.
    certain: bool,
    /// A certain failure waits for its confirmation.
    suspect: bool,
    successes: u32,
    failures: u32,
    /// The last results since the state was entered, newest in the lowest bit, 1 = failed.
    window: u32,
    /// When the latest changes between up and down happened.
    changes: VecDeque<Moment>,
    /// How many holds have been imposed since it was last quiet.
    holds: u32,
    held_until: Option<Moment>,
}

impl Health {
    /// Something never probed before.
    pub fn new(tuning: Tuning, now: Moment) -> Self {
        Self {
            tuning,
            state: State::Unknown,
            reason: "not probed yet".to_owned(),
            since: now,
            was_up: false,
            certain: false,
            suspect: false,
            successes: 0,
            failures: 0,
            window: 0,
            changes: VecDeque::new(),
            holds: 0,
            held_until: None,
        }
    }

    /// Something whose state a former agent left behind.
    pub fn restored(tuning: Tuning, state: State, reason: String, now: Moment) -> Self {
        Self { state, reason, was_up: state != State::Unknown, ..Self::new(tuning, now) }
    }

    /// Judge by other numbers from the next result on.
    pub fn retune(&mut self, tuning: Tuning) {
        self.tuning = tuning;
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it is in this state, for people.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// When it entered this state.
    pub fn since(&self) -> Moment {
        self.since
    }

    /// Whether new connections may go there, as far as health goes.
    pub fn takes_new(&self) -> bool {
        self.state == State::Up && !self.suspect
    }

    /// Whether it is down by evidence that no panic may overrule.
    pub fn certainly_down(&self) -> bool {
        self.state == State::Down && self.certain
    }

    /// When a hold against flapping ends, if there is one.
    pub fn held_until(&self) -> Option<Moment> {
        self.held_until
    }

    /// It could not be asked, through no fault of its own: says so as the reason of *unknown*. Whether that is news.
    pub fn excuse(&mut self, text: &str) -> bool {
        let news = self.state == State::Unknown && self.reason != text;
        if news {
            text.clone_into(&mut self.reason);
        }
        news
    }

    /// Takes in one probe result. `last_usable` says that nothing else could serve in its place: then no hold keeps
    /// it down.
    pub fn observe(&mut self, probe: Probe, last_usable: bool, now: Moment) -> Step {
        let (changed, next_probe) = match probe {
            Probe::Ok => (self.succeeded(last_usable, now), NextProbe::Normal),
            Probe::Failure { certain, text } => self.failed(certain, text, now),
        };
        Step { state: self.state, takes_new: self.takes_new(), changed, next_probe }
    }

    fn succeeded(&mut self, last_usable: bool, now: Moment) -> Option<Change> {
        self.suspect = false;
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        self.window <<= 1;
        let needed = if self.was_up { self.tuning.rise } else { 1 };
        if self.state == State::Up || self.successes < needed {
            return None;
        }
        if self.held_until.is_some_and(|until| now < until) && !last_usable {
            return None;
        }
        self.held_until = None;
        let reason = format!("{} successful probes in a row", self.successes);
        Some(self.enter(
            State::Up,
            if self.successes == 1 { "probe succeeded".to_owned() } else { reason },
            now,
        ))
    }

    fn failed(&mut self, certain: bool, text: String, now: Moment) -> (Option<Change>, NextProbe) {
        let confirmed = std::mem::replace(&mut self.suspect, certain && self.state != State::Down);
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        self.window = self.window << 1 | 1;
        if self.state == State::Down {
            self.certain = certain;
            self.reason = self.with_hold(text, now);
            return (None, NextProbe::Normal);
        }
        let in_window = (self.window & ((1 << WINDOW) - 1)).count_ones();
        let reason = if confirmed {
            format!("{text}, confirmed")
        } else if self.failures >= self.tuning.fall {
            format!("{text}, {} in a row", self.failures)
        } else if in_window >= self.tuning.fall_in_window.max(self.tuning.fall) {
            format!("{text}, {in_window} of the last {WINDOW}")
        } else if certain {
            return (None, NextProbe::Quick(self.tuning.confirm_after));
        } else {
            return (None, NextProbe::Normal);
        };
        self.certain = certain;
        (Some(self.enter(State::Down, reason, now)), NextProbe::Normal)
    }

    fn enter(&mut self, to: State, reason: String, now: Moment) -> Change {
        let from = std::mem::replace(&mut self.state, to);
        self.reason = reason;
        self.since = now;
        self.suspect = false;
        self.window = 0;
        self.was_up |= to == State::Up;
        if from != State::Unknown {
            self.note_change(now);
        }
        Change { from, to, reason: self.reason.clone() }
    }

    /// Counts a change between up and down, and begins a hold if this was a fall too many.
    fn note_change(&mut self, now: Moment) {
        self.changes.retain(|change| now.since(*change) <= self.tuning.flap_window);
        if self.changes.is_empty() {
            self.holds = 0;
        }
        self.changes.push_back(now);
        if self.state == State::Down && self.changes.len() > self.tuning.flap_changes {
            let factor = 1_u32.checked_shl(self.holds).unwrap_or(u32::MAX);
            let hold = self.tuning.hold.saturating_mul(factor).min(self.tuning.hold_max);
            self.holds += 1;
            self.held_until = Some(now + hold);
            let reason = std::mem::take(&mut self.reason);
            self.reason = self.with_hold(reason, now);
        }
    }

    /// A reason for *down*, with the hold that goes beyond it.
    fn with_hold(&self, reason: String, now: Moment) -> String {
        match self.held_until.filter(|until| now < *until) {
            Some(until) => {
                let hold = until.since(self.since).as_secs();
                format!("{reason}; held down for {hold} s because it flaps")
            }
            None => reason,
        }
    }
}
