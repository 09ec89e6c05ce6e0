//! The world of the data path in memory: one instance's tables, its clock and its chance.

use std::{
    cell::Cell,
    collections::HashMap,
    hash::Hash,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use lb_common::{
    Address, Be32, Be128, MAX_BACKENDS, Reason, Ticks,
    abi::{
        Account, Backend, BucketKey, Endpoint, EndpointKey, Fragment, FragmentKey, Interface, ProgramConfig,
        Ranges, RangesKey, Service, ServiceKey,
    },
    cell::{Owner, PortCell, Side, Signs, Worth},
    event::Event,
    flow::{FlowKey, Record, SLOTS},
};
use lb_ebpf::{
    Parcel, Tables, Verdict, claim, flows, proceed, seat, select,
    tables::{Block, NOWHERE, Ring},
    verdict::Kind,
};

use crate::{
    bytes::Bytes,
    memory::{BucketWords, CellWords},
    pace::step,
};

/// Ids that a world has of each kind: services, backends, servers.
pub const IDS: u32 = 64;

/// Tries when other CPUs open the same account, as in the kernel.
const TRIES: u32 = 4;

/// Stages that a packet goes through at most.
const STAGES: u32 = 8;

/// A map of the kernel that only the agent writes, or whose elements are replaced whole.
#[derive(Debug)]
pub struct Shelf<K, V>(RwLock<HashMap<K, V>>);

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Self(RwLock::new(HashMap::new()))
    }
}

impl<K: Eq + Hash, V: Copy> Shelf<K, V> {
    /// What stands at a key.
    pub fn get(&self, key: &K) -> Option<V> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Put something there.
    pub fn put(&self, key: K, value: V) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, value);
    }
}

/// The tables of one family.
pub struct Half<A: Address> {
    /// Services.
    pub services: Shelf<ServiceKey<A>, Service>,
    /// Ranges of ports.
    pub ranges: Shelf<RangesKey<A>, Ranges>,
    /// Backends by id.
    pub backends: Shelf<u16, Backend<A>>,
    /// Source addresses by number.
    pub sources: Shelf<u16, A>,
    /// Endpoints.
    pub endpoints: Shelf<EndpointKey<A>, Endpoint>,
    /// Port cells.
    pub cells: Vec<CellWords>,
    /// The flow table.
    pub flows: Vec<BucketWords>,
    /// Fragmented packets under way.
    pub fragments: Shelf<FragmentKey<A>, Fragment<A>>,
    tokens: Shelf<BucketKey<A>, u64>,
}

impl<A: Address> Half<A> {
    fn new(cells: usize, buckets: usize) -> Self {
        Self {
            services: Shelf::default(),
            ranges: Shelf::default(),
            backends: Shelf::default(),
            sources: Shelf::default(),
            endpoints: Shelf::default(),
            cells: std::iter::repeat_with(CellWords::default).take(cells).collect(),
            flows: std::iter::repeat_with(BucketWords::default).take(buckets).collect(),
            fragments: Shelf::default(),
            tokens: Shelf::default(),
        }
    }

    /// A bucket, and a slot's place in it.
    pub fn bucket(&self, slot: u32) -> Option<(&BucketWords, usize)> {
        Some((self.flows.get(slot as usize / SLOTS)?, slot as usize % SLOTS))
    }

    /// Slots of the flow table.
    pub fn slots(&self) -> u32 {
        (self.flows.len() * SLOTS) as u32
    }
}

/// Who has held each port cell, by the moments at which they were given away.
#[derive(Debug, Default)]
pub struct Claims {
    moment: AtomicU64,
    given: Mutex<HashMap<(u8, u32), Vec<(u64, Holder)>>>,
}

/// Family's words of the client's address, its port, and the (service, backend) pair.
type Holder = ((u64, u64), u16, u16);

impl Claims {
    /// This moment; no other gets the same.
    pub fn moment(&self) -> u64 {
        self.moment.fetch_add(1, SeqCst)
    }

    fn give<A: Address>(&self, index: u32, body: &PortCell<A>) {
        let holder = (body.client().words(), body.owner.client_port().host(), body.backend);
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.entry((A::VERSION, index)).or_default().push((self.moment(), holder));
    }

