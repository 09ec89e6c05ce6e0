//! The real programs on a real interface: attached, replaced in place, run for a trace.

use std::{process::Command, time::Duration};

use aya::{
    Pod,
    maps::{Array, HashMap, MapData},
    programs::{TestRun as _, TestRunOptions},
};
use lb_common::{
    Be32, Be128,
    abi::{ACCOUNTS, BucketKey, Fragment, FragmentKey, Stations, algorithm, mode, purpose},
    event::outcome,
};
use nix::sched::{CloneFlags, unshare};

use super::{
    Dataplane, DesiredService, Kind, Mode, Pins, Port, Question,
    common::typed,
    family::{Family, Ip, Maps},
    load::Loaded,
    testing::{LAYOUT, address, backend, publish, service, with_pins},
};
use crate::{
    api::Segment,
    listen::{Listen, Protocol},
    observe::{Headers, build::packet},
};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SILENCE: Duration = Duration::from_secs(30);

/// A program's id and mode on an interface, as the kernel says.
fn running(interface: &str) -> Option<u32> {
    let shown = Command::new("ip").args(["-o", "link", "show", interface]).output().expect("iproute2");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let id = text.split("prog/xdp id ").nth(1)?.split_whitespace().next()?;
    id.parse().ok()
}

fn ip(line: &str) {
    let done = Command::new("ip").args(line.split_whitespace()).status().expect("iproute2");
    assert!(done.success(), "ip {line}");
}

fn port(name: &str, running: Option<(u32, Mode)>) -> (Port, [u8; 6]) {
    let index = nix::net::if_::if_nametoindex(name).expect("an interface");
    (
        Port {
            name: name.to_owned(),
            index,
            id: 0,
            kind: Kind::Veth,
            mode: None,
            stations: Stations::ANY,
            mtu: 1500,
            running,
            untouched: false,
        },
        MAC,
    )
}

/// An agent's data path on one end of a veth pair, in a network namespace of its own.
fn with_programs(test: impl FnOnce(Dataplane, &Pins) + Send) {
    with_pins(|pins| {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
        ip("link add v.0 type veth peer name v1");
        ip("link set v.0 up");
        let (dataplane, attached) = Dataplane::open(pins, LAYOUT, &[port("v.0", None)], &[], true, SILENCE)
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((attached[0].mode, attached[0].adopted), (Mode::Native, false));
        assert_eq!(running("v.0"), Some(attached[0].program));
        test(dataplane, pins);
        pins.remove().expect("pins that can go");
        ip("link del v.0");
    });
}

/// Replace the programs by ones of another purpose.
fn exchange(dataplane: &mut Dataplane, purpose: u8) {
    let mut programs = dataplane.loading(purpose)().expect("programs");
    dataplane.swap_all(&mut programs).expect("programs in place");
}

#[test]
fn programs_are_replaced_in_place_and_taken_up_by_a_later_agent() {
    with_programs(|mut dataplane, pins| {
        let first = running("v.0");
        exchange(&mut dataplane, purpose::CAPTURE);
        let second = running("v.0");
        assert!(second.is_some() && second != first);
        exchange(&mut dataplane, purpose::SERVE);
        let third = running("v.0").expect("a program");
        drop(dataplane);
        assert_eq!(running("v.0"), Some(third), "it outlives its agent");
        let taken = [port("v.0", Some((third, Mode::Native)))];
        let (_, attached) =
            Dataplane::open(pins, LAYOUT, &taken, &[], true, SILENCE).expect("what the first one left");
        assert!(attached[0].adopted);
        assert_eq!(pins.linked_interfaces(), ["v.0"]);
    });
}

/// A SYN of a client to a service, that comes in by an interface.
fn syn(client: &str, service: Listen, interface: &str) -> Question {
    let mut question = Question {
        packet: Vec::new(),
        interface: interface.to_owned(),
        service,
        port: service.ports.ends().0,
        client: address(client),
    };
    question.packet = packet(&question, MAC, Segment::Syn).expect("one version of IP");
    question
}

/// All that a program that serves may write.
fn written(dataplane: &Dataplane, pins: &Pins) -> Vec<String> {
    fn array<T: Pod + std::fmt::Debug>(pins: &Pins, name: &'static str) -> Vec<String> {
        let map: Array<MapData, T> = typed(pins, name).expect("a map");
        map.iter().enumerate().map(|(at, value)| format!("{name} {at} {value:?}")).collect()
    }
    fn table<K: Pod + std::fmt::Debug, V: Pod + std::fmt::Debug>(
        pins: &Pins,
        name: &'static str,
    ) -> Vec<String> {
        let map: HashMap<MapData, K, V> = typed(pins, name).expect("a map");
        map.iter().map(|entry| format!("{name} {:?}", entry.expect("an entry"))).collect()
    }
    fn tracked<A: Ip>(family: &Family<A>) -> Vec<String> {
        let Maps { cells, flows, .. } = &family.maps;
        let cells = (0..cells.len()).map(|at| {
            format!(
                "cell {at} {:?} {:?} {} {:?}",
                cells.owner(at),
                cells.seen(at),
                cells.backend(at),
                cells.back(at)
            )
        });
        let flows =
            (0..flows.len()).map(|at| format!("flow {at} {:?} {:?}", flows.owner(at), flows.record(at).way));
        cells.chain(flows).collect()
    }
    let common = &dataplane.common;
    let accounts = (0..ACCOUNTS).map(|row| format!("account {row} {:?}", common.accounts.get(row)));
    let traffic =
        common.traffic.iter().map(|values| format!("traffic {:?}", values.expect("values").to_vec()));
    let reasons =
        common.reasons.iter().map(|values| format!("reason {:?}", values.expect("values").to_vec()));
    accounts
        .chain(traffic)
        .chain(reasons)
        .chain(array::<u64>(pins, "TICKETS"))
        .chain(array::<u32>(pins, "FULL_SINCE"))
        .chain(array::<u64>(pins, "ERRORS"))
        .chain(array::<u32>(pins, "GATES"))
        .chain(table::<FragmentKey<Be32>, [u8; size_of::<Fragment<Be32>>()]>(pins, "FRAGMENTS4"))
        .chain(table::<BucketKey<Be32>, u64>(pins, "RATES4"))
        .chain(table::<BucketKey<Be128>, u64>(pins, "RATES6"))
        .chain(tracked(&dataplane.v4))
        .chain(tracked(&dataplane.v6))
        .collect()
}

