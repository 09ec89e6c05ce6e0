//! Stage 1: what is this packet? Reads headers, changes nothing.

use lb_common::{
    Be16, Reason,
    abi::{TCP, UDP},
    cell::Signs,
    flow::FlowKey,
};

use crate::{
    Frame, Verdict,
    family::{Family, Part, Position},
};

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

/// Both MACs of an Ethernet header.
pub type Macs = [u32; 3];

/// A TCP header without options, or a UDP header and zeros.
pub type TransportWords = [u16; 10];

/// Length of a UDP header.
pub const UDP_HEADER: usize = 8;

/// A TCP or UDP packet, or the first part of one.
#[derive(Clone, Copy)]
pub struct Packet<A: Family> {
    /// Destination and source MAC.
    pub macs: Macs,
    /// Offset of the IP header.
    pub header: usize,
    /// The outermost VLAN tag (TCI, host order); 0: none.
    pub vlan: u16,
    /// The IP header.
    pub ip: A::Words,
    /// TCP or UDP.
    pub protocol: u8,
    /// Which part of a packet it is; never a later one.
    pub part: Part,
    /// Offset of the transport header.
    pub transport: usize,
    /// The transport header.
    pub words: TransportWords,
}

/// What a packet is.
pub enum Parsed<A: Family> {
    /// TCP or UDP.
    Packet(Packet<A>),
    /// ICMP.
    Icmp,
    /// A later part of a fragmented packet.
    LaterPart,
    /// Not ours.
    Other,
    /// Headers that lie about the packet's length.
    Malformed,
}

impl<A: Family> Parsed<A> {
    /// What becomes of what is no TCP or UDP packet.
    #[inline(always)]
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::Icmp => Verdict::proceed(A::STAGES.icmp),
            Self::LaterPart => Verdict::proceed(A::STAGES.fragment),
            Self::Malformed => Verdict::note(0, Reason::Malformed),
            Self::Packet(_) | Self::Other => Verdict::PASS,
        }
    }
}

/// Read the headers.
#[inline(always)]
pub fn parse<A: Family, F: Frame>(frame: &F, header: usize, vlan: u16) -> Parsed<A> {
    let Some(macs) = frame.load::<Macs>(0) else { return Parsed::Other };
    let Some(ip) = A::read(frame, header) else { return Parsed::Malformed };
    if ip.part.position == Position::Later {
        return if matches!(ip.protocol, TCP | UDP) { Parsed::LaterPart } else { Parsed::Other };
    }
    if ip.protocol == A::ICMP {
        return if ip.part.position == Position::Whole { Parsed::Icmp } else { Parsed::Other };
    }
    let words = match ip.protocol {
        TCP => frame.load::<TransportWords>(ip.payload),
        UDP => frame.load::<[u16; 4]>(ip.payload).map(|[a, b, c, d]| [a, b, c, d, 0, 0, 0, 0, 0, 0]),
        _ => return Parsed::Other,
    };
    let Some(words) = words else { return Parsed::Malformed };
    let packet = Packet {
        macs,
        header,
        vlan,
        ip: ip.words,
        protocol: ip.protocol,
        part: ip.part,
        transport: ip.payload,
        words,
    };
    if frame.length() < header + packet.length() as usize || packet.segment() < packet.transport_header() {
        return Parsed::Malformed;
    }
    if packet.protocol == TCP && packet.transport_header() < size_of::<TransportWords>() {
        return Parsed::Malformed;
    }
    Parsed::Packet(packet)
}

/// The MAC address that a packet came by.
#[inline(always)]
pub const fn source_mac(macs: &Macs) -> [u8; 6] {
    let (middle, last) = (macs[1].to_ne_bytes(), macs[2].to_ne_bytes());
    [middle[2], middle[3], last[0], last[1], last[2], last[3]]
}

/// The MAC address that a packet was sent to.
#[inline(always)]
pub const fn destination_mac(macs: &Macs) -> [u8; 6] {
    let (first, middle) = (macs[0].to_ne_bytes(), macs[1].to_ne_bytes());
    [first[0], first[1], first[2], first[3], middle[0], middle[1]]
}

impl<A: Family> Packet<A> {
    /// Where it comes from.
    #[inline(always)]
    pub fn source(&self) -> A {
        A::source(&self.ip)
    }

