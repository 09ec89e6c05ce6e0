//! When nobody can serve, and packets that belong to nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_tests::lab::balancer::{BackendState, Look, Status};
use lb_tests::lab::http::{Client, HttpError, Options};
use lb_tests::lab::load::Load;
use lb_tests::lab::setup::{Service, WEB};
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Setup, Site};

const LIMIT: Duration = Duration::from_secs(15);

/// One backend, judged quickly, and the policy.
fn one_backend(lines: &str) -> String {
    let check =
        "check = { type = \"http\", path = \"/ping\", interval = \"200ms\", timeout = \"100ms\", rise = 1 }";
    let lines = format!("{check}\n{lines}");
    Setup::new().service(&Service { lines: &lines, ..Service::web(&[100]) }).text()
}

/// A site whose only backend has just died.
fn deserted(lines: &str) -> Site {
    let mut site = Site::start(1, 0, &one_backend(lines), &[]).unwrap();
    site.webs[0].kill_all().unwrap();
    site.balancer
        .wait(|status| status.backend("web/web1").weight_effective == 0.0, "web1 to be out", LIMIT)
        .unwrap();
    site
}

fn drops(site: &Site) -> BTreeMap<String, u64> {
    let mut drops = site.balancer.status().unwrap().service("web").drops.clone();
    // What a probe's way costs is no drop.
    drops.retain(|name, _| name != "checksum-completed");
    drops
}

fn get(site: &Site, connect_timeout: Duration) -> Result<lb_tests::lab::http::Response, HttpError> {
    let options = Options { connect_timeout, ..Options::default() };
    site.client.enter(|| Client::new(options).get(WEB, "/id.php")).unwrap()
}

#[test]
fn a_service_that_resets_refuses_at_once() {
    const NAME: &str = "a_service_that_resets_refuses_at_once";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let mut site = deserted("no-backend = \"reset\"");
    let load = Load { requests: Some(100), ..Load::new(WEB, "/static") };
    let report = load.run(&site.client).unwrap();
    assert_eq!(report.failures, BTreeMap::from([("refused".to_owned(), 100)]));
    // Refused by the first SYN's answer: a hundred retries after a second would have taken longer.
    assert!(report.elapsed < Duration::from_secs(1), "{report:?}");
    assert_eq!(drops(&site), BTreeMap::from([("no-backend-reset".to_owned(), 100)]));
    site.webs[0].restart().unwrap();
    let up = |status: &lb_tests::lab::balancer::Status| status.backend("web/web1").weight_effective > 0.0;
    site.balancer.wait(up, "web1 to be back", LIMIT).unwrap();
    assert_eq!(get(&site, LIMIT).unwrap().body, "web1\n");
}

#[test]
fn a_service_that_holds_lets_clients_wait_for_the_next_backend_but_not_for_ever() {
    const NAME: &str = "a_service_that_holds_lets_clients_wait_for_the_next_backend_but_not_for_ever";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let mut site = deserted("no-backend = \"hold\"");
    let waiting = Load { requests: Some(4), threads: 4, ..Load::new(WEB, "/id.php") }.start(&site.client);
    let held = |status: &lb_tests::lab::balancer::Status| {
        status.service("web").drops.get("no-backend-hold").copied() == Some(4)
    };
    site.balancer.wait(held, "four SYN to be held", LIMIT).unwrap();
    site.webs[0].restart().unwrap();
    let report = waiting.finish().unwrap();
    assert_eq!((report.succeeded(), report.failed()), (4, 0), "{report:?}");
    // TCP's own retry after a second found the backend.
    let slowest = report.slowest_connect;
    assert!(slowest > Duration::from_millis(900) && slowest < Duration::from_secs(3), "{slowest:?}");

    // Nobody comes: once the hold is over, the retry is refused.
    site.webs[0].kill_all().unwrap();
    let down = |status: &lb_tests::lab::balancer::Status| status.backend("web/web1").weight_effective == 0.0;
    site.balancer.wait(down, "web1 to be out", LIMIT).unwrap();
    let load = Load { requests: Some(1), connect_timeout: LIMIT, ..Load::new(WEB, "/") };
    let report = load.run(&site.client).unwrap();
    assert_eq!(report.failures, BTreeMap::from([("refused".to_owned(), 1)]));
    // SYNs leave at 0, 1 and 3 s; the hold of 3 s began a moment before the first one.
    let waited = report.elapsed;
    assert!(waited > Duration::from_millis(2_500) && waited < Duration::from_secs(4), "{waited:?}");
    assert_eq!(drops(&site)["no-backend-reset"], 1);
    assert_eq!(get(&site, LIMIT).unwrap_err(), HttpError::Refused);
}

