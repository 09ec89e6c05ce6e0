//! Path MTU discovery through the balancer: routers before and behind it say what does not fit, each of them to an
//! address that the balancer must translate, and a tunnel that does not fit says so itself.

use std::net::SocketAddr;

use lb_tests::lab::Family;
use lb_tests::lab::balanced::{Balanced, Wanted};
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::topology::{Mode, Plan};
use lb_tests::lab::transfer::{Transfer, TransferServer};

const SMALL: u16 = 1400;
const USUAL: u16 = 1500;
/// More than a window each way.
const TRANSFER: Transfer = Transfer { up: 2 << 20, down: 2 << 20 };

/// TCP's header with the timestamps that Linux sends.
const fn segment(mtu: u16, family: Family) -> u32 {
    mtu as u32 - family.header() as u32 - 32
}

fn site(modes: &[Mode], plan: Plan) -> Balanced<TransferServer> {
    let wanted = Wanted { modes, plan, ..Wanted::default() };
    Balanced::start(&wanted, |host, _| TransferServer::start(host, wanted.port)).unwrap()
}

/// Transfers over a small link that lies wholly on one side, and sees that both ends have learned of it: the one
/// beside it from a router, the other from a router through the balancer.
fn both_ends_learn(site: &Balanced<TransferServer>, mode: Mode) {
    for family in Family::BOTH {
        let service: SocketAddr = site.service(mode, family);
        let client = &site.topology.client;
        assert_eq!(client.path_mtu(service.ip()).unwrap(), USUAL, "{mode} {family}");
        let report = TRANSFER.run(client, service).unwrap();
        let expected = (segment(SMALL, family), segment(SMALL, family));
        assert_eq!((report.client_segment, report.server_segment), expected, "{mode} {family}: {report:?}");
        assert_eq!(client.path_mtu(service.ip()).unwrap(), SMALL, "{mode} {family}");
        let backend =
            site.backends_of(mode).iter().find(|backend| backend.host.name() == report.server).unwrap();
        let peer = site.seen_client(mode, family);
        assert_eq!(backend.host.path_mtu(peer).unwrap(), SMALL, "{mode} {family}");
    }
}

#[test]
fn a_small_link_before_the_balancer_is_learned_by_servers_of_every_mode() {
    const NAME: &str = "a_small_link_before_the_balancer_is_learned_by_servers_of_every_mode";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let site = site(&Mode::ALL, Plan { before: Some(SMALL), ..Plan::default() });
    for mode in Mode::ALL {
        both_ends_learn(&site, mode);
    }
}

#[test]
fn a_small_link_behind_the_balancer_is_learned_by_clients_through_snat() {
    const NAME: &str = "a_small_link_behind_the_balancer_is_learned_by_clients_through_snat";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let site = site(&[Mode::Snat], Plan { behind: Some(SMALL), ..Plan::default() });
    both_ends_learn(&site, Mode::Snat);
}

#[test]
fn a_small_link_behind_the_balancer_is_learned_by_clients_through_dnat() {
    const NAME: &str = "a_small_link_behind_the_balancer_is_learned_by_clients_through_dnat";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let plan = Plan { behind: Some(SMALL), back_through_balancer: true, ..Plan::default() };
    both_ends_learn(&site(&[Mode::Dnat], plan), Mode::Dnat);
}

#[test]
fn a_tunnel_that_does_not_fit_tells_clients_what_does() {
    const NAME: &str = "a_tunnel_that_does_not_fit_tells_clients_what_does";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let site = site(&[Mode::Ipip], Plan::default());
    for family in Family::BOTH {
        let inside = USUAL - family.header() as u16;
        let service = site.service(Mode::Ipip, family);
        let report = TRANSFER.run(&site.topology.client, service).unwrap();
        assert_eq!(report.client_segment, segment(inside, family), "{family}: {report:?}");
        // Replies do not go through the tunnel.
        assert_eq!(report.server_segment, segment(USUAL, family), "{family}: {report:?}");
        assert_eq!(site.topology.client.path_mtu(service.ip()).unwrap(), inside, "{family}");
    }
    for backend in &site.backends {
        assert!(backend.tunnel.as_ref().unwrap().seen().longest <= usize::from(USUAL - 20));
    }
}
