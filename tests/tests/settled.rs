//! Rings whose slots remember: connections of `maglev` that nothing records stay where they are while backends come
//! and go, and service addresses that answer echo requests.

use std::collections::BTreeSet;
use std::time::Duration;

use lb_tests::lab::Family;
use lb_tests::lab::balanced::{Balanced, Wanted, service_name};
use lb_tests::lab::balancer::{BackendState, Look, Status};
use lb_tests::lab::held::{HeldClient, HeldServer};
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::topology::Mode;

const LIMIT: Duration = Duration::from_secs(10);
const CLIENTS: usize = 24;
/// Those in which nothing needs to be recorded.
const MODES: [Mode; 2] = [Mode::Dsr, Mode::Ipip];

#[test]
fn long_connections_survive_the_removal_and_return_of_other_backends() {
    const NAME: &str = "long_connections_survive_the_removal_and_return_of_other_backends";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let lines = "algorithm = \"maglev\"\ntrack = \"on-change\"";
    let wanted = Wanted { modes: &MODES, lines, ..Wanted::default() };
    let site = Balanced::start(&wanted, |host, _| HeldServer::start(host, wanted.port)).unwrap();
    for mode in MODES {
        for family in Family::BOTH {
            let (service, name) = (site.service(mode, family), service_name(mode, family));
            let connect = || HeldClient::connect(&site.topology.client, service).unwrap();
            let clients: Vec<HeldClient> = (0..CLIENTS).map(|_| connect()).collect();
            let all_answer = |when: &str| {
                for client in &clients {
                    client
                        .exchange(&[5; 3000], LIMIT)
                        .unwrap_or_else(|error| panic!("{name}, {when}: {error}"));
                }
            };
            all_answer("before");
            let servers: BTreeSet<_> = clients.iter().map(HeldClient::server).collect();
            assert_eq!(servers.len(), 2, "{name}: {servers:?}");
            // One goes: no new connections for it, all old ones stay.
            let gone = site.backends_of(mode)[0].host.name();
            let member = format!("{name}/{gone}");
            assert_eq!(site.balancer.run_lb(&["drain", &member]).unwrap().status.code(), Some(0));
            let drained = |status: &Status| status.backend(&member).state == BackendState::Draining;
            site.balancer.wait(drained, "the drain", LIMIT).unwrap();
            let elsewhere = |_: usize| connect().server() != gone;
            lb_tests::lab::wait_for("the ring without it", LIMIT, || (0..8).all(elsewhere).then_some(()))
                .unwrap();
            all_answer("without it");
            // It comes back: new connections reach it again, the old ones stay.
            assert_eq!(site.balancer.run_lb(&["ready", &member]).unwrap().status.code(), Some(0));
            let back = |_: usize| connect().server() == gone;
            lb_tests::lab::wait_for("the ring with it", LIMIT, || (0..8).any(back).then_some(())).unwrap();
            all_answer("after its return");
            assert!(clients.iter().all(|client| client.end().is_none()), "{name}");
        }
    }
}

#[test]
fn an_address_answers_echo_requests_where_it_is_told_to_and_nowhere_else() {
    const NAME: &str = "an_address_answers_echo_requests_where_it_is_told_to_and_nowhere_else";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Program("ping")]) {
        return;
    }
    for (lines, answered) in [("echo = true", 3), ("echo = false", 0)] {
        let wanted = Wanted { modes: &[Mode::Dnat], lines, ..Wanted::default() };
        let site = Balanced::start(&wanted, |host, _| HeldServer::start(host, wanted.port)).unwrap();
        // What is answered now is answered by the program.
        site.topology.balancer.set("ipv4/icmp_echo_ignore_all", "1").unwrap();
        site.topology.balancer.set("ipv6/icmp/echo_ignore_all", "1").unwrap();
        for family in Family::BOTH {
            let address = site.service(Mode::Dnat, family).ip().to_string();
            // Of several lengths, odd ones among them; `ping` compares each reply with what it sent.
            for size in ["8", "57", "1400"] {
                let command = ["ping", "-n", "-q", "-c", "3", "-i", "0.01", "-W", "1", "-s", size, &address];
                let said =
                    site.topology.client.command(command[0]).args(&command[1..]).output().unwrap().stdout;
                let wanted = format!("3 packets transmitted, {answered} received");
                assert!(said.contains(&wanted), "{lines} {family}: {said}");
                let own = site.topology.balancer.address_in(family).to_string();
                let command = ["ping", "-n", "-q", "-c", "1", "-W", "1", &own];
                let said =
                    site.topology.client.command(command[0]).args(&command[1..]).output().unwrap().stdout;
                assert!(said.contains("1 packets transmitted, 0 received"), "{lines} {family}: {said}");
            }
        }
    }
}
