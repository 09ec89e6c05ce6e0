//! Properties of the parts that know neither packets nor tables: token buckets, phases, checksums; and how full the flow
//! table gets.

use lb_common::{
    Be16, Be32, Be128, Ticks,
    abi::UDP,
    cell::{Owner, Phase, Rights, Side, Signs},
    flow::{FlowKey, Record},
};
use lb_ebpf::{World as _, checksum::Change, flows, source_rate::taken};
use lb_fuzz::{
    Site, World,
    pace::Dice,
    packets::{End, Numbered, Segment, frame, port, tcp, udp},
    site::client,
    sums::judge,
    world::Has,
};
use proptest::prelude::*;

/// How a table fills.
struct Filled {
    /// How full it was when a flow found no room for the first time.
    first_refusal: f64,
    /// Which share of the flows that came between four fifths and 85 % found none.
    late_refusals: f64,
}

/// Fill a table to 85 %.
fn fill<A: Numbered>(seed: u64) -> Filled
where
    World: Has<A>,
{
    let world = Site { buckets: 2048, seed, ..Site::default() }.build();
    let slots = f64::from(Has::<A>::half(&world).slots());
    let mut dice = Dice(seed);
    let (mut held, mut first_refusal) = (0_u32, 1.0);
    let (mut came, mut refused) = (0_u32, 0_u32);
    for number in 0.. {
        let load = f64::from(held) / slots;
        if load >= 0.85 {
            break;
        }
        // Clients of one network, as they come: neighbouring addresses, any ports.
        let key = FlowKey::<A> {
            client: client(number / 16),
            client_port: port(1024 + dice.below(60_000) as u16),
            service_port: port(80),
            service: 6,
        };
        let record = Record {
            seen: world.now().raw(),
            service: key.service,
            service_port: key.service_port,
            client: key.client.rest(),
            ..Record::default()
        };
        let added = flows::insert(&key, &record, Phase::Established, Rights::default(), &world);
        held += u32::from(added.is_ok());
        let full = added == Err(flows::NotAdded::Full);
        if full && first_refusal > load {
            first_refusal = load;
        }
        if load >= 0.8 {
            came += 1;
            refused += u32::from(full);
        }
    }
    Filled { first_refusal, late_refusals: f64::from(refused) / f64::from(came) }
}

#[test]
fn the_flow_table_fills_evenly() {
    for seed in 1..=4 {
        for (family, filled) in [(4, fill::<Be32>(seed)), (6, fill::<Be128>(seed))] {
            let Filled { first_refusal, late_refusals } = filled;
            let (first, late) = (first_refusal * 100.0, late_refusals * 100.0);
            println!(
                "IPv{family}: first refusal at {first:.1} %, of flows between 80 % and 85 % {late:.1} %"
            );
            assert!(first_refusal >= 0.74 && late_refusals <= 0.025);
        }
    }
}

