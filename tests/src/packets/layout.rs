//! Where things stand in a frame that is known to be well-formed: read with no help from the data path.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::abi::UDP;

use super::kind::octets;

/// Where things stand in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Offset of the IP header.
    pub ip: usize,
    /// 4 or 6.
    pub version: u8,
    /// Protocol of what follows IP.
    pub protocol: u8,
    /// Offset of that.
    pub transport: usize,
    /// Where IP says that the packet ends, which may be after the frame's end.
    pub end: usize,
    /// Offset of this part in the whole, in bytes, and whether more follow; `None`: it is no part.
    pub part: Option<(u16, bool)>,
}

impl Layout {
    /// Read a frame.
    pub fn of(frame: &[u8]) -> Self {
        let mut ip = 14;
        while matches!(half(frame, ip - 2), 0x8100 | 0x88a8) {
            ip += 4;
        }
        Self::of_packet(frame, ip)
    }

    /// Read the IP packet at an offset.
    pub fn of_packet(frame: &[u8], ip: usize) -> Self {
        if frame[ip] >> 4 == 4 {
            let word = half(frame, ip + 6);
            let part = (word & 0x1fff) * 8;
            Self {
                ip,
                version: 4,
                protocol: frame[ip + 9],
                transport: ip + usize::from(frame[ip] & 0x0f) * 4,
                end: ip + usize::from(half(frame, ip + 2)),
                part: (word & 0x3fff != 0).then_some((part, word & 0x2000 != 0)),
            }
        } else {
            let end = ip + 40 + usize::from(half(frame, ip + 4));
            let mut found =
                Self { ip, version: 6, protocol: frame[ip + 6], transport: ip + 40, end, part: None };
            while let 0 | 43 | 44 | 60 = found.protocol {
                let at = found.transport;
                if found.protocol == 44 {
                    let word = half(frame, at + 2);
                    found.part = (word & !6 != 0).then_some((word & !7, word & 1 != 0));
                    found.transport += 8;
                } else {
                    found.transport += 8 * (1 + usize::from(frame[at + 1]));
                }
                found.protocol = frame[at];
                if found.part.is_some_and(|(offset, _)| offset != 0) {
                    break;
                }
            }
            found
        }
    }

    /// Bytes of IP.
    pub const fn length(&self) -> usize {
        self.end - self.ip
    }

    /// Where the sender's address stands.
    pub const fn source(&self) -> usize {
        self.ip + if self.version == 4 { 12 } else { 8 }
    }

    /// Where the receiver's address stands.
    pub const fn destination(&self) -> usize {
        self.ip + if self.version == 4 { 16 } else { 24 }
    }

    /// Where the hops that are left stand.
    pub const fn hops(&self) -> usize {
        self.ip + if self.version == 4 { 8 } else { 7 }
    }

    /// Where the transport's checksum stands.
    pub const fn sum(&self) -> usize {
        self.transport + if self.protocol == UDP { 6 } else { 16 }
    }

    /// The address at an offset.
    pub fn address(&self, frame: &[u8], at: usize) -> IpAddr {
        if self.version == 4 {
            Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]).into()
        } else {
            let mut octets = [0; 16];
            octets.copy_from_slice(&frame[at..at + 16]);
            Ipv6Addr::from(octets).into()
        }
    }

    /// Sender and receiver.
    pub fn ends(&self, frame: &[u8]) -> (SocketAddr, SocketAddr) {
        let end = |address, port| SocketAddr::new(self.address(frame, address), half(frame, port));
        (end(self.source(), self.transport), end(self.destination(), self.transport + 2))
    }

    /// Write both addresses.
    pub fn set_addresses(&self, frame: &mut [u8], from: IpAddr, to: IpAddr) {
        let (from, to) = (octets(from), octets(to));
        frame[self.source()..][..from.len()].copy_from_slice(&from);
        frame[self.destination()..][..to.len()].copy_from_slice(&to);
    }

    /// Write addresses and ports.
    pub fn set_ends(&self, frame: &mut [u8], from: SocketAddr, to: SocketAddr) {
        self.set_addresses(frame, from.ip(), to.ip());
        frame[self.transport..][..2].copy_from_slice(&from.port().to_be_bytes());
        frame[self.transport + 2..][..2].copy_from_slice(&to.port().to_be_bytes());
    }
}

/// Two bytes in network order.
pub fn half(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}
