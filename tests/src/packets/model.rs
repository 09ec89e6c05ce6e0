//! The data path's library over collections of `std`: what the kernel's programs are compared with.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
};

use lb_common::{
    Be32, Be128, Reason, Ticks,
    abi::{Account, Interface, ProgramConfig, Stations, Traffic, exit},
    cell::{Owner, Side, Signs},
    event::Event,
};
use lb_ebpf::{
    Parcel, Verdict, World as _,
    deliver::by_stack,
    enter, proceed,
    source_rate::taken,
    verdict::{Kind, Trouble, Way},
};

use super::{
    frame::Bytes,
    model_family::Family,
    world::{Action, HEARD_FOR, World},
};

/// Index of the interface that packets come in by, as in the kernel's test-run: the loopback's.
const INGRESS: u32 = 1;

/// Tail calls that the kernel allows on one packet's way (include/linux/bpf.h, `MAX_TAIL_CALL_CNT`).
const STAGES: usize = 33;

/// ICMP errors a second, and at once after a rest, as the kernel's shell has them.
pub const ERRORS: (u32, u32) = (1_000, 50);

/// The tables.
#[derive(Default)]
pub struct Model {
    pub(super) config: ProgramConfig,
    now: Ticks,
    heard_until: Ticks,
    chance: Cell<u64>,
    parcel: Cell<Option<Parcel>>,
    errors: Cell<[u64; 3]>,
    ring: HashMap<u32, u32>,
    tickets: RefCell<HashMap<u16, u32>>,
    full: RefCell<HashMap<u16, u32>>,
    narrowed: RefCell<HashMap<u16, u64>>,
    interfaces: HashMap<u16, Interface>,
    accounts: RefCell<HashMap<u32, Account>>,
    traffic: RefCell<HashMap<u16, Traffic>>,
    reasons: RefCell<HashMap<(u16, Reason), u64>>,
    gates: RefCell<HashMap<(u16, u8), u32>>,
    events: RefCell<Vec<Event>>,
    pub(super) ipv4: Family<Be32>,
    pub(super) ipv6: Family<Be128>,
}

impl Model {
    /// Empty tables for a program with these constants.
    pub fn new(config: ProgramConfig) -> Self {
        let mut model = Self { config, ..Self::default() };
        model.clear();
        model
    }

