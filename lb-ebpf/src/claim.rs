//! Stage 3, for a new connection: a source port of its own, and an entry in the flow table.

use lb_common::{
    Be16, Reason, Ticks,
    abi::{Flow, FlowKey, Hop},
    cell::{Owner, Phase, PortCell, Worth},
};

use crate::{
    Tables,
    select::Candidate,
    tables::{Block, Inserted},
};

/// Cells that are looked at before the ports count as exhausted: with nine of ten held for long, one search in 800
/// misses a free one.
const PROBES: u32 = 64;

/// Tries when other CPUs win the same cell.
const TRIES: u32 = 3;

/// Claim a source port towards `candidate` for the client of `key`, and record the flow.
#[inline(always)]
pub fn claim<T: Tables>(key: &FlowKey, hop: Hop, candidate: &Candidate, tables: &T) -> Result<Flow, Reason> {
    let now = tables.now();
    for _ in 0..TRIES {
        let place = find(key, candidate, now, tables).ok_or(Reason::PortsExhausted)?;
        let index = candidate.backend.cells.wrapping_add(place);
        let Some(former) = tables.cell(index) else { continue };
        // Between the two looks the cell may have been taken.
        let worth = Worth::of(former.owner, now.since(former.seen()));
        let busy = Owner::next(former.owner, key.client, key.client_port, Phase::Busy);
        if worth == Worth::NONE || !tables.swap_owner(index, former.owner, busy) {
            continue;
        }
        tables.open_account(candidate.id);
        displace(index, &former, worth, key.service, tables);
        return occupy(index, place, busy, key, hop, candidate, tables);
    }
    Err(Reason::PortBusy)
}

/// Write the body of a cell that is ours and busy, and the flow entry that points at it.
#[inline(always)]
fn occupy<T: Tables>(
    index: u32,
    place: u32,
    busy: Owner,
    key: &FlowKey,
    hop: Hop,
    candidate: &Candidate,
    tables: &T,
) -> Result<Flow, Reason> {
    let now = tables.now();
    let owner = busy.with_phase(Phase::Embryonic);
    let body = PortCell {
        owner,
        hop,
        backend: candidate.id,
        seen: now.raw(),
        server_isn: 0,
        service_port: key.service_port,
        pad: 0,
    };
    tables.fill_cell(index, busy, &body);
    let flow = Flow {
        backend: candidate.id,
        cell: index,
        source: candidate.backend.source,
        source_port: Be16::from_host(tables.config().ports.port(place)),
        marks: 0,
        seen: now.raw(),
        client: key.client,
        client_port: key.client_port,
        pad: [0; 3],
    };
    match tables.insert_flow(key, &flow) {
        Inserted::Done => Ok(flow),
        failed => {
            release(index, owner, candidate.id, tables);
            Err(if failed == Inserted::Full { Reason::FlowTableFull } else { Reason::PortBusy })
        }
    }
}

/// End a connection whose flow entry is gone or never was: its port rests, its account is closed.
#[inline(always)]
fn release<T: Tables>(index: u32, owner: Owner, backend: u32, tables: &T) {
    if tables.swap_owner(index, owner, owner.with_phase(Phase::Resting)) {
        tables.close_account(backend);
    }
}

/// Settle what the former holder of a port leaves behind: its account, if it still counted, and its flow entry.
#[inline(always)]
fn displace<T: Tables>(index: u32, former: &PortCell, worth: Worth, service: u32, tables: &T) {
    if former.owner.is_live() {
        tables.close_account(former.backend);
        tables.count(service, Reason::EmbryoDisplaced);
    }
    if worth.is_early() {
        tables.count(service, Reason::PortReusedEarly);
    }
    if (former.owner.is_live() || former.owner.phase() == Phase::Closed)
        && let Some(key) = key_of(former, tables)
        && tables.flow(&key).is_some_and(|found| found.flow.cell == index)
    {
        tables.remove_flow(&key);
    }
}

/// The flow key of a cell's holder.
#[inline(always)]
pub fn key_of<T: Tables>(cell: &PortCell, tables: &T) -> Option<FlowKey> {
    Some(FlowKey {
        client: cell.owner.client(),
        client_port: cell.owner.client_port(),
        service_port: cell.service_port,
        service: tables.backend(cell.backend)?.service,
        pad: 0,
    })
}

/// The place of the most worthy of the cells from the client's own place in the block on.
#[inline(always)]
fn find<T: Tables>(key: &FlowKey, candidate: &Candidate, now: Ticks, tables: &T) -> Option<u32> {
    let config = tables.config();
    let count = config.ports.count();
    let hash = mix(key.client.wire(), key.client_port.wire(), config.seed);
    let start = ((u64::from(hash) * u64::from(count)) >> 32) as u32;
    tables.search(Block { cells: candidate.backend.cells, count, start }, now)
}

/// What a cell is worth to a newcomer. In the kernel a function of its own, for the same reason as [`search`].
#[inline(always)]
pub fn worth<T: Tables>(index: u32, now: Ticks, tables: &T) -> Worth {
    tables.holder(index).map_or(Worth::NONE, |(owner, seen)| Worth::of(owner, now.since(seen)))
}

/// Look at [`PROBES`] cells of a block; the place of the most worthy one, if any can be had.
///
/// In the kernel this is a function of its own that takes and returns numbers (a global function to the verifier,
/// verified once): inlined, its rounds would be verified again for every way that leads here.
#[inline(always)]
pub fn search<T: Tables>(block: Block, now: Ticks, tables: &T) -> Option<u32> {
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

/// A keyed hash of a client's address and port: two rounds of multiply and fold.
#[inline(always)]
const fn mix(client: u32, port: u16, seed: u64) -> u32 {
    let mut x = ((client as u64) << 16 | port as u64) ^ seed;
    x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    (x >> 32) as u32
}
