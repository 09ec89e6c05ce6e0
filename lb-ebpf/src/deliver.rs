//! The outer part of every rewrite: MAC addresses, and the tunnel's header.

use lb_common::{
    Address,
    abi::{Hop, Interface, ProgramConfig, TCP, exit, mode},
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

/// Whether a packet leaves as an skb, by the kernel's stack (`way_out`: one of [`exit`]). So does what is an skb
/// anyway and leaves by another interface, for it may be longer than the MTU, and the kernel redirects nothing of that
/// length (`xdp_ok_fwd_dev`, include/linux/filter.h).
#[inline(always)]
pub const fn by_stack(way_out: u8, id: u16, config: &ProgramConfig) -> bool {
    match way_out {
        exit::STACK => true,
        exit::TX_OR_STACK => id != config.interface,
        _ => config.joined != 0 && id != config.interface,
    }
}

/// Whether a packet is too long to leave by an interface (the MTU of its link, its id) that has this room; 0: not known.
/// What was joined before it came here is cut again where it leaves. On the way to another interface that is TCP which
/// does not even fit the link: the ends have agreed on segments that do.
#[inline(always)]
pub fn is_too_long<A: Address, T: Tables<A>>(
    (length, protocol): (u32, u8),
    room: u32,
    (link, id): (u16, u16),
    tables: &T,
) -> bool {
    if room == 0 || length <= room {
        return false;
    }
    let config = tables.config();
    let joined = id == config.interface || protocol == TCP && length > u32::from(link);
    config.joined == 0 || !joined
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
