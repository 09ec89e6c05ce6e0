//! Connections that are cut: a RST that both real TCP stacks accept, also where both sit silent in a read.

use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use lb_tests::lab::balanced::{Balanced, Wanted, service_name};
use lb_tests::lab::balancer::Look;
use lb_tests::lab::held::{End, Held, HeldClient, HeldServer, How};
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::topology::Mode;
use lb_tests::lab::{Family, balanced};
use lb_tests::wait_for;

const LIMIT: Duration = Duration::from_secs(5);
/// The longest that all ends of a mode may take.
const SOON: Duration = Duration::from_millis(100);
/// Those that measure milliseconds have the machine for themselves; the others share it.
static MACHINE: RwLock<()> = RwLock::new(());
/// A connection with a time-out of 3 s, which the kernel counts in coarse ticks, is not cut before.
const EXPIRED: Duration = Duration::from_millis(2_500);
/// Connections of a service.
const HELD: usize = 20;

fn site(lines: &str) -> Balanced<HeldServer> {
    let wanted = Wanted { lines, ..Wanted::default() };
    Balanced::start(&wanted, |host, _| HeldServer::start(host, wanted.port)).unwrap()
}

fn connect(site: &Balanced<HeldServer>, mode: Mode, family: Family, count: usize) -> Vec<HeldClient> {
    let service: SocketAddr = site.service(mode, family);
    (0..count).map(|_| HeldClient::connect(&site.topology.client, service).unwrap()).collect()
}

/// The live connections of a mode's first or second server.
fn live(site: &Balanced<HeldServer>, mode: Mode, place: usize) -> Vec<Held> {
    let all = site.servers_of(mode)[place].connections();
    all.into_iter().filter(|held| held.end().is_none()).collect()
}

/// Both sides were reset; the latest of their ends.
fn assert_reset(what: &str, clients: &[HeldClient], servers: &[Held]) -> Instant {
    let clients = clients.iter().map(|client| client.wait_end(LIMIT));
    let servers = servers.iter().map(|held| held.wait_end(LIMIT));
    let ends: Vec<End> = clients.chain(servers).map(|end| end.unwrap()).collect();
    assert!(ends.iter().all(|end| end.how == How::Reset), "{what}: {ends:?}");
    ends.iter().map(|end| end.at).max().unwrap()
}

/// Cuts the mode's first backend after `before`, and sees who felt it.
fn cut_first(site: &Balanced<HeldServer>, mode: Mode, family: Family, before: impl Fn(&HeldClient)) {
    let what = format!("{mode} {family}");
    let name = site.backends_of(mode)[0].host.name();
    let (cut, others): (Vec<_>, Vec<_>) =
        connect(site, mode, family, HELD).into_iter().partition(|client| client.server() == name);
    assert_eq!((cut.len(), others.len()), (HELD / 2, HELD / 2), "{what}");
    let (servers, other_servers) = (live(site, mode, 0), live(site, mode, 1));
    assert_eq!((servers.len(), other_servers.len()), (HELD / 2, HELD / 2), "{what}");
    cut.iter().chain(&others).for_each(before);

    let start = Instant::now();
    let output = site.balancer.run_lb(&["cut", &format!("{}/{name}", service_name(mode, family))]).unwrap();
    let returned = Instant::now();
    assert_eq!(output.status.code(), Some(0), "{what}: {output:?}");
    let last = assert_reset(&what, &cut, &servers);
    println!("{what}: all ended {:?} after the command's start", last - start);
    assert!(last.saturating_duration_since(returned) < SOON, "{what}: {:?}", last - returned);

    for other in &others {
        other.exchange(b"still here", LIMIT).unwrap();
    }
    assert!(other_servers.iter().all(|held| held.end().is_none()), "{what}");
    let service = service_name(mode, family);
    let counted =
        |status: &lb_tests::lab::balancer::Status| status.service(&service).live == (HELD / 2) as u64;
    site.balancer.wait(counted, "the count of what is left", LIMIT).unwrap();
    for other in others {
        other.close().unwrap();
    }
}

#[test]
fn silent_connections_are_cut_at_both_ends_in_every_mode() {
    const NAME: &str = "silent_connections_are_cut_at_both_ends_in_every_mode";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let _machine = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let site = site("algorithm = \"round-robin\"");
    for mode in Mode::ALL {
        for family in Family::BOTH {
            cut_first(&site, mode, family, |_| {});
        }
    }
}

#[test]
fn connections_that_have_talked_are_cut_at_both_ends_in_every_mode() {
    const NAME: &str = "connections_that_have_talked_are_cut_at_both_ends_in_every_mode";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let _machine = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let site = site("algorithm = \"round-robin\"");
    for mode in Mode::ALL {
        for family in Family::BOTH {
            cut_first(&site, mode, family, |client| client.exchange(&[1; 3000], LIMIT).unwrap());
        }
    }
}

#[test]
fn two_hundred_silent_connections_are_cut_within_a_second() {
    const NAME: &str = "two_hundred_silent_connections_are_cut_within_a_second";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let _machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let site = site("algorithm = \"round-robin\"");
    let clients = connect(&site, Mode::Snat, Family::V4, 400);
    let name = site.backends_of(Mode::Snat)[0].host.name();
    let (cut, others): (Vec<_>, Vec<_>) = clients.into_iter().partition(|client| client.server() == name);
    let servers = live(&site, Mode::Snat, 0);
    assert_eq!((cut.len(), servers.len()), (200, 200));
    site.balancer.command(&["cut", &format!("snat-4/{name}")]).run().unwrap();
    let returned = Instant::now();
    let last = assert_reset("snat", &cut, &servers);
    assert!(last.saturating_duration_since(returned) < Duration::from_secs(1), "{:?}", last - returned);
    assert!(others.iter().all(|other| other.end().is_none()));
}

