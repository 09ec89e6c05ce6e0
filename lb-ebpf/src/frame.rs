//! A packet as the kernel shows it: the only file with packet pointers.
//!
//! Each access compares its own end with `data_end`: that is the shape in which the verifier follows the range of a
//! packet pointer (kernel/bpf/verifier.c, `find_good_pkt_pointers`). A slice would lose it.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::{
        bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_adjust_tail,
        generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    },
};
use lb_common::{abi::Onward, plain::Plain};
use lb_ebpf::Frame;

/// Bytes from the start of a packet that an offset may reach: bounds what the verifier must assume of it.
const REACH: usize = 0x3fff;

/// Bytes that a segment is summed by.
const STRIDE: usize = 32;

/// Strides at most: a page. What lies in further buffers of a frame is out of reach of these pointers anyway.
const STRIDES: usize = 4096 / STRIDE;

/// Strides at most where a helper copies them: the longest jumbo frame.
const FAR_STRIDES: usize = 9_216 / STRIDE;

/// The packet of one run of the program.
pub struct Packet(pub *mut xdp_md);

impl Packet {
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        // SAFETY: the context is valid for the whole run; its two words are loads that the verifier rewrites. They are
        // volatile so that the compiler keeps each comparison with the access it belongs to: what one comparison says of
        // another pointer, the verifier does not see.
        let (data, end) = unsafe {
            let data = core::ptr::read_volatile(&raw const (*self.0).data);
            (data as usize, core::ptr::read_volatile(&raw const (*self.0).data_end) as usize)
        };
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
        let sum = lb_sum(self.0, offset as u32, length as u32);
        let sum = if sum == NO_SUM { lb_sum_far(self.0, offset as u32, length as u32) } else { sum };
        if sum == NO_SUM { None } else { Some(sum) }
    }

    #[inline(always)]
    fn length(&self) -> usize {
        // SAFETY: a helper call on the valid context; it counts the buffers that `data_end` does not reach.
        unsafe { bpf_xdp_get_buff_len(self.0) as usize }
    }

    #[inline(always)]
    fn truncate(&mut self, length: usize) -> Option<()> {
        // SAFETY: a helper call on the valid context. It invalidates packet pointers, of which none is kept.
        let done = unsafe { bpf_xdp_adjust_tail(self.0, (length as i32).wrapping_sub(self.length() as i32)) };
        if done == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn walk(&self, offset: usize, protocol: u8) -> u64 {
        lb_walk(self.0, offset as u32, protocol.into())
    }

    #[inline(always)]
    fn prepend(&mut self, length: usize) -> Option<()> {
        self.move_head(-(length as i32))
    }

    #[inline(always)]
    fn strip(&mut self, length: usize) -> Option<()> {
        self.move_head((length & REACH) as i32)
    }
}

impl Packet {
    #[inline(always)]
    fn move_head(&mut self, by: i32) -> Option<()> {
        // SAFETY: a helper call on the valid context. It invalidates packet pointers, of which none is kept.
        if unsafe { bpf_xdp_adjust_head(self.0, by) } == 0 { Some(()) } else { None }
    }
}

/// Send the packet of this run out of an interface.
#[inline(always)]
pub fn redirect(interface: u32) -> u32 {
    // SAFETY: a plain helper call; it takes two numbers.
    unsafe { bpf_redirect(interface, 0) as u32 }
}

/// Write a note before the packet of this run, which it keeps when it becomes an skb.
#[inline(always)]
pub fn note(ctx: *mut xdp_md, onward: Onward) -> Option<()> {
    // SAFETY: a helper call on the valid context. It invalidates packet pointers, of which none is kept.
    if unsafe { bpf_xdp_adjust_meta(ctx, -(size_of::<Onward>() as i32)) } != 0 {
        return None;
    }
    // SAFETY: loads of the context, volatile as in `Packet::at`.
    let (start, end) = unsafe {
        let start = core::ptr::read_volatile(&raw const (*ctx).data_meta) as usize;
        (start, core::ptr::read_volatile(&raw const (*ctx).data) as usize)
    };
    if start + size_of::<Onward>() > end {
        return None;
    }
    // SAFETY: the end of the value has been compared with the end of the room for notes.
    unsafe { (start as *mut Onward).write_unaligned(onward) };
    Some(())
}

