//! A RST in answer to a packet that nobody will serve (RFC 9293, 3.10.7.1).

use lb_common::{
    Be16, Reason,
    abi::{TCP, checksums},
};

use crate::{
    Frame, Tables, Verdict,
    checksum::{fold, pseudo_header},
    family::Family,
    parse::{Packet, TransportWords, destination_mac, flag, source_mac},
    rewrite::is_partial,
};

/// Turn `packet` into a RST to its sender, with sequence numbers that the sender accepts.
#[inline(always)]
pub fn reset<A: Family, F: Frame, T: Tables<A>>(
    frame: &mut F,
    packet: &Packet<A>,
    service: u16,
    reason: Reason,
    tables: &T,
) -> Verdict {
    match build(frame, packet, tables) {
        Some(()) => Verdict::answer(service, reason),
        None => Verdict::drop(service, Reason::RewriteFailed),
    }
}

#[inline(always)]
fn build<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, packet: &Packet<A>, tables: &T) -> Option<()> {
    let segment = size_of::<TransportWords>();
    let (from, to) = (packet.destination(), packet.source());
    let pseudo = pseudo_header(from, to, TCP, segment as u16);
    let mut tcp = header(packet);
    // A packet that stays an skb with a partial checksum is completed on its way out, whatever stands in the field.
    let stays_partial = tables.config().checksums == checksums::KEEP_PARTIAL && is_partial(packet, tables);
    tcp[8] = if stays_partial { fold(pseudo) } else { !fold(sum(&tcp) + pseudo) };
    let ip = A::header(&packet.ip, TCP, segment as u16, from, to);
    frame.store(0, [source_mac(&packet.macs), destination_mac(&packet.macs)])?;
    // Its bounds once more, where the verifier needs them.
    let offset = tables.vague(packet.header);
    frame.store(offset, ip)?;
    frame.store(offset + A::HEADER, tcp)?;
    frame.truncate(offset + A::HEADER + segment)
}

/// A RST as RFC 9293 words it: on an ACK it takes that number as its own; otherwise it acknowledges all that came.
#[inline(always)]
fn header<A: Family>(packet: &Packet<A>) -> TransportWords {
    let flags = packet.flags();
    let (sequence, acknowledgement, flags) = if flags & flag::ACK != 0 {
        (packet.acknowledgement(), 0, flag::RST)
    } else {
        let syn_and_fin = u32::from(flags & flag::SYN != 0) + u32::from(flags & flag::FIN != 0);
        let end = packet.sequence().wrapping_add(packet.data() as u32).wrapping_add(syn_and_fin);
        (0, end, flag::RST | flag::ACK)
    };
    [
        packet.words[1],
        packet.words[0],
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
fn sum(tcp: &TransportWords) -> u32 {
    let mut sum = 0;
    let mut index = 0;
    while index < tcp.len() {
        sum += u32::from(tcp[index]);
        index += 1;
    }
    sum
}
