//! Internet checksums from scratch, as RFC 1071 words them: big-endian pairs of bytes, one after the other.

use std::net::Ipv4Addr;

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

/// The folded sum of the pseudo-header of a TCP segment of `length` bytes (RFC 9293, 3.1).
pub fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, length: usize) -> u16 {
    let mut header = Vec::from(source.octets());
    header.extend(destination.octets());
    header.extend([0, 6]);
    header.extend((length as u16).to_be_bytes());
    sum(&header)
}

/// Write the header checksum of the IPv4 packet that begins at `packet[14]`.
pub fn fill_ip(packet: &mut [u8]) {
    let header = usize::from(packet[14] & 0x0f) * 4;
    packet[24..26].fill(0);
    let check = !sum(&packet[14..14 + header]);
    packet[24..26].copy_from_slice(&check.to_be_bytes());
}

/// What the checksum field of the TCP segment in an IPv4 packet should hold when it is complete.
pub fn whole_tcp(packet: &[u8]) -> u16 {
    let (start, end) = tcp(packet);
    let mut segment = packet[start..end.min(packet.len())].to_vec();
    segment[16..18].fill(0);
    let pair = [sum(&segment), partial_tcp(packet)];
    !sum(&pair.map(u16::to_be_bytes).concat())
}

/// What the field should hold while the rest is left to hardware: the pseudo-header's sum.
pub fn partial_tcp(packet: &[u8]) -> u16 {
    let (start, end) = tcp(packet);
    pseudo_header(address(packet, 26), address(packet, 30), end - start)
}

/// Write the checksum field of the TCP segment.
pub fn set_tcp(packet: &mut [u8], field: u16) {
    let (start, _) = tcp(packet);
    packet[start + 16..start + 18].copy_from_slice(&field.to_be_bytes());
}

/// The checksum field of the TCP segment.
pub fn tcp_field(packet: &[u8]) -> u16 {
    let (start, _) = tcp(packet);
    u16::from_be_bytes([packet[start + 16], packet[start + 17]])
}

/// The address at an offset.
pub fn address(packet: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3])
}

/// Where the TCP segment begins and where IP says that it ends, which may be after the frame's end.
fn tcp(packet: &[u8]) -> (usize, usize) {
    let header = usize::from(packet[14] & 0x0f) * 4;
    let length = usize::from(u16::from_be_bytes([packet[16], packet[17]]));
    (14 + header, 14 + length)
}
