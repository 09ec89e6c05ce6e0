//! Floods from spoofed sources beside live connections, in every mode: what is established stays, what is new is
//! answered, and nothing is counted for ever.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_tests::lab::Family;
use lb_tests::lab::balanced::{Balanced, Wanted, service_name};
use lb_tests::lab::balancer::{Look, Status};
use lb_tests::lab::flood::{Flood, Kind};
use lb_tests::lab::held::{HeldClient, HeldServer};
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::topology::Mode;
use lb_tests::wait_for;

/// Connections that the table holds, and how much of a flood comes down on it.
const TABLE: u64 = 4_096;
const FLOOD: u64 = 10 * TABLE;
/// A second, as the kernel counts it in coarse ticks.
const PROVEN: Duration = Duration::from_millis(1_200);
/// Packets a second: many times what the table can forget, and less than the queues before it lose.
const RATE: f64 = 50_000.0;
/// Connections of each service that are there before.
const HELD: usize = 10;
/// Connections that are made while the flood goes on.
const NEW: usize = 20;
/// An exchange may lose packets on a machine that is busy with a flood; TCP sends them again.
const LIMIT: Duration = Duration::from_secs(10);

struct Flooded {
    site: Balanced<HeldServer>,
    held: Vec<(Mode, Family, HeldClient)>,
}

impl Flooded {
    fn start() -> Self {
        let top = format!("max-flows = {TABLE}");
        let lines = "algorithm = \"round-robin\"\ntimeouts = { embryonic = \"3s\", closing = \"3s\" }";
        let wanted = Wanted { top: &top, lines, ..Wanted::default() };
        let site = Balanced::start(&wanted, |host, _| HeldServer::start(host, wanted.port)).unwrap();
        let mut held = Vec::new();
        for (mode, family) in services() {
            for _ in 0..HELD {
                let client = HeldClient::connect(&site.topology.client, site.service(mode, family)).unwrap();
                held.push((mode, family, client));
            }
        }
        // Where the server is not seen, who speaks again after a second has a connection; until then he may be forged.
        std::thread::sleep(PROVEN);
        let flooded = Self { site, held };
        flooded.assert_alive("before");
        flooded
    }

    /// A flood on a service that goes on until it is stopped.
    fn flood(&self, kind: Kind, target: SocketAddr) -> Flood {
        let next_hop = self.site.topology.clients_next_hop();
        Flood { total: None, per_second: Some(RATE), ..Flood::new(kind, target, next_hop, 0) }
    }

    /// Every connection still gives back what is sent, from the server that it had.
    fn assert_alive(&self, when: &str) {
        for (mode, family, client) in &self.held {
            let outcome = client.exchange(when.as_bytes(), LIMIT);
            assert!(outcome.is_ok() && client.end().is_none(), "{mode} {family}, {when}: {outcome:?}");
        }
    }

    /// When the flood's time is up, the held connections are all that is left.
    fn assert_counts_return(&self) {
        let settled = |status: &Status| {
            services().all(|(mode, family)| status.service(&service_name(mode, family)).live == HELD as u64)
        };
        self.site.balancer.wait(settled, "the flood to be forgotten", Duration::from_mins(1)).unwrap();
    }
}

fn services() -> impl Iterator<Item = (Mode, Family)> {
    Mode::ALL.into_iter().flat_map(|mode| Family::BOTH.map(|family| (mode, family)))
}

#[test]
fn a_syn_flood_of_ten_tables_ends_no_connection_and_new_ones_are_answered() {
    const NAME: &str = "a_syn_flood_of_ten_tables_ends_no_connection_and_new_ones_are_answered";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let flooded = Flooded::start();
    let attacker = flooded.site.topology.another_client("attacker", 9).unwrap();
    for (mode, family) in services() {
        let target = flooded.site.service(mode, family);
        let flood = flooded.flood(Kind::Syn, target).start(&attacker).unwrap();
        wait_for("the table to be full", LIMIT, || (flood.sent() >= TABLE).then_some(())).unwrap();
        flooded.assert_alive("under the flood");
        let (mut answered, mut slowest) = (0, Duration::ZERO);
        for _ in 0..NEW {
            let start = Instant::now();
            if let Ok(client) = HeldClient::connect(&flooded.site.topology.client, target) {
                answered += 1;
                slowest = slowest.max(start.elapsed());
                client.close().unwrap();
            }
        }
        wait_for("the whole flood", Duration::from_mins(1), || (flood.sent() >= FLOOD).then_some(()))
            .unwrap();
        let report = flood.stop().unwrap();
        println!(
            "{mode} {family}: {} SYNs at {:.0}/s; {answered} of {NEW} new connections, the slowest in {slowest:?}",
            report.sent,
            report.rate()
        );
        // In `snat` only those are answered whose round trip is shorter than a port lasts.
        assert!(answered == NEW || mode == Mode::Snat, "{mode} {family}: {answered}");
        flooded.assert_alive("after");
    }
    flooded.assert_counts_return();
}

#[test]
fn a_flood_of_acks_ends_no_connection_and_is_counted_nowhere() {
    const NAME: &str = "a_flood_of_acks_ends_no_connection_and_is_counted_nowhere";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let flooded = Flooded::start();
    let attacker = flooded.site.topology.another_client("attacker", 9).unwrap();
    for (mode, family) in services() {
        let flood = flooded.flood(Kind::Ack, flooded.site.service(mode, family));
        let flood = Flood { total: Some(FLOOD), ..flood };
        let report = flood.run(&attacker).unwrap();
        assert_eq!(report.sent, FLOOD);
        flooded.assert_alive("after");
    }
    flooded.assert_counts_return();
}

#[test]
fn a_flood_of_datagrams_to_a_tcp_service_ends_no_connection() {
    const NAME: &str = "a_flood_of_datagrams_to_a_tcp_service_ends_no_connection";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let flooded = Flooded::start();
    let attacker = flooded.site.topology.another_client("attacker", 9).unwrap();
    for (mode, family) in services() {
        let flood = flooded.flood(Kind::Udp, flooded.site.service(mode, family));
        Flood { total: Some(FLOOD), ..flood }.run(&attacker).unwrap();
        flooded.assert_alive("after");
    }
    flooded.assert_counts_return();
}
