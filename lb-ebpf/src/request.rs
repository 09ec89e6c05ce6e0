//! A client's packet to a service: follow its flow, or begin one.

use lb_common::{
    Reason,
    abi::{Backend, Flow, FlowKey, Hop, Service, backend_state, mark, no_backend},
    cell::{Phase, Side},
};

use crate::{
    Frame, Found, Tables, Verdict,
    claim::claim,
    parse::{Packet, flag},
    reset,
    rewrite::{Rewrite, rewrite},
    select::select,
    verdict::Way,
};

/// Send a client's packet on to its backend.
#[inline(always)]
pub fn to_backend<F: Frame, T: Tables>(frame: &mut F, packet: &Packet, service: &Service, tables: &T) -> Verdict {
    let key = FlowKey {
        client: packet.source(),
        client_port: packet.source_port(),
        service_port: packet.destination_port(),
        service: service.id,
        pad: 0,
    };
    match tables.flow(&key) {
        Some(found) if packet.is_syn() => again(frame, packet, service, &key, &found, tables),
        Some(found) => established(frame, packet, service, &found, tables),
        None if packet.is_syn() => begin(frame, packet, service, &key, tables),
        None if packet.flags() & flag::RST != 0 => Verdict::Drop(service.id, Reason::RstWithoutFlow),
        None => reset::answer(frame, packet, service.id, Reason::NoFlow, tables),
    }
}

/// A packet of a known flow.
#[inline(always)]
fn established<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    service: &Service,
    found: &Found<T::Entry>,
    tables: &T,
) -> Verdict {
    let backend = match tables.backend(found.flow.backend) {
        Some(backend) if backend.state != backend_state::ABSENT => backend,
        _ => return reset::answer(frame, packet, service.id, Reason::BackendGone, tables),
    };
    let mut marks = found.flow.marks;
    // The port cell, another cache line, is looked at only where the connection's phase may change.
    if marks != mark::PROVEN || packet.flags() & (flag::FIN | flag::RST) != 0 {
        marks = follow(packet, found, tables);
    }
    let now = tables.now();
    if now != found.flow.seen() || marks != found.flow.marks {
        tables.touch_flow(found.entry, now, marks);
    }
    send(frame, packet, service, &found.flow, &backend, tables)
}

/// Move the connection's phase by a client's segment; the flow's new marks.
#[inline(always)]
fn follow<T: Tables>(packet: &Packet, found: &Found<T::Entry>, tables: &T) -> u16 {
    let mut marks = found.flow.marks;
    let Some(cell) = tables.cell(found.flow.cell) else { return marks };
    if !cell.owner.belongs_to(packet.source(), packet.source_port()) {
        return marks;
    }
    let signs = packet.signs(Some(cell.server_isn));
    let after = cell.owner.after(Side::Client, signs);
    if after != cell.owner && tables.swap_owner(found.flow.cell, cell.owner, after) {
        settle(cell.owner.is_live(), after.is_live(), cell.backend, tables);
        if !after.is_live() {
            tables.touch_cell(found.flow.cell, tables.now());
        }
    }
    if after.phase() == Phase::Established {
        marks |= mark::PROVEN;
    }
    if signs.fin || signs.rst {
        marks |= mark::CLOSING;
    }
    marks
}

/// Keep the account of a connection that has changed between live and not: only for who won the swap.
#[inline(always)]
pub fn settle<T: Tables>(was_live: bool, is_live: bool, backend: u32, tables: &T) {
    if was_live && !is_live {
        tables.close_account(backend);
    } else if !was_live && is_live {
        tables.open_account(backend);
    }
}

/// A SYN on the tuple of a flow that is still recorded: a retransmission follows it; otherwise it is judged afresh.
#[inline(always)]
fn again<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    service: &Service,
    key: &FlowKey,
    found: &Found<T::Entry>,
    tables: &T,
) -> Verdict {
    let cell = tables.cell(found.flow.cell);
    let held = cell.filter(|cell| cell.owner.belongs_to(key.client, key.client_port));
    let backend = tables.backend(found.flow.backend);
    if let Some(cell) = held {
        if let Some(backend) = backend.filter(|backend| backend.state == backend_state::ACTIVE) {
            if cell.owner.is_live() {
                tables.touch_flow(found.entry, tables.now(), found.flow.marks);
                return send(frame, packet, service, &found.flow, &backend, tables);
            }
        }
        if cell.owner.phase() != Phase::Resting {
            let busy = cell.owner.with_phase(Phase::Busy);
            if cell.owner.phase() == Phase::Busy || !tables.swap_owner(found.flow.cell, cell.owner, busy) {
                return Verdict::Drop(service.id, Reason::PortBusy);
            }
            settle(cell.owner.is_live(), false, cell.backend, tables);
            tables.touch_cell(found.flow.cell, tables.now());
            tables.remove_flow(key);
            let _ = tables.swap_owner(found.flow.cell, busy, busy.with_phase(Phase::Resting));
        }
    } else {
        tables.remove_flow(key);
    }
    tables.count(service.id, Reason::SynOnOldFlow);
    begin(frame, packet, service, key, tables)
}

/// A SYN without a flow.
#[inline(always)]
fn begin<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    service: &Service,
    key: &FlowKey,
    tables: &T,
) -> Verdict {
    let Some(candidate) = select(service, tables) else { return nobody(frame, packet, service, tables) };
    let hop = Hop { mac: packet.ethernet.src_addr, interface: tables.config().interface };
    match claim(key, hop, &candidate, tables) {
        Ok(flow) => send(frame, packet, service, &flow, &candidate.backend, tables),
        Err(Reason::PortBusy) => Verdict::Drop(service.id, Reason::PortBusy),
        Err(reason) => reset::answer(frame, packet, service.id, reason, tables),
    }
}

/// Nobody can serve: as the service's policy says.
#[inline(always)]
fn nobody<F: Frame, T: Tables>(frame: &mut F, packet: &Packet, service: &Service, tables: &T) -> Verdict {
    let empty = tables.now().raw().wrapping_sub(service.empty_since);
    match service.no_backend {
        no_backend::DROP => Verdict::Drop(service.id, Reason::NoBackendDrop),
        no_backend::HOLD if empty < service.hold => Verdict::Drop(service.id, Reason::NoBackendHold),
        _ => reset::answer(frame, packet, service.id, Reason::NoBackendReset, tables),
    }
}

#[inline(always)]
fn send<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    service: &Service,
    flow: &Flow,
    backend: &Backend,
    tables: &T,
) -> Verdict {
    let change = Rewrite {
        source: flow.source,
        source_port: flow.source_port,
        destination: backend.address,
        destination_port: backend.port,
        hop: backend.hop,
    };
    match rewrite(frame, packet, &change, service.id, tables) {
        Ok(()) => Verdict::Forward {
            backend: flow.backend,
            interface: backend.hop.interface,
            bytes: packet.ip_length(),
            way: Way::In,
        },
        Err(reason) => Verdict::Drop(service.id, reason),
    }
}
