//! Stage 5: new addresses, ports and MACs, with both checksums kept true.

use lb_common::{
    Be16, Be32, Reason,
    abi::{Hop, checksums},
};
use network_types::{eth::EthHdr, ip::Ipv4Hdr};

use crate::{
    Frame, Tables, Verdict,
    checksum::{Change, fold, pseudo_header},
    parse::{ETHERNET, Packet},
    verdict::Way,
};

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
    if packet.ip.ttl <= 1 {
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

    let ethernet =
        EthHdr { dst_addr: to.hop.mac, src_addr: leaving.mac, ether_type: packet.ethernet.ether_type };
    let failed = Reason::RewriteFailed;
    frame.store(0, ethernet).ok_or(failed)?;
    frame.store(ETHERNET, ip_header(&packet.ip, to, addresses)).ok_or(failed)?;
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

/// The IPv4 header with new addresses and one hop less to live.
#[inline(always)]
fn ip_header(before: &Ipv4Hdr, to: &Route, addresses: Change) -> Ipv4Hdr {
    let ttl = before.ttl - 1;
    let change = addresses.word(
        Be16::from_wire(u16::from_ne_bytes([before.ttl, before.proto])),
        Be16::from_wire(u16::from_ne_bytes([ttl, before.proto])),
    );
    let check = change.complete(Be16::from_wire(u16::from_ne_bytes(before.check)));
    Ipv4Hdr {
        ttl,
        check: check.wire().to_ne_bytes(),
        src_addr: to.source.bytes(),
        dst_addr: to.destination.bytes(),
        ..*before
    }
}
