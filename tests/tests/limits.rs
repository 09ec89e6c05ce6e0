//! Limits that hold exactly: connections of a service, of a backend over all services, and new ones of a source.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use lb_tests::Setup;
use lb_tests::lab::balanced::{Balanced, Wanted, service_name};
use lb_tests::lab::balancer::{Balancer, Look, Status};
use lb_tests::lab::held::{HeldClient, HeldServer};
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::topology::{Mode, Topology};
use lb_tests::lab::{Family, Host};

const PORT: u16 = 8080;
const LIMIT: usize = 6;
const PATIENCE: Duration = Duration::from_secs(30);

/// Connects until it is refused: what stands then.
fn connect_all(client: &Host, service: SocketAddr, most: usize) -> Vec<HeldClient> {
    let connect = |_| {
        let outcome = HeldClient::connect(client, service);
        if let Err(error) = &outcome {
            assert!(error.to_string().contains("refused"), "{error}");
        }
        outcome.ok()
    };
    (0..most).map_while(connect).collect()
}

#[test]
fn a_services_limit_holds_to_the_connection_in_every_mode() {
    const NAME: &str = "a_services_limit_holds_to_the_connection_in_every_mode";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let lines =
        format!("algorithm = \"least-conn\"\nmax-connections = {LIMIT}\ntimeouts = {{ closing = \"1s\" }}");
    let wanted = Wanted { lines: &lines, ..Wanted::default() };
    let site = Balanced::start(&wanted, |host, _| HeldServer::start(host, wanted.port)).unwrap();
    for mode in Mode::ALL {
        for family in Family::BOTH {
            let (service, name) = (site.service(mode, family), service_name(mode, family));
            let mut held = connect_all(&site.topology.client, service, 2 * LIMIT);
            assert_eq!(held.len(), LIMIT, "{mode} {family}");
            let full = |status: &Status| status.service(&name).live == LIMIT as u64;
            site.balancer.wait(full, "as many as the limit", PATIENCE).unwrap();
            // Room for one is used by one.
            held.pop().unwrap().reset().unwrap();
            let room = |status: &Status| status.service(&name).live < LIMIT as u64;
            site.balancer.wait(room, "the connection to be forgotten", PATIENCE).unwrap();
            assert_eq!(connect_all(&site.topology.client, service, 2).len(), 1, "{mode} {family}");
            for client in &held {
                client.exchange(b"undisturbed", PATIENCE).unwrap();
            }
        }
    }
}

#[test]
fn a_backends_limit_holds_over_all_services_that_use_it() {
    const NAME: &str = "a_backends_limit_holds_over_all_services_that_use_it";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let topology = Topology::new().unwrap();
    let backend = topology.near(1, Mode::Snat, &[]).unwrap().host;
    let _server = HeldServer::start(&backend, PORT).unwrap();
    for family in Family::BOTH {
        let services =
            [101, 102].map(|last| SocketAddr::new(family.of(Ipv4Addr::new(10, 77, 0, last)), PORT));
        let target = SocketAddr::new(backend.address_in(family), PORT);
        let service = |(number, address): (usize, &SocketAddr)| {
            format!(
                "[[service]]\nname = \"s{number}\"\naddress = \"{address}/tcp\"\n\
                 backends = [{{ name = \"web1\", address = \"{target}\", max-connections = {LIMIT} }}]\n\n"
            )
        };
        let text: String = services.iter().enumerate().map(service).collect();
        let balancer = Balancer::start(&topology.balancer, &Setup::new().toml(&text).text(), &[]).unwrap();
        let first = connect_all(&topology.client, services[0], LIMIT - 2);
        let second = connect_all(&topology.client, services[1], LIMIT);
        assert_eq!((first.len(), second.len()), (LIMIT - 2, 2), "{family}");
        assert_eq!(connect_all(&topology.client, services[0], 1).len(), 0, "{family}");
        drop((first, second, balancer));
    }
}

#[test]
fn a_source_that_connects_too_often_waits_and_the_others_do_not() {
    const NAME: &str = "a_source_that_connects_too_often_waits_and_the_others_do_not";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let lines = "algorithm = \"round-robin\"\nrate-limit = { per-second = 5, burst = 10 }";
    let wanted = Wanted { lines, modes: &[Mode::Snat, Mode::Dsr], ..Wanted::default() };
    let site = Balanced::start(&wanted, |host, _| HeldServer::start(host, wanted.port)).unwrap();
    let other = site.topology.another_client("other", 2).unwrap();
    for mode in [Mode::Snat, Mode::Dsr] {
        for family in Family::BOTH {
            let service = site.service(mode, family);
            let start = Instant::now();
            let greedy = |count: usize| {
                (0..count).filter(|_| HeldClient::connect(&site.topology.client, service).is_ok())
            };
            assert_eq!(greedy(10).count(), 10, "{mode} {family}: a burst");
            assert!(start.elapsed() < Duration::from_secs(1), "{mode} {family}: {:?}", start.elapsed());
            // Whatever becomes of the next ones, no more get through than five a second.
            let more = greedy(10).count();
            let allowed = 1 + (start.elapsed().as_secs_f64() * 5.0) as usize;
            assert!(more <= allowed, "{mode} {family}: {more} in {:?}", start.elapsed());
            let start = Instant::now();
            HeldClient::connect(&other, service).unwrap();
            assert!(start.elapsed() < Duration::from_millis(900), "{mode} {family}: {:?}", start.elapsed());
        }
    }
}
