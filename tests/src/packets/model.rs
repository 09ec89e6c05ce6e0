//! The data path's library over collections of `std`: what the kernel's program is compared with.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
};

use lb_common::{
    Reason, Ticks,
    abi::{
        Account, Backend, Endpoint, EndpointKey, Flow, FlowKey, Interface, ProgramConfig, Service,
        ServiceKey, Traffic, exit,
    },
    cell::{Owner, PortCell, Worth},
};
use lb_ebpf::{
    Found, Tables, Verdict, balance,
    claim::{search, worth},
    select::draw,
    tables::{Block, Inserted, Ring},
    verdict::Way,
};

use super::{
    frame::Bytes,
    world::{Action, World},
};

/// Index of the interface that packets come in by, as in the kernel's test-run: the loopback's.
const INGRESS: u32 = 1;

/// The tables.
#[derive(Default)]
pub struct Model {
    config: ProgramConfig,
    capacity: usize,
    now: Ticks,
    chance: Cell<u64>,
    services: HashMap<ServiceKey, Service>,
    ring: HashMap<u32, u32>,
    tickets: RefCell<HashMap<u32, u32>>,
    backends: HashMap<u32, Backend>,
    interfaces: HashMap<u16, Interface>,
    endpoints: HashMap<EndpointKey, Endpoint>,
    cells: RefCell<Vec<PortCell>>,
    flows: RefCell<HashMap<FlowKey, Flow>>,
    accounts: RefCell<HashMap<u32, Account>>,
    traffic: RefCell<HashMap<u32, Traffic>>,
    reasons: RefCell<HashMap<(u32, Reason), u64>>,
}

impl Model {
    /// Empty tables for a program with these constants, and room for `capacity` flows.
    pub fn new(config: ProgramConfig, capacity: u32) -> Self {
        let mut model = Self { config, capacity: capacity as usize, ..Self::default() };
        model.clear();
        model
    }

    /// What the program's shell does with a verdict: count it and turn it into an action.
    fn act(&self, verdict: Verdict) -> Action {
        match verdict {
            Verdict::Pass => Action::Pass,
            Verdict::Note(service, reason) => {
                self.count(service, reason);
                Action::Pass
            }
            Verdict::Drop(service, reason) => {
                self.count(service, reason);
                Action::Drop
            }
            Verdict::Answer(service, reason) => {
                self.count(service, reason);
                self.leave(self.config.interface)
            }
            Verdict::Forward { backend, interface, bytes, way } => {
                let mut traffic = self.traffic.borrow_mut();
                let traffic = traffic.entry(backend).or_default();
                let (packets, total) = match way {
                    Way::In => (&mut traffic.packets_in, &mut traffic.bytes_in),
                    Way::Out => (&mut traffic.packets_out, &mut traffic.bytes_out),
                };
                *packets += 1;
                *total += u64::from(bytes);
                self.leave(interface)
            }
        }
    }

    fn leave(&self, id: u16) -> Action {
        match self.interface(id) {
            None => {
                self.count(0, Reason::NextHopUnresolved);
                Action::Drop
            }
            Some(interface) if interface.exit == exit::TX && interface.index == INGRESS => Action::Transmit,
            Some(_) => Action::Redirect,
        }
    }
}

impl World for Model {
    fn config(&self) -> ProgramConfig {
        self.config
    }

    fn now(&self) -> Ticks {
        self.now
    }

    fn clear(&mut self) {
        let (config, capacity) = (self.config, self.capacity);
        *self = Self { config, capacity, ..Self::default() };
        // Any moment will do, but not zero: what was never stamped must look old, not fresh.
        self.now = Ticks::from_raw(1 << 20);
        self.chance = Cell::new(config.seed);
        let cells = self.cell_count() as usize;
        self.cells = RefCell::new(vec![PortCell::default(); cells]);
    }

    fn run(&mut self, packet: &[u8]) -> (Action, Vec<u8>) {
        let mut bytes = Bytes(packet.to_vec());
        let verdict = balance(&mut bytes, self);
        (self.act(verdict), bytes.0)
    }

    fn shortest(&self) -> usize {
        0
    }

    fn set_service(&mut self, key: ServiceKey, service: Service) {
        self.services.insert(key, service);
    }

    fn services(&self) -> Vec<(ServiceKey, Service)> {
        self.services.iter().map(|(key, service)| (*key, *service)).collect()
    }

    fn set_ring(&mut self, offset: u32, ring: &[u32]) {
        self.ring.extend((offset..).zip(ring.iter().copied()));
    }

    fn set_backend(&mut self, id: u32, backend: Backend) {
        self.backends.insert(id, backend);
    }

    fn backend_at(&self, id: u32) -> Backend {
        self.backends.get(&id).copied().unwrap_or_default()
    }

    fn set_interface(&mut self, id: u16, interface: Interface) {
        self.interfaces.insert(id, interface);
    }

    fn interface_at(&self, id: u16) -> Interface {
        self.interfaces.get(&id).copied().unwrap_or_default()
    }

    fn set_endpoint(&mut self, key: EndpointKey, endpoint: Endpoint) {
        self.endpoints.insert(key, endpoint);
    }

    fn set_cell(&mut self, index: u32, cell: PortCell) {
        self.cells.get_mut()[index as usize] = cell;
    }

