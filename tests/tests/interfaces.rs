//! Where the program sits: on two interfaces with the balancer between them, on a bridge with containers behind it,
//! on links of jumbo frames.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use lb_tests::lab::balancer::{Balancer, Look, Status};
use lb_tests::lab::datagram::{DatagramServer, Datagrams};
use lb_tests::lab::setup::Service;
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::topology::{FAR, Mode, far_address};
use lb_tests::lab::transfer::{Transfer, TransferReport, TransferServer};
use lb_tests::lab::{Family, Host, Lab};
use lb_tests::{Result, Setup};

const LIMIT: Duration = Duration::from_secs(10);
const PORT: u16 = 8080;
const TRANSFER: Transfer = Transfer { up: 4 << 20, down: 4 << 20 };
/// The modes whose answers come back through the balancer.
const MODES: [Mode; 2] = [Mode::Snat, Mode::Dnat];
const PROTOCOLS: [&str; 2] = ["tcp", "udp"];

/// The balancer's address on the backends' side.
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, FAR, 0, 10);

/// Two backends, each with both kinds of server.
struct Backends {
    hosts: Vec<Host>,
    _servers: Vec<(TransferServer, DatagramServer)>,
}

impl Backends {
    /// Starts the servers, and sends what is for elsewhere through the balancer.
    fn serve(hosts: Vec<Host>) -> Result<Self> {
        let start = |host: &Host| {
            host.route_default(INSIDE)?;
            let own = Family::BOTH.map(|family| SocketAddr::new(family.of(inside_address(host)), PORT));
            Ok((TransferServer::start(host, PORT)?, DatagramServer::start(host, &own)?))
        };
        let servers = hosts.iter().map(start).collect::<Result<_>>()?;
        Ok(Self { hosts, _servers: servers })
    }
}

/// A backend's address on the balancer's inner side: by the number in its name.
fn inside_address(host: &Host) -> Ipv4Addr {
    far_address(host.name().trim_start_matches(char::is_alphabetic).parse().unwrap())
}

fn service(mode: Mode, family: Family, protocol: &str) -> (String, SocketAddr) {
    let last = 101 + mode as u8 + if protocol == "udp" { 10 } else { 0 };
    let address = SocketAddr::new(family.of(Ipv4Addr::new(10, 77, 0, last)), PORT);
    (format!("{mode}-{}-{protocol}", family.header()), address)
}

/// A service for each mode, family and protocol.
fn configuration(interfaces: &str, backends: &[Host]) -> String {
    let mut setup = Setup::on(interfaces);
    for (mode, family, protocol) in all() {
        let (name, address) = service(mode, family, protocol);
        let lines = format!(
            "mode = \"{mode}\"\nalgorithm = \"round-robin\"\ncheck = {{ type = \"tcp\", port = {PORT} }}\n\
             timeouts = {{ {} = \"2s\" }}",
            if protocol == "tcp" { "closing" } else { "udp" }
        );
        let of = |host: &Host| {
            (host.name().to_owned(), SocketAddr::new(family.of(inside_address(host)), PORT), 100)
        };
        setup = setup.service(&Service {
            name: &name,
            address: format!("{address}/{protocol}"),
            backends: backends.iter().map(of).collect(),
            lines: &lines,
        });
    }
    setup.text()
}

fn all() -> impl Iterator<Item = (Mode, Family, &'static str)> {
    let of = |mode| Family::BOTH.into_iter().map(move |family| (mode, family));
    MODES
        .into_iter()
        .flat_map(of)
        .flat_map(|(mode, family)| PROTOCOLS.map(|protocol| (mode, family, protocol)))
}

