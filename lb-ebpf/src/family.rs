//! What differs between IPv4 and IPv6: headers, and the numbers of ICMP.

use lb_common::{
    Address, Be16, Be32, Be128,
    abi::{ICMP, ICMPV6},
    program::Stage,
};
use network_types::eth::{EthHdr, EtherType};

use crate::{Frame, checksum::Change};

/// Length of an Ethernet header without tags.
pub const ETHERNET: usize = EthHdr::LEN;

/// Where the type stands in an Ethernet header without tags.
const ETHER_TYPE: usize = 12;

/// Length of a VLAN tag (IEEE 802.1Q).
const TAG: usize = 4;

/// Tags that a frame may have: 802.1ad outside, 802.1Q inside.
const TAGS: usize = 2;

/// Extension headers of IPv6 that are walked over.
const EXTENSIONS: usize = 6;

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

/// What [`walk`] answers where a header is cut off.
const CUT_OFF: u64 = u64::MAX;

/// Hop-by-hop options, routing, fragment, destination options (RFC 8200, 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// Walk over the extension headers of an IPv6 packet, the first of which, of kind `protocol`, begins at `offset`.
///
/// The protocol that follows them (8 bits), its offset (16 bits) and that of the fragment header (16 bits; 0: none), as
/// one number, for in the kernel this is a global function. The walk ends at a fragment header that is not the first
/// part's.
#[inline(always)]
pub fn walk<F: Frame>(frame: &F, offset: usize, protocol: u8) -> u64 {
    let (mut at, mut protocol, mut fragment) = (offset, protocol, 0);
    for _ in 0..EXTENSIONS {
        if !is_extension(protocol) {
            break;
        }
        let Some([next, length, high, low]) = frame.load::<[u8; 4]>(at) else { return CUT_OFF };
        if protocol == FRAGMENT {
            fragment = at;
            protocol = next;
            at += 8;
            if high != 0 || low & 0xf8 != 0 {
                break;
            }
        } else {
            protocol = next;
            at += (usize::from(length) + 1) * 8;
        }
    }
    (fragment as u64 & 0xffff) << 24 | (at as u64 & 0xffff) << 8 | u64::from(protocol)
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

/// The "don't fragment" bit of an IPv4 header's seventh byte.
const DONT_FRAGMENT: u8 = 0x40;

impl Family for Be32 {
    type Words = [u32; 5];

    const ICMP: u8 = ICMP;
    const TUNNEL: u8 = 4;
    const ECHO: [u8; 2] = [8, 0];
    const COMPLAINTS: [[u8; 2]; 3] = [[11, 0], [3, 3], [3, 4]];
    const STAGES: Stages = Stages {
        hear: Stage::Hear,
        turn: Stage::Turn,
        connect: Stage::Connect,
        claim: Stage::Claim,
        record: Stage::Record,
        send: Stage::Send,
        back: Stage::Return,
        refuse: Stage::Refuse,
        icmp: Stage::Icmp,
        quote: Stage::Quote,
        carry: Stage::Carry,
        tunnel: Stage::Tunnel,
        fragment: Stage::Fragment,
        explain: Stage::Explain,
    };

    #[inline(always)]
    fn read<F: Frame>(frame: &F, offset: usize) -> Option<Ip<Self>> {
        let words: Self::Words = frame.load(offset)?;
        let [version, _, _, _] = words[0].to_ne_bytes();
        let header = usize::from(version & 0x0f) * 4;
        if version >> 4 != 4 || header < Self::HEADER {
            return None;
        }
        let [id_high, id_low, high, low] = words[1].to_ne_bytes();
        let protocol = words[2].to_ne_bytes()[1];
        let id = u32::from(u16::from_ne_bytes([id_high, id_low]));
        // Bit 14 is "don't fragment", bit 15 is reserved (RFC 791) and may be anything.
        let position = if high & 0x1f != 0 || low != 0 {
            Position::Later
        } else if high & 0x20 != 0 {
            Position::First
        } else {
            Position::Whole
        };
        Some(Ip { words, protocol, payload: offset + header, part: Part { position, protocol, id } })
    }

    #[inline(always)]
    fn source(words: &Self::Words) -> Self {
        Self::from_wire(words[3])
    }

    #[inline(always)]
    fn destination(words: &Self::Words) -> Self {
        Self::from_wire(words[4])
    }

    #[inline(always)]
    fn ttl(words: &Self::Words) -> u8 {
        words[2].to_ne_bytes()[0]
    }

    #[inline(always)]
    fn length(words: &Self::Words) -> u32 {
        let [_, _, high, low] = words[0].to_ne_bytes();
        u32::from(u16::from_be_bytes([high, low]))
    }

    #[inline(always)]
    fn write<F: Frame>(
        frame: &mut F,
        offset: usize,
        words: &Self::Words,
        (source, destination): (Self, Self),
        addresses: Change,
        routed: bool,
    ) -> Option<()> {
        let [ttl, protocol, high, low] = words[2].to_ne_bytes();
        let word = |ttl| Be16::from_wire(u16::from_ne_bytes([ttl, protocol]));
        let left = if routed { ttl.wrapping_sub(1) } else { ttl };
        let change = addresses.word(word(ttl), word(left));
        let field = Be16::from_wire(u16::from_ne_bytes([high, low]));
        let [high, low] = change.complete(field).wire().to_ne_bytes();
        let life = u32::from_ne_bytes([left, protocol, high, low]);
        frame.store(offset + 8, [life, source.wire(), destination.wire()])
    }

    #[inline(always)]
    fn renewed(words: &Self::Words) -> (Self::Words, Change) {
        let [ttl, protocol, high, low] = words[2].to_ne_bytes();
        let word = |ttl| Be16::from_wire(u16::from_ne_bytes([ttl, protocol]));
        let life = u32::from_ne_bytes([TTL, protocol, high, low]);
        ([words[0], words[1], life, words[3], words[4]], Change::NONE.word(word(ttl), word(TTL)))
    }

    #[inline(always)]
    fn header(like: &Self::Words, protocol: u8, payload: u16, from: Self, to: Self) -> Self::Words {
        let [_, service, _, _] = like[0].to_ne_bytes();
        let [high, low] = payload.wrapping_add(Self::HEADER as u16).to_be_bytes();
        let mut words = [
            u32::from_ne_bytes([0x45, service, high, low]),
            u32::from_ne_bytes([0, 0, DONT_FRAGMENT, 0]),
            u32::from_ne_bytes([TTL, protocol, 0, 0]),
            from.wire(),
            to.wire(),
        ];
        let mut sum = 0;
        let mut index = 0;
        while index < words.len() {
            sum += (words[index] & 0xffff) + (words[index] >> 16);
            index += 1;
        }
        let [high, low] = (!crate::checksum::fold(sum)).to_ne_bytes();
        words[2] = u32::from_ne_bytes([TTL, protocol, high, low]);
        words
    }

    #[inline(always)]
    fn requote(
        words: &Self::Words,
        (source, destination): (Self, Self),
        addresses: Change,
    ) -> (Self::Words, Change) {
        let [ttl, protocol, high, low] = words[2].to_ne_bytes();
        let before = Be16::from_wire(u16::from_ne_bytes([high, low]));
        let after = addresses.complete(before);
        let [high, low] = after.wire().to_ne_bytes();
        let life = u32::from_ne_bytes([ttl, protocol, high, low]);
        ([words[0], words[1], life, source.wire(), destination.wire()], addresses.word(before, after))
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn is_too_big(kind: u8, code: u8) -> bool {
        kind == 3 && code == 4
    }
}

impl Family for Be128 {
    type Words = [u32; 10];

    const ICMP: u8 = ICMPV6;
    const TUNNEL: u8 = 41;
    const ECHO: [u8; 2] = [128, 129];
    const COMPLAINTS: [[u8; 2]; 3] = [[3, 0], [1, 4], [2, 0]];
    const STAGES: Stages = Stages {
        hear: Stage::HearIpv6,
        turn: Stage::TurnIpv6,
        connect: Stage::ConnectIpv6,
        claim: Stage::ClaimIpv6,
        record: Stage::RecordIpv6,
        send: Stage::SendIpv6,
        back: Stage::ReturnIpv6,
        refuse: Stage::RefuseIpv6,
        icmp: Stage::IcmpIpv6,
        quote: Stage::QuoteIpv6,
        carry: Stage::CarryIpv6,
        tunnel: Stage::TunnelIpv6,
        fragment: Stage::FragmentIpv6,
        explain: Stage::ExplainIpv6,
    };

    #[inline(always)]
    fn read<F: Frame>(frame: &F, offset: usize) -> Option<Ip<Self>> {
        let words: Self::Words = frame.load(offset)?;
        let [version, _, _, _] = words[0].to_ne_bytes();
        if version >> 4 != 6 {
            return None;
        }
        let protocol = words[1].to_ne_bytes()[2];
        let payload = offset + Self::HEADER;
        let whole = Part { position: Position::Whole, protocol, id: 0 };
        if !is_extension(protocol) {
            return Some(Ip { words, protocol, payload, part: whole });
        }
        let end = frame.walk(payload, protocol);
        if end == CUT_OFF {
            return None;
        }
        let (protocol, payload, fragment) =
            (end as u8, (end >> 8) as u16 as usize, (end >> 24) as u16 as usize);
        if fragment == 0 {
            return Some(Ip { words, protocol, payload, part: Part { protocol, ..whole } });
        }
        let [head, id]: [u32; 2] = frame.load(fragment)?;
        let [next, _, high, low] = head.to_ne_bytes();
        // Thirteen bits of offset, two reserved, one "more" (RFC 8200, 4.5).
        let position = if high != 0 || low & 0xf8 != 0 {
            Position::Later
        } else if low & 1 != 0 {
            Position::First
        } else {
            Position::Whole
        };
        Some(Ip { words, protocol, payload, part: Part { position, protocol: next, id } })
    }

    #[inline(always)]
    fn source(words: &Self::Words) -> Self {
        Self::from_wire([words[2], words[3], words[4], words[5]])
    }

    #[inline(always)]
    fn destination(words: &Self::Words) -> Self {
        Self::from_wire([words[6], words[7], words[8], words[9]])
    }

    #[inline(always)]
    fn ttl(words: &Self::Words) -> u8 {
        words[1].to_ne_bytes()[3]
    }

    #[inline(always)]
    fn length(words: &Self::Words) -> u32 {
        let [high, low, _, _] = words[1].to_ne_bytes();
        u32::from(u16::from_be_bytes([high, low])) + Self::HEADER as u32
    }

    #[inline(always)]
    fn write<F: Frame>(
        frame: &mut F,
        offset: usize,
        words: &Self::Words,
        (source, destination): (Self, Self),
        _: Change,
        routed: bool,
    ) -> Option<()> {
        let [high, low, next, limit] = words[1].to_ne_bytes();
        let left = if routed { limit.wrapping_sub(1) } else { limit };
        frame.store(offset + 4, [u32::from_ne_bytes([high, low, next, left])])?;
        frame.store(offset + 8, [source, destination])
    }

    #[inline(always)]
    fn renewed(words: &Self::Words) -> (Self::Words, Change) {
        let [high, low, next, _] = words[1].to_ne_bytes();
        let mut renewed = *words;
        renewed[1] = u32::from_ne_bytes([high, low, next, TTL]);
        (renewed, Change::NONE)
    }

    #[inline(always)]
    fn header(like: &Self::Words, protocol: u8, payload: u16, from: Self, to: Self) -> Self::Words {
        let [high, low] = payload.to_be_bytes();
        let ([a, b, c, d], [e, f, g, h]) = (from.wire(), to.wire());
        [like[0], u32::from_ne_bytes([high, low, protocol, TTL]), a, b, c, d, e, f, g, h]
    }

    #[inline(always)]
    fn requote(
        words: &Self::Words,
        (source, destination): (Self, Self),
        addresses: Change,
    ) -> (Self::Words, Change) {
        let ([a, b, c, d], [e, f, g, h]) = (source.wire(), destination.wire());
        ([words[0], words[1], a, b, c, d, e, f, g, h], addresses)
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn is_too_big(kind: u8, _: u8) -> bool {
        kind == 2
    }
}
