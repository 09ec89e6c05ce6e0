//! Three Galera nodes behind waves of PHP pages, more at once than the nodes have connections for.
//!
//! A page holds a connection while it works, writes one of a few hot rows and a row of its own, and reads that over
//! a new connection, as the page after a POST does. What differs between rows is where it writes and reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddrV4;
use std::thread;
use std::time::Duration;

use super::orders::{self, HOT, Order, Outcome, Wave};
use super::ways::NODES;
use super::{Progress, Report, Table, claim, part, shown};
use crate::demo::{Claim, Result, Times};
use crate::lab::error::Context as _;
use crate::lab::galera::{Galera, GaleraNode};
use crate::lab::machine::joined;
use crate::lab::php::{PhpNode, PhpOptions};
use crate::lab::{self, Balancer, Host, Lab};

pub use super::ways::Way;

/// `max_connections` of a node that all pages together have no room in.
const TIGHT: u32 = 60;
/// The same of a node that has room for all of them.
const AMPLE: u32 = 400;
/// PHP nodes, which share the workers.
const WEBS: u8 = 2;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Where pages write and read.
    pub way: Way,
    /// Whether they read with `wsrep_sync_wait = 1`.
    pub sync_wait: bool,
    /// `max_connections` of each node.
    pub room: u32,
}

impl Row {
    /// A row of nodes that run out of connections.
    pub const fn tight(way: Way, sync_wait: bool) -> Self {
        Self { way, sync_wait, room: TIGHT }
    }

    const fn ample(way: Way, sync_wait: bool) -> Self {
        Self { way, sync_wait, room: AMPLE }
    }

    fn told(self) -> String {
        let Self { way, sync_wait, room } = self;
        format!("{}, wsrep_sync_wait = {}, max_connections = {room}", way.name(), u8::from(sync_wait))
    }
}

/// All rows. The writer has applied what it has committed: there is nothing to wait for.
pub const ROWS: [Row; 10] = [
    Row::tight(Way::InTurn, false),
    Row::tight(Way::InTurn, true),
    Row::tight(Way::Any, false),
    Row::tight(Way::Any, true),
    Row::tight(Way::WriterAndReaders, false),
    Row::tight(Way::WriterAndReaders, true),
    Row::tight(Way::Writer, false),
    Row::ample(Way::InTurn, false),
    Row::ample(Way::WriterAndReaders, true),
    Row::ample(Way::Writer, false),
];

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Which rows.
    pub rows: &'a [Row],
    /// PHP workers, and pages in a wave.
    pub workers: u32,
    /// Waves in a row; each begins when the last page of the one before it has ended.
    pub waves: u32,
    /// How long a page works with its connection open.
    pub work: Duration,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Self { rows: &ROWS, workers: 300, waves: 4, work: Duration::from_millis(250) }
    }
}

/// What stays over all rows. The fields are dropped in this order.
#[derive(Debug)]
struct Servers {
    webs: Vec<PhpNode>,
    galera: Galera,
    client: Host,
    balancer: Host,
    _lab: Lab,
}

/// What became of a row.
#[derive(Debug, Clone)]
struct Measured {
    row: Row,
    orders: Vec<Order>,
    /// Orders that were acknowledged and are not on some node.
    lost: usize,
    /// Connections that the servers themselves turned away with error 1040.
    turned_away: u64,
}

/// Measures all rows, each with a new balancer.
pub fn run(plan: &Plan<'_>, progress: &mut Progress<'_>) -> Result<Report> {
    progress.step(&format!("starting {NODES} Galera nodes and {} PHP workers", plan.workers))?;
    let servers = Servers::start(plan)?;
    let mut rows = Vec::new();
    for (number, row) in plan.rows.iter().enumerate() {
        progress.step(&row.told())?;
        let measured = servers.measure(*row, &format!("row{number}"), plan, progress)?;
        progress.step(&format!("  {}", measured.told()))?;
        rows.push(measured);
    }
    Ok(Report { conditions: conditions(plan), table: table(&rows), claims: claims(&rows) })
}

