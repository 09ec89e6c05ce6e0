//! ICMP errors of our own: time exceeded, port unreachable, packet too big (RFC 792, RFC 4443).
//!
//! The packet at hand becomes the quote: it is cut to what is quoted of it, and headers go before it.

use lb_common::{
    Be16, Reason,
    abi::{TCP, UDP, checksums},
};

use crate::{
    Frame, Parcel, Tables, Verdict,
    checksum::{fold, pseudo_header},
    family::{ETHERNET, Family, Ip, Link, Position, link},
    parse::{Macs, checksum_offset, destination_mac, source_mac},
};

/// Bytes of IP that are quoted: options or extensions, the transport header and then some. RFC 792 asks for 8 bytes
/// beyond the header, RFC 1812 for up to 548.
const QUOTE: usize = 128;

/// Length of an ICMP error's header.
const HEADER: usize = 8;

/// Turn a packet into the error that the stage before has handed over.
#[inline(always)]
pub fn explain<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let Some(Link::Ipv4 { header, .. } | Link::Ipv6 { header, .. }) = link(frame) else {
        return Verdict::PASS;
    };
    let header = tables.vague(header);
    let Parcel { service, reason, complaint, .. } = tables.handed_over();
    if !tables.spend_error(complaint.trouble) {
        tables.count(service, reason);
        return Verdict::drop(service, Reason::ErrorHeldBack);
    }
    let Some(ip) = A::read(frame, header) else { return Verdict::drop(service, Reason::RewriteFailed) };
    let error = Error {
        kind: A::COMPLAINTS[complaint.trouble as usize],
        mtu: complaint.mtu,
        from: A::destination(&ip.words),
        to: A::source(&ip.words),
        quoted: A::length(&ip.words) as usize,
        unfinished: unfinished(frame, header, &ip, tables),
    };
    match send::<A, F>(frame, header, &ip.words, &error) {
        Some(()) => Verdict::answer(service, reason),
        None => Verdict::drop(service, Reason::RewriteFailed),
    }
}

/// An ICMP error.
pub struct Error<A> {
    /// Type and code.
    pub kind: [u8; 2],
    /// The MTU that it tells of; 0: none.
    pub mtu: u16,
    /// Who sends it.
    pub from: A,
    /// Who gets it.
    pub to: A,
    /// Bytes of IP in the frame that may be quoted.
    pub quoted: usize,
    /// Of what is quoted, the part whose checksum the kernel will complete.
    pub unfinished: Unfinished,
}

/// A transport checksum that its sender has left to hardware, in a packet that stays an skb which knows.
///
/// On the packet's way out the kernel, or the card, puts the complement of the sum from the transport header to the end
/// of the packet into the field, quote or not (`skb_checksum_help`, net/core/dev.c). Whatever the field holds then,
/// together with all that it covers it adds up to the complement of what it held before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unfinished {
    /// Where the transport header begins in the IP packet; 0: there is no such checksum.
    pub from: usize,
    /// The field.
    pub field: u16,
}

/// Whether a packet's checksum was left to hardware, as far as can be seen, and will be completed.
#[inline(always)]
fn unfinished<A: Family, F: Frame, T: Tables<A>>(
    frame: &F,
    header: usize,
    ip: &Ip<A>,
    tables: &T,
) -> Unfinished {
    let none = Unfinished::default();
    let has_one = matches!(ip.protocol, TCP | UDP) && ip.part.position == Position::Whole;
    if tables.config().checksums != checksums::KEEP_PARTIAL || !has_one {
        return none;
    }
    let from = ip.payload - header;
    let at = checksum_offset(ip.protocol);
    let Some(field) = frame.load::<u16>(ip.payload + at) else { return none };
    let segment = (A::length(&ip.words) as usize).saturating_sub(from) as u16;
    let pseudo = pseudo_header(A::source(&ip.words), A::destination(&ip.words), ip.protocol, segment);
    if fold(pseudo) != field || from + at + 2 > QUOTE { none } else { Unfinished { from, field } }
}

/// Make the IP packet at `header` the quote of an error, which goes back by the MAC that it came from.
#[inline(always)]
pub fn send<A: Family, F: Frame>(
    frame: &mut F,
    header: usize,
    like: &A::Words,
    error: &Error<A>,
) -> Option<()> {
    let quote = if error.quoted > QUOTE { QUOTE } else { error.quoted };
    let macs: Macs = frame.load(0)?;
    let tags: [u32; 2] = if header > ETHERNET { frame.load(12)? } else { [0; 2] };
    let last: u16 = frame.load(header - 2)?;
    frame.truncate(header + quote)?;
    frame.prepend(A::HEADER + HEADER)?;
    frame.store(0, [source_mac(&macs), destination_mac(&macs)])?;
    if header > ETHERNET {
        frame.store(12, tags)?;
    }
    frame.store(header - 2, last)?;
    let payload = (HEADER + quote) as u16;
    let ip = A::header(like, A::ICMP, payload, error.from, error.to);
    frame.store(header, ip)?;
    let icmp = header + A::HEADER;
    let [kind, code] = error.kind;
    // IPv4 has the MTU in the second half of the second word (RFC 1191), IPv6 in the whole of it: the same bytes.
    let [high, low] = error.mtu.to_be_bytes();
    let words = [u32::from_ne_bytes([kind, code, 0, 0]), u32::from_ne_bytes([0, 0, high, low])];
    frame.store(icmp, words)?;
    let pseudo = if A::VERSION == 6 { pseudo_header(error.from, error.to, A::ICMP, payload) } else { 0 };
    let Unfinished { from, field } = error.unfinished;
    let (summed, rest) = if from == 0 { (quote, 0) } else { (from, u32::from(!field)) };
    let sum = u32::from(fold(frame.sum(icmp, HEADER + summed)?)) + rest + pseudo;
    frame.store(icmp + 2, Be16::from_wire(!fold(sum)))
}
