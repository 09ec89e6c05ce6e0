//! The packet tables on the host: the data path's library over collections of `std`, and properties of any packet.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    panic::{AssertUnwindSafe, catch_unwind},
};

use lb_common::{
    Be32, Be128,
    abi::{backend_state, checksums, mode},
    cell::{
        Owner,
        Phase::{Answered, Embryonic, Established},
    },
    flow::{SLOTS, Way},
};
use lb_tests::packets::{
    Action, Case, Expect, Fact, Life, Model, Segment, Store, Sum, World,
    agree::slack,
    cases,
    expect::{to_backend, to_client, untouched},
    expected,
    kind::Kind,
    message::echo,
    run_all,
    scene::{self, A, LAST_ID, MODES, Setting, TRUSTS, WEB_ID},
    segment::{ACK, FIN, RST, SYN, client, datagram, server},
    traffic::{Chance, packet},
    world::buckets,
};
use proptest::prelude::*;

#[test]
fn every_case_holds_in_the_model() {
    let cases = cases::all();
    println!("{} cases", cases.len());
    assert!(cases.len() >= 1_900);
    run_all(&cases, |case| case.run(&mut Model::new(case.setting.config())));
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
        Case::new("no account").send(client(SYN), to_backend(A), &[Embryonic]),
        Case::new("wrong phase").send(client(SYN), to_backend(A).opens(A), &[Answered]),
        Case::new("wrong backend").send(client(SYN), to_backend(scene::B).opens(scene::B), &[Embryonic]),
        Case::new("no reason").send(client(ACK), untouched(), &[]),
        Case::new("an event that is not told").send(
            client(SYN),
            to_backend(A).opens(A).tells(lb_common::event::kind::ANSWERED, A),
            &[Embryonic],
        ),
    ];
    for case in wrong.into_iter().flat_map(Case::in_its_families) {
        let mut model = Model::new(case.setting.config());
        assert!(case.run(&mut model).is_err(), "{}", case.what);
    }
}

#[test]
fn echo_replies_of_all_65_536_ids_have_right_checksums() {
    fn all<A: Kind>(version: u8)
    where
        Model: Store<A>,
    {
        let setting = Setting { version, ..Setting::DEFAULT };
        let mut model = Model::new(setting.config());
        scene::set::<A>(&mut model, &setting);
        Fact::AnswersEcho.apply::<A>(&mut model);
        for id in 0..=u16::MAX {
            for data in [vec![], vec![0x5a; 3]] {
                let request = lb_tests::packets::message::Echo { data, seq: 0, ..echo(id) }.frame(version);
                let (action, reply) = World::run(&mut model, &request);
                assert_eq!((action, reply), (Action::Transmit, expected::echoed(&request)), "id {id}");
            }
        }
    }
    all::<Be32>(4);
    all::<Be128>(6);
}

#[test]
fn fifty_icmp_errors_at_once_are_made_and_no_more() {
    let setting = Setting { protocol: 17, ..Setting::DEFAULT };
    let mut model = Model::new(setting.config());
    scene::set::<Be32>(&mut model, &setting);
    Fact::Ring(WEB_ID, vec![]).apply::<Be32>(&mut model);
    let refused = datagram(20).frame();
    let made = (0..200).filter(|_| World::run(&mut model, &refused).0 == Action::Transmit).count();
    assert_eq!(made, 50);
}

#[test]
fn a_connection_that_cannot_be_recorded_stays_with_one_backend() {
    fn for_mode<A: Kind>(version: u8, mode: u8)
    where
        Model: Store<A>,
    {
        let setting = Setting { version, mode, buckets: 1, ..Setting::DEFAULT };
        let mut model = Model::new(setting.config());
        scene::set::<A>(&mut model, &setting);
        Fact::Ring(WEB_ID, vec![scene::A, scene::B, scene::B]).apply::<A>(&mut model);
        Fact::Crowd(scene::A, Life::Established, 0).apply::<A>(&mut model);
        let mut chosen = [0; 2];
        for number in 0..300 {
            let address = SocketAddrV4::new(Ipv4Addr::new(100, 65, 1, number as u8), 10_000 + number);
            let next_hops = [SYN, ACK, ACK | FIN, RST].map(|flags| {
                let (action, bytes) = World::run(&mut model, &client(flags).of(address).frame_of(version));
                assert_eq!(action, Action::Redirect, "{address} in mode {mode}");
                bytes[0..6].to_vec()
            });
            assert!(
                next_hops.iter().all(|hop| *hop == next_hops[0]),
                "{address} in mode {mode}: {next_hops:02x?}"
            );
            chosen[usize::from(next_hops[0] == scene::SERVER_B_MAC)] += 1;
        }
        assert!(chosen.iter().all(|count| *count > 60), "{chosen:?}");
    }
    for (_, mode) in MODES.into_iter().filter(|(_, mode)| *mode != mode::SNAT) {
        for_mode::<Be32>(4, mode);
        for_mode::<Be128>(6, mode);
    }
}

