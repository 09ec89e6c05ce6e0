//! The world of the data path in memory: one instance's tables, its clock and its chance.

use std::{
    cell::Cell,
    sync::{
        Mutex,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use lb_common::{
    Address, Be32, Be128, MAX_BACKENDS, Reason, Ticks,
    abi::{Account, Interface, ProgramConfig, Stations},
    cell::{Owner, Side, Signs},
    event::Event,
};
use lb_ebpf::{Parcel, Verdict, proceed, verdict::Kind};

use crate::{
    bytes::Bytes,
    claims::Claims,
    half::{Half, Shelf},
    pace::step,
};

/// Ids that a world has of each kind: services, backends, servers.
pub const IDS: u32 = 64;

/// Tries when other CPUs open the same account, as in the kernel.
const TRIES: u32 = 4;

/// Stages that a packet goes through at most.
const STAGES: u32 = 8;

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
    /// Held by whoever publishes: there is one agent.
    pub publishing: Mutex<()>,
    /// Who has held each port cell, if that is to be known.
    pub claims: Option<Claims>,
    clock: AtomicU32,
    chance: AtomicU64,
    tickets: Vec<AtomicU32>,
    full_since: Vec<AtomicU32>,
    narrowed: Vec<AtomicU64>,
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
            publishing: Mutex::new(()),
            claims: None,
            clock: AtomicU32::new(1_000),
            chance: AtomicU64::new(seed),
            tickets: zeros(IDS),
            full_since: zeros(IDS),
            narrowed: zeros(IDS),
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

    fn stations(&self) -> Stations {
        Stations::ANY
    }

    fn now(&self) -> Ticks {
        Ticks::from_raw(self.clock.load(SeqCst))
    }

    /// The agent is always heard.
    fn heard_until(&self) -> Ticks {
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

    fn narrowed(&self, backend: u16) -> u64 {
        self.narrowed.get(usize::from(backend)).map_or(0, |word| word.load(Relaxed))
    }

    fn narrow(&self, backend: u16, word: u64) {
        if let Some(place) = self.narrowed.get(usize::from(backend)) {
            place.store(word, Relaxed);
        }
    }

    fn spend_error(&self, _: lb_ebpf::verdict::Trouble) -> bool {
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
