//! Passwords: where they come from, and a type that does not print them.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
}

/// Files and environment of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemSecrets {
    /// Relative paths begin here: the folder of the configuration file.
    pub folder: PathBuf,
}

impl SecretSource for SystemSecrets {
    fn file(&self, path: &Path) -> io::Result<String> {
        fs::read_to_string(self.folder.join(path))
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}
