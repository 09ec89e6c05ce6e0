//! What must survive a restart and is not in the maps: who writes in each cluster, and what the operator has drained.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::cuts::Deadline;
use crate::cluster::Incumbent;

/// The state of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The last writer of each cluster.
    #[serde(default)]
    pub writers: BTreeMap<String, Incumbent>,
    /// Clusters whose writer does not change by itself.
    #[serde(default)]
    pub frozen: BTreeSet<String>,
    /// Backends and nodes that take no new connections: `SERVICE/BACKEND` or `CLUSTER/NODE`.
    #[serde(default)]
    pub drained: BTreeSet<String>,
    /// When some of these drains give the rest of their connections up.
    #[serde(default)]
    pub deadlines: BTreeMap<String, Deadline>,
}

/// The file that it is kept in.
#[derive(Clone, Debug)]
pub struct StateFile(PathBuf);

impl StateFile {
    /// The file at `path`; it need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// What it holds; nothing, if it does not exist.
    ///
    /// Errors: it cannot be read, or is not ours.
    pub fn load(&self) -> io::Result<State> {
        match fs::read(&self.0) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(error),
        }
    }

    /// Replace what it holds, whole or not at all: a new file beside it, on the disk, then renamed.
    pub fn store(&self, state: &State) -> io::Result<()> {
        let folder = self.0.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let beside = self.0.with_extension("json.new");
        let mut file = fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(state).map_err(io::Error::other)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.0)?;
        fs::File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Then;

    #[test]
    fn what_is_stored_is_loaded_and_nothing_is_there_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("lb/state.json"));
        assert_eq!(file.load().unwrap(), State::default());
        let mut state = State::default();
        state
            .writers
            .insert("db".into(), Incumbent { node: "db2".into(), epoch: 7, serving: true, by_hand: false });
        state.frozen.insert("db".into());
        state.drained.insert("web/web1".into());
        let at = "2026-03-01T02:13:00Z".parse().unwrap();
        state.deadlines.insert("web/web1".into(), Deadline { at, then: Then::Cut });
        for _ in 0..2 {
            file.store(&state).unwrap();
            assert_eq!(file.load().unwrap(), state);
        }
        assert_eq!(fs::read_dir(folder.path().join("lb")).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        fs::write(&path, "[1, 2").unwrap();
        assert!(StateFile::new(path).load().is_err());
    }
}
