//! Checksums computed from scratch (RFC 1071), byte by byte: what the library's incremental ones are held against.

use lb_common::abi::{ICMP, ICMPV6, TCP, UDP};

/// The sum of bytes as 16-bit words, an odd last one with a zero behind it.
pub fn ones(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    bytes.chunks(2).map(word).sum()
}

/// With all carries added back in.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of a pseudo-header.
pub fn pseudo(from: &[u8], to: &[u8], protocol: u8, length: usize) -> u64 {
    ones(from) + ones(to) + u64::from(protocol) + length as u64
}

/// What a frame's checksums are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    /// The IP header's; true in IPv6.
    pub header: bool,
    /// The transport's, as far as it can be judged: a whole TCP, UDP or ICMP packet, or one inside a tunnel.
    pub transport: Option<bool>,
    /// The transport's field holds the pseudo-header's sum alone, as a packet that hardware is to complete has it.
    pub partial: bool,
}

/// Judge a frame; `None`: it is no IP packet that its headers describe.
pub fn judge(frame: &[u8]) -> Option<Sums> {
    let mut at = 12;
    for _ in 0..3 {
        match [*frame.get(at)?, *frame.get(at + 1)?] {
            [0x08, 0x00] => return ipv4(frame.get(at + 2..)?),
            [0x86, 0xdd] => return ipv6(frame.get(at + 2..)?),
            [0x81, 0x00] | [0x88, 0xa8] => at += 4,
            _ => return None,
        }
    }
    None
}

fn ipv4(bytes: &[u8]) -> Option<Sums> {
    let header = usize::from(bytes.first()? & 15) * 4;
    if bytes[0] >> 4 != 4 || header < 20 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    let packet = bytes.get(..length)?;
    let good = fold(ones(packet.get(..header)?)) == 0xffff;
    let unknown = Sums { header: good, transport: None, partial: false };
    if packet[6] & 0x3f != 0 || packet[7] != 0 {
        return Some(unknown);
    }
    let payload = packet.get(header..)?;
    if packet[9] == 4 {
        return Some(inside(ipv4(payload), unknown));
    }
    let ends = (&packet[12..16], &packet[16..20]);
    Some(transport(payload, packet[9], ends, unknown))
}

fn ipv6(bytes: &[u8]) -> Option<Sums> {
    if bytes.first()? >> 4 != 6 {
        return None;
    }
    let length = 40 + usize::from(u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?]));
    let packet = bytes.get(..length)?;
    let unknown = Sums { header: true, transport: None, partial: false };
    let (mut next, mut at) = (packet[6], 40);
    for _ in 0..6 {
        if !matches!(next, 0 | 43 | 60) {
            break;
        }
        let Some([following, length]) = packet.get(at..at + 2) else { return Some(unknown) };
        next = *following;
        at += (usize::from(*length) + 1) * 8;
    }
    let Some(payload) = packet.get(at..) else { return Some(unknown) };
    if next == 41 {
        return Some(inside(ipv6(payload), unknown));
    }
    Some(transport(payload, next, (&packet[8..24], &packet[24..40]), unknown))
}

fn inside(inner: Option<Sums>, outer: Sums) -> Sums {
    match inner {
        Some(inner) => Sums { header: outer.header && inner.header, ..inner },
        None => outer,
    }
}

fn transport(payload: &[u8], protocol: u8, ends: (&[u8], &[u8]), unknown: Sums) -> Sums {
    let (least, field, covered) = match (protocol, ends.0.len()) {
        (TCP, _) => (20, 16, true),
        (UDP, _) => (8, 6, true),
        (ICMP, 4) => (8, 2, false),
        (ICMPV6, 16) => (8, 2, true),
        _ => return unknown,
    };
    if payload.len() < least {
        return unknown;
    }
    let stated = u16::from_be_bytes([payload[field], payload[field + 1]]);
    if protocol == UDP && stated == 0 {
        return unknown;
    }
    let pseudo = if covered { pseudo(ends.0, ends.1, protocol, payload.len()) } else { 0 };
    let good = fold(pseudo + ones(payload)) == 0xffff;
    Sums { transport: Some(good), partial: covered && fold(pseudo) == stated, ..unknown }
}
