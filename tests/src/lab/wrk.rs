//! HTTP load by `wrk`, with exact numbers.

use std::fs;
use std::time::Duration;

use super::error::{Context, Error, Result};
use super::{Host, process, skip};

/// `wrk` prints rounded text for people; its script hook gets the numbers themselves.
const SCRIPT: &str = "done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(\"\\nREPORT %d %d %d %d %d %d %d %d %d\\n\",
    summary.requests, summary.duration, e.connect, e.read, e.write, e.timeout, e.status,
    latency:percentile(50), latency:percentile(99)))
end
";

/// What is asked of `wrk`.
#[derive(Debug, Clone)]
pub struct Wrk {
    /// Connections at a time, at least one for each thread.
    pub connections: u32,
    /// Threads.
    pub threads: u32,
    /// How long; whole seconds.
    pub duration: Duration,
    /// Whether a connection serves many requests or one.
    pub keep_alive: bool,
    /// A request that takes longer counts as timed out; whole seconds.
    pub timeout: Duration,
}

impl Default for Wrk {
    fn default() -> Self {
        Self {
            connections: 16,
            threads: 1,
            duration: Duration::from_secs(2),
            keep_alive: true,
            timeout: Duration::from_secs(5),
        }
    }
}

/// What `wrk` counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrkReport {
    /// Answered requests.
    pub requests: u64,
    /// How long it really took.
    pub duration: Duration,
    /// Connections that could not be made.
    pub connect_errors: u64,
    /// Connections that broke while an answer was awaited.
    pub read_errors: u64,
    /// Connections that broke while a request was sent.
    pub write_errors: u64,
    /// Requests that took longer than the time-out.
    pub timeouts: u64,
    /// Answers with a status other than 2xx or 3xx.
    pub non_2xx: u64,
    /// Half of the answers came within this time.
    pub p50: Duration,
    /// 99 % of the answers came within this time.
    pub p99: Duration,
}

impl WrkReport {
    /// Everything that went wrong.
    pub fn failures(&self) -> u64 {
        self.connect_errors + self.read_errors + self.write_errors + self.timeouts + self.non_2xx
    }
}

/// Runs `wrk` in a host against a URL.
pub fn run(host: &Host, url: &str, wrk: &Wrk) -> Result<WrkReport> {
    let script = host.directory().join("report.lua");
    fs::write(&script, SCRIPT).context(|| format!("cannot write {}", script.display()))?;
    let program = skip::find_program("wrk").ok_or_else(|| Error::Missing { program: "wrk".to_owned() })?;
    let mut command = host
        .command(program)
        .arg(format!("--connections={}", wrk.connections))
        .arg(format!("--threads={}", wrk.threads))
        .arg(format!("--duration={}s", wrk.duration.as_secs().max(1)))
        .arg(format!("--timeout={}s", wrk.timeout.as_secs().max(1)))
        .arg(format!("--script={}", script.display()));
    if !wrk.keep_alive {
        command = command.args(["--header", "Connection: close"]);
    }
    let text = command.arg(url).limit(wrk.duration + wrk.timeout + Duration::from_secs(30)).run()?;
    report(&text).ok_or_else(|| Error::Unreadable {
        what: "wrk's numbers".to_owned(),
        text: process::last_lines(&text, 20),
    })
}

fn report(text: &str) -> Option<WrkReport> {
    let line = text.lines().find_map(|line| line.strip_prefix("REPORT "))?;
    let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [requests, duration, connect, read, write, timeouts, status, p50, p99] = numbers[..] else {
        return None;
    };
    Some(WrkReport {
        requests,
        duration: Duration::from_micros(duration),
        connect_errors: connect,
        read_errors: read,
        write_errors: write,
        timeouts,
        non_2xx: status,
        p50: Duration::from_micros(p50),
        p99: Duration::from_micros(p99),
    })
}
