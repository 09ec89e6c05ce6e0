//! The monitor against a recorded sample, a plain MariaDB and a real Galera node.

use super::super::testing::{self, Liar, SECOND, SHORT, refusing_address};
use super::*;

/// One of three healthy nodes, Galera 26.4.23, without what no sample asks for.
const HEALTHY: &[(&str, &str)] = &[
    ("threads_connected", "3"),
    ("threads_running", "2"),
    ("wsrep_last_committed", "8"),
    ("wsrep_local_cert_failures", "0"),
    ("wsrep_local_recv_queue", "0"),
    ("wsrep_flow_control_paused_ns", "12"),
    ("wsrep_flow_control_sent", "1"),
    ("wsrep_local_state", "4"),
    ("wsrep_local_state_comment", "Synced"),
    ("wsrep_incoming_addresses", "10.77.1.13:3306,,10.77.1.11:3306"),
    ("wsrep_desync_count", "0"),
    ("wsrep_cluster_conf_id", "3"),
    ("wsrep_cluster_size", "3"),
    ("wsrep_cluster_state_uuid", "dbb7cd43-e6ff-11f1-801a-ba59f90b9225"),
    ("wsrep_cluster_status", "Primary"),
    ("wsrep_connected", "ON"),
    ("wsrep_local_bf_aborts", "0"),
    ("wsrep_ready", "ON"),
    ("max_connections", "60"),
    ("read_only", "0"),
    ("wsrep_desync", "0"),
    ("wsrep_on", "1"),
    ("wsrep_reject_queries", "NONE"),
    ("wsrep_sst_donor_rejects_queries", "0"),
];
const OPTIONS: &str = "base_dir = /data; gcs.fc_factor = 1.0; gcs.fc_limit = 16; gcs.fc_master_slave = NO; ";

fn with(changes: &[(&str, &str)]) -> Result<Sample, String> {
    let values: Values = HEALTHY
        .iter()
        .chain(changes)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Sample::from_values(&values, Some(OPTIONS))
}

#[test]
fn a_recorded_sample_is_read() {
    let sample = with(&[]).unwrap();
    assert_eq!(sample.cluster_status, Some(ClusterStatus::Primary));
    assert_eq!((sample.ready, sample.connected), (Some(true), Some(true)));
    assert_eq!(sample.local_state, Some(4));
    assert_eq!(sample.reject_queries, Some(RejectQueries::None));
    assert_eq!((sample.conf_id, sample.cluster_size), (Some(3), Some(3)));
    assert_eq!(sample.members(), ["10.77.1.11:3306", "10.77.1.13:3306"]);
    assert_eq!(sample.incoming_addresses.len(), 3, "the arbitrator is listed");
    assert_eq!((sample.desync, sample.read_only, sample.maintenance), (Some(false), false, false));
    assert_eq!(sample.queue_limit(), Some(28));
}

