//! UDP services in every mode: flows that stay where they are, and are forgotten in time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lb_tests::Result;
use lb_tests::lab::balanced::{Balanced, Wanted, service_name};
use lb_tests::lab::balancer::{Look, Status};
use lb_tests::lab::datagram::{DatagramServer, Datagrams};
use lb_tests::lab::held::HeldServer;
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::topology::Mode;
use lb_tests::lab::{Family, Host};

const PORT: u16 = 8080;

/// A UDP server, and the TCP port that its check asks.
fn serve(host: &Host, services: &[IpAddr]) -> Result<(DatagramServer, HeldServer)> {
    Ok((DatagramServer::start_behind(host, services, PORT)?, HeldServer::start(host, PORT)?))
}

#[test]
fn datagrams_of_a_port_stay_with_one_server_in_every_mode_until_they_expire() {
    const NAME: &str = "datagrams_of_a_port_stay_with_one_server_in_every_mode_until_they_expire";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let lines = "algorithm = \"round-robin\"\ntimeouts = { udp = \"5s\" }";
    let wanted = Wanted { protocol: "udp", port: PORT, lines, ..Wanted::default() };
    let site = Balanced::start(&wanted, serve).unwrap();
    for mode in Mode::ALL {
        for family in Family::BOTH {
            let load =
                Datagrams { count: 100, sockets: 20, ..Datagrams::new(site.service(mode, family), &[200]) };
            let report = load.run(&site.topology.client).unwrap();
            assert_eq!(
                (report.answered(), report.lost, report.wrong),
                (100, 0, 0),
                "{mode} {family}: {report:?}"
            );
            let names = site.backends_of(mode).iter().map(|backend| (backend.host.name().to_owned(), 50));
            assert_eq!(report.replies, names.collect::<BTreeMap<_, u64>>(), "{mode} {family}");
            for (socket, names) in &report.served {
                assert!(names.iter().all(|name| *name == names[0]), "{mode} {family}: {socket}: {names:?}");
            }
        }
    }
    let expired = |status: &Status| status.services.iter().all(|service| service.live == 0);
    let status = site.balancer.wait(expired, "all flows to expire", Duration::from_secs(30)).unwrap();
    for mode in Mode::ALL {
        for family in Family::BOTH {
            assert_eq!(status.service(&service_name(mode, family)).opened, 20, "{mode} {family}");
        }
    }
}

#[test]
fn datagrams_that_nobody_can_serve_are_refused_at_once() {
    const NAME: &str = "datagrams_that_nobody_can_serve_are_refused_at_once";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let wanted = Wanted { protocol: "udp", port: PORT, ..Wanted::default() };
    // Nothing serves: each backend's check is refused.
    let site = Balanced::start(&wanted, |_, _| Ok(())).unwrap();
    for mode in Mode::ALL {
        for family in Family::BOTH {
            let service = site.service(mode, family);
            let report = Datagrams::new(service, &[100]).run(&site.topology.client).unwrap();
            assert_eq!(
                (report.refused, report.lost, report.answered()),
                (1, 0, 0),
                "{mode} {family}: {report:?}"
            );
        }
    }
}
