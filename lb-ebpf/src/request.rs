//! A client's packet of a known flow: it stays with its backend, whatever the weights do.

use lb_common::{
    Be16, EMBRYO_GRACE, Reason, Ticks,
    abi::{Backend, Service, backend_state, mode, service_flag},
    cell::{Owner, Phase, Side},
    flow::{self, FlowKey},
};

use crate::{
    Complaint, Tables,
    family::Family,
    flows::{Found, find},
    parse::{Packet, flag},
    rewrite::Route,
    seat::{SWAPS, settle},
    select::Candidate,
    settled::slot_of,
    step::Step,
    tell::tell_cut,
    tunnel,
    verdict::Way,
};

/// Why a packet goes no further.
#[derive(Clone, Copy)]
pub enum Refusal {
    /// Its sender gets a RST, or what stands for it in UDP.
    Reset(Reason),
    /// Silence.
    Drop(Reason),
}

/// Where a packet goes: the backend, and the way of its flow.
pub type Onward<A> = (Candidate<A>, flow::Way);

/// The way of a client's packet that may move its connection on. What may begin one is for [`connect`](crate::connect).
#[inline(always)]
pub fn to_backend<A: Family, T: Tables<A>>(packet: &Packet<A>, service: &Service, tables: &T) -> Step {
    let key = packet.key(service.id);
    if service.flags & service_flag::ON_CHANGE != 0 {
        return match slot_of(service, &key, tables) {
            Some(slot) if slot.settled => onward(packet, service, straight(slot.cur, &key, tables)),
            _ => Step::CONNECT,
        };
    }
    if packet.begins() && !packet.is_udp() {
        return Step::CONNECT;
    }
    match find(&key, tables) {
        Some(found) if !packet.is_udp() || alive(&found, tables) => {
            onward(packet, service, follow(packet, &key, &found, tables))
        }
        None if service.mode == mode::SNAT
            && !packet.is_udp()
            && service.flags & service_flag::PASS_LOST == 0 =>
        {
            if packet.flags() & flag::RST == 0 {
                Step::reset(service.id, Reason::NoFlow)
            } else {
                Step::drop(service.id, Reason::RstWithoutFlow)
            }
        }
        _ => Step::CONNECT,
    }
}

/// The step that a packet takes whose backend was found, or was not.
#[inline(always)]
fn onward<A: Family>(packet: &Packet<A>, service: &Service, found: Result<Onward<A>, Refusal>) -> Step {
    match found {
        Ok((candidate, way)) => Step::send(service.id, candidate.id, way),
        Err(refusal) => refused(packet, service, refusal),
    }
}

/// The step that a refused packet takes.
#[inline(always)]
pub fn refused<A: Family>(packet: &Packet<A>, service: &Service, refusal: Refusal) -> Step {
    match refusal {
        Refusal::Reset(reason) if packet.is_udp() => {
            Step::explain(service.id, reason, Complaint::PORT_UNREACHABLE)
        }
        // A RST is never answered (RFC 9293, 3.10.7.1).
        Refusal::Reset(reason) if packet.flags() & flag::RST != 0 => Step::drop(service.id, reason),
        Refusal::Reset(reason) => Step::reset(service.id, reason),
        Refusal::Drop(reason) => Step::drop(service.id, reason),
    }
}

/// To a backend that nothing is recorded of.
#[inline(always)]
pub fn straight<A: Family, T: Tables<A>>(
    id: u16,
    key: &FlowKey<A>,
    tables: &T,
) -> Result<Onward<A>, Refusal> {
    match tables.backend(id) {
        Some(backend) if backend.address == key.client => Err(Refusal::Reset(Reason::Hairpin)),
        Some(backend) if usable(&backend) => Ok((Candidate { id, backend }, flow::Way::default())),
        _ => Err(Refusal::Reset(Reason::BackendGone)),
    }
}

#[inline(always)]
pub const fn usable<A: Family>(backend: &Backend<A>) -> bool {
    matches!(backend.state, backend_state::ACTIVE | backend_state::CLOSED_TO_NEW)
}

#[inline(always)]
pub fn alive<A: Family, T: Tables<A>>(found: &Found<A>, tables: &T) -> bool {
    found.owner.is_live() && tables.backend(found.record.backend).is_some_and(|backend| usable(&backend))
}