fn sums() -> impl Strategy<Value = Sum> {
    prop_oneof![Just(Sum::Whole), Just(Sum::Partial), any::<u16>().prop_map(Sum::Raw)]
}

fn end() -> impl Strategy<Value = SocketAddrV4> {
    (any::<u32>(), any::<u16>()).prop_map(|(ip, port)| SocketAddrV4::new(Ipv4Addr::from(ip), port))
}

prop_compose! {
    fn segments()(
        is_udp in any::<bool>(), back in any::<bool>(), flags in any::<u8>(), seq in any::<u32>(), ack in any::<u32>(),
        ttl in 2_u8.., data in proptest::collection::vec(any::<u8>(), 0..=1440), sum in sums(),
        ip_options in 0_usize..=10, tcp_options in 0_usize..=10, padding in 0_usize..20, tags in 0_usize..=2,
    ) -> (bool, Segment) {
        // No SYN, FIN or RST: the connection shall stay what it is.
        let flags = flags & !0x07 | ACK;
        let plain = if back { server(A, flags) } else { client(flags) };
        let plain = if is_udp { Segment { protocol: datagram(0).protocol, flags: 0, ..plain } } else { plain };
        let options = if is_udp { 0 } else { tcp_options };
        let dressed = Segment { data, tags: [[0x88a8, 7], [0x8100, 9]][..tags].to_vec(), ..plain }
            .seq(seq).ack(ack).ttl(ttl).padding(padding).sum(sum)
            .ip_options(&[1; 40][..ip_options * 4]).tcp_options(&[1; 40][..options * 4]);
        (back, dressed)
    }
}

/// A packet of any tags counts the sum that was made whole.
fn counted(expect: Expect, segment: &Segment, setting: &Setting) -> Vec<Expect> {
    let made = expect.clone().counted(WEB_ID, lb_common::Reason::ChecksumCompleted);
    let may = setting.trust == checksums::MAKE_WHOLE && segment.sum != Sum::Whole;
    if may { vec![expect, made] } else { vec![expect] }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rewrite_leaves_both_sums_as_if_made_from_scratch(
        (back, segment) in segments(), version in prop_oneof![Just(4_u8), Just(6)], trust in 0_usize..3,
        by in 0_usize..4, from in end(), server_address in any::<u32>(),
    ) {
        let mode = MODES[by].1;
        prop_assume!(!(back && mode::is_one_sided(mode)) && from.ip().to_bits() != server_address);
        let expect = if back { to_client(A).of(from) } else { to_backend(A) };
        let segment = segment.of(from);
        let mut case = Case::new("any rewrite").mode(mode).trust(TRUSTS[trust].1);
        case.setting.version = version;
        case.setting.protocol = segment.protocol;
        let held = Fact::Connection { client: from, backend: A, place: 0, life: Life::Established, age: 0 };
        let case = if back { case } else { case.given(Fact::Address(A, Ipv4Addr::from(server_address))) };
        let outcomes: Vec<_> = counted(expect, &segment, &case.setting).into_iter().map(|expect| {
            let case = case.clone().given(held.clone()).send(segment.clone(), expect, &[Established]);
            case.run(&mut Model::new(case.setting.config()))
        }).collect();
        prop_assert!(outcomes.iter().any(Result::is_ok), "{:?}", outcomes);
    }

    #[test]
    fn any_bytes_have_an_end_whatever_the_tables_hold(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), seed in any::<u64>(),
    ) {
        let mut chance = Chance::new(seed);
        let mut model = scrambled(&mut chance);
        let outcome = catch_unwind(AssertUnwindSafe(|| World::run(&mut model, &bytes)));
        prop_assert!(outcome.is_ok());
    }

    #[test]
    fn any_traffic_over_scrambled_tables_has_an_end(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        let mut model = scrambled(&mut chance);
        for _ in 0..50 {
            let version = chance.of(&[4, 6]);
            let packet = packet(&mut chance, version);
            let (action, bytes) = World::run(&mut model, &packet);
            prop_assert!(action != Action::Pass || bytes == packet);
        }
    }

    #[test]
    fn any_traffic_leaves_cells_flows_and_accounts_in_agreement(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        let setting = any_setting(&mut chance);
        let outcome = if setting.version == 4 {
            agreement::<Be32>(&mut chance, &setting)
        } else {
            agreement::<Be128>(&mut chance, &setting)
        };
        prop_assert_eq!(outcome, Ok(()));
    }
}