#[test]
fn what_nodes_say_in_trouble_is_read() {
    type Check = fn(&Sample) -> bool;
    let table: &[(&str, &str, Check)] = &[
        ("wsrep_cluster_conf_id", "18446744073709551615", |s| s.conf_id.is_none()),
        ("wsrep_cluster_status", "non-Primary", |s| s.cluster_status == Some(ClusterStatus::NonPrimary)),
        ("wsrep_cluster_status", "Disconnected", |s| s.cluster_status == Some(ClusterStatus::Disconnected)),
        ("wsrep_cluster_status", "something new", |s| s.cluster_status == Some(ClusterStatus::NonPrimary)),
        ("wsrep_ready", "OFF", |s| s.ready == Some(false)),
        ("wsrep_reject_queries", "ALL_KILL", |s| s.reject_queries == Some(RejectQueries::AllKill)),
        ("wsrep_reject_queries", "ALL", |s| s.reject_queries == Some(RejectQueries::All)),
        ("wsrep_last_committed", "18446744073709551615", |s| s.last_committed.is_none()),
        ("wsrep_last_committed", "-1", |s| s.last_committed.is_none()),
        ("wsrep_incoming_addresses", "", |s| s.incoming_addresses.is_empty()),
        ("read_only", "NO_LOCK_NO_ADMIN", |s| s.read_only),
        ("super_read_only", "1", |s| s.read_only),
        ("offline_mode", "1", |s| s.maintenance),
        ("pxc_maint_mode", "SHUTDOWN", |s| s.maintenance),
        ("pxc_maint_mode", "DISABLED", |s| !s.maintenance),
    ];
    for (name, value, check) in table {
        let sample = with(&[(name, value)]).unwrap();
        assert!(check(&sample), "{name}={value}: {sample:?}");
    }
    for (name, value) in [("wsrep_local_state", "256"), ("max_connections", "many"), ("wsrep_ready", "maybe")]
    {
        let error = with(&[(name, value)]).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn a_fixed_flow_control_limit_does_not_grow_with_the_cluster() {
    let values: Values = [("wsrep_cluster_size".to_owned(), "3".to_owned())].into();
    let limit = |options: &str| Sample::from_values(&values, Some(options)).unwrap().queue_limit();
    assert_eq!(limit("gcs.fc_limit = 16; gcs.fc_single_primary = no"), Some(28));
    assert_eq!(limit("gcs.fc_limit = 16; gcs.fc_single_primary = yes"), Some(16));
    assert_eq!(limit("gcs.fc_master_slave = YES; gcs.fc_limit = 100"), Some(100));
    assert_eq!(limit(""), None);
}

#[tokio::test]
async fn silent_and_absent_servers_have_names() {
    let server = Liar::silent().await;
    let mut monitor = Monitor::new(server.addr, "lb", "", SHORT);
    assert_eq!(monitor.sample().await.unwrap_err().kind, FailureKind::TimedOut);
    let mut monitor = Monitor::new(refusing_address(), "lb", "", SECOND);
    assert_eq!(monitor.sample().await.unwrap_err().kind, FailureKind::Refused);
}

#[tokio::test]
async fn a_real_server_without_a_provider_gives_a_sample_too() {
    let test = "a_real_server_without_a_provider_gives_a_sample_too";
    let Some(server) = testing::mariadb(test, &["--read-only=ON"]).await else {
        return;
    };
    let mut monitor = Monitor::new(server.addr, "root", "", 5 * SECOND);
    let sample = monitor.sample().await.unwrap();
    assert!(sample.read_only);
    assert!(sample.max_connections.is_some_and(|most| most > 10));
    assert!(sample.threads_running.is_some_and(|threads| threads > 0));
    assert_eq!(sample.wsrep_on, Some(false));
    assert_ne!(sample.cluster_status, Some(ClusterStatus::Primary));
    assert!(sample.members().is_empty());
}

#[tokio::test]
async fn a_real_server_says_whether_it_is_a_replica_once_the_monitor_may_know() {
    let test = "a_real_server_says_whether_it_is_a_replica_once_the_monitor_may_know";
    let Some(server) = testing::mariadb(test, &["--server-id=7"]).await else {
        return;
    };
    testing::sql(&server, &["CREATE USER lb@127.0.0.1 IDENTIFIED BY 's3cret'"]).await;
    let mut monitor = Monitor::new(server.addr, "lb", "s3cret", 5 * SECOND).with_replication(true);
    let Replication::Forbidden(grant) = monitor.sample().await.unwrap().replication else {
        panic!("the monitor has no privilege yet");
    };
    assert_eq!(grant, "GRANT REPLICA MONITOR ON *.* TO 'lb'@'127.0.0.1'");
    testing::sql(&server, &[&grant]).await;
    // A session keeps the privileges that it began with; the monitor begins a new one by itself.
    when(&mut monitor, |sample| sample.replication == Replication::Source).await;
    let source =
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=1, MASTER_USER='x', MASTER_PASSWORD='x'";
    testing::sql(&server, &[source]).await;
    assert_eq!(monitor.sample().await.unwrap().replication, Replication::Replica { lag: None });
    testing::sql(&server, &["RESET SLAVE ALL"]).await;
    assert_eq!(monitor.sample().await.unwrap().replication, Replication::Source);
}

#[tokio::test]
async fn a_full_server_lets_the_monitor_in_by_its_extra_port() {
    let test = "a_full_server_lets_the_monitor_in_by_its_extra_port";
    let port = refusing_address().port();
    let options = [format!("--extra-port={port}"), "--extra-max-connections=2".to_owned()];
    let options: Vec<&str> = options.iter().map(String::as_str).chain(["--max-connections=10"]).collect();
    let Some(server) = testing::mariadb(test, &options).await else {
        return;
    };
    testing::sql(&server, &["CREATE USER lb@127.0.0.1"]).await;
    let mut guests = Vec::new();
    for _ in 0..10 {
        guests.push(Session::connect(server.addr, "lb", "", &Encryption::Off, 5 * SECOND).await.unwrap());
    }
    let mut without = Monitor::new(server.addr, "lb", "", 5 * SECOND);
    assert_eq!(without.sample().await.unwrap_err().kind, FailureKind::Saturated);
    let mut monitor = Monitor::new(server.addr, "lb", "", 5 * SECOND).with_extra_port(Some(port));
    let sample = monitor.sample().await.unwrap();
    assert_eq!(sample.max_connections, Some(10));
    assert!(sample.threads_connected.is_some_and(|connected| connected >= 10), "{sample:?}");
    let mut wrong = Monitor::new(server.addr, "lb", "", 5 * SECOND).with_extra_port(Some(1));
    assert_eq!(wrong.sample().await.unwrap_err().kind, FailureKind::Saturated);
}

#[tokio::test]
async fn a_real_galera_node_tells_what_it_can_do() {
    let test = "a_real_galera_node_tells_what_it_can_do";
    let Some(mut server) = testing::galera(test).await else {
        return;
    };
    testing::sql(&server, &["CREATE USER lb@127.0.0.1 IDENTIFIED BY 's3cret'"]).await;
    let mut monitor = Monitor::new(server.addr, "lb", "s3cret", 5 * SECOND);
    let sample = when(&mut monitor, |sample| sample.local_state == Some(4)).await;
    assert_eq!(sample.cluster_status, Some(ClusterStatus::Primary));
    assert_eq!((sample.ready, sample.connected, sample.wsrep_on), (Some(true), Some(true), Some(true)));
    assert_eq!(sample.local_state_comment.as_deref(), Some("Synced"));
    assert_eq!((sample.cluster_size, sample.conf_id), (Some(1), Some(1)));
    assert_eq!((sample.fc_limit, sample.queue_limit()), (Some(64), Some(64)));
    assert_eq!(sample.state_uuid.as_ref().map(String::len), Some(36));
    assert_eq!(sample.members().len(), 1, "{:?}", sample.incoming_addresses);
    assert!(sample.last_committed.is_some() && sample.recv_queue.is_some());
    assert!(sample.flow_control_paused_ns.is_some() && sample.flow_control_sent.is_some());
    assert!(sample.cert_failures.is_some() && sample.bf_aborts.is_some());
    assert_eq!(sample.reject_queries, Some(RejectQueries::None));
    assert_eq!(sample.sst_donor_rejects_queries, Some(false));

    one_connection_and_two_queries_a_sample(&server, &mut monitor).await;
    switches_of_the_administrator_are_seen(&server, &mut monitor).await;
    a_killed_connection_costs_no_sample(&server, &mut monitor).await;

    // Frozen: it accepts and says nothing. Resumed: the monitor finds its way back. Killed: refused.
    let mut hasty = Monitor::new(server.addr, "lb", "s3cret", SECOND);
    hasty.sample().await.unwrap();
    server.signal("-STOP");
    assert_eq!(hasty.sample().await.unwrap_err().kind, FailureKind::TimedOut);
    assert_eq!(hasty.sample().await.unwrap_err().kind, FailureKind::TimedOut);
    server.signal("-CONT");
    monitor.sample().await.unwrap();
    server.kill();
    let failure = monitor.sample().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
    assert!(!failure.doubtful());
}

async fn when(monitor: &mut Monitor, wanted: impl Fn(&Sample) -> bool) -> Sample {
    let deadline = tokio::time::Instant::now() + 30 * SECOND;
    loop {
        let sample = monitor.sample().await.unwrap();
        if wanted(&sample) {
            return sample;
        }
        assert!(tokio::time::Instant::now() < deadline, "{sample:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// (Connections, Questions) of the server.
async fn counters(session: &mut Session) -> (u64, u64) {
    let sql = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Connections', 'Questions')";
    let values = pairs(session.query(sql, 5 * SECOND).await.unwrap());
    (values["connections"].parse().unwrap(), values["questions"].parse().unwrap())
}

async fn one_connection_and_two_queries_a_sample(server: &testing::Server, monitor: &mut Monitor) {
    let mut root = Session::connect(server.addr, "root", "", &Encryption::Off, 5 * SECOND).await.unwrap();
    let before = counters(&mut root).await;
    for _ in 0..10 {
        monitor.sample().await.unwrap();
    }
    let after = counters(&mut root).await;
    assert_eq!(after.0, before.0, "connections");
    assert_eq!(after.1, before.1 + 10 * 2 + 1, "queries, with the one that counts them");
}

async fn switches_of_the_administrator_are_seen(server: &testing::Server, monitor: &mut Monitor) {
    testing::sql(server, &["SET GLOBAL wsrep_desync=ON"]).await;
    let sample = when(monitor, |sample| sample.local_state == Some(2)).await;
    assert_eq!((sample.desync, sample.desync_count), (Some(true), Some(1)));
    testing::sql(server, &["SET GLOBAL wsrep_desync=OFF"]).await;
    when(monitor, |sample| sample.local_state == Some(4)).await;

    testing::sql(server, &["SET GLOBAL wsrep_reject_queries=ALL"]).await;
    let sample = monitor.sample().await.unwrap();
    assert_eq!(sample.reject_queries, Some(RejectQueries::All));
    assert_eq!(sample.ready, Some(true), "only the variable tells");
    testing::sql(server, &["SET GLOBAL wsrep_reject_queries=ALL_KILL"]).await;
    let sample = monitor.sample().await.unwrap();
    assert_eq!(sample.reject_queries, Some(RejectQueries::AllKill));
    testing::sql(server, &["SET GLOBAL wsrep_reject_queries=NONE", "SET GLOBAL read_only=ON"]).await;
    assert!(monitor.sample().await.unwrap().read_only);
    testing::sql(server, &["SET GLOBAL read_only=OFF"]).await;
    assert!(!monitor.sample().await.unwrap().read_only);
}

/// The server ends the monitor's connection; the next sample is taken on a new one.
async fn a_killed_connection_costs_no_sample(server: &testing::Server, monitor: &mut Monitor) {
    testing::sql(server, &["KILL USER lb@127.0.0.1"]).await;
    monitor.sample().await.unwrap();
}

#[test]
fn load_is_what_runs_beside_the_monitor_as_a_part_of_what_can() {
    for (running, capacity, want) in [
        (None, 16, None),
        (Some(0), 16, Some(0.0)),
        (Some(1), 16, Some(0.0)),
        (Some(5), 16, Some(0.25)),
        (Some(33), 16, Some(2.0)),
        (Some(3), 0, Some(2.0)),
    ] {
        let sample = Sample { threads_running: running, ..Sample::default() };
        assert_eq!(sample.utilisation(capacity), want, "{running:?} of {capacity}");
    }
}
