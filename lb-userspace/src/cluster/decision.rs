//! What the election says to the rest of the agent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Alarm, Readiness};
use crate::health::Moment;

/// The writer as it is kept over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incumbent {
    /// The node's name.
    pub node: String,
    /// Grows by one with every election.
    pub epoch: u64,
    /// It still had the role; false after it was lost and nobody could follow.
    #[serde(default = "serving")]
    pub serving: bool,
    /// An operator chose it, so no better node takes the role back by itself.
    #[serde(default)]
    pub by_hand: bool,
}

fn serving() -> bool {
    true
}

/// How a writer came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// There was none before.
    First,
    /// The one before is out: its connections are to be cut at once.
    Failover,
    /// The one before still works: its connections are drained, then cut.
    Planned,
}

/// A change worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node became the writer.
    WriterElected {
        /// The node, by its place in the configuration.
        node: usize,
        /// The epoch that begins.
        epoch: u64,
        /// What becomes of the one before.
        how: How,
        /// Why, for people.
        reason: String,
    },
    /// The writer is out and nobody can follow yet.
    WriterLost {
        /// The node that was it.
        node: usize,
        /// Why, for people.
        reason: String,
    },
    /// A node's readiness changed.
    ReadinessChanged {
        /// The node.
        node: usize,
        /// Before.
        from: Readiness,
        /// Now.
        to: Readiness,
        /// Why, for people.
        reason: String,
    },
    /// Something needs a person.
    AlarmRaised(Alarm),
    /// It is over.
    AlarmCleared(Alarm),
}

/// A node to probe earlier than usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reprobe {
    /// The node.
    pub node: usize,
    /// In how long; zero is at once.
    pub after: Duration,
}

/// What follows from an observation, or from the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What changed, in order.
    pub events: Vec<Event>,
    /// Whom to probe earlier, at most one entry per node.
    pub reprobe: Vec<Reprobe>,
    /// When to call [`tick`](super::Cluster::tick), if nothing is observed before.
    pub wake: Option<Moment>,
}
