//! The outer part of every rewrite: MAC addresses, and the tunnel's header.

use lb_common::{
    Address,
    abi::{Hop, Interface, ProgramConfig, exit, mode},
};

use crate::{
    Frame, Tables,
    checksum::Change,
    family::{ETHERNET, Family},
};

/// Bytes that a mode adds to a packet.
#[inline(always)]
pub const fn overhead<A: Address>(by: u8) -> u32 {
    if by == mode::IPIP { A::HEADER as u32 } else { 0 }
}

/// The interface that a packet leaves by, if its next hop is known.
#[inline(always)]
pub fn leaving<A: Address, T: Tables<A>>(hop: Hop, tables: &T) -> Option<Interface> {
    if !hop.is_resolved() {
        return None;
    }
    tables.interface(hop.interface)
}

/// The largest IP packet that fits both on an interface and on the way beyond, where either is known; 0: neither.
#[inline(always)]
pub const fn fits(interface: u16, way: u16) -> u32 {
    if way == 0 || interface != 0 && interface < way { interface as u32 } else { way as u32 }
}

/// Whether a packet leaves as an skb, by the kernel's stack (`way_out`: one of [`exit`]). Where it is one already a redirect
/// is taken by everybody, and the classifier would not find the note: the kernel may have copied the skb for generic XDP,
/// and its copy does not know how long its link header is (net/core/skbuff.c, `skb_pp_cow_data`).
#[inline(always)]
pub const fn by_stack(way_out: u8, id: u16, config: &ProgramConfig) -> bool {
    let frame = config.joined == 0;
    match way_out {
        exit::STACK => frame,
        exit::TX_OR_STACK => frame && id != config.interface,
        _ => false,
    }
}

/// Whether a packet is too long to leave by an interface that has this room; 0: not known. What was joined before it
/// came here is cut again where it leaves, but the kernel redirects nothing that is longer than the MTU to any interface
/// but the one that it came in by (`xdp_ok_fwd_dev`, include/linux/filter.h).
#[inline(always)]
pub fn is_too_long<A: Address, T: Tables<A>>(length: u32, room: u32, interface: u16, tables: &T) -> bool {
    let config = tables.config();
    room != 0 && length > room && (config.joined == 0 || interface != config.interface)
}

/// Write the MAC addresses.
#[inline(always)]
pub fn address<F: Frame>(frame: &mut F, hop: Hop, leaving: &Interface) -> Option<()> {
    frame.store(0, [hop.mac, leaving.mac])
}

/// Put a packet into a tunnel (RFC 2003; RFC 2473): one hop less inside, a header of ours outside, tags kept.
#[inline(always)]
pub fn encapsulate<A: Family, F: Frame>(
    frame: &mut F,
    header: usize,
    ip: &A::Words,
    (source, destination): (A, A),
) -> Option<()> {
    let inner = (A::source(ip), A::destination(ip));
    A::write(frame, header, ip, inner, Change::NONE, true)?;
    let outer = A::header(ip, A::TUNNEL, A::length(ip) as u16, source, destination);
    let (inner_tag, outer_tag) = (header > ETHERNET + 4, header > ETHERNET);
    let first = frame.load::<u16>(12)?;
    let second = if outer_tag { frame.load::<[u16; 2]>(14)? } else { [0; 2] };
    let third = if inner_tag { frame.load::<[u16; 2]>(18)? } else { [0; 2] };
    frame.prepend(A::HEADER)?;
    frame.store(12, first)?;
    if outer_tag {
        frame.store(14, second)?;
    }
    if inner_tag {
        frame.store(18, third)?;
    }
    frame.store(header, outer)
}
