//! A process that runs in a host for as long as it is held.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::{Context, Result};
use super::{Host, wait_for};

/// A process in a host, its output in a log file. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    name: String,
    /// Keeps the host while the process runs.
    _host: Host,
}

impl Process {
    pub(crate) fn new(child: Child, name: &str, log: PathBuf, host: Host) -> Self {
        Self { child, log, name: name.to_owned(), _host: host }
    }

    /// The process's number in the namespace of the test; within the host it has another one.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to this process, not to its children.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        send(self.pid(), signal)
    }

    /// True until it has ended; a zombie has ended.
    pub fn is_running(&self) -> bool {
        is_running(self.pid())
    }

    /// Waits until it has ended.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        let child = &mut self.child;
        wait_for(&what, timeout, || child.try_wait().transpose())?.context(|| what)
    }

    /// SIGTERM, and SIGKILL if that has not ended it within `patience`. The status tells which it was.
    pub fn stop(&mut self, patience: Duration) -> Result<ExitStatus> {
        if self.is_running() {
            self.kill(Signal::SIGTERM)?;
        }
        self.wait_exit(patience).or_else(|_| {
            self.kill(Signal::SIGKILL)?;
            self.wait_exit(patience)
        })
    }

    /// What it has written to its standard output and standard error so far.
    pub fn log(&self) -> String {
        read_lossy(&self.log)
    }

    /// Where the log is.
    pub fn log_path(&self) -> &Path {
        &self.log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Unreaped children would keep their process namespace from ending.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal. A process that has ended already is no error: the sender got what it wanted.
pub(crate) fn send(pid: u32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid as i32), signal) {
        Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
        Err(error) => Err(error).context(|| format!("cannot send {signal} to process {pid}")),
    }
}

/// Whether the process is there and no zombie: after SIGKILL one may stay a zombie for a while, for which
/// `kill(pid, 0)` still succeeds.
pub fn is_running(pid: u32) -> bool {
    // The state follows the name, which stands in parentheses and may hold anything (proc_pid_stat(5)).
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()))
        .is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// A file's text, empty if it cannot be read.
pub(crate) fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The last `count` lines.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// An exit status in words that fit after a program's name.
pub(crate) fn in_words(status: ExitStatus) -> String {
    match status.signal() {
        Some(number) => format!("ended by signal {number}"),
        None => status.to_string(),
    }
}
