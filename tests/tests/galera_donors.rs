//! Real state transfers by rsync, under which a node answers reads with old data and hangs on writes: whoever gives one
//! takes no new connections, and a writer who does hands its role over when it takes too long.

use std::time::Duration;

use lb_tests::Site;
use lb_tests::lab::balancer::{Look as _, Status};
use lb_tests::lab::galera::GaleraNode;
use lb_tests::lab::galera::journal::{Journal, roles};
use lb_tests::lab::mysql::{Login, Session};
use lb_tests::lab::setup::DATABASE;
use lb_tests::lab::skip::{self, Need};

const LIMIT: Duration = Duration::from_secs(40);
const RHYTHM: &str = "interval = \"200ms\", timeout = \"200ms\"";
/// The data are some 30 MB, which at this rate take longer than a writer may be a donor.
const SLOW: u32 = 3_000;

fn node<'a>(site: &'a Site, name: &str) -> &'a GaleraNode {
    site.galera.as_ref().unwrap().node(name).unwrap()
}

fn writer(status: &Status) -> (Option<&str>, u64) {
    (status.clusters[0].writer.as_deref(), status.clusters[0].epoch)
}

fn taking(status: &Status, service: &str) -> Vec<bool> {
    status.service(service).backends.iter().map(|node| node.weight_effective > 0.0).collect()
}

/// What is decided about one node, of all that has been.
fn about<'a>(news: &'a [String], node: &str) -> Vec<&'a str> {
    news.iter().filter_map(|line| line.strip_prefix(node)?.strip_prefix(": ")).collect()
}

#[test]
fn a_donor_takes_no_new_connections_and_hands_the_role_over_if_it_takes_long() {
    const NAME: &str = "a_donor_takes_no_new_connections_and_hands_the_role_over_if_it_takes_long";
    if skip::cannot_run(
        NAME,
        &[Need::Lab, Need::Bpf, Need::Galera, Need::Program("rsync"), Need::Program("nft")],
    ) {
        return;
    }
    let site = Site::start(0, 3, &roles(RHYTHM), &[]).unwrap();
    assert_eq!(writer(&site.balancer.status().unwrap()), (Some("db1"), 1));
    a_reader_gives(&site);
    the_writer_gives(&site);
}

/// db3 ends, and comes back without its data.
fn start_from(site: &Site, journal: &mut Journal<'_>, donor: &str) {
    node(site, "db3").stop().unwrap();
    let news = journal.until(&["db3: Writer → Out", "db3: NoNew → Out", "db3: Reader → Out"]).unwrap();
    assert_eq!(about(&news, "db3").len(), news.len(), "{news:?}");
    node(site, donor).slow_down_transfers(SLOW).unwrap();
    node(site, "db3").start_empty(donor).unwrap();
}

fn a_reader_gives(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    start_from(site, &mut journal, "db2");
    journal.expect(&["db2: Writer → NoNew: donor"]);
    // Neither is left to read from but the writer.
    let status = site.balancer.wait(|status| taking(status, "db-read") == [true, false, false], "db1", LIMIT);
    assert_eq!(taking(&status.unwrap(), "db-any"), [true, false, false]);
    let news = journal.until(&["db3: Out → Writer: synced", "db3: NoNew → Writer: synced"]).unwrap();
    assert_eq!(about(&news, "db2"), ["NoNew → Writer: synced"], "{news:?}");
    assert_eq!(about(&news, "db1"), [""; 0], "{news:?}");
    let status = site.balancer.wait(|status| taking(status, "db-read") == [false, true, true], "both", LIMIT);
    assert_eq!(writer(&status.unwrap()), (Some("db1"), 1));
    node(site, "db2").cut_from_group(false).unwrap();
}

fn the_writer_gives(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    start_from(site, &mut journal, "db1");
    journal.expect(&["db1: Writer → NoNew: donor"]);
    journal.expect(&["writer db2, epoch 2, elected by plan: db1: donor"]);
    let mut session = Session::open(&site.client, &Login::app(DATABASE)).unwrap();
    assert_eq!(session.node().unwrap(), "db2");
    session.query("INSERT INTO a(v) VALUES('written while db1 gives')", LIMIT).unwrap();
    let news = journal.until(&["db3: Out → Writer: synced", "db3: NoNew → Writer: synced"]).unwrap();
    assert_eq!(about(&news, "db1"), ["NoNew → Writer: synced"], "{news:?}");
    assert_eq!(about(&news, "db2"), [""; 0], "{news:?}");
    site.galera.as_ref().unwrap().wait_size(3, LIMIT).unwrap();
    assert_eq!(writer(&site.balancer.status().unwrap()), (Some("db2"), 2));
}
