//! Generated traffic: packets of a few clients, servers and routers in any order, some of them damaged. The same seed
//! gives the same packets, so two worlds can be compared packet by packet.

use std::net::SocketAddrV4;

use super::{
    message::{Complaint, Echo, Trouble, about_answer, about_forwarded, echo},
    scene::{A, A2, ADMIN, B, CLIENT, OTHER, SERVER_A, SOURCE, THIRD, WEB},
    segment::{ACK, FIN, PSH, RST, SERVER_ISN, SYN, Segment, Sum, answer, client, datagram, server},
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

    /// One of some values.
    pub fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }
}

/// The next packet of a family; never shorter than an Ethernet header, for the kernel's test-run takes none that is.
pub fn packet(chance: &mut Chance, version: u8) -> Vec<u8> {
    let mut frame = match chance.below(16) {
        0 => an_echo(chance).frame(version),
        1 | 2 => an_error(chance, version),
        _ => a_segment(chance).frame_of(version),
    };
    damage(&mut frame, chance);
    frame
}

fn a_segment(chance: &mut Chance) -> Segment {
    let flags = chance.of(&[SYN, SYN, SYN | ACK, ACK, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, 0, 0xff]);
    let length = chance.of(&[0, 0, 0, 1, 2, 7, 8, 9, 31, 33, 100, 700, 1_400]);
    let is_udp = chance.once_in(3);
    let back = chance.once_in(3);
    let plain = match (back, is_udp) {
        (false, false) => client(flags).data(length),
        (false, true) => datagram(length),
        (true, false) => server(chance.of(&[A, A, B, A2]), flags).data(length),
        (true, true) => answer(chance.of(&[A, A, B, A2]), length),
    };
    let segment = if back { towards_us(chance, plain) } else { from_client(chance, plain) };
    dressed(chance, segment)
}

fn from_client(chance: &mut Chance, segment: Segment) -> Segment {
    let sender = chance.of(&[CLIENT, CLIENT, OTHER, THIRD, SERVER_A]);
    let ack = SERVER_ISN.wrapping_add(chance.of(&[1, 1, 1, 0, 2]));
    segment.of(sender).to(chance.of(&[WEB, WEB, WEB, ADMIN])).ack(ack)
}

/// To a port of ours, as `snat` has it, or to a client, as `dnat` has it.
fn towards_us(chance: &mut Chance, segment: Segment) -> Segment {
    if chance.once_in(2) {
        return segment.to(chance.of(&[CLIENT, CLIENT, OTHER, THIRD]));
    }
    let port = chance.of(&[2000, 2001, 2002, 61_000, 1999, 2003]);
    segment.to(SocketAddrV4::new(SOURCE, port))
}

/// With all that may stand around a packet.
fn dressed(chance: &mut Chance, mut segment: Segment) -> Segment {
    segment = segment.sum(chance.of(&[Sum::Whole, Sum::Whole, Sum::Partial, Sum::Raw(0), Sum::Raw(0xffff)]));
    if chance.once_in(8) {
        segment = segment.ip_options(&[1; 40][..4 * chance.below(11) as usize]);
        let extensions = [(0, 0), (60, 1), (43, 0), (60, 0), (60, 0), (60, 0), (60, 0)];
        segment = segment.extensions(&extensions[..chance.below(8) as usize]);
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
    for _ in 0..chance.of(&[0, 0, 0, 0, 0, 0, 1, 2, 3]) {
        segment = segment.tag(chance.of(&[0x8100, 0x8100, 0x88a8]), chance.next() as u16);
    }
    if chance.once_in(8) {
        let offset = chance.of(&[0, 0, 8, 24, 64]).min(segment.data.len() / 8 * 8);
        segment = segment.part(offset, chance.of(&[8, 24, 64, 128]), chance.once_in(2));
        segment = segment.id(chance.of(&[1, 1, 2]));
    }
    segment
}

fn an_error(chance: &mut Chance, version: u8) -> Vec<u8> {
    let trouble = chance.of(&[
        Trouble::TooBig(1_200),
        Trouble::TooBig(20),
        Trouble::PortUnreachable,
        Trouble::HostUnreachable,
        Trouble::TimeExceeded,
        Trouble::Parameter,
    ]);
    let said = if chance.once_in(2) { client(ACK).data(90) } else { datagram(90) };
    let sender = chance.of(&[CLIENT, CLIENT, OTHER]);
    let port = SocketAddrV4::new(SOURCE, chance.of(&[2000, 2001, 2002, 61_000]));
    let ends = chance.of(&[(WEB, sender), (port, SERVER_A), (sender, SERVER_A), (sender, WEB)]);
    let about =
        if chance.once_in(2) { about_answer(trouble, said) } else { about_forwarded(trouble, A, said) };
    let mut about: Complaint = about.bytes(chance.of(&[7, 8, 9, 20, 98])).foreign(ends.0, ends.1);
    if chance.once_in(8) {
        about = about.tag(0x8100, 5);
    }
    if chance.once_in(16) {
        about = about.ttl(1);
    }
    let end = |of| super::ends::end_in(version, of);
    let tunnel = chance.once_in(4).then(|| (end(SocketAddrV4::new(SOURCE, 0)).ip(), end(SERVER_A).ip()));
    about.frame((end(ends.0), end(ends.1)), tunnel)
}

fn an_echo(chance: &mut Chance) -> Echo {
    let tags = if chance.once_in(4) { vec![[0x8100, 5]] } else { Vec::new() };
    let data = (0..chance.below(80)).map(|at| at as u8).collect();
    Echo { seq: chance.next() as u16, tags, data, ..echo(chance.next() as u16) }
}

/// Four of ten packets are cut, or have bytes changed: mostly in the headers, where it matters.
fn damage(frame: &mut Vec<u8>, chance: &mut Chance) {
    match chance.below(10) {
        0 => {
            let length = 14 + chance.below(frame.len() as u64 - 13) as usize;
            frame.truncate(length);
        }
        1 => {
            let at = 12 + chance.below(frame.len().min(120) as u64 - 12) as usize;
            frame[at] = chance.next() as u8;
        }
        2 => {
            let at = chance.below(frame.len() as u64) as usize;
            frame[at] ^= 1 << chance.below(8);
        }
        3 => {
            let field = chance.of(&[12, 14, 16, 17, 18, 20, 21, 22, 23, 34, 36, 46, 47, 54, 56]);
            let values = [0, 1, 4, 6, 17, 44, 0x45, 0x4f, 0x50, 0x60, 0x80, 0xff];
            if let Some(byte) = frame.get_mut(field) {
                *byte = chance.of(&values);
            }
        }
        _ => {}
    }
}