/// Transfers and datagrams in every mode and family, each to both backends, counted exactly.
fn all_goes_both_ways(client: &Host, balancer: &Balancer, longest: usize) -> Vec<TransferReport> {
    let mut reports = Vec::new();
    for (mode, family, protocol) in all() {
        let (name, address) = service(mode, family, protocol);
        if protocol == "tcp" {
            let two = [(); 2]
                .map(|()| TRANSFER.run(client, address).unwrap_or_else(|error| panic!("{name}: {error}")));
            println!("{name}: {two:?}");
            assert_ne!(two[0].server, two[1].server, "{name}");
            reports.extend(two);
        } else {
            let load =
                Datagrams { count: 10, sockets: 2, ..Datagrams::new(address, &[12, 1400, longest, 20_000]) };
            let report = load.run(client).unwrap();
            assert_eq!((report.answered(), report.lost, report.wrong), (40, 0, 0), "{name}: {report:?}");
            assert_eq!(report.replies.len(), 2, "{name}: {report:?}");
        }
    }
    let closed = |status: &Status| status.services.iter().all(|service| service.live == 0);
    let status = balancer.wait(closed, "all connections to be closed", 3 * LIMIT).unwrap();
    for (mode, family, protocol) in all() {
        let (name, _) = service(mode, family, protocol);
        assert_eq!(status.service(&name).opened, 2, "{name}");
    }
    reports
}

#[test]
fn clients_on_one_interface_reach_backends_on_another() {
    const NAME: &str = "clients_on_one_interface_reach_backends_on_another";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let host = lab.balancer_host().unwrap();
    host.plug_for_redirects("eth1", INSIDE).unwrap();
    let client = lab.client_host().unwrap();
    let hosts = [1, 2].map(|number| lab.host(&format!("far{number}"), far_address(number)).unwrap());
    let backends = Backends::serve(hosts.into()).unwrap();
    let text = configuration("\"eth0\", \"eth1\"", &backends.hosts);
    let balancer = Balancer::start(&host, &text, &[]).unwrap();
    all_goes_both_ways(&client, &balancer, 1400);
    for interface in ["eth0", "eth1"] {
        assert!(balancer.log().contains(&format!("{interface}: attached, native")), "{}", balancer.log());
    }
}

#[test]
fn containers_behind_a_bridge_are_backends_of_clients_outside() {
    const NAME: &str = "containers_behind_a_bridge_are_backends_of_clients_outside";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let host = lab.balancer_host().unwrap();
    // What containers leave to be cut after them cannot pass between interfaces.
    host.add_bridge("docker0", INSIDE).unwrap();
    let client = lab.client_host().unwrap();
    let containers = [1, 2].map(|number| {
        // Its other interface is of no use here.
        let container = lab.host(&format!("box{number}"), Ipv4Addr::new(10, 80, 0, number)).unwrap();
        host.contain("docker0", &container, "eth1", far_address(number)).unwrap();
        container.run(&["ethtool", "-K", "eth1", "tso", "off"]).unwrap();
        container
    });
    let backends = Backends::serve(containers.into()).unwrap();
    let text = configuration("\"eth0\", \"docker0\"", &backends.hosts);
    let balancer = Balancer::start(&host, &text, &[]).unwrap();
    all_goes_both_ways(&client, &balancer, 1400);
    assert!(balancer.log().contains("`ethtool -K IFACE tso off`"), "{}", balancer.log());
    for (interface, mode) in [("eth0", "native"), ("docker0", "generic")] {
        assert!(balancer.log().contains(&format!("{interface}: attached, {mode}")), "{}", balancer.log());
    }
}

/// The MTU of jumbo frames.
const JUMBO: u16 = 9000;

#[test]
fn jumbo_frames_go_both_ways_in_native_mode() {
    const NAME: &str = "jumbo_frames_go_both_ways_in_native_mode";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let host = lab.balancer_host().unwrap();
    host.plug_for_redirects("eth1", INSIDE).unwrap();
    let client = lab.client_host().unwrap();
    let hosts = [1, 2].map(|number| lab.host(&format!("far{number}"), far_address(number)).unwrap());
    let links = [&client, &hosts[0], &hosts[1], &host].map(|host| (host, "eth0"));
    for (host, device) in links.into_iter().chain([(&host, "eth1")]) {
        host.set_link_mtu(device, JUMBO).unwrap();
    }
    let backends = Backends::serve(hosts.into()).unwrap();
    let text = configuration("\"eth0\", \"eth1\"", &backends.hosts);
    let balancer = Balancer::start(&host, &text, &[]).unwrap();
    for report in all_goes_both_ways(&client, &balancer, 8900) {
        let segments = [report.client_segment, report.server_segment];
        assert!(segments.iter().all(|segment| *segment > 8900), "{report:?}");
    }
    for interface in ["eth0", "eth1"] {
        assert!(balancer.log().contains(&format!("{interface}: attached, native")), "{}", balancer.log());
    }
}
