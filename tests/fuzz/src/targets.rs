//! The bodies of the fuzz targets: any bytes, and what must hold of them.

use arbitrary::{Arbitrary, Result, Unstructured};
use lb_common::{
    Be16, Be32, Be128, Ticks,
    abi::{Hop, Interface, TCP, UDP, backend_state, checksums, mode},
    cell::{Owner, PortCell},
    flow::{Record, Way},
};
use lb_ebpf::{Verdict, family::Family, verdict::Kind};

use crate::{
    Bytes, Site, World,
    packets::{End, Numbered, Segment, frame, icmp, tcp, udp},
    site::{PLANS, SERVER_PORT, SERVICE_PORT, client, plan_of, server, source, virtual_address},
    sums::judge,
    world::Has,
};

/// Bytes that an answer or a tunnel adds at most: an IPv6 header, and an ICMP error's.
const GROWTH: usize = 48;

/// Any bytes, as one packet, in a world that is empty but for its services: never a panic, and what is not ours stays as
/// it is.
pub fn parse(bytes: &[u8]) {
    thread_local! {
        static WORLD: World = Site::default().build();
    }
    WORLD.with(|world| check(world, bytes, Origin::Anybody));
}

/// Several packets in a world whose tables hold anything.
pub fn balance(bytes: &[u8]) {
    let mut dice = Unstructured::new(bytes);
    let _ = anything(&mut dice);
}

/// ICMP errors whose quotes are anything, cut anywhere.
pub fn quotes(bytes: &[u8]) {
    let mut dice = Unstructured::new(bytes);
    let _ = complaints(&mut dice);
}

/// Who a packet is of, as far as the target knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Nothing is known of it.
    Anybody,
    /// Neither end is known to the tables: the host's own.
    Host,
}

/// Run a packet and check what must hold of every packet.
fn check(world: &World, packet: &[u8], origin: Origin) {
    let mut out = Bytes::new(packet);
    let verdict = world.run(&mut out);
    assert!(out.packet().len() <= packet.len() + GROWTH, "{verdict:?}: the packet has grown");
    match verdict.kind {
        Kind::Pass | Kind::Note => {
            assert!(out.packet() == packet, "{verdict:?}: the host's packet was touched");
        }
        Kind::Forward | Kind::Answer => {
            assert!(origin != Origin::Host, "{verdict:?}: the host's packet was taken");
            sums_hold(world, packet, out.packet(), verdict);
        }
        Kind::Drop => assert!(origin != Origin::Host, "{verdict:?}: the host's packet was dropped"),
        Kind::Continue => unreachable!("run() goes on until the end"),
    }
}

/// Checksums that were right stay right.
fn sums_hold(world: &World, before: &[u8], after: &[u8], verdict: Verdict) {
    let Some(came) = judge(before) else { return };
    if !came.header || came.transport == Some(false) {
        return;
    }
    // A packet that stays an skb is completed on its way out, and one complete sum in 65,536 looks partial.
    if came.partial && world.config.checksums == checksums::KEEP_PARTIAL {
        return;
    }
    let left = judge(after).unwrap_or_else(|| panic!("{verdict:?}: no packet any more: {after:02x?}"));
    assert!(left.header, "{verdict:?}: IP header: {after:02x?}");
    // What is judged only after it was rewritten, a datagram in a packet with a sum that was not judged, proves nothing.
    if came.transport == Some(true) {
        assert!(left.transport != Some(false), "{verdict:?}: transport: {before:02x?} {after:02x?}");
    }
}

fn anything(dice: &mut Unstructured<'_>) -> Result<()> {
    let world = site(dice)?;
    if bool::arbitrary(dice)? {
        strew::<Be32>(&world, dice)?;
        strew::<Be128>(&world, dice)?;
    }
    for _ in 0..16 {
        if dice.is_empty() {
            break;
        }
        let (packet, origin) =
            if bool::arbitrary(dice)? { packet::<Be32>(dice)? } else { packet::<Be128>(dice)? };
        check(&world, &packet, origin);
        let silence = [0_u64, 0, 100, 2_000, 100_000];
        world.pass(Ticks::from_millis(*dice.choose(&silence)?));
    }
    Ok(())
}

