//! Expiry: connections that have been silent for too long, or whose backend is gone, are ended here.
//!
//! The port cells are read as memory, so looking at a million of them costs no system call; only what has run out is
//! looked up in the flow table, for the client may have spoken while the server was silent. A connection is ended by
//! making its cell `Busy`, removing its flow entry, and letting the port rest: the order that `lb_common::cell` asks
//! of everybody.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lb_common::{
    TIME_WAIT, Ticks,
    abi::{Account, Backend, FlowKey, ServiceKey, backend_state},
    cell::{Owner, Phase},
};

use super::{Dataplane, DataplaneError, now, publish::Timeouts};

/// How long one slice may take before others get their turn.
const SLICE: Duration = Duration::from_millis(2);

/// Cells between two looks at the clock.
const STRIDE: u32 = 1024;

/// A cell that is still changing hands after this long was left so by an agent that died.
const ABANDONED: Ticks = Ticks::from_millis(10_000);

/// Where a sweep over all cells stands.
#[derive(Debug, Default)]
pub struct Sweep {
    next: u32,
    live: BTreeMap<u32, u64>,
    suspects: BTreeMap<u32, Suspect>,
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
        let begun = Instant::now();
        let done = self.slice(&mut state, begun);
        let swept = match done {
            Ok(true) => Some(self.conclude(&mut state)),
            Ok(false) => None,
            Err(error) => {
                self.sweep = state;
                return Err(error);
            }
        };
        self.sweep = state;
        Ok(swept)
    }

    fn slice(&mut self, state: &mut Sweep, begun: Instant) -> Result<bool, DataplaneError> {
        let end = self.maps.cells.len();
        let now = now();
        while state.next < end {
            for index in state.next..(state.next + STRIDE).min(end) {
                self.look(index, now, state)?;
            }
            state.next = (state.next + STRIDE).min(end);
            if begun.elapsed() >= SLICE {
                return Ok(state.next >= end);
            }
        }
        Ok(true)
    }

    fn look(&mut self, index: u32, now: Ticks, state: &mut Sweep) -> Result<(), DataplaneError> {
        let owner = self.maps.cells.owner(index);
        if matches!(owner.phase(), Phase::Free | Phase::Resting) {
            return Ok(());
        }
        let number = self.maps.cells.backend(index);
        let backend = self.backends.get(&number).copied();
        let age = now.since(self.maps.cells.seen(index));
        if owner.is_live() {
            *state.live.entry(number).or_default() += 1;
        }
        let Some(backend) = backend.filter(|backend| backend.state != backend_state::ABSENT) else {
            return self.end(index, owner, backend.as_ref(), number);
        };
        let timeouts = self.timeouts(backend.service);
        let limit = match owner.phase() {
            Phase::Embryonic | Phase::Answered => timeouts.embryonic,
            Phase::Established if owner.is_closing() => timeouts.closing,
            Phase::Established => timeouts.established,
            Phase::Closed => TIME_WAIT,
            _ => ABANDONED,
        };
        if !age.at_least(limit) {
            return Ok(());
        }
        if owner.phase() == Phase::Established {
            let heard =
                self.maps.flows.get(&self.key(index, owner, &backend), 0).map(|flow| now.since(flow.seen()));
            if heard.is_ok_and(|age| !age.at_least(limit)) {
                return Ok(());
            }
        }
        self.end(index, owner, Some(&backend), number)
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
            match self.maps.flows.remove(&key) {
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

    /// After a whole sweep: free what absent backends held, and compare the accounts with the cells.
    fn conclude(&mut self, state: &mut Sweep) -> Swept {
        let live = std::mem::take(&mut state.live);
        state.next = 0;
        let absent: Vec<u32> = self
            .backends
            .iter()
            .filter(|(number, backend)| backend.state == backend_state::ABSENT && !live.contains_key(number))
            .map(|(number, _)| *number)
            .collect();
        for number in absent {
            self.forget(number);
        }
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
        Swept { faults }
    }

    /// An absent backend without connections: its id and, if nobody else uses it, its block are free again.
    fn forget(&mut self, number: u32) {
        let Some(gone) = self.backends.remove(&number) else { return };
        // The entry stays absent until the id is given away again; nothing refers to it.
        let shared =
            self.backends.values().any(|other| other.cells == gone.cells && other.source == gone.source);
        if !shared {
            let keys: Vec<_> = self
                .endpoints
                .iter()
                .filter(|(_, cells)| **cells == gone.cells)
                .map(|(key, _)| *key)
                .collect();
            for key in keys {
                if self.maps.endpoints.remove(&key).is_ok() {
                    self.endpoints.remove(&key);
                }
            }
        }
    }

    /// The key of a service by its id.
    pub(super) fn service_by_id(&self, id: u32) -> Option<ServiceKey> {
        self.services.iter().find(|(_, known)| known.entry.id == id).map(|(key, _)| *key)
    }
}
