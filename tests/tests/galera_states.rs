//! What an administrator does to the nodes of a real cluster, and exactly what the balancer makes of it: desync, a backup
//! lock, rejected queries, read_only, connections that run out, and orders to the balancer itself.

use std::thread::JoinHandle;
use std::time::Duration;

use lb_tests::lab::balancer::{Look as _, Status};
use lb_tests::lab::galera::GaleraNode;
use lb_tests::lab::galera::journal::{ANY, Journal, READERS, roles};
use lb_tests::lab::mysql::{Login, Session, SessionError};
use lb_tests::lab::setup::DATABASE;
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Site, wait_for};

const LIMIT: Duration = Duration::from_secs(20);
const RHYTHM: &str = "interval = \"200ms\", timeout = \"200ms\"";

fn node<'a>(site: &'a Site, name: &str) -> &'a GaleraNode {
    site.galera.as_ref().unwrap().node(name).unwrap()
}

fn set(site: &Site, name: &str, variable: &str) {
    node(site, name).sql(&format!("SET GLOBAL {variable}")).unwrap();
}

/// Whether db1, db2 and db3 take new connections of a service. One that comes back from being out starts slowly.
fn taking(status: &Status, service: &str) -> Vec<u32> {
    status.service(service).backends.iter().map(|node| u32::from(node.weight_effective > 0.0)).collect()
}

fn wait_taking(site: &Site, service: &str, wanted: [u32; 3]) {
    site.balancer.wait(|status| taking(status, service) == wanted, "these nodes", LIMIT).unwrap();
}

fn writer(status: &Status) -> (Option<&str>, u64) {
    (status.clusters[0].writer.as_deref(), status.clusters[0].epoch)
}

fn lb(site: &Site, line: &str) -> (i32, String) {
    let output = site.balancer.run_lb(&line.split(' ').collect::<Vec<_>>()).unwrap();
    (output.status.code().unwrap(), output.stdout + &output.stderr)
}

#[test]
fn what_administrators_do_to_nodes_has_exactly_these_consequences() {
    const NAME: &str = "what_administrators_do_to_nodes_has_exactly_these_consequences";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Galera]) {
        return;
    }
    let site = Site::start(0, 3, &roles(RHYTHM), &[]).unwrap();
    let status = site.balancer.status().unwrap();
    assert_eq!(writer(&status), (Some("db1"), 1));
    wait_taking(&site, "db-read", [0, 1, 1]);
    wait_taking(&site, "db-any", [1, 1, 1]);
    each_role_reaches_its_nodes(&site);
    desync(&site);
    rejected_queries(&site);
    read_only(&site);
    a_backup_lock(&site);
    orders(&site);
}

fn each_role_reaches_its_nodes(site: &Site) {
    for (service, nodes) in
        [(DATABASE, &["db1"; 6][..]), (READERS, &["db2", "db3"]), (ANY, &["db1", "db2", "db3"])]
    {
        let mut reached: Vec<String> = (0..6)
            .map(|_| Session::open(&site.client, &Login::app(service)).unwrap().node().unwrap())
            .collect();
        reached.sort();
        reached.dedup();
        let mut wanted = nodes.to_vec();
        wanted.dedup();
        assert_eq!(reached, wanted, "{service}");
    }
}

fn desync(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    let mut reader = on_node(site, READERS, "db2");
    set(site, "db2", "wsrep_desync=ON");
    journal.expect(&["db2: Writer → NoNew: wsrep_desync is ON"]);
    wait_taking(site, "db-read", [0, 0, 1]);
    wait_taking(site, "db-any", [1, 0, 1]);
    assert_eq!(reader.node().unwrap(), "db2", "existing connections stay");
    set(site, "db2", "wsrep_desync=OFF");
    journal.expect(&["db2: NoNew → Writer: synced"]);

    // The writer hands over at once, and nobody takes that back.
    set(site, "db1", "wsrep_desync=ON");
    journal.expect(&[
        "db1: Writer → NoNew: wsrep_desync is ON",
        "writer db2, epoch 2, elected by plan: db1: wsrep_desync is ON",
    ]);
    wait_taking(site, "db-read", [0, 0, 1]);
    set(site, "db1", "wsrep_desync=OFF");
    journal.expect(&["db1: NoNew → Writer: synced"]);
}

/// A session that a service has led to this node.
fn on_node(site: &Site, service: std::net::SocketAddrV4, name: &str) -> Session {
    wait_for("a session on that node", LIMIT, || {
        let mut session = Session::open(&site.client, &Login::app(service)).ok()?;
        (session.node().ok()? == name).then_some(session)
    })
    .unwrap()
}

