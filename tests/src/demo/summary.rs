//! What the demo claims in the end, each claim with the numbers that it was judged by.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::table::{percent, seconds};
use super::traffic::{Outcome, Request};
use super::world::VISITORS;

/// The share of new connections that the slow node must fall below.
pub const SLOW_SHARE: f64 = 0.25;
/// How long that may take, from the moment at which it becomes slow.
pub const SLOW_LIMIT: Duration = Duration::from_secs(5);
/// Shares of two equal nodes may differ from one half by chance.
pub const EVEN: std::ops::RangeInclusive<f64> = 0.35..=0.65;
/// The cluster's own notice takes 1.8 s with the lab's timers, the election at most 3 s more.
pub const FAILOVER_LIMIT: Duration = Duration::from_millis(4800);
/// Failures and missing rows that are shown as examples.
const EXAMPLES: usize = 3;

/// How long pages took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// How many.
    pub count: usize,
    /// Half of them were quicker.
    pub p50: Duration,
    /// 99 of 100 were quicker.
    pub p99: Duration,
    /// The slowest.
    pub slowest: Duration,
}

impl Times {
    /// Percentiles by the nearest rank; all zero if there is nothing.
    pub fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        let rank = |percent: usize| {
            let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(index).copied().unwrap_or_default()
        };
        Self { count: times.len(), p50: rank(50), p99: rank(99), slowest: rank(100) }
    }
}

/// What the slow node's share did.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    /// Of the first node while both were equal.
    pub even: Option<f64>,
    /// How long the slow node's share took to fall below [`SLOW_SHARE`].
    pub fell_after: Option<Duration>,
    /// Its mean after that, as long as it was slow.
    pub while_slow: Option<f64>,
    /// How long it took to be back among [`EVEN`] when the node was fast again.
    pub back_after: Option<Duration>,
}

/// What the death of the writer did.
#[derive(Debug, Clone)]
pub struct Failover {
    /// The node that was killed.
    pub killed: String,
    /// Before the signal.
    pub kill: Instant,
    /// After the end of the process.
    pub dead: Instant,
    /// The writers that the balancer named from then on, the killed one first.
    pub writers: Vec<String>,
    /// By how much the cluster's epoch has risen.
    pub elections: u64,
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Measured {
    /// All pages.
    pub requests: Vec<Request>,
    /// How long pages were asked for.
    pub elapsed: Duration,
    /// The slow node.
    pub shares: Shares,
    /// The dead writer.
    pub failover: Failover,
    /// Rows on the new writer at the end.
    pub rows: BTreeSet<String>,
    /// The highest measured load of each PHP node.
    pub loads: Vec<Option<f64>>,
    /// HTTP connections that the balancer's program has opened.
    pub opened: u64,
}

/// A sentence and whether it is true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What it is about.
    pub subject: &'static str,
    /// The sentence with its numbers.
    pub text: String,
    /// Whether it is true.
    pub holds: bool,
}

/// The end of the demo.
#[derive(Debug, Clone)]
pub struct Summary {
    /// All that was shown.
    pub claims: Vec<Claim>,
    /// Examples of what went wrong, in the words of the pages.
    pub failures: Vec<String>,
    /// How long successful pages took.
    pub times: Times,
    /// Pages asked for.
    pub requests: usize,
    /// From the kill to the first row that a new writer acknowledged.
    pub failover: Option<Duration>,
}

impl Summary {
    /// Judges what was measured.
    pub fn of(measured: &Measured) -> Self {
        let requests = &measured.requests;
        let failover = first_write(measured);
        let times = Times::of(requests.iter().filter(|request| request.is_written()).map(Request::time));
        let mut claims = vec![carried(measured), even(&measured.shares), loaded(&measured.loads)];
        claims.extend(slow(&measured.shares));
        claims.extend([elected(&measured.failover), resumed(measured, failover), failures(measured)]);
        claims.push(kept(measured));
        let failures = requests.iter().filter_map(|request| match &request.outcome {
            Outcome::Written { .. } => None,
            Outcome::Lost { text } | Outcome::Failed { text } => {
                let at = seconds_after(measured.failover.kill, request.ended);
                let took = milliseconds(request.time());
                Some(format!("{at} after the kill, a page of {took}: {text}"))
            }
        });
        Self { claims, failures: failures.collect(), times, requests: requests.len(), failover }
    }

    /// Whether all that was shown is true.
    pub fn is_true(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }

