//! What a case needs of the place where it runs: tables to fill and read, and a packet to be run.

use lb_common::{
    Address, Reason, Ticks,
    abi::{
        Account, Backend, BucketKey, Endpoint, EndpointKey, Fragment, FragmentKey, Interface, ProgramConfig,
        Ranges, RangesKey, Service, ServiceKey, Traffic, server_account, service_account,
    },
    cell::{Owner, Phase, PortCell},
    event::Event,
    flow::{Bucket, FlowKey, Record, SLOTS},
};

use super::scene::{BLOCKS, LAST_ID, LAST_SERVER};

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
    /// To the host, with a note of the interface that the classifier is to send it out by.
    Onward,
}

/// For how long the agent counts as there when a case begins.
pub const HEARD_FOR: Ticks = Ticks::from_millis(30_000);

/// A place where packets meet tables: what both families share.
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

    /// Write slots of the ring.
    fn set_ring(&mut self, offset: u32, slots: &[u32]);
    /// Write an interface.
    fn set_interface(&mut self, id: u16, interface: Interface);
    /// An interface.
    fn interface_at(&self, id: u16) -> Interface;
    /// Write an account.
    fn set_account(&mut self, row: u32, account: Account);
    /// An account.
    fn account_at(&self, row: u32) -> Account;
    /// Packets and bytes of a backend, over all CPUs.
    fn traffic_of(&self, id: u16) -> Traffic;
    /// The counter of a reason, over all CPUs.
    fn reason(&self, service: u16, reason: Reason) -> u64;
    /// Until when the agent counts as there.
    fn heard_at(&self) -> Ticks;
    /// Write it.
    fn set_heard_at(&mut self, until: Ticks);
    /// Since when no backend of a service has had room.
    fn full_at(&self, service: u16) -> u32;
    /// Write it.
    fn set_full_at(&mut self, service: u16, since: u32);
    /// What is remembered of the way to a backend.
    fn narrowed_at(&self, backend: u16) -> u64;
    /// Write it.
    fn set_narrowed_at(&mut self, backend: u16, word: u64);
    /// The tokens for ICMP errors, by trouble.
    fn errors(&self) -> [u64; 3];
    /// Write them.
    fn set_errors(&mut self, words: [u64; 3]);
    /// Let every event be told again that a tick's sampling holds back.
    fn open_gates(&mut self);
    /// What has been told since the last time.
    fn events(&mut self) -> Vec<Event>;

    /// Port cells of one family.
    fn cell_count(&self) -> u32 {
        BLOCKS * self.config().ports.count()
    }
}

/// The tables of one family.
pub trait Store<A: Address>: World {
    /// Add or replace a service.
    fn set_service(&mut self, key: ServiceKey<A>, service: Service);
    /// Remove a service.
    fn remove_service(&mut self, key: ServiceKey<A>);
    /// The services.
    fn services(&self) -> Vec<(ServiceKey<A>, Service)>;
    /// Add or replace the ranges of an address.
    fn set_ranges(&mut self, key: RangesKey<A>, ranges: Ranges);
    /// Write a backend.
    fn set_backend(&mut self, id: u16, backend: Backend<A>);
    /// A backend.
    fn backend_at(&self, id: u16) -> Backend<A>;
    /// Write a source address.
    fn set_source(&mut self, number: u16, address: A);
    /// A source address.
    fn source_at(&self, number: u16) -> A;
    /// Add an endpoint.
    fn set_endpoint(&mut self, key: EndpointKey<A>, endpoint: Endpoint);
    /// Write a port cell.
    fn set_cell(&mut self, index: u32, cell: PortCell<A>);
    /// A port cell.
    fn cell_at(&self, index: u32) -> PortCell<A>;
    /// Write a bucket of the flow table.
    fn set_bucket(&mut self, index: u32, bucket: Bucket<A>);
    /// A bucket of the flow table.
    fn bucket_at(&self, index: u32) -> Bucket<A>;
    /// Write the way of a fragmented packet.
    fn set_fragment(&mut self, key: FragmentKey<A>, fragment: Fragment<A>);
    /// The ways of fragmented packets.
    fn fragments(&self) -> Vec<(FragmentKey<A>, Fragment<A>)>;
    /// Write a source address's tokens.
    fn set_tokens(&mut self, key: BucketKey<A>, word: u64);
    /// The tokens of all source addresses.
    fn all_tokens(&self) -> Vec<(BucketKey<A>, u64)>;
}

/// Buckets of a family's flow table.
pub fn buckets<A: Address>(config: &ProgramConfig) -> u32 {
    config.bucket_masks[usize::from(A::VERSION != 4)] + 1
}

/// A slot of the flow table that is not free.
#[derive(Clone, Copy, Debug)]
pub struct Slot<A: Address> {
    /// Its bucket.
    pub bucket: u32,
    /// Who holds it.
    pub owner: Owner,
    /// The flow.
    pub record: Record<A>,
}

