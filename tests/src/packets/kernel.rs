//! The loaded program over real maps, run packet by packet by the kernel's own test-run.
//!
//! Nothing is attached and nothing is pinned: programs and maps end with the value that holds them. The clock is the
//! kernel's; cases make things old by their time stamps.

use aya::{
    Ebpf, EbpfError, EbpfLoader, Pod, VerifierLogLevel,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use lb_common::{
    Reason, Ticks,
    abi::{
        Account, Backend, Endpoint, EndpointKey, Flow, FlowKey, Interface, ProgramConfig, Service,
        ServiceKey, Traffic,
    },
    cell::PortCell,
};
use lb_userspace::dataplane::{attach::OBJECT, now};

use super::{
    scene::{BLOCKS, LAST_ID},
    world::{Action, World},
};

/// Name of the program in the object.
const PROGRAM: &str = "lb";

/// Room for what a packet may become; nothing here makes one longer.
const LONGEST: usize = 4096;

/// One loaded program with maps of its own.
pub struct Kernel {
    config: ProgramConfig,
    object: Ebpf,
}

/// The object as the loader prepares it, with these constants; its program is not yet in the kernel.
pub fn prepared(config: &ProgramConfig, flows: u32, log: VerifierLogLevel) -> Result<Ebpf, EbpfError> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(log);
    loader.override_global("CONFIG", config, true);
    loader.map_max_entries("FLOWS", flows);
    loader.map_max_entries("CELLS", (BLOCKS * config.ports.count()).max(1));
    loader.load(OBJECT)
}

/// The one program of an object.
pub fn program(object: &mut Ebpf) -> &mut Xdp {
    let program = object.program_mut(PROGRAM).expect("the object has no program");
    program.try_into().expect("the program is not for XDP")
}

impl Kernel {
    /// Load the program with these constants, and maps with room for `flows` flows.
    pub fn new(config: ProgramConfig, flows: u32) -> Self {
        let mut object = prepared(&config, flows, VerifierLogLevel::DISABLE).expect("the maps were refused");
        program(&mut object).load().expect("the verifier refused the program");
        Self { config, object }
    }

    fn array<T: Pod>(&self, name: &str) -> Array<&MapData, T> {
        let map = self.object.map(name).expect("no such map");
        map.try_into().expect("not an array of that")
    }

    fn array_mut<T: Pod>(&mut self, name: &str) -> Array<&mut MapData, T> {
        let map = self.object.map_mut(name).expect("no such map");
        map.try_into().expect("not an array of that")
    }

    fn per_cpu<T: Pod>(&self, name: &str, index: u32) -> Vec<T> {
        let map = self.object.map(name).expect("no such map");
        let map: PerCpuArray<&MapData, T> = map.try_into().expect("not an array per CPU of that");
        map.get(&index, 0).expect("no such element").to_vec()
    }

    fn per_cpu_zero<T: Pod + Default>(&mut self, name: &str, indices: impl Iterator<Item = u32>) {
        let map = self.object.map_mut(name).expect("no such map");
        let mut map: PerCpuArray<&mut MapData, T> = map.try_into().expect("not an array per CPU of that");
        for index in indices {
            let cpus = map.get(&index, 0).expect("no such element").len();
            let zeros = PerCpuValues::try_from(vec![T::default(); cpus]).expect("as many CPUs as before");
            map.set(index, zeros, 0).expect("the element cannot be written");
        }
    }

    fn hash<K: Pod, V: Pod>(&self, name: &str) -> HashMap<&MapData, K, V> {
        let map = self.object.map(name).expect("no such map");
        map.try_into().expect("not a hash of that")
    }

    fn hash_mut<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        let map = self.object.map_mut(name).expect("no such map");
        map.try_into().expect("not a hash of that")
    }

    fn empty<K: Pod, V: Pod>(&mut self, name: &str) {
        let mut map = self.hash_mut::<K, V>(name);
        let keys: Vec<K> = map.keys().collect::<Result<_, _>>().expect("the keys cannot be read");
        for key in keys {
            map.remove(&key).expect("the key was there");
        }
    }
}

impl World for Kernel {
    fn config(&self) -> ProgramConfig {
        self.config
    }

    fn now(&self) -> Ticks {
        now()
    }

