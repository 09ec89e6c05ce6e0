//! The loaded programs over real maps, run packet by packet by the kernel's own test-run.
//!
//! Nothing is attached and nothing is pinned: programs and maps end with the value that holds them. The clock is the
//! kernel's; cases make things old by their time stamps.

use aya::{
    Ebpf, EbpfError, EbpfLoader, Pod, VerifierLogLevel,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues, ProgramArray, RingBuf},
    programs::{ProgramError, TestRun as _, TestRunOptions, Xdp},
};
use lb_common::{
    Be16, Be32, Be128, Reason, Ticks,
    abi::{Account, Interface, Onward, ProgramConfig, Traffic},
    event::{Event, kind},
    program::{ENTRY, Stage},
};
use lb_userspace::dataplane::OBJECT;
use nix::time::{ClockId, clock_gettime};

use super::{
    scene::{BLOCKS, LAST_ID},
    world::{Action, HEARD_FOR, World, rows},
};

/// Room for what a packet may become: the longest jumbo frame, and a tunnel's header.
const LONGEST: usize = 10_240;

/// The loaded programs with maps of their own.
pub struct Kernel {
    config: ProgramConfig,
    object: Ebpf,
    /// Programs that nothing holds are freed, so this map must live as long as the entry runs.
    _stages: ProgramArray<MapData>,
}

/// The object as the loader prepares it, with these constants; its programs are not yet in the kernel.
pub fn prepared(config: &ProgramConfig, log: VerifierLogLevel) -> Result<Ebpf, EbpfError> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(log);
    let stations = super::scene::stations();
    loader.override_global("CONFIG", config, true);
    loader.override_global("STATIONS", &stations, true);
    let cells = (BLOCKS * config.ports.count()).max(1);
    let [ipv4, ipv6] = config.bucket_masks;
    loader.map_max_entries("FLOWS4", ipv4 + 1).map_max_entries("FLOWS6", ipv6 + 1);
    loader.map_max_entries("CELLS4", cells).map_max_entries("CELLS6", cells);
    loader.load(OBJECT)
}

/// The names of all programs of an object.
pub fn programs() -> impl Iterator<Item = &'static str> {
    std::iter::once(ENTRY).chain(Stage::ALL.map(Stage::name))
}

/// A program of an object.
pub fn program<'a>(object: &'a mut Ebpf, name: &str) -> &'a mut Xdp {
    let program = object.program_mut(name).unwrap_or_else(|| panic!("the object has no program {name}"));
    program.try_into().expect("the program is not for XDP")
}

fn loaded(object: &mut Ebpf) -> Result<ProgramArray<MapData>, ProgramError> {
    let map = object.take_map("PROGRAMS").expect("the object has no map of programs");
    let mut stages = ProgramArray::try_from(map)?;
    for stage in Stage::ALL {
        let program = program(object, stage.name());
        program.load()?;
        stages.set(stage as u32, program.fd()?, 0)?;
    }
    program(object, ENTRY).load()?;
    Ok(stages)
}

impl Kernel {
    /// Load the programs with these constants.
    pub fn new(config: ProgramConfig) -> Self {
        let mut object = prepared(&config, VerifierLogLevel::DISABLE).expect("the maps were refused");
        let stages = loaded(&mut object).expect("the verifier refused a program");
        Self { config, object, _stages: stages }
    }

    pub(super) fn array<T: Pod>(&self, name: &str) -> Array<&MapData, T> {
        let map = self.object.map(name).expect("no such map");
        map.try_into().expect("not an array of that")
    }

    pub(super) fn array_mut<T: Pod>(&mut self, name: &str) -> Array<&mut MapData, T> {
        let map = self.object.map_mut(name).expect("no such map");
        map.try_into().expect("not an array of that")
    }

    pub(super) fn get<T: Pod>(&self, name: &str, index: u32) -> T {
        self.array(name).get(&index, 0).expect("the element cannot be read")
    }

    pub(super) fn set<T: Pod>(&mut self, name: &str, index: u32, value: T) {
        self.array_mut(name).set(index, value, 0).expect("the element cannot be written");
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

    pub(super) fn hash<K: Pod, V: Pod>(&self, name: &str) -> HashMap<&MapData, K, V> {
        let map = self.object.map(name).expect("no such map");
        map.try_into().expect("not a hash of that")
    }

    pub(super) fn hash_mut<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        let map = self.object.map_mut(name).expect("no such map");
        map.try_into().expect("not a hash of that")
    }

    pub(super) fn entries<K: Pod, V: Pod>(&self, name: &str) -> Vec<(K, V)> {
        self.hash(name).iter().collect::<Result<_, _>>().expect("the elements cannot be read")
    }

    pub(super) fn insert<K: Pod, V: Pod>(&mut self, name: &str, key: K, value: V) {
        self.hash_mut(name).insert(key, value, 0).expect("the element cannot be written");
    }

