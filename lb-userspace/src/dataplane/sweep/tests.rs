//! The sweep over real maps: what ends, what is handed out, what it costs.

use std::time::{Duration, Instant};

use lb_common::{
    Address as _, Be16, Be32, Be128, Ticks,
    abi::{Hop, Layout, mode, server_account, service_account},
    cell::{Owner, Phase, PortCell, Side},
    flow::{Bucket, FlowKey, Record, SLOTS, Way},
    ports::PortRanges,
};

use nix::time::{ClockId, clock_gettime};

use crate::{
    cut,
    dataplane::{
        Dataplane, DesiredService, Fate, now,
        testing::{
            LAYOUT, address, adopt, backend, create_map, memory_of, publish, service, sweep, with_maps,
        },
    },
};

const CLIENT: Be32 = Be32::from_host(0x0a4d_0101);
const PORT: Be16 = Be16::from_host(40_000);
const CLIENT_HOP: Hop = Hop { mac: [2, 0, 0, 0, 0, 7], interface: 1 };

/// Long ago: longer than any time-out of these tests.
fn long_ago() -> Ticks {
    Ticks::from_raw(now().raw().wrapping_sub(Ticks::from_millis(3_000).raw()))
}

fn owner(phase: Phase) -> Owner {
    Owner::next(Owner(0), CLIENT, PORT, phase)
}

fn dnat() -> DesiredService {
    let mut wanted = service("10.0.0.1:80", vec![backend("10.1.0.1:80", &[])]);
    wanted.mode = mode::DNAT;
    wanted
}

fn record(way: Way, seen: Ticks) -> Record<Be32> {
    let service_port = Be16::from_host(80);
    Record { way, seen: seen.raw(), backend: 1, service: 1, service_port, ..Record::default() }
}

/// Open a connection's accounts, as the kernel does.
fn open_accounts(dataplane: &Dataplane) {
    let accounts = &dataplane.common.accounts;
    accounts.open(1);
    accounts.open(server_account(dataplane.v4.backends[&1].server));
    accounts.open(service_account(1));
}

fn live(dataplane: &Dataplane) -> [u64; 3] {
    let server = dataplane.v4.backends.get(&1).map_or(1, |known| known.server);
    [1, server_account(server), service_account(1)].map(|row| dataplane.common.accounts.get(row).live())
}

/// An established `snat` connection in cell 5, its flow where its key says; the flow's place.
fn snat_connection(dataplane: &Dataplane, phase: Phase, server: Ticks, client: Ticks) -> u32 {
    let cell = PortCell {
        owner: owner(phase),
        hop: CLIENT_HOP,
        seen: server.raw(),
        backend: 1,
        service_port: Be16::from_host(80),
        vlan: 42,
        ..PortCell::default()
    };
    dataplane.v4.maps.cells.put(5, &cell);
    let key = FlowKey { client: CLIENT, client_port: PORT, service_port: Be16::from_host(80), service: 1 };
    let [bucket, _] = key.buckets(LAYOUT.seed, LAYOUT.buckets[0] - 1);
    let place = bucket * SLOTS as u32 + 3;
    let way = Way::port(5, 1, Be16::from_host(1029));
    dataplane.v4.maps.flows.put(place, owner(Phase::Linked), &record(way, client));
    open_accounts(dataplane);
    place
}

fn snat(pins: &crate::dataplane::Pins) -> (Dataplane, DesiredService) {
    let mut dataplane = adopt(pins, LAYOUT);
    let wanted = service("10.0.0.1:80", vec![backend("10.1.0.1:80", &["10.0.0.9"])]);
    publish(&mut dataplane, std::slice::from_ref(&wanted));
    (dataplane, wanted)
}

#[test]
fn a_silent_handshake_ends_with_its_flow_and_its_accounts() {
    with_maps(LAYOUT, |pins| {
        let (mut dataplane, _) = snat(pins);
        let place = snat_connection(&dataplane, Phase::Embryonic, long_ago(), long_ago());
        let swept = sweep(&mut dataplane);
        assert_eq!((swept.cut.len(), swept.faults.len()), (0, 0));
        assert_eq!(dataplane.v4.maps.cells.owner(5).phase(), Phase::Resting);
        assert_eq!(dataplane.v4.maps.flows.owner(place).phase(), Phase::Free);
        assert_eq!(live(&dataplane), [0; 3]);
    });
}

