//! The demo's visitors: threads that ask for pages one after the other and remember what came of each.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::lab::http::{Client, HttpError, Options, Response};
use crate::lab::machine::join;
use crate::lab::php::db_answer;
use crate::lab::{Result, setup};

use super::world::{PAGE, Visitor};

/// What a visitor does between two pages.
const THINK: Duration = Duration::from_millis(20);

/// The client's errors that mean: the connection to the database was there and broke. `CR_SERVER_GONE_ERROR`
/// and `CR_SERVER_LOST` of MariaDB's include/errmsg.h.
const LOST: [u32; 2] = [2006, 2013];

/// One page and what came of it.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the page was to write; no other page writes it.
    pub tag: String,
    /// When it was asked for.
    pub begun: Instant,
    /// When the answer was complete.
    pub ended: Instant,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The database acknowledged the row, and the page read the same row back.
    Written {
        /// The database node.
        node: String,
    },
    /// The page's connection to the database stood and broke.
    Lost {
        /// The page's words.
        text: String,
    },
    /// Any other failure.
    Failed {
        /// What was seen.
        text: String,
    },
}

impl Request {
    /// From the beginning of the connection to the end of the answer.
    pub fn time(&self) -> Duration {
        self.ended - self.begun
    }

    /// Whether its row was acknowledged.
    pub fn is_written(&self) -> bool {
        matches!(self.outcome, Outcome::Written { .. })
    }
}

/// Visitors at work. Dropping it lets them finish their page and go.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    next: AtomicU64,
    stopped: AtomicBool,
    requests: Mutex<Vec<Request>>,
}

impl Traffic {
    /// One thread for each visitor.
    pub fn start(visitors: Vec<Visitor>) -> Self {
        let shared = Arc::new(Shared::default());
        let visit = |visitor: Visitor| {
            let shared = shared.clone();
            let options = Options { source: Some(visitor.address), ..Options::default() };
            visitor.host.thread(move || shared.visit(Client::new(options)))
        };
        let threads = visitors.into_iter().map(visit).collect();
        Self { shared, threads }
    }

    /// Looks at all requests answered so far, in the order of their ends.
    pub fn look<T>(&self, view: impl FnOnce(&[Request]) -> T) -> T {
        view(&self.shared.requests())
    }

    /// Begins no further page and waits for those under way; all requests.
    pub fn stop(&mut self) -> Result<Vec<Request>> {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.threads.drain(..).try_for_each(join)?;
        Ok(std::mem::take(&mut *self.shared.requests()))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Hosts outlive their threads anyway; an error of theirs has nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn visit(&self, mut client: Client) {
        let database = setup::DATABASE.ip();
        while !self.stopped.load(Ordering::Relaxed) {
            let tag = format!("demo-{}", self.next.fetch_add(1, Ordering::Relaxed));
            let path = format!("/{PAGE}?h={database}&tag={tag}");
            let begun = Instant::now();
            let answer = client.get(setup::WEB, &path);
            let outcome = judge(&tag, answer);
            self.requests().push(Request { tag, begun, ended: Instant::now(), outcome });
            thread::sleep(THINK);
        }
    }

    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        // A panic elsewhere leaves whole entries.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn judge(tag: &str, answer: Result<Response, HttpError>) -> Outcome {
    let response = match answer {
        Ok(response) => response,
        Err(error) => return Outcome::Failed { text: format!("no page: {error}") },
    };
    let Ok(page) = db_answer(&response.body) else {
        return Outcome::Failed { text: format!("status {}: {}", response.status, response.body.trim()) };
    };
    match (response.status, page.node) {
        (200, Some(node)) if page.ok && page.value.as_deref() == Some(tag) => Outcome::Written { node },
        (200, _) => Outcome::Failed { text: "the page read back something else than it wrote".to_owned() },
        (status, _) => {
            let text = format!(
                "status {status}, {}: {} {}",
                page.step.unwrap_or_default(),
                page.errno.unwrap_or_default(),
                page.error.unwrap_or_default()
            );
            if page.errno.is_some_and(|errno| LOST.contains(&errno)) {
                Outcome::Lost { text }
            } else {
                Outcome::Failed { text }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_counts_as_written_only_if_it_read_back_its_own_row() {
        let row = |value: &str, ok: bool| {
            format!(r#"{{"id":1,"value":"{value}","ok":{ok},"node":"db1","web":"web1","ms":1.5}}"#)
        };
        let error =
            |errno: u32| format!(r#"{{"step":"insert","errno":{errno},"error":"went away","ms":1.5}}"#);
        let page = |status, body| {
            let time = Duration::from_millis(2);
            judge("a", Ok(Response { status, body, connect_time: Some(time), total_time: time }))
        };
        let name = |outcome| match outcome {
            Outcome::Written { node } => node,
            Outcome::Lost { .. } => "lost".to_owned(),
            Outcome::Failed { .. } => "failed".to_owned(),
        };
        for (status, body, expected) in [
            (200, row("a", true), "db1"),
            (200, row("b", true), "failed"),
            (200, row("a", false), "failed"),
            (200, "no JSON".to_owned(), "failed"),
            (502, "Bad Gateway".to_owned(), "failed"),
            (503, error(2006), "lost"),
            (503, error(2013), "lost"),
            (503, error(2002), "failed"),
            (503, error(1047), "failed"),
        ] {
            assert_eq!(name(page(status, body.clone())), expected, "{status} {body}");
        }
        assert_eq!(name(judge("a", Err(HttpError::Refused))), "failed");
    }
}
