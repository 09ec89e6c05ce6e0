//! The demo: one balancer, two PHP nodes, three Galera nodes and visitors, a slow node, a dead writer.
//!
//! It plays on real servers and checks what it shows: [`Summary::is_true`] is what decides its exit code.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::lab;

mod history;
mod interrupt;
mod screen;
mod stage;
mod summary;
mod table;
mod traffic;
mod world;

pub use interrupt::Interrupt;
pub use summary::{Claim, Summary, Times};

use screen::Screen;
use stage::Stage;
use summary::{EVEN, Failover, Measured, SLOW_LIMIT, SLOW_SHARE, Shares};
use table::{percent, seconds};
use world::{Servers, VISITORS, WORK, World};

/// How many times slower the slow node gets.
const SLOWER: u32 = 5;
/// How long both nodes are watched while nothing happens.
const CALM: Duration = Duration::from_secs(5);
/// How long a change is watched after it has had its effect.
const AFTER: Duration = Duration::from_secs(3);
/// How long an even share may take to come back.
const BACK_LIMIT: Duration = Duration::from_secs(10);
/// How long a new writer is waited for. It is judged by a shorter time.
const WRITER_LIMIT: Duration = Duration::from_secs(12);
/// Visitors that stay when the demo is kept: enough to see something move.
const STAYING: u8 = 4;

/// What is asked of the demo.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether everything keeps running until [`interrupt`](Self::interrupt) is raised.
    pub keep: bool,
    /// Whether the output is a terminal, on which the table can be drawn in place.
    pub live: bool,
    /// Ends the demo early.
    pub interrupt: Interrupt,
}

/// Why the demo came to no end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A server, a host or the balancer failed.
    #[error(transparent)]
    Lab {
        /// What failed.
        #[from]
        source: lab::Error,
    },
    /// Somebody wanted it to end.
    #[error("interrupted; nothing is left behind")]
    Interrupted,
    /// Nobody reads the output any more.
    #[error("cannot write: {source}")]
    Output {
        /// The system's answer.
        #[from]
        source: io::Error,
    },
    /// The balancer names no writer although all nodes are up.
    #[error("the balancer names no writer of the cluster")]
    NoWriter,
}

/// The demo's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Plays the whole demo. When it returns, in whatever way, nothing of it runs any more.
pub fn run(options: &Options, out: impl Write) -> Result<Summary> {
    let mut screen = Screen::new(out, options.live);
    let world = build(options, &mut screen)?;
    let mut stage = Stage::open(world, screen, options.interrupt.clone());
    let mut shares = Shares { even: calm(&mut stage)?, ..Shares::default() };
    slow_node(&mut stage, &mut shares)?;
    let failover = dead_writer(&mut stage)?;
    let (requests, elapsed) = stage.close()?;
    let opened = stage.settled("web", requests.len() as u64)?;
    let measured = Measured {
        rows: rows(&stage.world, &failover)?,
        loads: stage.history.highest_loads("web"),
        opened,
        requests,
        elapsed,
        shares,
        failover,
    };
    let summary = Summary::of(&measured);
    for line in summary.lines() {
        stage.screen.line(&line)?;
    }
    if options.keep {
        keep(&mut stage)?;
    }
    Ok(summary)
}

/// Servers first, then the balancer, with a look at the interrupt in between.
fn build<W: Write>(options: &Options, screen: &mut Screen<W>) -> Result<World> {
    screen.step("starting two PHP-FPM nodes and three Galera nodes")?;
    let start = Instant::now();
    let servers = Servers::start()?;
    screen.detail(&format!("up after {}", seconds(start.elapsed())))?;
    if options.interrupt.is_raised() {
        return Err(Error::Interrupted);
    }
    screen.step("starting the balancer: lb run")?;
    let start = Instant::now();
    let world = servers.balanced()?;
    screen.detail(&format!("has judged all backends after {}", seconds(start.elapsed())))?;
    Ok(world)
}

/// Both nodes are equal.
fn calm<W: Write>(stage: &mut Stage<W>) -> Result<Option<f64>> {
    stage
        .screen
        .step(&format!("{VISITORS} visitors ask for pages; each page writes a row and reads it back"))?;
    let start = Instant::now();
    stage.watch(CALM, |_| None::<()>)?;
    let share = stage.history.share_since("web", "web1", start);
    stage.table()?;
    Ok(share)
}