    /// Whether a client has held a cell at `moment` or later.
    pub fn held<A: Address>(&self, index: u32, client: A, port: u16, pair: u16, moment: u64) -> bool {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(holders) = given.get(&(A::VERSION, index)) else { return false };
        let last = holders.iter().rposition(|(_, holder)| *holder == (client.words(), port, pair));
        last.is_some_and(|place| holders.get(place + 1).is_none_or(|(until, _)| *until > moment))
    }
}

/// An account's words.
#[derive(Default)]
struct AccountWords {
    opened: AtomicU64,
    closed: AtomicU64,
    by_agent: AtomicU64,
    limit: AtomicU64,
}

/// One instance.
pub struct World {
    /// The program's constants.
    pub config: ProgramConfig,
    /// IPv4.
    pub four: Half<Be32>,
    /// IPv6.
    pub six: Half<Be128>,
    /// Interfaces by id.
    pub interfaces: Shelf<u16, Interface>,
    /// Slots of the rings.
    pub ring: Vec<AtomicU32>,
    /// Whether ICMP errors may be made.
    pub errors: AtomicBool,
    /// Events told.
    pub events: AtomicU64,
    /// Who has held each port cell, if that is to be known.
    pub claims: Option<Claims>,
    clock: AtomicU32,
    chance: AtomicU64,
    tickets: Vec<AtomicU32>,
    full_since: Vec<AtomicU32>,
    accounts: Vec<AccountWords>,
    counters: Vec<AtomicU64>,
}

thread_local! {
    /// What a stage has handed over to the next, on this CPU.
    static PARCEL: Cell<Option<Parcel>> = const { Cell::new(None) };
}

fn zeros<T: Default>(count: u32) -> Vec<T> {
    std::iter::repeat_with(T::default).take(count as usize).collect()
}

impl World {
    /// An empty world with so many cells for each family, and slots of rings.
    pub fn new(config: ProgramConfig, cells: usize, ring: u32, seed: u64) -> Self {
        let buckets = |family: usize| config.bucket_masks[family] as usize + 1;
        Self {
            four: Half::new(cells, buckets(0)),
            six: Half::new(cells, buckets(1)),
            config,
            interfaces: Shelf::default(),
            ring: zeros(ring),
            errors: AtomicBool::new(true),
            events: AtomicU64::new(0),
            claims: None,
            clock: AtomicU32::new(1_000),
            chance: AtomicU64::new(seed),
            tickets: zeros(IDS),
            full_since: zeros(IDS),
            accounts: zeros(3 * IDS),
            counters: zeros(IDS * Reason::SLOTS),
        }
    }

    /// Let time pass.
    pub fn pass(&self, span: Ticks) {
        self.clock.fetch_add(span.raw(), SeqCst);
    }

    /// How often a reason was counted, for all services.
    pub fn counted(&self, reason: Reason) -> u64 {
        (0..IDS as u16).map(|id| self.counters[reason.counter(id) as usize].load(SeqCst)).sum()
    }

    /// A connection that the agent ended.
    pub fn close_by_agent(&self, row: u32) {
        if let Some(account) = self.words(row) {
            step();
            account.by_agent.fetch_add(1, SeqCst);
        }
    }

    /// Limit the live connections of a row; 0: no limit.
    pub fn limit(&self, row: u32, limit: u64) {
        if let Some(account) = self.words(row) {
            account.limit.store(limit, SeqCst);
        }
    }

    fn words(&self, row: u32) -> Option<&AccountWords> {
        let (kind, id) = (row / MAX_BACKENDS, row % MAX_BACKENDS);
        if id < IDS { self.accounts.get((kind * IDS + id) as usize) } else { None }
    }

    /// The whole way of a packet, stage by stage; its end.
    pub fn run(&self, frame: &mut Bytes) -> Verdict {
        let mut verdict = lb_ebpf::enter(frame, self);
        for _ in 0..STAGES {
            match verdict.kind {
                Kind::Continue => verdict = proceed(verdict.stage, frame, self),
                Kind::Pass | Kind::Forward => return verdict,
                Kind::Note | Kind::Drop | Kind::Answer => {
                    lb_ebpf::World::count(self, verdict.service, verdict.reason);
                    return verdict;
                }
            }
        }
        panic!("the packet's way does not end: {verdict:?}");
    }
}

impl lb_ebpf::World for World {
    fn config(&self) -> ProgramConfig {
        self.config
    }

    fn now(&self) -> Ticks {
        Ticks::from_raw(self.clock.load(SeqCst))
    }