impl Servers {
    fn start(plan: &Plan<'_>) -> Result<Self> {
        let lab = Lab::new()?;
        let databases =
            (1..=NODES).map(|number| lab.database_host(number)).collect::<lab::Result<Vec<_>>>()?;
        let hosts = (1..=WEBS).map(|number| lab.web_host(number)).collect::<lab::Result<Vec<_>>>()?;
        let (webs, galera) = thread::scope(|scope| {
            let start = || hosts.iter().map(|host| start_web(host, plan)).collect::<lab::Result<Vec<_>>>();
            let webs = scope.spawn(start);
            let galera = Galera::start(&databases.iter().collect::<Vec<_>>());
            (joined(webs.join()), galera)
        });
        let galera = galera?;
        if let Some(node) = galera.nodes().first() {
            let rows: Vec<String> = (1..=HOT).map(|id| format!("({id}, 1000000)")).collect();
            let table = "CREATE TABLE t.hot (id INT PRIMARY KEY, n INT)";
            node.sql(&format!("{table}; INSERT INTO t.hot VALUES {}", rows.join(",")))?;
        }
        let (client, balancer) = (lab.client_host()?, lab.balancer_host()?);
        Ok(Self { webs: webs?, galera, client, balancer, _lab: lab })
    }

    fn measure(
        &self,
        row: Row,
        name: &str,
        plan: &Plan<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<Measured> {
        for node in self.galera.nodes() {
            node.sql(&format!("SET GLOBAL max_connections = {}", row.room))?;
        }
        let balancer = Balancer::start(&self.balancer, &row.way.configuration(), &[])?;
        let webs: Vec<SocketAddrV4> = self.webs.iter().map(PhpNode::address).collect();
        let [writes, reads] = row.way.addresses();
        let before = self.turned_away();
        let mut orders = Vec::new();
        for number in 0..plan.waves {
            let wave = Wave {
                webs: &webs,
                orders: plan.workers as usize,
                tag: format!("{name}-{number}"),
                writes,
                reads,
                sync_wait: row.sync_wait,
                work: plan.work,
            };
            orders.extend(wave.run(&self.client)?);
            progress.step(&format!("  wave {} of {}", number + 1, plan.waves))?;
        }
        drop(balancer);
        let turned_away = self.turned_away().saturating_sub(before);
        let lost = self.lost(name, &orders)?;
        Ok(Measured { row, orders, lost, turned_away })
    }

    /// Connections that all nodes together have turned away so far.
    fn turned_away(&self) -> u64 {
        let count = |node: &GaleraNode| node.status("Connection_errors_max_connections")?.parse::<u64>().ok();
        self.galera.nodes().iter().filter_map(count).sum()
    }

    /// How many acknowledged orders are missing on some node, after it has applied all that the cluster agreed on.
    fn lost(&self, name: &str, orders: &[Order]) -> Result<usize> {
        let mut lost = BTreeSet::new();
        for node in self.galera.nodes() {
            let statement =
                format!("SET SESSION wsrep_sync_wait=1; SELECT v FROM t.a WHERE v LIKE '{name}-%'");
            let text = node.sql(&statement)?;
            let kept: BTreeSet<&str> = text.lines().collect();
            let missing = orders.iter().filter(|order| order.committed && !kept.contains(&*order.tag));
            lost.extend(missing.map(|order| &order.tag));
        }
        Ok(lost.len())
    }
}

fn start_web(host: &Host, plan: &Plan<'_>) -> lab::Result<PhpNode> {
    let children = plan.workers.div_ceil(u32::from(WEBS));
    let node = PhpNode::start(host, &PhpOptions { children, ..PhpOptions::default() })?;
    let page = host.directory().join("php/www").join(orders::PAGE);
    fs::write(&page, orders::TEXT).context(|| format!("cannot write {}", page.display()))?;
    Ok(node)
}

impl Measured {
    fn count(&self, is: impl Fn(&Order) -> bool) -> usize {
        self.orders.iter().filter(|order| is(order)).count()
    }

