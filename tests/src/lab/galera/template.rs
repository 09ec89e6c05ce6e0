//! The prepared data directory, built once per version of `MariaDB` and kept as one archive.
//!
//! One file, not a directory: a lab runs as root, and `cargo clean` of an ordinary user can remove a file of
//! root from its own target directory, but no files from a directory of root.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::configuration::DATA_FILES;
use super::node::give_to_mysql;
use super::{GaleraNode, GaleraOptions};
use crate::lab::error::{Context, Error, Result};
use crate::lab::{Lab, skip};

/// Raise it when anything in this file or in `DATA_FILES` changes.
const EDITION: u32 = 1;

const STATEMENTS: &str = "
    CREATE USER sst@localhost IDENTIFIED BY 'sst';
    GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR, REPLICATION CLIENT ON *.* TO sst@localhost;
    CREATE DATABASE t;
    CREATE TABLE t.a (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(64));
    CREATE USER app@'10.77.%' IDENTIFIED BY 'app';
    GRANT ALL ON t.* TO app@'10.77.%';
    CREATE USER mon@'10.77.%' IDENTIFIED BY 'mon';";

/// The archive of a data directory.
#[derive(Debug)]
pub(super) struct Template {
    archive: PathBuf,
}

impl Template {
    /// Puts a copy of the data directory into a node's directory, owned by `mysql`.
    pub(super) fn copy_to(&self, directory: &Path) -> Result<()> {
        tar(&["--extract", "--same-owner", "--preserve-permissions"], &self.archive, directory, &[])
    }
}

/// The template; it is built if this version of the server has none yet, by one process at a time.
pub(super) fn prepared() -> Result<Template> {
    let cache = cache_directory();
    let archive = cache.join(format!("lab-galera-{}-{EDITION}.tar", server_version()?));
    let path = archive.with_extension("lock");
    fs::create_dir_all(&cache).context(|| format!("cannot make {}", cache.display()))?;
    let lock = File::create(&path).context(|| format!("cannot make {}", path.display()))?;
    lock.lock().context(|| format!("cannot lock {}", path.display()))?;
    if !archive.exists() {
        build(&archive)?;
    }
    Ok(Template { archive })
}

/// Cargo's target directory if this program lies in one, else the user's cache.
fn cache_directory() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    // Cargo marks its target directory with this file.
    let target = program.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists());
    if let Some(target) = target {
        return target.to_owned();
    }
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_else(|| PathBuf::from("/var/cache")).join("lb-lab")
}

/// `mariadbd --version` says `mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64`.
fn server_version() -> Result<String> {
    let missing = || Error::Missing { program: "mariadbd".to_owned() };
    let program = skip::find_program("mariadbd").ok_or_else(missing)?;
    let output =
        Command::new(program).arg("--version").output().context(|| "cannot start mariadbd".to_owned())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().skip_while(|word| *word != "Ver").nth(1).map(str::to_owned);
    version.ok_or(Error::Unreadable { what: "the version of mariadbd".to_owned(), text })
}

/// Installs a data directory, starts a cluster of one on it for the users and the table, and packs it with a
/// `grastate.dat` that names the cluster and the position: what makes the copies members without transfer.
fn build(archive: &Path) -> Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("template", std::net::Ipv4Addr::new(10, 77, 0, 1))?;
    let node = GaleraNode::configured(&host, &[], &GaleraOptions::default())?;
    let data = node.directory().join("data");
    fs::create_dir(&data).context(|| format!("cannot make {}", data.display()))?;
    give_to_mysql(&data)?;
    host.command("mariadb-install-db")
        .args(["--no-defaults", "--user=mysql", "--auth-root-authentication-method=normal"])
        .args(["--skip-test-db", "--skip-name-resolve"])
        .arg(format!("--datadir={}", data.display()))
        .args(DATA_FILES.iter().map(|setting| format!("--{setting}")))
        .limit(Duration::from_mins(2))
        .run()?;
    node.bootstrap()?;
    node.sql(STATEMENTS)?;
    node.stop()?;
    for name in ["gvwstate.dat", "galera.cache", "ibtmp1"] {
        // Whichever of them the server removed itself is no loss.
        let _ = fs::remove_file(data.join(name));
    }
    let new = archive.with_extension("new");
    tar(&["--create", "--sparse"], &new, node.directory(), &["data"])?;
    fs::rename(&new, archive).context(|| format!("cannot rename {}", new.display()))
}

fn tar(options: &[&str], archive: &Path, directory: &Path, members: &[&str]) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(options).arg("--file").arg(archive).arg("--directory").arg(directory).args(members);
    let output = command.output().context(|| "cannot start tar".to_owned())?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: format!("{command:?}"),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
