//! The agent comes and goes; the data path stays, and with it every connection.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_tests::lab::balancer::{Look, Status};
use lb_tests::lab::http::Client;
use lb_tests::lab::load::{Load, Running};
use lb_tests::lab::mysql::{Login, Session};
use lb_tests::lab::setup::{DATABASE, WEB};
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Setup, Site, wait_for};

const LIMIT: Duration = Duration::from_secs(10);

/// Connections that were there before the agent went, and must be there when the next one has come.
struct Old {
    pages: Client,
    home: String,
    session: Session,
    writer: String,
    row: u64,
}

impl Old {
    fn open(site: &Site) -> Self {
        let mut pages = Client::keep_alive();
        let home = site.client.enter(|| pages.get(WEB, "/id.php")).unwrap().unwrap().body;
        let mut session = Session::open(&site.client, &Login::app(DATABASE)).unwrap();
        let writer = session.node().unwrap();
        session.query("CREATE TEMPORARY TABLE mine (n INT)", LIMIT).unwrap();
        Self { pages, home, session, writer, row: 0 }
    }

    /// The same connections answer, from the same servers.
    fn assert_lives(&mut self, site: &Site) {
        let answer = site.client.enter(|| self.pages.get(WEB, "/id.php")).unwrap().unwrap();
        assert_eq!((answer.connect_time, &answer.body), (None, &self.home));
        assert_eq!(self.session.node().unwrap(), self.writer);
        // The temporary table ends with the session, so its rows show that it is the same one.
        self.row += 1;
        self.session.query(&format!("INSERT INTO mine VALUES ({})", self.row), LIMIT).unwrap();
        assert_eq!(self.session.query("SELECT COUNT(*) FROM mine", LIMIT).unwrap(), [self.row.to_string()]);
    }
}

fn answered(load: &Running, more: u64) {
    let before = load.so_far().succeeded();
    wait_for("more answers", LIMIT, || (load.so_far().succeeded() >= before + more).then_some(())).unwrap();
}

/// What must not change with the agent: the mode, the writer, its epoch; and counters never fall.
fn assert_continued(before: &Status, after: &Status) {
    // A successor brings its own program, which replaces the other at once, in the same mode.
    let attached = |status: &Status| (status.interfaces[0].mode.clone(), status.interfaces[0].exit.clone());
    assert_eq!(attached(after), attached(before));
    let writer = |status: &Status| (status.clusters[0].writer.clone(), status.clusters[0].epoch);
    assert_eq!(writer(after), writer(before));
    for service in &before.services {
        for backend in &service.backends {
            let later = after.backend(&format!("{}/{}", service.name, backend.name));
            assert!(later.opened >= backend.opened, "{} then {}", backend.opened, later.opened);
        }
    }
    assert_ne!(after.agent.pid, before.agent.pid);
}

#[test]
fn an_agent_that_is_killed_or_ended_costs_no_request_and_its_successor_takes_everything_up() {
    const NAME: &str =
        "an_agent_that_is_killed_or_ended_costs_no_request_and_its_successor_takes_everything_up";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php, Need::Galera]) {
        return;
    }
    let mut site = Site::start(2, 3, &Setup::new().web(2).database(3).text(), &[]).unwrap();
    let bystanders = site.watch().unwrap();
    let mut old = Old::open(&site);
    let short = Load { threads: 4, per_second: Some(200.0), ..Load::new(WEB, "/static?{n}") };
    let kept = Load { keep_alive: true, per_second: Some(100.0), ..short.clone() };
    let pages =
        Load { threads: 2, per_second: Some(20.0), ..Load::new(WEB, "/db.php?h=10.77.0.101&tag={n}") };
    let started = site.balancer.status().unwrap();
    let loads = [short, kept, pages].map(|load| load.start(&site.client));

    for killed in [true, false] {
        for load in &loads {
            answered(load, 20);
        }
        let before = site.balancer.status().unwrap();
        let status = if killed { site.balancer.kill() } else { site.balancer.terminate() }.unwrap();
        assert_eq!(status.code(), (!killed).then_some(0), "{status:?}");
        // Nobody is there: the commands say so, the packets do not notice.
        assert_eq!(site.balancer.run_lb(&["status"]).unwrap().status.code(), Some(3));
        for load in &loads {
            answered(load, 20);
        }
        old.assert_lives(&site);
        site.balancer.restart().unwrap();
        for load in &loads {
            answered(load, 20);
        }
        old.assert_lives(&site);
        assert_continued(&before, &site.balancer.status().unwrap());
    }

    let mut requests = 0;
    for load in loads {
        let report = load.stop().unwrap();
        assert_eq!(report.failures, BTreeMap::new());
        requests += report.connections;
    }
    // Every connection of the clients, and the kept one, has been counted once, by whatever agent.
    let opened = |status: &Status| status.service("web").opened;
    assert_eq!(opened(&site.balancer.status().unwrap()) - opened(&started), requests);
    old.assert_lives(&site);
    // The last of the others close at this very moment.
    let one = |status: &Status| status.service("web").live == 1;
    site.balancer.wait(one, "the kept connection alone", LIMIT).unwrap();
    bystanders.assert_undisturbed();
}

#[test]
fn a_successor_knows_what_was_drained() {
    const NAME: &str = "a_successor_knows_what_was_drained";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let mut site = Site::start(2, 0, &Setup::new().web(2).text(), &[]).unwrap();
    assert_eq!(site.balancer.run_lb(&["drain", "web/web1"]).unwrap().status.code(), Some(0));
    site.balancer.kill().unwrap();
    site.balancer.restart().unwrap();
    let before = site.balancer.status().unwrap().backend("web/web1").opened;
    let load = Load { requests: Some(100), ..Load::new(WEB, "/static") };
    let report = load.run(&site.client).unwrap();
    assert_eq!(report.bodies, BTreeMap::from([("web2".to_owned(), 100)]), "{:?}", report.failures);
    assert_eq!(site.balancer.status().unwrap().backend("web/web1").opened, before);
}
