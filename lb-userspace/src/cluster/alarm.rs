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
    /// The monitor user may not log in.
    MonitorDenied {
        /// The node.
        node: String,
        /// What the server said.
        text: String,
    },
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignCluster { node } => {
                write!(
                    f,
                    "{node} belongs to another cluster (its wsrep_cluster_state_uuid differs): not used"
                )
            }
            Self::SplitBrain => f.write_str(
                "split brain: two groups of nodes call themselves Primary and neither knows the other; \
                 the writer stays in the group it is in",
            ),
            Self::NobodyPrimary { node, last_committed } => {
                write!(f, "no node is Primary. {node} has the highest wsrep_last_committed")?;
                if let Some(committed) = last_committed {
                    write!(f, " ({committed})")?;
                }
                f.write_str(
                    " of those that answer: SET GLOBAL wsrep_provider_options='pc.bootstrap=YES' there makes it \
                     the cluster. Do not type it while any other node may still be Primary or may hold later \
                     transactions: that makes two clusters of one",
                )
            }
            Self::MonitorDenied { node, text } => write!(
                f,
                "{node} refuses the monitor user ({text}): nothing is known of it. \
                 CREATE USER '<user>'@'<address of this balancer>' IDENTIFIED BY '<password>'; needs no grants"
            ),
        }
    }
}