#[test]
fn a_connection_lives_while_either_end_speaks() {
    for (what, server, client, lives) in [
        ("both", now(), now(), true),
        ("the server", now(), long_ago(), true),
        ("the client", long_ago(), now(), true),
        ("nobody", long_ago(), long_ago(), false),
    ] {
        with_maps(LAYOUT, |pins| {
            let (mut dataplane, _) = snat(pins);
            snat_connection(&dataplane, Phase::Established, server, client);
            let swept = sweep(&mut dataplane);
            assert_eq!(swept.cut.is_empty(), lives, "{what}");
            assert_eq!(dataplane.v4.maps.cells.owner(5).phase() == Phase::Established, lives, "{what}");
        });
    }
}

#[test]
fn an_expired_connection_is_cut_handed_out_and_freed_when_both_ends_know() {
    with_maps(LAYOUT, |pins| {
        let (mut dataplane, _) = snat(pins);
        let place = snat_connection(&dataplane, Phase::Established, long_ago(), long_ago());
        let swept = sweep(&mut dataplane);
        let [target] = swept.cut[..] else { panic!("{swept:?}") };
        assert_eq!(target.connection.client, address("10.77.1.1:40000"));
        assert_eq!(target.connection.service, address("10.0.0.1:80"));
        let hop = cut::Hop {
            interface: 3,
            source: [2, 0, 0, 0, 0, 1],
            destination: CLIENT_HOP.mac,
            vlan: Some(42),
            tunnel: None,
        };
        assert_eq!(target.client_hop, Some(hop));
        assert_eq!(target.backend.tuple.from, address("10.0.0.9:1029"));
        assert_eq!(target.backend.tuple.to, address("10.1.0.1:80"));
        assert_eq!(target.order, cut::Order::Both);
        let cells = &dataplane.v4.maps.cells;
        let marked = cells.owner(5);
        assert!(marked.is_cut() && dataplane.v4.maps.flows.owner(place).is_cut());
        assert_eq!(live(&dataplane), [0; 3]);
        // The client's answer has met the data path.
        assert!(cells.swap_owner(5, marked, marked.told(Side::Client)));
        let swept = sweep(&mut dataplane);
        assert_eq!((swept.cut.len(), swept.told.len()), (0, 1));
        assert_eq!(swept.told[0], (target.connection, cut::Side::Client));
        let cells = &dataplane.v4.maps.cells;
        let told = cells.owner(5);
        assert!(cells.swap_owner(5, told, told.told(Side::Server)));
        let swept = sweep(&mut dataplane);
        assert_eq!((swept.told.len(), swept.faults.len()), (2, 0));
        assert_eq!(dataplane.v4.maps.cells.owner(5).phase(), Phase::Resting);
        assert_eq!(dataplane.v4.maps.flows.owner(place).phase(), Phase::Free);
        assert_eq!(live(&dataplane), [0; 3]);
    });
}

