//! Stage 6: new addresses, ports and MACs, with both checksums kept true.

use lb_common::{
    Be16, Reason,
    abi::{Fragment, FragmentKey, Hop, UDP, checksums, mode},
};

use crate::{
    Complaint, Frame, Parcel, Tables, Verdict,
    checksum::{Change, fold, pseudo_header},
    deliver::{address, encapsulate, fits, is_too_long, leaving, overhead},
    family::{Family, Position},
    parse::Packet,
    tables::hand_over,
    verdict::Way,
};

/// Where a packet goes, and what it is changed to.
#[derive(Clone, Copy)]
pub struct Route<A> {
    /// The service's id.
    pub service: u16,
    /// The (service, backend) pair.
    pub backend: u16,
    /// Which way.
    pub way: Way,
    /// One of `lb_common::abi::mode`.
    pub mode: u8,
    /// Source address; in `ipip` that of the tunnel.
    pub source: A,
    /// Source port.
    pub source_port: Be16,
    /// Destination address; in `ipip` that of the tunnel, in `dsr` of no use.
    pub destination: A,
    /// Destination port.
    pub destination_port: Be16,
    /// Next hop.
    pub hop: Hop,
    /// Largest IP packet that fits on the way; 0: not known.
    pub mtu: u16,
}

/// Rewrite a packet in place for its route.
#[inline(always)]
pub fn rewrite<A: Family, F: Frame, T: Tables<A>>(
    frame: &mut F,
    packet: &Packet<A>,
    to: &Route<A>,
    tables: &T,
) -> Verdict {
    if to.mode != mode::DSR && A::ttl(&packet.ip) <= 1 {
        return hand_over(
            tables,
            A::STAGES.explain,
            Parcel::refusal(to.service, Reason::TtlExceeded, Complaint::TIME_EXCEEDED),
        );
    }
    let Some(leaving) = leaving(to.hop, tables) else {
        return Verdict::drop(to.service, Reason::NextHopUnresolved);
    };
    let room = fits(leaving.mtu, to.mtu);
    let over = overhead::<A>(to.mode);
    if is_too_long::<A, T>(packet.length() + over, room, to.hop.interface, tables) {
        let complaint = Complaint::too_big(room.saturating_sub(over) as u16);
        // A router would cut it (RFC 791, 3.2), which XDP cannot, for it makes no packets. Told of the MTU all the same, the
        // sender cuts what it sends from now on: its IP layer goes by what it knows of the path, whatever DF says.
        let reason = if A::is_whole(&packet.ip) { Reason::TooBig } else { Reason::NotFragmented };
        return hand_over(tables, A::STAGES.explain, Parcel::refusal(to.service, reason, complaint));
    }
    if packet.part.position == Position::First {
        remember(packet, to, tables);
    }
    let done = match to.mode {
        mode::DSR => complete(frame, packet, to, tables),
        mode::IPIP => complete(frame, packet, to, tables).and_then(|()| {
            encapsulate::<A, F>(frame, packet.header, &packet.ip, (to.source, to.destination))
        }),
        _ => translate(frame, packet, to, tables),
    };
    if done.and_then(|()| address(frame, to.hop, &leaving)).is_none() {
        return Verdict::drop(to.service, Reason::RewriteFailed);
    }
    Verdict::forward(to.backend, to.hop.interface, packet.length(), to.way)
}

/// What the parts that follow a first fragment will need.
#[inline(always)]
fn remember<A: Family, T: Tables<A>>(packet: &Packet<A>, to: &Route<A>, tables: &T) {
    let key = FragmentKey {
        source: packet.source(),
        destination: packet.destination(),
        id: packet.part.id,
        protocol: packet.part.protocol.into(),
    };
    let fragment = Fragment {
        hop: to.hop,
        source: to.source,
        destination: to.destination,
        seen: tables.now().raw(),
        backend: to.backend,
        service: to.service,
        mtu: to.mtu,
        mode: to.mode,
        outward: u8::from(to.way == Way::Out),
        pad: 0,
    };
    tables.keep_fragment(&key, &fragment);
}

