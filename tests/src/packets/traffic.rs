//! Generated traffic: packets of a few clients and servers in any order, some of them damaged. The same seed gives the
//! same packets, so two worlds can be compared packet by packet.

use std::net::SocketAddrV4;

use super::{
    scene::{A, A2, ADMIN, B, CLIENT, OTHER, SOURCE, THIRD, WEB},
    segment::{ACK, FIN, PSH, RST, SERVER_ISN, SYN, Segment, Sum, client, server},
};

/// A source of numbers: `splitmix64` (S. Vigna), small and the same everywhere.
pub struct Chance(u64);

impl Chance {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True once in `times`.
    pub const fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }
}

/// The next packet; never shorter than an Ethernet header, for the kernel's test-run takes none that is.
pub fn packet(chance: &mut Chance) -> Vec<u8> {
    let flags = chance.of(&[SYN, SYN, SYN | ACK, ACK, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, 0, 0xff]);
    let mut segment = if chance.once_in(3) { from_server(chance, flags) } else { from_client(chance, flags) };
    segment = segment.data(chance.of(&[0, 0, 0, 1, 2, 7, 8, 9, 31, 33, 100, 700, 1400]));
    segment = segment.sum(chance.of(&[Sum::Whole, Sum::Whole, Sum::Partial, Sum::Raw(0), Sum::Raw(0xffff)]));
    if chance.once_in(8) {
        segment = segment.ip_options(&[1; 40][..4 * chance.below(11) as usize]);
    }
    if chance.once_in(4) {
        segment = segment.tcp_options(&[1; 40][..4 * chance.below(11) as usize]);
    }
    if chance.once_in(8) {
        segment = segment.padding(chance.below(20) as usize);
    }
    if chance.once_in(16) {
        segment = segment.ttl(chance.below(4) as u8);
    }
    let mut frame = segment.frame();
    damage(&mut frame, chance);
    frame
}

fn from_client(chance: &mut Chance, flags: u8) -> Segment {
    let sender = chance.of(&[CLIENT, CLIENT, OTHER, THIRD]);
    let ack = SERVER_ISN.wrapping_add(chance.of(&[1, 1, 1, 0, 2]));
    client(flags).of(sender).to(chance.of(&[WEB, WEB, WEB, ADMIN])).ack(ack)
}

fn from_server(chance: &mut Chance, flags: u8) -> Segment {
    let port = chance.of(&[2000, 2001, 2002, 61_000, 1999, 2003]);
    server(chance.of(&[A, A, B, A2]), flags).to(SocketAddrV4::new(SOURCE, port))
}

/// Four of ten packets are cut, or have bytes changed: mostly in the headers, where it matters.
fn damage(frame: &mut Vec<u8>, chance: &mut Chance) {
    match chance.below(10) {
        0 => {
            let length = 14 + chance.below(frame.len() as u64 - 13) as usize;
            frame.truncate(length);
        }
        1 => {
            let at = 12 + chance.below(frame.len().min(80) as u64 - 12) as usize;
            frame[at] = chance.next() as u8;
        }
        2 => {
            let at = chance.below(frame.len() as u64) as usize;
            frame[at] ^= 1 << chance.below(8);
        }
        3 => {
            let field = chance.of(&[12, 14, 16, 17, 20, 22, 23, 36, 46, 47]);
            let values = [0, 1, 0x45, 0x4f, 0x50, 0x60, 0x80, 0xff];
            if let Some(byte) = frame.get_mut(field) {
                *byte = chance.of(&values);
            }
        }
        _ => {}
    }
}
