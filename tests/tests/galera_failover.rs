//! PHP pages that write to Galera through the balancer, and the death of the writer under them.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lb_tests::lab::balancer::{Look, Status};
use lb_tests::lab::galera::GaleraNode;
use lb_tests::lab::http::{Client, Options};
use lb_tests::lab::load::{Load, LoadReport, Running};
use lb_tests::lab::mysql::{Login, Session, SessionError};
use lb_tests::lab::php::{DbAnswer, db_answer};
use lb_tests::lab::setup::{DATABASE, WEB};
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Setup, Site, wait_for};

const LIMIT: Duration = Duration::from_secs(20);
const PAGE: &str = "/db.php?h=10.77.0.101&tag=";
/// Pages at a time.
const THREADS: usize = 6;

/// What the pages were told: rows that are written, by number.
fn acknowledged(report: &LoadReport) -> BTreeMap<u64, DbAnswer> {
    let rows = report.bodies.iter().map(|(body, count)| {
        assert_eq!(*count, 1, "every page writes a row of its own: {body}");
        let answer = db_answer(body).unwrap();
        assert!(answer.ok, "{body}");
        (answer.id.unwrap(), answer)
    });
    rows.collect()
}

/// How often each step of a page failed with each of MySQL's errors.
fn failures(report: &LoadReport) -> BTreeMap<(String, u32), u64> {
    let mut failures = BTreeMap::new();
    for (failure, count) in &report.failures {
        let body = failure.strip_prefix("status 503: ").unwrap_or_else(|| panic!("{failure}"));
        let answer = db_answer(body).unwrap();
        *failures.entry((answer.step.unwrap(), answer.errno.unwrap())).or_default() += count;
    }
    failures
}

/// Rows on a node, after it has applied everything that was committed before.
fn rows(node: &GaleraNode, like: &str) -> BTreeSet<(u64, String)> {
    let query = format!("SET SESSION wsrep_sync_wait=1; SELECT id, v FROM t.a WHERE v LIKE '{like}'");
    let text = node.sql(&query).unwrap();
    let row = |line: &str| line.split_once('\t').map(|(id, v)| (id.parse().unwrap(), v.to_owned())).unwrap();
    text.lines().map(row).collect()
}

fn writer(status: &Status) -> (Option<&str>, u64) {
    (status.clusters[0].writer.as_deref(), status.clusters[0].epoch)
}

fn answered(load: &Running, more: u64) {
    let before = load.so_far().succeeded();
    wait_for("more pages", LIMIT, || (load.so_far().succeeded() >= before + more).then_some(())).unwrap();
}

/// When the survivor sees a cluster of two.
fn notice_of(site: &Site, survivor: &GaleraNode) -> JoinHandle<Instant> {
    let mut session = Session::open(&site.client, &Login::app(survivor.address())).unwrap();
    std::thread::spawn(move || {
        wait_for("the cluster's own notice", LIMIT, || {
            let size = session.query("SHOW STATUS LIKE 'wsrep_cluster_size'", LIMIT).ok()?;
            (size == ["wsrep_cluster_size\t2"]).then(Instant::now)
        })
        .unwrap()
    })
}

#[test]
fn pages_write_to_one_node_through_the_balancer_and_survive_its_death() {
    const NAME: &str = "pages_write_to_one_node_through_the_balancer_and_survive_its_death";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php, Need::Galera]) {
        return;
    }
    let site = Site::start(2, 3, &Setup::new().web(2).database(3).text(), &[]).unwrap();
    let bystanders = site.watch().unwrap();
    every_row_is_written_once_and_on_the_writer(&site);
    the_writer_is_killed(&site);
    bystanders.assert_undisturbed();
}

/// A page that waits for its database for some seconds; its answer and when it came.
fn waiting_page(site: &Site, seconds: u32) -> JoinHandle<(Instant, u16, DbAnswer)> {
    let path = format!("/db.php?h={}&rt=90&sleep={seconds}&tag=waited", DATABASE.ip());
    let page = site.client.thread(move || {
        let options = Options { read_timeout: Duration::from_secs(100), ..Options::default() };
        let answer = Client::new(options).get(WEB, &path).unwrap();
        (Instant::now(), answer.status, db_answer(&answer.body).unwrap())
    });
    std::thread::spawn(|| page.join().unwrap().unwrap())
}

