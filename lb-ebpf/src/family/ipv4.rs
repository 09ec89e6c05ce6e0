//! IPv4 (RFC 791).

use lb_common::{Address, Be16, Be32, abi::ICMP, program::Stage};

use super::{Family, Ip, Part, Position, Stages, TTL};
use crate::{Frame, checksum::Change};

/// The "don't fragment" bit of an IPv4 header's seventh byte.
const DONT_FRAGMENT: u8 = 0x40;

impl Family for Be32 {
    type Words = [u32; 5];

    const ICMP: u8 = ICMP;
    const TUNNEL: u8 = 4;
    const ECHO: [u8; 2] = [8, 0];
    const COMPLAINTS: [[u8; 2]; 3] = [[11, 0], [3, 3], [3, 4]];
    const STAGES: Stages = Stages {
        hear: Stage::Hear,
        turn: Stage::Turn,
        connect: Stage::Connect,
        claim: Stage::Claim,
        record: Stage::Record,
        send: Stage::Send,
        back: Stage::Return,
        refuse: Stage::Refuse,
        icmp: Stage::Icmp,
        quote: Stage::Quote,
        carry: Stage::Carry,
        tunnel: Stage::Tunnel,
        fragment: Stage::Fragment,
        explain: Stage::Explain,
    };

    #[inline(always)]
    fn read<F: Frame>(frame: &F, offset: usize) -> Option<Ip<Self>> {
        let words: Self::Words = frame.load(offset)?;
        let [version, _, _, _] = words[0].to_ne_bytes();
        let header = usize::from(version & 0x0f) * 4;
        if version >> 4 != 4 || header < Self::HEADER {
            return None;
        }
        let [id_high, id_low, high, low] = words[1].to_ne_bytes();
        let protocol = words[2].to_ne_bytes()[1];
        let id = u32::from(u16::from_ne_bytes([id_high, id_low]));
        // Bit 14 is "don't fragment", bit 15 is reserved (RFC 791) and may be anything.
        let position = if high & 0x1f != 0 || low != 0 {
            Position::Later
        } else if high & 0x20 != 0 {
            Position::First
        } else {
            Position::Whole
        };
        Some(Ip { words, protocol, payload: offset + header, part: Part { position, protocol, id } })
    }

    #[inline(always)]
    fn source(words: &Self::Words) -> Self {
        Self::from_wire(words[3])
    }

    #[inline(always)]
    fn destination(words: &Self::Words) -> Self {
        Self::from_wire(words[4])
    }

    #[inline(always)]
    fn ttl(words: &Self::Words) -> u8 {
        words[2].to_ne_bytes()[0]
    }

    #[inline(always)]
    fn is_whole(words: &Self::Words) -> bool {
        words[1].to_ne_bytes()[2] & DONT_FRAGMENT != 0
    }

    #[inline(always)]
    fn length(words: &Self::Words) -> u32 {
        let [_, _, high, low] = words[0].to_ne_bytes();
        u32::from(u16::from_be_bytes([high, low]))
    }

    #[inline(always)]
    fn write<F: Frame>(
        frame: &mut F,
        offset: usize,
        words: &Self::Words,
        (source, destination): (Self, Self),
        addresses: Change,
        routed: bool,
    ) -> Option<()> {
        let [ttl, protocol, high, low] = words[2].to_ne_bytes();
        let word = |ttl| Be16::from_wire(u16::from_ne_bytes([ttl, protocol]));
        let left = if routed { ttl.wrapping_sub(1) } else { ttl };
        let change = addresses.word(word(ttl), word(left));
        let field = Be16::from_wire(u16::from_ne_bytes([high, low]));
        let [high, low] = change.complete(field).wire().to_ne_bytes();
        let life = u32::from_ne_bytes([left, protocol, high, low]);
        frame.store(offset + 8, [life, source.wire(), destination.wire()])
    }

    #[inline(always)]
    fn renewed(words: &Self::Words) -> (Self::Words, Change) {
        let [ttl, protocol, high, low] = words[2].to_ne_bytes();
        let word = |ttl| Be16::from_wire(u16::from_ne_bytes([ttl, protocol]));
        let life = u32::from_ne_bytes([TTL, protocol, high, low]);
        ([words[0], words[1], life, words[3], words[4]], Change::NONE.word(word(ttl), word(TTL)))
    }

    #[inline(always)]
    fn header(like: &Self::Words, protocol: u8, payload: u16, from: Self, to: Self) -> Self::Words {
        let [_, service, _, _] = like[0].to_ne_bytes();
        let [high, low] = payload.wrapping_add(Self::HEADER as u16).to_be_bytes();
        let mut words = [
            u32::from_ne_bytes([0x45, service, high, low]),
            u32::from_ne_bytes([0, 0, DONT_FRAGMENT, 0]),
            u32::from_ne_bytes([TTL, protocol, 0, 0]),
            from.wire(),
            to.wire(),
        ];
        let mut sum = 0;
        let mut index = 0;
        while index < words.len() {
            sum += (words[index] & 0xffff) + (words[index] >> 16);
            index += 1;
        }
        let [high, low] = (!crate::checksum::fold(sum)).to_ne_bytes();
        words[2] = u32::from_ne_bytes([TTL, protocol, high, low]);
        words
    }

    #[inline(always)]
    fn requote(
        words: &Self::Words,
        (source, destination): (Self, Self),
        addresses: Change,
    ) -> (Self::Words, Change) {
        let [ttl, protocol, high, low] = words[2].to_ne_bytes();
        let before = Be16::from_wire(u16::from_ne_bytes([high, low]));
        let after = addresses.complete(before);
        let [high, low] = after.wire().to_ne_bytes();
        let life = u32::from_ne_bytes([ttl, protocol, high, low]);
        ([words[0], words[1], life, source.wire(), destination.wire()], addresses.word(before, after))
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn is_too_big(kind: u8, code: u8) -> bool {
        kind == 3 && code == 4
    }
}
