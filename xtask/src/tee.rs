//! Runs a command while showing part of its output as it comes and keeping all of it.

use std::{
    io::{BufRead as _, BufReader, PipeReader},
    process::{Child, Command, ExitStatus},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::process;

/// How long after the end of a command its last output may still come. A process that it left behind may hold the
/// pipe open for ever, so the end of the pipe is not waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often the command is looked after while it says nothing.
const LOOK: Duration = Duration::from_millis(50);

/// Which lines are shown as they come.
#[derive(Clone, Copy, Debug)]
pub enum Show<'a> {
    /// None; for commands that are over soon.
    Nothing,
    /// The outcome of each test, after the name of the program that runs it, for others may run beside it.
    TestsOf(&'a str),
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Both of its outputs, in the order in which they came.
    pub output: String,
    /// Whether it ended with success.
    pub succeeded: bool,
    /// How it ended, in words.
    pub outcome: String,
}

/// Runs `command` without input, for at most `longest`.
pub fn run(command: &mut Command, show: Show<'_>, longest: Duration) -> Result<Ran> {
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(std::process::Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("{} does not start", process::shown(command)))?;
    // The command keeps copies of the pipe's writing end; without this the reader would never see its end.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let lines = read_lines(reader);
    let mut output = String::new();
    let ended = follow(&mut child, &lines, show, longest, &mut output)?;
    let (succeeded, outcome) = match ended {
        Some(status) => (status.success(), status.to_string()),
        None => (false, format!("ended by force after {} s", longest.as_secs())),
    };
    Ok(Ran { output, succeeded, outcome })
}

/// Takes in lines until the child has ended and said its last words; `None` if it had to be ended.
fn follow(
    child: &mut Child,
    lines: &Receiver<String>,
    show: Show<'_>,
    longest: Duration,
    output: &mut String,
) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    let mut ended: Option<(Option<ExitStatus>, Instant)> = None;
    loop {
        match lines.recv_timeout(LOOK) {
            Ok(line) => {
                if let Show::TestsOf(program) = show
                    && (line.starts_with("test ") || line.contains("SKIPPED: "))
                {
                    println!("   {program}: {line}");
                }
                output.push_str(&line);
                output.push('\n');
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(match ended {
                    Some((status, _)) => status,
                    None => Some(child.wait()?),
                });
            }
        }
        if let Some((status, at)) = ended {
            if at.elapsed() > LAST_WORDS {
                return Ok(status);
            }
        } else if let Some(status) = child.try_wait()? {
            ended = Some((Some(status), Instant::now()));
        } else if started.elapsed() > longest {
            child.kill()?;
            child.wait()?;
            ended = Some((None, Instant::now()));
        }
    }
}

/// The lines of a pipe, read by a thread of their own so that waiting for them can time out.
fn read_lines(reader: PipeReader) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, longest: Duration) -> Ran {
        run(Command::new("sh").args(["-c", script]), Show::Nothing, longest).unwrap()
    }

    #[test]
    fn both_outputs_and_the_outcome_are_kept() {
        let table = [
            ("echo one; echo two >&2; printf three", "one\ntwo\nthree\n", true),
            ("echo broken; exit 3", "broken\n", false),
            ("kill -9 $$", "", false),
        ];
        for (script, output, succeeded) in table {
            let ran = shell(script, Duration::from_mins(1));
            assert_eq!(
                (ran.output.as_str(), ran.succeeded),
                (output, succeeded),
                "{script}: {}",
                ran.outcome
            );
        }
    }

    #[test]
    fn process_left_behind_does_not_hold_up_the_end() {
        let ran = shell("sleep 20 & echo $!", Duration::from_mins(1));
        let left = ran.output.trim().to_owned();
        assert!(Command::new("kill").arg(left).status().unwrap().success(), "it had ended already");
        assert!(ran.succeeded);
    }

    #[test]
    fn command_that_never_ends_is_ended() {
        let ran = shell("echo begun; exec sleep 600", Duration::from_millis(200));
        assert_eq!((ran.output.as_str(), ran.succeeded), ("begun\n", false));
        assert_eq!(ran.outcome, "ended by force after 0 s");
    }
}
