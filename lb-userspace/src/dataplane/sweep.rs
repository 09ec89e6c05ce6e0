//! Expiry: connections that have been silent for too long, or whose backend is gone, are ended here.
//!
//! The port cells are read as memory, so looking at a million of them costs no system call; only what has run out is
//! looked up in the flow table, for the client may have spoken while the server was silent. A connection is ended by
//! making its cell `Busy`, removing its flow entry, and letting the port rest: the order that `lb_common::cell` asks
//! of everybody.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use lb_common::{
    TIME_WAIT, Ticks,
    abi::{Account, Backend, EndpointKey, FlowKey, ServiceKey, backend_state},
    cell::{Owner, Phase},
};

use super::{Dataplane, DataplaneError, desired::Timeouts, now};

/// How long one slice may take before others get their turn.
const SLICE: Duration = Duration::from_millis(2);

/// Cells between two looks at the clock.
const STRIDE: u32 = 1024;

/// A cell that is still changing hands after this long was left so by an agent that died.
const ABANDONED: Ticks = Ticks::from_millis(10_000);

/// Where a sweep over all cells in use stands.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Blocks (first cells) still to be looked at, and the place in the last of them.
    blocks: Vec<u32>,
    place: u32,
    /// Blocks that hold connections or remember them.
    held_blocks: BTreeSet<u32>,
    /// Cells held, and cells that count as live, by backend.
    held: BTreeMap<u32, u64>,
    live: BTreeMap<u32, u64>,
    suspects: BTreeMap<u32, Suspect>,
    /// Cells found changing hands, with the owner word and since when it stands.
    busy: HashMap<u32, (Owner, Ticks)>,
}

/// A backend whose account differs from the cells it holds; counts that move meanwhile prove nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspect {
    difference: i64,
    account: Account,
}

/// What one whole sweep has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Backends (ids) whose account, unmoved over two sweeps, differs from the cells they hold: a fault.
    pub faults: Vec<(u32, i64)>,
}

impl Dataplane {
    /// Sweep for at most two milliseconds; `Some` when all cells have been seen once more.
    pub fn sweep(&mut self) -> Result<Option<Swept>, DataplaneError> {
        let mut state = std::mem::take(&mut self.sweep);
        let done = self.slice(&mut state, Instant::now());
        let swept = done.and_then(|done| if done { self.conclude(&mut state).map(Some) } else { Ok(None) });
        self.sweep = state;
        swept
    }

    fn slice(&mut self, state: &mut Sweep, begun: Instant) -> Result<bool, DataplaneError> {
        let ports = self.layout.ports.count();
        if state.blocks.is_empty() {
            state.blocks = self.endpoints.values().copied().collect();
        }
        let now = now();
        while let Some(block) = state.blocks.last().copied() {
            let end = (state.place + STRIDE).min(ports);
            for index in block + state.place..block + end {
                self.look(block, index, now, state)?;
            }
            state.place = end;
            if end == ports {
                state.place = 0;
                state.blocks.pop();
            }
            if begun.elapsed() >= SLICE {
                break;
            }
        }
        Ok(state.blocks.is_empty())
    }

    fn look(&mut self, block: u32, index: u32, now: Ticks, state: &mut Sweep) -> Result<(), DataplaneError> {
        let owner = self.maps.cells.owner(index);
        match owner.phase() {
            Phase::Free | Phase::Resting => return Ok(()),
            Phase::Busy => {
                state.held_blocks.insert(block);
                return self.abandoned(index, owner, now, state);
            }
            _ => {}
        }
        let number = self.maps.cells.backend(index);
        state.held_blocks.insert(block);
        *state.held.entry(number).or_default() += 1;
        if owner.is_live() {
            *state.live.entry(number).or_default() += 1;
        }
        let Some(backend) = self.backends.get(&number).copied() else {
            return self.end(index, owner, None, number);
        };
        if backend.state == backend_state::ABSENT {
            return self.end(index, owner, Some(&backend), number);
        }
        let timeouts = self.timeouts(backend.service);
        let limit = match owner.phase() {
            Phase::Established if owner.is_closing() => timeouts.closing,
            Phase::Established => timeouts.established,
            Phase::Closed => TIME_WAIT,
            _ => timeouts.embryonic,
        };
        if !now.since(self.maps.cells.seen(index)).at_least(limit) {
            return Ok(());
        }
        if owner.phase() == Phase::Established {
            let heard = self.maps.flows.get(&self.key(index, owner, &backend), 0);
            if heard.is_ok_and(|flow| !now.since(flow.seen()).at_least(limit)) {
                return Ok(());
            }
        }
        self.end(index, owner, Some(&backend), number)
    }

