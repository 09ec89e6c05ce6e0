//! What a loaded program is told: its constants, and the sizes of its maps.

use crate::ports::PortRanges;

/// How much the checksums of an interface's ingress are worth ([`ProgramConfig::checksums`]).
pub mod checksums {
    /// Complete: a physical NIC. Updated incrementally, whatever they are.
    pub const COMPLETE: u8 = 0;
    /// A local sender may have left them to hardware, and the note of it is lost (native XDP on veth, tap, virtio):
    /// one that equals the pseudo-header's sum is made whole.
    pub const MAKE_WHOLE: u8 = 1;
    /// The same, but the packet stays an skb that still knows (generic XDP): one that equals the pseudo-header's
    /// sum stays partial.
    pub const KEEP_PARTIAL: u8 = 2;
}

/// What a loaded program does beside balancing ([`ProgramConfig::purpose`]).
pub mod purpose {
    /// Nothing.
    pub const SERVE: u8 = 0;
    /// It shows packets to the agent, in and out.
    pub const CAPTURE: u8 = 1;
    /// It answers what would become of a packet: it reads the tables and writes nothing.
    pub const TRACE: u8 = 2;
}

/// Constants of one loaded program, one per interface; the verifier prunes by them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramConfig {
    /// Key of the hashes, unknown to attackers.
    pub seed: u64,
    /// Source ports for `snat`.
    pub ports: PortRanges,
    /// Buckets of the flow tables of IPv4 and IPv6, powers of two, each less one.
    pub bucket_masks: [u32; 2],
    /// Id of the interface that the program is attached to.
    pub interface: u16,
    /// One of [`checksums`].
    pub checksums: u8,
    /// 1: packets may be longer than any MTU, for they were joined before they came here (generic XDP).
    pub joined: u8,
    /// One of [`purpose`].
    pub purpose: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// What must agree before a new agent adopts the pinned maps of an older one. Written by the agent that made them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Key of the hashes.
    pub seed: u64,
    /// Source ports: places in the blocks of cells.
    pub ports: PortRanges,
    /// Buckets of the flow tables of IPv4 and IPv6; each a power of two.
    pub buckets: [u32; 2],
    /// Blocks of port cells of IPv4 and IPv6; at least one each.
    pub blocks: [u32; 2],
}
