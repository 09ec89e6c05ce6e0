//! MariaDB without Galera, a primary and two replicas, behind a service for the writer and one for readers: exactly what
//! the balancer makes of lag, of broken replication, of `read_only`, of connections that run out, of a promotion and of the
//! death of a primary.

use std::net::SocketAddrV4;
use std::time::Duration;

use lb_tests::lab::balancer::{Look as _, Status};
use lb_tests::lab::crowd::Crowd;
use lb_tests::lab::galera::journal::{Journal, READERS, replicas};
use lb_tests::lab::galera::{GaleraNode, Servers};
use lb_tests::lab::mysql::{Login, Session};
use lb_tests::lab::setup::DATABASE;
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Balancer, Host, Lab, wait_for};

const LIMIT: Duration = Duration::from_secs(20);
const MAX_LAG: &str = "2s";
const RHYTHM: &str = "interval = \"200ms\", timeout = \"200ms\"";
/// Three more questions of a monitor: whatever a server says now has been heard.
const HEARD: u64 = 3;

const REPLICATES: &str = "a replica";
const STANDS_STILL: &str = "a replica whose replication stands still";

/// The fields are dropped in this order.
struct Site {
    balancer: Balancer,
    servers: Servers,
    client: Host,
}

impl Site {
    fn start() -> Self {
        let lab = Lab::new().unwrap();
        let host = lab.balancer_host().unwrap();
        let client = lab.client_host().unwrap();
        let hosts = [1, 2, 3].map(|number| lab.database_host(number).unwrap());
        let servers = Servers::start(&hosts.iter().collect::<Vec<_>>()).unwrap();
        let balancer = Balancer::start(&host, &replicas(MAX_LAG, RHYTHM), &[]).unwrap();
        Self { balancer, servers, client }
    }

    fn node(&self, number: usize) -> &GaleraNode {
        &self.servers.nodes()[number - 1]
    }

    /// Runs statements as root on the server of that number.
    fn sql(&self, number: usize, statements: &str) {
        self.node(number).sql(statements).unwrap();
    }

    fn status(&self) -> Status {
        self.balancer.status().unwrap()
    }

    /// Waits until these of db1, db2 and db3 take new connections of a service.
    fn taking(&self, service: &str, wanted: [u32; 3]) {
        self.balancer.wait(|status| taking(status, service) == wanted, "these servers", LIMIT).unwrap();
    }

    /// Waits until the reasons of db1, db2 and db3 are these.
    fn reasons(&self, wanted: [&str; 3]) {
        let are = |status: &Status| {
            status.clusters[0].nodes.iter().zip(wanted).all(|(node, reason)| node.reason == reason)
        };
        self.balancer.wait(are, "these reasons", LIMIT).unwrap();
    }

    fn session(&self, service: SocketAddrV4) -> Session {
        Session::open(&self.client, &Login::app(service)).unwrap()
    }

    /// Waits until a monitor has asked a server anew since now.
    fn heard(&self, number: usize) {
        let asked = || self.node(number).status("Com_show_status")?.parse::<u64>().ok();
        let before = asked().unwrap();
        let mut looks = 0;
        wait_for("the monitor's questions", LIMIT, || {
            looks += 1;
            (asked()? >= before + looks + HEARD).then_some(())
        })
        .unwrap();
    }
}

fn taking(status: &Status, service: &str) -> Vec<u32> {
    status.service(service).backends.iter().map(|node| u32::from(node.weight_effective > 0.0)).collect()
}

fn writer(status: &Status) -> (Option<&str>, u64) {
    (status.clusters[0].writer.as_deref(), status.clusters[0].epoch)
}

#[test]
fn a_primary_and_its_replicas_have_exactly_these_transitions() {
    const NAME: &str = "a_primary_and_its_replicas_have_exactly_these_transitions";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Galera]) {
        return;
    }
    let site = Site::start();
    site.reasons(["writable", REPLICATES, REPLICATES]);
    assert_eq!(writer(&site.status()), (Some("db1"), 1));
    each_role_reaches_its_servers(&site);
    a_replica_that_lags(&site);
    replication_that_stands_still(&site);
    a_replica_that_can_be_written_to(&site);
    connections_that_run_out(&site);
    a_primary_that_is_read_only(&site);
    a_promotion(&site);
    the_death_of_a_primary(&site);
}