#[test]
fn two_thousand_connections_of_a_backend_are_cut_by_one_command_within_two_seconds() {
    const NAME: &str = "two_thousand_connections_of_a_backend_are_cut_by_one_command_within_two_seconds";
    const CROWD: usize = 2_000;
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let _machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let site = site("algorithm = \"round-robin\"");
    for mode in [Mode::Snat, Mode::Dnat, Mode::Dsr] {
        let [name, spare] = [0, 1].map(|place| site.backends_of(mode)[place].host.name());
        let service = service_name(mode, Family::V4);
        site.balancer.command(&["drain", &format!("{service}/{spare}")]).run().unwrap();
        let clients = connect(&site, mode, Family::V4, CROWD);
        let servers = live(&site, mode, 0);
        assert_eq!((clients.len(), servers.len()), (CROWD, CROWD), "{mode}");
        let start = Instant::now();
        site.balancer.command(&["cut", &format!("{service}/{name}")]).run().unwrap();
        let took = assert_reset(&service, &clients, &servers) - start;
        println!("{mode}: {CROWD} connections ended at both ends {took:?} after the command's start");
        assert!(took < Duration::from_secs(2), "{mode}: {took:?}");
    }
}

#[test]
fn what_a_drain_leaves_at_its_deadline_is_cut_if_told_so() {
    const NAME: &str = "what_a_drain_leaves_at_its_deadline_is_cut_if_told_so";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let _machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let site = site("algorithm = \"round-robin\"");
    for mode in Mode::ALL {
        let what = format!("{mode}");
        let name = site.backends_of(mode)[0].host.name();
        let (cut, others): (Vec<_>, Vec<_>) =
            connect(&site, mode, Family::V4, HELD).into_iter().partition(|client| client.server() == name);
        let servers = live(&site, mode, 0);
        let backend = format!("{}/{name}", service_name(mode, Family::V4));
        let start = Instant::now();
        let drain = ["drain", &backend, "--deadline", "1s", "--then", "cut", "--wait"];
        let output = site.balancer.run_lb(&drain).unwrap();
        assert_eq!(output.status.code(), Some(0), "{what}: {output:?}");
        let last = assert_reset(&what, &cut, &servers);
        let first = cut.iter().map(|client| client.end().unwrap().at).min().unwrap();
        assert!(
            first - start >= Duration::from_millis(900),
            "{what}: they had a second: {:?}",
            first - start
        );
        assert!(last - start < Duration::from_secs(3), "{what}: {:?}", last - start);
        assert!(others.iter().all(|other| other.end().is_none()), "{what}");
        // No new connection comes to the drained one.
        let new = connect(&site, mode, Family::V4, 4);
        assert!(new.iter().all(|client| client.server() != name), "{what}");
    }
}

#[test]
fn a_connection_that_expires_is_cut_and_one_that_talks_is_not() {
    const NAME: &str = "a_connection_that_expires_is_cut_and_one_that_talks_is_not";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let _machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let lines = "algorithm = \"round-robin\"\ntimeouts = { established = \"3s\" }";
    let wanted = Wanted { lines, ..Wanted::default() };
    let site = Balanced::start(&wanted, |host, _| HeldServer::start(host, wanted.port)).unwrap();
    for mode in Mode::ALL {
        for family in Family::BOTH {
            let what = format!("{mode} {family}");
            let address = balanced::service_address(mode, family);
            let [silent, talking] = [0, 1].map(|_| {
                let service = SocketAddr::new(address, wanted.port);
                HeldClient::connect(&site.topology.client, service).unwrap()
            });
            let start = Instant::now();
            let ended = wait_for("the silent connection's end", Duration::from_mins(1), || {
                talking.exchange(b"x", LIMIT).unwrap();
                silent.end()
            });
            let end = ended.unwrap();
            assert_eq!(end.how, How::Reset, "{what}");
            assert!(end.at - start >= EXPIRED, "{what}: {:?}", end.at - start);
            // The server's side as well.
            let place =
                site.backends_of(mode).iter().position(|backend| backend.host.name() == silent.server());
            let gone = || live(&site, mode, place.unwrap()).is_empty().then_some(());
            wait_for("the end at the server", LIMIT, gone).unwrap();
            assert_eq!(talking.end(), None, "{what}");
            talking.close().unwrap();
        }
    }
}

#[test]
fn a_young_connection_whose_server_is_not_seen_outlives_a_silence() {
    const NAME: &str = "a_young_connection_whose_server_is_not_seen_outlives_a_silence";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let _machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    // Only what has been spoken in its first second is known of it, as of a forged one.
    let lines = "algorithm = \"round-robin\"\ntimeouts = { embryonic = \"2s\" }";
    let wanted = Wanted { lines, modes: &[Mode::Dsr, Mode::Ipip], ..Wanted::default() };
    let site = Balanced::start(&wanted, |host, _| HeldServer::start(host, wanted.port)).unwrap();
    for mode in [Mode::Dsr, Mode::Ipip] {
        for family in Family::BOTH {
            let what = format!("{mode} {family}");
            let clients = connect(&site, mode, family, HELD);
            // Longer than a handshake may take and all questions after it.
            std::thread::sleep(Duration::from_secs(8));
            let status = site.balancer.status().unwrap();
            assert_eq!(status.service(&service_name(mode, family)).live, HELD as u64, "{what}");
            for client in &clients {
                client.exchange(b"still the same server", LIMIT).unwrap();
            }
            let unknown = status.service(&service_name(mode, family)).drops.get("unknown-by-ring").copied();
            assert_eq!(unknown, None, "{what}");
            for client in clients {
                client.close().unwrap();
            }
        }
    }
}