fn rejected_queries(site: &Site) {
    for (value, text) in [("ALL", "ALL"), ("ALL_KILL", "ALL_KILL")] {
        let mut journal = Journal::begin(&site.balancer);
        let mut reader = on_node(site, READERS, "db3");
        set(site, "db3", &format!("wsrep_reject_queries={value}"));
        journal.expect(&[&format!("db3: Writer → Out: wsrep_reject_queries is {text}")]);
        wait_taking(site, "db-read", [1, 0, 0]);
        // Its connections are cut, or the server did so.
        wait_for("the session to be lost", LIMIT, || {
            matches!(reader.query("SELECT 1", LIMIT), Err(SessionError::Lost { .. })).then_some(())
        })
        .unwrap();
        set(site, "db3", "wsrep_reject_queries=NONE");
        journal.expect(&["db3: Out → Writer: synced"]);
        wait_taking(site, "db-read", [1, 0, 1]);
    }
}

/// Sets `read_only` on a node. The server takes its backup lock for that, so a probe may find a donor for a moment, which
/// is left out of what was decided until `last`.
fn now_reads_only(site: &Site, journal: &mut Journal<'_>, name: &str, last: &str) -> Vec<String> {
    set(site, name, "read_only=ON");
    let news = journal.until(&[last]).unwrap();
    let passes = |line: &&String| !line.ends_with(": donor");
    news.iter().filter(passes).map(|line| line.replace("NoNew → Reader", "Writer → Reader")).collect()
}

fn read_only(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    let news = now_reads_only(site, &mut journal, "db3", "db3: ");
    let news = if news.is_empty() { journal.until(&["db3: NoNew → Reader"]).unwrap() } else { news };
    assert!(news.len() == 1 && news[0].ends_with("→ Reader: read_only"), "{news:?}");
    wait_taking(site, "db-any", [1, 1, 0]);
    assert_eq!(taking(&site.balancer.status().unwrap(), "db-read"), [1, 0, 1]);
    // The writer cannot write: the next in order that can.
    let last = "writer db1, epoch 3, elected after a failure: db2: read_only";
    let news = now_reads_only(site, &mut journal, "db2", last);
    assert_eq!(news, ["db2: Writer → Reader: read_only", last]);
    let last = "no writer: db1 is out: db1: read_only";
    let news = now_reads_only(site, &mut journal, "db1", last);
    assert_eq!(news, ["db1: Writer → Reader: read_only", last]);
    assert_eq!(taking(&site.balancer.status().unwrap(), "db-read"), [1, 1, 1]);
    set(site, "db3", "read_only=OFF");
    journal.expect(&["db3: Reader → Writer: synced", "writer db3, epoch 4, elected: the first candidate"]);
    set(site, "db1", "read_only=OFF");
    journal.expect(&["db1: Reader → Writer: synced"]);
    set(site, "db2", "read_only=OFF");
    journal.expect(&["db2: Reader → Writer: synced"]);
}

/// The node behind `reader` applies nothing at the moment: it answers with what it has, or waits if it is told to.
fn what_another_connection_reads(site: &Site, reader: &mut Session) {
    let mut session = Session::open(&site.client, &Login::app(DATABASE)).unwrap();
    assert_eq!(session.node().unwrap(), "db3");
    let count = "SELECT COUNT(*) FROM a WHERE v = 'new'";
    session.query("INSERT INTO a(v) VALUES('new')", LIMIT).unwrap();
    assert_eq!(session.query(count, LIMIT).unwrap(), ["1"], "a session reads its own writes");
    assert_eq!(reader.query(count, LIMIT).unwrap(), ["0"], "another one on another node need not");
    reader.query("SET SESSION wsrep_sync_wait=1", LIMIT).unwrap();
    assert_eq!(reader.query(count, LIMIT).unwrap(), ["1"], "unless it waits for what was committed before");
}

/// A thread that holds a node's backup lock for so many seconds.
fn locked(site: &Site, name: &str, seconds: u32) -> JoinHandle<()> {
    let hold = format!("FLUSH TABLES WITH READ LOCK; DO SLEEP({seconds}); UNLOCK TABLES");
    let sql = node(site, name).detached(&hold);
    std::thread::spawn(move || sql.join().unwrap().unwrap())
}

