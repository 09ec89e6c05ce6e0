//! IPv6 (RFC 8200), with its extension headers.

use lb_common::{Address, Be128, abi::ICMPV6, program::Stage};

use super::{Family, Ip, Part, Position, Stages, TTL};
use crate::{Frame, checksum::Change};

/// Extension headers of IPv6 that are walked over.
const EXTENSIONS: usize = 6;

/// What [`walk`] answers where a header is cut off.
const CUT_OFF: u64 = u64::MAX;

/// Hop-by-hop options, routing, fragment, destination options (RFC 8200, 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// Walk over the extension headers of an IPv6 packet, the first of which, of kind `protocol`, begins at `offset`.
///
/// The protocol that follows them (8 bits), its offset (16 bits) and that of the fragment header (16 bits; 0: none), as
/// one number, for in the kernel this is a global function. The walk ends at a fragment header that is not the first
/// part's.
#[inline(always)]
pub fn walk<F: Frame>(frame: &F, offset: usize, protocol: u8) -> u64 {
    let (mut at, mut protocol, mut fragment) = (offset, protocol, 0);
    for _ in 0..EXTENSIONS {
        if !is_extension(protocol) {
            break;
        }
        let Some([next, length, high, low]) = frame.load::<[u8; 4]>(at) else { return CUT_OFF };
        if protocol == FRAGMENT {
            fragment = at;
            protocol = next;
            at += 8;
            if high != 0 || low & 0xf8 != 0 {
                break;
            }
        } else {
            protocol = next;
            at += (usize::from(length) + 1) * 8;
        }
    }
    (fragment as u64 & 0xffff) << 24 | (at as u64 & 0xffff) << 8 | u64::from(protocol)
}

impl Family for Be128 {
    type Words = [u32; 10];

    const ICMP: u8 = ICMPV6;
    const TUNNEL: u8 = 41;
    const ECHO: [u8; 2] = [128, 129];
    const COMPLAINTS: [[u8; 2]; 3] = [[3, 0], [1, 4], [2, 0]];
    const STAGES: Stages = Stages {
        hear: Stage::HearIpv6,
        turn: Stage::TurnIpv6,
        connect: Stage::ConnectIpv6,
        claim: Stage::ClaimIpv6,
        record: Stage::RecordIpv6,
        send: Stage::SendIpv6,
        back: Stage::ReturnIpv6,
        refuse: Stage::RefuseIpv6,
        icmp: Stage::IcmpIpv6,
        quote: Stage::QuoteIpv6,
        carry: Stage::CarryIpv6,
        tunnel: Stage::TunnelIpv6,
        fragment: Stage::FragmentIpv6,
        explain: Stage::ExplainIpv6,
    };

    #[inline(always)]
    fn read<F: Frame>(frame: &F, offset: usize) -> Option<Ip<Self>> {
        let words: Self::Words = frame.load(offset)?;
        let [version, _, _, _] = words[0].to_ne_bytes();
        if version >> 4 != 6 {
            return None;
        }
        let protocol = words[1].to_ne_bytes()[2];
        let payload = offset + Self::HEADER;
        let whole = Part { position: Position::Whole, protocol, id: 0 };
        if !is_extension(protocol) {
            return Some(Ip { words, protocol, payload, part: whole });
        }
        let end = frame.walk(payload, protocol);
        if end == CUT_OFF {
            return None;
        }
        let (protocol, payload, fragment) =
            (end as u8, (end >> 8) as u16 as usize, (end >> 24) as u16 as usize);
        if fragment == 0 {
            return Some(Ip { words, protocol, payload, part: Part { protocol, ..whole } });
        }
        let [head, id]: [u32; 2] = frame.load(fragment)?;
        let [next, _, high, low] = head.to_ne_bytes();
        // Thirteen bits of offset, two reserved, one "more" (RFC 8200, 4.5).
        let position = if high != 0 || low & 0xf8 != 0 {
            Position::Later
        } else if low & 1 != 0 {
            Position::First
        } else {
            Position::Whole
        };
        Some(Ip { words, protocol, payload, part: Part { position, protocol: next, id } })
    }

    #[inline(always)]
    fn source(words: &Self::Words) -> Self {
        Self::from_wire([words[2], words[3], words[4], words[5]])
    }

    #[inline(always)]
    fn destination(words: &Self::Words) -> Self {
        Self::from_wire([words[6], words[7], words[8], words[9]])
    }

    #[inline(always)]
    fn ttl(words: &Self::Words) -> u8 {
        words[1].to_ne_bytes()[3]
    }

    #[inline(always)]
    fn is_whole(_: &Self::Words) -> bool {
        true
    }

    #[inline(always)]
    fn length(words: &Self::Words) -> u32 {
        let [high, low, _, _] = words[1].to_ne_bytes();
        u32::from(u16::from_be_bytes([high, low])) + Self::HEADER as u32
    }

    #[inline(always)]
    fn write<F: Frame>(
        frame: &mut F,
        offset: usize,
        words: &Self::Words,
        (source, destination): (Self, Self),
        _: Change,
        routed: bool,
    ) -> Option<()> {
        let [high, low, next, limit] = words[1].to_ne_bytes();
        let left = if routed { limit.wrapping_sub(1) } else { limit };
        frame.store(offset + 4, [u32::from_ne_bytes([high, low, next, left])])?;
        frame.store(offset + 8, [source, destination])
    }

    #[inline(always)]
    fn renewed(words: &Self::Words) -> (Self::Words, Change) {
        let [high, low, next, _] = words[1].to_ne_bytes();
        let mut renewed = *words;
        renewed[1] = u32::from_ne_bytes([high, low, next, TTL]);
        (renewed, Change::NONE)
    }

    #[inline(always)]
    fn header(like: &Self::Words, protocol: u8, payload: u16, from: Self, to: Self) -> Self::Words {
        let [high, low] = payload.to_be_bytes();
        let ([a, b, c, d], [e, f, g, h]) = (from.wire(), to.wire());
        [like[0], u32::from_ne_bytes([high, low, protocol, TTL]), a, b, c, d, e, f, g, h]
    }

    #[inline(always)]
    fn requote(
        words: &Self::Words,
        (source, destination): (Self, Self),
        addresses: Change,
    ) -> (Self::Words, Change) {
        let ([a, b, c, d], [e, f, g, h]) = (source.wire(), destination.wire());
        ([words[0], words[1], a, b, c, d, e, f, g, h], addresses)
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn is_too_big(kind: u8, _: u8) -> bool {
        kind == 2
    }
}
