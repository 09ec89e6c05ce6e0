//! The lab's directory, and the removal of what a killed process left there.
//!
//! A process that ends by SIGKILL runs no destructor, so its directory stays. Each directory therefore
//! holds a file that its owner keeps locked: the kernel releases the lock with the process, and the next
//! lab removes every directory whose lock it gets.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::error::{Context, Result};

/// Short, because the path of a Unix socket has room for 107 bytes.
const PARENT: &str = "/tmp";
const PREFIX: &str = "lb-lab.";
const OWNER: &str = "owner";

/// A directory that is removed when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    _owner: File,
}

impl Scratch {
    /// Makes and locks the directory. Other users may enter it: the servers run as `mysql` and `www-data`.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(PARENT)
            .context(|| format!("cannot make a directory in {PARENT}"))?;
        let path = directory.path();
        let lock = || -> std::io::Result<File> {
            fs::set_permissions(path, Permissions::from_mode(0o755))?;
            // The file appears under its name only when it is locked, so nobody sees it unlocked before.
            let unnamed = path.join("owner.new");
            let owner = File::create(&unnamed)?;
            owner.lock()?;
            fs::rename(unnamed, path.join(OWNER))?;
            Ok(owner)
        };
        let owner = lock().context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { directory, _owner: owner })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes the directories of labs whose process has ended. What cannot be removed is somebody else's.
pub fn remove_stale() {
    let Ok(entries) = fs::read_dir(PARENT) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_abandoned(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_abandoned(directory: &Path) -> bool {
    File::open(directory.join(OWNER)).is_ok_and(|owner| owner.try_lock().is_ok())
}