/// One node gets slow, and fast again.
fn slow_node<W: Write>(stage: &mut Stage<W>, shares: &mut Shares) -> Result<()> {
    let work = [WORK, WORK * SLOWER].map(|work| work.as_millis());
    stage.screen.step(&format!("web2 gets five times slower ({} -> {} ms a page)", work[0], work[1]))?;
    stage.set_work("web2", WORK * SLOWER)?;
    let start = Instant::now();
    let below = |stage: &Stage<W>| {
        let share = stage.history.share("web", "web2", Some(start));
        share.filter(|share| *share < SLOW_SHARE)
    };
    if let Some(share) = stage.watch(SLOW_LIMIT, below)? {
        shares.fell_after = Some(start.elapsed());
        let text =
            format!("its share of new connections is {} after {}", percent(share), seconds(start.elapsed()));
        stage.screen.detail(&text)?;
        let fallen = Instant::now();
        stage.watch(AFTER, |_| None::<()>)?;
        shares.while_slow = stage.history.share_since("web", "web2", fallen);
    }
    stage.table()?;

    stage.screen.step("web2 is fast again")?;
    stage.set_work("web2", WORK)?;
    let start = Instant::now();
    let even = |stage: &Stage<W>| {
        let share = stage.history.share("web", "web2", Some(start));
        share.filter(|share| EVEN.contains(share))
    };
    if let Some(share) = stage.watch(BACK_LIMIT, even)? {
        shares.back_after = Some(start.elapsed());
        let text =
            format!("its share of new connections is {} after {}", percent(share), seconds(start.elapsed()));
        stage.screen.detail(&text)?;
    }
    stage.table()
}

/// The writer dies; pages wait for the next one.
fn dead_writer<W: Write>(stage: &mut Stage<W>) -> Result<Failover> {
    let cluster = stage.look()?.clusters.into_iter().next().ok_or(Error::NoWriter)?;
    let killed = cluster.writer.ok_or(Error::NoWriter)?;
    let node = stage.world.galera.node(&killed).ok_or(Error::NoWriter)?;
    let kill = Instant::now();
    node.kill9()?;
    let dead = Instant::now();
    stage.screen.step(&format!("{killed}, the writer, is killed with SIGKILL; pages wait"))?;
    let new = stage
        .watch(WRITER_LIMIT, |stage| stage.traffic.look(|all| stage::writer_after(all, kill, &killed)))?;
    if let Some((writer, after)) = new {
        stage.screen.detail(&format!("{writer} acknowledges the first row after {}", seconds(after)))?;
    }
    stage.watch(AFTER, |_| None::<()>)?;
    let writers = stage.history.writers();
    let epoch = stage.look()?.clusters.first().map_or(0, |cluster| cluster.epoch);
    stage.table()?;
    let elections = epoch.saturating_sub(cluster.epoch);
    Ok(Failover { killed, kill, dead, writers, elections })
}

/// What the last writer has in its table, after it has applied all that the cluster has agreed on.
fn rows(world: &World, failover: &Failover) -> Result<BTreeSet<String>> {
    let writer = failover.writers.last().filter(|name| **name != failover.killed);
    let Some(node) = writer.and_then(|name| world.galera.node(name)) else { return Ok(BTreeSet::new()) };
    let rows = node.sql("SET SESSION wsrep_sync_wait=1; SELECT v FROM t.a")?;
    Ok(rows.lines().map(str::to_owned).collect())
}

/// Everything stays until somebody wants the end, with a few visitors.
fn keep<W: Write>(stage: &mut Stage<W>) -> Result<()> {
    stage.screen.line("\nEverything keeps running until ctrl-C. To look around:\n")?;
    for line in world::commands(&stage.world) {
        stage.screen.line(&format!("  {line}"))?;
    }
    loop {
        // Begins anew now and then, so that what is remembered does not grow for ever.
        stage.reopen(STAYING);
        match stage.watch(Duration::from_mins(5), |_| None::<()>) {
            Ok(_) => {}
            Err(Error::Interrupted) => return Ok(stage.screen.line("\nending everything")?),
            Err(other) => return Err(other),
        }
    }
}