/// Whether a packet's checksum was left to hardware by a local sender, as far as can be seen.
#[inline(always)]
pub fn is_partial<A: Family, T: Tables<A>>(packet: &Packet<A>, tables: &T) -> bool {
    if tables.config().checksums == checksums::COMPLETE || packet.part.position != Position::Whole {
        return false;
    }
    let segment = packet.segment() as u16;
    fold(pseudo_header(packet.source(), packet.destination(), packet.protocol, segment))
        == packet.checksum().wire()
}

/// Whether a partial checksum is made whole: where the packet leaves as a frame. What stays an skb still knows of it.
#[inline(always)]
fn leaves_whole<A: Family, T: Tables<A>>(to: &Route<A>, tables: &T) -> bool {
    tables.config().checksums == checksums::MAKE_WHOLE && !tables.goes_by_stack(to.hop.interface)
}

/// Make a partial checksum whole in a packet that is otherwise left as it is.
#[inline(always)]
fn complete<A: Family, F: Frame, T: Tables<A>>(
    frame: &mut F,
    packet: &Packet<A>,
    to: &Route<A>,
    tables: &T,
) -> Option<()> {
    if is_partial(packet, tables) && leaves_whole(to, tables) {
        make_whole(frame, packet, (packet.source(), packet.destination()), tables)?;
        tables.count(to.service, Reason::ChecksumCompleted);
    }
    Some(())
}

/// Compute the transport checksum of a packet whose addresses are `ends` and whose ports are in place.
#[inline(always)]
fn make_whole<A: Family, F: Frame, T: Tables<A>>(
    frame: &mut F,
    packet: &Packet<A>,
    ends: (A, A),
    _: &T,
) -> Option<()> {
    let segment = packet.segment();
    frame.store(packet.checksum_offset(), Be16::from_wire(0))?;
    let sum = frame.sum(packet.transport, segment)?;
    let pseudo = pseudo_header(ends.0, ends.1, packet.protocol, segment as u16);
    let whole = Be16::from_wire(!fold(u32::from(fold(sum)) + pseudo));
    frame.store(packet.checksum_offset(), never_zero(packet.protocol, whole))
}

/// In UDP a checksum of zero means that there is none, so one that is zero is sent as its other form (RFC 768).
#[inline(always)]
pub const fn never_zero(protocol: u8, field: Be16) -> Be16 {
    if protocol == UDP && field.wire() == 0 { Be16::from_wire(0xffff) } else { field }
}

/// Network address translation: `snat` and `dnat`, both ways.
#[inline(always)]
fn translate<A: Family, F: Frame, T: Tables<A>>(
    frame: &mut F,
    packet: &Packet<A>,
    to: &Route<A>,
    tables: &T,
) -> Option<()> {
    let addresses =
        Change::NONE.address(packet.source(), to.source).address(packet.destination(), to.destination);
    let ports = addresses
        .word(packet.source_port(), to.source_port)
        .word(packet.destination_port(), to.destination_port);
    let field = packet.checksum();
    let partial = is_partial(packet, tables);
    A::write(frame, packet.header, &packet.ip, (to.source, to.destination), addresses, true)?;
    frame.store(packet.transport, [to.source_port, to.destination_port])?;
    if partial && leaves_whole(to, tables) {
        make_whole(frame, packet, (to.source, to.destination), tables)?;
        tables.count(to.service, Reason::ChecksumCompleted);
    } else if partial {
        frame.store(packet.checksum_offset(), addresses.partial(field))?;
    } else if packet.protocol != UDP || field.wire() != 0 {
        frame.store(packet.checksum_offset(), never_zero(packet.protocol, ports.complete(field)))?;
    }
    Some(())
}
