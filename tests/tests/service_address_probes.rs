//! Where backends answer clients directly, probes find out whether they answer for the service's address at all.

use std::net::IpAddr;
use std::time::Duration;

use lb_tests::lab::balanced::{Balanced, Wanted, service_address, service_name};
use lb_tests::lab::balancer::{Look, Status};
use lb_tests::lab::held::HeldServer;
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::topology::Mode;
use lb_tests::lab::{Family, Host};
use lb_userspace::api::BackendState;

const LIMIT: Duration = Duration::from_secs(30);

fn remove_address(host: &Host, address: IpAddr) {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    host.run(&["ip", "address", "delete", &format!("{address}/{bits}"), "dev", "lo"]).unwrap();
}

/// State and reason of the first backend.
fn first(status: &Status, service: &str) -> (BackendState, String) {
    let backend = &status.service(service).backends[0];
    (backend.state, backend.reason.clone())
}

#[test]
fn a_backend_without_the_services_address_goes_down_with_what_to_type_and_comes_back() {
    const NAME: &str = "a_backend_without_the_services_address_goes_down_with_what_to_type_and_comes_back";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let wanted = Wanted { modes: &[Mode::Dsr, Mode::Ipip], ..Wanted::default() };
    let mut site = Balanced::start(&wanted, |host, _| HeldServer::start(host, wanted.port)).unwrap();
    site.balancer.wait_judged().unwrap();
    for mode in [Mode::Dsr, Mode::Ipip] {
        for family in Family::BOTH {
            let (address, service) = (service_address(mode, family), service_name(mode, family));
            let host = site.backends_of(mode)[0].host.clone();
            remove_address(&host, address);
            let down = |status: &Status| first(status, &service).0 == BackendState::Down;
            let status = site.balancer.wait(down, "the backend to be down", LIMIT).unwrap();
            let reason = first(&status, &service).1;
            assert!(
                reason.contains(&format!("does not answer for {}", site.service(mode, family))),
                "{reason}"
            );
            let bits = if family == Family::V4 { 32 } else { 128 };
            assert!(reason.contains(&format!("ip addr add {address}/{bits} dev lo")), "{reason}");
            // The other backend has the address, and the services of other addresses know nothing of it.
            let others = status
                .services
                .iter()
                .flat_map(|known| known.backends.iter().skip(usize::from(known.name == service)));
            assert!(others.into_iter().all(|backend| backend.state == BackendState::Up), "{status:?}");
            host.add_address(address, "lo").unwrap();
            let up = |status: &Status| first(status, &service).0 == BackendState::Up;
            site.balancer.wait(up, "the backend to be up again", LIMIT).unwrap();
        }
    }
    // The end of a tunnel is missing: both families are gone from that host, its own address answers.
    let place = 2;
    drop(site.backends[place].tunnel.take());
    let name = service_name(Mode::Ipip, Family::V4);
    let down = |status: &Status| first(status, &name).0 == BackendState::Down;
    let status = site.balancer.wait(down, "the backend to be down", LIMIT).unwrap();
    let reason = first(&status, &name).1;
    assert!(reason.contains("does it take tunnels apart"), "{reason}");
    // No handshake has left anything behind for a server to accept.
    let accepted: usize = site.servers.iter().map(|server| server.connections().len()).sum();
    println!("{accepted} connections accepted, all of them the probes' of the backends' own addresses");
}
