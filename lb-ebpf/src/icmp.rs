//! ICMP that comes in: echo requests to a service's address, and errors that quote a balanced packet.
//!
//! An error finds its flow by the packet that it quotes, eight bytes of whose transport header must do (RFC 792): the
//! ports. Quotes are read as the sender of the quoted packet saw it, so what we rewrote on its way must be taken back
//! in them: for an error about what we sent to a backend, and for one about what the client got from us.

use lb_common::{
    Be16, Reason,
    abi::{Backend, Service, ServiceKey, TCP, UDP, mode, service_flag},
    flow::{self, FlowKey},
};

use crate::{
    Frame, Parcel, Tables, Verdict,
    checksum::Change,
    connect::is_hosts,
    deliver::{address, encapsulate, leaving},
    family::{Family, Ip, Link, Position, link},
    flows::{Found, find},
    lookup::{Tuple, answered_flow, reply_cell, service},
    parse::{Macs, destination_mac, source_mac},
    quote::{Quote, read, translate},
    rewrite::Route,
    select::by_ring,
    settled::slot_of,
    tables::hand_over,
    verdict::Way,
};

/// Length of an ICMP header.
pub const HEADER: usize = 8;

/// What becomes of an ICMP packet.
#[inline(always)]
pub fn icmp<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let Some(Link::Ipv4 { header, .. } | Link::Ipv6 { header, .. }) = link(frame) else {
        return Verdict::PASS;
    };
    let header = tables.vague(header);
    let Some(ip) = A::read(frame, header) else { return Verdict::note(0, Reason::Malformed) };
    if ip.part.position != Position::Whole || ip.protocol != A::ICMP {
        return Verdict::PASS;
    }
    let Some([head, _]) = frame.load::<[u32; 2]>(ip.payload) else {
        return Verdict::note(0, Reason::Malformed);
    };
    let [kind, code, ..] = head.to_ne_bytes();
    if kind == A::ECHO[0] && code == 0 {
        return echo::<A, F, T>(frame, header, &ip, head, tables);
    }
    if !A::is_error(kind) || frame.length() < header + A::length(&ip.words) as usize {
        return Verdict::PASS;
    }
    let quoted = A::read(frame, ip.payload + HEADER).map_or(0, |inner| inner.protocol);
    match quoted {
        TCP | UDP => Verdict::proceed(A::STAGES.quote),
        tunnel if tunnel == A::TUNNEL && A::is_too_big(kind, code) => Verdict::proceed(A::STAGES.tunnel),
        _ => Verdict::PASS,
    }
}

/// An error that quotes a TCP or UDP packet: whose is that?
#[inline(always)]
pub fn quoted<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let Some(Link::Ipv4 { header, .. } | Link::Ipv6 { header, .. }) = link(frame) else {
        return Verdict::PASS;
    };
    let Some(ip) = A::read(frame, tables.vague(header)) else { return Verdict::PASS };
    let Some(quote) = read::<A, F>(frame, ip.payload + HEADER) else { return Verdict::PASS };
    owner_of(&quote.tuple(), tables)
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
        return Verdict::PASS;
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
        // The sum of the addresses is the same the other way round. The way back may be longer than what is left.
        let (renewed, change) = A::renewed(&ip.words);
        A::write(frame, header, &renewed, (destination, source), change, false)?;
        frame.store(ip.payload, [A::ECHO[1], code, high, low])
    })();
    match done {
        Some(()) => Verdict::answer(0, Reason::EchoAnswered),
        None => Verdict::drop(0, Reason::RewriteFailed),
    }
}

/// Whose packet is quoted: the stage that carries the error there gets the backend and the way of the flow, or the next
/// hop back to the client and the service's port.
#[inline(always)]
fn owner_of<A: Family, T: Tables<A>>(seen: &Tuple<A>, tables: &T) -> Verdict {
    // As its receiver would answer it: that is what the tables are asked by.
    let answer = Tuple {
        source: seen.destination,
        source_port: seen.destination_port,
        destination: seen.source,
        destination_port: seen.source_port,
        protocol: seen.protocol,
    };
    if let Some(held) = reply_cell(&answer, tables) {
        let way = flow::Way::port(held.index, 0, held.cell.service_port);
        return outward::<A, T>(held.cell.backend, way, held.cell.service_port, tables);
    }
    if let Some(of) = service(seen.source, seen.source_port, seen.protocol, tables) {
        let key = FlowKey {
            client: seen.destination,
            client_port: seen.destination_port,
            service_port: seen.source_port,
            service: of.id,
        };
        return inward::<A, T>(&of, &key, tables);
    }
    match answered_flow(&answer, tables) {
        Some(Found { record, .. }) => {
            outward::<A, T>(record.backend, record.way, record.service_port, tables)
        }
        None => Verdict::PASS,
    }
}

/// An error about what we sent to a backend: the client is told.
#[inline(always)]
fn outward<A: Family, T: Tables<A>>(backend: u16, way: flow::Way, port: Be16, tables: &T) -> Verdict {
    let parcel = Parcel::sending(0, backend, way);
    hand_over(tables, A::STAGES.carry, Parcel { otherwise: port.wire(), begins: false, ..parcel })
}

