//! A packet in memory, with the room in front of it that drivers leave.
#![expect(unsafe_code, reason = "values are read from and written to bytes as they stand in memory")]

use lb_common::plain::Plain;
use lb_ebpf::{Frame, family};

/// Room in front of a packet (`XDP_PACKET_HEADROOM`, include/uapi/linux/bpf.h).
const HEADROOM: usize = 256;

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    room: Vec<u8>,
    start: usize,
}

impl Bytes {
    /// From what came in.
    pub fn new(packet: &[u8]) -> Self {
        let mut room = vec![0; HEADROOM];
        room.extend_from_slice(packet);
        Self { room, start: HEADROOM }
    }

    /// The packet as it is now.
    pub fn packet(&self) -> &[u8] {
        &self.room[self.start..]
    }

    fn at(&self, offset: usize, length: usize) -> Option<std::ops::Range<usize>> {
        let start = self.start.checked_add(offset)?;
        let end = start.checked_add(length)?;
        if end <= self.room.len() { Some(start..end) } else { None }
    }
}

impl Frame for Bytes {
    fn load<T: Plain>(&self, offset: usize) -> Option<T> {
        let range = self.at(offset, size_of::<T>())?;
        // SAFETY: the range is exactly as long as a `T`, and any bytes are a valid `Plain` value.
        Some(unsafe { self.room[range].as_ptr().cast::<T>().read_unaligned() })
    }

    fn store<T: Plain>(&mut self, offset: usize, value: T) -> Option<()> {
        let range = self.at(offset, size_of::<T>())?;
        // SAFETY: the range is exactly as long as a `T`, and a `Plain` value has no padding.
        unsafe { self.room[range].as_mut_ptr().cast::<T>().write_unaligned(value) };
        Some(())
    }

    fn sum(&self, offset: usize, length: usize) -> Option<u32> {
        let bytes = &self.room[self.at(offset, length)?];
        let word = |pair: &[u8]| u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        Some(bytes.chunks(2).map(word).sum())
    }

    fn length(&self) -> usize {
        self.room.len() - self.start
    }

    fn truncate(&mut self, length: usize) -> Option<()> {
        // The kernel also lengthens packets where their buffer has room; what is made here fits by itself.
        if length > self.length() {
            return None;
        }
        self.room.truncate(self.start + length);
        Some(())
    }

    fn walk(&self, offset: usize, protocol: u8) -> u64 {
        family::walk(self, offset, protocol)
    }

    fn prepend(&mut self, length: usize) -> Option<()> {
        self.start = self.start.checked_sub(length)?;
        Some(())
    }

    fn strip(&mut self, length: usize) -> Option<()> {
        // An Ethernet header is left at least (`bpf_xdp_adjust_head`, net/core/filter.c).
        if self.length() < length + 14 {
            return None;
        }
        self.start += length;
        Some(())
    }
}
