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

/// MAC addresses that one interface may be known by.
pub const STATIONS: usize = 4;

/// The MAC addresses that frames for this host have on an interface: its own, and those of what is above it or below (a
/// bridge, a bond, a macvlan). Where frames are bridged, mirrored or flooded, an interface sees others', which are not
/// for this host to balance (`PACKET_OTHERHOST`, net/ethernet/eth.c). All zero: any.
///
/// The words hold six bytes of a frame each, in the order of memory.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stations(pub [u64; STATIONS]);

impl Stations {
    /// Any.
    pub const ANY: Self = Self([0; STATIONS]);

    /// The first three bytes and two more of a virtual router's addresses, of IPv4 and IPv6 (RFC 9568, 7.3): they come to
    /// whom the routers have elected, and go with the office.
    const VIRTUAL: [u64; 2] = [word([0, 0, 0x5e, 0, 1, 0]), word([0, 0, 0x5e, 0, 2, 0])];

    /// These; any, where they are too many or none.
    pub fn of(macs: &[[u8; 6]]) -> Self {
        let mut stations = Self::ANY;
        if macs.len() <= STATIONS {
            for (place, mac) in stations.0.iter_mut().zip(macs) {
                *place = word(*mac);
            }
        }
        stations
    }

    /// Whether a frame that begins with these eight bytes, as they stand in memory, is for this host.
    #[inline(always)]
    pub const fn take(self, head: u64) -> bool {
        let (to, router) = (head & word([0xff; 6]), head & word([0xff, 0xff, 0xff, 0xff, 0xff, 0]));
        let [a, b, c, d] = self.0;
        let [four, six] = Self::VIRTUAL;
        a == 0 || to != 0 && (to == a || to == b || to == c || to == d) || router == four || router == six
    }
}

const fn word(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
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

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const ABOVE: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn takes(stations: Stations, to: [u8; 6]) -> bool {
        let [a, b, c, d, e, f] = to;
        stations.take(u64::from_ne_bytes([a, b, c, d, e, f, 0x5a, 0xa5]))
    }

    #[test]
    fn a_frame_is_taken_by_its_receiver() {
        let both = Stations::of(&[OWN, ABOVE]);
        for (what, stations, to, taken) in [
            ("the interface", both, OWN, true),
            ("the bridge above it", both, ABOVE, true),
            ("somebody else", both, [2, 0, 0, 0, 0, 3], false),
            ("a virtual router of IPv4", both, [0, 0, 0x5e, 0, 1, 7], true),
            ("a virtual router of IPv6", both, [0, 0, 0x5e, 0, 2, 255], true),
            ("another address of that block", both, [0, 0, 0x5e, 0, 3, 7], false),
            ("nobody", both, [0; 6], false),
            ("anybody, where none is known", Stations::of(&[]), ABOVE, true),
            ("anybody, where there are too many", Stations::of(&[OWN; 5]), ABOVE, true),
        ] {
            assert_eq!(takes(stations, to), taken, "{what}");
        }
    }
}