fn signs() -> impl Strategy<Value = (Side, Signs)> {
    (any::<bool>(), any::<[bool; 5]>()).prop_map(|(server, [syn_ack, fin, rst, data, proves])| {
        let side = if server { Side::Server } else { Side::Client };
        // Only a client's acknowledgement proves anything.
        (side, Signs { syn_ack, fin, rst, data, proves: proves && !server, datagram: false })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_source_gets_more_than_its_burst_and_its_rate_in_any_interval(
        rate in 1..=1_000_000_u32,
        burst in 1..=1_000_000_u32,
        tries in prop::collection::vec((0..=200_u32, 1..=50_u32), 1..60),
    ) {
        let (mut word, mut now) = (0, 1_u32);
        let mut spent: Vec<(u32, u64)> = Vec::new();
        for (silence, times) in tries {
            now += silence;
            let mut count = 0;
            for _ in 0..times {
                if let Some(after) = taken(word, Ticks::from_raw(now), rate, burst) {
                    word = after;
                    count += 1;
                }
            }
            spent.push((now, count));
        }
        for first in 0..spent.len() {
            let mut sum = 0;
            for (until, count) in &spent[first..] {
                sum += count;
                let nanos = u128::from(until - spent[first].0) << Ticks::SHIFT;
                let most = u128::from(burst) + u128::from(rate) * nanos / 1_000_000_000;
                prop_assert!(u128::from(sum) <= most, "{sum} of {most} from {} to {until}", spent[first].0);
            }
        }
    }

    #[test]
    fn a_source_that_rests_long_enough_has_its_whole_burst_again(
        rate in 1..=1_000_000_u32,
        burst in 1..=1_000_u32,
        spent in 0..=1_000_u32,
    ) {
        let mut word = 0;
        for _ in 0..spent.min(burst) {
            word = taken(word, Ticks::from_raw(7), rate, burst).expect("the burst is not spent");
        }
        let rested = Ticks::from_raw(7 + Ticks::from_millis(1_000 * u64::from(burst) / u64::from(rate)).raw() + 2);
        for _ in 0..burst {
            word = taken(word, rested, rate, burst).expect("the burst is there again");
        }
        prop_assert!(taken(word, rested, rate, burst).is_none());
    }

    #[test]
    fn phases_keep_their_hold_and_their_account_whatever_segments_come(
        segments in prop::collection::vec(signs(), 0..40),
        cut_after in 0..60_usize,
    ) {
        let embryo = Owner::next(Owner(0x7f00), Be32::from_host(0x0a00_0001), Be16::from_host(40_000), Phase::Embryonic);
        let (mut owner, mut live) = (embryo, 1);
        let (mut answered, mut established) = (false, false);
        for (place, (side, signs)) in segments.into_iter().enumerate() {
            let before = owner;
            owner = if place == cut_after { owner.cut() } else { owner.after(side, signs) };
            live += i32::from(owner.is_live()) - i32::from(before.is_live());
            prop_assert_eq!(live, i32::from(owner.is_live()));
            prop_assert!(owner.is_same_hold(embryo) && owner.is_held());
            prop_assert!(!before.is_cut() || owner.is_cut() && !owner.is_live());
            answered |= side == Side::Server && signs.syn_ack;
            established |= owner.phase() == Phase::Established;
            prop_assert!(answered || !established, "established without an answer");
        }
    }

    #[test]
    fn where_answers_are_not_seen_only_who_speaks_again_later_stays(
        segments in prop::collection::vec((signs(), any::<bool>(), any::<bool>()), 0..40),
    ) {
        let client = Be32::from_host(0x0a00_0001);
        let mut owner = Owner::next(Owner(0), client, Be16::from_host(40_000), Phase::Embryonic);
        let mut stayed = false;
        for ((_, signs), again, later) in segments {
            stayed |= again && later && !signs.rst && !signs.fin;
            owner = owner.after_alone(signs, again, later);
            prop_assert!(stayed || owner.phase() != Phase::Established);
            prop_assert!(owner.is_held());
        }
    }

    #[test]
    fn a_changed_checksum_is_the_recomputed_one(
        ends in any::<[u32; 4]>(),
        ports in any::<[u16; 4]>(),
        data in prop::collection::vec(any::<u8>(), 0..40),
        datagram in any::<bool>(),
    ) {
        changed::<Be32>(ends, ports, &data, datagram);
        changed::<Be128>(ends, ports, &data, datagram);
    }
}

/// Change addresses and ports of a packet by [`Change`] alone, and have its checksum judged.
fn changed<A: Numbered>(ends: [u32; 4], ports: [u16; 4], data: &[u8], datagram: bool) {
    let [a, b, c, d] = ends.map(A::numbered);
    let (from, to) = (End { address: a, port: ports[0] }, End { address: b, port: ports[1] });
    let packet =
        if datagram { udp(from, to, data) } else { tcp(from, to, &Segment { data, ..Segment::default() }) };
    let target = if datagram {
        udp(End { address: c, port: ports[2] }, End { address: d, port: ports[3] }, data)
    } else {
        let segment = Segment { data, ..Segment::default() };
        tcp(End { address: c, port: ports[2] }, End { address: d, port: ports[3] }, &segment)
    };
    let at = A::HEADER + if datagram { 6 } else { 16 };
    let field = Be16::from_wire(u16::from_ne_bytes([packet[at], packet[at + 1]]));
    let change = Change::NONE
        .address(a, c)
        .address(b, d)
        .word(port(ports[0]), port(ports[2]))
        .word(port(ports[1]), port(ports[3]));
    let after = never_zero(datagram, change.complete(field));
    let mut changed = target.clone();
    changed[at..at + 2].copy_from_slice(&after.wire().to_ne_bytes());
    let sums = judge(&frame::<A>(&changed, &[])).expect("it is a packet");
    assert_eq!((sums.header, sums.transport), (true, Some(true)), "{from:?} {to:?} {data:?}");
}

/// What the data path does to a datagram's field (RFC 768).
fn never_zero(datagram: bool, field: Be16) -> Be16 {
    let protocol = if datagram { UDP } else { lb_common::abi::TCP };
    if protocol == UDP && field.wire() == 0 { Be16::from_wire(0xffff) } else { field }
}
