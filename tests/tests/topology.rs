//! The lab's routers, backends of all modes and tools, shown without the balancer: what the kernel itself does
//! takes its place, routes and static neighbours for `dsr`, NAT by nftables for `dnat`, a small encapsulator for
//! `ipip`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lb_tests::lab::datagram::{DatagramServer, Datagrams};
use lb_tests::lab::flood::{Flood, Kind};
use lb_tests::lab::held::{HeldClient, HeldServer, How};
use lb_tests::lab::http::Client;
use lb_tests::lab::php::{PhpNode, PhpOptions};
use lb_tests::lab::setup::BALANCER;
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::topology::{Backend, Mode, Plan, Topology};
use lb_tests::lab::transfer::{Transfer, TransferServer};
use lb_tests::lab::{Family, Host, host};
use lb_tests::{Lab, wait_for};
use socket2::{Domain, Protocol, Socket, Type};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const PORT: u16 = 8080;
const LIMIT: Duration = Duration::from_secs(5);
/// Packets that fit into a processor's queue on their way (`net.core.netdev_max_backlog` is 1,000), so that each
/// of them must arrive, and how often they are sent.
const WAVE: u64 = 400;
const WAVES: u64 = 20;
/// More than one window each way.
const MEGABYTE: Transfer = Transfer { up: 1 << 20, down: 1 << 20 };

fn services() -> [IpAddr; 2] {
    Family::BOTH.map(|family| family.of(SERVICE))
}

fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, PORT)
}

/// TCP's header with the timestamps that Linux sends.
const fn segment(mtu: u32, family: Family) -> u32 {
    mtu - family.header() as u32 - 32
}

#[test]
fn clients_reach_far_backends_over_routers_in_both_families() {
    const NAME: &str = "clients_reach_far_backends_over_routers_in_both_families";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Php]) {
        return;
    }
    let topology = Topology::new().unwrap();
    let far = topology.far(1, Mode::Snat, &[]).unwrap().host;
    let _server = TransferServer::start(&far, PORT).unwrap();
    let _php = PhpNode::start(&far, &PhpOptions::default()).unwrap();
    for family in Family::BOTH {
        let address = far.address_in(family);
        let report = MEGABYTE.run(&topology.client, at(address)).unwrap();
        assert_eq!((&*report.server, report.local.ip()), ("far1", topology.client.address_in(family)));
        assert_eq!(
            (report.client_segment, report.server_segment),
            (segment(1500, family), segment(1500, family))
        );
        let page =
            topology.client.enter(|| Client::default().get((address, 80), "/id.php")).unwrap().unwrap();
        assert_eq!(page.body.trim(), "far1", "{family}");
    }
    let traced = topology.client.run(&["ip", "route", "get", "10.79.0.21"]).unwrap();
    assert!(traced.contains("via 10.78.0.1"), "{traced}");
}

#[test]
fn a_small_link_between_routers_is_learned_by_both_ends() {
    if skip::cannot_run("a_small_link_between_routers_is_learned_by_both_ends", &[Need::Lab]) {
        return;
    }
    for plan in
        [Plan { before: Some(1400), ..Plan::default() }, Plan { behind: Some(1400), ..Plan::default() }]
    {
        let topology = Topology::with(&plan).unwrap();
        let far = topology.far(1, Mode::Snat, &[]).unwrap().host;
        let _server = TransferServer::start(&far, PORT).unwrap();
        for family in Family::BOTH {
            let (here, there) = (topology.client.address_in(family), far.address_in(family));
            assert_eq!(topology.client.path_mtu(there).unwrap(), 1500);
            let report = MEGABYTE.run(&topology.client, at(there)).unwrap();
            assert_eq!(report.client_segment, segment(1400, family), "{plan:?} {family}: {report:?}");
            assert_eq!(report.server_segment, segment(1400, family), "{plan:?} {family}: {report:?}");
            assert_eq!(topology.client.path_mtu(there).unwrap(), 1400);
            assert_eq!(far.path_mtu(here).unwrap(), 1400);
        }
    }
}

