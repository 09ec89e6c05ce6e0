//! Two PHP-FPM nodes with equal numbers of workers, one of them five times slower, under a rate of pages that both
//! carry together and that the slow one cannot carry half of.
//!
//! A page's time is slept, not computed: the processors of one machine, which all nodes share, would make each
//! node's time depend on the other's work. What a balancer sees of it is the same: workers that are taken.

use std::collections::BTreeMap;
use std::time::Duration;

use super::arrivals::{Arrivals, Page};
use super::{Progress, Report, Table, claim, part, shown};
use crate::demo::{Claim, Result, Times};
use crate::lab::balancer::Look as _;
use crate::lab::php::{PhpNode, PhpOptions, STATUS_PORT};
use crate::lab::setup::{Service, WEB};
use crate::lab::{Balancer, Host, Lab, Setup};

/// Workers of each node (`pm.max_children`).
const WORKERS: u32 = 10;
/// What a page takes on the fast node: 250 pages a second.
const FAST: Duration = Duration::from_millis(40);
/// What it takes on the slow one: 50 pages a second.
const SLOW: Duration = Duration::from_millis(200);
/// What is asked for: more than twice what the slow node can do, three fifths of what both can.
const PER_SECOND: f64 = 180.0;
/// After so long a visitor goes away.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pages that nginx serves on a connection, where connections are kept for a while.
const A_WHILE: u32 = 20;
/// More than the pages of [`PATIENCE`], were none of them answered.
const THREADS: usize = 1000;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Whether the service has `least-load`, else `round-robin`.
    pub by_load: bool,
    /// Pages that are served on a connection.
    pub kept_for: u32,
}

/// All rows.
pub const ROWS: [Row; 4] = [
    Row { by_load: false, kept_for: 1 },
    Row { by_load: true, kept_for: 1 },
    Row { by_load: false, kept_for: A_WHILE },
    Row { by_load: true, kept_for: A_WHILE },
];

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Which rows.
    pub rows: &'a [Row],
    /// Pages of this time at the beginning of a row are not in the table: queues and weights find their places.
    pub warm_up: Duration,
    /// How long is measured after that.
    pub measured: Duration,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Self { rows: &ROWS, warm_up: Duration::from_secs(4), measured: Duration::from_secs(10) }
    }
}

/// What became of a row.
#[derive(Debug, Clone)]
struct Measured {
    row: Row,
    /// How long its pages took, those given up included.
    times: Times,
    /// Pages that failed, by reason.
    failures: BTreeMap<String, usize>,
    /// Pages served, per second.
    rate: f64,
    /// The slow node's part of the connections that the balancer has opened, from the row's beginning on.
    slow_share: f64,
}

impl Row {
    const fn algorithm(self) -> &'static str {
        if self.by_load { "least-load" } else { "round-robin" }
    }

    fn connections(self) -> String {
        match self.kept_for {
            1 => "one a page".to_owned(),
            pages => format!("kept for {pages} pages"),
        }
    }
}

impl Measured {
    fn failed(&self) -> usize {
        self.failures.values().sum()
    }
}

/// Measures all rows, each with servers and a balancer of its own, so that no row pays for the one before it.
pub fn run(plan: &Plan<'_>, progress: &mut Progress<'_>) -> Result<Report> {
    let mut rows = Vec::new();
    for row in plan.rows {
        progress.step(&format!("{}, connections {}", row.algorithm(), row.connections()))?;
        let measured = measure(*row, plan, progress)?;
        progress.step(&format!(
            "  p50 {}, p99 {}, slowest {}, failed {:?}",
            shown(measured.times.p50),
            shown(measured.times.p99),
            shown(measured.times.slowest),
            measured.failures
        ))?;
        rows.push(measured);
    }
    Ok(Report { conditions: conditions(plan), table: table(&rows), claims: claims(&rows) })
}

fn measure(row: Row, plan: &Plan<'_>, progress: &Progress<'_>) -> Result<Measured> {
    let lab = Lab::new()?;
    let _nodes = [(1, FAST), (2, SLOW)]
        .map(|(number, work)| start_node(&lab.web_host(number)?, work, row))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let balancer = Balancer::start(&lab.balancer_host()?, &configuration(row), &[])?;
    let client = lab.client_host()?;
    let whole = plan.warm_up + plan.measured;
    let arrivals = Arrivals {
        server: WEB.into(),
        path: "/work.php".to_owned(),
        per_second: PER_SECOND,
        pages: (whole.as_secs_f64() * PER_SECOND) as u64,
        patience: PATIENCE,
        keep_alive: row.kept_for > 1,
        threads: THREADS,
    };
    let pages = arrivals.run(&client, &progress.interrupt())?;
    Ok(judge(row, plan, &pages, opened(&balancer)?))
}

