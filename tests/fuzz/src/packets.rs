//! Packets as clients, servers and routers make them, built without the library that reads them.

use lb_common::{Be16, Be32, Be128, abi::UDP};
use lb_ebpf::family::Family;

use crate::sums::{self, ones};

/// Flags of a TCP header.
pub mod flag {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// ACK.
    pub const ACK: u8 = 16;
}

/// A family whose addresses can be numbered, and whose packets can be built.
pub trait Numbered: Family + Send + Sync {
    /// What an Ethernet header calls it.
    const ETHER_TYPE: [u8; 2];

    /// The address with that number.
    fn numbered(number: u32) -> Self;

    /// The number of such an address.
    fn number(self) -> u32;

    /// Its bytes, in the order of the wire.
    fn octets(self) -> Vec<u8>;

    /// A packet of one header and this payload.
    fn packet(from: Self, to: Self, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8>;
}

impl Numbered for Be32 {
    const ETHER_TYPE: [u8; 2] = [0x08, 0x00];

    fn numbered(number: u32) -> Self {
        Self::from_host(0x0a00_0000 | number)
    }

    fn number(self) -> u32 {
        self.host() & 0x00ff_ffff
    }

    fn octets(self) -> Vec<u8> {
        self.bytes().to_vec()
    }

    fn packet(from: Self, to: Self, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
        let [high, low] = ((payload.len() + 20) as u16).to_be_bytes();
        let mut packet = vec![0x45, 0, high, low, 0x12, 0x34, 0, 0, ttl, protocol, 0, 0];
        packet.extend(from.bytes());
        packet.extend(to.bytes());
        let sum = (!sums::fold(ones(&packet))).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        packet.extend(payload);
        packet
    }
}

impl Numbered for Be128 {
    const ETHER_TYPE: [u8; 2] = [0x86, 0xdd];

    fn numbered(number: u32) -> Self {
        Self::from_wire([0xfd_u32.to_le(), 0, 7_u32.to_be(), number.to_be()])
    }

    fn number(self) -> u32 {
        u32::from_be(self.wire()[3])
    }

    fn octets(self) -> Vec<u8> {
        core::net::Ipv6Addr::from(self).octets().to_vec()
    }

    fn packet(from: Self, to: Self, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
        let [high, low] = (payload.len() as u16).to_be_bytes();
        let mut packet = vec![0x60, 0, 0, 0, high, low, protocol, ttl];
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(payload);
        packet
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct End<A> {
    /// Address.
    pub address: A,
    /// Port, host order.
    pub port: u16,
}

/// A TCP segment without addresses; its checksum is still zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment<'a> {
    /// Flags.
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Data.
    pub data: &'a [u8],
}

fn transport<A: Numbered>(from: A, to: A, protocol: u8, at: usize, mut bytes: Vec<u8>) -> Vec<u8> {
    let pseudo = sums::pseudo(&from.octets(), &to.octets(), protocol, bytes.len());
    let sum = !sums::fold(pseudo + ones(&bytes));
    let sum = if protocol == UDP && sum == 0 { 0xffff } else { sum };
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    A::packet(from, to, protocol, 64, &bytes)
}

/// A TCP packet.
pub fn tcp<A: Numbered>(from: End<A>, to: End<A>, segment: &Segment<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20 + segment.data.len());
    bytes.extend(from.port.to_be_bytes());
    bytes.extend(to.port.to_be_bytes());
    bytes.extend(segment.sequence.to_be_bytes());
    bytes.extend(segment.acknowledgement.to_be_bytes());
    bytes.extend([0x50, segment.flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(segment.data);
    transport(from.address, to.address, 6, 16, bytes)
}

/// A datagram.
pub fn udp<A: Numbered>(from: End<A>, to: End<A>, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + data.len());
    bytes.extend(from.port.to_be_bytes());
    bytes.extend(to.port.to_be_bytes());
    bytes.extend(((8 + data.len()) as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    transport(from.address, to.address, UDP, 6, bytes)
}

/// An ICMP message from `from` to `to`.
pub fn icmp<A: Numbered>(from: A, to: A, kind: [u8; 2], word: u32, quote: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind[0], kind[1], 0, 0];
    bytes.extend(word.to_be_bytes());
    bytes.extend(quote);
    let pseudo =
        if A::VERSION == 6 { sums::pseudo(&from.octets(), &to.octets(), A::ICMP, bytes.len()) } else { 0 };
    let sum = (!sums::fold(pseudo + ones(&bytes))).to_be_bytes();
    bytes[2..4].copy_from_slice(&sum);
    A::packet(from, to, A::ICMP, 64, &bytes)
}

/// A frame: the packet behind an Ethernet header with these VLAN tags.
pub fn frame<A: Numbered>(packet: &[u8], tags: &[u16]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for (place, tag) in tags.iter().enumerate() {
        let kind: [u8; 2] = if place + 1 < tags.len() { [0x88, 0xa8] } else { [0x81, 0x00] };
        frame.extend(kind);
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(A::ETHER_TYPE);
    frame.extend(packet);
    frame
}

/// The ends of a forwarded TCP or UDP packet without tags and options.
pub fn ends<A: Numbered>(frame: &[u8]) -> Option<(End<A>, End<A>)> {
    let ip = frame.get(14..)?;
    let (at, length) = if A::VERSION == 4 { (12, 4) } else { (8, 16) };
    let address = |from: usize| -> Option<A> {
        let bytes = ip.get(from..from + length)?;
        let word = |place: usize| {
            let bytes = bytes.get(place * 4..place * 4 + 4);
            bytes.map_or(0, |b| u64::from(u32::from_ne_bytes([b[0], b[1], b[2], b[3]])))
        };
        Some(A::from_words((word(1) << 32 | word(0), word(3) << 32 | word(2))))
    };
    let payload = ip.get(A::HEADER..)?;
    let port = |from: usize| Some(u16::from_be_bytes([*payload.get(from)?, *payload.get(from + 1)?]));
    let source = End { address: address(at)?, port: port(0)? };
    Some((source, End { address: address(at + length)?, port: port(2)? }))
}

/// A port as tables hold it.
pub const fn port(number: u16) -> Be16 {
    Be16::from_host(number)
}
