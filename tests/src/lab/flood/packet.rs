//! The packets of a flood, whole to the last checksum: nothing but the receiver's own judgement drops them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::lab::Family;

/// Where spoofed IPv4 sources are taken from: RFC 2544's network for benchmarks.
pub const SOURCES_4: &str = "198.18.0.0/15";
/// Where spoofed IPv6 sources are taken from: RFC 5180's network for benchmarks.
pub const SOURCES_6: &str = "2001:2::/48";
const FIRST_4: u32 = u32::from_be_bytes([198, 18, 0, 1]);
const FIRST_6: u128 = u128::from_be_bytes([0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// Source ports of an address: from 2,000 on.
const PORTS: u64 = 60_000;
const FIRST_PORT: u16 = 2_000;

const ETHERNET: usize = 14;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP_PAYLOAD: usize = 18;
const TTL: u8 = 64;

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A TCP SYN, each the beginning of a connection of its own.
    Syn,
    /// A TCP ACK that belongs to no connection.
    Ack,
    /// A UDP datagram of 18 bytes.
    Udp,
}

impl Kind {
    const fn protocol(self) -> u8 {
        match self {
            Self::Syn | Self::Ack => 6,
            Self::Udp => 17,
        }
    }

    const fn length(self) -> usize {
        match self {
            Self::Syn | Self::Ack => TCP_HEADER,
            Self::Udp => UDP_HEADER + UDP_PAYLOAD,
        }
    }
}

/// Everything of a frame but its source.
#[derive(Debug)]
pub(super) struct Template {
    kind: Kind,
    target: SocketAddr,
    ethernet: [u8; ETHERNET],
}

impl Template {
    pub(super) fn new(kind: Kind, own: [u8; 6], next_hop: [u8; 6], target: SocketAddr) -> Self {
        let mut ethernet = [0; ETHERNET];
        ethernet[..6].copy_from_slice(&next_hop);
        ethernet[6..12].copy_from_slice(&own);
        ethernet[12..].copy_from_slice(match target {
            SocketAddr::V4(_) => &[0x08, 0x00],
            SocketAddr::V6(_) => &[0x86, 0xdd],
        });
        Self { kind, target, ethernet }
    }

    /// The packet of that number.
    pub(super) fn frame(&self, number: u64, addresses: u32) -> Vec<u8> {
        let addresses = u64::from(addresses.max(1));
        let address = number % addresses;
        let port = FIRST_PORT + (number / addresses % PORTS) as u16;
        let source = match self.target.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(FIRST_4 + address as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(FIRST_6 + u128::from(address))),
        };
        let mut frame = self.ethernet.to_vec();
        frame.extend(self.ip_header(source));
        let transport = self.transport(port, number);
        let sum = checksum(&[&self.pseudo_header(source), &transport]);
        let place = frame.len() + if self.kind == Kind::Udp { 6 } else { 16 };
        frame.extend(transport);
        // RFC 768: a sum of 0 is sent as all ones.
        let sum = if self.kind == Kind::Udp && sum == 0 { u16::MAX } else { sum };
        frame[place..place + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    fn ip_header(&self, source: IpAddr) -> Vec<u8> {
        let length = self.kind.length() as u16;
        let protocol = self.kind.protocol();
        let mut header = Vec::with_capacity(Family::among(source).header());
        if source.is_ipv4() {
            let total = (length + 20).to_be_bytes();
            // No identification, "don't fragment", no checksum yet.
            header.extend([0x45, 0, total[0], total[1], 0, 0, 0x40, 0, TTL, protocol, 0, 0]);
        } else {
            let payload = length.to_be_bytes();
            header.extend([0x60, 0, 0, 0, payload[0], payload[1], protocol, TTL]);
        }
        header.extend(octets(source));
        header.extend(octets(self.target.ip()));
        if source.is_ipv4() {
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        header
    }

    fn transport(&self, port: u16, number: u64) -> Vec<u8> {
        let mut bytes = port.to_be_bytes().to_vec();
        bytes.extend(self.target.port().to_be_bytes());
        // Knuth's multiplier spreads the sequence numbers as those of real stacks are.
        let sequence = (number as u32).wrapping_mul(2_654_435_761).to_be_bytes();
        match self.kind {
            Kind::Syn | Kind::Ack => {
                let flags = if self.kind == Kind::Syn { 0x02 } else { 0x10 };
                bytes.extend(sequence);
                bytes.extend(if self.kind == Kind::Syn { [0; 4] } else { sequence });
                bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
            Kind::Udp => {
                bytes.extend((self.kind.length() as u16).to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend([0; UDP_PAYLOAD]);
            }
        }
        bytes
    }

    /// RFC 9293, 3.1 and RFC 8200, 8.1; both give the same sum.
    fn pseudo_header(&self, source: IpAddr) -> Vec<u8> {
        let length = (self.kind.length() as u16).to_be_bytes();
        let mut header = octets(source);
        header.extend(octets(self.target.ip()));
        header.extend([0, self.kind.protocol(), length[0], length[1]]);
        header
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// RFC 1071 over pieces of even length.
fn checksum(pieces: &[&[u8]]) -> u16 {
    let words = pieces.iter().flat_map(|piece| piece.chunks(2));
    let mut sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
