//! The two complaints in short: what `cargo xtask bench` says must hold whatever the machine does.

use std::time::Duration;

use lb_tests::bench::galera::{Plan, Row, Way};
use lb_tests::bench::{self, Progress, Report};
use lb_tests::demo::{Interrupt, Result};
use lb_tests::lab::skip::{self, Need};

fn measured(measure: impl FnOnce(&mut Progress<'_>) -> Result<Report>) -> Report {
    let mut told = Vec::new();
    let report = measure(&mut Progress::new(&mut told, Interrupt::default()));
    println!("{}", String::from_utf8(told).unwrap());
    let report = report.unwrap();
    println!("{report}\n{:#?}", report.verdicts());
    report
}

fn assert_holds(report: &Report, subjects: &[&str]) {
    let claims: Vec<_> = report.claims.iter().filter(|claim| subjects.contains(&claim.subject)).collect();
    assert!(!claims.is_empty());
    let untrue: Vec<_> = claims.into_iter().filter(|claim| !claim.holds).collect();
    assert!(untrue.is_empty(), "{untrue:#?}");
}

#[test]
fn by_load_no_page_fails_although_half_of_them_would_drown_a_node() {
    const NAME: &str = "by_load_no_page_fails_although_half_of_them_would_drown_a_node";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let rows: Vec<_> = bench::php::ROWS.into_iter().filter(|row| row.by_load).take(2).collect();
    let (warm_up, seconds) = (Duration::from_secs(1), Duration::from_secs(3));
    let plan = bench::php::Plan { rows: &rows, warm_up, measured: seconds };
    assert_holds(&measured(|progress| bench::php::run(&plan, progress)), &["errors"]);
}

#[test]
fn through_lb_no_page_is_refused_and_reads_are_as_fresh_as_the_roles_promise() {
    const NAME: &str = "through_lb_no_page_is_refused_and_reads_are_as_fresh_as_the_roles_promise";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php, Need::Galera]) {
        return;
    }
    let rows =
        [Row::tight(Way::WriterAndReaders, true), Row::tight(Way::Any, true), Row::tight(Way::Writer, false)];
    let plan = Plan { rows: &rows, workers: 150, waves: 1, ..Plan::default() };
    let report = measured(|progress| bench::galera::run(&plan, progress));
    assert_holds(&report, &["lost", "failed", "refused", "conflicts", "stale reads"]);
}
