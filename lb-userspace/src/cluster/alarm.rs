//! What an operator has to be told, as long as it lasts.

use std::fmt;

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
                write!(f, "{node} does not say how far behind it is: {text}")
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
