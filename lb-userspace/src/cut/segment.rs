//! One TCP segment without data, as the whole frame that goes out.
//!
//! The segment pretends to be the other end's, so everything in it stands as the connection's own packets have it:
//! addresses and ports, and the tag of the VLAN. There are no TCP options: a socket looks at none before it answers a
//! SYN or takes a RST (`tcp_validate_incoming`, net/ipv4/tcp_input.c; a time stamp that is missing is no old one).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How a frame leaves this host for one side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Index of the interface.
    pub interface: u32,
    /// The interface's own MAC address.
    pub source: [u8; 6],
    /// The next hop's MAC address.
    pub destination: [u8; 6],
    /// The 802.1Q tag's control information (priority and VLAN id, host order), where the side's packets carry one.
    pub vlan: Option<u16>,
    /// The tunnel to the side, for a backend in `ipip`.
    pub tunnel: Option<Tunnel>,
}

/// The ends of a tunnel that carries IP in IP: the outer header's addresses (RFC 2003, RFC 2473).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// Ours.
    pub from: IpAddr,
    /// The far end's. Of the same family as `from`.
    pub to: IpAddr,
}

/// From whom to whom a segment claims to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Whose segment it claims to be.
    pub from: SocketAddr,
    /// Who gets it. Of the same family as `from`.
    pub to: SocketAddr,
}

/// What a segment says. The numbers are in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// A SYN, as from the end that opened the connection.
    Syn {
        /// Its sequence number.
        sequence: u32,
    },
    /// A SYN with ACK, as from the end that was called.
    SynAck {
        /// Its sequence number.
        sequence: u32,
        /// The sequence number that it waits for.
        acknowledgement: u32,
    },
    /// A RST. It is obeyed if its number is exactly the one that the receiver waits for (RFC 5961 section 3.2).
    Rst {
        /// Its sequence number.
        sequence: u32,
    },
}

const FLAG_SYN: u8 = 0x02;
const FLAG_RST: u8 = 0x04;
const FLAG_ACK: u8 = 0x10;

impl Segment {
    /// Sequence number, acknowledgement number, flags, window.
    const fn fields(self) -> (u32, u32, u8, u16) {
        match self {
            Self::Syn { sequence } => (sequence, 0, FLAG_SYN, WINDOW),
            Self::SynAck { sequence, acknowledgement } => {
                (sequence, acknowledgement, FLAG_SYN | FLAG_ACK, WINDOW)
            }
            Self::Rst { sequence } => (sequence, 0, FLAG_RST, 0),
        }
    }
}

/// What a SYN offers; no socket reads it from one that it answers with a challenge.
const WINDOW: u16 = 65_535;
/// Hops that a segment may make: what Linux gives its own.
const HOPS: u8 = 64;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const PROTOCOL_IPV4: u8 = 4;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_IPV6: u8 = 41;
const TCP_HEADER: u16 = 20;
const IPV4_HEADER: u16 = 20;
const IPV6_HEADER: u16 = 40;

/// Bytes of the longest frame: Ethernet, one tag, IPv6 in IPv6, TCP.
const LONGEST: usize = 14 + 4 + 2 * IPV6_HEADER as usize + TCP_HEADER as usize;

/// A frame, ready to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    interface: u32,
    length: usize,
    bytes: [u8; LONGEST],
}

impl Frame {
    /// Build a segment's frame. `None` if two ends, of the connection or of the tunnel, are of different families.
    pub fn new(hop: &Hop, tuple: &Tuple, segment: Segment) -> Option<Self> {
        let inner = Pair::new(tuple.from.ip(), tuple.to.ip())?;
        let mut frame = Self { interface: hop.interface, length: 0, bytes: [0; LONGEST] };
        if let Some(tunnel) = hop.tunnel {
            let outer = Pair::new(tunnel.from, tunnel.to)?;
            frame.ethernet(hop, outer.ethertype());
            frame.ip(outer, inner.protocol(), inner.header() + TCP_HEADER);
        } else {
            frame.ethernet(hop, inner.ethertype());
        }
        frame.ip(inner, PROTOCOL_TCP, TCP_HEADER);
        frame.tcp(tuple, segment, inner);
        Some(frame)
    }

