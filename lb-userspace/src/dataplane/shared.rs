//! Maps that the agent shares with the kernel as memory: port cells, flows, accounts, ring slots; and what the kernel
//! writes into ring buffers.
//!
//! The kernel's half changes these by compare-and-swap and atomic additions; so does the agent, on the same memory,
//! for a map created with `BPF_F_MMAPABLE` is the same pages on both sides (kernel/bpf/arraymap.c). An element takes
//! its size rounded up to eight bytes.
#![expect(
    unsafe_code,
    reason = "aya cannot map a BPF array into memory; this file is the only one that does"
)]

use std::{
    io,
    marker::PhantomData,
    mem::offset_of,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering},
};

use aya::{
    Pod,
    maps::{MapData, RingBuf},
};
use lb_common::{
    Address, Be16, Ticks,
    abi::{Account, Hop},
    cell::{Owner, Phase, PortCell},
    flow::{Bucket, FlowKey, Record, SLOTS, Way},
};
use tokio::io::{Interest, unix::AsyncFd};

/// A BPF array of `T` mapped into this process.
struct Shared {
    base: NonNull<u8>,
    bytes: usize,
    stride: usize,
    len: u32,
}

// SAFETY: the memory belongs to the map, outlives every thread's use (`Drop` takes the value), and is only accessed
// through atomics.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn map<T>(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        let stride = size_of::<T>().next_multiple_of(8);
        let bytes = stride * len as usize;
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing of ours is there.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { base, bytes, stride, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn at(&self, index: u32, offset: usize) -> *mut u8 {
        assert!(index < self.len && offset < self.stride, "element {index} of {} at {offset}", self.len);
        // SAFETY: within the mapping, by the assertion above.
        unsafe { self.base.as_ptr().add(index as usize * self.stride + offset) }
    }

    fn word64(&self, index: u32, offset: usize) -> &AtomicU64 {
        // SAFETY: `at` is in bounds; `offset` comes from `offset_of!` of a 64-bit field of an eight-byte aligned type.
        unsafe { AtomicU64::from_ptr(self.at(index, offset).cast()) }
    }

    fn word32(&self, index: u32, offset: usize) -> &AtomicU32 {
        // SAFETY: as above, for a 32-bit field.
        unsafe { AtomicU32::from_ptr(self.at(index, offset).cast()) }
    }

    /// The owner word at `offset`.
    fn owner(&self, index: u32, offset: usize) -> Owner {
        Owner(self.word64(index, offset).load(Ordering::Acquire))
    }

    /// The bits that any of the `COUNT` words from `offset` on has.
    fn any_of<const COUNT: usize>(&self, index: u32, offset: usize) -> u64 {
        assert!(offset + COUNT * size_of::<u64>() <= self.stride, "{COUNT} words at {offset}");
        // SAFETY: the first word is in bounds and aligned as in `word64`, the last one in bounds by the assertion above.
        let words = unsafe { &*self.at(index, offset).cast::<[AtomicU64; COUNT]>() };
        words.iter().fold(0, |bits, word| bits | word.load(Ordering::Acquire))
    }

    fn swap_owner(&self, index: u32, offset: usize, before: Owner, after: Owner) -> bool {
        let word = self.word64(index, offset);
        word.compare_exchange(before.0, after.0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn number16(&self, index: u32, offset: usize) -> u16 {
        self.word16(index, offset).load(Ordering::Relaxed)
    }

    fn number32(&self, index: u32, offset: usize) -> u32 {
        self.word32(index, offset).load(Ordering::Relaxed)
    }

    /// The part of an address that an owner word does not hold.
    fn rest<A: Address>(&self, index: u32, offset: usize) -> A::Rest {
        if A::VERSION == 4 {
            return A::default().rest();
        }
        let pair =
            |offset| (self.number32(index, offset + 4) as u64) << 32 | self.number32(index, offset) as u64;
        A::from_words((pair(offset), pair(offset + 8))).rest()
    }

    fn word16(&self, index: u32, offset: usize) -> &AtomicU16 {
        // SAFETY: as above, for a 16-bit field.
        unsafe { AtomicU16::from_ptr(self.at(index, offset).cast()) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` has mapped, and nobody holds a reference into it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// The port cells of a family.
pub struct Cells<A>(Shared, PhantomData<A>);

impl<A: Address> Cells<A> {
    /// Map `len` cells. Errors are the kernel's.
    pub fn map(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        Ok(Self(Shared::map::<PortCell<A>>(map, len)?, PhantomData))
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.0.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Who holds a cell now.
    pub fn owner(&self, index: u32) -> Owner {
        self.0.owner(index, offset_of!(PortCell<A>, owner))
    }

    /// Replace a cell's owner if it is still `before`; whether it was.
    pub fn swap_owner(&self, index: u32, before: Owner, after: Owner) -> bool {
        self.0.swap_owner(index, offset_of!(PortCell<A>, owner), before, after)
    }

    /// When the server last sent something, or when the connection ended.
    pub fn seen(&self, index: u32) -> Ticks {
        Ticks::from_raw(self.0.number32(index, offset_of!(PortCell<A>, seen)))
    }

    /// Stamp a cell that the caller holds `Busy`.
    pub fn stamp(&self, index: u32, now: Ticks) {
        self.0.word32(index, offset_of!(PortCell<A>, seen)).store(now.raw(), Ordering::Relaxed);
    }

    /// The (service, backend) pair of a cell.
    pub fn backend(&self, index: u32) -> u16 {
        self.0.number16(index, offset_of!(PortCell<A>, backend))
    }

    /// The port that the cell's client connected to.
    pub fn service_port(&self, index: u32) -> Be16 {
        Be16::from_wire(self.0.number16(index, offset_of!(PortCell<A>, service_port)))
    }

    /// The client's address, by the owner word that the caller has read.
    pub fn client(&self, index: u32, owner: Owner) -> A {
        A::whole(owner.tag(), self.0.rest::<A>(index, offset_of!(PortCell<A>, client)))
    }

    /// The way back to the client: next hop and VLAN tag.
    pub fn back(&self, index: u32) -> (Hop, u16) {
        let hop = self.0.word64(index, offset_of!(PortCell<A>, hop)).load(Ordering::Relaxed);
        (Hop::from_word(hop), self.0.number16(index, offset_of!(PortCell<A>, vlan)))
    }
}

/// The flow table of a family. A *place* is a bucket's index times its slots, plus the slot.
pub struct Flows<A>(Shared, PhantomData<A>);

impl<A: Address> Flows<A> {
    /// Map `buckets` buckets. Errors are the kernel's.
    pub fn map(map: BorrowedFd<'_>, buckets: u32) -> io::Result<Self> {
        Ok(Self(Shared::map::<Bucket<A>>(map, buckets)?, PhantomData))
    }

    /// How many places there are.
    pub fn len(&self) -> u32 {
        self.0.len * SLOTS as u32
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    const fn bucket(place: u32) -> u32 {
        place / SLOTS as u32
    }

    const fn word(place: u32) -> usize {
        offset_of!(Bucket<A>, owners) + place as usize % SLOTS * size_of::<Owner>()
    }

    const fn record_at(place: u32) -> usize {
        offset_of!(Bucket<A>, records) + place as usize % SLOTS * size_of::<Record<A>>()
    }

    /// Who holds a place now.
    pub fn owner(&self, place: u32) -> Owner {
        self.0.owner(Self::bucket(place), Self::word(place))
    }

    /// The places of whole buckets, `places`, that are not free, each with who holds it. A bucket without any costs a look
    /// at eight words and nothing else.
    pub fn taken(&self, places: std::ops::Range<u32>) -> Vec<(u32, Owner)> {
        let mut taken = Vec::new();
        for first in places.step_by(SLOTS) {
            let bits = self.0.any_of::<SLOTS>(Self::bucket(first), offset_of!(Bucket<A>, owners));
            if Owner(bits).phase() == Phase::Free {
                continue;
            }
            let slots = (first..first + SLOTS as u32).map(|place| (place, self.owner(place)));
            taken.extend(slots.filter(|(_, owner)| owner.phase() != Phase::Free));
        }
        taken
    }

    /// Replace a place's owner if it is still `before`; whether it was.
    pub fn swap_owner(&self, place: u32, before: Owner, after: Owner) -> bool {
        self.0.swap_owner(Self::bucket(place), Self::word(place), before, after)
    }

    /// Free a place that `before` still holds; whether it did. Only the generation stays, so that the next owner's word
    /// differs from this one's.
    pub fn free(&self, place: u32, before: Owner) -> bool {
        let free = Owner::next(before, A::default(), Be16::default(), Phase::Free);
        self.swap_owner(place, before, free)
    }

    /// When the client last sent something.
    pub fn seen(&self, place: u32) -> Ticks {
        let offset = Self::record_at(place) + offset_of!(Record<A>, seen);
        Ticks::from_raw(self.0.number32(Self::bucket(place), offset))
    }

    /// The (service, backend) pair.
    pub fn backend(&self, place: u32) -> u16 {
        self.0.number16(Self::bucket(place), Self::record_at(place) + offset_of!(Record<A>, backend))
    }

    /// The port cell of a linked flow.
    pub fn cell(&self, place: u32) -> u32 {
        let offset = Self::record_at(place) + offset_of!(Record<A>, way);
        Way(self.0.word64(Self::bucket(place), offset).load(Ordering::Relaxed)).cell()
    }

    /// The record. Its words are read one after the other, so the owner must be looked at again before it is believed.
    pub fn record(&self, place: u32) -> Record<A> {
        let (bucket, at) = (Self::bucket(place), Self::record_at(place));
        let number16 = |offset| self.0.number16(bucket, at + offset);
        Record {
            way: Way(self.0.word64(bucket, at + offset_of!(Record<A>, way)).load(Ordering::Relaxed)),
            seen: self.0.number32(bucket, at + offset_of!(Record<A>, seen)),
            word: self.0.number32(bucket, at + offset_of!(Record<A>, word)),
            backend: number16(offset_of!(Record<A>, backend)),
            service: number16(offset_of!(Record<A>, service)),
            service_port: Be16::from_wire(number16(offset_of!(Record<A>, service_port))),
            vlan: number16(offset_of!(Record<A>, vlan)),
            client: self.0.rest::<A>(bucket, at + offset_of!(Record<A>, client)),
        }
    }

    /// The place of a flow, with its owner word.
    pub fn find(&self, key: &FlowKey<A>, seed: u64) -> Option<(u32, Owner)> {
        let (tag, mask) = (key.client.tag(), self.0.len - 1);
        key.buckets(seed, mask)
            .into_iter()
            .flat_map(|bucket| (0..SLOTS as u32).map(move |slot| bucket * SLOTS as u32 + slot))
            .map(|place| (place, self.owner(place)))
            .find(|(place, owner)| {
                owner.is_held() && owner.has(tag, key.client_port) && self.record(*place).is_of(key)
            })
    }

    /// Write a flow into a place, as the kernel does.
    #[cfg(test)]
    pub fn put(&self, place: u32, owner: Owner, record: &Record<A>) {
        let (bucket, at) = (Self::bucket(place), Self::record_at(place));
        self.0.word64(bucket, at + offset_of!(Record<A>, way)).store(record.way.0, Ordering::Relaxed);
        self.0.word32(bucket, at + offset_of!(Record<A>, seen)).store(record.seen, Ordering::Relaxed);
        self.0.word32(bucket, at + offset_of!(Record<A>, word)).store(record.word, Ordering::Relaxed);
        for (offset, number) in [
            (offset_of!(Record<A>, backend), record.backend),
            (offset_of!(Record<A>, service), record.service),
            (offset_of!(Record<A>, service_port), record.service_port.wire()),
            (offset_of!(Record<A>, vlan), record.vlan),
        ] {
            self.0.word16(bucket, at + offset).store(number, Ordering::Relaxed);
        }
        self.0.put_rest::<A>(bucket, at + offset_of!(Record<A>, client), owner, record.client);
        self.0.word64(bucket, Self::word(place)).store(owner.0, Ordering::Release);
    }
}

#[cfg(test)]
impl<A: Address> Cells<A> {
    /// Write a cell, as the kernel does.
    pub fn put(&self, index: u32, cell: &PortCell<A>) {
        self.0.word64(index, offset_of!(PortCell<A>, hop)).store(cell.hop.word(), Ordering::Relaxed);
        self.stamp(index, cell.seen());
        let number16 = |offset, number| self.0.word16(index, offset).store(number, Ordering::Relaxed);
        number16(offset_of!(PortCell<A>, backend), cell.backend);
        number16(offset_of!(PortCell<A>, service_port), cell.service_port.wire());
        number16(offset_of!(PortCell<A>, vlan), cell.vlan);
        self.0.put_rest::<A>(index, offset_of!(PortCell<A>, client), cell.owner, cell.client);
        self.0.word64(index, offset_of!(PortCell<A>, owner)).store(cell.owner.0, Ordering::Release);
    }
}

#[cfg(test)]
impl Shared {
    fn put_rest<A: Address>(&self, index: u32, offset: usize, owner: Owner, rest: A::Rest) {
        if A::VERSION == 6 {
            let (low, high) = A::whole(owner.tag(), rest).words();
            for (place, word) in [low, low >> 32, high, high >> 32].into_iter().enumerate() {
                self.word32(index, offset + 4 * place).store(word as u32, Ordering::Relaxed);
            }
        }
    }
}

/// The accounts of the (service, backend) pairs, of the servers and of the services.
pub struct Accounts(Shared);

impl Accounts {
    /// Map `len` accounts. Errors are the kernel's.
    pub fn map(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        Shared::map::<Account>(map, len).map(Self)
    }

    /// An account, its words read one after the other: `closed` before `opened`, so that live is never too low.
    pub fn get(&self, row: u32) -> Account {
        let word = |offset| self.0.word64(row, offset).load(Ordering::Acquire);
        let closed = word(offset_of!(Account, closed));
        let closed_by_agent = word(offset_of!(Account, closed_by_agent));
        let opened = word(offset_of!(Account, opened));
        Account { opened, closed, closed_by_agent, limit: word(offset_of!(Account, limit)) }
    }

    /// One more connection that the agent ended.
    pub fn close(&self, row: u32) {
        self.0.word64(row, offset_of!(Account, closed_by_agent)).fetch_add(1, Ordering::SeqCst);
    }

    /// Live connections at most; 0: no limit.
    pub fn limit(&self, row: u32, limit: u64) {
        self.0.word64(row, offset_of!(Account, limit)).store(limit, Ordering::Release);
    }

    /// Open a connection, as the kernel does.
    #[cfg(test)]
    pub fn open(&self, row: u32) {
        self.0.word64(row, offset_of!(Account, opened)).fetch_add(1, Ordering::SeqCst);
    }
}

/// The slots of the rings.
pub struct Slots(Shared);

impl Slots {
    /// Map `len` slots. Errors are the kernel's.
    pub fn map(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        Shared::map::<u32>(map, len).map(Self)
    }

    /// Write slots from `offset` on. In a region that a service reads, one slot at a time changes, each whole.
    pub fn write(&self, offset: u32, words: &[u32]) {
        for (index, word) in (offset..).zip(words) {
            self.0.word32(index, 0).store(*word, Ordering::Release);
        }
    }

    /// The slots from `offset` on.
    pub fn read(&self, offset: u32, length: u32) -> Vec<u32> {
        (offset..offset + length).map(|index| self.0.word32(index, 0).load(Ordering::Acquire)).collect()
    }
}

/// Wait for a ring buffer by the running tokio. Errors are the kernel's.
pub fn watch(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring owns its descriptor, names the same one each time, and closes it only when it is dropped, which
    // `AsyncFd` does after it has taken it off the poll.
    let watched = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    watched.map_err(io::Error::from)
}

/// What a ring buffer's record holds, if it is long enough.
pub fn read<T: Pod>(record: &[u8]) -> Option<T> {
    if record.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: long enough, by the line above; any bytes are a value of a `Pod` type, and the read asks no alignment.
    Some(unsafe { std::ptr::read_unaligned(record.as_ptr().cast()) })
}
