//! Tests of the whole door: text in, the typed configuration or the exact messages out.

mod accepted;
mod clusters;
mod documented;
mod files;
mod garbage;
mod refused;

use std::io;
use std::path::Path;

use super::{Config, SecretSource};

/// The certificate of an authority that nobody knows.
const CA: &str = include_str!("ca.pem");

/// Secrets that stand in memory: the boundary that `parse` leaves to its caller.
struct Safe;

impl SecretSource for Safe {
    fn file(&self, path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("db.pw" | "/etc/lb/db.pw") => Ok("hunter2\n".to_owned()),
            Some("ca.pem") => Ok(CA.to_owned()),
            Some("empty.pw") => Ok("\n".to_owned()),
            Some("two-lines.pw") => Ok("hunter2\nhunter3\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "LB_PW").then(|| "hunter2".to_owned())
    }
}

/// The typed configuration of a text that must be right.
fn accepted(text: &str) -> Config {
    super::parse(text, "lb.toml", &Safe).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The messages of a text that must be wrong, one a line, without the file's name.
fn refused(text: &str) -> Vec<String> {
    let errors = super::parse(text, "lb.toml", &Safe).expect_err(text).to_string();
    errors.lines().map(|line| line.strip_prefix("lb.toml:").expect(line).to_owned()).collect()
}
