//! Which nodes take the connections of readers, and of those who write anywhere, and how many of them.
//!
//! The order of last resorts: synced, desynced by hand (or behind), donor by policy, joined. Only nodes of one such
//! tier serve at a time. A saturated node keeps its tier, so that the flood which filled it is not poured onto the
//! next one: it takes no new connections while another of its tier does, and otherwise the limit that the data path
//! keeps exactly is enough.

use super::{Cluster, Donor, NodeStatus, Readiness, Reason, WriterReads};

/// What a node's weight falls to at least; 0 is for those that take nothing.
const FLOOR: f64 = 0.02;
/// Weights change in steps of this, so that each sample is no reason to publish.
const STEP: f64 = 0.05;
/// The receive queue's part of its limit from which on the weight falls, down to [`FLOOR`] at 1.
const QUEUE: f64 = 0.25;
/// A queue that was full counts as full until it is shorter than this.
pub(super) const QUEUE_SHORT: f64 = 0.5;
/// The part of `max_connections` in use from which on the weight falls, down to [`FLOOR`] where it is saturated.
const CONNECTIONS: f64 = 0.85;

/// How good a node is for new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Synced,
    Behind,
    Donor,
    Joined,
}

impl Cluster {
    /// The part of its weight that each node has as a reader, 0 to 1.
    pub fn readers(&self, writer: WriterReads) -> Vec<f64> {
        let tiers: Vec<Option<Tier>> = self.nodes.iter().map(|node| self.tier(node)).collect();
        let is_writer = |index: usize| self.writer == Some(index);
        let best = |with_writer: bool| {
            let all = tiers.iter().enumerate().filter(|(index, _)| with_writer || !is_writer(*index));
            all.filter_map(|(_, tier)| *tier).min()
        };
        let with_writer = match writer {
            WriterReads::Always => true,
            WriterReads::LastResort => best(false) != Some(Tier::Synced),
            WriterReads::Never => false,
        };
        let best = best(with_writer);
        self.shares(|index| best.is_some() && tiers[index] == best && (with_writer || !is_writer(index)))
    }

    /// The part of its weight that each node has for connections that may write, whichever node they reach.
    pub fn writers(&self) -> Vec<f64> {
        let may_write = |status: &NodeStatus| {
            status.node.priority >= 0
                && status.verdict.readiness != Readiness::Reader
                && status.verdict.reason != Reason::SaturatedReader
        };
        let tier =
            |status: &NodeStatus| self.tier(status).filter(|tier| *tier != Tier::Joined && may_write(status));
        let tiers: Vec<Option<Tier>> = self.nodes.iter().map(tier).collect();
        let best = tiers.iter().flatten().min().copied();
        self.shares(|index| best.is_some() && tiers[index] == best)
    }

    fn tier(&self, status: &NodeStatus) -> Option<Tier> {
        match (status.verdict.readiness, &status.verdict.reason) {
            (Readiness::Writer | Readiness::Reader, _) => Some(Tier::Synced),
            (Readiness::NoNew, Reason::Saturated | Reason::SaturatedReader) => {
                status.proven.then_some(Tier::Synced)
            }
            (Readiness::NoNew, Reason::DesyncedByHand | Reason::Lags(_) | Reason::ReplicationStopped) => {
                Some(Tier::Behind)
            }
            (Readiness::NoNew, Reason::Donor) if self.policy.donor == Donor::LastResort => Some(Tier::Donor),
            (Readiness::NoNew, Reason::Joined) => Some(Tier::Joined),
            (Readiness::Unknown, _) => status.served.then_some(Tier::Synced),
            _ => None,
        }
    }

    /// Shares of the nodes in a set. Who is saturated or suspected takes nothing while anybody in the set is neither.
    fn shares(&self, within: impl Fn(usize) -> bool) -> Vec<f64> {
        let set: Vec<usize> = (0..self.nodes.len()).filter(|index| within(*index)).collect();
        let those = |set: &[usize], good: &dyn Fn(&NodeStatus) -> bool| {
            let good: Vec<usize> = set.iter().copied().filter(|index| good(&self.nodes[*index])).collect();
            if good.is_empty() { set.to_vec() } else { good }
        };
        let open = those(&set, &|node| !node.is_saturated());
        let sure = those(&open, &|node| !node.suspect);
        let alone = set.len() == 1;
        let mut shares = vec![0.0; self.nodes.len()];
        for index in sure {
            shares[index] = if alone {
                1.0
            } else if self.flow.culprit == Some(index) {
                FLOOR
            } else {
                in_steps(self.nodes[index].room(self.policy.saturated_at))
            };
        }
        shares
    }
}

impl NodeStatus {
    fn is_saturated(&self) -> bool {
        matches!(self.verdict.reason, Reason::Saturated | Reason::SaturatedReader)
    }

    /// What receive queue and connections leave of the weight.
    fn room(&self, saturated_at: f64) -> f64 {
        let fall = |value: f64, from: f64, to: f64| 1.0 - ((value - from) / (to - from)).clamp(0.0, 1.0);
        let queue = match self.queue {
            _ if self.queue_full => 0.0,
            Some(filled) => fall(filled, QUEUE, 1.0),
            None => 1.0,
        };
        let connections = self.used.map_or(1.0, |used| fall(used, CONNECTIONS, saturated_at));
        queue * connections
    }
}

fn in_steps(share: f64) -> f64 {
    ((share / STEP).round() * STEP).clamp(FLOOR, 1.0)
}
