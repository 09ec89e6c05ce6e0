//! What is published, as it stands in the maps.

use lb_common::{
    Be16, Be32,
    abi::{
        EndpointKey, RangesKey, ServiceKey, TCP, algorithm, backend_state, mode, no_backend, server_account,
        service_account, service_flag,
    },
};

use super::{
    Dataplane, DataplaneError, Desired, Fate, Rate,
    family::Ip as _,
    testing::{LAYOUT, address, adopt, backend, publish, service, sweep, with_maps},
};
use crate::listen::{Listen, Ports};

fn ip(text: &str) -> Be32 {
    Be32::of(text.parse().expect("an address")).expect("of IPv4")
}

fn key(at: &str, port: u16, range: u8) -> ServiceKey<Be32> {
    ServiceKey { address: ip(at), port: Be16::from_host(port), protocol: TCP, range }
}

fn ids(dataplane: &Dataplane) -> Vec<u16> {
    dataplane.v4.backends.keys().copied().collect()
}

#[test]
fn a_service_stands_in_the_maps_with_its_ring_and_its_members_behind_it() {
    with_maps(LAYOUT, |pins| {
        let mut dataplane = adopt(pins, LAYOUT);
        let wanted = service(
            "10.0.0.1:80",
            vec![backend("10.1.0.1:80", &["10.0.0.9"]), backend("10.1.0.2:80", &["10.0.0.9"])],
        );
        publish(&mut dataplane, &[wanted]);
        let entry = dataplane.v4.maps.services.get(&key("10.0.0.1", 80, 0), 0).unwrap();
        assert_eq!((entry.id, entry.members, entry.mode, entry.flags), (1, 2, mode::SNAT, 0));
        let ring = dataplane.common.slots.read(entry.ring_offset, entry.ring_length + 2);
        let (slots, members) = ring.split_at(entry.ring_length as usize);
        assert_eq!(members, [0x1_0001, 0x2_0002]);
        assert!(slots.iter().all(|word| members.contains(word)));
        let share = slots.iter().filter(|word| **word == 0x1_0001).count();
        assert!(share.abs_diff(slots.len() - share) == 1, "{share} of an odd {}", slots.len());
        let first = dataplane.v4.maps.backends.get(&1, 0).unwrap();
        assert_eq!((first.state, first.source, first.sources, first.cells), (backend_state::ACTIVE, 1, 1, 0));
        let second = dataplane.v4.maps.backends.get(&2, 0).unwrap();
        assert_eq!((second.source, second.cells, second.mtu), (1, 100, 1500));
        assert_ne!(first.server, second.server);
    });
}

#[test]
fn a_later_agent_takes_up_all_ids_and_numbers() {
    with_maps(LAYOUT, |pins| {
        let mut wanted = service("10.0.0.1:80", vec![backend("10.1.0.1:80", &["10.0.0.9", "10.0.0.8"])]);
        wanted.listen.ports = Ports::Range(8000, 8099);
        let v6 = service("[fd00::1]:80", vec![backend("[fd01::1]:80", &["fd00::9"])]);
        let services = [wanted, v6, service("10.0.0.1:80", vec![backend("10.1.0.1:80", &["10.0.0.8"])])];
        let mut first = adopt(pins, LAYOUT);
        publish(&mut first, &services);
        let before = (first.v4.backends.clone(), first.v6.backends.clone(), first.v4.endpoints.clone());
        let names: Vec<_> = (1..=3).map(|number| first.name_of(number)).collect();
        drop(first);
        let mut second = adopt(pins, LAYOUT);
        assert_eq!((1..=3).map(|number| second.name_of(number)).collect::<Vec<_>>(), names);
        assert_eq!(second.active().len(), 3);
        publish(&mut second, &services);
        sweep(&mut second);
        assert_eq!(
            (second.v4.backends.clone(), second.v6.backends.clone(), second.v4.endpoints.clone()),
            before
        );
    });
}