    fn clear(&mut self) {
        self.empty::<ServiceKey, Service>("SERVICES");
        self.empty::<EndpointKey, Endpoint>("ENDPOINTS");
        self.empty::<FlowKey, Flow>("FLOWS");
        for index in 0..self.cell_count() {
            self.set_cell(index, PortCell::default());
        }
        for id in 0..=LAST_ID {
            self.set_backend(id, Backend::default());
            self.set_account(id, Account::default());
            self.set_interface(id as u16, Interface::default());
            self.array_mut::<u64>("TICKETS").set(id, 0, 0).expect("the ticket cannot be written");
        }
        self.per_cpu_zero::<Traffic>("TRAFFIC", 0..=LAST_ID);
        let reasons = (0..=LAST_ID).flat_map(|service| Reason::ALL.map(|reason| reason.counter(service)));
        self.per_cpu_zero::<u64>("REASONS", reasons);
    }

    fn run(&mut self, packet: &[u8]) -> (Action, Vec<u8>) {
        let mut out = vec![0; LONGEST];
        let options =
            TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = program(&mut self.object).test_run(options).expect("the test-run was refused");
        out.truncate(result.data_size_out as usize);
        // Numbers of `enum xdp_action` (include/uapi/linux/bpf.h).
        let action = match result.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Transmit,
            4 => Action::Redirect,
            other => panic!("the program returned {other}"),
        };
        (action, out)
    }

    fn shortest(&self) -> usize {
        14
    }

    fn set_service(&mut self, key: ServiceKey, service: Service) {
        self.hash_mut("SERVICES").insert(key, service, 0).expect("the service cannot be written");
    }

    fn services(&self) -> Vec<(ServiceKey, Service)> {
        self.hash("SERVICES").iter().collect::<Result<_, _>>().expect("the services cannot be read")
    }

    fn set_ring(&mut self, offset: u32, ring: &[u32]) {
        let mut slots = self.array_mut::<u32>("RING");
        for (index, backend) in (offset..).zip(ring) {
            slots.set(index, backend, 0).expect("the slot cannot be written");
        }
    }

    fn set_backend(&mut self, id: u32, backend: Backend) {
        self.array_mut("BACKENDS").set(id, backend, 0).expect("the backend cannot be written");
    }

    fn backend_at(&self, id: u32) -> Backend {
        self.array("BACKENDS").get(&id, 0).expect("the backend cannot be read")
    }

    fn set_interface(&mut self, id: u16, interface: Interface) {
        self.array_mut("INTERFACES").set(id.into(), interface, 0).expect("the interface cannot be written");
    }

    fn interface_at(&self, id: u16) -> Interface {
        self.array("INTERFACES").get(&id.into(), 0).expect("the interface cannot be read")
    }

    fn set_endpoint(&mut self, key: EndpointKey, endpoint: Endpoint) {
        self.hash_mut("ENDPOINTS").insert(key, endpoint, 0).expect("the endpoint cannot be written");
    }

    fn set_cell(&mut self, index: u32, cell: PortCell) {
        self.array_mut("CELLS").set(index, cell, 0).expect("the cell cannot be written");
    }

    fn cell_at(&self, index: u32) -> PortCell {
        self.array("CELLS").get(&index, 0).expect("the cell cannot be read")
    }

    fn set_flow(&mut self, key: FlowKey, flow: Flow) {
        self.hash_mut("FLOWS").insert(key, flow, 0).expect("the flow cannot be written");
    }

    fn flows(&self) -> Vec<(FlowKey, Flow)> {
        self.hash("FLOWS").iter().collect::<Result<_, _>>().expect("the flows cannot be read")
    }

    fn set_account(&mut self, id: u32, account: Account) {
        self.array_mut("ACCOUNTS").set(id, account, 0).expect("the account cannot be written");
    }

    fn account_at(&self, id: u32) -> Account {
        self.array("ACCOUNTS").get(&id, 0).expect("the account cannot be read")
    }

    fn traffic_of(&self, id: u32) -> Traffic {
        let cpus: Vec<Traffic> = self.per_cpu("TRAFFIC", id);
        cpus.iter().fold(Traffic::default(), |sum, cpu| Traffic {
            packets_in: sum.packets_in + cpu.packets_in,
            bytes_in: sum.bytes_in + cpu.bytes_in,
            packets_out: sum.packets_out + cpu.packets_out,
            bytes_out: sum.bytes_out + cpu.bytes_out,
        })
    }

    fn reason(&self, service: u32, reason: Reason) -> u64 {
        self.per_cpu::<u64>("REASONS", reason.counter(service)).iter().sum()
    }
}
