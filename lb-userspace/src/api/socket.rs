//! The socket's file: one agent owns it, whatever an earlier one left behind.
//!
//! A lock on a file beside the socket decides between two agents that start at the same moment; the kernel
//! drops it when the agent dies, however it dies. The new socket is made under another name, given its mode,
//! and renamed into place, so that it is never there with a wider one.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use nix::unistd::Group;
use tokio::net::UnixListener;

use super::ApiError;

/// Owner and group may speak to the agent.
const SOCKET_MODE: u32 = 0o660;
const FOLDER_MODE: u32 = 0o755;

/// The agent's claim to a socket's path; dropping it takes the socket and the lock away.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl Socket {
    /// Claims the path, replaces a socket on which nobody answers, and listens.
    ///
    /// Needs a tokio runtime. `instance` only serves the error if another agent is running.
    pub fn bind(path: &Path, instance: &str) -> Result<(Self, UnixListener), ApiError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.exists()) {
            let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
            made.map_err(failed("create", folder))?;
            // Whatever the umask took away.
            fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE))
                .map_err(failed("set the mode of", folder))?;
        }
        let another = || ApiError::AnotherAgent { instance: instance.to_owned(), socket: path.to_owned() };
        let lock_path = beside(path, ".lock");
        let lock = lock(&lock_path)?.ok_or_else(another)?;
        // From here on a failure drops the claim, and with it the lock's file.
        let socket = Self { path: path.to_owned(), lock_path, _lock: lock };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                socket.keep_path();
                return Err(ApiError::NotASocket { path: path.to_owned() });
            }
            // An agent whose lock was deleted still answers.
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                socket.keep_path();
                return Err(another());
            }
            Ok(_) | Err(_) => {}
        }
        let fresh = beside(path, ".new");
        let _absent_or_left_by_a_crash = fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(failed("listen on", &fresh))?;
        fs::set_permissions(&fresh, Permissions::from_mode(SOCKET_MODE))
            .map_err(failed("set the mode of", &fresh))?;
        fs::rename(&fresh, path).map_err(failed("put the socket in place at", path))?;
        Ok((socket, listener))
    }

    /// Lets the members of a group speak to the agent, too.
    ///
    /// Errors: there is no such group, or the socket cannot be given to it.
    pub fn share(&self, group: &str) -> Result<(), ApiError> {
        let found = Group::from_name(group)
            .map_err(|errno| failed("look up the group of", &self.path)(io::Error::from(errno)))?;
        let group = found.ok_or_else(|| ApiError::NoGroup { group: group.to_owned() })?;
        chown(&self.path, None, Some(group.gid.as_raw())).map_err(failed("set the group of", &self.path))
    }

    /// Gives the claim up without touching what stands at the path: it is not ours.
    fn keep_path(mut self) {
        self.path.clear();
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The socket goes before the lock, so that a successor never loses its own. Failing here, as on a
        // read-only file system, leaves files that the next agent replaces.
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.path);
        }
        let _ = fs::remove_file(&self.lock_path);
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The lock, or `None` if another process holds it. An agent that ends removes the file, so what was locked
/// may no longer be what the next one will open: then the lock is worth nothing and is taken again.
fn lock(path: &Path) -> Result<Option<File>, ApiError> {
    loop {
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(failed("lock", path)(source)),
        }
        let ours = file.metadata().map_err(failed("read", path))?;
        if fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(Some(file));
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ApiError {
    let path = path.to_owned();
    move |source| ApiError::Io { action, path, source }
}