fn each_role_reaches_its_servers(site: &Site) {
    site.taking("db-read", [0, 1, 1]);
    for (service, servers) in [(DATABASE, &["db1"][..]), (READERS, &["db2", "db3"])] {
        let mut reached: Vec<String> = (0..4).map(|_| site.session(service).node().unwrap()).collect();
        reached.sort();
        reached.dedup();
        assert_eq!(reached, servers, "{service}");
    }
    let mut session = site.session(DATABASE);
    session.query("INSERT INTO a(v) VALUES('first')", LIMIT).unwrap();
    for number in [2, 3] {
        site.node(number).wait_for_all_of(site.node(1)).unwrap();
        assert_eq!(site.node(number).sql("SELECT v FROM t.a").unwrap(), "first\n");
    }
}

/// A backup's lock on a replica: it falls behind as soon as something is written.
fn a_replica_that_lags(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    site.sql(1, "GRANT RELOAD ON *.* TO app@'10.77.%'");
    site.node(2).wait_for_all_of(site.node(1)).unwrap();
    let mut backup = Session::open(&site.client, &Login::app(site.node(2).address())).unwrap();
    backup.query("FLUSH TABLES WITH READ LOCK", LIMIT).unwrap();
    let mut reader = wait_for("a session on db2", LIMIT, || {
        let mut session = site.session(READERS);
        (session.node().ok()? == "db2").then_some(session)
    })
    .unwrap();
    site.session(DATABASE).query("INSERT INTO a(v) VALUES('late')", LIMIT).unwrap();
    journal.expect(&["db2: Reader → NoNew: a replica, 3 s behind"]);
    site.taking("db-read", [0, 0, 1]);
    let count = "SELECT COUNT(*) FROM a WHERE v = 'late'";
    assert_eq!(reader.node().unwrap(), "db2", "existing connections stay");
    assert_eq!(reader.query(count, LIMIT).unwrap(), ["0"]);
    assert_eq!(site.session(READERS).query(count, LIMIT).unwrap(), ["1"]);
    backup.query("UNLOCK TABLES", LIMIT).unwrap();
    journal.expect(&["db2: NoNew → Reader: a replica"]);
    site.taking("db-read", [0, 1, 1]);
    assert_eq!(reader.query(count, LIMIT).unwrap(), ["1"]);
}

fn replication_that_stands_still(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    let stands_still = |name: &str| format!("{name}: Reader → NoNew: {STANDS_STILL}");
    let replicates = |name: &str| format!("{name}: NoNew → Reader: {REPLICATES}");
    for part in ["SQL_THREAD", "IO_THREAD"] {
        site.sql(3, &format!("STOP SLAVE {part}"));
        journal.expect(&[&stands_still("db3")]);
        site.taking("db-read", [0, 1, 0]);
        site.sql(3, "START SLAVE");
        journal.expect(&[&replicates("db3")]);
        site.taking("db-read", [0, 1, 1]);
    }
    // Where no replica is fit, the primary is read from; it is up to date.
    for (number, name) in [(2, "db2"), (3, "db3")] {
        site.sql(number, "STOP SLAVE");
        journal.expect(&[&stands_still(name)]);
    }
    site.taking("db-read", [1, 0, 0]);
    for (number, name) in [(2, "db2"), (3, "db3")] {
        site.sql(number, "START SLAVE");
        journal.expect(&[&replicates(name)]);
    }
    site.taking("db-read", [0, 1, 1]);
}

/// A replica is none that is written to, `read_only` or not. Another primary is an alarm, and moves nothing.
fn a_replica_that_can_be_written_to(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    site.sql(2, "SET GLOBAL read_only=OFF");
    site.heard(2);
    journal.expect(&[]);
    site.taking("db-write", [1, 0, 0]);
    assert_eq!(site.status().alarms, Vec::<String>::new());

    site.sql(2, "STOP SLAVE; RESET SLAVE ALL");
    site.reasons(["writable", "writable", REPLICATES]);
    let alarmed = |status: &Status| !status.alarms.is_empty();
    let status = site.balancer.wait(alarmed, "an alarm", LIMIT).unwrap();
    assert!(
        status.alarms[0].contains("db1, db2 could all be written to; the writer stays"),
        "{:?}",
        status.alarms
    );
    assert_eq!(writer(&status), (Some("db1"), 1));
    assert_eq!(site.session(DATABASE).node().unwrap(), "db1");
    site.sql(2, "SET GLOBAL read_only=ON");
    site.node(2).replicate_from(site.node(1)).unwrap();
    site.reasons(["writable", REPLICATES, REPLICATES]);
    assert_eq!(writer(&site.status()), (Some("db1"), 1));
    assert_eq!(site.status().alarms, Vec::<String>::new());
}