impl<A: Address> Slot<A> {
    /// Whose it is.
    pub fn key(&self) -> FlowKey<A> {
        FlowKey::of(self.owner, &self.record)
    }
}

/// All slots that are not free.
pub fn slots<A: Address>(world: &impl Store<A>) -> Vec<Slot<A>> {
    let mut found = Vec::new();
    for index in 0..buckets::<A>(&world.config()) {
        let bucket = world.bucket_at(index);
        for place in 0..SLOTS {
            let (owner, record) = (bucket.owners[place], bucket.records[place]);
            if owner.phase() != Phase::Free {
                found.push(Slot { bucket: index, owner, record });
            }
        }
    }
    found
}

/// Put a flow where it belongs; panics where both its buckets are full.
pub fn add_slot<A: Address>(world: &mut impl Store<A>, owner: Owner, record: Record<A>) {
    let config = world.config();
    let key = FlowKey::of(owner, &record);
    for index in key.buckets(config.seed, buckets::<A>(&config) - 1) {
        let mut bucket = world.bucket_at(index);
        if let Some(place) = (0..SLOTS).find(|place| bucket.owners[*place].phase() == Phase::Free) {
            bucket.owners[place] = owner;
            bucket.records[place] = record;
            world.set_bucket(index, bucket);
            return;
        }
    }
    panic!("no room for {key:?}");
}

/// Let time pass: everything that has a time stamp becomes older by `span`.
pub fn age<A: Address>(world: &mut impl Store<A>, span: Ticks) {
    let micros = (u64::from(span.raw()) << Ticks::SHIFT) / 1_000;
    let older = |stamp: u32| stamp.wrapping_sub(span.raw());
    for index in 0..buckets::<A>(&world.config()) {
        let mut bucket = world.bucket_at(index);
        for place in 0..SLOTS {
            let (owner, record) = (bucket.owners[place], &mut bucket.records[place]);
            record.seen = older(record.seen);
            let mode = world.backend_at(record.backend).mode;
            if lb_common::abi::mode::is_one_sided(mode) {
                record.word = older(record.word);
            } else if owner.phase() == Phase::Embryonic {
                record.word = record.word.wrapping_sub(micros as u32);
            }
        }
        world.set_bucket(index, bucket);
    }
    for index in 0..world.cell_count() {
        let mut cell = world.cell_at(index);
        if cell.owner.phase() != Phase::Free {
            cell.seen = older(cell.seen);
            if cell.owner.phase() == Phase::Embryonic {
                cell.word = cell.word.wrapping_sub(micros as u32);
            }
            world.set_cell(index, cell);
        }
    }
    for (key, mut service) in world.services() {
        service.empty_since = older(service.empty_since);
        world.set_service(key, service);
    }
    for (key, mut fragment) in world.fragments() {
        fragment.seen = older(fragment.seen);
        world.set_fragment(key, fragment);
    }
    let earlier = |word: u64| u64::from(older((word >> 32) as u32)) << 32 | word & 0xffff_ffff;
    for (key, word) in world.all_tokens() {
        world.set_tokens(key, earlier(word));
    }
    let words = world.errors();
    world.set_errors(words.map(|word| if word == 0 { 0 } else { earlier(word) }));
    let until = world.heard_at();
    world.set_heard_at(Ticks::from_raw(older(until.raw())));
    for service in 0..=LAST_ID {
        let since = world.full_at(service);
        if since != 0 {
            world.set_full_at(service, older(since));
        }
    }
    for backend in 0..=LAST_ID {
        let word = world.narrowed_at(backend);
        if word != 0 {
            world.set_narrowed_at(backend, earlier(word));
        }
    }
    world.open_gates();
}

/// Everything that counts, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// By service and reason, what is not zero.
    pub reasons: Vec<(u16, Reason, u64)>,
    /// By row, those of the scene.
    pub accounts: Vec<(u32, Account)>,
    /// By backend.
    pub traffic: Vec<Traffic>,
}

/// The rows of accounts that the scene uses: of backends, of servers, of services.
pub fn rows() -> Vec<u32> {
    let backends = (0..=LAST_ID).map(u32::from);
    let servers = (1..=LAST_SERVER).map(server_account);
    let services = (1..=LAST_ID).map(service_account);
    backends.chain(servers).chain(services).collect()
}

impl Counters {
    /// Read them all.
    pub fn of(world: &impl World) -> Self {
        let ids = 0..=LAST_ID;
        let pairs = ids.clone().flat_map(|service| Reason::ALL.map(|reason| (service, reason)));
        Self {
            reasons: pairs
                .map(|(service, reason)| (service, reason, world.reason(service, reason)))
                .filter(|(.., count)| *count != 0)
                .collect(),
            accounts: rows().into_iter().map(|row| (row, world.account_at(row))).collect(),
            traffic: ids.map(|id| world.traffic_of(id)).collect(),
        }
    }
}