/// The note before an skb's packet, whoever wrote it.
#[inline(always)]
pub fn noted(skb: *mut __sk_buff) -> Option<Onward> {
    // SAFETY: loads of the context, which is valid for the whole run; volatile as in `Packet::at`.
    let (start, end) = unsafe {
        let start = core::ptr::read_volatile(&raw const (*skb).data_meta) as usize;
        (start, core::ptr::read_volatile(&raw const (*skb).data) as usize)
    };
    if start + size_of::<Onward>() > end {
        return None;
    }
    // SAFETY: the end of the value has been compared with the end of the room for notes; any bytes are an `Onward`.
    Some(unsafe { (start as *const Onward).read_unaligned() })
}

/// Send the skb of this run out of an interface.
#[inline(always)]
pub fn redirect_skb(interface: u32) -> i32 {
    // SAFETY: a plain helper call; it takes two numbers.
    unsafe { bpf_redirect(interface, 0) as i32 }
}

/// What [`lb_sum`] answers where the packet ends too early; a folded sum is never as large.
const NO_SUM: u32 = u32::MAX;

/// The sum as a global function, which the verifier looks at once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_sum(ctx: *mut xdp_md, offset: u32, length: u32) -> u32 {
    // Longer than a page is for the other function.
    if length as usize > STRIDES * STRIDE {
        return NO_SUM;
    }
    sum(ctx, offset as usize & REACH, length as usize & REACH).unwrap_or(NO_SUM)
}

#[inline(always)]
fn sum(ctx: *mut xdp_md, offset: usize, length: usize) -> Option<u32> {
    let packet = Packet(ctx);
    let mut sum: u64 = 0;
    let mut at = offset;
    let end = offset + length;
    for _ in 0..STRIDES {
        if at + STRIDE > end {
            break;
        }
        let words: [u64; STRIDE / 8] = packet.load(at)?;
        for word in words {
            sum += (word & 0xffff_ffff) + (word >> 32);
        }
        at += STRIDE;
    }
    for _ in 0..STRIDE / 2 {
        if at + 2 > end {
            break;
        }
        sum += u64::from(packet.load::<u16>(at)?);
        at += 2;
    }
    if at < end {
        // An odd last byte counts as if a zero followed (RFC 1071). It is loaded with the one before it, for a single
        // byte behind a variable offset gets no range from the verifier (`find_good_pkt_pointers`, range_right_open).
        let [_, last] = packet.load::<u16>(end.wrapping_sub(2))?.to_ne_bytes();
        sum += u64::from(u16::from_ne_bytes([last, 0]));
    }
    if at + 2 <= end {
        return None;
    }
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    Some(sum as u32)
}

/// The sum of a packet that lies in several buffers, as a global function: a helper copies it piece by piece.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_sum_far(ctx: *mut xdp_md, offset: u32, length: u32) -> u32 {
    let (mut at, mut left) = (offset, length);
    let mut words = [0u64; STRIDE / 8];
    let mut sum: u64 = 0;
    for _ in 0..FAR_STRIDES {
        if left < STRIDE as u32 {
            break;
        }
        // SAFETY: the helper writes as many bytes as the array has, on the valid context.
        if unsafe { bpf_xdp_load_bytes(ctx, at, words.as_mut_ptr().cast(), STRIDE as u32) } != 0 {
            return NO_SUM;
        }
        for word in words {
            sum += (word & 0xffff_ffff) + (word >> 32);
        }
        at += STRIDE as u32;
        left -= STRIDE as u32;
    }
    if left >= STRIDE as u32 {
        return NO_SUM;
    }
    if left > 0 {
        words = [0; STRIDE / 8];
        // The same number in a form that shows the verifier its bounds.
        let last = (core::hint::black_box(left - 1) & (STRIDE as u32 - 1)) + 1;
        // SAFETY: the helper writes fewer bytes than the array has, on the valid context.
        if unsafe { bpf_xdp_load_bytes(ctx, at, words.as_mut_ptr().cast(), last) } != 0 {
            return NO_SUM;
        }
        for word in words {
            sum += (word & 0xffff_ffff) + (word >> 32);
        }
    }
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    sum as u32
}

/// The walk over IPv6's extension headers as a global function, which the verifier looks at once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_walk(ctx: *mut xdp_md, offset: u32, protocol: u32) -> u64 {
    lb_ebpf::family::walk(&Packet(ctx), offset as usize & REACH, protocol as u8)
}
