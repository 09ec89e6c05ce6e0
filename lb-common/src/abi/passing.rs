//! What the kernel keeps for itself: the ways of fragmented packets, tokens of source addresses.

use super::Hop;

/// Key of the parts of a fragmented packet (RFC 791, 3.2; RFC 8200, 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// The packet's identification, as it stands in memory.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u32,
}

/// The way of a fragmented packet's later parts: that of its first. Written by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment<A> {
    /// Next hop.
    pub hop: Hop,
    /// New source address.
    pub source: A,
    /// New destination address.
    pub destination: A,
    /// When the first part came, in [`Ticks`](crate::Ticks).
    pub seen: u32,
    /// The (service, backend) pair.
    pub backend: u16,
    /// The service.
    pub service: u16,
    /// Largest IP packet that fits on the way; 0: not known.
    pub mtu: u16,
    /// One of [`mode`].
    pub mode: u8,
    /// 1: from the backend to the client.
    pub outward: u8,
    /// Zero.
    pub pad: u32,
}

/// Key of a source address's token bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BucketKey<A> {
    /// The client's address.
    pub client: A,
    /// The service.
    pub service: u32,
}
