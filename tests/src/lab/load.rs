//! HTTP load by [`http::Client`]s, every request accounted for.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::http::{self, HttpError, Response};
use super::machine::join;
use super::{Host, Result};

/// What is asked of the clients.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to.
    pub server: SocketAddr,
    /// Which page. Every `{n}` in it becomes the request's number, so that each can be found again.
    pub path: String,
    /// How many in total; nothing means until it is stopped.
    pub requests: Option<u64>,
    /// How many at a time.
    pub threads: usize,
    /// Local addresses, used in turn by the threads' requests; empty means the host's own.
    pub sources: Vec<Ipv4Addr>,
    /// Whether a connection serves many requests or one.
    pub keep_alive: bool,
    /// Requests per second over all threads; nothing means as fast as the answers come. A thread that is
    /// late catches up, so the mean rate holds as long as there are threads enough.
    pub per_second: Option<f64>,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for each piece of an answer.
    pub read_timeout: Duration,
}

impl Load {
    /// Short connections, 4 at a time, until stopped.
    pub fn new(server: impl Into<SocketAddr>, path: &str) -> Self {
        Self {
            server: server.into(),
            path: path.to_owned(),
            requests: None,
            threads: 4,
            sources: Vec::new(),
            keep_alive: false,
            per_second: None,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
        }
    }
}

/// What the clients saw. Only answers of status 200 are successes.
#[derive(Debug, Clone, Default)]
pub struct LoadReport {
    /// How often each text came with status 200, white space trimmed.
    pub bodies: BTreeMap<String, u64>,
    /// How often each failure happened: an [`HttpError`]'s text, or "status 503: body".
    pub failures: BTreeMap<String, u64>,
    /// Connections made.
    pub connections: u64,
    /// The connection that took longest.
    pub slowest_connect: Duration,
    /// The successful request that took longest, its connection included.
    pub slowest_request: Duration,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

impl LoadReport {
    /// Requests that got an answer of status 200.
    pub fn succeeded(&self) -> u64 {
        self.bodies.values().sum()
    }

    /// All other requests.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    fn count(&mut self, outcome: Result<Response, HttpError>) {
        let failure = match outcome {
            Ok(response) => {
                if let Some(time) = response.connect_time {
                    self.connections += 1;
                    self.slowest_connect = self.slowest_connect.max(time);
                }
                let body = response.body.trim();
                if response.status == 200 {
                    self.slowest_request = self.slowest_request.max(response.total_time);
                    *self.bodies.entry(body.to_owned()).or_default() += 1;
                    return;
                }
                format!("status {}: {body}", response.status)
            }
            Err(error) => error.to_string(),
        };
        *self.failures.entry(failure).or_default() += 1;
    }
}

/// A load that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    load: Load,
    start: Instant,
    next: AtomicU64,
    stopped: AtomicBool,
    report: Mutex<LoadReport>,
}

impl Load {
    /// Starts the clients in a host.
    pub fn start(self, host: &Host) -> Running {
        let threads = self.threads;
        let shared = Arc::new(Shared {
            load: self,
            start: Instant::now(),
            next: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            report: Mutex::default(),
        });
        let client = |_| {
            let shared = shared.clone();
            host.thread(move || shared.serve())
        };
        let threads = (0..threads).map(client).collect();
        Running { shared, threads }
    }

    /// Runs a load of a fixed number of requests to its end.
    pub fn run(self, host: &Host) -> Result<LoadReport> {
        self.start(host).finish()
    }
}

impl Running {
    /// What has been counted so far.
    pub fn so_far(&self) -> LoadReport {
        self.shared.report().clone()
    }

    /// Begins no further request, waits for the answers of those that are under way.
    pub fn stop(self) -> Result<LoadReport> {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits until all requests have been answered.
    pub fn finish(mut self) -> Result<LoadReport> {
        for thread in self.threads.drain(..) {
            join(thread)?;
        }
        Ok(self.so_far())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// One client: takes the next number until there is none.
    fn serve(&self) {
        let load = &self.load;
        let mut client = http::Client::new(http::Options {
            source: None,
            keep_alive: load.keep_alive,
            connect_timeout: load.connect_timeout,
            read_timeout: load.read_timeout,
        });
        while let Some(number) = self.take() {
            if !load.keep_alive || !client.is_connected() {
                let turn = number as usize % load.sources.len().max(1);
                client.options.source = load.sources.get(turn).copied();
            }
            let outcome = client.get(load.server, &load.path.replace("{n}", &number.to_string()));
            let mut report = self.report();
            report.count(outcome);
            report.elapsed = self.start.elapsed();
        }
    }

    fn take(&self) -> Option<u64> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if self.load.requests.is_some_and(|requests| number >= requests) {
            return None;
        }
        if let Some(rate) = self.load.per_second {
            let due = self.start + Duration::from_secs_f64(number as f64 / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Some(number)
    }

    fn report(&self) -> MutexGuard<'_, LoadReport> {
        // Counts are whole after each statement, so a panic elsewhere does not spoil them.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
