//! What must survive a restart and is not in the maps: who writes in each cluster, what the operator wants beside the
//! configuration, and whom discovery has found.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{cuts::Deadline, members::Found};
use crate::{api::Weight, cluster::Incumbent};

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
    /// Backends and nodes that are in maintenance.
    #[serde(default)]
    pub maintenance: BTreeSet<String>,
    /// Weights that the operator has set, by `SERVICE/BACKEND`.
    #[serde(default)]
    pub weights: BTreeMap<String, Weight>,
    /// What each source has told last of each service's backends, by service and source.
    #[serde(default)]
    pub discovered: BTreeMap<String, BTreeMap<String, Vec<Found>>>,
}

/// The file that it is kept in.
#[derive(Clone, Debug)]
pub struct StateFile(PathBuf);

impl StateFile {
    /// The file at `path`; it need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// What it holds; nothing, if it does not exist. One that is broken is put aside, with a word in the log: what it
    /// held is forgotten, but the data path goes on as it is.
    ///
    /// Errors: it cannot be read, or not be put aside.
    pub fn load(&self) -> io::Result<State> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(error) => return Err(error),
        };
        serde_json::from_slice(&bytes).or_else(|broken| {
            let aside = self.0.with_extension("json.broken");
            fs::rename(&self.0, &aside)?;
            log::error!(
                "{} is broken ({broken}) and was put aside as {}: former writers, drains, maintenance and weights set at run time are forgotten",
                self.0.display(),
                aside.display()
            );
            Ok(State::default())
        })
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
        state.maintenance.insert("db/db1".into());
        state.weights.insert("web/web2".into(), Weight::Percent(50));
        let found = Found {
            name: "web-1".into(),
            address: "172.18.0.3:80".parse().unwrap(),
            weight: 100,
            max_connections: None,
        };
        let of_web = state.discovered.entry("web".into()).or_default();
        of_web.insert("docker".into(), vec![found]);
        let at = "2026-03-01T02:13:00Z".parse().unwrap();
        state.deadlines.insert("web/web1".into(), Deadline { at, then: Then::Cut });
        for _ in 0..2 {
            file.store(&state).unwrap();
            assert_eq!(file.load().unwrap(), state);
        }
        assert_eq!(fs::read_dir(folder.path().join("lb")).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_broken_file_is_put_aside_and_what_it_held_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        for broken in ["[1, 2", "", "{\"drained\": 7}"] {
            fs::write(&path, broken).unwrap();
            let file = StateFile::new(&path);
            assert_eq!(file.load().unwrap(), State::default());
            assert!(!path.exists());
            assert_eq!(fs::read_to_string(folder.path().join("state.json.broken")).unwrap(), broken);
        }
    }

    #[test]
    fn a_file_of_an_older_agent_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        fs::write(&path, "{\"drained\": [\"web/web1\"]}").unwrap();
        let state = StateFile::new(path).load().unwrap();
        assert_eq!(state, State { drained: ["web/web1".to_owned()].into(), ..State::default() });
    }
}
