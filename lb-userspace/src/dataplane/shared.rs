//! Maps that the agent shares with the kernel as memory: port cells, accounts, ring slots.
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
    mem::offset_of,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering},
};

use lb_common::{
    Be16, Ticks,
    abi::Account,
    cell::{Owner, PortCell},
};

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

/// The port cells.
pub struct Cells(Shared);

impl Cells {
    /// Map `len` cells. Errors are the kernel's.
    pub fn map(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        Shared::map::<PortCell>(map, len).map(Self)
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
        Owner(self.0.word64(index, offset_of!(PortCell, owner)).load(Ordering::Acquire))
    }

    /// Replace a cell's owner if it is still `before`; whether it was.
    pub fn swap_owner(&self, index: u32, before: Owner, after: Owner) -> bool {
        let word = self.0.word64(index, offset_of!(PortCell, owner));
        word.compare_exchange(before.0, after.0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// When the server last sent something, or when the connection ended.
    pub fn seen(&self, index: u32) -> Ticks {
        Ticks::from_raw(self.0.word32(index, offset_of!(PortCell, seen)).load(Ordering::Relaxed))
    }

    /// Stamp a cell that the caller holds `Busy`.
    pub fn stamp(&self, index: u32, now: Ticks) {
        self.0.word32(index, offset_of!(PortCell, seen)).store(now.raw(), Ordering::Relaxed);
    }

    /// The (service, backend) pair of a cell.
    pub fn backend(&self, index: u32) -> u32 {
        self.0.word32(index, offset_of!(PortCell, backend)).load(Ordering::Relaxed)
    }

    /// The port that the cell's client connected to.
    pub fn service_port(&self, index: u32) -> Be16 {
        Be16::from_wire(self.0.word16(index, offset_of!(PortCell, service_port)).load(Ordering::Relaxed))
    }
}

/// The accounts of the (service, backend) pairs.
pub struct Accounts(Shared);

impl Accounts {
    /// Map `len` accounts. Errors are the kernel's.
    pub fn map(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        Shared::map::<Account>(map, len).map(Self)
    }

    /// An account, its words read one after the other: `closed` before `opened`, so that live is never too low.
    pub fn get(&self, backend: u32) -> Account {
        let word = |offset| self.0.word64(backend, offset).load(Ordering::Acquire);
        let closed = word(offset_of!(Account, closed));
        let closed_by_agent = word(offset_of!(Account, closed_by_agent));
        Account { opened: word(offset_of!(Account, opened)), closed, closed_by_agent, pad: 0 }
    }

    /// One more connection that the agent ended.
    pub fn close(&self, backend: u32) {
        self.0.word64(backend, offset_of!(Account, closed_by_agent)).fetch_add(1, Ordering::SeqCst);
    }
}

/// The slots of the rings.
pub struct Slots(Shared);

impl Slots {
    /// Map `len` slots. Errors are the kernel's.
    pub fn map(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        Shared::map::<u32>(map, len).map(Self)
    }

    /// Write a ring from `offset` on. No service may be reading that region.
    pub fn write(&self, offset: u32, ring: &[u32]) {
        for (index, backend) in (offset..).zip(ring) {
            self.0.word32(index, 0).store(*backend, Ordering::Release);
        }
    }

    /// The slot at `index`.
    pub fn get(&self, index: u32) -> u32 {
        self.0.word32(index, 0).load(Ordering::Acquire)
    }
}
