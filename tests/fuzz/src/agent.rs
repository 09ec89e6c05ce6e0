//! The agent's half of the protocol: expiry, removal and new weights, by the same swaps that the real sweep makes.

use std::collections::HashMap;

use lb_common::{
    TIME_WAIT, Ticks,
    abi::{Backend, UDP, backend_state, server_account, service_account},
    cell::{Owner, Phase},
    flow::FlowKey,
};
use lb_ebpf::{Tables, World as _, flows};

use crate::{
    packets::Numbered,
    site::{plan_of, publish_ring},
    world::{Has, World},
};

/// Silence after which a handshake is given up.
pub const EMBRYONIC: Ticks = Ticks::from_millis(10_000);

/// Silence after which a connection is cut.
pub const ESTABLISHED: Ticks = Ticks::from_millis(100_000);

/// A linked flow whose cell is not its client's goes when it is met so a second time.
#[derive(Debug, Default)]
pub struct Agent {
    doubtful: HashMap<u32, Owner>,
}

impl Agent {
    /// Look at every cell and every slot of one family.
    pub fn sweep<A: Numbered>(&mut self, world: &World)
    where
        World: Has<A>,
    {
        for index in 0..world.half().cells.len() as u32 {
            look_at_cell::<A>(world, index);
        }
        let before = std::mem::take(&mut self.doubtful);
        for slot in 0..world.half().slots() {
            let Some(owner) = Tables::<A>::flow_owner(world, slot) else { continue };
            match owner.phase() {
                Phase::Free | Phase::Busy | Phase::Resting => {}
                Phase::Linked => {
                    if has_its_cell::<A>(world, slot, owner) {
                        continue;
                    }
                    if before.get(&slot) == Some(&owner) {
                        flows::free::<A, _>(slot, owner, world);
                    } else {
                        self.doubtful.insert(slot, owner);
                    }
                }
                _ => look_at_flow::<A>(world, slot, owner),
            }
        }
    }
}

/// Give a backend another weight.
pub fn weigh<A: Numbered>(world: &World, pair: u16, weight: u32)
where
    World: Has<A>,
{
    let publishing = world.publishing.lock();
    if let Some(backend) = world.half().backends.get(&pair) {
        world.half().backends.put(pair, Backend { weight, ..backend });
    }
    drop(publishing);
}

/// Give a backend another state, and its service a ring of those that take new connections.
pub fn order<A: Numbered>(world: &World, pair: u16, state: u8)
where
    World: Has<A>,
{
    let publishing = world.publishing.lock();
    let backends = &Has::<A>::half(world).backends;
    let Some(backend) = backends.get(&pair) else { return };
    backends.put(pair, Backend { state, ..backend });
    let plan = plan_of(backend.service);
    let takes = |id: &u16| backends.get(id).is_some_and(|backend| backend.state == backend_state::ACTIVE);
    let active: Vec<u16> = plan.backends.iter().map(|(id, _)| *id).filter(takes).collect();
    publish_ring(world, plan, &active, false);
    drop(publishing);
}

fn close(world: &World, pair: u16, backend: Option<(u16, u16)>) {
    world.close_by_agent(u32::from(pair));
    if let Some((server, service)) = backend {
        world.close_by_agent(server_account(server));
        world.close_by_agent(service_account(service));
    }
}

/// What becomes of a connection.
#[derive(PartialEq, Eq)]
enum Judgement {
    Keep,
    Cut,
    End,
}

fn judge<A: Numbered>(backend: Option<Backend<A>>, owner: Owner, silence: Ticks) -> Judgement {
    let Some(backend) = backend.filter(|backend| backend.state != backend_state::ABSENT) else {
        return Judgement::End;
    };
    let established = owner.phase() == Phase::Established && backend.protocol != UDP;
    let limit = match owner.phase() {
        Phase::Established => ESTABLISHED,
        Phase::Closed => TIME_WAIT,
        _ => EMBRYONIC,
    };
    // Who is cut was told; the real agent waits for both ends a while.
    if owner.is_cut() || backend.state == backend_state::CUT || silence.at_least(limit) {
        return if established && !owner.is_cut() { Judgement::Cut } else { Judgement::End };
    }
    Judgement::Keep
}

fn look_at_cell<A: Numbered>(world: &World, index: u32)
where
    World: Has<A>,
{
    let Some(cell) = Tables::<A>::cell(world, index) else { return };
    if !cell.owner.is_held() {
        return;
    }
    let backend = world.half().backends.get(&cell.backend);
    let flow = backend.and_then(|backend: Backend<A>| {
        let key = FlowKey {
            client: cell.client(),
            client_port: cell.owner.client_port(),
            service_port: cell.service_port,
            service: backend.service,
        };
        flows::find(&key, world)
            .filter(|found| found.owner.phase() == Phase::Linked && found.record.way.cell() == index)
    });
    let now = world.now();
    let client = flow.map_or(now.since(cell.seen()), |found| now.since(found.record.seen()));
    let server = now.since(cell.seen());
    let silence = if server.at_least(client) { client } else { server };
    let of = backend.map(|backend: Backend<A>| (backend.server, backend.service));
    let after = match judge(backend, cell.owner, silence) {
        Judgement::Keep => return,
        Judgement::Cut => cell.owner.cut(),
        Judgement::End => cell.owner.with_phase(Phase::Busy),
    };
    if !Tables::<A>::swap_owner(world, index, cell.owner, after) {
        return;
    }
    if cell.owner.is_live() {
        close(world, cell.backend, of);
        Tables::<A>::touch_cell(world, index, now);
    }
    if after.phase() != Phase::Busy {
        if let Some(found) = flow {
            Tables::<A>::swap_flow(world, found.slot, found.owner, found.owner.cut());
        }
        return;
    }
    if let Some(found) = flow {
        flows::free::<A, _>(found.slot, found.owner, world);
    }
    Tables::<A>::swap_owner(world, index, after, after.with_phase(Phase::Resting));
}

fn look_at_flow<A: Numbered>(world: &World, slot: u32, owner: Owner)
where
    World: Has<A>,
{
    let Some(record) = Tables::<A>::flow_record(world, slot) else { return };
    let backend = world.half().backends.get(&record.backend);
    let of = backend.map(|backend: Backend<A>| (backend.server, backend.service));
    let after = match judge(backend, owner, world.now().since(record.seen())) {
        Judgement::Keep => return,
        Judgement::Cut => owner.cut(),
        Judgement::End => owner.with_phase(Phase::Free),
    };
    if Tables::<A>::swap_flow(world, slot, owner, after) && owner.is_live() {
        close(world, record.backend, of);
    }
}

fn has_its_cell<A: Numbered>(world: &World, slot: u32, owner: Owner) -> bool
where
    World: Has<A>,
{
    let Some(record) = Tables::<A>::flow_record(world, slot) else { return false };
    let Some(cell) = Tables::<A>::cell(world, record.way.cell()) else { return false };
    cell.owner.phase() == Phase::Busy
        || cell.owner.is_held()
            && cell.owner.has(owner.tag(), owner.client_port())
            && cell.backend == record.backend
}
