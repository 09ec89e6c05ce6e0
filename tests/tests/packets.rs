//! The packet tables on the host: the data path's library over collections of `std`, and properties of any packet.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    panic::catch_unwind,
};

use lb_common::{
    Be16,
    abi::{Account, Endpoint, EndpointKey, Flow, TCP, backend_state, mark},
    cell::{
        Owner,
        Phase::{Answered, Embryonic},
        PortCell,
    },
};
use lb_tests::packets::{
    Action, Case, Fact, Life, Model, Segment, Sum, World, cases,
    check::consistent,
    expect::{to_backend, untouched},
    run_all, scene,
    segment::{ACK, SYN, client, forwarded},
    traffic::{Chance, packet},
};
use proptest::prelude::*;

fn model(trust: u8) -> Model {
    let mut model = Model::new(scene::config(scene::FOUR_PORTS, trust), 16);
    scene::set(&mut model, scene::FOUR_PORTS);
    model
}

#[test]
fn every_case_holds_in_the_model() {
    let cases = cases::all();
    println!("{} cases", cases.len());
    assert!(cases.len() >= 60);
    run_all(&cases, |case, run| {
        run(&mut Model::new(scene::config(case.ports, case.trust), case.flows));
    });
}

#[test]
fn cases_have_names_of_their_own() {
    let mut names: Vec<String> = cases::all().into_iter().map(|case| case.what).collect();
    names.sort();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn a_case_that_expects_the_wrong_thing_fails() {
    let wrong = [
        Case::new("no account").send(client(SYN), to_backend(scene::A), &[Embryonic]),
        Case::new("wrong phase").send(client(SYN), to_backend(scene::A).opens(scene::A), &[Answered]),
        Case::new("wrong backend").send(client(SYN), to_backend(scene::B).opens(scene::B), &[Embryonic]),
        Case::new("no reason").send(client(ACK), untouched(), &[]),
    ];
    for case in wrong {
        let mut model = Model::new(scene::config(case.ports, case.trust), case.flows);
        assert!(case.run(&mut model).is_err(), "{}", case.what);
    }
}

fn sums() -> impl Strategy<Value = Sum> {
    prop_oneof![Just(Sum::Whole), Just(Sum::Partial), any::<u16>().prop_map(Sum::Raw)]
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from)
}