    fn micros(&self) -> u32 {
        (u64::from(self.clock.load(SeqCst)) << Ticks::SHIFT).wrapping_div(1_000) as u32
    }

    fn random(&self) -> u32 {
        let drawn = self.chance.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        (lb_common::flow::mix(drawn) >> 32) as u32
    }

    fn vague(&self, offset: usize) -> usize {
        assert!(offset <= 31, "offset {offset} does not fit the kernel's mask");
        offset
    }

    fn ticket(&self, service: u16) -> u32 {
        step();
        self.tickets.get(usize::from(service)).map_or(0, |ticket| ticket.fetch_add(1, SeqCst))
    }

    fn slot(&self, index: u32) -> Option<u32> {
        step();
        self.ring.get(index as usize).map(|slot| slot.load(Relaxed))
    }

    fn interface(&self, id: u16) -> Option<Interface> {
        self.interfaces.get(&id).filter(|interface| interface.index != 0)
    }

    fn account(&self, row: u32) -> Option<Account> {
        let account = self.words(row)?;
        step();
        let opened = account.opened.load(Relaxed);
        step();
        Some(Account {
            opened,
            closed: account.closed.load(Relaxed),
            closed_by_agent: account.by_agent.load(Relaxed),
            limit: account.limit.load(Relaxed),
        })
    }

    fn open_account(&self, row: u32) {
        if let Some(account) = self.words(row) {
            step();
            account.opened.fetch_add(1, SeqCst);
        }
    }

    fn try_open_account(&self, row: u32) -> bool {
        for _ in 0..TRIES {
            let Some(account) = lb_ebpf::World::account(self, row) else { return false };
            if account.is_full() {
                return false;
            }
            step();
            let words = self.words(row).map(|words| &words.opened);
            let next = account.opened.wrapping_add(1);
            if words.is_some_and(|word| word.compare_exchange(account.opened, next, SeqCst, SeqCst).is_ok()) {
                return true;
            }
        }
        false
    }

    fn close_account(&self, row: u32) {
        if let Some(account) = self.words(row) {
            step();
            account.closed.fetch_add(1, SeqCst);
        }
    }

    fn full_since(&self, service: u16) -> Ticks {
        Ticks::from_raw(self.full_since.get(usize::from(service)).map_or(0, |since| since.load(Relaxed)))
    }

    fn set_full_since(&self, service: u16, since: Ticks) {
        if let Some(word) = self.full_since.get(usize::from(service)) {
            word.store(since.raw(), Relaxed);
        }
    }

    fn spend_error(&self) -> bool {
        self.errors.load(Relaxed)
    }

    fn hand_over(&self, parcel: &Parcel) {
        PARCEL.set(Some(*parcel));
    }

    fn after(&self, owner: Owner, side: Side, signs: Signs) -> Owner {
        owner.after(side, signs)
    }

    fn handed_over(&self) -> Parcel {
        PARCEL.get().expect("a stage that asks for it is reached by handing over only")
    }

