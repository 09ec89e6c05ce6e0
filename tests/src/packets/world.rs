//! What a case needs of the place where it runs: tables to fill and read, and a packet to be run.

use lb_common::{
    Reason, Ticks,
    abi::{
        Account, Backend, Endpoint, EndpointKey, Flow, FlowKey, Interface, ProgramConfig, Service,
        ServiceKey, Traffic,
    },
    cell::{Phase, PortCell},
};

use super::scene::{BLOCKS, LAST_ID};

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the host.
    Pass,
    /// Nowhere.
    Drop,
    /// Out by the interface that it came in by, in the driver (`XDP_TX`).
    Transmit,
    /// Out by `bpf_redirect`; the kernel's test-run does not say where to.
    Redirect,
}

/// A place where packets meet tables.
pub trait World {
    /// The constants of the program.
    fn config(&self) -> ProgramConfig;
    /// The clock.
    fn now(&self) -> Ticks;
    /// Forget everything: no services, no connections, counters at zero.
    fn clear(&mut self);
    /// Run one packet; what became of it, and its bytes afterwards.
    fn run(&mut self, packet: &[u8]) -> (Action, Vec<u8>);
    /// The shortest packet that can be run: the kernel's test-run wants an Ethernet header.
    fn shortest(&self) -> usize;

    /// Add or replace a service.
    fn set_service(&mut self, key: ServiceKey, service: Service);
    /// The services.
    fn services(&self) -> Vec<(ServiceKey, Service)>;
    /// Write slots of the ring.
    fn set_ring(&mut self, offset: u32, ring: &[u32]);
    /// Write a backend.
    fn set_backend(&mut self, id: u32, backend: Backend);
    /// A backend.
    fn backend_at(&self, id: u32) -> Backend;
    /// Write an interface.
    fn set_interface(&mut self, id: u16, interface: Interface);
    /// An interface.
    fn interface_at(&self, id: u16) -> Interface;
    /// Add an endpoint.
    fn set_endpoint(&mut self, key: EndpointKey, endpoint: Endpoint);
    /// Write a port cell.
    fn set_cell(&mut self, index: u32, cell: PortCell);
    /// A port cell.
    fn cell_at(&self, index: u32) -> PortCell;
    /// Add or replace a flow.
    fn set_flow(&mut self, key: FlowKey, flow: Flow);
    /// All flows.
    fn flows(&self) -> Vec<(FlowKey, Flow)>;
    /// Write an account.
    fn set_account(&mut self, id: u32, account: Account);
    /// An account.
    fn account_at(&self, id: u32) -> Account;
    /// Packets and bytes of a backend, over all CPUs.
    fn traffic_of(&self, id: u32) -> Traffic;
    /// The counter of a reason, over all CPUs.
    fn reason(&self, service: u32, reason: Reason) -> u64;

    /// Port cells in all.
    fn cell_count(&self) -> u32 {
        BLOCKS * self.config().ports.count()
    }

    /// Let time pass: everything that has a time stamp becomes older by `span`.
    fn age(&mut self, span: Ticks) {
        for (key, mut flow) in self.flows() {
            flow.seen = flow.seen.wrapping_sub(span.raw());
            self.set_flow(key, flow);
        }
        for index in 0..self.cell_count() {
            let mut cell = self.cell_at(index);
            if cell.owner.phase() != Phase::Free {
                cell.seen = cell.seen.wrapping_sub(span.raw());
                self.set_cell(index, cell);
            }
        }
        for (key, mut service) in self.services() {
            service.empty_since = service.empty_since.wrapping_sub(span.raw());
            self.set_service(key, service);
        }
    }
}

/// Everything that counts, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// By service and reason, what is not zero.
    pub reasons: Vec<(u32, Reason, u64)>,
    /// By backend.
    pub accounts: Vec<Account>,
    /// By backend.
    pub traffic: Vec<Traffic>,
}

impl Counters {
    /// Read them all.
    pub fn of(world: &dyn World) -> Self {
        let ids = 0..=LAST_ID;
        let pairs = ids.clone().flat_map(|service| Reason::ALL.map(|reason| (service, reason)));
        Self {
            reasons: pairs
                .map(|(service, reason)| (service, reason, world.reason(service, reason)))
                .filter(|(.., count)| *count != 0)
                .collect(),
            accounts: ids.clone().map(|id| world.account_at(id)).collect(),
            traffic: ids.map(|id| world.traffic_of(id)).collect(),
        }
    }
}