    fn committed(&self) -> usize {
        self.count(|order| order.committed)
    }

    fn conflicts(&self) -> usize {
        self.count(|order| order.outcome == Outcome::Conflict)
    }

    fn stale(&self) -> usize {
        self.count(|order| order.outcome == Outcome::Stale)
    }

    fn refused(&self) -> usize {
        self.count(|order| matches!(order.outcome, Outcome::Refused(_)))
    }

    /// Pages whose order was acknowledged and which could read, stale or not.
    fn times(&self) -> Times {
        let served = |order: &&Order| matches!(order.outcome, Outcome::Served | Outcome::Stale);
        Times::of(self.orders.iter().filter(served).map(|order| order.took))
    }

    /// What went wrong, by reason.
    fn reasons(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        for order in &self.orders {
            if let Outcome::Refused(text) | Outcome::Failed(text) = &order.outcome {
                *reasons.entry(text.as_str()).or_default() += 1;
            }
        }
        reasons
    }

    fn told(&self) -> String {
        let Times { p50, p99, slowest, .. } = self.times();
        format!(
            "{} of {} committed, {} conflicts, {} stale, {} refused, p50 {}, p99 {}, slowest {}, error 1040: {}, {:?}",
            self.committed(),
            self.orders.len(),
            self.conflicts(),
            self.stale(),
            self.refused(),
            shown(p50),
            shown(p99),
            shown(slowest),
            self.turned_away,
            self.reasons()
        )
    }
}

fn conditions(plan: &Plan<'_>) -> String {
    format!(
        "{NODES} Galera nodes; {} waves of {} PHP pages at once; a page works {} with its connection open, updates one \
         of {HOT} hot rows and inserts one of its own in a transaction, and reads that over a new connection; nothing \
         is tried twice; times are those of the pages that were served.",
        plan.waves,
        plan.workers,
        shown(plan.work),
    )
}

fn table(rows: &[Measured]) -> Table {
    let mut table = Table::new(&[
        "balancing",
        "`max_connections`",
        "`wsrep_sync_wait`",
        "committed",
        "conflicts",
        "stale reads",
        "refused",
        "p50",
        "p99",
    ]);
    for measured in rows {
        let (pages, committed) = (measured.orders.len(), measured.committed());
        let times = measured.times();
        table.push([
            measured.row.way.name().to_owned(),
            measured.row.room.to_string(),
            u8::from(measured.row.sync_wait).to_string(),
            format!("{committed} of {pages}"),
            part(measured.conflicts(), pages),
            part(measured.stale(), committed),
            part(measured.refused(), pages),
            shown(times.p50),
            shown(times.p99),
        ]);
    }
    table
}

/// What holds on any machine: `lb` refuses nobody, a lone writer has neither conflicts nor stale reads, whoever waits
/// for Galera reads nothing stale, and an acknowledged order is there.
fn claims(rows: &[Measured]) -> Vec<Claim> {
    let mut claims = Vec::new();
    for measured in rows {
        let Row { way, sync_wait, .. } = measured.row;
        let mut none = |subject, count: usize| {
            let text = format!("{}: {count}", measured.row.told());
            claims.push(claim(subject, count == 0, text));
        };
        none("lost", measured.lost);
        none("failed", measured.count(|order| matches!(order.outcome, Outcome::Failed(_))));
        if way != Way::InTurn {
            none("refused", measured.refused());
        }
        if matches!(way, Way::Writer | Way::WriterAndReaders) {
            none("conflicts", measured.conflicts());
        }
        if way == Way::Writer || sync_wait {
            none("stale reads", measured.stale());
        }
    }
    claims
}