/// A service of each mode, protocol and version of IP, with two backends each.
fn all_kinds() -> Vec<DesiredService> {
    let mut services = Vec::new();
    for (place, kind) in [mode::SNAT, mode::DNAT, mode::DSR, mode::IPIP].into_iter().enumerate() {
        for (v6, protocol) in
            [(false, Protocol::Tcp), (false, Protocol::Udp), (true, Protocol::Tcp), (true, Protocol::Udp)]
        {
            let at = |net: u8, host: usize| {
                if v6 { format!("[fd0{net}::{host}]:80") } else { format!("10.{net}.0.{host}:80") }
            };
            let source = if v6 { "fd02::9" } else { "10.2.0.9" };
            let backends = [1, 2].map(|which| backend(&at(1, 10 * (place + 1) + which), &[source]));
            let mut service = service(&at(0, place + 1), backends.to_vec());
            service.mode = kind;
            service.listen.protocol = protocol;
            service.algorithm = algorithm::ROUND_ROBIN;
            services.push(service);
        }
    }
    services
}

/// The program that serves, to be run over single packets.
fn server(dataplane: &Dataplane) -> Loaded {
    let (port, mode) = &dataplane.attached[0];
    let loaded = Loaded::new(&dataplane.pins, &dataplane.common.layout, port, *mode, purpose::SERVE);
    loaded.expect("a program")
}

/// Have it handle a packet.
fn serve(server: &mut Loaded, question: &Question) {
    let mut options = TestRunOptions::new();
    options.data_in = Some(&question.packet);
    let done = server.entry().expect("its entry").test_run(options).expect("a run");
    assert_eq!(done.return_value, 4, "XDP_REDIRECT");
}

#[test]
fn a_thousand_traces_say_whose_packets_would_be_and_leave_nothing() {
    const TRACES: usize = 1_000;
    with_programs(|mut dataplane, pins| {
        let services = all_kinds();
        publish(&mut dataplane, &services);
        let before = written(&dataplane, pins);
        for turn in 0..TRACES {
            let service = &services[turn % services.len()];
            let client = if service.listen.address.is_ipv4() { "10.77.1.1" } else { "[fd77::1]" };
            let question = syn(&format!("{client}:{}", 1024 + turn), service.listen, "v.0");
            let trace = dataplane.trace(&question).expect("an answer");
            assert_eq!((trace.outcome, trace.service), (outcome::FORWARD, Some(service.listen)), "{trace:?}");
            let backend = trace.backend.expect("a backend");
            assert!(service.backends.iter().any(|known| known.address == backend), "{trace:?}");
            assert!(!trace.known);
            let headers = Headers::read(&trace.packet);
            let (_, to) = headers.addresses.expect("addresses");
            let (target, tunnel) = match service.mode {
                mode::DSR => (service.listen.address, None),
                mode::IPIP => (service.listen.address, Some(backend.ip())),
                _ => (backend.ip(), None),
            };
            assert_eq!((to, headers.tunnel.map(|(_, to)| to)), (target, tunnel), "{headers}");
        }
        let after = written(&dataplane, pins);
        let changed: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(changed.is_empty() && before.len() == after.len(), "{changed:?}");
        assert!(dataplane.trace(&syn("10.77.1.1:1", services[0].listen, "v1")).is_err());
    });
}

#[test]
fn a_trace_of_a_known_connection_names_its_backend() {
    with_programs(|mut dataplane, pins| {
        let services = all_kinds();
        publish(&mut dataplane, &services);
        let mut server = server(&dataplane);
        for service in &services {
            let client = if service.listen.address.is_ipv4() { "10.77.1.1" } else { "[fd77::1]" };
            let mut backends = std::collections::BTreeSet::new();
            for port in [40_000, 40_001] {
                let question = syn(&format!("{client}:{port}"), service.listen, "v.0");
                serve(&mut server, &question);
                let before = written(&dataplane, pins);
                let trace = dataplane.trace(&question).expect("an answer");
                assert!(trace.known && trace.outcome == outcome::FORWARD, "{trace:?}");
                assert_eq!(dataplane.trace(&question).expect("an answer"), trace, "the same each time");
                assert!(before == written(&dataplane, pins));
                backends.insert(trace.backend.expect("a backend"));
            }
            assert_eq!(backends.len(), 2, "in turns, as they were served: {}", service.listen);
        }
    });
}
