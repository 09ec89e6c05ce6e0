//! Internet checksums: changed incrementally, or made whole.
//!
//! A checksum field holds the complement of the ones' complement sum C of what it covers (RFC 1071). When a covered
//! word changes from m to m', the field follows without a look at the rest: HC' = ~(~HC + ~m + m') (RFC 1624, eqn. 3;
//! eqn. 4, which has no complement around HC, fails where the result is zero).
//!
//! A sender on the same host may leave a TCP checksum to hardware (Linux: CHECKSUM_PARTIAL, include/linux/skbuff.h).
//! Then the field holds the sum of the pseudo-header alone, not complemented, and whoever puts the packet on a wire
//! adds the rest. Native XDP loses the note that says so. Such a field is recognised by its value. One complete
//! checksum in 65,536 looks the same, so where the packet leaves as a frame it is computed from scratch, which is right
//! for both. Where the packet stays an skb, it still carries the note, and the field must follow as a partial sum.
//! On physical NICs the value is never looked at: the same test would repair packets that were damaged on the wire.

use lb_common::{Address, Be16};

/// The ones' complement sum of what has changed: old words taken out, new ones put in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change(u32);

impl Change {
    /// No change.
    pub const NONE: Self = Self(0);

    /// A 16-bit word changes.
    #[inline(always)]
    pub const fn word(self, before: Be16, after: Be16) -> Self {
        Self(self.0 + (!before.wire() as u32) + after.wire() as u32)
    }

    /// An address on an even offset changes.
    #[inline(always)]
    pub fn address<A: Address>(self, before: A, after: A) -> Self {
        // The complement of a sum of n words is that of their ones' complement sum, folded or not: 0xffff - x for each.
        Self(self.0 + u32::from(!fold(before.sum())) + after.sum())
    }

    /// The field of a complete checksum after the change.
    #[inline(always)]
    pub const fn complete(self, field: Be16) -> Be16 {
        Be16::from_wire(!fold(self.0 + !field.wire() as u32))
    }

    /// The field of a partial checksum after the change.
    #[inline(always)]
    pub const fn partial(self, field: Be16) -> Be16 {
        Be16::from_wire(fold(self.0 + field.wire() as u32))
    }
}

/// A sum with its carries added back in (RFC 1071, 4.1), in the byte order that was summed.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The sum of the pseudo-header of TCP, UDP and ICMPv6 (RFC 9293, 3.1; RFC 8200, 8.1), not folded.
#[inline(always)]
pub fn pseudo_header<A: Address>(source: A, destination: A, protocol: u8, length: u16) -> u32 {
    source.sum()
        + destination.sum()
        + Be16::from_host(protocol as u16).wire() as u32
        + Be16::from_host(length).wire() as u32
}
