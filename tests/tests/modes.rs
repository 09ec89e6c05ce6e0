//! Every mode with real servers and real TCP stacks, side by side on one interface, in both families.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_tests::Setup;
use lb_tests::lab::balanced::{Balanced, Wanted, service_address, service_name};
use lb_tests::lab::balancer::{Balancer, Look, Status};
use lb_tests::lab::held::{HeldClient, HeldServer, How};
use lb_tests::lab::load::Load;
use lb_tests::lab::php::{PhpNode, PhpOptions};
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::topology::{Mode, Topology};
use lb_tests::lab::transfer::{Transfer, TransferServer};
use lb_tests::lab::{Family, Host};

const LIMIT: Duration = Duration::from_secs(5);
/// A lost SYN costs its sender a second.
const AT_ONCE: Duration = Duration::from_millis(900);

#[test]
fn php_pages_come_in_every_mode_and_family_with_exact_shares() {
    const NAME: &str = "php_pages_come_in_every_mode_and_family_with_exact_shares";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let lines = "algorithm = \"round-robin\"\ntimeouts = { closing = \"2s\" }";
    let wanted = Wanted { port: 80, lines, ..Wanted::default() };
    let site = Balanced::start(&wanted, |host, _| PhpNode::start(host, &PhpOptions::default())).unwrap();
    for mode in Mode::ALL {
        for family in Family::BOTH {
            let load = Load { requests: Some(200), ..Load::new(site.service(mode, family), "/id.php") };
            let report = load.run(&site.topology.client).unwrap();
            let names = site.backends_of(mode).iter().map(|backend| (backend.host.name().to_owned(), 100));
            assert_eq!(report.bodies, names.collect::<BTreeMap<_, u64>>(), "{mode} {family}: {report:?}");
            assert!(
                report.failures.is_empty() && report.slowest_connect < AT_ONCE,
                "{mode} {family}: {report:?}"
            );
        }
    }
    let closed = |status: &Status| status.services.iter().all(|service| service.live == 0);
    let status = site.balancer.wait(closed, "all connections to be closed", Duration::from_mins(2)).unwrap();
    for mode in Mode::ALL {
        for family in Family::BOTH {
            let service = status.service(&service_name(mode, family));
            assert_eq!(service.opened, 200, "{mode} {family}");
            assert!(service.backends.iter().all(|backend| backend.opened == 100), "{service:?}");
        }
    }
}

#[test]
fn servers_see_the_clients_address_in_all_modes_but_snat() {
    const NAME: &str = "servers_see_the_clients_address_in_all_modes_but_snat";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let wanted = Wanted::default();
    let site = Balanced::start(&wanted, |host, _| HeldServer::start(host, wanted.port)).unwrap();
    for mode in Mode::ALL {
        for family in Family::BOTH {
            let clients: Vec<HeldClient> = (0..4)
                .map(|_| HeldClient::connect(&site.topology.client, site.service(mode, family)).unwrap())
                .collect();
            for client in &clients {
                client.exchange(&[7; 5000], LIMIT).unwrap();
            }
            let seen: Vec<_> = site
                .servers_of(mode)
                .iter()
                .flat_map(HeldServer::connections)
                .filter(|held| held.end().is_none())
                .map(|held| held.peer())
                .collect();
            assert_eq!(seen.len(), 4, "{mode} {family}");
            assert!(
                seen.iter().all(|peer| peer.ip() == site.seen_client(mode, family)),
                "{mode} {family}: {seen:?}"
            );
            if mode != Mode::Snat {
                let ours: BTreeSet<SocketAddr> = clients.iter().map(HeldClient::local).collect();
                assert_eq!(
                    seen.into_iter().collect::<BTreeSet<_>>(),
                    ours,
                    "{mode} {family}: ports are kept"
                );
            }
            let counted = |status: &Status| status.service(&service_name(mode, family)).live == 4;
            site.balancer.wait(counted, "four live connections", LIMIT).unwrap();
            for client in clients {
                client.close().unwrap();
            }
        }
    }
    // The tunnels' packets come from the balancer itself.
    for backend in site.backends_of(Mode::Ipip) {
        let seen = backend.tunnel.as_ref().unwrap().seen();
        let balancer = Family::BOTH.map(|family| site.topology.balancer.address_in(family));
        assert_eq!((seen.refused, seen.outer_sources), (0, balancer.into()));
    }
}

#[test]
fn megabytes_go_both_ways_in_every_mode() {
    const NAME: &str = "megabytes_go_both_ways_in_every_mode";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let wanted = Wanted::default();
    let site = Balanced::start(&wanted, |host, _| TransferServer::start(host, wanted.port)).unwrap();
    for mode in Mode::ALL {
        for family in Family::BOTH {
            let mut servers = BTreeSet::new();
            for _ in 0..2 {
                let transfer = Transfer { up: 8 << 20, down: 8 << 20 };
                let report = transfer.run(&site.topology.client, site.service(mode, family)).unwrap();
                println!("{mode} {family}: {report:?}");
                servers.insert(report.server);
            }
            let names = site.backends_of(mode).iter().map(|backend| backend.host.name().to_owned());
            assert_eq!(servers, names.collect(), "{mode} {family}");
        }
    }
}

