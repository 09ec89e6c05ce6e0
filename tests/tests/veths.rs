//! Containers behind host-side veths: attached to as they appear, forgotten as they go, whatever is going on meanwhile.
//! The containers are as their engine makes them: nobody touches an offload of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lb_tests::lab::balancer::{Balancer, Look, Status};
use lb_tests::lab::datagram::{DatagramServer, Datagrams};
use lb_tests::lab::setup::Service;
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::topology::{FAR, Mode, far_address};
use lb_tests::lab::transfer::{Transfer, TransferServer};
use lb_tests::lab::{Family, Host, Lab};
use lb_tests::{Result, Setup};

/// Programs are loaded for each interface, which takes seconds on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);
const PORT: u16 = 8080;
const MODES: [Mode; 2] = [Mode::Snat, Mode::Dnat];
/// The bridge's own address.
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, FAR, 0, 10);

/// A container with both kinds of server.
struct Container {
    host: Host,
    _servers: (TransferServer, DatagramServer),
}

/// A container behind the host's `docker0`, by a veth whose end at the host is called `to-box` and its number.
fn container(lab: &Lab, host: &Host, number: u8) -> Result<Container> {
    // Its other interface is of no use here.
    let container = lab.host(&format!("box{number}"), Ipv4Addr::new(10, 80, 0, number))?;
    host.contain("docker0", &container, "eth1", far_address(number))?;
    container.route_default(INSIDE)?;
    let own = Family::BOTH.map(|family| SocketAddr::new(family.of(far_address(number)), PORT));
    let servers = (TransferServer::start(&container, PORT)?, DatagramServer::start(&container, &own)?);
    Ok(Container { host: container, _servers: servers })
}

fn address(family: Family, last: u8) -> SocketAddr {
    SocketAddr::new(family.of(Ipv4Addr::new(10, 77, 0, last)), PORT)
}

/// A service over containers, by their numbers.
fn service(setup: Setup, name: &str, listen: (SocketAddr, &str), mode: Mode, boxes: &[u8]) -> Setup {
    let (address, protocol) = listen;
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    let of =
        |number: &u8| (format!("box{number}"), SocketAddr::new(family.of(far_address(*number)), PORT), 100);
    let lines = format!(
        "mode = \"{mode}\"\nalgorithm = \"round-robin\"\n\
         check = {{ type = \"tcp\", port = {PORT}, interval = \"500ms\", timeout = \"400ms\" }}\n\
         timeouts = {{ {} = \"2s\" }}",
        if protocol == "tcp" { "closing" } else { "udp" }
    );
    setup.service(&Service {
        name,
        address: format!("{address}/{protocol}"),
        backends: boxes.iter().map(of).collect(),
        lines: &lines,
    })
}

/// Whether an interface is attached, in the mode and with the exit of a container's.
fn is_attached(status: &Status, name: &str) -> bool {
    status
        .interfaces
        .iter()
        .any(|interface| interface.name == name && interface.mode == "native" && interface.exit == "stack")
}

fn is_known(status: &Status, name: &str) -> bool {
    status.interfaces.iter().any(|interface| interface.name == name)
}

/// Whether a backend of a service takes connections.
fn serves(status: &Status, service: &str, backend: &str) -> bool {
    let backends = &status.service(service).backends;
    backends.iter().any(|known| known.name == backend && known.weight_effective > 0.0)
}

/// Every mode, version and protocol; the last byte of the service's address, its name.
fn all() -> Vec<(Mode, Family, &'static str, u8, String)> {
    let mut all = Vec::new();
    for mode in MODES {
        for family in Family::BOTH {
            for protocol in ["tcp", "udp"] {
                let last = 101 + mode as u8 + if protocol == "udp" { 10 } else { 0 };
                all.push((mode, family, protocol, last, format!("{mode}-{}-{protocol}", family.header())));
            }
        }
    }
    all
}

#[test]
fn containers_that_appear_later_serve_clients_outside_with_their_offloads_as_they_are() {
    const NAME: &str = "containers_that_appear_later_serve_clients_outside_with_their_offloads_as_they_are";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let host = lab.balancer_host().unwrap();
    host.add_bridge("docker0", INSIDE).unwrap();
    let client = lab.client_host().unwrap();
    let setup =
        all().iter().fold(Setup::on("\"eth0\", \"to-*\""), |setup, (mode, family, protocol, last, name)| {
            service(setup, name, (address(*family, *last), protocol), *mode, &[1, 2])
        });
    let balancer = Balancer::start(&host, &setup.text(), &[]).unwrap();
    assert!(balancer.log().contains("to-*: no interface is called like this yet"), "{}", balancer.log());

    let _containers = [1, 2].map(|number| container(&lab, &host, number).unwrap());
    let ready = |status: &Status| {
        ["box1", "box2"].iter().all(|name| {
            is_attached(status, &format!("to-{name}"))
                && all().iter().all(|(.., service)| serves(status, service, name))
        })
    };
    balancer.wait(ready, "both containers to be attached and to serve", LIMIT).unwrap();

    let mut transfers: BTreeMap<String, u64> = all().into_iter().map(|(.., name)| (name, 0)).collect();
    for (_, family, protocol, last, name) in all() {
        let address = address(family, last);
        if protocol == "tcp" {
            // A backend that has just come up gets less at first, so turns need not alternate.
            let megabytes = Transfer { up: 4 << 20, down: 4 << 20 };
            let mut servers = BTreeSet::new();
            while servers.len() < 2 && transfers[&name] < 20 {
                let report =
                    megabytes.run(&client, address).unwrap_or_else(|error| panic!("{name}: {error}"));
                println!("{name}: {report:?}");
                servers.insert(report.server);
                *transfers.entry(name.clone()).or_default() += 1;
            }
            assert_eq!(servers.len(), 2, "{name}");
        } else {
            let load = Datagrams { count: 10, sockets: 2, ..Datagrams::new(address, &[12, 1400, 20_000]) };
            let report = load.run(&client).unwrap();
            assert_eq!((report.answered(), report.lost, report.wrong), (30, 0, 0), "{name}: {report:?}");
            transfers.insert(name, 2);
        }
    }
    let closed = |status: &Status| status.services.iter().all(|service| service.live == 0);
    let status = balancer.wait(closed, "all connections to be closed", LIMIT).unwrap();
    for (name, made) in transfers {
        assert_eq!(status.service(&name).opened, made, "{name}");
    }
}