#[test]
fn a_service_that_drops_says_nothing() {
    const NAME: &str = "a_service_that_drops_says_nothing";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let site = deserted("no-backend = \"drop\"");
    assert_eq!(get(&site, Duration::from_millis(500)).unwrap_err(), HttpError::ConnectTimedOut);
    assert_eq!(drops(&site), BTreeMap::from([("no-backend-drop".to_owned(), 1)]));
    assert_eq!(site.balancer.status().unwrap().backend("web/web1").state, BackendState::Down);
}

#[test]
fn a_packet_of_a_forgotten_connection_is_reset_at_once() {
    const NAME: &str = "a_packet_of_a_forgotten_connection_is_reset_at_once";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let text = one_backend("");
    let mut site = Site::start(1, 0, &text, &[]).unwrap();
    let mut client = Client::keep_alive();
    let mut ask = |site: &Site| site.client.enter(|| client.get(WEB, "/id.php")).unwrap();
    assert_eq!(ask(&site).unwrap().body, "web1\n");
    site.balancer.detach().unwrap();
    site.balancer.wait_exit(LIMIT).unwrap();
    // New maps, which know nothing of it.
    site.balancer.restart().unwrap();
    assert_forgotten(&site, &mut ask);
}

#[test]
fn a_connection_that_was_silent_for_longer_than_its_time_is_cut_and_not_forgotten() {
    const NAME: &str = "a_connection_that_was_silent_for_longer_than_its_time_is_cut_and_not_forgotten";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let site = Site::start(1, 0, &one_backend("timeouts = { established = \"2s\" }"), &[]).unwrap();
    let mut client = Client::keep_alive();
    let mut ask = |site: &Site| site.client.enter(|| client.get(WEB, "/id.php")).unwrap();
    assert_eq!(ask(&site).unwrap().body, "web1\n");
    assert_eq!(site.balancer.status().unwrap().service("web").live, 1);
    site.balancer.wait(|status| status.service("web").live == 0, "the flow to expire", LIMIT).unwrap();
    // Both ends have been told: what they said when they were asked was answered by a RST.
    let cut = |status: &Status| status.service("web").drops.get("cut").copied().unwrap_or(0) >= 2;
    site.balancer.wait(cut, "both ends to be told", LIMIT).unwrap();
    assert_broken(&site, &mut ask);
    assert!(!drops(&site).contains_key("no-flow"), "a connection was forgotten in silence");
    assert_eq!(ask(&site).unwrap().body, "web1\n");
}

/// The connection breaks within a moment, and the next one works.
fn assert_forgotten(
    site: &Site,
    ask: &mut impl FnMut(&Site) -> Result<lb_tests::lab::http::Response, HttpError>,
) {
    assert_broken(site, ask);
    assert_eq!(drops(site)["no-flow"], 1);
    assert_eq!(ask(site).unwrap().body, "web1\n");
}

/// The connection is broken, and says so at once.
fn assert_broken(
    site: &Site,
    ask: &mut impl FnMut(&Site) -> Result<lb_tests::lab::http::Response, HttpError>,
) {
    let start = std::time::Instant::now();
    let error = ask(site).unwrap_err();
    assert!(matches!(error, HttpError::Reset { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
}
