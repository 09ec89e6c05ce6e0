//! Stage 1: what is this packet? Reads headers, changes nothing.

use lb_common::{Be16, Be32, abi::TCP, cell::Signs};
use network_types::{
    eth::{EthHdr, EtherType},
    ip::Ipv4Hdr,
};

use crate::Frame;

/// Length of an Ethernet header without tags.
pub const ETHERNET: usize = EthHdr::LEN;

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

/// A TCP header as ten words of two bytes in the order of memory; unused words are never loaded.
pub type TcpWords = [u16; 10];

/// A TCP/IPv4 packet that is no fragment.
#[derive(Clone, Copy)]
pub struct Packet {
    /// The Ethernet header.
    pub ethernet: EthHdr,
    /// The IPv4 header, without options.
    pub ip: Ipv4Hdr,
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
    /// Headers that lie about the packet's length.
    Malformed,
}

/// Read the headers.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F) -> Parsed {
    let Some(ethernet) = frame.load::<EthHdr>(0) else { return Parsed::Other };
    if ethernet.ether_type != EtherType::Ipv4 as u16 {
        return Parsed::Other;
    }
    let Some(ip) = frame.load::<Ipv4Hdr>(ETHERNET) else { return Parsed::Malformed };
    let header = usize::from(ip.vihl & 0x0f) * 4;
    if ip.vihl >> 4 != 4 || header < Ipv4Hdr::LEN {
        return Parsed::Malformed;
    }
    // Bit 14 is "don't fragment", bit 15 is reserved (RFC 791) and may be anything.
    if ip.proto != TCP || u16::from_ne_bytes(ip.frags) & 0x3fffu16.to_be() != 0 {
        return Parsed::Other;
    }
    let tcp_offset = ETHERNET + header;
    let Some(tcp) = frame.load::<TcpWords>(tcp_offset) else { return Parsed::Malformed };
    let packet = Packet { ethernet, ip, tcp, tcp_offset };
    if packet.segment() < packet.tcp_header() || packet.tcp_header() < size_of::<TcpWords>() {
        return Parsed::Malformed;
    }
    Parsed::Tcp(packet)
}

impl Packet {
    /// Where it comes from.
    #[inline(always)]
    pub const fn source(&self) -> Be32 {
        Be32::from_bytes(self.ip.src_addr)
    }

    /// Where it goes to.
    #[inline(always)]
    pub const fn destination(&self) -> Be32 {
        Be32::from_bytes(self.ip.dst_addr)
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
        u16::from_be_bytes(self.ip.tot_len)
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
