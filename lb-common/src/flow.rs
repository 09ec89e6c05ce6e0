//! Flows: which way the packets of a client's connection go.
//!
//! A family's flow table is one array of [`Bucket`]s. A flow stands in one of the two buckets that the hash of its key
//! names, whichever was emptier (Y. Azar, A. Broder, A. Karlin, E. Upfal, "Balanced Allocations", 1999): one of the
//! array's first half, or one of its second; the first, where both are as empty, which evens them out more than chance
//! would (B. Vöcking, "How Asymmetry Helps Load Balancing", 2003). With eight slots in each, a million slots take
//! flows to three quarters before the first finds both of its buckets full; of those that come between 80 % and 85 %
//! one in eighty does, between 85 % and 90 % one in twelve. A bucket's owner words, the first 64 bytes of it, are one
//! cache line: a look-up reads one or two of those, and the record.
//!
//! Every change of hands and of phase is one compare-and-swap of the slot's [`Owner`], as with port cells, and the
//! same rules hold: see [`cell`](crate::cell). The agent maps the array into its memory, so that a sweep over a
//! million flows costs no system call.
//!
//! The slot of an `snat` connection is [`Phase::Linked`](crate::cell::Phase): its port cell knows how far it has come. In
//! the other modes the slot itself does.

use crate::{Address, Be16, Be32, Be128, Ticks, abi::Hop, cell::Owner};

/// Slots of a bucket.
pub const SLOTS: usize = 8;

/// Key of a flow: a client's tuple as the client sees it, the service by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey<A> {
    /// The client's address.
    pub client: A,
    /// The client's port.
    pub client_port: Be16,
    /// The port that the client connected to.
    pub service_port: Be16,
    /// The service's id.
    pub service: u16,
}

/// Which way: the port cell of an `snat` connection, or the next hop back to the client.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way(pub u64);

impl Way {
    /// By a port cell: its index, the number of the source address in the map of sources, and the source port.
    #[inline(always)]
    pub const fn port(cell: u32, source: u16, port: Be16) -> Self {
        Self((port.wire() as u64) << 48 | (source as u64) << 32 | cell as u64)
    }

    /// Back to the client.
    #[inline(always)]
    pub const fn hop(hop: Hop) -> Self {
        Self(hop.word())
    }

    /// The port cell's index.
    #[inline(always)]
    pub const fn cell(self) -> u32 {
        self.0 as u32
    }

    /// The number of the source address.
    #[inline(always)]
    pub const fn source(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The source port.
    #[inline(always)]
    pub const fn source_port(self) -> Be16 {
        Be16::from_wire((self.0 >> 48) as u16)
    }

    /// The next hop back to the client.
    #[inline(always)]
    pub const fn back(self) -> Hop {
        Hop::from_word(self.0)
    }
}

/// What a slot's owner word does not hold of a flow. Written by the kernel while the slot is `Busy`; the time stamp and
/// `word` are words of their own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<A: Address> {
    /// Which way.
    pub way: Way,
    /// When the client (in `dnat` either side) last sent something, in [`Ticks`].
    pub seen: u32,
    /// `dnat`: the server's initial sequence number. `dsr` and `ipip`: when the flow began, in [`Ticks`].
    pub word: u32,
    /// Id of the (service, backend) pair.
    pub backend: u16,
    /// The service's id.
    pub service: u16,
    /// The port that the client connected to.
    pub service_port: Be16,
    /// The VLAN tag (TCI, host order) that the client's packets carry; 0: none.
    pub vlan: u16,
    /// What the owner word does not hold of the client's address.
    pub client: A::Rest,
}

/// A bucket of the table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket<A: Address> {
    /// Who holds each slot, and how far it has come.
    pub owners: [Owner; SLOTS],
    /// The flows.
    pub records: [Record<A>; SLOTS],
}

impl<A: Address> Default for Bucket<A> {
    fn default() -> Self {
        Self { owners: [Owner::default(); SLOTS], records: [Record::default(); SLOTS] }
    }
}

const _: () = {
    assert!(size_of::<Record<Be32>>() == 24 && size_of::<Record<Be128>>() == 40);
    assert!(size_of::<Bucket<Be32>>() == 256 && size_of::<Bucket<Be128>>() == 384);
};

impl<A: Address> Record<A> {
    /// When the client last sent something.
    #[inline(always)]
    pub const fn seen(&self) -> Ticks {
        Ticks::from_raw(self.seen)
    }

    /// Whether this is the record of a flow whose owner word already agrees with the key.
    #[inline(always)]
    pub fn is_of(&self, key: &FlowKey<A>) -> bool {
        self.service == key.service
            && self.service_port == key.service_port
            && self.client == key.client.rest()
    }
}

impl<A: Address> FlowKey<A> {
    /// The key of the flow that stands in a slot.
    #[inline(always)]
    pub fn of(owner: Owner, record: &Record<A>) -> Self {
        Self {
            client: A::whole(owner.tag(), record.client),
            client_port: owner.client_port(),
            service_port: record.service_port,
            service: record.service,
        }
    }

    /// The two buckets that the flow may stand in, of `mask` + 1. Where there is but one, it is both, and no harm done.
    #[inline(always)]
    pub fn buckets(&self, seed: u64, mask: u32) -> [u32; 2] {
        let (a, b) = self.client.words();
        let ports = (self.client_port.wire() as u64) << 32
            | (self.service_port.wire() as u64) << 16
            | self.service as u64;
        let mut x = mix(a ^ seed);
        if A::VERSION == 6 {
            x = mix(x ^ b);
        }
        x = mix(x ^ ports);
        let half = mask >> 1;
        [x as u32 & half, (x >> 32) as u32 & half | mask ^ half]
    }
}

/// A round of the "variant 13" finaliser (D. Stafford, "Better Bit Mixing", 2011), shortened: multiply and fold twice.
#[inline(always)]
pub const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
