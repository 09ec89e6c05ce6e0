//! Pages asked for at a fixed rate, whatever has become of those before them: visitors do not wait for each other.
//!
//! A page's time begins when it is due, so that a client that is late hides nothing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::demo::Interrupt;
use crate::lab::http::{Client, Options};
use crate::lab::machine::join;
use crate::lab::{Host, Result};

/// Until all threads stand ready.
const SETTLE: Duration = Duration::from_millis(500);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Arrivals {
    /// Where.
    pub server: SocketAddr,
    /// Which page.
    pub path: String,
    /// Pages per second, in equal steps.
    pub per_second: f64,
    /// How many in all.
    pub pages: u64,
    /// After how long a visitor gives up: the connection, and each piece of the answer.
    pub patience: Duration,
    /// Whether connections are kept for the next page, as a proxy keeps them: the one that was used last is taken
    /// first, and a new one is made when all are in use.
    pub keep_alive: bool,
    /// How many pages can be under way.
    pub threads: usize,
}

/// One page.
#[derive(Debug, Clone)]
pub struct Page {
    /// When it was due, from the first page on.
    pub due: Duration,
    /// From then to the end of the answer, or until it was given up.
    pub took: Duration,
    /// Nothing, or what went wrong.
    pub failure: Option<String>,
}

#[derive(Debug)]
struct Shared {
    arrivals: Arrivals,
    start: Instant,
    next: AtomicU64,
    idle: Mutex<Vec<Client>>,
    pages: Mutex<Vec<Page>>,
    interrupt: Interrupt,
}

impl Arrivals {
    /// Lets them come from a host, and waits for the end of all; none comes after the interrupt.
    pub fn run(self, host: &Host, interrupt: &Interrupt) -> Result<Vec<Page>> {
        let threads = self.threads;
        let shared = Arc::new(Shared {
            arrivals: self,
            start: Instant::now() + SETTLE,
            next: AtomicU64::new(0),
            idle: Mutex::default(),
            pages: Mutex::default(),
            interrupt: interrupt.clone(),
        });
        let visitor = |_| {
            let shared = shared.clone();
            host.thread(move || shared.serve())
        };
        let threads: Vec<_> = (0..threads).map(visitor).collect();
        threads.into_iter().try_for_each(join)?;
        Ok(std::mem::take(&mut *lock(&shared.pages)))
    }
}

impl Shared {
    fn serve(&self) {
        while let Some(due) = self.take() {
            let at = self.start + due;
            thread::sleep(at.saturating_duration_since(Instant::now()));
            let failure = self.ask();
            lock(&self.pages).push(Page { due, took: at.elapsed(), failure });
        }
    }

    /// When the next page is due, if there is one.
    fn take(&self) -> Option<Duration> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = Duration::from_secs_f64(number as f64 / self.arrivals.per_second);
        (number < self.arrivals.pages && !self.interrupt.is_raised()).then_some(due)
    }

    fn ask(&self) -> Option<String> {
        let Arrivals { server, path, patience, keep_alive, .. } = &self.arrivals;
        let kept = lock(&self.idle).pop();
        let mut client = kept.unwrap_or_else(|| {
            Client::new(Options {
                source: None,
                keep_alive: *keep_alive,
                connect_timeout: *patience,
                read_timeout: *patience,
            })
        });
        let answer = client.get(*server, path);
        if client.is_connected() {
            lock(&self.idle).push(client);
        }
        match answer {
            Ok(response) if response.status == 200 => None,
            Ok(response) => Some(format!("status {}", response.status)),
            Err(error) => Some(error.to_string()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves whole entries.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
