//! Orders: pages that write a row through the balancer and read it back over another connection, all workers at
//! once, wave after wave.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::lab::error::Context as _;
use crate::lab::http::{Client, HttpError, Options, Response};
use crate::lab::machine::joined;
use crate::lab::{Host, Result};

/// The page's name.
pub const PAGE: &str = "order.php";
/// Its text.
pub const TEXT: &str = include_str!("order.php");
/// Articles that everybody wants, the rows 1 to this of the table `hot`.
pub const HOT: usize = 8;

/// Longer than any page takes that is served in the end.
const PATIENCE: Duration = Duration::from_mins(1);

/// `ER_LOCK_DEADLOCK`, `ER_LOCK_WAIT_TIMEOUT` and, of newer servers, `ER_CHECKREAD` in MariaDB's errmsg-utf8.txt: what a
/// transaction hears that another one has overtaken.
const CONFLICTS: [u32; 3] = [1213, 1205, 1020];

/// A wave of orders.
#[derive(Debug, Clone)]
pub struct Wave<'a> {
    /// The PHP nodes, used in turn.
    pub webs: &'a [SocketAddrV4],
    /// Orders, all at once.
    pub orders: usize,
    /// What each order's text begins with; no other wave has the same.
    pub tag: String,
    /// Where pages write.
    pub writes: SocketAddrV4,
    /// Where pages read.
    pub reads: SocketAddrV4,
    /// Whether they set `wsrep_sync_wait` to 1 for their reads.
    pub sync_wait: bool,
    /// How long a page works with its connection open before it writes.
    pub work: Duration,
}

/// One order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The text of its row.
    pub tag: String,
    /// Whether the database has acknowledged it.
    pub committed: bool,
    /// What came of the page.
    pub outcome: Outcome,
    /// How long the page took.
    pub took: Duration,
}

/// What came of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It read what it had written.
    Served,
    /// It wrote, and did not find what it had written.
    Stale,
    /// Another transaction was quicker; the page may try again.
    Conflict,
    /// It got no connection to the database.
    Refused(String),
    /// Anything else.
    Failed(String),
}

/// The page's words.
#[derive(Debug, Deserialize)]
struct Answer {
    committed: bool,
    fresh: Option<bool>,
    step: Option<String>,
    errno: Option<u32>,
    error: Option<String>,
}

impl Wave<'_> {
    /// Sends all orders from a host at once, and waits for the last.
    pub fn run(&self, host: &Host) -> Result<Vec<Order>> {
        host.enter(|| self.gather())?.context(|| "cannot start a wave".to_owned())
    }

    /// The threads are started from within the host's network.
    fn gather(&self) -> io::Result<Vec<Order>> {
        let gate = RwLock::new(());
        thread::scope(|scope| {
            let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
            let order = |number: usize| {
                let gate = &gate;
                let ask = move || {
                    drop(gate.read());
                    self.order(number)
                };
                thread::Builder::new().spawn_scoped(scope, ask)
            };
            // Where one cannot be started, the gate opens as the error is returned.
            let threads = (0..self.orders).map(order).collect::<io::Result<Vec<_>>>()?;
            drop(closed);
            Ok(threads.into_iter().map(|thread| joined(thread.join())).collect())
        })
    }

    fn order(&self, number: usize) -> Order {
        let tag = format!("{}-{number}", self.tag);
        let web: SocketAddr = self.webs[number % self.webs.len()].into();
        let (hot, sync, work) = (number % HOT + 1, u8::from(self.sync_wait), self.work.as_millis());
        let path =
            format!("/{PAGE}?w={}&r={}&tag={tag}&hot={hot}&sync={sync}&work={work}", self.writes, self.reads);
        let options = Options { connect_timeout: PATIENCE, read_timeout: PATIENCE, ..Options::default() };
        let start = Instant::now();
        let answer = Client::new(options).get(web, &path);
        let (committed, outcome) = judge(answer);
        Order { tag, committed, outcome, took: start.elapsed() }
    }
}

/// Whether the order was acknowledged, and what came of the page.
fn judge(answer: Result<Response, HttpError>) -> (bool, Outcome) {
    let response = match answer {
        Ok(response) => response,
        Err(error) => return (false, Outcome::Failed(format!("no page: {error}"))),
    };
    let Ok(answer) = serde_json::from_str::<Answer>(&response.body) else {
        let text = format!("status {}: {}", response.status, response.body.trim());
        return (false, Outcome::Failed(text));
    };
    let outcome = match (answer.fresh, answer.step, answer.errno.unwrap_or_default()) {
        (Some(true), ..) => Outcome::Served,
        (Some(false), ..) => Outcome::Stale,
        (None, Some(step), errno) if step.starts_with("connect") => {
            Outcome::Refused(format!("{step}: {errno}"))
        }
        (None, Some(_), errno) if !answer.committed && CONFLICTS.contains(&errno) => Outcome::Conflict,
        (None, step, errno) => {
            let (step, error) = (step.unwrap_or_default(), answer.error.unwrap_or_default());
            Outcome::Failed(format!("{step}: {errno} {error}"))
        }
    };
    (answer.committed, outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_of_the_page_is_exactly_one_outcome() {
        let error = |committed: bool, step: &str, errno: u32| {
            format!(r#"{{"committed":{committed},"fresh":null,"step":"{step}","errno":{errno},"error":"x"}}"#)
        };
        let refused = |text: &str| Outcome::Refused(text.to_owned());
        let failed = |text: &str| Outcome::Failed(text.to_owned());
        for (body, expected) in [
            (r#"{"committed":true,"fresh":true}"#.to_owned(), (true, Outcome::Served)),
            (r#"{"committed":true,"fresh":false}"#.to_owned(), (true, Outcome::Stale)),
            (error(false, "connect to write", 1040), (false, refused("connect to write: 1040"))),
            (error(true, "connect to read", 2002), (true, refused("connect to read: 2002"))),
            (error(false, "write", 1213), (false, Outcome::Conflict)),
            (error(false, "commit", 1213), (false, Outcome::Conflict)),
            (error(true, "read", 1205), (true, failed("read: 1205 x"))),
            (error(false, "commit", 2013), (false, failed("commit: 2013 x"))),
            ("Bad Gateway".to_owned(), (false, failed("status 502: Bad Gateway"))),
        ] {
            let time = Duration::from_millis(2);
            let status = if body.starts_with('{') { 200 } else { 502 };
            let answer = Response { status, body: body.clone(), connect_time: Some(time), total_time: time };
            assert_eq!(judge(Ok(answer)), expected, "{body}");
        }
        assert_eq!(judge(Err(HttpError::Refused)), (false, failed("no page: refused")));
    }
}
