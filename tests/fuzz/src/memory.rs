//! The arrays that the kernel and the agent share: port cells and the flow table, as atomic words.
//!
//! Readers load an owner before its body, and each word once; who fills a body has made its owner busy, and publishes
//! the new owner by an exchange. Bodies are read and written without any order of their own, as the kernel does.

use std::sync::atomic::{
    AtomicU16, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use lb_common::{
    Address, Be16,
    abi::Hop,
    cell::{Owner, PortCell},
    flow::{Record, SLOTS, Way},
};

use crate::pace::step;

/// What an owner word does not hold of an address.
#[derive(Default)]
struct Rest([AtomicU64; 2]);

impl Rest {
    fn load<A: Address>(&self) -> A::Rest {
        step();
        let low = self.0[0].load(Relaxed);
        step();
        A::from_words((low, self.0[1].load(Relaxed))).rest()
    }

    fn store<A: Address>(&self, rest: A::Rest) {
        let (low, high) = A::whole(0, rest).words();
        step();
        self.0[0].store(low, Relaxed);
        step();
        self.0[1].store(high, Relaxed);
    }
}

macro_rules! word {
    ($load:ident, $store:ident, $atomic:ty, $value:ty) => {
        fn $load(word: &$atomic) -> $value {
            step();
            word.load(Relaxed)
        }
        fn $store(word: &$atomic, value: $value) {
            step();
            word.store(value, Relaxed);
        }
    };
}
word!(load16, store16, AtomicU16, u16);
word!(load32, store32, AtomicU32, u32);
word!(load64, store64, AtomicU64, u64);

fn owner(word: &AtomicU64) -> Owner {
    step();
    Owner(word.load(SeqCst))
}

fn swap(word: &AtomicU64, before: Owner, after: Owner) -> bool {
    step();
    word.compare_exchange(before.0, after.0, SeqCst, SeqCst).is_ok()
}

/// A port cell's words.
#[derive(Default)]
pub struct CellWords {
    owner: AtomicU64,
    hop: AtomicU64,
    seen: AtomicU32,
    word: AtomicU32,
    backend: AtomicU16,
    service_port: AtomicU16,
    vlan: AtomicU16,
    rest: Rest,
}

impl CellWords {
    /// Its owner.
    pub fn owner(&self) -> Owner {
        owner(&self.owner)
    }

    /// Its time stamp.
    pub fn seen(&self) -> u32 {
        load32(&self.seen)
    }

    /// All of it, the owner first.
    pub fn load<A: Address>(&self) -> PortCell<A> {
        PortCell {
            owner: owner(&self.owner),
            hop: Hop::from_word(load64(&self.hop)),
            seen: load32(&self.seen),
            word: load32(&self.word),
            backend: load16(&self.backend),
            service_port: Be16::from_wire(load16(&self.service_port)),
            vlan: load16(&self.vlan),
            pad: 0,
            client: self.rest.load::<A>(),
        }
    }

    /// Replace the owner if it is still `before`.
    pub fn swap(&self, before: Owner, after: Owner) -> bool {
        swap(&self.owner, before, after)
    }

    /// Write the body, then the owner. The caller has made the cell busy.
    pub fn fill<A: Address>(&self, busy: Owner, body: &PortCell<A>) {
        store64(&self.hop, body.hop.word());
        store32(&self.seen, body.seen);
        store32(&self.word, body.word);
        store16(&self.backend, body.backend);
        store16(&self.service_port, body.service_port.wire());
        store16(&self.vlan, body.vlan);
        self.rest.store::<A>(body.client);
        assert!(swap(&self.owner, busy, body.owner), "somebody moved a busy cell");
    }

    /// Stamp it.
    pub fn touch(&self, now: u32) {
        store32(&self.seen, now);
    }

    /// Record the server's sequence number.
    pub fn answer(&self, word: u32) {
        store32(&self.word, word);
    }
}

/// A record's words.
#[derive(Default)]
struct RecordWords {
    way: AtomicU64,
    seen: AtomicU32,
    word: AtomicU32,
    backend: AtomicU16,
    service: AtomicU16,
    service_port: AtomicU16,
    vlan: AtomicU16,
    rest: Rest,
}

/// A bucket of the flow table.
#[derive(Default)]
pub struct BucketWords {
    owners: [AtomicU64; SLOTS],
    records: [RecordWords; SLOTS],
}

impl BucketWords {
    /// Who stands in a slot.
    pub fn owner(&self, slot: usize) -> Owner {
        owner(&self.owners[slot])
    }

    /// A slot's record.
    pub fn record<A: Address>(&self, slot: usize) -> Record<A> {
        let words = &self.records[slot];
        Record {
            way: Way(load64(&words.way)),
            seen: load32(&words.seen),
            word: load32(&words.word),
            backend: load16(&words.backend),
            service: load16(&words.service),
            service_port: Be16::from_wire(load16(&words.service_port)),
            vlan: load16(&words.vlan),
            client: words.rest.load::<A>(),
        }
    }

    /// Replace a slot's owner if it is still `before`.
    pub fn swap(&self, slot: usize, before: Owner, after: Owner) -> bool {
        swap(&self.owners[slot], before, after)
    }

    /// Write a slot's record, then its owner. The caller has made the slot busy.
    pub fn fill<A: Address>(&self, slot: usize, busy: Owner, after: Owner, record: &Record<A>) {
        let words = &self.records[slot];
        store64(&words.way, record.way.0);
        store32(&words.seen, record.seen);
        store32(&words.word, record.word);
        store16(&words.backend, record.backend);
        store16(&words.service, record.service);
        store16(&words.service_port, record.service_port.wire());
        store16(&words.vlan, record.vlan);
        words.rest.store::<A>(record.client);
        assert!(swap(&self.owners[slot], busy, after), "somebody moved a busy slot");
    }

    /// Stamp a slot.
    pub fn touch(&self, slot: usize, now: u32) {
        store32(&self.records[slot].seen, now);
    }

    /// Record the server's sequence number, or when the flow began.
    pub fn answer(&self, slot: usize, word: u32) {
        store32(&self.records[slot].word, word);
    }
}
