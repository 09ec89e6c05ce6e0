//! Passwords: where they come from, and a type that does not print them.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::value::Fault;

/// More bytes of a file are no password: a wrong path may name a device that never ends.
const LONGEST: u64 = 64 * 1024;

/// A password. It has no `Display`, and `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where secrets are read from: the system, or a test's own.
pub trait SecretSource {
    /// The content of a file. Errors: as reading it gives them.
    fn file(&self, path: &Path) -> io::Result<String>;
    /// The value of an environment variable, if it is set and is text.
    fn variable(&self, name: &str) -> Option<String>;
    /// The permission bits of a file, where it has any.
    fn mode(&self, _path: &Path) -> Option<u32> {
        None
    }
}

/// Permission bits that let everybody on the machine read or replace a file (`S_IROTH`, `S_IWOTH`).
const EVERYBODY: u32 = 0o006;

/// What is to be said of a secret's file that is not kept: the password is good all the same, and refusing it would
/// stop the agent for what `chmod` mends.
pub(super) fn exposed(path: &Path, secrets: &dyn SecretSource) -> Option<Fault> {
    let mode = secrets.mode(path).filter(|mode| mode & EVERYBODY != 0)?;
    let path = path.display().to_string();
    let path = path.escape_debug();
    let wrong = format!("`{path}` is open to everybody on this machine (mode {:04o})", mode & 0o7777);
    Some(Fault::new(wrong, format!("close it: chmod 600 {path}")))
}

/// Files and environment of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemSecrets {
    /// Relative paths begin here: the folder of the configuration file.
    pub folder: PathBuf,
}

impl SecretSource for SystemSecrets {
    fn file(&self, path: &Path) -> io::Result<String> {
        let mut text = String::new();
        fs::File::open(self.folder.join(path))?.take(LONGEST).read_to_string(&mut text)?;
        Ok(text)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        let metadata = fs::metadata(self.folder.join(path)).ok()?;
        metadata.is_file().then(|| metadata.permissions().mode())
    }
}
