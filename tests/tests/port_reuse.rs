//! Source ports in their second life: PHP without keep-alive closes first and leaves TIME_WAIT at the backend.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use lb_common::TIME_WAIT;
use lb_tests::lab::balancer::Look;
use lb_tests::lab::load::Load;
use lb_tests::lab::setup::{Service, WEB};
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Setup, Site};

/// Source ports of each backend: few, so that they come round again within the test.
const PORTS: u64 = 1_200;
const BACKENDS: u64 = 2;
/// New connections a second to both that can go on for ever, as long as each port rests.
const SUSTAINABLE: f64 = (PORTS * BACKENDS * 1_000) as f64 / TIME_WAIT.as_millis() as f64;
/// Of that, what is asked for. A newcomer looks at 64 ports; of three quarters at rest one in 10^8 finds nothing else, of
/// the nine tenths that a client asks for who makes up for a second's stall, one in a thousand.
const USED: f64 = 0.75;
/// Long enough for more connections than there are ports: 0.75 · 90 / 66 = 1.02 of them.
const SECONDS: f64 = 90.0;

#[test]
fn connections_below_the_sustainable_rate_never_meet_a_port_at_rest() {
    const NAME: &str = "connections_below_the_sustainable_rate_never_meet_a_port_at_rest";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let ports = format!("source-ports = \"20000-{}\"", 20_000 + PORTS - 1);
    let lines = "algorithm = \"round-robin\"";
    let service = Service { lines, ..Service::web(&[100, 100]) };
    let site = Site::start(2, 0, &Setup::new().top(&ports).service(&service).text(), &[]).unwrap();
    let sources: Vec<Ipv4Addr> = (101..=150).map(|last| Ipv4Addr::new(10, 77, 1, last)).collect();
    for source in &sources {
        site.client.add_address(*source, "eth0").unwrap();
    }
    let rate = SUSTAINABLE * USED;
    let requests = (rate * SECONDS) as u64;
    let load = Load {
        requests: Some(requests),
        per_second: Some(rate),
        threads: 16,
        sources,
        ..Load::new(WEB, "/static")
    };
    let report = load.run(&site.client).unwrap();
    println!("{requests} connections at {rate:.1}/s, the slowest took {:?}", report.slowest_connect);
    assert_eq!((report.succeeded(), report.failures), (requests, BTreeMap::new()));
    assert!(report.slowest_connect < Duration::from_millis(900), "{:?}", report.slowest_connect);

    let status = site.balancer.status().unwrap();
    let service = status.service("web");
    // A connection that met a TIME_WAIT is reset and tried again, at once by newer kernels: so it is counted twice.
    assert_eq!(service.opened, requests, "{:?}", status.counters);
    for backend in &service.backends {
        assert!(backend.opened > PORTS, "{}: ports were used again: {}", backend.name, backend.opened);
    }
    // Every one of them had rested for its time.
    for reason in ["port-reused-early", "ports-exhausted"] {
        assert_eq!(status.counters[reason], 0, "{reason}");
    }
}