    /// Index of the interface that it is to leave by.
    pub const fn interface(&self) -> u32 {
        self.interface
    }

    /// The frame, from the Ethernet header on.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn ethernet(&mut self, hop: &Hop, ethertype: u16) {
        self.put(&hop.destination);
        self.put(&hop.source);
        if let Some(control) = hop.vlan {
            self.put(&ETHERTYPE_VLAN.to_be_bytes());
            self.put(&control.to_be_bytes());
        }
        self.put(&ethertype.to_be_bytes());
    }

    fn ip(&mut self, pair: Pair, protocol: u8, payload: u16) {
        match pair {
            Pair::V4(from, to) => self.ipv4(from, to, protocol, payload),
            Pair::V6(from, to) => self.ipv6(from, to, protocol, payload),
        }
    }

    fn ipv4(&mut self, from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: u16) {
        let start = self.length;
        self.put(&[0x45, 0]);
        self.put(&(IPV4_HEADER + payload).to_be_bytes());
        // No identification, and not to be fragmented: RFC 6864 allows that for a datagram that cannot be.
        self.put(&[0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
        self.put(&from.octets());
        self.put(&to.octets());
        let sum = checksum(sum_of(&self.bytes[start..self.length]));
        self.bytes[start + 10..start + 12].copy_from_slice(&sum);
    }

    fn ipv6(&mut self, from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: u16) {
        self.put(&[0x60, 0, 0, 0]);
        self.put(&payload.to_be_bytes());
        self.put(&[protocol, HOPS]);
        self.put(&from.octets());
        self.put(&to.octets());
    }

    fn tcp(&mut self, tuple: &Tuple, segment: Segment, pair: Pair) {
        let start = self.length;
        let (sequence, acknowledgement, flags, window) = segment.fields();
        self.put(&tuple.from.port().to_be_bytes());
        self.put(&tuple.to.port().to_be_bytes());
        self.put(&sequence.to_be_bytes());
        self.put(&acknowledgement.to_be_bytes());
        self.put(&[0x50, flags]);
        self.put(&window.to_be_bytes());
        self.put(&[0, 0, 0, 0]);
        let sum = checksum(pair.pseudo_header() + sum_of(&self.bytes[start..self.length]));
        self.bytes[start + 16..start + 18].copy_from_slice(&sum);
    }
}

/// Two addresses of one family.
#[derive(Clone, Copy)]
enum Pair {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Pair {
    const fn new(from: IpAddr, to: IpAddr) -> Option<Self> {
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Some(Self::V4(from, to)),
            (IpAddr::V6(from), IpAddr::V6(to)) => Some(Self::V6(from, to)),
            _ => None,
        }
    }

    const fn ethertype(self) -> u16 {
        match self {
            Self::V4(..) => ETHERTYPE_IPV4,
            Self::V6(..) => ETHERTYPE_IPV6,
        }
    }

    /// What a tunnel's outer header calls the inner one.
    const fn protocol(self) -> u8 {
        match self {
            Self::V4(..) => PROTOCOL_IPV4,
            Self::V6(..) => PROTOCOL_IPV6,
        }
    }

    const fn header(self) -> u16 {
        match self {
            Self::V4(..) => IPV4_HEADER,
            Self::V6(..) => IPV6_HEADER,
        }
    }

    /// The sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1) of a segment without data.
    fn pseudo_header(self) -> u32 {
        let addresses = match self {
            Self::V4(from, to) => sum_of(&from.octets()) + sum_of(&to.octets()),
            Self::V6(from, to) => sum_of(&from.octets()) + sum_of(&to.octets()),
        };
        addresses + u32::from(PROTOCOL_TCP) + u32::from(TCP_HEADER)
    }
}

/// The sum of an even number of bytes as 16-bit words; far from an overflow for headers.
fn sum_of(bytes: &[u8]) -> u32 {
    bytes.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum()
}

/// The Internet checksum (RFC 1071) of such a sum, as it stands in a header.
fn checksum(sum: u32) -> [u8; 2] {
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    (!(folded as u16)).to_be_bytes()
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
