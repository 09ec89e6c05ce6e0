//! HTTP through the balancer: every connection counted on both sides.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use lb_tests::lab::balancer::{Look, Status};
use lb_tests::lab::http::Client;
use lb_tests::lab::load::Load;
use lb_tests::lab::setup::{Service, WEB};
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Setup, Site};
use socket2::{Domain, Socket, Type};

const LIMIT: Duration = Duration::from_secs(10);
const WEIGHTS: [u32; 2] = [300, 100];

fn round_robin(weights: &[u32]) -> String {
    let lines = "algorithm = \"round-robin\"\ncheck = { type = \"http\", path = \"/ping\" }";
    Setup::new().service(&Service { lines, ..Service::web(weights) }).text()
}

/// Short connections until each of `requests` is answered; then what the clients were told must be what the
/// balancer counted, and what the weights promise.
///
/// The ring of two backends has 1,021 slots, of which 300:100 gives 766 and 255. Within any run of n slots a
/// backend stands n·q/1021 times, give or take less than two: one for each end of the run, which cuts a
/// turn. So the number of turns round the ring does not matter.
fn short_connections_are_shared_as_weighted(site: &Site, requests: u64) {
    let before = site.balancer.status().unwrap();
    let load = Load { requests: Some(requests), threads: 16, ..Load::new(WEB, "/static?{n}") };
    let report = load.run(&site.client).unwrap();
    let counters = || site.balancer.status().unwrap().service("web").drops.clone();
    assert_eq!(report.failures, BTreeMap::new(), "{:?}; {}", counters(), site.balancer.log());
    assert_eq!((report.succeeded(), report.connections), (requests, requests));
    let after = site
        .balancer
        .wait(|status| status.service("web").live == 0, "every connection to be closed", LIMIT)
        .unwrap();
    for (name, slots) in [("web1", 766), ("web2", 255)] {
        let served = report.bodies.get(name).copied().unwrap_or_default();
        let backend = |status: &Status| status.backend(&format!("web/{name}")).opened;
        assert_eq!(backend(&after) - backend(&before), served, "{name} as the balancer counts");
        let promised = requests as f64 * f64::from(slots) / 1021.0;
        assert!((served as f64 - promised).abs() < 2.0, "{name}: {served} for {promised}");
    }
    assert_eq!(after.service("web").opened - before.service("web").opened, requests);
}

#[test]
fn ten_thousand_short_connections_are_shared_as_weighted_and_none_fails() {
    const NAME: &str = "ten_thousand_short_connections_are_shared_as_weighted_and_none_fails";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let site = Site::start(2, 0, &round_robin(&WEIGHTS), &["--xdp-mode", "native"]).unwrap();
    let bystanders = site.watch().unwrap();
    assert_eq!(site.balancer.status().unwrap().interfaces[0].mode, "native");
    short_connections_are_shared_as_weighted(&site, 10_000);
    two_hundred_kept_connections_stay_where_they_are(&site);
    bystanders.assert_undisturbed();
}

#[test]
fn generic_mode_shares_connections_the_same_way() {
    const NAME: &str = "generic_mode_shares_connections_the_same_way";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let site = Site::start(2, 0, &round_robin(&WEIGHTS), &["--xdp-mode", "generic"]).unwrap();
    let bystanders = site.watch().unwrap();
    assert_eq!(site.balancer.status().unwrap().interfaces[0].mode, "generic");
    short_connections_are_shared_as_weighted(&site, 2_000);
    bystanders.assert_undisturbed();
}

/// 200 clients open a connection each and ask ten times on it.
fn two_hundred_kept_connections_stay_where_they_are(site: &Site) {
    let before = site.balancer.status().unwrap();
    let mut clients: Vec<Client> = (0..200).map(|_| Client::keep_alive()).collect();
    let mut homes: Vec<Vec<String>> = vec![Vec::new(); clients.len()];
    for round in 0..10 {
        for (client, home) in clients.iter_mut().zip(&mut homes) {
            let answer = site.client.enter(|| client.get(WEB, "/id.php")).unwrap().unwrap();
            assert_eq!((answer.status, answer.connect_time.is_some()), (200, round == 0));
            home.push(answer.body.trim().to_owned());
        }
    }
    let mut served: BTreeMap<String, u64> = BTreeMap::new();
    for home in homes {
        assert!(home.iter().all(|node| *node == home[0]), "a connection moved: {home:?}");
        *served.entry(home[0].clone()).or_default() += 1;
    }
    let during = site.balancer.status().unwrap();
    assert_eq!(during.service("web").live, 200);
    for (name, slots) in [("web1", 766), ("web2", 255)] {
        let backend = during.backend(&format!("web/{name}"));
        assert_eq!((backend.live, backend.opened), {
            let former = before.backend(&format!("web/{name}")).opened;
            (served[name], former + served[name])
        });
        let promised = 200.0 * f64::from(slots) / 1021.0;
        assert!((served[name] as f64 - promised).abs() < 2.0, "{served:?}");
    }
    drop(clients);
    site.balancer.wait(|status| status.service("web").live == 0, "all to be closed", LIMIT).unwrap();
}

#[test]
fn a_client_that_uses_its_port_again_gets_a_connection_that_is_counted_once() {
    const NAME: &str = "a_client_that_uses_its_port_again_gets_a_connection_that_is_counted_once";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let site = Site::start(2, 0, &round_robin(&[100, 100]), &[]).unwrap();
    for count in 1..=20 {
        // The server closes first, so the client's port has no TIME_WAIT and may be used again at once.
        let answer = site.client.enter(|| ask_from_port(5_000)).unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let closed = |status: &Status| status.service("web").live == 0;
        let status = site.balancer.wait(closed, "the connection to be closed", LIMIT).unwrap();
        assert_eq!(status.service("web").opened, count);
    }
}

/// One request from a source port of the caller's choice; the whole answer.
fn ask_from_port(port: u16) -> std::io::Result<String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    socket.connect(&WEB.into())?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"GET /static HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