    fn count(&self, service: u16, reason: Reason) {
        if let Some(counter) = self.counters.get(reason.counter(service) as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    fn gate(&self, _: u16, _: u8) -> bool {
        true
    }

    fn report(&self, _: &Event) {
        self.events.fetch_add(1, Relaxed);
    }
}

/// A world that has the tables of a family.
pub trait Has<A: Address> {
    /// They.
    fn half(&self) -> &Half<A>;
}

impl Has<Be32> for World {
    fn half(&self) -> &Half<Be32> {
        &self.four
    }
}

impl Has<Be128> for World {
    fn half(&self) -> &Half<Be128> {
        &self.six
    }
}

impl<A: Address> Tables<A> for World
where
    Self: Has<A>,
{
    fn service(&self, key: &ServiceKey<A>) -> Option<Service> {
        self.half().services.get(key)
    }

    fn ranges(&self, key: &RangesKey<A>) -> Option<Ranges> {
        self.half().ranges.get(key)
    }

    fn backend(&self, id: u16) -> Option<Backend<A>> {
        // An array in the kernel: every id has an element.
        self.half().backends.get(&id).or((u32::from(id) < MAX_BACKENDS).then(Backend::default))
    }

    fn source(&self, number: u16) -> Option<A> {
        self.half().sources.get(&number)
    }

    fn endpoint(&self, key: &EndpointKey<A>) -> Option<Endpoint> {
        self.half().endpoints.get(key)
    }

    fn holder(&self, index: u32) -> Option<(Owner, Ticks)> {
        let cell = self.half().cells.get(index as usize)?;
        let owner = cell.owner();
        Some((owner, Ticks::from_raw(cell.seen())))
    }

    fn cell(&self, index: u32) -> Option<PortCell<A>> {
        self.half().cells.get(index as usize).map(CellWords::load::<A>)
    }

    fn swap_owner(&self, index: u32, before: Owner, after: Owner) -> bool {
        self.half().cells.get(index as usize).is_some_and(|cell| cell.swap(before, after))
    }

    fn fill_cell(&self, index: u32, busy: Owner, body: &PortCell<A>) {
        if let Some(cell) = self.half().cells.get(index as usize) {
            if let Some(claims) = &self.claims {
                claims.give(index, body);
            }
            cell.fill(busy, body);
        }
    }

    fn touch_cell(&self, index: u32, now: Ticks) {
        if let Some(cell) = self.half().cells.get(index as usize) {
            cell.touch(now.raw());
        }
    }

    fn answer_cell(&self, index: u32, server_isn: u32) {
        if let Some(cell) = self.half().cells.get(index as usize) {
            cell.answer(server_isn);
        }
    }

    fn flow_owner(&self, slot: u32) -> Option<Owner> {
        self.half().bucket(slot).map(|(bucket, place)| bucket.owner(place))
    }

    fn flow_record(&self, slot: u32) -> Option<Record<A>> {
        self.half().bucket(slot).map(|(bucket, place)| bucket.record::<A>(place))
    }

    fn swap_flow(&self, slot: u32, before: Owner, after: Owner) -> bool {
        self.half().bucket(slot).is_some_and(|(bucket, place)| bucket.swap(place, before, after))
    }

    fn fill_flow(&self, slot: u32, busy: Owner, owner: Owner, record: &Record<A>) {
        if let Some((bucket, place)) = self.half().bucket(slot) {
            bucket.fill(place, busy, owner, record);
        }
    }

    fn touch_flow(&self, slot: u32, now: Ticks) {
        if let Some((bucket, place)) = self.half().bucket(slot) {
            bucket.touch(place, now.raw());
        }
    }

    fn answer_flow(&self, slot: u32, word: u32) {
        if let Some((bucket, place)) = self.half().bucket(slot) {
            bucket.answer(place, word);
        }
    }

    fn fragment(&self, key: &FragmentKey<A>) -> Option<Fragment<A>> {
        self.half().fragments.get(key)
    }

    fn keep_fragment(&self, key: &FragmentKey<A>, fragment: &Fragment<A>) {
        self.half().fragments.put(*key, *fragment);
    }

    fn tokens(&self, key: &BucketKey<A>) -> u64 {
        self.half().tokens.get(key).unwrap_or(0)
    }

    fn swap_tokens(&self, key: &BucketKey<A>, before: u64, after: u64) -> bool {
        let mut tokens = self.half().tokens.0.write().unwrap_or_else(PoisonError::into_inner);
        let word = tokens.entry(*key).or_default();
        let still = *word == before;
        if still {
            *word = after;
        }
        still
    }

    fn draw(&self, ring: Ring) -> u16 {
        select::draw::<A, _>(ring, self)
    }

    fn worth(&self, index: u32, now: Ticks) -> Worth {
        claim::worth::<A, _>(index, now, self)
    }

    fn search(&self, block: Block, now: Ticks) -> Option<u32> {
        claim::search::<A, _>(block, now, self)
    }

    fn open(&self, backend: u16) {
        seat::open::<A, _>(backend, self);
    }

    fn close(&self, backend: u16) {
        seat::close::<A, _>(backend, self);
    }

    fn slot_worth(&self, slot: u32, now: Ticks) -> Worth {
        flows::slot_worth::<A, _>(slot, now, self)
    }

    fn find_slot(&self, key: &FlowKey<A>, except: u32) -> u32 {
        flows::find_slot(key, except, self)
    }

    fn place(&self, buckets: [u32; 2], now: Ticks) -> u32 {
        let slot = flows::place::<A, _>(buckets, now, self);
        assert!(slot == NOWHERE || slot < self.half().slots(), "a slot beyond the table");
        slot
    }
}
