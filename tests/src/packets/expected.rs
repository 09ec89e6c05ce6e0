//! What packets should look like afterwards: built from what came in, every checksum made from scratch.

use std::net::{IpAddr, SocketAddr};

use lb_common::abi::{
    TCP, UDP,
    checksums::{COMPLETE, KEEP_PARTIAL},
};

use super::{
    checksum, kind,
    layout::{Layout, half},
    message::{Trouble, fill_sum},
    segment::{ACK, RST},
};

/// New MAC addresses: receiver, sender.
pub type Macs = [[u8; 6]; 2];

/// Translated: new ends and MAC addresses, one hop less to live.
pub fn translated(packet: &[u8], macs: Macs, (from, to): (SocketAddr, SocketAddr), trust: u8) -> Vec<u8> {
    let before = Layout::of(packet);
    let mut out = packet.to_vec();
    out[0..12].copy_from_slice(&macs.concat());
    out[before.hops()] -= 1;
    if before.part.is_some_and(|(offset, _)| offset != 0) {
        before.set_addresses(&mut out, from.ip(), to.ip());
        checksum::fill_ip(&mut out, before.ip);
        return out;
    }
    before.set_ends(&mut out, from, to);
    checksum::fill_ip(&mut out, before.ip);
    let field = sum_after(packet, &out, trust);
    checksum::set(&mut out, field);
    out
}

/// What the transport's checksum should be in `out`, which was `packet`.
fn sum_after(packet: &[u8], out: &[u8], trust: u8) -> u16 {
    let layout = Layout::of(packet);
    let field = checksum::field(packet);
    if layout.protocol == UDP && layout.version == 4 && field == 0 {
        return 0;
    }
    let looks_partial = field == checksum::partial(packet) && layout.part.is_none();
    if looks_partial && trust == KEEP_PARTIAL {
        return checksum::partial(out);
    }
    if looks_partial && trust != COMPLETE {
        return checksum::whole(out);
    }
    let (before, after) = (checksum::whole(packet), checksum::whole(out));
    if field == before && layout.part.is_none() {
        return after;
    }
    // A wrong sum stays wrong by as much: damage on the wire must not be repaired here.
    let moved = checksum::moved(field, before, after);
    if layout.protocol == UDP && moved == 0 { 0xffff } else { moved }
}

/// With new MAC addresses; a partial checksum is made whole where nobody else will.
pub fn redirected(packet: &[u8], macs: Macs, trust: u8) -> Vec<u8> {
    let mut out = packet.to_vec();
    out[0..12].copy_from_slice(&macs.concat());
    let layout = Layout::of(packet);
    let has_sum = matches!(layout.protocol, TCP | UDP) && layout.part.is_none();
    if has_sum && trust == lb_common::abi::checksums::MAKE_WHOLE {
        let field = sum_after(packet, packet, trust);
        checksum::set(&mut out, field);
    }
    out
}

/// In a tunnel (RFC 2003, RFC 2473): the packet with one hop less, and a header in front that begins a life of its own.
pub fn tunnelled(packet: &[u8], macs: Macs, (from, to): (IpAddr, IpAddr), trust: u8) -> Vec<u8> {
    let mut inner = redirected(packet, macs, trust);
    let layout = Layout::of(packet);
    inner[layout.hops()] -= 1;
    checksum::fill_ip(&mut inner, layout.ip);
    let protocol = if layout.version == 4 { 4 } else { 41 };
    let outer = header(&packet[layout.ip..], protocol, layout.length(), from, to);
    inner.splice(layout.ip..layout.ip, outer);
    inner
}

/// A header of ours, its checksum made: with the class of service of a packet that it answers or carries.
fn header(like: &[u8], protocol: u8, body: usize, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut bytes = if from.is_ipv4() {
        let [high, low] = ((20 + body) as u16).to_be_bytes();
        // No identification: a datagram that is not to be fragmented needs none (RFC 6864).
        vec![0x45, like[1], high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0]
    } else {
        let [high, low] = (body as u16).to_be_bytes();
        vec![like[0], like[1], like[2], like[3], high, low, protocol, 64]
    };
    bytes.extend(kind::octets(from));
    bytes.extend(kind::octets(to));
    checksum::fill_ip(&mut bytes, 0);
    bytes
}

/// The RST that a packet's sender should get.
pub fn reset(packet: &[u8], seq: u32, ack: Option<u32>, trust: u8) -> Vec<u8> {
    let layout = Layout::of(packet);
    let (sender, receiver) = layout.ends(packet);
    let stays_partial = trust == KEEP_PARTIAL
        && layout.part.is_none()
        && checksum::field(packet) == checksum::partial(packet);
    let mut out = [&packet[6..12], &packet[0..6], &packet[12..layout.ip]].concat();
    out.extend(header(&packet[layout.ip..], TCP, 20, receiver.ip(), sender.ip()));
    out.extend(receiver.port().to_be_bytes());
    out.extend(sender.port().to_be_bytes());
    out.extend(seq.to_be_bytes());
    out.extend(ack.unwrap_or_default().to_be_bytes());
    out.extend([0x50, if ack.is_some() { RST | ACK } else { RST }, 0, 0, 0, 0, 0, 0]);
    let field = if stays_partial { checksum::partial(&out) } else { checksum::whole(&out) };
    checksum::set(&mut out, field);
    out
}