/// A client that transfers without end, one connection after the other.
struct Client {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(u64, Vec<String>)>>,
}

impl Client {
    fn start(host: &Host, server: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (from, stopped) = (host.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let (mut done, mut failures) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                match (Transfer { up: 1 << 16, down: 1 << 16 }).run(&from, server) {
                    Ok(_) => done += 1,
                    Err(error) => failures.push(error.to_string()),
                }
            }
            Ok((done, failures))
        });
        Self { stop, thread }
    }

    /// How many succeeded; none may have failed.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let (done, failures) = self.thread.join().unwrap().unwrap();
        assert!(failures.is_empty(), "{done} succeeded, {failures:?}");
        done
    }
}

/// The pinned links of a host's interfaces.
fn pinned(host: &Host) -> Vec<String> {
    let listed = host.run(&["sh", "-c", "ls /sys/fs/bpf/lb/*/links"]).unwrap();
    listed.split_whitespace().map(ToOwned::to_owned).collect()
}

#[test]
fn containers_come_and_go_and_no_request_of_another_is_lost() {
    const NAME: &str = "containers_come_and_go_and_no_request_of_another_is_lost";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let host = lab.balancer_host().unwrap();
    host.add_bridge("docker0", INSIDE).unwrap();
    let client = lab.client_host().unwrap();
    let [stays, changes] = [101, 102].map(|last| address(Family::V4, last));
    let setup = service(Setup::on("\"eth0\", \"to-*\""), "stays", (stays, "tcp"), Mode::Snat, &[1]);
    let setup = service(setup, "changes", (changes, "tcp"), Mode::Snat, &[2, 3, 4]);
    let first = container(&lab, &host, 1).unwrap();
    let mut balancer = Balancer::start(&host, &setup.text(), &[]).unwrap();
    let there = |status: &Status| is_attached(status, "to-box1") && serves(status, "stays", "box1");
    balancer.wait(there, "the container that was there", LIMIT).unwrap();
    let load = Client::start(&client, stays);
    let once = || Transfer { up: 1 << 20, down: 1 << 20 }.run(&client, changes).unwrap().server;

    let second = container(&lab, &host, 2).unwrap();
    let comes = |status: &Status| is_attached(status, "to-box2") && serves(status, "changes", "box2");
    balancer.wait(comes, "a container to come", LIMIT).unwrap();
    assert_eq!(once(), "box2");
    drop(second);
    let goes = |status: &Status| !is_known(status, "to-box2") && !serves(status, "changes", "box2");
    balancer.wait(goes, "it to be gone", LIMIT).unwrap();
    assert_eq!(pinned(&host), ["eth0", "to-box1"]);

    // One that goes, and one that comes, while nobody looks.
    let fourth = container(&lab, &host, 4).unwrap();
    let comes = |status: &Status| is_attached(status, "to-box4") && serves(status, "changes", "box4");
    balancer.wait(comes, "another one to come", LIMIT).unwrap();
    assert_eq!(once(), "box4");
    balancer.terminate().unwrap();
    drop(fourth);
    let _third = container(&lab, &host, 3).unwrap();
    balancer.restart().unwrap();
    let after = |status: &Status| {
        is_attached(status, "to-box1")
            && is_attached(status, "to-box3")
            && serves(status, "stays", "box1")
            && serves(status, "changes", "box3")
    };
    balancer.wait(after, "the one that stayed and the one that came", LIMIT).unwrap();
    assert_eq!(once(), "box3");
    assert_eq!(pinned(&host), ["eth0", "to-box1", "to-box3"]);
    assert!(balancer.log().contains("to-box1: taken up, native"), "{}", balancer.log());
    assert!(balancer.log().contains("to-box4: detached, for it is gone"), "{}", balancer.log());

    // The host's own connections pass the same veths, and nobody looks at them.
    let own = Transfer { up: 4 << 20, down: 4 << 20 }.run(&host, SocketAddr::from((far_address(1), PORT)));
    assert_eq!(own.unwrap().server, first.host.name());

    let done = load.stop();
    println!("{done} transfers of 128 KB while containers came and went");
    assert!(done > 0);
    let closed = |status: &Status| status.services.iter().all(|service| service.live == 0);
    let status = balancer.wait(closed, "all connections to be closed", LIMIT).unwrap();
    assert_eq!((status.service("stays").opened, status.service("changes").opened), (done, 3));
    balancer.terminate().unwrap();
    balancer.detach().unwrap();
    for interface in ["eth0", "to-box1", "to-box3"] {
        assert!(host.run(&["tc", "filter", "show", "dev", interface, "ingress"]).unwrap().is_empty());
    }
}
