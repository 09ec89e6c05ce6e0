//! The files that a configuration consists of.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::{ConfigError, ConfigErrors, Place};
use super::report;
use super::value::Fault;

/// Far more than a file of the greatest configuration has: 4,095 backends with long names are half a megabyte.
const LONGEST: u64 = 4 * 1024 * 1024;

/// The folder beside the main file whose `*.toml` belong to it.
pub(super) const FOLDER: &str = "conf.d";

/// The files that the configuration of `path` consists of: that file, then `conf.d/*.toml` beside it by their names.
/// Hidden files are none.
///
/// Errors: the folder is there and cannot be listed.
pub fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = path.parent().unwrap_or(Path::new("")).join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![path.to_path_buf()]),
        Err(error) => return Err(error),
    };
    let mut more = Vec::new();
    for entry in entries {
        let file = entry?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && file.extension().is_some_and(|extension| extension == "toml") {
            more.push(file);
        }
    }
    more.sort();
    Ok([vec![path.to_path_buf()], more].concat())
}

/// The texts of all these files with what errors call them.
///
/// Errors: all files that cannot be read.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<(String, String)>, ConfigErrors> {
    let mut texts = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        let origin = path.display().to_string();
        match text(path, &origin) {
            Ok(text) => texts.push((origin, text)),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(texts) } else { Err(ConfigErrors::new(errors)) }
}

fn text(path: &Path, origin: &str) -> Result<String, ConfigError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
    read.map_err(|error| ConfigError::unreadable(origin, &error))?;
    if bytes.len() as u64 > LONGEST {
        let wrong = format!("this is longer than {} MiB", LONGEST >> 20);
        let (place, right) = (Some(Place { line: 1, column: 1 }), "name a configuration".to_owned());
        return Err(ConfigError { file: origin.to_owned(), place, wrong, right });
    }
    String::from_utf8(bytes).map_err(|error| {
        let end = error.utf8_error().valid_up_to();
        let valid = String::from_utf8_lossy(&error.as_bytes()[..end]);
        report::error(origin, &valid, end, Fault::new("this is not UTF-8", "save the file as UTF-8 text"))
    })
}
