//! Datagrams above the MTU: the first fragment carries the ports, the others follow it, in every mode and both
//! ways.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_tests::lab::balanced::{Balanced, Wanted};
use lb_tests::lab::datagram::{DatagramServer, Datagrams};
use lb_tests::lab::held::HeldServer;
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::topology::Mode;
use lb_tests::lab::{Family, Host};
use lb_tests::{Result, lab};

const PORT: u16 = 8080;
/// From one packet to more than forty fragments; 1,473 bytes are the first that do not fit with IPv4's headers.
const SIZES: [usize; 7] = [12, 1400, 1453, 1473, 4000, 9000, 60_000];
/// How many of them are more than one packet.
const IN_FRAGMENTS: [u64; 2] = [4, 5];
const ROUNDS: u64 = 5;
const SOCKETS: usize = 4;

/// A UDP server, and the TCP port that its check asks.
fn serve(host: &Host, services: &[IpAddr]) -> Result<(DatagramServer, HeldServer)> {
    Ok((DatagramServer::start_behind(host, services, PORT)?, HeldServer::start(host, PORT)?))
}

#[test]
fn datagrams_in_fragments_come_back_whole_in_every_mode() {
    const NAME: &str = "datagrams_in_fragments_come_back_whole_in_every_mode";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let wanted = Wanted { protocol: "udp", port: PORT, ..Wanted::default() };
    let site = Balanced::start(&wanted, serve).unwrap();
    let client = &site.topology.client;
    for mode in Mode::ALL {
        for (family, in_fragments) in Family::BOTH.into_iter().zip(IN_FRAGMENTS) {
            let service = site.service(mode, family);
            if mode == Mode::Ipip {
                // The first datagram that fills a frame is what tells the client of the tunnel's MTU.
                let report = Datagrams::new(service, &[1400, 1453, 4000]).run(client).unwrap();
                let told = (report.answered(), report.too_large, report.lost);
                assert_eq!(told, (2, 1, 0), "{family}: {report:?}");
                assert!(client.path_mtu(service.ip()).unwrap() < 1500, "{family}");
            }
            let counter = if family == Family::V4 { "IpReasmOKs" } else { "Ip6ReasmOKs" };
            let made_whole = |host: &lab::Host| host.kernel_counter(counter).unwrap();
            let at_servers =
                || site.backends_of(mode).iter().map(|backend| made_whole(&backend.host)).sum::<u64>();
            let (before, before_servers) = (made_whole(client), at_servers());
            let load = Datagrams { count: ROUNDS, sockets: SOCKETS, ..Datagrams::new(service, &SIZES) };
            let report = load.run(client).unwrap();
            let sent = ROUNDS * SIZES.len() as u64;
            assert_eq!((report.sent, report.answered()), (sent, sent), "{mode} {family}: {report:?}");
            assert_eq!((report.lost, report.wrong, report.refused), (0, 0, 0), "{mode} {family}: {report:?}");
            // The client's pieces were put together by the servers, the servers' by the client.
            let wholes = (made_whole(client) - before, at_servers() - before_servers);
            assert!(
                wholes.0 >= ROUNDS * in_fragments && wholes.1 >= ROUNDS * in_fragments,
                "{mode} {family}: {wholes:?}"
            );
            // All of a socket's datagrams, whole or in pieces, reach the same server.
            for (socket, names) in &report.served {
                let names: BTreeSet<_> = names.iter().collect();
                assert_eq!(names.len(), 1, "{mode} {family}: {socket}: {names:?}");
            }
            assert_eq!(report.replies.len(), 2, "{mode} {family}: {:?}", report.replies);
        }
    }
}