    /// The summary for people.
    pub fn lines(&self) -> Vec<String> {
        let Times { p50, p99, slowest, .. } = self.times;
        let mut lines = vec!["summary".to_owned()];
        for Claim { subject, text, holds } in &self.claims {
            lines.push(format!("  {} {subject:<10} {text}", if *holds { "ok   " } else { "WRONG" }));
        }
        let times = [p50, p99, slowest].map(milliseconds);
        lines.push(format!("        times      p50 {}, p99 {}, slowest {}", times[0], times[1], times[2]));
        if !self.failures.is_empty() {
            lines.push(format!("\npages that failed: {}", self.failures.len()));
            lines.extend(self.failures.iter().take(EXAMPLES).map(|text| format!("  {text}")));
        }
        lines
    }
}

fn claim(subject: &'static str, holds: bool, text: String) -> Claim {
    Claim { subject, text, holds }
}

fn carried(measured: &Measured) -> Claim {
    let (pages, opened) = (measured.requests.len() as u64, measured.opened);
    let rate = pages as f64 / measured.elapsed.as_secs_f64().max(0.001);
    let text = format!("{pages} pages, {rate:.0} a second; {opened} connections through XDP");
    claim("pages", pages > 0 && opened == pages, text)
}

fn even(shares: &Shares) -> Claim {
    let (holds, text) = match shares.even {
        Some(share) => {
            (EVEN.contains(&share), format!("web1 {}, web2 {}", percent(share), percent(1.0 - share)))
        }
        None => (false, "too few connections to tell".to_owned()),
    };
    claim("balance", holds, format!("new connections while both nodes are fast: {text}"))
}

/// Every node has served pages all the time, so a load that never rose above 0 was not measured.
fn loaded(loads: &[Option<f64>]) -> Claim {
    let shown = |load: &Option<f64>| load.map_or("none".to_owned(), |load| format!("{load:.2}"));
    let list = loads.iter().map(shown).collect::<Vec<_>>().join(" and ");
    let holds = !loads.is_empty() && loads.iter().all(|load| load.is_some_and(|load| load > 0.0));
    claim("load", holds, format!("highest measured load of the PHP nodes: {list}"))
}

fn slow(shares: &Shares) -> [Claim; 3] {
    let limit = format!("below {} of new connections", percent(SLOW_SHARE));
    let fell =
        shares.fell_after.map_or("not within 5 s".to_owned(), |time| format!("after {}", seconds(time)));
    let mean = shares.while_slow.map_or("unknown".to_owned(), percent);
    let back = shares.back_after.map_or("not in time".to_owned(), |time| format!("after {}", seconds(time)));
    [
        claim(
            "slow node",
            shares.fell_after.is_some_and(|time| time <= SLOW_LIMIT),
            format!("{limit} {fell}"),
        ),
        claim("", shares.while_slow.is_some_and(|share| share < SLOW_SHARE), format!("{mean} from then on")),
        claim("", shares.back_after.is_some(), format!("fast again: back to an even share {back}")),
    ]
}

fn elected(failover: &Failover) -> Claim {
    let way = failover.writers.join(" -> ");
    let once = failover.elections == 1 && failover.writers.len() == 2;
    let elections = if failover.elections == 1 { "election" } else { "elections" };
    claim("fail-over", once, format!("writer {way}, {} {elections}", failover.elections))
}

fn resumed(measured: &Measured, after: Option<Duration>) -> Claim {
    let waited = measured.requests.iter().filter(|request| {
        request.is_written()
            && request.begun < measured.failover.dead
            && request.ended > measured.failover.dead
            || request.is_written() && request.begun >= measured.failover.dead
    });
    let longest = waited.map(Request::time).max().unwrap_or_default();
    let (holds, text) = match after {
        Some(time) => (time <= FAILOVER_LIMIT, format!("{} after the kill", seconds(time))),
        None => (false, "never".to_owned()),
    };
    claim("", holds, format!("first write on the new writer {text}; longest page {}", milliseconds(longest)))
}

/// From the kill to the first acknowledged row of a new writer.
fn first_write(measured: &Measured) -> Option<Duration> {
    let Failover { killed, kill, .. } = &measured.failover;
    let written = measured.requests.iter().filter(
        |request| matches!(&request.outcome, Outcome::Written { node } if node != killed && request.ended > *kill),
    );
    written.map(|request| request.ended - *kill).min()
}

/// A page may fail if its connection was on the killed writer: it was asked for before the writer was dead,
/// and its connection stood and broke. Nothing else may.
fn failures(measured: &Measured) -> Claim {
    let Failover { killed, kill, dead, .. } = &measured.failover;
    let failed = measured.requests.iter().filter(|request| !request.is_written());
    let (with_writer, other): (Vec<_>, Vec<_>) = failed.partition(|request| {
        matches!(request.outcome, Outcome::Lost { .. }) && request.begun < *dead && request.ended > *kill
    });
    let holds = other.is_empty() && with_writer.len() <= VISITORS.into();
    let text = format!(
        "{} had their connection on {killed} when it died; others: {}",
        with_writer.len(),
        other.len()
    );
    claim("failures", holds, text)
}

