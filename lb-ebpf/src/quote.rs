//! Packets that are quoted in ICMP errors: read, and rewritten with every checksum that covers them.
//!
//! What changes in the quote changes the ICMP checksum too. The quoted packet's own checksums, its IP header's and its
//! transport's, are kept true as far as they are quoted: receivers compare little of it, but middleboxes may (RFC 5508,
//! REQ-3).

use lb_common::{Be16, abi::UDP};

use crate::{
    Frame,
    checksum::Change,
    family::{Family, Ip, Position},
    lookup::Tuple,
    parse::checksum_offset,
    rewrite::never_zero,
};

/// A quoted packet.
#[derive(Clone, Copy)]
pub struct Quote<A: Family> {
    /// Offset of its IP header.
    pub header: usize,
    /// That header.
    pub ip: Ip<A>,
    /// Source and destination port; of no meaning in a tunnel's packet.
    pub ports: [u16; 2],
}

impl<A: Family> Quote<A> {
    /// Its ends.
    #[inline(always)]
    pub fn tuple(&self) -> Tuple<A> {
        Tuple {
            source: A::source(&self.ip.words),
            source_port: Be16::from_wire(self.ports[0]),
            destination: A::destination(&self.ip.words),
            destination_port: Be16::from_wire(self.ports[1]),
            protocol: self.ip.protocol,
        }
    }
}

/// Read the quote at `header`, if eight bytes of what follows its IP header are there, and the ports in them.
#[inline(always)]
pub fn read<A: Family, F: Frame>(frame: &F, header: usize) -> Option<Quote<A>> {
    let ip = A::read(frame, header)?;
    if ip.part.position == Position::Later {
        return None;
    }
    let [source, destination, _, _] = frame.load::<[u16; 4]>(ip.payload)?;
    Some(Quote { header, ip, ports: [source, destination] })
}

/// Rewrite an ICMP error: its own addresses become `ends`, its quote's `quoted`.
#[inline(always)]
pub fn translate<A: Family, F: Frame>(
    frame: &mut F,
    header: usize,
    ip: &Ip<A>,
    quote: &Quote<A>,
    quoted: &Tuple<A>,
    ends: (A, A),
) -> Option<()> {
    let seen = quote.tuple();
    let inner =
        Change::NONE.address(seen.source, quoted.source).address(seen.destination, quoted.destination);
    let (words, inside) = A::requote(&quote.ip.words, (quoted.source, quoted.destination), inner);
    frame.store(quote.header, words)?;

    let ports = [quoted.source_port, quoted.destination_port];
    let port = |change: Change| change.word(seen.source_port, ports[0]).word(seen.destination_port, ports[1]);
    frame.store(quote.ip.payload, ports)?;
    let mut change = port(inside);

    // Of a transport checksum that was quoted.
    let at = quote.ip.payload + checksum_offset(seen.protocol);
    if at + 2 <= header + A::length(&ip.words) as usize
        && let Some(field) = frame.load::<Be16>(at)
        && (seen.protocol != UDP || field.wire() != 0)
    {
        let after = never_zero(seen.protocol, port(inner).complete(field));
        frame.store(at, after)?;
        change = change.word(field, after);
    }

    let outer = Change::NONE.address(A::source(&ip.words), ends.0).address(A::destination(&ip.words), ends.1);
    if A::VERSION == 6 {
        // ICMPv6's checksum covers the addresses too (RFC 4443, 2.3).
        change = change.address(A::source(&ip.words), ends.0).address(A::destination(&ip.words), ends.1);
    }
    let field = frame.load::<Be16>(ip.payload + 2)?;
    frame.store(ip.payload + 2, change.complete(field))?;
    A::write(frame, header, &ip.words, ends, outer, true)
}
