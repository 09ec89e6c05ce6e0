//! Drain: no new connections, and not one broken.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lb_tests::lab::balancer::{BackendState, Look};
use lb_tests::lab::http::Client;
use lb_tests::lab::load::{Load, Running};
use lb_tests::lab::setup::WEB;
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Setup, Site, wait_for};

const LIMIT: Duration = Duration::from_secs(10);

fn answered(load: &Running, more: u64) {
    let before = load.so_far().succeeded();
    wait_for("more answers", LIMIT, || (load.so_far().succeeded() >= before + more).then_some(())).unwrap();
}

/// Kept connections, until `count` of them are on `web1`.
fn connections_to_web1(site: &Site, count: usize) -> Vec<Client> {
    let mut found = Vec::new();
    while found.len() < count {
        let mut client = Client::keep_alive();
        let answer = site.client.enter(|| client.get(WEB, "/id.php")).unwrap().unwrap();
        if answer.body.trim() == "web1" {
            found.push(client);
        }
    }
    found
}

#[test]
fn a_drained_backend_finishes_its_connections_gets_no_new_ones_and_comes_back() {
    const NAME: &str = "a_drained_backend_finishes_its_connections_gets_no_new_ones_and_comes_back";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let site = Site::start(2, 0, &Setup::new().web(2).text(), &[]).unwrap();
    let bystanders = site.watch().unwrap();
    let short = Load { threads: 4, per_second: Some(200.0), ..Load::new(WEB, "/work.php") };
    let kept = Load { keep_alive: true, threads: 8, per_second: Some(200.0), ..short.clone() };
    let short = short.start(&site.client);
    let kept = kept.start(&site.client);
    let mut held = connections_to_web1(&site, 3);
    answered(&short, 50);
    answered(&kept, 50);

    let mut drain =
        site.balancer.command(&["drain", "web/web1", "--deadline", "30s", "--wait"]).spawn("drain").unwrap();
    let draining = site
        .balancer
        .wait(|status| status.backend("web/web1").state == BackendState::Draining, "the drain", LIMIT)
        .unwrap();
    // From here on its count of opened connections stands still, though it serves those that it has.
    let frozen = draining.backend("web/web1").opened;
    answered(&short, 200);
    answered(&kept, 200);
    for client in &mut held {
        let answer = site.client.enter(|| client.get(WEB, "/id.php")).unwrap().unwrap();
        assert_eq!((answer.body.trim(), answer.connect_time), ("web1", None));
    }
    assert!(drain.is_running(), "connections are left: {}", drain.log());
    let during = site.balancer.status().unwrap();
    assert_eq!(during.backend("web/web1").opened, frozen);
    assert!(during.backend("web/web1").live >= 3);

    // The clients end when they like; the last one ends the drain.
    let kept = kept.stop().unwrap();
    assert!(drain.is_running(), "connections are left: {}", drain.log());
    drop(held);
    let ended = drain.wait_exit(LIMIT).unwrap();
    assert_eq!(ended.code(), Some(0), "{}", drain.log());
    let drained = site.balancer.status().unwrap();
    assert_eq!((drained.backend("web/web1").live, drained.backend("web/web1").opened), (0, frozen));

    assert_eq!(site.balancer.run_lb(&["ready", "web/web1"]).unwrap().status.code(), Some(0));
    site.balancer
        .wait(|status| status.backend("web/web1").opened > frozen, "web1 to get connections again", LIMIT)
        .unwrap();
    let short = short.stop().unwrap();
    for report in [short, kept] {
        assert_eq!(report.failures, BTreeMap::new());
        assert_eq!(report.bodies.keys().collect::<Vec<_>>(), ["web1", "web2"]);
    }
    bystanders.assert_undisturbed();
}

#[test]
fn a_deadline_that_passes_is_told_and_breaks_nothing() {
    const NAME: &str = "a_deadline_that_passes_is_told_and_breaks_nothing";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let site = Site::start(2, 0, &Setup::new().web(2).text(), &[]).unwrap();
    let mut held = connections_to_web1(&site, 1);
    let start = Instant::now();
    let output = site.balancer.run_lb(&["drain", "web/web1", "--deadline", "1s", "--wait"]).unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(output.stderr.contains("web/web1") && output.stderr.contains('1'), "{output:?}");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    let answer = site.client.enter(|| held[0].get(WEB, "/id.php")).unwrap().unwrap();
    assert_eq!((answer.body.trim(), answer.connect_time), ("web1", None));
    assert_eq!(site.balancer.status().unwrap().backend("web/web1").state, BackendState::Draining);
    // Without --wait the command returns at once, and a second time changes nothing.
    assert_eq!(site.balancer.run_lb(&["drain", "web/web1"]).unwrap().status.code(), Some(0));
    // When all are drained, nobody serves: the policy of the service decides.
    assert_eq!(site.balancer.run_lb(&["drain", "web/web2"]).unwrap().status.code(), Some(0));
    let load = Load { requests: Some(10), ..Load::new(WEB, "/static") };
    assert_eq!(load.run(&site.client).unwrap().failures, BTreeMap::from([("refused".to_owned(), 10)]));
    let answer = site.client.enter(|| held[0].get(WEB, "/id.php")).unwrap().unwrap();
    assert_eq!(answer.body.trim(), "web1");
}
