//! The packets of a flood, whole to the last checksum: nothing but the receiver's own judgement drops them.

use std::net::{IpAddr, SocketAddr};

use crate::lab::Family;

/// Where spoofed IPv4 sources are taken from: RFC 2544's network for benchmarks.
pub const SOURCES_4: &str = "198.18.0.0/15";
/// Where spoofed IPv6 sources are taken from: RFC 5180's network for benchmarks.
pub const SOURCES_6: &str = "2001:2::/48";
/// The last four bytes of the first source, by family.
const FIRST: [u32; 2] = [u32::from_be_bytes([198, 18, 0, 1]), 1];
/// The other bytes of an IPv6 source.
const PREFIX_6: [u8; 12] = [0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];
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

/// A frame whose varying fields are zero, and the sums of the rest of it (RFC 1071): a packet costs a few
/// additions, also without optimisation.
#[derive(Debug)]
pub(super) struct Template {
    kind: Kind,
    family: Family,
    frame: Vec<u8>,
    ip_sum: u32,
    transport_sum: u32,
}

impl Template {
    pub(super) fn new(kind: Kind, own: [u8; 6], next_hop: [u8; 6], target: SocketAddr) -> Self {
        let family = Family::among(target.ip());
        let ip = ip_header(kind, target.ip());
        let transport = transport(kind, target.port());
        let kind_of_frame = if family == Family::V4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        let pseudo = [&source(target.ip())[..], &octets(target.ip()), &[0, kind.protocol()]].concat();
        let transport_sum = sum(&pseudo) + kind.length() as u32 + sum(&transport);
        let ip_sum = sum(&ip);
        let frame = [&next_hop[..], &own, &kind_of_frame, &ip, &transport].concat();
        Self { kind, family, frame, ip_sum, transport_sum }
    }

    /// The frame to be given to [`fill`](Self::fill).
    pub(super) fn frame(&self) -> Vec<u8> {
        self.frame.clone()
    }

    /// Makes a frame the packet of that number: its source's last four bytes, its port, its sequence number and
    /// its checksums.
    pub(super) fn fill(&self, frame: &mut [u8], number: u64, addresses: u32) {
        let addresses = u64::from(addresses.max(1));
        let source = FIRST[self.family as usize] + (number % addresses) as u32;
        let port = FIRST_PORT + (number / addresses % PORTS) as u16;
        let transport = ETHERNET + self.family.header();
        // Both headers end with the source and a destination of the same length.
        let place = transport - self.address() - 4;
        frame[place..place + 4].copy_from_slice(&source.to_be_bytes());
        frame[transport..transport + 2].copy_from_slice(&port.to_be_bytes());
        if self.family == Family::V4 {
            let sum = folded(self.ip_sum + halves(source));
            frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
        }
        // Knuth's multiplier spreads the sequence numbers as those of real stacks are.
        let sequence = (number as u32).wrapping_mul(2_654_435_761);
        let mut sum = self.transport_sum + halves(source) + u32::from(port);
        let sum_at = match self.kind {
            Kind::Udp => 6,
            Kind::Syn | Kind::Ack => {
                frame[transport + 4..transport + 8].copy_from_slice(&sequence.to_be_bytes());
                sum += halves(sequence);
                16
            }
        };
        let sum = match (self.kind, folded(sum)) {
            // RFC 768: a sum of 0 is sent as all ones.
            (Kind::Udp, 0) => u16::MAX,
            (_, sum) => sum,
        };
        frame[transport + sum_at..transport + sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    const fn address(&self) -> usize {
        match self.family {
            Family::V4 => 4,
            Family::V6 => 16,
        }
    }
}

/// An IP header whose source has zeros where it varies, without a checksum.
fn ip_header(kind: Kind, target: IpAddr) -> Vec<u8> {
    let length = kind.length() as u16;
    let first = if target.is_ipv4() {
        let total = (length + 20).to_be_bytes();
        // No identification, "don't fragment".
        vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, TTL, kind.protocol(), 0, 0]
    } else {
        let payload = length.to_be_bytes();
        vec![0x60, 0, 0, 0, payload[0], payload[1], kind.protocol(), TTL]
    };
    [first, source(target), octets(target)].concat()
}

/// A source of the target's family, its last four bytes zero.
fn source(target: IpAddr) -> Vec<u8> {
    if target.is_ipv4() { vec![0; 4] } else { [&PREFIX_6[..], &[0; 4]].concat() }
}

/// A TCP or UDP header without source port, sequence number and checksum, and its payload.
fn transport(kind: Kind, port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    let mut bytes = vec![0, 0, port[0], port[1]];
    match kind {
        Kind::Syn | Kind::Ack => {
            let flags = if kind == Kind::Syn { 0x02 } else { 0x10 };
            bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        }
        Kind::Udp => {
            bytes.extend((kind.length() as u16).to_be_bytes());
            bytes.extend([0; 2 + UDP_PAYLOAD]);
        }
    }
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The sum of the words of an even number of bytes.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum()
}

const fn halves(word: u32) -> u32 {
    (word >> 16) + (word & 0xffff)
}

/// The checksum of a sum.
const fn folded(sum: u32) -> u16 {
    // Twice: the first may carry once more.
    !(halves(halves(sum)) as u16)
}