prop_compose! {
    fn segments()(
        flags in any::<u8>(), seq in any::<u32>(), ack in any::<u32>(), ttl in 2_u8..,
        data in proptest::collection::vec(any::<u8>(), 0..=1460),
        ip_options in 0_usize..=10, tcp_options in 0_usize..=10, padding in 0_usize..20, sum in sums(),
    ) -> Segment {
        // No SYN, FIN or RST: the connection shall stay what it is.
        let flags = flags & !0x07 | ACK;
        Segment { data, ..client(flags) }
            .seq(seq).ack(ack).ttl(ttl).padding(padding).sum(sum)
            .ip_options(&[1; 40][..ip_options * 4]).tcp_options(&[1; 40][..tcp_options * 4])
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rewrite_leaves_both_sums_as_if_made_from_scratch(
        segment in segments(), trust in 0_usize..3, back in any::<bool>(),
        from in address(), client_port in any::<u16>(), backend in address(), source in address(),
        backend_port in any::<u16>(), place in 0_u32..4,
    ) {
        let mut model = model(scene::TRUSTS[trust].1);
        let client_end = SocketAddrV4::new(from, client_port);
        let server_end = SocketAddrV4::new(backend, backend_port);
        let mut entry = model.backend_at(scene::A);
        entry.address = backend.into();
        entry.port = Be16::from_host(backend_port);
        entry.source = source.into();
        model.set_backend(scene::A, entry);
        let key = EndpointKey {
            address: entry.address, source: entry.source, port: entry.port, protocol: TCP, pad: 0,
        };
        model.set_endpoint(key, Endpoint { cells: 0, pad: 0 });
        let fact = Fact::Connection { client: client_end, backend: scene::A, place, life: Life::Established, age: 0 };
        fact.apply(&mut model);
        for (key, flow) in model.flows() {
            model.set_flow(key, Flow { source: source.into(), ..flow });
        }
        let port = SocketAddrV4::new(source, scene::FOUR_PORTS.port(place));
        let (packet, macs, ends) = if back {
            let packet = segment.frame_between(server_end, port);
            (packet, [scene::ROUTER_MAC, scene::FRONT_MAC], (scene::WEB, client_end))
        } else {
            let packet = segment.frame_between(client_end, scene::WEB);
            (packet, [scene::SERVER_A_MAC, scene::BACK_MAC], (port, server_end))
        };
        let (action, bytes) = model.run(&packet);
        prop_assert_eq!(action, if back { Action::Transmit } else { Action::Redirect });
        prop_assert_eq!(bytes, forwarded(&packet, macs, ends, scene::TRUSTS[trust].1));
    }

    #[test]
    fn any_bytes_have_an_end_whatever_the_tables_hold(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), seed in any::<u64>(), trust in 0_usize..3,
    ) {
        let mut model = model(scene::TRUSTS[trust].1);
        scramble(&mut model, &mut Chance::new(seed));
        let outcome = catch_unwind(std::panic::AssertUnwindSafe(|| model.run(&bytes)));
        prop_assert!(outcome.is_ok());
    }

    #[test]
    fn any_traffic_over_scrambled_tables_has_an_end(seed in any::<u64>(), trust in 0_usize..3) {
        let mut chance = Chance::new(seed);
        let mut model = model(scene::TRUSTS[trust].1);
        scramble(&mut model, &mut chance);
        for _ in 0..50 {
            let packet = packet(&mut chance);
            let (action, bytes) = model.run(&packet);
            let untouched = matches!(action, Action::Pass);
            prop_assert!(!untouched || bytes == packet);
        }
    }

    #[test]
    fn any_traffic_leaves_cells_flows_and_accounts_in_agreement(seed in any::<u64>(), trust in 0_usize..3) {
        let mut chance = Chance::new(seed);
        let mut model = model(scene::TRUSTS[trust].1);
        for number in 0..200 {
            let packet = packet(&mut chance);
            let (action, bytes) = model.run(&packet);
            prop_assert!(action != Action::Pass || bytes == packet);
            if chance.once_in(16) {
                Fact::Pass(chance.below(40_000)).apply(&mut model);
            }
            if chance.once_in(32) {
                let state = [backend_state::ACTIVE, backend_state::CLOSED_TO_NEW][chance.below(2) as usize];
                Fact::State(scene::A, state).apply(&mut model);
            }
            prop_assert_eq!(consistent(&model), Ok(()), "after packet {}: {:02x?}", number, packet);
        }
    }
}

/// Write random words wherever the tables have some.
fn scramble(model: &mut Model, chance: &mut Chance) {
    for index in 0..model.cell_count() {
        let mut cell: PortCell = model.cell_at(index);
        cell.owner = Owner(chance.next());
        cell.backend = chance.below(6) as u32;
        cell.seen = chance.next() as u32;
        cell.hop.interface = chance.below(4) as u16;
        model.set_cell(index, cell);
    }
    for id in 0..=scene::LAST_ID {
        let mut backend = model.backend_at(id);
        backend.state = chance.below(4) as u8;
        backend.weight = chance.next() as u32;
        backend.cells = chance.next() as u32 >> chance.below(32);
        model.set_backend(id, backend);
        let words = (chance.next() >> chance.below(64), chance.next() >> chance.below(64));
        let account = Account { opened: words.0, closed: words.1, closed_by_agent: 0, pad: 0 };
        model.set_account(id, account);
    }
    for (key, mut service) in model.services() {
        service.ring_offset = chance.next() as u32;
        service.ring_length = chance.next() as u32 >> chance.below(32);
        service.algorithm = chance.next() as u8;
        service.no_backend = chance.next() as u8;
        model.set_service(key, service);
    }
    Fact::Connection { client: scene::CLIENT, backend: scene::A, place: 0, life: Life::Established, age: 0 }
        .apply(model);
    for (key, mut flow) in model.flows() {
        flow.backend = chance.below(6) as u32;
        flow.cell = chance.below(12) as u32;
        flow.marks = chance.next() as u16 & (mark::PROVEN | mark::CLOSING);
        model.set_flow(key, flow);
    }
}
