//! What must hold of the tables while nobody is at work in them.

use std::collections::{HashMap, HashSet};

use lb_common::{
    abi::{server_account, service_account},
    cell::{Owner, Phase},
    flow::{FlowKey, SLOTS},
};
use lb_ebpf::{Tables, World as _, flows::bucket_mask};

use crate::{
    packets::Numbered,
    world::{Has, IDS, World},
};

/// Connections alive, by row of the accounts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Alive(HashMap<u32, u64>);

impl Alive {
    fn add<A: Numbered>(&mut self, world: &World, pair: u16)
    where
        World: Has<A>,
    {
        let mut count = |row: u32| *self.0.entry(row).or_default() += 1;
        count(u32::from(pair));
        if let Some(backend) = Tables::<A>::backend(world, pair) {
            if backend.server != 0 {
                count(server_account(backend.server));
            }
            count(service_account(backend.service));
        }
    }
}

/// Look at all tables of both families. `strict`: a flow always has its own cell, too.
pub fn inspect(world: &World, strict: bool) {
    let mut alive = Alive::default();
    family::<lb_common::Be32>(world, strict, &mut alive);
    family::<lb_common::Be128>(world, strict, &mut alive);
    for id in 0..IDS {
        for row in [id, server_account(id as u16), service_account(id as u16)] {
            let account = world.account(row).expect("the world has a row for each of its ids");
            let live = account.opened.wrapping_sub(account.closed).wrapping_sub(account.closed_by_agent);
            let there = alive.0.get(&row).copied().unwrap_or(0);
            assert_eq!(live, there, "row {row}: {account:?} says {}, alive are {there}", live as i64);
        }
    }
}

fn family<A: Numbered>(world: &World, strict: bool, alive: &mut Alive)
where
    World: Has<A>,
{
    let mask = bucket_mask::<A>(&world.config);
    let mut keys = HashSet::new();
    let mut links = HashMap::new();
    for slot in 0..Has::<A>::half(world).slots() {
        let (Some(owner), Some(record)) =
            (Tables::<A>::flow_owner(world, slot), Tables::<A>::flow_record(world, slot))
        else {
            continue;
        };
        assert_ne!(owner.phase(), Phase::Busy, "slot {slot} stays busy");
        if !owner.is_held() {
            continue;
        }
        let key = FlowKey::of(owner, &record);
        assert!(keys.insert(key), "a flow stands twice in the table: {key:?}");
        let bucket = slot / SLOTS as u32;
        assert!(key.buckets(world.config.seed, mask).contains(&bucket), "{key:?} stands in a wrong bucket");
        if owner.phase() == Phase::Linked {
            links.entry(record.way.cell()).or_insert_with(Vec::new).push((key, owner, record.backend));
        } else if owner.is_live() {
            alive.add::<A>(world, record.backend);
        }
    }
    for index in 0..Has::<A>::half(world).cells.len() as u32 {
        let Some(cell) = Tables::<A>::cell(world, index) else { continue };
        assert_ne!(cell.owner.phase(), Phase::Busy, "cell {index} stays busy");
        if cell.owner.is_live() {
            alive.add::<A>(world, cell.backend);
        }
        let linked = links.remove(&index).unwrap_or_default();
        let own = |(key, owner, backend): &(FlowKey<A>, Owner, u16)| {
            cell.owner.is_held()
                && cell.belongs_to(key.client, key.client_port)
                && cell.service_port == key.service_port
                && cell.backend == *backend
                && owner.phase() == Phase::Linked
        };
        let owned = linked.iter().filter(|link| own(link)).count();
        assert!(owned <= 1, "cell {index} is led to by {linked:?}");
        if strict {
            assert_eq!(owned, linked.len(), "a flow without its cell {index}, {cell:?}: {linked:?}");
            assert!(owned == 1 || !cell.owner.is_live(), "nothing leads to cell {index}: {cell:?}");
        }
        for (key, owner, _) in linked.iter().filter(|link| !own(link)) {
            // Until the agent has swept it: it must not be taken for proven, or its packets would leave by that port.
            assert!(
                !owner.is_proven_link() || !cell.owner.is_live(),
                "{key:?} leads to cell {index}, {cell:?}"
            );
        }
    }
    assert!(links.is_empty(), "flows lead beyond the cells: {links:?}");
}
