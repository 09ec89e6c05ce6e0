//! The monitor's password.

use std::fs;
use std::io;
use std::path::Path;

use rand::Rng as _;
use rand::distr::Alphanumeric;

use super::{InitError, written};

/// Letters and digits: 142 bits, and nothing that SQL or a shell would want quoted.
const LENGTH: usize = 24;

/// A password that is to be shown once, in the line that makes the monitor's account.
pub(super) struct Password {
    text: String,
    /// Whether it was made just now.
    pub(super) is_new: bool,
}

impl Password {
    /// A new one.
    pub(super) fn generated() -> Self {
        let text = rand::rng().sample_iter(Alphanumeric).take(LENGTH).map(char::from).collect();
        Self { text, is_new: true }
    }

    /// The password itself.
    pub(super) fn expose(&self) -> &str {
        &self.text
    }

    /// As SQL takes it between single quotes: an administrator's own password may hold anything.
    pub(super) fn quoted(&self) -> String {
        format!("'{}'", self.text.replace('\\', "\\\\").replace('\'', "''"))
    }
}

/// The password of the file at `path`, which is made with a new one, readable to its owner only, if it is not there.
pub(super) fn kept(path: &Path) -> Result<Password, InitError> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let text = text.trim_end_matches(['\r', '\n']).to_owned();
            if text.is_empty() || text.contains(['\r', '\n', '\0']) {
                return Err(InitError::NoPassword { path: path.to_owned() });
            }
            Ok(Password { text, is_new: false })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let password = Password::generated();
            written(path, &format!("{}\n", password.text), 0o600)?;
            Ok(password)
        }
        Err(source) => Err(InitError::Io { path: path.to_owned(), source }),
    }
}
