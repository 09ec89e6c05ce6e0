//! The two complaints that `lb` was begun for, measured on real servers: equal turns in front of unequal PHP nodes
//! ([`php`]), and a Galera cluster behind a balancer that does not know what it is ([`galera`]).
//!
//! Each makes one table, in whose rows nothing differs but what the balancer and the pages are told, and claims
//! about it, which decide the exit code.

use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::demo::{Claim, Error, Interrupt, Result};

mod arrivals;
pub mod galera;
mod orders;
pub mod php;
mod table;
mod ways;

pub use table::Table;

/// What has been measured, and whether it is what `lb` promises.
#[derive(Debug)]
pub struct Report {
    /// Under which conditions, in one line.
    pub conditions: String,
    /// What was measured.
    pub table: Table,
    /// What is promised, with the numbers that it was judged by.
    pub claims: Vec<Claim>,
}

impl Report {
    /// Whether all that is promised is true.
    pub fn is_true(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }

    /// The claims for people, a line each.
    pub fn verdicts(&self) -> Vec<String> {
        let line = |Claim { subject, text, holds }: &Claim| {
            format!("{} {subject:<12} {text}", if *holds { "ok   " } else { "WRONG" })
        };
        self.claims.iter().map(line).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}\n\n{}", self.conditions, self.table)
    }
}

/// Says what is being done, and ends it when somebody wants that.
pub struct Progress<'a> {
    out: &'a mut dyn Write,
    interrupt: Interrupt,
    start: Instant,
}

impl fmt::Debug for Progress<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Progress").field("interrupt", &self.interrupt).finish_non_exhaustive()
    }
}

impl<'a> Progress<'a> {
    /// Lines go to `out`; `interrupt` ends the run at the next of them.
    pub fn new(out: &'a mut dyn Write, interrupt: Interrupt) -> Self {
        Self { out, interrupt, start: Instant::now() }
    }

    /// A line with the time since the start. An error if the run is to end.
    pub fn step(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "{:6.1} s  {text}", self.start.elapsed().as_secs_f64())?;
        if self.interrupt.is_raised() { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }
}

fn claim(subject: &'static str, holds: bool, text: String) -> Claim {
    Claim { subject, text, holds }
}

/// "84 ms", "5.02 s".
fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

/// A count and its part of the whole: "0", "312 (17 %)".
fn part(count: usize, whole: usize) -> String {
    if count == 0 {
        return "0".to_owned();
    }
    let percent = 100.0 * count as f64 / whole.max(1) as f64;
    if percent < 1.0 { format!("{count} ({percent:.1} %)") } else { format!("{count} ({percent:.0} %)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_parts_are_written_as_the_tables_show_them() {
        for (millis, text) in
            [(0, "0 ms"), (84, "84 ms"), (999, "999 ms"), (1_000, "1.00 s"), (5_017, "5.02 s")]
        {
            assert_eq!(shown(Duration::from_millis(millis)), text);
        }
        for (count, whole, text) in
            [(0, 0, "0"), (0, 9, "0"), (1, 1000, "1 (0.1 %)"), (312, 1800, "312 (17 %)")]
        {
            assert_eq!(part(count, whole), text);
        }
    }

    #[test]
    fn one_claim_that_does_not_hold_makes_the_report_untrue() {
        let report = |second| Report {
            conditions: "two nodes".to_owned(),
            table: Table::new(&["a", "b"]),
            claims: vec![claim("errors", true, "none".to_owned()), claim("p99", second, "1 s".to_owned())],
        };
        assert!(report(true).is_true() && !report(false).is_true());
        assert_eq!(report(false).verdicts(), ["ok    errors       none", "WRONG p99          1 s"]);
        assert_eq!(report(true).to_string(), "two nodes\n\n| a | b |\n| --- | --- |\n");
    }
}