    fn cell_at(&self, index: u32) -> PortCell {
        self.cells.borrow()[index as usize]
    }

    fn set_flow(&mut self, key: FlowKey, flow: Flow) {
        self.flows.get_mut().insert(key, flow);
    }

    fn flows(&self) -> Vec<(FlowKey, Flow)> {
        self.flows.borrow().iter().map(|(key, flow)| (*key, *flow)).collect()
    }

    fn set_account(&mut self, id: u32, account: Account) {
        self.accounts.get_mut().insert(id, account);
    }

    fn account_at(&self, id: u32) -> Account {
        self.accounts.borrow().get(&id).copied().unwrap_or_default()
    }

    fn traffic_of(&self, id: u32) -> Traffic {
        self.traffic.borrow().get(&id).copied().unwrap_or_default()
    }

    fn reason(&self, service: u32, reason: Reason) -> u64 {
        self.reasons.borrow().get(&(service, reason)).copied().unwrap_or_default()
    }
}

impl Tables for Model {
    type Entry = FlowKey;

    fn config(&self) -> ProgramConfig {
        self.config
    }

    fn now(&self) -> Ticks {
        self.now
    }

    /// A linear congruential generator (D. Knuth, MMIX), so that every run is the same.
    fn random(&self) -> u32 {
        let next =
            self.chance.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.chance.set(next);
        (next >> 32) as u32
    }

    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.services.get(key).copied()
    }

    fn ticket(&self, service: u32) -> u32 {
        let mut tickets = self.tickets.borrow_mut();
        let ticket = tickets.entry(service).or_default();
        *ticket += 1;
        *ticket - 1
    }

    fn slot(&self, index: u32) -> Option<u32> {
        (index < lb_common::RING_SLOTS).then(|| self.ring.get(&index).copied().unwrap_or_default())
    }

    fn backend(&self, id: u32) -> Option<Backend> {
        (id < lb_common::MAX_BACKENDS).then(|| self.backend_at(id))
    }

    fn interface(&self, id: u16) -> Option<Interface> {
        self.interfaces.get(&id).copied().filter(|interface| interface.index != 0)
    }

    fn endpoint(&self, key: &EndpointKey) -> Option<Endpoint> {
        self.endpoints.get(key).copied()
    }

    fn holder(&self, index: u32) -> Option<(Owner, Ticks)> {
        self.cell(index).map(|cell| (cell.owner, cell.seen()))
    }

    fn draw(&self, ring: Ring) -> u32 {
        draw(ring, self)
    }

    fn worth(&self, index: u32, now: Ticks) -> Worth {
        worth(index, now, self)
    }

    fn search(&self, block: Block, now: Ticks) -> Option<u32> {
        search(block, now, self)
    }

    fn cell(&self, index: u32) -> Option<PortCell> {
        self.cells.borrow().get(index as usize).copied()
    }

    fn swap_owner(&self, index: u32, before: Owner, after: Owner) -> bool {
        let mut cells = self.cells.borrow_mut();
        let Some(cell) = cells.get_mut(index as usize).filter(|cell| cell.owner == before) else {
            return false;
        };
        cell.owner = after;
        true
    }

    fn fill_cell(&self, index: u32, busy: Owner, body: &PortCell) {
        let mut cells = self.cells.borrow_mut();
        if let Some(cell) = cells.get_mut(index as usize).filter(|cell| cell.owner == busy) {
            *cell = *body;
        }
    }

    fn touch_cell(&self, index: u32, now: Ticks) {
        if let Some(cell) = self.cells.borrow_mut().get_mut(index as usize) {
            cell.seen = now.raw();
        }
    }

    fn answer_cell(&self, index: u32, server_isn: u32) {
        if let Some(cell) = self.cells.borrow_mut().get_mut(index as usize) {
            cell.server_isn = server_isn;
        }
    }

    fn flow(&self, key: &FlowKey) -> Option<Found<FlowKey>> {
        self.flows.borrow().get(key).map(|flow| Found { flow: *flow, entry: *key })
    }

    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> Inserted {
        let mut flows = self.flows.borrow_mut();
        if flows.contains_key(key) {
            return Inserted::Exists;
        }
        if flows.len() >= self.capacity {
            return Inserted::Full;
        }
        flows.insert(*key, *flow);
        Inserted::Done
    }

    fn remove_flow(&self, key: &FlowKey) {
        self.flows.borrow_mut().remove(key);
    }

    fn touch_flow(&self, entry: FlowKey, now: Ticks, marks: u16) {
        if let Some(flow) = self.flows.borrow_mut().get_mut(&entry) {
            flow.seen = now.raw();
            flow.marks = marks;
        }
    }

    fn account(&self, backend: u32) -> Option<Account> {
        (backend < lb_common::MAX_BACKENDS).then(|| self.account_at(backend))
    }

    fn open_account(&self, backend: u32) {
        self.accounts.borrow_mut().entry(backend).or_default().opened += 1;
    }

    fn close_account(&self, backend: u32) {
        self.accounts.borrow_mut().entry(backend).or_default().closed += 1;
    }

    fn count(&self, service: u32, reason: Reason) {
        *self.reasons.borrow_mut().entry((service, reason)).or_default() += 1;
    }
}