    /// A cell that is changing hands does so within one run of the program, unless whoever held it died.
    fn abandoned(
        &mut self,
        index: u32,
        owner: Owner,
        now: Ticks,
        state: &mut Sweep,
    ) -> Result<(), DataplaneError> {
        let (word, since) = *state.busy.entry(index).or_insert((owner, now));
        if word != owner {
            state.busy.insert(index, (owner, now));
            return Ok(());
        }
        if !now.since(since).at_least(ABANDONED) {
            return Ok(());
        }
        state.busy.remove(&index);
        let number = self.maps.cells.backend(index);
        let backend = self.backends.get(&number).copied();
        self.end(index, owner, backend.as_ref(), number)
    }

    /// End whatever holds a cell.
    fn end(
        &mut self,
        index: u32,
        owner: Owner,
        backend: Option<&Backend>,
        number: u32,
    ) -> Result<(), DataplaneError> {
        let busy = owner.with_phase(Phase::Busy);
        if owner.phase() != Phase::Busy && !self.maps.cells.swap_owner(index, owner, busy) {
            return Ok(());
        }
        if owner.is_live() {
            self.maps.accounts.close(number);
            self.maps.cells.stamp(index, now());
        }
        if let Some(backend) = backend {
            let key = self.key(index, owner, backend);
            let ours = self.maps.flows.get(&key, 0).is_ok_and(|flow| flow.cell == index);
            match if ours { self.maps.flows.remove(&key) } else { Ok(()) } {
                Ok(()) | Err(aya::maps::MapError::KeyNotFound) => {}
                Err(aya::maps::MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(DataplaneError::write("FLOWS")(error)),
            }
        }
        // Nobody else moves a busy cell.
        self.maps.cells.swap_owner(index, busy, busy.with_phase(Phase::Resting));
        Ok(())
    }

    fn key(&self, index: u32, owner: Owner, backend: &Backend) -> FlowKey {
        FlowKey {
            client: owner.client(),
            client_port: owner.client_port(),
            service_port: self.maps.cells.service_port(index),
            service: backend.service,
            pad: 0,
        }
    }

    fn timeouts(&self, service: u32) -> Timeouts {
        let known = self.services.values().find(|known| known.entry.id == service);
        known.map_or_else(
            || super::publish::KnownService::adopted(lb_common::abi::Service::default()).timeouts,
            |known| known.timeouts,
        )
    }

    /// After a whole sweep: free what nobody names or holds, and compare the accounts with the cells.
    fn conclude(&mut self, state: &mut Sweep) -> Result<Swept, DataplaneError> {
        let held = std::mem::take(&mut state.held);
        let live = std::mem::take(&mut state.live);
        let held_blocks = std::mem::take(&mut state.held_blocks);
        let cells = &self.maps.cells;
        state.busy.retain(|index, (owner, _)| cells.owner(*index) == *owner);
        self.forget(&held)?;
        self.free_blocks(&held_blocks)?;

        let mut suspects = BTreeMap::new();
        for number in self.backends.keys() {
            let counted = live.get(number).copied().unwrap_or_default() as i64;
            let account = self.maps.accounts.get(*number);
            let difference = account.live() as i64 - counted;
            if difference != 0 {
                suspects.insert(*number, Suspect { difference, account });
            }
        }
        let faults = suspects
            .iter()
            .filter(|(number, suspect)| state.suspects.get(number) == Some(suspect))
            .map(|(number, suspect)| (*number, suspect.difference))
            .collect();
        state.suspects = suspects;
        Ok(Swept { faults })
    }

    /// Backends that no publication names and no cell holds: their ids are free again, in the map too, so that a later
    /// agent does not take them up.
    fn forget(&mut self, held: &BTreeMap<u32, u64>) -> Result<(), DataplaneError> {
        let gone: Vec<u32> = self
            .backends
            .iter()
            .filter(|(number, backend)| {
                backend.state == backend_state::ABSENT
                    && !self.wanted.contains(number)
                    && !held.contains_key(number)
            })
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            self.maps
                .backends
                .set(number, Backend::default(), 0)
                .map_err(DataplaneError::write("BACKENDS"))?;
            self.backends.remove(&number);
        }
        Ok(())
    }

    /// Endpoints that no backend names, once no cell of theirs is held.
    fn free_blocks(&mut self, held: &BTreeSet<u32>) -> Result<(), DataplaneError> {
        let named = |cells: u32, key: &EndpointKey| {
            self.backends.values().any(|backend| {
                backend.cells == cells && backend.source == key.source && backend.address == key.address
            })
        };
        let gone: Vec<EndpointKey> = self
            .endpoints
            .iter()
            .filter(|(key, cells)| !held.contains(cells) && !named(**cells, key))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.maps.endpoints.remove(&key).map_err(DataplaneError::write("ENDPOINTS"))?;
            self.endpoints.remove(&key);
        }
        Ok(())
    }

    /// The key of a service by its id.
    pub(super) fn service_by_id(&self, id: u32) -> Option<ServiceKey> {
        self.services.iter().find(|(_, known)| known.entry.id == id).map(|(key, _)| *key)
    }
}
