//! What an operator orders of a database cluster.

use serde::{Deserialize, Serialize};

/// The writer role, handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// The cluster.
    pub cluster: String,
    /// Who gets it; `None`: the best other node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// The writer role, frozen or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// The cluster.
    pub cluster: String,
    /// Whether it stays where it is.
    pub frozen: bool,
}

/// A group of nodes, taken for the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// The cluster.
    pub cluster: String,
    /// One node of the group.
    pub node: String,
}
