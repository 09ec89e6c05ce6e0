//! ICMP that comes in: echo requests to a service's address, and errors that quote a balanced packet.
//!
//! An error finds its flow by the packet that it quotes, eight bytes of whose transport header must do (RFC 792): the
//! ports. Quotes are read as the sender of the quoted packet saw it, so what we rewrote on its way must be taken back
//! in them: for an error about what we sent to a backend, and for one about what the client got from us.

use lb_common::{
    Be16, Reason,
    abi::{Backend, ServiceKey, TCP, UDP, mode},
    flow::{self, FlowKey},
};

use crate::{
    Frame, Tables, Verdict,
    checksum::Change,
    deliver::{address, encapsulate, leaving},
    explain::{self, Error},
    family::{Family, Ip, Link, Part, link},
    flows::find,
    lookup::{Tuple, answered_flow, reply_cell, service},
    parse::{Macs, destination_mac, source_mac},
    quote::{Quote, read, translate},
    rewrite::Route,
    select::by_ring,
    verdict::Way,
};

/// Length of an ICMP header.
const HEADER: usize = 8;

/// What becomes of an ICMP packet.
#[inline(always)]
pub fn icmp<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let Some(Link::Ipv4 { header, .. } | Link::Ipv6 { header, .. }) = link(frame) else {
        return Verdict::Pass;
    };
    let header = tables.vague(header);
    let Some(ip) = A::read(frame, header) else { return Verdict::Note(0, Reason::Malformed) };
    if ip.part != Part::Whole || ip.protocol != A::ICMP {
        return Verdict::Pass;
    }
    let Some([head, _]) = frame.load::<[u32; 2]>(ip.payload) else {
        return Verdict::Note(0, Reason::Malformed);
    };
    let [kind, code, ..] = head.to_ne_bytes();
    if kind == A::ECHO[0] && code == 0 {
        return echo::<A, F, T>(frame, header, &ip, head, tables);
    }
    if !A::is_error(kind) || frame.length() < header + A::length(&ip.words) as usize {
        return Verdict::Pass;
    }
    let Some(quote) = read::<A, F>(frame, ip.payload + HEADER) else { return Verdict::Pass };
    if quote.ip.protocol == A::TUNNEL && A::is_too_big(kind, code) {
        return tunnel::<A, F, T>(frame, header, &ip, &quote, tables);
    }
    if !matches!(quote.ip.protocol, TCP | UDP) {
        return Verdict::Pass;
    }
    match owner_of(&quote, &ip, tables) {
        Found::Way(meaning) => carry(frame, header, &ip, &quote, &meaning, tables),
        Found::NoFlow(service) => Verdict::Note(service, Reason::ErrorUnmatched),
        Found::NotOurs => Verdict::Pass,
    }
}

/// Answer an echo request, where its address answers them here: everybody else's goes to the host.
#[inline(always)]
fn echo<A: Family, F: Frame, T: Tables<A>>(
    frame: &mut F,
    header: usize,
    ip: &Ip<A>,
    head: u32,
    tables: &T,
) -> Verdict {
    let (source, destination) = (A::source(&ip.words), A::destination(&ip.words));
    let key = ServiceKey { address: destination, port: Be16::default(), protocol: A::ICMP, range: 0 };
    if tables.service(&key).is_none() {
        return Verdict::Pass;
    }
    let [kind, code, high, low] = head.to_ne_bytes();
    let word = |kind| Be16::from_wire(u16::from_ne_bytes([kind, code]));
    let field = Be16::from_wire(u16::from_ne_bytes([high, low]));
    let field = Change::NONE.word(word(kind), word(A::ECHO[1])).complete(field);
    // A reply may be nothing but zeros, whose checksum is 0xffff; the change of a field never tells that from a sum of
    // 0xffff, whose checksum is zero (RFC 1624, 3). Receivers, who add up everything, take 0xffff for both.
    let [high, low] = if field.wire() == 0 { [0xff; 2] } else { field.wire().to_ne_bytes() };
    let done = (|| {
        let macs: Macs = frame.load(0)?;
        frame.store(0, [source_mac(&macs), destination_mac(&macs)])?;
        // The sum of the addresses is the same the other way round.
        A::write(frame, header, &ip.words, (destination, source), Change::NONE, false)?;
        frame.store(ip.payload, [A::ECHO[1], code, high, low])
    })();
    match done {
        Some(()) => Verdict::Answer(0, Reason::EchoAnswered),
        None => Verdict::Drop(0, Reason::RewriteFailed),
    }
}

