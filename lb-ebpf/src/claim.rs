//! Stage 5, for a new `snat` connection: a source port of its own.

use lb_common::{
    Address, Be16, Reason, Ticks,
    abi::{Hop, UDP},
    cell::{Owner, Phase, PortCell, Worth},
    event::kind,
    flow::{FlowKey, Way, mix},
};

use crate::{
    Tables,
    family::Family,
    flows::unlink,
    parse::{Packet, source_mac},
    select::Candidate,
    step::Step,
    tables::Block,
    tell::tell,
};

/// Cells that are looked at before the ports count as exhausted: with nine of ten held for long, one search in 800
/// misses a free one.
const PROBES: u32 = 64;

/// Tries when other CPUs win the same cell.
const TRIES: u32 = 3;

/// What a new connection's client is known by.
#[derive(Clone, Copy)]
pub struct Newcomer<A> {
    /// Its flow's key.
    pub key: FlowKey<A>,
    /// The way back to it.
    pub hop: Hop,
    /// Its VLAN tag.
    pub vlan: u16,
}

/// Claim a source port towards the backend that was chosen; its accounts are open.
#[inline(always)]
pub fn take_port<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    service: u16,
    backend: u16,
    tables: &T,
) -> Result<Way, Step> {
    let key = packet.key(service);
    let hop = Hop { mac: source_mac(&packet.macs), interface: tables.config().interface };
    let claimed = match tables.backend(backend) {
        Some(found) => claim(
            &Newcomer { key, hop, vlan: packet.vlan },
            &Candidate { id: backend, backend: found },
            tables,
        ),
        None => Err(Reason::BackendGone),
    };
    claimed.map_err(|reason| {
        tables.close(backend);
        if reason == Reason::PortBusy {
            return Step::drop(service, reason);
        }
        tell(kind::PRESSURE, &key, backend, reason as u32, tables);
        if packet.is_udp() {
            Step::explain(service, reason, crate::Complaint::PORT_UNREACHABLE)
        } else {
            Step::reset(service, reason)
        }
    })
}

#[inline(always)]
fn claim<A: Address, T: Tables<A>>(
    new: &Newcomer<A>,
    candidate: &Candidate<A>,
    tables: &T,
) -> Result<Way, Reason> {
    let now = tables.now();
    let count = tables.config().ports.count();
    for _ in 0..TRIES {
        let (number, cells, place) =
            find(&new.key, candidate, count, now, tables).ok_or(Reason::PortsExhausted)?;
        let index = cells.wrapping_add(place);
        let Some(former) = tables.cell(index) else { continue };
        // Between the two looks the cell may have been taken.
        let worth = Worth::of(former.owner, now.since(former.seen()));
        let busy = Owner::next(former.owner, new.key.client, new.key.client_port, Phase::Busy)
            .of_datagrams(candidate.backend.protocol == UDP);
        if worth == Worth::NONE || !tables.swap_owner(index, former.owner, busy) {
            continue;
        }
        displace(index, &former, worth, new.key.service, tables);
        let port = Be16::from_host(tables.config().ports.port(place));
        let way = Way::port(index, candidate.backend.source.wrapping_add(number), port);
        occupy(index, busy, new, candidate.id, tables);
        return Ok(way);
    }
    Err(Reason::PortBusy)
}

/// Write the body of a cell that is ours and busy.
#[inline(always)]
fn occupy<A: Address, T: Tables<A>>(index: u32, busy: Owner, new: &Newcomer<A>, backend: u16, tables: &T) {
    let body = PortCell {
        owner: busy.with_phase(Phase::Embryonic),
        hop: new.hop,
        seen: tables.now().raw(),
        word: tables.micros(),
        backend,
        service_port: new.key.service_port,
        vlan: new.vlan,
        pad: 0,
        client: new.key.client.rest(),
    };
    tables.fill_cell(index, busy, &body);
}

/// Settle what the former holder of a port leaves behind: its account, if it still counted, and its flow.
#[inline(always)]
fn displace<A: Address, T: Tables<A>>(
    index: u32,
    former: &PortCell<A>,
    worth: Worth,
    service: u16,
    tables: &T,
) {
    if former.owner.is_live() {
        tables.close(former.backend);
        tables.count(service, Reason::EmbryoDisplaced);
    }
    if worth.is_early() {
        tables.count(service, Reason::PortReusedEarly);
    }
    if (former.owner.is_live() || former.owner.phase() == Phase::Closed)
        && let Some(key) = key_of(former, tables)
    {
        unlink(&key, index, tables);
    }
}

/// The flow key of a cell's holder.
#[inline(always)]
pub fn key_of<A: Address, T: Tables<A>>(cell: &PortCell<A>, tables: &T) -> Option<FlowKey<A>> {
    Some(FlowKey {
        client: cell.client(),
        client_port: cell.owner.client_port(),
        service_port: cell.service_port,
        service: tables.backend(cell.backend)?.service,
    })
}

/// The most worthy of the cells from the client's own place on, in the block of the source address that the client's
/// hash names: number of that source, first cell of the block, place.
#[inline(always)]
fn find<A: Address, T: Tables<A>>(
    key: &FlowKey<A>,
    candidate: &Candidate<A>,
    count: u32,
    now: Ticks,
    tables: &T,
) -> Option<(u16, u32, u32)> {
    let (low, high) = key.client.words();
    let client = low ^ high.rotate_left(23) ^ u64::from(key.client_port.wire()) << 40;
    let hash = mix(client ^ tables.config().seed);
    let start = ((hash & 0xffff_ffff) * u64::from(count)) >> 32;
    let number = (((hash >> 32) * u64::from(candidate.backend.sources)) >> 32) as u32;
    let cells = candidate.backend.cells.wrapping_add(number.wrapping_mul(count));
    let place = tables.search(Block { cells, count, start: start as u32 }, now)?;
    Some((number as u16, cells, place))
}

/// What a cell is worth to a newcomer. In the kernel a function of its own, see [`tables`](crate::tables).
#[inline(always)]
pub fn worth<A: Address, T: Tables<A>>(index: u32, now: Ticks, tables: &T) -> Worth {
    tables.holder(index).map_or(Worth::NONE, |(owner, seen)| Worth::of(owner, now.since(seen)))
}

/// Look at [`PROBES`] cells of a block; the place of the most worthy one, if any can be had.
#[inline(always)]
pub fn search<A: Address, T: Tables<A>>(block: Block, now: Ticks, tables: &T) -> Option<u32> {
    let mut place = block.start;
    let (mut best, mut best_worth) = (0, Worth::NONE);
    for _ in 0..PROBES {
        // Not `= 0`: the verifier of Linux 6.1 cannot follow what a number is good for through a call of a function, so
        // it compares all numbers. Known ones (0, 1, 2, …) that are kept as the best place make every round another
        // state, and a million instructions are not enough.
        if place >= block.count {
            place -= block.count;
        }
        let worth = tables.worth(block.cells.wrapping_add(place), now);
        if worth > best_worth {
            (best, best_worth) = (place, worth);
            if worth == Worth::FREE {
                break;
            }
        }
        place += 1;
    }
    if best_worth == Worth::NONE || best >= block.count { None } else { Some(best) }
}
