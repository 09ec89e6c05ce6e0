//! "Too big" about a tunnel of ours.
//!
//! Its quote holds a client's packet. Where that client's flow is recorded, the way back to it is known, and it is told
//! what fits inside. Where it is not (a settled slot, a full table), the tunnel's MTU is remembered instead, as RFC 2003,
//! 5.1, has it: who sends more than that is told when it does, by the way that its packet came. An error may be forged,
//! so what is remembered is never less than any path must take, and forgotten after a while.

use lb_common::{
    Address, Reason, Ticks,
    abi::{Backend, Service, mode},
    flow::FlowKey,
};

use crate::{
    Frame, Tables, Verdict,
    deliver::{address, leaving},
    explain::{self, Error, Unfinished},
    family::{Family, Link, link},
    flows::find,
    icmp::{HEADER, of_the_unrecorded},
    lookup::service,
    parse::Macs,
    quote::read,
    verdict::Way,
};

/// How long an MTU is remembered, as Linux does (`ip_rt_mtu_expires`, net/ipv4/route.c).
const KEPT: Ticks = Ticks::from_millis(600_000);

/// The least MTU that is believed: what every host takes (RFC 791, 3.1), what every link has (RFC 8200, 5).
#[inline(always)]
const fn least<A: Address>() -> u16 {
    if A::VERSION == 4 { 576 } else { 1_280 }
}

/// The largest IP packet that fits on the way to a backend, as far as is known; 0: it is not.
#[inline(always)]
pub fn mtu<A: Address, T: Tables<A>>(id: u16, backend: &Backend<A>, tables: &T) -> u16 {
    let learnt = learnt(id, backend, tables);
    if learnt != 0 && (backend.mtu == 0 || learnt < backend.mtu) { learnt } else { backend.mtu }
}

/// The MTU that is remembered of the way to a backend; 0: none. A word holds the moment, some of the backend's address,
/// for ids are given anew, and the MTU.
#[inline(always)]
fn learnt<A: Address, T: Tables<A>>(id: u16, backend: &Backend<A>, tables: &T) -> u16 {
    let word = tables.narrowed(id);
    let since = Ticks::from_raw((word >> 32) as u32);
    let its_own = (word >> 16) as u16 == digest(backend);
    if its_own && !tables.now().since(since).at_least(KEPT) { word as u16 } else { 0 }
}

/// All of a backend's address in 16 bits.
#[inline(always)]
fn digest<A: Address>(backend: &Backend<A>) -> u16 {
    let tag = backend.address.tag();
    (tag ^ tag >> 16) as u16
}

/// Remember what fits in a tunnel between `ends`, if that is the one to the backend that the client's packets go to. An
/// error only ever makes it less (RFC 1191, 3; RFC 8201, 4).
#[inline(always)]
fn narrowed<A: Family, T: Tables<A>>(of: &Service, id: u16, ends: (A, A), mtu: u16, tables: &T) -> Verdict {
    let unmatched = Verdict::note(of.id, Reason::ErrorUnmatched);
    let Some(backend) = tables.backend(id) else { return unmatched };
    let ours = tables.source(backend.source).unwrap_or_default();
    if id == 0 || mtu == 0 || ends != (ours, backend.address) {
        return unmatched;
    }
    let mtu = if mtu < least::<A>() { least::<A>() } else { mtu };
    let before = learnt(id, &backend, tables);
    if before == 0 || mtu < before {
        let its = u64::from(digest(&backend));
        tables.narrow(id, u64::from(tables.now().raw()) << 32 | its << 16 | u64::from(mtu));
    }
    Verdict::drop(of.id, Reason::TunnelNarrowed)
}

/// The way of such an error.
#[inline(always)]
pub fn tunnelled<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let Some(Link::Ipv4 { header, .. } | Link::Ipv6 { header, .. }) = link(frame) else {
        return Verdict::PASS;
    };
    let header = tables.vague(header);
    let Some(ip) = A::read(frame, header) else { return Verdict::PASS };
    let Some(outer) = A::read(frame, ip.payload + HEADER) else { return Verdict::PASS };
    let Some(inner) = read::<A, F>(frame, outer.payload) else {
        return Verdict::note(0, Reason::ErrorUnmatched);
    };
    let seen = inner.tuple();
    let Some(of) = service(seen.destination, seen.destination_port, seen.protocol, tables) else {
        return Verdict::PASS;
    };
    if of.mode != mode::IPIP {
        return Verdict::PASS;
    }
    let key = FlowKey {
        client: seen.source,
        client_port: seen.source_port,
        service_port: seen.destination_port,
        service: of.id,
    };
    let Some(found) = find(&key, tables) else {
        let [_, word] = frame.load::<[u32; 2]>(ip.payload).unwrap_or_default();
        let [_, _, high, low] = word.to_ne_bytes();
        let ends = (A::source(&outer.words), A::destination(&outer.words));
        return narrowed(
            &of,
            of_the_unrecorded(&of, &key, tables),
            ends,
            u16::from_be_bytes([high, low]),
            tables,
        );
    };
    let hop = found.record.way.back();
    let Some(leaving) = leaving(hop, tables) else { return Verdict::drop(of.id, Reason::NextHopUnresolved) };
    let done = (|| {
        let [_, word] = frame.load::<[u32; 2]>(ip.payload)?;
        let [_, _, high, low] = word.to_ne_bytes();
        let mtu = u16::from_be_bytes([high, low]).saturating_sub(A::HEADER as u16);
        let gone = outer.payload - header;
        let quoted = (A::length(&ip.words) as usize).saturating_sub(gone);
        // The link layer's header moves on to the quoted packet.
        let macs: Macs = frame.load(0)?;
        let tags: [u32; 2] = frame.load(12)?;
        let last: u16 = frame.load(header - 2)?;
        frame.strip(gone)?;
        frame.store(0, macs)?;
        if header > crate::family::ETHERNET {
            frame.store(12, tags)?;
        }
        frame.store(header - 2, last)?;
        // Two tags have been stored, and there may be one.
        frame.store(header, inner.ip.words)?;
        let error = Error {
            kind: A::COMPLAINTS[2],
            mtu,
            from: seen.destination,
            to: seen.source,
            quoted,
            unfinished: Unfinished::default(),
        };
        explain::send::<A, F>(frame, header, &inner.ip.words, &error)?;
        address(frame, hop, &leaving)
    })();
    if done.is_none() {
        return Verdict::drop(of.id, Reason::RewriteFailed);
    }
    tables.count(of.id, Reason::ErrorTranslated);
    Verdict::forward(found.record.backend, hop.interface, A::length(&ip.words), Way::Out)
}