/// What a quote tells.
enum Found<A> {
    /// Whose it is.
    Way(Meaning<A>),
    /// It is a service's (id), but nothing is known of its flow.
    NoFlow(u16),
    /// Not ours.
    NotOurs,
}

/// Where an error goes, and what its quote is to say.
pub struct Meaning<A> {
    /// The way; its addresses are the error's own.
    pub route: Route<A>,
    /// The ends of the quoted packet as its sender knows them.
    pub quoted: Tuple<A>,
}

/// Whose packet is quoted.
#[inline(always)]
fn owner_of<A: Family, T: Tables<A>>(quote: &Quote<A>, outer: &Ip<A>, tables: &T) -> Found<A> {
    let seen = quote.tuple();
    // As its receiver would answer it: that is what the tables are asked by.
    let answer = Tuple {
        source: seen.destination,
        source_port: seen.destination_port,
        destination: seen.source,
        destination_port: seen.source_port,
        protocol: seen.protocol,
    };
    if let Some(held) = reply_cell(&answer, tables)
        && let Some(backend) = tables.backend(held.cell.backend)
    {
        let client = (held.cell.client(), held.cell.owner.client_port());
        let way = (held.cell.backend, held.cell.service_port, held.cell.hop);
        return Found::Way(outward(&backend, way, client, &seen));
    }
    let to = service(seen.source, seen.source_port, seen.protocol, tables);
    if let Some(of) = to {
        let key = FlowKey {
            client: seen.destination,
            client_port: seen.destination_port,
            service_port: seen.source_port,
            service: of.id,
        };
        return match inward(&key, of.mode, outer, &seen, tables) {
            Some(meaning) => Found::Way(meaning),
            None if of.mode == mode::SNAT => Found::NoFlow(of.id),
            None => match by_ring(&of, &key, tables) {
                Some(chosen) => Found::Way(towards(
                    chosen.id,
                    &chosen.backend,
                    flow::Way::default(),
                    outer,
                    &seen,
                    tables,
                )),
                None => Found::NoFlow(of.id),
            },
        };
    }
    if let Some(found) = answered_flow(&answer, tables)
        && let Some(backend) = tables.backend(found.record.backend)
    {
        let client = (seen.source, seen.source_port);
        let way = (found.record.backend, found.record.service_port, found.record.way.back());
        return Found::Way(outward(&backend, way, client, &seen));
    }
    Found::NotOurs
}

/// An error about what we sent to a backend: the client is told, as if the service's address had been the receiver.
#[inline(always)]
fn outward<A: Family>(
    backend: &Backend<A>,
    (id, service_port, hop): (u16, Be16, lb_common::abi::Hop),
    (client, client_port): (A, Be16),
    seen: &Tuple<A>,
) -> Meaning<A> {
    Meaning {
        route: Route {
            service: backend.service,
            backend: id,
            way: Way::Out,
            mode: backend.mode,
            source: backend.service_address,
            source_port: service_port,
            destination: client,
            destination_port: client_port,
            hop,
            mtu: 0,
        },
        quoted: Tuple {
            source: client,
            source_port: client_port,
            destination: backend.service_address,
            destination_port: service_port,
            protocol: seen.protocol,
        },
    }
}

/// An error about what a client was to get: the backend is told.
#[inline(always)]
fn inward<A: Family, T: Tables<A>>(
    key: &FlowKey<A>,
    _: u8,
    outer: &Ip<A>,
    seen: &Tuple<A>,
    tables: &T,
) -> Option<Meaning<A>> {
    let found = find(key, tables)?;
    let backend = tables.backend(found.record.backend)?;
    Some(towards(found.record.backend, &backend, found.record.way, outer, seen, tables))
}