/// An error about what a client was to get: its backend is told.
#[inline(always)]
fn inward<A: Family, T: Tables<A>>(of: &Service, key: &FlowKey<A>, tables: &T) -> Verdict {
    let (backend, way) = match find(key, tables) {
        Some(found) => (found.record.backend, found.record.way),
        // Of a connection that the host has accepted while the agent is lost, it hears itself.
        None if of.mode == mode::SNAT || is_hosts(of, tables) => {
            return Verdict::note(of.id, Reason::ErrorUnmatched);
        }
        None => (of_the_unrecorded(of, key, tables), flow::Way::default()),
    };
    if backend == 0 {
        return Verdict::note(of.id, Reason::ErrorUnmatched);
    }
    hand_over(tables, A::STAGES.carry, Parcel::sending(of.id, backend, way))
}

/// The id of the backend that has the packets of a client which no flow knows; 0: nobody has.
#[inline(always)]
pub fn of_the_unrecorded<A: Family, T: Tables<A>>(of: &Service, key: &FlowKey<A>, tables: &T) -> u16 {
    if of.flags & service_flag::ON_CHANGE != 0 {
        slot_of(of, key, tables).map_or(0, |slot| slot.prev)
    } else {
        by_ring(of, key, false, tables).map_or(0, |chosen| chosen.id)
    }
}

/// Where an error goes, and what its quote is to say.
struct Meaning<A> {
    /// The way; its addresses are the error's own.
    route: Route<A>,
    /// The ends of the quoted packet as its sender knows them.
    quoted: Tuple<A>,
}

/// An error whose flow is known goes on.
#[inline(always)]
pub fn carried<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let Some(Link::Ipv4 { header, .. } | Link::Ipv6 { header, .. }) = link(frame) else {
        return Verdict::PASS;
    };
    let header = tables.vague(header);
    let Some(ip) = A::read(frame, header) else { return Verdict::PASS };
    let Some(quote) = read::<A, F>(frame, ip.payload + HEADER) else { return Verdict::PASS };
    let parcel = tables.handed_over();
    let Some(backend) = tables.backend(parcel.backend) else { return Verdict::PASS };
    let seen = quote.tuple();
    let meaning = if parcel.begins {
        Some(to_backend(&parcel, &backend, A::source(&ip.words), &seen, tables))
    } else {
        to_client(&parcel, &backend, &seen, tables)
    };
    match meaning {
        Some(meaning) => carry(frame, header, &ip, &quote, &meaning, tables),
        None => Verdict::note(backend.service, Reason::ErrorUnmatched),
    }
}

/// The client is told, as if the service's address had been the receiver of what it sent.
#[inline(always)]
fn to_client<A: Family, T: Tables<A>>(
    parcel: &Parcel,
    backend: &Backend<A>,
    seen: &Tuple<A>,
    tables: &T,
) -> Option<Meaning<A>> {
    let (client, client_port, hop) = if backend.mode == mode::SNAT {
        let cell = tables.cell(parcel.way.cell())?;
        (cell.client(), cell.owner.client_port(), cell.hop)
    } else if backend.address != seen.destination {
        // The client has come to another backend since.
        return None;
    } else {
        (seen.source, seen.source_port, parcel.way.back())
    };
    let service_port = Be16::from_wire(parcel.otherwise);
    let quoted = Tuple {
        source: client,
        source_port: client_port,
        destination: backend.service_address,
        destination_port: service_port,
        protocol: seen.protocol,
    };
    let route = Route {
        service: backend.service,
        backend: parcel.backend,
        way: Way::Out,
        mode: backend.mode,
        source: backend.service_address,
        source_port: service_port,
        destination: client,
        destination_port: client_port,
        hop,
        mtu: 0,
    };
    Some(Meaning { route, quoted })
}

/// The backend is told, about what it sent as it sent it. `router`: whose error it is.
#[inline(always)]
fn to_backend<A: Family, T: Tables<A>>(
    parcel: &Parcel,
    backend: &Backend<A>,
    router: A,
    seen: &Tuple<A>,
    tables: &T,
) -> Meaning<A> {
    let port = if backend.port == Be16::default() { seen.source_port } else { backend.port };
    let number = if backend.mode == mode::SNAT { parcel.way.source() } else { backend.source };
    let ours = tables.source(number).unwrap_or_default();
    let source = if matches!(backend.mode, mode::SNAT | mode::IPIP) { ours } else { router };
    let (client, client_port) = if backend.mode == mode::SNAT {
        (ours, parcel.way.source_port())
    } else {
        (seen.destination, seen.destination_port)
    };
    let quoted = Tuple {
        source: backend.address,
        source_port: port,
        destination: client,
        destination_port: client_port,
        protocol: seen.protocol,
    };
    let route = Route {
        service: backend.service,
        backend: parcel.backend,
        way: Way::In,
        mode: backend.mode,
        source,
        source_port: client_port,
        destination: backend.address,
        destination_port: port,
        hop: backend.hop,
        mtu: backend.mtu,
    };
    Meaning { route, quoted }
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
        return Verdict::drop(route.service, Reason::TtlExceeded);
    }
    let Some(leaving) = leaving(route.hop, tables) else {
        return Verdict::drop(route.service, Reason::NextHopUnresolved);
    };
    let ends = (route.source, route.destination);
    let done = match route.mode {
        mode::DSR => Some(()),
        mode::IPIP => encapsulate::<A, F>(frame, header, &ip.words, ends),
        _ => translate(frame, header, ip, quote, &to.quoted, ends),
    };
    if done.and_then(|()| address(frame, route.hop, &leaving)).is_none() {
        return Verdict::drop(route.service, Reason::RewriteFailed);
    }
    tables.count(route.service, Reason::ErrorTranslated);
    Verdict::forward(route.backend, route.hop.interface, A::length(&ip.words), route.way)
}