#[test]
fn the_kernels_own_nat_stands_in_for_dnat_and_snat() {
    const NAME: &str = "the_kernels_own_nat_stands_in_for_dnat_and_snat";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Program("nft")]) {
        return;
    }
    let plan = Plan { behind: Some(1400), back_through_balancer: true, ..Plan::default() };
    let topology = Topology::with(&plan).unwrap();
    let [near, far] = [topology.near(1, Mode::Dnat, &[]).unwrap(), topology.far(1, Mode::Dnat, &[]).unwrap()];
    let servers = [&near, &far].map(|backend| TransferServer::start(&backend.host, PORT).unwrap());
    let balancer = &topology.balancer;
    balancer.forward().unwrap();
    for family in Family::BOTH {
        balancer.add_address(family.of(SERVICE), "eth0").unwrap();
    }
    for (backend, mtu, masquerade) in [(&near, 1500, false), (&far, 1400, false), (&far, 1400, true)] {
        translate(balancer, backend, masquerade);
        for family in Family::BOTH {
            let report = MEGABYTE.run(&topology.client, at(family.of(SERVICE))).unwrap();
            assert_eq!(report.server, backend.host.name());
            assert_eq!(report.client_segment, segment(mtu, family), "{family}: {report:?}");
        }
    }
    drop(servers);
}

/// Sends the service's packets to a backend by the kernel's NAT, from the balancer's address if `masquerade`.
fn translate(balancer: &Host, backend: &Backend, masquerade: bool) {
    let mut rules = "flush ruleset\n".to_owned();
    for (family, table) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        let (service, target) = (family.of(SERVICE), backend.host.address_in(family));
        let masquerade =
            if masquerade { format!("{table} daddr {target} masquerade") } else { String::new() };
        let chains = format!(
            "table {table} nat {{\n\
             chain in {{ type nat hook prerouting priority dstnat; {table} daddr {service} dnat to {target}; }}\n\
             chain out {{ type nat hook postrouting priority srcnat; {masquerade}\n }}\n}}\n"
        );
        rules.push_str(&chains);
    }
    let path = balancer.directory().join("nat.nft");
    std::fs::write(&path, rules).unwrap();
    balancer.run(&["nft", "-f", path.to_str().unwrap()]).unwrap();
}

#[test]
fn a_dsr_backend_takes_the_services_packets_but_never_answers_for_its_address() {
    const NAME: &str = "a_dsr_backend_takes_the_services_packets_but_never_answers_for_its_address";
    if skip::cannot_run(NAME, &[Need::Lab]) {
        return;
    }
    let topology = Topology::new().unwrap();
    let backend = topology.near(1, Mode::Dsr, &services()).unwrap().host;
    let _server = TransferServer::start(&backend, PORT).unwrap();
    let _datagrams = DatagramServer::start(&backend, &services().map(at)).unwrap();
    for family in Family::BOTH {
        let service = family.of(SERVICE).to_string();
        // Nobody in the segment has the address.
        let asked = topology.balancer.run(&["ping", "-c1", "-W1", &service]);
        assert!(asked.is_err(), "{asked:?}");
        let neighbours = topology.balancer.run(&["ip", "neigh", "show", "to", &service]).unwrap();
        assert!(!neighbours.contains("lladdr"), "{neighbours}");
        // What the balancer would do: the frame goes to the backend's MAC address.
        let mac = backend.mac();
        topology
            .front
            .run(&["ip", "neigh", "replace", &service, "lladdr", &mac, "dev", "eth0", "nud", "permanent"])
            .unwrap();
        let report = MEGABYTE.run(&topology.client, at(family.of(SERVICE))).unwrap();
        assert_eq!(report.server, "web1");
        let report = Datagrams::new(at(family.of(SERVICE)), &[12, 4000]).run(&topology.client).unwrap();
        assert_eq!((report.answered(), report.lost, report.wrong), (2, 0, 0), "{report:?}");
    }
}

#[test]
fn an_ipip_backend_takes_packets_out_of_packets_and_answers_straight() {
    const NAME: &str = "an_ipip_backend_takes_packets_out_of_packets_and_answers_straight";
    if skip::cannot_run(NAME, &[Need::Lab]) {
        return;
    }
    let topology = Topology::new().unwrap();
    let backend = topology.far(1, Mode::Ipip, &services()).unwrap();
    let _server = TransferServer::start(&backend.host, PORT).unwrap();
    let _datagrams = DatagramServer::start(&backend.host, &services().map(at)).unwrap();
    let encapsulator = Encapsulator::start(&topology.balancer, &backend.host);
    for family in Family::BOTH {
        topology.balancer.add_address(family.of(SERVICE), "lo").unwrap();
        let network = format!("{}/{}", family.of(SERVICE), if family == Family::V4 { 32 } else { 128 });
        topology.front.route_to(&network, family.of(BALANCER)).unwrap();
        // Not the host's own: everything for it goes into the tunnel.
        topology.balancer.run(&["ip", "address", "del", &network, "dev", "lo"]).unwrap();
        topology.balancer.run(&["ip", "route", "add", &network, "dev", "tap"]).unwrap();
        topology.balancer.forward().unwrap();
        let report = MEGABYTE.run(&topology.client, at(family.of(SERVICE))).unwrap();
        assert_eq!(report.server, "far1");
        let report = Datagrams::new(at(family.of(SERVICE)), &[12, 4000]).run(&topology.client).unwrap();
        assert_eq!((report.answered(), report.lost, report.wrong), (2, 0, 0), "{report:?}");
    }
    let seen = backend.tunnel.as_ref().unwrap().seen();
    // Each byte that the clients sent came this way, in packets of at most 1,400 bytes.
    assert!(seen.packets > 2 * MEGABYTE.up / 1400 && seen.refused == 0, "{seen:?}");
    assert_eq!(seen.outer_sources, Family::BOTH.map(|family| family.of(BALANCER)).into());
    drop(encapsulator);
}