fn a_backup_lock(site: &Site) {
    let mut reader = on_node(site, READERS, "db2");
    let mut journal = Journal::begin(&site.balancer);
    let lock = locked(site, "db2", 3);
    journal.expect(&["db2: Writer → NoNew: donor"]);
    wait_taking(site, "db-read", [1, 0, 0]);
    what_another_connection_reads(site, &mut reader);
    lock.join().unwrap();
    journal.expect(&["db2: NoNew → Writer: synced"]);
    // A writer keeps the role through a short one, and hands it over in a long one.
    locked(site, "db3", 2).join().unwrap();
    journal.expect(&["db3: Writer → NoNew: donor", "db3: NoNew → Writer: synced"]);
    locked(site, "db3", 8).join().unwrap();
    journal.expect(&[
        "db3: Writer → NoNew: donor",
        "writer db1, epoch 5, elected by plan: db3: donor",
        "db3: NoNew → Writer: synced",
    ]);
}

fn orders(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    let (code, said) = lb(site, "galera switch db db2");
    assert_eq!(
        (code, said.as_str()),
        (0, "db: writer db2, epoch 6; connections to db1 have ten seconds to finish\n")
    );
    journal.expect(&["writer db2, epoch 6, elected by plan: an operator wants it"]);
    assert_eq!(lb(site, "galera switch db db2").0, 1);
    assert_eq!(lb(site, "galera switch db db9").0, 2);
    assert_eq!(lb(site, "galera accept db db1").0, 1);
    assert_eq!(lb(site, "galera status dp").0, 2);
    assert_eq!(lb(site, "galera freeze db").0, 0);
    set(site, "db2", "wsrep_reject_queries=ALL");
    journal.expect(&[
        "db2: Writer → Out: wsrep_reject_queries is ALL",
        "no writer: db2 is out: db2: wsrep_reject_queries is ALL",
    ]);
    let (code, said) = lb(site, "galera status db");
    assert_eq!(code, 0);
    assert!(
        said.contains("no writer") && said.contains("frozen") && said.contains("lb galera freeze"),
        "{said}"
    );
    let (_, json) = lb(site, "galera status --json");
    assert!(json.contains("\"frozen\": true") && json.contains("\"use\": \"out\""), "{json}");
    assert_eq!(lb(site, "galera freeze db --off").0, 0);
    journal.expect(&["writer db1, epoch 7, elected: the first candidate"]);
    set(site, "db2", "wsrep_reject_queries=NONE");
    journal.expect(&["db2: Out → Writer: synced"]);
}

#[test]
fn connections_that_run_out_move_nothing_even_over_a_restart_of_the_agent() {
    const NAME: &str = "connections_that_run_out_move_nothing_even_over_a_restart_of_the_agent";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Galera]) {
        return;
    }
    let mut site = Site::start(0, 3, &roles(RHYTHM), &[]).unwrap();
    assert_eq!(lb(&site, "galera freeze db").0, 0);
    lb_tests::lab::crowd::Crowd::admit(node(&site, "db1")).unwrap();
    let full = |name: &str, clients: usize| {
        let server = node(&site, name).address().into();
        let query = "SELECT SLEEP(12)".to_owned();
        let crowd =
            lb_tests::lab::crowd::Crowd { query, ..lb_tests::lab::crowd::Crowd::new(server, clients) };
        let client = site.client.clone();
        std::thread::spawn(move || crowd.run(&client).unwrap())
    };
    let mut journal = Journal::begin(&site.balancer);
    let reader = full("db2", 57);
    journal.expect(&["db2: Writer → NoNew: nearly all connections are in use"]);
    wait_taking(&site, "db-read", [0, 0, 1]);
    assert_eq!(reader.join().unwrap().answered(), 57);
    journal.expect(&["db2: NoNew → Writer: synced"]);
    let status = site.balancer.status().unwrap();
    assert_eq!(writer(&status), (Some("db1"), 1));

    // More than the writer takes, so that a new agent's monitor is refused with error 1040.
    let flood = full("db1", 70);
    journal.expect(&["db1: Writer → NoNew: nearly all connections are in use"]);
    site.balancer.terminate().unwrap();
    wait_for("the monitor's connection to be taken", LIMIT, || {
        let taken: u32 = node(&site, "db1").status("Threads_connected")?.parse().ok()?;
        (taken >= 60).then_some(())
    })
    .ok();
    site.balancer.restart().unwrap();
    let status = site.balancer.status().unwrap();
    assert_eq!((writer(&status), status.clusters[0].frozen), ((Some("db1"), 1), true));
    let report = flood.join().unwrap();
    assert!(report.answered() >= 57, "{report:?}");
    let back = |status: &Status| status.clusters[0].nodes.iter().all(|node| node.reason == "synced");
    let status = site.balancer.wait(back, "all to be synced", LIMIT).unwrap();
    assert_eq!(writer(&status), (Some("db1"), 1));
}
