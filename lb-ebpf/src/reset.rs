//! A RST in answer to a packet that nobody will serve (RFC 9293, 3.10.7.1).

use lb_common::{
    Be16, Reason,
    abi::{TCP, checksums},
};

use crate::{
    Frame, Tables, Verdict,
    checksum::{fold, pseudo_header},
    parse::{ETHERNET, IPV4, Ipv4Words, Packet, TcpWords, flag},
};

/// Length of what is sent: Ethernet, IPv4 and TCP headers without options.
const LENGTH: usize = ETHERNET + IPV4 + size_of::<TcpWords>();

/// The "don't fragment" bit of an IPv4 header's seventh byte.
const DONT_FRAGMENT: u8 = 0x40;

/// Hops that an answer may take, as Linux has it by default.
const TTL: u8 = 64;

/// Turn `packet` into a RST to its sender, with sequence numbers that the sender accepts.
#[inline(always)]
pub fn reset<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    service: u32,
    reason: Reason,
    tables: &T,
) -> Verdict {
    match build(frame, packet, tables) {
        Some(()) => Verdict::Answer(service, reason),
        None => Verdict::Drop(service, Reason::RewriteFailed),
    }
}

#[inline(always)]
fn build<F: Frame, T: Tables>(frame: &mut F, packet: &Packet, tables: &T) -> Option<()> {
    let segment = size_of::<TcpWords>() as u16;
    let pseudo = pseudo_header(packet.destination(), packet.source(), segment);
    let mut tcp = header(packet);
    let trust = tables.config().checksums;
    let sent = pseudo_header(packet.source(), packet.destination(), packet.segment() as u16);
    // A packet that stays an skb with a partial checksum is completed on its way out, whatever stands in the field.
    let stays_partial = trust == checksums::KEEP_PARTIAL && fold(sent) == packet.tcp_checksum().wire();
    tcp[8] = if stays_partial { fold(pseudo) } else { !fold(sum(&tcp) + pseudo) };

    let length = Be16::from_host(IPV4 as u16 + segment).wire().to_ne_bytes();
    let mut ip: Ipv4Words = [
        u32::from_ne_bytes([0x45, 0, length[0], length[1]]),
        u32::from_ne_bytes([0, 0, DONT_FRAGMENT, 0]),
        u32::from_ne_bytes([TTL, TCP, 0, 0]),
        packet.ip[4],
        packet.ip[3],
    ];
    let check = (!ip_sum(&ip)).to_ne_bytes();
    ip[2] = u32::from_ne_bytes([TTL, TCP, check[0], check[1]]);
    frame.store(0, [packet.source_mac(), packet.destination_mac()])?;
    frame.store(ETHERNET, ip)?;
    frame.store(ETHERNET + IPV4, tcp)?;
    frame.truncate(LENGTH)
}

/// A RST as RFC 9293 words it: on an ACK it takes that number as its own; otherwise it acknowledges all that came.
#[inline(always)]
fn header(packet: &Packet) -> TcpWords {
    let flags = packet.flags();
    let (sequence, acknowledgement, flags) = if flags & flag::ACK != 0 {
        (packet.acknowledgement(), 0, flag::RST)
    } else {
        let syn_and_fin = u32::from(flags & flag::SYN != 0) + u32::from(flags & flag::FIN != 0);
        let end = packet.sequence().wrapping_add(packet.data() as u32).wrapping_add(syn_and_fin);
        (0, end, flag::RST | flag::ACK)
    };
    [
        packet.tcp[1],
        packet.tcp[0],
        Be16::from_host((sequence >> 16) as u16).wire(),
        Be16::from_host(sequence as u16).wire(),
        Be16::from_host((acknowledgement >> 16) as u16).wire(),
        Be16::from_host(acknowledgement as u16).wire(),
        u16::from_ne_bytes([0x50, flags]),
        0,
        0,
        0,
    ]
}

#[inline(always)]
fn sum(tcp: &TcpWords) -> u32 {
    let mut sum = 0;
    let mut index = 0;
    while index < tcp.len() {
        sum += u32::from(tcp[index]);
        index += 1;
    }
    sum
}

#[inline(always)]
fn ip_sum(ip: &Ipv4Words) -> u16 {
    let mut sum = 0;
    let mut index = 0;
    while index < ip.len() {
        sum += (ip[index] & 0xffff) + (ip[index] >> 16);
        index += 1;
    }
    fold(sum)
}
