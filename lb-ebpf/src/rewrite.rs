//! Stage 5: new addresses, ports and MACs, with both checksums kept true.

use lb_common::{
    Be16, Be32, Reason,
    abi::{Hop, checksums},
};

use crate::{
    Frame, Tables, Verdict,
    checksum::{Change, fold, pseudo_header},
    parse::{ETHERNET, Packet},
    verdict::Way,
};

/// Where the word of TTL, protocol and checksum stands in an IPv4 header; the addresses follow.
const IP_TTL: usize = 8;

/// Where the checksum stands in a TCP header.
const TCP_CHECKSUM: usize = 16;

/// Where a packet goes, and what it is changed to.
#[derive(Clone, Copy)]
pub struct Route {
    /// The service's id.
    pub service: u32,
    /// The (service, backend) pair.
    pub backend: u32,
    /// Which way.
    pub way: Way,
    /// Source address.
    pub source: Be32,
    /// Source port.
    pub source_port: Be16,
    /// Destination address.
    pub destination: Be32,
    /// Destination port.
    pub destination_port: Be16,
    /// Next hop.
    pub hop: Hop,
}

/// What is to be done with a packet of ours.
pub enum Step {
    /// It goes on.
    Onward(Route),
    /// Its sender gets a RST (service, reason).
    Reset(u32, Reason),
    /// It is dropped (service, reason).
    Drop(u32, Reason),
}

/// Rewrite a packet in place for its route.
#[inline(always)]
pub fn rewrite<F: Frame, T: Tables>(frame: &mut F, packet: &Packet, to: &Route, tables: &T) -> Verdict {
    match apply(frame, packet, to, tables) {
        Ok(()) => Verdict::Forward {
            backend: to.backend,
            interface: to.hop.interface,
            bytes: packet.ip_length(),
            way: to.way,
        },
        Err(reason) => Verdict::Drop(to.service, reason),
    }
}

#[inline(always)]
fn apply<F: Frame, T: Tables>(frame: &mut F, packet: &Packet, to: &Route, tables: &T) -> Result<(), Reason> {
    if packet.ttl() <= 1 {
        return Err(Reason::TtlExceeded);
    }
    let Some(leaving) = tables.interface(to.hop.interface).filter(|_| to.hop.is_resolved()) else {
        return Err(Reason::NextHopUnresolved);
    };
    let addresses = Change::NONE.long(packet.source(), to.source).long(packet.destination(), to.destination);
    let ports = addresses
        .word(packet.source_port(), to.source_port)
        .word(packet.destination_port(), to.destination_port);

    let segment = packet.segment() as u16;
    let field = packet.tcp_checksum();
    let trust = tables.config().checksums;
    let partial = trust != checksums::COMPLETE
        && fold(pseudo_header(packet.source(), packet.destination(), segment)) == field.wire();
    let tcp_checksum = if partial && trust == checksums::KEEP_PARTIAL {
        addresses.partial(field)
    } else if partial {
        Be16::from_wire(0)
    } else {
        ports.complete(field)
    };

    let failed = Reason::RewriteFailed;
    frame.store(0, [to.hop.mac, leaving.mac]).ok_or(failed)?;
    frame.store(ETHERNET + IP_TTL, ip_words(packet, to, addresses)).ok_or(failed)?;
    frame.store(packet.tcp_offset, [to.source_port, to.destination_port]).ok_or(failed)?;
    frame.store(packet.tcp_offset + TCP_CHECKSUM, tcp_checksum).ok_or(failed)?;
    if partial && trust == checksums::MAKE_WHOLE {
        let sum = frame.sum(packet.tcp_offset, segment as usize).ok_or(failed)?;
        let whole = !fold(fold(sum) as u32 + pseudo_header(to.source, to.destination, segment));
        frame.store(packet.tcp_offset + TCP_CHECKSUM, Be16::from_wire(whole)).ok_or(failed)?;
        tables.count(to.service, Reason::ChecksumCompleted);
    }
    Ok(())
}

/// The last three words of the IPv4 header: one hop less to live, the checksum that follows, the new addresses.
#[inline(always)]
fn ip_words(packet: &Packet, to: &Route, addresses: Change) -> [u32; 3] {
    let [ttl, protocol, high, low] = packet.ip[2].to_ne_bytes();
    let word = |ttl| Be16::from_wire(u16::from_ne_bytes([ttl, protocol]));
    let change = addresses.word(word(ttl), word(ttl - 1));
    let [high, low] = change.complete(Be16::from_wire(u16::from_ne_bytes([high, low]))).wire().to_ne_bytes();
    [u32::from_ne_bytes([ttl - 1, protocol, high, low]), to.source.wire(), to.destination.wire()]
}