/// When the service has so many connections.
fn wait_live(site: &Site, live: u64) {
    let enough = |status: &Status| status.service("db-write").live == live;
    site.balancer.wait(enough, "the connections", LIMIT).unwrap();
}

/// When the cluster has this writer.
fn wait_writer(site: &Site, name: &str) -> Instant {
    site.balancer.wait(|status| writer(status).0 == Some(name), "a new writer", LIMIT).unwrap();
    Instant::now()
}

#[test]
fn a_page_that_waits_for_a_dead_writers_answer_fails_as_soon_as_there_is_another() {
    const NAME: &str = "a_page_that_waits_for_a_dead_writers_answer_fails_as_soon_as_there_is_another";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php, Need::Galera]) {
        return;
    }
    let site = Site::start(1, 3, &Setup::new().web(1).database(3).text(), &[]).unwrap();
    let galera = site.galera.as_ref().unwrap();
    assert_eq!(writer(&site.balancer.status().unwrap()).0, Some("db1"));
    let page = waiting_page(&site, 60);
    let mut idle = Session::open(&site.client, &Login::app(DATABASE)).unwrap();
    assert_eq!(idle.node().unwrap(), "db1");
    wait_live(&site, 2);
    // Nothing that this host's kernel says reaches anybody: only the balancer can tell the page.
    galera.node("db1").unwrap().host().link_down().unwrap();
    let elected = wait_writer(&site, "db2");
    let (ended, status, answer) = page.join().unwrap();
    let after = ended.saturating_duration_since(elected);
    println!("the page failed {after:?} after the election was seen: {answer:?}");
    assert_eq!((status, answer.step.as_deref()), (503, Some("sleep")));
    assert!(matches!(answer.errno, Some(2006 | 2013)), "{answer:?}");
    assert!(after < Duration::from_secs(1), "{after:?}");
    assert_lost_at_once(&mut idle);
    wait_live(&site, 0);
    let mut next = Session::open(&site.client, &Login::app(DATABASE)).unwrap();
    assert_eq!(next.node().unwrap(), "db2");
}

#[test]
fn a_planned_switch_lets_pages_finish_for_its_grace_and_cuts_what_is_left() {
    const NAME: &str = "a_planned_switch_lets_pages_finish_for_its_grace_and_cuts_what_is_left";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php, Need::Galera]) {
        return;
    }
    let site = Site::start(1, 3, &Setup::new().web(1).database(3).text(), &[]).unwrap();
    let [short, long] = [5, 60].map(|seconds| waiting_page(&site, seconds));
    let mut idle = Session::open(&site.client, &Login::app(DATABASE)).unwrap();
    assert_eq!(idle.node().unwrap(), "db1");
    wait_live(&site, 3);
    assert_eq!(site.balancer.run_lb(&["drain", "db/db1"]).unwrap().status.code(), Some(0));
    let elected = wait_writer(&site, "db2");
    // The former writer still answers whom it had before.
    assert_eq!(idle.node().unwrap(), "db1");
    let (_, status, answer) = short.join().unwrap();
    assert_eq!((status, answer.node.as_deref()), (200, Some("db1")), "{answer:?}");
    let (ended, status, answer) = long.join().unwrap();
    let after = ended.saturating_duration_since(elected);
    println!("what was left was cut {after:?} after the election was seen");
    assert_eq!((status, answer.step.as_deref()), (503, Some("sleep")), "{answer:?}");
    assert!(matches!(answer.errno, Some(2006 | 2013)), "{answer:?}");
    // The agent looks at the end of the grace once a second.
    assert!(after > Duration::from_secs(8) && after < Duration::from_secs(13), "{after:?}");
    assert_lost_at_once(&mut idle);
    wait_live(&site, 0);
}