#[test]
fn a_port_that_was_just_closed_is_judged_afresh_in_every_mode() {
    const NAME: &str = "a_port_that_was_just_closed_is_judged_afresh_in_every_mode";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let wanted = Wanted::default();
    let site = Balanced::start(&wanted, |host, _| HeldServer::start(host, wanted.port)).unwrap();
    let client = &site.topology.client;
    for mode in Mode::ALL {
        for family in Family::BOTH {
            let local = SocketAddr::new(client.address_in(family), 40_000);
            let connect = || {
                let start = Instant::now();
                let held = HeldClient::connect_from(client, local, site.service(mode, family)).unwrap();
                assert!(start.elapsed() < AT_ONCE, "{mode} {family}: {:?}", start.elapsed());
                held
            };
            // Closed by the client with a RST, then by the server with a FIN.
            connect().reset().unwrap();
            let second = connect();
            let names: Vec<_> = site.backends_of(mode).iter().map(|backend| backend.host.name()).collect();
            let place = names.iter().position(|name| *name == second.server()).unwrap();
            // The latest of those that have not ended.
            let connections = site.servers_of(mode)[place].connections();
            let live = connections.iter().rfind(|held| held.end().is_none());
            live.unwrap().close();
            assert_eq!(second.wait_end(LIMIT).unwrap().how, How::Closed);
            second.close().unwrap();
            // The backend that had it takes no new connections: the next one goes to the other at once.
            let drained = format!("{}/{}", service_name(mode, family), names[place]);
            assert_eq!(site.balancer.run_lb(&["drain", &drained]).unwrap().status.code(), Some(0));
            let third = connect();
            assert_eq!(third.server(), names[1 - place], "{mode} {family}");
            third.exchange(b"there", LIMIT).unwrap();
            third.reset().unwrap();
        }
    }
}

/// Ports that the servers of the next test listen on.
const SERVED: [u16; 5] = [8080, 8000, 8009, 8010, 9999];

/// Three services at one address: one port goes before a range, a range before all ports.
fn nested_services(mode: Mode, family: Family, backend: &Host) -> String {
    let (service, target) = (service_address(mode, family), backend.address_in(family));
    let bracketed = if family == Family::V6 { format!("[{service}]") } else { service.to_string() };
    let (name, backend) = (service_name(mode, family), backend.name());
    let one = SocketAddr::new(target, 9999).to_string();
    let kinds =
        [("one", "8005", one), ("range", "8000-8009", target.to_string()), ("all", "*", target.to_string())];
    let service = |(kind, ports, target)| {
        format!(
            "[[service]]\nname = \"{kind}-{name}\"\naddress = \"{bracketed}:{ports}/tcp\"\nmode = \"{mode}\"\n\
             check = {{ type = \"tcp\", port = 8080 }}\n\
             backends = [{{ name = \"{backend}\", address = \"{target}\" }}]\n\n"
        )
    };
    kinds.map(service).concat()
}

#[test]
fn a_service_serves_one_port_or_a_range_or_all_of_them() {
    const NAME: &str = "a_service_serves_one_port_or_a_range_or_all_of_them";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let topology = Topology::new().unwrap();
    let modes = [Mode::Snat, Mode::Dnat];
    let backends =
        [1, 2].map(|number| topology.near(number, modes[usize::from(number) - 1], &[]).unwrap().host);
    let servers = backends.each_ref().map(|host| SERVED.map(|port| HeldServer::start(host, port).unwrap()));
    let mut setup = Setup::new();
    for (mode, backend) in modes.into_iter().zip(&backends) {
        for family in Family::BOTH {
            setup = setup.toml(&nested_services(mode, family, backend));
        }
    }
    let balancer = Balancer::start(&topology.balancer, &setup.text(), &[]).unwrap();
    for (mode, servers) in modes.into_iter().zip(&servers) {
        for family in Family::BOTH {
            let name = service_name(mode, family);
            for (asked, served) in [(8005, 9999), (8000, 8000), (8009, 8009), (8010, 8010)] {
                let place = SERVED.iter().position(|port| *port == served).unwrap();
                let before = servers[place].connections().len();
                let service = SocketAddr::new(service_address(mode, family), asked);
                HeldClient::connect(&topology.client, service).unwrap().close().unwrap();
                assert_eq!(servers[place].connections().len(), before + 1, "{name}: {asked}");
            }
            let opened = [("one", 1), ("range", 2), ("all", 1)];
            let counted = |status: &Status| {
                opened.iter().all(|(kind, count)| status.service(&format!("{kind}-{name}")).opened == *count)
            };
            balancer.wait(counted, "four connections where they belong", LIMIT).unwrap();
        }
    }
}