    /// Where it goes to.
    #[inline(always)]
    pub fn destination(&self) -> A {
        A::destination(&self.ip)
    }

    /// The length of IP header and payload.
    #[inline(always)]
    pub fn length(&self) -> u32 {
        A::length(&self.ip)
    }

    /// The sender's port.
    #[inline(always)]
    pub const fn source_port(&self) -> Be16 {
        Be16::from_wire(self.words[0])
    }

    /// The receiver's port.
    #[inline(always)]
    pub const fn destination_port(&self) -> Be16 {
        Be16::from_wire(self.words[1])
    }

    /// The key of the flow that a client's packet to `service` belongs to.
    #[inline(always)]
    pub fn key(&self, service: u16) -> FlowKey<A> {
        FlowKey {
            client: self.source(),
            client_port: self.source_port(),
            service_port: self.destination_port(),
            service,
        }
    }

    /// Whether it is a datagram.
    #[inline(always)]
    pub const fn is_udp(&self) -> bool {
        self.protocol == UDP
    }

    /// The sequence number, host order (TCP).
    #[inline(always)]
    pub const fn sequence(&self) -> u32 {
        (u16::from_be(self.words[2]) as u32) << 16 | u16::from_be(self.words[3]) as u32
    }

    /// The acknowledgement number, host order (TCP).
    #[inline(always)]
    pub const fn acknowledgement(&self) -> u32 {
        (u16::from_be(self.words[4]) as u32) << 16 | u16::from_be(self.words[5]) as u32
    }

    /// The flags (TCP; UDP has none).
    #[inline(always)]
    pub const fn flags(&self) -> u8 {
        self.words[6].to_ne_bytes()[1]
    }

    /// The transport checksum as it stands.
    #[inline(always)]
    pub const fn checksum(&self) -> Be16 {
        Be16::from_wire(if self.is_udp() { self.words[3] } else { self.words[8] })
    }

    /// Whether it is a datagram of IPv6 without a checksum, which must have one (RFC 8200, 8.1): tunnels that may do
    /// without (RFC 6936) are not balanced.
    #[inline(always)]
    pub const fn lacks_checksum(&self) -> bool {
        A::VERSION == 6 && self.is_udp() && self.checksum().wire() == 0
    }

    /// Where that stands in the packet.
    #[inline(always)]
    pub const fn checksum_offset(&self) -> usize {
        self.transport + checksum_offset(self.protocol)
    }

    /// The length of transport header and data in this part; 0 if IP says nonsense.
    #[inline(always)]
    pub fn segment(&self) -> usize {
        (self.length() as usize).saturating_sub(self.transport - self.header)
    }

    /// The length of the transport header, options included.
    #[inline(always)]
    pub const fn transport_header(&self) -> usize {
        if self.is_udp() { UDP_HEADER } else { (self.words[6].to_ne_bytes()[0] >> 4) as usize * 4 }
    }

    /// The length of the data that this part carries.
    #[inline(always)]
    pub fn data(&self) -> usize {
        self.segment() - self.transport_header()
    }

    /// Whether it may begin a connection: a SYN, or any datagram.
    #[inline(always)]
    pub const fn begins(&self) -> bool {
        self.is_udp() || self.flags() & (flag::SYN | flag::ACK | flag::RST) == flag::SYN
    }

    /// Whether it can move a connection on: SYN, FIN and RST do, datagrams and plain segments do not.
    #[inline(always)]
    pub const fn turns(&self) -> bool {
        self.flags() & (flag::SYN | flag::FIN | flag::RST) != 0
    }

    /// Whether it says that a connection ends.
    #[inline(always)]
    pub const fn ends(&self) -> bool {
        self.flags() & (flag::FIN | flag::RST) != 0
    }

    /// What the segment tells about its connection; `server_isn` where the sender may prove that it has seen it.
    #[inline(always)]
    pub fn signs(&self, server_isn: Option<u32>) -> Signs {
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
            datagram: self.is_udp(),
        }
    }
}

/// Where the checksum stands in a transport header.
#[inline(always)]
pub const fn checksum_offset(protocol: u8) -> usize {
    if protocol == UDP { 6 } else { 16 }
}
