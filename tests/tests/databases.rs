//! The lab's databases: real Galera clusters, alone and behind PHP pages.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lb_tests::lab::crowd::Crowd;
use lb_tests::lab::galera::{Galera, GaleraNode, SYNCED};
use lb_tests::lab::http::Client;
use lb_tests::lab::mysql::{self, Login, Session, SessionError};
use lb_tests::lab::php::{PhpNode, PhpOptions, db_answer};
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Host, Lab, wait_for};

const LIMIT: Duration = Duration::from_secs(10);

fn database_hosts(lab: &Lab) -> [Host; 3] {
    [1, 2, 3].map(|n| lab.host(&format!("db{n}"), Ipv4Addr::new(10, 77, 1, 10 + n)).unwrap())
}

#[test]
fn three_galera_nodes_are_up_in_time_and_php_pages_write_to_them() {
    if skip::cannot_run(
        "three_galera_nodes_are_up_in_time_and_php_pages_write_to_them",
        &[Need::Lab, Need::Php, Need::Galera],
    ) {
        return;
    }
    let lab = Lab::new().unwrap();
    let hosts = database_hosts(&lab);
    // Builds the template if this machine has none yet.
    drop(Galera::start(&[&lab.host("first", Ipv4Addr::new(10, 77, 1, 9)).unwrap()]).unwrap());
    let start = Instant::now();
    let cluster = Galera::start(&[&hosts[0], &hosts[1], &hosts[2]]).unwrap();
    let took = start.elapsed();
    println!("three nodes in {took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    for node in cluster.nodes() {
        assert_eq!((node.state(), node.size()), (Some(SYNCED), Some(3)));
    }

    let web = lab.host("web1", Ipv4Addr::new(10, 77, 0, 21)).unwrap();
    let client = lab.host("client", Ipv4Addr::new(10, 77, 0, 10)).unwrap();
    let page = PhpNode::start(&web, &PhpOptions::default()).unwrap();
    for node in cluster.nodes() {
        let path = format!("/db.php?h={}&tag={}", node.host().address(), node.name());
        let answer = client.enter(|| Client::default().get(page.address(), &path)).unwrap().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let row = db_answer(&answer.body).unwrap();
        assert_eq!(
            (row.ok, row.node.as_deref(), row.web.as_deref()),
            (true, Some(node.name()), Some("web1"))
        );
    }
    let count = "SET SESSION wsrep_sync_wait=1; SELECT GROUP_CONCAT(v ORDER BY v) FROM t.a";
    assert_eq!(cluster.nodes()[0].sql(count).unwrap(), "db1,db2,db3\n");

    // A server that cannot be reached is a 503 that says why.
    let path = format!("/db.php?h={}&ct=1", client.address());
    let answer = client.enter(|| Client::default().get(page.address(), &path)).unwrap().unwrap();
    let failure = db_answer(&answer.body).unwrap();
    assert_eq!((answer.status, failure.step.as_deref(), failure.errno), (503, Some("connect"), Some(2002)));
}

