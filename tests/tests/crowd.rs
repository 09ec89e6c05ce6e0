//! Five hundred database clients at once in front of a server that takes sixty.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_tests::Site;
use lb_tests::lab::balancer::{Look, Status};
use lb_tests::lab::crowd::Crowd;
use lb_tests::lab::setup::{DATABASE, Setup, database_address};
use lb_tests::lab::skip::{self, Need};

const CLIENTS: usize = 500;
/// What the balancer lets through at a time; `max_connections` of the lab's servers is 60.
const LIMIT: u64 = 50;

/// The cluster `db` of one node with a limit, and the service `db-write` for its writer.
fn text(lines: &str) -> String {
    let address = database_address(1);
    let cluster = format!(
        "[[service]]\nname = \"db-write\"\naddress = \"{DATABASE}/tcp\"\ncluster = \"db\"\nrole = \"writer\"\n\
         {lines}\n\n[[cluster]]\nname = \"db\"\ntype = \"galera\"\n\
         monitor = {{ user = \"mon\", password-file = \"db.pw\" }}\n\
         nodes = [{{ name = \"db1\", address = \"{address}:3306\", priority = 1, max-connections = {LIMIT} }}]"
    );
    Setup::new().toml(&cluster).text()
}

/// Connections that the server itself has turned away, and the most that it had at a time.
fn server_counts(site: &Site) -> (u64, u64) {
    let node = &site.galera.as_ref().unwrap().nodes()[0];
    let status = |name: &str| node.status(name).unwrap().parse().unwrap();
    (status("Connection_errors_max_connections"), status("Max_used_connections"))
}

#[test]
fn with_hold_every_client_of_a_crowd_is_served_and_none_sees_error_1040() {
    const NAME: &str = "with_hold_every_client_of_a_crowd_is_served_and_none_sees_error_1040";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Galera]) {
        return;
    }
    let site = Site::start(0, 1, &text("no-backend = \"hold\"\nhold = \"30s\""), &[]).unwrap();
    Crowd::admit(&site.galera.as_ref().unwrap().nodes()[0]).unwrap();
    let query = "SELECT CONCAT('slept ', SLEEP(0.02))".to_owned();
    let patience = Duration::from_mins(1);
    let report = Crowd { query, patience, ..Crowd::new(DATABASE.into(), CLIENTS) }.run(&site.client).unwrap();
    println!("{CLIENTS} clients were served in {:?}, the slowest in {:?}", report.elapsed, report.slowest);
    assert_eq!(report.errors, BTreeMap::new(), "{report:?}");
    assert_eq!(report.broken, BTreeMap::new(), "{report:?}");
    assert_eq!(report.answers, BTreeMap::from([("slept 0".to_owned(), CLIENTS as u64)]));
    let (turned_away, most) = server_counts(&site);
    assert_eq!(turned_away, 0);
    // The monitor and this test are connected too.
    assert!(most <= LIMIT + 5, "{most}");
    let counted = |status: &Status| status.service("db-write").opened == CLIENTS as u64;
    site.balancer.wait(counted, "each client to be counted once", Duration::from_secs(10)).unwrap();
}

#[test]
fn with_reset_clients_that_do_not_fit_are_refused_and_none_sees_error_1040() {
    const NAME: &str = "with_reset_clients_that_do_not_fit_are_refused_and_none_sees_error_1040";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Galera]) {
        return;
    }
    let site = Site::start(0, 1, &text("no-backend = \"reset\""), &[]).unwrap();
    Crowd::admit(&site.galera.as_ref().unwrap().nodes()[0]).unwrap();
    // Longer than it takes all of them to come.
    let query = "SELECT SLEEP(3)".to_owned();
    let report = Crowd { query, ..Crowd::new(DATABASE.into(), CLIENTS) }.run(&site.client).unwrap();
    println!("{report:?}");
    assert_eq!(report.errors, BTreeMap::new(), "{report:?}");
    assert_eq!(report.answers, BTreeMap::from([("0".to_owned(), LIMIT)]));
    assert_eq!(report.broken, BTreeMap::from([("refused".to_owned(), CLIENTS as u64 - LIMIT)]));
    assert_eq!(server_counts(&site).0, 0);
}