fn kept(measured: &Measured) -> Claim {
    let acknowledged: Vec<_> = measured.requests.iter().filter(|request| request.is_written()).collect();
    let found = acknowledged.iter().filter(|request| measured.rows.contains(&request.tag)).count();
    let writer = measured.failover.writers.last().map_or("-", String::as_str);
    let text = format!("{} acknowledged, {found} of them found on {writer}", acknowledged.len());
    claim("writes", !acknowledged.is_empty() && found == acknowledged.len(), text)
}

/// A duration as "93 ms".
pub fn milliseconds(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

fn seconds_after(from: Instant, to: Instant) -> String {
    let sign = if to < from { "-" } else { "" };
    format!("{sign}{:.2} s", to.max(from).duration_since(to.min(from)).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let times = |count: u64| Times::of((1..=count).rev().map(Duration::from_millis));
        for (count, p50, p99, slowest) in
            [(0, 0, 0, 0), (1, 1, 1, 1), (2, 1, 2, 2), (100, 50, 99, 100), (1000, 500, 990, 1000)]
        {
            let expected = [p50, p99, slowest].map(Duration::from_millis);
            let Times { p50, p99, slowest, .. } = times(count);
            assert_eq!([p50, p99, slowest], expected, "of {count}");
        }
    }

    /// 100 pages, 10 ms each, of which the ones from number 50 on were answered after the kill.
    fn measured() -> Measured {
        let start = Instant::now();
        let page = |number: u64| {
            let begun = start + Duration::from_millis(10 * number);
            let node = if number < 50 { "db1" } else { "db2" }.to_owned();
            let ended = begun + Duration::from_millis(10);
            Request { tag: number.to_string(), begun, ended, outcome: Outcome::Written { node } }
        };
        let kill = start + Duration::from_millis(500);
        Measured {
            requests: (0..100).map(page).collect(),
            elapsed: Duration::from_secs(1),
            shares: Shares {
                even: Some(0.5),
                fell_after: Some(Duration::from_secs(1)),
                while_slow: Some(0.2),
                back_after: Some(Duration::from_secs(2)),
            },
            failover: Failover {
                killed: "db1".to_owned(),
                kill,
                dead: kill + Duration::from_millis(1),
                writers: vec!["db1".to_owned(), "db2".to_owned()],
                elections: 1,
            },
            rows: (0..100).map(|number: u64| number.to_string()).collect(),
            loads: vec![Some(0.4), Some(0.5)],
            opened: 100,
        }
    }

    fn wrong(measured: &Measured) -> Vec<String> {
        let claims = Summary::of(measured).claims.into_iter().enumerate();
        claims.filter(|(_, claim)| !claim.holds).map(|(index, _)| index.to_string()).collect()
    }

    #[test]
    fn a_demo_is_true_only_if_each_of_its_claims_is() {
        let lost = || Outcome::Lost { text: String::new() };
        let failed = || Outcome::Failed { text: String::new() };
        assert_eq!(wrong(&measured()), Vec::<String>::new());
        let table: [(&str, fn(&mut Measured)); 12] = [
            ("0", |m| m.opened = 99),
            ("1", |m| m.shares.even = Some(0.3)),
            ("2", |m| m.loads[1] = Some(0.0)),
            ("2", |m| m.loads[0] = None),
            ("3", |m| m.shares.fell_after = Some(Duration::from_millis(5001))),
            ("4", |m| m.shares.while_slow = Some(0.25)),
            ("5", |m| m.shares.back_after = None),
            ("6", |m| m.failover.elections = 2),
            ("6", |m| m.failover.writers.push("db3".to_owned())),
            ("7", |m| m.failover.kill -= FAILOVER_LIMIT),
            ("9", |m| assert!(m.rows.remove("99"))),
            ("1", |m| m.shares.even = None),
        ];
        for (number, (expected, spoil)) in table.into_iter().enumerate() {
            let mut measured = measured();
            spoil(&mut measured);
            assert_eq!(wrong(&measured), [expected], "case {number}");
        }
        // (page, outcome, wrong claims): number 50 was under way when the writer died, 51 came later, 49 was over.
        for (page, outcome, expected) in
            [(50, lost(), &[][..]), (50, failed(), &["8"]), (51, lost(), &["8"]), (48, lost(), &["8"])]
        {
            let mut measured = measured();
            measured.requests[page].outcome = outcome;
            assert_eq!(wrong(&measured), expected, "page {page}");
        }
    }
}