#[test]
fn a_pool_of_sources_gets_blocks_and_numbers_side_by_side() {
    with_maps(LAYOUT, |pins| {
        let mut dataplane = adopt(pins, LAYOUT);
        let pool = ["10.0.0.8", "10.0.0.9"];
        let mut wanted = service("10.0.0.1:80", vec![backend("10.1.0.1:80", &pool)]);
        publish(&mut dataplane, std::slice::from_ref(&wanted));
        let first = dataplane.v4.backends[&1];
        assert_eq!((first.source, first.sources, first.cells), (1, 2, 0));
        // Another service of the same server shares the blocks, though it uses one source only.
        let other = service("10.0.0.2:80", vec![backend("10.1.0.1:80", &["10.0.0.9"])]);
        publish(&mut dataplane, &[wanted.clone(), other.clone()]);
        let second = dataplane.v4.backends[&2];
        assert_eq!((second.source, second.sources, second.cells), (2, 1, 100));
        assert_eq!(second.server, first.server);
        // A pool that grows keeps its blocks where the next ones are free.
        wanted.backends = vec![backend("10.1.0.1:80", &["10.0.0.8", "10.0.0.9", "10.0.0.7"])];
        publish(&mut dataplane, &[wanted.clone(), other.clone()]);
        let grown = dataplane.v4.backends[&1];
        assert_eq!((grown.sources, grown.cells), (3, 0));
        // One in another order would name the same ports twice.
        wanted.backends = vec![backend("10.1.0.1:80", &["10.0.0.9", "10.0.0.8"])];
        let errors = dataplane.publish(&Desired { services: vec![wanted, other], ..Desired::default() });
        assert!(matches!(errors[..], [DataplaneError::SourcesHeld { .. }]), "{errors:?}");
        assert_eq!(dataplane.v4.backends[&1], grown);
    });
}

#[test]
fn a_server_that_keeps_ports_lends_each_source_port_once_to_all_of_its_own() {
    with_maps(LAYOUT, |pins| {
        let mut dataplane = adopt(pins, LAYOUT);
        let one_port = |port: u16| {
            let server = format!("10.1.0.1:{port}");
            service(&format!("10.0.0.1:{port}"), vec![backend(&server, &["10.0.0.9", "10.0.0.8"])])
        };
        let mut all = service("10.0.0.1:0", vec![backend("10.1.0.1:0", &["10.0.0.8"])]);
        all.listen.ports = Ports::Range(1000, 1099);
        let elsewhere = service("10.0.0.2:80", vec![backend("10.1.0.2:80", &["10.0.0.8"])]);
        let services = [one_port(80), one_port(443), all, elsewhere];
        publish(&mut dataplane, &services);
        let cells = |dataplane: &Dataplane, numbers: &[u16]| -> Vec<u32> {
            numbers.iter().map(|number| dataplane.v4.backends[number].cells).collect()
        };
        assert_eq!(cells(&dataplane, &[1, 2, 3, 4]), [0, 0, 100, 200]);
        sweep(&mut dataplane);
        // What has begun together stays so.
        publish(&mut dataplane, &[services[0].clone(), services[1].clone(), services[3].clone()]);
        sweep(&mut dataplane);
        publish(&mut dataplane, &services);
        assert_eq!(cells(&dataplane, &[1, 2]), [0, 0]);
        drop(dataplane);
        let mut second = adopt(pins, LAYOUT);
        publish(&mut second, &services);
        assert_eq!(cells(&second, &[1, 2]), [0, 0]);
    });
}

#[test]
fn a_server_in_dnat_answers_for_all_its_services() {
    with_maps(LAYOUT, |pins| {
        let mut dataplane = adopt(pins, LAYOUT);
        let mut one = service("10.0.0.1:80", vec![backend("10.1.0.1:8080", &[])]);
        one.mode = mode::DNAT;
        let mut two = service("10.0.0.2:81", vec![backend("10.1.0.1:8080", &[])]);
        two.mode = mode::DNAT;
        publish(&mut dataplane, &[one.clone(), two.clone()]);
        let of = EndpointKey::of(ip("10.1.0.1"), Be32::default(), Be16::from_host(8080), TCP);
        let endpoint = dataplane.v4.maps.endpoints.get(&of, 0).unwrap();
        assert_eq!(endpoint.services, [1, 2, 0, 0]);
        assert_eq!(endpoint.ports.map(Be16::host), [80, 81, 0, 0]);
        // A range is answered for by a server that keeps the port, and by no other.
        let mut range = service("10.0.0.3:80", vec![backend("10.1.0.1:0", &[])]);
        (range.mode, range.listen.ports) = (mode::DNAT, Ports::Range(90, 99));
        publish(&mut dataplane, &[one, two.clone(), range.clone()]);
        let keeping = EndpointKey::of(ip("10.1.0.1"), Be32::default(), Be16::default(), TCP);
        assert_eq!(dataplane.v4.maps.endpoints.get(&keeping, 0).unwrap().services, [3, 0, 0, 0]);
        range.backends = vec![backend("10.1.0.1:8080", &[])];
        let errors = dataplane.publish(&Desired { services: vec![two, range], ..Desired::default() });
        assert!(matches!(errors[..], [DataplaneError::ManyToOne { .. }]), "{errors:?}");
        sweep(&mut dataplane);
        assert_eq!(dataplane.v4.maps.endpoints.get(&of, 0).unwrap().services, [2, 0, 0, 0]);
        assert!(dataplane.v4.maps.endpoints.get(&keeping, 0).is_err());
    });
}