/// The answer to an echo request.
pub fn echoed(packet: &[u8]) -> Vec<u8> {
    let layout = Layout::of(packet);
    let mut out = packet.to_vec();
    out[0..12].copy_from_slice(&[&packet[6..12], &packet[0..6]].concat());
    let (from, to) = (layout.address(packet, layout.destination()), layout.address(packet, layout.source()));
    layout.set_addresses(&mut out, from, to);
    out[layout.hops()] = 64;
    checksum::fill_ip(&mut out, layout.ip);
    out[layout.transport] = if layout.version == 4 { 0 } else { 129 };
    fill_sum(&mut out[layout.transport..layout.end], from, to);
    let field = &mut out[layout.transport + 2..layout.transport + 4];
    if *field == [0, 0] {
        // Of the two forms of zero this one is right for nothing but zeros too.
        field.fill(0xff);
    }
    out
}

/// Bytes of IP that our errors quote.
const QUOTE: usize = 128;

/// The ICMP error that a packet's sender should get. What it quotes of a checksum that stays partial is completed on the
/// way out, from the quoted transport header to the end, and its own sum is right for that.
pub fn complained(packet: &[u8], trouble: Trouble, trust: u8) -> Vec<u8> {
    let layout = Layout::of(packet);
    let quote = &packet[layout.ip..layout.end.min(layout.ip + QUOTE)];
    let (from, to) = (layout.address(packet, layout.destination()), layout.address(packet, layout.source()));
    let link = [&packet[6..12], &packet[0..6], &packet[12..layout.ip]].concat();
    let stays_partial = trust == KEEP_PARTIAL
        && matches!(layout.protocol, TCP | UDP)
        && layout.part.is_none()
        && checksum::field(packet) == checksum::partial(packet);
    if !stays_partial {
        return error(&link, quote, trouble, from, to);
    }
    let (transport, sum) = (layout.transport - layout.ip, layout.sum() - layout.ip);
    let mut completed = quote.to_vec();
    let field = !checksum::sum(&completed[transport..]);
    completed[sum..sum + 2].copy_from_slice(&field.to_be_bytes());
    let mut out = error(&link, &completed, trouble, from, to);
    let quoted = out.len() - quote.len();
    out[quoted..].copy_from_slice(quote);
    out
}

fn error(link: &[u8], quote: &[u8], trouble: Trouble, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let version = if from.is_ipv4() { 4 } else { 6 };
    let mut body = [&trouble.header(version)[..], quote].concat();
    fill_sum(&mut body, from, to);
    let mut out = link.to_vec();
    out.extend(header(quote, if version == 4 { 1 } else { 58 }, body.len(), from, to));
    out.extend(body);
    out
}

/// An error on its way to whom it concerns: new addresses outside and new ends in the quote, all sums as they should be.
pub fn carried(
    packet: &[u8],
    macs: Macs,
    outer: (IpAddr, IpAddr),
    quoted: (SocketAddr, SocketAddr),
) -> Vec<u8> {
    let layout = Layout::of(packet);
    let before = (layout.address(packet, layout.source()), layout.address(packet, layout.destination()));
    let mut out = packet.to_vec();
    out[0..12].copy_from_slice(&macs.concat());
    out[layout.hops()] -= 1;
    layout.set_addresses(&mut out, outer.0, outer.1);
    checksum::fill_ip(&mut out, layout.ip);
    let inner = Layout::of_packet(packet, layout.transport + 8);
    inner.set_ends(&mut out, quoted.0, quoted.1);
    checksum::fill_ip(&mut out, inner.ip);
    if inner.sum() + 2 <= layout.end {
        // Of what is quoted; what is not has not changed.
        let field = half(packet, inner.sum());
        let seen = |bytes: &[u8]| {
            let cut = Layout { end: layout.end, ..inner };
            checksum::whole_at(bytes, cut)
        };
        let unset = inner.protocol == UDP && field == 0;
        let moved = if unset { 0 } else { checksum::moved(field, seen(packet), seen(&out)) };
        let moved = if inner.protocol == UDP && moved == 0 && !unset { 0xffff } else { moved };
        out[inner.sum()..][..2].copy_from_slice(&moved.to_be_bytes());
    }
    // Whether its own sum was right is the receiver's to judge.
    let right = |bytes: &[u8], ends: (IpAddr, IpAddr)| {
        let mut message = bytes[layout.transport..layout.end].to_vec();
        fill_sum(&mut message, ends.0, ends.1);
        half(&message, 2)
    };
    let (was, field) = (right(packet, before), half(packet, layout.transport + 2));
    let now = right(&out, outer);
    let after = if field == was { now } else { checksum::moved(field, was, now) };
    out[layout.transport + 2..][..2].copy_from_slice(&after.to_be_bytes());
    out
}

/// "Too big" about a tunnel of ours, told to the client whose packet was in it.
pub fn untunnelled(packet: &[u8], macs: Macs, mtu: u16) -> Vec<u8> {
    let layout = Layout::of(packet);
    let outer = Layout::of_packet(packet, layout.transport + 8);
    let inner = Layout::of_packet(packet, outer.transport);
    let quote = &packet[inner.ip..layout.end.min(inner.ip + QUOTE)];
    let (from, to) = (inner.address(packet, inner.destination()), inner.address(packet, inner.source()));
    let link = [&macs.concat(), &packet[12..layout.ip]].concat();
    error(&link, quote, Trouble::TooBig(mtu), from, to)
}