    pub(super) fn empty<K: Pod, V: Pod>(&mut self, name: &str) {
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

    /// The clock that the programs read (`bpf_ktime_get_coarse_ns`), which lags behind the precise one.
    fn now(&self) -> Ticks {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("every kernel has this clock");
        Ticks::from_nanos(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
    }

    fn clear(&mut self) {
        self.clear_family::<Be32>();
        self.clear_family::<Be128>();
        for id in 0..=LAST_ID {
            self.set("INTERFACES", id.into(), Interface::default());
            self.set("TICKETS", id.into(), 0_u64);
            self.set("FULL_SINCE", id.into(), 0_u32);
            self.set("NARROWED", id.into(), 0_u64);
        }
        for row in rows() {
            self.set("ACCOUNTS", row, Account::default());
        }
        self.set_heard_at(self.now().plus(HEARD_FOR));
        self.set_errors([0; 3]);
        self.open_gates();
        self.events();
        self.per_cpu_zero::<Traffic>("TRAFFIC", 0..=u32::from(LAST_ID));
        let reasons = (0..=LAST_ID).flat_map(|service| Reason::ALL.map(|reason| reason.counter(service)));
        self.per_cpu_zero::<u64>("REASONS", reasons);
    }

    fn run(&mut self, packet: &[u8]) -> (Action, Vec<u8>) {
        let mut out = vec![0; LONGEST];
        let options =
            TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = program(&mut self.object, ENTRY).test_run(options).expect("the test-run was refused");
        out.truncate(result.data_size_out as usize);
        let note = Onward::by(0, self.config.seed).key.to_ne_bytes();
        // Numbers of `enum xdp_action` (include/uapi/linux/bpf.h).
        let action = match result.return_value {
            1 => Action::Drop,
            2 if out.starts_with(&note) => {
                // The test-run gives back what stands before the packet, too.
                out.drain(..size_of::<Onward>());
                Action::Onward
            }
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

    fn set_ring(&mut self, offset: u32, slots: &[u32]) {
        let mut ring = self.array_mut::<u32>("RING");
        for (index, slot) in (offset..).zip(slots) {
            ring.set(index, slot, 0).expect("the slot cannot be written");
        }
    }

    fn set_interface(&mut self, id: u16, interface: Interface) {
        self.set("INTERFACES", id.into(), interface);
    }

    fn interface_at(&self, id: u16) -> Interface {
        self.get("INTERFACES", id.into())
    }

    fn set_account(&mut self, row: u32, account: Account) {
        self.set("ACCOUNTS", row, account);
    }

    fn account_at(&self, row: u32) -> Account {
        self.get("ACCOUNTS", row)
    }

    fn traffic_of(&self, id: u16) -> Traffic {
        let cpus: Vec<Traffic> = self.per_cpu("TRAFFIC", id.into());
        cpus.iter().fold(Traffic::default(), |sum, cpu| Traffic {
            packets_in: sum.packets_in + cpu.packets_in,
            bytes_in: sum.bytes_in + cpu.bytes_in,
            packets_out: sum.packets_out + cpu.packets_out,
            bytes_out: sum.bytes_out + cpu.bytes_out,
        })
    }

    fn reason(&self, service: u16, reason: Reason) -> u64 {
        self.per_cpu::<u64>("REASONS", reason.counter(service)).iter().sum()
    }

    fn heard_at(&self) -> Ticks {
        Ticks::from_raw(self.get("HEARTBEAT", 0))
    }

    fn set_heard_at(&mut self, until: Ticks) {
        self.set("HEARTBEAT", 0, until.raw());
    }

    fn full_at(&self, service: u16) -> u32 {
        self.get("FULL_SINCE", service.into())
    }

    fn set_full_at(&mut self, service: u16, since: u32) {
        self.set("FULL_SINCE", service.into(), since);
    }

    fn narrowed_at(&self, backend: u16) -> u64 {
        self.get("NARROWED", backend.into())
    }

    fn set_narrowed_at(&mut self, backend: u16, word: u64) {
        self.set("NARROWED", backend.into(), word);
    }

    fn errors(&self) -> [u64; 3] {
        [0, 1, 2].map(|trouble| self.get("ERRORS", trouble))
    }

    fn set_errors(&mut self, words: [u64; 3]) {
        for (trouble, word) in (0..).zip(words) {
            self.set("ERRORS", trouble, word);
        }
    }

    fn open_gates(&mut self) {
        for index in 0..(u32::from(LAST_ID) + 1) * kind::COUNT {
            self.set("GATES", index, 0_u32);
        }
    }

    fn events(&mut self) -> Vec<Event> {
        let map = self.object.map_mut("EVENTS").expect("no such map");
        let mut ring: RingBuf<&mut MapData> = map.try_into().expect("not a ring buffer");
        let mut events = Vec::new();
        while let Some(entry) = ring.next() {
            events.push(event(&entry));
        }
        events
    }
}

/// An event as it stands in the ring buffer.
fn event(bytes: &[u8]) -> Event {
    assert_eq!(bytes.len(), size_of::<Event>(), "an event of another length");
    let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Event {
        client: [word(0), word(4), word(8), word(12)],
        sequence: word(16),
        acknowledgement: word(20),
        value: word(24),
        backend: half(28),
        service: half(30),
        client_port: Be16::from_wire(half(32)),
        service_port: Be16::from_wire(half(34)),
        kind: bytes[36],
        version: bytes[37],
        side: bytes[38],
        pad: bytes[39],
    }
}
