//! Later parts of fragmented packets: they have no ports, so they follow their first part.

use lb_common::{
    Be16, Reason,
    abi::{FragmentKey, ServiceKey, mode},
};

use crate::{
    Complaint, Frame, Parcel, Tables, Verdict,
    checksum::Change,
    deliver::{address, encapsulate, fits, is_too_long, leaving, overhead},
    family::{Family, Link, Part, Position, link},
    tables::hand_over,
    verdict::Way,
};

/// How long a first part is remembered, in ticks: as long as Linux waits for a packet's parts (`IP_FRAG_TIME`, 30 s).
const WAIT: lb_common::Ticks = lb_common::Ticks::from_millis(30_000);

/// Send a later part the way of its first; what has none goes to the host.
#[inline(always)]
pub fn follow<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let Some(Link::Ipv4 { header, .. } | Link::Ipv6 { header, .. }) = link(frame) else {
        return Verdict::PASS;
    };
    let header = tables.vague(header);
    let Some(ip) = A::read(frame, header) else { return Verdict::note(0, Reason::Malformed) };
    if ip.part.position != Position::Later {
        return Verdict::PASS;
    }
    let Part { id, protocol, .. } = ip.part;
    let (source, destination) = (A::source(&ip.words), A::destination(&ip.words));
    let key = FragmentKey { source, destination, id, protocol: protocol.into() };
    let known = tables
        .fragment(&key)
        .filter(|first| !tables.now().since(lb_common::Ticks::from_raw(first.seen)).at_least(WAIT));
    let Some(first) = known else { return unmatched(destination, tables) };
    if frame.length() < header + A::length(&ip.words) as usize {
        return Verdict::note(0, Reason::Malformed);
    }
    if first.mode != mode::DSR && A::ttl(&ip.words) <= 1 {
        return Verdict::drop(first.service, Reason::TtlExceeded);
    }
    let Some(leaving) = leaving(first.hop, tables) else {
        return Verdict::drop(first.service, Reason::NextHopUnresolved);
    };
    let (room, over) = (fits(leaving.mtu, first.mtu), overhead::<A>(first.mode));
    if is_too_long::<A, T>(A::length(&ip.words) + over, room, first.hop.interface, tables) {
        if A::VERSION == 4 {
            // No error is sent about a later part (RFC 1812, 4.3.2.7); the first one's sender has been told.
            return Verdict::drop(first.service, Reason::TooBig);
        }
        let complaint = Complaint::too_big(room.saturating_sub(over) as u16);
        let refusal = Parcel::refusal(first.service, Reason::TooBig, complaint);
        return hand_over(tables, A::STAGES.explain, refusal);
    }
    let ends = (first.source, first.destination);
    let done = match first.mode {
        mode::DSR => Some(()),
        mode::IPIP => encapsulate::<A, F>(frame, header, &ip.words, ends),
        _ => {
            let change = Change::NONE.address(source, ends.0).address(destination, ends.1);
            A::write(frame, header, &ip.words, ends, change, true)
        }
    };
    if done.and_then(|()| address(frame, first.hop, &leaving)).is_none() {
        return Verdict::drop(first.service, Reason::RewriteFailed);
    }
    Verdict::forward(
        first.backend,
        first.hop.interface,
        A::length(&ip.words),
        if first.outward == 0 { Way::In } else { Way::Out },
    )
}

/// A part that came before its first one, or whose first was the host's. It is counted where its address is balanced.
#[inline(always)]
fn unmatched<A: Family, T: Tables<A>>(destination: A, tables: &T) -> Verdict {
    let balanced = ServiceKey { address: destination, port: Be16::default(), protocol: 0, range: 0 };
    match tables.service(&balanced) {
        Some(_) => Verdict::note(0, Reason::FragmentUnmatched),
        None => Verdict::PASS,
    }
}
