//! `lb init`: a first configuration for this machine.
//!
//! [`survey`] asks the kernel by which interfaces and from which addresses the servers are reached, [`text`] writes that
//! down with comments, and the result goes through the door of every configuration before anybody sees it. Files are
//! made, never replaced.

mod error;
mod password;
mod plan;
mod survey;
#[cfg(test)]
mod tests;
mod text;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

pub use error::InitError;

use crate::cli::{DEFAULT_CONFIG, Init};
use crate::config::{self, SecretSource};
use crate::netlink::Netlink;
use password::Password;

/// The password's file beside the configuration.
const PASSWORD_FILE: &str = "db.pw";

/// What has been done.
#[derive(Debug, PartialEq, Eq)]
pub struct Done {
    /// The configuration, where no file was asked for.
    pub text: Option<String>,
    /// What was written, and what is left to do, for people.
    pub left: String,
}

/// Writes a configuration as `wanted`.
///
/// Errors: a server cannot be reached by way of an Ethernet interface, no address can be found, a file is there already
/// or cannot be made.
pub async fn init(wanted: &Init) -> Result<Done, InitError> {
    if let Some(path) = wanted.output.as_ref().filter(|path| path.symlink_metadata().is_ok()) {
        return Err(InitError::Exists { path: path.clone() });
    }
    let netlink = Netlink::open()?;
    let plan = survey::survey(&netlink, wanted).await?;
    let file = wanted.output.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
    let secret = file.parent().unwrap_or(Path::new("")).join(PASSWORD_FILE);
    let text = text::file(&plan, &secret);
    proved(&text)?;
    let password = match (plan.nodes.is_empty(), &wanted.output) {
        (true, _) => None,
        (false, None) => Some(Password::generated()),
        (false, Some(_)) => Some(password::kept(&secret)?),
    };
    if let Some(path) = &wanted.output {
        written(path, &text, 0o644)?;
    }
    let left =
        text::left(&plan, &file, wanted.output.is_some(), password.as_ref().map(|made| (made, &*secret)));
    Ok(Done { text: wanted.output.is_none().then_some(text), left })
}

/// A file that the agent would refuse is a defect of this module, and is not given to anybody.
fn proved(text: &str) -> Result<(), InitError> {
    struct Any;
    impl SecretSource for Any {
        fn file(&self, _: &Path) -> io::Result<String> {
            Ok("-".to_owned())
        }

        fn variable(&self, _: &str) -> Option<String> {
            None
        }
    }
    config::parse(text, "lb.toml", &Any).map(drop).map_err(|errors| InitError::Refused { errors })
}

/// Makes a file that is not there yet, with its folder.
fn written(path: &Path, text: &str, mode: u32) -> Result<(), InitError> {
    let failed = |source| InitError::Io { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = made.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => InitError::Exists { path: path.to_owned() },
        _ => failed(source),
    })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}
