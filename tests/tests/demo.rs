//! The first README command, from the servers' start to the summary.

use std::time::{Duration, Instant};

use lb_tests::demo::{self, Options};
use lb_tests::lab::skip::{self, Need};

#[test]
fn the_demo_shows_what_it_claims_in_under_a_minute() {
    let needs = [Need::Lab, Need::Bpf, Need::Php, Need::Galera];
    if skip::cannot_run("the_demo_shows_what_it_claims_in_under_a_minute", &needs) {
        return;
    }
    let mut out = Vec::new();
    let start = Instant::now();
    let summary = demo::run(&Options::default(), &mut out);
    let took = start.elapsed();
    let out = String::from_utf8(out).unwrap();
    println!("{out}");
    let summary = summary.unwrap();
    assert!(took < Duration::from_mins(1), "{took:?}");
    assert!(summary.is_true(), "{:#?}", summary.claims);
    assert!(summary.requests > 1000 && summary.failover.is_some(), "{summary:?}");
    // What is said in the end is what was judged, each claim in a line of its own.
    for claim in &summary.claims {
        assert!(out.lines().any(|line| line.contains("  ok   ") && line.ends_with(&claim.text)), "{claim:?}");
    }
}