/// A site with anything for its settings.
fn site(dice: &mut Unstructured<'_>) -> Result<World> {
    let site = Site {
        checksums: dice.int_in_range(0..=2)?,
        buckets: 1 << dice.int_in_range(0..=2)?,
        seed: dice.int_in_range(0..=3)?,
        ..Site::default()
    };
    let mut world = site.build();
    world.config.joined = u8::from(u8::arbitrary(dice)? > 200);
    world.errors.store(u8::arbitrary(dice)? < 200, std::sync::atomic::Ordering::Relaxed);
    let mtu = one_of(dice, &[0, 0, 1500, 1500, 68, 100, 1280])?;
    world.interfaces.put(1, Interface { index: 1, mac: [2; 6], mtu, exit: 0, pad: [0; 3] });
    upset::<Be32>(&world, dice)?;
    upset::<Be128>(&world, dice)?;
    Ok(world)
}

/// Change some backends.
fn upset<A: Numbered>(world: &World, dice: &mut Unstructured<'_>) -> Result<()>
where
    World: Has<A>,
{
    let half = Has::<A>::half(world);
    for _ in 0..dice.int_in_range(0..=3)? {
        let id = dice.int_in_range(1..=22)?;
        let Some(mut backend) = half.backends.get(&id) else { continue };
        backend.state = *dice.choose(&[
            backend_state::ABSENT,
            backend_state::ACTIVE,
            backend_state::CLOSED_TO_NEW,
            backend_state::CUT,
        ])?;
        backend.mtu = one_of(dice, &[0, 0, 68, 1400])?;
        backend.mode = *dice.choose(&[backend.mode, backend.mode, mode::DSR, mode::IPIP])?;
        backend.sources = dice.int_in_range(1..=2)?;
        backend.weight = u32::arbitrary(dice)?;
        if u8::arbitrary(dice)? > 240 {
            backend.hop = Hop::default();
        }
        half.backends.put(id, backend);
    }
    Ok(())
}

/// Fill cells and slots with anything: what a defect elsewhere could leave there.
fn strew<A: Numbered>(world: &World, dice: &mut Unstructured<'_>) -> Result<()>
where
    World: Has<A>,
{
    let half = Has::<A>::half(world);
    for _ in 0..dice.int_in_range(0..=8)? {
        let place = dice.int_in_range(0..=half.slots() - 1)?;
        let from = end::<A>(dice)?;
        let word = u64::arbitrary(dice)? & 0xffff;
        let port = Be16::from_host(from.port).wire();
        let owner = Owner(u64::from(from.address.tag()) << 32 | u64::from(port) << 16 | word);
        let cell = dice.int_in_range(0..=half.cells.len() as u32)?;
        let service = dice.int_in_range(0..=11)?;
        let way = if bool::arbitrary(dice)? {
            Way::port(cell, dice.int_in_range(0..=3)?, Be16::from_host(2000))
        } else {
            Way::hop(Hop { mac: [2; 6], interface: dice.int_in_range(0..=2)? })
        };
        let record = Record::<A> {
            way,
            seen: dice.int_in_range(900..=1_100)?,
            word: u32::arbitrary(dice)?,
            backend: dice.int_in_range(0..=23)?,
            service,
            service_port: Be16::from_host(SERVICE_PORT),
            vlan: 0,
            client: from.address.rest(),
        };
        if let Some((bucket, slot)) = half.bucket(place) {
            bucket.fill(slot, bucket.owner(slot), owner, &record);
        }
        let body = PortCell::<A> {
            owner: Owner(owner.0 & !7 | u64::from(dice.int_in_range(0..=6_u8)?)),
            hop: Hop { mac: [2; 6], interface: dice.int_in_range(0..=2)? },
            seen: record.seen,
            word: record.word,
            backend: record.backend,
            service_port: record.service_port,
            vlan: 0,
            pad: 0,
            client: record.client,
        };
        if let Some(words) = half.cells.get(cell as usize) {
            words.fill(words.owner(), &body);
        }
    }
    Ok(())
}

/// One end: somebody that the tables know of, mostly.
fn end<A: Numbered>(dice: &mut Unstructured<'_>) -> Result<End<A>> {
    let address = match dice.int_in_range(0..=9)? {
        0..=3 => client(dice.int_in_range(1..=3)?),
        4..=6 => virtual_address(dice.int_in_range(1..=10)?),
        7 => server(dice.int_in_range(1..=8)?),
        8 => source(dice.int_in_range(1..=2)?),
        _ => A::numbered(dice.int_in_range(0..=0x00ff_ffff)?),
    };
    let ports = [SERVICE_PORT, SERVER_PORT, 40_000, 40_001, 2000, 2001, 4000, 9005];
    Ok(End { address, port: one_of(dice, &ports)? })
}

/// One of a few values, or any.
fn one_of<'a, T: Arbitrary<'a> + Copy>(dice: &mut Unstructured<'a>, known: &[T]) -> Result<T> {
    match known.get(dice.int_in_range(0..=known.len())?) {
        Some(value) => Ok(*value),
        None => T::arbitrary(dice),
    }
}

/// A packet that somebody of the site might send, or one of the host's, or any bytes.
fn packet<A: Numbered>(dice: &mut Unstructured<'_>) -> Result<(Vec<u8>, Origin)> {
    let kind = dice.int_in_range(0..=15)?;
    if kind == 0 {
        let length = dice.int_in_range(0..=200_usize)?.min(dice.len());
        return Ok((dice.bytes(length)?.to_vec(), Origin::Anybody));
    }
    let (from, to, origin) = if kind == 1 {
        let host = |number: u32| End { address: A::numbered(0x63_0000 + number), port: 2000 };
        (host(1), host(2), Origin::Host)
    } else if kind < 10 {
        let plan = plan_of(dice.int_in_range(1..=PLANS.len() as u16)?);
        let port = dice.int_in_range(40_000..=40_003)?;
        let from = End { address: client(dice.int_in_range(1..=3)?), port };
        (from, End { address: virtual_address(plan.id), port: SERVICE_PORT }, Origin::Anybody)
    } else {
        (end(dice)?, end(dice)?, Origin::Anybody)
    };
    let length = *dice.choose(&[0, 0, 1, 7, 64, 1000])?;
    let data = vec![0x5a; length];
    let mut packet = match dice.int_in_range(0..=9)? {
        0..=5 => tcp(from, to, &segment(dice, &data)?),
        6 | 7 => udp(from, to, &data),
        8 => icmp(from.address, to.address, [A::ECHO[0], 0], u32::arbitrary(dice)?, &data),
        _ => quoting(dice, from, to)?,
    };
    let origin = if mutate::<A>(dice, &mut packet)? { Origin::Anybody } else { origin };
    let tags = [u16::arbitrary(dice)?, u16::arbitrary(dice)?];
    let tags = &tags[..usize::from(*dice.choose(&[0_u8, 0, 0, 0, 1, 2])?)];
    let mut frame = frame::<A>(&packet, tags);
    if u8::arbitrary(dice)? > 230 {
        // What Ethernet pads short frames with.
        frame.extend([0xee; 12]);
    }
    Ok((frame, origin))
}

fn segment<'a>(dice: &mut Unstructured<'_>, data: &'a [u8]) -> Result<Segment<'a>> {
    let flags = one_of(dice, &[2, 2, 2, 0x12, 0x10, 0x10, 0x18, 0x11, 4, 0x14])?;
    let sequence = one_of(dice, &[1000, 1001])?;
    let acknowledgement = one_of(dice, &[1001, 5001])?;
    Ok(Segment { flags, sequence, acknowledgement, data })
}

/// Change a header's bytes: lengths, fragments, TTL, options, a checksum left to hardware. Whether anything changed.
fn mutate<A: Numbered>(dice: &mut Unstructured<'_>, packet: &mut [u8]) -> Result<bool> {
    let times = dice.int_in_range(0..=12)?.max(9) - 9;
    for _ in 0..times {
        let reach = packet.len().min(A::HEADER + 28);
        let at = dice.int_in_range(0..=reach - 1)?;
        packet[at] = u8::arbitrary(dice)?;
        if A::VERSION == 4 && bool::arbitrary(dice)? {
            packet[10..12].fill(0);
            let header = (usize::from(packet[0] & 15) * 4).clamp(20, packet.len());
            let sum = (!crate::sums::fold(crate::sums::ones(&packet[..header]))).to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
        }
    }
    Ok(times > 0)
}

/// An ICMP error to one of two ends about a packet between them, of which some bytes are quoted.
fn quoting<A: Numbered>(dice: &mut Unstructured<'_>, from: End<A>, to: End<A>) -> Result<Vec<u8>> {
    let protocol = *dice.choose(&[TCP, TCP, UDP])?;
    let data = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    let mut quoted =
        if protocol == TCP { tcp(from, to, &segment(dice, &data)?) } else { udp(from, to, &data) };
    if u8::arbitrary(dice)? > 200 {
        // Quoted by a router inside a tunnel.
        quoted = A::packet(source(1), server(6), <A as Family>::TUNNEL, 64, &quoted);
    }
    mutate::<A>(dice, &mut quoted)?;
    let cut = dice.int_in_range(0..=quoted.len())?;
    let kinds = if A::VERSION == 4 { [3, 11, 12, 3] } else { [1, 2, 3, 4] };
    let kind = [*dice.choose(&kinds)?, dice.int_in_range(0..=4)?];
    let router = if bool::arbitrary(dice)? { to.address } else { A::numbered(0x63_0009) };
    Ok(icmp(router, from.address, kind, dice.int_in_range(0..=2_000)?, &quoted[..cut]))
}

fn complaints(dice: &mut Unstructured<'_>) -> Result<()> {
    let world = site(dice)?;
    for _ in 0..8 {
        if dice.is_empty() {
            break;
        }
        if bool::arbitrary(dice)? {
            complaint::<Be32>(&world, dice)?;
        } else {
            complaint::<Be128>(&world, dice)?;
        }
    }
    Ok(())
}

/// A connection that begins, and an error about one of its packets.
fn complaint<A: Numbered>(world: &World, dice: &mut Unstructured<'_>) -> Result<()>
where
    World: Has<A>,
{
    let plan = plan_of(dice.int_in_range(1..=PLANS.len() as u16)?);
    let from =
        End { address: client::<A>(dice.int_in_range(1..=3)?), port: dice.int_in_range(40_000..=40_003)? };
    let to = End { address: virtual_address(plan.id), port: SERVICE_PORT };
    let first = if plan.protocol == TCP {
        tcp(from, to, &Segment { flags: 2, sequence: 5_000, ..Segment::default() })
    } else {
        udp(from, to, b"question")
    };
    let mut sent = Bytes::new(&frame::<A>(&first, &[]));
    let verdict = world.run(&mut sent);
    let ends = crate::packets::ends::<A>(sent.packet());
    let (near, far) = match (verdict.kind, ends) {
        // What the router behind us saw, or what the client got in answer.
        (Kind::Forward, Some(ends)) if bool::arbitrary(dice)? => ends,
        _ => (to, from),
    };
    let error = quoting(dice, near, far)?;
    check(world, &frame::<A>(&error, &[]), Origin::Anybody);
    Ok(())
}
