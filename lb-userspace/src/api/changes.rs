//! What a configuration changes in what runs: the answer to `POST /reload` and `POST /diff`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A reload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    /// After how many milliseconds the connections of what this reload removes are cut; without it they may take for
    /// ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// The file to compare what runs with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diff {
    /// Its whole path, as the agent sees it.
    pub path: String,
}

/// What a file changes, or would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Each change.
    pub changes: Vec<Change>,
    /// Why the file would be refused as a whole, a sentence each.
    #[serde(default)]
    pub refused: Vec<String>,
}

/// What becomes of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// It stays, with another setting.
    Changed,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What becomes of it.
    pub kind: ChangeKind,
    /// A service or cluster, `SERVICE/BACKEND` or `CLUSTER/NODE`.
    pub name: String,
    /// For people.
    pub text: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, text } = self;
        match kind {
            ChangeKind::Added => write!(f, "{name}: added: {text}"),
            ChangeKind::Removed => write!(f, "{name}: removed: {text}"),
            ChangeKind::Changed => write!(f, "{name}: {text}"),
        }
    }
}

impl fmt::Display for Changes {
    /// A line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() && self.refused.is_empty() {
            return writeln!(f, "nothing changes");
        }
        self.changes.iter().try_for_each(|change| writeln!(f, "{change}"))?;
        self.refused.iter().try_for_each(|refused| writeln!(f, "refused: {refused}"))
    }
}
