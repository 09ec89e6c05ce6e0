//! The rules that hold at every moment at which no packet is on its way (see `lb_common::cell`, `lb_common::flow`).

use lb_common::{Address, cell::Phase};

use super::{
    fact::rows_of,
    world::{Store, buckets, rows, slots},
};

/// Phases of the port cells and of the flows without one that are not free, in order.
pub fn phases_of<A: Address>(world: &impl Store<A>) -> Vec<Phase> {
    let mut phases: Vec<Phase> =
        (0..world.cell_count()).map(|index| world.cell_at(index).owner.phase()).collect();
    phases.extend(slots(world).iter().map(|slot| slot.owner.phase()));
    phases.retain(|phase| !matches!(phase, Phase::Free | Phase::Linked));
    phases.sort_by_key(|phase| *phase as u8);
    phases
}

/// Check that cells and flows fit each other; by how much each account is above its live connections.
pub fn slack<A: Address>(world: &impl Store<A>) -> Result<Vec<i64>, String> {
    let config = world.config();
    let slots = slots(world);
    for (number, slot) in slots.iter().enumerate() {
        let key = slot.key();
        if !key.buckets(config.seed, buckets::<A>(&config) - 1).contains(&slot.bucket) {
            return Err(format!("{key:?} stands in a bucket that is not its own"));
        }
        if slots[..number].iter().any(|other| other.key() == key) {
            return Err(format!("{key:?} stands in the table twice"));
        }
        if slot.owner.phase() != Phase::Linked {
            continue;
        }
        let way = slot.record.way;
        let cell = world.cell_at(way.cell());
        if !cell.belongs_to(key.client, key.client_port) || cell.service_port != key.service_port {
            return Err(format!("{key:?} points at a cell of somebody else: {cell:?}"));
        }
        let backend = world.backend_at(slot.record.backend);
        let block = u32::from(way.source().wrapping_sub(backend.source)) * config.ports.count();
        let place = config.ports.index(way.source_port().host());
        if place.map(|place| backend.cells + block + place) != Some(way.cell())
            || cell.backend != slot.record.backend
        {
            return Err(format!("port, backend and cell of {:?} do not fit: {cell:?}", slot.record));
        }
    }
    let mut live = Vec::new();
    for index in 0..world.cell_count() {
        let cell = world.cell_at(index);
        let linked = slots.iter().filter(|slot| slot.owner.phase() == Phase::Linked);
        let leads = linked.filter(|slot| slot.record.way.cell() == index).count();
        if leads != usize::from(cell.owner.is_held()) {
            return Err(format!("cell {index} and the flow table disagree: {cell:?}"));
        }
        live.extend(cell.owner.is_live().then_some(cell.backend));
    }
    live.extend(slots.iter().filter(|slot| slot.owner.is_live()).map(|slot| slot.record.backend));
    let live: Vec<u32> = live.into_iter().flat_map(rows_of).collect();
    let of_row = |row: u32| {
        let alive = live.iter().filter(|one| **one == row).count();
        let account = world.account_at(row);
        let ended = account.closed.wrapping_add(account.closed_by_agent);
        account.opened.wrapping_sub(ended) as i64 - alive as i64
    };
    Ok(rows().into_iter().map(of_row).collect())
}