/// The connection has ended already, so its next statement waits for nobody.
fn assert_lost_at_once(session: &mut Session) {
    let start = Instant::now();
    let error = session.query("SELECT 1", LIMIT).unwrap_err();
    assert!(matches!(error, SessionError::Lost { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
}

fn every_row_is_written_once_and_on_the_writer(site: &Site) {
    let galera = site.galera.as_ref().unwrap();
    let before = site.balancer.status().unwrap();
    assert_eq!(writer(&before), (Some("db1"), 1));
    let path = format!("{PAGE}quiet-{{n}}");
    let report = Load { requests: Some(200), ..Load::new(WEB, &path) }.run(&site.client).unwrap();
    assert_eq!(report.failures, BTreeMap::new());
    let pages = acknowledged(&report);
    assert_eq!(pages.len(), 200);
    assert!(pages.values().all(|page| page.node.as_deref() == Some("db1")), "{pages:?}");
    let told: BTreeSet<_> = pages.iter().map(|(id, page)| (*id, page.value.clone().unwrap())).collect();
    for node in galera.nodes() {
        assert_eq!(rows(node, "quiet-%"), told, "{}", node.name());
    }
    let after =
        site.balancer.wait(|status| status.service("db-write").live == 0, "all to be closed", LIMIT).unwrap();
    let opened = |name| after.backend(name).opened - before.backend(name).opened;
    assert_eq!(["db-write/db1", "db-write/db2", "db-write/db3"].map(opened), [200, 0, 0]);
    let served: u64 = ["web/web1", "web/web2"].map(opened).iter().sum();
    assert_eq!(served, 200);
}

fn the_writer_is_killed(site: &Site) {
    let galera = site.galera.as_ref().unwrap();
    let before = site.balancer.status().unwrap().backend("db-write/db1").opened;
    let path = format!("{PAGE}storm-{{n}}");
    let load = Load { threads: THREADS, ..Load::new(WEB, &path) }.start(&site.client);
    answered(&load, 100);
    assert_eq!(load.so_far().failures, BTreeMap::new());
    let noticed = notice_of(site, galera.node("db2").unwrap());
    let killed = Instant::now();
    galera.node("db1").unwrap().kill9().unwrap();

    let chosen = site
        .balancer
        .wait(|status| writer(status) == (Some("db2"), 2), "a new writer", LIMIT)
        .map(|_| Instant::now())
        .unwrap();
    let noticed = noticed.join().unwrap();
    println!("noticed by the cluster after {:?}, chosen after {:?}", noticed - killed, chosen - killed);
    assert!(chosen.saturating_duration_since(noticed) < Duration::from_secs(3));
    answered(&load, 100);
    let report = load.stop().unwrap();
    let failures = failures(&report);
    println!("{} pages, the slowest took {:?}: {failures:?}", report.succeeded(), report.slowest_request);
    // Only a page whose connection stood on the dying node has failed: it was lost (2006, 2013), not refused
    // (2002). The kernel takes connections for a process until its listener is closed, so a client may have lost
    // a second one.
    assert!(failures.keys().all(|(_, errno)| matches!(errno, 2006 | 2013)), "{failures:?}");
    assert!(report.failed() <= 2 * THREADS as u64, "{failures:?}");
    let pages = acknowledged(&report);
    let served = pages.values().filter(|page| page.node.as_deref() == Some("db1")).count() as u64;
    let opened = site.balancer.status().unwrap().backend("db-write/db1").opened - before;
    assert!(served + report.failed() <= opened, "{served} and {} of {opened}", report.failed());
    let nodes: BTreeSet<_> = pages.values().filter_map(|page| page.node.clone()).collect();
    assert_eq!(nodes, BTreeSet::from(["db1".to_owned(), "db2".to_owned()]));
    let told: BTreeSet<_> = pages.iter().map(|(id, page)| (*id, page.value.clone().unwrap())).collect();
    for name in ["db2", "db3"] {
        let kept = rows(galera.node(name).unwrap(), "storm-%");
        let lost: Vec<_> = told.difference(&kept).collect();
        assert!(lost.is_empty(), "acknowledged and not on {name}: {lost:?}");
        // Rows beyond those were written by pages whose answer was lost: those that failed.
        assert!((kept.len() - told.len()) as u64 <= report.failed(), "{name}");
    }

    // The former writer comes back, and moves nothing.
    galera.node("db1").unwrap().start_again().unwrap();
    galera.wait_size(3, LIMIT).unwrap();
    let ready = |status: &Status| {
        status.clusters[0]
            .nodes
            .iter()
            .all(|node| node.readiness == lb_tests::lab::balancer::NodeReadiness::Ready)
    };
    let status = site.balancer.wait(ready, "all three to be ready", LIMIT).unwrap();
    assert_eq!(writer(&status), (Some("db2"), 2));
    let report = Load { requests: Some(50), ..Load::new(WEB, &format!("{PAGE}after-{{n}}")) };
    let report = report.run(&site.client).unwrap();
    assert_eq!((report.succeeded(), report.failed()), (50, 0), "{:?}", report.failures);
    assert_eq!(writer(&site.balancer.status().unwrap()), (Some("db2"), 2));
}
