//! What differs between IPv4 and IPv6: headers, and the numbers of ICMP.

mod ipv4;
mod ipv6;

use lb_common::{Address, Be16, program::Stage};
use network_types::eth::{EthHdr, EtherType};

use crate::{Frame, checksum::Change};

pub use ipv6::walk;

/// Length of an Ethernet header without tags.
pub const ETHERNET: usize = EthHdr::LEN;

/// Where the type stands in an Ethernet header without tags.
const ETHER_TYPE: usize = 12;

/// Length of a VLAN tag (IEEE 802.1Q).
const TAG: usize = 4;

/// Tags that a frame may have: 802.1ad outside, 802.1Q inside.
const TAGS: usize = 2;

/// What follows the link layer's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// IPv4, with the offset of its header and the outermost tag (TCI, host order; 0: none).
    Ipv4 {
        /// Offset of the IP header.
        header: usize,
        /// TCI.
        vlan: u16,
    },
    /// IPv6, likewise.
    Ipv6 {
        /// Offset of the IP header.
        header: usize,
        /// TCI.
        vlan: u16,
    },
}

/// Read the Ethernet header and its tags; `None`: not IP.
#[inline(always)]
pub fn link<F: Frame>(frame: &F) -> Option<Link> {
    // What is sent to a group of stations is for nobody to balance, and never answered (RFC 1122, 3.2.2).
    // (Two bytes are loaded, for the verifier learns nothing from a comparison that is off by one: `range_right_open`.)
    if frame.load::<[u8; 2]>(0)?[0] & 1 != 0 {
        return None;
    }
    let mut offset = ETHER_TYPE;
    let mut vlan = 0;
    for tag in 0..=TAGS {
        let kind = frame.load::<u16>(offset)?;
        if kind == EtherType::Ipv4 as u16 {
            return Some(Link::Ipv4 { header: offset + 2, vlan });
        }
        if kind == EtherType::Ipv6 as u16 {
            return Some(Link::Ipv6 { header: offset + 2, vlan });
        }
        if kind != EtherType::Ieee8021q as u16 && kind != EtherType::Ieee8021ad as u16 {
            return None;
        }
        if tag == 0 {
            vlan = Be16::from_wire(frame.load::<u16>(offset + 2)?).host();
        }
        offset += TAG;
    }
    None
}

/// Which part of a packet something is ([`Part::position`]).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// All of it.
    Whole,
    /// The first fragment.
    First,
    /// A later fragment.
    Later,
}

/// Which part of which packet. Always all set, for the reason that [`Verdict`](crate::Verdict) gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which part.
    pub position: Position,
    /// The protocol that all parts name.
    pub protocol: u8,
    /// Identification, as it stands in memory; of no meaning to a whole packet.
    pub id: u32,
}

/// An IP header as it was read.
#[derive(Clone, Copy)]
pub struct Ip<A: Family> {
    /// The header without options or extensions, as words in the order of memory.
    pub words: A::Words,
    /// The protocol of what follows the last extension.
    pub protocol: u8,
    /// Offset of what follows.
    pub payload: usize,
    /// Which part.
    pub part: Part,
}

/// The stages of one family.
#[derive(Clone, Copy, Debug)]
pub struct Stages {
    /// Packets of backends that move a connection on, and all tagged ones.
    pub hear: Stage,
    /// Packets of clients that move a connection on.
    pub turn: Stage,
    /// Packets that begin a connection, or that nothing is known of.
    pub connect: Stage,
    /// Packets whose connection needs a source port.
    pub claim: Stage,
    /// Packets whose connection is to be recorded.
    pub record: Stage,
    /// Packets whose backend is known.
    pub send: Stage,
    /// Packets back to their client.
    pub back: Stage,
    /// Packets that are answered with a RST.
    pub refuse: Stage,
    /// ICMP: echo requests, and errors that quote a packet.
    pub icmp: Stage,
    /// ICMP errors that quote a packet of a connection.
    pub quote: Stage,
    /// ICMP errors whose flow is known.
    pub carry: Stage,
    /// ICMP errors that quote a packet of a tunnel.
    pub tunnel: Stage,
    /// Later parts of fragmented packets.
    pub fragment: Stage,
    /// Packets that are answered with an ICMP error.
    pub explain: Stage,
}

/// IPv4 or IPv6.
pub trait Family: Address {
    /// Its header without options or extensions. Headers are loaded as words in the order of memory: few registers
    /// hold them, and a word that nothing uses is never loaded.
    type Words: lb_common::plain::Plain;

    /// ICMP's or ICMPv6's protocol number.
    const ICMP: u8;
    /// Protocol number of this family inside a tunnel (RFC 2003, RFC 2473).
    const TUNNEL: u8;
    /// Echo request and reply.
    const ECHO: [u8; 2];
    /// Type and code of "time exceeded", "port unreachable", "packet too big".
    const COMPLAINTS: [[u8; 2]; 3];
    /// Its further stages.
    const STAGES: Stages;

    /// Read the header at `offset`; `None`: it contradicts itself or is cut off.
    fn read<F: Frame>(frame: &F, offset: usize) -> Option<Ip<Self>>;
    /// Where it comes from.
    fn source(words: &Self::Words) -> Self;
    /// Where it goes to.
    fn destination(words: &Self::Words) -> Self;
    /// Hops left.
    fn ttl(words: &Self::Words) -> u8;
    /// Whether a router may not cut the packet into parts.
    fn is_whole(words: &Self::Words) -> bool;
    /// The length of header and payload as IP says: the frame's end may be padding.
    fn length(words: &Self::Words) -> u32;
    /// Write new addresses; `routed`: one hop less to live. `addresses`: what changes in their words.
    fn write<F: Frame>(
        frame: &mut F,
        offset: usize,
        words: &Self::Words,
        to: (Self, Self),
        addresses: Change,
        routed: bool,
    ) -> Option<()>;
    /// The same header with as many hops to go as a packet of ours has, and what changes by that.
    fn renewed(words: &Self::Words) -> (Self::Words, Change);
    /// A fresh header for `payload` bytes of `protocol`, its checksum whole; `like`: takes over the class of service.
    fn header(like: &Self::Words, protocol: u8, payload: u16, from: Self, to: Self) -> Self::Words;
    /// What changes in a quoted header beside its addresses (IPv4's own checksum), and the new header.
    fn requote(words: &Self::Words, to: (Self, Self), addresses: Change) -> (Self::Words, Change);
    /// Whether an ICMP type is an error that quotes a packet.
    fn is_error(kind: u8) -> bool;
    /// Whether type and code say that a packet was too big; the MTU stands in the second word's low half or whole.
    fn is_too_big(kind: u8, code: u8) -> bool;
}

/// Hops that a packet of ours may take, as Linux has it by default.
const TTL: u8 = 64;