#[inline(always)]
fn towards<A: Family, T: Tables<A>>(
    id: u16,
    backend: &Backend<A>,
    way: flow::Way,
    outer: &Ip<A>,
    seen: &Tuple<A>,
    tables: &T,
) -> Meaning<A> {
    let port = if backend.port == Be16::default() { seen.source_port } else { backend.port };
    let (source, client, client_port) = match backend.mode {
        mode::SNAT => {
            let source = tables.source(way.source()).unwrap_or_default();
            (source, source, way.source_port())
        }
        mode::IPIP => {
            (tables.source(backend.source).unwrap_or_default(), seen.destination, seen.destination_port)
        }
        _ => (A::source(&outer.words), seen.destination, seen.destination_port),
    };
    Meaning {
        route: Route {
            service: backend.service,
            backend: id,
            way: Way::In,
            mode: backend.mode,
            source,
            source_port: client_port,
            destination: backend.address,
            destination_port: port,
            hop: backend.hop,
            mtu: backend.mtu,
        },
        quoted: Tuple {
            source: backend.address,
            source_port: port,
            destination: client,
            destination_port: client_port,
            protocol: seen.protocol,
        },
    }
}

/// Send an error on, its quote translated.
#[inline(always)]
fn carry<A: Family, F: Frame, T: Tables<A>>(
    frame: &mut F,
    header: usize,
    ip: &Ip<A>,
    quote: &Quote<A>,
    to: &Meaning<A>,
    tables: &T,
) -> Verdict {
    let route = &to.route;
    if route.mode != mode::DSR && A::ttl(&ip.words) <= 1 {
        return Verdict::Drop(route.service, Reason::TtlExceeded);
    }
    let Some(leaving) = leaving(route.hop, tables) else {
        return Verdict::Drop(route.service, Reason::NextHopUnresolved);
    };
    let ends = (route.source, route.destination);
    let done = match route.mode {
        mode::DSR => Some(()),
        mode::IPIP => encapsulate::<A, F>(frame, header, &ip.words, ends),
        _ => translate(frame, header, ip, quote, &to.quoted, ends),
    };
    if done.and_then(|()| address(frame, route.hop, &leaving)).is_none() {
        return Verdict::Drop(route.service, Reason::RewriteFailed);
    }
    tables.count(route.service, Reason::ErrorTranslated);
    Verdict::Forward {
        backend: route.backend,
        interface: route.hop.interface,
        bytes: A::length(&ip.words),
        way: route.way,
    }
}

/// "Too big" about a tunnel of ours: its quote holds the client's packet, so the client is told what fits inside.
#[inline(always)]
fn tunnel<A: Family, F: Frame, T: Tables<A>>(
    frame: &mut F,
    header: usize,
    ip: &Ip<A>,
    outer: &Quote<A>,
    tables: &T,
) -> Verdict {
    let Some(inner) = read::<A, F>(frame, outer.ip.payload) else {
        return Verdict::Note(0, Reason::ErrorUnmatched);
    };
    let seen = inner.tuple();
    let Some(of) = service(seen.destination, seen.destination_port, seen.protocol, tables) else {
        return Verdict::Pass;
    };
    if of.mode != mode::IPIP {
        return Verdict::Pass;
    }
    let key = FlowKey {
        client: seen.source,
        client_port: seen.source_port,
        service_port: seen.destination_port,
        service: of.id,
    };
    // The way back to the client stands in its flow; without one it is not known.
    let Some(found) = find(&key, tables) else { return Verdict::Note(of.id, Reason::ErrorUnmatched) };
    let hop = found.record.way.back();
    let Some(leaving) = leaving(hop, tables) else { return Verdict::Drop(of.id, Reason::NextHopUnresolved) };
    let done = (|| {
        let [_, word] = frame.load::<[u32; 2]>(ip.payload)?;
        let [_, _, high, low] = word.to_ne_bytes();
        let mtu = u16::from_be_bytes([high, low]).saturating_sub(A::HEADER as u16);
        let gone = ip.payload - header + HEADER + (outer.ip.payload - (ip.payload + HEADER));
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
        let error = Error { kind: A::COMPLAINTS[2], mtu, from: seen.destination, to: seen.source, quoted };
        explain::send::<A, F>(frame, header, &inner.ip.words, &error)?;
        address(frame, hop, &leaving)
    })();
    if done.is_none() {
        return Verdict::Drop(of.id, Reason::RewriteFailed);
    }
    tables.count(of.id, Reason::ErrorTranslated);
    Verdict::Forward {
        backend: found.record.backend,
        interface: hop.interface,
        bytes: A::length(&ip.words),
        way: Way::Out,
    }
}