#[test]
fn a_cut_backends_connections_are_handed_out_in_every_mode() {
    for (of, order, to) in [
        (mode::DNAT, cut::Order::Both, "10.1.0.1:80"),
        (mode::DSR, cut::Order::ClientFirst, "10.0.0.1:80"),
        (mode::IPIP, cut::Order::ClientFirst, "10.0.0.1:80"),
    ] {
        with_maps(LAYOUT, |pins| {
            let mut dataplane = adopt(pins, LAYOUT);
            let mut wanted = DesiredService { mode: of, ..dnat() };
            wanted.backends = vec![backend("10.1.0.1:80", &["10.0.0.9"])];
            publish(&mut dataplane, std::slice::from_ref(&wanted));
            dataplane.v4.maps.flows.put(9, owner(Phase::Established), &record(Way::hop(CLIENT_HOP), now()));
            dataplane.v4.maps.flows.put(17, owner(Phase::Embryonic), &record(Way::hop(CLIENT_HOP), now()));
            open_accounts(&dataplane);
            open_accounts(&dataplane);
            assert!(sweep(&mut dataplane).cut.is_empty());
            wanted.backends[0].fate = Fate::Cut;
            publish(&mut dataplane, std::slice::from_ref(&wanted));
            let swept = sweep(&mut dataplane);
            let [target] = swept.cut[..] else { panic!("{swept:?}") };
            assert_eq!((target.order, target.backend.tuple.to), (order, address(to)));
            assert_eq!(target.backend.tuple.from, address("10.77.1.1:40000"));
            let tunnel = target.backend.hop.and_then(|hop| hop.tunnel);
            assert_eq!(
                tunnel.map(|tunnel| tunnel.to),
                (of == mode::IPIP).then(|| "10.1.0.1".parse().unwrap())
            );
            assert!(dataplane.v4.maps.flows.owner(9).is_cut());
            assert_eq!(dataplane.v4.maps.flows.owner(17).phase(), Phase::Free, "its handshakes just end");
            assert_eq!(live(&dataplane), [0; 3]);
            assert!(sweep(&mut dataplane).faults.is_empty());
        });
    }
}

