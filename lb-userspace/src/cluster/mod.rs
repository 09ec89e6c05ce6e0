//! Galera: which nodes may serve, and which one writes.
//!
//! Pure: observations of the nodes and the time go in; each node's readiness, the one writer, decisions as events
//! and wishes for earlier probes come out. [`classify`] judges one node by itself, `view` compares the nodes with
//! each other (a partition or an outdated answer only shows there), [`Cluster`] elects.
//!
//! The rule behind all of them: evidence moves the writer, suspicion does not. A node that says it is not Primary,
//! or is gone for certain, loses the role at once; one that is slow, saturated or changes its view keeps it until
//! there is evidence.

mod alarm;
mod candidate;
mod classify;
mod decision;
mod election;
mod flow;
mod node;
mod observation;
mod orders;
mod share;
#[cfg(test)]
mod tests;
mod view;

use std::time::Duration;

pub use alarm::Alarm;
pub use classify::{Before, Judgement, Reason, classify};
pub use decision::{Event, How, Incumbent, Outcome, Reprobe};
pub use election::Cluster;
pub use node::NodeStatus;
pub use observation::{Observation, RejectQueries, Replication, Seen, Signals};
pub use orders::Refused;

/// What a node may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Readiness {
    /// Not yet known; no candidate for anything.
    Unknown,
    /// W: may be the writer, and a reader.
    Writer,
    /// R: may be a reader.
    Reader,
    /// N: no new connections; existing ones stay.
    NoNew,
    /// X: out.
    Out,
}

/// What kind of database the nodes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A Galera cluster: a node without wsrep is out.
    #[default]
    Galera,
    /// `MySQL` or `MariaDB` servers by themselves.
    Mysql,
}

/// What a node is good for while it is a donor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Donor {
    /// Takes no new connections unless no Synced node is left.
    #[default]
    LastResort,
    /// Takes no new connections.
    Avoid,
    /// As good as a Synced one.
    Allow,
}

/// Whether the writer is read from too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriterReads {
    /// Never, even if nobody else is left.
    Never,
    /// If no other node is as good.
    #[default]
    LastResort,
    /// Like any other node.
    Always,
}

/// How a cluster is judged; the times are constants that tests may shorten.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// The kind of database.
    pub kind: Kind,
    /// Donors.
    pub donor: Donor,
    /// How far a replica may be behind; `None`: however far.
    pub max_lag: Option<Duration>,
    /// Whether a better node takes the role back by itself, and after how long in good health.
    pub fail_back: Option<Duration>,
    /// Several nodes are written to, so their conflicts are no news.
    pub many_writers: bool,
    /// Probes without an answer in a row that make a node *out*.
    pub fall: u32,
    /// How long the very first election waits for nodes that have not been seen yet.
    pub first_round: Duration,
    /// How long optional moves wait while the nodes' views differ.
    pub view_change: Duration,
    /// How long a writer stays while it is a donor or catches up.
    pub donor_grace: Duration,
    /// When doubt is probed again.
    pub quick: Duration,
    /// Share of `max_connections` in use that makes a node saturated.
    pub saturated_at: f64,
    /// Share below which it is no longer.
    pub saturated_until: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            kind: Kind::Galera,
            donor: Donor::LastResort,
            max_lag: None,
            fail_back: None,
            many_writers: false,
            fall: 3,
            first_round: Duration::from_secs(2),
            view_change: Duration::from_secs(3),
            donor_grace: Duration::from_secs(5),
            quick: Duration::from_millis(250),
            saturated_at: 0.95,
            saturated_until: 0.90,
        }
    }
}

/// A node as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name, by which the incumbent is remembered over restarts.
    pub name: String,
    /// The lower, the sooner it becomes the writer; negative: never.
    pub priority: i32,
}