#[test]
fn narrow_ranges_come_first_and_a_withdrawn_one_is_named_no_more() {
    with_maps(LAYOUT, |pins| {
        let mut dataplane = adopt(pins, LAYOUT);
        let ranged = |ports| {
            let mut wanted = service("10.0.0.1:80", vec![backend("10.1.0.1:0", &["10.0.0.9"])]);
            wanted.listen.ports = ports;
            wanted
        };
        let (wide, narrow) = (ranged(Ports::All), ranged(Ports::Range(8000, 8099)));
        publish(&mut dataplane, &[wide.clone(), narrow.clone(), ranged(Ports::One(8001))]);
        let of = RangesKey { address: ip("10.0.0.1"), protocol: TCP.into() };
        let ranges = dataplane.v4.maps.ranges.get(&of, 0).unwrap().ranges;
        assert_eq!(ranges[..3], [[8000, 8099], [1, 65535], [1, 0]]);
        assert_eq!(dataplane.v4.maps.services.get(&key("10.0.0.1", 8000, 1), 0).unwrap().id, 2);
        assert_eq!(dataplane.v4.maps.services.get(&key("10.0.0.1", 8001, 0), 0).unwrap().id, 3);
        let same_start = ranged(Ports::Range(1, 99));
        let errors =
            dataplane.publish(&Desired { services: vec![wide.clone(), same_start], ..Desired::default() });
        assert!(matches!(errors[..], [DataplaneError::RangesCollide { .. }]), "{errors:?}");
        assert_eq!(dataplane.v4.maps.ranges.get(&of, 0).unwrap().ranges[..2], [[1, 65535], [1, 0]]);
        publish(&mut dataplane, &[]);
        assert!(dataplane.v4.maps.ranges.get(&of, 0).is_err());
        assert!(dataplane.v4.maps.services.keys().next().is_none());
    });
}

#[test]
fn limits_are_of_servers_over_services_of_services_and_of_sources() {
    with_maps(LAYOUT, |pins| {
        let mut dataplane = adopt(pins, LAYOUT);
        let limited = |at, limit| {
            let mut server = backend("10.1.0.1:80", &["10.0.0.9"]);
            server.max_connections = limit;
            service(at, vec![server])
        };
        let mut one = limited("10.0.0.1:80", Some(60));
        one.max_connections = Some(100);
        one.rate = Some(Rate { per_second: 5, burst: 9 });
        publish(&mut dataplane, &[one, limited("10.0.0.2:80", Some(50)), limited("10.0.0.3:80", None)]);
        let server = dataplane.v4.backends[&1].server;
        assert!(dataplane.v4.backends.values().all(|known| known.server == server));
        assert_eq!(dataplane.common.accounts.get(server_account(server)).limit, 50);
        assert_eq!(dataplane.common.accounts.get(service_account(1)).limit, 100);
        let entry = dataplane.v4.maps.services.get(&key("10.0.0.1", 80, 0), 0).unwrap();
        assert_eq!(entry.flags, service_flag::RATE);
        assert_eq!((entry.rate, entry.burst), (5, 9));
        publish(&mut dataplane, &[limited("10.0.0.3:80", None)]);
        assert_eq!(dataplane.common.accounts.get(server_account(server)).limit, 0);
    });
}

