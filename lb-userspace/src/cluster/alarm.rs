//! What an operator has to be told, as long as it lasts.

use std::fmt;

use super::election::Cluster;
use super::flow::Level;
use super::node::LastCommitted;
use super::view::Comparison;
use super::{Event, Kind, NodeStatus, Outcome, Readiness, Reason};
use crate::health::Moment;

/// A condition that needs a person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// A node belongs to another cluster.
    ForeignCluster {
        /// The node.
        node: String,
    },
    /// Two Primary components of one cluster: the writer stays where it is.
    SplitBrain,
    /// No node that answers is Primary.
    NobodyPrimary {
        /// The node to bootstrap from: the one with the highest `wsrep_last_committed`.
        node: String,
        /// That value.
        last_committed: Option<u64>,
    },
    /// The monitor cannot ask a node.
    MonitorDenied {
        /// The node.
        node: String,
        /// Why, and what to do about it.
        text: String,
    },
    /// The monitor may not ask about replication.
    NotGranted {
        /// The node.
        node: String,
        /// What to type.
        text: String,
    },
    /// More than one server without Galera could be written to.
    SeveralWritable {
        /// The servers.
        nodes: Vec<String>,
    },
    /// There is no writer, and none may be elected.
    Frozen,
    /// The cluster waits for its slowest node.
    FlowControl {
        /// More than half of the time, not only more than a tenth.
        severe: bool,
        /// The node that asks for most of it.
        culprit: Option<String>,
    },
    /// Transactions of a node have lost against another node's, though only one should write.
    Conflicts {
        /// The node.
        node: String,
    },
}

impl Alarm {
    /// Whether it is worth knowing and no more.
    pub fn is_warning(&self) -> bool {
        matches!(self, Self::FlowControl { severe: false, .. } | Self::Conflicts { .. })
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignCluster { node } => write!(
                f,
                "{node} belongs to another cluster (its wsrep_cluster_state_uuid differs): not used; \
                 `lb galera accept CLUSTER {node}` takes that one for the cluster"
            ),
            Self::SplitBrain => f.write_str(
                "split brain: two groups of nodes call themselves Primary and neither knows the other; \
                 the writer stays in the group it is in; `lb galera accept CLUSTER NODE` takes the group of that \
                 node for the cluster",
            ),
            Self::NobodyPrimary { node, last_committed } => nobody_primary(f, node, *last_committed),
            Self::MonitorDenied { node, text } => {
                write!(f, "{node} cannot be asked, so what was last known of it stands: {text}")
            }
            Self::NotGranted { node, text } => {
                write!(f, "{node} does not say whether and how far behind it replicates: {text}")
            }
            Self::SeveralWritable { nodes } => write!(
                f,
                "{} could all be written to; the writer stays; `SET GLOBAL read_only=ON` belongs on the others",
                nodes.join(", ")
            ),
            Self::Frozen => f.write_str(
                "there is no writer, and the cluster is frozen: `lb galera freeze CLUSTER --off` lets another node \
                 be elected, `lb galera switch CLUSTER NODE` names one",
            ),
            Self::FlowControl { severe, culprit } => {
                let part = if *severe { "half" } else { "a tenth" };
                write!(f, "flow control: writes wait for a slow node more than {part} of the time")?;
                culprit.as_ref().map_or(Ok(()), |node| write!(f, "; {node} asks for most of it"))
            }
            Self::Conflicts { node } => write!(
                f,
                "transactions on {node} have lost against another node's (certification failures, brute-force \
                 aborts): does anybody write past the balancer?"
            ),
        }
    }
}

fn nobody_primary(f: &mut fmt::Formatter<'_>, node: &str, last_committed: Option<u64>) -> fmt::Result {
    write!(f, "no node is Primary. {node} has the highest wsrep_last_committed")?;
    if let Some(committed) = last_committed {
        write!(f, " ({committed})")?;
    }
    f.write_str(
        " of those that answer: SET GLOBAL wsrep_provider_options='pc.bootstrap=YES' there makes it the cluster. Do \
         not type it while any other node may still be Primary or may hold later transactions: that makes two \
         clusters of one",
    )
}

impl Cluster {
    pub(super) fn raise_alarms(&mut self, comparison: &Comparison, now: Moment, outcome: &mut Outcome) {
        let mut alarms = Vec::new();
        for status in &self.nodes {
            let node = status.name().to_owned();
            if let Some(text) = &status.denied {
                alarms.push(Alarm::MonitorDenied { node: node.clone(), text: text.clone() });
            }
            if let Some(text) = &status.not_granted {
                alarms.push(Alarm::NotGranted { node: node.clone(), text: text.clone() });
            }
            if !self.policy.many_writers && status.conflicts(now) > 0 {
                alarms.push(Alarm::Conflicts { node: node.clone() });
            }
            if status.verdict.reason == Reason::Foreign {
                alarms.push(Alarm::ForeignCluster { node });
            }
        }
        if self.split_is_confirmed(comparison) {
            alarms.push(Alarm::SplitBrain);
        }
        alarms.extend(self.nobody_is_primary());
        alarms.extend(self.several_are_writable());
        if self.frozen && self.writer.is_none() {
            alarms.push(Alarm::Frozen);
        }
        if self.flow.level > Level::None {
            let culprit = self.flow.culprit.map(|node| self.nodes[node].name().to_owned());
            alarms.push(Alarm::FlowControl { severe: self.flow.level == Level::Alarm, culprit });
        }
        let raised = alarms.iter().filter(|alarm| !self.alarms.contains(alarm)).cloned();
        outcome.events.extend(raised.map(Event::AlarmRaised));
        let cleared = self.alarms.iter().filter(|alarm| !alarms.contains(alarm)).cloned();
        outcome.events.extend(cleared.map(Event::AlarmCleared));
        self.alarms = alarms;
    }

    /// A split counts once every node in it has been heard again since it was first seen.
    pub(super) fn split_is_confirmed(&self, comparison: &Comparison) -> bool {
        let Some(since) = self.split_since else { return false };
        let again = |node: &NodeStatus| node.last.is_some_and(|last| last > since);
        self.nodes
            .iter()
            .zip(&comparison.component)
            .all(|(node, component)| component.is_none() || again(node))
    }

    fn nobody_is_primary(&self) -> Option<Alarm> {
        if !self.settled || self.nodes.iter().any(|node| node.view.is_some()) {
            return None;
        }
        let committed =
            |node: &NodeStatus| node.non_primary.map(|committed| (committed, node.name().to_owned()));
        // The first of the highest: `max_by_key` would return the last.
        let highest = self.nodes.iter().rev().filter_map(committed).max_by_key(|(committed, _)| *committed);
        highest.map(|(LastCommitted(last_committed), node)| Alarm::NobodyPrimary { node, last_committed })
    }

    /// Without Galera nothing keeps two writers apart but the rest of this list being `read_only`.
    fn several_are_writable(&self) -> Option<Alarm> {
        let writable = |node: &&NodeStatus| {
            node.verdict.readiness == Readiness::Writer
                || node.verdict.reason == Reason::Saturated && node.proven
        };
        let nodes: Vec<String> =
            self.nodes.iter().filter(writable).map(|node| node.name().to_owned()).collect();
        (self.policy.kind == Kind::Mysql && nodes.len() > 1).then_some(Alarm::SeveralWritable { nodes })
    }
}
