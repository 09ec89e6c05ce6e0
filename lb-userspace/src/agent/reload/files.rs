//! Watches the configuration's files, and tells when they have changed and rest.
//!
//! An editor may write a file in pieces, and a deployment several files one after the other. So a change counts when two
//! looks in a row see the same.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::agent::Event;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// A file by name, with what changes when it is written: inode, size, time of the last change in seconds and nanoseconds.
type Trace = (PathBuf, u64, u64, i64, i64);

/// What stands on the disk.
type Look = Vec<Trace>;

/// Tell of changes of the file at `path` and of `conf.d/*.toml` beside it, for as long as events are taken.
pub fn watch(path: PathBuf, events: mpsc::UnboundedSender<Event>) {
    let mut seen = Seen::new(look(&path));
    tokio::spawn(async move {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if seen.changed(look(&path)) && events.send(Event::FilesChanged).is_err() {
                return;
            }
            if events.is_closed() {
                return;
            }
        }
    });
}

fn look(path: &Path) -> Look {
    let beside = path.parent().unwrap_or(Path::new(".")).join("conf.d");
    let mut files: Vec<PathBuf> = fs::read_dir(beside)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files.insert(0, path.to_owned());
    let trace = |file: PathBuf| {
        let found = fs::metadata(&file).ok()?;
        Some((file, found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    files.into_iter().filter_map(trace).collect()
}

/// What was seen.
struct Seen {
    /// What the agent knows of.
    told: Look,
    last: Look,
}

impl Seen {
    fn new(look: Look) -> Self {
        Self { told: look.clone(), last: look }
    }

    /// Whether this look says what the last one said, and something else than the agent knows.
    fn changed(&mut self, look: Look) -> bool {
        let rests = look == self.last;
        let changed = rests && look != self.told;
        if changed {
            self.told.clone_from(&look);
        }
        self.last = look;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_and_when_two_looks_agree() {
        let state = |size: u64| vec![(PathBuf::from("lb.toml"), 1, size, 0, 0)];
        let mut seen = Seen::new(state(1));
        for (look, changed) in [
            (state(1), false),
            (state(2), false),
            (state(3), false),
            (state(3), true),
            (state(3), false),
            (vec![], false),
            (state(4), false),
            (state(4), true),
            // Written and put back between two looks that agree.
            (state(5), false),
            (state(4), false),
            (state(4), false),
            (vec![], false),
            (vec![], true),
        ] {
            assert_eq!(seen.changed(look.clone()), changed, "{look:?}");
        }
    }

    #[test]
    fn files_beside_it_count_if_they_are_toml() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb.toml");
        assert_eq!(look(&path), []);
        fs::write(&path, "").unwrap();
        fs::create_dir(folder.path().join("conf.d")).unwrap();
        for name in ["b.toml", "a.toml", "c.toml~", "README"] {
            fs::write(folder.path().join("conf.d").join(name), "x").unwrap();
        }
        let names: Vec<String> = look(&path)
            .into_iter()
            .map(|(file, ..)| file.strip_prefix(folder.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["lb.toml", "conf.d/a.toml", "conf.d/b.toml"]);
    }
}