fn start_node(host: &Host, work: Duration, row: Row) -> Result<PhpNode> {
    let options =
        PhpOptions { children: WORKERS, work, keepalive_requests: row.kept_for, ..PhpOptions::default() };
    Ok(PhpNode::start(host, &options)?)
}

/// Connections opened to the fast and to the slow node, as the agent counted them last.
fn opened(balancer: &Balancer) -> Result<[u64; 2]> {
    let status = balancer.status()?;
    Ok(["web/web1", "web/web2"].map(|name| status.backend(name).opened))
}

/// The same check for both algorithms, by the listener that busy workers do not hold up: a node that is only slow
/// is not down.
fn configuration(row: Row) -> String {
    let status = format!("type = \"php-fpm\", url = \"fcgi://:{STATUS_PORT}/status\"");
    let load = if row.by_load {
        format!("load = {{ {status}, max-children = {WORKERS} }}\n")
    } else {
        String::new()
    };
    let lines = format!("algorithm = \"{}\"\ncheck = {{ {status} }}\n{load}", row.algorithm());
    Setup::new().service(&Service { lines: &lines, ..Service::web(&[100, 100]) }).text()
}

fn judge(row: Row, plan: &Plan<'_>, pages: &[Page], opened: [u64; 2]) -> Measured {
    let pages = || pages.iter().filter(|page| page.due >= plan.warm_up);
    let mut failures: BTreeMap<String, usize> = BTreeMap::new();
    for failure in pages().filter_map(|page| page.failure.as_ref()) {
        *failures.entry(failure.clone()).or_default() += 1;
    }
    let served = pages().filter(|page| page.failure.is_none()).count();
    Measured {
        row,
        times: Times::of(pages().map(|page| page.took)),
        failures,
        rate: served as f64 / plan.measured.as_secs_f64(),
        slow_share: opened[1] as f64 / (opened[0] + opened[1]).max(1) as f64,
    }
}

fn conditions(plan: &Plan<'_>) -> String {
    format!(
        "Two PHP-FPM nodes with {WORKERS} workers each; a page takes {} on one and {} on the other, which can serve {:.0} \
         and {:.0} pages a second; {PER_SECOND:.0} are asked for; visitors give up after {}; {} of each row are shown, \
         after {} that are not.",
        shown(FAST),
        shown(SLOW),
        f64::from(WORKERS) / FAST.as_secs_f64(),
        f64::from(WORKERS) / SLOW.as_secs_f64(),
        whole_seconds(PATIENCE),
        whole_seconds(plan.measured),
        whole_seconds(plan.warm_up),
    )
}

fn whole_seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

fn table(rows: &[Measured]) -> Table {
    let mut table = Table::new(&[
        "algorithm",
        "connections",
        "p50",
        "p99",
        "errors",
        "pages served",
        "connections to the slow node",
    ]);
    for measured in rows {
        table.push([
            format!("`{}`", measured.row.algorithm()),
            measured.row.connections(),
            shown(measured.times.p50),
            shown(measured.times.p99),
            part(measured.failed(), measured.times.count),
            format!("{:.0}/s", measured.rate),
            format!("{:.0} %", 100.0 * measured.slow_share),
        ]);
    }
    table
}

/// `least-load` fails no page, and is quicker than `round-robin` where that was measured too.
fn claims(rows: &[Measured]) -> Vec<Claim> {
    let mut claims = Vec::new();
    for by_load in rows.iter().filter(|measured| measured.row.by_load) {
        let connections = by_load.row.connections();
        let failed = by_load.failed();
        claims.push(claim("errors", failed == 0, format!("least-load, connections {connections}: {failed}")));
        let other = Row { by_load: false, ..by_load.row };
        if let Some(in_turn) = rows.iter().find(|measured| measured.row == other) {
            let (quick, slow) = (by_load.times.p99, in_turn.times.p99);
            let text =
                format!("connections {connections}: {} by load, {} in turn", shown(quick), shown(slow));
            claims.push(claim("p99", quick < slow, text));
        }
    }
    claims
}
