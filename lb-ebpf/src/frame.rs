//! A packet as the kernel shows it: the only file with packet pointers.
//!
//! Each access compares its own end with `data_end`: that is the shape in which the verifier follows the range of a
//! packet pointer (kernel/bpf/verifier.c, `find_good_pkt_pointers`). A slice would lose it.

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_adjust_tail};
use lb_common::plain::Plain;
use lb_ebpf::Frame;

/// Bytes from the start of a packet that an offset may reach: bounds what the verifier must assume of it.
const REACH: usize = 0x3fff;

/// Steps of eight bytes in which a segment is summed: enough for frames of 9,216 bytes.
const STEPS: usize = 9216 / 8;

/// The packet of one run of the program.
pub struct Packet(pub *mut xdp_md);

impl Packet {
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        // SAFETY: the context is valid for the whole run; its two words are loads that the verifier rewrites.
        let (data, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        let start = data + (offset & REACH);
        if start + size_of::<T>() > end { None } else { Some(start as *mut T) }
    }
}

impl Frame for Packet {
    #[inline(always)]
    fn load<T: Plain>(&self, offset: usize) -> Option<T> {
        let from = self.at::<T>(offset)?;
        // SAFETY: `at` has compared the end of the value with the end of the packet; any bytes are a `T`.
        Some(unsafe { from.read_unaligned() })
    }

    #[inline(always)]
    fn store<T: Plain>(&mut self, offset: usize, value: T) -> Option<()> {
        let to = self.at::<T>(offset)?;
        // SAFETY: `at` has compared the end of the value with the end of the packet.
        unsafe { to.write_unaligned(value) };
        Some(())
    }

    #[inline(always)]
    fn sum(&self, offset: usize, length: usize) -> Option<u32> {
        sum(self.0, offset, length)
    }

    #[inline(always)]
    fn truncate(&mut self, length: usize) -> Option<()> {
        // SAFETY: as in `at`.
        let now = unsafe { (*self.0).data_end.wrapping_sub((*self.0).data) };
        // SAFETY: a helper call on the valid context. It invalidates packet pointers, of which none is kept.
        let done = unsafe { bpf_xdp_adjust_tail(self.0, (length as i32).wrapping_sub(now as i32)) };
        if done == 0 { Some(()) } else { None }
    }
}

/// A function of its own, so that its loop is verified once, outside the hot path.
#[inline(never)]
fn sum(ctx: *mut xdp_md, offset: usize, length: usize) -> Option<u32> {
    let packet = Packet(ctx);
    let mut sum: u64 = 0;
    let mut at = offset;
    let end = offset + length;
    for _ in 0..STEPS {
        if at + 8 > end {
            break;
        }
        let word: u64 = packet.load(at)?;
        sum += (word & 0xffff_ffff) + (word >> 32);
        at += 8;
    }
    for _ in 0..8 {
        if at >= end {
            break;
        }
        let byte: u8 = packet.load(at)?;
        // The last bytes count as if zeros followed; the first of a pair is the one at an even distance (RFC 1071).
        let pair = if (at - offset) & 1 == 0 { [byte, 0] } else { [0, byte] };
        sum += u64::from(u16::from_ne_bytes(pair));
        at += 1;
    }
    if at < end {
        return None;
    }
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    Some(sum as u32)
}