    /// What the program's shell does with a verdict: count it and turn it into an action.
    fn act(&self, verdict: Verdict) -> Action {
        let Verdict { kind, reason, service, backend, interface, bytes, way, .. } = verdict;
        match kind {
            Kind::Continue => panic!("a packet's way has no end"),
            Kind::Pass => Action::Pass,
            Kind::Note => {
                self.count(service, reason);
                Action::Pass
            }
            Kind::Drop => {
                self.count(service, reason);
                Action::Drop
            }
            Kind::Answer => {
                self.count(service, reason);
                self.leave(self.config.interface)
            }
            Kind::Forward => {
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
            Some(interface) if by_stack(interface.exit, id, &self.config) => Action::Onward,
            Some(interface) if interface.exit != exit::REDIRECT && interface.index == INGRESS => {
                Action::Transmit
            }
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
        *self = Self { config: self.config, ..Self::default() };
        // Any moment will do, but not zero: what was never stamped must look old, not fresh.
        self.now = Ticks::from_raw(1 << 20);
        self.heard_until = self.now.plus(HEARD_FOR);
        self.chance = Cell::new(self.config.seed);
        let [ipv4, ipv6] = self.config.bucket_masks;
        let cells = self.cell_count();
        self.ipv4 = Family::new(cells, ipv4 + 1);
        self.ipv6 = Family::new(cells, ipv6 + 1);
    }

    fn run(&mut self, packet: &[u8]) -> (Action, Vec<u8>) {
        let mut bytes = Bytes(packet.to_vec());
        let mut verdict = enter(&mut bytes, self);
        for _ in 0..STAGES {
            if verdict.kind != Kind::Continue {
                return (self.act(verdict), bytes.0);
            }
            assert_eq!(bytes.0, packet, "a packet went on to another stage after it had been changed");
            verdict = proceed(verdict.stage, &mut bytes, self);
        }
        panic!("a packet's way has no end: {packet:02x?}");
    }

    fn shortest(&self) -> usize {
        0
    }

    fn set_ring(&mut self, offset: u32, slots: &[u32]) {
        self.ring.extend((offset..).zip(slots.iter().copied()));
    }

    fn set_interface(&mut self, id: u16, interface: Interface) {
        self.interfaces.insert(id, interface);
    }

    fn interface_at(&self, id: u16) -> Interface {
        self.interfaces.get(&id).copied().unwrap_or_default()
    }

    fn set_account(&mut self, row: u32, account: Account) {
        self.accounts.get_mut().insert(row, account);
    }

    fn account_at(&self, row: u32) -> Account {
        self.accounts.borrow().get(&row).copied().unwrap_or_default()
    }

    fn traffic_of(&self, id: u16) -> Traffic {
        self.traffic.borrow().get(&id).copied().unwrap_or_default()
    }

    fn reason(&self, service: u16, reason: Reason) -> u64 {
        self.reasons.borrow().get(&(service, reason)).copied().unwrap_or_default()
    }

    fn heard_at(&self) -> Ticks {
        self.heard_until
    }

    fn set_heard_at(&mut self, until: Ticks) {
        self.heard_until = until;
    }

    fn full_at(&self, service: u16) -> u32 {
        self.full.borrow().get(&service).copied().unwrap_or_default()
    }

    fn set_full_at(&mut self, service: u16, since: u32) {
        self.full.get_mut().insert(service, since);
    }

    fn narrowed_at(&self, backend: u16) -> u64 {
        self.narrowed.borrow().get(&backend).copied().unwrap_or_default()
    }

    fn set_narrowed_at(&mut self, backend: u16, word: u64) {
        self.narrowed.get_mut().insert(backend, word);
    }

    fn errors(&self) -> [u64; 3] {
        self.errors.get()
    }

    fn set_errors(&mut self, words: [u64; 3]) {
        self.errors.set(words);
    }

    fn open_gates(&mut self) {
        self.gates.get_mut().clear();
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(self.events.get_mut())
    }
}

impl lb_ebpf::World for Model {
    fn config(&self) -> ProgramConfig {
        self.config
    }

    fn stations(&self) -> Stations {
        super::scene::stations()
    }

    fn now(&self) -> Ticks {
        self.now
    }

    fn heard_until(&self) -> Ticks {
        self.heard_until
    }

    /// The model's clock stands still; cases make things old by their stamps.
    fn micros(&self) -> u32 {
        3_000_000_000
    }

    /// A linear congruential generator (D. Knuth, MMIX), so that every run is the same.
    fn random(&self) -> u32 {
        let next =
            self.chance.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.chance.set(next);
        (next >> 32) as u32
    }

    fn vague(&self, offset: usize) -> usize {
        assert!(offset < 32, "the kernel keeps five bits of {offset}");
        offset
    }

    fn ticket(&self, service: u16) -> u32 {
        let mut tickets = self.tickets.borrow_mut();
        let ticket = tickets.entry(service).or_default();
        *ticket += 1;
        *ticket - 1
    }

    fn slot(&self, index: u32) -> Option<u32> {
        (index < lb_common::RING_SLOTS).then(|| self.ring.get(&index).copied().unwrap_or_default())
    }

    fn interface(&self, id: u16) -> Option<Interface> {
        self.interfaces.get(&id).copied().filter(|interface| interface.index != 0)
    }

    fn account(&self, row: u32) -> Option<Account> {
        (row < lb_common::abi::ACCOUNTS).then(|| self.account_at(row))
    }

    fn open_account(&self, row: u32) {
        self.accounts.borrow_mut().entry(row).or_default().opened += 1;
    }

    fn try_open_account(&self, row: u32) -> bool {
        let room = !self.account_at(row).is_full();
        if room {
            self.open_account(row);
        }
        room
    }

    fn close_account(&self, row: u32) {
        self.accounts.borrow_mut().entry(row).or_default().closed += 1;
    }

    fn full_since(&self, service: u16) -> Ticks {
        Ticks::from_raw(self.full_at(service))
    }

    fn set_full_since(&self, service: u16, since: Ticks) {
        self.full.borrow_mut().insert(service, since.raw());
    }

    fn narrowed(&self, backend: u16) -> u64 {
        self.narrowed_at(backend)
    }

    fn narrow(&self, backend: u16, word: u64) {
        self.narrowed.borrow_mut().insert(backend, word);
    }

    fn spend_error(&self, trouble: Trouble) -> bool {
        let mut words = self.errors.get();
        let after = taken(words[trouble as usize], self.now, ERRORS.0, ERRORS.1);
        if let Some(after) = after {
            words[trouble as usize] = after;
            self.errors.set(words);
        }
        after.is_some()
    }

    fn after(&self, owner: Owner, side: Side, signs: Signs) -> Owner {
        owner.after(side, Signs::from_bits(signs.bits()))
    }

    fn hand_over(&self, parcel: &Parcel) {
        self.parcel.set(Some(*parcel));
    }

    fn handed_over(&self) -> Parcel {
        self.parcel.get().expect("nothing was handed over")
    }

    fn count(&self, service: u16, reason: Reason) {
        *self.reasons.borrow_mut().entry((service, reason)).or_default() += 1;
    }

    fn gate(&self, backend: u16, kind: u8) -> bool {
        self.gates.borrow_mut().insert((backend, kind), self.now.raw()) != Some(self.now.raw())
    }

    fn report(&self, event: &Event) {
        self.events.borrow_mut().push(*event);
    }
}