/// A packet of a known flow: it stays with its backend, whatever the weights do.
#[inline(always)]
pub fn follow<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    key: &FlowKey<A>,
    found: &Found<A>,
    tables: &T,
) -> Result<Onward<A>, Refusal> {
    let id = found.record.backend;
    let Some(backend) = tables.backend(id).filter(|backend| backend.state != backend_state::ABSENT) else {
        return Err(Refusal::Reset(Reason::BackendGone));
    };
    if found.owner.is_cut() || backend.state == backend_state::CUT {
        let refusal = cut(packet, key, found, tables);
        // Past us, the backend hears of the end from the client alone.
        let passed = mode::is_one_sided(backend.mode) && packet.flags() & flag::RST != 0;
        return if passed { Ok((Candidate { id, backend }, found.record.way)) } else { Err(refusal) };
    }
    // A port cell, another cache line, is looked at only where the connection's phase may change.
    let owner = if packet.ends() || !found.owner.is_steady_link() {
        advance(packet, found, &backend, tables)
    } else {
        found.owner
    };
    let now = tables.now();
    if now != found.record.seen() {
        tables.touch_flow(found.slot, now);
    }
    if owner != found.owner {
        // Another CPU that marked it first has marked the same.
        tables.swap_flow(found.slot, found.owner, owner);
    }
    Ok((Candidate { id, backend }, found.record.way))
}

/// Move the connection's phase by a client's segment. The new word of a linked flow; other slots are moved already.
#[inline(always)]
fn advance<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    found: &Found<A>,
    backend: &Backend<A>,
    tables: &T,
) -> Owner {
    if found.owner.phase() == Phase::Linked {
        return advance_port(packet, found, tables);
    }
    let later = tables.now().since(Ticks::from_raw(found.record.word)).at_least(EMBRYO_GRACE);
    let mut owner = found.owner;
    for _ in 0..SWAPS {
        let after = if mode::is_one_sided(backend.mode) {
            owner.after_alone(packet.signs(None), !packet.begins() || packet.is_udp(), later)
        } else {
            tables.after(owner, Side::Client, packet.signs(Some(found.record.word)))
        };
        if after == owner {
            break;
        }
        if tables.swap_flow(found.slot, owner, after) {
            settle(owner, after, found.record.backend, tables);
            break;
        }
        match tables.flow_owner(found.slot) {
            Some(now) if now.is_same_hold(owner) => owner = now,
            _ => break,
        }
    }
    found.owner
}

/// The same where a port cell keeps the phase.
#[inline(always)]
fn advance_port<A: Family, T: Tables<A>>(packet: &Packet<A>, found: &Found<A>, tables: &T) -> Owner {
    let index = found.record.way.cell();
    let mut proven = false;
    // Another CPU may move the phase at the same time, by the server's answer; a sign that is lost is never sent again.
    for _ in 0..SWAPS {
        let Some(cell) = tables.cell(index) else { break };
        if !cell.belongs_to(packet.source(), packet.source_port()) {
            break;
        }
        let after = tables.after(cell.owner, Side::Client, packet.signs(Some(cell.word)));
        if after == cell.owner || tables.swap_owner(index, cell.owner, after) {
            proven = after.phase() == Phase::Established;
            settle(cell.owner, after, cell.backend, tables);
            if cell.owner.is_live() && !after.is_live() {
                tables.touch_cell(index, tables.now());
            }
            break;
        }
    }
    found.owner.link_with(proven, packet.ends())
}

/// A client's packet of a connection that is cut: the client is told by a RST.
#[inline(always)]
fn cut<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    key: &FlowKey<A>,
    found: &Found<A>,
    tables: &T,
) -> Refusal {
    let seat = found.seat();
    if let Some(owner) = seat.owner(tables)
        && owner.has(key.client.tag(), key.client_port)
        && owner.is_held()
    {
        let after = owner.told(Side::Client);
        if after != owner && seat.swap(owner, after, tables) {
            settle(owner, after, found.record.backend, tables);
            seat.touch(tables.now(), tables);
        }
    }
    if packet.flags() & flag::RST != 0 {
        return Refusal::Drop(Reason::Cut);
    }
    let client = (key.client, key.client_port);
    tell_cut(packet, client, (key.service, key.service_port), found.record.backend, 0, tables);
    Refusal::Reset(Reason::Cut)
}

/// The route to a backend; `None`: its source address is not known.
#[inline(always)]
pub fn route<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    candidate: &Candidate<A>,
    way: flow::Way,
    tables: &T,
) -> Option<Route<A>> {
    let Candidate { id, backend } = *candidate;
    let (source, source_port) = match backend.mode {
        mode::SNAT => (tables.source(way.source())?, way.source_port()),
        mode::IPIP => (tables.source(backend.source)?, packet.source_port()),
        _ => (packet.source(), packet.source_port()),
    };
    let keeps = backend.port == Be16::default();
    Some(Route {
        service: backend.service,
        backend: id,
        way: Way::In,
        mode: backend.mode,
        source,
        source_port,
        destination: backend.address,
        destination_port: if keeps { packet.destination_port() } else { backend.port },
        hop: backend.hop,
        mtu: if backend.mode == mode::IPIP { tunnel::mtu(id, &backend, tables) } else { backend.mtu },
    })
}