#[test]
fn what_leaves_is_cut_and_forgotten_by_the_sweep_that_finds_nothing_of_it() {
    with_maps(LAYOUT, |pins| {
        let mut dataplane = adopt(pins, LAYOUT);
        let both = vec![backend("10.1.0.1:80", &["10.0.0.9"]), backend("10.1.0.2:80", &["10.0.0.9"])];
        let mut wanted = service("10.0.0.1:80", both);
        publish(&mut dataplane, std::slice::from_ref(&wanted));
        wanted.backends[0].fate = Fate::Cut;
        publish(&mut dataplane, std::slice::from_ref(&wanted));
        assert_eq!(dataplane.v4.backends[&1].state, backend_state::CUT);
        sweep(&mut dataplane);
        sweep(&mut dataplane);
        assert_eq!(ids(&dataplane), [1, 2], "it is still named");
        wanted.backends.remove(0);
        publish(&mut dataplane, std::slice::from_ref(&wanted));
        sweep(&mut dataplane);
        assert_eq!(ids(&dataplane), [2]);
        assert_eq!(dataplane.v4.endpoints.len(), 1);
        assert_eq!(dataplane.common.servers.len(), 1);
        publish(&mut dataplane, &[]);
        sweep(&mut dataplane);
        assert_eq!(ids(&dataplane), [0_u16; 0]);
        assert!(dataplane.v4.endpoints.is_empty() && dataplane.common.servers.is_empty());
    });
}

#[test]
fn who_is_named_no_more_is_closed_to_new_connections_and_forgotten_when_nothing_is_held() {
    with_maps(LAYOUT, |pins| {
        let mut dataplane = adopt(pins, LAYOUT);
        let both = vec![backend("10.1.0.1:80", &["10.0.0.9"]), backend("10.1.0.2:80", &["10.0.0.9"])];
        let mut wanted = service("10.0.0.1:80", both);
        publish(&mut dataplane, std::slice::from_ref(&wanted));
        let left = wanted.backends.remove(0);
        publish(&mut dataplane, std::slice::from_ref(&wanted));
        assert_eq!(dataplane.v4.backends[&1].state, backend_state::CLOSED_TO_NEW);
        // One that comes back before it has gone is the same.
        wanted.backends.push(left);
        publish(&mut dataplane, std::slice::from_ref(&wanted));
        assert_eq!(dataplane.v4.backends[&1].state, backend_state::ACTIVE);
        sweep(&mut dataplane);
        assert_eq!(ids(&dataplane), [1, 2]);
        wanted.backends.pop();
        publish(&mut dataplane, std::slice::from_ref(&wanted));
        sweep(&mut dataplane);
        assert_eq!(ids(&dataplane), [2]);
        // In another mode it is another one; the old one's connections end as they are.
        (wanted.mode, wanted.backends[0].weight) = (mode::DNAT, 1024);
        publish(&mut dataplane, std::slice::from_ref(&wanted));
        assert_eq!(ids(&dataplane), [2, 3]);
        assert_eq!(dataplane.v4.backends[&2].state, backend_state::CLOSED_TO_NEW);
        sweep(&mut dataplane);
        assert_eq!(ids(&dataplane), [3]);
    });
}

#[test]
fn a_service_that_a_new_agent_does_not_know_takes_nobody_new_and_goes_with_its_last_backend() {
    with_maps(LAYOUT, |pins| {
        let stays = service("10.0.0.1:80", vec![backend("10.1.0.1:80", &["10.0.0.9"])]);
        let mut goes = service("10.0.0.2:80", vec![backend("10.1.0.2:80", &["10.0.0.9"])]);
        goes.no_backend = no_backend::HOLD;
        let mut first = adopt(pins, LAYOUT);
        publish(&mut first, &[stays.clone(), goes.clone()]);
        drop(first);
        let mut second = adopt(pins, LAYOUT);
        publish(&mut second, std::slice::from_ref(&stays));
        let entry = second.v4.maps.services.get(&key("10.0.0.2", 80, 0), 0).unwrap();
        assert_eq!((entry.id, entry.ring_length, entry.no_backend), (2, 0, no_backend::RESET));
        assert_eq!(second.v4.backends[&2].state, backend_state::CLOSED_TO_NEW, "nobody is cut");
        // Nothing is held any more, so the sweep forgets the backend and the next publication the service.
        sweep(&mut second);
        assert_eq!(ids(&second), [1]);
        assert!(second.tick().unwrap().is_empty());
        assert!(second.v4.maps.services.get(&key("10.0.0.2", 80, 0), 0).is_err());
        assert!(second.tick().is_none());
        // What this agent has published itself, and is told to withdraw, it withdraws.
        publish(&mut second, &[stays.clone(), goes]);
        publish(&mut second, &[stays]);
        assert!(second.v4.maps.services.get(&key("10.0.0.2", 80, 0), 0).is_err());
    });
}