fn any_setting(chance: &mut Chance) -> Setting {
    let setting = Setting {
        version: chance.of(&[4, 6]),
        mode: chance.of(&MODES).1,
        protocol: chance.of(&[6, 17]),
        trust: chance.of(&TRUSTS).1,
        buckets: chance.of(&[1, 2]),
        ..Setting::DEFAULT
    };
    setting.with_ports(scene::FOUR_PORTS)
}

/// Traffic, time and a backend that comes and goes; after each packet everything must agree.
fn agreement<K: Kind>(chance: &mut Chance, setting: &Setting) -> Result<(), String>
where
    Model: Store<K>,
{
    let mut model = Model::new(setting.config());
    scene::set::<K>(&mut model, setting);
    for number in 0..200 {
        let packet = packet(chance, setting.version);
        let (action, bytes) = World::run(&mut model, &packet);
        if action == Action::Pass && bytes != packet {
            return Err(format!("packet {number} was passed, but changed: {packet:02x?}"));
        }
        if chance.once_in(16) {
            Fact::Pass(chance.below(40_000)).apply::<K>(&mut model);
        }
        if chance.once_in(32) {
            let states = [
                backend_state::ACTIVE,
                backend_state::CLOSED_TO_NEW,
                backend_state::CUT,
                backend_state::ABSENT,
            ];
            Fact::State(A, chance.of(&states)).apply::<K>(&mut model);
        }
        if chance.once_in(64) {
            Fact::Cut(chance.of(&[scene::CLIENT, scene::OTHER])).apply::<K>(&mut model);
        }
        let owed =
            slack::<K>(&model).map_err(|why| format!("after packet {number}, {packet:02x?}: {why}"))?;
        if owed.iter().any(|owed| *owed != 0) {
            return Err(format!(
                "after packet {number} of {setting:?}, {packet:02x?}: accounts are off by {owed:?}"
            ));
        }
    }
    Ok(())
}

/// Random words wherever the tables have some.
fn scrambled(chance: &mut Chance) -> Model {
    let setting = any_setting(chance);
    let mut model = Model::new(setting.config());
    scramble::<Be32>(&mut model, &setting, chance);
    scramble::<Be128>(&mut model, &setting, chance);
    model
}

fn scramble<K: Kind>(model: &mut Model, setting: &Setting, chance: &mut Chance)
where
    Model: Store<K>,
{
    scene::set::<K>(model, setting);
    for index in 0..model.cell_count() {
        let mut cell = Store::<K>::cell_at(model, index);
        cell.owner = Owner(chance.next());
        cell.backend = chance.below(6) as u16;
        cell.seen = chance.next() as u32;
        cell.hop.interface = chance.below(4) as u16;
        Store::<K>::set_cell(model, index, cell);
    }
    for index in 0..buckets::<K>(&setting.config()) {
        let mut bucket = Store::<K>::bucket_at(model, index);
        for place in 0..SLOTS {
            let known = u64::from(K::of(*scene::CLIENT.ip()).tag()) << 32
                | u64::from(scene::CLIENT.port().to_be()) << 16;
            bucket.owners[place] =
                Owner(if chance.once_in(2) { known | chance.below(1 << 16) } else { chance.next() });
            bucket.records[place].way = Way(chance.next() >> chance.below(64));
            bucket.records[place].backend = chance.below(6) as u16;
            bucket.records[place].service = chance.below(4) as u16;
            bucket.records[place].service_port = lb_common::Be16::from_host(scene::WEB.port());
            bucket.records[place].client = K::of(*scene::CLIENT.ip()).rest();
            bucket.records[place].seen = chance.next() as u32;
        }
        Store::<K>::set_bucket(model, index, bucket);
    }
    for id in 0..=LAST_ID {
        let mut backend = Store::<K>::backend_at(model, id);
        backend.state = chance.below(5) as u8;
        backend.mode = chance.below(5) as u8;
        backend.weight = chance.next() as u32;
        backend.mtu = chance.next() as u16 >> chance.below(16);
        backend.cells = chance.next() as u32 >> chance.below(32);
        backend.server = chance.below(4) as u16;
        Store::<K>::set_backend(model, id, backend);
    }
    for (key, mut service) in Store::<K>::services(model) {
        service.ring_offset = chance.next() as u32;
        service.ring_length = chance.next() as u32 >> chance.below(32);
        service.members = chance.next() as u16;
        service.algorithm = chance.next() as u8;
        service.no_backend = chance.next() as u8;
        service.mode = chance.below(5) as u8;
        service.flags = chance.next() as u8;
        Store::<K>::set_service(model, key, service);
    }
    for row in lb_tests::packets::world::rows() {
        let mut account = model.account_at(row);
        account.opened = chance.next() >> chance.below(64);
        account.closed = chance.next() >> chance.below(64);
        account.limit = chance.next() >> chance.below(64);
        model.set_account(row, account);
    }
}
