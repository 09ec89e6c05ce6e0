//! The configuration: one TOML file and those beside it in `conf.d`, typed at the door.
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
mod files;
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

use std::path::Path;

pub use error::{ConfigError, ConfigErrors, Place};
pub use files::files;
pub(crate) use fit::server as fits;
pub use model::{
    AgentLost, Algorithm, Backend, Check, CheckKind, Cluster, ClusterKind, Config, DatabaseTls, DonorPolicy,
    HttpCheck, Load, LoadKind, Login, Mode, Monitor, NoBackend, Node, OnOut, RateLimit, Role, Service,
    SourcePorts, StatusRange, Target, Timeouts, TlsMode, Track, WriterReads, XdpMode,
};
pub use pattern::Pattern;
pub use secret::{Secret, SecretSource, SystemSecrets};
pub use value::{Fault, FpmScheme, FpmUrl, parse_duration, parse_name, spell};

/// Reads the file at `path`, those of the folder `conf.d` beside it, and the secrets that they name; what is only to be
/// said goes to the log.
///
/// Errors: as [`load_with_notes`].
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let (config, notes) = load_with_notes(path)?;
    for note in &notes {
        log::warn!("{}", note.text());
    }
    Ok(config)
}

/// The same, with what is only to be said: secrets that are open to everybody.
///
/// Errors: files cannot be read, or are no TOML (what the first such thing of each file is; nothing else has been looked
/// at then), or mean something impossible (all of it). None of them quotes a secret.
pub fn load_with_notes(path: &Path) -> Result<(Config, Vec<ConfigError>), ConfigErrors> {
    let unlisted = |error| {
        let folder = path.parent().unwrap_or(Path::new("")).join(files::FOLDER).display().to_string();
        ConfigErrors::new(vec![ConfigError::unreadable(&folder, &error)])
    };
    let texts = files::read(&files(path).map_err(unlisted)?)?;
    let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(origin, text)| (&**origin, &**text)).collect();
    parse_all(&texts, &SystemSecrets { folder })
}

/// Reads a configuration from one `text`. `origin` is what errors call the file.
///
/// Errors: as [`load_with_notes`].
pub fn parse(text: &str, origin: &str, secrets: &dyn SecretSource) -> Result<Config, ConfigErrors> {
    parse_all(&[(origin, text)], secrets).map(|(config, _)| config)
}

/// Reads a configuration from files, each with what errors call it; the first is the main one.
///
/// Errors: as [`load_with_notes`].
pub fn parse_all(
    texts: &[(&str, &str)],
    secrets: &dyn SecretSource,
) -> Result<(Config, Vec<ConfigError>), ConfigErrors> {
    let mut tables = Vec::new();
    let mut errors = Vec::new();
    for (origin, text) in texts {
        match toml::de::DeTable::parse(text) {
            Ok(table) => tables.push(table),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                let wrong = format!("this is not TOML: {}", error.message());
                let right = "mend this first; what follows has not been read";
                errors.push(report::error(origin, text, at, Fault::new(wrong, right)));
            }
        }
    }
    if !errors.is_empty() {
        return Err(ConfigErrors::new(errors));
    }
    let files = report::Files::new(texts.iter().copied());
    let documents: Vec<root::Document<'_>> =
        tables.iter().enumerate().map(|(number, table)| (files.report(number), table.get_ref())).collect();
    let Some((main, beside)) = documents.split_first() else { return Err(ConfigErrors::new(Vec::new())) };
    files.finish(root::read(main, beside, secrets))
}
