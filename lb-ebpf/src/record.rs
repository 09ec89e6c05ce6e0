//! Stage 6, for a new connection: a slot of its own in the flow table.

use lb_common::{
    Reason,
    abi::{Hop, mode},
    cell::{Phase, Rights},
    event::kind,
    flow::{FlowKey, Record, Way},
};

use crate::{
    Complaint, Parcel, Tables,
    connect::nobody,
    family::Family,
    flows::{NotAdded, insert, is_pressed},
    lookup,
    parse::{Packet, source_mac},
    request::refused,
    seat::SWAPS,
    select::by_ring,
    step::Step,
    tell::tell,
};

/// Record which way a connection goes, and send its packet there.
///
/// One that was met midway counts as answered: data of its server proves it.
///
/// A connection in `dnat` (whose answers find their client by its flow) or `snat` must be recorded. Where a flood leaves no
/// room but that of embryos in their first second, one of those yields: whose round trip is shorter than the table lasts
/// at the flood's rate is served; but no handshake yields to a datagram so soon. In `dnat` the ring names the backend then:
/// it names the same one again, should this record be displaced in its turn before the client has spoken.
#[inline(always)]
pub fn keep<A: Family, T: Tables<A>>(packet: &Packet<A>, handed: &Parcel, tables: &T) -> Step {
    let Some(chosen) = tables.backend(handed.backend) else {
        return Step::drop(handed.service, Reason::BackendGone);
    };
    let key = packet.key(handed.service);
    let by = Rights::of(packet.is_udp());
    let pressed = !mode::is_one_sided(chosen.mode) && is_pressed(&key, by, tables);
    let moved = if pressed && chosen.mode == mode::DNAT {
        named_by_ring(packet, &key, handed, tables)
    } else {
        handed.backend
    };
    let Some(backend) = tables.backend(moved) else {
        return Step::drop(handed.service, Reason::BackendGone);
    };
    let of = &Parcel { backend: moved, ..*handed };
    let now = tables.now().raw();
    let linked = backend.mode == mode::SNAT;
    let hop = Hop { mac: source_mac(&packet.macs), interface: tables.config().interface };
    let record = Record {
        way: if linked { of.way } else { Way::hop(hop) },
        seen: now,
        word: if mode::is_one_sided(backend.mode) { now } else { tables.micros() },
        backend: of.backend,
        service: of.service,
        service_port: key.service_port,
        vlan: packet.vlan,
        client: key.client.rest(),
    };
    let phase = match (linked, of.begins) {
        (true, _) => Phase::Linked,
        (false, true) => Phase::Embryonic,
        (false, false) => Phase::Answered,
    };
    match insert(&key, &record, phase, by.pressed(pressed), tables) {
        Ok(()) => Step::send(of.service, of.backend, of.way),
        Err(failed) => {
            if linked {
                return give_back(packet, &key, of, failed, tables);
            }
            tables.close(of.backend);
            if backend.mode == mode::DNAT {
                refused_for_room(packet, &key, of, failed, tables)
            } else {
                unrecorded(packet, &key, of, tables)
            }
        }
    }
}

/// An `snat` connection cannot do without its flow: its port rests again, from which nothing was sent.
#[inline(always)]
fn give_back<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    key: &FlowKey<A>,
    of: &Parcel,
    failed: NotAdded,
    tables: &T,
) -> Step {
    let cell = of.way.cell();
    for _ in 0..SWAPS {
        let Some((owner, _)) = tables.holder(cell) else { break };
        // What its server has said meanwhile, to whoever had the port before, may have ended it: then it is closed.
        if !owner.is_live() || !owner.has(key.client.tag(), key.client_port) {
            break;
        }
        if tables.swap_owner(cell, owner, owner.with_phase(Phase::Resting)) {
            tables.close(of.backend);
            break;
        }
    }
    refused_for_room(packet, key, of, failed, tables)
}

/// The table is full of connections that nobody may displace.
#[inline(always)]
fn refused_for_room<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    key: &FlowKey<A>,
    of: &Parcel,
    failed: NotAdded,
    tables: &T,
) -> Step {
    if failed == NotAdded::Exists {
        return Step::drop(of.service, Reason::PortBusy);
    }
    let reason = Reason::FlowTableFull;
    tell(kind::PRESSURE, key, of.backend, reason as u32, tables);
    if packet.is_udp() {
        Step::explain(of.service, reason, Complaint::PORT_UNREACHABLE)
    } else {
        Step::reset(of.service, reason)
    }
}

/// The backend that the ring names, with the accounts moved to it; the one that was chosen, if it names none.
#[inline(always)]
fn named_by_ring<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    key: &FlowKey<A>,
    of: &Parcel,
    tables: &T,
) -> u16 {
    tell(kind::PRESSURE, key, of.backend, Reason::NotRecorded as u32, tables);
    let to = lookup::service(packet.destination(), packet.destination_port(), packet.protocol, tables);
    let Some(service) = to else { return of.backend };
    match by_ring(&service, key, of.begins, tables) {
        Some(named) if named.id != of.backend => {
            tables.close(of.backend);
            tables.open(named.id);
            named.id
        }
        _ => of.backend,
    }
}

/// Where answers go past, a packet goes where its slot's former owner is, or where the ring says.
#[inline(always)]
fn unrecorded<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    key: &FlowKey<A>,
    of: &Parcel,
    tables: &T,
) -> Step {
    let reason = Reason::NotRecorded;
    tell(kind::PRESSURE, key, of.backend, reason as u32, tables);
    tables.count(of.service, reason);
    if of.otherwise != 0 {
        return Step::send(of.service, of.otherwise, Way::default());
    }
    let to = lookup::service(packet.destination(), packet.destination_port(), packet.protocol, tables);
    let Some(service) = to else { return Step::drop(of.service, Reason::BackendGone) };
    match by_ring(&service, key, of.begins, tables) {
        Some(candidate) => Step::send(of.service, candidate.id, Way::default()),
        None => refused(packet, &service, nobody::<A, T>(&service, tables)),
    }
}
