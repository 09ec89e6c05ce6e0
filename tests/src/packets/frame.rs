//! A packet in a vector: the data path's `Frame` outside of the kernel.
#![expect(
    unsafe_code,
    reason = "a `Plain` value is read from and written into bytes, which only pointers can do"
)]

use lb_common::plain::Plain;
use lb_ebpf::{Frame, family::walk};

/// The bytes of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    fn range(&self, offset: usize, length: usize) -> Option<std::ops::Range<usize>> {
        let end = offset.checked_add(length)?;
        (end <= self.0.len()).then_some(offset..end)
    }
}

impl Frame for Bytes {
    fn load<T: Plain>(&self, offset: usize) -> Option<T> {
        let bytes = &self.0[self.range(offset, size_of::<T>())?];
        // SAFETY: `bytes` is exactly as long as a `T`, and any bytes are a valid `Plain` value.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    fn store<T: Plain>(&mut self, offset: usize, value: T) -> Option<()> {
        let range = self.range(offset, size_of::<T>())?;
        // SAFETY: the range is exactly as long as a `T`, and a `Plain` value has no padding.
        unsafe { self.0[range].as_mut_ptr().cast::<T>().write_unaligned(value) };
        Some(())
    }

    fn sum(&self, offset: usize, length: usize) -> Option<u32> {
        let bytes = &self.0[self.range(offset, length)?];
        let pair = |pair: &[u8]| u32::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        Some(bytes.chunks(2).map(pair).sum())
    }

    fn length(&self) -> usize {
        self.0.len()
    }

    fn truncate(&mut self, length: usize) -> Option<()> {
        if length > self.0.len() {
            return None;
        }
        self.0.truncate(length);
        Some(())
    }

    fn walk(&self, offset: usize, protocol: u8) -> u64 {
        walk(self, offset, protocol)
    }

    fn prepend(&mut self, length: usize) -> Option<()> {
        // The kernel leaves 256 bytes in front of a packet (include/uapi/linux/bpf.h, `XDP_PACKET_HEADROOM`).
        if length > 256 {
            return None;
        }
        self.0.splice(0..0, std::iter::repeat_n(0, length));
        Some(())
    }

    fn strip(&mut self, length: usize) -> Option<()> {
        // At least an Ethernet header must be left (net/core/filter.c, `bpf_xdp_adjust_head`).
        if length + 14 > self.0.len() {
            return None;
        }
        self.0.drain(..length);
        Some(())
    }
}
