//! Stage 1: what is this packet? Reads headers, changes nothing.

use lb_common::{Be16, Be32, abi::TCP, cell::Signs};
use network_types::{
    eth::{EthHdr, EtherType},
    ip::Ipv4Hdr,
};

use crate::Frame;

/// Length of an Ethernet header without tags.
pub const ETHERNET: usize = EthHdr::LEN;

/// Length of an IPv4 header without options.
pub const IPV4: usize = Ipv4Hdr::LEN;

/// Where the type stands in an Ethernet header.
const ETHER_TYPE: usize = 12;

/// Flags of a TCP header (RFC 9293, 3.1).
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// Headers are loaded as words in the order of memory: few registers hold them, and a word that nothing uses is never
/// loaded. Both MACs of an Ethernet header.
pub type Macs = [u32; 3];

/// An IPv4 header without options: version to length, id and fragment, TTL to checksum, source, destination.
pub type Ipv4Words = [u32; 5];

/// A TCP header without options.
pub type TcpWords = [u16; 10];

/// A TCP/IPv4 packet that is no fragment.
#[derive(Clone, Copy)]
pub struct Packet {
    /// Destination and source MAC.
    pub macs: Macs,
    /// The IPv4 header, without options.
    pub ip: Ipv4Words,
    /// The TCP header, without options.
    pub tcp: TcpWords,
    /// Where the TCP header begins.
    pub tcp_offset: usize,
}

/// What a packet is.
pub enum Parsed {
    /// TCP over IPv4, whole.
    Tcp(Packet),
    /// Not ours.
    Other,
    /// A part of a TCP/IPv4 packet.
    Fragment,
    /// Headers that lie about the packet's length.
    Malformed,
}

/// Read the headers.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F) -> Parsed {
    let Some(macs) = frame.load::<Macs>(0) else { return Parsed::Other };
    if frame.load::<u16>(ETHER_TYPE) != Some(EtherType::Ipv4 as u16) {
        return Parsed::Other;
    }
    let Some(ip) = frame.load::<Ipv4Words>(ETHERNET) else { return Parsed::Malformed };
    let [version, ..] = ip[0].to_ne_bytes();
    let header = usize::from(version & 0x0f) * 4;
    if version >> 4 != 4 || header < IPV4 {
        return Parsed::Malformed;
    }
    // Bit 14 is "don't fragment", bit 15 is reserved (RFC 791) and may be anything.
    let [_, _, fragment_high, fragment_low] = ip[1].to_ne_bytes();
    if ip[2].to_ne_bytes()[1] != TCP {
        return Parsed::Other;
    }
    if fragment_high & 0x3f != 0 || fragment_low != 0 {
        return Parsed::Fragment;
    }
    let tcp_offset = ETHERNET + header;
    let Some(tcp) = frame.load::<TcpWords>(tcp_offset) else { return Parsed::Malformed };
    let packet = Packet { macs, ip, tcp, tcp_offset };
    if frame.length() < ETHERNET + packet.ip_length() as usize
        || packet.segment() < packet.tcp_header()
        || packet.tcp_header() < size_of::<TcpWords>()
    {
        return Parsed::Malformed;
    }
    Parsed::Tcp(packet)
}

impl Packet {
    /// Where it comes from.
    #[inline(always)]
    pub const fn source(&self) -> Be32 {
        Be32::from_wire(self.ip[3])
    }

    /// Where it goes to.
    #[inline(always)]
    pub const fn destination(&self) -> Be32 {
        Be32::from_wire(self.ip[4])
    }

    /// The MAC address that it came by.
    #[inline(always)]
    pub const fn source_mac(&self) -> [u8; 6] {
        let (middle, last) = (self.macs[1].to_ne_bytes(), self.macs[2].to_ne_bytes());
        [middle[2], middle[3], last[0], last[1], last[2], last[3]]
    }

    /// The MAC address that it was sent to.
    #[inline(always)]
    pub const fn destination_mac(&self) -> [u8; 6] {
        let (first, middle) = (self.macs[0].to_ne_bytes(), self.macs[1].to_ne_bytes());
        [first[0], first[1], first[2], first[3], middle[0], middle[1]]
    }

    /// Hops left.
    #[inline(always)]
    pub const fn ttl(&self) -> u8 {
        self.ip[2].to_ne_bytes()[0]
    }

    /// The sender's port.
    #[inline(always)]
    pub const fn source_port(&self) -> Be16 {
        Be16::from_wire(self.tcp[0])
    }

    /// The receiver's port.
    #[inline(always)]
    pub const fn destination_port(&self) -> Be16 {
        Be16::from_wire(self.tcp[1])
    }

    /// The sequence number, host order.
    #[inline(always)]
    pub const fn sequence(&self) -> u32 {
        (u16::from_be(self.tcp[2]) as u32) << 16 | u16::from_be(self.tcp[3]) as u32
    }

    /// The acknowledgement number, host order.
    #[inline(always)]
    pub const fn acknowledgement(&self) -> u32 {
        (u16::from_be(self.tcp[4]) as u32) << 16 | u16::from_be(self.tcp[5]) as u32
    }

    /// The flags.
    #[inline(always)]
    pub const fn flags(&self) -> u8 {
        self.tcp[6].to_ne_bytes()[1]
    }

    /// The checksum field as it stands.
    #[inline(always)]
    pub const fn tcp_checksum(&self) -> Be16 {
        Be16::from_wire(self.tcp[8])
    }

    /// The length of IP header and payload as IP says: the frame's end may be padding.
    #[inline(always)]
    pub const fn ip_length(&self) -> u16 {
        let [_, _, high, low] = self.ip[0].to_ne_bytes();
        u16::from_be_bytes([high, low])
    }

    /// The length of the TCP segment, header included; 0 if IP says nonsense.
    #[inline(always)]
    pub const fn segment(&self) -> usize {
        (self.ip_length() as usize).saturating_sub(self.tcp_offset - ETHERNET)
    }

    /// The length of the TCP header, options included.
    #[inline(always)]
    pub const fn tcp_header(&self) -> usize {
        (self.tcp[6].to_ne_bytes()[0] >> 4) as usize * 4
    }

    /// The length of the data that the segment carries.
    #[inline(always)]
    pub const fn data(&self) -> usize {
        self.segment() - self.tcp_header()
    }

    /// Whether it asks for a new connection.
    #[inline(always)]
    pub const fn is_syn(&self) -> bool {
        self.flags() & (flag::SYN | flag::ACK | flag::RST) == flag::SYN
    }

    /// What the segment tells about its connection; `server_isn` where the sender may prove that it has seen it.
    #[inline(always)]
    pub const fn signs(&self, server_isn: Option<u32>) -> Signs {
        let flags = self.flags();
        Signs {
            syn_ack: flags & (flag::SYN | flag::ACK) == flag::SYN | flag::ACK,
            fin: flags & flag::FIN != 0,
            rst: flags & flag::RST != 0,
            data: self.data() > 0,
            proves: match server_isn {
                Some(isn) => flags & flag::ACK != 0 && self.acknowledgement() == isn.wrapping_add(1),
                None => false,
            },
        }
    }
}
