//! ICMP errors of our own: time exceeded, port unreachable, packet too big (RFC 792, RFC 4443).
//!
//! The packet at hand becomes the quote: it is cut to what is quoted of it, and headers go before it.

use lb_common::{Be16, Reason};

use crate::{
    Frame, Parcel, Tables, Verdict,
    checksum::{fold, pseudo_header},
    family::{ETHERNET, Family, Link, link},
    parse::{Macs, destination_mac, source_mac},
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
    let sum = u32::from(fold(frame.sum(icmp, HEADER + quote)?)) + pseudo;
    frame.store(icmp + 2, Be16::from_wire(!fold(sum)))
}