fn connections_that_run_out(site: &Site) {
    Crowd::admit(site.node(1)).unwrap();
    site.node(3).wait_for_all_of(site.node(1)).unwrap();
    let mut journal = Journal::begin(&site.balancer);
    let full = |number: usize, clients: usize| {
        let query = "SELECT SLEEP(3)".to_owned();
        let crowd = Crowd { query, ..Crowd::new(site.node(number).address().into(), clients) };
        let client = site.client.clone();
        std::thread::spawn(move || crowd.run(&client).unwrap())
    };
    // Two replicas and the monitor are connected as well.
    let flood = full(1, 56);
    journal.expect(&["db1: Writer → NoNew: nearly all connections are in use"]);
    site.taking("db-write", [1, 0, 0]);
    assert_eq!(flood.join().unwrap().answered(), 56);
    journal.expect(&["db1: NoNew → Writer: writable"]);

    let flood = full(3, 57);
    journal.expect(&["db3: Reader → NoNew: read-only, and nearly all connections are in use"]);
    site.taking("db-read", [0, 1, 0]);
    assert_eq!(flood.join().unwrap().answered(), 57);
    journal.expect(&["db3: NoNew → Reader: a replica"]);
    site.taking("db-read", [0, 1, 1]);
    assert_eq!(writer(&site.status()), (Some("db1"), 1));
}

fn a_primary_that_is_read_only(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    site.sql(1, "SET GLOBAL read_only=ON");
    journal.expect(&["db1: Writer → Reader: read_only", "no writer: db1 is out: db1: read_only"]);
    site.taking("db-write", [0, 0, 0]);
    site.taking("db-read", [1, 1, 1]);
    site.sql(1, "SET GLOBAL read_only=OFF");
    journal.expect(&["db1: Reader → Writer: writable", "writer db1, epoch 2, elected: the first candidate"]);
    site.taking("db-read", [0, 1, 1]);
}

/// As an administrator makes it: the old primary is closed first.
fn a_promotion(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    site.sql(1, "SET GLOBAL read_only=ON");
    journal.expect(&["db1: Writer → Reader: read_only", "no writer: db1 is out: db1: read_only"]);
    site.node(2).wait_for_all_of(site.node(1)).unwrap();
    // What stands still for a moment may be seen or not.
    site.sql(2, "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only=OFF");
    let news = journal.until(&["writer db2, epoch 3, elected: the first candidate"]).unwrap();
    assert!(news.iter().filter(|line| line.contains("writer")).count() == 1, "{news:?}");
    site.node(1).replicate_from(site.node(2)).unwrap();
    site.node(3).replicate_from(site.node(2)).unwrap();
    site.reasons([REPLICATES, "writable", REPLICATES]);
    site.taking("db-read", [1, 0, 1]);
    let mut session = site.session(DATABASE);
    assert_eq!(session.node().unwrap(), "db2");
    session.query("INSERT INTO a(v) VALUES('after')", LIMIT).unwrap();
    for number in [1, 3] {
        site.node(number).wait_for_all_of(site.node(2)).unwrap();
    }
    assert_eq!(site.session(READERS).query("SELECT v FROM a", LIMIT).unwrap(), ["first", "late", "after"]);
}

/// Nobody promotes a replica by himself. Readers go on with what there is.
fn the_death_of_a_primary(site: &Site) {
    let mut journal = Journal::begin(&site.balancer);
    site.node(2).kill9().unwrap();
    site.reasons([STANDS_STILL, "connection refused", STANDS_STILL]);
    let mut news = journal.until(&["db1: ", "db3: "]).unwrap();
    news.sort();
    let wanted = [
        format!("db1: Reader → NoNew: {STANDS_STILL}"),
        "db2: Writer → Out: connection refused".to_owned(),
        format!("db3: Reader → NoNew: {STANDS_STILL}"),
        "no writer: db2 is out: db2: connection refused".to_owned(),
    ];
    assert!(news.len() == wanted.len(), "{news:?}");
    assert!(news.iter().zip(&wanted).all(|(is, wanted)| is.starts_with(wanted)), "{news:?}");
    site.taking("db-read", [1, 0, 1]);
    let count = "SELECT COUNT(*) FROM a";
    assert_eq!(site.session(READERS).query(count, LIMIT).unwrap(), ["3"]);
    site.node(2).start_alone().unwrap();
    site.reasons([REPLICATES, "writable", REPLICATES]);
    assert_eq!(writer(&site.status()), (Some("db2"), 4));
    assert_eq!(site.session(DATABASE).query(count, LIMIT).unwrap(), ["3"]);
}
