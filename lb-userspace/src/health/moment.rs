//! Time as the pure modules see it.

use std::ops::{Add, AddAssign};
use std::time::Duration;

/// A point on the agent's monotonic clock, as the time since an origin that the caller chose once (its own start).
///
/// Not [`std::time::Instant`]: an instant cannot be made up, so property tests could neither shrink one nor print a
/// case that another machine can repeat, and a simulation could not run four minutes in a second. Differences never
/// go below zero, so a clock that jumps back stops time instead of ending the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The origin.
    pub const START: Self = Self(Duration::ZERO);

    /// The moment at which so much time has passed since the origin.
    pub const fn at(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The time since `earlier`, zero if that lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The time since the origin.
    pub const fn since_start(self) -> Duration {
        self.0
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, later: Duration) {
        *self = *self + later;
    }
}
