//! The monitor towards real servers: it never counts as a failed connection, and trouble of its own is never taken for
//! an outage.

use std::io::Read as _;
use std::net::TcpStream;
use std::time::Duration;

use lb_tests::lab::balancer::{Look as _, Status};
use lb_tests::lab::galera::journal::{Journal, READERS, roles};
use lb_tests::lab::galera::{Galera, GaleraNode, GaleraOptions};
use lb_tests::lab::mysql::{Login, Session};
use lb_tests::lab::setup::DATABASE;
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Balancer, Lab, Site, wait_for};

const LIMIT: Duration = Duration::from_secs(40);
/// Ten times as often as by default.
const TENFOLD: &str = "interval = \"100ms\", timeout = \"100ms\"";
/// Probes of all nodes together.
const PROBES: u64 = 600;

fn writer(status: &Status) -> (Option<&str>, u64) {
    (status.clusters[0].writer.as_deref(), status.clusters[0].epoch)
}

/// The sum of a node's counters whose names are like this.
fn counted(node: &GaleraNode, like: &str) -> u64 {
    let rows = node.sql(&format!("SHOW GLOBAL STATUS WHERE Variable_name {like}")).unwrap();
    rows.lines().filter_map(|row| row.split_once('\t')?.1.parse::<u64>().ok()).sum()
}

#[test]
fn six_hundred_probes_at_ten_times_the_rate_count_as_no_failed_connection() {
    const NAME: &str = "six_hundred_probes_at_ten_times_the_rate_count_as_no_failed_connection";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Galera]) {
        return;
    }
    let mut site = Site::start(0, 3, &roles(TENFOLD), &[]).unwrap();
    let errors = "LIKE 'Connection_errors_%' OR Variable_name IN ('Aborted_connects', 'Aborted_clients')";
    let look = |site: &Site, like: &str| -> Vec<u64> {
        site.galera.as_ref().unwrap().nodes().iter().map(|node| counted(node, like)).collect()
    };
    // Each look of ours is a connection and a SHOW too.
    let before = (look(&site, errors), look(&site, "= 'Connections'"), look(&site, "= 'Com_show_status'"));
    let probes = |site: &Site, looks: u64| {
        let now = look(site, "= 'Com_show_status'");
        now.iter().zip(&before.2).map(|(now, before)| now - before).sum::<u64>() - 3 * looks
    };
    let mut looks = 0;
    let mut enough = |site: &Site, wanted: u64| {
        wait_for("the probes", LIMIT, || {
            looks += 1;
            (probes(site, looks) >= wanted).then_some(())
        })
        .unwrap();
    };
    enough(&site, PROBES / 2);
    // A monitor that ends says goodbye.
    site.balancer.restart().unwrap();
    enough(&site, PROBES);
    assert_eq!(look(&site, errors), before.0);
    let looks = looks + 3;
    let connections = look(&site, "= 'Connections'");
    for (now, before) in connections.iter().zip(&before.1) {
        assert!(now - before <= looks + 2, "{} connections, {looks} of them ours", now - before);
    }
}

#[test]
fn a_monitor_that_is_not_let_in_is_an_alarm_and_no_outage() {
    const NAME: &str = "a_monitor_that_is_not_let_in_is_an_alarm_and_no_outage";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Galera]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let host = lab.balancer_host().unwrap();
    let client = lab.client_host().unwrap();
    let hosts = [1, 2, 3].map(|number| lab.database_host(number).unwrap());
    let options = GaleraOptions { resolve_names: true, ..GaleraOptions::default() };
    let galera = Galera::start_with(&hosts.each_ref(), &options).unwrap();
    let mut balancer =
        Balancer::start(&host, &roles("interval = \"200ms\", timeout = \"200ms\""), &[]).unwrap();
    let mut journal = Journal::begin(&balancer);
    let serves = |balancer: &Balancer| {
        for (service, nodes) in [(DATABASE, &["db1"][..]), (READERS, &["db2", "db3"])] {
            let mut session = Session::open(&client, &Login::app(service)).unwrap();
            assert!(nodes.contains(&session.node().unwrap().as_str()));
        }
        assert_eq!(writer(&balancer.status().unwrap()), (Some("db1"), 1));
    };
    serves(&balancer);

    // A plain TCP check, of somebody else on the balancer's host, has it blocked.
    let second = galera.node("db2").unwrap();
    second.sql("SET GLOBAL max_connect_errors=3; FLUSH HOSTS").unwrap();
    let address = second.address();
    host.enter(|| {
        for _ in 0..8 {
            let mut stream = TcpStream::connect(address).unwrap();
            let _ = stream.read(&mut [0; 200]);
        }
    })
    .unwrap();
    second.sql("KILL USER mon").unwrap();
    let blocked = |status: &Status| status.alarms.iter().any(|alarm| alarm.contains("1129"));
    let status = balancer.wait(blocked, "the alarm", LIMIT).unwrap();
    let alarm = &status.alarms[0];
    assert!(alarm.contains("db2 cannot be asked") && alarm.contains("flush-hosts"), "{alarm}");
    assert!(status.backend("db-read/db2").weight_effective > 0.0, "its last state stands");
    assert_eq!(journal.news(), Vec::<String>::new());
    second.sql("SET GLOBAL max_connect_errors=100; FLUSH HOSTS").unwrap();
    balancer.wait(|status| status.alarms.is_empty(), "the alarm to end", LIMIT).unwrap();

    // The account has another password, everywhere, and the agent starts anew.
    galera.nodes()[0].sql("SET PASSWORD FOR mon@'10.77.%' = PASSWORD('other')").unwrap();
    galera.nodes().iter().for_each(|node| {
        // Whoever has no connection of the monitor has nothing to kill.
        let _ = node.sql("KILL USER mon");
    });
    let denied = |status: &Status| status.alarms.iter().filter(|alarm| alarm.contains("1045")).count() == 3;
    let status = balancer.wait(denied, "the alarms", LIMIT).unwrap();
    let create = "CREATE USER 'mon'@'10.77.0.10' IDENTIFIED BY";
    assert!(status.alarms.iter().all(|alarm| alarm.contains(create)), "{:?}", status.alarms);
    serves(&balancer);
    journal.expect(&[]);
    balancer.terminate().unwrap();
    let mut balancer = Balancer::launch(&host, &roles(TENFOLD), &[]).unwrap();
    balancer.wait(denied, "the alarms", LIMIT).unwrap();
    // The new agent has learnt for as long as it waits, and publishes.
    std::thread::sleep(Duration::from_secs(4));
    serves(&balancer);
    galera.nodes()[0].sql("SET PASSWORD FOR mon@'10.77.%' = PASSWORD('mon')").unwrap();
    let well = |status: &Status| {
        status.alarms.is_empty() && status.clusters[0].nodes.iter().all(|node| node.reason == "synced")
    };
    balancer.wait(well, "all to be known", LIMIT).unwrap();
    serves(&balancer);
    balancer.terminate().unwrap();
}