#[test]
fn peers_see_a_killed_galera_node_leave_and_come_back() {
    if skip::cannot_run("peers_see_a_killed_galera_node_leave_and_come_back", &[Need::Lab, Need::Galera]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let hosts = database_hosts(&lab);
    let cluster = Galera::start(&[&hosts[0], &hosts[1], &hosts[2]]).unwrap();
    let [first, second, _] = cluster.nodes() else { panic!("three nodes") };
    first.sql("INSERT INTO t.a(v) VALUES('before')").unwrap();
    second.kill9().unwrap();
    assert!(!second.is_running());
    let start = Instant::now();
    cluster.wait_size(2, LIMIT).unwrap();
    println!("noticed after {:?}", start.elapsed());
    first.sql("INSERT INTO t.a(v) VALUES('between')").unwrap();
    let start = Instant::now();
    second.start_again().unwrap();
    println!("back after {:?}", start.elapsed());
    cluster.wait_size(3, LIMIT).unwrap();
    assert_eq!(second.sql("SELECT v FROM t.a ORDER BY id").unwrap(), "before\nbetween\n");

    // An orderly stop and start, then all of them at once.
    second.stop().unwrap();
    second.start_again().unwrap();
    cluster.nodes().iter().for_each(|node| node.kill9().unwrap());
    first.bootstrap().unwrap();
    assert_eq!(first.sql("SELECT COUNT(*) FROM t.a").unwrap(), "2\n");
}

#[test]
fn a_mysql_session_tells_refusal_silence_and_loss_apart() {
    if skip::cannot_run("a_mysql_session_tells_refusal_silence_and_loss_apart", &[Need::Lab, Need::Galera]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let database = lab.host("db1", Ipv4Addr::new(10, 77, 1, 11)).unwrap();
    let client = lab.host("client", Ipv4Addr::new(10, 77, 0, 10)).unwrap();
    let cluster = Galera::start(&[&database]).unwrap();
    let node = &cluster.nodes()[0];
    let login = Login::app(node.address());
    assert_eq!(mysql::query(&client, &login, "SELECT 1, 'x'").unwrap(), "1\tx\n");
    let monitor =
        Login { user: "mon".into(), password: "mon".into(), database: String::new(), ..login.clone() };
    assert!(mysql::query(&client, &monitor, "SELECT * FROM t.a").is_err());
    assert!(mysql::query(&client, &monitor, "SHOW STATUS LIKE 'wsrep_local_state'").unwrap().contains('4'));

    let mut session = Session::open(&client, &login).unwrap();
    assert_eq!(session.node().unwrap(), "db1");
    assert_eq!(session.query("INSERT INTO a VALUES (1, 'x')", LIMIT).unwrap(), Vec::<String>::new());
    let refusal = session.query("INSERT INTO a VALUES (1, 'x')", LIMIT).unwrap_err();
    assert!(matches!(refusal, SessionError::Refused { code: 1062, .. }), "{refusal}");
    assert_eq!(session.query("SELECT * FROM a", LIMIT).unwrap(), ["1\tx"]);
    assert!(!session.is_broken());

    let mut silent = Session::open(&client, &login).unwrap();
    node.pause().unwrap();
    let silence = silent.query("SELECT 1", Duration::from_millis(300)).unwrap_err();
    assert!(matches!(silence, SessionError::TimedOut { .. }) && silent.is_broken(), "{silence}");
    node.resume().unwrap();
    wait_for("the node's answer", LIMIT, || node.state()).unwrap();
    assert_eq!(session.query("SELECT 2", LIMIT).unwrap(), ["2"]);

    node.kill9().unwrap();
    let loss = session.query("SELECT 1", LIMIT).unwrap_err();
    assert!(matches!(loss, SessionError::Lost { .. }) && session.is_broken(), "{loss}");
    assert!(Session::open(&client, &login).is_err());
}

#[test]
fn a_crowd_of_clients_counts_every_answer_and_every_error() {
    if skip::cannot_run("a_crowd_of_clients_counts_every_answer_and_every_error", &[Need::Lab, Need::Galera])
    {
        return;
    }
    let lab = Lab::new().unwrap();
    let database = lab.host("db1", Ipv4Addr::new(10, 77, 1, 11)).unwrap();
    let client = lab.host("client", Ipv4Addr::new(10, 77, 0, 10)).unwrap();
    let cluster = Galera::start(&[&database]).unwrap();
    let node = &cluster.nodes()[0];
    let aborted = |node: &GaleraNode| node.status("Aborted_connects").unwrap();
    let before = aborted(node);

    // An account that is not there: error 1045 for each, and nobody is left out.
    let crowd = Crowd::new(node.address().into(), 20);
    assert_eq!(crowd.run(&client).unwrap().errors.into_iter().collect::<Vec<_>>(), [(1045, 20)]);
    Crowd::admit(node).unwrap();
    let report = crowd.run(&client).unwrap();
    assert_eq!(report.answers.into_iter().collect::<Vec<_>>(), [("db1".to_owned(), 20)]);
    assert!(report.errors.is_empty() && report.broken.is_empty());
    assert_ne!(aborted(node), before, "the twenty logins that were refused");

    // More at once than the server takes, each long enough to be in the others' way.
    let query = "SELECT SLEEP(0.5)".to_owned();
    let report = Crowd { clients: 500, query, ..crowd }.run(&client).unwrap();
    println!("{report:?}");
    let too_many = report.errors.get(&1040).copied().unwrap_or_default();
    assert!(report.answered() >= 59 && too_many > 0, "{report:?}");
    assert_eq!((report.answered() + too_many, report.broken.len()), (500, 0), "{report:?}");
    // One that is nobody's.
    let nobody = Crowd::new((Ipv4Addr::new(10, 77, 1, 11), 3307).into(), 10);
    let report = nobody.run(&client).unwrap();
    assert_eq!(report.broken.into_iter().collect::<Vec<_>>(), [("refused".to_owned(), 10)]);
}
