//! A program about to run in a host.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::error::{Context, Error, Result};
use super::process::in_words;
use super::{Host, Process};

/// How long [`HostCommand::run`] waits unless told otherwise.
const LIMIT: Duration = Duration::from_mins(1);

/// Like [`std::process::Command`], but it cannot be started outside its host by mistake.
#[derive(Debug)]
pub struct HostCommand {
    command: Command,
    host: Host,
    limit: Duration,
}

/// What a program left when it ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl HostCommand {
    pub(crate) fn new(host: Host, program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        // A group of its own: the terminal's ctrl-C reaches the test alone, which then ends all the others.
        command.stdin(Stdio::null()).process_group(0);
        Self { command, host, limit: LIMIT }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// How long [`run`](Self::run) and [`output`](Self::output) wait before they kill the program.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end; its standard output if it succeeded, else an error with its standard error.
    pub fn run(self) -> Result<String> {
        let line = self.line();
        let output = self.output()?;
        if !output.status.success() {
            return Err(Error::Command {
                command: line,
                status: in_words(output.status),
                stderr: output.stderr.trim().to_owned(),
            });
        }
        Ok(output.stdout)
    }

    /// Runs it to its end, whatever that is.
    pub fn output(mut self) -> Result<Output> {
        let line = self.line();
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.host.machine().spawn(&mut self.command)?;
        let (finished, ended) = mpsc::channel();
        let mut readers = Vec::new();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            readers.push(read_on_thread(stdout, finished.clone()));
            readers.push(read_on_thread(stderr, finished));
        }
        // Both pipes are closed when the program and all its children have ended.
        let in_time = readers.iter().all(|_| ended.recv_timeout(self.limit).is_ok());
        if !in_time {
            let _ = child.kill();
        }
        let status = child.wait().context(|| format!("cannot wait for {line}"))?;
        if !in_time {
            return Err(Error::Timeout { what: format!("the end of `{line}`"), waited: self.limit });
        }
        let mut texts = readers.into_iter().map(super::machine::join);
        let mut text = || texts.next().unwrap_or_default();
        Ok(Output { status, stdout: text(), stderr: text() })
    }

    /// Starts it and leaves it running, its output in the log file `log_name`.log of the host's directory.
    /// A log that exists is continued.
    pub fn spawn(mut self, log_name: &str) -> Result<Process> {
        let log = self.host.directory().join(format!("{log_name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let outputs = file.and_then(|file| Ok((file.try_clone()?, file)));
        let (stdout, stderr) = outputs.context(|| format!("cannot open {}", log.display()))?;
        self.command.stdout(stdout).stderr(stderr);
        let child = self.host.machine().spawn(&mut self.command)?;
        Ok(Process::new(child, log_name, log, self.host))
    }

    /// Starts it with the given standard input and output; the caller kills it and waits for it.
    pub(crate) fn spawn_piped(mut self, stdout: Stdio, stderr: Stdio) -> Result<Child> {
        self.command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
        self.host.machine().spawn(&mut self.command)
    }

    fn line(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

fn read_on_thread(
    mut pipe: impl Read + Send + 'static,
    finished: mpsc::Sender<()>,
) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = finished.send(());
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
