//! What an operator is told about a bad file: every error with its place, what is wrong and what would be right.

use std::fmt;
use std::io;

/// A place in the file; both numbers begin at 1, columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// One error of a configuration file, or what is only to be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named by whoever asked for it.
    pub file: String,
    /// Where in the file; `None` if the file could not be read.
    pub place: Option<Place>,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub right: String,
}

impl ConfigError {
    /// The file, or the folder of files, cannot be read at all.
    pub(super) fn unreadable(file: &str, error: &io::Error) -> Self {
        let right = match error.kind() {
            io::ErrorKind::NotFound => "write one there, or name another with --config",
            io::ErrorKind::PermissionDenied => "run as a user who may read it",
            _ => "name a readable file with --config",
        };
        let wrong = format!("the file cannot be read ({error})");
        Self { file: file.to_owned(), place: None, wrong, right: right.to_owned() }
    }

    /// Where, and the text, without the word that says how bad it is.
    pub fn text(&self) -> String {
        let place = self.place.map(|Place { line, column }| format!(":{line}:{column}")).unwrap_or_default();
        format!("{}{place}: {}; {}", self.file, self.wrong, self.right)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": error: {}; {}", self.wrong, self.right)
    }
}

/// All errors of a configuration's files in the order of their places; never empty. Prints one line per error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// The errors must not be empty: a `ConfigErrors` is the proof that something is wrong.
    pub(super) fn new(errors: Vec<ConfigError>) -> Self {
        debug_assert!(!errors.is_empty(), "no errors, no ConfigErrors");
        Self { errors }
    }

    /// The errors, in the order of their places.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.errors.iter()
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}
