//! What can go wrong while a lab is built or used.

use std::io;
use std::time::Duration;

/// The lab's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with enough context to be understood from a test's output alone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A program ended with something else than success.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status, in words.
        status: String,
        /// What it wrote to its standard error.
        stderr: String,
    },
    /// A condition did not come true.
    #[error("waited {} ms in vain for {what}", waited.as_millis())]
    Timeout {
        /// The condition.
        what: String,
        /// How long was waited.
        waited: Duration,
    },
    /// A program that a lab needs is not installed.
    #[error("{program} is not installed; `cargo xtask setup` installs it")]
    Missing {
        /// The program or library.
        program: String,
    },
    /// A server ended while it was expected to come up.
    #[error("{server} ended while it started; the end of its log:\n{log}")]
    Died {
        /// Which server.
        server: String,
        /// The last lines of its log.
        log: String,
    },
    /// A program's output was not what its documentation promises.
    #[error("cannot read {what} in: {text}")]
    Unreadable {
        /// What was looked for.
        what: String,
        /// Where it was not found.
        text: String,
    },
}

/// Adds the context that an [`io::Error`] lacks.
pub(crate) trait Context<T> {
    /// Names what was attempted.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Io { what: what(), source: error.into() })
    }
}