#[test]
fn mute_ends_of_a_cut_connection_have_their_time_and_no_more() {
    with_maps(LAYOUT, |pins| {
        let mut dataplane = adopt(pins, LAYOUT);
        publish(&mut dataplane, &[dnat()]);
        let cut = owner(Phase::Established).cut();
        dataplane.v4.maps.flows.put(9, cut, &record(Way::hop(CLIENT_HOP), now()));
        assert_eq!(sweep(&mut dataplane).cut.len(), 1, "an earlier agent's mark is taken up");
        let begun = Instant::now();
        while dataplane.v4.maps.flows.owner(9).phase() != Phase::Free {
            assert!(sweep(&mut dataplane).cut.is_empty(), "it is handed out once");
            assert!(begun.elapsed() < Duration::from_secs(10), "it is kept for ever");
        }
        assert!(begun.elapsed() >= Duration::from_millis(2_800), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_flow_whose_cell_is_not_its_clients_goes_at_the_second_look() {
    with_maps(LAYOUT, |pins| {
        let (mut dataplane, _) = snat(pins);
        let way = Way::port(5, 1, Be16::from_host(1029));
        dataplane.v4.maps.flows.put(9, owner(Phase::Linked), &record(way, now()));
        sweep(&mut dataplane);
        assert_eq!(
            dataplane.v4.maps.flows.owner(9).phase(),
            Phase::Linked,
            "the kernel may be about to link it"
        );
        let begun = Instant::now();
        while dataplane.v4.maps.flows.owner(9).phase() == Phase::Linked {
            sweep(&mut dataplane);
            assert!(begun.elapsed() < Duration::from_secs(5), "it is kept for ever");
        }
        assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    });
}

#[test]
fn accounts_that_do_not_agree_are_said_once_they_stand_still() {
    with_maps(LAYOUT, |pins| {
        let (mut dataplane, _) = snat(pins);
        dataplane.common.accounts.open(1);
        assert!(sweep(&mut dataplane).faults.is_empty(), "it may be moving");
        let faults = sweep(&mut dataplane).faults;
        let [super::Fault::Pair { difference, backend, .. }] = faults[..] else { panic!("{faults:?}") };
        assert_eq!((difference, backend), (1, address("10.1.0.1:80")));
    });
}

#[test]
fn a_connection_costs_no_more_kernel_memory_than_promised() {
    // Every connection in `snat`: a flow and a port cell, with the flow table sized for as many flows as there are.
    let connections = 1 << 16;
    for (flows, cells, bucket, cell, most) in [
        ("FLOWS4", "CELLS4", size_of::<Bucket<Be32>>(), size_of::<PortCell<Be32>>(), 128),
        ("FLOWS6", "CELLS6", size_of::<Bucket<Be128>>(), size_of::<PortCell<Be128>>(), 176),
    ] {
        let flows = create_map(flows, 4, bucket as u32, connections / SLOTS as u32);
        let cells = create_map(cells, 4, cell as u32, connections);
        let bytes = (memory_of(&flows) + memory_of(&cells)).div_ceil(u64::from(connections));
        println!("{bytes} bytes for a connection, {most} allowed");
        assert!(bytes <= most, "{bytes} bytes for a connection");
        assert!(bytes >= (bucket / SLOTS + cell) as u64, "the kernel does not say what they cost");
    }
}

/// A million connections in `snat`, each with its cell and its flow, and a million without cells.
#[test]
fn a_million_flows_are_swept_in_short_slices() {
    const FLOWS: u32 = 1 << 20;
    let ports = PortRanges { low_first: 1024, low_count: 32_768, high_first: 0, high_count: 0 };
    let layout = Layout { seed: 7, ports, buckets: [FLOWS / SLOTS as u32, 1], blocks: [32, 1] };
    with_maps(layout, |pins| {
        let mut dataplane = adopt(pins, layout);
        let backends: Vec<_> =
            (1..=32).map(|host| backend(&format!("10.1.0.{host}:80"), &["10.0.0.9"])).collect();
        let mut wanted = service("10.0.0.1:80", backends.clone());
        wanted.timeouts.established = Ticks::from_millis(3_600_000);
        let direct = DesiredService {
            mode: mode::DNAT,
            timeouts: wanted.timeouts,
            ..service("10.0.0.2:80", backends)
        };
        publish(&mut dataplane, &[wanted, direct]);
        for linked in [false, true] {
            fill(&dataplane, FLOWS, linked);
            // The first sweep also faults the pages in.
            measure(&mut dataplane);
            let (total, longest, swept) = measure(&mut dataplane);
            println!("{FLOWS} flows, linked: {linked}: {total:?} in all, {longest:?} the longest slice");
            assert!(swept.cut.is_empty());
            let held = (0..FLOWS).filter(|place| dataplane.v4.maps.flows.owner(*place).is_held()).count();
            assert_eq!(held as u32, FLOWS, "linked: {linked}");
            // Without optimisation this says nothing of what is shipped.
            if !cfg!(debug_assertions) {
                assert!(total < Duration::from_millis(400), "{total:?}");
                assert!(longest < Duration::from_millis(2), "{longest:?}");
            }
        }
    });
}

/// Fill the flow table, with cells or without.
fn fill(dataplane: &Dataplane, flows: u32, linked: bool) {
    let now = now();
    for place in 0..flows {
        let client = Be32::from_host(0x0b00_0000 + place);
        let service_port = Be16::from_host(80);
        let (phase, way) = if linked {
            (Phase::Linked, Way::port(place.wrapping_mul(0x9e37_79b1) % flows, 1, PORT))
        } else {
            (Phase::Established, Way::hop(CLIENT_HOP))
        };
        let backend = if linked { 1 + (way.cell() / 32_768) as u16 } else { 33 + (place % 32) as u16 };
        let record = Record {
            way,
            seen: now.raw(),
            backend,
            service: if linked { 1 } else { 2 },
            service_port,
            client: client.rest(),
            ..Record::default()
        };
        dataplane.v4.maps.flows.put(place, Owner::next(Owner(0), client, PORT, phase), &record);
        if linked {
            let owner = Owner::next(Owner(0), client, PORT, Phase::Established);
            let cell = PortCell { owner, seen: now.raw(), backend, service_port, ..PortCell::default() };
            dataplane.v4.maps.cells.put(way.cell(), &cell);
        }
    }
}

/// One sweep: the processor's time in all, and that of the longest slice.
fn measure(dataplane: &mut Dataplane) -> (Duration, Duration, super::Swept) {
    let spent = || {
        let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock that there is");
        Duration::from(time)
    };
    let (mut total, mut longest) = (Duration::ZERO, Duration::ZERO);
    loop {
        let before = spent();
        let swept = dataplane.sweep().expect("maps that can be written");
        let took = spent().saturating_sub(before);
        (total, longest) = (total + took, longest.max(took));
        if let Some(swept) = swept {
            return (total, longest, swept);
        }
    }
}