#[test]
fn settled_slots_change_once_a_second_and_remember_their_owner() {
    with_maps(LAYOUT, |pins| {
        let mut dataplane = adopt(pins, LAYOUT);
        let mut wanted = service("10.0.0.1:80", vec![backend("10.1.0.1:80", &[])]);
        (wanted.mode, wanted.algorithm, wanted.on_change) = (mode::DSR, algorithm::MAGLEV, true);
        publish(&mut dataplane, std::slice::from_ref(&wanted));
        assert_eq!(dataplane.unsettled(wanted.listen), 0);
        wanted.backends.push(backend("10.1.0.2:80", &[]));
        publish(&mut dataplane, std::slice::from_ref(&wanted));
        let changed = dataplane.unsettled(wanted.listen);
        assert!(changed > 0);
        let entry = dataplane.v4.maps.services.get(&key("10.0.0.1", 80, 0), 0).unwrap();
        let slots = dataplane.common.slots.read(entry.ring_offset, entry.ring_length);
        assert_eq!(slots.iter().filter(|word| **word == 0x1_0002).count(), changed);
        wanted.backends.push(backend("10.1.0.3:80", &[]));
        publish(&mut dataplane, std::slice::from_ref(&wanted));
        let early = dataplane.v4.maps.services.get(&key("10.0.0.1", 80, 0), 0).unwrap();
        assert_eq!(early.ring_offset, entry.ring_offset, "too soon");
        // The second passes; the task asks once in each.
        let begun = std::time::Instant::now();
        while dataplane.tick().is_some() {
            assert!(begun.elapsed().as_secs() < 10, "it waits for ever");
            std::thread::yield_now();
        }
        let late = dataplane.v4.maps.services.get(&key("10.0.0.1", 80, 0), 0).unwrap();
        assert_eq!((late.members, late.ring_length), (3, entry.ring_length));
        // A later agent takes the slots up as they are.
        drop(dataplane);
        let mut dataplane = adopt(pins, LAYOUT);
        publish(&mut dataplane, std::slice::from_ref(&wanted));
        assert!(dataplane.unsettled(wanted.listen) >= changed);
    });
}

#[test]
fn echoes_are_answered_for_the_named_addresses_only() {
    with_maps(LAYOUT, |pins| {
        let mut dataplane = adopt(pins, LAYOUT);
        let echo = |dataplane: &mut Dataplane, addresses: &[&str]| {
            let echo = addresses.iter().map(|at| at.parse().expect("an address")).collect();
            assert!(dataplane.publish(&Desired { echo, ..Desired::default() }).is_empty());
            (dataplane.v4.maps.services.keys().count(), dataplane.v6.maps.services.keys().count())
        };
        assert_eq!(echo(&mut dataplane, &["10.0.0.1", "10.0.0.2", "fd00::1"]), (2, 1));
        drop(dataplane);
        let mut dataplane = adopt(pins, LAYOUT);
        assert_eq!(echo(&mut dataplane, &["10.0.0.2"]), (1, 0));
    });
}

#[test]
fn a_backend_of_the_other_family_is_refused_and_holds_nobody_up() {
    with_maps(LAYOUT, |pins| {
        let mut dataplane = adopt(pins, LAYOUT);
        let backends = vec![backend("[fd01::1]:80", &["fd00::9"]), backend("10.1.0.1:80", &["10.0.0.9"])];
        let wanted = service("10.0.0.1:80", backends);
        let listen = Listen::tcp(address("10.0.0.1:80"));
        let errors = dataplane.publish(&Desired { services: vec![wanted], ..Desired::default() });
        assert!(matches!(errors[..], [DataplaneError::Family { .. }]), "{errors:?}");
        assert_eq!(dataplane.active(), [(listen, address("10.1.0.1:80"))]);
    });
}
