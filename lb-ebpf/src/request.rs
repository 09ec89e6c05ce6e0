//! A client's packet to a service: follow its flow, or begin one.

use lb_common::{
    Reason, Ticks,
    abi::{Backend, Flow, FlowKey, Hop, Service, backend_state, mark, no_backend},
    cell::{Phase, Side},
};

use crate::{
    Found, Tables,
    claim::claim,
    parse::{Packet, flag},
    rewrite::{Route, Step},
    select::select,
    verdict::Way,
};

/// Tries to move a phase while other CPUs do: a connection has one packet each way in flight at most times.
pub const SWAPS: u32 = 3;

/// Why a packet goes no further.
enum Refusal {
    Reset(Reason),
    Drop(Reason),
}

/// The way of a client's packet to its backend.
#[inline(always)]
pub fn to_backend<T: Tables>(packet: &Packet, service: &Service, tables: &T) -> Step {
    let key = FlowKey {
        client: packet.source(),
        client_port: packet.source_port(),
        service_port: packet.destination_port(),
        service: service.id,
        pad: 0,
    };
    let own = |found: &Found<T::Entry>| {
        found.flow.client == key.client && found.flow.client_port == key.client_port
    };
    let found = tables.flow(&key).filter(own);
    let onward = match found {
        found if packet.is_syn() => connect(packet, service, &key, found, tables),
        Some(found) => follow(packet, &found, tables),
        None if packet.flags() & flag::RST != 0 => Err(Refusal::Drop(Reason::RstWithoutFlow)),
        None => Err(Refusal::Reset(Reason::NoFlow)),
    };
    match onward {
        Ok((flow, backend)) => Step::Onward(route(service, &flow, &backend)),
        Err(Refusal::Reset(reason)) => Step::Reset(service.id, reason),
        Err(Refusal::Drop(reason)) => Step::Drop(service.id, reason),
    }
}

/// A packet of a known flow: it stays with its backend, whatever the weights do.
#[inline(always)]
fn follow<T: Tables>(
    packet: &Packet,
    found: &Found<T::Entry>,
    tables: &T,
) -> Result<(Flow, Backend), Refusal> {
    let flow = found.flow;
    let backend = match tables.backend(flow.backend) {
        Some(backend) if backend.state != backend_state::ABSENT => backend,
        _ => return Err(Refusal::Reset(Reason::BackendGone)),
    };
    // The port cell, another cache line, is looked at only where the connection's phase may change.
    let changes = flow.marks != mark::PROVEN || packet.flags() & (flag::FIN | flag::RST) != 0;
    let marks = if changes { advance(packet, &flow, tables) } else { flow.marks };
    let now = tables.now();
    if now != flow.seen() || marks != flow.marks {
        tables.touch_flow(found.entry, now, marks);
    }
    Ok((flow, backend))
}

/// Move the connection's phase by a client's segment; the flow's new marks.
#[inline(always)]
fn advance<T: Tables>(packet: &Packet, flow: &Flow, tables: &T) -> u16 {
    let mut marks = flow.marks;
    if packet.flags() & (flag::FIN | flag::RST) != 0 {
        marks |= mark::CLOSING;
    }
    // Another CPU may move the phase at the same time, by the server's answer; a sign that is lost is never sent again.
    for _ in 0..SWAPS {
        let Some(cell) = tables.cell(flow.cell) else { return marks };
        if !cell.owner.belongs_to(packet.source(), packet.source_port()) {
            return marks;
        }
        let after = cell.owner.after(Side::Client, packet.signs(Some(cell.server_isn)));
        if after == cell.owner || tables.swap_owner(flow.cell, cell.owner, after) {
            if after.phase() == Phase::Established {
                marks |= mark::PROVEN;
            }
            settle(cell.owner.is_live(), after.is_live(), cell.backend, tables);
            if cell.owner.is_live() && !after.is_live() {
                tables.touch_cell(flow.cell, tables.now());
            }
            return marks;
        }
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

/// A SYN: a retransmission follows its flow; any other begins one.
#[inline(always)]
fn connect<T: Tables>(
    packet: &Packet,
    service: &Service,
    key: &FlowKey,
    found: Option<Found<T::Entry>>,
    tables: &T,
) -> Result<(Flow, Backend), Refusal> {
    if let Some(found) = found {
        if let Some(backend) = judge_afresh(key, &found, tables)? {
            return Ok((found.flow, backend));
        }
        tables.count(service.id, Reason::SynOnOldFlow);
    }
    let Some(candidate) = select(service, tables) else { return Err(nobody(service, tables)) };
    let hop = Hop { mac: packet.source_mac(), interface: tables.config().interface };
    match claim(key, hop, &candidate, tables) {
        Ok(flow) => Ok((flow, candidate.backend)),
        Err(Reason::PortBusy) => Err(Refusal::Drop(Reason::PortBusy)),
        Err(reason) => Err(Refusal::Reset(reason)),
    }
}

/// What a SYN finds of an older connection on its tuple: `Some` backend to follow while that connection lives and its
/// backend takes new ones; otherwise the old one is ended here, and the SYN is not made to wait for it.
#[inline(always)]
fn judge_afresh<T: Tables>(
    key: &FlowKey,
    found: &Found<T::Entry>,
    tables: &T,
) -> Result<Option<Backend>, Refusal> {
    let index = found.flow.cell;
    let held = tables.cell(index).filter(|cell| cell.owner.belongs_to(key.client, key.client_port));
    let Some(cell) = held else {
        tables.remove_flow(key);
        return Ok(None);
    };
    let backend = tables.backend(found.flow.backend).filter(|backend| backend.state == backend_state::ACTIVE);
    if cell.owner.is_live() && backend.is_some() {
        tables.touch_flow(found.entry, tables.now(), found.flow.marks);
        return Ok(backend);
    }
    let busy = cell.owner.with_phase(Phase::Busy);
    if cell.owner.phase() == Phase::Busy || !tables.swap_owner(index, cell.owner, busy) {
        return Err(Refusal::Drop(Reason::PortBusy));
    }
    settle(cell.owner.is_live(), false, cell.backend, tables);
    if cell.owner.is_live() {
        tables.touch_cell(index, tables.now());
    }
    tables.remove_flow(key);
    // Nobody else moves a busy cell.
    let _ = tables.swap_owner(index, busy, busy.with_phase(Phase::Resting));
    Ok(None)
}

/// Nobody can serve: as the service's policy says.
#[inline(always)]
fn nobody<T: Tables>(service: &Service, tables: &T) -> Refusal {
    let empty = tables.now().since(Ticks::from_raw(service.empty_since));
    match service.no_backend {
        // The ring names somebody, so it is being replaced this moment: the client's next try meets the new one.
        _ if service.ring_length != 0 => Refusal::Drop(Reason::NoBackendHold),
        no_backend::DROP => Refusal::Drop(Reason::NoBackendDrop),
        no_backend::HOLD if empty.raw() < service.hold => Refusal::Drop(Reason::NoBackendHold),
        _ => Refusal::Reset(Reason::NoBackendReset),
    }
}

#[inline(always)]
fn route(service: &Service, flow: &Flow, backend: &Backend) -> Route {
    Route {
        service: service.id,
        backend: flow.backend,
        way: Way::In,
        source: flow.source,
        source_port: flow.source_port,
        destination: backend.address,
        destination_port: backend.port,
        hop: backend.hop,
    }
}