/// The near end of a tunnel, as simple as it gets: what is routed into `tap` leaves as the payload of a raw socket.
struct Encapsulator {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<lb_tests::Result<()>>>,
}

impl Encapsulator {
    fn start(near: &Host, far: &Host) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let device = near.enter(|| {
            let mut configuration = tun::Configuration::default();
            configuration.tun_name("tap").layer(tun::Layer::L3).mtu(1400).up();
            tun::create(&configuration).unwrap()
        });
        let device = device.unwrap();
        near.take_any_source().unwrap();
        let sockets = Family::BOTH.map(|family| {
            let (domain, protocol) =
                if family == Family::V4 { (Domain::IPV4, 4) } else { (Domain::IPV6, 41) };
            let socket =
                near.enter(|| Socket::new(domain, Type::RAW, Some(Protocol::from(protocol))).unwrap());
            let socket = UdpSocket::from(socket.unwrap());
            socket.connect(SocketAddr::new(far.address_in(family), 0)).unwrap();
            socket
        });
        let told = stopped.clone();
        let thread = near.thread(move || {
            let mut packet = vec![0; 65_535];
            while !told.load(Ordering::Relaxed) {
                match device.recv_timeout(&mut packet, Duration::from_millis(50)) {
                    Ok(length) => {
                        let socket = &sockets[usize::from(packet[0] >> 4 == 6)];
                        let _ = socket.send(&packet[..length]);
                    }
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        Self { stopped, thread: Some(thread) }
    }
}

impl Drop for Encapsulator {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[test]
fn datagrams_above_the_mtu_come_back_whole_from_fragments() {
    if skip::cannot_run("datagrams_above_the_mtu_come_back_whole_from_fragments", &[Need::Lab]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let client = lab.host("client", Ipv4Addr::new(10, 77, 1, 1)).unwrap();
    let server = lab.host("server", Ipv4Addr::new(10, 77, 0, 21)).unwrap();
    let addresses = Family::BOTH.map(|family| at(server.address_in(family)));
    let echo = DatagramServer::start(&server, &addresses).unwrap();
    for (address, counter) in addresses.into_iter().zip(["IpReasmOKs", "Ip6ReasmOKs"]) {
        let sizes = [12, 100, 1400, 1473, 4000, 9000, 60_000];
        let load = Datagrams { count: 10, sockets: 3, ..Datagrams::new(address, &sizes) };
        let report = load.run(&client).unwrap();
        assert_eq!((report.sent, report.answered(), report.lost, report.wrong), (70, 70, 0, 0), "{report:?}");
        assert_eq!(report.replies.into_iter().collect::<Vec<_>>(), [("server".to_owned(), 70)]);
        assert_eq!(report.served.len(), 3);
        // Four sizes of seven are fragments, in both directions.
        assert_eq!(server.kernel_counter(counter).unwrap(), 40);
        assert_eq!(client.kernel_counter(counter).unwrap(), 40);
        // Nobody listens: an ICMP error for each.
        let closed = SocketAddr::new(address.ip(), PORT + 1);
        let report = Datagrams::new(closed, &[12]).run(&client).unwrap();
        assert_eq!((report.sent, report.refused, report.lost), (1, 1, 0), "{report:?}");
    }
    assert_eq!(echo.finish().unwrap(), 140);
}

#[test]
fn a_flood_arrives_to_the_last_packet() {
    if skip::cannot_run("a_flood_arrives_to_the_last_packet", &[Need::Lab]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let client = lab.host("client", Ipv4Addr::new(10, 77, 1, 1)).unwrap();
    let server = lab.host("server", Ipv4Addr::new(10, 77, 0, 21)).unwrap();
    for network in [lb_tests::lab::flood::SOURCES_4, lb_tests::lab::flood::SOURCES_6] {
        server.swallow(network).unwrap();
    }
    for family in Family::BOTH {
        let datagrams = if family == Family::V4 { "UdpNoPorts" } else { "Udp6NoPorts" };
        for (kind, counter) in [(Kind::Syn, "TcpInSegs"), (Kind::Ack, "TcpInSegs"), (Kind::Udp, datagrams)] {
            for _ in 0..WAVES {
                let before = server.kernel_counter(counter).unwrap();
                let mac = host::mac_of(server.address());
                let report = Flood::new(kind, at(server.address_in(family)), mac, WAVE).run(&client).unwrap();
                assert_eq!(report.sent, WAVE);
                let arrived = || (server.kernel_counter(counter).unwrap() >= before + WAVE).then_some(());
                wait_for("the last packet", LIMIT, arrived).unwrap();
                assert_eq!(server.kernel_counter(counter).unwrap(), before + WAVE, "{family} {kind:?}");
            }
        }
    }
    assert_eq!(server.kernel_counter("TcpInErrs").unwrap(), 0, "checksums");
    assert_eq!(server.kernel_counter("TcpInCsumErrors").unwrap(), 0);
    // A flood with a rate keeps to it, and one without is as fast as it gets.
    let flood =
        Flood::new(Kind::Syn, at(server.address_in(Family::V4)), host::mac_of(server.address()), 2_000);
    let paced = Flood { per_second: Some(10_000.0), ..flood.clone() }.run(&client).unwrap();
    assert!(paced.elapsed >= Duration::from_millis(190) && paced.sent == 2_000, "{paced:?}");
    let fast = Flood { total: Some(100_000), ..flood }.run(&client).unwrap();
    println!("{:.0} packets a second", fast.rate());
    assert!(fast.sent == 100_000 && fast.rate() > 2.0 * paced.rate(), "{fast:?}");
}

#[test]
fn both_ends_of_a_held_connection_tell_when_and_how_it_ended() {
    if skip::cannot_run("both_ends_of_a_held_connection_tell_when_and_how_it_ended", &[Need::Lab]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let client = lab.host("client", Ipv4Addr::new(10, 77, 1, 1)).unwrap();
    let server = lab.host("server", Ipv4Addr::new(10, 77, 0, 21)).unwrap();
    let held = HeldServer::start(&server, PORT).unwrap();
    for family in Family::BOTH {
        let address = at(server.address_in(family));
        let connect = || HeldClient::connect(&client, address).unwrap();
        let first = connect();
        assert_eq!(first.server(), "server");
        first.exchange(b"hello", LIMIT).unwrap();
        assert_eq!((first.end(), held.live()), (None, 1));
        let other = held.of(first.local()).unwrap();
        first.close().unwrap();
        assert_eq!(other.wait_end(LIMIT).unwrap().how, How::Closed);

        let second = connect();
        let other = held.of(second.local()).unwrap();
        second.reset().unwrap();
        assert_eq!(other.wait_end(LIMIT).unwrap().how, How::Reset);

        let third = connect();
        let other = held.of(third.local()).unwrap();
        other.close();
        assert_eq!(third.wait_end(LIMIT).unwrap().how, How::Closed);
        drop(third);
        other.wait_end(LIMIT).unwrap();

        // A RST out of nowhere, to a client that is blocked in its read.
        let fourth = connect();
        let port = format!(":{}", fourth.local().port());
        let start = std::time::Instant::now();
        server.run(&["ss", "-K", "dport", "=", &port]).unwrap();
        let end = fourth.wait_end(LIMIT).unwrap();
        assert_eq!(end.how, How::Reset);
        assert!(end.at.duration_since(start) < Duration::from_millis(500), "{:?}", end.at - start);
        assert_eq!(held.live(), 0);
    }
    assert_eq!(held.connections().len(), 8);
}

#[test]
fn a_port_that_was_just_closed_is_used_again_at_once() {
    if skip::cannot_run("a_port_that_was_just_closed_is_used_again_at_once", &[Need::Lab]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let client = lab.host("client", Ipv4Addr::new(10, 77, 1, 1)).unwrap();
    let server = lab.host("server", Ipv4Addr::new(10, 77, 0, 21)).unwrap();
    let held = HeldServer::start(&server, PORT).unwrap();
    for family in Family::BOTH {
        let local = SocketAddr::new(client.address_in(family), 40_000);
        let connect = || HeldClient::connect_from(&client, local, at(server.address_in(family))).unwrap();
        for _ in 0..3 {
            connect().reset().unwrap();
            let first = connect();
            assert_eq!(first.local(), local);
            // The server closes first, so that the TIME_WAIT is its own.
            held.of(local).unwrap().close();
            assert_eq!(first.wait_end(LIMIT).unwrap().how, How::Closed);
            first.close().unwrap();
        }
    }
}
