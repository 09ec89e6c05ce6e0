//! The configuration: one TOML file, typed at the door.
//!
//! The text is read as a document in which every key and value knows its place, not through serde:
//! serde stops at the first error, and the operator is owed all of them at once, each with line and column. A value
//! that passes is a type that cannot be wrong (a port that is not zero, a check whose time-out fits its interval),
//! so nothing behind this module checks again. What does not exist yet is refused as unknown, with what is accepted.
//!
//! A file with errors yields no configuration at all: whoever holds an older one keeps it.

mod address;
mod backends;
mod check;
mod cluster;
mod credentials;
mod cross;
mod discover;
mod error;
mod fit;
mod limits;
mod model;
mod pattern;
mod report;
mod root;
mod secret;
mod service;
mod sharing;
mod table;
mod value;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

pub use error::{ConfigError, ConfigErrors, Place};
pub(crate) use fit::server as fits;
pub use model::{
    Algorithm, Backend, Check, CheckKind, Cluster, ClusterKind, Config, DatabaseTls, DonorPolicy, HttpCheck,
    Load, LoadKind, Login, Mode, Monitor, NoBackend, Node, OnOut, RateLimit, Role, Service, SourcePorts,
    StatusRange, Target, Timeouts, TlsMode, Track, WriterReads, XdpMode,
};
pub use pattern::Pattern;
pub use secret::{Secret, SecretSource, SystemSecrets};
pub(crate) use value::spell;
pub use value::{Fault, FpmScheme, FpmUrl, parse_duration, parse_name};

/// Reads the file at `path` and the secrets that it names.
///
/// Errors: the file cannot be read (one error without a place), is no TOML (the first syntax error), or means
/// something impossible (all of it). None of them quotes a secret.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let origin = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| ConfigErrors::unreadable(&origin, &error))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        report::Report::new(&origin, &valid)
            .only(error.valid_up_to(), Fault::new("this is not UTF-8", "save the file as UTF-8 text"))
    })?;
    let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
    parse(text, &origin, &SystemSecrets { folder })
}

/// Reads a configuration from `text`. `origin` is what errors call the file.
///
/// Errors: as [`load`].
pub fn parse(text: &str, origin: &str, secrets: &dyn SecretSource) -> Result<Config, ConfigErrors> {
    let report = report::Report::new(origin, text);
    match toml::de::DeTable::parse(text) {
        Ok(document) => {
            let config = root::read(&report, document.get_ref(), secrets);
            report.finish(config)
        }
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let wrong = format!("this is not TOML: {}", error.message());
            Err(report.only(at, Fault::new(wrong, "mend this first; what follows has not been read")))
        }
    }
}
