//! The running demo: looks at the balancer several times a second, remembers, and draws.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use lb_userspace::api::Status;

use super::history::{History, find};
use super::interrupt::Interrupt;
use super::screen::Screen;
use super::traffic::{Outcome, Request, Traffic};
use super::world::{VISITORS, World};
use super::{Error, Result, table};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// The world with visitors in it, and somebody who watches. The visitors are dropped first.
#[derive(Debug)]
pub struct Stage<W: Write> {
    /// The visitors.
    pub traffic: Traffic,
    /// What they visit.
    pub world: World,
    /// What the balancer has said so far.
    pub history: History,
    /// Where everything is shown.
    pub screen: Screen<W>,
    interrupt: Interrupt,
    opened: Instant,
}

impl<W: Write> Stage<W> {
    /// Lets the visitors in.
    pub fn open(world: World, screen: Screen<W>, interrupt: Interrupt) -> Self {
        let traffic = Traffic::start(world.visitors(VISITORS));
        Self { traffic, world, history: History::default(), screen, interrupt, opened: Instant::now() }
    }

    /// Lets the visitors out; all that they saw, and how long they were there.
    pub fn close(&mut self) -> Result<(Vec<Request>, Duration)> {
        let requests = self.traffic.stop()?;
        Ok((requests, self.opened.elapsed()))
    }

    /// Lets some in again.
    pub fn reopen(&mut self, visitors: u8) {
        self.history = History::default();
        self.traffic = Traffic::start(self.world.visitors(visitors));
    }

    /// Asks the balancer once more.
    pub fn look(&mut self) -> Result<Status> {
        let status = self.world.balancer.status()?;
        self.history.push(Instant::now(), status.clone());
        Ok(status)
    }

    /// Looks until `condition` gives a value, at most for `limit`.
    pub fn watch<T>(&mut self, limit: Duration, condition: impl Fn(&Self) -> Option<T>) -> Result<Option<T>> {
        let start = Instant::now();
        loop {
            self.look()?;
            if let Some(value) = condition(self) {
                return Ok(Some(value));
            }
            if start.elapsed() >= limit {
                return Ok(None);
            }
            let lines = self.lines();
            self.screen.draw(&lines)?;
            thread::sleep(PAUSE);
            if self.interrupt.is_raised() {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Shows the table as it is at the end of a step.
    pub fn table(&mut self) -> Result<()> {
        let lines = self.lines();
        Ok(self.screen.keep(&lines)?)
    }

    fn lines(&self) -> Vec<String> {
        table::lines(&self.history, &self.traffic.look(table::visits))
    }

    /// What a page of a PHP node works from now on.
    pub fn set_work(&self, name: &str, work: Duration) -> Result<()> {
        let mut nodes = self.world.php.iter().filter(|node| node.host().name() == name);
        nodes.try_for_each(|node| Ok(node.set_work(work)?))
    }

    /// Connections that a service has opened, when the agent's counts have come to rest: it counts once a
    /// second.
    pub fn settled(&mut self, service: &str, expected: u64) -> Result<u64> {
        let opened = |stage: &Self| find(stage.history.last()?, service).map(|service| service.opened);
        let found =
            self.watch(Duration::from_secs(3), |stage| opened(stage).filter(|count| *count >= expected))?;
        Ok(found.or_else(|| opened(self)).unwrap_or_default())
    }
}

/// The first node other than `killed` that acknowledged a row after the kill, and how long after.
pub fn writer_after(requests: &[Request], kill: Instant, killed: &str) -> Option<(String, Duration)> {
    let later = requests.iter().rev().take_while(|request| request.ended > kill);
    let written = later.filter_map(|request| match &request.outcome {
        Outcome::Written { node } if node != killed => Some((node.clone(), request.ended - kill)),
        _ => None,
    });
    written.min_by_key(|(_, after)| *after)
}
