//! Internet checksums from scratch, as RFC 1071 words them: big-endian pairs of bytes, one after the other.

use std::net::IpAddr;

use lb_common::abi::UDP;

use super::{
    kind::octets,
    layout::{Layout, half},
};

/// The folded sum of `bytes`, an odd last byte counted as if a zero followed.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    sum as u16
}

/// The folded sum of the pseudo-header of `length` bytes of a protocol (RFC 9293, 3.1; RFC 8200, 8.1).
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u16 {
    let mut header = octets(source);
    header.extend(octets(destination));
    header.extend((length as u32).to_be_bytes());
    header.extend([0, 0, 0, protocol]);
    sum(&header)
}

/// Write the header checksum of the IPv4 packet at an offset; IPv6 has none.
pub fn fill_ip(packet: &mut [u8], ip: usize) {
    if packet[ip] >> 4 != 4 {
        return;
    }
    let header = usize::from(packet[ip] & 0x0f) * 4;
    packet[ip + 10..ip + 12].fill(0);
    let check = !sum(&packet[ip..ip + header]);
    packet[ip + 10..ip + 12].copy_from_slice(&check.to_be_bytes());
}

/// What the transport's checksum field should hold when it is complete.
pub fn whole(packet: &[u8]) -> u16 {
    whole_at(packet, Layout::of(packet))
}

/// The same of a packet that is known.
pub fn whole_at(packet: &[u8], layout: Layout) -> u16 {
    let mut segment = packet[layout.transport..layout.end.min(packet.len())].to_vec();
    let field = layout.sum() - layout.transport;
    segment[field..field + 2].fill(0);
    let pair = [sum(&segment), partial_at(packet, layout)];
    let whole = !sum(&pair.map(u16::to_be_bytes).concat());
    // In UDP zero means that there is no checksum (RFC 768).
    if layout.protocol == UDP && whole == 0 { 0xffff } else { whole }
}

/// What the field should hold while the rest is left to hardware: the pseudo-header's sum.
pub fn partial(packet: &[u8]) -> u16 {
    partial_at(packet, Layout::of(packet))
}

fn partial_at(packet: &[u8], layout: Layout) -> u16 {
    let (source, destination) =
        (layout.address(packet, layout.source()), layout.address(packet, layout.destination()));
    pseudo_header(source, destination, layout.protocol, layout.end - layout.transport)
}

/// Write the transport's checksum field.
pub fn set(packet: &mut [u8], field: u16) {
    let at = Layout::of(packet).sum();
    packet[at..at + 2].copy_from_slice(&field.to_be_bytes());
}

/// The transport's checksum field.
pub fn field(packet: &[u8]) -> u16 {
    half(packet, Layout::of(packet).sum())
}

/// A field that was `field` in a packet whose right one was `before`, where that is `after` now: what was wrong stays
/// wrong by as much.
pub fn moved(field: u16, before: u16, after: u16) -> u16 {
    sum(&[field, !before, after].map(u16::to_be_bytes).concat())
}
